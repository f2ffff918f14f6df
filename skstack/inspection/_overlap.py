"""Find rows that two tables have in common."""

from __future__ import annotations

import contextlib
import math
import re
import warnings
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from numbers import Integral, Real

import numpy as np

from skstack._base.tables import is_dataframe

_MISSING = "\0"  # not a text in any table
_OFFSET = re.compile(r"[T ].*(Z|[+-]\d\d?(:?\d\d)?)$")  # that of a time from UTC
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
# Values with more decimals are not rounded to a number of decimals.
_MOST_DECIMALS = 8
_KINDS = {  # by the names of pandas
    "string": "text",
    **dict.fromkeys(("datetime64", "datetime", "date"), "dates"),
    **dict.fromkeys(("integer", "floating", "mixed-integer-float", "decimal"), "numbers"),
    "boolean": "numbers",
}
_TRUTH = {"true": True, "false": False}
_MANY_DECIMALS = 400  # more than a float has


@dataclass(frozen=True, repr=False)
class Overlap:
    """Rows that two tables A and B have in common.

    Attributes
    ----------
    exact_a, exact_b : ndarray of int
        Indices of rows in A, and in B, that are equal in all columns.

    rounded_a, rounded_b : ndarray of int
        Indices of rows that are equal after rounding, including the exact ones.

    n_a, n_b : int
        Number of rows.

    digits : int
        Number of significant digits to which numbers were rounded, at most.

    Examples
    --------
    >>> from skstack.inspection import check_overlap
    >>> overlap = check_overlap([[1, 2], [3, 4]], [[3, 4]])
    >>> bool(overlap), overlap.exact_a.tolist()
    (True, [1])
    """

    exact_a: np.ndarray
    exact_b: np.ndarray
    rounded_a: np.ndarray
    rounded_b: np.ndarray
    n_a: int
    n_b: int
    digits: int

    def __bool__(self):
        return len(self.rounded_a) > 0

    def __repr__(self):
        def share(rows, n):
            return f"{len(rows)} of {n} ({len(rows) / max(n, 1):.1%})"

        return (
            f"rows of A that are in B: {share(self.exact_a, self.n_a)} exactly, "
            f"{share(self.rounded_a, self.n_a)} to {self.digits} digits\n"
            f"rows of B that are in A: {share(self.exact_b, self.n_b)} exactly, "
            f"{share(self.rounded_b, self.n_b)} to {self.digits} digits"
        )


def check_overlap(A, B, *, digits=4):
    """Find the rows that two tables have in common.

    A frozen network that was trained on A has seen the rows of B that are in A, which biases any
    evaluation on them. The same holds for test rows that are among the training rows.

    Parameters
    ----------
    A, B : array-like, sparse matrix or DataFrame of shape (n_rows, n_columns)
        Columns of two DataFrames are matched by name, also by one that is a number in one table and
        text in the other; others by position. Numbers are compared by value, regardless of dtypes;
        missing values are equal. Text in a column that holds numbers, truth values or dates in the
        other table is read as such, dates in the form of ISO 8601.

    digits : int, default=4
        Significant digits of numbers in the second comparison, which finds rows that were rounded
        in a file or computed in float32. See Notes.

    Returns
    -------
    Overlap
        Its truth value is False if no row is in both, even after rounding.

    Raises
    ------
    ValueError
        If A and B have different columns, or if ``digits`` is not an int from 1 to 15.

    Warns
    -----
    UserWarning
        If a column holds values of different kinds in A and B, such as numbers and text, so that no
        rows are equal.

    Notes
    -----
    Numbers of an integer dtype are compared exactly in both comparisons, so that identifiers are
    not rounded. The digits of other numbers are counted from the number itself; in a column that
    is far from 0, such as times in seconds, from its distance to the median, or from the spread
    of the column (its interquartile range) if that is larger. If all values of a column have few
    decimals in one of the tables, those of the other are rounded to as many, which detects a table
    that was written with ``float_format="%.3f"``.

    In tables with few columns, or with few digits, different rows become equal by chance.

    Rows are compared by 64-bit hashes: among a million rows, two different ones have the same hash
    with a probability below 1e-7. Numbers that differ by less than the rounding may be rounded in
    two directions, so that the second count is a lower bound.

    Examples
    --------
    >>> from skstack.inspection import check_overlap
    >>> overlap = check_overlap([[1.0, 2.0], [3.0, 4.0]], [[3.0, 4.000001], [3.0, 4.0]])
    >>> overlap.exact_a.tolist(), overlap.exact_b.tolist(), overlap.rounded_b.tolist()
    ([1], [1], [0, 1])
    """
    if not isinstance(digits, Integral) or isinstance(digits, bool) or not 1 <= digits <= 15:
        raise ValueError(f"digits={digits!r}; expected an int from 1 to 15.")
    A, B = matched(A, B, "A", "B")
    A, B = _texts_read(A, B), _texts_read(B, A)
    _warn_of_kinds(A, B)
    rows = []
    for rounded in (None, digits):
        keys = row_keys(A, rounded, B), row_keys(B, rounded, A)
        rows += [np.flatnonzero(np.isin(keys[0], keys[1])), np.flatnonzero(np.isin(*keys[::-1]))]
    return Overlap(*rows, len(A), len(B), int(digits))


