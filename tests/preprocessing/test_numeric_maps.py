"""Quantiles, bins and scales of weighted columns."""

import numpy as np
import pytest
from sklearn.preprocessing import QuantileTransformer, RobustScaler

from skstack.preprocessing._numeric_maps import (
    Distribution,
    robust_center_and_scale,
    tree_edges,
)

RNG = np.random.default_rng(0)
COLUMNS = {
    "normal": RNG.normal(size=400),
    "heavy tails": RNG.standard_cauchy(400),
    "one value dominates": np.where(RNG.random(400) < 0.92, 0.0, RNG.lognormal(size=400)),
    "few values": RNG.integers(4, size=400).astype(float),
    "far from zero": 1e4 + RNG.random(400),
}
WEIGHTS = RNG.integers(0, 4, size=400)


def _learned(column, target, weights):
    distribution = Distribution.of(column, weights)
    return [
        distribution.values[distribution.spread(17)],
        distribution.scores()[distribution.spread(17)],
        np.array(robust_center_and_scale(column, weights)),
        tree_edges(column, target, 8, classify=True, weights=weights),
        tree_edges(column, target - 0.3, 8, classify=False, weights=weights),
    ]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", COLUMNS)
def test_a_weight_of_two_counts_as_two_rows(name, seed):
    column = COLUMNS[name]
    noise = np.random.default_rng(seed).normal(size=400)
    target = (column + noise > np.median(column)).astype(int)
    weighted = _learned(column, target, WEIGHTS.astype(float))
    repeated = _learned(np.repeat(column, WEIGHTS), np.repeat(target, WEIGHTS), None)
    for one, other in zip(weighted, repeated, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", COLUMNS)
def test_edges_increase_and_reach_both_ends(name):
    column = COLUMNS[name]
    for n in (2, 3, 17, 65):
        values = Distribution.of(column).values
        edges = values[Distribution.of(column).spread(n)]
        assert 2 <= len(edges) <= n
        assert (np.diff(edges) > 0).all()
        assert (edges[0], edges[-1]) == (column.min(), column.max())
    edges = tree_edges(column, column > np.median(column), 8, classify=True)
    assert 3 <= len(edges) <= 9
    assert (edges[0], edges[-1]) == (column.min(), column.max())


def test_a_column_where_one_value_dominates_still_has_bins():
    column = COLUMNS["one value dominates"]
    edges = Distribution.of(column).values[Distribution.of(column).spread(17)]
    assert len(edges) == 17
    assert (edges > 0).sum() == 16


def test_few_values_are_all_edges():
    np.testing.assert_array_equal(Distribution.of(COLUMNS["few values"]).spread(17), range(4))


def test_a_constant_column_has_one_edge():
    assert Distribution.of(np.full(9, 3.0)).spread(17).tolist() == [0]
    assert tree_edges(np.full(9, 3.0), np.arange(9) % 2, 4, classify=True).tolist() == [3.0]


def test_scores_are_those_of_scikit_learn_but_for_ties():
    column = COLUMNS["heavy tails"]
    distribution = Distribution.of(column)
    reference = QuantileTransformer(n_quantiles=400, output_distribution="normal")
    reference = reference.fit_transform(column[:, None])[:, 0]
    inner = np.abs(reference) < 2
    scores = np.interp(column, distribution.values, distribution.scores())
    np.testing.assert_allclose(scores[inner], reference[inner], atol=0.02)
    assert np.abs(scores).max() < 3.2  # those of the extremes of 400 rows


def test_thresholds_follow_the_target():
    column = COLUMNS["normal"]
    for step in (-0.7, 0.4):
        edges = tree_edges(column, column > step, 8, classify=True)
        assert len(edges) == 3
        assert abs(edges[1] - step) < 0.05


@pytest.mark.parametrize("classify", [True, False])
def test_one_bin_needs_no_tree(classify):
    column = COLUMNS["normal"]
    edges = tree_edges(column, (column > 0).astype(int), 1, classify=classify)
    assert edges.tolist() == [column.min(), column.max()]


def test_robust_scales_are_those_of_scikit_learn():
    column = np.arange(101.0) ** 2
    scaler = RobustScaler().fit(column[:, None])
    center, scale = robust_center_and_scale(column)
    assert (center, scale) == (scaler.center_[0], scaler.scale_[0])


@pytest.mark.parametrize(
    ("column", "expected"),
    [([0, 0, 0, 0, 0, 0, 8], (0, 4)), ([5, 5, 5], (5, np.inf))],
)
def test_equal_quartiles_give_half_the_range(column, expected):
    assert robust_center_and_scale(np.array(column, float)) == expected


def test_slopes_between_the_smallest_numbers_are_finite():
    distribution = Distribution.of(np.repeat([-1.0, 0.0, 1e-43, 1e-40, 1.0], 3))
    edges = distribution.values[distribution.spread(6)]
    assert np.isfinite((1 / np.diff(edges)).astype(np.float32)).all()
    assert len(edges) == 3
