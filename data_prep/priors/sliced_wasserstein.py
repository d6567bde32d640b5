"""Sliced Wasserstein distance of image sets on Laplacian-pyramid patches (Karras et al. 2018,

arXiv 1710.10196, Sec. 5): a quick reading of structure and texture that needs no trained network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH = 7


def laplacian_pyramid(image: Tensor, levels: int) -> list[Tensor]:
    """(B, C, H, W) → `levels` tensors: band-pass details from fine to coarse, then the rest."""
    bands = []
    for _ in range(levels - 1):
        small = F.avg_pool2d(image, 2)
        bands.append(image - F.interpolate(small, scale_factor=2, mode="bilinear"))
        image = small
    return [*bands, image]


def _patches(band: Tensor, per_image: int, rng: torch.Generator) -> Tensor:
    """Random 7×7 patches, (B · per_image, C · 49), at the same places in every call's rng state."""
    tops, lefts = torch.randint(band.shape[2] - PATCH + 1, (2, per_image), generator=rng).tolist()
    places = zip(tops, lefts, strict=True)
    return torch.cat([band[:, :, t : t + PATCH, s : s + PATCH].flatten(1) for t, s in places])


@torch.no_grad()
def sliced_wasserstein(
    first: Tensor, second: Tensor, seed: int = 0, per_image: int = 16, projections: int = 256
) -> dict[str, float]:
    """Distance × 1000 at each pyramid level, named by its resolution, and their mean.

    Args:
        first, second: images (N, 3, H, W) in [-1, 1], the same N ≥ 2
        seed: of patch places and projections
        per_image: patches per image and level; projections: random directions

    Returns:
        {"128": ..., "64": ..., ..., "mean": ...}, coarsest level 16 px
    """
    if first.shape != second.shape or len(first) < 2:
        raise ValueError(
            f"image sets came as {tuple(first.shape)} and {tuple(second.shape)};"
            " expected two sets of the same shape (N, 3, H, W), N >= 2."
        )
    levels = first.shape[2].bit_length() - 4
    result = {}
    pyramids = (laplacian_pyramid(images, levels) for images in (first, second))
    for one, two in zip(*pyramids, strict=True):
        place = [torch.Generator().manual_seed(seed) for _ in range(2)]
        a, b = _patches(one, per_image, place[0]), _patches(two, per_image, place[1])
        spread = b.std().clamp_min(1e-6)
        directions = torch.randn(a.shape[1], projections, generator=place[0])
        directions = F.normalize(directions.to(a), dim=0)
        gap = (a @ directions).sort(dim=0).values - (b @ directions).sort(dim=0).values
        result[str(one.shape[2])] = float(gap.abs().mean() / spread * 1000)
    return result | {"mean": sum(result.values()) / len(result)}
