"""GreedyEnsembleClassifier and GreedyEnsembleRegressor: weights by greedy selection."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
import sklearn
from _models import binary, mixed, regression
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import make_multilabel_classification
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import get_scorer, log_loss, mean_squared_error
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    TimeSeriesSplit,
    cross_val_predict,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

import skstack
from skstack import KerasClassifier
from skstack._training.formulas import with_temperature
from skstack.ensemble import GreedyEnsembleClassifier, GreedyEnsembleRegressor
from skstack.ensemble._greedy import (
    LogLoss,
    SquaredError,
    greedy_counts,
    learned_blend,
    learned_temperature,
)
from skstack.networks import MLP

LINEAR, TREE = (
    LogisticRegression(max_iter=1000),
    DecisionTreeClassifier(max_depth=3, random_state=0),
)
CLASSIFIER = GreedyEnsembleClassifier([("linear", LINEAR), ("tree", TREE)], cv=3)
REGRESSOR = GreedyEnsembleRegressor(
    [("linear", Ridge()), ("tree", DecisionTreeRegressor(max_depth=3, random_state=0))], cv=3
)


@parametrize_with_checks([CLASSIFIER, REGRESSOR])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_parameters_have_the_names_of_scikit_learns():
    theirs = {*inspect.signature(StackingClassifier).parameters} & {
        *inspect.signature(VotingClassifier).parameters
    }
    assert theirs | {"cv"} <= {*inspect.signature(GreedyEnsembleClassifier).parameters}


def test_tensorflow_is_not_imported():
    code = (
        "import sys; from sklearn.dummy import DummyClassifier as D;"
        "from skstack.ensemble import GreedyEnsembleClassifier as G;"
        "G([('a', D())], cv=2).fit([[0], [1], [2], [3]], [0, 1, 0, 1]).predict([[0]]);"
        "print(sorted({'keras', 'tensorflow'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


# The selection ------------------------------------------------------------------------------------


def test_weights_minimise_the_loss():
    """The optimum of two predictions of a mean has a closed form."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=4000)
    parts = {"a": y + rng.normal(0, 1, 4000), "b": y + rng.normal(0, 2, 4000)}
    weights, scores, _ = learned_blend(parts, SquaredError(y))
    a, b = (each - y for each in parts.values())
    optimum = (b @ b - a @ b) / ((a - b) @ (a - b))
    assert abs(weights["a"] - optimum) < 0.01
    mean = weights["a"] * parts["a"] + weights["b"] * parts["b"]
    assert_allclose(scores["blend"], -mean_squared_error(y, mean))
    assert scores["blend"] > scores["a"] > scores["b"]


def test_of_weights_of_rows_only_proportions_count():
    """The gain of a part, about one standard error of the score, depends on nothing else."""
    rng = np.random.default_rng(0)
    y, weights = rng.normal(size=60), rng.integers(0, 3, 60).astype(float)
    parts = {"a": y + rng.normal(0, 1, 60), "b": y + rng.normal(0, 1.5, 60)}
    rows = np.flatnonzero(weights)
    of_rows = {name: part[rows] for name, part in parts.items()}
    learned = [
        learned_blend(parts, SquaredError(y, weights)),
        learned_blend(parts, SquaredError(y, 2**10 * weights)),
        learned_blend(of_rows, SquaredError(y[rows], weights[rows])),
    ]
    for found in learned[1:]:
        assert found[0] == learned[0][0]
        assert_allclose(list(found[1].values()), list(learned[0][1].values()), rtol=1e-12)
    twice = {name: np.repeat(part, weights.astype(int)) for name, part in parts.items()}
    scores = learned_blend(twice, SquaredError(np.repeat(y, weights.astype(int))))[1]
    assert_allclose([scores[name] for name in parts], [learned[0][1][name] for name in parts])


def test_ties_go_to_the_simpler():
    part = np.array([0.2, 0.7])
    assert greedy_counts([part, part], lambda mean: 0.0).tolist() == [1, 0]
    assert greedy_counts([part, part + 0.1], lambda mean: -abs(mean[0] - 0.3)).tolist() == [0, 1]
    # Rounding is no reason to take two.
    y = np.array([0, 1])
    parts = {"a": part, "b": np.nextafter(part, 1)}
    assert learned_blend(parts, SquaredError(y))[0] == {"a": 1.0, "b": 0.0}


