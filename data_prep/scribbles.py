"""Scribbles: the paper's second visual input x (Fig. 1, third row), drawn from mask and image.

A scribble is a sparse line drawing: thick strokes along the outlines of the face parts, and along
a few long, strong contours of the image (locks of hair, folds of cloth). How the paper's scribbles
were made is not specified in its available sources; everything below is our choice. The paper
prints black strokes on white; here strokes are white (255) on black (0), the convention of the
ControlNet family, so that "no stroke" is zero.

Only numpy and scipy are used and nothing is drawn at random: same input, same scribble.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["ScribbleStyle", "scribble"]

_NUM_CLASSES = 19  # CelebAMask-HQ
_NOSE = 2
_EIGHT = np.ones((3, 3), dtype=bool)  # 8-connected neighbourhood


@dataclass(frozen=True)
class ScribbleStyle:
    """How a scribble is drawn; lengths are in pixels of a 128-pixel-wide image and scale with it.

    Attributes:
        thickness: width of a stroke.
        min_region: mask regions of fewer pixels than this (rendering specks) are not outlined.
        min_stroke: outlines shorter than this are dropped.
        min_contour: image contours shorter than this are dropped.
        max_contour_share: image contours may cover at most this share of the image's pixels,
            before thickening; the strongest are kept.
        contour_strength: smallest mean luminance slope (per pixel, luminance in [0, 1]) of an
            image contour.
        clearance: image contours closer than this to an outline are dropped, so that no contour is
            drawn twice.
    """

    thickness: int = 3
    min_region: int = 12
    min_stroke: int = 8
    min_contour: int = 14
    max_contour_share: float = 0.012
    contour_strength: float = 0.035
    clearance: float = 5.0


def scribble(
    mask: NDArray[np.uint8],
    image: NDArray[np.uint8] | None = None,
    style: ScribbleStyle | None = None,
) -> NDArray[np.uint8]:
    """Draw the scribble of one face.

    Args:
        mask:  (H, W) integers, class ids 0..18 in the CelebAMask-HQ order.
        image: (H, W, 3) uint8 RGB, or None to draw the outlines of the mask alone.
        style: stroke widths and thresholds; None is `ScribbleStyle()`.

    Returns:
        (H, W) uint8: 255 on strokes, 0 elsewhere.

    Raises:
        ValueError: for a mask that is not a (H, W) integer array of ids 0..18, or an image of
            another size or type.
    """
    mask, style = _checked(mask, image), style or ScribbleStyle()
    scale = mask.shape[1] / 128
    lines = _outlines(mask, style, scale)
    if image is not None:
        lines |= _contours(image, lines, style, scale)
    return np.where(_thicken(lines, style.thickness * scale), 255, 0).astype(np.uint8)


def _outlines(mask: NDArray[np.uint8], style: ScribbleStyle, scale: float) -> NDArray[np.bool_]:
    """One-pixel lines between the regions of a mask, (H, W) bool."""
    mask = _without_specks(mask, style.min_region * scale**2)
    lines = np.zeros(mask.shape, dtype=bool)
    lines[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    lines[:-1, :] |= mask[:-1, :] != mask[1:, :]

    # A nose has an outline in the mask, but no hand draws its bridge: keep wings and base.
    nose = mask == _NOSE
    if nose.any():
        rows = np.flatnonzero(nose.any(axis=1))
        base_row = rows[0] + 0.65 * (rows[-1] - rows[0])
        near_nose = ndimage.binary_dilation(nose, _EIGHT)
        only_nose = near_nose & np.isin(mask, (1, _NOSE))
        lines[only_nose & (np.arange(mask.shape[0])[:, None] < base_row)] = False
    return _long_enough(lines, style.min_stroke * scale)


def _without_specks(mask: NDArray[np.uint8], smallest: float) -> NDArray[np.uint8]:
    """Give every pixel of a region below `smallest` pixels the class of the nearest big region."""
    speck = np.zeros(mask.shape, dtype=bool)
    for class_id in np.unique(mask):
        regions, count = ndimage.label(mask == class_id, _EIGHT)
        sizes = np.bincount(regions.ravel(), minlength=count + 1)
        small = sizes < smallest
        small[0] = False
        speck |= small[regions]
    if speck.all() or not speck.any():
        return mask
    rows, columns = ndimage.distance_transform_edt(
        speck, return_distances=False, return_indices=True
    )
    return mask[rows, columns]


def _contours(
    image: NDArray[np.uint8],
    outlines: NDArray[np.bool_],
    style: ScribbleStyle,
    scale: float,
) -> NDArray[np.bool_]:
    """Long, strong luminance edges away from the outlines, one pixel wide, (H, W) bool."""
    luminance = image.astype(np.float64) @ np.array([0.299, 0.587, 0.114]) / 255
    sigma = 1.5 * scale
    slope_y = ndimage.gaussian_filter(luminance, sigma, order=(1, 0))
    slope_x = ndimage.gaussian_filter(luminance, sigma, order=(0, 1))
    slope = np.hypot(slope_x, slope_y) * scale  # per pixel of a 128-pixel-wide image

    # Thinning: keep a pixel whose slope is the largest along its own gradient direction.
    unit = np.maximum(np.hypot(slope_x, slope_y), 1e-12)
    y, x = np.indices(slope.shape, dtype=np.float64)
    step = np.stack([slope_y / unit, slope_x / unit])
    position = np.stack([y, x])
    ahead = ndimage.map_coordinates(slope, position + step, order=1, mode="nearest")
    behind = ndimage.map_coordinates(slope, position - step, order=1, mode="nearest")
    ridge = (slope > ahead) & (slope >= behind) & (slope > 0.5 * style.contour_strength)

    if outlines.any():
        ridge &= ndimage.distance_transform_edt(~outlines) > style.clearance * scale
    border = max(1, round(2 * scale))  # the picture's own edge is no contour
    ridge[:border], ridge[-border:], ridge[:, :border], ridge[:, -border:] = (False,) * 4

    strokes, count = ndimage.label(ridge, _EIGHT)
    if count == 0:
        return ridge
    ids = np.arange(1, count + 1)
    length = np.bincount(strokes.ravel(), minlength=count + 1)[1:]
    strength = ndimage.mean(slope, strokes, ids)
    eligible = (length >= style.min_contour * scale) & (strength >= style.contour_strength)
    order = np.argsort(-(strength * length), kind="stable")
    budget = style.max_contour_share * ridge.size * (1 / scale)  # lines grow with H, not with H²
    kept = [i for i in order if eligible[i]]
    within = np.cumsum(length[kept]) <= budget
    return np.isin(strokes, ids[np.array(kept, dtype=int)[within]])


def _long_enough(lines: NDArray[np.bool_], shortest: float) -> NDArray[np.bool_]:
    strokes, count = ndimage.label(lines, _EIGHT)
    length = np.bincount(strokes.ravel(), minlength=count + 1)
    keep = length >= shortest
    keep[0] = False
    return keep[strokes]


def _thicken(lines: NDArray[np.bool_], thickness: float) -> NDArray[np.bool_]:
    """Widen one-pixel lines to about `thickness` pixels with a round pen."""
    radius = max(0.0, (thickness - 1) / 2)
    if radius == 0 or not lines.any():
        return lines
    return ndimage.distance_transform_edt(~lines) <= radius + 1e-6


def _checked(mask: NDArray[np.uint8], image: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    mask = np.asarray(mask)
    if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.integer):
        raise ValueError(
            f"scribble() got a mask of shape {mask.shape} and type {mask.dtype}; expected a (H, W) "
            "array of integer class ids. For an RGB or floating-point mask use "
            "dmgi_lib.masks.load_mask first."
        )
    if mask.size == 0 or mask.min() < 0 or mask.max() >= _NUM_CLASSES:
        found = "an empty mask" if mask.size == 0 else f"ids from {mask.min()} to {mask.max()}"
        raise ValueError(
            f"scribble() got {found}; expected ids 0..18 in the CelebAMask-HQ order. "
            "Map other label sets to that order first."
        )
    if image is not None:
        image = np.asarray(image)
        if image.shape != (*mask.shape, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"scribble() got an image of shape {image.shape} and type {image.dtype}; expected "
                f"{(*mask.shape, 3)} and uint8, the size of the mask. Resize the image, or pass "
                "None to draw the mask's outlines alone."
            )
    return mask.astype(np.uint8)
