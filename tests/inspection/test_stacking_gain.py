"""Gains are found where they were planted, and noise is called noise."""

import copy
import re
import sys
import warnings
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from matplotlib.colors import to_rgb
from scipy.stats import ttest_1samp
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import make_scorer, mean_absolute_error
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    RepeatedKFold,
    RepeatedStratifiedKFold,
    ShuffleSplit,
    TimeSeriesSplit,
    cross_val_score,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeRegressor

from skstack import KerasClassifier, StackedKerasClassifier, StackedKerasRegressor
from skstack._base import progress
from skstack._stack.blending import blend_plan
from skstack.inspection import StackingGainDisplay, stacking_gain
from skstack.inspection._significance import corrected_resampled_t_test, holm
from skstack.inspection._variants import variants_of
from skstack.networks import MLP

rng = np.random.default_rng(0)
X = rng.normal(size=(200, 3))
y = np.abs(X[:, 0]) + 0.3 * rng.normal(size=200)  # a line through X knows nothing of it
TREE = DecisionTreeRegressor(max_depth=3, random_state=0)


def stack(*branches, kind=StackedKerasRegressor, **params):
    settings = {"downstream": LinearRegression(), "blend": False, "cv": 3, "random_state": 0}
    params = {**settings, **params}
    return kind(list(branches), **params)


HELPS = ("helps", TREE, [0])
NOISE = ("noise", TREE, [1])
OTHER = ("other", TREE, [2])


# The test --------------------------------------------------------------------------------------


def test_the_corrected_test_equals_a_calculation_by_hand():
    # mean 0.02, variance 0.001 / 4, (1/5 + 20/80) of it: a standard error of 0.0106066
    found = corrected_resampled_t_test([0.01, 0.03, 0.02, 0.04, 0.0], [80] * 5, [20] * 5)
    t = 0.02 / np.sqrt(0.45 * 0.00025)
    # The distribution function of Student's t with 4 degrees of freedom, in closed form.
    share = t**2 / (4 + t**2)
    p = 1 - 1.5 * np.sqrt(share) * (1 - share / 3)
    half = 2.7764451 * np.sqrt(0.45 * 0.00025)
    np.testing.assert_allclose(found, [0.02, 0.02 - half, 0.02 + half, p], rtol=1e-6)


def test_without_test_rows_it_is_students_test():
    differences = np.array([0.1, -0.2, 0.4, 0.3])
    found = corrected_resampled_t_test(differences, [100] * 4, [0] * 4)
    plain = ttest_1samp(differences, 0)
    np.testing.assert_allclose(found.p, plain.pvalue)
    np.testing.assert_allclose(found[1:3], plain.confidence_interval(0.95))


def test_under_the_null_it_rejects_at_its_level_and_students_test_too_often():
    """Two lines through two columns that are as good as each other, on splits that overlap."""
    n, k, n_test, n_tables = 100, 15, 20, 1000
    draws = np.random.default_rng(0)
    corrected = plain = 0
    for _ in range(n_tables):
        columns = draws.normal(size=(n, 2))
        target = columns.sum(axis=1) + draws.normal(size=n)
        test = draws.random((k, n)).argsort(axis=1) < n_test
        slopes = (~test @ (columns * target[:, None])) / (~test @ columns**2)
        squares = (target[None, :, None] - columns * slopes[:, None]) ** 2
        errors = (squares * test[:, :, None]).sum(axis=1) / n_test
        differences = errors[:, 0] - errors[:, 1]
        found = corrected_resampled_t_test(differences, [n - n_test] * k, [n_test] * k)
        corrected += found.p <= 0.05
        plain += ttest_1samp(differences, 0).pvalue <= 0.05
    assert 0.03 <= corrected / n_tables <= 0.07  # within 3 standard deviations of 5 %
    assert plain / n_tables > 0.25


def test_differences_without_variance_are_not_tested():
    same = corrected_resampled_t_test([0.1, 0.1 + 1e-16, 0.1], [2] * 3, [1] * 3)
    assert same.mean == pytest.approx(0.1)
    assert np.isnan(same[1:]).all()
    assert corrected_resampled_t_test(np.zeros(3), [2] * 3, [1] * 3) == (0, 0, 0, 1)


