"""Each kind of leak is found by its check, and a twin without the leak is not."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.pipeline import make_pipeline
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_diabetes, load_iris, make_blobs, make_circles, make_classification
from sklearn.decomposition import PCA, FastICA, KernelPCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor, StackingClassifier
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectFwe, SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, TimeSeriesSplit
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from skstack import KerasClassifier, KerasMultiTask, StackedKerasClassifier
from skstack.inspection import leakage_report
from skstack.inspection._data_checks import duplicates, interpolated_rows
from skstack.inspection._kept import carried, frozen_parts, kept_rows
from skstack.inspection._prepared import prepared_with_test_rows, scaled_with_test_rows
from skstack.inspection._proxies import leaking_columns
from skstack.losses import TeacherLoss

N = 240
LOGISTIC = LogisticRegression(max_iter=500)
FOREST = RandomForestClassifier(15, random_state=0)
FOLDS = list(KFold(3, shuffle=True, random_state=0).split(np.empty(N)))


def table(seed=0, n=N, p=6, **options):
    options = {"n_informative": 3, "flip_y": 0.2, "weights": [0.6], **options}
    X, y = make_classification(n, p, random_state=seed, **options)
    rng = np.random.default_rng(seed)
    return X * rng.uniform(1, 20, p) + rng.uniform(-50, 50, p), y


X, Y = table()


def with_gaps(share):
    gaps = np.random.default_rng(0).random(X.shape) < share
    return np.where(gaps, np.nan, X)


def verdicts(estimator, X, y, **options):
    report = leakage_report(estimator, X, y, **{"cv": 3, **options})
    return {f.check: f.verdict for f in report.findings}, report


# Prepared on all rows -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scaler",
    [
        StandardScaler(),
        StandardScaler(with_mean=False),
        MinMaxScaler(),
        MinMaxScaler((-1, 1)),
        MaxAbsScaler(),
        RobustScaler(),
        PowerTransformer(),
        QuantileTransformer(n_quantiles=50),
        QuantileTransformer(n_quantiles=50, output_distribution="normal"),
    ],
    ids=str,
)
def test_every_scaler_that_was_fitted_on_all_rows(scaler):
    train = FOLDS[0][0]
    assert scaled_with_test_rows(scaler.fit_transform(X)).verdict == "leak"
    assert scaled_with_test_rows(clone(scaler).fit(X[train]).transform(X)).verdict == "ok"


@pytest.mark.parametrize(
    ("step", "X"),
    [
        (PCA(3), X),
        (KernelPCA(2, kernel="rbf", gamma=1e-4), X),
        (FastICA(3, random_state=0, max_iter=1000), X),
        (LinearDiscriminantAnalysis(), X),
        (SimpleImputer(), with_gaps(0.15)),
        (SimpleImputer(strategy="median"), with_gaps(0.15)),
        (KNNImputer(), with_gaps(0.04)),
        (IterativeImputer(random_state=0), with_gaps(0.15)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_projections_and_imputers_that_were_fitted_on_all_rows(step, X):
    train = FOLDS[0][1]
    everywhere = clone(step).fit(X, Y).transform(X)
    assert prepared_with_test_rows(everywhere, Y, True).verdict == "leak"
    inside = clone(step).fit(X[train], Y[train]).transform(X)
    assert prepared_with_test_rows(inside, Y, True).verdict == "ok"


def test_word_weights_and_target_means_of_all_rows():
    rng = np.random.default_rng(0)
    rows = [" ".join(rng.choice(list("abcdefghij"), 12)) for _ in range(90)]
    y = rng.integers(0, 2, 90)
    words = {"token_pattern": r"\w"}
    for options in ({}, {"smooth_idf": False}, {"sublinear_tf": True}, {"norm": None}):
        step = TfidfVectorizer(**options, **words)
        assert prepared_with_test_rows(step.fit_transform(rows), y, True).verdict == "leak"
        assert prepared_with_test_rows(step.fit(rows[:50]).transform(rows), y, True).verdict == "ok"
    dense = TfidfVectorizer(**words).fit_transform([row[:9] for row in rows]).toarray()
    assert prepared_with_test_rows(dense, y, True).verdict == "leak"
    counts = CountVectorizer(**words).fit_transform(rows)
    assert prepared_with_test_rows(counts, y, True).verdict == "ok"
    shop = rng.integers(0, 15, N)
    means = pd.Series(Y).groupby(shop).mean()
    size = pd.Series(Y).groupby(shop).size()
    smooth = (means * size + 10 * Y.mean()) / (size + 10)
    elsewhere = pd.Series(Y[:160]).groupby(shop[:160]).mean()
    for values, verdict in ((means, "leak"), (smooth, "leak"), (elsewhere, "ok")):
        encoded = np.column_stack([X, values[shop]])
        assert prepared_with_test_rows(encoded, Y, True).verdict == verdict


def test_natural_columns_do_not_look_prepared():
    rng = np.random.default_rng(0)
    shares = rng.beta(0.5, 0.8, (N, 4)).round(2)
    shares[:9], shares[9:20] = 0.0, 1.0
    for natural in (shares, rng.binomial(12, shares) / 12, rng.integers(0, 2, (N, 3))):
        assert scaled_with_test_rows(natural).verdict == "ok"
        assert prepared_with_test_rows(natural, Y, True).verdict == "ok"
    for even in (np.linspace(0, 1, N), rng.permutation(np.linspace(-1, 1, N))):
        assert scaled_with_test_rows(even[:, None]).verdict == "ok"
        assert scaled_with_test_rows(np.column_stack([even, even])).verdict == "ok"
    whole = np.r_[np.arange(N - 20), np.arange(20, 40)] / (N - 21)  # scaled, of whole numbers
    assert scaled_with_test_rows(whole[:, None]).verdict == "leak"
    circles = make_circles(N, random_state=0)
    assert prepared_with_test_rows(*circles, True).verdict == "ok"
    diabetes = load_diabetes(return_X_y=True)
    assert scaled_with_test_rows(diabetes[0]).verdict == "ok"
    assert prepared_with_test_rows(*diabetes, False).verdict == "ok"


# Copies -------------------------------------------------------------------------------------------


def test_copies_exact_rounded_and_jittered():
    rng = np.random.default_rng(0)
    changes = (lambda X: X, lambda X: X.round(1), lambda X: X + rng.normal(0, 0.1, X.shape))
    order = rng.permutation(2 * 120)
    for change in changes:
        doubled = np.vstack([X[:120], change(X[:120])])[order]
        assert duplicates(doubled, FOLDS).verdict == "leak"
        together = list(GroupKFold(3).split(doubled, groups=np.tile(np.arange(120), 2)[order]))
        assert duplicates(doubled, together).verdict == "ok"
    assert duplicates(X, FOLDS).verdict == "ok"


def test_equal_rows_of_few_values_are_chance_unless_they_are_copies():
    rng = np.random.default_rng(0)
    tables = {
        "flags": rng.integers(0, 2, (N, 3)),
        "age and sex": np.column_stack([rng.integers(20, 60, N), rng.integers(0, 2, N)]),
        "counts": rng.poisson(1.0, (N, 4)),
    }
    for name, values in tables.items():
        assert duplicates(values, FOLDS).verdict == "ok", name
    answers = rng.integers(1, 6, (120, 9))
    assert duplicates(np.vstack([answers, answers]), FOLDS).verdict == "leak"


def test_training_rows_that_are_scored():
    rows = np.arange(N)
    flags = np.zeros((N, 1))
    assert duplicates(flags, [(rows, rows)]).verdict == "leak"
    assert duplicates(flags, [(rows[:100], rows[100:])]).verdict == "ok"


def test_texts_in_another_case_are_copies():
    rows = [f"word{i} of {i * 7} things" for i in range(N // 2)]
    assert duplicates(rows + [row.upper() + "!" for row in rows], FOLDS).verdict == "leak"
    assert duplicates(rows + [f"other {row}" for row in rows], FOLDS).verdict == "ok"


def test_one_quantity_in_several_units_is_not_resampled():
    height = np.random.default_rng(0).normal(175, 9, N)
    units = np.column_stack([height, height / 2.54, height / 30.48, height / 100])
    assert interpolated_rows(units, Y, True).verdict == "not checked"


def test_whole_numbers_between_others_are_resampled():
    table, y = make_classification(300, 5, n_redundant=0, weights=[0.8], random_state=1)
    whole = np.round(1000 * table).astype(int)
    assert interpolated_rows(whole, y, True).verdict == "ok"
    made, labels = SMOTE(random_state=0).fit_resample(whole, y)
    assert interpolated_rows(made, labels, True).verdict == "leak"
    few = np.round(table).astype(int)  # too few values to tell
    assert interpolated_rows(few, y, True).verdict == "not checked"
    # What grows with time lies between its neighbours, without a sampler.
    time = np.arange(300)
    counters = np.column_stack([time, 3 * time + time % 2, 1000 - time, 7 * time + time % 5])
    assert interpolated_rows(counters, time % 2, True).verdict == "ok"


# Proxies ------------------------------------------------------------------------------------------


def proxies():
    rng = np.random.default_rng(1)
    a, gap = rng.normal(50, 10, N), rng.uniform(0.5, 3, N)
    flag, number = rng.integers(0, 2, N), rng.permutation(N) * 2
    day = pd.Timestamp("2021-01-01") + pd.to_timedelta(rng.integers(0, 300, N), "D")
    names = np.array(["cat", "dog"])
    code = rng.integers(0, 20, N) * 2
    return {
        "difference": lambda y: {"a": a, "b": a + np.where(y == 1, gap, -gap)},
        "ratio": lambda y: {"a": a, "b": a * np.where(y == 1, 1.1, 0.9)},
        "exclusive or": lambda y: {"a": flag, "b": flag ^ y},
        "gaps": lambda y: {"a": np.where(y == 1, np.nan, a)},
        "path": lambda y: {"a": [f"{names[k]}/{i}.png" for i, k in enumerate(y)]},
        "date": lambda y: {"a": day.where(y == 0, day + pd.Timedelta(days=400))},
        "date as text": lambda y: {
            "a": day.where(y == 0, day + pd.Timedelta(days=400)).strftime("%Y-%m-%d").to_numpy()
        },
        "digit of a number": lambda y: {"a": 10000 + number + y},
        "letter of a name": lambda y: {
            "a": [f"{i}{'xy'[k]}" for i, k in zip(number, y, strict=True)]
        },
        "level": lambda y: {
            "a": [f"w{(c + k) * 7919 % 1009}" for c, k in zip(code, y, strict=True)]
        },
    }  # fmt: skip


@pytest.mark.parametrize("name", proxies())
def test_columns_that_name_the_class(name):
    frame = pd.DataFrame(X, columns=list("uvwxyz"))
    wrong = np.random.default_rng(2).permutation(Y)
    for target, verdict in ((Y, "leak"), (wrong, "ok")):
        columns = proxies()[name](target)
        assert leaking_columns(frame.assign(**columns), Y, True).verdict == verdict


@pytest.mark.parametrize("reveals", [False, True])
def test_gaps_of_dates_are_a_view_beside_the_dates(reveals):
    gaps = Y == 1 if reveals else np.arange(len(Y)) % 7 == 0
    dates = pd.Series(pd.date_range("2020-01-01", periods=len(Y))).mask(gaps)
    finding = leaking_columns(pd.DataFrame({"day": dates, "x": X[:, 0]}), Y, True)
    assert finding.verdict == ("leak" if reveals else "ok")
    assert ("the gaps of column day" in finding.evidence) is reveals


@pytest.mark.parametrize("unit", ["s", "ns"])
def test_dates_of_pyarrow_are_read_as_those_of_pandas(unit):
    pytest.importorskip("pyarrow")
    dates = pd.Series(pd.date_range("2020-01-01", periods=len(Y))).mask(np.arange(len(Y)) % 7 == 0)
    dates = dates.where(Y == 1, dates + pd.Timedelta(hours=5)).astype(f"datetime64[{unit}]")
    findings = [
        leaking_columns(pd.DataFrame({"day": column, "x": X[:, 0]}), Y, True)
        for column in (dates, dates.astype(f"timestamp[{unit}][pyarrow]"))
    ]
    assert findings[0] == findings[1]
    assert "the hour of column day" in findings[0].evidence


@pytest.mark.filterwarnings("error")
def test_columns_without_any_value_are_no_proxies():
    empty = {"number": np.full(len(Y), np.nan), "day": np.full(len(Y), np.datetime64("NaT", "s"))}
    finding = leaking_columns(pd.DataFrame({**empty, "x": X[:, 0]}), Y, True)
    assert finding.verdict == "ok"


def test_easy_problems_and_laws_are_not_proxies():
    for X, y in (load_iris(return_X_y=True), make_blobs(N, centers=2, random_state=3)):
        assert leaking_columns(X, y, True).verdict == "ok"
    rng = np.random.default_rng(0)
    mass, speed = rng.uniform(1, 2, N), rng.uniform(1, 30, N)
    energy = 0.5 * mass * speed**2 * rng.normal(1, 0.02, N)
    assert leaking_columns(np.column_stack([mass, speed]), energy, False).verdict == "ok"
    time = 2 * np.pi * np.sqrt(speed / 9.81)
    assert leaking_columns(np.column_stack([mass, speed]), time, False).verdict == "ok"


def test_a_column_that_reveals_one_of_several_targets():
    """Targets of one kind, and of two kinds as `KerasMultiTask` has them; some are missing."""
    rng = np.random.default_rng(0)
    number = X[:, 3] * 2 + rng.normal(size=len(X))
    both = np.column_stack([Y, number]).astype(float)
    both[::9, 1] = np.nan
    for targets, classification in (
        (both, False),
        (np.column_stack([Y, rng.permutation(Y)]), True),
    ):
        assert leaking_columns(X, targets, classification).verdict == "ok"
    for copy, name in ((Y + 1e-3 * rng.normal(size=len(X)), "target 0"), (number, "target 1")):
        found = leaking_columns(np.column_stack([X, copy]), both, False)
        assert found.verdict == "leak"
        assert found.evidence.startswith(f"{name}: column x{X.shape[1]} alone")
    assert leaking_columns(X, np.zeros((len(X), 2)), False).verdict == "not checked"


@pytest.mark.slow
def test_a_report_on_several_tasks_names_the_column():
    frame = pd.DataFrame(X, columns=list("uvwxyz"))
    targets = pd.DataFrame({"label": Y, "number": X[:, 3] + X[:, 4] * X[:, 5]})
    tasks = KerasMultiTask(epochs=1, random_state=0)
    assert not leakage_report(tasks, frame, targets, cv=3, verbose=0).leaks
    frame = frame.assign(copy=targets["number"] * 2 + 1)
    told = leakage_report(tasks, frame, targets, cv=3, verbose=0)
    assert told.leaks == ["a column that reveals the target"]


def test_copies_and_differences_that_are_the_number():
    rng = np.random.default_rng(0)
    sales = rng.gamma(4, 30, (N, 5))
    total = sales.cumsum(axis=1)
    assert leaking_columns(total, sales[:, 4], False).verdict == "leak"
    assert leaking_columns(total[:, :4], sales[:, 4], False).verdict == "ok"
    for copy in (sales[:, 0] * 1.8 + 32, np.log(sales[:, 0])):
        columns = np.column_stack([X, copy])
        assert leaking_columns(columns, sales[:, 0], False).verdict == "leak"


# Kept in the estimator ----------------------------------------------------------------------------

OTHER = table(3)


class Holder(TransformerMixin, BaseEstimator):
    def __init__(self, table=None):
        self.table = table

    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return np.asarray(X)


def in_class(X, y):
    return type("Own", (Holder,), {"__module__": __name__, "memory": X})()


def as_attribute(X, y):
    step = Holder()
    step.reference = X
    return step


KEPT = {
    "rows": lambda X, y: Holder(X),
    "frame with the target": lambda X, y: Holder(pd.DataFrame(X).assign(y=y)),
    "some columns": lambda X, y: Holder(X[:50, :2]),
    "list": lambda X, y: Holder(X[:30].tolist()),
    "means": lambda X, y: Holder(X.mean(axis=0)),
    "class attribute": in_class,
    "attribute": as_attribute,
    "closure": lambda X, y: FunctionTransformer(lambda Z: Z - X[0]),
    "keyword": lambda X, y: FunctionTransformer(np.subtract, kw_args={"x2": X[:30]}),
    "dict by row": lambda X, y: Holder({r.tobytes(): k for r, k in zip(X, y, strict=True)}),
    "inside": lambda X, y: make_pipeline(StandardScaler(), Holder(X), LOGISTIC),
}


@pytest.mark.parametrize("name", KEPT)
def test_rows_and_statistics_that_the_estimator_holds(name):
    for data, verdict in (((X, Y), "leak"), (OTHER, "ok")):
        parts = list(carried(KEPT[name](*data)))
        assert kept_rows(parts, X, Y).verdict == verdict


def test_targets_that_the_estimator_holds():
    wrong = np.random.default_rng(0).permutation(Y)
    for held in (lambda y: y, list, pd.Series, lambda y: dict(enumerate(y.tolist()))):
        for target, verdict in ((Y, "leak"), (wrong, "ok")):
            assert kept_rows(list(carried(Holder(held(target)))), X, Y).verdict == verdict


def test_what_fitted_estimators_learned_is_not_kept():
    for fitted in (KNeighborsClassifier().fit(X, Y), make_pipeline(Holder(), FOREST).fit(X, Y)):
        parts = list(carried(fitted))
        assert kept_rows(parts, X, Y).verdict == "ok"
        assert not frozen_parts(parts)


def test_fitted_models_are_found_wherever_they_are():
    forest = clone(FOREST).fit(X, Y)
    for holder in (
        FrozenEstimator(forest),
        make_pipeline(FunctionTransformer(forest.predict_proba), LOGISTIC),
        make_pipeline(FunctionTransformer(lambda Z: forest.predict_proba(Z)), LOGISTIC),
        KerasClassifier(loss=TeacherLoss(forest)),
    ):
        assert len(frozen_parts(carried(holder))) == 1


def test_frozen_models_and_transformers_of_all_rows():
    check = "frozen parts that have seen test rows"
    for make in (
        lambda X, y: FrozenEstimator(LogisticRegression(max_iter=5000).fit(X, y)),
        lambda X, y: make_pipeline(FrozenEstimator(StandardScaler().fit(X)), LOGISTIC),
        lambda X, y: FrozenEstimator(clone(FOREST).fit(X, y)),
    ):
        assert verdicts(make(X, Y), X, Y)[0][check] == "leak"
        # The same classes, on other rows: `table` draws the clusters of seed 0 twice.
        both = table(0, 2 * N)
        found, report = verdicts(make(both[0][::2], both[1][::2]), both[0][1::2], both[1][1::2])
        assert found[check] == "ok", report


# Inside of the estimator --------------------------------------------------------------------------


class InSample(TransformerMixin, BaseEstimator):
    def __init__(self, model):
        self.model = model

    def fit(self, X, y):
        self.model_ = clone(self.model).fit(X, y)
        return self

    def transform(self, X):
        model = self.model_
        return (
            model.predict_proba(X)[:, 1:]
            if hasattr(model, "predict_proba")
            else model.predict(X)[:, None]
        )


class OwnMoments(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return StandardScaler().fit_transform(X)


def test_in_sample_features_of_classes_and_numbers():
    number = X @ np.linspace(0.1, 0.4, 6) + np.random.default_rng(0).normal(0, 5, N)
    models = (
        (InSample(KNeighborsClassifier(3)), LOGISTIC, Y),
        (InSample(RandomForestRegressor(15, random_state=0)), Ridge(), number),
    )
    for step, model, y in models:
        assert verdicts(make_pipeline(step, model), X, y)[1].leaks == ["in-sample features"]


@pytest.mark.parametrize(
    "step", [SelectKBest(k=20), LinearDiscriminantAnalysis(), SelectFwe(alpha=0.1)]
)
def test_supervised_steps_of_a_plain_pipeline_are_no_leak(step):
    wide = table(11, 160, 100)
    data = wide if isinstance(step, SelectKBest) else (X, Y)
    report = verdicts(make_pipeline(step, LOGISTIC), *data)[1]
    assert not report.leaks, report
    assert not report.suspects, report


def test_a_selection_before_a_calibration_leaks_if_it_moves_inner_scores():
    wide = table(11, 160, 150)
    check = "learning from y before an inner split"
    selected = make_pipeline(SelectKBest(k=10), CalibratedClassifierCV(LOGISTIC, cv=3))
    inside = CalibratedClassifierCV(make_pipeline(SelectKBest(k=10), LOGISTIC), cv=3)
    assert verdicts(selected, *wide)[0][check] == "leak"
    assert verdicts(inside, *wide)[0][check] == "ok"
    harmless = make_pipeline(SelectKBest(k=5), CalibratedClassifierCV(GaussianNB(), cv=3))
    assert verdicts(harmless, X, Y)[0][check] == "ok"


class Arithmetic(TransformerMixin, BaseEstimator):
    """Computes with the rows that it is given, without a copy."""

    def fit(self, X, y=None):
        self.mean_ = X.mean(axis=0)
        return self

    def transform(self, X):
        return X - self.mean_


class WithoutFit(BaseEstimator):
    """Subtracts the mean, or makes a prediction of y, and has ``fit_transform`` alone."""

    def __init__(self, predicts=False):
        self.predicts = predicts

    def fit_transform(self, X, y=None):
        self.mean_ = X.mean(axis=0)
        self.axes_ = np.eye(X.shape[1])
        if self.predicts:
            self.axes_ = np.linalg.lstsq(X - self.mean_, y - y.mean(), rcond=None)[0][:, None]
        return self.transform(X)

    def transform(self, X):
        return (X - self.mean_) @ self.axes_


@pytest.mark.parametrize(
    ("step", "leaks"),
    [
        (PolynomialFeatures(2), False),
        (Arithmetic(), "scaling"),
        (WithoutFit(), "scaling"),
        (WithoutFit(predicts=True), "learning from y"),
        ("passthrough", False),
        (Normalizer(), False),
        (FunctionTransformer(np.cbrt), False),
        (MinMaxScaler(), "scaling"),
        (PCA(3), "scaling"),
        (LinearDiscriminantAnalysis(), "learning from y"),
    ],
    ids=str,
)
def test_whether_a_step_learns_is_seen_by_what_it_does(step, leaks):
    search = GridSearchCV(LogisticRegression(max_iter=20), {"C": [0.1, 1.0]}, cv=2)
    steps = Pipeline([("step", step), ("search", search)])
    report = verdicts(steps, X, Y, n_permutations=1)[1]
    assert report.leaks == ([f"{leaks} before an inner split"] if leaks else [])


def test_a_model_that_splits_by_itself_after_a_sampler():
    options = {"cv": 2, "Cs": 2, "l1_ratios": (0,), "max_iter": 500}
    if "use_legacy_attributes" in LogisticRegressionCV().get_params():  # its default warns
        options["use_legacy_attributes"] = False
    model = LogisticRegressionCV(**options)
    pipeline = make_pipeline(RandomOverSampler(random_state=0), model)
    assert verdicts(pipeline, X, Y)[1].leaks == ["resampling before an inner split"]
    assert not verdicts(make_pipeline(StandardScaler(), model), X, Y)[1].leaks


@pytest.mark.parametrize("options", [{"time": np.arange(N)}, {}], ids=["times", "ordered folds"])
def test_unsupervised_steps_before_ordered_inner_folds(options):
    def stack(branch):
        cv = TimeSeriesSplit(2)
        return StackedKerasClassifier([("a", branch)], downstream=LOGISTIC, cv=cv, random_state=0)

    options = {"cv": TimeSeriesSplit(2), "n_permutations": 1, **options}
    check = "later rows in training (inner folds)"
    outside = make_pipeline(PCA(3), stack(GaussianNB()))
    assert verdicts(outside, X, Y, **options)[0][check] == "leak"
    assert verdicts(stack(make_pipeline(PCA(3), GaussianNB())), X, Y, **options)[0][check] == "ok"


def test_test_rows_that_learn_from_each_other():
    check = "predictions that depend on other test rows"
    assert verdicts(make_pipeline(OwnMoments(), LOGISTIC), X, Y)[0][check] == "leak"
    assert verdicts(make_pipeline(StandardScaler(), LOGISTIC), X, Y)[0][check] == "ok"


def test_groups_with_one_target_each_are_judged_by_group():
    rng = np.random.default_rng(0)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        own = rng.normal(size=(24, 4))
        group = np.repeat(np.arange(24), 10)
        y = (own[:, 0] + rng.normal(0, 0.7, 24) > 0).astype(int)[group]
        rows = own[group] + rng.normal(0, 0.3, (N, 4))
        report = verdicts(FOREST, rows, y, groups=group, cv=GroupKFold(3))[1]
        assert not report.leaks, report
        assert not report.suspects, report


def test_several_targets_and_inner_stacks_do_not_fail():
    report = verdicts(MultiOutputClassifier(LOGISTIC), X, np.column_stack([Y, Y[::-1]]))[1]
    assert not report.leaks, report
    fitted = StackingClassifier([("a", clone(FOREST).fit(X, Y))], LOGISTIC, cv="prefit")
    assert "frozen parts that have seen test rows" in verdicts(make_pipeline(fitted), X, Y)[1].leaks


class OutOfFold(TransformerMixin, BaseEstimator):
    """Out-of-fold probabilities behind a step that is fitted on all rows."""

    def __init__(self, before, model, cv):
        self.before, self.model, self.cv = before, model, cv

    def fit(self, X, y):
        self.fit_transform(X, y)
        return self

    def fit_transform(self, X, y):
        self.before_ = clone(self.before)
        Z = self.before_.fit_transform(X, y)
        features = np.zeros((len(Z), 1))
        for train, test in self.cv.split(Z):
            model = clone(self.model).fit(Z[train], y[train])
            features[test] = model.predict_proba(Z[test])[:, 1:]
        self.model_ = clone(self.model).fit(Z, y)
        return features

    def transform(self, X):
        return self.model_.predict_proba(self.before_.transform(X))[:, 1:]


def test_a_cross_fit_of_one_s_own_is_judged_by_what_it_does():
    options = {"cv": TimeSeriesSplit(3), "time": np.arange(N), "n_permutations": 1}
    check = "later rows in training (inner folds)"
    for before, inside, verdict in (
        (PCA(3), GaussianNB(), "leak"),
        (FunctionTransformer(), make_pipeline(PCA(3), GaussianNB()), "ok"),
    ):
        step = OutOfFold(before, inside, TimeSeriesSplit(3))
        assert verdicts(make_pipeline(step, LOGISTIC), X, Y, **options)[0][check] == verdict
    wide = table(11, 160, 150)
    check = "learning from y before an inner split"
    for before, verdict in ((SelectKBest(k=10), "leak"), (StandardScaler(), "ok")):
        step = OutOfFold(before, LOGISTIC, KFold(3))
        assert verdicts(make_pipeline(step, LOGISTIC), *wide)[0][check] == verdict


# What goes in, and what comes out ----------------------------------------------------------------


@pytest.mark.parametrize(
    "container",
    [pl.from_pandas, sparse.coo_matrix, np.ndarray.tolist],
    ids=["polars", "sparse", "lists"],
)
def test_containers(container):
    given = pd.DataFrame(X, columns=list("uvwxyz")) if container is pl.from_pandas else X
    report = verdicts(LOGISTIC, container(given), Y.tolist(), n_permutations=1)[1]
    assert not report.leaks + report.suspects, report


def test_each_verdict_has_a_sentence_and_progress_is_shown(capsys):
    report = verdicts(GaussianNB(), X, Y, verbose=1)[1]
    frame = report.to_frame()
    assert frame.columns.tolist() == [
        "check", "verdict", "sentence", "evidence", "strength", "remedy",
    ]  # fmt: skip
    assert all(frame["sentence"]), frame[["check", "sentence"]]
    assert frame["strength"].between(0, 1).all()
    out, err = capsys.readouterr()
    assert not out
    assert err.splitlines()[-1].startswith("[leakage_report] 12 of 12 steps")
    verdicts(GaussianNB(), X, Y, verbose=0)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("verbose", [2, "yes"])
def test_other_values_of_verbose_are_refused(verbose):
    with pytest.raises(ValueError, match="verbose="):
        leakage_report(LOGISTIC, X, Y, verbose=verbose)


# Raw rows and their preparation -------------------------------------------------------------------

RAW = pd.DataFrame(with_gaps(0.1), columns=list("uvwxyz")).round(2)


def mean_filled(raw):
    return raw.fillna(raw.mean())


def zero_filled(raw):
    return raw.fillna(0.0)


def selected(raw, y):
    filled = raw.fillna(0.0)
    return filled[filled.columns[SelectKBest(k=3).fit(filled, y).get_support()]]


def looks_ahead(raw):
    return raw.fillna(0.0).assign(
        m=raw["u"].fillna(0).rolling(5, center=True, min_periods=1).mean()
    )


def looks_back(raw):
    return raw.fillna(0.0).assign(m=raw["u"].fillna(0).rolling(5, min_periods=1).mean())


@pytest.mark.parametrize(
    ("prepare", "options", "verdict"),
    [
        (mean_filled, {}, "leak"),
        (zero_filled, {}, "ok"),
        (looks_ahead, {"time": np.arange(N), "cv": TimeSeriesSplit(3)}, "leak"),
        (looks_back, {"time": np.arange(N), "cv": TimeSeriesSplit(3)}, "ok"),
        (lambda raw: raw.fillna(0.0).sample(frac=1.0), {}, "not checked"),
    ],
)
def test_preparation_of_raw_rows(prepare, options, verdict):
    check = "preparation of raw rows"
    given = {"raw": RAW, "prepare": prepare, "n_permutations": 1, **options}
    found, report = verdicts(LOGISTIC, prepare(RAW), Y, **given)
    assert found[check] == verdict, report
    assert verdicts(LOGISTIC, zero_filled(RAW), Y, n_permutations=1)[0][check] == "not checked"


def test_preparation_that_is_given_the_targets():
    noise = pd.DataFrame(np.random.default_rng(0).normal(size=(N, 60)))
    given = {"raw": noise, "prepare": selected, "n_permutations": 1}
    found = verdicts(LOGISTIC, selected(noise, Y), Y, **given)[0]
    assert found["preparation of raw rows"] == "leak"


@pytest.mark.parametrize(
    "options", [{"raw": RAW}, {"prepare": zero_filled}, {"raw": RAW, "prepare": 3}]
)
def test_raw_rows_and_preparation_come_together(options):
    with pytest.raises((ValueError, TypeError), match=r"raw=|prepare="):
        leakage_report(LOGISTIC, X, Y, **options)


def test_texts_in_a_pipeline_are_clean():
    rng = np.random.default_rng(0)
    rows = [" ".join(rng.choice(list("abcdefgh"), 9)) for _ in range(90)]
    pipeline = make_pipeline(CountVectorizer(token_pattern=r"\w"), MultinomialNB())
    report = verdicts(pipeline, rows, rng.integers(0, 2, 90))[1]
    assert not report.leaks + report.suspects, report
