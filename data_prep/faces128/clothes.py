"""Garments: layers of the body moved outward and cut along necklines drawn on the average body."""

import functools

import numpy as np

from data_prep.faces128 import relief
from data_prep.faces128.part import Part, clip, tube
from data_prep.faces128.person import View
from data_prep.faces128.regions import CLASS, smooth
from data_prep.faces128.surface import Split, split, surface

TOP = -0.085  # no garment reaches higher, metres


@functools.lru_cache(maxsize=1)
def _torso() -> tuple[np.ndarray, tuple[Split, ...], np.ndarray]:
    """Vertices of the surface below TOP, refinements of them (finest at the neck), the average."""
    s = surface()
    low = (s.average[s.faces][..., 1].max(1) < TOP) & (s.regions["ears"][s.faces].max(1) < 0.1)
    used, faces = np.unique(s.faces[low], return_inverse=True)
    faces = faces.reshape(-1, 3)
    points = s.average[used]
    steps: list[Split] = []
    for lowest, finest in ((-0.24, 0.006), (-0.24, 0.006), (-0.18, 0.003)):
        corners = points[faces]
        size = np.linalg.norm(corners - np.roll(corners, 1, 1), axis=2).max(1)
        seen = (corners[..., 1].max(1) > lowest) & (corners[..., 2].max(1) > -0.12)
        steps.append(split(faces, len(points), seen & (size > finest)))
        points = np.concatenate([points, points[steps[-1].ends].mean(1)])
        faces = steps[-1].faces
    return used, tuple(steps), points


def _front(p: np.ndarray) -> np.ndarray:
    """1 on the chest's side, 0 on the back's."""
    return smooth(p[:, 2], -0.11, -0.035)


def neckline(kind: str, p: np.ndarray) -> np.ndarray:
    """Signed height (m) of the garment's upper edge over p; positive where cloth covers."""
    front, x = _front(p), np.abs(p[:, 0])
    edge = {
        "tshirt": -0.124 - 0.026 * front * smooth(x, 0.075, 0.03),
        "vneck": -0.122 - 0.075 * front * np.clip(1 - x / 0.065, 0, 1),
        "scoop": -0.130 - 0.062 * front * smooth(x, 0.11, 0.03) - 0.02 * smooth(x, 0.02, 0.1),
        "turtleneck": -0.098 - 0.021 * front,
        "hoodie": -0.121 - 0.030 * front * smooth(x, 0.07, 0.0),
        "shirt": -0.110 - 0.040 * front * np.clip(1 - x / 0.032, 0, 1) - 0.012 * front,
    }[kind]
    return edge - p[:, 1]


def _opening(p: np.ndarray) -> np.ndarray:
    """Signed distance (m) outside a jacket's opening; positive where the jacket covers."""
    x = np.abs(p[:, 0])
    half = np.clip(0.047 + 0.36 * (p[:, 1] + 0.165), 0, 0.062) * _front(p)
    return np.minimum(x - half, -0.137 - 0.004 * _front(p) - p[:, 1])


def _collar(p: np.ndarray) -> np.ndarray:
    """Positive on a shirt's folded collar, whose points lie on the collar bones."""
    front, x = _front(p), np.abs(p[:, 0])
    lower = -0.136 - front * np.interp(x, [0.0, 0.012, 0.036, 0.05, 0.07],
                                       [0.004, 0.016, 0.034, 0.014, 0.0])  # fmt: skip
    gap = x - front * np.clip(0.004 + 0.55 * (-0.126 - p[:, 1]), 0.0035, 0.05)
    return np.minimum.reduce([neckline("shirt", p) + 0.004, p[:, 1] - lower, gap])


def _tie(p: np.ndarray) -> np.ndarray:
    """Positive on the knot and blade of a necktie."""
    half = np.interp(-p[:, 1], [0.130, 0.134, 0.152, 0.156, 0.20],
                     [0.0, 0.0135, 0.0085, 0.0105, 0.021])  # fmt: skip
    return np.where(p[:, 2] > -0.10, half - np.abs(p[:, 0]), -1.0)


