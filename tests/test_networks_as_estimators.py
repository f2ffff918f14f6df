"""What the three network estimators promise, on small real data."""

import keras
import numpy as np
import pandas as pd
import pytest
from _models import SMALL
from imblearn.over_sampling import SMOTENC, RandomOverSampler
from sklearn.base import is_classifier
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_iris,
    make_multilabel_classification,
)
from sklearn.model_selection import GridSearchCV, StratifiedKFold, check_cv

from skstack import KerasAutoencoder, KerasClassifier, KerasRegressor
from skstack.networks import MLP, Autoencoder, recipe

CANCER = load_breast_cancer(return_X_y=True)


@pytest.mark.parametrize(
    "label",
    [
        lambda y: y,
        lambda y: y.astype(bool),
        lambda y: np.where(y, "ill", "well"),
        lambda y: y * 2 - 1,
    ],
    ids=["int", "bool", "string", "signed"],
)
def test_binary_labels_of_every_type(label):
    X, y = CANCER
    labels = label(y)
    classifier = KerasClassifier(MLP(), epochs=15, random_state=0).fit(X, labels)
    assert classifier.predict(X).dtype == labels.dtype
    assert classifier.score(X, labels) > 0.95
    p = classifier.predict_proba(X[:1])
    assert p.shape == (1, 2)
    np.testing.assert_allclose(np.exp(classifier.predict_log_proba(X[:1])), p, atol=1e-6)


def test_multiclass_and_multilabel():
    X, y = load_iris(return_X_y=True)
    classifier = KerasClassifier(MLP(), epochs=60, learning_rate=0.01, random_state=0).fit(X, y)
    assert classifier.score(X, y) > 0.93
    np.testing.assert_allclose(classifier.predict_proba(X).sum(axis=1), 1, atol=1e-5)
    X, Y = make_multilabel_classification(n_samples=200, n_classes=4, random_state=0)
    classifier = KerasClassifier(MLP(), epochs=40, random_state=0).fit(X, Y)
    assert classifier.predict_proba(X).shape == (200, 4)
    assert (classifier.predict(X) == Y).mean() > 0.85


def test_stratified_folds_and_grid_over_training_parameters():
    X, y = CANCER
    grid = [
        {"optimizer": ["adam"], "learning_rate": [1e-2], "loss": ["auto"]},
        {"optimizer": ["sgd"], "learning_rate": [1e-2], "loss": ["binary_focal_crossentropy"]},
    ]
    search = GridSearchCV(
        KerasClassifier(MLP(), epochs=5, random_state=0), grid, cv=2, scoring="average_precision"
    )
    assert search.fit(X, y).best_score_ > 0.95
    folds = check_cv(3, y, classifier=is_classifier(KerasClassifier()))
    assert isinstance(folds, StratifiedKFold)


def test_class_weights_move_probabilities():
    X, y = CANCER
    plain, heavy = (
        KerasClassifier(MLP(), epochs=3, class_weight=weight, random_state=0)
        .fit(X, y)
        .predict_proba(X)
        for weight in (None, {0: 1, 1: 20})
    )
    assert heavy[:, 1].mean() > plain[:, 1].mean() + 0.02


def test_early_stopping_on_hold_out_rows_and_on_X_val():
    X, y = CANCER
    settings = {"epochs": 60, "n_iter_no_change": 3, "learning_rate": 0.01, "random_state": 0}
    classifier = KerasClassifier(MLP(), early_stopping=True, **settings).fit(X, y)
    assert classifier.n_iter_ < 60
    assert len(classifier.validation_scores_) == len(classifier.loss_curve_) == classifier.n_iter_
    passed = KerasClassifier(MLP(), **settings)
    train = len(X) - 86  # as many as the first fit has
    passed.fit(X[:train], y[:train], X_val=X[train:], y_val=y[train:])
    assert passed.n_iter_ < 60
    p = np.clip(passed.predict_proba(X[train:])[:, 1].astype(float), 1e-7, 1 - 1e-7)
    t = y[train:]
    loss = -np.mean(t * np.log(p) + (1 - t) * np.log(1 - p))
    np.testing.assert_allclose(-max(passed.validation_scores_), loss, rtol=1e-3)


@pytest.mark.slow
def test_epoch_callbacks_are_copied():
    X, y = CANCER

    class Count(keras.callbacks.Callback):
        seen = []

        def on_epoch_end(self, epoch, logs=None):
            Count.seen.append((epoch, self))

    mine = Count()
    KerasClassifier(SMALL, epochs=3, callbacks=[mine]).fit(X, y)
    assert [epoch for epoch, _ in Count.seen] == [0, 1, 2]
    assert all(callback is not mine for _, callback in Count.seen)
    stopped = keras.callbacks.EarlyStopping(monitor="loss", min_delta=1e9, patience=1)
    assert KerasClassifier(MLP(), epochs=50, callbacks=[stopped]).fit(X, y).n_iter_ == 2


def test_warm_start_and_partial_fit_continue():
    X, y = CANCER
    warm = KerasClassifier(SMALL, epochs=3, warm_start=True, random_state=0).fit(X, y)
    first = warm.loss_curve_[-1]
    assert warm.fit(X, y).loss_curve_[0] < first
    partial = KerasClassifier(MLP(), random_state=0).partial_fit(
        X[y == 1], y[y == 1], classes=[0, 1]
    )
    for _ in range(5):
        partial.partial_fit(X, y)
    assert partial.score(X, y) > 0.85
    assert KerasRegressor(SMALL).partial_fit(X, y).partial_fit(X, y).n_iter_ == 1


