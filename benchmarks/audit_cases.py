"""Cases for `leakage_report`: planted leaks, each with a clean twin, and clean pipelines.

Planted leaks are grouped by the taxonomy of Kapoor & Narayanan, "Leakage and the reproducibility
crisis in machine-learning-based science" (Patterns 4, 2023), extended by leaks inside an estimator.
A case is (estimator, X, y, options of `leakage_report`).
"""

import numpy as np
import pandas as pd
from imblearn.ensemble import BalancedRandomForestClassifier
from imblearn.over_sampling import ADASYN, SMOTE, SMOTENC, BorderlineSMOTE, RandomOverSampler
from imblearn.pipeline import make_pipeline
from imblearn.under_sampling import RandomUnderSampler
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    load_wine,
    make_blobs,
    make_classification,
    make_friedman1,
    make_moons,
    make_regression,
)
from sklearn.decomposition import NMF, PCA, FastICA, KernelPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import (
    RFE,
    RFECV,
    SelectFromModel,
    SelectFwe,
    SelectKBest,
    SelectPercentile,
    SequentialFeatureSelector,
    VarianceThreshold,
    f_regression,
    mutual_info_classif,
)
from sklearn.frozen import FrozenEstimator
from sklearn.impute import IterativeImputer, KNNImputer, MissingIndicator, SimpleImputer
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    PoissonRegressor,
    Ridge,
    RidgeCV,
    SGDClassifier,
)
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    GroupShuffleSplit,
    HalvingGridSearchCV,
    KFold,
    LeaveOneGroupOut,
    RandomizedSearchCV,
    RepeatedStratifiedKFold,
    ShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    TimeSeriesSplit,
    TunedThresholdClassifierCV,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    NeighborhoodComponentsAnalysis,
)
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from skstack import KerasClassifier, KerasFeatureTransformer, StackedKerasClassifier
from skstack.losses import TeacherLoss
from skstack.networks import MLP

N = 240
LOGISTIC = LogisticRegression(max_iter=500)
FOREST = RandomForestClassifier(n_estimators=15, random_state=0)
ANY_ORDER = KFold(3, shuffle=True, random_state=0)
TIMES = np.arange(N)


def table(seed=0, n=N, p=8, **options):
    """Continuous columns in units of their own, and two classes that they predict in part."""
    options = {"n_informative": 4, "flip_y": 0.2, "weights": [0.65], **options}
    X, y = make_classification(n, p, random_state=seed, **options)
    rng = np.random.default_rng(seed)
    return X * rng.uniform(1, 20, p) + rng.uniform(-50, 50, p), y


def numbers(seed=0, n=N, p=6, noise=30.0):
    X, y = make_regression(n, p, n_informative=4, noise=noise, random_state=seed)
    rng = np.random.default_rng(seed)
    return X * rng.uniform(1, 20, p) + rng.uniform(-50, 50, p), y * 0.3 + 120


def frame(seed=0, n=N):
    """A customer table: numbers, words and gaps."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "age": rng.integers(18, 90, n),
            "income": rng.lognormal(10, 0.5, n),
            "balance": rng.normal(1000, 400, n),
            "city": rng.choice(["Bern", "Graz", "Lyon", "Oslo", "Pisa"], n),
            "job": rng.choice([f"job{i}" for i in range(12)], n, p=np.arange(12, 0, -1) / 78),
            "married": rng.random(n) < 0.5,
        }
    )
    score = (X["age"] - 50) / 20 + (X["city"] == "Oslo") + rng.normal(0, 1.2, n)
    return X, (score > 0.4).astype(int).to_numpy()


def with_gaps(X, seed=0, share=0.15):
    X = np.array(X, dtype=float)
    X[np.random.default_rng(seed).random(X.shape) < share] = np.nan
    return X


WORDS = [f"{a}{b}" for a in ("ka", "lo", "mi", "ru", "te") for b in ("bin", "dor", "fel", "gus")]


def texts(seed=0, n=160):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    tilt = np.linspace(-1, 1, len(WORDS))
    rows = []
    for label in y:
        p = np.exp((2 * label - 1) * 0.8 * tilt)
        rows.append(" ".join(rng.choice(WORDS, rng.integers(8, 20), p=p / p.sum())))
    return rows, y


class InSample(TransformerMixin, BaseEstimator):
    """Predictions for the very rows that the model was fitted on, as many write by hand."""

    def __init__(self, model, method="predict_proba"):
        self.model, self.method = model, method

    def fit(self, X, y):
        self.model_ = clone(self.model).fit(X, y)
        return self

    def transform(self, X):
        return np.asarray(getattr(self.model_, self.method)(X)).reshape(len(X), -1)[:, -1:]


class NaiveTargetEncoder(TransformerMixin, BaseEstimator):
    """Mean target of each category, of all rows that it is fitted on."""

    def fit(self, X, y):
        X = pd.DataFrame(X)
        self.prior_ = np.mean(y)
        self.means_ = [pd.Series(y).groupby(X[c].to_numpy()).mean() for c in X]
        return self

    def transform(self, X):
        X = pd.DataFrame(X)
        columns = zip(X, self.means_, strict=True)
        return np.column_stack([X[c].map(m).fillna(self.prior_) for c, m in columns]).astype(float)


class Landmarks(TransformerMixin, BaseEstimator):
    """Distances to the rows of a constructor argument."""

    def __init__(self, rows):
        self.rows = rows

    def fit(self, X, y=None):
        self.n_features_in_ = np.shape(X)[1]
        return self

    def transform(self, X):
        return np.linalg.norm(np.asarray(X)[:, None] - np.asarray(self.rows)[None, :40], axis=2)


class Lookup(ClassifierMixin, BaseEstimator):
    """Looks up rows in tables of its constructor before it asks its model."""

    def __init__(self, rows, targets):
        self.rows, self.targets = rows, targets

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.model_ = LogisticRegression(max_iter=500).fit(X, y)
        return self

    def predict_proba(self, X):
        result = self.model_.predict_proba(X)
        known = {row.tobytes(): label for row, label in zip(self.rows, self.targets, strict=True)}
        for i, row in enumerate(np.asarray(X)):
            if row.tobytes() in known:
                result[i] = self.classes_ == known[row.tobytes()]
        return result

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class Centre(TransformerMixin, BaseEstimator):
    """Subtracts numbers of its constructor."""

    def __init__(self, centre):
        self.centre = centre

    def fit(self, X, y=None):
        self.n_features_in_ = np.shape(X)[1]
        return self

    def transform(self, X):
        return np.asarray(X) - self.centre


class Side(ClassifierMixin, BaseEstimator):
    """Holds something on the side; as a step it passes X on."""

    def __init__(self, table):
        self.table = table

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.model_ = GaussianNB().fit(X, y)
        return self

    def transform(self, X):
        return np.asarray(X)

    def predict_proba(self, X):
        return self.model_.predict_proba(X)

    def predict(self, X):
        return self.model_.predict(X)


def with_attribute(step, rows):
    step.reference = rows
    return step


class BatchScaler(TransformerMixin, BaseEstimator):
    """Standardises whatever it transforms by that table's own moments."""

    def __init__(self, own=True):
        self.own = own

    def fit(self, X, y=None):
        self.scaler_ = StandardScaler().fit(X)
        return self

    def transform(self, X):
        return StandardScaler().fit_transform(X) if self.own else self.scaler_.transform(X)


