"""Trains the autoencoder: image (128 px) <-> latent (4 x 16 x 16), diffusers' AutoencoderKL.

    python -m data_prep.priors.train_autoencoder --minutes 35

Rombach et al. 2022 (latent diffusion), first stage, without the adversarial loss. The loss is an L1
over a Laplacian pyramid, heavier on eyes, brows and mouth, which cover few pixels but make a face,
plus a small KL term. Architecture and weights are our choice (not specified in the paper's
available sources).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from data_prep.priors.card import command_line, save_whole, write_card
from data_prep.priors.command_line import loop_config, parser
from data_prep.priors.face_parts import EYES, FEATURES, region
from data_prep.priors.group_norm import use_fast_group_norm
from data_prep.priors.sampling import picture_grid
from data_prep.priors.start import add_start, start_from
from dmgi_lib.dataset import FaceDataset, to_float, to_uint8
from dmgi_lib.devices import autocast
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.training.loop import LoopConfig, LoopResult, batch_indices, run


@dataclass(frozen=True)
class AutoencoderRecipe:
    """Architecture and loss.

    Args:
        architecture:   arguments of AutoencoderKL. Few channels at 128 and 64 px, where time goes
        feature_weight: weight of pixels in and next to FEATURES; others have 1
        levels:         of the Laplacian pyramid, the coarse rest included
        level_weights:  of each level, finest first
        kl_weight:      of the KL divergence, averaged over latent elements
        perceptual_weight: of the loss network's feature distance, if a loss network is given
        learning_rate:  of AdamW
    """

    architecture: dict[str, Any] = field(
        default_factory=lambda: {
            "block_out_channels": (32, 32, 64, 128),
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "mid_block_add_attention": False,
            "latent_channels": 4,
            "sample_size": 128,
        }
    )
    feature_weight: float = 3.0
    level_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    kl_weight: float = 1e-4
    perceptual_weight: float = 0.1
    learning_rate: float = 1e-3


def build_autoencoder(recipe: AutoencoderRecipe) -> AutoencoderKL:
    """Untrained autoencoder, drawn from the global generator."""
    blocks = len(recipe.architecture["block_out_channels"])
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        **recipe.architecture,
    )
    return use_fast_group_norm(model).to(memory_format=torch.channels_last)


def pyramid_l1(difference: Tensor, weight: Tensor, level_weights: tuple[float, ...]) -> Tensor:
    """Weighted L1 over the Laplacian pyramid of a difference (the pyramid is linear).

    Args:
        difference:    (B, C, H, W) reconstruction minus image
        weight:        (B, 1, H, W), mean about 1
        level_weights: finest level first; the last one is of the coarse rest
    """
    total = torch.zeros(())
    for i, level_weight in enumerate(level_weights):
        band = difference
        if i + 1 < len(level_weights):
            coarse = F.avg_pool2d(difference, 2)
            band = difference - F.interpolate(coarse, scale_factor=2, mode="bilinear")
            difference = coarse
        total = total + level_weight * (band.abs() * weight).mean()
        weight = F.avg_pool2d(weight, 2)
    return total


def perceptual_distance(network: Recognizer, image: Tensor, other: Tensor) -> Tensor:
    """Mean squared distance of the loss network's features, each normalised over channels."""
    distance = torch.zeros(())
    pairs = zip(network.features(image), network.features(other), strict=True)
    for wanted, given in pairs:
        wanted, given = F.normalize(wanted.float(), dim=1), F.normalize(given.float(), dim=1)
        distance = distance + (wanted.detach() - given).square().sum(1).mean()
    return distance


