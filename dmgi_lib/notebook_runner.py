"""Runs a notebook with parameters: once, for each file of them, or over a grid.

    python -m dmgi_lib.notebook_runner notebooks/00_quickstart.ipynb -p seed 3
    python -m dmgi_lib.notebook_runner notebooks/06_style_modulation.ipynb \\
        -f notebooks/params/06_*.yaml
    python -m dmgi_lib.notebook_runner notebooks/05_mapping_network.ipynb --out runs/latent \\
        --vary latent w_plus w --vary seed 0 1 2 --show unseen_perceptual_after

papermill executes; this adds what it lacks: parameters that the notebook does not list are refused,
pictures and recorded numbers are written beside the executed notebook, each run has a folder, and
all runs of a notebook share one table. A grid that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import ast
import base64
import difflib
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from dmgi_lib.display import recorded, show_sweep
from dmgi_lib.files import write_whole


def check_parameters(notebook: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters as the notebook's parameters cell takes them.

    YAML reads 2e-3 as text; where the notebook has a number it becomes one.

    Raises:
        ValueError: no notebook in the file, a name that the cell does not hold, a value of another
            kind than a number where the cell has one, or one that JSON cannot hold.
    """
    known = _listed_parameters(notebook)
    taken = dict(parameters)
    for name, value in parameters.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"{notebook.name} has no parameter {name!r}; its parameters are"
                f" {list(known)}.{hint}"
            )
        try:
            json.dumps(value)
        except TypeError:
            raise ValueError(
                f"{name} came as {value!r}; expected text, a number, true, false, a list or a"
                f" mapping. Quote it to make it text: {name}: '{value}'."
            ) from None
        default = known[name]["default"]
        if not _is_number(default):
            continue
        try:
            number = float(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"{name} came as {value!r}; expected a number, such as {default}.")
        taken[name] = number
    return taken


def _listed_parameters(notebook: Path) -> dict[str, Any]:
    import nbformat
    import papermill

    if not notebook.is_file():
        raise FileNotFoundError(f"no notebook at {notebook}; give the path of an .ipynb file.")
    try:
        nbformat.validate(nbformat.read(notebook, as_version=4))
        return papermill.inspect_notebook(str(notebook))
    except Exception as error:  # of many kinds for what is no notebook
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{notebook} is not a whole notebook ({reason}); expected an .ipynb file that Jupyter"
            " opens, with a kernel chosen."
        ) from error


def _is_number(source: str) -> bool:
    try:
        value = ast.literal_eval(source)
    except (ValueError, SyntaxError):  # an expression
        return False
    return isinstance(value, int | float) and not isinstance(value, bool)


def run(
    notebook: Path,
    out: Path,
    parameters: dict[str, Any],
    progress: bool = True,
    name: str = "",
) -> dict[str, float]:
    """Executes a notebook and keeps what it made.

    Args:
        out: folder that gets the executed notebook, its pictures `<notebook>_1.png`, … and
            `<notebook>.csv`, which has one row a run: its name, the parameters, then the numbers
            recorded with `dmgi_lib.display.record`.
        parameters: name → value, for the cell tagged `parameters`.
        name: of the run; notebook and pictures go to out/name, or to out/name-2, … if a run of that
            name is there already.

    Returns:
        The recorded numbers.

    Raises:
        FileNotFoundError: no such notebook.
        ValueError: see `check_parameters`.
        papermill.PapermillExecutionError: a cell failed; the notebook in `out` shows where.
    """
    import papermill

    parameters = check_parameters(notebook, parameters)
    folder = free_folder(notebook, out, name)
    print(f"notebook  {folder / notebook.name}")
    executed = papermill.execute_notebook(
        str(notebook),
        str(folder / notebook.name),
        parameters,
        kernel_name="python3",
        cwd=str(notebook.parent),
        progress_bar=progress,
    )
    outputs = [o for cell in executed["cells"] for o in cell.get("outputs", [])]
    pictures = [o["data"]["image/png"] for o in outputs if "image/png" in o.get("data", {})]
    for number, picture in enumerate(pictures, start=1):
        path = folder / f"{notebook.stem}_{number}.png"
        path.write_bytes(base64.b64decode(picture))
    numbers = recorded(executed)
    run_name = "" if folder == out else folder.name
    append_row(out / f"{notebook.stem}.csv", {"run": run_name, **parameters, **numbers})
    for label, value in numbers.items():
        print(f"{label:32s}{value:10.4g}")
    print(f"pictures  {folder / notebook.stem}_*.png")
    print(f"numbers   {out / notebook.stem}.csv")
    return numbers


