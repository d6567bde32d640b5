"""Parquet shards of a face dataset as one table that is read by row groups."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

PICTURES = {"images": "image", "masks": "mask", "scribbles": "scribble", "depth": "depth"}  # column
REQUIRED = ("id", "identity", "captions", "attributes")
MOST_ROWS, MOST_BYTES = 100_000, 2**30  # of a row group, because files may come from anywhere


def shard_paths(folder: Path) -> list[Path]:
    """The shards of a split in their order; none where nothing has been built.

    Raises:
        FileNotFoundError: some of the shards that the file names speak of are not there.
    """
    found = sorted(p.name for p in folder.glob("*.parquet") if re.match(r"\d+-of-\d+\.", p.name))
    if not found:
        return []
    count = int(found[-1].split("-of-")[1].removesuffix(".parquet"))
    wanted = [shard_name(number, count) for number in range(count)]
    if found != wanted:
        odd = sorted(set(wanted) ^ set(found))
        raise FileNotFoundError(
            f"{folder} holds {len(set(found) & set(wanted))} of {count} shards ({odd[0]} is missing"
            " or left over). Run `make faces` again: it completes an interrupted build."
        )
    return [folder / name for name in found]


def shard_name(number: int, count: int) -> str:
    """00002-of-00006.parquet: the third of six."""
    return f"{number:05d}-of-{count:05d}.parquet"


class Shards:
    """Parquet files as one table, read by row groups; a file is open only while it is read.

    Args:
        paths: shards with equal columns.

    Raises:
        ValueError: a file is cut off, no parquet, or no shard of a face dataset.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.columns: list[str] = []
        self.groups: list[tuple[Path, pq.FileMetaData, int]] = []  # file, its footer, group in it
        ends = [0]
        for path in paths:
            try:
                footer = pq.read_metadata(path)
                columns = _checked(path, footer.schema.to_arrow_schema())
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(path, error) from error
            if self.columns not in ([], columns):
                raise ValueError(
                    f"{path} has the columns {columns}, the shards before it {self.columns}; "
                    "build them anew with one version of the kit."
                )
            self.columns = columns
            for group in range(footer.num_row_groups):
                facts = footer.row_group(group)
                if facts.num_rows > MOST_ROWS or facts.total_byte_size > MOST_BYTES:
                    raise ValueError(
                        f"{path} has a row group of {facts.num_rows:,} rows and"
                        f" {facts.total_byte_size:,} bytes; at most {MOST_ROWS:,} and"
                        f" {MOST_BYTES:,} are read. Write it with smaller row groups."
                    )
                self.groups.append((path, footer, group))
                ends.append(ends[-1] + facts.num_rows)
        self.starts = np.array(ends)  # (groups + 1,) first row of each group; the last is the end

    def __len__(self) -> int:
        return int(self.starts[-1])

    def read(self, group: int, columns: list[str]) -> pa.Table:
        """One row group; struct fields are named as in "image.bytes"."""
        path, footer, number = self.groups[group]
        try:
            with pq.ParquetFile(path, metadata=footer, page_checksum_verification=True) as file:
                return file.read_row_group(number, columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error) from error

    def files(self, column: str, rows: list[int]) -> Iterator[tuple[int, bytes]]:
        """(row, file of its picture), group by group, each read once.

        Raises:
            ValueError: a sample has no such picture.
        """
        wanted = np.unique(np.array(rows, dtype=np.int64))
        group_of = np.searchsorted(self.starts, wanted, side="right") - 1
        for group in np.unique(group_of).tolist():
            values = pc.struct_field(self.read(group, [f"{column}.bytes"])[column], "bytes")
            for row in wanted[group_of == group].tolist():
                data = values[row - self.starts[group]].as_py()
                if data is None:
                    raise ValueError(f"{self.place(row)} has no {column}; build the set anew.")
                yield row, data

    def place(self, row: int) -> str:
        """Where a row lies, for messages."""
        path = self.groups[int(np.searchsorted(self.starts, row, side="right")) - 1][0]
        first = next(s for s, g in zip(self.starts, self.groups, strict=False) if g[0] == path)
        return f"{path}, row {row - first}"


def _checked(path: Path, schema: pa.Schema) -> list[str]:
    """The columns of a shard, if they are those of a face dataset."""
    missing = [name for name in (*REQUIRED, "image") if name not in schema.names]
    if missing:
        raise ValueError(f"{path} is no face dataset: it has {schema.names}, {missing} lack.")
    for name in PICTURES.values():
        if name in schema.names:
            kind = schema.field(name).type
            if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
                raise ValueError(f"{path}: {name} is {kind}, expected a struct {{bytes, path}}.")
    return list(schema.names)


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"{path} is cut off, damaged or no parquet file, or was replaced while it was read:"
        f" {error}. Run `make faces`, which makes again what is missing; restore what ships"
        " with `git checkout`."
    )
