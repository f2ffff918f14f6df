"""Functions that are traced: a step, a block of steps, an evaluation. All take flat tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf

from skstack._base.text import described
from skstack._training.data import TensorLayout
from skstack._training.keras_model import all_layers, call, call_input, compute_loss
from skstack._training.variables import Lifted, VariableLayout
from skstack._training.xla_layers import replaced_calls


class TracedProgram(Protocol):
    """The part of a `Program` that is traced; its module imports this one."""

    model: Any
    optimizer: Any
    loss: Any
    layout: VariableLayout
    batch_size: int
    rows_at_once: int
    has_metrics: bool
    own_step: bool
    one_by_one: bool
    masks: bool
    traces: int
    metrics_structure: dict

    def metric_reset(self) -> Lifted: ...

    def metric_results(self) -> Lifted: ...


class NothingToLearn(ValueError):
    """The loss has no gradient, in any engine."""


def learn(program: TracedProgram, x, y, weights):
    """Take one training step, as `keras.Model.train_step` does; return the loss."""
    model, optimizer = program.model, program.optimizer
    x = call_input(model, x)
    with tf.GradientTape() as tape:
        y_pred = call(model, x, training=True)
        loss = compute_loss(model, x, y, y_pred, weights, training=True)
        scaled = optimizer.scale_loss(loss)
    trainable = model.trainable_variables
    gradients = tape.gradient(scaled, [variable.value for variable in trainable])
    if not trainable:
        raise NothingToLearn("All layers were frozen by callbacks: there is nothing to train.")
    if all(gradient is None for gradient in gradients):
        raise NothingToLearn(
            f"loss={described(program.loss)} does not depend on any weight of the network, so "
            "training would change nothing."
        )
    optimizer.apply_gradients(zip(gradients, trainable, strict=True))
    if program.has_metrics:
        model.compute_metrics(x, y, y_pred, sample_weight=weights)
    return _number(loss)


def _number(loss):
    """A loss as one number: with `reduction=None` the mean over rows, as Keras logs it."""
    loss = tf.cast(loss, "float32")
    return tf.reduce_mean(loss) if loss.shape.rank else loss


def step_function(program: TracedProgram, layout: TensorLayout) -> Callable:
    """Return a function of one batch that takes a training step and returns the loss."""

    def step(*tensors):
        program.traces += 1
        return learn(program, *layout.unpack(tensors))

    return step


def block_function(program: TracedProgram, layout: TensorLayout, *, masked: bool) -> Callable:
    """Return a function that trains on a block of batches of fixed shapes, for XLA.

    It takes flat tensors of shape (steps, batch, ...), the number of real rows of each batch and
    the number of steps to take, and returns the loss of each step.

    If `masked`, batches may be padded: padding has weight 0, and the weights of real rows
    compensate for the division of the loss by the batch size.
    """
    layers = all_layers(program.model)

    def block(*tensors):
        program.traces += 1
        *batches, counts, n_steps = tensors
        size, batch = batches[0].shape[:2]

        def step(i, losses):
            x, y, weights = layout.unpack([tensor[i] for tensor in batches])
            real = None
            if masked:
                real = tf.range(batch) < counts[i]
                scale = tf.where(real, batch / tf.cast(counts[i], "float32"), 0.0)
                weights = scale if weights is None else weights * scale
            with replaced_calls(layers, real):
                loss = learn(program, x, y, weights)
            return i + 1, tf.tensor_scatter_nd_update(losses, [[i]], [loss])

        return tf.while_loop(lambda i, _: i < n_steps, step, (0, tf.zeros([size])))[1]

    return block


def chunk_function(program: TracedProgram, layout: TensorLayout) -> Callable:
    """Return a function of some rows that computes the sum of their losses, in inference mode.

    It takes flat tensors and the number of real rows; the rest is padding, which requires `masks`.
    """
    model, layers = program.model, all_layers(program.model)

    def chunk(*tensors):
        program.traces += 1
        *data, n_real = tensors
        x, y, weights = layout.unpack(data)
        n_rows = tf.shape(data[0])[0]
        if program.masks:
            scale = tf.cast(n_rows, "float32") / tf.cast(n_real, "float32")
            scale = tf.where(tf.range(n_rows) < n_real, scale, 0.0)
            weights = scale if weights is None else weights * scale
        x = call_input(model, x)
        with replaced_calls(layers):
            y_pred = call(model, x, training=False)
        loss = compute_loss(model, x, y, y_pred, weights, training=False)
        if program.has_metrics:
            model.compute_metrics(x, y, y_pred, sample_weight=weights)
        return _number(loss) * tf.cast(n_real, "float32")

    return chunk


def evaluation_function(program: TracedProgram, layout: TensorLayout) -> Callable:
    """Return a function that computes the mean loss over the first rows, in inference mode.

    It takes flat tensors and the number of real rows, as that of `chunk_function`.
    """
    chunk = chunk_function(program, layout)

    def evaluate(*tensors):
        *data, n_rows = tensors

        def add(start, total):
            stop = tf.minimum(start + program.rows_at_once, tf.shape(data[0])[0])
            n_real = tf.minimum(stop, n_rows) - start
            return stop, total + chunk(*(tensor[start:stop] for tensor in data), n_real)

        _, total = tf.while_loop(
            lambda start, _: start < n_rows,
            add,
            (tf.constant(0), tf.constant(0.0)),
            parallel_iterations=1,  # metrics have state
        )
        return total / tf.cast(n_rows, "float32")

    return evaluate


def own_step_function(program: TracedProgram, layout: TensorLayout, names: list[str]) -> Callable:
    """Return a function of one batch that calls the model's own `train_step` and returns its logs.

    Tracing it writes the names of the logs to the list `names`.
    """

    def step(*tensors):
        program.traces += 1
        x, y, weights = layout.unpack(tensors)
        x = call_input(program.model, x)
        batch = (x, y) if weights is None else (x, y, weights)
        logs = program.model.train_step(batch)
        names[:] = list(logs)
        return [tf.convert_to_tensor(value) for value in logs.values()]

    return step
