"""Sphinx reads README, docs and notebooks where they lie; `docs/build_book.py` calls it."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

project = "DMGI kit"
author = "DMGI kit contributors"
root_doc = "README"
extensions = ["myst_nb"]
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/*.md"]
include_patterns += ["docs/book/api.md", "notebooks/*.ipynb", "data_prep/faces128/card.md"]
html_theme = "furo"
html_title = "DMGI kit"
html_copy_source = False
html_show_sphinx = False

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the committed outputs are what a reader should see
nb_ipywidgets_js = {}  # would come from a CDN, and no committed output needs it
suppress_warnings = [
    "mystnb.unknown_mime_type",  # recorded numbers; their text is shown
    "myst.header",  # notebooks open at their own level
    "misc.highlighting_failure",  # shell lines of the set-up cell
]

CONTENTS = """

```{toctree}
:caption: Notebooks
:hidden:
:glob:

notebooks/[0-9]*
notebooks/solutions
```

```{toctree}
:caption: Reference
:hidden:
:glob:

docs/*
docs/book/api
data_prep/faces128/card
CONTRIBUTING
CHANGELOG
```
"""


def prepare(app: Sphinx, name: str, source: list[str]) -> None:
    """The first page gets the contents; a badge is words, since its picture lies elsewhere."""
    source[0] = re.sub(r"\[!\[Open in Colab\]\([^)]*\)\]", "[Open in Colab]", source[0])
    if name == root_doc:
        source[0] += CONTENTS


def inline(self: Any, node: nodes.math) -> None:
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def block(self: Any, node: nodes.math_block) -> None:
    self.body.append(convert(node.astext(), display="block"))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """MathML, which browsers draw by themselves; MathJax would come from a CDN."""
    app.connect("source-read", prepare)
    app.add_html_math_renderer("mathml", (inline, None), (block, None))


html_math_renderer = "mathml"
