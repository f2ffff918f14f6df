"""Planted leaks are found by the check that is theirs; their clean twins raise no alarm."""

import keras
import numpy as np
import pandas as pd
import pytest
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import make_pipeline
from scipy.sparse import csr_array
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, StackingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectFromModel, SelectKBest
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    TimeSeriesSplit,
    TunedThresholdClassifierCV,
)
from sklearn.multioutput import MultiOutputRegressor
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import KBinsDiscretizer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from skstack import (
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack.inspection import leakage_report
from skstack.inspection._leakage import ranks_of_times
from skstack.networks import MLP

X, y = make_classification(
    n_samples=360, n_features=8, n_informative=4, weights=[0.7], flip_y=0.15, random_state=0
)
GROUPS = np.arange(360) // 6
TIME = np.arange(360)
GROUPED = X + 0.0
FOREST = RandomForestClassifier(n_estimators=4, random_state=0)
LOGISTIC = LogisticRegression()
SCALED = StandardScaler().fit_transform(X)
SMOTED = SMOTE(random_state=0).fit_resample(X, y)
ELSEWHERE = make_classification(
    n_samples=720, n_features=8, n_informative=4, weights=[0.7], flip_y=0.15, random_state=0
)
NETWORK = KerasClassifier(MLP((8,)), epochs=3, batch_size=64, random_state=0)


class InSample(TransformerMixin, BaseEstimator):
    """What many write by hand: probabilities for the very rows that the model learned from."""

    def __init__(self, model):
        self.model = model

    def fit(self, X, y):
        self.model_ = clone(self.model).fit(X, y)
        return self

    def transform(self, X):
        return self.model_.predict_proba(X)[:, 1:]


def search(estimator, name="C"):
    return GridSearchCV(estimator, {name: [0.1, 1.0]}, cv=3)


def early(**options):
    return MLPClassifier((4,), early_stopping=True, max_iter=5, random_state=0, **options)


STACK = StackedKerasClassifier(
    [("forest", FOREST)], downstream=LOGISTIC, sampler=SMOTE(random_state=0), cv=3, random_state=0
)
SOME = np.arange(0, 720, 2)
SEEN, UNSEEN = (ELSEWHERE[0][SOME], ELSEWHERE[1][SOME]), (
    ELSEWHERE[0][SOME + 1], ELSEWHERE[1][SOME + 1]
)  # fmt: skip
FROZEN = FrozenEstimator(clone(FOREST).fit(*SEEN))
ANSWER = np.column_stack([X, 3.0 * y + np.random.default_rng(0).normal(0, 0.2, 360)])

# name of the check, then (estimator, X, y, options) with the leak and without it
CASES = {
    "in-sample upstream": (
        "in-sample features",
        (make_pipeline(InSample(FOREST), LOGISTIC), X, y, {}),
        (STACK, X, y, {}),
    ),
    "in-sample upstream, by FeatureTransformer": (
        "in-sample features",
        (make_pipeline(StandardScaler(), InSample(FOREST), NETWORK), X, y, {}),
        (make_pipeline(StandardScaler(), KerasFeatureTransformer(FOREST, cv=3), NETWORK), X, y, {}),
    ),
    "scaler on all rows": (
        "scaling before the outer split",
        (LOGISTIC, SCALED, y, {}),
        (make_pipeline(StandardScaler(), LOGISTIC), X, y, {}),
    ),
    "scaler before a search": (
        "scaling before an inner split",
        (make_pipeline(StandardScaler(), search(LOGISTIC)), X, y, {}),
        (
            search(make_pipeline(StandardScaler(), LOGISTIC), "logisticregression__C"),
            X,
            y,
            {},
        ),
    ),
    "SMOTE on all rows": (
        "resampling before the outer split",
        (LOGISTIC, *SMOTED, {}),
        (make_pipeline(SMOTE(random_state=0), LOGISTIC), X, y, {}),
    ),
    "SMOTE before a search": (
        "resampling before an inner split",
        (make_pipeline(SMOTE(random_state=0), search(LOGISTIC)), X, y, {}),
        (
            search(make_pipeline(SMOTE(random_state=0), LOGISTIC), "logisticregression__C"),
            X,
            y,
            {},
        ),
    ),
    "SMOTE, then features with ties, before a search": (
        "resampling before an inner split",
        (
            make_pipeline(
                SMOTE(random_state=0), KBinsDiscretizer(encode="ordinal"), search(LOGISTIC)
            ),
            X,
            y,
            {},
        ),
        (
            make_pipeline(SMOTE(random_state=0), KBinsDiscretizer(encode="ordinal"), LOGISTIC),
            X,
            y,
            {},
        ),
    ),
    "SMOTE before early stopping": (
        "early stopping on synthetic or training rows",
        (make_pipeline(SMOTE(random_state=0), early()), X, y, {}),
        (make_pipeline(StandardScaler(), early()), X, y, {}),
    ),
    "SMOTE before early stopping of a network": (
        "early stopping on synthetic or training rows",
        (
            make_pipeline(SMOTE(random_state=0), clone(NETWORK).set_params(early_stopping=True)),
            X,
            y,
            {},
        ),
        (
            clone(NETWORK).set_params(early_stopping=True, sampler=SMOTE(random_state=0)),
            X,
            y,
            {},
        ),
    ),
    "group across folds": (
        "groups across the outer folds",
        (LOGISTIC, X, y, {"groups": GROUPS, "cv": KFold(3, shuffle=True, random_state=0)}),
        (LOGISTIC, X, y, {"groups": GROUPS, "cv": GroupKFold(3)}),
    ),
    "group across inner folds": (
        "groups across inner folds",
        (search(LOGISTIC), X, y, {"groups": np.arange(360) % 60, "cv": GroupKFold(3)}),
        (LOGISTIC, X, y, {"groups": np.arange(360) % 60, "cv": GroupKFold(3)}),
    ),
    "future in the past": (
        "later rows in training (outer folds)",
        (LOGISTIC, X, y, {"time": TIME, "cv": KFold(3)}),
        (LOGISTIC, X, y, {"time": TIME, "cv": TimeSeriesSplit(3)}),
    ),
    "future in the past of inner folds": (
        "later rows in training (inner folds)",
        (
            StackingClassifier([("forest", FOREST)], cv=3),
            X,
            y,
            {"time": TIME, "cv": TimeSeriesSplit(3)},
        ),
        (
            clone(STACK).set_params(cv=TimeSeriesSplit(3)),
            X,
            y,
            {"time": TIME, "cv": TimeSeriesSplit(3)},
        ),
    ),
    "frozen network that saw the test rows": (
        "frozen parts that have seen test rows",
        (make_pipeline(KerasFeatureTransformer(FROZEN), LOGISTIC), *SEEN, {}),
        (make_pipeline(KerasFeatureTransformer(FROZEN), LOGISTIC), *UNSEEN, {}),
    ),
    "frozen network whose training rows are at hand": (
        "frozen parts that have seen test rows",
        (make_pipeline(KerasFeatureTransformer(FROZEN), LOGISTIC), *SEEN, {"seen": SEEN[0]}),
        (make_pipeline(KerasFeatureTransformer(FROZEN), LOGISTIC), *UNSEEN, {"seen": SEEN[0]}),
    ),
    "answer in disguise": (
        "a column that reveals the target",
        (LOGISTIC, ANSWER, y, {}),
        (LOGISTIC, X, y, {}),
    ),
}


# Like that of another estimator; tests/contract holds that its features have no finding.
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if name.endswith("FeatureTransformer") else [])
    for name in CASES
]


