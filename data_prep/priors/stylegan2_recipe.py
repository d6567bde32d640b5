"""How the 2D prior is trained in its two phases; see `train_stylegan2`."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_prep.priors.latent_prior import PriorFit


@dataclass(frozen=True)
class Recipe:
    """Losses of the two phases; weights are our choice unless a paper is named.

    Args:
        warmup_images:   images of phase A
        growth:          (resolution, share of phase A until which it is trained), the rest is
            trained in full; as in progressive growing (arXiv 1710.10196), on skip outputs
        warmup_rate:     factor on the learning rate in phase A
        ramp_images:     images over which phase B's adversarial weight rises to 1
        encoded_share:   share of phase B's batch that comes from the encoder
        code_noise:      σ of the noise on encoded z in phase A; a third of it in phase B
        prior_images: whose codes the mapping network learns to draw
        prior: how it learns that
        truncated_share, lowest_psi: share of phase B's samples that are pulled towards the mean
            latent, down to that psi: an encoder that is unsure writes such codes
        part_weight:     weight of pixels of eyes, brows and mouth; others have 1
        offset_share:    share of encoded samples that use W+ offsets
        mixing:          probability of style mixing on sampled z (StyleGAN, Sec. 3.1)
        r1_gamma:        weight of R1
        r1_interval:     steps between two R1 steps (lazy regularisation, StyleGAN2 App. B)
        offset_weight:   of the mean square of the W+ offsets in phase A
        reconstruction_weight, feature_weight: of the pixel and the D-feature L1 in phase B
        perceptual_weight, parsing_weight: of the loss network's feature distance and of its
            parsing's cross-entropy, on reconstructions, in both phases
        bf16:            autocast where that is fast; logits, R1 and styles stay fp32
    """

    warmup_images: int = 128_000
    growth: tuple[tuple[int, float], ...] = ((32, 0.28), (64, 0.56))
    warmup_rate: float = 3.0
    ramp_images: int = 8_000
    encoded_share: float = 0.5
    code_noise: float = 0.1
    prior_images: int = 6000
    prior: PriorFit = field(default_factory=PriorFit)
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
    bf16: bool = True
