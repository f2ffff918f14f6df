"""`save` and `load`: one file without pickle; what was cut, altered or made to run code."""

import functools
import hashlib
import importlib
import io
import json
import os
import pickle
import sys
import zipfile

import joblib
import keras
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from _fresh import run
from _models import SMALL
from imblearn.over_sampling import SMOTE, SMOTENC
from imblearn.pipeline import make_pipeline as make_imblearn_pipeline
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier
from sklearn.feature_selection import SelectFromModel
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    RandomizedSearchCV,
    StratifiedKFold,
    TimeSeriesSplit,
    TunedThresholdClassifierCV,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, RobustScaler, StandardScaler

import skstack
from skstack import (
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack._persistence.file import PROTOCOL
from skstack._persistence.writing import Writer
from skstack.networks import MLP, Autoencoder, recipe
from skstack.preprocessing import open_table

X, y = load_breast_cancer(return_X_y=True)
X, y = X[:120, :6].astype(np.float32), y[:120]
pytestmark = pytest.mark.filterwarnings("ignore:cv=TimeSeriesSplit.* is time-ordered")
QUICK = {"epochs": 1, "random_state": 0}
AUTOENCODER = KerasAutoencoder(Autoencoder((4,)), **QUICK)

PARTS = """
import keras
from skstack.networks import recipe

print("imported", __name__)


@recipe
def wide(spec, *, hidden=4):
    inputs = spec.inputs()
    x = Doubled()(keras.layers.Dense(hidden, activation=bent)(spec.join(inputs)))
    return keras.Model(inputs, spec.outputs(x))


def bent(x):
    return keras.ops.tanh(x) * 2


def builder(meta, hidden=4):
    network = keras.Sequential([keras.Input((meta["n_features_in_"],)), keras.layers.Dense(1)])
    network.compile(loss="binary_crossentropy")
    return network


class Doubled(keras.layers.Layer):
    def call(self, x):
        return x * 2


class Squared(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)


class Power(keras.losses.Loss):  # whose get_config does not say its power
    def __init__(self, power=2.0, **settings):
        super().__init__(**settings)
        self.power = power

    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.abs(y_true - y_pred) ** self.power, axis=-1)


class Note(keras.callbacks.Callback):
    def __init__(self, words):
        super().__init__()
        self.words = words


def plus_one(table):
    return table + 1
"""


def model(*, outputs=1, activation="sigmoid", dropout=0.0):
    network = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(4, name="enc"),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(outputs, activation=activation),
        ]
    )
    network.compile(keras.optimizers.SGD(0.125), loss="binary_focal_crossentropy")
    return network


def again(estimator, folder, **kwargs):
    """The estimator after the way through a file."""
    path = folder / "estimator.skstack"
    skstack.save(estimator, path)
    return skstack.load(path, **kwargs)


def same(left, right):
    """Whether two parameters or attributes are the same, bit for bit."""
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        pairs = zip(left, right, strict=True)
        return type(left) is type(right) and all(same(*pair) for pair in pairs)
    if isinstance(left, keras.Model):
        pairs = zip(left.variables, right.variables, strict=True)
        return all(np.array_equal(a.numpy(), b.numpy()) for a, b in pairs)
    if hasattr(left, "get_params"):
        return same(left.get_params(deep=False), right.get_params(deep=False))
    if isinstance(left, np.random.RandomState):
        return same(left.get_state(), right.get_state())
    if hasattr(left, "get_config"):
        return type(left) is type(right) and repr(left.get_config()) == repr(right.get_config())
    if hasattr(left, "__dict__"):
        return type(left) is type(right) and same(vars(left), vars(right))
    return type(left) is type(right) and (left == right or left != left)


FRAME = pd.DataFrame(
    {
        "age": X[:, 0],
        "job": pd.Categorical(np.where(X[:, 1] > 18, "cook", "vet")),
        "rank": pd.array(y % 3, dtype="Int64"),
        "member": X[:, 2] > 80,
        "town": np.where(X[:, 3] > 500, "Ulm", None),
    }
)
WORDS = np.where(y == 1, "yes", "no")


