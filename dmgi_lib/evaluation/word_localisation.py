"""How well the attention map of a word finds the part that it names, against the mask.

A map has no natural threshold. Here as many of its brightest pixels count as found as the part
truly has, so that only the order of the pixels matters: our choice (not specified in the paper's
available sources).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dmgi_lib.masks import CLASSES

WORD_REGIONS: dict[str, tuple[str, ...]] = {
    "hair": ("hair",),
    "eyes": ("l_eye", "r_eye"),
    "nose": ("nose",),
    "lips": ("u_lip", "l_lip", "mouth"),
    "brows": ("l_brow", "r_brow"),
    "skin": ("skin", "nose", "neck", "l_ear", "r_ear"),
    "hat": ("hat",),
    "eyeglasses": ("eye_g",),
}


def region(masks: Tensor, word: str) -> Tensor:
    """(B, H, W) class ids → bool, True where the part is that a word of WORD_REGIONS names."""
    if word not in WORD_REGIONS:
        raise ValueError(f"no region is known for {word!r}; expected one of {list(WORD_REGIONS)}.")
    ids = torch.tensor([CLASSES.index(name) for name in WORD_REGIONS[word]])
    return torch.isin(masks.long(), ids)


def word_positions(words: Sequence[tuple[str, list[int]]], word: str) -> list[int]:
    """Token positions of a word in one prompt (`Tokens.words[i]`), empty if it is not there."""
    return [position for text, tokens in words if text == word for position in tokens]


def head_maps(a: Tensor, positions: Sequence[Sequence[int]]) -> Tensor:
    """Maps of one word, head by head.

    Args:
        a: (B, heads, Q, L), one block's cross-attention.
        positions: for each sample the token positions of the word, at least one.

    Returns:
        (B, heads, H, W), mean over the word's tokens.
    """
    if any(not tokens for tokens in positions):
        raise ValueError("a prompt without the word came; expected its token positions for each.")
    edge = int(a.shape[2] ** 0.5)
    rows = [sample[..., list(t)].mean(-1) for sample, t in zip(a, positions, strict=True)]
    return torch.stack(rows).unflatten(-1, (edge, edge))


def brightest(weight: Tensor, share: Tensor, size: int = 128) -> Tensor:
    """The brightest pixels of maps, as many as asked for.

    Args:
        weight: (B, h, w), brought to size x size bilinearly.
        share:  (B,) in [0, 1], share of the pixels to keep.

    Returns:
        (B, size, size) bool.
    """
    large = F.interpolate(weight[:, None].float(), (size, size), mode="bilinear")
    flat = large.flatten(1)
    rank = flat.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (rank < (share * flat.shape[1]).round()[:, None]).view(-1, size, size)


def region_iou(weight: Tensor, wanted: Tensor) -> Tensor:
    """IoU of the brightest pixels of maps (B, h, w) with regions (B, H, W) of equal area → (B,).

    NaN where a region is empty.
    """
    area = wanted.float().mean((1, 2))
    found = brightest(weight, area, wanted.shape[-1])
    both, either = (found & wanted).sum((1, 2)), (found | wanted).sum((1, 2))
    return both.double() / torch.where(either > 0, either.double(), torch.nan)


def position_prior(wanted: Tensor) -> Tensor:
    """The map that knows only where the part usually is: mean region of the *other* samples.

    (B, H, W) bool → (B, H, W) float.
    """
    total = wanted.float().sum(0)
    return (total - wanted.float()) / max(1, len(wanted) - 1)


def chance_iou(wanted: Tensor) -> float:
    """Mean expected IoU of pixels drawn blindly, as many as the region has; p → p / (2 - p)."""
    area = wanted.double().mean((1, 2))
    return (area / (2 - area)).mean().item()
