"""Who is in the picture and how it is taken: identities and views drawn from a seed."""

from dataclasses import dataclass

import numpy as np

from data_prep.faces128 import traits
from data_prep.faces128.traits import (
    AGED_EYES,
    HAIR_COLORS,
    LIGHTS,
    OPEN_EYES,
    PAIRED,
    RGB,
    SHAPE_NAMES,
)

__all__ = ["LIGHTS", "RGB", "SHAPE_NAMES", "Identity", "View", "sample_identity", "sample_view"]


@dataclass(frozen=True)
class Identity:
    """What stays the same between two pictures of one person (but hair and make-up may be worn)."""

    seed: int
    male: bool
    age: float  # anny's scale: 0.55 = 20 years, 0.67 = 25, 1.0 = 90 years (non-linear)
    phenotype: dict[str, float]
    shape_code: np.ndarray  # (48,) standardised
    groups: dict[str, float]  # what the parameters of `traits.GROUPS` share
    skin_tone: float  # 0 very light … 1 very dark
    skin_warmth: float
    iris: str
    freckles: float
    rosy: float
    redness: float
    oily: float
    bags: float
    lines: float  # how early folds come, 1 = average
    moles: int
    hair_color: str
    hair_rgb: RGB
    hair_style: str  # "bald", "receding" (short with a high hairline) or a key of hair.STYLES
    receding: float
    part_x: float
    brow_arch: float
    brow_thickness: float
    beard: str  # none, stubble, moustache, goatee, full
    beard_length: float
    sideburns: bool
    lip_rgb: RGB

    def shape(self) -> dict[str, float]:
        """Local changes by anny's names, from the standardised code."""
        out: dict[str, float] = {}
        droop = float(np.interp(self.age, [0.75, 0.92], [0.0, 1.0]))
        for name, value in zip(SHAPE_NAMES, self.shape_code, strict=True):
            value = value * traits.scale_of(name) + OPEN_EYES.get(name, 0.0)
            value += droop * AGED_EYES.get(name, 0.0)
            for label in [f"l-{name}", f"r-{name}"] if name.startswith(PAIRED) else [name]:
                out[label] = float(np.clip(value, -1, 1))
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
    jewel_rgb: RGB
    hat: str  # none, beanie, brim
    hat_rgb: RGB
    cloth: str  # a key of traits.garments
    cloth_rgb: RGB
    second_rgb: RGB  # shirt under a jacket
    tie_rgb: RGB
    necktie: bool
    pattern: str  # plain, stripes, check, knit
    background: tuple[RGB, RGB]
    background_kind: str  # a key of traits.BACKDROPS
    light: str
    light_power: float


def _choice(rng: np.random.Generator, table: dict[str, float]) -> str:
    keys = list(table)
    p = np.array([table[k] for k in keys], float)
    return keys[rng.choice(len(keys), p=p / p.sum())]


def _rgb(values: np.ndarray) -> RGB:
    return float(values[0]), float(values[1]), float(values[2])


def _random_rgb(rng: np.random.Generator, low: float, high: float, saturation: float) -> RGB:
    value = np.exp(rng.uniform(np.log(low), np.log(high)))
    tint = np.exp(saturation * rng.normal(0, 1, 3))
    return _rgb(np.clip(value * tint / tint.mean(), 0.01, 0.8))


