"""Clause 2: for given folds a row's feature does not depend on the row's own label."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.cross_decomposition import PLSSVD, PLSRegression
from sklearn.decomposition import PCA
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler, TargetEncoder

from skstack import KerasFeatureTransformer, StackedKerasRegressor
from tests._models import target_encoder

from .parts import (
    CATEGORY,
    ENCODER,
    NEIGHBOUR,
    PLACES,
    PREDICTORS,
    REGRESSION_TREE,
    SELECTOR,
    SUPERVISED,
    TREE,
    UNSUPERVISED,
    InFitTransform,
    MayHaveLabels,
    NeedsLabels,
    in_branch_of_its_own,
    in_foreign_pipeline,
    in_foreign_union,
    in_nested_stack,
    in_stack,
    in_transformer,
    noise,
    plain_stack,
    slow_if,
)

# An axis that turns from fold to fold is warned of; here it is wanted.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*passes_y=False:UserWarning")

X, y = noise()
GROUPS = np.arange(len(y)) // 4
RANDOM = list(StratifiedKFold(2, shuffle=True, random_state=1).split(X, y))
UNLIKE = [(np.setdiff1d(np.arange(60), rows), rows) for rows in np.split(np.arange(60), [20])]
WHOLE_GROUPS = list(GroupKFold(2).split(X, y, GROUPS))


def flipped(rows):
    other = y.copy()
    other[rows] = 1 - y[rows]
    return other


def check_own_labels(features, folds, **metadata):
    """Flip all labels of one fold: not a bit of its rows' features moves."""
    before = features(folds, X, y, **metadata)
    assert len(before) == len(X)
    assert np.isfinite(np.asarray(before, dtype=float)).all()
    _, rows = folds[0]
    after = features(folds, X, flipped(rows), **metadata)
    np.testing.assert_array_equal(np.asarray(after)[rows], np.asarray(before)[rows])


def cases(kinds, places=PLACES, slow=()):
    return [
        slow_if(kind in slow, place(part), id=f"{kind}, {where}")
        for kind, part in kinds.items()
        for where, place in places.items()
    ]


ALONE = {"alone": PLACES["alone"]}
BEFORE_PCA = {"before PCA": PLACES["before PCA"]}
BEFORE_LEARNERS = {name: PLACES[name] for name in ("before a user's own", "before a classifier")}
SOME = {kind: SUPERVISED[kind] for kind in ("SelectKBest", "TargetEncoder among columns", "ours")}
# Of kinds that differ from these in themselves only, `make test` has one or two places.
OTHERS = SUPERVISED.keys() - {*SOME, "fit(X, *args)", "fit_transform", "FeatureUnion"}
# The loops over folds of test_parity.py, where all kinds stand, know no label of a fold, either.
MOST_PREDICTORS = PREDICTORS.keys() - {"tree", "without probabilities", "imblearn, over"}
EVERYWHERE = [
    *cases(PREDICTORS, ALONE, slow=MOST_PREDICTORS),
    *cases(SUPERVISED, ALONE | BEFORE_PCA, slow=OTHERS),
    *cases(SUPERVISED, BEFORE_LEARNERS, slow=OTHERS),
    *cases(UNSUPERVISED, {name: PLACES[name] for name in ("alone", "before a classifier")}),
]


@pytest.mark.parametrize("part", EVERYWHERE)
def test_in_a_transformer(part):
    check_own_labels(lambda *given: in_transformer(part, *given), RANDOM)


@pytest.mark.parametrize(
    "part",
    [
        *cases(PREDICTORS, ALONE, slow=MOST_PREDICTORS),
        *cases(SUPERVISED, BEFORE_PCA, slow=OTHERS),
        *cases({kind: UNSUPERVISED[kind] for kind in ("PCA", "ours")}, ALONE),
    ],
)
def test_in_a_stack(part):
    check_own_labels(lambda *given: in_stack(part, *given), RANDOM)


@pytest.mark.parametrize(
    ("container", "part"),
    [
        *[
            pytest.param(container, *case.values, id=f"{container.__name__}-{case.id}")
            for container in (in_branch_of_its_own, in_foreign_pipeline, in_foreign_union)
            for case in [*cases(SOME, BEFORE_PCA), *cases({"tree": TREE}, ALONE)]
        ],
        *[
            slow_if(case.id != "SelectKBest, before PCA", in_nested_stack, *case.values,
                    id=f"in_nested_stack-{case.id}")
            for case in [*cases(SOME, BEFORE_PCA), *cases({"tree": TREE}, ALONE)]
        ],
    ],
)  # fmt: skip
def test_in_other_containers(container, part):
    check_own_labels(lambda *given: container(part, *given), UNLIKE)


IN_GROUPS = {kind: SUPERVISED[kind] for kind in ("SelectKBest", "FeatureUnion", "fit(X, y)")}


@pytest.mark.parametrize("part", cases(IN_GROUPS, ALONE | BEFORE_PCA))
@pytest.mark.parametrize("container", [in_transformer, in_stack])
def test_with_groups(container, part):
    check_own_labels(
        lambda *given, **metadata: container(part, *given, **metadata), WHOLE_GROUPS, groups=GROUPS
    )


