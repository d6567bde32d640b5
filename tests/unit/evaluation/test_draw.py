"""Pictures: noise of each, their size, and what a killed run finds on disk."""

import pytest
import tiny_models
import torch
from tiny_devices import fake_cuda, on_cuda
from tiny_evaluation import ground_truth

from dmgi_lib.evaluation.draw import Row, draw, draw_to_disk, judged_size, place, random_faces


def test_noise_of_an_image_does_not_depend_on_the_batch_size():
    pipe, truth = tiny_models.pipeline(), ground_truth(3)
    prompts = ["a man with red hair", "a woman with black hair", "a young man"]
    one, _ = draw(pipe, prompts, truth.masks, 0, seed=5, batch_size=1)
    many, early = draw(pipe, prompts, truth.masks, 0, seed=5, batch_size=2)
    torch.testing.assert_close(one, many, atol=2e-3, rtol=0)
    other, complete = draw(pipe, prompts, truth.masks, -1, seed=5, batch_size=2)
    assert early is None and complete.shape == other.shape == (3, 3, 128, 128)


def test_judged_size_averages_larger_pictures_and_clamps():
    halves = torch.full((1, 3, 256, 256), 0.5, dtype=torch.bfloat16)
    halves[..., 128:] = 2.0
    small = judged_size(halves)
    assert small.shape == (1, 3, 128, 128) and small.dtype == torch.float32
    assert small[0, 0, 5, 10] == 0.5 and small[0, 0, 5, 120] == 1.0


def test_random_faces_are_drawn_from_one_noise_in_parts():
    pipe = tiny_models.pipeline()
    whole = random_faces(pipe, 3, seed=1)
    part = random_faces(pipe, 3, 1, slice(1, 3))
    torch.testing.assert_close(part, whole[1:], atol=1e-5, rtol=0)


def test_random_faces_on_a_gpu_come_back_to_the_cpu():
    pipe = tiny_models.pipeline()
    with fake_cuda():
        on_cuda(pipe.generator)
        faces = random_faces(pipe, 3, seed=1)
    assert faces.device.type == "cpu" and faces.shape == (3, 3, 128, 128)


def test_other_facts_are_kept_elsewhere(tmp_path):
    path = place(tmp_path, "exit_0", {"n": 2, "weights": "a"})
    assert path == place(tmp_path, "exit_0", {"weights": "a", "n": 2})
    assert path.parent == tmp_path and path.name.startswith("exit_0-")
    assert path != place(tmp_path, "exit_0", {"weights": "b", "n": 2})


def test_a_killed_row_goes_on_after_its_last_part(tmp_path):
    pictures, asked = torch.rand(5, 3, 128, 128) * 2 - 1, []

    def draw(part):
        asked.append((part.start, part.stop))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return pictures[part]

    row = Row("exit_0", "exit 0", draw, {}, ground_truth(5))
    with pytest.raises(KeyboardInterrupt):
        draw_to_disk(row, tmp_path / "exit_0", at_once=2)
    assert len(list((tmp_path / "exit_0").iterdir())) == 2
    found, minutes = draw_to_disk(row, tmp_path / "exit_0", at_once=2)
    assert torch.equal(found, pictures) and minutes >= 0  # parts come back bitwise
    draw_to_disk(row, tmp_path / "exit_0", at_once=2)
    assert asked == [(0, 2), (2, 4), (4, 5), (4, 5)]
