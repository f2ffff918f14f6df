"""ONNX files of stacks with trees and linear models of scikit-learn."""

import sys

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from _models import FIT, SMALL
from numpy.testing import assert_allclose
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LassoCV, LinearRegression, LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.tree import DecisionTreeRegressor

from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack._graph import onnx_parts
from skstack._graph.onnx_parts import float32_at_most
from skstack.networks import Autoencoder

pytestmark = pytest.mark.usefixtures("convert_without_copies")

N_ROWS = 200


def table(gaps=False):
    """Numbers that float32 holds, strings and whole numbers as categories, strings as objects."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "a": rng.normal(size=N_ROWS).astype(np.float32),
            "b": rng.lognormal(size=N_ROWS).astype(np.float32),
            "job": pd.Categorical(rng.choice(["cook", "maid", "pilot", "vet", "zoo"], N_ROWS)),
            "floor": pd.Categorical(rng.integers(0, 6, N_ROWS)),
        }
    )
    signal = X["a"] + 2 * X["job"].isin(["maid", "zoo"]) - X["floor"].isin([1, 4])
    signal += rng.normal(0, 0.3, N_ROWS)
    if gaps:
        # Rows with a gap have another mean, so that trees send them to one side.
        signal[::5] += 3
        X.loc[::5, "a"] = np.nan
        signal[::7] -= 3
        X.loc[::7, "job"] = None
    return X, signal.to_numpy()


def unseen(X):
    """Rows with categories that are not in the training rows, missing ones, and gaps."""
    new = X.head(60).astype({"job": object, "floor": object})
    new.loc[:9, "job"] = "smith"
    new.loc[10:19, "job"] = None
    new.loc[20:29, "floor"] = 77
    new.loc[30:39, "a"] = np.nan
    return new.astype({"job": "category", "floor": "category"})


def classes(signal, n=2):
    edges = np.quantile(signal, [0.4, 0.7][: n - 1])
    return np.array(["low", "mid", "top"])[np.digitize(signal, edges)]


def of_branch(branch, **settings):
    """A stack whose prediction is a linear function of one branch."""
    settings = {"passthrough": False, "scaler": None, "blend": False, "cv": 2, **settings}
    return StackedKerasRegressor([("branch", branch)], downstream=LinearRegression(), **settings)


def of_classes(branches, **settings):
    """A stack of classifiers without a network."""
    settings = {"downstream": LogisticRegression(), "cv": 2, "random_state": 0, **settings}
    return StackedKerasClassifier(branches, **settings)


def by_onnxruntime(estimator, X, path):
    """Output of the file, which is written first if it is not there."""
    if not path.exists():
        estimator.export(path, format="onnx")
    inputs = estimator.keras_inputs(X)
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(None, inputs if isinstance(inputs, dict) else {"features": inputs})
    return found


def assert_same(estimator, tables, path):
    for X in tables:
        method = getattr(estimator, "predict_proba", estimator.predict)
        expected = method(X)
        found = by_onnxruntime(estimator, X, path)
        assert np.ptp(expected) > 1e-2, "a constant would be easy to match"
        scale = np.abs(expected).max()
        assert_allclose(found.reshape(expected.shape) / scale, expected / scale, atol=1e-5)


# HistGradientBoosting ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss", ["squared_error", "absolute_error", "quantile", "gamma", "poisson"]
)
def test_the_link_of_each_loss(loss, tmp_path):
    X, signal = table()
    trees = HistGradientBoostingRegressor(loss=loss, quantile=0.7, max_iter=3)
    fitted = of_branch(trees).fit(X[["a", "b"]], np.exp(signal))
    assert_same(fitted, [X[["a", "b"]]], tmp_path / "it.onnx")


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_numbers_categories_and_missing_values(n_classes, tmp_path):
    X, signal = table(gaps=True)
    trees = HistGradientBoostingClassifier(max_iter=4, min_samples_leaf=5)
    stack = of_classes([("trees", trees)], passthrough=False, blend=False)
    fitted = stack.fit(X, classes(signal, n_classes))
    grown = fitted.upstream_[0][1]._upstreams[0].view.estimator
    nodes = np.concatenate([tree.nodes for each in grown._predictors for tree in each])
    splits = nodes[nodes["is_leaf"] == 0]
    for kind in (0, 1):  # numbers, categories
        sides = splits["missing_go_to_left"][splits["is_categorical"] == kind]
        assert set(sides) == {0, 1}, "the rows must need both sides"
    assert_same(fitted, [X, unseen(X)], tmp_path / "it.onnx")


@pytest.mark.slow
def test_columns_of_an_array_are_categories_by_index(tmp_path):
    X, signal = table()
    array = np.column_stack([X["a"], X["floor"].astype(float) * 3 - 4, X["b"]])
    trees = HistGradientBoostingRegressor(max_iter=3, categorical_features=[1])
    fitted = of_branch(trees).fit(array, signal)
    new = array[:50].copy()
    new[:10, 1] = 0.5
    new[10:20] = np.nan
    assert_same(fitted, [array, new], tmp_path / "it.onnx")


@pytest.mark.slow
def test_columns_of_bools_are_numbers_of_one_part_and_categories_of_another(tmp_path):
    X, signal = table()
    X = X[["a"]].assign(flag=X["job"].isin(["maid", "zoo"]))
    trees = HistGradientBoostingClassifier(max_iter=2)
    for branch in (trees, KerasClassifier(SMALL, **FIT)):
        stack = of_classes([("branch", branch)], blend=False)
        assert_same(stack.fit(X, classes(signal)), [X], tmp_path / f"{type(branch).__name__}.onnx")


def test_a_stump_without_a_split(tmp_path):
    X, signal = table()
    trees = HistGradientBoostingRegressor(max_iter=2, min_samples_leaf=N_ROWS)
    stack = StackedKerasRegressor(
        [("none", trees), ("line", Ridge())], downstream=LinearRegression(), blend=False, cv=2
    )
    assert_same(stack.fit(X[["a", "b"]], signal), [X[["a", "b"]]], tmp_path / "it.onnx")


def test_rounded_thresholds_split_float32_as_before():
    rng = np.random.default_rng(0)
    thresholds = [*rng.normal(size=500), 0.1, -0.1, 1.0, 1e300, -1e300, np.inf, 1e-320, -1e-320]
    for threshold in thresholds:
        with np.errstate(over="ignore"):
            middle = np.float32(threshold)
        around = [np.nextafter(middle, np.float32(end)) for end in (-np.inf, np.inf)]
        for x in (*around, middle):
            assert (x <= np.float32(float32_at_most(threshold))) == (float(x) <= threshold)


def test_trees_behind_a_network_read_what_it_computes(tmp_path):
    X, signal = table()
    stack = StackedKerasClassifier(
        [("risk", KerasClassifier(SMALL, **FIT), ["a", "b"])],
        downstream=HistGradientBoostingClassifier(max_iter=3),
        blend=False,
        scaler=None,
        cv=2,
        random_state=0,
    )
    fitted = stack.fit(X, classes(signal))
    new = unseen(X).fillna({"a": 0.0})
    new[["a", "b"]] *= np.float32(0.9)  # not at a threshold, which is a training row
    found = by_onnxruntime(fitted, new, tmp_path / "it.onnx")
    assert_allclose(found, fitted.predict_proba(new), atol=1e-5)


# Forests and linear models ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "regressor",
    [
        RandomForestRegressor(3, random_state=0),
        ExtraTreesRegressor(3, random_state=0),
        DecisionTreeRegressor(random_state=0),
        GradientBoostingRegressor(n_estimators=3),
        LassoCV(cv=2),
    ],
    ids=lambda regressor: type(regressor).__name__,
)
def test_regressors(regressor, tmp_path):
    X, signal = table()
    fitted = of_branch(regressor).fit(X[["a", "b"]], signal)
    assert_same(fitted, [X[["a", "b"]]], tmp_path / "it.onnx")


def test_forests_and_linear_models_of_several_targets(tmp_path):
    X, signal = table()
    stack = StackedKerasRegressor(
        [("forest", RandomForestRegressor(3, random_state=0)), ("line", Ridge())],
        downstream=LinearRegression(),
        blend=False,
        cv=2,
    )
    fitted = stack.fit(X[["a", "b"]], np.column_stack([signal, X["b"]]))
    assert_same(fitted, [X[["a", "b"]]], tmp_path / "it.onnx")


def test_missing_values_in_forests(tmp_path):
    X, signal = table(gaps=True)
    forest = RandomForestRegressor(3, random_state=0)
    fitted = of_branch(forest).fit(X[["a", "b"]], signal)
    assert_same(fitted, [X[["a", "b"]]], tmp_path / "it.onnx")


def test_the_blend_and_its_temperature_are_in_the_file(tmp_path):
    X, signal = table()
    branches = [
        ("trees", HistGradientBoostingClassifier(max_iter=3)),
        ("forest", RandomForestClassifier(5, max_depth=3, random_state=0), ["a", "b"]),
        ("line", GradientBoostingClassifier(n_estimators=2), ["a", "b"]),
    ]
    stack = of_classes(branches, blend=True, calibration="temperature", passthrough=False)
    fitted = stack.fit(X, classes(signal, 3))
    # As if these had been learned: each part and the temperature take part.
    fitted.blend_weights_ = {"trees": 0.4, "forest": 0.3, "line": 0.2, "downstream": 0.1}
    fitted.temperature_ = 1.7
    assert_same(fitted, [X], tmp_path / "it.onnx")


def test_networks_and_trees_in_one_file(tmp_path):
    X, signal = table()
    error = KerasFeatureTransformer(
        KerasAutoencoder(Autoencoder((4,)), **FIT), features="reconstruction_error"
    )
    branches = [
        ("anomaly", error, ["a", "b"]),
        ("network", KerasClassifier(SMALL, **FIT)),
        ("trees", HistGradientBoostingClassifier(max_iter=3)),
    ]
    stack = of_classes(
        branches, downstream=KerasClassifier(SMALL, **FIT), blend=False, passthrough=False
    )
    fitted = stack.fit(X, classes(signal))
    assert_same(fitted, [X], tmp_path / "it.onnx")


def test_the_mean_of_fold_models(tmp_path):
    X, signal = table()
    stack = of_branch(HistGradientBoostingRegressor(max_iter=2), refit=False)
    assert_same(stack.fit(X, signal), [X, unseen(X)], tmp_path / "it.onnx")


# Pipelines ----------------------------------------------------------------------------------------


def as_text(X):
    return X.astype({"job": object, "floor": int})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*Found unknown categories:UserWarning")
@pytest.mark.parametrize(
    "encoder",
    [
        OneHotEncoder(handle_unknown="ignore", drop="first"),
        OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=3),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-2),
    ],
    ids=["drop", "infrequent", "ordinal"],
)
def test_encoders_and_columns_before_an_estimator(encoder, tmp_path):
    X, signal = table()
    X = as_text(X)
    X.loc[::9, "a"] = np.nan
    columns = make_column_transformer(
        (encoder, ["job", "floor"]),
        (make_pipeline(SimpleImputer(), StandardScaler()), ["a"]),
        ("passthrough", [1]),
    )
    new = X.head(40).copy()
    new.loc[:9, "job"], new.loc[10:19, "floor"], new.loc[20:29, "job"] = "smith", 77, None
    branches = [
        ("line", make_pipeline(columns, LogisticRegression())),
        ("forest", make_pipeline(columns, ExtraTreesClassifier(3, random_state=0))),
    ]
    fitted = of_classes(branches, passthrough=False, blend=False).fit(X, classes(signal))
    assert_same(fitted, [X, new], tmp_path / "it.onnx")


def test_columns_before_a_network_become_layers():
    X, signal = table()
    columns = make_column_transformer((OneHotEncoder(), ["job"]), remainder="drop")
    pipeline = make_pipeline(columns, KerasClassifier(SMALL, **FIT))
    network = KerasClassifier(SMALL, **FIT)
    stack = of_classes([("risk", pipeline)], downstream=network, passthrough=False, blend=False)
    fitted = stack.fit(as_text(X), classes(signal))
    found = fitted.to_keras()(fitted.keras_inputs(as_text(X)))
    assert_allclose(found, fitted.predict_proba(as_text(X)), atol=1e-5)


# What cannot be ----------------------------------------------------------------------------------


def test_other_estimators_are_refused_by_name(tmp_path):
    X, signal = table()
    X, y = X[["a", "b"]], classes(signal)
    near = KNeighborsClassifier()
    for stack in (
        of_classes([("near", near)], blend=False),
        of_classes([("line", LogisticRegression())], downstream=near, blend=False),
    ):
        with pytest.raises(
            ValueError, match=r"KNeighborsClassifier \(the part .*HistGradientBoostingClassifier"
        ):
            stack.fit(X, y).export(tmp_path / "it.onnx", format="onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["saved_model", "litert"])
def test_trees_are_only_in_onnx_files(format, tmp_path):
    X, signal = table()
    fitted = of_branch(HistGradientBoostingRegressor(max_iter=1)).fit(X, signal)
    with pytest.raises(ValueError, match=r"'branch'.*export\(format='onnx'\)"):
        fitted.export(tmp_path / "it", format=format)


def test_a_part_that_computes_anything_else_is_refused_by_name(tmp_path, monkeypatch):
    X, signal = table()
    fitted = of_branch(HistGradientBoostingRegressor(max_iter=2)).fit(X, signal)
    # Nodes that send rows at a threshold to the other side.
    written = onnx_parts.float32_at_most
    monkeypatch.setattr(
        onnx_parts,
        "float32_at_most",
        lambda value: float(np.nextafter(np.float32(written(value)), np.float32(-np.inf))),
    )
    with pytest.raises(ValueError, match=r"HistGradientBoostingRegressor.*'branch'.*float32"):
        fitted.export(tmp_path / "it.onnx", format="onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_the_runtime_cannot_run_is_refused_by_name(tmp_path):
    X, signal = table()
    X, y = X[["a", "b"]], np.digitize(signal, np.quantile(signal, [0.3, 0.6]))
    boosting = GradientBoostingClassifier(n_estimators=2, init="zero")
    fitted = of_classes([("trees", boosting)], blend=False).fit(X, y)
    with pytest.raises(ValueError, match=r"GradientBoostingClassifier.*'trees'.*onnxruntime"):
        fitted.export(tmp_path / "it.onnx", format="onnx")


def test_categories_that_float32_cannot_hold_are_refused(tmp_path):
    X, signal = table()
    array = np.column_stack([X["a"], X["floor"].astype(float) + 2.0**30])
    trees = HistGradientBoostingRegressor(max_iter=1, categorical_features=[1])
    with pytest.raises(ValueError, match=r"float32 cannot hold its categories"):
        of_branch(trees).fit(array, signal).export(tmp_path / "it.onnx", format="onnx")


def test_a_missing_converter_is_named_with_its_extra(tmp_path, monkeypatch):
    X, signal = table()
    fitted = of_branch(Ridge()).fit(X[["a", "b"]], signal)
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    with pytest.raises(ImportError, match=r"skl2onnx.*skstack\[onnx\]"):
        fitted.export(tmp_path / "it.onnx", format="onnx")
