"""Metadata reach each part that asks for them, with routing on and off."""

import inspect

import numpy as np
import pytest
from imblearn.over_sampling import SMOTE, RandomOverSampler
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tests import test_metaestimators_metadata_routing as theirs
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.metadata_routing import MetadataRouter

import skstack
from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack.ensemble import GreedyEnsembleClassifier
from skstack.networks import MLP

X, y = make_classification(n_samples=120, n_features=4, random_state=0)
WEIGHTS = np.arange(120) + 1.0
GROUPS = np.arange(120) % 10


@pytest.fixture
def routing():
    with config_context(enable_metadata_routing=True):
        yield


class Recorder(ClassifierMixin, BaseEstimator):
    """Learns nothing, and keeps what came along with its rows."""

    records = []

    def __init__(self, who=None, early_stopping=False):
        self.who = who
        self.early_stopping = early_stopping

    def fit(self, X, y, sample_weight=None, extra=None, *, X_val=None, y_val=None):
        self.classes_ = np.unique(y)
        self.got_ = {
            name: value
            for name, value in (
                ("sample_weight", sample_weight),
                ("extra", extra),
                ("X_val", X_val),
                ("y_val", y_val),
            )
            if value is not None
        }
        Recorder.records.append((self.who, len(X), self.got_))
        return self

    def predict_proba(self, X):
        return np.full((len(X), 2), 0.5)

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


@pytest.fixture(autouse=True)
def nothing_recorded():
    Recorder.records = []


# scikit-learn's own contract for meta-estimators ---------------------------------------------

COMMON = {
    "X": theirs.X,
    "estimator": "classifier",
    "cv_name": "cv",
    "estimator_routing_methods": ["fit", "fit_transform"],
    "method_mapping": {"fit": ["fit"], "fit_transform": ["fit"]},
    "preserves_metadata": "subset",
}
CASES = [
    {
        **COMMON,
        "metaestimator": StackedKerasClassifier,
        "estimator_name": "downstream",
        "init_args": {"upstream": theirs.NonConsumingClassifier(), "blend": False},
        "y": theirs.y,
    },
    {
        **COMMON,
        "metaestimator": StackedKerasClassifier,
        "estimator_name": "upstream",
        "init_args": {"downstream": theirs.NonConsumingClassifier(), "blend": False},
        "y": theirs.y,
    },
    {
        **COMMON,
        "metaestimator": StackedKerasRegressor,
        "estimator_name": "upstream",
        "estimator": "regressor",
        "init_args": {"downstream": theirs.NonConsumingRegressor(), "blend": False},
        "y": theirs.y,
    },
    {
        **COMMON,
        "metaestimator": KerasFeatureTransformer,
        "estimator_name": "model",
        "y": theirs.y,
        "cv_routing_methods": ["fit_transform"],  # as TargetEncoder; `fit` needs no folds
    },
]
IDS = ["Stack, downstream", "Stack, upstream", "Regressor, upstream", "Transformer"]


# Their splitter takes groups and pays no heed to them.
@pytest.mark.slow(first=4)
@pytest.mark.filterwarnings("ignore:cv=.* although it received the groups")
@pytest.mark.parametrize("case", CASES, ids=IDS)
@pytest.mark.parametrize(
    "name",
    [
        "test_default_request",
        "test_setting_request_on_sub_estimator_removes_error",
        "test_non_consuming_estimator_works",
        "test_metadata_is_routed_correctly_to_splitter",
        "test_metadata_routed_to_sub_estimator_in_pipeline",
    ],
)
def test_scikit_learns_tests_of_meta_estimators(case, name):
    if not hasattr(theirs, name):
        pytest.skip(f"this scikit-learn has no {name}")
    getattr(theirs, name)({"cv_routing_methods": ["fit", "fit_transform"], **case})


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_unset_requests_are_errors_that_name_the_part(case):
    # scikit-learn's message names the caller's method, which is the part's own only for `fit`.
    theirs.test_error_on_missing_requests_for_sub_estimator(
        {**case, "estimator_routing_methods": ["fit"]}
    )


