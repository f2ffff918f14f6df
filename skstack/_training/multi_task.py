"""The objective of a network with several heads, whose outputs are joined to one table.

One table of targets and one of outputs keep such a network on the same engines as all others.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from skstack._training.objective import ConvertedMetric, Objective, losses_of_rows, name_of


class JoinedLoss(keras.losses.Loss):
    """Weighted sum of the losses of several heads.

    Targets are one table: the weights of the heads, so that other weights need no new program, then
    the targets of each head, of shape (n_rows, *shape) for its entry in ``target_shapes``.
    ``widths`` are the numbers of outputs of the heads.
    """

    def __init__(
        self,
        losses: Sequence[Any],
        target_shapes: Sequence[tuple],
        widths: Sequence[int],
        reduction="sum_over_batch_size",
        name="multi_task",
    ):
        super().__init__(name=name, reduction=reduction)
        self.losses = tuple(losses)
        self.target_shapes = tuple(map(tuple, target_shapes))
        self.widths = tuple(widths)
        self._functions = [keras.losses.get(loss) for loss in self.losses]

    def get_config(self):
        return {
            "losses": self.losses,
            "target_shapes": self.target_shapes,
            "widths": self.widths,
            "reduction": self.reduction,
            "name": self.name,
        }

    @property
    def row_averages_of(self):
        """Losses that decide whether this one is an average over rows; read by the engines."""
        return self.losses

    def split_targets(self, y_true) -> list:
        """Targets of each head."""
        n_heads = len(self.losses)
        sizes = [math.prod(shape) for shape in self.target_shapes]
        parts = _split(y_true[:, n_heads:], sizes)
        return [
            ops.reshape(part, (-1, *shape))
            for part, shape in zip(parts, self.target_shapes, strict=True)
        ]

    def split_outputs(self, y_pred) -> list:
        """Outputs of each head."""
        if len(self.widths) == 1:
            return [y_pred]
        return _inputs_of_join(y_pred, self.widths) or _split(y_pred, self.widths)

    def call(self, y_true, y_pred):
        heads = zip(
            self._functions, self.split_targets(y_true), self.split_outputs(y_pred), strict=True
        )
        values = [losses_of_rows(loss, y, p) for loss, y, p in heads]
        return sum(y_true[:, i] * value for i, value in enumerate(values))


def _split(table, widths):
    ends = np.cumsum(widths)
    return [table[:, end - width : end] for end, width in zip(ends, widths, strict=True)]


def _inputs_of_join(joined, widths):
    """The tensors that were joined in a traced network, else None.

    Cross-entropies of Keras look for the softmax or sigmoid that has made their predictions, and
    are computed from its logits, which are exact where a probability is rounded to 0 or 1.
    """
    if tf.executing_eagerly() or joined.op.type != "ConcatV2":
        return None
    parts = list(joined.op.inputs)[: len(widths)]
    shapes = [tuple(part.shape[1:]) for part in parts]
    return parts if shapes == [(width,) for width in widths] else None


class MetricOfHead(ConvertedMetric):
    """A copy of a metric, for one head under a `JoinedLoss`."""

    def __init__(self, metric, loss, index, name):
        super().__init__(keras.metrics.get(metric), name)
        self.metric = metric
        self.loss = loss
        self.index = index

    def get_config(self):
        return {"metric": self.metric, "loss": self.loss, "index": self.index, "name": self.name}

    def convert(self, y_true, y_pred):
        return (
            self.loss.split_targets(y_true)[self.index],
            self.loss.split_outputs(y_pred)[self.index],
        )


@dataclass(frozen=True)
class JoinedObjective:
    """Loss and form of the targets of several heads.

    Attributes
    ----------
    objectives : dict of str to Objective
        By name of the head, in the order of the outputs.
    loss_weights : sequence of float
        Factors of their losses.
    """

    objectives: Mapping[str, Objective]
    loss_weights: Sequence[float]

    @functools.cached_property
    def loss(self) -> JoinedLoss:
        """For a `TrainConfig`."""
        each = self.objectives.values()
        return JoinedLoss(
            [objective.loss for objective in each],
            [_target_shape(objective) for objective in each],
            [objective.n_units for objective in each],
        )

    @property
    def by_row(self) -> bool:
        """See `Objective.by_row`."""
        return all(objective.by_row for objective in self.objectives.values())

    def check_weights(self, weights) -> None:
        """See `Objective.check_weights`."""
        for objective in self.objectives.values():
            objective.check_weights(weights)

    def targets(self, y) -> np.ndarray:
        """Table of targets from one column per head: indices of classes, and numbers."""
        parts = [np.tile(np.asarray(self.loss_weights, np.float32), (len(y), 1))]
        for objective, column in zip(self.objectives.values(), y.T, strict=True):
            if objective.form == "one-hot":
                parts.append(np.eye(objective.n_outputs, dtype=np.float32)[column.astype(int)])
            else:
                parts.append(column[:, None].astype(np.float32))
        return np.hstack(parts)

    def metrics(self, user_metrics: Mapping[str, Sequence], units: Mapping, bounds: Mapping):
        """Metrics for a `TrainConfig`, from lists of them by head.

        `units` holds (mean, scale) of standardised targets, `bounds` (low, high) of outputs that
        are numbers, by head.
        """
        metrics = []
        for index, (name, objective) in enumerate(self.objectives.items()):
            mean, scale = units.get(name, (None, None))
            own = user_metrics.get(name, ())
            for metric in objective.metrics(own, mean, scale, bounds.get(name)):
                label = metric if isinstance(metric, str) else name_of(metric)
                metrics.append(MetricOfHead(metric, self.loss, index, f"{name}_{label}"))
        return tuple(metrics)


def _target_shape(objective):
    if objective.form == "codes":
        return ()
    return (objective.n_outputs,) if objective.form == "one-hot" else (1,)
