"""The same heads in eight styles: statues, other beings, paintings and drawings.

A style changes who is there (`dressed`), what the parts are made of (`remade`), or the finished
picture (`painting.PAINTERS`). Masks, cameras and depth stay exact.
"""

from dataclasses import replace

import numpy as np

from data_prep.faces128 import regions
from data_prep.faces128.painting import PAINTERS
from data_prep.faces128.part import Part
from data_prep.faces128.person import Identity, View

STATUES = ("marble", "bronze")
BEINGS = ("elf", "alien")
STYLES = (*STATUES, *BEINGS, *PAINTERS)
SEEN_IN_STONE = (  # attributes that shape shows without colour
    "Bald", "Bangs", "Wavy_Hair", "Straight_Hair", "Long_Hair", "Receding_Hairline", "Eyeglasses",
    "Sunglasses", "Goatee", "Mustache", "No_Beard", "Full_Beard", "Male", "Young", "Smiling",
    "Mouth_Slightly_Open", "Eyes_Closed", "Wearing_Hat", "Wearing_Earrings", "Chubby",
    "Double_Chin", "Narrow_Eyes", "Wearing_Necktie",
)  # fmt: skip
SILVER = (0.66, 0.68, 0.74)
NIGHT = (0.02, 0.035, 0.05)


def dressed(identity: Identity, view: View, style: str) -> tuple[Identity, View]:
    """The person as `style` wants them; only beings change."""
    if style in STATUES:
        view = replace(view, lipstick=None, eye_makeup=0.0, gaze=(0.0, 0.0))
        return identity, replace(view, glasses="none", background_kind="gradient")
    if style not in BEINGS:
        return identity, view
    rng = np.random.default_rng([identity.seed, 8])
    ears = {f"{side}-ear-shape-pointed": 1.0 for side in "lr"}
    ears |= {f"{side}-ear-scale-vert-incr": 1.0 for side in "lr"}
    ears |= {f"{side}-ear-scale-incr": 0.5 for side in "lr"}
    ears |= {f"{side}-ear-flap-incr": 0.7 for side in "lr"}
    hair_style = identity.hair_style
    if style == "elf":
        if hair_style in ("bald", "receding", "buzz", "afro", "curly", "bob_bangs"):
            hair_style = str(rng.choice(["long_straight", "ponytail", "swept_back"]))
        identity = replace(
            identity, hair_color="gray", hair_rgb=SILVER, hair_style=hair_style, receding=0.0,
            skin_tone=float(rng.uniform(0, 0.18)), age=min(identity.age, 0.66), freckles=0.0,
            iris=str(rng.choice(["blue", "green"])), beard="none", brow_arch=1.3,
        )  # fmt: skip
        identity = replace(identity, phenotype={**identity.phenotype, "age": identity.age})
    else:
        ears |= {f"{side}-eye-scale-incr": 0.8 for side in "lr"}
        identity = replace(
            identity, hair_color="black", hair_rgb=NIGHT, beard="none", freckles=0.0, rosy=0.0,
            skin_tone=0.12, iris="green", lip_rgb=(0.05, 0.10, 0.22),
        )  # fmt: skip
    view = replace(view, hat="none", glasses="none")
    return identity, replace(view, expression={**view.expression, **ears})


def tone(identity: Identity, style: str) -> float:
    """How dark the head's surface is, 0…1, for the camera's exposure."""
    return {"marble": 0.2, "bronze": 0.65, "alien": 0.45}.get(style, identity.skin_tone)


def _veins(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(V,) in [0, 1]: thin dark veins through the stone; points (V, 3) in metres."""
    turbulence = np.zeros(len(points))
    for octave in range(3):
        direction = rng.normal(0, 1, (4, 3)) * 28 * 2**octave
        phase = rng.uniform(0, 2 * np.pi, 4)
        turbulence += np.sin(np.einsum("vd,kd->vk", points, direction) + phase).mean(1) / 2**octave
    return np.exp(-((turbulence / 0.09) ** 2))


def remade(parts: list[Part], style: str, seed: int) -> list[Part]:
    """The parts with the materials of `style`, in place; only statues and aliens change."""
    rng = np.random.default_rng([seed, 9])
    skin = {regions.CLASS[name] for name in ("skin", "nose", "neck", "l_ear", "r_ear")}
    for part in parts:
        flat = part.vertices.reshape(-1, 3)
        carved = np.ones((1, 1))  # irises are cut into the stone
        if part.material == "eye" and np.ndim(part.colors) == 2:
            carved = 0.45 + 0.55 * np.clip(part.colors.mean(1, keepdims=True) / 0.6, 0, 1)
        if style == "bronze":
            patina = 0.5 + 0.5 * np.sin(flat[:, 1] * 60 + 3 * np.sin(flat[:, 0] * 50))
            patina = np.clip(patina * 0.5, 0, 1)[:, None]
            color = np.array([0.34, 0.19, 0.085]) * (1 - patina) + patina * [0.20, 0.17, 0.10]
            part.colors, part.material = color * carved, "patina"
        elif style == "marble":
            color = np.array([0.62, 0.61, 0.585]) * (1 - 0.35 * _veins(flat, rng)[:, None])
            part.colors, part.material = color * carved, "stone"
        elif style == "alien" and part.material == "skin" and part.faces is not None:
            inside = np.isin(np.unique(np.asarray(part.classes)), list(skin)).any()
            if inside:
                part.colors = part.colors * np.array([0.22, 0.62, 1.25])
        if style in STATUES and part.faces is None:  # carved: thicker, in one colour
            part.colors = part.colors.mean(0)
            part.radius *= 1.8
    return parts


def style_captions(style: str, attributes: dict[str, bool | None], seed: int) -> list[str]:
    """Captions that name the style and only what it lets one see."""
    from data_prep.faces128.captions import styled_captions

    seen = dict(attributes)
    if style in (*STATUES, "pencil"):
        seen = {k: v if k in SEEN_IN_STONE else None for k, v in attributes.items()}
    if style in BEINGS:
        hidden = ("Pale_Skin", "Dark_Skin", "Rosy_Cheeks", "Freckles", "Young")
        seen = {k: None if k in hidden else v for k, v in attributes.items()}
    return styled_captions(style, seen, seed)
