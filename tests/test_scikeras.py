"""Conversion from scikeras: the same training and parameters, or an error."""

import functools
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from scikeras.wrappers import KerasClassifier as ScikerasClassifier
from scikeras.wrappers import KerasRegressor as ScikerasRegressor
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skstack import KerasClassifier, KerasRegressor, StackedKerasClassifier, from_scikeras
from skstack._stack.blending import blend_plan

pytestmark = [
    pytest.mark.usefixtures("patches_of_scikeras", "eager_keras"),
    pytest.mark.filterwarnings("ignore:Even though the .* option is set, this option does not"),
]

generator = np.random.default_rng(0)
X = generator.normal(size=(60, 4)).astype(np.float32)
BINARY = np.where(X[:, 0] > 0, "yes", "no")
THREE = np.array(["ant", "bee", "cow"])[(X[:, 0] > 0).astype(int) + (X[:, 1] > 0.3)]
TARGET = 100 + 20 * (X[:, 0] - X[:, 1]).astype(np.float64)


def dense(units, activation, seed, name=None):
    start = keras.initializers.GlorotUniform(seed)
    return layers.Dense(units, activation, kernel_initializer=start, name=name)


def network(meta, hidden=6, activation="relu"):
    """Uncompiled, output by target, with the same weights in each call."""
    width = meta["n_features_in_"]
    if meta["target_type_"] == "multiclass":
        last = dense(meta["n_classes_"], "softmax", 2)
    elif meta["target_type_"] == "binary":
        last = dense(1, "sigmoid", 2)
    else:
        last = dense(meta["n_outputs_"], None, 2)
    return keras.Sequential([keras.Input((width,)), dense(hidden, activation, 1, "hidden"), last])


def compiled_network(meta, compile_kwargs, hidden=6):
    """The way of scikeras' own examples: the loss by target, the optimizer from outside."""
    model = network(meta, hidden)
    losses = {"binary": "binary_crossentropy", "multiclass": "sparse_categorical_crossentropy"}
    model.compile(loss=losses[meta["target_type_"]], optimizer=compile_kwargs["optimizer"])
    return model


def closed_network(meta):
    """Compiled with its own settings."""
    model = network(meta)
    model.compile(keras.optimizers.SGD(0.3, momentum=0.5), keras.losses.BinaryCrossentropy())
    return model


def unbuilt_network():
    return keras.Sequential([dense(5, "tanh", 1), dense(1, "sigmoid", 2)])


def logits(meta):
    inputs = keras.Input(meta["X_shape_"][1:])
    return keras.Model(inputs, dense(3, None, 2)(dense(6, "relu", 1)(inputs)))


def classifier(model=network, **params):
    chosen = {"loss": "binary_crossentropy", "batch_size": 60, "epochs": 4, "verbose": 0, **params}
    return ScikerasClassifier(model, **chosen)


def regressor(model=network, **params):
    chosen = {"loss": "mse", "batch_size": 60, "epochs": 4, "verbose": 0, **params}
    return ScikerasRegressor(model, **chosen)


def built_model(compile=False):
    model = network({"n_features_in_": 4, "target_type_": "binary"})
    if compile:
        model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy")
    return model


