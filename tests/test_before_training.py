"""What a part of a stack cannot take is refused before any network is trained."""

import inspect

import keras
import numpy as np
import pandas as pd
import polars as pl
import pytest
from _models import FIT, SMALL, binary, mixed, regression
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.pipeline import make_pipeline as imblearn_pipeline
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin, clone, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.decomposition import NMF, PCA
from sklearn.ensemble import (
    BaggingClassifier,
    BaggingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction import DictVectorizer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import (
    GammaRegressor,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    SGDRegressor,
)
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    KFold,
    TunedThresholdClassifierCV,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import (
    ClassifierChain,
    MultiOutputClassifier,
    MultiOutputRegressor,
    RegressorChain,
)
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    PolynomialFeatures,
    PowerTransformer,
    StandardScaler,
)
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils import get_tags

from skstack import (
    FineTune,
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasMultiTask,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack._features.trial_columns import check_accepts
from skstack._features.trial_targets import check_class_weight, check_targets
from skstack._training import train
from skstack.ensemble import GreedyEnsembleClassifier, GreedyEnsembleRegressor
from skstack.losses import TeacherLoss
from skstack.networks import MLP

NETWORK = KerasRegressor(SMALL, **FIT)
BOOSTING = HistGradientBoostingRegressor(max_iter=2)
NEIGHBOURS = KNeighborsClassifier()


@pytest.fixture
def trainings(monkeypatch):
    """The networks that are trained."""
    calls, original = [], train.train

    def counted(*args, **kwargs):
        calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(train, "train", counted)
    return calls


def table(kind):
    """A table of a kind that a linear model refuses, and its numeric columns."""
    X, y = regression(frame=True)
    if kind == "missing":
        X.loc[3, "b"] = np.nan
    else:
        words = np.resize([3, 1, 2] if kind == "codes" else ["x", "y", "z"], len(X))
        X["w"] = pd.Categorical(words) if kind in ("codes", "categories") else words
    if kind == "polars":
        X = pl.DataFrame(X.to_dict("list"))
    return X, y


def remedy(kind):
    if kind == "missing":
        return make_pipeline(SimpleImputer(), Ridge())
    encoder = (OneHotEncoder(handle_unknown="ignore"), ["w"])
    return make_pipeline(make_column_transformer(encoder, remainder="passthrough"), Ridge())


KINDS = {
    "strings": r"(strings|categories) in columns \['w'\]",
    "categories": r"categories in columns \['w'\]",
    "codes": r"categories in columns \['w'\]",
    "polars": r"(strings|categories) in columns \['w'\]",
    "missing": r"missing values in columns \['b'\]",
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def upstream(kind):
    return NETWORK if kind != "missing" else BOOSTING


@each_kind
def test_a_downstream_that_refuses_columns_is_found_before_training(kind, trainings):
    X, y = table(kind)
    stack = StackedKerasRegressor([("a", upstream(kind))], downstream=Ridge(), cv=2)
    with pytest.raises(ValueError, match=f"downstream Ridge does not .* {KINDS[kind]}.*Ridge\\("):
        stack.fit(X, y)
    assert not trainings


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "codes"])
@pytest.mark.parametrize("model", [Ridge(), GridSearchCV(Ridge(), {"alpha": [1, 2]})])
def test_a_branch_that_refuses_columns_is_found_before_training(model, kind, trainings):
    X, y = table(kind)
    branches = [("first", upstream(kind)), ("linear", model)]
    stack = StackedKerasRegressor(branches, downstream=Ridge(), passthrough=False, cv=2)
    with pytest.raises(ValueError, match=f"branch 'linear' .* does not .* {KINDS[kind]}"):
        stack.fit(X, y)
    assert not trainings


def of_labels():
    X, y = regression(frame=True)
    labels = np.column_stack([y > np.median(y), y > np.mean(y)]).astype(int)
    return FrozenEstimator(OneVsRestClassifier(LogisticRegression()).fit(X, labels))


@pytest.mark.parametrize(
    ("branch", "message"),
    [
        (KerasFeatureTransformer(Ridge(), layers="hidden_1"), "Ridge has no Keras network"),
        (KerasFeatureTransformer(Ridge(), features="codes"), "'codes' needs the classes.*Ridge"),
        (KerasFeatureTransformer(of_labels(), features="entropy"), "OneVsRest.* several labels"),
        (KerasFeatureTransformer(of_labels(), layers="a"), "OneVsRest.* no Keras network"),
    ],
)
def test_features_that_an_estimator_lacks_are_found_before_training(branch, message, trainings):
    X, y = regression(frame=True)
    branches = [("first", NETWORK), ("other", branch)]
    stack = StackedKerasRegressor(branches, downstream=NETWORK, cv=2)
    with pytest.raises(ValueError, match=f"branch 'other': .*{message}"):
        stack.fit(X, y)
    assert not trainings


@each_kind
def test_what_the_error_says_works(kind):
    X, y = table(kind)
    branches = [("first", upstream(kind), ["a", "b"]), ("linear", remedy(kind))]
    stack = StackedKerasRegressor(branches, downstream=remedy(kind), blend=False, cv=2).fit(X, y)
    assert np.isfinite(stack.predict(X)).all()


def test_parts_that_take_words_and_missing_values_are_not_refused():
    X, y = mixed(gap=True)
    boosting = HistGradientBoostingClassifier(max_iter=2)
    numbers = make_column_selector(dtype_include="number")
    branches = [("trees", boosting, numbers)]
    stack = StackedKerasClassifier(branches, downstream=boosting, cv=2).fit(X, y)
    assert stack.predict(X).shape == y.shape


def test_truth_values_pass_to_a_linear_model():
    X, y = regression(frame=True)
    X["member"] = X["a"] > 0
    stack = StackedKerasRegressor([("a", NETWORK)], downstream=Ridge(), blend=False, cv=2)
    assert np.isfinite(stack.fit(X, y).predict(X)).all()


