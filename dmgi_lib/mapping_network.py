"""Section 3, mapping network M: middle-block features h_t → code w_t^m by (Conv + ReLU)×k → FC.

The convolutions, the ReLUs and the final FC are stated by the paper (Fig. 2). Widths, strides, the
standardised input, and codes as offsets from the generator's w_avg are our choice (not
specified in the paper's available sources).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from dmgi_lib.checks import one_of

LATENTS = ("w_plus", "w")
ORIGINS = ("w_avg", "zero")


@dataclass(frozen=True)
class MappingConfig:
    """Sizes and choices of M.

    in_channels, in_resolution: C and H = W of h_t
    num_ws, w_dim: rows and width of G's W+ code
    width: channels of the convolutions
    latent: "w_plus" gives each style layer its own row, "w" one row for all
    origin: "w_avg" predicts offsets from G's w_avg, "zero" the code itself; the last layer
        starts at zero, so "w_avg" starts at one face
    """

    in_channels: int = 160
    in_resolution: int = 4
    num_ws: int = 12
    w_dim: int = 128
    width: int = 256
    latent: str = "w_plus"
    origin: str = "w_avg"

    def __post_init__(self) -> None:
        one_of("latent", self.latent, LATENTS)
        one_of("origin", self.origin, ORIGINS)
        if self.in_resolution < 2 or self.in_resolution & (self.in_resolution - 1):
            raise ValueError(
                f"in_resolution came as {self.in_resolution}; expected a power of two of at least"
                " 2."
            )


class MappingNetwork(ModelMixin, ConfigMixin):
    """M. Arguments: see MappingConfig; `MappingNetwork(**asdict(config))` takes one whole.

    Buffers `w_avg` (w_dim,), `h_mean` and `h_std` (in_channels,) are set by `calibrate` before
    training and saved with the weights.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 160,
        in_resolution: int = 4,
        num_ws: int = 12,
        w_dim: int = 128,
        width: int = 256,
        latent: str = "w_plus",
        origin: str = "w_avg",
    ) -> None:
        super().__init__()
        MappingConfig(in_channels, in_resolution, num_ws, w_dim, width, latent, origin)
        self.num_ws = num_ws
        self.rows = num_ws if latent == "w_plus" else 1
        layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU()]
        resolution = in_resolution
        while resolution > 2:
            layers += [nn.Conv2d(width, width, 3, stride=2, padding=1), nn.ReLU()]
            resolution //= 2
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.convs = nn.Sequential(*layers)
        self.fc = nn.Linear(width * resolution**2, self.rows * w_dim)
        nn.init.zeros_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)
        self.register_buffer("w_avg", torch.zeros(w_dim))
        self.register_buffer("h_mean", torch.zeros(in_channels))
        self.register_buffer("h_std", torch.ones(in_channels))

    @torch.no_grad()
    def calibrate(self, w_avg: torch.Tensor, h: torch.Tensor) -> None:
        """Sets w_avg and the channel statistics of h_t.

        Args:
            w_avg: (w_dim,) G's centre of truncation; ignored if origin is "zero".
            h: (B, C, H, W) features of training samples.
        """
        if self.config.origin == "w_avg":
            self.w_avg.copy_(w_avg)
        self.h_mean.copy_(h.float().mean(dim=(0, 2, 3)))
        self.h_std.copy_(h.float().std(dim=(0, 2, 3)).clamp_min(1e-4))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """h_t (B, C, H, W) → w_t^m (B, num_ws, w_dim)."""
        x = (h - self.h_mean[:, None, None]) / self.h_std[:, None, None]
        x = self.convs(x).flatten(1)
        offsets: torch.Tensor = self.fc(x).unflatten(1, (self.rows, -1))  # [B, rows, w_dim]
        w_m: torch.Tensor = self.w_avg + offsets.expand(-1, self.num_ws, -1)
        return w_m
