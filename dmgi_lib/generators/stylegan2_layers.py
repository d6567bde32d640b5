"""Layers of StyleGAN2 (Karras et al. 2020, arXiv 1912.04958, Sec. 2.2, eq. 1-3).

Weight modulation is computed as scale input, shared convolution, demodulate output: the same
numbers as per-sample kernels, without the grouped convolution that is slow on CPUs. Where the
parameters are half precision, so are the features; styles, demodulation and RGB sums stay in fp32,
as in the official release. Parameter names are those of the official PyTorch release.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmgi_lib.checks import whole_number

LRELU_SLOPE = 0.2
LRELU_GAIN = math.sqrt(2.0)
MAX_WIDTH = 2**14  # of any vector or feature map; released networks have 512


def normalize_second_moment(x: Tensor) -> Tensor:
    """Scales each row of x (B, D) to mean square 1: the hypersphere that `mapping` reads."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


def resample_kernel() -> Tensor:
    """The low-pass filter [1, 3, 3, 1] of all resampling as a (4, 4) kernel of sum 1."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = torch.outer(taps, taps)
    return kernel / kernel.sum()


def check_sizes(**sizes: tuple[object, int, int]) -> None:
    """`whole_number` of name=(value, least, most), before anything is built from a config."""
    for name, size in sizes.items():
        whole_number(name, *size)


def num_channels(resolution: int, channel_base: int, channel_max: int) -> int:
    """Feature channels at a resolution: channel_base / resolution, at most channel_max."""
    return min(channel_base // resolution, channel_max)


def block_resolutions(img_resolution: int) -> list[int]:
    """[4, 8, ..., img_resolution]; raises ValueError unless it is a power of two from 4 to 4096."""
    check_sizes(img_resolution=(img_resolution, 4, 4096))
    if img_resolution & (img_resolution - 1):
        raise ValueError(
            f"img_resolution came as {img_resolution}; expected a power of two >= 4, such as 128."
        )
    return [2**i for i in range(2, img_resolution.bit_length())]


def full_precision(x: Tensor) -> torch.autocast:
    """Autocast off: styles, demodulation and RGB sums keep the parameters' precision."""
    return torch.autocast(x.device.type, enabled=False)


def at_least_fp32(v: Tensor) -> torch.dtype:
    """fp32 for half precision, else v's own type."""
    return torch.promote_types(v.dtype, torch.float32)


def _rows(v: Tensor, width: int) -> Tensor:
    """(B, C) → (B, C, 1, width), channels innermost; on a GPU (B, C, 1, 1).

    Broadcasting over whole rows instead of single pixels gives CPU kernels a long inner loop;
    with few channels this is several times faster.
    """
    if v.device.type != "cpu":
        return v[:, :, None, None]
    return v[:, None, None, :].expand(-1, -1, width, -1).contiguous().permute(0, 3, 1, 2)


class _ChannelAffine(torch.autograd.Function):
    """y = x · scale + (noise + bias), with the reductions of its backward pass fused.

    x (B, C, H, W), scale (B, C), bias (C,) or None, noise (1 or B, H, W) or None. Same numbers as
    the plain expression; autograd's own broadcast reductions are several times slower on CPUs.
    """

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, noise: Tensor | None, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.noise_batch = None if noise is None else len(noise)
        rows = _rows(scale.to(x.dtype), x.shape[3])
        if bias is None:
            return x * rows
        if noise is None:
            shift = _rows(bias[None], x.shape[3])
        elif x.device.type != "cpu":
            shift = noise[:, None] + bias[:, None, None]
        else:
            shift = (noise[..., None] + bias).permute(0, 3, 1, 2)
        return torch.addcmul(shift.to(x.dtype), x, rows)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, scale = ctx.saved_tensors
        needs = ctx.needs_input_grad
        grad_x = grad_scale = grad_noise = grad_bias = None
        if needs[0]:
            grad_x = _ChannelAffine.apply(grad, scale, None, None)
        if needs[1]:
            grad_scale = (grad * x).sum(dim=(2, 3)).to(scale.dtype)
        if needs[2]:
            grad_noise = grad.sum(dim=1).to(scale.dtype)
            if ctx.noise_batch == 1:
                grad_noise = grad_noise.sum(dim=0, keepdim=True)
        if needs[3]:
            grad_bias = grad.sum(dim=(0, 2, 3)).to(scale.dtype)
        return grad_x, grad_scale, grad_noise, grad_bias


