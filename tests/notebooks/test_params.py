"""Files of parameters: each belongs to a notebook, and every named choice has one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from papermill import inspect_notebook

from dmgi_lib.evaluation.ablation_choices import CHOICES, MULTI, Choice
from dmgi_lib.notebook_runner import check_parameters

FOLDER = Path(__file__).parents[2] / "notebooks"
FILES = sorted((FOLDER / "params").glob("*.yaml"))
LOSS_PARAMETERS = {
    "parsing": "parsing_weight",
    "attributes": "attribute_weight",
    "parts": "parts_weight",
}


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


def test_scribbles_have_a_file_wherever_they_can_be_chosen():
    takers = [p for p in FOLDER.glob("*.ipynb") if "condition" in inspect_notebook(str(p))]
    assert takers
    given = {path.stem[:2] for path in FILES if values(path) == {"condition": "scribble"}}
    assert given >= {path.stem[:2] for path in takers}


def test_a_wrong_name_is_noticed():
    (notebook,) = FOLDER.glob("05_*.ipynb")
    with pytest.raises(ValueError, match="no parameter 'lantent'.*'latent'"):
        check_parameters(notebook, {"lantent": "w"})


def wanted(choice: Choice) -> dict[str, dict]:
    """Number of a notebook → parameters that make it train the way of an ablation."""
    first, second = dict(choice.mapping) | dict(choice.first), dict(choice.modulation)
    if choice.source != "reverse":
        first["source"] = choice.source
    second |= choice.second
    for name, value in choice.losses.items():
        first[LOSS_PARAMETERS.get(name, name)] = second[LOSS_PARAMETERS.get(name, name)] = value
    if choice.longer > 1:
        (notebook,) = FOLDER.glob("06_*.ipynb")
        minutes = float(inspect_notebook(str(notebook))["train_minutes"]["default"])
        second["train_minutes"] = choice.longer * minutes
    if choice.seed:
        first["seed"] = second["seed"] = choice.seed
    for stage in (first, second):
        if "steps" in stage:
            stage["trained_steps"] = list(stage.pop("steps"))
    if choice.third is not None:
        return {"07": dict(choice.third)}
    return {"05": first, "06": second}


@pytest.mark.parametrize("name", [name for name in CHOICES if name not in ("default", MULTI)])
def test_every_ablation_can_be_run_in_a_notebook(name):
    """Stage-1 choices in notebook 05, stage-2 choices in 06, stage-3 choices in 07."""
    asked = wanted(CHOICES[name])
    assert any(asked.values())
    for number, parameters in asked.items():
        files = [values(path) for path in FILES if path.stem.startswith(number)]
        assert not parameters or parameters in files, (number, parameters)