@pytest.mark.parametrize("where", ["branch", "downstream"])
@pytest.mark.parametrize(
    "refuses",
    [
        LogisticRegression(),
        make_pipeline(StandardScaler(), LogisticRegression()),
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2),
        BOOSTING,
        make_pipeline(SelectKBest(f_regression, k=1), Ridge()),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_part_that_accepts_one_target_is_found_before_training(refuses, where, trainings):
    if is_regressor(refuses):
        X, y = regression(2)
        make, network, wrap = StackedKerasRegressor, NETWORK, MultiOutputRegressor
    else:
        X, y = binary()[0], np.column_stack([binary()[1], np.arange(60) % 2])
        network, wrap = KerasClassifier(SMALL, **FIT), MultiOutputClassifier
        make = StackedKerasClassifier
    settings = {"cv": 3, "blend": False}
    parts = [("n", network)], refuses
    if where == "branch":
        parts = [("n", network), ("part", refuses)], network
    label = "The downstream" if where == "downstream" else "The branch 'part'"
    with pytest.raises(ValueError, match=rf"{label}.*does not accept y of shape .*MultiOutput"):
        make(parts[0], downstream=parts[1], **settings).fit(X, y)
    ensemble = GreedyEnsembleRegressor if is_regressor(refuses) else GreedyEnsembleClassifier
    with pytest.raises(ValueError, match=r"The estimator 'part'.*does not accept y of shape"):
        ensemble([("n", network), ("part", refuses)], cv=3).fit(X, y)
    assert not trainings
    works = wrap(refuses)
    upstream = [("n", network), ("part", works)] if where == "branch" else parts[0]
    downstream = network if where == "branch" else works
    fitted = make(upstream, downstream=downstream, **settings).fit(X, y)
    assert fitted.predict(X).shape == y.shape


@pytest.mark.parametrize(
    ("refuses", "message"),
    [
        (PoissonRegressor(), "does not accept y, which holds values from -.*HalfPoissonLoss"),
        (make_pipeline(StandardScaler(), GammaRegressor()), "y, which holds values from -"),
        (
            GridSearchCV(HistGradientBoostingRegressor(loss="gamma"), {"max_iter": [2]}, cv=2),
            "y, which holds values from -",
        ),
    ],
    ids=["Poisson", "Pipeline", "search"],
)
def test_targets_that_a_part_refuses_are_found_before_training(refuses, message, trainings):
    X, y = regression()
    parts, settings = [("n", NETWORK), ("part", refuses)], {"cv": 2, "blend": False}
    with pytest.raises(ValueError, match=f"The branch 'part'.*{message}"):
        StackedKerasRegressor(parts, downstream=NETWORK, **settings).fit(X, y)
    with pytest.raises(ValueError, match=f"The downstream.*{message}"):
        StackedKerasRegressor(parts[:1], downstream=refuses, **settings).fit(X, y)
    with pytest.raises(ValueError, match=f"The estimator 'part'.*{message}"):
        GreedyEnsembleRegressor(parts, cv=2).fit(X, y)
    assert not trainings
    check_targets(refuses, np.exp(y), "", classes=False)


@pytest.mark.parametrize(
    "accepts",
    [
        HistGradientBoostingRegressor(loss="poisson", max_iter=2),
        make_pipeline(StandardScaler(), DecisionTreeRegressor(criterion="poisson")),
        BaggingRegressor(DecisionTreeRegressor(criterion="poisson"), 20, max_samples=0.5),
    ],
    ids=["boosting", "Pipeline", "bags"],
)
def test_counts_whose_first_rows_are_0_are_accepted(accepts):
    X = np.random.default_rng(0).random((400, 2))
    y = np.where(np.arange(400) % 50 > 45, 3, 0)
    check_targets(accepts, y, "", X, classes=False)
    check_targets(accepts, y, "", classes=False)


def test_chains_take_several_targets():
    """Estimators inside are given one of them at a time."""
    X, y = binary()[0], np.column_stack([binary()[1], np.arange(60) % 2])
    chain = ClassifierChain(LogisticRegression())
    for part in (
        chain,
        make_pipeline(StandardScaler(), chain),
        GridSearchCV(chain, {"order": [None]}, cv=2),
    ):
        for upstream, downstream in (([("c", part)], NEIGHBOURS), ([("n", NEIGHBOURS)], part)):
            stack = StackedKerasClassifier(upstream, downstream=downstream, cv=3, blend=False)
            assert stack.fit(X, y).predict(X).shape == y.shape
    X, y = regression(2)
    chain = RegressorChain(BOOSTING)
    stack = StackedKerasRegressor([("c", chain)], downstream=Ridge(), cv=3, blend=False)
    assert stack.fit(X, y).predict(X).shape == y.shape


MISSING = np.ones((100, 3), bool)
MISSING[20::2] = False
IMPUTED = make_pipeline(SimpleImputer(), PCA(3), LogisticRegression())
MOST_FREQUENT = make_pipeline(
    SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
)


@pytest.mark.parametrize("kind", ["numbers", "frame", "categories", "strings"])
def test_columns_that_are_mostly_missing_are_left_to_an_imputer(kind):
    """An imputer drops a column that is missing in all rows of a trial."""
    X = np.random.default_rng(1).normal(size=(100, 3))
    y = (X[:, 0] > 0).astype(int)
    part, X = IMPUTED, np.where(MISSING, np.nan, X)
    if kind != "numbers":
        X = pd.DataFrame(X, columns=["a", "b", "c"])
    if kind in ("categories", "strings"):
        words = np.where(X["a"] > 0, "u", "v").astype(object)
        words[MISSING[:, 0]] = np.nan
        X = pd.DataFrame({"word": words, "a": y + 0.0})
        if kind == "categories":
            X["word"] = X["word"].astype("category")
        part = make_column_transformer((MOST_FREQUENT, ["word"]), remainder="passthrough")
        part = make_pipeline(part, LogisticRegression())
    settings = {"downstream": NEIGHBOURS, "cv": 2, "passthrough": False, "blend": False}
    stack = StackedKerasClassifier([("p", part)], **settings)
    assert stack.fit(X, y).predict(X).shape == (100,)


@pytest.mark.parametrize("where", ["branch", "downstream"])
def test_class_weights_of_several_labels_are_refused_before_training(where, trainings):
    X, y = binary()[0], np.column_stack([binary()[1], np.arange(60) % 2])
    weighted = KerasClassifier(SMALL, class_weight="balanced", **FIT)
    network = KerasClassifier(SMALL, **FIT)
    upstream = [("n", network), ("w", weighted)] if where == "branch" else [("n", network)]
    downstream = network if where == "branch" else weighted
    with pytest.raises(ValueError, match="class_weight is not supported for multilabel"):
        StackedKerasClassifier(upstream, downstream=downstream, cv=3, blend=False).fit(X, y)
    assert not trainings


@pytest.mark.parametrize("searched", ["", "around", "candidate"])
@pytest.mark.parametrize("where", ["branch", "downstream"])
def test_weights_of_unknown_classes_are_refused_before_training(where, searched, trainings):
    X, y = binary()
    y = np.array(["no", "yes"])[y]
    network = KerasClassifier(SMALL, **FIT)

    def stack(class_weight):
        own = None if searched == "candidate" else class_weight
        weighted = make_pipeline(StandardScaler(), LogisticRegression(class_weight=own))
        grid = {"logisticregression__C": [1.0, 2.0]}
        if searched == "candidate":
            grid["logisticregression__class_weight"] = [class_weight]
        if searched:
            weighted = GridSearchCV(weighted, grid, cv=2)
        upstream = [("n", network), ("w", weighted)] if where == "branch" else [("n", network)]
        downstream = network if where == "branch" else weighted
        return StackedKerasClassifier(upstream, downstream=downstream, cv=3, blend=False)

    label = "The downstream" if where == "downstream" else "The branch 'w'"
    with pytest.raises(ValueError, match=f"{label}.*yes.*not in class_weight"):
        stack({"no": 1, "maybe": 2}).fit(X, y)
    assert not trainings
    assert set(stack({"no": 1, "yes": 2}).fit(X, y).predict(X)) <= {"no", "yes"}


AROUND = {
    "vote": lambda part: VotingClassifier([("p", part)], voting="soft"),
    "bags": lambda part: make_pipeline(StandardScaler(), BaggingClassifier(part, 2)),
    "calibration": lambda part: CalibratedClassifierCV(part, cv=2),
    "stack": lambda part: StackedKerasClassifier([("p", part)], downstream=NEIGHBOURS, cv=2),
    "ensemble": lambda part: GreedyEnsembleClassifier([("p", part)], cv=2),
    "features": lambda part: make_pipeline(KerasFeatureTransformer(part, cv=2), NEIGHBOURS),
}


@pytest.mark.parametrize("part", [LogisticRegression(), KerasClassifier(SMALL, **FIT)])
@pytest.mark.parametrize("around", AROUND)
def test_weights_of_unknown_classes_in_a_part_are_refused_before_training(around, part, trainings):
    X, y = binary()
    codes = around in ("vote", "bags")  # is what they give to their parts
    labels = y if codes else np.array(["no", "yes"])[y]

    def weighted(*classes):
        return AROUND[around](clone(part).set_params(class_weight=dict.fromkeys(classes, 2)))

    wrong, network = weighted(labels[0], "maybe"), KerasClassifier(SMALL, **FIT)
    settings = {"cv": 2, "blend": False}
    fits = {
        "The branch 'w'": StackedKerasClassifier([("n", network), ("w", wrong)], **settings),
        "The downstream": StackedKerasClassifier([("n", network)], downstream=wrong, **settings),
        "The estimator 'w'": GreedyEnsembleClassifier([("n", network), ("w", wrong)], cv=2),
    }
    for label, estimator in fits.items():
        with pytest.raises(ValueError, match=f"{label}.*not in class_weight"):
            estimator.fit(X, labels)
    assert not trainings
    check_class_weight(weighted(*np.unique(labels)), labels, "")
    if codes:
        check_class_weight(weighted(0, 1), np.array(["no", "yes"])[y], "")


def test_class_weights_in_bags_of_few_rows_are_accepted():
    """A bag of some tried rows, unlike one of all rows, may hold a class alone."""
    X, y = mixed()
    tree = make_pipeline(StandardScaler(), DecisionTreeClassifier(class_weight={1: 2}))
    bags = BaggingClassifier(tree, 20, max_samples=0.2, random_state=0, oob_score=True)
    check_class_weight(bags, y, "", X[["a", "b"]])
    wrong = clone(bags).set_params(estimator__decisiontreeclassifier__class_weight={"low": 2})
    with pytest.raises(ValueError, match="not in class_weight"):
        check_class_weight(wrong, y, "", X[["a", "b"]])


def as_list(X):
    return X.tolist()


@pytest.mark.parametrize("given", [as_list, pd.Series], ids=["list", "Series"])
def test_greedy_ensembles_try_rows_that_are_no_table(given):
    """As their estimators do, they accept any rows of which some can be selected."""
    X, y = mixed()
    rows, y = given(X["job"]), (y == "low").astype(int)
    weighted = make_pipeline(TfidfVectorizer(), LogisticRegression(class_weight={1: 2}))
    network = KerasClassifier(SMALL, metrics=["accuracy"], **FIT)
    parts = [
        ("vote", VotingClassifier([("words", weighted)], voting="soft")),
        ("n", make_pipeline(TfidfVectorizer(), network)),
    ]
    assert GreedyEnsembleClassifier(parts, cv=2).fit(rows, y).predict(rows).shape == (60,)
    halves = list(KFold(2).split(y))
    parts = [("words", make_pipeline(TfidfVectorizer(), NEIGHBOURS))]
    y = np.arange(60) // 30
    assert GreedyEnsembleClassifier(parts, cv=halves).fit(rows, y).predict(rows).shape == (60,)


def test_class_weights_of_a_candidate_that_replaces_a_step_are_accepted():
    X, y = binary()
    weighted = LogisticRegression(class_weight={"of": 1, "others": 2})
    steps = Pipeline([("scale", StandardScaler()), ("last", weighted)])
    grid = {"last": [LogisticRegression()], "last__class_weight": [{0: 1, 1: 2}]}
    grids = [grid, {"last": [KNeighborsClassifier()]}]
    for last, each in ((weighted, grids), (KNeighborsClassifier(), grid), ("passthrough", grid)):
        search = GridSearchCV(clone(steps).set_params(last=last), each, cv=2, scoring="accuracy")
        upstream = [("w", search)]
        stack = StackedKerasClassifier(upstream, downstream=LogisticRegression(), cv=2, blend=False)
        assert stack.fit(X, y).predict(X).shape == y.shape


def test_class_weights_that_a_frozen_search_has_tried_are_accepted():
    X, y = binary()
    search = GridSearchCV(LogisticRegression(), {"class_weight": [{0: 1, 1: 2}]}, cv=2).fit(X, y)
    stack = StackedKerasClassifier(FrozenEstimator(search), downstream=NEIGHBOURS, cv=2)
    assert stack.fit(X, y).predict(X).shape == y.shape


def test_folds_without_rows_of_weight_are_refused_before_training(trainings):
    X, y = binary()
    network, folds = KerasClassifier(SMALL, **FIT), list(KFold(3).split(X))
    weights = (np.arange(60) < 21).astype(float)
    for fit in (
        KerasFeatureTransformer(network, cv=folds).fit_transform,
        StackedKerasClassifier([("n", network)], cv=folds).fit,
        GreedyEnsembleClassifier([("n", network)], cv=folds).fit,
    ):
        with pytest.raises(ValueError, match=r"cv=\[3 folds\] has a fold with 1 of 60 .* weight"):
            fit(X, y, sample_weight=weights)
    assert not trainings


@pytest.mark.filterwarnings("ignore:.*training rows lack the classes:UserWarning")
def test_folds_of_one_class_are_refused_before_training(trainings):
    X, y = binary()
    y, network, folds = np.sort(y), KerasClassifier(SMALL, **FIT), list(KFold(2).split(X))
    message = "'{}': the training rows of fold 1 of 2 hold the class 1 only"
    settings = {"downstream": NEIGHBOURS, "cv": folds, "blend": False}
    parts = [("n", network), ("l", LogisticRegression())]
    with pytest.raises(ValueError, match=message.format("l")):
        StackedKerasClassifier(parts, **settings).fit(X, y)
    with pytest.raises(ValueError, match=message.format("n")):
        GreedyEnsembleClassifier([("k", NEIGHBOURS), ("n", network)], cv=folds).fit(X, y)
    assert not trainings
    parts = [("n", network), ("k", NEIGHBOURS)]  # accept one class
    assert StackedKerasClassifier(parts, **settings).fit(X, y).predict(X).shape == (60,)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"X_val": binary()[0], "y_val": binary()[1] + 1}, r"y_val holds labels \[2\]"),
        ({"sample_weight": binary()[1] * 1.0}, "The downstream.*only one class remains"),
    ],
    ids=["y_val", "weights"],
)
def test_classes_that_the_downstream_refuses_are_found_before_training(given, message, trainings):
    X, y = binary()
    network = KerasClassifier(SMALL, **FIT)
    stack = StackedKerasClassifier([("n", network)], downstream=network, cv=3, blend=False)
    with pytest.raises(ValueError, match=message):
        stack.fit(X, y, **given)
    assert not trainings


