"""Who is in the picture and how it is taken: identities and views drawn from a seed."""

from dataclasses import dataclass

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
OPEN_EYES = {"eye-scale-incr": 0.3, "eye-height2-incr": 0.35}  # the average eye is small at 128 px
PAIRED = ("eye-", "cheek-", "ear-")  # exist once for the left and once for the right

RGB = tuple[float, float, float]

HAIR_COLORS = {  # diffuse RGB, linear
    "black": (0.012, 0.010, 0.009),
    "brown": (0.075, 0.036, 0.018),
    "blond": (0.46, 0.30, 0.12),
    "red": (0.30, 0.075, 0.022),
    "gray": (0.33, 0.33, 0.34),
    "white": (0.68, 0.68, 0.67),
}
IRIS_COLORS = {
    "brown": (0.09, 0.035, 0.012),
    "blue": (0.10, 0.22, 0.42),
    "green": (0.10, 0.20, 0.08),
    "gray": (0.22, 0.25, 0.28),
}
LIGHTS = ("studio", "window_left", "window_right", "overcast", "sunset", "rembrandt")


@dataclass(frozen=True)
class Identity:
    """What stays the same between two pictures of one person (but hair and make-up may be worn)."""

    seed: int
    male: bool
    age: float  # anny's scale: 0.55 = 20 years, 0.67 = 25, 1.0 = 90 years (non-linear)
    phenotype: dict[str, float]
    shape_code: np.ndarray  # (48,) standardised
    skin_tone: float  # 0 very light … 1 very dark
    skin_warmth: float
    iris: str
    freckles: float
    rosy: float
    hair_color: str
    hair_rgb: RGB
    hair_style: str  # "bald", "receding" (short with a high hairline) or a key of hair.STYLES
    receding: float
    part_x: float
    brow_arch: float
    brow_thickness: float
    beard: str  # none, stubble, moustache, goatee, full
    beard_length: float
    lip_rgb: RGB

    def shape(self) -> dict[str, float]:
        """Local changes by anny's names, from the standardised code."""
        out: dict[str, float] = {}
        for name, value in zip(SHAPE_NAMES, self.shape_code, strict=True):
            scale = 0.42 if not name.startswith(("neck", "eye-trans", "head-scale")) else 0.28
            if name.startswith("eye-push1") or name.startswith("eye-bag"):
                scale = 0.2
            value = float(np.clip(value * scale + OPEN_EYES.get(name, 0.0), -1, 1))
            for label in [f"l-{name}", f"r-{name}"] if name.startswith(PAIRED) else [name]:
                out[label] = value
        return out


@dataclass(frozen=True)
class View:
    """One picture of a person: expression, things worn, light, background, camera."""

    seed: int
    expression: dict[str, float]
    smiling: bool
    mouth_open: bool
    eyes_closed: bool
    gaze: tuple[float, float]  # degrees: to the person's left, up
    yaw: float
    pitch: float
    roll: float
    lipstick: RGB | None
    eye_makeup: float
    glasses: str  # none, eyeglasses, sunglasses
    glasses_rgb: RGB
    glasses_shape: float
    earrings: bool
    necklace: bool
    hat: str  # none, beanie, brim
    hat_rgb: RGB
    cloth: str  # tshirt, vneck, turtleneck, collar
    cloth_rgb: RGB
    background: tuple[RGB, RGB]
    background_kind: str
    light: str
    light_power: float


def _choice(rng: np.random.Generator, table: dict[str, float]) -> str:
    keys = list(table)
    p = np.array([table[k] for k in keys], float)
    return keys[rng.choice(len(keys), p=p / p.sum())]


def _rgb(values: np.ndarray) -> RGB:
    return float(values[0]), float(values[1]), float(values[2])


def _random_rgb(rng: np.random.Generator, low: float, high: float, saturation: float) -> RGB:
    value = rng.uniform(low, high)
    tint = 1 + saturation * rng.normal(0, 1, 3)
    return _rgb(np.clip(value * tint, 0.01, 0.9))


