"""A sweep makes every combination once, goes on where it stopped, and draws what was recorded."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pandas as pd
import pytest

from dmgi_lib.display import RECORD_MIME, show_sweep
from dmgi_lib.notebook_runner import main, name_of, sweep


@pytest.fixture
def small_notebook(tmp_path) -> Path:
    cells = [
        nbformat.v4.new_code_cell(
            "a = 1  # a number\nway = 'one'  # a choice\nseed = 0  # another",
            metadata={"tags": ["parameters"]},
        ),
        nbformat.v4.new_code_cell(
            "from IPython.display import display\n"
            "value = a * {'one': 1, 'two': 2}[way] + seed / 10\n"
            f"display({{{RECORD_MIME!r}: {{'name': 'result', 'value': value}}}}, raw=True)"
        ),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def test_two_by_two(small_notebook, tmp_path):
    out = tmp_path / "out"
    table = sweep(small_notebook, out, {"way": ["one"], "seed": [0, 1]}, {"a": 3})
    assert list(table["result"]) == [3, 3.1]
    first = (out / "way=one,seed=1/small.ipynb").stat().st_mtime_ns
    (out / "way=two,seed=0").mkdir()  # a run that was stopped
    (out / "way=two,seed=0/small.ipynb").touch()
    table = sweep(small_notebook, out, {"way": ["one", "two"], "seed": [0, 1]}, {"a": 3})
    assert list(table["result"]) == [3, 3.1, 6, 6.1] and list(table["a"]) == [3] * 4
    assert (out / "way=one,seed=1/small.ipynb").stat().st_mtime_ns == first  # not run again
    assert len(list(out.glob("*/small.ipynb"))) == 4


def test_command_draws_a_figure(small_notebook, tmp_path, capsys):
    out = tmp_path / "out"
    command = [str(small_notebook), "--out", str(out), "--vary", "way", "one", "two"]
    main([*command, "-p", "a", "2", "--show", "result"])
    assert (out / "small.png").read_bytes().startswith(b"\x89PNG")
    assert "small.png" in capsys.readouterr().out


def test_all_is_checked_before_the_first_run(small_notebook, tmp_path):
    out = tmp_path / "out"
    for vary, fixed, said in (
        ({"seed": [0, "x"]}, {}, "seed came as 'x'; expected a number"),
        ({"sed": [0]}, {}, "no parameter 'sed'.*Did you mean 'seed'"),
        ({"seed": []}, {}, r"no values came for \['seed'\]"),
        ({"seed": [0]}, {"seed": 1}, r"\['seed'\] came both varied and fixed"),
    ):
        with pytest.raises(ValueError, match=said):
            sweep(small_notebook, out, vary, fixed)
    assert not out.exists()


def test_names_can_be_folders():
    assert name_of({"steps": [0, 9], "seed": 1}) == "steps=_0,_9_,seed=1"


def test_figure_has_a_dot_a_run_and_the_means():
    table = pd.DataFrame(
        {"latent": ["w_plus", "w"] * 2, "seed": [0, 0, 1, 1], "mIoU": [0.4, 0.2, 0.6, 0.2]}
    )
    (axis,) = show_sweep(table, "latent", ["mIoU"]).axes
    means, dots = axis.lines
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["w_plus", "w"]
    assert list(means.get_ydata()) == [0.5, 0.2] and len(dots.get_xdata()) == 4
    with pytest.raises(ValueError, match=r"has no \['FID'\]; its columns are"):
        show_sweep(table, "latent", ["FID"])
