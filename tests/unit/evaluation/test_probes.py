"""Probes find what was put in and nothing else; maps of words are compared with the mask."""

import pytest
import torch
from tiny_devices import fake_cuda
from tiny_models import face_mask

from dmgi_lib.evaluation.probes import (
    brightest,
    cell_classes,
    chance_iou,
    explained_variance,
    head_maps,
    position_prior,
    principal_components,
    probe,
    read_classes,
    region,
    region_iou,
    word_positions,
)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_first_component_is_the_direction_of_most_variance():
    hidden = torch.randn(4, 1, 8, 8, generator=rng())
    direction = torch.tensor([3.0, -1.0, 0.5])[:, None, None]
    features = hidden * direction + 0.05 * torch.randn(4, 3, 8, 8, generator=rng(1))
    found = principal_components(features, 2)
    assert found.shape == (4, 8, 8, 2) and found.min() >= 0 and found.max() <= 1
    pair = torch.stack([found[..., 0].flatten(), hidden.flatten()])
    assert torch.corrcoef(pair)[0, 1] > 0.97  # the largest loading is positive


def test_a_cell_has_its_most_frequent_class():
    mask = torch.zeros(1, 8, 8, dtype=torch.uint8)
    mask[0, :4, :4] = 13
    mask[0, 0, 0] = 1
    mask[0, 4:, 4:] = torch.tensor([[17] * 4, [17] * 4, [17] * 4, [1] * 4])
    assert cell_classes(mask, 2).tolist() == [[[13, 0], [0, 17]]]


def test_probe_reads_what_is_linear_in_the_features():
    x = torch.randn(60, 5, generator=rng())
    y = x @ torch.randn(5, 2, generator=rng(1)) + 4
    assert explained_variance(x, y) > 0.95
    assert explained_variance(x, y, strength=10.0) < 0.3  # the penalty draws to the mean
    assert read_classes(x, (x[:, 0] > 0).long()) > 0.9


def test_probe_never_sees_the_sample_that_it_reads():
    """More features than samples fit noise perfectly, but read nothing of the fold left out."""
    x = torch.randn(40, 200, generator=rng())
    y = torch.randn(40, 3, generator=rng(1))
    assert explained_variance(x, y) < 0.1
    changed = y.clone()
    changed[0] += 1000
    before, after = probe(x, y), probe(x, changed)
    assert torch.equal(before[[0, 5, 35]], after[[0, 5, 35]])  # the fold of sample 0
    assert not torch.equal(before[1], after[1])


def test_places_of_one_sample_stay_in_one_fold():
    x = torch.randn(10, 6, 3, generator=rng())
    assert probe(x, x[..., :1]).shape == (10, 6, 1)
    with pytest.raises(ValueError, match="4 samples"):
        probe(x[:4], x[:4])


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


def test_regions_and_maps_stay_on_a_gpu():
    with fake_cuda():
        masks = torch.empty(2, 128, 128, dtype=torch.uint8, device="cuda")
        maps = head_maps(torch.empty(2, 3, 16, 6, device="cuda"), [[1], [2, 3]]).mean(1)
        iou = region_iou(maps, region(masks, "hair"))
        classes = cell_classes(masks, 4)
    assert iou.device.type == classes.device.type == "cuda" and iou.shape == (2,)