def matched(A, B, name_a, name_b):
    """Two tables as DataFrames with the same columns in one order, or a ValueError."""
    by_name = is_dataframe(A) and is_dataframe(B)
    A, B = _frame(A, name_a), _frame(B, name_b)
    if not by_name and A.shape[1] == B.shape[1]:
        B = B.set_axis(A.columns, axis=1)
    if list(A.columns) != list(B.columns):
        only = sorted(set(map(str, A.columns)) ^ set(map(str, B.columns)))
        if only or A.shape[1] != B.shape[1]:
            raise ValueError(
                f"{name_a} has {A.shape[1]} columns and {name_b} has {B.shape[1]}; not in both are "
                f"{only[:5]}."
            )
        if set(A.columns) == set(B.columns):
            return A, B[list(A.columns)]
        # Numbers as names, which a file holds as text.
        texts = list(map(str, B.columns))
        order = [texts.index(str(name)) for name in A.columns]
        B = B.iloc[:, order].set_axis(A.columns, axis=1)
    return A, B


def row_keys(X, digits=None, other=None, dtype=np.float64):
    """A hash of 64 bits for each row, as int64.

    Numbers are compared in ``dtype``; in float64 also those that it cannot represent, in float32 as
    networks read them. With ``digits``, numbers are rounded to so many significant digits, which
    are counted with regard to the values of ``other``, too. X may hold one value per row.
    """
    import pandas as pd

    if not hasattr(X, "shape"):
        X = np.asarray(X, dtype=object if isinstance(X[0], str) else None)
    numbers = _numbers(X, dtype) if digits is None else None
    if numbers is not None:
        hashes = _Values(numbers, np.uint64(0)).hashes()
    else:
        frame = (
            X.to_frame()
            if isinstance(X, pd.Series)
            else _frame(X if len(X.shape) > 1 else X[:, None], "X")
        )
        hashes = np.empty(frame.shape, np.uint64)
        for index, name in enumerate(frame.columns):
            column = _Values.of(frame.iloc[:, index], dtype)
            if digits is not None:
                reference = column if other is None else _Values.of(other[name], dtype)
                column = column.rounded(digits, reference)
            hashes[:, index] = column.hashes()
    # Odd factors, one for each column: rows of the same values in another order differ.
    factors = np.random.SeedSequence(0).generate_state(hashes.shape[1], np.uint64) | np.uint64(1)
    keys = np.einsum("ij,j->i", hashes, factors)
    return keys.view(np.int64)  # NumPy 2.0 cannot search large unsigned numbers


def _numbers(X, dtype):
    """The numbers of a table of which all are read as they are, in the given dtype; else None."""
    if isinstance(X, np.ndarray):
        kinds, read = [X.dtype], "bf" if dtype is np.float64 else "bfiu"
    else:
        # Integers beside floats would be rounded twice.
        kinds, read = np.atleast_1d(getattr(X, "dtypes", None)), "bf"
    if not all(isinstance(kind, np.dtype) and kind.kind in read for kind in kinds):
        return None
    X = X.to_numpy(dtype=dtype) if hasattr(X, "to_numpy") else np.asarray(X).astype(dtype)
    return X.reshape(len(X), math.prod(X.shape[1:])) + dtype(0)  # -0.0 is 0.0


