"""How a pipeline call reads its x, pairs it with prompts and noise, and hands images back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from dmgi_lib.checks import one_of
from dmgi_lib.dataset import to_uint8
from dmgi_lib.masks import PICTURES, load_mask
from dmgi_lib.scribble_input import load_scribble

OUTPUT_TYPES = ("pil", "np", "pt")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
MOST_IMAGES = 4096  # of one call; memory ends far below


def chosen_dtype(dtype: Any, torch_dtype: Any) -> torch.dtype:
    """One of DTYPES by either of its names, float32 by default. Raises ValueError."""
    if dtype is not None and torch_dtype is not None and dtype != torch_dtype:
        raise ValueError(
            f"dtype came as {dtype} and torch_dtype as {torch_dtype}; expected one of them, since"
            " they mean the same."
        )
    chosen: torch.dtype = one_of("dtype", dtype or torch_dtype or torch.float32, DTYPES)
    return chosen


def visual_input(
    mask: Any, scribble: Any, size: int, fit: str | None = None
) -> tuple[str, torch.Tensor]:
    """("mask" | "scribble", pictures (C, 3, size, size) in [0, 1]) of what a call was given."""
    if (mask is None) == (scribble is None):
        came = "neither mask nor scribble" if mask is None else "both mask and scribble"
        raise ValueError(
            f"{came} came; expected exactly one: pipe(prompt, mask=...) or"
            " pipe(prompt, scribble=...)."
        )
    kind, given = ("mask", mask) if mask is not None else ("scribble", scribble)
    items = list(given) if isinstance(given, (list, tuple)) else [given]
    if not items:
        raise ValueError(f"an empty list of {kind}s came; expected at least one.")
    load = load_mask if kind == "mask" else load_scribble
    return kind, PICTURES[kind](torch.stack([load(item, size, fit) for item in items]))


def paired(prompts: int, conditions: int, copies: int) -> tuple[list[int], list[int]]:
    """Prompt and condition index of each image."""
    if prompts == 0 or (prompts != conditions and 1 not in (prompts, conditions)):
        raise ValueError(
            f"{prompts} prompts and {conditions} masks or scribbles came; expected equal numbers,"
            " or one of either."
        )
    pairs = max(prompts, conditions)
    if pairs * copies > MOST_IMAGES:
        raise ValueError(
            f"num_images_per_prompt came as {copies}, which makes {pairs * copies} images; expected"
            f" at most {MOST_IMAGES} in one call. Draw them in several calls."
        )
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
    generators: list[Any] = list(generator) if isinstance(generator, (list, tuple)) else [generator]
    for source in generators:
        if not isinstance(source, torch.Generator):
            raise ValueError(
                f"generator came as {source!r}; expected a torch.Generator, such as"
                " torch.Generator().manual_seed(3), or a list with one per image."
            )
    if len(generators) != images:
        raise ValueError(
            f"{len(generators)} generators came for {images} images; expected one, or one per"
            " image."
        )
    return generators


def formatted(images: torch.Tensor, output_type: str) -> Any:
    """(B, 3, H, W) in [-1, 1] as one of OUTPUT_TYPES, float32 where it is no PIL image."""
    images = images.float()
    if output_type == "pt":
        return images
    pixels = to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()
    if output_type == "np":
        return pixels.astype(np.float32) / 255.0
    return [Image.fromarray(picture) for picture in pixels]
