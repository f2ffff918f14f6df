"""Which losses and metrics suit which output, labels and units, and the loss of predictions.

Names, aliases, classes, functions and objects of Keras resolve to one entry of a table of
comparisons. A user's own function is tried on a few example rows.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import re
import types
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from skstack._base.keras_objects import remade, with_settings
from skstack._base.text import described
from skstack._training.isolation import preserve_rng


@dataclass(frozen=True)
class Comparison:
    """What a loss or a metric compares.

    Parameters
    ----------
    labels : {"units", "classes", "codes", "labels"} or None
        How it takes classes. "units": one number for each unit of the output. "classes": one-hot
        rows, for two units or more. "codes": class indices. "labels": class indices on both sides,
        predictions rounded. None: it cannot compare classes.
    multilabel : bool
        Whether a row may have several labels.
    numbers : bool
        Whether it also compares numbers.
    raw_units : bool
        Whether it is only defined in the original units of the numbers.
    low, high : float
        Bounds of the numbers on both sides.
    activation : str, default=None
        Activation that the output needs.
    min_columns : int
        Smallest number of columns of a row of numbers.
    reason : str
        Why it is not supported.
    batchwise : bool
        Whether it may return one number for a whole batch.
    builtin : bool
        Whether it is Keras' own.
    """

    labels: str | None = "units"
    multilabel: bool = True
    numbers: bool = True
    raw_units: bool = False
    low: float = -np.inf
    high: float = np.inf
    activation: str | None = None
    min_columns: int = 1
    reason: str = ""
    batchwise: bool = False
    builtin: bool = True

    @property
    def interval(self):
        return f"[{self.low:g}, {self.high:g}]"


_ANY = Comparison()
_OWN = Comparison(raw_units=True)
_RELATIVE = Comparison(None, raw_units=True, reason="relative to labels that are 0")
_POSITIVE = Comparison(raw_units=True, low=0.0, activation="exponential")
_UNIT = Comparison(raw_units=True, low=0.0, high=1.0, activation="sigmoid")
_SHARES = Comparison(
    "classes", False, raw_units=True, low=0.0, high=1.0, activation="softmax", min_columns=2
)
_CLASSES = Comparison("classes", False, numbers=False)
_CODES = Comparison("codes", False, numbers=False)
_UNITS = Comparison(numbers=False)
_LABELS = Comparison("labels", numbers=False)
_DIRECTION = Comparison(raw_units=True, min_columns=2)
_UNSUPPORTED = Comparison(None, numbers=False)
_UNKNOWN = Comparison(raw_units=True, builtin=False)

_LOSSES = {
    "mean_squared_error MeanSquaredError mean_absolute_error MeanAbsoluteError huber Huber "
    "log_cosh LogCosh": _ANY,
    "mean_absolute_percentage_error MeanAbsolutePercentageError": _RELATIVE,
    "mean_squared_logarithmic_error MeanSquaredLogarithmicError poisson Poisson": _POSITIVE,
    "binary_crossentropy BinaryCrossentropy binary_focal_crossentropy "
    "BinaryFocalCrossentropy": _UNIT,
    "dice Dice tversky Tversky": replace(_UNIT, batchwise=True),
    "hinge Hinge squared_hinge SquaredHinge": _UNITS,
    "categorical_hinge CategoricalHinge": _CLASSES,
    "categorical_crossentropy CategoricalCrossentropy categorical_focal_crossentropy "
    "CategoricalFocalCrossentropy kl_divergence KLDivergence": _SHARES,
    "cosine_similarity CosineSimilarity": _DIRECTION,
    "sparse_categorical_crossentropy SparseCategoricalCrossentropy "
    "categorical_generalized_cross_entropy CategoricalGeneralizedCrossEntropy": _CODES,
    "circle Circle": replace(
        _UNSUPPORTED, reason="it compares embeddings of rows, not predictions"
    ),
    "ctc CTC": replace(_UNSUPPORTED, reason="it compares sequences of labels"),
}
_METRICS = {
    "MeanSquaredError RootMeanSquaredError MeanAbsoluteError LogCoshError R2Score huber "
    "log_cosh": _ANY,
    "mean_absolute_percentage_error MeanAbsolutePercentageError mean_squared_logarithmic_error "
    "MeanSquaredLogarithmicError": _OWN,
    "Poisson": Comparison(raw_units=True, low=0.0),
    "CosineSimilarity PearsonCorrelation pearson_correlation ConcordanceCorrelation "
    "concordance_correlation": _DIRECTION,
    "BinaryCrossentropy": _UNIT,
    "AUC FalseNegatives FalsePositives TrueNegatives TruePositives Precision Recall "
    "PrecisionAtRecall RecallAtPrecision SensitivityAtSpecificity SpecificityAtSensitivity "
    "BinaryAccuracy binary_accuracy BinaryIoU Hinge SquaredHinge": _UNITS,
    "CategoricalCrossentropy KLDivergence": _SHARES,
    "CategoricalAccuracy categorical_accuracy TopKCategoricalAccuracy top_k_categorical_accuracy "
    "CategoricalHinge F1Score FBetaScore OneHotIoU OneHotMeanIoU": _CLASSES,
    "SparseCategoricalCrossentropy SparseCategoricalAccuracy sparse_categorical_accuracy "
    "SparseTopKCategoricalAccuracy sparse_top_k_categorical_accuracy": _CODES,
    "Accuracy": _LABELS,
    "IoU MeanIoU": replace(_LABELS, multilabel=False),
    "Mean Sum": replace(_UNSUPPORTED, reason="it takes values, not predictions"),
}


def _table(module, names):
    """Comparisons by the functions and classes of a module; older Keras lacks the newest names."""
    return {
        getattr(module, name): comparison
        for listed, comparison in names.items()
        for name in listed.split()
        if hasattr(module, name)
    }


_LOSS_TABLE = _table(keras.losses, _LOSSES)
_METRIC_TABLE = {**_LOSS_TABLE, **_table(keras.metrics, _METRICS)}
_HIGHER_IS_BETTER = (
    "AUC Accuracy BinaryAccuracy BinaryIoU CategoricalAccuracy ConcordanceCorrelation "
    "CosineSimilarity F1Score FBetaScore IoU MeanIoU OneHotIoU OneHotMeanIoU PearsonCorrelation "
    "Precision PrecisionAtRecall R2Score Recall RecallAtPrecision SensitivityAtSpecificity "
    "SparseCategoricalAccuracy SparseTopKCategoricalAccuracy SpecificityAtSensitivity "
    "TopKCategoricalAccuracy TrueNegatives TruePositives binary_accuracy categorical_accuracy "
    "concordance_correlation pearson_correlation sparse_categorical_accuracy "
    "sparse_top_k_categorical_accuracy top_k_categorical_accuracy"
)
_DIRECTIONS = {
    **dict.fromkeys(_METRIC_TABLE, False),
    **_table(keras.metrics, {_HIGHER_IS_BETTER: True}),
}
# Names that mean another loss, or metric, for each kind of classes.
_BY_TASK = {"accuracy": "accuracy", "acc": "accuracy", "crossentropy": "crossentropy"}
_BY_TASK["ce"] = "crossentropy"
_KIND_OF_TASK = {"binary": "binary", "multilabel": "binary", "multiclass": "sparse_categorical"}


def _entry_of(value, table):
    """Return the table's entry of an object or function; None for one of the user's own."""
    if isinstance(value, functools.partial):
        return _entry_of(value.func, table)
    if inspect.isroutine(value):
        return table.get(value)
    for cls in type(value).__mro__:
        if cls in table:
            return None if _overrides(value, cls) else table[cls]
    inner = getattr(value, "fn", None)
    return None if inner is None else _entry_of(inner, table)


def _overrides(value, base):
    """Whether a class overrides the comparison of its base class from Keras."""
    if base in (keras.metrics.Mean, keras.metrics.Sum):
        return type(value) is not base
    method = "call" if isinstance(value, keras.losses.Loss) else "update_state"
    return getattr(type(value), method) is not getattr(base, method)


_SOFT = (
    keras.losses.BinaryCrossentropy,
    keras.losses.CategoricalCrossentropy,
    keras.losses.binary_crossentropy,
    keras.losses.categorical_crossentropy,
)


def known_loss(loss):
    """Return the object or function of a loss; "crossentropy", which depends on the task, as is."""
    named = isinstance(loss, str) and _BY_TASK.get(loss.lower()) == "crossentropy"
    return loss if named else keras.losses.get(loss)


def known_metric(metric):
    """Return the object or function of a metric; see `known_loss`."""
    named = isinstance(metric, str) and metric.lower() in _BY_TASK
    return metric if named else keras.metrics.get(metric)


def head_for(loss, task, n_outputs) -> dict:
    """Return the fields of a spec that a loss requires: none if the default head is right."""
    comparison = _entry_of(known_loss(loss), _LOSS_TABLE)
    if comparison is None:
        return {}
    if task == "binary" and (comparison.labels in ("classes", "codes") or comparison is _DIRECTION):
        return {"task": "multiclass", "n_outputs": 2}
    if task == "regression" and comparison.activation is not None:
        return {"activation": comparison.activation}
    return {}


def _refuse(what, why, accepted):
    raise ValueError(f"{what} {why}; accepted {accepted}.")


_FOR_NUMBERS = "are, for example, 'mean_squared_error' and 'mean_absolute_error'"
_ACCEPTED = {
    "binary": "is, for example, 'binary_crossentropy'",
    "multilabel": "is, for example, 'binary_crossentropy'",
    "multiclass": "are, for example, 'sparse_categorical_crossentropy' and "
    "'categorical_crossentropy'",
    "regression": _FOR_NUMBERS,
    "reconstruction": _FOR_NUMBERS,
}
_KINDS = {
    "binary": "a network with one unit for two classes",
    "multilabel": "several labels per row",
    "multiclass": "one class per row",
    "regression": "numbers",
    "reconstruction": "the columns of X",
}
_CLASSIFYING = ("binary", "multiclass", "multilabel")


def _check_fit(what, comparison, task, n_outputs):
    """Refuse a loss or metric that cannot compare predictions of this task."""
    accepted = _ACCEPTED[task]
    if comparison.reason and (task in _CLASSIFYING or not comparison.numbers):
        _refuse(what, f"does not fit {_KINDS[task]}: {comparison.reason}", accepted)
    if task not in _CLASSIFYING:
        if not comparison.numbers:
            _refuse(what, f"compares classes, and the targets are {_KINDS[task]}", accepted)
        least = comparison.min_columns
        if n_outputs < least:
            _refuse(
                what,
                f"compares rows of at least {least} numbers, and y has {n_outputs} target",
                accepted,
            )
        return
    if task == "multilabel" and not comparison.multilabel:
        _refuse(
            what,
            "needs one class per row, but y holds several labels per row. If each has one, "
            "pass labels: y.argmax(axis=1)",
            accepted,
        )


def _without_logits(what, value, task):
    """Replace from_logits=True: the outputs of classifiers are probabilities."""
    inner = value.keywords if isinstance(value, functools.partial) else None
    config = inner
    if config is None and isinstance(value, (keras.losses.Loss, keras.metrics.Metric)):
        if _entry_of(value, _METRIC_TABLE) is None:
            return value
        config = value.get_config()
    if config is None or not config.get("from_logits"):
        return value
    if task not in _CLASSIFYING:
        raise ValueError(
            f"{what} has from_logits=True, so predict would return log-odds of y; expected "
            "from_logits=False, with a network that ends with a sigmoid or softmax."
        )
    if inner is not None:
        return functools.partial(value.func, *value.args, **{**inner, "from_logits": False})
    return with_settings(value, {"from_logits": False}, what)


# Example rows ------------------------------------------------------------------------------------


def unused_size(sizes):
    """Return a number of rows that differs from all `sizes`."""
    sizes = set(sizes)
    return next(number for number in itertools.count(7, 2) if number not in sizes)


def _example_rows(form, n_outputs):
    """Targets and predictions, with a number of rows that differs from all other sizes."""
    rng = np.random.default_rng(0)
    n_rows = unused_size([n_outputs])
    p = rng.uniform(0.1, 0.9, (n_rows, n_outputs)).astype(np.float32)
    if form == "codes":
        y = (np.arange(n_rows) % n_outputs).astype(np.int32)
    elif form == "one-hot":
        y = np.eye(n_outputs, dtype=np.float32)[np.arange(n_rows) % n_outputs]
    elif form == "numbers":
        y = rng.uniform(0.1, 0.9, (n_rows, n_outputs)).astype(np.float32)
    else:
        y = rng.integers(2, size=(n_rows, n_outputs)).astype(np.float32)
    if form in ("codes", "one-hot"):
        p /= p.sum(axis=1, keepdims=True)
    return y, p


def _values(loss, y, p):
    """Values of a loss before they are averaged."""
    call = loss.call if isinstance(loss, keras.losses.Loss) else loss
    with preserve_rng():
        values = call(ops.convert_to_tensor(y), ops.convert_to_tensor(p))
    return np.asarray(ops.convert_to_numpy(values), dtype=np.float64)


def losses_of_rows(loss, y, p):
    """Loss of each row, a tensor of shape (n_rows,); of a loss of whole batches one number."""
    values = loss.call(y, p) if isinstance(loss, keras.losses.Loss) else loss(y, p)
    rank = len(values.shape)
    return ops.mean(values, axis=tuple(range(1, rank))) if rank > 1 else values


def check_averages(loss, where):
    """Refuse a loss that is combined with others and does not average over rows."""
    reduction = getattr(loss, "reduction", "mean")
    if reduction not in ("mean", "sum_over_batch_size"):
        raise ValueError(
            f"loss={described(loss)} has reduction={reduction!r}; {where} it must average over "
            "rows: reduction='sum_over_batch_size'."
        )


def _averages_rows(loss, y, p):
    """Whether the loss of all rows is the mean of the losses of each row, which differ.

    Or the root of their mean square. False if it fails on rows of these shapes.
    """
    try:
        apart = np.array([_values(loss, y[i : i + 1], p[i : i + 1]).mean() for i in range(len(y))])
        whole = _values(loss, y, p).mean()
    except Exception:  # a user's function may raise anything
        return False
    if np.ptp(apart) == 0:  # as of correlations, which no single row has
        return False
    means = apart.mean(), np.sqrt(np.square(apart).mean())
    return bool(np.isclose(means, whole, rtol=1e-4, atol=1e-6).any())


_MOST_PARTS = 1_000  # of a container, such as a list of numbers, that are looked at


def variables_of(loss):
    """Variables that a loss or a metric holds or refers to, but not those of layers."""
    found, seen, rest = [], {}, [loss, getattr(loss, "__dict__", {})]
    while rest:
        part = rest.pop()
        if id(part) in seen:
            continue
        seen[id(part)] = part  # kept, so that no id is reused
        if isinstance(part, (keras.Variable, tf.Variable)):
            found.append(part)
        elif isinstance(part, dict):
            rest += itertools.islice(part.values(), _MOST_PARTS)
        elif isinstance(part, (list, tuple, set)):
            rest += itertools.islice(part, _MOST_PARTS)
        elif isinstance(part, functools.partial):
            rest += [part.func, part.args, part.keywords]
        elif isinstance(part, types.MethodType):
            rest += [part.__func__, getattr(part.__self__, "__dict__", {})]
        elif isinstance(part, types.FunctionType) and not _is_from_keras(part):
            with contextlib.suppress(ValueError):  # a cell that is empty
                used = inspect.getclosurevars(part)
                rest += [*used.nonlocals.values(), *used.globals.values()]
            rest += part.__defaults__ or ()
        elif isinstance(part, (keras.losses.Loss, keras.random.SeedGenerator)):
            rest.append(vars(part))
    return found


@contextlib.contextmanager
def _stateless(what, loss):
    """Context in which calls of a loss must not change its variables; they are restored."""
    before = [(variable, variable.numpy()) for variable in variables_of(loss)]
    changed = []
    try:
        yield
    finally:
        for variable, value in before:
            if variable.numpy().tobytes() != value.tobytes():
                variable.assign(value)
                if "seed_generator_state" not in variable.name:  # of random noise
                    changed.append(variable.name)
    known = {id(variable) for variable, _ in before}
    changed += [variable.name for variable in variables_of(loss) if id(variable) not in known]
    if changed:
        raise ValueError(
            f"{what} changes a variable ({changed[0]!r}) whenever it is called, so a second "
            "fit would not start like the first. Use a function of y and the predictions; a "
            "callback may assign a variable that it reads."
        )


def _check_custom(what, loss, form, n_outputs):
    """Refuse what is not a function of the rows alone; return whether it gives a value per row.

    None if it fails on the example rows: the call on real rows will raise the error.
    """
    with _stateless(what, loss):
        return _is_by_row(what, loss, form, n_outputs)


def _is_by_row(what, loss, form, n_outputs):
    """Refuse a function that broadcasts rows against each other; return as `_check_custom`."""
    y, p = _example_rows(form, n_outputs)
    n_rows = len(y)
    try:
        shape = _values(loss, y, p).shape
    except Exception:  # a user's function may raise anything on example rows
        return None
    if shape.count(n_rows) > 1:
        raise ValueError(
            f"{what} returns a value of shape {shape} for {n_rows} rows of y with shape {y.shape} "
            f"and predictions with shape {p.shape}: it compares each row with all others. Return "
            f"one value for each row, of shape ({n_rows},), or one for all of them."
        )
    if y.shape == (n_rows, 1):
        # As meant, if one of them has the shape that the function makes of the other.
        others = (y[:, 0], p), (y, p[:, 0])
        if not _averages_rows(loss, y, p) and any(_averages_rows(loss, *own) for own in others):
            raise ValueError(
                f"{what} compares each row with all others: y and the predictions have shape "
                "(n_rows, 1), and one of them is compared with an array of shape (n_rows,). Use "
                "columns of both, such as y[:, 0] and p[:, 0]."
            )
    return shape[:1] == (n_rows,)


# The objective -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objective:
    """A loss, and the form of its targets.

    Attributes
    ----------
    loss : str, keras.losses.Loss or callable
        For a `TrainConfig`.
    form : {"column", "codes", "one-hot", "indicator", "numbers"}
        Form of the targets: 0 or 1 in one column; class indices; one-hot rows; 0 or 1 for each
        label; numbers.
    comparison : Comparison
    user_loss : object
        The loss as the user passed it.
    task : str
        As in a spec.
    n_outputs : int
    by_row : bool
        Whether it returns one value per row, to which sample weights apply.
    """

    loss: Any
    form: str
    comparison: Comparison
    user_loss: Any
    task: str
    n_outputs: int
    by_row: bool = True

    @property
    def n_units(self):
        """Width of the predictions."""
        return 1 if self.task == "binary" else self.n_outputs

    @property
    def _what(self):
        return f"loss={described(self.user_loss)}"

    @property
    def raw_units(self):
        """Whether the loss must see targets in their original units."""
        comparison = self.comparison
        if self.task == "reconstruction":  # the direction of a row does not depend on units
            return comparison.builtin and comparison.raw_units and comparison is not _DIRECTION
        return comparison.raw_units

    def with_soft_labels(self) -> Objective:
        """The objective for targets between 0 and 1; a ValueError unless it is a cross-entropy."""
        loss = keras.losses.get(self.loss)
        if type(loss) in _SOFT or loss in _SOFT:
            return self
        config = loss.get_config() if isinstance(loss, keras.losses.Loss) else {}
        sparse = type(loss) is keras.losses.SparseCategoricalCrossentropy
        if sparse and (config.get("ignore_class"), config.get("axis", -1)) == (None, -1):
            loss = keras.losses.CategoricalCrossentropy(reduction=loss.reduction)
        elif loss is keras.losses.sparse_categorical_crossentropy:
            loss = "categorical_crossentropy"
        else:
            raise ValueError(
                f"{self._what} does not take labels between 0 and 1, which label_smoothing makes; "
                "accepted are cross-entropies, such as loss='auto'."
            )
        objective = resolve_objective(loss, task=self.task, n_outputs=self.n_outputs)
        return replace(objective, user_loss=self.user_loss)

    def smoothed(self, targets, smoothing):
        """Targets of classes, of which a share is spread over all classes."""
        n_classes = targets.shape[1] if self.form == "one-hot" else 2
        return (targets * (1.0 - smoothing) + smoothing / n_classes).astype(np.float32)

    def check_weights(self, weights):
        """Refuse sample weights that would have no effect."""
        if not self.by_row and weights is not None and np.ptp(weights) > 0:
            raise ValueError(
                f"{self._what} returns one number per batch, to which sample_weight and "
                "class_weight cannot be applied. Leave them out, or return one value per row."
            )

    def check_head(self, low, high):
        """Refuse a network with outputs, in [low, high], for which the loss is not defined."""
        if np.min(low) < self.comparison.low or np.max(high) > self.comparison.high:
            head = self.comparison.activation or "exponential"
            _refuse(
                self._what,
                f"needs predictions in {self.comparison.interval}, and the network "
                f"has outputs in [{np.min(low):g}, {np.max(high):g}]",
                f"is a network that ends with the activation {head!r}, as spec.outputs(x) makes it",
            )

    def check_numbers(self, y, what="y"):
        """Refuse targets, in their original units, for which the loss is not defined."""
        comparison = self.comparison
        if y.size and (y.min() < comparison.low or y.max() > comparison.high):
            raise ValueError(
                f"{what} holds values from {y.min():g} to {y.max():g}, but {self._what} is defined "
                f"only for values in {comparison.interval}."
            )
        if comparison is _SHARES and not np.allclose(y.sum(axis=1), 1.0, atol=1e-3):
            raise ValueError(
                f"{self._what} compares distributions: rows of {what} must sum to 1, and they sum "
                f"to {y.sum(axis=1).min():g} to {y.sum(axis=1).max():g}."
            )
        zeros = int(np.sum(y == 0)) if comparison is _RELATIVE else 0
        if zeros:
            raise ValueError(
                f"{what} holds {zeros} zero(s), for which the relative error of {self._what} is "
                "not defined."
            )

    def metrics(self, user_metrics, mean=None, scale=None, bounds=None) -> tuple:
        """Return metrics for a `TrainConfig`, each converted to the form of targets that it takes.

        `mean` and `scale` are those of standardised targets; `bounds` (low, high) of outputs that
        are numbers, in their original units.
        """
        if mean is None or (np.all(mean == 0) and np.all(scale == 1)):
            units = None
        else:
            units = tuple(map(float, mean)), tuple(map(float, scale))
        return tuple(self._metric(metric, units, bounds) for metric in user_metrics)

    def _metric(self, user_metric, units, bounds):
        what = f"metrics: {described(user_metric)}"
        known = known_metric(user_metric)
        _check_copy(what, known)
        metric, name = _named(known, user_metric, self.task)
        comparison = _entry_of(metric, _METRIC_TABLE)
        comparison = _entry_of_wrapper(metric, _METRIC_TABLE) if comparison is None else comparison
        if comparison is None:
            return self._custom_metric(what, metric, units)
        comparison = _by_settings(metric, comparison, self.task)
        _check_fit(what, comparison, self.task, self.n_outputs)
        cleaned = _without_logits(what, metric, self.task)
        if self.form == "numbers":
            low, high = (comparison.low, comparison.high) if bounds is None else bounds
            if np.min(low) < comparison.low or np.max(high) > comparison.high:
                raise ValueError(
                    f"{what} is defined for predictions in {comparison.interval}, and "
                    f"the network's lie in [{np.min(low):g}, {np.max(high):g}]."
                )
            if comparison.raw_units and units is not None:
                return MetricInForm(cleaned, name, "numbers", None, None, units)
            return _unchanged(user_metric, metric, cleaned, name)
        y_form, p_form = _metric_forms(metric, comparison, self.task)
        if (y_form, p_form) == (self.form, "as it is"):
            return _unchanged(user_metric, metric, cleaned, name)
        return MetricInForm(cleaned, name, self.form, y_form, p_form, None, self.n_outputs)

    def _custom_metric(self, what, metric, units):
        if self.form == "numbers":
            if not isinstance(metric, keras.metrics.Metric):
                _check_custom(what, metric, self.form, self.n_units)
            name = name_of(metric)
            if units is None:
                return metric
            return MetricInForm(metric, name, "numbers", None, None, units)
        forms = [self.form]
        if self.task == "multiclass":
            forms += [form for form in ("codes", "one-hot") if form != self.form]
        runs = (form for form in forms if _runs(what, metric, form, self.n_units))
        form = next(runs, self.form)
        if form == self.form:
            return metric
        name = name_of(metric)
        return MetricInForm(metric, name, self.form, form, "as it is", None, self.n_outputs)


def _is_from_keras(value):
    return (getattr(value, "__module__", None) or "").partition(".")[0] == "keras"


def name_in_logs(metric):
    """The name of a metric, as passed by the user, in the history."""
    if isinstance(metric, str):
        return metric
    if isinstance(metric, type):  # Keras appends a number to the names of instances
        return re.sub(r"_\d+$", "", known_metric(metric).name)
    return name_of(metric)


def find_monitored(name, user_metrics):
    """Find the metric of a name that early stopping monitors.

    Returns
    -------
    listed, greater_is_better : bool
        Whether it is one of `user_metrics`, or else one of Keras; and its direction.

    Raises
    ------
    ValueError
        If there is no such metric, or its direction is unknown.
    """
    listed = {name_in_logs(metric): metric for metric in user_metrics}
    what = f"early_stopping_metric={name!r}"
    metric = listed.get(name, name)
    try:
        known = known_metric(metric)
    except ValueError:
        known = None
    if known is None:
        raise ValueError(
            f"{what} is unknown; accepted are 'loss', the names of `metrics`, {list(listed)}, and "
            "those of metrics of Keras, such as 'accuracy' and 'auc'."
        )
    if isinstance(known, str):  # depends on the task
        return name in listed, _BY_TASK[known.lower()] == "accuracy"
    greater = getattr(metric, "greater_is_better", None)
    if greater is None:
        greater = _entry_of(known, _DIRECTIONS)
    if greater is None:
        greater = _entry_of_wrapper(known, _DIRECTIONS)
    if greater is None:
        raise ValueError(
            f"{what} is a metric of your own, whose direction is unknown. Give it an attribute "
            "`greater_is_better`, True or False, or use a metric of Keras."
        )
    return name in listed, bool(greater)


def _runs(what, metric, form, n_outputs):
    """Whether a user's metric accepts targets of this form."""
    if not isinstance(metric, keras.metrics.Metric):
        return _check_custom(what, metric, form, n_outputs) is not None
    y, p = _example_rows(form, n_outputs)
    try:
        with preserve_rng():
            copied = remade(metric)
            copied.update_state(ops.convert_to_tensor(y), ops.convert_to_tensor(p))
            copied.result()
    except Exception:  # a user's metric may raise anything on example rows
        return False
    return True


