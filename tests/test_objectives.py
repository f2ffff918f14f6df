"""Every loss and metric of Keras, in every spelling, gets the labels that it takes, or is refused.

The figures are compared with formulas in NumPy, or with Keras' own metric on labels formed here.
"""

import functools
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from _models import SMALL
from sklearn.datasets import load_iris, make_multilabel_classification
from sklearn.metrics import accuracy_score, f1_score, precision_score, roc_auc_score

from skstack import KerasAutoencoder, KerasClassifier, KerasRegressor
from skstack._training.objective import mean_loss, resolve_objective
from skstack.networks import MLP, recipe

TINY = 1e-7


def clipped(p):
    return np.clip(p, TINY, 1 - TINY)


def log_loss_of_units(y, p):
    return -(y * np.log(clipped(p) + 0) + (1 - y) * np.log(clipped(1 - p)))


def normed(rows):
    return rows / np.sqrt((rows**2).sum(axis=1, keepdims=True))


# What Keras documents, for targets and predictions of one shape (rows, units).
FORMULAS = {
    "mean_squared_error": lambda y, p: ((y - p) ** 2).mean(axis=1),
    "mean_absolute_error": lambda y, p: np.abs(y - p).mean(axis=1),
    "mean_absolute_percentage_error": lambda y, p: 100 * (np.abs(y - p) / np.abs(y)).mean(axis=1),
    "mean_squared_logarithmic_error": lambda y, p: ((np.log1p(y) - np.log1p(p)) ** 2).mean(axis=1),
    "huber": lambda y, p: np.where(np.abs(y - p) <= 1, (y - p) ** 2 / 2, np.abs(y - p) - 0.5).mean(
        axis=1
    ),
    "log_cosh": lambda y, p: np.log(np.cosh(y - p)).mean(axis=1),
    "poisson": lambda y, p: (p - y * np.log(p)).mean(axis=1),
    "hinge": lambda y, p: np.maximum(1 - (2 * y - 1) * p, 0).mean(axis=1),
    "squared_hinge": lambda y, p: (np.maximum(1 - (2 * y - 1) * p, 0) ** 2).mean(axis=1),
    "categorical_hinge": lambda y, p: np.maximum(
        ((1 - y) * p).max(axis=1) - (y * p).sum(axis=1) + 1, 0
    ),
    "binary_crossentropy": lambda y, p: log_loss_of_units(y, p).mean(axis=1),
    "binary_focal_crossentropy": lambda y, p: (
        (1 - (y * p + (1 - y) * (1 - p))) ** 2 * log_loss_of_units(y, p)
    ).mean(axis=1),
    "categorical_crossentropy": lambda y, p: -(y * np.log(p)).sum(axis=1),
    "categorical_focal_crossentropy": lambda y, p: (-0.25 * y * (1 - p) ** 2 * np.log(p)).sum(
        axis=1
    ),
    "categorical_generalized_cross_entropy": lambda y, p: (1 - (y * p).sum(axis=1) ** 0.5) / 0.5,
    "kl_divergence": lambda y, p: (np.clip(y, TINY, 1) * np.log(np.clip(y, TINY, 1) / p)).sum(
        axis=1
    ),
    "cosine_similarity": lambda y, p: -(normed(y) * normed(p)).sum(axis=1),
    "dice": lambda y, p: np.array([1 - 2 * (y * p).sum() / (y.sum() + p.sum())]),
    "tversky": lambda y, p: np.array(
        [1 - (y * p).sum() / ((y * p).sum() + ((1 - p) * y).sum() / 2 + (p * (1 - y)).sum() / 2)]
    ),
}
FORMULAS["sparse_categorical_crossentropy"] = FORMULAS["categorical_crossentropy"]
CLASSES = {
    "categorical_hinge",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "kl_divergence",
    "sparse_categorical_crossentropy",
    "categorical_generalized_cross_entropy",
}
HINGES = {"hinge", "squared_hinge"}
RELATIVE = {"mean_absolute_percentage_error"}
CODES = {"sparse_categorical_crossentropy", "categorical_generalized_cross_entropy"}
REFUSED = {
    ("binary", 2): CLASSES | RELATIVE | {"cosine_similarity"},
    ("multiclass", 3): RELATIVE,
    ("multilabel", 3): CLASSES | RELATIVE,
    ("regression", 1): CLASSES | HINGES | {"cosine_similarity"},
    ("regression", 2): (CODES | HINGES | {"categorical_hinge"}),
}
ALIASES = {
    "mean_squared_error": ["mse", "MSE"],
    "mean_absolute_error": ["mae", "MAE"],
    "mean_absolute_percentage_error": ["mape", "MAPE"],
    "mean_squared_logarithmic_error": ["msle", "MSLE"],
    "binary_crossentropy": ["bce", "BCE"],
    "kl_divergence": ["kld", "KLD"],
}


