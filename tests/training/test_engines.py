"""Which networks are compiled how, and which may have their last batch filled up."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from skstack._training.config import TrainConfig, TrainingData
from skstack._training.data import TensorTable
from skstack._training.engines import (
    EXACT,
    GRAPH,
    KERAS,
    MASKED,
    STEPWISE,
    choose,
    watches_batches,
    why_not_masked,
)
from skstack._training.initial_weights import initial_variables
from skstack._training.network import Network
from skstack._training.optimizers import CompileSettings
from skstack._training.program import Program
from skstack._training.train import train

layers = keras.layers


def network(*stack, shape=(4, 3)):
    return keras.Sequential([keras.Input(shape), *stack])


def centred():
    i = keras.Input((3,))
    return keras.Model(i, i - keras.ops.mean(i, axis=0))


def mixing(x):
    return x - keras.ops.mean(x, axis=0)


ROW_BY_ROW = {
    "dense": lambda: network(layers.Dense(2, "relu"), layers.Flatten()),
    "recurrent": lambda: network(layers.LSTM(2)),
    "convolution": lambda: network(layers.Conv1D(2, 2), layers.GlobalMaxPooling1D()),
    "nested": lambda: network(network(layers.Dense(2), layers.LayerNormalization())),
    "batch normalisation": lambda: network(layers.BatchNormalization()),
    "dropout": lambda: network(layers.Dense(2), layers.Dropout(0.1)),
    "dropout nested": lambda: network(network(layers.SpatialDropout1D(0.1))),
}
MIXED = {
    "another axis": lambda: network(layers.BatchNormalization(axis=1)),
    "renormalised": lambda: network(layers.BatchNormalization(renorm=True)),
    "noise": lambda: network(layers.Dense(2), layers.GaussianNoise(0.1)),
    "operation": centred,
    "activation": lambda: network(layers.Dense(2, activation=mixing)),
    "lambda": lambda: network(layers.Dense(2), layers.Lambda(mixing)),
    "activity": lambda: network(layers.Dense(2, activity_regularizer="l2")),
    "mask": lambda: network(layers.Embedding(3, 2, mask_zero=True), shape=(4,)),
}
SLOW_WITH_XLA = {
    "noise": lambda: network(layers.Dense(2), layers.GaussianNoise(0.1)),
    "precision": lambda: network(layers.Dense(2, dtype="mixed_bfloat16")),
    "dropout inside": lambda: network(layers.LSTM(2, dropout=0.1)),
}


@pytest.mark.parametrize("make", ROW_BY_ROW.values(), ids=ROW_BY_ROW)
def test_row_by_row(make):
    assert why_not_masked(make(), "mse", has_metrics=False) is None


@pytest.mark.parametrize("make", MIXED.values(), ids=MIXED)
def test_not_row_by_row(make):
    assert why_not_masked(make(), "mse", has_metrics=False) is not None


@pytest.mark.parametrize(
    "loss", [keras.losses.MeanSquaredError("sum"), lambda y, p: keras.ops.mean(y - p), None]
)
def test_losses_that_are_not_averages(loss):
    assert why_not_masked(ROW_BY_ROW["dense"](), loss, has_metrics=False) is not None
    huber = keras.losses.Huber()
    assert why_not_masked(ROW_BY_ROW["dense"](), huber, has_metrics=False) is None


def test_metrics_are_counted_without_padding():
    assert why_not_masked(ROW_BY_ROW["dense"](), "mse", has_metrics=True) is not None


@pytest.mark.slow(first=2)
@pytest.mark.parametrize("make", SLOW_WITH_XLA.values(), ids=SLOW_WITH_XLA)
def test_requesting_xla_without_success_warns(make, blueprint):
    recipe = blueprint(make, key=None)
    x = np.random.default_rng(0).normal(size=(40, 4, 3)).astype("float32")
    y = make()(x).numpy().astype("float32")
    plan = TrainConfig("mse", epochs=1, engine="xla")
    with pytest.warns(UserWarning, match=r"without XLA: (layer 'dense|a layer draws random)"):
        train(recipe, initial_variables(recipe, 0), TrainingData({"x": x}, y), plan)


def own_test_step():
    class Own(keras.Sequential):
        def test_step(self, data):
            return super().test_step(data)

    return Own([keras.Input((4, 3)), layers.Flatten(), layers.Dense(2)])


def own_train_step():
    class Own(keras.Sequential):
        def train_step(self, data):
            return super().train_step(data)

    return Own([keras.Input((4, 3)), layers.Flatten(), layers.Dense(2)])


def masked_series():
    return keras.Sequential([keras.Input((4, 3)), layers.Masking(), layers.LSTM(2)])


def recurrent_twice():
    return network(layers.LSTM(2, return_sequences=True), layers.GRU(2))


@pytest.mark.parametrize(
    ("make", "settings", "steps", "expected"),
    [
        (ROW_BY_ROW["dense"], {}, 10**6, MASKED),
        (ROW_BY_ROW["dense"], {}, 99, STEPWISE),
        (ROW_BY_ROW["dense"], {"constant": True}, 1, GRAPH),
        (ROW_BY_ROW["dense"], {"engine": "xla"}, 1, MASKED),
        (ROW_BY_ROW["dense"], {"engine": "graph"}, 10**6, GRAPH),
        (ROW_BY_ROW["dense"], {"engine": "keras"}, 10**6, KERAS),
        (ROW_BY_ROW["dense"], {"metrics": ("mae",)}, 10**6, EXACT),
        (ROW_BY_ROW["dense"], {"callbacks": (keras.callbacks.EarlyStopping(),)}, 10**6, MASKED),
        (ROW_BY_ROW["dense"], {"callbacks": (keras.callbacks.ProgbarLogger(),)}, 10**6, KERAS),
        (ROW_BY_ROW["batch normalisation"], {}, 10**6, MASKED),
        (ROW_BY_ROW["dropout"], {}, 10**6, MASKED),
        (ROW_BY_ROW["recurrent"], {}, 10**6, MASKED),
        (MIXED["activity"], {}, 10**6, EXACT),
        (MIXED["lambda"], {}, 99, STEPWISE),
        (MIXED["lambda"], {}, 999, GRAPH),
        (MIXED["lambda"], {"engine": "stepwise"}, 10**6, STEPWISE),
        (MIXED["lambda"], {}, 10**6, GRAPH),
        (SLOW_WITH_XLA["precision"], {}, 10**6, GRAPH),
        (SLOW_WITH_XLA["dropout inside"], {}, 10**6, GRAPH),
        (masked_series, {}, 10**6, GRAPH),
        (recurrent_twice, {}, 10**6, GRAPH),
        (own_train_step, {}, 10**6, GRAPH),
        (own_test_step, {}, 10**6, KERAS),
    ],
)
def test_the_engine_depends_on_network_and_config(make, settings, steps, expected, blueprint):
    recipe = blueprint(make)
    plan = TrainConfig("mse", **settings)
    x = np.ones((40, 4, 3), np.float32)
    table = TensorTable(TrainingData({"x": x}, np.asarray(make()(x), np.float32)), "training")
    program = Program(recipe, CompileSettings.of(plan), table, key="known")
    assert choose(program, plan, steps)[0] == expected
    private = Program(recipe, CompileSettings.of(plan), table, key=None)
    if plan.engine == "auto" and expected in (MASKED, EXACT):
        assert choose(private, plan, steps)[0] == GRAPH


@pytest.mark.slow
def test_recurrent_layers_learn_the_same_with_all_engines(blueprint):
    recipe = blueprint(lambda: network(layers.Bidirectional(layers.LSTM(3)), layers.Dense(1)))
    generator = np.random.default_rng(0)
    x = generator.normal(size=(70, 4, 3)).astype("float32")
    rows = TrainingData({"x": x}, x[:, -1, :1])
    start = initial_variables(recipe, 0)
    curves = [
        train(recipe, start, rows, TrainConfig("mse", epochs=3, engine=engine)).history["loss"]
        for engine in ("graph", "xla", "keras")
    ]
    np.testing.assert_allclose(curves[1:], [curves[0]] * 2, rtol=1e-5)


def test_an_unknown_engine_is_refused(blueprint, binary_rows):
    recipe = blueprint(lambda: network(layers.Dense(1), shape=(6,)), key=None)
    start = initial_variables(recipe, 0)
    with pytest.raises(ValueError, match=r"`engine` must be one of .*'jit'"):
        train(recipe, start, binary_rows(), TrainConfig("mse", engine="jit"))


def test_callbacks_that_need_batches(tmp_path):
    path = str(tmp_path / "x.keras")
    checkpoint = keras.callbacks.ModelCheckpoint
    quiet = (
        keras.callbacks.EarlyStopping(),
        checkpoint(path),
        keras.callbacks.LambdaCallback(),
        keras.callbacks.TerminateOnNaN(),
    )
    loud = (
        checkpoint(path, save_freq=3),
        keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None),
    )
    assert [watches_batches(callback) for callback in quiet] == [False] * 4
    assert [watches_batches(callback) for callback in loud] == [True] * 2


def embedded(shape=(4,), mask_zero=False):
    return lambda: keras.Sequential(
        [
            keras.Input(shape, dtype="int32", name="codes"),
            layers.Embedding(5, 2, mask_zero=mask_zero, name="words"),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )


def two_embeddings():
    i = {
        "a": keras.Input((), dtype="int32", name="a"),
        "b": keras.Input((), dtype="int32", name="b"),
    }
    # The other order: places follow from names.
    parts = [layers.Embedding(3, 2, name="of_b")(i["b"]), layers.Embedding(5, 2)(i["a"])]
    return keras.Model(i, layers.Dense(1)(layers.Concatenate()(parts)))


def computed():
    i = keras.Input((4,), dtype="int32")
    return keras.Model(i, layers.Dense(1)(layers.Flatten()(layers.Embedding(5, 2)(i // 2))))


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("engine", ["graph", "xla"])
def test_indices_out_of_range_of_an_embedding_are_refused(engine, blueprint):
    recipe = blueprint(embedded())
    start = initial_variables(recipe, 0)
    x = np.random.default_rng(0).integers(0, 5, (40, 4)).astype("int32")
    y = np.ones((40, 1), np.float32)
    plan = TrainConfig("mse", epochs=1, engine=engine)
    fit = train(recipe, start, TrainingData({"codes": x}, y), plan)
    message = r"input 'codes' of the embedding 'words' holds indices from .* expected 0 to 4"
    for index in (-1, 5):
        bad = x.copy()
        bad[7, 2] = index
        with pytest.raises(ValueError, match=message):
            train(recipe, start, TrainingData({"codes": bad}, y), plan)
        with pytest.raises(ValueError, match=message):
            train(
                recipe,
                start,
                TrainingData({"codes": x}, y),
                plan,
                validation=TrainingData({"codes": bad}, y),
            )
        with pytest.raises(ValueError, match=message):
            fit.network.outputs({"codes": bad})


def test_each_embedding_has_its_own_bounds(blueprint):
    recipe = blueprint(two_embeddings)
    net = Network(recipe, initial_variables(recipe, 0))
    four, two = np.full(3, 4, "int32"), np.full(3, 2, "int32")
    assert net.outputs({"a": four, "b": two})[0].shape == (3, 1)
    with pytest.raises(ValueError, match="input 'b' of the embedding 'of_b'"):
        net.outputs({"a": two, "b": four})


def siamese():
    i, j = (keras.Input((4,), dtype="int32", name=name) for name in "ij")
    base = keras.Model(i, layers.Flatten()(layers.Embedding(5, 3)(i)))
    both = layers.Concatenate()([base(i), base(j)])
    return keras.Model({"i": i, "j": j}, layers.Dense(1)(both))


class Tokens(layers.Layer):
    """As Keras' examples have it: an embedding inside a layer of one's own."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.embedding = layers.Embedding(5, 2)

    def build(self, shape):
        self.embedding.build(shape)

    def call(self, x):
        return self.embedding(x)


