"""Reader of the on-disk face dataset: ground truth (I, x, c) and labels of every sample.

    ROOT/{train,test}/00000-of-00006.parquet    shards; likewise styles/, views/ and train_views/
        image     128x128 RGB, WebP             each picture a struct {bytes, path}, so that
        mask      palette PNG, class id 0..18   `datasets.load_dataset("parquet", data_files=...)`
        scribble  "L" PNG, 0 or 255             opens it as a picture
        depth     16-bit PNG, 1/10,000 of a camera unit; not in what ships
        id, identity, captions, attributes, camera, shape_code, ...   one column a label

Reading needs pyarrow and Pillow, nothing of `data_prep`, which writes this format.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from dmgi_lib.checks import one_of
from dmgi_lib.shards import PICTURES, REQUIRED, Shards, shard_paths

# Of faces, and of what is worn on them: what networks read whose config names no attributes.
FACE_ATTRIBUTES: tuple[str, ...] = (
    "Bald", "Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Red_Hair", "Gray_Hair", "Wavy_Hair",
    "Straight_Hair", "Long_Hair", "Receding_Hairline", "Eyeglasses", "Sunglasses", "Goatee",
    "Mustache", "No_Beard", "Full_Beard", "Male", "Young", "Smiling", "Mouth_Slightly_Open",
    "Eyes_Closed", "Wearing_Lipstick", "Heavy_Makeup", "Wearing_Earrings", "Wearing_Hat",
    "Wearing_Necklace", "Bushy_Eyebrows", "Arched_Eyebrows", "Chubby", "Pale_Skin", "Dark_Skin",
    "Rosy_Cheeks", "Freckles", "Blue_Eyes", "Brown_Eyes", "Green_Eyes", "5_o_Clock_Shadow",
    "Bags_Under_Eyes", "Double_Chin", "Narrow_Eyes", "Sideburns", "Wearing_Necktie",
)  # fmt: skip
CLOTH_COLORS = (
    "Black", "Gray", "Red", "Green", "Teal", "Blue", "Purple", "Pink", "Brown", "Beige",
)  # fmt: skip
HAT_COLORS = ("Gray", "Red", "Green", "Blue", "Purple")
BACKDROP_COLORS = ("Gray", "Red", "Green", "Blue", "Purple", "Pink")
ATTRIBUTES: tuple[str, ...] = (
    *FACE_ATTRIBUTES, "White_Hair",
    "Suit", "Jacket", "Hoodie", "Turtleneck", "Shirt", "Collar", "Striped", "Checked",
    *(f"Cloth_{color}" for color in CLOTH_COLORS),
    "Beanie", "Brimmed_Hat", *(f"Hat_{color}" for color in HAT_COLORS), "Golden_Frames",
    "Plain_Backdrop", "Dark_Backdrop", *(f"Backdrop_{color}" for color in BACKDROP_COLORS),
    "Room", "Books", "Window", "Lamp", "Plant", "Garden", "Street", "Night",
)  # fmt: skip

SPLITS = ("train", "test")
# stylised renders; test identities from several cameras; training identities from several cameras
EXTRA_SPLITS = ("styles", "views", "train_views")
MODES = {"images": ("RGB",), "masks": ("P", "L"), "scribbles": ("L",), "depth": ("I;16",)}
MOST_PIXELS = 4096**2  # of a picture of unknown origin


def built_root() -> Path:
    """Where `make faces` puts the full set: $DMGI_FACES, else ~/.cache/dmgi/faces128."""
    return Path(os.environ.get("DMGI_FACES", "~/.cache/dmgi/faces128")).expanduser()


def shipped_root() -> Path:
    """The people that ship with the clone."""
    return Path(__file__).resolve().parents[1] / "data_prep" / "faces128" / "people"


def default_root() -> Path:
    """$DMGI_FACES if set; else the full set where both splits are built; else what ships."""
    whole = set(SPLITS) <= set(whole_splits(built_root()))
    return built_root() if whole or "DMGI_FACES" in os.environ else shipped_root()


def whole_splits(root: Path) -> list[str]:
    """The splits of a dataset that are there with all their shards."""

    def is_whole(split: str) -> bool:
        try:
            return bool(shard_paths(root / split))
        except FileNotFoundError:
            return False

    return [split for split in SPLITS + EXTRA_SPLITS if is_whole(split)]


class PictureFiles:
    """Pictures that are decoded whenever they are indexed, for sets larger than the memory.

    Args:
        shards: of N samples, with pictures of one size.
        kind: one of PICTURES.
    """

    def __init__(self, shards: Shards, kind: str) -> None:
        self.shards, self.kind = shards, kind

    def __len__(self) -> int:
        return len(self.shards)

    def encoded(self, rows: Any = slice(None)) -> list[bytes]:
        """The pictures' files, undecoded, for a slice, a list or an index tensor."""
        indices = torch.arange(len(self))[rows].tolist()
        found = dict(self.shards.files(PICTURES[self.kind], indices))
        return [found[row] for row in indices]

    def __getitem__(self, rows: Any) -> torch.Tensor:
        """One picture for an int; stacked pictures for a slice, a list or an index tensor."""
        if isinstance(rows, int):
            return self[[rows]][0]
        indices = torch.arange(len(self))[rows].tolist()
        with ThreadPoolExecutor(2) as pool:  # decoding releases the GIL
            pictures = list(pool.map(self._decoded, indices, self.encoded(indices)))
        shapes = {picture.shape for picture in pictures}
        if len(shapes) > 1:
            raise ValueError(f"{self.kind} came in sizes {sorted(shapes)}; expected one size.")
        return torch.from_numpy(np.stack(pictures))

    def _decoded(self, row: int, data: bytes) -> np.ndarray:
        try:
            return decode(data, self.kind)
        except ValueError as error:
            raise ValueError(f"{self.shards.place(row)}, {self.kind}: {error}") from error


