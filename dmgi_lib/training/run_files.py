"""Files of a run, each written whole: checkpoint.pt and log.csv; and the card of what it made."""

from __future__ import annotations

import math
import os
import pickle
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from dmgi_lib.files import differences, write_whole

CLOCK = ["step", "seconds"]  # the first columns of a log
Logged = Mapping[str, float | Tensor]  # numbers of one step, by name


class RunLog:
    """log.csv: one row of means per `log_every` steps; new columns may appear at any time.

    Numbers on a GPU are read when a row or a checkpoint is written: reading one waits until the GPU
    has done all that it was given.

    Args:
        last_step: rows after it, of a run that was cut off, are dropped.
        sums: name -> [sum, count] of the steps since the last row.
        writes: False keeps the rows in memory only, as all but one of several processes do.
    """

    def __init__(
        self, path: Path, last_step: int, sums: dict[str, list[float]], writes: bool = True
    ) -> None:
        self.path, self.writes = path, writes
        self._sums, self._waiting = sums, list[tuple[int, Logged]]()
        self.rows: list[dict[str, str]] = []
        if path.exists():
            text = path.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1] or "step"  # a row without an end was cut off
            table = pd.read_csv(StringIO(whole), dtype=str, keep_default_na=False)
            self.rows = table[table["step"].astype(int) <= last_step].to_dict("records")
        self._write()

    @property
    def sums(self) -> dict[str, list[float]]:
        """Name -> [sum, count] of the steps since the last row."""
        self._read()
        return self._sums

    def add(self, values: Logged, step: int) -> None:
        self._waiting.append((step, values))
        if not any(map(_is_far, values.values())):
            self._read()

    def _read(self) -> None:
        waiting, self._waiting = self._waiting, []
        for step, name, value in [(s, k, float(v)) for s, row in waiting for k, v in row.items()]:
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"{name} became {value} at step {step}; the last checkpoint is intact. Find "
                    "the cause, or lower the learning rate"
                )
            total, count = self._sums.get(name, [0.0, 0.0])
            self._sums[name] = [total + value, count + 1.0]

    def write_row(self, step: int, seconds: float) -> None:
        row = {"step": str(step), "seconds": f"{seconds:.1f}"}
        row |= {name: f"{total / count:.8g}" for name, (total, count) in self.sums.items()}
        self._sums = {}
        self.rows.append(row)
        self._write()

    def last(self) -> dict[str, float]:
        return {k: float(v) for k, v in self.rows[-1].items() if v} if self.rows else {}

    def _write(self) -> None:
        if self.writes:
            table = pd.DataFrame(self.rows or [], columns=None if self.rows else CLOCK)
            write_whole(self.path, lambda target: table.to_csv(target, index=False))


def _is_far(value: float | Tensor) -> bool:
    return isinstance(value, Tensor) and value.device.type != "cpu"


def load_checkpoint(
    path: Path, expected: Mapping[str, object], parts: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Loads a checkpoint into modules, optimizers and EMA copies, in place.

    Args:
        expected: facts that must be the same, such as seed and batch size, nested or not.
        parts: "modules", "optimizers", "ema" → name → what is loaded into.

    Raises:
        ValueError: it belongs to another run, or cannot be read.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} is truncated or no checkpoint ({error}). Delete it to train from the start, or"
            " put a copy in its place."
        ) from error
    found = differences({name: state.get(name, {}) for name in expected}, expected)
    if found:
        raise ValueError(
            f"{path} was written by another run: {'; '.join(found)}. Use what it was trained with,"
            " or another run_dir."
        )
    for part, objects in parts.items():
        if set(state[part]) != set(objects):
            raise ValueError(
                f"{path} holds {part} {sorted(state[part])}, this run has {sorted(objects)}; "
                "use another run_dir"
            )
        for name, obj in objects.items():
            try:
                obj.load_state_dict(state[part][name])
            except (RuntimeError, ValueError) as error:
                raise ValueError(
                    f"{part} {name!r} in {path} has another architecture than this run "
                    f"({error}); use the old config or another run_dir"
                ) from error
    return state


def read_log(path: Path) -> dict[str, list[float]]:
    """Column → values of a log.csv; NaN where a row lacks a column."""
    return pd.read_csv(path, dtype=float).to_dict("list")


def command_line(module: str) -> str:
    """This process's command, with the home folder written as ~."""
    home = f"{Path.home()}{os.sep}"
    words = (
        f"~/{shlex.quote(word.removeprefix(home))}" if word.startswith(home) else shlex.quote(word)
        for word in sys.argv[1:]
    )
    return " ".join(["python -m", module, *words])


def card(
    title: str,
    module: str,
    facts: Sequence[str],
    configs: Sequence[Any],
    about: str,
    table: str,
    numbers: Mapping[str, float],
) -> str:
    """Markdown card of weights that this process's command line made.

    Args:
        module: of the command, see `command_line`.
        facts: of the training, one a line; those of the configs (dataclasses) follow.
        about: paragraph before the numbers.
        table: what the numbers are of, the head of their names.
    """
    listed = [", ".join(f"{k} {v}" for k, v in asdict(config).items()) for config in configs]
    lines = [
        f"# {title}",
        "",
        f"- command: `{command_line(module)}`",
        *(f"- {fact}" for fact in (f"date: {date.today().isoformat()}", *facts, *listed)),
        *("", about, "", f"| {table} | value |", "|---|---|"),
        *(f"| {name} | {value:.4g} |" for name, value in numbers.items()),
    ]
    return "\n".join(lines) + "\n"
