"""One Keras model out of estimators that read arrays, tokens, hashed words and missing numbers."""

import functools
import re

import keras
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
)
from skstack.networks import MLP, Autoencoder, SequenceEncoder
from skstack.preprocessing import PadSequences

RNG = np.random.default_rng(0)
N = 60
Y = np.arange(N) % 2
RAGGED = [RNG.normal(size=(n, 2)).astype("float32") for n in RNG.integers(1, 7, size=N)]
PADDED = PadSequences(length=6).fit_transform(RAGGED)
X = pd.DataFrame(
    {
        "voice": list(PADDED),
        "words": list(RNG.integers(1, 9, size=(N, 4))),
        "job": RNG.choice([f"job {i}" for i in range(20)], N),
        "shop": pd.Series(RNG.integers(0, 30, N)).astype("category"),
        "pay": np.where(RNG.random(N) < 0.3, np.nan, RNG.normal(size=N)),
        "age": RNG.normal(size=N),
    }
)
NEW = X.assign(
    job=["unheard of", None, *X["job"][2:]],
    shop=pd.Series([99, None, *X["shop"][2:]]).astype("category"),
    words=list(RNG.integers(1, 99, size=(N, 4))),
)
TABLE = ["job", "shop", "pay", "age"]
TABULAR = KerasClassifier(
    MLP(4), n_hash_buckets=7, imputer=SimpleImputer(add_indicator=True), epochs=2, random_state=0
)

pytestmark = pytest.mark.usefixtures("convert_without_copies")
ENCODER = KerasClassifier(SequenceEncoder(3), epochs=2, random_state=0)


def assert_same(model, estimator, rows, method="predict_proba"):
    expected = getattr(estimator, method)(rows)
    expected = expected.reshape(len(expected), -1)
    found = model(estimator.keras_inputs(rows))  # not `predict`, which is traced first
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_hashed_strings_and_missing_numbers_become_layers(tmp_path):
    fitted = TABULAR.fit(X[TABLE], Y)
    model = fitted.to_keras()
    for rows in (X[TABLE], NEW[TABLE]):
        assert_same(model, fitted, rows)
    model.save(tmp_path / "model.keras")
    content = (tmp_path / "model.keras").read_bytes()
    assert b"Hashing" in content
    assert b"skstack" not in content  # Keras' own layers alone
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert_same(loaded, fitted, NEW[TABLE])
    fitted.export(tmp_path / "saved", format="saved_model")
    served = tf.saved_model.load(tmp_path / "saved").signatures["serving_default"]
    inputs = {k: tf.convert_to_tensor(v) for k, v in fitted.keras_inputs(NEW[TABLE]).items()}
    found = served(**inputs)["output_0"].numpy()
    np.testing.assert_allclose(found, fitted.predict_proba(NEW[TABLE]), atol=1e-5)
    with pytest.raises(ValueError, match=r"'job' is hashed.*saved_model"):
        fitted.export(tmp_path / "model.onnx", format="onnx")
    assert not (tmp_path / "model.onnx").exists()


@functools.cache
def masked(layer):
    return keras.Sequential(
        [keras.Input((6, 2)), keras.layers.Masking(0.0), layer(3, return_sequences=True, name="h")]
    )


@pytest.mark.slow(first=4)
@pytest.mark.parametrize("pooling", ["flatten", "mean", "max", "last"])
@pytest.mark.parametrize("layer", [keras.layers.LSTM, keras.layers.GRU])
def test_masks_are_part_of_the_exported_model(layer, pooling):
    model = masked(layer)
    for wanted in ({"layers": "h"}, {}):
        fitted = KerasFeatureTransformer(model, pooling=pooling, **wanted).fit(PADDED)
        assert_same(fitted.to_keras(), fitted, PADDED, "transform")


@pytest.mark.slow
@pytest.mark.parametrize("encoder", [{}, {"layer": "conv1d"}, {"pooling": "max", "layer": "lstm"}])
def test_sequences_tokens_and_tables_in_one_stack(encoder):
    voice = KerasFeatureTransformer(
        KerasClassifier(SequenceEncoder(3, **encoder), epochs=2),
        layers=["latent", "voice_1"],
        features=["outputs", "log_odds"],
        pooling="flatten",
        cv=2,
    )
    stack = StackedKerasClassifier(
        [("voice", voice, ["voice"]), ("words", ENCODER, ["words"]), ("table", TABULAR, TABLE)],
        downstream=KerasClassifier(
            MLP(4), inputs="prefix", imputer=SimpleImputer(), n_hash_buckets=3, epochs=2
        ),
        blend=False,  # which may leave parts without weight out
        cv=2,
        random_state=0,
    ).fit(X, Y)
    model = stack.to_keras()
    for rows in (X, NEW):
        assert_same(model, stack, rows)
    names = {layer.name for layer in model.layers}
    assert {"voice", "words", "table", "scaler", "downstream", "probabilities"} <= names