class Gossip(ClassifierMixin, BaseEstimator):
    """Keeps targets in the class, so that folds share them."""

    told = {}

    def __init__(self, share=True):
        self.share = share

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.model_ = GaussianNB().fit(X, y)
        if self.share:
            self.told.update((row.tobytes(), label) for row, label in zip(X, y, strict=True))
        return self

    def predict_proba(self, X):
        result = self.model_.predict_proba(X)
        for i, row in enumerate(np.asarray(X)):
            if self.share and row.tobytes() in self.told:
                result[i] = self.classes_ == self.told[row.tobytes()]
        return result

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


def holding(base, **attributes):
    """An instance of a subclass whose class has more attributes."""
    return type(base.__name__, (base,), {"__module__": __name__, **attributes})


def search(estimator, name="C", values=(0.1, 1.0), **options):
    return GridSearchCV(estimator, {name: list(values)}, **{"cv": 3, **options})


def log_search(*steps, **options):
    return search(make_pipeline(*steps, LOGISTIC), "logisticregression__C", **options)


# Planted leaks ------------------------------------------------------------------------------------

PLANTED = {}


def planted(kind, name):
    """Register a function that returns the leak and its twin."""

    def register(function):
        PLANTED[f"{kind}: {name}"] = function
        return function

    return register


def prepared(name, transformer, make=table, supervised=False, estimator=LOGISTIC):
    """A leak made by fitting a transformer on all rows; in the twin it is in a Pipeline."""

    @planted("L1.2 preparation on all rows", name)
    def case():
        X, y = make()
        args = (X, y) if supervised else (X,)
        Z = clone(transformer).fit(*args).transform(X)
        return (estimator, Z, y, {}), (make_pipeline(clone(transformer), estimator), X, y, {})


def gappy():
    X, y = table(1)
    return with_gaps(X), y


def few_gaps():
    X, y = table(1)
    return with_gaps(X, share=0.05), y


def coded(n=N, levels=20):
    rng = np.random.default_rng(4)
    X, y = table(4, n)
    code = rng.integers(0, levels, n)
    return pd.DataFrame(X, columns=[f"c{i}" for i in range(8)]).assign(shop=code), y


for _name, _transformer, _options in (
    ("StandardScaler", StandardScaler(), {}),
    ("MinMaxScaler", MinMaxScaler(), {}),
    ("MinMaxScaler to -1..1", MinMaxScaler((-1, 1)), {}),
    ("MaxAbsScaler", MaxAbsScaler(), {}),
    ("RobustScaler", RobustScaler(), {}),
    ("QuantileTransformer", QuantileTransformer(n_quantiles=100), {}),
    (
        "QuantileTransformer normal",
        QuantileTransformer(n_quantiles=100, output_distribution="normal"),
        {},
    ),
    ("PowerTransformer", PowerTransformer(), {}),
    ("PCA", PCA(4), {}),
    ("TruncatedSVD", TruncatedSVD(4, random_state=0), {}),
    ("FastICA", FastICA(4, random_state=0), {}),
    ("mean imputation", SimpleImputer(), {"make": gappy}),
    ("median imputation", SimpleImputer(strategy="median"), {"make": gappy}),
    ("TF-IDF", TfidfVectorizer(), {"make": texts}),
    ("StandardScaler without mean", StandardScaler(with_mean=False), {}),
    ("KNNImputer", KNNImputer(), {"make": few_gaps}),
    ("IterativeImputer", IterativeImputer(random_state=0), {"make": gappy}),
    ("KernelPCA", KernelPCA(3, kernel="rbf", gamma=1e-4), {}),
    ("LDA", LinearDiscriminantAnalysis(), {"supervised": True}),
):
    prepared(_name, _transformer, **_options)


@planted("L1.2 preparation on all rows", "target means of a column")
def _():
    X, y = coded()
    encoded = X.assign(shop=pd.Series(y).groupby(X["shop"].to_numpy()).transform("mean"))
    encoder = make_column_transformer(
        (TargetEncoder(random_state=0), ["shop"]), remainder="passthrough"
    )
    return (LOGISTIC, encoded, y, {}), (make_pipeline(encoder, LOGISTIC), X, y, {})


def resampled(name, sampler, make=table):
    @planted("L1.2 resampling before the split", name)
    def case():
        X, y = make()
        return (
            (
                GaussianNB() if sampler is None else LOGISTIC,
                *clone(sampler).fit_resample(X, y),
                {"cv": ANY_ORDER},
            ),
            (make_pipeline(clone(sampler), LOGISTIC), X, y, {"cv": ANY_ORDER}),
        )


