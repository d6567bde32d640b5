"""Skin, scalp, lips and make-up as one colour per vertex of the body mesh (linear RGB)."""

import numpy as np
from numpy.typing import ArrayLike

from data_prep.faces128 import regions
from data_prep.faces128 import strands as st
from data_prep.faces128.head import head_model
from data_prep.faces128.person import Identity, View

TONES = np.array(
    [
        [0.74, 0.48, 0.38],
        [0.60, 0.35, 0.25],
        [0.42, 0.22, 0.135],
        [0.22, 0.105, 0.06],
        [0.095, 0.047, 0.030],
    ]
)


def skin_rgb(tone: float, warmth: float) -> np.ndarray:
    """(3,) linear RGB; `tone` 0 very light … 1 very dark, `warmth` in standard deviations."""
    stops = np.log(TONES)
    rgb = np.exp([np.interp(tone, np.linspace(0, 1, len(TONES)), stops[:, c]) for c in range(3)])
    return rgb * np.exp(0.035 * warmth * np.array([0.4, -0.3, -1.0]))


def _blob(p: np.ndarray, centre: tuple[float, float, float], radius: float) -> np.ndarray:
    return np.exp(-(((p - np.array(centre)) / radius) ** 2).sum(-1))


def vertex_colors(identity: Identity, view: View) -> np.ndarray:
    """(V, 3) linear RGB of the body's vertices."""
    model = head_model()
    p, _ = st.average_head()
    rng = np.random.default_rng([identity.seed, 3])
    base = skin_rgb(identity.skin_tone, identity.skin_warmth)
    color = np.tile(base, (len(p), 1))
    fair = 1 - identity.skin_tone

    def both(x: float, y: float, z: float, radius: float) -> np.ndarray:
        return _blob(p, (x, y, z), radius) + _blob(p, (-x, y, z), radius)

    def mix(weight: np.ndarray, target: ArrayLike) -> None:
        nonlocal color
        w = np.clip(weight, 0, 1)[:, None]
        color = color * (1 - w) + np.asarray(target) * w

    color *= np.exp(0.05 * rng.normal(0, 1, (len(p), 1)))
    cheeks = both(0.042, -0.032, 0.0, 0.021)
    nose = _blob(p, (0, -0.042, 0.035), 0.014)
    red = base * np.array([1.02, 0.66, 0.62])
    mix((0.25 + 0.75 * identity.rosy) * cheeks, red)
    mix(0.5 * nose + 0.5 * model.regions["ears"], red)
    sockets = both(0.031, 0.004, 0.012, 0.017)
    mix(0.35 * sockets, base * np.array([0.75, 0.66, 0.68]))
    if identity.freckles:
        spots = (rng.random(len(p)) < 0.45 * identity.freckles) * (cheeks + nose > 0.12)
        mix(0.6 * spots, base * np.array([0.50, 0.36, 0.28]))
    if view.eye_makeup:
        lids = both(0.032, 0.011, 0.012, 0.0125)
        shade = np.array([[0.10, 0.04, 0.09], [0.03, 0.05, 0.10], [0.09, 0.04, 0.02]])
        mix(0.95 * view.eye_makeup * lids, shade[identity.seed % 3])

    hair = np.array(identity.hair_rgb)
    if identity.beard in ("stubble", "full"):
        jaw = st.beard_weight(p, "full")
        mix((0.42 if identity.beard == "stubble" else 0.6) * jaw, 0.55 * hair + 0.2 * base)
    brow = regions.smooth(
        st.brow_distance(p, identity.brow_arch, identity.brow_thickness), 0.003, -0.002
    )
    mix(0.55 * brow, 0.6 * hair + 0.15 * base)
    if identity.hair_style != "bald":
        scalp = regions.smooth(st.hairline_distance(p, identity.receding), -0.002, 0.012)
        scalp = scalp * (model.regions["ears"] < 0.2) * (p[:, 1] > -0.075)
        mix((0.9 if identity.hair_style != "buzz" else 0.7) * scalp, 0.45 * hair)
    lips = model.regions["lips"]
    natural = np.array(identity.lip_rgb) * (0.85 + 0.15 * fair)
    mix(lips * 0.9, natural if view.lipstick is None else view.lipstick)
    mix(model.regions["inside-mouth"], (0.17, 0.035, 0.03))
    return color
