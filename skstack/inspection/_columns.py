"""The columns of X, as the checks of data read them."""

from __future__ import annotations

import numpy as np

from skstack._base.tables import is_dataframe, n_rows
from skstack.preprocessing._columns import holds_numbers

_MOST_DENSE = 2_000_000  # values of a sparse X that are made dense


def as_frame(X):
    """X as a pandas DataFrame; None for texts, tensors and large sparse matrices."""
    import pandas as pd

    if is_dataframe(X):
        return X.to_pandas() if hasattr(X, "to_pandas") else X
    if hasattr(X, "toarray"):
        if X.shape[0] * X.shape[1] > _MOST_DENSE:
            return None
        X = X.toarray()
    X = np.asarray(X)
    return pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])]) if X.ndim == 2 else None


def hashable(column):
    """A column; if some of its cells are lists or the like, as texts."""
    if column.dtype != object:
        return column
    try:
        column.map(hash)
    except TypeError:
        return column.map(repr)
    return column


def texts_of(X):
    """X as a list of texts if it holds one text per row, else None."""
    if is_dataframe(X) or hasattr(X, "toarray"):
        return None
    if getattr(X, "ndim", 1) != 1 or not len(X):
        return None
    values = list(X)
    return values if all(isinstance(value, str) for value in values) else None


def numeric_columns(X):
    """Names and values, as floats with NaN for gaps, of the numeric columns of X."""
    frame = as_frame(X)
    if frame is None:
        return [], np.empty((n_rows(X), 0))
    numeric = [holds_numbers(frame.iloc[:, column]) for column in range(frame.shape[1])]
    values = frame.loc[:, numeric].to_numpy(dtype=np.float64, na_value=np.nan)
    return list(frame.columns[numeric]), values


def complete_columns(X):
    """Values of the numeric columns without gaps."""
    _, values = numeric_columns(X)
    return values[:, np.isfinite(values).all(axis=0)]


def distinct_share(values):
    """Share of distinct values in each column, gaps excluded."""
    shares = []
    for column in values.T:
        known = column[np.isfinite(column)]
        # Values that differ by rounding errors are one value: cosines of a whole turn.
        spread = known.std() if len(known) else 0
        levels = np.unique(np.round(known / spread, 10) if spread else known)
        shares.append(len(levels) / max(len(known), 1))
    return np.array(shares)


def is_continuous(values, least=0.9):
    """Which columns have hardly any value twice."""
    return distinct_share(values) > least
