"""Reads the official .pkl checkpoints of StyleGAN2 and EG3D as data, without running any of them.

Such a file is a pickled dict with `G`, `D`, `G_ema`, ... Each network is a call of
`torch_utils.persistence._reconstruct_persistent_obj(meta)`; `meta` holds the source text of the
network's class and its `state`: the constructor's arguments, parameters, buffers and child modules
of the same kind. The official reader runs that source text. This one ignores it: a pickle's only
way to code is the names it asks for, and here every known name stands for an inert record, every
other name is refused. Before that, `pickle_limits` has bounded depth, number and size of what is
built. A tensor's numbers are a pickle of the same kind with raw bytes behind it.
"""

from __future__ import annotations

import io
import math
import pickle
import reprlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from dmgi_lib.generators.pickle_limits import PickleLimitError, check_pickle

MEND = (
    "If you trust the file, open it once in the repository that wrote it and save"
    " G_ema.state_dict() as .safetensors, which load_generator reads."
)
_TORCH_STREAM = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save's old format begins
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
_MAX_VALUES = 1_000_000  # that a checkpoint's options and modules may unfold to
_FOREIGN = (
    (_TORCH_STREAM, "a file of torch.save"),
    (b"PK\x03\x04", "a zip archive, such as torch.save writes"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"<", "a web page, perhaps the error page of a download"),
    (b"version https://git-lfs", "a pointer of git-lfs, not the file itself (run `git lfs pull`)"),
)
_NUMPY_SCALARS = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1")


class CheckpointError(ValueError):
    """A .pkl that is damaged, of another kind, or asks for names that are not known here."""


class _Record:
    """Stands for the object that a known name would have built; keeps what it was given."""

    args: tuple
    state: Any

    def __new__(cls, *args):
        record = super().__new__(cls)
        record.args, record.state = args, None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _PersistentObject(_Record): ...


class _Tensor(_Record): ...


class _Parameter(_Record): ...


class _Storage(_Record): ...


class _NumpyType(_Record): ...


class _NumpyScalar(_Record): ...


class _NumpyArray(_Record): ...


class _PlainModule(_Record):
    """A module whose class the file names instead of carrying its source."""


class _EasyDict(dict):
    def __setstate__(self, state: Any) -> None:
        self.update(state)


def _plain_modules(module: str, *names: str) -> dict[tuple[str, str], type]:
    return {(module, name): type(name, (_PlainModule,), {}) for name in names}


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("dnnlib.util", "EasyDict"): _EasyDict,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _PersistentObject,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch.storage", "_load_from_bytes"): _Storage,
    # gains such as np.sqrt(2) among a layer's attributes
    ("numpy", "dtype"): _NumpyType,
    ("numpy", "ndarray"): _NumpyType,
    ("numpy.core.multiarray", "scalar"): _NumpyScalar,
    ("numpy._core.multiarray", "scalar"): _NumpyScalar,
    ("numpy.core.multiarray", "_reconstruct"): _NumpyArray,
    ("numpy._core.multiarray", "_reconstruct"): _NumpyArray,
    # EG3D's modules without recorded source
    **_plain_modules("torch.nn.modules.activation", "Softplus"),
    **_plain_modules("torch.nn.modules.container", "Sequential", "ModuleList"),
    **_plain_modules("training.triplane", "OSGDecoder"),
    **_plain_modules("training.volumetric_rendering.renderer", "ImportanceRenderer"),
    **_plain_modules("training.volumetric_rendering.ray_marcher", "MipRayMarcher2"),
    **_plain_modules("training.volumetric_rendering.ray_sampler", "RaySampler"),
    **_plain_modules(
        "training.superresolution",
        "SuperresolutionHybrid2X",
        "SuperresolutionHybrid4X",
        "SuperresolutionHybrid8X",
        "SuperresolutionHybrid8XDC",
        "SuperresolutionHybridDeepfp32",
    ),
}


