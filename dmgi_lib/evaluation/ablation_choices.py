"""The ablations by name: what the paper's available sources leave open, chosen another way.

Fields and their alternatives are those of MappingConfig, ModulationConfig, StageConfig, LossWeights
and CacheConfig. CHOICES vary what the paper leaves open; RECIPES are ways to crisper and more
varied faces, each beside plain stage 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Choice:
    """One row: what differs from the defaults in M, in T, and in the training of each."""

    mapping: Mapping[str, Any] = field(default_factory=dict)  # fields of MappingConfig
    modulation: Mapping[str, Any] = field(default_factory=dict)  # fields of ModulationConfig
    first: Mapping[str, Any] = field(default_factory=dict)  # fields of stage 1's StageConfig
    second: Mapping[str, Any] = field(default_factory=dict)  # of stage 2's
    third: Mapping[str, Any] | None = None  # of stage 3's; None: no stage 3
    losses: Mapping[str, Any] = field(default_factory=dict)  # fields of LossWeights, in all stages
    source: str = "reverse"  # "noised": M learns from features that leak I; "augmented": both
    # networks learn from those of x as if drawn by hand
    longer: int = 1  # T is trained for that many times the steps
    seed: int = 0  # added to the budget's
    against: str = "default"  # the row that differs in this choice alone

    def cache(self, stage: int) -> str:
        """Which features a stage learns from."""
        return "reverse" if self.source == "noised" and stage > 1 else self.source

    def depends_on(self, stage: int) -> dict[str, Any]:
        """All that the networks after a stage depend on; equal for rows that can share them."""
        names = ["losses", "source", "seed", "mapping", "first", "modulation", "second", "longer"]
        return {name: getattr(self, name) for name in [*names, "third"][: (5, 8, 9)[stage - 1]]}


def _drawn(sampling: str) -> dict[str, Any]:
    return {"first": {"sampling": sampling}, "second": {"sampling": sampling}}


MULTI = "stage 3: default"
CHOICES: dict[str, Choice] = {
    "default": Choice(),
    "M: one row for all layers (W)": Choice(mapping={"latent": "w"}),
    "M: the code itself, no offsets from w_avg": Choice(mapping={"origin": "zero"}),
    "M: trained on noised pictures (leaks I)": Choice(source="noised"),
    "steps: drawn early": Choice(**_drawn("early")),
    "steps: drawn late": Choice(**_drawn("late")),
    "steps: only the first": Choice(first={"steps": (0,)}, second={"steps": (0,)}),
    "T: max over heads and words": Choice(modulation={"pool": "heads_and_tokens"}),
    "T: averaged over positions": Choice(modulation={"average": "space"}),
    "T: local path alone": Choice(modulation={"paths": "local"}),
    "T: averaged path alone": Choice(modulation={"paths": "averaged"}),
    "T: layout kept at 4 x 4 before its last layer": Choice(modulation={"pooled": 4}),
    "T: taught by I_0^d alone": Choice(second={"targets": "diffusion"}),
    "T: taught by I alone": Choice(second={"targets": "image"}),
    "T: trained for twice the steps": Choice(longer=2),
    "losses: no parsing": Choice(losses={"parsing": 0.0}),
    "losses: no attributes": Choice(losses={"attributes": 0.0}),
    "losses: no parts": Choice(losses={"parts": 0.0}),
    "losses: no code prior": Choice(losses={"code_prior": 0.0}),
    "losses: code prior alike in all rows": Choice(losses={"row_growth": 1.0}),
    MULTI: Choice(third={}, against="T: trained for twice the steps"),
    "stage 3: shares uniform over steps": Choice(third={"schedule": "uniform"}, against=MULTI),
    "stage 3: steps drawn early": Choice(third={"sampling": "early"}, against=MULTI),
    "stage 3: steps drawn late": Choice(third={"sampling": "late"}, against=MULTI),
    "stage 3: taught by I_0^d alone": Choice(third={"targets": "diffusion"}, against=MULTI),
    "stage 3: taught by I alone": Choice(third={"targets": "image"}, against=MULTI),
}

DISTILLED = "stage 3: taught by I_0^d alone"
RECIPES: dict[str, Choice] = {
    name: replace(choice, against=MULTI)
    for name, choice in {
        MULTI: CHOICES[MULTI],
        "recipe: I_0^d where x and c leave it open": Choice(third={"targets": "composite"}),
        DISTILLED: CHOICES[DISTILLED],
        "recipe: image critic": Choice(third={}, losses={"adversarial": 0.08}),
        "recipe: code critic": Choice(third={}, losses={"code_critic": 0.1}),
        "recipe: less L2": Choice(third={}, losses={"l2": 0.2}),
        "recipe: fine rows mixed": Choice(third={"mixing": 0.3}),
        "recipe: x as if drawn by hand": Choice(third={}, source="augmented"),
    }.items()
}
