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
    """One command of the kit, and its place among the others."""

    name: str  # of the part, and of its run
    command: str  # what follows `python -m`; {out} is the world's folder, {runs} that of the runs
    hours: float  # of training
    needs: tuple[str, ...]  # parts that have to be done before
    makes: tuple[str, ...]  # folders in {out}
    measured: tuple[str, ...] = ()  # rows of its card that the world's card repeats
    # more options on a CUDA GPU, which small batches would leave idle
    on_gpu: str = "--batch-size 64"
    smoke: str = "--max-steps 2 --batch-size 4"  # more options of a trial
    split: str = ""  # of the data, beside train and test; without it the part is skipped
    # of all its commands; what has no --minutes takes as long as it takes
    common: str = "--data {data} --device {device} --minutes {minutes:.4g}"


def _trained(
    name: str,
    hours: float,
    needs: str,
    *measured: str,
    makes: tuple[str, ...] = (),
    options: str = "",
    **more: str,
) -> Part:
    """A network of the trainer, whose folder is named after it unless `makes` tells others."""
    command = f"data_prep.priors.trainer {name.removesuffix('_scribble')} {options}"
    command += " --weights {out} --run-dir {runs}/{name} --threads {threads}"
    return Part(name, command, hours, tuple(needs.split()), makes or (name,), measured, **more)


def _mapped(condition: str) -> tuple[Part, ...]:
    """Features of one kind of x, and the three stages of M and T on them."""
    end = "" if condition == "mask" else f"_{condition}"
    m, t, features = f"mapping_network{end}", f"style_modulation{end}", f"features{end}"
    cache = f" --condition {condition} --weights {{out}} --cache {{runs}}/{features}/cache"
    measured = tuple(f"{term} @ 9" for term in ("perceptual (I)", "perceptual (I_0^d)", "parsing"))

    def stage(
        number: int, hours: float, makes: tuple[str, ...], *needs: str, heads: bool = False
    ) -> Part:
        of, preset = ("heads_", " --preset mini-3d") if heads else ("", "")
        home = cache.replace("{out}", "{out}/3d") if heads else cache
        options = f" --codes {{runs}}/{of}codes/codes.safetensors"
        if number > 1:
            options = " --pooled 2 --targets composite"
        if number == 3 and not heads:
            options += " --adversarial 0.1"
        return Part(
            f"{of}stage{number}{end}",
            f"dmgi_lib.training.stages --stage {number}{preset}{home}{options}"
            " --run-dir {runs}/{name}",
            hours,
            (features, *needs),
            tuple(f"3d/{name}" for name in makes) if heads else makes,
            measured,
            "--batch-size 64 --learning-rate 1e-3",
            smoke="--max-steps 2 --batch-size 4 --held-out 2"
            + (" --code-steps 2" if number == 1 else ""),
            split="train_views" if heads else "",
        )

    return (
        Part(
            features,
            f"dmgi_lib.training.feature_cache{cache}",
            3.0,
            tuple(dict.fromkeys(("controlnet", f"controlnet{end}"))),
            makes=(),
            on_gpu="--batch-size 128",
            smoke="--views 1 --num-inference-steps 2",
        ),
        stage(1, 0.25, (m,), "codes", "loss_net"),
        stage(2, 0.25, (t,), f"stage1{end}"),
        stage(3, 2.5, (m, t), f"stage2{end}"),
        stage(1, 0.1, (m,), "heads_codes", heads=True),
        stage(2, 0.1, (t,), f"heads_stage1{end}", heads=True),
        stage(3, 1.5, (m, t), f"heads_stage2{end}", heads=True),
    )


def _controlnet(condition: str, name: str) -> Part:
    rows = (f"velocity error, {which} {condition}, test" for which in ("right", "shuffled"))
    options = f"--condition {condition}"
    return _trained(name, 5.0, "unet", *rows, options=options, on_gpu=_DENOISER)


