"""Writes the numbers of the tables in README.md and docs/results.md, from the CSV files beside it.

    python docs/fill_tables.py

A comment above a table names the row of a file behind each of its rows,

    <!-- table1.csv: ground_truth, exit_9; table1_heads.csv: heads -->

and the first word of each heading is that of a column. Words stay as they are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dmgi_lib.evaluation.report import read_csv
from dmgi_lib.files import write_text

DOCS = Path(__file__).parent
PAGES = (DOCS.parent / "README.md", DOCS / "results.md")
TABLE = re.compile(
    r"(?P<above><!-- (?P<rows>\w+\.csv: .+) -->\n+(?P<head>\|.*\n)\|[-|]+\n)(?P<body>(?:\|.*\n)+)"
)


def filled(text: str, folder: Path = DOCS) -> str:
    """A page with the numbers of the files in `folder`.

    Raises:
        KeyError: a file lacks a row or a column.
        ValueError: a table has more or fewer rows than its comment names.
    """

    def table(found: re.Match[str]) -> str:
        rows: list[dict[str, Any]] = []
        for part in found["rows"].split("; "):
            name, keys = part.split(": ")
            by_key = {row.get("key", row["row"]): row for row in read_csv(folder / name)[1]}
            rows += [by_key[key] for key in keys.split(", ")]
        headings = found["head"].split("|")[2:-1]
        body = ""
        for line, row in zip(found["body"].splitlines(), rows, strict=True):
            short = {name.split()[0]: row[name] for name in reversed(row)}  # first of equal words
            cells = [f"{short[heading.split()[0]]:.3f}" for heading in headings]
            body += f"|{line.split('|')[1]}| {' | '.join(cells)} |\n"
        return found["above"] + body

    return TABLE.sub(table, text)


if __name__ == "__main__":
    for page in PAGES:
        write_text(page, filled(page.read_text(encoding="utf-8")))
