"""A device that is not the CPU, on a machine that has none.

with other_device() as device:
    network.to(device)(torch.empty(1, 3))    # a tensor left on the CPU raises

Its tensors say that they are elsewhere and keep their numbers in a tensor of the CPU, so results
are a CPU's. What a GPU would refuse raises here, too: an operation on tensors of both, numpy of a
GPU's tensor, noise drawn there by a generator of the CPU.
"""

from contextlib import ExitStack, contextmanager, nullcontext
from unittest.mock import patch

import torch
from diffusers import ModelMixin
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

OTHER = torch.device("meta")
aten = torch.ops.aten
INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)
MAY_MIX = (aten._to_copy, aten.copy_)
tensor_of = torch.tensor


class Elsewhere(torch.Tensor):
    """A tensor of OTHER; `own` has its numbers."""

    @staticmethod
    def __new__(cls, own):
        layout = {"strides": own.stride(), "storage_offset": own.storage_offset()}
        return torch.Tensor._make_wrapper_subclass(
            cls, own.shape, dtype=own.dtype, device=OTHER, **layout
        )

    def __init__(self, own):
        self.own = own

    def __repr__(self):
        return f"Elsewhere({self.own!r})"

    def tolist(self):
        return self.own.tolist()

    def new_tensor(self, data):
        return tensor_of(data, dtype=self.dtype).to(self.device)

    def __getitem__(self, index):
        return super().__getitem__(_placed(index))

    def __setitem__(self, index, value):
        super().__setitem__(_placed(index), value)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _placed(index):
    """Lists of places as tensors of the CPU, since torch would make meta tensors of them."""
    parts = index if isinstance(index, tuple) else (index,)
    return tuple(tensor_of(part) if isinstance(part, (list, tuple)) else part for part in parts)


def _tensor(data, *, device=None, **options):
    """torch.tensor, which gives meta tensors no numbers."""
    made = tensor_of(data, **options)
    return made if device is None else made.to(device)


def _mapped(change, x):
    """`change` of everything in nested arguments; torch's tree_map takes seven times as long."""
    if isinstance(x, (tuple, list)):
        return type(x)([_mapped(change, each) for each in x])
    return change(x)


def _run(func, args, kwargs):
    packet, to = func.overloadpacket, kwargs.get("device")
    compared, values = args, tuple(kwargs.values())
    if packet in INDEXING:  # a GPU takes places that lie on the CPU, but not the other way round
        if any(isinstance(x, Elsewhere) for x in args[1]) and not isinstance(args[0], Elsewhere):
            raise RuntimeError(f"{func} got places on {OTHER} in a tensor of the CPU")
        compared, values = args[:1] + args[2:3], ()
    ours, theirs = {}, []

    def sort(x):
        if isinstance(x, Elsewhere):
            ours[id(x.own)] = x
        elif isinstance(x, torch.Tensor) and x.dim():
            theirs.append(x)

    _mapped(sort, (compared, values))
    if ours and theirs and packet not in MAY_MIX:
        raise RuntimeError(f"{func} got tensors of {OTHER} and of the CPU")
    there = bool(ours) if to is None else torch.device(to) == OTHER
    if there and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func} got a generator of the CPU for {OTHER}")
    if packet is aten.copy_:
        there = isinstance(args[0], Elsewhere)

    def opened(x):
        return torch.device("cpu") if isinstance(x, torch.device) else getattr(x, "own", x)

    def closed(x):
        if not there or not isinstance(x, torch.Tensor):
            return x
        return ours[id(x)] if id(x) in ours else Elsewhere(x)

    kwargs = {name: _mapped(opened, value) for name, value in kwargs.items()}
    return _mapped(closed, func(*_mapped(opened, args), **kwargs))


class _Everything(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _loading(kind, modes):
    """Libraries build a model of meta tensors before they fill it: no place for this device."""
    own = kind.from_pretrained.__func__

    def from_pretrained(cls, *arguments, **options):
        if not modes:  # one loads another
            return own(cls, *arguments, **options)
        mode = modes.pop()
        mode.__exit__(None, None, None)
        try:
            return own(cls, *arguments, **options)
        finally:
            modes.append(mode.__enter__())

    return patch.object(kind, "from_pretrained", classmethod(from_pretrained))


def _autocast(kind, *arguments, **options):
    if kind != OTHER.type:
        raise RuntimeError(f"autocast of {kind} around tensors of another device")
    return nullcontext()


@contextmanager
def other_device():
    """Inside, tensors and networks can be on OTHER."""
    modes = []
    with ExitStack() as patches:
        patches.enter_context(patch("torch.optim.adam._device_dtype_check_for_fused"))
        patches.enter_context(patch("torch.autocast", _autocast))
        patches.enter_context(patch("torch.tensor", _tensor))
        for kind in (ModelMixin, PreTrainedModel):
            patches.enter_context(_loading(kind, modes))
        modes.append(_Everything().__enter__())
        try:
            yield OTHER
        finally:
            modes.pop().__exit__(None, None, None)
