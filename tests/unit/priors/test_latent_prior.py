"""The image encoder of the warm start, and the mapping network's fit to its codes."""

import pytest
import torch
from tiny_models import rng
from tiny_priors import brief_fit

from data_prep.priors.latent_prior import ImageEncoder, energy_distance, fit_prior
from dmgi_lib.generators.stylegan2 import StyleMapping


@pytest.mark.slow
def test_the_mapping_network_learns_to_draw_the_codes():
    """Codes on a ring, where their Gaussian has its middle."""
    torch.manual_seed(0)
    encoder = ImageEncoder(4, 2, 4, 32, 2)
    angle = torch.linspace(0, 2 * torch.pi, 256)[:, None]
    ring = torch.cat([angle.cos(), angle.sin(), 0.01 * torch.randn(256, 2, generator=rng())], 1)
    encoder.codes = lambda image: (
        ring[image[:, 0, 0, 0].mul(127.5).add(127.5).round().long()], None
    )  # fmt: skip
    images = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)
    mapping = StyleMapping(4, 0, 4, 2, 2)
    fit_prior(mapping, encoder, images, rng(), brief_fit(1000))
    w, z = encoder.mapping(ring)[:, 0], torch.randn(256, 4, generator=rng(1))
    axes = torch.linalg.cholesky(torch.cov(w.T) + 1e-6 * torch.eye(4))
    like = {"draws": mapping(z)[:, 0], "Gaussian": w.mean(0) + z @ axes.T}
    off = {name: torch.cdist(x / w.std(), w / w.std()).amin(1).mean() for name, x in like.items()}
    assert off["draws"] < 0.75 * off["Gaussian"]


def test_energy_distance_by_hand():
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [5.0]])
    # between: (1 + 5 + 1 + 3) / 4; within: 2 and 4
    assert energy_distance(x, y).item() == pytest.approx(2 * 2.5 - 2 - 4, abs=1e-4)


def test_noise_on_codes_moves_w_but_little():
    torch.manual_seed(0)
    encoder = ImageEncoder(16, 4, 8, 32, 2).eval()
    images = torch.rand(32, 3, 32, 32, generator=rng()) * 2 - 1
    with torch.no_grad():
        plain, offsets = encoder(images)
        near, _ = encoder(images, 0.3, rng(1))
        assert encoder.codes(images)[0].square().mean().item() == pytest.approx(1.0, abs=1e-3)
    assert plain.shape == offsets.shape == (32, 4, 8)
    assert 0.01 < (near - plain).square().mean() / plain.var() < 0.5
