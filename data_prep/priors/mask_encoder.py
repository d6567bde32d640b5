"""The baseline without diffusion and without text: `MaskEncoder`, mask → W+, with stage 1's losses.

    python -m data_prep.priors.trainer mask_encoder --minutes 45

Half of the pictures are mirrored. Identities at the end of the training set are held out. Sizes
and weights are our choice (not specified in the paper's available sources).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tyro.conf import Suppress

from data_prep.priors.recipe import Recipe, Settings, Ship, frozen, picture_grid, start_from
from dmgi_lib.dataset import to_uint8
from dmgi_lib.files import state_hash
from dmgi_lib.generators import StyleGAN2Generator
from dmgi_lib.mask_encoder import MaskEncoder
from dmgi_lib.masks import flip_mask, mask_to_rgb
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.training.features import CachedBatch
from dmgi_lib.training.loop import LoopResult
from dmgi_lib.training.losses import LossWeights
from dmgi_lib.training.run_files import Logged
from dmgi_lib.training.supervision import StageConfig, StageTerms, mirrored

TERMS = ("l2", "perceptual", "identity", "parsing", "parts", "code_prior", "row_growth")


@dataclass(frozen=True)
class MaskEncoderSettings(Settings):
    """Budget, that of the three stages together, and loss weights: see `losses.LossWeights`."""

    minutes: float = 45.0
    batch_size: int = 16
    learning_rate: float = 5e-4
    warmup_steps: int = 50
    start: Path | None = None  # folder of a mask encoder of the same codes, to go on from
    l2: float = LossWeights.l2  # squared error of the image
    perceptual: float = LossWeights.perceptual  # feature distance
    identity: float = LossWeights.identity  # distance of identity vectors
    # cross-entropy between the mask and the loss net's parsing
    parsing: float = LossWeights.parsing
    parts: float = LossWeights.parts  # squared error in eyes, brows and mouth
    code_prior: float = LossWeights.code_prior  # distance to G's own codes
    # of the code prior, from the coarsest row to the finest
    row_growth: float = LossWeights.row_growth
    # of the encoder's strided convolutions
    channels: Suppress[tuple[int, ...]] = (32, 64, 96, 128, 160)
    width: Suppress[int] = 256  # of the encoder's other layers
    held_out: int = 64  # identities that are never trained on


class MaskToCode(Recipe[MaskEncoderSettings]):
    """The baseline encoder of masks, which sees neither text nor diffusion features.

    Raises:
        ValueError: no identity is left for training
    """

    name = "mask_encoder"
    averaged = ("mask_encoder",)

    def build(self) -> None:
        settings, folder = self.settings, self.folders.weights
        self.G = frozen(StyleGAN2Generator, folder / "generator", "stylegan2", self.device)
        self.loss_net = frozen(Recognizer, folder / "loss_net", "loss_net", self.device)
        with self.seeded():
            size, width = self.G.config.img_resolution, len(self.G.mean_latent)
            encoder = MaskEncoder(size, self.G.num_ws, width, settings.channels, settings.width)
        start_from(encoder, settings.start)
        self.encoder = encoder.to(self.device)
        self.encoder.mapping.w_avg.copy_(self.G.mean_latent)
        # nobody tells the encoder any words
        self.weights = LossWeights(attributes=0.0, **{k: getattr(settings, k) for k in TERMS})
        stage = StageConfig(1, self.weights, precision=self.precision)
        self.compare = StageTerms(stage, self.train_set, self.G, self.loss_net, 1)
        identities = self.train_set.identities
        known, held_out = identities.unique(), settings.held_out
        unseen = torch.isin(identities, known[len(known) - held_out :])
        self.train_rows, self.test_rows = (~unseen).nonzero()[:, 0], unseen.nonzero()[:, 0]
        if len(self.train_rows) == 0:
            raise ValueError(
                f"holding out {held_out} of {len(known)} identities leaves none for training;"
                " use a larger data set (--data)."
            )
        self.training_images = len(self.train_rows)
        optimizer = torch.optim.Adam(
            self.encoder.parameters(), lr=settings.learning_rate, betas=(0.9, 0.99)
        )
        self.modules, self.optimizers = {self.name: self.encoder}, {self.name: optimizer}
        self.made_from = {
            "losses": asdict(self.weights),
            "frozen": [state_hash(network) for network in (self.G, self.loss_net)],
            "dataset": self.train_set.digest,
            "training samples": self.training_images,
            "learning_rate": settings.learning_rate,
        }

    def terms(
        self, rows: Tensor, rng: torch.Generator | None, encoder: nn.Module
    ) -> dict[str, Tensor]:
        """Unweighted loss terms of some samples, each (B,); rng mirrors half of them."""
        turned = torch.zeros(len(rows), dtype=torch.bool)
        if rng is not None:
            turned = torch.rand(len(rows), generator=rng) < 0.5
        none = torch.zeros(0)  # no captions, steps and features
        batch = CachedBatch(rows, none, turned, none, none, (), (), None)
        w = encoder(mirrored(self.compare.masks, batch, flip_mask, self.device))
        with self.autocast():
            image = self.G.synthesis(w, noise_mode="const").float()
        terms = self.compare(batch, w, image)
        return {name.removesuffix(" (I)"): value for name, value in terms.items()}

    def step(self, step: int, rng: torch.Generator) -> Logged:
        rows = self.train_rows[self.rows(len(self.train_rows), step)]
        terms = self.terms(rows, rng, self.encoder)
        loss = self.compare.total(terms)
        self.update(loss, clip=1.0)
        return {"loss": loss.detach()} | {k: v.detach().mean() for k, v in terms.items()}

    @torch.no_grad()
    def measure(self, encoder: nn.Module) -> dict[str, float]:
        """Mean loss terms on the held-out identities."""
        parts = [self.terms(rows, None, encoder) for rows in self.test_rows.split(16)]
        return {k: torch.cat([part[k] for part in parts]).mean().item() for k in parts[0]}

    def sample(self, step: int, averaged: dict[str, Any]) -> np.ndarray:
        """Held-out samples: x, I, I'."""
        rows = self.test_rows[:8]
        masks = self.train_set.masks[rows]
        codes = averaged[self.name](masks.to(self.device))
        image = to_uint8(self.G.synthesis(codes, noise_mode="const"))
        colors = to_uint8(mask_to_rgb(masks) * 2 - 1)
        return picture_grid([colors, self.train_set.images[rows], image])

    def export(self, result: LoopResult, ship: Ship) -> None:
        weights = {name: getattr(self.weights, name) for name in TERMS}
        measured = self.measure(result.ema[self.name])
        ship(
            self.home(self.name),
            result.ema[self.name],
            "Mask encoder, a baseline without diffusion and without text",
            f"`MaskEncoder`: masks (B, H, W) of class ids to codes (B, num_ws, w_dim). Losses"
            f" {weights}.",
            {f"{name}, held-out training identities": v for name, v in measured.items()},
        )
