"""Readings: statistics by hand, intervals, files of finished rows, and the goals made of them."""

import json
import math

import numpy as np
import pytest
import torch
from table_samples import reading

from dmgi_lib.evaluation.goals import Finding, found, mask_goals, scribble_goals
from dmgi_lib.evaluation.intervals import bootstrap_interval
from dmgi_lib.evaluation.reading import CAPTION, CLIP, COLUMNS, FID, MIOU, ahead, summary
from dmgi_lib.evaluation.row_files import SHOWN, RowFiles, shared_hash
from dmgi_lib.files import folder_hash


def test_bootstrap_interval_of_a_mean():
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    low, high = bootstrap_interval(lambda i: float(values[i].mean()), 400, np.random.default_rng(0))
    # ±1.96 · σ/√n = ±0.196 around the sample mean
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.12)
    again = bootstrap_interval(lambda i: float(values[i].mean()), 400, np.random.default_rng(0))
    assert (low, high) == again


def test_a_centred_interval_holds_the_value_of_a_statistic_that_repetition_biases():
    def distinct(rows: np.ndarray) -> float:  # repetition always lowers it: about 0.63
        return len(set(rows.tolist())) / 100

    plain = bootstrap_interval(distinct, 100, np.random.default_rng(0), resamples=200)
    centred = bootstrap_interval(
        distinct, 100, np.random.default_rng(0), resamples=200, centred=True
    )
    assert plain[1] < 0.8 < centred[0] < 1 < centred[1]
    assert centred[1] - centred[0] == pytest.approx(plain[1] - plain[0])


def test_columns_of_a_reading_by_hand():
    read = reading(right=0.8)
    assert read.value(MIOU) == pytest.approx(0.8 / 1.2)
    assert read.value("ACC") == pytest.approx(0.8)
    assert read.value("mIoU gap") == pytest.approx(read.value(MIOU) - read.value("mIoU shuffled"))
    assert read.value("SSIM", [1, 1, 2]) == pytest.approx(
        (2 * read.ssim[1] + read.ssim[2]).item() / 3
    )
    claims = torch.full_like(read.claims, -1)
    claims[0, :4] = torch.tensor([1, 1, 0, 0], dtype=torch.int8)
    seen = torch.zeros_like(read.attributes)
    seen[0, 0] = True
    assert reading(claims=claims, attributes=seen).value(CAPTION) == 0.75
    row = summary(read, seed=0, resamples=50)
    assert row["N"] == 6 and set(COLUMNS) <= set(row)
    for column in COLUMNS:
        assert row[f"{column} low"] <= row[f"{column} high"]
    bare = summary(read, seed=0, resamples=0)
    assert bare == {k: v for k, v in row.items() if not k.endswith((" low", " high"))}
    assert CLIP not in summary(reading(clip=torch.empty(0)), seed=0, resamples=0)


def test_ahead_knows_which_columns_are_better_low():
    near, far = reading(), reading()
    object.__setattr__(near, "embedding", near.reference)
    assert ahead(near, far, FID) > 0 > ahead(far, near, FID)
    good, bad = reading(right=0.9), reading(right=0.6)
    assert ahead(good, bad, MIOU) > 0 > ahead(bad, good, MIOU)
    assert ahead(good, bad, MIOU) == pytest.approx(0.9 / 1.1 - 0.6 / 1.4)


def test_first_samples_only():
    read = reading(6)
    assert len(read.first(2)) == 2
    assert read.first(2).value("SSIM") == read.value("SSIM", slice(2))


# --- files of rows -------------------------------------------------------------------------------