def sweep(
    notebook: Path,
    out: Path,
    vary: Mapping[str, Sequence[Any]],
    fixed: Mapping[str, Any] | None = None,
) -> Any:
    """Runs the notebook with every combination of values; combinations that ran already are kept.

    Args:
        out: folder for a folder a run, and for the table `<notebook>.csv`.
        vary: parameter → its values; the last one changes fastest.

    Returns:
        A DataFrame, a row a run: its name, the parameters, the recorded numbers.

    Raises:
        ValueError: no values, or see `check_parameters`; then nothing has run.
    """
    import pandas

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
    done = set(pandas.read_csv(table)["run"]) if table.is_file() else set()
    for name, parameters in runs.items():
        if name not in done:
            (out / name / notebook.name).unlink(missing_ok=True)  # of a run that was stopped
            run(notebook, out, parameters, progress=False, name=name)
    rows = pandas.read_csv(table)
    return rows[rows["run"].isin(runs)].reset_index(drop=True)


def name_of(chosen: Mapping[str, Any]) -> str:
    """Folder of a run: "exit_step=3,seed=0", without what folders cannot be called."""
    name = ",".join(f"{key}={value}" for key, value in chosen.items())
    return "".join(c if c.isalnum() or c in "=,.-_" else "_" for c in name)


def free_folder(notebook: Path, out: Path, name: str = "") -> Path:
    """out/name, or out/name-2, …: the first where no run of the notebook is; claimed at once."""
    number = 0
    while True:
        number += 1
        folder = out / (name if number == 1 else f"{name or 'run'}-{number}")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            (folder / notebook.name).open("x").close()
        except FileExistsError:
            continue
        return folder


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Adds a row to a table, and columns where the row brings new ones; many processes may.

    Raises:
        TimeoutError: another process has held the table for a minute.
    """
    import pandas

    with FileLock(path.with_name(f".{path.name}.lock"), timeout=60):
        new = pandas.DataFrame([{name: str(value) for name, value in row.items()}])
        rows = pandas.read_csv(path, dtype=str, na_filter=False) if path.is_file() else None
        table = pandas.concat([rows, new])
        write_whole(path, lambda target: table.to_csv(target, index=False))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("notebook", type=Path, help="the .ipynb to execute")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for what it makes")
    parser.add_argument(
        "-f", "--file", type=Path, nargs="+", default=[], help="YAML of parameters, a run each"
    )
    parser.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="one parameter, its value in YAML; overrides --file",
    )  # fmt: skip
    parser.add_argument(
        "--vary", nargs="+", action="append", default=[], metavar=("NAME", "VALUE"),
        help="a parameter and its values: runs all combinations; the first is the figure's x axis",
    )  # fmt: skip
    parser.add_argument("--show", nargs="+", default=[], help="recorded numbers to draw of --vary")
    given = parser.parse_args(arguments)
    if (given.vary and given.file) or (given.show and not given.vary):
        parser.error("--vary goes without --file, and --show with --vary")
    try:
        import papermill
        import yaml  # comes with papermill
    except ModuleNotFoundError:
        parser.error('running notebooks needs papermill: pip install -e ".[notebooks]"')
    try:
        given_here = {name: yaml.safe_load(value) for name, value in given.parameter}
        if given.vary:
            vary = {name: [yaml.safe_load(v) for v in values] for name, *values in given.vary}
            table = sweep(given.notebook, given.out, vary, given_here)
            if given.show:
                picture = given.out / f"{given.notebook.stem}.png"
                show_sweep(table, next(iter(vary)), given.show).savefig(picture, dpi=110)
                print(f"figure    {picture}")
            return
        runs = {}
        for file in given.file or [None]:
            parameters = yaml.safe_load(file.read_text(encoding="utf-8")) if file else {}
            if not isinstance(parameters, dict):
                raise ValueError(f"{file} holds no `name: value` lines.")
            name = file.stem if file else ""
            if name in runs:
                raise ValueError(
                    f"two files of parameters are called {name}; expected different names, since"
                    " each run gets a folder and a row of that name. Rename one."
                )
            runs[name] = parameters | given_here
        # refuse all before the first one runs
        runs = {name: check_parameters(given.notebook, asked) for name, asked in runs.items()}
        for name, parameters in runs.items():
            run(given.notebook, given.out, parameters, name=name)
    except papermill.PapermillExecutionError as error:
        print(f"{error}\nThe notebook named above shows where it stopped.", file=sys.stderr)
        raise SystemExit(1) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
