"""Joint fine-tuning: a stack is trained further as one network, or left unchanged."""

import functools
import pickle
import random
import warnings
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from _models import SMALL
from imblearn.over_sampling import SMOTE, RandomOverSampler
from scipy import sparse
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer, RobustScaler

import skstack
from skstack import (
    FineTune,
    KerasAutoencoder,
    KerasClassifier,
    KerasFeatureTransformer,
    KerasRegressor,
    StackedKerasClassifier,
    StackedKerasRegressor,
)
from skstack._stack.fine_tune import _layers_to_unfreeze, named_layers
from skstack._stack.joint_network import JointNetwork
from skstack._training import train as training
from skstack.losses import TeacherLoss
from skstack.networks import MLP, TabM, recipe

RNG = np.random.default_rng(0)
X = RNG.standard_normal((240, 4)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] + X[:, 2] > 0).astype(int)
TARGET = X[:, 0] * X[:, 1] + X[:, 2] + 10
X_VAL, Y_VAL = X[200:], Y[200:]
DATA = {"X": X[:200], "y": Y[:200], "X_val": X_VAL, "y_val": Y_VAL}
pytestmark = pytest.mark.filterwarnings("ignore:cv=TimeSeriesSplit.* is time-ordered")

RISK = KerasClassifier(MLP(hidden_layer_sizes=(8, 6)), epochs=2)
DOWN = KerasClassifier(MLP(hidden_layer_sizes=(8,)), epochs=3)
QUICK = FineTune(epochs=3, learning_rate=1e-2)


def classifier(fine_tune=QUICK, upstream=RISK, **params):
    params = {"downstream": DOWN, "cv": 2, "random_state": 0, **params}
    upstream = upstream if isinstance(upstream, list) else [("risk", upstream)]
    params = {"blend": False, **params}
    return StackedKerasClassifier(upstream, fine_tune=fine_tune, **params)


@pytest.mark.slow
def test_targets_to_watch_in_one_column_are_one_target():
    linear = StackedKerasRegressor(
        [("net", KerasRegressor(SMALL, epochs=1)), ("linear", LinearRegression())],
        downstream=KerasRegressor(SMALL, epochs=1),
        fine_tune=FineTune(epochs=1, layers=["net/hidden_1"]),
        cv=2,
        random_state=0,
    )
    watched = {"X_val": X_VAL, "y_val": TARGET[200:]}
    expected = clone(linear).fit(X[:200], TARGET[:200], **watched)
    watched["y_val"] = pd.DataFrame({"target": TARGET[200:]})
    own = clone(linear).fit(X[:200], TARGET[:200], **watched)
    assert own.blend_scores_ == expected.blend_scores_


@pytest.fixture(scope="module")
def stages():
    """The stack without fine-tuning; tests only read it."""
    return classifier(None).fit(**DATA)


@pytest.fixture(scope="module")
def tuned():
    """The fine-tuned stack; tests only read it."""
    return classifier().fit(**DATA)


@pytest.fixture(scope="module")
def tuned_on_all():
    """The stack that holds out rows for fine-tuning itself; tests only read it."""
    return classifier().fit(X, Y)


def weights(network):
    return {path: array.copy() for path, array in network.variables.items()}


def upstream_network(stack, name="risk"):
    (upstream,) = stack.named_upstream_[name]._upstreams
    view = upstream.view
    return view.estimator.network_ if hasattr(view, "estimator") else view.network


def changed(before, after):
    """Layers of which some weights differ in some bit."""
    assert before.keys() == after.keys()
    return {path.partition("/")[0] for path in before if not same(before[path], after[path])}


def same(a, b):
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def pretrained(**flags):
    inputs = keras.Input((4,))
    x = keras.layers.Dense(8, activation="relu", name="low")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dense(6, activation="relu", name="high")(x)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="end")(x))
    for name, trainable in flags.items():
        model.get_layer(name).trainable = trainable
    return model


TEACHER = pretrained()


def spied(monkeypatch):
    """What the calls of tuning hand to training: (blueprint, rows, plan, validation)."""
    calls, train = [], training.train

    def spy(blueprint, start, rows, plan, *, validation=None, **others):
        if isinstance(blueprint, JointNetwork):
            calls.append((blueprint, rows, plan, validation))
        return train(blueprint, start, rows, plan, validation=validation, **others)

    monkeypatch.setattr(training, "train", spy)
    return calls