def test_holm_correction_is_stepwise_and_monotone():
    found = holm([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(found, [0.03, 0.06, 0.06, 0.02])
    # What cannot be tested counts as a comparison.
    np.testing.assert_allclose(holm([np.nan, 0.02]), [np.nan, 0.04])
    np.testing.assert_array_equal(holm([0.9, 0.8]), [1, 1])


# What is compared --------------------------------------------------------------------------------


def dropped(estimator):
    return [name for name, thing, *_ in estimator.upstream if thing == "drop"]


def test_two_branches_are_compared_alone_and_together():
    variants, notes = variants_of(stack(HELPS, NOISE), X)
    assert [(v.name, v.against, dropped(v.estimator)) for v in variants] == [
        ("downstream alone", "", ["helps", "noise"]),
        ("with helps", "downstream alone", ["noise"]),
        ("with noise", "downstream alone", ["helps"]),
        ("all", "downstream alone", []),
    ]
    assert notes == []


def test_three_branches_are_left_out_one_at_a_time_too():
    variants, _ = variants_of(stack(HELPS, NOISE, OTHER), X)
    assert [(v.name, v.against, dropped(v.estimator)) for v in variants[5:]] == [
        ("without helps", "all", ["helps"]),
        ("without noise", "all", ["noise"]),
        ("without other", "all", ["other"]),
    ]


@pytest.mark.parametrize("upstream", [TREE, None])
def test_a_single_branch_has_one_comparison(upstream):
    variants, _ = variants_of(StackedKerasRegressor(upstream), X)
    assert [v.name for v in variants] == ["downstream alone", "with upstream"]
    assert [v.estimator.upstream == [] for v in variants] == [True, False]
    if upstream is not None:
        alone = variants[0].estimator.set_params(downstream=LinearRegression()).fit(X, y)
        np.testing.assert_allclose(
            alone.predict(X), LinearRegression().fit(X, y).predict(X), atol=1e-4
        )


def test_variants_of_a_blend_blend_what_is_left():
    parts = ["helps", "noise", "downstream"]
    variants, _ = variants_of(stack(HELPS, NOISE, blend=True, blend_parts=parts), X)
    settings = [(v.estimator.blend, v.estimator.blend_parts) for v in variants]
    assert settings == [("auto", None), ("auto", None), ("auto", None), (True, parts)]
    for each in variants:
        each.estimator.fit(X[:60], y[:60])


def test_variants_blend_no_other_parts_than_the_stack():
    frozen = ("frozen", FrozenEstimator(DecisionTreeRegressor(max_depth=3).fit(X[:, :1], y)), [0])
    parts = ["frozen", "helps", "downstream"]
    whole = stack(frozen, HELPS, OTHER, blend="auto", blend_parts=parts)
    blended = {v.name: blend_plan(v.estimator).parts for v in variants_of(whole, X)[0]}
    assert blended == {
        "downstream alone": (),
        "with frozen": ("frozen", "downstream"),
        "with helps": ("helps", "downstream"),
        "with other": (),
        "all": ("frozen", "helps", "downstream"),
        "without frozen": ("helps", "downstream"),
        "without helps": ("frozen", "downstream"),
        "without other": ("frozen", "helps", "downstream"),
    }


@pytest.mark.parametrize("parts", [5, "downstream"])
def test_invalid_parts_of_a_blend_are_refused_by_name(parts):
    with pytest.raises(ValueError, match=f"'blend_parts' parameter .*{parts}"):
        stacking_gain(stack(HELPS, OTHER, blend="auto", blend_parts=parts), X, y, cv=2)


def test_branches_that_were_dropped_before_stay_dropped():
    variants, _ = variants_of(stack(HELPS, ("gone", "drop")), X)
    assert [v.name for v in variants] == ["downstream alone", "with helps"]
    assert dropped(variants[1].estimator) == ["gone"]


def no_column(table):
    return []


@pytest.mark.parametrize("off", [False, [], slice(0, 0), [False] * X.shape[1], no_column])
def test_a_downstream_alone_gets_all_columns_without_passthrough(off):
    variants, notes = variants_of(stack(HELPS, NOISE, passthrough=off), X)
    assert [v.estimator.passthrough for v in variants] == [True, off, off, off]
    assert "passthrough is off" in notes[0]
    gain = stacking_gain(stack(HELPS, passthrough=off), X, y, cv=3)
    alone = cross_val_score(LinearRegression(), X, y, cv=KFold(3))
    np.testing.assert_allclose(gain.scores["downstream alone"], alone, atol=1e-4)
    assert "Note: passthrough is off" in repr(gain)
    # Columns that were chosen stay chosen.
    chosen, notes = variants_of(stack(HELPS, passthrough=[1]), X)
    assert chosen[0].estimator.passthrough == [1]
    assert notes == []


class TunedStack(StackedKerasRegressor):
    def __init__(
        self,
        upstream=None,
        *,
        downstream=None,
        scaler="standard",
        blend=False,
        passthrough=True,
        categorical_features="from_dtype",
        cv=5,
        refit=True,
        fine_tune=None,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        super().__init__(
            upstream,
            downstream=downstream,
            scaler=scaler,
            blend=blend,
            passthrough=passthrough,
            categorical_features=categorical_features,
            cv=cv,
            refit=refit,
            n_jobs=n_jobs,
            random_state=random_state,
            verbose=verbose,
        )
        self.fine_tune = fine_tune


class TeacherLoss:
    def __init__(self, teacher, loss="auto"):
        self.teacher = teacher
        self.loss = loss


class Taught(RegressorMixin, BaseEstimator):
    """Tells the mean of y, and nothing where no teacher speaks."""

    def __init__(self, loss="auto"):
        self.loss = loss

    def fit(self, X, y):
        taught = hasattr(self.loss, "teacher")
        self.value_ = np.mean(y) * (1 if taught else 0)
        return self

    def predict(self, X):
        return np.full(len(X), self.value_)


def test_fine_tuning_is_switched_off_and_on():
    plan = object()
    variants, _ = variants_of(stack(HELPS, NOISE, kind=TunedStack, fine_tune=plan), X)
    assert [(v.name, v.against) for v in variants[3:]] == [
        ("all", "downstream alone"),
        ("all, fine-tuning", "all"),
    ]
    kept = [v.estimator.fine_tune is not None for v in variants]
    assert kept == [False, False, False, False, True]
    untuned, _ = variants_of(stack(HELPS, NOISE, kind=TunedStack), X)
    assert len(untuned) == 4


@pytest.mark.parametrize(("own", "off"), [("mse", "mse"), (None, "auto")])
def test_the_teachers_loss_is_switched_off_and_on(own, off):
    downstream = make_pipeline(StandardScaler(), Taught(TeacherLoss("helps", own)))
    variants, _ = variants_of(stack(HELPS, NOISE, downstream=downstream), X)
    assert [v.name for v in variants][3:] == ["all", "all, TeacherLoss"]
    losses = [v.estimator.downstream[-1].loss for v in variants]
    assert losses[:4] == [off] * 4
    assert losses[4].teacher == "helps"


def test_tuning_and_teacher_are_switched_on_one_by_one_and_together():
    downstream = Taught(TeacherLoss("helps"))
    variants, _ = variants_of(stack(HELPS, kind=TunedStack, downstream=downstream, fine_tune=1), X)
    switched = [
        (v.name, v.estimator.fine_tune, hasattr(v.estimator.downstream.loss, "teacher"))
        for v in variants
    ]
    assert switched == [
        ("downstream alone", None, False),
        ("with helps", None, False),
        ("with helps, fine-tuning", 1, False),
        ("with helps, TeacherLoss", None, True),
        ("with helps, fine-tuning, TeacherLoss", 1, True),
    ]


def test_the_gain_of_a_teacher_is_compared_with_all_branches():
    taught = stack(HELPS, downstream=Taught(TeacherLoss("helps")))
    gain = stacking_gain(taught, X, y, cv=RepeatedKFold(n_repeats=3, random_state=0))
    row = gain.table.set_index("variant").loc["with helps, TeacherLoss"]
    assert row["against"] == "with helps"
    assert row["verdict"] == "beyond noise"
    assert gain.table["verdict"][1] == "within noise"
    assert "TeacherLoss changes R2 by +" in gain.summary
    assert " against the stack with helps (95 % interval" in gain.summary


CHANCE = np.array([-0.1, -0.05, 0.0, 0.05, 0.1])
LUCKY = 0.17 + CHANCE


# What is found -----------------------------------------------------------------------------------


def test_an_informative_branch_is_beyond_noise():
    gain = stacking_gain(stack(HELPS, NOISE), X, y, RepeatedKFold(n_repeats=2, random_state=0))
    verdicts = dict(zip(gain.table["variant"], gain.table["verdict"], strict=True))
    assert verdicts["with helps"] == verdicts["all"] == "beyond noise"
    assert verdicts["with noise"] == "within noise"
    first, with_helps, with_noise = gain.summary.split("\n")
    assert first.startswith("All branches together change R2 by +0.")
    assert first.endswith(
        "larger than its noise on these 10 folds (p < 0.001 after Holm's correction for 3 "
        "comparisons)."
    )
    assert with_helps.startswith("helps by itself changes R2 by +0.")
    assert with_noise.endswith("no larger than its noise on these 10 folds.")
    assert "do not distinguish it from zero, not that it is zero" in repr(gain)


def test_uninformative_branches_are_within_noise():
    gain = stacking_gain(stack(NOISE, OTHER), X, y, cv=5, scoring="neg_mean_squared_error")
    assert set(gain.comparisons["verdict"]) == {"within noise"}
    assert (gain.comparisons["low"] < 0).all()
    assert gain.summary.count("no larger than its noise on these 5 folds.") == 3
    assert gain.summary.count("larger than its noise") == 3


def test_a_difference_among_many_is_not_significant():
    """By itself p would be 0.033, and three comparisons were made."""
    planted = iter([*[0.0] * 5, *LUCKY, *CHANCE, *LUCKY])
    gain = stacking_gain(
        stack(HELPS, NOISE), X, y, cv=5, scoring=lambda estimator, X, y: next(planted)
    )
    np.testing.assert_allclose(gain.comparisons["p"], [0.0325, 1, 0.0325], atol=5e-4)
    np.testing.assert_allclose(gain.comparisons["p_holm"], [0.0974, 1, 0.0974], atol=15e-4)
    assert gain.comparisons["verdict"].tolist() == [
        "beyond noise only by itself", "within noise", "beyond noise only by itself"
    ]  # fmt: skip
    sentence = gain.summary.split("\n")[0]
    assert "by +0.17 against the downstream alone (95 % interval +0.02 to +0.32)" in sentence
    assert sentence.endswith(
        "larger than its noise if it were the only comparison (p = 0.033), but not among several "
        "(p = 0.10 after Holm's correction for 3 comparisons)."
    )


def test_equal_differences_on_every_fold_are_not_tested():
    def counts(estimator, X, y):
        return float(len(estimator[-1].upstream_))

    gain = stacking_gain(make_pipeline(StandardScaler(), stack(HELPS)), X, y, 3, counts)
    assert gain.metric == "counts"
    assert gain.table["verdict"][1] == "not tested"
    assert gain.summary == (
        "helps changes counts by +1.0 against the downstream alone on each of 3 folds: "
        "without variance it cannot be tested."
    )


def test_scores_are_those_of_cross_validation_on_the_same_folds():
    given = stack(HELPS, NOISE)
    gain = stacking_gain(given, X, y, cv=4, scoring="neg_mean_absolute_error")
    for name, estimator in {
        "all": given,
        "with noise": stack(NOISE),
        "downstream alone": LinearRegression(),
    }.items():
        expected = cross_val_score(estimator, X, y, cv=4, scoring="neg_mean_absolute_error")
        np.testing.assert_allclose(gain.scores[name], expected, rtol=1e-4)
    means = gain.scores.mean()
    np.testing.assert_allclose(gain.table["mean"], means)
    np.testing.assert_allclose(gain.table["sd"], gain.scores.std(ddof=1))
    np.testing.assert_allclose(gain.comparisons["difference"], (means - means.iloc[0]).iloc[1:])
    found = corrected_resampled_t_test(
        gain.scores["all"] - gain.scores["downstream alone"], [150] * 4, [50] * 4
    )
    np.testing.assert_allclose(gain.table.loc[3, ["low", "high", "p"]].astype(float), found[1:])
    assert gain.table["p_holm"][3] >= gain.table["p"][3]
    assert (gain.table["seconds"] > 0).all()


def test_a_negated_loss_as_a_scorer():
    scorer = make_scorer(mean_absolute_error, greater_is_better=False)
    gain = stacking_gain(stack(HELPS), X, y, cv=3, scoring=scorer)
    named = stacking_gain(stack(HELPS), X, y, cv=3, scoring="neg_mean_absolute_error")
    np.testing.assert_array_equal(gain.scores, named.scores)
    assert gain.table["difference"][1] > 0


def test_repeated_stratified_folds_and_classes():
    table, labels = make_classification(n_samples=150, random_state=0)
    model = stack(("bayes", GaussianNB()), kind=StackedKerasClassifier,
                  downstream=LogisticRegression())  # fmt: skip
    folds = RepeatedStratifiedKFold(n_splits=3, n_repeats=2, random_state=0)
    gain = stacking_gain(model, table, labels, folds, "average_precision")
    assert gain.scores.shape == (6, 2)
    with parallel_config("threading"):
        parallel = stacking_gain(model, table, labels, folds, "average_precision", n_jobs=2)
    pd.testing.assert_frame_equal(gain.scores, parallel.scores)


# Nothing but the parts differs ----------------------------------------------------------------


LOG = []


class Spy(RegressorMixin, BaseEstimator):
    """Writes down who it is, its seed and its rows, known by the first column."""

    def __init__(self, name="spy", random_state=None):
        self.name = name
        self.random_state = random_state

    def fit(self, X, y, groups=None):
        LOG.append((self.name, self.random_state, tuple(np.sort(np.asarray(y)))))
        return self

    def predict(self, X):
        return np.zeros(len(X))


def spied(random_state, cv, **options):
    LOG.clear()
    model = stack(
        ("a", Spy("a")), ("b", Spy("b")), downstream=Spy("last"), random_state=random_state
    )
    gain = stacking_gain(model, X, y, cv=cv, **options)
    return gain, list(LOG)


@pytest.mark.parametrize("random_state", [None, 3, np.random.RandomState(3)])
def test_all_variants_learn_from_the_same_rows_with_the_same_seeds(random_state):
    """Although the splitter draws other folds each time that it is asked."""
    cv = ShuffleSplit(4, test_size=0.25, random_state=np.random.RandomState(0))
    before = copy.deepcopy(cv.random_state.get_state())
    gain, log = spied(random_state, cv)
    last = [(seed, rows) for name, seed, rows in log if name == "last"]
    assert len(last) == 4 * 4
    assert last[:4] == last[4:8] == last[8:12] == last[12:]
    assert len({rows for _, rows in last}) == 4
    # Alone or beside the other, a branch has the same seed and the same folds.
    for name in "ab":
        fits = [entry[1:] for entry in log if entry[0] == name]
        assert fits[: len(fits) // 2] == fits[len(fits) // 2 :]
        assert {seed for seed, _ in fits}.isdisjoint({None})
    np.testing.assert_array_equal(cv.random_state.get_state()[1], before[1])
    assert (gain.seed is None) == (random_state is not None)
    if gain.seed is not None:
        assert f"all variants use {gain.seed}" in repr(gain)


def test_steps_before_the_stack_have_the_same_seeds_too():
    seeds = []

    class Reducer(PCA):
        def fit_transform(self, X, y=None):
            seeds.append(self.random_state)
            return super().fit_transform(X)

    pipeline = make_pipeline(Reducer(2), stack(("tree", TREE, [0])))
    stacking_gain(pipeline, X, y, cv=2)
    assert len(seeds) == 4
    assert len(set(seeds)) == 1
    assert seeds[0] is not None


def test_nothing_that_was_passed_is_changed():
    model = make_pipeline(StandardScaler(), stack(HELPS, NOISE, random_state=None))
    parts = {name: id(part) for name, part in model.get_params().items()}
    settings, table, target = repr(model), X.copy(), y.copy()
    stacking_gain(model, X, y, cv=2)
    assert {name: id(part) for name, part in model.get_params().items()} == parts
    assert repr(model) == settings
    assert not hasattr(model[-1], "downstream_")
    np.testing.assert_array_equal(X, table)
    np.testing.assert_array_equal(y, target)


def test_groups_reach_the_outer_folds_and_the_stack():
    groups = np.arange(200) % 50
    for routing, cv in ((False, 4), (True, GroupKFold(4))):
        with config_context(enable_metadata_routing=routing):
            seen = []

            class Branch(LinearRegression):
                def fit(self, X, y):
                    seen.append({*X[:, 0].astype(int)})  # noqa: B023
                    return super().fit(X, y)

            numbered = np.column_stack([groups, X])
            model = stack(("branch", Branch()))
            gain = stacking_gain(model, numbered, y, cv=cv, params={"groups": groups})
            assert len(gain.scores) == 4
            inner = [known for known in seen if len(known) < 35]
            assert len(inner) == 4 * 3  # folds of whole groups: 25 of 37 or 38 to learn from
            assert all(len(known) in (24, 25, 26) for known in inner)


def test_folds_that_split_groups_are_refused():
    with pytest.raises(ValueError, match="puts rows of one group into training and test rows"):
        stacking_gain(stack(HELPS), X, y, KFold(3), params={"groups": np.arange(200) % 7})


def test_folds_in_order_of_time_need_not_cover_all_rows():
    gain = stacking_gain(stack(HELPS), X, y, cv=TimeSeriesSplit(3))
    assert len(gain.scores) == 3


def test_networks_are_compared_too():
    table, labels = make_classification(n_samples=120, n_features=6, random_state=0)
    network = KerasClassifier(MLP((4,)), epochs=2, batch_size=64)
    model = StackedKerasClassifier([("risk", network)], downstream=network, cv=2)
    gain = stacking_gain(model, table, labels, cv=2, scoring="roc_auc")
    again = stacking_gain(
        model.set_params(random_state=gain.seed), table, labels, cv=2, scoring="roc_auc"
    )
    pd.testing.assert_frame_equal(gain.scores, again.scores)


# Refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"estimator": LinearRegression()}, TypeError, "must be a StackedKerasClassifier"),
        ({"estimator": make_pipeline(StandardScaler())}, TypeError, "Pipeline that ends in one"),
        ({"estimator": GridSearchCV(stack(HELPS), {})}, TypeError, "must be a StackedKeras"),
        ({"estimator": stack(("gone", "drop"))}, ValueError, "has no branches"),
        ({"cv": ShuffleSplit(1)}, ValueError, "yields 1 fold"),
        ({"cv": [(np.arange(100), np.arange(100, 200))]}, ValueError, "yields 1 fold"),
        ({"scoring": "accuracies"}, ValueError, "accuracies"),
        ({"scoring": ["r2", "neg_mean_squared_error"]}, ValueError, "must be one metric"),
        ({"scoring": {"r2": "r2"}}, ValueError, "must be one metric"),
        ({"X": X[:-1]}, ValueError, "inconsistent numbers of samples"),
        ({"X": X[:, :, None]}, ValueError, "no downstream alone to compare with"),
        ({"params": {"groups": np.arange(199)}}, ValueError, r"groups: .*inconsistent numbers"),
        ({"estimator": None}, TypeError, "estimator=None must be"),
        ({"estimator": "stack"}, TypeError, "estimator='stack' must be"),
    ],
)
def test_invalid_comparisons_are_refused_before_training(change, error, says):
    arguments = {"estimator": stack(("a", Spy("a"))), "X": X, "y": y, "cv": 2, "scoring": "r2"}
    LOG.clear()
    with pytest.raises(error, match=says) as raised:
        stacking_gain(**{**arguments, **change})
    assert LOG == []
    assert not hasattr(raised.value, "__notes__")  # no variant is to blame


def test_scores_that_are_not_finite_name_variant_and_fold():
    def sometimes(estimator, X, y):
        return np.nan if len(y) == 50 else 1.0

    folds = [(np.arange(100, 200), np.arange(60)), (np.arange(100), np.arange(150, 200))]
    with pytest.raises(
        ValueError, match=r"'sometimes' gives nan for the variant 'downstream alo.*1"
    ):
        stacking_gain(stack(HELPS), X, y, folds, sometimes)


class Broken(ClassifierMixin, BaseEstimator):
    def fit(self, X, y):
        raise RuntimeError("no")

    def predict(self, X):
        return X


def test_an_error_in_fit_names_the_variant():
    labels = (y > 1).astype(int)
    model = stack(("broken", Broken()), kind=StackedKerasClassifier,
                  downstream=LogisticRegression())  # fmt: skip
    with pytest.raises(RuntimeError) as raised:
        stacking_gain(model, X, labels, cv=2)
    assert raised.value.__notes__ == ["Raised by the variant 'with broken' of the stack."]


# What a person sees ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found():
    return stacking_gain(stack(("<b>", TREE, [0]), NOISE, OTHER), X, y, cv=5)


def test_repr_has_table_and_sentences(found):
    text = repr(found)
    assert text.startswith("Stacking gain of StackedKerasRegressor: R2 (greater is better) on 5")
    assert found.summary in text
    for variant in found.table["variant"]:
        assert f"{variant} " in text
    assert "nan" not in text.lower()
    assert "p_holm is corrected for the 7 comparisons" in text


@pytest.mark.parametrize(("verbose", "wait"), [(1, 9), ("auto", 0), ("auto", 9), (0, 0)])
def test_progress_is_counted_in_variants(verbose, wait, capsys, monkeypatch):
    monkeypatch.setattr(progress, "_SILENT_SECONDS", wait)
    stacking_gain(stack(HELPS, NOISE), X, y, cv=2, verbose=verbose)
    out, err = capsys.readouterr()
    shown = verbose == 1 or (verbose == "auto" and wait == 0)
    counts = [f"[stacking_gain] {number} of 4 steps in 0 s" for number in (1, 2, 3, 4)]
    assert [re.sub(r"\d+ s$", "0 s", line) for line in err.splitlines()] == counts * shown
    assert not out


def test_html_is_well_formed_and_escaped(found):
    class Reader(HTMLParser):
        cells, open_tags = 0, ()

        def handle_starttag(self, tag, attrs):
            self.open_tags = (*self.open_tags, tag)
            self.cells += tag == "td"

        def handle_endtag(self, tag):
            assert self.open_tags[-1] == tag
            self.open_tags = self.open_tags[:-1]

    reader = Reader()
    reader.feed(found._repr_html_())
    assert reader.open_tags == ()
    assert reader.cells == found.table.size
    assert "<td>with &lt;b&gt;</td>" in found._repr_html_()
    assert "<p>&lt;b&gt; by itself changes R2" in found._repr_html_()


def test_the_plot_shows_each_difference_and_its_interval(found):
    given = plt.subplots()[1]
    display = found.plot(ax=given)
    ax = display.ax_
    assert ax is given
    assert display.figure_ is given.figure
    rows = found.comparisons
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert labels[0] == "with <b>\nagainst downstream alone"
    assert labels[-1] == "without other\nagainst all"
    points, intervals = {}, {}
    for container in ax.containers:
        line, _, (bars,) = container.lines
        points |= dict(zip(line.get_ydata(), line.get_xdata(), strict=True))
        intervals |= {ends[0, 1]: tuple(ends[:, 0]) for ends in bars.get_segments()}
    np.testing.assert_allclose([points[i] for i in range(7)], rows["difference"])
    np.testing.assert_allclose([intervals[i] for i in range(7)], rows[["low", "high"]])
    assert {tuple(line.get_xdata()) for line in ax.lines} >= {(0, 0)}
    shown = {text.get_text() for text in ax.get_legend().get_texts()}
    assert shown == set(rows["verdict"])
    plt.close("all")


def test_the_line_at_zero_is_seen_on_a_dark_background(found):
    with plt.style.context("dark_background"):
        ax = found.plot().ax_
        (zero,) = [line for line in ax.lines if tuple(line.get_xdata()) == (0, 0)]
        assert to_rgb(zero.get_color()) == to_rgb(ax.xaxis.label.get_color()) == (1, 1, 1)
    plt.close("all")


def test_the_display_is_drawn_from_an_estimator_too():
    display = StackingGainDisplay.from_estimator(stack(HELPS), X, y, cv=3, scoring="r2")
    gain = stacking_gain(stack(HELPS), X, y, cv=3, scoring="r2")
    assert display.labels == ["with helps\nagainst downstream alone"]
    np.testing.assert_array_equal(display.differences, gain.comparisons["difference"])
    assert display.metric == "r2"
    assert display.n_folds == 3
    assert display.figure_ is display.ax_.figure
    ax = plt.subplots()[1]
    assert display.plot(ax=ax) is display
    assert display.ax_ is ax
    plt.close("all")


def test_untested_differences_are_drawn_without_an_interval():
    display = StackingGainDisplay(
        labels=["a", "b"], differences=[0.1, 0.2], low=[np.nan, 0.1], high=[np.nan, 0.3],
        verdicts=["not tested", "beyond noise"], metric="r2", n_folds=3,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ax = display.plot().ax_
        ax.figure.canvas.draw()
    drawn = {container.get_label(): container.lines for container in ax.containers}
    (ends,) = drawn["not tested"][2][0].get_segments()
    np.testing.assert_allclose(ends[:, 0], 0.1)
    plt.close("all")


def test_a_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    display = StackingGainDisplay(
        labels=[], differences=[], low=[], high=[], verdicts=[], metric="r2", n_folds=2
    )
    with pytest.raises(ImportError, match=re.escape('pip install "skstack[plot]"')):
        display.plot()
