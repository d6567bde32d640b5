"""EG3D's two-pass volume rendering (Chan et al. 2022, Sec. 3.3) with MipNeRF's midpoint sums.

Coarse samples are spread evenly over the ray; fine samples follow the weights that the coarse ones
found (NeRF, arXiv 2003.08934, Sec. 5.2; weights smoothed as in MipNeRF, arXiv 2103.13415, Sec.
3.1); both together make the pixel. Rays are rendered in chunks of a bounded number of points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_POINTS = 2**18

# points (B, P, 3) → colours (B, P, C), raw density (B, P, 1)
Field = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class RenderingConfig:
    """Where and how densely a ray is sampled; the defaults are those of the released face network.

    depth_resolution: coarse samples on a ray
    depth_resolution_importance: fine samples on a ray; 0 renders the coarse ones alone
    ray_start, ray_end: distances from the camera, in world units, between which they lie
    box_warp: side of the cube that the planes span, in world units
    white_back: white instead of black behind the scene
    """

    depth_resolution: int = 48
    depth_resolution_importance: int = 48
    ray_start: float = 2.25
    ray_end: float = 3.3
    box_warp: float = 1.0
    white_back: bool = False

    def __post_init__(self) -> None:
        if self.depth_resolution < 4 or self.depth_resolution_importance < 0:
            raise ValueError(
                f"depth_resolution={self.depth_resolution}, depth_resolution_importance="
                f"{self.depth_resolution_importance} came; expected at least 4 coarse samples and"
                " no negative number of fine ones."
            )
        if not 0 <= self.ray_start < self.ray_end or self.box_warp <= 0:
            raise ValueError(
                f"ray_start={self.ray_start}, ray_end={self.ray_end}, box_warp={self.box_warp}"
                " came; expected 0 <= ray_start < ray_end and box_warp > 0."
            )


def render_rays(
    field: Field,
    origins: Tensor,
    directions: Tensor,
    config: RenderingConfig,
    deterministic: bool = True,
    generator: torch.Generator | None = None,
    max_points: int | None = MAX_POINTS,
) -> tuple[Tensor, Tensor, Tensor]:
    """Colours, depths and opacities of rays.

    Args:
        field: the scene
        origins, directions: (B, R, 3), directions of length 1
        deterministic: evenly spaced samples; otherwise each is jittered
        generator: source of the jitter; None = torch's default generator
        max_points: points in memory at once, at least one ray of each of the B; None = all

    Returns:
        colours (B, R, C), expected distances from the camera (B, R, 1) and the share of each ray
        that something stops (B, R, 1). They are the same, whatever max_points is.
    """
    batch, rays = origins.shape[:2]
    samples = config.depth_resolution + config.depth_resolution_importance
    chunk = rays if max_points is None else max(1, max_points // (batch * samples))
    # All draws are made first, so that they do not depend on the chunks.
    start, end = config.ray_start, config.ray_end
    coarse = torch.linspace(start, end, config.depth_resolution, dtype=origins.dtype)
    quantiles = torch.linspace(0, 1, config.depth_resolution_importance, dtype=origins.dtype)
    coarse, quantiles = (v.to(origins.device).expand(batch, rays, -1) for v in (coarse, quantiles))
    if not deterministic:
        step = (end - start) / (config.depth_resolution - 1)
        coarse = coarse + step * _uniform_like(coarse, generator)
        quantiles = _uniform_like(quantiles, generator)
    inputs = (v.split(chunk, dim=1) for v in (origins, directions, coarse, quantiles))
    pieces = [
        _render_chunk(field, o, d, depths, u, config.white_back)
        for o, d, depths, u in zip(*inputs, strict=True)
    ]
    colors, depths, totals = (torch.cat(parts, dim=1) for parts in zip(*pieces, strict=True))
    return colors, depths, totals


def _uniform_like(v: Tensor, generator: torch.Generator | None) -> Tensor:
    device = "cpu" if generator is None else generator.device
    return torch.rand(v.shape, generator=generator, dtype=v.dtype, device=device).to(v.device)


def _render_chunk(
    field: Field,
    origins: Tensor,
    directions: Tensor,
    depths: Tensor,
    quantiles: Tensor,
    white_back: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    def sample(at: Tensor) -> tuple[Tensor, Tensor]:
        points = origins[:, :, None] + at[..., None] * directions[:, :, None]  # [B, R, S, 3]
        colors, sigma = field(points.flatten(1, 2))
        return colors.unflatten(1, at.shape[1:]), sigma.unflatten(1, at.shape[1:])[..., 0]

    colors, sigma = sample(depths)
    passes = [colors]
    if quantiles.shape[-1]:
        with torch.no_grad():
            fine = importance_depths(depths, interval_weights(sigma, depths), quantiles)
        fine_colors, fine_sigma = sample(fine)
        passes.append(fine_colors)
        depths = torch.cat([depths, fine], dim=-1)
        sigma = torch.cat([sigma, fine_sigma], dim=-1)
    depths, order = depths.sort(dim=-1)
    weights = interval_weights(sigma.gather(-1, order), depths)
    # An interval's colour and depth are the means of its two ends, so every sample carries half
    # the weight of its two neighbouring intervals.
    shares = (F.pad(weights, (0, 1)) + F.pad(weights, (1, 0))) / 2  # [B, R, S], sorted
    total = weights.sum(dim=-1, keepdim=True)
    depth = (shares * depths).sum(dim=-1, keepdim=True) / total.clamp_min(1e-12)
    depth = torch.where(total > 1e-12, depth, depths[..., -1:])  # nothing there: the far end
    unsorted = torch.zeros_like(shares).scatter(-1, order, shares)
    split = unsorted.split([p.shape[2] for p in passes], dim=-1)
    color = sum((s[..., None, :] @ p)[..., 0, :] for s, p in zip(split, passes, strict=True))
    if white_back:
        color = color + (1 - total)
    return color, depth, total


def interval_weights(sigma: Tensor, depths: Tensor) -> Tensor:
    """Share of each interval between neighbouring samples in the ray's colour.

    Args:
        sigma:  (..., S) raw densities; an interval's density is softplus(mean of its ends − 1)
        depths: (..., S), ascending

    Returns:
        (..., S − 1), sums to at most 1
    """
    density = F.softplus((sigma[..., 1:] + sigma[..., :-1]) / 2 - 1)
    thickness = density * depths.diff(dim=-1)
    # Of almost empty intervals the released networks know only the last digits of this exp, so it
    # is rounded exactly; single-precision exps differ there from library to library.
    exact = thickness.dtype if thickness.device.type == "mps" else torch.float64  # MPS has none
    alpha = 1 - torch.exp(-thickness.to(exact)).to(thickness.dtype)
    transmittance = F.pad((1 - alpha + 1e-10)[..., :-1].cumprod(dim=-1), (1, 0), value=1.0)
    return alpha * transmittance


def importance_depths(depths: Tensor, weights: Tensor, quantiles: Tensor) -> Tensor:
    """Depths at the given quantiles of the histogram that the coarse weights make.

    Weights are smoothed by a maximum over two neighbours and then a mean of two, plus 0.01. As in
    the released networks, the histogram drops the first and the last interval, and its bin edges
    are the midpoints of the intervals from the first one on.

    Args:
        depths:    (B, R, S) of the coarse samples, S >= 4
        weights:   (B, R, S − 1) of the intervals between them
        quantiles: (B, R, N) in [0, 1]

    Returns:
        (B, R, N)
    """
    smooth = torch.maximum(F.pad(weights, (1, 0)), F.pad(weights, (0, 1)))
    smooth = (smooth[..., 1:] + smooth[..., :-1]) / 2 + 0.01
    edges = (depths[..., 1:] + depths[..., :-1])[..., :-1] / 2  # [B, R, S - 2]
    mass = smooth[..., 1:-1] + 1e-5  # [B, R, S - 3]
    mass = mass / mass.sum(dim=-1, keepdim=True)
    below_mass = F.pad(mass.cumsum(dim=-1), (1, 0))
    index = torch.searchsorted(below_mass, quantiles.contiguous(), right=True) - 1
    index = index.clamp(0, mass.shape[-1] - 1)
    below, above = below_mass.gather(-1, index), below_mass.gather(-1, index + 1)
    position = (quantiles - below) / (above - below)
    low, high = edges.gather(-1, index), edges.gather(-1, index + 1)
    return low + position * (high - low)
