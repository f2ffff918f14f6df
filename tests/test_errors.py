"""Bad input gets a clear error of scikit-learn's kind, before any training starts."""

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import KFold

from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack.networks import MLP, Autoencoder

rng = np.random.default_rng(0)
X = rng.normal(size=(60, 4)).astype(np.float32)
y = np.arange(60) % 2

CLASSIFIERS = [KerasClassifier(epochs=1), StackedKerasClassifier()]
EVERY = [
    *CLASSIFIERS,
    KerasRegressor(epochs=1),
    KerasAutoencoder(epochs=1),
    KerasFeatureTransformer(),
    StackedKerasRegressor(),
]


def named(estimator):
    return type(estimator).__name__


@pytest.mark.parametrize("estimator", EVERY, ids=named)
@pytest.mark.parametrize(("value", "message"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_missing_and_infinite_values(estimator, value, message):
    broken = X.copy()
    broken[3, 1] = value
    with pytest.raises(ValueError, match=message):
        estimator.fit(broken, y)


@pytest.mark.parametrize("estimator", EVERY, ids=named)
def test_one_sample_and_one_dimension(estimator):
    with pytest.raises(ValueError, match=r"sample|class"):
        estimator.fit(X[:1], y[:1])
    with pytest.raises(ValueError, match="Reshape your data"):
        estimator.fit(X[0], y[:4])


@pytest.mark.parametrize("estimator", EVERY, ids=named)
def test_use_before_fit(estimator):
    method = "predict" if hasattr(estimator, "predict") else "transform"
    with pytest.raises(NotFittedError):
        getattr(estimator, method)(X)


def test_another_number_or_order_of_columns():
    frame = pd.DataFrame(X, columns=list("abcd"))
    for estimator in (
        KerasClassifier(MLP((4,)), epochs=1),
        KerasFeatureTransformer(KerasAutoencoder(Autoencoder((4,)), epochs=1)),
    ):
        estimator.fit(frame, y)
        method = getattr(estimator, "predict", getattr(estimator, "transform", None))
        with pytest.raises(ValueError, match="order"):
            method(frame[list("bacd")])
        with pytest.raises(ValueError, match=r"3 features|missing"):
            method(frame[list("abc")])
    with pytest.raises(ValueError, match="duplicate column names"):
        KerasClassifier().fit(pd.DataFrame(X, columns=list("abca")), y)


@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=named)
def test_targets_that_are_not_classes(estimator):
    with pytest.raises(ValueError, match="only one class"):
        estimator.fit(X, np.zeros(60))
    with pytest.raises(ValueError, match="continuous"):
        estimator.fit(X, X[:, 0])
    with pytest.raises(ValueError, match="requires y"):
        estimator.fit(X, None)


def test_one_class_after_dropping_zero_weights():
    with pytest.raises(ValueError, match="zero weight"):
        KerasClassifier().fit(X, y, sample_weight=(y == 0).astype(float))


@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=named)
@pytest.mark.parametrize(
    ("passed", "message"),
    [
        ({"sample_weight": "balanced"}, r"sample_weight: could not convert .*'balanced'"),
        ({"sample_weight": ["a"] * 60}, r"sample_weight: could not convert"),
        ({"sample_weight": np.ones(3)}, "sample_weight"),
        ({"sample_weight": np.ones((60, 1))}, "sample_weight: .*1D array"),
        ({"groups": np.arange(3)}, r"groups: .*\[60, 3\]"),
    ],
    ids=["word", "words", "few", "column", "groups"],
)
def test_errors_name_what_was_passed_beside_the_rows(estimator, passed, message):
    with pytest.raises(ValueError, match=message):
        estimator.fit(X, y, **passed)


def test_validation_rows_and_targets_of_different_lengths():
    for estimator in (
        KerasClassifier(),
        StackedKerasClassifier([("a", KerasClassifier())], downstream=KerasClassifier()),
    ):
        with pytest.raises(ValueError, match=r"X_val and y_val: .*\[60, 3\]"):
            estimator.fit(X, y, X_val=X, y_val=y[:3])


def test_strings_as_numbers():
    with pytest.raises(ValueError, match=r"could not convert|y has"):
        KerasRegressor().fit(X, np.where(y, "a", "b"))


def test_a_layer_that_does_not_exist():
    transformer = KerasFeatureTransformer(KerasClassifier(MLP((4,)), epochs=1), layers="hiden_1")
    with pytest.raises(ValueError, match=r"hiden_1.*hidden_1"):
        transformer.fit(X, y)


