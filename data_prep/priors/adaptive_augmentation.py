"""Adaptive discriminator augmentation (ADA, Karras et al. 2020, arXiv 2006.06676).

Real and generated images are both augmented before D sees them, each operation with probability p;
p follows how far D has come to overfit the few real images (Sec. 3.1, r_t = E[sign D(real)]).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmgi_lib.devices import moved

P_MAX = 0.8  # beyond that, augmentations leak into the generated images (Sec. 2.2)


# A random augmentation of each sample:
# (B, 2, 3) output → input coordinates: scale, rotation and shift;
# (B, 3, 4) matrix on (R, G, B, 1);
# (B, 4) centre x, y and half sides of the erased rectangle, in [-1, 1] coordinates
Draw = tuple[Tensor, Tensor, Tensor]


class AdaptiveAugmentation(nn.Module):
    """Differentiable augmentation with adaptive probability `p`, a buffer.

    Args:
        target:  wanted r_t; above it p rises, below it p falls
        images:  real images in which p may travel from 0 to 1 (our choice: 5 times faster than the
                 paper's 500,000, for a short run)
        interval: optimisation steps between two moves of p
    """

    p: Tensor
    sign_sum: Tensor
    sign_count: Tensor

    def __init__(self, target: float = 0.6, images: int = 100_000, interval: int = 4) -> None:
        super().__init__()
        self.target, self.images, self.interval = target, images, interval
        self.register_buffer("p", torch.zeros([]))
        self.register_buffer("sign_sum", torch.zeros([]))
        self.register_buffer("sign_count", torch.zeros([]))

    @torch.no_grad()
    def observe(self, real_logits: Tensor, step: int) -> None:
        """Records sign D(real) and, every `interval` steps, moves p."""
        self.sign_sum += real_logits.sign().sum()
        self.sign_count += real_logits.numel()
        if (step + 1) % self.interval == 0:
            direction = (self.sign_sum / self.sign_count - self.target).sign()
            self.p += direction * self.sign_count / self.images
            self.p.clamp_(0.0, P_MAX)
            self.sign_sum.zero_()
            self.sign_count.zero_()

    def draw(self, batch: int, rng: torch.Generator) -> Draw:
        """Random augmentations for `batch` samples; strengths as in the paper's App. B."""
        device = self.p.device

        def uniform(*shape: int) -> Tensor:
            return moved(torch.rand(batch, *shape, generator=rng), device)

        def chosen(*shape: int) -> Tensor:
            return (uniform(*shape) < self.p).float()

        def normal(std: float) -> Tensor:
            return moved(torch.randn(batch, generator=rng), device) * std * chosen()

        scale = torch.exp2(normal(0.2))
        angle = (uniform() * 2 - 1) * 0.15 * math.pi * chosen()
        shift = (uniform(2) * 2 - 1) * 0.25 * chosen(1)
        cos, sin = angle.cos() * scale, angle.sin() * scale
        rows = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=1)

        # saturation about the grey axis, then contrast, then brightness
        grey = torch.full((3, 3), 1 / 3, device=device)
        saturation = torch.exp2(normal(1.0))[:, None, None]
        contrast = torch.exp2(normal(0.5))[:, None, None]
        color = (grey + (torch.eye(3, device=device) - grey) * saturation) * contrast
        brightness = normal(0.2)[:, None, None].expand(-1, 3, 1)

        centre = uniform(2) * 2 - 1
        half_sides = 0.5 * chosen(1).expand(-1, 2)
        color = torch.cat([color, brightness], dim=2)
        return rows.view(-1, 2, 3), color, torch.cat([centre, half_sides], dim=1)

    def forward(self, image: Tensor, draw: Draw) -> Tensor:
        """image (B, 3, H, W) → augmented image; differentiable in the image. B: at most `draw`'s.

        Several pictures of three channels each, stacked as (B, 3 k, H, W), are augmented alike.
        """
        if image.shape[1] > 3:
            return torch.cat([self(part, draw) for part in image.split(3, dim=1)], dim=1)
        affine, color, cutout = (x[: len(image)] for x in draw)
        if image.device.type == "cpu":  # elsewhere, asking which are warped takes longer
            changed = (affine != torch.eye(2, 3)).any(dim=2).any(dim=1).nonzero()[:, 0]
        else:
            changed = torch.arange(len(image), device=image.device)
        if len(changed):
            size = [len(changed), *image.shape[1:]]
            grid = F.affine_grid(affine[changed], size, align_corners=False)
            warped = F.grid_sample(
                image[changed], grid, padding_mode="reflection", align_corners=False
            )
            image = image.index_copy(0, changed, warped)
        colored = torch.baddbmm(color[:, :, 3:], color[:, :, :3], image.flatten(2))
        inside = []  # of the rectangle's columns (B, W) and rows (B, H)
        for axis, side in enumerate((image.shape[3], image.shape[2])):
            place = torch.linspace(-1, 1, side, device=image.device)[None, :]
            inside.append((place - cutout[:, axis, None]).abs() < cutout[:, 2 + axis, None])
        erased = inside[1][:, None, :, None] & inside[0][:, None, None, :]
        return colored.view_as(image) * ~erased
