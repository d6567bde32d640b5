"""What the choices are worth that the paper leaves open: one changed at a time, same budget.

    python -m dmgi_lib.evaluation.ablations --minutes 5 --out docs/ablations.csv

Every row trains M (stage 1) and T (stage 2) from the same cache for the same time; rows that change
nothing in stage 1 share its M. The judges read what comes out, at the last and at the first step.
"""

from __future__ import annotations

import argparse
import csv
import functools
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from dmgi_lib.dataset import FaceDataset, default_root
from dmgi_lib.evaluation.judges import load_judges
from dmgi_lib.evaluation.protocol import GroundTruth, draw, score
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import MINI
from dmgi_lib.training.feature_cache import FeatureCache
from dmgi_lib.training.loop import LoopConfig
from dmgi_lib.training.losses import LossWeights
from dmgi_lib.training.run_files import write_whole
from dmgi_lib.training.stage_trainer import StageConfig, StageTrainer
from dmgi_lib.training.stages import load_part

COLUMNS = ("mIoU", "caption attributes", "perceptual distance (parser features)", "SSIM")


@dataclass(frozen=True)
class Choice:
    """One row: what differs from the defaults in M, in T, and in the training of each."""

    mapping: Mapping[str, Any] = field(default_factory=dict)
    modulation: Mapping[str, Any] = field(default_factory=dict)
    first: Mapping[str, Any] = field(default_factory=dict)
    second: Mapping[str, Any] = field(default_factory=dict)
    source: str = "reverse"

    @property
    def stage_1(self) -> str:
        """Equal for rows that can share an M."""
        return repr((sorted(self.mapping.items()), sorted(self.first.items()), self.source))


CHOICES: dict[str, Choice] = {
    "default": Choice(),
    "M: one row for all layers (W)": Choice(mapping={"latent": "w"}),
    "M: the code itself, no offsets from w_avg": Choice(mapping={"origin": "zero"}),
    "M: trained on noised pictures (leaks I)": Choice(source="noised"),
    "steps: drawn early": Choice(first={"sampling": "early"}, second={"sampling": "early"}),
    "steps: drawn late": Choice(first={"sampling": "late"}, second={"sampling": "late"}),
    "steps: only the first": Choice(first={"steps": (0,)}, second={"steps": (0,)}),
    "T: max over heads and words": Choice(modulation={"pool": "heads_and_tokens"}),
    "T: averaged over positions": Choice(modulation={"average": "space"}),
    "T: local path alone": Choice(modulation={"paths": "local"}),
    "T: averaged path alone": Choice(modulation={"paths": "averaged"}),
    "T: taught by I_0^d alone": Choice(second={"targets": "diffusion"}),
    "T: taught by I alone": Choice(second={"targets": "image"}),
    "losses: no parsing": Choice(
        first={"weights": LossWeights()}, second={"weights": LossWeights()}
    ),
}


