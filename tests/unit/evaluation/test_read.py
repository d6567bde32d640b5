"""Readings: what the judges see of a row, columns by hand, and files of finished rows."""

import os

import pandas as pd
import pytest
import torch
from tiny_devices import fake_cuda, on_cuda
from tiny_evaluation import ground_truth, reading, samples, tiny_clip, tiny_judges
from tiny_models import pipeline

from dmgi_lib import recognizers
from dmgi_lib.dataset import ATTRIBUTES, FACE_ATTRIBUTES
from dmgi_lib.evaluation.draw import Row
from dmgi_lib.evaluation.read import CAPTION, MIOU, SHOWN, Reading, finish, read, seen


class Oracle(recognizers.ParserJudge):
    """Parser that knows the masks: it finds an image's number in its first pixel."""

    def __init__(self, masks):
        super().__init__(channels=(4, 4, 4, 4))
        self.masks = masks

    def parse(self, image):
        return self.masks[image[:, 0, 0, 0].round().long()].long()

    def features(self, image):
        return [image]

    def embedding(self, image):
        return image[:, :, 2, :2].flatten(1)


def test_a_row_separates_the_own_mask_from_the_masks_of_others():
    truth, judged = ground_truth(4), tiny_judges()
    truth.images[:, 0, 0, 0] = torch.arange(4).float()
    judged = recognizers.Judges(Oracle(truth.masks), judged.attributes, judged.identity)
    found = read(truth.images, truth, judged)
    assert found.value(MIOU) == found.value("ACC") == 1.0
    assert found.value("SSIM") == pytest.approx(1)
    assert found.value("identity cosine (shape judge)") > 0.999
    assert found.value("perceptual distance (parser features)") == pytest.approx(0, abs=1e-6)
    assert found.value("FID (parser features)") == pytest.approx(0, abs=1e-4)


def test_the_table_of_samples_has_a_row_a_sample():
    truth, pipe = samples(3), pipeline()
    found = read(truth.images, truth, tiny_judges(), tiny_clip(pipe), pipe.tokenizer)
    table = found.samples
    assert list(table["sample"]) == ["000000", "000001", "000002"]
    numbers = table[["ssim", "perceptual", "identity", "clip", "edges"]]
    assert numbers.shape == (3, 5) and numbers.notna().all(axis=None)
    assert found["sees"].shape == (3, len(ATTRIBUTES)) and found["sees"].dtype == torch.bool
    assert found["own"].shape == (3, 361) and found["own"].sum() == 3 * 128**2
    for k, name in enumerate(ATTRIBUTES):
        true = truth.attributes[:, k].tolist() if name in FACE_ATTRIBUTES else [-1] * 3
        assert list(table[f"is {name}"]) == true  # the judge reads no other
    assert list(table["says Young"]) == [1, 0, -1]  # young, old, smiling
    assert torch.equal(found["says"][:, ATTRIBUTES.index("Smiling")], torch.tensor([-1, -1, 1]))
    without = read(truth.images, truth, tiny_judges())
    assert "clip" not in without.samples


def test_pictures_and_samples_come_in_equal_number():
    truth = samples(3)
    with pytest.raises(ValueError, match="2 pictures came for 3 samples"):
        read(truth.images[:2], truth, tiny_judges())


def test_judges_on_a_gpu_see_pictures_from_the_cpu():
    truth, judged = samples(3), tiny_judges()
    pictures = (truth.images, truth.images.flip(0), truth.masks)
    expected = seen(*pictures, judged)
    with fake_cuda():
        for part in (judged.parser, judged.attributes, judged.identity):
            on_cuda(part)
        found = seen(*pictures, judged)
    for name, value in expected.items():
        assert found[name].device.type == "cpu", name
        assert (found[name].shape, found[name].dtype) == (value.shape, value.dtype), name


def test_columns_of_a_reading_by_hand():
    found = reading(right=0.8)
    assert found.value(MIOU) == pytest.approx(0.8 / 1.2)
    assert found.value("ACC") == pytest.approx(0.8)
    ssim = found.samples["ssim"]
    assert found.value("SSIM", [1, 1, 2]) == pytest.approx((2 * ssim[1] + ssim[2]) / 3)
    walls = found["background"][[0, 2]]
    apart = (walls[0] - walls[1]).abs().mean().item() / 2**0.5  # of two, the standard deviation
    assert found.value("deviation of background colour", [0, 2]) == pytest.approx(apart)
    claims = torch.full_like(found["says"], -1)
    claims[0, :4] = torch.tensor([1, 1, 0, 0], dtype=torch.int8)
    seen = torch.zeros_like(found["sees"])
    seen[0, 0] = True
    assert reading(says=claims, sees=seen).value(CAPTION) == 0.75


def test_first_samples_only():
    found = reading(6)
    assert len(found.first(2)) == len(found.first(2).samples) == 2
    assert found.first(2).value("SSIM") == found.value("SSIM", slice(2))


def test_a_row_is_made_once_and_comes_back_equal(tmp_path):
    made, pictures, seen = [], torch.rand(10, 3, 128, 128) * 2 - 1, reading(10)

    def draw(part):
        made.append("drawn")
        return pictures[part]

    def judged(images, truth):
        assert torch.equal(images, pictures) and truth is row.against
        made.append("read")
        return seen

    row = Row("exit_0", "exit 0", draw, {}, ground_truth(10))
    first = finish(row, tmp_path / "a", judged)
    again = finish(row, tmp_path / "a", judged)
    assert made == ["drawn", "read"] and first.name == again.name == "exit 0"
    assert again.pictures.shape == (SHOWN, 3, 128, 128)
    assert torch.equal(again.pictures[0], ((pictures[0] + 1) * 127.5).round().to(torch.uint8))
    assert again.reading.samples.equals(seen.samples) and first.minutes == again.minutes
    assert len(pd.read_parquet(tmp_path / "a.samples.parquet")) == 10
    finish(row, tmp_path / "b", judged)
    assert made == ["drawn", "read"] * 2


def test_a_run_killed_while_reading_keeps_its_pictures(tmp_path):
    drawn, row = [], None

    def draw(part):
        drawn.append(part)
        return torch.zeros(4, 3, 128, 128)[part]

    def killed(images, truth):
        raise KeyboardInterrupt

    row = Row("exit_0", "exit 0", draw, {}, ground_truth(4))
    with pytest.raises(KeyboardInterrupt):
        finish(row, tmp_path / "a", killed, at_once=2)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    half = (
        tmp_path / ".123-abc.a.samples.parquet"
    )  # of a run that was killed while writing, long ago
    half.write_bytes(b"PAR1")
    os.utime(half, (0, 0))
    found = finish(row, tmp_path / "a", lambda images, truth: reading(4), at_once=2)
    assert isinstance(found.reading, Reading) and len(drawn) == 2 and not half.exists()