# One batch holds all rows, so that their order, which cannot be switched off, does not matter.
# scikeras itself turns names, classes and instances into what a function compiles with.
OTHER_NAMES = (
    "uncompiled",
    "rmsprop by default",
    "optimizer by name, routed",
    "optimizer class, routed",
    "loss class, routed",
    "partial",
    "fit__epochs and fit__batch_size",
    "balanced",
    "optimizer instance",
    "loss instance",
    "arguments",
    "integers for classes",
    "one-hot classes, by object",
    "compiled for classes",
    "a compiled model",
    "regressor with two targets",
)
SAME = {
    "regressor": (regressor, {"optimizer": "adam"}, TARGET),
    "classes, routed, and fit__": (
        classifier,
        {
            "optimizer": keras.optimizers.Adam,
            "optimizer__learning_rate": 0.05,
            "loss": keras.losses.BinaryCrossentropy,
            "loss__label_smoothing": 0.3,
            "epochs": 1,
            "batch_size": 7,
            "fit__epochs": 5,
            "fit__batch_size": 60,
        },
        BINARY,
    ),
    "partial, balanced": (
        lambda **kw: classifier(functools.partial(network, hidden=3), **kw),
        {"class_weight": "balanced"},
        np.where(X[:, 0] > 0.7, 1, 0),
    ),
    "uncompiled": (classifier, {}, BINARY),
    "rmsprop by default": (classifier, {"epochs": 2}, BINARY),
    "optimizer by name, routed": (
        classifier,
        {"optimizer": "sgd", "optimizer__learning_rate": 0.3, "optimizer__momentum": 0.9},
        BINARY,
    ),
    "optimizer class, routed": (
        classifier,
        {"optimizer": keras.optimizers.Adam, "optimizer__learning_rate": 0.05},
        BINARY,
    ),
    "optimizer instance": (classifier, {"optimizer": keras.optimizers.Nadam(0.02)}, BINARY),
    "loss class, routed": (
        classifier,
        {"loss": keras.losses.BinaryCrossentropy, "loss__label_smoothing": 0.3},
        BINARY,
    ),
    "loss instance": (classifier, {"loss": keras.losses.BinaryFocalCrossentropy()}, BINARY),
    "compiled with compile_kwargs": (
        lambda **kw: classifier(compiled_network, **kw),
        {"loss": None, "optimizer": "adam", "optimizer__learning_rate": 0.05},
        BINARY,
    ),
    "compiled by itself": (lambda **kw: classifier(closed_network, **kw), {"loss": None}, BINARY),
    "arguments": (classifier, {"hidden": 3, "model__activation": "tanh"}, BINARY),
    "partial": (
        lambda **kw: classifier(functools.partial(network, hidden=3), **kw),
        {},
        BINARY,
    ),
    "fit__epochs and fit__batch_size": (
        classifier,
        {"epochs": 1, "batch_size": 7, "fit__epochs": 5, "fit__batch_size": 60},
        BINARY,
    ),
    "balanced": (classifier, {"class_weight": "balanced"}, np.where(X[:, 0] > 0.7, 1, 0)),
    "integers for classes": (classifier, {"loss": "sparse_categorical_crossentropy"}, THREE),
    "one-hot classes": (classifier, {"loss": "categorical_crossentropy"}, THREE),
    "one-hot classes, by object": (
        classifier,
        {"loss": keras.losses.CategoricalCrossentropy(label_smoothing=0.2)},
        THREE,
    ),
    "compiled for classes": (
        lambda **kw: classifier(compiled_network, **kw),
        {"loss": None, "optimizer": "adam"},
        THREE,
    ),
    "a model": (lambda **kw: classifier(built_model(), **kw), {"optimizer": "adam"}, BINARY),
    "a compiled model": (
        lambda **kw: classifier(built_model(compile=True), **kw),
        {"loss": None},
        BINARY,
    ),
    "build_fn": (lambda **kw: ScikerasClassifier(build_fn=network, **kw), {"epochs": 3}, BINARY),
    "regressor with two targets": (
        regressor,
        {"loss": "mae"},
        np.column_stack([TARGET, -TARGET]),
    ),
}


def distance(one, other):
    return np.abs(one - other).max()


@pytest.mark.filterwarnings("ignore:``build_fn`` will be renamed")
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
@pytest.mark.parametrize(
    ("make", "params", "y"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.slow] if name in OTHER_NAMES else [])
        for name, case in SAME.items()
    ],
)
def test_converted_estimators_train_to_the_same_weights(make, params, y):
    params = {"epochs": 2, **params}  # the second depends on what an optimizer remembers
    if make().model is None:
        params = {"loss": "binary_crossentropy", "batch_size": 60, "verbose": 0, **params}
    theirs = make(**params).fit(X, y)
    ours = from_scikeras(make(**params)).fit(X, y)
    expected = theirs.model_.get_weights()  # ours has y's units behind them, here 0 and 1
    found = ours.model_.get_weights()[: len(expected)]
    start = make(**params).initialize(X, y).model_.get_weights()
    assert max(map(distance, expected, start)) > 1e-3
    assert max(map(distance, expected, found)) < 2e-4
    if hasattr(theirs, "predict_proba"):
        np.testing.assert_array_equal(ours.classes_, theirs.classes_)
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-4)
    else:
        np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-4, atol=1e-3)


