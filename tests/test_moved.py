"""Rows on another scale than the training rows warn, naming columns; others do not."""

import pickle
import warnings

import joblib
import keras
import numpy as np
import pandas as pd
import polars
import pytest
import scipy.sparse
from _fresh import run
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
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
from skstack._base import disk_table
from skstack._base.atomic_fit import fit_scope
from skstack.inspection import ColumnProfile
from skstack.networks import MLP

X, Y = load_breast_cancer(return_X_y=True, as_frame=True)
A, B = X.iloc[:350], X.iloc[350:]
SCALER = StandardScaler().set_output(transform="pandas").fit(A)
SMALL = {"epochs": 2, "random_state": 0, "early_stopping": False}
MOVED = "numeric columns are on another scale"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A network that was trained on scaled columns, saved without its scaler."""
    model = keras.Sequential(
        [keras.Input((30,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1, "sigmoid")]
    )
    model.compile("adam", "binary_crossentropy")
    model.fit(SCALER.transform(A).to_numpy(), Y[:350], epochs=3, verbose=0)
    file = str(tmp_path_factory.mktemp("a") / "a.keras")
    model.save(file)
    return file


@pytest.fixture(scope="module")
def raw():
    """A network of ours, fitted on raw columns."""
    return KerasClassifier(MLP((8,)), **SMALL).fit(A, Y[:350])


def frozen_on_scaled(path):
    return KerasFeatureTransformer(path, trained_on=ColumnProfile.of(SCALER.transform(A)))


FRESH = """
import sys, warnings, joblib
chain, bare, X = joblib.load(sys.argv[1])
warnings.simplefilter("error")
chain.transform(X)
chain.transform(X[:1])
for rows in (X, X[:5], X[:1]):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bare.transform(rows)
    print(len(caught), caught[0].message)
