"""IoU of a word's map with the part that it names."""

import pytest
import torch
from tiny_models import face_mask

from dmgi_lib.evaluation.word_localisation import (
    brightest,
    chance_iou,
    head_maps,
    position_prior,
    region,
    region_iou,
    word_positions,
)


def test_perfect_inverted_and_shifted_maps():
    wanted = region(face_mask()[None], "hair")
    assert wanted.sum() == (face_mask() == 13).sum()
    assert region_iou(wanted.float(), wanted).item() == 1.0
    assert region_iou(1 - wanted.float(), wanted).item() == 0.0
    square = torch.zeros(1, 128, 128, dtype=torch.bool)
    square[0, 32:64, 32:64] = True
    assert region_iou(square.roll(16, -1).float(), square).item() == pytest.approx(1 / 3)


def test_only_the_order_of_the_pixels_counts():
    weight = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = region(face_mask()[None].expand(3, -1, -1), "skin")
    assert torch.equal(region_iou(weight, wanted), region_iou(0.01 * weight + 5, wanted))
    assert brightest(weight, torch.tensor([0.0, 0.25, 1.0])).float().mean((1, 2)).tolist() == [
        0.0,
        0.25,
        1.0,
    ]


def test_floors():
    half = torch.zeros(2, 128, 128, dtype=torch.bool)
    half[:, :64] = True
    assert chance_iou(half) == pytest.approx(1 / 3)
    blind = torch.rand(400, 128, 128, generator=torch.Generator().manual_seed(0))
    assert region_iou(blind[:20], half[:1].expand(20, -1, -1)).mean() == pytest.approx(
        1 / 3, abs=0.01
    )
    other = half.clone()
    other[1] = ~half[1]
    assert region_iou(position_prior(other), other).tolist() == [0.0, 0.0]  # never the own region
    assert region_iou(position_prior(half), half).tolist() == [1.0, 1.0]


def test_absent_regions_and_unknown_words():
    none = torch.zeros(1, 128, 128, dtype=torch.bool)
    assert region_iou(torch.rand(1, 8, 8), none).isnan().all()
    with pytest.raises(ValueError, match="'teeth'"):
        region(face_mask()[None], "teeth")


def test_head_maps_pick_the_words_own_tokens():
    a = torch.zeros(2, 3, 16, 6)
    a[0, 1, 5, 2], a[1, 2, 10, 3], a[1, 2, 10, 4] = 1.0, 0.5, 0.25
    positions = [word_positions([("red", [1]), ("hair", [2])], "hair"), [3, 4]]
    maps = head_maps(a, positions)
    assert maps.shape == (2, 3, 4, 4)
    assert maps[0].nonzero().tolist() == [[1, 1, 1]] and maps[1, 2, 2, 2] == 0.375
    assert word_positions([("red", [1])], "hair") == []
    with pytest.raises(ValueError, match="without the word"):
        head_maps(a, [[1], []])