@pytest.mark.slow
def test_padding_is_outside_the_model_and_applied_to_rows():
    padded = make_pipeline(PadSequences(length=6), KerasFeatureTransformer(ENCODER, cv=2))
    frame = pd.DataFrame({"voice": RAGGED, "age": RNG.normal(size=N)})
    for rows, columns in ((frame, ["voice"]), (RAGGED, None)):
        stack = StackedKerasClassifier(
            [("voice", padded, columns)],
            downstream=KerasClassifier(MLP(2), epochs=1),
            blend=False,
        ).fit(rows, Y)
        assert_same(stack.to_keras(), stack, rows)
        assert_same(stack.to_keras(), stack, rows[:1])


def test_codes_are_embedded_in_the_exported_model_and_in_files(tmp_path):
    images, digits = load_digits(n_class=4, return_X_y=True)
    codes = KerasFeatureTransformer(small(), features=["codes", "outputs"], cv=2, random_state=0)
    stack = StackedKerasClassifier([("digit", codes)], downstream=small(), blend=False)
    stack.fit(images, digits)
    assert_same(stack.to_keras(), stack, images)
    rows, expected = images.astype("float32"), stack.predict_proba(images)
    stack.export(tmp_path / "stack.onnx", format="onnx")
    (found,) = onnxruntime.InferenceSession(tmp_path / "stack.onnx").run(None, {"features": rows})
    np.testing.assert_allclose(found, expected, atol=1e-5)
    stack.export(tmp_path / "stack.tflite", format="litert")
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    run = interpreter.Interpreter(str(tmp_path / "stack.tflite")).get_signature_runner(
        "serving_default"
    )
    np.testing.assert_allclose(run(features=rows)["output_0"], expected, atol=1e-5)


