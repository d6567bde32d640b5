"""Reader of the on-disk face dataset: ground truth (I, x, c) and labels of every sample.

    ROOT/{train,test}/metadata.jsonl            one JSON object a line; likewise styles/ and views/
    ROOT/{train,test}/images/000123.webp        128x128 RGB
    ROOT/{train,test}/masks/000123.png          palette PNG, pixel value = class id 0..18
    ROOT/{train,test}/scribbles/000123.png      "L", 0 or 255

Reading needs nothing of `data_prep`, which writes this format.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dmgi_lib.files import file_hash

ATTRIBUTES: tuple[str, ...] = (
    "Bald",
    "Bangs",
    "Black_Hair",
    "Blond_Hair",
    "Brown_Hair",
    "Red_Hair",
    "Gray_Hair",
    "Wavy_Hair",
    "Straight_Hair",
    "Long_Hair",
    "Receding_Hairline",
    "Eyeglasses",
    "Sunglasses",
    "Goatee",
    "Mustache",
    "No_Beard",
    "Full_Beard",
    "Male",
    "Young",
    "Smiling",
    "Mouth_Slightly_Open",
    "Eyes_Closed",
    "Wearing_Lipstick",
    "Heavy_Makeup",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Necklace",
    "Bushy_Eyebrows",
    "Arched_Eyebrows",
    "Chubby",
    "Pale_Skin",
    "Dark_Skin",
    "Rosy_Cheeks",
    "Freckles",
    "Blue_Eyes",
    "Brown_Eyes",
    "Green_Eyes",
    "5_o_Clock_Shadow",
    "Bags_Under_Eyes",
    "Double_Chin",
    "Narrow_Eyes",
    "Sideburns",
    "Wearing_Necktie",
)

SPLITS = ("train", "test")
EXTRA_SPLITS = ("styles", "views")  # stylised renders; test identities from several cameras
REQUIRED_KEYS = ("id", "identity", "captions", "attributes")


def built_root() -> Path:
    """Where `make faces` puts the full set: $DMGI_FACES, else ~/.cache/dmgi/faces128."""
    return Path(os.environ.get("DMGI_FACES", "~/.cache/dmgi/faces128")).expanduser()


def shipped_root() -> Path:
    """The people that ship with the clone."""
    return Path(__file__).resolve().parents[1] / "data_prep" / "faces128" / "people"


def default_root() -> Path:
    """$DMGI_FACES if set; else the full set where both splits are built; else what ships."""
    whole = all((built_root() / split / "metadata.jsonl").is_file() for split in SPLITS)
    return built_root() if whole or "DMGI_FACES" in os.environ else shipped_root()


class PictureFiles:
    """Pictures that are decoded whenever they are indexed, for sets larger than the memory.

    Args:
        paths: of N pictures of one size.  read: path → (H, W) or (3, H, W) uint8.
    """

    def __init__(self, paths: list[Path], read: Callable[[Path], np.ndarray]) -> None:
        self.paths, self.read = paths, read

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: Any) -> torch.Tensor:
        """One picture for an int; stacked pictures for a slice, a list or an index tensor."""
        if isinstance(rows, int):
            return torch.from_numpy(self.read(self.paths[rows]))
        indices = torch.arange(len(self))[rows].tolist()
        with ThreadPoolExecutor(2) as pool:  # decoding releases the GIL
            pictures = list(pool.map(self.read, (self.paths[i] for i in indices)))
        return torch.from_numpy(np.stack(pictures))


class FaceDataset:
    """One split of a face dataset. Pictures are decoded once, on first use, and kept as uint8.

    Kinds of pictures that would take more than `memory` GB stay on disk: then `images`, `masks` or
    `scribbles` can only be indexed (`PictureFiles`), which is all that the method needs.

    Args:
        root: dataset folder; None means `default_root()`.
        split: "train" or "test" (identities of the two are disjoint), or one of EXTRA_SPLITS.
        memory: GB (10^9 bytes) for each kind of picture.

    Raises:
        ValueError: unknown split, or a broken metadata line.
        FileNotFoundError: no dataset there, or a picture is missing.
    """

    def __init__(
        self, root: str | Path | None = None, split: str = "train", memory: float = 4.0
    ) -> None:
        if split not in SPLITS + EXTRA_SPLITS:
            raise ValueError(f"split came as {split!r}; expected one of {SPLITS + EXTRA_SPLITS}.")
        self.root = Path(root).expanduser() if root is not None else default_root()
        self.split, self.memory = split, memory
        self.folder = self.root / split
        metadata = self.folder / "metadata.jsonl"
        if not metadata.is_file():
            raise FileNotFoundError(
                f"no face dataset at {self.root} ({metadata} is missing). Build it with `make"
                " faces`, name another folder (DMGI_FACES), or use what ships,"
                f" {shipped_root()}."
            )
        self.records: list[dict[str, Any]] = _read_metadata(metadata)

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def digest(self) -> str:
        """16 hex digits that differ where the labels of the split do: what runs were made from."""
        return file_hash(self.folder / "metadata.jsonl")

    def has(self, kind: str) -> bool:
        """Whether the split holds "images", "masks", "scribbles" or "depth"."""
        return (self.folder / kind).is_dir()

    @cached_property
    def images(self) -> Any:
        """uint8 (N, 3, H, W), I."""
        return self._pictures("images", "webp", "RGB")

    @cached_property
    def masks(self) -> Any:
        """uint8 (N, H, W), class ids 0..18."""
        return self._pictures("masks", "png", None)

    @cached_property
    def scribbles(self) -> Any:
        """uint8 (N, H, W), 0 or 255."""
        return self._pictures("scribbles", "png", "L")

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
        if any("shape_code" not in r for r in self.records):
            raise ValueError(
                f"{self.folder} holds no shape codes; only the rendered face world knows them."
            )
        return torch.tensor([r["shape_code"] for r in self.records], dtype=torch.float32)

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

    def _pictures(self, folder: str, suffix: str, mode: str | None) -> torch.Tensor | PictureFiles:
        def read(path: Path) -> np.ndarray:
            if not path.is_file():
                raise FileNotFoundError(
                    f"{path} is missing although metadata.jsonl names it; run `make faces` again,"
                    " it completes an interrupted build."
                )
            with Image.open(path) as image:
                pixels = np.asarray(image if mode is None else image.convert(mode))
            pixels = pixels.astype(np.uint8)
            return pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy()

        paths = [self.folder / folder / f"{r['id']}.{suffix}" for r in self.records]
        files = PictureFiles(paths, read)
        return files if len(files) * read(paths[0]).nbytes > self.memory * 1e9 else files[:]


def _read_metadata(path: Path) -> list[dict[str, Any]]:
    records = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                missing = [key for key in REQUIRED_KEYS if key not in record]
            except (json.JSONDecodeError, TypeError) as error:
                raise ValueError(f"{path}, line {number} is not a JSON object: {error}") from error
            if missing:
                raise ValueError(
                    f"{path}, line {number} lacks {missing}; rebuild it: `make faces`."
                )
            records.append(record)
    if not records:
        raise ValueError(f"{path} holds no samples; rebuild it: `make faces`.")
    return records


def to_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 pictures 0..255 → float in [-1, 1], the range that networks see."""
    return images.float() / 127.5 - 1.0


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Float pictures in [-1, 1] (clamped) → uint8 0..255."""
    return ((images.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
