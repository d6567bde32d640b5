"""The denoiser: text-conditioned UNet2DConditionModel on the autoencoder's latents.

    python -m data_prep.priors.trainer unet --minutes 45

Velocity prediction (Salimans & Ho 2022) with zero terminal SNR and "trailing" timesteps (Lin et al.
2024), so that t = T is pure noise: then all that the features know at t = T comes from (x, c). Ten
percent empty prompts make classifier-free guidance possible. Prompts are padded to the tokenizer's
full length without attention mask, as Stable Diffusion does. Sizes and schedule are our choice (not
specified in the paper's available sources).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from tyro.conf import Suppress

from data_prep.priors.denoiser import Denoiser, DenoiserSettings
from data_prep.priors.recipe import Ship, picture_grid
from dmgi_lib.training.loop import LoopResult
from dmgi_lib.whole_folder import write_folder

PROMPTS = (
    "a smiling young woman with blond hair",
    "an old man with gray hair and a beard",
    "a man with black hair wearing eyeglasses",
    "a young woman with long red hair",
)


@dataclass(frozen=True)
class UNetSettings(DenoiserSettings):
    """Architecture and training."""

    minutes: float = 45.0
    warmup_steps: int = 200
    # arguments of UNet2DConditionModel; attention_head_dim is, by diffusers' naming, the number of
    # heads per block
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

    def build(self) -> None:
        super().build()
        channels, width = self.vae.config.latent_channels, self.text_encoder.config.hidden_size
        with self.seeded():
            network = UNet2DConditionModel(  # attention at 16 x 16 and 8 x 8
                in_channels=channels,
                out_channels=channels,
                down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
                cross_attention_dim=width,
                **self.settings.architecture,
            )
        self.scheduler = build_scheduler()
        self.start(network)
        self.prompts = self.text_states(PROMPTS).float()

    def predict(
        self, network: Any, noisy: Tensor, t: Tensor, text: Tensor, condition: Any
    ) -> Tensor:
        with self.autocast():
            return network(self.place(noisy), t, text).sample.float()

    def sample(self, step: int, averaged: dict[str, Any]) -> np.ndarray:
        images = self.drawn(averaged["unet"], self.prompts.repeat_interleave(4, 0))
        return picture_grid(images.split(4))

    def export(self, result: LoopResult, ship: Ship) -> None:
        shipped = result.ema["unet"].half().float()  # what is shipped is what is measured
        out = self.home("unet")
        ship(
            out,
            shipped,
            "Denoising U-Net of the mini world",
            "`UNet2DConditionModel` on 16 x 16 x 16 latents, velocity prediction, zero terminal"
            " SNR; the schedule stands in `scheduler/`. Text states are padded to the tokenizer's"
            " full length without attention mask.",
            {
                "velocity error, test": self.validation_loss(shipped, self.held_out),
                "velocity error without text, test": self.validation_loss(
                    shipped, self.held_out, text_dropout=1.0
                ),
                "velocity error, train": self.validation_loss(shipped, self.data),
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
