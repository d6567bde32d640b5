"""The one training loop of all stages and priors: time budget, exact resume, EMA, CSV, samples.

The loop knows nothing of the model. A `step_fn` does one optimisation step (it may drive several
optimizers, as adversarial training does) and returns what is to be logged:

    def step_fn(step, rng, used):
        batch = images[batch_indices(len(images), 32, step, config.seed)]
        loss = criterion(model(batch), torch.randn(32, 8, generator=rng))
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        return {"loss": loss.detach()}   # read when a row of the log is written

    accelerator = accelerator_for("auto")   # model and batches go to accelerator.device
    result = run(config, {"model": model}, {"model": optimizer}, step_fn, ema=("model",),
                 accelerator=accelerator)
    result.ema["model"].save_pretrained(folder)

Every random number of step k is a function of (seed, k), so a resumed run repeats the curve that
the uninterrupted run would have drawn. The loop is our choice (not specified in the paper's
available sources).
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from PIL import Image
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm.auto import tqdm

from dmgi_lib.devices import keep_freed_memory, pick_device
from dmgi_lib.files import plain, sweep, write_whole
from dmgi_lib.training.run_files import Logged, RunLog, load_checkpoint

StepFn = Callable[[int, torch.Generator, float], Logged]
SampleFn = Callable[[int, dict[str, Any]], np.ndarray]


@dataclass(frozen=True)
class LoopConfig:
    """What the loop needs to know; everything else belongs to `step_fn`.

    Args:
        run_dir:            folder of checkpoint.pt, log.csv and samples/
        minutes:            time budget, summed over all resumes; 0 loads the checkpoint and returns
        batch_size:         samples per step; the loop only checks and reports it
        seed:               with the step number, the seed of every random draw
        learning_rate:      for the caller that builds the optimizers
        checkpoint_minutes: minutes between checkpoints, or an eighth of `minutes` if that is less
        sample_minutes:     minutes between sample images
        log_every:          steps averaged into one row of log.csv
        ema_half_life_steps: steps after which a weight's share in the EMA has halved
        warmup_steps:       the learning rates rise linearly over this many steps
        cooldown:           share of the budget at its end in which the learning rates fall
                            linearly to 0; budget = the larger of the used shares of `minutes` and
                            `max_steps`, so with a clock alone the fall depends on the clock
        max_steps:          stop after this many steps even if time is left
    """

    run_dir: Path
    minutes: float
    batch_size: int
    seed: int = 0
    learning_rate: float = 2e-4
    checkpoint_minutes: float = 4.0
    sample_minutes: float = 8.0
    log_every: int = 50
    ema_half_life_steps: float = 500.0
    warmup_steps: int = 0
    cooldown: float = 0.0
    max_steps: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.log_every < 1 or self.minutes < 0:
            raise ValueError(
                f"got batch_size={self.batch_size}, log_every={self.log_every}, "
                f"minutes={self.minutes}; expected batch_size >= 1, log_every >= 1, minutes >= 0"
            )
        if not 0.0 <= self.cooldown <= 1.0:
            raise ValueError(f"got cooldown={self.cooldown}, expected a share in [0, 1]")


@dataclass(frozen=True)
class LoopResult:
    """Where a run stands."""

    step: int  # optimisation steps done, over all resumes
    seconds: float  # spent, over all resumes
    ema: dict[str, Any]  # name -> averaged copy of the module, in eval mode
    last: dict[str, float]  # averaged row of the log
    log_path: Path  # the CSV file


def seed_of(*numbers: int) -> int:
    """A 63-bit seed that is a pure function of some numbers and differs between neighbours."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@functools.lru_cache(maxsize=16)
def _permutation(n: int, seed: int, epoch: int) -> torch.Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed_of(seed, epoch)))