def sample_identity(seed: int) -> Identity:
    """Draws a person; the same seed gives the same person."""
    rng = np.random.default_rng([seed, 1])
    male = bool(rng.random() < 0.5)
    age = float(np.interp(rng.random(), [0, 0.52, 0.72, 1.0], [0.56, 0.73, 0.86, 0.99]))
    old = age > 0.82
    code, groups = traits.shape_code(rng)
    tone = float(rng.random())
    race = rng.dirichlet([0.7, 0.7, 0.7])
    if tone > 0.65:
        race = race * [3.0, 0.6, 0.6]
    elif tone < 0.35:
        race = race * [0.4, 1.2, 1.4]
    race = race / race.sum()
    phenotype = {
        "gender": float(np.clip((0.92 if male else 0.08) + rng.normal(0, 0.06), 0, 1)),
        "age": age,
        "muscle": float(rng.uniform(0.35, 0.7)),
        "weight": float(np.clip(0.5 + 0.15 * groups["fat"] + rng.normal(0, 0.08), 0.1, 0.95)),
        "height": 0.5,
        "african": float(race[0]),
        "asian": float(race[1]),
        "caucasian": float(race[2]),
    }
    color = _choice(rng, traits.hair_colors(tone, old))
    rgb = np.array(HAIR_COLORS[color]) * np.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.05, 3))
    style = _choice(rng, traits.hair_styles(male, tone, age > 0.68))
    beard = "none"
    if male:
        beard = _choice(
            rng, {"none": 3.6, "stubble": 1.7, "moustache": 1.2, "goatee": 1.3, "full": 1.9}
        )
    lip = np.array([0.42, 0.17, 0.15]) * (0.35 + 0.75 * (1 - tone)) * np.exp(rng.normal(0, 0.08, 3))
    iris_table = {"brown": 5.0, "blue": 0.6, "green": 0.4} if tone > 0.55 else {
        "brown": 2.0, "blue": 2.4, "green": 1.8, "gray": 0.7}  # fmt: skip
    thickness = float(np.clip(rng.normal(1.15 if male else 0.85, 0.32), 0.45, 1.9))
    side_parted = style in ("side_part", "bob", "long_wavy")
    receding = (0.75, 1.0) if style == "receding" else (0.0, 0.25 if male else 0.1)
    fair = tone < 0.42
    return Identity(
        seed=seed,
        male=male,
        age=age,
        phenotype=phenotype,
        shape_code=code,
        groups=groups,
        skin_tone=tone,
        skin_warmth=float(rng.normal(0, 1)),
        iris=_choice(rng, iris_table),
        freckles=float(rng.uniform(0.5, 1)) if rng.random() < (0.34 if fair else 0.0) else 0.0,
        rosy=float(rng.uniform(0.5, 1)) if rng.random() < (0.34 if tone < 0.5 else 0.0) else 0.0,
        redness=float(rng.beta(1.2, 3)),
        oily=float(rng.beta(1.2, 1.6)),
        bags=float(rng.uniform(0.6, 1.0)) if rng.random() < (0.45 if old else 0.2) else 0.0,
        lines=float(np.exp(rng.normal(0, 0.18))),
        moles=int(rng.choice(5, p=[0.35, 0.3, 0.2, 0.1, 0.05])),
        hair_color=color,
        hair_rgb=_rgb(rgb),
        hair_style=style,
        receding=float(rng.uniform(*receding)),
        part_x=float(
            rng.choice([-1, 1]) * rng.uniform(0.018, 0.034)
            if side_parted
            else rng.normal(0, 0.004)
        ),
        brow_arch=float(np.clip(rng.normal(0.5 if male else 1.0, 0.5), -0.2, 1.9)),
        brow_thickness=thickness,
        beard=beard,
        beard_length=float(rng.uniform(*((0.010, 0.024) if beard == "full" else (0.005, 0.011)))),
        sideburns=bool(male and style != "bald" and (beard == "full" or rng.random() < 0.35)),
        lip_rgb=_rgb(lip),
    )  # fmt: skip


def _expression(rng: np.random.Generator) -> tuple[dict[str, float], bool, bool, bool]:
    """Facial actions, and whether the face smiles, opens its mouth, closes its eyes."""
    expression: dict[str, float] = {}

    def both(name: str, value: float, jitter: float = 0.05) -> None:
        for side in ("Left", "Right"):
            expression[name + side] = float(np.clip(value + rng.normal(0, jitter), 0, 1.1))

    smiling, mouth_open = bool(rng.random() < 0.47), bool(rng.random() < 0.42)
    if smiling:
        strength = rng.uniform(0.65, 1.0)
        both("mouthSmile", strength, 0.03)
        both("cheekSquint", strength * rng.uniform(0.05, 0.25))
        if mouth_open:
            both("mouthUpperUp", rng.uniform(0.6, 0.95), 0.03)
            both("mouthLowerDown", rng.uniform(0.3, 0.7), 0.03)
    elif rng.random() < 0.3:
        both("mouthFrown", rng.uniform(0.2, 0.65), 0.04)
    if mouth_open:
        expression["jawOpen"] = float(
            rng.uniform(0.06, 0.3) if smiling else rng.choice([0.22, 0.4]) + rng.uniform(0, 0.12)
        )
        if not smiling:
            both("mouthUpperUp", rng.uniform(0.2, 0.5), 0.03)
    eyes_closed = bool(rng.random() < 0.08)
    lids = rng.random()
    if eyes_closed:
        both("eyeBlink", 1.0, 0.0)
    elif lids < 0.16:
        both("eyeSquint", rng.uniform(0.75, 0.95))
        both("eyeBlink", rng.uniform(0.12, 0.2), 0.01)
    elif lids < 0.36:
        both("eyeWide", rng.uniform(0.2, 0.6))
    brows = rng.random()
    if brows < 0.24:
        expression["browInnerUp"] = float(rng.uniform(0, 0.6))
        both("browOuterUp", rng.uniform(0.2, 0.7))
    elif brows < 0.42 and not smiling:
        both("browDown", rng.uniform(0.2, 0.7))
    return expression, smiling, mouth_open, eyes_closed


