"""Columns of any table: pandas, polars, arrays, lists, sparse matrices."""

from __future__ import annotations

from decimal import Decimal
from numbers import Real

import narwhals.stable.v2 as nw
import numpy as np
from scipy import sparse
from sklearn.utils import assert_all_finite, check_array

from skstack._base.atomic_fit import object_column_kinds, warn_once
from skstack._base.disk_table import DiskTable

# In all functions `table` is what `as_table` returns, and `column` one of its columns.
_CATEGORICAL_DTYPES = (nw.Categorical, nw.Enum, nw.String, nw.Object, nw.Boolean)
_NOT_NUMBERS = (nw.Binary, nw.List, nw.Array, nw.Struct)
_PLAIN_DTYPES = {np.dtype(f"{kind}{bits}") for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_PLAIN_DTYPES |= {np.dtype("float32"), np.dtype("float64")}
_ACCEPTED = '"from_dtype", None, a list of column names or positions, or a boolean mask'
# What `pandas.api.types.infer_dtype` calls numbers, and values of several types.
_NUMBERS = {"integer", "floating", "mixed-integer-float", "decimal"}
_MIXED = {"mixed", "mixed-integer"}
# A column of at least LEAST_ROWS rows, half of them distinct, is not categorical; one with
# LEAST_NUMBERS different numbers, and other strings in few rows, is numeric.
LEAST_ROWS, LEAST_NUMBERS = 50, 20
FEW_WORDS = 0.05


def categorical_mask(categorical_features, table, names):
    """Boolean mask of the categorical columns; `names` is None for arrays."""
    width = table.shape[1]
    mask = np.zeros(width, dtype=bool)
    value = categorical_features
    if value is None:
        return mask
    if is_from_dtype(value):
        if names is not None:
            known = object_column_kinds()
            for index in np.flatnonzero(~plain_numbers(table)):
                mask[index] = _is_categorical(column_at(table, index), known.get(names[index]))
        return mask
    try:
        columns = None if isinstance(value, str | dict) else np.asarray(value)
    except ValueError:  # nested lists of several lengths
        columns = None
    if columns is None or columns.ndim != 1:
        raise ValueError(f"categorical_features={value!r}; expected {_ACCEPTED}.")
    if columns.dtype.kind == "b":
        if len(columns) != width:
            raise ValueError(
                f"categorical_features is a mask of {len(columns)} entries; X has {width} columns."
            )
        return columns
    if not columns.size:
        return mask
    if columns.dtype.kind in "iu":
        out = [int(index) for index in columns if not 0 <= index < width]
        if out:
            raise ValueError(
                f"categorical_features names the positions {out}; X has {width} columns, "
                f"numbered from 0 to {width - 1}."
            )
        mask[columns] = True
        return mask
    if not all(isinstance(name, str) for name in value):
        raise ValueError(f"categorical_features={value!r}; expected {_ACCEPTED}.")
    if names is None:
        raise ValueError(
            f"categorical_features={value!r} names columns, but X is not a DataFrame; expected "
            "positions or a boolean mask."
        )
    unknown = [name for name in value if name not in names]
    if unknown:
        raise ValueError(
            f"categorical_features names {unknown}, which are not columns of X: {names}."
        )
    chosen = set(value)
    mask[:] = [isinstance(name, str) and name in chosen for name in names]
    return mask


def is_from_dtype(categorical_features):
    """Whether `categorical_features` is "from_dtype"; it may be an array."""
    return isinstance(categorical_features, str) and categorical_features == "from_dtype"


def is_default_categorical(categorical_features):
    """Whether `categorical_features` names no columns."""
    return categorical_features is None or is_from_dtype(categorical_features)


def resolve_object_columns(X):
    """Determine the kinds of object columns for the outermost fit, from all of its rows."""
    if not hasattr(X, "columns") or isinstance(X, DiskTable):  # Arrow has no object columns
        return

    def kinds():
        table = as_table(X)
        known = dict.fromkeys(table.columns)
        for index in np.flatnonzero(~plain_numbers(table)):
            column = column_at(table, index)
            if _is_object(column):
                known[table.columns[index]] = _content(column)
        return known

    object_column_kinds(kinds)


def plain_numbers(table):
    """Mask of the columns of a DataFrame of pandas that hold NumPy's numbers.

    Looking at each column of a wide table takes longer than a short fit.
    """
    if not _is_pandas(table):
        return np.zeros(table.shape[1], dtype=bool)
    return np.array([dtype in _PLAIN_DTYPES for dtype in table.dtypes], dtype=bool)


def _is_pandas(table):
    return hasattr(table, "iloc") and hasattr(table, "columns")


def holds_numbers(column):
    """Whether a column is numeric: by its dtype, or an object column by its values."""
    return _content(column) == "numbers" if _is_object(column) else _dtype(column).is_numeric()


def _is_categorical(column, kind):
    """Whether a column is categorical; `kind` is that of all rows of the outermost fit."""
    is_null = _is_null(column)
    if not (is_null or _is_object(column)):
        return isinstance(_dtype(column), _CATEGORICAL_DTYPES)
    content = "nothing" if is_null else _content(column)
    if content == "nothing":
        return kind != "numbers"
    return content == "words" or kind == "words"


def _is_object(column):
    # narwhals infers the dtype of an object column from its first hundred values.
    if isinstance(column, nw.Series):
        return isinstance(column.dtype, nw.Object)
    return getattr(column, "dtype", None) == np.dtype(object)


def _is_null(column):
    """Whether the dtype, of polars or pyarrow, says that all values are missing."""
    return isinstance(_dtype(column), nw.Unknown) and bool(
        nw.from_native(column, series_only=True).is_null().all()
    )


def _content(column):
    """Content of an object column: "numbers", "nothing", or "words" for anything else."""
    import pandas as pd

    if isinstance(column, nw.Series):
        column = pd.Series(column.to_list(), dtype=object)
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind in _MIXED:
        return "numbers" if all(map(_is_number, column[column.notna()])) else "words"
    if kind == "empty":
        return "nothing"
    return "numbers" if kind in _NUMBERS else "words"


def _is_number(value):
    return isinstance(value, (Real, Decimal)) and not isinstance(value, (bool, np.bool_))


def as_table(X):
    """A DataFrame of pandas or a table on disk unchanged, others through narwhals, or an array."""
    if isinstance(X, DiskTable):
        return X
    if type(X) is np.ndarray and X.ndim > 1 and X.dtype.kind in "biuf" and X.size:
        return X  # checked by `read_rows`
    if nw.dependencies.is_pandas_dataframe(X):
        return X
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        return frame
    return check_array(
        X, dtype=None, ensure_all_finite=False, allow_nd=True, accept_sparse=True, input_name="X"
    )


def head_of(table):
    """The first rows of a table on disk, which tell kinds of columns; other tables unchanged."""
    return as_table(table.head()) if isinstance(table, DiskTable) else table


def names_of(table):
    """Names of the columns, or None."""
    names = getattr(table, "columns", None)
    return None if names is None else list(names)


def dense(array):
    """A sparse matrix as ndarray; other values unchanged."""
    return array.toarray(order="C") if sparse.issparse(array) else array


def column_at(table, index):
    """One column by index; of a table on disk it is read."""
    if isinstance(table, DiskTable):
        return column_at(as_table(table.take_columns([index]).in_memory()), 0)
    if isinstance(table, np.ndarray):
        return table[:, index]
    if isinstance(table, nw.DataFrame):
        return table.get_column(table.columns[index])
    return table.iloc[:, index]


def take_columns(table, indices):
    """Columns by index."""
    if isinstance(table, DiskTable):
        return table.take_columns(indices)
    if isinstance(table, np.ndarray):
        return table[:, indices]
    if sparse.issparse(table):
        return table.tocsr()[:, indices]
    if isinstance(table, nw.DataFrame):
        return table.select([table.columns[index] for index in indices])
    return table.iloc[:, indices]


def as_numbers(table, *, allow_nan=False, dtype=np.float32):
    """A C-contiguous float array, after scikit-learn's checks."""
    if isinstance(table, DiskTable):
        table = table.in_memory()
    if isinstance(table, nw.DataFrame):
        table = table.to_native()
    if type(table) is np.ndarray and table.dtype.kind in "biuf" and table.size:
        return _finite(table, allow_nan, dtype)
    _refuse_dates(table)
    try:
        return _checked_numbers(table, allow_nan, dtype)
    except (OverflowError, TypeError, ValueError) as error:
        if not hasattr(table, "columns"):
            raise
        table = _without_objects(table, error)
    try:
        return _checked_numbers(table, allow_nan, dtype)
    except ValueError as error:
        missing, infinite = _non_finite_columns(table)
        if not (missing or infinite):
            raise
        remedy = "impute them first (SimpleImputer, or `imputer` of a network)"
        if infinite:  # which imputers refuse
            remedy = (
                "make these values missing first, which SimpleImputer, or `imputer` of a network, "
                "imputes"
            )
        raise ValueError(
            f"{error} Found in columns {infinite or missing}; {remedy}, or drop these rows or "
            "columns."
        ) from error


def _refuse_dates(table):
    """Refuse columns that were numbers in `fit`: NumPy would count nanoseconds."""
    if not hasattr(table, "columns"):
        return
    opened = as_table(table)
    for index in np.flatnonzero(~plain_numbers(opened)):
        column = column_at(opened, index)
        dtype = _dtype(column)
        if dtype.is_temporal() or isinstance(dtype, nw.Unknown):  # such as periods
            refuse_non_numeric(column, opened.columns[index])


def _finite(array, allow_nan, dtype):
    with np.errstate(over="ignore"):  # an infinite value is reported
        array = np.ascontiguousarray(array, dtype=dtype)
    assert_all_finite(array, input_name="X", allow_nan=allow_nan)
    return array


def _checked_numbers(table, allow_nan, dtype):
    if _is_pandas(table) and table.size and plain_numbers(table).all():
        with np.errstate(over="ignore"):
            return _finite(table.to_numpy(dtype=dtype), allow_nan, dtype)
    return dense(
        check_array(
            table,
            dtype=dtype,
            order="C",
            allow_nd=True,
            accept_sparse=True,
            ensure_all_finite="allow-nan" if allow_nan else True,
            input_name="X",
        )
    )


_WORDS = (nw.String, nw.Categorical, nw.Enum)


def _without_objects(table, error):
    """The table with columns of objects or words as float64; `error` is the original error."""
    import pandas as pd

    table = as_table(table)
    columns = {}
    for index, name in enumerate(table.columns):
        column = column_at(table, index)
        if not (_is_object(column) or isinstance(_dtype(column), _WORDS)):
            columns[index] = column.to_numpy() if isinstance(column, nw.Series) else column.array
            continue
        values = pd.Series(list(column), dtype=object)
        columns[index] = numbers = values.map(_as_float)
        words = values[values.notna() & numbers.isna()]
        if len(words):
            others = f" ({len(words)} rows hold no number)" if len(words) > 1 else ""
            remedy = "Convert"
            if len(words) == values.notna().sum():
                remedy = (
                    "If it holds categories, name it in `categorical_features` before the fit. If "
                    "not, convert"
                )
            raise ValueError(
                f"Column {name!r} is read as numbers, but holds {words.iloc[0]!r} in row "
                f"{words.index[0]}{others}. {remedy} it first: pd.to_numeric(X[{name!r}], "
                "errors='coerce') makes such values missing, which SimpleImputer, or `imputer` of "
                "a network, imputes."
            ) from error
    return pd.DataFrame(columns).set_axis(list(table.columns), axis=1)


def _as_float(value):
    try:
        return float(value)
    except OverflowError:
        return np.inf
    except (TypeError, ValueError):
        return np.nan


def _non_finite_columns(table):
    """Names of the columns that hold NaN, and of those with values infinite in float32."""
    frame = nw.from_native(table, eager_only=True)
    missing, infinite = [], []
    for column in frame.iter_columns():
        if not (column.dtype.is_numeric() or column.dtype == nw.Boolean):
            return [], []  # not numeric, which `error` reports
        with np.errstate(over="ignore"):
            values = column.drop_nulls().cast(nw.Float32).to_numpy()
        if np.isinf(values).any():
            infinite.append(column.name)
        if column.is_null().any() or np.isnan(values).any():
            missing.append(column.name)
    return missing, infinite


def _dtype(column):
    """The dtype of a column in narwhals."""
    return nw.from_native(column, series_only=True).dtype


def array_columns(table, categorical, categorical_features):
    """Boolean mask of the columns whose cells hold arrays or lists.

    `categorical` is the mask of categorical columns. Columns that the user has named in
    `categorical_features` are categorical, whatever they hold.
    """
    mask = np.zeros(table.shape[1], dtype=bool)
    if isinstance(table, np.ndarray) or not hasattr(table, "columns"):
        return mask
    named = not is_default_categorical(categorical_features)
    for index in np.flatnonzero(~plain_numbers(table)):
        column = column_at(table, index)
        if isinstance(_dtype(column), (nw.List, nw.Array)):
            mask[index] = True
        elif _is_object(column) and not (named and categorical[index]):
            mask[index] = isinstance(_first_value(column), np.ndarray | list)
    return mask


def _first_value(column):
    """The first value of an object column that is not missing, or None."""
    import pandas as pd

    for value in column.to_list() if isinstance(column, nw.Series) else column.to_numpy():
        if isinstance(value, np.ndarray | list) or not pd.isna(value):
            return value
    return None


def stack_cells(column, name, shape=None):
    """Stack the arrays in the cells of a column, which must all have the same `shape`."""
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
        raise ValueError(f"Column {name!r} holds ragged lists: {error}") from error
    shapes = sorted({cell.shape for cell in cells} | (set() if shape is None else {shape}))
    if len(shapes) > 1:
        raise ValueError(
            f"Column {name!r} holds arrays of several shapes: {', '.join(map(str, shapes[:3]))}"
            f"{', ...' if len(shapes) > 3 else ''}. Networks take one; for sequences of unequal "
            "length put skstack.preprocessing.PadSequences() before the network."
        )
    stacked = np.stack(cells) if cells else np.empty((0, *(shape or ())))
    if stacked.dtype.kind not in "biuf":
        raise TypeError(f"Column {name!r} holds arrays of {stacked.dtype}; expected numbers.")
    if stacked.ndim == 1:
        raise ValueError(f"Column {name!r} holds 0-dimensional arrays; expected plain numbers.")
    return stacked


def hash_buckets(levels, n_buckets):
    """Buckets of categories, in [0, n_buckets): those of ``keras.layers.Hashing`` minus one.

    Numbers are hashed by value: 1, 1.0 and True share a bucket.
    """
    import tensorflow as tf

    # 64-bit FarmHash of UTF-8: the same on every machine.
    words = [level if isinstance(level, str) else _as_word(level) for level in levels]
    hashed = tf.strings.to_hash_bucket_fast(tf.constant(words, dtype=tf.string), n_buckets)
    return hashed.numpy()


def _as_word(level):
    number = isinstance(level, (bool, int, float, np.number, np.bool_))
    return str(int(level)) if number and float(level).is_integer() else str(level)


def refuse_non_numeric(column, name):
    """Raise for dates, durations, periods and nested values."""
    dtype = _dtype(column)
    unknown = isinstance(dtype, nw.Unknown) and getattr(column.dtype, "kind", "O") == "O"
    if dtype.is_temporal() or unknown or isinstance(dtype, _NOT_NUMBERS):
        raise ValueError(
            f"Column {name!r} has dtype {column.dtype}, which is neither numeric nor categorical. "
            "Convert it to numbers first (days since a date, month, hour, ...), name it in "
            "`categorical_features`, or drop it."
        )


def warn_of_categories(column, name, codes, levels, *, from_dtype, hashed):
    """Warn about a categorical column with nearly as many categories as rows, or with numbers.

    `codes` and `levels` are from `factorise`. `from_dtype` is whether only the dtype makes the
    column categorical: a column that the user has named, or of dtype ``category``, holds codes.
    """
    occurring, counts = np.unique(codes[codes >= 0], return_counts=True)
    n_rows, n_levels = int(counts.sum()), len(occurring)
    nearly_unique = n_rows >= LEAST_ROWS and 2 * n_levels >= n_rows
    from_dtype = from_dtype and not isinstance(_dtype(column), (nw.Categorical, nw.Enum))
    if from_dtype and n_levels >= LEAST_NUMBERS:
        levels = [levels[code] for code in occurring]
        numbers = np.array([_as_float(level) for level in levels])
        is_word = np.isnan(numbers)
        n_words, numbers = counts[is_word].sum(), numbers[np.isfinite(numbers)]
        numeric = len(numbers) >= LEAST_NUMBERS and n_words <= FEW_WORDS * n_rows
        if numeric and (n_words or nearly_unique or (numbers != np.round(numbers)).any()):
            words = [repr(level) for level, word in zip(levels, is_word, strict=True) if word]
            others = f" and {', '.join(words[:3])}" if words else ""
            kind = "objects" if any(map(_is_number, levels)) else "strings"
            warn_once(
                ("categories", _name_in_fit(name)),
                f"Column {name!r} holds {len(numbers)} different numbers{others} as {kind}, which "
                "are read as categories. If they are numbers, convert them before the fit: "
                f"pd.to_numeric(X[{name!r}], errors='coerce') makes other values missing, which "
                "`imputer=SimpleImputer()` imputes. If they are codes, give the column the dtype "
                "'category', or name it in `categorical_features`.",
            )
            return
    if nearly_unique and not hashed:
        warn_once(
            ("categories", _name_in_fit(name)),
            f"Column {name!r} has {n_levels} categories in {n_rows} rows, about one for each row "
            "(free text, or an identifier?). Nothing can be learned from categories that do not "
            "recur: drop the column, or turn it into numbers or into fewer categories first.",
        )


def _name_in_fit(name):
    """The name of a column in the outermost fit, without the prefixes of steps and branches."""
    known, rest = object_column_kinds(), name
    while isinstance(rest, str) and rest:
        if rest in known:
            return rest
        rest = rest.partition("__")[2]
    return name


def factorise(column, name):
    """Codes, -1 where a value is missing, and the values by code."""
    import pandas as pd

    if isinstance(column, nw.Series):
        numeric = column.dtype.is_numeric()
        values = column.to_numpy() if numeric else column.to_list()
        # Objects are factorised as they are; a string dtype would be inferred first.
        column = pd.Series(values, dtype=None if numeric else object)
    if column.dtype.name == "category":
        return column.cat.codes.to_numpy(), column.cat.categories.tolist()
    try:
        codes, levels = pd.factorize(column)
    except TypeError as error:
        raise TypeError(
            f"Column {name!r} is categorical, but holds values that cannot be hashed: {error}."
        ) from error
    return codes, levels.tolist()


def sort_categories(values):
    """Sort by value, or by type and value where types cannot be compared."""
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    try:
        return sorted(values)
    except TypeError:
        pass
    try:
        return sorted(values, key=lambda value: (type(value).__name__, value))
    except TypeError:
        return sorted(values, key=lambda value: (type(value).__name__, repr(value)))
