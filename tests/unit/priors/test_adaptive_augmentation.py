"""Adaptive discriminator augmentation."""

import pytest
import torch
from tiny_models import rng

from data_prep.priors.adaptive_augmentation import P_MAX, AdaptiveAugmentation


def test_augmentation_is_identity_at_p_zero_and_differentiable_at_one():
    augmentation = AdaptiveAugmentation()
    image = torch.randn(4, 3, 16, 16, generator=rng())
    torch.testing.assert_close(augmentation(image, augmentation.draw(4, rng())), image)
    augmentation.p.fill_(1.0)
    image.requires_grad_(True)
    out = augmentation(image, augmentation.draw(4, rng()))
    assert ((out - image).abs().flatten(1).mean(dim=1) > 0.05).all()
    assert (out == 0).any()  # cutout
    out.sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()


def test_augmentation_probability_follows_overfitting():
    augmentation = AdaptiveAugmentation(target=0.6, images=160, interval=2)
    for step in range(4):  # D is sure of every real image
        augmentation.observe(torch.ones(16), step)
    assert augmentation.p.item() == pytest.approx(0.4)
    for step in range(4, 20):
        augmentation.observe(torch.ones(16), step)
    assert augmentation.p.item() == pytest.approx(P_MAX)
    for step in range(20, 22):  # D is right half the time
        augmentation.observe(torch.tensor([1.0, -1.0] * 8), step)
    assert augmentation.p.item() == pytest.approx(P_MAX - 0.2)