def sample_identity(seed: int) -> Identity:
    """Draws a person; the same seed gives the same person."""
    rng = np.random.default_rng([seed, 1])
    male = bool(rng.random() < 0.5)
    age = float(np.interp(rng.random(), [0, 0.55, 0.8, 1.0], [0.56, 0.74, 0.86, 0.97]))
    old = age > 0.80
    code = np.clip(rng.normal(0, 1, len(SHAPE_NAMES)), -2.4, 2.4)
    tone = float(rng.random())
    race = rng.dirichlet([0.7, 0.7, 0.7])
    if tone > 0.65:
        race = race * [3.0, 0.6, 0.6]
    elif tone < 0.35:
        race = race * [0.4, 1.2, 1.4]
    race = race / race.sum()
    phenotype = {
        "gender": float(np.clip((0.92 if male else 0.08) + rng.normal(0, 0.07), 0, 1)),
        "age": age,
        "muscle": float(rng.uniform(0.35, 0.7)),
        "weight": float(np.clip(rng.normal(0.5, 0.17), 0.1, 0.95)),
        "height": 0.5,
        "african": float(race[0]),
        "asian": float(race[1]),
        "caucasian": float(race[2]),
    }
    color = _choice(
        rng,
        {"gray": 5, "white": 2.5, "brown": 1, "black": 1, "blond": 0.6}
        if old
        else {"black": 3, "brown": 2.6, "blond": 2.4, "red": 2.0, "gray": 1.6},
    )
    rgb = (
        np.array(HAIR_COLORS[color]) * np.exp(rng.normal(0, 0.16)) * np.exp(rng.normal(0, 0.05, 3))
    )
    if male:
        styles = {"bald": 1.2, "receding": 1.4 if age > 0.68 else 0.4, "buzz": 1.5, "short": 2.6,
                  "side_part": 2.2, "swept_back": 1.6, "curly": 1.1, "afro": 0.5 + tone,
                  "wavy": 0.7, "long_straight": 0.4, "ponytail": 0.3}  # fmt: skip
    else:
        styles = {"short": 0.6, "side_part": 0.4, "curly": 0.8, "afro": 0.4 + tone, "wavy": 1.6,
                  "bob": 1.5, "bob_bangs": 1.6, "long_straight": 2.0, "long_wavy": 2.2,
                  "bangs_long": 1.6, "ponytail": 1.5, "buzz": 0.15, "swept_back": 0.2}  # fmt: skip
    style = _choice(rng, styles)
    beard = "none"
    if male:
        beard = _choice(
            rng, {"none": 4, "stubble": 1.4, "moustache": 1.1, "goatee": 1.2, "full": 1.9}
        )
    lightness = 1 - tone
    lip = np.array([0.42, 0.17, 0.15]) * (0.35 + 0.75 * lightness) * np.exp(rng.normal(0, 0.08, 3))
    iris_table = {"brown": 5.0, "blue": 0.6, "green": 0.4} if tone > 0.55 else {
        "brown": 2.0, "blue": 2.4, "green": 1.8, "gray": 0.7}  # fmt: skip
    thickness = float(np.clip(rng.normal(1.12 if male else 0.85, 0.25), 0.5, 1.7))
    freckled = 0.3 if tone < 0.4 else 0.03
    rosy = 0.3 if tone < 0.55 else 0.05
    side_parted = style in ("side_part", "bob", "long_wavy")
    receding = (0.6, 1.0) if style == "receding" else (0.0, 0.3 if male else 0.12)
    return Identity(
        seed=seed,
        male=male,
        age=age,
        phenotype=phenotype,
        shape_code=code,
        skin_tone=tone,
        skin_warmth=float(rng.normal(0, 1)),
        iris=_choice(rng, iris_table),
        freckles=float(rng.uniform(0.5, 1)) if rng.random() < freckled else 0.0,
        rosy=float(rng.uniform(0.5, 1)) if rng.random() < rosy else 0.0,
        hair_color=color,
        hair_rgb=_rgb(rgb),
        hair_style=style,
        receding=float(rng.uniform(*receding)),
        part_x=float(
            rng.choice([-1, 1]) * rng.uniform(0.018, 0.034)
            if side_parted
            else rng.normal(0, 0.004)
        ),
        brow_arch=float(np.clip(rng.normal(0.55 if male else 0.95, 0.4), 0, 1.7)),
        brow_thickness=thickness,
        beard=beard,
        beard_length=float(rng.uniform(*((0.008, 0.024) if beard == "full" else (0.006, 0.016)))),
        lip_rgb=_rgb(lip),
    )  # fmt: skip


