"""Programs are used again where they may be, and only there."""

import threading

import keras
import numpy as np
import pytest

from skstack.training import Plan, fingerprint, initial_variables, train
from skstack.training._programs import POOL, Pool


def network(units=7, dropout=0.0, scale=None):
    def build():
        i = {"numeric": keras.Input((6,), name="numeric")}
        x = keras.layers.Dense(units, activation="relu")(i["numeric"])
        x = keras.layers.Dropout(dropout)(x) if dropout else x
        return keras.Model(i, keras.layers.Dense(1, activation="sigmoid")(x))

    return build


def traces():
    return sum(program.traces for programs in POOL._idle.values() for program in programs)


@pytest.fixture
def keyed(blueprint):
    def make(**parameters):
        return blueprint(network(**parameters), key=("tests", *sorted(parameters.items())))

    return make


@pytest.mark.parametrize("engine", ["graph", "xla"])
def test_second_fit_compiles_nothing(engine, keyed, binary_rows):
    recipe = keyed(units=11)

    def fit(n_rows=70, seed=0, **changes):
        plan = Plan("binary_crossentropy", engine=engine, seed=seed, **changes)
        return train(recipe, initial_variables(recipe, seed), binary_rows(n_rows), plan)

    fit(epochs=2)
    made, traced = POOL.made, traces()
    fit(epochs=13)
    fit(epochs=2, learning_rate=0.1)
    fit(epochs=2, seed=5)
    fit(epochs=2, n_rows=90)
    fit(epochs=2, optimizer=keras.optimizers.Adam(0.3))
    assert (POOL.made, traces()) == (made, traced)


def test_what_freezes_in_a_trace_is_not_shared(keyed, binary_rows):
    recipe, rows = keyed(units=12), binary_rows()
    start = initial_variables(recipe, 0)

    def made_by(**changes):
        plan = {"loss": "binary_crossentropy", "epochs": 1, "engine": "graph", **changes}
        before = POOL.made
        train(recipe, start, rows, Plan(**plan))
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
        train(recipe, start, rows, Plan(loss_with(power), epochs=2)).history["loss"]
        for power in (1.0, 2.0, 1.0)
    )
    assert one != two
    assert one == again
    assert fingerprint(loss_with(1.0)) == fingerprint(loss_with(1.0))


def test_unknown_networks_have_private_programs(blueprint, binary_rows):
    recipe, rows = blueprint(network(), key=None), binary_rows()
    start = initial_variables(recipe, 0)
    before, idle = POOL.made, traces()
    for _ in range(2):
        train(recipe, start, rows, Plan("binary_crossentropy", epochs=1))
    assert (POOL.made - before, traces()) == (2, idle)


def test_threads_learn_what_one_alone_learns(keyed, binary_rows):
    recipe, rows = keyed(dropout=0.3), binary_rows()
    plan = Plan("binary_crossentropy", epochs=4)
    start = initial_variables(recipe, 0)
    alone = train(recipe, start, rows, plan)
    found = []

    def work():
        found.append(train(recipe, start, rows, plan))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [fit.history for fit in found] == [alone.history] * 4
    for fit in found:
        for path, array in alone.network.variables.items():
            np.testing.assert_array_equal(fit.network.variables[path], array)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_same_seed_same_bits_whatever_ran_before(dropout, keyed, blueprint, binary_rows):
    rows = binary_rows()
    plan = Plan("binary_crossentropy", epochs=5)
    recipe = keyed(dropout=dropout)
    first = train(recipe, initial_variables(recipe, 4), rows, plan)
    train(recipe, initial_variables(recipe, 9), binary_rows(33), Plan("mse", epochs=2, seed=7))
    private = blueprint(recipe.function, key=None)  # nothing cached, nothing pooled
    for again in (recipe, private):
        second = train(again, initial_variables(again, 4), rows, plan)
        assert second.history == first.history
        for path, array in first.network.variables.items():
            np.testing.assert_array_equal(second.network.variables[path], array)


class Idle:
    def __init__(self, key):
        self.key = key


def test_pool_lends_to_one_at_a_time_and_forgets_the_oldest():
    pool = Pool(max_idle=2)
    with (
        pool.program("a", lambda: Idle("a")) as first,
        pool.program("a", lambda: Idle("a")) as second,
    ):
        assert first is not second
    with pool.program("a", lambda: Idle("new")) as third:
        assert third in (first, second)
    with pool.program("b", lambda: Idle("b")):
        pass
    assert pool.made == 3
    assert sum(map(len, pool._idle.values())) == 2


def test_pool_gets_a_program_back_after_an_error(keyed, binary_rows):
    pool = Pool()
    with pytest.raises(KeyError), pool.program("a", lambda: Idle("a")) as lent:
        raise KeyError
    with pool.program("a", lambda: Idle("new")) as program:
        assert program is lent