@pytest.mark.parametrize(
    ("kind", "container"),
    [
        slow_if(kind in OTHERS - {"TargetEncoder"}, kind, container)
        for kind in SUPERVISED
        for container in (in_transformer, in_stack)
    ],
)
def test_before_a_frozen_part(kind, container):
    width = clone(SUPERVISED[kind]).fit(X, y).transform(X).shape[1]
    frozen = FrozenEstimator(StandardScaler().fit(np.random.default_rng(0).normal(size=(9, width))))
    part = make_pipeline(SUPERVISED[kind], frozen)
    check_own_labels(lambda *given: container(part, *given), RANDOM)


def test_steps_before_a_network_in_a_branch_are_fitted_in_each_fold():
    axis = KerasFeatureTransformer(PCA(1), cv=RANDOM, passthrough=True)
    branch = make_pipeline(SELECTOR, axis)
    check_own_labels(lambda *given: in_stack(branch, *given), RANDOM)


def test_passthrough_columns_beside_features():
    part = make_pipeline(SELECTOR, StandardScaler())
    transformer = KerasFeatureTransformer(part, cv=RANDOM, passthrough=True)
    check_own_labels(lambda _, *given: transformer.fit_transform(*given), RANDOM)


@pytest.mark.parametrize("part", cases(UNSUPERVISED, ALONE))
def test_unsupervised_parts_are_fitted_once(part):
    transformer = KerasFeatureTransformer(part, cv=RANDOM)
    features = transformer.fit_transform(X, y)
    np.testing.assert_array_equal(features, transformer.transform(X))
    np.testing.assert_array_equal(features, transformer.fit_transform(X, 1 - y))
    np.testing.assert_array_equal(features, clone(transformer).fit_transform(X))


# Other targets and tables ----------------------------------------------------------------------

