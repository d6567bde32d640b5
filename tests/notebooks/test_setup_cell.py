"""The first cell of every notebook: on Colab it fetches the kit, elsewhere it does nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def cell(path: Path) -> str:
    """Its source with the lines for the shell left out: Python alone can run the rest."""
    lines = nbformat.read(path, as_version=4).cells[1].source.splitlines(keepends=True)
    return "".join(line for line in lines if not line.strip().startswith(("!", "%")))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_says_what_to_set_where_no_address_is_known(path, monkeypatch):
    assert cell(path) == cell(NOTEBOOKS[0])
    monkeypatch.delenv("DMGI_REPOSITORY", raising=False)
    exec(cell(path), {})  # not on Colab
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    with pytest.raises(SystemExit, match="address that you clone this kit from .* REPOSITORY"):
        exec(cell(path), {})
    monkeypatch.setenv("DMGI_REPOSITORY", "https://example.org/dmgi-kit.git")
    with pytest.raises(FileNotFoundError, match="dmgi-kit"):  # where the clone would be
        exec(cell(path), {})
