"""Initial weights depend on the seed only, and no global state is changed."""

import random
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from skstack._training.config import TrainConfig
from skstack._training.initial_weights import InitialWeights, initial_variables
from skstack._training.isolation import build
from skstack._training.keras_model import named_variables
from skstack._training.spares import any_model
from skstack._training.train import train
from skstack.networks._heads import output_bounds


def network():
    i = {"numeric": keras.Input((6,), name="numeric")}
    x = keras.layers.Dropout(0.5)(keras.layers.Dense(5, activation="relu")(i["numeric"]))
    return keras.Model(i, keras.layers.Dense(1, activation="sigmoid")(x))


def assert_same(first, second):
    assert list(first) == list(second)
    for path, array in first.items():
        np.testing.assert_array_equal(array, second[path])


@pytest.mark.parametrize("key", ["test_seeds", None])
def test_the_same_seed_gives_the_same_initial_weights(key, blueprint):
    recipe = blueprint(network, key=key)
    first = initial_variables(recipe, 0)
    keras.layers.Dense(3)(keras.Input((2,)))  # moves Keras' counters in this thread
    random.random()
    second = initial_variables(recipe, 0)
    assert_same(first, second)
    assert any("seed_generator" in path for path in first)
    for _ in range(2):  # before and after they are known without building the network
        second["dense/kernel"][:] = 0.0
        second = initial_variables(recipe, 0)
        assert_same(first, second)
        other = initial_variables(recipe, 1)
        assert not np.array_equal(first["dense/kernel"], other["dense/kernel"])


L = keras.layers
NETWORKS = {
    "dense": lambda: [L.Dense(8), L.Dropout(0.2), L.BatchNormalization()],
    "initialised": lambda: [L.Dense(4, kernel_initializer="he_normal", bias_initializer="normal")],
    "scaled": lambda: [L.Dense(4, kernel_initializer=keras.initializers.VarianceScaling(2.0))],
    "seeded": lambda: [L.Dense(4, kernel_initializer=keras.initializers.RandomNormal(seed=3))],
    "recurrent": lambda: [L.Reshape((3, 2)), L.LSTM(4, dropout=0.1)],
    "convolution": lambda: [L.Reshape((3, 2)), L.SeparableConv1D(4, 2), L.Flatten()],
    "embedding": lambda: [L.Embedding(9, 4), L.Flatten()],
    "nested": lambda: [keras.Sequential([L.Dense(4), L.GaussianNoise(0.1)])],
}
UNDERSTOOD_IN_PART = {
    "both ways": lambda: [L.Reshape((3, 2)), L.Bidirectional(L.GRU(4))],
    "own layer": lambda: [Noisy()],
    "function": lambda: [L.Dense(4, kernel_initializer=lambda shape, dtype: own_values(shape))],
    "own initialiser": lambda: [L.Dense(4, kernel_initializer=Own())],
    "a coin": lambda: [L.Dense(4, bias_initializer="ones" if random.random() < 0.5 else "zeros")],
}


def own_values(shape):
    return np.full(shape, random.random(), np.float32)  # draws otherwise than Keras does


class Own(keras.initializers.GlorotUniform):
    def __call__(self, shape, dtype=None):
        values = np.random.default_rng(self.seed + 1).normal(size=shape)
        return keras.ops.convert_to_tensor(values, dtype=dtype)


class Noisy(L.Layer):
    def build(self, shape):
        self.w = self.add_weight(shape=shape[1:], initializer=own_values_of)

    def call(self, x):
        return x * self.w


def own_values_of(shape, dtype=None):
    return own_values(shape)


def stacked(layers):
    return lambda: keras.Sequential([keras.Input((6,)), *layers(), L.Dense(1)])


@pytest.mark.parametrize("name", [*NETWORKS, *UNDERSTOOD_IN_PART])
def test_weights_drawn_without_building_equal_those_of_a_built_network(name, blueprint):
    layers = {**NETWORKS, **UNDERSTOOD_IN_PART}[name]
    recipe = blueprint(stacked(layers), key=f"test_seeds {name}")
    starter = InitialWeights(recipe)
    for seed in (5, 5, 0, 2**31 - 1):
        built = {path: v.numpy() for path, v in named_variables(build(recipe, seed)).items()}
        assert_same(starter.variables(seed), built)
        assert_same(initial_variables(recipe, seed), built)
    assert starter.builds == (name in UNDERSTOOD_IN_PART)


@pytest.mark.parametrize("name", ["dense", "nested", *UNDERSTOOD_IN_PART])
def test_a_network_that_was_built_for_its_weights_is_used_again(name, blueprint):
    """By one user alone, and only if the seed has changed nothing but its weights."""
    built, layers = [], {**NETWORKS, **UNDERSTOOD_IN_PART}[name]

    def build_one():
        built.append(stacked(layers)())
        return built[-1]

    recipe = blueprint(build_one, key=f"test_seeds again {name}")
    initial_variables(recipe, 5)
    models = [any_model(recipe) for _ in range(2)]
    assert (models[0] is built[0]) == (name in NETWORKS)
    assert models[0] is not models[1]


