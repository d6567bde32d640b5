"""Image encoder of the generator's warm start: image → z on the hypersphere, and W+ offsets.

Trained together with G as an autoencoder, it gives G the poses, shapes and colours of the world
before any adversarial loss; then `fit_prior` makes its codes look like draws from N(0, I), so that
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

    While the codes find their own shape, z is the raw code at mean square 1. `fit_prior` then takes
    their Gaussian as the prior: z becomes the whitened code, and the generator's mapping network
    takes over the unwhitening, so that every picture stays what it was. (Whitening from the first
    step on made learning more than twice as slow.)
    """

    code_mean: Tensor
    whitening: Tensor

    def __init__(self, z_dim: int, num_ws: int, w_dim: int, img_resolution: int) -> None:
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
        self.register_buffer("whitening", torch.eye(z_dim))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """image (B, 3, H, W) → z (B, z_dim) of mean square 1, offsets (B, num_ws, w_dim)."""
        x = F.avg_pool2d(image, 2).contiguous(memory_format=torch.channels_last)
        x = self.fc(self.trunk(x).flatten(1))
        raw = normalize_second_moment(self.code(x).float())
        with full_precision(raw):
            z = normalize_second_moment((raw - self.code_mean) @ self.whitening.T)
        return z, self.offsets(x).float().unflatten(1, (self.num_ws, -1))

    @torch.no_grad()
    def fit_prior(self, images: Tensor, first_layer: FullyConnectedLayer, ridge: float) -> None:
        """Makes N(0, I) the distribution of z, and lets `first_layer` read it.

        With codes u of mean μ and covariance L Lᵀ, z = L⁻¹ (u − μ) and the layer's W u + b becomes
        (W L) z + (W μ + b).

        Args:
            images: (N, 3, H, W) in [-1, 1], N a few times z_dim
            first_layer: of the mapping network
            ridge: added to the covariance's diagonal, as a share of its mean
        """
        codes = torch.cat([self(part)[0] for part in images.split(64)])
        mean = codes.mean(dim=0)
        centred = codes - mean
        covariance = centred.T @ centred / len(codes)
        eye = torch.eye(len(mean))
        factor = torch.linalg.cholesky(covariance + ridge * covariance.diagonal().mean() * eye)
        gain = first_layer.weight_gain / first_layer.bias_gain
        first_layer.bias.add_(gain * (first_layer.weight @ mean))
        first_layer.weight.copy_(first_layer.weight @ factor)
        self.code_mean.copy_(mean)
        self.whitening.copy_(torch.linalg.inv(factor))


def noisy_code(z: Tensor, sigma: float, rng: torch.Generator) -> Tensor:
    """A draw near z that keeps the prior's variance: √(1 − σ²) z + σ n."""
    noise = torch.randn(z.shape, generator=rng)
    return (1.0 - sigma**2) ** 0.5 * z + sigma * noise
