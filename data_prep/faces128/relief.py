"""What makes a face more than a smooth mesh: folds of age and expression, bags, moles, pores.

Folds are curves drawn once on the average head; they follow every head through the surface's
vertices. All lengths are metres.
"""

import functools
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from data_prep.faces128.person import Identity, View
from data_prep.faces128.regions import smooth
from data_prep.faces128.surface import surface

# Fold → curves by (x, y) on the person's left half, half width, depth, and its bulge beside.
FOLDS: dict[str, tuple[list[list[tuple[float, float]]], float, float, float]] = {
    "nasolabial": ([[(.0185, -.040), (.0245, -.048), (.0305, -.058), (.0335, -.068)]],
                   .0022, .0014, .55),
    "marionette": ([[(.0290, -.079), (.0318, -.088), (.0318, -.098)]], .0020, .0010, .3),
    "forehead": ([[(0, .034), (.018, .0345), (.034, .033)],
                  [(0, .0435), (.02, .0445), (.042, .042)],
                  [(0, .0535), (.02, .055), (.038, .0525)]], .0018, .0009, .5),
    "frown": ([[(.0062, .010), (.0072, .018), (.0070, .027)]], .0017, .0011, .4),
    "crow": ([[(.0545, .004), (.0615, .009), (.0665, .015)],
              [(.0555, .000), (.063, .001), (.069, .003)],
              [(.0545, -.005), (.0615, -.010), (.0665, -.016)]], .0014, .0008, .4),
    "bags": ([[(.0165, -.010), (.024, -.0175), (.033, -.0195), (.0435, -.0155)]], .0020, .0010, .0),
    "neck": ([[(0, -.136), (.02, -.133), (.038, -.127)], [(0, -.150), (.024, -.148)]],
             .0022, .0010, .3),
}  # fmt: skip


@dataclass(frozen=True)
class Fold:
    """`groove` (V',) in [0, 1] and `height` (V',) metres at strength 1, on the surface."""

    groove: np.ndarray
    height: np.ndarray


def _curve(points: list[tuple[float, float]]) -> np.ndarray:
    """(N, 3) dense points on the average head's front through the given (x, y)."""
    p = surface().average
    front = np.flatnonzero((p[:, 2] > -0.06) & (surface().average_normals[:, 2] > 0))
    xy = np.array(points)
    t = np.linspace(0, len(xy) - 1, 80)
    dense = np.stack([np.interp(t, np.arange(len(xy)), xy[:, k]) for k in (0, 1)], 1)
    for _ in range(60):  # round the corners
        dense[1:-1] = (dense[:-2] + 2 * dense[1:-1] + dense[2:]) / 4
    _, near = cKDTree(p[front, :2]).query(dense)
    return np.concatenate([dense, p[front[near], 2:]], 1)


@functools.lru_cache(maxsize=1)
def folds() -> dict[str, Fold]:
    """All of FOLDS on both sides of the face."""
    p = surface().average.copy()
    hidden = surface().regions["inside-mouth"] > 0.1
    p[:, 0] = np.abs(p[:, 0])
    out = {}
    for name, (curves, width, depth, bulge) in FOLDS.items():
        groove, beside = np.zeros(len(p)), np.zeros(len(p))
        for points in curves:
            curve = _curve(points)
            distance, near = cKDTree(curve).query(p)
            ends = np.minimum(near, len(curve) - 1 - near) / len(curve)
            if points[0][0] == 0:  # a curve across the middle has no end there
                ends = (len(curve) - 1 - near) / len(curve)
            fade = 0.25 + 0.75 * smooth(ends, 0.0, 0.25)
            groove = np.maximum(groove, fade * np.exp(-((distance / width) ** 2)))
            beside = np.maximum(beside, fade * np.exp(-((distance / (2.6 * width)) ** 2)))
        groove[hidden], beside[hidden] = 0, 0
        out[name] = Fold(groove, depth * (bulge * beside - (1 + bulge) * groove))
    return out


@functools.lru_cache(maxsize=1)
def bag() -> np.ndarray:
    """(V',) in [0, 1]: the swelling between lower lid and groove."""
    p = surface().average
    x, y = np.abs(p[:, 0]), p[:, 1]
    arc = -0.0125 - 0.0035 * np.exp(-(((x - 0.032) / 0.010) ** 2))
    return np.exp(-(((x - 0.031) / 0.011) ** 2) - ((y - arc) / 0.0038) ** 2) * (p[:, 2] > -0.02)


