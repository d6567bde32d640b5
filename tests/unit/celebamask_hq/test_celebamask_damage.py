"""The CelebAMask-HQ converter on a damaged download: samples skipped or repaired, runs stopped."""

import json
import shutil

import fake_celebamask as fake
import numpy as np
import pytest
from celebamask_runs import SIZE, convert, ids, notes, skipped, stop
from PIL import Image
from tiny_shards import files

from dmgi_lib.dataset import FaceDataset
from dmgi_lib.masks import CLASSES


def test_absent_parts_are_normal(download, tmp_path):
    for part in ("mouth", "u_lip", "l_lip"):
        fake.part_path(download, 0, part).unlink()
    report = convert(download, tmp_path / "out")
    assert report["skipped"] == [] and report["notes"] == []
    assert report["samples_with_class"]["mouth"] == 5
    absent = {CLASSES.index(p) for p in ("mouth", "u_lip", "l_lip")}
    assert not absent & set(FaceDataset(tmp_path / "out").masks[0].unique().tolist())


def remove_image(root):
    (root / "CelebAMask-HQ/CelebA-HQ-img/0.jpg").unlink()


def cut_image(root):
    path = root / "CelebAMask-HQ/CelebA-HQ-img/0.jpg"
    path.write_bytes(path.read_bytes()[:4000])


def replace_image_with_text(root):
    (root / "CelebAMask-HQ/CelebA-HQ-img/0.jpg").write_text("<html>quota exceeded</html>")


def oblong_image(root):
    Image.new("RGB", (1024, 768)).save(root / "CelebAMask-HQ/CelebA-HQ-img/0.jpg")


def remove_captions(root):
    (root / "celeba-caption/0.txt").unlink()


def empty_captions(root):
    (root / "celeba-caption/0.txt").write_text("\n \n")


def binary_captions(root):
    (root / "celeba-caption/0.txt").write_bytes(b"\xff\xfe\xff\x00")


def remove_all_parts(root):
    for part in fake.parts(0):
        fake.part_path(root, 0, part).unlink()


def black_parts(root):
    for part in fake.parts(0):
        Image.new("RGB", (512, 512)).save(fake.part_path(root, 0, part))


def cut_part(root):
    path = fake.part_path(root, 0, "hair")
    path.write_bytes(path.read_bytes()[:-60])


def oblong_part(root):
    Image.new("L", (512, 256)).save(fake.part_path(root, 0, "hair"))


def photo_as_part(root):
    fake.picture(0, 512).save(fake.part_path(root, 0, "hair"))


def white_part(root):
    Image.new("L", (512, 512), 255).save(fake.part_path(root, 0, "cloth"))


def remove_partition_row(root):
    path = root / "list_eval_partition.txt"
    path.write_text("\n".join(path.read_text().splitlines()[1:]) + "\n")


def remove_mapping_row(root):
    path = root / "CelebAMask-HQ/CelebA-HQ-to-CelebA-mapping.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[2:]]) + "\n")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (remove_image, "image missing"),
        (cut_image, "image unreadable"),
        (replace_image_with_text, "image unreadable"),
        (oblong_image, "image not square"),
        (remove_captions, "captions missing"),
        (empty_captions, "captions missing"),
        (binary_captions, "captions unreadable"),
        (remove_all_parts, "mask missing"),
        (black_parts, "mask empty"),
        (cut_part, "mask part unreadable"),
        (oblong_part, "mask part not square"),
        (photo_as_part, "mask part not binary"),
        (white_part, "mask part fills the picture"),
        (remove_partition_row, "not in the partition file"),
        (remove_mapping_row, "not in the mapping file"),
    ],
)
def test_a_damaged_sample_is_skipped_and_the_others_are_kept(
    damage, reason, download, tmp_path, capsys
):
    for index in (1, 1999, 2000, 29999):  # two neighbours are enough
        (download / f"celeba-caption/{index}.txt").unlink()
    (download / "celeba-caption/29999.txt").write_text("One.\n")
    damage(download)
    report = convert(download, tmp_path / "out")
    missing = dict.fromkeys((1, 1999, 2000), "captions missing")
    assert skipped(report) == missing | {0: reason}
    assert ids(tmp_path / "out") == {2, 29999}
    assert reason in capsys.readouterr().out
    assert not list((tmp_path / "out").rglob(".*"))  # no spool, nothing half-written


def test_several_processes_report_damage_as_one_does(download, tmp_path):
    cut_image(download)
    fake.part_path(download, 2000, "skin").write_bytes(b"")
    for workers in (1, 2):
        convert(download, tmp_path / str(workers), workers=workers)
    assert files(tmp_path / "1") == files(tmp_path / "2")
    report = json.loads((tmp_path / "2/report.json").read_text())
    assert skipped(report) == {0: "image unreadable", 2000: "mask part unreadable"}


