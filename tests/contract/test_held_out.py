"""Clauses 4, 5 and 9: early-stopping rows, samplers and weights, at every depth."""

import numpy as np
import pytest
from imblearn.pipeline import make_pipeline as make_imblearn_pipeline
from sklearn import config_context
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, PredefinedSplit, StratifiedKFold, TimeSeriesSplit
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline

from skstack import KerasFeatureTransformer, StackedKerasClassifier

from .parts import (
    BETWEEN,
    LOG,
    NESTED,
    SELECTOR,
    STRICT,
    SUPERVISED,
    TREE,
    RecordingClassifier,
    RecordingDownstream,
    RecordingSampler,
    RecordingTransformer,
    bare_stack,
    clear_log,
    in_transformer,
    inner,
    noise,
    numbered,
    numbers,
    ours,
    slow_if,
    student,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:(?s).*(correlat|passes_y=False):UserWarning"),
    pytest.mark.filterwarnings("ignore:(?s).*time-ordered and never predicts:UserWarning"),
]

X, y = numbered()
N = len(X)
GROUPS = np.arange(N) // 5
HOW = {
    "at random": ({"cv": 3}, {}),
    "groups": ({"cv": 3}, {"groups": GROUPS}),
    "time": ({"cv": TimeSeriesSplit(2)}, {}),
    "without refit": ({"cv": 3, "refit": False}, {}),
}


@pytest.fixture(autouse=True)
def empty_log():
    clear_log()


def stops_early(part, **options):
    downstream = RecordingDownstream("outer downstream", early_stopping=True)
    return inner(part, **{"downstream": downstream, **options})


def together(*rows):
    return np.unique(np.concatenate(rows))


# Rows set aside --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        slow_if(
            (kind == NESTED and how != "time")
            # Whose parts are fitted as those of the others are.
            or (
                kind in ("stack of steps", "stack of a transformer", "transformer of a stack")
                and how != "time"
            ),
            kind,
            how,
        )
        for kind in STRICT
        for how in HOW
    ],
)
def test_hold_out_rows_do_not_affect_any_part(kind, how):
    options, metadata = HOW[how]
    stack = stops_early(STRICT[kind], **options).fit(X, y, **metadata)
    watched = numbers(stack.downstream_.X_val_)
    assert 10 <= len(watched) <= 24
    for fit in LOG.fits:
        assert not np.intersect1d(fit.rows, watched).size, fit.who
    assert len(together(watched, *(fit.rows for fit in LOG.fits))) == N
    if how == "groups":
        kept = np.setdiff1d(np.arange(N), watched)
        assert not np.intersect1d(GROUPS[kept], GROUPS[watched]).size
    if how == "time":
        np.testing.assert_array_equal(watched, np.arange(N - len(watched), N))


@pytest.mark.parametrize("kind", BETWEEN)
def test_hold_out_rows_do_not_affect_parts_inside_other_estimators(kind):
    stack = stops_early(BETWEEN[kind]).fit(X, y)
    watched = numbers(stack.downstream_.X_val_)
    assert len(watched)
    for fit in LOG.fits:
        assert not np.intersect1d(fit.rows, watched).size, fit.who


AROUND = {"": lambda part: part, "ours": ours, "stack": inner}
# A stack in a stack in a stack is met in time, a transformer around one at random and in time.
SLOW_INNER = [("at random", "stack"), ("groups", "stack"), ("groups", "ours")]


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        slow_if((how, kind) in SLOW_INNER, how, kind)
        for how in ("at random", "groups", "time")
        for kind in AROUND
    ],
)
def test_hold_out_rows_of_an_inner_stack_do_not_affect_its_parts(kind, how):
    options, metadata = HOW[how]
    around = AROUND[kind]
    watcher = RecordingDownstream("watcher", early_stopping=True)
    part = around(inner(make_pipeline(RecordingTransformer("step"), student()), downstream=watcher))
    inner(part, downstream=RecordingDownstream("outer downstream"), **options).fit(X, y, **metadata)
    since, seen = [], 0
    for fit in LOG.fits:  # a stack's downstream is fitted last
        if fit.who == "watcher":
            seen += 1
            assert len(fit.watched)
            for rows in (fit.rows, *since):
                assert not np.intersect1d(rows, fit.watched).size
            since = []
        elif "downstream" not in fit.who:
            since.append(fit.rows)
    assert seen >= 3


@pytest.mark.parametrize("kind", [slow_if(kind == NESTED, kind) for kind in STRICT])
def test_X_val_does_not_affect_any_part(kind):
    X_val = np.column_stack([X[:9, :2], np.arange(1000, 1009)])
    stack = stops_early(STRICT[kind]).fit(X, y, X_val=X_val, y_val=y[:9])
    np.testing.assert_array_equal(numbers(stack.downstream_.X_val_), np.arange(1000, 1009))
    for fit in LOG.fits:
        assert fit.rows.max() < N


