"""Estimators of scikeras and keras.wrappers as parts of ours, and their failings, not ours."""

import os
import random

import keras
import numpy as np
import pytest
from _fresh import run
from imblearn.over_sampling import RandomOverSampler
from keras import layers
from keras.wrappers import SKLearnClassifier, SKLearnRegressor, SKLearnTransformer
from scikeras.wrappers import KerasClassifier as ScikerasClassifier
from scikeras.wrappers import KerasRegressor as ScikerasRegressor
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    ShuffleSplit,
    StratifiedShuffleSplit,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import skstack
from skstack import (
    KerasAutoencoder,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack.networks import MLP

pytestmark = [
    pytest.mark.usefixtures("patches_of_scikeras", "eager_keras"),
    pytest.mark.filterwarnings("ignore:Even though the .* option is set, this option does not"),
]

GLOBAL_STATE = np.random.get_state
HALF = StratifiedShuffleSplit(1, test_size=0.5, random_state=0)
generator = np.random.default_rng(0)
X = generator.normal(size=(90, 4)).astype(np.float32)
CODES = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.3)
Y = np.array(["ant", "bee", "cow"])[CODES]
BINARY = np.where(X[:, 0] > 0, "yes", "no")
TARGET = (X[:, 0] - X[:, 1]).astype(np.float64)


def seeded(units, activation=None, hidden=5, n_features=4):
    """An uncompiled network that has the same weights in each call."""
    dense = [
        layers.Dense(width, act, kernel_initializer=keras.initializers.GlorotUniform(seed), name=n)
        for seed, (width, act, n) in enumerate(
            [(hidden, "relu", "hidden"), (units, activation, "o")]
        )
    ]
    return keras.Sequential([keras.Input((n_features,)), *dense])


def compiled(*args, loss="categorical_crossentropy", rate=0.05, **kwargs):
    model = seeded(*args, **kwargs)
    model.compile(keras.optimizers.SGD(rate), loss)
    return model


def for_scikeras(meta, hidden=5):
    binary = meta["target_type_"] == "binary"
    return seeded(
        1 if binary else meta["n_classes_"],
        "sigmoid" if binary else "softmax",
        hidden,
        meta["n_features_in_"],
    )


def scikeras(model=for_scikeras, **params):
    chosen = {
        "loss": "sparse_categorical_crossentropy",
        "optimizer": "sgd",
        "optimizer__learning_rate": 0.05,
        "epochs": 2,
        "batch_size": 90,  # a step an epoch: they cost much without compilation
        "verbose": 0,
        "shuffle": False,
        **params,
    }
    return ScikerasClassifier(model, **chosen)


def for_wrapper(X, y, hidden=5, activation="softmax"):
    return compiled(y.shape[1], activation, hidden=hidden, n_features=X.shape[1])


def wrapper(model=for_wrapper, **params):
    fit = {"epochs": 2, "batch_size": 90, "verbose": 0, "shuffle": False}
    chosen = {"fit_kwargs": fit, **params}
    return SKLearnClassifier(model, **chosen)


MAKERS = {
    "scikeras, function": scikeras,
    "keras.wrappers, function": wrapper,
    "scikeras, model": lambda: scikeras(seeded(3, "softmax")),
    "scikeras, compiled model": lambda: scikeras(
        compiled(3, "softmax", loss="sparse_categorical_crossentropy"), loss=None
    ),
    "keras.wrappers, model": lambda: wrapper(compiled(3, "softmax")),
}
each_neighbour = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def global_numbers():
    """State of NumPy's global generator."""
    return np.random.get_state()[1].copy()  # noqa: NPY002


@pytest.fixture(autouse=True)
def quiet():
    """keras.wrappers predicts with a progress bar."""
    keras.utils.disable_interactive_logging()
    yield
    keras.utils.enable_interactive_logging()


@pytest.fixture(scope="module")
def by_hand(eager_keras):
    """Out-of-fold probabilities of `seeded`, each fold trained from its first weights."""
    found = np.empty((len(X), 3), np.float32)
    for train, test in KFold(3).split(X):
        model = compiled(3, "softmax", loss="sparse_categorical_crossentropy")
        model.fit(X[train], CODES[train], epochs=2, batch_size=90, shuffle=False, verbose=0)
        found[test] = model.predict(X[test], verbose=0)
    return found


