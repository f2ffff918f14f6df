"""Second calls (``partial_fit``, a warm ``fit``, ``y_val``) are checked as first calls are."""

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack.networks import MLP, Autoencoder

X, CODES = load_iris(return_X_y=True)
SEVERAL = (np.column_stack([CODES > 0, CODES == 1, X[:, 0] > 5.5])).astype(int)
ONE_HOT = np.eye(3)[CODES]
WORDS = np.array(["a", "b", "c"])[CODES]


def network(make=KerasClassifier, **parameters):
    return make(MLP((4,)), epochs=1, random_state=0, **parameters)


def small_autoencoder():
    return KerasAutoencoder(Autoencoder(latent_size=2), epochs=1)


@pytest.mark.parametrize("before", ["rmsprop", "adam", "sgd"])
@pytest.mark.parametrize("again", ["partial_fit", "fit"])
def test_another_optimizer_starts_anew(before, again):
    p = []
    # The first step of both is the same, if no state of the optimizer before counts as momentum.
    for momentum in (0.0, 0.9):
        fitted = network(batch_size=256, warm_start=True, optimizer=before).partial_fit(X, CODES)
        fitted.set_params(optimizer=keras.optimizers.SGD(0.1, momentum=momentum))
        p.append(getattr(fitted, again)(X, CODES).predict_proba(X))
    np.testing.assert_allclose(*p, atol=1e-6)