NUMBERS = {
    "tree": REGRESSION_TREE,
    "PLS": PLSRegression(1),
    "selector": SelectKBest(f_regression, k=2),
    "selector before PCA": make_pipeline(SelectKBest(f_regression, k=2), PCA(1)),
    "encoder": TargetEncoder(target_type="continuous", smooth=1.0),
    "encoder among columns": make_pipeline(
        ColumnTransformer([("code", target_encoder(target_type="continuous"), [CATEGORY])]),
        PCA(1),
    ),
    "ours before PCA": make_pipeline(KerasFeatureTransformer(REGRESSION_TREE, cv=3), PCA(1)),
    "stack": StackedKerasRegressor([("part", REGRESSION_TREE)], downstream=Ridge(), cv=2),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_to_predict(kind):
    rng = np.random.default_rng(0)
    target = rng.normal(size=len(X))
    rows = RANDOM[0][1]
    moved = target.copy()
    moved[rows] = 100 - 7 * rng.permutation(target[rows])
    transformer = KerasFeatureTransformer(NUMBERS[kind], cv=RANDOM)
    stack = StackedKerasRegressor(
        [("part", NUMBERS[kind])], downstream=Ridge(), scaler=None, passthrough=False, cv=RANDOM,
        blend=False,
    )  # fmt: skip
    for features in (transformer, stack):
        before = clone(features).fit_transform(X, target)
        after = clone(features).fit_transform(X, moved)
        np.testing.assert_array_equal(after[rows], before[rows])
        assert (after != before).any()


@pytest.mark.parametrize("labels", [["no", "yes"], [False, True], [0, 1, 2]], ids=str)
@pytest.mark.parametrize("kind", ["SelectKBest", "LinearDiscriminantAnalysis", "FeatureUnion"])
def test_other_labels(kind, labels):
    drawn = np.random.default_rng(0).integers(0, len(labels), len(X))
    rows = RANDOM[0][1]
    moved = drawn.copy()
    moved[rows] = (drawn[rows] + 1) % len(labels)
    transformer = KerasFeatureTransformer(PLACES["before PCA"](SUPERVISED[kind]), cv=RANDOM)
    before = transformer.fit_transform(X, np.asarray(labels)[drawn])
    after = transformer.fit_transform(X, np.asarray(labels)[moved])
    np.testing.assert_array_equal(after[rows], before[rows])


def test_several_labels_and_several_numbers_to_predict():
    rng = np.random.default_rng(0)
    rows = RANDOM[0][1]
    for many in (rng.integers(0, 2, (len(X), 2)), rng.normal(size=(len(X), 2))):
        moved = many.copy()
        moved[rows] = 1 - many[rows]
        for part in (PLSSVD(1), PLSRegression(1), REGRESSION_TREE):
            transformer = KerasFeatureTransformer(part, cv=RANDOM)
            before = transformer.fit_transform(X, many)
            after = transformer.fit_transform(X, moved)
            np.testing.assert_array_equal(after[rows], before[rows])


@pytest.mark.slow(first=4)
@pytest.mark.parametrize("container", [in_transformer, in_stack])
@pytest.mark.parametrize("last", [(PCA(1),), (), (TREE,)], ids=["PCA", "alone", "tree"])
def test_frames_with_words(container, last):
    frame = pd.DataFrame(X[:, :2], columns=["a", "b"])
    frame["job"] = pd.Series(np.array(list("uvwxz"))[X[:, CATEGORY].astype(int)], dtype="str")
    encoder = target_encoder(target_type="binary", smooth=1.0)
    columns = ColumnTransformer([("code", encoder, ["job"])], remainder=SelectKBest(k=1))
    part = make_pipeline(columns, *last)
    rows = RANDOM[0][1]
    words = pd.Series(y).map({0: "no", 1: "yes"})
    moved = pd.Series(flipped(rows[::2])).map({0: "no", 1: "yes"})
    before = np.asarray(container(part, RANDOM, frame, words))
    after = np.asarray(container(part, RANDOM, frame, moved))
    np.testing.assert_array_equal(after[rows], before[rows])
    assert (after != before).any()


# Labels by lot -------------------------------------------------------------------------------

MANY = PolynomialFeatures(3, include_bias=False)  # columns to choose from
MEMORIES = {
    "tree": TREE,
    "neighbour": NEIGHBOUR,
    "neighbour over SMOTE": PREDICTORS["imblearn, over"],
    "stack": plain_stack(NEIGHBOUR, downstream=TREE, cv=2),
    "nearest label": PLACES["before a user's own"](NeedsLabels()),
    "nearest label, y=None": MayHaveLabels(),
    "selector before PCA": make_pipeline(MANY, SelectKBest(k=1), PCA(1)),
    "TargetEncoder of all": ENCODER,
    "ours before PCA": PLACES["before PCA"](KerasFeatureTransformer(TREE, cv=3)),
    "ours before frozen": make_pipeline(
        KerasFeatureTransformer(TREE, cv=3), FrozenEstimator(StandardScaler().fit([[0.0], [1.0]]))
    ),
}


LONG = ("stack", "ours before frozen")


def luck(features, y, folds):
    """How well columns tell the labels of each fold, in standard errors of pure chance.

    The rank correlation is AUC, shifted and scaled. With labels by lot its mean is 0 and its
    variance 1 / (n - 1) in a fold of n rows, whatever the features are, if they know no label of
    the fold.
    """
    scores = []
    for _, rows in folds:
        labels = y[rows] - y[rows].mean()
        for column in np.asarray(features, dtype=float)[rows].T:
            ranks = rankdata(column)
            ranks = ranks - ranks.mean()
            size = np.sqrt(np.square(ranks).sum() * np.square(labels).sum())
            if size:
                scores.append(ranks @ labels / size * np.sqrt(len(rows) - 1))
    return np.asarray(scores)


def spread(drawn):
    """Standard error of the mean of repeats."""
    return np.std(drawn, ddof=1) / np.sqrt(len(drawn))


@pytest.mark.parametrize(
    ("container", "kind"),
    [
        *(slow_if(kind in LONG, in_transformer, kind) for kind in MEMORIES),
        (in_stack, "neighbour"),
        *(slow_if(True, in_stack, kind) for kind in ("ours before PCA", "selector before PCA")),
        slow_if(True, in_nested_stack, "neighbour"),
    ],
)
def test_random_labels_are_predicted_at_chance(kind, container):
    means, squares = [], []
    folds = list(KFold(2).split(X))
    for seed in range(10):
        rows, labels = noise(seed)
        found = luck(container(MEMORIES[kind], folds, rows, labels), labels, folds)
        means.append(found.mean())
        squares.append(np.square(found).mean())
    assert abs(np.mean(means)) < 3 * spread(means)
    assert abs(np.mean(squares) - 1) < 3 * spread(squares)


# The oracles can fail --------------------------------------------------------------------------


def in_sample(part, folds, X, y):
    fitted = clone(part).fit(X, y)
    for method in ("predict_proba", "transform", "decision_function", "predict"):
        if hasattr(fitted, method):
            return getattr(fitted, method)(X).reshape(len(X), -1)
    raise AssertionError(f"{part!r} gives nothing")


MOVED = {kind: part for kind, part in SUPERVISED.items() if kind != "fit_transform"}


@pytest.mark.parametrize(
    "part",
    [
        *cases(PREDICTORS, ALONE, slow=MOST_PREDICTORS),
        *cases(MOVED, slow=OTHERS),
        *cases({"fit_transform": InFitTransform()}, BEFORE_PCA),
    ],
)
def test_in_sample_features_depend_on_their_labels(part):
    with pytest.raises(AssertionError, match="not equal"):
        check_own_labels(lambda *given: in_sample(part, *given), RANDOM)


@pytest.mark.parametrize("kind", [slow_if(kind in LONG, kind) for kind in MEMORIES])
def test_in_sample_features_predict_random_labels(kind):
    folds = list(KFold(2).split(X))
    drawn = []
    for seed in range(8):
        rows, labels = noise(seed)
        found = luck(in_sample(MEMORIES[kind], folds, rows, labels), labels, folds)
        drawn.append(np.square(found).mean())
    assert np.mean(drawn) - 1 > 3 * spread(drawn)