# What it brings -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_half_trained_upstream_recovers_what_joint_training_reaches():
    """At least 90 % of what lies between the stages and a network that is trained as a whole."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((1600, 6)).astype(np.float32)
    y = (rows[:, 0] * rows[:, 1] + rows[:, 2] * rows[:, 3] > 0).astype(int)
    train, test = slice(0, 1200), slice(1200, None)

    def loss(p):
        return keras.losses.BinaryCrossentropy()(y[test, None].astype("f4"), p)

    half = KerasFeatureTransformer(
        KerasClassifier(MLP(hidden_layer_sizes=(32, 16)), epochs=2), layers="hidden_2"
    )
    settings = {"downstream": KerasClassifier(MLP(hidden_layer_sizes=(16,)), epochs=5)}
    tuning = FineTune(
        epochs=80, learning_rate=3e-3, upstream_lr_multiplier=1.0, n_iter_no_change=15
    )
    stack = classifier(tuning, half, passthrough=False, **settings).fit(rows[train], y[train])
    stages = classifier(None, half, passthrough=False, **settings).fit(rows[train], y[train])

    keras.utils.set_random_seed(0)
    whole = keras.Sequential(
        [keras.layers.Dense(width, activation="relu") for width in (32, 16, 16)]
        + [keras.layers.Dense(1, activation="sigmoid")]
    )
    whole.compile(keras.optimizers.Adam(3e-3), "binary_crossentropy")
    stop = keras.callbacks.EarlyStopping(patience=15, restore_best_weights=True)
    held = slice(1080, 1200)
    whole.fit(
        rows[:1080], y[:1080], epochs=80, verbose=0, callbacks=[stop],
        validation_data=(rows[held], y[held]),
    )  # fmt: skip
    before, after = (float(loss(s.predict_proba(rows[test])[:, 1:])) for s in (stages, stack))
    joint = float(loss(whole.predict(rows[test], verbose=0)))
    assert before > joint + 0.2
    assert (before - after) / (before - joint) > 0.9


def test_it_is_off_by_default(stages):
    assert StackedKerasClassifier().fine_tune is None
    assert not stages.fine_tuned_
    assert stages.fine_tune_losses_ is None
    assert stages.fine_tune_history_ is None


# One step, by hand --------------------------------------------------------------------------------


@pytest.mark.slow(first=1)
@pytest.mark.parametrize(
    ("engine", "optimizer"),
    [
        ("auto", functools.partial(keras.optimizers.AdamW, weight_decay=0.5)),
        ("auto", keras.optimizers.SGD),
        ("keras", keras.optimizers.Adam),
    ],
)
def test_steps_equal_a_manual_loop_with_two_learning_rates(engine, optimizer):
    rate, share, epochs = 0.01, 0.25, 3
    smoothing, clipnorm = 0.2, 0.01  # as before, in the downstream
    down = clone(DOWN).set_params(
        model=MLP((8,), label_smoothing=smoothing),
        optimizer=optimizer(),
        clipnorm=clipnorm,
        batch_size=200,
        engine=engine,
        early_stopping=False,
    )
    tuning = FineTune(
        epochs, learning_rate=rate, upstream_lr_multiplier=share, early_stopping=False
    )
    start = classifier(None, downstream=down).fit(**DATA)
    tuned = classifier(tuning, downstream=down).fit(**DATA)
    assert tuned.fine_tuned_

    model = start.to_keras()
    upstream = {id(v) for v in model.get_layer("risk").trainable_variables}
    sides = [
        [v for v in model.trainable_variables if (id(v) in upstream) == below]
        for below in (True, False)
    ]
    assert all(sides)
    optimizers = [optimizer(rate * share), optimizer(rate)]
    target = (1 - smoothing) * Y[:200] + smoothing / 2
    for _ in range(epochs):
        with tf.GradientTape() as tape:
            p = model(X[:200])[:, 1]
            loss = -tf.reduce_mean(target * tf.math.log(p) + (1 - target) * tf.math.log(1 - p))
        gradients = tape.gradient(loss, [[v.value for v in side] for side in sides])
        norm = tf.linalg.global_norm(tf.nest.flatten(gradients))
        assert norm > clipnorm
        gradients = [[each * clipnorm / norm for each in side] for side in gradients]
        for each, grads, side in zip(optimizers, gradients, sides, strict=True):
            each.apply_gradients(zip(grads, side, strict=True))
    found = tuned.to_keras()
    for ours, theirs in zip(found.variables, model.variables, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_lr_multiplier_applies_to_moving_averages_of_weights():
    """A share of (nearly) nothing leaves the upstream where it was, averaged or not."""
    down = clone(DOWN).set_params(optimizer=keras.optimizers.Adam(use_ema=True, ema_momentum=0.5))
    tuning = FineTune(2, learning_rate=1e-2, upstream_lr_multiplier=1e-9)
    start = classifier(None, downstream=down).fit(**DATA)
    tuned = classifier(tuning, downstream=down).fit(**DATA)
    assert tuned.fine_tuned_
    for path, array in upstream_network(start).variables.items():
        np.testing.assert_allclose(upstream_network(tuned).variables[path], array, atol=1e-7)


@pytest.mark.slow
def test_both_engines_tune_equally(tuned_on_all):
    stacks = tuned_on_all, classifier(downstream=clone(DOWN).set_params(engine="keras")).fit(X, Y)
    assert all(stack.fine_tuned_ for stack in stacks)
    np.testing.assert_allclose(*(s.predict_proba(X) for s in stacks), atol=1e-5)
    np.testing.assert_allclose(*(s.fine_tune_history_["val_loss"] for s in stacks), atol=1e-5)


# The better of before and after -------------------------------------------------------------------


def test_a_worse_result_is_discarded(stages):
    absurd = FineTune(2, learning_rate=30.0, upstream_lr_multiplier=0.9, early_stopping=False)
    start, tuned = stages, classifier(absurd).fit(**DATA)
    before, after = tuned.fine_tune_losses_
    assert not tuned.fine_tuned_
    assert before < after < np.inf
    assert len(tuned.fine_tune_history_["val_loss"]) == 2
    assert np.array_equal(tuned.predict_proba(X), start.predict_proba(X))
    assert np.array_equal(tuned.transform(X), start.transform(X))
    assert tuned.named_upstream_.risk is tuned.upstream_[0][1]


def test_a_diverged_tuning_warns_and_leaves_the_stack_unchanged(stages):
    with pytest.warns(UserWarning, match="Fine-tuning diverged") as messages:
        diverged = classifier(FineTune(2, learning_rate=1e30)).fit(**DATA)
    assert messages[0].filename == __file__
    assert not diverged.fine_tuned_
    assert diverged.fine_tune_losses_[1] == np.inf
    assert np.array_equal(diverged.predict_proba(X), stages.predict_proba(X))


def test_losses_are_those_of_the_stack_on_the_hold_out_rows(stages, tuned):
    bce = keras.losses.BinaryCrossentropy()
    for stack, loss in zip((stages, tuned), tuned.fine_tune_losses_, strict=True):
        p = stack.predict_proba(X_VAL)[:, 1:]
        assert float(bce(Y_VAL[:, None].astype("f4"), p)) == pytest.approx(loss, abs=1e-6)
    best = min(tuned.fine_tune_history_["val_loss"])
    assert tuned.fine_tune_losses_[1] == pytest.approx(best, abs=1e-6)


def test_early_stopping_takes_the_best_epoch():
    tuning = FineTune(40, learning_rate=0.3, upstream_lr_multiplier=0.9, n_iter_no_change=2)
    stack = classifier(tuning).fit(X, Y)
    curve = stack.fine_tune_history_["val_loss"]
    assert len(curve) < 40
    assert min(curve) < curve[-1]
    assert stack.fine_tune_losses_[1] == pytest.approx(min(curve), abs=1e-6)
    tuning = FineTune(6, learning_rate=0.3, upstream_lr_multiplier=0.9, early_stopping=False)
    last = classifier(tuning).fit(X, Y)
    curve = last.fine_tune_history_["val_loss"]
    assert len(curve) == 6
    assert last.fine_tune_losses_[1] == pytest.approx(curve[-1], abs=1e-6)


def test_a_worse_stage_does_not_discard_the_previous_one(monkeypatch):
    train, stages = training.train, []

    def spoilt(blueprint, start, rows, plan, **others):
        if isinstance(blueprint, JointNetwork):
            stages.append(plan)
            if len(stages) == 2:
                plan = replace(plan, learning_rate=100.0)
        return train(blueprint, start, rows, plan, **others)

    monkeypatch.setattr(training, "train", spoilt)
    stack = classifier(clone(QUICK).set_params(epochs=4, unfreeze_every=2)).fit(X, Y)
    curve = stack.fine_tune_history_["val_loss"]
    assert len(stages) == 2
    assert min(curve[2:]) > min(curve[:2])
    assert stack.fine_tune_losses_[1] == pytest.approx(min(curve), abs=1e-6)


# All speak of the tuned network -------------------------------------------------------------------


def test_transform_and_to_keras_use_the_tuned_network(tuned_on_all, tmp_path):
    start, stack = classifier(FineTune(1, learning_rate=1e-12)).fit(X, Y), tuned_on_all
    assert stack.fine_tuned_
    assert np.abs(stack.transform(X)[:, 0] - start.transform(X)[:, 0]).max() > 1e-3
    p = stack.predict_proba(X)
    np.testing.assert_allclose(stack.downstream_.predict_proba(stack.transform(X)), p, atol=1e-6)
    np.testing.assert_allclose(stack.to_keras()(X), p, atol=1e-6)
    risk = stack.named_upstream_.risk
    assert risk is stack.upstream_[0][1]
    np.testing.assert_array_equal(risk.estimator_.predict_proba(X)[:, 1:], risk.transform(X))
    np.testing.assert_allclose(
        risk.estimator_.model_.predict(X, verbose=0), risk.transform(X), atol=1e-6
    )

    again = pickle.loads(pickle.dumps(stack))
    skstack.save(stack, tmp_path / "stack.skstack")
    loaded = skstack.load(tmp_path / "stack.skstack")
    for other in (again, loaded):
        assert np.array_equal(other.predict_proba(X), p)
        assert np.array_equal(other.transform(X), stack.transform(X))
        assert other.fine_tuned_
        assert other.fine_tune_losses_ == stack.fine_tune_losses_
        assert other.fine_tune_history_ == stack.fine_tune_history_
        assert other.fine_tune.get_params() == stack.fine_tune.get_params()


@pytest.mark.slow
def test_a_tuned_copy_of_a_pretrained_network_is_saved_with_its_weights(tmp_path):
    stack = classifier(upstream=pretrained()).fit(X, Y)
    assert stack.fine_tuned_
    p = stack.predict_proba(X)
    np.testing.assert_allclose(stack.to_keras()(X), p, atol=1e-6)
    skstack.save(stack, tmp_path / "stack.skstack")
    for other in (pickle.loads(pickle.dumps(stack)), skstack.load(tmp_path / "stack.skstack")):
        assert np.array_equal(other.predict_proba(X), p)
    clone(stack).fit(X, Y)  # a clone knows nothing of it
    assert np.array_equal(stack.predict_proba(X), p)


def test_features_of_hold_out_rows_come_from_the_tuned_network():
    table = (stack := classifier()).fit_transform(X, Y)
    new = stack.transform(X)
    held_out = np.isclose(table, new, atol=1e-6).all(axis=1)
    assert stack.fine_tuned_
    assert held_out.sum() == 24


def test_another_fit_without_it_resets_its_attributes():
    stack = classifier().fit(X, Y)
    stack.set_params(fine_tune=None).fit(X, Y)
    assert not stack.fine_tuned_
    assert stack.fine_tune_history_ is None


def test_the_same_seed_gives_bit_identical_results(tuned_on_all):
    a, b = tuned_on_all, classifier().fit(X, Y)
    assert np.array_equal(a.predict_proba(X), b.predict_proba(X))
    other = classifier(clone(QUICK).set_params(random_state=7)).fit(X, Y)
    assert not np.array_equal(a.predict_proba(X), other.predict_proba(X))


# In a search --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_its_parameters_are_searched_and_it_may_be_none():
    grid = [
        {"fine_tune": [None, QUICK]},
        {"fine_tune__epochs": [1, 2], "risk__epochs": [1]},
    ]
    search = GridSearchCV(classifier(), grid, cv=2, scoring="neg_log_loss").fit(X, Y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.predict_proba(X).shape == (240, 2)
    lengths = {
        epochs: len(clone(classifier()).set_params(fine_tune__epochs=epochs).fit(X, Y)
                    .fine_tune_history_["loss"])
        for epochs in (1, 2)
    }  # fmt: skip
    assert lengths == {1: 1, 2: 2}
    assert QUICK.epochs == 3


def test_parameters_of_none_are_refused_with_advice():
    with pytest.raises(ValueError, match=r"Pass fine_tune=FineTune\(\)"):
        classifier(None).set_params(fine_tune__epochs=2)


@pytest.mark.parametrize(
    "params",
    [
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"upstream_lr_multiplier": 1.5},
        {"layers": "some"},
        {"layers": 0},
        {"unfreeze_every": 0},
        {"validation_fraction": 1.0},
    ],
)
def test_its_parameters_are_checked_before_anything_is_trained(params, monkeypatch):
    monkeypatch.setattr(training, "train", None)
    with pytest.raises(ValueError, match=next(iter(params))):
        classifier(FineTune(**params)).fit(X, Y)
    with pytest.raises(ValueError, match="fine_tune"):
        classifier("yes").fit(X, Y)


# Regressors, branches, features -------------------------------------------------------------------


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("loss", ["auto", keras.losses.Huber()])
def test_regressors_are_tuned_on_standardised_targets(loss):
    upstream = KerasRegressor(MLP(hidden_layer_sizes=(8,)), epochs=1)
    down = KerasRegressor(MLP(hidden_layer_sizes=(8,)), epochs=1, loss=loss)
    stack = StackedKerasRegressor(
        upstream, downstream=down, blend=False, cv=3, random_state=0, fine_tune=QUICK
    ).fit(X, TARGET)
    assert stack.fine_tuned_
    assert abs(stack.predict(X).mean() - 10) < 2
    np.testing.assert_allclose(
        stack.to_keras().predict(X, verbose=0)[:, 0], stack.predict(X), rtol=1e-5
    )


@pytest.mark.slow
def test_several_targets_classes_and_labels_are_tuned():
    many = StackedKerasRegressor(
        KerasRegressor(SMALL, epochs=1), downstream=KerasRegressor(SMALL, epochs=1), cv=3,
        random_state=0, fine_tune=QUICK,
    ).fit(X, np.c_[TARGET, -TARGET])  # fmt: skip
    assert many.fine_tuned_
    assert many.predict(X).shape == (240, 2)
    words = np.array(["no", "perhaps", "yes"])[np.digitize(TARGET, [9.5, 10.5])]
    three = classifier().fit(X, words)
    assert three.fine_tuned_
    assert set(three.predict(X)) <= set(words)
    labels = np.c_[Y, TARGET > 10]
    assert classifier().fit(X, labels).predict(X).shape == (240, 2)


@pytest.mark.slow
def test_all_kinds_of_branches_are_tuned_side_by_side():
    """Inner layers, latents, errors, formulas, steps before a network, columns that pass."""
    upstream = [
        ("risk", KerasFeatureTransformer(RISK, layers="hidden_1", cv=3, passthrough=True)),
        (
            "odds",
            make_pipeline(
                QuantileTransformer(n_quantiles=20),
                KerasFeatureTransformer(
                    RISK, features=["log_odds", "entropy", "margin"], cv=3, passthrough=True
                ),
            ),
            [0, 1],
        ),
        (
            "auto",
            KerasFeatureTransformer(
                KerasAutoencoder(epochs=1), features=["outputs", "reconstruction_error"], cv=3
            ),
        ),
        ("teacher", pretrained(), [3, 2, 1, 0]),
    ]
    stack = classifier(upstream=upstream, scaler=RobustScaler(), passthrough=[2]).fit(X, Y)
    assert stack.fine_tuned_
    curve, (before, after) = stack.fine_tune_history_["val_loss"], stack.fine_tune_losses_
    # What is trained is what predicts.
    assert after == pytest.approx(min(curve), abs=1e-6)
    assert after < before - 0.01
    start = classifier(None, upstream, scaler=RobustScaler(), passthrough=[2])
    start.fit(**DATA)
    stack.fit(**DATA)
    for name in ("risk", "odds", "auto", "teacher"):
        moved = changed(
            weights(upstream_network(start, name)), weights(upstream_network(stack, name))
        )
        assert moved
        assert not any(layer.startswith("numeric_") for layer in moved)
    assert "decoded" not in changed(
        weights(upstream_network(start, "auto")), weights(upstream_network(stack, "auto"))
    )


@pytest.mark.slow
def test_categories_and_sparse_rows_reach_the_joint_network(tuned_on_all):
    frame = pd.DataFrame(X, columns=list("abcd"))
    frame["job"] = pd.Categorical(RNG.choice(["x", "y", "z"], 240))
    stack = classifier().fit(frame, Y)
    assert stack.fine_tuned_
    assert stack.fine_tune_losses_[1] == pytest.approx(
        min(stack.fine_tune_history_["val_loss"]), abs=1e-6
    )
    thin = classifier().fit(sparse.csr_array(X), Y)
    np.testing.assert_allclose(thin.predict_proba(X), tuned_on_all.predict_proba(X), atol=1e-6)


@pytest.mark.slow
def test_branches_without_named_layers_may_be_anything_and_are_unchanged():
    upstream = [
        ("risk", RISK),
        ("linear", LogisticRegression()),
        ("codes", KerasFeatureTransformer(RISK, features="codes", cv=3)),
        ("mean", KerasFeatureTransformer(RISK, refit=False, cv=3)),
    ]
    tuning = clone(QUICK).set_params(layers=["risk/hidden_2"])
    start = classifier(None, upstream).fit(**DATA)
    stack = classifier(tuning, upstream).fit(**DATA)
    assert stack.fine_tuned_
    moved = changed(weights(upstream_network(start)), weights(upstream_network(stack)))
    assert moved == {"hidden_2"}
    for place in (1, 2, 3):
        before, after = start.upstream_[place][1], stack.upstream_[place][1]
        assert np.array_equal(before.transform(X), after.transform(X))


# Unfreezing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "moved"),
    [
        ("all", {"hidden_1", "hidden_2", "output"}),
        (1, {"output"}),
        (2, {"hidden_2", "output"}),
        (9, {"hidden_1", "hidden_2", "output"}),
        (["risk/hidden_1"], {"hidden_1"}),
        (("risk/hidden_1", "risk/output"), {"hidden_1", "output"}),
    ],
)
def test_the_requested_layers_are_selected(layers, moved, stages):
    network, tuning = joint(stages), FineTune(layers=layers)
    selected = _layers_to_unfreeze(tuning, network, named_layers(tuning, ["risk"]))
    assert selected == {"risk": sorted(moved)}
    trainable = network.with_unfrozen(X[:2], selected).build().get_layer("risk").trainable_variables
    assert {v.path.partition("/")[0] for v in trainable} == moved


def test_the_selected_layers_are_trained_and_no_others(stages, tuned):
    some = classifier(clone(QUICK).set_params(layers=["risk/hidden_1", "risk/output"]))
    all_layers = {"hidden_1", "hidden_2", "output"}
    for stack, moved in ((tuned, all_layers), (some.fit(**DATA), {"hidden_1", "output"})):
        assert stack.fine_tuned_
        after = weights(upstream_network(stack))
        assert changed(weights(upstream_network(stages)), after) == moved
        assert set(stack.fine_tune_history_["n_thawed"]) == {len(moved)}
        below = changed(weights(stages.downstream_.network_), weights(stack.downstream_.network_))
        assert below == {"hidden_1", "output"}


def test_layers_are_unfrozen_one_by_one_from_the_top(monkeypatch, stages):
    calls = spied(monkeypatch)
    stack = classifier(FineTune(7, learning_rate=1e-2, unfreeze_every=2)).fit(X, Y)
    assert stack.fine_tune_history_["n_thawed"] == [1, 1, 2, 2, 3, 3, 3]
    assert [plan.epochs for _, _, plan, _ in calls] == [2, 2, 3]
    learning = [
        {v.path.partition("/")[0] for v in blueprint.build().get_layer("risk").trainable_variables}
        for blueprint, *_ in calls
    ]
    top, second, third = "output", "hidden_2", "hidden_1"
    assert learning == [{top}, {top, second}, {top, second, third}]
    assert len({blueprint.key for blueprint, *_ in calls}) == 3
    tuned = classifier(FineTune(2, learning_rate=1e-2, unfreeze_every=1)).fit(**DATA)
    moved = changed(weights(upstream_network(stages)), weights(upstream_network(tuned)))
    assert moved == {top, second}  # the third is not reached


@pytest.mark.slow(first=1)
@pytest.mark.parametrize(
    ("params", "moves"),
    [
        ({}, False),
        ({"batch_normalization": True}, True),
        ({"layers": ["risk/norm", "risk/high"]}, True),
        ({"layers": ["risk/high"], "batch_normalization": True}, False),
    ],
)
def test_batch_normalization_is_trained_only_on_request(params, moves):
    model = pretrained()
    before = {v.path: v.numpy() for v in model.variables}
    stack = classifier(clone(QUICK).set_params(**params), model).fit(X, Y)
    assert stack.fine_tuned_
    moved = changed(before, weights(upstream_network(stack)))
    assert ("norm" in moved) == moves
    assert "high" in moved
    after = upstream_network(stack).variables
    statistics = same(before["norm/moving_mean"], after["norm/moving_mean"])
    assert statistics != moves


# What is frozen -----------------------------------------------------------------------------------


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_non_trainable_layers_are_never_modified_in_any_fit(engine):
    model = pretrained(low=False, norm=False)
    before = {v.path: v.numpy() for v in model.variables}
    fixed = {path for path in before if path.startswith(("low", "norm"))}

    def check(network):
        after = network.variables
        assert all(same(before[path], after[path]) for path in fixed)
        assert not same(before["high/kernel"], after["high/kernel"])

    down = clone(DOWN).set_params(engine=engine)
    alone = KerasClassifier(model, epochs=2, engine=engine, random_state=0).fit(X, Y)
    check(alone.network_)
    check(alone.partial_fit(X, Y).network_)
    check(alone.set_params(warm_start=True).fit(X, Y).network_)
    further = KerasClassifier(FrozenEstimator(alone), epochs=1, engine=engine).fit(X, Y)
    check(further.network_)
    tuning = clone(QUICK).set_params(batch_normalization=True)
    check(upstream_network(classifier(tuning, model, downstream=down).fit(X, Y)))
    stack = classifier(tuning.set_params(layers=9), FrozenEstimator(alone), downstream=down)
    check(upstream_network(stack.fit(X, Y)))


def test_non_trainable_layers_of_a_trained_network_are_never_modified():
    model = pretrained(low=False, norm=False)
    tuning = clone(QUICK).set_params(layers=9, batch_normalization=True)
    network = upstream_network(classifier(tuning, KerasClassifier(model, epochs=1)).fit(X, Y))
    for variable in model.variables:
        before, after = variable.numpy(), network.variables[variable.path]
        assert same(before, after) == variable.path.startswith(("low", "norm"))
    own = classifier(downstream=KerasClassifier(pretrained_for_table(), epochs=1)).fit(X, Y)
    assert own.fine_tuned_
    assert same(own.downstream_.network_.variables["low/kernel"], np.eye(5, 4, dtype="f4"))


def pretrained_for_table():
    inputs = keras.Input((5,))
    x = keras.layers.Dense(4, name="low", trainable=False, kernel_initializer="zeros")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x))
    model.get_layer("low").set_weights([np.eye(5, 4), np.zeros(4)])
    return model


def test_standardising_layers_are_unchanged(stages, tuned):
    model, other = stages.to_keras(), tuned.to_keras()
    names = {v.path for v in model.non_trainable_variables}
    assert any("scaler" in v.path or "centre" in v.path for v in model.variables)
    for ours, theirs in zip(other.variables, model.variables, strict=True):
        assert same(ours.numpy(), theirs.numpy()) == (theirs.path in names)


def test_networks_without_trainable_weights_are_refused_before_training(monkeypatch):
    model = pretrained()
    model.trainable = False
    monkeypatch.setattr(training, "train", None)
    with pytest.raises(ValueError, match="set trainable=True there first"):
        classifier(upstream=model).fit(X, Y)
    part = pretrained(low=False)
    tuning = clone(QUICK).set_params(layers=["risk/low"])
    with pytest.raises(ValueError, match="'low' of the upstream 'risk' has no trainable weights"):
        classifier(tuning, part).fit(X, Y)


@pytest.mark.slow
def test_a_model_and_a_file_that_were_passed_never_change(tmp_path):
    model = pretrained()
    path = tmp_path / "teacher.keras"
    model.save(path)
    fitted = clone(RISK).set_params(random_state=0).fit(X, Y)
    file, bits = path.read_bytes(), [v.numpy() for v in model.variables]
    flags = [layer.trainable for layer in model.layers]
    inside = weights(fitted.network_)
    frozen = KerasFeatureTransformer(model).fit(X)
    remembered = frozen.transform(X)
    upstream = [("model", model), ("file", str(path)), ("fitted", FrozenEstimator(fitted))]
    params = {"n": upstream}
    stack = classifier(upstream=params["n"]).fit(X, Y)
    assert stack.fine_tuned_
    for name in ("model", "file"):
        own = upstream_network(stack, name).variables
        assert not same(own["high/kernel"], model.get_layer("high").kernel.numpy())
    assert not same(
        upstream_network(stack, "fitted").variables["hidden_1/kernel"], inside["hidden_1/kernel"]
    )
    assert all(same(v.numpy(), before) for v, before in zip(model.variables, bits, strict=True))
    assert [layer.trainable for layer in model.layers] == flags
    assert path.read_bytes() == file
    assert all(same(array, inside[name]) for name, array in fitted.network_.variables.items())
    # What was remembered of the frozen network is not what the tuned copy gives.
    assert np.array_equal(frozen.transform(X), remembered)
    assert np.array_equal(KerasFeatureTransformer(model).fit(X).transform(X), remembered)
    assert np.abs(stack.named_upstream_.model.transform(X) - remembered).max() > 1e-3
    assert params["n"] is stack.upstream
    assert stack.upstream[0][1] is model


def test_stored_fits_are_those_before_tuning(tmp_path):
    risk = KerasFeatureTransformer(
        clone(RISK).set_params(random_state=0), cv=3, memory=str(tmp_path), random_state=0
    )
    first, second = (classifier(upstream=risk).fit(X, Y) for _ in range(2))
    assert first.fine_tune_losses_ == second.fine_tune_losses_
    assert np.array_equal(first.predict_proba(X), second.predict_proba(X))


# Rows: those that learn, those that watch, what they weigh ----------------------------------------


def test_rows_are_held_out_before_anything_is_learned(monkeypatch):
    calls = spied(monkeypatch)
    stack = classifier(clone(QUICK).set_params(validation_fraction=0.25)).fit(X, Y)
    ((_, rows, _, held_out),) = calls
    assert len(rows) == 180
    assert len(held_out) == 60
    assert abs(held_out.targets.mean() - Y.mean()) < 0.02  # stratified
    assert stack.scaler_.n_samples_seen_ == 180
    known = rows.inputs["rows_0"]
    moments = stack.named_upstream_.risk.estimator_.moments_["numeric"]
    np.testing.assert_allclose(moments[0], known.mean(axis=0), atol=1e-6)
    together = np.vstack([known, held_out.inputs["rows_0"]])
    assert {row.tobytes() for row in together} == {row.tobytes() for row in X}


def test_tuning_monitors_the_rows_that_the_downstream_monitors(monkeypatch):
    calls = spied(monkeypatch)
    down = clone(DOWN).set_params(early_stopping=True, validation_fraction=0.5)
    stack = classifier(downstream=down).fit(X, Y)
    assert len(calls[0][3]) == 120
    assert stack.downstream_.validation_scores_ is not None
    classifier().fit(X[:200], Y[:200], X_val=X_VAL, y_val=Y_VAL)
    _, rows, _, held_out = calls[1]
    assert len(rows) == 200
    assert same(held_out.inputs["rows_0"], X_VAL)
    # Held out for tuning alone: the downstream does not stop early.
    assert classifier().fit(X, Y).downstream_.validation_scores_ is None


def test_whole_groups_and_the_last_rows_of_a_series_are_held_out(monkeypatch):
    calls = spied(monkeypatch)
    groups = np.repeat(np.arange(24), 10)
    classifier().fit(X, Y, groups=groups)
    held = {row.tobytes() for row in calls[0][3].inputs["rows_0"]}
    aside = np.array([row.tobytes() in held for row in X])
    assert 0 < aside.sum() < 120
    assert not set(groups[aside]) & set(groups[~aside])
    classifier(cv=TimeSeriesSplit(3)).fit(X, Y)
    assert same(calls[1][3].inputs["rows_0"], X[216:])
    assert same(calls[1][1].inputs["rows_0"], X[:216])


def test_sample_weights_reach_the_loss(monkeypatch):
    calls = spied(monkeypatch)
    w = RNG.uniform(0.5, 2, 240)
    stack = classifier().fit(X, Y, sample_weight=w)
    best = min(stack.fine_tune_history_["val_loss"])
    assert stack.fine_tune_losses_[1] == pytest.approx(best, abs=1e-6)
    _, rows, plan, held_out = calls[0]
    assert plan.dense_gradients  # else weights would not count as rows in embeddings
    by_row = {row.tobytes(): weight for row, weight in zip(X, w, strict=True)}
    for part in (rows, held_out):
        expected = [by_row[row.tobytes()] for row in part.inputs["rows_0"]]
        np.testing.assert_allclose(part.weights, expected)


def test_rows_of_weight_zero_do_not_affect_training():
    w = np.r_[np.ones(150), np.zeros(50)]
    odd = Y[:200].copy()
    odd[150:] = 1 - odd[150:]
    watched = {"X_val": X_VAL, "y_val": Y_VAL}
    stacks = [
        classifier(upstream=TEACHER).fit(X[:200], y, sample_weight=w, **watched)  # no folds
        for y in (Y[:200], odd)
    ]
    without = classifier(upstream=TEACHER).fit(X[:150], Y[:150], **watched)
    assert without.fine_tuned_
    for stack in stacks:
        np.testing.assert_array_equal(stack.predict_proba(X), without.predict_proba(X))


@pytest.mark.slow
def test_weights_of_embedded_categories_count_as_repeated_rows():
    """Also with Adam, which squares the gradient of a category, not of its rows one by one."""
    table = pd.DataFrame(X[:60], columns=list("abcd"))
    table["town"] = [f"town {number % 12}" for number in range(60)]
    weights = 1 + np.arange(60) % 3
    rows = np.repeat(np.arange(60), weights)
    whole = {"batch_size": 500, "early_stopping": False}

    def tuned(index, weights=None):
        halves = index < 30, index >= 30
        folds = [tuple(map(np.flatnonzero, pair)) for pair in (halves, halves[::-1])]
        return classifier(
            FineTune(epochs=10, learning_rate=1e-2, early_stopping=False),
            clone(RISK).set_params(optimizer="sgd", **whole),
            downstream=clone(DOWN).set_params(**whole),
            cv=folds,
        ).fit(table.iloc[index], Y[index], sample_weight=weights, X_val=table, y_val=Y[:60])

    one, other = tuned(np.arange(60), weights), tuned(rows)
    assert one.fine_tuned_
    assert other.fine_tuned_
    np.testing.assert_allclose(one.predict_proba(table), other.predict_proba(table), atol=1e-4)


RARE = np.r_[np.flatnonzero(Y == 0), np.flatnonzero(Y == 1)[:24]]


@pytest.mark.slow(first=2)
@pytest.mark.parametrize(
    ("where", "sampler"),
    [
        ("stack", SMOTE(random_state=0)),
        ("downstream", RandomOverSampler(random_state=0)),
        ("stack", RandomOverSampler(random_state=0)),
        ("downstream", SMOTE(random_state=0)),
    ],
)
def test_class_weights_replace_a_sampler(monkeypatch, where, sampler):
    calls = spied(monkeypatch)
    rows, y = X[RARE], Y[RARE]
    if where == "stack":
        stack = classifier(sampler=sampler)
    else:
        stack = classifier(downstream=clone(DOWN).set_params(sampler=sampler))
    stack.fit(rows, y)
    ((_, given, _, held_out),) = calls
    assert len(given) + len(held_out) == len(rows)  # real ones
    by_class = []
    for part in (given, held_out):
        codes = part.targets[:, 0]
        each = [np.unique(part.weights[codes == code]) for code in (0, 1)]
        by_class.append(np.concatenate(each))
    np.testing.assert_allclose(*by_class)
    counts = np.bincount(given.targets[:, 0].astype(int))
    np.testing.assert_allclose(counts * by_class[0] / len(given), [0.5, 0.5], rtol=1e-6)


def test_class_weights_are_applied_once_with_a_sampler(monkeypatch):
    calls = spied(monkeypatch)
    rows, y = X[RARE], Y[RARE]
    for class_weight in ("balanced", {0: 1.0, 1: 3.0}):
        down = clone(DOWN).set_params(class_weight=class_weight)
        classifier(sampler=RandomOverSampler(random_state=0), downstream=down).fit(rows, y)
    shares = []
    for _, given, *_ in calls:
        codes = given.targets[:, 0]
        shares.append(given.weights[codes == 1].sum() / given.weights[codes == 0].sum())
    np.testing.assert_allclose(shares, [1.0, 3.0], rtol=1e-6)


@pytest.mark.slow
def test_corrected_priors_are_those_of_the_rows_after_tuning():
    """Over a sampler that gives equal shares, probabilities average to the true share again."""
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((1500, 3)).astype(np.float32)
    y = (rng.random(1500) < 1 / (1 + np.exp(2.5 - rows[:, 0]))).astype(int)
    tuning = FineTune(epochs=10, learning_rate=3e-3)
    stack = classifier(
        tuning, sampler=RandomOverSampler(random_state=0), prior_correction=True
    ).fit(rows, y)
    assert stack.fine_tuned_
    assert abs(stack.predict_proba(rows)[:, 1].mean() - y.mean()) < 0.04
    plain = stack.downstream_.predict_proba(stack.transform(rows))[:, 1].mean()
    assert plain > y.mean() + 0.15


# Refusals -----------------------------------------------------------------------------------------


@recipe
def nested(spec):
    inputs = spec.inputs()
    x = spec.join(inputs)
    inner = keras.Input((x.shape[1],))
    layers = keras.layers.Dense(5, name="deep")(keras.layers.Dense(6, name="deeper")(inner))
    inner = keras.Model(inner, layers, name="inner")
    return keras.Model(inputs, spec.outputs(inner(x)))


@pytest.mark.slow
def test_layers_inside_models_are_named_by_path_or_alone():
    upstream = KerasClassifier(nested(), epochs=1)
    start = classifier(None, upstream).fit(**DATA)
    names = {
        "risk/inner/deep": {"inner/deep"},
        "risk/deep": {"inner/deep"},
        "risk/inner": {"inner/deep", "inner/deeper"},
        "risk/output": {"output"},
    }
    network = joint(start)
    for name, expected in names.items():
        tuning = FineTune(layers=[name])
        selected = _layers_to_unfreeze(tuning, network, named_layers(tuning, ["risk"]))
        assert set(selected["risk"]) == expected
    tuned = classifier(clone(QUICK).set_params(layers=["risk/deep"]), upstream).fit(**DATA)
    moved = changed(weights(upstream_network(start)), weights(upstream_network(tuned)))
    assert moved == {"deep"}


class InItsOwnWay(keras.Model):
    """A network with a custom train_step."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.dense = keras.layers.Dense(1, activation="sigmoid")

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        return super().train_step(data)


