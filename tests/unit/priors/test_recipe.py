"""Starting weights, frozen networks, and that every recipe computes where it is told to."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import save_file
from tiny_device import other_device
from tiny_priors import SMALL
from tiny_views import with_views

from data_prep.priors.recipe import (
    WEIGHT_FILE,
    Folders,
    frozen,
    picture_grid,
    placed,
    region,
    start_from,
)
from data_prep.priors.trainer import NETWORKS
from dmgi_lib.masks import CLASSES
from dmgi_lib.recognizers import Recognizer
from dmgi_lib.training.loop import LoopResult

PICTURED = ("stylegan2", "eg3d", "autoencoder", "unet", "controlnet", "mask_encoder")
PICTURED += ("style_offsets",)
STEPS = {"stylegan2": (0, 2)}  # one of each phase


def network(width: int = 3) -> torch.nn.Module:
    torch.manual_seed(width)
    return torch.nn.Linear(2, width)


def test_weights_are_copied_as_float(tmp_path):
    wanted, model = network(), torch.nn.Linear(2, 3)
    save_file({k: v.half() for k, v in wanted.state_dict().items()}, tmp_path / WEIGHT_FILE)
    start_from(model, tmp_path)
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, wanted.state_dict()[name].half().float())


def test_no_folder_leaves_the_weights():
    model, before = network(), network().state_dict()
    start_from(model, None)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_missing_damaged_and_foreign_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="--start takes a weight folder"):
        start_from(network(), tmp_path)
    (tmp_path / WEIGHT_FILE).write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match="leave --start away"):
        start_from(network(), tmp_path)
    save_file(network(4).state_dict(), tmp_path / WEIGHT_FILE)
    with pytest.raises(ValueError, match="same architecture"):
        start_from(network(), tmp_path)


def test_frozen_networks_stay_as_they_are_and_missing_ones_are_named(weights_of_loss_net):
    folder, cpu = weights_of_loss_net / "loss_net", torch.device("cpu")
    network = frozen(Recognizer, folder, "loss_net", cpu)
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    with pytest.raises(FileNotFoundError, match="data_prep.priors.trainer loss_net"):
        frozen(Recognizer, folder.parent / "absent", "loss_net", cpu)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_tricks_for_cpus_stay_on_cpus(device):
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 8), norm_num_groups=4, attention_head_dim=2,
        cross_attention_dim=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), layers_per_block=1,
    )  # fmt: skip
    model = placed(unet, torch.device(device))
    on_cpu = device == "cpu"
    assert {p.device.type for p in model.parameters()} == {device}
    plain = {type(p) is AttnProcessor for p in model.attn_processors.values()}
    assert plain == {on_cpu}
    weight = model.down_blocks[0].resnets[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == on_cpu


@pytest.mark.parametrize("name", NETWORKS)
def test_everything_is_computed_on_the_device(name, tiny_faces, trained, tmp_path):
    more = name in ("eg3d", "style_offsets")
    faces = with_views(tiny_faces, tmp_path / "faces") if more else tiny_faces
    folders = Folders(faces, trained, out=tmp_path, run_dir=tmp_path / "run")
    with other_device() as device:
        recipe = NETWORKS[name][0](SMALL[name], folders, device, accelerator=Accelerator(cpu=True))
        assert {p.device for m in recipe.modules.values() for p in m.parameters()} == {device}
        for step in STEPS.get(name, (0,)):
            assert recipe.step(step, torch.Generator().manual_seed(0))
        networks = {k: recipe.modules[k].eval().requires_grad_(False) for k in recipe.averaged}
        if name in PICTURED:
            assert recipe.sample(1, networks).dtype == "uint8"
        shipped = []
        result = LoopResult(1, 1.0, networks, {}, tmp_path / "log.csv")
        recipe.export(result, lambda folder, *facts: shipped.append((folder.name, facts[-1])))
    assert shipped and all(measured for _, measured in shipped)


def test_region_reaches_its_margin():
    mask = torch.zeros(1, 9, 9, dtype=torch.uint8)
    mask[0, 4, 4] = CLASSES.index("l_eye")
    found = region(mask, ("l_eye",), margin=2)[0, 0]
    assert found.sum() == 25 and found[2, 2] == 1 and found[1, 4] == 0


def test_picture_grid_places_rows_and_columns():
    rows = [torch.full((3, 3, 2, 2), 10 * r, dtype=torch.uint8) for r in range(2)]
    rows[1][2] = 99
    grid = picture_grid(rows)
    assert grid.shape == (4, 6, 3) and grid.dtype == np.uint8
    assert grid[0, 0, 0] == 0 and grid[3, 0, 0] == 10 and grid[3, 5, 2] == 99
