"""Heads on the loss network's features."""

import pytest
import torch

from dmgi_lib.training.feature_discriminator import FeatureDiscriminator, adversarial_losses


def test_feature_heads_give_a_logit_a_place_and_reach_every_feature():
    torch.manual_seed(0)
    heads = FeatureDiscriminator((3, 4, 5), width=6)
    features = [torch.randn(2, c, s, s, requires_grad=True) for c, s in ((3, 16), (4, 8), (5, 4))]
    logits = heads(features)
    assert logits.shape == (2, 3 * 16)
    logits.sum().backward()
    assert all(f.grad.abs().sum() > 0 for f in features)
    with pytest.raises(ValueError):
        heads(features[:2])


def test_adversarial_loss_by_hand():
    sure = adversarial_losses(torch.tensor([[40.0]]), torch.tensor([[-40.0]]))
    wrong = adversarial_losses(torch.tensor([[-3.0]]), torch.tensor([[5.0]]))
    assert sure < 1e-6
    assert wrong.item() == pytest.approx(8.0, abs=0.06)  # softplus(x) is about x
