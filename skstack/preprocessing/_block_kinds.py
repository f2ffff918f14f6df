"""One input of a network each: how some columns of a table become its array, and back."""

# What fills gaps, learned from rows that count more than once, or less.

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.base import clone

from skstack.preprocessing._columns import (
    as_numbers,
    column_at,
    factorise,
    hash_buckets,
    refuse_what_is_no_number,
    sort_categories,
    stacked_cells,
    take_columns,
    warn_of_categories,
)

UNSEEN, MISSING, FIRST_KNOWN = 0, 1, 2


def kind_of(shape):
    """Of a block of numbers whose rows have this shape."""
    return {1: "numeric", 2: "sequence"}.get(len(shape), "tensor")


def _checked_shape(shape, wanted, what):
    """The shape that rows are to have, where it holds as many numbers as they have."""
    if wanted is None:
        return shape
    if int(np.prod(wanted)) != int(np.prod(shape)):
        raise ValueError(
            f"input_shape={wanted} holds {int(np.prod(wanted))} numbers, but {what} has rows of "
            f"shape {shape}, {int(np.prod(shape))} numbers."
        )
    return wanted


class NumericBlock:
    """Numeric columns side by side, missing values filled in where an imputer is given.

    Parameters
    ----------
    name : str
        Of the input.

    places : ndarray of int
        Positions of the columns.

    shape : tuple of int, default=None
        Of one row; None for one number a column.

    imputer : SimpleImputer, default=None
        None makes missing values an error.

    allow_nan : bool, default=False
        Whether missing values may stay.
    """

    def __init__(self, name, places, shape=None, imputer=None, allow_nan=False):
        self.allow_nan = allow_nan
        self.name = name
        self.places = places
        self.shape = shape
        self.imputer = imputer

    def fit(self, table, names, like=None, weights=None):
        """Learn what fills gaps; which columns have an indicator, ``like`` says where given."""
        if names is not None:
            for place in self.places:
                refuse_what_is_no_number(column_at(table, place), names[place])
        self.indicated = np.arange(0)
        if self.imputer is not None:
            numbers = as_numbers(self._columns(table), allow_nan=True)
            settings = {"keep_empty_features": True, "add_indicator": False}
            self.imputer_ = fitted_imputer(
                clone(self.imputer).set_params(**settings), numbers, weights
            )
            if like is not None:
                self.indicated = like.indicated
            elif self.imputer.add_indicator:
                self.indicated = np.flatnonzero(np.isnan(numbers).any(axis=0))
        width = len(self.places) + len(self.indicated)
        shape = _checked_shape((width,), self.shape, f"the input {self.name!r}")
        self.block = Block(self.name, kind_of(shape), tuple(shape), None, "float32")
        return self

    def _columns(self, table):
        everything = np.array_equal(self.places, np.arange(table.shape[1]))
        return table if everything else take_columns(table, self.places)

    def read(self, table, dtype=np.float32):
        """Array of shape (n_rows, *shape); ``dtype`` where there is no imputer, else float32."""
        if self.imputer is None:
            numbers = as_numbers(self._columns(table), allow_nan=self.allow_nan, dtype=dtype)
        else:
            given = as_numbers(self._columns(table), allow_nan=True)
            numbers = self.imputer_.transform(given).astype(np.float32, copy=False)
            if self.indicated.size:
                gaps = np.isnan(given[:, self.indicated]).astype(np.float32)
                numbers = np.hstack([numbers, gaps])
        return numbers.reshape(len(numbers), *self.block.shape)

    def columns(self, array):
        """Columns by position; those of indicators stand behind all others."""
        flat = np.asarray(array).reshape(len(array), -1)
        return {place: flat[:, number] for number, place in enumerate(self.places)}

    def more_columns(self, array, names):
        """Indicators by name."""
        flat = np.asarray(array, dtype=np.float32).reshape(len(array), -1)[:, len(self.places) :]
        return {
            f"missing_{names[self.places[place]]}{self._suffix()}": flat[:, number]
            for number, place in enumerate(self.indicated)
        }

    def _suffix(self):
        return "" if self.name == "numeric" else f"_in_{self.name}"  # a column may be in several

    def from_columns(self, table, more):
        """The array again, from a table of `columns` and `more_columns`."""
        numbers = as_numbers(take_columns(table, self.places))
        if self.indicated.size:
            gaps = as_numbers(take_columns(table, more))
            numbers = np.hstack([numbers, gaps])
        return np.ascontiguousarray(numbers).reshape(len(numbers), *self.block.shape)


