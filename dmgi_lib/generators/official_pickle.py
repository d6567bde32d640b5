"""Reads the official .pkl checkpoints of StyleGAN2 and EG3D as data, without running any of them.

Such a file is a pickled dict with `G`, `D`, `G_ema`, ... Each network is a call of
`torch_utils.persistence._reconstruct_persistent_obj(meta)`; `meta` holds the source text of the
network's class and its `state`: the constructor's arguments, parameters, buffers and child modules
of the same kind. The official reader runs that source text. This one ignores it: a pickle's only
way to code is the names it asks for, and here every known name stands for an inert record, every
other name is refused (`pickle_reader`). A tensor's numbers are a pickle of the same kind with raw
bytes behind it.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dmgi_lib.generators.pickle_reader import PickleReader, Record, RecordDict
from dmgi_lib.generators.pickled_tensors import (
    TORCH_STREAM,
    CheckpointError,
    StorageRecord,
    TensorRecord,
    describe,
    size_of,
    tensor_value,
)

MEND = (
    "If you trust the file, open it once in the repository that wrote it and save"
    " G_ema.state_dict() as .safetensors, which load_generator reads."
)
_MAX_VALUES = 100_000  # that a checkpoint's options and modules may unfold to
_FOREIGN = (
    (TORCH_STREAM, "a file of torch.save"),
    (b"PK\x03\x04", "a zip archive, such as torch.save writes"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"<", "a web page, perhaps the error page of a download"),
    (b"version https://git-lfs", "a pointer of git-lfs, not the file itself (run `git lfs pull`)"),
)
_NUMPY_SCALARS = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1")


class _PersistentObject(Record): ...


class _Parameter(Record): ...


class _NumpyScalar(Record): ...


class _Unread(Record):
    """What a network's images do not depend on, and numpy's types."""


class _PlainModule(Record):
    """A module whose class the file names instead of carrying its source."""


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): RecordDict,
    ("builtins", "set"): _Unread,
    ("dnnlib.util", "EasyDict"): RecordDict,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _PersistentObject,
    ("torch._utils", "_rebuild_tensor_v2"): TensorRecord,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch.storage", "_load_from_bytes"): StorageRecord,
    # gains such as np.sqrt(2) among a layer's attributes
    ("numpy", "dtype"): _Unread,
    ("numpy", "ndarray"): _Unread,
    ("numpy.core.multiarray", "scalar"): _NumpyScalar,
    ("numpy.core.multiarray", "_reconstruct"): _Unread,
}
# Homes of EG3D's modules without recorded source. A record runs nothing, whatever its name.
_MODULES = (
    *("torch.nn.modules.activation", "torch.nn.modules.container"),
    *("training.triplane", "training.superresolution", "training.volumetric_rendering.renderer"),
    *("training.volumetric_rendering.ray_marcher", "training.volumetric_rendering.ray_sampler"),
)


class _CheckpointReader(PickleReader):
    """Knows the names of `_KNOWN` and nothing else."""

    def __init__(self, file: Any, source: str) -> None:
        super().__init__(file)
        self.source = source

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith(("dnnlib.tflib", "tfutil")):
            raise CheckpointError(
                f"{self.source} is a checkpoint of the TensorFlow releases ({module}.{name});"
                " expected one of the PyTorch releases. NVIDIA offers most networks in both; the"
                " legacy.py of stylegan2-ada-pytorch converts your own."
            )
        if module in _MODULES:
            return type(name, (_PlainModule,), {})
        known = _KNOWN.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise CheckpointError(
                f"{self.source} asks for {module}.{name}, which no official StyleGAN2 or EG3D"
                f" checkpoint needs; it is refused and nothing was run. {MEND}"
            )
        return known

    def persistent_load(self, pid: Any) -> Any:
        raise CheckpointError(
            f"{self.source} refers to objects outside of itself, as parts of a torch.save file do;"
            " expected an official checkpoint."
        )


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
    own_tensors: dict[str, Record]

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
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:  # knows its end
                content = _CheckpointReader(data, str(path)).load()
        except CheckpointError:
            raise
        except Exception as error:  # a damaged stream can raise nearly anything
            raise CheckpointError(
                f"{path} ({path.stat().st_size} bytes) is no whole pickle of an official"
                f" checkpoint ({error!r}); an interrupted download or copy? Fetch it again."
            ) from error
    networks = content if isinstance(content, dict) else {}
    for key in ("G_ema", "G"):
        if isinstance(networks.get(key), Record):
            try:
                return key, _Reading(path.stat().st_size).module(networks[key])
            except Exception as error:
                raise CheckpointError(
                    f"{key} of {path} is not laid out as in an official checkpoint ({error!r})."
                    f" {MEND}"
                ) from error
    raise CheckpointError(
        f"{path} holds {describe(content)}, not a generator; expected the dict of an official"
        " checkpoint with a network under G_ema or G."
    )


class _Reading:
    """Turns records into modules and plain values, as many as a file of `size` bytes can hold."""

    def __init__(self, size: int) -> None:
        self.values_left, self.numbers_left = _MAX_VALUES, size

    def module(self, record: Record) -> OfficialModule:
        if isinstance(record, _PersistentObject):
            (meta,) = record.args
            if meta["type"] != "class" or not isinstance(meta["class_name"], str):
                raise ValueError("a persistent object that is no class came")
            class_name, state = meta["class_name"], meta["state"]
        elif isinstance(record, _PlainModule):
            class_name, state = type(record).__name__, record.state
        else:
            raise ValueError(f"{describe(record)} came where a module belongs")
        tensors = {**state["_parameters"], **state["_buffers"]}
        own_tensors = {k: self._tensor(v) for k, v in tensors.items() if v is not None}
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
                raise ValueError("a numpy scalar came that is no number")
            return np.frombuffer(data, np.dtype(f"<{kind.args[0]}"))[0].item()
        return value

    def _tensor(self, record: Any) -> Any:
        """The tensor of a parameter or buffer; views could hold more numbers than the file."""
        tensor = record.args[0] if isinstance(record, _Parameter) and record.args else record
        if isinstance(tensor, TensorRecord) and len(tensor.args) > 2:
            self.numbers_left -= math.prod(size_of(tensor))
        if self.numbers_left < 0:
            raise ValueError("its tensors hold more numbers than the file has bytes")
        return tensor


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
