"""Clause 1: whatever receives y, and is not known to ignore it, counts as learning from y."""

import inspect
import warnings

import numpy as np
import pandas as pd
import pytest
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import make_pipeline as make_imblearn_pipeline
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import IsolationForest
from sklearn.feature_extraction import DictVectorizer, FeatureHasher
from sklearn.feature_extraction.image import PatchExtractor
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import KFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import all_estimators

from skstack import KerasClassifier, KerasFeatureTransformer, StackedKerasClassifier
from tests._models import FIT, SMALL

from .parts import (
    LOG,
    PREDICTORS,
    SUPERVISED,
    TREE,
    UNSUPERVISED,
    Keeper,
    LooksAtRows,
    NeedsLabels,
    RecordingClassifier,
    RecordingTransformer,
    bare_stack,
    clear_log,
    noise,
    numbered,
)


def learns_from_y(estimator):
    from skstack._splits.supervision import learns_from_y

    return learns_from_y(estimator)


@pytest.fixture(autouse=True)
def empty_log():
    clear_log()


# scikit-learn's own ----------------------------------------------------------------------------

# What scikit-learn's transformers cannot be made without.
ARGUMENTS = {
    "ColumnTransformer": ([("all", StandardScaler(), slice(0, 24))],),
    "FeatureUnion": ([("all", StandardScaler())],),
    "RFE": (LinearRegression(),),
    "RFECV": (LinearRegression(),),
    "SelectFromModel": (DecisionTreeClassifier(random_state=0),),
    "SequentialFeatureSelector": (GaussianNB(),),
    "SparseCoder": (np.eye(24),),
    "StackingClassifier": ([("a", TREE)],),
    "StackingRegressor": ([("a", Ridge())],),
    "VotingClassifier": ([("a", TREE)],),
    "VotingRegressor": ([("a", Ridge())],),
}
SLOW = (
    "DictionaryLearning", "FactorAnalysis", "FastICA", "LatentDirichletAllocation",
    "MiniBatchDictionaryLearning", "MiniBatchNMF", "MiniBatchSparsePCA", "NMF", "SparsePCA",
)  # fmt: skip
SETTINGS = {
    **{name: {"n_components": 1} for name in ("CCA", "PLSCanonical", "PLSRegression", "PLSSVD")},
    **{name: {"n_components": 2, "max_iter": 2} for name in SLOW},
    "LatentDirichletAllocation": {"n_components": 2, "max_iter": 1},
    "GaussianRandomProjection": {"n_components": 3},
    "GenericUnivariateSelect": {"mode": "k_best", "param": 3},
    "KBinsDiscretizer": {"strategy": "uniform", "encode": "ordinal"},
    "NeighborhoodComponentsAnalysis": {"max_iter": 5},
    "RandomTreesEmbedding": {"n_estimators": 5},
    "QuantileTransformer": {"n_quantiles": 9},
    "RFE": {"n_features_to_select": 3},
    "RFECV": {"min_features_to_select": 3, "cv": 3},
    "SelectFromModel": {"max_features": 3, "threshold": -np.inf},
    "SelectKBest": {"k": 3},
    "SelectPercentile": {"percentile": 15},
    "SelectFdr": {"alpha": 0.9},
    "SelectFpr": {"alpha": 0.5},
    "SelectFwe": {"alpha": 0.99},
    "SequentialFeatureSelector": {"n_features_to_select": 2, "cv": 2},
    "SparseRandomProjection": {"n_components": 3},
    "TargetEncoder": {"target_type": "continuous"},
    "VotingClassifier": {"voting": "soft"},
}
LABELS = ("Label", "MultiLabel")  # they transform y
# They read texts, dicts or pictures.
NO_TABLE = [
    CountVectorizer, DictVectorizer, FeatureHasher, HashingVectorizer, PatchExtractor,
    TfidfVectorizer,
]  # fmt: skip


TRANSFORMERS = {
    name: kind
    for name, kind in all_estimators(type_filter="transformer")
    if hasattr(kind, "transform") and kind not in NO_TABLE and not name.startswith(LABELS)
}


def instance(name, kind):
    made = kind(*ARGUMENTS.get(name, ()), **SETTINGS.get(name, {}))
    return made.set_params(random_state=0) if "random_state" in made.get_params() else made


