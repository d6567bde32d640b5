"""Where hair grows and how it falls: roots on the average head, strands grown from them.

Regions are drawn once on the average head; a root keeps its triangle and barycentric coordinates,
so brows, beard and scalp follow every shape change and expression.
"""

import functools
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from data_prep.faces128.head import HeadModel, head_model, vertex_normals

SKULL_CENTRE = np.array([0.0, 0.035, -0.085])
CROWN = np.array([0.0, 0.108, -0.115])
# Hairline of an adult: azimuth around the skull (degrees, 0 = front) → height above the eyes (m).
HAIRLINE_AZIMUTH = [0, 25, 45, 58, 68, 77, 84, 92, 102, 115, 135, 180]
HAIRLINE_HEIGHT = [
    0.076,
    0.074,
    0.066,
    0.050,
    0.022,
    -0.012,
    0.000,
    0.016,
    0.006,
    -0.03,
    -0.06,
    -0.068,
]


@dataclass(frozen=True)
class Roots:
    """Points on the body mesh: `face` (N,) triangle indices, `weight` (N, 3) barycentric."""

    face: np.ndarray
    weight: np.ndarray

    def on(self, vertices: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) positions and unit normals of the roots on a deformed head."""
        corners = head_model().faces["body"][self.face]
        position = np.einsum("nk,nkd->nd", self.weight, vertices[corners])
        normal = np.einsum("nk,nkd->nd", self.weight, normals[corners])
        return position, unit(normal)

    def take(self, index: np.ndarray) -> "Roots":
        return Roots(self.face[index], self.weight[index])


def unit(v: np.ndarray) -> np.ndarray:
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9)


@functools.lru_cache(maxsize=1)
def average_head() -> tuple[np.ndarray, np.ndarray]:
    """(V, 3) vertices and normals of the average adult on which regions are drawn."""
    model = head_model()
    vertices = model.vertices({"age": 0.66}, {})
    return vertices, vertex_normals(vertices, model.faces["body"])


@functools.lru_cache(maxsize=1)
def _samples(count: int = 400_000) -> tuple[Roots, np.ndarray]:
    """Evenly spread points on the average head and their positions."""
    model: HeadModel = head_model()
    vertices, _ = average_head()
    faces = model.faces["body"]
    corners = vertices[faces]
    area = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    hidden = model.regions["inside-mouth"][faces].max(1) > 0.3
    area[hidden | (corners[..., 1].min(1) < -0.2)] = 0.0
    rng = np.random.default_rng(7)
    face = rng.choice(len(faces), count, p=area / area.sum())
    weight = rng.dirichlet([1.0, 1.0, 1.0], count)
    return Roots(face, weight), np.einsum("nk,nkd->nd", weight, corners[face])


def azimuth(p: np.ndarray) -> np.ndarray:
    """Degrees around the skull's vertical axis, 0 = front, 180 = back; p (..., 3) metres."""
    return np.degrees(np.arctan2(np.abs(p[..., 0]), p[..., 2] - SKULL_CENTRE[2]))


def hairline_distance(p: np.ndarray, receding: float) -> np.ndarray:
    """Metres above the hairline; `receding` in [0, 1] lifts the temples and the forehead."""
    angle = azimuth(p)
    line = np.interp(angle, HAIRLINE_AZIMUTH, HAIRLINE_HEIGHT)
    temple = np.exp(-(((angle - 38) / 17) ** 2)) * 0.038 + np.exp(-((angle / 30) ** 2)) * 0.022
    wobble = 0.002 * np.sin(angle / 5.0) + 0.0012 * np.sin(angle / 1.7 + 1.0)
    return p[..., 1] - (line + receding * temple + wobble)


def brow_distance(p: np.ndarray, arch: float, thickness: float) -> np.ndarray:
    """Signed distance to the brow's shape (negative inside), metres; front of the face only."""
    x = np.abs(p[..., 0])
    s = (x - 0.011) / 0.043  # 0 at the inner end, 1 at the outer
    centre = 0.0175 + 0.007 * np.sin(np.clip(s, 0, 1) * 2.2) * arch - 0.004 * np.clip(s - 0.6, 0, 1)
    half = thickness * (0.0042 * np.interp(s, [0, 0.15, 0.6, 1.0], [0.75, 1.0, 0.85, 0.2]))
    outside = np.maximum(np.maximum(-s, s - 1) * 0.043, 0) + np.where(p[..., 2] < -0.04, 1.0, 0.0)
    return np.abs(p[..., 1] - centre) - half + 10 * outside


