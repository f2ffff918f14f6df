"""Optimizers, losses and metrics of Keras as parameters: settings, clones, pickles."""

import pickle

import keras
import numpy as np
import pytest
from _models import FIT, SMALL, binary
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score

from skstack import KerasClassifier, StackedKerasClassifier

X, Y = binary()


class HalfSquare(keras.losses.Loss):
    """A loss that is not registered with Keras."""

    def __init__(self, factor=0.5, name="half_square"):
        super().__init__(name=name)
        self.factor = factor

    def call(self, y_true, y_pred):
        return self.factor * keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class Error(keras.metrics.MeanSquaredError):
    """A metric that is not registered with Keras."""


def network(**params):
    return KerasClassifier(SMALL, **{**FIT, **params})


@pytest.mark.parametrize(
    ("params", "name", "values"),
    [
        ({"optimizer": keras.optimizers.SGD(0.1)}, "optimizer__momentum", [0.0, 0.9]),
        ({"optimizer": keras.optimizers.Adam()}, "optimizer__beta_1", [0.5, 0.9]),
        ({"loss": keras.losses.BinaryFocalCrossentropy()}, "loss__gamma", [1.0, 3.0]),
        ({"loss": HalfSquare()}, "loss__factor", [0.5, 2.0]),
    ],
)
def test_settings_of_keras_objects_are_searched(params, name, values):
    (kind, value), before = *params.items(), next(iter(params.values())).get_config()
    search = GridSearchCV(network(**params), {name: values}, cv=2, scoring="neg_log_loss")
    search.fit(X, Y)
    assert search.best_params_ in [{name: each} for each in values]
    assert len(set(search.cv_results_["mean_test_score"])) == 2
    network(**params).set_params(**{name: values[1]})  # without a clone
    assert value.get_config() == before
    setting = name.partition("__")[2]
    for each in values:
        changed = clone(search.estimator).set_params(**{name: each})
        assert getattr(changed, kind).get_config()[setting] == pytest.approx(each)


def test_settings_are_set_at_any_depth():
    downstream = network(optimizer=keras.optimizers.SGD())
    branches = [("a", network(optimizer=keras.optimizers.SGD())), ("b", LogisticRegression())]
    stack = StackedKerasClassifier(branches, downstream=downstream)
    stack.set_params(a__optimizer__momentum=0.5, downstream__optimizer__momentum=0.25)
    assert stack.get_params()["a"].optimizer.momentum == 0.5
    assert stack.downstream.optimizer.momentum == 0.25


@pytest.mark.parametrize("setting", ["optimizer__momentun", "optimizer__"])
def test_an_unknown_setting_is_refused(setting):
    with pytest.raises(ValueError, match=r"momentum"):
        network(optimizer=keras.optimizers.SGD()).set_params(**{setting: 0.5})


def test_settings_of_a_name_are_refused_with_what_to_pass():
    with pytest.raises(ValueError, match=r"the string 'adam'.*keras\.optimizers"):
        network(optimizer="adam").set_params(optimizer__beta_1=0.5)


def test_unregistered_classes_are_cloned_searched_and_pickled():
    estimator = network(loss=HalfSquare(0.7), metrics=[Error()])
    copied = clone(estimator)
    assert copied.loss is not estimator.loss
    assert copied.loss.factor == 0.7
    assert np.isfinite(cross_val_score(estimator, X, Y, cv=2)).all()
    fitted = estimator.fit(X, Y)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    assert again.loss.factor == 0.7
