"""What the denoisers train on, and their error: latents of images, text states of captions, noise.

Autoencoder and text encoder are frozen, so their outputs are computed once and kept on the device.
Every image is also encoded mirrored (no caption names left or right).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from data_prep.priors.caption_tokens import drawn_captions, flat_captions, token_ids
from data_prep.priors.recipe import frozen
from dmgi_lib.dataset import FaceDataset, to_float
from dmgi_lib.devices import autocast, moved, normal, taken
from dmgi_lib.patch_autoencoder import PatchAutoencoderKL
from dmgi_lib.prompts import encode_empty, encode_text


@dataclass(frozen=True)
class FrozenPriors:
    """The priors that the denoisers build on."""

    tokenizer: PreTrainedTokenizerFast
    text_encoder: CLIPTextModel
    vae: PatchAutoencoderKL

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> FrozenPriors:
        """Reads tokenizer/, text_encoder/ and vae/ of a weight folder, in float32.

        Raises:
            FileNotFoundError: one of them is missing; says which command makes it.
        """
        text_encoder = frozen(CLIPTextModel, folder / "text_encoder", "text_image", device)
        vae = frozen(PatchAutoencoderKL, folder / "vae", "autoencoder", device)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
        return cls(tokenizer, text_encoder, vae)


@dataclass(frozen=True)
class LatentSet:
    """One split of the dataset as the denoisers see it, on the device but for the offsets.

    Args:
        latents: (2 N, C, h, w) float32, scaled; rows N.. are the mirrored images
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
        device = self.states.device
        chosen = drawn_captions(self.offsets, rows % len(self), rng)
        empty = torch.rand(len(rows), generator=rng) < dropout
        empty = moved(empty[:, None, None], device)
        return torch.where(empty, self.empty, taken(self.states, chosen, device).float())


@torch.no_grad()
def encode_images(vae: PatchAutoencoderKL, images: Tensor, batch: int = 32) -> Tensor:
    """uint8 (N, 3, H, W) -> scaled latents (N, C, h, w), the posterior means."""
    parts = []
    with autocast(vae.device):
        for part in images.split(batch):
            latents = vae.encode(to_float(part.to(vae.device))).latent_dist.mean
            parts.append(latents.float())
    return torch.cat(parts) * vae.config.scaling_factor


@torch.no_grad()
def encode_captions(priors: FrozenPriors, captions: list[str], batch: int = 256) -> Tensor:
    """Captions -> text states (N, L, D) float16, as `dmgi_lib.prompts` pads and encodes prompts."""
    parts = []
    for start in range(0, len(captions), batch):
        ids = token_ids(priors.tokenizer, captions[start : start + batch])
        parts.append(encode_text(priors.text_encoder, ids).half())
    return torch.cat(parts)


def latent_set(priors: FrozenPriors, dataset: FaceDataset) -> LatentSet:
    """Encodes a split: about two minutes per 3,000 images on 2 cores."""
    latents = [encode_images(priors.vae, x) for x in (dataset.images, dataset.images.flip(-1))]
    captions, offsets = flat_captions(dataset.captions)
    return LatentSet(
        latents=torch.cat(latents),
        states=encode_captions(priors, captions),
        offsets=offsets,
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
    noise = normal(latents.shape, rng, latents.device).to(latents)
    return scheduler.add_noise(latents, noise, t), scheduler.get_velocity(latents, noise, t)


# (noisy latents, timesteps, text states, rows) -> velocity (B, C, h, w) float32
Predict = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def velocity_errors(
    predict: Predict,
    scheduler: DDIMScheduler,
    data: LatentSet,
    rows: Tensor,
    rng: torch.Generator,
    text_dropout: float,
) -> tuple[Tensor, Tensor]:
    """Squared velocity errors (B,) of some rows; the timesteps drawn for them (B,), on the CPU."""
    drawn = stratified_timesteps(len(rows), scheduler.config.num_train_timesteps, rng)
    device = data.latents.device
    t, latents = moved(drawn, device), taken(data.latents, rows, device)
    noisy, velocity = noised(scheduler, latents, t, rng)
    text = data.captions(rows, rng, text_dropout)
    return (predict(noisy, t, text, rows) - velocity).square().mean((1, 2, 3)), drawn


@torch.no_grad()
def validation_loss(
    predict: Predict, scheduler: DDIMScheduler, data: LatentSet, text_dropout: float = 0.0
) -> float:
    """Mean squared velocity error over a split (not mirrored), fixed noise and timesteps."""
    rng, total = torch.Generator().manual_seed(0), 0.0
    for rows in torch.arange(len(data)).split(32):
        total += velocity_errors(predict, scheduler, data, rows, rng, text_dropout)[0].sum().item()
    return total / len(data)
