"""What I'_t is compared with: terms of a stage on a tiny dataset and tiny random networks."""

import pytest
import torch
from tiny_models import mapping_network, style_modulation
from tiny_training import loop, trainer

from dmgi_lib.captions import claimed
from dmgi_lib.dataset import to_float
from dmgi_lib.devices import autocast
from dmgi_lib.masks import CLASSES, flip_mask
from dmgi_lib.training.losses import (
    AttributeLoss,
    CodePrior,
    LossWeights,
    l2_loss,
    parts_loss,
)
from dmgi_lib.training.run_files import read_log
from dmgi_lib.training.supervision import mirrored, open_share


def test_the_code_prior_pulls_only_where_it_is_asked_to(cache, dataset, loss_net, tmp_path):
    batch = cache.batch(torch.arange(4), torch.zeros(4, dtype=torch.long))
    plain = trainer(1, cache, dataset, loss_net, weights=LossWeights(code_prior=0.0))
    w = plain.generator.mean_latent.expand(4, 12, -1).clone() + 0.3
    assert "code_prior" not in plain.terms(batch, w, plain.draw(w, batch))
    t = trainer(1, cache, dataset, loss_net, weights=LossWeights(code_prior=0.1, row_growth=4.0))
    terms = t.terms(batch, w, t.draw(w, batch))
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
    image = t.draw(w, batch)
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
    image = t.draw(w, batch)
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


@pytest.fixture
def last_stage(cache, dataset, loss_net):
    """A trainer of stage 3 with options, a batch at an early and a late step, w_t and I'_t."""

    def made(**options):
        t = trainer(3, cache, dataset, loss_net, mapping_network(), style_modulation(), **options)
        batch = cache.batch(torch.arange(8, 12), torch.tensor([0, 1, 0, 1]))  # some are mirrored
        w = t.codes(batch, t.networks)
        return t, batch, w, t.draw(w, batch)

    return made


def test_the_composite_is_open_where_neither_mask_nor_words_decide():
    mask = torch.full((1, 64, 64), CLASSES.index("background"))
    mask[:, :, 20:] = CLASSES.index("hair")
    mask[:, :, 40:] = CLASSES.index("cloth")
    share = open_share(mask)
    assert share.shape == (1, 1, 64, 64)
    assert share[0, 0, 30, [0, 18, 19, 20, 21, 38, 39, 40, 41, 63]].tolist() == pytest.approx(
        [1, 1, 2 / 3, 1 / 3, 0, 0, 1 / 3, 2 / 3, 1, 1]
    )
    for name in ("skin", "mouth", "eye_g", "neck", "hair"):
        assert not open_share(torch.full((1, 8, 8), CLASSES.index(name))).any()


def test_one_composite_picture_teaches_all(last_stage, dataset):
    t, batch, w, image = last_stage(targets="composite")
    terms = t.terms(batch, w, image)
    names = {"l2 (composite)", "perceptual (composite)", "identity (composite)"}
    assert {name for name in terms if "(" in name} == names
    photograph, mask = (mirrored(dataset.images, batch), mirrored(dataset.masks, batch, flip_mask))
    photograph, drawn = to_float(photograph), to_float(batch.diffusion_images)
    share = open_share(mask)
    picture = share * drawn + (1 - share) * photograph
    torch.testing.assert_close(terms["l2 (composite)"], l2_loss(image, picture))
    torch.testing.assert_close(terms["parts"], parts_loss(image, picture, mask))
    assert not torch.allclose(picture, photograph, atol=0.1)
    assert not torch.allclose(picture, drawn, atol=0.1)


@pytest.mark.parametrize("targets", ["diffusion", "image"])
def test_a_lonely_teacher_has_the_whole_share_at_all_steps(last_stage, dataset, targets):
    t, batch, w, image = last_stage(targets=targets)
    terms, photograph = t.terms(batch, w, image), to_float(mirrored(dataset.images, batch))
    name = {"diffusion": "I_0^d", "image": "I"}[targets]
    picture = {"I_0^d": to_float(batch.diffusion_images), "I": photograph}[name]
    assert all(f"({name})" in term for term in terms if "(" in term)
    torch.testing.assert_close(terms[f"l2 ({name})"], l2_loss(image, picture))
    mask = mirrored(dataset.masks, batch, flip_mask)
    torch.testing.assert_close(terms["parts"], parts_loss(image, picture, mask))
