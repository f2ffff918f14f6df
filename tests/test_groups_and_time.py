"""Clauses 4 and 6: groups are kept whole, and nobody learns from later rows."""

import warnings

import numpy as np
import pandas as pd
import pytest
from _models import SMALL
from imblearn.over_sampling import RandomOverSampler
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    StratifiedGroupKFold,
    TimeSeriesSplit,
    cross_validate,
)
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack.networks import MLP

N = 120  # the first column of X is the number of the row: its time


class Recall(ClassifierMixin, BaseEstimator):
    """Says of each row whether it knows its group (column 1), and the latest row that it knows."""

    seen = []

    def fit(self, X, y):
        X = np.asarray(X)
        self.groups_, self.last_ = set(X[:, 1].tolist()), X[:, 0].max()
        self.classes_ = np.unique(y)
        Recall.seen.append(set(X[:, 0].astype(int).tolist()))
        return self

    def predict_proba(self, X):
        knows = np.isin(np.asarray(X)[:, 1], list(self.groups_)).astype(float)
        return np.column_stack([1 - knows, knows])

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class Clock(Recall):
    """Predicts the time of its latest training row, as a probability."""

    def predict_proba(self, X):
        latest = np.full(len(X), (self.last_ + 1) / 1000)
        return np.column_stack([1 - latest, latest])


class Keeper(ClassifierMixin, BaseEstimator):
    """Keeps its training rows and its X_val."""

    def __init__(self, early_stopping=False, validation_fraction=0.2):
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction

    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
        self.X_, self.y_, self.classes_ = np.asarray(X), y, np.unique(y)
        self.weights_, self.X_val_, self.y_val_ = sample_weight, X_val, y_val
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


@pytest.fixture(autouse=True)
def nothing_seen():
    Recall.seen = []


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 15, N)
    X = np.column_stack([np.arange(N), groups, rng.normal(size=(N, 2))]).astype(np.float32)
    y = np.where(rng.random(N) < 0.4, "yes", "no")
    return X, y, groups


def stack_of(upstream, **options):
    options = {"downstream": Keeper(), "scaler": None, "random_state": 0, **options}
    return StackedKerasClassifier([("up", upstream)], **options)


# Groups --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cv", [5, GroupKFold(4), LeaveOneGroupOut(), StratifiedGroupKFold(3)])
def test_no_row_is_predicted_by_a_network_trained_on_its_group(rows, cv):
    X, y, groups = rows
    stack = stack_of(Recall(), cv=cv).fit(X, y, groups=groups)
    np.testing.assert_array_equal(stack.downstream_.X_[:, 0], 0)
    transformer = KerasFeatureTransformer(Recall(), cv=cv)
    np.testing.assert_array_equal(transformer.fit_transform(X, y, groups=groups), 0)


def test_without_groups_rows_are_predicted_by_networks_trained_on_their_group(rows):
    X, y, _ = rows
    assert stack_of(Recall()).fit(X, y).downstream_.X_[:, 0].any()


def test_an_int_with_groups_is_stratified_for_classes_only(rows):
    X, y, groups = rows
    expected = [X[train, 0] for train, _ in StratifiedGroupKFold(4).split(X, y, groups)]
    KerasFeatureTransformer(Recall(), cv=4).fit_transform(X, y, groups=groups)
    assert Recall.seen[1:] == [set(times.astype(int).tolist()) for times in expected]
    network = KerasRegressor(MLP((2,)), epochs=1)
    crossed = KerasFeatureTransformer(network, cv=4, random_state=0)
    by_int = crossed.fit_transform(X, X[:, 2], groups=groups)
    crossed.cv = GroupKFold(4)
    np.testing.assert_array_equal(by_int, crossed.fit_transform(X, X[:, 2], groups=groups))


