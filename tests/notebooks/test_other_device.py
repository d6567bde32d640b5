"""The notebooks as on a machine with a GPU, on a device that stands in for it.

Not 11, which draws in a thread of its own, where the device does not reach, nor 10, which takes two
minutes so.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from tiny_device import OTHER, other_device

from dmgi_lib import DMGIPipeline
from dmgi_lib.training import trainer

FOLDER = Path(__file__).parents[2] / "notebooks"
FEW = {"train_samples": 8, "held_out": 2, "test_samples": 4, "batch_size": 4}
SMALL: dict[str, dict[str, Any]] = {
    "00": {"exit_steps": [0, 9], "grid_prompts": ["an old man"], "grid_masks": [11, 52]},
    "02": {"sample": 5, "probe_samples": 12, "shown_steps": [0, 5]},
    "03": {"test_samples": 4, "shown_steps": [0, 3]},
    "04": {"samples": 100, "mixing_pairs": 8, "inversion_steps": 3},
    "05": FEW | {"train_minutes": 0.02, "steps": [0]},
    "06": FEW | {"train_minutes": 0.02, "steps": [9]},
    "07": FEW | {"single_step_minutes": 0.01, "train_minutes": 0.02, "steps": [0, 9]},
    "08": {"yaws": [-20, 20], "mesh_resolution": 24},
    "09": {},
}


def _accelerator(device: Any) -> SimpleNamespace:
    """What accelerate gives a single process."""
    return SimpleNamespace(
        device=device,
        num_processes=1,
        process_index=0,
        is_main_process=True,
        prepare_model=lambda network: network,
        backward=lambda loss: loss.backward(),
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", SMALL)
def test_runs_on_a_gpu_where_there_is_one(number, monkeypatch):
    (path,) = FOLDER.glob(f"{number}_*.ipynb")
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    DMGIPipeline.from_pretrained("mini")  # libraries that it imports make tensors of their own
    monkeypatch.chdir(FOLDER)
    monkeypatch.setattr("dmgi_lib.devices.pick_device", lambda name="auto": OTHER)
    monkeypatch.setattr(trainer, "accelerator_for", _accelerator)
    names: dict[str, Any] = {"__name__": "__main__", "display": lambda *shown: None}
    with other_device():
        for cell in code:
            source = cell.source.replace("!git", "pass  #").replace("%pip", "pass  #")
            exec(compile(source, path.name, "exec"), names)
            if "parameters" in cell.metadata.get("tags", []):
                names |= SMALL[number]
            plt.close("all")
    on = names["G"].mean_latent if number == "04" else names["pipe"]
    assert on.device == OTHER
