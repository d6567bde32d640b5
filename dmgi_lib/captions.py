"""The phrases of captions, and what a caption says of a picture, as attributes.

Only what a caption names can be asked of a picture. Captions are written from these tables by
`data_prep.faces128.captions`.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dmgi_lib.dataset import ATTRIBUTES, BACKDROP_COLORS, CLOTH_COLORS, HAT_COLORS

# What a caption may say of an attribute that is true, after "has", "wears" and "is". Nobody names
# bushy brows, which are too small at 128 px to be told for sure (see the data card).
HAVE: dict[str, tuple[str, ...]] = {
    "Bald": ("no hair", "a bald head", "a shaved head"),
    "Bangs": ("bangs", "a fringe"),
    "Black_Hair": ("black hair", "dark black hair", "raven hair"),
    "Blond_Hair": ("blond hair", "blonde hair", "golden hair", "fair hair"),
    "Brown_Hair": ("brown hair", "brunette hair", "chestnut hair"),
    "Red_Hair": ("red hair", "ginger hair", "auburn hair"),
    "Gray_Hair": ("gray hair", "grey hair", "silver hair"),
    "White_Hair": ("white hair",),
    "Wavy_Hair": ("wavy hair", "curly hair"),
    "Straight_Hair": ("straight hair", "sleek hair"),
    "Long_Hair": ("long hair",),
    "Receding_Hairline": ("a receding hairline", "thinning hair"),
    "Goatee": ("a goatee", "a chin beard"),
    "Mustache": ("a mustache", "a moustache"),
    "No_Beard": ("no beard",),
    "Full_Beard": ("a beard", "a full beard", "facial hair"),
    "Arched_Eyebrows": ("arched eyebrows", "high brows"),
    "Pale_Skin": ("pale skin", "fair skin", "light skin"),
    "Dark_Skin": ("dark skin", "black skin"),
    "Rosy_Cheeks": ("rosy cheeks", "red cheeks"),
    "Freckles": ("freckles", "a freckled face"),
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
BE: dict[str, tuple[str, ...]] = {
    "Chubby": ("chubby", "heavy"),
    "Smiling": ("smiling", "happy", "cheerful"),
    "Bald": ("bald",),
    "Full_Beard": ("bearded",),
    "Freckles": ("freckled",),
    "Black_Hair": ("black haired",),
    "Blond_Hair": ("blond", "blonde"),
    "Brown_Hair": ("brunette", "brown haired"),
    "Red_Hair": ("red haired", "ginger"),
    "Gray_Hair": ("gray haired", "grey haired"),
    "White_Hair": ("white haired",),
}
# What people say of an attribute that is false. Most that is false goes without saying.
FALSE_HAVE: dict[str, tuple[str, ...]] = {
    "Long_Hair": ("short hair", "cropped hair"),
    "Mouth_Slightly_Open": ("closed lips",),
}
FALSE_BE: dict[str, tuple[str, ...]] = {"Smiling": ("serious", "unsmiling")}
# Things that are named with their colours: "a red striped shirt", "a green beanie", "a gray wall".
GARMENTS: dict[str, tuple[str, ...]] = {
    "Suit": ("suit",),
    "Jacket": ("jacket",),
    "Hoodie": ("hoodie", "hooded sweatshirt"),
    "Turtleneck": ("turtleneck", "turtleneck sweater", "roll neck"),
    "Shirt": ("shirt", "top"),
    "Collar": ("collared shirt", "shirt with a collar"),
}
NO_COLLAR = ("t-shirt", "tee")
ANY_GARMENT = ("clothes", "clothing")
PATTERNS: dict[str, tuple[str, ...]] = {
    "Striped": ("striped",),
    "Checked": ("checked", "checkered", "plaid"),
}
HATS: dict[str, tuple[str, ...]] = {
    "Wearing_Hat": ("hat", "cap"),
    "Beanie": ("beanie", "knit cap"),
    "Brimmed_Hat": ("brimmed hat", "hat with a brim"),
}
GOLDEN: dict[str, tuple[str, ...]] = {
    "Eyeglasses": ("glasses with golden frames", "gold rimmed glasses", "golden glasses"),
    "Sunglasses": ("sunglasses with golden frames", "gold rimmed sunglasses"),
}
WALLS = ("wall", "background", "backdrop")
PLACES: dict[str, tuple[str, ...]] = {
    "Room": ("a room",),
    "Garden": ("a garden", "a park", "trees", "green trees", "greenery"),
    "Street": ("a street", "a city", "houses", "buildings"),
    "Books": ("bookshelves", "books", "a bookcase"),
    "Window": ("a window",),
    "Lamp": ("a lamp", "a glowing lamp"),
    "Plant": ("a plant", "a houseplant"),
}
COLOR_WORDS: dict[str, tuple[str, ...]] = {  # what else a colour is called
    "Gray": ("gray", "grey"),
    "Teal": ("teal", "turquoise"),
    "Purple": ("purple", "violet"),
    "Beige": ("beige", "cream"),
}
COLORS = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Red_Hair", "Gray_Hair", "White_Hair")
NOUNS = {
    (True, True): ("young man", "guy", "young male"),
    (True, False): ("man", "old man", "elderly man"),
    (True, None): ("man", "male"),
    (False, True): ("young woman", "young lady"),
    (False, False): ("woman", "old woman", "elderly woman"),
    (False, None): ("woman", "lady"),
}
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

Claims = dict[str, bool]


def bare(phrase: str) -> str:
    """A phrase without its article."""
    return re.sub(r"^an? ", "", phrase)


def color_words(color: str) -> tuple[str, ...]:
    """What a colour is called: "Gray" is gray or grey."""
    return COLOR_WORDS.get(color, (color.lower(),))


def _colored(named: str, colors: Sequence[str]) -> list[tuple[str, Claims]]:
    """Nothing, or the words of each colour, with what they claim."""
    words = [(w, {f"{named}_{c}": True}) for c in colors for w in color_words(c)]
    return [("", {}), *words]


def _composed() -> Iterator[tuple[str, Claims]]:
    """Phrases of things with their colours and patterns, and what they claim."""
    garments = [(noun, {name: True}) for name, nouns in GARMENTS.items() for noun in nouns]
    garments += [(noun, {"Shirt": True, "Collar": False}) for noun in NO_COLLAR]
    garments += [(noun, {}) for noun in ANY_GARMENT]
    patterns = [(word, {name: True}) for name, words in PATTERNS.items() for word in words]
    hats = [(noun, {"Wearing_Hat": True, name: True}) for name, ns in HATS.items() for noun in ns]
    walls = [(noun, {"Plain_Backdrop": True}) for noun in WALLS]
    looks = [("plain", {}), ("dark", {"Dark_Backdrop": True})]
    looks += _colored("Backdrop", BACKDROP_COLORS)[1:]
    for parts in (
        (_colored("Cloth", CLOTH_COLORS), [("", {}), *patterns], garments),
        (_colored("Hat", HAT_COLORS), hats),
        (looks, walls),
    ):
        for chosen in itertools.product(*parts):
            claims = {name: True for _, said in chosen for name in said} | chosen[-1][1]
            if claims:
                yield " ".join(word for word, _ in chosen if word), claims


@functools.lru_cache(maxsize=1)
def phrase_claims() -> dict[str, Claims]:
    """Phrase → the attributes that it claims, true or false, longest phrase first."""
    found: dict[str, Claims] = {}
    tables = [(table, True) for table in (HAVE, WEAR, BE)]
    tables += [(table, False) for table in (FALSE_HAVE, FALSE_BE)]
    for table, value in tables:
        for name, phrases in table.items():
            for phrase in phrases:
                found.setdefault(bare(phrase), {})[name] = value
    found |= dict(_composed())
    for name, phrases in PLACES.items():
        found |= {bare(phrase): {name: True} for phrase in phrases}
    for name, phrases in GOLDEN.items():
        found |= {phrase: {name: True, "Golden_Frames": True} for phrase in phrases}
    found["at night"] = {"Night": True}
    found["girl"] = {"Male": False, "Young": True}  # in earlier captions; none is written now
    for (male, _), phrases in NOUNS.items():
        for phrase in phrases:
            claims: Claims = {"Male": male}
            if re.match(r"young\b", phrase):
                claims["Young"] = True
            if re.match(r"(old|elderly)\b", phrase):
                claims["Young"] = False
            found[phrase] = claims
    return dict(sorted(found.items(), key=lambda item: -len(item[0])))


def claimed_attributes(caption: str) -> Claims:
    """Attributes that a caption names; each word is used once, by the longest phrase it is in.

    "this woman has long, wavy hair" names nothing by "long," but "wavy hair" names Wavy_Hair.
    """
    text = caption.lower()
    claims: Claims = {}
    for phrase, said in phrase_claims().items():
        if phrase not in text:  # most are not, and looking so is quick
            continue
        text, count = re.subn(rf"\b{re.escape(phrase)}\b", "|", text)
        if count:
            claims |= said
    return claims


def claimed(captions: Sequence[str]) -> Tensor:
    """(B, len(ATTRIBUTES)) int8: 1 claimed true, 0 claimed false, -1 not named."""
    rows = torch.full((len(captions), len(ATTRIBUTES)), -1, dtype=torch.int8)
    for row, caption in zip(rows, captions, strict=True):
        for name, value in claimed_attributes(caption).items():
            row[ATTRIBUTES.index(name)] = int(value)
    return rows
