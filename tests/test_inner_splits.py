"""Groups and the order of time inside an upstream, where something else splits the rows."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import make_pipeline as make_imblearn_pipeline
from imblearn.under_sampling import RandomUnderSampler
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    ShuffleSplit,
    StratifiedGroupKFold,
    TimeSeriesSplit,
    TunedThresholdClassifierCV,
)
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler, TargetEncoder

from skstack import KerasClassifier, KerasFeatureTransformer, StackedKerasClassifier
from skstack._splits.row_context import RowContext, pass_context
from skstack.networks import MLP

GLOBAL_STATE = np.random.get_state

N = 90
rng = np.random.default_rng(0)
X = np.column_stack([rng.normal(size=(N, 2)), rng.integers(0, 6, N)])
Y = rng.integers(0, 2, N)
GROUPS = rng.integers(0, 12, N)


def search(cv=3):
    return GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=cv)


def stack_of(upstream, **options):
    options = {"downstream": LogisticRegression(), "random_state": 0, **options}
    return StackedKerasClassifier([("up", upstream)], **options)


# What scikit-learn's estimators split --------------------------------------------------------


def test_folds_of_a_search_keep_groups_together_and_the_search_is_unchanged():
    own = search()
    fitted = KerasFeatureTransformer(own, cv=3).fit(X, Y, groups=GROUPS)
    expected = list(StratifiedGroupKFold(3).split(X, Y, GROUPS))
    for (train, test), (train_expected, test_expected) in zip(
        fitted.estimator_.cv, expected, strict=True
    ):
        np.testing.assert_array_equal(train, train_expected)
        np.testing.assert_array_equal(test, test_expected)
    assert own.cv == 3
    assert KerasFeatureTransformer(own, cv=3).fit(X, Y).estimator_.cv == 3


def test_folds_of_a_search_keep_the_gap_and_the_largest_number_of_training_rows():
    outer = TimeSeriesSplit(3, gap=4, max_train_size=20)
    with pytest.warns(UserWarning, match="never predicts"):
        fitted = stack_of(search(2), cv=outer, blend=False).fit(X, Y)
    found = fitted.named_upstream_.up.estimator_.cv
    assert (found.n_splits, found.gap, found.max_train_size) == (3, 4, 20)


def test_a_splitter_that_splits_groups_is_refused_and_another_kept():
    with pytest.raises(ValueError, match=r"cv of the inner GridSearchCV.*rows of one group"):
        KerasFeatureTransformer(search(ShuffleSplit(3)), cv=3).fit(X, Y, groups=GROUPS)
    kept = KerasFeatureTransformer(search(GroupKFold(2)), cv=3).fit(X, Y, groups=GROUPS)
    for train, test in kept.estimator_.cv:
        assert not np.intersect1d(GROUPS[train], GROUPS[test]).size


def test_cv_none_stays_where_it_is_not_a_number_of_folds():
    fitted = KerasFeatureTransformer(RidgeClassifierCV(), cv=3).fit(X, Y, groups=GROUPS)
    assert fitted.estimator_.cv is None


@pytest.mark.slow(first=3)
@pytest.mark.parametrize("kind", ["plain", "groups", "time"])
@pytest.mark.parametrize("around", ["itself", "calibration", "pipeline"])
def test_a_share_of_rows_is_held_out_in_groups_or_last(kind, around):
    tuned = TunedThresholdClassifierCV(LogisticRegression(), cv=0.3, random_state=0)
    model = {
        "itself": tuned,
        "calibration": CalibratedClassifierCV(tuned, cv=2),
        "pipeline": make_pipeline(StandardScaler(), tuned),
    }[around]
    cv = TimeSeriesSplit(3) if kind == "time" else 3
    settings = {"groups": GROUPS} if kind == "groups" else {}
    stack = stack_of(model, cv=cv, blend=False)
    if kind != "plain" and around == "calibration":
        with pytest.raises(ValueError, match="TunedThresholdClassifierCV cannot respect this"):
            stack.fit(X, Y, **settings)
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "cv=TimeSeriesSplit")
        fitted = stack.fit(X, Y, **settings).named_upstream_.up.estimator_
    if kind == "plain":
        assert around == "calibration" or fitted.cv == 0.3
        return
    ((train, test),) = fitted.cv
    assert 15 < len(test) < 40
    if kind == "time":
        assert train.max() < test.min()
    else:
        assert not np.intersect1d(GROUPS[train], GROUPS[test]).size
    assert tuned.cv == 0.3


def test_a_share_of_rows_that_leaves_too_few_groups_is_refused():
    tuned = TunedThresholdClassifierCV(LogisticRegression(), cv=0.3)
    groups = np.arange(N) // 30
    with pytest.raises(ValueError, match=r"inner TunedThresholdClassifierCV has cv=0\.3"):
        KerasFeatureTransformer(tuned, cv=3).fit(X, np.repeat([0, 1, 0], 30), groups=groups)


def test_time_order_reaches_a_search_or_is_refused():
    with pytest.warns(UserWarning, match="never predicts"):
        stack = stack_of(search(), cv=TimeSeriesSplit(4)).fit(X, Y)
    assert stack.named_upstream_.up.estimator_.cv.get_n_splits() == 4
    refused = [
        search(KFold(3)),
        StackingClassifier([("a", LogisticRegression())]),
        CalibratedClassifierCV(LogisticRegression(), ensemble=False),
        make_pipeline(TargetEncoder(), LogisticRegression()),
    ]
    for upstream in refused:
        with pytest.raises(ValueError, match="the rows are ordered in time, but the inner"):
            stack_of(upstream, cv=TimeSeriesSplit(4)).fit(X, Y)


@pytest.mark.parametrize("context", ["groups", "time"])
def test_a_vote_respects_the_context_and_row_selectors_are_refused(context):
    options = {"groups": GROUPS} if context == "groups" else {}
    cv = 3 if context == "groups" else TimeSeriesSplit(3)
    vote = VotingClassifier([("a", search()), ("b", LogisticRegression())], voting="soft")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*never predicts")
        fitted = stack_of(vote, cv=cv).fit(X, Y, **options)
    inner = fitted.named_upstream_.up.estimator_.estimators_[0].cv
    if context == "time":
        assert isinstance(inner, TimeSeriesSplit)
    else:
        assert not any(np.intersect1d(GROUPS[a], GROUPS[b]).size for a, b in inner)
    for upstream in (
        BaggingClassifier(search(), n_estimators=2),
        GridSearchCV(make_pipeline(StandardScaler(), search()), {}, cv=3),
        GridSearchCV(make_pipeline(TargetEncoder(), LogisticRegression()), {}, cv=3),
    ):
        with pytest.raises(ValueError, match=r"inner (GridSearchCV|TargetEncoder) cannot respect"):
            stack_of(upstream, cv=cv).fit(X, Y, **options)


def test_indices_of_other_rows_are_refused():
    folds = list(KFold(3).split(X))
    for inner in (search(folds), stack_of(LogisticRegression(), cv=folds)):
        with pytest.raises(ValueError, match="list of row numbers"):
            KerasFeatureTransformer(inner, cv=3).fit_transform(X, Y)
        KerasFeatureTransformer(inner, cv=3).fit(X, Y)  # on all rows they mean what they say


def test_a_target_encoder_among_steps_is_reproducible_without_global_state():
    before = GLOBAL_STATE()
    steps = make_pipeline(TargetEncoder(), LogisticRegression())
    crossed = KerasFeatureTransformer(steps, cv=3, random_state=0)
    np.testing.assert_array_equal(crossed.fit_transform(X, Y), crossed.fit_transform(X, Y))
    assert GLOBAL_STATE()[2] == before[2]
    np.testing.assert_array_equal(GLOBAL_STATE()[1], before[1])
    assert steps[0].cv == 5


# What networks and stacks of ours set aside ---------------------------------------------------


@pytest.fixture
def held_out(monkeypatch):
    """(groups, ordered, training rows, rows set aside) of each network that was fitted."""
    from skstack._estimators import base

    found, split = [], base.hold_out

    def spy(y, *, groups, ordered, **options):
        train, rest = split(y, groups=groups, ordered=ordered, **options)
        found.append((groups, ordered, train, rest))
        return train, rest

    monkeypatch.setattr(base, "hold_out", spy)
    return found


def network():
    return KerasClassifier(MLP((2,)), epochs=1, early_stopping=True)


AROUND = {
    "itself": lambda part: part,
    "Pipeline": lambda part: make_pipeline(StandardScaler(), make_pipeline(part)),
    "step": lambda part: make_pipeline(
        make_union(KerasFeatureTransformer(part, passes_y=True), FunctionTransformer()),
        LogisticRegression(),
    ),
    "transformer": lambda part: KerasFeatureTransformer(KerasFeatureTransformer(part)),
}


@pytest.mark.parametrize("around", AROUND)
def test_networks_at_any_depth_hold_out_whole_groups(around, held_out):
    part = AROUND[around](network())
    KerasFeatureTransformer(part, cv=2, random_state=0).fit_transform(X, Y, groups=GROUPS)
    assert len(held_out) >= 3
    for groups, _, train, rest in held_out:
        assert not np.intersect1d(groups[train], groups[rest]).size


@pytest.mark.parametrize("around", ["itself", "Pipeline", "transformer"])
def test_networks_at_any_depth_hold_out_the_last_rows(around, held_out):
    with pytest.warns(UserWarning, match="never predicts"):
        stack_of(AROUND[around](network()), cv=TimeSeriesSplit(2)).fit(X, Y)
    assert len(held_out) == 3
    assert all(ordered and train.max() < rest.min() for _, ordered, train, rest in held_out)


def test_a_sampler_before_a_model_that_holds_out_rows_is_refused():
    sampled = make_imblearn_pipeline(RandomUnderSampler(random_state=0), network())
    for upstream in (sampled, make_pipeline(StandardScaler(), sampled)):
        with pytest.raises(ValueError, match="a sampler before it changes the rows"):
            KerasFeatureTransformer(upstream, cv=3).fit_transform(X, Y, groups=GROUPS)
    with pytest.raises(ValueError, match="the sampler changes the rows"):
        stack_of(
            LogisticRegression(),
            downstream=stack_of(LogisticRegression()),
            sampler=RandomUnderSampler(random_state=0),
        ).fit(X, Y, groups=GROUPS)


def test_a_row_context_is_used_once():
    inner = stack_of(LogisticRegression())
    pass_context(inner, RowContext(GROUPS), X, Y)
    inner.fit(X, Y)
    assert not hasattr(inner, "_row_context")
    inner.fit(X[:50], Y[:50])  # other rows, without groups


def test_weights_are_resampled_with_the_rows_of_a_branch():
    weights = rng.uniform(0.5, 2, N)
    sampler, folds = RandomUnderSampler(random_state=0), list(KFold(3).split(X))
    branch = make_imblearn_pipeline(sampler, LogisticRegression())
    found = KerasFeatureTransformer(branch, cv=folds).fit_transform(X, Y, sample_weight=weights)
    for train, test in folds:
        rows, labels = sampler.fit_resample(X[train], Y[train])
        kept = weights[train][sampler.sample_indices_]
        expected = LogisticRegression().fit(rows, labels, sample_weight=kept).predict_proba(X[test])
        np.testing.assert_allclose(found[test, 0], expected[:, 1], rtol=1e-6)
    with pytest.raises(ValueError, match="new rows have no weight"):
        KerasFeatureTransformer(make_imblearn_pipeline(SMOTE(), LogisticRegression())).fit(
            X, Y, sample_weight=weights
        )


def test_early_stopping_never_monitors_synthetic_rows(held_out):
    for part in (network(), MLPClassifier(early_stopping=True)):
        branch = make_imblearn_pipeline(RandomUnderSampler(random_state=0), part)
        with pytest.raises(ValueError, match="after a sampler would monitor"):
            KerasFeatureTransformer(branch, cv=3).fit_transform(X, Y)
    assert not held_out
    boosting = HistGradientBoostingClassifier(
        max_iter=2, early_stopping=True, validation_fraction=None
    )
    branch = make_imblearn_pipeline(RandomUnderSampler(random_state=0), boosting)
    assert len(KerasFeatureTransformer(branch, cv=3).fit_transform(X, Y)) == len(X)


def test_two_samplers_and_an_uncorrected_one_are_refused():
    downstream = make_imblearn_pipeline(RandomUnderSampler(random_state=0), LogisticRegression())
    stack = stack_of(LogisticRegression(), downstream=downstream)
    with pytest.raises(ValueError, match="rows would be resampled twice"):
        stack.set_params(sampler=RandomUnderSampler()).fit(X, Y)
    with pytest.raises(ValueError, match=r"only sampler=.* of the stack would be corrected"):
        stack.set_params(sampler=None, prior_correction=True).fit(X, Y)
    stack.set_params(prior_correction=False).fit(X, Y)


def test_a_branch_resamples_polars_frames():
    branch = make_imblearn_pipeline(RandomUnderSampler(random_state=0), LogisticRegression())
    names = ["a", "b", "c"]
    frames = [pd.DataFrame(X, columns=names), pl.DataFrame(X, schema=names)]
    tables = [KerasFeatureTransformer(branch, cv=3).fit_transform(frame, Y) for frame in frames]
    np.testing.assert_array_equal(*tables)


def test_categories_of_later_rows_do_not_affect_earlier_features():
    words = np.array(["m", "n", "o"])[rng.integers(0, 3, N)]
    later = words.copy()
    later[60:] = np.array(["a", "b", "m"])[rng.integers(0, 3, 30)]
    tables = []
    for column in (words, later):
        frame = pd.DataFrame({"number": X[:, 0], "word": column})
        stack = stack_of(KerasClassifier(MLP((2,)), epochs=1), cv=TimeSeriesSplit(2))
        with pytest.warns(UserWarning, match="never predicts"):
            tables.append(stack.set_params(passthrough=False).fit_transform(frame, Y)[:60])
    np.testing.assert_array_equal(*tables)