def camel(name):
    if name in ("kl_divergence", "ctc"):
        return {"kl_divergence": "KLDivergence", "ctc": "CTC"}[name]
    return "".join(part.capitalize() for part in name.split("_"))


def spellings(name):
    """A loss in all ways to write it."""
    if name == "categorical_generalized_cross_entropy":  # no name leads to it, and it wants a q
        return [keras.losses.CategoricalGeneralizedCrossEntropy(q=0.5)]
    cls, function = getattr(keras.losses, camel(name)), getattr(keras.losses, name)
    return [name, camel(name), cls, cls(), function, *ALIASES.get(name, [])]


def data(task, n):
    """Targets and predictions of one shape (rows, units)."""
    rng = np.random.default_rng(1)
    p = rng.uniform(0.05, 0.95, (10, 1 if task == "binary" else n))
    if task == "multiclass":
        return np.eye(n)[rng.permutation(10) % n], p / p.sum(axis=1, keepdims=True)
    if task == "regression":
        y = rng.uniform(0.1, 0.9, p.shape)
        return (y, p) if n == 1 else tuple(a / a.sum(axis=1, keepdims=True) for a in (y, p))
    y = rng.integers(2, size=p.shape)
    return (y if task == "binary" else np.where(y.sum(axis=1, keepdims=True) == 0, 1, y)), p


def in_form(y, form):
    return y.argmax(axis=1).astype(np.int32) if form == "codes" else y.astype(np.float32)


each_task = pytest.mark.parametrize("task", list(REFUSED), ids=lambda task: f"{task[0]}-{task[1]}")


def test_all_losses_of_keras_are_tested():
    functions = {
        name
        for name, thing in vars(keras.losses).items()
        if inspect.isfunction(thing) and name not in ("get", "serialize", "deserialize")
    }
    assert functions == set(FORMULAS) | {"circle", "ctc"}


@each_task
@pytest.mark.parametrize("name", [*FORMULAS, "circle", "ctc"])
def test_each_loss_in_each_form_is_correct_or_refused(task, name):
    y, p = data(*task)
    if name in REFUSED[task] or name in ("circle", "ctc"):
        for loss in spellings(name):
            with pytest.raises(ValueError, match=r"loss=.*accepted"):
                resolve_objective(loss, task=task[0], n_outputs=task[1])
        return
    expected = FORMULAS[name](y, p).mean()
    for loss in spellings(name):
        settled = resolve_objective(loss, task=task[0], n_outputs=task[1])
        found = mean_loss(settled.loss, in_form(y, settled.form), p.astype(np.float32))
        assert found == pytest.approx(expected, rel=1e-3), loss
        assert settled.by_row == (name not in ("dice", "tversky"))


