"""Columns of tables of any kind, read alike: pandas, polars, arrays, lists, sparse matrices."""

import narwhals.stable.v2 as nw
import numpy as np
from scipy import sparse
from sklearn.utils import assert_all_finite, check_array

_CATEGORICAL_DTYPES = (nw.Categorical, nw.Enum, nw.String, nw.Object, nw.Boolean)
_NOT_NUMBERS = (nw.Binary, nw.List, nw.Array, nw.Struct)
_ACCEPTED = '"from_dtype", None, a list of column names or positions, or a boolean mask'


def categorical_mask(said, table, names):
    """Which columns `categorical_features` means; `names` is None for arrays."""
    width = table.shape[1]
    mask = np.zeros(width, dtype=bool)
    if said is None:
        return mask
    if says_from_dtype(said):
        if names is not None:
            dtypes = [_dtype(column_at(table, place)) for place in range(width)]
            mask[:] = [isinstance(dtype, _CATEGORICAL_DTYPES) for dtype in dtypes]
        return mask
    try:
        wanted = None if isinstance(said, str | dict) else np.asarray(said)
    except ValueError:  # nested lists of several lengths
        wanted = None
    if wanted is None or wanted.ndim != 1:
        raise ValueError(f"categorical_features={said!r}; expected {_ACCEPTED}.")
    if wanted.dtype.kind == "b":
        if len(wanted) != width:
            raise ValueError(
                f"categorical_features is a mask of {len(wanted)} entries; X has {width} columns."
            )
        return wanted
    if not wanted.size:
        return mask
    if wanted.dtype.kind in "iu":
        out = [int(place) for place in wanted if not 0 <= place < width]
        if out:
            raise ValueError(
                f"categorical_features names the positions {out}; X has {width} columns, "
                f"numbered from 0 to {width - 1}."
            )
        mask[wanted] = True
        return mask
    if not all(isinstance(name, str) for name in said):
        raise ValueError(f"categorical_features={said!r}; expected {_ACCEPTED}.")
    if names is None:
        raise ValueError(
            f"categorical_features={said!r} names columns, but X is no DataFrame; expected "
            "positions or a boolean mask."
        )
    unknown = [name for name in said if name not in names]
    if unknown:
        raise ValueError(
            f"categorical_features names {unknown}, which X lacks; its columns are {names}."
        )
    wanted = set(said)
    mask[:] = [isinstance(name, str) and name in wanted for name in names]
    return mask


def says_from_dtype(said):
    return isinstance(said, str) and said == "from_dtype"


def open_table(X):
    """Give a pandas DataFrame as it is, others through narwhals, all else as (sparse) array."""
    if type(X) is np.ndarray and X.ndim > 1 and X.dtype == np.float32:
        return X  # as `read_rows` leaves arrays
    if nw.dependencies.is_pandas_dataframe(X):
        return X
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        return frame
    return check_array(
        X, dtype=None, ensure_all_finite=False, allow_nd=True, accept_sparse=True, input_name="X"
    )


def dense(array):
    """Give an ndarray for a sparse matrix, and all else as it is."""
    return array.toarray(order="C") if sparse.issparse(array) else array


def column_at(table, place):
    """One column by position."""
    if isinstance(table, np.ndarray):
        return table[:, place]
    if isinstance(table, nw.DataFrame):
        return table.get_column(table.columns[place])
    return table.iloc[:, place]


def take_columns(table, places):
    """Columns by position."""
    if isinstance(table, np.ndarray):
        return table[:, places]
    if sparse.issparse(table):
        return table.tocsr()[:, places]
    if isinstance(table, nw.DataFrame):
        return table.select([table.columns[place] for place in places])
    return table.iloc[:, places]


def as_numbers(table, *, allow_nan=False):
    """Give a float32 array, C-contiguous, after scikit-learn's own checks."""
    if isinstance(table, nw.DataFrame):
        table = table.to_native()
    if type(table) is np.ndarray and table.dtype == np.float32 and table.size:
        assert_all_finite(table, input_name="X", allow_nan=allow_nan)
        return np.ascontiguousarray(table)
    try:
        return dense(
            check_array(
                table,
                dtype=np.float32,
                order="C",
                allow_nd=True,
                accept_sparse=True,
                ensure_all_finite="allow-nan" if allow_nan else True,
                input_name="X",
            )
        )
    except ValueError as error:
        spoilt = _spoilt_columns(table)
        if not spoilt:
            raise
        raise ValueError(
            f"{error} It stands in the columns {spoilt}; fill it in first (SimpleImputer, "
            "or `imputer` of a network), or drop these rows or columns."
        ) from error


def _spoilt_columns(table):
    """Names of a frame's columns that hold NaN, infinity or what float32 has no room for."""
    if not hasattr(table, "columns"):
        return []
    frame = nw.from_native(table, eager_only=True)
    spoilt = []
    for name in frame.columns:
        column = frame[name]
        if not (column.dtype.is_numeric() or column.dtype == nw.Boolean):
            return []  # no number at all, which the error says by itself
        finite = column.drop_nulls().cast(nw.Float32).is_finite()
        if column.is_null().any() or not finite.all():
            spoilt.append(name)
    return spoilt


def _dtype(column):
    """Narwhals' name for a column's dtype."""
    return nw.from_native(column, series_only=True).dtype


