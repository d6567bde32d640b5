"""Readings of the 2D prior."""

import torch
from tiny_models import rng
from tiny_models import tiny_stylegan2 as tiny

from data_prep.priors.latent_prior import ImageEncoder
from data_prep.priors.stylegan2_measurements import (
    feature_distance,
    measure,
    sample_grid,
    set_typical_latent,
)
from dmgi_lib.generators import StyleGAN2Generator
from dmgi_lib.recognizers import Recognizer


def test_the_centre_of_truncation_is_a_code_where_codes_lie_close():
    """Codes on a circle, a tenth of them close together: their mean is no code."""
    angle = torch.cat([torch.linspace(0, 6, 90), torch.linspace(3.0, 3.02, 10)])
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    G = StyleGAN2Generator(z_dim=2, w_dim=2, img_resolution=8, channel_base=64, channel_max=8)
    G.mapping.forward = lambda z: circle[: len(z), None].expand(-1, G.num_ws, -1)
    set_typical_latent(G, count=100)
    assert (circle[90:] == G.mean_latent).all(dim=1).any()


def test_measurements_and_grid_have_the_promised_shape():
    G = tiny(z_dim=128, img_resolution=32)
    encoder = ImageEncoder(128, G.num_ws, 8, 32, 2).eval()
    images = torch.randint(0, 256, (8, 3, 32, 32), generator=rng(), dtype=torch.uint8)
    with torch.no_grad():
        grid = sample_grid(G, encoder, images)
    assert grid.shape == (8 * 32, 8 * 32, 3)
    row = torch.from_numpy(grid).unflatten(0, (8, 32))[5].unflatten(1, (8, 32)).permute(1, 3, 0, 2)
    assert torch.equal(row, images)
    figures = measure(G, encoder, Recognizer(channels=(4, 8, 8, 8, 8)).eval(), images, images)
    distances = {k: v for k, v in figures.items() if "distance" in k}
    (floor,) = (v for k, v in distances.items() if "floor" in k)  # the same images on both sides
    assert floor < 0 and all(v > floor for k, v in distances.items() if "floor" not in k)
    assert len(figures) == 6 and all(v > 0 for k, v in figures.items() if "L1" in k)


def test_nearer_sets_have_a_smaller_feature_distance():
    loss_net = Recognizer(channels=(4, 8, 8, 8, 8)).eval()
    images = torch.rand(16, 3, 128, 128, generator=rng()) - 0.5
    near, far = (feature_distance(loss_net, images.flip(0) + s, images) for s in (0.01, 0.5))
    assert near < far and far > 0
