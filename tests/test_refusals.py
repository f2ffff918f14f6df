"""Regressions found by fuzzing: each once trained, crashed in Keras or gave a vague error."""

import fractions
import re
import threading

import keras
import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression, Perceptron
from sklearn.model_selection import KFold

from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack._training import train as steps
from skstack.networks import MLP, Autoencoder, recipe

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 3)).astype(np.float32)
Y = np.arange(40) % 2
TARGET = X[:, 0] + Y


def said(value, length):
    """The start of a value's repr, without addresses, which are others in each process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))[:length]


@pytest.fixture
def no_training(monkeypatch):
    def trains(*args):
        raise AssertionError("training has begun")

    monkeypatch.setattr(steps, "_run", trains)


def raises(*args, **kwargs):
    raise KeyError("mine")


def small(**settings):
    return KerasClassifier(**{"model": MLP(4), "epochs": 1, "random_state": 0, **settings})


@recipe
def narrow(spec, *, units=4, activation="relu"):
    inputs = spec.inputs()
    x = keras.layers.Dense(units, activation=activation)(spec.join(inputs))
    return keras.Model(inputs, spec.outputs(x))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer", None),
        ("optimizer", 3),
        ("optimizer", {"a": 1}),
        ("optimizer", "adm"),
        ("optimizer", keras.optimizers.SGD),
        ("learning_rate", fractions.Fraction(1, 3)),
        ("learning_rate", keras.optimizers.SGD()),
        ("learning_rate", keras.losses.MeanSquaredError()),
        ("tol", fractions.Fraction(1, 3)),
        ("loss", "crossentropy!"),
        ("loss", int),
        ("loss", len),
        ("loss", raises),
        ("loss", keras.metrics.MeanAbsoluteError()),
        ("metrics", {"mae"}),
        ("metrics", np.array(["mae", "mse"])),
        ("metrics", ["mee"]),
        ("metrics", [["mae"]]),
        ("metrics", [raises]),
        ("callbacks", keras.callbacks.EarlyStopping),
        ("callbacks", ["EarlyStopping"]),
        ("categorical_features", [[0], 1]),
        ("model", MLP(l2=1e300)),
        ("model", MLP(dropout=10**30)),
        ("model", MLP(activation=len)),
        ("model", MLP(activation=keras.layers.Dense(2))),
        ("model", narrow(units=0)),
        ("model", narrow(activation=raises)),
    ],
    ids=lambda value: value if isinstance(value, str) else said(value, 40),
)
@pytest.mark.usefixtures("no_training")
def test_invalid_settings_are_refused_by_name_before_training(name, value):
    given = "l2|dropout|activation|narrow" if name == "model" else name
    with pytest.raises((ValueError, TypeError), match=given):
        small().set_params(**{name: value}).fit(X, Y)


@pytest.mark.usefixtures("no_training")
def test_callbacks_that_cannot_be_copied_are_refused_by_name():
    callback = keras.callbacks.Callback()
    callback.lock = threading.Lock()
    estimator = small(callbacks=[callback])
    for call in (clone, lambda estimator: estimator.fit(X, Y)):
        with pytest.raises(TypeError, match=r"callbacks=\[.*cannot be copied .*lock.*__deepcopy__"):
            call(estimator)


def test_a_loss_that_no_weight_moves():
    with pytest.raises(ValueError, match=r"loss=.* does not depend on any weight"):
        small(loss=lambda y, p: keras.ops.mean(y, axis=-1)).fit(X, Y)


@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_weights_that_diverge_in_the_last_step(engine):
    with pytest.raises(ValueError, match=r"weights .* became infinite.*learning_rate"):
        small(learning_rate=1e300, batch_size=40, engine=engine).fit(X, Y)


@pytest.mark.parametrize("size", [10**9, 10**30])
def test_a_batch_larger_than_the_rows_is_one_batch(size):
    whole = small(batch_size=len(X)).fit(X, Y).predict_proba(X)
    np.testing.assert_array_equal(small(batch_size=size).fit(X, Y).predict_proba(X), whole)


def test_recipes_accept_numpy_numbers_and_errors_name_them():
    assert small(model=narrow(units=np.int64(3))).fit(X, Y).predict(X).shape == (40,)
    with pytest.raises(ValueError, match=r"recipe narrow\(\) failed .*'units': 'many'"):
        small(model=narrow(units="many")).fit(X, Y)


@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        (small(epochs=8, n_iter_no_change=1, learning_rate=0.5), "early_stopping"),
        (KerasRegressor(MLP(4), epochs=2, random_state=0), "standardize_target"),
        *[
            (StackedKerasClassifier(small(), downstream=small(), cv=2, random_state=0), name)
            for name in ("passthrough", "refit", "blend")
        ],
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_truth_values_of_numpy_are_those_of_python(estimator, name):
    """As those among the candidates of a search."""
    regresses = isinstance(estimator, KerasRegressor)
    monitored = {"X_val": X, "y_val": 1 - Y} if name == "early_stopping" else {}

    def predictions(value):
        own = clone(estimator).set_params(**{name: value})
        own.fit(X, 30 * TARGET if regresses else Y, **monitored)
        return own.predict(X) if regresses else own.predict_proba(X)

    true, false = predictions(True), predictions(False)
    assert (true != false).any()
    np.testing.assert_array_equal(predictions(np.True_), true)
    np.testing.assert_array_equal(predictions(np.False_), false)


def test_parameters_of_a_string():
    with pytest.raises(ValueError, match="activation__rate"):
        small().set_params(model__activation__rate=1)


def test_parameters_set_after_a_fit_apply_to_the_next():
    classifier = small().fit(X, Y)
    twin = clone(classifier).fit(X, Y)
    twin.set_params(model__activation="tanh")
    np.testing.assert_array_equal(twin.predict_proba(X), classifier.predict_proba(X))


@pytest.mark.parametrize("estimator", [small(), StackedKerasClassifier(), KerasRegressor()])
@pytest.mark.parametrize(
    ("y", "said"),
    [
        (pd.Series(["a", None] * 20), "y contains NaN"),
        (np.where(Y, None, "a"), r"\by\b|convert"),
        (TARGET.astype(float) * 1e300, r"\by\b|label type"),
    ],
    ids=["strings", "None", "huge"],
)
@pytest.mark.usefixtures("no_training")
def test_targets_are_named(estimator, y, said):
    with pytest.raises((ValueError, TypeError), match=said):
        estimator.fit(X, y)


@pytest.mark.parametrize("weight", [1e308, 1e300, 1e-320])
def test_only_ratios_of_weights_matter(weight):
    for estimator in (small(), StackedKerasClassifier([("a", small())], downstream=small(), cv=2)):
        estimator.set_params(random_state=0)
        plain = clone(estimator).fit(X, Y, sample_weight=np.ones(40)).predict_proba(X)
        heavy = estimator.fit(X, Y, sample_weight=np.full(40, weight)).predict_proba(X)
        np.testing.assert_array_equal(heavy, plain)


@pytest.mark.parametrize(
    "estimator", [small(), StackedKerasClassifier(), KerasFeatureTransformer()]
)
def test_weights_that_are_all_zero_are_refused(estimator):
    with pytest.raises(ValueError, match="at least one non-zero number"):
        clone(estimator).fit(X, Y, sample_weight=np.zeros(40))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n_jobs": False}, "n_jobs"),
        ({"n_jobs": 10**30}, "n_jobs"),
        ({"passthrough": "b"}, "passthrough='b'"),
        ({"passthrough": [0, 9]}, r"passthrough=\[0, 9\]"),
        ({"passthrough": raises}, "passthrough=.*mine"),
        ({"upstream": [("a", small()), ("b", PCA(2), [9])]}, "upstream: columns of 'b'"),
        ({"upstream": [("a",)]}, "upstream"),
        ({"upstream": [()]}, "upstream"),
        ({"upstream": [("a", PCA)]}, "upstream"),
        ({"upstream": [("a", small()), ("b", "no.keras")]}, "'b' of upstream.*does not exist"),
        ({"upstream": [("a", small()), ("b", small(epochs=0))]}, "epochs"),
        ({"upstream": MLP()}, "upstream"),
        ({"downstream": KerasClassifier}, "downstream is the class"),
        ({"downstream": small(epochs=0)}, "epochs"),
        ({"downstream": small(loss="mae?")}, "loss"),
        ({"downstream": KerasClassifier(MLP(dropout=2))}, "dropout"),
        ({"downstream": KerasClassifier("no.keras")}, "does not exist"),
        ({"downstream": LogisticRegression(C=-1)}, "'C'"),
        ({"downstream": small(class_weight={0: 1, 1: -1})}, r"class_weight holds \{1: -1\}"),
        ({"downstream": small(class_weight={0: 1, 7: 2})}, "not in class_weight"),
        (
            {"upstream": [("a", small()), ("b", small(class_weight={0: np.nan}))]},
            "class_weight holds",
        ),
        ({"blend": "yes"}, "blend"),
        ({"blend": True, "upstream": [("pca", PCA(2))]}, "no branch predicts the target"),
        ({"blend_scoring": raises}, "blend_scoring=.*mine"),
        ({"blend_scoring": "accuracy!"}, "blend_scoring"),
        ({"blend_parts": ["a"]}, "blend_parts"),
        ({"blend_parts": ["a", "b"]}, "blend_parts"),
        ({"calibration": "isotonic"}, "calibration"),
        ({"calibration": "temperature", "downstream": Perceptron()}, "calibration"),
        ({"n_repeats": 0}, "n_repeats"),
        ({"n_repeats": 2, "cv": list(KFold(2).split(X))}, "(?s)n_repeats.*cv="),
        ({"cv": {1, 2}}, "cv="),
        ({"cv": []}, "cv="),
        ({"cv": np.array(2)}, "cv="),
        ({"cv": 99}, "cv="),
    ],
    ids=lambda value: said(value, 60) if isinstance(value, dict) else "",
)
@pytest.mark.usefixtures("no_training")
def test_a_stack_checks_all_parts_before_training(settings, said):
    stack = StackedKerasClassifier([("a", small())], downstream=small(), cv=2)
    stack = StackedKerasClassifier(**{**stack.get_params(deep=False), **settings})
    with pytest.raises((ValueError, TypeError), match=said):
        stack.fit(X, Y)


def test_no_columns_pass_through():
    stack = StackedKerasClassifier([("a", small())], downstream=small(), cv=2, passthrough=[])
    assert stack.fit(X, Y).transform(X).shape == (40, 1)


@pytest.mark.usefixtures("no_training")
def test_classes_cannot_be_learned_from_a_continuous_target():
    for upstream in (DummyClassifier(), small()):
        with pytest.raises(ValueError, match=r"\by\b.*continuous"):
            StackedKerasRegressor([("a", upstream)], cv=2).fit(X, TARGET)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"layers": "hiden_1"}, "hiden_1.*hidden_1"),
        ({"layers": [["hidden_1"]]}, "layers"),
        ({"features": "reconstruction_error"}, "reconstruction_error"),
        ({"model": KerasAutoencoder(Autoencoder(3)), "features": "entropy"}, "probabilities"),
        ({"model": MLP()}, "model"),
        ({"model": small(epochs=0)}, "epochs"),
        ({"n_jobs": 0}, "n_jobs"),
    ],
    ids=lambda value: said(value, 60) if isinstance(value, dict) else "",
)
@pytest.mark.usefixtures("no_training")
def test_a_transformer_refuses_unavailable_features_before_training(settings, said):
    with pytest.raises((ValueError, TypeError), match=said):
        KerasFeatureTransformer(**{"model": small(), "cv": 2, **settings}).fit_transform(X, Y)


@pytest.mark.usefixtures("no_training")
# Older scikit-learn asks a LazyFrame for its dtypes, of which polars warns.
@pytest.mark.filterwarnings("ignore:Determining the data types of a LazyFrame")
def test_invalid_tables():
    lazy = pl.LazyFrame({"a": X[:, 0]})
    with pytest.raises(TypeError, match="X is not a table"):
        KerasFeatureTransformer().fit(np.ndarray, Y, sample_weight=np.ones(40))
    for estimator in (small(), KerasFeatureTransformer()):
        with pytest.raises((ValueError, TypeError)):
            estimator.fit(lazy, Y)
        huge = X.astype(np.float64)
        huge[0, 0] = 1e300
        with pytest.raises(ValueError, match="too large for dtype"):
            estimator.fit(huge, Y)


def test_values_that_cannot_be_scaled():
    stack = StackedKerasClassifier([("a", small())], downstream=small(), cv=2).fit(X / 9, Y)
    huge = X.astype(np.float64)
    huge[0, 0] = 3e38
    with pytest.raises(ValueError, match="check X for very large values"):
        stack.predict(huge)


class PredictsNaN(DummyRegressor):
    """Predicts NaN for one row."""

    def predict(self, X):
        return np.r_[np.nan, super().predict(X)[1:]]


def test_features_that_are_nan_are_named():
    downstream = KerasRegressor(MLP((4,)), epochs=1)
    stack = StackedKerasRegressor([("gap", PredictsNaN())], downstream=downstream, cv=2)
    with pytest.raises(ValueError, match=r"its input has NaN or infinity in columns \[0\]"):
        stack.set_params(blend=False).fit(pd.DataFrame(X), TARGET)