def estimators(folder):
    """Name -> estimator, rows, targets, method."""
    path = str(folder / "legacy.keras")
    model().save(path)
    quick = KerasClassifier(SMALL, **QUICK)
    numbers = KerasRegressor(SMALL, **QUICK)
    dates = np.array(["2020-01-01", "2021-01-01"], dtype="datetime64[D]")[y]
    return {
        "classifier": (
            KerasClassifier(
                MLP((8,), dropout=0.2), class_weight={0: 1.0, 1: np.float32(2)}, metrics=["AUC"],
                optimizer=keras.optimizers.Adam(
                    keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9)
                ),
                callbacks=[keras.callbacks.EarlyStopping(monitor="loss", patience=3)],
                loss=keras.losses.BinaryFocalCrossentropy(), early_stopping=True, **QUICK,
            ),
            X, y, "predict_proba",
        ),
        "words": (clone(quick).set_params(sampler=SMOTE(random_state=0)), X, WORDS, "predict"),
        "dates": (quick, X, dates, "predict"),
        "frame": (quick, FRAME, WORDS.astype(object), "predict"),
        "nominal sampler": (
            clone(quick).set_params(sampler=SMOTENC("auto", random_state=0)), FRAME, y, "predict"
        ),
        "polars": (quick, pl.from_pandas(FRAME.drop(columns="job")), y, "predict_proba"),
        "multilabel": (quick, X, np.column_stack([y, np.arange(len(y)) % 2]), "predict_proba"),
        "categories only": (quick, FRAME[["job", "town"]], y, "predict_proba"),
        "regressor": (
            KerasRegressor(MLP((4,), activation=keras.ops.tanh), 
                metrics=[keras.losses.mean_absolute_error], **QUICK),
            X, np.column_stack([X[:, 0], X[:, 1]]), "predict",
        ),
        "autoencoder": (
            KerasAutoencoder(Autoencoder((4,), noise=0.1), **QUICK), X, None, "reconstruction_error"
        ),
        "given model": (
            KerasClassifier(model(dropout=0.3), optimizer="auto", **QUICK), X, y, "predict_proba"
        ),
        "template": (
            KerasClassifier(keras.Sequential([keras.layers.Dense(3), keras.layers.Dense(1)]),
                            **QUICK),
            X, y, "predict_proba",
        ),
        "given path": (KerasClassifier(path, **QUICK), X, y, "predict_proba"),
        "trained features": (
            KerasFeatureTransformer(
                quick, layers=["output"], features=["outputs", "entropy"],
                cv=StratifiedKFold(2, shuffle=True, random_state=np.random.RandomState(3)),
                refit=False, random_state=0,
            ),
            X, y, "transform",
        ),
        "frozen features": (
            KerasFeatureTransformer(model(outputs=2), layers="enc", passthrough=True), X, None,
            "transform",
        ),
        "frozen estimator": (
            KerasFeatureTransformer(FrozenEstimator(clone(quick).fit(X, y))), X, y, "transform"
        ),
        "features of others": (
            KerasFeatureTransformer(LogisticRegression(max_iter=2000), cv=[
                (np.arange(60), np.arange(60, 120)), (np.arange(60, 120), np.arange(60))
            ]),
            X, y, "transform",
        ),
        "stack": (
            StackedKerasClassifier(
                [
                    ("risk", quick, make_column_selector("age")),
                    ("legacy", path, slice(0, 6)),
                    ("latent", KerasFeatureTransformer(AUTOENCODER, cv=2), [0, 1]),
                    ("scaled", make_pipeline(StandardScaler(), quick), [2, 3]),
                    ("none", "drop"),
                ],
                downstream=LogisticRegression(), scaler=RobustScaler(), cv=2, random_state=0,
                sampler=SMOTE(random_state=0), prior_correction=True,
            ),
            pd.DataFrame(X, columns=["age", *"bcdef"]), WORDS, "predict_proba",
        ),
        "stacked regressor": (
            StackedKerasRegressor(
                numbers, downstream=numbers, blend=False, cv=TimeSeriesSplit(2), random_state=0
            ),
            X, X[:, 0], "predict",
        ),
        "pipeline": (
            make_pipeline(StandardScaler(), KerasFeatureTransformer(AUTOENCODER),
                          LogisticRegression()),
            X, y, "predict_proba",
        ),
        "imblearn pipeline": (
            make_imblearn_pipeline(RobustScaler(), SMOTE(random_state=0), quick),
            X, WORDS, "predict",
        ),
        "column transformer": (
            ColumnTransformer(
                [
                    ("net", KerasFeatureTransformer(AUTOENCODER), ["age", "rank"]),
                    ("log", FunctionTransformer(np.log1p), make_column_selector("age")),
                ],
                remainder="drop",
            ),
            FRAME, None, "transform",
        ),
        "search": (
            GridSearchCV(quick, {"model": [SMALL, MLP((5,))]}, cv=2), X, y,
            "predict_proba",
        ),
        "random search": (
            RandomizedSearchCV(
                make_pipeline(StandardScaler(), quick),
                {"kerasclassifier__learning_rate": [1e-3, 1e-2]}, n_iter=1, cv=2, random_state=0,
                scoring=["average_precision", "accuracy"], refit="accuracy",
            ),
            X, y, "predict_proba",
        ),
        "calibrated": (
            CalibratedClassifierCV(quick, cv=2, ensemble=False), X, y, "predict_proba"
        ),
        "voting": (
            VotingClassifier([("a", quick), ("b", LogisticRegression(max_iter=2000))],
                             voting="soft"),
            X, WORDS, "predict_proba",
        ),
        "tuned": (
            TunedThresholdClassifierCV(quick, cv=2), X, y, "predict"
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Name -> fitted estimator, rows, method."""
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for name, (estimator, rows, targets, method) in estimators(folder).items():
        estimator = clone(estimator)
        found[name] = estimator.fit(rows) if targets is None else estimator.fit(rows, targets)
        found[name] = found[name], rows, method
    (folder / "legacy.keras").unlink()  # the machine that loads has no such file
    return found


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """A module of a user's, with all that networks may be made of."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "my_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module("my_parts")
    del sys.modules["my_parts"]


# There and back ----------------------------------------------------------------------------------


def test_unfitted_estimators_are_restored_with_the_same_parameters(tmp_path):
    for name, (estimator, *_) in estimators(tmp_path).items():
        assert same(estimator, again(estimator, tmp_path)), name


def test_fitted_estimators_are_restored_with_the_same_attributes_and_outputs(
    fitted, tmp_path, monkeypatch
):
    writers = []

    class Kept(Writer):
        def __init__(self):
            super().__init__()
            writers.append(self)

    monkeypatch.setattr("skstack._persistence.file.Writer", Kept)
    for name, (estimator, rows, method) in fitted.items():
        loaded = again(estimator, tmp_path)
        known = writers.pop().named == {}
        assert known, "put the class's module into skstack/_persistence/known.py"
        expected = getattr(estimator, method)(rows)
        np.testing.assert_array_equal(getattr(loaded, method)(rows), expected, err_msg=name)
        assert same(estimator, loaded), name
        kept = {key: value for key, value in vars(estimator).items() if key[-1] == "_"}
        plain = ("classes_", "feature_names_in_", "n_features_in_", "history_", "loss_curve_",
                 "validation_scores_", "n_iter_", "target_scale_", "prior_ratio_")  # fmt: skip
        for key in kept.keys() & set(plain):
            assert same(kept[key], getattr(loaded, key)), (name, key)
        if "cv_results_" in kept:
            assert repr(loaded.cv_results_) == repr(estimator.cv_results_), name
        assert kept.keys() == {key for key in vars(loaded) if key[-1] == "_"}, name


FRESH = """
import sys, warnings
warnings.simplefilter("error", UserWarning)
import joblib, numpy as np, skstack
for path in sys.argv[1:]:
    rows, method, expected = joblib.load(path + ".joblib")
    given = getattr(skstack.load(path), method)(rows)
    np.testing.assert_array_equal(np.asarray(given), np.asarray(expected), err_msg=path)
print("same bits", len(sys.argv) - 1)
"""


@pytest.mark.slow
def test_a_fresh_process_predicts_the_same_bits(fitted, tmp_path):
    paths = []
    for name, (estimator, rows, method) in fitted.items():
        paths.append(tmp_path / f"{name}.skstack")
        skstack.save(estimator, paths[-1])
        estimator = skstack.load(paths[-1])
        joblib.dump((rows, method, getattr(estimator, method)(rows)), f"{paths[-1]}.joblib")
    assert f"same bits {len(paths)}" in run(FRESH, *paths)


@pytest.mark.slow
def test_a_stack_trained_on_bank_marketing_predicts_the_same_in_a_fresh_process(
    shared_data, tmp_path
):
    table = shared_data("bank_full")
    target = table.columns[-1]
    train, test = table[:2000], table[2000:4000]
    stack = StackedKerasClassifier(
        [
            ("anomaly", KerasFeatureTransformer(
                KerasAutoencoder(epochs=2), features=["outputs", "reconstruction_error"])),
            ("risk", KerasClassifier(MLP((16,), dropout=0.1), epochs=2)),
        ],
        downstream=KerasClassifier(MLP((16,)), epochs=2, early_stopping=True),
        sampler=SMOTENC("auto", random_state=0), cv=2, random_state=0,
    )  # fmt: skip
    stack.fit(train.drop(columns=target), train[target])
    path, rows = tmp_path / "bank.skstack", test.drop(columns=target)
    skstack.save(stack, path)
    joblib.dump((rows, "predict_proba", stack.predict_proba(rows)), f"{path}.joblib")
    assert "same bits 1" in run(FRESH, path)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_training_continues_after_loading(tmp_path, dropout):
    classifier = KerasClassifier(MLP((4,), dropout=dropout), warm_start=True, **QUICK).fit(X, y)
    loaded = again(classifier, tmp_path)
    expected = classifier.fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(loaded.fit(X, y).predict_proba(X), expected)
    fresh = clone(loaded).set_params(warm_start=False).fit(X, y).predict_proba(X)
    assert (fresh != expected).any()


def test_a_loaded_estimator_is_cloned_and_fitted_like_the_one_that_was_saved(fitted, tmp_path):
    for name in ("classifier", "given model", "template", "stacked regressor"):
        estimator, rows, method = fitted[name]
        targets = rows[:, 0] if name == "stacked regressor" else y
        expected = getattr(clone(estimator).fit(rows, targets), method)(rows)
        loaded = clone(again(estimator, tmp_path)).fit(rows, targets)
        np.testing.assert_array_equal(getattr(loaded, method)(rows), expected, err_msg=name)


def test_shared_objects_are_shared_after_loading(fitted, tmp_path):
    stack = again(fitted["stack"][0], tmp_path)
    assert stack.scaler_ is stack._scaling.scaler_
    assert stack.named_upstream_.risk is stack.upstream_[0][1]
    shared = model()
    pair = StackedKerasClassifier([("a", shared), ("b", shared)])
    loaded = again(pair, tmp_path)
    assert loaded.upstream[0][1] is loaded.upstream[1][1]


def test_a_search_on_listed_folds_needs_no_trust(tmp_path):
    search = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1e-3]}, cv=2)
    stack = StackedKerasClassifier(search, downstream=GaussianNB(), cv=2, random_state=0)
    stack.fit(X, y, groups=np.arange(len(X)) // 2)  # which become folds of the search
    loaded = again(stack, tmp_path)
    np.testing.assert_array_equal(loaded.predict_proba(X), stack.predict_proba(X))


def test_fitted_samplers_are_stored_without_training_rows(fitted, tmp_path):
    classifier = fitted["words"][0]
    assert hasattr(classifier.sampler_, "nn_k_")
    sampler = again(classifier, tmp_path).sampler_
    assert sampler.sampling_strategy_ == classifier.sampler_.sampling_strategy_
    assert not hasattr(sampler, "nn_k_")
    assert hasattr(classifier.sampler_, "nn_k_")


def test_output_settings_and_metadata_requests_are_restored(tmp_path):
    with sklearn.config_context(enable_metadata_routing=True):
        transformer = KerasFeatureTransformer(clone(AUTOENCODER)).set_output(transform="pandas")
        transformer.model.set_fit_request(sample_weight=True)
        loaded = again(transformer.fit(X), tmp_path)
        assert isinstance(loaded.transform(X), pd.DataFrame)
        assert repr(loaded.get_metadata_routing()) == repr(transformer.get_metadata_routing())
        assert loaded.model.get_metadata_routing().fit.requests["sample_weight"] is True


def test_a_compiled_model_keeps_its_loss_and_optimizer(tmp_path):
    classifier = KerasClassifier(model(), optimizer="auto", **QUICK)
    loaded = again(classifier, tmp_path).model
    assert loaded.loss == "binary_focal_crossentropy"
    assert isinstance(loaded.optimizer, keras.optimizers.SGD)
    assert float(loaded.optimizer.learning_rate) == 0.125


def test_a_folder_of_pickles_is_not_stored(tmp_path):
    memory = joblib.Memory(tmp_path / "cache", verbose=0)
    transformer = KerasFeatureTransformer(AUTOENCODER, memory=memory)
    pipeline = Pipeline([("net", transformer)], memory=str(tmp_path / "cache"))
    loaded = again(pipeline, tmp_path)
    assert loaded.memory is None
    assert loaded["net"].memory is None
    assert pipeline.memory is not None
    assert transformer.memory is memory


def test_networks_can_be_opened_by_hand(fitted, tmp_path):
    skstack.save(fitted["frame"][0], tmp_path / "a.skstack")
    with zipfile.ZipFile(tmp_path / "a.skstack") as archive:
        (name,) = [each for each in archive.namelist() if each.endswith(".keras")]
        (tmp_path / "network.keras").write_bytes(archive.read(name))
    network = keras.models.load_model(tmp_path / "network.keras")
    assert same(network.weights[0].numpy(), fitted["frame"][0].model_.weights[0].numpy())


# Code of others ----------------------------------------------------------------------------------


def test_a_custom_recipe_is_restored_if_trusted(parts, tmp_path):
    classifier = KerasClassifier(parts.wide(hidden=3), **QUICK).fit(X, y)
    path = tmp_path / "a.skstack"
    skstack.save(classifier, path)
    named = ["my_parts.Doubled", "my_parts.bent", "my_parts.wide"]
    with pytest.raises(ValueError, match="import their modules and pass trusted") as told:
        skstack.load(path)
    assert str(named) in str(told.value)
    for trusted in (named, [parts.Doubled, parts.bent, parts.wide], {parts.wide, *named[:2]}):
        loaded = skstack.load(path, trusted=trusted)
        np.testing.assert_array_equal(loaded.predict_proba(X), classifier.predict_proba(X))
        assert loaded.get_params()["model__hidden"] == 3
    joblib.dump((X, "predict_proba", classifier.predict_proba(X)), f"{path}.joblib")
    code = FRESH.replace("load(path)", f"load(path, trusted={named})")
    refused = f"""
import sys, skstack
sys.path.insert(0, {os.path.dirname(parts.__file__)!r})
try:
    skstack.load(sys.argv[1], trusted={named})
except ValueError as error:
    print(error)
import my_parts
"""
    message, imported, same_bits = run(refused + code, path).rpartition("imported my_parts")
    assert "loading imports nothing: import it first" in message
    assert imported
    assert "same bits 1" in same_bits


def users_own(parts):
    network = keras.Sequential([keras.Input((6,)), parts.Doubled(), keras.layers.Dense(1)])
    network.compile(loss=parts.Squared())
    quick = KerasClassifier(**QUICK)
    return {
        "loss": (clone(quick).set_params(loss=parts.Squared()), ["Squared"]),
        "loss function": (clone(quick).set_params(loss=parts.bent), ["bent"]),
        "callback": (clone(quick).set_params(callbacks=[parts.Note("a word")]), ["Note"]),
        "model": (clone(quick).set_params(model=network), ["Doubled", "Squared"]),
        "function in a part": (
            make_pipeline(FunctionTransformer(parts.plus_one), quick), ["plus_one"]
        ),
        "selector": (
            StackedKerasClassifier([("a", KerasClassifier(), parts.plus_one)]), ["plus_one"]
        ),
    }  # fmt: skip


def test_custom_parts_are_restored_if_trusted(parts, tmp_path):
    path = tmp_path / "a.skstack"
    for name, (estimator, needed) in users_own(parts).items():
        skstack.save(estimator, path)
        needed = [f"my_parts.{each}" for each in needed]
        for trusted in ([], needed[1:], ["my_parts.wide"]):
            with pytest.raises(ValueError, match="my_parts"):
                skstack.load(path, trusted=trusted)
        loaded = skstack.load(path, trusted=needed)
        assert same(estimator, loaded), name


def test_a_function_from_scikeras_is_restored_if_trusted(parts, tmp_path):
    from scikeras.wrappers import KerasClassifier as Theirs

    classifier = skstack.from_scikeras(Theirs(parts.builder, epochs=1, random_state=0)).fit(X, y)
    with pytest.raises(ValueError, match=r"\['my_parts.builder'\]"):
        again(classifier, tmp_path)
    loaded = again(classifier, tmp_path, trusted=[parts.builder])
    np.testing.assert_array_equal(loaded.predict_proba(X), classifier.predict_proba(X))


def test_trees_are_restored_if_trusted(tmp_path):
    stack = StackedKerasClassifier(
        KerasClassifier(SMALL, **QUICK),
        downstream=HistGradientBoostingClassifier(max_iter=3),
        cv=2,
    ).fit(X, y)
    name = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
    with pytest.raises(ValueError, match=rf"{name}.*crash the process"):
        again(stack, tmp_path)
    loaded = again(stack, tmp_path, trusted=[name])
    np.testing.assert_array_equal(loaded.predict_proba(X), stack.predict_proba(X))


@pytest.mark.parametrize("trusted", ["my_parts.wide", True, None, [3], [np.sin]])
def test_trusted_is_a_list_of_names_classes_and_functions(tmp_path, trusted):
    with pytest.raises(TypeError, match=r"trusted=.* must be a list"):
        again(KerasClassifier(), tmp_path, trusted=trusted)


# What cannot be saved, and files that appear whole or not at all ----------------------------------


def unsavable():
    quick = KerasClassifier(**QUICK)
    inputs = keras.Input((6,))
    outputs = keras.layers.Dense(1)(keras.layers.Lambda(lambda x: x * 2)(inputs))
    with_lambda = keras.Model(inputs, outputs)
    return {
        r"model.activation = <function": KerasClassifier(MLP(activation=lambda x: x)),
        r"KerasClassifier.model = .*holds a lambda": KerasClassifier(with_lambda),
        r"upstream\[0\]\[2\] = <function.*only named functions": StackedKerasClassifier(
            [("a", quick, lambda table: [0])]
        ),
        r"cv = <generator object": KerasFeatureTransformer(quick, cv=(each for each in ())),
        r"callbacks\[0\].*EarlyStopping, ReduceLROnPlateau": KerasClassifier(
            callbacks=[keras.callbacks.CSVLogger("log.csv")]
        ),
        r"holds a skstack.*meta-estimators that save supports; save what it holds": SelectFromModel(
            quick
        ),
        r"categorical_features = Index.*pass list\(\.\.\.\) of it": KerasClassifier(
            categorical_features=pd.Index(["a"])
        ),
        r"KerasClassifier.verbose = .*without pickle": KerasClassifier(verbose=io.BytesIO()),
    }


def test_objects_that_cannot_be_loaded_are_refused_by_save(tmp_path):
    for message, estimator in unsavable().items():
        with pytest.raises(ValueError, match=message):
            skstack.save(estimator, tmp_path / "a.skstack")
        assert os.listdir(tmp_path) == []


def test_a_loss_that_would_be_another_one_is_refused_by_save(parts, tmp_path):
    compiled = model()
    compiled.compile(loss=parts.Power(1.5))
    in_list = KerasClassifier(metrics=[parts.Power(1.5)])
    for lossy in (KerasClassifier(loss=parts.Power(1.5)), KerasClassifier(compiled), in_list):
        with pytest.raises(ValueError, match="the get_config of Power lacks power, which would be"):
            skstack.save(lossy, tmp_path / "a.skstack")
    for power in (2.0, 2):
        loaded = again(KerasClassifier(loss=parts.Power(power)), tmp_path, trusted=[parts.Power])
        assert loaded.loss.power == power


@pytest.mark.parametrize("thing", [None, KerasClassifier, "a.skstack", MLP])
def test_only_estimators_are_saved(tmp_path, thing):
    with pytest.raises(TypeError, match="must be an estimator"):
        skstack.save(thing, tmp_path / "a.skstack")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_file_is_written_atomically(tmp_path, monkeypatch, step):
    path = tmp_path / "a.skstack"
    skstack.save(KerasClassifier(epochs=3), path)
    before = path.read_bytes()

    def full(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, step, full)
        with pytest.raises(OSError, match="No space left"):
            skstack.save(KerasClassifier(epochs=4), path)
    assert os.listdir(tmp_path) == ["a.skstack"]
    assert path.read_bytes() == before
    skstack.save(KerasClassifier(epochs=4), str(path))
    assert skstack.load(str(path)).epochs == 4


def test_what_is_no_path_is_refused(tmp_path):
    """A number least of all: `open` would read, and close, what has that descriptor."""
    with open(tmp_path / "other", "wb") as other:
        for path in (None, other.fileno(), True, [], KerasClassifier()):
            for call in (
                skstack.load,
                functools.partial(skstack.save, KerasClassifier()),
                open_table,
            ):
                with pytest.raises(TypeError, match=r"path=.* must be a str or a path-like object"):
                    call(path)
        os.fstat(other.fileno())


def test_a_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        skstack.load(tmp_path / "a.skstack")
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*no folder'"):
        skstack.save(KerasClassifier(), tmp_path / "no folder" / "a.skstack")
    with pytest.raises(IsADirectoryError, match="is a folder; `save` writes a file"):
        skstack.save(KerasClassifier(), tmp_path)


# Files that were cut, altered or made to run code -------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The bytes of a file that holds members of all kinds."""
    path = tmp_path_factory.mktemp("written") / "a.skstack"
    stack = StackedKerasClassifier(
        KerasFeatureTransformer(model()), downstream=KerasClassifier(SMALL, **QUICK), cv=2
    )
    skstack.save(stack.fit(X, y), path)
    content = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        kinds = {os.path.splitext(name)[1] for name in archive.namelist()}
    assert kinds == {".json", ".keras", ".skops", ".npy"}
    return content


def refused(content, folder, match, **kwargs):
    path = folder / "crafted.skstack"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match) as told:
        skstack.load(path, **kwargs)
    assert repr(str(path)) in str(told.value)


