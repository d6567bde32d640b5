"""The parts of a world: every network that ships, what trains it, what it needs, and for how long.

Hours are those of two CPU cores for the pictures that sharp faces took to be worth (300,000 for the
autoencoder, M and T, 600,000 for the U-Net, 200,000 for a ControlNet); of another budget each part
gets its share.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

START = 0.5  # minutes that a part takes besides: imports, decoding, encoding, measuring; a guess


@dataclass(frozen=True)
class Part:
    """One command of the kit, and its place among the others.

    Args:
        name: of the part, and of its run
        command: what follows `python -m`; {out} is the world's folder, {runs} that of the runs
        hours: of training
        needs: parts that have to be done before
        makes: folders in {out}
        on_gpu: more options on a CUDA GPU, which small batches would leave idle
        smoke: more options of a trial
        measured: rows of its card that the world's card repeats
        split: of the data, beside train and test; without it the part is skipped
    """

    name: str
    command: str
    hours: float
    needs: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    on_gpu: str = ""
    smoke: str = "--max-steps 2 --batch-size 4"
    measured: tuple[str, ...] = ()
    split: str = ""


def _trained(
    network: str,
    hours: float,
    *needs: str,
    makes: tuple[str, ...],
    on_gpu: str,
    measured: tuple[str, ...],
    options: str = "",
    smoke: str = "--max-steps 2 --batch-size 4",
    name: str = "",
    split: str = "",
) -> Part:
    command = f"data_prep.priors.trainer {network} {options}"
    common = " --weights {out} --run-dir {runs}/{name} --threads {threads}"
    how = (hours, needs, makes, on_gpu, smoke, measured, split)
    return Part(name or network, command + common, *how)


def _mapped(condition: str, pooled: int) -> tuple[Part, ...]:
    """Features of one kind of x, and the three stages of M and T on them."""
    end = "" if condition == "mask" else f"_{condition}"
    m, t, features = f"mapping_network{end}", f"style_modulation{end}", f"features{end}"
    priors = ("controlnet", *([f"controlnet{end}"] if end else []))
    cache = f" --condition {condition} --weights {{out}} --cache {{runs}}/{features}/cache"

    def stage(number: int, hours: float, makes: tuple[str, ...], *needs: str) -> Part:
        layout = f" --pooled {pooled}" if number > 1 else ""
        return Part(
            f"stage{number}{end}",
            f"dmgi_lib.training.stages --stage {number}{cache}{layout} --run-dir {{runs}}/{{name}}",
            hours,
            (features, *needs),
            makes,
            "--batch-size 64 --learning-rate 1e-3",
            "--max-steps 2 --batch-size 4 --held-out 2",
            tuple(f"{term} @ 9" for term in ("perceptual (I)", "perceptual (I_0^d)", "parsing")),
        )

    few = "--views 1 --num-inference-steps 2"
    command = f"dmgi_lib.training.feature_cache{cache}"
    return (
        Part(features, command, 3.0, priors, (), "--batch-size 128", few),
        stage(1, 0.25, (m,), "stylegan2", "loss_net"),
        stage(2, 0.25, (t,), f"stage1{end}"),
        stage(3, 2.5, (m, t), f"stage2{end}"),
    )


_LARGER = "--batch-size 64"
_DENOISER = "--batch-size 192 --learning-rate 8e-4"
_RIGHT = ("velocity error, right {}, test", "velocity error, shuffled {}, test")


def _controlnet(condition: str, name: str) -> Part:
    return _trained(
        "controlnet",
        5.0,
        "unet",
        makes=(name,),
        name=name,
        options=f"--condition {condition}",
        on_gpu=_DENOISER,
        measured=tuple(row.format(condition) for row in _RIGHT),
    )


PARTS: tuple[Part, ...] = (  # each after those that it needs
    _trained(
        "loss_net",
        1.5,
        makes=("loss_net",),
        on_gpu=_LARGER,
        measured=("parsing mIoU (test)", "attribute balanced accuracy (test)"),
    ),
    _trained(
        "text_image",
        2.0,
        makes=("tokenizer", "text_encoder", "image_encoder"),
        on_gpu="--batch-size 256",
        measured=("caption retrieval R@5 of 200, test", "zero-shot Smiling, test"),
    ),
    _trained(
        "autoencoder",
        12.0,
        "loss_net",
        makes=("vae",),
        options="--perceptual {out}/loss_net",
        on_gpu=_LARGER,
        measured=("PSNR, test (dB)", "PSNR at the eyes, test (dB)"),
    ),
    _trained(
        "unet",
        8.0,
        "autoencoder",
        "text_image",
        makes=("unet", "scheduler"),
        on_gpu=_DENOISER,
        measured=("velocity error, test", "velocity error, train"),
    ),
    _controlnet("mask", "controlnet"),
    _controlnet("scribble", "controlnet_scribble"),
    _trained(
        "stylegan2",
        18.0,
        "loss_net",
        makes=("generator",),
        on_gpu="--batch-size 64 --learning-rate 0.0025",
        smoke="--max-steps 2 --batch-size 8",
        measured=("reconstruction L1 through the encoder (test split), W+",),
    ),
    _trained(
        "eg3d",
        12.0,
        "loss_net",
        makes=("generator_3d",),
        on_gpu="--batch-size 32 --learning-rate 0.0025",
        smoke="--max-steps 2 --batch-size 8 --held-out 1",
        measured=(
            "PSNR on head pixels, another view (dB)",
            "depth error on the head, another view (world units)",
        ),
        split="train_views",
    ),
    *_mapped("mask", 2),
    *_mapped("scribble", 4),
    _trained(
        "mask_encoder",
        1.5,
        "stylegan2",
        "loss_net",
        makes=("mask_encoder",),
        on_gpu="--batch-size 64 --learning-rate 1e-3",
        smoke="--max-steps 2 --batch-size 4 --held-out 2",
        measured=("perceptual, held-out training identities",),
    ),
    _trained(
        "judge_parser",
        1.0,
        makes=("judge_parser",),
        on_gpu=_LARGER,
        measured=("parsing mIoU (test)",),
    ),
    _trained(
        "judge_attributes",
        3.0,
        makes=("judge_attributes",),
        on_gpu=_LARGER,
        measured=("attribute balanced accuracy (test)", "hair-colour accuracy (test)"),
    ),
    _trained(
        "judge_identity",
        1.0,
        makes=("judge_identity",),
        on_gpu=_LARGER,
        measured=("verification AUC (test)",),
    ),
)
HOURS = sum(part.hours for part in PARTS)


def _urgency() -> dict[str, float]:
    """Hours from a part's start to the end of all that waits for it."""
    found: dict[str, float] = {}
    for part in reversed(PARTS):
        after = [found[other.name] for other in PARTS if part.name in other.needs]
        found[part.name] = part.hours + max(after, default=0.0)
    return found


