"""Skin, scalp, lips and make-up as one colour per vertex of the refined skin (linear RGB)."""

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from data_prep.faces128 import regions, relief
from data_prep.faces128 import strands as st
from data_prep.faces128.person import Identity, View
from data_prep.faces128.surface import surface

TONES = np.array(
    [
        [0.72, 0.47, 0.37],
        [0.60, 0.35, 0.245],
        [0.43, 0.225, 0.14],
        [0.235, 0.113, 0.066],
        [0.105, 0.051, 0.032],
    ]
)


def skin_rgb(tone: float, warmth: float) -> np.ndarray:
    """(3,) linear RGB; `tone` 0 very light … 1 very dark, `warmth` in standard deviations."""
    stops = np.log(TONES)
    rgb = np.exp([np.interp(tone, np.linspace(0, 1, len(TONES)), stops[:, c]) for c in range(3)])
    return rgb * np.exp(0.045 * warmth * np.array([0.2, -0.25, -1.0]))


def _blob(p: np.ndarray, centre: tuple[float, float, float], radius: float) -> np.ndarray:
    return np.exp(-(((p - np.array(centre)) / radius) ** 2).sum(-1))


def _both(x: float, y: float, z: float, radius: float) -> np.ndarray:
    p = surface().average
    return _blob(p, (x, y, z), radius) + _blob(p, (-x, y, z), radius)


@functools.lru_cache(maxsize=1)
def _zones() -> dict[str, np.ndarray]:
    """(V',) weights in [0, 1] of parts of the face that have their own colour."""
    s = surface()
    p = s.average
    x, y, z = np.abs(p[:, 0]), p[:, 1], p[:, 2]
    eye = np.hypot(x - 0.031, (y - 0.001) * 1.35)
    front = z > -0.01
    lash_line = front * np.exp(-(((eye - 0.0175) / 0.0028) ** 2)) * (y > -0.002)
    return {
        "cheeks": np.clip(_both(0.043, -0.033, 0.0, 0.021), 0, 1),
        "nose": np.clip(
            _blob(p, (0, -0.040, 0.037), 0.015) + 0.7 * _both(0.015, -0.046, 0.02, 0.010), 0, 1
        ),
        "chin": _blob(p, (0, -0.100, 0.02), 0.017),
        "forehead": _blob(p, (0, 0.050, 0.012), 0.035),
        "sockets": np.clip(_both(0.030, 0.003, 0.012, 0.016), 0, 1),
        "inner_eye": np.clip(_both(0.0165, -0.004, 0.014, 0.009), 0, 1),
        "lids": np.clip(front * regions.smooth(eye, 0.0235, 0.0165) * (y > 0.0), 0, 1),
        "liner": lash_line,
        "nostrils": np.clip(_both(0.0075, -0.0505, 0.027, 0.0042), 0, 1),
        "t": np.clip(
            _blob(p, (0, 0.05, 0.015), 0.03) + _blob(p, (0, -0.02, 0.04), 0.018)
            + _blob(p, (0, -0.035, 0.04), 0.014) + 0.6 * _both(0.036, -0.022, 0.01, 0.013)
            + 0.6 * _blob(p, (0, -0.1, 0.02), 0.012), 0, 1),
    }  # fmt: skip


def _spots(identity: Identity, count: int, radius: tuple[float, float], key: int) -> np.ndarray:
    """(V',) in [0, 1]: `count` round spots about nose and cheeks."""
    p = surface().average
    rng = np.random.default_rng([identity.seed, key])
    zones = _zones()
    density = np.clip(1.0 * zones["cheeks"] + 0.9 * zones["nose"] + 0.15 * zones["forehead"], 0, 1)
    density = np.where(surface().regions["lips"] > 0.1, 0, density**1.5)
    index = rng.choice(len(p), count, p=density / density.sum())
    size = rng.uniform(*radius, count)
    distance, near = cKDTree(p[index]).query(p, distance_upper_bound=3 * radius[1])
    near = np.minimum(near, count - 1)
    return np.where(
        np.isfinite(distance), np.exp(-((np.minimum(distance, 1) / size[near]) ** 2)), 0
    )


