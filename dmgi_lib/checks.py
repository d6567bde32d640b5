"""Values that users give, checked: what came, what was expected."""

from __future__ import annotations

import reprlib
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any


def one_of(name: str, value: Any, known: Collection[Any]) -> Any:
    """`value`, if it is among the known ones. Raises ValueError for all else."""
    if value not in known:
        raise ValueError(f"{name} came as {value!r}; expected one of {known}.")
    return value


def whole_number(name: str, value: Any, low: int, high: int) -> int:
    """An integer of any kind, NumPy's too, from low to high. Raises ValueError for all else."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not low <= int(value) <= high:
        came = reprlib.repr(value)
        raise ValueError(f"{name} came as {came}; expected a whole number from {low} to {high}.")
    return int(value)


def number(name: str, value: Any, low: float, high: float) -> float:
    """A finite number of any kind from low to high. Raises ValueError for all else."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not real or not low <= float(value) <= high:
        raise ValueError(f"{name} came as {value!r}; expected a number from {low:g} to {high:g}.")
    return float(value)
