"""Formulas for the outputs of networks; ``xp`` is numpy for arrays and keras.ops for tensors."""

from __future__ import annotations

import math

SMALLEST_PROBABILITY = 1e-7
LARGEST_LOG_ODDS = math.log1p(-SMALLEST_PROBABILITY) - math.log(SMALLEST_PROBABILITY)


def log(p, xp):
    """Logarithm of probabilities that are clipped to [1e-7, 1]."""
    return xp.log(xp.clip(p, SMALLEST_PROBABILITY, 1.0))


def log_odds(p, rest, xp):
    """Logarithm of p / rest, both clipped to [1e-7, 1]."""
    return log(p, xp) - log(rest, xp)


def of_log_odds(z, xp, *, exclusive):
    """Probabilities of log-odds; those of ``exclusive`` classes are normalised."""
    p = 1.0 / (1.0 + xp.exp(-z))
    return p / xp.sum(p, axis=1, keepdims=True) if exclusive and z.shape[1] > 1 else p


def with_temperature(p, temperature, xp, *, exclusive):
    """Probabilities whose logits are divided by a temperature.

    Without ``exclusive`` each column is the probability of a label of its own.
    """

    def power(p):
        return xp.exp(xp.log(xp.clip(p, 1e-30, 1.0)) / temperature)

    powers = power(p)
    total = xp.sum(powers, axis=1, keepdims=True) if exclusive else powers + power(1.0 - p)
    return powers / total


def entropy(p, xp):
    """Shannon entropy of each row in nats, of shape (n_rows, 1)."""
    p = xp.clip(p, SMALLEST_PROBABILITY, 1.0)
    return -xp.sum(p * xp.log(p), axis=1, keepdims=True)


def with_priors(p, ratio, xp):
    """Probabilities times the ratio of priors, normalised; unchanged where all products are 0."""
    weighted = p * ratio
    total = xp.sum(weighted, axis=1, keepdims=True)
    positive = xp.greater(total, 0.0)
    divisor = xp.where(positive, total, xp.ones_like(total))
    return xp.where(positive, weighted / divisor, p)


MEMBERS = ":members"  # end of the name of a layer whose members are wanted side by side


def pooling_of(name, pooling, members):
    """How the output of a layer is reduced to columns; `members` is that of `member_layers`.

    Of a layer with an output for each member it is the mean; with a name that ends in `MEMBERS` the
    outputs of all members, side by side.
    """
    if name.removesuffix(MEMBERS) not in members:
        return pooling
    return "flatten" if name.endswith(MEMBERS) else "mean"


def pooled(x, pooling, xp, mask=None):
    """Reduce (n_rows, steps, ..., channels) to (n_rows, n_columns); masked steps are ignored.

    With "flatten" they are 0, as are the columns of a row whose steps are all masked. ``mask``,
    of shape (n_rows, steps), is for tensors only.
    """
    between = tuple(range(1, len(x.shape) - 1))
    if mask is None:
        if pooling == "mean":
            return xp.mean(x, axis=between)
        if pooling == "max":
            return xp.max(x, axis=between)
        if pooling == "last":
            return x[(slice(None), *[-1] * len(between))]
        return xp.reshape(x, (-1, math.prod(x.shape[1:])))
    if pooling == "last":
        # Not by indices: LiteRT and ONNX have no layer for them.
        steps = xp.where(mask, xp.arange(1, x.shape[1] + 1, dtype="int32"), 0)
        mask = xp.logical_and(mask, xp.equal(steps, xp.max(steps, axis=1, keepdims=True)))
    for _ in range(len(x.shape) - len(mask.shape)):
        mask = xp.expand_dims(mask, -1)
    counts = xp.sum(xp.cast(mask, "float32"), axis=between)
    if pooling == "max":
        largest = xp.max(xp.where(mask, x, -math.inf), axis=between)
        return xp.where(xp.greater(counts, 0.0), largest, 0.0)
    kept = xp.where(mask, x, 0.0)
    if pooling == "flatten":
        return xp.reshape(kept, (-1, math.prod(x.shape[1:])))
    if pooling == "last":
        return xp.sum(kept, axis=1)[(slice(None), *[-1] * (len(between) - 1))]
    return xp.sum(kept, axis=between) / (xp.maximum(counts, 1.0) * math.prod(x.shape[2:-1]))
