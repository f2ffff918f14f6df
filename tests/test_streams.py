"""Tables on disk are predicted in chunks of rows."""

import numpy as np
import pytest
from sklearn.datasets import make_classification

from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack._base import disk_table, in_chunks
from skstack.networks import MLP, Autoencoder

X, Y = make_classification(150, 5, n_informative=4, n_redundant=0, random_state=0)
SMALL = {"epochs": 1, "random_state": 0, "early_stopping": False}


def network(cls):
    return cls(MLP((4,)), **SMALL)


def stack(cls, part):
    return cls([("a", network(part))], downstream=network(part), cv=2, random_state=0)


CASES = [
    (network(KerasClassifier), "predict_proba"),
    (network(KerasClassifier), "predict"),
    (network(KerasRegressor), "predict"),
    (KerasAutoencoder(Autoencoder(2), **SMALL), "transform"),
    (KerasAutoencoder(Autoencoder(2), **SMALL), "reconstruction_error"),
    (KerasFeatureTransformer(network(KerasClassifier), passthrough=True), "transform"),
    (stack(StackedKerasClassifier, KerasClassifier), "predict_proba"),
    (stack(StackedKerasClassifier, KerasClassifier), "predict"),
    (stack(StackedKerasClassifier, KerasClassifier), "transform"),
    (stack(StackedKerasRegressor, KerasRegressor), "predict"),
]


@pytest.fixture
def on_disk(tmp_path):
    np.save(tmp_path / "X.npy", X)  # float64: becoming float32 would make a copy of the whole
    return np.load(tmp_path / "X.npy", mmap_mode="r")


@pytest.mark.parametrize(
    ("estimator", "method"), CASES, ids=[f"{type(e).__name__}.{m}" for e, m in CASES]
)
def test_a_memmap_is_read_in_chunks(estimator, method, on_disk, monkeypatch):
    predict = getattr(estimator.fit(X, Y), method)
    expected = predict(X)
    monkeypatch.setattr(disk_table, "BLOCK_ROWS", 40)
    stretches = []
    original = np.asarray

    def watched(array, *args, **kwargs):
        if isinstance(array, np.memmap):
            stretches.append(len(array))
        return original(array, *args, **kwargs)

    monkeypatch.setattr(in_chunks.np, "asarray", watched)
    found = predict(on_disk)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype
    assert max(stretches) == 40
    assert sum(stretches) >= len(X)


def test_an_invalid_row_in_a_later_chunk_is_refused(tmp_path, monkeypatch):
    spoilt = X.copy()
    spoilt[120, 2] = np.nan
    np.save(tmp_path / "X.npy", spoilt)
    monkeypatch.setattr(disk_table, "BLOCK_ROWS", 40)
    fitted = network(KerasClassifier).fit(X, Y)
    with pytest.raises(ValueError, match="NaN"):
        fitted.predict(np.load(tmp_path / "X.npy", mmap_mode="r"))


def test_row_arguments_are_chunked_with_the_rows(on_disk, monkeypatch):
    class Shifted:
        @in_chunks.in_chunks
        def predict(self, X, **params):
            return X[:, 0] + params["shift"]

    monkeypatch.setattr(disk_table, "BLOCK_ROWS", 40)
    shift = np.arange(150)
    np.testing.assert_array_equal(Shifted().predict(on_disk, shift=shift), X[:, 0] + shift)


def test_small_memmaps_and_wrong_widths(on_disk, monkeypatch):
    fitted = network(KerasClassifier).fit(X, Y)
    np.testing.assert_array_equal(fitted.predict(on_disk), fitted.predict(X))
    monkeypatch.setattr(disk_table, "BLOCK_ROWS", 40)
    with pytest.raises(ValueError, match="X has 4 features, but KerasClassifier is expecting 5"):
        fitted.predict(on_disk[:, :4])
