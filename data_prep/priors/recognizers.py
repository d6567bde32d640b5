"""The loss network and the three judges of the evaluation protocol.

    python -m data_prep.priors.trainer judge_parser --minutes 9

The loss network and the judges never share weights, architecture or seed. Losses, weights and
schedules are our choice (not specified in the paper's available sources).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from tyro.conf import Suppress

from data_prep.priors.cpu_speed import placed
from data_prep.priors.recipe import Recipe, Settings, Ship, start_from
from data_prep.priors.recognizer_augmentation import augment
from data_prep.priors.recognizer_losses import (
    Losses,
    Targets,
    attribute_losses,
    identity_losses,
    loss_net_losses,
    parser_losses,
)
from data_prep.priors.recognizer_measurements import MEASURE, hair_color_names, measure_hair_pixels
from dmgi_lib.dataset import to_float
from dmgi_lib.evaluation.metrics import HairColorReference
from dmgi_lib.recognizers import AttributeJudge, IdentityJudge, ParserJudge, Recognizer
from dmgi_lib.training.loop import LoopResult


@dataclass(frozen=True)
class RecognizerSettings(Settings):
    """How one network is trained.

    Args:
        which: the network
        start: weight folder of the same architecture to start from; default: random weights
        color_jitter: see `augment`; 0 where hair or skin colour is a label
        weight_decay: of AdamW
    """

    minutes: float = 9.0
    learning_rate: float = 2e-3
    ema_half_life_steps: float = 100.0
    cooldown: float = 0.5
    which: Suppress[str] = "loss_net"
    start: Path | None = None
    color_jitter: float = 0.0
    weight_decay: float = 0.02


# Each network has a seed of its own, of weights, batches and augmentation.
SETTINGS: dict[str, RecognizerSettings] = {
    "loss_net": RecognizerSettings(minutes=24.0, seed=10),
    "judge_parser": RecognizerSettings(which="judge_parser", seed=21, color_jitter=0.15),
    "judge_attributes": RecognizerSettings(which="judge_attributes", seed=32, minutes=60.0),
    "judge_identity": RecognizerSettings(which="judge_identity", seed=43, weight_decay=0.05),
}
# What builds a network, and (network, images, masks, rows, targets) -> its losses.
PARTS: dict[str, tuple[Callable[[], ModelMixin], Callable[..., Losses]]] = {
    "loss_net": (Recognizer, loss_net_losses),
    "judge_parser": (ParserJudge, parser_losses),
    "judge_attributes": (AttributeJudge, attribute_losses),
    "judge_identity": (IdentityJudge, identity_losses),
}


class RecognizerRecipe(Recipe[RecognizerSettings]):
    """A network that reads faces: for losses, or as a judge in the evaluation."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        settings = self.settings
        self.name, self.averaged = settings.which, (settings.which,)
        build, self.losses = PARTS[settings.which]
        with self.seeded():
            network: Any = build()
        start_from(network, settings.start)
        self.network = placed(network, self.device)
        optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=settings.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=settings.weight_decay,
        )
        self.modules, self.optimizers = {self.name: self.network}, {self.name: optimizer}
        self.targets = Targets(self.train_set, self.device)

    def step(self, step: int, rng: torch.Generator) -> dict[str, float]:
        rows = self.rows(len(self.train_set), step)
        images, masks = self.train_set.images[rows], self.train_set.masks[rows]
        jitter = self.settings.color_jitter
        x, m = augment(images.to(self.device), masks.to(self.device), rng, jitter)
        self.network.train()
        with self.autocast():
            losses = self.losses(self.network, self.place(x), m, rows, self.targets)
        self.update(self.optimizers[self.name], torch.stack(list(losses.values())).sum(), clip=5.0)
        return {name: value.item() for name, value in losses.items()}

    def export(self, result: LoopResult, ship: Ship) -> None:
        network = result.ema[self.name].half().float()  # what is shipped is what is measured
        found = MEASURE[self.name](network, self.test_set)
        out = self.folders.out or self.folders.weights / self.name
        reference = None
        if self.name == "judge_attributes":
            images, masks = to_float(self.train_set.images), self.train_set.masks
            reference = HairColorReference.fit(images, masks, hair_color_names(self.train_set))
            found |= measure_hair_pixels(reference, self.test_set)
        measurements = {f"{name} (test)": value for name, value in found.items()}
        ship(out, network, *DESCRIPTIONS[self.name], measurements)
        if reference is not None:
            reference.save(out / "hair_colors.json")


DESCRIPTIONS: dict[str, tuple[str, str]] = {
    "loss_net": (
        "Loss network of the mini world",
        "`Recognizer`: images (B, 3, 128, 128) in [-1, 1] to features, identity, parsing (64 px), "
        "attributes. Used in training losses, never in evaluation. Its parsing is measured "
        "enlarged to 128 px.",
    ),
    "judge_parser": (
        "Parser judge of the mini world",
        "`ParserJudge`: images (B, 3, 128, 128) in [-1, 1] to 19-class maps at 128 px. Used in "
        "evaluation, never in losses.",
    ),
    "judge_attributes": (
        "Attribute judge of the mini world",
        "`AttributeJudge`: images (B, 3, 128, 128) in [-1, 1] to 43 attributes and the hair "
        "colour. Used in evaluation, never in losses. `hair_colors.json` holds the reference "
        "colours of `hair_color_by_pixels`, measured on the training "
        "images. White hair counts as gray.",
    ),
    "judge_identity": (
        "Identity judge of the mini world",
        "`IdentityJudge`: images (B, 3, 128, 128) in [-1, 1] to the head shape (48) and skin tone "
        "(1). Used in evaluation, never in losses. Different pairs: a first and a second view.",
    ),
}
