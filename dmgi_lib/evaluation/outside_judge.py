"""Columns of Table 1 by networks that nobody here trained: dlib's detector and recogniser of faces.

    pip install -e .[outside]
    python -m dmgi_lib.evaluation.outside_judge --rows runs/table

Reads the pictures that `dmgi_lib.evaluation.table` kept of its rows. The kit's own judges know the
mini world and nothing else; these learnt from photographs, so that they say whether a face is one,
and whose. Weights come with the package `face-recognition-models`; nothing is downloaded.
"""

from __future__ import annotations

import datetime
import functools
import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import tyro
from safetensors.torch import load_file
from torch import Tensor
from tqdm.auto import tqdm

from dmgi_lib.dataset import FaceDataset, default_root, resized, to_float, to_uint8
from dmgi_lib.devices import machine
from dmgi_lib.evaluation.report import interval, write_csv
from dmgi_lib.evaluation.samples import others

SIZE = 256  # pixels at which faces are looked for; the detector needs 80 of a face
EYES = slice(36, 42), slice(42, 48)  # of the 68 landmarks (iBUG 300-W)
FOUND, LANDMARKS, IDENTITY = "faces found", "landmark error", "identity distance"
STRANGERS = "strangers (floor)"


@dataclass(frozen=True)
class Face:
    """What is read of a picture."""

    landmarks: np.ndarray  # (68, 2), pixels of SIZE
    code: np.ndarray  # (128,), whose distances are below 0.6 for most pairs of one person


class OutsideJudge:
    """dlib's detector (HOG), 68 landmarks and recogniser (ResNet-34), on the CPU.

    Raises:
        ModuleNotFoundError: a package is missing; says how to get it.
    """

    def __init__(self) -> None:
        dlib, home = _package("dlib", "dlib-bin"), _models()
        self._detect = dlib.get_frontal_face_detector()
        self._landmarks = dlib.shape_predictor(str(home / "shape_predictor_68_face_landmarks.dat"))
        self._recognise = dlib.face_recognition_model_v1(
            str(home / "dlib_face_recognition_resnet_model_v1.dat")
        )

    def read(self, image: Tensor) -> Face | None:
        """The largest face of a picture (3, H, W) in [-1, 1]; None if none is found."""
        large = to_uint8(resized(image[None].float(), SIZE).clamp(-1, 1))[0]
        pixels = np.ascontiguousarray(large.permute(1, 2, 0).numpy())
        found = max(self._detect(pixels, 1), key=lambda box: box.area(), default=None)
        if found is None:
            return None
        shape = self._landmarks(pixels, found)
        places = np.array([(point.x, point.y) for point in shape.parts()], dtype=float)
        return Face(places, np.array(self._recognise.compute_face_descriptor(pixels, shape)))


def _package(name: str, wheel: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModuleNotFoundError(
            f"the outside judge needs {wheel}, which is not installed: pip install -e .[outside]"
        ) from error


def _models() -> Path:
    """The folder of weights; the package itself, whose import needs more, is not imported."""
    found = importlib.util.find_spec("face_recognition_models")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(
            "the outside judge needs face-recognition-models, which is not installed: pip install"
            " -e .[outside]"
        )
    return Path(found.submodule_search_locations[0]) / "models"


def compared(seen: Sequence[Face | None], wanted: Sequence[Face | None]) -> pd.DataFrame:
    """One row a picture: whether it shows a face, and how far that is from the wanted one.

    Landmark error is the mean distance as a share of that between the wanted one's eyes; NaN, like
    the distance of codes, where one of both was not found.
    """
    rows = []
    for ours, theirs in zip(seen, wanted, strict=True):
        row = {FOUND: float(ours is not None), LANDMARKS: np.nan, IDENTITY: np.nan}
        if ours is not None and theirs is not None:
            left, right = (theirs.landmarks[eye].mean(0) for eye in EYES)
            apart = np.linalg.norm(ours.landmarks - theirs.landmarks, axis=1).mean()
            row[LANDMARKS] = float(apart / np.linalg.norm(left - right))
            row[IDENTITY] = float(np.linalg.norm(ours.code - theirs.code))
        rows.append(row)
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame, seed: int = 0) -> dict[str, float]:
    """Means of the columns of `compared` with their 95 % intervals, and N."""
    found: dict[str, float] = {"N": len(table)}
    rng = np.random.default_rng(seed)
    for column in table:
        values = table[column].dropna().to_numpy()
        if not len(values):
            continue
        low, high = interval(functools.partial(_mean, values), len(values), rng)
        found |= {column: _mean(values), f"{column} low": low, f"{column} high": high}
    return found


def _mean(values: np.ndarray, rows: Any = slice(None)) -> float:
    return float(values[rows].mean())


def kept_rows(folder: Path) -> dict[str, tuple[list[str], Tensor]]:
    """Name → ids of the samples and pictures (N, 3, H, W) of the rows that a table kept.

    Raises:
        FileNotFoundError: there are none.
    """
    found = {}
    for table in sorted(folder.glob("*.samples.parquet"), key=lambda path: path.stat().st_mtime):
        home = folder / table.name.removesuffix(".samples.parquet")
        parts = sorted(home.glob("*.safetensors"), key=lambda path: int(path.stem.split("-")[0]))
        pictures = torch.cat([load_file(part)["pictures"] for part in parts])
        ids = pd.read_parquet(table, columns=["sample"])["sample"].tolist()
        found[home.name.rpartition("-")[0]] = ids, pictures  # the newest of a name
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no finished row; draw some: python -m dmgi_lib.evaluation.table"
            f" --rows {folder}"
        )
    return found


def main(
    rows: Path = Path("runs/table"),
    data: Path | None = None,
    n: int = 60,
    out: Path = Path("runs/outside.csv"),
) -> None:
    """Reads kept rows of a table.

    Args:
        rows: where the table kept its pictures
        data: face dataset; default: the one that was built, else the one that ships
        n: pictures of each row, the first ones
        out: CSV
    """
    judge, dataset = OutsideJudge(), FaceDataset(data or default_root(), "test")
    place = {record["id"]: i for i, record in enumerate(dataset.records)}
    truth: dict[str, Face | None] = {}

    def own(ids: Sequence[str]) -> list[Face | None]:
        for name in ids:
            if name not in truth:
                truth[name] = judge.read(to_float(dataset.images[[place[name]]])[0])
        return [truth[name] for name in ids]

    numbers = []
    for name, (ids, pictures) in tqdm(kept_rows(rows).items(), desc="rows", disable=None):
        seen = [judge.read(picture) for picture in pictures[:n]]
        numbers.append({"row": name} | summary(compared(seen, own(ids[:n]))))
    people = list(truth.values())
    strangers = [people[i] for i in others(len(people), 0)]
    numbers.append({"row": STRANGERS} | summary(compared(strangers, people)))
    lines = [
        "dlib's face detector, 68 landmarks and recogniser, trained by others on photographs;"
        f" pictures enlarged to {SIZE} px",
        f"{LANDMARKS}: share of the distance between the eyes; {IDENTITY}: to the own true picture,"
        " below 0.6 for most pairs of one person; low, high: 95 % bootstrap over samples",
        f"{datetime.date.today().isoformat()}; {machine('cpu')}",
    ]
    write_csv(out, lines, numbers)
    shown = pd.DataFrame(numbers).set_index("row")[["N", FOUND, LANDMARKS, IDENTITY]]
    print(*lines, shown.to_string(float_format="%.3f"), out, sep="\n")


if __name__ == "__main__":
    tyro.cli(main)