class _InertUnpickler(pickle.Unpickler):
    """Knows the names of `_KNOWN` and nothing else."""

    def __init__(self, file: BinaryIO, source: str) -> None:
        super().__init__(file)
        self.source = source

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith(("dnnlib.tflib", "tfutil")):
            raise CheckpointError(
                f"{self.source} is a checkpoint of the TensorFlow releases ({module}.{name});"
                " expected one of the PyTorch releases. NVIDIA offers most networks in both; the"
                " legacy.py of stylegan2-ada-pytorch converts your own."
            )
        if (module, name) not in _KNOWN:
            raise CheckpointError(
                f"{self.source} asks for {module}.{name}, which no official StyleGAN2 or EG3D"
                f" checkpoint needs; it is refused and nothing was run. {MEND}"
            )
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise CheckpointError(
            f"{self.source} refers to objects outside of itself, as parts of a torch.save file do;"
            " expected an official checkpoint."
        )


class _StorageUnpickler(pickle.Unpickler):
    """Knows the storage types of torch; gives back what a persistent id says."""

    def find_class(self, module: str, name: str) -> Any:
        if module != "torch" or name not in _STORAGES:
            raise ValueError(f"they ask for {module}.{name}, which is refused")
        return _STORAGES[name]

    def persistent_load(self, pid: Any) -> Any:
        return pid


def _storage_values(data: bytes) -> Tensor:
    """The numbers of a storage in torch.save's old stream format, one after another."""
    stream, parts = io.BytesIO(data), []
    for _ in range(5):  # magic number, protocol, machine, storage, keys
        start = stream.tell()
        check_pickle(stream)
        parts.append(_StorageUnpickler(io.BytesIO(data[start : stream.tell()])).load())
    _, _, machine, storage, keys = parts
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


@dataclass(frozen=True)
class OfficialModule:
    """One network or layer of a checkpoint.

    class_name: of the class that was saved
    init_args, init_kwargs: what its constructor was called with; empty if not recorded
    attributes: its remaining attributes; numpy numbers as Python's, whatever is no plain value
        stays an inert record, a tensor too (see `tensor_value`)
    children:   its child modules
    """

    class_name: str
    init_args: tuple
    init_kwargs: dict[str, Any]
    attributes: dict[str, Any]
    children: dict[str, OfficialModule]
    own_tensors: dict[str, _Record]

    def state_dict(self, source: str) -> dict[str, Tensor]:
        """Parameters and buffers under dotted names; CheckpointError naming `source` if damaged."""
        tensors = {
            name: tensor_value(record, f"{name} of a {self.class_name} in {source}")
            for name, record in self.own_tensors.items()
        }
        for child_name, child in self.children.items():
            tensors |= {f"{child_name}.{k}": v for k, v in child.state_dict(source).items()}
        return tensors


def read_official_pickle(path: str | Path) -> tuple[str, OfficialModule]:
    """The generator of an official .pkl: ("G_ema", module), or ("G", module) without G_ema.

    Raises:
        CheckpointError: (a ValueError) empty, truncated or renamed file, TensorFlow-era
            checkpoint, a pickle of something else, or one that asks for unknown names
    """
    path = Path(path)
    with path.open("rb") as file:
        _check_head(file.read(64), path)
        file.seek(0)
        try:
            check_pickle(file)
            file.seek(0)
            content = _InertUnpickler(file, str(path)).load()
        except CheckpointError:
            raise
        except PickleLimitError as error:
            raise CheckpointError(
                f"{path} is refused and nothing was built: {error}. An official checkpoint needs no"
                " such thing; is the file damaged, or no checkpoint? Fetch it again."
            ) from error
        except Exception as error:  # a damaged stream can raise nearly anything
            raise CheckpointError(
                f"{path} ({path.stat().st_size} bytes) is no whole pickle ({error}); an interrupted"
                " download or copy? Fetch it again."
            ) from error
    networks = content if isinstance(content, dict) else {}
    for key in ("G_ema", "G"):
        if isinstance(networks.get(key), _Record):
            try:
                return key, _Reading(path.stat().st_size).module(networks[key])
            except Exception as error:
                raise CheckpointError(
                    f"{key} of {path} is not laid out as in an official checkpoint ({error!r})."
                    f" {MEND}"
                ) from error
    raise CheckpointError(
        f"{path} holds {_describe(content)}, not a generator; expected the dict of an official"
        " checkpoint with a network under G_ema or G."
    )


