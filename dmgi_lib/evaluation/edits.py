"""How well the directions of `pipe.edit` change what they say, and leave the rest: docs/edits.csv.

    python -m dmgi_lib.evaluation.edits --people 100

Codes of test people are moved by ±1 along each direction and drawn by G; the judges, which the
search for the directions never saw, read the faces before and after. Yaw, which no judge reads, is
read from the parser judge's features by a ridge regression on cameras of training pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import tyro
from torch import Tensor

from dmgi_lib.dataset import ATTRIBUTES, FaceDataset, to_float
from dmgi_lib.editing import EDITS
from dmgi_lib.evaluation.draw import judged_size
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


@dataclass(frozen=True)
class Readings:
    """What the judges read in B pictures.

    attributes: (B, A) bool      identity: (B, 49) unit vectors      yaw: (B,) degrees
    """

    attributes: Tensor
    identity: Tensor
    yaw: Tensor


def judge(images: Tensor, judges: Judges, yaw: Callable[[Tensor], Tensor]) -> Readings:
    """The judges' readings of pictures (B, 3, H, W) in [-1, 1]; `yaw` reads `parser.features`."""
    parts = []
    with torch.no_grad():
        for part in judged_size(images).split(25):
            attributes, _ = judges.attributes.read(part)
            degrees = yaw(judges.parser.features(part)[-1])
            parts.append((attributes, judges.identity.identity(part), degrees))
    return Readings(*(torch.cat(column) for column in zip(*parts, strict=True)))


def compared(
    name: str, strength: int, before: Readings, after: Readings, reads: Tensor
) -> dict[str, Any]:
    """A row of the table.

    Args:
        name: of a direction.
        strength: 1 or -1.
        reads: (A,) bool, the attributes that the judge reads.

    Returns:
        "faces": those that were not so before, which "asked change" is a share of; "others
        changed": mean share of the other attributes whose reading is another one; "identity": mean
        cosine; "turned": mean degrees of yaw, towards the person's left.
    """
    edit = EDITS[name]
    asked = edit.more if strength > 0 else edit.less
    turned = after.yaw - before.yaw
    if asked is None:
        able = torch.ones(len(turned), dtype=torch.bool)
        done = strength * turned >= TURNED
    else:
        column = ATTRIBUTES.index(asked[0])
        able = before.attributes[:, column] != asked[1]
        done = after.attributes[:, column] == asked[1]
    others = other_attributes(name, reads.nonzero().flatten().tolist())
    changed = before.attributes[:, others] != after.attributes[:, others]
    return {
        "direction": name,
        "strength": strength,
        "faces": int(able.sum()),
        "asked change": done[able].double().mean().item(),
        "others changed": changed.double().mean().item(),
        "identity": (before.identity * after.identity).sum(1).double().mean().item(),
        "turned": turned.double().mean().item(),
    }


def yaw_judge(judges: Judges, dataset: FaceDataset, pictures: int = 500) -> YawProbe:
    """Reads yaw from the parser judge's features; fitted on training people."""
    rows = dataset.first_views()[:pictures].tolist()
    with torch.no_grad():
        images = to_float(dataset.images[rows])
        features = [judges.parser.features(part)[-1] for part in images.split(25)]
    return YawProbe(torch.cat(features), sample_yaws(dataset, rows))


def measure(
    pipe: DMGIPipeline, codes: Tensor, judges: Judges, yaw: Callable[[Tensor], Tensor]
) -> pd.DataFrame:
    """The table of all directions of a model on codes (B, num_ws, w_dim)."""

    def read(**strengths: float) -> Readings:
        parts = [pipe.edit(part, output_type="pt", **strengths).images for part in codes.split(25)]
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

    rows, titles = [pipe.edit(codes).images], ["as drawn"]
    for name in pipe.edit_directions.names:
        for strength in (-1, 1):
            moved = pipe.edit_directions(codes, {name: strength})
            rows.append(pipe.edit(moved).images)
            titles.append(f"{name.replace('_', ' ')} {strength:+d}")
    people = [list(column) for column in zip(*rows, strict=True)]  # a person a row
    return show_grid(people, column_titles=titles, cell=1.2)


def main(
    weights: str = MINI.name,
    people: int = 100,
    exit_step: int = 0,
    data: Path | None = None,
    out: Path = Path("docs/edits.csv"),
    picture: Path | None = Path("docs/edits.jpg"),
) -> None:
    """Measures the directions of a model on test people and writes a table and a sheet of faces.

    Args:
        weights: preset or folder, with edit_directions and the judges.
        people: of the test split, each drawn once.
        exit_step: of those drawings.
        data: face dataset; None means `dmgi_lib.dataset.default_root()`.
        out: CSV file.
        picture: picture file; needs matplotlib and IPython.
    """
    pipe = DMGIPipeline.from_pretrained(weights)
    judges = load_judges(weights_folder(weights))
    yaw = yaw_judge(judges, FaceDataset(data, "train", memory=0))
    test = FaceDataset(data, "test", memory=0)
    codes = pipeline_codes(pipe, test, people, exit_step)
    table = measure(pipe, codes, judges, yaw).assign(people=len(codes), exit_step=exit_step)
    write_whole(out, lambda path: table.round(4).to_csv(path, index=False))
    print(table.round(3).to_string(index=False))
    if picture is not None:
        figure = sheet(pipe, codes[:SHOWN])
        write_whole(picture, lambda path: figure.savefig(path, dpi=110, format=picture.suffix[1:]))


if __name__ == "__main__":
    tyro.cli(main)
