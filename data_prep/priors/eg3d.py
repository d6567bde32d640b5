"""The 3D prior: EG3D (arXiv 2112.07945), taught by views and depth before it plays.

The rendered world knows cameras and depth, so geometry need not be found by adversarial luck.
Phase A, a share of the budget: an image encoder reads one picture, and its code must draw that
picture and, from another camera, another one of the same person; opacity is taught by the mask and
depth by the renderer's. Rendered pictures grow from 32 to 64 pixels, then super-resolution joins.
Phase B: the mapping network learns to draw such codes (`latent_prior`); then heads from random
codes play against a discriminator that knows the camera and sees each picture beside its rendered
one (Sec. 4.3), while reconstructions go on in half of the batch. All but the parts whose section is
named is our choice.

    python -m data_prep.faces128.build --train-views 1500
    python -m data_prep.priors.trainer eg3d --minutes 720
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from data_prep.priors.budget_clock import BudgetClock
from data_prep.priors.camera_faces import CameraFaces, rows_of_people
from data_prep.priors.discriminator import Discriminator
from data_prep.priors.eg3d_measurements import SHOWN, measure, pairs_of, sample_picture
from data_prep.priors.eg3d_step import EG3DPhases
from data_prep.priors.recipe import Ship
from data_prep.priors.stylegan2 import StyleGAN2
from data_prep.priors.stylegan2_measurements import set_mean_latent, set_typical_latent
from dmgi_lib.dataset import FaceDataset
from dmgi_lib.generators.eg3d import TriPlaneGenerator
from dmgi_lib.generators.eg3d.cameras import CAMERA_DIM
from dmgi_lib.training.loop import LoopResult

SPLIT = "train_views"
MAKER = "python -m data_prep.faces128.build --train-views 1500"


class EG3D(EG3DPhases, StyleGAN2):
    """The generator G of heads in three dimensions, taught by views and depth."""

    name = "eg3d"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        folder = self.folders.data / SPLIT
        if not folder.is_dir():
            raise FileNotFoundError(
                f"no {folder}: the 3D prior learns from people seen by several cameras. Render them"
                f" with `{MAKER}`, or name another data set with --data."
            )
        self.views = CameraFaces(FaceDataset(self.folders.data, SPLIT), self.device)
        self.singles = CameraFaces(self.train_set, self.device)
        people, held_out = rows_of_people(self.views.dataset), self.settings.held_out
        if any(len(rows) < 2 for rows in people) or not 0 < held_out < len(people):
            raise ValueError(
                f"{folder} holds {len(people)} people, some may have one view, and --held-out came"
                f" as {held_out}; expected people with two views or more, and more of them than are"
                " held out, at least 1."
            )
        self.people, self.unseen = people[:-held_out], people[-held_out:]
        numbers = self.views.dataset.identities[torch.stack([rows[0] for rows in self.unseen])]
        # The two splits number the same people alike.
        kept = ~torch.isin(self.train_set.identities, numbers)
        self.single_rows = kept.nonzero()[:, 0]
        self.clock = BudgetClock()
        self.modules = {**self.modules, "clock": self.clock}

    @property
    def training_images(self) -> int:
        return len(self.single_rows) + sum(map(len, self.people))

    def new_generator(self) -> TriPlaneGenerator:
        return TriPlaneGenerator(c_dim=0, **self.settings.generator)

    def new_discriminator(self) -> Discriminator:
        sizes = self.settings.generator
        channels = {name: sizes[name] for name in ("channel_base", "channel_max")}
        return Discriminator(sizes["img_resolution"], 6, **channels, c_dim=CAMERA_DIM)

    def sample(self, step: int, averaged: dict[str, Any]) -> np.ndarray:
        if self.clock.begun >= 0:
            set_mean_latent(averaged["generator"])
        shown = pairs_of(self.views, self.unseen[:SHOWN])
        return sample_picture(
            averaged["generator"], averaged["encoder"], *shown, refined=self.refined
        )

    def export(self, result: LoopResult, ship: Ship) -> None:
        G, encoder = result.ema["generator"], result.ema["encoder"]
        # as in the 2D prior: see there
        G.backbone.mapping.load_state_dict(self.G.backbone.mapping.state_dict())
        set_typical_latent(G)
        G = G.half().float()  # what is shipped is what is measured
        sizes = G.config
        ship(
            self.folders.out or self.folders.weights / "generator_3d",
            G,
            "EG3D generator of the mini world",
            f"`TriPlaneGenerator`: z (B, {sizes.z_dim}) to ws (B, {G.num_ws}, {sizes.w_dim}), and"
            f" with cameras (B, {CAMERA_DIM}) to images (B, 3, {sizes.img_resolution},"
            f" {sizes.img_resolution}) in [-1, 1], rendered images, depth and alpha. Averaged"
            f" weights. The first {self.settings.taught:.0%} of the budget were taught by views and"
            f" depth. Measured on the {len(self.unseen)} last people of `{SPLIT}`, who were not"
            " trained on, through the encoder's W of one view; depth errors stand beside those of"
            " each picture's mean depth (flat disc) and of the mean latent's head.",
            measure(G, encoder, self.loss_net, *pairs_of(self.views, self.unseen)),
        )
