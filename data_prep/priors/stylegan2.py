"""The 2D prior: StyleGAN2 (arXiv 1912.04958) with ADA (arXiv 2006.06676), warm-started.

Phase A, the first `warmup_images`: an image encoder and G learn together as an autoencoder, at 32
and 64 pixels first, judged by pixels and, at full size, by the loss network's features and parsing;
then the mapping network learns to draw codes like the encoder's (`latent_prior`) and is held still.
Phase B: non-saturating loss and lazy R1 on samples and reconstructions alike, by a discriminator of
pixels and by one of the loss network's features (arXiv 2111.01007). Half of each batch stays
reconstructions, so that the training faces remain invertible; half of the samples are truncated, so
that codes near the mean draw sharp faces too. The warm start, the reconstruction terms and the
truncated samples are our choice (not specified in the paper's available sources).

    python -m data_prep.priors.trainer stylegan2 --minutes 130
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from data_prep.priors.adaptive_augmentation import AdaptiveAugmentation
from data_prep.priors.discriminator import Discriminator
from data_prep.priors.image_encoder import ImageEncoder
from data_prep.priors.recipe import Ship, frozen
from data_prep.priors.stylegan2_measurements import measure, sample_grid, set_typical_latent
from data_prep.priors.stylegan2_step import StyleGAN2Phases
from dmgi_lib.generators.stylegan2 import StyleGAN2Generator
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.training.critics import FeatureDiscriminator
from dmgi_lib.training.loop import LoopResult
from dmgi_lib.training.losses import ParsingLoss, PerceptualLoss


class StyleGAN2(StyleGAN2Phases):
    """The generator G that the method inverts, trained against a discriminator."""

    name = "stylegan2"
    averaged = ("generator", "encoder")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        settings, sizes = self.settings, self.settings.generator
        self.loss_net = frozen(
            Recognizer, self.folders.weights / "loss_net", "loss_net", self.device
        )
        self.perceptual, self.parsing = PerceptualLoss(self.loss_net), ParsingLoss(self.loss_net)
        seen_channels = self.loss_net.config.channels[1:]
        with self.seeded():
            self.G = self.new_generator()
            self.encoder = ImageEncoder(
                sizes["z_dim"],
                self.G.num_ws,
                sizes["w_dim"],
                sizes["img_resolution"],
                sizes["mapping_layers"],
            )
            self.D = self.new_discriminator()
            self.feature_D = FeatureDiscriminator(seen_channels)
            self.augmentation = AdaptiveAugmentation()
        self.modules = {
            "generator": self.G,
            "encoder": self.encoder,
            "discriminator": self.D,
            "feature_discriminator": self.feature_D,
            "augmentation": self.augmentation,
        }
        for module in self.modules.values():
            module.to(self.device)
        # β2 and the rate are corrected for lazy R1 (StyleGAN2, App. B)
        lazy, rate = settings.r1_interval / (settings.r1_interval + 1), settings.learning_rate
        parameters_G = [*self.G.parameters(), *self.encoder.parameters()]
        parameters_D = [
            {"params": list(self.D.parameters()), "lr": rate * lazy},
            {"params": list(self.feature_D.parameters()), "lr": rate / 8},
        ]
        self.opt_G = torch.optim.Adam(parameters_G, rate, (0.9, 0.99), fused=True)
        self.opt_D = torch.optim.Adam(parameters_D, rate, (0.0, 0.99**lazy), fused=True)
        self.optimizers = {"generator": self.opt_G, "discriminator": self.opt_D}

    def new_generator(self) -> Any:
        """G before its first step."""
        return StyleGAN2Generator(c_dim=0, **self.settings.generator)

    def new_discriminator(self) -> Discriminator:
        """D of G's pictures, as wide as G."""
        sizes = self.settings.generator
        channels = {name: sizes[name] for name in ("channel_base", "channel_max")}
        return Discriminator(sizes["img_resolution"], 3, **channels)

    def sample(self, step: int, averaged: dict[str, Any]) -> np.ndarray:
        return sample_grid(averaged["generator"], averaged["encoder"], self.test_set.images[:8])

    def export(self, result: LoopResult, ship: Ship) -> None:
        G, encoder = result.ema["generator"], result.ema["encoder"]
        # The average holds a trace of what the mapping network was before it was fitted and frozen.
        G.mapping.load_state_dict(self.G.mapping.state_dict())
        set_typical_latent(G)
        G = G.half().float()  # what is shipped is what is measured
        sizes = G.config
        ship(
            self.folders.out or self.folders.weights / "generator",
            G,
            "StyleGAN2 generator of the mini world",
            f"`StyleGAN2Generator`: z (B, {sizes.z_dim}) to ws (B, {G.num_ws}, {sizes.w_dim}) to"
            f" images (B, 3, {sizes.img_resolution}, {sizes.img_resolution}) in [-1, 1]. Averaged"
            f" weights. The first {self.settings.warmup_images} images were the autoencoder warm"
            " start. SWD is the sliced Wasserstein distance of 7x7 Laplacian-pyramid patches;"
            " lower is better.",
            measure(G, encoder, self.train_set.images, self.test_set.images),
        )
