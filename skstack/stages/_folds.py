"""Which rows train the network that makes a row's features."""

from __future__ import annotations

import copy

import numpy as np
from sklearn.model_selection import check_cv

from skstack._checks import n_rows

__all__ = ["partition"]


def partition(cv, X, y, *, classifier):
    """Folds in which each row is predicted once.

    Parameters
    ----------
    cv : int, splitter or iterable of (train, test)
        An int gives stratified folds for a classifier, else consecutive ones. Never changed.

    X : table of n_rows rows

    y : array-like of shape (n_rows,) or None

    classifier : bool
        Whether an int means stratified folds.

    Returns
    -------
    list of (ndarray, ndarray)
        Row numbers of training and test rows.

    Raises
    ------
    ValueError
        If a row is in no test fold or in several.
    """
    if not isinstance(cv, int | np.integer):
        cv = copy.deepcopy(cv)
    splitter = check_cv(cv, y, classifier=classifier)
    total = n_rows(X)
    folds = list(splitter.split(np.empty((total, 0)), y))
    times = np.zeros(total, dtype=int)
    for _, test in folds:
        times += np.bincount(np.flatnonzero(test) if test.dtype == bool else test, minlength=total)
    if (times != 1).any():
        raise ValueError(
            f"cv={cv!r} is no partition: {int((times == 0).sum())} of {total} rows are in no test "
            f"fold and {int((times > 1).sum())} in several, but a transformer must give each row "
            "its features once. Use a splitter whose test folds cover all rows once, such as "
            "KFold or StratifiedKFold."
        )
    return folds
