"""What people do with an estimator on their first day, over all that it makes sense for."""

from html.parser import HTMLParser

import keras
import numpy as np
import pandas as pd
import pytest
from imblearn.ensemble import BalancedBaggingClassifier
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import make_pipeline as imblearn_pipeline
from sklearn import config_context
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_transformer
from sklearn.datasets import load_breast_cancer, make_multilabel_classification
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    BaggingRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import SequentialFeatureSelector
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.inspection import PartialDependenceDisplay, partial_dependence, permutation_importance
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    ShuffleSplit,
    StratifiedShuffleSplit,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    validation_curve,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler, TargetEncoder
from sklearn.utils import estimator_html_repr

from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack.inspection import LatentDisplay
from skstack.networks import MLP, Autoencoder

cancer = load_breast_cancer(as_frame=True)
X = cancer.data.iloc[:240, :6].rename(columns=lambda name: name.replace(" ", "_"))
y = cancer.target[:240].to_numpy()
amount = X["mean_radius"].to_numpy() * 10 + X["mean_texture"].to_numpy()
FAST = {"epochs": 15, "batch_size": 64, "learning_rate": 0.02, "random_state": 0}


def network(**options):
    return KerasClassifier(MLP((8,)), **{**FAST, **options})


def regression(**options):
    return KerasRegressor(MLP((8,)), **{**FAST, **options})


def autoencoder(**options):
    return KerasAutoencoder(Autoencoder(latent_size=3), **{**FAST, **options})


def stack(**options):
    branches = [
        ("risk", network(epochs=5)),
        (
            "anomaly",
            KerasFeatureTransformer(autoencoder(epochs=3), features="reconstruction_error"),
        ),
    ]
    options = {"downstream": network(), "cv": 2, "random_state": 0, **options}
    return StackedKerasClassifier(branches, **options)


def stacked_regression():
    return StackedKerasRegressor(
        regression(epochs=5), downstream=regression(), cv=2, random_state=0
    )


LINEAR = LogisticRegression(max_iter=5000)
CLASSIFIERS = [
    # A tool meets a stack, whatever its branches are: one network in each of its fits is enough.
    pytest.param(
        StackedKerasClassifier(
            [("risk", LINEAR), ("scaled", StandardScaler())],
            downstream=network(),
            cv=2,
            random_state=0,
        ),
        id="StackedKerasClassifier",
    ),
    pytest.param(stack(), id="stack of networks"),
    pytest.param(network(), id="KerasClassifier"),
    pytest.param(
        make_pipeline(KerasFeatureTransformer(network(), cv=2, passthrough=True), network()),
        id="KerasFeatureTransformer",
    ),
]
REGRESSORS = [
    pytest.param(regression(), id="KerasRegressor"),
    pytest.param(stacked_regression(), id="StackedKerasRegressor"),
]
TRANSFORMERS = [
    pytest.param(autoencoder(), id="KerasAutoencoder"),
    pytest.param(KerasFeatureTransformer(autoencoder()), id="unsupervised features"),
    pytest.param(KerasFeatureTransformer(network(), cv=2), id="KerasFeatureTransformer"),
]


def optuna_search(estimator, X, y):
    integration = pytest.importorskip("optuna_integration")
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seeds = {"random_state": optuna.distributions.IntDistribution(0, 5)}
    search = integration.OptunaSearchCV(estimator, seeds, n_trials=2, cv=2, random_state=0)
    search.fit(X, y)
    return search.best_score_


# One half of the rows is enough to score tools that have folds of their own, and searches: each fit
# of a stack fits many networks.
HALF = {
    "classifier": StratifiedShuffleSplit(1, test_size=0.5, random_state=0),
    "regressor": ShuffleSplit(1, test_size=0.5, random_state=0),
}


def scores_of(tool):
    """The tool around the estimator, fitted on half of the rows and scored on the others."""

    def score(estimator, X, y):
        half = HALF["classifier" if is_classifier(estimator) else "regressor"]
        (result,) = cross_val_score(tool(estimator), X, y, cv=half, error_score="raise")
        return result

    return score


