"""Saved estimators predict the same in another process, for rows of every shape."""

import pickle

import keras
import numpy as np
import pandas as pd
import pytest
from _fresh import run
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline

import skstack
from skstack import KerasClassifier, KerasFeatureTransformer, StackedKerasClassifier
from skstack.networks import MLP, SequenceEncoder
from skstack.preprocessing import PadSequences

# Loads each estimator and its rows; writes what it makes of them.
SCRIPT = """
import pickle, sys
import numpy as np, skstack
from skstack import KerasFeatureTransformer
folder = sys.argv[1]
for name, method, rows in pickle.load(open(f"{folder}/rows.pkl", "rb")):
    estimator = skstack.load(f"{folder}/{name}.skstack")
    np.save(f"{folder}/{name}.npy", getattr(estimator, method)(rows))
images, rows = pickle.load(open(f"{folder}/frozen.pkl", "rb"))
for pooling in ("flatten", "mean", "max", "last"):
    fitted = KerasFeatureTransformer(f"{folder}/voices.keras", layers="states", pooling=pooling)
    np.save(f"{folder}/{pooling}.npy", fitted.fit_transform(rows))
maps = KerasFeatureTransformer(f"{folder}/images.keras", layers="maps", input_shape=(8, 8, 1))
np.save(f"{folder}/maps.npy", maps.fit_transform(images))
"""


@pytest.fixture(scope="module")
def voices():
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    lengths = rng.integers(2, 9, size=80)
    waves = [np.sin(np.arange(n) * (0.5 + k)) for n, k in zip(lengths, y, strict=True)]
    return [np.c_[wave, rng.normal(size=len(wave))].astype("float32") for wave in waves], y


def trained(layers, X, y):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(layers)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(X, y, epochs=2, verbose=0)
    return model


@pytest.mark.slow
def test_rows_of_every_shape_predict_the_same_in_a_fresh_process(tmp_path, voices):
    sequences, y = voices
    padded = PadSequences(length=8).fit_transform(sequences)
    images, digits = load_digits(n_class=3, return_X_y=True)
    layers = keras.layers
    trained(
        [
            keras.Input((8, 2)),
            layers.Masking(0.0),
            layers.LSTM(4, return_sequences=True, name="states"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(2, activation="softmax"),
        ],
        padded,
        y,
    ).save(tmp_path / "voices.keras")
    trained(
        [
            keras.Input((8, 8, 1), dtype="float16"),
            layers.Conv2D(3, 3, name="maps"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ],
        images.reshape(-1, 8, 8, 1),
        digits,
    ).save(tmp_path / "images.keras")

    encoder = KerasClassifier(SequenceEncoder(4), epochs=2, random_state=0)
    cells = pd.DataFrame(
        {
            "picture": list(images[:80].reshape(-1, 8, 8, 1)),
            "words": list(np.random.default_rng(1).integers(1, 9, size=(80, 5))),
            "voice": sequences,
            "age": np.arange(80.0),
        }
    )
    pictures = KerasFeatureTransformer(tmp_path / "images.keras", layers="maps", pooling="max")
    stack = StackedKerasClassifier(
        [
            ("picture", pictures, ["picture"]),
            ("words", encoder, ["words"]),
            ("voice", make_pipeline(PadSequences(length=8), encoder), ["voice"]),
        ],
        downstream=KerasClassifier(MLP(4), inputs="prefix", epochs=2),
        cv=2,
        random_state=0,
    )
    fitted = {
        "voices": (make_pipeline(PadSequences(), encoder).fit(sequences, y), sequences),
        "stack": (stack.fit(cells, y), cells),
    }
    cases = []
    for name, (estimator, rows) in fitted.items():
        skstack.save(estimator, tmp_path / f"{name}.skstack")
        cases.append((name, "predict_proba", rows))
    with open(tmp_path / "rows.pkl", "wb") as file:
        pickle.dump(cases, file)
    with open(tmp_path / "frozen.pkl", "wb") as file:
        pickle.dump((images, padded), file)
    run(SCRIPT, tmp_path)

    for name, (estimator, rows) in fitted.items():
        found = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_array_equal(found, estimator.predict_proba(rows))
    voice_model = keras.saving.load_model(tmp_path / "voices.keras")
    states = keras.Model(voice_model.inputs[0], voice_model.get_layer("states").output)
    real = [
        np.asarray(states(row[None]))[0, : len(s)] for row, s in zip(padded, sequences, strict=True)
    ]
    for pooling, reduce in (("mean", np.mean), ("max", np.max)):
        expected = [reduce(steps, axis=0) for steps in real]
        np.testing.assert_allclose(np.load(tmp_path / f"{pooling}.npy"), expected, atol=1e-5)
    last = [steps[-1] for steps in real]
    np.testing.assert_allclose(np.load(tmp_path / "last.npy"), last, atol=1e-5)
    flat = np.load(tmp_path / "flatten.npy").reshape(80, 8, 4)
    for row, steps in zip(flat, real, strict=True):
        np.testing.assert_allclose(row[: len(steps)], steps, atol=1e-5)
        assert not row[len(steps) :].any()
    here = KerasFeatureTransformer(
        tmp_path / "images.keras", layers="maps", input_shape=(8, 8, 1)
    ).fit_transform(images)
    np.testing.assert_array_equal(np.load(tmp_path / "maps.npy"), here)
