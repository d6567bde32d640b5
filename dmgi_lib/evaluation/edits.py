"""How well the directions of `pipe.edit` change what they say, and leave the rest: docs/edits.csv.

    python -m dmgi_lib.evaluation.edits --people 100

Codes of test people are moved by ±1 along each direction and drawn by G; the judges, which the
search for the directions never saw, read the faces before and after. Yaw, which no judge reads, is
read from the parser judge's features by a ridge regression on cameras of training pictures.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
import tyro
from torch import Tensor

from dmgi_lib.dataset import ATTRIBUTES, FaceDataset, to_float
from dmgi_lib.devices import machine, pick_device
from dmgi_lib.editing import EDITS
from dmgi_lib.evaluation.draw import judged_size
from dmgi_lib.evaluation.report import write_csv
from dmgi_lib.files import write_whole
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import MINI, weights_folder
from dmgi_lib.recognizers import Judges, load_judges
from dmgi_lib.training.edit_directions import (
    YawProbe,
    other_attributes,
    pipeline_codes,
    sample_yaws,
)

TURNED = 10.0  # degrees by which a head has to turn to count as turned
SHOWN = 4  # people on the sheet


class Readings(NamedTuple):
    """What the judges read in B pictures."""

    attributes: Tensor  # (B, A) bool
    identity: Tensor  # (B, 49) unit vectors
    yaw: Tensor  # (B,) degrees


@torch.no_grad()
def judge(images: Tensor, judges: Judges, yaw: Callable[[Tensor], Tensor]) -> Readings:
    """The judges' readings of pictures (B, 3, H, W) in [-1, 1]; `yaw` reads `parser.features`."""
    parts = [
        (
            judges.attributes.read(part)[0],
            judges.identity.identity(part),
            yaw(judges.parser.features(part)[-1]),
        )
        for part in judged_size(images).split(25)
    ]
    return Readings(*(torch.cat(column) for column in zip(*parts, strict=True)))


def compared(
    name: str, strength: int, before: Readings, after: Readings, reads: Tensor
) -> dict[str, Any]:
    """A row of the table: a direction at strength 1 or -1.

    reads: (A,) bool, the attributes that the judge reads.

    Returns:
        "faces": those that were not so before, which "asked change" is a share of; "others
        changed": mean share of the other attributes whose reading is another one; "identity": mean
        cosine; "turned": mean degrees of yaw, towards the person's left.
    """
    asked = EDITS[name].more if strength > 0 else EDITS[name].less
    turned = after.yaw - before.yaw
    if asked is None:
        able = torch.ones(len(turned), dtype=torch.bool)
        done = strength * turned >= TURNED
    else:
        column = ATTRIBUTES.index(asked[0])
        able = before.attributes[:, column] != asked[1]
        done = after.attributes[:, column] == asked[1]
    others = other_attributes(name, reads.nonzero().flatten().tolist())
    shares = {
        "asked change": done[able],
        "others changed": before.attributes[:, others] != after.attributes[:, others],
        "identity": (before.identity * after.identity).sum(1),
        "turned": turned,
    }
    row = {"direction": name, "strength": strength, "faces": int(able.sum())}
    return row | {key: values.double().mean().item() for key, values in shares.items()}


def measure(
    pipe: DMGIPipeline, codes: Tensor, judges: Judges, yaw: Callable[[Tensor], Tensor]
) -> pd.DataFrame:
    """The table of all directions of a model on codes (B, num_ws, w_dim)."""

    def read(**strengths: float) -> Readings:
        parts = [
            pipe.edit(part, style=None, output_type="pt", **strengths).images
            for part in codes.split(25)
        ]
        return judge(torch.cat(parts), judges, yaw)

    before, reads = read(), judges.attributes.reads
    known = [name for name in pipe.edit_directions.names if name in EDITS]
    return pd.DataFrame(
        compared(name, strength, before, read(**{name: strength}), reads)
        for name in known
        for strength in (1, -1)
    )


def sheet(pipe: DMGIPipeline, codes: Tensor) -> Any:
    """A figure with a person a row: as drawn, then each direction at -1 and 1."""
    from dmgi_lib.display import show_grid

    columns = {"as drawn": pipe.edit(codes).images}
    for name in pipe.edit_directions.names:
        for strength in (-1, 1):
            asked: dict[str, Any] = {name: strength}
            columns[f"{name.replace('_', ' ')} {strength:+d}"] = pipe.edit(codes, **asked).images
    people = [list(row) for row in zip(*columns.values(), strict=True)]
    return show_grid(people, column_titles=list(columns), cell=1.2)


def main(
    weights: str = MINI.name,
    people: int = 100,
    exit_step: int = 0,
    data: Path | None = None,
    out: Path = Path("docs/edits.csv"),
    picture: Path | None = Path("docs/edits.jpg"),
    device: str = "auto",
) -> None:
    """Measures the directions of a model on test people and writes a table and a sheet of faces.

    Args:
        weights: preset or folder, with edit_directions and the judges.
        people: of the test split, each drawn once.
        exit_step: of those drawings.
        data: face dataset; None means `dmgi_lib.dataset.default_root()`.
        out: CSV file.
        picture: picture file; needs matplotlib and IPython.
        device: auto, cpu, cuda or mps.
    """
    place = pick_device(device)
    pipe = DMGIPipeline.from_pretrained(weights).to(place)
    judges = load_judges(weights_folder(weights), place)
    train, test = (FaceDataset(data, split, memory=0) for split in ("train", "test"))
    rows = train.first_views()[:500].tolist()
    with torch.no_grad():
        images = to_float(train.images[rows]).split(25)
        features = torch.cat([judges.parser.features(part.to(place))[-1] for part in images])
    yaw = YawProbe(features, sample_yaws(train, rows))
    codes = pipeline_codes(pipe, test, people, exit_step)
    table = measure(pipe, codes, judges, yaw)
    about = f"{len(codes)} test people, drawn at exit step {exit_step}"
    lines = [about, f"{datetime.date.today().isoformat()}; {machine(place)}"]
    write_csv(out, lines, table.round(4).to_dict("records"))
    print(table.round(3).to_string(index=False))
    if picture is not None:
        figure = sheet(pipe, codes[:SHOWN])
        write_whole(picture, lambda path: figure.savefig(path, dpi=110, format=picture.suffix[1:]))


if __name__ == "__main__":
    tyro.cli(main)