# By which targets and predictions a metric is right. Those of no set go by units.
METRICS_OF_CLASSES = {
    "CategoricalAccuracy", "CategoricalCrossentropy", "CategoricalHinge", "F1Score", "FBetaScore",
    "KLDivergence", "MeanMetricWrapper", "OneHotIoU", "OneHotMeanIoU", "TopKCategoricalAccuracy",
    "categorical_accuracy", "categorical_crossentropy", "categorical_focal_crossentropy",
    "categorical_hinge", "kl_divergence", "top_k_categorical_accuracy",
}  # fmt: skip
METRICS_OF_CODES = {
    "SparseCategoricalAccuracy", "SparseCategoricalCrossentropy", "SparseTopKCategoricalAccuracy",
    "sparse_categorical_accuracy", "sparse_categorical_crossentropy",
    "sparse_top_k_categorical_accuracy",
}  # fmt: skip
METRICS_OF_LABELS = {"Accuracy", "IoU", "MeanIoU"}
METRICS_OF_DIRECTIONS = {
    "ConcordanceCorrelation", "CosineSimilarity", "PearsonCorrelation", "concordance_correlation",
    "pearson_correlation",
}  # fmt: skip
METRICS_OF_NUMBERS = {
    "LogCoshError", "MeanAbsoluteError", "MeanAbsolutePercentageError", "MeanSquaredError",
    "MeanSquaredLogarithmicError", "R2Score", "RootMeanSquaredError", "huber", "log_cosh",
    "mean_absolute_error", "mean_absolute_percentage_error", "mean_squared_error",
    "mean_squared_logarithmic_error", "Poisson", "poisson", "BinaryCrossentropy",
    "binary_crossentropy", "binary_focal_crossentropy",
}  # fmt: skip
METRICS_OF_SHARES = {
    "CategoricalCrossentropy", "KLDivergence", "categorical_crossentropy", "kl_divergence",
    "categorical_focal_crossentropy", "MeanMetricWrapper",
}  # fmt: skip
OWN_UNITS = {
    "MeanAbsolutePercentageError", "MeanSquaredLogarithmicError", "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error", "Poisson", "poisson",
}  # fmt: skip
SETTINGS = {
    "IoU": {"num_classes": 3, "target_class_ids": [0, 1]},
    "OneHotIoU": {"num_classes": 3, "target_class_ids": [0, 1]},
    "BinaryIoU": {"target_class_ids": [0, 1]},
    "MeanIoU": {"num_classes": 3},
    "OneHotMeanIoU": {"num_classes": 3},
    "TopKCategoricalAccuracy": {"k": 2},
    "SparseTopKCategoricalAccuracy": {"k": 2},
    "PrecisionAtRecall": {"recall": 0.5},
    "RecallAtPrecision": {"precision": 0.5},
    "SensitivityAtSpecificity": {"specificity": 0.5},
    "SpecificityAtSensitivity": {"sensitivity": 0.5},
    "MeanMetricWrapper": {"fn": keras.losses.categorical_crossentropy},
}
ALL_METRICS = [
    name
    for name, thing in vars(keras.metrics).items()
    if (inspect.isfunction(thing) or inspect.isclass(thing))
    and name not in ("get", "serialize", "deserialize", "Metric")
]


def made(name):
    metric = getattr(keras.metrics, name)
    return metric(**SETTINGS.get(name, {})) if inspect.isclass(metric) else metric


def counted(metric, y, p):
    if isinstance(metric, str):
        metric = keras.metrics.get(metric)
    elif isinstance(metric, keras.metrics.Metric):
        metric = type(metric).from_config(metric.get_config())
    else:
        metric = keras.metrics.MeanMetricWrapper(metric)
    metric.update_state(keras.ops.convert_to_tensor(y), keras.ops.convert_to_tensor(p))
    return np.asarray(metric.result())


def formed(name, task, y, p):
    """Targets and predictions that the metric is defined for; None where there are none."""
    kind, n = task
    if name in ("Mean", "Sum"):
        return None
    if kind == "regression":
        shares = n > 1 and name in METRICS_OF_SHARES | METRICS_OF_DIRECTIONS
        return (y, p) if name in METRICS_OF_NUMBERS or shares else None
    if kind == "multilabel":
        if name == "Accuracy":
            return y, (p > 0.5).astype(np.float32)
        one_class = METRICS_OF_CLASSES | METRICS_OF_CODES | METRICS_OF_LABELS
        return None if name in one_class else (y, p)
    others = METRICS_OF_CLASSES | METRICS_OF_CODES | METRICS_OF_LABELS | METRICS_OF_DIRECTIONS
    if kind == "binary" and name in others:
        y, p = np.hstack([1 - y, y]), np.hstack([1 - p, p])
    if name in METRICS_OF_CODES:
        return y.argmax(axis=1).astype(np.int32), p
    if name in METRICS_OF_LABELS:
        return y.argmax(axis=1).astype(np.int32), p.argmax(axis=1).astype(np.int32)
    return y, p


