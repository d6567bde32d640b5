"""Runs a notebook over a grid of parameters, gathers what it recorded, and draws it.

    python -m dmgi_lib.sweep notebooks/05_mapping_network.ipynb --out runs/latent \\
        --vary latent w_plus w --vary seed 0 1 2 --show unseen_perceptual_after

Each run is one of `notebook_runner`, which is papermill. Runs that the table holds are skipped, so
a sweep that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dmgi_lib.notebook_runner import check_parameters, run


def sweep(
    notebook: Path,
    out: Path,
    vary: Mapping[str, Sequence[Any]],
    fixed: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Runs the notebook with every combination of values.

    Args:
        notebook: path of the .ipynb.
        out: folder for a folder a run, and for the table `<notebook>.csv`.
        vary: parameter → its values; the last one changes fastest.
        fixed: parameters that all runs share.

    Returns:
        A row a run: its name, the parameters, the recorded numbers.

    Raises:
        ValueError: no values, or see `check_parameters`; then nothing has run.
    """
    fixed = dict(fixed or {})
    empty = [name for name, values in vary.items() if not values]
    if not vary or empty:
        raise ValueError(f"no values came for {empty or 'any parameter'}; expected one or more.")
    twice = sorted(set(vary) & set(fixed))
    if twice:
        raise ValueError(f"{twice} came both varied and fixed; expected one of the two.")
    runs = {}
    for values in itertools.product(*vary.values()):
        chosen = dict(zip(vary, values, strict=True))
        runs[name_of(chosen)] = check_parameters(notebook, fixed | chosen)
    table = out / f"{notebook.stem}.csv"
    done = set(pd.read_csv(table)["run"]) if table.is_file() else set()
    for name, parameters in runs.items():
        if name not in done:
            (out / name / notebook.name).unlink(missing_ok=True)  # of a run that was stopped
            run(notebook, out, parameters, progress=False, name=name)
    rows = pd.read_csv(table)
    return rows[rows["run"].isin(runs)].reset_index(drop=True)


def name_of(chosen: Mapping[str, Any]) -> str:
    """Folder of a run: "exit_step=3,seed=0", without what folders cannot be called."""
    name = ",".join(f"{key}={value}" for key, value in chosen.items())
    return "".join(c if c.isalnum() or c in "=,.-_" else "_" for c in name)


def show_sweep(table: pd.DataFrame, along: str, columns: Sequence[str], height: float = 2.6) -> Any:
    """Recorded numbers against one parameter: a dot a run, a line through the means.

    Args:
        table: as `sweep` returns it, or several of them concatenated.
        along: the parameter on the x axis; runs that differ in others, such as seed, are its dots.
        columns: recorded numbers, a panel each.
        height: inches.

    Returns:
        The matplotlib figure.

    Raises:
        ValueError: the table lacks one of these columns.
    """
    from matplotlib.figure import Figure

    missing = [name for name in (along, *columns) if name not in table]
    if missing:
        raise ValueError(f"the table has no {missing}; its columns are {list(table)}.")
    # a value that the table came by as text keeps its place in the order of runs
    labels = list(dict.fromkeys(table[along]))
    place = table[along].map({label: i for i, label in enumerate(labels)})
    figure = Figure(figsize=(1.45 * height * len(columns), height), layout="constrained")
    panels = figure.subplots(1, len(columns), squeeze=False)[0]
    for axis, column in zip(panels, columns, strict=True):
        means = table.groupby(place)[column].mean()
        axis.plot(means.index, means, color="C0")
        axis.plot(place, table[column], "o", color="C1", markersize=4, alpha=0.7)
        axis.set_xticks(range(len(labels)), [str(label) for label in labels], fontsize=8)
        axis.set_xlabel(along, fontsize=9)
        axis.set_title(column, fontsize=9)
        axis.tick_params(axis="y", labelsize=8)
        axis.grid(alpha=0.3)
    return figure


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notebook", type=Path, help="the .ipynb to execute")
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"), help="folder for the runs")
    parser.add_argument(
        "--vary", nargs="+", action="append", required=True, metavar=("NAME", "VALUE"),
        help="a parameter and its values, in YAML; the first one is the figure's x axis",
    )  # fmt: skip
    parser.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="a parameter of all runs",
    )  # fmt: skip
    parser.add_argument("--show", nargs="+", default=[], help="recorded numbers to draw")
    given = parser.parse_args(arguments)
    try:
        import papermill
        import yaml
    except ModuleNotFoundError:
        parser.error('running notebooks needs papermill: pip install -e ".[notebooks]"')
    try:
        vary = {name: [yaml.safe_load(v) for v in values] for name, *values in given.vary}
        fixed = {name: yaml.safe_load(value) for name, value in given.parameter}
        table = sweep(given.notebook, given.out, vary, fixed)
        if given.show:
            picture = given.out / f"{given.notebook.stem}.png"
            show_sweep(table, next(iter(vary)), given.show).savefig(picture, dpi=110)
            print(f"figure    {picture}")
    except papermill.PapermillExecutionError as error:
        parser.exit(1, f"{error}\nThe notebook named above shows where it stopped.\n")
    except (OSError, ValueError, yaml.YAMLError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