def name_of(metric):
    return getattr(metric, "name", None) or getattr(metric, "__name__", type(metric).__name__)


def _named(metric, user_metric, task):
    """Resolve a metric's name for a task; return the metric and its name in logs."""
    name = name_in_logs(user_metric)
    if isinstance(user_metric, type):
        return _made(metric, name), name
    if not isinstance(metric, str):
        return metric, name
    kind = _BY_TASK[metric.lower()]
    if task not in _CLASSIFYING:
        if kind == "crossentropy":
            raise ValueError(
                f"metrics: {described(user_metric)} compares classes, and the targets are "
                f"{_KINDS[task]}."
            )
        return keras.metrics.Accuracy(name=user_metric), user_metric
    return keras.metrics.get(f"{_KIND_OF_TASK[task]}_{kind}"), user_metric


def _entry_of_wrapper(metric, table):
    """Return the table's entry of the function in a ``MeanMetricWrapper``, named in its config."""
    if type(metric) is not keras.metrics.MeanMetricWrapper:
        return None
    name = str(metric.get_config()["fn"].get("config"))
    function = getattr(keras.metrics, name, None) or getattr(keras.losses, name, None)
    return None if function is None else _entry_of(function, table)


def _check_copy(what, metric):
    """Refuse a metric that cannot be copied: metrics hold state, so each fit needs new ones."""
    if not isinstance(metric, keras.metrics.Metric):
        return
    try:
        remade(metric)
    except Exception as error:  # a user's class may raise anything
        raise ValueError(
            f"{what} cannot be copied from its config ({type(error).__name__}). Give its class a "
            "get_config that holds all arguments of the constructor; for a MeanMetricWrapper, pass "
            "the function itself."
        ) from error


