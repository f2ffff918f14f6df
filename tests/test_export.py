"""One Keras model of a fitted estimator, and its files for other runtimes."""

import sys

import keras
import numpy as np
import pandas as pd
import pytest
from _fresh import run
from imblearn.over_sampling import RandomOverSampler
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

import skstack
from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack._graph.sklearn_steps import apply_scaler
from skstack._graph.tables import GraphTable, unique_names
from skstack.networks import MLP, Autoencoder

pytestmark = pytest.mark.usefixtures("convert_without_copies")

TOLERANCE = 1e-5
SMALL = MLP(hidden_layer_sizes=(8,))


def classifier(**settings):
    return KerasClassifier(SMALL, **{"epochs": 2, "random_state": 0, **settings})


def regressor(**settings):
    return KerasRegressor(SMALL, **{"epochs": 3, "random_state": 0, **settings})


def autoencoder():
    return KerasAutoencoder(Autoencoder((4,)), epochs=1, random_state=0)


def stack(upstream, **settings):
    # All parts are in the model; a blend leaves those without weight out.
    settings = {"downstream": classifier(), "blend": False, "cv": 2, "random_state": 0, **settings}
    return StackedKerasClassifier(upstream, **settings)


def predicted(estimator, X):
    """Output of the exported model, called without tracing, which costs half a second."""
    return np.asarray(estimator.to_keras()(estimator.keras_inputs(X)))


def assert_same(estimator, X, expected):
    found = predicted(estimator, X)
    assert found.dtype == np.float32
    assert np.ptp(expected) > 1e-3, "a constant would be easy to match"
    assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    return X.astype(np.float32), y


@pytest.fixture(scope="module")
def mixed():
    """Strings, integers, booleans and floats; new rows have missing and unseen values."""
    rng = np.random.default_rng(0)
    n = 300
    X = pd.DataFrame(
        {
            "age": rng.normal(40, 10, n).astype(np.float32),
            "job": pd.Series(rng.choice(["cook", "vet", "", "[UNK]"], n), dtype="category"),
            "floor": pd.Categorical(rng.choice([-1, 0, 3], n)),
            "owner": rng.random(n) < 0.5,
            "two words": pd.Series(rng.choice(["é", "b", None], n), dtype=object),
            "pay": rng.lognormal(3, 1, n).astype(np.float32),
        }
    )
    y = np.where((X["job"] == "vet") ^ (X["age"] > 40) ^ (X["floor"] == 3), "yes", "no")
    new = X.head(40).astype({"job": object, "floor": object})
    new.loc[0, "job"], new.loc[1, "job"], new.loc[2, "two words"] = "king", None, "z"
    new.loc[3, "floor"], new.loc[4, "floor"], new.loc[5, "floor"] = 77, None, -2
    return X, y, new.astype({"job": "category", "floor": "category"})


@pytest.fixture(scope="module")
def mixed_stack(mixed):
    X, y, _ = mixed
    return stack(
        [
            ("risk", KerasFeatureTransformer(classifier(), features=["log_odds", "entropy"], cv=2)),
            ("anomaly", KerasFeatureTransformer(autoencoder(), features="reconstruction_error")),
            ("numbers", make_pipeline(StandardScaler(), classifier()), ["pay", "age"]),
        ],
        sampler=RandomOverSampler(random_state=0),
        prior_correction=True,
    ).fit(X, y)


@pytest.fixture(scope="module")
def cancer_stack(cancer):
    return stack([("anomaly", autoencoder()), ("risk", classifier())]).fit(*cancer)


# The same numbers ---------------------------------------------------------------------------


def test_a_stack_is_one_model_that_gives_its_probabilities(cancer, cancer_stack):
    X, fitted = cancer[0], cancer_stack
    model = fitted.to_keras()
    assert_allclose(model(X), fitted.predict_proba(X), atol=TOLERANCE)
    names = [layer.name for layer in model.layers]
    assert {"features", "anomaly", "risk", "scaler", "downstream", "probabilities"} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("data", [load_breast_cancer, load_iris])
def test_features_of_probabilities_are_layers(data):
    X, y = data(return_X_y=True)
    features = ["outputs", "log_odds", "entropy", "margin"]
    fitted = KerasFeatureTransformer(classifier(), features=features, random_state=0, cv=2)
    expected = fitted.fit(X, y).transform(X)
    assert np.ptp(expected, axis=0).min() > 1e-3
    assert_same(fitted, X, expected)


def test_log_odds_are_precise_for_probabilities_near_one():
    X = np.linspace(-60, 60, 97, dtype=np.float32)[:, None]
    inputs = keras.Input((1,))
    sure = keras.Model(inputs, keras.layers.Activation("sigmoid")(inputs))
    fitted = KerasFeatureTransformer(sure, features=["log_odds", "entropy", "margin"]).fit(X)
    found = fitted.transform(X)
    assert_allclose(found[:, 0], np.clip(X[:, 0], -16.118096, 16.118096), rtol=TOLERANCE)
    assert_same(fitted, X, found)