@pytest.mark.slow(first=2)
@pytest.mark.parametrize(
    ("task", "loss"),
    [
        (("binary", 2), "crossentropy"),
        (("multiclass", 3), "categorical_crossentropy"),
        (("multiclass", 3), "crossentropy"),
        (("multilabel", 3), "crossentropy"),
        (("regression", 1), "mse"),
        (("regression", 2), "mse"),
    ],
    ids=lambda part: part if isinstance(part, str) else f"{part[0]}-{part[1]}",
)
def test_each_metric_is_correct_or_refused(task, loss):
    """On targets as the loss takes them, of whatever form."""
    kind, n = task
    y, p = (part.astype(np.float32) for part in data(*task))
    objective = resolve_objective(loss, task=kind, n_outputs=n)
    units = (np.full(n, 0.5), np.full(n, 0.1)) if kind == "regression" else (None, None)
    for name in ALL_METRICS:
        good = formed(name, task, y, p)
        metric = made(name)
        given = [metric]
        if isinstance(metric, keras.metrics.Metric) and name not in SETTINGS:
            given += [name, getattr(keras.metrics, name)]
        if good is not None and kind == "regression":
            # Standardised targets, brought back where the metric is defined in y's own units.
            own = name in OWN_UNITS or name not in METRICS_OF_NUMBERS
            own |= "inary" in name
            mean, scale = (part.astype(np.float32) for part in units)
            expected = counted(metric, *[a * scale + mean if own else a for a in good])
        elif good is not None:
            expected = counted(metric, *good)
        for each in given:
            if good is None:
                with pytest.raises(ValueError, match="metrics: "):
                    objective.metrics([each], *units)
                continue
            (settled,) = objective.metrics([each], *units)
            found = counted(settled, in_form(y, objective.form), p)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=name)


# Fits --------------------------------------------------------------------------------------------

IRIS = load_iris(return_X_y=True)
TWO = IRIS[0][50:], IRIS[1][50:] == 2
SEVERAL = make_multilabel_classification(n_samples=150, n_classes=3, random_state=0)


def quick(**parameters):
    return KerasClassifier(
        **{"model": MLP((8,)), "epochs": 25, "learning_rate": 0.02, "random_state": 0, **parameters}
    )


def watched(classifier, X, y):
    """Fit, and what was found on the same rows behind the epoch whose weights were kept."""
    classifier.set_params(n_iter_no_change=1000).fit(X, y, X_val=X, y_val=y)
    best = int(np.argmax(classifier.validation_scores_))
    found = {name: values[best] for name, values in classifier.history_.items()}
    return {name[4:]: value for name, value in found.items() if name.startswith("val_")}


@pytest.mark.slow(first=1)
@pytest.mark.parametrize(
    "loss", ["categorical_crossentropy", "sparse_categorical_crossentropy", "kl_divergence"]
)
def test_losses_of_a_unit_for_each_class_learn_two_classes(loss):
    X, y = TWO
    labels = np.where(y, "virginica", "versicolor")
    classifier = quick(loss=loss, metrics=["accuracy", keras.metrics.AUC(name="auc")])
    found = watched(classifier, X, labels)
    p = classifier.predict_proba(X)
    assert classifier.model_.output_shape == (None, 2)
    assert accuracy_score(labels, classifier.predict(X)) > 0.93
    assert found["loss"] == pytest.approx(
        -np.log(p[np.arange(100), y.astype(int)]).mean(), rel=1e-3
    )
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, classifier.predict(X)))


def test_a_given_network_of_one_unit_is_refused_for_them():
    model = keras.Sequential([keras.layers.Dense(1, "sigmoid")])
    for loss in ("categorical_crossentropy", keras.losses.CategoricalFocalCrossentropy()):
        with pytest.raises(ValueError, match=r"loss=.*one unit.*'binary_crossentropy'"):
            quick(model=model, loss=loss).fit(*TWO)


