"""The face world's build: same seed, same files; it resumes, relabels, checks and ships."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tiny_shards import encoded, files, opened, rewrite

from data_prep.faces128 import build, captions, check
from data_prep.faces128.regions import CLASS
from data_prep.faces128.ship import ship
from data_prep.shard_writer import Split, read_shard, write_shard, write_split
from dmgi_lib.dataset import ATTRIBUTES, FaceDataset


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("faces")
    numbers = build.sample_numbers(train=(2, 1), test=(1, 1), styles=1, views=1)
    numbers["styles"], numbers["views"] = numbers["styles"][::3], numbers["views"][::4]
    numbers["train_views"] = [0, 3]
    build.build(root, numbers, workers=1, spp=4)
    return root


def test_build_is_complete_sound_and_readable(built):
    assert build.check(built) == []
    data = FaceDataset(built, "train")
    assert len(data) == 3 and len(data.first_views()) == 2
    assert data.images.shape == (3, 3, 128, 128) and data.masks.max() <= 18
    assert data.identities.tolist() == [0, 1, 0]


def test_styles_and_views_keep_the_person(built):
    styled = FaceDataset(built, "styles")
    assert [r["style"] for r in styled.records] == ["marble", "alien", "watercolor"]
    assert {r["seed"] for r in styled.records} == {0}
    photo = FaceDataset(built, "train")
    for record, mask in zip(styled.records, styled.masks, strict=True):
        assert len(record["captions"]) >= 5
        words = [*captions.STYLE_OF.get(record["style"], captions.BEINGS.get(record["style"]))]
        assert all(any(word in text for word in words) for text in record["captions"])
        assert (mask == photo.masks[0]).float().mean() > 0.8
    colors = styled.images.float().std(1).mean((1, 2))  # marble is gray, an alien is not
    assert colors[0] < colors[1]
    views = FaceDataset(built, "views")
    assert len({r["seed"] for r in views.records}) == 1
    x = [r["camera"][3] for r in views.records]
    assert x[0] < -1.5 and x[1] > 1.5  # seen from -40 and from 40 degrees
    taught = FaceDataset(built, "train_views")
    assert {r["seed"] for r in taught.records} == {0} and taught.identities.tolist() == [0, 0]
    x = [r["camera"][3] for r in taught.records]
    assert x[0] < -1.0 and x[1] > 1.0  # from the first and from the last quarter


def test_training_views_spread_over_the_quarters():
    numbers = build.sample_numbers((0, 0), (0, 0), train_views=30)["train_views"]
    assert len(numbers) == 120 and numbers[:5] == [0, 1, 2, 3, 10]
    seen = [build.sample_person("train_views", n) for n in numbers]
    yaw = np.array([view.yaw for *_, view, _ in seen]).reshape(30, 4)
    pitch = np.array([view.pitch for *_, view, _ in seen])
    assert ((yaw + 45) // 22.5 == np.arange(4)).all() and yaw.std(0).min() > 4
    assert abs(pitch).max() <= 15 and pitch.std() > 6 and all(v.roll == 0 for *_, v, _ in seen)
    assert [identity.seed for _, identity, *_ in seen] == [n // 10 for n in numbers]
    _, _, view, _ = build.sample_person("train_views", 52)  # as the shipped renders were drawn
    rng = np.random.default_rng([5, 2, 5])
    assert view.yaw == -45.0 + 90.0 * (2 + float(rng.random())) / 4
    assert view.pitch == float(rng.uniform(-15, 15))


def test_build_resumes_and_repeats_itself(built, tmp_path):
    build.build(tmp_path, build.sample_numbers((1, 0), (0, 0)), workers=1, spp=4)
    shard = tmp_path / "train/00000-of-00001.parquet"
    before = shard.stat().st_mtime_ns
    build.build(tmp_path, build.sample_numbers((1, 0), (1, 0)), workers=1, spp=4)
    assert shard.stat().st_mtime_ns == before
    for split in ("train", "test"):
        first, second = (read_shard(r / split / shard.name)[0] for r in (tmp_path, built))
        assert first == second


@pytest.fixture
def copy(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "copy"))


def test_lost_samples_are_made_again(built, copy, capsys):
    """A shard that was cut off, and samples that wait for the rest of theirs."""
    shard = copy / "train/00000-of-00001.parquet"
    samples = read_shard(shard)
    cut(shard)
    for sample in samples[1:]:
        Split(copy / "train").add(sample)
    build.build(copy, build.sample_numbers((2, 1), (0, 0)), workers=1, spp=4)
    assert files(copy) == files(built)
    told = capsys.readouterr().out
    assert f"{shard} could not be read" in told and "rendered 1 samples" in told


def test_loose_files_of_earlier_versions_stop_the_build(tmp_path):
    (tmp_path / "train/records").mkdir(parents=True)
    with pytest.raises(ValueError, match="loose files of an earlier version.*--root"):
        build.build(tmp_path, {"train": [0]}, workers=1, spp=4)


KILLED = """
import sys
from pathlib import Path
from data_prep.faces128 import build
wanted = build.sample_numbers(train=(2, 1), test=(1, 1))
build.build(Path(sys.argv[1]), wanted, workers=2, spp=4)
"""


def test_a_killed_build_leaves_nothing_behind_and_resumes(built, tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    path = os.pathsep.join([str(Path(build.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    try:
        until = time.monotonic() + 300
        while not list(tmp_path.glob("*/.spool/*.parquet")):  # in the midst of the others
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        process.kill()  # SIGKILL, of the parent alone
        process.communicate(timeout=60)  # its output stays open as long as a worker lives
    finally:
        process.kill()
    assert not (tmp_path / "train/00000-of-00001.parquet").exists()
    (tmp_path / "train").mkdir(exist_ok=True)
    (tmp_path / "train/.4242-0123abcd.00000-of-00001.parquet").write_bytes(b"half a pict")
    build.build(tmp_path, build.sample_numbers((2, 1), (1, 1)), workers=2, spp=4)
    unbroken = {k: v for k, v in files(built).items() if k.startswith(("train/", "test/"))}
    assert files(tmp_path) == unbroken


def no_head(split, number, spp):
    """In place of `make_sample`: the first fails, the others are counted and take their time."""
    if number == 0:
        raise ValueError("no such head")
    (COUNTED / f"{number}").touch()
    time.sleep(0.2)
    return {}


COUNTED = Path()


def test_a_fault_names_its_sample_and_stops_the_build(tmp_path, monkeypatch):
    (tmp_path / "made").mkdir()
    monkeypatch.setitem(globals(), "COUNTED", tmp_path / "made")
    monkeypatch.setattr(build, "make_sample", no_head)
    monkeypatch.setattr(Split, "add", lambda *_: None)
    with pytest.raises(ValueError, match="no such head") as caught:
        build.build(tmp_path / "set", {"train": list(range(60))}, workers=1, spp=1)
    assert "('train', 0)" in caught.value.__notes__[0]
    assert len(list((tmp_path / "made").iterdir())) < 20  # of 59


def test_build_says_how_long_a_sample_takes(built, tmp_path, monkeypatch, capsys):
    made = read_shard(built / "train/00000-of-00001.parquet")[0]
    monkeypatch.setattr(build, "make_sample", lambda s, number, spp: made | {"id": f"{number:06d}"})
    build.build(tmp_path, {"train": [1, 2]}, workers=1, spp=1)
    told = capsys.readouterr().out
    said = r"rendered 2 samples in \S+ s: \d+\.\d\d s a sample with 1 processes"
    assert re.search(said, told) and "train: 2 samples in" in told


def test_relabel_changes_words_and_nothing_else(built, copy, monkeypatch):
    rewrite(copy / "train", lambda s: s | {"captions": ["an old grammar"], "attributes": {}})
    Split(copy / "views").add(read_shard(copy / "views/00000-of-00001.parquet")[0])
    before = files(copy)
    make, calls = build.label, []

    def stopped(*arguments):
        calls.append(arguments)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return make(*arguments)

    monkeypatch.setattr(build, "label", stopped)
    with pytest.raises(KeyboardInterrupt):
        build.relabel(copy)
    monkeypatch.undo()
    after = files(copy)
    changed = {k for k in before if before[k] != after.get(k)}
    assert changed == {"train/00000-of-00001.parquet"} and len(before) == len(after)
    build.relabel(copy)
    shutil.rmtree(copy / "views/.spool")
    assert files(copy) == files(built) and build.check(copy) == []


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(folder, column, change, name="000000"):
    """Replaces a value of one sample: by `change`, or by what it makes of the value."""

    def edited(sample):
        if sample["id"] != name:
            return sample
        return sample | {column: change(sample[column]) if callable(change) else change}

    rewrite(folder, edited)


def repaint(folder, column, change):
    def repainted(data):
        image = opened(data)
        pixels, palette = np.array(image), image.getpalette()
        change(pixels)
        drawn = Image.fromarray(pixels, "P") if palette else Image.fromarray(pixels)
        if palette:
            drawn.putpalette(palette)
        return encoded(drawn, "WEBP" if column == "image" else "PNG")

    edit(folder, column, repainted)


def half(data):
    return data[: len(data) // 2]


def shard(folder):
    return folder / "00000-of-00001.parquet"


def fill(value, where=slice(None)):
    def change(pixels):
        pixels[where] = value

    return change


def other_attributes(folder):
    """As a version of the kit with fewer attributes writes them."""
    table = pq.read_table(shard(folder))
    fewer = [{k: False for k in ATTRIBUTES if k != "Bald"}] * len(table)
    where = table.column_names.index("attributes")
    pq.write_table(table.set_column(where, "attributes", pa.array(fewer)), shard(folder))


def twice(folder):
    samples = read_shard(shard(folder))
    write_shard(shard(folder), [samples[0], *samples])


def two_kinds(folder):
    samples = read_shard(shard(folder))
    shutil.rmtree(folder)
    write_split(folder, samples, shard=2)
    fewer = [{k: v for k, v in sample.items() if k != "depth"} for sample in samples]
    write_shard(folder / "00000-of-00002.parquet", fewer[:2])


SQUARE = np.ones((128, 128), np.uint8)
FAULTS = {
    "images are missing": lambda f: edit(f, "image", None),
    "depth are missing": lambda f: edit(f, "depth", None),
    "images cannot be read": lambda f: edit(f, "image", half),
    "masks cannot be read": lambda f: edit(f, "mask", half),
    "scribbles cannot be read": lambda f: edit(f, "scribble", half),
    "depth cannot be read": lambda f: edit(f, "depth", half),
    "images is (64, 128, 3)": lambda f: edit(
        f, "image", encoded(Image.new("RGB", (128, 64), "red"), "WEBP")
    ),
    "scribbles is (128, 128, 3), RGB": lambda f: edit(
        f, "scribble", encoded(Image.new("RGB", (128, 128)))
    ),
    "the image's mean is 255": lambda f: repaint(f, "image", fill(255)),
    "the mask holds ids to 19": lambda f: repaint(f, "mask", fill(19, (3, 3))),
    "0 pixels of skin": lambda f: repaint(f, "mask", fill(17)),
    "the mask's palette": lambda f: edit(f, "mask", encoded(Image.fromarray(SQUARE).convert("P"))),
    "the scribble is not black and white": lambda f: repaint(f, "scribble", fill(7, (3, 3))),
    "depth is from": lambda f: repaint(f, "depth", fill(9_000, (100, 64))),
    "do not cover the same pixels": lambda f: repaint(f, "depth", fill(27_000)),
    "cut off, damaged or no parquet file": lambda f: cut(shard(f)),
    "1 of 2 shards (00001-of-00002.parquet is missing": lambda f: shard(f).rename(
        f / "00000-of-00002.parquet"
    ),
    "has the columns": two_kinds,
    ".4242-0123.parquet is no shard": lambda f: (f / ".4242-0123.parquet").touch(),
    "notes.txt is no shard": lambda f: (f / "notes.txt").touch(),
    "1 samples wait in": lambda f: Split(f).add(read_shard(shard(f))[0]),
    "ids occur twice: 000000": twice,
    "camera is no list of 25": lambda f: edit(f, "camera", [0.0] * 24),
    "camera holds what is no number": lambda f: edit(f, "camera", [None] * 25),
    "shape_code is no list of 48": lambda f: edit(f, "shape_code", []),
    "4 different captions": lambda f: edit(f, "captions", ["a", "b", "c", "d", "a"]),
    "captions are no list": lambda f: edit(f, "captions", ["a", "b", "c", "d", " "]),
    "not those of dmgi_lib.dataset, Bald": other_attributes,
    "skin_tone is not between": lambda f: edit(f, "skin_tone", 2.0),
    "identity is no whole number": lambda f: edit(f, "identity", None),
    "share identities: [1000000]": lambda f: edit(f, "seed", 1_000_000),
    "holds no shards": lambda f: shard(f).unlink(),
    "holds no samples": lambda f: pq.write_table(pq.read_table(shard(f)).slice(0, 0), shard(f)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_check_sees_what_is_wrong(fault, copy):
    FAULTS[fault](copy / "train")
    found = build.check(copy)
    assert any(fault in line for line in found), found
    assert all("train" in line for line in found)


def test_check_measures_shards(built, monkeypatch):
    monkeypatch.setattr(check, "LARGEST", 10_000)
    assert all("at most 10,000 are expected" in line for line in check.check(built))


def test_check_is_a_command_and_takes_a_sample(built, tmp_path, monkeypatch, capsys):
    ship(built, tmp_path / "sample", {"train": 1, "test": 1})

    def exit_code():
        monkeypatch.setattr(sys, "argv", ["build", "--check", "--root", str(tmp_path / "sample")])
        with pytest.raises(SystemExit) as end:
            build.main()
        return end.value.code

    assert exit_code() == 0 and "all samples are sound" in capsys.readouterr().out
    edit(tmp_path / "sample/test", "scribble", half, "500000")
    assert exit_code() == 1 and "test/500000: scribbles cannot be" in capsys.readouterr().out


def test_depth_and_masks_match(built):
    data = FaceDataset(built, "test")
    assert ((data.masks > 0) == (data.depth > 0)).float().mean() > 0.999
    for mask, depth in zip(data.masks, data.depth, strict=True):
        assert 2.2 < depth[mask == CLASS["nose"]].mean() < 2.8


def test_ship_copies_whole_identities_and_nothing_from_a_faulty_set(built, tmp_path):
    out = tmp_path / "sample"
    size = ship(built, out, {"train": 1, "test": 1})
    data = FaceDataset(out, "train")
    assert [r["id"] for r in data.records] == ["000000"]  # test identities have their second view
    assert [r["id"] for r in FaceDataset(out, "test").records] == ["000000", "500000"]
    assert torch.equal(data.images, FaceDataset(built, "train").images[:1])
    assert size > data.images.shape[0] * 1000 and not data.has("depth")
    assert not (out / "train_views").exists()
    ship(built, out, {"train": 1, "test": 1, "train_views": 1})
    seen = FaceDataset(out, "train_views")
    assert torch.equal(seen.depth, FaceDataset(built, "train_views").depth[: len(seen)])
    assert len(seen.identities.unique()) == 1
    with pytest.raises(ValueError, match="2 were asked for"):
        ship(built, out, {"train": 1, "test": 2})
    with pytest.raises(ValueError, match="make faces"):
        ship(tmp_path / "nothing", out, {"train": 1, "test": 1})
    assert len(FaceDataset(out, "test")) == 2 and len(list(tmp_path.iterdir())) == 1
