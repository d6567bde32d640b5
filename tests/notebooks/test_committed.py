"""The committed notebooks: executed, complete, light, and runnable by papermill and on GitHub."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import nbformat
import papermill
import pytest

from dmgi_lib.display import recorded

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
CHAPTERS = [path for path in NOTEBOOKS if path.stem != "solutions"]


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_committed_executed_and_sound(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata  # GitHub calls such files invalid
    assert "papermill" not in notebook.metadata  # holds paths of the machine that ran it
    assert path.stat().st_size <= 1_500_000
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    kinds = {output.output_type for cell in code for output in cell.outputs}
    assert "error" not in kinds
    noise = [o.text for c in code for o in c.outputs if o.get("name") == "stderr"]
    assert noise == []
    assert any("image/png" in o.get("data", {}) for c in code for o in c.outputs)
    assert not any(re.search(r"/(root|home|tmp|Users)/", str(c.outputs)) for c in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_parameters_are_listed_and_explained(path):
    parameters = papermill.inspect_notebook(str(path))
    assert parameters
    for name, parameter in parameters.items():
        assert parameter["help"] or parameter["default"].startswith("["), name


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_says_what_how_long_and_what_next(path):
    cells = nbformat.read(path, as_version=4).cells
    opening, closing = cells[0].source, cells[-1].source
    assert opening.startswith(f"# {path.stem[:2]} · ")
    for part in ("You will learn", "Time", "Prerequisites"):
        assert part in opening, part
    for part in ("Recap", "Exercises", "next"):
        assert part in closing, part
    assert "google.colab" in cells[1].source


def exercises(path: Path) -> list[tuple[str, str]]:
    """Text and code of each cell that waits for an answer."""
    cells = nbformat.read(path, as_version=4).cells
    return [
        (text.source, cell.source)
        for text, cell in itertools.pairwise(cells)
        if cell.cell_type == "code" and printed(cell) == "No answer yet.\n"
    ]


def printed(cell: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_exercises_wait_for_an_answer(path):
    found = exercises(path)
    assert 2 <= len(found) <= 4
    for text, code in found:
        assert re.match(r"\w+ = None\b", code)
        assert code.count("check(") == 1 and len(code.splitlines()) <= 25
        assert re.search(r"\*\*\d\*\* \(\d+ minutes, ★{1,3}\)", text)
        assert "<summary>Hint 1</summary>" in text and "(solutions.ipynb)" in text


def test_every_exercise_is_solved():
    code = [
        cell
        for cell in nbformat.read(FOLDER / "solutions.ipynb", as_version=4).cells
        if cell.cell_type == "code" and "check(" in cell.source
    ]
    assert len(code) == sum(len(exercises(path)) for path in CHAPTERS)
    for cell in code:
        assert printed(cell).endswith("Right.\n"), cell.source


def test_the_styles_say_what_was_measured():
    numbers = recorded(nbformat.read(FOLDER / "09_stylised_faces.ipynb", as_version=4))
    assert 35 < numbers["call_over_another_style"] < 45  # "about a fortieth"
    assert round(numbers["layout_kept_worst"], 2) == 0.89
    assert round(numbers["layout_kept_best"], 2) == 0.94
    assert round(numbers["numbers_of_a_style"], -3) == 42_000
    assert round(numbers["share_of_G"], 3) == 0.036
    assert numbers["code_moved_by_the_words"] < 1e-5


def test_the_studio_says_what_it_measured():
    numbers = recorded(nbformat.read(FOLDER / "11_studio.ipynb", as_version=4))
    assert 6.5 < numbers["full_over_preview"] < 10.5  # "seven to ten times"
    assert round(numbers["change_in_the_stroke"]) == 33
    assert round(numbers["change_elsewhere"]) == 10
    assert round(numbers["pixels_that_follow_exit_0"], 2) == 0.79
    assert round(numbers["pixels_that_follow_exit_9"], 2) == 0.81
    rows = [round(numbers[f"change_by_{which}_rows"]) for which in ("coarse", "middle", "fine")]
    assert rows == [19, 19, 1]
    assert round(numbers["eye_brightness_with_eyes"]) == 86
    assert round(numbers["eye_brightness_without_eyes"]) == 88
