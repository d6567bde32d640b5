"""Masks of CelebAMask-HQ: per-part PNGs merged as the data set's authors do, or ready merged ones.

The authors' merge writes the parts one after the other in the order of their label list, every
non-zero pixel of a part overwriting what is there, with the position in the list as id. That list
is `dmgi_lib.masks.CLASSES` without the background: hair covers skin, cloth covers everything.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_prep.celebamask_hq.report import Damage, Note
from dmgi_lib.masks import CLASSES, OTHER_ORDER_TO_CLASSES, load_mask, looks_like_other_order

PARTS = CLASSES[1:]
SAMPLES_PER_FOLDER = 2000
MASK_SIZE = 512

# A part is two-valued. Resampled or re-encoded parts have a few values between, at edges; more than
# this share of the picture between a quarter and three quarters of the maximum is no mask.
MOST_GREY = 0.02

ORDERS = {"nose-2": False, "nose-10": True}  # name of a label order → is it the other one
ORDER_PROBES = 60  # merged masks that are looked at to tell their label order
CLASSES_TO_OTHER_ORDER = np.argsort(OTHER_ORDER_TO_CLASSES).astype(np.uint8)

READ_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    zlib.error,
    struct.error,
    Image.DecompressionBombError,
)  # what Pillow raises on damaged files


def open_picture(path: Path, mode: str, what: str) -> Image.Image:
    """A decoded picture in `mode`.

    Raises:
        Damage: "{what} missing", "{what} unreadable" or "{what} not square".
    """
    if not path.is_file():
        raise Damage(f"{what} missing", str(path))
    try:
        with Image.open(path) as picture:
            whole = picture.convert(mode)
    except READ_ERRORS as error:
        raise Damage(f"{what} unreadable", f"{path}: {error}") from error
    if whole.width != whole.height:
        raise Damage(f"{what} not square", f"{path} is {whole.width} x {whole.height}")
    return whole


def merge_parts(parts: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """The official merge.

    Args:
        parts: part name → (512, 512) bool.

    Returns:
        (512, 512) class ids 0..18.
    """
    ids = np.zeros((MASK_SIZE, MASK_SIZE), dtype=np.uint8)
    for class_id, part in enumerate(PARTS, start=1):
        if part in parts:
            ids[parts[part]] = class_id
    return ids


@dataclass(frozen=True)
class PartMasks:
    """`{folder}/{0..14}/{00000}_{part}.png`; a part without a file is not in the picture."""

    folder: Path

    @property
    def description(self) -> str:
        return "parts"

    def read(self, index: int) -> tuple[NDArray[np.uint8], list[Note]]:
        """(512, 512) class ids of a sample, and what had to be repaired.

        Raises:
            Damage: no part at all, or a part that is unreadable, not square or not a mask.
        """
        folder = self.folder / str(index // SAMPLES_PER_FOLDER)
        paths = {part: folder / f"{index:05d}_{part}.png" for part in PARTS}
        found = {part: path for part, path in paths.items() if path.is_file()}
        if not found:
            raise Damage("mask missing", f"no {folder}/{index:05d}_*.png")
        notes: list[Note] = []
        ids = merge_parts({part: _read_part(path, notes) for part, path in found.items()})
        if not ids.any():
            raise Damage("mask empty", f"all of {folder}/{index:05d}_*.png are black")
        return ids, notes


def _read_part(path: Path, notes: list[Note]) -> NDArray[np.bool_]:
    grey = np.asarray(open_picture(path, "L", "mask part"))
    top = int(grey.max())
    levels = np.unique(grey[grey > 0])
    if len(levels) > 1:
        doubtful = float(((grey > top / 4) & (grey < top * 3 / 4)).mean())
        if doubtful > MOST_GREY:
            raise Damage("mask part not binary", f"{path}: {doubtful:.0%} of it is grey")
        notes.append(("mask part not binary", f"{path.name}: {len(levels)} levels, cut in half"))
        part = grey > top / 2
    else:
        part = grey > 0
    if part.all():
        raise Damage("mask part fills the picture", str(path))
    if part.shape != (MASK_SIZE, MASK_SIZE):
        notes.append(("mask of another size", f"{path.name}: {len(part)}, expected {MASK_SIZE}"))
        resized = Image.fromarray(part).resize((MASK_SIZE, MASK_SIZE), Image.Resampling.NEAREST)
        part = np.asarray(resized)
    return part


@dataclass(frozen=True)
class MergedMasks:
    """`{folder}/{index}.png` or `{folder}/{00000}.png` with class ids, in either label order."""

    folder: Path
    other_order: bool

    @property
    def description(self) -> str:
        return "merged, nose-10" if self.other_order else "merged, nose-2"

    @classmethod
    def open(cls, folder: Path, label_order: str) -> MergedMasks:
        """Masks in a folder.

        Args:
            label_order: "nose-2", "nose-10", or "auto" to tell it from the pictures.

        Raises:
            FileNotFoundError: no masks there.
            ValueError: "auto" finds no clear majority.
        """
        paths = sorted(p for p in folder.glob("*.png") if p.stem.isdigit())
        if not paths:
            raise FileNotFoundError(f"{folder} holds no masks {{index}}.png; name another --masks.")
        if label_order != "auto":
            return cls(folder, ORDERS[label_order])
        return cls(folder, _tell_order(folder, paths[:: -(-len(paths) // ORDER_PROBES)]))

    def read(self, index: int) -> tuple[NDArray[np.uint8], list[Note]]:
        """(H, H) class ids of a sample in the order of `CLASSES`, and notes.

        Raises:
            Damage: missing, unreadable, not square, not class ids, or all background.
        """
        paths = [self.folder / f"{index}.png", self.folder / f"{index:05d}.png"]
        path = next((p for p in paths if p.is_file()), None)
        if path is None:
            raise Damage("mask missing", f"neither {paths[0]} nor {paths[1].name}")
        try:
            ids = _ids(path, None)
        except READ_ERRORS as error:
            raise Damage("mask not valid", f"{path}: {error}") from error
        if self.other_order:
            ids = OTHER_ORDER_TO_CLASSES[ids]
        if not ids.any():
            raise Damage("mask empty", f"{path} is background alone")
        notes: list[Note] = []
        if len(ids) != MASK_SIZE:
            notes.append(("mask of another size", f"{path.name}: {len(ids)}, expected {MASK_SIZE}"))
        if _votes(ids) == (True, False):
            notes.append(("label order doubtful", f"{path.name} looks like the other order"))
        return ids, notes


def _ids(path: Path, size: int | None) -> NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the other label order, which is looked for here anyway
        return load_mask(path, size=size).numpy()


def _votes(ids: NDArray[np.uint8]) -> tuple[bool, bool]:
    """Does a mask make sense in the other label order alone; in the order of `CLASSES` alone?"""
    return looks_like_other_order(ids), looks_like_other_order(CLASSES_TO_OTHER_ORDER[ids])


def _tell_order(folder: Path, paths: list[Path]) -> bool:
    """True if masks are in the other label order; at least nine in ten clear ones must agree."""
    other = own = 0
    for path in paths:
        try:
            votes = _votes(_ids(path, 128))
        except READ_ERRORS:
            continue  # reported when its turn comes
        other, own = other + votes[0], own + votes[1]
    if max(other, own) < 0.9 * (other + own) or 4 * (other + own) < len(paths):
        raise ValueError(
            f"of {len(paths)} masks looked at in {folder}, {own} are in the order nose = 2, hair ="
            f" 13 and {other} in the order nose = 10, hair = 17; expected one order. Look at the"
            " masks and name it with --label-order, or convert the parts without --masks."
        )
    return other > own