"""


def test_a_forgotten_scaler_warns_in_a_process_that_only_predicts(path, tmp_path):
    chain = make_pipeline(SCALER, frozen_on_scaled(path)).fit(A)
    bare = chain[-1]
    joblib.dump((chain, bare, B), tmp_path / "chain.joblib")
    told = run(FRESH, tmp_path / "chain.joblib").splitlines()
    assert len(told) == 3
    for line in told:
        assert line.startswith("1 ")
        assert f"{MOVED} than in the rows that the network was fitted on: 'mean " in line
        assert "(fitted on mean" in line
        assert "more. Possible causes are a scaler" in line


def test_fit_warns_if_the_training_profile_is_known(path, raw):
    with pytest.warns(UserWarning, match=f"{MOVED}.*'mean radius'"):
        frozen_on_scaled(path).fit(A)
    with pytest.warns(UserWarning, match=f"{MOVED}.*'mean radius'"):
        KerasFeatureTransformer(FrozenEstimator(raw)).fit(SCALER.transform(B))
    KerasFeatureTransformer(FrozenEstimator(raw)).fit(B)
    assert KerasFeatureTransformer(path).fit(A).input_profile_.n_rows == len(A)


@pytest.mark.parametrize("n", [1, 4, 5, 50, 200])
def test_scaled_rows_for_a_network_of_raw_columns_warn(n, raw):
    transformer = KerasFeatureTransformer(FrozenEstimator(raw)).fit(B)
    transformer.transform(B[:n])
    with pytest.warns(UserWarning, match=MOVED) as caught:
        transformer.transform(SCALER.transform(B)[:n])
    assert len(caught) == 1


def test_the_profile_describes_training_rows_after_the_steps(raw):
    pipeline = make_pipeline(StandardScaler(), KerasClassifier(MLP((4,)), **SMALL))
    trained = KerasFeatureTransformer(pipeline, cv=2).fit(A, Y[:350])
    np.testing.assert_allclose(trained.input_profile_.mean, 0, atol=1e-5)
    np.testing.assert_allclose(trained.input_profile_.standard_deviation, 1, atol=1e-5)
    trained.transform(B)  # the scaler inside is never forgotten
    profile = raw.input_profile_
    np.testing.assert_allclose(profile.mean, A.mean(), rtol=1e-6)
    np.testing.assert_allclose(profile.standard_deviation, A.std(ddof=0), rtol=1e-6)
    np.testing.assert_array_equal(profile.minimum, A.min())
    np.testing.assert_array_equal(profile.maximum, A.max())
    assert (profile.names, profile.n_rows) == (tuple(A.columns), 350)


def test_the_profile_of_fold_networks_covers_all_rows():
    ours = KerasClassifier(MLP((4,)), **SMALL)
    mean = KerasFeatureTransformer(ours, cv=3, refit=False).fit(A, Y[:350])
    whole = ColumnProfile.of(A)
    for name in ("mean", "standard_deviation", "minimum", "maximum"):
        found = getattr(mean.input_profile_, name)
        np.testing.assert_allclose(found, getattr(whole, name), rtol=1e-5)
    with pytest.warns(UserWarning, match=MOVED) as caught:
        mean.transform(B / 1000)
    assert len(caught) == 1


def test_a_stack_warns_once_per_affected_branch(raw):
    stack = StackedKerasClassifier(
        [
            ("frozen", FrozenEstimator(raw), slice(0, 30)),
            ("error", KerasAutoencoder(**SMALL), [0, 1, 2, 3]),
            ("plain", LogisticRegression(max_iter=5000), [24, 25, 26]),
        ],
        downstream=KerasClassifier(MLP((4,)), **SMALL),
        blend=False,
        cv=2,
        random_state=0,
    ).fit(A, Y[:350])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stack.predict(B)
    with pytest.warns(UserWarning, match=MOVED) as caught:
        stack.predict(B.assign(**{"mean area": B["mean area"] / 1000}))
    assert [str(each.message).count("'mean area'") for each in caught] == [1, 1]


def test_tables_on_disk_warn_once(raw, tmp_path, monkeypatch):
    transformer = KerasFeatureTransformer(LogisticRegression(max_iter=9000), cv=2)
    transformer.fit(A.to_numpy(), Y[:350])
    rows = np.vstack([B.to_numpy()[:100], A.to_numpy()[:100] * 1000, A.to_numpy()[:100] * 1000])
    np.save(tmp_path / "X.npy", rows)
    on_disk = np.load(tmp_path / "X.npy", mmap_mode="r")
    monkeypatch.setattr(disk_table, "BLOCK_ROWS", 50)
    for _ in range(2):
        with pytest.warns(UserWarning, match=MOVED) as caught:
            transformer.transform(on_disk)
        assert len(caught) == 1


def test_checking_the_profile_changes_nothing(raw):
    transformer = KerasFeatureTransformer(FrozenEstimator(raw)).fit(B)
    expected = transformer.transform(B)
    before = pickle.dumps(transformer.input_profile_)
    with pytest.warns(UserWarning, match=MOVED):
        transformer.transform(B * 1000)
    assert pickle.dumps(transformer.input_profile_) == before
    np.testing.assert_array_equal(transformer.transform(B), expected)
    profile = transformer.input_profile_
    with pytest.raises(ValueError, match="read-only"):
        profile.mean[0] = 0
    assert clone(KerasFeatureTransformer(trained_on=profile)).trained_on is profile


NUMBERS = [
    "creditcard_fraud_sample", "abalone", "bank_full", "default_credit", "ai4i2020",
    "bank_additional_full", "cover_imb", "covtype_first20k", "japanese_vowels", "letter", "magic",
    "mammography", "pendigits", "satimage", "wine_quality",
]  # fmt: skip


@pytest.mark.slow(first=4)
@pytest.mark.parametrize("name", NUMBERS)
def test_rows_of_real_tables_do_not_warn(name, shared_data):
    """Rows drawn at random, and rows that lie side by side, of one class or one day."""
    table = shared_data(name).select_dtypes("number")
    values = table.drop(columns=[c for c in ("pool", "Time", "split") if c in table]).to_numpy()
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(values))
        half = len(values) // 2
        for train, rest in ((order[:400], order[400:]), (order[:half], np.sort(order[half:]))):
            profile = ColumnProfile.of(values[train])
            for n in (1, 2, 5, 20, 50, 1000):
                starts = np.random.default_rng(n).integers(0, len(rest) - n + 1, size=20)
                for start in starts:
                    rows = values[rest[start : start + n]]
                    assert not profile.moved(rows).size, (seed, n, start)


def column(values, train=1000):
    return ColumnProfile.of(values[:train, None]), values[train:, None]


RNG = np.random.default_rng(0)
HONEST = {
    "log-normal amounts": RNG.lognormal(5, 2, 6000),
    "heavy tails": RNG.standard_t(2, 6000),
    "a rare indicator": np.r_[np.zeros(500), RNG.random(5500) < 0.01],
    "an indicator that was never on": np.r_[np.zeros(1000), np.ones(100)],
    "a constant": np.r_[np.full(1000, 7.0), RNG.normal(7, 1, 100)],
    "a trend": np.arange(3000) / 1000 + RNG.normal(0, 0.1, 3000),
    "a shift of four deviations": np.r_[RNG.normal(0, 1, 1000), RNG.normal(4, 1, 1000)],
    "years": np.r_[RNG.integers(2010, 2016, 1000), np.full(100, 2019)].astype(float),
    "missing values": np.where(RNG.random(3000) < 0.5, np.nan, RNG.normal(50, 9, 3000)),
}


@pytest.mark.parametrize("kind", HONEST)
def test_rows_of_unusual_columns_do_not_warn(kind):
    profile, rows = column(HONEST[kind])
    for n in (1, 5, 50, 1000):
        for start in range(0, max(len(rows) - n, 1), max(n // 2, 7)):
            assert not profile.moved(rows[start : start + n]).size


@pytest.mark.parametrize("factor", [1000, 100, 0.01, 0.001])
@pytest.mark.parametrize("n", [5, 50, 1000])
def test_another_unit_in_one_column_warns(factor, n):
    values = np.random.default_rng(0).normal([40, 3e4, 0.2], [9, 5e3, 0.03], size=(3000, 3))
    rows = values[1000 : 1000 + n].copy()
    rows[:, 1] *= factor
    assert ColumnProfile.of(values[:1000]).moved(rows).tolist() == [1]


def test_shrunken_columns_around_zero_warn_with_many_rows():
    values = np.random.default_rng(0).normal(size=(3000, 2))
    profile = ColumnProfile.of(values[:1000])
    assert profile.moved(values[1000:1200] * [0.001, 1]).tolist() == [0]


def test_small_scales_are_reported_together():
    """Half of the columns, and many rows: letters have means of 4 to 8, deviations of 2 to 3."""
    raw = np.random.default_rng(0).normal([5, 8, 6], [2.5, 2, 3], size=(2000, 3))
    scaler = StandardScaler().fit(raw[:1000])
    assert ColumnProfile.of(raw[:1000]).moved(scaler.transform(raw[1000:])).size >= 2
    assert ColumnProfile.of(scaler.transform(raw[:1000])).moved(raw[1000:]).size >= 2


def test_channels_of_sequences_are_columns():
    values = np.random.default_rng(0).normal([0, 100], [1, 9], size=(300, 7, 2))
    profile = ColumnProfile.of(values)
    assert (profile.names, profile.n_rows) == (("x0", "x1"), 300)
    assert profile.moved(values[:1]).size == 0
    for n in (1, 60):
        assert profile.moved(values[:n] * [1, 100]).tolist() == [1]


@pytest.mark.parametrize(
    "container",
    [np.asarray, pd.DataFrame, polars.DataFrame, scipy.sparse.csr_array, np.ndarray.tolist],
)
def test_every_container_is_read(container):
    values = np.random.default_rng(0).normal([40, 900], [5, 90], size=(2500, 2))
    profile = ColumnProfile.of(container(values))
    np.testing.assert_allclose(profile.mean, values.mean(axis=0))
    np.testing.assert_allclose(profile.maximum, values.max(axis=0))
    for n in (1, 5, 2500):
        assert profile.moved(container(values[:n])).size == 0
        assert profile.moved(container(values[:n] * [1, 1000])).tolist() == [1]


MEASURES = ("mean", "standard_deviation", "minimum", "maximum")


@pytest.mark.parametrize(
    "container",
    [np.asarray, pd.DataFrame, polars.DataFrame, scipy.sparse.coo_array, np.ndarray.tolist],
)
def test_rows_of_weight_0_are_no_rows_of_a_profile(container):
    values = np.random.default_rng(0).normal([40, 900], [5, 90], size=(2500, 2))
    weights = np.arange(2500) % 3 / 2
    values[weights == 0] *= 1000
    profile = ColumnProfile.of(container(values), sample_weight=weights)
    known = ColumnProfile.of(values[weights > 0], sample_weight=weights[weights > 0])
    for name in (*MEASURES, "n_rows"):
        np.testing.assert_allclose(getattr(profile, name), getattr(known, name))
    assert profile.moved(container(values[weights == 0])).tolist() == [0, 1]
    with pytest.raises(ValueError, match="sample_weight is 0 for all rows"):
        ColumnProfile.of(container(values), sample_weight=0 * weights)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        ColumnProfile.of(container(values), sample_weight=weights[1:])


@pytest.mark.parametrize("container", [np.asarray, scipy.sparse.csr_array])
def test_pooled_profiles_count_the_known_values(container):
    values = np.random.default_rng(0).normal([4, 9, 0], [1, 2, 3], size=(300, 3))
    values[:90, 0], values[:150, 1], values[:, 2] = np.nan, np.nan, np.nan
    weights = np.arange(300) % 4 / 2
    for given in (None, weights):
        of = [slice(0, 100), slice(100, 150), slice(150, 300)]
        parts = [
            ColumnProfile.of(
                container(values[rows]), sample_weight=None if given is None else given[rows]
            )
            for rows in of
        ]
        whole = ColumnProfile.of(container(values), sample_weight=given)
        for order in (parts, [ColumnProfile.pooled(parts[:2]), parts[2]]):
            pooled = ColumnProfile.pooled(order)
            assert pooled.n_rows == whole.n_rows
            for name in MEASURES:
                found, expected = getattr(pooled, name), getattr(whole, name)
                np.testing.assert_allclose(found[:2], expected[:2])


def test_profiles_of_earlier_versions_are_pooled_by_their_rows():
    values = np.random.default_rng(0).normal(size=(300, 2))
    parts = [ColumnProfile.of(values[:100]), ColumnProfile.of(values[100:])]
    for part in parts:
        del vars(part)["_counts"]
    np.testing.assert_allclose(ColumnProfile.pooled(parts).mean, values.mean(axis=0))


@pytest.mark.parametrize("categories", [[0], [0, 1, 2]])
def test_categories_of_sparse_tables_are_not_profiled(categories):
    table = scipy.sparse.coo_matrix(np.arange(60).reshape(20, 3) % 7)
    fitted = KerasClassifier(MLP(2), categorical_features=categories, epochs=1)
    fitted.fit(table, np.arange(20) % 2)
    assert fitted.input_profile_.names == ("x1", "x2")[: 3 - len(categories)]
    assert fitted.predict(table).shape == (20,)
    assert not fitted.input_profile_.moved(table).size


@pytest.mark.parametrize(
    "make",
    [
        lambda: pd.DataFrame({"job": ["a", "b"], "steps": [np.ones(3), np.zeros(3)]}),
        lambda: polars.DataFrame({"job": ["a", "b"], "steps": [[1.0, 2.0], [0.0, 1.0]]}),
        lambda: np.array([["a"], ["b"]], dtype=object),
    ],
)
def test_tables_without_numbers_have_empty_profiles(make):
    profile = ColumnProfile.of(make())
    assert (profile.names, profile.n_rows) == ((), 2)
    assert not profile.moved(make()).size


def test_categories_strings_and_missing_numbers_are_not_profiled():
    frame = pd.DataFrame(
        {
            "job": ["vet", "cook"] * 200,
            "age": pd.array([41, None, 38, 52] * 100, dtype="Int64"),
            "since": pd.to_datetime(["2020-01-01"] * 400),
        }
    )
    profile = ColumnProfile.of(frame)
    assert profile.names == ("age",)
    assert profile.mean.tolist() == [pytest.approx(131 / 3)]
    for n in (1, 40):
        assert profile.moved(frame[:n]).size == 0
        assert profile.moved(frame[:n].assign(age=41_000)).tolist() == [0]
    texts = np.array([["a", "b"]] * 200, dtype=object)
    assert ColumnProfile.of(texts).moved(texts).size == 0


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda path, p: KerasFeatureTransformer(path, trained_on=A), ValueError, "trained_on"),
        (
            lambda path, p: KerasFeatureTransformer(trained_on=p),
            ValueError,
            "trained_on=.* KerasAutoencoder is trained in this fit",
        ),
        (
            lambda path, p: KerasFeatureTransformer(
                path, trained_on=ColumnProfile.of(A.iloc[:, :7])
            ),
            ValueError,
            "trained_on is a profile of 7 columns, but the network gets 30",
        ),
        (
            lambda path, p: KerasFeatureTransformer(
                path, trained_on=ColumnProfile.of(A[A.columns[::-1]])
            ),
            ValueError,
            "trained_on has the column 'worst fractal dimension' where .* 'mean radius'",
        ),
    ],
    ids=["no profile", "a trained network", "width", "order"],
)
def test_invalid_profiles_are_refused(make, error, message, path):
    with pytest.raises(error, match=message):
        make(path, ColumnProfile.of(A)).fit(A)


def test_a_profile_needs_rows_of_its_width():
    with pytest.raises(ValueError, match="no rows"):
        ColumnProfile.of(A[:0])
    with pytest.raises(ValueError, match="X has 3 columns; the profile has 30"):
        ColumnProfile.of(A).moved(A.iloc[:, :3])


# Rows to watch ------------------------------------------------------------------------------------

APART = "X_val seems to be on another scale than X"
SHUFFLED = np.random.default_rng(0).permutation(len(X))
T, V = X.iloc[SHUFFLED[:400]], X.iloc[SHUFFLED[400:]]
TY, VY = Y.iloc[SHUFFLED[:400]], Y.iloc[SHUFFLED[400:]]
SCALED = StandardScaler().set_output(transform="pandas").fit(T)
PRICES = T["mean area"].to_numpy(), V["mean area"].to_numpy()


def network(kind=KerasClassifier):
    return kind(None if kind is KerasAutoencoder else MLP(hidden_layer_sizes=(4,)), **SMALL)


def fit_behind_scaler(estimator, X_val):
    name = type(estimator).__name__.lower()
    watched = {f"{name}__X_val": X_val, f"{name}__y_val": VY}
    return make_pipeline(StandardScaler(), estimator).fit(T, TY, **watched)


def stacked(**settings):
    branches = [("risk", network()), ("error", network(KerasAutoencoder))]
    settings = {"downstream": network(), "cv": 2, "random_state": 0, **settings}
    return StackedKerasClassifier(branches, **settings)


WATCHED = {
    "scaled and raw": lambda: fit_behind_scaler(network(), V.to_numpy()),
    "raw and scaled": lambda: network().fit(T, TY, X_val=SCALED.transform(V), y_val=VY),
    "other units": lambda: network().fit(
        T, TY, X_val=V.assign(**{"mean area": V["mean area"] / 1e3}), y_val=VY
    ),
    "columns in another order": lambda: network().fit(
        T.to_numpy(), TY, X_val=V.to_numpy()[:, ::-1], y_val=VY
    ),
    "one column": lambda: network().fit(
        T[["mean radius"]], TY, X_val=SCALED.transform(V)[["mean radius"]], y_val=VY
    ),
    "one scaled column": lambda: network().fit(
        SCALED.transform(T)[["mean radius"]], TY, X_val=V[["mean radius"]], y_val=VY
    ),
    "autoencoder": lambda: network(KerasAutoencoder).fit(SCALED.transform(T), X_val=V),
    "second call": lambda: (
        network()
        .set_params(warm_start=True)
        .fit(T, TY)
        .fit(T, TY, X_val=SCALED.transform(V), y_val=VY)
    ),
    "stack": lambda: stacked().fit(SCALED.transform(T), TY, X_val=V, y_val=VY),
    "stack without a look at it": lambda: stacked(
        downstream=HistGradientBoostingClassifier(max_iter=2, early_stopping=True)
    ).fit(SCALED.transform(T), TY, X_val=V, y_val=VY),
}


@pytest.mark.slow(first=4)
@pytest.mark.parametrize("case", WATCHED)
def test_X_val_on_another_scale_warns_once(case):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        WATCHED[case]()
    told = [str(each.message) for each in caught if APART in str(each.message)]
    assert len(told) == 1
    assert "transform_input=['X_val']" in told[0]
    assert ("mean area" in told[0]) == (case == "other units")


def test_an_array_with_a_dataframe_may_have_another_column_order():
    names = pytest.warns(UserWarning, match="does not have valid feature names")
    with names, pytest.warns(UserWarning, match=f"{APART}.*'mean radius'"):
        network().fit(T, TY, X_val=V.to_numpy()[:, ::-1], y_val=VY)


@pytest.mark.parametrize("place", ["pipeline", "branch", "downstream"])
def test_X_val_and_the_steps_of_a_pipeline(place):
    """With metadata routing X_val goes past the steps of a Pipeline, or through them."""
    with config_context(enable_metadata_routing=True):
        last = network().set_fit_request(X_val=True, y_val=True)
        steps = make_pipeline(StandardScaler(), last)
        whole = {
            "pipeline": steps,
            "branch": KerasFeatureTransformer(steps, cv=2, n_jobs=2, random_state=0),
            "downstream": StackedKerasClassifier(
                [("risk", network())], downstream=steps, scaler=None, cv=2, random_state=0
            ),
        }[place]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            whole.fit(T.to_numpy(), TY, X_val=V.to_numpy(), y_val=VY)
        assert [APART in str(each.message) for each in caught] == [True]
        if place == "pipeline":
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                whole.set_params(transform_input=["X_val"])
                whole.fit(T.to_numpy(), TY, X_val=V.to_numpy(), y_val=VY)


@pytest.mark.slow
def test_y_val_on_another_scale_warns():
    y, y_val = PRICES
    mean, scale = y.mean(), y.std()
    standard, standard_val = (y - mean) / scale, (y_val - mean) / scale
    whole = StackedKerasRegressor([("r", Ridge())], downstream=network(KerasRegressor), cv=2)
    for one, other in ((y, standard_val), (standard, y_val), (y, y_val / 1e6), (y, -y_val * 1e3)):
        for estimator in (network(KerasRegressor), whole):
            with pytest.warns(UserWarning, match="y_val seems to be on.*scale.*'y'") as caught:
                clone(estimator).fit(T, one, X_val=V, y_val=other)
            assert len(caught) == 1
    with pytest.warns(UserWarning, match="transforms y, but not y_val"):
        TransformedTargetRegressor(network(KerasRegressor), transformer=StandardScaler()).fit(
            T, y, X_val=V, y_val=y_val
        )
    with pytest.warns(UserWarning, match=r"'y\[:, 1\]'"):
        network(KerasRegressor).fit(T, np.c_[y, y], X_val=V, y_val=np.c_[y_val, standard_val])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for estimator in (network(KerasRegressor), whole):
            clone(estimator).fit(T, y, X_val=V, y_val=y_val)


def test_hold_out_rows_of_a_stack_do_not_warn():
    """Features of such rows come from other networks than those of training rows."""
    early = network().set_params(early_stopping=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stacked(downstream=early).fit(T, TY)
        stacked(downstream=early).fit(T, TY, X_val=V, y_val=VY)


@pytest.mark.slow(first=4)
@pytest.mark.parametrize("name", NUMBERS)
def test_ordinary_X_val_does_not_warn(name, shared_data):
    table = shared_data(name).select_dtypes("number")
    values = table.drop(columns=[c for c in ("pool", "Time", "split") if c in table]).to_numpy()
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(values))[: 10 ** (2 + seed % 3) * 2]
        train, watched = np.split(order, [len(order) * 4 // 5])
        profile = ColumnProfile.of(values[train])
        with fit_scope(), warnings.catch_warnings():
            warnings.simplefilter("error")
            profile.warn_if_validation_moved(values[watched], "X_val", "X", "")
            for place in range(values.shape[1]):
                column = ColumnProfile.of(values[train, place : place + 1])
                column.warn_if_validation_moved(
                    values[watched, place : place + 1], "y_val", "y", ""
                )
