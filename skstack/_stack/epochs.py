"""How many epochs the downstream network of a stack trains, learned without holding out rows."""

from __future__ import annotations

import numpy as np
from sklearn.base import is_classifier
from sklearn.model_selection import TimeSeriesSplit

from skstack._base.params import clone_part
from skstack._base.tables import n_rows, take_rows
from skstack._estimators.base import NetworkEstimator
from skstack._splits.folds import outer_folds

_N_FOLDS = 3


def leaves_epochs_open(downstream) -> bool:
    """Whether a downstream is a network that leaves epochs and early stopping to the stack."""
    return (
        isinstance(downstream, NetworkEstimator)
        and isinstance(downstream.early_stopping, str)
        and isinstance(downstream.epochs, str)
    )


def epochs_of_folds(downstream, table, y, settings, *, resample, ordered):
    """Median of the best epochs of fits of the downstream on parts of its training rows.

    Each is judged by the loss on the other rows. Rows of the sampler train, but do not judge.

    Parameters
    ----------
    downstream : NetworkEstimator
        Not fitted.
    table, y : array-like
        Out-of-fold features of the training rows, scaled, and targets.
    settings : dict
        Keyword arguments of its ``fit``, one value for each row.
    resample : callable
        Function of training rows, targets and weights that returns those after the sampler.
    ordered : bool
        Whether rows are ordered in time: each part is judged by later rows.

    Returns
    -------
    int or None
        None if there are too few rows, or too few of a class, or groups.
    """
    if not downstream._stops_early(n_rows(table)):
        return None
    groups = settings.get("groups")
    cv = TimeSeriesSplit(_N_FOLDS) if ordered else _N_FOLDS
    stratified = is_classifier(downstream) and np.ndim(y) == 1
    if stratified and np.unique(y, return_counts=True)[1].min() < _N_FOLDS:
        return None
    if groups is not None and len(np.unique(groups)) < _N_FOLDS:
        return None
    best, shared = [], downstream._cross_fit_context(table, y)
    for train, test in outer_folds(cv, table, y, classifier=stratified, groups=groups):
        fold = clone_part(downstream)  # "auto" stops early with X_val
        weights = settings.get("sample_weight")
        rows, targets, weights = resample(
            take_rows(table, train),
            take_rows(y, train),
            None if weights is None else np.asarray(weights)[train],
        )
        fold._fit_in_context(
            rows,
            targets,
            shared,
            sample_weight=weights,
            X_val=take_rows(table, test),
            y_val=take_rows(y, test),
        )
        best.append(int(np.argmax(fold.validation_scores_)) + 1)
    return round(float(np.median(best))) if best else None
