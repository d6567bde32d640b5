"""A ControlNet on the frozen denoiser: structure x is a 19-class mask or a scribble.

    python -m data_prep.priors.trainer controlnet --minutes 30
    python -m data_prep.priors.trainer controlnet --minutes 30 --condition scribble

Zhang et al. 2023: a copy of the U-Net's encoder reads the condition and adds to the skip
connections through convolutions that start at zero. The U-Net stays frozen. Masks are
shown in palette colours, scribbles as three equal channels, both in [0, 1]. Half of them are drawn
over as a hand might have drawn them (our choice).
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from tyro.conf import Suppress

from data_prep.priors.latents import validation_loss
from data_prep.priors.recipe import Ship, frozen, placed
from data_prep.priors.sampling import picture_grid, predicted_velocity, sample_images
from data_prep.priors.unet import Denoiser, DenoiserSettings
from dmgi_lib.dataset import FaceDataset
from dmgi_lib.devices import moved, resident, taken
from dmgi_lib.masks import flip_mask, mask_to_rgb, scribble_to_rgb
from dmgi_lib.training.condition_augmentation import by_hand, check_share
from dmgi_lib.training.loop import LoopResult
from dmgi_lib.training.run_files import Logged


@dataclass(frozen=True)
class ControlNetSettings(DenoiserSettings):
    """Training of the ControlNet; its architecture follows the U-Net.

    Args:
        condition: what is read
        augment: share of conditions as if drawn by hand, so that the network learns to read those
        text_dropout: share of empty prompts; higher than the U-Net's, so that the network learns
            to read structure from the condition and not from the text
        embedding_channels: of the convolutions that bring the condition from 128 to 16 px
    """

    ema_half_life_steps: float = 300.0
    text_dropout: float = 0.25
    condition: Literal["mask", "scribble"] = "mask"
    augment: float = 0.5
    embedding_channels: Suppress[tuple[int, ...]] = (16, 32, 64, 96)

    def __post_init__(self) -> None:
        check_share(self.augment)


def drawn_by_hand(kind: str, conditions: Tensor) -> Tensor:
    """(N, H, W) all of a split as if drawn by hand, each in one way; several processes if many."""
    parts = list(torch.arange(len(conditions)).split(250))
    pictures = [conditions[rows].numpy() for rows in parts]
    if len(parts) < 4:
        drawn = list(map(_drawn, [kind] * len(parts), pictures, parts))
    else:
        fresh = multiprocessing.get_context("spawn")  # forks of a process with threads may hang
        with ProcessPoolExecutor(min(len(parts), os.cpu_count() or 1), fresh) as pool:
            drawn = list(pool.map(_drawn, [kind] * len(parts), pictures, parts))
    return torch.from_numpy(np.concatenate(drawn))


def _drawn(kind: str, pictures: np.ndarray, rows: Tensor) -> np.ndarray:
    rngs = [torch.Generator().manual_seed(row) for row in rows.tolist()]
    return by_hand(kind, torch.from_numpy(pictures), 1.0, rngs).numpy()


class Conditions:
    """Conditions of a split by row of its LatentSet: rows N.. are mirrored.

    Args:
        dataset: the split
        kind:    "mask" or "scribble"
        augment: share of conditions as if drawn by hand
        device:  where the conditions are wanted

    Attributes:
        rng: decides which are
    """

    def __init__(
        self,
        dataset: FaceDataset,
        kind: str,
        augment: float = 0.0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.kind, self.augment, self.device = kind, augment, device
        self.rng = torch.Generator().manual_seed(0)
        plain = dataset.masks if kind == "mask" else dataset.scribbles
        self.plain = resident(plain, device)
        self.drawn = resident(drawn_by_hand(kind, plain[:]), device) if augment else self.plain

    def __call__(self, rows: Tensor) -> Tensor:
        """(B,) int64 in [0, 2 N) -> (B, 3, H, W) float in [0, 1]."""
        image = rows % len(self.plain)
        picked = taken(self.plain, image, self.device)
        if self.augment:
            hand = torch.rand(len(rows), generator=self.rng) < self.augment
            drawn = taken(self.drawn, image, self.device)
            picked = torch.where(moved(hand[:, None, None], self.device), drawn, picked)
        mirrored = flip_mask(picked) if self.kind == "mask" else picked.flip(-1)
        turned = moved((rows >= len(self.plain))[:, None, None], self.device)
        picked = torch.where(turned, mirrored, picked)
        return mask_to_rgb(picked) if self.kind == "mask" else scribble_to_rgb(picked)


class ControlNet(Denoiser[ControlNetSettings]):
    """The network that makes the frozen denoiser follow a mask or a scribble."""

    averaged = ("controlnet",)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        kind, weights = self.settings.condition, self.folders.weights
        self.name = "controlnet" if kind == "mask" else "controlnet_scribble"
        unet = frozen(UNet2DConditionModel, weights / "unet", "unet", self.device)
        self.scheduler = DDIMScheduler.from_pretrained(weights / "scheduler")
        with self.seeded():
            controlnet = ControlNetModel.from_unet(
                unet, conditioning_embedding_out_channels=self.settings.embedding_channels
            )
        self.controlnet = self.start(controlnet)
        self.unet = placed(unet, self.device)
        self.conditions = Conditions(self.train_set, kind, self.settings.augment, self.device)
        self.unseen = Conditions(self.test_set, kind, device=self.device)

    def step(self, step: int, rng: torch.Generator) -> Logged:
        self.conditions.rng = rng
        return super().step(step, rng)

    def predict(self, noisy: Tensor, t: Tensor, text: Tensor, rows: Tensor) -> Tensor:
        return self.controlled(self.controlnet, noisy, t, text, self.conditions(rows))

    def controlled(
        self, controlnet: ControlNetModel, noisy: Tensor, t: Tensor, text: Tensor, condition: Tensor
    ) -> Tensor:
        """Velocity of the U-Net under a ControlNet that reads condition (B, 3, H, W)."""
        noisy, condition = self.place(noisy), self.place(condition)
        with self.autocast():
            return predicted_velocity(self.unet, noisy, t, text, controlnet, condition)

    def sample(self, step: int, averaged: dict[str, Any]) -> np.ndarray:
        rows = torch.arange(min(8, len(self.held_out)))
        condition = self.unseen(rows)
        images = sample_images(
            self.unet,
            self.scheduler,
            self.priors.vae,
            self.held_out.states[self.held_out.offsets[rows]].float(),
            self.held_out.empty,
            generator=torch.Generator().manual_seed(0),
            controlnet=averaged["controlnet"],
            condition=condition,
        )
        pictures = (condition.cpu() * 255).to(torch.uint8), images, self.test_set.images[rows]
        return picture_grid(pictures)

    def export(self, result: LoopResult, ship: Ship) -> None:
        shipped = result.ema["controlnet"].half().float()  # what is shipped is what is measured
        kind, count = self.settings.condition, len(self.held_out)

        drawn = Conditions(self.test_set, kind, augment=1.0, device=self.device)

        def error(conditions: Conditions, shift: int = 0) -> float:
            """Sample i gets the condition of sample i + shift; not 0: a wrong one."""

            def predict(noisy: Tensor, t: Tensor, text: Tensor, rows: Tensor) -> Tensor:
                condition = conditions((rows + shift) % count)
                return self.controlled(shipped, noisy, t, text, condition)

            return validation_loss(predict, self.scheduler, self.held_out)

        reads = "masks in palette colours" if kind == "mask" else "white strokes on black"
        ship(
            self.folders.out or self.folders.weights / self.name,
            shipped,
            f"ControlNet ({kind}) of the mini world",
            f"`ControlNetModel` for the U-Net beside it; reads {reads}, (B, 3, 128, 128) in"
            " [0, 1].",
            {
                f"velocity error, right {kind}, test": error(self.unseen),
                f"velocity error, right {kind} as if drawn by hand, test": error(drawn),
                f"velocity error, shuffled {kind}, test": error(self.unseen, 7),
                "parameters (million)": sum(p.numel() for p in shipped.parameters()) / 1e6,
            },
        )
