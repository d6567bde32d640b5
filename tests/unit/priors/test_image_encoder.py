"""The image encoder of the warm start."""

import pytest
import torch
from tiny_models import rng

from data_prep.priors.image_encoder import ImageEncoder


def test_noise_on_codes_moves_w_but_little():
    torch.manual_seed(0)
    encoder = ImageEncoder(16, 4, 8, 32, 2).eval()
    images = torch.rand(32, 3, 32, 32, generator=rng()) * 2 - 1
    with torch.no_grad():
        plain, offsets = encoder(images)
        near, _ = encoder(images, 0.3, rng(1))
        assert encoder.codes(images).square().mean().item() == pytest.approx(1.0, abs=1e-3)
    assert plain.shape == offsets.shape == (32, 4, 8)
    assert 0.01 < (near - plain).square().mean() / plain.var() < 0.5
