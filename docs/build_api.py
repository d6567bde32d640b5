"""API pages from the docstrings, by pdoc: `make docs` writes site/api, which any browser opens.

python docs/build_api.py [--out site/api] [dmgi_lib.masks ...]
"""

from __future__ import annotations

import argparse
import pkgutil
import re
from pathlib import Path
from unittest.mock import patch

import pdoc

import dmgi_lib


def build(out: Path, modules: list[str]) -> None:
    """Writes one page a module, an index and a search; the pages load nothing from elsewhere.

    pdoc reads `__dict__` and `__all__`: names that `dmgi_lib` imports on first use are not in the
    one, its modules not in the other.

    Args:
        out: folder for the pages.
        modules: names of modules; a package stands for all that it holds.
    """
    for name in dmgi_lib.__all__:
        setattr(dmgi_lib, name, getattr(dmgi_lib, name))
    rooms = [module.name for module in pkgutil.iter_modules(dmgi_lib.__path__)]
    pdoc.render.configure(
        docformat="google",
        footer_text=f"DMGI kit {dmgi_lib.__version__}",
        math=False,  # MathJax would come from a CDN
        mermaid=False,  # so would this
    )
    with patch.object(dmgi_lib, "__all__", [*dmgi_lib.__all__, *rooms]):
        pdoc.pdoc(*modules, output_directory=out)
    for path in out.rglob("*.html"):
        path.write_text(unlinked(path.read_text(encoding="utf-8")), encoding="utf-8")


def unlinked(page: str) -> str:
    """A page whose links to places that it lacks are plain words.

    pdoc links private bases and inherited methods, of which it shows nothing.
    """
    places = set(re.findall(r'\bid="([^"]*)"', page))

    def kept(link: re.Match[str]) -> str:
        return link[0] if link[1] in places else link[2]

    return re.sub(r'<a href="#([^"]+)">(.*?)</a>', kept, page)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write API pages from the docstrings.")
    parser.add_argument("modules", nargs="*", default=["dmgi_lib"], help="all of dmgi_lib if none")
    parser.add_argument("--out", type=Path, default=Path("site/api"), help="folder for the pages")
    given = parser.parse_args()
    build(given.out, given.modules)
    print(f"API pages  {given.out / 'index.html'}")
