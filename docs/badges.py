"""Stamps the repository's address where readers need it: `make badges REPO=owner/name`.

python docs/badges.py [owner/name] [--branch main]

Every notebook gets an Open-in-Colab badge and the address in its set-up cell; README and
CITATION.cff get the address too. Outputs stay. Without owner/name it takes the one that
CITATION.cff holds, for a notebook that came later; where that has none either, no notebook has a
badge, and the set-up cell asks for the address.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOST = "https://github.com/"
COLAB = "https://colab.research.google.com/"
SETUP = """\
import os
import sys

if "google.colab" in sys.modules and not os.path.isdir("dmgi_lib"):  # Colab lacks the kit
    REPOSITORY = os.environ.get("DMGI_REPOSITORY", "{address}")  # or write the address here
    if not REPOSITORY:
        sys.exit("Write the address that you clone this kit from between the quotes of REPOSITORY.")
    !git clone --depth 1 "$REPOSITORY" dmgi-kit
    os.chdir("dmgi-kit")
    %pip install --quiet -e .
    from google.colab import output

    output.enable_custom_widget_manager()  # for the studio's painter"""


def stamp(root: Path, repo: str = "", branch: str = "main") -> list[Path]:
    """Writes the address wherever it is shown.

    Args:
        root: folder of the kit.
        repo: owner/name on GitHub; empty for the one that CITATION.cff holds, if any.
        branch: that Colab opens notebooks from.

    Returns:
        The files that changed.

    Raises:
        ValueError: repo is not owner/name.
    """
    if repo and not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ValueError(
            f"the repository came as {repo!r}; expected owner/name, the end of its address"
            f" {HOST}owner/name."
        )
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    held = re.search(rf"^repository-code: {HOST}(\S+)$", citation, re.MULTILINE)
    repo = repo or (held[1] if held else "")
    address = repo and HOST + repo

    def badge(notebook: str) -> str:
        link = f"{COLAB}github/{repo}/blob/{branch}/notebooks/{notebook}"
        return repo and f"[![Open in Colab]({COLAB}assets/colab-badge.svg)]({link})"

    def notebook(path: Path) -> str:
        content = json.loads(path.read_text(encoding="utf-8"))
        opening, setup = content["cells"][:2]
        text = with_badge("".join(opening["source"]), badge(path.name))
        opening["source"] = text.splitlines(keepends=True)
        setup["source"] = SETUP.replace("{address}", address).splitlines(keepends=True)
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def readme(path: Path) -> str:
        text = path.read_text(encoding="utf-8")
        clone = f"git clone --depth 1 {address}".rstrip()
        text = re.sub(r"git clone --depth 1( https://[^\s`]+)?", clone, text)
        return with_badge(text, badge("00_quickstart.ipynb"))

    def cited(path: Path) -> str:
        kept = re.sub(r"^repository-code: .*\n", "", citation, flags=re.MULTILINE)
        return kept + (f"repository-code: {address}\n" if repo else "")

    writers: dict[Path, Callable[[Path], str]] = {
        root / "CITATION.cff": cited,
        root / "README.md": readme,
        **dict.fromkeys(sorted((root / "notebooks").glob("*.ipynb")), notebook),
    }
    changed = []
    for path, written in writers.items():
        before, after = path.read_text(encoding="utf-8"), written(path)
        if after != before:
            path.write_text(after, encoding="utf-8", newline="\n")
            changed.append(path)
    return changed


def with_badge(text: str, badge: str) -> str:
    """Markdown with the badge below its title, in place of an earlier one; none if it is empty."""
    text = re.sub(r"\n*^\[!\[Open in Colab\].*$", "", text, flags=re.MULTILINE)
    title, _, rest = text.partition("\n")
    return f"{title}\n\n{badge}\n{rest}" if badge else text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("repo", nargs="?", default="", help="owner/name on GitHub")
    parser.add_argument("--branch", default="main", help="that Colab opens notebooks from")
    given = parser.parse_args()
    try:
        changed = stamp(ROOT, given.repo, given.branch)
    except ValueError as error:
        parser.error(str(error))
    for path in changed:
        print(f"stamped  {path.relative_to(ROOT)}")
    print(f"{len(changed)} files changed")


if __name__ == "__main__":
    main()