def in_voting(estimator):
    return VotingClassifier(
        [("a", estimator), ("b", LogisticRegression(max_iter=5000))], voting="soft"
    )


def in_stacking(estimator):
    return StackingClassifier([("a", estimator)], LogisticRegression(), cv=2)


# Each gives an accuracy, or an R2, that must beat chance by far.
WITH_CLASSIFIERS = {
    "cross_validate": lambda e, X, y: cross_validate(
        e, X, y, cv=2, scoring=["accuracy", "average_precision", "roc_auc", "neg_log_loss"],
        return_estimator=True, error_score="raise",
    )["test_roc_auc"].mean(),
    "cross_val_predict": lambda e, X, y: np.mean(
        cross_val_predict(e, X, y, cv=2, method="predict_proba").argmax(axis=1) == y
    ),
    "CalibratedClassifierCV, frozen": lambda e, X, y: CalibratedClassifierCV(
        FrozenEstimator(clone(e).fit(X, y))
    ).fit(X, y).score(X, y),
    "BaggingClassifier": scores_of(lambda e: BaggingClassifier(e, n_estimators=2, random_state=0)),
    "OneVsRestClassifier": scores_of(OneVsRestClassifier),
    "FunctionTransformer before": scores_of(
        lambda e: make_pipeline(FunctionTransformer(np.log1p, feature_names_out="one-to-one"), e)
    ),
    "imblearn's Pipeline": scores_of(lambda e: imblearn_pipeline(SMOTE(random_state=0), e)),
    "threads": lambda e, X, y: cross_val_score(e, X, y, cv=2, n_jobs=2, error_score="raise").mean(),
    "learning_curve": lambda e, X, y: learning_curve(
        e, X, y, cv=2, train_sizes=[0.5, 1.0], error_score="raise"
    )[2][-1].mean(),
    "CalibratedClassifierCV, sigmoid": scores_of(lambda e: CalibratedClassifierCV(e, cv=2)),
    "CalibratedClassifierCV, isotonic, one": scores_of(
        lambda e: CalibratedClassifierCV(e, method="isotonic", cv=2, ensemble=False)
    ),
    "TunedThresholdClassifierCV": scores_of(lambda e: TunedThresholdClassifierCV(e, cv=2)),
    "FixedThresholdClassifier": scores_of(lambda e: FixedThresholdClassifier(e, threshold=0.4)),
    "BalancedBaggingClassifier": scores_of(
        lambda e: BalancedBaggingClassifier(e, n_estimators=2, random_state=0)
    ),
    "VotingClassifier": scores_of(in_voting),
    "StackingClassifier": scores_of(in_stacking),
    "FrozenEstimator": lambda e, X, y: FrozenEstimator(clone(e).fit(X, y)).score(X, y),
}  # fmt: skip


@pytest.mark.slow(first=8)
@pytest.mark.parametrize("tool", WITH_CLASSIFIERS)
@pytest.mark.parametrize("estimator", CLASSIFIERS)
def test_classifiers(estimator, tool):
    import joblib

    with joblib.parallel_config("threading"):
        assert WITH_CLASSIFIERS[tool](clone(estimator), X, y) > 0.75


WITH_REGRESSORS = {
    "cross_validate": lambda e, X, y: cross_validate(e, X, y, cv=2, error_score="raise")[
        "test_score"
    ].mean(),
    "TransformedTargetRegressor": scores_of(
        lambda e: TransformedTargetRegressor(e, func=np.log, inverse_func=np.exp)
    ),
    "BaggingRegressor": scores_of(lambda e: BaggingRegressor(e, n_estimators=2, random_state=0)),
    "VotingRegressor": scores_of(lambda e: VotingRegressor([("a", e), ("b", Ridge())])),
    "StackingRegressor": scores_of(lambda e: StackingRegressor([("a", e)], Ridge(), cv=2)),
    "FrozenEstimator": lambda e, X, y: FrozenEstimator(clone(e).fit(X, y)).score(X, y),
}


