"""Layers of the networks in `recognizers.py`; the choice is ours, none is in the paper."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_norm_relu(inputs: int, outputs: int) -> nn.Sequential:
    """3 x 3 convolution, batch norm, ReLU; the size stays."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class ResidualBody(nn.Module):
    """Pre-activation residual stages on a strided stem: 128 px image → (B, C, 8, 8)."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels[0], 4, stride=2, padding=1)
        widths = zip((channels[0], *channels[:-1]), channels, strict=True)
        self.stages = nn.ModuleList(
            nn.Sequential(ResidualBlock(i, o, halve=n > 0), *([ResidualBlock(o, o)] * (n == 2)))
            for n, (i, o) in enumerate(widths)
        )
        self.norm = nn.BatchNorm2d(channels[-1])

    def features(self, image: Tensor) -> list[Tensor]:
        """(B, C, S, S), S = 64, 32, 16, 8; the last one normalised."""
        features = [self.stem(image)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return [*features[1:-1], F.silu(self.norm(features[-1]))]

    def forward(self, image: Tensor) -> Tensor:
        return self.features(image)[-1]


class ResidualBlock(nn.Module):
    """Two normalised 3 x 3 convolutions beside a skip (He et al. 2016, pre-activation)."""

    def __init__(self, inputs: int, outputs: int, halve: bool = False) -> None:
        super().__init__()
        self.stride = 2 if halve else 1
        self.norm_1, self.norm_2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv_1 = nn.Conv2d(inputs, outputs, 3, self.stride, padding=1, bias=False)
        self.conv_2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_1(F.silu(self.norm_1(x)))
        y = self.conv_2(F.silu(self.norm_2(y)))
        return self.skip(F.avg_pool2d(x, 2) if self.stride == 2 else x) + y


def pooled_head(inputs: int, outputs: int) -> nn.Sequential:
    """Labels that need no place: mean and maximum over places, then a linear layer."""
    return nn.Sequential(MeanMaxPool(), nn.Dropout(0.2), nn.Linear(2 * inputs, outputs))


class MeanMaxPool(nn.Module):
    """(B, C, S, S) → (B, 2C)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)


class PlacedHead(nn.Module):
    """Shape lies in where things are: a few channels keep their places on the 8 x 8 grid."""

    def __init__(self, inputs: int, squeezed: int, outputs: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.linear = nn.Linear(squeezed * 8 * 8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.dropout(self.squeeze(x).flatten(1), 0.2, self.training))
