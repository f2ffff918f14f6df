"""When programs are reused, and when not."""

import itertools
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from skstack._training import program
from skstack._training.config import TrainConfig
from skstack._training.fingerprint import fingerprint
from skstack._training.initial_weights import initial_variables
from skstack._training.program import POOL, Pool
from skstack._training.train import train


def network(units=7, dropout=0.0, scale=None):
    def build():
        i = {"numeric": keras.Input((6,), name="numeric")}
        x = keras.layers.Dense(units, activation="relu")(i["numeric"])
        x = keras.layers.Dropout(dropout)(x) if dropout else x
        return keras.Model(i, keras.layers.Dense(1, activation="sigmoid")(x))

    return build


def traces():
    return sum(each.traces for each in POOL.programs())


@pytest.fixture
def keyed(blueprint):
    def make(**parameters):
        return blueprint(network(**parameters), key=("tests", *sorted(parameters.items())))

    return make


@pytest.mark.slow(first=2)
@pytest.mark.parametrize("engine", ["stepwise", "graph", "xla"])
def test_second_fit_compiles_nothing(engine, keyed, binary_rows):
    recipe = keyed(units=11)

    def fit(n_rows=70, seed=0, **changes):
        plan = TrainConfig("binary_crossentropy", engine=engine, seed=seed, **changes)
        return train(recipe, initial_variables(recipe, seed), binary_rows(n_rows), plan)

    fit(epochs=2)
    made, traced = POOL.made, traces()
    fit(epochs=13)
    fit(epochs=2, learning_rate=0.1)
    fit(epochs=2, seed=5)
    fit(epochs=2, n_rows=90)
    fit(epochs=2, optimizer=keras.optimizers.Adam(0.3))
    assert (POOL.made, traces()) == (made, traced)


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("engine", ["stepwise", "graph", "xla"])
def test_one_program_uses_the_learning_rate_of_each_fit(engine, keyed, binary_rows):
    recipe, rows = keyed(units=14), binary_rows()
    start = initial_variables(recipe, 0)
    made = POOL.made
    curves = {
        (name, rate): train(
            recipe,
            start,
            rows,
            TrainConfig("binary_crossentropy", "sgd", learning_rate=rate, epochs=3, engine=name),
        ).history["loss"]
        for rate in (0.01, 0.3, 0.05)
        for name in (engine, "keras")
    }
    assert POOL.made - made <= 1
    for rate in (0.01, 0.3, 0.05):
        np.testing.assert_allclose(curves[engine, rate], curves["keras", rate], rtol=1e-5)
    assert len({curve[-1] for (name, _), curve in curves.items() if name == engine}) == 3


@pytest.mark.slow
def test_constants_of_a_trace_are_not_shared(keyed, binary_rows):
    recipe, rows = keyed(units=12), binary_rows()
    start = initial_variables(recipe, 0)

    def made_by(**changes):
        plan = {"loss": "binary_crossentropy", "epochs": 1, "engine": "graph", **changes}
        before = POOL.made
        train(recipe, start, rows, TrainConfig(**plan))
        return POOL.made - before

    assert made_by() == 1
    assert made_by() == 0
    for change in (
        {"batch_size": 16},
        {"optimizer": keras.optimizers.SGD(momentum=0.5)},
        {"optimizer": keras.optimizers.SGD(momentum=0.6)},
        {"learning_rate": keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.7)},
        {"loss": keras.losses.BinaryFocalCrossentropy(gamma=1.0)},
        {"loss": keras.losses.BinaryFocalCrossentropy(gamma=2.0)},
        {"metrics": ("accuracy",)},
    ):
        assert made_by(**change) == 1, change
        assert made_by(**change) == 0, change


def loss_with(power):
    return lambda y, p: keras.ops.mean(keras.ops.abs(y - p) ** power, axis=-1)


def test_functions_that_look_alike_are_not_shared(keyed, binary_rows):
    recipe, rows = keyed(units=13), binary_rows()
    start = initial_variables(recipe, 0)
    one, two, again = (
        train(recipe, start, rows, TrainConfig(loss_with(power), epochs=2)).history["loss"]
        for power in (1.0, 2.0, 1.0)
    )
    assert one != two
    assert one == again
    assert fingerprint(loss_with(1.0)) == fingerprint(loss_with(1.0))


def test_a_program_uses_the_epsilon_of_its_fit(keyed, binary_rows):
    recipe, rows, epsilon = keyed(units=15), binary_rows(), keras.config.epsilon()
    start, losses = initial_variables(recipe, 0), []
    try:
        for each, engine in ((epsilon, "graph"), (5.0, "graph"), (5.0, "keras")):
            keras.config.set_epsilon(each)
            plan = TrainConfig("mape", "sgd", learning_rate=1e-9, epochs=1, engine=engine)
            losses += train(recipe, start, rows, plan).history["loss"]
    finally:
        keras.config.set_epsilon(epsilon)
    assert losses[0] > 2 * losses[1]
    assert losses[1] == pytest.approx(losses[2], rel=1e-5)


