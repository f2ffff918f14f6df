"""What features and probabilities are made of, as the tables of ``stages`` compute them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from skstack.shipping._tables import grouped

__all__ = ["Classes", "as_columns", "of_classes", "of_odds", "squared_difference"]

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


def of_classes(feature, classes, binary, name):
    """A feature that is made of probabilities.

    Parameters
    ----------
    feature : {"outputs", "log_odds", "entropy", "margin"}

    classes : Classes

    binary : bool
        Whether of two classes the second alone is an output.

    name : str
        Prefix of the layer.
    """
    if feature == "outputs":
        return classes.second(name) if binary else classes.tensor
    label = f"{name}_{feature}"
    if feature == "log_odds":
        return grouped(label, [classes.second(name) if classes.n == 2 else classes.tensor], _odds)
    formula = _entropy if feature == "entropy" else _margin
    return grouped(label, [classes.tensor], lambda p: formula(_both(p) if classes.single else p))


def _odds(p):
    # 1 - p is exact near 1, where float32 has no room for 1 - 1e-7 itself.
    return ops.log(ops.clip(p, _SMALLEST, 1.0)) - ops.log(ops.clip(1.0 - p, _SMALLEST, 1.0))


def of_odds(p, multiclass, name):
    """What stands before the last activation, of probabilities."""
    formula = (lambda p: ops.log(ops.clip(p, _SMALLEST, 1.0))) if multiclass else _odds
    return grouped(name, [p], formula)


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