def own_tokens():
    stack = [Tokens(), layers.Flatten(), layers.Dense(1)]
    return keras.Sequential([keras.Input((4,), dtype="int32", name="i"), *stack])


@pytest.mark.parametrize("make", [siamese, own_tokens])
def test_nested_embeddings_are_never_compiled_with_xla(make, blueprint):
    recipe = blueprint(make)
    x = np.random.default_rng(0).integers(0, 5, (64, 4)).astype("int32")
    inputs = {"i": x, "j": x} if make is siamese else {"i": x}
    bad = {**inputs, ("j" if make is siamese else "i"): x + 4}
    start, y = initial_variables(recipe, 0), np.ones((64, 1), np.float32)
    fit = train(recipe, start, TrainingData(inputs, y), TrainConfig("mse", epochs=60))
    with pytest.raises(tf.errors.InvalidArgumentError, match="not in"):
        fit.network.outputs(bad)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not in"):
        train(recipe, start, TrainingData(bad, y), TrainConfig("mse", epochs=60))


def test_computed_indices_use_an_engine_that_checks_them(blueprint):
    recipe = blueprint(computed)
    x = np.random.default_rng(0).integers(0, 10, (40, 4)).astype("int32")
    plan = TrainConfig("mse", epochs=1, engine="xla")
    with pytest.warns(UserWarning, match="without XLA: an embedding takes computed") as messages:
        fit = train(
            recipe, initial_variables(recipe, 0), TrainingData({"x": x}, np.ones((40, 1))), plan
        )
    assert messages[0].filename == __file__
    assert fit.network.outputs({"x": x})[0].shape == (40, 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not in"):
        fit.network.outputs({"x": x + 10})