def _by_settings(metric, comparison, task):
    """Return the comparison of a metric, which may depend on its settings."""
    config = metric.get_config() if isinstance(metric, keras.metrics.Metric) else {}
    if "beta" in config or type(metric) is keras.metrics.F1Score:
        if config.get("threshold") is not None:
            return _UNITS
    elif task == "binary" and (config.get("class_id"), config.get("top_k")) != (None, None):
        return _CLASSES
    if comparison is _DIRECTION and config.get("axis", -1) not in (-1, 1):
        return replace(comparison, min_columns=1)
    return comparison


def _metric_forms(metric, comparison, task):
    """Return the forms of targets and predictions that a metric of classes takes."""
    labels = comparison.labels
    if task == "multilabel":
        return "indicator", "rounded" if labels == "labels" else "as it is"
    if comparison is _DIRECTION and task == "binary":
        labels = "classes"
    if labels == "units":
        return ("column" if task == "binary" else "one-hot"), "as it is"
    p_form = "both" if task == "binary" else "as it is"
    if labels == "labels":
        config = metric.get_config()
        y_form = "codes" if config.get("sparse_y_true", True) else "one-hot"
        return y_form, "class" if config.get("sparse_y_pred", True) else p_form
    return ("one-hot" if labels == "classes" else "codes"), p_form


