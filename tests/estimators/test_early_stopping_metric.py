"""Which epoch is the best, by another metric than the loss; clipped gradients; smoothed labels."""

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, log_loss

from skstack import KerasAutoencoder, KerasClassifier, KerasMultiTask, KerasRegressor
from skstack._training.config import TrainConfig
from skstack._training.epochs import update_early_stopping
from skstack._training.objective import find_monitored, resolve_objective
from skstack._training.optimizers import CompileSettings
from skstack.networks import MLP, RealMLP, TabM
from tests._models import FIT, SMALL, binary, mixed, regression

X, y = binary()
LONG = {**FIT, "epochs": 12, "learning_rate": 0.05}


def monitored(metric, **settings):
    network = KerasClassifier(SMALL, **{**LONG, "early_stopping_metric": metric, **settings})
    return network.fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])


@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_the_last_of_the_best_epochs_is_kept(engine):
    network = monitored("accuracy", engine=engine)
    curve = network.history_["val_accuracy"]
    assert network.validation_scores_ == curve
    best = max(curve)
    assert best > curve[0]
    assert accuracy_score(y[40:], network.predict(X[40:])) == pytest.approx(best)
    p = network.predict_proba(X[40:])
    last = len(curve) - 1 - curve[::-1].index(best)
    assert log_loss(y[40:], p) == pytest.approx(network.history_["val_loss"][last], rel=1e-4)


@pytest.mark.slow(first=1)
@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_the_weights_that_are_kept_are_those_that_were_judged(engine):
    """Also if the optimizer keeps moving averages, which are judged in no epoch."""
    averaging = keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.9)
    network = monitored("loss", optimizer=averaging, learning_rate="auto", engine=engine)
    p = network.predict_proba(X[40:])
    assert log_loss(y[40:], p) == pytest.approx(-max(network.validation_scores_), rel=1e-4)


def test_moving_averages_are_kept_where_no_epoch_is_judged():
    averaging = keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.9)
    settings = {"learning_rate": "auto", "early_stopping": False}
    plain, other = (
        KerasClassifier(SMALL, **{**LONG, **settings, "optimizer": optimizer}).fit(X, y)
        for optimizer in (averaging, keras.optimizers.Adam(0.05))
    )
    assert np.abs(plain.predict_proba(X) - other.predict_proba(X)).max() > 1e-3


def test_directions_of_metrics():
    def mine(y_true, y_pred):
        return keras.ops.mean(y_true * y_pred)

    with pytest.raises(ValueError, match="'mine' is a metric of your own, whose direction is"):
        find_monitored("mine", [mine])
    mine.greater_is_better = True
    assert find_monitored("mine", ["accuracy", mine]) == (True, True)
    for name, greater in {
        "accuracy": True, "auc": True, "R2Score": True, "cosine_similarity": True,
        "binary_accuracy": True, "crossentropy": False, "mse": False, "false_positives": False,
        "top_k_categorical_accuracy": True, "mean_absolute_error": False,
    }.items():  # fmt: skip
        assert find_monitored(name, []) == (False, greater), name
    named = keras.metrics.AUC(name="area")
    assert find_monitored("area", [named]) == (True, True)
    assert find_monitored("auc", [keras.metrics.AUC]) == (True, True)


@pytest.mark.parametrize(
    "estimator", [KerasClassifier(SMALL), KerasRegressor(SMALL), KerasAutoencoder()]
)
def test_unknown_metrics_are_refused_before_training(estimator):
    estimator.set_params(early_stopping_metric="acuracy", metrics=["mse"])
    message = r"early_stopping_metric='acuracy' is unknown; accepted are 'loss', .*\['mse'\]"
    with pytest.raises(ValueError, match=message):
        estimator.fit(X, y)


def test_metrics_of_several_values_are_refused():
    network = KerasClassifier(SMALL, early_stopping_metric="f1_score", early_stopping=True, **FIT)
    with pytest.raises(ValueError, match="'f1_score': this metric returns several values"):
        network.fit(*mixed())


def test_metrics_of_one_of_several_targets():
    rows, words = mixed()
    targets = pd.DataFrame({"word": words, "number": rows["a"]})
    network = KerasMultiTask(SMALL, metrics={"number": ["mse"]}, early_stopping=True, **FIT)
    with pytest.raises(ValueError, match=r"'mse' is unknown; .* their targets, \['number_mse'\]"):
        network.set_params(early_stopping_metric="mse").fit(rows, targets)
    network.set_params(early_stopping_metric="number_mse").fit(rows, targets)
    errors = network.history_["val_number_mse"]
    assert network.validation_scores_ == [-error for error in errors]


