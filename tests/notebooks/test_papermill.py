"""The notebooks with other parameters than the committed ones."""

from __future__ import annotations

from pathlib import Path

from dmgi_lib.notebook_runner import run

FOLDER = Path(__file__).parents[2] / "notebooks"


def test_quickstart_with_other_parameters(tmp_path):
    parameters = {
        "prompt": "a man with black hair and a beard",
        "words": ["beard"],
        "mask": 7,
        "seed": 5,
        "exit_steps": [0, 9],
        "grid_prompts": ["a woman with blond hair", "an old man"],
        "grid_masks": [11, 52],
    }
    numbers = run(FOLDER / "00_quickstart.ipynb", tmp_path, parameters, progress=False)
    assert numbers["seconds_loading"] < 10
    assert numbers["full_process_over_exit_step_0"] > 3
    own, other = (numbers[f"pixels_that_follow_{which}_mask"] for which in ("their", "another"))
    assert own > other + 0.05
    assert own > 0.5
    assert numbers["hair_brightness_blond_over_black"] > 1.1
    assert len(list(tmp_path.glob("00_quickstart_*.png"))) >= 6


def test_face_world_with_other_parameters(tmp_path):
    parameters = {"seed": 1000011, "samples_per_pixel": 2, "yaws": [10], "gallery_rows": 1}
    numbers = run(FOLDER / "01_face_world.ipynb", tmp_path, parameters, progress=False)
    assert numbers["classes_in_mask"] >= 8
    assert numbers["captions"] >= 5
    assert numbers["samples"] >= 300
    assert numbers["rarest_class_share"] > 0
    assert len(list(tmp_path.glob("01_face_world_*.png"))) >= 9
