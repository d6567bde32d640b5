"""What makes training fast on CPUs: channels last, a group norm for it, and unfused attention.

PyTorch's own group norm for channels-last bf16 activations took nearly half of an autoencoder step,
while convolutions are twice as fast in that layout; fused attention's backward pass took a third
of a U-Net's step, which plain matrix products do not. Weights, config and state dict stay, and so
does the result up to rounding. Our choice (not specified in the paper's available sources).
"""

from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn


def _sum(x: Tensor, piece: int = 64) -> Tensor:
    """(B, n, C) -> float32 (B, C). Sums bf16 in pieces first: a float32 copy of x costs more."""
    b, n, c = x.shape
    if x.dtype == torch.float32 or n % piece:
        return x.sum(1, dtype=torch.float32)
    return x.view(b, n // piece, piece, c).sum(2).sum(1, dtype=torch.float32)


class _GroupNorm(torch.autograd.Function):
    """y = (x - mean) * rstd * weight + bias per group; x: (B, C, H, W), channels last."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        (b, c, h, w), size = x.shape, x.shape[1] // groups
        flat = x.permute(0, 2, 3, 1).reshape(b, h * w, c)
        count = size * h * w
        sums = _sum(flat).view(b, groups, size).sum(2)
        squares = _sum(flat * flat).view(b, groups, size).sum(2)
        mean = sums / count
        rstd = (squares / count - mean.square()).clamp(min=0).add(eps).rsqrt()
        mean, rstd = mean.repeat_interleave(size, 1), rstd.repeat_interleave(size, 1)  # (B, C)
        scale = rstd * weight.float()
        shift = bias.float() - mean * scale
        y = torch.addcmul(shift.to(x.dtype)[:, None], flat, scale.to(x.dtype)[:, None])
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.groups = groups
        return y.view(b, h, w, c).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        x, weight, mean, rstd = ctx.saved_tensors
        (b, c, h, w), groups = x.shape, ctx.groups
        size = c // groups
        dy = grads[0].permute(0, 2, 3, 1).reshape(b, h * w, c)
        flat = x.permute(0, 2, 3, 1).reshape(b, h * w, c)
        scale = weight.float()
        sum_dy = _sum(dy)  # (B, C)
        sum_dy_xhat = (_sum(dy * flat) - mean * sum_dy) * rstd

        def group_mean(value: Tensor) -> Tensor:  # (B, C) -> mean over the group, (B, C)
            means = (value * scale).view(b, groups, size).sum(2) / (size * h * w)
            return means.repeat_interleave(size, 1)

        # dx = rstd * (dy * scale - mean_g - xhat * mean_gx) as an affine map of (dy, x) per channel
        of_dy = rstd * scale
        of_x = -rstd * rstd * group_mean(sum_dy_xhat)
        shift = -of_x * mean - rstd * group_mean(sum_dy)
        of_dy, of_x, shift = (v.to(dy.dtype)[:, None] for v in (of_dy, of_x, shift))
        dx = torch.addcmul(shift, dy, of_dy).addcmul_(flat, of_x)
        dweight, dbias = sum_dy_xhat.sum(0).to(weight.dtype), sum_dy.sum(0).to(weight.dtype)
        return dx.view(b, h, w, c).permute(0, 3, 1, 2), dweight, dbias, None, None


class FastGroupNorm(nn.GroupNorm):
    """nn.GroupNorm, faster in training; inputs that are not (B, C, H, W) take the usual way."""

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() != 4 or not torch.is_grad_enabled():
            return super().forward(input)
        return _GroupNorm.apply(input, self.weight, self.bias, self.num_groups, self.eps)


def use_fast_group_norm(model: Any) -> Any:
    """Changes every nn.GroupNorm of `model` into FastGroupNorm, in place; weights stay."""
    for module in model.modules():
        if type(module) is nn.GroupNorm and module.affine:
            module.__class__ = FastGroupNorm
    return model


def placed(model: Any, device: torch.device) -> Any:
    """The model on the device, in place; on CPUs in the form that trains fastest there."""
    model.to(device)
    if device.type == "cpu":
        use_fast_group_norm(model).to(memory_format=torch.channels_last)
        if hasattr(model, "set_attn_processor"):
            model.set_attn_processor(AttnProcessor())
    return model
