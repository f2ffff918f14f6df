"""Callbacks see, and files hold, the network that ``model_`` is: in y's units."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.base import clone
from sklearn.datasets import load_diabetes

from skstack import KerasAutoencoder, KerasClassifier, KerasRegressor
from skstack.losses import TeacherLoss
from skstack.networks import MLP

X, y = load_diabetes(return_X_y=True)
X, y = X[:120], 10 * y[:120] + 1000


class Looks(keras.callbacks.Callback):
    """Keeps what it has seen beyond its copies."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __deepcopy__(self, memo):
        return Looks(self.seen)

    def on_epoch_end(self, epoch, logs=None):
        evaluated = self.model.evaluate(X, y, verbose=0, return_dict=True)
        self.seen.append((self.model.predict(X, verbose=0).ravel(), evaluated, dict(logs)))


def quick(make=KerasRegressor, **parameters):
    return make(MLP((8,)), **{"epochs": 4, "random_state": 0, **parameters})


def outputs(model, X=X):
    return np.ravel(model(np.asarray(X, np.float32)))


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "early_stopping"), [("auto", True), ("keras", False)])
def test_callbacks_see_and_save_a_network_in_the_units_of_y(engine, early_stopping, tmp_path):
    seen, whole, best, weights = [], *(tmp_path / name for name in ("a.keras", "b.keras", "c.h5"))
    weights = tmp_path / "c.weights.h5"
    checkpoint = keras.callbacks.ModelCheckpoint
    settings = {"engine": engine, "early_stopping": early_stopping, "metrics": ["mae"]}
    regressor = quick(
        **settings,
        callbacks=[
            Looks(seen),
            checkpoint(whole),
            checkpoint(best, monitor="loss", save_best_only=True),
            checkpoint(weights, save_weights_only=True),
        ],
    ).fit(X, y)
    predicted = regressor.predict(X)
    assert abs(predicted.mean() - y.mean()) < y.std()
    for found in (
        seen[-1][0],
        outputs(keras.models.load_model(whole)),
        outputs(keras.models.load_model(best)),
        KerasRegressor(whole, epochs=1, learning_rate=1e-9).fit(X, y).predict(X),
    ):
        np.testing.assert_allclose(found, predicted, rtol=1e-4)
    model = regressor.model_
    model.set_weights([0 * part for part in model.get_weights()])
    model.load_weights(weights)
    np.testing.assert_allclose(outputs(model), predicted, rtol=1e-4)
    # Evaluated in y's units; the logs are those of the history, of standardised targets.
    assert seen[-1][1]["loss"] == pytest.approx(np.mean((predicted - y) ** 2), rel=1e-3)
    assert seen[-1][1]["mae"] == pytest.approx(np.abs(predicted - y).mean(), rel=1e-3)
    assert seen[-1][2]["loss"] == regressor.history_["loss"][-1] < 2
    np.testing.assert_array_equal(quick(**settings).fit(X, y).predict(X), predicted)