def test_the_same_optimizer_goes_on():
    p = []
    for rates in ((0.1, 0.1), (0.1, 0.2)):
        fitted = network(batch_size=256, optimizer=keras.optimizers.SGD(momentum=0.9))
        for rate in rates:
            fitted.set_params(learning_rate=rate).partial_fit(X, CODES)
        p.append(fitted.predict_proba(X))
    other = network(batch_size=256, optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    other.set_params(epochs=2, early_stopping=False).fit(X, CODES)
    np.testing.assert_allclose(p[0], other.predict_proba(X), atol=1e-6)
    assert np.abs(p[1] - p[0]).max() > 1e-3


# y of the first call, y of the second, and the message.
REFUSED = {
    "indicator": (KerasClassifier, CODES, SEVERAL, "a multilabel indicator, but"),
    "one-hot": (KerasClassifier, CODES, ONE_HOT, r"y\.argmax\(axis=1\)"),
    "labels": (KerasClassifier, SEVERAL, CODES, r"fitted with 3 labels"),
    "fewer labels": (KerasClassifier, SEVERAL, SEVERAL[:, :2], r"fitted with 3 labels"),
    "numbers": (KerasClassifier, CODES, X[:, 0], "continuous"),
    "unknown": (KerasClassifier, CODES, CODES + 1, r"labels \[3\] that are not among"),
    "words": (KerasClassifier, CODES, WORDS, r"labels \['a', 'b', 'c'\]"),
    "codes": (KerasClassifier, WORDS, CODES, r"labels \[0, 1, 2\]"),
    "missing": (KerasClassifier, CODES, np.where(CODES, CODES, np.nan), "NaN"),
    "more targets": (KerasRegressor, X[:, 0], X[:, :2], r"fitted with 1 target"),
    "fewer targets": (KerasRegressor, X[:, :2], X[:, 0], r"fitted with 2 target"),
    "no numbers": (KerasRegressor, X[:, 0], WORDS, "numbers|convert"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_targets_of_another_kind_are_refused(case):
    make, first, second, match = REFUSED[case]
    fitted = network(make, warm_start=True).fit(X, first)
    before = fitted.predict(X)
    for again in (
        lambda: fitted.partial_fit(X, second),
        lambda: fitted.fit(X, second),
        lambda: network(make, early_stopping=True).fit(X, first, X_val=X, y_val=second),
    ):
        with pytest.raises(ValueError, match=match):
            again()
    with pytest.raises(ValueError, match="y_val"):
        network(make, early_stopping=True).fit(X, first, X_val=X, y_val=second)
    np.testing.assert_array_equal(fitted.predict(X), before)


@pytest.mark.parametrize("make", [KerasClassifier, KerasRegressor])
def test_targets_of_other_names_or_in_another_order_are_refused(make):
    Y = pd.DataFrame(SEVERAL[:, :2], columns=["u", "v"])
    fitted = network(make, warm_start=True).fit(X, Y)
    for other in (Y[["v", "u"]], Y.rename(columns={"u": "w"})):
        for again in (
            lambda other=other: fitted.partial_fit(X, other),
            lambda other=other: fitted.fit(X, other),
            lambda other=other: network(make, early_stopping=True).fit(X, Y, X_val=X, y_val=other),
        ):
            with pytest.raises(ValueError, match=r"y has the columns \[.*fitted with \['u', 'v'\]"):
                again()
    for same in (Y, Y.to_numpy()):
        fitted.partial_fit(X, same)


@pytest.mark.parametrize("make", [StackedKerasClassifier, StackedKerasRegressor])
def test_a_stack_refuses_validation_targets_in_another_order(make):
    Y = pd.DataFrame(SEVERAL[:, :2], columns=["u", "v"])
    with pytest.raises(ValueError, match=r"y_val: y has the columns \['v', 'u'\]"):
        make().fit(X, Y, X_val=X, y_val=Y[["v", "u"]])


def test_targets_outside_the_domain_of_the_loss_are_refused_in_later_calls():
    y = X[:, 0]
    counts = network(KerasRegressor, loss="poisson", warm_start=True).fit(X, y)
    for again in (lambda: counts.partial_fit(X, -y), lambda: counts.fit(X, -y)):
        with pytest.raises(ValueError, match="y holds values from -"):
            again()
    with pytest.raises(ValueError, match="y_val holds values from -"):
        network(KerasRegressor, loss="poisson", early_stopping=True).fit(X, y, X_val=X, y_val=-y)


def test_small_last_batches_are_trained_on():
    labels, counts = network().fit(X, CODES), network(KerasRegressor).fit(X, X[:, 0])
    several, rebuilt = network().fit(X, SEVERAL), small_autoencoder().fit(X)
    for fitted, y in ((labels, CODES), (counts, X[:, 0]), (several, SEVERAL), (rebuilt, None)):
        before = fitted.network_.variables
        fitted.partial_fit(X[:1], None if y is None else y[:1])
        assert any((before[name] != new).any() for name, new in fitted.network_.variables.items())
    labels.partial_fit(X[[0, 60]], CODES[[0, 60]], sample_weight=[1, 0])
    labels.set_params(warm_start=True).fit(X[:1], CODES[:1])
    labels.fit(X[[0, 60]], CODES[[0, 60]], sample_weight=[0, 1])
    # In a first call the classes to come may be said.
    first = network().partial_fit(X[[0, 60]], [0, 1], classes=[0, 1, 2], sample_weight=[1, 0])
    assert first.classes_.tolist() == [0, 1, 2]
    assert first.fit(X[:100], CODES[:100]).classes_.tolist() == [0, 1]
    with pytest.raises(ValueError, match="at least 2 samples"):
        network().partial_fit(X[:1], CODES[:1], classes=[0, 1, 2])
    with pytest.raises(ValueError, match="only one class remains"):
        network().fit(X[[0, 60]], [0, 1], sample_weight=[1, 0])


TOLD = r"one 1 in each row.*multilabel.*y\.argmax\(axis=1\)"
FITS = {
    "labels": lambda y: network().fit(X, y),
    "partial": lambda y: network().partial_fit(X, y).partial_fit(X, y),
    "stack": lambda y: StackedKerasClassifier(
        [("a", network()), ("b", make_pipeline(StandardScaler(), network()))],
        downstream=network(),
        cv=2,
    ).fit(X, y),
    "stack, features": lambda y: StackedKerasClassifier(
        network(), downstream=network(), cv=2
    ).fit_transform(X, y),
    "features": lambda y: KerasFeatureTransformer(network(), cv=2).fit_transform(X, y),
}


@pytest.mark.parametrize("case", FITS)
def test_labels_that_look_one_hot_warn_once(case):
    with pytest.warns(UserWarning, match=TOLD) as caught:
        FITS[case](ONE_HOT)
    assert sum("one-hot" in str(each.message) for each in caught) == 1
    FITS[case](SEVERAL)


@pytest.mark.parametrize(
    "container",
    [lambda y: y.astype(int).tolist(), pd.DataFrame, scipy.sparse.csr_matrix, lambda y: y > 0],
    ids=["list", "frame", "sparse", "bool"],
)
def test_one_hot_labels_warn_in_any_container(container):
    with pytest.warns(UserWarning, match=TOLD):
        network().fit(X, container(ONE_HOT.astype(int)))
    network(KerasRegressor).fit(X, ONE_HOT)


@pytest.mark.parametrize("first", ["without early stopping", "partial_fit", "X_val"])
def test_a_warm_fit_may_be_the_first_that_holds_out_rows(first):
    fitted = network()
    if first == "partial_fit":
        fitted.partial_fit(X, CODES)
    elif first == "X_val":
        fitted.set_params(early_stopping=True).fit(X, CODES, X_val=X, y_val=CODES)
    else:
        fitted.set_params(early_stopping=False).fit(X, CODES)
    fitted.set_params(early_stopping=True, warm_start=True).fit(X, CODES)
    assert fitted.early_stopped_
