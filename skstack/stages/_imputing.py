"""What fills gaps, learned from rows that count more than once, or less."""

from __future__ import annotations

import numpy as np

__all__ = ["fitted_imputer"]

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
