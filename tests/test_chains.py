"""Chains of networks that people build: trained for real, against values computed by hand."""

import subprocess
import sys

import joblib
import keras
import numpy as np
import pytest
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import make_pipeline
from sklearn.datasets import load_breast_cancer
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from skstack import KerasClassifier, KerasFeatureTransformer, StackedKerasClassifier
from skstack.networks import MLP

KINDS = ["outputs", "log_odds", "entropy", "margin"]
layers = keras.layers

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
X.columns = [name.replace(" ", "_") for name in X.columns]
# Rows of the past, on which somebody has trained a network; rows to learn from; rows to judge.
PAST, NOW, LATER = slice(0, 200), slice(200, 450), slice(450, None)
MEANS = [name for name in X.columns if name.startswith("mean_")]
OTHERS = [name for name in X.columns if name not in MEANS]


def dense(x, layer, activation=lambda x: x):
    kernel, bias = (np.asarray(weights, dtype=np.float64) for weights in layer.get_weights())
    return activation(x @ kernel + bias)


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def of_probabilities(p):
    """Probability, log-odds, entropy and margin of the second of two classes, as columns."""
    p = np.clip(p, 1e-7, 1 - 1e-7)
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    return np.column_stack([p, np.log(p / (1 - p)), entropy, np.abs(2 * p - 1)])


def untrained_autoencoder():
    inputs = keras.Input((X.shape[1],))
    x = layers.Dense(16, "relu", name="encoder")(inputs)
    x = layers.Dense(4, name="encoder_output")(x)
    x = layers.Dense(16, "relu", name="decoder")(x)
    return keras.Model(inputs, layers.Dense(X.shape[1], name="rebuilt")(x), name="autoencoder")


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    """A trained autoencoder of the past rows: its file, the model itself, and its scaler."""
    keras.utils.set_random_seed(0)
    scaler = StandardScaler().fit(X[PAST].to_numpy())
    model = untrained_autoencoder()
    model.compile(keras.optimizers.Adam(0.01), "mse")
    past = scaler.transform(X[PAST].to_numpy())
    model.fit(past, past, epochs=20, verbose=0)
    path = tmp_path_factory.mktemp("models") / "autoencoder.keras"
    model.save(path)
    return path, model, scaler


@pytest.fixture(scope="module")
def risk_model(tmp_path_factory):
    """A trained classifier of the mean columns of past rows: its file, and the model itself."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((len(MEANS),)),
            layers.Normalization(name="scaled"),
            layers.Dense(8, "relu", name="hidden"),
            layers.Dense(1, "sigmoid", name="risk"),
        ],
        name="risk_model",
    )
    model.get_layer("scaled").adapt(X.loc[: PAST.stop - 1, MEANS].to_numpy())
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
    model.fit(X.loc[: PAST.stop - 1, MEANS].to_numpy(), y[PAST].to_numpy(), epochs=20, verbose=0)
    path = tmp_path_factory.mktemp("models") / "risk.keras"
    model.save(path)
    return path, model


# Reads names of files, one on a line, and writes the predictions beside them.
READER = """
import sys, joblib, numpy
for line in sys.stdin:
    model, rows = joblib.load(line.strip())
    numpy.save(line.strip() + ".npy", model.predict_proba(rows))
    print("done", flush=True)
