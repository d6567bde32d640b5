"""Image encoder of the generator's warm start: image → w, and W+ offsets.

Trained together with G as an autoencoder, it gives G the poses, shapes and colours of the world
before any adversarial loss; then `latent_prior` makes the mapping network draw such w. All of it is
our choice (not specified in the paper's available sources).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_prep.priors.discriminator import DiscriminatorBlock
from dmgi_lib.devices import moved
from dmgi_lib.generators.stylegan2 import StyleMapping
from dmgi_lib.generators.stylegan2_layers import FullyConnectedLayer, normalize_second_moment


class ImageEncoder(nn.Module):
    """Residual encoder on the image at half resolution, with equalised learning rates.

    Args:
        z_dim, num_ws, w_dim, mapping_layers: of the generator
        img_resolution: of the image

    It has a mapping network of its own, as the generator's will be: see `latent_prior`.
    """

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

    def _read(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = F.avg_pool2d(image, 2).contiguous(memory_format=torch.channels_last)
        x = self.fc(self.trunk(x).flatten(1))
        return normalize_second_moment(self.code(x).float()), self.offsets(x).float()

    def codes(self, image: Tensor) -> Tensor:
        """image (B, 3, H, W) → z (B, z_dim) of mean square 1."""
        return self._read(image)[0]

    def forward(
        self, image: Tensor, sigma: float = 0.0, rng: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """image (B, 3, H, W) → ws, offsets, both (B, num_ws, w_dim).

        Args:
            sigma: of the noise on z; rng: where it comes from, needed with sigma > 0
        """
        z, offsets = self._read(image)
        if sigma > 0:
            noise = moved(torch.randn(z.shape, generator=rng), z.device)
            z = (1.0 - sigma**2) ** 0.5 * z + sigma * noise
        return self.mapping(z), offsets.unflatten(1, (self.num_ws, -1))
