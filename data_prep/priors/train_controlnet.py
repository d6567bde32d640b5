"""Trains a ControlNet on the frozen denoiser: structure x is a 19-class mask or a scribble.

    python -m data_prep.priors.train_controlnet --minutes 30
    python -m data_prep.priors.train_controlnet --minutes 30 --condition scribble

Zhang et al. 2023: a copy of the U-Net's encoder reads the condition and adds to the skip
connections through convolutions that start at zero. The U-Net stays frozen. Masks are
shown in palette colours, scribbles as three equal channels, both in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from data_prep.priors.card import command_line, save_whole, write_card
from data_prep.priors.command_line import default_run_dir, loop_config, parser
from data_prep.priors.latents import (
    FrozenPriors,
    LatentSet,
    latent_set,
    noised,
    stratified_timesteps,
)
from data_prep.priors.sampling import picture_grid, sample_images
from data_prep.priors.start import add_start, start_from
from data_prep.priors.train_unet import quick_on_cpu
from dmgi_lib.dataset import FaceDataset
from dmgi_lib.devices import autocast
from dmgi_lib.masks import flip_mask, mask_to_rgb, scribble_to_rgb
from dmgi_lib.training.loop import LoopConfig, LoopResult, batch_indices, run

CONDITIONS = ("mask", "scribble")


@dataclass(frozen=True)
class ControlNetRecipe:
    """Training of the ControlNet; its architecture follows the U-Net.

    Args:
        embedding_channels: of the convolutions that bring the condition from 128 to 16 px
        text_dropout:       share of empty prompts; higher than the U-Net's, so that the network
                            learns to read structure from the condition and not from the text
        learning_rate:      of AdamW
    """

    embedding_channels: tuple[int, ...] = (16, 32, 64, 96)
    text_dropout: float = 0.25
    learning_rate: float = 4e-4


class Conditions:
    """Conditions of a split by row of its LatentSet: rows N.. are mirrored.

    Args:
        dataset: the split
        kind:    "mask" or "scribble"
    """

    def __init__(self, dataset: FaceDataset, kind: str) -> None:
        self.kind = kind
        self.plain = dataset.masks if kind == "mask" else dataset.scribbles

    def __call__(self, rows: Tensor) -> Tensor:
        """(B,) int64 in [0, 2 N) -> (B, 3, H, W) float in [0, 1]."""
        picked = self.plain[rows % len(self.plain)]
        mirrored = flip_mask(picked) if self.kind == "mask" else picked.flip(-1)
        picked = torch.where((rows >= len(self.plain))[:, None, None], mirrored, picked)
        return mask_to_rgb(picked) if self.kind == "mask" else scribble_to_rgb(picked)


def predict(
    unet: UNet2DConditionModel,
    controlnet: ControlNetModel,
    noisy: Tensor,
    t: Tensor,
    text: Tensor,
    condition: Tensor,
) -> Tensor:
    """Velocity (B, 4, h, w) float32 of the controlled U-Net, in bf16 where that is fast."""
    noisy = noisy.contiguous(memory_format=torch.channels_last)
    condition = condition.contiguous(memory_format=torch.channels_last)
    with autocast("cpu"):
        down, mid = controlnet(noisy, t, text, condition, return_dict=False)
        output = unet(
            noisy,
            t,
            text,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        )
    return output.sample.float()


def make_step(
    unet: UNet2DConditionModel,
    controlnet: ControlNetModel,
    optimizer: torch.optim.Optimizer,
    scheduler: DDIMScheduler,
    data: LatentSet,
    conditions: Conditions,
    config: LoopConfig,
    recipe: ControlNetRecipe,
) -> Callable[[int, torch.Generator], dict[str, float]]:
    """The step function for the training loop."""
    steps = scheduler.config.num_train_timesteps

    def step_fn(step: int, rng: torch.Generator) -> dict[str, float]:
        rows = batch_indices(len(data.latents), config.batch_size, step, config.seed)
        t = stratified_timesteps(len(rows), steps, rng)
        noisy, velocity = noised(scheduler, data.latents[rows], t, rng)
        text = data.captions(rows, rng, recipe.text_dropout)
        predicted = predict(unet, controlnet, noisy, t, text, conditions(rows))
        per_sample = (predicted - velocity).square().mean((1, 2, 3))
        loss = per_sample.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(controlnet.parameters(), 1.0)
        optimizer.step()
        noisiest = per_sample.detach()[t >= 0.75 * steps]
        values = {"loss": loss.item(), "gradient": norm.item()}
        return values | ({"loss_noisiest": noisiest.mean().item()} if len(noisiest) else {})

    return step_fn


@torch.no_grad()
def validation_loss(
    unet: UNet2DConditionModel,
    controlnet: ControlNetModel,
    scheduler: DDIMScheduler,
    data: LatentSet,
    conditions: Conditions,
    *,
    shift: int = 0,
) -> float:
    """Mean squared velocity error over a split, fixed noise and timesteps.

    Args:
        shift: sample i gets the condition of sample i + shift; not 0: a wrong condition
    """
    rng = torch.Generator().manual_seed(0)
    total = 0.0
    for rows in torch.arange(len(data)).split(32):
        t = stratified_timesteps(len(rows), scheduler.config.num_train_timesteps, rng)
        noisy, velocity = noised(scheduler, data.latents[rows], t, rng)
        text = data.captions(rows, rng, 0.0)
        condition = conditions((rows + shift) % len(data))
        predicted = predict(unet, controlnet, noisy, t, text, condition)
        total += F.mse_loss(predicted, velocity).item() * len(rows)
    return total / len(data)


def main(arguments: list[str] | None = None, recipe: ControlNetRecipe | None = None) -> LoopResult:
    """Trains or resumes, then exports controlnet/ or controlnet_scribble/."""
    recipe = recipe or ControlNetRecipe()
    cli = parser(__doc__ or "", "controlnet", minutes=30, batch_size=32)
    cli.add_argument("--out", type=Path, help="weight folder; default: controlnet[_scribble]")
    cli.add_argument("--condition", choices=CONDITIONS, default="mask", help="what is read")
    cli.set_defaults(run_dir=None)
    add_start(cli)
    given = cli.parse_args(arguments)
    name = "controlnet" if given.condition == "mask" else "controlnet_scribble"
    given.run_dir = given.run_dir or default_run_dir(name)
    config = loop_config(
        given,
        learning_rate=recipe.learning_rate,
        ema_half_life_steps=300,
        warmup_steps=100,
        cooldown=0.3,
    )
    priors = FrozenPriors.load(given.weights)
    if not (given.weights / "unet").is_dir():
        raise FileNotFoundError(
            f"no {given.weights / 'unet'}; make it with `python -m data_prep.priors.train_unet`, "
            "or name another folder with --weights."
        )
    unet = UNet2DConditionModel.from_pretrained(given.weights / "unet", torch_dtype=torch.float32)
    scheduler = DDIMScheduler.from_pretrained(given.weights / "scheduler")
    train, test = FaceDataset(given.data, "train"), FaceDataset(given.data, "test")
    torch.manual_seed(config.seed)
    controlnet = ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=recipe.embedding_channels
    )
    start_from(controlnet, given.start)
    quick_on_cpu(controlnet)
    quick_on_cpu(unet).requires_grad_(False)
    optimizer = torch.optim.AdamW(
        controlnet.parameters(), config.learning_rate, (0.9, 0.99), weight_decay=0.01
    )
    data, held_out = latent_set(priors, train), latent_set(priors, test)
    conditions, unseen = Conditions(train, given.condition), Conditions(test, given.condition)

    def sample_fn(step: int, averaged: dict[str, Any]) -> np.ndarray:
        rows = torch.arange(min(8, len(held_out)))
        condition = unseen(rows)
        images = sample_images(
            unet,
            scheduler,
            priors.vae,
            held_out.states[held_out.offsets[rows]].float(),
            held_out.empty,
            generator=torch.Generator().manual_seed(0),
            controlnet=averaged["controlnet"],
            condition=condition,
        )
        return picture_grid([(condition * 255).to(torch.uint8), images, test.images[rows]])

    step_fn = make_step(unet, controlnet, optimizer, scheduler, data, conditions, config, recipe)
    modules, optimizers = {"controlnet": controlnet}, {"controlnet": optimizer}
    result = run(config, modules, optimizers, step_fn, ema=("controlnet",), sample_fn=sample_fn)
    shipped = result.ema["controlnet"].half().float()  # what is shipped is what is measured
    measured = (unet, shipped, scheduler, held_out, unseen)
    measurements = {
        f"velocity error, right {given.condition}, test": validation_loss(*measured),
        f"velocity error, shuffled {given.condition}, test": validation_loss(*measured, shift=7),
        "parameters (million)": sum(p.numel() for p in shipped.parameters()) / 1e6,
    }
    out = given.out or given.weights / name
    save_whole(out, lambda folder: shipped.half().save_pretrained(folder))
    reads = "masks in palette colours" if given.condition == "mask" else "white strokes on black"
    write_card(
        out,
        title=f"ControlNet ({given.condition}) of the mini world",
        description=f"`ControlNetModel` for the U-Net beside it; reads {reads}, (B, 3, 128, 128) "
        "in [0, 1].",
        command=command_line("data_prep.priors.train_controlnet", arguments),
        seed=config.seed,
        result=result,
        batch_size=config.batch_size,
        training_images=len(train),
        measurements=measurements,
    )
    return result


if __name__ == "__main__":
    main()
