"""Clause 6: nobody learns from later rows, nor from the group of a row that it is asked about."""

import warnings

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.impute import SimpleImputer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    StratifiedGroupKFold,
    TimeSeriesSplit,
)
from sklearn.multioutput import ClassifierChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer, StandardScaler

from skstack import KerasFeatureTransformer, StackedKerasClassifier

from .parts import (
    BETWEEN,
    LOG,
    NESTED,
    PREDICTORS,
    SELECTOR,
    STRICT,
    SUPERVISED,
    TREE,
    UNSUPERVISED,
    Keeper,
    LooksAtRows,
    NeedsLabels,
    RecordingDownstream,
    bare_stack,
    clear_log,
    inner,
    numbered,
    ours,
    plain_stack,
    slow_if,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:(?s).*(correlat|passes_y=False):UserWarning"),
    pytest.mark.filterwarnings("ignore:(?s).*time-ordered and never predicts:UserWarning"),
]

ORDER = TimeSeriesSplit(2)
N = 80
BLOCKS = [test for _, test in ORDER.split(np.zeros(N))]


@pytest.fixture(autouse=True)
def empty_log():
    clear_log()


# Change the future: the past stays -------------------------------------------------------------


def series():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 4)).cumsum(axis=0) + 20
    y = (rng.random(N) < 0.5).astype(int)
    return np.column_stack([X, rng.integers(0, 5, N)]), y


def another_future(X, y, end):
    X, y = X.copy(), y.copy()
    X[end:] *= 50
    y[end:] = 1 - y[end:]
    return X, y


def check_past(stack, X, y):
    before = np.asarray(clone(stack).fit_transform(X, y))
    end = BLOCKS[0].max() + 1
    after = np.asarray(clone(stack).fit_transform(*another_future(X, y, end)))
    np.testing.assert_array_equal(after[:end], before[:end])
    return before


DEEP = {
    "stack": plain_stack(PCA(1)),
    "stack on a scaler": plain_stack(make_pipeline(StandardScaler(), PCA(1)), blend=False),
    "stack in a stack": plain_stack(plain_stack(PCA(1), blend=False), blend=False),
    "stack at the end of a Pipeline": make_pipeline(StandardScaler(), plain_stack(blend=False)),
    "transformer": KerasFeatureTransformer(PCA(1)),
    "transformer of a transformer": KerasFeatureTransformer(KerasFeatureTransformer(PCA(1))),
    "Pipeline that ends in ours": make_pipeline(StandardScaler(), KerasFeatureTransformer(PCA(1))),
}
OTHERS = {
    "KMeans": KMeans(2, n_init=1, random_state=0),
    "outliers": IsolationForest(n_estimators=3, random_state=0),
    "a user's own": LooksAtRows(),
    "scaler before a tree": make_pipeline(StandardScaler(), TREE),
    "bins before a tree": make_pipeline(KBinsDiscretizer(3, encode="ordinal",
                                                         strategy="uniform"), TREE),
    "selector before PCA": make_pipeline(SELECTOR, PCA(1)),
    "labels before PCA": make_pipeline(NeedsLabels(), PCA(1)),
}  # fmt: skip
UNFROZEN = {kind: part for kind, part in UNSUPERVISED.items() if kind not in ("frozen", "ours")}
SOME_PREDICTORS = ("tree", "imblearn, over", "stack", "stack in a stack")


@pytest.mark.parametrize(
    "part",
    [
        slow_if(part is PREDICTORS[NESTED], part, id=kind)
        for kinds in (
            UNFROZEN,
            DEEP,
            OTHERS,
            {kind: SUPERVISED[kind] for kind in ("SelectKBest", "TargetEncoder", "fit(X, y)")},
            {kind: PREDICTORS[kind] for kind in SOME_PREDICTORS},
        )
        for kind, part in kinds.items()
    ],
)
def test_later_rows_do_not_affect_features_of_earlier_rows(part):
    X, y = series()
    before = check_past(bare_stack(part, ORDER), X, y)
    assert np.isfinite(before[BLOCKS[0].min() :]).all()