@pytest.mark.parametrize("data", [load_breast_cancer, load_iris])
def test_log_odds_of_corrected_priors_are_layers(data):
    X, y = data(return_X_y=True)
    keep = np.r_[np.flatnonzero(y == 0)[:15], np.flatnonzero(y > 0)]
    X, y = X[keep], y[keep]
    network = classifier(sampler=RandomOverSampler(random_state=0), prior_correction=True)
    features = ["log_odds", "outputs"]
    fitted = KerasFeatureTransformer(network, features=features, random_state=0, cv=2).fit(X, y)
    found = fitted.transform(X)
    assert_same(fitted, X, found)
    n = found.shape[1] // 2
    assert_allclose(found[:, :n], np.log(found[:, n:] / (1 - found[:, n:])), rtol=0.01, atol=1e-3)


def test_log_odds_of_several_classes_are_precise():
    X = np.zeros((30, 3), dtype=np.float32)
    X[:, 1] = np.linspace(-14, 14, 30)
    inputs = keras.Input((3,))
    sure = keras.Model(inputs, keras.layers.Activation("softmax")(inputs))
    fitted = KerasFeatureTransformer(sure, features="log_odds").fit(X)
    found = fitted.transform(X)
    assert_allclose(found[:, 1], X[:, 1] - np.log(2), rtol=TOLERANCE)
    assert_same(fitted, X, found)


def test_each_of_two_labels_has_its_log_odds():
    X, y = load_iris(return_X_y=True)
    labels = np.column_stack([y == 0, X[:, 0] > 6]).astype(int)
    fitted = KerasFeatureTransformer(classifier(), features=["log_odds", "outputs"], cv=2)
    found = fitted.fit(X, labels).transform(X)
    assert_allclose(found[:, :2], np.log(found[:, 2:] / (1 - found[:, 2:])), rtol=1e-3)
    assert_same(fitted, X, found)


def test_a_stack_on_log_odds_of_a_confident_network(cancer):
    X, y = cancer
    sure = KerasFeatureTransformer(classifier(epochs=50), features="log_odds", cv=2)
    fitted = stack([("sure", sure)], passthrough=False, downstream=classifier(epochs=30)).fit(X, y)
    table = fitted.transform(X)
    assert np.ptp(table) > 4
    assert_same(fitted, X, fitted.predict_proba(X))


def test_latent_error_inner_layer_and_columns_are_concatenated(cancer):
    X, y = cancer
    fitted = KerasFeatureTransformer(
        autoencoder(),
        features=["reconstruction_error", "outputs"],
        layers=["encoder_1"],
        passthrough=True,
    )
    assert_same(fitted.fit(X, y), X, fitted.transform(X))


def test_an_exported_autoencoder_outputs_its_latent(cancer):
    X, _ = cancer
    fitted = autoencoder().fit(X)
    assert_same(fitted, X, fitted.transform(X))
    assert "decoder" not in str(
        [layer.name for layer in fitted.to_keras().get_layer("encoder").layers]
    )


def test_errors_of_an_autoencoder_that_learned_raw_columns(mixed):
    X, _, new = mixed
    raw = KerasAutoencoder(Autoencoder(scaling=None), epochs=1, random_state=0)
    fitted = KerasFeatureTransformer(raw, features="reconstruction_error").fit(X)
    assert_same(fitted, new, fitted.transform(new))


def test_multiclass_and_multilabel():
    X, y = load_iris(return_X_y=True)
    fitted = stack(classifier()).fit(X, y)
    assert_same(fitted, X, fitted.predict_proba(X))
    labels = np.column_stack([y == 0, X[:, 0] > 6, y == 2]).astype(int)
    fitted = stack(classifier(), passthrough=[0, 3]).fit(X, labels)
    assert_same(fitted, X, fitted.predict_proba(X))


@pytest.mark.filterwarnings("ignore:The number of unique classes")  # scikit-learn 1.7
def test_regressors_predict_in_units_of_y():
    X, y = load_diabetes(return_X_y=True)
    fitted = regressor().fit(X, y)
    assert predicted(fitted, X).shape == (len(X), 1)
    assert_same(fitted, X, fitted.predict(X)[:, None])
    two = np.column_stack([y, 1e3 - y])
    pair = StackedKerasRegressor(regressor(), downstream=regressor(), cv=2, random_state=0)
    assert_same(pair.fit(X, two), X, pair.predict(X))


