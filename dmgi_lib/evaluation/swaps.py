"""Does each input move only what it should? Captions, then masks, are exchanged among people.

Pictures A are drawn from the own caption and mask, B from another's caption, C from another's mask,
all with the same noise. A read against the exchanged inputs is the floor: what an untouched picture
scores. The test is our choice (not specified in the paper's available sources).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.evaluation.goals import Finding, found
from dmgi_lib.evaluation.metrics import attribute_accuracy
from dmgi_lib.evaluation.protocol import GroundTruth
from dmgi_lib.evaluation.reading import CAPTION, MIOU, Reading

# What no 19-class mask can contradict: colours, surfaces, age. Sex: see `givers`.
FREE_OF_MASKS = (
    *("Black_Hair", "Blond_Hair", "Brown_Hair", "Red_Hair", "Gray_Hair", "Goatee", "Mustache"),
    *("No_Beard", "Full_Beard", "5_o_Clock_Shadow", "Male", "Young", "Wearing_Lipstick"),
    *("Heavy_Makeup", "Pale_Skin", "Dark_Skin", "Rosy_Cheeks", "Freckles", "Blue_Eyes"),
    *("Brown_Eyes", "Green_Eyes"),
)


def givers(truth: GroundTruth, seed: int) -> np.ndarray:
    """Whose caption and mask each sample gets, (N,): somebody else of the same sex.

    So that text and mask do not contradict each other about beards and hairstyles.
    """
    order, rng = np.arange(len(truth.images)), np.random.default_rng(seed)
    male = np.array([bool(record["attributes"].get("Male")) for record in truth.records])
    for value in (True, False):
        rows = rng.permutation(np.flatnonzero(male == value))
        order[rows] = np.roll(rows, 1)
    return order


def exchanged(truth: GroundTruth, seed: int) -> dict[str, GroundTruth]:
    """The samples with another's caption ("text"), another's mask ("mask"), and both ("both").

    Pictures and attributes stay the own ones.
    """
    other = truth.taken(givers(truth, seed))
    masks = {"masks": other.masks, "scribbles": other.scribbles}
    return {
        "text": replace(truth, prompts=other.prompts),
        "mask": replace(truth, **masks),
        "both": replace(truth, prompts=other.prompts, **masks),
    }


def findings(
    own: Reading, both: Reading, text: Reading, mask: Reading, giver: Tensor, seed: int
) -> list[Finding]:
    """What the exchanges change and keep.

    Args:
        own:   A, read against its own caption and mask.
        both:  A, read against the exchanged caption and mask: the floor.
        text:  B, read against the exchanged caption and the own mask.
        mask:  C, read against the own caption and the exchanged mask.
        giver: (N, A) int8, attributes of the people whose masks C got.
        seed:  of the bootstrap.
    """
    rng, n = np.random.default_rng(seed), len(own)
    changed = _only(text.claims, (text.known >= 0) & (text.claims != text.known))
    free = torch.tensor([name in FREE_OF_MASKS for name in ATTRIBUTES])
    kept = _only(own.claims, free.expand_as(own.claims))
    shared = _only(own.claims, giver == own.claims)

    def read(reading: Reading, wanted: Tensor, rows: Any) -> float:
        return attribute_accuracy(reading.attributes[rows], wanted[rows])

    def line(name: str, statistic: Any, *asked: Any) -> Finding:
        return found(name, statistic, n, rng, *asked)

    as_said = "of what it changes, read as it says"
    return [
        line("another's caption: mIoU with the own mask", lambda i: text.value(MIOU, i)),
        line(
            "another's caption: mIoU drops by",
            lambda i: own.value(MIOU, i) - text.value(MIOU, i),
            *(0.03, "<="),
        ),
        line(f"another's caption: share {as_said}", lambda i: read(text, changed, i)),
        line(
            f"another's caption: share {as_said}, untouched picture (floor)",
            lambda i: read(both, changed, i),
        ),
        line(
            f"another's caption: share {as_said}, above the floor by",
            lambda i: read(text, changed, i) - read(both, changed, i),
            *(0.0, ">"),
        ),
        line("another's mask: caption attributes", lambda i: mask.value(CAPTION, i)),
        line(
            "another's mask: caption attributes, picture made for other words (floor)",
            lambda i: both.value(CAPTION, i),
        ),
        line(
            "another's mask: caption attributes drop by",
            lambda i: own.value(CAPTION, i) - mask.value(CAPTION, i),
            *(0.03, "<="),
        ),
        line(
            "another's mask: caption attributes that no mask shows drop by",
            lambda i: read(own, kept, i) - read(mask, kept, i),
        ),
        line(
            "another's mask: caption attributes that its owner shares drop by",
            lambda i: read(own, shared, i) - read(mask, shared, i),
        ),
        line("another's mask: mIoU with it", lambda i: mask.value(MIOU, i)),
        line(
            "another's mask: mIoU with it, untouched picture (floor)",
            lambda i: both.value(MIOU, i),
        ),
    ]


def _only(wanted: Tensor, where: Tensor) -> Tensor:
    """The same with -1, not asked, everywhere else."""
    return torch.where(where, wanted, torch.full_like(wanted, -1))