KINDS = {
    "tree": TREE,
    "selector": SELECTOR,
    "selector before PCA": make_pipeline(SELECTOR, PCA(1)),
    "labels": SUPERVISED["fit(X, y=None)"],
    "encoder": SUPERVISED["TargetEncoder"],
    "PCA": PCA(1),
}


@pytest.mark.parametrize("time", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_hold_out_rows_get_features_of_the_refitted_part(kind, time):
    X, y = noise(n=80)
    cv = TimeSeriesSplit(2) if time else 3
    stack = bare_stack(KINDS[kind], cv, downstream=RecordingDownstream(early_stopping=True))
    stack.set_params(passthrough=[0])
    table = stack.fit_transform(X, y)
    place = {value: row for row, value in enumerate(X[:, 0].astype(np.float32))}
    watched = np.array([place[value] for value in stack.downstream_.X_val_[:, -1]])
    kept = np.setdiff1d(np.arange(len(X)), watched)
    alone = clone(KINDS[kind]).fit(X[kept], y[kept])
    if hasattr(alone, "predict_proba"):
        expected = alone.predict_proba(X[watched])[:, 1:]
    else:
        expected = alone.transform(X[watched])
    expected = np.column_stack([expected, X[watched, 0]]).astype(np.float32)
    np.testing.assert_array_equal(stack.downstream_.X_val_, expected)
    np.testing.assert_array_equal(table[watched], expected)
    np.testing.assert_array_equal(stack.transform(X[watched]), expected)


@pytest.mark.parametrize("kind", ["tree", "selector", "selector before PCA", "encoder", "labels"])
def test_folds_given_as_pairs_are_restricted_to_remaining_rows(kind):
    X, y = noise(n=80)
    folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(X, y))
    stack = bare_stack(KINDS[kind], folds, downstream=RecordingDownstream(early_stopping=True))
    stack.set_params(passthrough=[0])
    table = stack.fit_transform(X, y)
    watched = np.isin(X[:, 0].astype(np.float32), stack.downstream_.X_val_[:, -1])
    assert watched.sum() == 16
    for train, test in folds:
        train, test = train[~watched[train]], test[~watched[test]]
        alone = clone(KINDS[kind]).fit(X[train], y[train])
        expected = (
            alone.predict_proba(X[test])[:, 1:]
            if hasattr(alone, "predict_proba")
            else alone.transform(X[test])
        )
        np.testing.assert_array_equal(table[test, :-1], expected.astype(np.float32))


class FixedSplit:
    """Holds the fold of each row, and refuses other tables."""

    def __init__(self, test_fold):
        self.test_fold = test_fold

    def split(self, X, y=None, groups=None):
        for fold in range(3):
            rows = np.arange(len(X))
            yield rows[self.test_fold != fold], rows[self.test_fold == fold]

    def get_n_splits(self, X=None, y=None, groups=None):
        return 3


@pytest.mark.parametrize("where", ["stack", "branch"])
@pytest.mark.parametrize("splitter", [PredefinedSplit, FixedSplit])
def test_splitters_that_hold_the_fold_of_each_row_are_restricted_too(splitter, where):
    """To the rows that early stopping leaves, and in a blend to those without a fold."""
    X, y = noise(n=80)
    cv = splitter(np.arange(80) % 3)

    def features(cv):
        downstream = RecordingDownstream(early_stopping=True)
        if where == "stack":
            stack = bare_stack(TREE, cv, downstream=downstream)
        else:
            branch = KerasFeatureTransformer(TREE, cv=cv)
            stack = bare_stack(branch, KFold(4), downstream=downstream).set_params(blend=True)
        table = stack.fit_transform(X, y)
        return table, stack.blend_scores_

    table, scores = features(cv)
    expected, expected_scores = features(list(cv.split(X)))
    np.testing.assert_array_equal(table, expected)
    assert scores == expected_scores


def test_a_hold_out_row_does_not_affect_features():
    """Metamorphic: other labels and values of watched rows, the same table of all others."""
    X, y = noise(n=80)
    for part in KINDS.values():
        stack = bare_stack(part, TimeSeriesSplit(3),
                           downstream=RecordingDownstream(early_stopping=True))  # fmt: skip
        before = clone(stack).fit_transform(X, y)
        other, labels = X.copy(), y.copy()
        other[64:], labels[64:] = 50 * X[64:], 1 - y[64:]  # the last fifth
        after = clone(stack).fit_transform(other, labels)
        np.testing.assert_array_equal(after[:64], before[:64])


