"""The book: its settings build pages that need no network, and its own pages are true."""

from __future__ import annotations

import importlib
import re
import runpy
import subprocess
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
BOOK = runpy.run_path(str(ROOT / "docs/build_book.py"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BADGE = "[![Open in Colab](https://colab.research.google.com/assets/x.svg)](https://example.org)"


@pytest.fixture
def part(tmp_path) -> Path:
    """The smallest root that conf.py takes: one page of each kind."""
    root = tmp_path / "part"
    pages = {
        "README.md": "# Kit\n\n[first](notebooks/00_first.ipynb), [page](docs/page.md)\n",
        "docs/book/api.md": "# API\n",
        "docs/page.md": "# Page\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
        "data_prep/faces128/card.md": "# Card\n",
        "CONTRIBUTING.md": "# Contributing\n",
        "CHANGELOG.md": "# Changes\n",
    }
    for name, text in pages.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / "notebooks").mkdir()
    output = nbformat.v4.new_output("stream", text="said by the run\n")
    code = nbformat.v4.new_code_cell("print('never run')", execution_count=1, outputs=[output])
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},
    }
    for name in ("00_first", "solutions"):
        words = nbformat.v4.new_markdown_cell(f"# {name}\n\n{BADGE}\n\n$h_t$ and\n\n$$w^+$$")
        book = nbformat.v4.new_notebook(cells=[words, code], metadata=metadata)
        nbformat.write(book, root / f"notebooks/{name}.ipynb")
    return root


def test_a_part_of_the_book(part, tmp_path):
    for module in ("sphinx", "myst_nb", "furo", "latex2mathml"):
        pytest.importorskip(module)
    site = tmp_path / "site"
    BOOK["build"](part, site)
    assert BOOK["faults"](site) == []
    page = (site / "notebooks/00_first.html").read_text(encoding="utf-8")
    assert "said by the run" in page and page.count("<math") == 2
    assert "Open in Colab" in page and "x.svg" not in page
    assert "notebooks/solutions.html" in (site / "index.html").read_text(encoding="utf-8")
    (part / "docs/page.md").write_text("# Page\n\n[gone](gone.md)\n", encoding="utf-8")
    with pytest.raises(subprocess.CalledProcessError):
        BOOK["build"](part, site)


def test_faults_are_found(tmp_path):
    (tmp_path / "here.html").write_text(
        '<a href="here.html#top"></a><a href="https://example.org"></a><img src="data:image/png,">'
        '<a href="gone%20page.html"></a><script src="//cdn.example.org/a.js"></script>'
        '<link rel="canonical" href="https://example.org/"><img src="https://example.org/b.png">'
    )
    (tmp_path / "style.css").write_text("a { background: url('https://example.org/c.png') }")
    found = BOOK["faults"](tmp_path)
    assert [fault.rpartition("/")[2].rpartition(" ")[2] for fault in found] == [
        "c.png", "gone%20page.html", "a.js", "b.png",
    ]  # fmt: skip


def test_links_to_places_are_followed(tmp_path):
    (tmp_path / "api").mkdir()
    (tmp_path / "api/there.html").write_text('<h2 id="the end">1</h2><a name="old"></a>')
    (tmp_path / "here.html").write_text(
        '<h1 id="title"></h1><a href="#title"></a><a href="#"></a><a href="#gone"></a>'
        '<a href="api/there.html#the%20end"></a><a href="api/there.html#title"></a>'
        '<a href="api/there.html#old"></a>'
        '<a href="https://example.org#any"></a><a href="picture.svg#part"></a>'
    )
    (tmp_path / "picture.svg").write_text("<svg/>")
    assert BOOK["faults"](tmp_path) == [
        "links to no place of the page: here.html: #gone",
        "links to no place of the page: here.html: api/there.html#title",
    ]


def test_api_pages_link_to_no_place_that_they_lack():
    pytest.importorskip("pdoc")
    unlinked = runpy.run_path(str(ROOT / "docs/build_api.py"))["unlinked"]
    page = (
        '<i id="a"></i><a href="#a">a</a> of <a href="#_Base">_Base</a>, <a href="x.html#b">b</a>'
    )
    assert unlinked(page) == page.replace('<a href="#_Base">_Base</a>', "_Base")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_pages_lead_to_files(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    missing = [k for k in links if k and ":" not in k and not (page.parent / k).exists()]
    assert not missing


def test_glossary_names_what_is_in_the_code():
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    rows = [
        line for line in text.splitlines() if line.startswith("| ") and "in the code" not in line
    ]
    assert len(rows) > 40
    for row in rows:
        names = re.findall(r"`(dmgi_lib[\w.]*)`", row)
        assert names, row
        for name in names:
            exists(name)


def exists(name: str) -> None:
    """Imports a module, or a name that a module holds."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, held = name.rpartition(".")
        assert hasattr(importlib.import_module(module), held), name
