"""The leakage contract: each clause has a test that fails when the clause is broken."""

import random

import keras
import numpy as np
import pytest
from _models import SMALL
from imblearn.over_sampling import SMOTE, RandomOverSampler
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin, clone
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    KFold,
    StratifiedKFold,
    TimeSeriesSplit,
    cross_val_predict,
    cross_val_score,
    train_test_split,
)
from sklearn.neural_network import MLPClassifier
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
from skstack.ensemble import GreedyEnsembleClassifier
from skstack.networks import MLP, Autoencoder

SEEN = {}
GLOBAL_STATE = np.random.get_state


@pytest.fixture(autouse=True)
def nothing_seen():
    SEEN.clear()


def remember(who, ids):
    SEEN.setdefault(who, []).append(set(np.asarray(ids).astype(int).tolist()))


class Memory(ClassifierMixin, BaseEstimator):
    """Predicts for each row, identified by its first column, whether it was trained on it."""

    def fit(self, X, y):
        remember("upstream", X[:, 0])
        self.known_ = np.asarray(X)[:, 0]
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        known = np.isin(np.asarray(X)[:, 0], self.known_).astype(float)
        return np.column_stack([1 - known, known])

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class Witness(TransformerMixin, BaseEstimator):
    """Passes rows through and records which it was fitted on; one column holds ids."""

    def __init__(self, who="scaler", column=0):
        self.who = who
        self.column = column

    def fit(self, X, y=None):
        remember(self.who, np.asarray(X)[:, self.column])
        self.fitted_ = True
        return self

    def transform(self, X):
        return X


class Sampler(BaseEstimator):
    """Repeats the rows of one class and records its input."""

    def fit_resample(self, X, y):
        remember("sampler", np.asarray(X)[:, 1])
        SEEN["labels"] = set(y)
        again = np.flatnonzero(y == "yes")
        return np.vstack([X, X[again]]), np.concatenate([y, y[again]])


class Keeper(ClassifierMixin, BaseEstimator):
    """A downstream that keeps the table that it was trained on."""

    def fit(self, X, y):
        self.X_, self.y_, self.classes_ = X, y, np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    X = np.column_stack([np.arange(120), rng.normal(size=(120, 3))]).astype(np.float32)
    y = np.where(rng.random(120) < 0.4, "yes", "no")
    return X, y


def memory_stack(**options):
    options = {"downstream": Keeper(), "scaler": None, **options}
    return StackedKerasClassifier([("memory", Memory())], random_state=0, **options)


def test_downstream_trains_on_out_of_fold_features_to_the_last_row(rows):
    X, y = rows
    stack = memory_stack().fit(X, y)
    assert not stack.downstream_.X_[:, 0].any()
    np.testing.assert_array_equal(stack.downstream_.X_[:, 1:], X)
    np.testing.assert_array_equal(stack.fit_transform(X, y)[:, 0], 0)


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([(np.arange(120), np.arange(60)), (np.arange(60), np.arange(60, 120))], "60 rows, such"),
        ([(np.arange(60), np.arange(-60, 0)), (np.arange(60, 120), np.arange(60))], "from -60"),
        ([(np.arange(60), np.arange(60, 121)), (np.arange(60, 120), np.arange(60))], "to 120"),
    ],
)
def test_folds_that_predict_their_training_rows_are_refused(rows, folds, message):
    X, y = rows
    for estimator in (memory_stack(cv=folds), KerasFeatureTransformer(Memory(), cv=folds)):
        with pytest.raises(ValueError, match=message):
            estimator.fit_transform(X, y)
    assert not SEEN


def test_new_rows_get_features_of_the_refitted_upstream(rows):
    X, y = rows
    stack = memory_stack().fit(X, y)
    assert stack.transform(X)[:, 0].all()
    assert max(map(len, SEEN["upstream"])) == len(X)


def test_without_refit_features_are_the_mean_over_folds(rows):
    X, y = rows
    stack = memory_stack(refit=False, cv=4).fit(X, y)
    np.testing.assert_allclose(stack.transform(X)[:, 0], 0.75)
    assert max(map(len, SEEN["upstream"])) == 90


def test_cross_fitting_agrees_with_cross_val_predict():
    X, y = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    found = KerasFeatureTransformer(model, cv=4).fit_transform(X, y)
    expected = cross_val_predict(model, X, y, cv=StratifiedKFold(4), method="predict_proba")
    np.testing.assert_allclose(found[:, 0], expected[:, 1], atol=1e-6)


