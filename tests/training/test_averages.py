"""Weights that end each epoch as their moving average over its last steps."""

import functools

import keras
import numpy as np
import pytest

from skstack._training import program
from skstack._training.config import StepRules, TrainConfig
from skstack._training.initial_weights import initial_variables
from skstack._training.train import train

AVERAGED = StepRules(averages_weights=True)


def network(dtype="float32"):
    inputs = {"numeric": keras.Input((6,), name="numeric")}
    x = keras.layers.Dense(5, activation="tanh", dtype=dtype)(inputs["numeric"])
    return keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))


@pytest.fixture
def recipe(blueprint):
    return blueprint(network, key="averages")


def fitted(recipe, rows, start=None, rules=AVERAGED, **settings):
    settings = {"epochs": 1, "batch_size": 16, "learning_rate": 0.02, **settings}
    config = TrainConfig("binary_crossentropy", rules=rules, **settings)
    start = initial_variables(recipe, 0) if start is None else start
    return train(recipe, start, rows, config)


class Recorder(keras.callbacks.Callback):
    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append([variable.numpy() for variable in self.model.trainable_variables])


def averaged(steps):
    """The average that an epoch of these steps ends with."""
    length = np.clip(len(steps) / 2, 1, 20)
    mean = steps[0]
    for step in steps[1:]:
        mean = [old + (new - old) / length for old, new in zip(mean, step, strict=True)]
    return mean


CASES = [(7, "graph"), (75, "stepwise"), (2, "keras"), (1, "stepwise")]
CASES += [
    (n_steps, engine)
    for n_steps in (1, 2, 7, 75)
    for engine in ("graph", "stepwise", "xla", "keras")
    if (n_steps, engine) not in CASES
]


@pytest.mark.slow(first=4)
@pytest.mark.parametrize(("n_steps", "engine"), CASES)
def test_an_epoch_ends_with_the_average_of_its_last_steps(engine, n_steps, recipe, binary_rows):
    rows, recorder = binary_rows(16 * n_steps - 3), Recorder()
    plain = {"rules": StepRules(), "engine": "keras", "callbacks": [recorder]}
    last = fitted(recipe, rows, **plain).network.variables
    fit = fitted(recipe, rows, engine=engine).network.variables
    for (path, found), expected in zip(fit.items(), averaged(recorder.steps), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6)
        assert np.allclose(found, last[path], atol=2e-6) == (n_steps <= 2)


OPTIMIZERS = {
    "accumulated gradients": lambda: keras.optimizers.Adam(gradient_accumulation_steps=3),
}
if hasattr(keras.optimizers, "MultiOptimizer"):  # not in the oldest Keras that is supported
    OPTIMIZERS["several"] = lambda: keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            keras.optimizers.Adam(0.02), {".*bias": keras.optimizers.SGD(0.1)}
        )
    )
OPTIMIZERS |= {
    "scaled losses": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
    "a schedule": lambda: keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 9)),
}


@pytest.mark.slow(first=2)
@pytest.mark.parametrize(
    ("name", "engine"),
    [(name, ("stepwise", "keras")[place % 2]) for place, name in enumerate(OPTIMIZERS)]
    + [(name, ("keras", "stepwise")[place % 2]) for place, name in enumerate(OPTIMIZERS)],
)
def test_any_optimizer_may_be_averaged(name, engine, recipe, binary_rows):
    rows, recorder = binary_rows(109), Recorder()
    settings = {"optimizer": OPTIMIZERS[name](), "learning_rate": None}
    plain = {"rules": StepRules(), "engine": "keras", "callbacks": [recorder]}
    fitted(recipe, rows, **{**settings, **plain})
    fit = fitted(recipe, rows, engine=engine, **settings).network.variables
    for found, expected in zip(fit.values(), averaged(recorder.steps), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6)
    assert np.abs(recorder.steps[-1][0] - next(iter(fit.values()))).max() > 1e-4


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("engine", ["graph", "xla"])
def test_an_epoch_starts_from_the_average_of_the_one_before(engine, recipe, binary_rows):
    rows = binary_rows(100)
    rows.inputs["numeric"][:], rows.targets[:] = rows.inputs["numeric"][0], 1.0  # in any order
    settings = {"optimizer": "sgd", "learning_rate": 0.5, "engine": engine}
    at_once = fitted(recipe, rows, epochs=2, **settings).network.variables
    first = fitted(recipe, rows, **settings).network.variables
    second = fitted(recipe, rows, first, **settings).network.variables
    for path, array in at_once.items():
        np.testing.assert_array_equal(array, second[path])
        assert np.abs(array - first[path]).max() > 1e-2


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_averages_are_as_precise_as_their_steps(dtype, blueprint, binary_rows):
    """In bfloat16 the average of a weight that does not move would not stay what it is."""
    recipe = blueprint(functools.partial(network, dtype))
    start = {path: np.full_like(each, 0.37) for path, each in initial_variables(recipe, 0).items()}
    still = {"learning_rate": 1e-30, "optimizer": "sgd", "epochs": 10}
    fit = fitted(recipe, binary_rows(16 * 75), start, **still).network.variables
    assert str(fit["dense/kernel"].dtype) == dtype
    for path, array in fit.items():
        rtol = 1e-14 if dtype == "float64" and path.startswith("dense/") else 1e-6
        np.testing.assert_allclose(array.astype(float), start[path].astype(float), rtol=rtol)


@pytest.mark.slow(first=2)
@pytest.mark.parametrize("engine", ["graph", "stepwise", "xla"])
def test_parts_of_an_epoch_give_the_same_bits(engine, recipe, binary_rows, monkeypatch):
    fits = []
    for seconds in (1e6, 0.0):
        monkeypatch.setattr(program, "_SECONDS_PER_CALL", seconds)
        fits.append(fitted(recipe, binary_rows(75), epochs=3, engine=engine))
    for path, array in fits[0].network.variables.items():
        np.testing.assert_array_equal(array, fits[1].network.variables[path])


def test_a_fit_that_diverged_leaves_nothing_in_the_averages(recipe, binary_rows):
    rows = binary_rows(75)
    before = fitted(recipe, rows).network.variables
    with pytest.raises(ValueError, match="smaller `learning_rate`"):
        fitted(recipe, rows, learning_rate=np.inf)
    for path, array in fitted(recipe, rows).network.variables.items():
        np.testing.assert_array_equal(array, before[path])


def test_callbacks_see_the_averages(recipe, binary_rows):
    rows, seen = binary_rows(75), []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append([variable.numpy() for variable in self.model.trainable_variables])

    fit = fitted(recipe, rows, callbacks=[Watch()]).network.variables
    for found, expected in zip(seen[0], fit.values(), strict=True):
        np.testing.assert_array_equal(found, expected)
    alone = fitted(recipe, rows).network.variables
    for path, array in alone.items():
        np.testing.assert_allclose(fit[path], array, atol=1e-6)


@pytest.mark.parametrize("engine", ["stepwise", "keras"])
def test_layers_that_callbacks_freeze_keep_their_bits(engine, recipe, binary_rows):
    class Freeze(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.model.layers[1].trainable = False

    start = initial_variables(recipe, 0)
    fit = fitted(recipe, binary_rows(75), start, epochs=3, engine=engine, callbacks=[Freeze()])
    weights = fit.network.variables
    changed = [path for path in weights if (weights[path] != start[path]).any()]
    assert changed == list(start)[2:]
