"""The measuring command on tiny networks: rows, swaps, goals and the report."""

import pytest
import torch
from tiny_evaluation import ground_truth, tiny_judges
from tiny_models import pipeline

from dmgi_lib.evaluation.measure import MeasureConfig, Measurement, goals, report
from dmgi_lib.evaluation.metrics import HairColorReference

SPEED = dict.fromkeys(("exit_step_0", "full_process", "first_image", "peak_memory_gb"), 0.5)
SPEED |= {"load": 11.0, "ratio": 1.0, "peak_memory_full_gb": 0.5, "num_inference_steps": 4}


@pytest.fixture(scope="module")
def result():
    means = torch.tensor([[11.0, 0, 0], [82.0, 0, 0]], dtype=torch.float64)
    covariances = 25 * torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    reference = HairColorReference(("black", "blond"), means, covariances)
    config = MeasureConfig(n=3, n_swap=2)
    made = Measurement(pipeline(), ground_truth(3), tiny_judges(), reference, config)
    return {
        "date": "2026-11-28",
        "machine": "a machine",
        "weights": "tiny",
        "test set": {"root": "drawn faces", "identities": 3},
        "rows": made.rows(),
        "hair colour": made.hair_colours(),
        "speed": SPEED,
    }


def test_rows_and_swaps_are_those_asked_for(result):
    assert list(result["rows"]) == [
        "ground truth (ceiling of the judges)",
        "DMGI, exit step 0 of 0…3",
        "DMGI, exit step 3 of 0…3",
        "I_0^d, the diffusion model's own image",
        "random face of G (floor)",
    ]
    hair = result["hair colour"]
    assert list(hair) == ["ground truth (ceiling)", "DMGI, exit step 0", "DMGI, exit step 3"]
    assert hair["ground truth (ceiling)"]["n"] == 3
    assert hair["DMGI, exit step 0"]["n"] == 10  # 2 captions, 5 colours


def test_the_report_says_which_goals_are_missed(result):
    met = {goal.name: goal.met for goal in goals(result)}
    assert not met["loading (imports included), s"] and met["peak memory, GB"]
    assert sum(name.startswith("hair colour read") for name in met) == 4
    text = report(result)
    for part in ("N = 3 test identities", "MISSED", "2026-11-28; a machine"):
        assert part in text


def test_too_small_a_measurement_is_refused():
    with pytest.raises(ValueError, match="n=1"):
        MeasureConfig(n=1)