@dataclass(frozen=True)
class _Values:
    """The values of one column, independent of its dtype."""

    numbers: np.ndarray  # the nearest float; NaN for text and missing values
    rest: np.ndarray  # uint64: integer minus that float, modulo 2**64
    words: np.ndarray | None = None  # text for other values, None for numbers; None if all are
    whole: bool = False  # whether the dtype of the column is an integer type
    cells: _Cells | None = None  # numbers of cells that hold arrays, of which `words` has the shape

    @classmethod
    def of(cls, column, dtype=np.float64):
        """The values of a pandas Series of any dtype."""
        import pandas as pd

        if isinstance(column.dtype, pd.CategoricalDtype):
            known = cls.of(column.cat.categories.to_series(), dtype)
            if known.cells is not None:
                return cls._of_objects(column.astype(object), dtype)
            words = None if known.words is None else np.append(known.words, _missing(1))
            codes = column.cat.codes.to_numpy()
            numbers = np.append(known.numbers, dtype(np.nan))[codes]
            words = None if words is None else words[codes]
            return cls(numbers, np.append(known.rest, np.uint64(0))[codes], words, known.whole)
        kind = getattr(column.dtype, "kind", "O")
        if kind in "iu" and not column.isna().any():
            values = column.to_numpy(dtype=np.uint64 if kind == "u" else np.int64)
            return cls._of_integers(values, dtype)
        if kind in "bf" or (kind in "iu" and dtype is not np.float64):
            numbers = column.to_numpy(dtype=dtype, na_value=np.nan) + dtype(0)  # -0.0 is 0.0
            return cls(numbers, np.zeros(len(numbers), np.uint64))
        if isinstance(column.dtype, np.dtype | pd.DatetimeTZDtype) and kind == "M":
            numbers = np.full(len(column), np.nan, dtype)
            return cls(numbers, np.zeros(len(column), np.uint64), _instants(column))
        return cls._of_objects(column, dtype)

    @classmethod
    def _of_integers(cls, values, dtype):
        numbers = values.astype(dtype)
        rest = np.zeros(len(values), np.uint64)
        if dtype is np.float64:
            top = 2.0**64 if values.dtype.kind == "u" else 2.0**63
            fits = numbers < top
            floor = np.where(fits, numbers, 0).astype(values.dtype).view(np.uint64)
            floor = np.where(fits, floor, np.uint64(int(top) % 2**64))
            rest = values.view(np.uint64) - floor
        return cls(numbers, rest, whole=True)

    @classmethod
    def _of_objects(cls, column, dtype):
        missing = column.isna().to_numpy()
        numbers = np.full(len(column), np.nan, dtype)
        rest, words = np.zeros(len(column), np.uint64), np.full(len(column), None, object)
        n_whole, n_numbers, arrays = 0, 0, {}
        for row, value in enumerate(column):
            if missing[row]:
                words[row] = _MISSING
            elif (array := numbers_in(value)) is not None:
                words[row], arrays[row] = f"numbers of shape {array.shape}", array
            elif not isinstance(value, Real | Decimal):
                words[row] = _text(value)
            else:
                number, n_numbers = _nearest(value), n_numbers + 1
                numbers[row] = dtype(number)
                if _is_whole(value):
                    n_whole += 1
                    if dtype is np.float64 and np.isfinite(number):
                        rest[row] = (int(value) - int(number)) % 2**64
        whole = 0 < n_whole == n_numbers
        texts = any(word is not None and word != _MISSING for word in words)
        cells = _Cells.of(arrays, dtype) if arrays else None
        return cls(numbers + dtype(0), rest, words if texts else None, whole, cells)

    def hashes(self):
        """Hashes of the values."""
        import pandas as pd

        # NaN has several bit patterns.
        numbers = np.where(np.isnan(self.numbers), np.nan, self.numbers).astype(self.numbers.dtype)
        hashes = pd.util.hash_array(numbers.ravel()).reshape(numbers.shape)
        hashes = hashes + self.rest * _MULTIPLIER
        if self.words is not None:
            are_words = np.array([word is not None for word in self.words])
            texts = np.where(are_words, self.words, "").astype(object)
            of_words = pd.util.hash_array(texts, categorize=True)
            missing = pd.util.hash_array(np.array([np.nan], self.numbers.dtype))[0]
            of_words[self.words == _MISSING] = missing
            hashes = np.where(are_words, of_words, hashes)
        return hashes if self.cells is None else hashes + self.cells.hashes(len(hashes))

    def rounded(self, digits, other):
        """The values rounded to ``digits`` significant digits, with regard to both columns."""
        cells = self.cells
        if cells is not None and other.cells is not None:
            cells = replace(cells, values=cells.values.rounded(digits, other.cells.values))
        known = np.isfinite(self.numbers)
        finite = self.numbers[known], other.numbers[np.isfinite(other.numbers)]
        both = np.concatenate(finite)
        if not both.size or self.whole:
            return replace(self, cells=cells)
        middle = np.median(both)
        spread = _spread([values for values in finite if values.size], abs(middle))
        values = self.numbers[known].astype(np.float64)
        size = np.minimum(np.abs(values), np.maximum(np.abs(values - middle), spread))
        with np.errstate(divide="ignore"):
            decimals = digits - 1 - np.floor(np.log10(size))
        decimals = np.where(np.isfinite(decimals), decimals, 0).astype(int)
        fewest = min(self._decimals(), other._decimals())
        if 10.0**-fewest <= spread / 10:
            decimals = np.minimum(decimals, fewest)
        if other.whole:
            decimals[:] = 0 if fewest == 0 and spread >= 10 else _MANY_DECIMALS
        result = values.copy()
        for number in np.unique(decimals[decimals < _MANY_DECIMALS]):
            rows = decimals == number
            result[rows] = np.round(values[rows], int(number))
        numbers = self.numbers.astype(np.float64)
        numbers[known] = result + 0.0
        return _Values(numbers, self.rest, self.words, self.whole, cells)

    def _decimals(self):
        """The largest number of decimals of the values, or _MANY_DECIMALS."""
        values = self.numbers[np.isfinite(self.numbers)].astype(np.float64)
        for decimals in range(_MOST_DECIMALS + 1):
            if all((np.round(v, decimals) == v).all() for v in (values[:1000], values)):
                return decimals
        return _MANY_DECIMALS


