"""Clauses 1 and 2 in closed form: fit on the training rows of a fold, ask about its test rows."""

import numpy as np
import pytest
from imblearn import FunctionSampler
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.pipeline import make_pipeline as make_imblearn_pipeline
from imblearn.under_sampling import RandomUnderSampler, TomekLinks
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler, TargetEncoder

from skstack import KerasFeatureTransformer, StackedKerasClassifier
from skstack._base.sklearn import ENCODER_TAKES_FOLDS

from .parts import (
    CATEGORY,
    NEIGHBOUR,
    NESTED,
    PLACES,
    PREDICTORS,
    REGRESSION_TREE,
    SUPERVISED,
    TREE,
    UNSUPERVISED,
    Keeper,
    in_branch_of_its_own,
    in_foreign_pipeline,
    in_foreign_union,
    in_stack,
    in_transformer,
    noise,
    plain_stack,
    slow_if,
)

pytestmark = pytest.mark.filterwarnings("ignore:(?s).*passes_y=False:UserWarning")

X, y = noise()
GROUPS = np.arange(len(y)) // 4
needs_folds = pytest.mark.skipif(
    not ENCODER_TAKES_FOLDS, reason="TargetEncoder takes folds from scikit-learn 1.9 on"
)
FOLDS = list(StratifiedKFold(2, shuffle=True, random_state=1).split(X, y))


def asked(fitted, X):
    """What a fitted part gives as features, as documented for ``"outputs"``."""
    if hasattr(fitted, "predict_proba"):
        return fitted.predict_proba(X)[:, 1:]
    if hasattr(fitted, "transform") and not hasattr(fitted, "predict"):
        values = fitted.transform(X)
        return values.toarray() if hasattr(values, "toarray") else np.asarray(values)
    if hasattr(fitted, "decision_function"):
        return fitted.decision_function(X).reshape(len(X), -1)
    return np.asarray(fitted.predict(X)).reshape(len(X), -1)


def by_hand(part, folds, X, y):
    parts = [(test, asked(clone(part).fit(X[train], y[train]), X[test])) for train, test in folds]
    table = np.empty((len(X), parts[0][1].shape[1]), dtype=np.float32)
    for test, values in parts:
        table[test] = values
    return table


def cases(*tables, places=("alone",), slow=()):
    return [
        slow_if(kind in slow, PLACES[where](part), id=f"{kind}, {where}")
        for table in tables
        for kind, part in table.items()
        for where in places
    ]


# Of kinds that differ from these in themselves only, `make test` has one or two places.
OTHERS = SUPERVISED.keys() - {"SelectKBest", "TargetEncoder among columns", "fit_transform", "ours"}
CROSS_FITTED = [
    *cases(PREDICTORS, slow=[NESTED]),
    *cases(SUPERVISED, places=("alone", "before PCA")),
    *cases(SUPERVISED, places=("before a user's own", "before a classifier"), slow=OTHERS),
]


@pytest.mark.parametrize("part", CROSS_FITTED)
def test_a_transformer_equals_a_loop_over_folds(part):
    found = in_transformer(part, FOLDS, X, y)
    np.testing.assert_array_equal(found, by_hand(part, FOLDS, X, y))


# A stack gives each branch to a transformer: here those that it hands on in another way.
IN_STACKS = ("tree", "without probabilities", "regressor", "Pipeline", "imblearn, over", "stack")
ELSEWHERE = (PREDICTORS.keys() - {*IN_STACKS}) | OTHERS


@pytest.mark.parametrize("part", cases(PREDICTORS, SUPERVISED, slow=ELSEWHERE - {"stack"}))
def test_a_stack_equals_a_loop_over_folds(part):
    found = in_stack(part, FOLDS, X, y)
    np.testing.assert_array_equal(found, by_hand(part, FOLDS, X, y))


@pytest.mark.parametrize("part", cases({kind: SUPERVISED[kind] for kind in ("SelectKBest", "ours")},
                                       {"tree": TREE}, places=("alone",)))  # fmt: skip
@pytest.mark.parametrize("container", [in_branch_of_its_own, in_foreign_pipeline, in_foreign_union])
def test_other_containers_equal_a_loop_over_folds(container, part):
    found = container(part, FOLDS, X, y)
    np.testing.assert_array_equal(found, by_hand(part, FOLDS, X, y).astype(found.dtype))


@pytest.mark.parametrize("part", cases(SUPERVISED, slow=OTHERS - {"FeatureUnion", "stack"}))
def test_new_rows_get_features_of_the_part_fitted_on_all_rows(part):
    """Nothing is turned: the refitted part's own values."""
    new, _ = noise(1)
    transformer = KerasFeatureTransformer(part, cv=FOLDS)
    transformer.fit_transform(X, y)
    expected = asked(clone(part).fit(X, y), new).astype(np.float32)
    np.testing.assert_array_equal(transformer.transform(new), expected)
    np.testing.assert_array_equal(clone(transformer).fit(X, y).transform(new), expected)