# Routing on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("blend", [False, True])
def test_each_part_gets_requested_metadata(routing, blend):
    asked = Recorder("asked").set_fit_request(sample_weight=True, extra="more")
    declined = Recorder("declined").set_fit_request(sample_weight=False)
    stack = StackedKerasClassifier(
        [
            ("asked", asked),
            ("declined", declined),
            ("inner", KerasFeatureTransformer(asked, cv=4)),
            ("steps", make_pipeline(StandardScaler().set_fit_request(sample_weight=True), asked)),
        ],
        downstream=Recorder("downstream").set_fit_request(sample_weight="other"),
        scaler=StandardScaler().set_fit_request(sample_weight=False),
        blend=blend,
        cv=3,
    )
    stack.fit(X, y, sample_weight=WEIGHTS, more=GROUPS, other=WEIGHTS * 2)
    for who, n, got in Recorder.records:
        expected = {"asked": {"sample_weight", "extra"}, "declined": set()}.get(who)
        assert set(got) == ({"sample_weight"} if expected is None else expected), who
        assert all(len(value) == n for value in got.values())
    counts = sorted(n for who, n, _ in Recorder.records if who == "asked")
    assert blend or counts == [80] * 6 + [90] * 4 + [120] * 3
    np.testing.assert_array_equal(stack.downstream_.got_["sample_weight"], WEIGHTS * 2)
    weighted = StandardScaler().fit(X, sample_weight=WEIGHTS).mean_
    steps = stack.named_upstream_["steps"]
    np.testing.assert_allclose(steps._upstreams[0].steps[0].mean_, weighted, rtol=1e-6)
    np.testing.assert_allclose(stack.scaler_.mean_[-4:], X.mean(axis=0), rtol=1e-4, atol=1e-5)


def test_X_val_reaches_the_downstream_as_features(routing):
    downstream = Recorder("down", early_stopping=True).set_fit_request(X_val=True, y_val=True)
    stack = StackedKerasClassifier(Recorder("up"), downstream=downstream, scaler=None)
    stack.fit(X[:80], y[:80], X_val=X[80:], y_val=y[80:])
    assert all(not got for who, _, got in Recorder.records if who == "up")
    got = stack.downstream_.got_
    np.testing.assert_allclose(got["X_val"][:, 1:], X[80:], rtol=1e-6)
    np.testing.assert_array_equal(got["X_val"][:, 0], 0.5)
    np.testing.assert_array_equal(got["y_val"], y[80:])


def test_an_upstream_that_requests_X_val_gets_all_columns(routing):
    """Also where they are as many as the training rows, and could be mistaken for weights."""
    up = Recorder("up").set_fit_request(X_val=True, y_val=True)
    KerasFeatureTransformer(up, cv=3).fit_transform(X[:60], y[:60], X_val=X[60:], y_val=y[60:])
    assert [n for _, n, _ in Recorder.records] == [60, 40, 40, 40]
    for _, _, got in Recorder.records:
        np.testing.assert_array_equal(got["X_val"], X[60:])
        np.testing.assert_array_equal(got["y_val"], y[60:])


@pytest.mark.parametrize("last", ["ours", "HistGradientBoosting", "stack"])
def test_a_pipeline_transforms_X_val(routing, last):
    """Nothing is learned from them: the last step sees them as the first would transform them."""
    asks = {"X_val": True, "y_val": True}
    seen = {}
    inner = KerasClassifier(MLP((4,)), epochs=1, early_stopping=True)
    downstream = {
        "ours": inner,
        "HistGradientBoosting": HistGradientBoostingClassifier(max_iter=2, early_stopping=True),
        "stack": inner,
    }[last]

    class Spy(type(downstream)):
        def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
            seen.update(X_val=np.asarray(X_val), n=len(X))
            return super().fit(X, y, X_val=X_val, y_val=y_val)

    Spy.__name__ = type(downstream).__name__
    final = Spy(**downstream.get_params(deep=False)).set_fit_request(**asks)
    if last == "stack":
        final = StackedKerasClassifier(
            LogisticRegression(), downstream=final, blend=False, scaler=None
        )
    latent = KerasFeatureTransformer(KerasClassifier(MLP((4,)), epochs=2), random_state=0, cv=3)
    pipeline = Pipeline(
        [("scale", StandardScaler()), ("latent", latent), ("last", final)],
        transform_input=["X_val"],
    )
    pipeline.fit(X[:80], y[:80], X_val=X[80:], y_val=y[80:])
    expected = pipeline[:-1].transform(X[80:])
    np.testing.assert_allclose(seen["X_val"][:, -1:], expected, rtol=1e-5)
    assert seen["n"] == 80


