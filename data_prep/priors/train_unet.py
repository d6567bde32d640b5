"""Trains the denoiser: text-conditioned UNet2DConditionModel on the autoencoder's latents.

    python -m data_prep.priors.train_unet --minutes 45

Velocity prediction (Salimans & Ho 2022) with zero terminal SNR and "trailing" timesteps (Lin et al.
2024), so that t = T is pure noise: then all that the features know at t = T comes from (x, c). Ten
percent empty prompts make classifier-free guidance possible. Prompts are padded to the tokenizer's
full length without attention mask, as Stable Diffusion does. Sizes and schedule are our choice (not
specified in the paper's available sources).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor

from data_prep.priors.card import command_line, save_whole, write_card
from data_prep.priors.command_line import loop_config, parser
from data_prep.priors.group_norm import use_fast_group_norm
from data_prep.priors.latents import (
    FrozenPriors,
    LatentSet,
    encode_captions,
    latent_set,
    noised,
    stratified_timesteps,
)
from data_prep.priors.sampling import picture_grid, sample_images
from data_prep.priors.start import add_start, start_from
from dmgi_lib.dataset import FaceDataset
from dmgi_lib.devices import autocast
from dmgi_lib.training.loop import LoopConfig, LoopResult, batch_indices, run

PROMPTS = (
    "a smiling young woman with blond hair",
    "an old man with gray hair and a beard",
    "a man with black hair wearing eyeglasses",
    "a young woman with long red hair",
)


@dataclass(frozen=True)
class UNetRecipe:
    """Architecture and training.

    Args:
        architecture:  arguments of UNet2DConditionModel; attention_head_dim is, by diffusers'
                       naming, the number of heads per block
        text_dropout:  share of empty prompts
        learning_rate: of AdamW
    """

    architecture: dict[str, Any] = field(
        default_factory=lambda: {
            "sample_size": 16,
            "block_out_channels": (96, 128, 160),
            "attention_head_dim": (3, 4, 5),
            "layers_per_block": 1,
            "norm_num_groups": 16,
        }
    )
    text_dropout: float = 0.1
    learning_rate: float = 4e-4


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


def build_unet(recipe: UNetRecipe, latent_channels: int, text_width: int) -> UNet2DConditionModel:
    """Untrained U-Net, drawn from the global generator; attention at 16 x 16 and 8 x 8."""
    return UNet2DConditionModel(
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=text_width,
        **recipe.architecture,
    )


def quick_on_cpu(model: Any) -> Any:
    """Layout, norms and attention that train fastest on CPU; weights and config stay.

    Fused attention's backward pass took a third of a step here; plain matrix products do not.
    """
    use_fast_group_norm(model).to(memory_format=torch.channels_last)
    model.set_attn_processor(AttnProcessor())
    return model


def make_step(
    unet: UNet2DConditionModel,
    optimizer: torch.optim.Optimizer,
    scheduler: DDIMScheduler,
    data: LatentSet,
    config: LoopConfig,
    recipe: UNetRecipe,
) -> Callable[[int, torch.Generator], dict[str, float]]:
    """The step function for the training loop."""
    steps = scheduler.config.num_train_timesteps

    def step_fn(step: int, rng: torch.Generator) -> dict[str, float]:
        rows = batch_indices(len(data.latents), config.batch_size, step, config.seed)
        t = stratified_timesteps(len(rows), steps, rng)
        noisy, velocity = noised(scheduler, data.latents[rows], t, rng)
        text = data.captions(rows, rng, recipe.text_dropout)
        with autocast("cpu"):
            predicted = unet(noisy.contiguous(memory_format=torch.channels_last), t, text).sample
        per_sample = (predicted.float() - velocity).square().mean((1, 2, 3))
        loss = per_sample.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        noisiest = per_sample.detach()[t >= 0.75 * steps]
        values = {"loss": loss.item(), "gradient": norm.item()}
        return values | ({"loss_noisiest": noisiest.mean().item()} if len(noisiest) else {})

    return step_fn


@torch.no_grad()
def validation_loss(
    unet: UNet2DConditionModel, scheduler: DDIMScheduler, data: LatentSet, *, with_text: bool = True
) -> float:
    """Mean squared velocity error over a split (not mirrored), fixed noise and timesteps."""
    rng = torch.Generator().manual_seed(0)
    total = 0.0
    for rows in torch.arange(len(data)).split(32):
        t = stratified_timesteps(len(rows), scheduler.config.num_train_timesteps, rng)
        noisy, velocity = noised(scheduler, data.latents[rows], t, rng)
        text = data.captions(rows, rng, 0.0 if with_text else 1.0)
        with autocast("cpu"):
            predicted = unet(noisy, t, text).sample.float()
        total += F.mse_loss(predicted, velocity).item() * len(rows)
    return total / len(data)


def main(arguments: list[str] | None = None, recipe: UNetRecipe | None = None) -> LoopResult:
    """Trains or resumes, then exports unet/ and scheduler/."""
    recipe = recipe or UNetRecipe()
    cli = parser(__doc__ or "", "unet", minutes=45, batch_size=32)
    cli.add_argument("--out", type=Path, help="weight folder; default: unet in --weights")
    add_start(cli)
    given = cli.parse_args(arguments)
    config = loop_config(
        given,
        learning_rate=recipe.learning_rate,
        ema_half_life_steps=500,
        warmup_steps=200,
        cooldown=0.3,
    )
    priors = FrozenPriors.load(given.weights)
    train, test = FaceDataset(given.data, "train"), FaceDataset(given.data, "test")
    torch.manual_seed(config.seed)
    unet = quick_on_cpu(
        build_unet(
            recipe, priors.vae.config.latent_channels, priors.text_encoder.config.hidden_size
        )
    )
    start_from(unet, given.start)
    scheduler = build_scheduler()
    optimizer = torch.optim.AdamW(
        unet.parameters(), config.learning_rate, (0.9, 0.99), weight_decay=0.01
    )
    data = latent_set(priors, train)
    prompts = encode_captions(priors, list(PROMPTS)).float()

    def sample_fn(step: int, averaged: dict[str, Any]) -> np.ndarray:
        images = sample_images(
            averaged["unet"],
            scheduler,
            priors.vae,
            prompts.repeat_interleave(4, 0),
            data.empty,
            generator=torch.Generator().manual_seed(0),
        )
        return picture_grid(images.split(4))

    step_fn = make_step(unet, optimizer, scheduler, data, config, recipe)
    modules = {"unet": unet}
    result = run(config, modules, {"unet": optimizer}, step_fn, ema=("unet",), sample_fn=sample_fn)
    shipped = result.ema["unet"].half().float()  # what is shipped is what is measured
    held_out = latent_set(priors, test)
    measurements = {
        "velocity error, test": validation_loss(shipped, scheduler, held_out),
        "velocity error without text, test": validation_loss(
            shipped, scheduler, held_out, with_text=False
        ),
        "velocity error, train": validation_loss(shipped, scheduler, data),
        "parameters (million)": sum(p.numel() for p in shipped.parameters()) / 1e6,
    }
    out = given.out or given.weights / "unet"
    save_whole(out, lambda folder: shipped.half().save_pretrained(folder))
    save_whole(out.parent / "scheduler", scheduler.save_pretrained)
    write_card(
        out,
        title="Denoising U-Net of the mini world",
        description="`UNet2DConditionModel` on 4 x 16 x 16 latents, velocity prediction, zero "
        "terminal SNR; the schedule stands in `scheduler/`. Text states are padded to the "
        "tokenizer's full length without attention mask.",
        command=command_line("data_prep.priors.train_unet", arguments),
        seed=config.seed,
        result=result,
        batch_size=config.batch_size,
        training_images=len(train),
        measurements=measurements,
    )
    return result


if __name__ == "__main__":
    main()
