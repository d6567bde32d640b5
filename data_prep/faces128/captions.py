"""Captions from visible attributes, in the manner of Multi-Modal-CelebA-HQ, with synonyms."""

import re

import numpy as np

from dmgi_lib.dataset import ATTRIBUTES

# What a caption may say of an attribute that is true. {be}/{have}/{wear}: chosen by the sentence.
HAVE: dict[str, tuple[str, ...]] = {
    "Bald": ("no hair", "a bald head", "a shaved head"),
    "Bangs": ("bangs", "a fringe"),
    "Black_Hair": ("black hair", "dark black hair", "raven hair"),
    "Blond_Hair": ("blond hair", "blonde hair", "golden hair", "fair hair"),
    "Brown_Hair": ("brown hair", "brunette hair", "chestnut hair"),
    "Red_Hair": ("red hair", "ginger hair", "auburn hair"),
    "Gray_Hair": ("gray hair", "grey hair", "silver hair"),
    "Wavy_Hair": ("wavy hair", "curly hair"),
    "Straight_Hair": ("straight hair", "sleek hair"),
    "Long_Hair": ("long hair",),
    "Receding_Hairline": ("a receding hairline", "thinning hair"),
    "Goatee": ("a goatee", "a chin beard"),
    "Mustache": ("a mustache", "a moustache"),
    "Full_Beard": ("a beard", "a full beard", "facial hair"),
    "Bushy_Eyebrows": ("bushy eyebrows", "thick eyebrows"),
    "Arched_Eyebrows": ("arched eyebrows", "high brows"),
    "Big_Nose": ("a big nose", "a wide nose"),
    "Pointy_Nose": ("a pointy nose", "a narrow nose"),
    "Big_Lips": ("big lips", "full lips"),
    "Pale_Skin": ("pale skin", "fair skin", "light skin"),
    "Dark_Skin": ("dark skin", "black skin"),
    "Rosy_Cheeks": ("rosy cheeks", "red cheeks"),
    "Freckles": ("freckles",),
    "Blue_Eyes": ("blue eyes",),
    "Brown_Eyes": ("brown eyes", "dark eyes"),
    "Green_Eyes": ("green eyes",),
    "5_o_Clock_Shadow": ("stubble", "dark stubble", "a stubbly chin"),
    "Bags_Under_Eyes": ("bags under the eyes", "tired eyes"),
    "Double_Chin": ("a double chin",),
    "Narrow_Eyes": ("narrow eyes", "narrowed eyes"),
    "Sideburns": ("sideburns", "side whiskers"),
    "Mouth_Slightly_Open": ("a mouth slightly open", "an open mouth", "parted lips"),
    "Eyes_Closed": ("closed eyes", "shut eyes"),
}
WEAR: dict[str, tuple[str, ...]] = {
    "Eyeglasses": ("eyeglasses", "glasses", "spectacles"),
    "Sunglasses": ("sunglasses", "dark glasses", "shades"),
    "Wearing_Lipstick": ("lipstick",),
    "Heavy_Makeup": ("heavy makeup", "makeup", "eye shadow"),
    "Wearing_Earrings": ("earrings",),
    "Wearing_Hat": ("a hat", "a cap"),
    "Wearing_Necklace": ("a necklace", "a chain"),
    "Wearing_Necktie": ("a necktie", "a tie"),
}
for _table in (HAVE, WEAR):  # only what the data set lists is spoken of
    for _name in set(_table) - set(ATTRIBUTES):
        del _table[_name]
BE: dict[str, tuple[str, ...]] = {
    "Chubby": ("chubby", "heavy"),
    "Smiling": ("smiling", "happy", "cheerful"),
}
NOUNS = {
    (True, True): ("young man", "guy", "young male"),
    (True, False): ("man", "old man", "elderly man"),
    (True, None): ("man", "male"),
    (False, True): ("young woman", "girl", "young lady"),
    (False, False): ("woman", "old woman", "elderly woman"),
    (False, None): ("woman", "lady"),
}
OTHER_WORDS = """
a an the of this that he she his her is has have wears wearing with and who in on as very looks
without photo portrait picture face close up person headshot someone adult human beard short white
style marble bronze metal stone greek statue sculpture cartoon comic oil watercolor watercolour
painting pencil sketch drawing graphite elf pointed ears alien blue creature
"""
# How a style is named: before the person ("… of a woman"), or as what the person is.
STYLE_OF: dict[str, tuple[str, ...]] = {
    "marble": ("a marble statue", "a greek statue", "a marble sculpture", "a stone statue"),
    "bronze": ("a bronze statue", "a bronze sculpture", "a metal statue"),
    "cartoon": ("a cartoon", "a comic drawing", "a cartoon style picture"),
    "oil": ("an oil painting", "a painting", "an oil portrait"),
    "watercolor": ("a watercolor painting", "a watercolour", "a watercolor portrait"),
    "pencil": ("a pencil sketch", "a pencil drawing", "a graphite drawing"),
}
BEINGS: dict[str, tuple[str, ...]] = {
    "elf": ("elf", "silver hair elf", "elf with pointed ears"),
    "alien": ("alien", "blue alien", "blue creature with pointed ears"),
}


