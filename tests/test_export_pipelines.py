"""Export of what scikit-learn puts around the estimators: Pipelines, calibration, searches."""

import warnings

import keras
import numpy as np
import pandas as pd
import pytest
from imblearn.over_sampling import RandomOverSampler
from imblearn.pipeline import make_pipeline as make_imblearn_pipeline
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)

import skstack
from skstack import (
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
)
from tests._models import FIT, SMALL, binary, mixed, regression

NETWORK = KerasClassifier(SMALL, early_stopping=False, **FIT)
VALUES = KerasRegressor(SMALL, early_stopping=False, **FIT)
ENCODED = make_column_transformer(
    (OneHotEncoder(), ["job"]), (StandardScaler(), ["a", "b", "c", "d"])
)
WEIGHTED = ColumnTransformer(
    [
        ("words", OneHotEncoder(), ["job"]),
        ("rest", StandardScaler(), ["c"]),
        ("off", StandardScaler(), ["d"]),
    ],
    remainder="passthrough",
    transformer_weights={"words": 0.3, "remainder": -2.5, "off": 0.0, "rest": None},
)

pytestmark = pytest.mark.usefixtures("convert_without_copies")
CASES = {
    "Pipeline": (make_pipeline(StandardScaler(), NETWORK), binary(frame=True)),
    "Pipeline of arrays": (make_pipeline(StandardScaler(), NETWORK), binary()),
    "encoded words": (make_pipeline(ENCODED, NETWORK), mixed()),
    "weights of transformers": (
        make_pipeline(WEIGHTED, clone(NETWORK).set_params(model__scaling=None)),
        mixed(),
    ),
    "words": (make_pipeline("passthrough", NETWORK), mixed()),
    "sampler": (
        make_imblearn_pipeline(RandomOverSampler(random_state=0), NETWORK),
        binary(frame=True),
    ),
    "nested": (make_pipeline(StandardScaler(), make_pipeline(NETWORK)), binary()),
    "features": (
        make_pipeline(StandardScaler(), KerasFeatureTransformer(NETWORK, cv=2)),
        binary(),
    ),
    "regressor": (make_pipeline(StandardScaler(), VALUES), regression(2)),
    "sigmoid": (CalibratedClassifierCV(NETWORK, cv=2), binary(frame=True)),
    "isotonic": (CalibratedClassifierCV(NETWORK, method="isotonic", cv=2), binary()),
    "several classes": (CalibratedClassifierCV(NETWORK, cv=2), mixed()),
    "isotonic, several classes": (
        CalibratedClassifierCV(NETWORK, method="isotonic", cv=2),
        mixed(),
    ),
    "temperature": (CalibratedClassifierCV(NETWORK, method="temperature", cv=2), binary()),
    "temperature, several classes": (
        CalibratedClassifierCV(NETWORK, method="temperature", cv=2),
        mixed(),
    ),
    "one calibration": (CalibratedClassifierCV(NETWORK, cv=2, ensemble=False), binary()),
    "calibrated Pipeline": (
        CalibratedClassifierCV(make_pipeline(StandardScaler(), NETWORK), cv=2),
        binary(),
    ),
    "threshold": (FixedThresholdClassifier(NETWORK, threshold=0.3), binary()),
    "search": (GridSearchCV(NETWORK, {"learning_rate": [1e-2]}, cv=2), binary()),
}


def expected(estimator, X):
    for method in ("predict_proba", "transform", "predict"):
        if hasattr(estimator, method):
            return np.asarray(getattr(estimator, method)(X))


def called(estimator, X):
    """Output of the exported model, called without tracing, which costs half a second."""
    return np.asarray(skstack.to_keras(estimator)(skstack.keras_inputs(estimator, X)))


@pytest.mark.parametrize("case", CASES)
def test_the_model_returns_what_the_estimator_returns(case):
    estimator, (X, y) = CASES[case]
    estimator.fit(X, y)
    model = skstack.to_keras(estimator)
    assert isinstance(model, keras.Model)
    found = np.asarray(model(skstack.keras_inputs(estimator, X)))
    np.testing.assert_allclose(found, expected(estimator, X), atol=2e-6)


IMPUTING = clone(NETWORK).set_params(imputer=SimpleImputer())
MIXED_STEPS = make_column_transformer((StandardScaler(), ["a"]), remainder="passthrough")


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(StandardScaler(), SimpleImputer(), NETWORK),
        make_pipeline(MinMaxScaler(), IMPUTING),
        make_pipeline(MIXED_STEPS, RobustScaler(), SimpleImputer(), NETWORK),
    ],
    ids=["imputer", "network", "columns"],
)
def test_missing_numbers_pass_through_steps_until_they_are_imputed(estimator):
    X, y = binary(frame=True)
    X.loc[::7, "b"] = np.nan
    estimator.fit(X, y)
    found = called(estimator, X)
    np.testing.assert_allclose(found, expected(estimator, X), atol=2e-6)


