"""Codes of the generator's warm start: the encoder that reads them, a mapping network's like them.

Trained together with G as an autoencoder, the encoder gives G the poses, shapes and colours of the
world before any adversarial loss. Its codes are then a cloud of some twenty directions in W, far
from a Gaussian's shape. A rectified flow (arXiv 2209.03003) learns that cloud; its pairs of noise
and code teach the mapping network, which is then drawn to the codes by the energy distance. No
picture is drawn, so a step costs milliseconds. All of it is our choice (not specified in the
paper's available sources).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from data_prep.priors.discriminator import DiscriminatorBlock
from dmgi_lib.dataset import to_float
from dmgi_lib.devices import moved
from dmgi_lib.generators.stylegan2 import StyleMapping
from dmgi_lib.generators.stylegan2_layers import FullyConnectedLayer, normalize_second_moment


class ImageEncoder(ModelMixin, ConfigMixin):
    """Residual encoder on the image at half resolution, with equalised learning rates.

    Args:
        z_dim, num_ws, w_dim, mapping_layers: of the generator
        img_resolution: of the image

    It has a mapping network of its own, as the generator's will be: see `fit_prior`.
    """

    @register_to_config
    def __init__(
        self, z_dim: int, num_ws: int, w_dim: int, img_resolution: int, mapping_layers: int
    ) -> None:
        super().__init__()
        self.num_ws = num_ws
        blocks: list[nn.Module] = []
        resolution, channels = img_resolution // 2, 32
        while resolution > 4:
            wider = min(2 * channels, 128)
            blocks.append(DiscriminatorBlock(0 if blocks else 3, channels, wider))
            resolution, channels = resolution // 2, wider
        self.trunk = nn.Sequential(*blocks)
        self.fc = FullyConnectedLayer(channels * resolution**2, 256, activation=True)
        self.code = FullyConnectedLayer(256, z_dim)
        self.offsets = FullyConnectedLayer(256, num_ws * w_dim)
        nn.init.zeros_(self.offsets.weight)
        self.mapping = StyleMapping(z_dim, 0, w_dim, num_ws, mapping_layers)

    def codes(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """image (B, 3, H, W) → z (B, z_dim) of mean square 1, offsets (B, num_ws · w_dim)."""
        x = F.avg_pool2d(image, 2).contiguous(memory_format=torch.channels_last)
        x = self.fc(self.trunk(x).flatten(1))
        return normalize_second_moment(self.code(x).float()), self.offsets(x).float()

    def forward(
        self, image: Tensor, sigma: float = 0.0, rng: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """image (B, 3, H, W) → ws, offsets, both (B, num_ws, w_dim).

        Args:
            sigma: of the noise on z; rng: where it comes from, needed with sigma > 0
        """
        z, offsets = self.codes(image)
        if sigma > 0:
            noise = moved(torch.randn(z.shape, generator=rng), z.device)
            z = (1.0 - sigma**2) ** 0.5 * z + sigma * noise
        return self.mapping(z), offsets.unflatten(1, (self.num_ws, -1))


@dataclass(frozen=True)
class PriorFit:
    """How the mapping network is fitted."""

    # of the flow's training, and its learning rate
    flow_steps: int = 6000
    flow_batch: int = 512
    flow_rate: float = 1e-3
    width: int = 384  # of the flow's layers
    integration: int = 32  # Euler steps from noise to code
    pairs: int = 65_536  # pairs of noise and code that teach the mapping network
    # of the mapping network, on the pairs, then on the codes
    distill_steps: int = 6000
    energy_steps: int = 3000
    batch_size: int = 768  # of both
    # learning rate of both; the weights are stored times 100 (StyleGAN, App. C)
    mapping_rate: float = 0.2
    noise: float = 0.05  # σ of the noise on whitened codes: there are few of them


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


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


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
    batch, width = fit.flow_batch, known.shape[1]
    for _ in _rates(optimizer, fit.flow_steps):
        rows = moved(torch.randint(len(known), (batch,), generator=rng), known.device)
        blur, noise = (
            moved(torch.randn(batch, width, generator=rng), known.device) for _ in range(2)
        )
        code = known[rows] + fit.noise * blur
        t = moved(torch.rand(batch, 1, generator=rng), known.device)
        _descend(optimizer, F.mse_loss(velocity(noise.lerp(code, t), t), code - noise))
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
    fit: PriorFit,
) -> None:
    """Fits `mapping` in place, so that mapping(z) is distributed like the encoder's w.

    Codes are compared in coordinates in which every direction of their cloud counts, narrow ones
    less than wide: the widest has deviation 1.

    Args:
        images: uint8 (N, 3, H, W), N a few times z_dim; they are read mirrored too
    """
    with torch.no_grad():
        device = next(encoder.parameters()).device
        parts = [to_float(part.to(device)) for part in images.split(64)]
        codes = torch.cat([encoder.codes(x)[0] for part in parts for x in (part, part.flip(3))])
        w = encoder.mapping(codes)[:, 0]
    mean = w.mean(dim=0)
    # on the CPU, for Apple's GPUs cannot
    variance, axes = torch.linalg.eigh(torch.cov((w - mean).T).cpu())
    share = (variance / variance[-1]).clamp_min(1e-4)
    axes, scale = axes.to(w), (share**-0.25 / variance[-1].sqrt()).to(w)
    known = (w - mean) @ axes * scale
    velocity = learn_flow(known, rng, fit)
    z = torch.randn(fit.pairs, mapping.z_dim, generator=rng).to(known)
    wanted = flow(velocity, z, fit.integration)

    mapping.load_state_dict(encoder.mapping.state_dict())
    mapping.requires_grad_(True)
    optimizer = torch.optim.Adam(mapping.parameters(), fit.mapping_rate, (0.9, 0.99))
    for step in _rates(optimizer, fit.distill_steps + fit.energy_steps):
        rows = moved(torch.randint(len(z), (fit.batch_size,), generator=rng), z.device)
        drawn = (mapping(z[rows])[:, 0] - mean) @ axes * scale
        if step < fit.distill_steps:
            loss = F.mse_loss(drawn, wanted[rows])
        else:
            others = torch.randint(len(known), (fit.batch_size,), generator=rng)
            loss = energy_distance(drawn, known[moved(others, known.device)])
        _descend(optimizer, loss)