def test_every_altered_byte_is_detected(written, tmp_path):
    rng = np.random.default_rng(0)
    places = list(rng.integers(len(written), size=100))
    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        places += [member.header_offset for member in archive.infolist()]
        places += [member.header_offset + 80 for member in archive.infolist()]
    for place in [*places, 0, len(written) - 100, len(written) - 70, len(written) - 1]:
        altered = bytearray(written)
        altered[place] ^= 4
        refused(bytes(altered), tmp_path, "altered")


def test_a_truncated_file_is_refused(written, tmp_path):
    for length in (64, 1000, len(written) // 2, len(written) - 80, len(written) - 1):
        refused(written[:length], tmp_path, "truncated")
    refused(b"", tmp_path, "empty")
    refused(written + b"\n", tmp_path, "truncated, or its end was altered")


def test_other_files_are_refused(tmp_path):
    model().save(tmp_path / "a.keras")
    joblib.dump(KerasClassifier(), tmp_path / "a.joblib")
    for name in ("a.keras", "a.joblib"):
        refused((tmp_path / name).read_bytes(), tmp_path, "not written by skstack.save")


def crafted(content, changes, *, compression=zipfile.ZIP_STORED):
    """The file with other members, sealed as if it had been written so."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as archive,
        zipfile.ZipFile(buffer, "w", compression) as other,
    ):
        for name in archive.namelist():
            member = archive.read(name)
            other.writestr(name, changes[name](member) if name in changes else member)
        other.comment = archive.comment
    body = buffer.getvalue()[: -len(other.comment)]
    return body + b"skstack sha256 " + hashlib.sha256(body).hexdigest().encode()


def with_state(content, change):
    def changed(member):
        state = json.loads(member)
        return json.dumps(change(state) or state)

    return crafted(content, {"state.json": changed})


def first(content, ending):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return next(name for name in archive.namelist() if name.endswith(ending))


def find(node, kind):
    """The first node of a kind, in a tree of nodes."""
    if isinstance(node, dict) and node.get("is") == kind:
        return node
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return next((found for found in (find(part, kind) for part in parts) if found), None)


def test_a_crafted_file_that_changes_nothing_is_loaded(written, tmp_path):
    (tmp_path / "a.skstack").write_bytes(crafted(written, {}))
    assert skstack.load(tmp_path / "a.skstack").predict(X).shape == y.shape


@pytest.mark.parametrize(
    ("protocol", "remedy"),
    [
        (PROTOCOL + 1, "update skstack"),
        (PROTOCOL - 1, "fit the estimator again and save it"),
        (str(PROTOCOL), "update skstack"),
    ],
)
def test_another_protocol_is_refused_with_both_numbers(written, tmp_path, protocol, remedy):
    def other(member):
        return json.dumps({**json.loads(member), "protocol": protocol})

    match = f"protocol is {protocol!r}.*reads {PROTOCOL}.*; {remedy}"
    refused(crafted(written, {"manifest.json": other}), tmp_path, match)


def test_other_versions_warn(written, tmp_path):
    def older(member):
        manifest = json.loads(member)
        manifest["versions"].update({"scikit-learn": "1.0.2", "keras": "3.1.0"})
        return json.dumps(manifest)

    (tmp_path / "a.skstack").write_bytes(crafted(written, {"manifest.json": older}))
    match = rf"scikit-learn 1.0.2 \(here: {sklearn.__version__}\) and keras 3.1.0"
    with pytest.warns(UserWarning, match=match):
        skstack.load(tmp_path / "a.skstack")


@pytest.fixture
def mark(tmp_path):
    """A file that only code from a file would make."""
    path = tmp_path / "mark"
    yield path
    assert not path.exists()


DANGEROUS = ["os.system", "builtins.eval", "builtins.exec", "subprocess.Popen", "shutil.rmtree",
             "skstack._persistence.file.save", "skstack._training.program.Pool",
             "skstack.os.system",
             "skstack._features.cache.pickle", "skstack._features.cache.pickle.loads",
             "sklearn.utils._metadata_requests.MetadataRequest", "numpy.ndarray"]  # fmt: skip


@pytest.mark.parametrize("name", DANGEROUS)
@pytest.mark.parametrize("kind", ["object", "type", "function"])
def test_unknown_names_are_refused(written, tmp_path, mark, name, kind):
    def call(state):
        node = {"is": kind, "class": name, "name": name, "number": 10**6}
        node["state"] = [["args", {"is": "tuple", "items": [f"touch {mark}"]}]]
        state["state"][0][1] = node

    refused(with_state(written, call), tmp_path, f"{name}.*untrusted code")
    refused(with_state(written, call), tmp_path, f"{name}.*untrusted code", trusted=["os.x"])


def test_names_that_networks_do_not_need_are_not_looked_up(written, tmp_path):
    def smuggle(state):
        find(state, "network")["names"] = {"relu": "shutil.rmtree", "Dense": "os.system"}

    refused(with_state(written, smuggle), tmp_path, "is not trusted")


def test_a_folder_of_pickles_in_a_file_is_refused(written, tmp_path):
    def point(state):
        transformer = find(state["state"], "object")
        transformer["state"] = [
            [name, str(tmp_path) if name == "memory" else value]
            for name, value in transformer["state"]
        ]

    refused(with_state(written, point), tmp_path, "folder of pickles")


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_pickled_arrays_are_refused(written, tmp_path, mark):
    buffer = io.BytesIO()
    np.save(buffer, np.array([Touch(mark)], dtype=object), allow_pickle=True)
    name = first(written, ".npy")
    refused(crafted(written, {name: lambda _: buffer.getvalue()}), tmp_path, "pickled objects")
    pickled = pickle.dumps(Touch(mark))
    refused(crafted(written, {name: lambda _: pickled}), tmp_path, "magic string")
    refused(
        crafted(written, {name: lambda member: member[:-1]}), tmp_path, "does not match its header"
    )


def test_parts_that_skops_does_not_trust_are_refused(written, tmp_path, mark):
    import skops.io

    name = first(written, ".skops")
    content = skops.io.dumps(FunctionTransformer(os.path.abspath))
    refused(crafted(written, {name: lambda _: content}), tmp_path, "path.abspath.*untrusted code")

    def call(member):
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(member)) as old, zipfile.ZipFile(buffer, "w") as new:
            for part in old.namelist():
                content = old.read(part)
                if part == "schema.json":
                    system = {**json.loads(content), "__class__": "system", "__module__": "os"}
                    content = json.dumps(system)
                new.writestr(part, content)
        return buffer.getvalue()

    refused(crafted(written, {name: call}), tmp_path, r"os\.system.*untrusted code")


def lambda_model(mark):
    touch = keras.layers.Lambda(lambda x, path=str(mark): (open(path, "w").close(), x)[1])
    return keras.Sequential([keras.Input((6,)), touch])


def config_with(layer):
    """A model whose first Dense layer is another one."""

    def changed(member):
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(member)) as old, zipfile.ZipFile(buffer, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                if name == "config.json":
                    config = json.loads(content)
                    layers = config["config"]["layers"]
                    place = next(
                        i for i, each in enumerate(layers) if each["class_name"] == "Dense"
                    )
                    layers[place].update(layer)
                    content = json.dumps(config)
                new.writestr(name, content)
        return buffer.getvalue()

    return changed


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize("unsafe", [False, True])
def test_networks_that_hold_code_are_refused(written, tmp_path, mark, unsafe):
    if unsafe:  # said for other models, in other places of the program
        keras.config.enable_unsafe_deserialization()
    try:
        lambda_model(mark).save(tmp_path / "lambda.keras")
        mark.unlink()  # made by building it here
        with_lambda = (tmp_path / "lambda.keras").read_bytes()
        for kind in ("networks/", "models/"):
            with zipfile.ZipFile(io.BytesIO(written)) as archive:
                name = next(each for each in archive.namelist() if each.startswith(kind))
            refused(crafted(written, {name: lambda _: with_lambda}), tmp_path, "holds a lambda")
            layers = {
                "TFSMLayer": {"module": "keras.layers", "class_name": "TFSMLayer"},
                "system": {"module": "os", "class_name": "system", "registered_name": None},
                "Evil": {"module": "keras.layers", "registered_name": "evil>Evil"},
            }
            for told, layer in layers.items():
                refused(crafted(written, {name: config_with(layer)}), tmp_path, told)
            for activation in (
                {"module": "os", "class_name": "function", "config": "system"},
                {"module": "builtins", "class_name": "function", "config": "eval"},
                {"module": "keras.utils", "class_name": "function", "config": "plot_model"},
            ):
                layer = {"config": {"units": 4, "name": "enc", "activation": activation}}
                content = crafted(written, {name: config_with(layer)})
                refused(content, tmp_path, f"{activation['config']}.*could run")
    finally:
        keras.src.backend.common.global_state.set_global_attribute("safe_mode_saving", None)


def test_members_that_are_larger_when_read_are_refused(written, tmp_path):
    refused(crafted(written, {}, compression=zipfile.ZIP_DEFLATED), tmp_path, "compressed")

    def bomb(_):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("config.json", " " * 10**6)
        return buffer.getvalue()

    for ending in (".keras", ".skops"):
        refused(crafted(written, {first(written, ending): bomb}), tmp_path, "compressed")


def test_malformed_files_are_refused(written, tmp_path):
    nested = "[" * 100_000 + "]" * 100_000
    texts = ["", "{}", "[]", "7", "NaN", nested, '{"is": "float"}', '{"is": "init__"}']
    texts += ['{"is": "list", "number": 0, "items": []}', '{"is": "again", "number": 3}']
    for text in texts:
        content = crafted(written, {"state.json": lambda _, text=text: text})
        refused(content, tmp_path, "was not loaded")


def test_what_no_other_process_can_import_is_warned_of(tmp_path):
    @recipe
    def local(spec, *, width=3):
        inputs = spec.inputs()
        return keras.Model(inputs, spec.outputs(keras.layers.Dense(width)(spec.join(inputs))))

    with pytest.warns(UserWarning, match=r"<locals>\.local cannot be imported by another process"):
        skstack.save(KerasClassifier(local(), epochs=1), tmp_path / "a.skstack")


def test_a_recipe_of_a_namespace_without_a_name_is_trained():
    namespace = {"keras": keras, "recipe": recipe}
    exec(
        "@recipe\n"
        "def nameless(spec, *, width=3):\n"
        "    inputs = spec.inputs()\n"
        "    x = keras.layers.Dense(width)(spec.join(inputs))\n"
        "    return keras.Model(inputs, spec.outputs(x))\n",
        namespace,
    )
    classifier = KerasClassifier(namespace["nameless"](), epochs=1, random_state=0)
    X, y = load_breast_cancer(return_X_y=True)
    assert classifier.fit(X[:60], y[:60]).predict(X[:3]).shape == (3,)
