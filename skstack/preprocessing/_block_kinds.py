"""Blocks: how some columns of a table become the array of one input of a network, and back."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.base import clone

from skstack._base.tables import object_array
from skstack.preprocessing._columns import (
    as_numbers,
    column_at,
    factorise,
    hash_buckets,
    refuse_non_numeric,
    sort_categories,
    stack_cells,
    take_columns,
    warn_of_categories,
)

UNSEEN, MISSING, FIRST_KNOWN = 0, 1, 2
# Sums of fractional weights are equal only up to rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Block:
    """One input of a network: numeric columns, one categorical column, or an array for each row.

    Attributes
    ----------
    name : str
        "numeric", "sequence" (3-D arrays), "tensor" (4-D and more), a name from ``inputs``, or that
        of a column of categories or arrays, made valid for Keras.
    kind : {"numeric", "categorical", "sequence", "tokens", "tensor"}
        A row has shape (steps, channels) for sequences, (steps,) for tokens, more axes for tensors.
    shape : tuple of int
        Shape of one row; ``()`` for a categorical column.
    cardinality : int or None
        Number of codes of a categorical column: its known categories plus 2 (unseen, missing). For
        token ids the largest id plus 2: 0 is padding, and the last code is for unseen ids.
    dtype : {"float32", "int32"}
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    cardinality: int | None
    dtype: str


def kind_of(shape):
    """Kind of a block of numbers with this shape of one row."""
    return {1: "numeric", 2: "sequence"}.get(len(shape), "tensor")


def _numeric_block(name, shape):
    return Block(name, kind_of(shape), tuple(shape), None, "float32")


def _reshaped(shape, requested, what):
    """The requested shape of a row, which must have as many numbers as the row; None keeps it."""
    if requested is None:
        return shape
    if int(np.prod(requested)) != int(np.prod(shape)):
        raise ValueError(
            f"input_shape={requested} holds {int(np.prod(requested))} numbers, but {what} has rows "
            f"of shape {shape}, {int(np.prod(shape))} numbers."
        )
    return requested


class _TableBlock:
    """Base of blocks of columns, with `name`, `indices` and, after `fit`, `block`."""

    indicated = np.arange(0)  # columns, among `indices`, with an indicator of missing values

    def indicator_columns(self, array, names):
        """Indicators of missing values, by name."""
        return {}

    def from_columns(self, table, indicators):
        """The array, from a table of `columns` and `indicator_columns`."""
        return self.read(table)


class NumericBlock(_TableBlock):
    """Numeric columns side by side; `imputer` or `allow_nan` allow missing values."""

    def __init__(self, name, indices, shape=None, imputer=None, allow_nan=False):
        self.name = name
        self.indices = indices
        self.shape = shape
        self.imputer = imputer
        self.allow_nan = allow_nan

    def fit(self, table, names, like=None, weights=None):
        """Learn the imputed values; `like` determines which columns have an indicator."""
        if names is not None:
            for index in self.indices:
                refuse_non_numeric(column_at(table, index), names[index])
        self.indicated = np.arange(0)
        if self.imputer is not None:
            numbers = as_numbers(self._columns(table), allow_nan=True)
            imputer = clone(self.imputer)
            imputer.set_params(keep_empty_features=True, add_indicator=False)
            self.imputer_ = fitted_imputer(imputer, numbers, weights)
            if like is not None:
                self.indicated = like.indicated
            elif self.imputer.add_indicator:
                self.indicated = np.flatnonzero(np.isnan(numbers).any(axis=0))
        width = len(self.indices) + len(self.indicated)
        shape = _reshaped((width,), self.shape, f"the input {self.name!r}")
        self.block = _numeric_block(self.name, shape)
        return self

    def _columns(self, table):
        all_columns = np.array_equal(self.indices, np.arange(table.shape[1]))
        return table if all_columns else take_columns(table, self.indices)

    def read(self, table, dtype=np.float32):
        """Array of shape (n_rows, *shape); of `dtype`, but float32 where values are imputed."""
        if self.imputer is None:
            numbers = as_numbers(self._columns(table), allow_nan=self.allow_nan, dtype=dtype)
        else:
            raw = as_numbers(self._columns(table), allow_nan=True)
            numbers = self.imputer_.transform(raw).astype(np.float32, copy=False)
            if self.indicated.size:
                missing = np.isnan(raw[:, self.indicated]).astype(np.float32)
                numbers = np.hstack([numbers, missing])
        return numbers.reshape(len(numbers), *self.block.shape)

    def columns(self, array):
        """Columns by index."""
        flat = np.asarray(array).reshape(len(array), -1)
        return {index: flat[:, number] for number, index in enumerate(self.indices)}

    def indicator_columns(self, array, names):
        """Indicators of missing values, by name."""
        flat = np.asarray(array, dtype=np.float32).reshape(len(array), -1)[:, len(self.indices) :]
        # A column may be in several blocks.
        suffix = "" if self.name == "numeric" else f"_in_{self.name}"
        return {
            f"missing_{names[self.indices[column]]}{suffix}": flat[:, number]
            for number, column in enumerate(self.indicated)
        }

    def from_columns(self, table, indicators):
        """The array, from a table of `columns` and `indicator_columns`."""
        numbers = as_numbers(take_columns(table, self.indices))
        if self.indicated.size:
            numbers = np.hstack([numbers, as_numbers(take_columns(table, indicators))])
        return np.ascontiguousarray(numbers).reshape(len(numbers), *self.block.shape)


