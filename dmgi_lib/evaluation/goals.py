"""What Table 1 has to show: comparisons of two rows on the same samples, reached or missed.

Both sides of a comparison are resampled together, so its interval is narrower than those of the
rows suggest.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.evaluation import read
from dmgi_lib.evaluation.metrics import attribute_accuracy
from dmgi_lib.evaluation.read import CAPTION, FID, GLASSES, MIOU, Reading
from dmgi_lib.evaluation.report import interval

BASELINES = {
    "controlnet": "ControlNet alone",
    "encoder": "the mask encoder",
    "encoder_text": "the mask encoder with text optimisation",
}
# What no 19-class mask can contradict: colours, surfaces, age, places. Sex: see `samples.givers`.
FREE_OF_MASKS = (
    *("Black_Hair", "Blond_Hair", "Brown_Hair", "Red_Hair", "Gray_Hair", "Goatee", "Mustache"),
    *("No_Beard", "Full_Beard", "5_o_Clock_Shadow", "Male", "Young", "Wearing_Lipstick"),
    *("Heavy_Makeup", "Pale_Skin", "Dark_Skin", "Rosy_Cheeks", "Freckles", "Blue_Eyes"),
    *("Brown_Eyes", "Green_Eyes", "White_Hair", "Striped", "Checked"),
    *(name for name in ATTRIBUTES if name.startswith(("Cloth_", "Backdrop_"))),
    *("Plain_Backdrop", "Dark_Backdrop", "Room", "Books", "Window", "Lamp", "Plant", "Garden"),
    *("Street", "Night"),
)
SIGNS = {">=": operator.ge, "<=": operator.le, ">": operator.gt}


@dataclass(frozen=True)
class Finding:
    """A number, and what is asked of it if anything is."""

    name: str  # what was measured
    value: float | None  # None if a row is missing, NaN if the number does not exist
    bound: float | None = None  # to reach; None asks nothing
    sign: str = ">="  # of SIGNS: how value and bound have to stand
    low: float | None = None  # of the 95 % interval, if there is one
    high: float | None = None

    @property
    def verdict(self) -> str:
        """ "reached", "MISSED" or "NOT MEASURED"; "" if nothing is asked."""
        if self.value is None:
            return "NOT MEASURED (no such row)"
        if math.isnan(self.value):
            return "NOT MEASURED"
        if self.bound is None:
            return ""
        return "reached" if SIGNS[self.sign](self.value, self.bound) else "MISSED"

    @property
    def met(self) -> bool:
        """Whether the bound is kept; a number that could not be measured keeps none."""
        return self.verdict in ("", "reached")

    def line(self) -> str:
        """As one line of a report."""
        asked = "" if self.bound is None else f" {self.sign} {self.bound:g}"
        if self.value is None or math.isnan(self.value):
            return f"{self.name}{asked}: {self.verdict}"
        span = "" if self.low is None else f" [{self.low:.3g}, {self.high:.3g}]"
        return f"{self.name}: {self.value:.3g}{span}{asked} {self.verdict}".rstrip()


@dataclass(frozen=True)
class Comparison:
    """A row's number, or how far it is above another row's, in the direction that is better."""

    name: str  # of the finding; "{n}" in it becomes the number of samples
    ours: str  # key of a row
    theirs: str | None  # key of another one; None: the number of `ours` stands alone
    of: str | Tensor  # a column, or (N, A) wanted attributes whose share the judge reads
    bound: float | None = None  # as of Finding
    sign: str = ">="
    ratio: bool = False  # divide instead of subtracting

    def value(self, readings: Mapping[str, Reading], rows: Any = slice(None)) -> float:
        """Of the samples `rows`; NaN if it would divide by 0."""
        ours = self._number(readings[self.ours], rows)
        if self.theirs is None:
            return ours
        theirs = self._number(readings[self.theirs], rows)
        if self.ratio:
            return ours / theirs if theirs else math.nan
        return theirs - ours if self._among(read.LOWER_IS_BETTER) else ours - theirs

    def _number(self, reading: Reading, rows: Any) -> float:
        if isinstance(self.of, str):
            return reading.value(self.of, rows)
        return attribute_accuracy(reading["sees"][rows], self.of[rows])

    def _among(self, columns: tuple[str, ...]) -> bool:
        return isinstance(self.of, str) and self.of in columns

    def finding(self, readings: Mapping[str, Reading], rng: np.random.Generator) -> Finding:
        """On the samples that its rows have in common, the first ones."""
        asked = (self.bound, self.sign)
        keys = [self.ours] if self.theirs is None else [self.ours, self.theirs]
        if not set(keys) <= set(readings):
            return Finding(self.name.replace(" (N = {n})", ""), None, *asked)
        n = min(len(readings[key]) for key in keys)
        of = functools.partial(self.value, {key: readings[key].first(n) for key in keys})
        span = interval(of, n, rng, self._among(read.CENTRED))
        return Finding(self.name.format(n=n), of(), *asked, *span)


def compare(
    readings: Mapping[str, Reading], comparisons: Iterable[Comparison], seed: int
) -> list[Finding]:
    """A finding for each comparison; those of missing rows are said to be not measured.

    readings: key → reading; seed: of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    return [one.finding(readings, rng) for one in comparisons]


