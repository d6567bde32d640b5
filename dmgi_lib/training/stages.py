"""Training in stages: 1 mapping network M, 2 style modulation T (M frozen), 3 both across steps.

    python -m dmgi_lib.training.stages --stage 1 --minutes 15
    python -m dmgi_lib.training.stages --stage 2 --minutes 15
    python -m dmgi_lib.training.stages --stage 1 --minutes 15 --condition scribble

reads the feature cache, trains within the budget (resuming by itself), measures on held-out
identities and writes the network into the pipeline folder. E and G stay frozen.
`torchrun --nproc_per_node 2 -m dmgi_lib.training.stages …` (or `accelerate launch`) does so on
several processes or GPUs. That there are stages, and supervision by I_0^d and across t, is the
paper's; the rest is our choice (not specified in the paper's available sources).
"""

from __future__ import annotations

import argparse
import functools
import json
import shlex
import sys
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image

import dmgi_lib
from dmgi_lib.dataset import FaceDataset, default_root
from dmgi_lib.mapping_network import LATENTS, ORIGINS
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import MINI, PRESETS
from dmgi_lib.style_modulation import AVERAGES, PATHS, POOLED, POOLS
from dmgi_lib.training import losses
from dmgi_lib.training.feature_cache import FeatureCache
from dmgi_lib.training.features import CONDITIONS, CacheConfig
from dmgi_lib.training.loop import LoopConfig, LoopResult
from dmgi_lib.training.online_features import OnlineFeatures
from dmgi_lib.training.stage_config import STAGES, TARGETS, StageConfig
from dmgi_lib.training.stage_trainer import StageTrainer
from dmgi_lib.weight_folder import (
    check_safetensors,
    part_name,
    save_component,
    write_model_index,
)


def load_part(folder: Path, name: str) -> Any:
    """A trained component of a pipeline folder in fp32; None if it is not there yet."""
    if not (folder / name / "config.json").is_file():
        return None
    check_safetensors(folder / name / "diffusion_pytorch_model.safetensors")
    class_name = json.loads((folder / name / "config.json").read_text())["_class_name"]
    if class_name == "Recognizer":
        from dmgi_lib.recognizers import Recognizer

        return Recognizer.from_pretrained(folder / name, dtype=torch.float32)
    return getattr(dmgi_lib, class_name).from_pretrained(folder / name, dtype=torch.float32)


def required_part(folder: Path, name: str, script: str) -> Any:
    """`load_part`, or FileNotFoundError naming the script that makes it."""
    part = load_part(folder, name)
    if part is None:
        raise FileNotFoundError(f"{folder / name} is missing; train it first: python -m {script}")
    return part


def card(
    title: str, config: StageConfig, loop: LoopConfig, result: LoopResult, numbers: dict[str, float]
) -> str:
    """Markdown card: command, seed, duration, measurements."""
    lines = [
        f"# {title}",
        "",
        f"- command: `python -m dmgi_lib.training.stages {shlex.join(sys.argv[1:])}`",
        f"- date: {date.today().isoformat()}, seed {loop.seed}, batch size {loop.batch_size},"
        f" learning rate {loop.learning_rate}",
        f"- {result.step} steps, {result.seconds / 60:.1f} minutes",
        f"- {', '.join(f'{k} {v}' for k, v in asdict(config).items())}",
        "",
        f"Mean loss terms on {config.held_out} held-out training identities, per step of the"
        " reverse process (loss net, not the judges; I_0^d is the diffusion model's own image):",
        "",
        "| term @ step | value |",
        "|---|---|",
        *(f"| {name} | {value:.4f} |" for name, value in numbers.items()),
    ]
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train M (stage 1), T (stage 2) or both (stage 3) on cached features.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--stage", type=int, required=True, choices=sorted(STAGES))
    parser.add_argument("--minutes", type=float, default=15.0, help="budget over all resumes")
    parser.add_argument("--max-steps", type=int, help="stop after that many steps, all resumes")
    parser.add_argument("--checkpoint-minutes", type=float, default=4.0, help="between checkpoints")
    parser.add_argument("--weights", type=Path, default=MINI.folder, help="pipeline folder")
    parser.add_argument("--preset", default=MINI.name, choices=sorted(PRESETS), help="sizes")
    parser.add_argument("--data", type=Path, default=default_root(), help="face dataset")
    parser.add_argument(
        "--cache", type=Path, help="feature cache; default: ~/.cache/dmgi/features/<condition>"
    )
    parser.add_argument("--run-dir", type=Path, help="default: ~/.cache/dmgi/runs/<cond.>_stage<N>")
    parser.add_argument("--out", type=Path, help="where to write; default: the pipeline folder")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--steps", default="", help="steps trained on, by commas; empty: all cached, or all of S"
    )
    parser.add_argument("--schedule", default="linear", choices=losses.SCHEDULES, help="stage 3")
    parser.add_argument("--sampling", default="uniform", choices=losses.SAMPLINGS, help="of steps")
    parser.add_argument("--targets", default="both", choices=TARGETS, help="what T is shown")
    parser.add_argument("--latent-space", default="w_plus", choices=LATENTS, help="of a new M")
    parser.add_argument("--origin", default="w_avg", choices=ORIGINS, help="of a new M")
    parser.add_argument("--pool", default="tokens", choices=POOLS, help="of a new T")
    parser.add_argument("--average", default="blocks", choices=AVERAGES, help="of a new T")
    parser.add_argument("--paths", default="both", choices=PATHS, help="of a new T")
    parser.add_argument(
        "--pooled", type=int, choices=POOLED, help="of T; default: a new one's, or as it was"
    )
    parser.add_argument("--condition", default="mask", choices=CONDITIONS, help="kind of x")
    parser.add_argument("--online", action="store_true", help="run E in the loop, without a cache")
    for name, default in asdict(losses.LossWeights()).items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=float, default=default, help="see losses.LossWeights")
    parser.add_argument("--held-out", type=int, default=64, help="identities kept for measuring")
    parser.add_argument("--export-only", action="store_true", help="export the last checkpoint")
    return parser


