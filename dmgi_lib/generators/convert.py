"""Converts an official .pkl checkpoint into a `save_pretrained` folder of safetensors, once.

    python -m dmgi_lib.generators.convert ffhq.pkl ffhq

Nothing in the .pkl is executed. The weights keep their publisher's licence.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from dmgi_lib.generators.checkpoints import load_generator


def convert(source: Path, folder: Path) -> None:
    """Writes config.json and fp32 weights of the generator at `source`, whole or not at all.

    Args:
        source: what `load_generator` reads, usually an official .pkl
        folder: a new or empty folder

    Raises:
        FileExistsError: the folder holds something already, or is a file
        FileNotFoundError, ValueError: as `load_generator`
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"{folder} exists already and is no empty folder; name a new one, or remove it first."
        )
    generator = load_generator(source)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        new = Path(temporary) / "new"
        generator.save_pretrained(new)
        if folder.exists():
            folder.rmdir()  # empty, checked above; Windows does not replace folders
        os.replace(new, folder)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m dmgi_lib.generators.convert",
        description="Converts an official StyleGAN2 or EG3D .pkl into a folder of safetensors.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="official .pkl (it is read, never executed)")
    parser.add_argument("folder", type=Path, help="new folder for config.json and weights")
    args = parser.parse_args(arguments)
    try:
        convert(args.source.expanduser(), args.folder.expanduser())
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{args.folder} written; load it with load_generator({str(args.folder)!r}).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
