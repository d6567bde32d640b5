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


def test_gan_latent_space_with_other_parameters(tmp_path):
    parameters = {"seed": 7, "truncation_psi": 0.6, "samples": 200, "mixing_pairs": 12}
    parameters |= {"faces": [31, 53], "inversion_steps": 60}
    numbers = run(FOLDER / "04_gan_latent_space.ipynb", tmp_path, parameters, progress=False)
    assert numbers["l1_W_plus"] < numbers["l1_W"] < numbers["l1_mean_face"]
    assert numbers["perceptual_W_plus"] < numbers["perceptual_mean_face"]
    assert numbers["l1_W_plus"] < numbers["l1_upside_down_W_plus"]
    assert numbers["variety_smallest_psi"] < numbers["variety_largest_psi"]
    assert numbers["layout_share_coarse"] > numbers["layout_share_fine"]
    assert 0 < numbers["noise_share"] < 1
    assert len(list(tmp_path.glob("04_gan_latent_space_*.png"))) >= 10
