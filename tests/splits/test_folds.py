"""Folds on which the downstream of a stack is scored."""

import numpy as np
import pytest
from sklearn.model_selection import TimeSeriesSplit

from skstack._splits import folds


def pairs_of(*sizes):
    numbers = np.repeat(np.arange(len(sizes)), sizes)
    return [(np.flatnonzero(numbers != k), np.flatnonzero(numbers == k)) for k in range(len(sizes))]


def scored_folds(*args):
    return [each.numbers for each in folds.scored_folds(*args)]


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


@pytest.mark.parametrize(
    ("sizes", "n_pairs", "partners"),
    [
        ((900,) * 2, 0, [0, 0]),  # without both nothing is left
        ((900,) * 3, 3, [2, 2, 2]),
        ((900,) * 4, 6, [3, 3, 3, 3]),
        ((90,) * 5, 10, [4] * 5),  # few rows
        ((100,) * 5, 5, [2] * 5),  # of ten
        ((100,) * 10, 20, [4] * 10),  # of 45
        ((1_500,) * 5, 5, [3, 3, 2]),  # of nine with fold 0, 2 or 4
        ((2_000,) * 5, 7, [4, 4]),  # all with fold 1 or 3
        ((4_000,) * 5, 4, [4]),
        ((100, 100, 100, 100, 400), 10, [4] * 5),  # folds of groups
    ],
)
def test_of_five_scored_folds_five_pairs_are_enough(sizes, n_pairs, partners):
    (scored,) = folds.scored_folds([pairs_of(*sizes)])
    assert len(set(scored.two)) == len(scored.two) == n_pairs
    others = [scored.others(number) for number in scored.numbers]
    assert [len(each) for each in others] == partners
    for number, each in zip(scored.numbers, others, strict=True):
        assert number not in each
        assert all(tuple(sorted((number, other))) in scored.two for other in each)
    (every,) = folds.scored_folds([pairs_of(*sizes)], all_pairs=True)
    assert set(scored.two) <= set(every.two)
    if len(sizes) > 2:
        assert {len(every.others(number)) for number in every.numbers} == {len(sizes) - 1}


def n_pairs(pairs, *args):
    (scored,) = folds.scored_folds([pairs], *args)
    return len(scored.two)


def test_all_pairs_are_needed_for_rare_classes():
    pairs, rows = pairs_of(*[100] * 5), np.arange(500)
    assert n_pairs(pairs, rows % 10 == 0) == 5  # 20 rows in two folds
    assert n_pairs(pairs, rows % 11 == 0) == 10
    assert n_pairs(pairs, rows < 100) == 10  # all in one fold
    assert n_pairs(pairs, np.column_stack([rows % 2, rows % 11 == 0])) == 10
    weights = np.where(rows % 11 == 0, 0.0, 1.0)
    assert n_pairs(pairs, rows % 11 == 0, weights) == 5  # that class counts nowhere
    assert n_pairs(pairs, rows % 10 == 0, np.where(rows == 0, 0.0, 1.0)) == 10


@pytest.mark.parametrize(("purged", "expected"), [(0, 5), (10, 5), (60, 10)])
def test_all_pairs_are_needed_if_neighbours_are_purged(purged, expected):
    rows, pairs = np.arange(500), []
    for start in range(0, 500, 100):
        near = np.arange(start - purged, start + 100 + purged)
        pairs.append((np.setdiff1d(rows, near), rows[start : start + 100]))
    assert n_pairs(pairs) == expected


def test_time_ordered_folds_are_in_no_pairs():
    (scored,) = folds.scored_folds([list(TimeSeriesSplit(5).split(np.zeros(60)))])
    assert scored == ((0, 1, 2, 3, 4), ())
