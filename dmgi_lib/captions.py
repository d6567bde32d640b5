"""What a caption says of a face, as attributes: only what it names can be asked of a picture."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from data_prep.faces128.captions import BE, FALSE_BE, FALSE_HAVE, HAVE, NOUNS, WEAR
from dmgi_lib.dataset import ATTRIBUTES

Claims = dict[str, bool]


@functools.lru_cache(maxsize=1)
def phrase_claims() -> dict[str, Claims]:
    """Phrase → the attributes that it claims, true or false, longest phrase first."""
    found: dict[str, Claims] = {}
    tables = [(table, True) for table in (HAVE, WEAR, BE)]
    tables += [(table, False) for table in (FALSE_HAVE, FALSE_BE)]
    for table, value in tables:
        for name, phrases in table.items():
            for phrase in phrases:
                bare = re.sub(r"^(an?|the) ", "", phrase)
                found.setdefault(bare, {})[name] = value
    for (male, _), phrases in NOUNS.items():
        for phrase in phrases:
            claims: Claims = {"Male": male}
            if re.match(r"young\b", phrase) or phrase == "girl":
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