def test_metrics_of_three_classes_are_those_of_scikit_learn():
    X, y = IRIS
    classifier = quick(
        epochs=8,
        metrics=[
            "accuracy",
            "categorical_accuracy",
            keras.metrics.Precision(name="precision"),
            keras.metrics.F1Score(average="macro", name="f1"),
            keras.metrics.AUC(multi_label=True, num_labels=3, num_thresholds=2000, name="auc"),
            "mse",
        ],
    )
    found = watched(classifier, X, np.array(["a", "b", "c"])[y])
    p, one_hot = classifier.predict_proba(X), np.eye(3)[y]
    right = p.argmax(axis=1)
    assert 0.6 < accuracy_score(y, right) < 1
    assert found["accuracy"] == found["categorical_accuracy"]
    assert found["accuracy"] == pytest.approx(accuracy_score(y, right))
    assert found["precision"] == pytest.approx(precision_score(one_hot, p > 0.5, average="micro"))
    assert found["f1"] == pytest.approx(f1_score(y, right, average="macro"), rel=1e-5)
    assert found["auc"] == pytest.approx(roc_auc_score(one_hot, p), abs=2e-3)
    assert found["mse"] == pytest.approx(((p - one_hot) ** 2).mean(), rel=1e-4)


@pytest.mark.slow
def test_metrics_of_two_classes_and_of_labels():
    X, y = TWO
    classifier = quick(
        epochs=8,
        metrics=[
            "acc",
            "categorical_accuracy",
            keras.metrics.Precision(class_id=0, name="p0"),
            "AUC",
        ],
    )
    found = watched(classifier, X, y)
    label = classifier.predict(X)
    assert found["acc"] == found["categorical_accuracy"] == pytest.approx(np.mean(label == y))
    assert found["p0"] == pytest.approx(precision_score(~y, ~label))
    X, Y = SEVERAL
    classifier = quick(metrics=["accuracy"], epochs=8)
    found = watched(classifier, X, Y)
    assert found["accuracy"] == pytest.approx(np.mean(classifier.predict(X) == Y))


def test_from_logits_is_treated_as_false():
    X, y = TWO
    plain = quick(epochs=3).fit(X, y)
    losses = [
        keras.losses.BinaryCrossentropy(from_logits=True),
        functools.partial(keras.losses.binary_crossentropy, from_logits=True),
    ]
    for loss in losses:
        found = quick(epochs=3, loss=loss).fit(X, y)
        np.testing.assert_allclose(found.predict_proba(X), plain.predict_proba(X), atol=1e-6)
    with pytest.raises(ValueError, match="from_logits=True"):
        KerasRegressor(MLP(), loss=losses[0]).fit(X, y.astype(float))


def test_metrics_that_a_model_was_compiled_with_are_kept():
    X, y = IRIS
    model = keras.Sequential([keras.layers.Dense(3, "softmax")])
    model.compile(
        "adam",
        "sparse_categorical_crossentropy",
        metrics=["accuracy", keras.metrics.F1Score(average="macro", name="f1")],
    )
    found = quick(model=model, loss="auto", epochs=1).fit(X, y)
    assert set(found.history_) == {"loss", "accuracy", "f1"}
    assert set(quick(model=model, metrics=["mae"], epochs=1).fit(X, y).history_) == {"loss", "mae"}
    assert set(quick(model=model, metrics=[], epochs=1).fit(X, y).history_) == {"loss"}
    own = [lambda y, p: y - p[:, 0], of_one_hot]
    model.compile("adam", "sparse_categorical_crossentropy", metrics=[*own, keras.losses.hinge])
    with pytest.warns(UserWarning, match=r"\['lambda', 'of_one_hot'\].*pass them as metrics"):
        found = quick(model=model, loss="auto", epochs=1).fit(X, y)
    assert set(found.history_) == {"loss", "hinge"}


# What a user has written -------------------------------------------------------------------------


def of_one_hot(y, p):
    return -keras.ops.sum(y * keras.ops.log(p), axis=-1)


