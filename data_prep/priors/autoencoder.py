"""The autoencoder: image (128 px) <-> latent (16 x 16 x 16), an AutoencoderKL on 2 x 2 patches.

    python -m data_prep.priors.trainer autoencoder --minutes 100

Rombach et al. 2022 (latent diffusion), first stage. The loss is an L1 over a Laplacian pyramid,
heavier on eyes, brows and mouth, which cover few pixels but make a face, plus a small KL term. A
latent of half the size shall decode to the picture of half the size (Kouzelis et al. 2025): such
latents are easier to denoise. Once denoisers know the latents, the decoder alone can be trained on:
with noise in the latents, which denoisers leave in theirs, and against a critic, for what latents
cannot hold, single hairs, comes out as its mean without one:

    python -m data_prep.priors.trainer autoencoder --start WEIGHTS/vae --decoder-only \\
        --latent-noise 0.1 --perceptual WEIGHTS/loss_net --adversarial-weight 0.05 --out WEIGHTS/vae

Architecture and weights are our choice (not specified in the paper's available sources).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor
from tyro.conf import Suppress

from data_prep.priors.recipe import (
    FEATURES,
    Recipe,
    Settings,
    Ship,
    frozen,
    picture_grid,
    region,
)
from dmgi_lib.dataset import FaceDataset, to_float, to_uint8
from dmgi_lib.devices import normal
from dmgi_lib.patch_autoencoder import PatchAutoencoderKL
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.training.critics import teach
from dmgi_lib.training.loop import LoopResult
from dmgi_lib.training.losses import PerceptualLoss
from dmgi_lib.training.parsing_discriminator import ParsingDiscriminator
from dmgi_lib.training.run_files import Logged

NOISE = 0.2  # in latents, with which reconstructions are measured a second time


@dataclass(frozen=True)
class AutoencoderSettings(Settings):
    """Architecture and loss."""

    minutes: float = 100.0
    batch_size: int = 16
    ema_half_life_steps: float = 300.0
    warmup_steps: int = 200
    cooldown: float = 0.5
    # arguments of PatchAutoencoderKL
    architecture: Suppress[dict[str, Any]] = field(
        default_factory=lambda: {
            "in_channels": 12,
            "out_channels": 12,
            "block_out_channels": (48, 96, 128),
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "mid_block_add_attention": False,
            "latent_channels": 16,
            "sample_size": 128,
        }
    )
    perceptual: Path | None = None  # folder of the loss network, for a perceptual term
    # weight folder of the same architecture to start from; default: random weights
    start: Path | None = None
    # weight of pixels in and next to eyes, brows and mouth; others have 1
    feature_weight: float = 3.0
    # of each level of the Laplacian pyramid, finest first
    level_weights: Suppress[tuple[float, ...]] = (1.0, 1.0, 1.0, 1.0)
    kl_weight: float = 1e-4  # of the KL divergence, averaged over latent elements
    # of the loss network's feature distance, if --perceptual is given
    perceptual_weight: float = 0.1
    adversarial_weight: float = 0.0  # of a critic that begins as it, if it is given
    # of the pyramid loss of pictures decoded from latents of half the size
    half_size_weight: float = 0.25
    decoder_only: bool = False  # the encoder, and so the latents, stay as they are
    latent_noise: float = 0.0  # deviation of what is added to latents before they are decoded


class Autoencoder(Recipe[AutoencoderSettings]):
    """Images to the latents of the diffusion model and back."""

    name = "autoencoder"
    averaged = ("vae",)

    def build(self) -> None:
        with self.seeded():
            model = build_autoencoder(self.settings)
        self.vae = self.train_with(model, self.settings.start)
        if self.settings.decoder_only:
            for part in (self.vae.encoder, self.vae.quant_conv):
                part.requires_grad_(False)
        self.loss_net: Recognizer | None = None
        if self.settings.perceptual is not None:
            self.loss_net = frozen(Recognizer, self.settings.perceptual, "loss_net", self.device)
        self.critic: ParsingDiscriminator | None = None
        if self.settings.adversarial_weight > 0:
            self.critic = self.train_against(self.loss_net)

    def train_against(self, loss_net: Recognizer | None) -> ParsingDiscriminator:
        """A critic and its optimizer, beside the autoencoder's.

        Raises:
            ValueError: there is no loss network that it could begin as
        """
        if loss_net is None:
            raise ValueError(
                f"--adversarial-weight came as {self.settings.adversarial_weight:g} without"
                " --perceptual, the loss network as which the critic begins. Give its folder."
            )
        critic = ParsingDiscriminator(loss_net.config.channels)
        critic.begin_as(loss_net)
        critic.requires_grad_(False).to(self.device)
        optimizer = torch.optim.Adam(critic.parameters(), critic.learning_rate, (0.0, 0.99))
        self.modules = {**self.modules, "critic": critic}
        self.optimizers = {**self.optimizers, "critic": optimizer}
        return critic

    def step(self, step: int, rng: torch.Generator) -> Logged:
        settings, rows = self.settings, self.rows(len(self.train_set), step)
        image, mask = self.pictures_of(rows, rng)
        image = self.place(image)
        weight = 1.0 + (settings.feature_weight - 1.0) * region(mask, FEATURES)
        with self.autocast():
            posterior = self.vae.encode(image).latent_dist
            mean, std = posterior.mean.float(), posterior.std.float()
            spread = (std.square() + settings.latent_noise**2).sqrt()
            latent = mean + spread * normal(mean.shape, rng, mean.device)
            output = self.vae.decode(latent).sample
            half_size = self.vae.decode(F.avg_pool2d(latent[::2], 2)).sample
            perceptual = image.new_zeros([])
            if self.loss_net is not None:
                scales = len(self.loss_net.config.channels)  # their sum, not their mean
                perceptual = scales * PerceptualLoss(self.loss_net)(output, image).mean()
        output = output.float()
        reconstruction = pyramid_l1(output - image, weight, settings.level_weights)
        kl = 0.5 * (mean.square() + std.square() - 1.0 - 2.0 * std.log()).mean()
        loss = reconstruction + settings.kl_weight * kl
        loss = loss + settings.perceptual_weight * perceptual.float()
        half_image, half_weight = (F.avg_pool2d(x[::2], 2) for x in (image, weight))
        difference = half_size.float() - half_image
        levels = settings.level_weights[1:]
        loss = loss + settings.half_size_weight * pyramid_l1(difference, half_weight, levels)
        values = {"pyramid": reconstruction, "kl": kl, "std": std.mean()}
        if self.critic is not None:
            examples = image, output.detach(), mask
            taught = (examples, step, self.accelerator, self.autocast())
            learnt = teach(self.critic, self.optimizers["critic"], *taught)
            with self.autocast():
                fooled = self.critic.passing(output, mask).mean()
            loss = loss + settings.adversarial_weight * fooled
            values |= {"adversarial": fooled, "critic": learnt["loss"]}
        self.update(loss, clip=1.0, optimizer=self.optimizers["vae"])
        values |= {"loss": loss}
        values |= {"l1": (output - image).abs().mean()}
        values |= {"perceptual": perceptual} if self.loss_net else {}
        return {name: value.detach() for name, value in values.items()}

    def sample(self, step: int, averaged: dict[str, Any]) -> np.ndarray:
        shown = self.test_set.images[:8]
        return picture_grid([shown, reconstruct(averaged["vae"], shown)])

    def export(self, result: LoopResult, ship: Ship) -> None:
        vae = result.ema["vae"]
        if not self.settings.decoder_only:
            standardise_latents(vae, self.train_set.images[self.train_set.first_views()[:1000]])
        vae = vae.half().float()  # what is shipped is what is measured
        ship(
            self.home("vae"),
            vae,
            "Autoencoder of the mini world",
            "`PatchAutoencoderKL`: images (B, 3, 128, 128) in [-1, 1] to latents (B, 16, 16, 16)"
            " and back. Each latent channel has mean 0 and deviation 1 over the training images.",
            measure(vae, self.test_set) | {"scaling factor": vae.config.scaling_factor},
        )


def build_autoencoder(settings: AutoencoderSettings) -> PatchAutoencoderKL:
    """Untrained autoencoder, drawn from the global generator."""
    blocks = len(settings.architecture["block_out_channels"])
    return PatchAutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        **settings.architecture,
    )


def pyramid_l1(difference: Tensor, weight: Tensor, level_weights: tuple[float, ...]) -> Tensor:
    """Weighted L1 over the Laplacian pyramid of a difference (the pyramid is linear).

    Args:
        difference:    (B, C, H, W) reconstruction minus image
        weight:        (B, 1, H, W), mean about 1
        level_weights: finest level first; the last one is of the coarse rest
    """
    total = torch.zeros(())
    for level_weight in level_weights[:-1]:
        coarse = F.avg_pool2d(difference, 2)
        band = difference - F.interpolate(coarse, scale_factor=2, mode="bilinear")
        total = total + level_weight * (band.abs() * weight).mean()
        difference, weight = coarse, F.avg_pool2d(weight, 2)
    return total + level_weights[-1] * (difference.abs() * weight).mean()


@torch.no_grad()
def reconstruct(model: AutoencoderKL, images: Tensor, noise: float = 0.0) -> Tensor:
    """uint8 (N, 3, H, W) -> the same through the autoencoder, posterior means, on the CPU.

    noise: deviation of what is added to the latents
    """
    parts, rng = [], torch.Generator().manual_seed(0)
    for part in images.split(32):
        latents = model.encode(to_float(part.to(model.device))).latent_dist.mean
        if noise:
            latents = latents + noise * torch.randn(latents.shape, generator=rng).to(latents)
        parts.append(to_uint8(model.decode(latents).sample).cpu())
    return torch.cat(parts)


@torch.no_grad()
def standardise_latents(model: AutoencoderKL, images: Tensor) -> None:
    """Folds the latents' per-channel mean and deviation into the 1x1 convolutions.

    Afterwards every latent channel has mean 0 and deviation 1 over `images`, reconstructions are
    unchanged, and config.scaling_factor is the inverse deviation that remains (about 1). Denoisers
    trained on unit normal noise want exactly that; one factor for all channels would leave their
    means in place. `images`: uint8 (N, 3, H, W).
    """

    def means() -> Tensor:
        parts = [to_float(x.to(model.device)) for x in images.split(32)]
        parts = [model.encode(x).latent_dist.mean.float() for x in parts]
        return torch.cat(parts).transpose(0, 1).flatten(1)  # (channels, N * h * w)

    latents = means()
    mean, std = latents.mean(1), latents.std(1).clamp(min=1e-6)
    n = len(mean)
    into, out = model.quant_conv, model.post_quant_conv
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= std[None, :, None, None]
    into.bias[:n] = (into.bias[:n] - mean) / std
    into.weight[:n] /= std[:, None, None, None]
    into.bias[n:] -= 2.0 * std.log()
    model.register_to_config(scaling_factor=float(1.0 / means().std()))


def measure(model: AutoencoderKL, dataset: FaceDataset) -> dict[str, float]:
    """Reconstruction quality on one split, values in 0..1."""
    error = (reconstruct(model, dataset.images).float() - dataset.images.float()) / 255.0
    eyes = region(dataset.masks, ("l_eye", "r_eye")).expand_as(error) > 0
    per_image = error.square().mean((1, 2, 3)).clamp(min=1e-12)
    found = {
        f"L1, {dataset.split}": error.abs().mean().item(),
        f"PSNR, {dataset.split} (dB)": -10.0 * per_image.log10().mean().item(),
    }
    noisy = reconstruct(model, dataset.images, NOISE).float() - dataset.images.float()
    noisy_error = (noisy / 255.0).square().mean((1, 2, 3)).clamp(min=1e-12)
    found[f"PSNR, {dataset.split}, latents with noise of deviation {NOISE} (dB)"] = (
        -10.0 * noisy_error.log10().mean().item()
    )
    if eyes.any():
        mse = error[eyes].square().mean().item()
        found[f"PSNR at the eyes, {dataset.split} (dB)"] = -10.0 * math.log10(max(mse, 1e-12))
    return found
