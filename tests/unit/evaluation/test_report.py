"""Intervals, columns and the files of a table."""

import numpy as np
import pytest
from tiny_evaluation import ground_truth, reading, tiny_judges

from dmgi_lib.evaluation.read import CLIP, COLUMNS, FID, read
from dmgi_lib.evaluation.report import (
    columns_of,
    interval,
    read_csv,
    score,
    summary,
    write_csv,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def by_hand(statistic, n, rng, centred):
    """The percentile bootstrap in five lines."""
    values = np.array([statistic(rng.integers(0, n, n)) for _ in range(50)])
    values = values[~np.isnan(values)]
    if centred:
        values += statistic(np.arange(n)) - np.median(values)
    return tuple(np.percentile(values, [2.5, 97.5]))


@pytest.mark.parametrize("centred", [False, True])
def test_draws_are_those_of_the_bootstrap_by_hand(centred):
    values = np.random.default_rng(1).normal(size=12)
    values[3] = -50.0

    def mean_without(rows):  # does not exist where sample 3 was drawn twice
        return np.nan if (np.asarray(rows) == 3).sum() > 1 else float(values[rows].mean())

    found = interval(mean_without, 12, rng(7), centred, resamples=50)
    assert found == by_hand(mean_without, 12, rng(7), centred)


def test_a_centred_interval_holds_the_value_of_a_statistic_that_repetition_biases():
    def distinct(rows) -> float:  # repetition always lowers it: about 0.63
        return len(set(rows.tolist())) / 100

    plain = interval(distinct, 100, rng())
    centred = interval(distinct, 100, rng(), centred=True)
    assert plain[1] < 0.8 < centred[0] < 1 < centred[1]
    assert centred[1] - centred[0] == pytest.approx(plain[1] - plain[0])


def test_one_sample_has_no_width_and_a_number_that_never_exists_no_interval():
    assert interval(lambda rows: 3.0, 1, rng()) == (3.0, 3.0)
    assert np.isnan(interval(lambda rows: np.nan, 5, rng())).all()


def test_columns_have_their_intervals():
    found = reading(right=0.8)
    row = summary(found, seed=0, resamples=50)
    assert row["N"] == 6 and set(COLUMNS) <= set(row)
    for column in COLUMNS:
        assert row[f"{column} low"] <= row[f"{column} high"]
    bare = summary(found, seed=0, resamples=0)
    assert bare == {k: v for k, v in row.items() if not k.endswith((" low", " high"))}
    shown = columns_of(row)
    assert list(shown)[:4] == ["N", FID, f"{FID} low", f"{FID} high"]
    assert len(shown) == 1 + 3 * len(COLUMNS)


def test_a_score_is_a_reading_summed_up():
    truth, judged = ground_truth(3), tiny_judges()
    row = score(truth.images, truth, judged, seed=0, resamples=0)
    assert row == summary(read(truth.images, truth, judged), 0, resamples=0)
    assert CLIP not in row


def test_a_table_comes_back_from_its_file(tmp_path):
    rows = [
        {"key": "a", "row": "one, two", "N": 4, "SSIM": 0.12345678, "seconds a face": None},
        {"key": "b", "row": "three", "N": 2, "SSIM": 1.0, "seconds a face": 1e-7, "extra": 3.0},
    ]
    write_csv(tmp_path / "deep" / "t.csv", ["first, line", "second"], rows)
    assert (tmp_path / "deep" / "t.csv").read_text() == (
        "# first, line\n# second\nkey,row,N,SSIM,seconds a face,extra\n"
        'a,"one, two",4,0.123457,,\nb,three,2,1,1e-07,3\n'
    )
    lines, found = read_csv(tmp_path / "deep" / "t.csv")
    assert lines == ["first, line", "second"]
    assert found == [
        {"key": "a", "row": "one, two", "N": 4, "SSIM": 0.123457},
        {"key": "b", "row": "three", "N": 2, "SSIM": 1.0, "seconds a face": 1e-7, "extra": 3.0},
    ]