def sample_view(identity: Identity, seed: int) -> View:
    """Draws one picture of `identity`; the same seeds give the same picture."""
    rng = np.random.default_rng([identity.seed, seed, 2])
    expression, smiling, mouth_open, eyes_closed = _expression(rng)
    female = not identity.male
    lipstick = None
    if female and rng.random() < 0.5:
        shade = np.array(traits.LIPSTICKS[rng.integers(len(traits.LIPSTICKS))])
        lipstick = _rgb(shade * np.exp(rng.normal(0, 0.1, 3)) * (1.1 - 0.45 * identity.skin_tone))
    makeup = float(rng.uniform(0.75, 1.0)) if lipstick and rng.random() < 0.55 else 0.0
    first = np.array(_random_rgb(rng, 0.05, 0.6, 0.22))
    second = np.clip(first * np.exp(rng.normal(0, 0.5)) * np.exp(rng.normal(0, 0.15, 3)), 0.02, 0.7)
    hat = _choice(rng, {"none": 0.90, "beanie": 0.055, "brim": 0.045})
    if identity.hair_style in ("afro", "curly", "bun"):
        hat = "none"
    cloth = _choice(rng, traits.garments(identity.male))
    suit = cloth == "suit"
    light_shirt = rng.random() < 0.65
    return View(
        seed=seed,
        expression=expression,
        smiling=smiling,
        mouth_open=mouth_open,
        eyes_closed=eyes_closed,
        gaze=(float(rng.normal(0, 5)), float(rng.normal(0, 3))),
        yaw=float(np.clip(rng.normal(0, 18), -45, 45)),
        pitch=float(np.clip(rng.normal(0, 7), -20, 20)),
        roll=float(np.clip(rng.normal(0, 3.5), -10, 10)),
        lipstick=lipstick,
        eye_makeup=makeup,
        glasses=_choice(rng, {"none": 0.81, "eyeglasses": 0.13, "sunglasses": 0.06}),
        glasses_rgb=_random_rgb(rng, 0.01, 0.05, 0.3) if rng.random() < 0.75 else (0.45, 0.3, 0.1),
        glasses_shape=float(rng.uniform(0, 1)),
        earrings=bool(rng.random() < (0.45 if female else 0.05)),
        necklace=bool(rng.random() < (0.5 if female else 0.12)),
        jewel_rgb=(0.85, 0.62, 0.24) if rng.random() < 0.6 else (0.78, 0.79, 0.82),
        hat=hat,
        hat_rgb=_random_rgb(rng, 0.03, 0.4, 0.5),
        cloth=cloth,
        cloth_rgb=_random_rgb(rng, *((0.015, 0.1, 0.25) if suit else (0.03, 0.5, 0.45))),
        second_rgb=(0.72, 0.73, 0.75) if light_shirt else _random_rgb(rng, 0.2, 0.6, 0.2),
        tie_rgb=_random_rgb(rng, 0.02, 0.16, 0.8),
        necktie=suit,
        pattern=_choice(rng, {"plain": 4, "stripes": 1.3, "check": 0.8, "knit": 1.5}),
        background=(_rgb(first), _rgb(second)),
        background_kind=_choice(rng, traits.BACKDROPS),
        light=LIGHTS[rng.integers(len(LIGHTS))],
        light_power=float(np.exp(rng.normal(0, 0.12))),
    )  # fmt: skip