@pytest.mark.parametrize("name", NAMES)
def test_planted_leaks_are_detected(name):
    check, (estimator, X, y, options), _ = CASES[name]
    report = leakage_report(estimator, X, y, **{"cv": 3, **options})
    assert check in report.leaks, report


@pytest.mark.parametrize("name", NAMES)
def test_leakage_free_variants_have_no_finding(name):
    _, _, (estimator, X, y, options) = CASES[name]
    report = leakage_report(estimator, X, y, **{"cv": 3, **options})
    assert not report.leaks, report
    assert not report.suspects, report


def test_the_user_s_estimator_data_and_splitter_are_not_modified():
    splitter = KFold(3, shuffle=True, random_state=np.random.RandomState(0))
    pipeline = make_pipeline(SMOTE(random_state=0), search(LogisticRegression()))
    before = repr(pipeline.get_params()), X.copy(), y.copy(), splitter.random_state.get_state()[1]
    before = (*before[:3], before[3].copy())
    leakage_report(pipeline, X, y, cv=splitter)
    assert repr(pipeline.get_params()) == before[0]
    np.testing.assert_array_equal(X, before[1])
    np.testing.assert_array_equal(y, before[2])
    np.testing.assert_array_equal(splitter.random_state.get_state()[1], before[3])
    assert not hasattr(pipeline[-1], "best_score_")
    assert type(pipeline[-1]) is GridSearchCV


def test_fits_list_steps_and_numbers_of_rows():
    pipeline = make_pipeline(SMOTE(random_state=0), LogisticRegression())
    report = leakage_report(pipeline, X, y, cv=3)
    fits = {step: (known, made) for step, known, made in report.fits}
    assert fits["Pipeline"] == fits["Pipeline.smote"] == (240, 0)
    known, made = fits["Pipeline.logisticregression"]
    assert known == 240
    assert made > 50


