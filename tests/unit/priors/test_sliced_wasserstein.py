"""Distances of image sets."""

import pytest
import torch
from tiny_models import rng

from data_prep.priors.sliced_wasserstein import sliced_wasserstein


def test_sliced_wasserstein_orders_image_sets():
    first, second = torch.randn(2, 32, 3, 32, 32, generator=rng())
    same = sliced_wasserstein(first, first)
    assert same["mean"] == 0.0
    assert set(same) == {"32", "16", "mean"}
    near = sliced_wasserstein(first, second)["mean"]
    assert 0.0 < near < 0.5 * sliced_wasserstein(first * 0.5, second)["mean"]
    with pytest.raises(ValueError, match="same shape"):
        sliced_wasserstein(first, second[:3])
