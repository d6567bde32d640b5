"""Which class each triangle of the head belongs to, and where skin is tinted."""

import functools

import numpy as np

from data_prep.faces128 import strands as st
from data_prep.faces128.head import head_model
from data_prep.faces128.surface import surface
from dmgi_lib.masks import CLASSES

CLASS = {name: index for index, name in enumerate(CLASSES)}


def smooth(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between (either order)."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def nose_distance(p: np.ndarray) -> np.ndarray:
    """Signed distance (m, negative inside) to the nose on the average head; p (..., 3)."""
    x, y, z = np.abs(p[..., 0]), p[..., 1], p[..., 2]
    half = np.interp(y, [-0.054, -0.050, -0.040, -0.028, -0.012, 0.004, 0.006],
                     [0.0, 0.0150, 0.0195, 0.0165, 0.0110, 0.0075, 0.0])  # fmt: skip
    return np.where(z > -0.01, x - half, 0.05)


def jaw_height(p: np.ndarray) -> np.ndarray:
    """Metres above the line from the chin to the ear lobe; negative is neck."""
    line = np.interp(p[..., 2], [-0.075, -0.03, 0.0], [-0.055, -0.100, -0.122])
    return p[..., 1] - line


@functools.lru_cache(maxsize=64)
def face_classes(hairline: float | None) -> np.ndarray:
    """(F',) class id of each triangle of `surface()`; scalp above the `hairline` is hair.

    Args:
        hairline: how far the hair recedes; None for a bald head, whose scalp is skin.
    """
    model, s = head_model(), surface()
    faces = s.faces
    centre = s.average[faces].mean(1)
    weight = {k: v[faces].mean(1) for k, v in s.regions.items()}
    jaw = s.between(-model.basis[model.row_of["jawOpen"]][:, 1])
    lower = jaw[faces].mean(1) > 0.4 * jaw.max()
    out = np.full(len(faces), CLASS["skin"])
    out[nose_distance(centre) < 0] = CLASS["nose"]
    out[(jaw_height(centre) < 0) | (centre[:, 1] < -0.135)] = CLASS["neck"]
    lips = weight["lips"] > 0.4
    out[lips & lower] = CLASS["l_lip"]
    out[lips & ~lower] = CLASS["u_lip"]
    if hairline is not None:
        covered = st.hairline_distance(centre, hairline) > 0.004
        out[covered & (weight["ears"] < 0.1) & (centre[:, 1] > -0.07)] = CLASS["hair"]
    ear = weight["ears"] > 0.5
    out[ear & (centre[:, 0] > 0)] = CLASS["l_ear"]
    out[ear & (centre[:, 0] < 0)] = CLASS["r_ear"]
    out[weight["inside-mouth"] > 0.5] = CLASS["mouth"]
    return out
