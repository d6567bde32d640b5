"""`make measure`: does the shipped model follow mask and text, how fast, in how much memory?

    python -m dmgi_lib.evaluation.measure --n 200 --out runs/measure.json

The text is tested by one word: with mask, noise and all other words kept, the caption's hair colour
is swapped, and a judge and the plain pixels say which colour they see. The test is our choice (not
specified in the paper's available sources). Prints tables and writes the same as JSON.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import tyro
from torch import Tensor

from dmgi_lib.checks import whole_number
from dmgi_lib.dataset import FaceDataset, default_root
from dmgi_lib.devices import machine, pick_device
from dmgi_lib.evaluation import metrics
from dmgi_lib.evaluation.draw import Dtype, draw, random_faces
from dmgi_lib.evaluation.goals import Finding
from dmgi_lib.evaluation.report import interval, score
from dmgi_lib.evaluation.samples import GroundTruth
from dmgi_lib.evaluation.speed import measure_in_fresh_process
from dmgi_lib.files import write_text
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import weights_folder
from dmgi_lib.recognizers import Judges, hair_color_name, load_judges

SWAP_COLORS = ("black", "brown", "blond", "red", "gray")
# Colour words of hair, with the synonyms that captions use.
_COLOR = (
    r"(?:dark\s+)?(?:black|raven|brown|brunette|chestnut|blonde?|golden|fair|red|ginger|auburn"
    "|gr[ae]y|silver|white)"
)
# Between the colour and "hair" may stand words that describe hair ("black, wavy hair"), but none
# that would make the colour belong to something else ("brown eyes and long hair").
_DESCRIBES_HAIR = (
    "(?:and|wavy|curly|straight|long|short|medium|shoulder-length|thick|thin|sleek|colou?red)"
)
_PATTERN = re.compile(
    rf"\b{_COLOR}\b(?=(?:[\s,-]+{_DESCRIBES_HAIR}\b)*[\s-]+hair(?:ed)?\b)"
    rf"|(?<=\bhair is ){_COLOR}\b",
    re.IGNORECASE,
)


def swap_hair_color(caption: str, color: str) -> str | None:
    """The caption with its one hair-colour word replaced, or None if it has none or several."""
    found = _PATTERN.findall(caption)
    return _PATTERN.sub(color, caption) if len(found) == 1 else None


def swappable_caption(captions: Sequence[str]) -> str | None:
    """The first caption that names exactly one hair colour, or None."""
    return next((c for c in captions if swap_hair_color(c, "red") is not None), None)


def score_hair_colors(
    images: Tensor,
    masks: Tensor,
    wanted: Sequence[str],
    judges: Judges,
    reference: metrics.HairColorReference,
    seed: int,
) -> dict[str, Any]:
    """How often the wanted hair colour is read.

    Args:
        images: (B, 3, H, W) in [-1, 1]; masks: (B, H, W), the input masks.
        wanted: B names out of SWAP_COLORS.
        seed:   of the 95 % bootstrap intervals.

    Returns:
        "n"; shares 0..1 "judge", "pixels" and "both" with "interval"; and for judge and pixels
        "read_as": wanted → {read: count}.
    """
    judge, device = judges.attributes, judges.identity.device
    pairs = zip(images, masks, strict=True)
    table = pd.DataFrame({"wanted": wanted})
    table["judge"] = [n for part in images.split(64) for n in judge.read(part.to(device))[1]]
    table["pixels"] = [metrics.hair_color_by_pixels(*pair, reference) for pair in pairs]
    right = table[["judge", "pixels"]].eq(table["wanted"], axis=0)
    right["both"] = right.all(axis=1)
    rng, n = np.random.default_rng(seed), len(table)
    result: dict[str, Any] = {"n": n}
    for name in right:
        hits = right[name].to_numpy()
        span = interval(functools.partial(_share, hits), n, rng, resamples=1000)
        result[name] = {"share": _share(hits), "interval": span}
    for name in ("judge", "pixels"):
        read = {want: part.value_counts() for want, part in table.groupby("wanted")[name]}
        result[name]["read_as"] = {want: counts.to_dict() for want, counts in read.items()}
    return result


def _share(hits: np.ndarray, rows: Any = slice(None)) -> float:
    return float(hits[rows].mean())


@dataclass(frozen=True)
class MeasureConfig:
    """What is measured."""

    n: int = 200  # test identities (the first view of each)
    n_swap: int = 200  # of these, how many go through the hair-colour test, times five colours
    exit_steps: tuple[int, ...] = (0, -1)  # steps of the reverse process to decode; -1 is the last
    batch_size: int = 25  # images drawn at once
    seed: int = 0  # image i starts from noise of seed + i, in every row

    def __post_init__(self) -> None:
        for name, least in (("n", 2), ("n_swap", 1), ("batch_size", 1)):  # n: masks are shuffled
            whole_number(name, getattr(self, name), least, 1_000_000)


def measure(
    pipe: DMGIPipeline,
    truth: GroundTruth,
    judges: Judges,
    reference: metrics.HairColorReference,
    config: MeasureConfig,
) -> dict[str, dict[str, Any]]:
    """Rows of the protocol, and readings of hair colours.

    Returns:
        "rows": name → `score` of ceiling, exits, the diffusion model's own image, and floor;
        "hair colour": name → `score_hair_colors` of the true images (ceiling), then of captions
        swapped through five colours, with the number of captions and the mIoU. Swapped are samples
        with enough hair in their mask to measure, and a caption that names exactly one hair colour.

    Raises:
        ValueError: no sample can be swapped.
    """
    steps, seed = pipe.config.num_inference_steps, config.seed
    pairs = enumerate(zip(truth.images, truth.masks, strict=True))
    hairy = [i for i, pair in pairs if metrics.median_hair_lab(*pair) is not None]
    captions = [swappable_caption(record["captions"]) or "" for record in truth.records]
    usable = [i for i in hairy if captions[i]][: config.n_swap]
    if not usable:
        raise ValueError(
            f"none of {len(captions)} samples has both hair in its mask and a caption that"
            " names one hair colour; expected some. Use a larger test set."
        )
    names = [str(hair_color_name(record.get("hair_color"))) for record in truth.records]
    named = [i for i in hairy if names[i] in SWAP_COLORS]
    parts = (truth.images[named], truth.masks[named], [names[i] for i in named])
    hair = {"ground truth (ceiling)": score_hair_colors(*parts, judges, reference, seed)}
    wanted = [color for color in SWAP_COLORS for _ in usable]
    masks = truth.masks[usable * len(SWAP_COLORS)]
    drawn = {"ground truth (ceiling of the judges)": truth.images}
    for step in config.exit_steps:
        batch, name = (step, seed, config.batch_size), f"DMGI, exit step {step % steps}"
        images, denoised = draw(pipe, truth.prompts, truth.masks, *batch)
        drawn[f"{name} of 0…{steps - 1}"] = images
        if denoised is not None:
            drawn["I_0^d, the diffusion model's own image"] = denoised
        prompts = ([str(swap_hair_color(captions[i], c)) for i in usable] for c in SWAP_COLORS)
        swapped = [draw(pipe, texts, truth.masks[usable], *batch)[0] for texts in prompts]
        every = torch.cat(swapped)
        parsed = [judges.parser.parse(part) for part in every.split(50)]
        hair[name] = score_hair_colors(every, masks, wanted, judges, reference, seed)
        agreement = metrics.mean_iou(metrics.confusion(torch.cat(parsed), masks))
        hair[name] |= {"captions": len(usable), "mIoU": agreement}
    drawn["random face of G (floor)"] = random_faces(pipe, len(truth), seed)
    rows = {name: score(images, truth, judges, seed) for name, images in drawn.items()}
    return {"rows": rows, "hair colour": hair}


def goals(result: dict[str, Any]) -> list[Finding]:
    """What the shipped model is meant to reach, per exit step that was measured."""
    found = [
        Finding(f"mIoU above shuffled masks; {name}", row["mIoU gap"], 0.15)
        for name, row in result["rows"].items()
    ]
    for name, row in result["hair colour"].items():
        for reader, said in (("judge", "by the judge"), ("pixels", "from pixels")):
            found.append(Finding(f"hair colour read {said}; {name}", row[reader]["share"], 0.7))
    limits = {
        "first image at exit_step=0, s": ("first_image", 1.0),
        "loading (imports included), s": ("load", 10.0),
        "peak memory, GB": ("peak_memory_gb", 2.0),
        "peak memory, full process, GB": ("peak_memory_full_gb", 2.0),
    }
    return [
        *(finding for finding in found if "; DMGI" in finding.name),
        *(Finding(name, result["speed"][key], top, "<=") for name, (key, top) in limits.items()),
    ]


def report(result: dict[str, Any]) -> str:
    """The result as plain text."""
    n, speed = result["test set"]["identities"], result["speed"]
    hair = [
        {"row": name, "read by": reader, "n": row["n"], "share": row[reader]["share"]}
        | dict(zip(("low", "high"), row[reader]["interval"], strict=True))
        for name, row in result["hair colour"].items()
        for reader in ("judge", "pixels", "both")
    ]
    return "\n".join(
        [
            f"{result['date']}; {result['machine']}; weights {result['weights']}",
            f"N = {n} test identities of {result['test set']['root']}; mIoU, ACC and features by"
            " the parser judge; low, high: 95 % bootstrap over samples",
            pd.DataFrame(result["rows"]).to_string(float_format="%.3f"),
            "\nhair colour read as wanted (chance 0.2)",
            pd.DataFrame(hair).to_string(index=False, float_format="%.3f"),
            f"\none image: exit_step=0 {speed['exit_step_0']:.3f} s, all"
            f" {speed['num_inference_steps']} steps {speed['full_process']:.3f} s, ratio"
            f" {speed['ratio']:.1f}",
            "\ngoals",
            *(f"  {goal.line()}" for goal in goals(result)),
        ]
    )


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
    folder, where, root = weights_folder(weights), pick_device(device), data or default_root()
    # first, while nothing else competes for memory
    speed = measure_in_fresh_process(weights=weights, device=where, dtype=dtype)
    truth = GroundTruth.read(FaceDataset(root, split="test"), config.n)
    pipe = DMGIPipeline.from_pretrained(weights, dtype=getattr(torch, dtype)).to(where)
    judges = load_judges(folder, where)
    reference = metrics.HairColorReference.load(folder / "judge_attributes" / "hair_colors.json")
    result: dict[str, Any] = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine(where),
        "dtype": dtype,
        "weights": weights,
        "test set": {"root": root.name, "identities": len(truth)},
        "config": asdict(config),
        **measure(pipe, truth, judges, reference, config),
        "speed": speed,
    }
    result["goals"] = [asdict(goal) | {"met": goal.met} for goal in goals(result)]
    write_text(out, json.dumps(result, indent=1) + "\n")
    print(report(result), f"\nwritten to {out}", sep="\n")


if __name__ == "__main__":
    tyro.cli(run)