NUMBERS = regression()[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"y": NUMBERS.astype(str)}, r"y has shape .* dtype <U\d+; expected numbers"),
        ({"y": NUMBERS.astype("M8[s]")}, "y has shape .* dtype datetime64.*; expected numbers"),
        ({"y_val": NUMBERS.astype(str)}, r"y_val: y has shape .* dtype <U\d+; expected"),
        ({"y_val": np.r_[np.nan, NUMBERS[1:]]}, "y_val: Input y contains NaN"),
        ({"y_val": np.c_[NUMBERS, NUMBERS]}, "y_val has shape .*2.*, but y has shape"),
    ],
    ids=["strings", "dates", "strings to watch", "NaN to watch", "two columns to watch"],
)
def test_targets_that_are_no_numbers_are_refused_before_training(given, message, trainings):
    X, y = regression()
    branch, downstream, watched = LinearRegression(), Ridge(), {}  # which take text as numbers
    if "y_val" in given:
        branch, downstream, watched = KerasRegressor(SMALL, **FIT), Watches(), {"X_val": X}
    stack = StackedKerasRegressor([("n", branch)], downstream=downstream, cv=3)
    with pytest.raises(ValueError, match=message):
        stack.fit(X, **{"y": y, **watched, **given})
    assert not trainings


@pytest.mark.parametrize("columns", [[0, 1, 0], lambda X: [1, 1]])
def test_columns_that_pass_through_twice_are_refused_before_training(columns, trainings):
    X, y = binary()
    network = KerasClassifier(SMALL, **FIT)
    stack = StackedKerasClassifier(network, downstream=network, passthrough=columns, cv=2)
    with pytest.raises(ValueError, match=r"passthrough=.*selects a column of X more than once"):
        stack.fit(X, y)
    assert not trainings


class Watching:
    """Keeps the targets that it is given to monitor."""

    def fit(self, X, y, *, X_val=None, y_val=None):
        self.watched_ = y_val
        return super().fit(X, y)


class Watches(Watching, LinearRegression):
    """A regressor that does."""


class WatchesLabels(Watching, LogisticRegression):
    """A classifier that does."""


@pytest.mark.parametrize("form", [lambda y: y[:, None], pd.DataFrame, pl.DataFrame, list])
@pytest.mark.parametrize(
    ("make", "branch", "downstream", "rows"),
    [
        (StackedKerasRegressor, LinearRegression(), Watches(), regression),
        (StackedKerasClassifier, LogisticRegression(), WatchesLabels(), binary),
    ],
)
def test_targets_to_watch_have_the_form_of_y(make, branch, downstream, rows, form):
    """A column of one target would be compared with each of the other rows."""
    X, y = rows()
    fitted = make([("line", branch)], downstream=downstream, cv=2).fit(
        X, y, X_val=X[:9], y_val=form(y[:9])
    )
    np.testing.assert_array_equal(fitted.downstream_.watched_, y[:9])


def test_labels_to_watch_that_boosting_refuses_are_found_before_training(trainings):
    X, y = binary()
    boosting = HistGradientBoostingClassifier(max_iter=2, early_stopping=True)
    stack = StackedKerasClassifier(KerasClassifier(SMALL, **FIT), downstream=boosting, cv=3)
    with pytest.raises(ValueError, match=r"y_val holds labels \[2\]"):
        stack.fit(X, y, X_val=X, y_val=y + 1)
    assert not trainings


@pytest.mark.parametrize("missing", [np.nan, None, pd.NA])
def test_missing_labels_to_watch_are_refused_before_training(missing):
    X, y = binary()
    names = np.array(["no", "yes"])[y]
    stack = StackedKerasClassifier([("line", LogisticRegression())], downstream=WatchesLabels())
    for watched in (pd.Series([*names[:8], missing], dtype="string"), [*names[:8], missing]):
        with pytest.raises(ValueError, match="y_val: Input y contains NaN"):
            stack.fit(X, names, X_val=X[:9], y_val=np.asarray(watched, dtype=object))


def test_a_trial_leaves_the_global_generator_alone():
    X, y = table("strings")
    stack = StackedKerasRegressor([("a", SGDRegressor())], downstream=Ridge(), cv=2)
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    with pytest.raises(ValueError, match="branch 'a'"):
        stack.set_params(passthrough=False).fit(X, y)
    assert np.random.random() == expected  # noqa: NPY002


def with_column(values):
    X, y = regression(frame=True)
    X["extra"] = np.resize(values, len(X)) if isinstance(values, np.ndarray) else values
    return X, y


@pytest.mark.parametrize(
    ("values", "holds"),
    [
        (np.array([1.0, np.inf]), "infinite or huge values"),
        (pd.array([1, None] * 30, dtype="Int64"), "missing values"),
        (pd.array([True, None] * 30, dtype="boolean"), "missing values"),
        (pd.date_range("2020", periods=60), "dates"),
        (pd.to_timedelta(np.arange(60), unit="s"), "dates"),
        (pd.Categorical(["x", None] * 30), "categories"),
        (np.array(["x", None], dtype=object), "strings"),
        (np.array([3, None], dtype=object), "missing values"),
        ([np.ones(2)] * 60, "arrays"),
    ],
)
def test_what_a_foreign_branch_refuses_is_found_before_training(values, holds, trainings):
    X, y = with_column(values)
    branches = [("first", NETWORK, ["a"]), ("linear", Ridge())]
    stack = StackedKerasRegressor(branches, downstream=NETWORK, passthrough=False, cv=2)
    with pytest.raises(ValueError, match=rf"^The branch 'linear' .*{holds} in columns \['extra'\]"):
        stack.fit(X, y)
    assert not trainings


@pytest.mark.parametrize(
    "model",
    [
        NETWORK,
        KerasFeatureTransformer(KerasAutoencoder(epochs=1)),
        make_pipeline(StandardScaler(), NETWORK),
        make_pipeline(StandardScaler(), KerasFeatureTransformer(NETWORK)),
        StackedKerasRegressor([("inner", Ridge())], downstream=NETWORK, passthrough=False),
        StackedKerasRegressor([("inner", BOOSTING)], downstream=NETWORK),
        VotingRegressor([("linear", Ridge()), ("network", NETWORK)]),
        BaggingRegressor(NETWORK, n_estimators=2),
        make_union(PCA(2), KerasAutoencoder(epochs=1)),
        FrozenEstimator(Ridge().fit(*regression(frame=True))),
    ],
    ids=lambda model: type(model).__name__,
)
def test_missing_values_that_any_branch_refuses_are_found_before_training(model, trainings):
    X, y = table("missing")
    branches = [("first", NETWORK, ["a"]), ("second", model)]
    stack = StackedKerasRegressor(branches, downstream=NETWORK, passthrough=False, cv=2)
    with pytest.raises(ValueError, match=r"^(The b|B)ranch 'second' .*(\['b'\]|NaN)"):
        stack.fit(X, y)
    assert not trainings


@pytest.mark.parametrize("model", [NETWORK, StackedKerasRegressor([("a", Ridge())], cv=2)])
def test_a_frozen_part_only_predicts(model, trainings):
    X, y = regression(frame=True)
    model = clone(model)
    if isinstance(model, StackedKerasRegressor):
        model.set_params(downstream=Ridge())
    frozen = FrozenEstimator(model.fit(X, y))
    trainings.clear()
    branches = [("frozen", frozen), ("linear", Ridge())]
    stack = StackedKerasRegressor(branches, downstream=Ridge(), passthrough=False, cv=2).fit(X, y)
    assert np.isfinite(stack.predict(X)).all()
    with pytest.raises(ValueError, match=r"^The branch 'frozen' .*(features|names)"):
        stack.fit(X.assign(e=1.0), y)
    assert not trainings