def test_steps_before_an_upstream_are_fitted_in_each_fold(rows):
    X, y = rows
    branch = make_pipeline(Witness("step"), KerasFeatureTransformer(Memory()))
    StackedKerasClassifier([("b", branch)], downstream=Keeper(), random_state=0).fit(X, y)
    assert sorted(map(len, SEEN["step"])) == [96] * 5 + [120]


@pytest.mark.parametrize(
    "downstream",
    [
        KerasClassifier(SMALL, epochs=2, early_stopping=True, validation_fraction=0.2),
        HistGradientBoostingClassifier(max_iter=5, early_stopping=True, validation_fraction=0.2),
    ],
    ids=["ours", "HistGradientBoosting"],
)
def test_early_stopping_rows_do_not_affect_any_part(rows, downstream):
    """No upstream, scaler or sampler is fitted on them; their features are those of new rows."""
    X, y = rows
    watched = {}

    class Spy(type(downstream)):
        def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
            watched.update(X=X_val, y=y_val, n=len(X))
            return super().fit(X, y, X_val=X_val, y_val=y_val)

    Spy.__name__ = type(downstream).__name__
    stack = memory_stack(
        downstream=Spy(**downstream.get_params(deep=False)),
        scaler=Witness("scaler", column=1),
        sampler=Sampler(),
    ).fit(X, y)
    ids = set(watched["X"][:, 1].astype(int).tolist())
    assert len(ids) == 24
    for who in ("upstream", "scaler", "sampler"):
        assert not any(ids & seen for seen in SEEN[who]), who
    assert set().union(*SEEN["upstream"]) | ids == set(range(120))
    np.testing.assert_array_equal(watched["X"][:, 0], 0)  # the refitted upstream never saw them
    np.testing.assert_array_equal(watched["X"][:, 1:], X[sorted(ids)])
    np.testing.assert_array_equal(watched["y"], y[sorted(ids)])
    share = np.mean(y == "yes")
    assert abs(np.mean(watched["y"] == "yes") - share) < 0.05
    assert watched["n"] > 96
    table = stack.fit_transform(X, y)
    np.testing.assert_array_equal(table[:, 1:], X)


@pytest.mark.parametrize("wrap", [lambda part: part, make_pipeline], ids=["alone", "Pipeline"])
def test_boosting_that_monitors_its_training_rows_gets_all_rows(rows, wrap):
    X, y = rows
    boosting = HistGradientBoostingClassifier(
        max_iter=5, early_stopping=True, validation_fraction=None
    )
    stack = memory_stack(downstream=wrap(boosting), sampler=Sampler()).fit(X, y)
    fitted = getattr(stack.downstream_, "steps", [(0, stack.downstream_)])[-1][1]
    assert (len(fitted.train_score_), len(fitted.validation_score_)) == (6, 0)
    assert set().union(*SEEN["sampler"]) == set(range(120))


def test_the_sampler_receives_scaled_training_rows_and_original_labels(rows):
    X, y = rows
    stack = memory_stack(scaler="standard", sampler=Sampler()).fit(X, y)
    assert SEEN["labels"] == {"yes", "no"}
    assert len(stack.downstream_.X_) == 120 + np.sum(y == "yes")
    np.testing.assert_allclose(stack.downstream_.X_[:120, 1:].mean(axis=0), 0, atol=1e-5)
    assert len(stack.predict(X)) == 120


@pytest.mark.parametrize(
    ("downstream", "message"),
    [
        (KerasClassifier(MLP(), sampler=SMOTE()), "downstream"),
        (MLPClassifier(early_stopping=True), "early stopping"),
        (make_pipeline(StandardScaler(), KerasClassifier(early_stopping=True)), "early stopping"),
    ],
    ids=["two samplers", "MLPClassifier", "Pipeline"],
)
def test_downstreams_that_would_monitor_synthetic_rows_are_refused(rows, downstream, message):
    X, y = rows
    with pytest.raises(ValueError, match=message):
        memory_stack(downstream=downstream, sampler=SMOTE()).fit(X, y)
    assert not SEEN