CROSS_FITTING = {
    "ours before PCA": make_pipeline(KerasFeatureTransformer(TREE, cv=3), PCA(1)),
    "encoder before a tree": make_pipeline(SUPERVISED["TargetEncoder"], TREE),
    "encoder among columns": SUPERVISED["TargetEncoder among columns"],
    **{kind: PREDICTORS[kind] for kind in ("StackingClassifier", "calibrated", "GridSearchCV")},
}


@pytest.mark.parametrize("kind", CROSS_FITTING)
def test_parts_that_cross_fit_inside_respect_time_or_are_refused(kind):
    X, y = series()
    stack = bare_stack(CROSS_FITTING[kind], ORDER)
    if not refused(lambda: stack.fit(X, y), "time"):
        check_past(stack, X, y)


def test_chains_that_cross_fit_inside_are_refused():
    """As they predict all rows for the next target; without cv they split none."""
    X, y = series()
    both = np.column_stack([y, np.arange(N) % 2])
    stack = bare_stack(ClassifierChain(TREE, cv=3), ORDER, downstream=TREE)
    with pytest.raises(ValueError, match="ordered in time, but the inner ClassifierChain predicts"):
        stack.fit(X, both)
    assert stack.set_params(part=ClassifierChain(TREE)).fit(X, both).predict(X).shape == (N, 2)


@pytest.mark.parametrize("scaler", ["standard", StandardScaler()])
@pytest.mark.parametrize("passthrough", [False, True])
def test_the_table_of_an_ordered_stack_is_not_scaled(scaler, passthrough):
    X, y = series()
    stack = bare_stack(PCA(1), ORDER, passthrough=passthrough, scaler=scaler)
    table = check_past(stack, X, y)
    np.testing.assert_array_equal(table, clone(stack).set_params(scaler=None).fit_transform(X, y))


def test_later_rows_do_not_affect_imputed_values_of_earlier_rows():
    X, y = series()
    X[::7, 0] = np.nan
    for last in ([], [PCA(1)], [TREE]):
        check_past(bare_stack(make_pipeline(SimpleImputer(), *last), ORDER), X, y)


def test_several_branches_with_columns_of_their_own():
    X, y = series()
    stack = StackedKerasClassifier(
        [("axes", PCA(1), [0, 1]), ("tree", TREE, [2, 3]), ("scaled", StandardScaler(), [0])],
        downstream=Keeper(), passthrough=[4], cv=ORDER, random_state=0,
    )  # fmt: skip
    check_past(stack, X, y)


@pytest.mark.parametrize("as_pairs", [False, True])
def test_a_latent_of_an_ordered_fit_is_learned_from_earlier_rows(as_pairs):
    """Closed form: fit on the training rows of each block, transform the block."""
    X, y = series()
    cv = list(ORDER.split(X)) if as_pairs else ORDER
    part = make_pipeline(StandardScaler(), PCA(2))
    table = bare_stack(part, cv).fit_transform(X, y)
    assert np.isnan(table[: BLOCKS[0].min()]).all()
    for train, test in ORDER.split(X):
        expected = clone(part).fit(X[train]).transform(X[test]).astype(np.float32)
        np.testing.assert_array_equal(table[test], expected)


def test_new_rows_of_an_ordered_stack_get_the_features_of_all_rows():
    X, y = series()
    stack = bare_stack(PCA(2), ORDER).fit(X, y)
    np.testing.assert_allclose(stack.transform(X), PCA(2).fit_transform(X), rtol=1e-4, atol=1e-4)


def test_rows_without_features_do_not_reach_the_downstream():
    X, y = series()
    stack = bare_stack(PCA(1), ORDER).fit(X, y)
    assert len(stack.downstream_.X_) == N - BLOCKS[0].min()
    assert np.isfinite(stack.downstream_.X_).all()


@pytest.mark.parametrize("part", [FunctionTransformer(np.tanh), UNSUPERVISED["frozen"]])
def test_parts_that_learn_nothing_do_not_depend_on_later_rows(part):
    X, y = series()
    check_past(bare_stack(part, ORDER), X, y)


def test_the_reference_check_can_fail():
    X, y = series()
    with pytest.raises(AssertionError, match="not equal"):
        check_past(make_pipeline(StandardScaler(), PCA(1)), X, y)