@pytest.mark.slow
def test_frames_strings_and_regression():
    frame = pd.DataFrame({"a": X[:, 0], "b": np.where(X[:, 1] > 0, "x", "y")})
    target = X[:, 0] + np.random.default_rng(0).normal(size=360)
    stack = StackedKerasRegressor(
        KerasRegressor(MLP((4,)), epochs=1), downstream=KerasRegressor(MLP((4,)), epochs=1), cv=2
    )
    report = leakage_report(stack, frame, target, cv=2)
    assert not report.leaks, report
    told = leakage_report(stack, frame.assign(c=target * 2), target, cv=2)
    assert told.leaks == ["a column that reveals the target"]
    assert "column c alone" in repr(told)


@pytest.mark.parametrize("container", [np.array, list, pd.Series])
def test_rows_may_be_texts(container):
    words = [f"{'win money' if i % 2 else 'hello friend'} {i % 7} w{i} {i * 7}" for i in range(120)]
    labels = np.random.default_rng(0).integers(0, 2, 120)
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression())
    report = leakage_report(pipeline, container(words), labels, cv=3)
    assert not report.leaks, report
    again = container(words[:60] + words[:60])
    assert "duplicates across folds" in leakage_report(pipeline, again, labels, cv=3).leaks


def test_a_frozen_network_of_unknown_origin_is_suspect():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    report = leakage_report(
        make_pipeline(KerasFeatureTransformer(model), LogisticRegression()), X, y, cv=3
    )
    assert report.suspects == ["frozen parts that have seen test rows"]
    assert "seen=" in repr(report)


@pytest.mark.slow
def test_groups_reach_inner_folds_with_routing_on():
    groups = np.arange(360) % 60
    options = {"groups": groups, "cv": GroupKFold(3)}
    assert leakage_report(STACK, X, y, **options).leaks == ["groups across inner folds"]
    with config_context(enable_metadata_routing=True):
        assert not leakage_report(STACK, X, y, **options).leaks


class Gossip(ClassifierMixin, BaseEstimator):
    """Remembers targets in the class, so that folds tell each other."""

    told = {}

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.told.update((row.tobytes(), label) for row, label in zip(X, y, strict=True))
        return self

    def predict_proba(self, X):
        positive = [float(self.told.get(row.tobytes()) == self.classes_[1]) for row in X]
        return np.column_stack([1 - np.array(positive), positive])


def test_a_step_that_keeps_targets_outside_of_fit():
    report = leakage_report(Gossip(), X, y, cv=3)
    assert "score with shuffled targets" in report.leaks


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_permutations": 0}, "n_permutations=0"),
        ({"groups": np.arange(5)}, r"groups: .*inconsistent numbers of samples"),
        ({"time": np.arange(5)}, r"time: .*inconsistent numbers of samples"),
        ({"time": ["31/12/2023"] * 360}, "time holds text, such as '31/12/2023'"),
        ({"time": [None, *TIME[1:]]}, "time holds 1 missing values"),
        (
            {"time": np.array(["now", *TIME[1:]], dtype=object)},
            "time holds values that cannot",
        ),
        ({"time": X}, "time has shape"),
        ({"seen": X[:, :2]}, "X has 8 columns and seen has 2"),
        ({"seen": X[0]}, "seen has shape"),
        ({"cv": 300}, "cv=300 cannot split these rows"),
    ],
)
def test_invalid_arguments_are_refused(options, said):
    """Before any fit."""
    with pytest.raises(ValueError, match=said):
        leakage_report(Refuser(), X, y, **options)


@pytest.mark.parametrize("estimator", [None, 3, "stack", [], StandardScaler], ids=str)
def test_what_is_no_estimator_is_refused(estimator):
    with pytest.raises(TypeError, match=r"estimator=.* must be an estimator"):
        leakage_report(estimator, X, y)


def test_gaps_in_the_target_are_refused():
    words = np.where(y == 1, "yes", "no").astype(object)
    for target, gap in ((words, np.nan), (words, None), (y * 1.0, np.nan)):
        holed = target.copy()
        holed[3] = gap
        with pytest.raises(ValueError, match=r"y holds missing values .* in 1 rows, such as 3"):
            leakage_report(Refuser(), X, holed)


class Refuser(ClassifierMixin, BaseEstimator):
    """Is never fitted."""

    def fit(self, X, y):
        raise AssertionError


def test_masks_are_folds_and_iso_text_is_time():
    days = pd.Timestamp("2023-01-30") + pd.to_timedelta(TIME, "D")
    folds = list(TimeSeriesSplit(3).split(X))
    masks = [tuple(np.isin(TIME, rows) for rows in pair) for pair in folds]
    expected = leakage_report(LOGISTIC, X, y, cv=folds, time=TIME, n_permutations=1)
    for time in (days.strftime("%Y-%m-%d"), days.strftime("%Y-%m-%dT%H:%M:%S+02:00").tolist()):
        report = leakage_report(LOGISTIC, X, y, cv=masks, time=time, n_permutations=1)
        assert repr(report) == repr(expected)


