"""What neighbours' users suffer from, and what people get wrong by hand: none of it here.

The pains are numbered as in the project's survey of its neighbours. Pains 1, 2, 16, 18 and 20 are
in test_neighbours.py, beside the neighbours that have them; 4, of forks, in test_concurrency.py.
"""

import logging
import pickle

import keras
import numpy as np
import pytest
from imblearn.over_sampling import SMOTE, RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_breast_cancer, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    TimeSeriesSplit,
    cross_val_predict,
)
from sklearn.preprocessing import StandardScaler

from skstack import KerasClassifier, KerasFeatureTransformer, StackedKerasClassifier
from skstack.inspection import check_overlap, leakage_report
from skstack.networks import MLP

X, y = load_breast_cancer(return_X_y=True)
X, y = StandardScaler().fit_transform(X[:240, :6]).astype(np.float32), y[:240]
FOREST = RandomForestClassifier(n_estimators=10, random_state=0)


def network(**options):
    return KerasClassifier(MLP((4,)), **{"epochs": 2, "random_state": 0, **options})


def imbalanced(n=600):
    return make_classification(n_samples=n, n_informative=4, weights=[0.92], random_state=0)


class Keeper(ClassifierMixin, BaseEstimator):
    """Keeps its training rows and its X_val."""

    early_stopping = True
    validation_fraction = 0.2

    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
        self.X_, self.y_, self.classes_ = np.asarray(X), np.asarray(y), np.unique(y)
        self.weights_, self.X_val_, self.y_val_ = sample_weight, X_val, y_val
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


def test_pain_3_many_fits_build_and_compile_once(monkeypatch):
    """Memory and time grow over many fits where each builds and traces its own graph."""
    from skstack._training import program

    made = []
    init = program.Program.__init__
    monkeypatch.setattr(
        program.Program, "__init__", lambda self, *a, **k: made.append(1) or init(self, *a, **k)
    )
    for seed in range(20):
        network(random_state=seed, learning_rate=0.001 * (seed + 1)).fit(X, y)
    assert len(made) <= 1
    KerasClassifier(MLP((19,)), epochs=1).fit(X, y)
    assert len(made) >= 1  # the spy sees a new architecture


def test_pain_5_a_grid_search_has_no_retracing_warnings(caplog):
    """Retracing warnings fill grid searches."""
    grid = {"learning_rate": [0.01, 0.02, 0.03], "epochs": [1, 2], "random_state": [0, 1]}
    with caplog.at_level(logging.WARNING):
        GridSearchCV(network(), grid, cv=2).fit(X, y)
    assert "retracing" not in caplog.text


def test_pain_6_early_stopping_monitors_real_rows_with_a_sampler():
    """validation_split after SMOTE: a validation set that is synthetic, and of one class."""
    rows, labels = imbalanced()
    stack = StackedKerasClassifier(FOREST, downstream=Keeper(), sampler=SMOTE(random_state=0), cv=2)
    stack.set_params(scaler=None).fit(rows, labels)
    watched = stack.downstream_.X_val_[:, 1:]
    assert len(check_overlap(watched, rows.astype(np.float32)).exact_a) == len(watched)
    assert 0.03 < stack.downstream_.y_val_.mean() < 0.15
    assert stack.downstream_.y_.mean() == 0.5


def test_pain_7_hold_out_rows_are_random_and_stratified():
    """A positional validation_split takes the last rows, sorted or not."""
    order = np.argsort(y, kind="stable")
    stack = StackedKerasClassifier(FOREST, downstream=Keeper(), cv=2).fit(X[order], y[order])
    assert abs(stack.downstream_.y_val_.mean() - y.mean()) < 0.03


def test_pain_8_stacking_accepts_time_series_splits():
    """StackingClassifier: cross_val_predict only works for partitions."""
    stack = StackedKerasClassifier(FOREST, downstream=network(), cv=TimeSeriesSplit(3))
    with pytest.warns(UserWarning, match="never predicts 60 of 240 rows"):
        assert stack.fit(X, y).predict(X).shape == (240,)


def test_pain_9_forward_chaining_features_with_explicit_uncovered_rows():
    stack = StackedKerasClassifier(FOREST, downstream=network(), cv=TimeSeriesSplit(3))
    with pytest.warns(UserWarning, match="never predicts"):
        table = stack.fit_transform(X, y)
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(table[:, 0])), np.arange(60))