@pytest.mark.parametrize("kind", ["SelectKBest", "TargetEncoder", "LinearDiscriminantAnalysis"])
def test_without_refit_new_rows_get_the_mean_over_folds(kind):
    new, _ = noise(1)
    transformer = KerasFeatureTransformer(SUPERVISED[kind], cv=FOLDS, refit=False)
    fitted = [clone(SUPERVISED[kind]).fit(X[train], y[train]) for train, _ in FOLDS]
    expected = np.mean([asked(part, new) for part in fitted], axis=0)
    found = transformer.fit_transform(X, y)
    np.testing.assert_array_equal(found, by_hand(SUPERVISED[kind], FOLDS, X, y))
    np.testing.assert_allclose(transformer.transform(new), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "kind",
    [slow_if(kind not in ("tree", "without probabilities", "PLS"), kind) for kind in PREDICTORS],
)
def test_predictors_agree_with_cross_val_predict(kind):
    part = PREDICTORS[kind]
    methods = ("predict_proba", "decision_function", "predict")
    method = next(name for name in methods if hasattr(part, name))
    expected = cross_val_predict(part, X, y, cv=FOLDS, method=method)
    expected = expected[:, 1:] if method == "predict_proba" else expected.reshape(len(X), -1)
    np.testing.assert_array_equal(in_transformer(part, FOLDS, X, y), expected.astype(np.float32))


@needs_folds
@pytest.mark.parametrize("target", ["binary", "continuous"])
@pytest.mark.parametrize("smooth", [1.0, "auto"])
def test_a_target_encoder_is_its_own_cross_fit(target, smooth):
    codes, labels = X[:, [CATEGORY]], y if target == "binary" else X[:, 0]
    encoder = TargetEncoder(target_type=target, smooth=smooth, cv=FOLDS)
    expected = encoder.fit_transform(codes, labels).astype(np.float32)
    found = KerasFeatureTransformer(encoder, cv=FOLDS).fit_transform(codes, labels)
    np.testing.assert_array_equal(found, expected)
    if target == "binary":
        assert found.min() >= 0
        assert found.max() <= 1


@needs_folds
def test_a_target_encoder_of_several_classes():
    labels = np.arange(len(y)) % 3
    encoder = TargetEncoder(target_type="multiclass", smooth=2.0, cv=FOLDS)
    expected = encoder.fit_transform(X[:, [CATEGORY]], labels).astype(np.float32)
    found = KerasFeatureTransformer(encoder, cv=FOLDS).fit_transform(X[:, [CATEGORY]], labels)
    np.testing.assert_array_equal(found, expected)


def test_groups_reach_the_folds_of_a_supervised_transformer():
    part = SUPERVISED["FeatureUnion"]
    transformer = KerasFeatureTransformer(part, cv=GroupKFold(3))
    expected = by_hand(part, list(GroupKFold(3).split(X, y, GROUPS)), X, y)
    np.testing.assert_array_equal(transformer.fit_transform(X, y, groups=GROUPS), expected)


@pytest.mark.parametrize("part", cases(UNSUPERVISED))
def test_unsupervised_steps_before_a_predictor_are_fitted_in_the_fold(part):
    part = make_pipeline(part, REGRESSION_TREE)
    np.testing.assert_array_equal(in_transformer(part, FOLDS, X, y), by_hand(part, FOLDS, X, y))


@pytest.mark.parametrize("kind", ["StandardScaler", "PCA", "FeatureUnion", "ColumnTransformer"])
def test_unsupervised_features_are_not_rotated(kind):
    part = UNSUPERVISED[kind]
    expected = clone(part).fit(X).transform(X).astype(np.float32)
    for container in (in_transformer, in_stack):
        np.testing.assert_array_equal(container(part, FOLDS, X, y), expected)


def test_sparse_tables_of_supervised_transformers():
    part = make_pipeline(OneHotEncoder(handle_unknown="ignore"), SUPERVISED["SelectKBest"])
    codes = X[:, [CATEGORY]]
    expected = by_hand(part, FOLDS, codes, y)
    np.testing.assert_array_equal(in_transformer(part, FOLDS, codes, y), expected)


# Pipelines of imbalanced-learn -----------------------------------------------------------------

UNEVEN = make_classification(
    240, 6, n_informative=3, weights=[0.8], flip_y=0.02, class_sep=1.5, random_state=0
)
UNEVEN_FOLDS = list(StratifiedKFold(2, shuffle=True, random_state=0).split(*UNEVEN))


def backwards(X, y):
    """As many rows as before, in another order: pairs must go together."""
    return X[::-1], y[::-1]