# Cloned, never shared ---------------------------------------------------------------------------


@pytest.mark.slow(first=1)
@each_neighbour
def test_each_fold_starts_from_the_same_untrained_weights(make, by_hand):
    # keras.wrappers draws new weights for a given model: those of seeded layers are the same again.
    transformer = KerasFeatureTransformer(make(), cv=KFold(3))
    np.testing.assert_allclose(transformer.fit_transform(X, Y), by_hand, atol=1e-5)


@pytest.mark.slow(first=1)
@each_neighbour
def test_arguments_are_not_modified(make):
    neighbour = make()
    before = {
        name: dict(value) if isinstance(value, dict) else value
        for name, value in neighbour.get_params(deep=False).items()
    }
    model = neighbour.model if isinstance(neighbour.model, keras.Model) else None
    weights = None if model is None else [value.copy() for value in model.get_weights()]
    stack = StackedKerasClassifier(
        [("theirs", neighbour)], downstream=make(), blend=False, cv=2, random_state=0
    )
    if model is None:  # a given model has one width of input, and the downstream another table
        stack.fit(X, Y)
    else:
        stack.set_params(downstream=LogisticRegression()).fit(X, Y)
    after = neighbour.get_params(deep=False)
    assert after.keys() == before.keys()
    assert all(after[name] is value or after[name] == value for name, value in before.items())
    assert not hasattr(neighbour, "model_")
    if model is not None:
        for value, first in zip(model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(value, first)


def test_a_function_that_always_returns_the_same_network_is_refused():
    model = compiled(3, "softmax")
    transformer = KerasFeatureTransformer(wrapper(lambda X, y: model), cv=2)
    with pytest.raises(ValueError, match="the same network or layers in every call"):
        transformer.fit_transform(X, Y)


@pytest.mark.slow
def test_a_regressor_of_scikeras_without_tags_is_cross_fitted():
    assert not is_regressor(ScikerasRegressor(lambda: seeded(1)))
    network = ScikerasRegressor(
        lambda: seeded(1),
        loss="mse",
        optimizer="sgd",
        optimizer__learning_rate=0.05,
        epochs=2,
        verbose=0,
        shuffle=False,
    )
    found = KerasFeatureTransformer(network, cv=KFold(3)).fit_transform(X, TARGET)
    for train, test in KFold(3).split(X):
        model = compiled(1, loss="mse")
        model.fit(X[train], TARGET[train], epochs=2, shuffle=False, verbose=0)
        np.testing.assert_allclose(found[test], model.predict(X[test], verbose=0), atol=1e-5)


def test_a_transformer_of_keras_wrappers_is_cross_fitted():
    """Each fold's axes are turned onto the refitted one's, and no row knows its own y."""
    network = SKLearnTransformer(
        lambda X, y: compiled(2, loss="mse"), fit_kwargs={"epochs": 2, "verbose": 0}
    )
    transformer = KerasFeatureTransformer(network, cv=KFold(2))
    crossed = transformer.fit_transform(X, TARGET)
    assert crossed.shape == (90, 2)
    assert np.abs(crossed - transformer.transform(X)).max() > 1e-4
    with pytest.raises(ValueError, match="y to be passed"):
        transformer.fit_transform(X)


@pytest.mark.slow
def test_a_transformer_of_keras_wrappers_learns_labels_as_numbers():
    network = SKLearnTransformer(
        lambda X, y: compiled(3, "softmax", loss="sparse_categorical_crossentropy"),
        fit_kwargs={"epochs": 2, "verbose": 0, "shuffle": False},
    )
    labelled, numbered = (
        KerasFeatureTransformer(network, cv=KFold(2)).fit_transform(X, y) for y in (Y, CODES)
    )
    np.testing.assert_allclose(labelled, numbered, atol=1e-6)


# Folds, weights, seeds --------------------------------------------------------------------------


@pytest.mark.slow(first=1)
@each_neighbour
def test_folds_are_stratified(make):
    """Sorted labels: without stratifying, each fold would lack a class, and say so."""
    order = np.argsort(Y, kind="stable")
    transformer = KerasFeatureTransformer(make(), cv=3, refit=False)
    found = transformer.fit_transform(X[order], Y[order])
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


class Listening(ScikerasClassifier):
    """Notes the weights that it gets."""

    heard = []

    def fit(self, X, y, sample_weight=None, **kwargs):
        self.heard.append(None if sample_weight is None else np.array(sample_weight))
        return super().fit(X, y, sample_weight, **kwargs)


def test_weights_are_not_modified_by_scikeras():
    Listening.heard.clear()
    network = Listening(for_scikeras, loss="bce", verbose=0, class_weight={"no": 5.0, "yes": 1.0})
    weights = np.linspace(1, 2, 90)
    stack = StackedKerasClassifier([("theirs", network)], downstream=network, cv=2)
    stack.fit(X, BINARY, sample_weight=weights)
    np.testing.assert_array_equal(weights, np.linspace(1, 2, 90))
    heard = [sorted(each) for each in Listening.heard]
    assert [len(each) for each in heard] == [90, 45, 45, 90]
    np.testing.assert_array_equal(heard[0], weights)
    np.testing.assert_array_equal(sorted(heard[1] + heard[2]), weights)
    np.testing.assert_array_equal(heard[3], weights)


@pytest.mark.slow
def test_keras_wrappers_take_weights():
    weights = np.where(Y == "ant", 1e-6, 1.0)
    network = wrapper(
        lambda X, y: compiled(3, "softmax", rate=0.5),
        fit_kwargs={"epochs": 10, "verbose": 0, "batch_size": 90},
    )
    transformer = KerasFeatureTransformer(network, cv=2)
    found = transformer.fit_transform(X, Y, sample_weight=weights)
    assert found[:, 0].mean() < 0.6 * transformer.fit_transform(X, Y)[:, 0].mean()


@pytest.mark.slow
def test_process_settings_are_restored():
    """scikeras with a seed switches the process to deterministic kernels; threads tangle that."""
    os.environ.pop("TF_DETERMINISTIC_OPS", None)
    python, numpy = random.getstate(), global_numbers()
    transformer = KerasFeatureTransformer(scikeras(epochs=1), cv=6, n_jobs=4, random_state=0)
    transformer.fit_transform(X, Y)
    assert "TF_DETERMINISTIC_OPS" not in os.environ
    assert random.getstate() == python
    np.testing.assert_array_equal(global_numbers(), numpy)


def test_determinism_of_kernels_is_reset():
    """In a new process: what scikeras finds when it is the first to ask is what it leaves."""
    code = """
import os, sys
import keras, numpy as np
from scikeras.wrappers import KerasClassifier
from skstack import KerasFeatureTransformer

def build():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, "sigmoid")])

network = KerasClassifier(build, loss="bce", verbose=0)
X, y = np.eye(8, 2), [0, 1] * 4
if sys.argv[1] == "ours":
    KerasFeatureTransformer(network, cv=2, random_state=0).fit_transform(X, y)
else:
    network.set_params(random_state=0).fit(X, y)
model = keras.Sequential()
model.jit_compile = True  # which Keras refuses where kernels are deterministic
print(model.jit_compile)
"""
    assert [run(code, who).strip() for who in ("ours", "theirs")] == ["True", "False"]


@pytest.mark.slow
def test_seeds_of_scikeras_are_set_only_with_random_state():
    def seeds(random_state):
        stack = StackedKerasClassifier(
            [("theirs", scikeras(epochs=1))],
            downstream=scikeras(epochs=1),
            blend=False,
            cv=2,
            random_state=random_state,
        ).fit(X, Y)
        (_, branch, _), *_ = stack.upstream_
        return branch.estimator_.random_state, stack.downstream_.random_state

    assert seeds(None) == (None, None)
    assert None not in seeds(0)
    assert seeds(0) == seeds(0)


# What a feature is ------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_features_of_a_classifier_of_keras_wrappers_are_probabilities():
    transformer = KerasFeatureTransformer(wrapper(), features=["outputs", "entropy"], cv=2)
    transformer.fit_transform(X, Y)
    assert transformer.get_feature_names_out().tolist() == [
        "proba_ant",
        "proba_bee",
        "proba_cow",
        "entropy",
    ]
    expected = transformer.estimator_.model_.predict(X, verbose=0)
    np.testing.assert_allclose(transformer.transform(X)[:, :3], expected, atol=1e-6)
    binary = KerasFeatureTransformer(wrapper(), cv=2).fit(X, BINARY)
    assert binary.get_feature_names_out().tolist() == ["proba_yes"]
    expected = binary.estimator_.model_.predict(X, verbose=0)[:, 1:]
    np.testing.assert_allclose(binary.transform(X), expected, atol=1e-6)


def test_logits_of_keras_wrappers_become_probabilities_and_other_outputs_are_refused():
    def build(X, y, activation=None):
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        return compiled(3, activation, loss=loss)

    logits = KerasFeatureTransformer(wrapper(build), cv=2).fit(X, Y)
    expected = keras.ops.softmax(logits.estimator_.model_.predict(X, verbose=0))
    np.testing.assert_allclose(logits.transform(X), expected, atol=1e-6)
    squashed = wrapper(build, model_kwargs={"activation": "tanh"})
    with pytest.raises(ValueError, match="does not return probabilities"):
        KerasFeatureTransformer(squashed, cv=2).fit(X, Y)


@pytest.mark.slow
@pytest.mark.parametrize("make", [scikeras, wrapper], ids=["scikeras", "keras.wrappers"])
def test_one_row_has_features_of_the_usual_shape(make):
    stack = StackedKerasClassifier([("theirs", make())], downstream=make(), blend=False, cv=2)
    stack.fit(X, Y)
    assert stack.transform(X[:1]).shape == (1, 7)
    assert stack.predict_proba(X[:1]).shape == (1, 3)
    assert stack.predict(X[:1]).shape == (1,)
    np.testing.assert_allclose(stack.predict_proba(X[:1]), stack.predict_proba(X)[:1], atol=1e-5)


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("make", [scikeras, wrapper], ids=["scikeras", "keras.wrappers"])
def test_inner_layers_of_wrappers_are_out_of_fold_and_rotated(make):
    data, labels = load_iris(return_X_y=True)
    data = StandardScaler().fit_transform(data).astype(np.float32)
    if make is scikeras:
        network = make(epochs=3, batch_size=25, optimizer__learning_rate=0.5)
    else:
        network = make(
            lambda X, y: compiled(3, "softmax", rate=0.5),
            fit_kwargs={"epochs": 3, "batch_size": 25, "verbose": 0},
        )
    latent = KerasFeatureTransformer(network, layers="hidden", cv=2)
    crossed = LogisticRegression(max_iter=1000).fit(latent.fit_transform(data, labels), labels)
    assert latent.get_feature_names_out()[0] == "hidden_0"
    assert crossed.score(latent.transform(data), labels) > 0.8


class Doubled(ScikerasClassifier):
    """Its network reads X times 2."""

    @property
    def feature_encoder(self):
        return FunctionTransformer(lambda X: 2.0 * X)


def test_inner_layers_of_a_wrapper_see_what_its_feature_encoder_returns():
    fitted = Doubled(**scikeras(epochs=1).get_params()).fit(X, Y)
    found = KerasFeatureTransformer(FrozenEstimator(fitted), layers="hidden").fit(X).transform(X)
    model = fitted.model_
    hidden = keras.Model(model.inputs, model.get_layer("hidden").output)
    np.testing.assert_allclose(found, hidden.predict(2.0 * X, verbose=0), atol=1e-5)


# Frozen -----------------------------------------------------------------------------------------


@pytest.mark.slow(first=2)
@each_neighbour
def test_frozen_wrappers_are_not_trained(make):
    fitted = make().fit(X, Y)
    before = [value.copy() for value in fitted.model_.get_weights()]
    transformer = KerasFeatureTransformer(FrozenEstimator(fitted), layers="hidden")
    transformer.set_params(features="outputs")
    found = transformer.fit_transform(X[:40], Y[::-1][:40])
    np.testing.assert_allclose(found[:, :3], fitted.model_.predict(X[:40], verbose=0), atol=1e-6)
    assert found.shape == (40, 8)
    for value, first in zip(fitted.model_.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, first)


def test_the_documented_frozen_transformer_of_keras_works():
    """Pain 2: with scikit-learn alone it raises NotFittedError."""
    model = compiled(2)
    documented = FrozenEstimator(SKLearnTransformer(model))
    with pytest.raises(NotFittedError):
        documented.transform(X)
    found = KerasFeatureTransformer(documented).fit_transform(X)
    np.testing.assert_allclose(found, model.predict(X, verbose=0), atol=1e-6)
    stack = StackedKerasClassifier([("frozen", documented)], downstream=LogisticRegression())
    assert stack.fit(X, Y).transform(X).shape == (90, 6)


@pytest.mark.parametrize(
    "network",
    [
        SKLearnTransformer(lambda X, y: compiled(2)),
        SKLearnTransformer(keras.Sequential([layers.Dense(2)])),
        scikeras(),
        wrapper(),
    ],
    ids=["function", "unbuilt", "scikeras", "classifier"],
)
def test_unfitted_frozen_wrappers_are_refused(network):
    with pytest.raises(NotFittedError, match=type(network).__name__):
        KerasFeatureTransformer(FrozenEstimator(network)).fit_transform(X)


# Downstream -------------------------------------------------------------------------------------


@pytest.mark.slow(first=2)
@pytest.mark.parametrize("labels", [Y, CODES, BINARY], ids=["strings", "numbers", "binary"])
@pytest.mark.parametrize("make", [scikeras, wrapper], ids=["scikeras", "keras.wrappers"])
def test_wrappers_as_downstream_of_a_stack(make, labels):
    downstream = make()
    if make is scikeras and len(np.unique(labels)) == 2:
        downstream.set_params(loss="binary_crossentropy")
    stack = StackedKerasClassifier(
        KerasAutoencoder(epochs=1), downstream=downstream, random_state=0
    ).fit(X, labels)
    probabilities = stack.predict_proba(X)
    np.testing.assert_array_equal(stack.classes_, np.unique(labels))
    assert probabilities.shape == (90, len(stack.classes_))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(stack.predict(X), stack.classes_[probabilities.argmax(axis=1)])


@pytest.mark.slow(first=1)
@pytest.mark.parametrize(
    "network",
    [
        ScikerasRegressor(
            lambda meta: seeded(1, n_features=meta["n_features_in_"]), loss="mse", verbose=0
        ),
        SKLearnRegressor(
            lambda X, y: compiled(1, loss="mse", n_features=X.shape[1]), fit_kwargs={"verbose": 0}
        ),
    ],
    ids=["scikeras", "keras.wrappers"],
)
def test_wrappers_as_upstream_and_downstream_of_a_regression_stack(network):
    stack = StackedKerasRegressor([("theirs", network)], downstream=network, blend=False, cv=2)
    assert stack.fit(X, TARGET).predict(X).shape == (90,)
    assert stack.get_feature_names_out()[0] == "theirs__prediction"
    with pytest.raises(ValueError, match="it is a regressor"):
        StackedKerasClassifier([("theirs", network)], downstream=network).fit(X, Y)


@pytest.mark.parametrize(
    "downstream",
    [
        scikeras(validation_split=0.2),
        scikeras(fit__validation_split=0.2),
        wrapper(fit_kwargs={"validation_split": 0.2}),
        make_pipeline(StandardScaler(), scikeras(validation_split=0.2)),
    ],
    ids=["validation_split", "fit__validation_split", "fit_kwargs", "Pipeline"],
)
def test_validation_split_with_a_sampler_is_refused(downstream):
    stack = StackedKerasClassifier(
        KerasAutoencoder(epochs=1), downstream=downstream, sampler=RandomOverSampler(random_state=0)
    )
    with pytest.raises(ValueError, match="synthetic"):
        stack.fit(X, Y)


@pytest.mark.slow
def test_a_search_over_a_stack_of_wrappers():
    stack = StackedKerasClassifier(
        [
            ("first", scikeras(model__hidden=3, epochs=1)),
            ("second", wrapper(model_kwargs={"hidden": 3}, fit_kwargs={"epochs": 3, "verbose": 0})),
        ],
        downstream=make_pipeline(StandardScaler(), wrapper()),
        blend=False,
        cv=2,
        random_state=0,
    )
    grid = {"first__model__hidden": [3, 6], "second__model_kwargs": [{"hidden": 7}]}
    split = ShuffleSplit(1, random_state=0)
    search = GridSearchCV(stack, grid, cv=split, scoring="neg_log_loss", error_score="raise")
    best = search.fit(X, Y).best_estimator_
    first, second = (transformer.estimator_ for _, transformer, _ in best.upstream_)
    assert first.model_.get_layer("hidden").units == search.best_params_["first__model__hidden"]
    assert second.model_.get_layer("hidden").units == 7
    assert len(second.history_.history["loss"]) == 3
    assert len(best.downstream_[-1].history_.history["loss"]) == 2


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("make", [scikeras, wrapper], ids=["scikeras", "keras.wrappers"])
def test_wrappers_in_pipelines(make):
    pipeline = make_pipeline(
        StandardScaler(),
        KerasFeatureTransformer(make_pipeline(StandardScaler(), make()), passthrough=True, cv=2),
        LogisticRegression(),
    )
    scores = cross_validate(
        pipeline, X, Y, cv=HALF, scoring="roc_auc_ovr", return_estimator=True, error_score="raise"
    )
    for fitted in scores["estimator"]:
        history = fitted[1].estimator_.history_
        assert len(getattr(history, "history", history)["loss"]) == 2


# The neighbours' pains that ours do not have ----------------------------------------------------


def ours(**params):
    return skstack.KerasClassifier(**{"model": MLP((8,)), "epochs": 2, "random_state": 0, **params})


def test_pain_1_estimator_types_are_recognised_by_scikit_learn():
    """scikeras: is_classifier False, no stratified folds, AUC not a number."""
    assert is_classifier(ours())
    assert is_classifier(StackedKerasClassifier())
    assert is_regressor(KerasRegressor())
    assert not is_classifier(scikeras())
    order = np.argsort(BINARY, kind="stable")
    scores = cross_validate(
        ours(),
        X[order],
        BINARY[order] == "yes",
        scoring=["roc_auc", "average_precision"],
        cv=3,
        error_score="raise",
    )
    assert np.isfinite(scores["test_roc_auc"]).all()
    assert np.isfinite(scores["test_average_precision"]).all()


def test_pain_2_a_clone_trains_the_requested_epochs():
    """keras.wrappers: clone loses fit_kwargs, and AUC fails for lack of predict_proba."""
    assert clone(wrapper()).fit_kwargs is None
    scores = cross_validate(
        ours(epochs=4), X, Y, scoring="roc_auc_ovr", cv=2, return_estimator=True
    )
    assert [fitted.n_iter_ for fitted in scores["estimator"]] == [4, 4]
    assert np.isfinite(scores["test_score"]).all()


def test_pain_2_transformers_fit_without_y():
    """keras.wrappers: SKLearnTransformer.fit_transform(X) is a TypeError."""
    with pytest.raises(TypeError):
        SKLearnTransformer(compiled(2)).fit_transform(X)
    assert KerasAutoencoder(epochs=1).fit_transform(X).shape[0] == 90
    assert KerasFeatureTransformer(KerasAutoencoder(epochs=1)).fit_transform(X).shape[0] == 90


def test_pain_16_weights_are_not_shared_between_folds():
    """scikeras goes on training the network of the last fit where it was given a model."""
    given = seeded(3, "softmax")
    for estimator in (ours(), ours(model=given)):
        alone = clone(estimator).fit(X[45:], Y[45:]).predict_proba(X)
        again = clone(estimator).fit(X[:45], Y[:45]).fit(X[45:], Y[45:]).predict_proba(X)
        np.testing.assert_array_equal(alone, again)


def test_pain_18_a_pretrained_network_in_a_stack_keeps_its_weights():
    """keras.wrappers draws new weights for a given model, scikeras trains the user's object."""
    model = compiled(2, "tanh")
    before = [value.copy() for value in model.get_weights()]
    expected = model.predict(X, verbose=0)
    stack = StackedKerasClassifier(
        [("pretrained", model), ("tuned", ours(model=compiled(3, "softmax")))],
        downstream=ours(),
        scaler=None,
        cv=2,
    )
    search = GridSearchCV(stack, {"downstream__epochs": [1, 2]}, cv=HALF).fit(X, Y)
    table = search.best_estimator_.transform(X)
    np.testing.assert_allclose(table[:, :2], expected, atol=1e-6)
    for value, first in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, first)


