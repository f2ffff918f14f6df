"""Whether two models differ by more than the noise of folds that share training rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

LEVEL = 0.05  # of the tests; the intervals cover one minus it


class Difference(NamedTuple):
    """What folds say of a difference; interval and p are NaN where they can say nothing.

    Parameters
    ----------
    mean : float

    low, high : float
        Ends of the 95 % interval.

    p : float
        Two-sided, in [0, 1].
    """

    mean: float
    low: float
    high: float
    p: float


def corrected_resampled_t_test(differences, n_train, n_test):
    """Test a mean difference over folds whose training rows overlap.

    Parameters
    ----------
    differences : ndarray of float of shape (n_folds,)
        One model's score less another's, on the same test rows; at least two folds.

    n_train, n_test : array-like of int of shape (n_folds,)
        Rows of each fold. Where folds differ, the mean of their ratios counts.

    Returns
    -------
    Difference
        With n_folds - 1 degrees of freedom. Differences that are all zero have p = 1; those that
        are all the same have no variance that a test could go by, and NaN.

    Notes
    -----
    The variance of the mean is (1/k + n_test/n_train) times the sample variance, in place of 1/k
    times, as the folds' scores are correlated (Nadeau & Bengio, Machine Learning 52, 2003,
    section 3 and the corrected resampled t-test of section 4.2). The same factor serves repeated
    cross-validation (Bouckaert & Frank, PAKDD 2004).
    """
    differences = np.asarray(differences, dtype=np.float64)
    k, mean = len(differences), float(np.mean(differences))
    if not differences.any():
        return Difference(0.0, 0.0, 0.0, 1.0)
    if np.ptp(differences) <= 1e-12 * np.abs(differences).max():
        return Difference(mean, np.nan, np.nan, np.nan)
    ratio = np.mean(np.asarray(n_test) / np.asarray(n_train))
    error = np.sqrt((1 / k + ratio) * np.var(differences, ddof=1))
    half = student.ppf(1 - LEVEL / 2, k - 1) * error
    p = 2 * student.sf(abs(mean) / error, k - 1)
    return Difference(mean, float(mean - half), float(mean + half), float(p))


def holm(p):
    """Adjust p-values for their number, so that the chance of any false finding stays bounded.

    Parameters
    ----------
    p : array-like of float of shape (n_comparisons,)
        NaN counts as a comparison, and stays NaN.

    Returns
    -------
    ndarray of float of shape (n_comparisons,)
        In [0, 1] (Holm, Scandinavian Journal of Statistics 6, 1979).
    """
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p)  # NaN stands last
    stepped = np.nan_to_num(p[order], nan=1.0) * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return np.where(np.isnan(p), np.nan, adjusted)
