"""What the choices are worth that the paper leaves open: one changed at a time, same budget.

    python -m dmgi_lib.evaluation.ablations --steps 500 --out runs/ablations.csv
    python -m dmgi_lib.evaluation.ablations --recipes --steps 500 --out runs/recipes.csv

Every row trains M (stage 1) and T (stage 2) from the same cache for the same number of steps, and
those of stage 3 both once more; what two rows have in common is trained once. All of it is done
anew with other seeds, since trainings differ by chance too: numbers are means over the seeds. The
judges read what comes out, at the first and at the last exit. Trainings and rows are kept in files,
so a run that was killed goes on where it was.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from accelerate import Accelerator
from scipy import stats
from torch import Tensor
from tqdm.auto import tqdm

from dmgi_lib.checks import whole_number
from dmgi_lib.dataset import FaceDataset, default_root
from dmgi_lib.devices import pick_device
from dmgi_lib.evaluation import report
from dmgi_lib.evaluation.ablation_choices import CHOICES, RECIPES, Choice
from dmgi_lib.evaluation.draw import Dtype, Row, place
from dmgi_lib.evaluation.read import COLUMNS, LOWER_IS_BETTER, FinishedRow
from dmgi_lib.evaluation.rows import TableConfig
from dmgi_lib.evaluation.step_study import StepStudy
from dmgi_lib.evaluation.table import Table, open_table
from dmgi_lib.files import state_hash
from dmgi_lib.pipeline import DMGIPipeline
from dmgi_lib.presets import MINI
from dmgi_lib.training.feature_cache import FeatureCache
from dmgi_lib.training.loop import LoopConfig
from dmgi_lib.training.losses import LossWeights
from dmgi_lib.training.trainer import STAGES, StageConfig, StageTrainer
from dmgi_lib.weight_folder import required_part

ROWS = RECIPES | CHOICES


@dataclass(frozen=True)
class Budget:
    """What every row gets."""

    steps: int = 500  # of training, for each stage
    batch_size: int = 8  # samples a training step
    learning_rate: float = 1e-3  # of Adam, large because the steps are few
    held_out: int = 64  # training identities that no row sees
    seed: int = 0  # the first, of weights, batches and noise


@dataclass
class Ablation:
    """Trains and measures rows, whose codes are decoded as predicted: only training differs."""

    weights: Path  # pipeline folder with loss_net
    table: Table  # of that folder: judges, test samples, and where finished rows are kept
    caches: dict[str, FeatureCache]  # "reverse", and others that a row asks for
    dataset: FaceDataset  # the one that the caches were made from
    run_dir: Path  # checkpoints; training goes on where it was stopped
    budget: Budget

    def __post_init__(self) -> None:
        self.G = required_part(self.weights, "generator", "data_prep.priors.trainer stylegan2")
        self.loss_net = required_part(self.weights, "loss_net", "data_prep.priors.trainer loss_net")
        self.frozen = [state_hash(network) for network in (self.G, self.loss_net)]
        self.trained: dict[str, dict[str, Any]] = {}
        self.exits = (0, self.caches["reverse"].num_inference_steps - 1)
        self.table.pipe.register_to_config(detail_psi=1.0)

    @functools.cached_property
    def study(self) -> StepStudy:
        """E of the test samples, which is frozen: one reverse process serves all rows."""
        return StepStudy(self.table.pipe, self.table.truth, self.exits, self.budget.seed)

    def networks(self, choice: Choice) -> dict[str, Any]:
        """M and T of a row, as they were trained."""
        found: dict[str, Any] = {}
        for stage in (1, 2) if choice.third is None else (1, 2, 3):
            found |= self._stage(stage, choice, found)
        return found

    def rows(self, name: str, seed: int = 0) -> dict[int, FinishedRow]:
        """A choice at the first and at the last exit; seed: added to the budget's."""
        choice = replace(ROWS[name], seed=seed)
        key = "".join(c if c.isalnum() else "_" for c in f"{name} {seed}")
        caches = [self.caches[source] for source in sorted({"reverse", choice.source})]
        made_from = {
            "choice": choice.depends_on(2 if choice.third is None else 3),
            "caches": [[cache.manifest, len(cache)] for cache in caches],
            "controlnet": self.table.made_from.get("controlnet"),
            "budget": vars(self.budget),
        }

        def draw(part: slice, step: int) -> Tensor:
            networks = {k: network.eval() for k, network in self.networks(choice).items()}
            return self.study.images(step, **networks)[part]

        found = {}
        for step in self.exits:
            drawn = functools.partial(draw, step=step)
            row = Row(f"{key}_{step}", name, drawn, made_from, self.table.truth)
            found[step] = self.table.finished(row)
        return found

    def _stage(self, stage: int, choice: Choice, before: dict[str, Any]) -> dict[str, Any]:
        """The averaged networks that a stage trains, from those of the stages before."""
        cache = self.caches[choice.cache(stage)]
        budget, options = self.budget, (choice.first, choice.second, choice.third)[stage - 1] or {}
        seed = budget.seed + choice.seed
        facts = {
            "choice": choice.depends_on(stage),
            "budget": vars(budget),
            "cache": [len(cache), cache.manifest],
            "frozen": self.frozen,
        }
        run_dir = place(self.run_dir, f"stage{stage}", facts)
        if run_dir.name not in self.trained:
            torch.manual_seed(seed)
            weights = LossWeights(**choice.losses)
            config = StageConfig(stage, weights, held_out=budget.held_out, **options)
            trainer = StageTrainer(
                *(config, cache, self.dataset, self.G, self.loss_net),
                **copy.deepcopy(before),
                mapping=replace(MINI.mapping, **choice.mapping),
                modulation=replace(MINI.modulation, **choice.modulation),
                accelerator=Accelerator(cpu=self.table.pipe.device.type == "cpu"),
            )
            loop = LoopConfig(
                run_dir=run_dir,
                minutes=math.inf,
                max_steps=budget.steps * (choice.longer if stage == 2 else 1),
                batch_size=budget.batch_size,
                seed=seed,
                learning_rate=budget.learning_rate,
                warmup_steps=50,
                cooldown=0.3,
            )
            result = trainer.fit(loop)
            self.trained[run_dir.name] = {k: result.ema[k] for k in STAGES[stage]}
        return self.trained[run_dir.name]


