"""Predictions do not depend on the other rows; inner layers by name."""

import copy
import functools
import importlib
import multiprocessing
import os
import pickle
import textwrap
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf
from _fresh import run

from skstack._training import predict
from skstack._training.config import TrainConfig, TrainingData
from skstack._training.initial_weights import initial_variables
from skstack._training.network import Network
from skstack._training.train import train


def functional():
    i = {"numeric": keras.Input((7,), name="numeric")}
    x = keras.layers.Dense(9, activation="relu", name="latent")(i["numeric"])
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.LayerNormalization(name="normal")(x)
    return keras.Model(i, keras.layers.Dense(3, activation="softmax", name="output")(x))


def sequential():
    layers = [keras.layers.Dense(5, "tanh", name="latent"), keras.layers.Dense(2, name="output")]
    return keras.Sequential([keras.Input((7,)), *layers])


def nested():
    inner_input = keras.Input((7,))
    hidden = keras.layers.Dense(4, "tanh", name="latent")(inner_input)
    inner = keras.Model(inner_input, keras.layers.Dense(3, name="last")(hidden), name="encoder")
    i = {"numeric": keras.Input((7,), name="numeric")}
    x = inner(i["numeric"])
    return keras.Model(i, keras.layers.Dense(1, name="last")(x))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(6, "relu", name="latent")
        self.unused = keras.layers.Dense(2, name="unused")
        self.last = keras.layers.Dense(2, name="output")

    def build(self, input_shape):
        self.hidden.build(input_shape)
        self.unused.build(input_shape)
        self.last.build((None, 6))
        super().build(input_shape)

    def call(self, x):
        return self.last(self.hidden(x))


def subclassed():
    model = Subclassed()
    model.build((None, 7))
    return model


class EagerOnly(keras.layers.Layer):
    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)

    def call(self, x):
        return x + float(x.numpy()[0, 0] * 0)


def eager_only():
    i = keras.Input((7,))
    return keras.Model(i, keras.layers.Dense(2, name="output")(EagerOnly(name="latent")(i)))


