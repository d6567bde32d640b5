"""Tensors inside an official .pkl: records of pickled tensors, and the numbers that they hold.

A tensor's storage is raw bytes behind five pickles, torch.save's old stream format.
"""

from __future__ import annotations

import io
import math
import reprlib
from typing import Any

import torch
from torch import Tensor

from dmgi_lib.generators.pickle_reader import PickleReader, Record

TORCH_STREAM = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save's old format begins
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class CheckpointError(ValueError):
    """A .pkl that is damaged, of another kind, or asks for names that are not known here."""


class TensorRecord(Record): ...


class StorageRecord(Record): ...


def tensor_value(record: Any, what: str) -> Tensor:
    """Decodes the record of a tensor or parameter; CheckpointError naming `what` if it is damaged.

    The bytes must be a storage in torch.save's old stream format, the one that pickled tensors
    use; archives (zip, tar) are not opened.
    """
    try:
        return _decode(record)
    except Exception as error:  # a damaged stream can raise nearly anything
        raise CheckpointError(f"{what} is no whole tensor ({error}); fetch it again.") from error


def _decode(record: Any) -> Tensor:
    if not isinstance(record, TensorRecord):
        raise ValueError(f"{describe(record)} came")
    storage, offset, _, stride = record.args[:4]
    if not isinstance(storage, StorageRecord) or not storage.args[0].startswith(TORCH_STREAM):
        raise ValueError("its bytes are no storage in torch.save's stream format")
    if storage.state is None:
        storage.state = _storage_values(storage.args[0])
    flat, size = storage.state, size_of(record)
    if math.prod(size) > flat.numel():
        raise ValueError(f"shape {size} came with {flat.numel()} numbers")
    return flat.as_strided(size, stride, offset).clone(memory_format=torch.contiguous_format)


def size_of(tensor: Record) -> tuple[int, ...]:
    size = tuple(tensor.args[2])
    if len(size) > 8 or not all(isinstance(n, int) and 0 <= n < 2**63 for n in size):
        raise ValueError("a tensor came whose shape is not up to eight whole numbers")
    return size


class _StorageReader(PickleReader):
    """Knows the storage types of torch; gives back what a persistent id says."""

    def find_class(self, module: str, name: str) -> Any:
        if module != "torch" or name not in _STORAGES:
            raise ValueError(f"they ask for {module}.{name}, which is refused")
        return _STORAGES[name]

    def persistent_load(self, pid: Any) -> Any:
        return pid


def _storage_values(data: bytes) -> Tensor:
    """The numbers of a storage in torch.save's old stream format, one after another."""
    stream = io.BytesIO(data)
    _magic, _protocol, machine, storage, keys = (_StorageReader(stream).load() for _ in range(5))
    if not machine.get("little_endian", True):
        raise ValueError("its numbers are big-endian")
    kind, dtype, key, _, count = storage[:5]
    if kind != "storage" or not isinstance(dtype, torch.dtype) or keys != [key]:
        raise ValueError("its bytes hold no storage")
    start = stream.tell() + 8
    stored = int.from_bytes(data[start - 8 : start], "little")
    if stored != count or len(data) - start != count * dtype.itemsize:
        raise ValueError(f"{count} numbers are announced, {len(data) - start} bytes came")
    return torch.frombuffer(bytearray(data[start:]), dtype=dtype) if count else torch.empty(0)


def describe(content: Any) -> str:
    if isinstance(content, dict):
        return f"a dict with the keys {reprlib.repr(list(content))}"
    return f"a {type(content).__name__.lstrip('_')}"
