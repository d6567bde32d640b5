"""`make measure`: is hair drawn in the colour that the text names, how fast, in how much memory?

    python -m dmgi_lib.evaluation.measure --n 200 --out runs/measure.csv

The text is tested by one word: with mask, noise and all other words kept, the caption's hair colour
is swapped, and a judge and the plain pixels say which colour they see. The test is our choice (not
specified in the paper's available sources).
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Sequence
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
from dmgi_lib.evaluation.draw import Dtype, draw
from dmgi_lib.evaluation.goals import Finding
from dmgi_lib.evaluation.report import interval, write_csv
from dmgi_lib.evaluation.samples import GroundTruth
from dmgi_lib.evaluation.speed import measure_in_fresh_process
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


READERS = ("judge", "pixels", "both")
TRUTH = "true pictures (ceiling)"


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
        "N", and for each of READERS the share 0..1 with its interval: "judge", "judge low", …
    """
    judge, device = judges.attributes, judges.identity.device
    pairs = zip(images, masks, strict=True)
    seen = pd.DataFrame(
        {"judge": [n for p in images.split(64) for n in judge.read(p.to(device))[1]]}
    )
    seen["pixels"] = [metrics.hair_color_by_pixels(*pair, reference) for pair in pairs]
    right = seen.eq(list(wanted), axis=0)
    right["both"] = right.all(axis=1)
    rng = np.random.default_rng(seed)
    result: dict[str, Any] = {"N": len(right)}
    for name in READERS:
        hits = right[name].to_numpy()
        span = interval(functools.partial(_share, hits), len(hits), rng, resamples=1000)
        result |= {name: _share(hits), f"{name} low": span[0], f"{name} high": span[1]}
    return result


def _share(hits: np.ndarray, rows: Any = slice(None)) -> float:
    return float(hits[rows].mean())


def measure(
    pipe: DMGIPipeline,
    truth: GroundTruth,
    judges: Judges,
    reference: metrics.HairColorReference,
    exit_steps: Sequence[int] = (0, -1),
    seed: int = 0,
    batch_size: int = 25,
) -> dict[str, dict[str, Any]]:
    """`score_hair_colors` of true pictures, then of captions swapped through five colours.

    Swapped are samples with enough hair in their mask to measure, and a caption that names exactly
    one hair colour.

    Args:
        exit_steps: 0…S-1, or -1 for the last.
        seed: image i starts from noise of seed + i, whatever the colour.

    Returns:
        row → numbers; "mIoU" with the masks of those that were drawn

    Raises:
        ValueError: no sample can be swapped.
    """
    pairs = enumerate(zip(truth.images, truth.masks, strict=True))
    hairy = [i for i, pair in pairs if metrics.median_hair_lab(*pair) is not None]
    captions = [swappable_caption(record["captions"]) or "" for record in truth.records]
    usable = [i for i in hairy if captions[i]]
    if not usable:
        raise ValueError(
            f"none of {len(captions)} samples has both hair in its mask and a caption that"
            " names one hair colour; expected some. Use a larger test set."
        )
    names = [str(hair_color_name(record.get("hair_color"))) for record in truth.records]
    named = [i for i in hairy if names[i] in SWAP_COLORS]
    parts = (truth.images[named], truth.masks[named], [names[i] for i in named])
    found = {TRUTH: score_hair_colors(*parts, judges, reference, seed)}
    wanted = [color for color in SWAP_COLORS for _ in usable]
    masks = truth.masks[usable * len(SWAP_COLORS)]
    for step in exit_steps:
        prompts = ([str(swap_hair_color(captions[i], c)) for i in usable] for c in SWAP_COLORS)
        batch = (truth.masks[usable], step, seed, batch_size)
        drawn = torch.cat([draw(pipe, texts, *batch)[0] for texts in prompts])
        parsed = torch.cat([judges.parser.parse(part) for part in drawn.split(50)])
        row = score_hair_colors(drawn, masks, wanted, judges, reference, seed)
        row["mIoU"] = metrics.mean_iou(metrics.confusion(parsed, masks))
        found[f"DMGI, exit step {step % pipe.config.num_inference_steps}"] = row
    return found


def goals(rows: dict[str, dict[str, Any]], speed: dict[str, Any]) -> list[Finding]:
    """What the shipped model is meant to reach."""
    limits = {
        "first image at exit_step=0, s": ("first_image", 1.0),
        "loading (imports included), s": ("load", 10.0),
        "peak memory, GB": ("peak_memory_gb", 2.0),
        "peak memory, full process, GB": ("peak_memory_full_gb", 2.0),
    }
    return [
        *(
            Finding(f"hair colour read by {reader}; {name}", row[reader], 0.7)
            for name, row in rows.items()
            if name != TRUTH
            for reader in ("judge", "pixels")
        ),
        *(Finding(name, speed[key], top, "<=") for name, (key, top) in limits.items()),
    ]


def run(
    weights: str = "mini",
    data: Path | None = None,
    out: Path = Path("runs/measure.csv"),
    n: int = 200,
    seed: int = 0,
    device: str = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Measure the shipped model on test identities.

    Args:
        weights: preset, or folder with model and judges
        data: face dataset; default: the one that was built, else the one that ships
        out: CSV
        n: test identities (the first view of each)
        seed: image i starts from noise of seed + i
        device: auto, cpu, cuda or mps
        dtype: precision of the drawing
    """
    whole_number("--n", n, 1, 1_000_000)
    folder, where, root = weights_folder(weights), pick_device(device), data or default_root()
    # first, while nothing else competes for memory
    speed = measure_in_fresh_process(weights=weights, device=where, dtype=dtype)
    truth = GroundTruth.read(FaceDataset(root, split="test"), n)
    pipe = DMGIPipeline.from_pretrained(weights, dtype=getattr(torch, dtype)).to(where)
    reference = metrics.HairColorReference.load(folder / "judge_attributes" / "hair_colors.json")
    rows = measure(pipe, truth, load_judges(folder, where), reference, seed=seed)
    lines = [
        f"hair colour read as wanted (chance 0.2) of {len(truth)} test identities of {root.name};"
        " low, high: 95 % bootstrap over samples",
        f"{datetime.date.today().isoformat()}; {machine(where)}; weights {weights}, {dtype}",
        f"one image: exit_step=0 {speed['exit_step_0']:.3f} s, all {speed['num_inference_steps']}"
        f" steps {speed['full_process']:.3f} s, ratio {speed['ratio']:.1f}",
        *(goal.line() for goal in goals(rows, speed)),
    ]
    write_csv(out, lines, [{"row": name} | row for name, row in rows.items()])
    print(*lines, pd.DataFrame(rows).T.to_string(float_format="%.3f"), out, sep="\n")


if __name__ == "__main__":
    tyro.cli(run)
