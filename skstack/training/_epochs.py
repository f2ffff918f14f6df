"""Whole epochs in one compiled call."""

from __future__ import annotations

import tensorflow as tf

from skstack.training._structure import call, call_input, compute_loss


class NothingToLearn(ValueError):
    """The loss has no gradient; no other road would find one."""


def epochs_function(program, layout, *, xla: bool):
    """Make the function that trains some epochs.

    It takes the data, flat, then ``order`` (epochs, positions) int32, the number of rows and the
    number of epochs to run, and returns the mean loss over rows of each epoch.

    Without XLA a step sees just its rows. With XLA all shapes are fixed: the last step of an epoch
    is filled up with rows of weight zero, and its others weigh as much more as the loss, which
    divides by the batch size, will divide too far.
    """
    model, optimizer, batch = program.model, program.optimizer, program.batch_size
    watched_metrics = program.has_metrics

    def gather(data, order, epoch, start, n_rows):
        if not xla:
            index = order[epoch, start : tf.minimum(start + batch, n_rows)]
            return layout.unpack([tf.gather(tensor, index) for tensor in data])
        index = tf.reshape(tf.slice(order, [epoch, start], [1, batch]), [batch])
        x, y, weights = layout.unpack([tf.gather(tensor, index) for tensor in data])
        real = start + tf.range(batch) < n_rows
        share = tf.cast(batch / tf.minimum(batch, n_rows - start), weights.dtype)
        return x, y, tf.where(real, weights * share, tf.zeros_like(weights))

    def step(data, order, epoch, start, total, n_rows):
        x, y, weights = gather(data, order, epoch, start, n_rows)
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
        if watched_metrics:
            model.compute_metrics(x, y, y_pred, sample_weight=weights)
        rows = tf.cast(tf.minimum(batch, n_rows - start), "float32")
        return start + batch, total + tf.cast(loss, "float32") * rows

    def run(*tensors):
        program.traces += 1
        *data, order, n_rows, n_epochs = tensors
        chunk = order.shape[0]

        def one_epoch(epoch, losses):
            _, total = tf.while_loop(
                lambda start, total: start < n_rows,
                lambda start, total: step(data, order, epoch, start, total, n_rows),
                (tf.constant(0), tf.constant(0.0)),
            )
            return epoch + 1, losses.write(epoch, total / tf.cast(n_rows, "float32"))

        losses = tf.TensorArray("float32", size=tf.shape(order)[0] if chunk is None else chunk)
        if xla:
            losses = losses.unstack(tf.zeros([chunk]))
        _, losses = tf.while_loop(
            lambda epoch, losses: epoch < n_epochs, one_epoch, (tf.constant(0), losses)
        )
        return losses.stack()

    return tf.function(run, jit_compile=xla, autograph=False)


def evaluation_function(program, layout):
    """Make the function that gives the mean loss over all rows, in inference mode, in chunks."""
    model, rows_in_chunk, watched_metrics = program.model, program.rows_at_once, program.has_metrics

    def chunk(data, start, total, n_rows):
        stop = tf.minimum(start + rows_in_chunk, n_rows)
        x, y, weights = layout.unpack([tensor[start:stop] for tensor in data])
        x = call_input(model, x)
        y_pred = call(model, x, training=False)
        loss = compute_loss(model, x, y, y_pred, weights, training=False)
        if watched_metrics:
            model.compute_metrics(x, y, y_pred, sample_weight=weights)
        return stop, total + tf.cast(loss, "float32") * tf.cast(stop - start, "float32")

    def run(*tensors):
        program.traces += 1
        *data, n_rows = tensors
        _, total = tf.while_loop(
            lambda start, total: start < n_rows,
            lambda start, total: chunk(data, start, total, n_rows),
            (tf.constant(0), tf.constant(0.0)),
        )
        return total / tf.cast(n_rows, "float32")

    return tf.function(run, autograph=False)
