"""Initial weights follow from the seed alone, and nothing global is touched."""

import random
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from skstack.training import Plan, initial_variables, train
from skstack.training._seeds import build


def network():
    i = {"numeric": keras.Input((6,), name="numeric")}
    x = keras.layers.Dropout(0.5)(keras.layers.Dense(5, activation="relu")(i["numeric"]))
    return keras.Model(i, keras.layers.Dense(1, activation="sigmoid")(x))


def assert_same(first, second):
    assert list(first) == list(second)
    for path, array in first.items():
        np.testing.assert_array_equal(array, second[path])


@pytest.mark.parametrize("key", ["test_seeds", None])
def test_same_seed_same_start(key, blueprint):
    recipe = blueprint(network, key=key)
    first = initial_variables(recipe, 0)
    keras.layers.Dense(3)(keras.Input((2,)))  # moves Keras' counters in this thread
    random.random()
    second = initial_variables(recipe, 0)
    assert_same(first, second)
    other = initial_variables(recipe, 1)
    assert not np.array_equal(first["dense/kernel"], other["dense/kernel"])
    assert any("seed_generator" in path for path in first)
    second["dense/kernel"][:] = 0.0
    assert_same(first, initial_variables(recipe, 0))


def test_global_generators_are_not_touched(blueprint, binary_rows):
    recipe = blueprint(network, key=None)
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    tf.random.set_seed(0)
    expected = tf.random.uniform((2,)).numpy()
    tf.random.set_seed(0)
    fit = train(recipe, initial_variables(recipe, 0), binary_rows(), Plan("mse", epochs=1))
    fit.network.outputs(binary_rows().inputs)
    fit.network.build()
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002
    np.testing.assert_array_equal(tf.random.uniform((2,)).numpy(), expected)


def test_threads_build_the_same(blueprint):
    recipe = blueprint(network, key=None)
    expected = initial_variables(recipe, 5)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: initial_variables(recipe, 5), range(8)):
            assert_same(found, expected)


def test_a_blueprint_may_build_another(blueprint):
    inner = blueprint(network, key=None)
    outer = blueprint(lambda: build(inner), key=None)
    assert_same(initial_variables(outer, 3), initial_variables(inner, 0))


def test_errors_of_a_blueprint_come_through(blueprint):
    def fails():
        raise KeyError("mine")

    state = random.getstate()
    with pytest.raises(KeyError, match="mine"):
        initial_variables(blueprint(fails, key=None), 0)
    assert random.getstate() == state


def test_the_callers_dtype_policy_holds(blueprint):
    before = keras.config.dtype_policy()
    recipe = blueprint(network, key="test_seeds")
    keras.config.set_dtype_policy("float64")
    try:
        assert initial_variables(recipe, 0)["dense/kernel"].dtype == np.float64
    finally:
        keras.config.set_dtype_policy(before)
    assert initial_variables(recipe, 0)["dense/kernel"].dtype == np.float32


def repeated_paths():
    layers = [keras.layers.Dense(6, name="same"), keras.layers.Dense(6, name="same")]
    x = i = keras.Input((6,))

    class Both(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.both = layers

        def build(self, shape):
            for layer in self.both:
                layer.build(shape)

        def call(self, x):
            return self.both[1](self.both[0](x))

    return keras.Model(i, Both()(x))


def test_repeated_paths_are_told_apart(blueprint):
    start = initial_variables(blueprint(repeated_paths, key=None), 0)
    assert len(start) == 4
