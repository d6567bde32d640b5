"""A device by its name, bf16 only where a processor computes in it, and what a card says."""

import os
import platform
import subprocess
import sys

import pytest
import torch

from dmgi_lib.devices import (
    autocast,
    has_fast_bf16,
    has_room,
    keep_freed_memory,
    machine,
    moved,
    normal,
    peak_gb,
    pick_device,
    resident,
    synchronize,
    taken,
)


@pytest.fixture
def cpu_only(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_auto_takes_the_best_there_is(monkeypatch, cpu_only):
    assert pick_device() == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    assert pick_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "meta", "cuda:x"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(ValueError, match=rf"device came as '{name}'; expected one of .*'auto'"):
        pick_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_a_device_that_is_not_here_is_refused(cpu_only, name):
    with pytest.raises(ValueError, match=rf"device came as '{name}', but torch .* take \"auto\""):
        pick_device(name)


def test_machine_names_the_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    threads = torch.get_num_threads()
    assert f", 7 cores, torch threads {threads}, fp32, torch {torch.__version__}" in machine("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    assert ", bf16, torch " in machine("cpu")


def test_machine_names_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")
    assert machine("cuda:1").startswith(f"GPU of cuda:1, torch {torch.__version__}")
    assert machine("mps").startswith("Apple GPU (")


def test_clocks_wait_for_the_device_that_is_timed(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waited.append(str(device)))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    for device in ("cpu", "cuda:1", torch.device("mps")):
        synchronize(device)
    assert waited == ["cuda:1", "mps"]


def test_peak_memory_is_known_of_cuda_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 2_500_000_000)
    assert peak_gb("cuda") == 2.5
    assert peak_gb("cpu") is None and peak_gb("mps") is None


@pytest.mark.parametrize("able", ["avx512_bf16", "amx_bf16"])
def test_bf16_where_the_processor_has_it(monkeypatch, able):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {able: True}, raising=False)
    assert has_fast_bf16()
    with autocast("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with autocast("cpu", enabled=False):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_fp32_elsewhere(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    with autocast("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # older than that
    assert not has_fast_bf16()
    assert not has_fast_bf16("mps")


def test_a_gpu_fetches_from_pinned_memory_without_waiting(monkeypatch):
    calls, x = [], torch.arange(3)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: calls.append("pinned") or t)
    monkeypatch.setattr(torch.Tensor, "to", lambda t, *a, **k: calls.append((*a, k)) or t)
    moved(x, "cuda"), moved(x, "cpu")
    assert calls == ["pinned", ("cuda", {"non_blocking": True}), ("cpu", {})]


def test_pictures_stay_on_a_device_with_four_times_the_room(monkeypatch):
    pictures = torch.zeros(10, dtype=torch.uint8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for free, fits in ((40, True), (39, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 100))
        assert has_room(pictures.nbytes, "cuda") == fits
    assert resident(pictures, "cuda") is pictures  # no room
    assert resident(pictures, "meta").device.type == "meta"
    assert resident(pictures, "cpu") is pictures
    assert resident([1, 2], "meta") == [1, 2]  # no tensor: files that are read when indexed


@pytest.mark.parametrize("home", ["cpu", "meta"])
def test_rows_come_from_wherever_the_pictures_are(home):
    pictures, rows = torch.arange(12).view(4, 3).to(home), torch.tensor([2, 0])
    found = taken(pictures, rows, home)
    assert found.device.type == home and found.shape == (2, 3)
    assert home == "meta" or found.tolist() == [[6, 7, 8], [0, 1, 2]]


def test_noise_on_a_cpu_is_that_of_the_generator():
    drawn = normal((2, 3), torch.Generator().manual_seed(5), "cpu")
    assert torch.equal(drawn, torch.randn(2, 3, generator=torch.Generator().manual_seed(5)))


FAULTS = """
import resource, sys, torch
from dmgi_lib.devices import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
for _ in range(10):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc's allocator")
def test_freed_memory_is_not_cleared_again():
    faults = {}
    for name in ("kept", "returned"):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, name], capture_output=True, text=True, check=True
        )
        faults[name] = int(done.stdout)
    assert faults["kept"] < 100 < faults["returned"]


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False
