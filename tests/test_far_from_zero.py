"""Columns, features and targets so far from 0 that float32 loses their differences."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import RobustScaler, StandardScaler

from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasRegressor,
)
from skstack.networks import MLP
from skstack.preprocessing._column_profile import lost_in_float32

N = 200
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3))
Y = X @ [1.0, 2.0, 3.0] + 0.1 * RNG.normal(size=N)
FAR = 1e9
SECONDS = X + np.array([0.0, 0.0, 1.7e9])
FRAME = pd.DataFrame(SECONDS, columns=["a", "b", "time"])


class Shifted(BaseEstimator):
    """A custom transformer that returns float64."""

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return np.asarray(X, dtype=np.float64) + FAR


def network(kind=KerasRegressor, **settings):
    recipe = None if kind is KerasAutoencoder else MLP(hidden_layer_sizes=(16,))
    return kind(recipe, **{"epochs": 2, "random_state": 0, **settings})


BRANCHES = {
    "scikit-learn": LinearRegression(),
    "network": network(epochs=20),
    "mean of folds": KerasFeatureTransformer(LinearRegression(), refit=False, cv=2),
    "pipeline": make_pipeline(StandardScaler(), LinearRegression()),
    "transformer": Shifted(),
    "near 0": PCA(2),
    "steps": make_pipeline(
        Shifted(),
        KerasFeatureTransformer(make_pipeline(StandardScaler(), Ridge()), passthrough=True),
    ),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_features_keep_their_precision_until_they_are_scaled(name):
    """Far targets are learned like near ones: the table of the downstream is the same."""

    def fitted(far):
        stack = StackedKerasRegressor(
            [("branch", clone(BRANCHES[name]))],
            downstream=LinearRegression(), passthrough=False, cv=2, random_state=0,
        )  # fmt: skip
        return stack.fit(X, Y + far)

    near, far = fitted(0.0), fitted(FAR)
    table = far.transform(X)
    assert table.dtype == np.float32
    np.testing.assert_allclose(table, near.transform(X), atol=2e-3)
    np.testing.assert_allclose(far.predict(X) - FAR, near.predict(X), atol=5e-3)
    one = far.predict(X[:1])
    np.testing.assert_allclose(one, far.predict(X)[:1], rtol=1e-15)


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("scaler", ["standard", RobustScaler()])
def test_passthrough_columns_keep_their_precision(words, scaler):
    table = FRAME.assign(job=np.resize(["vet", "cook"], N)) if words else SECONDS
    stack = StackedKerasRegressor(
        [("one", LinearRegression(), [0])],
        downstream=network(epochs=30), scaler=scaler, passthrough=[2, 3] if words else [2],
        cv=2, random_state=0,
    ).fit(table, Y)  # fmt: skip
    made = stack.transform(table)
    time = made["time"] if words else made[:, 1]
    assert str(time.dtype) == "float32"
    spread = np.std(time)
    np.testing.assert_allclose(time - time.mean(), X[:, 2] * spread / X[:, 2].std(), atol=0.7)
    assert len(np.unique(np.asarray(time))) == N
    assert np.corrcoef(time, X[:, 2])[0, 1] > 0.999999
    assert stack.score(table, Y) > 0.6  # the second column is left out


@pytest.mark.parametrize("steps", [20.0, 1000.0])
def test_a_column_is_lost_if_its_deviation_is_few_steps(steps):
    """At the bound, with one value that differs, missing and huge values, and as integers."""
    last = np.arange(N) == N - 1
    far, step = 2.0**30, 2.0**7
    wide = steps * step * np.sqrt(N / 2)  # two values, each in a half of the rows, are 2 apart
    columns = {
        "below": (far + 1.9 * steps * step * (np.arange(N) % 2), True),
        "above": (far + 2.1 * steps * step * (np.arange(N) % 2), False),
        "negative": (-far - 1.9 * steps * step * (np.arange(N) % 2), True),
        "one value below": (far + 0.9 * np.sqrt(2) * wide * last, True),
        "one value above": (far + 1.1 * np.sqrt(2) * wide * last, False),
        "constant": (np.full(N, far), False),
        "missing": (np.where(last, np.nan, far + 1.9 * steps * step * (np.arange(N) % 2)), True),
        "infinite": (np.where(last, -np.inf, far + 2.1 * steps * step * (np.arange(N) % 2)), False),
        "unknown": (np.full(N, np.nan), False),
        "huge": (np.where(last, 1e300, 0.0), False),
    }
    table = np.column_stack([column for column, _ in columns.values()])
    lost = dict(zip(columns, lost_in_float32(table, steps), strict=True))
    assert lost == {name: expected for name, (_, expected) in columns.items()}
    whole = (far + 1.9 * steps * step * (np.arange(N) % 2)).astype(np.int64)[:, None]
    assert lost_in_float32(whole, steps).all()
    assert not lost_in_float32(whole.astype(np.float32), steps).any()
    assert not lost_in_float32(table[:0], steps).any()


def test_ordinary_tables_stay_in_float32():
    """Years, prices and clicks do not need float64."""
    table = np.c_[RNG.integers(1990, 2025, N), RNG.lognormal(3, 2, N), RNG.integers(0, 2, N)]
    assert not lost_in_float32(table).any()
    stack = StackedKerasRegressor(
        [("one", LinearRegression())], downstream=Ridge(), cv=2, random_state=0
    ).fit(table, Y)
    by_hand = stack.named_upstream_["one"].transform(table)
    assert by_hand.dtype == np.float32
    both = np.hstack([by_hand, table.astype(np.float32)])
    np.testing.assert_array_equal(stack.transform(table), stack.scaler_.transform(both))
    assert stack.scaler_.mean_.dtype == np.float64


# Where float32 cannot be avoided a warning names the column ------------------------------------


@pytest.mark.parametrize(
    ("fit", "message"),
    [
        (lambda: network().fit(SECONDS, Y), "Column 'x2' has the mean 1700000000"),
        (lambda: network().fit(FRAME, Y), "Column 'time'.*StandardScaler before the network"),
        (lambda: network().fit(FRAME.astype(object), Y), "Column 'time'"),
        (lambda: network(KerasClassifier).fit(FRAME, Y > 0), "Column 'time'"),
        (lambda: network(KerasAutoencoder).fit(FRAME), "Column 'time'"),
        (
            lambda: network().fit(FRAME.assign(time=1_700_000_000 + np.arange(N) // 9), Y),
            "Column 'time'",
        ),
        (
            lambda: StackedKerasRegressor(
                [("net", network())], downstream=Ridge(), cv=2, n_jobs=2
            ).fit(FRAME, Y),
            "Column 'time'",
        ),
        (
            lambda: StackedKerasRegressor(
                [("one", LinearRegression(), [0])], scaler=None, downstream=network(), cv=2
            ).fit(SECONDS, Y),
            "Column 'x3'",
        ),
        (
            lambda: KerasFeatureTransformer(LinearRegression(), cv=2).fit_transform(X, Y + FAR),
            "Column 'prediction' has the mean.*transform returns float32",
        ),
        (
            lambda: KerasFeatureTransformer(Ridge(), cv=2, passthrough=True).fit_transform(
                FRAME, Y
            ),
            "Column 'time'.*transform returns float32",
        ),
    ],
)
def test_precision_lost_in_float32_warns_once(fit, message):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit()
    assert len(caught) == 1
    assert re.search(message, str(caught[0].message))


def test_scaled_and_constant_columns_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_pipeline(StandardScaler(), network()).fit(SECONDS, Y)
        network().fit(np.c_[X, np.full(N, 1.7e9)], Y)
        network().fit(X * 1e-12, Y)


def test_a_network_warns_that_its_inputs_are_float32():
    stack = StackedKerasRegressor(
        [("one", network(), [0])], downstream=network(), passthrough=[2], cv=2, random_state=0
    ).fit(SECONDS, Y)
    with pytest.warns(UserWarning, match="float32"):
        stack.to_keras()
