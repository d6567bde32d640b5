"""Shipped weight folders: fp16 safetensors with config, and card.md on their making."""

from __future__ import annotations

import datetime
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from dmgi_lib.devices import has_fast_bf16
from dmgi_lib.files import write_whole
from dmgi_lib.training.loop import LoopResult


def command_line(module: str, arguments: list[str] | None = None) -> str:
    """The command that started the process, with the home folder written as ~."""
    given = sys.argv[1:] if arguments is None else arguments
    home = str(Path.home())
    words = ["~" + a[len(home) :] if a.startswith(home + os.sep) else a for a in given]
    quoted = [w if w.startswith("~") else shlex.quote(w) for w in words]
    return " ".join(["python -m", module, *quoted])


def write_card(
    folder: Path,
    *,
    title: str,
    description: str,
    command: str,
    seed: int,
    result: LoopResult,
    batch_size: int,
    training_images: int,
    measurements: Mapping[str, float],
) -> None:
    """Writes folder/card.md.

    Args:
        folder:          the weight folder
        title:           one line: what the weights are
        description:     what goes in and out, and choices a user must know
        command:         see command_line
        seed:            of every random draw of the training
        result:          of the training loop: steps and seconds over all resumes
        batch_size:      samples per step
        training_images: images of the training split, mirrored copies not counted
        measurements:    name, with unit and data split, -> value
    """
    seen = result.step * batch_size
    precision = "bf16 autocast" if has_fast_bf16() else "fp32"
    facts = {
        "seed": str(seed),
        "date": datetime.date.today().isoformat(),
        "duration": f"{result.seconds / 60:.1f} min on {os.cpu_count()} CPU cores, {precision}",
        "steps": f"{result.step} of {batch_size} images ({seen / training_images:.1f} epochs)",
        "training images": str(training_images),
        "images per second": f"{seen / max(result.seconds, 1e-9):.1f}",
    }
    lines = [f"# {title}", "", description, "", "```", command, "```", ""]
    lines += ["| training | |", "|---|---|", *(f"| {k} | {v} |" for k, v in facts.items()), ""]
    lines += ["| measurement | value |", "|---|---|"]
    lines += [f"| {name} | {value:.4g} |" for name, value in measurements.items()]
    text = "\n".join(lines) + "\n"
    write_whole(Path(folder) / "card.md", lambda path: path.write_text(text, encoding="utf-8"))


def save_whole(folder: Path, save: Callable[[str], object]) -> None:
    """Calls `save(temporary folder)`, then moves each file into `folder`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".saving", dir=folder.parent))
    try:
        save(str(temporary))
        for file in sorted(temporary.iterdir()):
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(temporary)
