"""bf16 only where a processor computes in it."""

import pytest
import torch

from dmgi_lib.devices import autocast, has_fast_bf16, machine


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


def test_a_machine_is_named_with_what_numbers_depend_on():
    text = machine("cpu")
    for part in (f"torch {torch.__version__}", f"torch threads {torch.get_num_threads()}", "cores"):
        assert part in text
