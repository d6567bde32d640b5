"""Image encoder of the generator's warm start: image → z on the hypersphere, and W+ offsets.

Trained together with G as an autoencoder, it gives G the poses, shapes and colours of the world
before any adversarial loss; `code_distance` makes its codes look like draws from the prior, so that
sampling z works at once. All of it is our choice (not specified in the paper's available sources).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_prep.priors.discriminator import DiscriminatorBlock
from dmgi_lib.generators.stylegan2_layers import (
    FullyConnectedLayer,
    full_precision,
    normalize_second_moment,
)


class ImageEncoder(nn.Module):
    """Residual encoder on the image at half resolution, with equalised learning rates.

    Args:
        z_dim, num_ws, w_dim: of the generator
        img_resolution: of the image
        bank_size:      recent codes kept for `code_distance`

    Raw codes are whitened by running statistics, in training too: batches are small, and without
    it most of the code's variance gathers in a few directions, which the prior never draws.
    """

    momentum = 0.002  # of the running statistics, per image
    code_mean: Tensor
    code_covariance: Tensor
    bank: Tensor

    def __init__(
        self, z_dim: int, num_ws: int, w_dim: int, img_resolution: int, bank_size: int = 2048
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
        self.register_buffer("code_mean", torch.zeros(z_dim))
        self.register_buffer("code_covariance", torch.eye(z_dim))
        self.register_buffer("bank", torch.randn(bank_size, z_dim))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """image (B, 3, H, W) → z (B, z_dim) of mean square 1, offsets (B, num_ws, w_dim)."""
        x = F.avg_pool2d(image, 2).contiguous(memory_format=torch.channels_last)
        x = self.fc(self.trunk(x).flatten(1))
        z = normalize_second_moment(self._whiten(self.code(x).float()))
        return z, self.offsets(x).float().unflatten(1, (self.num_ws, -1))

    def _whiten(self, raw: Tensor) -> Tensor:
        """Running mean 0 and covariance I; no gradient flows into the statistics."""
        with torch.no_grad(), full_precision(raw):
            if self.training:
                share = 1.0 - (1.0 - self.momentum) ** len(raw)
                self.code_mean.lerp_(raw.mean(dim=0), share)
                centred = raw - self.code_mean
                self.code_covariance.lerp_(centred.T @ centred / len(raw), share)
            ridge = 0.01 * self.code_covariance.diagonal().mean() + 1e-6
            factor = torch.linalg.cholesky(self.code_covariance + ridge * torch.eye(raw.shape[1]))
            inverse = torch.linalg.inv(factor)
        with full_precision(raw):
            return (raw - self.code_mean) @ inverse.T

    def code_distance(self, z: Tensor, rng: torch.Generator, projections: int = 64) -> Tensor:
        """Distance of the recent codes from the prior; gradients flow to z only. Fills the bank.

        Sliced 2-Wasserstein distance to N(0, I) plus the squared Frobenius distance of the second
        moments from the identity, per dimension. Scaled by bank size / B, so that the gradient for
        one code does not depend on the bank.
        """
        codes = torch.cat([z, self.bank[: -len(z)]])
        count, dim = codes.shape
        directions = F.normalize(torch.randn(dim, projections, generator=rng), dim=0)
        quantiles = torch.special.ndtri((torch.arange(count) + 0.5) / count)[:, None]
        sliced = ((codes @ directions).sort(dim=0).values - quantiles).square().mean()
        moments = (codes.T @ codes / count - torch.eye(dim)).square().sum() / dim
        with torch.no_grad():
            self.bank.copy_(codes)
        return (sliced + moments) * (count / len(z))


def noisy_code(z: Tensor, sigma: float, rng: torch.Generator) -> Tensor:
    """A draw near z that keeps the prior's variance: √(1 − σ²) z + σ n."""
    noise = torch.randn(z.shape, generator=rng)
    return (1.0 - sigma**2) ** 0.5 * z + sigma * noise
