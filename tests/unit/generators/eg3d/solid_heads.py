"""Generators whose density is known: a head with nose and neck, at the mini network's sizes."""

import torch
from tiny_models import rng
from torch import Tensor

from dmgi_lib.generators.eg3d import RenderingConfig, TriPlaneGenerator

RADIUS = 0.25
SIZES = dict(
    z_dim=8,
    w_dim=8,
    img_resolution=64,
    mapping_layers=2,
    channel_base=512,
    channel_max=16,
    plane_resolution=64,
    plane_channels=16,
    decoder_hidden=64,
    feature_channels=16,
    neural_rendering_resolution=32,
    sr_channels=(6, 4),
    rendering=RenderingConfig(24, 24),
)


class Ball(TriPlaneGenerator):
    """A ball; colours say where a point lies. Asking costs what it costs the mini network."""

    def distance(self, p: Tensor) -> Tensor:
        """(B, P, 3) → (B, P), below 0 inside."""
        return p.norm(dim=-1) - RADIUS

    def _field(self, planes):
        asked = super()._field(planes)

        def field(points):
            colors, _ = asked(points)
            colors[..., :3] = points + 0.5
            return colors, (-2000 * self.distance(points))[..., None].clamp(-100, 100)

        return field


class Head(Ball):
    """With a nose, a neck that leaves the cube, a hollow inside, and bits floating around."""

    def distance(self, p: Tensor) -> Tensor:
        def ball(x, y, z, radius):
            return (p - p.new_tensor([x, y, z])).norm(dim=-1) - radius

        skull = (p / p.new_tensor([0.8, 1.1, 1.0])).norm(dim=-1) * 0.8 - 0.8 * RADIUS
        nose = ball(0.0, 0.0, 0.25, 0.05)
        neck = torch.maximum(p[..., ::2].norm(dim=-1) - 0.1, p[..., 1] + 0.1)
        head = torch.stack([skull, nose, neck]).amin(0)
        head = torch.maximum(head, -ball(0.0, 0.05, 0.0, 0.1))
        floating = torch.stack([ball(0.4, 0.4, 0.0, 0.04), ball(-0.4, 0.0, 0.3, 0.03)]).amin(0)
        return torch.minimum(head, floating)


def solid(kind: type[Ball], **changes) -> Ball:
    torch.manual_seed(0)
    return kind(**(SIZES | changes)).eval()


def code(G: TriPlaneGenerator, count: int = 1) -> Tensor:
    return torch.randn(count, G.num_ws, G.w_dim, generator=rng(2))
