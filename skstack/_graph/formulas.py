"""What features and probabilities are made of, as the tables of ``stages`` compute them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from keras import ops

from skstack._graph.tables import CodedColumn, grouped, refuse

_SMALLEST = 1e-7  # as in `stages`


@dataclass(frozen=True)
class Classes:
    """Probabilities of classes.

    Parameters
    ----------
    tensor : keras.KerasTensor
        Of shape (batch, n_classes); of two classes where ``single`` the second one's alone.

    single : bool
    """

    tensor: Any
    single: bool = False

    @property
    def n(self):
        """Number of classes."""
        return 2 if self.single else self.tensor.shape[1]

    def all(self, name):
        """Probabilities of shape (batch, n_classes)."""
        if not self.single:
            return self.tensor
        return grouped(name, [self.tensor], _both)

    def second(self, name):
        """Probabilities of the second class, of shape (batch, 1)."""
        if self.single:
            return self.tensor
        return grouped(f"{name}_second_class", [self.tensor], lambda p: p[:, 1:])

    def corrected(self, ratio, name):
        """With the priors of the training rows; see ``stages.correct_priors``."""
        ratio = np.asarray(ratio, dtype=np.float32)[None]

        def correct(p):
            p = _both(p) if self.single else p
            weighted = p * ratio
            total = ops.sum(weighted, axis=1, keepdims=True)
            some = ops.greater(total, 0.0)
            divisor = ops.where(some, total, ops.ones_like(total))
            return ops.where(some, weighted / divisor, p)

        return Classes(grouped(name, [self.tensor], correct))


def _both(p):
    return ops.concatenate([1.0 - p, p], axis=1)


def of_classes(feature, classes, name, *, binary, exclusive=True):
    """A feature that is made of probabilities.

    Parameters
    ----------
    feature : {"outputs", "log_odds", "entropy", "margin"}

    classes : Classes

    name : str
        Prefix of the layer.

    binary : bool
        Whether the second of two classes alone is wanted.

    exclusive : bool, default=True
        Whether there is one class to a row.
    """
    if feature == "outputs":
        return classes.second(name) if binary else classes.tensor
    label = f"{name}_{feature}"
    if feature == "log_odds":
        odds = _odds_of_classes if exclusive else _odds_of_labels
        values = grouped(label, [classes.all(f"{name}_probabilities")], odds)
        return Classes(values).second(label) if binary else values
    formula = _entropy if feature == "entropy" else _margin
    return grouped(label, [classes.tensor], lambda p: formula(_both(p) if classes.single else p))


def log_odds_of(logits, shift, name):
    """Log-odds from what a network gives before its sigmoid."""
    largest = float(np.log1p(-_SMALLEST) - np.log(_SMALLEST))
    shift = float(np.clip(shift, -1e30, 1e30))  # a class without rows
    return grouped(name, [logits], lambda z: ops.clip(z + shift, -largest, largest))


def _odds_of_classes(p):
    n = p.shape[1]
    others = np.ones((n, n), np.float32) - np.eye(n, dtype=np.float32)
    return _log(p) - _log(ops.matmul(p, others))


def _odds_of_labels(p):
    return _log(p) - _log(1.0 - p)


def _log(p):
    return ops.log(ops.clip(p, _SMALLEST, 1.0))


def of_odds(p, multiclass, name):
    """What stands before the last activation, of probabilities."""
    return grouped(name, [p], _log if multiclass else _odds_of_labels)


def _entropy(p):
    p = ops.clip(p, _SMALLEST, 1.0)
    return -ops.sum(p * ops.log(p), axis=1, keepdims=True)


def _margin(p):
    two = ops.top_k(p, 2)[0]
    return two[:, :1] - two[:, 1:]


def squared_difference(given, rebuilt, name):
    """Mean squared difference of rows, of shape (batch, 1)."""

    def error(a, b):
        squares = ops.square(a - b)
        return ops.mean(squares, axis=tuple(range(1, len(squares.shape))), keepdims=False)[:, None]

    return grouped(name, [given, rebuilt], error)


def as_columns(tensor, pooling, name):
    """Outputs of any rank as columns; see ``stages.as_columns``."""
    rank = len(tensor.shape)
    if rank == 2:
        return tensor
    between = tuple(range(1, rank - 1))
    width = int(np.prod(tensor.shape[1:])) if rank < 3 or pooling == "flatten" else None

    def pool(x):
        if rank < 3 or pooling == "flatten":
            return ops.reshape(x, (-1, width))
        if pooling == "mean":
            return ops.mean(x, axis=between)
        if pooling == "max":
            return ops.max(x, axis=between)
        return x[(slice(None), *[-1] * len(between))]

    return grouped(f"{name}_{pooling}", [tensor], pool)


def without_padding(tensor, pooling):
    """Outputs with masked steps as columns, in the network that knows the mask; all else as it is.

    As ``training`` computes them: masked steps take no part, and are 0 when flattened; rows of
    nothing but padding are 0.
    """
    mask = getattr(tensor, "_keras_mask", None)
    shape = tensor.shape
    if mask is None or len(shape) < 3:
        return tensor
    kept = ops.reshape(mask, (-1, shape[1], *[1] * (len(shape) - 2)))
    between = tuple(range(1, len(shape) - 1))
    if pooling == "flatten":
        return ops.reshape(ops.where(kept, tensor, 0.0), (-1, int(np.prod(shape[1:]))))
    if pooling == "last":
        steps = np.arange(1, shape[1] + 1, dtype=np.int32)
        places = ops.where(mask, steps, 0)
        last = ops.equal(places, ops.max(places, axis=1, keepdims=True)) & mask
        last = ops.reshape(last, (-1, shape[1], *[1] * (len(shape) - 2)))
        found = ops.sum(ops.where(last, tensor, 0.0), axis=1)
        return found[(slice(None), *[-1] * (len(shape) - 3))]
    if pooling == "max":
        largest = ops.max(ops.where(kept, tensor, np.float32(-np.inf)), axis=between)
        return ops.where(ops.isfinite(largest), largest, 0.0)
    counts = ops.sum(ops.cast(kept, "float32"), axis=between)
    total = ops.sum(ops.where(kept, tensor, 0.0), axis=between)
    return total / (ops.maximum(counts, 1.0) * float(np.prod(shape[2:-1])))


def codes_of(outputs, name):
    """Index of the largest output of each row, as a categorical column."""
    if len(outputs.shape) != 2:
        refuse(f"The part {name!r}", "features='codes' of an output of rank 3 and more.")
    n_codes = max(2, outputs.shape[1])

    def codes(x):
        # One output is the probability of the second of two classes.
        number = ops.argmax(x, axis=1) if x.shape[1] > 1 else ops.greater(x[:, 0], 0.5)
        return ops.cast(number, "int32") + 2

    def numbers(x):
        return ops.cast(ops.reshape(x, (-1, 1)) - 2, "float32")

    known = range(n_codes)  # and nothing else comes
    found = grouped(f"{name}_codes", [outputs], codes)
    as_number = partial(grouped, f"{name}_code_numbers", [found], numbers)
    return CodedColumn(found, [*known], number=as_number, kept=frozenset(known))
