"""Conditions as hands draw them stay masks and scribbles of the same faces."""

import numpy as np
import pytest
import torch

from dmgi_lib.dataset import FaceDataset, shipped_root
from dmgi_lib.masks import CLASSES, load_mask
from dmgi_lib.training.condition_augmentation import LEFT_OUT, by_hand

NEVER_LOST = [
    CLASSES.index(name)
    for name in ("skin", "nose", "l_eye", "r_eye", "l_brow", "r_brow", "hair", "hat", "cloth")
]
KINDS = ("mask", "scribble")


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def people():
    dataset = FaceDataset(shipped_root(), "test")
    return {"mask": dataset.masks[:48], "scribble": dataset.scribbles[:48]}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_drawn_is_of_the_same_kind(people, kind):
    drawn = by_hand(kind, people[kind], 1.0, rng())
    assert drawn.dtype == torch.uint8 and drawn.shape == people[kind].shape
    for before, after in zip(people[kind], drawn, strict=True):
        assert not torch.equal(before, after)
        assert set(after.unique().tolist()) <= set(before.unique().tolist())


@pytest.mark.filterwarnings("error")
def test_what_a_drawer_surely_paints_is_never_lost(people):
    areas = torch.stack([(people["mask"] == i).sum((1, 2)) for i in range(19)], 1)
    for seed in range(3):
        drawn = by_hand("mask", people["mask"], 1.0, rng(seed))
        for before, mask in zip(areas, drawn, strict=True):
            load_mask(mask)  # plausible enough not to be warned of
            found = mask.unique().tolist()
            assert [i for i in NEVER_LOST if before[i] > 30 and i not in found] == []


def test_a_closed_mouth_stays_closed_and_an_open_one_open(people):
    lips, mouth = (11, 12), 10
    for seed in range(3):
        drawn = by_hand("mask", people["mask"], 1.0, rng(seed))
        for before, after in zip(people["mask"], drawn, strict=True):
            if (before == mouth).sum() <= 10:  # a gap between the lips
                assert (after == mouth).sum() <= 40 and all((after == i).any() for i in lips)
            elif (before == mouth).sum() > 40:
                assert (after == mouth).sum() > 20


def test_small_things_are_left_out_at_times(people):
    drawn = by_hand("mask", people["mask"].repeat(8, 1, 1), 1.0, rng())
    lost = {}
    for part in LEFT_OUT:
        had = (people["mask"] == part).sum((1, 2)).repeat(8) > 30
        lost[CLASSES[part]] = ((drawn == part).sum((1, 2)) == 0)[had].float().mean()
    assert lost.pop("eye_g") < 0.15
    assert all(0.05 < share < 0.5 for share in lost.values()), lost


def test_scribbles_keep_most_strokes_and_stay_thin(people):
    before = (people["scribble"] > 0).float().mean((1, 2))
    after = (by_hand("scribble", people["scribble"], 1.0, rng()) > 0).float().mean((1, 2))
    assert (after / before).min() > 0.3 and (after / before).max() < 2.2


@pytest.mark.parametrize("kind", KINDS)
def test_the_generator_decides(people, kind):
    once = by_hand(kind, people[kind], 1.0, rng(1))
    assert torch.equal(once, by_hand(kind, people[kind], 1.0, rng(1)))
    assert not torch.equal(once, by_hand(kind, people[kind], 1.0, rng(2)))
    whole = by_hand(kind, people[kind][:4], 1.0, [rng(seed) for seed in range(4)])
    assert torch.equal(whole[2:3], by_hand(kind, people[kind][2:3], 1.0, [rng(2)]))


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_share_is_changed(people, kind):
    generator = rng()
    state = generator.get_state()
    assert torch.equal(by_hand(kind, people[kind], 0.0, generator), people[kind])
    assert torch.equal(generator.get_state(), state)
    given = people[kind].clone()
    changed = (by_hand(kind, given, 0.5, generator) != given).any(2).any(1)
    assert 12 <= changed.sum() <= 36
    assert torch.equal(given, people[kind])  # nothing is written into what is passed
    with pytest.raises(ValueError, match="augment came as 50; expected the share"):
        by_hand(kind, given, 50, generator)


@pytest.mark.parametrize("size", [16, 96, 512])
@pytest.mark.parametrize("ids", [(0,), (1,), (5,), (0, 10), (3, 14), tuple(range(19))])
def test_masks_unlike_faces_do_no_harm(size, ids):
    draw = np.random.default_rng(0)
    masks = torch.from_numpy(draw.choice(ids, (4, size, size)).astype(np.uint8))
    drawn = by_hand("mask", masks, 1.0, rng())
    assert drawn.shape == masks.shape and set(drawn.unique().tolist()) <= {*ids, 1}
    for strokes in (torch.zeros_like(masks), (masks > 0).to(torch.uint8) * 255):
        drawn = by_hand("scribble", strokes, 1.0, rng())
        assert drawn.shape == strokes.shape and set(drawn.unique().tolist()) <= {0, 255}
