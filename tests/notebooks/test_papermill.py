"""The notebooks with other parameters than the committed ones, and the runner's refusals."""

from __future__ import annotations

import csv
from pathlib import Path

import nbformat
import pytest

from dmgi_lib.notebook_runner import main, run

FOLDER = Path(__file__).parents[2] / "notebooks"


def test_quickstart_with_other_parameters(tmp_path):
    parameters = {
        "prompt": "an elderly man with gray hair",
        "mask": "000011",
        "words": ["gray"],
        "exit_step": 2,
        "seed": 5,
        "grid_masks": ["000002"],
        "grid_prompts": ["a woman with black hair", "a man with red hair"],
    }
    numbers = run(FOLDER / "00_quickstart.ipynb", tmp_path, parameters, progress=False)
    assert numbers["seconds_to_load"] < 10
    assert numbers["seconds_exit_step_0"] < 1
    assert numbers["speedup"] > 3
    assert len(list(tmp_path.glob("00_quickstart_*.png"))) >= 6
    (row,) = csv.DictReader((tmp_path / "00_quickstart.csv").open())
    assert row["mask"] == "000011" and float(row["speedup"]) == numbers["speedup"]


@pytest.fixture
def small_notebook(tmp_path) -> Path:
    cells = [
        nbformat.v4.new_code_cell("a = 1  # a number", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(
            "import matplotlib.pyplot as plt\nfrom dmgi_lib.display import record\n"
            "record('twice', 2 * a)\nplt.plot([1, a]);"
        ),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def test_runner_collects_runs_in_one_table(small_notebook, tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / "params.yml").write_text("a: 5\n")
    main([str(small_notebook), "--out", str(out), "-f", str(tmp_path / "params.yml")])
    main([str(small_notebook), "--out", str(out), "-p", "a", "7"])
    assert [row["twice"] for row in csv.DictReader((out / "small.csv").open())] == ["10.0", "14.0"]
    assert len(list(out.glob("*.png"))) == 1 and "small.csv" in capsys.readouterr().out


def test_runner_refuses_unknown_parameters_and_files(small_notebook, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="no parameter 'aa'.*Did you mean 'a'"):
        run(small_notebook, out, {"aa": 2})
    with pytest.raises(SystemExit):
        main([str(small_notebook.with_name("none.ipynb")), "--out", str(out)])
    assert "no notebook at" in capsys.readouterr().err
    assert not out.exists()
