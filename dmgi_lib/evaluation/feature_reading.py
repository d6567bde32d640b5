"""What the features of E hold, read linearly: principal components and cross-validated probes.

A probe is a ridge regression: what it can read of unseen samples is in the features, in a form that
the first layer of M or T can use. The probes are our choice (not specified in the paper's available
sources).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dmgi_lib.masks import CLASSES


def principal_components(features: Tensor, count: int = 3) -> Tensor:
    """Projects each place of feature maps onto the directions of most variance.

    Args:
        features: (B, C, H, W), B H W >= count.

    Returns:
        (B, H, W, count), each component scaled to 0..1 from its 1 % to its 99 % quantile. Signs
        are fixed so that the largest loading is positive.
    """
    batch, channels, height, width = features.shape
    rows = features.permute(0, 2, 3, 1).reshape(-1, channels).double()
    rows = rows - rows.mean(0)
    directions = torch.linalg.svd(rows.T @ rows)[0][:, :count]  # [C, count]
    largest = directions.abs().argmax(0)
    directions = directions * directions[largest, torch.arange(count)].sign()
    places = rows @ directions
    low, high = torch.quantile(places, torch.tensor([0.01, 0.99]).double(), dim=0)
    scaled = ((places - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    return scaled.float().view(batch, height, width, count)


def cell_classes(masks: Tensor, edge: int) -> Tensor:
    """The most frequent class in each cell of an edge x edge grid.

    Args:
        masks: (B, H, W) class ids, H = W a multiple of edge.

    Returns:
        (B, edge, edge) int64.
    """
    one_hot = F.one_hot(masks.long(), len(CLASSES)).permute(0, 3, 1, 2).float()
    return F.adaptive_avg_pool2d(one_hot, edge).argmax(1)


def probe(features: Tensor, wanted: Tensor, folds: int = 5, strength: float = 0.1) -> Tensor:
    """Ridge regression of each fold of samples, fitted on the other folds.

    Args:
        features: (N, ..., C); samples, not places, are divided into folds.
        wanted:   (N, ..., K), same leading axes.
        folds:    sample i is in fold i % folds.
        strength: of the penalty, on standardised features, as a share of the number of rows.

    Returns:
        (N, ..., K) float32 predictions, each made without the sample's own fold.
    """
    if len(features) < folds:
        raise ValueError(
            f"{len(features)} samples came for {folds} folds; expected at least one each."
        )
    x, y = features.double(), wanted.double()
    fold = torch.arange(len(x)) % folds
    predicted = torch.empty_like(y)
    for k in range(folds):
        seen, unseen = x[fold != k].flatten(0, -2), x[fold == k]
        mean, std = seen.mean(0), seen.std(0).clamp_min(1e-6)
        targets = y[fold != k].flatten(0, -2)
        offset, z = targets.mean(0), (seen - mean) / std
        penalty = strength * len(z) * torch.eye(z.shape[1], dtype=z.dtype)
        weights = torch.linalg.solve(z.T @ z + penalty, z.T @ (targets - offset))
        predicted[fold == k] = (unseen - mean) / std @ weights + offset
    return predicted.float()


def read_classes(features: Tensor, classes: Tensor, folds: int = 5, strength: float = 0.1) -> float:
    """Share of ids (N, ...) that a probe reads from features (N, ..., C) of unseen samples."""
    one_hot = F.one_hot(classes.long()).float()
    read = probe(features, one_hot, folds, strength).argmax(-1)
    return (read == classes).double().mean().item()


def explained_variance(
    features: Tensor, wanted: Tensor, folds: int = 5, strength: float = 0.1
) -> float:
    """R² of a probe on unseen samples: 1 reads everything, 0 no better than the mean.

    Args:
        features: (N, C).  wanted: (N, K); the K columns are pooled.
    """
    error = (probe(features, wanted, folds, strength) - wanted).square().sum()
    return (1 - error / (wanted - wanted.mean(0)).square().sum()).item()
