"""`make table`: the mini world's Table 1, and whether it shows what it has to show.

    python -m dmgi_lib.evaluation.table --out runs/table1.csv

One table for each kind of x that the model has networks for: runs/table1.csv for masks,
runs/table1_scribble.csv for scribbles, each with a figure. Every row is kept in a file of its own
under --rows, and a row's pictures while it is drawn, so a run that was killed goes on where it was.
The columns are the paper's, computed with the kit's own extractors, so no number compares with the
paper's.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from dmgi_lib.dataset import FaceDataset, default_root
from dmgi_lib.evaluation.earlier_stages import RUNS, EarlierModel, earlier_models, last_stage
from dmgi_lib.evaluation.goals import Finding, mask_goals, scribble_goals
from dmgi_lib.evaluation.protocol import GroundTruth, load_clip
from dmgi_lib.evaluation.reading import COLUMNS, summary
from dmgi_lib.evaluation.row_files import CONDITIONS, OWN, FinishedRow, RowFiles, shared_hash
from dmgi_lib.evaluation.table_output import columns_of, draw_figure, header_lines, write_csv
from dmgi_lib.evaluation.table_rows import Table, TableConfig
from dmgi_lib.files import folder_hash
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import weights_folder
from dmgi_lib.recognizers import load_judges
from dmgi_lib.training.losses import PerceptualLoss
from dmgi_lib.training.stages import load_part, required_part
from dmgi_lib.weight_folder import part_name


def missing_parts(pipe: DMGIPipeline, condition: str) -> list[str]:
    """Networks without which a model cannot draw from that kind of x."""
    names = (part_name(part, condition) for part in OWN)
    return [name for name in names if getattr(pipe, name) is None]


def open_table(
    folder: Path,
    dataset: FaceDataset,
    n: int,
    rows: Path,
    config: TableConfig,
    runs: Path = RUNS,
    others: Mapping[str, Path] | None = None,
) -> tuple[Table, list[str]]:
    """A table of a model's folder, and notes on rows that could not be had.

    Args:
        folder: of model, judges, loss_net and image_encoder; mask_encoder if it was trained.
        rows:   where finished rows are kept.
        runs:   training runs of the earlier stages.
        others: name → folder: models whose last exit is a row too.
    """
    pipe, condition = DMGIPipeline.from_pretrained(folder), config.condition
    earlier, notes = earlier_models(pipe, condition, runs)
    for number, (name, other) in enumerate((others or {}).items()):
        model = DMGIPipeline.from_pretrained(other)
        earlier.append(EarlierModel(f"other_{number}", name, model, folder_hash(other)))
    encoder = load_part(folder, "mask_encoder") if condition == "mask" else None
    if condition == "mask" and encoder is None:
        notes.append(
            "no rows of the mask encoder: the model's folder holds none; train it with"
            " python -m data_prep.priors.trainer mask_encoder"
        )
    stage = last_stage(folder, condition)
    if stage != 3:
        notes.append(f"T comes out of stage {stage or '?'}; stage 3 would train M and T together")
    loss_net = required_part(folder, "loss_net", "data_prep.priors.trainer loss_net")
    data = dataset.digest
    own = {part: folder_hash(folder / part_name(part, condition)) for part in OWN}
    made_from = {
        "x": " ".join(own.values()),
        "controlnet": own["controlnet"],
        "mask_encoder": folder_hash(folder / "mask_encoder"),
    }
    table = Table(
        pipe,
        GroundTruth.read(dataset, n),
        load_judges(folder),
        load_clip(folder),
        config,
        RowFiles(rows, weights=shared_hash(folder), data=data, n=n, seed=config.seed),
        encoder,
        PerceptualLoss(loss_net.eval().requires_grad_(False)),
        earlier,
        stage == 3,
        made_from,
    )
    return table, notes


def findings(table: Table, rows: Mapping[str, FinishedRow]) -> list[Finding]:
    """Swaps and goals of a finished table."""
    first, last = (f"exit_{step}" for step in (0, table.last))
    readings = {key: row.reading for key, row in rows.items()}
    seed = table.config.seed
    asked = table.swaps(readings[last])
    if table.config.condition == "scribble":
        return asked + scribble_goals(readings, last, seed)
    return asked + mask_goals(readings, first, last, table.seconds(), seed)


def make(table: Table, notes: list[str], dataset: str, out: Path) -> list[Finding]:
    """Draws and reads what is missing, writes CSV and figure, prints each row and the findings."""
    rows: dict[str, FinishedRow] = {}
    numbers: dict[str, dict[str, Any]] = {}
    seconds = table.seconds()
    for row in tqdm(list(table.rows()), desc="rows", disable=None):
        rows[row.key] = done = table.finished(row)
        numbers[row.key] = summary(done.reading, table.config.seed)
        shown = "  ".join(f"{name} {numbers[row.key][name]:.3f}" for name in COLUMNS)
        tqdm.write(f"{done.name}, N = {len(done.reading)}: {shown}")
    asked = findings(table, rows)
    condition, config = table.config.condition, table.pipe.config
    header = header_lines(table.truth, condition, dataset)
    goals = [finding for finding in asked if finding.bound is not None]
    lines = [
        *header,
        f"W+ optimisation: {table.config.inversion_steps} steps on L1 over scales and the loss"
        " network's perceptual distance; text optimisation:"
        f" {table.config.text_steps} steps; the method's process has {config.num_inference_steps}"
        f" steps, guidance {config.guidance_scale:g}; codes of M, T and mask encoder truncated in"
        f" their last row, detail_psi {config.detail_psi:g}",
        "seconds a face: medians at batch 1, measured in turns in the same run",
        *notes,
        *(finding.line() for finding in asked),
        f"goals: {sum(goal.met for goal in goals)} of {len(goals)} reached",
    ]
    written = [
        {"key": key, "row": row.name}
        | columns_of(numbers[key])
        | {"seconds a face": seconds.get(key, ""), "minutes drawn and read": row.minutes}
        for key, row in rows.items()
    ]
    write_csv(out, lines, written)
    inputs = table.inputs(table.truth)
    draw_figure(rows, numbers, inputs, header[0], out.with_suffix(".png"))
    print(*lines, f"{out} and {out.with_suffix('.png')}", sep="\n")
    return asked


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module docstring."""
    defaults = TableConfig()
    parser = argparse.ArgumentParser(
        description="Draw and measure every row of the mini world's Table 1.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--weights", default="mini", help="preset, or folder with model and judges")
    parser.add_argument("--other", nargs="*", default=[], help="NAME=FOLDER: rows of other models")
    parser.add_argument("--data", type=Path, default=default_root(), help="face dataset")
    parser.add_argument("--n", type=int, default=500, help="test identities (first views)")
    parser.add_argument("--out", type=Path, default=Path("runs/table1.csv"), help="CSV; a PNG too")
    parser.add_argument("--rows", type=Path, default=Path("runs/table"), help="finished rows")
    parser.add_argument("--runs", type=Path, default=RUNS, help="training runs of stages 1 and 2")
    parser.add_argument(
        "--condition", choices=CONDITIONS, help="x; default: all that the model has"
    )
    parser.add_argument(
        "--exit-steps",
        type=int,
        nargs="*",
        default=[],
        help="besides first and last; empty: middle",
    )
    numbers = ("controlnet_steps", "n_inversion", "inversion_steps", "text_steps", "batch_size")
    for name in (*numbers, "seed"):
        value = getattr(defaults, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    given = parser.parse_args(arguments)
    config = TableConfig(
        exit_steps=tuple(given.exit_steps),
        **{name: getattr(given, name) for name in (*numbers, "seed")},
    )
    folder = weights_folder(given.weights)
    others = {name: Path(path) for name, _, path in (text.partition("=") for text in given.other)}
    pipe = DMGIPipeline.from_pretrained(folder)
    for condition in (given.condition,) if given.condition else CONDITIONS:
        missing = missing_parts(pipe, condition)
        if missing:
            text = (
                f"no {condition} table: this model has no {', '.join(missing)}. Train them with"
                f" `make train`, or see --condition {condition} of its commands."
            )
            if given.condition:
                parser.error(text)
            print(text)
            continue
        table, notes = open_table(
            folder,
            FaceDataset(given.data, split="test"),
            given.n,
            given.rows,
            replace(config, condition=condition),
            given.runs,
            others,
        )
        suffix = "" if condition == "mask" else f"_{condition}"
        make(table, notes, given.data.name, given.out.with_stem(given.out.stem + suffix))


if __name__ == "__main__":
    main()
