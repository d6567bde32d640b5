"""Fixtures that several tests share."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from data_prep.shard_writer import write_split
from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.masks import CLASSES, mask_to_image

torch.set_num_threads(1)

HAIR = {
    "black": (25, 20, 20),
    "brown": (95, 60, 35),
    "blond": (215, 180, 105),
    "red": (165, 70, 35),
    "gray": (150, 150, 150),
}


def _mask(rng: np.random.Generator) -> np.ndarray:
    """A drawn face, (128, 128) uint8 class ids."""
    x, y = 64 + int(rng.integers(-5, 6)), 66 + int(rng.integers(-4, 5))
    width, height = 30 + int(rng.integers(-3, 4)), 40 + int(rng.integers(-3, 4))
    image = Image.new("L", (128, 128), 0)
    draw = ImageDraw.Draw(image)

    def ellipse(name: str, cx: float, cy: float, rx: float, ry: float) -> None:
        draw.ellipse((cx - rx, cy - ry, cx + rx, cy + ry), fill=CLASSES.index(name))

    draw.rectangle((x - 50, 118, x + 50, 128), fill=CLASSES.index("cloth"))
    ellipse("hair", x, y - 8, width + 8, height + 4)
    draw.rectangle((x - 14, y + 20, x + 14, 120), fill=CLASSES.index("neck"))
    for side, sign in (("l", 1), ("r", -1)):  # the person's own left is the image's right
        ellipse(f"{side}_ear", x + sign * width, y, 5, 9)
    ellipse("skin", x, y, width, height)
    for side, sign in (("l", 1), ("r", -1)):
        ellipse(f"{side}_eye", x + sign * 12, y - 4, 5, 3)
        ellipse(f"{side}_brow", x + sign * 12, y - 13, 7, 2)
    ellipse("nose", x, y + 6, 5, 9)
    ellipse("u_lip", x, y + 22, 9, 3)
    ellipse("l_lip", x, y + 26, 8, 3)
    ellipse("mouth", x, y + 24, 6, 1)
    return np.asarray(image)


def _sample(identity: int, rng: np.random.Generator) -> tuple[Image.Image, np.ndarray, dict]:
    mask = _mask(rng)
    hair = list(HAIR)[identity % len(HAIR)]
    tone, male = float(rng.uniform()), bool(rng.integers(2))
    smiling, glasses = bool(rng.integers(2)), bool(rng.integers(2))
    colours = np.full((19, 3), 128.0)
    skin = 70 + 150 * tone * np.array([1.0, 0.8, 0.68])
    colours[[1, 2, 8, 9, 17]] = skin
    colours[0] = rng.uniform(60, 200, 3)
    colours[[4, 5]] = (240, 240, 240)
    colours[[6, 7, 13]] = HAIR[hair]
    colours[[10, 11, 12]] = (60, 20, 20), (190, 90, 90), (190, 90, 90)
    colours[18] = rng.uniform(30, 220, 3)
    pixels = colours[mask] + rng.normal(0, 6, (128, 128, 1))
    pixels *= np.linspace(1.1, 0.85, 128)[None, :, None]
    person = "man" if male else "woman"
    attributes: dict[str, bool | None] = dict.fromkeys(ATTRIBUTES, False)
    attributes |= {f"{name.capitalize()}_Hair": name == hair for name in HAIR}
    attributes |= {"Male": male, "Smiling": smiling, "Eyeglasses": glasses, "Young": True}
    attributes |= {"Pale_Skin": tone > 0.8, "Dark_Skin": tone < 0.2, "Wearing_Earrings": None}
    mood = "smiling" if smiling else "serious"
    extra = " and eyeglasses" if glasses else ""
    record = {
        "identity": identity,
        "seed": identity,
        "captions": [
            f"a {mood} {person} with {hair} hair{extra}",
            f"This young {person} has {hair} hair{extra}.",
            f"a {person} with {hair} hair",
            f"a {mood} person with {hair} hair",
            f"The {person} is {mood}, and has {hair} hair{extra}.",
        ],
        "attributes": attributes,
        "camera": [*np.eye(4).ravel().tolist(), 4.26, 0, 0.5, 0, 4.26, 0.5, 0, 0, 1.0],
        "shape_code": rng.normal(0, 1, 48).round(4).tolist(),
        "hair_color": hair,
        "skin_tone": tone,
        "style": "photo",
    }
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), mask, record


@pytest.fixture(scope="session")
def tiny_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn dataset in the format of the face world: 16 train and 8 test samples.

    In each split the last two samples are second views of its first two identities.
    """
    root = tmp_path_factory.mktemp("tiny_faces")
    rng = np.random.default_rng(0)
    for split, count, first in (("train", 16, 0), ("test", 8, 100)):
        samples = []
        for n in range(count):
            identity = first + (n if n < count - 2 else n - (count - 2))
            image, mask, record = _sample(identity, rng)
            edges = np.zeros((128, 128), np.uint8)
            edges[1:, 1:] = (mask[1:, 1:] != mask[:-1, 1:]) | (mask[1:, 1:] != mask[1:, :-1])
            pictures = {
                "image": _encoded(image, "WEBP", quality=90),
                "mask": _encoded(mask_to_image(torch.from_numpy(mask.copy())), "PNG"),
                "scribble": _encoded(Image.fromarray(edges * 255), "PNG"),
            }
            samples.append({"id": f"{first + n:06d}"} | record | pictures)
        write_split(root / split, samples)
    return root


def _encoded(image: Image.Image, file_format: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()
