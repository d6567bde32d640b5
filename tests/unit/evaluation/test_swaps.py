"""Exchanged captions and masks: who gets what, and what is made of the readings."""

import pytest
import torch
from table_samples import reading, samples, tiny_table

from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.evaluation import swaps, table_rows


def test_only_text_or_only_masks_are_exchanged_within_one_sex():
    truth = samples(6)
    mixed = swaps.exchanged(truth, seed=0)
    assert torch.equal(mixed["text"].masks, truth.masks)
    assert mixed["mask"].prompts == truth.prompts
    assert mixed["both"].prompts == mixed["text"].prompts
    assert torch.equal(mixed["both"].masks, mixed["mask"].masks)
    for i in range(6):
        j = truth.prompts.index(mixed["text"].prompts[i])
        assert j != i and j % 2 == i % 2
        assert torch.equal(mixed["mask"].masks[i], truth.masks[j])
    for one in mixed.values():  # what is true of a sample stays
        assert torch.equal(one.images, truth.images)
        assert torch.equal(one.attributes, truth.attributes)
    order = swaps.givers(truth, seed=0)  # whose caption and mask it is
    assert mixed["both"].prompts == truth.taken(order).prompts
    assert torch.equal(mixed["both"].masks, truth.taken(order).masks)


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
    found = swaps.findings(own, both, text, mask, giver, seed=0)
    drop = by_name(found, "another's caption: mIoU drops by")
    assert drop.value == pytest.approx(0.9 / 1.1 - 0.8 / 1.2) and drop.verdict == "MISSED"
    followed = by_name(found, "another's caption: share of what it changes, read as it says")
    assert followed.value == 0.75
    floor = [f for f in found if f.name.endswith("untouched picture (floor)")]
    assert floor[0].value == 0.0 and floor[1].value == pytest.approx(0.5 / 1.5)
    assert by_name(found, "another's caption: share of what it changes, read as it says, above"
                   ).met  # fmt: skip
    lost = by_name(found, "another's mask: caption attributes drop by")
    assert lost.value == pytest.approx(1 - 6 / 8) and lost.verdict == "MISSED"
    free = by_name(found, "another's mask: caption attributes that no mask shows drop")
    assert free.value == 0.0 and free.bound is None
    shared = by_name(found, "another's mask: caption attributes that its owner shares drop")
    assert shared.value == pytest.approx(1 - 5 / 6)  # a hat came to the first, who should have none
    assert by_name(found, "another's mask: mIoU with it").value == pytest.approx(0.7 / 1.3)


def test_attributes_free_of_masks_exist():
    assert set(swaps.FREE_OF_MASKS) <= set(ATTRIBUTES)
    assert {"Bald", "Wearing_Hat", "Eyeglasses", "Long_Hair"}.isdisjoint(swaps.FREE_OF_MASKS)


def test_the_table_draws_for_one_and_reads_against_the_other(tmp_path, monkeypatch):
    made = tiny_table(tmp_path)
    calls = []

    def draw(pipe, prompts, inputs, exit_step, *rest):
        calls.append((prompts, inputs, exit_step))
        return made.truth.images, None

    monkeypatch.setattr(table_rows, "draw", draw)
    read = []
    original = made.read
    monkeypatch.setattr(made, "read", lambda i, truth: read.append(truth) or original(i, truth))
    found = made.swaps(reading(4))
    mixed = swaps.exchanged(made.truth, 0)
    truth = made.truth
    plan = [(truth, mixed["both"]), (mixed["text"],) * 2, (mixed["mask"],) * 2]
    for (prompts, masks, step), against, (drawn_for, read_for) in zip(
        calls, read, plan, strict=True
    ):
        assert step == -1 and prompts == drawn_for.prompts and torch.equal(masks, drawn_for.masks)
        assert against.prompts == read_for.prompts and torch.equal(against.masks, read_for.masks)
    assert len(found) == len(made.swaps(reading(4))) and len(calls) == 3  # kept in files
