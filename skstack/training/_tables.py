"""Rows as tensors: checked once, moved once for each fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from skstack.training._plan import Rows


@dataclass(frozen=True)
class Layout:
    """How flat tensors stand for inputs, targets and weights."""

    names: tuple[str, ...]
    has_targets: bool
    has_weights: bool

    def unpack(self, tensors):
        """Give (inputs by name, targets or None, weights or None)."""
        tensors = list(tensors)
        weights = tensors.pop() if self.has_weights else None
        targets = tensors.pop() if self.has_targets else None
        return dict(zip(self.names, tensors, strict=True)), targets, weights


class Table:
    """Checked rows, with weights of mean 1 so that losses average over weights."""

    def __init__(self, rows: Rows, what: str):
        self.inputs = {name: np.asarray(array) for name, array in rows.inputs.items()}
        self.targets = None if rows.targets is None else np.asarray(rows.targets)
        self.weights = None
        lengths = {name: len(array) for name, array in self.inputs.items()}
        if rows.targets is not None:
            lengths["targets"] = len(self.targets)
        if rows.weights is not None:
            lengths["weights"] = len(rows.weights)
        if len(set(lengths.values())) != 1:
            raise ValueError(f"The {what} rows differ in number: {lengths}.")
        self.n_rows = lengths[next(iter(self.inputs))]
        if self.n_rows == 0:
            raise ValueError(f"There are no {what} rows.")
        if rows.weights is not None:
            self.weights = _mean_one(np.asarray(rows.weights, dtype=np.float64), what)

    def signature(self) -> tuple:
        """Names, shapes of one row and dtypes: what a trace depends on."""
        described = [(name, a.shape[1:], str(a.dtype)) for name, a in self.inputs.items()]
        if self.targets is not None:
            described.append(("targets", self.targets.shape[1:], str(self.targets.dtype)))
        return tuple(described)

    def layout(self, *, always_weights: bool = False) -> Layout:
        return Layout(
            tuple(self.inputs), self.targets is not None, always_weights or self.weights is not None
        )

    def arrays(self, *, always_weights: bool = False) -> list[np.ndarray]:
        """Arrays in the order of `layout`."""
        arrays = list(self.inputs.values())
        if self.targets is not None:
            arrays.append(self.targets)
        if self.weights is not None:
            arrays.append(self.weights)
        elif always_weights:
            arrays.append(np.ones(self.n_rows, np.float32))
        return arrays

    def tensors(self, *, n_padded: int | None = None, always_weights: bool = False) -> list:
        """Tensors in the order of `layout`, filled up with zeros to `n_padded` rows."""
        return [
            tf.convert_to_tensor(
                array if n_padded in (None, self.n_rows) else _filled(array, n_padded)
            )
            for array in self.arrays(always_weights=always_weights)
        ]


def _mean_one(weights, what):
    if weights.ndim != 1:
        raise ValueError(
            f"The weights of the {what} rows must have shape (n_rows,), got {weights.shape}."
        )
    mean = weights.mean()
    if not np.isfinite(mean) or mean <= 0:
        raise ValueError(f"The weights of the {what} rows must be finite and sum to more than 0.")
    return (weights / mean).astype(np.float32)


def _filled(array, n_rows):
    filled = np.zeros((n_rows, *array.shape[1:]), array.dtype)
    filled[: len(array)] = array
    return filled


def bucket(n_rows: int) -> int:
    """Round a number of rows up to 64, 96, 128, 192, ...: few shapes, few compilations."""
    size = 64
    while size < n_rows:
        size = size * 3 // 2 if (size & (size - 1)) == 0 else size * 4 // 3
    return size


class Orders:
    """The order of rows in each epoch, whatever the number of epochs asked for at once."""

    def __init__(self, seed: int, n_rows: int):
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(int(seed))))
        self._n_rows = n_rows

    def next(self, n_epochs: int, shape: tuple[int, int] | None = None) -> np.ndarray:
        """Orders of the next epochs, int32, in an array of `shape` whose rest is 0."""
        orders = np.zeros(shape or (n_epochs, self._n_rows), np.int32)
        for epoch in range(n_epochs):
            orders[epoch, : self._n_rows] = self._generator.permutation(self._n_rows)
        return orders