def test_missing_numbers_that_nothing_imputes_are_refused():
    X, y = binary()
    estimator = make_pipeline(StandardScaler(), NETWORK).fit(X, y)
    X[3, 1] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        skstack.keras_inputs(estimator, X)


def test_a_stack_as_a_step_reads_what_its_blend_does_not_use():
    X, y = mixed()
    stack = StackedKerasClassifier(
        [("used", NETWORK, ["a", "b"]), ("unused", NETWORK, ["c", "job"])],
        downstream=NETWORK,
        passthrough=["d"],
        cv=2,
        random_state=0,
    ).fit(X, y)
    stack.blend_weights_ = {"used": 1.0, "unused": 0.0, "downstream": 0.0}
    assert isinstance(skstack.keras_inputs(stack, X), np.ndarray)  # words are not read
    after = make_pipeline(FrozenEstimator(stack), NETWORK).fit(X, y)
    inputs = skstack.keras_inputs(after, X)
    assert sorted(inputs) == ["job", "numeric"]
    found = np.asarray(skstack.to_keras(after)(inputs))
    np.testing.assert_allclose(found, expected(after, X), atol=2e-6)


def test_categories_that_a_step_made_numbers_are_refused_where_they_pass_through():
    X, y = mixed()
    network = clone(NETWORK).set_params(categorical_features=None)
    features = KerasFeatureTransformer(
        network, cv=2, passthrough=True, categorical_features=["job"]
    )
    X = X.drop(columns="member")
    encoder = make_column_transformer(
        (OrdinalEncoder(), ["job"]), remainder="passthrough", verbose_feature_names_out=False
    )
    estimator = make_pipeline(encoder.set_output(transform="pandas"), features).fit(X, y)
    with pytest.raises(ValueError, match="'job' as categories, but a step before"):
        skstack.to_keras(estimator)


def test_a_frozen_network_that_was_calibrated():
    X, y = binary()
    calibrated = CalibratedClassifierCV(FrozenEstimator(NETWORK.fit(X, y))).fit(X, 1 - y)
    found = called(calibrated, X)
    np.testing.assert_allclose(found, calibrated.predict_proba(X), atol=2e-6)
    assert np.abs(found - NETWORK.predict_proba(X)).max() > 0.01


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_scaler_far_from_zero_computes_as_scikit_learn_does(dtype):
    """It rounds the mean of a float32 table, and not that of a float64 one."""
    days = np.random.default_rng(0).integers(737_000, 737_365, (200, 5)).astype(dtype)
    pipeline = make_pipeline(StandardScaler(), NETWORK).fit(days, days[:, 0] % 7 > 3)
    found = called(pipeline, days)
    np.testing.assert_allclose(found, pipeline.predict_proba(days), atol=2e-6)


@pytest.fixture
def without_writing(monkeypatch):
    """An export makes the model, and an empty folder in place of its trace."""
    monkeypatch.setattr(keras.Model, "export", lambda model, path, **settings: path.mkdir())


STAMPS = 1.7e9 + np.random.default_rng(0).integers(0, 200, (200, 3)).astype(np.float64)


@pytest.mark.parametrize("step", [StandardScaler(), MinMaxScaler(), RobustScaler(), PCA(3)])
def test_a_step_that_needs_float64_is_warned_of(step, tmp_path, without_writing):
    pipeline = make_pipeline(step, NETWORK).fit(STAMPS, STAMPS[:, 0] % 7 > 3)
    message = rf"{type(step).__name__}\(.*\) computes with the columns .*'x2'. in float64"
    with pytest.warns(UserWarning, match=message):
        model = skstack.to_keras(pipeline)
    inputs = skstack.keras_inputs(pipeline, STAMPS)
    assert np.abs(np.asarray(model(inputs)) - pipeline.predict_proba(STAMPS)).max() > 1e-3
    with pytest.warns(UserWarning, match=message) as caught:
        skstack.export(pipeline, tmp_path / "it")
    assert len(caught) == 1