@pytest.mark.parametrize("options", [{}, {"layers": "hidden_1", "features": ["outputs"]}])
def test_features_of_a_row_do_not_depend_on_its_label(options):
    X, y = load_breast_cancer(return_X_y=True)
    X, y = X[:200], y[:200]
    folds = list(StratifiedKFold(3).split(X, y))
    test = folds[0][1]
    one, other = test[y[test] == 0][0], test[y[test] == 1][0]
    swapped = y.copy()
    swapped[[one, other]] = y[[other, one]]
    transformer = KerasFeatureTransformer(
        KerasClassifier(SMALL, epochs=3), cv=folds, random_state=0, **options
    )
    before = transformer.fit_transform(X, y)[test]
    after = transformer.fit_transform(X, swapped)[test]
    np.testing.assert_array_equal(before, after)


def test_permuted_labels_score_at_chance():
    X, y = load_breast_cancer(return_X_y=True)
    y = np.random.default_rng(0).permutation(y)
    stack = StackedKerasClassifier(
        [("risk", KerasClassifier(MLP((16,)), epochs=10))],
        downstream=KerasClassifier(MLP((16,)), epochs=10),
        cv=3,
        random_state=0,
    )
    scores = cross_val_score(stack, X, y, scoring="roc_auc", cv=3)
    assert abs(scores.mean() - 0.5) < 0.08


def test_inner_layers_of_folds_have_common_axes():
    X, y = load_digits(return_X_y=True)
    X, X_new, y, y_new = train_test_split(X, y, random_state=0, stratify=y)
    network = KerasClassifier(MLP(hidden_layer_sizes=(16,)), epochs=10, learning_rate=0.01)
    latent = KerasFeatureTransformer(network, layers="hidden_1", cv=3, random_state=0)
    crossed = LogisticRegression(max_iter=2000).fit(latent.fit_transform(X, y), y)
    in_sample = LogisticRegression(max_iter=2000).fit(latent.transform(X), y)
    crossed, in_sample = (m.score(latent.transform(X_new), y_new) for m in (crossed, in_sample))
    assert in_sample > 0.93
    assert crossed > in_sample - 0.03


@pytest.mark.slow  # at length, what test_folds_are_rotated_... compares with a closed form
def test_inner_layers_of_other_networks_are_rotated_onto_common_axes():
    from scikeras.wrappers import KerasClassifier as Scikeras

    def build():
        layers = keras.layers
        return keras.Sequential(
            [
                keras.Input((64,)),
                layers.Rescaling(1 / 16),
                layers.Dense(16, activation="relu", name="hidden"),
                layers.Dense(10, activation="softmax"),
            ]
        )

    X, y = load_digits(return_X_y=True)
    X, X_new, y, y_new = train_test_split(X, y, random_state=0, stratify=y)
    network = Scikeras(
        build,
        loss="sparse_categorical_crossentropy",
        optimizer="adam",
        optimizer__learning_rate=0.02,
        epochs=8,
        batch_size=128,
        verbose=0,
    )
    latent = KerasFeatureTransformer(network, layers="hidden", cv=3, random_state=0)
    crossed = LogisticRegression(max_iter=2000).fit(latent.fit_transform(X, y), y)
    assert crossed.score(latent.transform(X_new), y_new) > 0.85


class Turned(TransformerMixin, BaseEstimator):
    """Learns from y, and returns X on axes that differ in every fit."""

    draws = np.random.default_rng(0)

    def fit(self, X, y):
        self.axes_ = np.linalg.qr(self.draws.normal(size=(X.shape[1],) * 2))[0]
        return self

    def transform(self, X):
        return X @ self.axes_


class TurnedNetwork(Turned):
    """The same as a layer of a network."""

    def fit(self, X, y):
        super().fit(X, y)
        layer = keras.layers.Dense(X.shape[1], use_bias=False, name="turned")
        self.model_ = keras.Sequential([keras.Input((X.shape[1],)), layer])
        layer.set_weights([self.axes_])
        return self


def test_folds_are_rotated_onto_the_axes_of_the_refitted_network(rows):
    """If fits differ by a rotation only, the expected result is that of the refitted one."""
    X, y = rows
    X = X[:, 1:]
    transformer = KerasFeatureTransformer(TurnedNetwork(), layers="turned", cv=3)
    np.testing.assert_allclose(transformer.fit_transform(X, y), transformer.transform(X), atol=1e-4)
    with pytest.raises(ValueError, match="refit=True"):
        transformer.set_params(refit=False).fit_transform(X, y)
    with pytest.raises(
        ValueError, match="cannot be rotated onto a network that was trained on later rows"
    ):
        memory_stack(cv=TimeSeriesSplit(3)).set_params(
            upstream=KerasFeatureTransformer(TurnedNetwork(), layers="turned")
        ).fit(X, y)


