"""Captions from visible attributes, in the manner of Multi-Modal-CelebA-HQ, with synonyms."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from dmgi_lib.captions import (
    ANY_GARMENT,
    BE,
    BEINGS,
    COLORS,
    FALSE_BE,
    FALSE_HAVE,
    GARMENTS,
    GOLDEN,
    HATS,
    HAVE,
    NO_COLLAR,
    NOUNS,
    PATTERNS,
    PLACES,
    STYLE_OF,
    WALLS,
    WEAR,
    color_words,
)
from dmgi_lib.dataset import BACKDROP_COLORS, CLOTH_COLORS, HAT_COLORS

Attributes = dict[str, bool | None]

STARTS = ("", "a photo of ", "a portrait of ", "a close up of ", "a picture of ", "a headshot of ")
MOST_THINGS = 8
MOST_WORDS = 38  # and marks: what the text encoder of the mini preset reads


def words(text: str) -> list[str]:
    """Words and marks of a caption."""
    return re.findall(r"[\w']+|[,.-]", text)


def _join(items: list[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _shuffled(items: list[str], rng: np.random.Generator) -> list[str]:
    return [items[i] for i in rng.permutation(len(items))]


def _color(
    named: str, colors: Sequence[str], attributes: Attributes, rng: np.random.Generator
) -> list[str]:
    """The word of a thing's colour, if it has one."""
    return [
        str(rng.choice(color_words(color)))
        for color in colors
        if attributes.get(f"{named}_{color}")
    ]


def _clothes(attributes: Attributes, rng: np.random.Generator) -> str | None:
    """ "a red striped shirt", or less of it."""
    told = [str(rng.choice(words)) for name, words in PATTERNS.items() if attributes.get(name)]
    told = _color("Cloth", CLOTH_COLORS, attributes, rng) + told
    nouns = [noun for name in GARMENTS if attributes.get(name) for noun in GARMENTS[name]]
    if attributes.get("Shirt") and attributes.get("Collar") is False:
        nouns += NO_COLLAR
    if told and (not nouns or rng.random() < 0.1):
        return " ".join([*told, str(rng.choice(ANY_GARMENT))])
    if not nouns:
        return None
    told = [word for word in told if rng.random() < 0.8]
    return _article(" ".join([*told, str(rng.choice(nouns))]))


def _hat(attributes: Attributes, rng: np.random.Generator) -> str | None:
    nouns = [noun for name in HATS if attributes.get(name) for noun in HATS[name]]
    if not nouns:
        return None
    told = [w for w in _color("Hat", HAT_COLORS, attributes, rng) if rng.random() < 0.8]
    return _article(" ".join([*told, str(rng.choice(nouns))]))


def _glasses(attributes: Attributes, rng: np.random.Generator) -> str | None:
    for name, golden in GOLDEN.items():
        if attributes.get(name):
            said = attributes.get("Golden_Frames") and rng.random() < 0.6
            return str(rng.choice(golden if said else WEAR[name]))
    return None


INSIDE = {"a garden": "in", "a park": "in", "a city": "in", "a street": "on"}
BESIDE = ("Window", "Lamp", "Plant")


def _place(attributes: Attributes, rng: np.random.Generator) -> str | None:
    """What can follow "a woman" or "she stands": "in a garden", "in front of a gray wall"."""
    before = str(rng.choice(["in front of", "before"], p=[0.7, 0.3]))
    known = [name for name in PLACES if attributes.get(name)]
    named = {name: str(rng.choice(PLACES[name])) for name in known}
    if named.pop("Room", None):
        things = _shuffled(list(named), rng)
        if not things or rng.random() < 0.1:
            return "in a room"
        if rng.random() < 0.5:
            return f"in a room with {_join([named[thing] for thing in things[:2]])}"
        beside = str(rng.choice(["near", "next to"]))
        return f"{beside if things[0] in BESIDE else before} {named[things[0]]}"
    if attributes.get("Street") and attributes.get("Night") and rng.random() < 0.8:
        night = ("on a street", "in a city", "in front of a city", "in front of buildings")
        return f"{rng.choice(night)} at night"
    if named:
        (thing,) = named.values()
        return f"{INSIDE.get(thing, before)} {thing}"
    if attributes.get("Plain_Backdrop"):
        told = _color("Backdrop", BACKDROP_COLORS, attributes, rng)
        told += ["dark"] * bool(attributes.get("Dark_Backdrop"))
        word = str(rng.choice([*told * 3, "plain"]))
        return f"{before} {_article(f'{word} {rng.choice(WALLS)}')}"
    return None


# What is said whole, of several attributes: thing → how, and from which attributes.
Writer = Callable[[Attributes, np.random.Generator], str | None]
WHOLE: dict[str, tuple[str, Writer]] = {
    "clothes": ("wear", _clothes),
    "hat": ("wear", _hat),
    "glasses": ("wear", _glasses),
    "place": ("where", _place),
}
PARTS = ("Wearing_Hat", "Eyeglasses", "Sunglasses")  # attributes that WHOLE says


