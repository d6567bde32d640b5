"""The pictures of one sample: image, mask and scribble in the face world's format."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_prep.celebamask_hq.report import Damage, Note
from data_prep.celebamask_hq.source_masks import MergedMasks, PartMasks, open_picture
from data_prep.scribbles import scribble
from dmgi_lib.masks import CLASSES, PALETTE

KINDS = {"images": "webp", "masks": "png", "scribbles": "png", "records": "json"}


@dataclass(frozen=True)
class Pictures:
    """Where pictures come from and where they go.

    A sample's record is written after its pictures, so what has a record is whole.

    Attributes:
        images: folder CelebA-HQ-img.
        masks: where masks come from.
        out: root of the data set to write.
        size: edge of all pictures written, in pixels.
    """

    images: Path
    masks: PartMasks | MergedMasks
    out: Path
    size: int

    def path(self, index: int, split: str, kind: str) -> Path:
        """Where a file of a sample is written; `kind` is one of KINDS."""
        return self.out / split / kind / f"{sample_name(index)}.{KINDS[kind]}"

    def is_done(self, index: int, split: str) -> bool:
        """True if all files of a sample are there."""
        return all(self.path(index, split, kind).is_file() for kind in KINDS)

    def convert(self, sample: tuple[int, str]) -> Damage | None:
        """Writes image, mask, scribble and record of a sample (index, split), or says why not."""
        index, split = sample
        size = (self.size, self.size)
        try:
            image = open_picture(self.images / f"{index}.jpg", "RGB", "image")
            ids, notes = self.masks.read(index)
        except Damage as damage:
            return damage
        if image.width < self.size:
            notes.append(("image enlarged", f"{index}.jpg: from {image.width} to {self.size}"))
        image = image.resize(size, Image.Resampling.LANCZOS)
        mask = Image.fromarray(ids).resize(size, Image.Resampling.NEAREST)
        strokes = scribble(np.asarray(mask), np.asarray(image))
        mask.putpalette(PALETTE.tobytes())  # "L" becomes "P", ids stay
        files = {
            "images": _encoded(image, "WEBP", quality=94, method=4),
            "masks": _encoded(mask, "PNG", optimize=True),
            "scribbles": _encoded(Image.fromarray(strokes), "PNG", optimize=True),
            "records": _record(ids, notes),
        }
        for kind, data in files.items():
            write(self.path(index, split, kind), data)
        return None

    def record(self, index: int, split: str) -> tuple[list[str], list[Note]]:
        """Mask classes in a converted sample, and what was repaired in it."""
        made = json.loads(self.path(index, split, "records").read_text(encoding="utf-8"))
        return made["classes"], [(kind, detail) for kind, detail in made["notes"]]


def sample_name(index: int) -> str:
    """The id of a sample on disk: six digits."""
    return f"{index:06d}"


def write(path: Path, data: bytes) -> None:
    """Writes a file whole: to a temporary name first, which is renamed or removed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _record(ids: np.ndarray, notes: list[Note]) -> bytes:
    return json.dumps({"classes": [CLASSES[i] for i in np.unique(ids)], "notes": notes}).encode()


def _encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()
