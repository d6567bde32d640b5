"""The shipped sample of the face world: sound, of the promised size, and what a build makes."""

import numpy as np
import pytest
from PIL import Image

from data_prep.faces128.build import make_sample
from data_prep.faces128.check import check
from dmgi_lib.dataset import FaceDataset, shipped_root


def test_sample_is_sound_and_light():
    assert check(shipped_root()) == []
    assert len(FaceDataset(shipped_root(), "test").first_views()) >= 500
    files = [path for path in shipped_root().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 60e6


@pytest.mark.parametrize(("split", "number"), [("test", 7), ("train", 20)])
def test_sample_is_what_a_build_makes(split, number, tmp_path):
    for kind in ("images", "masks", "scribbles", "depth", "records"):
        (tmp_path / split / kind).mkdir(parents=True)
    make_sample(tmp_path, split, number, spp=16)
    for kind, largest in {"images": 1.0, "masks": 0.02, "scribbles": 0.5}.items():
        (path,) = (tmp_path / split / kind).iterdir()
        there = shipped_root() / split / kind / path.name
        with Image.open(path) as made, Image.open(there) as shipped:
            # kinds of processors round differently, so bytes are only the same on one kind
            apart = np.abs(np.asarray(made).astype(int) - np.asarray(shipped))
        assert apart.mean() <= largest
