"""EG3D's tri-plane field (Chan et al. 2022, arXiv 2112.07945, Sec. 3.2): features and decoder.

A point is projected onto three feature planes, the three bilinear samples are averaged, and a
small network reads colour features and density off the mean.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmgi_lib.generators.stylegan2_layers import FullyConnectedLayer

# Point coordinates that are each plane's horizontal and vertical axis. Released networks were
# trained with XY, XZ and ZX, so the plane YZ of the paper is missing from them.
PLANE_AXES = ((0, 1), (0, 2), (2, 0))
PAPER_AXES = ((0, 1), (0, 2), (1, 2))
Axes = tuple[tuple[int, int], ...]


def sample_planes(
    planes: Tensor, points: Tensor, box_warp: float, axes: Axes = PLANE_AXES
) -> Tensor:
    """Mean of the bilinear samples of three planes; zero outside of them.

    Args:
        planes: (B, 3, C, H, W), spanning a cube of side `box_warp` around the origin
        points: (B, P, 3) in world units
        axes: PLANE_AXES or PAPER_AXES

    Returns:
        (B, P, C)
    """
    plane_coordinates = torch.stack([points[..., pair] for pair in axes], dim=1)
    grid = (2.0 / box_warp) * plane_coordinates  # [B, 3, P, 2], the cube is [-1, 1]
    samples = F.grid_sample(
        planes.flatten(0, 1), grid.flatten(0, 1)[:, None], align_corners=False
    )  # [3B, C, 1, P]
    return samples[:, :, 0].unflatten(0, (-1, 3)).mean(dim=1).mT


class TriPlaneDecoder(nn.Module):
    """features → hidden layer with softplus → density and colour features.

    Args:
        in_features, hidden_features: widths of the planes and of the hidden layer
        out_features: colour features; the first three are RGB
    """

    def __init__(self, in_features: int, hidden_features: int, out_features: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            FullyConnectedLayer(in_features, hidden_features),
            nn.Softplus(),
            FullyConnectedLayer(hidden_features, 1 + out_features),
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(..., in_features) → colours (..., out_features) in (-0.001, 1.001), density (..., 1).

        The density is raw: volume rendering applies its softplus.
        """
        out = self.net(features)
        # Not slices: their gradients are each as large as `out`, and mostly zeros.
        sigma, colors = out.split([1, out.shape[-1] - 1], dim=-1)
        # A sigmoid stretched by 0.001 on both sides, as in MipNeRF (arXiv 2103.13415).
        return torch.sigmoid(colors) * 1.002 - 0.001, sigma