def test_models_that_do_not_match_the_data():
    wide = keras.Sequential([keras.Input((7,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=r"\(None, 7\).*\(None, 4\)"):
        KerasFeatureTransformer(wide).fit(X)
    with pytest.raises(ValueError, match=r"\(None, 7\).*\(None, 4\)"):
        KerasClassifier(wide).fit(X, y)
    three = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match=r"\(None, 3\).*\(None, 1\)"):
        KerasClassifier(three).fit(X, y)
    with pytest.raises(ValueError, match="unbuilt"):
        KerasFeatureTransformer(keras.Sequential([keras.layers.Dense(1)])).fit(X)


@pytest.mark.parametrize("make", [KerasClassifier, KerasFeatureTransformer])
def test_paths(make, tmp_path):
    with pytest.raises(ValueError, match="the file does not exist"):
        make(str(tmp_path / "none.keras")).fit(X, y)
    empty = tmp_path / "empty.keras"
    empty.write_text("no model")
    with pytest.raises(ValueError, match="holds no Keras model"):
        make(str(empty)).fit(X, y)
    with pytest.raises(ValueError, match=r"\.keras"):
        make(str(tmp_path / "model.txt")).fit(X, y)


def test_a_loss_that_diverges():
    with pytest.raises(ValueError, match="learning_rate"):
        KerasRegressor(MLP((4,)), optimizer="sgd", learning_rate=1e18, epochs=20).fit(X, X[:, 0])


def test_rank():
    with pytest.raises(ValueError, match="rank"):
        KerasClassifier().fit(X.reshape(60, 2, 2), y)


def test_misspelt_parameters():
    with pytest.raises(TypeError, match="epohcs"):
        KerasClassifier(epohcs=3)
    with pytest.raises(TypeError, match="dropuot"):
        MLP(dropuot=0.1)
    stack = StackedKerasClassifier(
        [("risk", KerasClassifier(MLP())), ("legacy", "model.keras")], downstream=None
    )
    with pytest.raises(ValueError, match="dropuot"):
        stack.set_params(risk__model__dropuot=0.1)
    with pytest.raises(ValueError, match="rsik"):
        stack.set_params(rsik__epochs=1)
    with pytest.raises(ValueError, match="KerasFeatureTransformer"):
        stack.set_params(legacy__layers="encoder")
    with pytest.raises(ValueError, match="downstream=KerasClassifier"):
        stack.set_params(downstream__epochs=1)
    with pytest.raises(ValueError, match="model=TabM"):
        KerasClassifier().set_params(model__dropout=0.1)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (KerasClassifier(epochs=0), "epochs"),
        (KerasClassifier(learning_rate=-1.0), "learning_rate"),
        (KerasClassifier(validation_fraction=1.5), "validation_fraction"),
        (KerasClassifier(engine="fast"), "engine"),
        (KerasClassifier(sampler="smote"), "sampler"),
        (KerasClassifier(optimizer="adm"), "optimizer"),
        (KerasClassifier(loss="crossentropy!"), "loss"),
        (KerasClassifier(MLP(dropout=2.0)), "dropout"),
        (KerasClassifier(MLP), "MLP"),
        (KerasFeatureTransformer(features="ouputs"), "features"),
        (KerasFeatureTransformer(pooling="median"), "pooling"),
        (KerasFeatureTransformer(3), "model"),
        (KerasFeatureTransformer(KerasAutoencoder(epochs=1), features="entropy"), "probabilities"),
        (StackedKerasClassifier(scaler="minmax"), "scaler"),
        (StackedKerasClassifier(sampler="smote"), "sampler"),
        (StackedKerasClassifier(3), "upstream"),
        (StackedKerasClassifier([("a", 3)]), "branch 'a'"),
        (StackedKerasClassifier([KerasClassifier()]), "upstream"),
        (StackedKerasClassifier([("a__b", KerasClassifier())]), "__"),
        (StackedKerasClassifier([("cv", KerasClassifier())]), "cv"),
        (StackedKerasClassifier([("a", KerasClassifier())] * 2), "unique"),
        (StackedKerasClassifier(downstream=KerasRegressor()), "downstream"),
        (StackedKerasClassifier([("a", "drop")], passthrough=False), "no columns"),
        (
            KerasFeatureTransformer(KerasClassifier(epochs=1), refit=False, cv=KFold(99)),
            "99",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_invalid_values(estimator, message):
    with pytest.raises((ValueError, TypeError), match=message):
        estimator.fit(X, y)


def test_x_val_and_y_val_are_passed_together():
    for estimator in CLASSIFIERS:
        with pytest.raises(ValueError, match="y_val is None"):
            estimator.fit(X, y, X_val=X)
