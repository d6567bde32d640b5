"""Ten face masks drawn as with a mouse: ovals, polygons and strokes of a thick pen.

    python -m data_prep.hand_drawn --out notebooks/hand_drawn

What a person would paint who has never seen a rendered mask, to try the pipeline on. Points tremble
by a pixel, each person's always in the same way: the same files come out. The people are made up.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image, ImageDraw

from dmgi_lib.files import write_text, write_whole
from dmgi_lib.masks import CLASSES, mask_to_image

SIZE = 128
CAPTIONS = "captions.json"
Point = tuple[float, float]


class Sheet:
    """A mask that is painted shape by shape; what comes later lies on top.

    Args:
        name: of the person; decides how the hand trembles
    """

    def __init__(self, name: str) -> None:
        self.image = Image.new("L", (SIZE, SIZE))
        self.pen = ImageDraw.Draw(self.image)
        self.hand = random.Random(name)

    def near(self, x: float, y: float) -> Point:
        return x + self.hand.uniform(-1, 1), y + self.hand.uniform(-1, 1)

    def oval(self, part: str, x: float, y: float, width: float, height: float) -> None:
        """Around (x, y)."""
        x, y = self.near(x, y)
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        self.pen.ellipse(box, fill=CLASSES.index(part))

    def shape(self, part: str, *points: Point) -> None:
        """A polygon."""
        self.pen.polygon([self.near(*p) for p in points], fill=CLASSES.index(part))

    def line(self, part: str, width: int, *points: Point) -> None:
        """A stroke with round ends."""
        ink, path = CLASSES.index(part), [self.near(*p) for p in points]
        self.pen.line(path, fill=ink, width=width, joint="curve")
        for x, y in path:
            r = (width - 1) / 2
            self.pen.ellipse((x - r, y - r, x + r, y + r), fill=ink)

    def ring(self, part: str, width: int, x: float, y: float, across: float, down: float) -> None:
        """The outline of an oval."""
        x, y = self.near(x, y)
        box = (x - across / 2, y - down / 2, x + across / 2, y + down / 2)
        self.pen.ellipse(box, outline=CLASSES.index(part), width=width)

    # What most people have. x is the middle of the face; turned faces have it off the head's.

    def shoulders(self, top: float = 108, width: float = 120, neck: float = 32) -> None:
        """Neck and cloth."""
        left, right, inner = 64 - width / 2, 64 + width / 2, neck / 2
        self.shape("neck", (64 - inner, 84), (64 + inner, 84), (84, 130), (44, 130))
        self.shape(
            "cloth",
            *((left, 130), (left + 8, top + 8), (63 - inner, top - 2), (64, top + 8)),
            *((65 + inner, top - 2), (right - 8, top + 8), (right, 130)),
        )

    def eyes(self, x: float, y: float, width: float = 13, high: float = 6) -> None:
        self.oval("r_eye", x - 13, y, width, high)
        self.oval("l_eye", x + 13, y, width, high)

    def brows(self, x: float, y: float, bow: float = 3, width: int = 4) -> None:
        for part, side in (("r_brow", -1), ("l_brow", 1)):
            inner, middle, outer = (x + side * d for d in (7, 14, 21))
            self.line(part, width, (inner, y), (middle, y - bow), (outer, y))

    def nose(self, x: float, top: float, low: float, width: float = 15, lean: float = 0) -> None:
        """Lean: pixels that the tip lies to the side."""
        tip = x + lean
        self.shape("nose", (x - 3, top), (x + 3, top), (tip + width / 2, low - 4), (tip, low),
                   (tip - width / 2, low - 4))  # fmt: skip

    def lips(self, x: float, y: float, width: float = 24, smile: float = 2) -> None:
        """Closed; smile: pixels that the corners are raised."""
        left, right = (x - width / 2, y - smile), (x + width / 2, y - smile)
        self.shape("u_lip", left, (x - 4, y - 4), (x, y - 3), (x + 4, y - 4), right, (x, y + 1))
        self.shape("l_lip", left, (x, y), right, (x + 5, y + 6), (x - 5, y + 6))

    def open_mouth(self, x: float, y: float, width: float = 22, height: float = 15) -> None:
        self.oval("l_lip", x, y, width, height)
        self.shape("u_lip", (x - width / 2, y), (x - 5, y - height / 2 - 1), (x, y - height / 2),
                   (x + 5, y - height / 2 - 1), (x + width / 2, y))  # fmt: skip
        self.oval("mouth", x, y, width - 6, height - 7)

    def ears(self, x: float, y: float, apart: float) -> None:
        self.oval("r_ear", x - apart, y, 9, 19)
        self.oval("l_ear", x + apart, y, 9, 19)

    def glasses(self, x: float, y: float, width: int = 2) -> None:
        for side in (-1, 1):
            self.ring("eye_g", width, x + side * 14, y, 23, 17)
            self.line("eye_g", width, (x + side * 25, y - 2), (x + side * 33, y - 4))
        self.line("eye_g", width, (x - 3, y - 2), (x + 3, y - 2))


def glasses(s: Sheet) -> None:
    """A woman with glasses and hair down to the shoulders, a smile."""
    s.shoulders()
    s.shape("hair", (30, 92), (27, 50), (36, 24), (54, 12), (76, 12), (93, 25), (101, 52), (98, 94),
            (84, 98), (86, 60), (42, 60), (44, 97))  # fmt: skip
    s.oval("skin", 64, 63, 56, 76)
    s.shape("hair", (36, 48), (40, 28), (62, 20), (88, 28), (92, 50), (80, 38), (56, 33))
    s.brows(64, 45)
    s.eyes(64, 55, high=7)
    s.nose(64, 56, 76)
    s.glasses(64, 55)
    s.lips(64, 86, width=26, smile=3)


def hat(s: Sheet) -> None:
    """An old man with a hat and a little hair at the sides."""
    s.shoulders(neck=36)
    s.ears(64, 62, 33)
    s.shape("hair", (33, 40), (95, 40), (97, 60), (91, 58), (37, 58), (31, 60))
    s.oval("skin", 64, 66, 60, 74)
    s.shape("hat", (36, 34), (40, 10), (52, 4), (78, 4), (90, 11), (93, 34))
    s.oval("hat", 64, 35, 98, 16)
    s.brows(64, 50, bow=1, width=5)
    s.eyes(64, 58, width=12, high=5)
    s.nose(64, 58, 80, width=18)
    s.lips(64, 89, width=22, smile=0)


def open_mouth(s: Sheet) -> None:
    """A woman with fair hair to the chin, and her mouth open."""
    s.shoulders(top=110, width=112)
    s.oval("hair", 64, 53, 84, 92)
    s.shape("hair", (24, 60), (104, 60), (101, 96), (84, 100), (44, 100), (27, 96))
    s.shape("neck", (50, 88), (78, 88), (81, 108), (64, 115), (47, 108))
    s.oval("skin", 64, 65, 54, 76)
    s.shape("hair", (38, 50), (44, 30), (64, 24), (84, 30), (91, 50), (78, 41), (68, 33), (52, 41))
    s.brows(64, 48, bow=4, width=3)
    s.eyes(64, 57, high=8)
    s.nose(64, 58, 76, width=13)
    s.open_mouth(64, 88)


def long_hair(s: Sheet) -> None:
    """A woman with long hair and a fringe."""
    s.shape("hair", (14, 129), (20, 70), (28, 32), (46, 12), (82, 12), (100, 33), (108, 72),
            (114, 129))  # fmt: skip
    s.shape("neck", (50, 88), (78, 88), (82, 112), (64, 120), (46, 112))
    s.shape("cloth", (34, 129), (44, 108), (64, 116), (84, 108), (94, 129))
    s.oval("skin", 64, 64, 54, 74)
    s.shape("hair", (36, 52), (38, 26), (64, 18), (90, 26), (92, 52), (82, 43), (64, 42), (46, 43))
    s.brows(64, 48, width=3)
    s.eyes(64, 57, width=14)
    s.nose(64, 58, 77, width=13)
    s.lips(64, 87)


def bald(s: Sheet) -> None:
    """A bald man; his beard is part of the skin, as in all masks here."""
    s.shoulders(neck=40, width=126)
    s.ears(64, 58, 33)
    s.oval("skin", 64, 52, 64, 82)
    s.shape("skin", (34, 56), (94, 56), (90, 86), (76, 102), (52, 102), (38, 86))
    s.brows(64, 46, width=5, bow=2)
    s.eyes(64, 55)
    s.nose(64, 56, 77, width=17)
    s.lips(64, 86, width=25, smile=1)


def turned(s: Sheet) -> None:
    """A man who looks to the right of the picture, with short hair."""
    s.shape("neck", (42, 82), (74, 82), (78, 129), (38, 129))
    s.shape("cloth", (4, 129), (14, 112), (40, 104), (58, 116), (80, 106), (108, 114), (118, 129))
    s.oval("hair", 58, 44, 70, 66)
    s.shape("skin", (46, 34), (78, 28), (90, 42), (92, 66), (89, 88), (78, 101), (62, 96), (44, 80),
            (36, 62))  # fmt: skip
    s.shape("hair", (28, 64), (30, 34), (52, 14), (78, 16), (90, 30), (70, 34), (50, 40), (43, 68))
    s.oval("r_ear", 40, 66, 10, 20)
    s.line("r_brow", 4, (59, 47), (66, 45), (72, 48))
    s.line("l_brow", 4, (82, 48), (86, 46), (90, 49))
    s.oval("r_eye", 66, 56, 12, 6)
    s.oval("l_eye", 86, 56, 7, 6)
    s.shape("nose", (77, 54), (82, 55), (90, 74), (84, 78), (74, 75))
    s.lips(80, 87, width=19, smile=1)


def curly(s: Sheet) -> None:
    """A woman with a great deal of curls."""
    s.shoulders(top=110)
    s.oval("hair", 64, 48, 92, 82)
    for x, y in ((22, 62), (19, 44), (26, 26), (40, 13), (58, 7), (76, 8), (92, 16), (104, 30),
                 (108, 48), (104, 66), (96, 80), (30, 80)):  # fmt: skip
        s.oval("hair", x, y, 22, 20)
    s.shape("neck", (50, 84), (78, 84), (80, 106), (64, 114), (48, 106))
    s.oval("skin", 64, 64, 54, 74)
    s.brows(64, 48)
    s.eyes(64, 56, width=13, high=7)
    s.nose(64, 57, 77, width=18)
    s.lips(64, 87, width=26, smile=3)


def earrings(s: Sheet) -> None:
    """A woman with her hair up, earrings and a necklace."""
    s.shoulders(top=116, neck=28)
    s.oval("hair", 64, 14, 32, 24)
    s.oval("hair", 64, 44, 70, 58)
    s.ears(64, 62, 29)
    s.oval("skin", 64, 62, 54, 76)
    s.shape("hair", (34, 52), (38, 26), (64, 16), (90, 26), (94, 52), (84, 37), (64, 31), (46, 37))
    s.oval("ear_r", 35, 76, 6, 9)
    s.oval("ear_r", 94, 76, 6, 9)
    s.line("neck_l", 3, (48, 104), (56, 110), (64, 113), (73, 110), (80, 104))
    s.brows(64, 46, bow=4, width=3)
    s.eyes(64, 55, width=14, high=7)
    s.nose(64, 56, 75, width=13)
    s.lips(64, 85, smile=1)


def tie(s: Sheet) -> None:
    """A man with a collar and a tie, which are cloth, and a parting."""
    s.shape("neck", (46, 80), (82, 80), (84, 112), (64, 122), (44, 112))
    s.shape("cloth", (2, 129), (10, 114), (42, 102), (56, 120), (72, 120), (86, 102), (118, 114),
            (126, 129))  # fmt: skip
    s.shape("cloth", (58, 112), (70, 112), (74, 129), (54, 129))
    s.ears(64, 60, 32)
    s.oval("hair", 64, 40, 68, 60)
    s.shape("skin", (36, 46), (46, 32), (82, 30), (92, 46), (91, 72), (84, 90), (72, 100),
            (56, 100), (44, 90), (37, 72))  # fmt: skip
    s.shape("hair", (34, 52), (34, 28), (52, 12), (80, 14), (95, 32), (94, 50), (88, 36), (54, 34))
    s.brows(64, 46, bow=1, width=5)
    s.eyes(64, 55, width=12)
    s.nose(64, 56, 77)
    s.lips(64, 87, smile=0)


def sunglasses(s: Sheet) -> None:
    """A woman with a cap and dark glasses, who looks to the left of the picture."""
    s.shape("hair", (34, 100), (34, 40), (94, 36), (106, 64), (108, 108), (88, 112), (70, 80))
    s.shape("neck", (54, 84), (84, 82), (90, 129), (50, 129))
    s.shape("cloth", (10, 129), (22, 114), (52, 106), (68, 118), (88, 106), (112, 114), (122, 129))
    s.shape("skin", (38, 42), (82, 38), (86, 66), (80, 86), (62, 100), (48, 97), (40, 84), (37, 62))
    s.shape("hat", (36, 38), (42, 18), (60, 8), (84, 12), (98, 28), (100, 44), (70, 42))
    s.shape("hat", (18, 44), (34, 34), (76, 36), (74, 44), (40, 46))
    s.nose(52, 58, 77, width=13, lean=-4)
    s.oval("eye_g", 43, 58, 15, 14)
    s.oval("eye_g", 65, 58, 21, 15)
    s.line("eye_g", 3, (48, 55), (58, 55))
    s.line("eye_g", 3, (74, 56), (88, 54))
    s.lips(52, 86, width=20, smile=1)


PEOPLE: dict[str, tuple[Callable[[Sheet], None], str]] = {
    "glasses": (glasses, "a smiling woman with brown hair and glasses"),
    "hat": (hat, "an old man with gray hair who is wearing a hat"),
    "open_mouth": (open_mouth, "a young woman with blond hair and an open mouth"),
    "long_hair": (long_hair, "a woman with long hair, red hair and bangs"),
    "bald": (bald, "a man with a bald head and a full beard"),
    "turned": (turned, "a young man with black hair"),
    "curly": (curly, "a smiling woman with curly hair and dark skin"),
    "earrings": (earrings, "a woman with brown hair who is wearing earrings and a necklace"),
    "tie": (tie, "a man with brown hair who is wearing a tie"),
    "sunglasses": (sunglasses, "a woman with blond hair who is wearing sunglasses and a cap"),
}


def draw(name: str) -> torch.Tensor:
    """One of PEOPLE, (128, 128) uint8 class ids."""
    sheet = Sheet(name)
    PEOPLE[name][0](sheet)
    return torch.from_numpy(np.array(sheet.image))


def main(out: Path = Path("notebooks/hand_drawn")) -> None:
    """Draws all ten.

    Args:
        out: folder of the palette PNGs and captions.json
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in PEOPLE:
        write_whole(out / f"{name}.png", mask_to_image(draw(name)).save)
    captions = {f"{name}.png": caption for name, (_, caption) in PEOPLE.items()}
    write_text(out / CAPTIONS, json.dumps(captions, indent=2) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
