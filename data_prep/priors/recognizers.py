"""The loss network and the three judges of the evaluation protocol.

    python -m data_prep.priors.trainer judge_parser --minutes 9

The loss network and the judges never share weights, architecture or seed. Losses, weights and
schedules are our choice (not specified in the paper's available sources). Photographs have no
identity codes: on them the loss network's identity head stays untrained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor
from tyro.conf import Suppress

from data_prep.priors.recipe import Recipe, Settings, Ship
from data_prep.priors.recognizer_augmentation import augment
from data_prep.priors.recognizer_measurements import (
    HIDDEN,
    READINGS,
    hair_color_labels,
    hair_color_names,
    measure,
    measure_hair_pixels,
    true_codes,
)
from dmgi_lib.dataset import ATTRIBUTES, FACE_ATTRIBUTES, FaceDataset, to_float
from dmgi_lib.devices import moved, taken
from dmgi_lib.evaluation.metrics import HairColorReference
from dmgi_lib.masks import CLASSES
from dmgi_lib.recognizers import (
    HAIR_COLORS,
    AttributeJudge,
    IdentityJudge,
    ParserJudge,
    Recognizer,
)
from dmgi_lib.training.loop import LoopResult
from dmgi_lib.training.run_files import Logged


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
BUILD: dict[str, Callable[..., ModelMixin]] = {
    "loss_net": Recognizer,
    "judge_parser": ParserJudge,
    "judge_attributes": AttributeJudge,
    "judge_identity": IdentityJudge,
}


class Targets:
    """Labels of a training set on a device, and the class weights that balance them."""

    def __init__(self, dataset: FaceDataset, device: torch.device) -> None:
        self.dataset, self.device = dataset, device
        self.attributes = dataset.attributes.to(device)
        hair = hair_color_labels(dataset)
        self.hair, self.named = hair.to(device), hair != HIDDEN  # the latter on the CPU

    @cached_property
    def codes(self) -> Tensor | None:
        """(N, 49); None of photographs."""
        codes = true_codes(self.dataset)
        return codes if codes is None else codes.to(self.device)

    @cached_property
    def parsing_weight(self) -> Tensor:
        """(19,): inverse square root of a class's share of pixels, at most 8: thin parts count."""
        counts = torch.bincount(self.dataset.masks.flatten(), minlength=len(CLASSES)).double()
        weight = (counts / counts.sum() * len(CLASSES)).clamp(min=1e-9).rsqrt().clamp(max=8.0)
        return weight.float().to(self.device)

    @cached_property
    def attribute_weight(self) -> Tensor:
        """(A,) weight of true samples: false / true, within 1/10..10; what is rare counts too."""
        yes, no = (self.attributes == 1).sum(0), (self.attributes == 0).sum(0)
        return ((no + 1.0) / (yes + 1.0)).clamp(0.1, 10.0)

    @cached_property
    def hair_weight(self) -> Tensor:
        """(6,): inverse share of each hair colour, at most 5; 0 for one that does not occur."""
        hair = self.hair.cpu()
        counts = torch.bincount(hair[hair >= 0], minlength=len(HAIR_COLORS)).float()
        weight = (counts.sum() / (counts.clamp(min=1) * (counts > 0).sum())).clamp(max=5.0)
        return torch.where(counts > 0, weight, 0.0).to(self.device)


def reading_losses(
    read: Mapping[str, Tensor], masks: Tensor, rows: Tensor, targets: Targets
) -> dict[str, Tensor]:
    """Loss of each reading that there is, all equally weighted.

    Args:
        read:  parsing (B, 19, S, S) logits, code (B, 49), attributes (B, A) and hair_color (B, 6)
               logits; any of them
        masks: (B, H, W) class ids; they are thinned to S
        rows:  (B,) of the training set, on the CPU
    """
    losses = {}
    named, rows = targets.named[rows].any(), moved(rows, targets.device)
    if "parsing" in read:
        stride = masks.shape[-1] // read["parsing"].shape[-1]
        wanted = masks[:, ::stride, ::stride].long()
        parsing = read["parsing"].float()
        losses["parsing"] = F.cross_entropy(parsing, wanted, targets.parsing_weight)
    if "code" in read and targets.codes is not None:
        losses["code"] = F.mse_loss(read["code"].float(), targets.codes[rows])
    if "attributes" in read:
        wanted = targets.attributes[rows]
        per_label = F.binary_cross_entropy_with_logits(
            read["attributes"].float(),
            (wanted == 1).float(),
            pos_weight=targets.attribute_weight,
            reduction="none",
        )
        known = (wanted >= 0).float()
        losses["attributes"] = (per_label * known).sum() / known.sum().clamp(min=1)
        color, hair = targets.hair[rows], read["hair_color"].float()
        if named:  # else the mean would be of nothing
            losses["hair_color"] = F.cross_entropy(hair, color, targets.hair_weight)
    return losses


