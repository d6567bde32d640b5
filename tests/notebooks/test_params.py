"""Files of parameters: each belongs to a notebook, and every named choice has one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dmgi_lib.evaluation.ablations import CHOICES
from dmgi_lib.notebook_runner import check_parameters

FOLDER = Path(__file__).parents[2] / "notebooks"
FILES = sorted((FOLDER / "params").glob("*.yaml"))


def values(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_notebook_takes_them(path):
    (notebook,) = FOLDER.glob(f"{path.stem[:2]}_*.ipynb")
    given = values(path)
    assert given
    check_parameters(notebook, given)


def test_long_runs_have_files():
    given = [values(path) for path in FILES]
    assert sum(parameters.get("train_minutes", 0) >= 5 for parameters in given) >= 3


@pytest.mark.parametrize("name", [name for name in CHOICES if name != "default"])
def test_every_ablation_can_be_run_in_a_notebook(name):
    """Stage-1 choices in notebook 05, stage-2 choices in 06."""
    choice = CHOICES[name]
    first, second = dict(choice.mapping) | dict(choice.first), dict(choice.modulation)
    if choice.source != "reverse":
        first["source"] = choice.source
    second |= choice.second
    for number, wanted in (("05", first), ("06", second)):
        if "weights" in wanted:
            wanted["parsing_weight"] = wanted.pop("weights").parsing
        if "steps" in wanted:
            wanted["trained_steps"] = list(wanted.pop("steps"))
        files = [values(path) for path in FILES if path.stem.startswith(number)]
        assert not wanted or wanted in files, (number, wanted)
