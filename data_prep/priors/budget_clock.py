"""How much of a training's budget is used: what a step must know whose phases go by the clock."""

from __future__ import annotations

import time

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from data_prep.priors.recipe import Settings


class BudgetClock(nn.Module):
    """A module only because checkpoints hold modules: a resumed training's clock goes on."""

    seconds: Tensor
    begun: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seconds", torch.zeros([], dtype=torch.float64))
        self.register_buffer("begun", torch.tensor(-1))  # the last phase's first step
        self.last: float | None = None

    def used(self, step: int, settings: Settings, accelerator: Accelerator) -> float:
        """Share of minutes or of max_steps, whichever is more; the same in all processes."""
        now = time.monotonic()
        if self.last is not None:
            self.seconds += now - self.last
        self.last = now
        used = float(self.seconds) / 60.0 / settings.minutes if settings.minutes else 1.0
        if settings.max_steps:
            used = max(used, step / settings.max_steps)
        if accelerator.num_processes > 1:
            used = float(broadcast(torch.tensor(used, device=accelerator.device)))
        return used
