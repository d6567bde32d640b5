"""Where a computation runs and in which precision: `--device auto|cpu|cuda|mps` of all commands.

device = pick_device("auto")
with autocast(device):
    loss = network(batch.to(device)).mean()
synchronize(device)  # before a clock is read
"""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import Any

import torch

DEVICES = ("auto", "cpu", "cuda", "mps")  # "cuda:1" is taken too


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """The device of that name; "auto" takes a CUDA GPU, else Apple's, else the CPU.

    Raises:
        ValueError: unknown, or this machine has none.
    """
    if str(name) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device came as {name!r}; expected one of {DEVICES}.") from error
    if device.type not in DEVICES:
        raise ValueError(f"device came as {name!r}; expected one of {DEVICES}.")
    here = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not here[device.type]:
        raise ValueError(
            f"device came as {name!r}, but torch {torch.__version__} sees none on this machine;"
            ' take "auto" or "cpu", or install a build of torch for that device.'
        )
    return device


def has_fast_bf16(device: str | torch.device = "cpu") -> bool:
    """Whether matrix products and convolutions in bf16 are computed as such.

    A processor without instructions for them emulates bf16, and one step takes ten to eighty times
    as long as in fp32.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False  # nobody tells, and fp32 is never wrong
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def autocast(device: str | torch.device, enabled: bool = True) -> torch.autocast:
    """`torch.autocast` to bf16 that does nothing where bf16 would be slow.

    Args:
        device: of the tensors.
        enabled: False computes in fp32 everywhere.
    """
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=enabled and has_fast_bf16(kind))


def moved(x: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """x on the device. A CUDA GPU fetches it from pinned memory, so that nobody waits for it."""
    to_gpu = torch.device(device).type == "cuda" and x.device.type == "cpu"
    if to_gpu and torch.cuda.is_available():
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


def has_room(nbytes: int, device: str | torch.device) -> bool:
    """Whether something is better kept on the device: on a GPU that has four times as much free."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_available() and 4 * nbytes <= torch.cuda.mem_get_info(device)[0]
    return kind != "cpu"


def resident(pictures: Any, device: str | torch.device) -> Any:
    """Pictures of a data set on the device, if it has room for them; else as they are.

    Args:
        pictures: tensor, or what reads files when it is indexed
    """
    if isinstance(pictures, torch.Tensor) and has_room(pictures.nbytes, device):
        return pictures.to(device)
    return pictures


def taken(pictures: Any, rows: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """`pictures[rows]` on the device; the pictures may be there or not, see `resident`."""
    if isinstance(pictures, torch.Tensor):
        rows = moved(rows, pictures.device)
    return moved(pictures[rows], device)


def normal(
    shape: torch.Size | tuple[int, ...], rng: torch.Generator, device: str | torch.device
) -> torch.Tensor:
    """Standard normal noise, drawn by `rng`, a generator of the CPU.

    A CUDA GPU draws its own, from a seed drawn by `rng`: a processor takes longer over the noise of
    large batches than the GPU over the rest of the step.
    """
    if torch.device(device).type == "cuda" and torch.cuda.is_available():
        seed = int(torch.randint(2**62, (), generator=rng))
        own = torch.Generator(device).manual_seed(seed)
        return torch.randn(shape, generator=own, device=device)
    return torch.randn(shape, generator=rng).to(device)


def keep_freed_memory() -> bool:
    """Lets this process reuse what tensors free, where the C library is glibc; whether it is.

    Otherwise glibc hands large tensors back to the system at once, which has to clear each page
    again for the next one, in every step of a training. The process keeps its peak memory.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    set_option = ctypes.CDLL(None).mallopt
    no_mmap, keep = set_option(-4, 0), set_option(-1, -1)  # M_MMAP_MAX, M_TRIM_THRESHOLD: off
    return bool(no_mmap and keep)


def synchronize(device: str | torch.device) -> None:
    """Waits until the device has done all that it was given, so that a clock tells the truth."""
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind == "mps":
        torch.mps.synchronize()


def peak_gb(device: str | torch.device) -> float | None:
    """GB (10^9 bytes) that tensors took at most on a CUDA GPU so far; None elsewhere."""
    if torch.device(device).type != "cuda":
        return None
    return torch.cuda.max_memory_allocated(device) / 1e9


def machine(device: str | torch.device = "cpu") -> str:
    """What a card or table says it was made on: processor, and versions that numbers depend on.

    "NVIDIA H200, torch 2.8.0, python 3.12.3", or
    "AMD EPYC, 2 cores, torch threads 1, fp32, torch 2.8.0, python 3.12.3".
    """
    kind = torch.device(device).type
    if kind == "cuda":
        name = torch.cuda.get_device_name(device)
    elif kind == "mps":
        name = f"Apple GPU ({platform.machine()})"
    else:
        threads, precision = torch.get_num_threads(), "bf16" if has_fast_bf16("cpu") else "fp32"
        name = f"{_processor()}, {os.cpu_count()} cores, torch threads {threads}, {precision}"
    return f"{name}, torch {torch.__version__}, python {platform.python_version()}"


def _processor() -> str:
    """The processor's name; Linux tells it in a file only."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
