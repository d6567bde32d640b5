"""Header, CSV and figure of the mini world's Table 1 and of the ablations."""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dmgi_lib.evaluation.protocol import GroundTruth
from dmgi_lib.evaluation.reading import COLUMNS, LOWER_IS_BETTER
from dmgi_lib.evaluation.row_files import FinishedRow
from dmgi_lib.evaluation.speed import machine
from dmgi_lib.files import write_whole
from dmgi_lib.masks import PALETTE


def header_lines(truth: GroundTruth, condition: str, dataset: str) -> list[str]:
    """What stands above the numbers: N, reference set, extractors, intervals, machine."""
    facts = ", ".join(f"{key} {value}" for key, value in machine().items())
    return [
        f"N = {len(truth.images)} test identities of {dataset}, first views, where a row says no"
        f" other N; input: {condition} and first caption; reference: the samples' own images",
        "extractors: judge_parser for FID, perceptual distance, ACC and mIoU (against the sample's"
        " mask); judge_identity for the identity cosine; judge_attributes for caption attributes;"
        " image_encoder for the CLIP score, which the text optimisation row also climbs",
        "low, high: 95 % bootstrap over samples (FID's centred on its value); FID and mIoU compare"
        " at equal N only",
        f"{datetime.date.today().isoformat()}; {facts}",
    ]


def write_csv(path: Path, lines: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """A table, whole or not at all: each line behind "# ", then the rows.

    Args:
        rows: column → value; the columns are those of all rows, in order of appearance.
    """
    text = io.StringIO()
    text.writelines(f"# {line}\n" for line in lines)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    write_whole(path, lambda target: target.write_text(text.getvalue(), encoding="utf-8"))


def read_csv(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Lines and rows of a table that `write_csv` wrote; numbers as float, empty cells left out."""
    written = path.read_text(encoding="utf-8").splitlines()
    lines = [line[2:] for line in written if line.startswith("# ")]
    rows = csv.DictReader(line for line in written if not line.startswith("# "))
    return lines, [{k: _number(v) for k, v in row.items() if v} for row in rows]


def columns_of(summary: Mapping[str, Any]) -> dict[str, Any]:
    """N, and the eight columns with their intervals, of `reading.summary`."""
    names = [name for column in COLUMNS for name in (column, f"{column} low", f"{column} high")]
    return {"N": summary["N"]} | {name: summary[name] for name in names if name in summary}


def draw_figure(
    rows: Mapping[str, FinishedRow],
    summaries: Mapping[str, Mapping[str, Any]],
    inputs: Tensor,
    title: str,
    path: Path,
) -> None:
    """Dots with intervals, one panel a column, beside samples of each row.

    Args:
        rows, summaries: key → row, and its `reading.summary`.
        inputs: (K, 128, 128) masks (class ids) or scribbles (0 or 255) of the first samples.
        title:  says N, reference and input.
        path:   of the PNG.
    """
    import matplotlib.pyplot as plt

    count = min(len(inputs), *(len(row.pictures) for row in rows.values()))
    figure, axes = plt.subplots(
        1, len(COLUMNS) + 1, figsize=(20, 0.62 * len(rows) + 2.0), layout="constrained",
        gridspec_kw={"width_ratios": [3.4, *[1.0] * len(COLUMNS)]},
    )  # fmt: skip
    figure.suptitle(title, fontsize=9)
    strips = [np.concatenate(list(colours(inputs[:count])), 1)]
    for row in rows.values():
        pixels = row.pictures[:count].permute(0, 2, 3, 1).numpy()
        strips.append(np.concatenate(list(pixels), 1))
    names = [f"{row.name}\nN = {len(row.reading)}" for row in rows.values()]
    axes[0].imshow(np.concatenate(strips, 0), aspect="auto")
    axes[0].set_yticks([64 + 128 * i for i in range(len(rows) + 1)], ["x", *names], fontsize=8)
    axes[0].set_xticks([])
    for axis, column in zip(axes[1:], COLUMNS, strict=True):
        for i, (key, summary) in enumerate(summaries.items(), start=1):
            value = summary[column]
            if f"{column} low" in summary:
                span = [summary[f"{column} low"], summary[f"{column} high"]]
                axis.plot(span, [i, i], color="0.6", linewidth=3, zorder=1)
            ours = rows[key].name.startswith("DMGI")
            axis.plot(value, i, "o", color="tab:red" if ours else "tab:blue", markersize=5)
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


def colours(inputs: Tensor) -> np.ndarray:
    """Masks of class ids, or scribbles of 0 and 255, (K, H, W) → uint8 (K, H, W, 3) to look at."""
    array = inputs.long().numpy()
    if array.max() >= len(PALETTE):
        return np.repeat(array[..., None], 3, -1).astype(np.uint8)
    return PALETTE[array].astype(np.uint8)


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
