"""The CelebAMask-HQ converter on a download in the official layout, whole and damaged."""

import json
import shutil

import fake_celebamask as fake
import numpy as np
import pytest
import torch
from PIL import Image

from data_prep.celebamask_hq import pictures
from data_prep.celebamask_hq.__main__ import main
from data_prep.celebamask_hq.annotations import hair_color
from data_prep.celebamask_hq.pictures import Pictures
from data_prep.celebamask_hq.source_masks import PARTS, merge_parts
from data_prep.scribbles import scribble
from dmgi_lib.dataset import ATTRIBUTES, FaceDataset
from dmgi_lib.masks import CLASSES

SIZE = 64


@pytest.fixture(scope="session")
def whole_download(tmp_path_factory):
    root = tmp_path_factory.mktemp("download")
    fake.write_download(root)
    return root


@pytest.fixture
def download(whole_download, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(whole_download, tmp_path / "download")


def convert(download, out, *more, size=SIZE, workers=1):
    """Runs the command and returns its report."""
    flags = {
        "--source": download / "CelebAMask-HQ",
        "--captions": download / "celeba-caption",
        "--partition": download / "list_eval_partition.txt",
        "--out": out,
        "--size": size,
        "--workers": workers,
    }
    main([str(x) for pair in flags.items() for x in pair] + [str(x) for x in more])
    return json.loads((out / "report.json").read_text())


def skipped(report):
    return {entry["index"]: entry["reason"] for entry in report["skipped"]}


def notes(report):
    return {(entry["index"], entry["kind"]) for entry in report["notes"]}


def ids(out):
    return {
        int(i) for s in ("train", "test") for r in FaceDataset(out, s).records for i in [r["id"]]
    }


def files(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_the_class_order_is_the_official_overwrite_sequence():
    assert list(PARTS) == fake.OFFICIAL_LABEL_LIST
    # part k covers everything right of column 20 k, so in every band the latest part must win
    columns = np.arange(512)[None, :].repeat(512, axis=0)
    found = {part: columns >= 20 * k for k, part in enumerate(fake.OFFICIAL_LABEL_LIST, start=1)}
    shuffled = dict(sorted(found.items()))
    expected = np.minimum(columns // 20, 18)
    np.testing.assert_array_equal(merge_parts(shuffled), expected)


def test_a_whole_download_becomes_a_face_data_set(whole_download, tmp_path, capsys):
    cameras = whole_download / "dataset.json"
    report = convert(whole_download, tmp_path / "out", "--cameras", cameras)
    train, test = (FaceDataset(tmp_path / "out", split) for split in ("train", "test"))
    assert [r["id"] for r in train.records] == ["000000", "000001", "001999", "029999"]
    assert [r["id"] for r in test.records] == ["000002", "002000"]
    assert train.images.shape == (4, 3, SIZE, SIZE)
    for n, index in enumerate((0, 1, 1999, 29999)):
        reference = np.asarray(fake.picture(index).resize((SIZE, SIZE), Image.Resampling.BOX))
        error = train.images[n].permute(1, 2, 0).numpy().astype(int) - reference
        assert np.abs(error).mean() < 4
        whole = Image.fromarray(fake.merged(index, fake.OFFICIAL_LABEL_LIST))
        mask = np.asarray(whole.resize((SIZE, SIZE), Image.Resampling.NEAREST))
        np.testing.assert_array_equal(train.masks[n].numpy(), mask)
        assert train.captions[n] == fake.captions(index)
        assert train.records[n]["camera"] == fake.camera(index)
        assert train.records[n]["celeba_file"] == fake.celeba_file(index)
    with Image.open(tmp_path / "out/train/masks/000000.png") as mask:
        assert mask.mode == "P" and mask.getpalette()[3 * 13 : 3 * 14] == [0, 0, 204]
    image = train.images[0].permute(1, 2, 0).numpy()
    strokes = scribble(train.masks[0].numpy(), image)
    # drawn from the picture before it was encoded: a stray contour may differ
    assert (train.scribbles[0].numpy() == strokes).mean() > 0.97
    assert set(train.scribbles.unique().tolist()) == {0, 255}
    assert test.records[1]["camera"] is None and report["without_camera"] == 1
    assert report["converted"] == {"train": 4, "test": 2}
    assert report["skipped"] == [] and report["notes"] == []
    assert report["samples_with_class"]["eye_g"] == 1 and report["samples_with_class"]["hair"] == 6
    table = capsys.readouterr().out
    assert [line.split() for line in table.splitlines()][:3] == [
        ["train", "4"],
        ["test", "2"],
        ["skipped", "0"],
    ]


def test_attributes_are_joined_and_the_kits_own_are_unknown(whole_download, tmp_path):
    convert(whole_download, tmp_path / "out")
    train = FaceDataset(tmp_path / "out", "train")
    for n, index in enumerate((0, 1, 1999, 29999)):
        for column, name in enumerate(ATTRIBUTES):
            expected = int(name in fake.TRUE_ATTRIBUTES[index])
            expected = expected if name in fake.CELEBA_ATTRIBUTES else -1
            assert train.attributes[n, column] == expected, (index, name)
    assert [r["hair_color"] for r in train.records] == ["black", "none", None, None]


def test_hair_color_of_each_kind():
    for name in ("Black", "Blond", "Brown", "Gray"):
        assert hair_color({f"{name}_Hair": True, "Bald": False}) == name.lower()
    assert hair_color({}) is None


def test_identities_are_joined_or_one_a_sample(whole_download, tmp_path):
    convert(whole_download, tmp_path / "a")
    assert FaceDataset(tmp_path / "a").identities.tolist() == [0, 1, 1999, 29999]
    convert(whole_download, tmp_path / "b", "--identities", whole_download / "identity_CelebA.txt")
    assert FaceDataset(tmp_path / "b").identities.tolist() == [5000, 5001, 5001, 5001]
    assert FaceDataset(tmp_path / "b").first_views().tolist() == [0, 1]


def test_full_size_pictures_keep_every_mask_pixel(download, tmp_path):
    for index in set(fake.ORIGINALS) - {0, 2}:
        (download / f"CelebAMask-HQ/CelebA-HQ-img/{index}.jpg").unlink()
    convert(download, tmp_path / "out", size=512)
    expected = fake.merged(0, fake.OFFICIAL_LABEL_LIST)
    np.testing.assert_array_equal(FaceDataset(tmp_path / "out").masks[0].numpy(), expected)
    assert FaceDataset(tmp_path / "out").images.shape == (1, 3, 512, 512)


def test_the_partition_as_csv_and_folders_above(whole_download, tmp_path):
    text = (whole_download / "list_eval_partition.txt").read_text().replace(" ", ",")
    table = tmp_path / "list_eval_partition.csv"
    table.write_text("image_id,partition\n" + text)
    flags = f"--source {whole_download} --captions {whole_download} --size {SIZE} --workers 1"
    main([*flags.split(), "--partition", str(table), "--out", str(tmp_path / "out")])
    assert ids(tmp_path / "out") == set(fake.ORIGINALS)


# ---------------------------------------------------------------- damage


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
    written = [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert not [name for name in written if name.startswith(("000000.", "."))]


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


def stop(download, out, capsys, *more):
    with pytest.raises(SystemExit):
        convert(download, out, *more)
    return capsys.readouterr().err


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


def test_another_data_set_or_size_is_not_overwritten(whole_download, tmp_path, capsys):
    (tmp_path / "faces/train").mkdir(parents=True)
    assert "another data set" in stop(whole_download, tmp_path / "faces", capsys)
    convert(whole_download, tmp_path / "out")
    before = files(tmp_path / "out")
    assert "'size': 64" in stop(whole_download, tmp_path / "out", capsys, "--size", 32)
    assert files(tmp_path / "out") == before


# ---------------------------------------------------------------- interrupted runs


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


# ---------------------------------------------------------------- merged masks in both label orders


@pytest.mark.parametrize("label_list", [fake.OFFICIAL_LABEL_LIST, fake.OTHER_LABEL_LIST])
def test_merged_masks_of_either_order_give_the_masks_of_the_parts(
    label_list, whole_download, tmp_path
):
    convert(whole_download, tmp_path / "parts")
    fake.write_merged(tmp_path / "masks", label_list, tuple(fake.ORIGINALS))
    report = convert(whole_download, tmp_path / "out", "--masks", tmp_path / "masks")
    assert report["skipped"] == [] and report["notes"] == []
    for split in ("train", "test"):
        masks = FaceDataset(tmp_path / "out", split).masks
        assert torch.equal(masks, FaceDataset(tmp_path / "parts", split).masks)


def test_mixed_orders_ask_for_the_flag_and_obey_it(whole_download, tmp_path, capsys):
    fake.write_merged(tmp_path / "masks", fake.OFFICIAL_LABEL_LIST, (0, 1, 2))
    fake.write_merged(tmp_path / "masks", fake.OTHER_LABEL_LIST, (1999, 2000, 29999))
    merged = ("--masks", tmp_path / "masks")
    assert "--label-order" in stop(whole_download, tmp_path / "out", capsys, *merged)
    report = convert(whole_download, tmp_path / "out", *merged, "--label-order", "nose-2")
    doubtful = {(index, "label order doubtful") for index in (1999, 2000, 29999)}
    assert notes(report) == doubtful
    first = FaceDataset(tmp_path / "out", "train").masks[0]
    assert set(first.unique().tolist()) >= {2, 13}


def test_broken_merged_masks_are_skipped(whole_download, tmp_path):
    folder = tmp_path / "masks"
    fake.write_merged(folder, fake.OTHER_LABEL_LIST, (0, 1, 2))
    (folder / "1999.png").write_text("no picture")
    Image.fromarray(np.full((512, 512), 200, np.uint8)).save(folder / "2000.png")
    Image.new("L", (512, 512)).save(folder / "29999.png")
    (folder / "1.png").rename(folder / "00001.png")  # five digits are fine
    (folder / "2.png").unlink()
    report = convert(whole_download, tmp_path / "out", "--masks", folder)
    assert skipped(report) == {
        2: "mask missing",
        1999: "mask not valid",
        2000: "mask not valid",
        29999: "mask empty",
    }
    records = [json.loads(x) for x in (tmp_path / "out/train/metadata.jsonl").open()]
    assert [record["id"] for record in records] == ["000000", "000001"]
