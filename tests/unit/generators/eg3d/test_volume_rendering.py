"""Volume rendering by hand: a ball, a uniform medium, samples and chunks."""

import pytest
import torch
from tiny_models import FEW, rng

from dmgi_lib.generators.eg3d import volume_rendering as rendering
from dmgi_lib.generators.eg3d.cameras import camera_rays, look_at
from dmgi_lib.generators.eg3d.volume_rendering import RenderingConfig, render_rays


def ball(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A dense ball of radius 0.3 whose colour is its position."""
    return points, 4e5 * (0.3 - points.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize(("yaw", "pitch"), [(0.0, 0.0), (70.0, 0.0), (-30.0, 40.0)])
def test_rendered_ball(yaw, pitch):
    c = look_at(yaw, pitch)[None]
    color, depth, alpha = render_rays(ball, *camera_rays(c, 17), RenderingConfig(64, 64))
    color, depth = color.unflatten(1, (17, 17)), depth.unflatten(1, (17, 17))[..., 0]
    assert depth[0, 8, 8] == pytest.approx(2.7 - 0.3, abs=0.01)
    assert depth[0, 0, 0] == pytest.approx(3.3)  # nothing there: the far end
    assert color[0, 0, 0].abs().max() == 0
    alpha = alpha.unflatten(1, (17, 17))
    assert alpha[0, 0, 0] == 0 and alpha[0, 8, 8] == pytest.approx(1, abs=1e-4)
    facing = c[0, :16].view(4, 4)[:3, 3] / 2.7 * 0.3
    torch.testing.assert_close(color[0, 8, 8], facing, atol=0.01, rtol=0)


def test_picture_is_upright():
    color, _, _ = render_rays(
        ball, *camera_rays(look_at(0.0, 0.0)[None], 16), RenderingConfig(64, 64)
    )
    color = color.unflatten(1, (16, 16))[0]
    assert color[8, 11, 0] > 0.1  # the person's left is on the right
    assert color[4, 8, 1] > 0.1  # up is up


def test_weights_of_a_uniform_medium():
    depths = torch.tensor([1.0, 1.5, 1.75, 3.0], dtype=torch.float64)
    raw = torch.full((4,), 1.0, dtype=torch.float64)  # softplus(1 − 1) = ln 2
    weights = rendering.interval_weights(raw, depths)
    expected = 0.5 ** (depths[:-1] - 1) - 0.5 ** (depths[1:] - 1)
    torch.testing.assert_close(weights, expected)


def test_colour_is_the_mean_of_an_intervals_ends():
    """Two passes, sorted together, against the plain sums over sorted samples."""

    def field(points):
        z = points[..., 2:]
        return torch.cat([z.sin(), z.cos()], dim=-1), 3 * (5 * z).cos()

    origins, directions = torch.zeros(1, 2, 3), torch.tensor([[[0.0, 0.0, 1.0], [0.6, 0.0, 0.8]]])
    config = RenderingConfig(6, 5, 1.0, 2.0, white_back=True)
    color, depth, _ = render_rays(field, origins, directions, config)
    coarse = torch.linspace(1, 2, 6).expand(1, 2, 6)

    def at(t):
        return field(origins[:, :, None] + t[..., None] * directions[:, :, None])

    weights = rendering.interval_weights(at(coarse)[1][..., 0], coarse)
    quantiles = torch.linspace(0, 1, 5).expand(1, 2, 5)
    fine = rendering.importance_depths(coarse, weights, quantiles)
    t = torch.cat([coarse, fine], dim=-1).sort().values
    colors, sigma = at(t)
    weights = rendering.interval_weights(sigma[..., 0], t)[..., None]
    middle = (colors[:, :, 1:] + colors[:, :, :-1]) / 2
    torch.testing.assert_close(color, (weights * middle).sum(2) + 1 - weights.sum(2))
    middle = (t[..., 1:] + t[..., :-1])[..., None] / 2
    torch.testing.assert_close(depth, (weights * middle).sum(2) / weights.sum(2))


def test_fine_samples_follow_the_weights():
    depths = torch.linspace(0, 1, 11, dtype=torch.float64).expand(1, 1, 11)
    weights = torch.zeros(1, 1, 10, dtype=torch.float64)
    weights[..., 5] = 1.0  # between 0.5 and 0.6
    quantiles = torch.linspace(0, 1, 101, dtype=torch.float64).expand(1, 1, 101)
    fine = rendering.importance_depths(depths, weights, quantiles)[0, 0]
    assert (fine.diff() > 0).all()
    assert fine[0] == pytest.approx(0.05)
    assert fine[-1] == pytest.approx(0.85)
    assert ((fine > 0.35) & (fine < 0.65)).double().mean() > 0.9
    # Equal weights make equal bins.
    even = rendering.importance_depths(depths, torch.ones_like(weights), quantiles)[0, 0]
    torch.testing.assert_close(even, torch.linspace(0.05, 0.85, 101, dtype=torch.float64))


def test_chunks_keep_the_budget():
    sizes = []

    def counting(points):
        sizes.append(points.shape[0] * points.shape[1])
        return ball(points)

    origins, directions = camera_rays(look_at([0.0, 10.0], 0.0), 16)
    render_rays(counting, origins, directions, FEW, max_points=1000)
    assert max(sizes) <= 500  # half of the samples are coarse, half fine
    assert sum(sizes) == 2 * 256 * 16


def test_jittered_depths_stay_in_their_bins():
    depths = []

    def recording(points):
        depths.append(-points[..., 2])
        return points, torch.zeros_like(points[..., :1])

    origins, directions = torch.zeros(1, 50, 3), torch.tensor([0.0, 0.0, -1.0]).expand(1, 50, 3)
    config = RenderingConfig(5, 0, 1.0, 2.0)
    render_rays(recording, origins, directions, config, deterministic=False, generator=rng())
    position = (depths[0].view(50, 5) - 1) / 0.25 - torch.arange(5)
    assert ((position >= -1e-5) & (position <= 1 + 1e-5)).all()
    assert position.std() > 0.2
