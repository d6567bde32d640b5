"""Losses of the recognition networks, and the labels of a training set that they compare with.

They and their weights are our choice, see `recognizers`.
"""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from data_prep.priors.recognizer_measurements import hair_color_labels, true_codes
from dmgi_lib.dataset import FaceDataset
from dmgi_lib.masks import CLASSES
from dmgi_lib.recognizers import (
    HAIR_COLORS,
    AttributeJudge,
    IdentityJudge,
    ParserJudge,
    Recognizer,
)


class Targets:
    """Labels of a training set on a device, and the class weights that balance them."""

    def __init__(self, dataset: FaceDataset, device: torch.device) -> None:
        self.dataset, self.device = dataset, device
        self.attributes = dataset.attributes.to(device)
        self.hair = hair_color_labels(dataset).to(device)

    @cached_property
    def codes(self) -> Tensor:
        """(N, 49)."""
        return true_codes(self.dataset).to(self.device)

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


Losses = dict[str, Tensor]


def parsing_loss(logits: Tensor, masks: Tensor, targets: Targets) -> Tensor:
    """Cross-entropy at the size of the logits (B, 19, S, S); masks (B, H, W) are thinned to S."""
    stride = masks.shape[-1] // logits.shape[-1]
    wanted = masks[:, ::stride, ::stride].long()
    return F.cross_entropy(logits.float(), wanted, targets.parsing_weight)


def label_losses(attributes: Tensor, hair: Tensor, rows: Tensor, targets: Targets) -> Losses:
    """Cross-entropies of the known attributes and of the hair colour."""
    wanted = targets.attributes[rows]
    per_label = F.binary_cross_entropy_with_logits(
        attributes.float(),
        (wanted == 1).float(),
        pos_weight=targets.attribute_weight,
        reduction="none",
    )
    known = (wanted >= 0).float()
    return {
        "attributes": (per_label * known).sum() / known.sum().clamp(min=1),
        "hair_color": F.cross_entropy(hair.float(), targets.hair[rows], targets.hair_weight),
    }


def code_loss(codes: Tensor, rows: Tensor, targets: Targets) -> Tensor:
    """Squared error of the standardised head shape and skin tone."""
    return F.mse_loss(codes.float(), targets.codes[rows])


def loss_net_losses(network: Recognizer, x: Tensor, m: Tensor, rows: Tensor, t: Targets) -> Losses:
    """All tasks at once, equally weighted."""
    read = network(x)
    losses = {"parsing": parsing_loss(read.parsing, m, t), "code": code_loss(read.code, rows, t)}
    return losses | label_losses(read.attributes, read.hair_color, rows, t)


def parser_losses(network: ParserJudge, x: Tensor, m: Tensor, rows: Tensor, t: Targets) -> Losses:
    """Parsing alone."""
    return {"parsing": parsing_loss(network(x), m, t)}


def attribute_losses(
    network: AttributeJudge, x: Tensor, m: Tensor, rows: Tensor, t: Targets
) -> Losses:
    """Attributes and hair colour; parsing beside them."""
    attributes, hair, parsing = network.labels_and_parsing(x)
    losses = {"parsing": parsing_loss(parsing, m, t)}
    return losses | label_losses(attributes, hair, rows, t)


def identity_losses(
    network: IdentityJudge, x: Tensor, m: Tensor, rows: Tensor, t: Targets
) -> Losses:
    """Head shape and skin tone."""
    return {"code": code_loss(network(x), rows, t)}
