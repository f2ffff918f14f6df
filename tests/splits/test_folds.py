"""Folds on which the downstream of a stack is scored."""

import numpy as np
import pytest
from sklearn.model_selection import TimeSeriesSplit

from skstack._splits.folds import scored_folds


def pairs_of(*sizes):
    numbers = np.repeat(np.arange(len(sizes)), sizes)
    return [(np.flatnonzero(numbers != k), np.flatnonzero(numbers == k)) for k in range(len(sizes))]


@pytest.mark.parametrize(
    ("sizes", "scored"),
    [
        ((30,) * 5, (0, 1, 2, 3, 4)),
        ((2_000,) * 5, (1, 3)),
        ((1_500,) * 5, (0, 2, 4)),
        ((4_000,) * 5, (2,)),
        ((9_000,) * 2, (1,)),
        ((9_000, 100, 100, 100, 9_000), (0, 2, 4)),  # the middle one, or two, hold too few rows
    ],
)
def test_as_many_folds_are_scored_as_hold_4000_rows(sizes, scored):
    assert scored_folds([pairs_of(*sizes)]) == [scored]


def test_all_folds_of_repeats_and_of_ordered_rows_are_scored():
    pairs = pairs_of(9_000, 9_000, 9_000)
    assert scored_folds([pairs, pairs]) == [(0, 1, 2)] * 2
    ordered = list(TimeSeriesSplit(3).split(np.zeros(40_000)))
    assert scored_folds([ordered]) == [(0, 1, 2)]


def test_the_scored_folds_hold_each_class():
    pairs = pairs_of(*[2_000] * 10)
    rows = np.arange(20_000)
    assert scored_folds([pairs]) == [(2, 7)]
    assert scored_folds([pairs], rows >= 10_000) == [(2, 7)]
    assert scored_folds([pairs], rows >= 17_000) == [(1, 5, 8)]  # until fold 8 is one
    several = np.column_stack([rows >= 10_000, rows >= 17_000, rows >= 0])
    assert scored_folds([pairs], several) == [(1, 5, 8)]
    weights = np.where(rows < 18_000, 1.0, 0.0)  # nothing of fold 9 counts
    assert scored_folds([pairs], rows >= 17_000, weights) == [(1, 5, 8)]
    weights[rows // 2_000 == 8] = 0.0
    assert scored_folds([pairs], rows >= 14_000, weights) == [(2, 7)]
    assert scored_folds([pairs], rows >= 17_000, weights) == [(2, 7)]  # that class counts nowhere
