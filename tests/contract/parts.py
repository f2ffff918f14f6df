"""Kinds of parts that a user may hand in, places where they stand, and what contains them."""

from types import SimpleNamespace

import numpy as np
import pytest
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import make_pipeline as make_imblearn_pipeline
from imblearn.under_sampling import RandomUnderSampler
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.feature_selection import RFE, SelectFromModel, SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, TunedThresholdClassifierCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, NeighborhoodComponentsAnalysis
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    QuantileTransformer,
    StandardScaler,
)
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from skstack import KerasFeatureTransformer, StackedKerasClassifier
from tests._models import target_encoder

N = 60
CATEGORY = 4  # the column that holds a category; those before hold noise


def noise(seed=0, n=N):
    """Columns that say nothing of the labels: four of noise, then a category; and labels."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.normal(size=(n, CATEGORY)), rng.integers(0, 5, n)])
    return X, rng.integers(0, 2, n)


# A user's own parts --------------------------------------------------------------------------


class _ByLabel(TransformerMixin, BaseEstimator):
    """Distances to the mean of the rows of each label, and the nearest training row's label."""

    def _learn(self, X, y):
        self.X_, self.y_ = np.asarray(X), np.asarray(y, dtype=float)
        self.means_ = np.stack([self.X_[self.y_ == label].mean(axis=0) for label in (0, 1)])
        return self

    def transform(self, X):
        X = np.asarray(X)
        apart = np.square(X[:, None] - self.means_).sum(axis=2)
        nearest = np.square(X[:, None] - self.X_).sum(axis=2).argmin(axis=1)
        return np.column_stack([apart, self.y_[nearest]])


class NeedsLabels(_ByLabel):
    def fit(self, X, y):
        return self._learn(X, y)


class MayHaveLabels(_ByLabel):
    """Uses y in spite of the default."""

    def fit(self, X, y=None):
        return self._learn(X, np.arange(len(X)) % 2 if y is None else y)


class AnyArguments(_ByLabel):
    def fit(self, X, *args, **kwargs):
        y = args[0] if args else kwargs.get("y")
        return self._learn(X, np.arange(len(X)) % 2 if y is None else y)


class SilentTags(MayHaveLabels):
    """Its tags deny what it does."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        tags.requires_fit = True
        return tags


class InFitTransform(_ByLabel):
    """``fit`` pays no heed to y, ``fit_transform`` does."""

    def fit(self, X, y=None):
        return self._learn(X, np.arange(len(X)) % 2)

    def fit_transform(self, X, y=None):
        return self._learn(X, y).transform(X)


class SupervisedPCA(PCA):
    """A known name that no longer does what it says: weights rows by their label."""

    def fit(self, X, y=None):
        return super().fit(np.asarray(X) * (1.0 if y is None else (1 + 5 * np.asarray(y)[:, None])))

    def fit_transform(self, X, y=None):
        return self.fit(X, y).transform(X)


class LooksAtRows(TransformerMixin, BaseEstimator):
    """Takes y for form's sake and centres its rows: unsupervised, but nobody can know."""

    def fit(self, X, y=None):
        self.mean_ = np.asarray(X).mean(axis=0)
        return self

    def transform(self, X):
        return np.asarray(X) - self.mean_


class Keeper(ClassifierMixin, BaseEstimator):
    """A downstream that keeps the table that it was trained on."""

    def fit(self, X, y):
        self.X_, self.classes_ = np.array(X, dtype=float), np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


# Kinds ---------------------------------------------------------------------------------------

TREE = DecisionTreeClassifier(random_state=0)
NEIGHBOUR = KNeighborsClassifier(1)
REGRESSION_TREE = DecisionTreeRegressor(random_state=0)
SELECTOR = SelectKBest(k=2)
ENCODER = target_encoder(target_type="binary", smooth=1.0)


def plain_stack(part=TREE, **options):
    options = {"downstream": GaussianNB(), "cv": 3, "random_state": 0, **options}
    return StackedKerasClassifier([("part", part)], **options)


PREDICTORS = {
    "tree": TREE,
    "neighbour": NEIGHBOUR,
    "without probabilities": LinearSVC(random_state=0),
    "regressor": REGRESSION_TREE,
    "regressor of a transformed target": TransformedTargetRegressor(REGRESSION_TREE),
    "PLS": PLSRegression(1),
    "Pipeline": make_pipeline(StandardScaler(), GaussianNB()),
    "selector in a Pipeline": make_pipeline(SELECTOR, TREE),
    "imblearn, over": make_imblearn_pipeline(SMOTE(k_neighbors=2, random_state=0), TREE),
    "imblearn, under": make_imblearn_pipeline(
        StandardScaler(), RandomUnderSampler(random_state=0), NEIGHBOUR
    ),
    "GridSearchCV": GridSearchCV(TREE, {"max_depth": [1, None]}, cv=3),
    "calibrated": CalibratedClassifierCV(GaussianNB(), cv=3),
    "threshold": TunedThresholdClassifierCV(GaussianNB(), cv=3, thresholds=5),
    "VotingClassifier": VotingClassifier([("a", TREE), ("b", NEIGHBOUR)], voting="soft"),
    "StackingClassifier": StackingClassifier([("a", TREE)], GaussianNB(), cv=3),
    "stack": plain_stack(),
    "stack in a stack": plain_stack(plain_stack()),
}