def test_equal_losses_of_later_epochs_are_the_best():
    best = np.float32(np.inf)
    for loss, expected in [(1, True), (1, True), (2, False), (np.nan, False), (0.5, True)]:
        is_best, best, _ = update_early_stopping(np, np.float32(loss), best, 0, np.float32(0))
        assert is_best == expected


# Clipped gradients -------------------------------------------------------------------------------


def test_the_norm_of_all_gradients_is_clipped():
    weights = []
    for epochs in (1, 2):
        fit = KerasClassifier(
            SMALL,
            optimizer=keras.optimizers.SGD(1.0, clipvalue=0.5),
            clipnorm=1e-3,
            epochs=epochs,
            batch_size=60,
            random_state=0,
        ).fit(X, y)
        weights.append(np.concatenate([array.ravel() for array in fit.model_.get_weights()]))
    assert np.linalg.norm(weights[1] - weights[0]) == pytest.approx(1e-3, rel=1e-2)


def test_clipnorm_replaces_the_setting_of_the_optimizer():
    config = TrainConfig("mse", keras.optimizers.AdamW(global_clipnorm=1.0), clipnorm=3)
    assert CompileSettings.of(config).optimizer_config["global_clipnorm"] == 3.0
    config = TrainConfig("mse", keras.optimizers.AdamW(global_clipnorm=1.0))
    assert CompileSettings.of(config).optimizer_config["global_clipnorm"] == 1.0
    with pytest.raises(ValueError, match="clipnorm"):
        KerasClassifier(SMALL, clipnorm=0).fit(X, y)


# Smoothed labels ---------------------------------------------------------------------------------


def test_smoothed_labels_enter_the_training_loss_only():
    rows, words = mixed()
    network = TabM((4,), n_members=2, dropout=0, numeric_embedding=None, label_smoothing=0.3)
    settings = {"metrics": ["accuracy"], "epochs": 1, "batch_size": 60, "random_state": 0}
    still = KerasClassifier(network, optimizer="sgd", learning_rate=1e-12, **settings)
    fit = still.fit(rows, words, X_val=rows, y_val=words)
    from_model = keras.Model(
        fit.model_.input, fit.model_.get_layer("output_members_activation").output
    )
    inputs = fit.blocks_.split(rows)
    apart = np.asarray(from_model(inputs), dtype=np.float64)
    smooth = (fit.classes_ == words[:, None]) * 0.7 + 0.1
    expected = [-np.mean(np.sum(smooth * np.log(p), axis=1)) for p in apart.transpose(1, 0, 2)]
    np.testing.assert_allclose(fit.history_["loss"], np.mean(expected), rtol=1e-5)
    own = apart.mean(axis=1)[fit.classes_ == words[:, None]]
    np.testing.assert_allclose(fit.history_["val_loss"], -np.mean(np.log(own)), rtol=1e-5)
    accuracy = fit.score(rows, words)
    np.testing.assert_allclose(fit.history_["accuracy"], accuracy, rtol=1e-5)
    np.testing.assert_allclose(fit.history_["val_accuracy"], accuracy, rtol=1e-5)


def test_labels_of_two_classes_are_smoothed_to_both():
    objective = resolve_objective("binary_crossentropy", task="binary", n_outputs=2)
    labels = objective.with_soft_labels().smoothed(np.float32([[0], [1]]), 0.1)
    np.testing.assert_allclose(labels, [[0.05], [0.95]])


@pytest.mark.parametrize("name", ["auto", "sparse_categorical_crossentropy", "crossentropy"])
def test_losses_of_indices_become_those_of_rows(name):
    loss = "sparse_categorical_crossentropy" if name == "auto" else name
    objective = resolve_objective(loss, task="multiclass", n_outputs=3).with_soft_labels()
    assert objective.form == "one-hot"
    found = keras.losses.SparseCategoricalCrossentropy(reduction="sum")
    objective = resolve_objective(found, task="multiclass", n_outputs=3).with_soft_labels()
    assert type(objective.loss) is keras.losses.CategoricalCrossentropy
    assert objective.loss.reduction == "sum"


@pytest.mark.parametrize("network", [MLP, TabM, RealMLP])
def test_smoothing_is_for_classifiers(network):
    recipe = network((4,), label_smoothing=0.1)
    with pytest.raises(ValueError, match=r"label_smoothing=0.1 of model=.* KerasRegressor it must"):
        KerasRegressor(recipe, **FIT).fit(*regression())
    with pytest.raises(ValueError, match="loss='hinge' does not take labels between 0 and 1"):
        KerasClassifier(recipe, loss="hinge", **FIT).fit(X, y)
    with pytest.raises(ValueError, match=r"label_smoothing=1.5 of .* in \[0, 1\)"):
        KerasClassifier(network((4,), label_smoothing=1.5), **FIT).fit(X, y)