def built(model, width):
    model(np.zeros((1, width), np.float32))
    return model


@pytest.mark.parametrize(
    ("params", "tuning", "message"),
    [
        (
            {"downstream": KerasClassifier(built(InItsOwnWay(name="odd"), 5))},
            {},
            "the network 'odd' of the downstream KerasClassifier has a custom train_step",
        ),
        (
            {"downstream": KerasClassifier(input_shape=(5, 1))},
            {},
            "the downstream KerasClassifier has input_shape=",
        ),
        ({"upstream": LogisticRegression()}, {}, "the upstream 'risk' is LogisticRegression"),
        (
            {"upstream": [("risk", RISK), ("tree", HistGradientBoostingClassifier())]},
            {},
            "the upstream 'tree' is HistGradientBoostingClassifier",
        ),
        ({"downstream": LogisticRegression()}, {}, "the downstream LogisticRegression is no"),
        ({"downstream": make_pipeline(DOWN)}, {}, "the downstream Pipeline is not a network"),
        (
            {"upstream": KerasFeatureTransformer(RISK, features="codes")},
            {},
            "features='codes' of the upstream 'risk' have no gradient",
        ),
        ({"refit": False}, {}, "the upstream 'risk' has refit=False"),
        ({"scaler": QuantileTransformer(n_quantiles=9)}, {}, "Transformer is not supported"),
        ({"upstream": [("risk", "drop")]}, {}, "the stack has no upstream"),
        ({}, {"layers": ["hidden_1"]}, "the branches are \\['risk'\\]"),
        ({}, {"layers": ["other/hidden_1"]}, "'other/hidden_1'"),
        ({}, {"layers": [3]}, "holds 3"),
        ({}, {"layers": True}, "layers=True is a truth value"),
        ({}, {"layers": []}, "names no layer"),
        ({}, {"layers": ["risk/hiden_1"]}, "no layer named 'hiden_1'. Its layers are"),
        ({"upstream": pretrained()}, {"layers": ["risk/lower"]}, "no layer named 'lower'"),
        (
            {"upstream": make_pipeline(RobustScaler(), KerasFeatureTransformer(RISK))},
            {"layers": ["risk/hiden_1"]},
            "no layer named 'hiden_1'",
        ),
        (
            {"upstream": StackedKerasClassifier([("inner", RISK)], downstream=DOWN)},
            {},
            "the upstream 'risk' is StackedKerasClassifier",
        ),
    ],
)
def test_invalid_parts_are_refused_by_name_before_training(params, tuning, message, monkeypatch):
    monkeypatch.setattr(training, "train", None)
    with pytest.raises(ValueError, match=message):
        classifier(clone(QUICK).set_params(**tuning), **params).fit(X, Y)