class CategoricalBlock:
    """One categorical column.

    Parameters
    ----------
    name : str
        Of the input.

    place : int
        Position of the column.

    n_hash_buckets : int, default=None
        Where the column has more categories, they are hashed into so many buckets.

    usual : bool, default=False
        Whether the column's dtype alone says that it is categorical.
    """

    def __init__(self, name, place, n_hash_buckets=None, usual=False):
        self.name = name
        self.place = place
        self.places = [place]
        self.n_hash_buckets = n_hash_buckets
        self.usual = usual

    def fit(self, table, names, like=None, weights=None):
        """Learn the categories; take them and their codes from ``like`` where it is given."""
        self.column = names[self.place] if names is not None else self.place
        if like is not None:
            vars(self).update(vars(like))
            codes = like.read(table)
            self._occurs = np.bincount(codes, minlength=self.block.cardinality) > 0
            self._occurs[MISSING] = True
            self._occurs |= self.hashed
            return self
        self._occurs = None
        column = column_at(table, self.place)
        codes, levels = factorise(column, self.column)
        occurring = [levels[code] for code in np.unique(codes) if code >= 0]
        self.levels = list(dict.fromkeys(sort_categories(occurring)))
        self.holds_words = all(isinstance(level, str) for level in self.levels)
        self.hashed = self.n_hash_buckets is not None and len(self.levels) > self.n_hash_buckets
        warn_of_categories(column, self.column, codes, levels, usual=self.usual, hashed=self.hashed)
        if self.hashed:
            self.levels = list(range(self.n_hash_buckets))
        cardinality = len(self.levels) + FIRST_KNOWN
        self.block = Block(self.name, "categorical", (), cardinality, "int32")
        return self

    def read(self, table):
        """Codes of shape (n_rows,), int32."""
        codes, levels = factorise(column_at(table, self.place), self.column)
        return self.codes_of(levels)[codes]

    def codes_of(self, levels):
        """Codes of values, and last that of a missing one, which factorising calls -1."""
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
        """Warn where values are unseen only because they are of another type."""
        text = {str(level) for level in self.levels}
        if any(str(level) in text for level in levels):
            types = sorted({type(level).__name__ for level in levels})
            fitted = sorted({type(level).__name__ for level in self.levels})
            warnings.warn(
                f"Column {self.column!r} holds values of type {', '.join(types)}, but was fitted "
                f"on values of type {', '.join(fitted)}: all of them count as unseen. Give it the "
                "type that it had, such as by astype(str) in both places.",
                UserWarning,
                stacklevel=2,
            )

    def columns(self, array):
        """The column, by its position: of `category` dtype, unseen and missing ones as NaN."""
        import pandas as pd

        codes = np.maximum(np.asarray(array) - FIRST_KNOWN, -1)
        levels = pd.Index(self.levels, tupleize_cols=False)
        if levels.dtype == bool:  # SMOTENC gives 0.0 and 1.0 back: to pandas no bools
            levels = levels.astype(int)
        return {self.place: pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(levels))}

    def more_columns(self, array, names):
        """None."""
        return {}

    def from_columns(self, table, more):
        """The codes again; of hashed columns the table holds buckets."""
        codes, levels = factorise(column_at(table, self.place), self.column)
        return self._codes_of_known(levels)[codes]


class ArrayColumnBlock:
    """One column whose cells are arrays of one shape: images, sequences, token ids.

    Parameters
    ----------
    name : str
        Of the input.

    place : int
        Position of the column.

    shape : tuple of int, default=None
        Of one row; None for that of the cells.

    unseen_tokens : bool, default=False
        Whether unknown token ids become the last one.
    """

    def __init__(self, name, place, shape=None, unseen_tokens=False):
        self.unseen_tokens = unseen_tokens
        self.name = name
        self.place = place
        self.places = [place]
        self.shape = shape

    def fit(self, table, names, like=None, weights=None):
        """Learn the shape of cells, and of token ids the largest."""
        self.column = names[self.place]
        if like is not None:
            vars(self).update(vars(like))
            return self
        cells = stacked_cells(column_at(table, self.place), self.column)
        own = tuple(cells.shape[1:])
        self.own_shape = own
        shape = _checked_shape(own, self.shape, f"column {self.column!r}")
        if len(shape) == 1 and cells.dtype.kind in "iu":
            largest = int(cells.max(initial=0))
            if cells.min(initial=0) < 0:
                raise ValueError(
                    f"Column {self.column!r} holds arrays of whole numbers, which are token ids, "
                    "but some are negative. Ids start at 1; 0 stands for padding. Turn other "
                    "numbers into floats."
                )
            self.block = Block(self.name, "tokens", shape, largest + 2, "int32")
        else:
            self.block = Block(self.name, kind_of(shape), shape, None, "float32")
        return self

    def read(self, table):
        """Array of shape (n_rows, *shape)."""
        cells = stacked_cells(column_at(table, self.place), self.column, self.own_shape)
        cells = cells.reshape(len(cells), *self.block.shape)
        if self.block.kind == "tokens":
            if cells.dtype.kind not in "iu":
                raise ValueError(
                    f"Column {self.column!r} was fitted on token ids, whole numbers, but holds "
                    f"{cells.dtype}."
                )
            if cells.size and max(-cells.min(), cells.max()) >= 2**31:
                raise ValueError(
                    f"Column {self.column!r} holds token ids from {cells.min()} to {cells.max()}; "
                    "accepted are 32-bit numbers."
                )
            if self.unseen_tokens:
                cells = np.minimum(cells, self.block.cardinality - 1)
            return np.ascontiguousarray(cells, dtype=np.int32)
        return as_numbers(np.ascontiguousarray(cells, dtype=np.float32))

    def columns(self, array):
        """The column, by its position."""
        cells = np.empty(len(array), dtype=object)
        cells[:] = list(array.reshape(len(array), *self.own_shape))
        return {self.place: cells}

    def more_columns(self, array, names):
        """None."""
        return {}

    def from_columns(self, table, more):
        """The array again."""
        return self.read(table)