@pytest.mark.parametrize("last", ["dense", "product"])
def test_a_network_whose_bounds_were_read_is_used_again_unmodified(last, blueprint):
    """Where bounds are found by trying weights, another network is built for that."""
    built = []

    def build_one():
        inputs = keras.Input((6,), name="numeric")
        output = L.Dense(1)(inputs)
        if last == "product":
            output = L.Multiply()([output, output])
        built.append(keras.Model({"numeric": inputs}, output))
        return built[-1]

    recipe = blueprint(build_one, key=f"test_seeds bounds {last}")
    low, high = output_bounds(recipe)
    assert (low, high) == ([0.0 if last == "product" else -np.inf], [np.inf])
    model = any_model(recipe)
    assert model is built[0]
    assert len(built) == (2 if last == "product" else 1)
    expected = named_variables(build(recipe))
    for path, variable in named_variables(model).items():
        np.testing.assert_array_equal(variable.numpy(), expected[path].numpy())


def test_a_network_that_was_built_under_other_settings_is_not_used_again(blueprint):
    recipe = blueprint(network, key="test_seeds settings")
    initial_variables(recipe, 5)
    epsilon = keras.config.epsilon()
    keras.config.set_epsilon(1e-3)
    try:
        other = any_model(recipe)
    finally:
        keras.config.set_epsilon(epsilon)
    assert any_model(recipe) is not other
    kernels = [named_variables(model)["dense/kernel"].numpy() for model in (other, build(recipe))]
    np.testing.assert_array_equal(*kernels)


def test_what_callbacks_draw_does_not_depend_on_earlier_fits(blueprint, binary_rows):
    class DrawAgain(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            kernel, draw = self.model.layers[1].kernel, self.model.layers[1].kernel_initializer
            kernel.assign(draw(kernel.shape))

    def trained(key, *before):
        recipe = blueprint(network, key=key)
        for seed in before:
            initial_variables(recipe, seed)
        plan = TrainConfig("binary_crossentropy", epochs=1, callbacks=(DrawAgain(),))
        return train(recipe, initial_variables(recipe, 2), binary_rows(), plan).network.variables

    assert_same(trained("test_seeds callbacks"), trained("test_seeds other callbacks", 2, 1))


def test_global_generators_are_not_changed(blueprint, binary_rows):
    recipe = blueprint(network, key=None)
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    tf.random.set_seed(0)
    expected = tf.random.uniform((2,)).numpy()
    tf.random.set_seed(0)
    fit = train(recipe, initial_variables(recipe, 0), binary_rows(), TrainConfig("mse", epochs=1))
    fit.network.outputs(binary_rows().inputs)
    fit.network.build()
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002
    np.testing.assert_array_equal(tf.random.uniform((2,)).numpy(), expected)


def test_random_numbers_of_other_threads_and_weights_are_independent(blueprint):
    """An event loop, of a server or of dask, draws from the global generator at any time."""
    expected = initial_variables(blueprint(network, key=None), 0)
    others = []

    def interrupted():
        inputs = keras.Input((6,), name="numeric")
        dropout = keras.layers.Dropout(0.5)
        with ThreadPoolExecutor(1) as pool:
            others.extend(pool.submit(lambda: [random.random() for _ in range(3)]).result())
        x = dropout(keras.layers.Dense(5, activation="relu")(inputs))
        return keras.Model({"numeric": inputs}, keras.layers.Dense(1, activation="sigmoid")(x))

    random.seed(7)
    assert_same(expected, initial_variables(blueprint(interrupted, key=None), 0))
    generator = random.Random(7)
    assert others == [generator.random() for _ in range(3)]
    assert random.random() == generator.random()


def test_threads_build_equal_networks(blueprint):
    recipe = blueprint(network, key=None)
    expected = initial_variables(recipe, 5)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: initial_variables(recipe, 5), range(8)):
            assert_same(found, expected)


def test_a_blueprint_may_build_another(blueprint):
    inner = blueprint(network, key=None)
    outer = blueprint(lambda: build(inner), key=None)
    assert_same(initial_variables(outer, 3), initial_variables(inner, 0))


def test_errors_of_a_blueprint_are_raised(blueprint):
    def fails():
        raise KeyError("mine")

    state = random.getstate()
    with pytest.raises(KeyError, match="mine"):
        initial_variables(blueprint(fails, key=None), 0)
    assert random.getstate() == state


def test_the_callers_dtype_policy_is_used(blueprint):
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


def test_repeated_variable_paths_are_distinguished(blueprint):
    start = initial_variables(blueprint(repeated_paths, key=None), 0)
    assert len(start) == 4
