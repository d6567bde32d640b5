"""Makes the mapping network's draws look like the encoder's codes, in W.

After the warm start the encoder's codes are a cloud of some twenty directions in W, far from a
Gaussian's shape. First the mapping network becomes the encoder's own, with the codes' Gaussian in
front; then it is trained against a small critic of w, which costs milliseconds a step because no
picture is drawn. All of it is our choice (not specified in the paper's available sources).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_prep.priors.feature_discriminator import adversarial_losses
from data_prep.priors.image_encoder import ImageEncoder
from dmgi_lib.dataset import to_float
from dmgi_lib.generators.stylegan2 import StyleMapping
from dmgi_lib.generators.stylegan2_layers import FullyConnectedLayer


@dataclass(frozen=True)
class PriorFit:
    """How the mapping network is fitted.

    Args:
        steps, batch_size: of the critic's game
        learning_rate, mapping_rate: of the critic, and of the mapping network, whose weights are
            stored times 100 (StyleGAN, App. C)
        ridge:       on the codes' covariance, as a share of its mean variance
        noise:       σ of the noise on codes, in the critic's units: there are few of them
        r1_gamma:    weight of R1 on every fourth step
        group:       codes that the critic compares at a time, to see when draws are too alike
        ema_steps:   half-life of the mapping network's average, which is what is kept
    """

    steps: int = 5000
    batch_size: int = 256
    learning_rate: float = 1e-3
    mapping_rate: float = 0.3
    ridge: float = 0.02
    noise: float = 0.1
    r1_gamma: float = 1.0
    group: int = 8
    ema_steps: float = 300.0


class LatentCritic(nn.Module):
    """Tells codes from draws: layers on w and on the deviation within a group of them."""

    def __init__(self, w_dim: int, group: int, width: int = 384) -> None:
        super().__init__()
        self.group = group
        self.first = nn.Sequential(
            nn.Linear(w_dim, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2)
        )
        self.last = nn.Sequential(nn.Linear(width + 1, width), nn.LeakyReLU(0.2))
        self.logit = nn.Linear(width, 1)

    def forward(self, w: Tensor) -> Tensor:
        """(B, w_dim), B a multiple of the group → logits (B, 1), positive for codes."""
        x = self.first(w)
        spread = x.unflatten(0, (-1, self.group)).std(dim=1).mean(dim=1)
        x = torch.cat([x, spread.repeat_interleave(self.group)[:, None]], dim=1)
        return self.logit(self.last(x))


@torch.no_grad()
def copy_with_gaussian(
    mapping: StyleMapping, source: StyleMapping, codes: Tensor, ridge: float
) -> None:
    """`mapping` of N(0, I) becomes `source` of the Gaussian of `codes`.

    With codes u of mean μ and covariance L Lᵀ, u = L z + μ, so that the first layer's W u + b
    becomes (W L) z + (W μ + b).

    Args:
        codes: (N, z_dim), N a few times z_dim
        ridge: added to the covariance's diagonal, as a share of its mean
    """
    mapping.load_state_dict(source.state_dict())
    mean = codes.mean(dim=0)
    centred = codes - mean
    covariance = centred.T @ centred / len(codes)
    eye = torch.eye(len(mean))
    factor = torch.linalg.cholesky(covariance + ridge * covariance.diagonal().mean() * eye)
    first: FullyConnectedLayer = mapping.fc0  # type: ignore[assignment]
    first.bias.add_(first.weight_gain / first.bias_gain * (first.weight @ mean))
    first.weight.copy_(first.weight @ factor)


class WhitenedW:
    """Coordinates in which every direction of a cloud of w counts, narrow ones less than wide."""

    def __init__(self, w: Tensor) -> None:
        self.mean = w.mean(dim=0)
        variance, self.axes = torch.linalg.eigh(torch.cov((w - self.mean).T))
        share = (variance / variance[-1]).clamp_min(1e-4)
        self.scale = share**-0.25 / variance[-1].sqrt()

    def __call__(self, w: Tensor) -> Tensor:
        """(B, w_dim) → (B, w_dim); the widest direction gets deviation 1."""
        return (w - self.mean) @ self.axes * self.scale


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
        mean distance of codes, of draws, and of Gaussian draws to the nearest code, in the
        critic's units: draws that are as good as codes score what codes score.
    """
    fit = fit or PriorFit()
    with torch.no_grad():
        parts = [to_float(part) for part in images.split(64)]
        codes = torch.cat([encoder.codes(x) for part in parts for x in (part, part.flip(3))])
        wanted = encoder.mapping(codes)[:, 0]
    copy_with_gaussian(mapping, encoder.mapping, codes, fit.ridge)
    place = WhitenedW(wanted)
    known = place(wanted)
    gaussian = copy.deepcopy(mapping)
    critic = LatentCritic(mapping.w_dim, fit.group)
    for parameter in critic.parameters():
        if parameter.ndim == 2:
            nn.init.kaiming_uniform_(parameter, 5**0.5, generator=rng)
    averaged = copy.deepcopy(mapping).requires_grad_(False)
    mapping.requires_grad_(True)
    opt_critic = torch.optim.Adam(critic.parameters(), fit.learning_rate, (0.0, 0.99))
    opt_mapping = torch.optim.Adam(mapping.parameters(), fit.mapping_rate, (0.0, 0.99))
    decay = 0.5 ** (1.0 / fit.ema_steps)

    def drawn(network: StyleMapping, count: int) -> Tensor:
        return place(network(torch.randn(count, mapping.z_dim, generator=rng))[:, 0])

    for step in range(fit.steps):
        rows = torch.randint(len(known), (fit.batch_size,), generator=rng)
        real = known[rows]
        real = real + fit.noise * torch.randn(real.shape, generator=rng) * known.std(0)
        real.requires_grad_(True)
        fake = drawn(mapping, fit.batch_size)
        critic.requires_grad_(True)
        logits = critic(real)
        loss = adversarial_losses(logits, critic(fake.detach()))
        if step % 4 == 0:
            (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
            loss = loss + 2.0 * fit.r1_gamma * gradient.square().sum(1).mean()
        opt_critic.zero_grad(set_to_none=True)
        loss.backward()
        opt_critic.step()
        critic.requires_grad_(False)
        opt_mapping.zero_grad(set_to_none=True)
        F.softplus(-critic(fake)).mean().backward()
        opt_mapping.step()
        with torch.no_grad():
            for kept, new in zip(averaged.parameters(), mapping.parameters(), strict=True):
                kept.lerp_(new, 1.0 - decay)
    mapping.load_state_dict(averaged.state_dict())
    with torch.no_grad():
        count = min(512, len(known))
        among = torch.cdist(known[:count], known).topk(2, largest=False).values[:, 1]
        nearest = {
            name: torch.cdist(drawn(network, count), known).min(dim=1).values.mean().item()
            for name, network in (("draws", mapping), ("Gaussian", gaussian))
        }
    return {"codes": among.mean().item()} | nearest
