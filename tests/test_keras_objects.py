"""Optimizers, losses and metrics of Keras as parameters: settings, clones, pickles."""

import copy
import pickle

import keras
import numpy as np
import pytest
from _models import FIT, SMALL, binary, keras_model
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skstack import KerasClassifier, KerasMultiTask, StackedKerasClassifier

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


class NoConfig(keras.losses.Loss):
    """A loss whose get_config lacks an argument."""

    def __init__(self, factor=0.5):
        super().__init__()
        self.factor = factor

    def call(self, y_true, y_pred):
        return self.factor * keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)


class Doubled(keras.losses.Loss):
    """A loss that holds another, which is not registered with Keras either."""

    def __init__(self, inner, **settings):
        super().__init__(**settings)
        self.inner = inner

    def call(self, y_true, y_pred):
        return 2 * self.inner.call(y_true, y_pred)

    def get_config(self):
        inner = keras.saving.serialize_keras_object(self.inner)
        return {**super().get_config(), "inner": inner}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("inner")), **config)


class Constant(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that is not registered with Keras."""

    def __init__(self, rate):
        self.rate = rate

    def __call__(self, step):
        return self.rate

    def get_config(self):
        return {"rate": self.rate}


class Slow(keras.optimizers.SGD):
    """An optimizer whose get_config lacks an argument."""

    def __init__(self, factor=0.5, **settings):
        super().__init__(**settings)
        self.factor = factor


class Error(keras.metrics.MeanSquaredError):
    """A metric that is not registered with Keras."""


def network(**params):
    return KerasClassifier(SMALL, **{**FIT, **params})


@pytest.mark.slow(first=2)
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


def test_settings_of_objects_inside_are_set():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    changed = network(optimizer=keras.optimizers.SGD(schedule), learning_rate=schedule)
    changed.set_params(optimizer__learning_rate__decay_rate=0.5, learning_rate__decay_steps=20)
    assert changed.optimizer.get_config()["learning_rate"]["config"]["decay_rate"] == 0.5
    assert (changed.learning_rate.decay_steps, schedule.decay_steps) == (20, 10)
    scaled = network(optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()))
    scaled.set_params(optimizer__inner_optimizer__momentum=0.5)
    assert scaled.optimizer.inner_optimizer.momentum == 0.5


def test_a_schedule_that_is_not_registered_trains():
    slow, fast = (network(optimizer=keras.optimizers.SGD(Constant(r))) for r in (1e-9, 0.5))
    assert slow.set_params(optimizer__learning_rate__rate=0.5).optimizer is not fast.optimizer
    p = [estimator.fit(X, Y).predict_proba(X) for estimator in (clone(slow), fast)]
    np.testing.assert_array_equal(*p)


@pytest.mark.parametrize(
    "loss", [NoConfig(3.0), Doubled(HalfSquare(1.5))], ids=["attributes", "inner"]
)
def test_losses_of_any_class_are_cloned_and_pickled(loss):
    estimator = network(loss=loss)
    expected = HalfSquare(3.0)(Y[:5, None], X[:5, :1])
    for copied in (
        clone(estimator),
        copy.deepcopy(estimator),
        pickle.loads(pickle.dumps(estimator)),
    ):
        assert copied.loss is not loss
        assert float(copied.loss(Y[:5, None], X[:5, :1])) == pytest.approx(float(expected))
    several = KerasMultiTask(SMALL, loss={"b": loss})
    assert clone(several).loss["b"] is not loss
    assert copy.copy(estimator).loss is loss


def test_an_optimizer_that_cannot_be_copied_is_refused_before_training():
    estimator = clone(network(optimizer=Slow(factor=0.1)))
    with pytest.raises(ValueError, match=r"optimizer=Slow\(\.\.\.\).*get_config lacks factor"):
        estimator.fit(X, Y)


def test_callbacks_are_cloned_without_the_model_of_an_earlier_fit():
    class Counts(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.loss, self.epochs = HalfSquare(), [7]

    callback = Counts()
    callback.set_model(keras_model(compiled=True))
    copied = clone(network(callbacks=[callback])).callbacks[0]
    assert copied.model is None
    assert callback.model is not None
    assert copied.epochs == [7]
    assert copied.epochs is not callback.epochs
    assert copied.loss is not callback.loss


def test_objects_of_keras_are_printed_as_calls():
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    settings = {"loss": HalfSquare(0.7), "metrics": [Error(), keras.metrics.AUC(name="roc")]}
    estimator = KerasClassifier(optimizer=keras.optimizers.SGD(0.1), **settings)
    text = " ".join(repr(estimator).split())
    assert text == (
        "KerasClassifier(loss=HalfSquare(factor=0.7), metrics=[Error(), AUC(name='roc')], "
        "optimizer=SGD(learning_rate=0.1))"
    )
    stack = StackedKerasClassifier([("a", estimator)], downstream=LogisticRegression())
    for outer in (stack, make_pipeline(StandardScaler(), estimator), GridSearchCV(estimator, {})):
        assert "optimizer=SGD(learning_rate=0.1)" in repr(outer)
        assert " object at 0x" not in repr(outer)
    scheduled = KerasClassifier(optimizer=keras.optimizers.SGD(rate), loss=NoConfig())
    assert "SGD(learning_rate=ExponentialDecay(...))" in repr(scheduled)
    assert "loss=NoConfig(...)" in repr(scheduled)


def test_long_estimators_in_a_pipeline_are_laid_out_as_those_of_scikit_learn():
    estimator = network(optimizer="adamw", validation_fraction=0.25, n_iter_no_change=5)
    lines = repr(make_pipeline(StandardScaler(), estimator)).splitlines()
    assert len(lines) > 3
    assert max(map(len, lines)) < 80
