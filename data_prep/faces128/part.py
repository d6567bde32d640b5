"""One piece of a picture's geometry, and cutting meshes along a curve."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Part:
    """A triangle mesh (`faces` given) or tubes (`faces` None: vertices (N, K, 3) are strands).

    Attributes:
        vertices: metres, head space. colors: (V, 3) linear RGB, or (3,) for all.
        classes: one mask class id, or (F,) one a triangle.
        material: "skin", "eye", "hair", "cloth", "glossy", "metal" or "matte".
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
    points = [values]
    base = len(values)
    for count in (1, 2):
        cut = inside.sum(1) == count
        odd = np.argmax(inside[cut] if count == 1 else ~inside[cut], 1)
        a, b, c = (
            np.take_along_axis(faces[cut], ((odd + k) % 3)[:, None], 1)[:, 0] for k in range(3)
        )
        ab, ac = (
            values[a] + (level[a] / (level[a] - level[q]))[:, None] * (values[q] - values[a])
            for q in (b, c)
        )
        n = len(a)
        i_ab, i_ac = base + np.arange(n), base + n + np.arange(n)
        points += [ab, ac]
        base += 2 * n
        if count == 1:
            kept.append(np.stack([a, i_ab, i_ac], 1))
        else:
            kept += [np.stack([i_ab, b, c], 1), np.stack([i_ab, c, i_ac], 1)]
    return np.concatenate(points), np.concatenate(kept)
