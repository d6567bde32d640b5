"""Header and figure of the mini world's Table 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dmgi_lib.dataset import to_uint8
from dmgi_lib.evaluation.protocol import GroundTruth
from dmgi_lib.masks import PALETTE

HEADER = (
    "FID (parser features)",
    "perceptual distance (parser features)",
    "SSIM",
    "identity cosine (shape judge)",
    "ACC",
    "mIoU",
    "caption attributes",
    "CLIP score (own encoder)",
)
LOWER_IS_BETTER = HEADER[:2]


def header_lines(truth: GroundTruth, condition: str, dataset: str) -> list[str]:
    """What stands above the numbers: N, reference set, extractors, intervals."""
    return [
        f"N = {len(truth.images)} test identities of {dataset}, first views, where a row says no"
        f" other N; input: {condition} and first caption; reference: the samples' own images",
        "features, perceptual distance, ACC and mIoU by judge_parser; identity by judge_identity;"
        " caption attributes by judge_attributes; CLIP score by image_encoder, which the text"
        " optimisation row also climbs",
        "low, high: 95 % bootstrap over samples; FID has none, and only equal N compare",
    ]


def draw_figure(
    rows: dict[str, dict[str, Any]], strips: dict[str, Tensor], truth: GroundTruth, path: Path
) -> None:
    """Dots with intervals, one panel a column, beside samples of each row.

    Args:
        rows: row → reading.  strips: row → (K, 3, 128, 128) in [-1, 1].  path: of the PNG.
    """
    import matplotlib.pyplot as plt

    names = list(rows)
    count = min(len(strip) for strip in strips.values())
    figure, axes = plt.subplots(
        1, len(HEADER) + 1, figsize=(20, 0.62 * len(names) + 1.6), layout="constrained",
        gridspec_kw={"width_ratios": [4.4, *[1.0] * len(HEADER)]},
    )  # fmt: skip
    colors = PALETTE[truth.masks[:count].long().numpy()].astype(np.uint8)
    pictures = [np.concatenate(list(colors), 1)]
    for name in names:
        pixels = to_uint8(strips[name][:count]).permute(0, 2, 3, 1).numpy()
        pictures.append(np.concatenate(list(pixels), 1))
    axes[0].imshow(np.concatenate(pictures, 0), aspect="auto")
    axes[0].set_yticks([64 + 128 * i for i in range(len(names) + 1)], ["input mask", *names])
    axes[0].set_xticks([])
    for axis, column in zip(axes[1:], HEADER, strict=True):
        for i, name in enumerate(names):
            value = rows[name][column]
            low, high = rows[name].get(f"{column} low"), rows[name].get(f"{column} high")
            ours = name.startswith("DMGI")
            if low is not None:
                axis.plot([low, high], [i + 1, i + 1], color="0.6", linewidth=3, zorder=1)
            axis.plot(value, i + 1, "o", color="tab:red" if ours else "tab:blue", markersize=5)
            axis.annotate(f"{value:.3g}", (value, i + 1), (0, 6), textcoords="offset points",
                          ha="center", fontsize=7)  # fmt: skip
        axis.set(ylim=(len(names) + 0.5, -0.5), yticks=[])
        arrow = "lower is better" if column in LOWER_IS_BETTER else "higher is better"
        axis.set_title(f"{column.replace(' (', chr(10) + '(')}\n{arrow}", fontsize=7.5)
        axis.tick_params(labelsize=7)
        axis.margins(x=0.2)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
    figure.savefig(path, dpi=100, format="png")
    plt.close(figure)