def test_a_part_is_selected_again():
    """With replacement: an optimum of 0.9 and 0.1 needs nine selections of the first."""
    counts = greedy_counts([np.array([0.0]), np.array([1.0])], lambda mean: -abs(mean[0] - 0.1))
    assert counts.tolist() == [9, 1]


@pytest.mark.parametrize("seed", range(20))
def test_a_useless_part_gets_no_weight(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(600, 3))
    y = (X[:, 0] + rng.normal(0, 1, 600) > 0).astype(int)
    X = np.column_stack([X, rng.random(600)])
    ensemble = GreedyEnsembleClassifier(
        [("linear", LogisticRegression()), ("noise", OnColumn(GaussianNB(), 3))]
    )
    assert ensemble.fit(X, y).weights_["noise"] <= 0.02


def test_a_blend_scores_no_worse_than_its_best_part():
    """A part that is certain, and wrong in one row, costs less than its standard error."""
    y = np.arange(150) % 2
    certain, careful = np.ones(150), np.full(150, 0.97)
    certain[7] = 0
    parts = {
        name: np.where(y[:, None] == [0, 1], true[:, None], 1 - true[:, None])
        for name, true in (("certain", certain), ("careful", careful))
    }
    weights, scores, _ = learned_blend(parts, LogLoss(y, np.arange(2)))
    assert weights["careful"] > 0
    assert scores["blend"] >= scores["careful"] > scores["certain"]


class OnColumn(GaussianNB):
    """A classifier that sees one column."""

    def __init__(self, model=None, column=0, priors=None, var_smoothing=1e-9):
        super().__init__(priors=priors, var_smoothing=var_smoothing)
        self.model, self.column = model, column

    def fit(self, X, y):
        return super().fit(X[:, [self.column]], y)

    def predict_proba(self, X):
        return super().predict_proba(X[:, [self.column]])


# Fits ---------------------------------------------------------------------------------------------


def test_scores_are_those_of_cross_val_predict():
    X, y = mixed()
    X = X[["a", "b", "c", "d"]]
    ensemble = clone(CLASSIFIER).fit(X, y)
    folds = {
        name: cross_val_predict(clone(each), X, y, cv=3, method="predict_proba")
        for name, each in CLASSIFIER.estimators
    }
    for name, p in folds.items():
        p = p.astype(np.float32)  # scikit-learn clips at the precision of the dtype
        assert_allclose(ensemble.scores_[name], -log_loss(y, p), rtol=1e-5)
    p = sum(ensemble.weights_[name] * each for name, each in folds.items()).astype(np.float32)
    assert_allclose(ensemble.scores_["blend"], -log_loss(y, p), rtol=1e-5)
    assert sum(ensemble.weights_.values()) == pytest.approx(1)


def test_predictions_are_the_weighted_mean():
    X, y = binary()
    ensemble = clone(CLASSIFIER).fit(X, y)
    p = sum(
        ensemble.weights_[name] * each.predict_proba(X)
        for name, each in ensemble.named_estimators_.items()
    )
    assert_array_equal(ensemble.predict_proba(X), p)
    assert_array_equal(ensemble.predict(X), p.argmax(axis=1))
    X, y = regression()
    ensemble = clone(REGRESSOR).fit(X, y)
    values = sum(
        ensemble.weights_[name] * each.predict(X)
        for name, each in ensemble.named_estimators_.items()
    )
    assert_array_equal(ensemble.predict(X), values)


def test_parts_without_weight_are_not_fitted_on_all_rows():
    X, y = regression()
    ensemble = GreedyEnsembleRegressor([("mean", DummyRegressor()), ("linear", LinearRegression())])
    ensemble.fit(X, y)
    assert ensemble.weights_ == {"mean": 0, "linear": 1}
    assert list(ensemble.named_estimators_) == ["linear"]
    assert len(ensemble.estimators_) == 1


