"""Pickle, joblib and deep copies; the same bits in a fresh process; reproducible fits."""

import copy
import pickle
import random

import joblib
import keras
import numpy as np
import pytest
from _fresh import run
from _models import SMALL
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer

from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack.networks import MLP, Autoencoder

X, y = load_breast_cancer(return_X_y=True)
X, y = X[:150].astype(np.float32), y[:150]

FRESH = """
import sys, joblib, numpy as np
X = np.load(sys.argv[1])
for path in sys.argv[2:]:
    estimator, method, expected = joblib.load(path)
    np.testing.assert_array_equal(getattr(estimator, method)(X), expected)
print("same bits", len(sys.argv) - 2)
"""


def estimators(folder):
    model = keras.Sequential(
        [keras.Input((30,)), keras.layers.Dense(4, name="enc"), keras.layers.Dense(30)]
    )
    path = str(folder / "model.keras")
    model.save(path)
    dropped = MLP(hidden_layer_sizes=(8,), dropout=0.2)
    return {
        "classifier": (KerasClassifier(dropped, epochs=3), "predict_proba"),
        "regressor": (KerasRegressor(SMALL, epochs=2), "predict"),
        "autoencoder": (KerasAutoencoder(Autoencoder((4,)), epochs=2), "reconstruction_error"),
        "trained": (KerasFeatureTransformer(KerasClassifier(SMALL, epochs=2), cv=2), "transform"),
        "frozen": (KerasFeatureTransformer(path, layers="enc"), "transform"),
        "stack": (
            StackedKerasClassifier(
                [("risk", KerasClassifier(SMALL, epochs=2)), ("legacy", path), ("shared", model)],
                downstream=KerasClassifier(SMALL, epochs=2),
                cv=2,
            ),
            "predict_proba",
        ),
        "stacked regressor": (
            StackedKerasRegressor(
                KerasAutoencoder(Autoencoder((4,)), epochs=2),
                downstream=KerasRegressor(SMALL, epochs=2),
                cv=2,
            ),
            "predict",
        ),
    }


def test_everything_works_after_pickle_joblib_deepcopy_and_in_a_fresh_process(tmp_path):
    np.save(tmp_path / "X.npy", X)
    paths = []
    for name, (estimator, method) in estimators(tmp_path).items():
        unfitted = pickle.loads(pickle.dumps(estimator))
        assert unfitted.get_params(deep=False).keys() == estimator.get_params(deep=False).keys()
        estimator.set_params(random_state=0).fit(X, y)
        expected = getattr(estimator, method)(X)
        for again in (pickle.loads(pickle.dumps(estimator)), copy.deepcopy(estimator)):
            np.testing.assert_array_equal(getattr(again, method)(X), expected, err_msg=name)
        paths.append(str(tmp_path / f"{name}.joblib"))
        joblib.dump((estimator, method, expected), paths[-1])
    assert f"same bits {len(paths)}" in run(FRESH, tmp_path / "X.npy", *paths)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_an_int_seed_gives_the_same_bits_whatever_ran_before(dropout):
    classifier = KerasClassifier(MLP((8,), dropout=dropout), epochs=3, random_state=7)
    random.seed(0)
    first = clone(classifier).fit(X, y).predict_proba(X)
    random.seed(1)
    KerasRegressor(SMALL, epochs=1).fit(X, y)
    clone(classifier).set_params(random_state=8).fit(X, y)
    np.testing.assert_array_equal(clone(classifier).fit(X, y).predict_proba(X), first)


def test_without_a_seed_fits_differ():
    classifier = KerasClassifier(SMALL, epochs=1)
    assert (classifier.fit(X, y).predict_proba(X) != classifier.fit(X, y).predict_proba(X)).any()


def test_a_stack_with_a_seed_gives_the_same_bits():
    stack = StackedKerasClassifier(
        [("risk", KerasClassifier(SMALL, epochs=2))],
        downstream=KerasClassifier(SMALL, epochs=2),
        cv=2,
    ).set_params(random_state=3)
    first, second = (clone(stack).fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_clones_share_models_and_copy_callbacks():
    model = keras.Sequential([keras.layers.Dense(1)])
    callback = keras.callbacks.EarlyStopping(monitor="loss", patience=1)
    classifier = KerasClassifier(model, callbacks=[callback], epochs=2)
    copied = clone(StackedKerasClassifier([("a", model), ("b", classifier)]))
    assert copied.upstream[0][1] is model
    assert copied.upstream[1][1].model is model
    assert copied.upstream[1][1].callbacks[0] is not callback
    classifier.fit(X, y)
    assert not model.built
    assert callback.model is None
