"""A device that is not the CPU, on a machine that has none.

Meta tensors stand for a GPU's, gradients included. What a GPU would refuse raises here, too: an
operation on tensors of both, numpy of a GPU's tensor, autocast of the wrong device. (Fake CUDA
tensors can neither be sliced nor have gradients in builds of torch without CUDA.)
"""

from contextlib import contextmanager, nullcontext
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

OTHER = torch.device("meta")
aten = torch.ops.aten
INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)
MAY_MIX = (aten._to_copy, aten.copy_, *INDEXING)


class _OneDeviceAnOperation(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, packet = kwargs or {}, func.overloadpacket
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        kinds = {x.device.type for x in tensors if x.dim()}
        if len(kinds) > 1 and packet not in MAY_MIX:
            raise RuntimeError(f"{func} got tensors on {sorted(kinds)}")
        if OTHER.type not in {x.device.type for x in tensors}:
            return func(*args, **kwargs)
        if packet is aten._local_scalar_dense:
            return torch.ones((), dtype=args[0].dtype).item()
        if packet is aten.equal or (packet is aten.copy_ and args[0].device != OTHER):
            return args[0] if packet is aten.copy_ else True
        if packet is aten.nonzero:
            return torch.empty(args[0].numel(), args[0].dim(), dtype=torch.int64, device=OTHER)
        if packet is aten._to_copy and kwargs.get("device", OTHER).type != OTHER.type:
            dtype = kwargs.get("dtype") or args[0].dtype
            shape = args[0].shape
            if not dtype.is_floating_point:
                return torch.zeros(shape, dtype=dtype)
            if len(shape) == 2 and shape[0] == shape[1]:  # covariances are asked for their root
                return torch.eye(shape[0], dtype=dtype)
            return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
        if packet in INDEXING:
            args = (args[0], [i for index in args[1] for i in _places(index)], *args[2:])
        return func(*args, **kwargs)


def _places(index):
    """A boolean index takes everything."""
    if index is None or index.dtype != torch.bool:
        return [None if index is None else index.to(OTHER)]
    return [torch.empty(index.numel(), dtype=torch.int64, device=OTHER)] * index.dim()


def _autocast(kind, *arguments, **options):
    if kind != OTHER.type:
        raise RuntimeError(f"autocast of {kind} around tensors of another device")
    return nullcontext()


@contextmanager
def other_device():
    """Inside, tensors and networks can be on OTHER."""
    fused = patch("torch.optim.adam._device_dtype_check_for_fused")
    with patch("torch.autocast", _autocast), fused, _OneDeviceAnOperation():
        yield OTHER
