"""What is traced: a step, a block of steps, an evaluation. All take and give flat tensors."""

from __future__ import annotations

import tensorflow as tf

from skstack._training.layers import all_layers
from skstack._training.model_io import call, call_input, compute_loss
from skstack._training.xla_layers import swapped


class NothingToLearn(ValueError):
    """The loss has no gradient; no other road would find one."""


def learn(program, x, y, weights):
    """Take one step, as `keras.Model.train_step` does; return the loss."""
    model, optimizer = program.model, program.optimizer
    x = call_input(model, x)
    with tf.GradientTape() as tape:
        y_pred = call(model, x, training=True)
        loss = compute_loss(model, x, y, y_pred, weights, training=True)
        scaled = optimizer.scale_loss(loss)
    trainable = model.trainable_variables
    gradients = tape.gradient(scaled, [variable.value for variable in trainable])
    if all(gradient is None for gradient in gradients):
        raise NothingToLearn(
            f"loss={program.loss!r} does not depend on any weight of the network, so there is "
            "nothing that training could change."
        )
    optimizer.apply_gradients(zip(gradients, trainable, strict=True))
    if program.has_metrics:
        model.compute_metrics(x, y, y_pred, sample_weight=weights)
    return tf.cast(loss, "float32")


def step_function(program, layout):
    """Make the function of one batch's tensors that learns from them and gives their loss."""

    def step(*tensors):
        program.traces += 1
        return learn(program, *layout.unpack(tensors))

    return step


def block_function(program, layout, *, masked: bool):
    """Make the function that learns from a block of batches, all shapes fixed, for XLA.

    It takes the batches, flat, each of shape (steps, batch, ...), the number of real rows in each,
    and the number of steps to take, and gives the loss of each step.

    Masked, a batch may be filled up: those rows weigh nothing, and the others as much more as the
    loss, which divides by the batch size, divides too far.
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
                share = tf.where(real, batch / tf.cast(counts[i], "float32"), 0.0)
                weights = share if weights is None else weights * share
            with swapped(layers, real):
                loss = learn(program, x, y, weights)
            return i + 1, tf.tensor_scatter_nd_update(losses, [[i]], [loss])

        return tf.while_loop(lambda i, _: i < n_steps, step, (0, tf.zeros([size])))[1]

    return block


def evaluation_function(program, layout):
    """Make the function that gives the mean loss over the first rows, in inference mode.

    It takes tensors, flat, and the number of real rows; others may stand behind them where the
    program may mask them.
    """
    model, rows_in_chunk = program.model, program.rows_at_once

    def chunk(data, start, total, n_rows):
        stop = tf.minimum(start + rows_in_chunk, tf.shape(data[0])[0])
        x, y, weights = layout.unpack([tensor[start:stop] for tensor in data])
        n_real = tf.minimum(stop, n_rows) - start
        if program.masks:
            share = tf.cast(stop - start, "float32") / tf.cast(n_real, "float32")
            share = tf.where(tf.range(stop - start) < n_real, share, 0.0)
            weights = share if weights is None else weights * share
        x = call_input(model, x)
        y_pred = call(model, x, training=False)
        loss = compute_loss(model, x, y, y_pred, weights, training=False)
        if program.has_metrics:
            model.compute_metrics(x, y, y_pred, sample_weight=weights)
        return stop, total + tf.cast(loss, "float32") * tf.cast(n_real, "float32")

    def evaluate(*tensors):
        program.traces += 1
        *data, n_rows = tensors
        _, total = tf.while_loop(
            lambda start, _: start < n_rows,
            lambda start, total: chunk(data, start, total, n_rows),
            (tf.constant(0), tf.constant(0.0)),
            parallel_iterations=1,  # metrics count
        )
        return total / tf.cast(n_rows, "float32")

    return evaluate


def own_step_function(program, layout, names):
    """Make the function of one batch that calls the model's own `train_step`; it gives its logs.

    Their names are written to the list `names` while it is traced.
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
