"""Losses of stages 1-3: L2, perceptual, parts, identity, a prior on the code, mask and caption.

Every loss is a callable that returns one number per sample, (B,), because stage 3 weighs each
sample by its own step. The frozen network behind them is the loss net
(`recognizers.Recognizer`); the judges of the evaluation are other networks. Which losses are
used, and their weights, are our choice (not specified in the paper's available sources), as options
of `LossWeights`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dmgi_lib.checks import one_of
from dmgi_lib.devices import moved
from dmgi_lib.masks import CLASSES

PARTS = tuple(
    CLASSES.index(name)
    for name in ("l_eye", "r_eye", "l_brow", "r_brow", "mouth", "u_lip", "l_lip")
)
SCHEDULES = ("linear", "uniform")
SAMPLINGS = ("uniform", "early", "late")


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; the defaults are those of the shipped networks for masks.

    Args:
        l2: squared difference of images
        perceptual: distance of the loss net's features
        identity: distance of its identity vectors
        parsing: cross-entropy between x and its parsing of I'; not even computed at 0
        attributes: the same between what c names and its attributes of I'; likewise
        parts: squared difference in eyes, brows and mouth, see `parts_loss`; likewise
        code_prior: distance to G's own codes, see `CodePrior`; likewise
        row_growth: of `CodePrior`; no weight of a term
        adversarial: how unlike a photograph of x I' looks to a `ParsingDiscriminator`, which learns
            beside M and T; 0 trains none
        code_critic: how unlike G's own the rows of w_t look to `critics.CodeCritic`; e4e has 0.1
    """

    l2: float = 1.0
    perceptual: float = 0.8
    identity: float = 0.1
    parsing: float = 0.1
    attributes: float = 0.4
    parts: float = 1.0
    code_prior: float = 0.06
    row_growth: float = 20.0
    adversarial: float = 0.0
    code_critic: float = 0.0

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 0:
            raise ValueError(f"loss weights came as {vars(self)}; expected none below 0.")
        if self.row_growth == 0:
            raise ValueError("row_growth came as 0; expected above 0, 1 for equal rows.")


def l2_loss(image: Tensor, target: Tensor) -> Tensor:
    """‖I' − I‖² per pixel and channel. image, target: (B, 3, H, W) in [-1, 1] → (B,)."""
    return (image - target).square().mean(dim=(1, 2, 3))


def parts_loss(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """‖I' − I‖² within each of PARTS, per pixel and channel, averaged over those in the picture.

    Words such as "smiling" or "with green eyes" are seen in few pixels, which `l2_loss` hardly
    counts; here every part counts alike, however small. image, target: (B, 3, H, W) in [-1, 1],
    mask: (B, H, W) integer class ids → (B,), 0 where no part is visible.
    """
    errors = (image - target).square().mean(1)[:, None]
    inside = torch.stack([mask == part for part in PARTS], 1).to(errors.dtype)
    area = inside.sum((2, 3))
    within = (errors * inside).sum((2, 3)) / area.clamp(min=1)
    return within.sum(1) / (area > 0).sum(1).clamp(min=1)


@torch.no_grad()
def drawn_codes(G: Any, count: int, rng: torch.Generator) -> Tensor:
    """Codes w (count, w_dim) that G's mapping network draws; rng: a generator of the CPU."""
    z = torch.randn(count, G.config.z_dim, generator=rng)
    return torch.cat([G.mapping(moved(part, G.mean_latent.device))[:, 0] for part in z.split(512)])


class CodePrior:
    """Squared Mahalanobis distance of each style row to G's own codes.

        d(w) = mean_r k_r ‖L⁻¹ (w_r − μ)‖² / w_dim,    L Lᵀ = Σ + ridge · tr(Σ)/w_dim · 1

    μ and Σ are mean and covariance of codes that G's mapping network draws. The customary
    ‖w − w_avg‖² lets a code go as far along a direction in which G's codes hardly vary as along one
    in which they vary widely; here that costs as much more as it is less likely. G's own draws
    score 1 on average (a little less, by the ridge). The weights k_r have mean 1 and grow from the
    coarsest row to the finest by the factor `row_growth`: fine rows decide sharpness, and no loss
    on low frequencies holds them. Our choice (not specified in the paper's available sources).

    Args:
        draws: (N, w_dim) codes w; the mapping network gives all style rows the same, so one
            distribution serves all rows.
        num_ws: style rows.
        row_growth: weight of the finest row over that of the coarsest, above 0.
        ridge: added to the variances, as a share of their mean.
    """

    def __init__(
        self, draws: Tensor, num_ws: int, row_growth: float = 1.0, ridge: float = 0.01
    ) -> None:
        codes = draws.cpu().double()  # once, and Apple's GPUs know no double
        covariance = torch.cov(codes.T)
        floor = ridge * covariance.diagonal().mean() * torch.eye(len(covariance)).to(covariance)
        factor = torch.linalg.cholesky(covariance + floor)
        identity = torch.eye(len(factor)).to(factor)
        self.mean = codes.mean(0).to(draws)
        self.whitening = torch.linalg.solve_triangular(factor, identity, upper=False).to(draws)
        weights = row_growth ** torch.linspace(0, 1, num_ws)
        self.row_weights = (weights / weights.mean()).to(draws)

    @classmethod
    def of(cls, G: Any, row_growth: float = 1.0, count: int = 4096) -> CodePrior:
        """The prior of a generator, from `count` draws that are the same every time."""
        draws = drawn_codes(G, count, torch.Generator().manual_seed(0))
        return cls(draws, G.num_ws, row_growth)

    def rows(self, w: Tensor) -> Tensor:
        """w: (B, num_ws, w_dim) → (B, num_ws), each row's distance without its weight."""
        with torch.autocast(w.device.type, enabled=False):  # bf16 would blur narrow directions
            return ((w - self.mean) @ self.whitening.T).square().mean(2)

    def __call__(self, w: Tensor) -> Tensor:
        """w: (B, num_ws, w_dim) → (B,)."""
        return (self.rows(w) * self.row_weights).mean(1)


@dataclass
class NetworkLoss:
    """A comparison that the loss net makes: a `recognizers.Recognizer`, or what reads the same.

    `features(image)` is a list of (B, C, H, W), `identity(image)` unit vectors (B, D),
    `attributes(image)` logits (B, A), `net(image).parsing` logits (B, 19, h, w).
    """

    net: Any


def perceptual_distance(features_a: Sequence[Tensor], features_b: Sequence[Tensor]) -> Tensor:
    """LPIPS without its learned weights: lists of (B, C, S, S) features of two images → (B,).

    Mean over places of ‖a/‖a‖ − b/‖b‖‖², averaged over the scales; 0 for equal images.
    """
    scales = [
        (F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)).square().sum(1).mean((1, 2))
        for a, b in zip(features_a, features_b, strict=True)
    ]
    return torch.stack(scales).mean(0)