def test_pain_20_callbacks_are_cloned_and_logs_have_their_usual_names():
    class Counting(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.epochs = 0

        def on_epoch_end(self, epoch, logs=None):
            self.epochs += 1
            logs["epochs"] = float(self.epochs)

    callback = Counting()
    estimator = clone(ours(callbacks=[callback], early_stopping=True))
    fitted = estimator.fit(X, Y, X_val=X[:30], y_val=Y[:30])
    assert fitted.history_["epochs"] == [1, 2]
    assert len(fitted.validation_scores_) == 2
    assert fitted.fit(X, Y, X_val=X[:30], y_val=Y[:30]).history_["epochs"] == [1, 2]
    assert callback.epochs == 0


def test_a_misspelt_parameter_is_an_error():
    """scikeras accepts KerasClassifier(f, epohcs=3)."""
    assert scikeras(epohcs=3).epohcs == 3
    for estimator in (skstack.KerasClassifier, KerasRegressor, StackedKerasClassifier):
        with pytest.raises(TypeError, match="epohcs"):
            estimator(epohcs=3)


def test_one_row_has_probabilities_of_shape_one_by_classes():
    """scikeras gives shape (2,)."""
    assert ours().fit(X, BINARY).predict_proba(X[:1]).shape == (1, 2)


def test_sample_weight_is_not_modified():
    """scikeras multiplies sample_weight by class_weight in place."""
    weights = np.ones(90)
    ours(class_weight={"no": 5.0, "yes": 1.0}).fit(X, BINARY, sample_weight=weights)
    np.testing.assert_array_equal(weights, 1)


def test_a_seed_does_not_change_process_settings():
    """scikeras switches deterministic kernels and global seeds."""
    python, numpy = random.getstate(), global_numbers()
    environment = dict(os.environ)
    ours().fit(X, Y)
    assert dict(os.environ) == environment
    assert random.getstate() == python
    np.testing.assert_array_equal(global_numbers(), numpy)


def test_parameters_are_unchanged_after_fit():
    """keras.wrappers writes into the constructor's dict; its epoch_ raises after a fit."""
    network = wrapper()
    network.fit(X[:14], Y[:14], batch_size=7)
    assert network.fit_kwargs["batch_size"] == 7
    estimator = ours()
    before = estimator.get_params()
    assert estimator.fit(X, Y).get_params() == before
    assert estimator.n_iter_ == 2


@pytest.mark.parametrize("blend", ["auto", False])
@pytest.mark.parametrize("own_cv", [False, True])
def test_a_splitter_without_a_seed_gets_that_of_the_estimator_around_it(blend, own_cv):
    """NumPy's global state neither decides on the folds nor moves."""
    cv = KFold(3, shuffle=True)
    part = KerasFeatureTransformer(LogisticRegression(), cv=cv, random_state=1)
    stack = StackedKerasClassifier(
        [("a", part if own_cv else part.model)],
        downstream=LogisticRegression(),
        blend=blend,
        cv=KFold(4) if own_cv else cv,
        random_state=None if own_cv else 0,
    )
    before = GLOBAL_STATE()[2]
    np.testing.assert_array_equal(part.fit_transform(X, Y), clone(part).fit_transform(X, Y))
    np.testing.assert_array_equal(stack.fit_transform(X, Y), clone(stack).fit_transform(X, Y))
    assert GLOBAL_STATE()[2] == before
    assert cv.random_state is None
    other = clone(part).set_params(random_state=2)
    assert (other.fit_transform(X, Y) != part.fit_transform(X, Y)).any()


def test_a_splitter_is_not_modified():
    """scikit-learn's StackingClassifier leaves a random state in the user's splitter."""
    splitter = KFold(2, shuffle=True)
    stack = StackedKerasClassifier([("a", ours())], downstream=ours(), cv=splitter, random_state=0)
    stack.set_params(blend=False).fit(X, Y)
    assert splitter.random_state is None
