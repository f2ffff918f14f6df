"""The loss of a network with a teacher, and metrics of its task alone."""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import ops

from skstack._training.objective import ConvertedMetric, name_of

_EPSILON = 1e-7  # of probabilities, as in Keras
_N_FACTORS = 3  # columns before the targets: two factors and the temperature


class DistillationLoss(keras.losses.Loss):
    """The loss of the task, plus a term that compares with the outputs of a teacher.

    The network returns one table: its own output, flattened, and behind it a second output. The
    targets are one table too, see `targets`. Factors, temperature and the teacher's outputs are
    columns of it, so that other values need no other program, and follow their rows.

    Parameters
    ----------
    task_loss : str, keras.losses.Loss or callable
        Must average over rows.
    kind : {"soft", "squared", "second", "both"}
        The second term. "soft": divergence of the own output from the teacher's, both softened by
        the temperature. "squared": mean squared difference of the own output and the teacher's.
        "second": that of the second output. "both": the task's loss of the second output, which is
        another prediction.
    target_shape, output_shape : tuple of int
        Of one row.
    activation : {"softmax", "sigmoid"}, default=None
        Activation to apply to the own output; None if the output is a prediction already.
    given : {"softmax", "sigmoid"}, default=None
        Activation that the own output has already, for a soft loss.
    reduction, name : as in `keras.losses.Loss`

    Attributes
    ----------
    averages_like : loss
        This loss is an average over rows if that one is; read by `engines`.
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
        name="distillation_loss",
    ):
        super().__init__(name=name, reduction=reduction)
        self.task_loss = self.averages_like = task_loss
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

    def targets(self, y, teacher_outputs, factors, temperature) -> np.ndarray:
        """Put the targets of rows into one float32 table, as `call` takes them.

        Both arrays have one row per sample; `factors` are the weights of the two terms.
        """
        n_rows, stop = len(y), _N_FACTORS + self._n_targets
        table = np.empty((n_rows, stop + teacher_outputs.shape[1]), np.float32)
        table[:, :_N_FACTORS] = *factors, temperature
        table[:, _N_FACTORS:stop] = y.reshape(n_rows, -1)
        table[:, stop:] = teacher_outputs
        return table

    def of_task(self, y_true, y_pred):
        """Targets and predictions of the task alone."""
        y = y_true[:, _N_FACTORS : _N_FACTORS + self._n_targets]
        return ops.reshape(y, (-1, *self.target_shape)), self._prediction(y_pred[:, : self._width])

    def _prediction(self, own):
        own = ops.reshape(own, (-1, *self.output_shape))
        return own if self.activation is None else keras.activations.get(self.activation)(own)

    def call(self, y_true, y_pred):
        y, prediction = self.of_task(y_true, y_pred)
        teacher = y_true[:, _N_FACTORS + self._n_targets :]
        own, second = y_pred[:, : self._width], y_pred[:, self._width :]
        if self.kind == "soft":
            term = self._divergence(teacher, own, y_true[:, 2:3])
        elif self.kind == "squared":
            term = ops.mean(ops.square(own - teacher), axis=-1)
        elif self.kind == "second":
            term = ops.mean(ops.square(second - teacher), axis=-1)
        else:
            term = self._of_rows(y, self._prediction(second))
        return y_true[:, 0] * self._of_rows(y, prediction) + y_true[:, 1] * term

    def _of_rows(self, y, prediction):
        """The task's loss of each row."""
        is_object = isinstance(self._loss, keras.losses.Loss)
        values = self._loss.call(y, prediction) if is_object else self._loss(y, prediction)
        rank = len(values.shape)
        return ops.mean(values, axis=tuple(range(1, rank))) if rank > 1 else values

    def _divergence(self, teacher, own, temperature):
        """Kullback-Leibler divergence from the teacher's softened probabilities."""
        kind = self.activation or self.given
        if self.activation is None:
            own = ops.clip(own, _EPSILON, 1.0 - _EPSILON)
            own = ops.log(own) - (ops.log(1.0 - own) if kind == "sigmoid" else 0.0)
        softened = own / temperature
        log_p = ops.log(ops.clip(teacher, _EPSILON, 1.0))
        if kind == "softmax":
            return ops.sum(teacher * (log_p - ops.log_softmax(softened)), axis=-1)
        complement = 1.0 - teacher
        log_q = ops.log(ops.clip(complement, _EPSILON, 1.0))
        positive = teacher * (log_p - ops.log_sigmoid(softened))
        negative = complement * (log_q - ops.log_sigmoid(-softened))
        return ops.mean(positive + negative, axis=-1)


class MetricOfTask(ConvertedMetric):
    """A metric of the task alone, where the loss is a `DistillationLoss`."""

    def __init__(self, metric, distillation):
        found = keras.metrics.get(metric)
        super().__init__(found, metric if isinstance(metric, str) else name_of(found))
        self.metric = metric
        self.distillation = distillation

    def get_config(self):
        return {"metric": self.metric, "distillation": self.distillation}

    def convert(self, y_true, y_pred):
        return self.distillation.of_task(y_true, y_pred)
