"""Test whether two models differ, on folds that share training rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

LEVEL = 0.05  # significance level; intervals have the confidence 1 - LEVEL


class Difference(NamedTuple):
    """Mean difference, ends of its 95 % interval and two-sided p-value; NaN without variance."""

    mean: float
    low: float
    high: float
    p: float


def corrected_resampled_t_test(differences, n_train, n_test):
    """Test a mean difference of scores over folds whose training rows overlap.

    `n_train` and `n_test` are the rows of each fold; the mean of their ratios is used. If all
    differences are zero, p is 1; if they are equal otherwise, there is no variance, and p is NaN.

    The variance of the mean is (1/k + n_test/n_train) times the sample variance, instead of 1/k
    times, because the scores of folds are correlated (Nadeau & Bengio, Machine Learning 52, 2003,
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
    """Adjust p-values for multiple comparisons (Holm, Scandinavian Journal of Statistics 6, 1979).

    NaN counts as a comparison, and stays NaN.
    """
    p = np.asarray(p, dtype=np.float64)
    order = np.argsort(p)  # NaN comes last
    stepped = np.nan_to_num(p[order], nan=1.0) * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return np.where(np.isnan(p), np.nan, adjusted)
