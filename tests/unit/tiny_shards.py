"""Face datasets of a few samples, and changes to what their shards hold."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_models import face_mask

from data_prep.shard_writer import Sample, read_shard, write_shard
from dmgi_lib.masks import mask_to_image


def encoded(picture: Image.Image | np.ndarray, file_format: str = "PNG", **options: bool) -> bytes:
    """The file of a picture."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    """The picture of a file."""
    return Image.open(io.BytesIO(data))


def sample(number: int, color: tuple[int, int, int] = (90, 90, 200), **labels: object) -> Sample:
    """A sample of one colour, with the mask of `face_mask` and one white line as scribble."""
    strokes = np.zeros((128, 128), np.uint8)
    strokes[number % 128] = 255
    return {
        "id": f"{number:06d}",
        "identity": number,
        "captions": [f"caption {number}"] * 5,
        "attributes": {},
        "image": encoded(np.full((128, 128, 3), color, np.uint8), "WEBP", lossless=True),
        "mask": encoded(mask_to_image(face_mask())),
        "scribble": encoded(strokes),
        **labels,
    }


def rewrite(folder: Path, change: Callable[[Sample], Sample | None]) -> None:
    """Every sample of a split becomes what `change` makes of it, or goes where that is None."""
    for path in sorted(folder.glob("*.parquet")):
        changed = [change(sample) for sample in read_shard(path)]
        write_shard(path, [sample for sample in changed if sample is not None])


def files(root: Path) -> dict[str, bytes]:
    """Every file below a folder: relative path → content."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
