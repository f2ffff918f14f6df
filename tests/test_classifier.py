"""Labels, weights, samplers, containers and given models of ``KerasClassifier``."""

import copy
import pickle

import keras
import numpy as np
import pandas as pd
import polars
import pytest
import scipy.sparse
from imblearn.over_sampling import SMOTE
from imblearn.under_sampling import RandomUnderSampler, TomekLinks
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris, make_multilabel_classification
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import type_of_target

from skstack import KerasClassifier, KerasFeatureTransformer, StackedKerasClassifier
from skstack._base.tables import kind_of_target
from skstack.networks import MLP, recipe
from tests._models import FIT, SMALL, binary

CANCER = load_breast_cancer(return_X_y=True)
IRIS = load_iris(return_X_y=True)


def quick(**parameters):
    return KerasClassifier(**{"model": MLP((16,)), "epochs": 3, "random_state": 0, **parameters})


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, float, str])
@pytest.mark.parametrize("labels", [[1], [0, 1], [0, 1, 2], [7, 5, 9, 7], [0, 255]])
def test_kinds_of_targets_are_those_of_scikit_learn(labels, dtype):
    y = np.array(labels * 3).astype(dtype)
    assert kind_of_target(y, quick()) == type_of_target(y)


def full_batch(**parameters):
    """Few but exact steps: the order of rows cannot matter."""
    return quick(batch_size=10_000, epochs=20, learning_rate=0.01, **parameters)


@pytest.mark.parametrize(
    "label",
    [
        lambda y: np.array(["setosa", "versicolor", "virginica"])[y],
        lambda y: pd.Series(pd.Categorical.from_codes(y, ["c", "a", "b"])),
        lambda y: y * 10 - 10,
        lambda y: y.astype(float),
    ],
    ids=["string", "categorical", "int", "float"],
)
def test_multiclass_labels_of_every_type(label):
    X, y = IRIS
    labels = label(y)
    classifier = quick(epochs=60, learning_rate=0.01).fit(X, labels)
    assert classifier.classes_.tolist() == sorted(set(labels))
    assert (classifier.predict(X) == np.asarray(labels)).mean() > 0.93
    p = classifier.predict_proba(X)
    assert p.dtype == np.float32
    np.testing.assert_array_equal(classifier.classes_[p.argmax(axis=1)], classifier.predict(X))
    assert classifier.predict_proba(X[:1]).shape == (1, 3)


def test_columns_of_probabilities_follow_the_labels():
    X, y = CANCER
    by_number = quick(epochs=10).fit(X, y).predict_proba(X)
    # "benign" (1) sorts before "malignant" (0), so that the positive class is the other one.
    by_name = quick(epochs=10).fit(X, np.where(y, "benign", "malignant"))
    assert by_name.classes_.tolist() == ["benign", "malignant"]
    for p in (by_number[:, 1], by_name.predict_proba(X)[:, 0]):
        assert roc_auc_score(y, p) > 0.98


def test_one_row_of_multilabel_and_sequences():
    X, Y = make_multilabel_classification(n_samples=100, n_classes=3, random_state=0)
    classifier = quick().fit(X, Y)
    assert classifier.predict_proba(X[:1]).shape == classifier.predict(X[:1]).shape == (1, 3)
    assert classifier.predict(X).dtype.kind == "i"
    sequences = X.reshape(100, 10, 2)
    layers = [keras.Input((10, 2)), keras.layers.Flatten(), keras.layers.Dense(1)]
    flat = keras.Sequential(layers)
    assert quick(model=flat).fit(sequences, Y[:, 0]).predict_proba(sequences[:1]).shape == (1, 2)


@pytest.mark.parametrize("values", [(1, 2), (-1, 1), (0, 255)])
def test_an_indicator_of_other_values_than_0_and_1_is_refused(values):
    X, Y = make_multilabel_classification(n_samples=60, n_classes=3, random_state=0)
    other = np.where(Y, values[1], values[0])
    message = rf"the values \[{values[0]}, {values[1]}\]; a multilabel indicator holds 0 and 1"
    fitted = quick(epochs=1).fit(X, Y.astype(bool))
    network = quick(epochs=1, early_stopping=True)
    for fit in (
        lambda: quick().fit(X, other),
        lambda: fitted.partial_fit(X, other),
        lambda: network.fit(X, Y, X_val=X, y_val=other),
        lambda: StackedKerasClassifier([("a", network)], downstream=network).fit(X, other),
    ):
        with pytest.raises(ValueError, match=message):
            fit()


