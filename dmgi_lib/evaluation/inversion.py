"""GAN inversion by optimisation: the code w* = argmin_w L(G(w), I) in W or in W+.

The ceiling of what any encoder into the same space can reach (Table 1's protocol), and far too slow
to be one: hundreds of passes through G per image. Loss and schedule are our choice (not specified
in the paper's available sources).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from dmgi_lib.generators.eg3d import TriPlaneGenerator

SPACES = ("W", "W+")


@dataclass(frozen=True)
class InversionConfig:
    """How to optimise.

    Raises:
        ValueError: unknown space, or steps < 1
    """

    space: str = "W+"  # "W" one code for all style rows, "W+" one for each
    steps: int = 200  # of Adam; the rate warms up over a tenth of them and then falls to 0
    learning_rate: float = 0.05  # highest rate
    levels: int = 4  # of the picture pyramid whose L1 distances are averaged
    perceptual: float = 0.5  # weight of the perceptual distance, if one is given
    latent: float = 0.002  # weight of ‖w − w_avg‖²
    # deviation of the noise on w at the start, in units of W's; it falls to 0 over the first three
    # quarters and keeps the search out of narrow valleys
    noise: float = 0.05

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise ValueError(f"space came as {self.space!r}; expected one of {SPACES}.")
        if self.steps < 1:
            raise ValueError(f"steps came as {self.steps}; expected at least 1.")


@dataclass(frozen=True)
class Inversion:
    """latents (B, num_ws, w_dim); images (B, 3, H, W) = G(w*); curve (steps, B) of the loss.

    All float32, on G's device.
    """

    latents: Tensor
    images: Tensor
    curve: Tensor


def pyramid_distance(image: Tensor, target: Tensor, levels: int) -> Tensor:
    """Mean L1 over a picture pyramid. image, target: (B, 3, H, W) → (B,)."""
    difference, total = image - target, []
    for _ in range(levels):
        total.append(difference.abs().mean((1, 2, 3)))
        difference = F.avg_pool2d(difference, 2)
    return torch.stack(total).mean(0)


def invert(
    G: Any,
    target: Tensor,
    config: InversionConfig | None = None,
    *,
    camera: Tensor | None = None,
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None,
    generator: torch.Generator | None = None,
    progress: bool | None = None,
) -> Inversion:
    """Finds codes whose images are the targets.

    Args:
        G: frozen generator with `synthesis`, `mean_latent` and `mapping`.
        target: (B, 3, H, W) in [-1, 1], in G's resolution, on any device.
        config: space and schedule.
        camera: (B, 25) from which a G of heads sees the targets.
        perceptual: image, target → (B,), such as `dmgi_lib.training.losses.PerceptualLoss`.
        generator: source of the noise on w, on the CPU; None means seed 0.
        progress: shows a bar; None means only where somebody watches.

    Raises:
        ValueError: target of another shape than G draws; a G of heads without cameras, or another
            with them.
    """
    config = config or InversionConfig()
    size = G.config.img_resolution
    if target.ndim != 4 or target.shape[1:] != (3, size, size):
        raise ValueError(f"target came as {tuple(target.shape)}; expected (B, 3, {size}, {size}).")
    turns = isinstance(G, TriPlaneGenerator)
    if turns != (camera is not None) or (camera is not None and len(camera) != len(target)):
        raise ValueError(
            f"{0 if camera is None else len(camera)} cameras came for {len(target)} targets of a"
            f" {type(G).__name__}; expected {'one each' if turns else 'none'}."
        )
    rng = generator or torch.Generator().manual_seed(0)
    device, dtype = G.mean_latent.device, G.mean_latent.dtype
    target = target.to(device).float()
    z = torch.randn(1000, G.config.z_dim, generator=torch.Generator().manual_seed(0))
    label = []
    if camera is not None:
        camera = camera.to(device)
        label = [camera[:1].expand(len(z), -1)]

    def drawn(ws: Tensor) -> Tensor:
        if camera is None:
            return G.synthesis(ws.to(dtype), noise_mode="const").float()
        return G.synthesis(ws.to(dtype), camera, noise_mode="const").image.float()

    with torch.no_grad():
        spread = G.mapping(z.to(device, dtype), *label)[:, 0].float().std(0).square().mean().sqrt()
    rows = 1 if config.space == "W" else G.num_ws
    start = G.mean_latent.detach().float().expand(len(target), rows, -1)
    offset = torch.zeros_like(start, requires_grad=True)  # in units of W's deviation
    optimizer = torch.optim.Adam([offset], config.learning_rate, (0.9, 0.99))
    curve, hidden = [], None if progress is None else not progress  # None: only off a terminal
    for step in tqdm(range(config.steps), desc=config.space, disable=hidden):
        done = step / config.steps
        for group in optimizer.param_groups:
            ramp = min(1.0, done / 0.1 + 1 / config.steps)
            group["lr"] = config.learning_rate * ramp * (0.5 + 0.5 * math.cos(math.pi * done))
        noise = torch.randn(offset.shape, generator=rng) * config.noise * max(0.0, 1 - done / 0.75)
        ws = (start + spread * (offset + noise.to(device))).expand(-1, G.num_ws, -1)
        image = drawn(ws)
        loss = pyramid_distance(image, target, config.levels)
        if perceptual is not None:
            loss = loss + config.perceptual * perceptual(image, target)
        loss = loss + config.latent * offset.square().mean((1, 2))
        optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()  # samples do not see each other
        optimizer.step()
        curve.append(loss.detach())
    with torch.no_grad():
        latents = (start + spread * offset).expand(-1, G.num_ws, -1).contiguous()
        return Inversion(latents, drawn(latents), torch.stack(curve))
