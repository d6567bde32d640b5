"""The shipped sample of the face world: sound, of the promised size, and what a build makes."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from data_prep.faces128.backdrop import backdrop
from data_prep.faces128.build import make_sample, sample_person
from data_prep.faces128.check import check
from data_prep.faces128.render import tone_map
from dmgi_lib.dataset import FACE_ATTRIBUTES, FaceDataset, decode, shipped_root
from dmgi_lib.shards import PICTURES


def test_sample_is_sound_and_light():
    assert check(shipped_root()) == []
    assert len(FaceDataset(shipped_root(), "test").first_views()) >= 500
    files = [path for path in shipped_root().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 60e6 and len(files) <= 10


@pytest.mark.parametrize(("split", "number"), [("test", 7), ("train", 20)])
def test_sample_is_what_a_build_makes(split, number):
    made, data = make_sample(split, number, spp=16), FaceDataset(shipped_root(), split)
    assert data.records[number]["id"] == made["id"]
    for kind, largest in {"images": 1.0, "masks": 0.02, "scribbles": 0.5}.items():
        (shipped,) = data.encoded(kind, [number])
        # kinds of processors round differently, so bytes are only the same on one kind
        new, old = (decode(x, kind).astype(int) for x in (made[PICTURES[kind]], shipped))
        assert np.abs(new - old).mean() <= largest


def test_sample_is_labelled_by_faces_alone():
    """Until it is relabelled, no caption of it names clothes, colours of things or places."""
    data = FaceDataset(shipped_root(), "test")
    assert set(data.records[0]["attributes"]) == set(FACE_ATTRIBUTES)
    assert (data.attributes[:, len(FACE_ATTRIBUTES) :] == -1).all()


def test_backdrops_of_the_sample_can_be_painted_again():
    """What a room is said to hold is what its picture shows."""
    data, kinds = FaceDataset(shipped_root(), "test"), set()
    for number in range(24):
        _, identity, view, _ = sample_person("test", number)
        behind = binary_erosion(data.masks[number].numpy() == 0, iterations=5)
        painted, _ = backdrop(identity.seed, view, 128)
        shown = data.images[number].permute(1, 2, 0).numpy().astype(float)
        assert np.abs(tone_map(painted) - shown)[behind].mean() < 3, number
        kinds.add(view.background_kind)
    assert {"room", "garden", "street", "plain"} <= kinds