@dataclass(frozen=True)
class _Cells:
    """Numbers of the arrays in the cells of a column: one after another, each with its place."""

    values: _Values
    rows: np.ndarray
    positions: np.ndarray

    @classmethod
    def of(cls, arrays, dtype):
        """The numbers of arrays by row."""
        numbers = np.concatenate([np.ravel(array) for array in arrays.values()])
        if numbers.dtype.kind in "iu":
            values = _Values._of_integers(numbers, dtype)
        else:
            values = _Values(numbers.astype(dtype) + dtype(0), np.zeros(len(numbers), np.uint64))
        sizes = [array.size for array in arrays.values()]
        positions = np.concatenate([np.arange(size, dtype=np.uint64) for size in sizes])
        return cls(values, np.repeat(list(arrays), sizes), positions)

    def hashes(self, n_rows):
        """Hashes of the rows: sums of those of the numbers, each times a factor of its place."""
        import pandas as pd

        factors = pd.util.hash_array(self.positions) | np.uint64(1)
        sums = np.zeros(n_rows, np.uint64)
        np.add.at(sums, self.rows, self.values.hashes() * factors)
        return sums


def numbers_in(value):
    """The numbers of a cell that holds a list, a tuple or an array of them; None for others."""
    if not isinstance(value, list | tuple | np.ndarray):
        return None
    try:
        array = np.asarray(value)
        if array.dtype == object:  # arrays of arrays, or missing numbers
            if any(isinstance(each, str) for each in value):
                return None
            array = np.array(list(value), dtype=float)
    except (TypeError, ValueError):
        return None
    return array if array.dtype.kind in "biuf" else None


def equal_cells(one, other):
    """Whether the cells of two columns are equal; numbers in arrays may differ by rounding."""

    def equal(a, b):
        a_numbers, b_numbers = numbers_in(a), numbers_in(b)
        if a_numbers is None or b_numbers is None:
            return _text(a) == _text(b)
        return a_numbers.shape == b_numbers.shape and np.allclose(
            a_numbers, b_numbers, rtol=1e-5, atol=1e-8, equal_nan=True
        )

    return np.array([equal(a, b) for a, b in zip(one, other, strict=True)], dtype=bool)


def _spread(columns, middle):
    """The largest spread of columns; ``middle`` if they are constant but for rounding."""
    rounding = middle * np.finfo(np.float32).eps
    for spread in (lambda values: np.subtract(*np.percentile(values, [75, 25])), np.std):
        if (largest := max(map(spread, columns))) > rounding:
            return largest
    return middle


def _is_whole(value):
    if isinstance(value, Decimal):
        return value.is_finite() and value == value.to_integral_value()
    return isinstance(value, Integral) and not isinstance(value, bool | np.bool_)


