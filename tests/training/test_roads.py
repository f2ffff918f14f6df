"""Which networks may have their last batch masked by XLA, and which may not."""

import keras
import numpy as np
import pytest

from skstack.training import Plan, Rows, initial_variables, train
from skstack.training._roads import watches_batches, why_not_xla

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
}
MIXED = {
    "batch normalisation": lambda: network(layers.BatchNormalization()),
    "dropout": lambda: network(layers.Dropout(0.1)),
    "dropout inside": lambda: network(layers.LSTM(2, dropout=0.1)),
    "dropout nested": lambda: network(network(layers.Dropout(0.1))),
    "operation": centred,
    "activation": lambda: network(layers.Dense(2, activation=mixing)),
    "lambda": lambda: network(layers.Lambda(mixing)),
    "activity": lambda: network(layers.Dense(2, activity_regularizer="l2")),
    "mask": lambda: network(layers.Embedding(3, 2, mask_zero=True), shape=(4,)),
    "precision": lambda: network(layers.Dense(2, dtype="mixed_bfloat16")),
}


@pytest.mark.parametrize("make", ROW_BY_ROW.values(), ids=ROW_BY_ROW)
def test_row_by_row(make):
    assert why_not_xla(make(), "mse", has_metrics=False) is None


@pytest.mark.parametrize("make", MIXED.values(), ids=MIXED)
def test_not_row_by_row(make):
    assert why_not_xla(make(), "mse", has_metrics=False) is not None


@pytest.mark.parametrize(
    "loss", [keras.losses.MeanSquaredError("sum"), lambda y, p: keras.ops.mean(y - p), None]
)
def test_losses_that_are_no_averages(loss):
    assert why_not_xla(ROW_BY_ROW["dense"](), loss, has_metrics=False) is not None
    huber = keras.losses.Huber()
    assert why_not_xla(ROW_BY_ROW["dense"](), huber, has_metrics=False) is None


def test_metrics_are_counted_without_padding():
    assert why_not_xla(ROW_BY_ROW["dense"](), "mse", has_metrics=True) is not None


def test_asking_for_xla_in_vain_is_told(blueprint):
    recipe = blueprint(MIXED["batch normalisation"], key=None)
    x = np.random.default_rng(0).normal(size=(40, 4, 3)).astype("float32")
    plan = Plan("mse", epochs=1, engine="xla")
    with pytest.warns(UserWarning, match="without XLA: layer 'batch_normalization'"):
        train(recipe, initial_variables(recipe, 0), Rows({"x": x}, x), plan)


def test_recurrent_layers_learn_the_same_on_all_roads(blueprint):
    recipe = blueprint(lambda: network(layers.LSTM(3), layers.Dense(1)))
    generator = np.random.default_rng(0)
    x = generator.normal(size=(70, 4, 3)).astype("float32")
    rows = Rows({"x": x}, x[:, -1, :1])
    start = initial_variables(recipe, 0)
    curves = [
        train(recipe, start, rows, Plan("mse", epochs=3, engine=engine)).history["loss"]
        for engine in ("graph", "xla", "keras")
    ]
    np.testing.assert_allclose(curves[1:], [curves[0]] * 2, rtol=1e-5)


def test_an_unknown_engine_is_refused(blueprint, binary_rows):
    recipe = blueprint(lambda: network(layers.Dense(1), shape=(6,)), key=None)
    start = initial_variables(recipe, 0)
    with pytest.raises(ValueError, match=r"`engine` must be one of .*'jit'"):
        train(recipe, start, binary_rows(), Plan("mse", engine="jit"))


def test_who_watches_batches(tmp_path):
    path = str(tmp_path / "x.keras")
    checkpoint = keras.callbacks.ModelCheckpoint
    quiet = (keras.callbacks.EarlyStopping(), checkpoint(path), keras.callbacks.LambdaCallback())
    loud = (
        checkpoint(path, save_freq=3),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None),
    )
    assert [watches_batches(callback) for callback in quiet] == [False] * 3
    assert [watches_batches(callback) for callback in loud] == [True] * 3
