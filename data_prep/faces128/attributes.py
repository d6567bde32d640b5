"""What a picture shows, true by construction; None where it does not show it.

Colours, which light changes, have to look as they were made.
"""

import numpy as np

from data_prep.faces128.color_words import linear, oklab
from data_prep.faces128.person import Identity, View
from data_prep.faces128.regions import CLASS
from data_prep.faces128.scene import BROW_SHADE
from data_prep.faces128.skin import skin_rgb
from data_prep.faces128.surroundings import outfit, surroundings
from data_prep.faces128.traits import LONG_STYLES, OPEN_NECKS
from dmgi_lib.dataset import ATTRIBUTES

WAVY = ("curly", "afro", "wavy", "long_wavy")
FRINGED = ("bob_bangs", "bangs_long")
MEDIUM = ("wavy", "ponytail", "bun", "bob", "bob_bangs")
FADED = 0.4  # brows of less contrast (`brow_contrast`) than this vanish in the skin
GRAYEST, WHITEST = 0.65, 0.66  # lightness of hair up to which it looks gray, and from which white
FLAT, BENT = 0.09, 0.095  # `brow_rise` up to which brows look flat, and from which arched


def _graded(value: float, false_below: float, true_above: float) -> bool | None:
    """True, False, or None between the two thresholds, where people would disagree."""
    if value >= true_above:
        return True
    return False if value <= false_below else None


def eye_opening(mask: np.ndarray) -> float:
    """Mean over the visible eyes of area / width²; about 0.2 squinting and 0.3 at rest."""
    ratios = []
    for name in ("l_eye", "r_eye"):
        columns = np.nonzero(mask == CLASS[name])[1]
        if len(columns):
            ratios.append(len(columns) / (np.ptp(columns) + 1) ** 2)
    return float(np.mean(ratios)) if ratios else 0.0


def brow_rise(mask: np.ndarray) -> float | None:
    """How far the brows' arcs rise, as a share of their width: mean of those that can be measured.

    About 0.09 on average; posture and expression count as they do for somebody who looks.
    """
    rises = []
    for name in ("l_brow", "r_brow"):
        rows, columns = np.nonzero(mask == CLASS[name])
        width = np.ptp(columns) + 1 if len(columns) else 0
        if width >= mask.shape[1] / 16:
            parabola = np.polyfit((columns - columns.mean()) / width, rows / width, 2)
            rises.append(parabola[0] / 4)  # from the middle to half a width beside it
    return float(np.mean(rises)) if rises else None


def brow_contrast(identity: Identity) -> float:
    """|log| of the skin's luminance over the brows', from 0 (the same) to about 4."""
    brow = BROW_SHADE[identity.hair_color] * np.array(identity.hair_rgb)
    skin = skin_rgb(identity.skin_tone, identity.skin_warmth)
    light = (np.stack([skin, brow]) * [0.2126, 0.7152, 0.0722]).sum(1)
    return float(abs(np.log(light[0] / light[1])))