# Samplers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "how", "early_stopping"),
    [
        slow_if(kind == "transformer of a stack" and how != "time", kind, how, early_stopping)
        for kind in ("estimator", "stack", "transformer of a stack", "steps")
        for how in HOW
        for early_stopping in (False, True)
    ],
)
def test_a_sampler_receives_only_rows_of_the_downstream(kind, how, early_stopping):
    options, metadata = HOW[how]
    downstream = RecordingDownstream("outer downstream", early_stopping=early_stopping)
    stack = inner(STRICT[kind], downstream=downstream, sampler=RecordingSampler(), **options)
    stack.fit(X, y, **metadata)
    sampler, last = LOG.fits[-2:]
    assert (sampler.who, last.who) == ("sampler", "outer downstream")
    assert sum(fit.who == "sampler" for fit in LOG.fits) == 1
    np.testing.assert_array_equal(np.unique(last.rows), np.sort(sampler.rows))
    assert len(np.unique(sampler.rows)) == len(sampler.rows)
    assert len(last.rows) > len(sampler.rows)
    if early_stopping:
        assert len(np.unique(last.watched)) == len(last.watched) > 0
        assert not np.intersect1d(last.watched, sampler.rows).size
    assert len(stack.predict(X)) == N


@pytest.mark.parametrize("how", HOW)
def test_a_sampler_of_an_inner_stack_receives_only_rows_of_its_downstream(how):
    options, metadata = HOW[how]
    part = inner(sampler=RecordingSampler("inner sampler"))
    inner(part, downstream=RecordingDownstream("outer downstream"), **options).fit(X, y, **metadata)
    pairs = [
        (fit, after)
        for fit, after in zip(LOG.fits, LOG.fits[1:], strict=False)
        if fit.who == "inner sampler"
    ]
    assert len(pairs) >= 3
    for sampler, downstream in pairs:
        assert downstream.who == "inner downstream"
        np.testing.assert_array_equal(np.unique(downstream.rows), np.sort(sampler.rows))
    for question in LOG.questions:
        if question.who == "inner downstream":
            assert not np.intersect1d(question.rows, question.asked).size


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("deep", [lambda part: part, ours, inner], ids=["", "ours", "stack"])
def test_a_sampler_of_a_branch_receives_only_training_rows_of_the_fold(deep, how):
    options, metadata = HOW[how]
    part = deep(make_imblearn_pipeline(RecordingSampler("branch sampler"), student()))
    stops_early(part, **options).fit(X, y, **metadata)
    samplers = [place for place, fit in enumerate(LOG.fits) if fit.who == "branch sampler"]
    assert len(samplers) >= 3
    for place in samplers:
        np.testing.assert_array_equal(
            np.unique(LOG.fits[place + 1].rows), np.sort(LOG.fits[place].rows)
        )
        assert not np.intersect1d(LOG.fits[place].rows, LOG.fits[-1].watched).size
    asked = [question for question in LOG.questions if question.who == "part"]
    assert asked
    assert all(len(question.rows) > len(np.unique(question.rows)) for question in asked)


# Weights ---------------------------------------------------------------------------------------

WEIGHTED = ["estimator", "transformer", "transformer of a transformer", "stack",
            "transformer of a stack", "stack of a transformer", "stack in a stack"]  # fmt: skip


def check_weights():
    assert LOG.fits
    for fit in LOG.fits:
        np.testing.assert_array_equal(fit.weights, fit.rows + 1.0, err_msg=fit.who)


def weights_case(kind, how, early_stopping):
    """Of stacks, which fit many parts, `make test` has early stopping for some splittings only."""
    slow = "stack" in kind and early_stopping != (how in ("groups", "time"))
    slow |= kind in ("stack of a transformer", "transformer of a stack") and not early_stopping
    if kind == NESTED:
        slow = (how, early_stopping) != ("time", True)
    return slow_if(slow, kind, how, early_stopping)


@pytest.mark.parametrize(
    ("kind", "how", "early_stopping"),
    [
        weights_case(kind, how, early_stopping)
        for kind in WEIGHTED
        for how in HOW
        for early_stopping in (False, True)
    ],
)
def test_weights_stay_aligned_with_rows_at_every_depth(kind, how, early_stopping):
    options, metadata = HOW[how]
    downstream = RecordingDownstream("outer downstream", early_stopping=early_stopping)
    stack = inner(STRICT[kind], downstream=downstream, **options)
    stack.fit(X, y, sample_weight=np.arange(N) + 1.0, **metadata)
    check_weights()


