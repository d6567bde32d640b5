"""The CelebAMask-HQ converter on a whole download in the official layout."""

import fake_celebamask as fake
import numpy as np
import pytest
import torch
from celebamask_runs import SIZE, convert, ids, notes, skipped, stop
from PIL import Image
from tiny_shards import opened

from data_prep.celebamask_hq.__main__ import main
from data_prep.celebamask_hq.annotations import hair_color
from data_prep.celebamask_hq.source_masks import PARTS, merge_parts
from data_prep.scribbles import scribble
from dmgi_lib.dataset import ATTRIBUTES, FaceDataset


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
        assert {"skin", "hair"} <= set(train.records[n]["classes"])
    with opened(train.encoded("masks")[0]) as mask:
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
    records = FaceDataset(tmp_path / "out", "train").records
    assert [record["id"] for record in records] == ["000000", "000001"]
