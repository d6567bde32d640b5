"""Section 3, encoder E: what is read from one pass of the frozen denoising U-Net.

    with capture_features(unet, guided=True) as capture:
        unet(latents, t, text, ...)
    capture.features.h    # what enters the first decoder block

h_t is taken where the first decoder block reads it: middle block plus ControlNet's residual, which
diffusers adds *after* the middle block; the middle block's own output carries no mask at t = T.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import nn


@dataclass(frozen=True)
class DiffusionFeatures:
    """Features of one U-Net pass; under classifier-free guidance of its conditional half.

    h: (B, C, H, W)              middle block + ControlNet residual
    f: N x (B, C_n, H_n, W_n)    outputs of the decoder blocks with cross-attention
    a: N x (B, heads, Q_n, L)    cross-attention probabilities of the same blocks, float32;
                                 Q_n = H W of the block's input, L = tokens; rows (last axis) sum
                                 to 1. A block with several cross-attentions gives their mean: our
                                 choice (not specified in the paper's available sources).
    """

    h: torch.Tensor
    f: tuple[torch.Tensor, ...]
    a: tuple[torch.Tensor, ...]


@dataclass
class FeatureCapture:
    """Holds the last pass made inside `capture_features`."""

    h: torch.Tensor | None = None
    f: dict[int, torch.Tensor] = field(default_factory=dict)
    a: dict[int, list[torch.Tensor]] = field(default_factory=dict)

    @property
    def features(self) -> DiffusionFeatures:
        """Features of the last pass. Raises RuntimeError before the first one."""
        if self.h is None:
            raise RuntimeError(
                "no U-Net pass has been captured yet; call unet(...) inside the block."
            )
        a = tuple(torch.stack(maps).mean(0) for _, maps in sorted(self.a.items()))
        return DiffusionFeatures(self.h, tuple(f for _, f in sorted(self.f.items())), a)


@contextmanager
def capture_features(unet: UNet2DConditionModel, *, guided: bool) -> Iterator[FeatureCapture]:
    """Records h_t, f_t and a_t of every pass of `unet` made inside the block.

    The U-Net's output stays bitwise the same: attention is computed by the U-Net's own processor,
    and the probabilities are computed beside it from the same queries and keys.

    Args:
        unet: a diffusers UNet2DConditionModel with cross-attention in its decoder.
        guided: the batch is (unconditional, conditional) halves; keep the second.
    """
    capture = FeatureCapture()
    handles: list[Any] = []

    def kept(x: torch.Tensor) -> torch.Tensor:
        return x[x.shape[0] // 2 :] if guided else x

    def read_h(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        capture.f.clear()
        capture.a.clear()
        capture.h = kept(args[0] if args else kwargs["hidden_states"])

    def read_f(n: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
            capture.f[n] = kept(output)

        return hook

    def read_a(n: int, attention: Attention) -> None:
        seen: dict[str, torch.Tensor] = {}

        def read(name: str) -> Any:
            def hook(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
                seen[name] = kept(output)

            return hook

        def hook(
            module: Attention, args: tuple[Any, ...], kwargs: dict[str, Any], output: torch.Tensor
        ) -> None:
            mask = kwargs.get("attention_mask")
            maps = _attention_probabilities(
                module, seen.pop("q"), seen.pop("k"), None if mask is None else kept(mask)
            )
            capture.a.setdefault(n, []).append(maps)

        handles.append(attention.to_q.register_forward_hook(read("q")))
        handles.append(attention.to_k.register_forward_hook(read("k")))
        handles.append(attention.register_forward_hook(hook, with_kwargs=True))

    try:
        handles.append(unet.up_blocks[0].register_forward_pre_hook(read_h, with_kwargs=True))
        for n in decoder_blocks_with_attention(unet):
            block = unet.up_blocks[n]
            handles.append(block.register_forward_hook(read_f(n)))
            for name, module in block.named_modules():
                if name.endswith("attn2") and isinstance(module, Attention):
                    read_a(n, module)
        yield capture
    finally:
        for handle in handles:
            handle.remove()


def decoder_blocks_with_attention(unet: UNet2DConditionModel) -> list[int]:
    """Indices into `unet.up_blocks` of the blocks that feed T, deepest first."""
    return [n for n, b in enumerate(unet.up_blocks) if getattr(b, "has_cross_attention", False)]


def _attention_probabilities(
    attention: Attention, q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """softmax(q kᵀ · scale) from the layer's own projections.

    Args:
        q: (B, Q, heads·d), k: (B, L, heads·d), mask: None or additive (B, 1, L).

    Returns:
        (B, heads, Q, L) float32.
    """
    batch, heads = q.shape[0], attention.heads
    q = q.view(batch, -1, heads, q.shape[-1] // heads).transpose(1, 2)  # [B, heads, Q, d]
    k = k.view(batch, -1, heads, k.shape[-1] // heads).transpose(1, 2)  # [B, heads, L, d]
    q = q if attention.norm_q is None else attention.norm_q(q)
    k = k if attention.norm_k is None else attention.norm_k(k)
    with torch.autocast(q.device.type, enabled=False):
        logits: torch.Tensor = q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5
        if mask is not None:
            logits = logits + mask.float().unsqueeze(1)
        return logits.softmax(dim=-1)
