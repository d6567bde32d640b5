"""The mini world's Table 1: the method, its baselines, its ceilings and its floors.

    python -m dmgi_lib.evaluation.table --n 500 --out runs/table1.csv

Every row draws for the same masks (or scribbles), captions and noise, and is read by the same
judges, none of which was ever a loss. Writes a CSV and a figure. Which rows stand here is the
kit's design; the columns are the paper's, computed with the kit's own extractors, so no number
compares with the paper's.
"""

from __future__ import annotations

import argparse
import csv
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPModel

from dmgi_lib.dataset import FaceDataset, default_root, sample_root
from dmgi_lib.evaluation.baselines import MaskEncoder, optimise_for_text, text_similarity
from dmgi_lib.evaluation.inversion import InversionConfig, invert
from dmgi_lib.evaluation.judges import Judges, load_judges
from dmgi_lib.evaluation.protocol import GroundTruth, draw, random_faces, score
from dmgi_lib.evaluation.table_output import HEADER, draw_figure, header_lines
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import PRESETS
from dmgi_lib.training.run_files import write_whole
from dmgi_lib.weight_folder import part_name


@dataclass(frozen=True)
class TableConfig:
    """What the table covers.

    Attributes:
        n:               test identities (first views).
        condition:       "mask" or "scribble", the kind of x.
        exit_steps:      of the full method; -1 is the last.
        n_inversion:     identities of the W+ ceiling, which costs minutes.
        inversion_steps: of its optimiser.
        text_steps:      of the text optimisation after the mask encoder.
        batch_size:      images drawn at once.
        seed:            image i starts from noise of seed + i in every row.
    """

    n: int = 500
    condition: str = "mask"
    exit_steps: tuple[int, ...] = (0, 4, -1)
    n_inversion: int = 100
    inversion_steps: int = 200
    text_steps: int = 60
    batch_size: int = 25
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """Pictures of one row; `n` of them, or fewer than the table's where drawing is dear."""

    name: str
    images: Tensor