def test_a_repaired_sample_is_kept_with_a_note(download, tmp_path):
    (download / "celeba-caption/0.txt").write_text("One.\nTwo.\n")
    hair = Image.fromarray(fake.parts(1)["hair"].astype(np.uint8) * 255)
    hair.resize((1024, 1024), Image.Resampling.NEAREST).save(fake.part_path(download, 1, "hair"))
    hair = Image.fromarray(fake.parts(2)["hair"].astype(np.uint8) * 255)
    soft = np.asarray(hair.resize((400, 400), Image.Resampling.BILINEAR).resize((512, 512)))
    noisy = np.maximum(soft, 3)  # as after a lossy format: black is not quite black
    Image.fromarray(noisy).save(fake.part_path(download, 2, "hair"))
    fake.picture(2000, 48).save(download / "CelebAMask-HQ/CelebA-HQ-img/2000.jpg")
    path = download / "CelebAMask-HQ/CelebAMask-HQ-attribute-anno.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    report = convert(download, tmp_path / "out")
    assert report["skipped"] == []
    assert notes(report) == {
        (0, "fewer captions"),
        (1, "mask of another size"),
        (2, "mask part not binary"),
        (2000, "image enlarged"),
        (29999, "no attributes"),
    }
    assert report["annotation_files"] == [
        "CelebAMask-HQ-attribute-anno.txt announces 6 rows and holds 5"
    ]
    train, test = (FaceDataset(tmp_path / "out", split) for split in ("train", "test"))
    assert train.captions[0] == ["One.", "Two."]
    whole = Image.fromarray(fake.merged(1, fake.OFFICIAL_LABEL_LIST))
    expected = np.asarray(whole.resize((SIZE, SIZE), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(train.masks[1].numpy(), expected)
    whole = Image.fromarray(fake.merged(2, fake.OFFICIAL_LABEL_LIST))
    expected = np.asarray(whole.resize((SIZE, SIZE), Image.Resampling.NEAREST))
    assert (test.masks[0].numpy() == expected).mean() > 0.98
    assert train.attributes[3].eq(-1).all()


def test_masks_of_zero_and_one_count_as_binary(download, tmp_path):
    for part, pixels in fake.parts(0).items():
        Image.fromarray(pixels.astype(np.uint8)).save(fake.part_path(download, 0, part))
    report = convert(download, tmp_path / "out")
    assert report["notes"] == []
    assert set(FaceDataset(tmp_path / "out").masks[0].unique().tolist()) >= {1, 2, 13, 18}


def test_a_mapping_file_cut_off_in_a_line_is_used_up_to_there(download, tmp_path, capsys):
    path = download / "CelebAMask-HQ/CelebA-HQ-to-CelebA-mapping.txt"
    whole = path.read_text()
    path.write_text(whole[: whole.index("200122.jpg") + 4])
    report = convert(download, tmp_path / "out")
    assert skipped(report) == dict.fromkeys((2, 1999, 2000, 29999), "not in the mapping file")
    assert "cut off in line 4; 2 rows are used" in report["annotation_files"][0]
    assert "cut off in line 4" in capsys.readouterr().out
    path.write_text(whole)  # the next run, with the whole file, makes up for it
    assert convert(download, tmp_path / "out")["skipped"] == []
    assert ids(tmp_path / "out") == set(fake.ORIGINALS)


# ---------------------------------------------------------------- errors that stop the run


def break_mapping(root):
    path = root / "CelebAMask-HQ/CelebA-HQ-to-CelebA-mapping.txt"
    path.write_text(path.read_text().replace("099095.jpg", "099096.jpg"))


def break_camera(root):
    labels = [["00000/img00000000.png", [0.0] * 16]]
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))


def no_labels(root):
    (root / "dataset.json").write_text('{"labels": null}')


def camera_twice(root):
    labels = [[f"00000/{name}.png", [0.0] * 25] for name in ("img00000003", "3")]
    (root / "dataset.json").write_text(json.dumps({"labels": labels}))


def html_attributes(root):
    (root / "CelebAMask-HQ/CelebAMask-HQ-attribute-anno.txt").write_text("<html>\n<body>\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "list_eval_partition.txt").unlink(), "--partition"),
        (break_mapping, "line 3 is"),
        (break_camera, "has 16 numbers"),
        (no_labels, "not a dataset.json"),
        (camera_twice, "two cameras for sample 3"),
        (html_attributes, "number of samples"),
        (lambda root: shutil.rmtree(root / "celeba-caption"), "holds no captions"),
        (lambda root: shutil.rmtree(root / "CelebAMask-HQ/CelebA-HQ-img"), "CelebA-HQ-img"),
        (lambda root: shutil.rmtree(root / "CelebAMask-HQ/CelebAMask-HQ-mask-anno"), "--masks"),
    ],
)
def test_a_broken_annotation_file_stops_before_anything_is_written(
    damage, message, download, tmp_path, capsys
):
    damage(download)
    cameras = download / "dataset.json"
    assert message in stop(download, tmp_path / "out", capsys, "--cameras", cameras)
    assert not (tmp_path / "out").exists()


def test_settings_out_of_range(whole_download, tmp_path, capsys):
    assert "--size came as 8" in stop(whole_download, tmp_path / "out", capsys, "--size", 8)
    assert "--workers came as 0" in stop(whole_download, tmp_path / "out", capsys, "--workers", 0)
    order = ("--label-order", "nose-10")
    assert "--masks too" in stop(whole_download, tmp_path / "out", capsys, *order)
