"""The mapping network's fit to the encoder's codes."""

import pytest
import torch
from tiny_models import rng
from tiny_priors import brief_fit

from data_prep.priors.image_encoder import ImageEncoder
from data_prep.priors.latent_prior import energy_distance, fit_prior
from dmgi_lib.generators.stylegan2 import StyleMapping


@pytest.mark.slow
def test_the_mapping_network_learns_to_draw_the_codes():
    """Codes on a ring, where their Gaussian has its middle."""
    torch.manual_seed(0)
    encoder = ImageEncoder(4, 2, 4, 32, 2)
    angle = torch.linspace(0, 2 * torch.pi, 256)[:, None]
    ring = torch.cat([angle.cos(), angle.sin(), 0.01 * torch.randn(256, 2, generator=rng())], 1)
    encoder.codes = lambda image: ring[image[:, 0, 0, 0].mul(127.5).add(127.5).round().long()]
    images = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)
    mapping = StyleMapping(4, 0, 4, 2, 2)
    found = fit_prior(mapping, encoder, images, rng(), brief_fit(1000))
    assert found["draws"] < 0.75 * found["Gaussian"]


def test_energy_distance_by_hand():
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]])
    # between: (1 + 5 + 1 + 3) / 4; within: 2 and 4
    assert energy_distance(x, y).item() == pytest.approx(2 * 2.5 - 2 - 4, abs=1e-4)
