"""Bins, quantiles and scales of numeric columns, learned from weighted training rows.

A row of weight 2 counts as two rows, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

_LARGEST_SCORE = 5.2  # as in scikit-learn's QuantileTransformer
_MIN_STEPS = 16  # of float32 between two edges


@dataclass(frozen=True)
class Distribution:
    """The distinct values of a column, increasing, and their total weights, positive; float64."""

    values: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, column, weights=None) -> Distribution:
        """The distribution of a column of shape (n_rows,); rows of weight 0 do not count."""
        column = np.asarray(column, dtype=np.float64)
        if weights is not None:
            used = np.asarray(weights) > 0
            column, weights = column[used], np.asarray(weights, dtype=np.float64)[used]
        values, inverse = np.unique(column, return_inverse=True)
        return cls(values, np.bincount(inverse, weights=weights).astype(np.float64))

    def quantiles(self, probabilities) -> np.ndarray:
        """Indices of the smallest values whose cumulative weight reaches each probability."""
        cumulated = np.cumsum(self.weights)
        indices = np.searchsorted(cumulated, np.asarray(probabilities) * cumulated[-1])
        return np.minimum(indices, len(self.values) - 1)

    def scores(self) -> np.ndarray:
        """Normal scores of the values by their mean rank, at most 5.2 from 0."""
        cumulated = np.cumsum(self.weights)
        ranks = (cumulated - self.weights / 2) / cumulated[-1]
        return np.clip(ndtri(ranks), -_LARGEST_SCORE, _LARGEST_SCORE)

    def spread(self, n) -> np.ndarray:
        """At most `n` >= 2 values, increasing: quantiles of the rows and of the distinct values.

        Quantiles of rows alone are all equal in a column where one value dominates.
        """
        last = len(self.values) - 1
        if last < n:
            chosen = np.arange(last + 1)
        else:
            by_rows = self.quantiles(np.linspace(0, 1, (n + 1) // 2 + 1)[1:-1])
            chosen = np.union1d(by_rows, [0, last])
            by_values = np.linspace(0, last, n - len(chosen) + 2)[1:-1].astype(int)
            chosen = np.union1d(chosen, by_values)
        return chosen[_distinguishable(self.values[chosen])]


def _distinguishable(values):
    """Mask of the values that are some steps of float32 below the next one; the last is kept."""
    kept = np.ones(len(values), dtype=bool)
    following = values[-1]
    for i in range(len(values) - 2, -1, -1):
        # Below the smallest normal number the slope of a bin would be infinite.
        step = max(np.spacing(np.float32(abs(following))), np.finfo(np.float32).tiny)
        kept[i] = following - values[i] > _MIN_STEPS * step
        following = values[i] if kept[i] else following
    return kept


def tree_edges(column, target, n_bins, *, classify, weights=None) -> np.ndarray:
    """Edges of at most `n_bins` bins: thresholds of a decision tree, minimum and maximum.

    Y. Gorishniy, I. Rubachev and A. Babenko, "On Embeddings for Numerical Features in Tabular Deep
    Learning", NeurIPS 2022, section 3.2.
    """
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    column = np.asarray(column, dtype=np.float64)
    weighs = slice(None) if weights is None else np.asarray(weights) > 0
    used = column[weighs]
    edges = np.unique([used.min(), used.max()])
    if n_bins == 1:  # fewer leaves than a tree may have
        return edges[_distinguishable(edges)]
    tree = (DecisionTreeClassifier if classify else DecisionTreeRegressor)(
        max_leaf_nodes=n_bins, min_weight_fraction_leaf=0.05 / n_bins, random_state=0
    )
    if not classify:
        total = len(column) if weights is None else np.sum(weights)
        target = _whole(np.asarray(target, dtype=np.float64), weighs, total)
    tree.fit(column[:, None], target, sample_weight=weights)
    inner = tree.tree_.threshold[tree.tree_.feature == 0]
    edges = np.unique([*edges, *inner])
    return edges[_distinguishable(edges)]


def _whole(target, weighs, total):
    """Whole numbers in the proportions of a target.

    Sums of their squares are exact, so that a weight of 2 and a repeated row give the same splits.
    """
    low, high = target[weighs].min(axis=0), target[weighs].max(axis=0)
    target = target - (low + high) / 2
    largest = np.max(high - low) / 2
    n_bits = max((52 - np.ceil(np.log2(max(total, 1)))) // 2, 8)
    return np.rint(target * (2.0**n_bits / largest)) if largest > 0 else target


def robust_center_and_scale(column, weights=None) -> tuple[float, float]:
    """Median, and the distance between the quartiles; half the range if these are equal.

    The scale is infinite for a constant column, which is then 0 everywhere.
    """
    distribution = Distribution.of(column, weights)
    low, center, high = distribution.values[distribution.quantiles([0.25, 0.5, 0.75])]
    scale = high - low
    if scale == 0:
        scale = (distribution.values[-1] - distribution.values[0]) / 2
    return float(center), float(scale) if scale > 0 else np.inf


def smoothly_clipped(z) -> np.ndarray:
    """Squash values to (-3, 3): z / sqrt(1 + (z / 3)**2)."""
    return z / np.sqrt(1.0 + np.square(z / 3.0))