def test_weighting_equals_repeating_rows():
    X, y = CANCER
    X, y = X[:80], y[:80]
    times = np.random.default_rng(0).integers(1, 4, size=80)
    weighted = full_batch().fit(X, y, sample_weight=times)
    repeated = full_batch().fit(np.repeat(X, times, axis=0), np.repeat(y, times))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), atol=1e-5)


@pytest.mark.parametrize("labels", [CANCER[1], np.where(CANCER[1], "a", "b")], ids=["int", "str"])
def test_class_weights_are_weights_of_rows_in_the_loss(labels):
    X = (CANCER[0] - CANCER[0].mean(axis=0)) / CANCER[0].std(axis=0)
    plain = MLP((8,), scaling=None)
    balanced = full_batch(model=plain, class_weight="balanced").fit(X, labels)
    by_row = full_batch(model=plain).fit(
        X, labels, sample_weight=compute_sample_weight("balanced", labels)
    )
    np.testing.assert_allclose(balanced.predict_proba(X), by_row.predict_proba(X), atol=1e-5)


def test_early_stopping_restores_the_best_weights():
    X, y = CANCER
    # Some labels are wrong, so that the loss rises again, while probabilities stay inside (0, 1).
    noise = np.where(np.random.default_rng(0).random(169) < 0.3, 1 - y[400:], y[400:])
    classifier = quick(epochs=60, n_iter_no_change=5, learning_rate=0.005)
    classifier.fit(X[:400], y[:400], X_val=X[400:], y_val=noise)
    best = int(np.argmax(classifier.validation_scores_))
    assert best < classifier.n_iter_ - 1
    p = classifier.predict_proba(X[400:]).astype(float)
    p /= p.sum(axis=1, keepdims=True)
    assert log_loss(noise, p) == pytest.approx(-classifier.validation_scores_[best], rel=1e-3)


def test_metrics_schedules_and_objects_of_keras():
    X, y = CANCER
    schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9)
    optimizer = keras.optimizers.RMSprop(learning_rate=0.5)
    classifier = quick(
        metrics=["accuracy"],
        learning_rate=schedule,
        optimizer=optimizer,
        loss=keras.losses.BinaryFocalCrossentropy(gamma=1.0),
        epochs=10,
    ).fit(X, y)
    assert classifier.score(X, y) > 0.9
    assert len(classifier.history_["accuracy"]) == 10
    assert not optimizer.built
    assert float(optimizer.learning_rate) == 0.5


def test_a_failed_partial_fit_declares_no_classes():
    X, y = CANCER
    classifier = quick()
    with pytest.raises(ValueError, match="NaN"):
        classifier.partial_fit(np.full_like(X, np.nan), y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="not among the classes"):
        classifier.partial_fit(X, y, classes=[5, 6])
    assert classifier.partial_fit(X, y).classes_.tolist() == [0, 1]
    declared = quick().partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="NaN"):
        declared.fit(np.full_like(X, np.nan), y)
    assert declared.partial_fit(X, y).classes_.tolist() == [0, 1, 2]
    assert declared.fit(X, y).classes_.tolist() == [0, 1]


@recipe
def started(spec, *, init="zeros", other=None):
    inputs = spec.inputs()
    hidden = keras.layers.Dense(4, kernel_initializer=init)(spec.join(inputs))
    return keras.Model(inputs, spec.outputs(hidden))


def test_a_warm_start_with_equal_objects_of_keras_does_not_warn():
    X, y = CANCER
    normal = keras.initializers.HeNormal
    warm = quick(model=started(init=normal(seed=1)), epochs=1).partial_fit(X, y).partial_fit(X, y)
    warm.set_params(model=started(init=normal(seed=1))).partial_fit(X, y)
    with pytest.warns(UserWarning, match="the fitted network has another"):
        warm.set_params(model=started(init=normal(seed=2))).partial_fit(X, y)
    for numbered in (keras.optimizers.Adam, lambda: [keras.layers.Dense(3)]):  # adam_1, adam_2
        with_object = quick(model=started(other=numbered()), epochs=1).partial_fit(X, y)
        with_object.set_params(model=started(other=numbered())).partial_fit(X, y)


