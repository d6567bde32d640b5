"""The repository's address is stamped by one command, and nothing else of a notebook changes."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
stamp = runpy.run_path(str(ROOT / "docs/badges.py"))["stamp"]


@pytest.fixture
def copy(tmp_path) -> Path:
    """The kit's files that show the address, without one."""
    (tmp_path / "notebooks").mkdir()
    for path in [ROOT / "README.md", *(ROOT / "notebooks").glob("*.ipynb")]:
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in citation if not line.startswith("repository-code")]
    (tmp_path / "CITATION.cff").write_text("".join(kept), encoding="utf-8")
    stamp(tmp_path)
    return tmp_path


def texts(root: Path) -> dict[str, str]:
    return {p.name: p.read_text(encoding="utf-8") for p in sorted(root.rglob("*")) if p.is_file()}


def test_the_committed_files_are_stamped(tmp_path):
    """A new notebook, or a changed set-up cell, needs `make badges`."""
    for name in ("README.md", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    assert stamp(tmp_path) == []


def test_nothing_links_to_nowhere_without_an_address(copy):
    assert not any("colab.research" in text for text in texts(copy).values())
    assert all("github.com/" not in text for name, text in texts(copy).items() if "ipynb" in name)


def test_address_is_stamped_once_and_replaced(copy):
    plain = texts(copy)
    assert len(stamp(copy, "first/kit")) == len(plain)
    first = texts(copy)
    assert stamp(copy, "first/kit") == [] and stamp(copy) == []  # CITATION.cff remembers
    assert len(stamp(copy, "second/kit.2")) == len(plain)
    second = texts(copy)
    for name, text in second.items():
        assert text == first[name].replace("first/kit", "second/kit.2") != plain[name]
    assert second["CITATION.cff"].endswith("\nrepository-code: https://github.com/second/kit.2\n")
    assert "git clone --depth 1 https://github.com/second/kit.2`" in second["README.md"]


def test_every_notebook_opens_itself_and_keeps_its_outputs(copy):
    paths = sorted((copy / "notebooks").glob("*.ipynb"))
    before = [nbformat.read(path, as_version=4) for path in paths]
    stamp(copy, "owner/name", branch="trunk")
    for path, old in zip(paths, before, strict=True):
        new = nbformat.read(path, as_version=4)
        nbformat.validate(new)
        opening, setup = new.cells[0].source, new.cells[1].source
        link = (
            f"https://colab.research.google.com/github/owner/name/blob/trunk/notebooks/{path.name}"
        )
        assert opening.splitlines()[0] == old.cells[0].source.splitlines()[0]
        assert opening.splitlines()[1:4:2] == ["", ""] and f"]({link})" in opening.splitlines()[2]
        assert 'get("DMGI_REPOSITORY", "https://github.com/owner/name")' in setup
        assert new.cells[2:] == old.cells[2:] and new.metadata == old.metadata
        assert [cell.get("outputs") for cell in new.cells] == [c.get("outputs") for c in old.cells]


@pytest.mark.parametrize("repo", ["name", "https://github.com/a/b", 'a/b"; x', "a/b/c", "a b/c"])
def test_what_is_no_repository_is_refused(copy, repo):
    before = texts(copy)
    with pytest.raises(ValueError, match="expected owner/name"):
        stamp(copy, repo)
    assert texts(copy) == before
