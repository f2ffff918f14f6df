"""A row of weight w is w rows, and a row of weight zero is none, to every part that learns."""

import numpy as np
import pandas as pd
import pytest
from imblearn.over_sampling import RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from scipy import sparse
from sklearn.datasets import load_iris
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
)
from skstack._estimators.resampling import prior_ratio
from skstack._splits.folds import restricted_folds
from skstack._stack.scaling import Scaling
from skstack.inspection import ColumnProfile
from skstack.networks import MLP, Autoencoder, SequenceEncoder
from skstack.preprocessing._blocks import ColumnBlocks
from skstack.preprocessing._column_profile import moments_of_steps, weighted_moments

rng = np.random.default_rng(0)
N = 60
WEIGHTS = rng.integers(0, 4, N)
WEIGHTS[:3] = [0, 1, 3]
TABLE = pd.DataFrame(
    {
        "a": rng.normal(size=N),
        "b": rng.lognormal(sigma=2, size=N),
        "c": rng.integers(0, 4, N).astype(float),
        "job": rng.choice(["vet", "cook", "pilot"], N),
    }
)
TABLE.loc[0, ["a", "b", "job"]] = [1e6, -1e6, "king"]  # of weight zero
TABLE.loc[rng.choice(N, 15, replace=False), "b"] = np.nan
TABLE.loc[rng.choice(N, 15, replace=False), "c"] = np.nan
NUMBERS = TABLE[["a", "b", "c"]]
Y = np.where(NUMBERS["a"].to_numpy() + rng.normal(size=N) > 0.7, "yes", "no")
Z = NUMBERS["a"].to_numpy() * 3 + 100 + rng.normal(size=N)

REPEATS = {
    "integers": (WEIGHTS, np.repeat(np.arange(N), WEIGHTS)),
    "zero": ((np.arange(N) > 0).astype(float), np.arange(1, N)),
}
each_kind = pytest.mark.parametrize(("weights", "rows"), REPEATS.values(), ids=REPEATS)


def rows_of(X, rows):
    return X.iloc[rows] if hasattr(X, "iloc") else X[rows]


def imputed(strategy, indicator=False):
    def learned(X, weights):
        imputer = SimpleImputer(strategy=strategy, fill_value=7.0, add_indicator=indicator)
        blocks = ColumnBlocks(None, imputer=imputer)
        if weights is not None:  # as a fit does
            X, weights = X[weights > 0], weights[weights > 0]
        blocks.fit(X, sample_weight=weights)
        part = blocks.part("numeric")
        return (
            part.imputer_.statistics_.astype(float),
            part.indicated,
            blocks.split(NUMBERS)["numeric"],
        )

    return learned


def profile(make):
    def learned(X, weights):
        found = ColumnProfile.of(make(X), sample_weight=weights)
        names = ("mean", "standard_deviation", "minimum", "maximum", "magnitudes")
        return [np.nan_to_num(getattr(found, name)) for name in names]

    return learned


def scaled(scaler):
    def learned(X, weights):
        scaling = Scaling(scaler).fit(X.fillna(0.0), sample_weight=weights)
        return [scaling.transform(NUMBERS.fillna(0.0)).to_numpy()]

    return learned


def steps(X, weights):
    cells = np.nan_to_num(np.stack([X.to_numpy(), X.to_numpy()[:, ::-1]], axis=1))
    return moments_of_steps(cells, 0.0, weights)


PARTS = {
    "imputer: mean": imputed("mean"),
    "imputer: median": imputed("median"),
    "imputer: most frequent": imputed("most_frequent"),
    "imputer: constant": imputed("constant"),
    "imputer: function": imputed(np.ptp),
    "imputer: indicator": imputed("median", indicator=True),
    "moments": lambda X, weights: weighted_moments(X.fillna(0.0).to_numpy(), weights),
    "moments of steps": steps,
    "profile": profile(lambda X: X.fillna(1.0).to_numpy()),
    "profile: gaps": profile(lambda X: X),
    "profile: sparse": profile(lambda X: sparse.csr_array(np.nan_to_num(X.to_numpy()))),
    "profile: steps": profile(lambda X: np.nan_to_num(X.to_numpy())[:, :, None] * [1.0, 2.0]),
    "scaler": scaled(StandardScaler()),
    "scaler without weights": scaled(MinMaxScaler()),
}


