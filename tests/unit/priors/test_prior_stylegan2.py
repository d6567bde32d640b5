"""The two phases of the 2D prior."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny_models import rng
from tiny_priors import SMALL

from data_prep.priors.recipe import Folders
from data_prep.priors.stylegan2 import StyleGAN2


@pytest.fixture
def recipe(tiny_faces, weights_of_loss_net):
    return StyleGAN2(
        SMALL["stylegan2"], Folders(tiny_faces, weights_of_loss_net), torch.device("cpu")
    )


def weights(recipe):
    return {
        k: torch.cat([p.detach().flatten() for p in m.parameters()])
        for k, m in recipe.modules.items()
    }


def test_a_step_moves_the_networks_of_its_phase(recipe):
    recipe.settings = replace(recipe.settings, warmup_images=8)
    before = weights(recipe)
    first = recipe.step(0, rng(0))
    warm = weights(recipe)
    assert set(first) == {"reconstruction", "offsets", "perceptual", "parsing"}
    assert torch.equal(before["discriminator"], warm["discriminator"])
    assert not torch.equal(before["encoder"], warm["encoder"])
    recipe.settings = replace(recipe.settings, r1_interval=1)
    second = recipe.step(1, rng(1))
    after = weights(recipe)
    assert {
        "D",
        "real_found",
        "fake_found",
        "G",
        "G_parsing",
        "r1",
        "perceptual",
        "reconstruction",
    } <= set(second)
    moved = {k for k in warm if not torch.equal(warm[k], after[k])}
    assert moved == {"generator", "discriminator"}


def started(recipe, folder, **changes):
    settings = replace(recipe.settings, start=folder, seed=7, r1_interval=1, **changes)
    return StyleGAN2(settings, recipe.folders, torch.device("cpu"))


def test_a_training_goes_on_from_a_generator(recipe, tmp_path):
    recipe.G.save_pretrained(tmp_path / "generator")
    resumed = started(recipe, tmp_path, warmup_images=8)
    before, codes = weights(resumed), resumed.G.mapping(torch.ones(1, 8))
    torch.testing.assert_close(before["generator"], weights(recipe)["generator"])
    torch.testing.assert_close(resumed.encoder.mapping(torch.ones(1, 8)), codes)
    resumed.step(0, rng(0))  # the encoder learns what G's codes are
    after = weights(resumed)
    assert {k for k in after if not torch.equal(before[k], after[k])} == {"encoder"}
    resumed.step(1, rng(1))
    before, after = after, weights(resumed)
    moved = {k for k in after if not torch.equal(before[k], after[k])}
    assert moved == {"generator", "discriminator"}
    torch.testing.assert_close(resumed.G.mapping(torch.ones(1, 8)), codes)
    averaged = SimpleNamespace(ema={"generator": resumed.G})
    centre = resumed.G.mean_latent.clone()
    torch.testing.assert_close(resumed.finished(averaged).mean_latent, centre)


def test_a_training_goes_on_from_all_that_was_exported(recipe, tmp_path):
    recipe.step(0, rng(0))
    for name in ("generator", "encoder", "discriminator"):
        recipe.modules[name].save_pretrained(tmp_path / name)
    resumed = started(recipe, tmp_path)
    before, after = weights(recipe), weights(resumed)
    assert all(torch.equal(before[k], after[k]) for k in after)
    assert "D" in resumed.step(0, rng(0))  # nothing is left to learn before they play


def test_a_narrower_generator_goes_on_drawing_what_it_drew(recipe, tmp_path):
    recipe.G.save_pretrained(tmp_path / "generator")
    sizes = recipe.settings.generator | {"channel_base": 512, "channel_max": 12}
    wide = started(recipe, tmp_path, generator=sizes)
    z = torch.randn(2, 8, generator=rng(0))
    assert wide.G.synthesis.b128.conv1.weight.shape[0] == 2 * len(
        recipe.G.synthesis.b128.conv1.bias
    )
    torch.testing.assert_close(wide.G(z), recipe.G(z))
    wide.G.save_pretrained(tmp_path / "generator")  # and a wider one is not made narrower
    with pytest.raises(ValueError, match="does not fit a StyleGAN2Generator"):
        started(recipe, tmp_path)


def test_the_channels_that_were_added_learn(recipe, tmp_path):
    recipe.G.save_pretrained(tmp_path / "generator")
    sizes = recipe.settings.generator | {"channel_base": 512, "channel_max": 12}
    wide = started(recipe, tmp_path, generator=sizes)
    unread = wide.G.synthesis.b64.conv1.weight[:4, 4:]
    assert not unread.any()
    wide.hold_codes(True, rng(0))
    (wide.G(torch.randn(2, 8, generator=rng(0))).square().sum()).backward()
    assert wide.G.synthesis.b64.conv1.weight.grad[:4, 4:].all()


def test_an_autoencoder_learns_on_if_its_codes_may_move(recipe, tmp_path):
    for name in ("generator", "encoder"):
        recipe.modules[name].save_pretrained(tmp_path / name)
    on = started(recipe, tmp_path, keep_codes=False, warmup_images=8, growth=((8, 1.0),))
    before, mapping = weights(on), on.G.mapping(torch.ones(1, 8))
    log = on.step(0, rng(0))  # at full size, or nothing were recognised
    assert "parsing" in log and "D" not in log
    after = weights(on)
    assert {k for k in after if not torch.equal(before[k], after[k])} == {"generator", "encoder"}
    assert "D" in on.step(1, rng(1))
    assert not torch.equal(on.G.mapping(torch.ones(1, 8)), mapping)  # fitted to the new codes


def test_random_codes_have_a_place_in_every_batch(recipe):
    recipe.settings = replace(recipe.settings, warmup_images=0, encoded_share=1.0)
    assert recipe.step(0, rng(0))["G"].isfinite()


def test_warm_start_grows(recipe):
    for growth, expected in (
        (((8, 0.5), (16, 0.8)), [8, 8, 16, 16, 128]),
        (((8, 0.5), (128, 0.8)), [8, 8, 128, 128, 128]),
    ):
        recipe.settings = replace(recipe.settings, growth=growth)
        assert [recipe.stage(share, 128)[0] for share in (0, 0.49, 0.5, 0.79, 0.8)] == expected


def test_batches_that_cannot_be_halved_into_groups_are_refused():
    with pytest.raises(ValueError, match="batch-size came as 12; expected a multiple of 8"):
        replace(SMALL["stylegan2"], batch_size=12)
