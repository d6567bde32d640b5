"""`make table`: the mini world's Table 1, and whether it shows what it has to show.

    python -m dmgi_lib.evaluation.table --out runs/table1.csv

One table for each kind of x that the model has networks for: runs/table1.csv for masks,
runs/table1_scribble.csv for scribbles, each with a figure (.png) and all that was read of the
samples (.parquet). Pictures and readings of each row are kept under --rows, so a run that was
killed goes on where it was. The columns are the paper's, computed with the kit's own extractors, so
no number compares with the paper's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
import tyro
from torch import Tensor
from tqdm.auto import tqdm

from dmgi_lib.dataset import FaceDataset, default_root
from dmgi_lib.devices import pick_device
from dmgi_lib.evaluation import goals, metrics, read, report, rows
from dmgi_lib.evaluation.draw import Dtype, Row, place
from dmgi_lib.evaluation.read import FinishedRow, Reading
from dmgi_lib.evaluation.rows import CONDITIONS, DRAWS, RUNS, Scene, TableConfig
from dmgi_lib.evaluation.samples import GroundTruth, givers
from dmgi_lib.evaluation.speed import in_turns
from dmgi_lib.files import folder_hash, read_json, write_text, write_whole
from dmgi_lib.masks import PICTURES, as_uint8
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import MINI_3D, weights_folder
from dmgi_lib.prompts import encode_empty, encode_text, tokenize
from dmgi_lib.recognizers import Judges, load_judges
from dmgi_lib.training.losses import PerceptualLoss
from dmgi_lib.weight_folder import load_part, part_name, required_part

OWN = ("controlnet", "mapping_network", "style_modulation")  # one for each kind of x
DIVERSITY = f"diversity of {DRAWS} draws"


@dataclass(kw_only=True)
class Table(Scene):
    """A scene with judges, and a folder where pictures and readings of its rows are kept.

    To make a row anew under equal facts, delete its files.
    """

    judges: Judges
    folder: Path  # of the files; made when the first is written
    # what every row is made from: hashes of weights and data, N, seed, precision
    facts: dict[str, Any] = field(default_factory=dict)

    def read(self, images: Tensor, truth: GroundTruth) -> Reading:
        """The judges' reading of pictures against samples."""
        return read.read(images, truth, self.judges, self.clip, self.pipe.tokenizer)

    def finished(self, row: Row) -> FinishedRow:
        """The row, drawn and read, or as its files hold it."""
        path = place(self.folder, row.key, self.facts | row.made_from)
        return read.finish(row, path, self.read, self.config.batch_size)

    def seconds(self) -> dict[str, float]:
        """Median seconds of one face at batch 1, in this process: "exit_<step>" and "controlnet".

        The latter decodes I_0^d of `controlnet_steps`, without M, T and G.
        """
        steps, condition = self.config.controlnet_steps, self.config.condition
        made_from = {"networks": self.made_from.get("x", ""), "steps": [*self.exits, steps]}
        path = place(self.folder, "seconds", self.facts | made_from | {"condition": condition})
        path = path.with_suffix(".json")
        if path.exists():
            return read_json(path)
        pipe: Any = self.pipe
        x, prompt = self.inputs(self.truth)[0], self.truth.prompts[0]

        @torch.no_grad()
        def controlnet_alone() -> None:
            *_, final = pipe.encoder(condition).reverse_process(
                encode_text(pipe.text_encoder, tokenize(pipe.tokenizer, [prompt]).ids),
                encode_empty(pipe.tokenizer, pipe.text_encoder),
                PICTURES[condition](x[None]),
                generator=torch.Generator().manual_seed(0),
                num_inference_steps=steps,
                guidance_scale=pipe.config.guidance_scale,
                capture_steps=(),
            )
            pipe.decode_latents(final.latents)

        calls: dict[str, Any] = {"controlnet": controlnet_alone}
        for step in self.exits:
            calls[f"exit_{step}"] = partial(pipe, prompt, **{condition: x}, exit_step=step)
        taken = in_turns(calls, pipe.device)
        write_text(path, json.dumps(taken, indent=1) + "\n")
        return taken

    def diversity(self) -> dict[str, float]:
        """How far DRAWS faces of one input lie apart, of rows that are drawn so (by key).

        Mean distance of the parser's embeddings, as a share of that between different people's
        true pictures.
        """
        found = {}
        for row in rows.diverse_rows(self):
            reading = self.finished(row).reading
            people = metrics.spread(reading["reference"][::DRAWS][None])
            draws = metrics.spread(reading["embedding"].unflatten(0, (-1, DRAWS)))
            found[row.key.removeprefix("diverse_")] = (draws.mean() / people).item()
        return found

    def swaps(self, own: Reading) -> list[goals.Finding]:
        """What exchanged captions and masks change; own: of the exit at the last step."""
        readings = {"own": own}
        for row in rows.swap_rows(self):
            readings[row.key.removeprefix("swap_")] = self.finished(row).reading
        giver = self.truth.taken(givers(self.truth, self.config.seed)).attributes
        return goals.swap_findings(readings, giver, self.config.seed)

    def findings(self, finished: Mapping[str, FinishedRow]) -> list[goals.Finding]:
        """Swaps and goals of a finished table."""
        first, last, masks = "exit_0", f"exit_{self.last}", self.config.condition == "mask"
        readings = {key: row.reading for key, row in finished.items()}
        few = goals.lead(last, "DMGI", "controlnet", read.COLUMNS[:4])
        asked = goals.mask_goals(first, last) if masks else few
        found = self.swaps(readings[last]) + goals.compare(readings, asked, self.config.seed)
        if masks:
            ratio = self.seconds()["controlnet"] / self.seconds()[first]
            name = "exit step 0, times faster than ControlNet alone"
            found.append(goals.Finding(name, ratio, 20.0))
        return found


