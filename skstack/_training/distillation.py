"""A loss of two parts, the second compared with what a teacher gives, in one tensor each."""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import ops

_LEAST = 1e-7  # Keras' own, of probabilities
_FACTORS = 3  # columns in front of the targets


class DistillationLoss(keras.losses.Loss):
    """What somebody learns who is taught: the task's loss, and what a teacher adds.

    The network gives one table: its own output, flat, and behind it a second one. The targets are
    one table too, see `targets`: shares and temperature are columns of it, so that other ones need
    no other program, and so are the teacher's outputs, which therefore follow their rows.

    Parameters
    ----------
    task_loss : str, keras.losses.Loss or callable
        Averages over rows.
    kind : {"soft", "squared", "second", "both"}
        What the second part is. "soft": the divergence of the own output from the teacher's, both
        at the temperature. "squared": the mean squared difference of the own output and the
        teacher's. "second": that of the second output. "both": the task's loss of the second
        output, which is another prediction.
    target_shape, output_shape : tuple of int
        Of one row.
    activation : {"softmax", "sigmoid"}, default=None
        What stands behind the own output; None where it is a prediction as it is.
    given : {"softmax", "sigmoid"}, default=None
        What stands in the own output already, for a soft loss.
    reduction, name : as in `keras.losses.Loss`
    """

    def __init__(
        self,
        task_loss,
        kind,
        target_shape,
        output_shape,
        activation=None,
        given=None,
        reduction="sum_over_batch_size",
        name="lesson",
    ):
        super().__init__(name=name, reduction=reduction)
        self.task_loss = task_loss
        self.kind = kind
        self.target_shape = tuple(target_shape)
        self.output_shape = tuple(output_shape)
        self.activation = activation
        self.given = given
        self._loss = keras.losses.get(task_loss)
        self._width = math.prod(self.output_shape)
        self._n_targets = math.prod(self.target_shape)

    def get_config(self):
        return {
            "task_loss": self.task_loss,
            "kind": self.kind,
            "target_shape": self.target_shape,
            "output_shape": self.output_shape,
            "activation": self.activation,
            "given": self.given,
            "reduction": self.reduction,
            "name": self.name,
        }

    def targets(self, y, taught, share, temperature) -> np.ndarray:
        """Put the targets of rows side by side.

        Parameters
        ----------
        y : ndarray of shape (n_rows, *target_shape)
        taught : ndarray of shape (n_rows, n_columns)
            What the teacher gives.
        share : tuple of float
            Weights of the two parts.
        temperature : float

        Returns
        -------
        ndarray of float32
        """
        n_rows = len(y)
        table = np.empty((n_rows, _FACTORS + self._n_targets + taught.shape[1]), np.float32)
        table[:, :_FACTORS] = *share, temperature
        table[:, _FACTORS : _FACTORS + self._n_targets] = y.reshape(n_rows, -1)
        table[:, _FACTORS + self._n_targets :] = taught
        return table

    def of_task(self, y_true, y_pred):
        """Targets and predictions of the task alone."""
        y = y_true[:, _FACTORS : _FACTORS + self._n_targets]
        return ops.reshape(y, (-1, *self.target_shape)), self._prediction(y_pred[:, : self._width])

    def _prediction(self, own):
        own = ops.reshape(own, (-1, *self.output_shape))
        return own if self.activation is None else keras.activations.get(self.activation)(own)

    def call(self, y_true, y_pred):
        y, prediction = self.of_task(y_true, y_pred)
        taught = y_true[:, _FACTORS + self._n_targets :]
        own, second = y_pred[:, : self._width], y_pred[:, self._width :]
        if self.kind == "soft":
            found = self._divergence(taught, own, y_true[:, 2:3])
        elif self.kind == "squared":
            found = ops.mean(ops.square(own - taught), axis=-1)
        elif self.kind == "second":
            found = ops.mean(ops.square(second - taught), axis=-1)
        else:
            found = self._of_rows(y, self._prediction(second))
        return y_true[:, 0] * self._of_rows(y, prediction) + y_true[:, 1] * found

    def _of_rows(self, y, prediction):
        whole = isinstance(self._loss, keras.losses.Loss)
        values = self._loss.call(y, prediction) if whole else self._loss(y, prediction)
        rank = len(values.shape)
        return ops.mean(values, axis=tuple(range(1, rank))) if rank > 1 else values

    def _divergence(self, taught, own, temperature):
        """Kullback and Leibler's, from the softened outputs of the teacher."""
        kind = self.activation or self.given
        if self.activation is None:
            own = ops.clip(own, _LEAST, 1.0 - _LEAST)
            own = ops.log(own) - (ops.log(1.0 - own) if kind == "sigmoid" else 0.0)
        softened = own / temperature
        known = ops.log(ops.clip(taught, _LEAST, 1.0))
        if kind == "softmax":
            return ops.sum(taught * (known - ops.log_softmax(softened)), axis=-1)
        other = 1.0 - taught
        none = ops.log(ops.clip(other, _LEAST, 1.0))
        yes, no = ops.log_sigmoid(softened), ops.log_sigmoid(-softened)
        return ops.mean(taught * (known - yes) + other * (none - no), axis=-1)


class MetricOfTask(keras.metrics.Metric):
    """A metric of the task alone, where the loss is a `DistillationLoss`.

    Parameters
    ----------
    metric : str, keras.metrics.Metric or callable
        As in ``keras.Model.compile``. Copied.
    lesson : Lesson
    """

    def __init__(self, metric, lesson):
        inner = _made(metric)
        super().__init__(name=inner.name)
        self.metric = metric
        self.lesson = lesson
        self.inner = inner

    def get_config(self):
        return {"metric": self.metric, "lesson": self.lesson}

    def update_state(self, y_true, y_pred, sample_weight=None):
        return self.inner.update_state(
            *self.lesson.of_task(y_true, y_pred), sample_weight=sample_weight
        )

    def result(self):
        return self.inner.result()

    def reset_state(self):
        self.inner.reset_state()


def _made(metric):
    """A new metric."""
    if isinstance(metric, keras.metrics.Metric):
        return type(metric).from_config(metric.get_config())
    name = metric if isinstance(metric, str) else None
    found = keras.metrics.get(metric)
    if isinstance(found, keras.metrics.Metric):
        return type(found).from_config({**found.get_config(), "name": name or found.name})
    name = name or getattr(found, "__name__", type(found).__name__)
    return keras.metrics.MeanMetricWrapper(found, name=name)