def _unchanged(user_metric, metric, cleaned, name):
    """Return the metric as the user passed it, if nothing had to be changed."""
    if cleaned is not metric or isinstance(user_metric, type):
        return cleaned
    if isinstance(user_metric, str) and user_metric.lower() in _BY_TASK:
        return _made(metric, name)
    return user_metric


def _made(metric, name):
    """Return a new metric with this name."""
    if isinstance(metric, keras.metrics.Metric):
        return with_settings(metric, {"name": name}, "metrics")
    return keras.metrics.MeanMetricWrapper(metric, name=name)


class ConvertedMetric(keras.metrics.Metric):
    """A metric that is computed from other targets and predictions than the loss."""

    def __init__(self, metric, name):
        super().__init__(name=name)
        self.inner = _made(metric, name)

    def convert(self, y_true, y_pred):
        """Return the targets and predictions that the metric takes."""
        raise NotImplementedError

    def update_state(self, y_true, y_pred, sample_weight=None):
        y, p = self.convert(y_true, y_pred)
        return self.inner.update_state(y, p, sample_weight=sample_weight)

    def result(self):
        return self.inner.result()

    def reset_state(self):
        self.inner.reset_state()


class MetricInForm(ConvertedMetric):
    """A metric that takes targets in another form than the loss.

    Parameters
    ----------
    metric : keras.metrics.Metric or callable
        Copied.
    name : str
    form : str
        Form of the targets, as in `Objective`.
    y_form : str
        Form of the targets that the metric takes.
    p_form : {"as it is", "both", "class", "rounded"}
        Form of the predictions: "both" adds a column for the other class, "class" is the index
        of the most probable class, "rounded" is 0 or 1 for each label.
    units : tuple, default=None
        Mean and scale of standardised numbers, tuples of float.
    n_outputs : int, default=None
        Number of classes.
    """

    def __init__(self, metric, name, form, y_form, p_form, units=None, n_outputs=None):
        super().__init__(metric, name)
        self._settings = {
            "metric": metric, "name": name, "form": form, "y_form": y_form, "p_form": p_form,
            "units": units, "n_outputs": n_outputs,
        }  # fmt: skip

    def get_config(self):
        return dict(self._settings)

    def convert(self, y, p):
        form, units = self._settings["form"], self._settings["units"]
        if units is not None:
            mean, scale = (ops.convert_to_tensor(part, dtype=p.dtype) for part in units)
            return ops.cast(y, p.dtype) * scale + mean, p * scale + mean
        if form == "column":
            codes = ops.cast(y[:, 0], "int32")
        else:
            codes = ops.argmax(y, axis=-1) if form == "one-hot" else y
        required = self._settings["y_form"]
        if required == "codes":
            y = ops.cast(codes, "int32")
        elif required != form:
            y = ops.one_hot(ops.cast(codes, "int32"), self._settings["n_outputs"], dtype=p.dtype)
        return y, self._predicted(p)

    def _predicted(self, p):
        required = self._settings["p_form"]
        if required == "rounded":
            return ops.cast(p > 0.5, p.dtype)
        if required != "as it is" and self._settings["form"] == "column":
            p = ops.concatenate([1.0 - p, p], axis=-1)
        return ops.argmax(p, axis=-1) if required == "class" else p


