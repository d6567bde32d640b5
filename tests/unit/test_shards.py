"""Shards of unknown origin: what is damaged or no shard is named before anything is used."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_shards import sample

from data_prep.shard_writer import read_shard, write_shard
from dmgi_lib import shards
from dmgi_lib.shards import Shards, shard_name, shard_paths


@pytest.fixture
def path(tmp_path):
    write_shard(tmp_path / shard_name(0, 1), [sample(i) for i in range(5)], group=2)
    return tmp_path / shard_name(0, 1)


def test_row_groups_are_small_and_each_is_read_once(path, monkeypatch):
    table, calls, read = Shards([path]), [], Shards.read
    monkeypatch.setattr(Shards, "read", lambda *a: calls.append(a[1]) or read(*a))
    found = dict(table.files("image", [4, 0, 1, 4]))
    assert sorted(found) == [0, 1, 4] and calls == [0, 2] and len(table.groups) == 3
    assert found[4] == sample(4)["image"] and table.place(3) == f"{path}, row 3"


@pytest.mark.parametrize("kept", [0, 4, 200, -9, -1])
def test_a_cut_off_shard_is_named(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=f"{path.name} is cut off, damaged or no parquet file"):
        Shards([path])


def test_flipped_bits_are_seen(path):
    data = bytearray(path.read_bytes())
    where = data.index(sample(2)["mask"][40:60])
    data[where] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        read_shard(path)


LABELS = {"id": ["1"], "identity": [1], "captions": [["a"]], "attributes": [{"Bald": True}]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"]}, "no face dataset.*'id'"),
        (LABELS, "'image'. lack"),
        (LABELS | {"image": [b"RIFF"]}, "image is binary, expected a struct"),
    ],
)
def test_other_tables_are_refused(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=message):
        Shards([tmp_path / "a.parquet"])


def test_shards_of_two_kinds_are_refused(path, tmp_path):
    write_shard(tmp_path / "other.parquet", [sample(9, style="photo")])
    with pytest.raises(ValueError, match="other.parquet has the columns .*'style'"):
        Shards([path, tmp_path / "other.parquet"])


def test_huge_row_groups_are_refused(path, monkeypatch):
    monkeypatch.setattr(shards, "MOST_ROWS", 1)
    with pytest.raises(ValueError, match="2 rows"):
        Shards([path])


def test_names_tell_what_is_missing_and_left_over(tmp_path):
    for name in (shard_name(0, 3), shard_name(2, 3), shard_name(0, 2), "other.parquet"):
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match="holds 2 of 3 shards .00000-of-00002"):
        shard_paths(tmp_path)
    (tmp_path / shard_name(0, 2)).unlink()
    (tmp_path / shard_name(1, 3)).touch()
    assert [path.name[:5] for path in shard_paths(tmp_path)] == ["00000", "00001", "00002"]
    assert shard_paths(tmp_path / "nothing") == []
