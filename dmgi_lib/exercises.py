"""Says of an answer to a notebook's exercise whether it is right, close, or what to think of."""

from __future__ import annotations

from typing import Any

import numpy as np

CLOSE = 0.1  # of the pixels, or of a number


def check(answer: Any, expected: Any, hint: str, tolerance: float = 0.0) -> None:
    """Prints a verdict.

    Args:
        answer: a number, or an array such as a mask; None is "no answer yet".
        expected: of the same kind.
        hint: for an answer that is neither right nor close.
        tolerance: relative error up to which a number is right.
    """
    if answer is None:
        print("No answer yet.")
        return
    given, wanted = (np.asarray(x.cpu() if hasattr(x, "cpu") else x) for x in (answer, expected))
    if given.shape != wanted.shape:
        print(f"Not yet: the answer has the shape {given.shape}, expected {wanted.shape}.")
        return
    try:
        if wanted.ndim:
            error = float((given != wanted).mean())
        else:
            error = abs(float(given) - float(wanted)) / max(abs(float(wanted)), 1e-9)
    except (TypeError, ValueError):
        print(f"Not yet: {answer!r} came; expected a number.")
        return
    if error <= tolerance:
        print("Right.")
    elif error <= max(CLOSE, 2 * tolerance):
        kind = "of the pixels differ" if wanted.ndim else "off"
        print(f"Close: {100 * error:.1f} % {kind}.")
    else:
        print(f"Not yet. {hint}")
