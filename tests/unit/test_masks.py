import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import face_mask

from dmgi_lib import masks


def every_class() -> torch.Tensor:
    """A face with one pixel column of each class id in its corner."""
    mask = face_mask()
    mask[:3, :19] = torch.arange(19, dtype=torch.uint8)
    return mask


def test_palette_pairs_are_further_apart_than_twice_the_tolerance():
    palette = torch.from_numpy(masks.PALETTE).float()
    distance = torch.cdist(palette, palette) + 1e6 * torch.eye(19)
    assert len(masks.CLASSES) == len(palette) == 19
    assert distance.min() > 2 * masks.COLOUR_TOLERANCE


@pytest.mark.parametrize("kind", ["P", "L", "RGB", "array", "int64", "tensor", "rgb array", "path"])
def test_every_accepted_kind_gives_the_same_ids(kind, tmp_path):
    mask = every_class()
    image = masks.mask_to_image(mask)
    image.save(tmp_path / "mask.png")
    given = {
        "P": image,
        "L": Image.fromarray(mask.numpy()),
        "RGB": image.convert("RGB"),
        "array": mask.numpy(),
        "int64": mask.numpy().astype(np.int64),
        "tensor": mask.long(),
        "rgb array": np.asarray(image.convert("RGB")),
        "path": tmp_path / "mask.png",
    }[kind]
    loaded = masks.load_mask(given)
    assert loaded.dtype == torch.uint8
    assert torch.equal(loaded, mask)


def test_palette_image_with_another_palette_is_read_by_colour():
    mask = every_class()
    quantised = masks.mask_to_image(mask).convert("RGB").quantize(19)
    assert not np.array_equal(np.asarray(quantised), mask.numpy())
    assert torch.equal(masks.load_mask(quantised), mask)


def test_resize_keeps_ids():
    loaded = masks.load_mask(face_mask(64), size=128)
    assert loaded.shape == (128, 128)
    assert set(loaded.unique().tolist()) == set(face_mask(64).unique().tolist())


def test_colour_within_tolerance_counts_and_outside_is_named():
    rgb = masks.PALETTE[face_mask().numpy()].astype(np.int16)
    near = np.clip(rgb + 8, 0, 255).astype(np.uint8)
    assert torch.equal(masks.load_mask(near), face_mask())
    far = rgb.astype(np.uint8)
    far[0, 0] = (120, 120, 120)
    with pytest.raises(ValueError, match=r"\(120, 120, 120\)"):
        masks.load_mask(far)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((128, 128), np.float32), "float32"),
        (np.zeros((128, 64), np.uint8), r"\(128, 64\)"),
        (np.zeros((1, 128, 128), np.uint8), r"\(1, 128, 128\)"),
        (np.full((128, 128), 19, np.uint8), r"\[19\]"),
        (np.full((128, 128), -1), r"\[-1\]"),
        (np.zeros((0, 0), np.uint8), r"\(0, 0\)"),
        (Image.new("RGBA", (128, 128)), "RGBA"),
        (Image.new("P", (128, 64)), r"\(64, 128\)"),
        ([[0, 1], [1, 0]], "list"),
        (None, "NoneType"),
    ],
)
def test_bad_masks_say_what_came(bad, message):
    with pytest.raises(ValueError, match=message):
        masks.load_mask(bad)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.png"):
        masks.load_mask(tmp_path / "nowhere.png")
    whole = tmp_path / "whole.png"
    masks.mask_to_image(every_class()).save(whole)
    broken = tmp_path / "broken.png"
    broken.write_bytes(whole.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"broken.png"):
        masks.load_mask(broken)


