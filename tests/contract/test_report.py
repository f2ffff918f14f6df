"""``leakage_report`` agrees with the contract: it sees planted leaks, and no others."""

import numpy as np
import pytest
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import make_pipeline as make_imblearn_pipeline
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, TimeSeriesSplit
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler

from skstack import KerasFeatureTransformer, StackedKerasClassifier
from skstack.inspection import leakage_report
from tests._models import target_encoder

from .parts import (
    NEIGHBOUR,
    PREDICTORS,
    SELECTOR,
    SUPERVISED,
    TREE,
    UNSUPERVISED,
    NeedsLabels,
    plain_stack,
    slow_if,
)

# Warnings of the fits themselves are ignored here.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*(correlat|passes_y=False):UserWarning")

X, y = make_classification(120, 4, n_informative=3, n_redundant=0, flip_y=0.1, random_state=0)
X = np.column_stack([X, np.arange(120) % 5])
GROUPS = np.arange(120) // 4


def report_of(estimator, X=X, y=y, **options):
    options = {"cv": 2, "n_permutations": 1, **options}
    return leakage_report(estimator, X, y, **options)


def check_clean(report):
    assert report.leaks + report.suspects == [], report


KINDS = {
    **{
        f"{kind}, predictor": PREDICTORS[kind]
        for kind in (
            "tree",
            "imblearn, over",
            "imblearn, under",
            "StackingClassifier",
            "GridSearchCV",
        )
    },
    **{kind: part for kind, part in SUPERVISED.items() if "of the rem" not in kind},
    **{f"{kind}, unsupervised": UNSUPERVISED[kind] for kind in ("PCA", "ColumnTransformer")},
}


# Those that `make test` meets: one of each kind that is tested for y, or fitted, in another way.
FIRST = (
    "tree, predictor",
    "imblearn, over, predictor",
    "SelectKBest",
    "fit(X, y)",
    "fit_transform",
    "ours",
    "PCA, unsupervised",
    "ColumnTransformer, unsupervised",
)


@pytest.mark.parametrize("kind", [slow_if(kind not in FIRST, kind) for kind in KINDS])
def test_a_stack_of_any_part_has_no_finding(kind):
    check_clean(report_of(plain_stack(KINDS[kind], downstream=GaussianNB())))


BEFORE = {"alone": lambda part: part, "before PCA": lambda part: make_pipeline(part, PCA(1))}


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        slow_if(
            (place == "alone") == (kind in ("TargetEncoder among columns", "ours")),
            BEFORE[place],
            kind,
            id=f"{place}-{kind}",
        )
        for place in BEFORE
        for kind in ("SelectKBest", "TargetEncoder among columns", "fit_transform", "ours",
                     "PCA, unsupervised")
    ],
)  # fmt: skip
def test_a_transformer_of_any_part_in_another_pipeline_has_no_finding(kind, place):
    features = KerasFeatureTransformer(place(KINDS[kind]), cv=3)
    check_clean(report_of(make_pipeline(features, StandardScaler(), GaussianNB())))


def test_cross_fitted_memorising_models_have_no_finding():
    part = make_pipeline(KerasFeatureTransformer(NEIGHBOUR, cv=3), PCA(1))
    for memory in (part, NeedsLabels()):
        stack = plain_stack(memory, downstream=LogisticRegression(), passthrough=False)
        check_clean(report_of(stack, n_permutations=2))


HONEST = {
    "selector": make_pipeline(SELECTOR, GaussianNB()),
    "encoder": make_pipeline(target_encoder(), GaussianNB()),
    "union": make_pipeline(FeatureUnion([("axes", PCA(1)), ("best", SELECTOR)]), GaussianNB()),
    "StackingClassifier": StackingClassifier([("a", TREE), ("b", NEIGHBOUR)], GaussianNB(), cv=3),
    "VotingClassifier": VotingClassifier([("a", TREE), ("b", NEIGHBOUR)]),
    "calibrated": CalibratedClassifierCV(GaussianNB(), cv=3),
    "search": GridSearchCV(make_pipeline(SELECTOR, TREE),
                           {"selectkbest__k": [1, 2]}, cv=3),
    "sampler": make_imblearn_pipeline(StandardScaler(), SMOTE(random_state=0), NEIGHBOUR),
    "memory": NEIGHBOUR,
}  # fmt: skip


