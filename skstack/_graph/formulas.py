"""Probabilities and features as layers; ``_features.adapters`` computes the same in NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from keras import ops

from skstack._graph.tables import CodedColumn, function_layer, refuse, selection
from skstack._training import formulas


@dataclass(frozen=True)
class Classes:
    """Probabilities of classes."""

    tensor: Any  # of shape (batch, n_classes)
    single: bool = False  # whether it holds those of the second of two classes only

    @property
    def n(self):
        """Number of classes."""
        return 2 if self.single else self.tensor.shape[1]

    def all(self, name):
        """Probabilities of shape (batch, n_classes)."""
        if not self.single:
            return self.tensor
        return function_layer(name, [self.tensor], _both)

    def second(self, name):
        """Probabilities of the second class, of shape (batch, 1)."""
        if self.single:
            return self.tensor
        return function_layer(f"{name}_second_class", [self.tensor], selection([1]))

    def among(self, classes, known, name):
        """Probabilities of the sorted ``classes``; 0 for those that are not ``known``."""
        chosen = np.asarray(known)[:, None] == np.asarray(classes)

        def spread(p):
            return ops.matmul(_both(p) if self.single else p, chosen.astype(np.float32))

        return Classes(function_layer(name, [self.tensor], spread))

    def corrected(self, ratio, name):
        """Probabilities with the original priors; see `with_priors`."""
        ratio = np.asarray(ratio, dtype=np.float32)[None]

        def correct(p):
            return formulas.with_priors(_both(p) if self.single else p, ratio, ops)

        return Classes(function_layer(name, [self.tensor], correct))

    def with_temperature(self, temperature, name, *, exclusive):
        """Probabilities with another temperature; see `formulas.with_temperature`."""

        def temper(p):
            return formulas.with_temperature(p, temperature, ops, exclusive=exclusive)

        return Classes(function_layer(name, [self.tensor], temper), self.single)


def _both(p):
    return ops.concatenate([1.0 - p, p], axis=1)


def of_classes(feature, classes, name, *, binary, exclusive=True):
    """A feature that is computed from probabilities; ``binary`` selects the second class."""
    if feature == "codes":
        return codes_of(classes.tensor, name)
    if feature == "outputs":
        return classes.second(name) if binary else classes.tensor
    label = f"{name}_{feature}"
    if feature == "log_odds":
        odds = _odds_of_classes if exclusive else _odds_of_labels
        values = function_layer(label, [classes.all(f"{name}_probabilities")], odds)
        return Classes(values).second(label) if binary else values

    def compute(p):
        p = _both(p) if classes.single else p
        return formulas.entropy(p, ops) if feature == "entropy" else _margin(p)

    return function_layer(label, [classes.tensor], compute)


def log_odds_of(logits, shift, name):
    """Log-odds from the logits of a network; ``shift`` is that of the priors."""
    largest = formulas.LARGEST_LOG_ODDS
    shift = float(np.clip(shift, -1e30, 1e30))  # infinite for a class without rows
    return function_layer(name, [logits], lambda z: ops.clip(z + shift, -largest, largest))


def _odds_of_classes(p):
    n = p.shape[1]
    others = np.ones((n, n), np.float32) - np.eye(n, dtype=np.float32)
    return formulas.log_odds(p, ops.matmul(p, others), ops)


def _odds_of_labels(p):
    return formulas.log_odds(p, 1.0 - p, ops)


def logits_of(p, multiclass, name):
    """Values before the last activation, from probabilities."""
    return function_layer(
        name, [p], (lambda p: formulas.log(p, ops)) if multiclass else _odds_of_labels
    )


def _margin(p):
    largest = ops.top_k(p, 2)[0]
    return selection([0])(largest) - selection([1])(largest)


def squared_difference(a, b, name):
    """Mean squared difference of rows, of shape (batch, 1)."""

    def error(a, b):
        squares = ops.square(a - b)
        return ops.mean(squares, axis=tuple(range(1, len(squares.shape))))[:, None]

    return function_layer(name, [a, b], error)


def as_columns(tensor, pooling, name):
    """Outputs of any rank as a tensor of shape (batch, n_columns); see `pooled`."""
    rank = len(tensor.shape)
    if rank == 2:
        return tensor
    pooling = pooling if rank > 2 else "flatten"
    return function_layer(f"{name}_{pooling}", [tensor], lambda x: formulas.pooled(x, pooling, ops))


def without_padding(tensor, pooling):
    """Outputs with masked steps as columns; used inside the network, which has the masks."""
    mask = getattr(tensor, "_keras_mask", None)
    if mask is None or len(tensor.shape) < 3:
        return tensor
    return formulas.pooled(tensor, pooling, ops, mask)


def codes_of(outputs, name):
    """Index of the largest output of each row as a categorical column."""
    if len(outputs.shape) != 2:
        refuse(f"The part {name!r}", "features='codes' of an output of rank 3 and more.")
    n_codes = max(2, outputs.shape[1])

    def codes(x):
        # A single output is the probability of the second of two classes.
        # `argmax` of Keras compares bits, which ONNX and LiteRT cannot.
        number = ops.top_k(x, 1)[1][:, 0] if x.shape[1] > 1 else ops.greater(x[:, 0], 0.5)
        return ops.cast(number, "int32") + 2

    def numbers(x):
        return ops.cast(ops.reshape(x, (-1, 1)) - 2, "float32")

    known = range(n_codes)  # all possible values
    column = function_layer(f"{name}_codes", [outputs], codes)
    as_number = partial(function_layer, f"{name}_code_numbers", [column], numbers)
    return CodedColumn(column, [*known], number=as_number, kept=frozenset(known))
