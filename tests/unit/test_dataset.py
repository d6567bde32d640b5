import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import face_mask

from dmgi_lib.dataset import (
    ATTRIBUTES,
    FaceDataset,
    PictureFiles,
    built_root,
    default_root,
    shipped_root,
    to_float,
    to_uint8,
)
from dmgi_lib.masks import mask_to_image


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "faces" / "train"
    for name in ("images", "masks", "scribbles"):
        (folder / name).mkdir(parents=True)
    lines = []
    for i, identity in enumerate((7, 8, 7)):
        sample = f"{i:06d}"
        pixels = np.full((128, 128, 3), rng.integers(0, 256, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{sample}.webp", lossless=True)
        mask_to_image(face_mask()).save(folder / "masks" / f"{sample}.png")
        strokes = np.zeros((128, 128), np.uint8)
        strokes[i] = 255
        Image.fromarray(strokes).save(folder / "scribbles" / f"{sample}.png")
        record = {"id": sample, "identity": identity, "captions": [f"caption {i}"] * 5}
        record["attributes"] = {"Male": True, "Smiling": False, "Eyeglasses": None}
        record["shape_code"] = [float(i)] * 48
        lines.append(json.dumps(record))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "faces"


def test_reads_every_part(root):
    ds = FaceDataset(root)
    assert len(ds) == 3
    assert ds.images.shape == (3, 3, 128, 128) and ds.images.dtype == torch.uint8
    with Image.open(root / "train/images/000001.webp") as image:
        assert ds.images[1, :, 5, 5].tolist() == list(image.convert("RGB").getpixel((5, 5)))
    assert torch.equal(ds.masks[2], face_mask())
    assert ds.scribbles[1, 1].eq(255).all() and ds.scribbles[1].sum() == 255 * 128
    assert ds.shape_codes[2].eq(2).all() and ds.shape_codes.shape == (3, 48)
    assert ds.captions[1][0] == "caption 1"
    assert ds.identities.tolist() == [7, 8, 7]
    assert ds.first_views().tolist() == [0, 1]


def test_sets_larger_than_the_memory_stay_on_disk(root):
    whole, large = FaceDataset(root), FaceDataset(root, memory=1e-6)
    assert isinstance(large.images, PictureFiles) and isinstance(whole.images, torch.Tensor)
    for kind in ("images", "masks", "scribbles"):
        kept, files = getattr(whole, kind), getattr(large, kind)
        for rows in (2, torch.tensor([2, 0]), slice(1, 3), [1, 1]):
            assert torch.equal(files[rows], kept[rows])
        assert len(files) == len(kept) == 3


def test_attributes_are_coded(root):
    row = dict(zip(ATTRIBUTES, FaceDataset(root).attributes[0].tolist(), strict=True))
    assert (row["Male"], row["Smiling"], row["Eyeglasses"], row["Bald"]) == (1, 0, -1, -1)
    assert len(ATTRIBUTES) == len(set(ATTRIBUTES)) == 43


def test_missing_set_says_how_to_build(tmp_path):
    with pytest.raises(FileNotFoundError, match="make faces"):
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
    assert default_root() == built_root()


def test_unknown_split(root):
    with pytest.raises(ValueError, match="'val'"):
        FaceDataset(root, split="val")


def test_missing_picture_is_named(root):
    (root / "train/masks/000001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"000001.png"):
        _ = FaceDataset(root).masks


@pytest.mark.parametrize(
    ("line", "message"), [("{broken", "line 4"), ('{"id": "000003"}', "identity"), ("3", "line 4")]
)
def test_broken_metadata_is_located(root, line, message):
    with (root / "train/metadata.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=message):
        FaceDataset(root)


def test_empty_metadata(root):
    (root / "train/metadata.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="no samples"):
        FaceDataset(root)


def test_float_round_trip():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(values)), values)
    assert to_float(values).min() == -1 and to_float(values).max() == 1
    assert to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]
