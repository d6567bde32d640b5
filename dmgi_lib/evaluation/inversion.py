"""GAN inversion by optimisation: the code w* = argmin_w L(G(w), I) in W or in W+.

The ceiling of what any encoder into the same space can reach (Table 1's protocol), and far too slow
to be one: hundreds of passes through G per image. Loss and schedule are our choice (not specified
in the paper's available sources).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from dmgi_lib.checks import one_of
from dmgi_lib.generators.eg3d import TriPlaneGenerator


@dataclass(frozen=True)
class InversionConfig:
    """How to optimise. Raises ValueError for an unknown space, or steps < 1."""

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
        one_of("space", self.space, ("W", "W+"))
        if self.steps < 1:
            raise ValueError(f"steps came as {self.steps}; expected at least 1.")


class Inversion(NamedTuple):
    """All float32, on G's device."""

    latents: Tensor  # (B, num_ws, w_dim)
    images: Tensor  # (B, 3, H, W) = G(w*)
    curve: Tensor  # (steps, B) of the loss


def pyramid_distance(image: Tensor, target: Tensor, levels: int) -> Tensor:
    """L1 of two images, averaged over halved and halved again ones: (B, 3, H, W) → (B,)."""
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
) -> Inversion:
    """Finds codes whose images are the targets.

    Args:
        G: frozen generator with `synthesis`, `mean_latent` and `mapping`.
        target: (B, 3, H, W) in [-1, 1], in G's resolution, on any device.
        camera: (B, 25) from which a G of heads sees the targets.
        perceptual: image, target → (B,), such as `dmgi_lib.training.losses.PerceptualLoss`.

    Raises:
        ValueError: target of another shape than G draws; a G of heads without cameras, or another
            with them.
    """
    config = config or InversionConfig()
    size = G.config.img_resolution
    if target.ndim != 4 or target.shape[1:] != (3, size, size):
        raise ValueError(f"target came as {tuple(target.shape)}; expected (B, 3, {size}, {size}).")
    turns, came = isinstance(G, TriPlaneGenerator), 0 if camera is None else len(camera)
    if came != (len(target) if turns else 0):
        raise ValueError(
            f"{came} cameras came for {len(target)} targets of a {type(G).__name__}; expected"
            f" {'one each' if turns else 'none'}."
        )
    rng = torch.Generator().manual_seed(0)
    device, dtype = G.mean_latent.device, G.mean_latent.dtype
    target = target.to(device).float()
    camera = None if camera is None else camera.to(device)

    def drawn(ws: Tensor) -> Tensor:
        if camera is None:
            return G.synthesis(ws.to(dtype), noise_mode="const").float()
        return G.synthesis(ws.to(dtype), camera, noise_mode="const").image.float()

    with torch.no_grad():
        z = torch.randn(1000, G.config.z_dim, generator=torch.Generator().manual_seed(0))
        label = [] if camera is None else [camera[:1].expand(len(z), -1)]
        spread = G.mapping(z.to(device, dtype), *label)[:, 0].float().std(0).square().mean().sqrt()
    rows = 1 if config.space == "W" else G.num_ws
    start = G.mean_latent.detach().float().expand(len(target), rows, -1)
    offset = torch.zeros_like(start, requires_grad=True)  # in units of W's deviation
    optimizer = torch.optim.Adam([offset], config.learning_rate, (0.9, 0.99))
    curve = []
    for step in tqdm(range(config.steps), desc=config.space, disable=None, leave=False):
        done = step / config.steps
        ramp = min(1.0, done / 0.1 + 1 / config.steps)
        rate = config.learning_rate * ramp * (0.5 + 0.5 * math.cos(math.pi * done))
        optimizer.param_groups[0]["lr"] = rate
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
