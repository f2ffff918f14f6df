"""Recorded fits on the first outer fold, with true targets or with half of them shuffled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from skstack._base.sklearn import take_metadata
from skstack._base.tables import take_rows
from skstack.inspection._association import beyond_chance
from skstack.inspection._trace import Trace

_FEWEST = 20  # rows, or groups, of which an association is judged


@dataclass
class Run:
    """A recorded fit, and the targets of all rows that it was given."""

    estimator: Any
    trace: Trace
    y: Any
    train: np.ndarray
    test: np.ndarray
    shuffled: np.ndarray | None = None  # mask of the rows whose target is that of another row
    units: np.ndarray | None = None  # groups that were shuffled as one

    @classmethod
    def of(cls, estimator, X, y, fold, metadata, shuffled=None, units=None):
        """Fit a recorded clone on the training rows of a fold."""
        train, test = fold
        trace = Trace(estimator)
        own = take_metadata(X, metadata, train)
        trace.fit(take_rows(X, train), take_rows(y, train), train, **own)
        return cls(estimator, trace, y, train, test, shuffled, units)

    @property
    def fits(self):
        """The recorded fits."""
        return self.trace.fits

    def paused(self):
        """A context in which nothing is recorded."""
        return self.trace.paused()

    @property
    def y_test(self):
        """Targets of the test rows."""
        return np.asarray(self.y)[self.test]

    def judged(self, rows, predictions, classification, least=0.0):
        """(association, z) of predictions of shuffled rows; None if there are too few.

        `predictions` are in the order of the labels of y.
        """
        y = np.asarray(self.y)
        if y.ndim != 1:
            return None
        chosen = self.shuffled[rows]
        rows, predictions = rows[chosen], np.asarray(predictions)[chosen]
        units = None if self.units is None else self.units[rows]
        if len(rows if units is None else np.unique(units)) < _FEWEST:
            return None
        if classification:
            labels = np.unique(y)
            predictions = predictions.reshape(len(rows), -1)
            present = np.isin(labels, y[rows])
            if present.sum() < 2:
                return None
            if predictions.shape[1] == len(labels):
                predictions = predictions[:, present]
            elif len(labels) > 2 or predictions.shape[1] != 1:
                return None
        elif predictions.ndim > 1 and predictions.shape[1] != 1:
            return None
        return beyond_chance(predictions, y[rows], classification, units, least)


def shuffle_half(y, groups, generator):
    """Targets of half of the rows shuffled among them: (y, mask of these rows, units).

    If all rows of each group share a target, groups are drawn and shuffled.
    """
    values = np.asarray(y)
    unit, units = np.arange(len(values)), None
    if groups is not None and values.ndim == 1:
        _, first, group = np.unique(groups, return_index=True, return_inverse=True)
        if (values == values[first][group]).all() and len(first) < len(values):
            unit, units = group, group
    n = unit.max() + 1
    first = np.unique(unit, return_index=True)[1]
    chosen = np.sort(generator.permutation(n)[: (n + 1) // 2])
    source = np.arange(n)
    source[chosen] = generator.permutation(chosen)
    mask = np.isin(unit, chosen)
    rows = np.arange(len(values)) if units is None else first[unit]
    rows = np.where(mask, first[source[unit]], rows)
    return take_rows(y, rows), mask, units
