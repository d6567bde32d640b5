"""Reads a pickle as data: known names stand for inert records, all else is refused.

The standard library's plain Python reader, of which `PickleReader` knows only the opcodes that
pickle writes, and no more of them than a checkpoint needs. What makes a small file exhaust memory,
time or the stack is not there: sizes are bounded by the file, keys are never nested, and nothing is
copied.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

# Each network of a 1024 pixel checkpoint takes about 15,000, and a checkpoint holds three.
MAX_OPCODES = 100_000
# What pickle writes in protocols 2 to 4. Without LONG4, an integer has at most 255 bytes.
_WRITTEN = (
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "NONE", "NEWTRUE", "NEWFALSE"),
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS"),
    *("EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID"),
    *("BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT", "MEMOIZE"),
)
_KEYS = (str, int, float, bytes, type(None))


class Record:
    """Stands for the object that a known name would have built; keeps what it was given."""

    args: tuple
    state: Any

    def __new__(cls, *args):
        record = super().__new__(cls)
        record.args, record.state = args, None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state


class RecordDict(dict):
    """Stands for a dict of any kind. A nested tuple as a key would have to be hashed."""

    def __init__(self) -> None:
        super().__init__()

    def __setitem__(self, key: Any, value: Any) -> None:
        if not isinstance(key, _KEYS):
            raise pickle.UnpicklingError(f"a {type(key).__name__} as a key came")
        super().__setitem__(key, value)

    def __setstate__(self, state: dict[str, Any]) -> None:
        for key, value in state.items():
            self[key] = value


class _RecordSet(list):
    """Stands for a set."""

    add = list.append


class _Opcodes(dict):
    """Opcode → what the reader does; refuses unknown ones, and more than MAX_OPCODES."""

    def __init__(self, known: dict[int, Callable[[Any], None]]) -> None:
        super().__init__(known)
        self.left = MAX_OPCODES

    def __getitem__(self, opcode: int) -> Callable[[Any], None]:
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError(f"more than {MAX_OPCODES} opcodes came")
        if opcode not in self:
            raise pickle.UnpicklingError(f"the opcode {bytes([opcode])!r} came")
        return super().__getitem__(opcode)


def _known_opcodes() -> dict[int, Callable[[Any], None]]:
    inherited: dict[int, Callable[[Any], None]] = pickle._Unpickler.dispatch  # type: ignore[attr-defined]
    known = {code[0]: inherited[code[0]] for code in (getattr(pickle, n) for n in _WRITTEN)}
    known[pickle.EMPTY_DICT[0]] = lambda reader: reader.append(RecordDict())
    known[pickle.EMPTY_SET[0]] = lambda reader: reader.append(_RecordSet())
    return known


class PickleReader(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """Reads one pickle from where a file stands; afterwards the file stands behind it.

    Subclasses say in `find_class` which names they know.
    """

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.dispatch = _Opcodes(_known_opcodes())  # type: ignore[misc]
