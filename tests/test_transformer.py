"""Features of frozen and trained networks, of every kind."""

import keras
import numpy as np
import pandas as pd
import pytest
from _models import FIT, SMALL, binary
from scipy.sparse import csr_array
from scipy.special import logit
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.cluster import KMeans
from sklearn.datasets import load_breast_cancer, make_blobs
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.ensemble import IsolationForest, RandomForestClassifier, StackingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold, LeaveOneGroupOut, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler, TargetEncoder
from sklearn.svm import LinearSVC

from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    StackedKerasClassifier,
)
from skstack._features.cross_fit import Metadata
from skstack._training.formulas import LARGEST_LOG_ODDS
from skstack.networks import Autoencoder

X, y = load_breast_cancer(return_X_y=True)
X, y = StandardScaler().fit_transform(X)[:120, :6].astype(np.float32), y[:120]
layers = keras.layers
AUTOENCODER = KerasAutoencoder(Autoencoder((4,)), epochs=1)


@keras.saving.register_keras_serializable("skstack-tests")
class Told(keras.Model):
    """A subclassed model with a config."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.inner = layers.Dense(units, activation="tanh", name="inner")
        self.last = layers.Dense(2, name="last")

    def call(self, inputs):
        return self.last(self.inner(inputs))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def functional():
    inputs = keras.Input((6,), name="table")
    inner = layers.Dense(3, activation="tanh", name="inner")(inputs)
    return keras.Model(inputs, layers.Dense(2, name="last")(inner))


def sequential():
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(3, "tanh", name="inner"), layers.Dense(2, name="last")]
    )


def with_names():
    model = Told()
    model(X[:2])
    return model


OF_CLASSES = ["codes", "outputs", "log_odds", "margin", "entropy"]


@pytest.mark.parametrize(
    ("model", "features", "target"),
    [
        (LogisticRegression(), OF_CLASSES, y),
        (LogisticRegression(max_iter=500), OF_CLASSES, np.array(["a", "b", "c"] * 40)),
        (KerasClassifier(SMALL, **FIT), OF_CLASSES, y == 1),
        (AUTOENCODER, ["reconstruction_error", "outputs"], None),
        (Ridge(), "outputs", y),
        (RidgeClassifier(), "outputs", y),
        (GaussianMixture(2, random_state=0), ["outputs", "entropy"], None),
        (IsolationForest(n_estimators=3), "outputs", None),
    ],
    ids=lambda each: type(each).__name__ if hasattr(each, "fit") else "",
)
def test_names_that_are_certain_before_a_fit_are_those_after_it(model, features, target):
    transformer = KerasFeatureTransformer(model, features=features, cv=2)
    certain = clone(transformer)._prepare(X, target, Metadata(), whole=False).known_names
    assert set(certain) <= set(transformer.fit(X, target).get_feature_names_out())
    assert len(certain) >= len(np.atleast_1d(features)) - 1


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("suffix", ["object", ".keras", ".h5"])
@pytest.mark.parametrize("make", [functional, sequential, with_names])
def test_frozen_models_of_every_kind(make, suffix, tmp_path):
    if make is with_names and suffix == ".h5":
        pytest.skip("Keras itself saves no subclassed model as .h5")
    model = given = make()
    before = [weight.copy() for weight in model.get_weights()]
    if suffix != "object":
        given = tmp_path / f"model{suffix}"
        model.save(given)
    found = KerasFeatureTransformer(
        given, layers=["inner", "last"], features="outputs"
    ).fit_transform(X)
    kernel, bias = before[:2]
    inner = np.tanh(X @ kernel + bias)
    last = np.asarray(model(X))
    np.testing.assert_allclose(found, np.hstack([last, inner, last]), atol=1e-5)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_several_outputs_by_name():
    inputs = keras.Input((6,))
    two = keras.Model(
        inputs, [layers.Dense(2, name="left")(inputs), layers.Dense(1, name="right")(inputs)]
    )
    transformer = KerasFeatureTransformer(two).fit(X)
    assert transformer.get_feature_names_out().tolist() == ["left_0", "left_1", "right"]
    expected = np.hstack([np.asarray(part) for part in two(X)])
    np.testing.assert_allclose(transformer.transform(X), expected, atol=1e-5)


def test_a_frozen_sequential_gives_its_features_the_name_of_its_last_layer():
    def names(**settings):
        model = keras.Sequential([keras.Input((6,)), layers.Dense(2, **settings)])
        return KerasFeatureTransformer(model).fit(X).get_feature_names_out().tolist()

    assert names(name="last") == ["last_0", "last_1"]
    assert names() == names() == ["output_0", "output_1"]


@pytest.mark.parametrize("pooling", ["flatten", "mean", "max", "last"])
def test_outputs_of_rank_3_from_rows_of_rank_2(pooling):
    sequences = X.reshape(120, 3, 2)
    model = keras.Sequential([keras.Input((3, 2)), layers.LSTM(4, return_sequences=True)])
    raw = np.asarray(model(sequences))
    expected = {
        "flatten": raw.reshape(120, -1),
        "mean": raw.mean(axis=1),
        "max": raw.max(axis=1),
        "last": raw[:, -1],
    }[pooling]
    found = KerasFeatureTransformer(model, pooling=pooling).fit_transform(sequences)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("make", [lambda: KerasClassifier(SMALL, epochs=2), LogisticRegression])
def test_every_kind_of_feature(make):
    kinds = ["outputs", "log_odds", "entropy", "margin"]
    transformer = KerasFeatureTransformer(make(), features=kinds, cv=3, random_state=0)
    p, log_odds, entropy, margin = transformer.fit_transform(X, y).astype(float).T
    np.testing.assert_allclose(log_odds, np.log(p / (1 - p)), rtol=1e-3)
    np.testing.assert_allclose(entropy, -p * np.log(p) - (1 - p) * np.log(1 - p), atol=1e-4)
    np.testing.assert_allclose(margin, np.abs(2 * p - 1), atol=1e-6)
    assert transformer.get_feature_names_out().tolist() == [
        "proba_1",
        "log_odds_1",
        "entropy",
        "margin",
    ]


def test_reconstruction_error_of_a_frozen_model():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(2), layers.Dense(6)])
    found = KerasFeatureTransformer(model, features="reconstruction_error").fit_transform(X)
    expected = np.square(X - np.asarray(model(X))).mean(axis=1)
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-4)


def test_unsupervised_estimators_of_scikit_learn():
    found = KerasFeatureTransformer(PCA(2)).fit_transform(X)
    np.testing.assert_allclose(found, PCA(2).fit_transform(X), atol=1e-5)
    error = KerasFeatureTransformer(PCA(2), features="reconstruction_error").fit(X).transform(X)
    pca = PCA(2).fit(X)
    expected = np.square(X - pca.inverse_transform(pca.transform(X))).mean(axis=1)
    np.testing.assert_allclose(error[:, 0], expected, rtol=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: KerasClassifier(SMALL, epochs=2, random_state=0),
        LogisticRegression,
        lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    ],
    ids=["ours", "scikit-learn", "Pipeline"],
)
def test_frozen_estimators_are_not_trained(make):
    fitted = make().fit(X, y)
    transformer = KerasFeatureTransformer(FrozenEstimator(fitted))
    found = transformer.fit_transform(X[:50], 1 - y[:50])
    np.testing.assert_allclose(found[:, 0], fitted.predict_proba(X[:50])[:, 1], atol=1e-6)


def test_a_wrapper_of_keras_as_upstream():
    def build(X, y):
        model = keras.Sequential(
            [keras.Input((6,)), layers.Dense(3, name="inner"), layers.Dense(2, "softmax")]
        )
        model.compile("adam", "categorical_crossentropy", run_eagerly=True)
        return model

    from keras.wrappers import SKLearnClassifier

    network = SKLearnClassifier(build, fit_kwargs={"epochs": 1, "verbose": 0})
    transformer = KerasFeatureTransformer(network, layers="inner", cv=2)
    assert transformer.fit_transform(X, y).shape == (120, 3)


def test_passthrough_keeps_categories_and_set_output_names_the_source():
    frame = pd.DataFrame(X, columns=list("abcdef"), index=np.arange(120) + 7)
    frame["job"] = pd.Categorical(np.where(y, "cook", "vet"))
    transformer = KerasFeatureTransformer(AUTOENCODER, passthrough=True)
    table = transformer.fit_transform(frame)
    assert table["job"].dtype == "category"
    assert (table.drop(columns="job").dtypes == "float32").all()
    assert table.index.equals(frame.index)
    assert table.columns.tolist() == transformer.get_feature_names_out().tolist()
    assert table.columns[0] == "latent_0"
    assert list(table.columns[-7:]) == list(frame.columns)


def test_names_and_containers():
    transformer = KerasFeatureTransformer(AUTOENCODER)
    named = transformer.set_output(transform="pandas").fit_transform(X)
    assert list(named.columns) == ["latent_0", "latent_1", "latent_2"]
    assert transformer.set_output(transform="polars").transform(X).columns == list(named.columns)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_features_of_a_classifier_without_probabilities_are_decisions(n_classes):
    X, y = load_breast_cancer(return_X_y=True)
    y = np.array(["a", "b", "c"])[(y + (np.arange(len(y)) % 3 == 0)) % n_classes]
    model = make_pipeline(StandardScaler(), RidgeClassifier())
    transformer = KerasFeatureTransformer(model, cv=3)
    found = transformer.fit_transform(X, y)
    expected = cross_val_predict(model, X, y, cv=3, method="decision_function")
    np.testing.assert_allclose(found, expected.reshape(len(y), -1), rtol=1e-5)
    names = [f"decision_{label}" for label in sorted(set(y))][1 if n_classes == 2 else 0 :]
    assert transformer.get_feature_names_out().tolist() == names


def test_features_of_a_classifier_that_also_transforms_are_decisions():
    X, y = binary()
    inner = StackingClassifier([("svm", LinearSVC())], final_estimator=LinearSVC(), cv=2)
    transformer = KerasFeatureTransformer(inner, cv=3)
    found = transformer.fit_transform(X, y)
    expected = cross_val_predict(inner, X, y, cv=3, method="decision_function")
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="StackingClassifier has none"):
        transformer.set_params(features="codes").fit(X, y)


def test_features_of_a_classifier_with_labels_only_are_indicators():
    class Labels(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            self.model_ = LinearSVC().fit(X, y)
            self.classes_ = self.model_.classes_
            return self

        def predict(self, X):
            return self.model_.predict(X)

    X, y = load_breast_cancer(return_X_y=True)
    X, labels = StandardScaler().fit_transform(X), np.where(y == 1, "yes", "no")
    transformer = KerasFeatureTransformer(Labels(), cv=2)
    found = transformer.fit_transform(X, labels)
    assert transformer.get_feature_names_out().tolist() == ["predicted_yes"]
    expected = cross_val_predict(LinearSVC(), X, labels, cv=2)
    np.testing.assert_array_equal(found[:, 0], expected == "yes")


@pytest.mark.parametrize(
    "model", [RandomForestClassifier(5, random_state=0), KNeighborsClassifier()]
)
@pytest.mark.parametrize("features", ["outputs", "log_odds"])
def test_a_label_that_a_fold_lacks_has_probability_0(model, features):
    rows = np.arange(len(X))
    labels = np.column_stack([y, rows < 10, rows >= 0])  # the second one in the first fold only
    transformer = KerasFeatureTransformer(model, features=features, cv=KFold(3))
    table = transformer.fit_transform(X, labels.astype(int))
    certain = {"outputs": (0, 1), "log_odds": (-LARGEST_LOG_ODDS, LARGEST_LOG_ODDS)}[features]
    np.testing.assert_allclose(table[:40, 1], certain[0], rtol=1e-5)
    assert table[40:, 1].max() > certain[0]
    np.testing.assert_allclose(table[:, 2], certain[1], rtol=1e-5)


FOREST = RandomForestClassifier(5, random_state=0)


def test_labels_are_words_as_well_as_numbers():
    rows = np.arange(len(X))
    labels = np.column_stack([y, rows >= 90])  # all rows of the last of four folds
    words = np.where(labels == 1, "yes", "no")
    numbers, named = (KerasFeatureTransformer(FOREST, cv=KFold(4), refit=False) for _ in range(2))
    table = numbers.fit_transform(X, labels)
    np.testing.assert_array_equal(named.fit_transform(X, words), table)
    np.testing.assert_array_equal(named.transform(X), numbers.transform(X))
    np.testing.assert_array_equal(table[90:, 1], 0)


def test_a_label_of_several_classes_has_a_column_for_each():
    labels = np.column_stack([y, np.arange(len(X)) % 3])
    transformer = KerasFeatureTransformer(FOREST, cv=3).fit(X, labels)
    names = ["proba_0", "proba_1_0", "proba_1_1", "proba_1_2"]
    assert transformer.get_feature_names_out().tolist() == names
    first, second = clone(FOREST).fit(X, labels).predict_proba(X)
    np.testing.assert_allclose(transformer.transform(X), np.hstack([first[:, 1:], second]))


def test_labels_that_are_only_predicted_become_indicators():
    words = np.where(X[:, :2] > 0, "yes", "no")
    model = MultiOutputClassifier(LinearSVC())
    table = KerasFeatureTransformer(model, cv=3).fit(X, words).transform(X)
    np.testing.assert_array_equal(table, clone(model).fit(X, words).predict(X) == "yes")
    three = np.column_stack([y, np.arange(len(X)) % 3])
    names = KerasFeatureTransformer(model, cv=3).fit(X, three).get_feature_names_out().tolist()
    assert names == ["prediction_0", "prediction_1_0", "prediction_1_1", "prediction_1_2"]


@pytest.mark.parametrize("last", [LogisticRegression(), RidgeClassifier(), GaussianNB()])
def test_codes_suit_estimators_of_numbers(last):
    coded = KerasFeatureTransformer(GaussianNB(), features=["outputs", "codes"], cv=3)
    assert coded.fit_transform(X, y)["codes"].cat.categories.dtype == np.int64
    pipeline = make_pipeline(coded, last).fit(X, y)
    stack = StackedKerasClassifier(coded, downstream=last, blend=False, random_state=0).fit(X, y)
    for fitted in (pipeline, stack):
        method = "predict_proba" if hasattr(last, "predict_proba") else "decision_function"
        assert getattr(fitted, method)(X).dtype.kind == "f"


LABELS = (X[:, :2] > 0).astype(int)
OF_LABELS = [KerasClassifier(SMALL, **FIT), OneVsRestClassifier(LogisticRegression()), FOREST]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("model", OF_LABELS, ids=lambda model: type(model).__name__)
def test_features_of_exclusive_classes_are_refused_for_several_labels(model, frozen):
    model = FrozenEstimator(clone(model).fit(X, LABELS)) if frozen else model
    for feature in ("entropy", "margin", "codes"):
        with pytest.raises(ValueError, match=f"{feature}.*predicts several labels.*'log_odds'"):
            KerasFeatureTransformer(model, features=feature, cv=2).fit(X, LABELS)


@pytest.mark.parametrize("model", OF_LABELS, ids=lambda model: type(model).__name__)
def test_a_frozen_classifier_of_two_labels_has_a_column_for_each(model):
    fitted = clone(model).fit(X, LABELS)
    p = fitted.predict_proba(X)
    p = np.column_stack([each[:, 1] for each in p]) if isinstance(p, list) else p
    features = ["outputs", "log_odds"]
    found = KerasFeatureTransformer(FrozenEstimator(fitted), features=features).fit(X).transform(X)
    np.testing.assert_allclose(found[:, :2], p, rtol=1e-6)
    expected = np.clip(logit(p), -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS)
    np.testing.assert_allclose(found[:, 2:], expected, rtol=1e-4, atol=1e-5)


def test_one_label_of_several_is_a_target():
    features = ["outputs", "log_odds", "entropy", "margin"]
    one, alone = (
        KerasFeatureTransformer(model, features=features, cv=3).fit(X, labels)
        for model, labels in (
            (MultiOutputClassifier(LogisticRegression()), y[:, None]),
            (LogisticRegression(), y),
        )
    )
    np.testing.assert_array_equal(one.transform(X), alone.transform(X))


def test_a_frozen_transformer_may_know_classes():
    words = (X[:, :2] > 0).astype(float)
    encoder = TargetEncoder().fit(words, y)
    found = KerasFeatureTransformer(FrozenEstimator(encoder)).fit(words).transform(words)
    np.testing.assert_allclose(found, encoder.transform(words), rtol=1e-6)


def test_a_sparse_indicator_is_that_of_an_array():
    for model in (OF_LABELS[1], OF_LABELS[0]):
        dense, sparse = (
            KerasFeatureTransformer(model, cv=2, random_state=0).fit_transform(X, labels)
            for labels in (LABELS, csr_array(LABELS))
        )
        np.testing.assert_array_equal(sparse, dense)


def test_scores_of_detectors_are_features():
    detector = IsolationForest(random_state=0)
    transformer = KerasFeatureTransformer(detector, random_state=0).fit(X)
    assert transformer.get_feature_names_out().tolist() == ["decision"]
    expected = clone(detector).fit(X).decision_function(X)
    np.testing.assert_allclose(transformer.transform(X)[:, 0], expected, rtol=1e-5, atol=1e-7)


def test_scores_of_detectors_are_out_of_fold():
    detector, folds = LocalOutlierFactor(2, novelty=True), KFold(3)
    table = KerasFeatureTransformer(detector, cv=folds).fit_transform(X)
    expected = cross_val_predict(detector, X, cv=folds, method="decision_function")
    np.testing.assert_allclose(table[:, 0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", [GaussianMixture(4, random_state=0), KMeans(4, n_init=1)])
def test_components_in_another_order_warn(model):
    corners = [[0, 0], [8, 0], [0, 8], [8, 8]]
    blobs, _ = make_blobs(100, centers=corners, random_state=1)
    averaged = KerasFeatureTransformer(model, cv=4, refit=False, random_state=0)
    with pytest.warns(
        UserWarning, match=r"meaning of \d column\(s\).*differs.*on two folds.*Use refit=True"
    ):
        averaged.fit(blobs)
    KerasFeatureTransformer(model, cv=4, random_state=0).fit(blobs)  # one fit


class PredictsColumns(LogisticRegression):
    """A classifier whose predictions have the shape (n_rows, 1), as some of CatBoost have."""

    def predict(self, X):
        return super().predict(X).reshape(-1, 1)


@pytest.mark.parametrize("blend", [True, False])
def test_a_stack_predicts_rows_if_its_downstream_predicts_a_column(blend):
    branches = [("a", LogisticRegression()), ("b", LogisticRegression(C=0.1))]
    stack = StackedKerasClassifier(branches, downstream=PredictsColumns(), cv=3, blend=blend)
    assert stack.fit(X, y).predict(X).shape == (len(X),)
    assert stack.score(X, y) > 0.8


def test_a_frozen_classifier_may_predict_a_column():
    classes = np.array(["a", "b", "c"])[np.digitize(X[:, 0], [-0.5, 0.5])]
    fitted = FrozenEstimator(PredictsColumns().fit(X, classes))
    transformer = KerasFeatureTransformer(fitted, features=["outputs", "entropy"]).fit(X)
    names = ["proba_a", "proba_b", "proba_c", "entropy"]
    assert transformer.get_feature_names_out().tolist() == names


def test_decisions_between_other_classes_are_refused():
    groups = np.arange(len(X)) % 3
    transformer = KerasFeatureTransformer(LinearSVC(), cv=LeaveOneGroupOut(), refit=False)
    with pytest.raises(ValueError, match=r"another meaning.*decision_1, decision_2.*lack classes"):
        transformer.fit(X, groups, groups=groups)


@pytest.mark.parametrize("model", [TruncatedSVD(2, random_state=0), MaxAbsScaler()])
def test_reconstruction_errors_of_sparse_rows(model):
    rows = np.maximum(X, 0)
    transformer = KerasFeatureTransformer(model, features="reconstruction_error", cv=3)
    dense = transformer.fit_transform(rows)
    np.testing.assert_allclose(transformer.fit_transform(csr_array(rows)), dense, atol=1e-6)


def test_a_pipeline_may_end_with_passthrough():
    scaled = make_pipeline(StandardScaler(), "passthrough")
    found = KerasFeatureTransformer(scaled).fit(X)
    linear = Pipeline([("linear", LogisticRegression()), ("none", None)])
    stack = StackedKerasClassifier(
        [("a", linear), ("b", scaled)], downstream=LogisticRegression(), cv=2
    )
    assert stack.fit(X, y).get_feature_names_out().tolist()[:2] == ["a__proba_1", "b__x0"]
    np.testing.assert_allclose(found.transform(X), StandardScaler().fit_transform(X), atol=1e-6)
    assert list(found.get_feature_names_out()) == [f"x{i}" for i in range(6)]
    alone = KerasFeatureTransformer(make_pipeline("passthrough")).fit(X)
    np.testing.assert_array_equal(alone.transform(X), X)
    frozen = KerasFeatureTransformer(FrozenEstimator(scaled.fit(X))).fit(X)
    np.testing.assert_array_equal(frozen.transform(X), found.transform(X))


def test_features_before_passthrough_are_those_of_the_branch():
    inner = KerasFeatureTransformer(LogisticRegression(), features="log_odds", cv=3)
    branches = (
        make_pipeline(StandardScaler(), inner),
        make_pipeline(StandardScaler(), inner, "passthrough"),
    )
    for branch in branches:
        stack = StackedKerasClassifier(
            [("a", branch)], downstream=LogisticRegression(), cv=2, passthrough=False
        )
        fitted = stack.fit(X, y).upstream_[0][1]
        assert (fitted.features, fitted.cv) == ("log_odds", 3)


class FirstSeenFirst(LogisticRegression):
    """A classifier whose classes are in the order of their first rows."""

    def fit(self, X, y, sample_weight=None):
        super().fit(X, y, sample_weight)
        self.sorted_, self.classes_ = self.classes_, pd.unique(np.asarray(y))
        return self

    def predict_proba(self, X):
        return super().predict_proba(X)[:, np.searchsorted(self.sorted_, self.classes_)]


def test_classes_of_a_classifier_are_in_any_order():
    labels = np.where(y == 1, "yes", "no")
    assert list(pd.unique(labels)) == ["no", "yes"]
    labels = labels[::-1]
    own = KerasFeatureTransformer(FirstSeenFirst(), cv=KFold(3))
    usual = KerasFeatureTransformer(LogisticRegression(), cv=KFold(3))
    np.testing.assert_array_equal(own.fit_transform(X, labels), usual.fit_transform(X, labels))
    np.testing.assert_array_equal(own.transform(X), usual.transform(X))
    assert list(own.get_feature_names_out()) == ["proba_yes"]


def test_columns_that_pass_through_need_other_names_than_features():
    table = pd.DataFrame(X[:, :4], columns=["proba_1", "b", "c", "d"])
    own = KerasFeatureTransformer(LogisticRegression(), passthrough=True, cv=KFold(3))
    with pytest.raises(ValueError, match=r"names of features, \['proba_1'\]"):
        own.fit(table, y)
    renamed = table.rename(columns={"proba_1": "a"})
    assert own.fit(renamed, y).get_feature_names_out().tolist() == ["proba_1", "a", "b", "c", "d"]


@pytest.mark.parametrize("name", ["features", "layers"])
def test_a_feature_or_layer_is_named_once(name):
    X, y = binary()
    twice = ["outputs", "outputs"] if name == "features" else ["hidden_1", "hidden_1"]
    transformer = KerasFeatureTransformer(KerasClassifier(SMALL, **FIT), **{name: twice})
    with pytest.raises(ValueError, match=f"{name}=.* contains duplicates"):
        transformer.fit(X, y)
