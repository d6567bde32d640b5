"""The two phases of the 3D prior."""

from dataclasses import replace

import pytest
import torch
from tiny_models import rng
from tiny_priors import SMALL
from tiny_views import with_views

from data_prep.priors.eg3d import EG3D, blurred
from data_prep.priors.eg3d_measurements import pairs_of
from data_prep.priors.recipe import Folders
from data_prep.priors.world_parts import PARTS
from dmgi_lib.generators.eg3d.cameras import look_at

WEIGHTS = ("generator", "encoder", "discriminator", "camera_discriminator")


@pytest.fixture(scope="module")
def faces(tiny_faces, tmp_path_factory):
    return with_views(tiny_faces, tmp_path_factory.mktemp("world") / "faces")


@pytest.fixture
def recipe(faces, weights_of_loss_net):
    settings = replace(SMALL["eg3d"], max_steps=4)
    return EG3D(settings, Folders(faces, weights_of_loss_net), torch.device("cpu"))


def weights(recipe):
    return {
        name: torch.cat([p.detach().flatten() for p in recipe.modules[name].parameters()])
        for name in WEIGHTS
    }


def test_a_step_moves_the_networks_of_its_phase(recipe):
    before = weights(recipe)
    first = recipe.step(0, rng(0))
    assert set(first) == {"raw", "alpha", "depth"}  # rendered pictures alone
    recipe.used = 0.5
    second = recipe.step(2, rng(2))  # half of the budget: super-resolution joins
    assert {"reconstruction", "perceptual", "parsing", "depth"} <= set(second)
    taught = weights(recipe)
    assert {k for k in WEIGHTS if not torch.equal(before[k], taught[k])} == {"generator", "encoder"}
    assert recipe.clock.begun == -1
    recipe.settings = replace(recipe.settings, r1_interval=3)
    recipe.used = 0.75
    third = recipe.step(3, rng(3))
    assert {"D", "D_camera", "G", "G_camera", "r1", "r1_camera", "depth"} <= set(third)
    assert recipe.clock.begun == 3
    played = weights(recipe)
    moved = {k for k in WEIGHTS if not torch.equal(taught[k], played[k])}
    assert moved == {"generator", "discriminator", "camera_discriminator"}
    mapping = recipe.G.backbone.mapping.state_dict()
    kept = {k: v.clone() for k, v in mapping.items()}
    recipe.step(4, rng(4))
    assert all(torch.equal(kept[k], v) for k, v in recipe.G.backbone.mapping.state_dict().items())


@pytest.mark.parametrize("begun", [(), ("generator",), ("generator", "encoder")])
def test_codes_of_an_earlier_training_stay_where_phase_a_is_left_out(recipe, begun):
    recipe.read_before, recipe.settings = begun, replace(recipe.settings, taught=0.0)
    before = {k: v.clone() for k, v in recipe.G.backbone.mapping.state_dict().items()}
    recipe.step(0, rng(0))
    after = recipe.G.backbone.mapping.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before) == ("encoder" in begun)


def test_planes_can_stand_still_while_super_resolution_plays(recipe):
    recipe.settings = replace(recipe.settings, frozen_planes=True, taught=0.0)
    recipe.step(0, rng(0))  # the mapping network is fitted

    def state():
        parts = {"generator": recipe.G, "encoder": recipe.encoder, "discriminator": recipe.D}
        named = ((f"{k}.{n}", p) for k, m in parts.items() for n, p in m.named_parameters())
        return {name: p.detach().clone() for name, p in named}

    before = state()
    log = recipe.step(1, rng(1))
    assert {"D", "G", "perceptual"} <= set(log) and "depth" not in log
    moved = {name for name, value in state().items() if not torch.equal(before[name], value)}
    assert {".".join(name.split(".")[:2]) for name in moved if "generator" in name} == {
        "generator.superresolution"
    }
    assert not any("encoder" in name for name in moved)
    assert any("discriminator" in name for name in moved)


def test_a_training_goes_on_from_exported_networks(recipe, tmp_path):
    recipe.step(0, rng(0))
    for name in ("generator", "encoder"):
        recipe.modules[name].save_pretrained(tmp_path / name)
    settings = replace(recipe.settings, start=tmp_path, seed=7)
    resumed = EG3D(settings, recipe.folders, torch.device("cpu"))
    before, after = weights(recipe), weights(resumed)
    assert {k for k in WEIGHTS if not torch.equal(before[k], after[k])} == {"camera_discriminator"}


def test_lessons_pair_views_of_one_person_that_is_not_held_out(recipe):
    seen, sources, code = recipe.lesson(8, 0, rng(1))  # three pairs and two single pictures
    assert code.tolist() == [0, 1, 2, 0, 1, 2, 3, 4] and len(sources) == 5
    torch.testing.assert_close(seen.image[:3], sources[:3])
    walls = seen.image[:6, :, 0, 0].view(2, 3, 3)
    torch.testing.assert_close(walls[0], walls[1])  # a wall a person
    assert (seen.camera[:3] != seen.camera[3:6]).any(1).all()
    assert [len(rows) for rows in recipe.people] == [4, 4]
    held_out = recipe.views.dataset.identities[recipe.unseen[0]].unique()
    assert not torch.isin(recipe.train_set.identities[recipe.single_rows], held_out).any()
    assert len(recipe.single_rows) == 15  # of 16


