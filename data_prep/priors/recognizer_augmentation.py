"""Augmentation for the recognition networks: mirror, shift, and the faults generators make.

A judge trained on clean renders alone reads blurred or blocky generator output badly and would then
measure its own surprise. So half of each batch is softened, blocked or made noisy. Colours are
changed only on request, because hair and skin colour are labels. All of it is our choice.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dmgi_lib.dataset import to_float
from dmgi_lib.devices import moved, normal
from dmgi_lib.masks import flip_mask

MAX_SHIFT = 6  # pixels


def augment(
    images: Tensor, masks: Tensor, rng: torch.Generator, color_jitter: float = 0.0
) -> tuple[Tensor, Tensor]:
    """One random variant of each sample, on its device.

    Args:
        images: (B, 3, H, W) uint8; masks: (B, H, W) uint8 class ids
        color_jitter: largest relative change of brightness and of each colour channel; 0 where
            colours are labels

    Returns:
        (B, 3, H, W) float in [-1, 1] and (B, H, W) uint8
    """
    images, masks = mirror_and_shift(images, masks, rng)
    x = to_float(images)
    if color_jitter:
        gain, light = (
            1 + color_jitter * moved(_symmetric((len(x), n, 1, 1), rng), x.device) for n in (3, 1)
        )
        x = (x + 1) * gain * light - 1
    return degrade(x, rng).clamp(-1, 1), masks


def mirror_and_shift(images: Tensor, masks: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror half of the samples and shift all by up to MAX_SHIFT pixels, edges repeated."""
    height, width = masks.shape[1:]
    mirrored = torch.rand(len(images), generator=rng) < 0.5
    shift = torch.randint(-MAX_SHIFT, MAX_SHIFT + 1, (2, len(images)), generator=rng)
    rows = (torch.arange(height) + shift[0, :, None]).clamp(0, height - 1)
    columns = (torch.arange(width) + shift[1, :, None]).clamp(0, width - 1)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    mirrored, rows, columns = (moved(x, images.device) for x in (mirrored, rows, columns))

    sample = torch.arange(len(images), device=images.device)[:, None, None]
    masks = torch.where(mirrored[:, None, None], flip_mask(masks).flip(-1), masks)
    masks = masks[sample, rows[:, :, None], columns[:, None, :]]
    channels_last = images.permute(0, 2, 3, 1)  # so that a gathered pixel is one contiguous piece
    pixels = channels_last[sample, rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2), masks


def degrade(images: Tensor, rng: torch.Generator) -> Tensor:
    """Soften a sixth, shrink-and-grow a sixth, block-compress a sixth; noise on half of all.

    images: (B, 3, H, W) floats in [-1, 1], H and W multiples of 8 -> the same, not clamped.
    """
    group = torch.randint(0, 6, (len(images),), generator=rng)
    strength = torch.rand(3, generator=rng).tolist()
    result = images.clone()
    for number, change in enumerate((_blurred, _shrunk, _block_compressed)):
        chosen = (group == number).nonzero()[:, 0]
        if len(chosen):
            chosen = moved(chosen, images.device)
            result[chosen] = change(images[chosen], strength[number])
    amount = 0.08 * _symmetric((len(images), 1, 1, 1), rng).clamp(min=0)
    return result + moved(amount, images.device) * normal(images.shape, rng, images.device)


def _blurred(images: Tensor, strength: float) -> Tensor:
    sigma = 0.4 + 1.1 * strength
    place = torch.arange(-4, 5)
    kernel = torch.exp(-(place**2) / (2 * sigma**2))
    kernel = moved(kernel / kernel.sum(), images.device).expand(3, 1, 1, 9)
    images = F.conv2d(F.pad(images, (4, 4, 0, 0), mode="replicate"), kernel, groups=3)
    return F.conv2d(F.pad(images, (0, 0, 4, 4), mode="replicate"), kernel.mT, groups=3)


def _shrunk(images: Tensor, strength: float) -> Tensor:
    size = images.shape[-2:]
    small = [round(side * (0.45 + 0.45 * strength)) for side in size]
    images = F.interpolate(images, small, mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(images, size, mode="bilinear", align_corners=False)


def _block_compressed(images: Tensor, strength: float) -> Tensor:
    """JPEG's loss without JPEG: 8 x 8 cosine coefficients rounded to coarser steps at high ones."""
    k = torch.arange(8, device=images.device)
    cosine = torch.cos(math.pi * (k[None] + 0.5) * k[:, None] / 8) / 2  # orthonormal DCT-II
    cosine[0] /= math.sqrt(2)
    b, c, h, w = images.shape
    blocks = images.reshape(b, c, h // 8, 8, w // 8, 8).transpose(3, 4)
    step = (0.05 + 0.25 * strength) * (1 + 0.5 * (k[:, None] + k[None]))
    coefficients = torch.round(cosine @ blocks @ cosine.T / step) * step
    return (cosine.T @ coefficients @ cosine).transpose(3, 4).reshape(b, c, h, w)


def _symmetric(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Uniform in [-1, 1)."""
    return 2 * torch.rand(shape, generator=rng) - 1