@pytest.mark.parametrize("how", ["at random", "groups", "time"])
def test_rows_of_weight_0_do_not_decide_which_rows_are_held_out(how):
    options, metadata = HOW[how]
    weights = np.ones(N)
    weights[-N // 4 :] = 0
    weights[::7] = 0
    options = {**options, "cv": KFold(3)} if how == "at random" else options
    watched = []
    for labels in (y, np.where(weights > 0, y, 1 - y)):
        clear_log()
        stack = stops_early(student(), **options)
        stack.fit(X, labels, sample_weight=weights, **metadata)
        watched.append(numbers(stack.downstream_.X_val_))
        judging = watched[-1][weights[watched[-1]] > 0]
        assert 8 <= len(judging) <= 20
        for fit in LOG.fits:
            assert not np.intersect1d(fit.rows, watched[-1]).size, fit.who
            if how == "groups":
                assert not np.isin(GROUPS[fit.rows], GROUPS[judging]).any(), fit.who
            if how == "time":
                assert fit.rows.max() < judging.min(), fit.who
    np.testing.assert_array_equal(*watched)


@pytest.mark.parametrize("depth", [1, 2])
def test_weights_stay_aligned_with_rows_with_routing(depth):
    with config_context(enable_metadata_routing=True):
        part = student().set_fit_request(sample_weight=True)
        for level in range(depth):
            downstream = RecordingDownstream(f"downstream {level}")
            part = inner(part, downstream=downstream.set_fit_request(sample_weight=True))
        part.fit(X, y, sample_weight=np.arange(N) + 1.0, groups=GROUPS)
    check_weights()


def test_a_sampler_carries_weights():
    stack = inner(student(), downstream=RecordingDownstream(), sampler=RecordingSampler())
    stack.fit(X, y, sample_weight=np.arange(N) + 1.0)
    np.testing.assert_array_equal(LOG.fits[-1].weights, LOG.fits[-1].rows + 1.0)
    assert len(LOG.fits[-1].rows) > N


@pytest.mark.parametrize("kind", ["steps", "steps in ours", "step before a latent"])
def test_weights_that_a_part_cannot_take_are_refused_or_go_to_the_last(kind):
    """Without routing nobody says which step weights are for."""
    try:
        inner(STRICT[kind]).fit(X, y, sample_weight=np.arange(N) + 1.0)
    except ValueError as error:
        message = str(error)
    else:
        message = None
        for fit in LOG.fits:
            if fit.who != "step":
                np.testing.assert_array_equal(fit.weights, fit.rows + 1.0)
    assert message is None or "sample_weight" in message


PARTS_WITH_WEIGHTS = {"logistic": LogisticRegression(), "Bayes": GaussianNB()}


def weighted_table(part, folds, X, y, weights):
    stack = StackedKerasClassifier(
        [("part", part)], downstream=GaussianNB(), cv=folds, random_state=0
    )
    return np.hstack([
        in_transformer(part, folds, X, y, sample_weight=weights),
        stack.fit_transform(X, y, sample_weight=weights),
    ])  # fmt: skip


@pytest.mark.parametrize("kind", PARTS_WITH_WEIGHTS)
def test_a_row_of_weight_zero_does_not_affect_any_part(kind):
    X, y = noise(n=80)
    weights = np.where(np.arange(80) % 4 == 0, 0.0, 1.0)
    folds, gone = list(KFold(4, shuffle=True, random_state=0).split(X)), weights == 0
    before = weighted_table(PARTS_WITH_WEIGHTS[kind], folds, X, y, weights)
    other, labels = X.copy(), y.copy()
    other[gone], labels[gone] = X[gone] + 3, 1 - y[gone]
    after = weighted_table(PARTS_WITH_WEIGHTS[kind], folds, other, labels, weights)
    np.testing.assert_allclose(after[~gone], before[~gone], rtol=1e-4, atol=1e-5)
    assert np.abs(after[gone] - before[gone]).max() > 0.1


@pytest.mark.parametrize("kind", PARTS_WITH_WEIGHTS)
def test_weighting_equals_repeating(kind):
    X, y = noise(n=60)
    weights = np.random.default_rng(0).integers(1, 4, 60)
    rows = np.repeat(np.arange(60), weights)
    folds = list(KFold(3).split(X))
    of_rows = [tuple(np.flatnonzero(np.isin(rows, side)) for side in pair) for pair in folds]
    weighted = weighted_table(PARTS_WITH_WEIGHTS[kind], folds, X, y, weights.astype(float))
    ones = np.ones(len(rows))
    repeated = weighted_table(PARTS_WITH_WEIGHTS[kind], of_rows, X[rows], y[rows], ones)
    np.testing.assert_allclose(weighted[rows], repeated, rtol=1e-3, atol=1e-4)


def test_the_reference_checks_can_fail():
    student().fit(X, y)
    with pytest.raises(AssertionError):
        check_weights()
    stack = inner(LearnsAll(), downstream=RecordingDownstream(early_stopping=True))
    stack.fit(X, y)
    watched = numbers(stack.downstream_.X_val_)
    assert any(np.intersect1d(fit.rows, watched).size for fit in LOG.fits)


class LearnsAll(RecordingClassifier):
    """Learns from all rows that there are, whatever it is given."""

    def fit(self, X_given, y_given, sample_weight=None):
        return super().fit(X, y)