def taught(network, n_features, **settings):
    """A network with a fitted linear teacher."""
    teacher = LogisticRegression().fit(RNG.standard_normal((50, n_features)), Y[:50])
    return clone(network).set_params(loss=TeacherLoss(teacher, **settings))


@pytest.mark.parametrize("mode", ["blend", "head"])
def test_a_teacher_that_cannot_be_joined_is_refused_before_training(mode, monkeypatch):
    """Predictions for the table of the downstream, which changes with the branches."""
    monkeypatch.setattr(training, "train", None)
    message = f"fine_tune: the downstream KerasClassifier has a teacher with mode='{mode}'"
    with pytest.raises(ValueError, match=message):
        classifier(downstream=taught(DOWN, 5, mode=mode)).fit(X, Y)


def test_a_teacher_whose_term_needs_another_output_is_refused_before_training(monkeypatch):
    teacher = clone(DOWN).fit(np.c_[X, Y], Y)
    down = clone(DOWN).set_params(loss=TeacherLoss(teacher, mode="features"))
    monkeypatch.setattr(training, "train", None)
    with pytest.raises(ValueError, match=r"teacher with mode='features'.*use mode='distill'"):
        classifier(downstream=down).fit(X, Y)


@pytest.mark.slow(first=1)
@pytest.mark.parametrize(
    ("network", "settings"),
    [
        (MLP((7,)), {"weight": 0.5, "temperature": 2.0}),
        (MLP((7,)), {"weight": 1.0}),
        (TabM(n_members=3, hidden_layer_sizes=(7,)), {"weight": 1.0}),
    ],
)
def test_the_term_of_a_teacher_is_a_part_of_the_loss(network, settings):
    """A teacher that always says 0.5: labels count less, or not at all."""
    teacher = DummyClassifier(strategy="prior").fit(np.zeros((4, 5)), [0, 1, 0, 1])
    down = clone(DOWN).set_params(model=network, loss=TeacherLoss(teacher, **settings))
    tuning = FineTune(20, learning_rate=0.02, early_stopping=False)
    tuned = classifier(tuning, downstream=down).fit(**DATA)
    assert tuned.fine_tuned_
    p = tuned.predict_proba(X_VAL)[:, 1].astype(float)
    weight, temperature = settings["weight"], settings.get("temperature", 1.0)
    soft = 1 / (1 + np.exp(-np.log(p / (1 - p)) / temperature))
    divergence = np.mean(-0.5 * np.log(4 * soft * (1 - soft)))
    expected = (1 - weight) * log_loss(Y_VAL, p) + weight * temperature**2 * divergence
    assert tuned.fine_tune_losses_[1] == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert tuned.fine_tune_history_["val_loss"][-1] == pytest.approx(expected, rel=1e-3, abs=1e-5)
    if weight == 1.0:
        assert np.abs(p - 0.5).max() < 0.1


