"""Columns so far from 0 that float32 cannot distinguish their values."""

from __future__ import annotations

import numpy as np

from skstack._base.atomic_fit import warn_once
from skstack.preprocessing._columns import (
    as_numbers,
    column_at,
    holds_numbers,
    open_table,
    take_columns,
)

# Steps of float32 in one standard deviation: below the first, columns are kept in float64 until
# they are scaled; below the second, a column is nearly constant.
KEPT_STEPS, WARNED_STEPS = 1000.0, 20.0


def lost_in_float32(values, steps=KEPT_STEPS):
    """Boolean mask of the columns of a 2-D array whose standard deviation is few float32 steps."""
    lost = np.zeros(values.shape[1], dtype=bool)
    if np.can_cast(values.dtype, np.float32) or not len(values):
        return lost
    for index, column in enumerate(values.T):
        known = column[np.isfinite(column)].astype(np.float64)
        if known.size:
            largest = np.float32(min(np.abs(known).max(), np.finfo(np.float32).max))
            spread = known.std() if known.min() < known.max() else 0.0
            lost[index] = 0 < spread < steps * np.spacing(largest)
    return lost


def has_float64(table):
    """Whether numbers of a table are float64."""
    dtypes = table.dtypes if hasattr(table, "iloc") else [np.asarray(table).dtype]
    return "float64" in map(str, dtypes)


def in_float32(table):
    """A table with float64 columns cast to float32."""
    if not hasattr(table, "iloc"):
        return np.asarray(table, dtype=np.float32)
    wide = [index for index, dtype in enumerate(table.dtypes) if dtype == np.float64]
    table = table.copy() if wide else table
    for index in wide:
        table.isetitem(index, table.iloc[:, index].to_numpy(np.float32))
    return table


def warn_of_lost_precision(values, names, remedy):
    """Warn about columns of a 2-D array that are nearly constant in float32."""
    for index in np.flatnonzero(lost_in_float32(values, WARNED_STEPS)):
        column = values[:, index].astype(np.float64)
        column = column[np.isfinite(column)]
        step = abs(np.spacing(np.float32(column.mean())))
        warn_once(
            ("float32", names[index]),
            f"Column {names[index]!r} has the mean {column.mean():.10g} and the standard deviation "
            f"{column.std():.3g}: float32 has steps of {step:.3g} there, too coarse to distinguish "
            f"its values. {remedy}",
        )


def warn_if_too_fine_for_float32(X, indices):
    """Warn about numeric columns of X, as passed by the user, that float32 cannot represent."""
    if not hasattr(X, "columns"):
        if not isinstance(X, np.ndarray) or X.ndim != 2 or X.dtype.kind not in "iuf":
            return
        values, names = X[:, indices], [f"x{index}" for index in indices]
    else:
        table = open_table(X)
        indices = [index for index in indices if holds_numbers(column_at(table, index))]
        if not len(indices):
            return
        values = as_numbers(take_columns(table, indices), allow_nan=True, dtype=np.float64)
        names = [table.columns[index] for index in indices]
    warn_of_lost_precision(
        values,
        names,
        "Networks compute in float32: subtract an offset first, such as by a StandardScaler before "
        "the network, in a Pipeline.",
    )
