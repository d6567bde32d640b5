"""Attributes of what stands behind the person, and of the colours of what is worn."""

import numpy as np

from data_prep.faces128.backdrop import THINGS, backdrop
from data_prep.faces128.color_words import linear, oklab, words
from data_prep.faces128.person import RGB, Identity, View
from data_prep.faces128.regions import CLASS
from data_prep.faces128.traits import LONG_STYLES, PLAIN_BACKDROPS
from dmgi_lib.dataset import BACKDROP_COLORS, CLOTH_COLORS, HAT_COLORS

Told = dict[str, bool | None]

UNLIT = 0.2  # how far light may change the lightness of a thing
DARK, LIGHT = 0.42, 0.52  # lightness below and above which a wall is dark, and is not
OUTDOORS = ("garden", "street")
SHIRTS = ("tshirt", "vneck", "scoop", "shirt")
OPEN = ("suit", "jacket")  # something else shows in the middle
LEAST = {"cloth": 250, "hat": 150, "eye_g": 25, "background": 250}  # pixels that tell a colour
LEAST_OF_THINGS = {"window": 350, "books": 350, "lamp": 80, "plant": 120}


def _colors(named: str, colors: tuple[str, ...], called: set[str], made: set[str]) -> Told:
    """Which of the colours a thing has, by what it may be called as it looks and as it was made.

    True if it is called nothing else and was made so too; False if it is neither.
    """
    out: Told = {}
    for color in colors:
        looks, is_made = color.lower() in called, color.lower() in made
        certain = called == {color.lower()} and is_made
        out[f"{named}_{color}"] = True if certain else None if looks or is_made else False
    return out


def _colors_of(
    named: str, colors: tuple[str, ...], light: np.ndarray, seen: np.ndarray, rgb: RGB
) -> Told:
    """Colours of the pixels `seen` (H, W) of a picture `light` (H, W, 3), made in `rgb`."""
    return _colors(named, colors, words(light[seen].mean(0)), words(np.array(rgb), UNLIT))


def _unknown(named: str, colors: tuple[str, ...], value: bool | None = None) -> Told:
    return {f"{named}_{color}": value for color in colors}


def _outer(cloth: np.ndarray) -> np.ndarray:
    """The outer fifths (H, W) of what is worn: the jacket without what it opens on."""
    across = np.arange(cloth.shape[1])
    left, right = np.quantile(np.nonzero(cloth)[1], (0.2, 0.8))
    return cloth & ((across < left) | (across > right))


def outfit(identity: Identity, view: View, mask: np.ndarray, image: np.ndarray) -> Told:
    """Garments, their colours and patterns, hats and frames; see `attributes.attributes`."""
    light, scale = linear(image), mask.size / 128**2
    count = {name: (mask == CLASS[name]).sum() / scale for name in ("cloth", "hat", "eye_g")}
    shown = count["cloth"] >= LEAST["cloth"]

    def seen(value: bool | None) -> bool | None:
        return value if shown else None

    worn, hidden = view.cloth, identity.hair_style in LONG_STYLES
    collar = None if worn == "suit" or (worn == "shirt" and hidden) else worn == "shirt"
    pattern = "plain" if worn == "suit" else view.pattern
    gold = view.glasses != "none" and view.glasses_rgb[0] > 0.2
    out: Told = {
        "Suit": seen(worn == "suit"),
        "Jacket": seen(worn == "jacket"),
        "Hoodie": seen(None if hidden and worn == "hoodie" else worn == "hoodie"),
        "Turtleneck": seen(None if hidden and worn == "turtleneck" else worn == "turtleneck"),
        "Shirt": seen(None if worn in OPEN else worn in SHIRTS),
        "Collar": seen(collar),
        "Striped": seen(pattern == "stripes"),
        "Checked": seen(pattern == "check"),
        "Beanie": view.hat == "beanie",
        "Brimmed_Hat": view.hat == "brim",
        "Golden_Frames": None if gold and count["eye_g"] < LEAST["eye_g"] else gold,
    }
    cloth = mask == CLASS["cloth"]
    if shown:
        cloth = _outer(cloth) if worn in OPEN else cloth
        out |= _colors_of("Cloth", CLOTH_COLORS, light, cloth, view.cloth_rgb)
    else:
        out |= _unknown("Cloth", CLOTH_COLORS)
    if view.hat == "none":
        return out | _unknown("Hat", HAT_COLORS, False)
    if count["hat"] < LEAST["hat"]:
        return out | _unknown("Hat", HAT_COLORS)
    return out | _colors_of("Hat", HAT_COLORS, light, mask == CLASS["hat"], view.hat_rgb)


def surroundings(identity: Identity, view: View, mask: np.ndarray, image: np.ndarray) -> Told:
    """The place, its things, or the colour of a wall; see `attributes.attributes`."""
    kind, behind = view.background_kind, mask == CLASS["background"]
    plain, night = kind in PLAIN_BACKDROPS, view.light == "evening"
    out: Told = {
        "Plain_Backdrop": plain,
        "Room": kind == "room",
        "Garden": kind == "garden",
        "Street": kind == "street",
        "Night": night if kind == "street" or (kind == "garden" and not night) else None,
    }
    if kind == "room":
        _, things = backdrop(identity.seed, view, len(mask))
        for thing, least in LEAST_OF_THINGS.items():
            pixels = ((things == THINGS.index(thing)) & behind).sum() * 128**2 / mask.size
            out[thing.capitalize()] = True if pixels >= least else None if pixels else False
    else:
        out |= {thing.capitalize(): False for thing in LEAST_OF_THINGS}
    named, dark = _unknown("Backdrop", BACKDROP_COLORS), None
    if kind in OUTDOORS:  # leaves, and fronts of houses, are of some colour
        named = _unknown("Backdrop", BACKDROP_COLORS, False)
        named |= {"Backdrop_Gray": None, "Backdrop_Green": None}
    if plain and behind.sum() * 128**2 / mask.size >= LEAST["background"]:
        light, left = linear(image), np.arange(mask.shape[1]) < mask.shape[1] / 2
        halves = [half for half in (behind & left, behind & ~left) if half.any()]
        called = set[str]().union(*(words(light[half].mean(0)) for half in halves))
        named = _colors("Backdrop", BACKDROP_COLORS, called, called)
        lightness = [oklab(light[half].mean(0))[0] for half in halves]
        dark = True if max(lightness) < DARK else False if min(lightness) > LIGHT else None
    return out | named | {"Dark_Backdrop": dark}
