"""The compiled roads learn what `keras.Model.fit` learns on the same batches."""

import keras
import numpy as np
import pytest

from skstack.training import Plan, Rows, initial_variables, train
from skstack.training._seeds import build, named_variables
from skstack.training._tables import Orders

N_FEATURES = 6


def inputs():
    return {"numeric": keras.Input((N_FEATURES,), name="numeric")}


def head(x):
    return keras.layers.Dense(1, activation="sigmoid", name="output")(x)


def mlp():
    i = inputs()
    return keras.Model(i, head(keras.layers.Dense(8, activation="relu")(i["numeric"])))


def regularised():
    i = inputs()
    l2 = keras.regularizers.L2(0.01)
    return keras.Model(i, head(keras.layers.Dense(8, "tanh", kernel_regularizer=l2)(i["numeric"])))


def normalised():
    i = inputs()
    x = keras.layers.Dense(8, use_bias=False)(i["numeric"])
    return keras.Model(i, head(keras.layers.BatchNormalization()(x)))


def embedded():
    i = {"job": keras.Input((), name="job", dtype="int32"), **inputs()}
    x = keras.layers.Concatenate()([keras.layers.Embedding(5, 3)(i["job"]), i["numeric"]])
    return keras.Model(i, head(keras.layers.Dense(8, "relu")(x)))


def sequential():
    return keras.Sequential(
        [
            keras.Input((N_FEATURES,)),
            keras.layers.Dense(8, "relu"),
            keras.layers.Dense(1, "sigmoid"),
        ]
    )


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(8, "relu")
        self.last = keras.layers.Dense(1, "sigmoid")

    def build(self, input_shape):
        self.hidden.build(input_shape)
        self.last.build((None, 8))
        super().build(input_shape)

    def call(self, x):
        return self.last(self.hidden(x))


def subclassed():
    model = Subclassed()
    model.build((None, N_FEATURES))
    return model


def reference(blueprint, start, rows, plan, optimizer):
    """Train with Keras' own `fit`, one epoch at a time, on our order of rows."""
    model = build(blueprint)
    for path, variable in named_variables(model).items():
        variable.assign(start[path])
    model.compile(optimizer=optimizer, loss=plan.loss, metrics=list(plan.metrics) or None)
    order_of = Orders(plan.seed, len(rows))
    losses = []
    for _ in range(plan.epochs):
        order = order_of.next(1)[0]
        x = {name: array[order] for name, array in rows.inputs.items()}
        x = x if isinstance(getattr(model, "input", None), dict) else x["numeric"]
        w = None if rows.weights is None else (rows.weights / rows.weights.mean())[order]
        history = model.fit(
            x,
            rows.targets[order],
            sample_weight=w,
            batch_size=plan.batch_size,
            shuffle=False,
            verbose=0,
        )
        losses += history.history["loss"]
    return {path: v.numpy().copy() for path, v in named_variables(model).items()}, losses


def assert_close(found, expected, rtol=1e-5):
    for path, array in expected.items():
        scale = np.abs(array).max() + 1e-3
        np.testing.assert_allclose(found[path], array, atol=rtol * scale, rtol=rtol, err_msg=path)


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "decayed": lambda: keras.optimizers.Adam(0.01, weight_decay=0.02, clipnorm=0.1),
    "averaged": lambda: keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9),
    "scheduled": lambda: keras.optimizers.SGD(
        keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.7)
    ),
}
BUILDERS = (mlp, regularised, embedded, normalised, sequential, subclassed)
ROW_BY_ROW = (mlp, regularised, embedded, sequential)


def rows_for(make, binary_rows, weights):
    rows = binary_rows(weights=weights)
    if make is embedded:
        codes = np.random.default_rng(1).integers(0, 5, len(rows)).astype("int32")
        return Rows({"job": codes, **rows.inputs}, rows.targets, rows.weights)
    return rows


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("make", BUILDERS)
def test_graph_learns_what_keras_learns(make, weights, blueprint, binary_rows):
    rows, recipe = rows_for(make, binary_rows, weights), blueprint(make)
    plan = Plan("binary_crossentropy", "adam", epochs=3, engine="graph", seed=3)
    start = initial_variables(recipe, 0)
    fit = train(recipe, start, rows, plan)
    expected, losses = reference(recipe, start, rows, plan, "adam")
    assert_close(fit.network.variables, expected)
    np.testing.assert_allclose(fit.history["loss"], losses, rtol=1e-5)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("make", ROW_BY_ROW)
