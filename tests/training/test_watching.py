"""History, early stopping, callbacks and losses that are not finite."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from skstack._training.config import TrainConfig, TrainingData
from skstack._training.engines import watches_batches
from skstack._training.initial_weights import initial_variables
from skstack._training.program import POOL
from skstack._training.train import train


def build():
    i = {"numeric": keras.Input((6,), name="numeric")}
    x = keras.layers.Dense(5, activation="relu")(i["numeric"])
    return keras.Model(i, keras.layers.Dense(1, activation="sigmoid")(x))


@pytest.fixture
def recipe(blueprint):
    return blueprint(build, key="test_watching")


@pytest.fixture
def start(recipe):
    return initial_variables(recipe, 0)


ENGINES = ("graph", "stepwise", "xla", "keras")
each_engine = pytest.mark.parametrize("engine", ["stepwise", "keras", "xla", "graph"])


class Diary(keras.callbacks.Callback):
    def __init__(self, stop_after=None):
        super().__init__()
        self.events = []
        self.stop_after = stop_after

    def on_train_begin(self, logs=None):
        self.events.append("begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.events.append(epoch)

    def on_epoch_end(self, epoch, logs=None):
        self.events.append(sorted(logs))
        if epoch == self.stop_after:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self.events.append("end")


@pytest.mark.slow(first=1)
@each_engine
def test_callbacks_see_each_epoch(engine, recipe, start, binary_rows):
    diary = Diary(stop_after=1)
    plan = TrainConfig("binary_crossentropy", epochs=5, callbacks=(diary,), engine=engine)
    fit = train(recipe, start, binary_rows(), plan, validation=binary_rows(seed=1))
    logs = ["loss", "val_loss"]
    assert diary.events == ["begin", 0, logs, 1, logs, "end"]
    assert fit.n_epochs == 2
    assert diary.model is None


class Halve(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        rate = self.model.optimizer.learning_rate
        self.model.optimizer.learning_rate = float(keras.ops.convert_to_numpy(rate)) / 2


class BestLast(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.weights = None

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.weights = self.model.get_weights()

    def on_train_end(self, logs=None):
        self.model.set_weights(self.weights)


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("engines", [("graph", "stepwise", "keras"), ("graph", "xla")])
def test_callbacks_may_change_learning_rate_and_weights(engines, recipe, start, binary_rows):
    rows = binary_rows()
    curves, weights = [], []
    for engine in engines:
        plan = TrainConfig(
            "binary_crossentropy",
            "sgd",
            learning_rate=0.5,
            epochs=3,
            callbacks=(Halve(), BestLast()),
            engine=engine,
        )
        fit = train(recipe, start, rows, plan)
        curves.append(fit.history["loss"])
        weights.append(fit.network.variables["dense/kernel"])
    same = len(engines) - 1
    np.testing.assert_allclose(curves[1:], [curves[0]] * same, rtol=1e-5)
    np.testing.assert_allclose(weights[1:], [weights[0]] * same, rtol=1e-4, atol=1e-5)
    plan = TrainConfig("binary_crossentropy", "sgd", learning_rate=0.25, epochs=1, engine="graph")
    one_epoch = train(recipe, start, rows, plan)
    np.testing.assert_allclose(
        weights[0], one_epoch.network.variables["dense/kernel"], rtol=1e-4, atol=1e-5
    )


def kerases_own(folder):
    return (
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=1, min_delta=10.0),
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
        keras.callbacks.CSVLogger(folder / "log.csv"),
        keras.callbacks.ModelCheckpoint(folder / "{epoch}.keras"),
        keras.callbacks.EarlyStopping(
            monitor="val_loss", patience=3, min_delta=10.0, restore_best_weights=True
        ),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None),
    )


@pytest.mark.slow
def test_built_in_callbacks_do_the_same_with_all_engines(recipe, start, binary_rows, tmp_path):
    fits, logs, saved = [], [], []
    for engine in ENGINES:
        folder = tmp_path / engine
        folder.mkdir()
        callbacks = kerases_own(folder)
        plan = TrainConfig("binary_crossentropy", epochs=9, callbacks=callbacks, engine=engine)
        fits.append(train(recipe, start, binary_rows(), plan, validation=binary_rows(seed=1)))
        logs.append(np.loadtxt(folder / "log.csv", delimiter=",", skiprows=1))
        saved.append(keras.models.load_model(folder / "2.keras", compile=False).get_weights())
        assert (folder / "log.csv").read_text().startswith("epoch,learning_rate,loss,val_loss\n")
    assert [fit.n_epochs for fit in fits] == [4, 4, 4]
    rates = fits[0].history["learning_rate"]
    assert rates[0] > rates[1] > rates[2]
    for fit, log, weights in zip(fits, logs, saved, strict=True):
        np.testing.assert_allclose(log, logs[-1], rtol=1e-5)
        for name, curve in fits[-1].history.items():
            np.testing.assert_allclose(fit.history[name], curve, rtol=1e-5, err_msg=name)
        for path, array in fits[-1].network.variables.items():
            np.testing.assert_allclose(fit.network.variables[path], array, rtol=1e-4, atol=1e-6)
        for found, expected in zip(weights, saved[-1], strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("engine", ["stepwise", "graph", "xla"])
def test_callbacks_of_epochs_are_called_once_an_epoch(engine, recipe, start, binary_rows, tmp_path):
    """That Keras' own `fit` runs in none of them is what makes them fast."""
    plan = TrainConfig(
        "binary_crossentropy", epochs=2, callbacks=kerases_own(tmp_path), engine=engine
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(keras.Model, "fit", None)
        fit = train(recipe, start, binary_rows(), plan, validation=binary_rows(seed=1))
    assert fit.n_epochs == 2


class Batches(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.count = 0

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1


def test_batch_callbacks_are_called(recipe, start, binary_rows):
    callback = Batches()
    plan = TrainConfig("binary_crossentropy", epochs=2, batch_size=32, callbacks=(callback,))
    watched = train(recipe, start, binary_rows(75), plan)
    assert callback.count == 6
    alone = train(recipe, start, binary_rows(75), TrainConfig("binary_crossentropy", epochs=2))
    np.testing.assert_allclose(watched.history["loss"], alone.history["loss"], rtol=1e-5)


class WatchingCheckpoint(keras.callbacks.ModelCheckpoint):
    on_train_batch_end = Batches.on_train_batch_end


class WatchingTerminator(keras.callbacks.TerminateOnNaN):
    on_test_end = Batches.on_train_batch_end


def test_batches_are_watched_by_hooks_of_any_origin():
    alone = keras.callbacks.Callback()
    assert not watches_batches(alone)
    alone.on_train_batch_end = print
    for callback in (alone, WatchingCheckpoint("a.keras"), WatchingTerminator()):
        assert watches_batches(callback)


class Freeze(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.layers[1].trainable = False


def test_a_program_that_callbacks_changed_is_not_used_again(recipe, start, binary_rows):
    rows = binary_rows()
    plain = TrainConfig("binary_crossentropy", epochs=1, engine="graph")
    expected = train(recipe, start, rows, plain).network.variables["dense/kernel"]
    plan = TrainConfig("binary_crossentropy", epochs=1, engine="graph", callbacks=(Freeze(),))
    train(recipe, start, rows, plan)
    made = POOL.made
    again = train(recipe, start, rows, plain).network.variables["dense/kernel"]
    np.testing.assert_array_equal(again, expected)
    shown = TrainConfig("binary_crossentropy", epochs=1, engine="graph", callbacks=(Diary(),))
    again = train(recipe, start, rows, shown).network.variables["dense/kernel"]
    np.testing.assert_array_equal(again, expected)
    assert POOL.made == made + 1


class FreezeAtFirst(keras.callbacks.Callback):
    def __init__(self, event):
        super().__init__()
        setattr(self, event, self.freeze)

    def freeze(self, *args, **kwargs):
        self.model.layers[1].trainable = False

    def on_train_end(self, logs=None):
        self.model.layers[1].trainable = True


def test_layers_that_callbacks_freeze_all_are_said(recipe, start, binary_rows):
    def freeze(*args):
        for layer in callback.model.layers:
            layer.trainable = False

    callback = keras.callbacks.LambdaCallback(on_train_begin=freeze)
    plan = TrainConfig("binary_crossentropy", epochs=1, callbacks=(callback,))
    with pytest.raises(ValueError, match="All layers were frozen by callbacks"):
        train(recipe, start, binary_rows(), plan)


@pytest.mark.slow(first=2)
@pytest.mark.parametrize(
    ("engine", "event"),
    [
        ("stepwise", "on_train_begin"),
        ("graph", "on_epoch_begin"),
        ("xla", "on_train_begin"),
        ("keras", "on_train_begin"),
        ("graph", "on_train_begin"),
        ("xla", "on_epoch_begin"),
        ("keras", "on_epoch_begin"),
        ("stepwise", "on_epoch_begin"),
    ],
)
def test_layers_that_callbacks_freeze_at_first_are_not_trained(
    engine, event, recipe, start, binary_rows
):
    rows, learned = binary_rows(), []
    for each in (engine, "keras"):
        callbacks = (FreezeAtFirst(event),)
        plan = TrainConfig("binary_crossentropy", epochs=2, engine=each, callbacks=callbacks)
        learned.append(train(recipe, start, rows, plan).network.variables)
    frozen = {path for path, array in start.items() if np.array_equal(learned[0][path], array)}
    assert frozen
    assert frozen < set(start)
    for path, array in learned[1].items():
        np.testing.assert_allclose(learned[0][path], array, atol=1e-6)
    plan = replace(plan, engine=engine, callbacks=(Diary(),))
    after = train(recipe, start, rows, plan).network.variables
    assert not any(np.array_equal(after[path], start[path]) for path in start)


@pytest.mark.slow(first=2)
@pytest.mark.parametrize("engine", ["graph", "keras", "stepwise", "xla"])
def test_early_stopping_restores_the_best_epoch(engine, recipe, start, binary_rows):
    rows = binary_rows(60)
    wrong = binary_rows(60, seed=1)
    wrong = TrainingData(wrong.inputs, 1 - wrong.targets)  # gets worse as training goes on
    plan = TrainConfig(
        "binary_crossentropy", learning_rate=0.02, epochs=30, patience=3, engine=engine, tol=0.0
    )
    fit = train(recipe, start, rows, plan, validation=wrong)
    curve = fit.history["val_loss"]
    best = int(np.argmin(curve)) + 1
    assert fit.n_epochs == len(curve) == best + 3 < 30
    short = TrainConfig("binary_crossentropy", learning_rate=0.02, epochs=best, engine=engine)
    until_best = train(recipe, start, rows, short)
    for path, array in until_best.network.variables.items():
        np.testing.assert_allclose(fit.network.variables[path], array, rtol=1e-6, atol=1e-7)


def test_early_stopping_needs_more_than_tol(recipe, start, binary_rows):
    plan = TrainConfig("binary_crossentropy", epochs=30, patience=2, tol=10.0)
    fit = train(recipe, start, binary_rows(), plan, validation=binary_rows(seed=1))
    assert fit.n_epochs == 3  # the first epoch is always an improvement
    with pytest.raises(ValueError, match=r"patience.*validation"):
        train(recipe, start, binary_rows(), plan)


@pytest.mark.parametrize("engine", ["graph", "stepwise"])
def test_validation_metrics_are_of_validation_rows_alone(engine, recipe, start, binary_rows):
    """No training row may count: a score on rows that were learned from is too good."""
    held_out = binary_rows(60, seed=1)
    held_out.targets[:] = 1 - held_out.targets  # no mean with training rows comes near
    plan = TrainConfig("binary_crossentropy", epochs=2, metrics=("mse",), engine=engine)
    fit = train(recipe, start, binary_rows(), plan, validation=held_out)
    (p,) = fit.network.outputs(held_out.inputs)
    expected = np.mean((p - held_out.targets) ** 2)
    np.testing.assert_allclose(fit.history["val_mse"][-1], expected, rtol=1e-5)


def test_validation_loss_is_a_weighted_mean(recipe, start, binary_rows):
    held_out = binary_rows(2500, weights=True, seed=2)
    held_out.weights[::3] = 0.0
    plan = TrainConfig("binary_crossentropy", epochs=1)
    fit = train(recipe, start, binary_rows(), plan, validation=held_out)
    (p,) = fit.network.outputs(held_out.inputs)
    p, y = p[:, 0].astype(float), held_out.targets[:, 0]
    losses = -np.where(y == 1, np.log(p), np.log1p(-p))
    np.testing.assert_allclose(
        fit.history["val_loss"], [np.average(losses, weights=held_out.weights)], rtol=1e-5
    )


@pytest.mark.slow(first=2)
@each_engine
def test_a_loss_that_is_not_finite_is_reported_with_its_epoch(engine, recipe, start, binary_rows):
    rows = binary_rows()
    rows.targets[7] = np.nan
    plan = TrainConfig("binary_crossentropy", epochs=3, engine=engine)
    with pytest.raises(ValueError, match=r"nan in epoch 1\b.*learning_rate"):
        train(recipe, start, rows, plan)
    fit = train(recipe, start, binary_rows(), plan)  # and the next fit starts clean
    assert np.isfinite(fit.history["loss"]).all()


@pytest.mark.slow(first=2)
@each_engine
def test_rows_of_weight_zero_do_nothing(engine, recipe, start, binary_rows):
    rows = binary_rows(64)
    rows.weights = np.r_[np.ones(32), np.zeros(32)]
    plan = TrainConfig("binary_crossentropy", epochs=2, batch_size=64, engine=engine)
    fit = train(recipe, start, rows, plan)
    half = TrainingData({"numeric": rows.inputs["numeric"][:32]}, rows.targets[:32])
    expected = train(recipe, start, half, plan)
    np.testing.assert_allclose(fit.history["loss"], expected.history["loss"], rtol=1e-5)


@pytest.mark.slow(first=1)
@each_engine
def test_a_loss_without_reduction_is_logged_as_a_mean(engine, recipe, start, binary_rows):
    curves = []
    for each in (engine, "keras"):
        loss = keras.losses.BinaryCrossentropy(reduction=None)
        plan = TrainConfig(loss, epochs=2, engine=each)
        fit = train(recipe, start, binary_rows(), plan, validation=binary_rows(seed=1))
        curves.append([fit.history["loss"], fit.history["val_loss"]])
    np.testing.assert_allclose(*curves, rtol=1e-5)


def test_verbose_prints_one_line_an_epoch(recipe, start, binary_rows, capsys):
    train(recipe, start, binary_rows(), TrainConfig("binary_crossentropy", epochs=2, verbose=1))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" - ")[0] for line in lines] == ["Epoch 1/2", "Epoch 2/2"]


class OwnStep(keras.Model):
    def train_step(self, data):
        logs = super().train_step(data)
        return {**logs, "seen": keras.ops.cast(1.0, "float32")}


def test_a_custom_train_step_is_called(blueprint, binary_rows):
    def build():
        i = {"numeric": keras.Input((6,), name="numeric")}
        return OwnStep(i, keras.layers.Dense(1, activation="sigmoid")(i["numeric"]))

    recipe = blueprint(build, key=None)
    plan = TrainConfig("binary_crossentropy", epochs=2)
    start = initial_variables(recipe, 0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(keras.Model, "fit", None)  # its steps are compiled, too
        fit = train(recipe, start, binary_rows(), plan, validation=binary_rows(seed=1))
    assert fit.history["seen"] == [1.0, 1.0]
    plan = TrainConfig("binary_crossentropy", epochs=2, engine="keras")
    expected = train(recipe, start, binary_rows(), plan, validation=binary_rows(seed=1))
    assert fit.history.keys() == expected.history.keys()
    for name, curve in expected.history.items():
        np.testing.assert_allclose(fit.history[name], curve, rtol=1e-5, err_msg=name)


class Counted(keras.Model):
    """The way Keras' guide shows it: metrics of its own, kept by the model."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.error = keras.metrics.MeanAbsoluteError(name="error")

    @property
    def metrics(self):
        return [self.error]

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = keras.ops.mean(keras.losses.binary_crossentropy(y, y_pred))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        self.error.update_state(y, y_pred)
        return {"error": self.error.result()}


def test_metrics_of_a_custom_train_step_are_averaged_over_an_epoch(blueprint, binary_rows):
    def build():
        i = {"numeric": keras.Input((6,), name="numeric")}
        return Counted(i, keras.layers.Dense(1, activation="sigmoid")(i["numeric"]))

    recipe = blueprint(build, key=None)
    start = initial_variables(recipe, 0)
    curves = [
        train(recipe, start, binary_rows(), TrainConfig("mse", epochs=3, engine=engine)).history[
            "error"
        ]
        for engine in ("graph", "keras")
    ]
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-5)


def test_early_stopping_on_what_a_custom_step_does_not_report_is_refused(blueprint, binary_rows):
    def build():
        i = {"numeric": keras.Input((6,), name="numeric")}
        return Counted(i, keras.layers.Dense(1, activation="sigmoid")(i["numeric"]))

    recipe = blueprint(build, key=None)
    plan = TrainConfig("mse", epochs=3, patience=1, engine="keras")
    with pytest.raises(ValueError, match=r"early_stopping needs 'loss'.*report \['error'\]"):
        train(recipe, initial_variables(recipe, 0), binary_rows(), plan, validation=binary_rows())


class Untraceable(keras.layers.Layer):
    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)

    def call(self, x):
        if not hasattr(x, "numpy"):
            raise TypeError("needs numbers")
        return x + 0.0 * x.numpy().sum()


def test_networks_that_cannot_be_traced_warn_and_are_trained(blueprint, binary_rows):
    def build():
        i = {"numeric": keras.Input((6,), name="numeric")}
        x = Untraceable()(i["numeric"])
        return keras.Model(i, keras.layers.Dense(1, activation="sigmoid")(x))

    recipe = blueprint(build, key=None)
    plan = TrainConfig("binary_crossentropy", epochs=1)
    with pytest.warns(UserWarning, match=r"Keras' own `fit`.*TypeError.*needs numbers"):
        fit = train(recipe, initial_variables(recipe, 0), binary_rows(), plan)
    plain = blueprint(
        lambda: keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, "sigmoid")]), key=None
    )
    same_start = dict(
        zip(initial_variables(plain, 0), initial_variables(recipe, 0).values(), strict=True)
    )
    expected = train(plain, same_start, binary_rows(), plan)
    np.testing.assert_allclose(fit.history["loss"], expected.history["loss"], rtol=1e-5)
    assert fit.network.outputs(binary_rows().inputs)[0].shape == (75, 1)


class Tunes(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.optimizer.momentum = 0.9


def test_an_optimizer_that_callbacks_changed_is_not_used_again(recipe, start, binary_rows):
    rows = binary_rows()

    def fit(callback, **more):
        plan = TrainConfig(
            "binary_crossentropy",
            keras.optimizers.SGD(0.1, momentum=0.1),
            epochs=2,
            engine="graph",
            callbacks=(callback,),
        )
        return train(recipe, start, rows, plan, **more).network.variables["dense/kernel"]

    held_out = binary_rows(seed=1)
    expected = fit(Diary(), validation=held_out)
    POOL._idle.clear()
    fit(Tunes())
    np.testing.assert_array_equal(fit(Diary(), validation=held_out), expected)


class Swaps(keras.callbacks.Callback):
    """Other weights for the validation, as `SwapEMAWeights` does it."""

    def on_test_begin(self, logs=None):
        self.kept = self.model.get_weights()
        self.model.set_weights([0 * array for array in self.kept])

    def on_test_end(self, logs=None):
        self.model.set_weights(self.kept)


def test_callbacks_are_called_between_training_and_validation(recipe, start, binary_rows):
    plan = TrainConfig("binary_crossentropy", epochs=2, callbacks=(Swaps(),))
    fit = train(recipe, start, binary_rows(), plan, validation=binary_rows(seed=1))
    np.testing.assert_allclose(fit.history["val_loss"], np.log(2), rtol=1e-5)


def test_weights_that_callbacks_swap_in_for_the_validation_are_kept(recipe, start, binary_rows):
    held_out = binary_rows(seed=1)
    plan = TrainConfig(
        "binary_crossentropy",
        keras.optimizers.SGD(0.5, use_ema=True, ema_momentum=0.9),
        epochs=3,
        patience=3,
        callbacks=(keras.callbacks.SwapEMAWeights(),),
    )
    fit = train(recipe, start, binary_rows(), plan, validation=held_out)
    (p,) = fit.network.outputs(held_out.inputs)
    loss = np.mean(keras.losses.binary_crossentropy(held_out.targets, p))
    assert loss == pytest.approx(min(fit.history["val_loss"]), rel=1e-5)


def test_a_failed_fit_does_not_affect_the_program(recipe, start, binary_rows):
    plan = TrainConfig("binary_crossentropy", epochs=3)
    expected = train(recipe, start, binary_rows(), plan, validation=binary_rows(seed=1))
    with (
        pytest.warns(UserWarning, match="trained"),
        pytest.raises(Exception, match=r"shape|dimension|incompatible"),
    ):
        train(recipe, start, binary_rows(), plan, validation=binary_rows(n_features=3))
    again = train(recipe, start, binary_rows(), plan, validation=binary_rows(seed=1))
    assert again.history == expected.history


class Both(keras.metrics.Metric):
    def __init__(self, name="both", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.mean = keras.metrics.Mean()

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.mean.update_state(y_pred)

    def result(self):
        return {"low": self.mean.result(), "high": 1 + self.mean.result()}

    def reset_state(self):
        self.mean.reset_state()


def test_metrics_may_give_several_values(recipe, start, binary_rows):
    plan = TrainConfig("binary_crossentropy", epochs=2, metrics=(Both(),))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(keras.Model, "fit", None)
        fit = train(recipe, start, binary_rows(), plan, validation=binary_rows(seed=1))
    names = str(sorted(fit.history))
    assert "loss" in names
    assert "both" in names or "low" in names


def test_patience_zero_stops_at_the_first_epoch_without_improvement(recipe, start, binary_rows):
    plan = TrainConfig("binary_crossentropy", epochs=5, patience=0, tol=10.0)
    fit = train(recipe, start, binary_rows(), plan, validation=binary_rows(seed=1))
    assert fit.n_epochs == 2