"""


@pytest.fixture(scope="module")
def in_a_fresh_process(tmp_path_factory):
    """Predictions of saved models, loaded in a process that saw none of them being fitted."""
    folder, pipe = tmp_path_factory.mktemp("fresh"), subprocess.PIPE
    with (
        open(folder / "errors", "w") as errors,
        subprocess.Popen(
            [sys.executable, "-c", READER], cwd=folder, text=True,
            stdin=pipe, stdout=pipe, stderr=errors,
        ) as process,
    ):  # fmt: skip

        def predictions(model, rows):
            path = folder / f"{len(list(folder.iterdir()))}.joblib"
            joblib.dump((model, rows), path)
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n", (folder / "errors").read_text()
            return np.load(f"{path}.npy")

        yield predictions
        process.stdin.close()


def small(**settings):
    return KerasClassifier(MLP(), epochs=5, random_state=0, **settings)


# ---- a pretrained autoencoder ----------------------------------------------------------------


@pytest.mark.slow
def test_a_layer_of_a_pretrained_autoencoder_beside_x_scaled_resampled_classified(
    autoencoder, in_a_fresh_process
):
    path, model, scaler = autoencoder
    latent = KerasFeatureTransformer(path, layers="encoder_output", passthrough=True)
    sampler = SMOTE(random_state=0)
    chain = make_pipeline(FrozenEstimator(scaler), latent, StandardScaler(), sampler, small())
    chain.fit(X[NOW].to_numpy(), y[NOW])

    def table(rows):
        scaled = scaler.transform(X[rows].to_numpy())
        hidden = dense(scaled, model.get_layer("encoder"), relu)
        return np.hstack([dense(hidden, model.get_layer("encoder_output")), scaled])

    by_hand = table(LATER)
    np.testing.assert_allclose(
        chain[:2].transform(X[LATER].to_numpy()), by_hand, rtol=1e-5, atol=1e-5
    )
    # The same chain by hand: the scaler of the training rows, SMOTE on them alone, one network.
    last = StandardScaler().fit(table(NOW))
    rows, labels = SMOTE(random_state=0).fit_resample(last.transform(table(NOW)), y[NOW])
    assert np.bincount(labels).tolist() == [max(np.bincount(y[NOW]))] * 2
    expected = small().fit(rows, labels).predict_proba(last.transform(by_hand))
    found = chain.predict_proba(X[LATER].to_numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert roc_auc_score(y[LATER], found[:, 1]) > 0.95
    np.testing.assert_array_equal(in_a_fresh_process(chain, X[LATER].to_numpy()), found)


@pytest.mark.slow
def test_the_error_of_a_pretrained_autoencoder_as_the_only_feature(autoencoder, in_a_fresh_process):
    path, model, scaler = autoencoder
    error = KerasFeatureTransformer(path, features="reconstruction_error")
    chain = make_pipeline(FrozenEstimator(scaler), error, StandardScaler(), small())
    chain.fit(X[NOW].to_numpy(), y[NOW])
    scaled = x = scaler.transform(X[LATER].to_numpy())
    for name, activation in (
        ("encoder", relu),
        ("encoder_output", np.asarray),
        ("decoder", relu),
        ("rebuilt", np.asarray),
    ):
        x = dense(x, model.get_layer(name), activation)
    by_hand = np.square(scaled - x).mean(axis=1, keepdims=True)
    found = chain[:2].transform(X[LATER].to_numpy())
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)
    assert chain[:2].get_feature_names_out(X.columns).tolist() == ["reconstruction_error"]
    np.testing.assert_array_equal(
        in_a_fresh_process(chain, X[LATER].to_numpy()),
        chain[2:].predict_proba(found),
    )


def test_a_chain_names_the_output_that_its_autoencoder_lacks(tmp_path):
    path, model = tmp_path / "autoencoder.keras", untrained_autoencoder()
    model.save(path)
    rows = X[NOW].to_numpy()
    wrong = KerasFeatureTransformer(path, layers="encoder_outputs", passthrough=True)
    with pytest.raises(ValueError, match=r"no layer named 'encoder_outputs'.*encoder_output, dec"):
        make_pipeline(wrong, StandardScaler(), SMOTE(), small()).fit(rows, y[NOW])
    encoder = keras.Model(
        model.inputs, model.get_layer("encoder_output").output, name="encoder_alone"
    )
    error = KerasFeatureTransformer(encoder, features="reconstruction_error")
    message = (
        r"'reconstruction_error'.*'encoder_alone' takes \[\(None, 30\)\] and returns \(None, 4\)"
    )
    with pytest.raises(ValueError, match=message):
        make_pipeline(error, small()).fit(rows, y[NOW])
    with pytest.raises(
        ValueError, match=r"'log_odds'.*'autoencoder' has an output of shape \(None, 30\)"
    ):
        make_pipeline(KerasFeatureTransformer(path, features="log_odds"), small()).fit(rows, y[NOW])
    with pytest.raises(ValueError, match=r"takes an input of shape \(None, 30\).*\(None, 29\)"):
        make_pipeline(KerasFeatureTransformer(path), small()).fit(rows[:, 1:], y[NOW])


# ---- predictions as features -----------------------------------------------------------------


def stack_of(model):
    """Predictions from the mean columns join the other columns."""
    branch = KerasFeatureTransformer(model, features=KINDS, cv=3)
    return StackedKerasClassifier(
        upstream=[("risk", branch, MEANS)],
        downstream=small(),
        passthrough=OTHERS,
        scaler=None,
        random_state=0,
    )


@pytest.mark.slow
def test_predictions_of_a_saved_model_join_the_columns_of_another_table(
    risk_model, in_a_fresh_process
):
    path, model = risk_model
    stack = stack_of(path).fit(X[NOW], y[NOW])
    means = X[LATER][MEANS].to_numpy()
    layer = model.get_layer("scaled")
    scaled = (means - np.asarray(layer.mean)) / np.sqrt(np.asarray(layer.variance))
    hidden = dense(scaled, model.get_layer("hidden"), relu)
    p = dense(hidden, model.get_layer("risk"), sigmoid).ravel()
    table = stack.set_output(transform="pandas").transform(X[LATER])
    np.testing.assert_allclose(table.iloc[:, :4], of_probabilities(p), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(table.iloc[:, 4:], X[LATER][OTHERS], rtol=1e-6)
    assert list(table.columns[4:]) == OTHERS
    assert [name.split("__")[0] for name in table.columns[:4]] == ["risk"] * 4
    found = stack.predict_proba(X[LATER])
    # The columns of the two tables meet by name, in whatever order the file has them.
    np.testing.assert_array_equal(stack.downstream_.predict_proba(table.to_numpy()), found)
    np.testing.assert_array_equal(in_a_fresh_process(stack, X[LATER]), found)


@pytest.mark.slow
def test_predictions_of_a_network_trained_here_are_out_of_fold_while_fitting(in_a_fresh_process):
    stack = stack_of(small()).set_output(transform="pandas")
    while_fitting = stack.fit_transform(X[NOW], y[NOW])
    names = ["risk__proba_1", "risk__log_odds_1", "risk__entropy", "risk__margin"]
    assert list(while_fitting.columns) == names + OTHERS
    # Log-odds, entropy and margin are those of the very probabilities beside them.
    p = while_fitting["risk__proba_1"].to_numpy(dtype=np.float64)
    sure = np.minimum(p, 1 - p) > 1e-3  # the others have lost their digits in float32
    np.testing.assert_allclose(
        while_fitting[names][sure], of_probabilities(p[sure]), rtol=1e-3, atol=1e-5
    )
    # Later they come from the network of all training rows, through plain Keras.
    network = stack.named_upstream_["risk"].estimator_
    keras_says = np.asarray(network.model_(X[LATER][MEANS].to_numpy(np.float32)))
    later = stack.transform(X[LATER])
    np.testing.assert_allclose(
        later["risk__proba_1"], keras_says.reshape(len(later), -1)[:, -1], atol=1e-5
    )
    now = stack.transform(X[NOW])
    assert np.abs(now["risk__proba_1"] - while_fitting["risk__proba_1"]).median() > 1e-4
    found = stack.predict_proba(X[LATER])
    assert roc_auc_score(y[LATER], found[:, 1]) > 0.95
    np.testing.assert_array_equal(in_a_fresh_process(stack, X[LATER]), found)


@pytest.mark.slow
def test_a_stack_names_the_model_that_gives_no_probabilities(risk_model):
    _, model = risk_model
    linear = keras.Sequential([keras.Input((10,)), layers.Dense(1)], name="a_regressor")
    with pytest.raises(ValueError, match=r"need probabilities, but model 'a_regressor' .*None, 1"):
        stack_of(linear).fit(X[NOW], y[NOW])
    with pytest.raises(ValueError, match=r"'reconstruction_error'.*'risk_model'.* 10\).* 1\)"):
        stack_of(model).set_params(risk__features="reconstruction_error").fit(X[NOW], y[NOW])
    with pytest.raises(ValueError, match=r"no layer named 'latent'.*scaled, hidden, risk"):
        stack_of(model).set_params(risk__layers="latent").fit(X[NOW], y[NOW])
    with pytest.raises(ValueError, match=r"\['mean_radius', 'age'\]"):
        stack_of(model).set_params(
            upstream=[("risk", stack_of(model).upstream[0][1], ["mean_radius", "age"])]
        ).fit(X[NOW], y[NOW])