@pytest.mark.slow
def test_other_teachers_take_part():
    for settings in ({"mode": "distill"}, {"mode": "blend", "teacher_at_predict": False}):
        upstream, down = taught(RISK, 4, **settings), taught(DOWN, 5, **settings)
        assert classifier(upstream=upstream, downstream=down).fit(X, Y).fine_tuned_


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("mode", ["blend", "head"])
def test_predictions_of_the_teacher_of_a_branch_are_inputs(mode):
    """Of any estimator; a network as the teacher is tuned in the same way, and never changed."""
    linear = LogisticRegression().fit(X[:50], Y[:50])
    network = clone(RISK).fit(X, Y)
    before = weights(network.network_)
    for teacher in (linear, network):
        branch = clone(RISK).set_params(loss=TeacherLoss(teacher, mode=mode))
        tuned = classifier(upstream=branch).fit(**DATA)
        assert tuned.fine_tuned_
        loss = keras.losses.BinaryCrossentropy()
        held_out = tuned.predict_proba(X_VAL)[:, 1:]
        found = float(loss(Y_VAL[:, None].astype(np.float32), held_out))
        assert found == pytest.approx(tuned.fine_tune_losses_[1], abs=1e-5)
        assert found == pytest.approx(min(tuned.fine_tune_history_["val_loss"]), abs=1e-5)
    assert not changed(before, network.network_.variables)