def test_pain_10_downstream_features_do_not_predict_permuted_labels():
    """Stack leakage: scores far above what new rows give."""
    permuted = np.random.default_rng(0).permutation(y)
    stack = StackedKerasClassifier(FOREST, downstream=LogisticRegression(), passthrough=False, cv=3)
    table = stack.fit_transform(X, permuted)
    assert abs(roc_auc_score(permuted, table[:, 0]) - 0.5) < 0.1
    assert roc_auc_score(permuted, stack.transform(X)[:, 0]) > 0.9  # in-sample, to compare


def test_pain_11_groups_reach_inner_folds():
    """StackingClassifier refuses groups even with routing on."""
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(60), 4))
    copies, labels = X[groups], np.random.default_rng(1).integers(0, 2, 60)[groups]
    stack = StackedKerasClassifier(FOREST, downstream=LogisticRegression(), passthrough=False)
    blind = stack.fit_transform(copies, labels)[:, 0]
    kept_whole = stack.fit_transform(copies, labels, groups=groups)[:, 0]
    assert roc_auc_score(labels, blind) > 0.95
    assert roc_auc_score(labels, kept_whole) < 0.7
    by_splitter = stack.set_params(cv=GroupKFold(5)).fit_transform(copies, labels, groups=groups)
    assert roc_auc_score(labels, by_splitter[:, 0]) < 0.7


def test_pain_12_weights_reach_upstream_and_downstream():
    """Weights lost in stacking: a weight of 0 must be as good as no row."""
    weights = np.where(np.arange(240) < 120, 1.0, 0.0)
    spoilt = np.where(weights > 0, y, 1 - y)
    folds = [(np.r_[0:60, 120:180], np.r_[60:120, 180:240]),
             (np.r_[60:120, 180:240], np.r_[0:60, 120:180])]  # fmt: skip
    stack = StackedKerasClassifier(
        LogisticRegression(), downstream=LogisticRegression(), cv=folds, passthrough=False
    )
    with_them = stack.fit(X, spoilt, sample_weight=weights).predict_proba(X)
    halves = [(train[:60], test[:60]) for train, test in folds]
    without = stack.set_params(cv=halves).fit(X[:120], y[:120]).predict_proba(X)
    np.testing.assert_allclose(with_them, without, atol=1e-4)


def test_pain_13_weights_are_resampled_with_their_rows_or_refused():
    """1,500 weights reached a fit of 2,686 rows."""
    weights = np.arange(240) + 1.0
    stack = StackedKerasClassifier(
        FOREST, downstream=Keeper(), sampler=RandomUnderSampler(random_state=0), cv=2, scaler=None
    )
    stack.fit(np.column_stack([weights, X]), y, sample_weight=weights)
    np.testing.assert_allclose(stack.downstream_.weights_, stack.downstream_.X_[:, 1])
    with pytest.raises(ValueError, match="sample_weight is not supported with sampler"):
        clone(stack).set_params(sampler=SMOTE()).fit(X, y, sample_weight=weights)


def test_pain_14_probabilities_after_resampling_have_the_base_rate():
    """Base rate 0.059, mean predicted 0.335."""
    rows, labels = imbalanced(1500)
    stack = StackedKerasClassifier(
        network(epochs=5, learning_rate=0.01),
        blend=False,
        downstream=LogisticRegression(max_iter=1000),
        sampler=RandomOverSampler(random_state=0),
        cv=2,
        random_state=0,
    )
    predicted = cross_val_predict(stack, rows, labels, cv=2, method="predict_proba")[:, 1]
    assert predicted.mean() > 0.2
    stack.set_params(prior_correction=True)
    corrected = cross_val_predict(stack, rows, labels, cv=2, method="predict_proba")[:, 1]
    assert abs(corrected.mean() - labels.mean()) < 0.03
    assert abs(roc_auc_score(labels, corrected) - roc_auc_score(labels, predicted)) < 0.02


def test_pain_15_pickles_hold_networks_and_fail_early():
    """A local custom loss fails on load only."""
    fitted = StackedKerasClassifier(network(), downstream=network(), cv=2).fit(X, y)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))

    def local(y_true, y_pred):
        return keras.losses.binary_crossentropy(y_true, y_pred)

    with pytest.raises((AttributeError, pickle.PicklingError), match="local"):
        pickle.dumps(network(loss=local).fit(X, y))