def vocabulary() -> list[str]:
    """Every word that captions can contain, sorted; with `,` and `.`."""
    phrases = [p for table in (HAVE, WEAR, BE) for group in table.values() for p in group]
    for group in (*NOUNS.values(), *STYLE_OF.values(), *BEINGS.values()):
        phrases += group
    words = {word for phrase in phrases for word in phrase.split()} | set(OTHER_WORDS.split())
    return [*sorted(words), ",", "."]


def _join(items: list[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def caption(
    attributes: dict[str, bool | None],
    rng: np.random.Generator,
    salient: int,
    plain: bool = False,
    noun: str | None = None,
) -> str:
    """One caption that names `salient` true attributes (fewer if there are fewer).

    Args:
        attributes: name → True, False or None (not visible); see `faces128.attributes`.
        plain: only "a woman with …", which can follow "a statue of".
        noun: what the person is, instead of a man, a woman, …
    """
    true = [k for k, v in attributes.items() if v and (k in HAVE or k in WEAR or k in BE)]
    color_first = [
        k
        for k in true
        if k.endswith("_Hair") and k.split("_")[0] in ("Black", "Blond", "Brown", "Red", "Gray")
    ]
    others = [k for k in true if k not in color_first]
    rng.shuffle(others)
    named = others[:salient]
    if color_first and rng.random() < 0.8:  # hair colour is what people name first
        named = color_first + named[: max(salient - 1, 0)]
        rng.shuffle(named)
    if noun is None:
        noun = str(rng.choice(NOUNS[bool(attributes["Male"]), attributes.get("Young")]))
        if rng.random() < 0.1:
            noun = "person"
    be = [str(rng.choice(BE[k])) for k in named if k in BE]
    have = [str(rng.choice(HAVE[k])) for k in named if k in HAVE]
    wear = [str(rng.choice(WEAR[k])) for k in named if k in WEAR]
    pronoun = "he" if attributes["Male"] else "she"
    if plain or rng.random() < 0.5:
        subject = _article(" ".join([*be[:1], noun]))
        starts = [""] if plain else ["", "a photo of ", "a portrait of ", "a close up of "]
        text = rng.choice(starts) + subject
        if have:
            text += (" and " if " with " in noun else " with ") + _join(have)
        if wear:
            text += (" and" if have else "") + " wearing " + _join(wear)
        return re.sub(r"\s+", " ", text) + "."
    sentences = []
    if have:
        sentences.append(f"this {noun} has {_join(have)}")
    if be and sentences:
        sentences.append(f"{pronoun} is {be[0]}")
    elif be:
        sentences.append(f"this {noun} is {be[0]}")
    if wear and sentences:
        sentences.append(f"{pronoun} wears {_join(wear)}")
    elif wear:
        sentences.append(f"this {noun} wears {_join(wear)}")
    if not sentences:
        sentences.append(f"this is {_article(noun)}")
    return ". ".join(sentences) + "."


def captions(attributes: dict[str, bool | None], seed: int, count: int = 6) -> list[str]:
    """`count` different-length captions of one picture; the same seed gives the same captions."""
    rng = np.random.default_rng([seed, 7])
    return [caption(attributes, rng, int(n)) for n in rng.integers(1, 7, count)]


def styled_captions(
    style: str, attributes: dict[str, bool | None], seed: int, count: int = 6
) -> list[str]:
    """`count` captions of a stylised picture, each of which names the style."""
    rng = np.random.default_rng([seed, 10])
    out = []
    for n in rng.integers(0, 4, count):
        if style in STYLE_OF:
            text = caption(attributes, rng, int(n), plain=True)
            out.append(f"{rng.choice(STYLE_OF[style])} of {text}")
        else:
            being = str(rng.choice(BEINGS[style]))
            text = caption(attributes, rng, int(n), plain=True, noun=being)
            out.append(text if rng.random() < 0.5 else f"a portrait of {text}")
    return out
