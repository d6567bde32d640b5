"""Light set-ups: a key light, a fill, a rim light and the surroundings."""

import numpy as np

from data_prep.faces128.shapes import renderer


def _area_light(position: tuple, size: float, irradiance: float, rgb: tuple) -> dict:
    """A square light facing the head that gives `irradiance` at the origin."""
    mi = renderer()

    position_ = np.array(position, float)
    distance = np.linalg.norm(position_)
    radiance = irradiance * distance**2 / (4 * size**2)
    color = {"type": "rgb", "value": [radiance * c for c in rgb]}
    to_world = mi.ScalarTransform4f().look_at(
        list(map(float, position_)), [0, 0, 0], [0.0, 1.0, 0.1]
    )
    return {
        "type": "rectangle",
        "to_world": to_world @ mi.ScalarTransform4f().scale(size),
        "emitter": {"type": "area", "radiance": color},
    }  # fmt: skip


def placing(rng: np.random.Generator) -> tuple[float, np.ndarray, float]:
    """What chance decides of a set-up: the key's side, ±1, its shift (3,), the rim's power."""
    side, jitter = float(rng.choice([-1, 1])), rng.uniform(0.8, 1.2, 3)
    return side, jitter, float(rng.uniform(0.3, 1.3))


def lights(name: str, power: float, rng: np.random.Generator) -> dict[str, dict]:
    """Emitters of one of the set-ups in `traits.LIGHTS`; all are soft boxes."""
    white, warm, cool = (1.0, 0.97, 0.93), (1.0, 0.78, 0.52), (0.86, 0.93, 1.0)
    s, jitter, rim_power = placing(rng)
    key, fill, env = {
        "studio": (
            ((1.8 * s, 1.5, 2.4), 0.7, 2.3, white),
            ((-2.4 * s, 0.4, 2.0), 0.9, 0.7, white),
            0.16,
        ),
        "window_left": (
            ((2.8, 0.9, 1.5), 1.1, 2.6, cool),
            ((-2.0, 0.2, 2.2), 0.8, 0.35, white),
            0.17,
        ),
        "window_right": (
            ((-2.8, 0.9, 1.5), 1.1, 2.6, cool),
            ((2.0, 0.2, 2.2), 0.8, 0.35, white),
            0.17,
        ),
        "overcast": (
            ((0.4 * s, 2.8, 1.8), 1.4, 1.3, cool),
            ((0.0, -0.6, 2.6), 0.9, 0.4, white),
            0.42,
        ),
        "sunset": (
            ((2.2 * s, 0.6, 1.9), 0.45, 2.3, warm),
            ((-1.8 * s, 0.8, 2.2), 0.9, 0.5, cool),
            0.2,
        ),
        "beauty": (
            ((0.2 * s, 1.5, 2.6), 0.7, 2.2, white),
            ((0.0, -1.3, 2.3), 0.7, 0.9, white),
            0.18,
        ),
        "evening": (
            ((2.4 * s, 0.5, 1.5), 0.7, 2.2, warm),
            ((-2.4 * s, 0.5, 1.2), 0.7, 1.1, (0.55, 0.72, 1.0)),
            0.12,
        ),
        "rembrandt": (
            ((1.9 * s, 2.1, 1.6), 0.5, 2.7, white),
            ((-2.2 * s, 0.2, 2.3), 0.8, 0.4, white),
            0.11,
        ),
    }[name]
    position = np.array(key[0]) * jitter
    rim = (-1.5 * s, 1.4, -2.2)
    env_rgb = {"overcast": cool, "sunset": (0.85, 0.88, 1.0)}.get(name, white)
    return {
        "key": _area_light(tuple(position), key[1], key[2] * power, key[3]),
        "fill": _area_light(fill[0], fill[1], fill[2] * power, fill[3]),
        "rim": _area_light(rim, 0.5, rim_power * power, white),
        "env": {
            "type": "constant",
            "radiance": {"type": "rgb", "value": [env * power * c for c in env_rgb]},
        },
    }
