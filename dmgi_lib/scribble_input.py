"""Scribbles x: strokes that sketch a face, read from any common way of drawing them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from PIL import Image

from dmgi_lib.masks import CLASSES, PALETTE
from dmgi_lib.pictures import as_array, opened, square_of

Array = np.ndarray[Any, Any]

FAINTEST = 64  # of 255: what differs less from the ground is no stroke
DENSEST = 0.45  # share of a picture that strokes can cover; those of the face world cover up to .31


def load_scribble(scribble: Any, size: int | None = 128, fit: str | None = None) -> torch.Tensor:
    """Reads and validates a scribble: bright strokes, white or in colour, on black.

    Dark strokes on a bright ground are turned over, with a warning; on a transparent ground,
    strokes of any colour count.

    Args:
        scribble: path, PIL image, or array/tensor (H, W), or (H, W, 3 or 4) in colour: bool,
            integer 0..255 (or 0 and 1), or float 0..1.
        size: edge of the result in pixels; None keeps the given size. Thin strokes survive.
        fit: "pad" or "crop" a scribble that is not square; None refuses it.

    Returns:
        uint8 tensor (size, size), 0 or 255.

    Raises:
        ValueError: wrong type, shape, dtype or values; a mask. FileNotFoundError: no such file.
    """
    pixels = _pixels(opened(scribble, "scribble"))
    square = square_of(pixels.shape, "scribble", fit)
    pixels = _to_255(pixels)
    _refuse_mask(square.nearest(pixels, min(square.edge, 256)))
    strokes = square.largest(_strokes(pixels), square.edge if size is None else size)
    if not strokes.any():
        warnings.warn(
            "scribble holds no strokes, so the picture will follow the text alone; expected white"
            " strokes on black.",
            stacklevel=2,
        )
    elif strokes.mean() > DENSEST:
        warnings.warn(
            f"strokes cover {strokes.mean():.0%} of the scribble, those that the model knows at"
            f" most {DENSEST:.0%}; expected thin lines, not a photograph or filled areas.",
            stacklevel=2,
        )
    return torch.from_numpy(np.where(strokes, 255, 0).astype(np.uint8))


def _pixels(source: Any) -> Array:
    """(H, W), (H, W, 3) or (H, W, 4) of any accepted kind, values unchecked."""
    if isinstance(source, Image.Image) and source.mode in ("P", "PA", "LA", "La", "CMYK", "YCbCr"):
        clear = "transparency" in source.info or source.mode in ("PA", "LA", "La")
        source = source.convert("RGBA" if clear else "RGB")
    return as_array(source, "scribble")


def _to_255(pixels: Array) -> Array:
    """Pixels as uint8 0..255."""
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * 255
    if pixels.dtype.kind not in "iuf":
        raise ValueError(
            f"scribble has dtype {pixels.dtype}; expected bool, integers 0..255 or floats 0..1."
        )
    low, high = pixels.min(), pixels.max()
    top = 1 if pixels.dtype.kind == "f" else 255
    if not (low >= 0 and high <= top):  # NaN too
        raise ValueError(
            f"scribble values run from {low} to {high}; expected 0..{top} for {pixels.dtype}."
        )
    if pixels.dtype.kind == "f":
        return np.round(pixels * 255).astype(np.uint8)
    return pixels.astype(np.uint8) * (255 if high == 1 else 1)


def _refuse_mask(pixels: Array) -> None:
    """Raises ValueError for class ids, or a picture painted in four or more of their colours."""
    if pixels.ndim == 2:
        is_mask = 1 < pixels.max() < len(CLASSES)
    else:
        known = (pixels[..., None, :3] == PALETTE).all(-1)  # [H, W, class]
        is_mask = bool(known.any(-1).all() and known.any((0, 1)).sum() >= 4)
    if is_mask:
        raise ValueError(
            "scribble looks like a mask of class ids; expected white strokes on black. Pass it as"
            " mask=..., or draw its outlines: data_prep.scribbles makes scribbles of masks."
        )


def _strokes(pixels: Array) -> Array:
    """(H, W) bool: where (H, W[, 3 or 4]) uint8 pixels show strokes."""
    if pixels.ndim == 2:
        brightest = darkest = pixels
    else:
        red, green, blue, *alpha = np.moveaxis(pixels, -1, 0)
        if alpha and alpha[0].min() < FAINTEST <= alpha[0].max():
            strokes: Array = alpha[0] >= FAINTEST  # on a transparent ground
            return strokes
        brightest = np.maximum(np.maximum(red, green), blue)
        darkest = np.minimum(np.minimum(red, green), blue)
    strokes = brightest >= FAINTEST
    if (brightest > 127).mean() <= 0.5:
        return strokes
    warnings.warn(
        "scribble is mostly bright, so it was turned over: expected white strokes on black. If it"
        " was right as it came, draw thinner strokes.",
        stacklevel=3,
    )
    return darkest <= 255 - FAINTEST
