"""How many epochs the downstream network of a stack trains, learned without holding out rows."""

from __future__ import annotations

import numpy as np
from sklearn.base import is_classifier
from sklearn.model_selection import KFold

from skstack._base.params import clone_part
from skstack._base.progress import fitting, propagating
from skstack._base.tables import n_rows, taken, with_weight
from skstack._estimators.base import NetworkEstimator
from skstack._splits.folds import outer_folds
from skstack._splits.hold_out import hold_out

N_FOLDS = 3


def leaves_epochs_open(downstream) -> bool:
    """Whether a downstream is a network that leaves epochs and early stopping to the stack."""
    return (
        isinstance(downstream, NetworkEstimator)
        and isinstance(downstream.early_stopping, str)
        and isinstance(downstream.epochs, str)
    )


def epochs_of_folds(
    downstream,
    table,
    y,
    *,
    groups,
    sample_weight,
    resample,
    ordered,
    shared=None,
    n_fits=N_FOLDS,
    verbose=0,
):
    """Median of the best epochs of fits of the downstream on parts of its training rows.

    Each fit is judged by the loss on the other rows; with ``ordered`` rows there is one, judged by
    the last. ``resample`` returns training rows, targets and weights after the sampler: its rows
    train, but do not judge. ``shared`` is the context of the fits if more than these rows decide
    it. Only the first ``n_fits`` are made. None if there are too few rows or groups.
    """
    if sample_weight is not None:
        sample_weight = np.asarray(sample_weight)
    table, y, sample_weight, groups = with_weight(sample_weight, table, y, sample_weight, groups)
    if not downstream._stops_early(n_rows(table)):
        return None
    try:
        folds = _folds(downstream, table, y, groups, ordered)
    except ValueError:  # too few groups, or no cut between them
        return None
    best, folds = [], folds[:n_fits]
    if shared is None:
        shared = downstream._cross_fit_context(table, y)
    for number, (train, test) in enumerate(folds):
        fold = clone_part(downstream).set_params(n_bags=1)  # with X_val, "auto" stops early
        rows, targets, weights = resample(*taken(train, table, y, sample_weight))
        label = f"epochs of the downstream, fit {number + 1} of {len(folds)}"
        with fitting(label, n_rows(rows), verbose=verbose), propagating(fold):
            X_val, y_val, weights_val = taken(test, table, y, sample_weight)
            validation = {"X_val": X_val, "y_val": y_val, "weights_val": weights_val}
            fold._fit_in_context(rows, targets, shared, sample_weight=weights, **validation)
        best.append(fold._best_epoch())
    return round(float(np.median(best)))


def _folds(downstream, table, y, groups, ordered):
    classes = is_classifier(downstream) and np.ndim(y) == 1
    if ordered:
        fraction = downstream.validation_fraction
        return [hold_out(y, fraction=fraction, stratify=classes, groups=groups, ordered=True)]
    stratified = classes and np.unique(y, return_counts=True)[1].min() >= N_FOLDS
    cv = N_FOLDS
    if groups is None and not stratified:  # rows may be sorted by y
        cv = KFold(N_FOLDS, shuffle=True, random_state=0)
    return outer_folds(cv, table, y, classifier=stratified, groups=groups)
