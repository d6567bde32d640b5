"""Numbers of the protocol of Table 1 for the shipped model: does the face follow mask and text?

    python -m dmgi_lib.evaluation.measure --n 200 --out runs/measure.json

Prints tables and writes the same as JSON.
"""

from __future__ import annotations

import datetime
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor

from dmgi_lib.dataset import FaceDataset, default_root
from dmgi_lib.devices import machine, pick_device
from dmgi_lib.evaluation import metrics
from dmgi_lib.evaluation.draw import draw, random_faces
from dmgi_lib.evaluation.goals import Finding
from dmgi_lib.evaluation.metrics import HairColorReference
from dmgi_lib.evaluation.read import on_device
from dmgi_lib.evaluation.report import score
from dmgi_lib.evaluation.samples import GroundTruth
from dmgi_lib.evaluation.speed import measure_in_fresh_process
from dmgi_lib.evaluation.table import Dtype
from dmgi_lib.evaluation.word_swap import (
    SWAP_COLORS,
    score_hair_colors,
    swap_hair_color,
    swappable_caption,
)
from dmgi_lib.files import write_text
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import weights_folder
from dmgi_lib.recognizers import Judges, hair_color_name, load_judges


@dataclass(frozen=True)
class MeasureConfig:
    """What is measured.

    Attributes:
        n:          test identities (the first view of each).
        n_swap:     of these, how many go through the hair-colour test, times five colours.
        exit_steps: steps of the reverse process to decode; -1 is the last.
        swap_steps: the same for the hair-colour test.
        batch_size: images drawn at once.
        seed:       image i starts from noise of seed + i, in every row.
    """

    n: int = 200
    n_swap: int = 200
    exit_steps: tuple[int, ...] = (0, -1)
    swap_steps: tuple[int, ...] = (0, -1)
    batch_size: int = 25
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 2 or self.n_swap < 1 or self.batch_size < 1:
            raise ValueError(
                f"got n={self.n}, n_swap={self.n_swap}, batch_size={self.batch_size}; expected n "
                "of at least 2 (masks are shuffled among samples) and the others of at least 1."
            )


@dataclass
class Measurement:
    """Draws and reads what `MeasureConfig` asks for."""

    pipe: DMGIPipeline
    truth: GroundTruth
    judges: Judges
    reference: HairColorReference
    config: MeasureConfig

    def rows(self) -> dict[str, dict[str, Any]]:
        """Ceiling, exits, the diffusion model's own image, and floor, by `score`."""
        truth, seed = self.truth, self.config.seed
        steps = self.pipe.config.num_inference_steps
        drawn = {"ground truth (ceiling of the judges)": truth.images}
        for step in self.config.exit_steps:
            images, denoised = self._draw(truth.prompts, truth.masks, step)
            drawn[f"DMGI, exit step {step % steps} of 0…{steps - 1}"] = images
            if denoised is not None:
                drawn["I_0^d, the diffusion model's own image"] = denoised
        drawn["random face of G (floor)"] = random_faces(self.pipe, len(truth), seed)
        return {name: score(images, truth, self.judges, seed) for name, images in drawn.items()}

    def hair_colours(self) -> dict[str, dict[str, Any]]:
        """Ceiling, the readings of the ground-truth images, and the swaps at each step."""
        truth, names = (
            self.truth,
            [hair_color_name(r.get("hair_color")) for r in self.truth.records],
        )
        rows = [i for i in self._with_hair() if names[i] in SWAP_COLORS]
        wanted = [str(names[i]) for i in rows]
        found = {
            "ground truth (ceiling)": self._read(truth.images[rows], truth.masks[rows], wanted)
        }
        for step in self.config.swap_steps:
            number = step % self.pipe.config.num_inference_steps
            found[f"DMGI, exit step {number}"] = self.swapped(step)
        return found

    def swapped(self, exit_step: int) -> dict[str, Any]:
        """Swaps the hair-colour word of each usable caption through five colours and reads it.

        Usable: some caption names exactly one hair colour, and the mask has enough hair to measure.
        """
        captions = [swappable_caption(record["captions"]) for record in self.truth.records]
        usable = [i for i in self._with_hair() if captions[i]][: self.config.n_swap]
        if not usable:
            raise ValueError(
                f"none of {len(captions)} samples has both hair in its mask and a caption that"
                " names one hair colour; expected some. Use a larger test set."
            )
        masks, wanted, images = self.truth.masks[usable], [], []
        for color in SWAP_COLORS:
            prompts = [swap_hair_color(str(captions[i]), color) or "" for i in usable]
            images.append(self._draw(prompts, masks, exit_step)[0])
            wanted += [color] * len(usable)
        drawn, masks = torch.cat(images), masks.repeat(len(SWAP_COLORS), 1, 1)
        device = self.judges.identity.device
        parsed = torch.cat([self.judges.parser.parse(p.to(device)).cpu() for p in drawn.split(50)])
        agreement = metrics.mean_iou(metrics.confusion(parsed, masks))
        return self._read(drawn, masks, wanted) | {"captions": len(usable), "mIoU": agreement}

    def _with_hair(self) -> list[int]:
        """Samples whose mask has enough hair for its colour to be measured."""
        pairs = enumerate(zip(self.truth.images, self.truth.masks, strict=True))
        return [i for i, pair in pairs if metrics.median_hair_lab(*pair) is not None]

    def _draw(self, prompts: list[str], masks: Tensor, step: int) -> tuple[Tensor, Tensor | None]:
        return draw(self.pipe, prompts, masks, step, self.config.seed, self.config.batch_size)

    def _read(self, images: Tensor, masks: Tensor, wanted: list[str]) -> dict[str, Any]:
        rng = np.random.default_rng(self.config.seed)
        return score_hair_colors(images, masks, wanted, self.judges, self.reference, rng)