def _pattern(kind: str, p: np.ndarray, color: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(V, 3) colours of woven or knitted cloth."""
    other = np.clip(color * np.exp(rng.choice([-1, 1]) * rng.uniform(0.5, 1.1, 3)), 0.01, 0.8)
    across = np.sin(2 * np.pi * p[:, 1] / rng.uniform(0.018, 0.028))
    along = np.sin(2 * np.pi * p[:, 0] / rng.uniform(0.018, 0.028))
    share = {
        "plain": np.zeros(len(p)),
        "knit": np.zeros(len(p)),
        "stripes": smooth(across, -0.2, 0.2),
        "check": 0.5 * smooth(across, 0.2, 0.5) + 0.5 * smooth(along, 0.2, 0.5),
    }[kind][:, None]
    worn = np.exp(0.05 * relief.noise(p, 0.05, rng) + 0.03 * relief.noise(p, 0.012, rng))
    return (color * (1 - share) + other * share) * worn[:, None]


class Wardrobe:
    """Cuts garments for one body.

    Args:
        skin: (V', 3) vertices of `surface()`.
    """

    def __init__(self, skin: np.ndarray, normals: np.ndarray, seed: int) -> None:
        used, steps, self.p = _torso()
        self.points, self.normals = skin[used], normals[used]
        for step in steps:
            self.points = np.concatenate([self.points, self.points[step.ends].mean(1)])
            self.normals = np.concatenate([self.normals, self.normals[step.ends].mean(1)])
        self.normals /= np.maximum(np.linalg.norm(self.normals, axis=1, keepdims=True), 1e-9)
        self.faces = steps[-1].faces
        self.rng = np.random.default_rng([seed, 16])
        self.folds = relief.noise(self.p * [1, 0.6, 1], 0.05, self.rng)

    def layer(self, level: np.ndarray, offset: np.ndarray | float, colors: np.ndarray) -> Part:
        """The body where `level` (V,) > 0, moved out by `offset` metres, with a hem underneath."""
        out = self.points + self.normals * np.broadcast_to(offset, level.shape)[:, None]
        tint = np.broadcast_to(colors, out.shape)
        values, faces = clip(np.c_[out, tint, self.normals], self.faces, level)
        used, faces = np.unique(faces, return_inverse=True)
        faces = faces.reshape(-1, 3)
        points, tint, normals = values[used, :3], values[used, 3:6], values[used, 6:]
        edges = np.sort(np.stack([faces, np.roll(faces, -1, 1)], -1).reshape(-1, 2), 1)
        edges, count = np.unique(edges, axis=0, return_counts=True)
        rim = edges[count == 1]
        inner = points - 0.009 * normals
        n = len(points)
        hem = np.r_[np.c_[rim, rim[:, 1] + n], np.c_[rim[:, 0], rim[:, 1] + n, rim[:, 0] + n]]
        return Part(
            np.r_[points, inner], np.r_[faces, hem], np.r_[tint, 0.75 * tint], CLASS["cloth"],
            "cloth",
        )  # fmt: skip


def clothes(view: View, skin: np.ndarray, normals: np.ndarray, seed: int) -> list[Part]:
    """The parts of the garment that `view` names."""
    w = Wardrobe(skin, normals, seed)
    p, rng = w.p, w.rng
    main = _pattern(view.pattern, p, np.array(view.cloth_rgb), rng)
    ribs = 0.0008 * np.sin(2 * np.pi * p[:, 0] / 0.011) if view.pattern == "knit" else 0 * p[:, 0]
    drape = 0.0012 * w.folds + 0.004 * smooth(-p[:, 1], 0.15, 0.2)
    if view.cloth in ("suit", "jacket"):
        under = np.array(view.second_rgb)
        inner = "shirt" if view.cloth == "suit" else "tshirt"
        parts = [w.layer(neckline(inner, p), 0.0035 + 0.3 * drape.clip(0), under)]
        if inner == "shirt":
            parts.append(_folded_collar(w, under))
        if view.necktie:
            parts.append(_necktie(w, view))
        open_by = _opening(p)
        lapel = smooth(open_by, 0.030, 0.024) * _front(p)
        plain = np.array(view.cloth_rgb) * np.exp(0.04 * w.folds)[:, None]
        cloth = main if view.cloth == "jacket" else plain
        cloth = (
            cloth * (1 + 0.25 * lapel - 0.45 * np.exp(-(((open_by - 0.027) / 0.003) ** 2)))[:, None]
        )
        offset = 0.011 + drape + 0.004 * lapel - 0.004 * smooth(open_by, 0.012, 0.0)
        return [*parts, w.layer(open_by, offset, cloth)]
    cover = neckline(view.cloth, p)
    band = smooth(cover, 0.013, 0.009)  # a ribbed border along the neckline
    thick = 0.004 + drape + ribs + 0.0022 * band
    tint = main * (1 - 0.18 * band - 0.25 * np.exp(-(((cover - 0.0125) / 0.002) ** 2)))[:, None]
    if view.cloth == "turtleneck":
        roll = np.exp(-(((cover - 0.012) / 0.011) ** 2))
        thick = 0.004 + drape + ribs + 0.006 * roll
    elif view.cloth == "hoodie":
        roll = np.clip(1 - ((cover - 0.017) / 0.019) ** 2, 0, 1)
        thick = 0.005 + drape + 0.022 * roll**0.7
    if view.cloth == "shirt":
        seam = np.exp(-((p[:, 0] / 0.0016) ** 2)) * _front(p) * (p[:, 1] < -0.14)
        body = w.layer(cover, 0.0035 + drape, main * (1 - 0.4 * seam)[:, None])
        return [body, _folded_collar(w, main * 1.05)]
    parts = [w.layer(cover, thick, tint)]
    if view.cloth == "hoodie":
        parts += [_cord(w, side) for side in (1, -1)]
    return parts


def _folded_collar(w: Wardrobe, color: np.ndarray) -> Part:
    level = _collar(w.p)
    fold = np.clip((-0.112 - w.p[:, 1]) / 0.03, 0, 1)
    return w.layer(level, 0.0065 + 0.006 * fold, color)


def _necktie(w: Wardrobe, view: View) -> Part:
    level = _tie(w.p)
    knot = smooth(w.p[:, 1], -0.156, -0.150)
    dome = np.sqrt(np.clip(level / 0.012, 0, 1))
    stripe = np.sin(2 * np.pi * (w.p[:, 1] + w.p[:, 0]) / 0.016) > 0.3
    tint = np.array(view.tie_rgb) * np.where(stripe & (w.rng.random() < 0.5), 2.2, 1.0)[:, None]
    return w.layer(level, 0.008 + (0.003 + 0.006 * knot) * dome, tint)


def _cord(w: Wardrobe, side: int) -> Part:
    path = []
    for y in np.linspace(-0.150, -0.24, 10):
        want = np.array([side * 0.03, y])
        i = np.argmin(((w.p[:, :2] - want) ** 2).sum(1) + (w.p[:, 2] < -0.1))
        path.append(w.points[i] + 0.016 * w.normals[i])
    return tube(np.array(path), (0.6, 0.6, 0.58), CLASS["cloth"], 0.0018, "cloth")
