"""Discriminator D that parses faces: what each place of a picture shows, or that it is made up."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from dmgi_lib.masks import CLASSES
from dmgi_lib.recognizers import FACE_ATTRIBUTES, Recognizer


class ParsingDiscriminator(Recognizer):
    """Segmentation discriminator with one class more than masks have (OASIS, arXiv 2012.04781).

    It starts as the loss network, which knows an eye where it sees one, and answers at every place:
    what starts from pixels and answers once for all of a picture needs many more of them. It also
    sees how much four pictures differ at a place (after arXiv 1710.10196, Sec. 3): one garden
    behind everybody is true at every place, and made up all the same. Our choices, as is that
    its batch norms keep the loss network's statistics.
    """

    learning_rate = 5e-4

    @register_to_config
    def __init__(
        self,
        channels: tuple[int, ...] = (16, 32, 64, 96, 128),
        attributes: tuple[str, ...] = FACE_ATTRIBUTES,
    ) -> None:
        super().__init__(channels, attributes)
        self.to_parsing[-1] = nn.Conv2d(48, len(CLASSES) + 1, 1)
        self.to_spread = nn.Conv2d(channels[3], 1, 1, bias=False)
        nn.init.zeros_(self.to_spread.weight)
        del self.to_labels, self.to_code
        self.eval()

    @torch.no_grad()
    def begin_as(self, loss_net: Recognizer) -> None:
        """Takes the loss network's weights; the logit of what is made up is 0 everywhere."""
        weights = {k: v for k, v in loss_net.state_dict().items() if k in self.state_dict()}
        for name in ("to_parsing.1.weight", "to_parsing.1.bias"):
            weights[name] = torch.cat([weights[name], torch.zeros_like(weights[name][:1])])
        self.load_state_dict(weights | {"to_spread.weight": self.to_spread.weight})

    def train(self, mode: bool = True) -> ParsingDiscriminator:
        """Batch norms never take statistics: those of fakes would tell them by themselves."""
        super().train(False)
        return self

    def logits(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] → (B, 20, 64, 64) logits, fp32; the last is "made up"."""
        features = self.features(image.float())
        together = features[3].unflatten(0, (-1, math.gcd(len(image), 4)))  # neighbours in a batch
        spread = (together.var(1, correction=0) + 1e-8).sqrt()
        made_up = F.interpolate(self.to_spread(spread), 64).repeat_interleave(together.shape[1], 0)
        parsed = self.parsing(features)
        return torch.cat([parsed[:, :-1], parsed[:, -1:] + made_up], 1).float()

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        """(B, 3, H, W) in [-1, 1] → (B, P) `realness`, place by place."""
        return realness(self.logits(image)).flatten(1)

    def passing(self, image: Tensor, mask: Tensor) -> Tensor:
        """How far pictures are from passing for what their masks (B, H, W) say, (B,)."""
        logits = self.logits(image)
        return F.cross_entropy(logits, classes_of(mask, logits), reduction="none").mean((1, 2))

    def telling(self, real: Tensor, made: Tensor, mask: Tensor) -> Tensor:
        """D's own loss: true pictures are parsed as their masks say, others are made up."""
        true, made_up = self.logits(torch.cat([real, made])).chunk(2)
        wanted = torch.full_like(classes_of(mask, true), true.shape[1] - 1)
        return F.cross_entropy(true, classes_of(mask, true)) + F.cross_entropy(made_up, wanted)


def classes_of(mask: Tensor, logits: Tensor) -> Tensor:
    """Masks (B, H, W) of class ids at the size of logits (B, C, S, S)."""
    small = F.interpolate(mask[:, None].float(), logits.shape[-2:], mode="nearest-exact")
    return small[:, 0].long()


def realness(logits: Tensor) -> Tensor:
    """(B, 20, S, S) → (B, S, S) log-odds of a place being of any true class."""
    return logits[:, :-1].logsumexp(1) - logits[:, -1]
