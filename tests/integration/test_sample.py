"""The shipped sample of the face world: sound, of the promised size, and what a build makes."""

import numpy as np
import pytest

from data_prep.faces128.build import make_sample
from data_prep.faces128.check import check
from dmgi_lib.dataset import FaceDataset, decode, shipped_root
from dmgi_lib.shards import PICTURES


def test_sample_is_sound_and_light():
    assert check(shipped_root()) == []
    assert len(FaceDataset(shipped_root(), "test").first_views()) >= 500
    files = [path for path in shipped_root().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 45e6 and len(files) <= 10


@pytest.mark.parametrize(("split", "number"), [("test", 7), ("train", 20)])
def test_sample_is_what_a_build_makes(split, number):
    made, data = make_sample(split, number, spp=16), FaceDataset(shipped_root(), split)
    assert data.records[number]["id"] == made["id"]
    for kind, largest in {"images": 1.0, "masks": 0.02, "scribbles": 0.5}.items():
        (shipped,) = data.encoded(kind, [number])
        # kinds of processors round differently, so bytes are only the same on one kind
        new, old = (decode(x, kind).astype(int) for x in (made[PICTURES[kind]], shipped))
        assert np.abs(new - old).mean() <= largest