@pytest.mark.slow
def test_strings_integers_and_booleans_are_raw_inputs(mixed, mixed_stack):
    X, _, new = mixed
    assert_same(mixed_stack, X, mixed_stack.predict_proba(X))
    assert_same(mixed_stack, new, mixed_stack.predict_proba(new))
    unlike = mixed_stack.predict_proba(new) != mixed_stack.predict_proba(X.head(40))
    assert unlike.any(axis=1).sum() >= 5, "new and missing categories must count"


def test_inputs_are_raw_columns_with_names(mixed, mixed_stack):
    _, _, new = mixed
    given = mixed_stack.keras_inputs(new, numpy=True)
    assert list(given) == ["numeric", "job", "floor", "owner", "two_words"]
    assert given["numeric"].tolist() == new[["age", "pay"]].to_numpy().tolist()
    # "" and "[UNK]" are categories here, -1 too: others stand for missing and unseen.
    assert given["job"][:2, 0].tolist() == ["king", "missing"]
    assert given["job"][6:20, 0].tolist() == new["job"][6:20].tolist()
    assert given["floor"][3:6, 0].tolist() == [77, -2, -3]
    assert given["owner"].dtype == given["floor"].dtype == np.int64


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bank_additional_full", "adult"])
def test_real_tables_of_mixed_columns(shared_data, name):
    table = shared_data(name).sample(1500, random_state=0).reset_index(drop=True)
    y = table.pop(table.columns[-1]).to_numpy()
    train, new = table[:900], table[900:]
    branches = [
        ("risk", classifier()),
        ("anomaly", KerasFeatureTransformer(autoencoder(), features="reconstruction_error")),
    ]
    fitted = stack(branches).fit(train, y[:900])
    assert len(fitted.keras_inputs(new)) > 5
    assert_same(fitted, new, fitted.predict_proba(new))


def test_numbers_of_an_array_may_be_categories(cancer):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.integers(0, 4, 200), rng.standard_normal(200)]).astype(float)
    y = (X[:, 0] == 2).astype(int)
    fitted = stack(
        classifier(categorical_features=[0]),
        categorical_features=[0],
    ).fit(X, y)
    new = X.copy()
    new[:3, 0] = [9, 1.5, -1]
    assert_same(fitted, new, fitted.predict_proba(new))


@pytest.mark.slow
def test_a_column_may_be_categorical_and_numeric():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"floor": rng.integers(-1, 6, 200), "size": rng.standard_normal(200)})
    y = (X["floor"] > 2).to_numpy().astype(int)
    upstream = [
        ("words", classifier(categorical_features=["floor"])),
        ("numbers", make_pipeline(StandardScaler(), classifier())),
    ]
    fitted = stack(upstream).fit(X, y)
    X.loc[0, "floor"] = 70
    assert_same(fitted, X, fitted.predict_proba(X))


@pytest.mark.slow
def test_the_mean_of_fold_networks_is_exported_as_one_model(mixed):
    X, y, new = mixed
    X = X.astype({"job": object})
    X.loc[0, "job"] = "rare"  # which one of the folds lacks
    new = pd.concat([X.head(2), new])
    branch = KerasFeatureTransformer(
        classifier(), features=["outputs", "log_odds"], layers="hidden_1", refit=False
    )
    fitted = stack([("risk", branch)], refit=False).fit(X, y)
    assert_same(fitted, new, fitted.predict_proba(new))
    names = {layer.name for layer in fitted.to_keras().layers}
    assert {"risk_fold_0", "risk_fold_4", "risk_mean"} <= names


def test_prior_correction_is_exported():
    X, y = make_classification(
        400, 8, n_classes=3, n_informative=5, weights=[0.7, 0.2], random_state=0
    )
    settings = {"sampler": RandomOverSampler(random_state=0), "prior_correction": True}
    alone = classifier(**settings).fit(X, y)
    assert_same(alone, X, alone.predict_proba(X))
    downstream = stack(classifier(), **settings).fit(X, y)
    assert_same(downstream, X, downstream.predict_proba(X))
    uncorrected = downstream.set_params(prior_correction=False)
    assert np.abs(uncorrected.predict_proba(X) - predicted(uncorrected, X)).max() < TOLERANCE


def test_branches_select_columns_in_any_way():
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    mask = np.arange(30) % 8 == 0
    upstream = [  # four columns for each network, which is one program then
        ("names", classifier(), ["worst area", "mean radius", "area error", "mean area"]),
        ("places", autoencoder(), [7, 2, 3]),
        ("slice", classifier(), slice("mean radius", "mean area")),
        ("mask", classifier(), mask),
        ("asked", classifier(), make_column_selector("^(?:area|radius|texture|perimeter) error$")),
    ]
    fitted = stack(upstream, passthrough=["mean area", "mean texture"]).fit(X, y)
    assert_same(fitted, X, fitted.predict_proba(X))


