"""Codes of training pictures by a prior's image encoder, from which M may start.

    python -m data_prep.priors.codes
    python -m dmgi_lib.training.stages --stage 1 --codes ~/.cache/dmgi/codes.safetensors …

A step towards a known code costs milliseconds, one that draws a head a second. Our choice (not
specified in the paper's available sources).
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
import tyro
from safetensors.torch import save_file
from tqdm.auto import tqdm

from data_prep.priors.latent_prior import ImageEncoder
from dmgi_lib.dataset import FaceDataset, to_float
from dmgi_lib.devices import pick_device
from dmgi_lib.files import write_whole
from dmgi_lib.presets import MINI_3D


@torch.no_grad()
def codes_of(encoder: ImageEncoder, dataset: FaceDataset, batch: int = 64) -> torch.Tensor:
    """W+ codes of all pictures of a dataset, (N, num_ws, w_dim) float32."""
    found = []
    for rows in tqdm(torch.arange(len(dataset)).split(batch), desc="codes", disable=None):
        ws, offsets = encoder(to_float(dataset.images[rows]).to(encoder.device))
        found.append((ws + offsets).float().cpu())
    return torch.cat(found)


def main(
    encoder: Path = MINI_3D.folder / "encoder",
    data: Path | None = None,
    out: Path = Path("~/.cache/dmgi/codes.safetensors"),
    device: str = "auto",
) -> None:
    """Writes the codes of all training pictures.

    Args:
        encoder: weight folder, as the trainer of G left it beside G
        data: face dataset; None: the full one if it is built, else what ships
        out: file to write
        device: auto, cpu, cuda or mps
    """
    network = ImageEncoder.from_pretrained(encoder.expanduser()).eval().to(pick_device(device))
    codes = codes_of(network, FaceDataset(data, "train"))
    write_whole(out.expanduser(), functools.partial(save_file, {"codes": codes}))
    print(f"{out}: {tuple(codes.shape)}")


if __name__ == "__main__":
    tyro.cli(main)