def test_times_have_ranks():
    levels = pd.Categorical(["low", "high", "low"], categories=["low", "high"], ordered=True)
    for time in (levels, pd.Series(levels), np.array([[1], [2], [1]])):
        assert ranks_of_times(time).tolist() == [0, 1, 0]
    for time in (["31/12/2023", "01/02/2024"], ["09:30", "10:00"]):
        with pytest.raises(ValueError, match="or the rank of each time"):
            ranks_of_times(time)
    with pytest.raises(ValueError, match="1 missing values"):
        ranks_of_times(pd.Series(levels).replace("high", None))


@pytest.mark.slow
def test_a_selector_before_a_stack_is_suspect():
    X, y = make_classification(120, 10, random_state=0)
    stack = StackedKerasClassifier(
        [("a", LogisticRegression())], downstream=LogisticRegression(), random_state=0
    )
    inside = StackedKerasClassifier(
        [("a", make_pipeline(SelectKBest(k=3), LogisticRegression()))],
        downstream=LogisticRegression(),
        random_state=0,
    )
    check = "learning from y before an inner split"
    for estimator, verdict in [
        (make_pipeline(SelectKBest(k=3), stack), "suspect"),
        (make_pipeline(PCA(3), stack), "ok"),
        (inside, "ok"),
    ]:
        report = leakage_report(estimator, X, y, cv=3, n_permutations=1)
        assert {finding.check: finding.verdict for finding in report.findings}[check] == verdict


class NearestTargets(TransformerMixin, BaseEstimator):
    """The target of the nearest training row: of a training row, its own."""

    def fit(self, X, y):
        self.nearest_ = KNeighborsRegressor(1).fit(X, y)
        return self

    def transform(self, X):
        return self.nearest_.predict(X).reshape(len(X), -1)


@pytest.mark.parametrize("container", [np.asarray, pd.DataFrame])
def test_a_target_may_be_a_column(container):
    rows = X[:150]
    target = rows[:, 0] + np.random.default_rng(0).normal(size=150)
    column = container(target[:, None])
    leaky = make_pipeline(NearestTargets(), Ridge())
    report = leakage_report(leaky, rows, column, cv=3, random_state=0)
    assert report.leaks == ["in-sample features"]
    assert repr(report) == repr(leakage_report(leaky, rows, target, cv=3, random_state=0))
    for fitted_on in (target, column):
        frozen = make_pipeline(FrozenEstimator(LinearRegression().fit(rows, fitted_on)))
        for y_ in (target, column):
            report = leakage_report(frozen, rows, y_, cv=3, random_state=0)
            assert report.leaks == ["frozen parts that have seen test rows"]


def test_an_estimator_may_need_a_column():
    target = X[:150, :1] + np.random.default_rng(0).normal(size=(150, 1))
    report = leakage_report(MultiOutputRegressor(Ridge()), X[:150], target, cv=3, random_state=0)
    assert not report.leaks
    assert leakage_report(Ridge(), X[:150], csr_array(target), cv=3, random_state=0).findings


def test_several_targets_are_not_checked_for_features_made_in_sample():
    target = np.column_stack([X[:150, 0], X[:150, 1]])
    for estimator in (
        make_pipeline(NearestTargets(), Ridge()),
        make_pipeline(FrozenEstimator(KNeighborsRegressor(1).fit(X[:150], target))),
    ):
        report = leakage_report(estimator, X[:150], target, cv=3, random_state=0)
        verdicts = {finding.check: finding.verdict for finding in report.findings}
        assert verdicts["in-sample features"] == "not checked"
    assert verdicts["frozen parts that have seen test rows"] == "leak"


def test_parts_that_were_fitted_before_are_judged_as_frozen_ones():
    models = [("a", LogisticRegression().fit(X, y)), ("b", DecisionTreeClassifier().fit(X, y))]
    stack = StackingClassifier(models, cv="prefit")
    report = leakage_report(stack, X, y, cv=3, random_state=0)
    assert "frozen parts that have seen test rows" in report.leaks
    assert report.leaks == leakage_report(make_pipeline(stack), X, y, cv=3, random_state=0).leaks
    assert stack.estimators[0][1] is models[0][1]


def test_other_parts_that_were_fitted_before_are_judged_as_frozen_ones():
    tree = DecisionTreeClassifier().fit(X, y)
    for estimator in (
        TunedThresholdClassifierCV(tree, cv="prefit", refit=False),
        make_pipeline(SelectFromModel(tree, prefit=True), LogisticRegression()),
    ):
        report = leakage_report(estimator, X, y, cv=3, random_state=0)
        assert "frozen parts that have seen test rows" in report.leaks