def _sayable(attributes: Attributes, rng: np.random.Generator) -> dict[str, tuple[str, str]]:
    """What is worth saying, by thing: how, and in which words.

    All that is true, and some that is false.
    """
    said: dict[str, tuple[str, str]] = {}
    for thing, (kind, write) in WHOLE.items():
        if text := write(attributes, rng):
            said[thing] = kind, text
    unsaid = {*PARTS} if attributes["Male"] else {*PARTS, "No_Beard"}
    if not attributes.get("Long_Hair") and (attributes.get("Bald") or attributes.get("Wavy_Hair")):
        unsaid.add("Long_Hair")  # nobody calls curls or a bald head short hair
    true = {"have": HAVE, "wear": WEAR, "be": BE}
    false = {"have": FALSE_HAVE, "be": FALSE_BE}
    for name in dict.fromkeys([*HAVE, *WEAR, *BE]):
        value = attributes.get(name)
        if name in unsaid or value is None:
            continue
        tables = true if value else false
        ways = [(kind, phrase) for kind, table in tables.items() for phrase in table.get(name, ())]
        if ways and (value or rng.random() < 0.3):
            said[name] = ways[rng.integers(len(ways))]
    return said


def _choose(sayable: list[str], salient: int, rng: np.random.Generator) -> list[str]:
    """`salient` of what can be said, in random order.

    People name the colour of hair first, and often what is worn and where it is.
    """
    often = {"clothes": 0.4, "place": 0.4} | dict.fromkeys(COLORS, 0.8)
    first = [thing for thing in sayable if rng.random() < often.get(thing, 0.0)]
    others = [thing for thing in sayable if thing not in first]
    return _shuffled((_shuffled(first, rng) + _shuffled(others, rng))[:salient], rng)


def caption(
    attributes: Attributes,
    rng: np.random.Generator,
    salient: int,
    plain: bool = False,
    noun: str | None = None,
) -> str:
    """One caption that names `salient` things (fewer if there are fewer to name).

    Args:
        attributes: name → True, False or None (not visible); see `faces128.attributes`.
        plain: only "a woman with …", which can follow "a statue of".
        noun: what the person is, instead of a man, a woman, …
    """
    sayable = _sayable(attributes, rng)
    named = _choose(list(sayable), salient, rng)
    have, wear, be, where = (
        [text for kind, text in map(sayable.__getitem__, named) if kind == wanted]
        for wanted in ("have", "wear", "be", "where")
    )
    pronoun = "he" if attributes["Male"] else "she"
    telling = any(attributes.get(k) for k in named)
    if noun is None:
        noun = str(rng.choice(NOUNS[bool(attributes["Male"]), attributes.get("Young")]))
        if telling and not plain and rng.random() < 0.1:
            noun = "person"
    form = rng.choice(["with", "who", "clauses"], p=[0.4, 0.2, 0.4])
    start = "" if plain else str(rng.choice(STARTS))
    if form == "with" or plain or not named:
        again = " with " in noun
        ends = [("and with " if again else "with ") + _join(have)] if have else []
        ends += ["wearing " + _join(wear)] if wear else []
        if not again and rng.random() < 0.3:
            ends.reverse()
        if where and where[0].startswith(("in front of ", "before ")) and rng.random() < 0.3:
            where = ["with " + re.sub("^(in front of|before) ", "", where[0]) + " behind"]
        more = [" and ".join(ends)] if ends else []
        return f"{start}{_article(' '.join([*be, noun, *more, *where]))}."
    clauses = ["has " + _join(have)] if have else []
    clauses += [str(rng.choice(["wears ", "is wearing "])) + _join(wear)] if wear else []
    clauses += ["is " + _join(be)] if be else []
    if where:
        verb = "stands" if where[0].startswith("before ") else rng.choice(["is", "stands"])
        clauses.append(f"{verb} {where[0]}")
    clauses = _shuffled(clauses, rng)
    if form == "who":
        return f"{start}{_article(noun)} who {_join(clauses)}."
    subject = f"{rng.choice(['this', 'the'])} {noun}"
    if telling and rng.random() < 0.25:
        subject = pronoun
    if rng.random() < 0.5:
        return f"{subject} {_join(clauses)}."
    return ". ".join([f"{subject} {clauses[0]}", *(f"{pronoun} {c}" for c in clauses[1:])]) + "."


def captions(attributes: Attributes, seed: int, count: int = 6) -> list[str]:
    """`count` different captions, which name 1 to 8 things; the same seed gives the same."""
    rng = np.random.default_rng([seed, 7])
    out: list[str] = []
    for n in rng.permutation(max(count, MOST_THINGS))[:count] % MOST_THINGS + 1:
        text = ""
        while not text or text in out or len(words(text)) > MOST_WORDS:
            text = caption(attributes, rng, int(n))
        out.append(text)
    return out


def styled_captions(style: str, attributes: Attributes, seed: int, count: int = 6) -> list[str]:
    """`count` different captions of a stylised picture, each of which names the style."""
    rng = np.random.default_rng([seed, 10])
    out: list[str] = []
    for n in rng.integers(0, 4, count):
        text = ""
        while not text or text in out:
            if style in STYLE_OF:
                told = caption(attributes, rng, int(n), plain=True)
                text = f"{rng.choice(STYLE_OF[style])} of {told}"
            else:
                being = str(rng.choice(BEINGS[style]))
                told = caption(attributes, rng, int(n), plain=True, noun=being)
                text = told if rng.random() < 0.5 else f"a portrait of {told}"
        out.append(text)
    return out
