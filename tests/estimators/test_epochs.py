"""How many epochs are trained by default, and which rows are held out for that."""

import warnings

import numpy as np
import pytest
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import Pipeline
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import TimeSeriesSplit
from sklearn.tree import DecisionTreeClassifier

from skstack import KerasClassifier, KerasRegressor, StackedKerasClassifier
from skstack._estimators import base
from skstack._stack import epochs as stack_epochs
from tests._models import SMALL

N = 1_200
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4))
y = (X[:, 0] + RNG.normal(size=N) > 0).astype(int)
FAST = {"learning_rate": 0.05, "batch_size": 256, "random_state": 0}


def network(**settings):
    return KerasClassifier(SMALL, **{**FAST, **settings})


@pytest.fixture
def trained(monkeypatch):
    """Lists of (training rows, validation rows or None) of each training."""
    seen = []
    original = base.NetworkEstimator._fit_network

    def spy(self, prepared, **settings):
        held_out = prepared.validation
        seen.append((prepared.table, held_out))
        return original(self, prepared, **settings)

    monkeypatch.setattr(base.NetworkEstimator, "_fit_network", spy)
    return seen


def test_many_rows_stop_early_by_default(trained):
    fit = network().fit(X, y)
    ((rows, held_out),) = trained
    assert (len(rows), len(held_out)) == (1_020, 180)
    assert fit.early_stopped_
    assert fit.n_iter_ < 100
    assert np.argmax(fit.validation_scores_) < fit.n_iter_ - (fit.n_iter_no_change - 1)


@pytest.mark.parametrize(("n", "epochs"), [(49, "auto"), (N, 3)])
def test_few_rows_and_a_number_of_epochs_are_trained_whole(n, epochs, trained):
    fit = network(epochs=epochs).fit(X[:n], y[:n])
    assert len(trained[0][0]) == n
    assert trained[0][1] is None
    assert not fit.early_stopped_
    assert fit.n_iter_ == (100 if epochs == "auto" else epochs)
    assert fit.validation_scores_ is None


def test_X_val_is_monitored_whatever_epochs_are():
    fit = network(epochs=3).fit(X[:60], y[:60], X_val=X[60:90], y_val=y[60:90])
    assert fit.early_stopped_
    assert len(fit.validation_scores_) == 3


def test_rare_classes_stay_in_training(trained):
    labels = y.copy()
    labels[:4] = 2
    fit = network().fit(X, labels)
    rows, held_out = trained[0]
    assert fit.classes_.tolist() == [0, 1, 2]
    assert (rows.targets == 2).sum() == 4
    assert (held_out.targets == 2).sum() == 0
    labels[1:4] = 0
    with pytest.raises(ValueError, match="too few of them to be on both sides"):
        network(early_stopping=True).fit(X, labels)


@pytest.mark.parametrize("n", [3, 6])
def test_groups_of_rare_classes_stay_in_training(n, trained):
    """Of a class of fewer than 5 rows, and of one that a single group has."""
    labels, groups = y[:240].copy(), np.arange(240) // 6
    labels[:n] = 2
    fit = network(batch_size=32).fit(X[:240], labels, groups=groups)
    assert fit.early_stopped_
    rows, held_out = trained[0]
    assert (rows.targets == 2).sum() == n
    assert set(np.unique(held_out.targets)) == {0, 1}
    assert len(held_out) == 36
    with pytest.raises(ValueError, match="too few of them to be on both sides"):
        network(early_stopping=True).fit(X[:240], labels, groups=groups)


def test_groups_are_held_out_where_each_has_a_rare_class():
    labels, groups = y[:60].copy(), np.arange(60) // 15
    labels[[0, 15, 30, 45]] = 2
    settings = {"groups": groups, "ordered": False}
    train, held_out = network()._held_out_rows(X[:60], labels, 0, **settings)
    assert set(labels[train]) == set(labels[held_out]) == {0, 1, 2}
    assert not set(groups[train]) & set(groups[held_out])


def split_of(labels, groups):
    return network()._held_out_rows(X[: len(labels)], labels, 0, groups=groups, ordered=False)


def test_a_class_that_the_other_groups_have_only_once_stays_in_training_too():
    labels, groups = np.arange(240) % 2, np.arange(240) // 12
    labels[:4], labels[4:18] = 2, 3  # of the second class a group is left, beside the first
    train, held_out = split_of(labels, groups)
    assert set(labels[train]) == {0, 1, 2, 3}
    assert set(labels[held_out]) == {0, 1}
    assert not set(groups[train]) & set(groups[held_out])


