"""Makes the mapping network's draws look like the encoder's codes, in W.

After the warm start the encoder's codes are a cloud of some twenty directions in W, far from a
Gaussian's shape. A rectified flow (arXiv 2209.03003) learns that cloud; its pairs of noise and code
teach the mapping network, which is then drawn to the codes by the energy distance. No picture is
drawn, so a step costs milliseconds. All of it is our choice (not specified in the paper's available
sources).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_prep.priors.image_encoder import ImageEncoder
from dmgi_lib.dataset import to_float
from dmgi_lib.devices import moved
from dmgi_lib.generators.stylegan2 import StyleMapping


@dataclass(frozen=True)
class PriorFit:
    """How the mapping network is fitted.

    Args:
        flow_steps, flow_batch, flow_rate: of the flow's training, and its learning rate
        width:         of the flow's layers
        integration:   Euler steps from noise to code
        pairs:         pairs of noise and code that teach the mapping network
        distill_steps, energy_steps: of the mapping network, on the pairs, then on the codes
        batch_size:    of both
        mapping_rate:  learning rate of both; the weights are stored times 100 (StyleGAN, App. C)
        noise:         σ of the noise on codes, in units of `WhitenedW`: there are few of them
    """

    flow_steps: int = 6000
    flow_batch: int = 512
    flow_rate: float = 1e-3
    width: int = 384
    integration: int = 32
    pairs: int = 65_536
    distill_steps: int = 6000
    energy_steps: int = 3000
    batch_size: int = 768
    mapping_rate: float = 0.2
    noise: float = 0.05


class WhitenedW:
    """Coordinates in which every direction of a cloud of w counts, narrow ones less than wide."""

    def __init__(self, w: Tensor) -> None:
        self.mean = w.mean(dim=0)
        # on the CPU, for Apple's GPUs cannot
        variance, axes = torch.linalg.eigh(torch.cov((w - self.mean).T).cpu())
        share = (variance / variance[-1]).clamp_min(1e-4)
        self.axes, self.scale = axes.to(w), (share**-0.25 / variance[-1].sqrt()).to(w)

    def __call__(self, w: Tensor) -> Tensor:
        """(B, w_dim) → (B, w_dim); the widest direction gets deviation 1."""
        return (w - self.mean) @ self.axes * self.scale


class Velocity(nn.Module):
    """v(x, t) of the flow: x (B, D) and t (B, 1) in [0, 1] → (B, D)."""

    def __init__(self, width_x: int, width: int, layers: int = 3) -> None:
        super().__init__()
        self.waves: Tensor
        self.register_buffer("waves", torch.pi * 2.0 ** torch.arange(4))
        self.first = nn.Linear(width_x + 8, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.last = nn.Linear(width, width_x)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angle = t * self.waves
        h = self.first(torch.cat([x, angle.sin(), angle.cos()], dim=1))
        for layer in self.layers:
            h = h + layer(F.silu(h))
        return self.last(F.silu(h))


def energy_distance(x: Tensor, y: Tensor) -> Tensor:
    """2 E‖x − y‖ − E‖x − x'‖ − E‖y − y'‖ of samples (B, D): 0 on average if they are alike."""
    within = [_distances(part, part) for part in (x, y)]
    pairs = [~torch.eye(len(part), dtype=torch.bool, device=x.device) for part in (x, y)]
    apart = sum(d[others].mean() for d, others in zip(within, pairs, strict=True))
    return 2.0 * _distances(x, y).mean() - apart


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """‖x_i − y_j‖ through one product of matrices, which is far quicker than all differences."""
    square = x.square().sum(1, keepdim=True) + y.square().sum(1) - 2.0 * x @ y.T
    return square.clamp_min(0.0).add(1e-8).sqrt()


def _rates(optimizer: torch.optim.Optimizer, steps: int) -> Iterator[int]:
    """Step numbers; the learning rates fall to 0 along half a cosine."""
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for step in range(steps):
        yield step
        scheduler.step()


def learn_flow(known: Tensor, rng: torch.Generator, fit: PriorFit) -> Velocity:
    """Trains the velocity from N(0, I) to the rows of `known` (N, D), on their device."""
    torch.manual_seed(int(torch.randint(1 << 30, (), generator=rng)))
    velocity = Velocity(known.shape[1], fit.width).to(known.device)
    optimizer = torch.optim.Adam(velocity.parameters(), fit.flow_rate)
    for _ in _rates(optimizer, fit.flow_steps):
        rows = moved(torch.randint(len(known), (fit.flow_batch,), generator=rng), known.device)
        blur = moved(torch.randn(len(rows), known.shape[1], generator=rng), known.device)
        code = known[rows] + fit.noise * blur
        noise = moved(torch.randn(code.shape, generator=rng), known.device)
        t = moved(torch.rand(len(rows), 1, generator=rng), known.device)
        loss = F.mse_loss(velocity(noise.lerp(code, t), t), code - noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return velocity


@torch.no_grad()
def flow(velocity: Velocity, noise: Tensor, steps: int) -> Tensor:
    """Where the flow takes noise (N, D), by Euler's method."""
    parts = []
    for x in noise.split(4096):
        for k in range(steps):
            x = x + velocity(x, x.new_full((len(x), 1), k / steps)) / steps
        parts.append(x)
    return torch.cat(parts)


