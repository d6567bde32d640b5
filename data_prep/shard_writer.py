"""Writes splits of a face dataset: parquet shards that `dmgi_lib.dataset` and `datasets` read.

A sample is a dict of its labels and its pictures' files: {"id": "000001", "image": b"RIFF...",
"mask": b"...PNG...", "captions": [...], ...}. While a split is made, finished samples wait in a
spool, a file each, so that a killed run loses only those in the making. Equal samples give equal
shards, byte by byte (with one version of pyarrow), whoever made them in whatever order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dmgi_lib.dataset import ATTRIBUTES
from dmgi_lib.files import write_whole
from dmgi_lib.shards import PICTURES, Shards, shard_name

Sample = dict[str, Any]

SHARD, GROUP = 1000, 100  # samples of a shard, and of a row group: what is read at once
LARGEST = 30_000_000  # bytes of a shard
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NUMBERS = pa.list_(pa.float64())
TYPES: dict[str, pa.DataType] = {
    "id": pa.string(),
    **dict.fromkeys(PICTURES.values(), PICTURE),
    "identity": pa.int64(),
    "seed": pa.int64(),
    "captions": pa.list_(pa.string()),
    "attributes": pa.struct([(name, pa.bool_()) for name in ATTRIBUTES]),
    "camera": NUMBERS,
    "shape_code": NUMBERS,
    "hair_color": pa.string(),
    "skin_tone": pa.float64(),
    "style": pa.string(),
    "celeba_file": pa.string(),
    "classes": pa.list_(pa.string()),  # in the mask before it was made smaller
    "notes": pa.list_(pa.list_(pa.string())),  # what was repaired: kind, detail
}


def write_shard(path: Path, samples: list[Sample], group: int = GROUP) -> None:
    """Writes samples into one parquet file, whole or not at all.

    Args:
        group: samples that are read at once.

    Raises:
        ValueError: a label that TYPES does not know, or a value of another type.
    """
    names = {name for sample in samples for name in sample}
    if unknown := sorted(names - set(TYPES)):
        raise ValueError(f"labels {unknown} are unknown; expected some of {list(TYPES)}.")
    types = {name: kind for name, kind in TYPES.items() if name in names}
    features = {name: _feature(kind) for name, kind in types.items()}
    told = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema(list(types.items()), told)
    try:
        table = pa.Table.from_pylist([_packed(sample) for sample in samples], schema)
    except (pa.ArrowException, TypeError) as error:
        raise ValueError(f"{path}: a label has another type than expected: {error}") from error
    write_whole(
        path,
        lambda target: pq.write_table(
            table,
            target,
            row_group_size=group,
            compression="zstd",  # pictures do not shrink, but what they have in common does
            compression_level=9,
            use_dictionary=["hair_color", "style"],
            write_statistics=False,
            write_page_checksum=True,
        ),
    )


def read_shard(path: Path) -> list[Sample]:
    """The samples of a shard, with the pictures' files.

    Raises:
        ValueError: the file is cut off, or no shard of a face dataset.
    """
    shards = Shards([path])
    rows = [
        r for g in range(len(shards.groups)) for r in shards.read(g, shards.columns).to_pylist()
    ]
    for row in rows:
        for name in set(PICTURES.values()) & set(row):
            row[name] = row[name] and row[name]["bytes"]
    return rows


def _packed(sample: Sample) -> dict[str, Any]:
    packed = dict(sample)
    for name in set(PICTURES.values()) & set(sample):
        suffix = "webp" if name == "image" else "png"
        packed[name] = {"bytes": sample[name], "path": f"{sample['id']}.{suffix}"}
    return packed


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """How `datasets` writes a type."""
    if kind == PICTURE:
        return {"_type": "Image"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "Sequence"}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}


def write_split(folder: Path, samples: Iterable[Sample], shard: int = SHARD) -> None:
    """Writes all samples of a split into a new folder."""
    split = Split(folder, shard)
    ordered = sorted(samples, key=lambda sample: sample["id"])
    for path, ids in split.arrange([sample["id"] for sample in ordered]):
        split.write(path, [sample for sample in ordered if sample["id"] in set(ids)])


@dataclass(frozen=True)
class Split:
    """A split in the making. Only one run at a time may write to a folder, with any processes.

    Attributes:
        folder: ROOT/split; finished samples wait in its folder .spool until their shard is whole.
        shard: samples of a shard.
    """

    folder: Path
    shard: int = SHARD

    @property
    def spool(self) -> Path:
        """Where samples wait."""
        return self.folder / ".spool"

    def waiting(self, name: str) -> Path:
        """The file of a sample that waits; it is a shard of one sample."""
        return self.spool / f"{name}.parquet"

    def add(self, sample: Sample) -> None:
        """Puts a finished sample into the spool; for many processes at once."""
        write_shard(self.waiting(sample["id"]), [sample])

    def sweep(self) -> list[Path]:
        """Removes what a killed run left half-written and shards that cannot be read.

        Returns:
            The shards that were removed; their samples have to be made again.
        """
        for path in [*self.folder.glob(".*.parquet"), *self.spool.glob(".*.parquet")]:
            path.unlink()
        broken = []
        for path in [*self.folder.glob("*.parquet"), *self.spool.glob("*.parquet")]:
            try:
                read_ids(path)
            except ValueError:
                path.unlink()
                broken.append(path)
        return broken

    def finished(self) -> set[str]:
        """Ids of the samples that are in shards or in the spool."""
        found = {path.stem for path in self.spool.glob("*.parquet")}
        return found.union(*(read_ids(path) for path in self.folder.glob("*.parquet")))

    def arrange(self, ids: list[str]) -> list[tuple[Path, list[str]]]:
        """The shards that a split of these samples has: path, ids; whether written or not.

        Samples of shards that do not fit, because samples were added, go back into the spool.
        """
        ids = sorted(ids)
        parts = [ids[first : first + self.shard] for first in range(0, len(ids), self.shard)]
        plan = [(self.folder / shard_name(k, len(parts)), part) for k, part in enumerate(parts)]
        fitting = {}
        for path in sorted(self.folder.glob("*.parquet")):
            number = int(path.name[:5])
            if number < len(plan) and read_ids(path) == plan[number][1]:
                fitting[path] = plan[number][0]
                continue
            for sample in read_shard(path):
                self.add(sample)
            path.unlink()
        for path, target in fitting.items():
            path.replace(target)
            self._release(read_ids(target))
        return plan

    def read(self, path: Path, ids: list[str]) -> list[Sample]:
        """The samples of a planned shard, from its file or from the spool."""
        if path.is_file():
            return read_shard(path)
        return [read_shard(self.waiting(name))[0] for name in ids]

    def write(self, path: Path, samples: list[Sample]) -> None:
        """Writes a planned shard; its samples leave the spool."""
        write_shard(path, samples, max(1, self.shard * GROUP // SHARD))
        self._release(sample["id"] for sample in samples)

    def _release(self, ids: Iterable[str]) -> None:
        for name in ids:
            self.waiting(name).unlink(missing_ok=True)
        if self.spool.is_dir() and not any(self.spool.iterdir()):
            self.spool.rmdir()


def read_ids(path: Path) -> list[str]:
    """The ids of a shard's samples.

    Raises:
        ValueError: the file is cut off, or no shard of a face dataset.
    """
    shards = Shards([path])
    groups = range(len(shards.groups))
    return [name for g in groups for name in shards.read(g, ["id"])["id"].to_pylist()]
