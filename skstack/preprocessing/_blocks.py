"""Named blocks of columns: how a table of any kind becomes arrays for a network, and back."""

from __future__ import annotations

import copy
import datetime
import functools
import itertools
import re
import warnings
from dataclasses import dataclass
from numbers import Number

import numpy as np
from sklearn.base import clone

from skstack._base.disk_table import DiskArray, DiskTable, SharedRows
from skstack._base.tables import column_indices, object_array, sampled
from skstack.preprocessing._columns import (
    array_columns,
    as_numbers,
    as_table,
    categorical_mask,
    column_at,
    dense,
    factorise,
    hash_buckets,
    head_of,
    is_default_categorical,
    is_from_dtype,
    names_of,
    plain_numbers,
    refuse_non_numeric,
    sort_categories,
    stack_cells,
    take_columns,
    warn_of_categories,
)

# Layer names of the recipes, which inputs may not have.
_RESERVED_NAMES = ("numeric", "sequence", "tensor", "output", "latent")
_ACCEPTED_INPUTS = 'None, "prefix", a dict of input name to columns, or a list of columns'
_INPUT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class ColumnBlocks:
    """Split tables into named arrays, and assemble such arrays into a table again.

    Parameters
    ----------
    categorical_features, inputs, input_shape, n_hash_buckets, imputer
        As in the network estimators; masks of `categorical_features` work for arrays, too.

    unseen_tokens : bool, default=False
        Whether token ids above those of the training rows are mapped to one id, the last; False
        keeps them, for a network that has its own vocabulary.

    allow_nan : bool, default=False
        Whether numbers may stay missing without an imputer.

    Attributes
    ----------
    blocks_ : tuple of Block
        The inputs named by the user, then the numeric columns, then categorical columns and columns
        of arrays, in column order.
    columns_ : dict of str to list
        The original column names (for arrays: indices) of each block.
    categories_ : dict of str to list
        The sorted known categories of each categorical block: code 2 is the first. For a hashed
        block the numbers of the buckets.
    n_columns_ : int

    Notes
    -----
    Code 0 is an unseen category, code 1 a missing value (None, NaN, NA, NaT, null). Numbers compare
    by value: 1, 1.0 and True are one category.

    Examples
    --------
    >>> import pandas as pd
    >>> from skstack.preprocessing._blocks import ColumnBlocks
    >>> X = pd.DataFrame({"job": ["cook", None, "vet"], "age": [31, 40, 56]})
    >>> blocks = ColumnBlocks().fit(X)
    >>> [(block.name, block.shape, block.cardinality) for block in blocks.blocks_]
    [('numeric', (1,), None), ('job', (), 4)]
    >>> blocks.split(X)["job"].tolist()
    [2, 1, 3]
    >>> blocks.split(pd.DataFrame({"job": ["king"], "age": [7]}))["job"].tolist()
    [0]
    """

    def __init__(
        self,
        categorical_features="from_dtype",
        *,
        inputs=None,
        input_shape=None,
        n_hash_buckets=None,
        imputer=None,
        unseen_tokens=False,
        allow_nan=False,
    ):
        self.categorical_features = categorical_features
        self.inputs = inputs
        self.input_shape = input_shape
        self.n_hash_buckets = n_hash_buckets
        self.imputer = imputer
        self.unseen_tokens = unseen_tokens
        self.allow_nan = allow_nan

    def fit(self, X, *, like=None, sample_weight=None):
        """Learn the kinds of columns, the categories that occur, and the imputed values.

        With `like`, another object, columns, categories and codes, hence shapes, are taken from it,
        for the folds of a cross-fit; categories that do not occur in X become unseen. Weights, all
        positive, say how often a row counts in the imputed values.
        """
        if like is not None:
            for name in ("n_columns_", "columns_", "_names"):
                setattr(self, name, getattr(like, name))
            table = like._open(X)
            parts = [
                copy.copy(part).fit(table, self._names, like=part, weights=sample_weight)
                for part in like._parts
            ]
            return self._set_parts(parts)
        table = as_table(X)
        self.n_columns_ = table.shape[1]
        # Columns are addressed by index: pandas' column names may be anything.
        self._names = names_of(table)
        if len(table.shape) > 2:
            parts = [self._tensor_part(table)]
        else:
            parts = self._table_parts(head_of(table))
            if any(isinstance(part, CategoricalBlock) for part in parts):
                table = dense(table)
        self.columns_ = {part.name: self._names_of(part.indices) for part in parts}
        return self._set_parts(
            [part.fit(table, self._names, weights=sample_weight) for part in parts]
        )

    def _set_parts(self, parts):
        self._parts = parts
        self.blocks_ = tuple(part.block for part in parts)
        self.categories_ = {
            part.name: part.levels for part in parts if isinstance(part, CategoricalBlock)
        }
        return self

    def split(self, X, *, dtype=np.float32):
        """Return the arrays that a network takes, by name; a `DiskArray` for a table on disk.

        Numbers are C-contiguous, of shape (n_rows, *shape), and may share memory with X: do not
        write to them. Their dtype is `dtype`, but float32 with an imputer. Categories are int32 of
        shape (n_rows,), token ids of shape (n_rows, length).
        """
        table = self._open(X)
        if isinstance(table, DiskTable):
            shared = SharedRows(table, functools.partial(self.split, dtype=dtype))
            return {
                part.name: DiskArray(shared, part.name, part.block.shape, part.dtype_of(dtype))
                for part in self._parts
            }
        if not table.shape[0]:  # not checked elsewhere without numeric columns
            raise ValueError(
                f"Found array with 0 sample(s) (shape={tuple(table.shape)}) while a minimum of 1 "
                "is required."
            )
        return {part.name: part.read(table, dtype) for part in self._parts}

    def table(self, arrays, *, for_sampler=False):
        """Assemble the arrays of `split` into a table with the columns of `fit`, in their order.

        An array if all are numbers, else a DataFrame: numbers are float32, categories of `category`
        dtype with the known categories (bools as 0 and 1; of hashed ones the buckets); unseen and
        missing ones are NaN. For a sampler the indicators of missing values follow, and unseen
        categories are one of their own, which `split_again` needs.
        """
        if isinstance(self._parts[0], TensorBlock):
            return self._parts[0].rows(arrays[self._parts[0].name])
        columns, indicators = {}, {}
        names = [f"x{i}" for i in range(self.n_columns_)] if self._names is None else self._names
        for part in self._parts:
            columns.update(part.columns(arrays[part.name], for_sampler=for_sampler))
            if for_sampler:
                indicators.update(part.indicator_columns(arrays[part.name], names))
        ordered = [columns[index] for index in range(self.n_columns_)] + [*indicators.values()]
        if all(isinstance(part, NumericBlock) for part in self._parts):
            return np.column_stack(ordered)
        import pandas as pd

        table = pd.DataFrame(dict(enumerate(ordered)))
        own = list(indicators)
        if not any(isinstance(name, str) for name in names):  # samplers refuse names of two kinds
            own = [_unused_number(names, start=len(names) + number) for number in range(len(own))]
        table.columns = pd.Index([*names, *own], tupleize_cols=False)
        return table

    def split_again(self, table):
        """Return the arrays of rows of a table that `table` made for a sampler."""
        table = as_table(table)
        if isinstance(self._parts[0], TensorBlock):
            return {self._parts[0].name: self._parts[0].read(table)}
        arrays, first = {}, self.n_columns_
        for part in self._parts:
            indicators = np.arange(first, first + part.indicated.size)
            first += indicators.size
            arrays[part.name] = part.from_columns(table, indicators)
        return arrays

    def column_indices(self):
        """Indices of the columns of each block, as a dict of name to list of int."""
        return {part.name: [int(index) for index in part.indices] for part in self._parts}

    def part(self, name):
        """The part that makes the array of a block."""
        return next(part for part in self._parts if part.name == name)

    # -----------------------------------------------------------------------------------------

    def _tensor_part(self, array):
        """Three and more dimensions: the whole array is one block."""
        for name, is_default in (
            ("categorical_features", is_default_categorical(self.categorical_features)),
            ("inputs", self.inputs is None),
        ):
            if not is_default:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} requires a table; X has {array.ndim} "
                    "dimensions."
                )
        return TensorBlock(tuple(array.shape[1:]), self._shape_of(None))

    def _table_parts(self, table):
        """The parts of a table, not fitted yet."""
        mask = categorical_mask(self.categorical_features, table, self._names)
        arrays = array_columns(table, mask, self.categorical_features)
        numeric = ~(mask | arrays)
        groups = self._groups(table)
        free = np.ones(self.n_columns_, dtype=bool)
        parts = []
        for name, indices in groups.items():
            free[indices] = False
            if self.inputs == "prefix":  # the others are separate inputs
                free[indices[~numeric[indices]]] = True
                indices = indices[numeric[indices]]
                if not len(indices):
                    continue
            if numeric[indices].all():
                parts.append(self._numeric_part(name, indices, self._shape_of(name)))
            elif len(indices) == 1:
                parts.append(self._column_part(name, indices[0], arrays))
            else:
                raise ValueError(
                    f"inputs: {name!r} combines the columns {self._names_of(indices)}, but "
                    f"{self._names_of(indices[~numeric[indices]])} hold categories or arrays, each "
                    "of which must be a separate input."
                )
        rest = np.flatnonzero(numeric & free)
        if rest.size:
            shape = self._shape_of(None if not groups else "numeric")
            name = "numeric" if shape is None else kind_of(shape)
            parts.append(self._numeric_part(name, rest, shape))
        taken = {*_RESERVED_NAMES, *groups}
        for index in np.flatnonzero(~numeric & free):
            column = f"x{index}" if self._names is None else self._names[index]
            name = keras_name(column, taken)
            taken.add(name)
            parts.append(self._column_part(name, index, arrays))
        names = [part.name for part in parts]
        if isinstance(self.input_shape, dict) and set(self.input_shape) - set(names):
            raise ValueError(
                f"input_shape={self.input_shape!r} names unknown inputs; the inputs are {names}."
            )
        if len(set(names)) < len(names):
            raise ValueError(
                f"inputs={self.inputs!r}: 'numeric' is reserved for the remaining numeric columns."
            )
        return parts

    def _numeric_part(self, name, indices, shape):
        return NumericBlock(name, indices, shape, self.imputer, self.allow_nan)

    def _column_part(self, name, index, arrays):
        if arrays[index]:
            return ArrayColumnBlock(name, int(index), self._shape_of(name), self.unseen_tokens)
        from_dtype = is_from_dtype(self.categorical_features)
        return CategoricalBlock(name, int(index), self.n_hash_buckets, from_dtype)

    def _names_of(self, indices):
        return [int(index) if self._names is None else self._names[index] for index in indices]

    def _shape_of(self, name):
        """The `input_shape` of an input; None is the only one."""
        shape = self.input_shape
        if isinstance(shape, dict):
            return None if shape.get(name) is None else tuple(shape[name])
        return tuple(shape) if shape is not None and name is None else None

    def _groups(self, table):
        """Indices of the columns of each input that the user named."""
        inputs = self.inputs
        if inputs is None:
            return {}
        if isinstance(inputs, str) and inputs == "prefix":
            return self._by_prefix()
        if isinstance(inputs, (list, tuple)):
            inputs = {f"input_{number}": columns for number, columns in enumerate(inputs)}
        if not isinstance(inputs, dict) or not all(isinstance(name, str) for name in inputs):
            raise ValueError(f"inputs={self.inputs!r}; expected {_ACCEPTED_INPUTS}.")
        frame = table.to_native() if hasattr(table, "to_native") else table
        groups = {}
        for name, columns in inputs.items():
            if not _INPUT_NAME.fullmatch(name):
                raise ValueError(
                    f"inputs: {name!r} is not a valid Keras layer name; use ASCII letters, digits "
                    "and underscores."
                )
            indices = []
            if columns is not None:
                indices = column_indices(frame, columns, f"inputs[{name!r}]")
            if not len(indices):
                raise ValueError(f"inputs[{name!r}]={columns!r} selects no columns of X.")
            groups[name] = indices
        return groups

    def _by_prefix(self):
        if self._names is None:
            raise ValueError('inputs="prefix" requires column names, but X has none.')
        groups = {}
        for index, name in enumerate(self._names):
            prefix, separator, _ = str(name).partition("__")
            if separator and prefix:
                groups.setdefault(prefix, []).append(index)
        named = {}
        for prefix, indices in groups.items():
            named[keras_name(prefix, named)] = np.asarray(indices)
        return named

    def _open(self, X):
        """Rows as a table, after a check of the shape."""
        table = as_table(X)
        if isinstance(self._parts[0], TensorBlock):
            return table
        if len(table.shape) != 2:
            raise ValueError(f"X has {len(table.shape)} dimensions, but was fitted on a table.")
        if table.shape[1] != self.n_columns_:
            raise ValueError(
                f"X has {table.shape[1]} features, but was fitted on {self.n_columns_} features."
            )
        return dense(table) if self.categories_ else table


