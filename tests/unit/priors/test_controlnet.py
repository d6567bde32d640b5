"""Conditions of the ControlNet, and what an untrained one does."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from tiny_priors import SMALL

from data_prep.priors.controlnet import ControlNet, Drawings, drawn_by_hand
from data_prep.priors.recipe import Folders
from dmgi_lib.dataset import FaceDataset
from dmgi_lib.masks import CLASSES, PALETTE
from dmgi_lib.training.condition_augmentation import by_hand


def test_mirrored_conditions_swap_sides(tiny_faces):
    dataset = FaceDataset(tiny_faces, "test")
    conditions = Drawings(dataset, "mask")
    plain, mirrored = conditions(torch.tensor([0, len(dataset)]))
    left, right = (
        torch.tensor(PALETTE[CLASSES.index(f"{side}_eye")] / 255.0).float() for side in "lr"
    )
    for picture in (plain, mirrored):  # l_eye lies on the right side of the image, before and after
        columns = (picture == left[:, None, None]).all(0).any(0).nonzero().float().mean()
        others = (picture == right[:, None, None]).all(0).any(0).nonzero().float().mean()
        assert columns > others
    assert not torch.equal(plain, mirrored)
    scribbles = Drawings(dataset, "scribble")
    plain, mirrored = scribbles(torch.tensor([3, 3 + len(dataset)]))
    assert torch.equal(plain.flip(-1), mirrored) and set(plain.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("kind", ["mask", "scribble"])
def test_a_share_of_conditions_is_drawn_by_hand(tiny_faces, kind):
    dataset = FaceDataset(tiny_faces, "train")
    rows = torch.arange(2 * len(dataset)).repeat(4)
    perfect, drawn = Drawings(dataset, kind)(rows), Drawings(dataset, kind, 0.5)
    first = drawn(rows, torch.Generator().manual_seed(0))
    changed = (first != perfect).flatten(1).any(1).float().mean()
    assert 0.2 < changed < 0.8
    assert not torch.equal(drawn(rows, torch.Generator().manual_seed(1)), first)
    assert torch.equal(drawn(rows, torch.Generator().manual_seed(0)), first)
    by_hand_alone = Drawings(dataset, kind, 1.0)(rows)
    one_of_both = [(first == x).flatten(1).all(1) for x in (perfect, by_hand_alone)]
    assert torch.stack(one_of_both).any(0).all()


@pytest.mark.parametrize("kind", ["mask", "scribble"])
def test_processes_draw_what_one_draws(tiny_faces, kind):
    dataset = FaceDataset(tiny_faces, "train")
    few = (dataset.masks if kind == "mask" else dataset.scribbles)[:2]
    many = few.repeat(400, 1, 1)
    drawn = drawn_by_hand(kind, many)
    alone = [torch.Generator().manual_seed(row) for row in range(798, 800)]
    assert torch.equal(drawn[798:], by_hand(kind, few, 1.0, alone))
    assert torch.equal(drawn[:2], drawn_by_hand(kind, few))


def test_trainings_read_drawn_conditions_that_the_steps_generator_decides(trained, tiny_faces):
    seen = []
    settings = replace(SMALL["controlnet"], augment=0.5)
    recipe = ControlNet(settings, Folders(tiny_faces, trained), torch.device("cpu"))
    recipe.network.controlnet_cond_embedding.register_forward_pre_hook(
        lambda module, arguments: seen.append(arguments[0])
    )
    for seed in (7, 7, 8):
        recipe.step(0, torch.Generator().manual_seed(seed))
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], Drawings(recipe.train_set, "mask")(recipe.rows(16, 0)))


def test_the_card_tells_how_drawn_conditions_are_read(trained):
    card = (trained / "controlnet" / "card.md").read_text()
    assert "| velocity error, right mask as if drawn by hand, test | " in card


def test_the_share_of_drawn_conditions_is_one():
    with pytest.raises(ValueError, match="augment came as -0.5; expected the share"):
        replace(SMALL["controlnet"], augment=-0.5)


def test_an_untrained_controlnet_changes_nothing_and_a_trained_one_does(trained, tiny_faces):
    folder = trained
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    folders = Folders(tiny_faces, folder)
    recipe = ControlNet(SMALL["controlnet"], folders, torch.device("cpu"))
    learnt = ControlNetModel.from_pretrained(folder / "controlnet", torch_dtype=torch.float32)
    rng = torch.Generator().manual_seed(0)
    noisy, text = torch.randn(1, 4, 16, 16, generator=rng), torch.randn(1, 40, 32, generator=rng)
    t, condition = torch.tensor([999]), torch.rand(1, 3, 128, 128, generator=rng)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        alone = unet(noisy, t, text).sample.float()
    with torch.no_grad():
        controlled = recipe.predict(recipe.network, noisy, t, text, condition)
        moved = recipe.predict(learnt, noisy, t, text, condition)
    torch.testing.assert_close(controlled, alone, atol=2e-2, rtol=2e-2)
    assert not torch.equal(moved, controlled)
    config = json.loads((folder / "controlnet" / "config.json").read_text())
    assert config["cross_attention_dim"] == 32