class FullyConnectedLayer(nn.Module):
    """Linear layer with equalised learning rate, optionally followed by leaky ReLU × √2.

    Args:
        in_features, out_features: widths
        activation:    apply the leaky ReLU
        lr_multiplier: factor on weight and bias at run time (0.01 in the mapping network)
        bias_init:     effective initial bias (1 for style affines)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: bool = False,
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init)))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, self.weight.dtype)
        weight, bias = self.weight.to(dtype), self.bias.to(dtype)
        x = F.linear(x.to(dtype), weight * self.weight_gain, bias * self.bias_gain)
        return F.leaky_relu(x, LRELU_SLOPE) * LRELU_GAIN if self.activation else x


class SynthesisLayer(nn.Module):
    """Modulated 3×3 convolution, optional ×2 upsampling, noise, bias, leaky ReLU × √2.

    Args:
        in_channels, out_channels, w_dim: widths
        resolution: of the output
        up:         double the resolution: transposed convolution, then low-pass filter
        conv_clamp: clip the output to ±conv_clamp; None = off
    """

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        up: bool = False,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolution, self.up, self.conv_clamp = resolution, up, conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("resample_filter", resample_kernel())

    def forward(
        self, x: Tensor, w: Tensor, noise_mode: str, generator: torch.Generator | None
    ) -> Tensor:
        with full_precision(x):
            precise = at_least_fp32(self.weight)
            style = self.affine(w.to(precise))  # [B, in]
            energy = self.weight.to(precise).square().sum(dim=(2, 3))  # [out, in]
            demodulation = (style.square() @ energy.T + 1e-8).rsqrt() * LRELU_GAIN  # [B, out]
            if x.dtype == torch.float16:  # sums of a convolution must stay below 65504
                largest = style.abs().amax(dim=1, keepdim=True) * self.weight.abs().amax()
                scale = 1 / (largest * math.sqrt(self.weight[0].numel())).clamp_min(1e-8)
                style, demodulation = style * scale, demodulation / scale
            noise = self._noise(len(w), noise_mode, generator)  # [1 or B, H, W]
        x = _ChannelAffine.apply(x, style, None, None)
        if self.up:
            x = F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)
            fir = (self.resample_filter * 4).expand(x.shape[1], 1, 4, 4)
            x = F.conv2d(x, fir.to(x.dtype), padding=1, groups=x.shape[1])
        else:
            x = F.conv2d(x, self.weight, padding=1)
        x = _ChannelAffine.apply(x, demodulation, noise, self.bias * LRELU_GAIN)
        x = F.leaky_relu(x, LRELU_SLOPE)
        return x if self.conv_clamp is None else x.clamp(-self.conv_clamp, self.conv_clamp)

    def _noise(
        self, batch: int, noise_mode: str, generator: torch.Generator | None
    ) -> Tensor | None:
        if noise_mode == "none":
            return None
        noise = self.noise_const[None]
        if noise_mode == "random":
            size = (batch, self.resolution, self.resolution)
            device = "cpu" if generator is None else generator.device
            dtype = at_least_fp32(self.bias)
            noise = torch.randn(size, generator=generator, dtype=dtype, device=device)
            noise = noise.to(self.bias)
        return noise * (self.noise_strength * LRELU_GAIN)


class ToRGBLayer(nn.Module):
    """Modulated 1×1 convolution to image channels, without demodulation."""

    def __init__(
        self, in_channels: int, img_channels: int, w_dim: int, conv_clamp: float | None = None
    ) -> None:
        super().__init__()
        self.conv_clamp = conv_clamp
        self.affine = FullyConnectedLayer(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(img_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(img_channels))
        self.weight_gain = 1.0 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        with full_precision(x):
            precise = at_least_fp32(self.weight)
            style = self.affine(w.to(precise)) * self.weight_gain
            kernel = style[:, :, None] * self.weight[:, :, 0, 0].T  # [B, in, img]
            pixels = x.permute(0, 2, 3, 1).flatten(1, 2) @ kernel.to(x.dtype)  # [B, HW, img]
            image = pixels.to(precise).mT.unflatten(2, x.shape[2:])
            image = image + self.bias[:, None, None]
        return image if self.conv_clamp is None else image.clamp(-self.conv_clamp, self.conv_clamp)