def _nearest(value):
    """The float that is nearest to a number."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _frame(X, name):
    import pandas as pd

    if is_dataframe(X):
        frame = X.to_pandas() if hasattr(X, "to_pandas") else X
        if not frame.columns.is_unique:
            raise ValueError(f"{name} has duplicate column names.")
        return frame
    X = X.toarray() if hasattr(X, "toarray") else X
    values = np.asarray(X)
    if values.dtype.kind in "US" and not hasattr(X, "dtype"):
        values = np.asarray(X, dtype=object)  # numbers beside words stay numbers
    if values.ndim < 2:
        raise ValueError(f"{name} has shape {values.shape}; expected rows and columns.")
    return pd.DataFrame(values.reshape(len(values), math.prod(values.shape[1:])))


def _warn_of_kinds(A, B):
    """Warn of columns whose values cannot be equal, such as dates and the text of a CSV file."""
    kinds = {name: (_kind(A[name]), _kind(B[name])) for name in A.columns}
    apart = [
        f"{name!r} ({one} in A, {other} in B)"
        for name, (one, other) in kinds.items()
        if one != other and None not in (one, other)
    ]
    if apart:
        warnings.warn(
            f"No row of A can be equal to one of B, because of the columns {', '.join(apart[:5])}. "
            "Convert them to one kind, or leave them out.",
            UserWarning,
            stacklevel=3,
        )


def _texts_read(A, B):
    """A with the text of columns that hold numbers or dates in B, such as that of a file, read."""
    import pandas as pd

    read = {}
    for index, name in enumerate(A.columns):
        if (kind := _kind(B[name])) in ("numbers", "dates") and _kind(A[name]) == "text":
            texts = A[name].astype(object)
            known = texts.notna().to_numpy()
            values = texts.to_numpy(dtype=object, copy=True)
            values[known] = (_numbers_of if kind == "numbers" else _dates_of)(values[known])
            read[index] = pd.Series(values, A.index, dtype=object)
    if not read:
        return A
    A = A.copy()
    for index, values in read.items():
        A.isetitem(index, values)
    return A


def _numbers_of(texts):
    """Numbers and truth values in texts; other texts are kept."""
    known = {}
    for text in dict.fromkeys(texts):
        known[text] = _TRUTH.get(text.strip().lower(), text)
        for number in (int, float):
            if known[text] is text and "_" not in text:
                with contextlib.suppress(ValueError):
                    known[text] = number(text)
    return [known[text] for text in texts]


def _dates_of(texts):
    """Dates and times in texts of the form of ISO 8601; other texts are kept."""
    import pandas as pd

    try:
        dates = pd.to_datetime(texts, format="ISO8601", errors="coerce").astype(object)
    except ValueError:  # some have a time zone, or several
        aware = np.array([bool(_OFFSET.search(text)) for text in texts])
        dates = np.full(len(texts), pd.NaT, object)
        for rows, utc in ((aware, True), (~aware, False)):
            read = pd.to_datetime(texts[rows], format="ISO8601", errors="coerce", utc=utc)
            dates[rows] = read.astype(object)
    return [text if pd.isna(date) else date for text, date in zip(texts, dates, strict=True)]


def _kind(column):
    """What the known values of a column are, None if there are none, or of several kinds."""
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.cat.categories.to_series()
    return _KINDS.get(pd.api.types.infer_dtype(column, skipna=True))


def _text(value):
    """A value as text: that of equal instants, and of sequences of equal items, is equal."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_item, value))}]"
    return _instant(value) if isinstance(value, date) else str(value)


def _item(value):
    if isinstance(value, Real) and not isinstance(value, Integral):
        value = int(value) if float(value).is_integer() else float(value)
    return repr(str(value)) if isinstance(value, str) else _text(value)


def _missing(n):
    """Words of missing values."""
    return np.array([_MISSING] * n, dtype=object)  # an array of strings would drop a final "\0"


def _instant(value):
    """A date or time as text, the same for one instant in all time zones."""
    import pandas as pd

    time = pd.Timestamp(value)
    return str(time if time.tz is None else time.tz_convert("UTC"))


def _instants(column):
    """The `_instant` of each value of a column of dates; _MISSING for missing ones."""
    aware = column.dt.tz is not None
    times = column.dt.tz_convert(None).to_numpy() if aware else column.to_numpy()
    texts, left = _missing(len(times)), ~np.isnat(times)
    for unit in ("s", "us", "ns"):  # the first that the time is a multiple of
        rows = left & (times.astype(f"datetime64[{unit}]") == times)
        written = np.datetime_as_string(times[rows], unit=unit).tolist()
        texts[rows] = [text.replace("T", " ") + "+00:00" * aware for text in written]
        left &= ~rows
    return texts
