"""Findings: verdicts, what Table 1 has to show, and what exchanged captions and masks change."""

import math

import numpy as np
import pytest
import torch
from tiny_evaluation import reading

from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.evaluation.goals import (
    FREE_OF_MASKS,
    Finding,
    found,
    mask_goals,
    scribble_goals,
    swap_findings,
)
from dmgi_lib.evaluation.read import COLUMNS


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


def by_name(found, start):
    return next(finding for finding in found if finding.name.startswith(start))


def test_numbers_by_hand():
    n, count = 4, len(ATTRIBUTES)
    truth, asked = (torch.zeros(n, count, dtype=torch.int8) for _ in range(2))
    blond, hat = ATTRIBUTES.index("Blond_Hair"), ATTRIBUTES.index("Wearing_Hat")
    asked[:] = -1
    asked[:, blond], asked[:, hat] = 1, 0  # the new caption changes the hair, not the hat
    seen = torch.zeros(n, count, dtype=torch.bool)
    blonde = seen.clone()
    blonde[:3, blond] = True  # three of four came out blond
    own_claims = torch.full_like(asked, -1)
    own_claims[:, blond], own_claims[:, hat] = 0, 0
    hatted = seen.clone()
    hatted[:2, hat] = True  # the other mask brought two hats
    same = {"known": truth}
    own = reading(n, 0.9, attributes=seen, claims=own_claims, **same)
    both = reading(n, 0.5, attributes=seen, claims=asked, **same)
    text = reading(n, 0.8, attributes=blonde, claims=asked, **same)
    mask = reading(n, 0.7, attributes=hatted, claims=own_claims, **same)
    giver = truth.clone()
    giver[1:3, hat] = 1  # the second and third mask have hats, the first and last contradict nobody
    moved = swap_findings(own, both, text, mask, giver, seed=0)
    drop = by_name(moved, "another's caption: mIoU drops by")
    assert drop.value == pytest.approx(0.9 / 1.1 - 0.8 / 1.2) and drop.verdict == "MISSED"
    followed = by_name(moved, "another's caption: share of what it changes, read as it says")
    assert followed.value == 0.75
    floor = [f for f in moved if f.name.endswith("untouched picture (floor)")]
    assert floor[0].value == 0.0 and floor[1].value == pytest.approx(0.5 / 1.5)
    assert by_name(moved, "another's caption: share of what it changes, read as it says, above"
                   ).met  # fmt: skip
    lost = by_name(moved, "another's mask: caption attributes drop by")
    assert lost.value == pytest.approx(1 - 6 / 8) and lost.verdict == "MISSED"
    free = by_name(moved, "another's mask: caption attributes that no mask shows drop")
    assert free.value == 0.0 and free.bound is None
    shared = by_name(moved, "another's mask: caption attributes that its owner shares drop")
    assert shared.value == pytest.approx(1 - 5 / 6)  # a hat came to the first, who should have none
    assert by_name(moved, "another's mask: mIoU with it").value == pytest.approx(0.7 / 1.3)


def test_attributes_free_of_masks_exist():
    assert set(FREE_OF_MASKS) <= set(ATTRIBUTES)
    assert {"Bald", "Wearing_Hat", "Eyeglasses", "Long_Hair"}.isdisjoint(FREE_OF_MASKS)
