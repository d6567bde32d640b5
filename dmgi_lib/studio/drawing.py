"""One drawing of the studio: what was asked, and what the pipeline made of it."""

from __future__ import annotations

import io
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from dmgi_lib.pipeline import DMGIPipeline


@dataclass(frozen=True)
class Request:
    """What is asked of the pipeline.

    number: counts requests, so that an older answer never replaces a newer one
    live: a preview, which is not kept
    mode, condition: "mask" or "scribble", and its (H, W) uint8 pixels
    seed: of the first face; face i has seed + i
    """

    number: int
    live: bool
    prompt: str
    mode: str
    condition: np.ndarray[Any, Any]
    seed: int
    exit_step: int
    faces: int = 1


@dataclass(frozen=True)
class Result:
    """What came of a request.

    images: the faces      latents: (faces, num_ws, w_dim)      notes: the pipeline's warnings
    styles: of each face, name → share
    cameras: (faces, 25) from which heads are seen; None where G draws pictures
    """

    request: Request
    images: list[Image.Image]
    latents: torch.Tensor
    notes: list[str]
    seconds: float
    styles: list[dict[str, float]]
    cameras: torch.Tensor | None = None

    def pngs(self) -> list[bytes]:
        """The faces as files."""
        files = []
        for image in self.images:
            file = io.BytesIO()
            image.save(file, "PNG")
            files.append(file.getvalue())
        return files

    def code(self, face: int) -> bytes:
        """safetensors file of one face: `latents` (1, num_ws, w_dim) for `G.synthesis`."""
        asked = self.request
        told = {"prompt": asked.prompt, "seed": asked.seed + face, "exit_step": asked.exit_step}
        return safetensors.torch.save(
            {"latents": self.latents[face : face + 1].float().cpu().contiguous()},
            metadata={name: str(value) for name, value in told.items()},
        )


def drawn(pipe: DMGIPipeline, request: Request) -> Result:
    """Draws a request.

    Raises:
        ValueError: as the pipeline does.
    """
    began = time.perf_counter()
    condition: dict[str, Any] = {request.mode: request.condition}
    noise = [torch.Generator().manual_seed(request.seed + i) for i in range(request.faces)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        out = pipe(
            request.prompt,
            **condition,
            exit_step=request.exit_step,
            num_images_per_prompt=request.faces,
            generator=noise,
        )
    # Deprecations are no business of who paints.
    notes = [str(w.message) for w in caught if w.category is UserWarning]
    seconds = time.perf_counter() - began
    notes = list(dict.fromkeys(notes))
    styles = out.styles or [{} for _ in out.images]
    return Result(request, out.images, out.latents, notes, seconds, styles, out.camera)
