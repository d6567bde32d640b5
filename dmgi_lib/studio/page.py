"""The files that the browser gets: plain JavaScript and CSS, nothing built, nothing fetched."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
STYLE = HERE / "studio.css"
# Of traits that a person changes: a late echo would undo what was painted or typed since.
FROM_PAGE = {"sync": True, "echo_update": False}


def script(*names: str) -> str:
    """One JavaScript module of several files, since a widget's module can import none beside it."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)
