"""Which loss and metrics go with which head, labels and units: settled here, for all of them.

Names, aliases, classes, functions and objects of Keras resolve to one entry of a table, which says
what it compares. What a user has written is tried on a few made-up rows.
"""

# The loss of predictions that are at hand.

from __future__ import annotations

import functools
import inspect
import itertools
import re
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from skstack._training.seeds import preserve_rng


@dataclass(frozen=True)
class Takes:
    """What a loss or a metric compares.

    Parameters
    ----------
    labels : {"units", "classes", "codes", "labels"} or None
        Of classes. "units": a number for each unit of the output. "classes": a one-hot row for
        two units or more. "codes": the number of the class. "labels": the number of the class on
        both sides, predictions rounded. None: it cannot compare classes.
    several : bool
        Whether a row may have several labels.
    numbers : bool
        Whether it compares numbers, too.
    own : bool
        Whether it is defined in the numbers' own units alone.
    low, high : float
        Bounds of the numbers on both sides.
    head : str, default=None
        Activation of the output that it asks for.
    least : int
        Columns that a row of numbers needs.
    why : str
        Why it can compare nothing here.
    of_batch : bool
        Whether it may give one number for a whole batch.
    known : bool
        Whether it is Keras' own.
    """

    labels: str | None = "units"
    several: bool = True
    numbers: bool = True
    own: bool = False
    low: float = -np.inf
    high: float = np.inf
    head: str | None = None
    least: int = 1
    why: str = ""
    of_batch: bool = False
    known: bool = True


_ANY = Takes()
_OWN = Takes(own=True)
_RELATIVE = Takes(None, own=True, why="relative to labels that are 0")
_POSITIVE = Takes(own=True, low=0.0, head="exponential")
_UNIT = Takes(own=True, low=0.0, high=1.0, head="sigmoid")
_SHARES = Takes("classes", False, own=True, low=0.0, high=1.0, head="softmax", least=2)
_CLASSES = Takes("classes", False, numbers=False)
_CODES = Takes("codes", False, numbers=False)
_UNITS = Takes(numbers=False)
_LABELS = Takes("labels", numbers=False)
_DIRECTION = Takes(own=True, least=2)
_NOT_HERE = Takes(None, numbers=False)
_UNKNOWN = Takes(own=True, known=False)

_LOSSES = {
    "mean_squared_error MeanSquaredError mean_absolute_error MeanAbsoluteError huber Huber "
    "log_cosh LogCosh": _ANY,
    "mean_absolute_percentage_error MeanAbsolutePercentageError": _RELATIVE,
    "mean_squared_logarithmic_error MeanSquaredLogarithmicError poisson Poisson": _POSITIVE,
    "binary_crossentropy BinaryCrossentropy binary_focal_crossentropy "
    "BinaryFocalCrossentropy": _UNIT,
    "dice Dice tversky Tversky": replace(_UNIT, of_batch=True),
    "hinge Hinge squared_hinge SquaredHinge": _UNITS,
    "categorical_hinge CategoricalHinge": _CLASSES,
    "categorical_crossentropy CategoricalCrossentropy categorical_focal_crossentropy "
    "CategoricalFocalCrossentropy kl_divergence KLDivergence": _SHARES,
    "cosine_similarity CosineSimilarity": _DIRECTION,
    "sparse_categorical_crossentropy SparseCategoricalCrossentropy "
    "categorical_generalized_cross_entropy CategoricalGeneralizedCrossEntropy": _CODES,
    "circle Circle": replace(_NOT_HERE, why="it compares embeddings of rows, no predictions"),
    "ctc CTC": replace(_NOT_HERE, why="it compares sequences of labels"),
}
_METRICS = {
    "MeanSquaredError RootMeanSquaredError MeanAbsoluteError LogCoshError R2Score huber "
    "log_cosh": _ANY,
    "mean_absolute_percentage_error MeanAbsolutePercentageError mean_squared_logarithmic_error "
    "MeanSquaredLogarithmicError": _OWN,
    "Poisson": Takes(own=True, low=0.0),
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
    "IoU MeanIoU": replace(_LABELS, several=False),
    "Mean Sum": replace(_NOT_HERE, why="it takes values, no predictions"),
}


def _table(room, names):
    return {
        getattr(room, name): takes for listed, takes in names.items() for name in listed.split()
    }


