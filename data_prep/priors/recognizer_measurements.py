"""What the card of each recognition network states: readings of ground-truth test images.

These are the ceilings of the evaluation protocol: no generated image can be expected to be read
better than a ground-truth one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmgi_lib.dataset import ATTRIBUTES, FaceDataset, to_float
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

Measurements = dict[str, float]
# (network, images (B, 3, H, W) in [-1, 1]) -> what it reads of them, by name
READINGS: dict[type, Callable[[Any, Tensor], dict[str, Tensor]]] = {
    Recognizer: lambda net, x: net(x)._asdict(),
    ParserJudge: lambda net, x: {"parsing": net(x)},
    AttributeJudge: lambda net, x: dict(zip(("attributes", "hair_color"), net(x), strict=True)),
    IdentityJudge: lambda net, x: {"code": net(x)},
}
HIDDEN = -100  # the label that torch's cross-entropy ignores


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


def parsing_measurements(maps: Tensor, masks: Tensor) -> Measurements:
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
) -> Measurements:
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


def identity_measurements(codes: Tensor, dataset: FaceDataset) -> Measurements:
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
def measure(network: nn.Module, dataset: FaceDataset, batch_size: int = 64) -> Measurements:
    """All that a network reads of a split; parsing is enlarged to the size of the masks."""
    device, size = next(network.parameters()).device, dataset.masks.shape[-2:]
    parts: dict[str, list[Tensor]] = {}
    for batch in dataset.images.split(batch_size):
        for name, value in READINGS[type(network)](network, to_float(batch.to(device))).items():
            if name == "parsing":
                value = F.interpolate(value, size, mode="bilinear").argmax(1)
            parts.setdefault(name, []).append(value.cpu())
    read = {name: torch.cat(values) for name, values in parts.items()}
    result: Measurements = {}
    if "parsing" in read:
        result |= parsing_measurements(read["parsing"], dataset.masks)
    if "attributes" in read:
        known = torch.as_tensor(network.reads)
        result |= label_measurements(read["attributes"], read["hair_color"], known, dataset)
    if "code" in read and true_codes(dataset) is not None:
        result |= identity_measurements(read["code"], dataset)
    return result


def measure_hair_pixels(reference: HairColorReference, dataset: FaceDataset) -> Measurements:
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
