"""Does the text steer? The caption's hair colour is swapped, everything else stays (text columns).

Same mask, same noise, same words but one: what the judge and the plain pixels then read as hair
colour is the work of that word. The test is our choice (not specified in the paper's available
sources).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from dmgi_lib.evaluation.metrics import HairColorReference, hair_color_by_pixels
from dmgi_lib.evaluation.report import interval
from dmgi_lib.recognizers import Judges

SWAP_COLORS: tuple[str, ...] = ("black", "brown", "blond", "red", "gray")

# Colour words of hair, with the synonyms that captions use.
_COLOR = (
    r"(?:dark\s+)?(?:black|raven|brown|brunette|chestnut|blonde?|golden|fair|red|ginger|auburn"
    "|gr[ae]y|silver|white)"
)
# Between the colour and "hair" may stand words that describe hair ("black, wavy hair"), but none
# that would make the colour belong to something else ("brown eyes and long hair").
_DESCRIBES_HAIR = (
    "(?:and|wavy|curly|straight|long|short|medium|shoulder-length|thick|thin|sleek|colou?red)"
)
_PATTERN = re.compile(
    rf"\b{_COLOR}\b(?=(?:[\s,-]+{_DESCRIBES_HAIR}\b)*[\s-]+hair(?:ed)?\b)"
    rf"|(?<=\bhair is ){_COLOR}\b",
    re.IGNORECASE,
)


def swap_hair_color(caption: str, color: str) -> str | None:
    """The caption with its one hair-colour word replaced, or None if it has none or several."""
    found = _PATTERN.findall(caption)
    return _PATTERN.sub(color, caption) if len(found) == 1 else None


def swappable_caption(captions: Sequence[str]) -> str | None:
    """The first caption that names exactly one hair colour, or None."""
    return next((c for c in captions if swap_hair_color(c, "red") is not None), None)


def score_hair_colors(
    images: Tensor,
    masks: Tensor,
    wanted: Sequence[str],
    judges: Judges,
    reference: HairColorReference,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """How often the wanted hair colour is read.

    Args:
        images: (B, 3, H, W) in [-1, 1]; masks: (B, H, W), the input masks.
        wanted: B names out of SWAP_COLORS.

    Returns:
        shares 0..1 "judge", "pixels" and "both" with 95 % bootstrap intervals, and for judge and
        pixels "read_as": wanted → {read: count}.
    """
    judge, device = judges.attributes, judges.identity.device
    read = {
        "judge": [name for part in images.split(64) for name in judge.read(part.to(device))[1]],
        "pixels": [
            hair_color_by_pixels(image, mask, reference)
            for image, mask in zip(images, masks, strict=True)
        ],
    }
    right = {name: np.array(names) == np.array(wanted) for name, names in read.items()}
    right["both"] = right["judge"] & right["pixels"]
    result: dict[str, Any] = {"n": len(wanted)}
    for name, hits in right.items():

        def share(rows: Any, hits: np.ndarray = hits) -> float:
            return float(hits[rows].mean())

        span = interval(share, len(hits), rng, resamples=1000)
        result[name] = {"share": float(hits.mean()), "interval": span}
    for name, names in read.items():
        pairs = Counter(zip(wanted, names, strict=True))
        result[name]["read_as"] = {
            want: {got: count for (asked, got), count in pairs.items() if asked == want}
            for want in dict.fromkeys(wanted)
        }
    return result