def _features(
    args: argparse.Namespace, dataset: FaceDataset, steps: tuple[int, ...]
) -> FeatureCache | OnlineFeatures:
    """The cache, or E in the loop; either of the asked-for condition.

    Raises:
        ValueError: the cache was made from another kind of x, preset, E or dataset.
    """
    own = (args.weights / "model_index.json").is_file()  # else E is the preset's released one
    pipe = DMGIPipeline.from_pretrained(args.weights if own else args.preset)
    if args.online:
        total = pipe.config.num_inference_steps
        config = CacheConfig(
            steps=steps or tuple(range(total)),
            num_inference_steps=total,
            guidance_scale=pipe.config.guidance_scale,
            seed=args.seed,
            condition=args.condition,
            preset=args.preset,
        )
        return OnlineFeatures(config, pipe, dataset, diffusion_images=args.stage > 1)
    cache = FeatureCache(args.cache or f"~/.cache/dmgi/features/{args.condition}")
    for name in ("condition", "preset"):
        made_with, wanted = getattr(cache.config, name), getattr(args, name)
        if made_with != wanted:
            raise ValueError(
                f"{cache.folder} holds features of {name} {made_with!r}, but --{name} came as"
                f" {wanted!r}; name the other cache or the other {name}."
            )
    cache.check(dataset, pipe)
    return cache


def main() -> None:
    args = _parser().parse_args()
    weights = losses.LossWeights(**{k: getattr(args, k) for k in asdict(losses.LossWeights())})
    steps = tuple(int(step) for step in args.steps.split(",") if step)
    config = StageConfig(
        args.stage, weights, steps, args.schedule, args.sampling, args.targets, args.held_out
    )
    part = functools.partial(part_name, condition=args.condition)
    run_dir = args.run_dir or Path(f"~/.cache/dmgi/runs/{args.condition}_stage{args.stage}")
    preset = PRESETS[args.preset]
    loop = LoopConfig(
        run_dir=run_dir.expanduser(),
        minutes=0.0 if args.export_only else args.minutes,
        batch_size=args.batch_size,
        seed=args.seed,
        learning_rate=args.learning_rate,
        checkpoint_minutes=args.checkpoint_minutes,
        max_steps=args.max_steps,
        warmup_steps=50,
        cooldown=0.3,
    )
    torch.manual_seed(args.seed)  # initial weights
    T = load_part(args.weights, part("style_modulation")) if args.stage > 2 else None
    if T is not None and args.pooled:
        T = T.with_layout(args.pooled)
    accelerator = Accelerator()
    dataset = FaceDataset(args.data)
    trainer = StageTrainer(
        config,
        _features(args, dataset, steps),
        dataset,
        required_part(args.weights, "generator", "data_prep.priors.trainer stylegan2"),
        required_part(args.weights, "loss_net", "data_prep.priors.trainer loss_net"),
        load_part(args.weights, part("mapping_network")) if args.stage > 1 else None,
        T,
        replace(preset.mapping, latent=args.latent_space, origin=args.origin),
        replace(
            preset.modulation,
            pool=args.pool,
            average=args.average,
            paths=args.paths,
            pooled=args.pooled or preset.modulation.pooled,
        ),
        accelerator,
    )
    before = trainer.measure({})
    result = trainer.fit(loop)
    if not accelerator.is_main_process:
        return
    numbers = trainer.measure(result.ema)
    for name, value in numbers.items():
        print(f"{name:28s} {before[name]:.4f} -> {value:.4f}")
    out = args.out or args.weights
    trained: dict[str, Any] = result.ema
    for name, network in trained.items():
        save_component(network, out / part(name), card(name, config, loop, result, numbers))
    picture = Image.fromarray(trainer.sample_grid(result.step, result.ema))
    picture.save(loop.run_dir / "final.png")
    if (out / "unet").is_dir():
        made_with = trainer.cache.config
        names = ("num_inference_steps", "guidance_scale")
        write_model_index(out, **{name: getattr(made_with, name) for name in names})
    print(f"wrote {', '.join(str(out / part(name)) for name in result.ema)}")


if __name__ == "__main__":
    main()
