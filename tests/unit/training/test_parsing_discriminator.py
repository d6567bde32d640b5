"""The discriminator that parses."""

import pytest
import torch
from tiny_models import rng

from dmgi_lib.masks import CLASSES
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.training.parsing_discriminator import ParsingDiscriminator, classes_of, realness

SIZES = (8, 8, 8, 8, 8)


@pytest.fixture
def loss_net():
    torch.manual_seed(0)
    return Recognizer(SIZES).eval()


@pytest.fixture
def D(loss_net):
    made = ParsingDiscriminator(SIZES)
    made.begin_as(loss_net)
    return made


def test_it_begins_as_the_loss_network(D, loss_net):
    image = torch.rand(2, 3, 128, 128, generator=rng(0)) * 2 - 1
    logits = D.train().logits(image)  # and stays in evaluation mode
    assert logits.shape == (2, len(CLASSES) + 1, 64, 64)
    torch.testing.assert_close(logits[:, :-1], loss_net(image).parsing)
    assert not logits[:, -1].any()


def test_realness_is_the_odds_of_all_true_classes():
    logits = torch.zeros(1, len(CLASSES) + 1, 2, 2)
    torch.testing.assert_close(realness(logits).exp(), torch.full((1, 2, 2), float(len(CLASSES))))
    logits[:, -1, 0, 0] = 100
    assert realness(logits)[0, 0, 0] < -90
    mask = torch.arange(16).reshape(1, 4, 4)
    assert classes_of(mask, logits).tolist() == [[[5, 7], [13, 15]]]


def test_it_learns_what_is_made_up(D):
    real = (
        torch.rand(2, 3, 8, 8, generator=rng(0)).repeat_interleave(16, 2).repeat_interleave(16, 3)
    )
    fake = torch.rand(2, 3, 128, 128, generator=rng(1))
    optimizer = torch.optim.Adam(D.parameters(), 0.001)
    for _ in range(40):
        odds = realness(D.logits(torch.cat([real, fake]))).flatten(1).mean(1)
        loss = odds[2:].mean() - odds[:2].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert odds[:2].min() > odds[2:].max() + 1


def test_it_sees_that_pictures_are_alike(D):
    various = torch.rand(8, 3, 128, 128, generator=rng(0)) * 2 - 1
    alike = various[::4].repeat_interleave(4, 0)
    torch.testing.assert_close(D.logits(various)[::4], D.logits(alike)[::4])
    D.to_spread.weight.data.fill_(-1.0)
    more_made_up = (D.logits(alike) - D.logits(various))[::4]
    assert more_made_up[:, -1].min() > 0
    assert not more_made_up[:, :-1].any()


def test_weights_come_back(D, tmp_path):
    D.save_pretrained(tmp_path)
    again = ParsingDiscriminator.from_pretrained(tmp_path)
    image = torch.rand(1, 3, 128, 128, generator=rng(1))
    torch.testing.assert_close(again.logits(image), D.logits(image))