@pytest.mark.parametrize("kind", HONEST)
def test_leakage_free_pipelines_of_scikit_learn_have_no_finding(kind):
    check_clean(report_of(HONEST[kind]))


def test_a_selector_among_many_columns_is_not_a_leak():
    """It fits its own rows too well, as any selector in a Pipeline; test rows it has not seen."""
    wide = np.random.default_rng(0).normal(size=(120, 60))
    report = report_of(make_pipeline(SelectKBest(k=5), LogisticRegression()), wide)
    assert report.leaks == []


def test_groups_and_time_at_every_depth_have_no_finding():
    stack = plain_stack(plain_stack(TREE), blend=False)
    with config_context(enable_metadata_routing=True):
        check_clean(report_of(stack, groups=GROUPS, cv=list(GROUPED)))


GROUPED = [
    (np.flatnonzero(fold != GROUPS % 3), np.flatnonzero(fold == GROUPS % 3)) for fold in range(3)
]


@pytest.mark.filterwarnings("ignore:(?s).*time-ordered and never predicts:UserWarning")
@pytest.mark.parametrize(
    "part",
    [slow_if(True, TREE), make_pipeline(StandardScaler(), PCA(1)), plain_stack(blend=False)],
)
def test_time_at_every_depth_has_no_finding(part):
    stack = plain_stack(part, cv=TimeSeriesSplit(3))
    check_clean(report_of(stack, time=np.arange(120), cv=TimeSeriesSplit(3)))


# Planted leaks ---------------------------------------------------------------------------------


class InSample(TransformerMixin, BaseEstimator):
    """Features of the rows that made them: what the library refuses to do."""

    def __init__(self, part):
        self.part = part

    def fit(self, X, y):
        self.part_ = clone(self.part).fit(X, y)
        return self

    def transform(self, X):
        if hasattr(self.part_, "predict_proba"):
            return self.part_.predict_proba(X)[:, 1:]
        return self.part_.transform(X)


@pytest.mark.parametrize("part", [TREE, NeedsLabels(), make_pipeline(InSample(NEIGHBOUR), PCA(1))])
def test_in_sample_features_are_detected(part):
    report = report_of(make_pipeline(InSample(part), GaussianNB()))
    assert "in-sample features" in report.leaks
    # The same part, cross-fitted.
    features = KerasFeatureTransformer(part, cv=3)
    check_clean(report_of(make_pipeline(features, GaussianNB())))


class NamedInSample(InSample):
    """In-sample features that have a name, so that scikit-learn wraps them in DataFrames."""

    def get_feature_names_out(self, input_features=None):
        return np.array(["feature"], dtype=object)


def test_global_transform_output_changes_no_finding():
    branches = [("tree", TREE), ("axes", make_pipeline(StandardScaler(), PCA(2)))]
    stack = StackedKerasClassifier(branches, downstream=GaussianNB(), cv=2)
    for estimator in (make_pipeline(NamedInSample(TREE), GaussianNB()), stack):
        expected = report_of(estimator).findings
        for container in ("pandas", "polars"):
            with config_context(transform_output=container):
                assert report_of(estimator).findings == expected, container


def test_groups_that_are_not_passed_on_are_detected():
    """A search that asks its folds for no groups tears them apart, around a stack too."""
    search = GridSearchCV(
        plain_stack(blend=False), {"passthrough": [True]}, cv=KFold(3, shuffle=True)
    )
    report = report_of(search, groups=GROUPS, cv=GROUPED)
    assert "groups across inner folds" in report.leaks


def test_training_on_later_rows_is_detected():
    stack = plain_stack(plain_stack(blend=False), blend=False)
    report = report_of(stack, time=np.arange(120), cv=TimeSeriesSplit(3))
    assert "later rows in training (inner folds)" in report.leaks