def test_unknown_networks_have_private_programs(blueprint, binary_rows):
    recipe, rows = blueprint(network(), key=None), binary_rows()
    start = initial_variables(recipe, 0)
    before, idle = POOL.made, traces()
    for _ in range(2):
        train(recipe, start, rows, TrainConfig("binary_crossentropy", epochs=1))
    assert (POOL.made - before, traces()) == (2, idle)


@pytest.mark.slow(first=1)
@pytest.mark.parametrize(
    ("engine", "metrics"),
    [
        ("graph", ("accuracy", "auc")),
        ("stepwise", ()),
        ("graph", ()),
        ("stepwise", ("accuracy", "auc")),
        ("xla", ()),
        ("xla", ("accuracy", "auc")),
    ],
)
def test_threads_sharing_a_program_learn_the_same_as_one(engine, metrics, keyed, binary_rows):
    recipe, rows = keyed(dropout=0.3), binary_rows()
    plan = TrainConfig("binary_crossentropy", epochs=30, engine=engine, metrics=metrics)
    start = initial_variables(recipe, 0)
    alone = train(recipe, start, rows, plan)
    made, traced = POOL.made, traces()
    found = []

    def work():
        found.append(train(recipe, start, rows, plan))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (POOL.made, traces()) == (made, traced)
    assert [fit.history for fit in found] == [alone.history] * 4
    for fit in found:
        for path, array in alone.network.variables.items():
            np.testing.assert_array_equal(fit.network.variables[path], array)


@pytest.mark.slow(first=2)
@pytest.mark.parametrize("engine", ["graph", "stepwise", "xla"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_a_seed_is_reproducible_after_other_fits(dropout, engine, keyed, blueprint, binary_rows):
    rows = binary_rows()
    plan = TrainConfig("binary_crossentropy", epochs=5, engine=engine)
    recipe = keyed(dropout=dropout)
    first = train(recipe, initial_variables(recipe, 4), rows, plan)
    train(
        recipe, initial_variables(recipe, 9), binary_rows(33), TrainConfig("mse", epochs=2, seed=7)
    )
    private = blueprint(recipe.function, key=None)  # nothing cached, nothing pooled
    for again in (recipe, private):
        second = train(again, initial_variables(again, 4), rows, plan)
        assert second.history == first.history
        for path, array in first.network.variables.items():
            np.testing.assert_array_equal(second.network.variables[path], array)


def own_step():
    class Own(keras.Sequential):
        def train_step(self, data):
            return super().train_step(data)

    return Own([keras.Input((6,)), keras.layers.Dense(1, activation="sigmoid")])


PARTS = {
    "masked": (network(dropout=0.2), "xla", ()),
    "exact with metrics": (network(), "xla", ("accuracy", "mse")),
    "graph": (network(dropout=0.2), "graph", ()),
    "graph with metrics": (network(), "graph", ("accuracy", "mse")),
    "own step": (own_step, "graph", ()),
    "stepwise": (network(dropout=0.2), "stepwise", ()),
    "stepwise with metrics": (network(dropout=0.2), "stepwise", ("accuracy",)),
    "own single step": (own_step, "stepwise", ()),
}
FIRST = [("stepwise with metrics", True), ("masked", False), ("graph with metrics", False)]
CASES = [*FIRST, *(pair for pair in itertools.product(PARTS, (False, True)) if pair not in FIRST)]


@pytest.mark.slow(first=3)
@pytest.mark.parametrize(("name", "stops"), CASES)
def test_epochs_trained_in_parts_give_the_same_bits(
    name, stops, blueprint, binary_rows, monkeypatch
):
    build, engine, metrics = PARTS[name]
    recipe = blueprint(build, key=("parts", engine, metrics, build is own_step))
    validation = binary_rows(30, seed=1) if stops else None
    config = TrainConfig(
        "binary_crossentropy", epochs=5, batch_size=16, metrics=metrics, engine=engine,
        patience=2 if stops else None, tol=1.0,
        monitor=("accuracy", True) if stops and metrics else None,
    )  # fmt: skip
    start, rows = initial_variables(recipe, 0), binary_rows(75, weights=True)
    calls, call = [], program.CompiledFit._call
    monkeypatch.setattr(
        program.CompiledFit, "_call", lambda *args: calls.append(args) or call(*args)
    )
    fits = []
    for seconds in (1e6, 0.0):  # whole epochs, however slow the machine is
        monkeypatch.setattr(program, "_SECONDS_PER_CALL", seconds)
        fits.append(train(recipe, start, rows, config, validation=validation))
    whole, parts = fits
    n_epochs = 3 if stops else 5
    one_by_one = metrics or build is own_step
    assert len(calls) == (n_epochs if one_by_one else 1) + 5 * n_epochs
    assert whole.n_epochs == parts.n_epochs == n_epochs
    assert whole.history == parts.history
    for path, array in whole.network.variables.items():
        np.testing.assert_array_equal(array, parts.network.variables[path])


@pytest.mark.parametrize("engine", ["graph", "stepwise"])
def test_hold_out_rows_are_evaluated_in_chunks(engine, keyed, binary_rows, monkeypatch):
    recipe, held_out = keyed(units=9), binary_rows(2_500, seed=1)
    plan = {"loss": "binary_crossentropy", "epochs": 2}
    start, rows = initial_variables(recipe, 0), binary_rows()
    expected, fit = (
        train(recipe, start, rows, TrainConfig(**plan, engine=each), validation=held_out)
        for each in ("keras", engine)
    )
    (single,) = [
        each for each in POOL.programs() if each.key is not None and recipe.key in each.key
    ]
    assert single.rows_at_once < 2_500
    np.testing.assert_allclose(fit.history["val_loss"], expected.history["val_loss"], rtol=1e-5)


@pytest.mark.parametrize("engine", ["graph", "stepwise"])
def test_an_epoch_whose_hold_out_loss_is_nan_is_not_the_best(engine, keyed, binary_rows):
    """Whatever the metric is that early stopping monitors."""

    def loss(y_true, y_pred):
        squares = keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)
        return keras.ops.where(y_true[:, 0] > 1, np.nan, squares)

    recipe, held_out = keyed(units=9), binary_rows(20, seed=1)
    held_out.targets[:] = 2.0
    plan = TrainConfig(
        loss, metrics=["mae"], monitor=("mae", False), epochs=9, patience=2, engine=engine
    )
    start = initial_variables(recipe, 0)
    assert train(recipe, start, binary_rows(), plan, validation=held_out).n_epochs == 2


def test_xla_compiles_what_it_trains(keyed, binary_rows):
    """Which shows in that it refuses strings."""

    def loss(y_true, y_pred):
        length = tf.strings.length(tf.as_string(y_true[:, 0]))
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1) * tf.cast(
            length, "float32"
        )

    recipe, rows = keyed(units=9), binary_rows()
    start = initial_variables(recipe, 0)
    train(recipe, start, rows, TrainConfig(loss, engine="graph", epochs=1))
    with pytest.warns(UserWarning, match="This network is trained without XLA"):
        train(recipe, start, rows, TrainConfig(loss, engine="xla", epochs=1))


