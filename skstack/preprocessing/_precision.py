"""Columns that lie so far from 0 that float32 tells their values from each other no longer."""

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

# Steps of float32 in one standard deviation: below the first, digits are kept in float64 until they
# are scaled; below the second, a column is hardly told from a constant.
STEPS_KEPT, STEPS_TOLD = 1000.0, 20.0


def lost_in_float32(values, steps=STEPS_KEPT):
    """Which columns vary by few steps of float32.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_columns)

    steps : float, default=1000
        Steps in one standard deviation that are few.

    Returns
    -------
    ndarray of bool of shape (n_columns,)
        All False for values of a dtype that float32 holds.
    """
    lost = np.zeros(values.shape[1], dtype=bool)
    if np.can_cast(values.dtype, np.float32) or not len(values):
        return lost
    for place, column in enumerate(values.T):
        known = column[np.isfinite(column)].astype(np.float64)
        if known.size:
            largest = np.float32(min(np.abs(known).max(), np.finfo(np.float32).max))
            spread = known.std() if known.min() < known.max() else 0.0
            lost[place] = 0 < spread < steps * np.spacing(largest)
    return lost


def has_float64(table):
    """Whether numbers of a table are float64."""
    dtypes = table.dtypes if hasattr(table, "iloc") else [np.asarray(table).dtype]
    return "float64" in map(str, dtypes)


def in_float32(table):
    """A table whose numbers are float32; others stay as they are."""
    if not hasattr(table, "iloc"):
        return np.asarray(table, dtype=np.float32)
    wide = [name for name, dtype in enumerate(table.dtypes) if dtype == np.float64]
    table = table.copy() if wide else table
    for place in wide:
        table.isetitem(place, table.iloc[:, place].to_numpy(np.float32))
    return table


def warn_of_lost(values, names, what):
    """Warn by name of columns that are hardly more than constants in float32.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_columns)

    names : sequence
        Of the columns.

    what : str
        What becomes of them, and what helps.
    """
    for place in np.flatnonzero(lost_in_float32(values, STEPS_TOLD)):
        column = values[:, place].astype(np.float64)
        column = column[np.isfinite(column)]
        warn_once(
            ("float32", names[place]),
            f"Column {names[place]!r} has the mean {column.mean():.10g} and the standard deviation "
            f"{column.std():.3g}: float32 has steps of {_step(column.mean()):.3g} "
            f"there, so that its values fall together. {what}",
        )


def warn_of_given(X, places):
    """Warn of numeric columns of X that a network, which reads float32, cannot tell apart.

    Parameters
    ----------
    X : table, as it was given

    places : sequence of int
        Of columns that are read as numbers.
    """
    if not hasattr(X, "columns"):
        if not isinstance(X, np.ndarray) or X.ndim != 2 or X.dtype.kind not in "iuf":
            return
        values, names = X[:, places], [f"x{place}" for place in places]
    else:
        table = open_table(X)
        places = [place for place in places if holds_numbers(column_at(table, place))]
        if not len(places):
            return
        values = as_numbers(take_columns(table, places), allow_nan=True, dtype=np.float64)
        names = [table.columns[place] for place in places]
    warn_of_lost(
        values,
        names,
        "Networks compute in float32: subtract an offset first, such as by a StandardScaler before "
        "the network, in a Pipeline.",
    )


def _step(value):
    """Distance from a number to the next one in float32."""
    return abs(np.spacing(np.float32(value)))