def test_unused_columns_may_hold_anything():
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X.insert(0, "note", "words")
    columns = ["mean area", "mean texture"]
    fitted = stack([("few", classifier(), columns)], passthrough=False).fit(X, y)
    assert fitted.keras_inputs(X).shape == (len(X), 31)
    assert_same(fitted, X, fitted.predict_proba(X))


def test_frozen_networks_by_object_and_by_path(cancer, tmp_path):
    X, y = cancer
    teacher = classifier().fit(X, y)
    path = tmp_path / "teacher.keras"
    teacher.model_.save(path)
    upstream = [
        ("object", teacher.model_),
        ("path", str(path)),
        ("frozen", FrozenEstimator(teacher)),
        ("piped", make_pipeline(StandardScaler(), KerasFeatureTransformer(teacher.model_))),
    ]
    fitted = stack(upstream).fit(X, y)
    assert_same(fitted, X, fitted.predict_proba(X))
    model = fitted.to_keras()
    assert not model.get_layer("path").trainable_variables
    assert model.get_layer("frozen").trainable_variables


def test_a_frozen_network_may_have_other_categories(mixed):
    X, y, new = mixed
    X, new = X[["age", "job"]], new[["age", "job"]]
    elsewhere = X.astype({"job": object})
    elsewhere.loc[:20, "job"] = "king"
    teacher = classifier().fit(elsewhere, y)
    fitted = stack([("teacher", FrozenEstimator(teacher)), ("risk", classifier())]).fit(X, y)
    assert_same(fitted, new, fitted.predict_proba(new))


@pytest.mark.parametrize("below", [None, keras.layers.Dense(4)], ids=["inputs", "layer"])
def test_a_layer_of_a_doubly_nested_model(below):
    X, _ = load_iris(return_X_y=True)
    inner = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, "tanh", name="core"), keras.layers.Dense(2)],
        name="inner",
    )
    inputs = keras.Input((4,))
    hidden = inner(inputs if below is None else below(inputs))
    outer = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    fitted = KerasFeatureTransformer(outer, features="outputs", layers=["inner/core"]).fit(X)
    assert_same(fitted, X, fitted.transform(X))