class RecognizerRecipe(Recipe[RecognizerSettings]):
    """A network that reads faces: for losses, or as a judge in the evaluation.

    Raises:
        ValueError: judge_identity on photographs, whose identity codes nobody knows
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        settings = self.settings
        self.name, self.averaged = settings.which, (settings.which,)
        self.targets = Targets(self.train_set, self.device)
        if self.name == "judge_identity" and self.targets.codes is None:
            raise ValueError(
                f"{self.train_set.folder} holds no shape codes and skin tones, which judge_identity"
                " learns; expected the rendered face world: name its folder with --data."
            )
        with self.seeded():
            network = self._network()
        self.network = self.train_with(network, settings.start, settings.weight_decay)

    def _network(self) -> ModelMixin:
        """The network; of labels it reads those of faces, and what else the training set tells."""
        build = BUILD[self.name]
        if build not in (Recognizer, AttributeJudge):
            return build()
        told = (self.targets.attributes >= 0).any(0).tolist()
        pairs = zip(ATTRIBUTES, told, strict=True)
        return build(attributes=tuple(n for n, t in pairs if t or n in FACE_ATTRIBUTES))

    def step(self, step: int, rng: torch.Generator) -> Logged:
        rows = self.rows(len(self.train_set), step)
        images, masks = (taken(x, rows, self.device) for x in (self.images, self.masks))
        x, m = augment(images, masks, rng, self.settings.color_jitter)
        self.network.train()
        with self.autocast():
            if isinstance(self.network, AttributeJudge):  # it learns parsing beside them
                names = "attributes", "hair_color", "parsing"
                read = dict(zip(names, self.network.labels_and_parsing(self.place(x)), strict=True))
            else:
                read = READINGS[type(self.network)](self.network, self.place(x))
            losses = reading_losses(read, m, rows, self.targets)
        self.update(torch.stack(list(losses.values())).sum(), clip=5.0)
        return {name: value.detach() for name, value in losses.items()}

    def export(self, result: LoopResult, ship: Ship) -> None:
        network = result.ema[self.name].half().float()  # what is shipped is what is measured
        found = measure(network, self.test_set)
        title, description = DESCRIPTIONS[self.name]
        if self.name == "loss_net" and self.targets.codes is None:
            description += " Its identity head is untrained: photographs have no shape codes."
        out, reference = self.folders.out or self.folders.weights / self.name, None
        if self.name == "judge_attributes":
            images, masks = to_float(self.train_set.images), self.train_set.masks
            reference = HairColorReference.fit(images, masks, hair_color_names(self.train_set))
            found |= measure_hair_pixels(reference, self.test_set)
        ship(out, network, title, description, {f"{k} (test)": v for k, v in found.items()})
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
        "`AttributeJudge`: images (B, 3, 128, 128) in [-1, 1] to the attributes of its config and "
        "the hair colour. Used in evaluation, never in losses. `hair_colors.json` holds the "
        "reference colours of `hair_color_by_pixels`, measured on the training images. White hair "
        "counts as gray among the hair colours.",
    ),
    "judge_identity": (
        "Identity judge of the mini world",
        "`IdentityJudge`: images (B, 3, 128, 128) in [-1, 1] to the head shape (48) and skin tone "
        "(1). Used in evaluation, never in losses. Different pairs: a first and a second view.",
    ),
}