def test_outputs_of_transformers_are_not_rotated_and_different_axes_warn(rows):
    X, y = rows
    X = X[:, 1:]
    folds = list(KFold(3).split(X))
    transformer = KerasFeatureTransformer(Turned(), cv=folds)
    Turned.draws = np.random.default_rng(0)
    axes = [Turned().fit(X, y).axes_ for _ in range(4)][1:]  # the first is refitted
    Turned.draws = np.random.default_rng(0)
    with pytest.warns(UserWarning, match=r"of Turned differs between folds.*passes_y=False"):
        found = transformer.fit_transform(X, y)
    for (_, test), turn in zip(folds, axes, strict=True):
        np.testing.assert_allclose(found[test], X[test] @ turn, atol=1e-6)
    with pytest.warns(UserWarning, match="The branch 'b': "):
        StackedKerasClassifier([("b", Turned())], downstream=Keeper()).fit(X, y)


def test_a_latent_is_in_sample_and_the_reconstruction_error_out_of_fold():
    X, _ = load_breast_cancer(return_X_y=True)
    transformer = KerasFeatureTransformer(
        KerasAutoencoder(Autoencoder((8,), latent_size=2), epochs=15),
        features=["outputs", "reconstruction_error"],
        cv=3,
        random_state=0,
    )
    crossed, in_sample = transformer.fit_transform(X), transformer.transform(X)
    np.testing.assert_array_equal(crossed[:, :-1], in_sample[:, :-1])
    assert (crossed[:, -1] != in_sample[:, -1]).all()
    assert crossed[:, -1].mean() > in_sample[:, -1].mean()


def test_a_class_missing_in_a_fold():
    X, y = load_breast_cancer(return_X_y=True)
    X, y = X[:150], y[:150].copy()
    y[:50] = 2
    folds = list(KFold(3).split(X))
    transformer = KerasFeatureTransformer(
        KerasClassifier(SMALL, epochs=2), cv=folds, random_state=0
    )
    assert transformer.fit_transform(X, y).shape == (150, 3)
    foreign = KerasFeatureTransformer(
        make_pipeline(StandardScaler(), LogisticRegression()), cv=folds
    )
    with pytest.warns(UserWarning, match=r"lack the classes \['2'\]"):
        features = foreign.fit_transform(X, y)
    np.testing.assert_array_equal(features[:50, 2], 0)
    np.testing.assert_allclose(features.sum(axis=1), 1, atol=1e-6)


