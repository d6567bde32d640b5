"""Augmentation for the recognition networks."""

import torch

from data_prep.priors.recognizer_augmentation import augment, degrade, mirror_and_shift
from dmgi_lib.dataset import FaceDataset


def test_mirroring_swaps_sides_and_image_and_mask_stay_together():
    masks = torch.zeros(1, 128, 128, dtype=torch.uint8)
    masks[:, 40:60, 80:100] = 4  # l_eye, on the right side of the picture
    images = masks[:, None].expand(1, 3, 128, 128) * 50
    sides = set()
    for seed in range(12):
        rng = torch.Generator().manual_seed(seed)
        moved, classes = mirror_and_shift(images, masks, rng)
        assert torch.equal(moved[:, 0] > 0, classes > 0)
        on_the_right = bool((classes[:, :, 64:] > 0).any())
        assert set(classes.unique().tolist()) == {0, 4 if on_the_right else 5}
        sides.add(on_the_right)
    assert sides == {True, False}


def test_degradation_is_repeatable_and_keeps_the_picture(tiny_faces):
    faces = FaceDataset(tiny_faces, "train")
    x, _ = augment(faces.images, faces.masks, torch.Generator().manual_seed(3))
    y, _ = augment(faces.images, faces.masks, torch.Generator().manual_seed(3))
    assert torch.equal(x, y) and x.abs().max() <= 1
    clean = faces.images.float() / 127.5 - 1
    error = (degrade(clean, torch.Generator().manual_seed(0)) - clean).square().mean(dim=(1, 2, 3))
    assert 0 < error.max() < 0.05 and (error == 0).any()
