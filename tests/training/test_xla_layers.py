"""The layers that XLA computes in another way do what Keras' own do."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from skstack._training.config import TrainConfig
from skstack._training.initial_weights import initial_variables
from skstack._training.train import train
from skstack._training.xla_layers import random_bits, replaced_calls

N = 4096
STRANGE = 4.5  # standard deviations; the seeds are fixed, so that nothing is left to chance


@functools.cache
def compiled(n):
    return tf.function(lambda seed: random_bits(seed, n), jit_compile=True, autograph=False)


def bits(seed, n=N):
    return compiled(n)(tf.constant(seed, tf.int64)).numpy()


SEEDS = [(0, 0), (0, 1), (1, 0), (1, 1), (123456789, 7), (987654321, 7), (987654321, 2**20)]


@pytest.mark.parametrize("seed", SEEDS, ids=str)
def test_bits_are_uniform_and_independent_of_their_neighbours(seed):
    u = bits(seed) / 2**32
    assert stats.kstest(u, "uniform").pvalue > 1e-4
    for lag in (1, 2, 3, 64, 128, 1024):
        assert abs(np.corrcoef(u[:-lag], u[lag:])[0, 1]) * np.sqrt(N) < STRANGE, lag
    each_bit = ((bits(seed)[:, None] >> np.arange(32)) & 1).mean(axis=0)
    assert np.abs(each_bit - 0.5).max() * 2 * np.sqrt(N) < STRANGE


def test_calls_and_layers_are_independent():
    streams = np.array([bits(seed) for seed in SEEDS]) / 2**32
    for shift in (0, 1, 17):
        shifted = np.roll(streams, shift, axis=1)
        found = np.corrcoef(streams, shifted)[: len(SEEDS), len(SEEDS) :] * np.sqrt(N)
        if shift == 0:
            np.fill_diagonal(found, 0.0)
        assert np.abs(found).max() < STRANGE
    # Shifted copies of one another would have long runs of values in common.
    assert len(np.unique([bits(seed) for seed in SEEDS])) > 0.999 * N * len(SEEDS)


def undone(bits):
    """The inverse of the finaliser of MurmurHash3, by the inverse constants modulo 2**32."""
    bits ^= bits >> 16
    bits = bits * pow(0xC2B2AE35, -1, 2**32) % 2**32
    bits ^= (bits >> 13) ^ (bits >> 26)
    bits = bits * pow(0x85EBCA6B, -1, 2**32) % 2**32
    return bits ^ (bits >> 16)


def test_no_two_calls_draw_shifted_copies():
    """Of seeds whose first keys lie near, one round of the hash would give shifted copies."""
    first = 12345
    near = (first + 5 * 0x9E3779B1) % 2**32
    count = 3
    of_count = int(hashed((count + 0x9E3779B9) % 2**32))
    one, other = (bits((undone(key) ^ of_count, count)) for key in (first, near))
    assert len(np.intersect1d(one, other)) <= 2  # 4096 * 4096 / 2**32 by chance


def hashed(bits):
    bits ^= bits >> 16
    bits = bits * 0x85EBCA6B % 2**32
    bits ^= bits >> 13
    bits = bits * 0xC2B2AE35 % 2**32
    return bits ^ (bits >> 16)


def test_the_inverse_is_correct():
    for value in (0, 1, 12345, 2**31, 2**32 - 1):
        assert hashed(undone(value)) == value


def masks(layer, shape, n_calls):
    """What is kept of ones, in some calls of a layer within one program."""

    def calls():
        with replaced_calls([layer], None):
            return tf.stack([layer(tf.ones(shape), training=True) for _ in range(n_calls)])

    layer.build(shape)
    return tf.function(calls, jit_compile=True, autograph=False)().numpy()


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("rate", [0.3, 0.05, 0.5, 0.9])
def test_dropout_keeps_its_rate_and_the_mean(rate):
    layer = keras.layers.Dropout(rate, seed=3)
    found = masks(layer, (64, 32), 20)
    assert set(np.unique(found)) == {np.float32(0), np.float32(1) / np.float32(1 - rate)}
    kept = (found > 0).reshape(20, -1)
    spread = np.sqrt(rate * (1 - rate))
    assert abs(kept.mean() - (1 - rate)) / spread * np.sqrt(kept.size) < STRANGE
    if rate < 0.1:
        return  # too few are dropped for correlations to be normal
    steps = np.corrcoef(kept) - np.eye(20)
    assert np.abs(steps).max() * np.sqrt(kept.shape[1]) < STRANGE
    units = np.corrcoef((found > 0).reshape(-1, 32).T) - np.eye(32)
    assert np.abs(units).max() * np.sqrt(20 * 64) < STRANGE
    rows = np.corrcoef((found > 0).transpose(1, 0, 2).reshape(64, -1)) - np.eye(64)
    assert np.abs(rows).max() * np.sqrt(20 * 32) < STRANGE


def test_two_layers_drop_different_units():
    first, second = (
        masks(keras.layers.Dropout(0.5, seed=seed), (64, 64), 1).ravel() for seed in (1, 2)
    )
    assert abs(np.corrcoef(first, second)[0, 1]) * 64 < STRANGE


def test_the_noise_has_the_requested_shape():
    across = masks(keras.layers.Dropout(0.5, noise_shape=(None, 1), seed=0), (64, 8), 1)[0]
    assert (across == across[:, :1]).all()
    assert 0.2 < (across[:, 0] > 0).mean() < 0.8
    spatial = masks(keras.layers.SpatialDropout2D(0.5, seed=0), (16, 4, 4, 8), 1)[0]
    assert (spatial == spatial[:, :1, :1]).all()
    assert 0.3 < (spatial[:, 0, 0] > 0).mean() < 0.7


def test_nothing_is_dropped_at_inference_and_the_layer_is_unchanged():
    layer = keras.layers.Dropout(0.5, seed=0)
    with replaced_calls([layer], None):
        np.testing.assert_array_equal(layer(np.ones((3, 4)), training=False), np.ones((3, 4)))
    assert "call" not in vars(layer)
    with pytest.raises(KeyError), replaced_calls([layer], None):
        raise KeyError
    assert "call" not in vars(layer)


@pytest.mark.parametrize("shape", [(12, 3), (12, 5, 3), (12, 4, 5, 3)], ids=str)
def test_batch_normalisation_ignores_padding(shape):
    generator = np.random.default_rng(0)
    x = generator.normal(3.0, 2.0, shape).astype("float32")
    ours, theirs = keras.layers.BatchNormalization(), keras.layers.BatchNormalization()
    ours.build(shape)
    theirs.build(shape)
    with replaced_calls([ours], tf.range(12) < 7):
        found = ours(x, training=True)[:7]
    np.testing.assert_allclose(found, theirs(x[:7], training=True), rtol=1e-5, atol=1e-5)
    for mine, other in zip(ours.variables, theirs.variables, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


def test_frozen_batch_normalisation_stays_frozen():
    layer = keras.layers.BatchNormalization(trainable=False)
    layer.build((4, 3))
    before = [variable.numpy().copy() for variable in layer.variables]
    with replaced_calls([layer], tf.range(4) < 2):
        layer(np.full((4, 3), 9.0, "float32"), training=True)
    for variable, array in zip(layer.variables, before, strict=True):
        np.testing.assert_array_equal(variable, array)


def dropped():
    i = {"numeric": keras.Input((6,), name="numeric")}
    x = keras.layers.Dense(64, activation="relu")(i["numeric"])
    x = keras.layers.Dropout(0.4)(x)
    return keras.Model(i, keras.layers.Dense(1, activation="sigmoid")(x))


def test_dropout_learns_the_same_with_all_engines(blueprint, binary_rows):
    """In distribution: over 20 seeds, the losses of the engines differ by no more than noise."""
    rows, recipe = binary_rows(128), blueprint(dropped)
    losses = {
        engine: [
            train(
                recipe,
                initial_variables(recipe, 0),
                rows,
                TrainConfig("binary_crossentropy", epochs=4, engine=engine, seed=seed),
            ).history["loss"][-1]
            for seed in range(20)
        ]
        for engine in ("graph", "xla")
    }
    assert np.std(losses["xla"]) > 0
    assert stats.ttest_ind(losses["graph"], losses["xla"]).pvalue > 1e-3
