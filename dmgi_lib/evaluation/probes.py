"""What features and attention maps of E hold: read linearly, and compared with the mask.

    read_classes(study.features[0].f[-1].permute(0, 2, 3, 1), cell_classes(truth.masks, 16))
    region_iou(head_maps(study.features[9].a[-1], tokens).mean(1), region(truth.masks, "hair"))

A linear probe is a ridge regression: what it can read of unseen samples is in the features, in a
form that the first layer of M or T can use. The probes are our choice (not specified in the paper's
available sources).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
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


def principal_components(features: Tensor, count: int = 3) -> Tensor:
    """Projects each place of feature maps (B, C, H, W) onto the directions of most variance.

    (B, H, W, count), each component scaled to 0..1 from its 1 % to its 99 % quantile. Signs are
    fixed so that the largest loading is positive.
    """
    batch, channels, height, width = features.shape
    rows = features.permute(0, 2, 3, 1).reshape(-1, channels).double().cpu().numpy()
    places = PCA(count, svd_solver="covariance_eigh").fit_transform(rows)
    low, high = np.quantile(places, [0.01, 0.99], axis=0)
    scaled = ((places - low) / np.maximum(high - low, 1e-12)).clip(0, 1)
    return torch.from_numpy(scaled).float().view(batch, height, width, count)


def cell_classes(masks: Tensor, edge: int) -> Tensor:
    """The most frequent class in each cell of a grid.

    (B, H, W) class ids, H = W a multiple of edge → (B, edge, edge) int64.
    """
    one_hot = F.one_hot(masks.long(), len(CLASSES)).permute(0, 3, 1, 2).float()
    return F.adaptive_avg_pool2d(one_hot, edge).argmax(1)


def probe(features: Tensor, wanted: Tensor, folds: int = 5, strength: float = 0.1) -> Tensor:
    """Ridge regression of each fold of samples, fitted on the other folds.

    Args:
        features: (N, ..., C); samples, not places, are divided into folds: i is in i % folds.
        wanted:   (N, ..., K), same leading axes.
        strength: of the penalty, on standardised features, as a share of the number of rows.

    Returns:
        (N, ..., K) float32 predictions, each made without the sample's own fold.
    """
    if len(features) < folds:
        raise ValueError(
            f"{len(features)} samples came for {folds} folds; expected at least one each."
        )
    x, y = features.double().cpu().numpy(), wanted.double().cpu().numpy()
    fold = np.arange(len(x)) % folds
    predicted = np.empty_like(y)
    for k in range(folds):
        seen = x[fold != k].reshape(-1, x.shape[-1])
        n = len(seen)
        penalty = strength * n * n / (n - 1)  # StandardScaler divides by n, not n - 1
        model = make_pipeline(StandardScaler(), Ridge(penalty))
        model.fit(seen, y[fold != k].reshape(n, -1))
        found = model.predict(x[fold == k].reshape(-1, x.shape[-1]))
        predicted[fold == k] = found.reshape(predicted[fold == k].shape)
    return torch.from_numpy(predicted).float()


def read_classes(features: Tensor, classes: Tensor, strength: float = 0.1) -> float:
    """Share of ids (N, ...) that a probe reads from features (N, ..., C) of unseen samples."""
    read = probe(features, F.one_hot(classes.long()), strength=strength).argmax(-1)
    return (read == classes.cpu()).double().mean().item()


def explained_variance(features: Tensor, wanted: Tensor, strength: float = 0.1) -> float:
    """R² of a probe (N, C) → (N, K) on unseen samples, the K columns pooled.

    1 reads everything, 0 no better than the mean.
    """
    wanted = wanted.cpu()
    error = (probe(features, wanted, strength=strength) - wanted).square().sum()
    return (1 - error / (wanted - wanted.mean(0)).square().sum()).item()


def region(masks: Tensor, word: str) -> Tensor:
    """(B, H, W) class ids → bool, True where the part is that a word of WORD_REGIONS names."""
    if word not in WORD_REGIONS:
        raise ValueError(f"no region is known for {word!r}; expected one of {list(WORD_REGIONS)}.")
    ids = torch.tensor([CLASSES.index(n) for n in WORD_REGIONS[word]], device=masks.device)
    return torch.isin(masks.long(), ids)


def word_positions(words: Sequence[tuple[str, list[int]]], word: str) -> list[int]:
    """Token positions of a word in one prompt (`Tokens.words[i]`), empty if it is not there."""
    return [position for text, tokens in words if text == word for position in tokens]


def head_maps(a: Tensor, positions: Sequence[Sequence[int]]) -> Tensor:
    """Maps of one word, head by head: mean over its tokens, (B, heads, H, W).

    a: (B, heads, Q, L), one block's cross-attention; positions: of the word's tokens, at least one
    for each sample.
    """
    if any(not tokens for tokens in positions):
        raise ValueError("a prompt without the word came; expected its token positions for each.")
    edge = int(a.shape[2] ** 0.5)
    rows = [sample[..., list(t)].mean(-1) for sample, t in zip(a, positions, strict=True)]
    return torch.stack(rows).unflatten(-1, (edge, edge))


def brightest(weight: Tensor, share: Tensor, size: int = 128) -> Tensor:
    """The brightest pixels of maps (B, h, w), brought to size x size: (B, size, size) bool.

    A map has no natural threshold, so a share (B,) in [0, 1] of the pixels is kept: only their
    order matters.
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
