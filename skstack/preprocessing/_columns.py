"""Columns of tables of any kind, read alike: pandas, polars, arrays, lists, sparse matrices."""

from decimal import Decimal
from numbers import Real

import narwhals.stable.v2 as nw
import numpy as np
from scipy import sparse
from sklearn.utils import assert_all_finite, check_array

from skstack._base.atomic_fit import kinds_of_fit, warn_once

_CATEGORICAL_DTYPES = (nw.Categorical, nw.Enum, nw.String, nw.Object, nw.Boolean)
_NOT_NUMBERS = (nw.Binary, nw.List, nw.Array, nw.Struct)
_ACCEPTED = '"from_dtype", None, a list of column names or positions, or a boolean mask'
# What pandas calls objects that are all numbers; where it finds several types they are looked at.
_OF_NUMBERS = {"integer", "floating", "mixed-integer-float", "decimal"}
_OF_SEVERAL = {"mixed", "mixed-integer"}
# From so many rows on a column with a category for every other row is no category, and from so many
# different numbers on a column that holds words besides is one of numbers.
LEAST_ROWS, LEAST_NUMBERS = 50, 20
FEW_WORDS = 0.05


def categorical_mask(said, table, names):
    """Which columns `categorical_features` means; `names` is None for arrays."""
    width = table.shape[1]
    mask = np.zeros(width, dtype=bool)
    if said is None:
        return mask
    if says_from_dtype(said):
        if names is not None:
            kinds = kinds_of_fit()
            columns = [column_at(table, place) for place in range(width)]
            mask[:] = [
                _is_category(column, kinds.get(name))
                for column, name in zip(columns, names, strict=True)
            ]
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


def settle_kinds(X):
    """Let all rows of the outermost fit say which columns of objects hold words."""
    table = X if hasattr(X, "columns") else None
    if table is None:
        return

    def look():
        opened = open_table(table)
        columns = {name: column_at(opened, place) for place, name in enumerate(opened.columns)}
        return {
            name: _content(column) if _is_objects(column) else None
            for name, column in columns.items()
        }

    kinds_of_fit(look)


def holds_numbers(column):
    """Whether a column is one of numbers: by dtype, and a column of objects by what it holds."""
    return _content(column) == "numbers" if _is_objects(column) else _dtype(column).is_numeric()


def _is_category(column, settled):
    """Whether a column is categorical; ``settled`` is what all rows of a fit say of its content."""
    if not _is_objects(column):
        return isinstance(_dtype(column), _CATEGORICAL_DTYPES)
    found = _content(column)
    if found == "nothing":
        return settled != "numbers"
    return found == "words" or settled == "words"


def _is_objects(column):
    # narwhals calls a column of objects by what the first hundred are.
    if isinstance(column, nw.Series):
        return isinstance(column.dtype, nw.Object)
    return getattr(column, "dtype", None) == np.dtype(object)


def _as_objects(column):
    import pandas as pd

    return pd.Series(column.to_list(), dtype=object) if isinstance(column, nw.Series) else column


def _content(column):
    """What a column of objects holds: "numbers", "words" (all that is none) or "nothing"."""
    import pandas as pd

    column = _as_objects(column)
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind in _OF_SEVERAL:
        return "numbers" if all(map(_is_number, column[column.notna()])) else "words"
    if kind == "empty":
        return "nothing"
    return "numbers" if kind in _OF_NUMBERS else "words"


def _is_number(value):
    return isinstance(value, (Real, Decimal)) and not isinstance(value, (bool, np.bool_))


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


def as_numbers(table, *, allow_nan=False, dtype=np.float32):
    """Give a float array, C-contiguous, after scikit-learn's own checks."""
    if isinstance(table, nw.DataFrame):
        table = table.to_native()
    if type(table) is np.ndarray and table.dtype == dtype and table.size:
        assert_all_finite(table, input_name="X", allow_nan=allow_nan)
        return np.ascontiguousarray(table)
    try:
        return _checked_numbers(table, allow_nan, dtype)
    except (OverflowError, TypeError, ValueError) as error:
        if not hasattr(table, "columns"):
            raise
        table = _without_objects(table, error)
    try:
        return _checked_numbers(table, allow_nan, dtype)
    except ValueError as error:
        spoilt = _spoilt_columns(table)
        if not spoilt:
            raise
        raise ValueError(
            f"{error} It stands in the columns {spoilt}; fill it in first (SimpleImputer, "
            "or `imputer` of a network), or drop these rows or columns."
        ) from error


