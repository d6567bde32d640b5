"""What I'_t is compared with: terms of a stage on a tiny dataset and tiny random networks."""

import pytest
import torch
from tiny_training import loop, trainer

from dmgi_lib.captions import claimed
from dmgi_lib.dataset import to_float
from dmgi_lib.devices import autocast
from dmgi_lib.masks import flip_mask
from dmgi_lib.training.losses import (
    AttributeLoss,
    CodePrior,
    LossWeights,
    parts_loss,
)
from dmgi_lib.training.run_files import read_log
from dmgi_lib.training.supervision import mirrored


def test_the_code_prior_pulls_only_where_it_is_asked_to(cache, dataset, loss_net, tmp_path):
    batch = cache.batch(torch.arange(4), torch.zeros(4, dtype=torch.long))
    plain = trainer(1, cache, dataset, loss_net, weights=LossWeights(code_prior=0.0))
    w = plain.generator.mean_latent.expand(4, 12, -1).clone() + 0.3
    assert "code_prior" not in plain.terms(batch, w, plain.draw(w))
    t = trainer(1, cache, dataset, loss_net, weights=LossWeights(code_prior=0.1, row_growth=4.0))
    terms = t.terms(batch, w, t.draw(w))
    expected = CodePrior.of(t.generator, row_growth=4.0)(w)
    assert torch.equal(terms["code_prior"], expected)
    without = {name: value for name, value in terms.items() if name != "code_prior"}
    added = t.terms.total(terms) - t.terms.total(without)
    assert added.item() == pytest.approx(0.1 * expected.mean().item(), rel=1e-3)
    t.fit(loop(tmp_path, max_steps=1))
    assert "code_prior" in read_log(tmp_path / "log.csv")


def test_the_caption_of_each_entry_says_which_attributes_it_asks_for(cache, dataset, loss_net):
    t = trainer(1, cache, dataset, loss_net)
    entries = torch.arange(8)
    batch = cache.batch(entries, torch.zeros(8, dtype=torch.long))
    assert set(batch.caption.tolist()) == {0, 1}  # both captions were drawn
    w = t.codes(batch, t.networks)
    image = t.draw(w)
    says = [dataset.captions[i][k] for i, k in zip(batch.sample, batch.caption, strict=True)]
    with autocast(image.device.type):  # as the terms are computed
        expected = AttributeLoss(loss_net.eval())(image, claimed(says))
    torch.testing.assert_close(t.terms(batch, w, image)["attributes"], expected)
    plain = trainer(1, cache, dataset, loss_net, weights=LossWeights(attributes=0.0))
    assert "attributes" not in plain.terms(batch, w, image)


def test_parts_are_those_of_the_mask_and_can_be_left_out(cache, dataset, loss_net):
    t = trainer(1, cache, dataset, loss_net)
    batch = cache.batch(torch.arange(8), torch.zeros(8, dtype=torch.long))
    w = t.codes(batch, t.networks)
    image = t.draw(w)
    target = to_float(mirrored(dataset.images, batch))
    expected = parts_loss(image, target, mirrored(dataset.masks, batch, flip_mask))
    assert expected.max() > 0
    torch.testing.assert_close(t.terms(batch, w, image)["parts"], expected)
    plain = trainer(1, cache, dataset, loss_net, weights=LossWeights(parts=0.0))
    assert "parts" not in plain.terms(batch, w, image)


def test_mirrored_entries_get_mirrored_targets(cache, dataset):
    batch = cache.batch(torch.tensor([3, 13]), torch.tensor([0, 0]))
    images = mirrored(dataset.images, batch)
    assert torch.equal(images[0], dataset.images[3])
    assert torch.equal(images[1], dataset.images[3].flip(-1))