class FaceDataset:
    """One split of a face dataset. Pictures are decoded once, on first use, and kept in memory.

    Kinds of pictures that would take more than `memory` GB stay on disk: then `images`, `masks`,
    `scribbles` or `depth` can only be indexed (`PictureFiles`), which is all that the method needs.

    Args:
        root: dataset folder; None means `default_root()`.
        split: "train" or "test" (identities of the two are disjoint), or one of EXTRA_SPLITS.
        memory: GB (10^9 bytes) for each kind of picture.

    Raises:
        ValueError: unknown split, a cut-off shard, or one that is not of a face dataset.
        FileNotFoundError: no dataset there, or not all of its shards.
    """

    def __init__(
        self, root: str | Path | None = None, split: str = "train", memory: float = 4.0
    ) -> None:
        self.root = Path(root).expanduser() if root is not None else default_root()
        self.split, self.memory = one_of("split", split, SPLITS + EXTRA_SPLITS), memory
        self.folder = self.root / split
        paths = shard_paths(self.folder)
        if not paths:
            loose = (self.folder / "metadata.jsonl").is_file()
            raise FileNotFoundError(
                f"no face dataset at {self.root} ({self.folder} holds"
                f" {'loose files of an earlier version' if loose else 'no parquet shards'}). Build"
                " it with `make faces`, convert CelebAMask-HQ anew, name another folder"
                f" (DMGI_FACES), or use what ships, {shipped_root()}."
            )
        self.shards = Shards(paths)
        if not len(self):
            raise ValueError(f"{self.folder} holds no samples; build it anew: `make faces`.")

    def __len__(self) -> int:
        return len(self.shards)

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """All labels of each sample, as they were written: id, identity, captions, camera, ..."""
        columns = [name for name in self.shards.columns if name not in PICTURES.values()]
        return [r for g in range(len(self.shards.groups)) for r in self._labels(g, columns)]

    def _labels(self, group: int, columns: list[str]) -> list[dict[str, Any]]:
        table = self.shards.read(group, columns)
        missing = [name for name in REQUIRED if table[name].null_count]
        if missing:
            path = self.shards.groups[group][0]
            raise ValueError(f"samples of {path} lack {missing}; build it anew: `make faces`.")
        records: list[dict[str, Any]] = table.to_pylist()
        return records

    @cached_property
    def digest(self) -> str:
        """16 hex digits that differ where labels or pictures do: what runs were made from."""
        digest = hashlib.sha256(json.dumps(self.records, sort_keys=True).encode())
        for kind, column in PICTURES.items():
            if self.has(kind):
                digest.update(kind.encode())
                for _, data in self.shards.files(column, list(range(len(self)))):
                    digest.update(hashlib.sha256(data).digest())
        return digest.hexdigest()[:16]

    def has(self, kind: str) -> bool:
        """Whether the split holds "images", "masks", "scribbles" or "depth"."""
        return PICTURES.get(kind) in self.shards.columns

    @cached_property
    def images(self) -> Any:
        """uint8 (N, 3, H, W), I."""
        return self._pictures("images")

    @cached_property
    def masks(self) -> Any:
        """uint8 (N, H, W), class ids 0..18."""
        return self._pictures("masks")

    @cached_property
    def scribbles(self) -> Any:
        """uint8 (N, H, W), 0 or 255."""
        return self._pictures("scribbles")

    @cached_property
    def depth(self) -> Any:
        """float32 (N, H, W), distance along the ray in camera units; 0 where there is nobody."""
        return self._pictures("depth")

    def encoded(self, kind: str, rows: Any = slice(None)) -> list[bytes]:
        """Picture files of a kind (see `has`) as they are stored, without decoding them."""
        return self._files(kind).encoded(rows)

    @cached_property
    def attributes(self) -> torch.Tensor:
        """int8 (N, len(ATTRIBUTES)): 1 true, 0 false, -1 unknown."""
        code = {True: 1, False: 0, None: -1}
        rows = [[code[r["attributes"].get(a)] for a in ATTRIBUTES] for r in self.records]
        return torch.tensor(rows, dtype=torch.int8)

    @cached_property
    def shape_codes(self) -> torch.Tensor:
        """float32 (N, 48): standardised head-shape parameters.

        Raises:
            ValueError: the data set does not know them (photographs).
        """
        return self._numbers(
            "shape_code", "no shape codes; only the rendered face world knows them"
        )

    @cached_property
    def cameras(self) -> torch.Tensor:
        """float32 (N, 25): EG3D's cameras, see `dmgi_lib.generators.eg3d.cameras`.

        Raises:
            ValueError: the data set does not know them (photographs).
        """
        lacks = (
            "samples without a camera, but heads in three dimensions are learnt from known ones;"
            " only the rendered face world has them"
        )
        return self._numbers("camera", lacks)

    @cached_property
    def identities(self) -> torch.Tensor:
        """int64 (N,): the identity of each sample; two views of one person share it."""
        return torch.tensor([int(r["identity"]) for r in self.records])

    @property
    def captions(self) -> list[list[str]]:
        """All captions of each sample."""
        return [r["captions"] for r in self.records]

    def first_views(self) -> torch.Tensor:
        """int64 indices of the first sample of each identity, in file order."""
        seen: dict[int, int] = {}
        for index, record in enumerate(self.records):
            seen.setdefault(int(record["identity"]), index)
        return torch.tensor(list(seen.values()), dtype=torch.int64)

    def _numbers(self, column: str, lacks: str) -> torch.Tensor:
        rows = [record.get(column) for record in self.records]
        if None in rows:
            raise ValueError(f"{self.folder} holds {lacks}.")
        return torch.tensor(rows, dtype=torch.float32)

    def _files(self, kind: str) -> PictureFiles:
        if not self.has(kind):
            raise FileNotFoundError(f"{self.folder} holds no {kind}; build the set with them.")
        return PictureFiles(self.shards, kind)

    def _pictures(self, kind: str) -> torch.Tensor | PictureFiles:
        files = self._files(kind)
        size = len(files) * files[0].nbytes
        return files if size > self.memory * 1e9 else files[:]


def decode(data: bytes, kind: str) -> np.ndarray:
    """A picture file → (3, H, W) uint8 for images, (H, W) uint8 or, for depth, float32.

    Raises:
        ValueError: no WebP, PNG or JPEG file, cut off, too large, or of another mode.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("WEBP", "PNG", "JPEG")) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} px, at most {MOST_PIXELS:,} px")
            if image.mode not in MODES[kind]:
                raise ValueError(f"mode {image.mode}, expected {' or '.join(MODES[kind])}")
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ValueError(f"the picture cannot be read ({error})") from error
    if kind == "depth":
        return pixels.astype(np.float32) / 10_000
    return pixels.transpose(2, 0, 1).copy() if pixels.ndim == 3 else pixels.copy()


def resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """Float pictures (B, C, H, W) → (B, C, size, size), low-pass filtered where they shrink."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 pictures 0..255 → float in [-1, 1], the range that networks see."""
    return images.float() / 127.5 - 1.0


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Float pictures in [-1, 1] (clamped) → uint8 0..255."""
    return ((images.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