@each_kind
@pytest.mark.parametrize("part", PARTS)
def test_parts(part, weights, rows):
    found = PARTS[part](NUMBERS, weights)
    for one, other in zip(found, PARTS[part](NUMBERS.iloc[rows], None), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_fractional_weights():
    """Halves of weights change nothing; a median lies where half of the weight is reached."""
    numbers = np.array([[1.0], [2.0], [3.0], [np.nan]])
    for weights, median in [
        ([0.5, 0.5, 1.0, 9.0], 2.5),
        ([0.1, 0.2, 0.3, 1], 2.5),
        ([1, 1, 3, 1], 3),
    ]:
        blocks = ColumnBlocks(imputer=SimpleImputer(strategy="median"))
        blocks.fit(numbers, sample_weight=np.asarray(weights, float))
        assert blocks.part("numeric").imputer_.statistics_ == pytest.approx([median])
    blocks = ColumnBlocks(imputer=SimpleImputer(strategy=np.median))
    with pytest.raises(ValueError, match="a callable strategy requires integer weights"):
        blocks.fit(numbers, sample_weight=np.array([0.5, 1, 1, 1]))


def test_a_column_with_values_only_in_rows_of_weight_zero_is_empty():
    X = np.array([[1.0, 5.0], [2.0, np.nan], [3.0, np.nan], [4.0, np.nan]])
    fitted = KerasRegressor(
        MLP(hidden_layer_sizes=()), imputer=SimpleImputer(), epochs=1, random_state=0
    ).fit(X, X[:, 0], sample_weight=[0, 1, 1, 1])
    assert fitted.blocks_.part("numeric").imputer_.statistics_.tolist() == [3.0, 0.0]


@each_kind
def test_prior_ratio(weights, rows):
    after = rows[::2]
    found = prior_ratio(Y, Y[after], ["no", "yes"], weights_before=weights)
    np.testing.assert_allclose(found, prior_ratio(Y[rows], Y[after], ["no", "yes"]))


# Whole estimators, one batch an epoch -----------------------------------------------------------


def network(kind, **settings):
    recipe = (
        Autoencoder(latent_size=2) if kind is KerasAutoencoder else MLP(hidden_layer_sizes=(4,))
    )
    # Adam makes a step of the rounding of a gradient that is zero.
    return kind(
        recipe, optimizer="sgd", epochs=5, batch_size=500, learning_rate=0.05, random_state=0,
        imputer=SimpleImputer(strategy="median", add_indicator=True), **settings,
    )  # fmt: skip


WHOLE = {
    "classifier": (lambda: network(KerasClassifier), Y, "predict_proba"),
    "balanced": (lambda: network(KerasClassifier, class_weight="balanced"), Y, "predict_proba"),
    "hashed": (lambda: network(KerasClassifier, n_hash_buckets=2), Y, "predict_proba"),
    "regressor": (lambda: network(KerasRegressor), Z, "predict"),
    "autoencoder": (lambda: network(KerasAutoencoder), None, "reconstruction_error"),
    "undersampled": (
        lambda: network(
            KerasClassifier, sampler=RandomUnderSampler(random_state=0), prior_correction=True
        ),
        Y,
        "predict_proba",
    ),
}


@pytest.mark.parametrize(
    ("name", "weights", "rows"),
    [
        pytest.param(
            name,
            *REPEATS[kind],
            id=f"{name}-{kind}",
            marks=[pytest.mark.slow]
            if kind == "zero" and name in ("hashed", "regressor", "autoencoder")
            else [],
        )
        for name in WHOLE
        for kind in REPEATS
        # It draws rows, and more of them where they are repeated.
        if (name, kind) != ("undersampled", "integers")
    ],
)
def test_networks(name, weights, rows):
    make, y, method = WHOLE[name]
    fit = {} if y is None else {"y": y}
    repeated = {} if y is None else {"y": y[rows]}
    one = make().fit(TABLE, **fit, sample_weight=weights)
    other = make().fit(TABLE.iloc[rows], **repeated)
    assert one.blocks_.categories_ == other.blocks_.categories_
    for block, moments in one.moments_.items():
        np.testing.assert_allclose(moments, other.moments_[block], rtol=1e-5)
    found, expected = (getattr(fitted, method)(TABLE) for fitted in (one, other))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.xla
def test_equal_weights_choose_rows_to_the_last_bit():
    """Also where XLA compiles the training, which adds up products with weights otherwise."""
    X, y = load_iris(return_X_y=True)
    chosen = np.arange(len(X)) % 4 > 0

    def outputs(rows=slice(None), weights=None):
        made = KerasClassifier(MLP((8,)), optimizer="sgd", epochs=60, batch_size=16, random_state=0)
        return made.fit(X[rows], y[rows], sample_weight=weights).predict_proba(X)

    np.testing.assert_array_equal(outputs(chosen), outputs(weights=chosen))
    np.testing.assert_array_equal(outputs(), outputs(weights=np.full(len(X), 3.0)))


EMBEDDED = {
    "categories": (MLP((4,)), TABLE[["c"]].assign(town=np.arange(N) % 12).astype({"town": str})),
    "tokens": (
        SequenceEncoder(3, layer="conv1d"),
        pd.DataFrame({"words": list(rng.integers(1, 5, (N, 4)))}),
    ),
}


@pytest.mark.parametrize(("recipe", "X"), EMBEDDED.values(), ids=EMBEDDED)
@pytest.mark.parametrize("engine", ["auto", pytest.param("keras", marks=pytest.mark.slow)])
def test_embeddings_with_adam(recipe, X, engine):
    """Adam squares the gradient of a category, and not those of its rows one by one."""

    def fitted(X, y, weights=None):
        network = KerasClassifier(
            recipe, epochs=20, batch_size=500, engine=engine, early_stopping=False, random_state=0
        )
        return network.fit(X, y, sample_weight=weights)

    X, weights = X.fillna(0.0), WEIGHTS + 1
    rows = np.repeat(np.arange(N), weights)
    one, other = fitted(X, Y, weights), fitted(X.iloc[rows], Y[rows])
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), atol=1e-5)