def test_a_stack_that_needs_float64_is_warned_of_in_a_file(tmp_path, without_writing):
    stack = skstack.StackedKerasRegressor(
        [("own", VALUES)], downstream=VALUES, passthrough=True, cv=2, blend=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the branch is a network
        stack.fit(STAMPS, STAMPS[:, 0] % 7)
    with pytest.warns(UserWarning, match="StackedKerasRegressor scales columns or features in flo"):
        skstack.export(stack, tmp_path / "it")


def test_thresholds_that_are_equal_in_float32_are_warned_of(tmp_path):
    pytest.importorskip("onnxruntime")
    rows = STAMPS[:, 0] % 7 > 3
    stack = skstack.StackedKerasClassifier(
        [("trees", HistGradientBoostingClassifier(max_iter=3))],
        downstream=NETWORK, passthrough=False, cv=2,
    ).fit(STAMPS, rows)  # fmt: skip
    with pytest.warns(UserWarning, match=r"Classifier \(the part 'trees'\) compares the columns"):
        skstack.export(stack, tmp_path / "it.onnx", format="onnx")
    near = clone(stack).fit(STAMPS - 1.7e9, rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        skstack.export(near, tmp_path / "it.onnx", format="onnx")


@pytest.mark.parametrize("case", ["encoded words", "isotonic, several classes", "boosting"])
def test_an_onnx_file(case, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    boosting = make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=3))
    estimator, (X, y) = CASES[case] if case in CASES else (boosting, binary())
    estimator.fit(X, y)
    skstack.export(estimator, tmp_path / "it.onnx", format="onnx")
    inputs = skstack.keras_inputs(estimator, X)
    inputs = inputs if isinstance(inputs, dict) else {"features": inputs}
    session = onnxruntime.InferenceSession(tmp_path / "it.onnx")
    (found,) = session.run(None, inputs)
    rows = np.isclose(found, expected(estimator, X), atol=1e-5).all(axis=1)
    # Behind a scaler a training value can lie on the other side of a threshold that equals it.
    assert rows.mean() > (0.9 if case == "boosting" else 0.999)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (make_pipeline(FunctionTransformer(np.sqrt), NETWORK), "FunctionTransformer"),
        (LogisticRegression(), r"LogisticRegression.*network of skstack"),
        (CalibratedClassifierCV(LogisticRegression(), cv=2), "LogisticRegression"),
    ],
)
def test_what_cannot_become_layers_is_refused_by_name(estimator, message):
    X, y = binary()
    estimator.fit(np.abs(X), y)
    with pytest.raises(ValueError, match=message):
        skstack.to_keras(estimator)


def test_calibrated_scores_are_refused(tmp_path):
    pytest.importorskip("skl2onnx")
    calibrated = CalibratedClassifierCV(LogisticRegression(), cv=2).fit(*binary())
    with pytest.raises(ValueError, match=r"of a file: it calibrates .*LogisticReg"):
        skstack.export(calibrated, tmp_path / "it.onnx", format="onnx")
    assert list(tmp_path.iterdir()) == []


def test_unfitted_estimators_are_refused(tmp_path):
    pipeline = make_pipeline(StandardScaler(), clone(NETWORK))
    with pytest.raises(NotFittedError):
        skstack.to_keras(pipeline)
    with pytest.raises(NotFittedError):
        skstack.export(pipeline, tmp_path / "it")


def with_encoder(encoder, values):
    """A fitted Pipeline whose network reads an encoded column, and X."""
    X = pd.DataFrame({"c": pd.Series(values * 20, dtype=object), "z": np.arange(len(values) * 20)})
    y = np.arange(len(X)) % len(values) == 0
    encoded = make_column_transformer((encoder, ["c"]), (StandardScaler(), ["z"]))
    return make_pipeline(encoded, NETWORK).fit(X, y), X


MOSTLY_WORDS = ["a", "a", "b", "b", None, np.nan]


@pytest.mark.parametrize(
    ("encoder", "values"),
    [
        (OneHotEncoder(categories=[[None, "b", "a"]]), ["a", "b", None]),
        (OrdinalEncoder(categories=[[None, "b", "a"]]), ["a", "b", None]),
        (OneHotEncoder(min_frequency=30, handle_unknown="infrequent_if_exist"), MOSTLY_WORDS),
        (OneHotEncoder(handle_unknown="ignore"), [1, 2, None]),
        (OneHotEncoder(handle_unknown="ignore"), [True, False, None]),
    ],
    ids=["None first", "None first, ordinal", "both infrequent", "numbers", "booleans"],
)
def test_encoders_of_missing_values_wherever_they_are(encoder, values):
    pipeline, X = with_encoder(encoder, values)
    found = called(pipeline, X)
    np.testing.assert_allclose(found, pipeline.predict_proba(X), atol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", None, np.nan], "column 'c' holds None and nan as two categories"),
        ([*map(pd.Timestamp, ["2020-01-01", "2021-01-01"])], "column 'c' holds dates"),
        ([pd.Timedelta(1, "D"), pd.Timedelta(2, "D")], "column 'c' holds dates or durations"),
    ],
)
def test_categories_that_inputs_cannot_hold_are_refused(values, message):
    pipeline, X = with_encoder(OneHotEncoder(handle_unknown="ignore"), values)
    with pytest.raises(ValueError, match=rf"OneHotEncoder.* keras.Model: {message}"):
        skstack.to_keras(pipeline)
    if "dates" in message:
        with pytest.raises(ValueError, match=message):
            skstack.keras_inputs(pipeline, X)