def sample_view(identity: Identity, seed: int) -> View:
    """Draws one picture of `identity`; the same seeds give the same picture."""
    rng = np.random.default_rng([identity.seed, seed, 2])
    expression: dict[str, float] = {}

    def both(name: str, value: float, jitter: float = 0.08) -> None:
        expression[name + "Left"] = float(np.clip(value + rng.normal(0, jitter), 0, 1))
        expression[name + "Right"] = float(np.clip(value + rng.normal(0, jitter), 0, 1))

    smiling = bool(rng.random() < 0.48)
    mouth_open = bool(rng.random() < 0.36)
    if smiling:
        both("mouthSmile", rng.uniform(0.55, 1.0), 0.04)
        both("cheekSquint", rng.uniform(0.1, 0.5))
        if mouth_open:
            both("mouthUpperUp", rng.uniform(0.25, 0.5), 0.03)
            both("mouthLowerDown", rng.uniform(0.2, 0.5), 0.03)
    elif rng.random() < 0.3:
        both("mouthFrown", rng.uniform(0.1, 0.5), 0.04)
    if mouth_open:
        expression["jawOpen"] = float(rng.uniform(0.12, 0.45))
    eyes_closed = bool(rng.random() < 0.05)
    if eyes_closed:
        both("eyeBlink", 1.0, 0.0)
    elif rng.random() < 0.2:
        both("eyeSquint", rng.uniform(0.2, 0.6))
    elif rng.random() < 0.25:
        both("eyeWide", rng.uniform(0.2, 0.7))
    if rng.random() < 0.3:
        expression["browInnerUp"] = float(rng.uniform(0, 0.6))
        both("browOuterUp", rng.uniform(0, 0.6))
    elif rng.random() < 0.2:
        both("browDown", rng.uniform(0.1, 0.6))

    female = not identity.male
    lipstick = None
    if female and rng.random() < 0.5:
        shades = [(0.42, 0.02, 0.03), (0.5, 0.06, 0.12), (0.28, 0.015, 0.05), (0.55, 0.13, 0.12)]
        lipstick = _rgb(np.array(shades[rng.integers(4)]) * np.exp(rng.normal(0, 0.1, 3)))
    makeup = float(rng.uniform(0.5, 1.0)) if lipstick and rng.random() < 0.5 else 0.0
    base = rng.uniform(0.05, 0.6)
    tint = np.clip(1 + 0.3 * rng.normal(0, 1, 3), 0.3, 1.8)
    first = np.clip(base * tint, 0.02, 0.8)
    second = np.clip(first * np.exp(rng.normal(0, 0.5)) * np.exp(rng.normal(0, 0.15, 3)), 0.02, 0.8)
    hat = _choice(rng, {"none": 0.92, "beanie": 0.05, "brim": 0.03})
    if identity.hair_style in ("afro", "curly"):
        hat = "none"
    return View(
        seed=seed,
        expression=expression,
        smiling=smiling,
        mouth_open=mouth_open,
        eyes_closed=eyes_closed,
        gaze=(float(rng.normal(0, 6)), float(rng.normal(0, 4))),
        yaw=float(np.clip(rng.normal(0, 17), -45, 45)),
        pitch=float(np.clip(rng.normal(0, 7), -20, 20)),
        roll=float(np.clip(rng.normal(0, 2.5), -10, 10)),
        lipstick=lipstick,
        eye_makeup=makeup,
        glasses=_choice(rng, {"none": 0.84, "eyeglasses": 0.115, "sunglasses": 0.045}),
        glasses_rgb=_random_rgb(rng, 0.01, 0.06, 0.3) if rng.random() < 0.7 else (0.5, 0.36, 0.12),
        glasses_shape=float(rng.uniform(0, 1)),
        earrings=bool(rng.random() < (0.4 if female else 0.04)),
        necklace=bool(rng.random() < (0.3 if female else 0.04)),
        hat=hat,
        hat_rgb=_random_rgb(rng, 0.04, 0.5, 0.4),
        cloth=_choice(rng, {"tshirt": 4, "vneck": 2.5, "turtleneck": 1.2, "collar": 2.3}),
        cloth_rgb=_random_rgb(rng, 0.03, 0.6, 0.4),
        background=(_rgb(first), _rgb(second)),
        background_kind=_choice(rng, {"plain": 3, "gradient": 3, "blurred": 4}),
        light=LIGHTS[rng.integers(len(LIGHTS))],
        light_power=float(np.exp(rng.normal(0, 0.12))),
    )  # fmt: skip
