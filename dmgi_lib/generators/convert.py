"""Converts an official .pkl checkpoint into a `save_pretrained` folder of safetensors, once.

    python -m dmgi_lib.generators.convert ffhq.pkl ffhq

Nothing in the .pkl is executed. The weights keep their publisher's licence.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import tyro

from dmgi_lib.generators.checkpoints import load_generator
from dmgi_lib.whole_folder import write_folder


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
    write_folder(folder, load_generator(source).save_pretrained)


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit status."""
    try:
        tyro.cli(_command, args=arguments, description=__doc__)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _command(
    source: Annotated[Path, tyro.conf.Positional], folder: Annotated[Path, tyro.conf.Positional]
) -> None:
    """Args:
    source: official .pkl (it is read, never executed)
    folder: new folder for config.json and weights
    """
    convert(source.expanduser(), folder.expanduser())
    print(f"{folder} written; load it with load_generator({str(folder)!r}).")


if __name__ == "__main__":
    sys.exit(main())