class PerceptualLoss(NetworkLoss):
    """`perceptual_distance` of the net's features."""

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """image, target: (B, 3, H, W) in [-1, 1] → (B,). No gradient reaches the target."""
        with torch.no_grad():
            wanted = self.net.features(target)
        return perceptual_distance(self.net.features(image), wanted)


class IdentityLoss(NetworkLoss):
    """1 − cosine of identity vectors."""

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """image, target: (B, 3, H, W) in [-1, 1] → (B,) in [0, 2]."""
        with torch.no_grad():
            wanted = self.net.identity(target).float()
        return 1.0 - (self.net.identity(image).float() * wanted).sum(1)


class ParsingLoss(NetworkLoss):
    """Cross-entropy between the mask x and the loss net's parsing of I'."""

    def __call__(self, image: Tensor, mask: Tensor) -> Tensor:
        """image: (B, 3, H, W) in [-1, 1], mask: (B, H, W) integer class ids → (B,)."""
        logits = self.net(image).parsing.float()
        small = F.interpolate(mask[:, None].float(), size=logits.shape[-2:], mode="nearest-exact")
        return F.cross_entropy(logits, small[:, 0].long(), reduction="none").mean((1, 2))


class AttributeLoss(NetworkLoss):
    """Cross-entropy between what the caption names and the loss net's attributes of I'.

    The mean over what is named and read; 0 for a caption that names nothing such.
    """

    def __call__(self, image: Tensor, claims: Tensor) -> Tensor:
        """image: (B, 3, H, W) in [-1, 1], claims: (B, A), 1 true, 0 false, -1 not named → (B,)."""
        logits = self.net.attributes(image).float()
        named = (claims >= 0) & self.net.reads.to(claims.device)
        errors = F.binary_cross_entropy_with_logits(logits, (claims == 1).float(), reduction="none")
        return (errors * named).sum(1) / named.sum(1).clamp(min=1)


class SharedFeatures:
    """Lets several losses read one pass of the loss net over the same image.

        with SharedFeatures(net):
            perceptual(image, target) + identity(image, target)

    Inside, `net.features(x)` computes once for each tensor object x and gradient mode.
    """

    def __init__(self, net: Any) -> None:
        self.net = net

    def __enter__(self) -> None:
        compute = self.net.features
        known: list[tuple[Tensor, bool, list[Tensor]]] = []

        def features(image: Tensor) -> list[Tensor]:
            for seen, with_grad, found in known:
                if seen is image and with_grad == torch.is_grad_enabled():
                    return found
            known.append((image, torch.is_grad_enabled(), compute(image)))
            return known[-1][2]

        self.net.features = features

    def __exit__(self, *error: object) -> None:
        del self.net.features


def supervision_shares(
    steps: Tensor, num_inference_steps: int, schedule: str
) -> tuple[Tensor, Tensor]:
    """Stage 3: how much of a sample's loss comes from I_0^d (text) and how much from I (structure).

    "linear" goes from text-heavy at early steps (0.75 : 0.25) to structure-heavy at late ones, as
    the paper's supervision across t suggests; "uniform" is its control. steps: (B,) 0 … S-1 →
    text and structure shares, each (B,), summing to 1. Raises ValueError for another schedule.
    """
    if one_of("schedule", schedule, SCHEDULES) == "uniform":
        text = torch.full(steps.shape, 0.5, device=steps.device)
    else:
        text = 0.75 - 0.5 * steps.float() / max(1, num_inference_steps - 1)
    return text, 1.0 - text


def step_probabilities(steps: Sequence[int], num_inference_steps: int, sampling: str) -> Tensor:
    """How likely each of `steps` is to be drawn in training, (len(steps),), summing to 1.

    "uniform", or weighted towards t = T ("early") or t = 0 ("late"), linearly from 1 to 3; raises
    ValueError for another sampling.
    """
    one_of("sampling", sampling, SAMPLINGS)
    place = torch.tensor(list(steps)).float() / max(1, num_inference_steps - 1)
    weight = {"uniform": torch.ones_like(place), "early": 3 - 2 * place, "late": 1 + 2 * place}
    return weight[sampling] / weight[sampling].sum()