def _checked_numbers(table, allow_nan, dtype):
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


def _without_objects(table, error):
    """The same frame, its objects and words as float64.

    Raises
    ------
    ValueError
        If a column holds what is no number; ``error`` is what it led to.
    """
    import pandas as pd

    table = open_table(table)
    columns = {}
    for place, name in enumerate(table.columns):
        column = column_at(table, place)
        if not (_is_objects(column) or isinstance(_dtype(column), nw.String)):
            columns[place] = column.to_numpy() if isinstance(column, nw.Series) else column.array
            continue
        values = pd.Series(list(column), dtype=object)
        columns[place] = numbers = values.map(_as_float)
        words = values[values.notna() & numbers.isna()]
        if len(words):
            others = f" ({len(words)} rows hold no number)" if len(words) > 1 else ""
            raise ValueError(
                f"Column {name!r} is read as numbers, but holds {words.iloc[0]!r} in row "
                f"{words.index[0]}{others}. Turn it into numbers first: "
                f"pd.to_numeric(X[{name!r}], errors='coerce') makes such values missing, which "
                "SimpleImputer, or `imputer` of a network, fills in."
            ) from error
    return pd.DataFrame(columns).set_axis(list(table.columns), axis=1)


def _as_float(value):
    try:
        return float(value)
    except OverflowError:
        return np.inf
    except (TypeError, ValueError):
        return np.nan


def _spoilt_columns(table):
    """Names of a frame's columns that hold NaN, infinity or what float32 has no room for."""
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
        elif _is_objects(column):
            usual = said is None or says_from_dtype(said)
            named = categorical[place] and not usual
            found[place] = not named and isinstance(_first_value(column), np.ndarray | list)
    return found


def _first_value(column):
    """The first value of a column of objects that is there; None where there is none."""
    import pandas as pd

    for value in column.to_list() if isinstance(column, nw.Series) else column.to_numpy():
        if isinstance(value, np.ndarray | list) or not pd.isna(value):
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


def warn_of_categories(column, name, codes, levels, *, usual, hashed):
    """Warn of a column that has a category for nearly every row, or holds numbers as words.

    Parameters
    ----------
    column : Series

    name : str

    codes, levels : as `factorise` gives them

    usual : bool
        Whether its dtype alone says that it is categorical; who names a column, or makes it a
        ``category``, has said that its numbers are codes.

    hashed : bool
        Whether many categories are what the user expects.
    """
    found, counts = np.unique(codes[codes >= 0], return_counts=True)
    n_rows, n_levels = int(counts.sum()), len(found)
    each_row_its_own = n_rows >= LEAST_ROWS and 2 * n_levels >= n_rows
    usual = usual and not isinstance(_dtype(column), (nw.Categorical, nw.Enum))
    if usual and n_levels >= LEAST_NUMBERS:
        levels = [levels[code] for code in found]
        numbers = np.array([_as_float(level) for level in levels])
        words = np.isnan(numbers)
        n_words, numbers = counts[words].sum(), numbers[np.isfinite(numbers)]
        parse = len(numbers) >= LEAST_NUMBERS and n_words <= FEW_WORDS * n_rows
        if parse and (n_words or each_row_its_own or (numbers != np.round(numbers)).any()):
            others = [repr(level) for level, word in zip(levels, words, strict=True) if word]
            beside = f" beside {', '.join(others[:3])}" if others else ""
            kind = "objects" if any(map(_is_number, levels)) else "words"
            warn_once(
                ("categories", _name_in_fit(name)),
                f"Column {name!r} holds {len(numbers)} different numbers{beside} as {kind}, which "
                "are read as categories. If they are numbers, turn them into such before the fit: "
                f"pd.to_numeric(X[{name!r}], errors='coerce') makes what is none missing, which "
                "`imputer=SimpleImputer()` fills in. If they are codes, say so: give the column "
                "the dtype 'category', or name it in `categorical_features`.",
            )
            return
    if each_row_its_own and not hashed:
        warn_once(
            ("categories", _name_in_fit(name)),
            f"Column {name!r} has {n_levels} categories in {n_rows} rows, about one for each row "
            "(free text, or an identifier?). Nothing can be learned from categories that do not "
            "come again: drop the column, or turn it into numbers or into fewer categories first.",
        )


def _name_in_fit(name):
    """What the outermost fit calls a column that steps and branches have put prefixes before."""
    known, rest = kinds_of_fit(), name
    while isinstance(rest, str) and rest:
        if rest in known:
            return rest
        rest = rest.partition("__")[2]
    return name


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
