"""Mask to code without diffusion and without text: a baseline that M and T are compared with."""

from __future__ import annotations

import itertools

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from dmgi_lib.mapping_network import MappingNetwork
from dmgi_lib.masks import mask_to_rgb


class MaskEncoder(ModelMixin, ConfigMixin):
    """Mask x (image_size pixels a side) → W+ code: strided convolutions, then the layers of M.

    channels: of the convolutions, which halve the size down to 4; width: of the rest
    """

    @register_to_config
    def __init__(
        self,
        image_size: int = 128,
        num_ws: int = 12,
        w_dim: int = 128,
        channels: tuple[int, ...] = (32, 64, 96, 128, 160),
        width: int = 256,
    ) -> None:
        super().__init__()
        if image_size // 2 ** len(channels) != 4:
            raise ValueError(
                f"image_size={image_size} and {len(channels)} strided convolutions came; expected"
                " sizes that end at 4 pixels."
            )
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((3, *channels)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        self.stem = nn.Sequential(*layers)
        self.mapping = MappingNetwork(channels[-1], 4, num_ws, w_dim, width)

    def forward(self, mask: Tensor) -> Tensor:
        """mask (B, H, W) class ids → codes (B, num_ws, w_dim)."""
        picture = mask_to_rgb(mask).to(self.device, self.dtype)
        return self.mapping(self.stem(picture * 2 - 1))