# Those who write down what they learn from -----------------------------------------------------


def search(cv):
    return GridSearchCV(inner(), {"passthrough": [True]}, cv=cv)


BETWEEN_IN_TIME = {**BETWEEN, "search": search(TimeSeriesSplit(2))}
BETWEEN_IN_GROUPS = {**BETWEEN, "search": search(GroupKFold(2))}


def check_time():
    """Each row is asked of parts that know earlier rows only."""
    # The downstream of an inner stack has not learned from the first rows; they are no secret.
    questions = [question for question in LOG.questions if "downstream" not in question.who]
    later = [
        f"{question.who} knows row {question.rows.max()} and is asked about {question.asked.min()}"
        for question in questions
        if question.rows.max() > question.asked.min()
    ]
    assert questions
    assert later[:3] == []


def check_groups(groups):
    """Each row is asked of parts that know no row of its group."""
    crossing = [
        f"{question.who} knows {len(known)} of the groups that it is asked about"
        for question in LOG.questions
        if len(known := np.intersect1d(groups[question.rows], groups[question.asked]))
    ]
    assert LOG.questions
    assert crossing[:3] == []


def refused(fit, word):
    """Whether a fit is refused before anybody has learned, in words that say why."""
    try:
        fit()
    except (ValueError, TypeError) as error:
        message = str(error)
    else:
        return False
    assert word in message
    assert not LOG.fits
    return True


def outer(part, cv=3, **options):
    return inner(part, cv=cv, downstream=RecordingDownstream("outer downstream"), **options)


@pytest.mark.parametrize("kind", STRICT)
def test_time_reaches_every_depth(kind):
    X, y = numbered()
    outer(STRICT[kind], TimeSeriesSplit(2)).fit(X, y)
    check_time()


@pytest.mark.parametrize("kind", BETWEEN_IN_TIME)
def test_time_reaches_parts_inside_other_estimators_or_is_refused(kind):
    X, y = numbered()
    if not refused(lambda: outer(BETWEEN_IN_TIME[kind], ORDER).fit(X, y), "time"):
        check_time()


@pytest.mark.parametrize("own", [KFold(3), KFold(3, shuffle=True, random_state=0)])
@pytest.mark.parametrize("deep", [ours, inner, lambda cv: inner(ours(cv=cv)), lambda cv: ours(
    inner(cv=cv)), lambda cv: make_pipeline(StandardScaler(), inner(cv=cv))])  # fmt: skip
def test_own_folds_without_time_order_are_refused(deep, own):
    X, y = numbered()
    with pytest.raises(ValueError, match="time"):
        outer(deep(cv=own), ORDER).fit(X, y)
    assert not LOG.fits


MANY_GROUPS = np.random.default_rng(0).permutation(np.repeat(np.arange(20), 4))
GROUPS = MANY_GROUPS // 2

# Of scikit-learn's routing, one case for each way in which groups are handed on.
ROUTED = ("estimator", "stack of a transformer", "steps before ours", "stack as a step", "search")


def kinds_with_routing(kinds, routed=ROUTED):
    return pytest.mark.parametrize(
        ("kind", "routing"),
        [
            slow_if(kind == NESTED or (routing and kind not in routed), kind, routing,
                    id=f"{kind}-routing {'on' if routing else 'off'}")
            for kind in kinds
            for routing in (False, True)
        ],
    )  # fmt: skip


ORDERS = {
    "pairs": list(ORDER.split(np.zeros(N))),
    "test_size": TimeSeriesSplit(2, test_size=20),
    "gap": TimeSeriesSplit(3, gap=5),
    "max_train_size": TimeSeriesSplit(3, max_train_size=25),
}


@pytest.mark.parametrize(
    ("kind", "cv"),
    [
        slow_if(kind == NESTED and name != "gap", kind, cv, id=f"{kind}-{name}")
        for kind in ("stack", "transformer of a stack", NESTED)
        for name, cv in ORDERS.items()
    ],
)
def test_time_order_that_cannot_be_copied_is_passed_on_or_refused(kind, cv):
    X, y = numbered()
    if not refused(lambda: outer(STRICT[kind], cv).fit(X, y), "time"):
        check_time()


