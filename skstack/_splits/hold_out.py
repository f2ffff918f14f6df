"""The rows that early stopping watches, set aside before anything is learned."""

from numbers import Integral, Real

import numpy as np
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit
from sklearn.utils import check_random_state

_DRAWS_OF_GROUPS = 50

_WAYS_OUT = (
    "Pass the rows to watch as `X_val` and `y_val`, change `validation_fraction`, or set "
    "`early_stopping=False`."
)


def hold_out(y, *, fraction, stratify, seed=None, groups=None, ordered=False):
    """Split row numbers into those to train on and those to watch.

    Parameters
    ----------
    y : array-like of shape (n_rows,) or (n_rows, n_outputs)
        Targets. More than one column (multilabel, multi-output) are never stratified.
    fraction : float in (0, 1) or int >= 1
        Share, or number, of rows to hold out, rounded up as scikit-learn's splitters do. With
        `groups` whole groups are held out and the share is approximate.
    stratify : bool
        Keep the share of each class; True for classifiers.
    seed : int, RandomState or None
        Of the shuffle.
    groups : array-like of shape (n_rows,) or None
        Rows of one group are never on both sides.
    ordered : bool
        Rows are ordered in time: hold out the last ones, with `groups` from the nearest row on that
        shares its group with no earlier one.

    Returns
    -------
    train, held_out : ndarray of int64, ascending
        Row numbers; together every row once.

    Raises
    ------
    ValueError
        `fraction` leaves no rows on a side, a class would be missing on a side (with `ordered`: on
        the training side), there are fewer than two groups, or with `ordered` every cut goes
        through a group.

    Examples
    --------
    >>> from skstack._splits.hold_out import hold_out
    >>> train, held_out = hold_out([0] * 6 + [1] * 4, fraction=0.2, stratify=True, seed=0)
    >>> len(train), len(held_out), sorted(int(i >= 6) for i in held_out)
    (8, 2, [0, 1])
    """
    y = np.asarray(y)
    n_rows = y.shape[0]
    n_held_out = _number_of_rows(fraction, n_rows)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    codes = classes = None
    if stratify and y.ndim == 1:
        classes, codes = np.unique(y, return_inverse=True)

    if ordered:
        cut = n_rows - n_held_out
        if groups is not None:
            cut = _between_groups(np.asarray(groups), cut)
        train, held_out = np.split(np.arange(n_rows), [cut])
    elif groups is not None:
        train, held_out = _whole_groups(np.asarray(groups), codes, n_held_out, seed)
    elif codes is not None:
        _refuse_missing(classes, codes, np.bincount(codes) < 2, fraction)
        if min(n_held_out, n_rows - n_held_out) < len(classes):
            raise ValueError(
                f"validation_fraction={fraction} of {n_rows} rows puts {n_held_out} rows aside and "
                f"leaves {n_rows - n_held_out}, but there are {len(classes)} classes and each must "
                f"be on both sides. {_WAYS_OUT}"
            )
        splitter = StratifiedShuffleSplit(1, test_size=n_held_out, random_state=seed)
        train, held_out = next(splitter.split(codes, codes))
    else:
        splitter = ShuffleSplit(1, test_size=n_held_out, random_state=seed)
        train, held_out = next(splitter.split(y))

    if codes is not None:
        lacking = _lacking(codes, train)
        if not ordered:  # the last rows are what they are; drawn ones could be drawn otherwise
            lacking |= _lacking(codes, held_out)
        _refuse_missing(classes, codes, lacking, fraction)
    return np.sort(train), np.sort(held_out)


def _number_of_rows(fraction, n_rows):
    """How many rows `fraction` means."""
    is_count = isinstance(fraction, Integral) and not isinstance(fraction, bool) and fraction >= 1
    is_share = isinstance(fraction, Real) and not is_count and 0 < fraction < 1
    if not (is_count or is_share):
        raise ValueError(
            f"validation_fraction={fraction!r}; expected a float between 0 and 1 (a share) or an "
            "int of at least 1 (a number of rows)."
        )
    n_held_out = int(fraction) if is_count else int(np.ceil(fraction * n_rows))
    if n_held_out >= n_rows:
        raise ValueError(
            f"validation_fraction={fraction} of {n_rows} row(s) leaves none to train on. "
            f"{_WAYS_OUT}"
        )
    return n_held_out


def _between_groups(groups, wished):
    """The row nearest to the wished one before which all groups end that began."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    last = np.zeros_like(first)
    np.maximum.at(last, group, np.arange(len(groups)))
    running = np.maximum.accumulate(last[group])  # where the groups met so far end
    cuts = np.flatnonzero(running[:-1] == np.arange(len(groups) - 1)) + 1
    if not len(cuts):
        raise ValueError(
            "The last rows cannot be held out: wherever the rows are cut, a value of groups stands "
            f"on both sides. {_WAYS_OUT}"
        )
    return cuts[np.argmin(np.abs(cuts - wished))]


def _whole_groups(groups, codes, n_held_out, seed):
    """Hold out whole groups: of some draws the one nearest to the wished rows of each class.

    scikit-learn's GroupShuffleSplit counts groups where rows are wished for, and its
    StratifiedGroupKFold warns of every class with fewer rows than folds.
    """
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            f"groups holds {len(names)} group; whole groups are held out for early stopping, which "
            f"takes at least 2. {_WAYS_OUT}"
        )
    label = np.zeros(len(group), dtype=int) if codes is None else codes
    rows = np.zeros((len(names), label.max() + 1), dtype=int)  # of each group and class
    np.add.at(rows, (group, label), 1)
    total = rows.sum(axis=0)
    wished = total * (n_held_out / len(group))
    rng = check_random_state(seed)
    best, least = None, None
    for _ in range(_DRAWS_OF_GROUPS):
        order = rng.permutation(len(names))
        reached = np.cumsum(rows[order].sum(axis=1))
        n_groups = np.argmin(np.abs(reached[:-1] - n_held_out)) + 1
        held_out = rows[order[:n_groups]].sum(axis=0)
        cost = (
            np.sum((held_out == 0) | (held_out == total)),
            np.sum(np.abs(held_out - wished) / total),
        )
        if best is None or cost < least:
            best, least = order[:n_groups], cost
    held_out = np.isin(group, best)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _lacking(codes, rows):
    """Which classes have no row among `rows`."""
    return np.bincount(codes[rows], minlength=codes.max() + 1) == 0


def _refuse_missing(classes, codes, lacking, fraction):
    """Raise when a class has too few rows to be on both sides."""
    if lacking.any():
        rows = np.bincount(codes)
        few = ", ".join(f"{classes[c]!s} ({rows[c]} row(s))" for c in np.flatnonzero(lacking)[:5])
        raise ValueError(
            f"Early stopping holds out validation_fraction={fraction} of the rows, and these "
            f"classes have too few of them to be on both sides: {few}. {_WAYS_OUT}"
        )