def test_a_sampler_with_multilabel_targets_is_refused(monkeypatch):
    monkeypatch.setattr(training, "train", None)
    with pytest.raises(ValueError, match="class weights"):
        classifier(sampler=RandomOverSampler()).fit(X, np.c_[Y, Y])


@pytest.mark.parametrize(
    ("upstream", "layer", "listed"),
    [
        (RISK, "numeric_center", "'hidden_1', 'hidden_2', 'output'"),
        (clone(RISK).set_params(model=TabM((8,), n_members=2)), "hidden_1", "'hidden_1_shared'"),
    ],
    ids=["standardises", "activates"],
)
def test_layers_without_trainable_weights_are_refused_before_training(
    upstream, layer, listed, monkeypatch
):
    monkeypatch.setattr(training, "train", None)
    tuning = clone(QUICK).set_params(layers=[f"risk/{layer}"])
    with pytest.raises(ValueError, match=rf"'{layer}' of .* has no trainable weights.*{listed}"):
        classifier(tuning, upstream).fit(X, Y)


def two_layers(width, **first):
    """A network of Dense layers "a", with settings, and "b"."""
    inputs = keras.Input((width,))
    hidden = keras.layers.Dense(3, name="a", **first)(inputs)
    outputs = keras.layers.Dense(2, "softmax", name="b")(hidden)
    return keras.Model(inputs, outputs, name="inner")


