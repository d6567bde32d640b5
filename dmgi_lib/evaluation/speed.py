"""Time and memory of the inference paths of Fig. 2: one U-Net pass (exit_step = 0) or all steps.

    python -m dmgi_lib.evaluation.speed --weights mini        # prints one line of JSON

Every measurement starts a fresh process, so that loading time and peak memory are those of a reader
who draws a first face. Loading counts imports, so the large libraries are imported where needed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any


def measure_in_fresh_process(**options: Any) -> dict[str, Any]:
    """`measure_here` in a process of its own. Raises RuntimeError, with its errors, if it fails."""
    command = [sys.executable, "-m", "dmgi_lib.evaluation.speed"]
    command += [f"--{name}={value}" for name, value in options.items()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_here(
    weights: str = "mini", repeats: int = 5, device: str = "auto", dtype: str = "float32"
) -> dict[str, Any]:
    """Load and draw in this process.

    Args:
        weights: preset or folder
        repeats: calls per median
        device: auto, cpu, cuda or mps
        dtype: float32, float16 or bfloat16

    Returns:
        seconds: load, first_image, exit_step_0 and full_process (medians over calls at batch 1);
        ratio full_process / exit_step_0; peak_memory_gb (10^9 bytes) of the process after loading
        and drawing at exit_step = 0, and peak_memory_full_gb after the full process; likewise
        peak_gpu_gb and peak_gpu_full_gb of a CUDA GPU; num_inference_steps.
    """
    start = time.perf_counter()
    import torch

    from dmgi_lib import DMGIPipeline
    from dmgi_lib.devices import peak_gb, pick_device, synchronize

    where = pick_device(device)
    pipe = DMGIPipeline.from_pretrained(weights, dtype=getattr(torch, dtype)).to(where)
    synchronize(where)
    found: dict[str, Any] = {"load": time.perf_counter() - start}
    mask = torch.ones((pipe.image_size,) * 2, dtype=torch.uint8)  # all skin: as fast as any

    def seconds(exit_step: int | None) -> float:
        return _seconds(lambda: pipe("a woman", mask=mask, exit_step=exit_step), where)

    found["first_image"] = seconds(0)
    found["exit_step_0"] = early = median(seconds(0) for _ in range(repeats))
    found |= {"peak_memory_gb": peak_memory_gb(), "peak_gpu_gb": peak_gb(where)}
    seconds(None)  # warm up the decoder
    found["full_process"] = full = median(seconds(None) for _ in range(max(1, repeats // 2)))
    found |= {"peak_memory_full_gb": peak_memory_gb(), "peak_gpu_full_gb": peak_gb(where)}
    found |= {"ratio": full / early, "num_inference_steps": pipe.config.num_inference_steps}
    return {name: number for name, number in found.items() if number is not None}


def _seconds(call: Callable[[], Any], device: Any) -> float:
    """Of one call, until the device has done all of it."""
    from dmgi_lib.devices import synchronize

    synchronize(device)
    begin = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - begin


def in_turns(calls: Mapping[str, Callable[[], Any]], device: Any) -> dict[str, float]:
    """Median seconds of calls, which take turns: whatever else the machine does slows all alike."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(6):
        for name, call in calls.items():
            taken[name].append(_seconds(call, device))
    return {name: median(values[1:]) for name, values in taken.items()}  # the first one warms up


def peak_memory_gb() -> float:
    """Largest resident size of this process so far, in 10^9 bytes.

    On Linux the kernel's mark of this program alone: `getrusage` counts as well what the process
    that started it held at that moment.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        marks = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if marks:
            return int(marks[1]) * 1024 / 1e9
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / 1e9
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9  # Linux counts kilobytes


if __name__ == "__main__":
    import tyro

    print(json.dumps(tyro.cli(measure_here, description="Time and memory of one image, as JSON.")))
