"""One word of a caption is swapped and hair colours are read; the command on tiny networks."""

from dataclasses import replace

import pytest
import torch
from tiny_evaluation import ground_truth, tiny_judges
from tiny_models import pipeline

from dmgi_lib import recognizers
from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.evaluation.measure import (
    goals,
    measure,
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
def rows():
    return measure(pipeline(), ground_truth(3), tiny_judges(), REFERENCE)


def test_swaps_are_those_asked_for(rows):
    assert list(rows) == ["true pictures (ceiling)", "DMGI, exit step 0", "DMGI, exit step 3"]
    assert rows["true pictures (ceiling)"]["N"] == 3
    swapped = rows["DMGI, exit step 0"]
    assert swapped["N"] == 15  # of three captions, five colours
    assert 0 <= swapped["mIoU"] <= 1
    assert swapped["judge low"] <= swapped["judge"] <= swapped["judge high"]


def test_goals_that_are_missed(rows):
    met = {goal.name: goal.met for goal in goals(rows, SPEED)}
    assert not met["loading (imports included), s"] and met["peak memory, GB"]
    assert sum(name.startswith("hair colour read") for name in met) == 4


def test_samples_without_a_hair_colour_are_refused():
    truth = ground_truth(2)
    records = [record | {"captions": ["a man"]} for record in truth.records]
    with pytest.raises(ValueError, match="none of 2 samples has both hair"):
        measure(pipeline(), replace(truth, records=records), tiny_judges(), REFERENCE)


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
    assert result["N"] == 4
    for reader in ("judge", "pixels", "both"):
        assert result[f"{reader} low"] <= result[reader] == 0.75 <= result[f"{reader} high"]
