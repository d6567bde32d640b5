"""What the U-Net and its ControlNets share: latents and text states, the velocity's error, samples.

Autoencoder and text encoder are frozen, so their outputs are computed once and kept on the device.
Every image is also encoded mirrored (no caption names left or right).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import DDIMScheduler
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from data_prep.priors.caption_tokens import drawn_captions, flat_captions, token_ids
from data_prep.priors.recipe import Recipe, Settings, frozen
from dmgi_lib.dataset import FaceDataset, to_float, to_uint8
from dmgi_lib.devices import moved, normal, taken
from dmgi_lib.patch_autoencoder import PatchAutoencoderKL
from dmgi_lib.prompts import encode_empty, encode_text
from dmgi_lib.training.run_files import Logged

GUIDANCE = 2.5  # of sample pictures


@dataclass(frozen=True)
class DenoiserSettings(Settings):
    """Training of a network that predicts velocities.

    Args:
        start: weight folder of the same architecture to start from; default: random weights
        text_dropout: share of empty prompts
    """

    learning_rate: float = 4e-4
    start: Path | None = None
    text_dropout: float = 0.1


@dataclass(frozen=True)
class LatentSet:
    """One split of the dataset as the denoisers see it, on the device but for the offsets."""

    latents: Tensor  # (2 N, C, h, w) float32, scaled; rows N.. are the mirrored images
    # (number of captions, L, D) float16, text states padded to L without attention mask
    states: Tensor
    offsets: Tensor  # (N + 1,) int64; captions of image i are states[offsets[i]:offsets[i + 1]]
    empty: Tensor  # (1, L, D) float32, state of the empty prompt

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
        chosen = drawn_captions(self.offsets, rows % len(self), rng)
        empty = torch.rand(len(rows), generator=rng) < dropout
        states = taken(self.states, chosen, self.states.device).float()
        return torch.where(moved(empty[:, None, None], states.device), self.empty, states)


def stratified_timesteps(batch: int, steps: int, rng: torch.Generator) -> Tensor:
    """(B,) int64 in [0, steps), one from each of B equal parts, for less noisy losses."""
    places = (torch.arange(batch) + torch.rand(batch, generator=rng)) / batch
    return (places * steps).long().clamp(max=steps - 1)[torch.randperm(batch, generator=rng)]


S = TypeVar("S", bound=DenoiserSettings)
# rows (B,) and what draws -> what is read of them, (B, 3, H, W) in [0, 1]
Conditions = Callable[[Tensor, torch.Generator], Tensor | None]


def unconditional(rows: Tensor, rng: torch.Generator) -> None:
    """Nothing is read but text."""


class Denoiser(Recipe[S]):
    """Predicts velocities by its own networks, of which the one in `averaged` is trained."""

    scheduler: DDIMScheduler
    data: LatentSet
    conditions: Conditions

    def build(self) -> None:
        folder, device = self.folders.weights, self.device
        self.text_encoder = frozen(CLIPTextModel, folder / "text_encoder", "text_image", device)
        self.vae = frozen(PatchAutoencoderKL, folder / "vae", "autoencoder", device)
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")
        self.conditions = unconditional

    def start(self, network: Any) -> None:
        """Places the network that is trained, and encodes what it is trained on."""
        self.network = self.train_with(network, self.settings.start)
        self.data = self.encoded(self.train_set)

    @cached_property
    def held_out(self) -> LatentSet:
        return self.encoded(self.test_set)

    @torch.no_grad()
    def encoded(self, dataset: FaceDataset) -> LatentSet:
        """A split: about two minutes per 3,000 images on 2 cores."""
        latents = []
        with self.autocast():
            for images in (dataset.images, dataset.images.flip(-1)):
                for part in images.split(32):
                    posterior = self.vae.encode(to_float(part.to(self.device))).latent_dist
                    latents.append(posterior.mean.float())
        captions, offsets = flat_captions(dataset.captions)
        return LatentSet(
            torch.cat(latents) * self.vae.config.scaling_factor,
            self.text_states(captions),
            offsets,
            encode_empty(self.tokenizer, self.text_encoder),
        )

    def text_states(self, captions: Sequence[str]) -> Tensor:
        """(N, L, D) float16, as `dmgi_lib.prompts` pads and encodes prompts."""
        parts = token_ids(self.tokenizer, captions).split(256)
        return torch.cat([encode_text(self.text_encoder, ids).half() for ids in parts])

    @abstractmethod
    def predict(
        self, network: Any, noisy: Tensor, t: Tensor, text: Tensor, condition: Any
    ) -> Tensor:
        """Velocity (B, C, h, w) float32, in bf16 where that is fast.

        Args:
            network: the one that is trained, its average, or what ships of it
            noisy: (B, C, h, w) latents; t: () or (B,) timesteps
            text: (B, L, D) hidden states; condition: (B, 3, H, W) in [0, 1], or None
        """

    def errors(
        self,
        network: Any,
        data: LatentSet,
        rows: Tensor,
        rng: torch.Generator,
        text_dropout: float,
        conditions: Conditions,
    ) -> tuple[Tensor, Tensor]:
        """Squared velocity errors (B,) of some rows; their timesteps (B,), on the CPU."""
        drawn = stratified_timesteps(len(rows), self.scheduler.config.num_train_timesteps, rng)
        t, latents = moved(drawn, self.device), taken(data.latents, rows, self.device)
        noise = normal(latents.shape, rng, self.device)
        noisy = self.scheduler.add_noise(latents, noise, t)
        velocity = self.scheduler.get_velocity(latents, noise, t)
        text = data.captions(rows, rng, text_dropout)
        found = self.predict(network, noisy, t, text, conditions(rows, rng))
        return (found - velocity).square().mean((1, 2, 3)), drawn

    def step(self, step: int, rng: torch.Generator) -> Logged:
        rows, dropout = self.rows(len(self.data.latents), step), self.settings.text_dropout
        per_sample, t = self.errors(self.network, self.data, rows, rng, dropout, self.conditions)
        loss = per_sample.mean()
        norm = self.update(loss, clip=1.0)
        noisiest = (t >= 0.75 * self.scheduler.config.num_train_timesteps).nonzero()[:, 0]
        values = {"loss": loss.detach(), "gradient": norm}
        if len(noisiest):
            values["loss_noisiest"] = taken(per_sample.detach(), noisiest, self.device).mean()
        return values

    @torch.no_grad()
    def validation_loss(
        self,
        network: Any,
        data: LatentSet,
        conditions: Conditions = unconditional,
        text_dropout: float = 0.0,
    ) -> float:
        """Mean squared velocity error over a split (not mirrored), fixed noise and timesteps."""
        rng, total = torch.Generator().manual_seed(0), 0.0
        for rows in torch.arange(len(data)).split(32):
            errors, _ = self.errors(network, data, rows, rng, text_dropout, conditions)
            total += errors.sum().item()
        return total / len(data)

    @torch.no_grad()
    def drawn(self, network: Any, text: Tensor, condition: Tensor | None = None) -> Tensor:
        """One image a prompt by DDIM with classifier-free guidance, uint8 (B, 3, H, W).

        Only for the sample images of the trainings; `dmgi_lib.DMGIPipeline` is what users call.

        Args:
            text: (B, L, D) hidden states; condition: (B, 3, H, W) in [0, 1]
        """
        shape, rng = self.data.latents.shape[1:], torch.Generator().manual_seed(0)
        latents = torch.randn((len(text), *shape), generator=rng).to(text)
        states = torch.cat([self.data.empty.expand_as(text), text])
        seen = None if condition is None else condition.repeat(2, 1, 1, 1)
        scheduler = DDIMScheduler.from_config(self.scheduler.config)
        scheduler.set_timesteps(20)
        for t in scheduler.timesteps:
            both = self.predict(network, torch.cat([latents, latents]), t, states, seen)
            without, with_text = both.chunk(2)
            velocity = without + GUIDANCE * (with_text - without)
            latents = scheduler.step(velocity, t, latents).prev_sample
        with self.autocast():
            return to_uint8(self.vae.decode(latents / self.vae.config.scaling_factor).sample)
