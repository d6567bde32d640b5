"""The notebooks with other parameters than the committed ones."""

from __future__ import annotations

import csv
from pathlib import Path

from dmgi_lib.notebook_runner import run

FOLDER = Path(__file__).parents[2] / "notebooks"


def test_quickstart_with_other_parameters(tmp_path):
    parameters = {
        "prompt": "an elderly man with gray hair",
        "mask": "000011",
        "words": ["gray"],
        "exit_step": 2,
        "seed": 5,
        "grid_masks": ["000002"],
        "grid_prompts": ["a woman with black hair", "a man with red hair"],
    }
    numbers = run(FOLDER / "00_quickstart.ipynb", tmp_path, parameters, progress=False)
    assert numbers["seconds_to_load"] < 10
    assert numbers["seconds_exit_step_0"] < 1
    assert numbers["speedup"] > 3
    assert len(list(tmp_path.glob("00_quickstart_*.png"))) >= 6
    (row,) = csv.DictReader((tmp_path / "00_quickstart.csv").open())
    assert row["mask"] == "000011" and float(row["speedup"]) == numbers["speedup"]


def test_face_world_with_other_parameters(tmp_path):
    parameters = {"seed": 1000011, "samples_per_pixel": 2, "yaws": [10], "gallery_rows": 1}
    numbers = run(FOLDER / "01_face_world.ipynb", tmp_path, parameters, progress=False)
    assert numbers["classes_in_mask"] >= 8
    assert numbers["captions"] >= 5
    assert numbers["samples"] >= 300
    assert numbers["rarest_class_share"] > 0
    assert len(list(tmp_path.glob("01_face_world_*.png"))) >= 9
