"""Targets in their own units, several targets, weights and given models of ``KerasRegressor``."""

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes
from sklearn.model_selection import GridSearchCV, cross_val_score

from skstack import KerasRegressor
from skstack.networks import MLP

X, y = load_diabetes(return_X_y=True)


def quick(**parameters):
    return KerasRegressor(**{"epochs": 20, "random_state": 0, **parameters})


def test_it_explains_rows_that_it_has_not_seen():
    assert cross_val_score(quick(epochs=30), X, y, cv=3).min() > 0.3


@pytest.mark.parametrize(("factor", "shift"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 1e6)])
def test_units_of_the_target_do_not_matter(factor, shift):
    plain = quick().fit(X, y).predict(X)
    scaled = quick().fit(X, y * factor + shift).predict(X)
    tolerance = 0.5 + (np.finfo(np.float32).eps * shift)
    np.testing.assert_allclose((scaled - shift) / factor, plain, atol=tolerance)


def test_a_constant_target_is_predicted():
    np.testing.assert_allclose(quick().fit(X, np.full(len(X), 7.0)).predict(X), 7.0, atol=0.5)


def test_shapes_follow_those_of_the_target():
    both = np.column_stack([y, -1000 * y])
    for target, shape in ((y, (442,)), (y[:, None], (442,)), (both, (442, 2))):
        if target.shape == (442, 1):
            continue
        regressor = quick(epochs=2).fit(X, target)
        assert regressor.predict(X).shape == shape
        assert regressor.predict(X[:1]).shape == (1, *shape[1:])
        np.testing.assert_allclose(
            regressor.model_.predict(X, verbose=0).reshape(shape),
            regressor.predict(X),
            rtol=1e-3,
            atol=1e-2,
        )


def test_several_targets_of_unlike_units_are_all_learned():
    both = np.column_stack([y, 1e5 * X[:, 2]])
    predicted = quick(epochs=40).fit(X, both).predict(X)
    residual = ((both - predicted) ** 2).mean(axis=0) / both.var(axis=0)
    assert (residual < 0.6).all()


def test_a_weight_is_a_number_of_copies():
    times = np.random.default_rng(0).integers(1, 4, size=len(y))
    exact = {"batch_size": 10_000, "learning_rate": 0.01}
    weighted = quick(**exact).fit(X, y, sample_weight=times).predict(X)
    repeated = quick(**exact).fit(np.repeat(X, times, axis=0), np.repeat(y, times)).predict(X)
    np.testing.assert_allclose(weighted, repeated, atol=1e-3 * y.std())


def test_losses_and_optimizers_in_a_grid():
    grid = {"loss": ["mae", "huber"], "optimizer": ["adam", "rmsprop"], "learning_rate": [0.01]}
    search = GridSearchCV(quick(), grid, cv=2).fit(X, y)
    assert search.best_score_ > 0.3


def test_early_stopping_on_rows_passed_speaks_of_the_rows_passed():
    regressor = quick(epochs=300, n_iter_no_change=3, learning_rate=0.01)
    regressor.fit(X[:300], y[:300], X_val=X[300:], y_val=y[300:])
    assert regressor.n_iter_ < 300
    assert len(regressor.validation_scores_) == regressor.n_iter_
    residual = (regressor.predict(X[300:]) - y[300:]) / y[:300].std()
    assert -max(regressor.validation_scores_) == pytest.approx(np.mean(residual**2), rel=1e-2)


def test_given_models_are_continued_in_the_targets_units(tmp_path):
    first = quick().fit(X, y)
    path = tmp_path / "model.keras"
    first.model_.save(path)
    for model in (first.model_, str(path), path):
        continued = quick(model=model, epochs=1, learning_rate=1e-9).fit(X, y)
        np.testing.assert_allclose(continued.predict(X), first.predict(X), atol=0.5)
    template = keras.Sequential([keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    assert quick(model=template, learning_rate=0.01).fit(X * 20, y).score(X * 20, y) > 0.3
    assert not template.built


def test_warm_start_keeps_the_scale_of_the_target():
    regressor = quick(warm_start=True).fit(X, y)
    before = regressor.score(X, y)
    assert regressor.fit(X[:100], y[:100]).score(X, y) > before - 0.2


def test_mixed_columns_and_integer_targets():
    frame = pd.DataFrame({"bmi": X[:, 2], "sex": np.where(X[:, 1] > 0, "f", "m")})
    regressor = quick(model=MLP((16,)), learning_rate=0.01).fit(frame, y.astype(int))
    assert regressor.predict(frame).dtype == np.float64
    assert regressor.score(frame, y) > 0.3
