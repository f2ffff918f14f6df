"""Latent features, reconstructions and reconstruction errors of ``KerasAutoencoder``."""

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA

from skstack import KerasAutoencoder
from skstack.networks import Autoencoder, recipe

X = load_breast_cancer().data[:200, :8] * [1, 1, 1, 1, 100, 100, 100, 100] + 1000.0


def quick(**parameters):
    return KerasAutoencoder(
        **{"model": Autoencoder((16,)), "epochs": 60, "random_state": 0, **parameters}
    )


def standard(values):
    return (values - X.mean(axis=0)) / X.std(axis=0)


def test_rows_are_reconstructed_in_their_units():
    autoencoder = quick(model=Autoencoder((16,), latent_size=4), learning_rate=0.01).fit(X)
    rebuilt = autoencoder.inverse_transform(autoencoder.transform(X))
    assert rebuilt.dtype == np.float32
    assert np.mean((standard(rebuilt) - standard(X)) ** 2) < 0.2
    np.testing.assert_allclose(
        autoencoder.reconstruction_error(X),
        np.mean((standard(rebuilt) - standard(X)) ** 2, axis=1),
        rtol=1e-2,
        atol=1e-4,
    )


def test_scores_are_negative_errors():
    autoencoder = quick(epochs=2).fit(X)
    error = autoencoder.reconstruction_error(X)
    np.testing.assert_array_equal(autoencoder.score_samples(X), -error)
    assert autoencoder.score(X) == pytest.approx(-error.mean(), rel=1e-6)
    assert autoencoder.reconstruction_error(X[:1]).shape == (1,)


def test_a_linear_network_with_two_latent_units_approximates_pca():
    Z = standard(X).astype(np.float32)
    linear = keras.Sequential([keras.layers.Dense(2, name="latent"), keras.layers.Dense(8)])
    autoencoder = quick(model=linear, learning_rate=0.02, epochs=140).fit(Z)
    pca = PCA(2).fit(Z)
    best = np.mean((Z - pca.inverse_transform(pca.transform(Z))) ** 2)
    found = autoencoder.reconstruction_error(Z).mean()
    assert best * 0.999 <= found < best * 1.1


def test_denoising_is_in_training_only():
    autoencoder = quick(model=Autoencoder((16,), latent_size=2, noise=0.5), epochs=10).fit(X)
    np.testing.assert_array_equal(autoencoder.transform(X), autoencoder.transform(X))
    quiet = quick(model=Autoencoder((16,), latent_size=2, noise=0.0), epochs=10).fit(X)
    assert (quiet.transform(X) != autoencoder.transform(X)).any()


def test_mixed_columns_are_reconstructed_with_their_types():
    frame = pd.DataFrame(X[:, :2], columns=["radius", "texture"], index=np.arange(200) + 5)
    frame.insert(1, "size", np.where(X[:, 0] > np.median(X[:, 0]), "large", "small"))
    frame["flag"] = X[:, 1] > np.median(X[:, 1])
    autoencoder = quick(model=Autoencoder((16,), latent_size=4), epochs=100, learning_rate=0.01)
    latent = autoencoder.fit_transform(frame)
    rebuilt = autoencoder.inverse_transform(latent)
    assert list(rebuilt.columns) == list(frame.columns)
    assert (rebuilt["size"].astype(str).to_numpy() == frame["size"].to_numpy()).mean() > 0.9
    assert (rebuilt["flag"].astype(bool).to_numpy() == frame["flag"].to_numpy()).mean() > 0.9
    assert np.corrcoef(rebuilt["radius"], frame["radius"])[0, 1] > 0.9
    assert np.isfinite(autoencoder.reconstruction_error(frame.assign(size="strange"))).all()


def test_names_of_latent_features():
    autoencoder = quick(model=Autoencoder((16,), latent_size=3), epochs=1).fit(X)
    assert autoencoder.get_feature_names_out().tolist() == ["latent_0", "latent_1", "latent_2"]
    frame = autoencoder.set_output(transform="pandas").transform(X)
    assert list(frame.columns) == ["latent_0", "latent_1", "latent_2"]
    with pytest.raises(ValueError, match="3"):
        autoencoder.inverse_transform(np.zeros((2, 5)))


@recipe
def overcomplete(spec):
    inputs = spec.inputs()
    wide = keras.layers.Dense(16, name="wide")(spec.join(inputs))
    return keras.Model(inputs, spec.outputs(wide))


def test_standardised_columns_and_the_reconstruction_are_not_latent():
    autoencoder = quick(model=overcomplete(), epochs=1).fit(X)
    assert autoencoder.latent_layer_ == "wide"
    assert autoencoder.transform(X).shape == (200, 16)


def test_early_stopping_on_X_val():
    autoencoder = quick(epochs=100, n_iter_no_change=2, learning_rate=0.05, tol=1e-2)
    autoencoder.fit(X[:150], X_val=X[150:])
    assert autoencoder.n_iter_ < 100
    assert -max(autoencoder.validation_scores_) == pytest.approx(
        autoencoder.reconstruction_error(X[150:]).mean(), rel=1e-2
    )


def test_sequences_are_reconstructed():
    sequences = standard(X).reshape(200, 4, 2).astype(np.float32)
    inputs = keras.Input((4, 2))
    latent = keras.layers.LSTM(3, name="latent")(inputs)
    repeated = keras.layers.RepeatVector(4)(latent)
    model = keras.Model(inputs, keras.layers.TimeDistributed(keras.layers.Dense(2))(repeated))
    autoencoder = quick(model=model, epochs=3).fit(sequences)
    assert autoencoder.transform(sequences).shape == (200, 3)
    rebuilt = autoencoder.inverse_transform(autoencoder.transform(sequences))
    assert rebuilt.shape == sequences.shape
    np.testing.assert_allclose(
        autoencoder.reconstruction_error(sequences),
        np.mean((rebuilt - sequences) ** 2, axis=(1, 2)),
        rtol=1e-4,
    )


class OwnStep(keras.Model):
    def train_step(self, data):
        return super().train_step(data)


class OwnLoss(keras.Model):
    def compute_loss(self, *args, **kwargs):
        return super().compute_loss(*args, **kwargs)


@pytest.mark.parametrize(
    ("model", "engine"),
    [(keras.Model, "auto"), (keras.Model, "keras"), (OwnStep, "auto"), (OwnLoss, "auto")],
)
def test_weights_of_sequences_weigh_rows(model, engine):
    """Also in batches of as many rows as a sequence has steps."""
    sequences = standard(X)[:40].reshape(40, 4, 2).astype(np.float32)
    sequences[:20] *= 5
    weights = np.repeat([0.01, 2.0], 20)
    inputs = keras.Input((4, 2))
    network = model(inputs, keras.layers.Dense(2, name="latent")(inputs))
    autoencoder = quick(model=network, epochs=1, learning_rate=1e-12, batch_size=4, engine=engine)
    autoencoder.fit(sequences, sample_weight=weights)
    errors = autoencoder.reconstruction_error(sequences)
    loss = np.average(errors, weights=weights)
    np.testing.assert_allclose(autoencoder.loss_curve_, [loss], rtol=1e-4)


def test_warm_start_and_partial_fit_continue():
    warm = quick(epochs=10, warm_start=True).fit(X)
    before = warm.reconstruction_error(X).mean()
    assert warm.fit(X).reconstruction_error(X).mean() < before
    partial = quick().partial_fit(X)
    before = partial.reconstruction_error(X).mean()
    for _ in range(5):
        partial.partial_fit(X)
    assert partial.reconstruction_error(X).mean() < before
