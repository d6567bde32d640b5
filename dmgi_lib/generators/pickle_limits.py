"""Reads a pickle's opcodes and refuses what would exhaust memory, time or the stack when built.

Nothing is built here: every object is two numbers, its depth and the count of objects inside it. A
stream that passes costs at most `MAX_WORK` steps to unpickle, compare, hash, and walk.
"""

from __future__ import annotations

import os
import pickletools
from typing import Any, BinaryIO

# Each network of a 1024 pixel checkpoint in the official layout takes about 15,000 opcodes and less
# than 10^6 steps, and a checkpoint holds three.
MAX_OPCODES = 250_000
MAX_DEPTH = 200
MAX_WORK = 20_000_000
_MAX_INTEGER_BYTES = 64
_MAX_LINE = 10_000  # of an opcode in text form, such as a name

_MUTATORS = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_INTEGERS = {"INT", "LONG", "LONG1", "LONG4"}
_MARK = object()


class PickleLimitError(ValueError):
    """A pickle whose objects would be too many or too deep."""


class _WithinFile:
    """The file as genops reads it; never asks for more bytes than are left."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, start = file, file.tell()
        self.end = file.seek(0, os.SEEK_END)
        self.tell = file.tell
        file.seek(start)

    def left(self) -> int:
        return self.end - self.file.tell()

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self.left():
            raise ValueError(f"{count} bytes are announced, {self.left()} are left")
        return self.file.read(count)

    def readline(self) -> bytes:
        line = self.file.readline(_MAX_LINE)
        if len(line) == _MAX_LINE:
            raise PickleLimitError(f"a line of more than {_MAX_LINE} bytes came")
        return line


def check_pickle(file: BinaryIO) -> None:
    """Reads one pickle from where `file` stands; afterwards `file` stands behind it.

    Raises:
        PickleLimitError: more opcodes, depth or work than any official checkpoint needs, a or
            a memo index out of order
        Exception: of other kinds, if the stream is damaged, such as a ValueError for an announced
            length beyond the end of the file
    """
    stream = _WithinFile(file)
    stack: list[Any] = []
    memo: dict[int, list[int]] = {}
    work = 0
    opcodes: Any = pickletools.genops(stream)  # type: ignore[arg-type]
    for count, (op, argument, _) in enumerate(opcodes):
        if count > MAX_OPCODES:
            raise PickleLimitError(f"more than {MAX_OPCODES} opcodes came")
        name = op.name
        if name in _PUTS or name == "MEMOIZE":
            index = len(memo) if name == "MEMOIZE" else int(argument)
            if not 0 <= index <= count:
                raise PickleLimitError(f"memo index {index} came as opcode {count}")
            memo[index] = stack[-1]
            continue
        if name in _GETS:
            stack.append(memo[int(argument)])
            continue
        if name == "DUP" or (name == "POP" and stack[-1] is _MARK):
            stack.append(stack[-1]) if name == "DUP" else stack.pop()
            continue
        if name == "FRAME" and argument > stream.left():
            raise ValueError(f"a frame of {argument} bytes came, {stream.left()} are left")
        if name in _INTEGERS and argument.bit_length() > 8 * _MAX_INTEGER_BYTES:
            raise PickleLimitError(f"an integer of {argument.bit_length()} bits came")
        parts = _take(stack, op)
        work += sum(part[1] for part in parts)
        if name in _MUTATORS:
            target, *inside = parts
            target[0] = max(target[0], 1 + max((part[0] for part in inside), default=0))
            target[1] += sum(part[1] for part in inside)
            made = target
        else:
            depth = 1 + max((part[0] for part in parts), default=0)
            made = [depth, 1 + sum(part[1] for part in parts)]
        if made[0] > MAX_DEPTH:
            raise PickleLimitError(f"objects nested more than {MAX_DEPTH} deep came")
        if work > MAX_WORK:
            raise PickleLimitError(f"objects that hold more than {MAX_WORK} others came")
        stack += [_MARK if name == "MARK" else made] * len(op.stack_after)


def _take(stack: list[Any], op: pickletools.OpcodeInfo) -> list[list[int]]:
    """Pops what an opcode consumes: so many objects, and all above the last mark."""
    above: list[list[int]] = []
    below = len(op.stack_before)
    if pickletools.markobject in op.stack_before:
        below = op.stack_before.index(pickletools.markobject)
        while (top := stack.pop()) is not _MARK:
            above.append(top)
    parts = [stack.pop() for _ in range(below)]
    if any(part is _MARK for part in parts):
        raise PickleLimitError("a mark came where an object belongs")
    return parts[::-1] + above
