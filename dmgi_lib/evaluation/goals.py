"""What Table 1 has to show: each number that is asked for, with its interval, reached or missed.

Differences and ratios are taken between rows on the same samples, so their intervals are narrower
than those of the rows suggest.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.evaluation.metrics import attribute_accuracy
from dmgi_lib.evaluation.read import (
    CAPTION,
    COLUMNS,
    FID,
    IDENTITY,
    MIOU,
    PERCEPTUAL,
    SSIM,
    Reading,
)
from dmgi_lib.evaluation.report import ahead, interval

BASELINES = {
    "controlnet": "ControlNet alone",
    "encoder": "the mask encoder",
    "encoder_text": "the mask encoder with text optimisation",
}
# What no 19-class mask can contradict: colours, surfaces, age. Sex: see `samples.givers`.
FREE_OF_MASKS = (
    *("Black_Hair", "Blond_Hair", "Brown_Hair", "Red_Hair", "Gray_Hair", "Goatee", "Mustache"),
    *("No_Beard", "Full_Beard", "5_o_Clock_Shadow", "Male", "Young", "Wearing_Lipstick"),
    *("Heavy_Makeup", "Pale_Skin", "Dark_Skin", "Rosy_Cheeks", "Freckles", "Blue_Eyes"),
    *("Brown_Eyes", "Green_Eyes"),
)
SIGNS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
}


@dataclass(frozen=True)
class Finding:
    """A number, and what is asked of it if anything is.

    Attributes:
        name:      what was measured.
        value:     None, or not a number, if it could not be measured.
        bound:     to reach; None asks nothing.
        sign:      of SIGNS: how value and bound have to stand.
        low, high: 95 % interval, if there is one.
        reason:    why there is no value.
    """

    name: str
    value: float | None
    bound: float | None = None
    sign: str = ">="
    low: float | None = None
    high: float | None = None
    reason: str = ""

    @property
    def measured(self) -> bool:
        """Whether there is a value."""
        return self.value is not None and not math.isnan(self.value)

    @property
    def met(self) -> bool:
        """Whether the bound is kept; a number that could not be measured keeps none."""
        if self.value is None or math.isnan(self.value):
            return False
        return self.bound is None or SIGNS[self.sign](self.value, self.bound)

    @property
    def verdict(self) -> str:
        """ "reached", "MISSED" or "NOT MEASURED"; "" if nothing is asked."""
        if not self.measured:
            return f"NOT MEASURED{f' ({self.reason})' if self.reason else ''}"
        if self.bound is None:
            return ""
        return "reached" if self.met else "MISSED"

    def line(self) -> str:
        """As one line of a report."""
        asked = "" if self.bound is None else f" {self.sign} {self.bound:g}"
        if not self.measured:
            return f"{self.name}{asked}: {self.verdict}"
        span = "" if self.low is None else f" [{self.low:.3g}, {self.high:.3g}]"
        return f"{self.name}: {self.value:.3g}{span}{asked} {self.verdict}".rstrip()


def found(
    name: str,
    statistic: Callable[[Any], float],
    n: int,
    rng: np.random.Generator,
    bound: float | None = None,
    sign: str = ">=",
    centred: bool = False,
) -> Finding:
    """A statistic of sample indices over all n samples, with its interval."""
    low, high = interval(statistic, n, rng, centred)
    return Finding(name, statistic(slice(None)), bound, sign, low, high)


def mask_goals(
    readings: Mapping[str, Reading],
    first: str,
    last: str,
    seconds: Mapping[str, float],
    seed: int,
) -> list[Finding]:
    """What is asked of the mask table, the swaps aside (see `swap_findings`).

    Args:
        readings:    key → reading: ground_truth, inversion (its first samples will do), those of
            BASELINES, and the method's; goals of missing ones are said to be not measured.
        first, last: keys of the method's exits.
        seconds:     of one face: `first`, and "controlnet".
        seed:        of the bootstrap.
    """
    rng, ours = np.random.default_rng(seed), readings[last]
    goals: list[Finding] = []
    for key, column, whose in (
        ("inversion", MIOU, "W+ optimisation's"),
        ("ground_truth", CAPTION, "ground truth's"),
    ):
        label, top = f"{column} as a share of {whose}", readings.get(key)
        if top is None:
            goals.append(Finding(label, None, 0.85, reason="no such row"))
            continue
        n = len(top)
        share = functools.partial(_ratio, ours.first(n), top, column)
        goals.append(found(f"{label} (N = {n})", share, n, rng, 0.85))
    for key in BASELINES:
        goals += _ahead(readings, last, key, COLUMNS, rng, "DMGI")
    ratio = seconds["controlnet"] / seconds[first]
    goals.append(Finding("exit step 0, times faster than ControlNet alone", ratio, 20.0))
    return goals + _ahead(readings, first, "controlnet", (MIOU, SSIM), rng, "exit step 0")


def scribble_goals(readings: Mapping[str, Reading], last: str, seed: int) -> list[Finding]:
    """What is asked of the scribble table; arguments as of `mask_goals`."""
    columns = (FID, PERCEPTUAL, SSIM, IDENTITY)
    return _ahead(readings, last, "controlnet", columns, np.random.default_rng(seed), "DMGI")


def swap_findings(
    own: Reading, both: Reading, text: Reading, mask: Reading, giver: Tensor, seed: int
) -> list[Finding]:
    """Does each input move only what it should? Captions, then masks, are exchanged among people.

    Pictures A are drawn from the own caption and mask, B from another's caption, C from another's
    mask, all with the same noise. A read against the exchanged inputs is the floor: what an
    untouched picture scores. The test is our choice (not specified in the paper's available
    sources).

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


def _ahead(
    readings: Mapping[str, Reading],
    ours: str,
    theirs: str,
    columns: tuple[str, ...],
    rng: np.random.Generator,
    name: str,
) -> list[Finding]:
    """One finding a column: by how much `ours` is ahead of `theirs`, whichever way is better."""
    goals = []
    for column in columns:
        label = f"{name} ahead of {BASELINES[theirs]} in {column} by"
        if theirs not in readings:
            goals.append(Finding(label, None, 0.0, ">", reason="no such row"))
            continue
        lead = functools.partial(ahead, readings[ours], readings[theirs], column)
        n = len(readings[ours])
        goals.append(found(label, lead, n, rng, 0.0, ">", column == FID))
    return goals


def _ratio(ours: Reading, theirs: Reading, column: str, rows: Any) -> float:
    whole = theirs.value(column, rows)
    return ours.value(column, rows) / whole if whole else math.nan
