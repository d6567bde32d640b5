"""Third act of the evaluation: columns with their intervals, the table as CSV, and its figure."""

from __future__ import annotations

import datetime
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from dmgi_lib.devices import machine
from dmgi_lib.evaluation import read
from dmgi_lib.evaluation.read import COLUMNS, LOWER_IS_BETTER, FinishedRow, Reading
from dmgi_lib.evaluation.samples import GroundTruth
from dmgi_lib.files import write_text
from dmgi_lib.recognizers import Judges


def interval(
    statistic: Callable[[Any], float],
    n: int,
    rng: np.random.Generator,
    centred: bool = False,
    resamples: int = 200,
) -> tuple[float, float]:
    """95 % percentile bootstrap over the samples of a test set (Efron 1979).

    Args:
        statistic: (n,) indices into the set, drawn with repetition → the number, such as
            `lambda i: mean_iou(tables[i])`, or the difference of two rows on the same samples:
            then what both share does not widen the interval.
        centred:   shift the interval to where the whole set's value is its middle. For Fréchet
            distances: repetition makes a set look less varied, which raises them in every draw.

    Returns:
        lower and upper bound of the interval, over the draws for which the number exists.
    """
    every = np.arange(n)

    def of(rows: np.ndarray) -> float:
        return statistic(torch.from_numpy(rows))

    if n < 2:
        return of(every), of(every)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of draws without the number
        drawn = stats.bootstrap(
            (every,), of, n_resamples=resamples, vectorized=False, method="percentile", rng=rng
        ).bootstrap_distribution
        if centred:
            drawn = drawn + (of(every) - np.nanmedian(drawn))
        low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return float(low), float(high)


def summary(reading: Reading, seed: int, resamples: int = 200) -> dict[str, Any]:
    """Every statistic of a reading, as "<name>", "<name> low" and "<name> high"; and "N".

    Args:
        seed:      of the bootstrap over samples, 95 %.
        resamples: of it; 0 leaves the intervals out, which saves most of the time.
    """
    rng = np.random.default_rng(seed)
    result: dict[str, Any] = {"N": len(reading)}
    for name in read.STATISTICS:
        if name == read.CLIP and "clip" not in reading.samples:
            continue
        result[name] = reading.value(name)
        if resamples:
            of, centred = functools.partial(reading.value, name), name in read.CENTRED
            low, high = interval(of, len(reading), rng, centred, resamples)
            result |= {f"{name} low": low, f"{name} high": high}
    return result


def score(
    images: Tensor, truth: GroundTruth, judges: Judges, seed: int, resamples: int = 200
) -> dict[str, Any]:
    """One row of the table as numbers: `read`, then `summary`, and their arguments.

    "caption attributes" is the share of what the caption names that the judge reads.
    """
    return summary(read.read(images, truth, judges), seed, resamples)


def columns_of(summary: Mapping[str, Any]) -> dict[str, Any]:
    """N, and the columns with their intervals, of `summary`."""
    names = [f"{column}{end}" for column in COLUMNS for end in ("", " low", " high")]
    return {name: summary[name] for name in ("N", *names) if name in summary}


def shown(summary: Mapping[str, Any]) -> str:
    """The columns of a `summary` as a line of text."""
    return "  ".join(f"{column} {summary[column]:.3f}" for column in COLUMNS)


def header_lines(
    truth: GroundTruth, condition: str, dataset: str, device: torch.device | str
) -> list[str]:
    """What stands above the numbers: N, reference set, extractors, machine."""
    return [
        f"N = {len(truth)} test identities of {dataset}, first views, where a row says no"
        f" other N; input: {condition} and first caption; reference: the samples' own images",
        "extractors: judge_parser for FID, KID, perceptual distance, background, ACC and mIoU"
        " (against the sample's mask); judge_identity for the identity cosine; judge_attributes for"
        " caption attributes; image_encoder for the CLIP score, which the text optimisation row"
        " also climbs; edge energy is plain pixels",
        "FID and mIoU compare at equal N only",
        f"{datetime.date.today().isoformat()}; {machine(device)}",
    ]


def write_csv(path: Path, lines: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """A table, whole or not at all: each line behind "# ", then the rows.

    rows: column → value; the columns are those of all rows, in order of appearance. What a row
    lacks, or holds as None, stays empty.
    """
    table = pd.DataFrame(list(rows)).to_csv(index=False, float_format="%.6g")
    write_text(path, "".join(f"# {line}\n" for line in lines) + table)


def read_csv(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Lines and rows of a table that `write_csv` wrote; empty cells left out."""
    written = path.read_text(encoding="utf-8").splitlines()
    lines = [line[2:] for line in written if line.startswith("# ")]
    table = pd.read_csv(path, skiprows=len(lines))
    return lines, [row.dropna().to_dict() for _, row in table.astype(object).iterrows()]


def draw_figure(
    rows: Mapping[str, FinishedRow],
    summaries: Mapping[str, Mapping[str, Any]],
    x: Tensor,
    title: str,
    path: Path,
) -> None:
    """Dots with intervals, one panel a column, beside samples of each row.

    Args:
        rows, summaries: key → row, and its `summary`.
        x:      (K, 3, 128, 128) uint8, what the first samples were drawn for.
        title:  says N, reference and input.
        path:   of the PNG.
    """
    import matplotlib.pyplot as plt

    of_all = [x, *(row.pictures for row in rows.values())]
    count = min(map(len, of_all))
    figure, axes = plt.subplots(
        1, len(COLUMNS) + 1, figsize=(24, 0.62 * len(rows) + 2.0), layout="constrained",
        gridspec_kw={"width_ratios": [3.4, *[1.0] * len(COLUMNS)]},
    )  # fmt: skip
    figure.suptitle(title, fontsize=9)
    strips = [torch.cat(list(pictures[:count]), 2) for pictures in of_all]
    names = [f"{row.name}\nN = {len(row.reading)}" for row in rows.values()]
    axes[0].imshow(torch.cat(strips, 1).permute(1, 2, 0).numpy(), aspect="auto")
    axes[0].set_yticks([64 + 128 * i for i in range(len(rows) + 1)], ["x", *names], fontsize=8)
    axes[0].set_xticks([])
    for axis, column in zip(axes[1:], COLUMNS, strict=True):
        for i, (key, summary) in enumerate(summaries.items(), start=1):
            value, span = summary[column], [summary[f"{column} {end}"] for end in ("low", "high")]
            tint = "tab:red" if rows[key].name.startswith("DMGI") else "tab:blue"
            axis.plot(span, [i, i], color="0.6", linewidth=3, zorder=1)
            axis.plot(value, i, "o", color=tint, markersize=5)
            axis.annotate(f"{value:.3f}", (value, i), (0, 6), textcoords="offset points",
                          ha="center", fontsize=7)  # fmt: skip
        axis.set(ylim=(len(rows) + 0.5, -0.5), yticks=[])
        arrow = "lower is better" if column in LOWER_IS_BETTER else "higher is better"
        axis.set_title(f"{column.replace(' (', chr(10) + '(')}\n{arrow}", fontsize=7.5)
        axis.tick_params(labelsize=7)
        axis.margins(x=0.2)
        axis.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path, dpi=100, format="png")
    plt.close(figure)
