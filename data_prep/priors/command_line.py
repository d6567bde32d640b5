"""Arguments that all training scripts of the diffusion priors share."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from dmgi_lib.dataset import default_root
from dmgi_lib.presets import MINI
from dmgi_lib.training.loop import LoopConfig


def default_run_dir(name: str) -> Path:
    """Where a training of that name keeps its checkpoint, log and samples."""
    return Path("~/.cache/dmgi/runs").expanduser() / name


def parser(doc: str, name: str, minutes: float, batch_size: int) -> argparse.ArgumentParser:
    """Parser with the shared arguments.

    Args:
        doc:        module docstring; its first line becomes the description
        name:       of the prior: default of --run-dir
        minutes:    default time budget
        batch_size: default batch size
    """
    made = argparse.ArgumentParser(
        description=doc.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    made.add_argument("--data", type=Path, default=default_root(), help="face dataset")
    made.add_argument("--minutes", type=float, default=minutes, help="budget over all resumes")
    made.add_argument("--batch-size", type=int, default=batch_size, help="images per step")
    made.add_argument("--seed", type=int, default=0, help="of every random draw")
    made.add_argument("--threads", type=int, default=2, help="CPU threads")
    made.add_argument("--max-steps", type=int, help="stop after this many steps")
    made.add_argument(
        "--run-dir",
        type=Path,
        default=default_run_dir(name),
        help="checkpoint, log.csv and samples/",
    )
    made.add_argument(
        "--weights",
        type=Path,
        default=MINI.folder,
        help="folder of the frozen priors that this one builds on",
    )
    made.add_argument(
        "--export-only", action="store_true", help="do not train, export the last checkpoint"
    )
    return made


def loop_config(
    given: argparse.Namespace,
    *,
    learning_rate: float,
    ema_half_life_steps: float,
    warmup_steps: int,
    cooldown: float,
) -> LoopConfig:
    """LoopConfig of parsed arguments; also sets the number of CPU threads."""
    torch.set_num_threads(given.threads)
    return LoopConfig(
        run_dir=given.run_dir.expanduser(),
        minutes=0.0 if given.export_only else given.minutes,
        batch_size=given.batch_size,
        seed=given.seed,
        max_steps=given.max_steps,
        learning_rate=learning_rate,
        ema_half_life_steps=ema_half_life_steps,
        warmup_steps=warmup_steps,
        cooldown=cooldown,
    )
