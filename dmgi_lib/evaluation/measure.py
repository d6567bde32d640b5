"""Numbers of the protocol of Table 1 for the shipped model: does the face follow mask and text?

    python -m dmgi_lib.evaluation.measure --n 200 --out runs/measure.json

Prints tables and writes the same as JSON.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dmgi_lib.dataset import FaceDataset, default_root
from dmgi_lib.evaluation import metrics
from dmgi_lib.evaluation.goals import Finding
from dmgi_lib.evaluation.metrics import HairColorReference
from dmgi_lib.evaluation.protocol import GroundTruth, draw, random_faces, score
from dmgi_lib.evaluation.speed import machine, measure_in_fresh_process
from dmgi_lib.evaluation.word_swap import (
    SWAP_COLORS,
    score_hair_colors,
    swap_hair_color,
    swappable_caption,
)
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


def swap_test(
    pipe: DMGIPipeline,
    truth: GroundTruth,
    judges: Judges,
    reference: HairColorReference,
    exit_step: int,
    config: MeasureConfig,
) -> dict[str, Any]:
    """Swap the hair-colour word of each usable caption through five colours and read the result.

    Usable: some caption names exactly one hair colour, and the mask has enough hair to measure.
    """
    captions = [swappable_caption(record["captions"]) for record in truth.records]
    usable = [i for i in _with_hair(truth) if captions[i]][: config.n_swap]
    if not usable:
        raise ValueError(
            f"none of {len(captions)} samples has both hair in its mask and a caption that names "
            "one hair colour; expected some. Use a larger test set."
        )
    masks, wanted, images = truth.masks[usable], [], []
    for color in SWAP_COLORS:
        prompts = [swap_hair_color(str(captions[i]), color) or "" for i in usable]
        images.append(draw(pipe, prompts, masks, exit_step, config.seed, config.batch_size)[0])
        wanted += [color] * len(usable)
    rng = np.random.default_rng(config.seed)
    drawn, masks = torch.cat(images), masks.repeat(len(SWAP_COLORS), 1, 1)
    parsed = torch.cat([judges.parser.parse(part) for part in drawn.split(50)])
    result = score_hair_colors(drawn, masks, wanted, judges.attributes, reference, rng)
    return result | {
        "captions": len(usable),
        "mIoU": metrics.mean_iou(metrics.confusion(parsed, masks)),
    }


def _with_hair(truth: GroundTruth) -> list[int]:
    """Samples whose mask has enough hair for its colour to be measured."""
    pairs = enumerate(zip(truth.images, truth.masks, strict=True))
    return [i for i, pair in pairs if metrics.median_hair_lab(*pair) is not None]


def true_hair_colors(
    truth: GroundTruth, judges: Judges, reference: HairColorReference, seed: int
) -> dict[str, Any]:
    """Ceiling of the hair-colour test: both readings of the ground-truth images."""
    names = [hair_color_name(record.get("hair_color")) for record in truth.records]
    rows = [i for i in _with_hair(truth) if names[i] in SWAP_COLORS]
    wanted, rng = [str(names[i]) for i in rows], np.random.default_rng(seed)
    return score_hair_colors(
        truth.images[rows], truth.masks[rows], wanted, judges.attributes, reference, rng
    )


def measure(weights: str, root: Path, config: MeasureConfig) -> dict[str, Any]:
    """Everything, as one JSON-ready dict.

    Args:
        weights: preset or folder; holds the judges too.
        root:    dataset folder.
    """
    begin = time.perf_counter()
    speed = measure_in_fresh_process(weights)  # first, while nothing else competes for memory
    truth = GroundTruth.read(FaceDataset(root, split="test"), config.n)
    folder = weights_folder(weights)
    judges = load_judges(folder)
    reference = HairColorReference.load(folder / "judge_attributes" / "hair_colors.json")
    pipe = DMGIPipeline.from_pretrained(weights)
    last = pipe.config.num_inference_steps - 1

    prompts = truth.prompts
    rows = {"ground truth (ceiling of the judges)": score(truth.images, truth, judges, config.seed)}
    for exit_step in config.exit_steps:
        images, denoised = draw(
            pipe, prompts, truth.masks, exit_step, config.seed, config.batch_size
        )
        rows[f"DMGI, exit step {exit_step % (last + 1)} of 0…{last}"] = score(
            images, truth, judges, config.seed
        )
        if denoised is not None:
            rows["I_0^d, the diffusion model's own image"] = score(
                denoised, truth, judges, config.seed
            )
    floor = random_faces(pipe, len(prompts), config.seed)
    rows["random face of G (floor)"] = score(floor, truth, judges, config.seed)

    hair = {"ground truth (ceiling)": true_hair_colors(truth, judges, reference, config.seed)}
    for exit_step in config.swap_steps:
        hair[f"DMGI, exit step {exit_step % (last + 1)}"] = swap_test(
            pipe, truth, judges, reference, exit_step, config
        )
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine(),
        "weights": weights,
        "test set": {"root": root.name, "identities": len(truth.records)},
        "config": asdict(config),
        "rows": rows,
        "hair colour": hair,
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
    machine_ = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    n = result["test set"]["identities"]
    lines = [
        f"{result['date']}; {machine_}; weights {result['weights']}",
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


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module docstring."""
    defaults = MeasureConfig()
    parser = argparse.ArgumentParser(
        description="Measure the shipped model on test identities.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--weights", default="mini", help="preset, or folder with model and judges")
    parser.add_argument("--data", type=Path, default=default_root(), help="face dataset")
    parser.add_argument("--out", type=Path, default=Path("runs/measure.json"), help="JSON file")
    parser.add_argument("--n", type=int, default=defaults.n, help="test identities")
    parser.add_argument("--n-swap", type=int, default=defaults.n_swap, help="captions swapped")
    steps, swap_steps = list(defaults.exit_steps), list(defaults.swap_steps)
    parser.add_argument("--exit-steps", type=int, nargs="+", default=steps, help="-1 is the last")
    parser.add_argument("--swap-steps", type=int, nargs="+", default=swap_steps, help="hair test")
    parser.add_argument(
        "--batch-size", type=int, default=defaults.batch_size, help="images at once"
    )
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of noise and bootstrap")
    args = parser.parse_args(arguments)
    config = MeasureConfig(
        args.n,
        args.n_swap,
        tuple(args.exit_steps),
        tuple(args.swap_steps),
        args.batch_size,
        args.seed,
    )
    result = measure(args.weights, args.data, config)
    result["goals"] = [asdict(goal) | {"met": goal.met} for goal in goals(result)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = args.out.with_name(f".{os.getpid()}.{args.out.name}")
    temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, args.out)
    print(report(result))
    print(f"\nwritten to {args.out} in {result['minutes']:.1f} min")


if __name__ == "__main__":
    main()