def beard_weight(p: np.ndarray, kind: str) -> np.ndarray:
    """(N,) growth density in [0, 1] for `moustache`, `goatee` or `full`; p on the average head."""
    x, y, z = np.abs(p[..., 0]), p[..., 1], p[..., 2]
    front = z > -0.085
    moustache = (y > -0.0635) & (y < -0.047 - 0.1 * x) & (x < 0.031) & (z > -0.02)
    chin = (y < -0.079) & (x < 0.024) & (z > -0.03)
    corner = (x > 0.024) & (x < 0.032) & (y < -0.058) & (y > -0.09) & (z > -0.03)
    cheek_line = np.interp(x, [0.02, 0.035, 0.055, 0.07], [-0.068, -0.060, -0.046, -0.02])
    under = np.interp(z, [-0.08, -0.01], [-0.085, -0.135])
    jaw = front & (y < cheek_line) & (y > under) & (x > 0.016)
    below_lip = (x <= 0.016) & (y < -0.0795) & front & (y > under)
    region = {
        "moustache": moustache,
        "goatee": moustache | chin | corner,
        "full": moustache | jaw | below_lip | corner,
    }[kind]
    return region.astype(float)


def sideburn_weight(p: np.ndarray) -> np.ndarray:
    """(N,) growth density in [0, 1] in front of the ears; p on the average head."""
    z, y = p[..., 2], p[..., 1]
    strip = np.abs(z + 0.062 + 0.15 * (y + 0.02)) < 0.0095
    return (strip & (y < 0.006) & (y > -0.046) & (np.abs(p[..., 0]) > 0.05)).astype(float)


def sample_roots(density: np.ndarray, count: int, rng: np.random.Generator) -> Roots:
    """`count` roots drawn from the evenly spread points with the given (N,) density."""
    roots, _ = _samples()
    total = density.sum()
    if total <= 0:
        raise ValueError("The region to grow hair from is empty; its density sums to 0.")
    return roots.take(rng.choice(len(density), count, p=density / total))


def sample_positions() -> np.ndarray:
    """(N, 3) positions, metres, of the points that densities are given for."""
    return _samples()[1]


class Collider:
    """Keeps strands outside the head: nearest vertex, signed distance along its normal."""

    def __init__(self, vertices: np.ndarray, normals: np.ndarray) -> None:
        self.tree, self.vertices, self.normals = cKDTree(vertices), vertices, normals

    def push_out(self, p: np.ndarray, clearance: np.ndarray) -> np.ndarray:
        """(N, 3) points moved along the surface normal to at least `clearance` (N,) metres."""
        _, nearest = self.tree.query(p)
        normal = self.normals[nearest]
        depth = clearance - np.einsum("nd,nd->n", p - self.vertices[nearest], normal)
        return p + normal * np.clip(depth, 0, 0.03)[:, None]


def part_curtain(p: np.ndarray, side: np.ndarray, width: float) -> np.ndarray:
    """Moves points in front of the face sideways to an ellipse around it (long hair frames it)."""
    y = p[:, 1] + 0.015
    inside = (p[:, 2] > -0.06) & (y < 0.078) & (y > -0.14)
    limit = width * np.sqrt(np.clip(1 - (y / np.where(y > 0, 0.082, 0.19)) ** 2, 0, 1))
    out = p.copy()
    move = inside & (p[:, 0] * side < limit)
    out[move, 0] = (side * limit)[move]
    return out


def clump(strands: np.ndarray, amount: float, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draws strands (N, K, 3) together towards guides, more at the tips; `amount` in [0, 1]."""
    n, k, _ = strands.shape
    guides = rng.choice(n, max(n // size, 1), replace=False)
    _, nearest = cKDTree(strands[guides, 0]).query(strands[:, 0])
    guide = strands[guides[nearest]]
    offset = (strands[:, :1] - guide[:, :1]) * 0.35
    s = (np.linspace(0, 1, k) ** 1.3 * amount)[None, :, None]
    return strands * (1 - s) + (guide + offset) * s


def wave(
    strands: np.ndarray, amplitude: float, wavelength: float, curl: float, rng: np.random.Generator
) -> np.ndarray:
    """Adds waves (`curl` 0) to helices (`curl` 1), lengths in metres, coherent in neighbours."""
    step = np.diff(strands, axis=1, append=strands[:, -1:] * 2 - strands[:, -2:-1])
    length = np.cumsum(np.linalg.norm(step, axis=2), axis=1)
    tangent = unit(step)
    side = unit(np.cross(tangent, np.array([0.3, 0.2, 1.0])))
    up = np.cross(side, tangent)
    root = strands[:, 0]
    phase = 40 * (root[:, 0] + root[:, 1] * 0.7 + root[:, 2] * 0.5) + rng.normal(0, 0.5, len(root))
    angle = 2 * np.pi * length / wavelength + phase[:, None]
    grow = np.clip(length / 0.03, 0, 1)[..., None] * amplitude
    return strands + grow * (side * np.sin(angle)[..., None] + curl * up * np.cos(angle)[..., None])