@pytest.mark.slow
def test_default_parts_accept_all_metadata(routing, monkeypatch):
    stack = StackedKerasClassifier(downstream=Recorder().set_fit_request(sample_weight=True))
    default = KerasFeatureTransformer()
    assert isinstance(default.get_metadata_routing(), MetadataRouter)
    learned = {}
    train = KerasAutoencoder._train

    def spy(self, X, y, sample_weight=None, *args, **options):
        learned["weights"] = sample_weight
        self.set_params(epochs=1)
        return train(self, X, y, sample_weight, *args, **options)

    monkeypatch.setattr(KerasAutoencoder, "_train", spy)
    stack.fit(X, y, sample_weight=WEIGHTS)
    np.testing.assert_array_equal(learned.pop("weights"), WEIGHTS)
    default.fit(X, sample_weight=WEIGHTS)
    np.testing.assert_array_equal(learned["weights"], WEIGHTS)


def test_weights_and_groups_in_a_search(routing):
    stack = StackedKerasClassifier(
        Recorder("up").set_fit_request(sample_weight=True),
        downstream=Recorder("down").set_fit_request(sample_weight=True),
        blend=False,
        cv=2,
    )
    stack.set_score_request(sample_weight=False)  # scikit-learn below 1.8 insists
    search = GridSearchCV(stack, {"scaler": [None, "standard"]}, cv=GroupKFold(2))
    search.fit(X, y, sample_weight=WEIGHTS, groups=GROUPS)
    assert len(Recorder.records) == 4 * 5
    assert all(len(got["sample_weight"]) == n for _, n, got in Recorder.records)


@pytest.mark.parametrize("kind", ["stack", "ensemble", "stack in a pipeline"])
def test_a_score_is_weighted_if_it_asks_for_weights(kind, routing, monkeypatch):
    tree = DecisionTreeClassifier(max_depth=1).set_fit_request(sample_weight=True)
    estimator = GreedyEnsembleClassifier([("tree", tree)], cv=2)
    if kind != "ensemble":
        downstream = LogisticRegression().set_fit_request(sample_weight=True)
        estimator = StackedKerasClassifier([("tree", tree)], downstream=downstream, cv=2)
    estimator.set_score_request(sample_weight=True)
    if kind == "stack in a pipeline":
        estimator = make_pipeline(StandardScaler().set_fit_request(sample_weight=True), estimator)
    weights = []

    def accuracy(y, predicted, sample_weight=None):
        weights.append(sample_weight)
        return 0.0

    monkeypatch.setattr("sklearn.metrics.accuracy_score", accuracy)
    halves = [(np.arange(60), np.arange(60, 120))]
    cross_validate(estimator, X, y, cv=halves, params={"sample_weight": WEIGHTS})
    np.testing.assert_array_equal(weights, [WEIGHTS[60:]])


ESTIMATORS = [
    value
    for module in (skstack, skstack.ensemble, skstack.preprocessing)
    for value in [getattr(module, name) for name in module.__all__]
    if inspect.isclass(value) and hasattr(value, "get_metadata_routing")
]


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_requests_are_changed_for_methods_that_have_the_parameter(kind):
    """Older scikit-learn raises an error for others, in each search."""
    prefix, unknown = "__metadata_request__", []
    for base in kind.__mro__:
        for name, requests in vars(base).items():
            if prefix in name and base.__module__.startswith("skstack"):
                method = getattr(kind, name.partition(prefix)[2], None)
                known = () if method is None else inspect.signature(method).parameters
                unknown += [(base.__name__, name, each) for each in requests if each not in known]
    assert unknown == []


