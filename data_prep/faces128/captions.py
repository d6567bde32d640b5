"""Captions from visible attributes, in the manner of Multi-Modal-CelebA-HQ, with synonyms."""

import re

import numpy as np

from dmgi_lib.captions import (
    BE,
    BEINGS,
    COLORS,
    FALSE_BE,
    FALSE_HAVE,
    HAVE,
    NOUNS,
    STYLE_OF,
    WEAR,
)

STARTS = ("", "a photo of ", "a portrait of ", "a close up of ", "a picture of ", "a headshot of ")
MOST_WORDS = 38  # and marks: what the text encoder of the mini preset reads


def words(text: str) -> list[str]:
    """Words and marks of a caption."""
    return re.findall(r"[\w']+|[,.]", text)


def _join(items: list[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _sayable(attributes: dict[str, bool | None], rng: np.random.Generator) -> list[str]:
    """What is worth saying: all that is true, and some that is false."""
    said = [k for k in (*HAVE, *WEAR, *BE) if attributes.get(k)]
    said += [
        k for k in (*FALSE_HAVE, *FALSE_BE) if attributes.get(k) is False and rng.random() < 0.3
    ]
    unsaid = set() if attributes["Male"] else {"No_Beard"}
    if not attributes.get("Long_Hair") and (attributes.get("Bald") or attributes.get("Wavy_Hair")):
        unsaid.add("Long_Hair")  # nobody calls curls or a bald head short hair
    return [k for k in said if k not in unsaid]


def _shuffled(items: list[str], rng: np.random.Generator) -> list[str]:
    return [items[i] for i in rng.permutation(len(items))]


def _choose(sayable: list[str], salient: int, rng: np.random.Generator) -> list[str]:
    """`salient` of what can be said, in random order; hair colour is what people name first."""
    color = [k for k in sayable if k in COLORS]
    others = _shuffled([k for k in sayable if k not in COLORS], rng)
    named = color + others if rng.random() < 0.8 else others + color
    return _shuffled(named[:salient], rng)


def caption(
    attributes: dict[str, bool | None],
    rng: np.random.Generator,
    salient: int,
    plain: bool = False,
    noun: str | None = None,
) -> str:
    """One caption that names `salient` attributes (fewer if there are fewer to name).

    Args:
        attributes: name → True, False or None (not visible); see `faces128.attributes`.
        plain: only "a woman with …", which can follow "a statue of".
        noun: what the person is, instead of a man, a woman, …
    """
    named = _choose(_sayable(attributes, rng), salient, rng)

    def phrases(true: dict[str, tuple[str, ...]], false: dict[str, tuple[str, ...]]) -> list[str]:
        tables = ((true if attributes[k] else false).get(k) for k in named)
        return [str(rng.choice(table)) for table in tables if table]

    have, wear, be = phrases(HAVE, FALSE_HAVE), phrases(WEAR, {}), phrases(BE, FALSE_BE)
    pronoun = "he" if attributes["Male"] else "she"
    telling = any(attributes[k] for k in named)
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
        return f"{start}{_article(' '.join([*be, noun, ' and '.join(ends)]).strip())}."
    clauses = ["has " + _join(have)] if have else []
    clauses += [str(rng.choice(["wears ", "is wearing "])) + _join(wear)] if wear else []
    clauses += ["is " + _join(be)] if be else []
    clauses = _shuffled(clauses, rng)
    if form == "who":
        return f"{start}{_article(noun)} who {_join(clauses)}."
    subject = f"{rng.choice(['this', 'the'])} {noun}"
    if telling and rng.random() < 0.25:
        subject = pronoun
    if rng.random() < 0.5:
        return f"{subject} {_join(clauses)}."
    return ". ".join([f"{subject} {clauses[0]}", *(f"{pronoun} {c}" for c in clauses[1:])]) + "."


def captions(attributes: dict[str, bool | None], seed: int, count: int = 6) -> list[str]:
    """`count` different captions, which name 1 to 6 attributes; the same seed gives the same."""
    rng = np.random.default_rng([seed, 7])
    out: list[str] = []
    for n in rng.permutation(count) % 6 + 1:
        text = ""
        while not text or text in out or len(words(text)) > MOST_WORDS:
            text = caption(attributes, rng, int(n))
        out.append(text)
    return out


def styled_captions(
    style: str, attributes: dict[str, bool | None], seed: int, count: int = 6
) -> list[str]:
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
