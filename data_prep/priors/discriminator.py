"""StyleGAN2 discriminator D (Karras et al. 2020, arXiv 1912.04958, Fig. 7c): residual blocks.

Parameter names of the official PyTorch release. Equalised learning rates everywhere.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from dmgi_lib.generators.stylegan2_layers import (
    LRELU_GAIN,
    LRELU_SLOPE,
    FullyConnectedLayer,
    block_resolutions,
    full_precision,
    normalize_second_moment,
    num_channels,
    resample_kernel,
)


class EqualizedConv(nn.Module):
    """Convolution with equalised learning rate, optional bias + leaky ReLU × √2, optional ÷2.

    Args:
        activation: add a bias and apply the leaky ReLU
        down: low-pass filter, then stride 2; and × √½, for the sum of a residual block's branches
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        activation: bool = True,
        down: bool = False,
    ) -> None:
        super().__init__()
        self.down = down
        self.gain = (math.sqrt(0.5) if down else 1.0) * (LRELU_GAIN if activation else 1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if activation else None
        self.weight_gain = 1.0 / math.sqrt(in_channels * kernel_size**2)
        self.register_buffer("resample_filter", resample_kernel())

    def forward(self, x: Tensor) -> Tensor:
        # The gains commute with the leaky ReLU, so they are applied to the small tensors.
        weight = self.weight * (self.weight_gain * self.gain)
        if self.bias is None:
            # A 1×1 kernel: with the filter one 4×4 convolution of stride 2.
            if self.down:
                return F.conv2d(x, weight * self.resample_filter, stride=2, padding=1)
            return F.conv2d(x, weight)
        bias = self.bias * self.gain
        if self.down:
            fir = self.resample_filter.expand(x.shape[1], 1, 4, 4)
            x = F.conv2d(x, fir, padding=2, groups=x.shape[1])
            x = F.conv2d(x, weight, bias, stride=2)
        else:
            x = F.conv2d(x, weight, bias, padding=weight.shape[2] // 2)
        return F.leaky_relu(x, LRELU_SLOPE)


class DiscriminatorBlock(nn.Module):
    """Residual block, resolution → resolution / 2; `fromrgb` exists in the first block only."""

    def __init__(self, img_channels: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.register_buffer("resample_filter", resample_kernel())
        if img_channels:
            self.fromrgb = EqualizedConv(img_channels, in_channels, 1)
        self.conv0 = EqualizedConv(in_channels, in_channels, 3)
        self.conv1 = EqualizedConv(in_channels, out_channels, 3, down=True)
        self.skip = EqualizedConv(in_channels, out_channels, 1, activation=False, down=True)

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "fromrgb"):
            x = self.fromrgb(x)
        return self.skip(x) + self.conv1(self.conv0(x))


def minibatch_stddev(x: Tensor, group_size: int = 4) -> Tensor:
    """Appends a channel: the standard deviation over groups of samples that D sees together.

    It is averaged over C, H and W. Sample b belongs to group b mod (B / group_size).
    x: (B, C, H, W) → (B, C + 1, H, W).
    """
    batch, _, height, width = x.shape
    size = min(group_size, batch)
    if batch % size:
        raise ValueError(f"a batch of {batch} came; expected a multiple of {size} or fewer.")
    groups = x.unflatten(0, (size, batch // size))
    spread = (groups - groups.mean(dim=0)).square().mean(dim=0)  # [B / size, C, H, W]
    value = (spread + 1e-8).sqrt().mean(dim=(1, 2, 3)).repeat(size)  # [B]
    return torch.cat([x, value[:, None, None, None].expand(-1, 1, height, width)], dim=1)


class DiscriminatorEpilogue(nn.Module):
    """4×4 features → logit (or features), with the minibatch standard deviation."""

    def __init__(self, channels: int, out_features: int) -> None:
        super().__init__()
        self.conv = EqualizedConv(channels + 1, channels, 3)
        self.fc = FullyConnectedLayer(channels * 16, channels, activation=True)
        self.out = FullyConnectedLayer(channels, out_features)

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x):
            x = minibatch_stddev(x.to(self.fc.weight.dtype))
            return self.out(self.fc(self.conv(x).flatten(1)))


class Discriminator(ModelMixin, ConfigMixin):
    """D: image → logit, positive for real.

    With a condition the logit is the product of what is seen and of what the condition lets expect
    (projection discriminator, arXiv 1802.05637, as in StyleGAN2-ADA).

    Args:
        img_resolution, img_channels: of the input; its side is a power of two >= 8
        channel_base, channel_max: channels at resolution r = min(channel_base / r, channel_max)
        c_dim: width of the condition; 0 = none
    """

    @register_to_config
    def __init__(
        self,
        img_resolution: int,
        img_channels: int = 3,
        channel_base: int = 32768,
        channel_max: int = 512,
        c_dim: int = 0,
    ) -> None:
        super().__init__()
        self.resolutions = block_resolutions(img_resolution)[:0:-1]  # down to 8
        widths = [num_channels(r, channel_base, channel_max) for r in (*self.resolutions, 4)]
        for i, resolution in enumerate(self.resolutions):
            block = DiscriminatorBlock(img_channels if i == 0 else 0, widths[i], widths[i + 1])
            self.add_module(f"b{resolution}", block)
        width = widths[-1]
        self.b4 = DiscriminatorEpilogue(width, width if c_dim else 1)
        self.mapping = nn.Sequential()
        if c_dim:
            layers = (FullyConnectedLayer(n, width, activation=True) for n in (c_dim, width))
            self.mapping = nn.Sequential(*layers, FullyConnectedLayer(width, width))

    def forward(self, image: Tensor, c: Tensor | None = None) -> Tensor:
        """(B, img_channels, H, W) in [-1, 1] and the condition (B, c_dim) → logits (B, 1)."""
        return self.head(self.features(image), c)

    def features(self, image: Tensor) -> list[Tensor]:
        """Outputs of the blocks, from the finest to 4×4."""
        x = image.contiguous(memory_format=torch.channels_last)
        outputs = []
        for resolution in self.resolutions:
            x = getattr(self, f"b{resolution}")(x)
            outputs.append(x)
        return outputs

    def head(self, features: list[Tensor], c: Tensor | None = None) -> Tensor:
        """Logits (B, 1) from the outputs of `features` and the condition (B, c_dim)."""
        x = self.b4(features[-1])
        if c is None:
            return x
        with full_precision(x):
            expected = normalize_second_moment(self.mapping(c))
            return (x * expected).sum(dim=1, keepdim=True) / math.sqrt(x.shape[1])