class Hides(keras.Model):
    """Calls its layer in ``call``, of which no graph is known."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.core = keras.layers.Dense(2, name="core")

    def call(self, x):
        return 2 * self.core(x)

    def get_config(self):
        return super().get_config()


def test_inner_layers_that_a_class_hides_are_refused():
    X, _ = load_iris(return_X_y=True)
    model = Hides()
    model(X[:2])
    fitted = KerasFeatureTransformer(model, layers="core").fit(X)
    with pytest.raises(ValueError, match=r"its class hides the inner layers \['core'\]"):
        fitted.to_keras()


@pytest.mark.parametrize("pooling", ["flatten", "mean", "max", "last"])
def test_sequences_are_pooled_in_the_graph(pooling):
    X = np.random.default_rng(0).standard_normal((50, 7, 3)).astype(np.float32)
    inputs = keras.Input((7, 3))
    network = keras.Model(inputs, keras.layers.Conv1D(4, 3, name="waves")(inputs))
    fitted = KerasFeatureTransformer(network, layers="waves", pooling=pooling).fit(X)
    assert_same(fitted, X, fitted.transform(X))


def test_a_stack_may_be_nested_in_a_stack(cancer):
    X, y = cancer
    inner = stack([("risk", classifier())])
    fitted = stack([("risk", classifier()), ("inner", inner)], downstream=None)
    fitted.set_params(downstream=make_pipeline(MaxAbsScaler(), classifier()))
    assert_same(fitted.fit(X, y), X, fitted.predict_proba(X))


# What scikit-learn puts between --------------------------------------------------------------

SCALERS = [
    StandardScaler(),
    StandardScaler(with_mean=False),
    StandardScaler(with_std=False),
    MinMaxScaler((-1, 2)),
    MinMaxScaler(clip=True),
    MaxAbsScaler(),
    RobustScaler(),
    RobustScaler(with_centering=False, with_scaling=False),
    make_pipeline(StandardScaler(), FunctionTransformer(), "passthrough", MinMaxScaler()),
    None,
]


IMPUTERS = [
    SimpleImputer(),
    SimpleImputer(strategy="median", add_indicator=True),
    SimpleImputer(strategy="constant", fill_value=-5.0, add_indicator=True),
    SimpleImputer(missing_values=0.0),
]
STEPS = [
    make_pipeline(PCA(5, whiten=True), StandardScaler()),
    make_pipeline(MinMaxScaler(), PCA(4)),
    VarianceThreshold(1.0),
    SelectKBest(k=6),
]


@pytest.mark.parametrize("step", [*SCALERS, *STEPS, *IMPUTERS], ids=str)
def test_steps_become_layers(cancer, step):
    X, y = cancer
    if isinstance(step, SimpleImputer):
        X = X.copy()
        X[np.random.default_rng(0).random(X.shape) < 0.1] = step.missing_values
    step = FunctionTransformer() if step is None else clone(step)
    expected = step.fit(X[:300], y[:300]).transform(X[300:])
    inputs = keras.Input((30,))
    with unique_names():
        table = apply_scaler(step, GraphTable.of(inputs), "")
    found = keras.Model(inputs, table.numeric)(X[300:])
    assert np.ptp(expected) > 1e-3
    assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("scaler", [SCALERS[-2], None], ids=str)
def test_the_scaler_of_a_stack_becomes_layers(cancer, scaler):
    X, y = cancer
    between = stack(autoencoder(), scaler=scaler).fit(X[:300], y[:300])
    assert_same(between, X[300:], between.predict_proba(X[300:]))


@pytest.mark.parametrize(
    "step",
    [
        RobustScaler(),
        FrozenEstimator(make_pipeline(StandardScaler(), PCA(3))),
        KerasFeatureTransformer(autoencoder(), passthrough=True),
    ],
    ids=lambda step: type(step).__name__,
)
def test_steps_before_a_network_become_layers(cancer, step):
    X, y = cancer
    if isinstance(step, FrozenEstimator):
        step.estimator.fit(X)
    fitted = stack([("risk", make_pipeline(step, classifier()))]).fit(X, y)
    assert_same(fitted, X, fitted.predict_proba(X))


@pytest.mark.parametrize("imputer", [IMPUTERS[1], IMPUTERS[3]], ids=str)
def test_missing_numbers_are_imputed_in_the_graph(cancer, imputer):
    X, y = cancer
    X = X.copy()
    X[np.random.default_rng(0).random(X.shape) < 0.1] = imputer.missing_values
    inner = KerasFeatureTransformer(classifier(), passthrough=True)
    upstream = [("risk", make_pipeline(imputer, StandardScaler(), inner))]
    fitted = stack(upstream, passthrough=False).fit(X, y)
    assert_same(fitted, X, fitted.predict_proba(X))


@pytest.mark.filterwarnings("ignore:Skipping features without any observed values")
def test_a_column_without_any_number_is_dropped(cancer):
    X, y = cancer
    X = X.copy()
    X[:, 4] = np.nan
    X[::5, 7] = np.nan
    upstream = [("risk", make_pipeline(SimpleImputer(add_indicator=True), classifier()))]
    fitted = stack(upstream, passthrough=False).fit(X, y)
    assert_same(fitted, X, fitted.predict_proba(X))


@pytest.mark.filterwarnings("ignore:Skipping features without any observed values")
@pytest.mark.parametrize("indicator", [False, True])
def test_a_column_without_any_number_is_dropped_from_onnx(cancer, tmp_path, indicator):
    X, y = cancer
    X = X.astype(np.float32)
    X[:, 4] = np.nan
    X[::5, 7] = np.nan
    model = make_pipeline(SimpleImputer(add_indicator=indicator), classifier()).fit(X, y)
    skstack.export(model, tmp_path / "model.onnx", format="onnx")
    found = by_onnxruntime(tmp_path / "model.onnx", {"features": X})
    assert_allclose(found, model.predict_proba(X), atol=TOLERANCE)


def test_an_onnx_file_that_differs_from_the_network_is_not_written(mixed, tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    X, y, _ = mixed
    fitted = classifier(imputer=SimpleImputer()).fit(X[["age", "job", "pay"]], y)
    path = tmp_path / "model.onnx"
    path.write_text("an earlier file")

    def spoil(model):
        graph = model.graph
        if fault == "a lookup":
            (node, *_) = [node for node in graph.node if node.op_type == "LabelEncoder"]
            (codes,) = [each for each in node.attribute if each.name == "values_int64s"]
            codes.ints[:] = codes.ints[::-1]
        elif fault == "missing values":
            for node in graph.node:
                node.op_type = "IsInf" if node.op_type == "IsNaN" else node.op_type
        elif fault == "a weight":
            (constant,) = [each for each in graph.initializer if list(each.dims) == [8, 1]]
            changed = onnx.numpy_helper.to_array(constant) + 0.5
            constant.CopyFrom(onnx.numpy_helper.from_array(changed, constant.name))

    check_model = onnx.checker.check_model
    monkeypatch.setattr(
        onnx.checker, "check_model", lambda model: (spoil(model), check_model(model))
    )
    convert, converted = keras.Model.export, []

    def convert_once(model, path, **settings):
        if not converted:
            convert(model, path, **settings)
            converted.append(path.read_bytes())
        path.write_bytes(converted[0])

    monkeypatch.setattr(keras.Model, "export", convert_once)
    for fault in ("a weight", "missing values", "a lookup"):  # noqa: B007  `spoil` reads it
        with pytest.raises(ValueError, match=r"'output_0' of the file, .* nothing was written"):
            fitted.export(path, format="onnx")
        assert path.read_text() == "an earlier file"
    fault = None
    fitted.export(path, format="onnx")


def test_words_before_a_network_are_refused_by_the_name_of_the_step():
    X = pd.DataFrame({"a": np.arange(60.0), "w": ["x", "y", None] * 20})
    y = np.arange(60) % 2
    imputed = make_pipeline(
        SimpleImputer(strategy="most_frequent"), OneHotEncoder(sparse_output=False)
    )
    passed = ColumnTransformer([("n", StandardScaler(), ["a"])], remainder="passthrough")
    for step, message in (
        (ColumnTransformer([("c", imputed, ["w"])]), r"SimpleImputer\(.* it imputes words"),
        (passed.set_output(transform="pandas"), "'remainder__w' as categories, but a step before"),
    ):
        fitted = make_pipeline(step, classifier()).fit(X, y)
        with pytest.raises(ValueError, match=message):
            skstack.to_keras(fitted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_columns_that_vary_little_keep_their_precision(dtype):
    rng = np.random.default_rng(0)
    X = (1e6 + rng.standard_normal((300, 4))).astype(np.float32).astype(dtype)
    y = (X[:, 0] > 1e6).astype(int)
    upstream = [("risk", make_pipeline(StandardScaler(), classifier(epochs=20)))]
    fitted = stack(upstream, passthrough=False).fit(X, y)
    assert_same(fitted, X, fitted.predict_proba(X))


# Away from here -------------------------------------------------------------------------------


def test_a_saved_model_holds_layers_of_keras_alone(mixed, mixed_stack, tmp_path):
    _, _, new = mixed
    mixed_stack.to_keras().save(tmp_path / "stack.keras")
    assert b"skstack" not in (tmp_path / "stack.keras").read_bytes()
    loaded = keras.saving.load_model(tmp_path / "stack.keras", safe_mode=True)
    found = loaded(mixed_stack.keras_inputs(new))
    assert_allclose(found, mixed_stack.predict_proba(new), atol=TOLERANCE)


@pytest.mark.slow
def test_a_saved_model_loads_without_skstack(mixed, mixed_stack, tmp_path):
    _, _, new = mixed
    mixed_stack.to_keras().save(tmp_path / "stack.keras")
    np.savez(tmp_path / "rows.npz", **mixed_stack.keras_inputs(new, numpy=True))
    code = """