def lead(ours: str, name: str, theirs: str, columns: Iterable[str]) -> list[Comparison]:
    """Asks a row to be ahead of one of BASELINES in columns, whichever way is better."""
    said = f"{name} ahead of {BASELINES[theirs]}"
    return [Comparison(f"{said} in {c} by", ours, theirs, c, 0.0, ">") for c in columns]


def mask_goals(first: str, last: str) -> list[Comparison]:
    """What is asked of the mask table's exits `first` and `last` (keys of rows), and of G."""

    def share(ours: str, name: str, column: str, bound: float) -> Comparison:
        said = f"{name}{column} as a share of the truth's (N = {{n}})"
        return Comparison(said, ours, "ground_truth", column, bound, ratio=True)

    def times(ours: str, theirs: str, said: str, bound: float) -> Comparison:
        return Comparison(f"FID of {said}", ours, theirs, FID, bound, "<=", ratio=True)

    psi = "random faces, truncated, ahead of others in FID by"
    of_g = f"{MIOU} as a share of W+ optimisation's (N = {{n}})"
    glasses = "random faces: share with glasses {} the truth's by"
    encoded = (MIOU, read.ACC, read.IDENTITY, FID)  # in which to be ahead of the mask encoder
    return [
        share("controlnet", "ControlNet alone: ", MIOU, 0.85),
        share("controlnet", "ControlNet alone: ", read.EDGES, 0.9),
        times("random", "training", "random faces, times that of training pictures", 2.0),
        Comparison(psi, "random_psi", "random", FID, 0.0, ">="),
        Comparison(glasses.format("above"), "random", "ground_truth", GLASSES, 0.05, "<="),
        Comparison(glasses.format("below"), "ground_truth", "random", GLASSES, 0.05, "<="),
        times(last, "random", "DMGI, times that of random faces", 1.5),
        Comparison(of_g, last, "inversion", MIOU, 0.85, ratio=True),
        share(last, "", CAPTION, 0.9),
        share(last, "", read.BACKGROUND, 0.65),
        *lead(last, "DMGI", "controlnet", read.COLUMNS),
        *(one for key in ("encoder", "encoder_text") for one in lead(last, "DMGI", key, encoded)),
        *lead(first, "exit step 0", "controlnet", (MIOU, read.SSIM)),
    ]


def swap_findings(readings: Mapping[str, Reading], giver: Tensor, seed: int) -> list[Finding]:
    """Does each input move only what it should? Captions, then masks, are exchanged among people.

    Pictures A are drawn from the own caption and mask, B from another's caption, C from another's
    mask, all with the same noise. A read against the exchanged inputs is the floor: what an
    untouched picture scores. The test is our choice (not specified in the paper's available
    sources).

    Args:
        readings: "own":  A, read against its own caption and mask;
                  "both": A, read against the exchanged caption and mask: the floor;
                  "text": B, read against the exchanged caption and the own mask;
                  "mask": C, read against the own caption and the exchanged mask.
        giver:    (N, A) int8, attributes of the people whose masks C got.
        seed:     of the bootstrap.
    """
    own, says, known = readings["own"]["says"], readings["text"]["says"], readings["text"]["is"]
    changed = torch.where((known >= 0) & (says != known), says, -1)  # -1: not asked
    free = torch.tensor([name in FREE_OF_MASKS for name in ATTRIBUTES])
    kept, shared = torch.where(free, own, -1), torch.where(giver == own, own, -1)
    said = "another's caption: share of what it changes, read as it says"
    attributes, matched = "another's mask: caption attributes", "another's mask: mIoU with it"
    untouched = "untouched picture (floor)"
    other_words = "picture made for other words (floor)"
    table = [
        Comparison("another's caption: mIoU with the own mask", "text", None, MIOU),
        Comparison("another's caption: mIoU drops by", "own", "text", MIOU, 0.03, "<="),
        Comparison(said, "text", None, changed),
        Comparison(f"{said}, {untouched}", "both", None, changed),
        Comparison(f"{said}, above the floor by", "text", "both", changed, 0.0, ">"),
        Comparison(attributes, "mask", None, CAPTION),
        Comparison(f"{attributes}, {other_words}", "both", None, CAPTION),
        Comparison(f"{attributes} drop by", "own", "mask", CAPTION),
        Comparison(f"{attributes} that no mask shows drop by", "own", "mask", kept, 0.03, "<="),
        Comparison(f"{attributes} that its owner shares drop by", "own", "mask", shared),
        Comparison(matched, "mask", None, MIOU),
        Comparison(f"{matched}, {untouched}", "both", None, MIOU),
    ]
    return compare(readings, table, seed)
