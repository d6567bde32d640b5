"""Scribbles from class masks: binary, sparse, deterministic, and where the outlines are."""

import numpy as np
import pytest

from data_prep.scribbles import ScribbleStyle, scribble


def disk(size: int, row: float, column: float, height: float, width: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size
    return ((y - row) / height) ** 2 + ((x - column) / width) ** 2 <= 1


def face_mask(size: int = 128) -> np.ndarray:
    """Hair, head, nose, eyes and mouth as ellipses."""
    mask = np.zeros((size, size), dtype=np.uint8)
    mask[disk(size, 0.45, 0.5, 0.42, 0.36)] = 13
    mask[disk(size, 0.55, 0.5, 0.34, 0.25)] = 1
    mask[disk(size, 0.58, 0.5, 0.10, 0.04)] = 2
    mask[disk(size, 0.47, 0.6, 0.025, 0.05)] = 4
    mask[disk(size, 0.47, 0.4, 0.025, 0.05)] = 5
    mask[disk(size, 0.75, 0.5, 0.03, 0.10)] = 12
    return mask


def test_strokes_are_binary_sparse_and_repeatable():
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    for picture in (None, image):
        drawn = scribble(face_mask(), picture)
        assert drawn.shape == (128, 128) and drawn.dtype == np.uint8
        assert set(np.unique(drawn)) == {0, 255}
        assert 0.05 < (drawn == 255).mean() < 0.25
        np.testing.assert_array_equal(drawn, scribble(face_mask(), picture))


def test_strokes_follow_the_outline_and_leave_the_inside_empty():
    mask = np.zeros((128, 128), dtype=np.uint8)
    mask[disk(128, 0.5, 0.5, 0.25, 0.25)] = 1  # centre 64, radius 32
    drawn = scribble(mask)
    y, x = np.mgrid[:128, :128]
    radius = np.hypot(y - 64, x - 64)
    assert np.abs(radius[drawn == 255] - 32).max() < 3.5
    # circumference 2π·32 ≈ 201 px times a 3 px pen
    assert 450 < (drawn == 255).sum() < 850


def test_a_speck_and_the_bridge_of_the_nose_are_not_drawn():
    mask = face_mask()
    speck = mask.copy()
    speck[5:7, 5:7] = 18
    np.testing.assert_array_equal(scribble(speck), scribble(mask))
    drawn = scribble(mask)
    assert not drawn[63:70, 57:71].any()  # bridge; the nose spans rows 61..87
    assert drawn[84:90, 58:70].any()  # base


def test_a_strong_contour_of_the_image_is_added_and_a_faint_one_is_not():
    mask = np.zeros((128, 128), dtype=np.uint8)
    image = np.full((128, 128, 3), 60, dtype=np.uint8)
    image[:, 64:] = 220
    drawn = scribble(mask, image)
    assert drawn[64, 61:67].any() and not drawn[:, :56].any() and not drawn[:, 72:].any()
    image[:, 64:] = 66
    assert not scribble(mask, image).any()
    assert not scribble(mask).any()


def test_stroke_width_scales_with_the_image():
    share = [(scribble(face_mask(size)) == 255).mean() for size in (128, 256)]
    assert share[1] == pytest.approx(share[0], rel=0.2)
    thin = (scribble(face_mask(), style=ScribbleStyle(thickness=1)) == 255).mean()
    assert thin < 0.6 * share[0]


@pytest.mark.parametrize(
    ("mask", "image", "message"),
    [
        (np.zeros((8, 8, 3), np.uint8), None, "shape"),
        (np.zeros((8, 8), np.float32), None, "float32"),
        (np.full((8, 8), 19, np.uint8), None, "19"),
        (np.zeros((8, 8), np.uint8), np.zeros((8, 9, 3), np.uint8), r"\(8, 9, 3\)"),
    ],
)
def test_bad_input_is_named(mask, image, message):
    with pytest.raises(ValueError, match=message):
        scribble(mask, image)