@pytest.mark.parametrize("cv", [KFold(3), list(KFold(3).split(np.zeros(N))), TimeSeriesSplit(3)])
def test_folds_that_split_groups_are_refused(rows, cv):
    X, y, groups = rows
    with pytest.raises(ValueError, match="rows of one group"):
        stack_of(Recall(), cv=cv).fit(X, y, groups=groups)
    assert not Recall.seen


def test_folds_that_happen_to_keep_groups_together_are_accepted(rows):
    X, y, _ = rows
    stack_of(Recall(), cv=KFold(4)).fit(X, y, groups=np.arange(N) // 30)
    with pytest.raises(ValueError, match=r"cv=5 requires .* training rows have 4 groups"):
        stack_of(Recall()).fit(X, y, groups=np.arange(N) // 30)


class TearsApart(GroupKFold):
    """Accepts groups and ignores them."""

    def split(self, X, y=None, groups=None):
        return KFold(self.n_splits).split(X)


def test_a_splitter_that_splits_groups_warns(rows):
    X, y, groups = rows
    with pytest.warns(UserWarning, match="although it received the groups"):
        stack_of(Recall(), cv=TearsApart(3)).fit(X, y, groups=groups)


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("cv", [5, GroupKFold(3)])
def test_early_stopping_holds_out_whole_groups(rows, cv, routing):
    X, y, groups = rows
    with config_context(enable_metadata_routing=routing):
        stack = stack_of(Recall(), cv=cv, downstream=Keeper(True)).fit(X, y, groups=groups)
    watched = set(stack.downstream_.X_val_[:, 2].tolist())
    assert watched
    assert not watched & set(stack.downstream_.X_[:, 2].tolist())
    assert 12 <= len(stack.downstream_.X_val_) <= 40
    np.testing.assert_array_equal(stack.downstream_.X_val_[:, 0], 0)


@pytest.mark.parametrize(
    "estimator",
    [KerasClassifier(SMALL), KerasRegressor(SMALL), KerasAutoencoder()],
    ids=lambda e: str(e)[:9],
)
def test_early_stopping_of_a_network_holds_out_whole_groups(rows, estimator, monkeypatch):
    from skstack._estimators import base

    X, y, groups = rows
    splits = []
    split = base.hold_out

    def spy(*args, groups, **options):
        splits.append((groups, *split(*args, groups=groups, **options)))
        return splits[-1][1:]

    monkeypatch.setattr(base, "hold_out", spy)
    estimator.set_params(early_stopping=True, validation_fraction=0.25, epochs=2, random_state=0)
    y = y if isinstance(estimator, KerasClassifier) else X[:, 2]
    estimator.fit(X, y, groups=groups)
    # Upstream in a cross-fit it does so too, in each fold.
    KerasFeatureTransformer(estimator, features=["outputs"], cv=3, refit=False).fit(
        X, y, groups=groups
    )
    assert len(splits) == 4
    for known, train, held_out in splits:
        assert not set(known[train]) & set(known[held_out])


@pytest.mark.parametrize(
    "downstream",
    [MLPClassifier(early_stopping=True), make_pipeline(KerasClassifier(early_stopping=True))],
    ids=["MLPClassifier", "Pipeline"],
)
@pytest.mark.parametrize("beside", ["groups", "time"])
def test_downstreams_that_hold_out_rows_by_themselves_are_refused(rows, downstream, beside):
    X, y, groups = rows
    options = {"groups": groups} if beside == "groups" else {}
    cv = 5 if beside == "groups" else TimeSeriesSplit(3)
    with pytest.raises(ValueError, match=r"early stopping by itself.*(groups|time-ordered)"):
        stack_of(Recall(), downstream=downstream, cv=cv).fit(X, y, **options)
    assert not Recall.seen


@pytest.mark.filterwarnings("ignore:cv=TimeSeriesSplit.* is time-ordered")
@pytest.mark.parametrize("beside", ["groups", "time", "X_val"])
def test_a_sampler_may_precede_a_network_whose_hold_out_rows_are_set_aside(rows, beside):
    X, y, groups = rows
    X, y = X.astype(float), np.where(np.arange(N) % 3 == 0, 1, 0)
    options = {} if beside == "time" else {"groups": groups}
    if beside == "X_val":
        options |= {"X_val": X[:30], "y_val": y[:30]}
    fitted = stack_of(
        Recall(),
        downstream=KerasClassifier(SMALL, early_stopping=True, epochs=2, random_state=0),
        sampler=RandomOverSampler(random_state=0),
        cv=TimeSeriesSplit(3) if beside == "time" else 3,
    ).fit(X, y, **options)
    assert fitted.downstream_.early_stopped_
    assert len(fitted.downstream_.validation_scores_) == 2


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (np.arange(N - 1), r"groups: .*inconsistent numbers of samples"),
        (np.array(["a", None] * (N // 2), dtype=object), "groups holds missing values"),
        (np.r_[np.nan, np.zeros(N - 1)], "groups holds missing values"),
        (pd.array([None, *range(N - 1)], dtype="Int64"), "groups holds missing values"),
        (pd.Series([None, *"ab" * (N // 2)][:N], dtype="string"), "groups holds missing values"),
        (pd.Series([None, *"ab" * (N // 2)][:N], dtype="category"), "groups holds missing values"),
        (np.r_[np.datetime64("NaT"), np.arange(N - 1).astype("M8[D]")], "holds missing values"),
        (np.array([1, "a"] * (N // 2), dtype=object), "values that cannot be compared"),
        (np.zeros((N, 2)), "1d array"),
    ],
)
def test_invalid_groups_are_refused(rows, groups, message):
    X, y, _ = rows
    for estimator in (stack_of(Recall()), KerasFeatureTransformer(Recall()), KerasClassifier()):
        with pytest.raises(ValueError, match=message):
            estimator.fit(X, y, groups=groups)


@pytest.mark.parametrize(
    "form",
    [list, tuple, lambda g: g[:, None], lambda g: pd.Series(g, index=range(N, 2 * N))],
    ids=["list", "tuple", "column", "Series"],
)
def test_groups_of_any_form_reach_a_search_in_a_branch(rows, form):
    X, y, groups = rows
    search = GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 3]}, cv=3)
    for estimator in (stack_of(search, cv=3), KerasFeatureTransformer(search, cv=3)):
        own = estimator.fit_transform(X, y, groups=form(groups))
        np.testing.assert_array_equal(own, estimator.fit_transform(X, y, groups=groups))


def test_groups_reach_a_stack_inside_a_search_through_routing(rows):
    X, y, groups = rows
    found = []

    class Watcher(Keeper):
        def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
            found.append(np.asarray(X)[:, 0])
            return super().fit(X, y)

    Watcher.__init__ = Keeper.__init__
    grid = {"refit": [True, False]}
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            stack_of(Recall(), downstream=Watcher(), cv=3), grid, cv=GroupKFold(3)
        )
        search.fit(X, y, groups=groups)
    assert len(found) == 7
    assert not np.concatenate(found).any()


# Time ----------------------------------------------------------------------------------------


def test_each_feature_comes_from_a_network_trained_on_earlier_rows(rows):
    X, y, _ = rows
    with pytest.warns(UserWarning, match="never predicts 24 of 120 rows") as messages:
        stack = stack_of(Clock(), cv=TimeSeriesSplit(4)).fit(X, y)
    assert messages[0].filename == __file__
    table = stack.downstream_.X_
    np.testing.assert_array_equal(table[:, 1], np.arange(24, N))
    np.testing.assert_array_equal(stack.downstream_.y_, y[24:])
    assert (table[:, 0] * 1000 - 1 < table[:, 1]).all()
    np.testing.assert_allclose(table[:, 0] * 1000, np.repeat([24, 48, 72, 96], 24), rtol=1e-4)
    np.testing.assert_allclose(stack.transform(X)[:, 0] * 1000, N, rtol=1e-4)


def test_early_stopping_monitors_the_last_rows(rows):
    X, y, _ = rows
    with pytest.warns(UserWarning, match="never predicts 24 of 96 rows"):
        stack = stack_of(Clock(), cv=TimeSeriesSplit(3), downstream=Keeper(True)).fit(X, y)
    np.testing.assert_array_equal(stack.downstream_.X_val_[:, 1], np.arange(96, N))
    np.testing.assert_array_equal(stack.downstream_.X_[:, 1], np.arange(24, 96))
    assert max(set().union(*Recall.seen)) == 95


def test_upstream_networks_monitor_their_last_rows(rows, monkeypatch):
    from skstack._estimators import base

    X, y, _ = rows
    splits = []
    split = base.hold_out

    def spy(*args, **options):
        splits.append(split(*args, **options))
        return splits[-1]

    monkeypatch.setattr(base, "hold_out", spy)
    network = KerasClassifier(MLP((2,)), epochs=1, early_stopping=True)
    with pytest.warns(UserWarning, match="never predicts"):
        stack_of(network, cv=TimeSeriesSplit(2)).fit(X, y)
    assert len(splits) == 3
    assert all(train.max() < held_out.min() for train, held_out in splits)


def test_weights_and_groups_stay_aligned_with_rows(rows):
    X, y, _ = rows
    stack = stack_of(
        KerasClassifier(MLP((2,)), epochs=1), cv=TimeSeriesSplit(4), downstream=Keeper(True, 1 / 6)
    )
    with pytest.warns(UserWarning, match="never predicts 20 of 100"):
        stack.fit(X, y, sample_weight=np.arange(N) + 1.0, groups=np.arange(N) // 20)
    np.testing.assert_array_equal(stack.downstream_.weights_, stack.downstream_.X_[:, 1] + 1)


def test_fit_transform_returns_nan_for_rows_that_are_never_predicted(rows):
    X, y, _ = rows
    with pytest.warns(UserWarning, match="never predicts"):
        table = stack_of(Clock(), cv=TimeSeriesSplit(4), scaler="standard").fit_transform(X, y)
    assert table.shape == (N, 5)
    assert np.isnan(table[:24, 0]).all()
    assert np.isfinite(table[24:]).all()
    assert np.isfinite(table[:24, 1:]).all()
    # The scaler has learned from later rows: what it makes of earlier ones is for the downstream.
    np.testing.assert_allclose(table[24:, 0] * 1000, np.repeat([24, 48, 72, 96], 24), rtol=1e-4)
    np.testing.assert_array_equal(table[:, 1:], X)


def test_only_untrained_branches_drop_no_rows(rows):
    X, y, _ = rows
    fitted = Clock().fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for upstream in (
            FrozenEstimator(fitted),
            make_pipeline(FunctionTransformer(), FrozenEstimator(fitted)),
        ):
            stack = stack_of(upstream, cv=TimeSeriesSplit(4)).fit(X, y)
            assert len(stack.downstream_.X_) == N
    with pytest.warns(UserWarning, match="never predicts 24 of 120"):
        stack = stack_of(PCA(1), cv=TimeSeriesSplit(4)).fit(X, y)
    assert len(stack.downstream_.X_) == N - 24


def test_time_order_replaces_an_int_cv_of_a_branch(rows):
    X, y, _ = rows
    branch = KerasFeatureTransformer(Clock(), cv=7)
    with pytest.warns(UserWarning, match="never predicts 24 of 120"):
        stack = stack_of(branch, cv=TimeSeriesSplit(4)).fit(X, y)
    np.testing.assert_allclose(
        stack.downstream_.X_[:, 0] * 1000, np.repeat([24, 48, 72, 96], 24), rtol=1e-4
    )
    assert branch.cv == 7


@pytest.mark.parametrize(
    ("own", "of_stack"), [(KFold(3), TimeSeriesSplit(3)), (TimeSeriesSplit(3), 5)]
)
def test_time_order_in_one_part_only_is_refused(rows, own, of_stack):
    X, y, _ = rows
    with pytest.raises(ValueError, match="one is time-ordered"):
        stack_of(KerasFeatureTransformer(Clock(), cv=own), cv=of_stack).fit(X, y)
    assert not Recall.seen


def test_refit_false_is_refused_with_time_order(rows):
    X, y, _ = rows
    with pytest.raises(ValueError, match="refit=False is not supported with the time-ordered cv"):
        stack_of(Clock(), cv=TimeSeriesSplit(3), refit=False).fit(X, y)
    assert not Recall.seen


def test_a_transformer_that_would_drop_rows_is_refused(rows):
    X, y, _ = rows
    with pytest.raises(ValueError, match=r"24 of 120 rows are in no test fold.*StackedKeras"):
        KerasFeatureTransformer(Clock(), cv=TimeSeriesSplit(4)).fit_transform(X, y)
    assert not Recall.seen


def test_regression_stacks_keep_time_and_groups_too(rows):
    X, _, groups = rows
    network = KerasRegressor(MLP((2,)), epochs=1)
    stack = StackedKerasRegressor(network, downstream=KerasRegressor(MLP((2,)), epochs=1))
    with pytest.warns(UserWarning, match="never predicts 30 of 120"):
        stack.set_params(cv=TimeSeriesSplit(3)).fit(X, X[:, 2])
    stack.set_params(cv=3).fit(X, X[:, 2], groups=groups)
    assert stack.predict(X).shape == (N,)


@pytest.mark.parametrize("wrapped", [False, True], ids=["thing", "transformer"])
def test_folds_given_as_indices_are_restricted_to_remaining_rows(rows, wrapped):
    """Early-stopping rows are taken out; the folds still mean the rows that they named."""
    X, y, _ = rows
    folds = [(train, test) for train, test in KFold(4, shuffle=True, random_state=1).split(X)]
    cv = {"cv": folds}
    upstream = KerasFeatureTransformer(Clock(), **cv) if wrapped else Clock()
    stack = stack_of(upstream, downstream=Keeper(True), **({} if wrapped else cv)).fit(X, y)
    left = set(stack.downstream_.X_[:, 1].astype(int).tolist())
    trained = [left & set(train.tolist()) for train, _ in folds]
    assert Recall.seen[1:] == trained
    assert len(stack.downstream_.X_) == 96


def test_a_search_over_a_time_ordered_stack(rows):
    X, y, _ = rows
    stack = stack_of(
        LogisticRegression(),
        cv=TimeSeriesSplit(2),
        downstream=HistGradientBoostingClassifier(max_iter=2),
    )
    with pytest.warns(UserWarning, match="never predicts"):
        result = cross_validate(stack, X, y, cv=TimeSeriesSplit(2), error_score="raise")
    assert np.isfinite(result["test_score"]).all()


def with_an_early_class(early):
    """Rows of three classes, of which only the first rows have one."""
    X = np.random.default_rng(0).normal(size=(N, 3))
    y = np.setdiff1d([0, 1, 2], [early])[(X[:, 0] > 0).astype(int)]
    y[:20:2] = early
    return X, np.array(["a", "b", "c"])[y]


@pytest.mark.filterwarnings("ignore:(?s).*time-ordered and never predicts:UserWarning")
@pytest.mark.filterwarnings("ignore:A fold's training rows lack the classes:UserWarning")
@pytest.mark.parametrize("early", [0, 1, 2])
def test_a_class_of_rows_that_are_never_predicted_has_probability_0(early):
    """The downstream never saw it; alone, and as a branch of another stack."""
    X, labels = with_an_early_class(early)
    stack = StackedKerasClassifier(
        [("tree", DecisionTreeClassifier(max_depth=2))],
        downstream=LogisticRegression(),
        cv=TimeSeriesSplit(3),
        random_state=0,
    ).fit(X, labels)
    known = [label for label in "abc" if label != "abc"[early]]
    assert stack.downstream_.classes_.tolist() == known
    p = stack.predict_proba(X)
    assert p.shape == (N, 3)
    np.testing.assert_array_equal(p[:, early] > 0, np.zeros(N, dtype=bool))
    np.testing.assert_allclose(p.sum(axis=1), 1)
    np.testing.assert_array_equal(stack.classes_[p.argmax(axis=1)], stack.predict(X))
    assert stack.score(X[20:], labels[20:]) > 0.9
    outer = StackedKerasClassifier(
        [("stack", FrozenEstimator(stack))], downstream=LogisticRegression(), scaler=None, cv=3
    ).fit(X, labels)
    table = np.asarray(outer.transform(X))
    np.testing.assert_allclose(table[:, :3], p, atol=1e-6)


@pytest.mark.filterwarnings("ignore:(?s).*time-ordered and never predicts:UserWarning")
@pytest.mark.filterwarnings("ignore:A fold's training rows lack the classes:UserWarning")
@pytest.mark.parametrize("early", [0, 1, 2])
@pytest.mark.parametrize("sampled", [False, True])
def test_a_class_of_rows_that_are_never_predicted_is_never_decided_for(early, sampled):
    X, labels = with_an_early_class(early)
    stack = StackedKerasClassifier(
        [("tree", DecisionTreeClassifier(max_depth=2))],
        downstream=LogisticRegression(),
        blend=False,
        cv=TimeSeriesSplit(3),
        sampler=RandomOverSampler(random_state=0) if sampled else None,
        prior_correction=sampled,
        random_state=0,
    ).fit(X, labels)
    decisions = stack.decision_function(X)
    assert decisions.shape == (N, 3)
    np.testing.assert_array_equal(stack.classes_[decisions.argmax(axis=1)], stack.predict(X))
    known = np.delete(np.arange(3), early)
    assert (decisions[:, [early]] < decisions[:, known]).all()
    odds = np.diff(stack.predict_log_proba(X)[:, known], axis=1)
    np.testing.assert_array_equal(np.diff(decisions[:, known], axis=1) > 0, odds > 0)


@pytest.mark.filterwarnings("ignore:(?s).*time-ordered and never predicts:UserWarning")
@pytest.mark.filterwarnings("ignore:A fold's training rows lack the classes:UserWarning")
def test_decisions_between_pairs_of_classes_are_those_of_the_downstream():
    X = np.random.default_rng(0).normal(size=(N, 2))
    y = 1 + 2 * (X[:, 0] > 0) + (X[:, 1] > 0)
    y[:20:2] = 0
    stack = StackedKerasClassifier(
        [("tree", DecisionTreeClassifier(max_depth=2))],
        downstream=SVC(decision_function_shape="ovo"),
        blend=False,
        cv=TimeSeriesSplit(3),
    ).fit(X, y)
    assert stack.downstream_.classes_.tolist() == [1, 2, 3, 4]
    assert stack.decision_function(X).shape == (N, 6)


@pytest.mark.filterwarnings("ignore:(?s).*time-ordered and never predicts:UserWarning")
@pytest.mark.filterwarnings("ignore:A fold's training rows lack the classes:UserWarning")
@pytest.mark.parametrize("sampled", [False, True])
def test_a_model_has_that_column_too(sampled):
    sampler = RandomOverSampler(random_state=0) if sampled else None
    X, labels = with_an_early_class(1)
    network = KerasClassifier(SMALL, epochs=2)
    stack = StackedKerasClassifier(
        [("network", network)],
        downstream=network,
        cv=TimeSeriesSplit(3),
        sampler=sampler,
        prior_correction=sampled,
        random_state=0,
    ).fit(X, labels)
    p = stack.predict_proba(X)
    assert p.shape == (N, 3)
    np.testing.assert_array_equal(p[:, 1], 0)
    np.testing.assert_allclose(stack.to_keras()(stack.keras_inputs(X)), p, atol=1e-6)
