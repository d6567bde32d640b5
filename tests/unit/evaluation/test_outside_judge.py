"""The outside judge by hand, on rows as a table keeps them, and the real one where it is there."""

import os
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import tyro
from safetensors.torch import save_file

from dmgi_lib.dataset import FaceDataset, default_root, to_float
from dmgi_lib.evaluation import outside_judge
from dmgi_lib.evaluation.outside_judge import (
    FOUND,
    IDENTITY,
    LANDMARKS,
    STRANGERS,
    Face,
    OutsideJudge,
    compared,
    kept_rows,
    summary,
)
from dmgi_lib.evaluation.report import read_csv


def face(shift=0.0, code=0.0):
    """Eyes 10 pixels apart."""
    landmarks = np.zeros((68, 2))
    landmarks[36:42, 0], landmarks[42:48, 0] = -5, 5
    return Face(landmarks + np.array([shift, 0]), np.full(128, code / 128**0.5))


def test_faces_are_compared_by_hand():
    table = compared([face(2.0, 0.5), None, face()], [face(), face(), None])
    assert table[FOUND].tolist() == [1, 0, 1]
    assert table[LANDMARKS][0] == pytest.approx(0.2)
    assert table[IDENTITY][0] == pytest.approx(0.5)
    assert table[[LANDMARKS, IDENTITY]][1:].isna().all(axis=None)
    found = summary(table)
    assert (found["N"], found[FOUND]) == (3, pytest.approx(2 / 3))
    assert found[IDENTITY] == found[f"{IDENTITY} low"] == pytest.approx(0.5)
    assert LANDMARKS not in summary(compared([None], [face()]))


class OfBrightness:
    """Sees a face in what is not black; its code is the picture's mean."""

    def read(self, image):
        return None if image.max() < -0.99 else face(code=image.mean().item())


@pytest.fixture
def kept(tmp_path, dataset):
    """Two rows of three people, one of them with an older version; a picture a file."""
    folder = tmp_path / "rows"
    images = to_float(dataset.images[:3])

    def keep(name, pictures):
        for k, picture in enumerate(pictures):
            (folder / name).mkdir(parents=True, exist_ok=True)
            path = folder / name / f"{k}-{k + 1}.safetensors"
            save_file({"pictures": picture[None].contiguous()}, path)
        table = pd.DataFrame({"sample": [record["id"] for record in dataset.records[:3]]})
        table.to_parquet(folder / f"{name}.samples.parquet")

    keep("exit_0-0123456789", torch.full_like(images, -1))
    os.utime(folder / "exit_0-0123456789.samples.parquet", (0, 0))
    keep("exit_0-abcdef0123", images)
    keep("black-abcdef0123", torch.full_like(images, -1))
    return folder


def test_the_newest_rows_are_read(kept, tmp_path, monkeypatch, dataset):
    monkeypatch.setattr(outside_judge, "OutsideJudge", OfBrightness)
    monkeypatch.setattr(outside_judge, "FaceDataset", lambda root, split: dataset)
    arguments = ["--rows", str(kept), "--out", str(tmp_path / "out.csv"), "--n", "2"]
    tyro.cli(outside_judge.main, args=arguments)
    lines, rows = read_csv(tmp_path / "out.csv")
    found = {row["row"]: row for row in rows}
    assert found.keys() == {"exit_0", "black", STRANGERS}
    assert (found["exit_0"]["N"], found["exit_0"][FOUND]) == (2, 1)
    assert found["exit_0"][IDENTITY] < 1e-6 < found[STRANGERS][IDENTITY]
    assert found["black"][FOUND] == 0 and IDENTITY not in found["black"]
    assert "trained by others" in lines[0]


def test_a_folder_without_rows_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished row; draw some"):
        kept_rows(tmp_path)


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"dlib-bin.*pip install -e \.\[outside\]"):
        OutsideJudge()
    monkeypatch.setattr(outside_judge.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="face-recognition-models"):
        outside_judge._models()


def test_the_real_judge_tells_people_apart():
    pytest.importorskip("dlib")
    dataset, judge = FaceDataset(default_root(), "test"), OutsideJudge()
    seen = [judge.read(image) for image in to_float(dataset.images[dataset.first_views()[:4]])]
    assert all(seen)
    assert 0.4 < np.mean([np.linalg.norm(seen[0].code - other.code) for other in seen[1:]]) < 1
    assert judge.read(torch.zeros(3, 128, 128)) is None
