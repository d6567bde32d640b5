"""The loss network and the three judges of the evaluation protocol.

    python -m data_prep.priors.trainer judge_parser --minutes 9

The loss network and the judges never share weights, architecture or seed. Losses, weights and
schedules are our choice (not specified in the paper's available sources). Photographs have no
identity codes: on them the loss network's identity head stays untrained. The cards state readings
of ground-truth test images: no generated one can be expected to be read better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from tyro.conf import Suppress

from data_prep.priors.recipe import Recipe, Settings, Ship, start_from
from data_prep.priors.recognizer_augmentation import augment
from dmgi_lib.dataset import ATTRIBUTES, FACE_ATTRIBUTES, FaceDataset, to_float
from dmgi_lib.devices import moved, taken
from dmgi_lib.evaluation.metrics import (
    HairColorReference,
    attribute_accuracy,
    balanced_accuracy,
    confusion,
    hair_color_by_pixels,
    mean_iou,
    pixel_accuracy,
    verification_auc,
)
from dmgi_lib.masks import CLASSES
from dmgi_lib.recognizers import (
    HAIR_COLORS,
    AttributeJudge,
    IdentityJudge,
    ParserJudge,
    Recognizer,
    hair_color_name,
    identity_code,
)
from dmgi_lib.training.loop import LoopResult
from dmgi_lib.training.run_files import Logged

HIDDEN = -100  # the label that torch's cross-entropy ignores


@dataclass(frozen=True)
class RecognizerSettings(Settings):
    """How one network is trained."""

    minutes: float = 9.0
    learning_rate: float = 2e-3
    ema_half_life_steps: float = 100.0
    cooldown: float = 0.5
    which: Suppress[str] = "loss_net"  # the network
    # weight folder of the same architecture to start from, which may read fewer attributes;
    # default: random weights
    start: Path | None = None
    color_jitter: float = 0.0  # see `augment`; 0 where hair or skin colour is a label
    weight_decay: float = 0.02  # of AdamW


# Each network has a seed of its own, of weights, batches and augmentation.
SETTINGS: dict[str, RecognizerSettings] = {
    "loss_net": RecognizerSettings(minutes=24.0, seed=10),
    "judge_parser": RecognizerSettings(which="judge_parser", seed=21, color_jitter=0.15),
    "judge_attributes": RecognizerSettings(which="judge_attributes", seed=32, minutes=60.0),
    "judge_identity": RecognizerSettings(which="judge_identity", seed=43, weight_decay=0.05),
}


def readings(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """What a recognition network reads of images (B, 3, H, W) in [-1, 1], by name."""
    read = network(image)
    if isinstance(network, Recognizer):
        return read._asdict()
    if isinstance(network, AttributeJudge):
        return dict(zip(("attributes", "hair_color"), read, strict=True))
    return {"parsing" if isinstance(network, ParserJudge) else "code": read}


def hair_color_names(dataset: FaceDataset) -> list[str | None]:
    """The judge's name of each sample's hair colour ("white" is "gray"), None where unknown."""
    return [hair_color_name(record.get("hair_color")) for record in dataset.records]


def hair_color_labels(dataset: FaceDataset) -> Tensor:
    """(N,) indices into HAIR_COLORS, or HIDDEN where the colour is unknown or under a hat."""
    names = hair_color_names(dataset)
    labels = torch.tensor([HIDDEN if n is None else HAIR_COLORS.index(n) for n in names])
    named = [ATTRIBUTES.index(f"{color}_Hair") for color in ("Black", "Brown", "Blond", "Red")]
    hidden = (dataset.attributes[:, named] < 0).all(dim=1)
    return labels.masked_fill(hidden & (labels != HAIR_COLORS.index("none")), HIDDEN)


def true_codes(dataset: FaceDataset) -> Tensor | None:
    """(N, 49) regression targets of the identity networks; None of photographs, which lack them."""
    tones = [r.get("skin_tone") for r in dataset.records]
    if None in tones or any(r.get("shape_code") is None for r in dataset.records):
        return None
    return identity_code(dataset.shape_codes, torch.tensor(tones, dtype=torch.float32))


def start_from_fewer(network: Recognizer | AttributeJudge, folder: Path) -> None:
    """As `start_from`, from weights that may read fewer attributes: the others' rows stay.

    Raises:
        ValueError: also where they read attributes that `network` does not
    """
    known = (folder / "config.json").is_file()
    config = type(network).load_config(folder) if known else network.config
    labels = (*network.config.attributes, *HAIR_COLORS)
    read = (*config.get("attributes", FACE_ATTRIBUTES), *HAIR_COLORS)
    if more := sorted(set(read) - set(labels)):
        raise ValueError(
            f"the weights in {folder} read {more}, which the training set does not tell. Give"
            " weights that read no more than it tells, or leave --start away."
        )
    narrow = type(network)(attributes=read[: -len(HAIR_COLORS)])
    start_from(narrow, folder)
    rows, state = [labels.index(name) for name in read], network.state_dict()
    for name, weight in narrow.state_dict().items():
        if weight.shape == state[name].shape:
            state[name].copy_(weight)
        else:  # of the labels
            state[name][rows] = weight


class RecognizerRecipe(Recipe[RecognizerSettings]):
    """A network that reads faces: for losses, or as a judge in the evaluation.

    Raises:
        ValueError: judge_identity on photographs, whose identity codes nobody knows
    """

    def build(self) -> None:
        settings = self.settings
        self.name, self.averaged = settings.which, (settings.which,)
        self.attributes = self.train_set.attributes.to(self.device)
        hair = hair_color_labels(self.train_set)
        self.hair, self.named = hair.to(self.device), hair != HIDDEN  # the latter on the CPU
        self.codes = true_codes(self.train_set)  # (N, 49); None of photographs
        if self.codes is not None:
            self.codes = self.codes.to(self.device)
        elif self.name == "judge_identity":
            raise ValueError(
                f"{self.train_set.folder} holds no shape codes and skin tones, which judge_identity"
                " learns; expected the rendered face world: name its folder with --data."
            )
        cls, told = NETWORKS[self.name].build, (self.attributes >= 0).any(0).tolist()
        labels = zip(ATTRIBUTES, told, strict=True)  # those of faces, and what else the set tells
        read = tuple(name for name, known in labels if known or name in FACE_ATTRIBUTES)
        options = {"attributes": read} if cls in (Recognizer, AttributeJudge) else {}
        with self.seeded():
            network = cls(**options)
        start = settings.start
        if start is not None and options:
            start_from_fewer(network, start)
            start = None
        self.network = self.train_with(network, start, settings.weight_decay)

    @cached_property
    def parsing_weight(self) -> Tensor:
        """(19,): inverse square root of a class's share of pixels, at most 8: thin parts count."""
        counts = torch.bincount(self.train_set.masks.flatten(), minlength=len(CLASSES)).double()
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

    def losses(self, read: Mapping[str, Tensor], masks: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """Loss of each reading that there is, all equally weighted.

        Args:
            read:  parsing (B, 19, S, S) logits, code (B, 49), attributes (B, A) and hair_color
                   (B, 6) logits; any of them
            masks: (B, H, W) class ids; they are thinned to S
            rows:  (B,) of the training set, on the CPU
        """
        losses = {}
        read = {name: value.float() for name, value in read.items()}
        named, rows = self.named[rows].any(), moved(rows, self.device)
        if "parsing" in read:
            stride = masks.shape[-1] // read["parsing"].shape[-1]
            wanted = masks[:, ::stride, ::stride].long()
            losses["parsing"] = F.cross_entropy(read["parsing"], wanted, self.parsing_weight)
        if "code" in read and self.codes is not None:
            losses["code"] = F.mse_loss(read["code"], self.codes[rows])
        if "attributes" in read:
            wanted = self.attributes[rows]
            known = (wanted >= 0).float()
            errors = F.binary_cross_entropy_with_logits(
                read["attributes"],
                (wanted == 1).float(),
                weight=known,
                pos_weight=self.attribute_weight,
                reduction="sum",
            )
            losses["attributes"] = errors / known.sum().clamp(min=1)
            if named:  # else the mean would be of nothing
                hair = read["hair_color"]
                losses["hair_color"] = F.cross_entropy(hair, self.hair[rows], self.hair_weight)
        return losses

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
                read = readings(self.network, self.place(x))
            losses = self.losses(read, m, rows)
        self.update(torch.stack(list(losses.values())).sum(), clip=5.0)
        return {name: value.detach() for name, value in losses.items()}

    def export(self, result: LoopResult, ship: Ship) -> None:
        network = result.ema[self.name].half().float()  # what is shipped is what is measured
        found = measure(network, self.test_set)
        _, title, description = NETWORKS[self.name]
        if self.name == "loss_net" and self.codes is None:
            description += " Its identity head is untrained: photographs have no shape codes."
        out, reference = self.home(self.name), None
        if self.name == "judge_attributes":
            images, masks = to_float(self.train_set.images), self.train_set.masks
            reference = HairColorReference.fit(images, masks, hair_color_names(self.train_set))
            found |= measure_hair_pixels(reference, self.test_set)
        ship(out, network, title, description, {f"{k} (test)": v for k, v in found.items()})
        if reference is not None:
            reference.save(out / "hair_colors.json")


class Network(NamedTuple):
    """What is built, and what its card says of it."""

    build: Callable[..., ModelMixin]
    title: str
    description: str


_READS = "images (B, 3, 128, 128) in [-1, 1] to"
_JUDGES = "Used in evaluation, never in losses."
NETWORKS = {
    "loss_net": Network(
        Recognizer,
        "Loss network of the mini world",
        f"`Recognizer`: {_READS} features, identity, parsing (64 px), attributes. Used in training"
        " losses, never in evaluation. Its parsing is measured enlarged to 128 px.",
    ),
    "judge_parser": Network(
        ParserJudge,
        "Parser judge of the mini world",
        f"`ParserJudge`: {_READS} 19-class maps at 128 px. {_JUDGES}",
    ),
    "judge_attributes": Network(
        AttributeJudge,
        "Attribute judge of the mini world",
        f"`AttributeJudge`: {_READS} the attributes of its config and the hair colour. {_JUDGES}"
        " `hair_colors.json` holds the reference colours of `hair_color_by_pixels`, measured on the"
        " training images. White hair counts as gray among the hair colours.",
    ),
    "judge_identity": Network(
        IdentityJudge,
        "Identity judge of the mini world",
        f"`IdentityJudge`: {_READS} the head shape (48) and skin tone (1). {_JUDGES} Different"
        " pairs: a first and a second view.",
    ),
}


def parsing_measurements(maps: Tensor, masks: Tensor) -> dict[str, float]:
    """(N, H, W) parsed ids against (N, H, W) true ids."""
    table = confusion(maps, masks)
    result = {"parsing mIoU": mean_iou(table), "parsing pixel accuracy": pixel_accuracy(table)}
    total = table.sum(0).double()
    either = total.sum(0) + total.sum(1) - total.diagonal()
    for index, name in enumerate(CLASSES):
        if either[index] > 0:
            result[f"IoU {name}"] = (total[index, index] / either[index]).item()
    return result


def label_measurements(
    attribute_logits: Tensor, hair_logits: Tensor, reads: Tensor, dataset: FaceDataset
) -> dict[str, float]:
    """(N, A) and (N, 6) logits against the labels of the data set; reads: (A,) bool."""
    wanted, read = torch.where(reads, dataset.attributes, -1), attribute_logits > 0
    color = hair_color_labels(dataset)
    hit = hair_logits.argmax(1) == color
    balanced = balanced_accuracy(read, wanted)
    result = {
        "attribute accuracy": attribute_accuracy(read, wanted),
        "attribute balanced accuracy": balanced[~balanced.isnan()].mean().item(),
    }
    if (color != HIDDEN).any():
        result["hair-colour accuracy"] = hit[color != HIDDEN].double().mean().item()
    for index, name in enumerate(HAIR_COLORS):
        if (color == index).any():
            result[f"hair-colour accuracy, {name}"] = hit[color == index].double().mean().item()
    for index, name in enumerate(ATTRIBUTES):
        if not balanced[index].isnan():
            result[f"balanced accuracy {name}"] = balanced[index].item()
    return result


def identity_measurements(codes: Tensor, dataset: FaceDataset) -> dict[str, float]:
    """(N, 49) predicted codes: share of variance explained, and same/different verification.

    A same pair is two views of one person; a different pair is a first view of one person and a
    second view of another, so that both kinds of pair differ equally in view.
    """
    true = true_codes(dataset)
    if true is None:
        raise ValueError(f"{dataset.folder} holds no shape codes and skin tones to compare with.")
    error, spread = (codes - true).square().mean(0), true.var(0, unbiased=False)
    result = {
        "variance explained, head shape": 1 - (error[:-1].sum() / spread[:-1].sum()).item(),
        "variance explained, skin tone": 1 - (error[-1] / spread[-1].clamp(min=1e-6)).item(),
    }
    first = dataset.first_views()
    second = torch.tensor(sorted(set(range(len(dataset))) - set(first.tolist())), dtype=torch.int64)
    if len(second) >= 2:
        same = dataset.identities[second][:, None] == dataset.identities[first][None]
        for name, part in (("", codes), (" without skin tone", codes[:, :-1])):
            unit = F.normalize(part.double(), dim=1)
            cosine = (unit[second] @ unit[first].T).round(decimals=9)  # ties must stay ties
            result[f"verification AUC{name}"] = verification_auc(cosine[same], cosine[~same])
            result[f"cosine of same pairs{name}"] = cosine[same].mean().item()
            result[f"cosine of different pairs{name}"] = cosine[~same].mean().item()
        result["same pairs"] = float(same.sum())
    return result


@torch.no_grad()
def measure(network: nn.Module, dataset: FaceDataset, batch_size: int = 64) -> dict[str, float]:
    """All that a network reads of a split; parsing is enlarged to the size of the masks."""
    device, size = next(network.parameters()).device, dataset.masks.shape[-2:]
    parts: dict[str, list[Tensor]] = {}
    for batch in dataset.images.split(batch_size):
        for name, value in readings(network, to_float(batch.to(device))).items():
            if name == "parsing":
                value = F.interpolate(value, size, mode="bilinear").argmax(1)
            parts.setdefault(name, []).append(value.cpu())
    read = {name: torch.cat(values) for name, values in parts.items()}
    result: dict[str, float] = {}
    if "parsing" in read:
        result |= parsing_measurements(read["parsing"], dataset.masks)
    if "attributes" in read:
        known = torch.as_tensor(network.reads)
        result |= label_measurements(read["attributes"], read["hair_color"], known, dataset)
    if "code" in read and true_codes(dataset) is not None:
        result |= identity_measurements(read["code"], dataset)
    return result


def measure_hair_pixels(reference: HairColorReference, dataset: FaceDataset) -> dict[str, float]:
    """How often plain pixel colour names the hair right, on samples with a named hair colour."""
    hits: dict[str, list[bool]] = {}
    for image, mask, name in zip(
        to_float(dataset.images), dataset.masks, hair_color_names(dataset), strict=True
    ):
        if name in reference.colors:
            hit = hair_color_by_pixels(image, mask, reference) == name
            hits.setdefault(name, []).append(hit)
    every = [hit for values in hits.values() for hit in values]
    result = {"hair colour by pixels": sum(every) / max(1, len(every))}
    return result | {f"hair colour by pixels, {k}": sum(v) / len(v) for k, v in hits.items()}
