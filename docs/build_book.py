"""The kit as a book that any browser opens, offline: `make book` writes site/index.html.

python docs/build_book.py [--out site]

Sphinx makes pages of README, docs and the executed notebooks; the API pages come from
docs/build_api.py. A link to a missing page or to a place that its page lacks, and anything that a
page would fetch from elsewhere, stops the build.
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


class _Page(HTMLParser):
    """All that a page fetches and links to, and the places in it that links can lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[tuple[str, str, str]] = []
        self.places = {"", "top"}  # which every page has
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = ("id", "name") if tag == "a" else ("id",)
        self.places |= {value for name, value in attrs if name in named and value}
        found = [(tag, name, value) for name, value in attrs if name in ("src", "href") and value]
        self.links += [entry for entry in found if ("rel", "canonical") not in attrs]


def faults(site: Path) -> list[str]:
    """What pages fetch from elsewhere, and links to files or places that the site does not hold."""
    wrong = [
        f"fetched from elsewhere: {sheet.relative_to(site)}: {found}"
        for sheet in sorted(site.rglob("*.css"))
        for found in re.findall(r"url\(\s*[\"']?(?:https?:)?//[^)\"']*", sheet.read_text("utf-8"))
    ]
    pages = {path.resolve(): _Page(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        for tag, name, value in page.links:
            parts = urlsplit(value)
            place = f"{path.relative_to(site.resolve())}: {value[:120]}"
            if parts.scheme == "data":
                continue
            if parts.scheme or parts.netloc:
                if (tag, name) in FETCHED:
                    wrong.append(f"fetched from elsewhere: {place}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                wrong.append(f"links to nothing: {place}")
            elif target in pages and unquote(parts.fragment) not in pages[target].places:
                wrong.append(f"links to no place of the page: {place}")
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