_OF_LOSSES = _table(keras.losses, _LOSSES)
_OF_METRICS = {**_OF_LOSSES, **_table(keras.metrics, _METRICS)}
# Names that mean another loss, or metric, for each kind of classes.
_BY_TASK = {"accuracy": "accuracy", "acc": "accuracy", "crossentropy": "crossentropy"}
_BY_TASK["ce"] = "crossentropy"
_KIND_OF_TASK = {"binary": "binary", "multilabel": "binary", "multiclass": "sparse_categorical"}


def _takes(thing, table):
    """The entry of an object or a function; None where it is the user's own."""
    if isinstance(thing, functools.partial):
        return _takes(thing.func, table)
    if inspect.isroutine(thing):
        return table.get(thing)
    for cls in type(thing).__mro__:
        if cls in table:
            return None if _overrides(thing, cls) else table[cls]
    inner = getattr(thing, "fn", None)
    return None if inner is None else _takes(inner, table)


def _overrides(thing, base):
    """Whether a class compares in another way than the one of Keras that it is made from."""
    if base in (keras.metrics.Mean, keras.metrics.Sum):
        return type(thing) is not base
    method = "call" if isinstance(thing, keras.losses.Loss) else "update_state"
    return getattr(type(thing), method) is not getattr(base, method)


def known_loss(loss):
    """The object or function that a loss stands for; "crossentropy" stays, it means several.

    Raises
    ------
    ValueError
        For a name that Keras does not know.
    """
    named = isinstance(loss, str) and _BY_TASK.get(loss.lower()) == "crossentropy"
    return loss if named else keras.losses.get(loss)


def known_metric(metric):
    """The object or function that a metric stands for; see `known_loss`."""
    named = isinstance(metric, str) and metric.lower() in _BY_TASK
    return metric if named else keras.metrics.get(metric)


def head_for(loss, task, n_outputs) -> dict:
    """What a recipe's head must be for a loss to be right: fields of a spec.

    Parameters
    ----------
    loss : str, keras.losses.Loss, type or callable
    task, n_outputs
        As in a spec.

    Returns
    -------
    dict
        Empty where the task's own head is right.
    """
    takes = _takes(known_loss(loss), _OF_LOSSES)
    if takes is None:
        return {}
    if task == "binary" and (takes.labels in ("classes", "codes") or takes is _DIRECTION):
        return {"task": "multiclass", "n_outputs": 2}
    if task == "regression" and takes.head is not None:
        return {"activation": takes.head}
    return {}


def _refuse(what, why, accepted):
    raise ValueError(f"{what} {why}; accepted {accepted}.")


_ACCEPTED = {
    "binary": "is for instance 'binary_crossentropy'",
    "multilabel": "is for instance 'binary_crossentropy'",
    "multiclass": "are for instance 'sparse_categorical_crossentropy' and "
    "'categorical_crossentropy'",
    "regression": "are for instance 'mean_squared_error' and 'mean_absolute_error'",
    "reconstruction": "are for instance 'mean_squared_error' and 'mean_absolute_error'",
}
_TOLD = {
    "binary": "a network of one unit for two classes",
    "multilabel": "labels of which a row may have several",
    "multiclass": "classes of which each row has one",
    "regression": "numbers",
    "reconstruction": "the columns of X",
}
_CLASSIFYING = ("binary", "multiclass", "multilabel")


def _check_fit(what, takes, task, n_outputs):
    """Refuse what cannot compare predictions of this kind."""
    accepted = _ACCEPTED[task]
    if takes.why and (task in _CLASSIFYING or not takes.numbers):
        _refuse(what, f"does not fit {_TOLD[task]}: {takes.why}", accepted)
    if task not in _CLASSIFYING:
        if not takes.numbers:
            _refuse(what, f"compares classes, and here are {_TOLD[task]}", accepted)
        if n_outputs < takes.least:
            _refuse(
                what,
                f"compares rows of at least {takes.least} numbers, and y has {n_outputs} target",
                accepted,
            )
        return
    if task == "multilabel" and not takes.several:
        _refuse(
            what,
            f"is for rows of one class each, and y holds {_TOLD[task]}. Where each row has one "
            "class, pass labels: y.argmax(axis=1)",
            accepted,
        )


def _without_logits(what, thing, task):
    """The same of probabilities, where log-odds are asked for: heads of classes give the first."""
    inner = thing.keywords if isinstance(thing, functools.partial) else None
    config = inner
    if config is None and isinstance(thing, (keras.losses.Loss, keras.metrics.Metric)):
        if _takes(thing, _OF_METRICS) is None:
            return thing
        config = thing.get_config()
    if config is None or not config.get("from_logits"):
        return thing
    if task not in _CLASSIFYING:
        raise ValueError(
            f"{what} has from_logits=True, so that predict would give log-odds of y; accepted is "
            "from_logits=False, with a network that ends in a sigmoid or softmax."
        )
    config = {**config, "from_logits": False}
    if inner is not None:
        return functools.partial(thing.func, *thing.args, **config)
    return type(thing).from_config(config)