def test_a_warm_start_with_another_network_warns():
    X, y = CANCER
    warm = quick(model=MLP((4,)), epochs=1, warm_start=True).fit(X, y)
    warm.set_params(learning_rate=0.1, epochs=2, model=MLP([np.int64(4)], dropout=0)).fit(X, y)
    warm.set_params(model=MLP(4)).fit(X, y)
    for other in (MLP((4,), dropout=0.5), MLP((4, 4)), None):
        with pytest.warns(UserWarning, match="model=.* is trained further unchanged"):
            warm.set_params(model=other).fit(X, y)
        assert [layer.units for layer in warm.model_.layers if hasattr(layer, "units")] == [4, 1]
    for changed in ({"categorical_features": [0]}, {"imputer": SimpleImputer()}):
        other = clone(warm).set_params(model=MLP((4,))).fit(X, y)
        with pytest.warns(UserWarning, match=f"{next(iter(changed))}=.* trained further"):
            other.set_params(**changed).partial_fit(X, y)
    with pytest.warns(UserWarning, match="model=None: the fitted network has another"):
        warm.partial_fit(X, y)
    activated = quick(model=MLP((4,), activation=keras.layers.LeakyReLU(0.1)), epochs=1)
    activated.partial_fit(X, y).partial_fit(X, y)
    warm.set_params(model=MLP((3,)), warm_start=False).fit(X, y)
    assert [layer.units for layer in warm.model_.layers if hasattr(layer, "units")] == [3, 1]


def test_a_warm_start_with_another_keras_model_warns():
    X, y = CANCER

    def made(units=3):
        last = keras.layers.Dense(1, activation="sigmoid")
        return keras.Sequential([keras.layers.Dense(units), last])

    warm = quick(model=made(), epochs=1, warm_start=True).fit(X, y).fit(X, y)
    for same in (copy.deepcopy(warm), pickle.loads(pickle.dumps(warm))):
        same.fit(X, y)
    warm.set_params(model=made()).fit(X, y)
    for other in (made(7), MLP((4,)), None):
        with pytest.warns(UserWarning, match="model=.* is trained further unchanged"):
            warm.set_params(model=other).fit(X, y)
        assert warm.model_.count_params() == 3 * (X.shape[1] + 1) + 4


def test_a_warm_start_with_another_file_warns(tmp_path):
    X, y = CANCER
    paths = [tmp_path / f"{units}.keras" for units in (3, 4)]
    for units, path in zip((3, 4), paths, strict=True):
        last = keras.layers.Dense(1, "sigmoid")
        rows = keras.Input((X.shape[1],))
        keras.Model(rows, last(keras.layers.Dense(units)(rows))).save(path)
    warm = quick(model=paths[0], epochs=1, warm_start=True).fit(X, y).fit(X, y)
    paths[0].rename(tmp_path / "moved.keras")
    paths[0].touch()
    warm.fit(X, y)  # the file, which is another now, is not read again
    warm.set_params(model=tmp_path / "moved.keras").fit(X, y)
    with pytest.warns(UserWarning, match="model=.*4.keras.* is trained further unchanged"):
        warm.set_params(model=paths[1]).fit(X, y)


def test_warm_start_continues_from_the_last_fit():
    X, y = CANCER
    twice = full_batch(warm_start=True).fit(X, y).fit(X, y)
    once = full_batch().set_params(epochs=40).fit(X, y)
    np.testing.assert_allclose(twice.predict_proba(X), once.predict_proba(X), atol=1e-4)
    cold = full_batch().fit(X, y)
    first = cold.predict_proba(X)
    np.testing.assert_array_equal(cold.fit(X, y).predict_proba(X), first)


def test_samplers_change_training_rows_only_and_are_cloned():
    X, y = CANCER
    rows = np.flatnonzero((y == 1) | (np.arange(len(y)) % 4 == 0))
    X, y = X[rows], np.where(y[rows], "common", "rare")
    smote = SMOTE(random_state=0)
    classifier = quick(sampler=smote, epochs=10, prior_correction=True).fit(X, y)
    assert classifier.sampler_ is not smote
    assert not hasattr(smote, "sampling_strategy_")
    assert classifier.predict_proba(X).shape == (len(y), 2)
    assert abs(classifier.predict_proba(X)[:, 1].mean() - np.mean(y == "rare")) < 0.05
    under = quick(sampler=RandomUnderSampler(), epochs=10)
    first = under.fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(under.fit(X, y).predict_proba(X), first)


def test_prior_correction_refuses_cleaning_samplers():
    with pytest.raises(ValueError, match=r"prior_correction.*TomekLinks"):
        quick(sampler=TomekLinks(), prior_correction=True).fit(*CANCER)