def test_networks_request_groups_by_default(routing):
    network = KerasClassifier(MLP((2,)), epochs=1, early_stopping=True)
    result = cross_validate(
        network, X, y, cv=GroupKFold(2), params={"groups": GROUPS}, error_score="raise"
    )
    assert np.isfinite(result["test_score"]).all()
    with pytest.raises(UnsetMetadataPassedError, match=r"KerasClassifier\.fit"):
        cross_validate(network, X, y, cv=2, params={"sample_weight": WEIGHTS})


def test_metadata_of_rows_is_refused_with_a_sampler(routing):
    downstream = Recorder("down").set_fit_request(extra=True)
    stack = StackedKerasClassifier(
        LogisticRegression(), downstream=downstream, sampler=RandomOverSampler()
    )
    with pytest.raises(ValueError, match=r"the original rows: \['extra'\]"):
        stack.fit(X, y, extra=GROUPS)


def test_unrequested_metadata_is_an_error(routing):
    with pytest.raises(TypeError, match="unexpected argument"):
        StackedKerasClassifier(LogisticRegression(), downstream=Recorder()).fit(X, y, colour="red")


# Routing off ---------------------------------------------------------------------------------


def test_weights_reach_every_part():
    stack = StackedKerasClassifier(Recorder("up"), downstream=Recorder("down"), cv=3)
    stack.fit(X, y, sample_weight=WEIGHTS)
    assert all(len(got["sample_weight"]) == n for _, n, got in Recorder.records)
    weighted = StandardScaler().fit(X, sample_weight=WEIGHTS).mean_
    np.testing.assert_allclose(stack.scaler_.mean_[1:], weighted, rtol=1e-4)


class Weightless(Recorder):
    def fit(self, X, y):
        return super().fit(X, y)


@pytest.mark.parametrize("part", ["upstream", "downstream"])
def test_a_part_without_sample_weight_is_an_error_before_training(part):
    parts = {"upstream": Recorder(), "downstream": Recorder(), part: Weightless()}
    with pytest.raises(ValueError, match=r"sample_weight was passed.* Weightless does not accept"):
        StackedKerasClassifier(**parts).fit(X, y, sample_weight=WEIGHTS)
    assert not Recorder.records


def test_weights_with_a_sampler_that_creates_rows():
    parts = {"upstream": Recorder(), "downstream": Recorder("down")}
    with pytest.raises(ValueError, match="sample_weight is not supported with sampler=SMOTE"):
        StackedKerasClassifier(**parts, sampler=SMOTE()).fit(X, y, sample_weight=WEIGHTS)
    stack = StackedKerasClassifier(**parts, sampler=RandomOverSampler(random_state=0), cv=2)
    stack.fit(X, y, sample_weight=np.where(y, 2.0, 3.0))
    carried = stack.downstream_.got_["sample_weight"]
    picked = stack.sampler_.sample_indices_
    np.testing.assert_array_equal(carried, np.where(y, 2.0, 3.0)[picked])


def test_other_metadata_requires_routing():
    for estimator in (StackedKerasClassifier(Recorder()), KerasFeatureTransformer(Recorder())):
        with pytest.raises(ValueError, match=r"enable_metadata_routing=True.*extra"):
            estimator.fit(X, y, extra=GROUPS)


@pytest.mark.parametrize("missing", ["X_val", "y_val"])
def test_X_val_requires_y_val(missing):
    watched = {"X_val": X, "y_val": y, missing: None}
    for estimator in (StackedKerasClassifier(Recorder()), KerasClassifier()):
        with pytest.raises(ValueError, match=f"{missing} is None"):
            estimator.fit(X, y, **watched)
    with pytest.raises(ValueError, match=r"X_val was passed.*LogisticRegression does not accept"):
        StackedKerasClassifier(Recorder(), downstream=LogisticRegression()).fit(
            X, y, X_val=X, y_val=y
        )
    assert not Recorder.records