def categorical_mask_of(categorical_features, X, indices):
    """`categorical_features` for some columns of X: "from_dtype", None, or a boolean mask."""
    if is_default_categorical(categorical_features):
        return categorical_features
    table = head_of(as_table(X))
    return categorical_mask(categorical_features, table, names_of(table))[indices]


def array_column_indices(X):
    """Indices of the columns of a DataFrame whose cells hold arrays."""
    table = head_of(as_table(X))
    if len(table.shape) != 2:
        return np.arange(0)
    return np.flatnonzero(array_columns(table, np.ones(table.shape[1], dtype=bool), "from_dtype"))


def keras_name(column, taken):
    """A name for the input or output of a column: valid for Keras, and not taken."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", str(column)).lstrip("_") or "column"
    number, unique = 1, name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique


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

    Examples
    --------
    >>> from skstack.networks import Block
    >>> Block("job", "categorical", (), 5, "int32").cardinality
    5
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

    def dtype_of(self, dtype):
        """Dtype of the array that `read` returns."""
        return self.block.dtype

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
            first = head_of(table)
            plain = plain_numbers(first)
            for index in self.indices[~plain[self.indices]]:
                refuse_non_numeric(column_at(first, index), names[index])
        self.indicated = np.arange(0)
        if self.imputer is not None:
            table, weights = sampled(table, weights)
            numbers = as_numbers(self._columns(table), allow_nan=True)
            imputer = clone(self.imputer)
            # Without a copy it would impute in the caller's rows.
            imputer.set_params(keep_empty_features=True, add_indicator=False, copy=True)
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
            numbers = np.asarray(self.imputer_.transform(raw), dtype=np.float32)
            if self.indicated.size:
                missing = np.isnan(raw[:, self.indicated]).astype(np.float32)
                numbers = np.hstack([numbers, missing])
        return numbers.reshape(len(numbers), *self.block.shape)

    def dtype_of(self, dtype):
        """See `_TableBlock`."""
        return dtype if self.imputer is None else self.block.dtype

    def columns(self, array, *, for_sampler=False):
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
        """Warn if values may be unseen only because they are of another type."""
        asked, fitted = ({type(level) for level in each} for each in (levels, self.levels))
        text = {str(level) for level in self.levels}
        # Among numbers, a word is another value. Words and dates may stand for the same.
        numbers = any(issubclass(each, Number) for each in asked | fitted)
        related = any(_may_equal(one, other) for one in asked for other in fitted)
        unlike = fitted and not numbers and not related
        if unlike or any(str(level) in text for level in levels):
            types, fitted = (sorted(each.__name__ for each in some) for some in (asked, fitted))
            warnings.warn(
                f"Column {self.column!r} holds values of type {', '.join(types)}, but was "
                f"fitted on values of type {', '.join(fitted)}: all of them are treated as "
                "unseen. Convert the column to one type in both tables, for example with "
                "astype(str).",
                UserWarning,
                stacklevel=2,
            )

    def columns(self, array, *, for_sampler=False):
        """The column, by its index: of `category` dtype, unseen and missing values as NaN."""
        import pandas as pd

        array = np.asarray(array)
        codes = np.maximum(array - FIRST_KNOWN, -1)
        levels = pd.Index(self.levels, tupleize_cols=False)
        if levels.dtype == bool:  # SMOTENC returns 0.0 and 1.0, which pandas does not match to bool
            levels = levels.astype(int)
        unseen = array == UNSEEN  # in a network that is trained further
        if for_sampler and len(levels) and unseen.any():
            other = None
            if levels.dtype.kind in "iuf":
                other = _unused_number(self.levels)
            elif self.holds_words:
                other = max(levels, key=len) + "?"
            if other is not None:
                codes = np.where(unseen, len(levels), codes)
                levels = levels.append(pd.Index([other]))
        return {self.index: pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(levels))}

    def from_columns(self, table, indicators):
        """The codes, from a table of `columns`, in which hashed columns hold bucket numbers."""
        codes, levels = factorise(column_at(table, self.index), self.column)
        return self._codes_of_known(levels)[codes]


def _unused_number(values, start=0):
    """The smallest whole number from `start` on that is not among some values."""
    return next(number for number in itertools.count(start) if number not in values)


def _may_equal(one, other):
    """Whether values of two types may be equal; a `date` never equals a `datetime`."""
    if datetime.date in (one, other):
        return one is other
    return issubclass(one, other) or issubclass(other, one)


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

    def columns(self, array, *, for_sampler=False):
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
    """Fit a ``SimpleImputer`` of NaN in place; a row of weight w counts as w rows."""
    imputer.fit(numbers)
    if weights is None or imputer.strategy == "constant" or np.all(weights == weights[0]):
        return imputer
    for index, column in enumerate(numbers.T):
        known = ~np.isnan(column) & (weights > 0)
        value = 0.0  # as SimpleImputer imputes in empty columns
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
