"""The recipe for sequences: padding does not affect training."""

import functools

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from skstack import KerasClassifier, KerasRegressor
from skstack.networks import SequenceEncoder
from skstack.preprocessing import PadSequences
from skstack.preprocessing._column_profile import moments_of_steps

RNG = np.random.default_rng(0)
RAGGED = [RNG.normal(loc=[5, -3], scale=[1, 20], size=(n, 2)) for n in [5, 2, 7, 3, 1, 4, 6, 2] * 3]
Y = np.arange(24) % 3
# Each kind of layer with each kind of pooling that treats padding in its own way.
WAYS = [
    {"layer": "lstm", "bidirectional": True, "units": (3, 2)},
    {"pooling": "mean", "scaling": None},
    {"pooling": "max", "bidirectional": True},
    {"dropout": 0.1, "hidden_layer_sizes": 4},
    {"layer": "conv1d", "units": (3, 2)},
    {"layer": "conv1d", "pooling": "mean"},
    {"layer": "conv1d", "pooling": "last", "kernel_size": 2},
]
CHEAP = SequenceEncoder(2, layer="conv1d")


def padded(sequences, length, value=0.0):
    return PadSequences(length=length, value=value).fit_transform(sequences)


@functools.cache
def fitted_to(length, number):
    """Return the encoder of ``WAYS[number]``, fitted on sequences that are padded to a length."""
    encoder = SequenceEncoder(**{"units": 3, **WAYS[number]})
    return KerasClassifier(encoder, epochs=2, random_state=0).fit(padded(RAGGED, length), Y)


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("number", [5, 0, 1, 2, 3, 4, 6], ids=lambda number: str(WAYS[number]))
def test_predictions_do_not_depend_on_padding(number):
    fitted, same = fitted_to(7, number), fitted_to(12, number)
    for name, values in fitted.network_.variables.items():
        np.testing.assert_allclose(same.network_.variables[name], values, atol=1e-5)
    np.testing.assert_allclose(
        same.predict_proba(padded(RAGGED, 12)), fitted.predict_proba(padded(RAGGED, 7)), atol=1e-5
    )


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_row_without_steps_is_encoded_as_zeros(pooling):
    X = padded(RAGGED, 7)
    X[0] = 0
    encoder = SequenceEncoder(3, pooling=pooling)
    fitted = KerasClassifier(encoder, epochs=1, random_state=0).fit(X, Y)
    (latent,) = fitted._layer_outputs(X[:2], ["latent"])
    assert latent[0].tolist() == [0, 0, 0]
    assert latent[1].all()
    assert np.isfinite(fitted.predict_proba(X)).all()


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("value", [-99.0, 0.0])
def test_channels_are_standardised_with_moments_of_real_steps(value):
    X = padded(RAGGED, 7, value)
    encoder = SequenceEncoder(2, layer="conv1d", mask_value=value)
    fitted = KerasClassifier(encoder, epochs=1, random_state=0).fit(X, Y)
    steps = np.vstack(RAGGED).astype(np.float32)
    variables = fitted.network_.variables
    np.testing.assert_allclose(variables["sequence_center/bias"], -steps.mean(0), rtol=1e-5)
    np.testing.assert_allclose(
        variables["sequence_scale/kernel"], np.diag(1 / steps.std(0)), rtol=1e-5
    )
    (standard,) = fitted._layer_outputs(X, ["sequence_scale"])
    np.testing.assert_allclose(
        standard[0, :5], (steps[:5] - steps.mean(0)) / steps.std(0), atol=1e-5
    )


def test_weighted_moments_of_steps_are_those_of_repeated_rows():
    X = padded(RAGGED, 7)
    weights = np.arange(24) % 4
    found = moments_of_steps(X, 0.0, weights)
    expected = moments_of_steps(np.repeat(X, weights, axis=0), 0.0)
    np.testing.assert_allclose(found, expected)
    mean, scale = moments_of_steps(np.zeros((3, 2, 2)), 0.0)
    assert mean.tolist() == [0, 0]
    assert scale.tolist() == [1, 1]


@pytest.mark.slow
def test_sequences_with_numbers_categories_and_token_ids():
    X = pd.DataFrame(
        {
            "voice": RAGGED,
            "words": [RNG.integers(1, 9, size=n) for n in RNG.integers(1, 5, size=24)],
            "age": RNG.normal(size=24),
            "sex": list("ab") * 12,
        }
    )
    encoder = SequenceEncoder(3, hidden_layer_sizes=(4,))
    pipeline = make_pipeline(PadSequences(length=7), KerasClassifier(encoder, epochs=1))
    assert cross_val_score(pipeline, X, Y, cv=2, error_score="raise").shape == (2,)
    layers = [layer.name for layer in pipeline.fit(X, Y)[-1].model_.layers]
    assert {"voice_1", "words_1", "latent", "hidden_1", "sex_embedding", "output"} <= set(layers)


