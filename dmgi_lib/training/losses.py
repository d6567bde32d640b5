"""Losses of stages 1-3: L2, perceptual, identity, ‖w − w_avg‖², and mask consistency.

Every loss is a callable that returns one number per sample, (B,), because stage 3 weighs each
sample by its own step. The frozen network behind them is the loss net
(`evaluation.judges.Recognizer`); the judges of the evaluation are other networks. Which losses are
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

SCHEDULES = ("linear", "uniform")
SAMPLINGS = ("uniform", "early", "late")


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; a term with weight 0 is not computed.

    l2, perceptual, identity: image terms
    latent: ‖w − w_avg‖², keeps codes where G draws faces
    parsing: cross-entropy between x and the loss net's parsing of I'
    """

    l2: float = 1.0
    perceptual: float = 0.8
    identity: float = 0.1
    latent: float = 0.005
    parsing: float = 0.0

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 0:
            raise ValueError(f"loss weights came as {vars(self)}; expected none below 0.")


def l2_loss(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """‖I' − I‖² per pixel and channel. image, target: (B, 3, H, W) in [-1, 1] → (B,)."""
    return (image - target).square().mean(dim=(1, 2, 3))


def latent_regulariser(w: torch.Tensor, w_avg: torch.Tensor) -> torch.Tensor:
    """‖w − w_avg‖² per element. w: (B, num_ws, w_dim), w_avg: (w_dim,) → (B,)."""
    return (w - w_avg).square().mean(dim=(1, 2))


class PerceptualLoss:
    """Distance of channel-normalised features: summed over channels, mean over places and scales.

    Args:
        net: has `features(image) -> list of (B, C, H, W)`.
    """

    def __init__(self, net: Any) -> None:
        self.net = net

    def __call__(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """image, target: (B, 3, H, W) in [-1, 1] → (B,). No gradient reaches the target."""
        with torch.no_grad():
            wanted = [F.normalize(f.float(), dim=1) for f in self.net.features(target)]
        found = [F.normalize(f.float(), dim=1) for f in self.net.features(image)]
        scales = [(a - b).square().sum(1).mean((1, 2)) for a, b in zip(found, wanted, strict=True)]
        return torch.stack(scales).mean(0)


class IdentityLoss:
    """1 − cosine of identity vectors.

    Args:
        net: has `identity(image) -> (B, D) unit vectors`.
    """

    def __init__(self, net: Any) -> None:
        self.net = net

    def __call__(self, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """image, target: (B, 3, H, W) in [-1, 1] → (B,) in [0, 2]."""
        with torch.no_grad():
            wanted = self.net.identity(target).float()
        return 1.0 - (self.net.identity(image).float() * wanted).sum(1)


class ParsingLoss:
    """Cross-entropy between the mask x and the loss net's parsing of I'.

    Args:
        net: `net(image).parsing` are logits (B, 19, h, w).
    """

    def __init__(self, net: Any) -> None:
        self.net = net

    def __call__(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """image: (B, 3, H, W) in [-1, 1], mask: (B, H, W) integer class ids → (B,)."""
        logits = self.net(image).parsing.float()
        small = F.interpolate(mask[:, None].float(), size=logits.shape[-2:], mode="nearest-exact")
        return F.cross_entropy(logits, small[:, 0].long(), reduction="none").mean((1, 2))


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
        known: list[tuple[torch.Tensor, bool, list[torch.Tensor]]] = []

        def features(image: torch.Tensor) -> list[torch.Tensor]:
            for seen, with_grad, found in known:
                if seen is image and with_grad == torch.is_grad_enabled():
                    return found
            known.append((image, torch.is_grad_enabled(), compute(image)))
            return known[-1][2]

        self.net.features = features

    def __exit__(self, *error: object) -> None:
        del self.net.features


def supervision_shares(
    steps: torch.Tensor, num_inference_steps: int, schedule: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Stage 3: how much of a sample's loss comes from I_0^d (text) and how much from I (structure).

    "linear" goes from text-heavy at early steps (0.75 : 0.25) to structure-heavy at late ones, as
    the paper's supervision across t suggests; "uniform" is its control.

    Args:
        steps: (B,) 0 … S-1.

    Returns:
        text and structure shares, each (B,), summing to 1.

    Raises:
        ValueError: unknown schedule.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule came as {schedule!r}; expected one of {SCHEDULES}.")
    if schedule == "uniform":
        text = torch.full(steps.shape, 0.5)
    else:
        text = 0.75 - 0.5 * steps.float() / max(1, num_inference_steps - 1)
    return text, 1.0 - text


def step_probabilities(steps: Sequence[int], num_inference_steps: int, sampling: str) -> Tensor:
    """How likely each of `steps` is to be drawn in training, (len(steps),), summing to 1.

    "uniform", or weighted towards t = T ("early") or t = 0 ("late"), linearly from 1 to 3.

    Raises:
        ValueError: unknown sampling.
    """
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling came as {sampling!r}; expected one of {SAMPLINGS}.")
    place = torch.tensor(list(steps)).float() / max(1, num_inference_steps - 1)
    weight = {"uniform": torch.ones_like(place), "early": 3 - 2 * place, "late": 1 + 2 * place}
    return weight[sampling] / weight[sampling].sum()