@pytest.mark.slow(first=6)
@pytest.mark.parametrize("tool", WITH_REGRESSORS)
@pytest.mark.parametrize("estimator", REGRESSORS)
def test_regressors(estimator, tool):
    assert WITH_REGRESSORS[tool](clone(estimator), X, amount) > 0.5


@pytest.mark.parametrize("estimator", TRANSFORMERS)
def test_transformers_in_unions_and_column_transformers(estimator):
    union = FeatureUnion([("ours", clone(estimator)), ("theirs", StandardScaler())])
    columns = ColumnTransformer(
        [
            ("ours", clone(estimator), list(X.columns[:4])),
            ("theirs", StandardScaler(), ["mean_area"]),
        ]
    )
    for part, width in ((union, 6), (columns, 1)):
        pipeline = make_pipeline(part, LogisticRegression(max_iter=1000)).fit(X, y)
        names = pipeline[0].get_feature_names_out()
        assert names[-width].startswith("theirs__")
        assert len(names) == len(set(names)) == pipeline[0].transform(X).shape[1]
        assert pipeline.score(X, y) > 0.75
        FrozenEstimator(pipeline).predict(X[:3])


@pytest.mark.slow(first=4)
@pytest.mark.parametrize("container", ["pandas", "polars"])
@pytest.mark.parametrize("estimator", [*TRANSFORMERS, pytest.param(stack(), id="Stacked")])
def test_global_transform_output(estimator, container):
    frame = X.set_axis([f"row {number}" for number in range(len(X))], axis=0)
    expected = clone(estimator).fit_transform(frame, y)
    with config_context(transform_output=container):
        configured = clone(estimator)
        crossed, table = configured.fit_transform(frame, y), configured.transform(frame)
        if hasattr(configured, "predict"):
            assert configured.score(frame, y) > 0.75
    for found in (crossed, table):
        assert list(found.columns) == list(configured.get_feature_names_out())
        if container == "pandas":
            assert found.index.equals(frame.index)
    np.testing.assert_array_equal(np.asarray(crossed), np.asarray(expected))


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_global_transform_output_reaches_no_part_of_a_network(container):
    gaps = X.mask(X.quantile(0.9) < X)
    imputing = network(imputer=SimpleImputer(add_indicator=True))
    expected = clone(imputing).fit(gaps, y).predict_proba(gaps)
    points = LatentDisplay.from_estimator(clone(imputing).fit(gaps, y), gaps, layer="hidden_1")
    with config_context(transform_output=container):
        configured = clone(imputing).fit(gaps, y)
        np.testing.assert_array_equal(configured.predict_proba(gaps), expected)
        display = LatentDisplay.from_estimator(configured, gaps, layer="hidden_1")
        np.testing.assert_array_equal(display.points, points.points)


# Searches ------------------------------------------------------------------------------------


@pytest.mark.slow(first=1)
@pytest.mark.parametrize(
    ("estimator", "grid"),
    [
        (network(), {"model__hidden_layer_sizes": [(4,), (8,)], "optimizer": ["adam", "sgd"]}),
        (
            stack(),
            {
                "risk__model__dropout": [0.0, 0.2],
                "anomaly__model__model__latent_size": [2],
                "downstream__learning_rate": [0.01],
                "sampler": [None, SMOTE(random_state=0)],
            },
        ),
        (stack(), {"risk": ["drop", LogisticRegression(max_iter=5000)], "scaler": [None]}),
        (
            StackedKerasClassifier(network(epochs=3), downstream=network(), cv=2),
            {"upstream__model__activation": ["relu", "tanh"]},
        ),
        (
            make_pipeline(KerasFeatureTransformer(network(), cv=2), LogisticRegression()),
            {"kerasfeaturetransformer__features": [["outputs"], ["log_odds", "entropy"]]},
        ),
    ],
    ids=["network", "stack", "branches", "single upstream", "pipeline"],
)
def test_grids_over_names_of_every_depth(estimator, grid):
    search = GridSearchCV(estimator, grid, cv=HALF["classifier"], error_score="raise").fit(X, y)
    assert search.best_score_ > 0.75
    assert search.best_estimator_.predict(X[:2]).shape == (2,)
    assert not hasattr(estimator, "classes_")