def test_xla_learns_what_keras_learns(make, weights, blueprint, binary_rows):
    rows, recipe = rows_for(make, binary_rows, weights), blueprint(make)
    plan = Plan("binary_crossentropy", "adam", epochs=3, engine="xla", seed=3)
    start = initial_variables(recipe, 0)
    fit = train(recipe, start, rows, plan)  # a warning, an error here, would tell of another road
    expected, losses = reference(recipe, start, rows, plan, "adam")
    assert_close(fit.network.variables, expected)
    np.testing.assert_allclose(fit.history["loss"], losses, rtol=1e-5)


@pytest.mark.parametrize("engine", ["graph", "xla"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_do_what_they_do_in_keras(name, engine, blueprint, binary_rows):
    rows, recipe = binary_rows(), blueprint(mlp)
    given = OPTIMIZERS[name]()
    plan = Plan("binary_crossentropy", given, epochs=3, engine=engine)
    start = initial_variables(recipe, 0)
    fit = train(recipe, start, rows, plan)
    if name == "averaged":  # one fit of three epochs there, for Keras averages at the end of each
        keras_fit = train(recipe, start, rows, Plan(plan.loss, given, epochs=3, engine="keras"))
        expected = keras_fit.network.variables
    else:
        expected, _ = reference(recipe, start, rows, plan, OPTIMIZERS[name]())
    assert_close(fit.network.variables, expected)
    assert not given.built, "the user's optimizer was used"


@pytest.mark.parametrize("make", BUILDERS)
def test_keras_road_learns_what_the_graph_learns(make, blueprint, binary_rows):
    rows, recipe = rows_for(make, binary_rows, True), blueprint(make)
    held_out = rows_for(make, binary_rows, True)
    start = initial_variables(recipe, 0)
    fits = [
        train(
            recipe,
            start,
            rows,
            Plan("binary_crossentropy", epochs=2, engine=engine, metrics=("accuracy",)),
            validation=held_out,
        )
        for engine in ("graph", "keras")
    ]
    assert_close(fits[1].network.variables, fits[0].network.variables)
    assert fits[0].history.keys() == fits[1].history.keys()
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} == set(fits[0].history)
    for name, curve in fits[0].history.items():
        np.testing.assert_allclose(fits[1].history[name], curve, rtol=1e-5, err_msg=name)


def test_weights_are_repetitions(blueprint, binary_rows):
    rows, recipe = binary_rows(40), blueprint(mlp)
    times = np.random.default_rng(0).integers(0, 4, 40)
    repeated = Rows(
        {"numeric": np.repeat(rows.inputs["numeric"], times, axis=0)},
        np.repeat(rows.targets, times, axis=0),
    )
    weighted = Rows(rows.inputs, rows.targets, times.astype(float))
    start = initial_variables(recipe, 0)
    plan = Plan("binary_crossentropy", epochs=5, batch_size=200, engine="graph")
    first = train(recipe, start, weighted, plan, validation=weighted)
    second = train(recipe, start, repeated, plan, validation=repeated)
    assert_close(first.network.variables, second.network.variables)
    np.testing.assert_allclose(first.history["loss"], second.history["loss"], rtol=1e-5)
    np.testing.assert_allclose(first.history["val_loss"], second.history["val_loss"], rtol=1e-5)


@pytest.mark.parametrize("engine", ["graph", "xla"])
def test_epochs_watched_one_by_one_are_the_same(engine, blueprint, binary_rows):
    rows, recipe = binary_rows(), blueprint(mlp)
    start = initial_variables(recipe, 0)
    plan = Plan("binary_crossentropy", epochs=13, engine=engine)
    at_once = train(recipe, start, rows, plan)
    watched = train(recipe, start, rows, plan, validation=binary_rows(seed=1))
    for path, array in at_once.network.variables.items():
        np.testing.assert_array_equal(watched.network.variables[path], array)
    assert watched.history["loss"] == at_once.history["loss"]


def test_continuing_is_training_on(blueprint, binary_rows):
    rows, recipe = binary_rows(), blueprint(mlp)
    start = initial_variables(recipe, 0)
    plan = Plan("binary_crossentropy", epochs=2, batch_size=len(rows), engine="graph")
    first = train(recipe, start, rows, plan)
    second = train(
        recipe, first.network.variables, rows, plan, optimizer_start=first.optimizer_variables
    )
    whole = train(
        recipe, start, rows, Plan(plan.loss, epochs=4, batch_size=len(rows), engine="graph")
    )
    assert_close(second.network.variables, whole.network.variables)
