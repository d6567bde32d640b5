"""The pictures of one sample: image, mask and scribble in the face world's format."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_prep.celebamask_hq.report import Damage
from data_prep.celebamask_hq.source_masks import MergedMasks, PartMasks, open_picture
from data_prep.scribbles import scribble
from data_prep.shard_writer import SHARD, Sample, Split
from dmgi_lib.masks import CLASSES, PALETTE

SHARD_PIXELS = 2**26  # of the pictures of a shard: 256 of 512 px, which is 10 to 25 MB


@dataclass(frozen=True)
class Pictures:
    """Where pictures come from and where they go.

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

    def split(self, name: str) -> Split:
        """A split of the data set to write."""
        return Split(self.out / name, min(SHARD, SHARD_PIXELS // self.size**2))

    def convert(self, sample: tuple[str, Sample]) -> Damage | None:
        """Adds image, mask and scribble to (split, record) and the split's spool, or says why not.

        What the mask held and what was repaired goes with it, as `classes` and `notes`.
        """
        split, record = sample
        index, size = int(record["id"]), (self.size, self.size)
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
        made = {
            "image": _encoded(image, "WEBP", quality=94, method=4),
            "mask": _encoded(mask, "PNG", optimize=True),
            "scribble": _encoded(Image.fromarray(strokes), "PNG", optimize=True),
            "classes": [CLASSES[i] for i in np.unique(ids)],
            "notes": [list(note) for note in notes],
        }
        self.split(split).add(record | made)
        return None


def sample_name(index: int) -> str:
    """The id of a sample on disk: six digits."""
    return f"{index:06d}"


def _encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()
