"""Who stands beside whom: other samples, and exchanged captions and masks."""

import torch
from tiny_evaluation import samples

from dmgi_lib.dataset import FaceDataset
from dmgi_lib.evaluation.samples import GroundTruth, exchanged, givers, others


def test_first_views_in_file_order(tiny_faces):
    faces = FaceDataset(tiny_faces, "test")  # the last two samples are second views
    truth = GroundTruth.read(faces, 500)
    assert len(truth) == 6 and torch.equal(truth.masks, faces.masks[:6])
    assert truth.prompts == [record["captions"][0] for record in faces.records[:6]]
    assert truth.images.min() >= -1 and truth.scribbles.shape == (6, 128, 128)
    two = GroundTruth.read(faces, 3).taken(torch.tensor([2, 0]).numpy())
    assert two.records == [faces.records[2], faces.records[0]]
    assert torch.equal(two.images[1], truth.images[0])


def test_nobody_keeps_the_own_one():
    other = others(7, seed=3)
    assert sorted(other.tolist()) == list(range(7))
    assert all(i != j for i, j in enumerate(other.tolist()))


def test_only_text_or_only_masks_are_exchanged_within_one_sex():
    truth = samples(6)
    mixed = exchanged(truth, seed=0)
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
    order = givers(truth, seed=0)  # whose caption and mask it is
    assert mixed["both"].prompts == truth.taken(order).prompts
    assert torch.equal(mixed["both"].masks, truth.taken(order).masks)
