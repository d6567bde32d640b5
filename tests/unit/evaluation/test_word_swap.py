"""One word of a caption is swapped, and hair colours are read."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_evaluation import tiny_judges

from dmgi_lib import recognizers
from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.evaluation.metrics import HairColorReference
from dmgi_lib.evaluation.word_swap import score_hair_colors, swap_hair_color, swappable_caption


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
    means = torch.tensor([[11.0, 0, 0], [82.0, 0, 0]], dtype=torch.float64)
    covariances = 25 * torch.eye(3, dtype=torch.float64).repeat(2, 1, 1)
    reference = HairColorReference(("black", "blond"), means, covariances)
    wanted = ["blond", "black", "blond", "blond"]
    judged = replace(tiny_judges(), attributes=StubJudge(channels=(4, 4, 4, 4)))
    result = score_hair_colors(images, masks, wanted, judged, reference, np.random.default_rng(0))
    assert result["n"] == 4
    for reader in ("judge", "pixels"):
        assert result[reader]["share"] == 0.75
        assert result[reader]["read_as"] == {
            "blond": {"blond": 2, "black": 1},
            "black": {"black": 1},
        }
    low, high = result["both"]["interval"]
    assert low <= 0.75 <= high