@pytest.mark.slow
def test_time_reaches_the_fourth_level():
    X, y = numbered()
    outer(inner(inner(inner())), TimeSeriesSplit(2)).fit(X, y)
    check_time()


@pytest.mark.slow
@pytest.mark.parametrize("blend", [False, "auto"])
def test_groups_reach_the_fourth_level(blend):
    X, y = numbered()
    options = {"cv": 2, "blend": blend}  # a blend of each level: three times as many fits
    outer(inner(inner(inner(**options), **options), cv=2), 2).fit(X, y, groups=MANY_GROUPS)
    check_groups(MANY_GROUPS)


@kinds_with_routing(STRICT)
def test_groups_reach_every_depth(kind, routing):
    X, y = numbered()
    with config_context(enable_metadata_routing=routing):
        outer(STRICT[kind]).fit(X, y, groups=GROUPS)
    check_groups(GROUPS)


@kinds_with_routing(BETWEEN_IN_GROUPS)
def test_groups_reach_parts_inside_other_estimators_or_are_refused(kind, routing):
    X, y = numbered()
    part, groups = BETWEEN_IN_GROUPS[kind], MANY_GROUPS if kind == "search" else GROUPS
    with config_context(enable_metadata_routing=routing):
        if not refused(lambda: outer(part).fit(X, y, groups=groups), "groups"):
            check_groups(groups)


@pytest.mark.parametrize("routing", [False, True])
def test_folds_that_request_no_groups_are_of_whole_groups(routing):
    X, y = numbered()
    part = CalibratedClassifierCV(RecordingDownstream("inside"), cv=2)
    with config_context(enable_metadata_routing=routing):
        outer(part, blend=False).fit(X, y, groups=GROUPS)
    check_groups(GROUPS)


@kinds_with_routing((*STRICT, *BETWEEN_IN_GROUPS), [each for each in ROUTED if each != "search"])
def test_groups_reach_every_depth_of_a_transformer(kind, routing):
    X, y = numbered()
    part = {**STRICT, **BETWEEN_IN_GROUPS}[kind]
    features = KerasFeatureTransformer(part, cv=3)
    with config_context(enable_metadata_routing=routing):
        if kind in STRICT:
            features.fit_transform(X, y, groups=GROUPS)
        elif refused(lambda: features.fit_transform(X, y, groups=GROUPS), "groups"):
            return
    check_groups(GROUPS)


@pytest.mark.slow(first=2)
@pytest.mark.parametrize("cv", [GroupKFold(2), StratifiedGroupKFold(2), LeaveOneGroupOut()])
def test_splitters_of_groups_at_two_depths(cv):
    X, y = numbered()
    groups = GROUPS // 2
    outer(inner(cv=cv), cv).fit(X, y, groups=groups)
    check_groups(groups)


@pytest.mark.parametrize("deep", [inner, ours, lambda cv: inner(ours(cv=cv)), lambda cv: inner(
    inner(cv=cv))])  # fmt: skip
def test_inner_folds_that_split_groups_are_refused(deep):
    X, y = numbered()
    with pytest.raises(ValueError, match="group"):
        outer(deep(cv=KFold(3))).fit(X, y, groups=GROUPS)
    assert not LOG.fits


def test_time_and_groups_together():
    X, y = numbered()
    groups = np.arange(N) // 5
    outer(inner(), TimeSeriesSplit(3)).fit(X, y, groups=groups)
    check_time()
    check_groups(groups)


def test_without_groups_and_time_both_are_violated():
    """The oracles can fail."""
    X, y = numbered()
    outer(inner()).fit(X, y)
    with pytest.raises(AssertionError):
        check_time()
    with pytest.raises(AssertionError):
        check_groups(GROUPS)


def test_groups_inside_a_search_over_a_stack_in_a_stack():
    X, y = numbered()
    with config_context(enable_metadata_routing=True), warnings.catch_warnings():
        GridSearchCV(outer(inner(), blend=False), {"refit": [True, False]}, cv=GroupKFold(2)).fit(
            X, y, groups=GROUPS
        )
    check_groups(GROUPS)