@pytest.mark.slow(first=1)
@pytest.mark.parametrize(
    ("estimator", "resource", "name"),
    [
        (network(), "epochs", "learning_rate"),
        (stack(), "downstream__epochs", "downstream__learning_rate"),
        (regression(), "epochs", "learning_rate"),
        (autoencoder(), "epochs", "learning_rate"),
    ],
    ids=["KerasClassifier", "Stacked", "KerasRegressor", "KerasAutoencoder"],
)
def test_halving_over_epochs(estimator, resource, name):
    search = HalvingGridSearchCV(
        estimator, {name: [1e-6, 0.02]}, resource=resource, min_resources=2, max_resources=8,
        factor=2, cv=2, random_state=0, error_score="raise",
    ).fit(X, amount if isinstance(estimator, KerasRegressor) else y)  # fmt: skip
    assert search.best_params_[name] == 0.02
    assert search.best_params_[resource] == search.max_resources_ or search.n_iterations_ == 2


def test_random_search_and_validation_curve():
    search = RandomizedSearchCV(
        network(), {"batch_size": [32, 64], "tol": [1e-3, 1e-4]}, n_iter=2, cv=2, random_state=0
    ).fit(X, y)
    assert search.best_score_ > 0.75
    _, test = validation_curve(
        network(), X, y, param_name="epochs", param_range=[1, 15], cv=2, error_score="raise"
    )
    assert test[1].mean() > 0.75


@pytest.mark.slow  # beside test_scores_do_not_depend_on_the_backend
def test_search_with_processes():
    result = cross_val_score(network(), X, y, cv=2, n_jobs=2, error_score="raise")
    np.testing.assert_array_equal(result, cross_val_score(network(), X, y, cv=2))


@pytest.mark.filterwarnings("ignore:OptunaSearchCV is experimental")
@pytest.mark.filterwarnings("ignore:`optuna.terminator` module has been deprecated")
def test_optunas_search():
    assert optuna_search(network(), X, y) > 0.75


# Inspection and selection --------------------------------------------------------------------


@pytest.mark.slow(first=2)
@pytest.mark.parametrize("estimator", [CLASSIFIERS[0], CLASSIFIERS[2], *REGRESSORS])
def test_importance_and_dependence_detect_the_informative_column(estimator):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"signal": rng.normal(size=200), "noise": rng.normal(size=200)})
    regressor = (
        estimator._estimator_type == "regressor"
        if hasattr(estimator, "_estimator_type")
        else "Regressor" in type(estimator).__name__
    )
    target = 3 * frame["signal"] if regressor else (frame["signal"] > 0).astype(int)
    fitted = clone(estimator).fit(frame, target)
    importance = permutation_importance(fitted, frame, target, n_repeats=2, random_state=0)
    assert importance.importances_mean[0] > importance.importances_mean[1] + 0.2
    curve = partial_dependence(fitted, frame, ["signal"], grid_resolution=5)["average"][0]
    assert (np.diff(curve) > -1e-3).all()
    display = PartialDependenceDisplay.from_estimator(fitted, frame, ["noise"], grid_resolution=3)
    assert display.axes_.size == 1


def test_sequential_selection_finds_the_informative_column():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 3)), columns=["a", "signal", "b"])
    target = (frame["signal"] > 0).astype(int)
    selector = SequentialFeatureSelector(network(epochs=3), n_features_to_select=1, cv=2)
    assert selector.fit(frame, target).get_feature_names_out().tolist() == ["signal"]