def _codes(name: str, prior: str, encoder: str, split: str = "") -> Part:
    """What a prior's encoder reads in the training pictures, from which M starts."""
    command = f"data_prep.priors.codes --encoder {{out}}/{encoder}"
    return Part(
        name,
        command + " --out {runs}/{name}/codes.safetensors",
        0.0,
        (prior,),
        makes=(),
        on_gpu="",
        smoke="",
        split=split,
        common="--data {data} --device {device}",
    )


_DENOISER = "--batch-size 192 --learning-rate 8e-4"
_PARSING, _BALANCED = "parsing mIoU (test)", "attribute balanced accuracy (test)"
PARTS: tuple[Part, ...] = (  # each after those that it needs
    _trained("loss_net", 1.5, "", _PARSING, _BALANCED),
    _trained(
        "text_image",
        2.0,
        "",
        "caption retrieval R@5 of 200, test",
        "zero-shot Smiling, test",
        makes=("tokenizer", "text_encoder", "image_encoder"),
        on_gpu="--batch-size 256",
    ),
    _trained(
        "autoencoder",
        12.0,
        "loss_net",
        "PSNR, test (dB)",
        "PSNR at the eyes, test (dB)",
        makes=("vae",),
        options="--perceptual {out}/loss_net",
    ),
    _trained(
        "unet",
        8.0,
        "autoencoder text_image",
        "velocity error, test",
        "velocity error, train",
        makes=("unet", "scheduler"),
        on_gpu=_DENOISER,
    ),
    _controlnet("mask", "controlnet"),
    _controlnet("scribble", "controlnet_scribble"),
    _trained(
        "stylegan2",
        18.0,
        "loss_net",
        "reconstruction L1 through the encoder (test split), W+",
        makes=("generator", "encoder"),
        on_gpu="--batch-size 64 --learning-rate 0.0025",
        smoke="--max-steps 2 --batch-size 8",
    ),
    _trained(
        "eg3d",
        12.0,
        "loss_net",
        "PSNR on head pixels, another view (dB)",
        "depth error on the head, another view (world units)",
        makes=("3d/generator", "3d/encoder"),
        on_gpu="--batch-size 32 --learning-rate 0.0025",
        smoke="--max-steps 2 --batch-size 8 --held-out 1",
        split="train_views",
    ),
    _codes("codes", "stylegan2", "encoder"),
    _codes("heads_codes", "eg3d", "3d/encoder", split="train_views"),
    *_mapped("mask"),
    *_mapped("scribble"),
    _trained(
        "mask_encoder",
        1.5,
        "stylegan2 loss_net",
        "perceptual, held-out training identities",
        on_gpu="--batch-size 64 --learning-rate 1e-3",
        smoke="--max-steps 2 --batch-size 4 --held-out 2",
    ),
    _trained(
        "style_offsets",
        0.5,
        "stylegan2 loss_net",
        "L1 to renders of marble, held-out people",
        on_gpu="--batch-size 32",
        smoke="--max-steps 2 --batch-size 4 --held-out 1 --inversion-steps 1",
        split="styles",
    ),
    Part(
        "edit_directions",
        "dmgi_lib.training.edit_directions --weights {out}",
        0.0,
        ("stage3",),
        makes=("edit_directions",),
        on_gpu="",
        smoke="--config.random-faces 20 --config.people 2 --config.pictures 8 --config.steps 1",
        common="--data {data} --device {device}",
    ),
    Part(
        "mask_camera",
        "dmgi_lib.mask_camera --out {out}/mask_camera",
        0.0,
        (),
        makes=("mask_camera",),
        on_gpu="",
        smoke="",
        common="--data {data}",
    ),
    _trained("judge_parser", 1.0, "", _PARSING),
    _trained("judge_attributes", 3.0, "", _BALANCED, "hair-colour accuracy (test)"),
    _trained("judge_identity", 1.0, "", "verification AUC (test)"),
)
HOURS = sum(part.hours for part in PARTS)
URGENCY: dict[str, float] = {}  # hours from a part's start to the end of all that waits for it
for _part in reversed(PARTS):
    _after = [URGENCY[other.name] for other in PARTS if _part.name in other.needs]
    URGENCY[_part.name] = _part.hours + max(_after, default=0.0)


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