def fit_prior(
    mapping: StyleMapping,
    encoder: ImageEncoder,
    images: Tensor,
    rng: torch.Generator,
    fit: PriorFit | None = None,
) -> dict[str, float]:
    """Fits `mapping` in place, so that mapping(z) is distributed like the encoder's w.

    Args:
        images: uint8 (N, 3, H, W), N a few times z_dim; they are read mirrored too

    Returns:
        mean distance to the nearest code, in units of `WhitenedW`: of other codes, of draws, of
        the flow's draws and of a Gaussian with the codes' mean and covariance.
    """
    fit = fit or PriorFit()
    with torch.no_grad():
        device = next(encoder.parameters()).device
        parts = [to_float(part.to(device)) for part in images.split(64)]
        codes = torch.cat([encoder.codes(x) for part in parts for x in (part, part.flip(3))])
        w = encoder.mapping(codes)[:, 0]
    place = WhitenedW(w)
    known = place(w)
    velocity = learn_flow(known, rng, fit)
    z = torch.randn(fit.pairs, mapping.z_dim, generator=rng).to(known)
    wanted = flow(velocity, z, fit.integration)

    mapping.load_state_dict(encoder.mapping.state_dict())
    mapping.requires_grad_(True)
    optimizer = torch.optim.Adam(mapping.parameters(), fit.mapping_rate, (0.9, 0.99))
    for step in _rates(optimizer, fit.distill_steps + fit.energy_steps):
        rows = moved(torch.randint(len(z), (fit.batch_size,), generator=rng), z.device)
        drawn = place(mapping(z[rows])[:, 0])
        if step < fit.distill_steps:
            loss = F.mse_loss(drawn, wanted[rows])
        else:
            others = torch.randint(len(known), (fit.batch_size,), generator=rng)
            others = moved(others, known.device)
            loss = energy_distance(drawn, known[others])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        count = min(512, len(known))
        fresh = torch.randn(count, mapping.z_dim, generator=rng).to(known)
        covariance = torch.cov(known.T).cpu() + 1e-6 * torch.eye(known.shape[1])
        factor = torch.linalg.cholesky(covariance).to(known)
        draws = {
            "draws": place(mapping(fresh)[:, 0]),
            "flow": flow(velocity, fresh, fit.integration),
            "Gaussian": fresh @ factor.T,
        }
        among = torch.cdist(known[:count], known).topk(2, largest=False).values[:, 1]
        nearest = {k: torch.cdist(x, known).min(dim=1).values.mean() for k, x in draws.items()}
    return {k: v.item() for k, v in {"codes": among.mean(), **nearest}.items()}
