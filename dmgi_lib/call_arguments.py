"""How a pipeline call reads its x, pairs it with prompts and noise, and hands images back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from dmgi_lib.dataset import to_uint8
from dmgi_lib.masks import load_mask, load_scribble, mask_to_rgb, scribble_to_rgb

OUTPUT_TYPES = ("pil", "np", "pt")


def visual_input(mask: Any, scribble: Any, size: int) -> tuple[str, torch.Tensor]:
    """("mask" | "scribble", pictures (C, 3, size, size) in [0, 1]) of what a call was given."""
    if (mask is None) == (scribble is None):
        raise ValueError(
            f"{'neither' if mask is None else 'both'} mask and scribble came; expected exactly"
            " one: pipe(prompt, mask=...) or pipe(prompt, scribble=...)."
        )
    kind, given = ("mask", mask) if mask is not None else ("scribble", scribble)
    items = list(given) if isinstance(given, (list, tuple)) else [given]
    if not items:
        raise ValueError(f"an empty list of {kind}s came; expected at least one.")
    if kind == "mask":
        return kind, mask_to_rgb(torch.stack([load_mask(item, size) for item in items]))
    return kind, scribble_to_rgb(torch.stack([load_scribble(item, size) for item in items]))


def paired(prompts: int, conditions: int, copies: int) -> tuple[list[int], list[int]]:
    """Prompt and condition index of each image."""
    if prompts == 0 or (prompts != conditions and 1 not in (prompts, conditions)):
        raise ValueError(
            f"{prompts} prompts and {conditions} masks or scribbles came; expected equal numbers,"
            " or one of either."
        )
    pairs = max(prompts, conditions)
    rows = [i if prompts > 1 else 0 for i in range(pairs) for _ in range(copies)]
    columns = [i if conditions > 1 else 0 for i in range(pairs) for _ in range(copies)]
    return rows, columns


def noise_sources(
    generator: torch.Generator | Sequence[torch.Generator] | None, images: int
) -> torch.Generator | list[torch.Generator]:
    """One source for all images or one for each; seed 0 if none was given."""
    if generator is None:
        return torch.Generator().manual_seed(0)
    if isinstance(generator, torch.Generator):
        return generator
    generators = list(generator)
    if len(generators) != images:
        raise ValueError(
            f"{len(generators)} generators came for {images} images; expected one, or one per"
            " image."
        )
    return generators


def formatted(images: torch.Tensor, output_type: str) -> Any:
    """(B, 3, H, W) in [-1, 1] as one of OUTPUT_TYPES."""
    if output_type == "pt":
        return images
    pixels = to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()
    if output_type == "np":
        return pixels.astype(np.float32) / 255.0
    return [Image.fromarray(picture) for picture in pixels]
