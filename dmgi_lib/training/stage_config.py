"""The stages of the method, and what each of them may be told.

That there are stages, and supervision by I_0^d and across t, is the paper's; the rest is our choice
(not specified in the paper's available sources).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from dmgi_lib.training import losses

STAGES: dict[int, tuple[str, ...]] = {1: ("mapping_network",), 2: ("style_modulation",)}
STAGES[3] = STAGES[1] + STAGES[2]
TARGETS = ("both", "diffusion", "image")


@dataclass(frozen=True)
class StageConfig:
    """What is trained and how it is supervised.

    stage: 1, 2 or 3
    weights: of the loss terms
    steps: steps of the reverse process drawn from; empty means all that the cache holds
    schedule: stage 3, see `losses.supervision_shares`
    sampling: how steps are drawn, see `losses.step_probabilities`
    targets: of T (stages 2 and 3): "both", I_0^d alone ("diffusion"), or I alone ("image")
    held_out: last identities of the dataset that are measured and never trained on
    """

    stage: int
    weights: losses.LossWeights = field(default_factory=losses.LossWeights)
    steps: tuple[int, ...] = ()
    schedule: str = "linear"
    sampling: str = "uniform"
    targets: str = "both"
    held_out: int = 64

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise ValueError(f"stage came as {self.stage}; expected one of {sorted(STAGES)}.")
        if self.targets not in TARGETS:
            raise ValueError(f"targets came as {self.targets!r}; expected one of {TARGETS}.")
        losses.supervision_shares(torch.zeros(1), 1, self.schedule)  # refuses an unknown schedule
        losses.step_probabilities([0], 1, self.sampling)