def test_a_row_is_made_once_and_comes_back_equal(tmp_path):
    files, made = RowFiles(tmp_path, weights="a", n=10), []
    pictures, read = torch.rand(10, 3, 128, 128) * 2 - 1, reading(10)

    def draw(part):
        made.append(1)
        return pictures[part]

    row = ("exit_0", "exit 0", draw, lambda images: read, 10)
    first = files.row(*row, condition="mask")
    again = RowFiles(tmp_path, n=10, weights="a").row(*row, condition="mask")
    assert made == [1] and len(first.pictures) == SHOWN
    assert torch.equal(first.pictures[0], ((pictures[0] + 1) * 127.5).round().to(torch.uint8))
    for name, value in vars(read).items():
        assert torch.equal(getattr(again.reading, name), value), name
    # anything else that it is made from makes another file
    files.row(*row, condition="scribble")
    RowFiles(tmp_path, weights="b", n=10).row(*row, condition="mask")
    assert made == [1] * 3 and len(list(tmp_path.iterdir())) == 3


def test_a_killed_row_goes_on_after_its_last_part(tmp_path):
    pictures, asked = torch.rand(5, 3, 128, 128) * 2 - 1, []

    def draw(part):
        asked.append((part.start, part.stop))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return pictures[part]

    def read(images):
        assert torch.equal(images, pictures)  # parts come back bitwise
        return reading(5)

    row = ("exit_0", "exit 0", draw, read, 5, 2)
    with pytest.raises(KeyboardInterrupt):
        RowFiles(tmp_path).row(*row)
    assert len(list(tmp_path.iterdir())) == 2
    RowFiles(tmp_path).row(*row)
    assert asked == [(0, 2), (2, 4), (4, 5), (4, 5)]
    assert len(list(tmp_path.iterdir())) == 1  # parts go when the row is there


def test_numbers_are_kept_too_and_a_failure_leaves_nothing(tmp_path):
    files = RowFiles(tmp_path / "deep", weights="a")
    assert files.numbers("seconds", lambda: {"exit_0": 0.5}) == {"exit_0": 0.5}
    assert files.numbers("seconds", lambda: pytest.fail("made again")) == {"exit_0": 0.5}

    def broken(part):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        files.row("exit_0", "exit 0", broken, lambda images: reading(4), 4)
    assert len(list((tmp_path / "deep").iterdir())) == 1


def test_the_hash_of_a_folder_sees_weights_and_configs(tmp_path):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet/model.safetensors").write_bytes(b"1")
    (tmp_path / "model_index.json").write_text("{}")
    hashes = [folder_hash(tmp_path)]
    (tmp_path / "unet/card.md").write_text("a card changes no picture")
    assert folder_hash(tmp_path) == hashes[0]
    (tmp_path / "unet/model.safetensors").write_bytes(b"2")
    hashes.append(folder_hash(tmp_path))
    (tmp_path / "model_index.json").write_text(json.dumps({"guidance_scale": 3}))
    hashes.append(folder_hash(tmp_path))
    assert len(set(hashes)) == 3
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge/model.safetensors").write_bytes(b"3")
    assert folder_hash(tmp_path, without={"judge"}) == hashes[-1] != folder_hash(tmp_path)


def test_networks_of_one_kind_of_x_leave_the_rows_of_others_alone(tmp_path):
    for part in ("unet", "mapping_network_scribble", "mask_encoder"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "model.safetensors").write_bytes(b"1")
    before = shared_hash(tmp_path)
    for part in ("mapping_network_scribble", "mask_encoder"):
        (tmp_path / part / "model.safetensors").write_bytes(b"2")
    (tmp_path / "model_index.json").write_text("{}")  # defaults of a call: rows name their own
    assert shared_hash(tmp_path) == before
    (tmp_path / "unet/model.safetensors").write_bytes(b"2")
    assert shared_hash(tmp_path) != before


# --- goals ---------------------------------------------------------------------------------------


