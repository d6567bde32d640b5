"""What the choices are worth that the paper leaves open: one changed at a time, same budget.

    python -m dmgi_lib.evaluation.ablations --steps 500 --out runs/ablations.csv

Every row trains M (stage 1) and T (stage 2) from the same cache for the same number of steps, and
those of stage 3 both once more; what two rows have in common is trained once. The judges read what
comes out, at the first and at the last exit. Trainings and rows are kept in files, so a run that
was killed goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
import functools
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from dmgi_lib.dataset import FaceDataset, default_root
from dmgi_lib.evaluation.ablation_choices import CHOICES, Choice
from dmgi_lib.evaluation.protocol import GroundTruth, load_clip, read
from dmgi_lib.evaluation.reading import COLUMNS, FID, Reading, ahead, interval, summary
from dmgi_lib.evaluation.row_files import FinishedRow, RowFiles, shared_hash
from dmgi_lib.evaluation.step_study import StepStudy
from dmgi_lib.evaluation.table_output import columns_of, header_lines, write_csv
from dmgi_lib.files import folder_hash, state_hash
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import MINI
from dmgi_lib.recognizers import load_judges
from dmgi_lib.training.feature_cache import FeatureCache
from dmgi_lib.training.loop import LoopConfig
from dmgi_lib.training.losses import LossWeights
from dmgi_lib.training.stage_config import STAGES, StageConfig
from dmgi_lib.training.stage_trainer import StageTrainer
from dmgi_lib.training.stages import required_part


@dataclass(frozen=True)
class Budget:
    """What every row gets.

    Attributes:
        steps:      of training, for each stage.
        batch_size: samples a training step.
        learning_rate: of Adam, large because the steps are few.
        held_out:   training identities that no row sees.
        seed:       of weights, batches and noise.
    """

    steps: int = 500
    batch_size: int = 8
    learning_rate: float = 1e-3
    held_out: int = 64
    seed: int = 0


class Ablation:
    """Trains and measures rows.

    Args:
        weights: pipeline folder: E, G, loss_net, judges, image_encoder.
        caches:  "reverse", and "noised" if a row asks for it.
        dataset: the one that the caches were made from.
        truth:   test samples.
        run_dir: checkpoints; training goes on where it was stopped.
        files:   finished rows.
    """

    def __init__(
        self,
        weights: Path,
        caches: Mapping[str, FeatureCache],
        dataset: FaceDataset,
        truth: GroundTruth,
        run_dir: Path,
        files: RowFiles,
        budget: Budget,
    ) -> None:
        self.weights, self.caches, self.dataset, self.truth = weights, caches, dataset, truth
        self.run_dir, self.files, self.budget = run_dir, files, budget
        self.G = required_part(weights, "generator", "data_prep.priors.trainer stylegan2")
        self.loss_net = required_part(weights, "loss_net", "data_prep.priors.trainer loss_net")
        self.frozen = [state_hash(network) for network in (self.G, self.loss_net)]
        self.judges = load_judges(weights)
        self.clip = load_clip(weights)
        self.trained: dict[str, dict[str, Any]] = {}
        self.exits = (0, caches["reverse"].num_inference_steps - 1)

    @functools.cached_property
    def study(self) -> StepStudy:
        """E of the test samples, which is frozen: one reverse process serves all rows.

        Codes are decoded as predicted, so rows differ by what was trained alone.
        """
        pipe = DMGIPipeline.from_pretrained(self.weights, detail_psi=1.0)
        return StepStudy(pipe, self.truth, self.exits, self.budget.seed)

    def networks(self, choice: Choice) -> dict[str, Any]:
        """M and T of a row."""
        found: dict[str, Any] = {}
        for stage in (1, 2) if choice.third is None else (1, 2, 3):
            found |= self._stage(stage, choice, found)
        return {name: network.eval() for name, network in found.items()}

    def rows(self, name: str) -> dict[int, FinishedRow]:
        """A choice at the first and at the last exit."""
        choice, key = CHOICES[name], "".join(c if c.isalnum() else "_" for c in name)
        caches = [self.caches[source] for source in sorted({"reverse", choice.source})]
        facts = {
            "choice": choice.depends_on(2 if choice.third is None else 3),
            "caches": [[cache.manifest, len(cache)] for cache in caches],
        }

        def draw(part: slice, step: int) -> Tensor:
            return self.study.images(step, **self.networks(choice))[part]

        def read_all(images: Tensor) -> Reading:
            seed, tokenizer = self.budget.seed, self.study.pipe.tokenizer
            return read(images, self.truth, self.judges, seed, self.clip, tokenizer)

        n = len(self.truth.images)
        found = {}
        for step in self.exits:
            of = functools.partial(draw, step=step)
            found[step] = self.files.row(f"{key}_{step}", name, of, read_all, n, n, **facts)
        return found

    def _stage(self, stage: int, choice: Choice, before: dict[str, Any]) -> dict[str, Any]:
        """The averaged networks that a stage trains, from those of the stages before."""
        cache = self.caches[choice.source if stage == 1 else "reverse"]
        budget, options = self.budget, (choice.first, choice.second, choice.third)[stage - 1] or {}
        seed = budget.seed + choice.seed
        facts = [choice.depends_on(stage), vars(budget), len(cache), cache.manifest, self.frozen]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]
        if digest not in self.trained:
            torch.manual_seed(seed)
            config = StageConfig(
                stage,
                LossWeights(**choice.losses),
                held_out=budget.held_out,
                **options,
            )
            trainer = StageTrainer(
                config,
                cache,
                self.dataset,
                self.G,
                self.loss_net,
                **copy.deepcopy(before),
                mapping=replace(MINI.mapping, **choice.mapping),
                modulation=replace(MINI.modulation, **choice.modulation),
            )
            loop = LoopConfig(
                run_dir=self.run_dir / f"stage{stage}-{digest}",
                minutes=math.inf,
                max_steps=budget.steps * (choice.longer if stage == 2 else 1),
                batch_size=budget.batch_size,
                seed=seed,
                learning_rate=budget.learning_rate,
                warmup_steps=50,
                cooldown=0.3,
            )
            result = trainer.fit(loop)
            self.trained[digest] = {k: result.ema[k] for k in STAGES[stage]}
        return self.trained[digest]


def lines_of(ablation: Ablation, names: list[str]) -> Iterator[dict[str, Any]]:
    """Lines of the table, one for each row and exit, as each is finished.

    "<column> gain" is how much better the row is than the one it stands `against`, with the
    interval of the difference on the same samples; rows come after those they stand against.
    """
    finished: dict[str, dict[int, FinishedRow]] = {}
    for name in tqdm(names, desc="choices", disable=None):
        finished[name] = ablation.rows(name)
        against = finished.get(CHOICES[name].against, {}) if name != "default" else {}
        for step, row in finished[name].items():
            line = {"row": name, "exit step": step, "against": CHOICES[name].against}
            line |= columns_of(summary(row.reading, ablation.budget.seed))
            if step in against:
                line |= _gains(row.reading, against[step].reading, ablation.budget.seed)
            yield line


def _gains(ours: Reading, theirs: Reading, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    found: dict[str, float] = {}
    for column in COLUMNS:
        of = functools.partial(ahead, ours, theirs, column)
        low, high = interval(of, len(ours), rng, column == FID)
        gain = f"{column} gain"
        found |= {gain: of(), f"{gain} low": low, f"{gain} high": high}
    return found


def main(arguments: list[str] | None = None) -> None:
    """Command line; see the module docstring."""
    defaults = Budget()
    parser = argparse.ArgumentParser(
        description="Train and measure one row for each named choice.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    cache = Path("~/.cache/dmgi/features").expanduser()
    runs = Path("~/.cache/dmgi/runs/ablations").expanduser()
    parser.add_argument("--steps", type=int, default=defaults.steps, help="for each stage")
    parser.add_argument("--only", nargs="*", default=list(CHOICES), choices=list(CHOICES))
    parser.add_argument("--weights", type=Path, default=MINI.folder, help="pipeline folder")
    parser.add_argument("--data", type=Path, default=default_root(), help="face dataset")
    parser.add_argument("--cache", type=Path, default=cache / "mask", help="feature cache")
    parser.add_argument("--noised-cache", type=Path, default=cache / "noised", help="leaking one")
    parser.add_argument("--run-dir", type=Path, default=runs, help="checkpoints")
    parser.add_argument("--rows", type=Path, default=Path("runs/ablations"), help="finished rows")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations.csv"), help="table")
    parser.add_argument("--n", type=int, default=200, help="test identities")
    parser.add_argument("--batch-size", type=int, default=defaults.batch_size)
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    parser.add_argument("--held-out", type=int, default=defaults.held_out, help="identities")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    given = parser.parse_args(arguments)
    budget = Budget(**{name: getattr(given, name) for name in vars(defaults)})
    names, notes, caches = list(given.only), [], {"reverse": FeatureCache(given.cache)}
    leaking = [name for name in names if CHOICES[name].source == "noised"]
    if leaking and not given.noised_cache.is_dir():
        names = [name for name in names if name not in leaking]
        notes = [
            f"no row {', '.join(leaking)}: its cache is missing; build it with python -m"
            " dmgi_lib.training.feature_cache --source noised --cache ~/.cache/dmgi/features/noised"
        ]
    elif leaking:
        caches["noised"] = FeatureCache(given.noised_cache)
    train, test = (FaceDataset(given.data, split) for split in ("train", "test"))
    for one in caches.values():
        one.check(train, DMGIPipeline.from_pretrained(given.weights))
    files = RowFiles(
        given.rows,
        weights=shared_hash(given.weights),
        controlnet=folder_hash(given.weights / "controlnet"),
        data=test.digest,
        n=given.n,
        budget=vars(budget),
    )
    truth = GroundTruth.read(test, given.n)
    ablation = Ablation(given.weights, caches, train, truth, given.run_dir, files, budget)
    header = [
        *header_lines(truth, "mask", given.data.name),
        f"{budget.steps} steps of training for M, for T, and for both in rows of stage 3, batch"
        f" {budget.batch_size}, learning rate {budget.learning_rate:g}, from"
        f" {len(caches['reverse'])} cached entries; gain: how much better than the row it stands"
        " against, on the same samples",
        *notes,
    ]
    lines: list[dict[str, Any]] = []
    for line in lines_of(ablation, names):
        lines.append(line)
        write_csv(given.out, header, lines)
        shown = "  ".join(f"{column} {line[column]:.3f}" for column in COLUMNS)
        tqdm.write(f"{line['row']}, exit {line['exit step']}: {shown}")
    print(*header, given.out, sep="\n")


if __name__ == "__main__":
    main()
