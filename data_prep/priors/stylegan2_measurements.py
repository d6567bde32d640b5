"""Readings of the 2D prior: sample grid, distances of image sets, reconstruction errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_prep.priors.recipe import picture_grid
from dmgi_lib.dataset import to_float, to_uint8
from dmgi_lib.evaluation.metrics import kernel_distance
from dmgi_lib.generators.stylegan2 import StyleGAN2Generator


@torch.no_grad()
def set_mean_latent(G: Any, count: int = 10_000, seed: int = 0) -> None:
    """w_avg of a generator = mean of `count` mapped z."""
    z = torch.randn(count, G.config.z_dim, generator=torch.Generator().manual_seed(seed))
    G.mean_latent.copy_(G.mapping(z.to(G.mean_latent))[:, 0].mean(dim=0))


@torch.no_grad()
def set_typical_latent(G: Any, count: int = 4000, seed: int = 0) -> None:
    """w_avg = the most typical of `count` mapped z: its ten nearest are closest to it.

    Codes lie around their mean like a shell, and a small G draws no face in the middle. A code that
    G knows as the centre of truncation is the remedy of "Self-Distilled StyleGAN" (arXiv
    2202.12211), there with a centre for each cluster.
    """
    z = torch.randn(count, G.config.z_dim, generator=torch.Generator().manual_seed(seed))
    w = G.mapping(z.to(G.mean_latent))[:, 0]
    nearest = torch.cdist(w, w).topk(11, largest=False).values[:, 1:].mean(dim=1)
    G.mean_latent.copy_(w[nearest.argmin()])


@torch.no_grad()
def sample_grid(
    G: StyleGAN2Generator, encoder: nn.Module, originals: Tensor, psi: float = 0.8
) -> np.ndarray:
    """8×8 grid: five rows of samples, eight originals, their W and their W+ reconstructions.

    Args:
        G, encoder: averaged networks; G's w_avg is set
        originals:  uint8 (8, 3, H, W)
    """
    z = torch.randn(40, G.config.z_dim, generator=torch.Generator().manual_seed(1))
    real = to_float(originals.to(G.mean_latent.device))
    set_mean_latent(G)
    ws, offsets = encoder(real)
    latents = torch.cat([G.mapping(z.to(real), truncation_psi=psi), ws, ws + offsets])
    images = [to_uint8(G.synthesis(part)) for part in latents.split(8)]
    return picture_grid([*images[:5], originals, *images[5:]])


@torch.no_grad()
def feature_distance(loss_net: Any, images: Tensor, others: Tensor) -> float:
    """Kernel distance of the loss net's coarsest features, averaged over places.

    images, others: (N, 3, H, W) in [-1, 1]; a little below 0 for equal sets
    """
    read = (
        torch.cat([loss_net.features(p)[-1].float().mean((2, 3)) for p in x.split(32)])
        for x in (others, images)
    )
    return kernel_distance(*read)


@torch.no_grad()
def measure(
    G: StyleGAN2Generator,
    encoder: nn.Module,
    loss_net: Any,
    train: Tensor,
    test: Tensor,
    seed: int = 0,
) -> dict[str, float]:
    """`feature_distance` to the test images, and test reconstruction errors.

    Args:
        G, encoder:  averaged networks
        train, test: uint8 images (N, 3, H, W)
        seed:        of the sampled z
    """
    count = min(len(train), len(test), 512)
    real, other = (to_float(x[:count].to(G.mean_latent.device)) for x in (test, train))
    z = torch.randn(count, G.config.z_dim, generator=torch.Generator().manual_seed(seed)).to(real)
    name = f"loss-net kernel distance ({count} images, test split)"
    figures: dict[str, float] = {}
    for psi in (1.0, 0.8):
        drawn = torch.cat([G(part, truncation_psi=psi).clamp(-1, 1) for part in z.split(32)])
        figures[f"{name}, samples at psi {psi}"] = feature_distance(loss_net, drawn, real)
    softened = F.interpolate(F.avg_pool2d(real, 2), scale_factor=2.0, mode="bilinear")
    references = {"training images (floor)": other, "test images blurred 2x": softened}
    for kind, images in references.items():
        figures[f"{name}, {kind}"] = feature_distance(loss_net, images, real)
    codes = [(part, *encoder(part)) for part in real.split(32)]
    for space, share in (("W", 0.0), ("W+", 1.0)):
        errors = [(G.synthesis(ws + share * more) - part).abs() for part, ws, more in codes]
        error = torch.cat([e.mean((1, 2, 3)) for e in errors]).mean().item()
        figures[f"reconstruction L1 through the encoder (test split), {space}"] = error
    return figures