import sys, keras, numpy
model = keras.models.load_model("stack.keras")
rows = {name: keras.ops.convert_to_tensor(rows) for name, rows in numpy.load("rows.npz").items()}
numpy.save("found.npy", model.predict(rows, verbose=0))
assert not [name for name in sys.modules if name.startswith("skstack")]
"""
    run(code, cwd=tmp_path)
    found = np.load(tmp_path / "found.npy")
    assert_allclose(found, mixed_stack.predict_proba(new), atol=TOLERANCE)


def by_tensorflow(path, rows):
    import tensorflow as tf

    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    return serve(**{name: tf.constant(array) for name, array in rows.items()})["output_0"].numpy()


def by_onnxruntime(path, rows):
    session = pytest.importorskip("onnxruntime").InferenceSession(str(path))
    assert {value.name for value in session.get_inputs()} == set(rows)
    assert [value.name for value in session.get_outputs()] == ["output_0"]
    return session.run(["output_0"], rows)[0]


def by_litert(path, rows):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(str(path))
    return interpreter.get_signature_runner("serving_default")(**rows)["output_0"]


RUNTIMES = {"onnx": by_onnxruntime, "saved_model": by_tensorflow, "litert": by_litert}
each_format = pytest.mark.parametrize("format", RUNTIMES)


@pytest.mark.slow(first=1)
@each_format
def test_every_runtime_accepts_raw_mixed_columns(mixed, mixed_stack, tmp_path, format, capfd):
    _, _, new = mixed
    path = tmp_path / "stack"
    mixed_stack.export(path, format=format)
    assert capfd.readouterr().out == ""
    assert [each.name for each in tmp_path.iterdir()] == ["stack"]
    expected = mixed_stack.predict_proba(new)
    fixed = mixed_stack.keras_inputs(new, numpy=True)
    objects = {name: np.asarray(v) for name, v in mixed_stack.keras_inputs(new).items()}
    for rows, n in ((fixed, len(new)), (fixed, 1), (objects, len(new)), (objects, 1)):
        some = {name: array[:n] for name, array in rows.items()}
        assert_allclose(RUNTIMES[format](path, some), expected[:n], atol=TOLERANCE)


def test_strings_may_be_python_objects(mixed):
    """As NumPy arrays, which the model, `predict` and `fit` of Keras and other runtimes take."""
    X, y, new = mixed
    fitted = classifier().fit(X, y)
    given, expected = fitted.keras_inputs(new), fitted.predict_proba(new)
    assert {name: v.dtype for name, v in given.items()} == {
        "numeric": np.float32, "job": object, "floor": np.int64, "owner": np.int64,
        "two_words": object,
    }  # fmt: skip
    assert all(v.shape == (len(new), 2 if k == "numeric" else 1) for k, v in given.items())
    assert isinstance(given["job"][3, 0], str)
    fixed = fitted.keras_inputs(new, numpy=True)
    tensors = fitted.keras_inputs(new, numpy=False)
    for name in ("job", "two_words"):
        assert given[name].tolist() == fixed[name].tolist()
        assert [[w.decode() for w in row] for row in tensors[name].numpy()] == fixed[name].tolist()
    model = fitted.to_keras()
    for inputs in (given, {name: np.asarray(v) for name, v in given.items()}, tensors):
        assert_allclose(model(inputs), expected, atol=TOLERANCE)
    for inputs in (given, tensors):
        assert_allclose(model.predict(inputs, verbose=0), expected, atol=TOLERANCE)
    model.compile(loss="mse", optimizer="sgd", run_eagerly=True)
    assert model.evaluate(given, expected, verbose=0) < TOLERANCE


@pytest.fixture(scope="module")
def stack_with_gaps(cancer):
    X, y = cancer
    X = X.copy()
    X[::7, 3] = np.nan
    branch = KerasFeatureTransformer(
        classifier(), features=["outputs", "log_odds", "margin", "entropy"], refit=False, cv=2
    )
    upstream = [
        ("filled", make_pipeline(SimpleImputer(add_indicator=True), PCA(6), branch)),
        ("error", KerasFeatureTransformer(autoencoder(), features="reconstruction_error"), [0, 9]),
    ]
    return stack(upstream, passthrough=[0, 1]).fit(X, y), X


@pytest.mark.slow
@each_format
def test_every_runtime_accepts_numbers(stack_with_gaps, tmp_path, format):
    fitted, X = stack_with_gaps
    fitted.export(tmp_path / "stack", format=format)
    rows = {"features": fitted.keras_inputs(X)}
    found = RUNTIMES[format](tmp_path / "stack", rows)
    assert_allclose(found, fitted.predict_proba(X), atol=TOLERANCE)
    if format != "litert":  # whose interpreter wants a row at least
        assert RUNTIMES[format](tmp_path / "stack", {"features": X[:0]}).shape == (0, 2)


@pytest.mark.slow(first=1)
@pytest.mark.parametrize(
    ("format", "make", "method"),
    [
        ("onnx", autoencoder, "transform"),
        ("saved_model", regressor, "predict"),
        ("litert", regressor, "predict"),
    ],
)
def test_values_and_features_are_exported_too(tmp_path, format, make, method):
    X, y = load_diabetes(return_X_y=True)
    fitted = make().fit(X, y)
    fitted.export(tmp_path / "it", format=format)
    found = RUNTIMES[format](tmp_path / "it", {"features": fitted.keras_inputs(X)})
    expected = getattr(fitted, method)(X)
    assert_allclose(found.reshape(expected.shape), expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_the_exported_model_can_be_trained(cancer, cancer_stack):
    (X, y), fitted = cancer, cancer_stack
    model = fitted.to_keras()
    before = {
        name: [value.copy() for value in model.get_layer(name).get_weights()]
        for name in ("risk", "anomaly", "downstream", "scaler")
    }
    kept = fitted.predict_proba(X)
    model.compile(
        optimizer=keras.optimizers.Adam(0.003),
        loss="sparse_categorical_crossentropy",
        run_eagerly=True,  # tracing takes longer
    )
    losses = model.fit(X[:200], y[:200], epochs=3, batch_size=100, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    for name, weights in before.items():
        layer = model.get_layer(name)
        changed = [
            not np.array_equal(a, b) for a, b in zip(weights, layer.get_weights(), strict=True)
        ]
        assert sum(changed) == len(layer.trainable_variables), name
    assert not model.get_layer("scaler").trainable_variables
    assert np.array_equal(fitted.predict_proba(X), kept), "the stack has weights of its own"


# What cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["to_keras", "keras_inputs", "export"])
def test_unfitted_estimators_cannot_be_exported(method, tmp_path):
    arguments = {"keras_inputs": [[[0.0]]], "export": [tmp_path / "it"]}.get(method, [])
    for estimator in (classifier(), stack(None), KerasFeatureTransformer()):
        with pytest.raises(NotFittedError):
            getattr(estimator, method)(*arguments)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"upstream": [("near", KNeighborsClassifier())]}, "KNeighborsClassifier .*'near'"),
        ({"downstream": GaussianNB()}, "GaussianNB"),
        ({"scaler": PowerTransformer()}, "PowerTransformer"),
        (
            {
                "upstream": [
                    ("risk", make_pipeline(QuantileTransformer(n_quantiles=9), classifier()))
                ]
            },
            "QuantileTransformer",
        ),
        ({"scaler": FunctionTransformer(np.tanh)}, "FunctionTransformer"),
    ],
    ids=["upstream", "downstream", "scaler", "step", "function"],
)
def test_parts_that_cannot_become_layers_are_refused_by_name(cancer, tmp_path, settings, says):
    X, y = cancer
    fitted = stack(**{"upstream": classifier(), **settings}).fit(X[:200], y[:200])
    with pytest.raises(ValueError, match=says):
        fitted.to_keras()
    with pytest.raises(ValueError, match=says):
        fitted.export(tmp_path / "stack.onnx", format="onnx")
    assert list(tmp_path.iterdir()) == []


def test_trees_on_strings_are_refused_by_name_as_layers(mixed):
    X, y, _ = mixed
    trees = HistGradientBoostingClassifier(max_iter=2, categorical_features="from_dtype")
    words = X[["age", "job"]]
    fitted = stack([("trees", trees)]).fit(words, y)
    with pytest.raises(ValueError, match=r"HistGradientBoostingClassifier.*'trees'"):
        fitted.to_keras()


def test_fractional_and_mixed_categories_are_refused_as_inputs(mixed):
    X, y, _ = mixed
    for values in (["0.5", 1.5], ["a", 1]):
        odd = X.assign(odd=pd.Series(values * 150, dtype=object))
        fitted = classifier(epochs=1).fit(odd, y)
        with pytest.raises(ValueError, match=r"'odd'.*astype\(str\)"):
            fitted.to_keras()


def test_strings_that_pass_through_are_refused_as_output(mixed):
    X, y, _ = mixed
    fitted = KerasFeatureTransformer(classifier(), passthrough=True, cv=2).fit(X, y)
    with pytest.raises(ValueError, match="passthrough"):
        fitted.to_keras()


def test_unknown_formats_are_refused(cancer, tmp_path):
    fitted = classifier(epochs=1).fit(*cancer)
    with pytest.raises(ValueError, match=r"format='pmml'.*saved_model.*onnx.*litert"):
        fitted.export(tmp_path / "it", format="pmml")


def test_a_missing_converter_is_named_with_its_extra(cancer, tmp_path, monkeypatch):
    fitted = classifier(epochs=1).fit(*cancer)
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ImportError, match=r"tf2onnx.*skstack\[onnx\]"):
        fitted.export(tmp_path / "it.onnx", format="onnx")
    assert list(tmp_path.iterdir()) == []


@each_format
def test_a_failed_export_keeps_the_existing_file(cancer, tmp_path, monkeypatch, format):
    fitted = classifier(epochs=1).fit(*cancer)
    path = tmp_path / "it"
    if format == "saved_model":
        fitted.export(path, format=format)
    else:
        path.write_bytes(b"an earlier export")  # other formats replace any file
    size = sum(each.stat().st_size for each in tmp_path.rglob("*"))

    def fails(self, path, **settings):
        with open(path, "w") as file:
            file.write("half of it")
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(keras.Model, "export", fails)
        with pytest.raises(OSError, match="no space left"):
            fitted.export(path, format=format)
    assert [each.name for each in tmp_path.iterdir()] == ["it"]
    assert sum(each.stat().st_size for each in tmp_path.rglob("*")) == size
    if format == "litert":  # replaces a file as onnx does
        return
    fitted.export(path, format=format)
    rows = {"features": cancer[0]}
    assert_allclose(RUNTIMES[format](path, rows), fitted.predict_proba(cancer[0]), atol=TOLERANCE)


def test_foreign_files_and_folders_are_never_overwritten(cancer, tmp_path):
    fitted = classifier(epochs=1).fit(*cancer)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("dear diary")
    with pytest.raises(FileExistsError, match="not a SavedModel"):
        fitted.export(tmp_path / "notes")
    with pytest.raises(IsADirectoryError):
        fitted.export(tmp_path / "notes", format="onnx")
    with pytest.raises(FileNotFoundError, match="no folder"):
        fitted.export(tmp_path / "nowhere" / "it")
    with pytest.raises(TypeError, match=r"path=3 must be a str or a path-like object"):
        fitted.export(3)
    assert (tmp_path / "notes" / "mine.txt").read_text() == "dear diary"