class Ablation:
    """Trains and measures rows.

    Args:
        caches: "reverse", and "noised" if a row asks for it.
        run_dir: checkpoints of each row; training goes on where it was stopped.
    """

    def __init__(
        self,
        weights: Path,
        caches: Mapping[str, FeatureCache],
        dataset: FaceDataset,
        truth: GroundTruth,
        run_dir: Path,
        minutes: float,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        self.weights, self.caches, self.dataset, self.truth = weights, caches, dataset, truth
        self.run_dir, self.minutes, self.batch_size, self.seed = run_dir, minutes, batch_size, seed
        self.parts = {name: load_part(weights, name) for name in ("generator", "loss_net")}
        self.judges = load_judges(weights)
        self.m_of: dict[str, Any] = {}

    def trained(self, name: str, choice: Choice) -> DMGIPipeline:
        """The pipeline with the M and T of a row."""
        folder = self.run_dir / "".join(c if c.isalnum() else "_" for c in name)
        default = LossWeights(parsing=0.1)
        if choice.stage_1 not in self.m_of:
            config = StageConfig(1, **({"weights": default} | dict(choice.first)))
            mapping = replace(MINI.mapping, **choice.mapping)
            cache = self.caches[choice.source]
            self.m_of[choice.stage_1] = self._fit(folder / "1", config, cache, mapping=mapping)
        m = self.m_of[choice.stage_1]["mapping_network"]
        config = StageConfig(2, **({"weights": default} | dict(choice.second)))
        modulation = replace(MINI.modulation, **choice.modulation)
        reverse = self.caches["reverse"]
        t = self._fit(folder / "2", config, reverse, mapping_network=m, modulation=modulation)
        parts = {"mapping_network": m.eval(), "style_modulation": t["style_modulation"].eval()}
        return DMGIPipeline.from_pretrained(self.weights, **parts)

    def _fit(
        self, run_dir: Path, config: StageConfig, cache: FeatureCache, **networks: Any
    ) -> dict[str, Any]:
        torch.manual_seed(self.seed)
        parts = (cache, self.dataset, self.parts["generator"], self.parts["loss_net"])
        trainer = StageTrainer(config, *parts, **networks)
        loop = LoopConfig(
            run_dir=run_dir,
            minutes=self.minutes,
            batch_size=self.batch_size,
            seed=self.seed,
            learning_rate=5e-4,
            warmup_steps=50,
            cooldown=0.3,
        )
        return trainer.fit(loop).ema

    def measured(self, pipe: DMGIPipeline) -> dict[str, float]:
        """Columns at the last step, and at the first."""
        row: dict[str, float] = {}
        last = pipe.config.num_inference_steps - 1
        for step, suffix in ((last, ""), (0, " @ exit 0")):
            images = draw(pipe, self.truth.prompts, self.truth.masks, step, self.seed)[0]
            read = score(images, self.truth, self.judges, self.seed)
            row |= {f"{name}{suffix}": read[name] for name in COLUMNS}
        return row


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module docstring."""
    parser = argparse.ArgumentParser(
        description="Train and measure one row for each named choice.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    cache = Path("~/.cache/dmgi/features")
    parser.add_argument("--minutes", type=float, default=5.0, help="for each stage of each row")
    parser.add_argument("--only", nargs="*", default=list(CHOICES), choices=list(CHOICES))
    parser.add_argument("--weights", type=Path, default=MINI.folder, help="pipeline folder")
    parser.add_argument("--data", type=Path, default=default_root(), help="face dataset")
    parser.add_argument("--cache", type=Path, default=cache / "mask", help="feature cache")
    parser.add_argument("--noised-cache", type=Path, default=cache / "noised", help="leaking one")
    run_dir = Path("~/.cache/dmgi/runs/ablations")
    parser.add_argument("--run-dir", type=Path, default=run_dir, help="checkpoints")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations.csv"), help="table")
    parser.add_argument("--n", type=int, default=200, help="test identities")
    given = parser.parse_args(arguments)
    caches = {"reverse": FeatureCache(given.cache)}
    if any(CHOICES[name].source == "noised" for name in given.only):
        caches["noised"] = FeatureCache(given.noised_cache)
    truth = GroundTruth.read(FaceDataset(given.data, "test"), given.n)
    ablation = Ablation(
        given.weights,
        caches,
        FaceDataset(given.data, "train"),
        truth,
        given.run_dir.expanduser(),
        given.minutes,
    )
    rows: list[dict[str, Any]] = []
    for name in given.only:
        row = ablation.measured(ablation.trained(name, CHOICES[name]))
        print(name, *(f"{column} {value:.3f}" for column, value in row.items()), sep="  ")
        rows.append({"row": name, "N": len(truth.images)} | row)
        write_whole(given.out, functools.partial(_write, rows, given.minutes))
    print(given.out)


def _write(rows: list[dict[str, Any]], minutes: float, path: Path) -> None:
    text = io.StringIO()
    text.write(f"# N = {rows[0]['N']} test identities; {minutes:g} min for M and for T each;")
    text.write(" extractors: judge_parser, judge_attributes\n")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")


if __name__ == "__main__":
    main()