def shared_hash(folder: Path) -> str:
    """Of a model's networks but those of one kind of x and the mask encoder.

    So networks of scribbles, trained anew, leave finished rows of masks as they are, and defaults
    of a call, in model_index.json, those that no call draws; edits and styles draw no row.
    """
    own = {part_name(p, x) for p in OWN for x in CONDITIONS}
    own |= {
        MINI_3D.folder.name,
        "mask_encoder",
        "edit_directions",
        "style_offsets",
        "model_index.json",
    }
    return folder_hash(folder, own)


def last_stage(folder: Path, condition: str) -> int | None:
    """The stage that a model's T was last trained in, as its card says; None if it does not."""
    card = folder / part_name("style_modulation", condition) / "card.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    found = re.search(r"^- stage (\d)", text, re.MULTILINE)
    return int(found[1]) if found else None


def open_table(
    folder: Path,
    dataset: FaceDataset,
    n: int,
    kept: Path,
    config: TableConfig,
    runs: Path = RUNS,
    others: Mapping[str, Path] | None = None,
    training: FaceDataset | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[Table, list[str]]:
    """A table of a model's folder, and notes on rows that could not be had.

    Args:
        folder: of model, judges, loss_net and image_encoder; mask_encoder if it was trained.
        kept:   where pictures and readings are kept.
        runs:   training runs of the earlier stages.
        others: name → folder: models whose last exit is a row too.
        training: people that networks saw, whose pictures are the floor of FID; None: no such row.
        device, dtype: of the drawing; the judges read there too, in fp32.
    """

    def opened(folder: Path) -> DMGIPipeline:
        return DMGIPipeline.from_pretrained(folder, dtype=dtype).to(device)

    pipe, condition = opened(folder), config.condition
    models, notes = rows.earlier_models(pipe, condition, runs)
    heads, last = folder / MINI_3D.folder.name, pipe.config.num_inference_steps - 1
    if (heads / part_name("style_modulation", condition)).is_dir():
        found = (opened(heads), folder_hash(heads))
        models.append(rows.OtherModel("heads", f"DMGI-3D, exit step {last} of {last}", *found))
    for number, (name, other) in enumerate((others or {}).items()):
        found = (opened(other), folder_hash(other))
        models.append(rows.OtherModel(f"other_{number}", name, *found))
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
    own = {part: folder_hash(folder / part_name(part, condition)) for part in OWN}
    facts = {"weights": shared_hash(folder), "data": dataset.digest, "n": n, "seed": config.seed}
    facts |= {"columns": read.COLUMNS}  # what a reading holds
    table = Table(
        pipe=pipe,
        truth=GroundTruth.read(dataset, n),
        clip=read.load_clip(folder).to(device),
        config=config,
        mask_encoder=None if encoder is None else encoder.eval().to(device),
        perceptual=PerceptualLoss(loss_net.eval().requires_grad_(False).to(device)),
        training=None if training is None else GroundTruth.read(training, n).images,
        others=models,
        multi_step=stage == 3,
        made_from={
            "x": " ".join(own.values()),
            "controlnet": own["controlnet"],
            "mask_encoder": folder_hash(folder / "mask_encoder"),
            "training": "" if training is None else training.digest,
        },
        judges=load_judges(folder, pipe.device),
        folder=kept,
        facts=facts | ({} if dtype == torch.float32 else {"dtype": str(dtype)}),
    )
    return table, notes


def make(table: Table, notes: list[str], dataset: str, out: Path) -> list[goals.Finding]:
    """Draws and reads what is missing, writes the table, prints each row and the findings."""
    done: dict[str, FinishedRow] = {}
    numbers: dict[str, dict[str, Any]] = {}
    config, defaults, only = table.config, table.pipe.config, table.config.only
    seconds, diversity = ({}, {}) if only else (table.seconds(), table.diversity())
    chosen = [row for row in table.rows() if not only or row.key in only]
    for row in tqdm(chosen, desc="rows", disable=None):
        done[row.key] = table.finished(row)
        numbers[row.key] = report.summary(done[row.key].reading, config.seed)
        tqdm.write(f"{row.name}, N = {row.count}: {report.shown(numbers[row.key])}")
    findings = [] if only else table.findings(done)
    header = report.header_lines(table.truth, config.condition, dataset, table.pipe.device)
    met = [finding.met for finding in findings if finding.bound is not None]
    lines = [
        *header,
        "low, high: 95 % bootstrap over samples (FID's and KID's centred on their values)",
        f"W+ optimisation: {config.inversion_steps} steps on L1 over scales and the loss"
        " network's perceptual distance; text optimisation:"
        f" {config.text_steps} steps; the method's process has {defaults.num_inference_steps}"
        f" steps, guidance {defaults.guidance_scale:g}"
        f" of {'c and x' if defaults.guide_condition else 'c'}; codes of M, T and mask encoder"
        f" truncated in their last row, detail_psi {defaults.detail_psi:g}",
        f"{DIVERSITY}: mean distance of the parser's embeddings between faces drawn from one input,"
        " as a share of that between different people's true pictures;"
        f" {min(config.n_diverse, len(table.truth))} people",
        "seconds a face: medians at batch 1, measured in turns in the same run",
        *notes,
        *(finding.line() for finding in findings),
        f"goals: {sum(met)} of {len(met)} reached",
    ]
    written = [
        {"key": key, "row": row.name}
        | report.columns_of(numbers[key])
        | {DIVERSITY: diversity.get(key), "seconds a face": seconds.get(key)}
        | {"minutes drawn and read": row.minutes}
        for key, row in done.items()
    ]
    report.write_csv(out, lines, written)
    figure, parquet = out.with_suffix(".png"), out.with_suffix(".parquet")
    samples = pd.concat({key: row.reading.samples for key, row in done.items()}, names=["row"])
    write_whole(parquet, samples.reset_index("row").reset_index(drop=True).to_parquet)
    x = as_uint8(config.condition, table.inputs(table.truth)[: read.SHOWN])
    report.draw_figure(done, numbers, x, header[0], figure)
    print(*lines, f"{out}, {figure}, {parquet}", sep="\n")
    return findings


def run(
    config: tyro.conf.OmitArgPrefixes[TableConfig],
    condition: Literal["mask", "scribble"] | None = None,
    weights: str = "mini",
    other: tuple[str, ...] = (),
    data: Path | None = None,
    n: int = 500,
    out: Path = Path("runs/table1.csv"),
    rows: Path = Path("runs/table"),
    runs: Path = RUNS,
    device: str = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Draw and measure every row of the mini world's Table 1.

    Args:
        condition: x; default: all that the model has
        weights: preset, or folder with model and judges
        other: NAME=FOLDER, rows of other models
        data: face dataset; default: the one that was built, else the one that ships
        n: test identities (first views)
        out: CSV; figure and samples go beside it
        rows: pictures and readings of the rows, 0.1 GB for 500 pictures
        runs: training runs of stages 1 and 2
        device: auto, cpu, cuda or mps
        dtype: precision of the drawing
    """
    folder, root = weights_folder(weights), data or default_root()
    models = {name: Path(path) for name, _, path in (text.partition("=") for text in other)}
    pipe = DMGIPipeline.from_pretrained(folder)
    for kind in (condition,) if condition else CONDITIONS:
        names = (part_name(part, kind) for part in OWN)
        if missing := [name for name in names if getattr(pipe, name) is None]:
            text = (
                f"no {kind} table: this model has no {', '.join(missing)}. Train them with"
                f" `make train`, or by --condition {kind} of dmgi_lib.training.stages."
            )
            if condition:
                raise SystemExit(text)
            print(text)
            continue
        seen, faces = (FaceDataset(root, split) for split in ("train", "test"))
        parts = (folder, faces, n, rows, replace(config, condition=kind), runs, models, seen)
        table, notes = open_table(*parts, pick_device(device), getattr(torch, dtype))
        suffix = "" if kind == "mask" else f"_{kind}"
        make(table, notes, root.name, out.with_stem(out.stem + suffix))


if __name__ == "__main__":
    tyro.cli(run)