def array_columns(table, categorical, said):
    """Which columns hold arrays or lists in their cells.

    Parameters
    ----------
    table : as `open_table` gives it

    categorical : ndarray of bool
        Which columns are categorical.

    said : as `categorical_features`
        Columns that the user named are categories, whatever they hold.

    Returns
    -------
    ndarray of bool of shape (n_columns,)
    """
    found = np.zeros(table.shape[1], dtype=bool)
    if isinstance(table, np.ndarray) or not hasattr(table, "columns"):
        return found
    for place in range(table.shape[1]):
        column = column_at(table, place)
        if isinstance(_dtype(column), (nw.List, nw.Array)):
            found[place] = True
        elif isinstance(_dtype(column), nw.Object):
            usual = said is None or says_from_dtype(said)
            named = categorical[place] and not usual
            found[place] = not named and isinstance(_first_value(column), np.ndarray | list)
    return found


def _first_value(column):
    """The first value of a column of objects that is there; None where there is none."""
    for value in column.to_list() if isinstance(column, nw.Series) else column.to_numpy():
        if isinstance(value, np.ndarray | list) or (value is not None and value == value):
            return value
    return None


def stacked_cells(column, name, shape=None):
    """Stack the arrays of a column's cells.

    Parameters
    ----------
    column : Series

    name : str

    shape : tuple of int, default=None
        That all must have; None for any.

    Returns
    -------
    ndarray of numbers of shape (n_rows, ...)

    Raises
    ------
    ValueError
        If cells are missing or of several shapes.

    TypeError
        If they hold something else than numbers.
    """
    cells = column.to_list() if isinstance(column, nw.Series) else list(column)
    missing = [row for row, cell in enumerate(cells) if not isinstance(cell, np.ndarray | list)]
    if missing:
        raise ValueError(
            f"Column {name!r} holds arrays, but not in the rows {missing[:5]}, where it holds "
            f"{cells[missing[0]]!r}."
        )
    try:
        cells = [np.asarray(cell) for cell in cells]
    except ValueError as error:
        raise ValueError(f"Column {name!r} holds lists that are no arrays: {error}") from error
    shapes = {cell.shape for cell in cells} | (set() if shape is None else {shape})
    if len(shapes) > 1:
        told = sorted(shapes)
        raise ValueError(
            f"Column {name!r} holds arrays of several shapes: {', '.join(map(str, told[:3]))}"
            f"{', ...' if len(told) > 3 else ''}. Networks take one; for sequences of unequal "
            "length put skstack.preprocessing.PadSequences() before the network."
        )
    stacked = np.stack(cells) if cells else np.empty((0, *(shape or ())))
    if stacked.dtype.kind not in "biuf":
        raise TypeError(f"Column {name!r} holds arrays of {stacked.dtype}; expected numbers.")
    if stacked.ndim == 1:
        raise ValueError(f"Column {name!r} holds arrays of no dimension; expected plain numbers.")
    return stacked


def hash_buckets(levels, n_buckets):
    """Numbers of the buckets of categories, as ``keras.layers.Hashing`` gives them less one.

    Parameters
    ----------
    levels : list
        Text, or whole numbers, which hash by value: 1, 1.0 and True alike.

    n_buckets : int

    Returns
    -------
    ndarray of int of shape (n_levels,)
        In [0, n_buckets).
    """
    import tensorflow as tf

    # 64-bit FarmHash of UTF-8: the same on every machine.
    words = [level if isinstance(level, str) else _as_word(level) for level in levels]
    hashed = tf.strings.to_hash_bucket_fast(tf.constant(words, dtype=tf.string), n_buckets)
    return hashed.numpy()


def _as_word(level):
    number = isinstance(level, (bool, int, float, np.number, np.bool_))
    return str(int(level)) if number and float(level).is_integer() else str(level)


def refuse_what_is_no_number(column, name):
    """Dates, durations, periods and nested values are neither numbers nor categories."""
    dtype = _dtype(column)
    unknown = isinstance(dtype, nw.Unknown) and getattr(column.dtype, "kind", "O") == "O"
    if dtype.is_temporal() or unknown or isinstance(dtype, _NOT_NUMBERS):
        raise ValueError(
            f"Column {name!r} has dtype {column.dtype}, which is neither numeric nor categorical. "
            "Turn it into numbers first (days since a date, month, hour, ...), name it in "
            "`categorical_features`, or drop it."
        )


def factorise(column, name):
    """Codes and the values they stand for; -1 where a value is missing."""
    import pandas as pd

    if isinstance(column, nw.Series):
        numeric = column.dtype.is_numeric()
        values = column.to_numpy() if numeric else column.to_list()
        # Objects can be told apart as they are; a string dtype would be made first.
        column = pd.Series(values, dtype=None if numeric else object)
    if column.dtype.name == "category":
        return column.cat.codes.to_numpy(), column.cat.categories.tolist()
    try:
        codes, levels = pd.factorize(column)
    except TypeError as error:
        raise TypeError(
            f"Column {name!r} is categorical, but holds values that cannot be told apart: {error}."
        ) from error
    return codes, levels.tolist()


def sort_categories(values):
    """Sort, by type and then by value where types cannot be compared."""
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    try:
        return sorted(values)
    except TypeError:
        pass
    try:
        return sorted(values, key=lambda value: (type(value).__name__, value))
    except TypeError:
        return sorted(values, key=lambda value: (type(value).__name__, repr(value)))
