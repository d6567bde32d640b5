"""The masks that are drawn by hand: valid, and the files are what the command makes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_prep.hand_drawn import CAPTIONS, PEOPLE, draw, main
from dmgi_lib.captions import claimed_attributes
from dmgi_lib.masks import CLASSES, PALETTE, load_mask
from dmgi_lib.presets import MINI

FOLDER = Path(__file__).parents[2] / "notebooks" / "hand_drawn"
WORN = {"glasses": "eye_g", "hat": "hat", "open_mouth": "mouth", "earrings": "ear_r"}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", PEOPLE)
def test_masks_are_those_of_faces(name):
    mask = load_mask(FOLDER / f"{name}.png")
    assert torch.equal(mask, draw(name)) and mask.shape == (128, 128)
    found = {CLASSES[i] for i in mask.unique().tolist()}
    assert {"skin", "nose", "u_lip", "l_lip", "neck", "cloth"} <= found
    assert {"l_eye", "r_eye"} <= found or name == "sunglasses"
    assert ("hair" in found) == (name != "bald")
    assert WORN.get(name, "skin") in found
    with Image.open(FOLDER / f"{name}.png") as image:
        assert image.mode == "P" and image.getpalette()[: 3 * 19] == PALETTE.ravel().tolist()


def test_left_and_right_are_the_persons_own():
    for name in PEOPLE.keys() - {"sunglasses"}:
        mask = draw(name).numpy()
        columns = [np.argwhere(mask == CLASSES.index(f"{s}_eye"))[:, 1].mean() for s in "lr"]
        assert columns[0] > columns[1]  # the left eye is on the right of the picture


def test_the_command_makes_the_same_files(tmp_path):
    for run in ("one", "two"):
        main(tmp_path / run)
    made = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert made == sorted(path.name for path in FOLDER.iterdir())
    for name in made:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert (tmp_path / "one" / CAPTIONS).read_text() == (FOLDER / CAPTIONS).read_text()


def test_captions_are_of_adults_and_in_known_words():
    captions = json.loads((FOLDER / CAPTIONS).read_text())
    tokenizer = json.loads((MINI.folder / "tokenizer" / "tokenizer.json").read_text())
    known = tokenizer["model"]["vocab"]
    assert captions.keys() == {f"{name}.png" for name in PEOPLE}
    for caption in captions.values():
        words = re.findall(r"\w+", caption)
        assert set(words) <= set(known) and {"man", "woman"} & set(words)
        assert len(claimed_attributes(caption)) >= 2