def test_a_nested_stack_names_its_own_part(trainings):
    X, y = table("strings")
    inner = StackedKerasRegressor([("a", NETWORK)], downstream=Ridge(), cv=2)
    stack = StackedKerasRegressor([("a", NETWORK)], downstream=inner, cv=2)
    message = r"^The downstream StackedKerasRegressor: The downstream Ridge does not accept"
    with pytest.raises(ValueError, match=message):
        stack.fit(X, y)
    assert not trainings


@pytest.mark.parametrize("sampler", [SMOTE(), RandomOverSampler(shrinkage=0.5)])
def test_a_sampler_that_refuses_categories_is_found_before_training(sampler, trainings):
    X, y = mixed()
    network = KerasClassifier(SMALL, **FIT)
    own = KerasClassifier(SMALL, sampler=sampler, **FIT)
    for stack in (
        StackedKerasClassifier([("a", network)], downstream=network, sampler=sampler),
        StackedKerasClassifier([("a", network), ("b", own)], downstream=network),
        StackedKerasClassifier([("a", network)], downstream=own),
    ):
        with pytest.raises(ValueError, match=r"(SMOTE|RandomOverSampler) computes with numbers"):
            stack.fit(X, y)
    assert not trainings


def test_a_sparse_matrix_that_a_branch_refuses_is_found_before_training(trainings):
    X, y = regression()
    X = sparse.csr_array(X)
    dense = make_pipeline(FunctionTransformer(to_dense, accept_sparse=True), BOOSTING)
    for branch, works in ((BOOSTING, False), (dense, True)):
        stack = StackedKerasRegressor(
            [("a", NETWORK), ("b", branch)], downstream=NETWORK, passthrough=False, cv=2
        )
        if works:
            assert stack.fit(X, y).predict(X).shape == y.shape
            continue
        with pytest.raises(ValueError, match=r"^The branch 'b' .* is a sparse matrix"):
            stack.fit(X, y)
        assert not trainings


def test_vectorizers_which_read_no_tables_are_refused_before_training(trainings):
    X, y = mixed()
    words = make_pipeline(TfidfVectorizer(), LogisticRegression())
    frozen = FrozenEstimator(clone(words).fit(X["job"], y))
    network = KerasClassifier(SMALL, **FIT)
    texts = "TfidfVectorizer reads a list of texts"
    remedy = r"make_column_transformer\(\(TfidfVectorizer\(...\), 'job'\)\)"
    for branch, message in (
        (TfidfVectorizer(), remedy),
        (words, remedy),
        (make_pipeline("passthrough", words), texts),
        (make_union(TfidfVectorizer()), texts),
        (GridSearchCV(words, {}, cv=2), texts),
        (VotingClassifier([("words", words)]), texts),
        (KerasFeatureTransformer(words, cv=2), texts),
        (make_pipeline(DictVectorizer(), network), "DictVectorizer reads a list"),
        (frozen, r"FunctionTransformer\(np.ravel\), FrozenEstimator"),
    ):
        stack = StackedKerasClassifier(
            [("a", network, ["a", "b"]), ("b", branch, "job")], downstream=network, cv=2
        )
        with pytest.raises(ValueError, match=message):
            stack.fit(X, y)
        with pytest.raises(ValueError, match=message):
            KerasFeatureTransformer(getattr(branch, "model", branch)).fit(X[["job"]], y)
        assert not trainings
    column = make_pipeline(
        make_column_transformer((TfidfVectorizer(), "job")), LogisticRegression()
    )
    ravelled = make_pipeline(FunctionTransformer(np.ravel), frozen)
    stack = StackedKerasClassifier(
        [("a", column, "job"), ("b", ravelled, ["job"])], downstream=network, cv=2, random_state=0
    ).fit(X, y)
    known = frozen.predict_proba(X["job"])
    np.testing.assert_allclose(stack.named_upstream_["b"].transform(X[["job"]]), known, rtol=1e-5)
    known = clone(words).fit(X["job"], y).predict_proba(X["job"])
    np.testing.assert_allclose(stack.named_upstream_["a"].transform(X[["job"]]), known, rtol=1e-5)


def to_dense(X):
    return X.toarray()


FACTORS = make_pipeline(NMF(2, max_iter=2000), LogisticRegression())


@pytest.mark.parametrize(
    "refuses",
    [
        MultinomialNB(),
        make_pipeline(FunctionTransformer(), MultinomialNB()),
        VotingClassifier([("v", FACTORS)], voting="soft"),
        make_pipeline(make_column_transformer((NMF(2), ["a", "b"])), LogisticRegression()),
        make_pipeline(PowerTransformer("box-cox"), LogisticRegression()),
    ],
    ids=["counts", "a step", "in a vote", "some columns", "logarithms"],
)
def test_negative_numbers_that_a_branch_refuses_are_found_before_training(refuses, trainings):
    X, y = binary(frame=True)
    branches = [("a", KerasClassifier(SMALL, **FIT)), ("b", refuses)]
    stack = StackedKerasClassifier(branches, passthrough=False, cv=2, blend=False)
    with pytest.raises(ValueError, match=r"^The branch 'b'.*negative values in .*MinMaxScaler"):
        stack.fit(X, y)
    stack.set_params(downstream=KerasClassifier(SMALL, early_stopping=True, **FIT))
    with pytest.raises(ValueError, match=r"^X_val: The branch 'b'.*negative values in columns"):
        stack.fit(X.abs() + 0.1, y, X_val=X, y_val=y)
    assert not trainings
    scaled = make_pipeline(MinMaxScaler((1, 2), clip=True), refuses)
    check_accepts(scaled.set_output(transform="pandas"), X, y, "", "")


def test_the_error_names_only_what_is_refused():
    X, y = table("strings")
    X.loc[3, "b"] = np.nan
    encoder = make_column_transformer((OneHotEncoder(), ["w"]), remainder="passthrough")
    stack = StackedKerasRegressor(
        [("a", BOOSTING, ["a", "b"])], downstream=make_pipeline(encoder, Ridge()), cv=2
    )
    with pytest.raises(ValueError, match=r"holds missing values in columns \['b'\] \("):
        stack.fit(X, y)


def codes_of(X):
    return X.assign(w=X["w"].astype(object).map({"x": 1.0, "y": 2.0, "z": 3.0}.__getitem__))


def test_steps_that_know_the_categories_are_not_refused():
    X, y = table("strings")
    downstream = make_pipeline(FunctionTransformer(codes_of), Ridge())
    settings = {"blend": False, "cv": 2}
    stack = StackedKerasRegressor([("a", NETWORK)], downstream=downstream, **settings).fit(X, y)
    assert np.isfinite(stack.predict(X)).all()
    X, y = table("codes")  # numbers to a branch, as to Ridge alone
    branches = [("a", NETWORK), ("linear", Ridge())]
    stack = StackedKerasRegressor(branches, downstream=NETWORK, passthrough=False, **settings)
    assert np.isfinite(stack.fit(X, y).predict(X)).all()


def test_a_trial_gives_no_warning_and_loses_none():
    X, y = regression(frame=True)
    X["note"] = [f"note {row}" for row in range(len(X))]
    stack = StackedKerasRegressor([("a", NETWORK), ("b", NETWORK)], downstream=NETWORK, cv=2)
    with pytest.warns(UserWarning, match="has 60 categories") as record:
        stack.fit(X, y)
    assert len(record) == 1


# Errors name the part -----------------------------------------------------------------------------


def no_kernel(first, second):
    raise ValueError("no kernel")


class FailsLater(LogisticRegression):
    """Fails in a fold, with an error of a given kind."""

    def __init__(self, error=None):
        super().__init__()
        self.error = error

    def fit(self, X, y, sample_weight=None):
        if len(X) < 60:
            raise self.error
        return super().fit(X, y)


def test_errors_of_parts_name_the_part():
    X, y = binary()
    broken = SVC(kernel=no_kernel)
    with pytest.raises(ValueError, match=r"^The branch 'broken', all rows: no kernel"):
        StackedKerasClassifier([("broken", broken)], cv=2).fit(X, y)
    good = [("good", LogisticRegression())]
    with pytest.raises(ValueError, match=r"^The downstream SVC: no kernel"):
        StackedKerasClassifier(good, downstream=broken, cv=2).fit(X, y)
    with pytest.raises(ValueError, match=r"^model, all rows: no kernel"):
        KerasFeatureTransformer(broken, cv=2).fit_transform(X, y)


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("cls", [ValueError, RuntimeError, np.linalg.LinAlgError])
def test_errors_of_a_fold_name_the_fold(cls, n_jobs):
    X, y = binary()
    stack = StackedKerasClassifier([("a", FailsLater(cls("no luck")))], cv=2, n_jobs=n_jobs)
    with pytest.raises(cls, match=r"^The branch 'a', fold [12] of 2: no luck$"):
        stack.fit(X, y)
    nested = StackedKerasClassifier([("outer", stack)], cv=2)
    with pytest.raises(cls, match=r"^The branch 'outer', all rows: The branch 'a', fold [12] of 2"):
        nested.fit(X, y)


def test_errors_made_of_several_values_are_noted():
    X, y = binary()
    error = KeyError("no luck")
    with pytest.raises(KeyError) as raised:
        StackedKerasClassifier([("a", FailsLater(error))], cv=2).fit(X, y)
    assert raised.value.args == ("no luck",)
    assert "The branch 'a', fold 1 of 2" in raised.value.__notes__[0]


