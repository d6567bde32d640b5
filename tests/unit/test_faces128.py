"""The face world: same seed, same files; labels, camera and captions agree with the picture."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from data_prep.faces128 import build, captions, strands
from data_prep.faces128.attributes import attributes
from data_prep.faces128.head import head_model
from data_prep.faces128.person import sample_identity, sample_view
from data_prep.faces128.regions import CLASS
from data_prep.faces128.render import METRES_PER_UNIT, PIVOT, camera_label, render
from data_prep.faces128.ship import ship
from dmgi_lib.dataset import ATTRIBUTES, FaceDataset


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("faces")
    numbers = build.sample_numbers(train=(2, 1), test=(1, 1), styles=1, views=1)
    numbers["styles"], numbers["views"] = numbers["styles"][::3], numbers["views"][::4]
    build.build(root, numbers, workers=1, spp=4)
    return root


def project(point: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Pixel (x, y) of a world point under an EG3D camera, at 128 px."""
    world2cam = np.linalg.inv(camera[:16].reshape(4, 4))
    x = camera[16:].reshape(3, 3) @ (world2cam @ np.r_[point, 1.0])[:3]
    return x[:2] / x[2] * 128


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


def test_relabel_changes_words_and_nothing_else(built, tmp_path):
    root = tmp_path / "again"
    shutil.copytree(built, root)
    path = next((root / "train" / "records").glob("*.json"))
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"captions": ["an old grammar"], "attributes": {}}))
    build.relabel(root)
    for split in ("train", "test"):
        before, after = ((r / split / "metadata.jsonl").read_text() for r in (built, root))
        assert before == after
    assert build.check(root) == []


def test_check_names_what_is_wrong(built, tmp_path):
    assert "missing" in build.check(tmp_path)[0]
    folder = tmp_path / "train"
    (folder / "images").mkdir(parents=True)
    (folder / "metadata.jsonl").write_text((built / "train/metadata.jsonl").read_text())
    faults = build.check(tmp_path)
    assert any("000000" in fault for fault in faults)


def test_cameras_follow_eg3d():
    camera = camera_label(0, 0, 0)
    assert np.allclose(camera[:16].reshape(4, 4)[:3, 3], [0, 0, 2.7])
    assert np.allclose(project(np.zeros(3), camera), [64, 64])
    assert np.allclose(camera[16:].reshape(3, 3)[[0, 1, 0], [0, 1, 2]], [4.2647, 4.2647, 0.5])
    for label in (camera_label(30, -10, 5), camera_label(-45, 20, 0)):
        rotation = label[:16].reshape(4, 4)[:3, :3]
        assert np.allclose(rotation @ rotation.T, np.eye(3)) and np.linalg.det(rotation) > 0.99
    left = project(np.array([0.1, 0, 0]), camera)
    up = project(np.array([0, 0.1, 0]), camera)
    assert left[0] > 64 and up[1] < 64  # the person's left is on the image's right, +y is up
    assert project(np.array([0, 0, 0.1]), camera_label(20, 0, 0))[0] < 64  # seen from their left


@pytest.mark.parametrize("seed", [3, 11])
def test_eyes_are_where_the_camera_says(seed):
    identity = sample_identity(seed)
    view = sample_view(identity, 0)
    view = type(view)(**{**vars(view), "glasses": "none", "eyes_closed": False, "yaw": 8.0})
    picture = render(identity, view, spp=1)
    body = head_model().vertices(identity.phenotype, {**identity.shape(), **view.expression})
    for name in ("l_eye", "r_eye"):
        ball = body[np.unique(head_model().faces[name])]
        centre = ((ball.max(0) + ball.min(0)) / 2 - PIVOT) / METRES_PER_UNIT
        x, y = project(centre, picture.camera)
        rows, columns = np.nonzero(picture.mask == CLASS[name])
        assert len(rows) > 0  # the lid may cover the centre itself
        assert np.hypot(columns + 0.5 - x, rows + 0.5 - y).min() < 1.5


def test_attributes_and_captions_speak_of_the_person():
    words = set(captions.vocabulary())
    assert len(words) == len(captions.vocabulary())
    mask = np.full((128, 128), CLASS["hair"])
    mask[60:70] = CLASS["l_eye"]
    for seed in range(60):
        identity = sample_identity(seed)
        view = sample_view(identity, 0)
        seen = attributes(identity, view, mask)
        assert set(seen) == set(ATTRIBUTES)
        colors = [k for k in ("Black", "Blond", "Brown", "Red", "Gray") if seen[f"{k}_Hair"]]
        assert len(colors) == (0 if identity.hair_style == "bald" else 1)
        texts = captions.captions(seen, seed)
        assert len(texts) >= 5 and texts == captions.captions(seen, seed)
        for text in texts:
            assert set(re.findall(r"[\w']+|[,.]", text)) <= words
            for table in (captions.HAVE, captions.WEAR):
                for name, phrases in table.items():
                    if not seen[name]:  # no caption claims what is false or unseen
                        others = [p for n, g in table.items() if n != name for p in g]
                        for phrase in set(phrases) - set(others):
                            if not any(phrase in o for o in others):
                                assert phrase not in text, (phrase, text)


def test_hair_unseen_is_unknown():
    identity = next(i for i in map(sample_identity, range(50)) if i.hair_color == "red")
    view = sample_view(identity, 0)
    assert attributes(identity, view, np.zeros((128, 128), int))["Red_Hair"] is None


def test_hair_grows_on_the_scalp_only():
    p = strands.sample_positions()
    above = strands.hairline_distance(p, 0.0) > 0.01
    forehead = (np.abs(p[:, 0]) < 0.03) & (p[:, 2] > 0) & (p[:, 1] > 0.03) & (p[:, 1] < 0.06)
    crown = p[:, 1] > 0.105
    assert above[crown].all() and not above[forehead].any()
    assert (strands.hairline_distance(p, 1.0) <= strands.hairline_distance(p, 0.0)).all()
    with pytest.raises(ValueError, match="empty"):
        strands.sample_roots(np.zeros(len(p)), 5, np.random.default_rng(0))


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