def tensor_value(record: Any, what: str) -> Tensor:
    """Decodes the record of a tensor or parameter; CheckpointError naming `what` if it is damaged.

    The bytes must be a storage in torch.save's old stream format, the one that pickled tensors
    use; archives (zip, tar) are not opened.
    """
    try:
        return _decode(record.args[0] if isinstance(record, _Parameter) else record)
    except Exception as error:  # torch.load raises many kinds
        raise CheckpointError(f"{what} is no whole tensor ({error}); fetch it again.") from error


def _decode(record: Any) -> Tensor:
    if not isinstance(record, _Tensor):
        raise ValueError(f"{_describe(record)} came")
    storage, offset, size, stride = record.args[:4]
    if not isinstance(storage, _Storage) or not storage.args[0].startswith(_TORCH_STREAM):
        raise ValueError("its bytes are no storage in torch.save's stream format")
    if storage.state is None:
        storage.state = _storage_values(storage.args[0])
    flat = storage.state
    if math.prod(size) > flat.numel():
        raise ValueError(f"shape {tuple(size)} came with {flat.numel()} numbers")
    return flat.as_strided(size, stride, offset).clone(memory_format=torch.contiguous_format)


class _Reading:
    """Turns records into modules and plain values, as many as a file of `size` bytes can hold."""

    def __init__(self, size: int) -> None:
        self.values_left, self.numbers_left = _MAX_VALUES, size

    def module(self, record: _Record) -> OfficialModule:
        if isinstance(record, _PersistentObject):
            (meta,) = record.args
            if meta["type"] != "class":
                raise ValueError(f"a persistent object of type {meta['type']!r} came, not 'class'")
            class_name, state = str(meta["class_name"]), meta["state"]
        elif isinstance(record, _PlainModule):
            class_name, state = type(record).__name__, record.state
        else:
            raise ValueError(f"{_describe(record)} came where a module belongs")
        tensors = {**state["_parameters"], **state["_buffers"]}
        own_tensors = {k: v for k, v in tensors.items() if v is not None}
        for tensor in own_tensors.values():
            self._count_numbers(tensor)
        plain = self.plain
        return OfficialModule(
            class_name=class_name,
            init_args=tuple(plain(v) for v in state.get("_init_args", ())),
            init_kwargs={k: plain(v) for k, v in state.get("_init_kwargs", {}).items()},
            attributes={k: plain(v) for k, v in state.items() if not k.startswith("_")},
            children={k: self.module(v) for k, v in state["_modules"].items() if v is not None},
            own_tensors=own_tensors,
        )

    def plain(self, value: Any) -> Any:
        """Python's own values for numpy's and EasyDict's, all the way down."""
        self.values_left -= 1
        if self.values_left < 0:
            raise ValueError(f"its options unfold to more than {_MAX_VALUES} values")
        if isinstance(value, dict):
            return {k: self.plain(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.plain(v) for v in value)
        if isinstance(value, _NumpyScalar):
            kind, data = value.args
            if kind.args[0] not in _NUMPY_SCALARS:
                raise ValueError(f"a numpy scalar of type {kind.args[0]!r} came, not a number")
            return np.frombuffer(data, np.dtype(f"<{kind.args[0]}"))[0].item()
        return value

    def _count_numbers(self, record: _Record) -> None:
        """Views of one storage could unfold to more numbers than the file has bytes."""
        tensor = record.args[0] if isinstance(record, _Parameter) and record.args else record
        if isinstance(tensor, _Tensor) and len(tensor.args) > 2:
            self.numbers_left -= math.prod(tensor.args[2])
        if self.numbers_left < 0:
            raise ValueError("its tensors hold more numbers than the file has bytes")


def _check_head(head: bytes, path: Path) -> None:
    if not head:
        raise CheckpointError(f"{path} is empty; fetch it again.")
    found = next((what for magic, what in _FOREIGN if head.startswith(magic)), None)
    if head[5:9] == b"\0\0\0{":  # the end of the header's length, then the header
        found = "a safetensors file; name it .safetensors"
    if found or not head.startswith(b"\x80"):
        raise CheckpointError(
            f"{path} is {found or 'no pickle of protocol 2 or later'}; it begins with {head[:8]!r}."
            " Expected the .pkl of an official release."
        )


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        return f"a dict with the keys {reprlib.repr(list(content))}"
    return f"a {type(content).__name__.lstrip('_')}"
