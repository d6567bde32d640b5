"""Tables of README and results say what the files beside them say."""

import runpy
from pathlib import Path

import pytest

from dmgi_lib.evaluation.report import write_csv

script = runpy.run_path(str(Path(__file__).parents[2] / "docs/fill_tables.py"))
PAGE = """\
<!-- some.csv: last, first; more.csv: the (floor) -->

| | FID ↓ | mIoU ↑ |
|---|---|---|
| **last** | 9 | |
| first | ? | 9 |
| floor | | |

| other | FID |
|---|---|
| as it is | 9 |
"""


@pytest.mark.parametrize("page", script["PAGES"], ids=lambda page: page.stem)
def test_numbers_are_those_of_the_files(page):
    text = page.read_text(encoding="utf-8")
    assert len(script["TABLE"].findall(text)) == text.count("<!-- ") > 0
    assert script["filled"](text) == text


def test_fills_rows_and_columns_by_name(tmp_path):
    first = {"key": "first", "row": "x", "mIoU": 0.25, "mIoU low": 8.0, "FID (parser)": 0.5}
    last = first | {"key": "last", "mIoU": 0.12345}
    write_csv(tmp_path / "some.csv", ["note"], [first, last])
    write_csv(tmp_path / "more.csv", [], [{"row": "the (floor)", "FID low": 8.0, "FID": 1.0}])
    with pytest.raises(KeyError, match="mIoU"):
        script["filled"](PAGE, tmp_path)
    write_csv(tmp_path / "more.csv", [], [{"row": "the (floor)", "FID": 1.0, "mIoU": 0.0}])
    page = script["filled"](PAGE, tmp_path)
    assert "| **last** | 0.500 | 0.123 |\n| first | 0.500 | 0.250 |\n| floor | 1.000 |" in page
    assert page.endswith("| as it is | 9 |\n")
    with pytest.raises(ValueError):
        script["filled"](page.replace("| first | 0.500 | 0.250 |\n", ""), tmp_path)