def attributes(
    identity: Identity, view: View, mask: np.ndarray, image: np.ndarray
) -> dict[str, bool | None]:
    """The attributes of one picture by name.

    Args:
        mask: (H, W) class ids, which decide what can be seen.
        image: (H, W, 3) uint8 sRGB, which decides whether a colour is seen as what it is.
    """
    pixels = np.bincount(mask.ravel(), minlength=len(CLASS)) * (128 * 128 / mask.size)
    count = {name: pixels[i] for name, i in CLASS.items()}
    action = view.expression
    hat = view.hat != "none"
    bald = identity.hair_style == "bald"
    hair_seen = count["hair"] > 120
    sun = view.glasses == "sunglasses"
    bare_eyes = view.glasses == "none"
    eyes_seen = count["l_eye"] + count["r_eye"] > 22 and not view.eyes_closed and not sun
    brows_seen = not sun and count["l_brow"] + count["r_brow"] > 18
    brows_seen = brows_seen and identity.hair_style not in FRINGED
    brows_seen = brows_seen and brow_contrast(identity) >= FADED

    def hair(value: bool | None) -> bool | None:
        return False if bald else (value if hair_seen else None)

    def styled(value: bool) -> bool | None:
        return None if hat else hair(value)

    def worn(value: bool, part: str, least: float) -> bool | None:
        return (True if count[part] >= least else None) if value else False

    def seen_if(visible: bool, value: bool | None) -> bool | None:
        return value if visible else None

    color = identity.hair_color
    lightness = float(oklab(linear(image[mask == CLASS["hair"]]).mean(0))[0]) if hair_seen else 0
    white: bool | None = color == "white"
    if color in ("gray", "white") and not (lightness >= WHITEST if white else lightness < GRAYEST):
        white = None
    wavy = identity.hair_style in WAVY
    young = _graded(-identity.age, -0.88, -0.73)  # 66 and 37 years
    if hair_seen and not bald and young == (color in ("gray", "white")):
        young = None  # folds are faint at 128 px, so hair tells age, and here it tells another
    cropped = identity.hair_style in ("buzz", "receding", "short", "bun", "ponytail")
    smile = action.get("mouthSmileLeft", 0.0)
    weight = 0.7 * identity.groups["fat"] + 2.0 * (identity.phenotype["weight"] - 0.5)
    beard = identity.beard
    bearded = beard in ("full", "stubble")
    squint = _graded(action.get("eyeSquintLeft", 0.0), 0.1, 0.7)
    if squint is False and eye_opening(mask) < 0.24:
        squint = None  # not squinting, but the lids let nobody see that
    arched, rise = _graded(identity.brow_arch, 0.6, 1.2), brow_rise(mask)
    if rise is None or (arched and rise < BENT) or (arched is False and rise > FLAT):
        arched = None  # bowed head, raised or knitted brows
    out: dict[str, bool | None] = {
        "Bald": None if hat else bald,
        "Bangs": styled(identity.hair_style in FRINGED),
        "Black_Hair": hair(color == "black"),
        "Blond_Hair": hair(color == "blond"),
        "Brown_Hair": hair(color == "brown"),
        "Red_Hair": hair(color == "red"),
        "Gray_Hair": hair(None if white is None else color == "gray"),
        "White_Hair": hair(white),
        "Wavy_Hair": None if cropped else hair(wavy),
        "Straight_Hair": None if cropped else hair(not wavy),
        "Long_Hair": None
        if identity.hair_style in MEDIUM
        else hair(identity.hair_style in LONG_STYLES),
        "Receding_Hairline": None
        if hat or bald or identity.hair_style in FRINGED
        else _graded(identity.receding, 0.3, 0.7),
        "Eyeglasses": view.glasses == "eyeglasses",
        "Sunglasses": sun,
        "Goatee": beard == "goatee",
        "Mustache": None if beard in ("goatee", "full") else beard == "moustache",
        "No_Beard": None if beard == "stubble" else beard in ("none", "moustache"),
        "Full_Beard": beard == "full",
        "Male": identity.male,
        "Young": young,
        "Smiling": _graded(smile, 0.12, 0.6),
        "Mouth_Slightly_Open": worn(view.mouth_open, "mouth", 10),
        "Eyes_Closed": None if sun else view.eyes_closed,
        "Wearing_Lipstick": view.lipstick is not None,
        "Heavy_Makeup": seen_if(not sun, view.eye_makeup > 0),
        "Wearing_Earrings": worn(view.earrings, "ear_r", 4),
        "Wearing_Hat": hat,
        "Wearing_Necklace": worn(view.necklace and view.cloth in OPEN_NECKS, "neck_l", 10),
        "Bushy_Eyebrows": seen_if(brows_seen, _graded(identity.brow_thickness, 0.85, 1.4)),
        "Arched_Eyebrows": seen_if(brows_seen, arched),
        "Chubby": _graded(weight, 0.0, 0.9),
        "Pale_Skin": _graded(-identity.skin_tone, -0.32, -0.17),
        "Dark_Skin": _graded(identity.skin_tone, 0.55, 0.7),
        "Rosy_Cheeks": identity.rosy > 0,
        "Freckles": identity.freckles > 0,
        "5_o_Clock_Shadow": beard == "stubble",
        "Bags_Under_Eyes": seen_if(bare_eyes, _graded(identity.bags, 0.1, 0.5)),
        "Double_Chin": seen_if(
            not bearded and view.cloth != "turtleneck", _graded(weight, 0.1, 1.2)
        ),
        "Narrow_Eyes": seen_if(bare_eyes and not view.eyes_closed, squint),
        "Sideburns": None
        if hat or identity.hair_style in LONG_STYLES + MEDIUM or beard == "full"
        else identity.sideburns,
        "Wearing_Necktie": view.necktie,
    }
    for name in ("blue", "brown", "green"):
        out[f"{name.capitalize()}_Eyes"] = (identity.iris == name) if eyes_seen else None
    out |= outfit(identity, view, mask, image) | surroundings(identity, view, mask, image)
    return {name: out[name] for name in ATTRIBUTES}
