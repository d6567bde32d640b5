"""CelebA's attributes, true by construction; None where a picture does not show them."""

import numpy as np

from data_prep.faces128.person import SHAPE_NAMES, Identity, View
from data_prep.faces128.regions import CLASS

WAVY = ("curly", "afro", "wavy", "long_wavy")
LONG = ("long_straight", "long_wavy", "bangs_long")
MEDIUM = ("wavy", "ponytail", "bob", "bob_bangs")


def _graded(value: float, false_below: float, true_above: float) -> bool | None:
    """True, False, or None between the two thresholds, where people would disagree."""
    if value >= true_above:
        return True
    return False if value <= false_below else None


def attributes(identity: Identity, view: View, mask: np.ndarray) -> dict[str, bool | None]:
    """The attributes of one picture by name; `mask` (H, W) decides what can be seen."""
    pixels = np.bincount(mask.ravel(), minlength=len(CLASS)) * (128 * 128 / mask.size)
    count = {name: pixels[i] for name, i in CLASS.items()}
    code = dict(zip(SHAPE_NAMES, identity.shape_code, strict=True))
    hat = view.hat != "none"
    bald = identity.hair_style == "bald"
    hair_seen = count["hair"] > 120
    eyes_seen = count["l_eye"] + count["r_eye"] > 14 and not view.eyes_closed
    eyes_seen = eyes_seen and view.glasses != "sunglasses"

    def hair(value: bool) -> bool | None:
        return False if bald else (value if hair_seen else None)

    def styled(value: bool) -> bool | None:
        return None if hat else hair(value)

    def worn(value: bool, part: str, least: float) -> bool | None:
        return (True if count[part] >= least else None) if value else False

    color = identity.hair_color
    wavy = identity.hair_style in WAVY
    cropped = identity.hair_style in ("buzz", "receding", "short")
    nose = (
        code["nose-scale-horiz-incr"] + code["nose-volume-incr"] + code["nose-width2-incr"]
    ) / 1.73
    lips = (code["mouth-upperlip-volume-incr"] + code["mouth-lowerlip-volume-incr"]
            + code["mouth-scale-vert-incr"]) / 1.73  # fmt: skip
    weight = 6 * (identity.phenotype["weight"] - 0.5) + code["head-fat-incr"]
    beard = identity.beard
    out: dict[str, bool | None] = {
        "Bald": None if hat else bald,
        "Bangs": styled(identity.hair_style in ("bob_bangs", "bangs_long")),
        "Black_Hair": hair(color == "black"),
        "Blond_Hair": hair(color == "blond"),
        "Brown_Hair": hair(color == "brown"),
        "Red_Hair": hair(color == "red"),
        "Gray_Hair": hair(color in ("gray", "white")),
        "Wavy_Hair": None if hat and cropped else hair(wavy),
        "Straight_Hair": None if cropped else hair(not wavy),
        "Long_Hair": None if identity.hair_style in MEDIUM else hair(identity.hair_style in LONG),
        "Receding_Hairline": None if hat or bald else identity.hair_style == "receding",
        "Eyeglasses": view.glasses == "eyeglasses",
        "Sunglasses": view.glasses == "sunglasses",
        "Goatee": beard == "goatee",
        "Mustache": beard == "moustache",
        "No_Beard": None if beard == "stubble" else beard in ("none", "moustache"),
        "Full_Beard": beard == "full",
        "Male": identity.male,
        "Young": _graded(-identity.age, -0.86, -0.76),
        "Smiling": view.smiling,
        "Mouth_Slightly_Open": view.mouth_open,
        "Eyes_Closed": None if view.glasses == "sunglasses" else view.eyes_closed,
        "Wearing_Lipstick": view.lipstick is not None,
        "Heavy_Makeup": None if view.glasses == "sunglasses" else view.eye_makeup > 0,
        "Wearing_Earrings": worn(view.earrings, "ear_r", 2),
        "Wearing_Hat": hat,
        "Wearing_Necklace": worn(view.necklace and view.cloth in ("tshirt", "vneck"), "neck_l", 4),
        "Bushy_Eyebrows": _graded(identity.brow_thickness, 1.1, 1.3),
        "Arched_Eyebrows": _graded(identity.brow_arch, 0.8, 1.15),
        "Big_Nose": _graded(nose, 0.2, 0.8),
        "Pointy_Nose": _graded(-code["nose-point-width-incr"], 0.2, 0.9),
        "Big_Lips": _graded(lips, 0.2, 0.8),
        "Chubby": _graded(weight, 0.4, 1.3),
        "Pale_Skin": _graded(-identity.skin_tone, -0.28, -0.17),
        "Dark_Skin": _graded(identity.skin_tone, 0.55, 0.7),
        "Rosy_Cheeks": identity.rosy > 0,
        "Freckles": identity.freckles > 0,
    }
    for name in ("blue", "brown", "green"):
        out[f"{name.capitalize()}_Eyes"] = (identity.iris == name) if eyes_seen else None
    return out