def test_a_finding_is_reached_missed_or_not_measured():
    assert Finding("a", 0.85, 0.85).line() == "a: 0.85 >= 0.85 reached"
    assert Finding("a", 0.84, 0.85, low=0.8, high=0.88).line().endswith(">= 0.85 MISSED")
    assert "[0.8, 0.88]" in Finding("a", 0.84, 0.85, low=0.8, high=0.88).line()
    assert Finding("a", 0.04, 0.03, "<=").verdict == "MISSED"
    assert Finding("a", 0.0, 0.0, ">").verdict == "MISSED"  # a tie is not ahead
    for value in (None, math.nan):
        lost = Finding("a", value, 0.0, ">", reason="no such row")
        assert not lost.met and lost.line() == "a > 0: NOT MEASURED (no such row)"
    assert Finding("a", 1.5).line() == "a: 1.5" and Finding("a", 1.5).met


def test_a_paired_interval_does_not_see_what_both_rows_share():
    shared = torch.randn(200, generator=torch.Generator().manual_seed(0))
    difference = found(
        "d", lambda i: (shared[i] + 0.1).mean().item() - shared[i].mean().item(), 200,
        np.random.default_rng(0),
    )  # fmt: skip
    assert difference.value == pytest.approx(0.1, abs=1e-6)
    assert difference.high - difference.low < 1e-5


def readings(**options):
    ours = {"right": 0.9, "seed": 1} | options
    rows = {key: reading(8, 0.5, seed=2) for key in ("controlnet", "encoder", "encoder_text")}
    rows |= {"ground_truth": reading(8, 1.0), "inversion": reading(4, 1.0)}
    return rows | {"exit_0": reading(8, **ours), "exit_9": reading(8, **ours)}


def verdicts(goals):
    return {goal.name: goal.verdict for goal in goals}


def test_goals_follow_from_the_readings():
    seconds = {"exit_0": 0.05, "controlnet": 1.2}
    goals = mask_goals(readings(), "exit_0", "exit_9", seconds, seed=0)
    said = verdicts(goals)
    share = next(g for g in goals if g.name.startswith("mIoU as a share"))
    assert share.value == pytest.approx(0.9 / 1.1) and said[share.name] == "MISSED"
    assert said["caption attributes as a share of ground truth's (N = 8)"] == "reached"
    assert said["DMGI ahead of the mask encoder in mIoU by"] == "reached"
    assert said["exit step 0, times faster than ControlNet alone"] == "reached"
    assert said["exit step 0 ahead of ControlNet alone in mIoU by"] == "reached"
    weak = mask_goals(readings(right=0.3), "exit_0", "exit_9", seconds | {"exit_0": 0.1}, seed=0)
    said = verdicts(weak)
    assert said["caption attributes as a share of ground truth's (N = 8)"] == "MISSED"
    for name in ("DMGI ahead of the mask encoder in mIoU by", "exit step 0, times faster than"):
        assert next(v for k, v in said.items() if k.startswith(name)) == "MISSED"


def test_a_ceiling_of_fewer_samples_is_compared_on_those():
    rows = readings()
    worse = reading(8, 0.2)
    rows["exit_9"].own[4:] = worse.own[4:]  # those that were not inverted
    goals = mask_goals(rows, "exit_0", "exit_9", {"exit_0": 1.0, "controlnet": 1.0}, seed=0)
    share = next(g for g in goals if g.name.startswith("mIoU as a share"))
    assert share.value == pytest.approx(0.9 / 1.1)


def test_goals_of_missing_rows_are_said_to_be_not_measured():
    rows = readings()
    del rows["encoder"], rows["inversion"]
    goals = mask_goals(rows, "exit_0", "exit_9", {"exit_0": 1.0, "controlnet": 1.0}, seed=0)
    lost = [goal.name for goal in goals if goal.verdict == "NOT MEASURED (no such row)"]
    assert len(lost) == 9 and sum("the mask encoder in" in name for name in lost) == 8


def test_scribbles_are_asked_for_four_columns():
    goals = scribble_goals(readings(), "exit_9", seed=0)
    asked = [goal.name.split(" in ")[1].split(" by")[0] for goal in goals]
    assert asked == [*COLUMNS[:4]]
