"""What the denoisers train on: latents of images and text states of captions, computed once.

Autoencoder and text encoder are frozen, so their outputs are kept in memory. Every image is also
encoded mirrored (no caption names left or right).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from dmgi_lib.dataset import FaceDataset, to_float
from dmgi_lib.devices import autocast
from dmgi_lib.prompts import encode_empty


@dataclass(frozen=True)
class FrozenPriors:
    """The priors that the denoisers build on."""

    tokenizer: PreTrainedTokenizerFast
    text_encoder: CLIPTextModel
    vae: AutoencoderKL

    @classmethod
    def load(cls, folder: Path) -> FrozenPriors:
        """Reads tokenizer/, text_encoder/ and vae/ of a weight folder, in float32.

        Raises:
            FileNotFoundError: one of them is missing; says which script makes it.
        """
        makers = {"tokenizer": "text_image", "text_encoder": "text_image", "vae": "autoencoder"}
        for name, script in makers.items():
            if not (folder / name).is_dir():
                raise FileNotFoundError(
                    f"no {folder / name}; make it with `python -m data_prep.priors.train_{script}`,"
                    " or name another folder with --weights."
                )
        text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
        vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
        return cls(
            PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
            text_encoder.eval().requires_grad_(False),
            vae.eval().requires_grad_(False),
        )


@dataclass(frozen=True)
class LatentSet:
    """One split of the dataset as the denoisers see it.

    Args:
        latents: (2 N, 4, h, w) float32, scaled; rows N.. are the mirrored images
        states:  (number of captions, L, D) float16, text states padded to L without attention mask
        offsets: (N + 1,) int64; captions of image i are states[offsets[i]:offsets[i + 1]]
        empty:   (1, L, D) float32, state of the empty prompt
    """

    latents: Tensor
    states: Tensor
    offsets: Tensor
    empty: Tensor

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def captions(self, rows: Tensor, rng: torch.Generator, dropout: float) -> Tensor:
        """Text states of one random caption per row of `latents`, or of the empty prompt.

        Args:
            rows:    (B,) int64 in [0, 2 N)
            dropout: share of empty prompts, for classifier-free guidance

        Returns:
            (B, L, D) float32
        """
        images = rows % len(self)
        first, count = self.offsets[images], self.offsets[images + 1] - self.offsets[images]
        chosen = first + (torch.rand(len(rows), generator=rng) * count).long()
        empty = torch.rand(len(rows), generator=rng) < dropout
        return torch.where(empty[:, None, None], self.empty, self.states[chosen].float())


@torch.no_grad()
def encode_images(vae: AutoencoderKL, images: Tensor, batch: int = 32) -> Tensor:
    """uint8 (N, 3, H, W) -> scaled latents (N, 4, h, w), the posterior means."""
    with autocast("cpu"):
        parts = [vae.encode(to_float(x)).latent_dist.mean.float() for x in images.split(batch)]
    return torch.cat(parts) * vae.config.scaling_factor


@torch.no_grad()
def encode_captions(priors: FrozenPriors, captions: list[str], batch: int = 256) -> Tensor:
    """Captions -> text states (N, L, D) float16, as `dmgi_lib.prompts` pads and encodes prompts."""
    tokenizer, parts = priors.tokenizer, []
    for start in range(0, len(captions), batch):
        ids = tokenizer(
            captions[start : start + batch],
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )["input_ids"]
        parts.append(priors.text_encoder(ids).last_hidden_state.half())
    return torch.cat(parts)


def latent_set(priors: FrozenPriors, dataset: FaceDataset) -> LatentSet:
    """Encodes a split: about two minutes per 3,000 images on 2 cores."""
    latents = [encode_images(priors.vae, x) for x in (dataset.images, dataset.images.flip(-1))]
    counts = torch.tensor([0, *(len(c) for c in dataset.captions)])
    return LatentSet(
        latents=torch.cat(latents),
        states=encode_captions(priors, [c for several in dataset.captions for c in several]),
        offsets=counts.cumsum(0),
        empty=encode_empty(priors.tokenizer, priors.text_encoder),
    )


def stratified_timesteps(batch: int, steps: int, rng: torch.Generator) -> Tensor:
    """(B,) int64 in [0, steps), one from each of B equal parts, for less noisy losses."""
    places = (torch.arange(batch) + torch.rand(batch, generator=rng)) / batch
    return (places * steps).long().clamp(max=steps - 1)[torch.randperm(batch, generator=rng)]


@torch.no_grad()
def noised(
    scheduler: DDIMScheduler, latents: Tensor, t: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Noisy latents at timesteps t, and the velocity that the network shall predict there."""
    noise = torch.randn(latents.shape, generator=rng)
    return scheduler.add_noise(latents, noise, t), scheduler.get_velocity(latents, noise, t)
