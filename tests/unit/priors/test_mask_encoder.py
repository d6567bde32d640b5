"""The mask encoder starts at one face, and learns from masks of the people it may see."""

from dataclasses import replace

import pytest
import torch
from tiny_priors import SMALL

from data_prep.priors import trainer
from data_prep.priors.mask_encoder import MaskToCode
from data_prep.priors.recipe import Folders


@pytest.fixture
def recipe(tiny_faces, trained):
    return MaskToCode(SMALL["mask_encoder"], Folders(tiny_faces, trained), torch.device("cpu"))


def test_starts_at_the_mean_face_and_ignores_nothing_but_the_mask(recipe):
    masks = recipe.train_set.masks[:3]
    start = recipe.encoder(masks)
    assert torch.equal(start, recipe.G.mean_latent.expand_as(start))
    torch.nn.init.normal_(recipe.encoder.mapping.fc.weight)
    codes = recipe.encoder(masks)
    assert not torch.allclose(codes[0], codes[1])


def test_learns_what_its_weights_name(recipe):
    before = recipe.measure(recipe.encoder)
    rng = torch.Generator().manual_seed(0)
    for step in range(6):
        recipe.step(step, rng)
    after = recipe.measure(recipe.encoder)
    assert after["l2"] < before["l2"]
    unused = {"row_growth", "attributes", "adversarial", "code_critic"}  # no captions, no critics
    assert set(after) == set(vars(recipe.weights)) - unused
    grid = recipe.sample(6, {"mask_encoder": recipe.encoder})
    assert grid.shape == (3 * 128, len(recipe.test_rows[:8]) * 128, 3)


def test_it_goes_on_from_an_earlier_one(recipe, tiny_faces, trained, tmp_path):
    torch.nn.init.normal_(recipe.encoder.mapping.fc.weight)
    recipe.encoder.mapping.w_avg += 1  # of another G
    recipe.encoder.save_pretrained(tmp_path)
    settings = replace(SMALL["mask_encoder"], start=tmp_path)
    onward = MaskToCode(settings, Folders(tiny_faces, trained), torch.device("cpu")).encoder
    assert torch.equal(onward.mapping.fc.weight, recipe.encoder.mapping.fc.weight)
    assert torch.equal(onward.mapping.w_avg, recipe.G.mean_latent)


def test_a_checkpoint_of_other_losses_is_refused(tiny_faces, trained, tmp_path):
    folders = Folders(tiny_faces, trained, tmp_path / "out", tmp_path / "run")
    settings = replace(SMALL["mask_encoder"], minutes=5.0, max_steps=1)
    trainer.train("mask_encoder", settings, folders, "cpu")
    with pytest.raises(ValueError, match="losses.code_prior was 0.06, is 0.01"):
        other = replace(settings, code_prior=0.01)
        trainer.train("mask_encoder", other, folders, "cpu")


def test_held_out_identities_are_never_drawn(recipe, tiny_faces, trained):
    identities = recipe.train_set.identities
    seen = set(identities[recipe.train_rows].tolist())
    unseen = set(identities[recipe.test_rows].tolist())
    assert len(unseen) == 3 and not seen & unseen
    with pytest.raises(ValueError, match="holding out 64"):
        settings = replace(SMALL["mask_encoder"], held_out=64)
        MaskToCode(settings, Folders(tiny_faces, trained), torch.device("cpu"))
