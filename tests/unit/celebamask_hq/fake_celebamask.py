"""Writes a small download of CelebAMask-HQ and what belongs to it, in the official layout.

Names, folders, sizes, table headers and column widths are those of the real download; the faces are
drawn from ellipses, and of the 30,000 samples only a few are there.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

# label_list of the official g_mask.py; the id of a part is its position here plus one
OFFICIAL_LABELS = (
    "skin nose eye_g l_eye r_eye l_brow r_brow l_ear r_ear mouth u_lip l_lip hair hat ear_r neck_l"
    " neck cloth"
)
OFFICIAL_LABEL_LIST = OFFICIAL_LABELS.split()
# the other order in circulation
OTHER_LABELS = (
    "skin l_brow r_brow l_eye r_eye eye_g l_ear r_ear ear_r nose mouth u_lip l_lip neck neck_l"
    " cloth hair hat"
)
OTHER_LABEL_LIST = OTHER_LABELS.split()
CELEBA_HEADER = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose"
    " Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee"
    " Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard"
    " Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair"
    " Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie"
    " Young"
)
CELEBA_ATTRIBUTES = CELEBA_HEADER.split()
# CelebA-HQ index → position in CelebA; CelebA's parts begin at 000001, 162771 and 182638.jpg
ORIGINALS = {0: 119613, 1: 99094, 2: 200121, 1999: 162770, 2000: 182637, 29999: 7}
PARTITION = {0: 0, 1: 0, 2: 2, 1999: 1, 2000: 2, 29999: 0}
TRUE_ATTRIBUTES = {
    0: {"Black_Hair", "Smiling", "Young"},
    1: {"Bald", "Male", "Eyeglasses"},
    2: {"Blond_Hair", "Wearing_Lipstick", "Young"},
    1999: {"Brown_Hair", "Black_Hair", "Male"},
    2000: {"Gray_Hair", "Wearing_Hat"},
    29999: {"Young", "Wearing_Necktie"},
}


def celeba_file(index: int) -> str:
    return f"{ORIGINALS[index] + 1:06d}.jpg"


def camera(index: int) -> list[float]:
    return [index + n / 100 for n in range(25)]


def captions(index: int) -> list[str]:
    return [f"Caption {n} of the picture {index}." for n in range(10)]


def parts(index: int) -> dict[str, np.ndarray]:
    """Part name → (512, 512) bool; parts overlap as in the real masks, skin runs below all."""
    y, x = np.mgrid[:512, :512].astype(float)
    cx = 256 + index % 7

    def ellipse(dx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return ((x - cx - dx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1

    face = {
        "skin": ellipse(0, 270, 120, 160),
        "nose": ellipse(0, 280, 20, 40),
        "l_eye": ellipse(50, 240, 22, 10),
        "r_eye": ellipse(-50, 240, 22, 10),
        "l_brow": ellipse(50, 205, 30, 7),
        "r_brow": ellipse(-50, 205, 30, 7),
        "l_ear": ellipse(122, 260, 14, 35),
        "r_ear": ellipse(-122, 260, 14, 35),
        "mouth": ellipse(0, 350, 35, 6),
        "u_lip": ellipse(0, 343, 42, 8),
        "l_lip": ellipse(0, 358, 40, 9),
        "hair": ellipse(0, 170, 160, 130) & (y < 190),
        "neck": ellipse(0, 440, 60, 60),
        "cloth": (y > 470) & (np.abs(x - cx) < 220),
    }
    if index == 1:
        face["eye_g"] = ellipse(50, 240, 34, 22) | ellipse(-50, 240, 34, 22)
    if index == 2000:
        face |= {
            "hat": ellipse(0, 100, 170, 70),
            "ear_r": ellipse(125, 305, 6, 10),
            "neck_l": ellipse(0, 420, 50, 8),
        }
    return face


def merged(index: int, label_list: list[str]) -> np.ndarray:
    """(512, 512) ids: the official merge, with the ids of `label_list`."""
    ids = np.zeros((512, 512), np.uint8)
    found = parts(index)
    for name in OFFICIAL_LABEL_LIST:
        if name in found:
            ids[found[name]] = label_list.index(name) + 1
    return ids


def picture(index: int, size: int = 1024) -> Image.Image:
    """A smooth RGB picture, another one for every sample."""
    y, x = np.mgrid[:size, :size] / size
    red = np.full_like(x, (index % 11) / 11)
    return Image.fromarray((np.stack([red, x, y], axis=-1) * 255).astype(np.uint8))


def part_path(root: Path, index: int, part: str) -> Path:
    folder = root / "CelebAMask-HQ" / "CelebAMask-HQ-mask-anno" / str(index // 2000)
    return folder / f"{index:05d}_{part}.png"


def write_merged(folder: Path, label_list: list[str], indices: tuple[int, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in indices:
        Image.fromarray(merged(index, label_list)).save(folder / f"{index}.png")


def write_download(root: Path) -> None:
    """The whole download: CelebAMask-HQ, captions, partition, identities and cameras."""
    source = root / "CelebAMask-HQ"
    (source / "CelebA-HQ-img").mkdir(parents=True)
    (root / "celeba-caption").mkdir()
    for folder in range(15):
        (source / "CelebAMask-HQ-mask-anno" / str(folder)).mkdir(parents=True)
    mapping = ["idx          orig_idx    orig_file"]
    attributes = [str(len(ORIGINALS)), CELEBA_HEADER]
    poses = [str(len(ORIGINALS)), "Yaw Pitch Raw"]
    for index in ORIGINALS:
        picture(index).save(source / "CelebA-HQ-img" / f"{index}.jpg", quality=95)
        for part, pixels in parts(index).items():
            part_png = Image.fromarray(pixels.astype(np.uint8) * 255).convert("RGB")
            part_png.save(part_path(root, index, part))
        mapping.append(f"{index:<13}{ORIGINALS[index]:<12}{celeba_file(index)}")
        values = [" 1" if a in TRUE_ATTRIBUTES[index] else "-1" for a in CELEBA_ATTRIBUTES]
        attributes.append(f"{index}.jpg  " + " ".join(values) + " ")
        poses.append(f"{index}.jpg 3.18 -1.85 0.62")
        lines = "\n".join(captions(index))
        (root / "celeba-caption" / f"{index}.txt").write_text(lines + "\n")
    (source / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(mapping) + "\n")
    (source / "CelebAMask-HQ-attribute-anno.txt").write_text("\n".join(attributes) + "\n")
    (source / "CelebAMask-HQ-pose-anno.txt").write_text("\n".join(poses) + "\n")
    partition = [f"{celeba_file(i)} {part}" for i, part in PARTITION.items()]
    (root / "list_eval_partition.txt").write_text("\n".join(partition) + "\n")
    people = [f"{celeba_file(i)} {5000 + i % 2}" for i in ORIGINALS]
    (root / "identity_CelebA.txt").write_text("\n".join(people) + "\n")
    labels: list[tuple[str, list[float]]] = []
    for index in set(ORIGINALS) - {2000}:  # one has no camera
        for ending in ("", "_mirror"):
            name = f"{index // 1000:05d}/img{index:08d}{ending}.png"
            labels.append((name, camera(index) if not ending else [0.0] * 25))
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))
