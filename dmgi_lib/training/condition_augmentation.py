"""Conditions as hands draw them: rendered masks and scribbles made rough, at random.

    masks = by_hand("mask", masks, share=0.5, rng=torch.Generator().manual_seed(0))

A network that has only seen rendered conditions follows drawn ones badly: nobody paints a lip two
pixels high, or strands of hair. So a part of what it learns from is drawn over: outlines that
tremble and cut corners, parts as ellipses and polygons, pens too thick and too thin. What a drawer
surely paints stays: skin, hair, hat, cloth, eyes, brows, nose, and whether the mouth is open. All
of it is our choice (not specified in the paper's available sources).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from dmgi_lib.masks import CLASSES

SKIN, NOSE, GLASSES, L_EYE, R_EYE, L_BROW, R_BROW, L_EAR, R_EAR, MOUTH, U_LIP, L_LIP = range(1, 13)
EARRING, NECKLACE = CLASSES.index("ear_r"), CLASSES.index("neck_l")
# In the order in which they are painted on what is large.
PARTS = (
    *(L_EAR, R_EAR, NECKLACE, NOSE, L_BROW, R_BROW, L_EYE, R_EYE),
    *(U_LIP, L_LIP, MOUTH, GLASSES, EARRING),
)
FACE = (SKIN, NOSE, GLASSES, L_EYE, R_EYE, L_BROW, R_BROW, MOUTH, U_LIP, L_LIP)
LEFT_OUT = {L_EAR: 0.15, R_EAR: 0.15, EARRING: 0.3, NECKLACE: 0.3, GLASSES: 0.05}  # probabilities
IDS = np.arange(len(CLASSES))  # a table of 19 is looked up faster than all pixels are compared
SMALLEST = 5  # pixels of a part at 128 px; a speck is not drawn
OPEN = 25  # pixels of a mouth at 128 px; fewer show between closed lips
UP_AND_LEFT = np.array([[0, 1, 0], [1, 1, 0], [0, 0, 0]])  # eats no stroke of two pixels whole

Mask = NDArray[np.uint8]
Region = NDArray[np.bool_]


def by_hand(
    kind: str,
    conditions: torch.Tensor,
    share: float,
    rng: torch.Generator | Sequence[torch.Generator],
) -> torch.Tensor:
    """Some of the conditions as if drawn by hand, each with a strength of its own.

    Args:
        kind:       "mask" or "scribble"
        conditions: (B, H, W) uint8, class ids 0..18 or strokes 0 and 255
        share:      probability of each to be changed, 0..1; 0 draws nothing from `rng`
        rng:        CPU generator, or one a sample, so that a sample does not depend on its batch

    Returns:
        (B, H, W) uint8 of the same kind on the same device; changed ones are computed on the CPU.

    Raises:
        ValueError: share is outside 0..1.
    """
    check_share(share)
    if not share:
        return conditions
    one = {"mask": _mask_by_hand, "scribble": _scribble_by_hand}[kind]
    rngs = [rng] * len(conditions) if isinstance(rng, torch.Generator) else rng
    result = conditions.cpu().numpy().copy()
    for row, generator in enumerate(rngs):
        drawn, seed = torch.randint(2**31, (2,), generator=generator).tolist()
        if drawn < share * 2**31:
            result[row] = one(result[row], np.random.default_rng(seed))
    return torch.from_numpy(result).to(conditions.device)


def check_share(share: float) -> None:
    """Raises ValueError unless it is a share of conditions, 0..1."""
    if not 0 <= share <= 1:
        raise ValueError(
            f"augment came as {share}; expected the share of conditions that are drawn over, from"
            " 0 (none) to 1 (all)."
        )


def _mask_by_hand(mask: Mask, rng: np.random.Generator) -> Mask:
    """(H, W) class ids -> the same face as someone might have painted it."""
    strength, scale = rng.uniform(0.3, 1.0), mask.shape[1] / 128
    mask = _trembling(mask, 2.5 * strength, rng)
    boxes = ndimage.find_objects(mask, len(CLASSES) - 1)
    is_open = (mask == MOUTH).sum() > OPEN * scale**2
    if is_open and rng.random() < 0.15:  # a hole without lips is still an open mouth
        mask = np.where(np.isin(IDS, (U_LIP, L_LIP))[mask], MOUTH, mask).astype(np.uint8)
        boxes = ndimage.find_objects(mask, len(CLASSES) - 1)
    left_out = {part for part, chance in LEFT_OUT.items() if rng.random() < chance}
    if not boxes[L_EYE - 1] or not boxes[R_EYE - 1]:
        left_out.discard(GLASSES)  # dark ones stand for the eyes

    oval = rng.random() < 0.3 * strength
    result = _without(mask, (*PARTS, SKIN) if oval else PARTS)
    result = _coarse(result, scale * rng.uniform(3, 4 + 7 * strength), rng)
    if oval:
        result[_rounded(np.isin(IDS, FACE)[mask], 0, 1.0, rng)] = SKIN
    corners = 0 if rng.random() < 0.6 else int(rng.integers(6, 9))  # of all parts alike
    redrawn, size = rng.random() < 0.3 + 0.6 * strength, 1 + strength * rng.uniform(-0.1, 0.2)
    for part in PARTS:
        if part in left_out or not boxes[part - 1]:
            continue
        window = tuple(
            slice(max(0, round(side.start - 10 * scale)), round(side.stop + 10 * scale))
            for side in boxes[part - 1]
        )
        region = mask[window] == part
        if region.sum() < SMALLEST * scale**2:
            continue
        by = np.rint(rng.normal(0, 0.7 * strength * scale, 2))
        region = ndimage.shift(region, by, order=0, mode="nearest")
        if redrawn and part not in (GLASSES, EARRING, NECKLACE) and _is_compact(region):
            region = _rounded(region, corners, size, rng)
        elif rng.random() < strength:
            region = ndimage.binary_dilation(region, iterations=max(1, round(scale)))
        result[window][region] = part
    return result


def _scribble_by_hand(strokes: Mask, rng: np.random.Generator) -> Mask:
    """(H, W) 0 and 255 -> the same sketch in another hand."""
    strength, scale = rng.uniform(0.3, 1.0), strokes.shape[1] / 128
    drawn = _trembling(strokes, 2.5 * strength, rng) > 0
    whole, (pieces, sizes) = drawn.copy(), _pieces(drawn)
    longest = pieces == sizes[1:].argmax() + 1 if len(sizes) > 1 else drawn
    gaps = rng.permutation(np.argwhere(drawn))[: int(rng.uniform(0, 14) * strength)]
    for y, x in gaps:
        _disc(drawn, y, x, scale * rng.uniform(1.5, 2 + 2 * strength), False)
    # Only pieces of the longest stroke are left out: the others are eyes, nose and mouth.
    pieces, sizes = _pieces(drawn & longest)
    forgotten = (sizes < 0.25 * whole.sum()) & (rng.random(len(sizes)) < 0.3 * strength)
    forgotten[0] = False
    drawn &= ~forgotten[pieces]
    if drawn.sum() < 0.6 * whole.sum():
        drawn = whole
    for _ in range(int(rng.uniform(0, 4) * strength)):
        _stray(drawn, scale * rng.uniform(8, 30), scale, rng)
    pen = rng.random()
    if pen < 0.3:
        drawn = ndimage.binary_erosion(drawn, UP_AND_LEFT, max(1, round(scale)), border_value=1)
    elif pen > 0.75:
        drawn = ndimage.binary_dilation(drawn, iterations=max(1, round(scale)))
    return np.where(drawn, 255, 0).astype(np.uint8)


def _pieces(drawn: Region) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Connected strokes: id per pixel, and pixels per id (0: ground)."""
    pieces, _ = ndimage.label(drawn, np.ones((3, 3), bool))
    return pieces, np.bincount(pieces.ravel())