def test_errors_of_predictions_name_the_part():
    X, y = binary(frame=True)
    trees = HistGradientBoostingClassifier(max_iter=2)
    branches = [("trees", trees), ("linear", LogisticRegression())]
    stack = StackedKerasClassifier(branches, downstream=trees, passthrough=False, cv=2).fit(X, y)
    passing = StackedKerasClassifier(branches[:1], downstream=LogisticRegression(), cv=2)
    X_new = X.assign(b=np.nan)
    for method in ("predict", "predict_proba", "transform"):
        with pytest.raises(ValueError, match=r"^The branch 'linear': Input X contains NaN"):
            getattr(stack, method)(X_new)
        with pytest.raises(ValueError, match=r"^Columns that pass through: Input X contains NaN"):
            getattr(passing.fit(X, y), method)(X_new)


# Tags and methods follow the parts ----------------------------------------------------------------


def test_tags_follow_the_parts():
    trees, linear = HistGradientBoostingClassifier(), LogisticRegression()

    def tags(branch, downstream, **params):
        return get_tags(StackedKerasClassifier([("a", branch)], downstream=downstream, **params))

    assert tags(trees, trees).input_tags.allow_nan
    assert not tags(trees, linear).input_tags.allow_nan
    assert not tags("network.keras", trees).input_tags.allow_nan
    assert tags("drop", trees).input_tags.allow_nan
    assert tags(trees, linear, passthrough=False).input_tags.allow_nan
    assert not tags(linear, trees).input_tags.allow_nan
    assert not tags(trees, linear).input_tags.sparse
    assert tags(linear, linear).input_tags.sparse
    assert not tags(KerasClassifier(), linear).classifier_tags.multi_label
    assert tags(KerasClassifier(), None).classifier_tags.multi_label
    single_label = {"sampler": SMOTE(), "class_weight": "balanced", "prior_correction": True}
    for name, value in single_label.items():
        assert not get_tags(KerasClassifier(**{name: value})).classifier_tags.multi_label
        if name != "class_weight":
            stack = tags(KerasClassifier(), None, **{name: value})
            assert not stack.classifier_tags.multi_label
    regressors = StackedKerasRegressor([("a", SGDRegressor())], downstream=Ridge())
    assert not get_tags(regressors).target_tags.multi_output
    assert get_tags(regressors.set_params(a=Ridge())).target_tags.multi_output
    assert get_tags(KerasFeatureTransformer(trees)).input_tags.allow_nan
    assert not get_tags(KerasFeatureTransformer(trees, passthrough=True)).input_tags.allow_nan


def test_what_tags_promise_about_missing_values_holds():
    X, y = binary()
    X[3, 1] = np.nan
    trees = HistGradientBoostingClassifier(max_iter=2)
    stack = StackedKerasClassifier([("a", trees)], downstream=trees, cv=2).fit(X, y)
    assert stack.predict(X).shape == y.shape
    assert KerasFeatureTransformer(trees, cv=2).fit_transform(X, y).shape == (len(X), 1)


def test_a_missing_method_has_the_cause_of_the_downstream():
    stack = StackedKerasClassifier([("a", LogisticRegression())], downstream=SVC())
    with pytest.raises(AttributeError) as error:
        stack.predict_proba  # noqa: B018
    assert "SVC" in str(error.value.__cause__)
    with pytest.raises(AttributeError) as error:
        stack.set_params(downstream=None).decision_function  # noqa: B018
    assert "KerasClassifier" in str(error.value.__cause__)
    with pytest.raises(AttributeError) as error:
        stack.set_params(downstream=LogisticRegression()).decision_function  # noqa: B018
    assert "needs blend=False" in str(error.value.__cause__)


@pytest.mark.parametrize("downstream", [Ridge(), None])
def test_a_stack_predicts_float64_as_a_network_does(downstream):
    X, y = regression()
    downstream = NETWORK if downstream is None else downstream
    stack = StackedKerasRegressor([("a", Ridge())], downstream=downstream, blend=False, cv=2)
    assert stack.fit(X, y).predict(X).dtype == np.float64


# Rows and models of a form that networks do not take ----------------------------------------------


def test_rows_of_a_frame_as_objects_are_those_of_the_frame():
    X, y = mixed()
    network = KerasClassifier(SMALL, **FIT)
    for estimator in (
        network,
        StackedKerasClassifier([("a", network)], downstream=network, blend=False, cv=2),
    ):
        expected = estimator.fit(X, y).predict_proba(X)
        for rows in (X.to_numpy(), X.to_numpy().tolist()):
            np.testing.assert_array_equal(estimator.predict_proba(rows), expected)


def test_rows_of_a_frame_as_strings_are_those_of_the_frame():
    X, y = mixed()
    X = X.drop(columns="member")
    network = KerasClassifier(SMALL, **FIT).fit(X, y)
    np.testing.assert_array_equal(network.predict(X.to_numpy().astype(str)), network.predict(X))


def test_parts_of_others_get_the_columns_of_an_array_of_objects():
    X, y = mixed()
    X = X.astype({"job": "category"})
    trees = HistGradientBoostingClassifier(max_iter=2)
    network = KerasClassifier(SMALL, **FIT)
    encoder = make_column_transformer((OneHotEncoder(), ["job"]), remainder="passthrough")
    linear = make_pipeline(encoder, LogisticRegression())
    branches = [("trees", trees), ("linear", linear), ("network", network)]
    stack = StackedKerasClassifier(branches, downstream=trees, blend=False, cv=2).fit(X, y)
    expected = stack.predict_proba(X)
    np.testing.assert_array_equal(stack.predict_proba(X.to_numpy()), expected)


def test_strings_in_an_array_are_explained():
    X, y = mixed()
    with pytest.raises(ValueError, match=r"'(cook|driver|vet)'.* pass a DataFrame, or set categ"):
        KerasClassifier(SMALL, **FIT).fit(X.to_numpy(), y)