def test_rows_of_one_class_do_not_judge_the_epochs():
    groups = np.arange(120) // 12
    assert split_of((groups == 0).astype(int), groups) is None


def test_one_group_is_trained_whole(trained):
    groups = np.zeros(N)
    assert not network().fit(X, y, groups=groups).early_stopped_
    assert trained[0][1] is None
    with pytest.raises(ValueError, match="requires at least 2"):
        network(early_stopping=True).fit(X, y, groups=groups)


def test_a_warm_start_holds_out_the_same_rows(trained):
    fit = network(warm_start=True, random_state=None).fit(X, y)
    fit.fit(X, y)
    (_, first), (_, second) = trained
    np.testing.assert_array_equal(first.inputs["numeric"], second.inputs["numeric"])


def test_a_warning_says_that_epochs_ran_out():
    slow = {"learning_rate": 1e-5, "n_iter_no_change": 20, "tol": 0.0}
    with pytest.warns(ConvergenceWarning, match="best in epoch 100 of 100") as told:
        network(**slow).fit(X, y)
    assert [message.filename for message in told] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network(**slow, epochs=3, early_stopping=True).fit(X, y)


def test_a_stack_withholds_no_row_and_finds_the_epochs_by_folds(trained, monkeypatch):
    fitted = []
    original = stack_epochs.clone_part
    monkeypatch.setattr(
        stack_epochs, "clone_part", lambda part: fitted.append(original(part)) or fitted[-1]
    )
    stack = StackedKerasClassifier(
        [("a", network(epochs=2))], downstream=network(), sampler=RandomOverSampler(random_state=0)
    ).fit(X, y)
    # A cross-fit of five folds and all rows; three folds of the downstream; the downstream.
    assert len(trained[5][0]) == N or len(trained[0][0]) == N
    folds, last = trained[-4:-1], trained[-1]
    assert sum(len(held_out) for _, held_out in folds) == N
    assert all(len(rows) >= N - len(held_out) for rows, held_out in folds)
    assert last[1] is None
    assert len(last[0]) >= N
    best = [int(np.argmax(each.validation_scores_)) + 1 for each in fitted]
    assert stack.downstream_.n_iter_ == stack.downstream_.epochs == round(np.median(best))


@pytest.mark.parametrize("settings", [{"epochs": 3}, {"early_stopping": False}])
def test_a_stack_trains_the_epochs_of_its_downstream(settings, trained):
    stack = StackedKerasClassifier(
        [("a", network(epochs=1))], downstream=network(**settings), blend=False, cv=2
    ).fit(X, y)
    assert len(trained) == 4
    assert stack.downstream_.n_iter_ == settings.get("epochs", 100)


def test_a_stack_still_sets_rows_aside_on_request(trained):
    stack = StackedKerasClassifier(
        [("a", network(epochs=1))],
        downstream=network(early_stopping=True, epochs=3),
        blend=False,
        cv=2,
    ).fit(X, y)
    assert len(trained) == 4
    assert len(trained[-1][1]) == 180
    assert stack.downstream_.early_stopped_


@pytest.mark.slow(first=2)
@pytest.mark.parametrize(
    ("early_stopping", "bags"), [("auto", 1), (True, 2), ("auto", 2), (True, 1)]
)
def test_rows_that_judge_the_epochs_have_weights(early_stopping, bags, trained):
    weights = np.where(np.arange(N) % 3, np.arange(N) % 5 + 1.0, 0.0)
    of_row = dict(zip(map(tuple, X[:, :1].astype(np.float32)), weights, strict=True))
    settings = {"early_stopping": early_stopping, "n_bags": bags, "epochs": "auto"}
    stack = StackedKerasClassifier(
        [("a", network(epochs=1))],
        downstream=network(**settings),
        passthrough=[0],
        scaler=None,
        blend=False,
        cv=2,
        random_state=0,
    )
    fitted = stack.fit(X, y, sample_weight=weights)
    judges = [held_out for _, held_out in trained if held_out is not None]
    assert judges
    for held_out in judges:
        (table,) = held_out.inputs.values()
        expected = [of_row[tuple(row)] for row in table[:, -1:]]
        np.testing.assert_array_equal(held_out.weights, expected)
        assert held_out.weights.all()
    if early_stopping == "auto":
        assert sum(map(len, judges)) == np.count_nonzero(weights)
    moved = np.where(weights[:, None] > 0, X, -X)
    again = clone(stack).fit(moved, y, sample_weight=weights)
    assert again.downstream_.n_iter_ == fitted.downstream_.n_iter_
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))


