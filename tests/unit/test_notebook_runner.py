"""The notebook runner collects what runs made, and refuses what it does not know."""

from __future__ import annotations

import csv
import datetime
import multiprocessing
from pathlib import Path

import nbformat
import pytest

from dmgi_lib.notebook_runner import append_row, check_parameters, main, run


@pytest.fixture
def small_notebook(tmp_path) -> Path:
    cells = [
        nbformat.v4.new_code_cell(
            "a = 1  # a number\nwords = ['one']  # some\nsure = True",
            metadata={"tags": ["parameters"]},
        ),
        nbformat.v4.new_code_cell(
            "import matplotlib.pyplot as plt\nfrom dmgi_lib.display import record\n"
            "record('twice', 2 * a)\nwords[0]\nplt.plot([1, a]);"
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
    assert [row["run"] for row in csv.DictReader((out / "small.csv").open())] == ["params", ""]
    assert len(list(out.glob("*.png"))) == 1 and "small.csv" in capsys.readouterr().out
    assert (out / "params" / "small.ipynb").is_file()  # not overwritten by the second run


def test_several_files_make_a_run_each(small_notebook, tmp_path):
    out, files = tmp_path / "out", []
    for name, a in (("three", 3), ("four", 4)):
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(f"# a comment\na: {a}\n")
    main([str(small_notebook), "--out", str(out), "-f", *map(str, files)])
    rows = list(csv.DictReader((out / "small.csv").open()))
    assert [(row["run"], row["twice"]) for row in rows] == [("three", "6.0"), ("four", "8.0")]
    assert (out / "three" / "small_1.png").is_file() and (out / "four" / "small.ipynb").is_file()
    files[-1].write_text("b: 1\n")
    with pytest.raises(SystemExit):  # before the first run starts
        main([str(small_notebook), "--out", str(tmp_path / "no"), "-f", *map(str, files)])
    assert not (tmp_path / "no").exists()


def test_two_files_of_one_name_are_refused(small_notebook, tmp_path, capsys):
    files = [tmp_path / folder / "same.yaml" for folder in ("a", "b")]
    for number, file in enumerate(files):
        file.parent.mkdir()
        file.write_text(f"a: {number}\n")
    with pytest.raises(SystemExit):
        main([str(small_notebook), "--out", str(tmp_path / "no"), "-f", *map(str, files)])
    assert "two files of parameters are called same" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_runner_refuses_unknown_parameters_and_files(small_notebook, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="no parameter 'aa'.*Did you mean 'a'"):
        run(small_notebook, out, {"aa": 2})
    with pytest.raises(SystemExit):
        main([str(small_notebook.with_name("none.ipynb")), "--out", str(out)])
    assert "no notebook at" in capsys.readouterr().err
    with pytest.raises(ValueError, match="a came as 'many'; expected a number, such as 1"):
        run(small_notebook, out, {"a": "many"})
    assert not out.exists()


def test_exponents_are_numbers(small_notebook, tmp_path):
    main([str(small_notebook), "--out", str(tmp_path / "out"), "-p", "a", "2e-3"])
    rows = list(csv.DictReader((tmp_path / "out" / "small.csv").open()))
    assert rows[0]["twice"] == "0.004"


def test_runner_reports_the_failing_cell(small_notebook, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(small_notebook), "--out", str(tmp_path / "out"), "-p", "words", "[]"])
    assert stopped.value.code == 1
    assert "shows where it stopped" in capsys.readouterr().err


def test_a_number_that_is_none_is_kept_as_such(small_notebook, tmp_path, capsys):
    main([str(small_notebook), "--out", str(tmp_path / "out"), "-p", "a", ".nan"])
    rows = list(csv.DictReader((tmp_path / "out" / "small.csv").open()))
    assert rows[0]["twice"] == "nan" and " nan" in capsys.readouterr().out


def test_a_second_run_leaves_the_first_ones_notebook(small_notebook, tmp_path):
    out = tmp_path / "out"
    for a in (1, 2):
        run(small_notebook, out, {"a": a}, progress=False)
    first, second = out / "small.ipynb", out / "run-2" / "small.ipynb"
    assert "a = 1" in first.read_text() and "a = 2" in second.read_text()
    assert [row["run"] for row in csv.DictReader((out / "small.csv").open())] == ["", "run-2"]


def append_many(path: Path, who: int) -> None:
    for number in range(100):
        append_row(path, {"run": f"{who}-{number}", f"column {who}": number})


def test_processes_share_a_table(tmp_path):
    path = tmp_path / "table.csv"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=append_many, args=(path, who)) for who in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    rows = list(csv.DictReader(path.open()))
    assert len({row["run"] for row in rows}) == len(rows) == 200
    assert set(rows[0]) == {"run", "column 0", "column 1"}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({1: 2}, "no parameter 1; its parameters are .*'a', 'words', 'sure'"),
        ({"words": [datetime.date(2026, 1, 2)]}, "words came as .*2026, 1, 2.*Quote it"),
        ({"a": [1]}, r"a came as \[1\]; expected a number, such as 1"),
        ({"a": True}, "a came as True; expected a number, such as 1"),
        ({"a": None}, "a came as None; expected a number, such as 1"),
    ],
)
def test_wrong_parameters(small_notebook, parameters, message):
    with pytest.raises(ValueError, match=message):
        check_parameters(small_notebook, parameters)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"cells": [], "nbformat": 4}'])
def test_what_is_no_notebook(text, tmp_path, capsys):
    path = tmp_path / "empty.ipynb"
    path.write_text(text)
    with pytest.raises(SystemExit):
        main([str(path), "--out", str(tmp_path / "out"), "-p", "a", "1"])
    assert f"{path} is not a whole notebook" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
