"""Blends of a downstream and branches: what the weights are learned from, and what is predicted."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from imblearn.ensemble import BalancedRandomForestClassifier
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import Pipeline as ImblearnPipeline
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.datasets import make_multilabel_classification
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import (
    BayesianRidge,
    HuberRegressor,
    LinearRegression,
    LogisticRegression,
    Ridge,
)
from sklearn.metrics import get_scorer, log_loss, roc_auc_score
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    KFold,
    StratifiedKFold,
    TimeSeriesSplit,
    cross_val_predict,
)
from sklearn.naive_bayes import BernoulliNB, GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

import skstack
from skstack import (
    FineTune,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack._splits import folds
from skstack._stack import blending
from skstack._training.program import POOL
from skstack.ensemble import GreedyEnsembleClassifier
from skstack.ensemble._greedy import LogLoss, learned_temperature
from skstack.inspection import BlendDisplay
from skstack.losses import TeacherLoss
from skstack.networks import MLP
from tests._models import FIT, SMALL, binary, keras_model, mixed, regression

LINEAR = LogisticRegression()
TREE = DecisionTreeClassifier(max_depth=2, random_state=0)
NEIGHBOUR = KNeighborsClassifier(1)
NETWORK = KerasClassifier(SMALL, **FIT)
never_predicted = pytest.mark.filterwarnings("ignore:cv=TimeSeriesSplit:UserWarning")
FOLDS, FIVE = (list(KFold(n, shuffle=True, random_state=0).split(np.zeros(60))) for n in (4, 5))


def stack(upstream=(("neighbour", NEIGHBOUR), ("tree", TREE)), **params):
    settings = {"downstream": LINEAR, "cv": FOLDS, "random_state": 0, **params}
    return StackedKerasClassifier(list(upstream), **settings)


@pytest.fixture(autouse=True)
def some_pairs_of_five_folds(monkeypatch):
    """As of larger tables, which would take longer."""
    monkeypatch.setattr(folds, "_ROWS_FOR_FEWER_PAIRS", 0)
    monkeypatch.setattr(folds, "_ROWS_OF_CLASS", 1)


@pytest.fixture
def table(monkeypatch):
    """A function that fits a stack and returns the predictions from which it learns its weights."""
    tables = []
    original = blending.NestedFit.predictions

    def predictions(self, parts, columns):
        tables.append(original(self, parts, columns))
        return tables[-1]

    monkeypatch.setattr(blending.NestedFit, "predictions", predictions)

    def fitted(stack, X, y, **metadata):
        clone(stack).fit(X, y, **metadata)
        return tables.pop()

    return fitted


# What the weights are learned from ----------------------------------------------------------------


class Axis(TransformerMixin, BaseEstimator):
    """Projects rows onto the difference of the means of two classes."""

    def fit(self, X, y):
        self.axis_ = X[y == 1].mean(axis=0) - X[y == 0].mean(axis=0)
        return self

    def transform(self, X):
        return X @ self.axis_[:, None]


ODDS = KerasFeatureTransformer(TREE, features=["entropy", "log_odds"], cv=FOLDS)
OTHER = KerasFeatureTransformer(NEIGHBOUR, cv=KFold(3, shuffle=True, random_state=1))
MONITORING = HistGradientBoostingClassifier(
    early_stopping=True, max_iter=30, n_iter_no_change=1, min_samples_leaf=2
)
STACKS = {
    "trees": {},
    "network": {"upstream": [("net", NETWORK)]},
    "network as downstream": {"upstream": [("tree", TREE)], "downstream": NETWORK},
    "a supervised transformer beside": {
        "upstream": [("tree", TREE), ("axis", KerasFeatureTransformer(Axis(), cv=FOLDS))]
    },
    "steps that learn from y": {"upstream": [("tree", make_pipeline(SelectKBest(k=2), TREE))]},
    "log-odds and entropy": {
        "upstream": [
            ("tree", KerasFeatureTransformer(TREE, features=["entropy", "log_odds"], cv=FOLDS))
        ]
    },
    "folds of its own": {
        "upstream": [
            ("tree", TREE),
            (
                "other",
                KerasFeatureTransformer(NEIGHBOUR, cv=KFold(3, shuffle=True, random_state=1)),
            ),
        ]
    },
    "an int of its own": {"upstream": [("other", KerasFeatureTransformer(NEIGHBOUR, cv=3))]},
    "two folds": {"cv": list(KFold(2).split(np.zeros(60)))},
    "five folds": {"cv": FIVE},
    "five folds, and folds of its own": {"upstream": [("tree", TREE), ("odds", ODDS)], "cv": FIVE},
    "five folds, network as downstream": {
        "upstream": [("tree", TREE)],
        "downstream": NETWORK,
        "cv": FIVE,
    },
    "mean of folds": {"refit": False},
    "sampler": {"sampler": RandomOverSampler(random_state=0), "prior_correction": True},
    "early stopping": {"downstream": MONITORING, "passthrough": False},
    "time": {"cv": TimeSeriesSplit(4)},
    "time and early stopping": {
        "cv": TimeSeriesSplit(4),
        "downstream": MONITORING,
    },
    "unsupervised branch": {"upstream": [("tree", TREE), ("pca", KerasFeatureTransformer(PCA(2)))]},
}


def swapped(y, rows):
    """Labels with those of some rows permuted among them."""
    other = y.copy()
    other[rows] = np.roll(y[rows], 1)
    assert (other != y).any()
    return other


# Two of the others together, or one of them on other folds.
FURTHER = (
    "an int of its own", "five folds", "five folds, and folds of its own", "network as downstream",
    "time and early stopping",
)  # fmt: skip


@never_predicted
@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.slow] if kind in FURTHER else []) for kind in STACKS],
)
def test_labels_of_a_fold_do_not_move_its_rows(kind, table):
    """Clause 10 of the leakage contract, bit for bit."""
    X, y = binary()
    own, monitored = stack(**STACKS[kind]), {}
    if "early" in kind:
        monitored = {"X_val": X[:20] + 0.1, "y_val": y[:20]}
    before = table(own, X, y, **monitored)
    pairs = list(own.cv.split(X)) if hasattr(own.cv, "split") else own.cv
    moved = set()
    for _, test in (pairs[0], pairs[-1]):
        after = table(own, X, swapped(y, test), **monitored)
        for name in before:
            assert_array_equal(after[name][test], before[name][test], err_msg=name)
            if (np.nan_to_num(after[name]) != np.nan_to_num(before[name])).any():
                moved.add(name)
    assert moved == set(before)  # of other rows


def test_the_label_of_a_row_does_not_move_its_prediction_in_any_repeat(table):
    X, y = binary()
    own = stack(cv=KFold(4, shuffle=True, random_state=0), n_repeats=3)
    before = table(own, X, y)
    for row in (0, 31):
        other = y.copy()
        other[row] = 1 - y[row]
        after = table(own, X, other)
        for name in before:
            assert_array_equal(after[name][row], before[name][row], err_msg=name)
            assert (after[name] != before[name]).any()


@pytest.mark.parametrize("kind", ["trees", "folds of its own", "unsupervised branch", "network"])
def test_of_many_rows_those_of_some_folds_are_enough(kind, table, monkeypatch):
    X, y = binary()
    own = stack(**STACKS[kind])
    whole = table(own, X, y)
    monkeypatch.setattr(folds, "SCORED_ROWS", 16)  # two of four folds
    some, scored = table(own, X, y), np.concatenate([FOLDS[1][1], FOLDS[3][1]])
    others = np.setdiff1d(np.arange(len(y)), scored)
    for name, predictions in some.items():
        assert_array_equal(predictions[scored], whole[name][scored], err_msg=name)
        assert np.isnan(predictions[others]).all()
    fitted = clone(own).fit(X, y)
    for name, predictions in some.items():
        loss = log_loss(y[scored], predictions[scored].astype(np.float32))
        assert_allclose(fitted.blend_scores_[name], -loss, rtol=1e-5)


@pytest.mark.parametrize(
    ("n_folds", "scored_rows", "n_repeats", "n_branch", "n_downstream"),
    [
        (4, 60, 1, 1 + 4 + 6, 1 + 4),  # all rows, each fold, each pair of folds
        (4, 30, 1, 1 + 4 + 5, 1 + 2),  # pairs with fold 1 or 3
        (4, 15, 1, 1 + 4 + 3, 1 + 1),  # pairs with fold 2
        (4, 15, 2, 1 + 2 * (4 + 6), 1 + 2 * 4),  # repeats are for small tables: all folds of each
        (5, 60, 1, 1 + 5 + 5, 1 + 5),  # five of ten pairs
        (5, 60, 2, 1 + 2 * (5 + 5), 1 + 2 * 5),
    ],
)
def test_fits_of_a_blend(n_folds, scored_rows, n_repeats, n_branch, n_downstream, monkeypatch):
    monkeypatch.setattr(folds, "SCORED_ROWS", scored_rows)
    fits = {}
    for kind in (DecisionTreeClassifier, LogisticRegression):

        def fit(self, *args, _of=kind, _fit=kind.fit, **settings):
            fits[_of] = fits.get(_of, 0) + 1
            return _fit(self, *args, **settings)

        monkeypatch.setattr(kind, "fit", fit)
    cv = KFold(n_folds, shuffle=True, random_state=0)
    stack([("tree", TREE)], cv=cv, n_repeats=n_repeats).fit(*binary())
    assert fits == {DecisionTreeClassifier: n_branch, LogisticRegression: n_downstream}


class Counting(LogisticRegression):
    """Knows the numbers of rows of its fits."""

    fits = []

    def fit(self, X, y, sample_weight=None):
        self.fits.append(len(X))
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize(
    ("upstream", "settings", "n_rows"),
    [
        ([("tree", TREE)], {}, [24] * 5),
        ([("tree", TREE)], {"calibration": "temperature"}, [48] * 5),
        ([("tree", KerasFeatureTransformer(TREE, cv=3))], {}, [48] * 5),
        ([("frozen", FrozenEstimator(clone(TREE).fit(*binary())))], {}, [48] * 5),
        ([("tree", TREE), ("pca", KerasFeatureTransformer(PCA(2)))], {}, [24] * 5),
    ],
    ids=["a branch", "calibration", "folds of its own", "frozen", "unsupervised beside"],
)
def test_rows_that_a_downstream_without_a_fold_learns_from(upstream, settings, n_rows):
    """Those of all other folds, unless the fits of a branch without two folds are saved."""
    Counting.fits.clear()
    parts = [upstream[0][0], "downstream"]
    settings = {"cv": FIVE, "blend_parts": parts, "blend": True, **settings}
    stack(upstream, downstream=Counting(), **settings).fit(*binary())
    assert Counting.fits == [60, *n_rows]


def test_rare_categories_beside_features_need_no_further_program():
    X, y = binary(frame=True)
    X["level"] = pd.Categorical(np.arange(60) // 4)  # each in four neighbouring rows
    own = stack(downstream=NETWORK, cv=KFold(5), passthrough=True)
    made = POOL.made
    own.fit(X, y)
    assert POOL.made == made + 1


@pytest.mark.slow(first=2)
@pytest.mark.parametrize(
    ("frame", "model"),
    [(False, TREE), (True, TREE), (True, NETWORK)],
    ids=["array", "frame", "frame, network"],
)
def test_folds_that_train_on_part_of_the_rows(frame, model, table):
    X, y = mixed() if frame else binary()
    rows = np.arange(60)
    purged = [
        (np.setdiff1d(rows, np.arange(start - 3, start + 18)), rows[start : start + 15])
        for start in range(0, 60, 15)
    ]
    columns = [list("abcd")] if frame and model is TREE else []
    own = KerasFeatureTransformer(model, cv=3)
    settings = {"downstream": NETWORK, "cv": purged, "blend": True, "passthrough": True}
    weights = np.linspace(0, 1, 60)
    for metadata in ({}, {"sample_weight": weights}):
        predictions = table(stack([("own", own, *columns)], **settings), X, y, **metadata)
        assert all(np.isfinite(values).all() for values in predictions.values())


@pytest.mark.slow(first=2)
@pytest.mark.parametrize(
    ("scoring", "several", "branch_folds"),
    [
        ("roc_auc", False, None), (None, True, 3), ("roc_auc", True, None), (None, False, None),
        (None, True, None), ("roc_auc", False, 3), (None, False, 3), ("roc_auc", True, 3),
    ],
)  # fmt: skip
def test_the_scored_folds_of_sorted_rows_hold_each_class(
    scoring, several, branch_folds, table, monkeypatch
):
    monkeypatch.setattr(folds, "SCORED_ROWS", 5)
    X, y = binary()
    y = np.sort(y)
    if several:
        y = np.column_stack([y, binary()[1]])
    tree = TREE if branch_folds is None else KerasFeatureTransformer(TREE, cv=branch_folds)
    forest = RandomForestClassifier(5, random_state=0)
    own = stack([("tree", tree)], downstream=forest, cv=KFold(6), blend_scoring=scoring)
    fitted = clone(own).fit(X, y)
    assert set(fitted.blend_scores_) == {"tree", "downstream", "blend"}
    for predictions in table(own, X, y).values():
        known = np.isfinite(predictions).all(axis=1)
        assert known.sum() == 20
        assert 0 < y[known].mean() < 1


@pytest.mark.slow(first=5)
@pytest.mark.parametrize(
    ("settings", "doubled"),
    [
        ({"n_repeats": 2, "cv": 4}, True), ({}, False), ({"n_repeats": 2, "cv": 4}, False),
        ({"cv": 2}, False), ({"cv": 5}, False), ({}, True), ({"cv": 2}, True), ({"cv": 5}, True),
    ],
)  # fmt: skip
def test_a_branch_that_memorises_random_labels_is_at_chance(doubled, settings, table):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(400, 3)), rng.permutation(np.arange(400) % 2)
    groups = None
    if doubled:
        X, y, groups = np.repeat(X, 2, axis=0), np.repeat(y, 2), np.repeat(np.arange(400), 2)
    pairs = list(StratifiedKFold(4, shuffle=True, random_state=0).split(X, y))
    own = stack(
        [("neighbour", NEIGHBOUR)],
        downstream=NEIGHBOUR,
        **{"cv": 4 if doubled else pairs, **settings},
    )
    predictions = table(own, X, y, groups=groups)
    error = np.sqrt(401 / (12 * 200 * 200))  # of the AUC of 400 independent rows
    for p in predictions.values():
        assert abs(roc_auc_score(y, p[:, 1]) - 0.5) < 2.5 * error


@pytest.mark.parametrize("cv", [FOLDS, FIVE], ids=["four", "five"])
def test_the_table_is_that_of_scikit_learn(cv, table):
    """Branches: cross_val_predict. Downstream: a stack by hand without each fold."""
    X, y = binary()
    predictions = table(stack(passthrough=False, scaler=None, cv=cv), X, y)
    for name, model in (("neighbour", NEIGHBOUR), ("tree", TREE)):
        p = cross_val_predict(model, X, y, cv=cv, method="predict_proba")
        assert_allclose(predictions[name], p, atol=1e-6)
    tests = [test for _, test in cv]
    (scored,) = folds.scored_folds([cv])
    for k, test in enumerate(tests):
        features, labels = [], []
        for j in scored.others(k):
            rows = np.setdiff1d(np.arange(60), [*test, *tests[j]])
            features.append(columns_of(X, y, rows, tests[j]))
            labels.append(y[tests[j]])
        rows = np.setdiff1d(np.arange(60), test)
        order = np.argsort(np.concatenate([tests[j] for j in scored.others(k)]))
        model = clone(LINEAR).fit(np.vstack(features)[order], np.concatenate(labels)[order])
        own = model.predict_proba(columns_of(X, y, rows, test))
        assert_allclose(predictions["downstream"][test], own, atol=1e-5)


def columns_of(X, y, train, test):
    """Features of rows by branches that are fitted on others."""
    models = [clone(model).fit(X[train], y[train]) for model in (NEIGHBOUR, TREE)]
    return np.column_stack([model.predict_proba(X[test])[:, 1] for model in models])


@never_predicted
def test_rows_that_are_never_predicted_take_no_part(table):
    X, y = binary()
    predictions = table(stack(cv=TimeSeriesSplit(4)), X, y)
    first, second = [test for _, test in TimeSeriesSplit(4).split(X)][:2]
    assert np.isnan(predictions["tree"][: first[0]]).all()
    assert np.isnan(predictions["downstream"][: second[0]]).all()
    assert np.isfinite(predictions["downstream"][second[0] :]).all()
    fitted = stack(cv=TimeSeriesSplit(4)).fit(X, y)
    known = slice(second[0], None)
    p = predictions["tree"][known].astype(np.float32)
    assert_allclose(fitted.blend_scores_["tree"], -log_loss(y[known], p), rtol=1e-5)


def test_groups_stay_together(table):
    X, y = binary()
    groups = np.arange(60) // 5
    own = stack(cv=3)
    before = table(own, X, y, groups=groups)
    again = table(stack(cv=3), X, y)
    assert any((before[name] != again[name]).any() for name in before)
    own = stack([("neighbour", NEIGHBOUR)], downstream=NEIGHBOUR, cv=3, passthrough=False)
    same = np.repeat(np.random.default_rng(0).normal(size=(20, 4)), 3, axis=0)
    labels = np.random.default_rng(1).permutation(np.repeat([0, 1], 30))
    p = table(own, same, labels, groups=np.repeat(np.arange(20), 3))["neighbour"][:, 1]
    assert abs(roc_auc_score(labels, p) - 0.5) < 0.2


def test_weights_count_as_repeated_rows(table):
    X, y = binary()
    weights = np.where(np.arange(60) < 30, 2.0, 1.0)
    own = stack([("linear", LINEAR)], downstream=TREE)
    p = table(own, X, y, sample_weight=weights)["linear"].astype(np.float32)
    fitted = clone(own).fit(X, y, sample_weight=weights)
    expected = -log_loss(y, p, sample_weight=weights)
    assert_allclose(fitted.blend_scores_["linear"], expected, rtol=1e-5)


def test_scores_of_one_target_do_not_depend_on_its_shape():
    X, y = regression()
    own = StackedKerasRegressor([("k", KNeighborsRegressor())], downstream=Ridge(), cv=3)
    flat, column = (clone(own).fit(X, target).blend_scores_ for target in (y, y[:, None]))
    assert flat == column
    predicted = cross_val_predict(KNeighborsRegressor(), X, y, cv=3)
    assert_allclose(flat["k"], -np.mean((predicted - y) ** 2), rtol=1e-5)


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("passed", [False, True])
def test_tuned_parts_are_scored_on_rows_set_aside(passed, monkeypatch):
    X, y = binary()
    seen = {}
    learn = blending.Blending.learn

    def spy(self, predictions, X, y, weights):
        seen.update(p=predictions, y=np.asarray(y), weights=weights)
        return learn(self, predictions, X, y, weights)

    monkeypatch.setattr(blending.Blending, "learn", spy)
    tuning = FineTune(epochs=1, learning_rate=0.5, early_stopping=False)
    own = stack([("net", NETWORK)], downstream=NETWORK, fine_tune=tuning, cv=2)
    if passed:
        rows, labels = X[:20] + 0.1, y[:20]
        own.fit(X, y, X_val=rows, y_val=labels)
    else:
        weights = 1 + np.arange(60) / 60
        own.fit(X, y, sample_weight=weights)
        some = np.flatnonzero(np.isin(weights, seen["weights"]))
        assert len(some) == 6
        rows, labels = X[some], y[some]
    assert_array_equal(seen["y"], labels)
    for name, p in own._part_predictions(rows, ["net", "downstream"]).items():
        assert_array_equal(p, seen["p"][name])
    assert set(own.blend_weights_) == {"net", "downstream"}


def test_repeats_use_other_folds_and_average(table):
    X, y = binary()
    own = stack(cv=KFold(4, shuffle=True, random_state=0), n_repeats=3)
    predictions = table(own, X, y)
    once = table(stack(cv=4), X, y)
    assert (predictions["neighbour"] != once["neighbour"]).any()
    # 1-NN says 0 or 1: means of three are thirds.
    assert_allclose(predictions["neighbour"] * 3, np.round(predictions["neighbour"] * 3), atol=1e-6)
    assert set(np.unique(once["neighbour"])) == {0, 1}
    features = clone(own).fit_transform(X, y)
    assert features.shape == (60, 6)


# When parts are blended ---------------------------------------------------------------------------

BALANCED = LogisticRegression(class_weight="balanced")
THRESHOLD = FixedThresholdClassifier(TREE, threshold=0.2)
MARGIN = LinearSVC()
ENCODER = KerasFeatureTransformer(PCA(2))
FROZEN = FrozenEstimator(clone(TREE).fit(*binary()))

SAMPLED = KerasClassifier(SMALL, sampler=RandomOverSampler(random_state=0), **FIT)
RESAMPLED = ImblearnPipeline([("over", RandomOverSampler(random_state=0)), ("tree", TREE)])
BALANCED_TREES = BalancedRandomForestClassifier(n_estimators=2, random_state=0)
PIPELINE = Pipeline([("first", StandardScaler()), ("last", LINEAR)])

OFF = {
    "no branch predicts": ({"upstream": [("pca", ENCODER)]}, "no branch predicts"),
    "class weights": ({"upstream": [("tree", BALANCED)]}, "'tree'.*class_weight"),
    "class weights of the downstream": ({"downstream": BALANCED}, "downstream.*class_weight"),
    "no probabilities": ({"upstream": [("svm", MARGIN)]}, "'svm'.*no predict_proba"),
    "no probabilities below": ({"downstream": MARGIN}, "downstream.*no predict_proba"),
    "sampler": ({"sampler": RandomOverSampler(random_state=0)}, "prior_correction"),
    "sampler of a network": (
        {"upstream": [("net", KerasClassifier(SMALL, sampler=RandomOverSampler(), **FIT))]},
        "'net'.*sampler",
    ),
    "sampler of a network in a search": (
        {"upstream": [("net", GridSearchCV(SAMPLED, {"epochs": [1]}, cv=2))]},
        "'net'.*sampler",
    ),
    "sampler in a search": (
        {"upstream": [("tree", GridSearchCV(RESAMPLED, {"tree__max_depth": [1, 2]}, cv=2))]},
        "'tree' resamples",
    ),
    "sampler in a nested Pipeline": (
        {"upstream": [("tree", make_pipeline(StandardScaler(), RESAMPLED))]},
        "'tree' resamples",
    ),
    "sampler in a vote": (
        {"upstream": [("vote", VotingClassifier([("x", RESAMPLED)], voting="soft"))]},
        "'vote' resamples",
    ),
    "resampling trees in a search": (
        {"downstream": GridSearchCV(BALANCED_TREES, {"max_depth": [1]}, cv=2)},
        "downstream resamples",
    ),
    "class weights by a search": (
        {"upstream": [("tree", GridSearchCV(TREE, {"class_weight": [None, "balanced"]}, cv=2))]},
        "'tree'.*class_weight",
    ),
    "an estimator by a search": (
        {"upstream": [("p", GridSearchCV(PIPELINE, [{"last": [TREE, BALANCED]}], cv=2))]},
        "'p'.*last__class_weight",
    ),
    "priors": ({"downstream": GaussianNB(priors=[0.5, 0.5])}, "downstream.*priors"),
    "equal priors": ({"upstream": [("b", BernoulliNB(fit_prior=False))]}, "'b'.*fit_prior=False"),
    "focal loss": (
        {"upstream": [("net", KerasClassifier(SMALL, loss="binary_focal_crossentropy", **FIT))]},
        "'net'.*loss='binary_focal",
    ),
    "threshold": ({"downstream": THRESHOLD}, "downstream, FixedThreshold.*threshold of its own"),
    "threshold in a Pipeline": (
        {"downstream": make_pipeline(StandardScaler(), THRESHOLD)},
        "downstream, FixedThreshold.*threshold of its own",
    ),
    "threshold in a search": (
        {"downstream": GridSearchCV(THRESHOLD, {"estimator__max_depth": [1, 2]}, cv=2)},
        "downstream, FixedThreshold.*threshold of its own",
    ),
    "frozen": ({"upstream": [("frozen", FROZEN)]}, "no branch predicts"),
    "a layer": (
        {"upstream": [("net", KerasFeatureTransformer(NETWORK, layers="hidden_1"))]},
        "no branch predicts",
    ),
    "too few rows": ({"cv": list(KFold(3).split(np.zeros(60)))}, "too few rows"),
}


# Of the others, which differ in the reason only, `make test` reads it from the plan.
WHOLE = (
    "no branch predicts", "class weights", "no probabilities below", "sampler",
    "sampler in a nested Pipeline", "threshold", "too few rows",
)  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in OFF if kind != "too few rows"])
def test_reasons_of_what_is_not_blended(kind):
    params, reason = OFF[kind]
    plan = blending.blend_plan(stack(**{"upstream": [("tree", TREE)], **params}))
    assert plan.parts == ()
    assert re.search(reason, plan.reason)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in WHOLE else [pytest.mark.slow]) for kind in OFF]
)
def test_what_is_not_blended(kind, capsys):
    params, reason = OFF[kind]
    X, y = binary()
    if kind == "too few rows":
        y = np.sort(y)
    upstream = params.get("upstream", [("tree", TREE)])
    own = stack(**{**params, "upstream": upstream}, verbose=1).fit(X, y)
    assert own.blend_weights_ == {"downstream": 1.0}
    assert own.blend_scores_ == {}
    assert re.search(reason, capsys.readouterr().out)
    alone = clone(own).set_params(blend=False, verbose=0).fit(X, y)
    assert_array_equal(own.predict(X), alone.predict(X))
    with pytest.raises(ValueError, match=f"blend=True.*(?:{reason})"):
        own.set_params(blend=True).fit(X, y)


def test_neutral_settings_are_blended():
    for part in (GaussianNB(), BernoulliNB(fit_prior=True), LogisticRegression()):
        assert not blending.blend_plan(stack([("part", part)])).reason
    assert not blending.blend_plan(stack([("part", THRESHOLD)])).reason  # its features have none


@pytest.mark.filterwarnings("ignore:.*time-ordered:UserWarning")
def test_rows_of_weight_0_blend_nothing(capsys):
    """All that the downstream predicts without a fold, of rows in the order of time."""
    X, y = binary()
    weights = np.where(np.arange(60) < 30, 1.0, 0.0)
    own = stack([("tree", TREE)], downstream=TREE, cv=TimeSeriesSplit(3), verbose=1)
    fitted = own.fit(X, y, sample_weight=weights)
    assert fitted.blend_weights_ == {"downstream": 1.0}
    assert "predicted out of fold are 0" in capsys.readouterr().out
    with pytest.raises(ValueError, match="blend=True is not possible: the weights of all rows"):
        own.set_params(blend=True).fit(X, y, sample_weight=weights)


def test_a_class_of_weight_0_alone_without_two_folds(capsys):
    """As without these rows, the blend is off before anything is trained."""
    X, y = binary()
    weights = np.where((np.arange(60) >= 20) & (y == 1), 0.0, 1.0)
    own = stack([("tree", TREE)], downstream=TREE, cv=list(KFold(3).split(X)), verbose=1)
    assert own.fit(X, y, sample_weight=weights).blend_weights_ == {"downstream": 1.0}
    assert capsys.readouterr().out.startswith("blend='auto' is off: too few rows of a class")


class NeedsRows(DecisionTreeClassifier):
    """Refuses fewer rows than a fold of three leaves."""

    def fit(self, X, y):
        if len(X) < 40:
            raise ValueError("40 rows are needed")
        return super().fit(X, y)


@pytest.mark.parametrize("part", ["branch", "downstream"])
def test_auto_never_refuses_what_was_accepted_without_it(part):
    X, y = binary()
    model = NeedsRows(max_depth=2)
    params = {"upstream": [("part", model)]} if part == "branch" else {"downstream": model}
    own = stack(cv=3 if part == "branch" else 2, **params)
    with pytest.warns(UserWarning, match=r"^blend='auto' is off: .*40 rows are needed"):
        own.fit(X, y)
    assert own.blend_weights_ == {"downstream": 1.0}
    assert own.predict_proba(X).shape == (60, 2)
    with pytest.raises(ValueError, match=r"blend=True is not possible.*40 rows"):
        own.set_params(blend=True).fit(X, y)


GRADIENT = HistGradientBoostingRegressor(max_iter=2)


@pytest.mark.parametrize(
    ("loss", "of_mean"),
    [
        (HistGradientBoostingRegressor(max_iter=2), True),
        (HistGradientBoostingRegressor(max_iter=2, loss="quantile", quantile=0.9), False),
        (DecisionTreeRegressor(criterion="absolute_error", max_depth=2), False),
        (HuberRegressor(), False),
        (make_pipeline(PCA(2), HuberRegressor()), False),
        (GridSearchCV(Ridge(), {"alpha": [1, 2]}, cv=2), True),
        (GridSearchCV(GRADIENT, {"loss": ["absolute_error"]}, cv=2), False),
        (KerasRegressor(SMALL, loss="mae", **FIT), False),
        (KerasRegressor(SMALL, **FIT), True),
    ],
    ids=str,
)
def test_regressors_are_blended_if_they_estimate_the_mean(loss, of_mean):
    own = StackedKerasRegressor([("part", loss)], downstream=Ridge(), blend=True, cv=3)
    if not of_mean:
        with pytest.raises(ValueError, match="does not estimate the mean"):
            own.fit(*regression())
        return
    assert set(own.fit(*regression()).blend_weights_) == {"part", "downstream"}


@pytest.mark.filterwarnings("ignore:OptunaSearchCV is experimental")
def test_candidates_of_optuna_turn_a_blend_off():
    optuna = pytest.importorskip("optuna")
    search = pytest.importorskip("optuna_integration").OptunaSearchCV
    weights = optuna.distributions.CategoricalDistribution([None, "balanced"])
    part = search(LINEAR, {"class_weight": weights}, n_trials=1)
    assert "class_weight='balanced'" in blending.blend_plan(stack([("part", part)])).reason


class Register(list):
    def __deepcopy__(self, memo):
        return self  # clones share it


class Registered(DecisionTreeClassifier):
    """Adds itself to a list that is a parameter."""

    def __init__(self, register=None, class_weight=None):
        super().__init__(max_depth=1, class_weight=class_weight)
        self.register = register

    def fit(self, X, y):
        self.register.append(self)
        return super().fit(X, y)


def test_an_estimator_may_be_in_a_list_among_its_parameters():
    X, y = binary()
    part = Registered(Register()).fit(X, y)
    assert "part" in stack([("part", part)], cv=2).fit(X, y).blend_weights_
    part.class_weight = "balanced"
    assert "class_weight" in blending.blend_plan(stack([("part", part)])).reason


def test_what_makes_up_for_samplers_and_class_weights_is_blended():
    corrected = clone(SAMPLED).set_params(prior_correction=True)
    samplers = {"sampler": [RandomOverSampler(random_state=0)]}
    weights = {"estimator__class_weight": ["balanced"]}
    for part in (
        CalibratedClassifierCV(BALANCED, cv=2),
        CalibratedClassifierCV(RESAMPLED, cv=2),
        GridSearchCV(CalibratedClassifierCV(TREE, cv=2), weights, cv=2),
        GridSearchCV(corrected, {"epochs": [1]}, cv=2),
        GridSearchCV(clone(corrected).set_params(sampler=None), samplers, cv=2),
    ):
        assert set(stack([("part", part)], cv=2).fit(*binary()).blend_weights_) > {"part"}


def test_stacking_estimators_hide_methods_of_their_default_until_they_are_fitted():
    X, y = binary()
    inner = StackingClassifier([("tree", TREE)], cv=2)
    given = clone(inner).set_params(final_estimator=LINEAR)
    wraps = (lambda part: part, lambda part: make_pipeline(StandardScaler(), part))
    for wrap in (*wraps, lambda part: GridSearchCV(part, {"cv": [2]}, cv=2)):
        weights = stack([("part", wrap(inner))], cv=2).fit(X, y).blend_weights_
        assert weights == stack([("part", wrap(given))], cv=2).fit(X, y).blend_weights_
        assert "part" in weights
    below = stack([("tree", TREE)], downstream=inner, cv=2).fit(X, y)
    assert set(below.blend_weights_) == {"tree", "downstream"}
    features = KerasFeatureTransformer(inner, features=["log_odds", "codes"], cv=2)
    assert features.fit_transform(X, y).shape == (60, 2)
    for wrap in wraps:
        ensemble = GreedyEnsembleClassifier([("tree", TREE), ("part", wrap(inner))], cv=2)
        assert ensemble.fit(X, y).predict_proba(X).shape == (60, 2)
    X, y = regression()
    inner = StackingRegressor([("ridge", Ridge())], cv=2)
    for wrap in wraps:
        own = StackedKerasRegressor([("ridge", Ridge())], downstream=wrap(inner), cv=2)
        assert own.fit(X, y).score(X, y) > 0.9


def test_what_stacking_estimators_never_have_is_refused():
    inner = StackingClassifier([("tree", TREE)], final_estimator=MARGIN)
    with pytest.raises(ValueError, match="has no predict_proba"):
        GreedyEnsembleClassifier([("part", inner)]).fit(*binary())
    with pytest.raises(ValueError, match="has no predict_proba"):
        stack([("part", VotingClassifier([("tree", TREE)]))], blend=True).fit(*binary())
    with pytest.raises(ValueError, match="'fit' and 'predict'"):
        stack(downstream=make_pipeline(StandardScaler())).fit(*binary())


def test_a_correction_of_priors_is_part_of_the_downstream():
    X, y = binary()
    keep = np.r_[np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:12]]
    X, y = X[keep], y[keep]
    settings = {"sampler": RandomOverSampler(random_state=0), "prior_correction": True, "cv": 3}
    own = stack([("tree", TREE)], **settings).fit(X, y)
    alone = clone(own).set_params(blend=False).fit(X, y)
    weights = own.blend_weights_
    tree = own.named_upstream_["tree"].estimator_.predict_proba(X)
    p = weights["tree"] * tree + weights["downstream"] * alone.predict_proba(X)
    assert_allclose(own.predict_proba(X), p, atol=1e-6)


def test_parts_by_name():
    X, y = binary()
    own = stack([("tree", TREE), ("weighted", BALANCED)], blend_parts=["tree", "downstream"])
    assert set(own.fit(X, y).blend_weights_) == {"tree", "downstream"}
    own = stack([("a", TREE), ("b", LINEAR)], downstream=MARGIN, blend_parts=["a", "b"])
    fitted = own.fit(X, y)
    assert list(fitted.blend_weights_) == ["a", "b"]
    p = sum(
        weight * fitted.named_upstream_[name].estimator_.predict_proba(X)
        for name, weight in fitted.blend_weights_.items()
    )
    assert_allclose(fitted.predict_proba(X), p, atol=1e-6)


def test_a_network_with_a_teacher_takes_part_if_it_is_named():
    taught = KerasClassifier(SMALL, loss=TeacherLoss(clone(TREE).fit(*binary())), **FIT)
    own = stack([("tree", TREE), ("taught", taught)], downstream=clone(taught))
    assert blending.blend_plan(own).parts == ()
    own.set_params(downstream=LINEAR)
    assert blending.blend_plan(own).parts == ("tree", "downstream")
    own.set_params(blend_parts=["taught", "downstream"])
    assert blending.blend_plan(own).parts == ("taught", "downstream")


def test_a_continued_network_takes_part_if_it_is_named():
    continued = KerasClassifier(keras_model(), **FIT)
    own = stack([("tree", TREE), ("net", continued)])
    assert blending.blend_plan(own).parts == ("tree", "downstream")
    own.set_params(blend_parts=["net", "tree"])
    assert blending.blend_plan(own).parts == ("tree", "net")
    # Without the downstream there is no blend, unless the parts are named.
    plan = blending.blend_plan(stack(downstream=continued))
    assert plan.parts == ()
    assert "the downstream: it continues a network" in plan.reason


def test_a_frozen_part_takes_part_if_it_is_named():
    X, y = binary()
    own = stack([("frozen", FROZEN)], blend_parts=["frozen", "downstream"]).fit(X, y)
    assert set(own.blend_weights_) == {"frozen", "downstream"}
    other = FrozenEstimator(clone(TREE).fit(X, y + 1))
    with pytest.raises(ValueError, match=r"'frozen'.*classes \[1, 2\]"):
        stack([("frozen", other)], blend_parts=["frozen", "downstream"]).fit(X, y)
    model = keras_model(units=3, activation="softmax")
    with pytest.raises(ValueError, match=r"'frozen'.*shape \[\(3,\)\]; expected \[\(1,\)\]"):
        stack([("frozen", model)], blend_parts=["frozen", "downstream"]).fit(X, y)
    assert blending.blend_plan(stack([("frozen", model)])).parts == ()


# What is predicted --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "small"),
    [
        ({"upstream": [("tree", TREE)]}, True),
        ({"upstream": TREE}, True),
        ({"upstream": [("tree", TREE)], "blend": False}, False),
        ({"upstream": [("pca", KerasFeatureTransformer(PCA(2)))]}, False),
        ({"upstream": [("tree", "drop")]}, False),
    ],
)
def test_the_default_downstream_is_small_if_it_is_blended(settings, small, monkeypatch):
    def train(self, X, y, **_):
        raise InterruptedError(type(self.model).__name__)

    monkeypatch.setattr(KerasClassifier, "_train", train)  # of every way to fit
    own = StackedKerasClassifier(**settings, cv=2)
    assert own.downstream is None
    with pytest.raises(InterruptedError, match="MLP" if small else "NoneType"):
        own.fit(*binary())


def test_the_small_downstream_of_a_regressor():
    default = StackedKerasRegressor([("tree", DecisionTreeRegressor())])._default_downstream()
    assert isinstance(default, KerasRegressor)
    assert repr(default.model) == repr(MLP((128, 128), dropout=0.1))


def test_downstream_features_and_their_names_do_not_change():
    """Attributes that refer to the downstream are the same without the blend."""
    X, y = binary()
    own = stack([("net", NETWORK)], downstream=NETWORK, cv=3).fit(X, y)
    alone = stack([("net", NETWORK)], downstream=NETWORK, cv=3, blend=False).fit(X, y)
    assert_array_equal(own.transform(X), alone.transform(X))
    table = own.transform(X)
    assert_array_equal(own.downstream_.predict_proba(table), alone.predict_proba(X))
    weights = own.blend_weights_
    assert sum(weights.values()) == pytest.approx(1)
    net = own.named_upstream_["net"].estimator_.predict_proba(X)
    p = weights["net"] * net.astype(float) + weights["downstream"] * alone.predict_proba(X)
    assert_allclose(own.predict_proba(X), p, atol=1e-6)
    assert_array_equal(own.predict(X), own.predict_proba(X).argmax(axis=1))


def test_a_blend_has_no_decision_function():
    X, y = binary()
    for own, exists in (
        (stack(), False),
        (stack(blend=False), True),
        (stack([("p", ENCODER)]), True),
    ):
        assert hasattr(own, "decision_function") is exists
        assert hasattr(own.fit(X, y), "decision_function") is exists
        assert hasattr(own, "predict_proba")


SELECTIONS = {
    "names": ["a", "part__proba_1"],
    "a name": "part__proba_1",
    "a slice": slice("a", "c"),
    "a selector": make_column_selector("part__|^a$"),
    "a function": lambda table: table.columns[:2],
}


@pytest.mark.parametrize("columns", SELECTIONS.values(), ids=SELECTIONS)
@pytest.mark.parametrize("searched", ["", "around", "candidate"])
def test_a_downstream_of_scikit_learn_selects_numbers_by_name(columns, searched):
    X, y = binary(frame=True)
    one = isinstance(columns, str)
    scaled = FunctionTransformer(pd.Series.to_frame) if one else StandardScaler()
    down = make_pipeline(ColumnTransformer([("own", scaled, columns)]), LogisticRegression())
    if searched == "around":
        down = GridSearchCV(down, {"logisticregression__C": [1.0]}, cv=2)
    elif searched:
        step, last = down.steps[0][1], down.steps[1][1]
        down = GridSearchCV(Pipeline([("c", None), ("l", last)]), {"c": [step]}, cv=2)
    own = stack(upstream=[("part", TREE)], downstream=down, blend=False, scaler=None).fit(X, y)
    table = pd.DataFrame(own.transform(X), columns=own.get_feature_names_out())
    assert_array_equal(own.predict_proba(X), own.downstream_.predict_proba(table))


BY_POSITION = {
    "the default": None,
    "a network": KerasClassifier(SMALL, **FIT),
    "boosting": HistGradientBoostingClassifier(max_iter=2),
    "a pipeline": make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=2)),
    "positions": make_pipeline(
        ColumnTransformer([("own", StandardScaler(), [0, 1])]), LogisticRegression()
    ),
}


@pytest.mark.parametrize("downstream", BY_POSITION.values(), ids=BY_POSITION)
def test_other_downstreams_get_arrays_of_numbers(downstream, monkeypatch):
    X, y = binary()
    default = KerasClassifier(SMALL, **FIT)  # the library's own trains for seconds
    monkeypatch.setattr(StackedKerasClassifier, "_default_downstream", lambda self: default)
    own = stack(upstream=[("part", TREE)], downstream=downstream, blend=False).fit(X, y)
    assert type(own.transform(X)) is np.ndarray
    assert not hasattr(own.downstream_, "feature_names_in_")


def test_boosting_may_constrain_columns_by_name():
    X, y = binary(frame=True)
    down = HistGradientBoostingClassifier(
        max_iter=2, categorical_features=None, monotonic_cst={"part__proba_1": 1}
    )
    own = stack(upstream=[("part", TREE)], downstream=down, blend=False).fit(X, y)
    assert own.downstream_.feature_names_in_[0] == "part__proba_1"


@pytest.mark.parametrize(
    "cv", [KFold(3), [(np.arange(20, 60), np.arange(20)), (np.arange(20), np.arange(20, 60))]]
)
def test_a_scorer_reads_the_rows_that_are_predicted(cv):
    X, y = binary(frame=True)

    def earned(estimator, X, y):
        return np.sum(X["a"] * (estimator.predict(X) == y))

    own = stack([("linear", LINEAR)], downstream=TREE, cv=cv, blend_scoring=earned).fit(X, y)
    predicted = cross_val_predict(LINEAR, X, y, cv=cv)
    assert_allclose(own.blend_scores_["linear"], np.sum(X["a"] * (predicted == y)))


def test_classes_with_names_and_branches_on_columns():
    X, y = mixed()
    numbers = ["a", "b", "c", "d"]
    boosting = HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=5)
    branches = [("linear", LINEAR, numbers), ("boosting", boosting, numbers)]
    own = stack(branches, passthrough=False, cv=3, blend_scoring="neg_log_loss").fit(X, y)
    assert own.predict_proba(X).shape == (60, 3)
    assert set(own.predict(X)) <= set(y)
    # scikit-learn's log loss warns of sums that are off by more than 1.5e-8.
    assert_allclose(own.predict_proba(X).sum(axis=1), 1, atol=1e-12)
    single = clone(own).set_params(downstream=Single(), blend_parts=["linear", "downstream"])
    assert_allclose(single.fit(X, y).predict_proba(X).sum(axis=1), 1, atol=1e-12)


class Single(LogisticRegression):
    """Probabilities in float32, as those of a network."""

    def predict_proba(self, X):
        return super().predict_proba(X).astype(np.float32)


def test_several_labels():
    X, y = make_multilabel_classification(60, random_state=0)
    trees = [(f"tree_{d}", DecisionTreeClassifier(max_depth=d, random_state=0)) for d in (1, 3)]
    down = DecisionTreeClassifier(max_depth=2, random_state=0)
    own = stack(trees, downstream=down, cv=3, calibration="temperature").fit(X, y)
    assert own.predict(X).shape == own.predict_proba(X).shape == y.shape
    assert set(own.blend_weights_) == {"tree_1", "tree_3", "downstream"}


def test_several_labels_without_a_blend(tmp_path):
    """Trees return a list of arrays, one for each label."""
    X, y = make_multilabel_classification(60, random_state=0)
    tree = DecisionTreeClassifier(max_depth=2, random_state=0)
    own = stack([("tree", tree)], downstream=tree, cv=3, blend=False).fit(X, y)
    listed = own.downstream_.predict_proba(own.transform(X))
    expected = np.column_stack([each[:, 1] for each in listed])
    assert_array_equal(own.predict_proba(X), expected)
    assert_array_equal(own.predict_proba(X, out=tmp_path / "p.npy"), expected)
    assert own.predict_log_proba(X).shape == y.shape
    assert get_scorer("roc_auc")(own, X, y) == roc_auc_score(y, expected)


class Lists(LogisticRegression):
    """A classifier whose probabilities are no array."""

    def predict_proba(self, X):
        return super().predict_proba(X).tolist()


def test_a_list_of_rows_is_none_of_labels():
    X, y = binary()
    own = stack([("tree", TREE)], downstream=Lists(), cv=3, blend=False).fit(X, y)
    assert_array_equal(np.shape(own.predict_proba(X)), (len(X), 2))


@pytest.mark.parametrize("n_targets", [1, 2])
def test_targets(n_targets):
    X, y = regression(n_targets)
    branches = [("linear", LinearRegression()), ("tree", DecisionTreeRegressor(max_depth=2))]
    own = StackedKerasRegressor(branches, downstream=Ridge(10.0), cv=3, random_state=0).fit(X, y)
    assert own.blend_weights_["linear"] > 0.5
    assert own.predict(X).shape == y.shape
    weights = own.blend_weights_
    parts = {name: each.estimator_.predict(X) for name, each in own.named_upstream_.items()}
    parts["downstream"] = own.downstream_.predict(own.transform(X)).reshape(y.shape)
    assert_allclose(own.predict(X), sum(weights[n] * p for n, p in parts.items()), atol=1e-5)
    column = clone(own).fit(X, y.reshape(60, -1)).predict(X)
    assert_allclose(column, own.predict(X).reshape(60, -1))


def test_only_needed_parts_predict(monkeypatch):
    """A part without weight is not asked."""
    X, y = binary()
    own = stack([("linear", LINEAR), ("prior", DummyClassifier())], blend_parts=["linear", "prior"])
    own.fit(X, y)
    assert own.blend_weights_ == {"linear": 1.0, "prior": 0.0}
    expected = own.predict_proba(X)
    monkeypatch.delattr(DummyClassifier, "predict_proba")
    own.downstream_ = None
    assert_array_equal(own.predict_proba(X), expected)


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("settings", [FIT, {"learning_rate": 0.3, "random_state": 0}])
def test_one_program_serves_the_downstream_without_each_fold(settings, table):
    """Although a category occurs in one fold only, and the folds have other numbers of rows."""
    X, y = mixed()
    X["job"] = X["job"].where(np.arange(len(X)) != FOLDS[1][1][0], "pilot")
    network = KerasClassifier(MLP((7,)), **settings)
    own = stack([("tree", TREE, list("abcd"))], downstream=network)
    POOL._shared.clear()
    made = POOL.made
    before = table(own, X, y)
    assert POOL.made == made + 1
    for _, test in FOLDS[:2]:  # nor does it tell of the labels of a fold
        after = table(own, X, swapped(y, test))
        assert_array_equal(after["downstream"][test], before["downstream"][test])


def test_a_useless_branch_gets_no_weight():
    weights = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(300, 3))
        y = (X[:, 0] + rng.normal(0, 1, 300) > 0).astype(int)
        own = stack([("prior", DummyClassifier())], cv=3, random_state=seed)
        weights.append(own.fit(X, y).blend_weights_["prior"])
    assert max(weights) <= 0.02


def test_calibration(table):
    X, y = binary()
    own = stack([("tree", TREE)], cv=3, calibration="temperature")
    predictions = table(own, X, y)
    fitted, plain = clone(own).fit(X, y), clone(own).set_params(calibration=None).fit(X, y)
    mean = sum(fitted.blend_weights_[name] * p for name, p in predictions.items())
    temperature = learned_temperature(mean, LogLoss(y, np.arange(2)))
    assert fitted.temperature_ == pytest.approx(temperature)
    powers = plain.predict_proba(X) ** (1 / temperature)
    calibrated = powers / powers.sum(axis=1, keepdims=True)
    assert_allclose(fitted.predict_proba(X), calibrated, atol=1e-6)
    assert_array_equal(fitted.predict(X), plain.predict(X))
    alone = clone(own).set_params(blend=False).fit(X, y)
    expected = learned_temperature(predictions["downstream"], LogLoss(y, np.arange(2)))
    assert alone.temperature_ == pytest.approx(expected)
    assert alone.blend_weights_ == {"downstream": 1.0}
    assert hasattr(alone, "decision_function")


def test_the_report_of_a_fit():
    X, y = binary()
    own = stack([("tree", TREE), ("pca", ENCODER)], cv=3).fit(X, y)
    report = own.fit_report_
    assert list(report) == ["tree", "pca", "downstream", "blend"]
    assert {key: line["rows"] for key, line in report.items()} == dict.fromkeys(report, 60)
    assert all(line["seconds"] >= 0 for line in report.values())
    assert {k: report[k]["score"] for k in own.blend_scores_} == own.blend_scores_
    assert report["pca"]["score"] is None
    off = clone(own).set_params(blend=False).fit(X, y)
    assert off.fit_report_["tree"]["score"] == own.blend_scores_["tree"]
    assert list(off.fit_report_) == ["tree", "pca", "downstream"]


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"blend": "yes"}, "blend"),
        ({"blend": 1.0}, "blend"),
        ({"blend_scoring": "auc"}, "blend_scoring"),
        ({"blend_scoring": "neg_mean_gamma_deviance"}, "neg_mean_gamma_deviance"),
        ({"blend_parts": "tree"}, "blend_parts"),
        ({"blend_parts": ["tree"]}, "blend_parts"),
        ({"blend_parts": ["tree", "tree"]}, "blend_parts"),
        ({"blend_parts": ["tree", "forest"]}, "blend_parts.*forest"),
        ({"blend_parts": ["pca", "tree"]}, "blend_parts.*'pca'.*not a classifier"),
        ({"calibration": "isotonic"}, "calibration"),
        ({"calibration": "temperature", "downstream": MARGIN}, "calibration.*predict_proba"),
        ({"n_repeats": 0}, "n_repeats"),
        ({"n_repeats": 2, "cv": TimeSeriesSplit(3)}, "n_repeats=2.*time-ordered"),
        ({"n_repeats": 2}, r"(?s)n_repeats.*cannot be shuffled"),
    ],
    ids=str,
)
def test_invalid_parameters_are_refused_before_training(params, message, monkeypatch):
    def fit(self, X, y, sample_weight=None):
        raise AssertionError("training has begun")

    own = stack([("tree", TREE), ("pca", ENCODER)]).set_params(**params)
    monkeypatch.setattr(DecisionTreeClassifier, "fit", fit)
    with pytest.raises(ValueError, match=message):
        own.fit(*binary())


def test_metadata_of_the_downstream_is_refused_by_a_blend():
    X, y = regression()
    own = StackedKerasRegressor([("linear", Ridge())], downstream=BayesianRidge(), cv=3).fit(X, y)
    with pytest.raises(ValueError, match=r"return_std.*blend=False"):
        own.predict(X, return_std=True)
    own.set_params(blend=False).fit(X, y)
    assert len(own.predict(X, return_std=True)) == 2


# What a person sees ------------------------------------------------------------------------


@pytest.mark.parametrize("given", [True, False])
def test_the_display_of_weights_and_scores(given):
    ax = plt.subplots()[1] if given else None
    X, y = binary()
    own = stack([("tree", TREE)], cv=3).fit(X, y)
    display = BlendDisplay.from_estimator(own, ax=ax)
    assert ax is None or display.ax_ is ax
    assert dict(zip(display.parts, display.weights, strict=True)) == own.blend_weights_
    assert display.scores == own.blend_scores_
    assert [bar.get_width() for bar in display.ax_.patches] == display.weights
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels[0] == f"tree\nscore {own.blend_scores_['tree']:.4g}"
    step = make_pipeline("passthrough", own)
    assert BlendDisplay.from_estimator(step).weights == display.weights
    off = BlendDisplay.from_estimator(own.set_params(blend=False).fit(X, y))
    assert off.parts == ["downstream"]
    ensemble = GreedyEnsembleClassifier([("tree", TREE), ("linear", LINEAR)]).fit(X, y)
    assert BlendDisplay.from_estimator(ensemble).scores == ensemble.scores_
    plt.close("all")
    with pytest.raises(NotFittedError):
        BlendDisplay.from_estimator(stack())
    with pytest.raises(TypeError, match="no weights"):
        BlendDisplay.from_estimator(clone(LINEAR).fit(X, y))


def test_the_diagram_shows_weights():
    X, y = binary()
    own = stack([("tree", TREE, [0, 1])], cv=3)
    assert "(weight" not in own._repr_html_()
    html = own.fit(X, y)._repr_html_()
    for name, label in (("tree", "tree (columns [0, 1])"), ("downstream", "downstream")):
        assert f"{label} (weight {own.blend_weights_[name]:.2f})" in html
    ensemble = GreedyEnsembleClassifier([("tree", TREE), ("linear", LINEAR)]).fit(X, y)
    assert f"tree (weight {ensemble.weights_['tree']:.2f})" in ensemble._repr_html_()


# What is shipped -------------------------------------------------------------------------


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("kind", ["classifier", "log-odds, calibrated", "regressor"])
def test_a_blend_of_networks_is_one_model(kind, tmp_path, monkeypatch):
    settings = {"cv": 2, "blend": True, "random_state": 0}
    if kind == "regressor":
        X, y = regression()
        network = KerasRegressor(SMALL, **FIT)
        own = StackedKerasRegressor([("net", network)], downstream=network, **settings)
    else:
        X, y = binary()
        branch = NETWORK
        if kind != "classifier":
            branch = KerasFeatureTransformer(NETWORK, features=["entropy", "log_odds"], cv=2)
            settings["calibration"] = "temperature"
        own = StackedKerasClassifier([("net", branch)], downstream=NETWORK, **settings)
    own.fit(X, y)
    own.blend_weights_ = {"net": 0.25, "downstream": 0.75}  # whatever was learned
    method = own.predict if kind == "regressor" else own.predict_proba
    expected = method(X).reshape(60, -1)
    model = own.to_keras()
    assert_allclose(np.asarray(model(own.keras_inputs(X))), expected, atol=1e-5)
    own.blend_weights_ = {"net": 1.0, "downstream": 0.0}
    alone = method(X).reshape(60, -1)
    model = own.to_keras()
    assert not any("downstream" in layer.name for layer in model.layers)
    assert_allclose(np.asarray(model(own.keras_inputs(X))), alone, atol=1e-5)
    skstack.save(own, tmp_path / "own.skstack")
    loaded = skstack.load(tmp_path / "own.skstack")
    method = loaded.predict if kind == "regressor" else loaded.predict_proba
    assert_array_equal(method(X).reshape(60, -1), alone)
    assert loaded.blend_scores_ == own.blend_scores_
    assert loaded.fit_report_ == own.fit_report_


def test_a_blend_with_a_part_that_is_no_network_is_refused_by_name(tmp_path):
    X, y = binary()
    own = StackedKerasClassifier([("tree", TREE)], downstream=NETWORK, cv=2).fit(X, y)
    path = tmp_path / "model"
    with pytest.raises(ValueError, match=r"DecisionTreeClassifier.*'tree'"):
        own.export(path)
    assert list(tmp_path.iterdir()) == []
    skstack.save(own, path.with_suffix(".skstack"))
    trusted = ["sklearn.tree._tree.Tree"]
    loaded = skstack.load(path.with_suffix(".skstack"), trusted=trusted)
    assert_array_equal(loaded.predict_proba(X), own.predict_proba(X))