class Shifted(keras.layers.Layer):
    """Holds a constant that is not a variable."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.shift = tf.constant([1.0, -1.0, 2.0])

    def call(self, x):
        return x + self.shift


def with_constant():
    i = {"numeric": keras.Input((7,), name="numeric")}
    x = Shifted(name="latent")(keras.layers.Dense(3, "relu")(i["numeric"]))
    return keras.Model(i, keras.layers.Dense(2, name="output")(x))


def convolution():
    i = {"numeric": keras.Input((7,), name="numeric")}
    x = keras.layers.Reshape((7, 1))(i["numeric"])
    x = keras.layers.Conv1D(4, 3, activation="relu", name="latent")(x)
    return keras.Model(i, keras.layers.Dense(2, name="output")(keras.layers.Flatten()(x)))


def wide():
    """So many weights that a chunk has few rows."""
    i = {"numeric": keras.Input((7,), name="numeric")}
    x = keras.layers.Dense(400, "relu")(i["numeric"])
    x = keras.layers.Dense(350, "relu", name="latent")(x)
    return keras.Model(i, keras.layers.Dense(2, name="output")(x))


def members():
    i = {"numeric": keras.Input((7,), name="numeric")}
    x = keras.layers.EinsumDense("bd,kd->bkd", (2, 7), name="factors")(i["numeric"])
    x = keras.layers.Dense(4, "relu", name="latent")(x)
    x = keras.layers.EinsumDense("bkd,kdc->bkc", (2, 3), activation="softmax")(x)
    return keras.Model(i, keras.layers.GlobalAveragePooling1D(name="output")(x))


BUILDERS = (functional, sequential, nested, subclassed, eager_only)
each_builder = pytest.mark.parametrize("make", BUILDERS)


@pytest.fixture
def network(blueprint):
    def of(make, seed=0, key="the function"):
        recipe = blueprint(make, key=key)
        return Network(recipe, initial_variables(recipe, seed))

    return of


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(1500, 7)).astype("float32")


@functools.cache
def place_matters_to_tensorflow():
    """Whether products of as many rows as in chunks depend on the place of a row.

    On some processors the last rows of a block are added up in another order, in the last bit.
    """
    x = np.random.default_rng(0).normal(size=(1008, 7)).astype("float32")
    convolve = keras.layers.Conv1D(4, 3, kernel_initializer=keras.initializers.GlorotUniform(0))
    multiply = keras.layers.Dense(400, kernel_initializer=keras.initializers.GlorotUniform(0))
    return any(
        not np.array_equal(call(rows[::-1]), call(rows)[::-1])
        for rows in (x[:24], x[:48], x)
        for call in (multiply, lambda rows: convolve(rows[:, :, None]))
    )


@pytest.mark.parametrize("make", [*BUILDERS, convolution, wide, members])
@pytest.mark.parametrize("layers", [None, ("latent",)])
def test_a_row_does_not_depend_on_its_neighbours(make, layers, network, x):
    net, compare = network(make), np.testing.assert_array_equal
    (whole,) = net.outputs({"numeric": x}, layers=layers)
    assert whole.dtype == np.float32
    order = np.random.default_rng(1).permutation(len(x))
    if place_matters_to_tensorflow():
        compare = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7)
    compare(net.outputs({"numeric": x[order]}, layers)[0], whole[order])
    for rows in (slice(3, 4), slice(0, 2), slice(100, 700), slice(0, 0)):
        compare(net.outputs({"numeric": x[rows]}, layers)[0], whole[rows])


@pytest.mark.parametrize("make", [functional, convolution, with_constant])
def test_predictions_in_many_chunks_are_bit_identical(make, network, monkeypatch):
    many = np.random.default_rng(0).normal(size=(9000, 7)).astype("float32")
    net = network(make)
    (whole,) = net.outputs({"numeric": many})
    monkeypatch.setattr(predict, "_CALL_BYTES", 2**17)
    for rows in (slice(None), slice(0, 4097), slice(17, 18), slice(8990, 9000)):
        np.testing.assert_array_equal(net.outputs({"numeric": many[rows]})[0], whole[rows])
    np.testing.assert_array_equal(net.outputs({"numeric": np.asfortranarray(many)})[0], whole)
    np.testing.assert_allclose(net.build()({"numeric": many}), whole, rtol=1e-5, atol=1e-6)


def test_a_prediction_does_not_depend_on_an_earlier_dtype_policy(network, x):
    expected = network(functional).outputs({"numeric": x[:9]})[0]
    net, before = network(functional), keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert not np.array_equal(net.outputs({"numeric": x[:9]})[0], expected)
    finally:
        keras.config.set_dtype_policy(before)
    np.testing.assert_array_equal(net.outputs({"numeric": x[:9]})[0], expected)


def test_constants_of_a_layer_are_part_of_every_program(blueprint, x):
    recipe = blueprint(with_constant)
    start = initial_variables(recipe, 0)
    rows = TrainingData({"numeric": x[:70]}, x[:70, :2])
    curves = [
        train(recipe, start, rows, TrainConfig("mse", epochs=2, engine=engine)).history["loss"]
        for engine in ("graph", "keras")
    ]
    np.testing.assert_allclose(*curves, rtol=1e-5)


@each_builder
def test_outputs_are_those_of_the_public_model(make, network, x):
    net, other = network(make), network(make, seed=1)
    model = net.build()
    takes_dict = isinstance(getattr(model, "input", None), dict)
    expected = np.asarray(model({"numeric": x[:40]} if takes_dict else x[:40]))
    np.testing.assert_allclose(net.outputs({"numeric": x[:40]})[0], expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(other.outputs({"numeric": x[:40]})[0], expected)
    for name, layer_name in (("latent", "latent"), ("encoder/latent", "latent")):
        if name == "encoder/latent" and make is not nested:
            continue
        owner = model.get_layer("encoder") if make is nested else model
        expected = owner.get_layer(layer_name)(x[:40])
        found = net.outputs({"numeric": x[:40]}, layers=(name,))[0]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_several_layers_in_one_pass_in_the_requested_order(network, x):
    net = network(functional)
    output, latent = net.outputs({"numeric": x}, layers=("output", "latent"))
    np.testing.assert_array_equal(output, net.outputs({"numeric": x})[0])
    assert latent.shape == (len(x), 9)


def test_names_of_layers(network, x):
    inputs = {"numeric": x[:3]}
    with pytest.raises(ValueError, match=r"no layer named 'hidden'.*latent.*normal"):
        network(functional).outputs(inputs, layers=("hidden",))
    with pytest.raises(ValueError, match="never calls its layer 'unused'"):
        network(subclassed).outputs(inputs, layers=("unused",))
    net = network(nested)
    assert net.outputs(inputs, layers=("encoder/last",))[0].shape == (3, 3)
    assert net.outputs(inputs, layers=("encoder",))[0].shape == (3, 3)
    assert net.outputs(inputs, layers=("last",))[0].shape == (3, 1)
    assert net.outputs(inputs, layers=("latent",))[0].shape == (3, 4)


def two_outputs():
    i = {"numeric": keras.Input((7,), name="numeric")}
    outputs = {"z": keras.layers.Dense(1)(i["numeric"]), "a": keras.layers.Dense(2)(i["numeric"])}
    return keras.Model(i, outputs)


def test_several_outputs_have_the_order_of_the_model(network, x):
    net = network(two_outputs)
    shapes = [array.shape[1:] for array in net.outputs({"numeric": x[:3]})]
    assert shapes == [output.shape[1:] for output in net.build().outputs] == [(2,), (1,)]


def test_threads_predict_at_once(network, x):
    net = network(functional, key=None)
    expected = network(functional).outputs({"numeric": x})[0]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: net.outputs({"numeric": x})[0], range(24)))
    for array in found:
        np.testing.assert_array_equal(array, expected)


def test_networks_of_one_key_share_a_trace_and_keep_their_weights(network, x):
    first, second = network(functional, seed=0), network(functional, seed=1)
    one, two = first.outputs({"numeric": x})[0], second.outputs({"numeric": x})[0]
    assert first.prepared[0] is second.prepared[0]
    assert not np.array_equal(one, two)
    np.testing.assert_array_equal(first.outputs({"numeric": x})[0], one)


def test_copies_and_pickles_predict_the_same_bits(network, x):
    net = network(functional)
    expected = net.outputs({"numeric": x})[0]
    copied = copy.deepcopy(net)
    assert copied.prepared is None
    np.testing.assert_array_equal(copied.outputs({"numeric": x})[0], expected)
    model = net.build()
    assert model is not net.build()
    for path, array in net.variables.items():
        np.testing.assert_array_equal({v.path: v for v in model.variables}[path].numpy(), array)


@pytest.mark.slow
def test_pickle_in_a_new_process_predicts_the_same_bits(tmp_path, monkeypatch):
    (tmp_path / "module_of_mine.py").write_text(
        textwrap.dedent("""
        import keras

        class Blueprint:
            key = "mine"

            def build(self):
                i = keras.Input((7,))
                return keras.Model(i, keras.layers.Dense(3)(keras.layers.Dense(9, "relu")(i)))
        """)
    )
    program = textwrap.dedent("""
        import pickle
        import numpy as np
        from pathlib import Path

        net = pickle.loads(Path("net.pickle").read_bytes())
        np.save("outputs.npy", net.outputs({"x": np.load("x.npy")})[0])
    """)
    monkeypatch.syspath_prepend(tmp_path)
    mine = importlib.import_module("module_of_mine").Blueprint()
    net = Network(mine, initial_variables(mine, 0))
    (tmp_path / "net.pickle").write_bytes(pickle.dumps(net))
    x = np.random.default_rng(0).normal(size=(300, 7)).astype("float32")
    np.save(tmp_path / "x.npy", x)
    run(program, cwd=tmp_path)
    outputs = np.load(tmp_path / "outputs.npy")
    assert outputs.tobytes() == net.outputs({"x": x})[0].tobytes()


def test_weights_of_another_network_are_refused(network, blueprint, x):
    start = initial_variables(blueprint(sequential), 0)
    with pytest.raises(ValueError, match="do not belong to this network"):
        Network(blueprint(functional), start).outputs({"numeric": x})
    with pytest.raises(ValueError, match="do not belong to this network"):
        Network(blueprint(functional), start).build()


def test_pickles_contain_no_tensors(network, x, monkeypatch):
    net = network(functional)
    net.outputs({"numeric": x})
    assert net.__getstate__()["prepared"] is None
    assert len(pickle.dumps(net.variables)) < 10_000


def _in_child(net, x, queue):
    try:
        net.outputs({"numeric": x})
        queue.put("no error")
    except Exception as error:
        queue.put(f"{type(error).__name__}: {error}")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_raises_instead_of_hanging(network, x):
    net = network(functional)
    net.outputs({"numeric": x})
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(net, x, queue))
    child.start()
    outputs = queue.get()
    child.join()
    assert outputs.startswith("RuntimeError: This process was forked")