def lines_of(ablation: Ablation, names: list[str], seeds: int) -> Iterator[dict[str, Any]]:
    """Lines of the table, one for each row and exit, as each is finished.

    "<column> gain" is how much better the row is than the one it stands `against`, compared seed by
    seed; rows come after those they stand against.
    """
    found: dict[str, dict[int, dict[str, list[float]]]] = {}
    for name in tqdm(names, desc="choices", disable=None):
        every = [ablation.rows(name, seed) for seed in range(seeds)]
        found[name] = {
            step: {c: [rows[step].reading.value(c) for rows in every] for c in COLUMNS}
            for step in ablation.exits
        }
        against = found.get(ROWS[name].against, {}) if name != "default" else {}
        for step, values in found[name].items():
            line = {"row": name, "exit step": step, "against": ROWS[name].against}
            line |= {"N": len(every[0][step].reading), "seeds": seeds}
            for column, ours in values.items():
                line |= over_seeds(column, ours)
            for column, theirs in against.get(step, {}).items():
                sign = -1.0 if column in LOWER_IS_BETTER else 1.0
                pairs = zip(values[column], theirs, strict=True)
                line |= over_seeds(f"{column} gain", [sign * (a - b) for a, b in pairs])
            yield line


def over_seeds(name: str, values: Sequence[float]) -> dict[str, float]:
    """The mean, and its 95 % interval by Student's t if there are two values or more."""
    result = {name: sum(values) / len(values)}
    if len(values) > 1:
        half = float(stats.sem(values) * stats.t.ppf(0.975, len(values) - 1))
        result |= {f"{name} low": result[name] - half, f"{name} high": result[name] + half}
    return result