@pytest.mark.slow
def test_speakers_are_classified_by_their_vowels(shared_data):
    """The official split; the paper's own classifiers are right for 94 % and more."""
    table = shared_data("japanese_vowels")
    channels = [f"lpc{number}" for number in range(1, 13)]

    def read(split):
        cases = [case for _, case in table[table["split"] == split].groupby("case", sort=False)]
        return [c[channels].to_numpy() for c in cases], [c["speaker"].iloc[0] for c in cases]

    pipeline = make_pipeline(
        PadSequences(length=29),
        KerasClassifier(SequenceEncoder(32, layer="conv1d"), epochs=40, random_state=0),
    )
    assert pipeline.fit(*read("train")).score(*read("test")) > 0.93


@pytest.mark.slow
def test_a_saved_encoder_loads_without_skstack(tmp_path):
    X = padded(RAGGED, 7)
    for number in range(len(WAYS)):
        fitted = fitted_to(7, number)
        path = tmp_path / f"{number}.keras"
        fitted.model_.save(path)
        loaded = keras.saving.load_model(path, safe_mode=True)
        np.testing.assert_allclose(loaded.predict(X, verbose=0), fitted.predict_proba(X), atol=1e-6)


@pytest.mark.slow
def test_it_fits_regression_targets():
    X = padded(RAGGED, 7)
    y = np.array([steps[:, 0].mean() for steps in RAGGED])
    encoder = SequenceEncoder(8, pooling="mean", layer="lstm")
    fitted = KerasRegressor(encoder, epochs=300, learning_rate=0.01, random_state=0).fit(X, y)
    assert fitted.score(X, y) > 0.9


@pytest.mark.parametrize(
    ("ways", "message"),
    [
        ({"layer": "rnn"}, r"layer='rnn' of SequenceEncoder must be one of \('lstm', 'gru'"),
        ({"pooling": "sum"}, "pooling='sum'"),
        ({"layer": "conv1d", "bidirectional": True}, "bidirectional=True.*needs recurrent"),
        ({"units": ()}, r"units=\(\)"),
        ({"units": 0}, "units=0"),
        ({"kernel_size": 0}, "kernel_size=0"),
        ({"mask_value": "0"}, "mask_value='0'"),
        ({"mask_value": float("nan")}, "mask_value=nan"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"activation": "relUU"}, "activation='relUU'"),
        ({"hidden_layer_sizes": (3, 0)}, r"hidden_layer_sizes=\(3, 0\)"),
    ],
)
def test_invalid_parameters_are_refused_by_name(ways, message):
    with pytest.raises(ValueError, match=message):
        KerasClassifier(SequenceEncoder(**ways), epochs=1).fit(padded(RAGGED, 7), Y)


def test_a_table_without_steps_is_refused():
    with pytest.raises(ValueError, match=r"rows, steps.*'numeric': \(None, 4\).*input_shape"):
        KerasClassifier(CHEAP, epochs=1).fit(RNG.normal(size=(24, 4)), Y)
    columns = KerasClassifier(CHEAP, input_shape=(2, 2), epochs=1)
    assert columns.fit(RNG.normal(size=(24, 4)), Y).predict(np.zeros((1, 4))).shape == (1,)


def test_an_array_of_token_ids_is_refused_with_the_way_to_pass_it():
    ids = [[1, 2], [3], [2, 2, 4]] * 8
    pipeline = make_pipeline(PadSequences(), KerasClassifier(CHEAP, epochs=1))
    with pytest.raises(ValueError, match=r"token ids, pass .* pd\.DataFrame\(\{'words': list\(X\)"):
        pipeline.fit(ids, Y)
    words = pd.DataFrame({"words": list(PadSequences().fit_transform(ids))})
    assert pipeline[-1].fit(words, Y).predict(words).shape == (24,)


def test_rows_of_several_lengths_are_refused_with_the_way_to_pass_them():
    X, y = [list(range(1, 2 + i % 3)) for i in range(20)], np.arange(20) % 2
    network = KerasClassifier(CHEAP, epochs=1)
    with pytest.raises(ValueError, match=r"rows of 1 to 3 values.*PadSequences\(\)"):
        network.fit(X, y)
    network = make_pipeline(PadSequences(), network)
    assert network.fit(pd.DataFrame({"ids": X}), y).predict(pd.DataFrame({"ids": X})).shape == (20,)


def test_parameters_work_in_clones_and_grids():
    encoder = SequenceEncoder((4,), layer="lstm")
    assert clone(encoder).get_params() == encoder.get_params()
    estimator = KerasClassifier(encoder).set_params(model__units=(2,))
    assert estimator.model.units == (2,)