def noise(
    p: np.ndarray, wavelength: float, rng: np.random.Generator, waves: int = 20
) -> np.ndarray:
    """(N,) smooth random field of deviation 1 over points (N, 3)."""
    direction = rng.normal(0, 1, (3, waves)) * (2 * np.pi / wavelength / 1.7)
    phase = rng.uniform(0, 2 * np.pi, waves)
    angle = np.einsum("nd,dk->nk", p, direction, optimize=False) + phase  # no BLAS: see head
    return np.cos(angle.astype(np.float32)).sum(1) * np.sqrt(2 / waves)


def strengths(identity: Identity, view: View) -> dict[str, float]:
    """How strong each fold is, 0…1.5, from age and expression."""
    age = float(smooth(np.array(identity.age), 0.72, 0.98)) * identity.lines
    young = 0.15 * float(smooth(np.array(identity.age), 0.60, 0.75))
    e = view.expression
    smile = e.get("mouthSmileLeft", 0) + e.get("mouthSmileRight", 0)
    smile = float(np.clip(smile / 2, 0, 1.2))
    raised = e.get("browInnerUp", 0) * 0.5 + e.get("browOuterUpLeft", 0) * 0.5
    down = e.get("browDownLeft", 0)
    squint = max(e.get("eyeSquintLeft", 0), 0.7 * smile)
    return {
        "nasolabial": 0.12 + young + 0.85 * age + 0.75 * smile,
        "marionette": 0.75 * age + young * 0.5,
        "forehead": (0.6 * age + young) + raised * (0.25 + 0.8 * age),
        "frown": 0.5 * age + down * (0.4 + 0.6 * age),
        "crow": 0.65 * age + squint * (0.15 + 0.65 * age),
        "bags": 0.35 * age + 0.9 * identity.bags,
        "neck": 0.8 * age + 0.2,
    }


@functools.lru_cache(maxsize=1)
def _cheek_fold() -> np.ndarray:
    """(V',) where the smile's blend shape creases the cheek and must be evened out."""
    p = surface().average
    x, y = np.abs(p[:, 0]), p[:, 1]
    return np.exp(-(((x - 0.044) / 0.012) ** 2) - ((y + 0.055) / 0.02) ** 2) * (p[:, 2] > -0.06)


def skin_surface(identity: Identity, view: View, body: np.ndarray) -> np.ndarray:
    """(V', 3) the refined, folded skin over the head model's vertices `body` (V, 3)."""
    s = surface()
    p = s.average
    rng = np.random.default_rng([identity.seed, 11])
    vertices = s.refined(body)
    smile = strengths(identity, view)["nasolabial"] - strengths(identity, view)["marionette"]
    if smile > 0.4:
        weight = _cheek_fold()[:, None]
        for _ in range(14):
            vertices = vertices + weight * (s.neighbours @ vertices - vertices)
    soft = (1 - s.regions["inside-mouth"]) * (1 - 0.7 * s.regions["lips"])
    eyes = smooth(np.hypot(np.abs(p[:, 0]) - 0.031, p[:, 1]), 0.016, 0.028)
    height = np.zeros(len(p))
    broken = np.clip(1 + 0.3 * noise(p, 0.018, rng), 0.3, 1.6)
    for name, strength in strengths(identity, view).items():
        height += strength * folds()[name].height * (1 if name == "bags" else broken)
    height += 0.0016 * identity.bags * bag()
    height += 0.0005 * eyes * noise(p, 0.06, rng)  # no face is symmetric
    rough = 0.00006 + 0.00006 * float(smooth(np.array(identity.age), 0.6, 0.95))
    height += eyes * rough * (noise(p, 0.0062, rng) + noise(p, 0.0095, rng))
    for centre in mole_places(identity):
        height += 0.0008 * np.exp(-(((p - centre) / 0.0017) ** 2).sum(1))
    return vertices + s.normals(vertices) * (height * soft)[:, None]


def mole_places(identity: Identity) -> np.ndarray:
    """(N, 3) centres of moles on the average head."""
    s = surface()
    rng = np.random.default_rng([identity.seed, 12])
    p = s.average
    face = (p[:, 2] > -0.03) & (np.abs(p[:, 1] + 0.03) < 0.085) & (s.regions["lips"] < 0.1)
    face &= np.hypot(np.abs(p[:, 0]) - 0.031, p[:, 1]) > 0.02
    return p[rng.choice(np.flatnonzero(face), identity.moles, replace=False)]
