"""What people can be made of: head shapes, colours, hairstyles and clothes, and how often."""

import numpy as np

# Head-shape parameters that make an identity; `shape_code` holds them standardised, in this order.
SHAPE_NAMES = (
    "head-scale-horiz-incr", "head-scale-vert-incr", "head-scale-depth-incr", "head-fat-incr",
    "head-angle-out", "forehead-scale-vert-incr", "forehead-trans-forward", "forehead-nubian-incr",
    "forehead-temple-incr", "chin-width-incr", "chin-height-incr", "chin-prominent-incr",
    "chin-bones-incr", "chin-jaw-drop-incr", "chin-cleft-incr", "nose-scale-vert-incr",
    "nose-scale-horiz-incr", "nose-scale-depth-incr", "nose-hump-incr", "nose-point-up",
    "nose-point-width-incr", "nose-width1-incr", "nose-width2-incr", "nose-nostrils-width-incr",
    "nose-volume-incr", "nose-curve-convex", "mouth-scale-horiz-incr", "mouth-scale-vert-incr",
    "mouth-upperlip-volume-incr", "mouth-lowerlip-volume-incr", "mouth-cupidsbow-incr",
    "mouth-trans-up", "eye-scale-incr", "eye-height2-incr", "eye-trans-out", "eye-trans-up",
    "eye-corner1-up", "eye-push1-out", "eye-eyefold-up", "eye-bag-incr", "cheek-volume-incr",
    "cheek-bones-incr", "cheek-inner-incr", "ear-scale-incr", "ear-wing-incr", "eyebrows-trans-up",
    "neck-scale-horiz-incr", "neck-double-incr",
)  # fmt: skip
OPEN_EYES = {"eye-scale-incr": 0.42, "eye-height2-incr": 0.65}  # the average eye is small at 128 px
AGED_EYES = {"eye-scale-incr": 0.2, "eye-height2-incr": 0.35}  # against the model's closing lids
PAIRED = ("eye-", "cheek-", "ear-")  # exist once for the left and once for the right

# Parameters that go together, so that "a big nose" is big all over: group → parameter → sign.
GROUPS: dict[str, dict[str, float]] = {
    "nose": {"nose-scale-horiz-incr": 1, "nose-volume-incr": 1, "nose-width2-incr": 1,
             "nose-nostrils-width-incr": 1, "nose-width1-incr": 0.7},
    "point": {"nose-point-width-incr": -1, "nose-scale-depth-incr": 1, "nose-point-up": -0.4},
    "lips": {"mouth-upperlip-volume-incr": 1, "mouth-lowerlip-volume-incr": 1,
             "mouth-scale-vert-incr": 1},
    "fat": {"head-fat-incr": 1, "cheek-volume-incr": 1, "neck-double-incr": 1,
            "cheek-inner-incr": 0.7},
}  # fmt: skip
SCALES = {  # morph value of one standard deviation; 0.42 where none is given
    "neck-scale": 0.28, "eye-trans": 0.25, "head-scale": 0.28, "eye-push1": 0.2, "eye-bag": 0.2,
    "eye-height2": 0.22, "eye-scale": 0.22, "mouth-trans": 0.3,
    "nose-scale-vert": 0.3, "nose-hump": 0.3, "nose-scale-horiz": 0.5,
    "nose-volume": 0.48, "nose-width2": 0.48, "nose-point-width": 0.62, "nose-scale-depth": 0.34,
    "mouth-upperlip-volume": 0.48, "mouth-lowerlip-volume": 0.48, "mouth-scale-vert": 0.42,
    "head-fat": 0.58, "cheek-volume": 0.52, "neck-double": 0.5, "chin-cleft": 0.3,
    "chin-jaw-drop": 0.25, "forehead-nubian": 0.3, "head-angle": 0.25, "forehead-temple": 0.3,
    "chin-width": 0.32, "chin-height": 0.34, "chin-bones": 0.32, "forehead-scale": 0.34,
}  # fmt: skip

RGB = tuple[float, float, float]