def test_ada_boost_weights_rows():
    boosted = AdaBoostClassifier(network(epochs=3), n_estimators=2, random_state=0).fit(X, y)
    assert boosted.score(X, y) > 0.75
    assert len(boosted.estimators_) == 2


# Mixed columns -------------------------------------------------------------------------------

MIXED = X[["mean_radius", "mean_texture"]].assign(
    size=np.where(X["mean_area"] > 500, "large", "small"), town=np.array(list("abcd") * 60)
)


def test_encoders_of_scikit_learn_before_network_estimators():
    encoded = make_column_transformer((TargetEncoder(), ["size", "town"]), remainder="passthrough")
    for estimator in (network(), StackedKerasClassifier(network(), downstream=network(), cv=2)):
        assert (
            cross_val_score(
                make_pipeline(encoded, estimator), MIXED, y, cv=2, error_score="raise"
            ).mean()
            > 0.75
        )


def test_column_transformers_as_upstream():
    columns = make_column_transformer(
        (OneHotEncoder(sparse_output=False), ["size"]), (StandardScaler(), ["mean_radius"])
    )
    stacked = StackedKerasClassifier(
        [
            ("a", make_pipeline(columns, network(epochs=3))),
            ("b", network(epochs=3), ["mean_texture"]),
        ],
        downstream=make_pipeline(StandardScaler(), LogisticRegression()),
        passthrough=["mean_radius"],
        blend=False,
        cv=2,
        random_state=0,
    ).fit(MIXED, y)
    assert stacked.score(MIXED, y) > 0.75
    assert stacked.get_feature_names_out().tolist() == ["a__proba_1", "b__proba_1", "mean_radius"]


# Several outputs -----------------------------------------------------------------------------


@pytest.mark.slow
def test_multilabel_everywhere():
    rows, labels = make_multilabel_classification(n_samples=200, n_classes=3, random_state=0)
    for estimator in (network(), StackedKerasClassifier(network(), downstream=network(), cv=2)):
        predicted = cross_val_predict(estimator, rows, labels, cv=2)
        assert predicted.shape == labels.shape
        assert np.mean(predicted == labels) > 0.65
    for wrapper in (MultiOutputClassifier(network()), ClassifierChain(network())):
        assert np.mean(wrapper.fit(rows, labels).predict(rows) == labels) > 0.65
    features = KerasFeatureTransformer(network(), cv=2).fit_transform(rows, labels)
    assert features.shape == (200, 3)


def test_several_targets_everywhere():
    both = np.column_stack([amount, -amount])
    for estimator in (regression(), stacked_regression().set_params(blend=False)):
        predicted = cross_val_predict(estimator, X, both, cv=2)
        assert np.corrcoef(predicted[:, 0], amount)[0, 1] > 0.8
        assert np.corrcoef(predicted[:, 1], amount)[0, 1] < -0.8


# HTML ----------------------------------------------------------------------------------------


class Text(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_data(self, data):
        self.found.append(data.strip())


def test_html_shows_branches_and_parts():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)], name="frozen_model")
    stacked = StackedKerasClassifier(
        [("risk", network()), ("frozen", model), ("file", "some/model.keras"), ("off", "drop")],
        downstream=LogisticRegression(),
        sampler=SMOTE(),
    )
    text = Text(estimator_html_repr(stacked)).found
    for word in ("risk", "frozen", "file", "downstream", "sampler", "LogisticRegression", "SMOTE"):
        assert any(word in part for part in text), word
    assert "KerasClassifier" in text
    assert "Sequential 'frozen_model'" in text
    fitted = StackedKerasClassifier(network(epochs=1), downstream=LogisticRegression(), cv=2).fit(
        X, y
    )
    text = Text(estimator_html_repr(fitted)).found
    assert any("upstream" in part for part in text)
    transformer = KerasFeatureTransformer(network())
    assert "KerasClassifier" in Text(estimator_html_repr(transformer)).found
    assert Text(estimator_html_repr(KerasFeatureTransformer(model))).found
    assert Text(estimator_html_repr(KerasFeatureTransformer())).found
