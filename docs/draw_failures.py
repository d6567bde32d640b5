"""Draws the pictures of docs/failures.md by the code on that page: `python docs/draw_failures.py`.

The blocks of Python on the page run in order and share their names. A block below a picture draws
it, and leaves its parts in `pictures`: title → mask (H, W), array, tensor or PIL image.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from dmgi_lib.display import show_row
from dmgi_lib.masks import PALETTE

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/failures.md"
BLOCK = re.compile(r"(?:!\[[^]]*\]\((?P<picture>\S+\.jpg)\)\s+)?```python\n(?P<code>.*?)```", re.S)


def draw(page: Path = PAGE) -> list[Path]:
    """Runs the page's blocks and writes its pictures; returns their paths."""
    names: dict[str, Any] = {}
    written = []
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        with contextlib.chdir(ROOT):  # paths on the page are the kit's
            exec(compile(block["code"], str(page), "exec"), names)
        if block["picture"]:
            path = page.parent / block["picture"]
            path.parent.mkdir(exist_ok=True)
            pictures = names.pop("pictures")
            figure = show_row([shown(p) for p in pictures.values()], list(pictures), height=1.5)
            figure.savefig(path, dpi=110, bbox_inches="tight", pil_kwargs={"quality": 88})
            plt.close(figure)
            written.append(path)
    return written


def shown(picture: Any) -> Any:
    """A mask in its colours, anything else as it is."""
    ids = np.asarray(picture) if np.ndim(picture) == 2 else None
    return picture if ids is None else PALETTE[ids].astype(np.uint8)


if __name__ == "__main__":
    for path in draw():
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
