"""Encoder baselines of Table 1: mask → W+ with no diffusion, and the same plus text optimisation.

`MaskEncoder` stands for pSp-style encoders: it sees the mask and nothing else, and is trained with
stage 1's losses. `optimise_for_text` stands for TediGAN's text step: the encoder's code is moved by
gradients until a text-image encoder likes the picture. Both are small and honest stand-ins, not the
published models (sizes and weights are our choice, not specified in the paper's available sources).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from dmgi_lib.mapping_network import MappingNetwork
from dmgi_lib.masks import mask_to_rgb
from dmgi_lib.prompts import tokenize


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


def optimise_for_text(
    G: Any,
    latents: Tensor,
    similarity: Callable[[Tensor], Tensor],
    steps: int = 60,
    keep: float = 0.3,
) -> Tensor:
    """Moves codes until `similarity` likes their images, tied to where they started.

    Args:
        latents: (B, num_ws, w_dim), the encoder's codes; they come back likewise, in float32.
        similarity: float32 images (B, 3, H, W) → (B,), larger is better; for TediGAN, the cosine of
            the text-image encoder's embeddings.
        keep: weight of the mean squared move, in units of the codes' own deviation.
    """
    latents = latents.detach().float()
    scale = latents.std().clamp_min(1e-6)
    move = torch.zeros_like(latents, requires_grad=True)
    optimizer = torch.optim.Adam([move], 0.02)
    for _ in range(steps):
        image = G.synthesis((latents + scale * move).to(G.dtype), noise_mode="const").float()
        loss = -similarity(image) + keep * move.square().mean((1, 2))
        optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        optimizer.step()
    return (latents + scale * move).detach()


def text_similarity(clip: Any, tokenizer: Any, prompts: list[str]) -> Callable[[Tensor], Tensor]:
    """Cosine of an encoder's embeddings of images, on its device, and of one prompt for each."""
    ids = tokenize(tokenizer, prompts).ids.to(clip.device)
    with torch.no_grad():
        pooled = clip.text_model(ids).pooler_output
        text = F.normalize(clip.text_projection(pooled), dim=1)

    def similarity(image: Tensor) -> Tensor:
        pooled = clip.vision_model(image).pooler_output
        return (F.normalize(clip.visual_projection(pooled), dim=1) * text).sum(1)

    return similarity
