"""The CelebAMask-HQ converter interrupted, and run again into the same folder."""

import pytest
from celebamask_runs import convert, files, stop

from data_prep.celebamask_hq import pictures
from data_prep.celebamask_hq.pictures import Pictures


def test_an_interrupted_run_goes_on_and_ends_as_an_undisturbed_one(
    whole_download, tmp_path, monkeypatch
):
    convert(whole_download, tmp_path / "whole", workers=2)
    count, original = 0, Pictures.convert

    def killed(self, sample):
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return original(self, sample)

    monkeypatch.setattr(Pictures, "convert", killed)
    with pytest.raises(KeyboardInterrupt):
        convert(whole_download, tmp_path / "out")
    made = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("0*.*")}
    assert len(made) == 3 * 4  # three samples of four files
    (tmp_path / "out/train/images/.000007.webp.1.part").write_text("half")
    (tmp_path / "out/train/records/000001.json").unlink()  # pictures there, record not yet
    monkeypatch.setattr(Pictures, "convert", original)
    convert(whole_download, tmp_path / "out")
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    again = [p for p, time in made.items() if p.stat().st_mtime_ns != time]
    assert {p.stem for p in again} == {"000001"}


def test_nothing_half_written_is_left_when_the_disk_is_full(whole_download, tmp_path, monkeypatch):
    original = pictures.os.replace

    def full(source, target):
        if target.parent.name == "scribbles":
            raise OSError(28, "No space left on device")
        original(source, target)

    monkeypatch.setattr(pictures.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        convert(whole_download, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.part"))
    assert not list((tmp_path / "out").rglob("records/*.json"))


def test_annotations_added_later_need_no_new_pictures(whole_download, tmp_path):
    assert convert(whole_download, tmp_path / "out")["without_camera"] == 6
    image = tmp_path / "out/train/images/000000.webp"
    before = image.stat().st_mtime_ns
    cameras = whole_download / "dataset.json"
    assert convert(whole_download, tmp_path / "out", "--cameras", cameras)["without_camera"] == 1
    assert image.stat().st_mtime_ns == before


def test_another_data_set_or_size_is_not_overwritten(whole_download, tmp_path, capsys):
    (tmp_path / "faces/train").mkdir(parents=True)
    assert "another data set" in stop(whole_download, tmp_path / "faces", capsys)
    convert(whole_download, tmp_path / "out")
    before = files(tmp_path / "out")
    assert "'size': 64" in stop(whole_download, tmp_path / "out", capsys, "--size", 32)
    assert files(tmp_path / "out") == before