# Transformers that learn from y, or may: nothing but cross-fitting is right for them.
SUPERVISED = {
    "SelectKBest": SELECTOR,
    "SelectFromModel": SelectFromModel(TREE, threshold=-np.inf, max_features=2),
    "RFE": RFE(Ridge(), n_features_to_select=2),
    "LinearDiscriminantAnalysis": LinearDiscriminantAnalysis(),
    "NeighborhoodComponentsAnalysis": NeighborhoodComponentsAnalysis(1, max_iter=5),
    "TargetEncoder": ENCODER,
    "TargetEncoder among columns": ColumnTransformer(
        [("code", ENCODER, [CATEGORY])], remainder="passthrough"
    ),
    "selector of the remaining columns": ColumnTransformer(
        [("two", PCA(1), [0, 1])], remainder=SelectKBest(k=1)
    ),
    "FeatureUnion": FeatureUnion([("axes", PCA(1)), ("best", SELECTOR)]),
    "Pipeline": make_pipeline(StandardScaler(), SELECTOR),
    "union in columns in a Pipeline": make_pipeline(
        StandardScaler(),
        ColumnTransformer([("all", FeatureUnion([("best", SELECTOR)]), [0, 1, 2, 3])]),
    ),
    "fit(X, y)": NeedsLabels(),
    "fit(X, y=None)": MayHaveLabels(),
    "fit(X, *args)": AnyArguments(),
    "silent tags": SilentTags(),
    "fit_transform": InFitTransform(),
    "subclass of PCA": SupervisedPCA(2),
    "StackingClassifier": StackingClassifier([("a", TREE)], GaussianNB(), cv=3, passthrough=True),
    "ours": KerasFeatureTransformer(TREE, cv=3, passthrough=True),
    "ours, of a selector": KerasFeatureTransformer(make_pipeline(SELECTOR, PCA(1)), cv=3),
    "stack": plain_stack(blend=False),  # which features do not depend on
}

# Transformers that are known to pay no heed to y.
UNSUPERVISED = {
    "StandardScaler": StandardScaler(),
    "PCA": PCA(2),
    "KBinsDiscretizer": KBinsDiscretizer(3, encode="ordinal", strategy="uniform"),
    "QuantileTransformer": QuantileTransformer(n_quantiles=5),
    "FunctionTransformer": FunctionTransformer(np.tanh),
    "Pipeline": make_pipeline(StandardScaler(), PCA(2)),
    "Pipeline with an empty step": Pipeline([("none", "passthrough"), ("axes", PCA(1))]),
    "FeatureUnion": FeatureUnion([("axes", PCA(1)), ("scaled", StandardScaler())]),
    "ColumnTransformer": ColumnTransformer(
        [("axes", PCA(1), [0, 1]), ("gone", "drop", [2])], remainder=StandardScaler()
    ),
    "frozen": FrozenEstimator(LinearDiscriminantAnalysis().fit(*noise(1))),
    "ours": KerasFeatureTransformer(PCA(1)),
}

# Where a transformer stands: by itself, or before a last step.
PLACES = {
    "alone": lambda part: part,
    "before PCA": lambda part: make_pipeline(part, PCA(1)),
    "before a user's own": lambda part: make_pipeline(part, LooksAtRows()),
    "before a classifier": lambda part: make_pipeline(part, TREE),
}


# What contains a part: each gives the features that training rows get -------------------------


def in_transformer(part, cv, X, y, **metadata):
    return KerasFeatureTransformer(part, cv=cv).fit_transform(X, y, **metadata)


def in_stack(part, cv, X, y, **metadata):
    if isinstance(part, KerasFeatureTransformer):  # which has folds of its own
        part = KerasFeatureTransformer(part, cv=cv)
    return bare_stack(part, cv).fit_transform(X, y, **metadata)


def in_branch_of_its_own(part, cv, X, y, **metadata):
    return bare_stack(KerasFeatureTransformer(part, cv=cv), cv).fit_transform(X, y, **metadata)


def in_nested_stack(part, cv, X, y, **metadata):
    return bare_stack(plain_stack(part), cv).fit_transform(X, y, **metadata)


def in_foreign_pipeline(part, cv, X, y):
    steps = [("features", KerasFeatureTransformer(part, cv=cv)), ("keeper", Keeper())]
    return Pipeline(steps).fit(X, y)[-1].X_


def in_foreign_union(part, cv, X, y):
    return FeatureUnion([("features", KerasFeatureTransformer(part, cv=cv))]).fit_transform(X, y)


def bare_stack(part, cv=3, **options):
    """A stack whose table is the features of one branch, as they come."""
    options = {"downstream": Keeper(), "scaler": None, "passthrough": False, **options}
    return StackedKerasClassifier([("part", part)], cv=cv, random_state=0, **options)


# Parts that write down what they learn from ---------------------------------------------------

