"""EG3D's super-resolution (Chan et al. 2022, Sec. 3.4): two StyleGAN2 blocks after the renderer.

Parameter names are those of the official release, whose variants differ in sizes alone:

    image   input    channels
    128     64       128, 64
    256     128      128, 64
    512     128      256, 128 (faces; an earlier variant has 128, 64)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from dmgi_lib.generators.stylegan2 import SynthesisBlock
from dmgi_lib.generators.stylegan2_layers import SynthesisLayer, resample_kernel


class SameSizeBlock(SynthesisBlock):
    """A synthesis block that keeps the resolution of features and image."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, w_dim, resolution, img_channels, conv_clamp)
        self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, False, conv_clamp)

    def upsample(self, image: Tensor) -> Tensor:
        return image


class SuperResolution(nn.Module):
    """Rendered features and image → image of 2 or 4 times their side. Noise is off.

    Args:
        in_channels: rendered features
        channels:    of the two blocks
        w_dim:       width of the style code
        input_resolution, img_resolution: sides; other inputs are resized to input_resolution
        antialias:   low-pass filter that resizing
        conv_clamp:  clip features to ±conv_clamp; None = off

    Raises:
        ValueError: img_resolution is not 2 or 4 times input_resolution
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        w_dim: int,
        input_resolution: int,
        img_resolution: int,
        antialias: bool = True,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        if img_resolution not in (2 * input_resolution, 4 * input_resolution):
            raise ValueError(
                f"sr_input_resolution came as {input_resolution} for images of {img_resolution}"
                f" pixels; expected {img_resolution // 2} or {img_resolution // 4}."
            )
        if len(channels) != 2 or min(channels) < 1:
            raise ValueError(
                f"sr_channels came as {tuple(channels)}; expected the channels of two blocks, such"
                " as (128, 64)."
            )
        self.input_resolution, self.antialias = input_resolution, antialias
        doubles = img_resolution == 4 * input_resolution
        first = SynthesisBlock if doubles else SameSizeBlock
        middle = img_resolution // 2
        self.block0 = first(in_channels, channels[0], w_dim, middle, 3, conv_clamp)
        self.block1 = SynthesisBlock(channels[0], channels[1], w_dim, img_resolution, 3, conv_clamp)
        # Stored by most official variants, read by none.
        self.register_buffer("resample_filter", resample_kernel())
        self.register_load_state_dict_pre_hook(_fill_filter)

    def forward(self, features: Tensor, image: Tensor, ws: Tensor) -> Tensor:
        """features (B, C, h, h), image (B, 3, h, h), ws (B, num_ws, w_dim), of which the last row
        steers all layers → (B, 3, img_resolution, img_resolution)."""
        features, image = self._resize(features), self._resize(image)
        features = features.to(self.block0.conv1.weight.dtype)
        ws = ws[:, -1:].expand(-1, 3, -1)
        x, image = self.block0(features, image, ws, "none", None)
        return self.block1(x, image, ws, "none", None)[1]

    def _resize(self, x: Tensor) -> Tensor:
        if x.shape[-1] == self.input_resolution:
            return x
        size = (self.input_resolution, self.input_resolution)
        return F.interpolate(x, size, mode="bilinear", antialias=self.antialias)


def _fill_filter(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    state.setdefault(prefix + "resample_filter", resample_kernel())
