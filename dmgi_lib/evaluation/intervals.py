"""How sure a number is: bootstrap intervals over the samples of a test set (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float],
    n: int,
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 1000,
    centred: bool = False,
) -> tuple[float, float]:
    """Percentile bootstrap.

    Args:
        statistic: takes (n,) indices into the set, drawn with repetition, and returns the number
            of interest; e.g. `lambda i: mean_iou(tables[i])`. For two rows on the same samples, let
            it return their difference or ratio: then what both share does not widen the interval.
        n:         size of the set.
        rng:       source of the draws.
        centred:   shift the interval to where the whole set's value is its middle. For Fréchet
            distances: repetition makes a set look less varied, which raises them in every draw.

    Returns:
        lower and upper bound of the interval, over the draws for which the number exists.
    """
    values = np.array([statistic(rng.integers(0, n, n)) for _ in range(resamples)])
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    if centred:
        values += statistic(np.arange(n)) - np.median(values)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
