"""The CelebAMask-HQ converter interrupted, and run again into the same folder."""

import functools
import json

import pytest
from celebamask_runs import convert, ids, stop
from tiny_shards import files

from data_prep.celebamask_hq import pictures
from data_prep.celebamask_hq.pictures import Pictures
from dmgi_lib import files as written
from dmgi_lib.dataset import FaceDataset


@pytest.fixture
def converted(monkeypatch):
    """Ids of the samples whose pictures were made."""
    made, original = [], Pictures.convert

    @functools.wraps(original)  # processes find it by its name
    def noted(self, sample):
        made.append(sample[1]["id"])
        return original(self, sample)

    monkeypatch.setattr(Pictures, "convert", noted)
    return made


def test_an_interrupted_run_goes_on_and_ends_as_an_undisturbed_one(
    whole_download, tmp_path, monkeypatch, converted
):
    convert(whole_download, tmp_path / "whole", workers=2)
    noted = Pictures.convert

    def killed(self, sample):
        if len(converted) == 3:
            raise KeyboardInterrupt
        return noted(self, sample)

    monkeypatch.setattr(Pictures, "convert", killed)
    with pytest.raises(KeyboardInterrupt):
        convert(whole_download, tmp_path / "out")
    assert converted == ["000000", "000001", "001999"]
    spool = tmp_path / "out/train/.spool"
    assert len(list(spool.iterdir())) == 3
    (spool / ".1-0123abcd.000007.parquet").write_text("half")
    (spool / "000001.parquet").write_text("broken")
    monkeypatch.setattr(Pictures, "convert", noted)
    converted.clear()
    convert(whole_download, tmp_path / "out")
    assert converted == ["000001", "029999", "000002", "002000"]
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_shards_are_filled_by_pixels_and_cut_off_ones_made_again(
    whole_download, tmp_path, monkeypatch, converted
):
    monkeypatch.setattr(pictures, "SHARD_PIXELS", 3 * 64 * 64)
    convert(whole_download, tmp_path / "out")
    train = sorted((tmp_path / "out/train").iterdir())
    assert [path.name for path in train] == ["00000-of-00002.parquet", "00001-of-00002.parquet"]
    before = files(tmp_path / "out")
    train[0].write_bytes(train[0].read_bytes()[:-7])
    converted.clear()
    convert(whole_download, tmp_path / "out")
    assert converted == ["000000", "000001", "001999"] and files(tmp_path / "out") == before


def test_nothing_half_written_is_left_when_the_disk_is_full(whole_download, tmp_path, monkeypatch):
    original = written.os.replace

    def full(source, target):
        if target.suffix == ".parquet":
            raise OSError(28, "No space left on device")
        original(source, target)

    monkeypatch.setattr(written.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        convert(whole_download, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_annotations_added_later_need_no_new_pictures(whole_download, tmp_path, converted):
    assert convert(whole_download, tmp_path / "out")["without_camera"] == 6
    before = FaceDataset(tmp_path / "out")
    assert len(converted) == 6 and before.records[0]["camera"] is None
    kept = before.encoded("images")
    cameras = whole_download / "dataset.json"
    assert convert(whole_download, tmp_path / "out", "--cameras", cameras)["without_camera"] == 1
    after = FaceDataset(tmp_path / "out")
    assert len(converted) == 6 and after.encoded("images") == kept
    assert len(after.records[0]["camera"]) == 25


def test_samples_that_lose_their_annotations_leave_the_set_and_come_back(
    download, tmp_path, converted
):
    convert(download, tmp_path / "out")
    captions = (download / "celeba-caption/1.txt").read_text()
    (download / "celeba-caption/1.txt").unlink()
    convert(download, tmp_path / "out")
    assert ids(tmp_path / "out") == {0, 2, 1999, 2000, 29999}
    (download / "celeba-caption/1.txt").write_text(captions)
    convert(download, tmp_path / "out")
    assert ids(tmp_path / "out") == {0, 1, 2, 1999, 2000, 29999} and len(converted) == 6


def test_another_data_set_or_size_is_not_overwritten(whole_download, tmp_path, capsys):
    (tmp_path / "faces/train").mkdir(parents=True)
    assert "another data set" in stop(whole_download, tmp_path / "faces", capsys)
    convert(whole_download, tmp_path / "out")
    before = files(tmp_path / "out")
    assert "'size': 64" in stop(whole_download, tmp_path / "out", capsys, "--size", 32)
    assert files(tmp_path / "out") == before
    earlier = {"source": "CelebAMask-HQ", "size": 64, "masks": "parts"}  # loose files
    (tmp_path / "out/conversion.json").write_text(json.dumps(earlier))
    assert "'format': 'parquet'" in stop(whole_download, tmp_path / "out", capsys)
