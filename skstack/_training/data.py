"""Rows as tensors, checked and converted once per fit; their order and their batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from skstack._base.disk_table import BLOCK_ROWS, BLOCKS_IN_WINDOW, DiskArray, window_rows
from skstack._training.config import TrainingData


@dataclass(frozen=True)
class TensorLayout:
    """The order of inputs, targets and weights in a flat list of tensors."""

    names: tuple[str, ...]
    n_targets: int
    has_weights: bool

    def unpack(self, tensors: Iterable) -> tuple[dict, Any, Any]:
        """Return inputs by name; targets, None or a list if several; weights or None."""
        tensors = list(tensors)
        weights = tensors.pop() if self.has_weights else None
        targets: Any = tensors[len(self.names) :]
        if self.n_targets < 2:
            targets = targets[0] if targets else None
        return dict(zip(self.names, tensors, strict=False)), targets, weights


_WINDOW_BYTES = 2**28  # of rows of a window that are read together


class TensorTable:
    """Checked rows, whose weights have mean 1 so that losses are weighted means."""

    def __init__(self, rows: TrainingData, what: str):
        self.inputs = {name: _array(array) for name, array in rows.inputs.items()}
        targets = rows.targets if isinstance(rows.targets, (list, tuple)) else [rows.targets]
        self.targets = [_array(array) for array in targets if array is not None]
        self.weights = None
        lengths = {name: len(array) for name, array in self.inputs.items()}
        lengths.update({f"targets {i}": len(array) for i, array in enumerate(self.targets)})
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
        """Names, dtypes and shapes of one row, on which a trace depends."""
        described = [(name, a.shape[1:], str(a.dtype)) for name, a in self.inputs.items()]
        described += [("targets", a.shape[1:], str(a.dtype)) for a in self.targets]
        return tuple(described)

    def layout(self) -> TensorLayout:
        return TensorLayout(tuple(self.inputs), len(self.targets), self.weights is not None)

    @property
    def streams(self) -> bool:
        """Whether rows become tensors a piece at a time: those of large tables, and on disk."""
        return self.n_rows > window_rows() or any(isinstance(a, DiskArray) for a in self.arrays())

    def window(self, rows: np.ndarray, order: np.ndarray) -> Window:
        """Ascending rows, of which those on disk are read unless they are too large together."""
        row_bytes = sum(a.dtype.itemsize * math.prod(a.shape[1:]) for a in self.arrays())
        small = row_bytes * len(rows) <= _WINDOW_BYTES
        held = [small and isinstance(a, DiskArray) for a in self.arrays()]
        pairs = zip(self.arrays(), held, strict=True)
        return Window([a[rows] if own else a for a, own in pairs], held, rows, order)

    def arrays(self) -> list:
        """Arrays in the order of `layout`."""
        weights = [] if self.weights is None else [self.weights]
        return [*self.inputs.values(), *self.targets, *weights]

    def padded(self, n_padded: int) -> list:
        """Arrays in the order of `layout`, padded to `n_padded` rows with copies of the last one.

        Not with zeros: a loss may be NaN there, and stays NaN with a weight of 0.
        """
        missing, arrays = n_padded - self.n_rows, self.arrays()
        if not missing:
            return arrays
        return [np.pad(a, [(0, missing), *[(0, 0)] * (a.ndim - 1)], mode="edge") for a in arrays]

    def specs(self) -> tuple:
        """Specs in the order of `layout`, for any number of rows."""
        return tuple(tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in self.arrays())


def _array(array):
    return array if isinstance(array, DiskArray) else np.asarray(array)


def _mean_one(weights: np.ndarray, what: str) -> np.ndarray:
    if weights.ndim != 1:
        raise ValueError(
            f"The weights of the {what} rows must have shape (n_rows,), got {weights.shape}."
        )
    mean = weights.mean()
    if not np.isfinite(mean) or mean <= 0:
        raise ValueError(f"The weights of the {what} rows must be finite and sum to more than 0.")
    return (weights / mean).astype(np.float32)


def bucket(n_rows: int) -> int:
    """Round a number of rows up to 64, 96, 128, 192, ...: fewer shapes to compile for."""
    size = 64
    while size < n_rows:
        size = size * 3 // 2 if (size & (size - 1)) == 0 else size * 4 // 3
    return size


class Orders:
    """The order of rows in each epoch, independent of how many epochs are drawn at once.

    Tables of one window of blocks are shuffled whole. The blocks of a larger one are shuffled, and
    then the rows of each window of blocks, so that rows that follow each other lie near each other.
    """

    def __init__(self, seed: int, n_rows: int):
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(int(seed))))
        self._n_rows = n_rows

    def next(self, n_epochs: int) -> np.ndarray:
        """Orders of the next epochs, an int32 array of shape (n_epochs, n_rows)."""
        orders = np.empty((n_epochs, self._n_rows), np.int32)
        for epoch in orders:
            start = 0
            for rows, order in self.windows():
                epoch[start : start + len(rows)] = rows[order]
                start += len(rows)
        return orders

    def windows(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each window of the next epoch its rows, ascending, and their order."""
        n, draw = self._n_rows, self._generator.permutation
        if n <= window_rows():
            yield np.arange(n, dtype=np.int32), draw(n)
            return
        blocks = draw(-(-n // BLOCK_ROWS))
        for start in range(0, len(blocks), BLOCKS_IN_WINDOW):
            starts = np.sort(blocks[start : start + BLOCKS_IN_WINDOW]) * BLOCK_ROWS
            parts = [np.arange(first, min(first + BLOCK_ROWS, n)) for first in starts]
            rows = np.concatenate(parts).astype(np.int32)
            yield rows, draw(len(rows))


@dataclass(frozen=True)
class Window:
    """Rows of a large table; ``held`` tells which arrays hold these rows, and no others."""

    arrays: list
    held: list[bool]
    rows: np.ndarray
    order: np.ndarray

    def take(self, start: int, stop: int) -> list[np.ndarray]:
        """Rows by their place in the order."""
        place = self.order[start:stop]
        rows = self.rows[place]
        pairs = zip(self.arrays, self.held, strict=True)
        return [_in_order(array, place if own else rows) for array, own in pairs]


def _in_order(array, rows):
    if not isinstance(array, DiskArray):
        return array[rows]
    order = np.argsort(rows, kind="stable")
    taken = array[rows[order]]
    placed = np.empty_like(taken)
    placed[order] = taken
    return placed


@dataclass(frozen=True)
class Piece:
    """Rows of a large table as tensors, in the order in which they are trained on."""

    tensors: list
    n_rows: int
    is_last: bool


def pieces(
    table: TensorTable, orders: Orders, batch_size: int, most_rows: Callable[[], int]
) -> Iterator[Piece]:
    """The pieces of the next epoch; the next one is made while one is trained on.

    Each holds at most ``most_rows()`` rows, or one batch, and whole batches, except the last one.
    """
    windows = (table.window(*each) for each in orders.windows())
    cut = _cut(_ahead(windows, _WINDOW_READERS), table.n_rows, batch_size, most_rows)
    return _ahead(cut, _READERS)


def _cut(windows, n_rows, batch_size, most_rows):
    done, left = 0, None
    for window in windows:
        start, size = 0, len(window.rows)
        while True:
            n_left = 0 if left is None else len(left[0])
            n = min(max(most_rows() // batch_size, 1) * batch_size, n_left + size - start)
            is_last = done + n == n_rows
            if not is_last:
                n -= n % batch_size
            stop = start + n - n_left if n else size
            if start == stop:
                break
            arrays = window.take(start, stop)
            if left is not None:
                arrays = [np.concatenate(pair) for pair in zip(left, arrays, strict=True)]
            start, left = stop, None if n else arrays
            if n:
                done += n
                yield Piece([tf.convert_to_tensor(a) for a in arrays], n, is_last)
        del window  # before the next one is read


# One thread of each kind for each fit at a time: one that waits for another of the same kind might
# wait for ever. They are kept: each new one may get a heap of its own, of which the C library keeps
# much after the thread has ended.
_READERS = ThreadPoolExecutor(thread_name_prefix="skstack-reader")
_WINDOW_READERS = ThreadPoolExecutor(thread_name_prefix="skstack-window-reader")


def _ahead(items: Iterable, readers: ThreadPoolExecutor) -> Iterator:
    """The items of an iterable; the next one is made, in a thread, while one is in use."""
    iterator = iter(items)
    future = readers.submit(next, iterator, None)
    try:
        while (item := future.result()) is not None:
            future = readers.submit(next, iterator, None)
            yield item
            item = None  # before the one after the next is made
    finally:
        wait([future])


class Steps:
    """The rows of each step of some epochs.

    Parameters
    ----------
    orders : ndarray of shape (n_epochs, n_rows)
    batch_size : int
    padding : int
        Number of empty steps to append.

    Attributes
    ----------
    rows : ndarray of shape (n_steps + padding, batch_size), dtype int32
        Padded with row 0.
    counts : ndarray of shape (n_steps + padding,), dtype int32
        Number of real rows of each step.
    epoch_starts : ndarray of shape (n_epochs + 1,), dtype int32
        First step of each epoch, and the end of the last one.
    n : int
        Number of steps, without padding.
    """

    def __init__(self, orders: np.ndarray, batch_size: int, padding: int):
        n_epochs, n_rows = orders.shape
        self._per_epoch = -(-n_rows // batch_size)
        self._padding = padding
        self.n = n_steps = n_epochs * self._per_epoch
        self.rows = np.zeros((n_steps + padding, batch_size), np.int32)
        flat = self.rows[:n_steps].reshape(n_epochs, self._per_epoch * batch_size)
        flat[:, :n_rows] = orders
        self.counts = np.full(n_steps + padding, batch_size, np.int32)
        last = n_rows - (self._per_epoch - 1) * batch_size
        self.counts[self._per_epoch - 1 : n_steps : self._per_epoch] = last
        self.epoch_starts = np.arange(0, n_steps + 1, self._per_epoch, dtype=np.int32)

    def part(self, start: int, stop: int) -> list[np.ndarray]:
        """Rows, counts and epoch starts of all steps, or of some steps of a single epoch."""
        if start == 0 and stop == self.n:
            return [self.rows, self.counts, self.epoch_starts]
        some = slice(start, stop + self._padding)
        return [self.rows[some], self.counts[some], np.array([0, stop - start], np.int32)]


def mean_losses(losses: np.ndarray, counts: np.ndarray, n_epochs: int) -> np.ndarray:
    """Mean loss over rows, for each of the first epochs, of the losses of their steps.

    ``counts`` holds the number of rows of each step, of these epochs and perhaps of further ones.
    """
    counts = counts[: len(losses)].reshape(n_epochs, -1)
    losses = losses.reshape(n_epochs, -1).astype(np.float64)
    return (losses * counts).sum(axis=1) / counts.sum(axis=1)