def test_pain_17_several_inputs_are_split_into_folds_together():
    """Lists of arrays are no X that cross-validation can index."""
    import pandas as pd

    frame = pd.DataFrame({"size": X[:, 0], "predicted": pd.Series(y).map({0: "no", 1: "yes"})})
    two_inputs = network(epochs=30, learning_rate=0.05)
    assert np.mean(cross_val_predict(two_inputs, frame, y, cv=2) == y) > 0.9
    assert len(two_inputs.fit(frame, y).network_.build().inputs) == 2


def test_pain_19_a_seed_is_reproducible_without_global_state():
    """Keras' shuffle=True is not reproducible without a global seed."""
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = network().fit(X, y).predict_proba(X)
    np.random.default_rng().normal(size=3)
    keras.layers.Dense(2)
    np.testing.assert_array_equal(network().fit(X, y).predict_proba(X), first)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert (network(random_state=1).fit(X, y).predict_proba(X) != first).any()


# What people get wrong -----------------------------------------------------------------------


def test_wrong_a_layer_created_inside_a_loss_is_an_error():
    """It is new at every trace, and no optimizer knows it."""

    def loss_with_a_layer(y_true, y_pred):
        return keras.losses.binary_crossentropy(y_true, keras.layers.Dense(1, "sigmoid")(y_pred))

    for engine in ("auto", "keras"):
        with pytest.raises(ValueError, match=r"loss.*never trained|singleton"):
            network(loss=loss_with_a_layer, engine=engine).fit(X, y)


def test_wrong_a_frozen_part_of_a_model_is_never_modified():
    """A teacher as an attribute joins the trainable weights; freezing after compile is ignored."""
    inputs = keras.Input((6,))
    teacher = keras.layers.Dense(3, name="known")
    model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(teacher(inputs)))
    model.compile("adam", "binary_crossentropy")
    for frozen in (True, False):
        teacher.trainable = not frozen  # after compile, without compiling anew
        before = [value.copy() for value in teacher.get_weights()]
        fitted = KerasClassifier(model, epochs=2, random_state=0).fit(X, y)
        kept = fitted.model_.get_layer("known").get_weights()
        same = [np.array_equal(a, b) for a, b in zip(before, kept, strict=True)]
        assert all(same) if frozen else not all(same)
        for value, first in zip(teacher.get_weights(), before, strict=True):
            np.testing.assert_array_equal(value, first)


def test_wrong_a_clone_keeps_the_weights_of_a_given_model():
    """keras.models.clone_model drops them, and keeps the compile state."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
    transformer = clone(clone(KerasFeatureTransformer(model)))
    np.testing.assert_allclose(transformer.fit_transform(X), model(X), rtol=1e-5, atol=1e-6)


def test_wrong_training_rows_are_never_guessed():
    """vecstack tells them by a fingerprint: without one row they are in-sample, 0.84 reads 1.00."""
    transformer = KerasFeatureTransformer(FOREST, cv=3)
    labels = np.random.default_rng(0).integers(0, 2, 240)
    crossed = transformer.fit_transform(X, labels)
    again = transformer.transform(X)
    assert roc_auc_score(labels, crossed[:, 0]) < 0.65
    assert roc_auc_score(labels, again[:, 0]) > 0.95
    np.testing.assert_array_equal(again[1:], transformer.transform(X[1:]))


def test_wrong_a_frozen_upstream_that_was_trained_on_the_same_rows_is_found():
    labels = np.where(np.random.default_rng(0).random(240) < 0.2, 1 - y, y)
    frozen = FrozenEstimator(clone(FOREST).fit(X, labels))
    stack = StackedKerasClassifier(frozen, downstream=LogisticRegression())
    assert "frozen parts that have seen test rows" in leakage_report(stack, X, labels, cv=3).leaks
    assert len(check_overlap(X, X).exact_a) == 240


def test_wrong_categories_are_never_interpolated():
    """SMOTE on ordinal codes made 71 % fractional rows."""
    import pandas as pd

    jobs = pd.Categorical(np.array(list("xyz"))[np.arange(240) % 3])
    frame = pd.DataFrame({"a": X[:, 0], "job": jobs})
    with pytest.raises(ValueError, match="SMOTENC"):
        network(sampler=SMOTE()).fit(frame, np.arange(240) % 4 == 0)