def batch_indices(n: int, batch_size: int, step: int, seed: int) -> torch.Tensor:
    """Indices of batch `step`, a pure function of its arguments: (batch_size,) int64 in [0, n).

    The batches cut an endless row of permutations of range(n); one may straddle two epochs.
    """
    if n < 1:
        raise ValueError(f"got n={n}, expected at least one sample; is the data set empty?")
    start, stop = step * batch_size, (step + 1) * batch_size
    epochs = range(start // n, (stop - 1) // n + 1)
    row = torch.cat([_permutation(n, seed, epoch) for epoch in epochs])
    return row[start - epochs[0] * n : stop - epochs[0] * n]


def accelerator_for(device: str | torch.device = "auto") -> Accelerator:
    """Device and processes of a training; each of several processes takes the GPU of its rank.

    Weights stay in fp32 and accelerate casts nothing: losses are computed under `devices.autocast`.

    Args:
        device: one of `devices.DEVICES`, or such as "cuda:1".
    """
    picked = pick_device(device)
    if picked.type == "cuda":  # batches are of one size, and losses are far coarser than TF32
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    if picked.type == "cpu":
        keep_freed_memory()
    if picked.index is not None:
        torch.cuda.set_device(picked)
    return Accelerator(cpu=picked.type == "cpu", mixed_precision="no")


def _used(config: LoopConfig, step: int, seconds: float, several: Accelerator | None) -> float:
    """Share of the budget; the first process's value, so that all stop after the same step."""
    by_clock = seconds / (60.0 * config.minutes) if config.minutes else 1.0
    used = max(by_clock, step / config.max_steps if config.max_steps else 0.0)
    if several:
        return float(broadcast(torch.tensor(used, dtype=torch.float64, device=several.device)))
    return used


def run(
    config: LoopConfig,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    step_fn: StepFn,
    *,
    ema: tuple[str, ...] = (),
    sample_fn: SampleFn | None = None,
    accelerator: Accelerator | None = None,
    made_from: Mapping[str, Any] | None = None,
) -> LoopResult:
    """Trains until the time budget or `max_steps` is used up, resuming from run_dir by itself.

    Args:
        modules:    everything with weights or buffers that a checkpoint must hold, by name
        optimizers: by name; their learning rates are scaled by warm-up and cool-down
        step_fn:    (step, rng, used) -> numbers to log; rng, a generator of the CPU so that all
                    devices draw the same, is seeded from (config.seed, step), as is the global one,
                    for dropout; used is the share of the budget before the step
        ema:        names of the modules to average
        sample_fn:  (step, EMA copies) -> uint8 (H, W, 3), saved as samples/{step}.png
        accelerator: see `accelerator_for`; None: one process. `modules` are on its device already,
                    and stay the unwrapped ones. Only the first process writes, and its clock ends
                    the run for all
        made_from:  plain values, nested or not, that decide what is learnt: data, losses, frozen
                    networks. A checkpoint with other ones is refused

    Raises:
        ValueError: the checkpoint is of another seed, batch size, architecture or made_from
        FileNotFoundError: minutes=0 and no checkpoint to load
        FloatingPointError: a logged number is not finite
    """
    unknown = set(ema) - set(modules)
    if unknown:
        raise ValueError(f"ema names {sorted(unknown)}, expected names of {sorted(modules)}")
    averaged = {name: copy.deepcopy(modules[name]).eval().requires_grad_(False) for name in ema}
    base_rates = {k: [g["lr"] for g in o.param_groups] for k, o in optimizers.items()}
    run_dir, path = Path(config.run_dir), Path(config.run_dir) / "checkpoint.pt"
    parts: dict[str, Mapping[str, Any]]
    parts = {"modules": modules, "optimizers": optimizers, "ema": averaged}
    several = accelerator if accelerator and accelerator.num_processes > 1 else None
    writes = several is None or several.is_main_process
    identity: dict[str, Any] = {"seed": config.seed, "batch_size": config.batch_size}
    identity["made_from"] = plain(made_from or {})
    step, before, sums = 0, 0.0, {}
    if writes:
        sweep(run_dir, path.name)
    if path.exists():
        state = load_checkpoint(path, identity, parts)
        step, before, sums = state["step"], state["seconds"], state["sums"]
    elif config.minutes == 0:
        raise FileNotFoundError(f"no {path} to load; train first (minutes > 0)")
    log = RunLog(run_dir / "log.csv", step, sums, writes)
    start, first_step = time.monotonic(), step

    def seconds() -> float:
        return before + time.monotonic() - start

    def save() -> None:
        if writes:
            states = {p: {k: o.state_dict() for k, o in objs.items()} for p, objs in parts.items()}
            facts = {"step": step, "seconds": seconds(), "sums": log.sums}
            write_whole(path, lambda target: torch.save(states | facts | identity, target))

    def sample() -> None:
        if sample_fn is not None and writes:
            with torch.no_grad():
                image = Image.fromarray(sample_fn(step, averaged))
            target = run_dir / "samples" / f"{step:07d}.png"
            write_whole(target, lambda p: image.save(p, format="PNG"))

    between_saves = 60.0 * min(config.checkpoint_minutes, config.minutes / 8)
    next_save = seconds() + between_saves
    next_sample = seconds() + 60.0 * config.sample_minutes
    bar = tqdm(total=config.max_steps, initial=step, desc=run_dir.name, disable=None, leave=False)
    with torch.random.fork_rng(devices=[]), bar:
        while (used := _used(config, step, seconds(), several)) < 1.0:
            rate = min(1.0, (step + 1) / max(1, config.warmup_steps))
            if config.cooldown:
                rate *= min(1.0, (1.0 - used) / config.cooldown)
            for name, optimizer in optimizers.items():
                for group, base in zip(optimizer.param_groups, base_rates[name], strict=True):
                    group["lr"] = base * rate
            torch.manual_seed(seed_of(config.seed, step))
            rng = torch.Generator().manual_seed(seed_of(config.seed, step))
            values = step_fn(step, rng, used)
            if several:
                own = torch.tensor([float(v) for v in values.values()], device=several.device)
                means = several.reduce(own, "mean").tolist()
                values = dict(zip(values, means, strict=True))
            log.add(values, step)
            step += 1
            half_life = max(1.0, min(config.ema_half_life_steps, step / 10))
            average = get_ema_multi_avg_fn(0.5 ** (1.0 / half_life))
            for name, copy_ in averaged.items():  # AveragedModel would rename the weights
                average(list(copy_.parameters()), list(modules[name].parameters()), 1)
                for target, source in zip(copy_.buffers(), modules[name].buffers(), strict=True):
                    target.copy_(source)
            bar.update()
            if step % config.log_every == 0:
                log.write_row(step, seconds())
            if seconds() >= next_save:
                save()
                next_save = seconds() + between_saves
            if seconds() >= next_sample:
                sample()
                next_sample = seconds() + 60.0 * config.sample_minutes
    if step > first_step:
        save()
        sample()
    rate_now = (step - first_step) * config.batch_size / max(1e-9, seconds() - before)
    numbers = ", ".join(f"{k} {v:.4g}" for k, v in list(log.last().items())[2:])
    if writes:
        spent = f"{step} steps, {seconds() / 60:.1f} min, {rate_now:.1f} img/s"
        print(f"{run_dir.name}: {spent}; {numbers}")
    return LoopResult(step, seconds(), averaged, log.last(), log.path)
