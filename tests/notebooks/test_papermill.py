"""The notebooks with other parameters than the committed ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from dmgi_lib.notebook_runner import run
from dmgi_lib.presets import MINI_3D

FOLDER = Path(__file__).parents[2] / "notebooks"
SMALL = {"train_samples": 20, "held_out": 4, "test_samples": 6, "seed": 1}
SMALL |= {"batch_size": 4, "learning_rate": 2e-3}


def executed(name: str, out: Path, parameters: dict) -> dict[str, float]:
    return run(FOLDER / f"{name}.ipynb", out, parameters, progress=False)


def test_quickstart_with_other_parameters(tmp_path):
    parameters = {
        "prompt": "a man with black hair and a beard",
        "words": ["beard"],
        "mask": 197,
        "seed": 5,
        "exit_steps": [0, 9],
        "grid_prompts": ["a woman with blond hair", "an old man"],
        "grid_masks": [11, 52],
    }
    numbers = run(FOLDER / "00_quickstart.ipynb", tmp_path, parameters, progress=False)
    assert numbers["full_process_over_exit_step_0"] > 3
    own, other = (numbers[f"pixels_that_follow_{which}_mask"] for which in ("their", "another"))
    assert own > other + 0.05
    assert own > 0.5
    assert numbers["hair_brightness_blond_over_black"] > 1.1
    assert len(list(tmp_path.glob("00_quickstart_*.png"))) >= 6


def test_face_world_with_other_parameters(tmp_path):
    parameters = {"seed": 1000011, "samples_per_pixel": 2, "yaws": [10], "gallery_rows": 1}
    numbers = executed("01_face_world", tmp_path, parameters)
    assert numbers["classes_in_mask"] >= 8
    assert numbers["captions"] >= 5
    assert numbers["samples"] >= 300
    assert numbers["rarest_class_share"] > 0
    assert len(list(tmp_path.glob("01_face_world_*.png"))) >= 9


def test_gan_latent_space_with_other_parameters(tmp_path):
    parameters = {"seed": 7, "truncation_psi": 0.6, "samples": 120, "mixing_pairs": 8}
    parameters |= {"faces": [31, 53], "inversion_steps": 30}
    numbers = executed("04_gan_latent_space", tmp_path, parameters)
    assert numbers["l1_W_plus"] < numbers["l1_W"] < numbers["l1_centre"]
    assert numbers["perceptual_W_plus"] < numbers["perceptual_centre"]
    assert numbers["l1_upright_W_plus"] < numbers["l1_upside_down_W_plus"]
    assert numbers["variety_smallest_psi"] < numbers["variety_largest_psi"]
    assert numbers["layout_share_coarse"] > numbers["layout_share_fine"]
    assert 0 < numbers["noise_share"] < 1
    assert len(list(tmp_path.glob("04_gan_latent_space_*.png"))) >= 10


def test_diffusion_encoder_with_other_parameters(tmp_path):
    parameters = {"sample": 5, "seed": 3, "probe_samples": 20, "shown_steps": [0, 5]}
    numbers = executed("02_diffusion_encoder", tmp_path, parameters)
    assert numbers["signal_left_at_T"] < 1e-3
    assert numbers["middle_block_change_at_T"] < 1e-4 < 1e-3 < numbers["h_change_at_T"]
    assert numbers["difference_without_controlnet"] < 1e-4
    assert numbers["difference_with_controlnet"] > 0.01
    assert numbers["cell_class_last_step"] > 0.5
    assert numbers["background_last_step_leaking"] > numbers["background_last_step"]


def test_attention_maps_with_other_parameters(tmp_path):
    parameters = {
        "prompt": "a photo of a man with black hair and thick brows",
        "test_samples": 8,
        "sample": 1,
        "shown_steps": [0, 3],
    }
    numbers = executed("03_attention_maps", tmp_path, parameters)
    assert 0 < numbers["attention_on_words"] < 1
    assert numbers["hair_iou_blind"] < numbers["hair_iou_position_prior"] < 1
    assert numbers["hair_iou_best"] > numbers["hair_iou_blind"]
    assert numbers["hair_iou_best_head"] >= numbers["hair_iou_worst_head_at_its_best"]
    assert "iou_of_brows" in numbers and "iou_of_black_hair" in numbers


def test_mapping_network_with_other_parameters(tmp_path):
    parameters = SMALL | {"train_minutes": 0.25, "steps": [0], "latent": "w"}
    parameters |= {"parsing_weight": 0, "attribute_weight": 0}
    numbers = executed("05_mapping_network", tmp_path, parameters)
    assert numbers["cached_samples"] == 24  # and those held out
    assert numbers["spread_before_training"] < 1e-2
    assert numbers["training_steps"] > 0
    assert numbers["unseen_perceptual_after"] < numbers["unseen_perceptual_before"]
    assert numbers["mIoU_shipped_step_9"] > numbers["mIoU_centre_face"]


def test_style_modulation_with_other_parameters(tmp_path):
    parameters = SMALL | {
        "train_minutes": 0.1,
        "steps": [9],
        "paths": "local",
        "pool": "heads_and_tokens",
        "words": ["brown", "gray"],
    }
    numbers = executed("06_style_modulation", tmp_path, parameters)
    assert numbers["distance_from_identity_before"] == 0
    assert numbers["training_steps"] > 0
    assert numbers["gamma_rms_shipped"] > 1e-3 and numbers["beta_rms_shipped"] > 1e-3
    assert numbers["word_moves_M"] > 0 and numbers["word_moves_gamma"] > 0
    assert numbers["spread_in_hair"] > numbers["spread_elsewhere"]
    assert numbers["last_row_shift"] > 3 * numbers["last_row_spread"]  # nearly alike for all


def test_multi_step_training_with_other_parameters(tmp_path):
    parameters = SMALL | {
        "single_step_minutes": 0.05,
        "train_minutes": 0.1,
        "steps": [0, 9],
        "schedule": "uniform",
        "words": ["red", "gray"],
    }
    numbers = executed("07_multi_step_training", tmp_path, parameters)
    first, last = (numbers[f"mIoU_shipped_step_{step}"] for step in (0, 9))
    assert 0 < first <= 1 and 0 < last <= 1
    assert numbers["unseen_perceptual_first_step_multi"] > 0
    assert numbers["speed_up_of_step_0"] > 3
    assert 0 <= numbers["hair_as_asked_last_step"] <= 1


@pytest.mark.skipif(not MINI_3D.folder.is_dir(), reason="the weights of mini-3d are not there")
def test_three_dimensions_with_other_parameters(tmp_path):
    parameters = {"prompt": "a man with black hair and a beard", "other": "a woman with red hair"}
    parameters |= {"masks": [116, 52], "yaws": [-30, 0, 30], "mesh_resolution": 40, "seed": 2}
    numbers = executed("08_three_dimensions", tmp_path, parameters)
    assert numbers["call_over_another_view"] > 2
    assert numbers["depth_error_12_12"] < numbers["depth_error_12_0"]
    assert numbers["stopped_at_the_edge"] < numbers["stopped_at_the_face"] <= 1.001
    assert numbers["depth_spread_XY"] < numbers["depth_spread_all"]
    assert 0.1 < numbers["depth_of_the_head"] < 1
    assert numbers["agree_at_15"] > 0.9
    assert 0.3 < numbers["seen_at_40"] < 0.95
    for which in ("2D", "3D"):
        assert numbers[f"pixels_that_follow_the_mask_{which}"] > 0.6
    assert 40 < numbers["read_range_3D"] < 80  # 60 were asked for
    assert numbers["mesh_open_edges"] < 0.05
    assert numbers["warnings_beyond_the_range"] > 0
    assert len(list(tmp_path.glob("08_three_dimensions_*.png"))) >= 17


def test_stylised_faces_with_other_parameters(tmp_path):
    parameters = {"prompt": "a man with a beard", "masks": [116, 52], "seed": 2}
    numbers = executed("09_stylised_faces", tmp_path, parameters | {"mixture": ["oil", "pencil"]})
    assert numbers["call_over_another_style"] > 5
    assert numbers["layout_kept_worst"] > 0.7
    assert numbers["code_moved_by_the_words"] < 1e-3
    assert len(list(tmp_path.glob("09_stylised_faces_*.png"))) == 7


def test_solutions_run_with_other_parameters(tmp_path):
    numbers = executed("solutions", tmp_path, {"samples": 12, "seed": 2})
    assert numbers["guidance_changes_h_at_step_0"] < 1e-4 < numbers["guidance_changes_h_at_step_1"]
    assert abs(numbers["effect_at_0"]) < 1e-4
    assert numbers["interval_shrinks_by"] > 1


def test_studio_with_other_parameters(tmp_path):
    parameters = {"prompt": "an old man with gray hair", "mask": 52, "seed": 3, "exit_step": 7}
    numbers = executed(
        "11_studio", tmp_path, parameters | {"drawings": ["bald"], "second": "glasses"}
    )
    assert numbers["full_over_preview"] > 2
    assert numbers["change_in_the_stroke"] > 1.5 * numbers["change_elsewhere"]
    assert min(numbers[f"pixels_that_follow_exit_{step}"] for step in (0, 7)) > 0.6
    assert numbers["change_by_fine_rows"] < numbers["change_by_middle_rows"] / 3
    assert len(list(tmp_path.glob("11_studio_*.png"))) == 7


def test_evaluation_with_other_parameters(tmp_path):
    parameters = {"condition": "scribble", "test_samples": 8, "controlnet_steps": 3, "seed": 1}
    parameters |= {"inversion_samples": 4, "inversion_steps": 10, "text_steps": 2}
    numbers = executed("10_evaluation", tmp_path, parameters)
    assert numbers["attribute_judge_balanced_accuracy"] > 0.75
    assert numbers["live_mIoU_exit_9"] > numbers["live_mIoU_random"] + 0.1
    assert numbers["live_interval_of_mIoU"] > 0
    assert 0 < numbers["goals_reached"] <= numbers["goals_asked"]
    assert numbers["ACC_worst"] <= numbers["ACC_median"]
    assert len(list(tmp_path.glob("10_evaluation_*.png"))) >= 10
