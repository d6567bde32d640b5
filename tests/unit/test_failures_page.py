"""docs/failures.md: each picture has code, and that code draws it."""

import re
import runpy
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
script = runpy.run_path(str(ROOT / "docs/draw_failures.py"))


def test_draws_by_the_code_on_the_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nimport numpy as np\nmask = np.full((8, 8), 13)\n```\n\n"
        "![hair](pictures/hair.jpg)\n\n"
        '```python\npictures = {"hair": mask, "gray": np.full((8, 8, 3), 128, np.uint8)}\n```\n',
        encoding="utf-8",
    )
    (path,) = script["draw"](page)
    assert path == tmp_path / "pictures/hair.jpg"
    assert Image.open(path).format == "JPEG"


def test_every_picture_of_the_page_has_code():
    page = script["PAGE"]
    text = page.read_text(encoding="utf-8")
    blocks = list(script["BLOCK"].finditer(text))
    for block in blocks:
        compile(block["code"], str(page), "exec")
    pictures = [block["picture"] for block in blocks if block["picture"]]
    assert pictures == re.findall(r"\]\((\S+\.jpg)\)", text)
    assert len(pictures) == text.count("**Why**") == text.count("**What helps**")
    assert all((page.parent / name).stat().st_size < 60_000 for name in pictures)