def test_logits_train_to_the_same_weights_and_become_probabilities():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    theirs = classifier(logits, loss=loss).fit(X, THREE)
    ours = from_scikeras(classifier(logits, loss=loss)).fit(X, THREE)
    expected = keras.ops.softmax(theirs.predict_proba(X))
    np.testing.assert_allclose(ours.predict_proba(X), expected, atol=1e-4)


def test_a_function_may_leave_the_network_unbuilt():
    """scikeras fails on it."""
    ours = from_scikeras(classifier(unbuilt_network, epochs=20, optimizer="sgd"))
    ours.set_params(batch_size=8, learning_rate=0.3)
    assert ours.fit(X, BINARY).score(X, BINARY) > 0.8


@pytest.mark.slow
def test_converted_estimators_score_the_same_on_real_data():
    data, labels = load_breast_cancer(return_X_y=True)
    theirs = classifier(batch_size=100, epochs=10, optimizer="adam", optimizer__learning_rate=0.03)
    ours = from_scikeras(theirs).set_params(random_state=0)
    score = cross_val_score(make_pipeline(StandardScaler(), ours), data, labels, cv=3).mean()
    expected = cross_val_score(make_pipeline(StandardScaler(), theirs), data, labels, cv=3).mean()
    assert abs(score - expected) < 0.02
    assert score > 0.95


# What it is: an estimator like any other ---------------------------------------------------------


def test_classes_and_parameters():
    ours = from_scikeras(classifier(hidden=9, random_state=3, warm_start=True, verbose="auto"))
    assert isinstance(ours, KerasClassifier)
    params = ours.get_params()
    assert params["model__hidden"] == 9
    assert params["model__activation"] == "relu"
    expected = {
        "random_state": 3,
        "warm_start": True,
        "verbose": 1,
        "epochs": 4,
        "batch_size": 60,
        "early_stopping": False,
        "categorical_features": None,
    }
    assert {name: params[name] for name in expected} == expected
    assert isinstance(from_scikeras(regressor()), KerasRegressor)
    assert from_scikeras(regressor()).standardize_target is False
    assert from_scikeras(ScikerasClassifier(network, loss="bce")).batch_size == 32


def test_clones_and_pickles_are_equal():
    ours = from_scikeras(classifier(hidden=3, optimizer="adam"))
    fitted = clone(ours).fit(X, BINARY)
    copied = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copied.predict_proba(X), fitted.predict_proba(X))
    again = pickle.loads(pickle.dumps(ours)).fit(X, BINARY)
    np.testing.assert_allclose(again.predict_proba(X), fitted.predict_proba(X), atol=1e-6)
    np.testing.assert_array_equal(copied.fit(X, BINARY).predict_proba(X), fitted.predict_proba(X))


def test_pickles_are_loaded_without_scikeras():
    """Once imported, it makes Keras' own objects pickle as what only it can load."""
    loss = keras.losses.BinaryFocalCrossentropy()
    ours = from_scikeras(classifier(loss=loss, optimizer=keras.optimizers.Adam(0.1)))
    for estimator in (ours, clone(ours).fit(X, BINARY)):
        assert b"scikeras.wrappers" not in pickle.dumps(estimator)
        assert b"scikeras._saving" not in pickle.dumps(estimator)


def test_the_arguments_of_the_function_are_searched():
    grid = {"model__hidden": [2, 11], "learning_rate": [0.01, 0.1], "optimizer": ["adam"]}
    search = GridSearchCV(from_scikeras(classifier()), grid, cv=2, error_score="raise")
    best = search.fit(X, BINARY).best_estimator_
    assert best.model_.get_layer("hidden").units == search.best_params_["model__hidden"]
    with pytest.raises(ValueError, match="no parameter 'hiden'"):
        from_scikeras(classifier()).set_params(model__hiden=3)


@pytest.mark.slow
def test_in_a_stack_all_folds_start_from_the_same_weights():
    data, labels = load_iris(return_X_y=True)
    ours = from_scikeras(classifier(compiled_network, loss=None, optimizer="adam"))
    stack = StackedKerasClassifier([("theirs", ours)], downstream=ours, cv=2, random_state=0)
    assert blend_plan(stack).parts == ("theirs", "downstream")
    stack.set_params(blend=False)  # each of their fits compiles
    assert stack.fit(data, labels).predict_proba(data[:1]).shape == (1, 3)


