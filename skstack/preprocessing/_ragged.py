"""Sequences of unequal length as one flat array of steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_LARGEST_ID = 2**31 - 1

# Errors for cells that are not sequences of numbers.
_REFUSALS = {
    "missing": (ValueError, "are missing; give each row a sequence, or leave the row out"),
    "none": (TypeError, "hold no sequence; each needs an array, a list or a tuple of numbers"),
    "words": (TypeError, "hold values that are not numbers; encode words as integers from 1 on"),
    "ragged": (ValueError, "are ragged; each step needs the same number of channels"),
    "rank": (ValueError, "have neither the shape (n_steps,) nor (n_steps, n_channels)"),
}


@dataclass(frozen=True)
class Ragged:
    """All steps of all sequences, one after the other, and the number of steps of each row.

    `steps` has the shape (n_steps, n_channels), float32; of token ids (n_steps,), int32.
    """

    steps: np.ndarray
    lengths: np.ndarray

    @property
    def n_channels(self):
        """Number of channels, None for token ids."""
        return self.steps.shape[1] if self.steps.ndim == 2 else None

    def rows_of(self, mask):
        """Rows, in order, with a step in a mask of shape (n_steps,)."""
        return np.unique(np.repeat(np.arange(len(self.lengths)), self.lengths)[mask])

    def cut(self, length, side):
        """At most `length` steps of each row; steps at one side, "pre" or "post", are dropped."""
        lengths = np.minimum(self.lengths, length)
        if np.array_equal(lengths, self.lengths):
            return self
        first = np.cumsum(self.lengths) - self.lengths
        step = np.arange(len(self.steps)) - np.repeat(first, self.lengths)
        if side == "pre":
            step -= np.repeat(self.lengths - lengths, self.lengths)
        return Ragged(self.steps[(step >= 0) & (step < length)], lengths)

    def padded(self, length, side, value):
        """One array with `length` steps a row; steps of `value` are added at one side."""
        shape = (len(self.lengths), length, *self.steps.shape[1:])
        result = np.full(shape, value, self.steps.dtype)
        lengths = self.lengths[:, None]
        steps = np.arange(length)
        result[steps >= length - lengths if side == "pre" else steps < lengths] = self.steps
        return result

    def rows_with(self, value):
        """Rows with a step whose channels all have this value."""
        steps = np.flatnonzero(self.steps[:, 0] == np.float32(value))
        return self.rows_of(steps[(self.steps[steps] == np.float32(value)).all(axis=1)])


def format_rows(rows):
    """Row numbers for a message: the first five, and how many more."""
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return f"rows {[int(row) for row in rows[:5]]}{more}"


def read_sequences(cells, where, *, known=False, n_channels=None):
    """Check sequences and concatenate their steps to a `Ragged`.

    Messages name the rows and `where` the cells are. One-dimensional integers are token ids, if
    all rows hold them. With `known`, `n_channels` is known: a number, or None for token ids.
    """
    arrays = _arrays(cells, where)
    lengths = np.fromiter(map(len, arrays), np.int64, len(arrays))
    _refuse(lengths == 0, where, "have no steps; leave them out, or give them a step")
    kinds = {(array.ndim, array.dtype.kind) for array in arrays}
    is_ids = kinds <= {(1, "i"), (1, "u")}
    if known and n_channels is None and not is_ids:
        other = [array.ndim == 2 or array.dtype.kind not in "iu" for array in arrays]
        _refuse(
            np.array(other),
            where,
            "hold values other than token ids (integers of shape (n_steps,)), unlike the training "
            "rows",
        )
    if is_ids and (n_channels is None or not known):
        return _ids(arrays, lengths, where)
    return _numbers(arrays, lengths, where, n_channels)


def _refuse(bad, where, what):
    if bad.any():
        raise ValueError(f"{where}: {format_rows(np.flatnonzero(bad))} {what}.")


def _arrays(cells, where):
    arrays, refused = [], {}
    for row, cell in enumerate(cells):
        valid = type(cell) is np.ndarray and cell.dtype.kind in "biuf" and 1 <= cell.ndim <= 2
        array = cell if valid else _array(cell)
        if isinstance(array, str):
            refused.setdefault(array, []).append(row)
        arrays.append(array)
    for kind, (error, what) in _REFUSALS.items():
        if kind in refused:
            raise error(f"{where}: {format_rows(refused[kind])} {what}.")
    return arrays


def _array(cell):
    """A cell as an array of numbers, or the key of `_REFUSALS`."""
    import pandas as pd

    try:
        array = np.asarray(cell)
        if array.dtype.kind == "O" and array.ndim:  # nested lists, as read from Parquet files
            array = np.asarray([np.asarray(step) for step in array])
    except ValueError:
        return "ragged"
    if array.ndim == 0:
        return "missing" if pd.isna(array.item()) is True else "none"
    if array.dtype.kind not in "biuf":
        return "words"
    return array if array.ndim <= 2 else "rank"


def _ids(arrays, lengths, where):
    # Ids beyond int64 become negative.
    ids = np.concatenate(arrays, dtype=np.int64, casting="unsafe")
    bad = (ids < 1) | (ids > _LARGEST_ID)
    if bad.any():
        rows = Ragged(ids, lengths).rows_of(bad)
        raise ValueError(
            f"{where}: {format_rows(rows)} hold token ids outside of 1 to {_LARGEST_ID}; 0 is the "
            "padding, so ids start at 1. Convert series of integers that are not ids to float."
        )
    return Ragged(ids.astype(np.int32), lengths)


def _numbers(arrays, lengths, where, n_channels):
    widths = np.array([array.shape[1] if array.ndim == 2 else 1 for array in arrays])
    expected, source = n_channels, "the training rows"
    if n_channels is None:
        expected, source = int(widths[0]), "row 0"
    if (bad := np.flatnonzero(widths != expected)).size:
        others = sorted({int(width) for width in widths[bad]})
        raise ValueError(
            f"{where}: {format_rows(bad)} have {', '.join(map(str, others))} channels, but "
            f"{source} had {expected}."
        )
    if expected == 0:
        raise ValueError(f"{where} has sequences of 0 channels; at least 1 is required.")
    if expected == 1:
        arrays = [array.reshape(-1, 1) for array in arrays]
    with np.errstate(over="ignore"):  # checked below
        steps = np.concatenate(arrays, dtype=np.float32, casting="unsafe")
    ragged = Ragged(steps, lengths)
    if not np.isfinite(steps).all():
        rows = ragged.rows_of(~np.isfinite(steps).all(axis=1))
        raise ValueError(
            f"{where}: {format_rows(rows)} hold NaN, infinity or values too large for "
            "float32; replace them first."
        )
    return ragged
