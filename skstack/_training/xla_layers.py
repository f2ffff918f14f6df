"""Layers whose calls are replaced: while a program is traced for XLA, and in public models.

In a compiled program all batches have one size, and the last one of an epoch is padded: batch
normalization must ignore those rows. On a CPU XLA draws Keras' random numbers 64 times slower
than a hash, so dropout uses a hash. An EinsumDense that sums over nothing is a product of elements,
which XLA computes several times faster than the batched product of matrices that einsum makes.
In public models no layer calls einsum: explainers such as SHAP's have no rule for it.
"""

from __future__ import annotations

import contextlib
import math

import keras
import tensorflow as tf

from skstack._training.keras_model import all_layers

_SPATIAL = (
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
DROPOUTS = (keras.layers.Dropout, *_SPATIAL)


def can_ignore_padding(layer) -> bool:
    """Whether `replaced_calls` can make a layer, a batch normalization, ignore padding."""
    return (
        type(layer) is keras.layers.BatchNormalization
        and not layer.synchronized
        and not getattr(layer, "renorm", False)
        and getattr(layer, "input_spec", None) is not None
        and layer.axis in (-1, layer.input_spec.ndim - 1)
    )


@contextlib.contextmanager
def replaced_calls(layers, real=None):
    """Context in which calls of dropout, batch normalization and products are replaced.

    Parameters
    ----------
    layers : list of keras.layers.Layer
    real : tensor of shape (batch,), dtype bool, default=None
        True for real rows, False for padding; None if there is no padding.
    """
    # Through the instance's __dict__: Keras tracks attributes that are set the usual way.
    replaced = []
    try:
        for layer in layers:
            if "call" in vars(layer):  # see `schedule_dropout`
                continue
            if type(layer) in DROPOUTS:
                vars(layer)["call"] = _dropout(layer)
            elif is_product(layer):
                vars(layer)["call"] = _product(layer)
            elif real is not None and can_ignore_padding(layer):
                vars(layer)["call"] = _normalization(layer, layer.call, real)
            else:
                continue
            replaced.append(layer)
        yield
    finally:
        for layer in replaced:
            del vars(layer)["call"]


def is_product(layer) -> bool:
    """Whether a layer multiplies elements by weights, and sums over nothing."""
    if type(layer) is not keras.layers.EinsumDense or layer.quantization_mode is not None:
        return False
    inputs, weights, outputs = _letters(layer)
    return set(outputs) == {*inputs, *weights} and len(set(outputs)) == len(outputs)


def _letters(layer):
    inputs, _, rest = layer.equation.replace(" ", "").partition(",")
    weights, _, outputs = rest.partition("->")
    return inputs, weights, outputs


def _product(layer):
    inputs, weights, outputs = _letters(layer)

    def call(x, training=None):
        x = _in_axes(tf.cast(x, layer.compute_dtype), inputs, outputs)
        return _finished(layer, x * _in_axes(tf.convert_to_tensor(layer.kernel), weights, outputs))

    return call


def without_einsum(model):
    """Have each EinsumDense of recipes call plain products, for which explainers have rules.

    The layers are saved, cloned and pickled as what they are, and then call einsum again.
    """
    for layer in all_layers(model):
        if type(layer) is not keras.layers.EinsumDense or layer.quantization_mode is not None:
            continue
        inputs, weights, outputs = _letters(layer)
        if is_product(layer):
            vars(layer)["call"] = _product(layer)
        elif set(weights) <= set(inputs) and outputs == inputs[: len(outputs)]:
            vars(layer)["call"] = _sum_of_products(layer)
        elif _is_stack_of_matrices(inputs, weights, outputs):
            vars(layer)["call"] = _product_of_matrices(layer)
    return model


def _sum_of_products(layer):
    inputs, weights, outputs = _letters(layer)

    def call(x, training=None):
        x = tf.cast(x, layer.compute_dtype)
        x = x * _in_axes(tf.convert_to_tensor(layer.kernel), weights, inputs)
        return _finished(layer, tf.reduce_sum(x, axis=list(range(len(outputs), len(inputs)))))

    return call


def _is_stack_of_matrices(inputs, weights, outputs):
    """Whether an equation is like ``bkd,kdc->bkc``: each k has a matrix of its own."""
    if not len(inputs) == len(weights) == len(outputs) == 3:
        return False
    (b, k, d), c = inputs, weights[2]
    return weights == k + d + c and outputs == b + k + c and c not in inputs


def _product_of_matrices(layer):
    def call(x, training=None):
        x = tf.cast(x, layer.compute_dtype)
        pairs = zip(tf.unstack(x, axis=1), tf.unstack(layer.kernel, axis=0), strict=True)
        return _finished(layer, tf.stack([tf.matmul(rows, matrix) for rows, matrix in pairs], 1))

    return call


def _finished(layer, x):
    """Add the bias of a layer, and apply its activation."""
    if layer.bias is not None:
        x = x + tf.cast(layer.bias, x.dtype)
    return x if layer.activation is None else layer.activation(x)


def _in_axes(tensor, letters, outputs):
    """Transpose a tensor with axes `letters` so that it broadcasts to axes `outputs`."""
    order = sorted(range(len(letters)), key=lambda i: outputs.index(letters[i]))
    tensor = tf.transpose(tensor, order)
    for axis, letter in enumerate(outputs):
        if letter not in letters:
            tensor = tf.expand_dims(tensor, axis)
    return tensor


def _normalization(layer, original, real):
    def call(inputs, training=None, mask=None):
        if training and layer.trainable:
            shape = [-1, *[1] * (len(inputs.shape) - 2)]
            counted = tf.broadcast_to(tf.reshape(real, shape), tf.shape(inputs)[:-1])
            counted = tf.ensure_shape(counted, inputs.shape[:-1])
            mask = counted if mask is None else tf.logical_and(counted, tf.cast(mask, "bool"))
        return original(inputs, training=training, mask=mask)

    return call


def schedule_dropout(layers, factor) -> None:
    """Have layers of dropout multiply their rate by `factor()`, in every engine.

    Keras' own dropout takes a constant. Modified layers must belong to one program.
    """
    for layer in layers:
        if type(layer) in DROPOUTS and 0 < layer.rate < 1:
            vars(layer)["call"] = _dropout(layer, factor)


def _dropout(layer, factor=None):
    def call(inputs, training=False):
        if not training or not layer.rate:
            return inputs
        seed = layer.seed_generator.next()
        shape = _noise_shape(layer, inputs)
        if None in shape:  # outside of XLA
            shape = tf.where([n is None for n in shape], tf.shape(inputs), [n or 0 for n in shape])
            bits = tf.reshape(random_bits(seed, tf.reduce_prod(shape)), shape)
        else:
            bits = tf.reshape(random_bits(seed, math.prod(shape)), shape)
        if layer.rate >= 1:
            return inputs * tf.zeros([], inputs.dtype)
        if factor is None:
            kept, share = bits >= _threshold(layer.rate), 1.0 - layer.rate
        else:
            rate = tf.cast(layer.rate, tf.float32) * factor()
            kept, share = bits >= tf.cast(rate * 2.0**32, tf.uint32), 1.0 - rate
        return tf.where(kept, inputs / tf.cast(share, inputs.dtype), tf.zeros_like(inputs))

    return call


def _noise_shape(layer, inputs):
    sizes = tuple(inputs.shape)
    if type(layer) in _SPATIAL:
        last = getattr(layer, "data_format", "channels_last") != "channels_first"
        ones = (1,) * (len(sizes) - 2)
        return (sizes[0], *ones, sizes[-1]) if last else (sizes[0], sizes[1], *ones)
    shape = layer.noise_shape or sizes
    return tuple(size if n is None else n for size, n in zip(sizes, shape, strict=True))


def _threshold(rate):
    return tf.constant(min(round(rate * 2**32), 2**32 - 1), tf.uint32)


def random_bits(seed, n):
    """Return `n` independent uniform uint32: two rounds of a hash of their indices.

    `seed` has two integers: a layer's seed and the number of its call.

    Notes
    -----
    The hash is the finaliser of MurmurHash3 (Appleby 2011), a bijection of 32 bits in which each
    bit of the input changes each bit of the output with a probability near 1/2. Between the rounds
    a second key is mixed in, so that streams of two calls are not shifted copies of each other.
    """
    seed = tf.cast(seed, tf.uint32)
    first = _mixed(seed[0] ^ _mixed(seed[1] + _u32(0x9E3779B9)))
    second = _mixed(first ^ _mixed(seed[1] ^ _u32(0x85EBCA77)))
    indices = tf.cast(tf.range(n, dtype=tf.int32), tf.uint32) * _u32(0x9E3779B1)
    return _mixed(_mixed(indices + first) ^ second)


def _u32(value):
    return tf.constant(value, tf.uint32)


def _mixed(bits):
    shift = tf.bitwise.right_shift
    bits = (bits ^ shift(bits, _u32(16))) * _u32(0x85EBCA6B)
    bits = (bits ^ shift(bits, _u32(13))) * _u32(0xC2B2AE35)
    return bits ^ shift(bits, _u32(16))