class SparseF1(keras.metrics.F1Score):
    """Takes numbers of classes, as users write it to have F1 beside a sparse loss."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true = keras.ops.one_hot(keras.ops.cast(y_true, "int32"), 3)
        return super().update_state(y_true, y_pred, sample_weight)


def test_custom_losses_and_metrics_get_the_labels_that_they_accept():
    X, y = IRIS
    settings = {"epochs": 2, "metrics": [SparseF1(average="macro", name="f1"), of_one_hot]}
    own = quick(loss=of_one_hot, **settings)
    found = watched(own, X, y)
    known = quick(loss="categorical_crossentropy", **settings).fit(X, y)
    np.testing.assert_allclose(own.predict_proba(X), known.predict_proba(X), atol=1e-6)
    assert found["f1"] == pytest.approx(f1_score(y, own.predict(X), average="macro"), rel=1e-5)
    assert found["of_one_hot"] == pytest.approx(found["loss"], rel=1e-4)
    codes = []

    def of_codes(y, p):
        codes.append(y.shape)
        return keras.losses.sparse_categorical_crossentropy(y, p)

    assert resolve_objective(of_codes, task="multiclass", n_outputs=3).form == "codes"
    assert {len(shape) for shape in codes} == {1}


SPREADING = {
    "rows": lambda y, p: keras.ops.square(y - p[:, 0]),
    "mean of rows": lambda y, p: keras.ops.mean(keras.ops.square(y - p[:, 0]), axis=-1),
    "one number": lambda y, p: keras.ops.mean(keras.ops.abs(y - p[:, 0])),
    "column of y": lambda y, p: keras.ops.mean(keras.ops.square(y[:, 0] - p)),
    "column of y by row": lambda y, p: keras.ops.mean(keras.ops.abs(y[:, 0] - p), axis=-1),
    "root": lambda y, p: keras.ops.sqrt(keras.ops.mean(keras.ops.square(y[:, 0] - p))),
}


@pytest.mark.parametrize("loss", SPREADING.values(), ids=SPREADING)
@pytest.mark.parametrize("make", [KerasRegressor, KerasClassifier])
def test_a_loss_that_broadcasts_rows_is_refused(loss, make):
    X, y = TWO
    with pytest.raises(ValueError, match="each row with all others"):
        make(SMALL, loss=loss, epochs=1).fit(X, y.astype(int))
    with pytest.raises(ValueError, match=r"metrics.*each row with all others"):
        make(SMALL, metrics=[loss], epochs=1).fit(X, y.astype(int))


def one_minus_correlation(y, p):
    a, b = y - keras.ops.mean(y), p - keras.ops.mean(p)
    products = [keras.ops.sum(one * other) for one, other in ((a, b), (a, a), (b, b))]
    return 1 - products[0] / (keras.ops.sqrt(products[1] * products[2]) + 1e-7)


def test_a_correlation_is_a_loss_of_whole_batches():
    """No single row has one; it compares no row with all others."""
    objective = resolve_objective(one_minus_correlation, task="regression", n_outputs=1)
    assert not objective.by_row
    with pytest.raises(ValueError, match="one number per batch"):
        objective.check_weights(np.array([1.0, 2.0]))


@pytest.mark.parametrize(
    "loss",
    [
        lambda y, p: keras.ops.sqrt(keras.ops.mean(keras.ops.square(y - p))),
        lambda y, p: keras.ops.log(keras.ops.mean(keras.ops.square(y - p))),
        lambda y, p: keras.ops.square(keras.ops.mean(y) - keras.ops.mean(p)),
        lambda y, p: keras.ops.mean(keras.ops.abs(keras.ops.sort(y, 0) - keras.ops.sort(p, 0))),
        lambda y, p: keras.ops.mean(p),
    ],
    ids=["root", "logarithm", "means", "quantiles", "predictions"],
)
def test_a_loss_of_whole_batches_is_accepted(loss):
    assert not resolve_objective(loss, task="regression", n_outputs=1).by_row


def squares(y, p):
    return keras.ops.mean(keras.ops.square(y - p), axis=-1)


class Ramp(keras.losses.Loss):
    """Counts its calls in a variable: a tf.Variable, or one that it makes when it is called."""

    def __init__(self, lazy=False):
        super().__init__()
        self.lazy, self.step = lazy, None if lazy else tf.Variable(0.0)

    def call(self, y_true, y_pred):
        if self.step is None:
            self.step = tf.Variable(0.0)
        self.step.assign_add(1.0)
        return self.step * squares(y_true, y_pred)


def counting(step):
    def loss(y, p):
        step.assign_add(1.0)
        return step * squares(y, p)

    return loss


@pytest.mark.parametrize(
    "make",
    [
        Ramp,
        lambda: Ramp(lazy=True),
        lambda: counting(keras.Variable(0.0)),
        lambda: functools.partial(lambda step, y, p: counting(step)(y, p), keras.Variable(0.0)),
    ],
    ids=["object", "lazy", "closure", "partial"],
)
@pytest.mark.parametrize("where", ["loss", "metrics"])
def test_a_loss_that_changes_when_it_is_called_is_refused(make, where):
    loss = make()
    mean = resolve_objective("mse", task="regression", n_outputs=1)
    resolve = {
        "loss": lambda: resolve_objective(loss, task="regression", n_outputs=1),
        "metrics": lambda: mean.metrics([loss], None, None, None),
    }
    with pytest.raises(ValueError, match=f"{where}.* changes a variable"):
        resolve[where]()
    if getattr(loss, "lazy", True) is False:
        assert loss.step.numpy() == 0.0


def test_a_loss_that_only_reads_a_variable_is_accepted():
    factor = keras.Variable(2.0)
    resolved = resolve_objective(
        lambda y, p: factor * squares(y, p), task="regression", n_outputs=1
    )
    assert resolved.by_row


def test_a_loss_with_random_noise_is_accepted_and_its_state_restored():
    generator = keras.random.SeedGenerator(0)
    before = generator.state.numpy().tolist()

    def noisy(y, p):
        return squares(y, p) * keras.random.uniform((1,), 0.999999, 1.0, seed=generator)

    resolve_objective(noisy, task="regression", n_outputs=1)
    assert generator.state.numpy().tolist() == before


def test_a_loss_with_a_variable_that_is_not_set_yet_is_accepted():
    def make():
        def loss(y, p):
            return squares(y, p) if y is not None else later

        made = loss
        if made is None:
            later = 1.0
        return made

    assert resolve_objective(make(), task="regression", n_outputs=1).by_row


def test_a_loss_that_mixes_rows_explicitly_is_accepted():
    def ranked(y, p):
        apart = y[:, 0][:, None] - y[:, 0][None]
        return keras.ops.mean(keras.ops.softplus(-apart * (p - keras.ops.transpose(p))), axis=-1)

    for task in ("binary", "regression"):
        assert resolve_objective(ranked, task=task, n_outputs=1).by_row


def test_weights_are_refused_for_losses_of_a_whole_batch():
    X, y = TWO
    weights = np.arange(100) + 1.0
    own = lambda y, p: keras.ops.mean(keras.ops.square(y - p))  # noqa: E731
    for loss in ("dice", keras.losses.Tversky(), own):
        with pytest.raises(ValueError, match=r"one number per batch.*sample_weight"):
            quick(loss=loss).fit(X, y, sample_weight=weights)
    with pytest.raises(ValueError, match="class_weight"):
        quick(loss="dice", class_weight={False: 1, True: 3}).fit(X, y)
    assert resolve_objective(keras.losses.Dice(axis=-1), task="binary", n_outputs=2).by_row


def test_autoencoders_refuse_losses_of_other_units():
    X, _ = IRIS
    for loss in ("binary_crossentropy", "mape", "poisson", "sparse_categorical_crossentropy"):
        with pytest.raises(ValueError, match=f"loss='{loss}'"):
            KerasAutoencoder(loss=loss, epochs=1).fit(X)

    @recipe
    def images(spec):
        inputs = spec.inputs()
        x = keras.layers.Flatten()(inputs["tensor"])
        x = keras.layers.Dense(4, "sigmoid")(keras.layers.Dense(2, name="latent")(x))
        return keras.Model(inputs, keras.layers.Reshape((2, 2, 1))(x))

    shaped = {"input_shape": (2, 2, 1), "loss": "binary_crossentropy", "epochs": 1}
    KerasAutoencoder(images(), **shaped).fit(X / 10)
    with pytest.raises(ValueError, match=r"X holds values.*\[0, 1\]"):
        KerasAutoencoder(images(), **shaped).fit(X)