def test_the_estimator_and_its_model_are_not_modified():
    model = built_model()
    theirs = classifier(model, optimizer="adam", callbacks=keras.callbacks.TerminateOnNaN)
    before, weights = dict(vars(theirs)), [value.copy() for value in model.get_weights()]
    from_scikeras(theirs).fit(X, BINARY)
    assert vars(theirs) == before
    assert not model.compiled
    for value, first in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(value, first)


def test_fits_share_one_program():
    """Equal keys: the layers' automatic numbers must not make the same network a new one."""
    from skstack.networks import Block, Spec
    from skstack.networks._builder import BuilderRecipe
    from skstack.networks._model_parameter import blueprint_for

    spec = Spec((Block("numeric", "numeric", (4,), None, "float32"),), "binary", 2)
    keys = [blueprint_for(BuilderRecipe(network, hidden=n), spec, None).key for n in (3, 3, 4)]
    assert keys[0] is not None
    assert keys[0] == keys[1] != keys[2]


def test_meta_equals_that_of_scikeras():
    heard = {}

    def listening(meta):
        heard[len(heard)] = dict(meta)
        raise InterruptedError("heard")

    for make, y in [
        (classifier, BINARY),
        (functools.partial(classifier, loss="sparse_categorical_crossentropy"), THREE),
        (regressor, TARGET),
        (regressor, np.column_stack([TARGET, TARGET])),
    ]:
        heard.clear()
        with pytest.raises(InterruptedError):
            make(listening).fit(X, y)
        (theirs,) = heard.values()
        heard.clear()
        with pytest.raises(InterruptedError):
            from_scikeras(make(listening)).fit(X, y)
        mine = heard[0]
        assert mine.pop("X_shape_")[1:] == theirs["X_shape_"][1:]
        assert mine.keys() <= theirs.keys()
        assert mine == {name: theirs[name] for name in mine}


def test_missing_entries_of_meta_are_named():
    def nosy(meta):
        return network({**meta, "n_classes_": len(meta["classes_"])})

    with pytest.raises(KeyError, match=r"classes_.*n_classes_"):
        from_scikeras(classifier(nosy)).fit(X, BINARY)


# Callbacks and early stopping --------------------------------------------------------------------


class Noting(keras.callbacks.Callback):
    def __init__(self, number=0):
        super().__init__()
        self.number = number

    def on_epoch_end(self, epoch, logs=None):
        logs["number"] = float(self.number)


@pytest.mark.slow(first=2)
@pytest.mark.parametrize(
    "callbacks",
    [
        {"callbacks": {"noting": Noting}, "callbacks__noting__number": 7},
        {"fit__callbacks": [Noting(7)]},
        {"callbacks": Noting, "callbacks__number": 7},
        {"callbacks": [Noting], "callbacks__0__number": 7},
        {"callbacks": Noting(7)},
    ],
    ids=["dict", "fit__callbacks", "class", "list", "instance"],
)
def test_callbacks_and_their_routed_parameters(callbacks):
    ours = from_scikeras(classifier(**callbacks)).fit(X, BINARY)
    assert ours.history_["number"] == [7.0] * 4


def test_early_stopping_on_the_training_loss_stays_a_callback():
    stop = keras.callbacks.EarlyStopping("loss", min_delta=1e3, patience=1)
    ours = from_scikeras(classifier(callbacks=[stop], epochs=9))
    assert ours.early_stopping is False
    assert ours.fit(X, BINARY).n_iter_ == classifier_epochs(stop) < 9


def classifier_epochs(stop):
    theirs = classifier(callbacks=[stop], epochs=9).fit(X, BINARY)
    return len(theirs.history_["loss"])


def test_validation_split_with_early_stopping_becomes_early_stopping():
    stop = keras.callbacks.EarlyStopping("val_loss", min_delta=0.002, patience=3)
    other = Noting()
    ours = from_scikeras(classifier(validation_split=0.2, callbacks=[stop, other], epochs=50))
    assert ours.callbacks == [other]
    assert ours.early_stopping is True
    assert (ours.validation_fraction, ours.n_iter_no_change, ours.tol) == (0.2, 3, 0.002)
    ours.fit(X, BINARY)
    assert len(ours.validation_scores_) == ours.n_iter_