LOG = SimpleNamespace(fits=[], questions=[])


def clear_log():
    LOG.fits, LOG.questions = [], []


def numbers(X):
    """Numbers of rows, which stand in the last column and travel with the rows."""
    return np.rint(np.asarray(X, dtype=float)[:, -1]).astype(int)


def numbered(seed=0, n=80):
    """Noise with the rows' numbers in the last column; labels that take turns."""
    X, _ = noise(seed, n)
    return np.column_stack([X[:, :2], np.arange(n)]), np.arange(n) % 2


class _Recorder(BaseEstimator):
    def __init__(self, who="part"):
        self.who = who

    def _write_fit(self, X, y, weights=None, watched=None):
        self.rows_ = numbers(X)
        assert np.isfinite(np.asarray(X, dtype=float)).all(), "rows without features"
        fit = SimpleNamespace(who=self.who, rows=self.rows_, y=y, weights=weights, watched=watched)
        LOG.fits.append(fit)
        return self

    def _write_question(self, X):
        asked = np.setdiff1d(numbers(X), self.rows_)
        if len(asked):
            LOG.questions.append(SimpleNamespace(who=self.who, rows=self.rows_, asked=asked))


class RecordingClassifier(ClassifierMixin, _Recorder):
    """Gives the share of the second label; writes down its rows, and those that it is asked of."""

    def fit(self, X, y, sample_weight=None):
        self.classes_, self.share_ = np.unique(y), np.mean(np.asarray(y) == np.max(y))
        return self._write_fit(X, y, sample_weight)

    def predict_proba(self, X):
        self._write_question(X)
        return np.tile([1 - self.share_, self.share_], (len(X), 1))

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class RecordingDownstream(RecordingClassifier):
    """Stops early by rows that it is given to watch."""

    def __init__(self, who="downstream", early_stopping=False, validation_fraction=0.2):
        super().__init__(who)
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction

    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
        super().fit(X, y, sample_weight)
        self.X_val_ = X_val
        LOG.fits[-1].watched = None if X_val is None else numbers(X_val)
        return self


class RecordingTransformer(TransformerMixin, _Recorder):
    """Passes rows through; writes down its rows, its y, and the rows that it is asked of."""

    def fit(self, X, y=None):
        return self._write_fit(X, y)

    def transform(self, X):
        self._write_question(X)
        return np.asarray(X, dtype=float)


class RecordingSampler(BaseEstimator):
    """Repeats the rows of the second label, with their places, and writes down what it got."""

    def __init__(self, who="sampler"):
        self.who = who

    def fit(self, X, y):
        return self

    def fit_resample(self, X, y):
        LOG.fits.append(SimpleNamespace(who=self.who, rows=numbers(X), y=y, watched=None))
        again = np.flatnonzero(np.asarray(y) == 1)
        self.sample_indices_ = np.concatenate([np.arange(len(X)), again])
        return np.asarray(X)[self.sample_indices_], np.asarray(y)[self.sample_indices_]


def student(who="part"):
    return RecordingClassifier(who)


def inner(part=None, **options):
    """A stack whose table holds the rows' numbers in the last column, at every depth."""
    options = {"downstream": RecordingDownstream("inner downstream"), "scaler": None, "cv": 3,
               "random_state": 0, **options}  # fmt: skip
    return StackedKerasClassifier([("part", student() if part is None else part)], **options)


def ours(part=None, **options):
    options = {"cv": 3, "passthrough": True, **options}
    return KerasFeatureTransformer(student() if part is None else part, **options)


# Folds must be handed on: nobody but us stands between.
STRICT = {
    "estimator": student(),
    "transformer": ours(),
    "steps": make_pipeline(RecordingTransformer("step"), student()),
    "steps before ours": make_pipeline(RecordingTransformer("step"), ours()),
    "steps in ours": ours(make_pipeline(RecordingTransformer("step"), student())),
    "step before a latent": make_pipeline(RecordingTransformer(), PCA(1)),
    "transformer of a transformer": ours(ours(passthrough=False)),
    "stack": inner(),
    "transformer of a stack": ours(inner()),
    "stack of a transformer": inner(ours()),
    "stack of steps": inner(make_pipeline(RecordingTransformer("step"), student())),
    "stack in a stack": inner(inner()),
}
NESTED = "stack in a stack"  # a blend of blends: hundreds of fits


def slow_if(slow, *values, **options):
    """A case of a test, which `make test` leaves out if other cases hold the same."""
    return pytest.param(*values, marks=[pytest.mark.slow] if slow else [], **options)


# Something of scikit-learn's stands between: handed on, or refused.
BETWEEN = {
    "step": make_pipeline(ours(), student("last")),
    "step of ours": ours(make_pipeline(ours(), student("last"))),
    "union": make_pipeline(FeatureUnion([("a", ours()), ("b", ours())]), student("last")),
    "columns": make_pipeline(ColumnTransformer([("a", ours(), slice(0, 3))]), student("last")),
    "stack at the end of a Pipeline": make_pipeline(RecordingTransformer("step"), inner()),
    "stack as a step": make_pipeline(inner(), student("last")),
}
