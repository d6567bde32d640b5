"""Smooth pictures from few light paths: skin and cloth by their light, hair along its strands."""

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, median_filter

from data_prep.faces128.part import Part
from data_prep.faces128.regions import CLASS

SMOOTH = [CLASS[name] for name in ("skin", "nose", "neck", "l_ear", "r_ear", "cloth", "hat")]
REACH = 4  # strands are followed so many pixels each way, in a picture of 128


def denoise(
    linear: np.ndarray, mask: np.ndarray, albedo: np.ndarray, strands: np.ndarray
) -> np.ndarray:
    """The picture (H, W, 3) without grain; eyes, lips and brows only lose single bright pixels.

    On smooth classes the light is filtered, not the colour, so freckles and prints stay sharp.

    Args:
        mask: (H, W) class ids. albedo: (H, W, 3) of what each pixel shows.
        strands: (H, W, 2) from `strand_directions`.
    """
    eyes = np.isin(mask, [CLASS["l_eye"], CLASS["r_eye"]])[..., None]
    ceiling = 1.6 * median_filter(linear, (3, 3, 1)) + 0.01
    linear = np.where(eyes, linear, np.minimum(linear, ceiling))
    albedo = albedo + 0.02  # what shines does so on black, too
    smooth = np.isin(mask, SMOOTH)[..., None]
    out = np.where(smooth, albedo * _even_light(linear / albedo, mask), linear)
    return np.where((mask == CLASS["hair"])[..., None], _comb(linear, mask, strands), out)


def _even_light(light: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Cross-bilateral filter inside classes; `light` (H, W, 3) is the picture without its colours.

    Weights compare light smoothed over 3x3 pixels, so single noisy pixels do not protect themselves.
    """
    guide = gaussian_filter(np.log(light + 0.05), (0.9, 0.9, 0))
    total = np.zeros_like(light)
    weights = np.zeros((*light.shape[:2], 1))
    for dy in range(-2, 3):
        for dx in range(-2, 3):

            def shifted(a: np.ndarray) -> np.ndarray:
                return np.roll(a, (dy, dx), (0, 1))  # noqa: B023

            distance = ((guide - shifted(guide)) ** 2).sum(-1, keepdims=True)
            same = (mask == shifted(mask))[..., None]
            weight = np.exp(-distance / 0.02 - (dx * dx + dy * dy) / 2.6) * same
            total += weight * shifted(light)
            weights += weight
    return total / weights


def strand_directions(
    parts: list[Part], camera: np.ndarray, mask: np.ndarray, depth: np.ndarray
) -> np.ndarray:
    """(H, W, 2) cosine and sine of twice the angle at which visible hair runs over the picture.

    Their length in [0, 1] is how far the strands of a pixel agree.

    Args:
        parts: in world units. camera: EG3D's 25 numbers. mask, depth: (H, W), see `render`.
    """
    size = len(mask)
    total = np.zeros((size * size, 3))
    rotation, origin = camera[:16].reshape(4, 4)[:3, :3], camera[[3, 7, 11]]
    for part in parts:
        if part.faces is not None or part.classes != CLASS["hair"]:
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


def _comb(linear: np.ndarray, mask: np.ndarray, strands: np.ndarray) -> np.ndarray:
    """Averages hair along its strands where neighbours agree, over a round spot where not."""
    scale = len(mask) / 128
    hair = (mask == CLASS["hair"]).astype(float)
    agree = np.hypot(strands[..., 0], strands[..., 1])[..., None]
    angle = np.arctan2(strands[..., 1], strands[..., 0]) / 2
    heading = np.stack([np.sin(angle), np.cos(angle)])  # rows, columns
    rows, columns = np.nonzero(hair)
    start = np.stack([rows, columns]).astype(float)
    layers = [hair, *(linear * hair[..., None]).transpose(2, 0, 1)]
    total = np.stack([layer[rows, columns] for layer in layers])
    for sense in (1.0, -1.0):
        at, before = start, sense * heading[:, rows, columns]
        for step in range(1, REACH + 1):
            at = at + before * scale
            nearest = np.clip(at.round().astype(int), 0, len(mask) - 1)
            ahead = heading[:, nearest[0], nearest[1]]
            before = ahead * np.where((ahead * before).sum(0) < 0, -1.0, 1.0)
            weight = np.exp(-((step / (0.6 * REACH)) ** 2))
            total += weight * np.stack([map_coordinates(x, at, order=1) for x in layers])
    width = (0.55 * scale,) * 2  # strands are thinner than pixels
    spot = np.stack([gaussian_filter(layer, width) for layer in layers])
    out = linear.copy()
    along = (total[1:] / total[0]).T
    around = (spot[1:] / np.maximum(spot[0], 1e-6)).transpose(1, 2, 0)
    around = 0.35 * linear + 0.65 * around
    share = np.clip(1.6 * agree[rows, columns] - 0.3, 0, 1)
    out[rows, columns] = share * along + (1 - share) * around[rows, columns]
    return out