def test_metrics_are_recorded():
    for metrics in (["accuracy"], "accuracy", [keras.metrics.AUC], ["AUC"]):
        fitted = from_scikeras(classifier(metrics=metrics)).fit(X, BINARY)
        (name,) = set(fitted.history_) - {"loss"}
        assert name.lower().partition("_")[0] in ("accuracy", "auc")  # Keras numbers its own
        assert len(fitted.history_[name]) == 4


# Refused, each with a reason ---------------------------------------------------------------------

STOP = keras.callbacks.EarlyStopping
REFUSED = {
    "shuffle": {"shuffle": False},
    "fit__shuffle": {"fit__shuffle": False},
    "batch_size": {"batch_size": -1},
    "run_eagerly": {"run_eagerly": True},
    "validation_split": {"validation_split": 0.2},
    "validation_split ": {"fit__validation_split": 0.2},
    "validation_split  ": {"validation_split": 0.2, "callbacks": [STOP("val_accuracy")]},
    "validation_split   ": {"validation_split": 0.2, "callbacks": [STOP(baseline=0.3)]},
    "validation_split    ": {"validation_split": 0.2, "callbacks": [STOP(start_from_epoch=3)]},
    "fit__steps_per_epoch": {"fit__steps_per_epoch": 3},
    "fit__class_weight": {"fit__class_weight": {0: 1.0, 1: 2.0}},
    "fit__validation_data": {"fit__validation_data": (X, BINARY)},
    "initial_epoch": {"initial_epoch": 2},
    "weighted_metrics": {"weighted_metrics": ["accuracy"]},
    "compile__loss_weights": {"compile__loss_weights": [1.0]},
    "predict__steps": {"predict__steps": 3},
    "epohcs": {"epohcs": 3},
    "model__hiden": {"model__hiden": 3},
    "score__normalize": {"score__normalize": False},
    "loss": {"loss": ["binary_crossentropy"]},
    "metrics": {"metrics": {"out": ["accuracy"]}},
}


@pytest.mark.parametrize(("name", "params"), REFUSED.items(), ids=[*REFUSED])
def test_parameters_without_equivalent_are_named(name, params):
    shown = name.strip().removeprefix("fit__shuf") if "shuffle" in name else name.strip()
    with pytest.raises(ValueError, match=rf"(?m)^- .*{shown}.*: .+"):
        from_scikeras(classifier(**params))


def test_all_parameters_without_equivalent_are_named_at_once():
    params = {"shuffle": False, "epohcs": 3, "fit__steps_per_epoch": 2, "batch_size": -1}
    with pytest.raises(ValueError, match="epohcs") as caught:
        from_scikeras(classifier(**params))
    assert len(str(caught.value).splitlines()) == 5


def test_functions_with_arbitrary_arguments_are_refused():
    with pytest.raises(ValueError, match="kwargs"):
        from_scikeras(classifier(lambda **kwargs: unbuilt_network()))
    with pytest.raises(ValueError, match="params"):
        from_scikeras(classifier(lambda params: unbuilt_network()))
    with pytest.raises(ValueError, match="takes no arguments"):
        from_scikeras(classifier(built_model(), model__hidden=3))
    with pytest.raises(ValueError, match="model=None"):
        from_scikeras(ScikerasClassifier(loss="bce"))


def test_other_classes_are_refused():
    class Own(ScikerasClassifier):
        pass

    with pytest.raises(ValueError, match="Own"):
        from_scikeras(Own(network, loss="bce"))
    with pytest.raises(TypeError, match="KerasClassifier or KerasRegressor of scikeras"):
        from_scikeras(KerasClassifier())


def test_parameters_without_effect_are_dropped():
    from_scikeras(
        classifier(predict__batch_size=7, predict__verbose=0, validation_batch_size=3)
    ).fit(X, BINARY)


def test_importing_skstack_does_not_import_scikeras():
    code = (
        "import sys, skstack; print(sorted({'keras', 'scikeras', 'tensorflow'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
