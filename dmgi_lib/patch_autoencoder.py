"""The mini world's autoencoder: diffusers' AutoencoderKL on patches of pixels.

A convolution at full resolution costs most of an autoencoder's time and sees least. Here a patch of
2 x 2 pixels is one pixel of twelve channels (Shi et al. 2016), so that the thin layers at full
resolution go and what they cost buys wider ones. Our choice (not specified in the paper's available
sources; Stable Diffusion's autoencoder, which the paper uses, works on pixels).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput


class PatchAutoencoderKL(AutoencoderKL):
    """AutoencoderKL whose `in_channels` and `out_channels` are those of a patch, 3 p².

    `encode` takes and `decode` gives images (B, 3, H, W) in [-1, 1]; latents are
    (B, latent_channels, H/f, W/f), f = p · 2^(blocks - 1).
    """

    @property
    def patch_size(self) -> int:
        """Pixels along a patch's edge, p."""
        return math.isqrt(self.config.in_channels // 3)

    def encode(self, x: torch.Tensor, return_dict: bool = True) -> Any:
        """As AutoencoderKL.encode, of images."""
        return super().encode(F.pixel_unshuffle(x, self.patch_size), return_dict)

    def decode(
        self, z: torch.Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> Any:
        """As AutoencoderKL.decode, to images."""
        (patches,) = super().decode(z, return_dict=False, generator=generator)
        sample = F.pixel_shuffle(patches, self.patch_size)
        return DecoderOutput(sample=sample) if return_dict else (sample,)


def downscaling(vae: AutoencoderKL) -> int:
    """Pixels along the edge of one place of the latents, f."""
    return int(getattr(vae, "patch_size", 1)) * 2 ** (len(vae.config.block_out_channels) - 1)