@pytest.mark.parametrize(
    "container",
    [
        lambda X: pd.DataFrame(X).rename(columns=str),
        lambda X: polars.DataFrame(X),
        lambda X: scipy.sparse.csr_array(X),
        lambda X: X.tolist(),
        lambda X: np.asfortranarray(X.astype(np.float64)),
    ],
    ids=["pandas", "polars", "sparse", "list", "fortran"],
)
def test_containers_of_rows(container):
    X, y = CANCER
    X = X[:100].astype(np.float32)
    expected = quick().fit(X, y[:100]).predict_proba(X)
    found = quick().fit(container(X), y[:100]).predict_proba(container(X))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_nullable_and_missing_categories():
    X = pd.DataFrame(
        {
            "age": pd.array([20, 30, 40, 50] * 10, dtype="Int64"),
            "job": ["cook", None, "vet", "cook"] * 10,
            "married": pd.array([True, None, False, True] * 10, dtype="boolean"),
        }
    )
    y = np.arange(40) % 4 == 1
    classifier = quick(epochs=80, learning_rate=0.05).fit(X, y)
    assert classifier.score(X, y) == 1.0
    classes = {block.name: block.kind for block in classifier.blocks_.blocks_}
    assert classes == {"numeric": "numeric", "job": "categorical", "married": "categorical"}


def test_a_given_model_is_never_changed():
    X, y = CANCER
    X = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float32)
    model = keras.Sequential([keras.Input((30,)), keras.layers.Dense(2, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = [weight.copy() for weight in model.get_weights()]
    classifier = quick(model=model, optimizer="auto", loss="auto").fit(X, y)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert classifier.score(X, y) > 0.8
    np.testing.assert_allclose(classifier.model_(X), classifier.predict_proba(X), atol=1e-6)
    # What a caller does to the copy that model_ gives does not reach the estimator.
    p = classifier.predict_proba(X)
    classifier.model_.set_weights([0 * weight for weight in before])
    np.testing.assert_array_equal(classifier.predict_proba(X), p)


NUMBERS = np.arange(60) % 2
LABELS = {
    "Int64": pd.Series(NUMBERS, dtype="Int64"),
    "boolean": pd.Series(NUMBERS == 1, dtype="boolean"),
    "string": pd.Series(np.where(NUMBERS, "yes", "no"), dtype="string"),
    "category": pd.Series(np.where(NUMBERS, "yes", "no"), dtype="category"),
    "numbers as categories": pd.Series(NUMBERS, dtype="category"),
    "a class without rows": pd.Series(
        pd.Categorical(np.where(NUMBERS, "yes", "no"), categories=["maybe", "no", "yes"])
    ),
    "another index": pd.Series(NUMBERS, index=np.arange(60)[::-1] * 7),
    "an index of one value": pd.Series(NUMBERS, index=[0] * 60),
    "polars": polars.Series(np.where(NUMBERS, "yes", "no")).cast(polars.Categorical),
}


@pytest.fixture(scope="module")
def of_numbers():
    """Estimators, and what they predict where labels are 0 and 1."""
    X = binary()[0]
    network = KerasClassifier(SMALL, **FIT)
    stack = StackedKerasClassifier(
        [("n", network)], downstream=LogisticRegression(), blend=False, cv=2, random_state=0
    )
    transformer = KerasFeatureTransformer(network, cv=2, random_state=0)
    predicted = [(each, clone(each).fit(X, NUMBERS).predict_proba(X)) for each in (network, stack)]
    return predicted, transformer, transformer.fit_transform(X, NUMBERS)


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_dtype_are_learned_equally(kind, of_numbers):
    X = binary()[0]
    predicted, transformer, features = of_numbers
    for estimator, expected in predicted:
        found = clone(estimator).fit(X, LABELS[kind])
        np.testing.assert_array_equal(found.predict_proba(X), expected)
        assert len(found.classes_) == 2
        assert set(found.predict(X)) <= set(LABELS[kind].to_list())
    np.testing.assert_array_equal(transformer.fit_transform(X, LABELS[kind]), features)


@pytest.mark.parametrize("several", [False, True])
def test_labels_that_are_objects_are_refused_with_what_to_do(several):
    y = np.column_stack([NUMBERS, NUMBERS[::-1]]) if several else NUMBERS
    network = KerasClassifier(SMALL, **FIT)
    for estimator in (network, StackedKerasClassifier([("n", network)], cv=3)):
        with pytest.raises(ValueError, match=r"Unknown label type.*objects of type int;.*astype"):
            estimator.fit(binary()[0], y.astype(object))


@pytest.mark.parametrize("weight", [-1, np.nan, np.inf, "2", None])
def test_weights_of_classes_are_finite_numbers(weight):
    X, y = binary()
    with pytest.raises(
        ValueError, match=r"class_weight holds \{1: .*expected finite, non-negative"
    ):
        KerasClassifier(SMALL, class_weight={0: 1.0, 1: weight}, **FIT).fit(X, y)
    with pytest.raises(ValueError, match=r"class_weight=.* gives weight 0 to every class"):
        KerasClassifier(SMALL, class_weight={0: 0, 1: 0.0}, **FIT).fit(X, y)