def _trembling(picture: Mask, amplitude: float, rng: np.random.Generator) -> Mask:
    """Moved by a smooth field, `amplitude` pixels at 128 px at most about."""
    height, width = picture.shape
    field = np.zeros((2, height, width), np.float32)
    for knots, share in ((5, 0.5), (14, 0.25)):  # proportions, and a hand's tremor
        down, across = (_hats(np.linspace(0, n - 1, knots), n) for n in picture.shape)
        noise = rng.standard_normal((2, knots, knots)).astype(np.float32)
        field += share * (down @ noise @ across.T)
    field *= amplitude * width / 128
    y = np.rint(field[0] + np.arange(height)[:, None]).astype(np.intp).clip(0, height - 1)
    x = np.rint(field[1] + np.arange(width)).astype(np.intp).clip(0, width - 1)
    return picture[y, x]


def _hats(knots: NDArray[np.floating], size: int) -> NDArray[np.float32]:
    """(size, K): weights of linear interpolation between K rising knots at pixels 0 .. size - 1."""
    numbers = np.arange(len(knots))
    place = np.interp(np.arange(size), knots, numbers)
    return np.maximum(0, 1 - np.abs(place[:, None] - numbers)).astype(np.float32)


def _coarse(mask: Mask, distance: float, rng: np.random.Generator) -> Mask:
    """Outlines cut short: each class is known at uneven knots alone, and linear in between."""

    def smooth(size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        count = max(3, round(size / distance))
        knots = np.linspace(0, size - 1, count)
        knots[1:-1] += rng.uniform(-0.3, 0.3, count - 2) * size / count
        hats = _hats(knots, size)
        return hats, (hats / hats.sum(0)).T

    (down, pick_rows), (across, pick_columns) = (smooth(n) for n in mask.shape)
    classes = np.flatnonzero(np.bincount(mask.ravel())).astype(np.uint8)
    known = (mask == classes[:, None, None]).astype(np.float32)
    shares = down @ (pick_rows @ known @ pick_columns.T) @ across.T  # (classes, H, W)
    result = classes[shares.argmax(0)]
    for one, was in zip(classes, known, strict=True):
        if 2 * (result == one).sum() < was.sum():  # too thin for the knots
            result[was > 0] = one
    return result


def _without(mask: Mask, classes: Sequence[int]) -> Mask:
    """Pixels of some classes get the class of the nearest other pixel."""
    gone = np.isin(IDS, classes)[mask]
    if gone.all():
        return mask
    nearest = ndimage.distance_transform_edt(gone, return_distances=False, return_indices=True)
    return mask[tuple(nearest)]


def _axes(region: Region) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre (2,) of a region, and its principal axes as columns (2, 2).

    Their lengths are standard deviations: along each, a whole ellipse reaches as far as 2.
    """
    points = np.argwhere(region)
    centre = points.mean(0)
    apart = points - centre
    variances, directions = np.linalg.eigh(apart.T @ apart / len(apart) + np.eye(2) / 12)
    return centre, directions * np.sqrt(variances)


def _is_compact(region: Region) -> bool:
    """True if an ellipse can stand for it: no frame, and not two pieces."""
    return bool(region.sum() > 0.65 * 4 * np.pi * abs(np.linalg.det(_axes(region)[1])))


def _rounded(region: Region, corners: int, size: float, rng: np.random.Generator) -> Region:
    """The ellipse of a region's moments, or a polygon of its size, times about `size`."""
    centre, axes = _axes(region)
    rows, columns = (np.arange(n) - c for n, c in zip(region.shape, centre, strict=True))
    inverse = np.linalg.inv(axes * (size * rng.uniform(0.95, 1.1, 2)))
    u, v = (a * rows[:, None] + b * columns for a, b in inverse)
    inside: Region = u**2 + v**2 <= 4 if not corners else u**2 + v**2 <= 5.5
    turns = (np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) / max(1, corners)
    for turn in 2 * np.pi * (turns + rng.random()):
        inside &= np.cos(turn) * u + np.sin(turn) * v <= 1.85
    return inside


def _disc(region: Region, y: float, x: float, radius: float, value: bool) -> None:
    height, width = region.shape
    top, left = max(0, int(y - radius)), max(0, int(x - radius))
    rows = np.arange(top, min(height, int(y + radius) + 1))[:, None]
    columns = np.arange(left, min(width, int(x + radius) + 1))
    inside = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    region[top : top + inside.shape[0], left : left + inside.shape[1]][inside] = value


def _stray(drawn: Region, length: float, scale: float, rng: np.random.Generator) -> None:
    """A bent stroke somewhere in the picture."""
    start = rng.uniform(0, 1, 2) * drawn.shape
    turn = 2 * np.pi * rng.random() + np.linspace(0, rng.normal(0, 0.8), int(length) + 1)
    path = start[:, None] + np.cumsum([np.sin(turn), np.cos(turn)], 1)
    for y, x in path.T:
        if 0 <= y < drawn.shape[0] and 0 <= x < drawn.shape[1]:
            _disc(drawn, y, x, 1.5 * scale, True)