def measure(
    weights: str, root: Path, config: MeasureConfig, device: str = "cpu", dtype: Dtype = "float32"
) -> dict[str, Any]:
    """Everything, as one JSON-ready dict.

    Args:
        weights: preset or folder; holds the judges too.
        root:    dataset folder.
    """
    begin, where = time.perf_counter(), pick_device(device)
    # first, while nothing else competes for memory
    speed = measure_in_fresh_process(weights, device=str(where), dtype=dtype)
    folder = weights_folder(weights)
    measurement = Measurement(
        DMGIPipeline.from_pretrained(weights, dtype=getattr(torch, dtype)).to(where),
        GroundTruth.read(FaceDataset(root, split="test"), config.n),
        on_device(load_judges(folder), where),
        HairColorReference.load(folder / "judge_attributes" / "hair_colors.json"),
        config,
    )
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine(where),
        "dtype": dtype,
        "weights": weights,
        "test set": {"root": root.name, "identities": len(measurement.truth)},
        "config": asdict(config),
        "rows": measurement.rows(),
        "hair colour": measurement.hair_colours(),
        "speed": speed,
        "minutes": (time.perf_counter() - begin) / 60,
    }


def goals(result: dict[str, Any]) -> list[Finding]:
    """What the shipped model is meant to reach, per exit step that was measured."""
    found = [
        Finding(f"mIoU above shuffled masks; {name}", row["mIoU gap"], 0.15)
        for name, row in result["rows"].items()
        if name.startswith("DMGI")
    ]
    for name, row in result["hair colour"].items():
        if name.startswith("DMGI"):
            found.append(
                Finding(f"hair colour read by the judge; {name}", row["judge"]["share"], 0.7)
            )
            found.append(
                Finding(f"hair colour read from pixels; {name}", row["pixels"]["share"], 0.7)
            )
    speed = result["speed"]
    return [
        *found,
        Finding("first image at exit_step=0, s", speed["first_image"], 1.0, "<="),
        Finding("loading (imports included), s", speed["load"], 10.0, "<="),
        Finding("peak memory, GB", speed["peak_memory_gb"], 2.0, "<="),
        Finding("peak memory, full process, GB", speed["peak_memory_full_gb"], 2.0, "<="),
    ]


def report(result: dict[str, Any]) -> str:
    """The result as plain text."""
    n = result["test set"]["identities"]
    lines = [
        f"{result['date']}; {result['machine']}; weights {result['weights']}",
        f"N = {n} test identities of {result['test set']['root']}; mIoU, ACC and features by the "
        "parser judge; intervals: 95 % bootstrap over samples",
    ]
    for name, row in result["rows"].items():
        lines.append(f"\n{name}")
        for key, value in row.items():
            if not key.endswith((" low", " high")):
                low, high = row.get(f"{key} low"), row.get(f"{key} high")
                span = "" if low is None else f"  [{low:.3f}, {high:.3f}]"
                lines.append(f"  {key:<40}{value:8.3f}{span}")
    lines.append("\nhair colour read as wanted (chance 0.2)")
    for name, row in result["hair colour"].items():
        for reader in ("judge", "pixels", "both"):
            low, high = row[reader]["interval"]
            label = f"{name}, {reader}, n = {row['n']}"
            lines.append(f"  {label:<52}{row[reader]['share']:6.3f}  [{low:.3f}, {high:.3f}]")
    speed = result["speed"]
    lines.append(
        f"\none image: exit_step=0 {speed['exit_step_0']:.3f} s, all "
        f"{speed['num_inference_steps']} steps {speed['full_process']:.3f} s, ratio "
        f"{speed['ratio']:.1f}"
    )
    lines.append("\ngoals")
    for goal in goals(result):
        lines.append(f"  {goal.line()}")
    return "\n".join(lines)


def run(
    config: tyro.conf.OmitArgPrefixes[MeasureConfig],
    weights: str = "mini",
    data: Path | None = None,
    out: Path = Path("runs/measure.json"),
    device: str = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Measure the shipped model on test identities.

    Args:
        weights: preset, or folder with model and judges
        data: face dataset; default: the one that was built, else the one that ships
        out: JSON file
        device: auto, cpu, cuda or mps
        dtype: precision of the drawing
    """
    result = measure(weights, data or default_root(), config, device, dtype)
    result["goals"] = [asdict(goal) | {"met": goal.met} for goal in goals(result)]
    write_text(out, json.dumps(result, indent=1) + "\n")
    print(report(result))
    print(f"\nwritten to {out} in {result['minutes']:.1f} min")


if __name__ == "__main__":
    tyro.cli(run)
