import math

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from skstack.preprocessing._column_profile import weighted_moments


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_moments_are_those_of_standard_scaler(rng):
    X = rng.normal(3, 2, size=(500, 4)).astype(np.float32)
    weights = rng.integers(0, 4, 500).astype(float)
    mean, scale = weighted_moments(X, weights)
    reference = StandardScaler().fit(X.astype(np.float64), sample_weight=weights)
    assert mean.dtype == scale.dtype == np.float64
    np.testing.assert_allclose(mean, reference.mean_, rtol=1e-12)
    np.testing.assert_allclose(scale, reference.scale_, rtol=1e-12)
    mean, scale = weighted_moments(X)
    np.testing.assert_allclose(mean, X.mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(scale, X.std(0, dtype=np.float64), rtol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_weighted_equals_repeated(rng, offset):
    X = rng.normal(size=(300, 3)) + offset
    weights = rng.integers(0, 5, 300)
    for one, other in zip(
        weighted_moments(X, weights), weighted_moments(np.repeat(X, weights, axis=0)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    np.testing.assert_allclose(
        weighted_moments(X, weights * 0.1)[1], weighted_moments(X, weights)[1]
    )


def test_rows_of_weight_zero_have_no_influence(rng):
    X = rng.normal(size=(20, 2))
    spoilt = np.vstack([X, [[np.nan, 1e300]]])
    one, other = weighted_moments(spoilt, np.r_[np.ones(20), 0]), weighted_moments(X)
    np.testing.assert_array_equal(one, other)


def test_large_offsets_do_not_reduce_precision(rng):
    X = rng.integers(-50, 50, size=(200_000, 2)).astype(np.float64)
    mean, scale = weighted_moments(X + 1e9)
    np.testing.assert_allclose(scale, X.std(0), rtol=1e-12)
    np.testing.assert_allclose(mean - 1e9, X.mean(0), atol=1e-6)
    X = rng.normal(1e9, 1, size=(200_000, 1))
    exact = math.fsum(X[:, 0]) / len(X)
    assert abs(weighted_moments(X)[0][0] - exact) <= np.spacing(1e9)


def test_more_rows_than_one_chunk(rng, monkeypatch):
    X, weights = rng.normal(size=(25, 2)), rng.random(25)
    whole = weighted_moments(X, weights)
    monkeypatch.setattr("skstack._base.disk_table.BLOCK_ROWS", 7)
    np.testing.assert_allclose(weighted_moments(X, weights), whole, rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, 5.0, 0.1, 1e15, 1e-15, -3e7])
def test_constant_columns_have_scale_one(value):
    X = np.full((1000, 1), value)
    weights = np.linspace(0.1, 1, 1000)
    for given in (None, weights):
        mean, scale = weighted_moments(X, given)
        assert scale == 1
        np.testing.assert_allclose(mean, value, rtol=1e-12)


def test_columns_constant_up_to_rounding_have_scale_one():
    X = np.full((1000, 2), 1e8)
    X[::2] = np.nextafter(1e8, np.inf)
    X[::2, 1] = 1e8 + 10
    assert weighted_moments(X)[1].tolist() == [1.0, 5.0]


def test_a_small_spread_is_not_constant(rng):
    X = rng.normal(size=(100, 1)) * 1e-12
    np.testing.assert_allclose(weighted_moments(X)[1], X.std(0))


def test_time_steps_count_as_rows(rng):
    X, weights = rng.normal(size=(6, 5, 3)), np.array([1, 2, 0, 1, 1, 3.0])
    np.testing.assert_allclose(
        weighted_moments(X, weights),
        weighted_moments(X.reshape(-1, 3), np.repeat(weights, 5)),
        rtol=1e-12,
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [([0, 0], "positive weight"), ([1], "shape"), ([[1, 1]], "shape"), ([2, -1], "negative")],
)
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        weighted_moments(np.eye(2), weights)


def test_nothing_is_changed(rng):
    X, weights = rng.normal(size=(5, 2)), np.ones(5)
    before = X.copy()
    weighted_moments(X, weights)
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(weights, 1)