def test_nothing_that_the_user_passed_is_changed(rows):
    X, _ = rows
    y = np.where(X[:, 1] > 0, 1, 0)
    weights = np.ones(len(X))
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    splitter = KFold(3, shuffle=True, random_state=np.random.RandomState(0))
    stack = StackedKerasClassifier(
        [("frozen", model), ("continued", KerasClassifier(MLP((4,)), epochs=1))],
        downstream=KerasClassifier(SMALL, epochs=1),
        sampler=RandomOverSampler(),
        cv=splitter,
        random_state=0,
    )
    copies = X.copy(), y.copy(), weights.copy(), [w.copy() for w in model.get_weights()]
    states = random.getstate(), GLOBAL_STATE()[1].copy(), splitter.random_state.get_state()
    parameters = repr(stack.get_params())
    stack.fit(X, y, sample_weight=weights)
    for before, after in zip(copies[:3], (X, y, weights), strict=True):
        np.testing.assert_array_equal(before, after)
    for before, after in zip(copies[3], model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert random.getstate() == states[0]
    np.testing.assert_array_equal(GLOBAL_STATE()[1], states[1])
    np.testing.assert_array_equal(splitter.random_state.get_state()[1], states[2][1])
    assert repr(stack.get_params()) == parameters


OVERWRITES = make_pipeline(StandardScaler(copy=False), LogisticRegression())
NETWORK = KerasClassifier(SMALL, epochs=1, random_state=0)
OVERWRITES_TOO = make_pipeline(StandardScaler(copy=False), NETWORK)
OTHERS = {
    "network": StackedKerasClassifier(
        [("first", OVERWRITES_TOO), ("second", LogisticRegression())],
        downstream=LogisticRegression(),
        cv=2,
        random_state=0,
    ),
    "branch": StackedKerasClassifier(
        [("first", OVERWRITES), ("second", LogisticRegression())],
        downstream=LogisticRegression(),
        cv=2,
    ),
    "transformer": KerasFeatureTransformer(OVERWRITES, cv=2, passthrough=True),
    "of two methods": KerasFeatureTransformer(OVERWRITES, features=["outputs", "codes"], cv=2),
    "without y": KerasFeatureTransformer(StandardScaler(copy=False), passthrough=True),
    "reconstruction": KerasFeatureTransformer(
        PCA(2, copy=False), features=["outputs", "reconstruction_error"], cv=2
    ),
    "ensemble": GreedyEnsembleClassifier([("part", OVERWRITES)], cv=2),
}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", OTHERS)
def test_parts_that_work_in_place_change_neither_rows_nor_each_other(name, frozen, rows):
    """What they give is what parts that copy their rows give."""
    X, y = rows[0] * 3 + 1, rows[1]

    def outputs(estimator):
        if frozen and hasattr(estimator, "model"):
            estimator.set_params(model=FrozenEstimator(estimator.model.fit(X.copy(), y)))
        elif frozen and hasattr(estimator, "upstream"):
            part = FrozenEstimator(estimator.upstream[0][1].fit(X.copy(), y))
            estimator.set_params(upstream=[("first", part), *estimator.upstream[1:]])
        estimator.fit(X, y)
        method = "transform" if hasattr(estimator, "transform") else "predict_proba"
        return getattr(estimator, method)(X)

    copying = clone(OTHERS[name])
    settings = {key: True for key in copying.get_params() if key.rpartition("__")[2] == "copy"}
    expected = outputs(copying.set_params(**settings))
    before = X.copy()
    found = outputs(clone(OTHERS[name]))
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(found, expected)


def test_weights_are_refused_for_synthetic_rows(rows):
    X, y = rows
    options = {
        "upstream": KerasAutoencoder(epochs=1),
        "downstream": KerasClassifier(SMALL, epochs=1),
    }
    with pytest.raises(ValueError, match="sample_weight is not supported with sampler"):
        StackedKerasClassifier(**options, sampler=SMOTE()).fit(X, y, np.ones(120))
    StackedKerasClassifier(**options, sampler=RandomOverSampler()).fit(X, y, np.ones(120))


def test_moments_are_weighted(rows):
    X, _ = rows
    weights = np.where(X[:, 0] < 60, 1.0, 0.0)
    autoencoder = KerasAutoencoder(epochs=1, random_state=0).fit(X, sample_weight=weights)
    np.testing.assert_allclose(autoencoder.moments_["numeric"][0], X[:60].mean(axis=0), rtol=1e-4)


def test_a_cv_that_is_not_a_partition_is_refused(rows):
    X, y = rows
    with pytest.raises(ValueError, match="exactly one test fold"):
        memory_stack(cv=list(KFold(3).split(X))[:2]).fit(X, y)


class RegressionMemory(RegressorMixin, BaseEstimator):
    """As ``Memory``, in one number."""

    def fit(self, X, y):
        self.known_ = np.asarray(X)[:, 0]
        return self

    def predict(self, X):
        return np.isin(np.asarray(X)[:, 0], self.known_).astype(float)


def test_regression_stacks_use_out_of_fold_features(rows):
    X, _ = rows
    stack = StackedKerasRegressor(
        [("memory", RegressionMemory())],
        downstream=KerasRegressor(SMALL, epochs=1),
        scaler=None,
        random_state=0,
    )
    assert not stack.fit_transform(X, X[:, 1])[:, 0].any()
    assert stack.transform(X)[:, 0].all()


def test_integer_targets_are_not_classes_for_a_regressor(rows):
    """Its folds are not stratified by them, and its feature is its prediction."""
    X, _ = rows
    counts = (X[:, 0] // 40).astype(int)
    transformer = KerasFeatureTransformer(RegressionMemory(), cv=3)
    transformer.fit_transform(X, counts)
    expected = cross_val_predict(RegressionMemory(), X, counts, cv=KFold(3))
    np.testing.assert_array_equal(transformer.fit_transform(X, counts)[:, 0], expected)
    assert transformer.get_feature_names_out().tolist() == ["prediction"]
    recorded = []

    class Folds(RegressionMemory):
        def fit(self, X, y):
            recorded.append(np.asarray(X)[:, 0].tolist())
            return super().fit(X, y)

    KerasFeatureTransformer(Folds(), cv=3).fit_transform(X, counts)
    assert recorded[1:] == [X[train, 0].tolist() for train, _ in KFold(3).split(X)]