HAIR_COLORS = {  # diffuse RGB, linear
    "black": (0.013, 0.011, 0.010),
    "brown": (0.085, 0.040, 0.019),
    "blond": (0.47, 0.31, 0.135),
    "red": (0.33, 0.080, 0.022),
    "gray": (0.33, 0.33, 0.335),
    "white": (0.66, 0.66, 0.65),
}
IRIS_COLORS = {
    "brown": (0.085, 0.034, 0.012),
    "blue": (0.055, 0.145, 0.32),
    "green": (0.065, 0.165, 0.055),
    "gray": (0.15, 0.18, 0.21),
}
LIPSTICKS = ((0.45, 0.015, 0.025), (0.52, 0.05, 0.13), (0.24, 0.012, 0.05), (0.58, 0.10, 0.09))
LIGHTS = (
    "studio", "window_left", "window_right", "overcast", "sunset", "rembrandt", "beauty", "evening",
)  # fmt: skip
BACKDROPS = {
    "plain": 2.0,
    "gradient": 2.0,
    "studio": 1.5,
    "room": 3.0,
    "garden": 2.5,
    "street": 1.2,
}
PLAIN_BACKDROPS = ("plain", "gradient", "studio")
LONG_STYLES = ("long_straight", "long_wavy", "bangs_long")  # of hair
OPEN_NECKS = ("tshirt", "vneck", "scoop", "jacket")  # a necklace shows


def scale_of(name: str) -> float:
    """Morph value of one standard deviation of a shape parameter."""
    for prefix, value in SCALES.items():
        if name.startswith(prefix):
            return value
    return 0.42


def shape_code(rng: np.random.Generator) -> tuple[np.ndarray, dict[str, float]]:
    """(48,) standard normal parameters, and each group's share in them, standard normal too."""
    code = dict(zip(SHAPE_NAMES, rng.normal(0, 1, len(SHAPE_NAMES)), strict=True))
    shared = {}
    for group, members in GROUPS.items():
        common = float(rng.normal(0, 1))
        for name, sign in members.items():
            share = 0.85 * abs(sign)
            code[name] = np.sign(sign) * share * common + np.sqrt(1 - share**2) * code[name]
        shared[group] = common
    return np.clip(np.array([code[n] for n in SHAPE_NAMES]), -2.0, 2.0), shared


def hair_colors(tone: float, old: bool) -> dict[str, float]:
    """How often each hair colour is drawn, by skin tone and age."""
    if old:
        return {"gray": 5, "white": 2.2, "brown": 1, "black": 0.8, "blond": 0.7, "red": 0.4}
    dark = {"black": 4.5, "brown": 3.0, "blond": 1.0, "red": 1.2, "gray": 0.6}
    fair = {"black": 1.8, "brown": 2.4, "blond": 3.2, "red": 2.8, "gray": 0.9}
    t = float(np.clip((tone - 0.3) / 0.35, 0, 1))
    return {k: (1 - t) * fair[k] + t * dark[k] for k in fair}


def hair_styles(male: bool, tone: float, receding: bool) -> dict[str, float]:
    """How often each hairstyle is drawn."""
    if male:
        return {"bald": 1.2, "receding": 1.8 if receding else 0.4, "buzz": 1.3, "short": 2.6,
                "side_part": 2.2, "swept_back": 1.6, "curly": 1.2, "afro": 0.3 + 0.8 * tone,
                "wavy": 0.8, "long_straight": 0.5, "ponytail": 0.3}  # fmt: skip
    return {"short": 0.7, "side_part": 0.4, "curly": 0.9, "afro": 0.3 + 0.8 * tone, "wavy": 1.6,
            "bob": 1.4, "bob_bangs": 1.5, "long_straight": 1.9, "long_wavy": 2.1, "bangs_long": 1.5,
            "ponytail": 1.2, "bun": 1.2, "buzz": 0.15, "swept_back": 0.2}  # fmt: skip


def garments(male: bool) -> dict[str, float]:
    """How often each garment is drawn."""
    if male:
        return {"tshirt": 2.6, "vneck": 1.2, "turtleneck": 1.0, "shirt": 1.8, "jacket": 1.4,
                "suit": 2.0, "hoodie": 1.0}  # fmt: skip
    return {"tshirt": 2.0, "vneck": 2.0, "scoop": 2.2, "turtleneck": 1.0, "shirt": 1.4,
            "jacket": 1.6, "suit": 0.25, "hoodie": 0.6}  # fmt: skip