# Rows that are made up ---------------------------------------------------------------------------


def unlike(sizes):
    """A number of rows that equals none of some sizes."""
    sizes = set(sizes)
    return next(number for number in itertools.count(7, 2) if number not in sizes)


def _made_up(form, n_outputs):
    """Targets and predictions, of a number of rows that equals nothing else."""
    rng = np.random.default_rng(0)
    n_rows = unlike([n_outputs])
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


def _value(loss, y, p):
    """What a loss gives for each row, before anything is averaged."""
    call = loss.call if isinstance(loss, keras.losses.Loss) else loss
    with preserve_rng():
        values = call(ops.convert_to_tensor(y), ops.convert_to_tensor(p))
    return np.asarray(ops.convert_to_numpy(values), dtype=np.float64)


def _by_row(loss, y, p):
    """Whether the loss of some rows is the mean of the losses of each."""
    apart = [_value(loss, y[i : i + 1], p[i : i + 1]).mean() for i in range(len(y))]
    return bool(np.isclose(np.mean(apart), _value(loss, y, p).mean(), rtol=1e-4, atol=1e-6))


def _check_own(what, loss, form, n_outputs):
    """Refuse a function that spreads rows over each other; whether it gives a value for each row.

    None where it fails on such rows: whoever calls it on real ones will say why.
    """
    y, p = _made_up(form, n_outputs)
    n_rows = len(y)
    try:
        shape = _value(loss, y, p).shape
    except Exception:  # whatever a user's function may raise on made-up rows
        return None
    if shape.count(n_rows) > 1:
        raise ValueError(
            f"{what} gives a value of shape {shape} for {n_rows} rows of y with shape {y.shape} "
            f"and predictions with shape {p.shape}: it compares each row with all others. Accepted "
            f"is one value for each row, of shape ({n_rows},), or one for all of them."
        )
    if y.shape == (n_rows, 1):
        try:
            mixed = not _by_row(loss, y, p) and _by_row(loss, y[:, 0], p)
        except Exception:
            mixed = False
        if mixed:
            raise ValueError(
                f"{what} compares each row with all others: y comes with shape (n_rows, 1), as the "
                "predictions do, and something of shape (n_rows,) is compared with it. Take "
                "columns of both, such as y[:, 0] and p[:, 0]."
            )
    return shape[:1] == (n_rows,)


