"""Smooth pictures from few light paths: skin and cloth by their light, hair along its strands."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, median_filter

from data_prep.faces128.part import Part
from data_prep.faces128.regions import CLASS


@dataclass(frozen=True)
class FirstHits:
    """What the camera's rays hit first, by pixel.

    Attributes:
        mask: (H, W) uint8, the most frequent class id.
        depth: (H, W) its mean ray distance in world units, 0 where nothing is hit.
        albedo: (H, W, 3) mean colour, one value for green and blue, blurred like the picture.
        purity: (H, W) share of that class in what the pixel shows.
    """

    mask: np.ndarray
    depth: np.ndarray
    albedo: np.ndarray
    purity: np.ndarray


SMOOTH = [
    CLASS[name]
    for name in (
        "skin", "nose", "neck", "l_ear", "r_ear", "u_lip", "l_lip", "mouth", "cloth", "hat",
        "eye_g",
    )
]  # fmt: skip
STRANDS = [CLASS[name] for name in ("hair", "l_brow", "r_brow")]
REACH = 4  # strands are followed so many pixels each way, in a picture of 128


def denoise(linear: np.ndarray, hits: FirstHits, strands: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3) without grain; eyes only keep theirs, and edges stay as they are.

    On smooth classes the light is filtered, not the colour, so freckles and prints stay sharp.

    Args:
        strands: (H, W, 2) from `strand_directions`.
    """
    eyes = np.isin(hits.mask, [CLASS["l_eye"], CLASS["r_eye"]])[..., None]
    ceiling = 1.6 * median_filter(linear, (3, 3, 1)) + 0.01
    plain = ~eyes & (hits.purity > 0.9)[..., None]
    linear = np.where(plain, np.minimum(linear, ceiling), linear)
    albedo = hits.albedo + 0.02  # what shines does so on black, too
    smooth = np.isin(hits.mask, SMOOTH)[..., None]
    out = np.where(smooth, albedo * _even_light(linear / albedo, hits), linear)
    for label in STRANDS:
        inside = hits.mask == label
        if inside.any():
            out[inside] = _comb(linear, inside, hits.purity, strands)
    least = np.where(np.isin(hits.mask, STRANDS), 0.25, 0.5)  # hair is never alone in a pixel
    share = np.clip((hits.purity - least) / 0.4, 0, 1)[..., None]
    return linear + share * (out - linear)


def _even_light(light: np.ndarray, hits: FirstHits) -> np.ndarray:
    """Cross-bilateral filter inside classes; `light` (H, W, 3) is the picture without its colours.

    Weights compare light smoothed over 3x3 pixels, so single noisy pixels do not protect them.
    """
    guide = gaussian_filter(np.log(light + 0.05), (0.9, 0.9, 0))
    total = np.zeros_like(light)
    weights = np.zeros((*light.shape[:2], 1))
    for dy in range(-2, 3):
        for dx in range(-2, 3):

            def shifted(a: np.ndarray) -> np.ndarray:
                return np.roll(a, (dy, dx), (0, 1))  # noqa: B023

            distance = ((guide - shifted(guide)) ** 2).sum(-1, keepdims=True)
            same = ((hits.mask == shifted(hits.mask)) * shifted(hits.purity))[..., None]
            weight = np.exp(-distance / 0.02 - (dx * dx + dy * dy) / 2.6) * same
            total += weight * shifted(light)
            weights += weight
    return total / weights


def strand_directions(parts: list[Part], camera: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """(H, W, 2) cosine and sine of twice the angle at which visible hair and brows run.

    Their length in [0, 1] is how far the strands of a pixel agree.

    Args:
        parts: in world units. camera: EG3D's 25 numbers. depth: (H, W), see `FirstHits`.
    """
    size = len(depth)
    total = np.zeros((size * size, 3))
    rotation, origin = camera[:16].reshape(4, 4)[:3, :3], camera[[3, 7, 11]]
    for part in parts:
        if part.faces is not None or part.classes not in STRANDS:
            continue
        seen = part.vertices - origin
        x, y, z = (np.einsum("nkd,d->nk", seen, axis) for axis in rotation.T)
        at = np.stack([x, y], -1) / z[..., None] * camera[16] * size + size / 2
        step = np.diff(at, axis=1)
        column, row = np.floor((at[:, 1:] + at[:, :-1]) / 2).astype(int).transpose(2, 0, 1)
        away = np.linalg.norm(seen, axis=2)
        inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
        pixel = np.where(inside, row * size + column, 0)
        front = inside & ((away[:, 1:] + away[:, :-1]) / 2 < depth.ravel()[pixel] + 0.02)
        length = np.hypot(step[..., 0], step[..., 1])[front] + 1e-9
        cos, sin = (step[front] / length[:, None]).T
        for column_, value in enumerate((cos * cos - sin * sin, 2 * sin * cos, 1 + 0 * cos)):
            weighted = np.bincount(pixel[front], length * value, size * size)
            total[:, column_] += weighted
    even = gaussian_filter(total.reshape(size, size, 3), (size / 128, size / 128, 0))
    return even[..., :2] / np.maximum(even[..., 2:], 1e-6)


def _comb(
    linear: np.ndarray, inside: np.ndarray, purity: np.ndarray, strands: np.ndarray
) -> np.ndarray:
    """(N, 3) the pixels of `inside` (H, W), averaged along strands that agree, else around."""
    scale = len(inside) / 128
    rows, columns = np.nonzero(inside)
    agree = np.hypot(strands[..., 0], strands[..., 1])[rows, columns, None]
    angle = np.arctan2(strands[..., 1], strands[..., 0]) / 2
    heading = np.stack([np.sin(angle), np.cos(angle)])  # rows, columns
    weight = inside * np.maximum(purity, 1e-3)
    layers = [weight, *(linear * weight[..., None]).transpose(2, 0, 1)]
    along = np.stack([layer[rows, columns] for layer in layers])
    for sense in (1.0, -1.0):
        at = np.stack([rows, columns]).astype(float)
        before = sense * heading[:, rows, columns]
        for step in range(1, REACH + 1):
            at = at + before * scale
            nearest = np.clip(at.round().astype(int), 0, len(inside) - 1)
            ahead = heading[:, nearest[0], nearest[1]]
            before = ahead * np.where((ahead * before).sum(0) < 0, -1.0, 1.0)
            share = np.exp(-((step / (0.6 * REACH)) ** 2))
            along += share * np.stack([map_coordinates(x, at, order=1) for x in layers])
    width = (0.6 * scale,) * 2  # strands are thinner than pixels
    around = np.stack([gaussian_filter(layer, width)[rows, columns] for layer in layers])
    around = 0.3 * linear[rows, columns] + 0.7 * (around[1:] / around[0]).T
    share = np.clip(1.6 * agree - 0.3, 0, 1)
    return share * (along[1:] / along[0]).T + (1 - share) * around