def test_other_order_is_recognised_and_convertible():
    mask = face_mask().numpy()
    other = np.argsort(masks.OTHER_ORDER_TO_CLASSES)[mask].astype(np.uint8)
    with pytest.warns(UserWarning, match="other CelebAMask-HQ order"):
        masks.load_mask(other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(masks.load_mask(masks.OTHER_ORDER_TO_CLASSES[other]), face_mask())


def test_other_order_lists_every_class_once():
    assert sorted(masks.OTHER_ORDER_TO_CLASSES.tolist()) == list(range(19))
    assert masks.CLASSES[masks.OTHER_ORDER_TO_CLASSES[10]] == "nose"
    assert masks.CLASSES[masks.OTHER_ORDER_TO_CLASSES[17]] == "hair"


def test_flip_swaps_sides_and_names():
    mask = face_mask()
    flipped = masks.flip_mask(mask)
    # The test face is symmetric, so mirrored and renamed it is itself again.
    assert torch.equal(flipped, mask)
    mask[40, 100] = masks.CLASSES.index("l_ear")
    assert masks.flip_mask(mask)[40, 27] == masks.CLASSES.index("r_ear")
    assert torch.equal(masks.flip_mask(masks.flip_mask(mask)), mask)


def test_mask_to_rgb_values():
    rgb = masks.mask_to_rgb(torch.tensor([[[13, 0], [0, 6]]]))
    assert rgb.shape == (1, 3, 2, 2)
    assert torch.allclose(rgb[0, :, 0, 0] * 255, torch.tensor([0.0, 0.0, 204.0]))
    assert torch.allclose(rgb[0, :, 1, 1] * 255, torch.tensor([0.0, 255.0, 255.0]))


def test_masks_of_any_size_are_read_at_once_or_refused(tmp_path):
    """1024² took 1.9 s and 6000² over 90 s; counted in colours looked at, not by a clock."""
    large = masks.mask_to_image(face_mask()).convert("RGB").resize((2048, 2048), Image.NEAREST)
    looked_at = []
    nearest = masks._nearest_class
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "_nearest_class", lambda c: looked_at.append(c.shape) or nearest(c))
        assert torch.equal(masks.load_mask(large), face_mask())
    assert looked_at == [(128, 128, 3)]
    path = tmp_path / "huge.png"
    Image.new("1", (6000, 6000)).save(path)
    with pytest.raises(ValueError, match=r"6000 x 6000 pixels; at most 16,777,216.*Shrink it"):
        masks.load_mask(path)
    for pixels in (np.zeros((6000, 6000), np.uint8), torch.zeros(6000, 6000, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"6000 x 6000 pixels; at most 16,777,216"):
            masks.load_mask(pixels)
    Image.new("1", (20000, 20000)).save(path)  # Pillow refuses this one by itself
    with pytest.raises(ValueError, match=r"huge.png is too large"):
        masks.load_mask(path)
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="colours; expected the 19"):
        masks.load_mask(noise, size=None)


def test_fit_makes_a_mask_square():
    wide = torch.cat([face_mask()[:, :32], face_mask(), face_mask()[:, :32]], dim=1)  # (128, 192)
    with pytest.raises(ValueError, match="fit='pad'.*fit='crop'"):
        masks.load_mask(wide)
    assert torch.equal(masks.load_mask(wide, fit="crop"), face_mask())
    padded = masks.load_mask(wide, size=None, fit="pad")
    assert torch.equal(padded[32:160], wide) and padded[:32].sum() == padded[160:].sum() == 0
    assert masks.load_mask(wide.T.contiguous(), fit="pad").shape == (128, 128)
    with pytest.raises(ValueError, match="fit came as 'stretch'"):
        masks.load_mask(wide, fit="stretch")


RANDOM = np.random.default_rng(0).integers(0, 19, (128, 128))
HUGE_PARTS = face_mask()
HUGE_PARTS[20:40, 40:88], HUGE_PARTS[40:80, 40:88], HUGE_PARTS[80:105, 40:88] = 6, 2, 10


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (RANDOM, "like noise: 9.% of neighbouring"),
        (np.full((128, 128), 13), r"unlike a face: it holds \['hair'\]"),
        ((face_mask() > 0).to(torch.uint8), r"unlike a face: it holds \['background', 'skin'\]"),
        (HUGE_PARTS, "parts lie in implausible places"),
    ],
)
def test_implausible_masks_are_warned_of(mask, message):
    with pytest.warns(UserWarning, match=message):
        masks.load_mask(mask)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_half_precision_masks(name):
    with pytest.raises(ValueError, match=f"dtype torch.{name}; expected integer"):
        masks.load_mask(face_mask().to(getattr(torch, name)))


def test_sizes_and_folders_that_cannot_be_masks(tmp_path):
    with pytest.raises(ValueError, match="1 x 1 pixels; expected 16 or more"):
        masks.load_mask(np.zeros((1, 1), np.uint8))
    with pytest.raises(ValueError, match="is a folder; expected the path of a PNG"):
        masks.load_mask(tmp_path)


def test_masks_and_strokes_to_look_at():
    found = masks.as_uint8("mask", torch.full((1, 2, 2), 13))
    assert (found.permute(0, 2, 3, 1).numpy() == masks.PALETTE[13]).all()
    strokes = masks.as_uint8("scribble", torch.tensor([[[0, 255]]]))
    assert strokes.tolist() == [[[[0, 255]]] * 3]
    every = torch.arange(19)[None, None]
    assert (masks.as_uint8("mask", every)[0, :, 0].T.numpy() == masks.PALETTE).all()
