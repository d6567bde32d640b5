"""How the 2D prior is trained in its two phases; see `stylegan2`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tyro.conf import Suppress

from data_prep.priors.latent_prior import PriorFit
from data_prep.priors.recipe import Settings


@dataclass(frozen=True)
class StyleGAN2Settings(Settings):
    """Sizes, and losses of the two phases; weights are our choice unless a paper is named.

    Args:
        generator: arguments of StyleGAN2Generator
        warmup_images: images of phase A
        growth: (resolution, share of phase A until which it is trained), the rest is trained in
            full; as in progressive growing (arXiv 1710.10196), on skip outputs
        warmup_rate: factor on the learning rate in phase A
        ramp_images: images over which phase B's adversarial weight rises to 1
        encoded_share: share of phase B's batch that comes from the encoder
        code_noise: σ of the noise on encoded z in phase A; a third of it in phase B
        prior_images: whose codes the mapping network learns to draw
        prior: how it learns that
        truncated_share: share of phase B's samples that are pulled towards the mean latent: an
            encoder that is unsure writes such codes
        lowest_psi: how far they are pulled at most
        part_weight: weight of pixels of eyes, brows and mouth; others have 1
        offset_share: share of encoded samples that use W+ offsets
        mixing: probability of style mixing on sampled z (StyleGAN, Sec. 3.1)
        r1_gamma: weight of R1
        r1_interval: steps between two R1 steps (lazy regularisation, StyleGAN2 App. B)
        offset_weight: of the mean square of the W+ offsets in phase A
        reconstruction_weight: of the pixel L1 in phase B
        feature_weight: of the D-feature L1 in phase B
        perceptual_weight: of the loss network's feature distance, on reconstructions
        parsing_weight: of its parsing's cross-entropy, on reconstructions
    """

    minutes: float = 130.0
    batch_size: int = 16
    learning_rate: float = 0.002
    cooldown: float = 0.1
    generator: Suppress[dict[str, Any]] = field(
        default_factory=lambda: {
            "z_dim": 128,
            "w_dim": 128,
            "img_resolution": 128,
            "mapping_layers": 4,
            "channel_base": 2048,
            "channel_max": 128,
        }
    )
    warmup_images: int = 128_000
    growth: Suppress[tuple[tuple[int, float], ...]] = ((32, 0.28), (64, 0.56))
    warmup_rate: float = 3.0
    ramp_images: int = 8_000
    encoded_share: float = 0.5
    code_noise: float = 0.1
    prior_images: int = 6000
    prior: Suppress[PriorFit] = field(default_factory=PriorFit)
    truncated_share: float = 0.5
    lowest_psi: float = 0.4
    part_weight: float = 4.0
    offset_share: float = 0.5
    mixing: float = 0.5
    r1_gamma: float = 0.5
    r1_interval: int = 16
    offset_weight: float = 0.1
    reconstruction_weight: float = 2.0
    feature_weight: float = 1.0
    perceptual_weight: float = 1.0
    parsing_weight: float = 0.2

    def __post_init__(self) -> None:
        if self.batch_size < 8 or self.batch_size % 8:
            raise ValueError(
                f"--batch-size came as {self.batch_size}; expected a multiple of 8, for halves and"
                " groups of four."
            )
