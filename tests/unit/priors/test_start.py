"""Training from existing weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from data_prep.priors.start import FILE, start_from


def network(width: int = 3) -> torch.nn.Module:
    torch.manual_seed(width)
    return torch.nn.Linear(2, width)


def test_weights_are_copied_as_float(tmp_path):
    wanted, model = network(), torch.nn.Linear(2, 3)
    save_file({k: v.half() for k, v in wanted.state_dict().items()}, tmp_path / FILE)
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
    (tmp_path / FILE).write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match="leave --start away"):
        start_from(network(), tmp_path)
    save_file(network(4).state_dict(), tmp_path / FILE)
    with pytest.raises(ValueError, match="same architecture"):
        start_from(network(), tmp_path)