class OnlyArray:
    """Rows that are known through ``__array__`` alone."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


def test_any_array_like_can_be_stopped_early():
    X, y = binary()
    network = KerasClassifier(SMALL, early_stopping=True, **FIT)
    for estimator in (
        KerasFeatureTransformer(network, cv=2, random_state=0),
        StackedKerasClassifier([("a", network)], downstream=network, cv=2, random_state=0),
    ):
        expected = estimator.fit_transform(X, y)
        for convert in (OnlyArray, np.ndarray.tolist, pl.DataFrame):
            found = estimator.fit_transform(convert(X), y)
            np.testing.assert_array_equal(np.asarray(found), expected, err_msg=str(convert))


@pytest.mark.parametrize("layer", [keras.layers.LSTM(3), keras.layers.Conv1D(3, 2)])
def test_tables_for_an_unbuilt_network_of_sequences_are_explained(layer):
    X, y = binary()
    model = keras.Sequential([layer, keras.layers.Flatten(), keras.layers.Dense(1, "sigmoid")])
    message = r"layer '(lstm|conv1d).*' of .* rows of shape \(None, 4\).*input_shape=\(4, 1\)"
    with pytest.raises(ValueError, match=message):
        KerasClassifier(model, **FIT).fit(X, y)
    assert KerasClassifier(model, input_shape=(4, 1), **FIT).fit(X, y).score(X, y) <= 1


class Reader(keras.Model):
    """Reads sequences; it is built by its first rows."""

    def __init__(self):
        super().__init__()
        self.steps, self.output_layer = keras.layers.GRU(3), keras.layers.Dense(1, "sigmoid")

    def call(self, inputs):
        return self.output_layer(self.steps(inputs))

    def get_config(self):
        return {}


@pytest.mark.filterwarnings("ignore:.*looks like it has unbuilt state", "ignore:`build")
def test_tables_for_a_subclassed_network_of_sequences_are_explained():
    X, y = binary()
    with pytest.raises(ValueError, match=r"rows of shape \(None, 4\).*input_shape=\(4, 1\)"):
        KerasClassifier(Reader(), **FIT).fit(X, y)
    model = keras.Sequential([keras.layers.Conv2D(3, 1), keras.layers.Dense(1, "sigmoid")])
    with pytest.raises(ValueError, match=r"3 numbers .* 4, such as input_shape=\(4, 1, 1\)"):
        KerasClassifier(model, **FIT).fit(X, y)


def takes(n_columns, units=1):
    layers = [keras.Input((n_columns,)), keras.layers.Dense(3), keras.layers.Dense(units)]
    return keras.Sequential(layers)


def features_of(model, **params):
    return KerasFeatureTransformer(model, **params)


UNFIT = {
    "a layer": (features_of(NETWORK, layers="typo"), "no layer named 'typo'"),
    "a layer after steps": (
        features_of(make_pipeline(StandardScaler(), NETWORK), layers="typo"),
        "no layer named 'typo'",
    ),
    "a layer of a frozen network": (features_of(takes(4), layers="typo"), "no layer named 'typo'"),
    "a layer of a frozen network after steps": (
        features_of(make_pipeline(StandardScaler(), takes(4)), layers="typo"),
        "no layer named 'typo'",
    ),
    "a layer of bags": (
        features_of(clone(NETWORK).set_params(n_bags=2), layers="hidden_1"),
        "needs one network, but KerasRegressor has n_bags=2",
    ),
    "a feature": (features_of(NETWORK, features="entropy"), "has no predict_proba"),
    "inputs": (features_of(NETWORK, inputs=["a"]), "only for a frozen keras.Model"),
    "a column": (KerasRegressor(SMALL, categorical_features=[9], **FIT), r"positions \[9\]"),
    "a column after steps": (
        make_pipeline(StandardScaler(), KerasRegressor(SMALL, categorical_features=[9], **FIT)),
        r"positions \[9\]",
    ),
    "a network without columns": (
        KerasRegressor(keras.Sequential([keras.layers.LSTM(3), keras.layers.Dense(1)]), **FIT),
        "set input_shape",
    ),
    "an output": (
        KerasRegressor(keras.Sequential([keras.layers.Dense(5)]), **FIT),
        r"has an output of shape \(None, 5\)",
    ),
    "columns of a network": (KerasRegressor(takes(9), **FIT), r"input of shape \(None, 9\)"),
    "columns of a network after steps": (
        make_pipeline(StandardScaler(), KerasRegressor(takes(9), **FIT)),
        r"input of shape \(None, 9\)",
    ),
    "columns of a frozen network": (takes(9), r"input of shape \(None, 9\)"),
    "columns of a frozen network after steps": (
        make_pipeline(StandardScaler(), takes(9)),
        r"input of shape \(None, 9\)",
    ),
    "columns of a teacher": (
        KerasRegressor(SMALL, loss=TeacherLoss(takes(9)), **FIT),
        r"teacher=.* input of shape \(None, 9\)",
    ),
    "targets of a teacher": (
        KerasRegressor(SMALL, loss=TeacherLoss(takes(4, 2)), **FIT),
        r"teacher=.* output of shape \(None, 2\)",
    ),
    "a layer that learns from a teacher": (
        KerasRegressor(SMALL, loss=TeacherLoss(takes(4), mode="features", layer="typo"), **FIT),
        "no layer of that name",
    ),
    "a nested branch": (
        StackedKerasRegressor(
            [("inner", features_of(NETWORK, layers="typo"))], downstream=Ridge(), cv=2
        ),
        "The branch 'inner': .*no layer named 'typo'",
    ),
}


@pytest.mark.parametrize("what", UNFIT)
def test_what_a_branch_cannot_do_is_found_before_other_branches_train(what, trainings):
    X, y = regression()
    model, message = UNFIT[what]
    branches = [("a", NETWORK), ("b", model)]
    with pytest.raises(ValueError, match=f"^The branch 'b'.*: .*{message}"):
        StackedKerasRegressor(branches, downstream=NETWORK, cv=2).fit(X, y)
    assert not trainings


NEGATIVE = "y, which holds values from -"
ONE_TARGET, TWO_CLASSES = r"y of shape \(n_samples,\): ", "y with 3 classes: "
LINEAR, RIDGE = LogisticRegression(), Ridge()
OTHER_TARGETS = {
    "PoissonRegressor": (PoissonRegressor(), NEGATIVE),
    "GammaRegressor": (make_pipeline(StandardScaler(), GammaRegressor()), NEGATIVE),
    "RegressorChain": (RegressorChain(RIDGE), ONE_TARGET),
    "MultiOutputRegressor": (make_pipeline(MultiOutputRegressor(RIDGE)), ONE_TARGET),
    "ClassifierChain": (ClassifierChain(LINEAR), ONE_TARGET),
    "MultiOutputClassifier": (GridSearchCV(MultiOutputClassifier(LINEAR), {}), ONE_TARGET),
    "FixedThresholdClassifier": (make_pipeline(FixedThresholdClassifier(LINEAR)), TWO_CLASSES),
    "TunedThresholdClassifierCV": (TunedThresholdClassifierCV(LINEAR), TWO_CLASSES),
}


@pytest.mark.parametrize("name", OTHER_TARGETS)
def test_targets_that_a_part_does_not_take_are_found_before_training(name, trainings):
    part, message = OTHER_TARGETS[name]
    if is_regressor(part):
        (X, y), network = regression(), NETWORK
        kind, ensemble = StackedKerasRegressor, GreedyEnsembleRegressor
    else:
        (X, y), network = mixed(), KerasClassifier(SMALL, **FIT)
        X, kind, ensemble = X[["a", "b"]], StackedKerasClassifier, GreedyEnsembleClassifier
    for estimator in (
        kind([("a", network)], downstream=part, cv=2),
        kind([("a", network), ("b", part)], downstream=network, cv=2),
        kind([("a", network)], downstream=kind([("b", part)], downstream=network), cv=2),
        ensemble([("a", network), ("b", part)], cv=2),
    ):
        with pytest.raises(ValueError, match=f"does not accept {message}"):
            estimator.fit(X, y)
    assert not trainings


@pytest.mark.parametrize("passthrough", [False, True])
def test_a_part_may_take_more_targets_than_its_tags_say(passthrough):
    X, y = regression()
    own = OfOneTarget(RIDGE)
    stack = StackedKerasRegressor([("own", own)], downstream=own, cv=2, passthrough=passthrough)
    assert stack.fit(X, y).predict(X).shape == y.shape
    (X, y), two = mixed(), FixedThresholdClassifier(LINEAR)
    stack = StackedKerasClassifier([("l", LINEAR)], downstream=two, passthrough=passthrough, cv=2)
    with pytest.raises(ValueError, match=f"The downstream.*does not accept {TWO_CLASSES}"):
        stack.fit(X[["a", "b"]], y)


class OfOneTarget(MultiOutputRegressor):
    """Accepts one target, too."""

    def fit(self, X, y, sample_weight=None):
        return super().fit(X, y.reshape(len(y), -1), sample_weight)

    def predict(self, X):
        return np.squeeze(super().predict(X))


def test_a_frozen_part_may_have_learned_other_targets():
    X, y = mixed()
    X = X[["a", "b"]]
    frozen = FrozenEstimator(FixedThresholdClassifier(LINEAR).fit(X, y == "low"))
    stack = StackedKerasClassifier([("low", frozen)], downstream=LINEAR)
    assert stack.fit(X, y).predict(X).shape == (60,)


def optimizers_of_optimizers():
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    several = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.Adam())
    )
    return scaled, several


@pytest.mark.parametrize("number", [0, 1], ids=["LossScaleOptimizer", "MultiOptimizer"])
@pytest.mark.parametrize("setting", ["learning_rate", "clipnorm", "fine_tune", "compiled"])
def test_settings_that_an_optimizer_lacks_are_found_before_training(number, setting, trainings):
    X, y = regression()
    optimizer, fine_tune = optimizers_of_optimizers()[number], None
    last, name = KerasRegressor(SMALL, optimizer=optimizer, **FIT), setting
    if setting == "fine_tune":
        fine_tune, name = FineTune(epochs=1), "fine_tune: .*learning_rate"
    elif setting == "compiled":
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
        model.compile(optimizer, "mse")
        last, name = KerasRegressor(model, clipnorm=1.0, epochs=1), "clipnorm"
    else:
        last.set_params(**{setting: 0.5})
    stack = StackedKerasRegressor([("a", NETWORK)], downstream=last, cv=2, fine_tune=fine_tune)
    with pytest.raises(ValueError, match=f"{name}=.*optimizer={type(optimizer).__name__} "):
        stack.fit(X, y)
    assert not trainings


class Cautious(LinearRegression):
    """Refuses large values."""

    def predict(self, X):
        if np.max(X) > 1e3:
            raise ValueError("large values")
        return super().predict(X)


def test_a_teacher_is_not_tried_on_rows_of_weight_zero():
    X, y = regression()
    teacher, weights = Cautious().fit(X, y), np.ones(len(X))
    X[:50], weights[:50] = 1e6, 0
    student = KerasRegressor(SMALL, loss=TeacherLoss(teacher), **FIT)
    KerasFeatureTransformer(student, cv=2).fit(X, y, sample_weight=weights)
    with pytest.raises(ValueError, match="large values"):
        KerasFeatureTransformer(student, cv=2).fit(X, y)


def test_a_missing_file_of_a_teacher_is_found_before_branches_train(trainings):
    X, y = regression()
    downstream = KerasRegressor(SMALL, loss=TeacherLoss("missing.keras"), **FIT)
    with pytest.raises(ValueError, match=r"teacher='missing\.keras': the file does not exist"):
        StackedKerasRegressor([("a", NETWORK)], downstream=downstream, cv=2).fit(X, y)
    assert not trainings


def test_a_model_of_strings_is_refused_with_what_to_do(trainings):
    inputs = keras.Input((1,), dtype="string", name="review")
    tokens = keras.layers.TextVectorization(max_tokens=9, vocabulary=["a", "b"])(inputs)
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(9, 2)(tokens))
    model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(x))
    with pytest.raises(ValueError, match=r"\['review'\] of strings.*TextVectorization"):
        KerasClassifier(model, **FIT).fit(np.array([["a b"], ["b"]] * 9), [0, 1] * 9)
    X, y = binary(frame=True)
    X["review"] = np.resize(["a b", "b"], len(X))
    branches = [("a", KerasClassifier(SMALL, **FIT), ["a"]), ("text", model, ["review"])]
    with pytest.raises(ValueError, match=r"^The branch 'text': .*\['review'\] of strings"):
        StackedKerasClassifier(branches, cv=2).fit(X, y)
    assert not trainings


@pytest.mark.parametrize(
    ("layer", "remedy"),
    [
        (keras.layers.TextVectorization(vocabulary=["a", "b"]), "in a step of a Pipeline"),
        (keras.layers.StringLookup(vocabulary=["a", "b"]), "columns of strings become codes"),
    ],
)
def test_an_unbuilt_model_of_strings_is_refused_with_what_to_do(layer, remedy):
    model = keras.Sequential([layer, keras.layers.Embedding(9, 2), keras.layers.Dense(1)])
    for X in (np.array([["a b"], ["b"]] * 9), pd.DataFrame({"review": ["a b", "b"] * 9})):
        with pytest.raises(ValueError, match=f"of strings, .*{remedy}"):
            KerasClassifier(model, **FIT).fit(X, [0, 1] * 9)


# Words of other libraries -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "params", "hint"),
    [
        (
            KerasClassifier,
            {"hidden_layer_sizes": (3,)},
            r"Use model=MLP\(hidden_layer_sizes=\(3,\)\)",
        ),
        (KerasRegressor, {"max_iter": 5}, "Use epochs=5"),
        (KerasRegressor, {"alpha": 0.1}, r"Use model=MLP\(l2=0\.1\)"),
        (KerasAutoencoder, {"nb_epoch": 5}, "Use epochs=5"),
        (KerasClassifier, {"epoch": 5}, "Did you mean 'epochs'"),
        (StackedKerasClassifier, {"final_estimator": 1}, "Use downstream=1"),
        (StackedKerasRegressor, {"estimators": []}, r"Use upstream=\[\]"),
        (StackedKerasClassifier, {"final_estimator__C": 1}, "Use downstream__C"),
        (KerasFeatureTransformer, {"estimator": 1}, "Use model=1"),
        (KerasAutoencoder, {"alpha": 0.1}, r"Use model=Autoencoder\(l2=0\.1\)"),
        (KerasClassifier, {"fit__epochs": 5}, "Use epochs=5"),
        (KerasClassifier, {"validation_data": 1}, r"Use fit\(X, y, X_val=\.\.\., y_val="),
        (MLP, {"hidden": (3,)}, r"Use hidden_layer_sizes=\(3,\)"),
    ],
)
def test_parameters_of_other_libraries_are_translated(cls, params, hint):
    with pytest.raises(TypeError, match=f"unexpected keyword argument .*{hint}"):
        cls(**params)
    with pytest.raises(ValueError, match=f"Invalid parameter .*{hint}"):
        cls().set_params(**params)


@pytest.mark.parametrize(
    ("cls", "arguments", "hint"),
    [
        (KerasClassifier, {"validation_data": 1}, r"Use fit\(X, y, X_val=\.\.\., y_val="),
        (StackedKerasRegressor, {"eval_set": []}, r"Use fit\(X, y, X_val=\.\.\., y_val="),
        (KerasRegressor, {"epochs": 5}, r"constructor: KerasRegressor\(epochs=\.\.\.\)"),
        (KerasMultiTask, {"callbacks": []}, r"constructor: KerasMultiTask\(callbacks=\.\.\.\)"),
        (KerasAutoencoder, {"validation_split": 0.2}, r"validation_fraction=0\.2, a parameter of"),
        (KerasFeatureTransformer, {"cv": 5}, r"constructor: KerasFeatureTransformer\(cv=\.\.\.\)"),
        (StackedKerasClassifier, {"sample_weights": [1]}, r"Did you mean 'sample_weight'\?"),
        (KerasClassifier, {"colour": 5}, r"argument 'colour'\.$"),
    ],
)
def test_arguments_of_fit_of_other_libraries_are_translated(cls, arguments, hint, trainings):
    methods = ["fit", "partial_fit"] if hasattr(cls, "partial_fit") else ["fit"]
    for method in methods[: 1 if "X_val" in hint else 2]:
        with pytest.raises(TypeError, match=rf"{method}\(\) got an unexpected .*{hint}"):
            getattr(cls(), method)(np.eye(4), [0, 1, 0, 1], **arguments)
    assert not trainings


def test_what_only_routing_accepts_is_explained_by_scikit_learn():
    for cls in (KerasFeatureTransformer, StackedKerasClassifier):
        for name in ("colour", "X_val")[: 2 if cls is KerasFeatureTransformer else 1]:
            with pytest.raises(ValueError, match=f"enable_metadata_routing=True.*{name}"):
                cls().fit(np.eye(4), [0, 1, 0, 1], **{name: 1})


def test_a_mistyped_parameter_that_holds_an_estimator_is_not_proposed_again():
    for cls, params, name in (
        (KerasClassifier, {"modl": MLP()}, "model"),
        (StackedKerasClassifier, {"downstreem": KerasClassifier()}, "downstream"),
    ):
        with pytest.raises(TypeError, match=f"Did you mean '{name}'"):
            cls(**params)


def test_a_subclass_with_parameters_of_its_own_is_not_affected():
    class Wide(KerasClassifier):
        def __init__(self, hidden=3):
            super().__init__(model=SMALL, epochs=2)
            self.hidden = hidden

    assert Wide(hidden=4).epochs == 2
    assert "hidden_layer_sizes" not in inspect.signature(KerasClassifier).parameters
    assert "epochs" in inspect.signature(KerasClassifier).parameters


def test_parameters_of_a_passed_object_are_named_after_it():
    transformer = KerasFeatureTransformer(KerasClassifier())
    for call, passed in (
        (KerasFeatureTransformer, {"model": KerasClassifier(), "epochs": 3}),
        (transformer.set_params, {"epochs": 3}),
    ):
        with pytest.raises(
            (TypeError, ValueError), match=r"'epochs'.*Did you mean 'model__epochs'"
        ):
            call(**passed)
    with pytest.raises(TypeError, match=r"'model__dropout'.*set in the object that is passed"):
        KerasClassifier(model__dropout=0.1)
    with pytest.raises(ValueError, match=r"Use learning_rate=0\.1"):
        KerasClassifier().set_params(optimizer__lr=0.1)


@pytest.mark.parametrize("where", ["sampler", "downstream", "branch"])
def test_no_message_shows_a_seed_that_the_user_did_not_set(where):
    X, y = binary()
    y = (np.arange(len(y)) < 3).astype(int)
    network = KerasClassifier(SMALL, **FIT)
    sampled = imblearn_pipeline(SMOTE(), network)
    branch = sampled if where == "branch" else network
    downstream = KerasClassifier(SMALL, sampler=SMOTE(), **FIT)
    stack = StackedKerasClassifier(
        [("a", branch)],
        downstream=downstream if where == "downstream" else network,
        sampler=SMOTE() if where == "sampler" else None,
        cv=2,
        random_state=0,
    )
    with pytest.raises(ValueError, match=r"sampler=SMOTE\(\) failed"):
        stack.fit(X, y)


def test_parameters_of_a_branch_are_named_after_it():
    stack = StackedKerasClassifier([("a", KerasClassifier())])
    for transformer in (stack, KerasFeatureTransformer([("a", KerasClassifier())])):
        name = "upstream" if transformer is stack else "model"
        with pytest.raises(ValueError, match="set 'a__epochs'"):
            transformer.set_params(**{f"{name}__a__epochs": 3})
    for wrong in ("aa__epochs", "upstream__b__epochs"):
        with pytest.raises(ValueError, match=r"(Did you mean 'a__epochs'|it has \['a'\])"):
            stack.set_params(**{wrong: 3})
    with pytest.raises(ValueError, match=r"Valid parameters are: \['a', 'blend', 'blend_parts'"):
        stack.set_params(zzz="drop")
    with pytest.raises(ValueError, match="Use a__epochs"):
        stack.set_params(estimators__a__epochs=3)
    assert stack.set_params(a__epochs=3).get_params()["a__epochs"] == 3


def test_new_branches_and_their_parameters_are_set_together():
    part = [("risk", LogisticRegression())]
    old = [("risk", Ridge()), ("other", "drop")]
    for estimator, name in (
        (StackedKerasClassifier(), "upstream"),
        (StackedKerasClassifier(old), "upstream"),
        (GreedyEnsembleClassifier(old), "estimators"),
    ):
        estimator.set_params(risk__C=2.0, **{name: part})
        assert estimator.get_params()["risk__C"] == 2.0
    stack = StackedKerasClassifier(old).set_params(risk="drop", upstream=part)
    assert stack.upstream == [("risk", "drop")]
    with pytest.raises(ValueError, match="Invalid parameter 'other__alpha'"):
        StackedKerasClassifier(old).set_params(upstream=part, other__alpha=1.0)
    stack = StackedKerasClassifier(old)
    with pytest.raises(ValueError, match="has no parameter 'x'"):
        stack.set_params(upstream=[("net", KerasClassifier())], net__model__x=1)
    assert stack.upstream is old
    with pytest.raises(ValueError, match="Invalid parameter 'risk__alpha'"):
        StackedKerasClassifier(old).set_params(upstream=KerasAutoencoder(), risk__alpha=1.0)


def test_a_grid_has_new_branches_and_their_parameters():
    X, y = binary()
    stack = StackedKerasClassifier(downstream=LogisticRegression(), cv=2, random_state=0)
    grid = {"upstream": [[("risk", LogisticRegression())]], "risk__C": [0.1, 1.0]}
    search = GridSearchCV(stack, grid, cv=2).fit(X, y)
    assert search.best_estimator_.get_params()["risk__C"] == search.best_params_["risk__C"]


# Rows to watch, scalers and names -----------------------------------------------------------------


def watched(column, value):
    X = binary(frame=True)[0]
    X[column] = value
    return X


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("b", np.nan, "NaN"),
        ("b", np.inf, "infinity"),
        ("b", "u", "'u' in row 0"),
        ("b", pd.Timestamp("2020"), "datetime"),
    ],
    ids=["missing", "infinite", "words", "dates"],
)
@pytest.mark.parametrize(
    "branch",
    [
        KerasClassifier(SMALL, **FIT),
        make_pipeline(StandardScaler(), KerasClassifier(SMALL, **FIT)),
        LogisticRegression(),
        KerasFeatureTransformer(KerasAutoencoder(epochs=1)),
    ],
    ids=["network", "pipeline", "linear", "autoencoder"],
)
def test_rows_to_watch_that_a_part_cannot_read_are_found_before_training(
    branch, column, value, message, trainings
):
    X, y = binary(frame=True)
    network = KerasClassifier(SMALL, **FIT)
    branches = [("first", network, ["a"]), ("second", branch)]
    settings = {"downstream": network, "cv": 2, "blend": False}
    stack = StackedKerasClassifier(branches, passthrough=False, **settings)
    with pytest.raises(ValueError, match=rf"^X_val: .*second.*({message}|columns \['b'\])"):
        stack.fit(X, y, X_val=watched(column, value), y_val=y)
    stack.set_params(second="drop", passthrough=True)
    with pytest.raises(ValueError, match=rf"^X_val: Columns that pass through.*{message}"):
        stack.fit(X, y, X_val=watched(column, value), y_val=y)
    assert not trainings


def test_other_columns_of_rows_to_watch_are_errors_of_X_val():
    X, y = binary(frame=True)
    stack = StackedKerasClassifier(LogisticRegression(), cv=2)
    for others in (X[["b", "a", "c", "d"]], X.assign(e=1)):
        with pytest.raises(ValueError, match=r"^X_val: The feature names"):
            stack.fit(X, y, X_val=others, y_val=y)


IMPUTED = make_pipeline(SimpleImputer(), LogisticRegression())
INNER = StackedKerasClassifier(
    [("own", LogisticRegression())], downstream=LogisticRegression(), cv=5, blend=False
)


@pytest.mark.parametrize(
    ("branch", "value", "container"),
    [
        (IMPUTED, np.nan, pd.DataFrame),
        (HistGradientBoostingClassifier(max_iter=1), np.nan, pd.DataFrame),
        (HistGradientBoostingClassifier(max_iter=1), np.nan, np.asarray),
        (INNER, 1.0, pd.DataFrame),
        (INNER, 1.0, sparse.csr_matrix),
    ],
    ids=["imputer", "boosting", "boosting of arrays", "stack", "stack of sparse"],
)
def test_a_row_to_watch_that_all_parts_read_is_accepted(branch, value, container):
    """Parts that no single row can be fitted to, or no column that is missing in all rows."""
    X, y = binary(frame=True)
    one = container(watched("b", value)[:1])
    stack = StackedKerasClassifier(
        [("i", branch)], downstream=WatchesLabels(), passthrough=False, cv=2, blend=False
    )
    stack.fit(container(X), y, X_val=one, y_val=y[:1])
    assert len(stack.downstream_.watched_) == 1


def first_column(X):
    return X[:, :1]


@pytest.mark.parametrize(
    ("scaler", "message"),
    [
        (PolynomialFeatures(), r"PolynomialFeatures\(\) returns a table of 15 column\(s\) for one"),
        (PCA(1), r"PCA\(n_components=1\) returns a table of 1 column"),
        (OneHotEncoder(), "OneHotEncoder.* for one of 4"),
        (FunctionTransformer(first_column), "returns a table of 1 column"),
        (SelectKBest(k=1), "SelectKBest.* learns from y, which a scaler does not receive"),
    ],
)
def test_a_scaler_that_changes_the_columns_is_found_before_training(scaler, message, trainings):
    X, y = regression(frame=True)
    stack = StackedKerasRegressor(
        [("n", NETWORK)], downstream=NETWORK, passthrough=["a", "b", "c"], scaler=scaler, cv=2
    )
    with pytest.raises(ValueError, match=message):
        stack.fit(X, y)
    assert not trainings


class Weighed(TransformerMixin, BaseEstimator):
    """Whose fit requires weights, but no y."""

    def fit(self, X, sample_weight):
        return self

    def transform(self, X):
        return X


def test_a_scaler_that_needs_weights_is_accepted():
    X, y = regression(frame=True)
    stack = StackedKerasRegressor([("r", Ridge())], downstream=Ridge(), scaler=Weighed(), cv=2)
    stack.fit(X, y, sample_weight=np.ones(len(X)))
    assert np.isfinite(stack.predict(X)).all()


class Counts(TransformerMixin, BaseEstimator):
    """Notes the shapes of the tables that it is fitted to."""

    shapes = []

    def fit(self, X, y=None):
        self.shapes.append(X.shape)
        return self

    def transform(self, X):
        return X


def test_a_scaler_of_many_columns_is_tried_on_few(monkeypatch):
    monkeypatch.setattr(Counts, "shapes", [])
    X = np.random.default_rng(0).normal(size=(50, 200))
    stack = StackedKerasRegressor([("r", Ridge())], downstream=Ridge(), scaler=Counts(), cv=2)
    stack.set_params(passthrough=True, blend=False).fit(X, X[:, 0])
    assert stack.downstream_.n_features_in_ == 201
    assert [shape for shape in Counts.shapes if shape[1] > 11] == [(50, 201)]


@pytest.mark.parametrize("scaler", [PCA(5), PCA(whiten=True), Nystroem(n_components=5)])
def test_a_scaler_of_as_many_columns_as_there_are_is_accepted(scaler):
    X, y = regression(frame=True)
    branches = [("parts", PCA(4))]  # only a fit tells how many features it has
    settings = {"downstream": Ridge(), "passthrough": ["a"], "scaler": scaler, "cv": 2}
    stack = StackedKerasRegressor(branches, **settings).fit(X, y)
    assert np.isfinite(stack.predict(X)).all()


@pytest.mark.parametrize(
    ("branch", "name"),
    [
        (KerasClassifier(SMALL, **FIT), "proba_1"),
        (KerasFeatureTransformer(KerasClassifier(SMALL, **FIT), features="log_odds"), "log_odds_1"),
        (KerasFeatureTransformer(KerasClassifier(SMALL, **FIT), features="codes"), "codes"),
        (KerasFeatureTransformer(KerasClassifier(SMALL, **FIT), layers="hidden_1"), "hidden_1_0"),
        (KerasAutoencoder(epochs=1), "latent_0"),
        (KerasRegressor(SMALL, **FIT), "prediction"),
        (KerasFeatureTransformer(KerasClassifier(SMALL, **FIT), passthrough=True), "b"),
    ],
)
def test_columns_named_as_features_are_found_before_training(branch, name, trainings):
    X, y = binary(frame=True)
    X = X.rename(columns={"a": f"n__{name}", "d": name if name != "b" else "d"})
    stack = StackedKerasClassifier([("n", branch)], downstream=KerasClassifier(SMALL), cv=2)
    with pytest.raises(ValueError, match=rf"duplicate column names: \['n__{name}'\]"):
        stack.set_params(passthrough=[f"n__{name}"]).fit(X, y)
    if name != "b":
        transformer = branch
        if not isinstance(branch, KerasFeatureTransformer):
            transformer = KerasFeatureTransformer(branch)
        with pytest.raises(ValueError, match=rf"names of features, \['{name}'\]"):
            clone(transformer).set_params(passthrough=True).fit(X, y)
    assert not trainings


# Losses, metrics, targets and weights -------------------------------------------------------------


def whole_batch(y, p):
    return keras.ops.mean(keras.ops.square(y - p))


UNLEARNED = {
    "a loss of classes": ({"loss": "hinge"}, {}, "loss='hinge' compares classes"),
    "negative targets": ({"loss": "poisson"}, {}, "loss='poisson' is defined only for values in"),
    "a metric of classes": ({"metrics": ["auc"]}, {}, "metrics: 'auc' compares classes"),
    "smoothed numbers": ({"model": MLP((4,), label_smoothing=0.1)}, {}, "label_smoothing=0.1"),
    "weights of batches": (
        {"loss": whole_batch},
        {"sample_weight": np.linspace(1, 2, 60)},
        "one number per batch, to which sample_weight",
    ),
}


@pytest.mark.parametrize(("parameters", "given", "message"), UNLEARNED.values(), ids=UNLEARNED)
@pytest.mark.parametrize("where", ["branch", "downstream", "pipeline"])
def test_what_a_network_cannot_learn_is_found_before_training(
    where, parameters, given, message, trainings
):
    X, y = regression(frame=True)
    unfit = clone(NETWORK).set_params(**parameters)
    upstream, downstream = [("n", NETWORK)], unfit
    if where == "branch":
        upstream, downstream = [("n", NETWORK), ("u", unfit)], NETWORK
    elif where == "pipeline":
        downstream = make_pipeline(StandardScaler(), unfit)
        if given:
            return  # weights do not reach its network
    label = "The branch 'u'" if where == "branch" else "The downstream"
    with pytest.raises(ValueError, match=f"^{label}.*{message}"):
        StackedKerasRegressor(upstream, downstream=downstream, cv=2, blend=False).fit(X, y, **given)
    if where != "downstream":
        with pytest.raises(ValueError, match=f"^The estimator 'u'.*{message}"):
            GreedyEnsembleRegressor([("n", NETWORK), ("u", unfit)], cv=2).fit(X, y, **given)
    assert not trainings


def test_weights_that_are_equal_suit_any_loss():
    X, y = regression()
    unfit = clone(NETWORK).set_params(loss=whole_batch)
    weights = np.repeat([0.0, 2.0], [10, 50])
    stack = StackedKerasRegressor([("n", unfit)], downstream=unfit, cv=2, blend=False)
    assert np.isfinite(stack.fit(X, y, sample_weight=weights).predict(X)).all()