def run(
    budget: tyro.conf.OmitArgPrefixes[Budget],
    only: tuple[str, ...] = (),
    recipes: bool = False,
    weights: Path = MINI.folder,
    data: Path | None = None,
    cache: Path = Path("~/.cache/dmgi/features/mask"),
    noised_cache: Path = Path("~/.cache/dmgi/features/noised"),
    augmented_cache: Path = Path("~/.cache/dmgi/features/augmented"),
    run_dir: Path = Path("~/.cache/dmgi/runs/ablations"),
    rows: Path = Path("runs/ablations"),
    out: Path = Path("runs/ablations.csv"),
    n: int = 200,
    seeds: int = 3,
    device: str = "auto",
    dtype: Dtype = "float32",
) -> None:
    """Train and measure one row for each named choice.

    Args:
        only: names of rows; none: all choices
        recipes: rows of crisper and more varied faces, instead of all choices
        weights: pipeline folder
        data: face dataset; default: the one that was built, else the one that ships
        cache: feature cache
        noised_cache: the one that leaks I
        augmented_cache: the one whose x are as if drawn by hand
        run_dir: checkpoints
        rows: finished rows
        out: table
        n: test identities
        seeds: trainings of each row, over which the numbers are means
        device: auto, cpu, cuda or mps
        dtype: precision of the drawing
    """
    whole_number("--seeds", seeds, 1, 100)
    if unknown := [name for name in only if name not in ROWS]:
        raise SystemExit(f"--only came with {unknown}; expected names out of {list(ROWS)}.")
    names, notes = list(only or (RECIPES if recipes else CHOICES)), []
    caches = {"reverse": FeatureCache(cache.expanduser())}
    for source, options, folder in (
        ("noised", "--source noised", noised_cache),
        ("augmented", "--augment 0.5", augmented_cache),
    ):
        asking = [name for name in names if ROWS[name].source == source]
        if asking and folder.expanduser().is_dir():
            caches[source] = FeatureCache(folder.expanduser())
        elif asking:
            names = [name for name in names if name not in asking]
            notes.append(
                f"no row {', '.join(asking)}: its cache is missing; build it with python -m"
                f" dmgi_lib.training.feature_cache {options} --cache {folder}"
            )
    root = data or default_root()
    train, test = (FaceDataset(root, split) for split in ("train", "test"))
    for one in caches.values():
        one.check(train, DMGIPipeline.from_pretrained(weights))
    run_dir, config = run_dir.expanduser(), TableConfig(batch_size=n, seed=budget.seed)
    drawing = {"device": pick_device(device), "dtype": getattr(torch, dtype)}
    table, _ = open_table(weights, test, n, rows, config, run_dir, **drawing)
    ablation = Ablation(weights, table, caches, train, run_dir, budget)
    header = [
        *report.header_lines(table.truth, "mask", root.name, table.pipe.device),
        f"{budget.steps} steps of training for M, for T, and for both in rows of stage 3, batch"
        f" {budget.batch_size}, learning rate {budget.learning_rate:g}, from"
        f" {len(caches['reverse'])} cached entries; means of {seeds} seeds, low, high: 95 % over"
        " them (Student's t); gain: how much better than the row it stands against, seed by seed",
        *notes,
    ]
    lines: list[dict[str, Any]] = []
    for line in lines_of(ablation, names, seeds):
        lines.append(line)
        report.write_csv(out, header, lines)
        tqdm.write(f"{line['row']}, exit {line['exit step']}: {report.shown(line)}")
    print(*header, out, sep="\n")


if __name__ == "__main__":
    tyro.cli(run)
