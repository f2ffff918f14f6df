"""Weighted means and standard deviations of training rows."""

from __future__ import annotations

import numpy as np

_ROWS_AT_ONCE = 65_536


def weighted_moments(array, weights=None):
    """Mean and population standard deviation of every column, in float64.

    Two passes keep precision with large offsets; chunks of rows limit memory. A row of weight w
    counts as w rows.

    Parameters
    ----------
    array : array-like of shape (n_rows, ..., d), finite numbers
        Axes between the first and the last (time steps) count as further rows.
    weights : array-like of shape (n_rows,) or None, non-negative
        None counts every row once.

    Returns
    -------
    mean : ndarray of shape (d,), float64
        In units of the columns.
    scale : ndarray of shape (d,), float64, positive
        Standard deviation in units of the columns; 1 where a column is constant up to the rounding
        error of its mean.

    Raises
    ------
    ValueError
        No row has a positive weight, or `weights` has another length than `array`.

    Notes
    -----
    T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for computing the sample variance: analysis
    and recommendations", The American Statistician 37(3), 1983: the two-pass algorithm, and the
    bound under which a column counts as constant, as in scikit-learn's ``StandardScaler``.

    Examples
    --------
    >>> from skstack.preprocessing._moments import weighted_moments
    >>> mean, scale = weighted_moments([[0.0, 5.0], [4.0, 5.0]], weights=[3, 1])
    >>> mean.tolist(), scale.round(4).tolist()
    ([1.0, 5.0], [1.7321, 1.0])
    """
    array = np.asarray(array)
    n_rows, width = array.shape[0], array.shape[-1]
    weights = np.ones(n_rows) if weights is None else np.asarray(weights, dtype=np.float64)
    if weights.shape != (n_rows,):
        raise ValueError(f"weights has shape {weights.shape}; expected ({n_rows},), one per row.")
    if n_rows and weights.min() < 0:
        raise ValueError("weights holds a negative number; expected weights of zero or more.")
    repeats = int(np.prod(array.shape[1:-1]))
    used = np.flatnonzero(weights)
    total = weights.sum() * repeats
    if not total > 0:
        raise ValueError("No row has a positive weight; moments are undefined.")

    def weighted_sums(function):
        sums = 0.0
        for start in range(0, used.size, _ROWS_AT_ONCE):
            chunk = used[start : start + _ROWS_AT_ONCE]
            if used.size == n_rows:  # a slice makes no copy
                chunk = slice(start, start + _ROWS_AT_ONCE)
            rows = array[chunk].reshape(-1, width).astype(np.float64)
            sums = sums + np.repeat(weights[chunk], repeats) @ function(rows)
        return sums / total

    mean = weighted_sums(lambda rows: rows)
    variance = weighted_sums(lambda rows: np.square(np.subtract(rows, mean, out=rows), out=rows))
    eps, count = np.finfo(np.float64).eps, used.size * repeats
    constant = variance <= count * eps * variance + (count * mean * eps) ** 2
    if (np.square(mean) > 1e12 * variance).any():  # far from 0 the first sum has lost digits
        mean = mean + weighted_sums(lambda rows: np.subtract(rows, mean, out=rows))
    return mean, np.where(constant, 1.0, np.sqrt(variance))


def moments_of_steps(array, mask_value, weights=None):
    """Mean and standard deviation of the channels of sequences, without padding.

    `array` has the shape (n_rows, n_steps, n_channels). A step whose channels all equal
    `mask_value` is padding; None: no padding. The result is as in `weighted_moments`; 0 and 1 if
    all steps are padding.
    """
    if mask_value is None:
        return weighted_moments(array, weights)
    real = (array != np.float32(mask_value)).any(axis=-1)
    if not real.any():
        return np.zeros(array.shape[-1]), np.ones(array.shape[-1])
    weights = np.ones(len(array)) if weights is None else np.asarray(weights, dtype=np.float64)
    step_weights = (real * weights[:, None]).ravel()
    return weighted_moments(array.reshape(-1, array.shape[-1]), step_weights)
