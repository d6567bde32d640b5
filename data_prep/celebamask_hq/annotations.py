"""The text files of CelebA, CelebAMask-HQ, Multi-Modal-CelebA-HQ and EG3D, joined by sample.

A file whose last line is cut off is used up to there, with a remark; any other line that does not
parse is an error, because then the file is not what it should be.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from data_prep.celebamask_hq.report import Damage, Note
from dmgi_lib.dataset import ATTRIBUTES

CAPTIONS_PER_SAMPLE = 10
CAMERA_NUMBERS = 25  # 4x4 camera-to-world matrix, 3x3 normalised intrinsics

# CelebA's validation part trains: the kit has two splits, and tests never touch it. Our choice.
SPLIT_OF_PARTITION = {"0": "train", "1": "train", "2": "test"}

HAIR_COLORS = {
    "Black_Hair": "black",
    "Blond_Hair": "blond",
    "Brown_Hair": "brown",
    "Gray_Hair": "gray",
}

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True)
class Annotations:
    """All that is known of the samples besides their pictures.

    Attributes:
        files: CelebA-HQ index → CelebA file name ("119614.jpg").
        splits: CelebA file name → "train" or "test".
        attributes: index → CelebA attribute → bool.
        captions: folder of `{index}.txt`.
        cameras: index → 25 floats, EG3D's convention.
        identities: CelebA file name → identity, or None: every sample is its own identity.
        remarks: what is odd about the files as a whole.
    """

    files: dict[int, str]
    splits: dict[str, str]
    attributes: dict[int, dict[str, bool]]
    captions: Path
    cameras: dict[int, list[float]]
    identities: dict[str, int] | None
    remarks: list[str]

    @classmethod
    def read(
        cls,
        source: Path,
        captions: Path,
        partition: Path,
        cameras: Path | None,
        identities: Path | None,
    ) -> Annotations:
        """Reads everything but the captions.

        Args:
            source: the folder CelebAMask-HQ.
            captions: the folder celeba-caption, or one that holds it.
            partition: list_eval_partition of CelebA, .txt or .csv.
            cameras: dataset.json, or None for no cameras.
            identities: identity_CelebA.txt, or None.

        Raises:
            FileNotFoundError: a file or folder is not there.
            ValueError: a file is not what its name says.
        """
        _require(
            partition,
            "It is list_eval_partition.txt of CelebA (Img/Eval folder of its download), which gives"
            " the train/test split; name it with --partition.",
        )
        mapping = source / "CelebA-HQ-to-CelebA-mapping.txt"
        files, remarks = _table(mapping, _mapping_row, header=r"idx\s")
        splits, more = _table(partition, _partition_row, header=r"image_id\b")
        remarks += more
        attributes, more = _attributes(source / "CelebAMask-HQ-attribute-anno.txt")
        remarks += more
        people: dict[str, int] | None = None
        if identities is not None:
            people, more = _table(identities, _identity_row)
            remarks += more
        return cls(
            files=files,
            splits=splits,
            attributes=attributes,
            captions=_captions_folder(captions),
            cameras={} if cameras is None else _cameras(cameras),
            identities=people,
            remarks=remarks,
        )

    def join(self, index: int) -> tuple[str, dict[str, Any], list[Note]]:
        """Split, metadata record (without the id) and notes of a sample.

        Raises:
            Damage: nothing says to which split it belongs, or it has no captions.
        """
        notes: list[Note] = []
        file = self.files.get(index)
        if file is None:
            raise Damage("not in the mapping file", f"no row {index}: {len(self.files)} rows read")
        if file not in self.splits:
            raise Damage("not in the partition file", f"no row {file}")
        if self.identities is not None and file not in self.identities:
            raise Damage("not in the identity file", f"no row {file}")
        captions = self._captions(index)
        if len(captions) < CAPTIONS_PER_SAMPLE:
            notes.append(("fewer captions", f"{len(captions)}, expected {CAPTIONS_PER_SAMPLE}"))
        known = self.attributes.get(index)
        if known is None:
            notes.append(("no attributes", f"no row {index}.jpg, all set to unknown"))
        record = {
            "identity": index if self.identities is None else self.identities[file],
            "captions": captions,
            "attributes": {name: (known or {}).get(name) for name in ATTRIBUTES},
            "camera": self.cameras.get(index),
            "hair_color": hair_color(known or {}),
            "style": "photo",
            "celeba_file": file,
        }
        return self.splits[file], record, notes

    def _captions(self, index: int) -> list[str]:
        path = self.captions / f"{index}.txt"
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            raise Damage("captions missing", str(path)) from None
        except (OSError, UnicodeDecodeError) as error:
            raise Damage("captions unreadable", f"{path}: {error}") from error
        captions = [line.strip() for line in text.splitlines() if line.strip()]
        if not captions:
            raise Damage("captions missing", f"{path} is empty")
        return captions


def hair_color(attributes: dict[str, bool]) -> str | None:
    """The one colour that CelebA names; "none" for bald heads, None if it names none or several."""
    if attributes.get("Bald"):
        return "none"
    colors = [color for name, color in HAIR_COLORS.items() if attributes.get(name)]
    return colors[0] if len(colors) == 1 else None


def _require(path: Path, how: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. {how}")


def _table(
    path: Path,
    parse: Callable[[list[str]], tuple[K, V]],
    header: str | None = None,
    skip: int = 0,
) -> tuple[dict[K, V], list[str]]:
    """Rows of a table, and a remark if its last line is cut off.

    Args:
        parse: fields of a line → key, value; ValueError if they are not a row of this table.
        header: pattern of a first line that is no row.
        skip: number of lines before the first row.
    """
    _require(path, "Unpack the whole download.")
    rows: dict[K, V] = {}
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    last = max((n for n, line in enumerate(lines) if line.strip()), default=-1)
    for n, line in enumerate(lines):
        if n < skip or not line.strip() or (n == 0 and header and re.match(header, line)):
            continue
        try:
            key, value = parse(re.split(r"[,\s]+", line.strip()))
        except ValueError as error:
            if n == last and rows:
                remark = f"{path.name} is cut off in line {n + 1}; {len(rows)} rows are used"
                return rows, [remark]
            raise ValueError(
                f"{path}, line {n + 1} is {line[:60]!r}; {error}. Get the file anew."
            ) from error
        if key in rows:
            raise ValueError(f"{path}, line {n + 1}: {key} occurs twice. Get the file anew.")
        rows[key] = value
    if not rows:
        raise ValueError(f"{path} holds no rows. Get the file anew.")
    return rows, []


def _mapping_row(fields: list[str]) -> tuple[int, str]:
    if len(fields) != 3 or fields[2] != f"{int(fields[1]) + 1:06d}.jpg":
        raise ValueError("expected 'idx orig_idx orig_file' as in '0 119613 119614.jpg'")
    return int(fields[0]), fields[2]


def _partition_row(fields: list[str]) -> tuple[str, str]:
    if len(fields) != 2 or fields[1] not in SPLIT_OF_PARTITION or not fields[0].endswith(".jpg"):
        raise ValueError("expected a file name and 0, 1 or 2 as in '000001.jpg 0'")
    return fields[0], SPLIT_OF_PARTITION[fields[1]]


def _identity_row(fields: list[str]) -> tuple[str, int]:
    if len(fields) != 2 or not fields[1].isdigit() or not fields[0].endswith(".jpg"):
        raise ValueError("expected a file name and a number as in '000001.jpg 2880'")
    return fields[0], int(fields[1])


def _attributes(path: Path) -> tuple[dict[int, dict[str, bool]], list[str]]:
    _require(path, "Unpack the whole download.")
    head = path.read_text(encoding="utf-8-sig").splitlines()[:2]
    names = head[1].split() if len(head) == 2 else []
    known = set(names) & set(ATTRIBUTES)
    if not known or not head[0].strip().isdigit():
        raise ValueError(
            f"{path} starts with {head}; expected a line with the number of samples and a line with"
            " CelebA's attribute names. Get the file anew."
        )

    def row(fields: list[str]) -> tuple[int, dict[str, bool]]:
        number, values = re.fullmatch(r"(\d+)\.jpg", fields[0]), fields[1:]
        if number is None or len(values) != len(names) or not set(values) <= {"1", "-1"}:
            raise ValueError(f"expected a file name and {len(names)} times 1 or -1")
        pairs = zip(names, values, strict=True)
        return int(number[1]), {name: value == "1" for name, value in pairs if name in known}

    rows, remarks = _table(path, row, skip=2)
    if len(rows) != int(head[0]):
        remarks.append(f"{path.name} announces {int(head[0])} rows and holds {len(rows)}")
    return rows, remarks


def _captions_folder(folder: Path) -> Path:
    for candidate in (folder / "text" / "celeba-caption", folder / "celeba-caption", folder):
        if candidate.is_dir() and any(candidate.glob("[0-9]*.txt")):
            return candidate
    raise FileNotFoundError(
        f"{folder} holds no captions {{index}}.txt; name the folder celeba-caption of"
        " Multi-Modal-CelebA-HQ with --captions."
    )


def _cameras(path: Path) -> dict[int, list[float]]:
    """EG3D's dataset.json, by the CelebA-HQ index in the file names; mirror images are left out."""
    _require(path, "It is EG3D's camera file; leave --cameras out if there is none.")
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
        entries = [(str(name), [float(x) for x in camera]) for name, camera in labels]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a dataset.json of EG3D ({type(error).__name__}: {error}); expected"
            ' {"labels": [["00000/img00000000.png", [25 numbers]], ...]}.'
        ) from error
    cameras: dict[int, list[float]] = {}
    for name, camera in entries:
        stem = Path(name).stem
        if stem.endswith("_mirror"):
            continue
        number = re.fullmatch(r"(?:img)?(\d+)", stem)
        if number is None or len(camera) != CAMERA_NUMBERS or not all(map(math.isfinite, camera)):
            raise ValueError(
                f"{path}: the entry {name!r} has {len(camera)} numbers; expected a file name with"
                f" the CelebA-HQ index, as in '00000/img00000012.png', and {CAMERA_NUMBERS} finite"
                " numbers."
            )
        if int(number[1]) in cameras:
            raise ValueError(f"{path} has two cameras for sample {int(number[1])}; keep one.")
        cameras[int(number[1])] = camera
    return cameras
