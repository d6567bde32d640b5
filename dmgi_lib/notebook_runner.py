"""Runs a notebook with parameters.

    python -m dmgi_lib.notebook_runner notebooks/00_quickstart.ipynb -p seed 3
    python -m dmgi_lib.notebook_runner notebooks/06_style_modulation.ipynb \\
        -f notebooks/params/06_*.yaml

papermill executes; this adds what it lacks: parameters that the notebook does not list are refused,
pictures and recorded numbers are written beside the executed notebook, files of parameters make a
run and a folder each, and all runs of a notebook share one table.
"""

from __future__ import annotations

import argparse
import ast
import base64
import csv
import difflib
import sys
from pathlib import Path
from typing import Any

from dmgi_lib.display import recorded


def check_parameters(notebook: Path, parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters as the notebook's parameters cell takes them.

    YAML reads 2e-3 as text; where the notebook has a number it becomes one.

    Raises ValueError for a name that the cell does not hold, and for text in place of a number.
    """
    import papermill

    known = papermill.inspect_notebook(str(notebook))
    taken = dict(parameters)
    for name, value in parameters.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"{notebook.name} has no parameter {name!r}; its parameters are"
                f" {list(known)}.{hint}"
            )
        default = known[name]["default"]
        if isinstance(value, str) and _is_number(default):
            try:
                taken[name] = float(value)
            except ValueError:
                message = f"{name} came as {value!r}; expected a number, such as {default}."
                raise ValueError(message) from None
    return taken


def _is_number(source: str) -> bool:
    try:
        return isinstance(ast.literal_eval(source), int | float)
    except (ValueError, SyntaxError):  # an expression
        return False


def run(
    notebook: Path,
    out: Path,
    parameters: dict[str, Any],
    progress: bool = True,
    name: str = "",
) -> dict[str, float]:
    """Executes a notebook and keeps what it made.

    Args:
        notebook: path of the .ipynb.
        out: folder that gets the executed notebook, its pictures `<notebook>_1.png`, … and
            `<notebook>.csv`, which has one row a run: its name, the parameters, then the numbers
            recorded with `dmgi_lib.display.record`.
        parameters: name → value, for the cell tagged `parameters`.
        progress: shows a bar.
        name: of the run; notebook and pictures go to out/name.

    Returns:
        The recorded numbers.

    Raises:
        FileNotFoundError: no such notebook.
        ValueError: a parameter that the notebook does not list, or text for a number.
        papermill.PapermillExecutionError: a cell failed; the notebook in `out` shows where.
    """
    import papermill

    if not notebook.is_file():
        raise FileNotFoundError(f"no notebook at {notebook}; give the path of an .ipynb file.")
    parameters = check_parameters(notebook, parameters)
    table, out = out / f"{notebook.stem}.csv", out / name
    out.mkdir(parents=True, exist_ok=True)
    executed = papermill.execute_notebook(
        str(notebook),
        str(out / notebook.name),
        parameters,
        kernel_name="python3",
        cwd=str(notebook.parent),
        progress_bar=progress,
    )
    for old in out.glob(f"{notebook.stem}_*.png"):
        old.unlink()
    pictures = [
        output["data"]["image/png"]
        for cell in executed["cells"]
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    for number, picture in enumerate(pictures, start=1):
        (out / f"{notebook.stem}_{number}.png").write_bytes(base64.b64decode(picture))
    numbers = recorded(executed)
    _append_row(table, {"run": name, **parameters, **numbers})
    return numbers


def _append_row(path: Path, row: dict[str, Any]) -> None:
    """Adds a row to a table, and columns where the row brings new ones."""
    rows: list[dict[str, Any]] = []
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    rows.append(row)
    columns = list(dict.fromkeys(name for r in rows for name in r))
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("notebook", type=Path, help="the .ipynb to execute")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder for what it makes")
    parser.add_argument(
        "-f",
        "--file",
        type=Path,
        nargs="+",
        default=[],
        help="YAML of parameters, a run each",
    )
    parser.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="one parameter, its value in YAML; overrides --file",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    try:
        import papermill
        import yaml  # comes with papermill
    except ModuleNotFoundError:
        parser.error('running notebooks needs papermill: pip install -e ".[notebooks]"')
    try:
        given_here = {name: yaml.safe_load(value) for name, value in given.parameter}
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
        if given.notebook.is_file():
            for parameters in runs.values():  # refuse all before the first one runs
                check_parameters(given.notebook, parameters)
        for name, parameters in runs.items():
            numbers = run(given.notebook, given.out, parameters, name=name)
            _report(given.notebook, given.out, name, numbers)
    except papermill.PapermillExecutionError as error:
        stopped = given.out / name / given.notebook.name
        print(f"{error}\n{stopped} shows where it stopped.", file=sys.stderr)
        raise SystemExit(1) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        parser.error(str(error))


def _report(notebook: Path, out: Path, name: str, numbers: dict[str, float]) -> None:
    for number, value in numbers.items():
        print(f"{number:32s}{value:10.4g}")
    print(f"notebook  {out / name / notebook.name}")
    print(f"pictures  {out / name / notebook.stem}_*.png")
    print(f"numbers   {out / notebook.stem}.csv")


if __name__ == "__main__":
    main()