class _ColumnBlock:
    """Constructor of blocks of one column."""

    def __init__(self, name, index):
        self.name = name
        self.index = index
        self.indices = [index]


class CategoricalBlock(_ColumnBlock, _TableBlock):
    """One categorical column; `from_dtype`: whether only its dtype makes it categorical."""

    def __init__(self, name, index, n_hash_buckets=None, from_dtype=False):
        super().__init__(name, index)
        self.n_hash_buckets = n_hash_buckets
        self.from_dtype = from_dtype

    def fit(self, table, names, like=None, weights=None):
        """Learn the categories, or take them and their codes from `like`."""
        self.column = names[self.index] if names is not None else self.index
        if like is not None:
            vars(self).update(vars(like))
            codes = like.read(table)
            self._occurs = np.bincount(codes, minlength=self.block.cardinality) > 0
            self._occurs[MISSING] = True
            self._occurs |= self.hashed
            return self
        self._occurs = None
        column = column_at(table, self.index)
        codes, levels = factorise(column, self.column)
        occurring = [levels[code] for code in np.unique(codes) if code >= 0]
        self.levels = list(dict.fromkeys(sort_categories(occurring)))
        self.holds_words = all(isinstance(level, str) for level in self.levels)
        self.hashed = self.n_hash_buckets is not None and len(self.levels) > self.n_hash_buckets
        warn_of_categories(
            column, self.column, codes, levels, from_dtype=self.from_dtype, hashed=self.hashed
        )
        if self.hashed:
            self.levels = list(range(self.n_hash_buckets))
        cardinality = len(self.levels) + FIRST_KNOWN
        self.block = Block(self.name, "categorical", (), cardinality, "int32")
        return self

    def read(self, table, dtype=None):
        """Codes of shape (n_rows,), int32."""
        codes, levels = factorise(column_at(table, self.index), self.column)
        return self.codes_of(levels)[codes]

    def codes_of(self, levels):
        """Codes of values, and last the code of missing ones, which `factorise` codes as -1."""
        if not self.hashed:
            return self._codes_of_known(levels)
        buckets = hash_buckets(levels, self.n_hash_buckets) + FIRST_KNOWN
        return np.append(buckets, MISSING).astype(np.int32)

    def _codes_of_known(self, levels):
        known = {level: code for code, level in enumerate(self.levels, FIRST_KNOWN)}
        codes = np.array([known.get(x, UNSEEN) for x in levels] + [MISSING], dtype=np.int32)
        if len(levels) and (codes[:-1] == UNSEEN).all():
            self._warn_of_types(levels)
        if self._occurs is not None:
            codes[~self._occurs[codes]] = UNSEEN
        return codes

    def _warn_of_types(self, levels):
        """Warn if values are unseen only because they are of another type."""
        text = {str(level) for level in self.levels}
        if any(str(level) in text for level in levels):
            types = sorted({type(level).__name__ for level in levels})
            fitted = sorted({type(level).__name__ for level in self.levels})
            warnings.warn(
                f"Column {self.column!r} holds values of type {', '.join(types)}, but was fitted "
                f"on values of type {', '.join(fitted)}: all of them are treated as unseen. "
                "Convert the column to one type in both tables, for example with astype(str).",
                UserWarning,
                stacklevel=2,
            )

    def columns(self, array):
        """The column, by its index: of `category` dtype, unseen and missing values as NaN."""
        import pandas as pd

        codes = np.maximum(np.asarray(array) - FIRST_KNOWN, -1)
        levels = pd.Index(self.levels, tupleize_cols=False)
        if levels.dtype == bool:  # SMOTENC returns 0.0 and 1.0, which pandas does not match to bool
            levels = levels.astype(int)
        return {self.index: pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(levels))}

    def from_columns(self, table, indicators):
        """The codes, from a table of `columns`, in which hashed columns hold bucket numbers."""
        codes, levels = factorise(column_at(table, self.index), self.column)
        return self._codes_of_known(levels)[codes]


