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

from data_prep.priors.denoiser import Conditions, Denoiser, DenoiserSettings
from data_prep.priors.recipe import Ship, frozen, picture_grid, placed
from dmgi_lib.dataset import FaceDataset, to_uint8
from dmgi_lib.devices import moved, resident, taken
from dmgi_lib.masks import flip_mask, mask_to_rgb, scribble_to_rgb
from dmgi_lib.training.condition_augmentation import by_hand, check_share
from dmgi_lib.training.loop import LoopResult


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
    parts = torch.arange(len(conditions)).split(250)
    work = [kind] * len(parts), [conditions[rows].numpy() for rows in parts], parts
    if len(parts) < 4:
        return torch.from_numpy(np.concatenate([*map(_drawn, *work)]))
    fresh = multiprocessing.get_context("spawn")  # forks of a process with threads may hang
    with ProcessPoolExecutor(min(len(parts), os.cpu_count() or 1), fresh) as pool:
        return torch.from_numpy(np.concatenate([*pool.map(_drawn, *work)]))


def _drawn(kind: str, pictures: np.ndarray, rows: Tensor) -> np.ndarray:
    rngs = [torch.Generator().manual_seed(row) for row in rows.tolist()]
    return by_hand(kind, torch.from_numpy(pictures), 1.0, rngs).numpy()


class Drawings:
    """Masks or scribbles of a split by row of its LatentSet: rows N.. are mirrored.

    Args:
        kind:    "mask" or "scribble"
        augment: share of conditions as if drawn by hand
        device:  where the conditions are wanted
    """

    def __init__(
        self,
        dataset: FaceDataset,
        kind: str,
        augment: float = 0.0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.kind, self.augment, self.device = kind, augment, device
        plain = dataset.masks if kind == "mask" else dataset.scribbles
        self.plain = resident(plain, device)
        self.drawn = resident(drawn_by_hand(kind, plain[:]), device) if augment else self.plain

    def __call__(self, rows: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """(B,) int64 in [0, 2 N) -> (B, 3, H, W) float in [0, 1]; rng picks those drawn by hand."""
        image = rows % len(self.plain)
        picked = taken(self.drawn if self.augment == 1 else self.plain, image, self.device)
        if 0 < self.augment < 1:
            hand = torch.rand(len(rows), generator=rng) < self.augment
            drawn = taken(self.drawn, image, self.device)
            picked = torch.where(moved(hand[:, None, None], self.device), drawn, picked)
        mirrored = flip_mask(picked) if self.kind == "mask" else picked.flip(-1)
        turned = moved((rows >= len(self.plain))[:, None, None], self.device)
        picked = torch.where(turned, mirrored, picked)
        return mask_to_rgb(picked) if self.kind == "mask" else scribble_to_rgb(picked)


class ControlNet(Denoiser[ControlNetSettings]):
    """The network that makes the frozen denoiser follow a mask or a scribble."""

    averaged = ("controlnet",)

    def build(self) -> None:
        super().build()
        settings, weights = self.settings, self.folders.weights
        kind = settings.condition
        self.name = "controlnet" if kind == "mask" else "controlnet_scribble"
        unet = frozen(UNet2DConditionModel, weights / "unet", "unet", self.device)
        self.scheduler = DDIMScheduler.from_pretrained(weights / "scheduler")
        with self.seeded():
            controlnet = ControlNetModel.from_unet(
                unet, conditioning_embedding_out_channels=settings.embedding_channels
            )
        self.start(controlnet)
        self.unet = placed(unet, self.device)
        self.conditions = Drawings(self.train_set, kind, settings.augment, self.device)
        self.unseen = Drawings(self.test_set, kind, device=self.device)

    def predict(
        self, network: Any, noisy: Tensor, t: Tensor, text: Tensor, condition: Any
    ) -> Tensor:
        noisy, condition = self.place(noisy), self.place(condition)
        with self.autocast():
            down, mid = network(noisy, t, text, condition, return_dict=False)
            more = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
            return self.unet(noisy, t, text, **more).sample.float()

    def sample(self, step: int, averaged: dict[str, Any]) -> np.ndarray:
        rows = torch.arange(min(8, len(self.held_out)))
        condition = self.unseen(rows)
        text = self.held_out.states[self.held_out.offsets[rows]].float()
        images = self.drawn(averaged["controlnet"], text, condition)
        return picture_grid([to_uint8(condition * 2 - 1), images, self.test_set.images[rows]])

    def export(self, result: LoopResult, ship: Ship) -> None:
        shipped = result.ema["controlnet"].half().float()  # what is shipped is what is measured
        kind, unseen, count = self.settings.condition, self.unseen, len(self.held_out)
        drawn = Drawings(self.test_set, kind, augment=1.0, device=self.device)

        def error(conditions: Conditions) -> float:
            return self.validation_loss(shipped, self.held_out, conditions)

        reads = "masks in palette colours" if kind == "mask" else "white strokes on black"
        ship(
            self.home(self.name),
            shipped,
            f"ControlNet ({kind}) of the mini world",
            f"`ControlNetModel` for the U-Net beside it; reads {reads}, (B, 3, 128, 128) in"
            " [0, 1].",
            {
                f"velocity error, right {kind}, test": error(unseen),
                f"velocity error, right {kind} as if drawn by hand, test": error(drawn),
                f"velocity error, shuffled {kind}, test": error(
                    lambda rows, _: unseen((rows + 7) % count)
                ),
                "parameters (million)": sum(p.numel() for p in shipped.parameters()) / 1e6,
            },
        )
