"""The kit as a book that any browser opens, offline: `make book` writes site/index.html.

python docs/build_book.py [--out site]

Sphinx makes pages of README, docs and the executed notebooks; the API pages come from
docs/build_api.py. A link to a missing page, and anything that a page would fetch from elsewhere,
stops the build.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
FETCHED = {
    ("script", "src"),
    ("link", "href"),
    ("img", "src"),
    ("iframe", "src"),
    ("source", "src"),
}


def build(root: Path, out: Path, conf: Path = ROOT / "docs/book") -> None:
    """Writes the pages.

    Args:
        root: folder of the sources, the kit's own or a part of it.
        out: folder for the pages.
        conf: folder of Sphinx's conf.py.

    Raises:
        subprocess.CalledProcessError: a page cannot be read, or links to what is not there.
    """
    sphinx = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    pages = ["-c", str(conf), "-d", str(out / ".doctrees"), str(root), str(out)]
    subprocess.run([*sphinx, *pages], check=True)
    shutil.copy(out / "README.html", out / "index.html")


class _Links(HTMLParser):
    """All that a page fetches and links to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = [(tag, name, value) for name, value in attrs if name in ("src", "href") and value]
        self.found += [entry for entry in found if ("rel", "canonical") not in attrs]


def faults(site: Path) -> list[str]:
    """What pages fetch from elsewhere, and links to files that the site does not hold."""
    wrong = [
        f"fetched from elsewhere: {sheet.relative_to(site)}: {found}"
        for sheet in sorted(site.rglob("*.css"))
        for found in re.findall(r"url\(\s*[\"']?(?:https?:)?//[^)\"']*", sheet.read_text("utf-8"))
    ]
    for page in sorted(site.rglob("*.html")):
        links = _Links()
        links.feed(page.read_text(encoding="utf-8"))
        for tag, name, value in links.found:
            parts = urlsplit(value)
            place = f"{page.relative_to(site)}: {value[:120]}"
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                if (tag, name) in FETCHED:
                    wrong.append(f"fetched from elsewhere: {place}")
            elif parts.path and not (page.parent / unquote(parts.path)).exists():
                wrong.append(f"links to nothing: {place}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("site"), help="folder for the pages")
    given = parser.parse_args()
    api = [str(ROOT / "docs/build_api.py"), "--out", str(given.out / "api")]
    subprocess.run([sys.executable, *api], check=True)
    build(ROOT, given.out)
    wrong = faults(given.out)
    if wrong:
        raise SystemExit("\n".join(wrong))
    print(f"book  {given.out / 'index.html'}")


if __name__ == "__main__":
    main()
