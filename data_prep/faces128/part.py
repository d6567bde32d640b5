"""One piece of a picture's geometry, and cutting meshes along a curve."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Part:
    """A triangle mesh (`faces` given) or tubes (`faces` None: vertices (N, K, 3) are strands).

    Attributes:
        vertices: metres, head space. colors: (V, 3) linear RGB, or (3,) for all.
        classes: one mask class id, or (F,) one a triangle.
        material: a key of `shapes.MATERIALS`.
        radius: tube radius, metres.  `mask_radius`: in the mask, where thin things would vanish.
        mask_step: only every so many strands are drawn in the mask.
        roughness: (V,) in place of the material's.
    """

    vertices: np.ndarray
    faces: np.ndarray | None
    colors: np.ndarray
    classes: int | np.ndarray
    material: str = "matte"
    normals: np.ndarray | None = None
    radius: float = 0.0
    mask_radius: float = 0.0
    mask_step: int = 1
    roughness: np.ndarray | None = None


def tube(path: np.ndarray, color: tuple, label: int, radius: float, material: str) -> Part:
    """One tube along path (K, 3)."""
    ends = np.concatenate([path[:1], path, path[-1:]])  # a B-spline stops short of its end points
    return Part(
        ends[None], None, np.array(color), label, material, radius=radius, mask_radius=radius
    )


def clip(values: np.ndarray, faces: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts triangles along level = 0 and keeps the positive side; values (V, D), level (V,)."""
    inside = level[faces] > 0
    kept = [faces[inside.all(1)]]
    mixed = inside.any(1) & ~inside.all(1)
    faces, inside = faces[mixed], inside[mixed]
    ends = np.sort(np.stack([faces, np.roll(faces, -1, 1)], -1).reshape(-1, 2), 1)
    crossed = (level[ends[:, 0]] > 0) != (level[ends[:, 1]] > 0)
    cut, index = np.unique(ends[crossed], axis=0, return_inverse=True)  # neighbours share points
    share = level[cut[:, 0]] / (level[cut[:, 0]] - level[cut[:, 1]])
    new = values[cut[:, 0]] + share[:, None] * (values[cut[:, 1]] - values[cut[:, 0]])
    flat = np.full(len(ends), -1)
    flat[crossed] = len(values) + index.ravel()
    middle = flat.reshape(-1, 3)
    for number in (1, 2):  # corners inside
        chosen = inside.sum(1) == number
        odd = np.argmax(inside[chosen] == (number == 1), 1)
        turn = (odd[:, None] + np.arange(3)) % 3
        (a, b, c), (ab, _, ca) = (np.take_along_axis(x[chosen], turn, 1).T for x in (faces, middle))
        if number == 1:
            kept.append(np.stack([a, ab, ca], 1))
        else:
            kept += [np.stack([ab, b, c], 1), np.stack([ab, c, ca], 1)]
    return np.concatenate([values, new]), np.concatenate(kept)