def test_changes_by_callbacks_to_the_network_are_kept():
    class Stops(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    class StopsAtOnce(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    class Forgets(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            for variable in self.model.trainable_variables:
                variable.assign(0 * variable)

    assert quick(callbacks=[Stops()]).fit(X, y).n_iter_ == 2
    assert quick(callbacks=[StopsAtOnce()]).fit(X, y).n_iter_ == 1
    for engine in ("auto", "keras"):
        forgot = quick(callbacks=[Forgets()], engine=engine).fit(X, y)
        np.testing.assert_allclose(forgot.predict(X), y.mean(), rtol=1e-5)
    slower = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    rates = quick(callbacks=[slower], learning_rate=0.1).fit(X, y).history_["learning_rate"]
    np.testing.assert_allclose(rates, [0.05, 0.025, 0.0125, 0.00625])


class Scaled(keras.losses.Loss):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, y_true, y_pred):
        return self.factor * keras.losses.mean_squared_error(y_true, y_pred)


class Anneals(keras.callbacks.Callback):
    def __init__(self, held):
        super().__init__()
        self.held, self.seen = held, []

    def on_epoch_begin(self, epoch, logs=None):
        self.held["factor"].assign(10.0**epoch)
        self.seen.append(epoch)


@pytest.mark.slow(first=2)
@pytest.mark.parametrize(
    ("kind", "engine"), [("function", "auto"), ("object", "keras"), ("object", "auto")]
)
def test_a_callback_assigns_the_variable_that_the_loss_reads(kind, engine):
    factor = tf.Variable(0.0) if kind == "function" else keras.Variable(0.0)
    scaled = Scaled(factor)
    callback = Anneals({"factor": factor})
    regressor = quick(
        loss=(lambda y, p: scaled.call(y, p)) if kind == "function" else scaled,
        callbacks=[callback],
        engine=engine,
        epochs=3,
        learning_rate=1e-7,
    )
    fits = [each.fit(X, y) for each in (regressor, regressor, clone(regressor))]
    for fitted in fits:
        losses = fitted.history_["loss"]
        assert losses[0] > 0
        np.testing.assert_allclose(losses[1:], [10 * losses[0], 100 * losses[0]], rtol=1e-3)
        np.testing.assert_array_equal(fitted.predict(X), fits[0].predict(X))
    assert callback.seen == []


class Counts(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.count = keras.Variable(0.0)

    def on_epoch_end(self, epoch, logs=None):
        self.count.assign_add(1.0)
        if float(self.count) >= 2:
            self.model.stop_training = True


def test_other_variables_of_a_callback_begin_each_fit_anew():
    regressor = quick(callbacks=[Counts()], epochs=4)
    assert [regressor.fit(X, y).n_iter_ for _ in range(2)] == [2, 2]
    assert float(regressor.callbacks[0].count) == 0


@pytest.mark.slow
def test_interrupted_training_can_be_resumed(tmp_path):
    backup = keras.callbacks.BackupAndRestore
    quick(callbacks=[backup(tmp_path / "a", delete_checkpoint=False)], epochs=3).fit(X, y)
    regressor = quick(callbacks=[backup(tmp_path / "a")], epochs=40).fit(X, y)
    assert regressor.n_iter_ == 37
    assert regressor.score(X, y) > 0.1
    again = quick(callbacks=[backup(tmp_path / "a")], epochs=5).fit(X, y)
    assert again.n_iter_ == 5


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("make", [KerasClassifier, KerasAutoencoder])
def test_other_networks_are_saved_as_in_model_(make, tmp_path):
    frame = pd.DataFrame({"bmi": X[:, 2], "sex": np.where(X[:, 1] > 0, "f", "m")})
    saved = tmp_path / "a.keras"
    model = MLP((8,)) if make is KerasClassifier else None
    callbacks = [keras.callbacks.ModelCheckpoint(saved)]
    fitted = make(model, epochs=1, callbacks=callbacks).fit(frame, y > y.mean())
    loaded, given = keras.models.load_model(saved), fitted.model_
    assert loaded.name == given.name
    inputs = fitted.blocks_.split(frame)
    np.testing.assert_allclose(loaded(inputs), given(inputs), atol=1e-6)
    if make is KerasClassifier:
        with pytest.raises(ValueError, match="fitted on other categories"):
            make(saved, epochs=1).fit(frame.assign(sex="x"), y > y.mean())


def test_callbacks_on_a_network_with_a_teacher_warn(tmp_path):
    labels = y > y.mean()
    teacher = quick(KerasClassifier, epochs=1).fit(X, labels)
    taught = quick(
        KerasClassifier,
        loss=TeacherLoss(teacher),
        callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "a.keras")],
    )
    with pytest.warns(UserWarning, match=r"callbacks of KerasClassifier.*mode='distill'.*model_"):
        taught.fit(X, labels)
    by_numbers = quick(
        loss=TeacherLoss(quick(epochs=1).fit(X, y)),
        callbacks=[keras.callbacks.ModelCheckpoint(tmp_path / "b.keras")],
    ).fit(X, y)
    saved = keras.models.load_model(tmp_path / "b.keras")
    np.testing.assert_allclose(outputs(saved), by_numbers.predict(X), rtol=1e-4)
