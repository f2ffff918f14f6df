"""Rows that stand in two tables."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

from skstack._checks import is_dataframe, n_rows

__all__ = ["Overlap", "check_overlap", "row_keys"]

_NUMERIC = {"integer", "floating", "mixed-integer-float", "boolean", "decimal"}
_MISSING = "\0"  # no text that anybody writes


@dataclass(frozen=True, repr=False)
class Overlap:
    """Rows of two tables A and B that stand in both.

    Attributes
    ----------
    exact_a, exact_b : ndarray of int
        Row numbers in A, and in B, of rows that are equal in all columns.

    rounded_a, rounded_b : ndarray of int
        Row numbers of rows that are equal after rounding; the exact ones are among them.

    n_a, n_b : int
        Number of rows.

    digits : int
        To how many significant digits numbers were rounded.
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
            f"rows of A that stand in B: {share(self.exact_a, self.n_a)} exactly, "
            f"{share(self.rounded_a, self.n_a)} to {self.digits} digits\n"
            f"rows of B that stand in A: {share(self.exact_b, self.n_b)} exactly, "
            f"{share(self.rounded_b, self.n_b)} to {self.digits} digits"
        )


def check_overlap(A, B, *, digits=4):
    """Count the rows that stand in both of two tables.

    A frozen network that was trained on A and makes features of B has seen those rows of B that
    stand in A, also when they are test rows: nothing that happens later can mend that. The same
    holds for test rows that stand among training rows.

    Parameters
    ----------
    A, B : array-like, sparse matrix or DataFrame of shape (n_rows, n_columns)
        Columns of two DataFrames are matched by name, others by place. Numbers are compared by
        value, whatever the dtypes are; missing values equal each other.

    digits : int, default=4
        Significant digits, counted from the largest absolute value of a column, that numbers keep
        in the second comparison. It finds rows that were rounded on their way through a file.

    Returns
    -------
    Overlap
        False where no row stands in both, even rounded.

    Raises
    ------
    ValueError
        If A and B have not the same columns.

    Notes
    -----
    Rows are compared by hashes of 64 bits: among a million rows, two unlike ones are taken for
    equal with a probability below 1e-7. Two numbers that differ by less than the rounding may fall
    on two sides of it, so that the second count is a lower bound.

    Examples
    --------
    >>> from skstack.inspection import check_overlap
    >>> overlap = check_overlap([[1.0, 2.0], [3.0, 4.0]], [[3.0, 4.000001], [3.0, 4.0]])
    >>> overlap.exact_a.tolist(), overlap.exact_b.tolist(), overlap.rounded_b.tolist()
    ([1], [1], [0, 1])
    """
    if not isinstance(digits, Integral) or isinstance(digits, bool) or not 1 <= digits <= 15:
        raise ValueError(f"digits={digits!r}; expected an int from 1 to 15.")
    by_name = is_dataframe(A) and is_dataframe(B)
    A, B = _frame(A, "A"), _frame(B, "B")
    if not by_name and A.shape[1] == B.shape[1]:
        B = B.set_axis(A.columns, axis=1)
    if list(A.columns) != list(B.columns):
        only = sorted(set(map(str, A.columns)) ^ set(map(str, B.columns)))
        if only or A.shape[1] != B.shape[1]:
            raise ValueError(
                f"A has {A.shape[1]} columns and B has {B.shape[1]}; not in both are {only[:5]}."
            )
        B = B[list(A.columns)]
    found = []
    for rounded in (None, digits):
        keys = row_keys(A, rounded, B), row_keys(B, rounded, A)
        found += [np.flatnonzero(np.isin(keys[0], keys[1])), np.flatnonzero(np.isin(*keys[::-1]))]
    return Overlap(*found, len(A), len(B), int(digits))


def row_keys(X, digits=None, other=None, dtype=np.float64):
    """A hash of 64 bits for each row.

    Parameters
    ----------
    X : array-like, sparse matrix or DataFrame; or one value a row, such as texts
        Its numbers are compared in ``dtype``, of whatever dtype they come.

    digits : int or None, default=None
        Significant digits to keep, counted from the largest absolute value of a column.

    other : DataFrame, default=None
        Its values count, too, for what is the largest.

    dtype : dtype, default=float64
        With float32, rows are the same before and after a network has read them.

    Returns
    -------
    ndarray of int64 of shape (n_rows,)
    """
    import pandas as pd

    if not hasattr(X, "shape"):
        X = np.asarray(X, dtype=object if isinstance(X[0], str) else None)
    frame = (
        X.to_frame() if isinstance(X, pd.Series) else _frame(X if X.ndim > 1 else X[:, None], "X")
    )
    columns = {}
    for place, name in enumerate(frame.columns):
        column = frame.iloc[:, place]
        values = _numbers(column, dtype)
        if values is None:
            columns[place] = column.astype(object).where(column.notna(), _MISSING).map(_word)
            continue
        if digits is not None:
            values = _rounded(values, digits, None if other is None else other[name])
        columns[place] = values
    hashes = pd.util.hash_pandas_object(pd.DataFrame(columns), index=False).to_numpy()
    return hashes.view(np.int64)  # NumPy 2.0 cannot look for large unsigned numbers


def _numbers(column, dtype=np.float64):
    """Numbers of a column of whatever dtype it came in; None where it holds others, too."""
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        known = _numbers(column.cat.categories.to_series(), dtype)
        return None if known is None else np.append(known, dtype(np.nan))[column.cat.codes]
    numeric = pd.api.types.is_numeric_dtype(column.dtype)
    if not numeric and (column.dtype != object or pd.api.types.infer_dtype(column) not in _NUMERIC):
        return None
    if not numeric:
        column = column.where(column.notna(), np.nan)
    return column.to_numpy(dtype=dtype, na_value=np.nan) + dtype(0)  # -0.0 is 0.0


def _word(value):
    """A text for a value of a column that holds texts, too; numbers by value, as 1 is 1.0."""
    return repr(float(value)) if isinstance(value, Real) else str(value)


def _rounded(values, digits, other):
    others = None if other is None else _numbers(other)
    both = values if others is None else np.concatenate([values, others])
    finite = np.abs(both[np.isfinite(both)])
    largest = finite.max(initial=0.0)
    if largest == 0.0:
        return values
    return np.round(values, int(digits - 1 - np.floor(np.log10(largest)))) + 0.0


def _frame(X, name):
    import pandas as pd

    if is_dataframe(X):
        frame = X.to_pandas() if hasattr(X, "to_pandas") else X
        if not frame.columns.is_unique:
            raise ValueError(f"{name} has several columns of one name.")
        return frame
    X = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
    if X.ndim < 2:
        raise ValueError(f"{name} has shape {X.shape}; expected rows and columns.")
    return pd.DataFrame(X.reshape(n_rows(X), -1))