def test_labels_of_a_row_do_not_move_its_prediction():
    """Weights come from rows that no part was fitted on, where 1-NN is at chance."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(400, 3)), rng.permutation(np.arange(400) % 2)
    ensemble = GreedyEnsembleClassifier(
        [("prior", DummyClassifier()), ("neighbour", KNeighborsClassifier(1))]
    ).fit(X, y)
    assert ensemble.weights_["neighbour"] < 0.1


def test_other_scores():
    X, y = binary()
    ensemble = clone(CLASSIFIER).set_params(scoring="roc_auc").fit(X, y)
    p = cross_val_predict(LINEAR, X, y, cv=3, method="predict_proba")[:, 1]
    from sklearn.metrics import roc_auc_score

    assert_allclose(ensemble.scores_["linear"], roc_auc_score(y, p))
    ensemble.set_params(scoring=get_scorer("accuracy")).fit(X, y)
    assert_allclose(ensemble.scores_["linear"], np.mean((p > 0.5) == y))
    X, y = regression()
    ensemble = clone(REGRESSOR).set_params(scoring="neg_mean_absolute_error").fit(X, y)
    linear = cross_val_predict(Ridge(), X, y, cv=3)
    assert_allclose(ensemble.scores_["linear"], -np.abs(linear - y).mean())


def test_a_scorer_reads_the_rows_that_are_predicted():
    X, y = binary()

    def earned(estimator, X, y):
        return np.sum(X[:, 0] * (estimator.predict(X) == y))

    cv = TimeSeriesSplit(3)  # it predicts the last 45 rows only
    ensemble = clone(CLASSIFIER).set_params(scoring=earned, cv=cv).fit(X, y)
    predicted = [
        clone(LINEAR).fit(X[train], y[train]).predict(X[test]) for train, test in cv.split(X)
    ]
    gains = X[15:, 0] * (np.concatenate(predicted) == y[15:])
    assert_allclose(ensemble.scores_["linear"], gains.sum())


def test_several_labels():
    X, y = make_multilabel_classification(80, random_state=0)
    trees = [(f"depth_{d}", DecisionTreeClassifier(max_depth=d, random_state=0)) for d in (1, 4)]
    ensemble = GreedyEnsembleClassifier(trees, cv=3).fit(X, y)
    assert ensemble.predict_proba(X).shape == ensemble.predict(X).shape == y.shape
    assert (ensemble.predict(X) == y).mean() > 0.7


def test_several_targets_count_in_their_own_units():
    X, y = regression(2)
    ensemble = clone(REGRESSOR).fit(X, y)
    other = clone(REGRESSOR).fit(X, y * [1, 1e6])
    assert ensemble.predict(X).shape == y.shape
    assert other.scores_["linear"] == pytest.approx(ensemble.scores_["linear"], rel=0.1)


def test_a_class_that_a_fold_lacks():
    X, y = binary()
    y = y.astype(object)
    y[0] = "rare"
    y = y.astype(str)
    ensemble = clone(CLASSIFIER).set_params(cv=KFold(3)).fit(X, y)
    assert ensemble.predict_proba(X).shape == (60, 3)
    assert np.isfinite(ensemble.scores_["blend"])


def test_rows_that_are_never_predicted_take_no_part():
    X, y = binary()
    for weights in (None, np.arange(60) % 3 + 1.0):
        ensemble = clone(CLASSIFIER).set_params(cv=TimeSeriesSplit(3))
        ensemble.fit(X, y, sample_weight=weights)
        rows, p = [], []
        for train, test in TimeSeriesSplit(3).split(X):
            own = None if weights is None else weights[train]
            rows += [*test]
            p += [*clone(LINEAR).fit(X[train], y[train], own).predict_proba(X[test])]
        own = None if weights is None else weights[rows]
        loss = log_loss(y[rows], p, sample_weight=own)
        assert_allclose(ensemble.scores_["linear"], -loss, rtol=1e-6)


def test_weights_need_a_row_that_counts_and_is_predicted():
    X, y = binary()
    weights = np.r_[np.ones(15), np.zeros(45)]
    ensemble = clone(CLASSIFIER).set_params(cv=TimeSeriesSplit(3))
    with pytest.raises(ValueError, match="sample_weight is 0 for all 45 rows that the folds of cv"):
        ensemble.fit(X, y, sample_weight=weights)


class Gap(LinearRegression):
    """Predicts NaN for some rows."""

    def predict(self, X):
        return np.where(X[:, 0] > 1, np.nan, super().predict(X))


@pytest.mark.parametrize("names", [("gap", "linear"), ("linear", "gap")])
def test_an_estimator_that_predicts_nan_is_named(names):
    X, y = regression()
    parts = {"gap": Gap(), "linear": Ridge()}
    ensemble = GreedyEnsembleRegressor([(name, parts[name]) for name in names], cv=3)
    with pytest.raises(ValueError, match="estimator 'gap' predicts NaN"):
        ensemble.fit(X, y)


def test_groups_and_weights():
    X, y = binary()
    groups, weights = np.arange(60) // 6, np.arange(60) % 3
    given = list(GroupKFold(3).split(X, y, groups))
    same = clone(CLASSIFIER).set_params(cv=given).fit(X, y)
    by_groups = clone(CLASSIFIER).set_params(cv=GroupKFold(3)).fit(X, y, groups=groups)
    assert by_groups.scores_ == same.scores_
    with pytest.raises(ValueError, match="groups"):
        clone(CLASSIFIER).fit(X, y, groups=groups * 0)
    p = cross_val_predict(
        LINEAR, X, y, cv=3, method="predict_proba", params={"sample_weight": weights}
    )
    weighted = clone(CLASSIFIER).fit(X, y, sample_weight=weights)
    assert_allclose(weighted.scores_["linear"], -log_loss(y, p, sample_weight=weights), rtol=1e-6)


def test_groups_and_time_reach_inner_splits():
    X, y = binary()
    groups = np.arange(60) // 5
    search = GridSearchCV(LINEAR, {"C": [1]}, cv=2)
    ensemble = GreedyEnsembleClassifier([("search", search)], cv=3).fit(X, y, groups=groups)
    (fitted,) = ensemble.estimators_
    for train, test in fitted.cv:
        assert not set(groups[train]) & set(groups[test])
    assert search.cv == 2
    ensemble.set_params(search__cv=KFold(2), cv=TimeSeriesSplit(3))
    with pytest.raises(ValueError, match=r"'search'.*ordered in time"):
        ensemble.fit(X, y)


def test_metadata_routing():
    X, y = binary()
    weights = np.arange(60) % 3
    plain = clone(CLASSIFIER).fit(X, y, sample_weight=weights)
    with sklearn.config_context(enable_metadata_routing=True):
        names = dict(CLASSIFIER.estimators)
        routed = GreedyEnsembleClassifier(
            [(n, clone(e).set_fit_request(sample_weight=True)) for n, e in names.items()], cv=3
        )
        assert routed.fit(X, y, sample_weight=weights).scores_ == plain.scores_


def test_fitted_estimators_are_weighted_on_unseen_rows():
    X, y = binary()
    fitted = [
        ("linear", clone(LINEAR).fit(X[:30], y[:30])),
        ("tree", clone(TREE).fit(X[:30], y[:30])),
    ]
    ensemble = GreedyEnsembleClassifier(fitted, cv="prefit").fit(X[30:], y[30:])
    p = fitted[0][1].predict_proba(X[30:])
    assert_allclose(ensemble.scores_["linear"], -log_loss(y[30:], p), rtol=1e-6)
    assert ensemble.named_estimators_["linear"] is fitted[0][1]


def test_an_estimator_that_is_not_fitted_is_named():
    members = [("fitted", DummyClassifier().fit([[0], [1]], [0, 1])), ("new", GaussianNB())]
    with pytest.raises(NotFittedError, match="The estimator 'new'"):
        GreedyEnsembleClassifier(members, cv="prefit").fit([[0], [1]], [0, 1])


@pytest.mark.parametrize("cv", ["prefit", 3])
def test_predictions_may_be_a_column(cv):
    X, y = regression()
    column = FrozenEstimator(LinearRegression().fit(X[:40], y[:40, None]))
    assert column.predict(X).shape == (len(X), 1)
    parts = [("column", column), ("flat", FrozenEstimator(Ridge(50.0).fit(X[:40], y[:40])))]
    ensemble = GreedyEnsembleRegressor(parts, cv=cv).fit(X[40:], y[40:])
    for name, part in parts:
        loss = mean_squared_error(y[40:], part.predict(X[40:]))
        assert_allclose(ensemble.scores_[name], -loss, rtol=1e-5)
    assert ensemble.predict(X).shape == y.shape
    two = np.column_stack([y, y])
    with pytest.raises(ValueError, match=r"'column': its predictions have the shape \(.*, 1\)"):
        ensemble.fit(X, two)
    ensemble = GreedyEnsembleRegressor(parts, cv=cv).fit(X[40:], y[40:])
    expected = ensemble.predict(X)
    del ensemble._target_shape  # of a file of an earlier version
    assert_array_equal(ensemble.predict(X).ravel(), expected)


def test_predictions_of_another_shape_are_refused():
    class Turned(LinearRegression):
        def predict(self, X):
            return super().predict(X).T

    X, y = regression()
    ensemble = GreedyEnsembleRegressor([("turned", Turned()), ("flat", Ridge())], cv=3)
    with pytest.raises(ValueError, match=r"'turned': its predictions have the shape \(2, \d+\)"):
        ensemble.fit(X, np.column_stack([y, y]))


@pytest.mark.parametrize("frozen", [False, True])
def test_fitted_estimators_keep_their_classes(frozen):
    X, _ = binary()
    y = np.array(["a", "b", "c"])[np.arange(60) % 3]
    fitted = [("linear", clone(LINEAR).fit(X, y)), ("tree", clone(TREE).fit(X, y))]
    ensemble = GreedyEnsembleClassifier(fitted, cv="prefit")
    if frozen:
        frozen_ones = [(name, FrozenEstimator(each)) for name, each in fitted]
        ensemble.set_params(estimators=frozen_ones, cv=3)
    for missing in ["a", "b", "c"]:  # in the rows that the weights are learned on
        rows = y != missing
        ensemble.fit(X[rows], y[rows])
        assert ensemble.classes_.tolist() == ["a", "b", "c"]
        p = sum(w * dict(fitted)[name].predict_proba(X) for name, w in ensemble.weights_.items())
        assert_allclose(ensemble.predict_proba(X), p, rtol=1e-6)
    with pytest.raises(ValueError, match=r"'linear' was fitted with the classes \['a', 'b', 'c'\]"):
        ensemble.fit(X, np.array(["b", "c", "d"])[np.arange(60) % 3])


class Reversed(LogisticRegression):
    """A classifier whose classes are not sorted."""

    def fit(self, X, y, sample_weight=None):
        super().fit(X, y, sample_weight)
        self.sorted_, self.classes_ = self.classes_, self.classes_[::-1]
        return self

    def predict_proba(self, X):
        return super().predict_proba(X)[:, ::-1]


def test_classes_of_an_estimator_are_in_any_order():
    X, y = binary()
    ensemble = GreedyEnsembleClassifier([("linear", LINEAR)], cv=3).fit(X, y)
    other = GreedyEnsembleClassifier([("linear", Reversed(max_iter=1000))], cv=3).fit(X, y)
    assert other.scores_ == ensemble.scores_
    assert_array_equal(other.predict_proba(X), ensemble.predict_proba(X))


def test_other_numbers_of_labels_are_refused():
    X, _ = binary()
    y = (X[:, :3] > X[:, :3].mean(axis=0)).astype(int)
    fitted = [("tree", clone(TREE).fit(X, y))]
    with pytest.raises(ValueError, match=r"'tree'.*the shape \(60, 3\), but y holds 2 labels"):
        GreedyEnsembleClassifier(fitted, cv="prefit").fit(X, y[:, :2])


def test_folds_may_come_from_a_generator():
    X, y = binary()
    given = clone(CLASSIFIER).set_params(cv=KFold(3).split(X)).fit(X, y)
    assert given.scores_ == clone(CLASSIFIER).set_params(cv=KFold(3)).fit(X, y).scores_


def test_frames_search_and_files(tmp_path):
    X, y = binary(frame=True)
    grid = {"linear__C": [0.1, 1], "tree": ["drop"]}
    best = GridSearchCV(clone(CLASSIFIER), grid, cv=2).fit(X, y).best_estimator_
    assert best.feature_names_in_.tolist() == list(X.columns)
    assert list(best.weights_) == ["linear"]
    skstack.save(best, tmp_path / "best.skstack")
    loaded = skstack.load(tmp_path / "best.skstack")
    assert_array_equal(loaded.predict_proba(X), best.predict_proba(X))
    assert loaded.weights_ == best.weights_


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"estimators": []}, "estimators"),
        ({"estimators": [("a", "drop")]}, "estimators"),
        ({"estimators": "linear"}, "estimators"),
        ({"estimators": [LINEAR]}, "name, estimator"),
        ({"estimators": [("a", LogisticRegression)]}, "'a'"),
        ({"estimators": [("a", Ridge())]}, "'a'.*not a classifier"),
        ({"estimators": [("a", LinearSVC())]}, "'a'.*no predict_proba"),
        ({"estimators": [("a__b", LINEAR)]}, "__"),
        ({"scoring": "auc"}, "scoring"),
        ({"scoring": "r2_score"}, "scoring"),
        ({"scoring": "neg_mean_gamma_deviance"}, "neg_mean_gamma_deviance"),
        ({"max_iter": 0}, "max_iter"),
        ({"cv": 1}, "cv"),
        ({"n_jobs": 1.5}, "n_jobs"),
    ],
    ids=str,
)
def test_invalid_parameters_are_refused_before_a_fit(params, message, monkeypatch):
    def fit(*args, **kwargs):
        raise AssertionError("training has begun")

    monkeypatch.setattr(LogisticRegression, "fit", fit)
    X, y = binary()
    with pytest.raises((ValueError, TypeError), match=message):
        clone(CLASSIFIER).set_params(**params).fit(X, y)


@pytest.mark.parametrize(
    ("refuses", "message"),
    [
        (LogisticRegression(), r"The estimator 'last' .* holds strings in columns \['job'\]"),
        (make_pipeline(LogisticRegression(C=-1)), "'C' parameter of LogisticRegression"),
        (KerasClassifier(MLP((0,))), r"hidden_layer_sizes=\(0,\)"),
    ],
    ids=["columns", "parameter", "recipe"],
)
def test_an_estimator_that_refuses_is_found_before_another_is_trained(
    refuses, message, monkeypatch
):
    X, y = mixed()
    fits, fit = [], DummyClassifier.fit

    def counted(self, X, y, **metadata):
        fits.append(len(X))
        return fit(self, X, y, **metadata)

    monkeypatch.setattr(DummyClassifier, "fit", counted)
    ensemble = GreedyEnsembleClassifier([("first", DummyClassifier()), ("last", refuses)], cv=2)
    with pytest.raises(ValueError, match=message):
        ensemble.fit(X, y)
    assert all(n_rows < len(X) // 2 for n_rows in fits)  # trials


def test_weights_need_estimators_that_accept_them():
    X, y = binary()
    ensemble = GreedyEnsembleClassifier([("neighbours", KNeighborsClassifier())])
    with pytest.raises(ValueError, match=r"sample_weight.*'neighbours'"):
        ensemble.fit(X, y, sample_weight=np.ones(60))


@pytest.mark.parametrize("routing", [False, True])
def test_estimators_that_are_not_fitted_need_no_weights(routing):
    X, y = binary()
    weights = np.arange(60) % 3
    neighbours = KNeighborsClassifier().fit(X, y)
    prefit = GreedyEnsembleClassifier([("neighbours", neighbours)], cv="prefit")
    with sklearn.config_context(enable_metadata_routing=routing):
        linear = clone(LINEAR).set_fit_request(sample_weight=True) if routing else LINEAR
        parts = [("neighbours", FrozenEstimator(neighbours)), ("linear", linear)]
        prefit.fit(X, y, sample_weight=weights)
        mixed = GreedyEnsembleClassifier(parts, cv=3).fit(X, y, sample_weight=weights)
    p = neighbours.predict_proba(X)
    score = -log_loss(y, p, sample_weight=weights)
    assert_allclose(prefit.scores_["neighbours"], score, rtol=1e-6)
    assert_allclose(mixed.scores_["neighbours"], score, rtol=1e-6)


# Temperature --------------------------------------------------------------------------------------


@pytest.mark.parametrize("several", [False, True])
def test_temperature_is_learned(several):
    """Labels drawn from probabilities; logits that are too large by a factor of 3."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3))
    if several:
        p = 1 / (1 + np.exp(-logits))
        y = (rng.random(p.shape) < p).astype(int)
        sharp = 1 / (1 + np.exp(-3 * logits))
    else:
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        y = (rng.random((len(p), 1)) > p.cumsum(axis=1)).sum(axis=1)
        sharp = p**3 / (p**3).sum(axis=1, keepdims=True)
    temperature = learned_temperature(sharp, LogLoss(y, np.arange(3)))
    assert temperature == pytest.approx(3, rel=0.05)
    calibrated = with_temperature(sharp, 3.0, np, exclusive=not several)
    assert_allclose(calibrated, p, atol=1e-6)
