"""Fake CUDA tensors, with which a machine without a GPU finds a forgotten device.

with fake_cuda() as mode:
    on_cuda(network)
    network(torch.empty(1, 3, device="cuda"))    # a tensor left on the CPU raises
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import (
    FakeTensor,
    FakeTensorMode,
    in_kernel_invocation_manager,
)


def _without_guard(name: str) -> Any:
    """A method whose binding in C++ looks for the device's driver, which a CPU build lacks."""
    own = getattr(torch.Tensor, name)

    def method(self: FakeTensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.device.type == "cpu":
            return own(self, *args, **kwargs)
        with in_kernel_invocation_manager(self.fake_mode):
            found = own(self, *args, **kwargs)
        return self if found is self else FakeTensor(self.fake_mode, found, self.device)

    return method


@contextmanager
def fake_cuda() -> Iterator[FakeTensorMode]:
    """Inside, all tensors made are fake, and device "cuda" is there."""
    names = ("__getitem__", "contiguous")
    methods = {name: _without_guard(name) for name in names}
    with (
        patch.multiple(FakeTensor, create=True, **methods),
        torch.no_grad(),
        FakeTensorMode(allow_non_fake_inputs=True) as mode,
    ):
        yield mode


def on_cuda(network: torch.nn.Module, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """Makes all weights of a network fake ones on a GPU; to be called inside `fake_cuda`."""

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        kept = dtype if tensor.is_floating_point() else tensor.dtype
        return torch.empty(tensor.shape, dtype=kept, device="cuda")

    for module in network.modules():
        for name, weight in module.named_parameters(recurse=False):
            module._parameters[name] = torch.nn.Parameter(fake(weight), requires_grad=False)
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = fake(buffer)
    return network