class TensorBlock:
    """An array of three and more dimensions: the whole of it is one input.

    Parameters
    ----------
    shape : tuple of int
        Of one row of X.

    wanted : tuple of int, default=None
        That the network takes; None for that of X.
    """

    def __init__(self, shape, wanted=None):
        self.own_shape = shape
        self.places = range(shape[0])
        shape = _checked_shape(shape, wanted, "X")
        self.name = kind_of(shape)
        self.block = Block(self.name, self.name, shape, None, "float32")

    def fit(self, table, names, like=None, weights=None):
        """Nothing is learned."""
        return self

    def read(self, table):
        """Array of shape (n_rows, *shape), float32."""
        if tuple(table.shape[1:]) != self.own_shape:
            raise ValueError(
                f"X has rows of shape {tuple(table.shape[1:])}, but was fitted on rows of "
                f"shape {self.own_shape}."
            )
        numbers = as_numbers(table)
        return numbers.reshape(len(numbers), *self.block.shape)

    def rows(self, array):
        """Rows of X again."""
        return np.asarray(array, dtype=np.float32).reshape(len(array), *self.own_shape)


# Sums of weights that are no whole numbers meet only up to rounding.
_ROUNDING = 1e-9


def fitted_imputer(imputer, numbers, weights=None):
    """Fit a ``SimpleImputer``; a row of weight w counts as w rows.

    Parameters
    ----------
    imputer : SimpleImputer
        Not fitted; NaN is what is missing.

    numbers : ndarray of float of shape (n_rows, n_columns)

    weights : ndarray of shape (n_rows,), positive, or None
        None counts every row once.

    Returns
    -------
    SimpleImputer

    Raises
    ------
    ValueError
        If ``strategy`` is a function and the weights are no whole numbers, which would say how
        often to repeat a row.
    """
    imputer.fit(numbers)
    if weights is None or imputer.strategy == "constant" or np.all(weights == weights[0]):
        return imputer
    for place, column in enumerate(numbers.T):
        known = ~np.isnan(column)
        if known.any():
            value = _statistic(imputer.strategy, column[known], weights[known])
            imputer.statistics_[place] = value
    return imputer


def _statistic(strategy, values, weights):
    if strategy == "mean":
        return np.average(values.astype(np.float64), weights=weights)
    if strategy == "most_frequent":
        different, place = np.unique(values, return_inverse=True)
        counts = np.bincount(place, weights=weights)
        # Of equally frequent ones the smallest, as SimpleImputer has it.
        return different[np.flatnonzero(counts >= counts.max() * (1 - _ROUNDING))[0]]
    if strategy == "median":
        order = np.argsort(values)
        reached = np.cumsum(weights[order])
        slack = _ROUNDING * reached[-1]
        lower = values[order[np.searchsorted(reached, reached[-1] / 2 - slack)]]
        upper = values[order[np.searchsorted(reached, reached[-1] / 2 + slack)]]
        return (np.float64(lower) + upper) / 2
    times = np.round(weights).astype(int)
    if not np.array_equal(times, weights):
        raise ValueError(
            f"imputer=SimpleImputer(strategy={strategy!r}) cannot weigh rows: with sample_weight "
            "or class_weight, a function takes weights that are whole numbers, which say how often "
            "a row is repeated. Accepted otherwise are 'mean', 'median', 'most_frequent' and "
            "'constant'."
        )
    return strategy(np.repeat(values, times))


@dataclass(frozen=True)
class Block:
    """One input of a network: numeric columns, one categorical column, or an array for each row.

    Attributes
    ----------
    name : str
        "numeric", "sequence" (3-D arrays), "tensor" (4-D and more), the name of a column that
        holds categories or arrays, made fit for Keras, or one given by ``inputs``.
    kind : {"numeric", "categorical", "sequence", "tokens", "tensor"}
        Of sequences a row has shape (steps, channels), of tokens (steps,), of tensors more axes.
    shape : tuple of int
        Of one row; ``()`` for a categorical column.
    cardinality : int or None
        Number of codes of a categorical column: its known categories plus 2 (unseen, missing). Of
        token ids: the largest plus 2, for 0 is padding and the last one stands for unseen ids.
    dtype : {"float32", "int32"}
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    cardinality: int | None
    dtype: str
