"""What is written comes back, and a split that is stopped anywhere ends as an undisturbed one."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_shards import files, sample

from data_prep import shard_writer
from data_prep.shard_writer import Split, read_shard, write_shard, write_split
from dmgi_lib.dataset import ATTRIBUTES, FaceDataset

SAMPLE = functools.cache(sample)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.none() | st.lists(st.floats(allow_nan=False), max_size=4)
SAMPLES = st.lists(
    st.fixed_dictionaries(
        {
            "identity": st.integers(-(2**63), 2**63 - 1),
            "captions": st.lists(TEXT, max_size=3),
            "attributes": st.fixed_dictionaries(
                dict.fromkeys(ATTRIBUTES, st.none() | st.booleans())
            ),
            "image": st.binary(min_size=1, max_size=40),
            "mask": st.none() | st.binary(max_size=40),
            "camera": NUMBERS,
            "shape_code": NUMBERS,
            "skin_tone": st.none() | st.floats(allow_nan=False),
            "hair_color": st.none() | TEXT,
            "notes": st.lists(st.lists(TEXT, min_size=2, max_size=2), max_size=2),
        }
    ),
    min_size=1,
    max_size=5,
)


@given(samples=SAMPLES, group=st.integers(1, 6))
@settings(deadline=None, max_examples=40)
def test_what_is_written_comes_back(samples, group, tmp_path_factory):
    path = tmp_path_factory.mktemp("shards") / "00000-of-00001.parquet"
    samples = [{"id": f"{i:06d}"} | s for i, s in enumerate(samples)]
    write_shard(path, samples, group)
    assert read_shard(path) == samples


def test_records_come_back_as_they_were(tmp_path):
    told = dict.fromkeys(ATTRIBUTES, False) | {"Bald": None, "Male": True}
    label = {"camera": [0.1, 1 / 3, 4.2647], "attributes": told, "skin_tone": 0.1055, "seed": 3}
    write_split(tmp_path / "train", [sample(1, **label), sample(0, **label)])
    first, second = FaceDataset(tmp_path).records
    assert first["id"] == "000000" and second == {
        k: v for k, v in sample(1, **label).items() if k not in ("image", "mask", "scribble")
    }


@pytest.mark.parametrize(
    ("label", "message"), [({"age": 3}, "'age'"), ({"identity": "me"}, "another type")]
)
def test_labels_that_nobody_knows_are_refused(tmp_path, label, message):
    with pytest.raises(ValueError, match=message):
        write_shard(tmp_path / "a.parquet", [sample(0, **label)])
    assert not list(tmp_path.iterdir())


class Killed(Exception):
    pass


class Clock:
    """Lets a number of files be written, renamed or removed, then ends the run."""

    def __init__(self, steps):
        self.left = steps

    def guard(self, monkeypatch):
        for owner, name in (
            (shard_writer, "write_whole"),
            (shard_writer.Path, "unlink"),
            (shard_writer.Path, "replace"),
        ):
            monkeypatch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, function):
        def counted(*args, **options):
            if self.left == 0:
                raise Killed
            self.left -= 1
            return function(*args, **options)

        return counted


def make(folder, numbers, steps=-1, order=1, shard=3):
    """As `build` does: samples that are missing, and each shard when it is whole."""
    with pytest.MonkeyPatch.context() as patch:
        Clock(steps).guard(patch)
        made = Split(folder, shard)
        made.sweep()
        ids = made.finished() | {f"{number:06d}" for number in numbers}
        rendered = 0
        for path, names in made.arrange(sorted(ids))[::order]:
            if path.is_file():
                continue
            for name in names[::order]:
                if not made.waiting(name).is_file():
                    made.add(SAMPLE(int(name)))
                    rendered += 1
            made.write(path, made.read(path, names))
    return rendered


def test_a_split_killed_anywhere_ends_as_an_undisturbed_one(tmp_path):
    """It grows in the middle, so that shards have to be arranged anew."""
    write_split(tmp_path / "whole", map(SAMPLE, (0, 1, 500, 501)), shard=2)
    whole, killed, steps = files(tmp_path / "whole"), True, 0
    while killed:
        split = tmp_path / str(steps)
        make(split, (0, 500, 501), shard=2)
        try:
            make(split, (0, 1, 500, 501), steps=steps, shard=2)
            killed = False
        except Killed:
            steps += 1
        assert make(split, (0, 1, 500, 501), order=-1, shard=2) <= 1
        assert files(split) == whole
    assert steps > 12


def test_a_broken_shard_is_removed_and_named(tmp_path):
    make(tmp_path, range(7))
    whole, broken = files(tmp_path), tmp_path / "00001-of-00003.parquet"
    broken.write_bytes(broken.read_bytes()[:500])
    (tmp_path / ".4242-0123abcd.00002-of-00003.parquet").write_bytes(b"half")
    assert Split(tmp_path).sweep() == [broken]
    assert make(tmp_path, range(7)) == 3 and files(tmp_path) == whole


def test_samples_that_are_no_longer_wanted_wait(tmp_path):
    make(tmp_path, range(4))
    made = Split(tmp_path, shard=3)
    ((path, names),) = made.arrange(["000001", "000003"])
    made.write(path, made.read(path, names))
    assert [r["id"] for r in read_shard(path)] == names
    assert sorted(p.stem for p in made.spool.iterdir()) == ["000000", "000002"]
    assert made.finished() == {"000000", "000001", "000002", "000003"}
