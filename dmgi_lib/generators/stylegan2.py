"""StyleGAN2 generator G (Karras et al. 2020, arXiv 1912.04958): mapping and skip synthesis.

Plain PyTorch with the parameter names of the official PyTorch release, so that its weights load
unchanged.

    G = StyleGAN2Generator(z_dim=128, c_dim=0, w_dim=128, img_resolution=128)
    ws = G.mapping(torch.randn(4, 128), truncation_psi=0.7)   # (4, 12, 128)
    image = G.synthesis(ws, noise_mode="const")               # (4, 3, 128, 128), about [-1, 1]
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from dmgi_lib.checks import one_of
from dmgi_lib.generators.stylegan2_layers import (
    MAX_WIDTH,
    FullyConnectedLayer,
    SynthesisLayer,
    ToRGBLayer,
    at_least_fp32,
    block_resolutions,
    check_sizes,
    full_precision,
    normalize_second_moment,
    num_channels,
    resample_kernel,
)

NOISE_MODES = ("const", "random", "none")


class StyleMapping(nn.Module):
    """f: z (and label c) → w, then truncation (StyleGAN, Sec. 2 and App. B). Called `G.mapping`.

    Args:
        z_dim, c_dim, w_dim: widths of latent, label (0 = unconditional) and style code
        num_ws:      number of style rows that w is repeated to
        num_layers:  fully connected layers
    """

    w_avg: Tensor

    def __init__(self, z_dim: int, c_dim: int, w_dim: int, num_ws: int, num_layers: int) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, num_ws
        self.num_layers = num_layers
        if c_dim > 0:
            self.embed = FullyConnectedLayer(c_dim, w_dim)
        widths = [z_dim + (w_dim if c_dim > 0 else 0)] + [w_dim] * num_layers
        for i in range(num_layers):
            layer = FullyConnectedLayer(widths[i], widths[i + 1], True, lr_multiplier=0.01)
            self.add_module(f"fc{i}", layer)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """ws = w_avg + psi (f(z, c) − w_avg).

        Args:
            z: (B, z_dim), standard normal
            c: (B, c_dim) label, required exactly when c_dim > 0
            truncation_psi: 1 leaves w as it is, 0 gives w_avg
            truncation_cutoff: truncate only the first that many rows; None means all

        Returns:
            (B, num_ws, w_dim)

        Raises:
            ValueError: z or c of another shape, or a missing label
        """
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise ValueError(f"z came as {tuple(z.shape)}; expected (B, {self.z_dim}).")
        if self.c_dim > 0 and (c is None or c.shape != (len(z), self.c_dim)):
            came = "nothing" if c is None else str(tuple(c.shape))
            raise ValueError(f"label c came as {came}; expected ({len(z)}, {self.c_dim}).")
        with full_precision(z):
            precise = at_least_fp32(self.w_avg)
            x = normalize_second_moment(z.to(self.w_avg.device, precise))
            if self.c_dim > 0 and c is not None:
                label = normalize_second_moment(self.embed(c.to(self.w_avg.device, precise)))
                x = torch.cat([x, label], dim=1)
            for i in range(self.num_layers):
                x = getattr(self, f"fc{i}")(x)
            ws = x[:, None].repeat(1, self.num_ws, 1)
            if truncation_psi != 1.0:
                cutoff = self.num_ws if truncation_cutoff is None else truncation_cutoff
                head = self.w_avg.to(precise).lerp(ws[:, :cutoff], truncation_psi)
                ws = torch.cat([head, ws[:, cutoff:]], dim=1)
        return ws.to(self.w_avg.dtype)


class SynthesisBlock(nn.Module):
    """One resolution of the skip architecture (Fig. 7b): conv0 ↑, conv1, image ↑ + toRGB.

    in_channels = 0 marks the first block, which starts from the learned constant.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.num_conv = 1 if in_channels == 0 else 2
        self.register_buffer("resample_filter", resample_kernel())
        sizes = (w_dim, resolution)
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, *sizes, True, conv_clamp)
        self.conv1 = SynthesisLayer(out_channels, out_channels, *sizes, False, conv_clamp)
        self.torgb = ToRGBLayer(out_channels, img_channels, w_dim, conv_clamp)

    def forward(
        self,
        x: Tensor | None,
        image: Tensor | None,
        ws: Tensor,
        noise_mode: str,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """ws: (B, num_conv + 1, w_dim); the last row is toRGB's. Returns features and image."""
        rows = iter(ws.unbind(dim=1))
        if x is None:
            x = self.const.expand(len(ws), -1, -1, -1)
            if x.device.type == "cpu":
                x = x.contiguous(memory_format=torch.channels_last)
        else:
            x = self.conv0(x, next(rows), noise_mode, generator)
        x = self.conv1(x, next(rows), noise_mode, generator)
        rgb = self.torgb(x, next(rows))
        return x, rgb if image is None else self.upsample(image) + rgb

    def upsample(self, image: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, 2H, 2W), low-pass filtered, zeros outside."""
        with full_precision(image):
            planes = image.flatten(0, 1)[:, None]
            kernel = (self.resample_filter.to(image.dtype) * 4)[None, None]
            planes = F.conv_transpose2d(planes, kernel, stride=2, padding=1)
        return planes[:, 0].unflatten(0, image.shape[:2])


class SynthesisNetwork(nn.Module):
    """ws → image, through blocks b4, b8, ... of doubling resolution."""

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        channel_base: int,
        channel_max: int,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.w_dim = w_dim
        self.resolutions = block_resolutions(img_resolution)
        self.num_ws = 2 * len(self.resolutions)
        if num_channels(self.resolutions[-1], channel_base, channel_max) < 1:
            raise ValueError(
                f"channel_base came as {channel_base}, channel_max as {channel_max}; expected"
                f" channel_base >= {img_resolution}, the resolution, and channel_max >= 1."
            )
        in_channels = 0
        for resolution in self.resolutions:
            out_channels = num_channels(resolution, channel_base, channel_max)
            shape = (in_channels, out_channels, w_dim, resolution, img_channels)
            self.add_module(f"b{resolution}", SynthesisBlock(*shape, conv_clamp))
            in_channels = out_channels

    def forward(
        self,
        ws: Tensor,
        noise_mode: str = "const",
        generator: torch.Generator | None = None,
        resolution: int | None = None,
    ) -> Tensor:
        """G's synthesis network.

        Args:
            ws: (B, num_ws, w_dim); equal rows are W, free rows W+
            noise_mode: "const" stored noise maps, "random" fresh ones, "none"
            generator: source of the random maps; None = torch's default generator of the CPU
            resolution: stop at this block and return the image summed up so far; None = the last

        Returns:
            image (B, img_channels, H, W), about [-1, 1], not clipped; fp32 if parameters are half
            precision

        Raises:
            ValueError: wrong shape of ws, unknown noise mode or resolution
        """
        expected = (self.num_ws, self.w_dim)
        if ws.ndim != 3 or ws.shape[1:] != expected:
            hint = ""
            if ws.ndim == 2 and ws.shape[1] == self.w_dim:
                hint = f" Repeat w for every style row: w[:, None].repeat(1, {self.num_ws}, 1)."
            raise ValueError(f"ws came as {tuple(ws.shape)}; expected (B, *{expected}).{hint}")
        one_of("noise_mode", noise_mode, NOISE_MODES)
        last = self.resolutions[-1] if resolution is None else resolution
        one_of("resolution", last, self.resolutions)
        ws = ws.to(next(self.parameters()).device)
        x: Tensor | None = None
        image: Tensor | None = None
        row = 0
        for size in self.resolutions[: self.resolutions.index(last) + 1]:
            block = getattr(self, f"b{size}")
            rows = ws[:, row : row + block.num_conv + 1]
            x, image = block(x, image, rows, noise_mode, generator)
            row += block.num_conv  # toRGB shares its row with the next block's first layer
        return cast(Tensor, image)


class StyleGAN2Generator(ModelMixin, ConfigMixin):
    """G = synthesis ∘ mapping.

    Args:
        z_dim, c_dim, w_dim: widths of latent z, label c (0 = none) and style code w
        img_resolution: output side in pixels, a power of two >= 4
        img_channels:   output channels
        mapping_layers: fully connected layers of the mapping network
        channel_base, channel_max: channels at resolution r = min(channel_base / r, channel_max)
        conv_clamp:     clip features to ±conv_clamp, as releases trained in fp16 do; None = off

    Raises:
        ValueError: a size is no integer or out of range, img_resolution is not a power of two, or
            leaves a layer without channels
    """

    @register_to_config
    def __init__(
        self,
        z_dim: int = 512,
        c_dim: int = 0,
        w_dim: int = 512,
        img_resolution: int = 1024,
        img_channels: int = 3,
        mapping_layers: int = 8,
        channel_base: int = 32768,
        channel_max: int = 512,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        check_sizes(
            z_dim=(z_dim, 1, MAX_WIDTH),
            c_dim=(c_dim, 0, MAX_WIDTH),
            w_dim=(w_dim, 1, MAX_WIDTH),
            img_channels=(img_channels, 1, MAX_WIDTH),
            mapping_layers=(mapping_layers, 1, 64),
            channel_base=(channel_base, 1, 2**24),
            channel_max=(channel_max, 1, MAX_WIDTH),
        )
        self.synthesis = SynthesisNetwork(
            w_dim, img_resolution, img_channels, channel_base, channel_max, conv_clamp
        )
        self.mapping = StyleMapping(z_dim, c_dim, w_dim, self.synthesis.num_ws, mapping_layers)

    @property
    def num_ws(self) -> int:
        """Number of style rows: 2 log2(img_resolution) − 2."""
        return self.synthesis.num_ws

    @property
    def mean_latent(self) -> Tensor:
        """w_avg (w_dim,): the centre of truncation."""
        return self.mapping.w_avg

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        noise_mode: str = "const",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """z (B, z_dim) → image (B, img_channels, H, W); see `mapping` and `synthesis`."""
        return self.synthesis(self.mapping(z, c, truncation_psi), noise_mode, generator)