def rare():
    return table(2, 400, weights=[0.8])


def rare_counts():
    X, y = table(2, 400, weights=[0.8])
    return np.round(1000 * X / X.std(axis=0)).astype(int), y


def rare_counts_and_words():
    X, y = rare_counts()
    return np.column_stack([X, np.random.default_rng(2).integers(0, 3, len(X))]), y


resampled("SMOTE", SMOTE(random_state=0), rare)
resampled("BorderlineSMOTE", BorderlineSMOTE(random_state=0), rare)
resampled("ADASYN", ADASYN(random_state=0), rare)
resampled("RandomOverSampler", RandomOverSampler(random_state=0), rare)
resampled("SMOTE of whole numbers", SMOTE(random_state=0), rare_counts)
resampled("SMOTENC of whole numbers", SMOTENC([8], random_state=0), rare_counts_and_words)
resampled("RandomOverSampler, smoothed", RandomOverSampler(random_state=0, shrinkage=0.02), rare)


def doubled(X, y, change, seed=0):
    """Rows and changed copies of half of them."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(X))[: len(X) // 2]
    order = rng.permutation(len(X) + len(chosen))
    X = np.vstack([X, change(X[chosen], rng)])[order]
    return (
        X,
        np.concatenate([y, y[chosen]])[order],
        np.concatenate([np.arange(len(y)), chosen])[order],
    )


for _name, _change in (
    ("exact", lambda X, rng: X),
    ("rounded", lambda X, rng: np.round(X, 1)),
    ("jittered", lambda X, rng: X + rng.normal(0, 0.02, X.shape) * X.std(axis=0)),
):

    @planted("L1.4 copies of rows", _name)
    def _(change=_change):
        X, y, who = doubled(*table(3), change)
        return (LOGISTIC, X, y, {"cv": ANY_ORDER}), (
            LOGISTIC, X, y, {"cv": GroupKFold(3), "groups": who},
        )  # fmt: skip


@planted("L1.4 copies of rows", "texts in another case and punctuation")
def _():
    rows, y = texts()
    again = [row.upper() + "!" for row in rows[:60]]
    estimator = make_pipeline(CountVectorizer(), MultinomialNB())
    return (estimator, rows + again, np.concatenate([y, y[:60]]), {"cv": ANY_ORDER}), (
        estimator,
        rows,
        y,
        {},
    )


@planted("L1.1 no test set", "training rows are scored")
def _():
    X, y = table(5)
    rows = np.arange(N)
    return (LOGISTIC, X, y, {"cv": [(rows, rows)]}), (
        LOGISTIC,
        X,
        y,
        {"cv": [(rows[::2], rows[1::2])]},
    )


def proxies():
    rng = np.random.default_rng(6)
    X, y = table(6)
    X = pd.DataFrame(X, columns=[f"c{i}" for i in range(8)])
    a, gap = rng.normal(50, 10, N), rng.uniform(0.5, 3, N)
    noise = rng.normal(50, 10, N)
    bit = rng.integers(0, 2, N)
    at = pd.Timestamp("2021-01-01") + pd.to_timedelta(rng.integers(0, 300, N), "D")
    later = at.where(y == 0, at + pd.Timedelta(days=400))
    names = np.array(["cat", "dog"])
    wrong = rng.permutation(y)
    number = rng.permutation(N) * 2
    yield "noisy answer", X.assign(z=3.0 * y + rng.normal(0, 0.2, N)), X.assign(z=noise), y
    yield (
        "sign of a difference",
        X.assign(a=a, b=a + np.where(y == 1, gap, -gap)),
        X.assign(a=a, b=noise),
        y,
    )
    yield (
        "ratio of two columns",
        X.assign(a=a, b=a * np.where(y == 1, 1.2, 0.8) * rng.uniform(0.95, 1.05, N)),
        X.assign(a=a, b=noise),
        y,
    )
    yield (
        "XOR of two flags",
        X.assign(a=bit, b=bit ^ y),
        X.assign(a=bit, b=rng.integers(0, 2, N)),
        y,
    )
    yield (
        "gaps of one class",
        X.assign(z=np.where(y == 1, np.nan, a)),
        X.assign(z=np.where(wrong == 1, np.nan, a)),
        y,
    )
    yield (
        "path",
        X.assign(file=[f"data/{names[k]}/{i:04d}.png" for i, k in enumerate(y)]),
        X.assign(file=[f"data/{names[k]}/{i:04d}.png" for i, k in enumerate(wrong)]),
        y,
    )
    yield "date", X.assign(visit=later), X.assign(visit=at), y
    yield (
        "range of an identifier",
        X.assign(id=np.where(y == 1, 90000, 10000) + number),
        X.assign(id=10000 + number),
        y,
    )
    yield (
        "last digit of an identifier",
        X.assign(id=10000 + number + y),
        X.assign(id=10000 + number + wrong),
        y,
    )
    yield (
        "prefix of an identifier",
        X.assign(id=[f"{'AB'[k]}-{i}" for i, k in zip(number, y, strict=True)]),
        X.assign(id=[f"{'AB'[k]}-{i}" for i, k in zip(number, wrong, strict=True)]),
        y,
    )
    code = rng.integers(0, 25, N) * 2
    yield (
        "code of many levels",
        X.assign(ward=[f"w{(c + k) * 7919 % 1009}" for c, k in zip(code, y, strict=True)]),
        X.assign(ward=[f"w{c * 7919 % 1009}" for c in code]),
        y,
    )


def _are_words(column):
    return column.dtype.kind in "OUT" or str(column.dtype) in ("str", "string")


def words_to_codes():
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    return make_column_transformer(
        (encoder, lambda X: [name for name in X if _are_words(X[name])]),
        ("drop", lambda X: [name for name in X if X[name].dtype.kind == "M"]),
        remainder="passthrough",
    )


for _name, _leak, _clean, _y in proxies():

    @planted("L2 proxies", _name)
    def _(leak=_leak, clean=_clean, y=_y):
        model = make_pipeline(words_to_codes(), SimpleImputer(), FOREST)
        return (model, leak, y, {}), (model, clean, y, {})


def monthly():
    rng = np.random.default_rng(7)
    sales = rng.gamma(4, 30, (N, 7))
    total = sales.cumsum(axis=1)
    return pd.DataFrame(total, columns=[f"until_{m}" for m in range(7)]), sales[:, 6]


@planted("L2 proxies", "difference of neighbouring columns, regression")
def _():
    X, y = monthly()
    return (Ridge(), X, y, {}), (Ridge(), X.drop(columns="until_6"), y, {})


@planted("L2 proxies", "target in other units, regression")
def _():
    X, y = numbers(8)
    leak = np.column_stack([X, y * 1.8 + 32])
    return (Ridge(), leak, y, {}), (Ridge(), X, y, {})


@planted("L3.1 time", "shuffled folds")
def _():
    X, y = table(9)
    return (LOGISTIC, X, y, {"cv": ANY_ORDER, "time": TIMES}), (
        LOGISTIC, X, y, {"cv": TimeSeriesSplit(3), "time": TIMES},
    )  # fmt: skip


def ordered(name, leak, clean):
    @planted("L3.1 time", name)
    def case():
        X, y = table(9)
        options = {"cv": TimeSeriesSplit(3), "time": TIMES}
        return (leak, X, y, options), (clean, X, y, options)


ordered(
    "search in shuffled folds",
    log_search(StandardScaler(), cv=ANY_ORDER),
    log_search(StandardScaler(), cv=TimeSeriesSplit(3)),
)
ordered(
    "stack in unordered folds", StackingClassifier([("nb", GaussianNB())], LOGISTIC, cv=3), LOGISTIC
)


def our_stack(branch, cv=3):
    return StackedKerasClassifier([("a", branch)], downstream=LOGISTIC, cv=cv, random_state=0)


ordered(
    "scaler before an ordered stack",
    make_pipeline(PCA(4), our_stack(GaussianNB(), TimeSeriesSplit(3))),
    our_stack(make_pipeline(PCA(4), GaussianNB()), TimeSeriesSplit(3)),
)

WHO = np.arange(N) % 40


@planted("L3.2 groups", "shuffled folds")
def _():
    X, y = table(10)
    return (LOGISTIC, X, y, {"cv": ANY_ORDER, "groups": WHO}), (
        LOGISTIC,
        X,
        y,
        {"cv": GroupKFold(3), "groups": WHO},
    )


@planted("L3.2 groups", "search in shuffled folds")
def _():
    X, y = table(10)
    options = {"cv": GroupKFold(3), "groups": WHO}
    return (log_search(StandardScaler(), cv=ANY_ORDER), X, y, options), (
        make_pipeline(StandardScaler(), LOGISTIC),
        X,
        y,
        options,
    )


@planted("L3.2 groups", "stack without groups")
def _():
    X, y = table(10)
    options = {"cv": GroupKFold(3), "groups": WHO}
    return (StackingClassifier([("nb", GaussianNB())], LOGISTIC, cv=3), X, y, options), (
        VotingClassifier([("nb", GaussianNB())], voting="soft"),
        X,
        y,
        options,
    )


def before_search(name, step, make=table, wrap=None):
    @planted("inner splits", name)
    def case():
        X, y = make()
        inside = make_pipeline(clone(step), LOGISTIC)
        inner = wrap(inside) if wrap else search(inside, "logisticregression__C")
        return (make_pipeline(clone(step), (wrap or search)(LOGISTIC)), X, y, {}), (inner, X, y, {})


before_search("StandardScaler before a search", StandardScaler())
before_search("PCA before a search", PCA(4))
before_search("SimpleImputer before a search", SimpleImputer(), make=gappy)
before_search("SelectKBest before a search", SelectKBest(k=4))
before_search("SMOTE before a search", SMOTE(random_state=0))


def tuned(model):
    return TunedThresholdClassifierCV(model, cv=3)


def calibrated(model):
    return CalibratedClassifierCV(model, cv=3)


def wide():
    return table(11, 160, 300)


before_search("SMOTE before a tuned threshold", SMOTE(random_state=0), wrap=tuned)
before_search("SMOTE before a calibration", SMOTE(random_state=0), wrap=calibrated)
before_search(
    "selection from many columns before a calibration",
    SelectKBest(k=10),
    wrap=calibrated,
    make=wide,
)


def in_sample(name, step, clean, make=table, model=LOGISTIC):
    @planted("in-sample features", name)
    def case():
        X, y = make()
        return (make_pipeline(step, model), X, y, {}), (make_pipeline(clean, model), X, y, {})


def categories():
    rng = np.random.default_rng(12)
    X = rng.integers(0, 60, (N, 3))
    y = (rng.random(N) < 0.3 + 0.4 * (X[:, 0] < 30)).astype(int)
    return X, y


in_sample("forest", InSample(FOREST), KerasFeatureTransformer(FOREST, cv=3))
in_sample(
    "nearest neighbours",
    InSample(KNeighborsClassifier(3)),
    KerasFeatureTransformer(KNeighborsClassifier(3), cv=3),
)
in_sample("naive target encoding", NaiveTargetEncoder(), TargetEncoder(random_state=0), categories)
in_sample(
    "forest of a regression",
    InSample(RandomForestRegressor(15, random_state=0), "predict"),
    StandardScaler(),
    numbers,
    Ridge(),
)


def small_mlp():
    return MLPClassifier((4,), early_stopping=True, max_iter=5, random_state=0)


@planted("early stopping", "network after SMOTE")
def _():
    X, y = table(13)
    return (make_pipeline(SMOTE(random_state=0), small_mlp()), X, y, {}), (
        make_pipeline(StandardScaler(), small_mlp()),
        X,
        y,
        {},
    )


@planted("early stopping", "boosting after RandomOverSampler")
def _():
    X, y = table(13)
    boosting = HistGradientBoostingClassifier(early_stopping=True, max_iter=10)
    return (make_pipeline(RandomOverSampler(random_state=0), boosting), X, y, {}), (
        boosting,
        X,
        y,
        {},
    )


ELSEWHERE = table(14, 2 * N)
HERE, THERE = (ELSEWHERE[0][::2], ELSEWHERE[1][::2]), (ELSEWHERE[0][1::2], ELSEWHERE[1][1::2])


def held(name, make):
    """`make(rows, targets)` of the rows at hand is the leak, of others the twin."""

    @planted("kept in the estimator", name)
    def case():
        return (make(*HERE), *HERE, {}), (make(*THERE), *HERE, {})


def network(loss):
    return KerasClassifier(MLP((4,)), epochs=2, batch_size=64, loss=loss, random_state=0)


held(
    "rows in a constructor argument",
    lambda X, y: make_pipeline(Landmarks(X), StandardScaler(), LOGISTIC),
)
held("rows and targets in a constructor argument", lambda X, y: Lookup(X, y))
held(
    "rows in a class attribute",
    lambda X, y: make_pipeline(holding(Centre, memory=X)(0.0), LOGISTIC),
)
held("means of all rows", lambda X, y: make_pipeline(Centre(X.mean(axis=0)), LOGISTIC))
held(
    "rows in a closure",
    lambda X, y: make_pipeline(FunctionTransformer(lambda Z: Z - X[:200].mean(axis=0)), LOGISTIC),
)
held(
    "fitted forest in a function",
    lambda X, y: make_pipeline(
        FunctionTransformer(clone(FOREST).fit(X, y).predict_proba), LOGISTIC
    ),
)
held("frozen forest", lambda X, y: FrozenEstimator(clone(FOREST).fit(X, y)))
held(
    "frozen scaler", lambda X, y: make_pipeline(FrozenEstimator(StandardScaler().fit(X)), LOGISTIC)
)
held(
    "frozen logistic regression",
    lambda X, y: FrozenEstimator(LogisticRegression(max_iter=5000).fit(X, y)),
)
held(
    "prefit stack",
    lambda X, y: StackingClassifier([("f", clone(FOREST).fit(X, y))], LOGISTIC, cv="prefit"),
)
held("teacher in a loss", lambda X, y: network(TeacherLoss(clone(FOREST).fit(X, y))))


held("some columns of rows", lambda X, y: make_pipeline(Centre(0.0), Side(X[:60, :3]), LOGISTIC))
held(
    "dict of targets by row", lambda X, y: Side({r.tobytes(): k for r, k in zip(X, y, strict=True)})
)
held(
    "forest fitted on two thirds", lambda X, y: FrozenEstimator(clone(FOREST).fit(X[:160], y[:160]))
)
held(
    "frozen PCA after a scaler",
    lambda X, y: make_pipeline(
        StandardScaler(), FrozenEstimator(PCA(3).fit(StandardScaler().fit_transform(X))), LOGISTIC
    ),
)
held(
    "prefit selector",
    lambda X, y: make_pipeline(SelectFromModel(clone(FOREST).fit(X, y), prefit=True), LOGISTIC),
)
held("rows in an attribute", lambda X, y: make_pipeline(with_attribute(Centre(0.0), X), LOGISTIC))


@planted("inner splits", "RandomOverSampler before LogisticRegressionCV")
def _():
    X, y = table(11)
    model = LogisticRegressionCV(
        cv=3, Cs=2, use_legacy_attributes=False, l1_ratios=(0,), max_iter=500
    )
    return (make_pipeline(RandomOverSampler(random_state=0), model), X, y, {}), (
        make_pipeline(StandardScaler(), model),
        X,
        y,
        {},
    )


@planted("L3.1 time", "scaler before an ordered stack, times not passed")
def _():
    X, y = table(9)
    stack = our_stack(GaussianNB(), TimeSeriesSplit(3))
    inside = our_stack(make_pipeline(StandardScaler(), GaussianNB()), TimeSeriesSplit(3))
    return tuple(
        (e, X, y, {"cv": TimeSeriesSplit(3)})
        for e in (make_pipeline(StandardScaler(), stack), inside)
    )


@planted("state outside of fit", "targets in the class")
def _():
    X, y = table(15)
    return (Gossip(), X, y, {}), (holding(Gossip, told={})(share=False), X, y, {})


@planted("state outside of fit", "moments of the test rows")
def _():
    X, y = table(15)
    return (make_pipeline(BatchScaler(), LOGISTIC), X, y, {}), (
        make_pipeline(BatchScaler(own=False), LOGISTIC),
        X,
        y,
        {},
    )


def gap_mean(raw):
    return raw.fillna(raw.mean())


def gap_zero(raw):
    return raw.fillna(0.0)


@planted("raw rows", "gaps filled with means of all rows")
def _():
    X, y = table(16)
    raw = pd.DataFrame(with_gaps(X)).round(2)
    return tuple(
        (LOGISTIC, prepare(raw), y, {"raw": raw, "prepare": prepare})
        for prepare in (gap_mean, gap_zero)
    )


def best_columns(raw, y):
    return raw[raw.columns[SelectKBest(k=10).fit(raw, y).get_support()]]


def first_columns(raw, y):
    return raw.iloc[:, :10]


@planted("raw rows", "columns selected on all rows")
def _():
    X, y = wide()
    raw = pd.DataFrame(X)
    return tuple(
        (LOGISTIC, prepare(raw, y), y, {"raw": raw, "prepare": prepare})
        for prepare in (best_columns, first_columns)
    )


def centred(raw):
    return raw.assign(mean=raw["a"].rolling(5, center=True, min_periods=1).mean())


def trailing(raw):
    return raw.assign(mean=raw["a"].rolling(5, min_periods=1).mean())


@planted("raw rows", "moving mean that looks ahead")
def _():
    X, y = table(16)
    raw = pd.DataFrame(X[:, :2], columns=["a", "b"])
    options = {"raw": raw, "time": TIMES, "cv": TimeSeriesSplit(3)}
    return tuple(
        (LOGISTIC, prepare(raw), y, {**options, "prepare": prepare})
        for prepare in (centred, trailing)
    )


# Clean pipelines ----------------------------------------------------------------------------------

CLEAN = {}


def clean(kind, name, estimator, X, y, **options):
    CLEAN[f"{kind}: {name}"] = (estimator, X, y, options)


def shared(kind, estimators, make, **options):
    X, y = make()
    for estimator in estimators:
        name = str(estimator).replace("\n", "").replace("  ", "")[:90]
        clean(kind, name, estimator, X, y, **options)


many = wide()
shared(
    "selectors",
    [
        make_pipeline(StandardScaler(), SelectKBest(k=4), LOGISTIC),
        make_pipeline(SelectPercentile(mutual_info_classif, percentile=50), GaussianNB()),
        make_pipeline(StandardScaler(), RFE(LOGISTIC, n_features_to_select=4), LOGISTIC),
        make_pipeline(StandardScaler(), RFECV(LOGISTIC, cv=3), LOGISTIC),
        make_pipeline(SelectFromModel(FOREST), LOGISTIC),
        make_pipeline(
            SequentialFeatureSelector(GaussianNB(), n_features_to_select=2, cv=2), GaussianNB()
        ),
        make_pipeline(SelectFwe(alpha=0.2), LOGISTIC),
        make_pipeline(VarianceThreshold(), LinearDiscriminantAnalysis(n_components=1), LOGISTIC),
        make_pipeline(
            StandardScaler(), NeighborhoodComponentsAnalysis(2, random_state=0), LOGISTIC
        ),
        log_search(StandardScaler(), SelectKBest(k=4)),
    ],
    table,
)
shared(
    "selectors from many columns",
    [
        make_pipeline(SelectKBest(k=20), LOGISTIC),
        make_pipeline(StandardScaler(), SelectFromModel(LogisticRegression(C=0.1)), LOGISTIC),
        log_search(SelectKBest(k=20)),
        make_pipeline(StandardScaler(), PCA(10), LinearDiscriminantAnalysis()),
    ],
    wide,
)
numeric, wordy = ["age", "income", "balance"], ["city", "job", "married"]


def columns(encoder, scaler):
    return make_column_transformer((scaler, numeric), (encoder, wordy))


shared(
    "encoders",
    [
        make_pipeline(columns(OneHotEncoder(handle_unknown="ignore"), StandardScaler()), LOGISTIC),
        make_pipeline(
            columns(
                OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), "passthrough"
            ),
            FOREST,
        ),
        make_pipeline(columns(TargetEncoder(random_state=0), StandardScaler()), LOGISTIC),
        make_pipeline(
            columns(
                OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=10),
                RobustScaler(),
            ),
            LOGISTIC,
        ),
        make_pipeline(
            columns(
                OneHotEncoder(handle_unknown="ignore"),
                KBinsDiscretizer(5, quantile_method="averaged_inverted_cdf"),
            ),
            BernoulliNB(),
        ),
        make_pipeline(
            columns(
                OneHotEncoder(handle_unknown="ignore", sparse_output=False), SplineTransformer()
            ),
            LOGISTIC,
        ),
        make_pipeline(
            columns(TargetEncoder(random_state=0), "passthrough"),
            GradientBoostingClassifier(n_estimators=10),
        ),
        search(
            make_pipeline(
                columns(OneHotEncoder(handle_unknown="ignore"), StandardScaler()), LOGISTIC
            ),
            "logisticregression__C",
        ),
        search(
            make_pipeline(columns(TargetEncoder(random_state=0), StandardScaler()), LOGISTIC),
            "logisticregression__C",
        ),
    ],
    frame,
)
shared(
    "text",
    [
        make_pipeline(TfidfVectorizer(), LOGISTIC),
        make_pipeline(CountVectorizer(), MultinomialNB()),
        make_pipeline(CountVectorizer(ngram_range=(1, 2), min_df=2), ComplementNB()),
        make_pipeline(HashingVectorizer(n_features=256), SGDClassifier(random_state=0)),
        make_pipeline(TfidfVectorizer(), TruncatedSVD(5, random_state=0), LOGISTIC),
        make_pipeline(TfidfVectorizer(), SelectKBest(k=10), LinearSVC()),
        log_search(TfidfVectorizer()),
        make_pipeline(HashingVectorizer(n_features=256), search(LOGISTIC)),
    ],
    texts,
)
shared(
    "calibration and thresholds",
    [
        CalibratedClassifierCV(make_pipeline(StandardScaler(), LinearSVC()), cv=3),
        make_pipeline(StandardScaler(), CalibratedClassifierCV(LinearSVC(), cv=3)),
        make_pipeline(
            SelectKBest(k=6), CalibratedClassifierCV(GaussianNB(), cv=3, method="isotonic")
        ),
        CalibratedClassifierCV(GaussianNB(), cv=3, ensemble=False),
        TunedThresholdClassifierCV(make_pipeline(StandardScaler(), LOGISTIC), cv=3),
        TunedThresholdClassifierCV(make_pipeline(SMOTE(random_state=0), LOGISTIC), cv=3),
        TunedThresholdClassifierCV(CalibratedClassifierCV(GaussianNB(), cv=3), cv=3),
    ],
    table,
)
shared(
    "searches",
    [
        log_search(StandardScaler()),
        RandomizedSearchCV(
            make_pipeline(StandardScaler(), LOGISTIC),
            {"logisticregression__C": [0.1, 1.0, 10.0]},
            n_iter=2,
            cv=3,
            random_state=0,
        ),
        HalvingGridSearchCV(
            make_pipeline(StandardScaler(), LOGISTIC),
            {"logisticregression__C": [0.1, 1.0]},
            cv=3,
            random_state=0,
        ),
        search(FOREST, "max_depth", (2, 4)),
        search(make_pipeline(SMOTE(random_state=0), LOGISTIC), "smote__k_neighbors", (3, 5)),
        make_pipeline(PolynomialFeatures(2), search(LogisticRegression(max_iter=50))),
        make_pipeline("passthrough", search(LOGISTIC)),
        make_pipeline(Normalizer(), search(LOGISTIC)),
        make_pipeline(FunctionTransformer(np.cbrt), search(LOGISTIC)),
        make_pipeline(
            RBFSampler(gamma=0.001, random_state=0),
            search(GaussianNB(), "var_smoothing", (1e-9, 1e-3)),
        ),
        make_pipeline(
            StandardScaler(),
            LogisticRegressionCV(cv=3, Cs=2, use_legacy_attributes=False, l1_ratios=(0,)),
        ),
        search(KNeighborsClassifier(), "n_neighbors", (3, 9)),
    ],
    table,
)
shared(
    "samplers",
    [
        make_pipeline(StandardScaler(), SMOTE(random_state=0), LOGISTIC),
        make_pipeline(RandomUnderSampler(random_state=0), GaussianNB()),
        make_pipeline(RandomOverSampler(random_state=0), FOREST),
        BalancedRandomForestClassifier(10, random_state=0),
        make_pipeline(ADASYN(random_state=0), StandardScaler(), LinearDiscriminantAnalysis()),
    ],
    table,
)
shared(
    "ensembles",
    [
        FOREST,
        ExtraTreesClassifier(15, random_state=0),
        AdaBoostClassifier(n_estimators=5, random_state=0),
        BaggingClassifier(LOGISTIC, 5, random_state=0),
        VotingClassifier([("a", LOGISTIC), ("b", GaussianNB())], voting="soft"),
        StackingClassifier([("a", LOGISTIC), ("b", FOREST)], GaussianNB(), cv=3),
        StackingClassifier(
            [("a", make_pipeline(SelectKBest(k=3), GaussianNB()))], LOGISTIC, cv=3, passthrough=True
        ),
        our_stack(make_pipeline(StandardScaler(), FOREST)),
        OneVsRestClassifier(LOGISTIC),
        make_pipeline(FeatureUnion([("pca", PCA(3)), ("best", SelectKBest(k=2))]), LOGISTIC),
        make_pipeline(KMeans(5, n_init=2, random_state=0), LOGISTIC),
        make_pipeline(StandardScaler(), Nystroem(n_components=20, random_state=0), LOGISTIC),
        DummyClassifier(strategy="stratified", random_state=0),
        QuadraticDiscriminantAnalysis(reg_param=0.1),
        DecisionTreeClassifier(random_state=0),
    ],
    table,
)
shared(
    "gaps",
    [
        make_pipeline(SimpleImputer(), LOGISTIC),
        make_pipeline(KNNImputer(), MissingIndicator(features="all"), BernoulliNB()),
        HistGradientBoostingClassifier(max_iter=10),
    ],
    gappy,
)


def by_group(seed=17, n_groups=30, size=8):
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(n_groups, 6))
    groups = np.repeat(np.arange(n_groups), size)
    label = (own[:, 0] + rng.normal(0, 0.7, n_groups) > 0).astype(int)
    return own[groups] + rng.normal(0, 0.4, (len(groups), 6)), label[groups], groups


GX, GY, GG = by_group()
order = np.random.default_rng(0).permutation(len(GY))
for _seed in range(3):
    _X, _y, _g = by_group(20 + _seed)
    clean(
        "groups",
        f"one target each, {_seed}",
        [FOREST, LOGISTIC, GaussianNB()][_seed],
        _X,
        _y,
        groups=_g,
        cv=GroupKFold(3),
    )
clean(
    "groups",
    "one target each, stratified",
    make_pipeline(StandardScaler(), KNeighborsClassifier(3)),
    GX[order],
    GY[order],
    groups=GG[order],
    cv=StratifiedGroupKFold(3),
)
clean(
    "groups",
    "leave one group out",
    GaussianNB(),
    *table(18, 120),
    groups=np.arange(120) % 6,
    cv=LeaveOneGroupOut(),
)
clean(
    "groups",
    "GroupShuffleSplit",
    FOREST,
    GX,
    GY,
    groups=GG,
    cv=GroupShuffleSplit(3, random_state=0),
)
clean(
    "groups",
    "regression",
    Ridge(),
    GX,
    GX[:, 0] + np.random.default_rng(1).normal(size=len(GX)),
    groups=GG,
    cv=GroupKFold(3),
)


def walk(seed=19):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=N + 4).cumsum() * 0.3 + 20
    X = pd.DataFrame({f"lag{k}": x[4 - k : N + 4 - k] for k in range(1, 5)})
    return X, x[4:] + rng.normal(0, 1, N)


TX, TY = walk()
in_time = {"time": TIMES, "cv": TimeSeriesSplit(3)}
clean("time", "lags", Ridge(), TX, TY, **in_time)
clean("time", "scaled lags", make_pipeline(StandardScaler(), Ridge()), TX, TY, **in_time)
clean(
    "time",
    "search",
    search(make_pipeline(StandardScaler(), Ridge()), "ridge__alpha", cv=TimeSeriesSplit(2)),
    TX,
    TY,
    **in_time,
)
clean("time", "forest", RandomForestRegressor(10, random_state=0), TX, TY, **in_time)
clean(
    "time", "classes", make_pipeline(PCA(2), LOGISTIC), TX, (TX["lag1"] < TY).astype(int), **in_time
)
clean(
    "time",
    "our stack",
    our_stack(make_pipeline(StandardScaler(), GaussianNB()), TimeSeriesSplit(2)),
    TX,
    (TY.mean() < TY).astype(int),
    **in_time,
)

rng = np.random.default_rng(21)
quality = rng.normal(size=N)
survey = np.clip(np.round(quality[:, None] * 0.7 + rng.normal(size=(N, 5)) + 3), 1, 5)
clean(
    "ties",
    "survey of five answers",
    LOGISTIC,
    survey,
    (quality + rng.normal(size=N) > 0).astype(int),
)
clean("ties", "three flags", BernoulliNB(), rng.integers(0, 2, (N, 3)), rng.integers(0, 2, N))
clean(
    "ties",
    "ages and flags",
    make_pipeline(words_to_codes(), FOREST),
    pd.DataFrame({"age": rng.integers(20, 60, 600), "sex": rng.choice(["f", "m"], 600)}),
    rng.integers(0, 2, 600),
)
clean(
    "ties",
    "counts",
    make_pipeline(StandardScaler(), LOGISTIC),
    rng.poisson(1.0, (N, 4)),
    rng.integers(0, 2, N),
)
height = rng.normal(175, 9, N)
speed = rng.uniform(1, 30, N)
mass = rng.uniform(1, 2, N)
units = pd.DataFrame(
    {
        "cm": height,
        "inch": height / 2.54,
        "feet": height / 30.48,
        "metre": height / 100,
        "kg": rng.normal(70, 8, N),
    }
)
clean(
    "units",
    "one height in four units",
    LOGISTIC,
    units,
    (height + rng.normal(0, 9, N) > 175).astype(int),
)
clean(
    "units",
    "temperatures",
    GaussianNB(),
    pd.DataFrame({"c": height - 150, "f": (height - 150) * 1.8 + 32, "k": height + 123.15}),
    (height + rng.normal(0, 9, N) > 175).astype(int),
)
shares = rng.beta(0.5, 0.8, (N, 4)).round(2)
shares[rng.random((N, 4)) < 0.05], shares[rng.random((N, 4)) < 0.05] = 0.0, 1.0
clean(
    "shares",
    "between 0 and 1, with both ends",
    LOGISTIC,
    shares,
    (shares[:, 0] + rng.normal(0, 0.4, N) > 0.5).astype(int),
)
clean("shares", "of small counts", FOREST, rng.binomial(12, shares) / 12, rng.integers(0, 2, N))
clean(
    "laws",
    "kinetic energy",
    make_pipeline(PolynomialFeatures(3), LinearRegression()),
    np.column_stack([mass, speed]),
    0.5 * mass * speed**2 * rng.normal(1, 0.02, N),
)
clean(
    "laws",
    "pendulum",
    LinearRegression(),
    np.column_stack([rng.uniform(0.2, 4, N), mass])[:, :2],
    2 * np.pi * np.sqrt(rng.uniform(0.2, 4, N) / 9.81),
)
length = rng.uniform(0.1, 9, N)
clean(
    "laws",
    "pendulum of known length",
    RandomForestRegressor(10, random_state=0),
    np.column_stack([length, mass]),
    2 * np.pi * np.sqrt(length / 9.81) * rng.normal(1, 0.01, N),
)
clean(
    "laws",
    "Ohm",
    make_pipeline(PolynomialFeatures(2), Ridge()),
    np.column_stack([speed, mass]),
    speed * mass,
)
shared(
    "regressions",
    [
        Ridge(),
        RidgeCV(),
        make_pipeline(SelectKBest(f_regression, k=3), Lasso()),
        TransformedTargetRegressor(Ridge(), transformer=StandardScaler()),
        StackingRegressor([("a", Ridge()), ("b", KNeighborsRegressor())], cv=3),
        ElasticNet(),
        DummyRegressor(),
        make_pipeline(StandardScaler(), KernelRidge()),
    ],
    numbers,
)
clean("real tables", "iris", make_pipeline(StandardScaler(), LOGISTIC), *load_iris(return_X_y=True))
clean("real tables", "iris, QDA", QuadraticDiscriminantAnalysis(), *load_iris(return_X_y=True))
clean(
    "real tables",
    "wine",
    make_pipeline(StandardScaler(), LinearDiscriminantAnalysis(n_components=2), GaussianNB()),
    *load_wine(return_X_y=True),
)
clean(
    "real tables",
    "breast cancer",
    make_pipeline(StandardScaler(), PCA(5), LOGISTIC),
    *load_breast_cancer(return_X_y=True),
)
clean("real tables", "diabetes", Ridge(), *load_diabetes(return_X_y=True, scaled=False))
digits = load_digits(n_class=3)
clean(
    "real tables",
    "digits",
    make_pipeline(MinMaxScaler(clip=True), NMF(5, max_iter=50, random_state=0, tol=0.05), LOGISTIC),
    digits.data,
    digits.target,
)
clean(
    "real tables",
    "friedman",
    RandomForestRegressor(10, random_state=0),
    *make_friedman1(N, random_state=0),
)
clean("easy tables", "blobs", GaussianNB(), *make_blobs(N, centers=3, random_state=0))
clean("easy tables", "far blobs", GaussianNB(), *make_blobs(N, centers=2, random_state=3))
clean("easy tables", "moons", SVC(), *make_moons(N, noise=0.2, random_state=0))
clean(
    "easy tables", "separable", LOGISTIC, *make_classification(N, 6, class_sep=2.0, random_state=1)
)
clean(
    "splits",
    "RepeatedStratifiedKFold",
    GaussianNB(),
    *table(22),
    cv=RepeatedStratifiedKFold(n_splits=2, n_repeats=2, random_state=0),
)
clean("splits", "ShuffleSplit", GaussianNB(), *table(22), cv=ShuffleSplit(3, random_state=0))
clean("splits", "one hold-out", LOGISTIC, *table(22), cv=[(np.arange(0, 160), np.arange(160, N))])
clean(
    "splits",
    "five strata",
    OneVsOneClassifier(LogisticRegression(max_iter=500)),
    *table(23, n_classes=3, weights=None),
    cv=StratifiedKFold(5),
)
clean("networks", "one network", network("auto"), *table(24))
clean(
    "counts",
    "Poisson regression",
    make_pipeline(StandardScaler(), PoissonRegressor()),
    survey,
    rng.poisson(np.exp(quality * 0.5)),
)
clean(
    "kept",
    "constants by hand",
    make_pipeline(Centre(np.array([0.0, 1.0, 2.0, 3, 4, 5, 6, 7])), LOGISTIC),
    *table(25),
)
