"""Starting a training from weights that exist already, instead of random ones."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

FILE = "diffusion_pytorch_model.safetensors"


def add_start(cli: argparse.ArgumentParser) -> None:
    """Adds --start."""
    cli.add_argument(
        "--start",
        type=Path,
        help="weight folder of the same architecture to start from (fine-tuning), for instance an "
        "earlier version's; default: random weights",
    )


def start_from(model: torch.nn.Module, folder: Path | None) -> None:
    """Copies the weights of `folder` into `model`; None leaves it as it is.

    Raises:
        FileNotFoundError: the folder has no weight file
        ValueError:        the file cannot be read, or is of another architecture
    """
    if folder is None:
        return
    file = Path(folder) / FILE
    if not file.is_file():
        raise FileNotFoundError(f"no {file}: --start takes a weight folder that holds {FILE}.")
    try:
        model.load_state_dict({name: value.float() for name, value in load_file(file).items()})
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{file} does not fit a {type(model).__name__} of this recipe: {error}. Give weights "
            "of the same architecture, or leave --start away."
        ) from error
