import pickle
import shutil

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tiny_models import face_mask
from tiny_shards import encoded, opened, rewrite, sample

from data_prep.shard_writer import write_split
from dmgi_lib import dataset
from dmgi_lib.dataset import (
    ATTRIBUTES,
    FaceDataset,
    PictureFiles,
    built_root,
    decode,
    default_root,
    shipped_root,
    to_float,
    to_uint8,
    whole_splits,
)


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    told = {"Male": True, "Smiling": False, "Eyeglasses": None}
    samples = [
        sample(
            i,
            tuple(rng.integers(0, 256, 3).tolist()),
            identity=identity,
            attributes=told,
            shape_code=[float(i)] * 48,
            camera=[float(i)] * 25,
            depth=encoded(np.full((128, 128), 27_000 + i, np.uint16)),
        )
        for i, identity in enumerate((7, 8, 7))
    ]
    write_split(tmp_path / "faces" / "train", samples, shard=2)
    return tmp_path / "faces"


def test_reads_every_part(root):
    ds = FaceDataset(root)
    assert len(ds) == 3
    assert ds.images.shape == (3, 3, 128, 128) and ds.images.dtype == torch.uint8
    with opened(ds.encoded("images")[1]) as image:
        assert ds.images[1, :, 5, 5].tolist() == list(image.convert("RGB").getpixel((5, 5)))
    assert torch.equal(ds.masks[2], face_mask())
    assert ds.scribbles[1, 1].eq(255).all() and ds.scribbles[1].sum() == 255 * 128
    assert ds.depth[2].eq(2.7002).all() and ds.depth.dtype == torch.float32
    assert ds.shape_codes[2].eq(2).all() and ds.shape_codes.shape == (3, 48)
    assert ds.cameras[2].eq(2).all() and ds.cameras.shape == (3, 25)
    assert ds.captions[1][0] == "caption 1"
    assert ds.identities.tolist() == [7, 8, 7]
    assert ds.first_views().tolist() == [0, 1]


def test_sets_larger_than_the_memory_stay_on_disk(root):
    whole, large = FaceDataset(root), FaceDataset(root, memory=1e-6)
    assert isinstance(large.images, PictureFiles) and isinstance(whole.images, torch.Tensor)
    for kind in ("images", "masks", "scribbles", "depth"):
        kept, files = getattr(whole, kind), getattr(large, kind)
        for rows in (2, -1, torch.tensor([2, 0]), slice(1, 3), [1, 1]):
            assert torch.equal(files[rows], kept[rows])
        assert len(files) == len(kept) == 3


def test_pictures_can_stay_undecoded(root, monkeypatch):
    monkeypatch.setattr(dataset, "decode", lambda *_: pytest.fail("a picture was decoded"))
    whole = FaceDataset(root)
    assert [x[8:12] for x in whole.encoded("images", [2, 0])] == [b"WEBP"] * 2
    assert whole.encoded("masks", [2, 0]) == whole.encoded("masks")[::-2]
    assert not whole.has("anything") and len(whole.records) == 3 and len(whole.digest) == 16


def test_other_processes_get_the_same(root):
    again = pickle.loads(pickle.dumps(FaceDataset(root, memory=0)))
    assert torch.equal(again.images[[2]], FaceDataset(root).images[[2]])


def test_datasets_opens_pictures_as_pictures(root, tmp_path):
    shards = str(root / "train" / "*.parquet")
    hub = datasets.load_dataset("parquet", data_files={"train": shards}, cache_dir=str(tmp_path))
    row, own = hub["train"][1], FaceDataset(root)
    assert np.array_equal(np.asarray(row["image"]), own.images[1].permute(1, 2, 0).numpy())
    assert row["mask"].mode == "P" and row["depth"].getpixel((0, 0)) == 27_001
    assert isinstance(hub["train"].features["scribble"], datasets.Image)
    labels = {k: v for k, v in row.items() if k not in ("image", "mask", "scribble", "depth")}
    assert labels == own.records[1]


def test_attributes_are_coded(root):
    row = dict(zip(ATTRIBUTES, FaceDataset(root).attributes[0].tolist(), strict=True))
    assert (row["Male"], row["Smiling"], row["Eyeglasses"], row["Bald"]) == (1, 0, -1, -1)
    assert row["Suit"] == -1 and len(ATTRIBUTES) == len(set(ATTRIBUTES))


