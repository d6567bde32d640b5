"""Conditions of the ControlNet, and what an untrained one does."""

import json

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from tiny_priors import SMALL

from data_prep.priors.controlnet import Conditions, ControlNet
from data_prep.priors.recipe import Folders
from dmgi_lib.dataset import FaceDataset
from dmgi_lib.masks import CLASSES, PALETTE


def test_mirrored_conditions_swap_sides(tiny_faces):
    dataset = FaceDataset(tiny_faces, "test")
    conditions = Conditions(dataset, "mask")
    plain, mirrored = conditions(torch.tensor([0, len(dataset)]))
    left, right = (
        torch.tensor(PALETTE[CLASSES.index(f"{side}_eye")] / 255.0).float() for side in "lr"
    )
    for picture in (plain, mirrored):  # l_eye lies on the right side of the image, before and after
        columns = (picture == left[:, None, None]).all(0).any(0).nonzero().float().mean()
        others = (picture == right[:, None, None]).all(0).any(0).nonzero().float().mean()
        assert columns > others
    assert not torch.equal(plain, mirrored)
    scribbles = Conditions(dataset, "scribble")
    plain, mirrored = scribbles(torch.tensor([3, 3 + len(dataset)]))
    assert torch.equal(plain.flip(-1), mirrored) and set(plain.unique().tolist()) == {0.0, 1.0}


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
        controlled = recipe.controlled(recipe.controlnet, noisy, t, text, condition)
        moved = recipe.controlled(learnt, noisy, t, text, condition)
    torch.testing.assert_close(controlled, alone, atol=2e-2, rtol=2e-2)
    assert not torch.equal(moved, controlled)
    config = json.loads((folder / "controlnet" / "config.json").read_text())
    assert config["cross_attention_dim"] == 32