class Boosting(HistGradientBoostingClassifier):
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None, sample_weight_val=None):
        self.given_ = X_val, y_val, sample_weight_val
        return super().fit(X, y, sample_weight)


class WithoutWeights(HistGradientBoostingClassifier):
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
        self.given_ = X_val, y_val, None
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize("make", [Boosting, WithoutWeights])
def test_rows_that_judge_a_downstream_of_scikit_learn_have_weights(make):
    weights = np.where(np.arange(N) % 3, np.arange(N) % 5 + 1.0, 0.0)
    of_row = dict(zip(X[:, 0].astype(np.float32), weights, strict=True))
    stack = StackedKerasClassifier(
        [("a", DecisionTreeClassifier(max_depth=2))],
        downstream=make(early_stopping=True, max_iter=2),
        passthrough=[0],
        scaler=None,
        blend=False,
        cv=2,
    )
    rows, labels, given = stack.fit(X, y, sample_weight=weights).downstream_.given_
    expected = np.array([of_row[value] for value in rows[:, -1]])
    assert len(rows) == len(labels)
    if make is Boosting:
        np.testing.assert_array_equal(given, expected)
    else:
        assert expected.all()


def test_numbers_are_held_out_without_classes(trained):
    fit = KerasRegressor(SMALL, **FAST).fit(X, X[:, 0] ** 2)
    assert fit.early_stopped_
    assert len(trained[0][1]) == 180


def test_epochs_of_a_rare_class_are_found_too(trained):
    labels = np.sort(y)
    labels[:2] = 2
    rows = X[np.argsort(y, kind="stable")]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        stack = StackedKerasClassifier(
            [("a", network(epochs=1))], downstream=network(), blend=False, cv=2
        )
        stack.fit(rows, labels)
    folds = [(each, held_out) for each, held_out in trained if held_out is not None]
    assert sum(len(held_out) for _, held_out in folds) == N
    assert stack.downstream_.n_iter_ > 1


def test_epochs_of_ordered_rows_are_judged_by_the_last_groups(trained):
    stack = StackedKerasClassifier(
        [("a", network(epochs=1))], downstream=network(), blend=False, cv=TimeSeriesSplit(3)
    )
    with pytest.warns(UserWarning, match="never predicts"):
        stack.fit(np.vstack([X, X]), np.append(y, y), groups=np.arange(2 * N) // 60)
    ((rows, held_out),) = [pair for pair in trained if pair[1] is not None]
    assert len(rows) + len(held_out) == len(trained[-1][0])
    assert (2 * N - len(held_out)) % 60 == 0  # no group is split


@pytest.mark.parametrize("where", ["stack", "pipeline", "groups"])
def test_a_network_inside_a_pipeline_holds_out_nothing_that_it_must_not(where, trained):
    sampler = RandomOverSampler(random_state=0)
    steps = [("net", network())]
    settings, metadata = {"cv": 2}, {}
    if where == "stack":
        settings["sampler"] = sampler
    elif where == "pipeline":
        steps.insert(0, ("sampler", sampler))
    else:
        metadata["groups"] = np.arange(N) // 7
    stack = StackedKerasClassifier(
        [("a", network(epochs=1))], downstream=Pipeline(steps), blend=False, **settings
    ).fit(X, y, **metadata)
    assert all(held_out is None for _, held_out in trained)
    assert stack.downstream_[-1].n_iter_ == 100
    stack.set_params(downstream=Pipeline([*steps[:-1], ("net", network(early_stopping=True))]))
    trained.clear()
    with pytest.raises(ValueError, match="holds out rows for early stopping by itself"):
        stack.fit(X, y, **metadata)
    assert not trained


@pytest.mark.parametrize(
    ("scores", "best"), [([-2.0, np.nan, -1.0, np.nan], 3), ([1.0, 1.0], 2), ([np.nan] * 2, 2)]
)
def test_the_best_epoch_is_one_that_has_a_score(scores, best):
    fitted = KerasClassifier()
    fitted.validation_scores_ = scores
    assert fitted._best_epoch() == best
