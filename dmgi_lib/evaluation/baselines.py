"""Encoder baselines of Table 1: mask → W+ with no diffusion, and the same plus text optimisation.

`dmgi_lib.mask_encoder` stands for pSp-style encoders: it sees the mask and nothing else, and is
trained with stage 1's losses. `optimise_for_text` stands for TediGAN's text step: the encoder's
code is moved by gradients until a text-image encoder likes the picture. Both are small and honest
stand-ins, not the published models (sizes and weights are our choice, not specified in the paper's
available sources).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dmgi_lib.prompts import tokenize


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