def table_for(name):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 4, (60, 24)).astype(float) + 0.5 * rng.random((60, 24))
    if name == "KernelCenterer":
        return X @ X.T
    if name in ("LatentDirichletAllocation", "PowerTransformer", "SequentialFeatureSelector"):
        return X[:, :6]  # they take long for each column
    return X[:, 0] if name == "IsotonicRegression" else X


def transformed(estimator, X, y):
    values = clone(estimator).fit(X, y).transform(X)
    return values.toarray() if issparse(values) else np.asarray(values)


def moved_by_labels(estimator, X):
    """Whether fits with unlike y transform unlike: by derivation, whether it learns from y."""
    rng = np.random.default_rng(1)
    targets = [rng.permutation(np.arange(60) % 2) for _ in range(6)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = transformed(estimator, X, targets[0])
        others = (transformed(estimator, X, y) for y in targets[1:])
        return any(other.shape != first.shape or (other != first).any() for other in others)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_of_scikit_learn_are_classified_as_their_fits_behave(name):
    estimator = instance(name, TRANSFORMERS[name])
    assert learns_from_y(estimator) == moved_by_labels(estimator, table_for(name))


@pytest.mark.parametrize("kind", NO_TABLE)
def test_text_and_image_transformers_ignore_y(kind):
    assert not learns_from_y(kind())


@pytest.mark.filterwarnings("ignore:Class PassiveAggressive:FutureWarning")
@pytest.mark.parametrize("type_filter", ["classifier", "regressor"])
def test_all_predictors_of_scikit_learn_learn_from_y(type_filter):
    for name, kind in all_estimators(type_filter=type_filter):
        parameters = inspect.signature(kind).parameters.values()
        if name in ARGUMENTS or all(each.default is not each.empty for each in parameters):
            assert learns_from_y(instance(name, kind)), name


# Composites and users' own ---------------------------------------------------------------------


class NoLabels(TransformerMixin, BaseEstimator):
    def fit(self, X):
        return self

    def transform(self, X):
        return X


class OwnPCA(PCA):
    """Nothing but a name of its own; nobody can know."""


class OwnFit(StandardScaler):
    def fit(self, X, y=None, sample_weight=None):
        return super().fit(X if y is None else np.asarray(X)[np.asarray(y) == 1])


IGNORE = {
    **UNSUPERVISED,
    "fit(X)": NoLabels(),
    "outliers": IsolationForest(),
    "KMeans": KMeans(2),
    "Pipeline of those": make_pipeline(StandardScaler(), make_pipeline(PCA(1)), KBinsDiscretizer()),
    "Pipeline with None": Pipeline([("none", None), ("a", PCA())]),
    "dropped selector": ColumnTransformer([("a", "drop", [0])], remainder=PCA()),
    "passed on": make_column_transformer(("passthrough", [0]), (PCA(), [1])),
    "union in columns": make_column_transformer((FeatureUnion([("a", PCA())]), [0, 1])),
    "frozen classifier": FrozenEstimator(GaussianNB().fit(*noise())),
    "Pipeline of a frozen selector": make_pipeline(
        FrozenEstimator(SelectKBest(k=2).fit(*noise())), PCA(1)
    ),
    "a function": FunctionTransformer(np.log1p),
    "ours of ours": KerasFeatureTransformer(KerasFeatureTransformer(StandardScaler())),
    "ours of a frozen one": KerasFeatureTransformer(
        FrozenEstimator(LinearDiscriminantAnalysis().fit(*noise()))
    ),
}


class Delegates(TransformerMixin, BaseEstimator):
    """``fit`` is that of another object, which the class does not show."""

    def __getattr__(self, name):
        if name == "fit":
            return SelectKBest(k=2).fit
        raise AttributeError(name)


class WithoutFit(BaseEstimator):
    """Keeps the column that y is correlated with most."""

    def fit_transform(self, X, y=None):
        self.column_ = [np.abs((X - X.mean(axis=0)).T @ (y - y.mean())).argmax()]
        return self.transform(X)

    def transform(self, X):
        return X[:, self.column_]


LEARN = {
    "fit_transform alone, in a union": FeatureUnion([("a", WithoutFit())]),
    "fit_transform alone, in columns": ColumnTransformer([("a", WithoutFit(), [0, 1])]),
    **PREDICTORS,
    "fit of another object": Delegates(),
    **SUPERVISED,
    "subclass": OwnPCA(),
    "subclass of a scaler": OwnFit(),
    "takes y for form's sake": LooksAtRows(),
    "last of a Pipeline": make_pipeline(StandardScaler(), NeedsLabels()),
    "first of a Pipeline": make_pipeline(NeedsLabels(), StandardScaler()),
    "deep in a Pipeline": make_pipeline(make_pipeline(make_pipeline(LooksAtRows()), PCA()), PCA()),
    "in a union": FeatureUnion([("a", PCA()), ("b", make_pipeline(OwnPCA()))]),
    "in the remainder": ColumnTransformer([("a", PCA(), [0])], remainder=NeedsLabels()),
    "resampled": make_imblearn_pipeline(SMOTE(), PCA()),
    "ours of a user's own": KerasFeatureTransformer(make_pipeline(LooksAtRows(), PCA())),
    "stack of nothing that learns": StackedKerasClassifier([("a", PCA())], downstream=GaussianNB()),
    "linear model in columns": ColumnTransformer(
        [("a", KerasFeatureTransformer(LogisticRegression()), [0])]
    ),
}


@pytest.mark.parametrize("kind", IGNORE)
def test_known_to_ignore_y(kind):
    assert learns_from_y(IGNORE[kind]) is False


@pytest.mark.parametrize("kind", ["alone", "after a step", "before a step", "in a stack"])
def test_a_part_that_is_known_to_ignore_y_never_receives_it(kind, monkeypatch):
    fit_transform, received = PCA.fit_transform, []

    def spy(self, X, y=None):
        received.append(y)
        return fit_transform(self, X, y)

    monkeypatch.setattr(PCA, "fit_transform", spy)
    monkeypatch.setattr(PCA, "fit", lambda self, X, y=None: spy(self, X, y) is None or self)
    X, y = numbered()
    part = {
        "after a step": make_pipeline(StandardScaler(), PCA(1)),
        "before a step": make_pipeline(PCA(1), StandardScaler()),
    }.get(kind, PCA(1))
    if kind == "in a stack":
        bare_stack(part, 3).fit(X, y)
    else:
        KerasFeatureTransformer(part, cv=3).fit_transform(X, y)
        KerasFeatureTransformer(part, cv=3).fit(X, y)
    assert received
    assert all(each is None for each in received)


class PicksColumn(TransformerMixin, BaseEstimator):
    """Keeps the words or the numbers of a table, whichever is told apart by y."""

    def fit(self, X, y):
        self.column_ = "word" if len(set(X["word"][y == 1]) & set(X["word"][y == 0])) else "number"
        return self

    def transform(self, X):
        return X[[self.column_]]


def test_columns_that_steps_choose_by_y_are_described_in_each_fold():
    """Here the steps choose words by all rows, and numbers by the rows of either fold."""
    y = np.arange(40) % 2
    halves = [np.array(["a", "b"])[y[:20]], np.array(["b", "a"])[y[20:]]]
    X = pd.DataFrame({"word": np.concatenate(halves), "number": np.linspace(0, 1, 40)})
    part, cv = make_pipeline(PicksColumn(), KerasClassifier(SMALL, **FIT)), KFold(2)
    found = KerasFeatureTransformer(part, cv=cv).fit_transform(X, y)
    for train, test in cv.split(X):
        assert clone(part).fit(X.iloc[train], y[train])[0].column_ == "number"
        np.testing.assert_allclose(
            found[test],
            clone(part).fit(X.iloc[train], y[train]).predict_proba(X.iloc[test])[:, 1:],
            atol=1e-6,
        )
    assert clone(part).fit(X, y)[0].column_ == "word"


@pytest.mark.parametrize("kind", LEARN)
def test_not_known_to_ignore_y(kind):
    assert learns_from_y(LEARN[kind]) is True


def test_parts_without_fit_are_cross_fitted():
    X, y = noise()
    part = make_pipeline(LEARN["fit_transform alone, in columns"], LinearRegression())
    found = KerasFeatureTransformer(part, cv=KFold(2)).fit_transform(X, y)
    for train, test in KFold(2).split(X):
        fitted = clone(part).fit(X[train], y[train])
        np.testing.assert_allclose(found[test, 0], fitted.predict(X[test]), atol=1e-6)


def test_transformers_receive_y_even_if_they_do_not_need_it():
    X, y = numbered()
    for part in (RecordingTransformer(), make_pipeline(RecordingTransformer(), PCA(1)),
                 FeatureUnion([("a", RecordingTransformer())])):  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            KerasFeatureTransformer(part, cv=3).fit_transform(X, y)
            KerasFeatureTransformer(part, cv=3).fit(X, y)
            bare_stack(part, 3).fit(X, y)
        assert len(LOG.fits) == 9
        for fit in LOG.fits:
            np.testing.assert_array_equal(fit.y, y[fit.rows])
        clear_log()


@pytest.mark.parametrize(
    "part", [NeedsLabels(), SelectKBest(k=2), make_pipeline(SelectKBest(k=2), PCA(1)), TREE]
)
def test_parts_that_require_y_raise_without_it(part):
    X, _ = noise()
    for fit in (KerasFeatureTransformer(part).fit, KerasFeatureTransformer(part).fit_transform):
        with pytest.raises((ValueError, TypeError), match=r"\by\b"):
            fit(X)


@pytest.mark.parametrize("part", [LooksAtRows(), make_pipeline(LooksAtRows(), PCA(1)), OwnPCA(1)])
def test_parts_that_do_not_require_y_are_fitted_once_without_it(part):
    X, _ = noise()
    transformer = KerasFeatureTransformer(part)
    np.testing.assert_array_equal(transformer.fit_transform(X), transformer.transform(X))


# passes_y --------------------------------------------------------------------------------------

NO_LABELS = {
    "alone": RecordingTransformer(),
    "in a Pipeline": make_pipeline(RecordingTransformer(), PCA(1)),
    "last of a Pipeline": make_pipeline(StandardScaler(), RecordingTransformer()),
    "in a union": FeatureUnion([("a", RecordingTransformer()), ("b", PCA(1))]),
    "in columns": ColumnTransformer([("a", RecordingTransformer(), slice(0, 3))]),
}


def without_labels(part, **options):
    return KerasFeatureTransformer(part, passes_y=False, **options)


@pytest.mark.parametrize("kind", NO_LABELS)
def test_without_passes_y_the_part_is_fitted_once(kind):
    X, y = numbered()
    transformer = without_labels(NO_LABELS[kind], cv=3)
    features = transformer.fit_transform(X, y)
    assert [fit.y for fit in LOG.fits] == [None]
    np.testing.assert_array_equal(features, transformer.transform(X))
    np.testing.assert_array_equal(features, clone(transformer).fit_transform(X))
    np.testing.assert_array_equal(features, clone(transformer).fit(X, y).transform(X))


def test_passes_y_in_a_stack():
    X, y = numbered()
    table = bare_stack(without_labels(make_pipeline(LooksAtRows(), PCA(1)))).fit_transform(X, y)
    expected = make_pipeline(LooksAtRows(), PCA(1)).fit(X).transform(X)
    np.testing.assert_array_equal(table, expected.astype(np.float32))
    steps = make_pipeline(RecordingTransformer(), without_labels(PCA(1)))
    bare_stack(steps).fit(X, y)
    assert [fit.y for fit in LOG.fits] == [None]


@pytest.mark.filterwarnings("ignore:(?s).*time-ordered and never predicts:UserWarning")
def test_passes_y_does_not_affect_time_order():
    from sklearn.model_selection import TimeSeriesSplit

    X, y = numbered()
    bare_stack(without_labels(RecordingTransformer()), TimeSeriesSplit(3)).fit(X, y)
    assert all(fit.y is None for fit in LOG.fits)
    assert len(LOG.fits) == 4
    assert all(question.rows.max() < question.asked.min() for question in LOG.questions)
    assert len(LOG.questions) >= 3


def test_passes_y_is_a_parameter_like_any_other():
    assert KerasFeatureTransformer().passes_y is True
    transformer = without_labels(RecordingTransformer())
    assert clone(transformer).get_params()["passes_y"] is False
    stack = StackedKerasClassifier([("a", transformer)])
    assert stack.set_params(a__passes_y=True).get_params()["a__passes_y"] is True
    X, y = numbered()
    with pytest.raises(ValueError, match="passes_y"):
        KerasFeatureTransformer(RecordingTransformer(), passes_y="no").fit(X, y)


class NeedsLabelsWithoutFit(WithoutFit):
    def fit_transform(self, X, y):
        return super().fit_transform(X, y)


@pytest.mark.parametrize(
    "part",
    [
        RecordingClassifier(),
        make_pipeline(StandardScaler(), RecordingClassifier()),
        FeatureUnion([("a", NeedsLabelsWithoutFit())]),
    ],
)
def test_a_part_that_requires_y_is_refused_with_passes_y_false(part):
    X, y = numbered()
    for fit in (without_labels(part).fit, without_labels(part).fit_transform,
                bare_stack(without_labels(part)).fit):  # fmt: skip
        with pytest.raises(ValueError, match="passes_y"):
            fit(X, y)
    assert not LOG.fits


# Fold models that have unlike axes -------------------------------------------------------------


class Turned(TransformerMixin, BaseEstimator):
    """X on axes that depend on the number of rows."""

    def fit(self, X, y=None):
        rng = np.random.default_rng(len(X))
        self.axes_ = np.linalg.qr(rng.normal(size=(X.shape[1],) * 2))[0]
        return self

    def transform(self, X):
        return X @ self.axes_


class Mirrored(LooksAtRows):
    """One sign in small fits, the other in large ones."""

    def fit(self, X, y=None):
        self.sign_ = 1 if len(X) > 50 else -1
        return super().fit(X)

    def transform(self, X):
        return self.sign_ * super().transform(X)


class Noisy(LooksAtRows):
    """Nearly the same in each fit."""

    def transform(self, X):
        return np.asarray(X) * np.array([1.0, 2.0, 1.0, 1.0, -1.0]) - self.mean_


class Constant(LooksAtRows):
    def transform(self, X):
        return np.column_stack([np.ones(len(X)), np.asarray(X)[:, 0]])


@pytest.mark.parametrize("part", [Turned(), Mirrored(), make_pipeline(LooksAtRows(), Mirrored())])
def test_different_axes_of_folds_warn(part):
    X, y = noise()
    with pytest.warns(UserWarning, match=r"(?s)passes_y=False"):
        KerasFeatureTransformer(part, cv=3).fit_transform(X, y)
    with pytest.warns(UserWarning, match=r"(?s)turned.*passes_y=False"):
        StackedKerasClassifier([("turned", part), ("tree", TREE)], downstream=Keeper()).fit(X, y)


@pytest.mark.parametrize(
    "part",
    [
        LooksAtRows(),
        Noisy(),
        Constant(),
        TREE,
        SUPERVISED["TargetEncoder"],
        PREDICTORS["neighbour"],
        PREDICTORS["regressor"],
        PREDICTORS["stack"],
        KerasFeatureTransformer(TREE, cv=3),
        make_pipeline(Turned(), TREE),
        without_labels(Turned()),
        StandardScaler(),
        make_pipeline(StandardScaler(), PCA(2)),
    ],
)
def test_equal_axes_and_predictors_do_not_warn(part):
    """Warnings are errors here. A memory of noise is unlike in each fold, and means the same."""
    X, y = noise()
    transformer = part if isinstance(part, KerasFeatureTransformer) else KerasFeatureTransformer(
        part, cv=3)  # fmt: skip
    transformer.fit_transform(X, y)
    bare_stack(part).fit(X, y)


def test_a_fit_without_features_of_training_rows_does_not_warn():
    X, y = noise()
    KerasFeatureTransformer(Turned(), cv=3).fit(X, y)


def test_the_warning_is_issued_once_per_fit():
    X, y = noise()
    with pytest.warns(UserWarning, match="passes_y=False") as caught:
        KerasFeatureTransformer(Turned(), cv=5).fit_transform(X, y)
    assert len([each for each in caught if "passes_y" in str(each.message)]) == 1


def test_transformers_that_memorise_rows_do_not_warn():
    """Compared are rows that both were trained on: a memory agrees there, whatever it asks of."""
    X, y = noise()
    KerasFeatureTransformer(OnlyItsRows(), cv=3).fit_transform(X, y)


class OnlyItsRows(LooksAtRows):
    """Its rows as they are, others at random."""

    def fit(self, X, y=None):
        self.known_ = {tuple(row) for row in np.asarray(X)}
        return super().fit(X)

    def transform(self, X):
        rng = np.random.default_rng(0)
        X = np.asarray(X)
        known = np.array([tuple(row) in self.known_ for row in X])
        return np.where(known[:, None], X, rng.normal(size=X.shape))
