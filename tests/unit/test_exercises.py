import numpy as np
import pytest

from dmgi_lib.exercises import check

MASK = np.zeros((10, 10), int)


@pytest.mark.parametrize(
    ("answer", "expected", "said"),
    [
        (None, 3, "No answer yet."),
        (3, 3, "Right."),
        (3.3, 3, "Close: 10.0 % off."),
        (5, 3, "Not yet. Divide."),
        ("many", 3, "Not yet: 'many' came; expected a number."),
        (MASK, MASK, "Right."),
        (
            MASK + (np.arange(10) < 1) * (np.arange(10) < 5)[:, None],
            MASK,
            "Close: 5.0 % of the pixels differ.",
        ),
        (MASK + 1, MASK, "Not yet. Divide."),
        (MASK[:3], MASK, "Not yet: the answer has the shape (3, 10), expected (10, 10)."),
    ],
)
def test_verdicts(answer, expected, said, capsys):
    check(answer, expected, "Divide.")
    assert capsys.readouterr().out == f"{said}\n"


def test_tolerance(capsys):
    check(8, 7, "Divide.", 0.2)
    check(9, 7, "Divide.", 0.2)
    assert capsys.readouterr().out == "Right.\nClose: 28.6 % off.\n"