# What was settled --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objective:
    """A loss, and the form in which it takes targets.

    Attributes
    ----------
    loss : str, keras.losses.Loss or callable
        For a `Plan`.
    form : {"column", "codes", "one-hot", "indicator", "numbers"}
        Of the targets: 0 or 1 in one column; numbers of classes; one-hot rows; 0 or 1 for each
        label; numbers.
    takes : Takes
    given : object
        The loss as the user wrote it.
    task : str
        What the network is for.
    n_outputs : int
    by_row : bool
        Whether it gives a value for each row, which weights can count.
    """

    loss: Any
    form: str
    takes: Takes
    given: Any
    task: str
    n_outputs: int
    by_row: bool = True

    @property
    def _n_units(self):
        return 1 if self.task == "binary" else self.n_outputs

    @property
    def _what(self):
        return f"loss={self.given!r}"

    @property
    def own_units(self):
        """Whether the loss is defined in the targets' own units."""
        if self.task == "reconstruction":  # in which direction a row lies can be said in any units
            return self.takes.known and self.takes.own and self.takes is not _DIRECTION
        return self.takes.own

    def check_weights(self, weights):
        """Refuse weights that would count nothing."""
        if not self.by_row and weights is not None and np.ptp(weights) > 0:
            raise ValueError(
                f"{self._what} gives one number for a whole batch, in which weights of rows "
                "(sample_weight, class_weight) cannot count. Leave them out, or return one value "
                "for each row."
            )

    def check_head(self, low, high):
        """Refuse a network whose outputs, numbers, the loss is not defined for.

        Parameters
        ----------
        low, high : array-like
            Bounds of the outputs.
        """
        if np.min(low) < self.takes.low or np.max(high) > self.takes.high:
            head = self.takes.head or "exponential"
            _refuse(
                self._what,
                f"needs predictions in [{self.takes.low:g}, {self.takes.high:g}], and the network "
                f"ends with an output in [{np.min(low):g}, {np.max(high):g}]",
                f"is a network that ends with the activation {head!r}, as spec.outputs(x) makes it",
            )

    def check_numbers(self, y, what="y"):
        """Refuse targets in y's own units that the loss is not defined for."""
        takes = self.takes
        if y.size and (y.min() < takes.low or y.max() > takes.high):
            raise ValueError(
                f"{what} holds values from {y.min():g} to {y.max():g}, but {self._what} is defined "
                f"for values in [{takes.low:g}, {takes.high:g}] alone."
            )
        if takes is _SHARES and not np.allclose(y.sum(axis=1), 1.0, atol=1e-3):
            raise ValueError(
                f"{self._what} compares distributions: rows of {what} must sum to 1, and they sum "
                f"to {y.sum(axis=1).min():g} to {y.sum(axis=1).max():g}."
            )
        zeros = int(np.sum(y == 0)) if takes is _RELATIVE else 0
        if zeros:
            raise ValueError(
                f"{what} holds {zeros} zero(s), for which the relative error of {self._what} is "
                "not defined."
            )

    def metrics(self, given, mean=None, scale=None, bounds=None) -> tuple:
        """Metrics for a `Plan`, each with the form of targets that it takes.

        Parameters
        ----------
        given : sequence
            As in ``keras.Model.compile``.
        mean, scale : ndarray, default=None
            What standardised targets are brought back to their own units with.
        bounds : tuple of array-like, default=None
            Of outputs that are numbers, in their own units.

        Returns
        -------
        tuple
        """
        if mean is None or (np.all(mean == 0) and np.all(scale == 1)):
            units = None
        else:
            units = tuple(map(float, mean)), tuple(map(float, scale))
        return tuple(self._metric(metric, units, bounds) for metric in given)

    def _metric(self, given, units, bounds):
        what = f"metrics: {given!r}"
        found = known_metric(given)
        _check_copy(what, found)
        metric, name = _named(found, given, self.task)
        takes = _takes(metric, _OF_METRICS)
        takes = _takes_of_wrapper(metric) if takes is None else takes
        if takes is None:
            return self._own_metric(what, metric, units)
        takes = _by_settings(metric, takes, self.task)
        _check_fit(what, takes, self.task, self.n_outputs)
        cleaned = _without_logits(what, metric, self.task)
        if self.form == "numbers":
            low, high = (takes.low, takes.high) if bounds is None else bounds
            if np.min(low) < takes.low or np.max(high) > takes.high:
                raise ValueError(
                    f"{what} is defined for predictions in [{takes.low:g}, {takes.high:g}], and "
                    f"the network's lie in [{np.min(low):g}, {np.max(high):g}]."
                )
            if takes.own and units is not None:
                return MetricInForm(cleaned, name, "numbers", None, None, units)
            return _as_given(given, metric, cleaned, name)
        y_form, p_form = _wanted(metric, takes, self.task)
        if (y_form, p_form) == (self.form, "as it is"):
            return _as_given(given, metric, cleaned, name)
        return MetricInForm(cleaned, name, self.form, y_form, p_form, None, self.n_outputs)

    def _own_metric(self, what, metric, units):
        if self.form == "numbers":
            if not isinstance(metric, keras.metrics.Metric):
                _check_own(what, metric, self.form, self._n_units)
            name = _name_of(metric)
            if units is None:
                return metric
            return MetricInForm(metric, name, "numbers", None, None, units)
        forms = [self.form]
        if self.task == "multiclass":
            forms += [form for form in ("codes", "one-hot") if form != self.form]
        for form in forms:
            if _runs(what, metric, form, self._n_units):
                break
        else:
            form = self.form
        if form == self.form:
            return metric
        name = _name_of(metric)
        return MetricInForm(metric, name, self.form, form, "as it is", None, self.n_outputs)


def _runs(what, metric, form, n_outputs):
    """Whether a metric of the user's own takes such targets."""
    if not isinstance(metric, keras.metrics.Metric):
        return _check_own(what, metric, form, n_outputs) is not None
    y, p = _made_up(form, n_outputs)
    try:
        with preserve_rng():
            tried = type(metric).from_config(metric.get_config())
            tried.update_state(ops.convert_to_tensor(y), ops.convert_to_tensor(p))
            tried.result()
    except Exception:  # whatever a user's metric may raise on made-up rows
        return False
    return True