RESAMPLED = {
    "SMOTE": make_imblearn_pipeline(SMOTE(random_state=0), TREE),
    "over": make_imblearn_pipeline(RandomOverSampler(random_state=0), GaussianNB()),
    "under": make_imblearn_pipeline(RandomUnderSampler(random_state=0), NEIGHBOUR),
    "cleaning": make_imblearn_pipeline(TomekLinks(), TREE),
    "backwards": make_imblearn_pipeline(FunctionSampler(func=backwards), NEIGHBOUR),
    "steps around": make_imblearn_pipeline(
        StandardScaler(), SMOTE(random_state=0), PCA(2), NEIGHBOUR
    ),
    "two samplers": make_imblearn_pipeline(
        SMOTE(random_state=0), RandomUnderSampler(random_state=0), TREE
    ),
    "as over as under": make_imblearn_pipeline(
        SMOTE(sampling_strategy=0.5, random_state=0),
        RandomUnderSampler(sampling_strategy=1.0, random_state=0),
        TREE,
    ),
    "no sampler": make_imblearn_pipeline(StandardScaler(), GaussianNB()),
    "nothing but an estimator": make_imblearn_pipeline(GaussianNB()),
    "at the end of a Pipeline": make_pipeline(
        StandardScaler(), make_imblearn_pipeline(SMOTE(random_state=0), TREE)
    ),
    "in a stack": plain_stack(make_imblearn_pipeline(SMOTE(random_state=0), TREE)),
    "of a regressor": make_imblearn_pipeline(RandomUnderSampler(random_state=0), REGRESSION_TREE),
    "of a transformer": make_imblearn_pipeline(SMOTE(random_state=0), SUPERVISED["fit(X, y)"]),
    "of ours": make_imblearn_pipeline(
        RandomUnderSampler(random_state=0), KerasFeatureTransformer(TREE, cv=UNEVEN_FOLDS)
    ),
}


@pytest.mark.parametrize(
    ("container", "kind"),
    [
        slow_if(
            (container is in_branch_of_its_own and kind not in ("SMOTE", "of a transformer"))
            or (container is in_stack and kind == "in a stack"),
            container,
            kind,
            id=f"{container.__name__}-{kind}",
        )
        for container in (in_transformer, in_stack, in_branch_of_its_own)
        for kind in RESAMPLED
    ],
)
def test_a_pipeline_of_imbalanced_learn_equals_a_loop_over_folds(container, kind):
    X, y = UNEVEN
    found = container(RESAMPLED[kind], UNEVEN_FOLDS, X, y)
    np.testing.assert_array_equal(found, by_hand(RESAMPLED[kind], UNEVEN_FOLDS, X, y))


@pytest.mark.parametrize("kind", ["SMOTE", "under", "steps around"])
def test_new_rows_of_a_pipeline_of_imbalanced_learn_are_never_resampled(kind):
    X, y = UNEVEN
    transformer = KerasFeatureTransformer(RESAMPLED[kind], cv=UNEVEN_FOLDS).fit(X, y)
    expected = asked(clone(RESAMPLED[kind]).fit(X, y), X[:7]).astype(np.float32)
    np.testing.assert_array_equal(transformer.transform(X[:7]), expected)


def test_a_resampling_branch_scores_the_same_in_a_stack_as_alone():
    X, y = UNEVEN
    branch = make_imblearn_pipeline(
        StandardScaler(), SMOTE(random_state=0), FunctionSampler(func=backwards), GaussianNB()
    )
    alone = roc_auc_score(y, cross_val_predict(branch, X, y, method="predict_proba")[:, 1])
    stack = StackedKerasClassifier([("branch", branch)], downstream=GaussianNB(), passthrough=False)
    stacked = roc_auc_score(y, cross_val_predict(stack, X, y, method="predict_proba")[:, 1])
    assert alone > 0.8
    assert stacked > alone - 0.02


@pytest.mark.parametrize("container", [in_transformer, in_stack])
@pytest.mark.parametrize("sampler", [SMOTE(random_state=0), FunctionSampler(func=backwards)])
@pytest.mark.parametrize(
    "around",
    [
        lambda steps: make_pipeline(steps, TREE),
        lambda steps: make_pipeline(FeatureUnion([("a", steps)]), TREE),
        lambda steps: make_pipeline(make_pipeline(StandardScaler(), steps), PCA(1)),
    ],
    ids=["step", "union", "Pipeline in a Pipeline"],
)
def test_a_sampler_among_steps_of_scikit_learn_is_refused(around, sampler, container):
    """Its Pipeline hands on the rows that were made, with the labels that came before."""
    steps = make_imblearn_pipeline(sampler, PCA(2))
    with pytest.raises((ValueError, TypeError), match=r"[Ss]ampler|SMOTE|resampl"):
        container(around(steps), UNEVEN_FOLDS, *UNEVEN)


def test_a_resampling_branch_beside_others():
    X, y = UNEVEN
    stack = StackedKerasClassifier(
        [("even", RESAMPLED["SMOTE"], [0, 1, 2]), ("plain", TREE, [3, 4, 5])],
        downstream=Keeper(), scaler=None, passthrough=False, cv=UNEVEN_FOLDS,
    )  # fmt: skip
    table = stack.fit_transform(X, y)
    columns = (by_hand(RESAMPLED["SMOTE"], UNEVEN_FOLDS, X[:, :3], y),
               by_hand(TREE, UNEVEN_FOLDS, X[:, 3:], y))  # fmt: skip
    np.testing.assert_array_equal(table, np.hstack(columns))


def test_the_reference_check_can_fail():
    found = clone(TREE).fit(X, y).predict_proba(X)[:, 1:]
    assert np.abs(found - by_hand(TREE, list(KFold(3).split(X)), X, y)).max() > 0.5
