"""Outputs of rank 3 and more as columns, before they leave the graph and lose their masks."""

from __future__ import annotations

import math

import tensorflow as tf

__all__ = ["as_columns"]


def as_columns(tensor, pooling):
    """Bring an output of any rank to (n_rows, n_columns).

    Parameters
    ----------
    tensor : Tensor of shape (n_rows, ...)
        As a layer returned it: Keras keeps the mask of its steps as an attribute of the tensor.

    pooling : {"flatten", "mean", "max", "last"}
        What is done with the axes between rows and channels. Masked steps take no part; when
        flattened they are 0. A row all of whose steps are masked gives zeros.

    Returns
    -------
    Tensor of float32 of shape (n_rows, n_columns)
    """
    mask = getattr(tensor, "_keras_mask", None)
    tensor = tf.cast(tf.convert_to_tensor(tensor), "float32")
    shape = tensor.shape
    if shape.rank is None or shape.rank <= 2:
        return tensor if shape.rank == 2 else tf.reshape(tensor, (tf.shape(tensor)[0], -1))
    if mask is not None:
        mask = tf.reshape(mask, (*tf.unstack(tf.shape(mask)), *[1] * (shape.rank - 2)))
    between = list(range(1, shape.rank - 1))
    if pooling == "flatten":
        if mask is not None:
            tensor = tf.where(mask, tensor, 0.0)
        return tf.reshape(tensor, (tf.shape(tensor)[0], math.prod(shape[1:])))
    if pooling == "last":
        return _last(tensor, mask)
    if mask is None:
        reduce = tf.reduce_mean if pooling == "mean" else tf.reduce_max
        return reduce(tensor, axis=between)
    counts = tf.reduce_sum(tf.cast(mask, "float32"), axis=between)
    if pooling == "max":
        largest = tf.reduce_max(tf.where(mask, tensor, -math.inf), axis=between)
        return tf.where(counts > 0, largest, 0.0)
    total = tf.reduce_sum(tf.where(mask, tensor, 0.0), axis=between)
    return total / (tf.maximum(counts, 1.0) * math.prod(shape[2:-1]))


def _last(tensor, mask):
    n_steps = tensor.shape[1]
    if mask is None:
        steps = tensor[:, -1]
    else:
        kept = tf.reshape(mask, tf.shape(mask)[:2])
        places = tf.where(kept, tf.range(1, n_steps + 1), 0)
        last = tf.reduce_max(places, axis=1)
        steps = tf.gather(tensor, tf.maximum(last - 1, 0), axis=1, batch_dims=1)
        any_step = tf.reshape(last > 0, (-1, *[1] * (tensor.shape.rank - 2)))
        steps = tf.where(any_step, steps, 0.0)
    for _ in range(steps.shape.rank - 2):
        steps = steps[:, -1]
    return steps
