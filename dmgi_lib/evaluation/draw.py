"""First act of the evaluation: pictures to disk. What is there is not drawn again.

for row in scene.rows():
    pictures, minutes = draw_to_disk(row, Path("runs/table") / row.key)
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from dmgi_lib.dataset import resized
from dmgi_lib.evaluation.samples import GroundTruth
from dmgi_lib.files import sweep, write_whole
from dmgi_lib.pipeline import DMGIPipeline

Dtype = Literal["float32", "float16", "bfloat16"]  # precision of the drawing, in commands
JUDGED_SIZE = 128  # pixels at which the judges read; larger outputs are reduced to it


def draw(
    pipe: DMGIPipeline,
    prompts: list[str],
    inputs: Tensor,
    exit_step: int,
    seed: int = 0,
    batch_size: int = 25,
    condition: str = "mask",
    num_inference_steps: int | None = None,
    cameras: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Draw one face per prompt and mask or scribble.

    Args:
        inputs:     (B, 128, 128) class ids, or strokes, as `condition` says.
        exit_step:  0…S-1, or -1 for the last.
        seed:       image i starts from noise of seed + i, whatever the batch size.
        num_inference_steps: S; None: the model's own.
        cameras:    (B, 25) of a G of heads; None: those that masks suggest.

    Returns:
        I' (B, 3, 128, 128) in [-1, 1], and I_0^d likewise if the process ran to its end.
    """
    steps = num_inference_steps or pipe.config.num_inference_steps
    images, complete = [], []
    starts = range(0, len(prompts), batch_size)
    hidden = None if len(starts) > 1 else True
    for start in tqdm(starts, desc=f"exit_step {exit_step % steps}", disable=hidden, leave=False):
        part = slice(start, start + batch_size)
        chosen = prompts[part]
        visual: dict[str, Any] = {condition: list(inputs[part])}
        output = pipe(
            chosen,
            **visual,
            exit_step=exit_step % steps,
            camera=None if cameras is None else cameras[part],
            num_inference_steps=steps,
            generator=[torch.Generator().manual_seed(seed + start + i) for i in range(len(chosen))],
            output_type="pt",
        )
        images.append(judged_size(output.images))
        if output.diffusion_images is not None:
            complete.append(judged_size(output.diffusion_images))
    return torch.cat(images), torch.cat(complete) if complete else None


def judged_size(images: Tensor) -> Tensor:
    """Pictures at the size that the judges read, in [-1, 1], float32 on the CPU."""
    return resized(images.float(), JUDGED_SIZE).clamp(-1, 1).cpu()


@torch.no_grad()
def synthesised(G: Any, w: Tensor) -> Tensor:
    """G's pictures of codes (B, num_ws, w_dim), as the judges read them."""
    parts = w.to(G.mean_latent).split(25)
    return torch.cat([judged_size(G.synthesis(part, noise_mode="const")) for part in parts])


@torch.no_grad()
def random_faces(
    pipe: DMGIPipeline, n: int, seed: int, part: slice = slice(None), psi: float = 1.0
) -> Tensor:
    """Floor: n faces of G, truncated by psi, that know neither mask nor text, or a part of them."""
    G, rng = pipe.generator, torch.Generator().manual_seed(seed)
    z = torch.randn(n, G.config.z_dim, generator=rng)[part]
    return synthesised(G, G.mapping(z.to(G.mean_latent), None, psi))


@dataclass(frozen=True)
class Row:
    """A row to draw."""

    key: str  # short name, of letters, digits and underscores
    name: str  # as printed
    draw: Callable[[slice], Tensor]  # makes some of its pictures (n, 3, 128, 128)
    made_from: dict[str, Any]  # what they depend on besides weights, test samples and seed
    against: GroundTruth  # the samples that the judges read them against, one a picture

    @property
    def count(self) -> int:
        """How many pictures it has: all N, or fewer where they are dear."""
        return len(self.against)


def place(folder: Path, key: str, facts: Mapping[str, Any]) -> Path:
    """Where what is made from these facts is kept, without a suffix.

    Its name holds a hash of the facts, so other weights, samples or options never meet an old file.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return folder / f"{key}-{digest[:10]}"


def draw_to_disk(row: Row, folder: Path, at_once: int = 25) -> tuple[Tensor, float]:
    """All pictures of a row, and the minutes that they took; those on disk are not drawn again.

    A run that was killed loses the batch of `at_once` that it was drawing. Pictures are kept as
    float32 (0.2 MB each), so that whatever is read of them is read of what was drawn.
    """
    sweep(folder, "*")  # what killed runs left
    parts, minutes = [], 0.0
    starts = range(0, row.count, at_once)
    for start in tqdm(starts, desc=row.name, disable=None, leave=False):
        part = slice(start, min(start + at_once, row.count))
        path = folder / f"{part.start}-{part.stop}.safetensors"
        if not path.exists():
            begin = time.perf_counter()
            tensors = {"pictures": row.draw(part).contiguous()}
            note = {"minutes": f"{(time.perf_counter() - begin) / 60:.3f}"}
            write_whole(path, functools.partial(save_file, tensors, metadata=note))
        with safe_open(path, framework="pt") as file:
            parts.append(file.get_tensor("pictures"))
            minutes += float(file.metadata()["minutes"])
    return torch.cat(parts), minutes
