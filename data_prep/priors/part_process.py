"""The processes of a world's parts: a command of the kit each, with a log of its own."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Sequence
from multiprocessing.context import BaseContext
from pathlib import Path

IMPORTED = ["data_prep.priors.trainer", "dmgi_lib.training.stages"]  # before a part is forked


def processes(device: str) -> BaseContext:
    """How parts start: on a CPU under Linux, forked from a process that has imported everything.

    Imports take a small part most of its time. GPUs and other systems want processes that begin at
    nothing.
    """
    if device != "cpu" or sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


def run_module(command: Sequence[str], log: Path, threads: int) -> None:
    """`python -m command`, in this very process; what it says goes to the end of a file."""
    with log.open("a", encoding="utf-8") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    import torch  # not before: a fresh process imports this file first

    torch.set_num_threads(threads)
    sys.argv = [*command]
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
