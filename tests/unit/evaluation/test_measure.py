"""One word of a caption is swapped and hair colours are read; the command on tiny networks."""

from dataclasses import replace

import pytest
import torch
from tiny_evaluation import ground_truth, tiny_judges
from tiny_models import pipeline

from dmgi_lib import recognizers
from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.evaluation.measure import (
    MeasureConfig,
    goals,
    measure,
    report,
    score_hair_colors,
    swap_hair_color,
    swappable_caption,
)
from dmgi_lib.evaluation.metrics import HairColorReference

SPEED = dict.fromkeys(("exit_step_0", "full_process", "first_image", "peak_memory_gb"), 0.5)
SPEED |= {"load": 11.0, "ratio": 1.0, "peak_memory_full_gb": 0.5, "num_inference_steps": 4}


MEANS = torch.tensor([[11.0, 0, 0], [82.0, 0, 0]], dtype=torch.float64)
COVARIANCES = 25 * torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
REFERENCE = HairColorReference(("black", "blond"), MEANS, COVARIANCES)


@pytest.fixture(scope="module")
def result():
    config = MeasureConfig(n=3, n_swap=2)
    return {
        "date": "2026-11-28",
        "machine": "a machine",
        "weights": "tiny",
        "test set": {"root": "drawn faces", "identities": 3},
        **measure(pipeline(), ground_truth(3), tiny_judges(), REFERENCE, config),
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
    swapped = hair["DMGI, exit step 0"]
    assert swapped["n"] == 10 and swapped["captions"] == 2  # 5 colours
    assert 0 <= swapped["mIoU"] <= 1


def test_the_report_says_which_goals_are_missed(result):
    met = {goal.name: goal.met for goal in goals(result)}
    assert not met["loading (imports included), s"] and met["peak memory, GB"]
    assert sum(name.startswith("hair colour read") for name in met) == 4
    text = report(result)
    for part in ("N = 3 test identities", "MISSED", "2026-11-28; a machine"):
        assert part in text


def test_too_small_a_measurement_is_refused():
    with pytest.raises(ValueError, match="n came as 1"):
        MeasureConfig(n=1)


@pytest.mark.parametrize(
    ("caption", "swapped"),
    [
        ("a man with black hair .", "a man with red hair ."),
        ("a Blonde, wavy hair woman", "a red, wavy hair woman"),
        ("she has long black and straight hair", "she has long red and straight hair"),
        ("an old man with brown eyes and gray hair", "an old man with brown eyes and red hair"),
        ("a grey-haired man", "a red-haired man"),
        ("She has dark black hair, sleek hair.", "She has red hair, sleek hair."),
        ("her hair is golden", "her hair is red"),
        ("a man with brown eyes and long hair", None),
        ("a bald man with a black beard", None),
        ("black hair, or is it brown hair?", None),
    ],
)
def test_only_the_hair_colour_is_swapped(caption, swapped):
    assert swap_hair_color(caption, "red") == swapped
    assert swappable_caption(["a man", caption]) == (caption if swapped else None)


class StubJudge(recognizers.AttributeJudge):
    """Reads a colour from the brightness of the picture."""

    def read(self, image):
        bright = image.mean(dim=(1, 2, 3)) > 0
        return torch.zeros(len(image), len(ATTRIBUTES), dtype=bool), [
            "blond" if b else "black" for b in bright
        ]


def test_hair_scores_by_hand():
    masks = torch.full((4, 16, 16), 13, dtype=torch.uint8)
    brightness = torch.tensor([0.6, -0.8, -0.8, 0.6])
    images = brightness[:, None, None, None].expand(4, 3, 16, 16).contiguous()
    wanted = ["blond", "black", "blond", "blond"]
    judged = replace(tiny_judges(), attributes=StubJudge(channels=(4, 4, 4, 4)))
    result = score_hair_colors(images, masks, wanted, judged, REFERENCE, seed=0)
    assert result["n"] == 4
    for reader in ("judge", "pixels"):
        assert result[reader]["share"] == 0.75
        assert result[reader]["read_as"] == {
            "blond": {"blond": 2, "black": 1},
            "black": {"black": 1},
        }
    low, high = result["both"]["interval"]
    assert low <= 0.75 <= high
