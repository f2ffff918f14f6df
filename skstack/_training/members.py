"""Networks with members: one network that holds several, whose mean is its output.

In training the loss is computed for each member and averaged: the loss of the mean would train them
as one. Metrics, early stopping and predictions use the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from skstack._training.keras_model import member_layers
from skstack._training.objective import ConvertedMetric, losses_of_rows, name_of


class MemberOutputs(keras.layers.Layer):
    """Outputs of all members as rows of their own in training, and their mean in inference.

    Takes one tensor without activation of shape (batch, members, units) for each part of the
    output, and returns a tensor of shape (batch * members, all units) in training, the members of a
    row next to each other, else of shape (batch, all units). Cross-entropies of Keras look for the
    softmax or sigmoid that made their predictions, so the activation comes last.
    """

    def __init__(self, activations, **settings):
        super().__init__(**{"dtype": "float32", **settings})  # as the outputs of networks
        self.activations = tuple(activations)

    def call(self, parts, training=False):
        outputs = []
        for name, part in zip(self.activations, parts, strict=True):
            activation = keras.activations.get(name)
            if training:
                outputs.append(activation(ops.reshape(part, (-1, part.shape[-1]))))
            else:
                outputs.append(ops.mean(activation(part), axis=1))
        return outputs[0] if len(outputs) == 1 else ops.concatenate(outputs, axis=-1)

    def compute_output_shape(self, shapes):
        return (None, sum(shape[-1] for shape in shapes))

    def get_config(self):
        return {**super().get_config(), "activations": self.activations}


def _members_of(y_true, y_pred):
    """Number of predictions of each row: 1 for their mean."""
    return ops.shape(y_pred)[0] // ops.shape(y_true)[0]


class MemberLoss(keras.losses.Loss):
    """Mean of a loss over members; in inference, the loss of their mean.

    Over rows it is reduced as the loss itself. With ``by_row`` the loss has a value for each row,
    and the members are rows of one call; else it is called for each member.
    """

    def __init__(self, loss, by_row=True, name="members"):
        reduction = getattr(loss, "reduction", "sum_over_batch_size")
        super().__init__(name=name, reduction=reduction)
        self.loss = loss
        self.by_row = by_row
        self._function = keras.losses.get(loss)

    def get_config(self):
        return {"loss": self.loss, "by_row": self.by_row, "name": self.name}

    @property
    def row_averages_of(self):
        """Losses that decide whether this one is an average over rows; read by the engines."""
        return (self.loss,)

    def call(self, y_true, y_pred):
        n_rows = ops.shape(y_true)[0]
        if not self.by_row:
            apart = ops.reshape(y_pred, (n_rows, -1, y_pred.shape[-1]))
            values = ops.map(
                lambda own: losses_of_rows(self._function, y_true, own),
                ops.transpose(apart, (1, 0, 2)),
            )
            return ops.mean(values, axis=0)
        repeated = ops.repeat(y_true, _members_of(y_true, y_pred), axis=0)
        values = losses_of_rows(self._function, repeated, y_pred)
        if len(values.shape) == 0:  # one number for all rows
            return values
        return ops.mean(ops.reshape(values, (n_rows, -1)), axis=1)


class MetricOfMean(ConvertedMetric):
    """A copy of a metric, for the mean of the members."""

    def __init__(self, metric, name=None):
        super().__init__(keras.metrics.get(metric), name)
        self.metric = metric

    def get_config(self):
        return {"metric": self.metric, "name": self.name}

    def convert(self, y_true, y_pred):
        shape = (ops.shape(y_true)[0], -1, y_pred.shape[-1])
        return y_true, ops.mean(ops.reshape(y_pred, shape), axis=1)


def metric_of_mean(metric) -> MetricOfMean:
    """A metric for a `TrainConfig`, for the mean of the members."""
    return MetricOfMean(metric, metric if isinstance(metric, str) else name_of(metric))


@dataclass(frozen=True)
class MemberBlueprint:
    """A network with members as it is trained.

    Parameters
    ----------
    blueprint : Blueprint
        The network, whose output is the mean of its members.
    projected : tuple of str, int and str, default=None
        An inner layer that becomes a second output, for each member; its width; and the name of the
        layer that projects it to that width.
    """

    blueprint: Any
    projected: tuple[str, int, str] | None = None

    @property
    def key(self):
        """See ``RecipeBlueprint.key``."""
        inner = self.blueprint.key
        return None if inner is None else ("members", inner, self.projected)

    def build(self):
        """Build the network."""
        model = self.blueprint.build()
        layers = self.blueprint.member_outputs()
        activations = [activation for activation, _ in layers]
        tensors = [model.get_layer(name).output for _, name in layers]
        if self.projected is not None:
            activations.append("linear")
            tensors.append(_projection(model, tensors[0].shape[1], *self.projected))
        name, taken = "members", {operation.name for operation in model.operations}
        while name in taken:
            name += "_"
        outputs = MemberOutputs(activations, name=name)(tensors)
        return keras.Model(model.input, outputs, name=model.name)


def _projection(model, n_members, layer, width, name):
    """Output of an inner layer for each member, projected to a width."""
    inner = model.get_layer(layer).output
    if layer not in member_layers(model):  # before the members part
        inner = inner if len(inner.shape) == 2 else keras.layers.Flatten()(inner)
        inner = keras.layers.RepeatVector(n_members)(inner)
    if inner.shape[-1] == width:
        return inner
    return keras.layers.Dense(width, name=name, dtype="float32")(inner)
