"""Explainers such as SHAP's: they have no rule for einsum, and drop the names of columns."""

import copy

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.datasets import load_iris

from skstack import KerasClassifier, KerasRegressor
from skstack.networks import MLP, Periodic, PiecewiseLinear, RealMLP, TabM

X, CLASSES = load_iris(return_X_y=True)
X = X.astype(np.float32)
RECIPES = {
    "mlp": MLP((4,), scaling="quantile"),
    "piecewise": TabM((4,), n_members=3, numeric_embedding=PiecewiseLinear(4)),
    "default": None,
    "robust": MLP((4,), scaling="robust"),
    "mini": TabM((4,), n_members=3, mini=True, numeric_embedding=None),
    "realmlp": RealMLP((4,)),
    "periodic": MLP((4,), numeric_embedding=Periodic(3)),
}


def stock(model):
    """The same model as Keras itself makes it from its file."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def operations(model):
    function = tf.function(lambda x: model(x)).get_concrete_function(
        tf.TensorSpec((None, X.shape[1]), tf.float32)
    )
    return {operation.type for operation in function.graph.get_operations()}


@pytest.mark.slow(first=2)
@pytest.mark.parametrize("recipe", RECIPES)
def test_public_models_call_no_einsum_and_predict_the_same(recipe):
    fitted = KerasClassifier(RECIPES[recipe], epochs=1, early_stopping=False, random_state=0)
    fitted.fit(X, CLASSES)
    for model in (fitted.model_, fitted.to_keras()):
        assert "Einsum" not in operations(model)
        assert "Einsum" in operations(stock(model))
        np.testing.assert_allclose(model(X), stock(model)(X), atol=2e-6)
        np.testing.assert_allclose(model(X), fitted.predict_proba(X), atol=2e-6)


def test_a_regressor_in_units_of_its_target():
    y = 1e3 * X[:, 0] + 7
    fitted = KerasRegressor(MLP((4,)), epochs=1, early_stopping=False, random_state=0).fit(X, y)
    assert "Einsum" not in operations(fitted.model_)
    np.testing.assert_allclose(np.ravel(fitted.model_(X)), fitted.predict(X), rtol=1e-6)


# SHAP warns of TensorFlow 2.4 and later, and passes an array where Keras expects a named input.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("recipe", ["default", "mlp"])
def test_deep_explanations_sum_to_the_prediction(recipe):
    shap = pytest.importorskip("shap")
    fitted = KerasClassifier(RECIPES[recipe], epochs=2, early_stopping=False, random_state=0)
    fitted.fit(X, CLASSES == 2)
    model = fitted.to_keras()
    rows, background = X[::10], X[5:25]
    values = np.asarray(shap.DeepExplainer(model, background).shap_values(rows))
    change = np.asarray(model(rows)) - np.mean(model(background), axis=0)
    np.testing.assert_allclose(values.sum(axis=1), change, atol=1e-5)


def test_rows_of_objects_without_names_of_columns():
    # As SHAP's KernelExplainer calls a method: on a copy without names of columns.
    frame = pd.DataFrame({"length": X[:, 0], "kind": np.where(X[:, 1] > 3, "wide", "narrow")})
    fitted = KerasClassifier(MLP((4,)), epochs=1, early_stopping=False, random_state=0)
    fitted.fit(frame, CLASSES)
    nameless = copy.deepcopy(fitted)
    nameless.feature_names_in_ = None
    rows = frame.to_numpy(dtype=object)
    np.testing.assert_array_equal(nameless.predict_proba(rows), fitted.predict_proba(frame))