class ArrayColumnBlock(_ColumnBlock, _TableBlock):
    """One column whose cells are arrays of one shape: images, sequences, token ids."""

    def __init__(self, name, index, shape=None, unseen_tokens=False):
        super().__init__(name, index)
        self.shape = shape
        self.unseen_tokens = unseen_tokens

    def fit(self, table, names, like=None, weights=None):
        """Learn the shape of the cells, and the largest token id."""
        self.column = names[self.index]
        if like is not None:
            vars(self).update(vars(like))
            return self
        cells = stack_cells(column_at(table, self.index), self.column)
        self.own_shape = tuple(cells.shape[1:])
        shape = _reshaped(self.own_shape, self.shape, f"column {self.column!r}")
        if len(shape) == 1 and cells.dtype.kind in "iu":
            if cells.min(initial=0) < 0:
                raise ValueError(
                    f"Column {self.column!r} holds arrays of integers, which are read as token "
                    "ids, but some are negative. Ids start at 1; 0 is the padding. Convert other "
                    "numbers to float."
                )
            largest = int(cells.max(initial=0))
            self.block = Block(self.name, "tokens", shape, largest + 2, "int32")
        else:
            self.block = _numeric_block(self.name, shape)
        return self

    def read(self, table, dtype=None):
        """Array of shape (n_rows, *shape)."""
        cells = stack_cells(column_at(table, self.index), self.column, self.own_shape)
        cells = cells.reshape(len(cells), *self.block.shape)
        if self.block.kind != "tokens":
            return as_numbers(np.ascontiguousarray(cells, dtype=np.float32))
        if cells.dtype.kind not in "iu":
            raise ValueError(
                f"Column {self.column!r} was fitted on token ids, which are integers, but holds "
                f"{cells.dtype}."
            )
        if cells.size and max(-cells.min(), cells.max()) >= 2**31:
            raise ValueError(
                f"Column {self.column!r} holds token ids from {cells.min()} to {cells.max()}; "
                "they must fit into 32 bits."
            )
        if self.unseen_tokens:
            cells = np.minimum(cells, self.block.cardinality - 1)
        return np.ascontiguousarray(cells, dtype=np.int32)

    def columns(self, array):
        """The column, by its index."""
        return {self.index: object_array(array.reshape(len(array), *self.own_shape))}


class TensorBlock(_TableBlock):
    """An array of three and more dimensions as one input, reshaped to `requested`."""

    def __init__(self, shape, requested=None):
        self.own_shape = shape
        self.indices = range(shape[0])
        shape = _reshaped(shape, requested, "X")
        self.name = kind_of(shape)
        self.block = _numeric_block(self.name, shape)

    def fit(self, table, names, like=None, weights=None):
        """Nothing is learned."""
        return self

    def read(self, table, dtype=None):
        """Array of shape (n_rows, *shape), float32."""
        if tuple(table.shape[1:]) != self.own_shape:
            raise ValueError(
                f"X has rows of shape {tuple(table.shape[1:])}, but was fitted on rows of "
                f"shape {self.own_shape}."
            )
        numbers = as_numbers(table)
        return numbers.reshape(len(numbers), *self.block.shape)

    def rows(self, array):
        """Rows of X, from the array."""
        return np.asarray(array, dtype=np.float32).reshape(len(array), *self.own_shape)


def fitted_imputer(imputer, numbers, weights=None):
    """Fit a ``SimpleImputer`` of NaN in place; a row of (positive) weight w counts as w rows."""
    imputer.fit(numbers)
    if weights is None or imputer.strategy == "constant" or np.all(weights == weights[0]):
        return imputer
    for index, column in enumerate(numbers.T):
        known = ~np.isnan(column)
        if known.any():
            value = _statistic(imputer.strategy, column[known], weights[known])
            imputer.statistics_[index] = value
    return imputer


def _statistic(strategy, values, weights):
    if strategy == "mean":
        return np.average(values.astype(np.float64), weights=weights)
    if strategy == "most_frequent":
        unique, inverse = np.unique(values, return_inverse=True)
        counts = np.bincount(inverse, weights=weights)
        # Of equally frequent values the smallest, as in SimpleImputer.
        return unique[np.flatnonzero(counts >= counts.max() * (1 - _ROUNDING))[0]]
    if strategy == "median":
        order = np.argsort(values)
        cumulative = np.cumsum(weights[order])
        tolerance = _ROUNDING * cumulative[-1]
        lower = values[order[np.searchsorted(cumulative, cumulative[-1] / 2 - tolerance)]]
        upper = values[order[np.searchsorted(cumulative, cumulative[-1] / 2 + tolerance)]]
        return (np.float64(lower) + upper) / 2
    repeats = np.round(weights).astype(int)
    if not np.array_equal(repeats, weights):
        raise ValueError(
            f"imputer=SimpleImputer(strategy={strategy!r}) does not support fractional weights: "
            "with sample_weight or class_weight, a callable strategy requires integer weights, "
            "which repeat rows. Use 'mean', 'median', 'most_frequent' or 'constant' instead."
        )
    return strategy(np.repeat(values, repeats))
