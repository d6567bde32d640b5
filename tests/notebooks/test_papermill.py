"""The notebooks with other parameters than the committed ones."""

from __future__ import annotations

from pathlib import Path

from dmgi_lib.notebook_runner import run

FOLDER = Path(__file__).parents[2] / "notebooks"


def test_face_world_with_other_parameters(tmp_path):
    parameters = {"seed": 1000011, "samples_per_pixel": 2, "yaws": [10], "gallery_rows": 1}
    numbers = run(FOLDER / "01_face_world.ipynb", tmp_path, parameters, progress=False)
    assert numbers["classes_in_mask"] >= 8
    assert numbers["captions"] >= 5
    assert numbers["samples"] >= 300
    assert numbers["rarest_class_share"] > 0
    assert len(list(tmp_path.glob("01_face_world_*.png"))) >= 9
