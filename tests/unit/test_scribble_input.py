"""Scribbles as people draw them."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import face_mask

from dmgi_lib.masks import mask_to_image, scribble_to_rgb
from dmgi_lib.scribble_input import load_scribble


def strokes(size: int = 128, width: int = 1) -> np.ndarray:
    """(size, size) bool: a frame and a diagonal."""
    drawn = np.zeros((size, size), bool)
    start, end = size // 4, size - size // 4
    for edge in (start, end):
        drawn[edge : edge + width, start:end] = drawn[start:end, edge : edge + width] = True
    for i in range(start, end):
        drawn[i, i : i + width] = True
    return drawn


def painted(ink: tuple, ground: tuple, mode: str) -> Image.Image:
    pixels = np.where(strokes()[..., None], np.array(ink), np.array(ground)).astype(np.uint8)
    return Image.fromarray(pixels, mode)


EXPECTED = torch.from_numpy(strokes().astype(np.uint8) * 255)
WAYS = {
    "bool": strokes(),
    "0 and 1": strokes().astype(np.uint8),
    "0..255": strokes().astype(np.int64) * 255,
    "float": strokes().astype(np.float64),
    "bfloat16": torch.from_numpy(strokes()).to(torch.bfloat16),
    "L of 0 and 1": Image.fromarray(strokes().astype(np.uint8)),
    "1": Image.fromarray(strokes()),
    "RGB array": np.repeat(strokes()[..., None], 3, axis=2),
    "blue": painted((0, 0, 255), (0, 0, 0), "RGB"),
    "dark red": np.asarray(painted((128, 0, 0), (0, 0, 0), "RGB")),
    "float RGB": np.asarray(painted((255, 0, 255), (0, 0, 0), "RGB")) / 255.0,
    "black on transparent": painted((0, 0, 0, 255), (0, 0, 0, 0), "RGBA"),
    "white on transparent": painted((255, 255, 255, 255), (255, 255, 255, 0), "RGBA"),
    "P": painted((0, 255, 0), (0, 0, 0), "RGB").quantize(4),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_drawing_gives_the_same_strokes(way):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(load_scribble(WAYS[way]), EXPECTED)
    assert scribble_to_rgb(EXPECTED[None]).max() == 1


@pytest.mark.parametrize("ink", [(0, 0, 0), (0, 0, 255), (200, 0, 0)])
def test_dark_strokes_on_white_are_turned_over(ink):
    with pytest.warns(UserWarning, match="turned over: expected white strokes on black"):
        assert torch.equal(load_scribble(painted(ink, (255, 255, 255), "RGB")), EXPECTED)


@pytest.mark.parametrize(("size", "width"), [(256, 1), (768, 1), (1000, 1), (2048, 1), (2048, 3)])
def test_thin_strokes_survive(size, width):
    loaded = load_scribble(strokes(size, width)) > 0
    for edge in (32, 96):
        assert loaded[edge, 32:96].all() and loaded[32:96, edge].all()
    assert loaded.diagonal()[33:96].all()
    assert loaded.float().mean() < 0.1
    assert load_scribble(strokes(64)).shape == (128, 128)


@pytest.mark.parametrize(
    ("scribble", "message"),
    [
        (np.zeros((128, 128), bool), "holds no strokes"),
        (Image.new("L", (128, 128), 255), "holds no strokes"),
        (Image.new("RGBA", (128, 128)), "holds no strokes"),
        (np.arange(128 * 128).reshape(128, 128) % 2 == 0, "strokes cover 50% of the scribble"),
    ],
)
@pytest.mark.filterwarnings("ignore:scribble is mostly bright")
def test_empty_and_dense_scribbles_are_warned_of(scribble, message):
    with pytest.warns(UserWarning, match=message):
        load_scribble(scribble)


@pytest.mark.parametrize(
    "mask",
    [face_mask(), mask_to_image(face_mask()), mask_to_image(face_mask()).convert("RGB")],
    ids=["ids", "P", "RGB"],
)
def test_a_mask_is_no_scribble(mask):
    with pytest.raises(ValueError, match="looks like a mask.*mask="):
        load_scribble(mask)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (strokes() * np.nan, "run from nan to nan; expected 0..1"),
        (strokes() * 2.0, "0.0 to 2.0; expected 0..1"),
        (strokes().astype(np.int32) * 300, "300; expected 0..255"),
        (strokes()[:, :64], "fit='pad'"),
        (strokes()[None], r"shape \(1, 128, 128\)"),
        (strokes() * 1j, "complex128"),
        (np.ones((1, 1), bool), "1 x 1 pixels"),
        ([[0, 1]], "list"),
    ],
)
def test_bad_scribbles_say_what_came(bad, message):
    with pytest.raises(ValueError, match=message):
        load_scribble(bad)


def test_fit_makes_a_scribble_square():
    wide = np.concatenate([strokes()[:, :16], strokes(), strokes()[:, :16]], axis=1)
    assert torch.equal(load_scribble(wide, fit="crop"), EXPECTED)
    padded = load_scribble(wide, size=None, fit="pad")
    assert torch.equal(padded[16:144] > 0, torch.from_numpy(wide))
    assert padded[:16].sum() == padded[144:].sum() == 0