class Untraceable(keras.metrics.Metric):
    """Counts batches; it cannot be reset in a trace."""

    def __init__(self):
        super().__init__(name="batches")
        self.total = self.add_weight(shape=(), initializer="zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(1.0)

    def result(self):
        return self.total

    def reset_state(self):
        if float(self.total.numpy()) != 0.0:
            self.total.assign(0.0)


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("engine", ["stepwise", "graph"])
def test_a_metric_that_cannot_be_reset_in_a_trace_is_left_to_keras(engine, keyed, binary_rows):
    recipe = keyed(units=10)
    plan = TrainConfig("binary_crossentropy", epochs=2, metrics=[Untraceable()], engine=engine)
    with pytest.warns(UserWarning, match="step by step through Keras' own `fit`"):
        fit = train(recipe, initial_variables(recipe, 0), binary_rows(75), plan)
    assert fit.history["batches"] == [3.0, 3.0]


class Idle:
    def __init__(self, sound=True):
        self.sound = sound

    def is_unmodified(self):
        return self.sound


def test_fits_share_a_program_unless_there_are_callbacks():
    pool = Pool(max_programs=2)
    with pool.program("a", Idle) as first, pool.program("a", Idle) as second:
        assert first is second
        with (
            pool.program("a", Idle, callbacks=True) as third,
            pool.program("a", Idle, callbacks=True) as _,
        ):
            assert third is not first
    assert pool.made == 3
    with pool.program("a", Idle, callbacks=True) as again:
        assert again is not first
    assert pool.made == 3


def test_the_pool_drops_the_oldest_program():
    pool = Pool(max_programs=2)
    for key in "abc":
        for callbacks in (False, True):
            with pool.program(key, Idle, callbacks=callbacks):
                pass
    assert len(pool.programs()) == 4
    made = pool.made
    for key in "cba":
        with pool.program(key, Idle):
            pass
    assert pool.made == made + 1


def test_programs_changed_by_callbacks_are_not_reused():
    pool = Pool()
    with pool.program("a", lambda: Idle(sound=False), callbacks=True):
        pass
    assert pool.programs() == []


def test_threads_wait_for_the_thread_that_builds_the_program():
    pool, begun, go_on, found = Pool(), threading.Event(), threading.Event(), []

    def make():
        begun.set()
        assert go_on.wait(30)
        return Idle()

    def work():
        with pool.program("a", make) as program:
            found.append(program)

    threads = [threading.Thread(target=work) for _ in range(4)]
    threads[0].start()
    assert begun.wait(30)
    for thread in threads[1:]:
        thread.start()
    with pool.program("b", Idle):  # another key does not wait
        pass
    go_on.set()
    for thread in threads:
        thread.join()
    assert pool.made == 2
    assert len(set(map(id, found))) == 1


def test_a_program_is_rebuilt_after_an_error(keyed, binary_rows):
    pool = Pool()

    def fails():
        raise KeyError

    with pytest.raises(KeyError), pool.program("a", fails):
        pass
    with pool.program("a", Idle) as program:
        assert isinstance(program, Idle)