@pytest.mark.parametrize(("share", "sources"), [(0.0, 8), (1.0, 4)])
def test_lessons_of_pairs_or_of_single_pictures_alone(recipe, share, sources):
    recipe.settings = replace(recipe.settings, view_share=share)
    seen, read, code = recipe.lesson(8, 0, rng(1))
    assert len(seen.image) == len(code) == 8 and len(read) == sources
    assert len(recipe.anyone(4, rng(1)).image) == 4


def test_truth_costs_nothing(recipe):
    """A picture, depth and alpha that are the truth's own; each error is seen."""
    seen, _ = pairs_of(recipe.views, recipe.people)
    features = torch.nn.functional.avg_pool2d(seen.image, 2)
    alpha, depth, inside = seen.rendered(64)
    assert alpha.shape == depth.shape == inside.shape == (2, 1, 64, 64)
    assert ((depth[inside == 1] > 2) & (depth[inside == 1] < 3)).all() and 0 < alpha.mean() < 1
    weights_of = (1.0, 1.0, 1.0, 1.0, 1.0)
    assert recipe.truth_loss(features, depth, alpha, seen, weights_of)[0] == 0
    _, log = recipe.truth_loss(features, depth + 0.1 * inside, alpha, seen, weights_of)
    assert log["depth"].item() == pytest.approx(0.1, rel=1e-3) and log["alpha"] == 0
    _, log = recipe.truth_loss(features, depth + (inside < 1), alpha * 0, seen, weights_of)
    assert log["depth"] == 0 and log["alpha"] == pytest.approx(alpha.mean().item())


def test_density_is_compared_every_few_steps(recipe):
    planes = recipe.G.planes(recipe.draw_codes(2, rng()))
    assert recipe.density_loss(planes, 1, rng()) == 0
    assert recipe.density_loss(planes, 4, rng()) > 0
    assert recipe.density_loss(planes * 0, 4, rng()) == 0  # the same everywhere


def test_rendered_pictures_grow_and_super_resolution_joins(recipe, monkeypatch):
    recipe.settings = replace(recipe.settings, growth=((16, 0.5),), refined=0.25)
    sides, view = [], recipe.view
    monkeypatch.setattr(recipe, "view", lambda *given: sides.append(given[3]) or view(*given))
    refined = ["reconstruction" in recipe.teach(0, share, rng(0)) for share in (0.0, 0.3, 0.6)]
    assert sides == [16, 16, 64] and refined == [False, True, True]


def test_blur_keeps_the_mean_and_softens():
    image = torch.randn(1, 6, 32, 32, generator=rng())
    assert blurred(image, 0.0) is image
    soft = blurred(image, 2.0)
    assert soft.shape == image.shape and soft.std() < 0.3 * image.std()
    torch.testing.assert_close(blurred(torch.ones(1, 2, 8, 8), 2.0), torch.ones(1, 2, 8, 8))


def test_measurements_and_picture_have_the_promised_shape(recipe):
    averaged = {"generator": recipe.G.eval(), "encoder": recipe.encoder.eval()}
    assert recipe.sample(0, averaged).shape == (9 * 128, 128, 3)
    figures, shipped = {}, {}

    class Result:
        ema = averaged

    def ship(folder, net, title, description, measured):
        shipped["/".join(folder.parts[-2:])] = net
        figures.update(measured)

    recipe.export(Result, ship)
    assert shipped == {"3d/generator": recipe.G, "3d/encoder": recipe.encoder}
    assert figures["PSNR on head pixels, another view (dB)"] > 0
    disc = "depth error on the head, another view, flat disc (world units)"
    assert 0.01 < figures[disc] < 0.06  # of a ball of radius 0.22
    assert all(value == value for value in figures.values())
    (part,) = (part for part in PARTS if part.name == "eg3d")
    assert {*part.measured} <= {*figures}  # rows that the world's card repeats
    assert {*part.makes} == {*shipped}


def test_the_other_view_is_the_farthest(recipe):
    first, other = pairs_of(recipe.views, recipe.people)
    yaw = torch.rad2deg(torch.atan2(other.camera[:, 3], other.camera[:, 11]))
    assert (yaw > 20).all() and (first.camera[:, 3] < 0).all()


def test_a_data_set_without_views_is_refused(tiny_faces, weights_of_loss_net, faces):
    settings, cpu = SMALL["eg3d"], torch.device("cpu")
    with pytest.raises(FileNotFoundError, match="train_views: .* --train-views 1500"):
        EG3D(settings, Folders(tiny_faces, weights_of_loss_net), cpu)
    with pytest.raises(ValueError, match="held-out came as 3"):
        EG3D(replace(settings, held_out=3), Folders(faces, weights_of_loss_net), cpu)
    with pytest.raises(ValueError, match="--taught came as 2"):
        replace(settings, taught=2.0)


def test_discriminator_reads_the_camera(recipe):
    image = torch.randn(4, 6, 128, 128, generator=rng())
    one, other = (recipe.camera_D(image, look_at(yaw, 0.0).expand(4, -1)) for yaw in (-30.0, 30.0))
    assert one.shape == (4, 1) and not torch.allclose(one, other)