def make_step(
    model: AutoencoderKL,
    optimizer: torch.optim.Optimizer,
    dataset: FaceDataset,
    config: LoopConfig,
    recipe: AutoencoderRecipe,
    loss_net: Recognizer | None,
) -> Callable[[int, torch.Generator], dict[str, float]]:
    """The step function for the training loop."""

    def step_fn(step: int, rng: torch.Generator) -> dict[str, float]:
        rows = batch_indices(len(dataset), config.batch_size, step, config.seed)
        mirrored = torch.rand(len(rows), generator=rng) < 0.5
        image, mask = to_float(dataset.images[rows]), dataset.masks[rows]
        image = torch.where(mirrored[:, None, None, None], image.flip(-1), image)
        mask = torch.where(mirrored[:, None, None], mask.flip(-1), mask)  # sides do not matter here
        weight = 1.0 + (recipe.feature_weight - 1.0) * region(mask, FEATURES)
        image = image.contiguous(memory_format=torch.channels_last)
        with autocast("cpu"):
            posterior = model.encode(image).latent_dist
            mean, std = posterior.mean.float(), posterior.std.float()
            latent = mean + std * torch.randn(mean.shape, generator=rng)
            output = model.decode(latent).sample
            perceptual = (
                perceptual_distance(loss_net, image, output) if loss_net else torch.zeros(())
            )
        output = output.float()
        reconstruction = pyramid_l1(output - image, weight, recipe.level_weights)
        kl = 0.5 * (mean.square() + std.square() - 1.0 - 2.0 * std.log()).mean()
        loss = (
            reconstruction + recipe.kl_weight * kl + recipe.perceptual_weight * perceptual.float()
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        values = {"loss": loss, "pyramid": reconstruction, "kl": kl, "std": std.mean()}
        values |= {"l1": (output - image).abs().mean()}
        values |= {"perceptual": perceptual} if loss_net else {}
        return {name: float(value.detach()) for name, value in values.items()}

    return step_fn


@torch.no_grad()
def reconstruct(model: AutoencoderKL, images: Tensor, batch: int = 32) -> Tensor:
    """uint8 (N, 3, H, W) -> the same through the autoencoder, posterior means."""
    parts = [model.decode(model.encode(to_float(x)).latent_dist.mean) for x in images.split(batch)]
    return torch.cat([to_uint8(part.sample) for part in parts])


@torch.no_grad()
def standardise_latents(model: AutoencoderKL, images: Tensor, batch: int = 32) -> None:
    """Folds the latents' per-channel mean and deviation into the 1x1 convolutions.

    Afterwards every latent channel has mean 0 and deviation 1 over `images`, reconstructions are
    unchanged, and config.scaling_factor is the inverse deviation that remains (about 1). Denoisers
    trained on unit normal noise want exactly that; one factor for all channels would leave their
    means in place. `images`: uint8 (N, 3, H, W).
    """

    def means() -> Tensor:
        parts = [model.encode(to_float(x)).latent_dist.mean.float() for x in images.split(batch)]
        return torch.cat(parts).transpose(0, 1).flatten(1)  # (4, N * h * w)

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
    eyes = region(dataset.masks, EYES).expand_as(error) > 0
    per_image = error.square().mean((1, 2, 3)).clamp(min=1e-12)
    found = {
        f"L1, {dataset.split}": error.abs().mean().item(),
        f"PSNR, {dataset.split} (dB)": -10.0 * per_image.log10().mean().item(),
    }
    if eyes.any():
        mse = error[eyes].square().mean().item()
        found[f"PSNR at the eyes, {dataset.split} (dB)"] = -10.0 * math.log10(max(mse, 1e-12))
    return found


def main(arguments: list[str] | None = None, recipe: AutoencoderRecipe | None = None) -> LoopResult:
    """Trains or resumes, then exports."""
    recipe = recipe or AutoencoderRecipe()
    cli = parser(__doc__ or "", "autoencoder", minutes=35, batch_size=8)
    cli.add_argument("--out", type=Path, help="weight folder; default: vae in --weights")
    cli.add_argument(
        "--perceptual", type=Path, help="folder of the loss network, for a perceptual term"
    )
    add_start(cli)
    given = cli.parse_args(arguments)
    config = loop_config(
        given,
        learning_rate=recipe.learning_rate,
        ema_half_life_steps=300,
        warmup_steps=200,
        cooldown=0.35,
    )
    train, test = FaceDataset(given.data, "train"), FaceDataset(given.data, "test")
    torch.manual_seed(config.seed)
    model = build_autoencoder(recipe)
    start_from(model, given.start)
    optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, (0.9, 0.99))
    loss_net = None
    if given.perceptual:
        loss_net = Recognizer.from_pretrained(given.perceptual, torch_dtype=torch.float32)
        loss_net.eval().requires_grad_(False)

    def sample_fn(step: int, averaged: dict[str, Any]) -> np.ndarray:
        shown = test.images[:8]
        return picture_grid([shown, reconstruct(averaged["vae"], shown)])

    step_fn = make_step(model, optimizer, train, config, recipe, loss_net)
    modules = {"vae": model}
    result = run(config, modules, {"vae": optimizer}, step_fn, ema=("vae",), sample_fn=sample_fn)
    vae = result.ema["vae"]
    standardise_latents(vae, train.images[train.first_views()[:1000]])
    vae = vae.half().float()  # what is shipped is what is measured
    out = given.out or given.weights / "vae"
    measurements = measure(vae, test) | {"scaling factor": vae.config.scaling_factor}
    save_whole(out, lambda folder: vae.half().save_pretrained(folder))
    write_card(
        out,
        title="Autoencoder of the mini world",
        description="`AutoencoderKL`: images (B, 3, 128, 128) in [-1, 1] to latents (B, 4, 16, 16) "
        "and back. Each latent channel has mean 0 and deviation 1 over the training images.",
        command=command_line("data_prep.priors.train_autoencoder", arguments),
        seed=config.seed,
        result=result,
        batch_size=config.batch_size,
        training_images=len(train),
        measurements=measurements,
    )
    return result


if __name__ == "__main__":
    main()