def in_the_middle():
    """A network whose nested model stands between two layers."""
    inputs = keras.Input((X.shape[1],))
    hidden = two_layers(4)(keras.layers.Dense(4, name="below")(inputs))
    return keras.Model(inputs, keras.layers.Dense(1, name="above")(hidden))


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (lambda: KerasFeatureTransformer(in_the_middle(), layers="inner"), "above"),
        (lambda: KerasFeatureTransformer(in_the_middle(), layers="inner/a"), "inner/b"),
        (lambda: KerasFeatureTransformer(RISK, layers="hidden_1"), "hidden_2"),
        (
            lambda: KerasFeatureTransformer(
                FrozenEstimator(clone(RISK).fit(X, Y)), layers="hidden_1"
            ),
            "hidden_2",
        ),
        (lambda: KerasAutoencoder(epochs=1), "decoder_1"),
    ],
    ids=["nested model", "in a nested model", "trained", "frozen", "autoencoder"],
)
def test_layers_that_no_feature_depends_on_are_refused_before_training(make, layer, monkeypatch):
    features, tuning = make(), clone(QUICK).set_params(layers=[f"risk/{layer}"])
    monkeypatch.setattr(training, "train", None)
    name = layer.rpartition("/")[2]
    with pytest.raises(ValueError, match=rf"'{name}' of .*; no feature depends on it"):
        classifier(tuning, features).fit(X, Y)


