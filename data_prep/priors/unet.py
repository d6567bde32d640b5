"""The denoiser: text-conditioned UNet2DConditionModel on the autoencoder's latents.

    python -m data_prep.priors.trainer unet --minutes 45

Velocity prediction (Salimans & Ho 2022) with zero terminal SNR and "trailing" timesteps (Lin et al.
2024), so that t = T is pure noise: then all that the features know at t = T comes from (x, c). Ten
percent empty prompts make classifier-free guidance possible. Prompts are padded to the tokenizer's
full length without attention mask, as Stable Diffusion does. Sizes and schedule are our choice (not
specified in the paper's available sources).
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from tyro.conf import Suppress

from data_prep.priors.latents import (
    FrozenPriors,
    LatentSet,
    encode_captions,
    latent_set,
    validation_loss,
    velocity_errors,
)
from data_prep.priors.recipe import Recipe, Settings, Ship
from data_prep.priors.sampling import picture_grid, predicted_velocity, sample_images
from dmgi_lib.devices import taken
from dmgi_lib.training.loop import LoopResult
from dmgi_lib.training.run_files import Logged
from dmgi_lib.whole_folder import write_folder

PROMPTS = (
    "a smiling young woman with blond hair",
    "an old man with gray hair and a beard",
    "a man with black hair wearing eyeglasses",
    "a young woman with long red hair",
)


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


S = TypeVar("S", bound=DenoiserSettings)


class Denoiser(Recipe[S]):
    """What the U-Net and its ControlNets share; each predicts by its own networks."""

    scheduler: DDIMScheduler
    data: LatentSet

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.priors = FrozenPriors.load(self.folders.weights, self.device)

    def start(self, model: Any) -> Any:
        """Places the network that is trained, and encodes what it is trained on."""
        model = self.train_with(model, self.settings.start)
        self.data = latent_set(self.priors, self.train_set)
        return model

    @abstractmethod
    def predict(self, noisy: Tensor, t: Tensor, text: Tensor, rows: Tensor) -> Tensor:
        """Velocity (B, C, h, w) float32, in bf16 where that is fast."""

    @functools.cached_property
    def held_out(self) -> LatentSet:
        return latent_set(self.priors, self.test_set)

    def step(self, step: int, rng: torch.Generator) -> Logged:
        rows, dropout = self.rows(len(self.data.latents), step), self.settings.text_dropout
        arguments = (self.predict, self.scheduler, self.data, rows, rng, dropout)
        per_sample, t = velocity_errors(*arguments)
        loss = per_sample.mean()
        norm = self.update(loss, clip=1.0)
        noisiest = (t >= 0.75 * self.scheduler.config.num_train_timesteps).nonzero()[:, 0]
        values = {"loss": loss.detach(), "gradient": norm}
        if len(noisiest):
            values["loss_noisiest"] = taken(per_sample.detach(), noisiest, self.device).mean()
        return values


@dataclass(frozen=True)
class UNetSettings(DenoiserSettings):
    """Architecture and training.

    Args:
        architecture: arguments of UNet2DConditionModel; attention_head_dim is, by diffusers'
            naming, the number of heads per block
    """

    minutes: float = 45.0
    warmup_steps: int = 200
    architecture: Suppress[dict[str, Any]] = field(
        default_factory=lambda: {
            "sample_size": 16,
            "block_out_channels": (96, 128, 160),
            "attention_head_dim": (3, 4, 5),
            "layers_per_block": 1,
            "norm_num_groups": 16,
        }
    )


class UNet(Denoiser[UNetSettings]):
    """The text-conditioned denoiser of latents, and its noise schedule."""

    name = "unet"
    averaged = ("unet",)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        vae, text_encoder = self.priors.vae, self.priors.text_encoder
        with self.seeded():
            unet = build_unet(
                self.settings, vae.config.latent_channels, text_encoder.config.hidden_size
            )
        self.unet, self.scheduler = self.start(unet), build_scheduler()
        self.prompts = encode_captions(self.priors, list(PROMPTS)).float()

    def predict(
        self, noisy: Tensor, t: Tensor, text: Tensor, rows: Tensor, unet: Any = None
    ) -> Tensor:
        with self.autocast():
            return predicted_velocity(unet or self.unet, self.place(noisy), t, text)

    def sample(self, step: int, averaged: dict[str, Any]) -> np.ndarray:
        images = sample_images(
            averaged["unet"],
            self.scheduler,
            self.priors.vae,
            self.prompts.repeat_interleave(4, 0),
            self.data.empty,
            generator=torch.Generator().manual_seed(0),
        )
        return picture_grid(images.split(4))

    def export(self, result: LoopResult, ship: Ship) -> None:
        shipped = result.ema["unet"].half().float()  # what is shipped is what is measured
        predict = functools.partial(self.predict, unet=shipped)
        out = self.folders.out or self.folders.weights / "unet"
        ship(
            out,
            shipped,
            "Denoising U-Net of the mini world",
            "`UNet2DConditionModel` on 16 x 16 x 16 latents, velocity prediction, zero terminal"
            " SNR; the schedule stands in `scheduler/`. Text states are padded to the tokenizer's"
            " full length without attention mask.",
            {
                "velocity error, test": validation_loss(predict, self.scheduler, self.held_out),
                "velocity error without text, test": validation_loss(
                    predict, self.scheduler, self.held_out, text_dropout=1.0
                ),
                "velocity error, train": validation_loss(predict, self.scheduler, self.data),
                "parameters (million)": sum(p.numel() for p in shipped.parameters()) / 1e6,
            },
        )
        write_folder(out.parent / "scheduler", self.scheduler.save_pretrained)


def build_scheduler() -> DDIMScheduler:
    """The noise schedule: Stable Diffusion's, rescaled to zero terminal SNR."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )


def build_unet(
    settings: UNetSettings, latent_channels: int, text_width: int
) -> UNet2DConditionModel:
    """Untrained U-Net, drawn from the global generator; attention at 16 x 16 and 8 x 8."""
    return UNet2DConditionModel(
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=text_width,
        **settings.architecture,
    )