def _name_of(metric):
    return getattr(metric, "name", None) or getattr(metric, "__name__", type(metric).__name__)


def _named(metric, given, task):
    """The metric that a name means for a task, and what it is called in logs."""
    if isinstance(given, type):  # Keras numbers the names of those that it makes
        name = re.sub(r"_\d+$", "", metric.name)
        return _made(metric, name), name
    if not isinstance(metric, str):
        return metric, given if isinstance(given, str) else _name_of(metric)
    meant = _BY_TASK[metric.lower()]
    if task not in _CLASSIFYING:
        if meant == "crossentropy":
            raise ValueError(f"metrics: {given!r} compares classes, and here are {_TOLD[task]}.")
        return keras.metrics.Accuracy(name=given), given
    return keras.metrics.get(f"{_KIND_OF_TASK[task]}_{meant}"), given


def _takes_of_wrapper(metric):
    """The entry of the function inside a ``MeanMetricWrapper``, which its config names."""
    if type(metric) is not keras.metrics.MeanMetricWrapper:
        return None
    name = str(metric.get_config()["fn"].get("config"))
    function = getattr(keras.metrics, name, None) or getattr(keras.losses, name, None)
    return None if function is None else _takes(function, _OF_METRICS)


def _check_copy(what, metric):
    """Refuse a metric that Keras cannot make anew: metrics hold what they have counted."""
    if not isinstance(metric, keras.metrics.Metric):
        return
    try:
        type(metric).from_config(metric.get_config())
    except Exception as error:  # whatever a user's class may raise
        raise ValueError(
            f"{what} cannot be copied from its config ({type(error).__name__}). Give its class a "
            "get_config that holds all arguments of the constructor; of a MeanMetricWrapper pass "
            "the function itself."
        ) from error


def _by_settings(metric, takes, task):
    """What a metric takes that goes by its settings."""
    config = metric.get_config() if isinstance(metric, keras.metrics.Metric) else {}
    if "beta" in config or type(metric) is keras.metrics.F1Score:
        if config.get("threshold") is not None:
            return _UNITS
    elif task == "binary" and (config.get("class_id"), config.get("top_k")) != (None, None):
        return _CLASSES
    if takes is _DIRECTION and config.get("axis", -1) not in (-1, 1):
        return replace(takes, least=1)
    return takes


def _wanted(metric, takes, task):
    """Forms of targets and of predictions that a metric of classes takes."""
    labels = takes.labels
    if task == "multilabel":
        return "indicator", "rounded" if labels == "labels" else "as it is"
    if takes is _DIRECTION and task == "binary":
        labels = "classes"
    if labels == "units":
        return ("column" if task == "binary" else "one-hot"), "as it is"
    p_form = "both" if task == "binary" else "as it is"
    if labels == "labels":
        config = metric.get_config()
        y_form = "codes" if config.get("sparse_y_true", True) else "one-hot"
        return y_form, "class" if config.get("sparse_y_pred", True) else p_form
    return ("one-hot" if labels == "classes" else "codes"), p_form


def _as_given(given, metric, cleaned, name):
    """The metric itself, for whose targets nothing is to be done."""
    if cleaned is not metric or isinstance(given, type):
        return cleaned
    if isinstance(given, str) and given.lower() in _BY_TASK:
        return _made(metric, name)
    return given


def _made(metric, name):
    """A new metric of a name."""
    if isinstance(metric, keras.metrics.Metric):
        return type(metric).from_config({**metric.get_config(), "name": name})
    return keras.metrics.MeanMetricWrapper(metric, name=name)


