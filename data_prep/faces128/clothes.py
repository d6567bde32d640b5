"""Garments: layers of the body moved outward and cut along necklines drawn on the average body."""

import functools

import numpy as np
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from data_prep.faces128 import relief
from data_prep.faces128.part import Part, clip, tube
from data_prep.faces128.person import View
from data_prep.faces128.regions import CLASS, smooth
from data_prep.faces128.strands import unit
from data_prep.faces128.surface import Split, average_neighbours, split, surface

TOP = -0.085  # no garment reaches higher, metres
NECK_AXIS = -0.085  # z of the neck's middle at its base, metres
EVEN_OUT = 24  # rounds of averaging: cloth spans the neck's tendons and folds


@functools.lru_cache(maxsize=1)
def _torso() -> tuple[np.ndarray, tuple[Split, ...], np.ndarray, csr_matrix]:
    """Vertices of the surface below TOP, refinements of them (finest at the neck), the average,
    and a matrix that averages neighbours.
    """
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
    return used, tuple(steps), points, average_neighbours(faces, len(points))


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
        used, steps, self.p, neighbours = _torso()
        points, normals = skin[used], normals[used]
        for step in steps:
            points = np.concatenate([points, points[step.ends].mean(1)])
            normals = np.concatenate([normals, normals[step.ends].mean(1)])
        even = points
        for _ in range(EVEN_OUT):
            even, normals = neighbours @ even, neighbours @ normals
        self.normals = unit(normals)
        out = np.einsum("vd,vd->v", even - points, self.normals).clip(-0.001)[:, None]
        self.points = points + out * self.normals
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
        n = len(points)
        edges, count = np.unique(edges[:, 0] * n + edges[:, 1], return_counts=True)
        rim = np.stack(np.divmod(edges[count == 1], n), -1)
        inner = points - 0.009 * normals
        hem = np.r_[np.c_[rim, rim[:, 1] + n], np.c_[rim[:, 0], rim[:, 1] + n, rim[:, 0] + n]]
        return Part(
            np.r_[points, inner], np.r_[faces, hem], np.r_[tint, 0.75 * tint], CLASS["cloth"],
            "cloth",
        )  # fmt: skip

    def around_neck(
        self, angle: np.ndarray, height: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points (N, 3) of the body, their normals, and the nearest vertex (N,).

        Args:
            angle: (N,) radians around the average neck, 0 in front. height: (N,) on it, metres.
        """
        x, z = self.p[:, 0], self.p[:, 2] - NECK_AXIS
        near = np.flatnonzero((np.hypot(x, z) < 0.12) & (self.p[:, 1] > -0.2))
        ring = self.p[near] * [0, 1, 0]
        ring[:, [0, 2]] = 0.06 * unit(np.stack([x[near], z[near]], 1))
        wanted = np.stack([0.06 * np.sin(angle), height, 0.06 * np.cos(angle)], 1)
        distance, index = cKDTree(ring).query(wanted, k=24)
        weight = np.exp((distance[:, :1] ** 2 - distance**2) / 0.005**2)
        weight /= weight.sum(1, keepdims=True)
        near = near[index]
        points, normals = (
            (weight[..., None] * value[near]).sum(1) for value in (self.points, self.normals)
        )
        return points, unit(normals), near[:, 0]


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
            parts.append(_folded_collar(w, under, True))
        if view.necktie:
            parts.append(_necktie(w, view))
        open_by = _opening(p)
        lapel = smooth(open_by, 0.030, 0.024) * _front(p)
        plain = np.array(view.cloth_rgb) * np.exp(0.04 * w.folds)[:, None]
        cloth = main if view.cloth == "jacket" else plain
        cloth = (
            cloth * (1 + 0.25 * lapel - 0.45 * np.exp(-(((open_by - 0.027) / 0.003) ** 2)))[:, None]
        )
        offset = 0.0125 + drape.clip(-0.001) + 0.003 * lapel - 0.001 * smooth(open_by, 0.012, 0.0)
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
        return [body, _folded_collar(w, main * 1.05, False)]
    parts = [w.layer(cover, thick, tint)]
    if view.cloth == "hoodie":
        parts += [_cord(w, side) for side in (1, -1)]
    return parts


def _folded_collar(w: Wardrobe, color: np.ndarray, buttoned: bool) -> Part:
    """A shirt's collar: from its fold around the neck down to two points on the chest.

    A grid of 10 x 52 points: down the leaf, and around from the person's left to their right.
    """
    down, around = np.mgrid[0:1:8j, -1:1:50j]  # type: ignore[misc]
    front_edge = 0.06 + 0.5 * down if buttoned else 0.36 + 0.24 * down  # radians off the middle
    angle = np.pi + around * (np.pi - front_edge)  # 0 is the front
    aside = np.minimum(angle, 2 * np.pi - angle)
    fold = np.interp(aside, [0.0, 1.2, np.pi], [-0.124, -0.112, -0.104])
    tip = np.interp(aside, [0.0, 0.56, 1.5, np.pi], [-0.168, -0.172, -0.140, -0.134])
    height = fold + down * (tip - fold)
    offset = 0.0065 + 0.0025 * np.sin(np.pi * down**0.7) + 0.001 * down
    angle, height = (np.pad(x, 1, "edge") for x in (angle, height))
    offset = np.pad(offset, 1, constant_values=0.0005)  # the cloth's own thickness
    points, normals, nearest = w.around_neck(angle.ravel(), height.ravel())
    rows, columns = angle.shape
    a = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    quads = np.stack([a, a + columns, a + columns + 1, a + 1], 1)
    rim = np.pad(np.ones((rows - 4, columns - 4)), 2, constant_values=0.8).ravel()[:, None]
    tint = rim * np.broadcast_to(color, w.points.shape)[nearest]
    return Part(
        points + offset.ravel()[:, None] * normals, np.r_[quads[:, :3], quads[:, [0, 2, 3]]],
        tint, CLASS["cloth"], "cloth",
    )  # fmt: skip


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