@pytest.mark.parametrize(
    "make",
    [
        lambda model: model,
        lambda model: KerasClassifier(model, epochs=1),
        lambda model: FrozenEstimator(KerasClassifier(model, epochs=1).fit(X, Y)),
    ],
    ids=["a model", "trained", "frozen"],
)
def test_a_network_whose_features_have_no_trainable_weights_is_refused(make, monkeypatch):
    model = make(two_layers(X.shape[1], trainable=False))
    features = KerasFeatureTransformer(model, layers="a")
    monkeypatch.setattr(training, "train", None)
    with pytest.raises(ValueError, match="all trainable weights of the upstream 'risk' come after"):
        classifier(QUICK, features).fit(X, Y)


# Programs -----------------------------------------------------------------------------------------


def joint(stack):
    return JointNetwork(stack, ["risk"], X[:2])


def test_equal_stacks_share_a_program_and_other_constants_do_not():
    """What is no weight is part of the key: here the priors of a corrected network."""
    risk = clone(RISK).set_params(sampler=RandomOverSampler(random_state=0), prior_correction=True)
    plain = [joint(classifier(None, random_state=seed).fit(X, Y)) for seed in (0, 1)]
    assert plain[0].key is not None
    assert plain[0].key == plain[1].key
    one, other = (
        joint(classifier(None, risk).fit(rows, y)) for rows, y in ((X, Y), (X[RARE], Y[RARE]))
    )
    assert one.key is None or one.key != other.key


def test_other_multipliers_are_other_programs(stages, tuned):
    start = upstream_network(stages).variables["hidden_1/kernel"]
    other = classifier(clone(QUICK).set_params(upstream_lr_multiplier=0.9)).fit(**DATA)
    far, near = (
        np.abs(upstream_network(stack).variables["hidden_1/kernel"] - start).mean()
        for stack in (other, tuned)
    )
    assert QUICK.upstream_lr_multiplier == 0.1
    assert far > 4 * near > 0


def test_tuning_does_not_change_global_random_states_or_warn():
    random.seed(0)
    state = random.getstate()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier().fit(X, Y)
    assert random.getstate() == state


@pytest.mark.parametrize(
    ("old", "new"),
    [("thaw_every", "unfreeze_every"), ("upstream_share", "upstream_lr_multiplier")],
)
def test_old_names_of_parameters_are_refused_with_the_new_ones(old, new):
    message = f"no parameter '{old}': it is now '{new}'"
    with pytest.raises(TypeError, match=message):
        FineTune(**{old: 1})
    with pytest.raises(ValueError, match=message):
        FineTune().set_params(**{old: 1})
    stack = StackedKerasClassifier(KerasClassifier(), fine_tune=FineTune())
    with pytest.raises(ValueError, match=message):
        stack.set_params(**{f"fine_tune__{old}": 1})
    assert clone(FineTune(**{new: 1})).get_params()[new] == 1


@keras.saving.register_keras_serializable("hiding")
class Hiding(keras.Model):
    """A model that calls two layers, of which Keras knows no graph."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.core = keras.layers.Dense(3, name="core")
        self.end = keras.layers.Dense(1, "sigmoid", name="end")

    def call(self, x):
        return self.end(self.core(x))

    def get_config(self):
        return super().get_config()


def around_hiding():
    """A functional model around one that hides its layers."""
    inputs = keras.Input((X.shape[1],))
    hidden = keras.layers.Dense(4, name="below")(inputs)
    return keras.Model(inputs, Hiding(name="inner")(hidden))


@pytest.mark.parametrize(
    ("features", "layer", "message"),
    [
        ({}, "inner/core", r"'inner/core' of .*risk.* is inside a model whose class hides"),
        ({"layers": "inner/core"}, "below", "features of its layer 'inner/core', which its class"),
    ],
    ids=["tuned", "features"],
)
@pytest.mark.parametrize("trained", [False, True])
def test_layers_that_a_class_hides_are_refused_before_training(
    features, layer, message, trained, monkeypatch
):
    model = KerasClassifier(around_hiding(), epochs=1) if trained else around_hiding()
    monkeypatch.setattr(training, "train", None)
    tuning = clone(QUICK).set_params(layers=[f"risk/{layer}"])
    with pytest.raises(ValueError, match=message):
        classifier(tuning, KerasFeatureTransformer(model, **features)).fit(X, Y)


def test_layers_up_to_a_feature_or_of_a_model_that_hides_its_layers_are_tuned():
    """Up to one of a nested model, one that is a feature itself, and a model as a whole."""
    upstream = {
        "nested": KerasFeatureTransformer(in_the_middle(), layers="inner/a"),
        "risk": KerasFeatureTransformer(RISK, layers="hidden_1"),
        "hiding": KerasFeatureTransformer(around_hiding()),
    }
    layers = ["nested/below", "nested/inner/a", "risk/hidden_1", "hiding/inner"]
    tuning = FineTune(epochs=1, learning_rate=1e-2, layers=layers)
    start = classifier(None, list(upstream.items())).fit(**DATA)
    tuned = classifier(tuning, list(upstream.items())).fit(**DATA)
    assert tuned.fine_tune_history_["n_thawed"] == [4]
    assert tuned.fine_tuned_
    moved = {
        name: changed(*(weights(upstream_network(each, name)) for each in (start, tuned)))
        for name in upstream
    }
    assert moved == {"nested": {"below", "a"}, "risk": {"hidden_1"}, "hiding": {"core", "end"}}
