"""The training loss with a teacher, and metrics for the task alone."""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import ops

from skstack._training.formulas import SMALLEST_PROBABILITY, log
from skstack._training.objective import ConvertedMetric, losses_of_rows, name_of

_FACTORS = 3  # columns before the targets: two weights and the temperature


class DistillationLoss(keras.losses.Loss):
    """Weighted sum of the loss of the task and a term for the teacher.

    Predictions are one table: the flat output of the network, followed by a second output. Targets
    are one table too (see `targets`). Weights and temperature are columns of it, so that other
    values need no new program; so are the teacher's outputs, which are shuffled with their rows.

    The second term, ``kind``, is the divergence from the teacher's probabilities at the temperature
    ("soft"), the mean squared difference of the output ("squared") or of the second output
    ("second") from the teacher's, or the loss of the task for the second output ("both").
    ``activation`` is applied to the output; ``applied`` names one that the network already has.
    """

    def __init__(
        self,
        task_loss,
        kind,
        target_shape,
        output_shape,
        activation=None,
        applied=None,
        reduction="sum_over_batch_size",
        name="distillation",
    ):
        super().__init__(name=name, reduction=reduction)
        self.task_loss = task_loss
        self.kind = kind
        self.target_shape = tuple(target_shape)
        self.output_shape = tuple(output_shape)
        self.activation = activation
        self.applied = applied
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
            "applied": self.applied,
            "reduction": self.reduction,
            "name": self.name,
        }

    @property
    def row_averages_of(self):
        """Losses that decide whether this one is an average over rows; read by the engines."""
        return (self.task_loss,)

    def targets(self, y, teacher, weights, temperature) -> np.ndarray:
        """Table of weights, temperature, targets and the teacher's outputs."""
        n_rows = len(y)
        table = np.empty((n_rows, _FACTORS + self._n_targets + teacher.shape[1]), np.float32)
        table[:, :_FACTORS] = *weights, temperature
        table[:, _FACTORS : _FACTORS + self._n_targets] = y.reshape(n_rows, -1)
        table[:, _FACTORS + self._n_targets :] = teacher
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
        teacher = y_true[:, _FACTORS + self._n_targets :]
        own, second = y_pred[:, : self._width], y_pred[:, self._width :]
        if self.kind == "soft":
            term = self._divergence(teacher, own, y_true[:, 2:3])
        elif self.kind == "squared":
            term = ops.mean(ops.square(own - teacher), axis=-1)
        elif self.kind == "second":
            term = ops.mean(ops.square(second - teacher), axis=-1)
        else:
            term = losses_of_rows(self._loss, y, self._prediction(second))
        own_loss = losses_of_rows(self._loss, y, prediction)
        return y_true[:, 0] * own_loss + y_true[:, 1] * term

    def _divergence(self, teacher, own, temperature):
        """Kullback-Leibler divergence of the softened output from the teacher's."""
        kind = self.activation or self.applied
        if self.activation is None:
            own = ops.clip(own, SMALLEST_PROBABILITY, 1.0 - SMALLEST_PROBABILITY)
            own = ops.log(own) - (ops.log(1.0 - own) if kind == "sigmoid" else 0.0)
        softened = own / temperature
        log_teacher = log(teacher, ops)
        if kind == "softmax":
            return ops.sum(teacher * (log_teacher - ops.log_softmax(softened)), axis=-1)
        other = 1.0 - teacher
        log_other = log(other, ops)
        first, second = ops.log_sigmoid(softened), ops.log_sigmoid(-softened)
        return ops.mean(teacher * (log_teacher - first) + other * (log_other - second), axis=-1)


class MetricOfTask(ConvertedMetric):
    """A copy of a metric, for the output of the task under a `DistillationLoss`."""

    def __init__(self, metric, loss):
        known = keras.metrics.get(metric)
        super().__init__(known, metric if isinstance(metric, str) else name_of(known))
        self.metric = metric
        self.loss = loss

    def get_config(self):
        return {"metric": self.metric, "loss": self.loss}

    def convert(self, y_true, y_pred):
        return self.loss.of_task(y_true, y_pred)
