"""Findings: verdicts, what Table 1 has to show, and what exchanged captions and masks change."""

import math

import pytest
import torch
from tiny_evaluation import reading

from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.evaluation.goals import (
    FREE_OF_MASKS,
    Comparison,
    Finding,
    compare,
    mask_goals,
    swap_findings,
)
from dmgi_lib.evaluation.read import FID, MIOU, SSIM


def test_a_finding_is_reached_missed_or_not_measured():
    assert Finding("a", 0.85, 0.85).line() == "a: 0.85 >= 0.85 reached"
    assert Finding("a", 0.84, 0.85, low=0.8, high=0.88).line().endswith(">= 0.85 MISSED")
    assert "[0.8, 0.88]" in Finding("a", 0.84, 0.85, low=0.8, high=0.88).line()
    assert Finding("a", 0.04, 0.03, "<=").verdict == "MISSED"
    assert Finding("a", 0.0, 0.0, ">").verdict == "MISSED"  # a tie is not ahead
    lost = Finding("a", None, 0.0, ">")
    assert not lost.met and lost.line() == "a > 0: NOT MEASURED (no such row)"
    assert Finding("a", math.nan, 0.0, ">").line() == "a > 0: NOT MEASURED"
    assert Finding("a", 1.5).line() == "a: 1.5" and Finding("a", 1.5).met


def test_a_paired_interval_does_not_see_what_both_rows_share():
    rows = {"ours": reading(50), "theirs": reading(50)}
    rows["ours"].samples["ssim"] += 0.1
    (better,) = compare(rows, [Comparison("d", "ours", "theirs", SSIM)], seed=0)
    assert better.value == pytest.approx(0.1, abs=1e-6)
    assert better.high - better.low < 1e-5


def test_a_lead_knows_which_columns_are_better_low():
    far = reading()
    rows = {"near": reading(embedding=far["reference"]), "far": far}
    assert Comparison("d", "near", "far", FID).value(rows) > 0
    assert Comparison("d", "far", "near", FID).value(rows) < 0
    rows = {"good": reading(right=0.9), "bad": reading(right=0.6)}
    lead = Comparison("d", "good", "bad", MIOU).value(rows)
    assert lead == pytest.approx(0.9 / 1.1 - 0.6 / 1.4)


def readings(**options):
    ours = {"right": 0.9, "seed": 1} | options
    rows = {key: reading(8, 0.5, seed=2) for key in ("controlnet", "encoder", "encoder_text")}
    rows |= {"ground_truth": reading(8, 1.0), "inversion": reading(4, 1.0)}
    rows |= {key: reading(8, 0.5, seed=3) for key in ("training", "random", "random_psi")}
    return rows | {"exit_0": reading(8, **ours), "exit_9": reading(8, **ours)}


def verdicts(goals):
    return {goal.name: goal.verdict for goal in goals}


def test_goals_follow_from_the_readings():
    goals = compare(readings(), mask_goals("exit_0", "exit_9"), seed=0)
    said = verdicts(goals)
    share = by_name(goals, "mIoU as a share")
    assert share.value == pytest.approx(0.9 / 1.1) and said[share.name] == "MISSED"
    assert said["caption attributes as a share of the truth's (N = 8)"] == "reached"
    assert said["DMGI ahead of the mask encoder in mIoU by"] == "reached"
    assert said["exit step 0 ahead of ControlNet alone in mIoU by"] == "reached"
    said = verdicts(compare(readings(right=0.3), mask_goals("exit_0", "exit_9"), seed=0))
    assert said["caption attributes as a share of the truth's (N = 8)"] == "MISSED"
    assert said["DMGI ahead of the mask encoder in mIoU by"] == "MISSED"


def test_a_ceiling_of_fewer_samples_is_compared_on_those():
    rows = readings()
    worse = reading(8, 0.2)
    rows["exit_9"]["own"][4:] = worse["own"][4:]  # those that were not inverted
    share = by_name(compare(rows, mask_goals("exit_0", "exit_9"), seed=0), "mIoU as a share")
    assert share.value == pytest.approx(0.9 / 1.1) and share.name.endswith("(N = 4)")


def test_goals_of_missing_rows_are_said_to_be_not_measured():
    rows = readings()
    del rows["encoder"], rows["inversion"]
    goals = compare(rows, mask_goals("exit_0", "exit_9"), seed=0)
    lost = [goal.name for goal in goals if goal.verdict == "NOT MEASURED (no such row)"]
    assert len(lost) == 5 and sum("the mask encoder in" in name for name in lost) == 4
    assert lost[0] == "mIoU as a share of W+ optimisation's"


def test_what_is_asked_of_the_generator():
    rows = readings()
    truth, bare = rows["ground_truth"], reading(8, 1.0)
    for name in ("Eyeglasses", "Sunglasses"):
        bare.samples[f"sees {name}"] = False
        truth.samples[f"sees {name}"] = False
    truth.samples.loc[:1, "sees Eyeglasses"] = True  # two of eight
    near = reading(8, embedding=bare["reference"] + 0.1)
    rows |= {"random": bare, "random_psi": near, "training": near}
    found = compare(rows, mask_goals("exit_0", "exit_9"), seed=0)
    assert by_name(found, "random faces: share with glasses above").value == pytest.approx(-0.25)
    below = by_name(found, "random faces: share with glasses below")
    assert below.value == pytest.approx(0.25) and below.verdict == "MISSED"
    assert by_name(found, "FID of random faces").verdict == "MISSED"
    assert by_name(found, "random faces, truncated").verdict == "reached"


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
    same = {"is": truth}
    own = reading(n, 0.9, sees=seen, says=own_claims, **same)
    both = reading(n, 0.5, sees=seen, says=asked, **same)
    text = reading(n, 0.8, sees=blonde, says=asked, **same)
    mask = reading(n, 0.7, sees=hatted, says=own_claims, **same)
    giver = truth.clone()
    giver[1:3, hat] = 1  # the second and third mask have hats, the first and last contradict nobody
    rows = {"own": own, "both": both, "text": text, "mask": mask}
    moved = swap_findings(rows, giver, seed=0)
    drop = by_name(moved, "another's caption: mIoU drops by")
    assert drop.value == pytest.approx(0.9 / 1.1 - 0.8 / 1.2) and drop.verdict == "MISSED"
    followed = by_name(moved, "another's caption: share of what it changes, read as it says")
    assert followed.value == 0.75
    floor = [f for f in moved if f.name.endswith("untouched picture (floor)")]
    assert floor[0].value == 0.0 and floor[1].value == pytest.approx(0.5 / 1.5)
    assert by_name(moved, "another's caption: share of what it changes, read as it says, above"
                   ).met  # fmt: skip
    lost = by_name(moved, "another's mask: caption attributes drop by")
    assert lost.value == pytest.approx(1 - 6 / 8) and lost.bound is None
    free = by_name(moved, "another's mask: caption attributes that no mask shows drop")
    assert free.value == 0.0 and free.verdict == "reached"
    shared = by_name(moved, "another's mask: caption attributes that its owner shares drop")
    assert shared.value == pytest.approx(1 - 5 / 6)  # a hat came to the first, who should have none
    assert by_name(moved, "another's mask: mIoU with it").value == pytest.approx(0.7 / 1.3)


def test_attributes_free_of_masks_exist():
    assert set(FREE_OF_MASKS) <= set(ATTRIBUTES)
    assert {"Bald", "Wearing_Hat", "Eyeglasses", "Long_Hair"}.isdisjoint(FREE_OF_MASKS)