@pytest.fixture
def mixed():
    rng = np.random.default_rng(0)
    y = rng.random(400) < 0.2
    X = pd.DataFrame(
        {
            "age": rng.normal(40, 10, 400) + 10 * y,
            "job": pd.Categorical(np.where(rng.random(400) < 0.3 + 0.4 * y, "cook", "vet")),
            "married": rng.random(400) < 0.5,
        }
    )
    return X, np.where(y, "yes", "no")


def test_samplers_over_mixed_columns_and_prior_correction(mixed):
    X, y = mixed
    for sampler in (SMOTENC("auto", random_state=0), RandomOverSampler(random_state=0)):
        plain, corrected = (
            KerasClassifier(MLP(), epochs=10, sampler=sampler, prior_correction=on, random_state=0)
            .fit(X, y)
            .predict_proba(X)[:, 1]
            .mean()
            for on in (False, True)
        )
        base = np.mean(y == "yes")
        assert plain > base + 0.1
        assert abs(corrected - base) < 0.06


def test_unseen_categories_are_predicted(mixed):
    X, y = mixed
    classifier = KerasClassifier(SMALL, epochs=2, random_state=0).fit(X, y)
    other = X.head(4).assign(job=["king", "cook", None, "vet"])
    assert np.isfinite(classifier.predict_proba(other)).all()


def test_regression_in_the_targets_units():
    X, y = load_diabetes(return_X_y=True)
    regressor = KerasRegressor(MLP(), epochs=30, random_state=0).fit(X, y)
    assert regressor.score(X, y) > 0.45
    np.testing.assert_allclose(np.ravel(regressor.model_(X)), regressor.predict(X), rtol=1e-4)
    both = KerasRegressor(MLP(), epochs=30, random_state=0).fit(X, np.column_stack([y, 1000 - y]))
    assert both.predict(X).shape == (442, 2)
    assert both.score(X, np.column_stack([y, 1000 - y])) > 0.45


def test_autoencoder_reconstructs_mixed_columns_in_their_units(mixed):
    X, _ = mixed
    autoencoder = KerasAutoencoder(
        Autoencoder(latent_size=3, noise=0.1), epochs=60, random_state=0
    ).fit(X)
    rebuilt = autoencoder.inverse_transform(autoencoder.transform(X))
    assert list(rebuilt.columns) == list(X.columns)
    assert np.corrcoef(rebuilt["age"], X["age"])[0, 1] > 0.9
    assert (rebuilt["job"].astype(str) == X["job"].astype(str)).mean() > 0.9
    strange = X.head(1).assign(age=400.0)
    assert autoencoder.reconstruction_error(strange)[0] > autoencoder.reconstruction_error(X).max()


def test_models_as_template_continued_and_by_path(tmp_path):
    X, y = CANCER
    template = keras.Sequential([keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    normal = (X - X.mean(0)) / X.std(0)
    classifier = KerasClassifier(template, epochs=20, random_state=0).fit(normal, y)
    assert not template.built
    assert classifier.score(normal, y) > 0.95
    classifier.model_.save(tmp_path / "m.keras")
    before = classifier.predict_proba(normal)
    for model in (classifier.model_, str(tmp_path / "m.keras")):
        continued = KerasClassifier(model, epochs=1, learning_rate=1e-9).fit(normal, y)
        np.testing.assert_allclose(continued.predict_proba(normal), before, atol=1e-3)


def test_engines_agree():
    X, y = CANCER
    auto, fit = (
        KerasClassifier(SMALL, epochs=3, engine=engine, random_state=0).fit(X, y).predict_proba(X)
        for engine in ("auto", "keras")
    )
    np.testing.assert_allclose(auto, fit, atol=1e-4)


@recipe
def narrow(spec, *, hidden=4):
    inputs = spec.inputs()
    x = keras.layers.Dense(hidden, activation="relu", name="latent")(spec.join(inputs))
    return keras.Model(inputs, spec.outputs(x))


def test_recipes_are_searched():
    X, y = CANCER
    search = GridSearchCV(
        KerasClassifier(narrow(), epochs=3, random_state=0), {"model__hidden": [2, 16]}, cv=2
    ).fit(X, y)
    assert (
        search.best_estimator_.model_.get_layer("latent").units
        == search.best_params_["model__hidden"]
    )
    assert KerasClassifier(MLP()).get_params()["model__dropout"] == 0.0


@pytest.mark.parametrize(
    "loss",
    [
        "categorical_crossentropy",
        keras.losses.CategoricalCrossentropy(),
        keras.losses.categorical_crossentropy,
    ],
    ids=["name", "object", "function"],
)
def test_one_hot_and_sparse_losses_learn_the_same(loss):
    X, y = load_iris(return_X_y=True)
    labels = np.array(["setosa", "versicolor", "virginica"])[y]
    layers = [keras.Input((4,)), keras.layers.Dense(3, activation="softmax")]
    model = keras.Sequential(layers)
    sparse = KerasClassifier(model, epochs=3, random_state=0).fit(X, labels)
    for given in (KerasClassifier(model, loss=loss), KerasClassifier(compiled(model, loss))):
        found = given.set_params(epochs=3, random_state=0).fit(X, labels).predict_proba(X)
        np.testing.assert_allclose(found, sparse.predict_proba(X), atol=1e-5)


def compiled(model, loss):
    copied = keras.models.clone_model(model)
    copied.set_weights(model.get_weights())
    copied.compile("adam", loss)
    return copied
