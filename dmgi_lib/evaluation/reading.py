"""What the judges read of a row of pictures, sample by sample, and Table 1's columns made of it.

Kept sample by sample, so that intervals, and differences between two rows on the same samples, can
be had without drawing or reading again. No column rests on Inception, LPIPS-VGG or ArcFace, so none
bears the bare name FID, LPIPS or ID; compare rows with rows, never with the paper's numbers.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmgi_lib.evaluation import metrics
from dmgi_lib.evaluation.intervals import bootstrap_interval

FID = "FID (parser features)"
PERCEPTUAL = "perceptual distance (parser features)"
SSIM = "SSIM"
IDENTITY = "identity cosine (shape judge)"
ACC = "ACC"
MIOU = "mIoU"
CAPTION = "caption attributes"
CLIP = "CLIP score (own encoder)"
COLUMNS = (FID, PERCEPTUAL, SSIM, IDENTITY, ACC, MIOU, CAPTION, CLIP)
LOWER_IS_BETTER = (FID, PERCEPTUAL)


@dataclass(frozen=True)
class Reading:
    """N pictures, the i-th drawn for the i-th mask (or scribble) and caption.

    Attributes:
        own:        (N, 19, 19) pixel counts, wanted class x parsed class (`metrics.confusion`).
        shuffled:   the same against the masks of other samples: what any face gets.
        embedding:  (N, D) parser's embedding of the pictures; `reference`: of the samples' own I.
        perceptual: (N,) distance to I.
        ssim:       (N,) to I.
        identity:   (N,) cosine to I.
        attributes: (N, A) bool, what the judge sees.
        known:      (N, A) int8, what is true of the sample: 1 true, 0 false, -1 unknown.
        claims:     (N, A) int8, what its caption names: 1 claimed true, 0 claimed false, -1 not.
        clip:       (N,) cosine of picture and caption; (0,) if no text-image encoder was at hand.
    """

    own: Tensor
    shuffled: Tensor
    embedding: Tensor
    reference: Tensor
    perceptual: Tensor
    ssim: Tensor
    identity: Tensor
    attributes: Tensor
    known: Tensor
    claims: Tensor
    clip: Tensor

    def __len__(self) -> int:
        return len(self.own)

    def value(self, name: str, rows: Any = slice(None)) -> float:
        """A statistic of STATISTICS over the samples `rows`, all of them by default."""
        return STATISTICS[name](self, rows)

    def first(self, n: int) -> Reading:
        """The first n samples, to compare with a row that has no more."""
        return Reading(**{field.name: getattr(self, field.name)[:n] for field in fields(self)})


Statistic = Callable[[Reading, Any], float]

STATISTICS: dict[str, Statistic] = {
    FID: lambda r, i: metrics.frechet_distance(r.reference[i], r.embedding[i]),
    PERCEPTUAL: lambda r, i: r.perceptual[i].mean().item(),
    SSIM: lambda r, i: r.ssim[i].mean().item(),
    IDENTITY: lambda r, i: r.identity[i].mean().item(),
    ACC: lambda r, i: metrics.pixel_accuracy(r.own[i]),
    MIOU: lambda r, i: metrics.mean_iou(r.own[i]),
    CAPTION: lambda r, i: metrics.attribute_accuracy(r.attributes[i], r.claims[i]),
    CLIP: lambda r, i: r.clip[i].mean().item(),
    "mIoU shuffled": lambda r, i: metrics.mean_iou(r.shuffled[i]),
    "mIoU gap": lambda r, i: metrics.mean_iou(r.own[i]) - metrics.mean_iou(r.shuffled[i]),
    "attribute accuracy": lambda r, i: metrics.attribute_accuracy(r.attributes[i], r.known[i]),
}


def summary(reading: Reading, seed: int, resamples: int = 200) -> dict[str, Any]:
    """Every statistic of a reading, as "<name>", "<name> low" and "<name> high"; and "N".

    Args:
        seed:      of the bootstrap over samples, 95 %.
        resamples: of it; 0 leaves the intervals out, which saves most of the time.
    """
    rng = np.random.default_rng(seed)
    result: dict[str, Any] = {"N": len(reading)}
    for name in STATISTICS:
        if name == CLIP and not len(reading.clip):
            continue
        result[name] = reading.value(name)
        if resamples:
            of = functools.partial(reading.value, name)
            low, high = interval(of, len(reading), rng, name == FID, resamples)
            result |= {f"{name} low": low, f"{name} high": high}
    return result


def interval(
    statistic: Callable[[Any], float],
    n: int,
    rng: np.random.Generator,
    centred: bool = False,
    resamples: int = 200,
) -> tuple[float, float]:
    """95 % interval of a statistic that takes sample indices; see `bootstrap_interval`."""

    def of(rows: np.ndarray) -> float:
        return statistic(torch.from_numpy(rows))

    return bootstrap_interval(of, n, rng, resamples=resamples, centred=centred)


def ahead(ours: Reading, theirs: Reading, column: str, rows: Any = slice(None)) -> float:
    """How much better `ours` is in a column, above 0 if it is; both read the same samples."""
    difference = ours.value(column, rows) - theirs.value(column, rows)
    return -difference if column in LOWER_IS_BETTER else difference