class MetricOfLabels(ConvertedMetric):
    """A copy of a metric, for targets that `Objective.smoothed` may have changed."""

    def __init__(self, metric, form, name=None):
        super().__init__(keras.metrics.get(metric), name or name_in_logs(metric))
        self.metric = metric
        self.form = form

    def get_config(self):
        return {"metric": self.metric, "form": self.form, "name": self.name}

    def convert(self, y_true, y_pred):
        if self.form == "one-hot":
            n_classes = y_true.shape[-1]
            labels = ops.one_hot(ops.argmax(y_true, axis=-1), n_classes, dtype=y_true.dtype)
        else:
            labels = ops.cast(y_true > 0.5, y_true.dtype)
        return labels, y_pred


def resolve_objective(loss, *, task, n_outputs) -> Objective:
    """Resolve a loss and the form of its targets; raise ValueError if it does not suit the task.

    Parameters
    ----------
    loss : str, keras.losses.Loss, type or callable
    task : {"binary", "multiclass", "multilabel", "regression", "reconstruction"}
        As in a spec: "binary" has one unit.
    n_outputs : int
        Number of classes, labels, targets or columns.
    """
    what, known, by_task = f"loss={described(loss)}", known_loss(loss), None
    if isinstance(known, str):
        by_task = loss
        if task not in _CLASSIFYING:
            _refuse(
                what,
                f"compares classes, and the targets are {_KINDS[task]}",
                _ACCEPTED[task],
            )
        known = keras.losses.get(f"{_KIND_OF_TASK[task]}_crossentropy")
    comparison = _entry_of(known, _LOSS_TABLE)
    n_units = 1 if task == "binary" else n_outputs
    form = {"binary": "column", "multilabel": "indicator", "multiclass": "codes"}.get(
        task, "numbers"
    )
    if comparison is None:
        by_row = _check_custom(what, known, form, n_units)
        if by_row is None and form == "codes":
            by_row = _check_custom(what, known, "one-hot", n_units)
            form = "codes" if by_row is None else "one-hot"
        return Objective(known, form, _UNKNOWN, loss, task, n_outputs, by_row is not False)
    _check_fit(what, comparison, task, n_outputs)
    if task == "binary" and (comparison.labels in ("classes", "codes") or comparison is _DIRECTION):
        _refuse(
            what,
            "compares one unit per class, and the network has one unit for two classes",
            "are 'binary_crossentropy', or a network with two units",
        )
    if form == "codes" and comparison.labels != "codes":
        form = "one-hot"
    cleaned = _without_logits(what, known, task)
    unchanged = cleaned is known and loss is not by_task and not isinstance(loss, type)
    by_row = not comparison.batchwise or _check_custom(what, cleaned, form, n_units) is not False
    return Objective(
        loss if unchanged else cleaned, form, comparison, loss, task, n_outputs, by_row
    )


def mean_loss(loss, targets, outputs, weights=None) -> float:
    """Return the mean loss over rows, without losses that layers add.

    Only the proportions of `weights`, of shape (n_rows,), matter.
    """
    function = keras.losses.get(loss)
    if isinstance(function, keras.losses.Loss):
        if weights is not None:
            weights = np.asarray(weights, dtype=np.float32) / np.mean(weights)
        return float(function(targets, outputs, weights))
    values = keras.ops.convert_to_numpy(function(targets, outputs))
    if values.ndim == 0:  # one number for all rows
        return float(values)
    return float(np.average(values.reshape(len(values), -1).mean(axis=1), weights=weights))
