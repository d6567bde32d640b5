"""The face world's build: same seed, same files; it resumes, relabels, checks and ships."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_prep.faces128 import build, captions
from data_prep.faces128.regions import CLASS
from data_prep.faces128.ship import ship
from dmgi_lib.dataset import ATTRIBUTES, FaceDataset


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("faces")
    numbers = build.sample_numbers(train=(2, 1), test=(1, 1), styles=1, views=1)
    numbers["styles"], numbers["views"] = numbers["styles"][::3], numbers["views"][::4]
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


def test_build_resumes_and_repeats_itself(built, tmp_path):
    build.build(tmp_path, build.sample_numbers((1, 0), (0, 0)), workers=1, spp=4)
    before = (tmp_path / "train/images/000000.webp").stat().st_mtime_ns
    build.build(tmp_path, build.sample_numbers((1, 0), (1, 0)), workers=1, spp=4)
    assert (tmp_path / "train/images/000000.webp").stat().st_mtime_ns == before
    for path in ("train/images/000000.webp", "test/masks/000000.png", "test/records/000000.json"):
        assert (tmp_path / path).read_bytes() == (built / path).read_bytes()


def files(root):
    """Every file below a folder: relative path → content."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def copy(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "copy"))


def edit(root, change, split="train", name="000000"):
    """Changes a record in both places where it stands."""
    path = root / split / "records" / f"{name}.json"
    record = json.loads(path.read_text()) | change
    path.write_text(json.dumps(record))
    lines = (root / split / "metadata.jsonl").read_text().splitlines()
    lines = [json.dumps(record) if json.loads(x)["id"] == name else x for x in lines]
    (root / split / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def test_lost_files_are_made_again(built, copy):
    (copy / "train/masks/000001.png").unlink()
    kept = copy / "train/masks/000000.png"
    before = kept.stat().st_mtime_ns
    build.build(copy, build.sample_numbers((2, 1), (0, 0)), workers=1, spp=4)
    assert files(copy) == files(built) and kept.stat().st_mtime_ns == before


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
        while not list(tmp_path.glob("*/images/*.webp")):  # in the midst of a sample
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        process.kill()  # SIGKILL, of the parent alone
        process.communicate(timeout=60)  # its output stays open as long as a worker lives
    finally:
        process.kill()
    left = len(list(tmp_path.glob("*/records/*.json")))
    assert left < 5
    (tmp_path / "train/images/.000001.webp.4242").write_bytes(b"half a pict")
    (tmp_path / "test/.metadata.jsonl.4242").write_bytes(b'{"id": "0000')
    build.build(tmp_path, build.sample_numbers((2, 1), (1, 1)), workers=2, spp=4)
    unbroken = {k: v for k, v in files(built).items() if k.startswith(("train", "test"))}
    assert files(tmp_path) == unbroken


def broken(root, split, number, spp):
    """In place of `make_sample`: the first fails, the others take their time."""
    if number == 0:
        raise ValueError("no such head")
    time.sleep(0.4)


def test_a_fault_names_its_sample_and_stops_the_build(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "make_sample", broken)
    started = time.monotonic()
    with pytest.raises(ValueError, match="no such head") as caught:
        build.build(tmp_path, {"train": list(range(60))}, workers=1, spp=1)
    assert "('train', 0)" in caught.value.__notes__[0]
    assert time.monotonic() - started < 12  # not the 24 seconds of all


def test_build_says_how_long_a_sample_takes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build, "make_sample", broken)
    build.build(tmp_path, {"train": [1, 2]}, workers=1, spp=1)
    seconds = float(
        re.search(r"rendered 2 samples in .* s: (.*) s a sample", capsys.readouterr().out)[1]
    )
    assert 0.4 <= seconds < 5