def vertex_colors(identity: Identity, view: View) -> np.ndarray:
    """(V', 3) linear RGB of the refined skin's vertices."""
    s = surface()
    p, zones = s.average, _zones()
    rng = np.random.default_rng([identity.seed, 3])
    base = skin_rgb(identity.skin_tone, identity.skin_warmth)
    color = np.tile(base, (len(p), 1))
    fair = 1 - identity.skin_tone
    old = float(regions.smooth(np.array(identity.age), 0.72, 0.97))

    def mix(weight: np.ndarray, target: ArrayLike) -> None:
        nonlocal color
        w = np.clip(weight, 0, 1)[:, None]
        color = color * (1 - w) + np.asarray(target) * w

    mottled = 0.032 * relief.noise(p, 0.02, rng) + 0.02 * relief.noise(p, 0.007, rng)
    blotchy = (0.026 + 0.02 * old) * relief.noise(p, 0.03, rng)
    color *= np.exp(mottled[:, None] + blotchy[:, None] * np.array([0.2, -0.6, -0.7]))
    red = base * np.array([1.03, 0.62, 0.60])
    rosy = base * np.array([1.05, 0.46, 0.48])
    mix((0.22 + 0.2 * identity.redness) * zones["cheeks"], red)
    mix((0.32 + 0.3 * identity.redness) * zones["nose"], red)
    mix(0.25 * zones["chin"] + 0.5 * s.regions["ears"], red)
    mix(0.18 * zones["forehead"], base * np.array([1.06, 1.04, 0.92]))
    if identity.rosy:
        mix((0.42 + 0.3 * identity.rosy) * zones["cheeks"], rosy)
    mix(0.38 * zones["sockets"], base * np.array([0.78, 0.66, 0.66]))
    mix(0.3 * zones["inner_eye"], base * np.array([0.72, 0.58, 0.60]))
    mix(0.85 * zones["nostrils"], base * 0.12)
    shadow = relief.folds()["bags"].groove + 0.6 * relief.bag()
    mix((0.10 + 0.75 * identity.bags + 0.15 * old) * shadow, base * np.array([0.60, 0.46, 0.52]))
    for name, strength in relief.strengths(identity, view).items():
        mix(0.42 * strength * relief.folds()[name].groove, base * np.array([0.55, 0.40, 0.36]))
    if identity.freckles:
        count = int(130 + 130 * identity.freckles)
        spots = _spots(identity, count, (0.0010, 0.0021), 13)  # a pixel is 2.4 mm
        mix(0.95 * spots, base * np.array([0.40, 0.22, 0.13]))
    if old > 0.3:
        mix(0.45 * _spots(identity, int(14 * old), (0.0015, 0.0035), 14), 0.62 * base)
    for centre in relief.mole_places(identity):
        spot = np.exp(-(((p - centre) / 0.0019) ** 2).sum(1))
        mix(0.95 * regions.smooth(spot, 0.2, 0.7), base * np.array([0.16, 0.12, 0.11]))

    hair = np.array(identity.hair_rgb)
    _hair_shadows(identity, mix, hair, base, rng)
    lips = regions.smooth(s.regions["lips"], 0.25, 0.62)
    natural = np.array(identity.lip_rgb) * (0.85 + 0.15 * fair)
    chapped = np.exp(0.12 * relief.noise(p * [1, 0.25, 1], 0.004, rng))[:, None]
    mix(lips * 0.95, (natural if view.lipstick is None else np.array(view.lipstick)) * chapped)
    dark = base * np.array([0.10, 0.07, 0.065])
    mix((0.25 if identity.male else 0.5) * zones["liner"], dark)
    if view.eye_makeup:
        shade = np.array([[0.14, 0.03, 0.11], [0.03, 0.06, 0.15], [0.13, 0.05, 0.02]])
        mix(0.95 * view.eye_makeup * zones["lids"], shade[identity.seed % 3] * (0.5 + 0.6 * fair))
        mix(0.95 * zones["liner"], np.array([0.006, 0.005, 0.005]))
        mix(0.3 * view.eye_makeup * zones["cheeks"], rosy)
    mix(s.regions["inside-mouth"], (0.15, 0.03, 0.026))
    return color


def _hair_shadows(
    identity: Identity,
    mix: Callable[[np.ndarray, ArrayLike], None],
    hair: np.ndarray,
    base: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Scalp under hair, brows, and the shadow of a beard, by `mix(weight, target)`."""
    s = surface()
    p = s.average
    soft = np.clip(0.8 + 0.25 * relief.noise(p, 0.009, rng), 0.2, 1.0)
    if identity.beard in ("stubble", "full"):
        jaw = s.neighbours @ (s.neighbours @ st.beard_weight(p, "full"))
        bluish = 0.45 * hair + base * np.array([0.16, 0.17, 0.20])
        mix((0.72 if identity.beard == "stubble" else 0.75) * soft * jaw, bluish)
    elif identity.beard in ("goatee", "moustache"):
        under = s.neighbours @ st.beard_weight(p, identity.beard)
        mix(0.6 * soft * under, 0.3 * hair + 0.33 * base)
    brow = regions.smooth(
        st.brow_distance(p, identity.brow_arch, identity.brow_thickness), 0.003, -0.002
    )
    mix(0.62 * brow, 0.5 * hair + 0.12 * base)
    if identity.sideburns:
        mix(0.6 * soft * st.sideburn_weight(p), 0.5 * hair + 0.2 * base)
    if identity.hair_style != "bald":
        scalp = regions.smooth(st.hairline_distance(p, identity.receding), -0.002, 0.012)
        scalp = scalp * (s.regions["ears"] < 0.2) * (p[:, 1] > -0.075)
        mix((0.94 if identity.hair_style != "buzz" else 0.72) * scalp, 0.5 * hair + 0.012 * base)


def vertex_roughness(identity: Identity, view: View) -> np.ndarray:
    """(V',) in [0, 1]: oily skin shines on forehead and nose; lips shine more with lipstick."""
    s = surface()
    rng = np.random.default_rng([identity.seed, 15])
    rough = 0.56 - 0.05 * identity.oily - (0.05 + 0.20 * identity.oily) * _zones()["t"]
    rough = rough + 0.03 * relief.noise(s.average, 0.006, rng)
    lips = regions.smooth(s.regions["lips"], 0.25, 0.62)
    rough = rough * (1 - lips) + lips * (0.36 if view.lipstick is None else 0.24)
    if identity.hair_style != "bald":  # between strands nothing shines
        scalp = regions.smooth(st.hairline_distance(s.average, identity.receding), 0.0, 0.012)
        rough = rough + (0.9 - rough) * scalp * (s.average[:, 1] > 0.03)
    return np.clip(rough, 0.2, 0.9)