class MetricInForm(keras.metrics.Metric):
    """A metric that takes targets in another form than the loss.

    Parameters
    ----------
    metric : keras.metrics.Metric or callable
        Copied.
    name : str
    have : str
        Form of the targets, as in `Objective`.
    y_form : str
        The form that the metric takes.
    p_form : {"as it is", "both", "class", "rounded"}
        Of predictions: a column for the other class, too; the number of the likeliest class; 0 or
        1 for each label.
    units : tuple, default=None
        Mean and scale of standardised numbers, tuples of float.
    n_outputs : int, default=None
        Number of classes.
    """

    def __init__(self, metric, name, have, y_form, p_form, units=None, n_outputs=None):
        super().__init__(name=name)
        self._settings = {
            "metric": metric, "name": name, "have": have, "y_form": y_form, "p_form": p_form,
            "units": units, "n_outputs": n_outputs,
        }  # fmt: skip
        self.inner = _made(metric, name)

    def get_config(self):
        return dict(self._settings)

    def update_state(self, y_true, y_pred, sample_weight=None):
        y, p = self._formed(y_true, y_pred)
        return self.inner.update_state(y, p, sample_weight=sample_weight)

    def _formed(self, y, p):
        have, units = self._settings["have"], self._settings["units"]
        if units is not None:
            mean, scale = (ops.convert_to_tensor(part, dtype=p.dtype) for part in units)
            return ops.cast(y, p.dtype) * scale + mean, p * scale + mean
        if have == "column":
            codes = ops.cast(y[:, 0], "int32")
        else:
            codes = ops.argmax(y, axis=-1) if have == "one-hot" else y
        wanted = self._settings["y_form"]
        if wanted == "codes":
            y = ops.cast(codes, "int32")
        elif wanted != have:
            y = ops.one_hot(ops.cast(codes, "int32"), self._settings["n_outputs"], dtype=p.dtype)
        return y, self._predicted(p)

    def _predicted(self, p):
        wanted = self._settings["p_form"]
        if wanted == "rounded":
            return ops.cast(p > 0.5, p.dtype)
        if wanted != "as it is" and self._settings["have"] == "column":
            p = ops.concatenate([1.0 - p, p], axis=-1)
        return ops.argmax(p, axis=-1) if wanted == "class" else p

    def result(self):
        return self.inner.result()

    def reset_state(self):
        self.inner.reset_state()


def settle(loss, *, task, n_outputs) -> Objective:
    """Settle what a loss is, and in which form it takes targets.

    Parameters
    ----------
    loss : str, keras.losses.Loss, type or callable
    task : {"binary", "multiclass", "multilabel", "regression", "reconstruction"}
        What the network is for: "binary" has one unit.
    n_outputs : int
        Number of classes, labels, targets or columns.

    Returns
    -------
    Objective

    Raises
    ------
    ValueError
        If the loss cannot compare predictions of this kind.
    """
    what, found, by_task = f"loss={loss!r}", known_loss(loss), None
    if isinstance(found, str):
        by_task = loss
        if task not in _CLASSIFYING:
            _refuse(what, f"compares classes, and here are {_TOLD[task]}", _ACCEPTED[task])
        found = keras.losses.get(f"{_KIND_OF_TASK[task]}_crossentropy")
    takes = _takes(found, _OF_LOSSES)
    n_units = 1 if task == "binary" else n_outputs
    form = {"binary": "column", "multilabel": "indicator", "multiclass": "codes"}.get(
        task, "numbers"
    )
    if takes is None:
        by_row = _check_own(what, found, form, n_units)
        if by_row is None and form == "codes":
            by_row = _check_own(what, found, "one-hot", n_units)
            form = "codes" if by_row is None else "one-hot"
        return Objective(found, form, _UNKNOWN, loss, task, n_outputs, by_row is not False)
    _check_fit(what, takes, task, n_outputs)
    if task == "binary" and (takes.labels in ("classes", "codes") or takes is _DIRECTION):
        _refuse(
            what,
            "compares a unit for each class, and the network has one unit for two classes",
            "are 'binary_crossentropy', or a network with two units",
        )
    if form == "codes" and takes.labels != "codes":
        form = "one-hot"
    cleaned = _without_logits(what, found, task)
    as_given = cleaned is found and loss is not by_task and not isinstance(loss, type)
    by_row = not takes.of_batch or _check_own(what, cleaned, form, n_units) is not False
    return Objective(loss if as_given else cleaned, form, takes, loss, task, n_outputs, by_row)


def mean_loss(loss, targets, outputs, weights=None) -> float:
    """Mean loss over rows, without what layers add.

    Parameters
    ----------
    loss : str, keras.losses.Loss or callable
        As in `Plan`.
    targets : ndarray of shape (n_rows, ...)
    outputs : ndarray of float32 of shape (n_rows, ...)
    weights : ndarray of shape (n_rows,), default=None
        Only their proportions matter.

    Returns
    -------
    float
    """
    function = keras.losses.get(loss)
    if isinstance(function, keras.losses.Loss):
        if weights is not None:
            weights = np.asarray(weights, dtype=np.float32) / np.mean(weights)
        return float(function(targets, outputs, weights))
    values = keras.ops.convert_to_numpy(function(targets, outputs))
    if values.ndim == 0:  # a function of all rows at once
        return float(values)
    return float(np.average(values.reshape(len(values), -1).mean(axis=1), weights=weights))