@pytest.mark.slow
def test_class_weights_apply_to_moments():
    twice = np.concatenate([np.arange(N), np.flatnonzero(Y == "yes")])
    one = network(KerasClassifier, class_weight={"yes": 2}).fit(TABLE, Y)
    other = network(KerasClassifier).fit(TABLE.iloc[twice], Y[twice])
    np.testing.assert_allclose(
        one.predict_proba(TABLE), other.predict_proba(TABLE), rtol=1e-5, atol=1e-5
    )


def test_balanced_weights_of_hold_out_rows_are_those_of_training_rows():
    """A class that is rare among the watched rows alone weighs no more than it did."""
    settings = {"class_weight": "balanced", "early_stopping": True}
    X, y = NUMBERS.fillna(0.0).iloc[1:], Y[1:]
    watched = np.r_[np.flatnonzero(y == "no"), np.flatnonzero(y == "yes")[:1]]
    fitted = network(KerasClassifier, **settings).fit(X, y, X_val=X.iloc[watched], y_val=y[watched])
    share = len(y) / (2 * np.unique(y, return_counts=True)[1])
    np.testing.assert_allclose(fitted._weight_of_class, share)
    weights = np.where(y[watched] == "no", *share)
    by_hand = network(KerasClassifier, early_stopping=True).fit(
        X, y, np.where(y == "no", *share), X_val=X.iloc[watched], y_val=y[watched]
    )
    p = by_hand.predict_proba(X.iloc[watched])[np.arange(len(watched)), (y[watched] == "yes") * 1]
    assert fitted.loss_curve_ == pytest.approx(by_hand.loss_curve_, rel=1e-5)
    best = max(fitted.validation_scores_)
    assert -best == pytest.approx(np.average(-np.log(p), weights=weights), rel=1e-3)


def test_a_fold_with_a_class_of_weight_zero_alone():
    X, y = NUMBERS.fillna(0.0).to_numpy(), Y
    folds = list(KFold(2).split(X))
    weights = np.where((np.arange(N) < 30) & (y == "yes"), 0.0, 1.0)
    rows = np.flatnonzero(weights)

    def features(X, y, cv, **weights):
        model = KerasClassifier(MLP((4,)), epochs=2, batch_size=16, random_state=0)
        return KerasFeatureTransformer(model, cv=cv).fit_transform(X, y, **weights)

    expected = features(X[rows], y[rows], restricted_folds(folds, rows))
    np.testing.assert_array_equal(features(X, y, folds, sample_weight=weights)[rows], expected)


def test_folds_of_few_weighted_rows_turn_a_blend_off_without_a_warning():
    X, y = np.random.default_rng(0).random((10, 3)), np.arange(10) % 2
    network = KerasClassifier(MLP((4,)), epochs=1, random_state=0)
    stack = StackedKerasClassifier([("n", network)], downstream=LogisticRegression(), cv=2)
    assert stack.fit(X, y, sample_weight=y).predict(X).tolist() == [1] * 10


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("sampler", [None, RandomOverSampler(random_state=0)])
def test_a_stack(sampler):
    """Rows of weight zero are in the folds, but do not affect training."""
    X, y = NUMBERS.fillna(0.0).to_numpy(), Y
    spoilt = X.copy()
    spoilt[0] = 1e6
    weights = (np.arange(N) > 0).astype(float)
    halves = np.arange(0, N, 2), np.arange(1, N, 2)  # folds must not depend on y
    folds = [halves, halves[::-1]]
    flipped = np.append(["yes" if Y[0] == "no" else "no"], Y[1:])

    def fitted(X, y):
        return StackedKerasClassifier(
            [
                ("one", KerasFeatureTransformer(network(KerasClassifier), cv=folds)),
                ("two", LogisticRegression()),
                ("steps", make_pipeline(StandardScaler(), LogisticRegression())),
            ],
            downstream=KerasClassifier(MLP(hidden_layer_sizes=()), epochs=2, batch_size=500),
            sampler=sampler,
            prior_correction=sampler is not None,
            cv=folds,
            random_state=0,
        ).fit(X, y, sample_weight=weights)

    one, other = fitted(X, y), fitted(spoilt, flipped)
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=1e-5, atol=1e-6)