def test_relabel_changes_words_and_nothing_else(built, copy, monkeypatch):
    for name in ("000000", "000001"):
        edit(copy, {"captions": ["an old grammar"], "attributes": {}}, name=name)
    (copy / "train/records/.000001.json.4242").write_bytes(b"{")
    before = files(copy)
    make, calls = build.label, []

    def stopped(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return make(*arguments)

    monkeypatch.setattr(build, "label", stopped)
    with pytest.raises(KeyboardInterrupt):
        build.relabel(copy)
    monkeypatch.undo()
    after = files(copy)
    changed = {k for k in before if before[k] != after.get(k)}
    assert changed == {"train/records/000000.json", "train/records/.000001.json.4242"}
    assert any("differs from metadata.jsonl" in fault for fault in build.check(copy))
    build.relabel(copy)
    assert files(copy) == files(built) and build.check(copy) == []


def test_relabel_takes_what_ships_too(copy):
    """Without records, from the collection; the words are the same."""
    collection = copy / "train" / "metadata.jsonl"
    whole = collection.read_bytes()
    shutil.rmtree(copy / "train" / "records")
    old = [json.loads(line) | {"captions": [], "attributes": {}} for line in whole.splitlines()]
    collection.write_text("".join(json.dumps(record) + "\n" for record in old))
    build.relabel(copy)
    assert collection.read_bytes() == whole and not (copy / "train" / "records").exists()


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def repaint(path, change):
    with Image.open(path) as image:
        pixels, palette = np.array(image), image.getpalette()
    change(pixels)
    drawn = Image.fromarray(pixels, "P") if palette else Image.fromarray(pixels)
    if palette:
        drawn.putpalette(palette)
    drawn.save(path)


def fill(value, where=slice(None)):
    def change(pixels):
        pixels[where] = value

    return change


def without(name):
    return {k: False for k in ATTRIBUTES if k != name}


FAULTS = {
    "images/000000.webp is missing": lambda f: (f / "images/000000.webp").unlink(),
    "depth/000000.png is missing": lambda f: (f / "depth/000000.png").unlink(),
    "records/000000.json is missing": lambda f: (f / "records/000000.json").unlink(),
    "images cannot be read": lambda f: cut(f / "images/000000.webp"),
    "masks cannot be read": lambda f: cut(f / "masks/000000.png"),
    "scribbles cannot be read": lambda f: cut(f / "scribbles/000000.png"),
    "depth cannot be read": lambda f: cut(f / "depth/000000.png"),
    "images is (64, 128, 3)": lambda f: Image.new("RGB", (128, 64), "red").save(
        f / "images/000000.webp"
    ),
    "scribbles is (128, 128, 3), RGB": lambda f: Image.new("RGB", (128, 128)).save(
        f / "scribbles/000000.png"
    ),
    "the image's mean is 255": lambda f: repaint(f / "images/000000.webp", fill(255)),
    "the mask holds ids to 19": lambda f: repaint(f / "masks/000000.png", fill(19, (3, 3))),
    "0 pixels of skin": lambda f: repaint(f / "masks/000000.png", fill(17)),
    "the mask's palette": lambda f: (
        Image.fromarray(np.ones((128, 128), np.uint8)).convert("P").save(f / "masks/000000.png")
    ),
    "the scribble is not black and white": lambda f: repaint(
        f / "scribbles/000000.png", fill(7, (3, 3))
    ),
    "depth is from": lambda f: repaint(f / "depth/000000.png", fill(9_000, (100, 64))),
    "do not cover the same pixels": lambda f: repaint(f / "depth/000000.png", fill(27_000)),
    "records/000000.json differs": lambda f: cut(f / "records/000000.json"),
    "images/000007.webp is not in metadata": lambda f: (f / "images/000007.webp").touch(),
    "masks/.000001.png.4242 is not in": lambda f: (f / "masks/.000001.png.4242").touch(),
    "ids occur twice: 000000": lambda f: (f / "metadata.jsonl").write_text(
        2 * (f / "metadata.jsonl").read_text()
    ),
    "line 4 is no record": lambda f: (f / "metadata.jsonl").write_text(
        (f / "metadata.jsonl").read_text() + "{half"
    ),
    "camera is no list of 25": lambda f: edit(f.parent, {"camera": [0.0] * 24}),
    "camera holds what is no number": lambda f: edit(f.parent, {"camera": [None] * 25}),
    "shape_code is no list of 48": lambda f: edit(f.parent, {"shape_code": []}),
    "4 different captions": lambda f: edit(f.parent, {"captions": ["a", "b", "c", "d", "a"]}),
    "captions are no list": lambda f: edit(f.parent, {"captions": ["a", "b", "c", "d", " "]}),
    "not those of dmgi_lib.dataset, Bald": lambda f: edit(
        f.parent, {"attributes": without("Bald")}
    ),
    "neither true, false nor null": lambda f: edit(
        f.parent, {"attributes": without("Bald") | {"Bald": "yes"}}
    ),
    "skin_tone is not between": lambda f: edit(f.parent, {"skin_tone": 2}),
    "identity is no whole number": lambda f: edit(f.parent, {"identity": "me"}),
    "share identities: [1000000]": lambda f: edit(f.parent, {"seed": 1_000_000}),
    "metadata.jsonl is missing": lambda f: (f / "metadata.jsonl").unlink(),
    "metadata.jsonl holds no records": lambda f: (f / "metadata.jsonl").write_text(""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_check_sees_what_is_wrong(fault, copy):
    FAULTS[fault](copy / "train")
    found = build.check(copy)
    assert any(fault in line for line in found), found
    assert all("train" in line for line in found)


def test_check_is_a_command_and_takes_a_sample(built, tmp_path, monkeypatch, capsys):
    ship(built, tmp_path / "sample", {"train": 1, "test": 1})

    def exit_code():
        monkeypatch.setattr(sys, "argv", ["build", "--check", "--root", str(tmp_path / "sample")])
        with pytest.raises(SystemExit) as end:
            build.main()
        return end.value.code

    assert exit_code() == 0 and "all samples are sound" in capsys.readouterr().out
    cut(tmp_path / "sample/test/scribbles/500000.png")
    assert exit_code() == 1 and "test/500000: scribbles cannot be" in capsys.readouterr().out


def test_records_and_masks_match(built):
    for line in (built / "test/metadata.jsonl").read_text().splitlines():
        record = json.loads(line)
        mask = np.asarray(Image.open(built / "test/masks" / f"{record['id']}.png"))
        depth = np.asarray(Image.open(built / "test/depth" / f"{record['id']}.png"))
        assert ((mask > 0) == (depth > 0)).mean() > 0.999
        assert 2.2 < depth[mask == CLASS["nose"]].mean() / 10_000 < 2.8


def test_ship_copies_whole_identities_and_nothing_from_a_faulty_set(built, tmp_path):
    out = tmp_path / "sample"
    size = ship(built, out, {"train": 1, "test": 1})
    data = FaceDataset(out, "train")
    assert [r["id"] for r in data.records] == ["000000"]  # test identities have their second view
    assert [r["id"] for r in FaceDataset(out, "test").records] == ["000000", "500000"]
    assert torch.equal(data.images, FaceDataset(built, "train").images[:1])
    assert size > data.images.shape[0] * 1000 and not list(out.rglob("depth"))
    with pytest.raises(ValueError, match="2 were asked for"):
        ship(built, out, {"train": 1, "test": 2})
    with pytest.raises(ValueError, match="make faces"):
        ship(tmp_path / "nothing", out, {"train": 1, "test": 1})
    assert len(FaceDataset(out, "test")) == 2 and len(list(tmp_path.iterdir())) == 1