class Table:
    """Draws the rows one after the other.

    Args:
        pipe:   a trained model.
        truth:  test samples.
        clip:   text-image encoder of the CLIP score.
        others: name → model whose row is added, such as M and T before stage 3.
    """

    def __init__(
        self,
        pipe: DMGIPipeline,
        truth: GroundTruth,
        judges: Judges,
        clip: CLIPModel,
        config: TableConfig,
        mask_encoder: MaskEncoder | None = None,
        others: dict[str, DMGIPipeline] | None = None,
    ) -> None:
        self.pipe, self.truth, self.judges, self.clip = pipe, truth, judges, clip
        self.config, self.mask_encoder, self.others = config, mask_encoder, others or {}
        self.last = pipe.config.num_inference_steps - 1

    def rows(self) -> Iterator[Row]:
        """Every row, in the table's order."""
        truth, config, seed = self.truth, self.config, self.config.seed
        yield Row("ground truth (ceiling of the judges)", truth.images)
        yield Row("W+ optimisation (ceiling of G)", self.inverted())
        order = np.random.default_rng(seed).permutation(len(truth.images))
        moved = truth.taken(np.roll(order, 1)[np.argsort(order)])
        yield Row("random face (floor)", random_faces(self.pipe, len(truth.images), seed))
        yield Row("others' inputs (floor)", self.drawn(self.pipe, self.last, moved)[0])
        complete, diffusion = self.drawn(self.pipe, self.last)
        assert diffusion is not None  # the process ran to its end
        yield Row(f"ControlNet alone, {self.last + 1} steps", diffusion)
        if self.mask_encoder is not None:
            encoded = self.encoded()
            yield Row("mask encoder", self.synthesised(encoded))
            yield Row("mask encoder + text optimisation", self.synthesised(self.towards(encoded)))
        part = part_name("style_modulation", config.condition)
        modulation = getattr(self.pipe, part)
        if modulation is not None:
            setattr(self.pipe, part, None)
            try:
                yield Row("DMGI, M only", self.drawn(self.pipe, self.last)[0])
            finally:
                setattr(self.pipe, part, modulation)
        for name, pipe in self.others.items():
            yield Row(name, self.drawn(pipe, self.last)[0])
        for step in dict.fromkeys(s % (self.last + 1) for s in config.exit_steps):
            images = complete if step == self.last else self.drawn(self.pipe, step)[0]
            yield Row(f"DMGI, exit step {step} of {self.last}", images)

    def drawn(
        self, pipe: DMGIPipeline, exit_step: int, truth: GroundTruth | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """I' and I_0^d of a model for the test inputs, or for `truth`'s."""
        truth = truth or self.truth
        config = self.config
        inputs = truth.masks if config.condition == "mask" else truth.scribbles
        return draw(
            pipe, truth.prompts, inputs, exit_step, config.seed, config.batch_size, config.condition
        )

    def inverted(self) -> Tensor:
        """W+ optimisation on the first images themselves."""
        config = InversionConfig(steps=self.config.inversion_steps)
        parts = self.truth.images[: self.config.n_inversion].split(20)
        return torch.cat([invert(self.pipe.generator, part, config).images for part in parts])

    @torch.no_grad()
    def encoded(self) -> Tensor:
        """Codes of the mask encoder."""
        assert self.mask_encoder is not None
        return torch.cat([self.mask_encoder(part) for part in self.truth.masks.split(50)])

    def towards(self, codes: Tensor) -> Tensor:
        """The same codes, moved towards the captions."""
        moved = []
        for start in range(0, len(codes), 25):
            prompts = self.truth.prompts[start : start + 25]
            likes = text_similarity(self.clip, self.pipe.tokenizer, prompts)
            part = codes[start : start + 25]
            moved.append(
                optimise_for_text(self.pipe.generator, part, likes, self.config.text_steps)
            )
        return torch.cat(moved)

    @torch.no_grad()
    def synthesised(self, codes: Tensor) -> Tensor:
        """G's images of codes."""
        synthesis = self.pipe.generator.synthesis
        return torch.cat([synthesis(part, noise_mode="const") for part in codes.split(25)])

    def read(self, row: Row) -> dict[str, Any]:
        """The judges' reading of a row."""
        truth = self.truth.taken(np.arange(len(row.images)))
        return score(
            row.images, truth, self.judges, self.config.seed, self.clip, self.pipe.tokenizer
        )


def swaps(table: Table) -> dict[str, float]:
    """Does text change only what it names, and the mask only structure? Exit at the last step.

    Returns:
        mIoU with own and with another sample's caption; accuracy of the caption's attributes with
        own and with another sample's mask. Captions and masks are passed on among people of one
        sex, so that text and mask do not contradict each other about beards and hairstyles.
    """
    truth = table.truth
    order = np.arange(len(truth.images))
    rng = np.random.default_rng(table.config.seed)
    male = np.array([bool(r["attributes"].get("Male")) for r in truth.records])
    for value in (True, False):
        rows = rng.permutation(np.flatnonzero(male == value))
        order[rows] = np.roll(rows, 1)
    moved = truth.taken(order)

    def measured(mixed: GroundTruth) -> dict[str, Any]:
        images, _ = table.drawn(table.pipe, table.last, mixed)
        return score(
            images, mixed, table.judges, table.config.seed, table.clip, table.pipe.tokenizer
        )

    other_text = replace(truth, prompts=moved.prompts)
    other_mask = replace(truth, masks=moved.masks, scribbles=moved.scribbles)
    own, text, mask = (measured(m) for m in (truth, other_text, other_mask))
    return {
        "mIoU, own caption": own["mIoU"],
        "mIoU, another's caption": text["mIoU"],
        "caption attributes, own mask": own["caption attributes"],
        "caption attributes, another's mask": mask["caption attributes"],
    }


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module docstring."""
    defaults = TableConfig()
    parser = argparse.ArgumentParser(
        description="Draw and measure every row of the mini world's Table 1.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--weights", default="mini", help="preset, or folder with model and judges")
    parser.add_argument("--other", nargs="*", default=[], help="NAME=FOLDER: rows of other models")
    parser.add_argument("--data", type=Path, help="dataset; default: full set, else shipped sample")
    parser.add_argument("--out", type=Path, default=Path("runs/table1.csv"), help="CSV; a PNG too")
    parser.add_argument("--condition", default="mask", choices=("mask", "scribble"), help="x")
    steps = list(defaults.exit_steps)
    parser.add_argument("--exit-steps", type=int, nargs="+", default=steps, help="-1 is the last")
    for name in ("n", "n_inversion", "inversion_steps", "text_steps", "batch_size", "seed"):
        value = getattr(defaults, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value)
    parser.add_argument("--no-swaps", action="store_true", help="leave out the swap tests")
    given = parser.parse_args(arguments)
    names = ("n", "condition", "n_inversion", "inversion_steps", "text_steps", "batch_size", "seed")
    config = TableConfig(
        exit_steps=tuple(given.exit_steps), **{name: getattr(given, name) for name in names}
    )
    root = given.data
    if root is None:
        root = default_root() if (default_root() / "test").is_dir() else sample_root()
    folder = PRESETS[given.weights].folder if given.weights in PRESETS else Path(given.weights)
    encoder = folder / "mask_encoder"
    use_encoder = config.condition == "mask" and encoder.is_dir()
    table = Table(
        DMGIPipeline.from_pretrained(given.weights),
        GroundTruth.read(FaceDataset(root, split="test"), config.n),
        load_judges(folder),
        CLIPModel.from_pretrained(folder / "image_encoder", dtype=torch.float32).eval(),
        config,
        MaskEncoder.from_pretrained(encoder, dtype=torch.float32) if use_encoder else None,
        {n: DMGIPipeline.from_pretrained(f) for n, _, f in (x.partition("=") for x in given.other)},
    )
    begin = time.perf_counter()
    found: dict[str, dict[str, Any]] = {}
    strips: dict[str, Tensor] = {}
    for row in table.rows():
        found[row.name] = table.read(row)
        strips[row.name] = row.images[:6]
        shown = "  ".join(f"{name} {found[row.name][name]:.3f}" for name in HEADER)
        print(f"{row.name}: {shown}", flush=True)
    lines = header_lines(table.truth, config.condition, root.name)
    if not given.no_swaps:
        lines += [f"{name}: {value:.3f}" for name, value in swaps(table).items()]
    lines.append(f"made in {(time.perf_counter() - begin) / 60:.1f} min")
    text = io.StringIO()
    text.writelines(f"# {line}\n" for line in lines)
    columns = [c for name in HEADER for c in (name, f"{name} low", f"{name} high")]
    writer = csv.DictWriter(text, ["row", "N", *columns], lineterminator="\n")
    writer.writeheader()
    for name, values in found.items():
        writer.writerow({"row": name, "N": values["N"]} | {c: values.get(c, "") for c in columns})
    write_whole(given.out, lambda p: p.write_text(text.getvalue(), encoding="utf-8"))
    figure = given.out.with_suffix(".png")
    write_whole(figure, lambda p: draw_figure(found, strips, table.truth, p))
    print(*lines, f"{given.out} and {figure}", sep="\n")


if __name__ == "__main__":
    main()