def test_inputs_from_columns_and_reshaped_rows(tmp_path):
    images, digits = load_digits(n_class=3, return_X_y=True)
    network = keras.Sequential(
        [keras.layers.Conv2D(2, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    fitted = KerasClassifier(network, input_shape=(8, 8, 1), epochs=1).fit(images, digits)
    assert_same(fitted.to_keras(), fitted, images)
    fitted.export(tmp_path / "model.onnx", format="onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {"features": images.astype("float32")})
    np.testing.assert_allclose(found, fitted.predict_proba(images), atol=1e-5)
    left = KerasRegressor(
        MLP(4), inputs={"top": slice(0, 32), "bottom": slice(32, 48)}, epochs=1
    ).fit(images, digits)
    assert_same(left.to_keras(), left, images, "predict")
    whole = KerasClassifier(network, input_shape=(8, 8, 1), epochs=1)
    cubes = images.reshape(-1, 8, 8)
    whole.fit(cubes, digits)
    assert_same(whole.to_keras(), whole, cubes)


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("scaling", ["standard", None])
def test_errors_of_an_autoencoder_with_several_inputs_and_missing_values(scaling):
    rows = X[TABLE]
    autoencoder = KerasAutoencoder(
        Autoencoder(4, latent_size=2, scaling=scaling),
        inputs={"money": ["pay"]},
        imputer=SimpleImputer(add_indicator=True),
        epochs=1,
        random_state=0,
    )
    fitted = KerasFeatureTransformer(
        autoencoder, features=["outputs", "reconstruction_error"], cv=2
    ).fit(rows)
    assert_same(fitted.to_keras(), fitted, rows, "transform")


def test_two_lengths_of_one_column_are_refused_by_name():
    layers = keras.layers
    branches = [
        (f"to_{n}", make_pipeline(PadSequences(length=n), KerasFeatureTransformer(frozen)))
        for n in (6, 8)
        for frozen in [keras.Sequential([keras.Input((n, 2)), layers.Flatten(), layers.Dense(1)])]
    ]
    stack = StackedKerasClassifier(
        branches, downstream=KerasClassifier(MLP(2), epochs=1), blend=False
    )
    with pytest.raises(ValueError, match=r"'steps' holds arrays of different shapes.*same length"):
        stack.fit(RAGGED, Y).to_keras()


RANDOM = RNG.integers(0, 2, 120)


def small(**settings):
    return KerasClassifier(MLP(4), epochs=2, random_state=0, **settings)


def test_hashed_strings_that_look_like_tokens_are_ordinary(tmp_path):
    words = [f"w{i % 17}" if i % 5 else "" for i in range(118)]
    rows = pd.DataFrame({"a": RNG.normal(size=120), "w": [*words, None, "[UNK]"]})
    fitted = small(n_hash_buckets=5).fit(rows, RANDOM)
    assert_same(fitted.to_keras(), fitted, rows)
    fitted.export(tmp_path / "saved")
    served = tf.saved_model.load(tmp_path / "saved").signatures["serving_default"]
    found = served(**fitted.keras_inputs(rows))["output_0"].numpy()
    np.testing.assert_allclose(found, fitted.predict_proba(rows), atol=1e-5)
    for odd in (fitted.keras_inputs(rows)["w"][118, 0], "ends\0", 7):
        with pytest.raises(ValueError, match=r"'w' is hashed.*accepts strings, but not"):
            fitted.keras_inputs(rows.assign(w=[odd, *rows["w"][1:]]))


def test_hashed_integers_that_look_like_tokens_are_ordinary():
    rows = pd.DataFrame({"k": np.arange(120), "a": RNG.normal(size=120)})
    fitted = small(n_hash_buckets=7, categorical_features=["k"]).fit(rows, RANDOM)
    model = fitted.to_keras()
    large = [*range(-5, 0), 2**53, 2**62 + 1, -(2**62)]
    new = rows.assign(k=[*large, *range(8, 120)])
    assert_same(model, fitted, new)
    assert_same(model, fitted, new.assign(k=pd.Series([None, *new["k"][1:]], dtype="Int64")))
    for odd in (2.5, -(2.0**63), "two"):
        with pytest.raises(
            ValueError, match=rf"'k' is hashed.*accepts integers, but not {re.escape(repr(odd))}"
        ):
            fitted.keras_inputs(rows.assign(k=pd.Series([odd, *range(119)], dtype=object)))


@pytest.mark.slow
def test_a_column_read_in_two_ways_has_two_inputs(tmp_path):
    rows = np.c_[RNG.normal(size=120), RNG.integers(0, 5, 120)]
    stack = StackedKerasClassifier(
        [("n", small()), ("c", small(categorical_features=[1]))],
        downstream=small(),
        cv=2,
        passthrough=False,
        blend=False,  # else a branch of weight 0 is left out
    ).fit(rows, RANDOM)
    rows[:4, 1] = 2.5, -1, -2, 99
    assert stack.keras_inputs(rows)["numeric"][:4, 1].tolist() == [2.5, -1, -2, 99]
    assert_same(stack.to_keras(), stack, rows)
    stack.export(tmp_path / "it", format="onnx")
    given = stack.keras_inputs(rows, numpy=True)
    (found,) = onnxruntime.InferenceSession(tmp_path / "it").run(None, given)
    np.testing.assert_allclose(found, stack.predict_proba(rows), atol=1e-5)


def test_a_missing_category_is_refused_as_a_number():
    rows = pd.DataFrame({"a": RNG.normal(size=120), "k": RNG.integers(0, 5, 120) * 1.0})
    rows.loc[::7, "k"] = np.nan
    stack = StackedKerasClassifier(
        [("n", small(imputer=SimpleImputer())), ("c", small(categorical_features=["k"]))],
        downstream=small(),
        cv=2,
        passthrough=False,
        blend=False,
    ).fit(rows, RANDOM)
    assert_same(stack.to_keras(), stack, rows)


def test_a_branch_may_be_named_like_an_input():
    rows = pd.DataFrame({"a": RNG.normal(size=60), "w": ["x", "y", "z"] * 20})
    for some in (rows, rows[["a"]]):
        stack = StackedKerasClassifier(
            [(name, small()) for name in ("numeric", "features", "w")],
            downstream=small(),
            passthrough=False,
            blend=False,
            cv=2,
        ).fit(some, Y)
        assert_same(stack.to_keras(), stack, some)


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["gru", "lstm"])
def test_layers_that_litert_cannot_run_are_refused_by_class(layer, tmp_path):
    network = SequenceEncoder(3, layer=layer)
    fitted = KerasClassifier(network, epochs=1, random_state=0).fit(PADDED, Y)
    with pytest.raises(ValueError, match=rf"litert.*\['{layer.upper()}'\].*saved_model.*onnx"):
        fitted.export(tmp_path / "it", format="litert")
    assert list(tmp_path.iterdir()) == []
    fitted.export(tmp_path / "it", format="onnx")
    (found,) = onnxruntime.InferenceSession(tmp_path / "it").run(None, {"features": PADDED})
    np.testing.assert_allclose(found, fitted.predict_proba(PADDED), atol=1e-5)


def test_a_column_may_be_named_like_the_output(tmp_path):
    rows = pd.DataFrame({"a": RNG.normal(size=60), "output_0": ["x", "y", "z"] * 20})
    fitted = small().fit(rows, Y)
    fitted.export(tmp_path / "it", format="onnx")
    given = fitted.keras_inputs(rows, numpy=True)
    given = {
        name: each.astype(object) if each.dtype.kind == "U" else each
        for name, each in given.items()
    }
    (found,) = onnxruntime.InferenceSession(tmp_path / "it").run(["output_0"], given)
    np.testing.assert_allclose(found, fitted.predict_proba(rows), atol=1e-5)


def sigmoid():
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(inputs))


HASHED = {"n_hash_buckets": 1}


@pytest.mark.slow(first=3)
@pytest.mark.parametrize(
    ("upstream", "settings"),
    [
        (small(), HASHED),
        (sigmoid(), {}),
        ("stack", {}),
        (small(), {}),
        (sigmoid(), HASHED),
        ("stack", HASHED),
    ],
    ids=["trained, hashed", "frozen", "stack", "trained", "frozen, hashed", "stack, hashed"],
)
def test_codes_of_two_classes(upstream, settings):
    rows = RNG.normal(size=(N, 3))
    if upstream == "stack":
        upstream = StackedKerasClassifier(small(), downstream=small(), blend=False, cv=2)
    codes = KerasFeatureTransformer(upstream, features=["codes", "outputs"], cv=2)
    stack = StackedKerasClassifier(
        [("which", codes)],
        downstream=small(**settings),
        blend=False,
        passthrough=False,
        random_state=0,
    ).fit(rows, Y)
    assert stack.transform(rows).iloc[:, 0].nunique() == 2
    assert_same(stack.to_keras(), stack, rows)


def test_hashed_codes_of_many_classes():
    images, digits = load_digits(n_class=7, return_X_y=True)
    codes = KerasFeatureTransformer(small(), features="codes", cv=2)
    stack = StackedKerasClassifier(
        [("digit", codes)],
        downstream=small(n_hash_buckets=3),
        blend=False,
        passthrough=False,
        random_state=0,
    ).fit(images, digits)
    assert_same(stack.to_keras(), stack, images)


def test_codes_are_numbers_for_parts_that_read_numbers():
    images, digits = load_digits(n_class=4, return_X_y=True)
    codes = KerasFeatureTransformer(small(), features=["codes", "outputs"], cv=2)
    stack = StackedKerasClassifier(
        [("digit", codes)],
        downstream=small(categorical_features=None),
        blend=False,
        passthrough=False,
    ).fit(images, digits)
    assert_same(stack.to_keras(), stack, images)
    alone = codes.fit(images, digits)
    found = np.asarray(alone.to_keras()(images))
    np.testing.assert_allclose(found, alone.transform(images).astype("float32"), atol=1e-5)


def test_codes_of_other_estimators_are_refused():
    rows = RNG.normal(size=(N, 3))
    codes = KerasFeatureTransformer(
        KerasAutoencoder(Autoencoder(4), epochs=1), features="codes", cv=2
    )
    stack = StackedKerasClassifier([("latent", codes)], downstream=LogisticRegression())
    stack.fit(rows, Y)
    with pytest.raises(ValueError, match=r"'latent'.*codes.*requires a classifier"):
        stack.to_keras()


def test_codes_of_one_output_of_any_size_are_refused():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.ReLU(1.0)(keras.layers.Dense(1)(inputs)))
    codes = KerasFeatureTransformer(model, features=["codes", "outputs"])
    stack = StackedKerasClassifier([("which", codes)], downstream=LogisticRegression())
    stack.fit(RNG.normal(size=(N, 3)), Y)
    with pytest.raises(ValueError, match=r"'which'.*codes.*not a sigmoid"):
        stack.to_keras()


@pytest.mark.slow
def test_an_exported_model_is_refused_as_upstream_of_coded_categories():
    """It looks categories up: our codes would be taken for values, without a word."""
    rows = X[["shop", "age"]]
    fitted = KerasClassifier(MLP(2), epochs=1).fit(rows, Y)
    with pytest.raises(ValueError, match=r"has lookup layers.*\['shop'\].*FrozenEstimator"):
        KerasFeatureTransformer(fitted.to_keras()).fit(rows)
    numbers = KerasClassifier(MLP(2), epochs=1).fit(X[["age"]], Y)
    frozen = KerasFeatureTransformer(numbers.to_keras()).fit_transform(X[["age"]])
    np.testing.assert_allclose(frozen, numbers.predict_proba(X[["age"]]), atol=1e-6)