def test_digest_sees_labels_and_pictures_but_not_shards(root, tmp_path):
    train = root / "train"
    write_split(tmp_path / "again/train", [sample(i) for i in range(3)], shard=1)
    write_split(tmp_path / "other/train", [sample(i) for i in range(3)], shard=3)
    first, second = FaceDataset(tmp_path / "again"), FaceDataset(tmp_path / "other")
    assert first.digest == second.digest != FaceDataset(root).digest
    before = FaceDataset(root).digest
    rewrite(train, lambda s: s | {"captions": [s["captions"][0] + "."]})
    relabelled = FaceDataset(root).digest
    rewrite(train, lambda s: s | {"scribble": sample(int(s["id"]) + 1)["scribble"]})
    assert len({before, relabelled, FaceDataset(root).digest}) == 3


def test_missing_set_says_how_to_build(tmp_path):
    with pytest.raises(FileNotFoundError, match="make faces"):
        FaceDataset(tmp_path)


def test_loose_files_of_earlier_versions_are_named(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/metadata.jsonl").write_text("{}")
    with pytest.raises(FileNotFoundError, match="loose files of an earlier version.*make faces"):
        FaceDataset(tmp_path)


def test_environment_names_the_default_root(monkeypatch, root):
    monkeypatch.setenv("DMGI_FACES", str(root))
    assert built_root() == default_root() == root
    assert len(FaceDataset()) == 3


def test_only_a_whole_set_is_the_default(monkeypatch, root, tmp_path):
    monkeypatch.delenv("DMGI_FACES", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".cache" / "dmgi").mkdir(parents=True)
    root.rename(built_root())
    assert default_root() == shipped_root()
    shutil.copytree(built_root() / "train", built_root() / "test")
    assert default_root() == built_root() and whole_splits(built_root()) == ["train", "test"]
    (built_root() / "test/00001-of-00002.parquet").unlink()
    assert default_root() == shipped_root() and whole_splits(built_root()) == ["train"]


def test_unknown_split(root):
    with pytest.raises(ValueError, match="'val'"):
        FaceDataset(root, split="val")


def test_a_missing_shard_is_named(root):
    (root / "train/00000-of-00002.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 2 shards .00000-of-00002.parquet is missing"):
        FaceDataset(root)


def test_missing_pictures_are_named(root):
    rewrite(root / "train", lambda s: s | {"mask": None} if s["id"] == "000001" else s)
    with pytest.raises(ValueError, match=r"00000-of-00002.parquet, row 1 has no mask"):
        _ = FaceDataset(root).masks
    rewrite(root / "train", lambda s: {k: v for k, v in s.items() if k != "scribble"})
    with pytest.raises(FileNotFoundError, match="no scribbles"):
        _ = FaceDataset(root).scribbles


def gif(size=(128, 128)):
    return encoded(Image.new("P", size), "GIF")


def too_large():
    return encoded(Image.new("1", (9000, 9000)))


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("images", lambda: b"no picture", "cannot be read"),
        ("images", lambda: sample(0)["image"][:40], "cannot be read"),
        ("masks", gif, "cannot be read"),
        ("masks", too_large, "9000 x 9000 px"),
        ("masks", lambda: encoded(Image.new("RGB", (128, 128))), "mode RGB, expected P or L"),
        ("scribbles", lambda: encoded(Image.new("L", (64, 64))), "sizes .*64, 64.*one size"),
    ],
)
def test_pictures_of_unknown_origin_are_checked(root, kind, data, message):
    column = kind.removesuffix("s")
    rewrite(root / "train", lambda s: s | {column: data()} if s["id"] == "000002" else s)
    with pytest.raises(ValueError, match=message) as caught:
        getattr(FaceDataset(root), kind)
    assert "sizes" in message or "00001-of-00002.parquet, row 0" in str(caught.value)


def test_jpegs_are_pictures_too():
    picture = decode(encoded(Image.new("RGB", (8, 8), "white"), "JPEG"), "images")
    assert picture.shape == (3, 8, 8) and picture.min() > 250


def test_a_split_without_samples(tmp_path):
    write_split(tmp_path / "train", [sample(0)])
    (path,) = (tmp_path / "train").iterdir()
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(ValueError, match="holds no samples"):
        FaceDataset(tmp_path)


def test_float_round_trip():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(values)), values)
    assert to_float(values).min() == -1 and to_float(values).max() == 1
    assert to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]