URGENCY = _urgency()


def startable(done: Collection[str], begun: Collection[str]) -> list[Part]:
    """Parts that have all they need and are neither done nor begun; what most waits for, first."""
    able = [p for p in PARTS if p.name not in {*done, *begun} and {*done}.issuperset(p.needs)]
    return sorted(able, key=lambda part: -URGENCY[part.name])


def end_of_all(minutes: Mapping[str, float], at_once: int) -> float:
    """When the last of these parts ends, if each takes its minutes and `at_once` run at a time."""
    now, done, running = 0.0, set[str](), dict[str, float]()
    while len(done) < len(minutes):
        able = [part for part in startable(done, running) if part.name in minutes]
        for part in able[: at_once - len(running)]:
            running[part.name] = now + minutes[part.name]
        first = min(running, key=running.__getitem__)
        now = running.pop(first)
        done.add(first)
    return now


def training_minutes(
    budget: float, at_once: int, parts: Collection[Part] = PARTS
) -> dict[str, float]:
    """Minutes of training for each part, in proportion to its hours, so that all end in time.

    Args:
        budget:  minutes from the first part's start to the last one's end
        at_once: parts beside each other
        parts:   with all that they need

    Raises:
        ValueError: the budget is less than the parts take besides training
    """

    def ends(scale: float) -> float:
        return end_of_all({p.name: START + scale * p.hours for p in parts}, at_once)

    if ends(0.0) >= budget:
        raise ValueError(
            f"--minutes came as {budget:g}; starting and measuring {len(parts)} parts,"
            f" {at_once} at once, takes about {ends(0.0):g}. Give more."
        )
    low, high = 0.0, budget
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if ends(middle) <= budget else (low, middle)
    return {part.name: low * part.hours for part in parts}
