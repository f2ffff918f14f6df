"""Which rows train the network that makes a row's features."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, check_cv

from skstack._base.sklearn import ignores_groups
from skstack._base.tables import n_rows


@dataclass(frozen=True)
class Folds:
    """Training and test rows of a cross-fit.

    Parameters
    ----------
    pairs : list of (ndarray, ndarray)
        Row numbers of training and test rows.

    covered : ndarray of bool of shape (n_rows,)
        Which rows are in a test fold. All are, except with time-ordered folds.
    """

    pairs: list
    covered: np.ndarray


def make_folds(cv, X, y, *, classifier, metadata=None, may_leave_out=False):
    """Folds in which no row is predicted twice.

    Parameters
    ----------
    cv : None, int, splitter or iterable of (train, test)
        Never changed. An int means consecutive folds; for a classifier stratified ones; with groups
        such as keep each group whole.

    X : table of n_rows rows

    y : array-like of shape (n_rows,) or None

    classifier : bool
        Whether an int means stratified folds.

    metadata : dict, default=None
        Keywords of the splitter's ``split``, ``groups`` among them.

    may_leave_out : bool, default=False
        Whether time-ordered folds, which never predict the first rows, are accepted.

    Returns
    -------
    Folds

    Raises
    ------
    ValueError
        If a row is in several test folds, or in none although it must be; if a group would stand on
        both sides of a fold, for the splitter ignores groups.
    """
    metadata = dict(metadata or {})
    groups = metadata.get("groups")
    splitter = _splitter(cv, y, classifier, groups)
    pairs = _pairs(splitter, X, y, metadata)
    times = np.zeros(n_rows(X), dtype=int)
    for train, test in pairs:
        if len(train) < 2:
            raise ValueError(
                f"cv={cv!r} leaves a fold {len(train)} of {len(times)} rows to train on: too few "
                "samples."
            )
        np.add.at(times, test, 1)
    left_out = int((times == 0).sum())
    ordered = left_out and _looks_forward(pairs)
    if (times > 1).any() or (left_out and not (ordered and may_leave_out)):
        advice = (
            _NO_ROWS_OUT
            if ordered
            else "Use a splitter whose test folds cover all rows once, such as KFold or "
            "StratifiedKFold."
        )
        raise ValueError(
            f"cv={cv!r} is no partition: {left_out} of {len(times)} rows are in no test fold and "
            f"{int((times > 1).sum())} in several, but each row needs its features once. {advice}"
        )
    if groups is not None:
        _refuse_crossing_groups(splitter, pairs, np.asarray(groups))
    return Folds(pairs, times > 0)


def outer_folds(cv, X, y, *, classifier, groups=None):
    """Folds to score on: a row may be in several test folds, or in none.

    Parameters
    ----------
    cv, X, y, classifier : as in make_folds

    groups : array-like of shape (n_rows,), default=None
        An int ``cv`` keeps each group whole.

    Returns
    -------
    list of (ndarray, ndarray)
        Row numbers of training and test rows.

    Raises
    ------
    ValueError
        If a group would stand on both sides of a fold, for the splitter ignores groups.
    """
    splitter = _splitter(cv, y, classifier, groups)
    pairs = _pairs(splitter, X, y, {} if groups is None else {"groups": groups})
    if groups is not None:
        _refuse_crossing_groups(splitter, pairs, np.asarray(groups))
    return pairs


def orders_time(cv, X, y, metadata=None):
    """Whether a cv is time-ordered: in each fold all training rows stand before all test rows.

    Parameters
    ----------
    cv, X, y, metadata : as in make_folds

    Returns
    -------
    bool
    """
    if cv is None or isinstance(cv, Integral):
        return False
    return _looks_forward(_pairs(_splitter(cv, y, False, None), X, y, dict(metadata or {})))


def refuse_ordered(cv, X, y, metadata=None):
    """Refuse a time-ordered cv where rows cannot be left out.

    Parameters
    ----------
    cv, X, y, metadata : as in make_folds
    """
    if orders_time(cv, X, y, metadata):
        raise ValueError(
            f"cv={cv!r} is ordered in time and leaves the first rows without features. "
            f"{_NO_ROWS_OUT}"
        )


_NO_ROWS_OUT = (
    "A transformer cannot leave rows out; StackedKerasClassifier and StackedKerasRegressor take a "
    "time-ordered cv, and leave those rows out of the downstream's training rows."
)


def smallest_training_rows(pairs, groups=None):
    """Training rows of the fold that has the fewest groups, or without groups the fewest rows."""
    trains = [train for train, _ in pairs]
    return min(trains, key=lambda train: len(train if groups is None else np.unique(groups[train])))


def folds_of(cv, X, y, *, classifier, metadata=None):
    """Pairs of training and test rows of any cv, whatever rows they cover.

    Parameters
    ----------
    cv, X, y, classifier, metadata : as in make_folds

    Returns
    -------
    list of (ndarray, ndarray)
    """
    metadata = dict(metadata or {})
    return _pairs(_splitter(cv, y, classifier, metadata.get("groups")), X, y, metadata)


def _looks_forward(pairs):
    return all(len(train) and len(test) and train.max() < test.min() for train, test in pairs)


def listed_folds(cv):
    """List the folds of an iterable of (train, test) as row numbers; None for all other kinds."""
    if cv is None or isinstance(cv, Integral) or hasattr(cv, "split"):
        return None
    try:
        return [(_numbers(train), _numbers(test)) for train, test in cv]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"cv={cv!r} must be an int, a splitter or an iterable of (train, test): {error}."
        ) from error


def restricted_folds(pairs, rows):
    """Folds of a table, as folds of some of its rows.

    Parameters
    ----------
    pairs : list of (train, test)
        Row numbers in the table.

    rows : ndarray of int, ascending
        The rows that are left.

    Returns
    -------
    list of (ndarray, ndarray)
        Row numbers among ``rows``; folds that have lost a side are gone.
    """
    kept = [
        tuple(np.searchsorted(rows, side[np.isin(side, rows)]) for side in pair) for pair in pairs
    ]
    return [(train, test) for train, test in kept if len(train) and len(test)]


def _splitter(cv, y, classifier, groups):
    if groups is None or not (cv is None or isinstance(cv, Integral)):
        listed = listed_folds(cv)
        return check_cv(cv if listed is None else listed, y, classifier=classifier)
    n_folds, n_groups = 5 if cv is None else int(cv), len(np.unique(groups))
    if n_groups < n_folds:
        raise ValueError(
            f"cv={cv!r} asks for {n_folds} folds of whole groups, but the training rows are of "
            f"{n_groups} groups."
        )
    stratified = classifier and np.ndim(y) == 1
    return StratifiedGroupKFold(n_folds) if stratified else GroupKFold(n_folds)


def _pairs(splitter, X, y, metadata):
    if ignores_groups(splitter):
        metadata = {name: value for name, value in metadata.items() if name != "groups"}
    # A copy, for a splitter may hold a RandomState, and it is the user's.
    try:
        pairs = list(copy.deepcopy(splitter).split(X, y, **metadata))
    except (TypeError, ValueError) as error:
        raise type(error)(f"cv={splitter!r} gives no folds of these rows: {error}") from error
    if not pairs:
        raise ValueError(f"cv={splitter!r} gives no folds of these rows.")
    return [_checked(splitter, n_rows(X), *map(_numbers, pair)) for pair in pairs]


def _checked(splitter, n, train, test):
    """A fold, refused where a row is on both sides of it, or is no row of X."""
    for rows in (train, test):
        if rows.size and (rows.min() < 0 or rows.max() >= n):
            raise ValueError(
                f"cv={splitter!r} gives row numbers from {rows.min()} to {rows.max()}, but X has "
                f"{n} rows, numbered from 0."
            )
    both = np.intersect1d(train, test)
    if both.size:
        raise ValueError(
            f"cv={splitter!r} puts {both.size} rows, such as {both[0]}, into both training and "
            "test rows of a fold: a model would be asked about rows that it was trained on."
        )
    return train, test


def _numbers(rows):
    """Row numbers of a fold that may come as a mask."""
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.intp)


def _refuse_crossing_groups(splitter, pairs, groups):
    crossing = set()
    for train, test in pairs:
        crossing.update(np.intersect1d(groups[train], groups[test]).tolist())
    if not crossing:
        return
    said = (
        f"cv={splitter!r} puts rows of one group into training and test rows of a fold "
        f"({len(crossing)} groups, such as {min(map(str, crossing))!r})"
    )
    if ignores_groups(splitter):
        raise ValueError(
            f"{said}: networks would be asked about groups that they know. Use GroupKFold, "
            "StratifiedGroupKFold or an int, or do not pass groups."
        )
    warnings.warn(f"{said}, although it was given the groups.", UserWarning, stacklevel=2)
