"""What a notebook shows: rows and grids of pictures, attention maps, recorded numbers."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, SupportsFloat

import numpy as np
import torch
from PIL import Image

RECORD_MIME = "application/vnd.dmgi.record+json"
Picture = Image.Image | np.ndarray | torch.Tensor


def as_array(picture: Picture) -> np.ndarray:
    """(H, W, 3) or (H, W) array for matplotlib.

    Tensors are (H, W), or (3, H, W) of bytes or in [-1, 1].
    """
    if isinstance(picture, torch.Tensor):
        pixels = picture.detach().cpu()
        if pixels.ndim == 2:
            return pixels.float().numpy()
        if pixels.dtype != torch.uint8:
            pixels = (pixels.float() / 2 + 0.5).clamp(0, 1)
        return pixels.permute(1, 2, 0).numpy()
    return np.asarray(picture)


def show_row(pictures: Sequence[Picture], titles: Sequence[str] = (), height: float = 2.4) -> Any:
    """Pictures side by side, `height` inches each; titles: one a picture, or none."""
    return show_grid([list(pictures)], column_titles=titles, cell=height)


def show_grid(
    rows: Sequence[Sequence[Picture]],
    column_titles: Sequence[str | Picture] = (),
    row_titles: Sequence[str] = (),
    cell: float = 1.7,
) -> Any:
    """A grid of pictures, one list a row; titles above columns and left of rows."""
    if not rows or not rows[0]:
        raise ValueError("no pictures came; expected at least one row with one picture.")
    columns = len(rows[0])
    for titles, count, what in (
        (column_titles, columns, "columns"),
        (row_titles, len(rows), "rows"),
    ):
        if titles and len(titles) != count:
            raise ValueError(f"{len(titles)} titles came for {count} {what}; expected one each.")
    longest = max((len(line) for title in row_titles for line in title.split("\n")), default=0)
    left = max(1.5, 0.065 * longest) if row_titles else 0.0  # inches of text
    height = len(rows) * cell * (1.12 if column_titles else 1.02)
    figure, axes = _panels(len(rows), columns, (columns * cell + left, height))
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            axis = axes[r, c]
            axis.imshow(as_array(picture), interpolation="nearest", cmap="magma")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
            if r == 0 and column_titles:
                axis.set_title(column_titles[c], fontsize=9)
        if row_titles:
            axes[r, 0].set_ylabel(row_titles[r], fontsize=9, rotation=0, ha="right", va="center")
    return figure


def show_attention(
    picture: Picture, maps: Mapping[str, torch.Tensor], words: Sequence[str], cell: float = 2.4
) -> Any:
    """A picture, and beside it where each of `words` looks (bright: much attention).

    Args:
        maps: word → (h, w) attention map, as in `DMGIPipelineOutput.attention[i]`.

    Raises:
        ValueError: a word that the prompt does not hold.
    """
    missing = [word for word in words if word not in maps]
    if missing:
        raise ValueError(f"no attention map for {missing}; the prompt holds {list(maps)}.")
    base = as_array(picture)
    columns = len(words) + 1
    figure, axes = _panels(1, columns, (columns * cell, cell * 1.12))
    axes[0, 0].imshow(base)
    for axis, word in zip(axes[0, 1:], words, strict=True):
        weight = maps[word].detach().float().cpu()
        weight = (weight - weight.min()) / (weight.max() - weight.min()).clamp_min(1e-9)
        overlay(axis, base, weight.numpy())
        axis.set_title(f"“{word}”", fontsize=10)
    for axis in axes[0]:
        axis.set_axis_off()
    return figure


def overlay(axis: Any, base: np.ndarray, weight: np.ndarray) -> None:
    """A map (h, w) over a picture (H, W, 3), which is shown in grey."""
    extent = (0, base.shape[1], base.shape[0], 0)
    axis.imshow(base.mean(-1), cmap="gray")
    axis.imshow(weight, cmap="magma", alpha=0.65, interpolation="bicubic", extent=extent)


def show_curves(
    runs: Mapping[str, Mapping[str, Sequence[float]]],
    columns: Sequence[str] = ("loss",),
    height: float = 2.4,
) -> Any:
    """Training curves, a panel a column and a line a run.

    Args:
        runs: name → log as `training.run_files.read_log` reads it.
        columns: of the logs; a run without the column is left out of its panel.
        height: inches.
    """
    width = min(12.0, 1.45 * height * len(columns))
    figure, axes = _panels(1, len(columns), (width, height))
    for axis, column in zip(axes[0], columns, strict=True):
        for name, log in runs.items():
            if column in log:
                axis.plot(log["step"], log[column], label=name)
        axis.set_title(column, fontsize=9)
        axis.set_xlabel("training step", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    if len(axes[0, 0].lines) > 1:
        axes[0, 0].legend(fontsize=7)
    return figure


def show_tables(
    tables: Mapping[str, np.ndarray | torch.Tensor],
    rows: Sequence[str],
    columns: Sequence[str],
    row_label: str = "",
    column_label: str = "",
    shared: bool = True,
    cell: tuple[float, float] = (0.42, 0.26),
) -> Any:
    """Tables of numbers as colours side by side, such as style layers by steps.

    Args:
        tables: title → (rows, columns).
        shared: one colour scale for all, so that tables can be compared.
        cell: inches, width and height.
    """
    arrays = {
        title: np.asarray(torch.as_tensor(table).detach().cpu(), dtype=float)
        for title, table in tables.items()
    }
    top = max(np.nanmax(array) for array in arrays.values()) if shared else None
    width = len(arrays) * (len(columns) * cell[0] + 1.2)
    figure, axes = _panels(1, len(arrays), (width, len(rows) * cell[1] + 0.9))
    for axis, (title, array) in zip(axes[0], arrays.items(), strict=True):
        drawn = axis.imshow(array, aspect="auto", cmap="magma", vmin=0, vmax=top)
        axis.set_title(title, fontsize=9)
        axis.set_xticks(range(len(columns)), columns, fontsize=7)
        axis.set_yticks(range(len(rows)), rows, fontsize=7)
        axis.set_xlabel(column_label, fontsize=8)
        axis.set_ylabel(row_label, fontsize=8)
        if not shared:
            figure.colorbar(drawn, ax=axis).ax.tick_params(labelsize=6)
    if shared:
        figure.colorbar(drawn, ax=axes[0].tolist()).ax.tick_params(labelsize=6)
    return figure


def show_scores(
    rows: Mapping[str, Mapping[str, Any]],
    columns: Sequence[str],
    lower_is_better: Collection[str] = (),
) -> Any:
    """Bars with 95 % intervals, a panel a column and a bar a row, in the order given.

    Args:
        rows: name → one row as `evaluation.report.score` returns it.
        columns: of the rows; "<column> low" and "<column> high" are drawn where they are known.
        lower_is_better: columns whose titles say so.
    """
    size = (2.6 * len(columns) + 1.6, 0.3 * len(rows) + 0.7)
    figure, axes = _panels(1, len(columns), size, sharey=True)
    places = range(len(rows))
    for axis, column in zip(axes[0], columns, strict=True):
        values = [row[column] for row in rows.values()]
        axis.barh(places, values, color=[f"C{i}" for i in places])
        for i, row in enumerate(rows.values()):
            if f"{column} low" in row:
                axis.plot([row[f"{column} low"], row[f"{column} high"]], [i, i], "k", lw=1.5)
        note = "\nlower is better" if column in lower_is_better else ""
        axis.set_title(column + note, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3, axis="x")
    axes[0, 0].set_yticks(places, list(rows), fontsize=8)
    axes[0, 0].invert_yaxis()
    return figure


def show_sweep(table: Any, along: str, columns: Sequence[str]) -> Any:
    """Recorded numbers against one parameter: a dot a run, a line through the means.

    Args:
        table: DataFrame as `notebook_runner.sweep` returns it, or several of them concatenated.
        along: the parameter on the x axis; runs that differ in others, such as seed, are its dots.
        columns: recorded numbers, a panel each; if all names begin with one word, such as mIoU,
            they share a scale.

    Raises:
        ValueError: the table lacks one of these columns.
    """
    missing = [name for name in (along, *columns) if name not in table]
    if missing:
        raise ValueError(f"the table has no {missing}; its columns are {list(table)}.")
    # a value that the table came by as text keeps its place in the order of runs
    labels = list(dict.fromkeys(table[along]))
    place = table[along].map({label: i for i, label in enumerate(labels)})
    alike = len({name.split("_")[0] for name in columns}) == 1
    figure, axes = _panels(1, len(columns), (3.77 * len(columns), 2.6), sharey=alike)
    for axis, column in zip(axes[0], columns, strict=True):
        means = table.groupby(place)[column].mean()
        axis.plot(means.index, means, color="C0")
        axis.plot(place, table[column], "o", color="C1", markersize=4, alpha=0.7)
        axis.set_xticks(range(len(labels)), [str(label) for label in labels], fontsize=8)
        axis.set_xlabel(along, fontsize=9)
        axis.set_title(column, fontsize=9)
        axis.tick_params(axis="y", labelsize=8)
        axis.grid(alpha=0.3)
    return figure


def _panels(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Any, Any]:
    """A figure of `size` inches and its axes (rows, columns)."""
    import matplotlib.pyplot as plt

    options |= {"figsize": size, "squeeze": False, "layout": "constrained"}
    return plt.subplots(rows, columns, **options)


def record(name: str, value: SupportsFloat) -> None:
    """Prints a number and stores it in the notebook's output, where tests and runners find it."""
    from IPython.display import display

    number = float(value)
    shown = f"{name} = {number:.4g}"
    kept = number if math.isfinite(number) else str(number)  # JSON has no NaN
    display({RECORD_MIME: {"name": name, "value": kept}, "text/plain": shown}, raw=True)


def recorded(notebook: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that `record` left in an executed notebook (as read by nbformat or json)."""
    found = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            entry = output.get("data", {}).get(RECORD_MIME)
            if entry:
                found[entry["name"]] = float(entry["value"])
    return found
