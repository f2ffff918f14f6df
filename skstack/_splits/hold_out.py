"""The validation rows of early stopping, held out before anything is learned."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit
from sklearn.utils import check_random_state

from skstack._base.disk_table import window_rows

_DRAWS = 50
_MOST_HELD_OUT = 2**18  # of a share of a large table

_WAYS_OUT = (
    "Pass validation rows as `X_val` and `y_val`, change `validation_fraction`, or set "
    "`early_stopping=False`."
)


def hold_out(y, *, fraction, stratify, labels=(), seed=None, groups=None, ordered=False):
    """Split row indices into training and validation rows.

    ``fraction`` is a share of the rows, rounded up as in scikit-learn's splitters, or their number,
    an int; a share of more than 2**20 rows is at most 2**18 rows. With ``groups`` whole groups are
    held out, and the share is approximate. With ``stratify`` the share of each class is kept, but
    for a y of several columns; ``labels`` are those of several targets, each class of which has
    training rows. Of ordered rows the last ones are held out, with groups from the nearest row at
    which no group is split.

    Returns row indices, ascending; together every row once. A ValueError if a side would have no
    rows, if a class is missing on a side (with ``ordered``, and of ``labels``: among the training
    rows), of fewer than two groups, or if with ``ordered`` every cut splits a group.

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
    elif stratify:
        labels = y.T

    if ordered:
        cut = n_rows - n_held_out
        if groups is not None:
            cut = _between_groups(np.asarray(groups), cut)
        train, held_out = np.split(np.arange(n_rows), [cut])
    elif groups is not None:
        groups = np.asarray(groups)
        train, held_out = _whole_groups(groups, [] if codes is None else [codes], n_held_out, seed)
    elif codes is not None:
        _refuse_missing(classes, codes, np.bincount(codes) < 2, fraction)
        if min(n_held_out, n_rows - n_held_out) < len(classes):
            raise ValueError(
                f"validation_fraction={fraction} of {n_rows} rows sets {n_held_out} rows aside and "
                f"leaves {n_rows - n_held_out}, but each of the {len(classes)} classes must be on "
                f"both sides. {_WAYS_OUT}"
            )
        splitter = StratifiedShuffleSplit(1, test_size=n_held_out, random_state=seed)
        train, held_out = next(splitter.split(codes, codes))
    else:
        splitter = ShuffleSplit(1, test_size=n_held_out, random_state=seed)
        train, held_out = next(splitter.split(y))

    labels = [np.unique(each, return_inverse=True) for each in labels]
    if _lost_class(labels, train) is not None and not ordered:
        if groups is not None:
            columns = [codes for _, codes in labels]
            train, held_out = _whole_groups(groups, columns, n_held_out, seed)
        else:
            splitter = ShuffleSplit(_DRAWS, test_size=n_held_out, random_state=seed)
            draws = splitter.split(y)
            keeping = (draw for draw in draws if _lost_class(labels, draw[0]) is None)
            train, held_out = next(keeping, (train, held_out))
    if (lost := _lost_class(labels, train)) is not None:
        raise ValueError(
            f"Early stopping holds out validation_fraction={fraction} of the rows, which leaves "
            f"none of the class {lost!s} to train on. {_WAYS_OUT}"
        )
    if codes is not None:
        missing = _missing_classes(codes, train)
        if not ordered:
            missing |= _missing_classes(codes, held_out)
        _refuse_missing(classes, codes, missing, fraction)
    return np.sort(train), np.sort(held_out)


def _number_of_rows(fraction, n_rows):
    """The number of rows that `fraction` means."""
    is_count = isinstance(fraction, Integral) and not isinstance(fraction, bool) and fraction >= 1
    is_share = isinstance(fraction, Real) and not is_count and 0 < fraction < 1
    if not (is_count or is_share):
        raise ValueError(
            f"validation_fraction={fraction!r}; expected a float between 0 and 1 (a share) or an "
            "int of at least 1 (a number of rows)."
        )
    n_held_out = int(fraction) if is_count else int(np.ceil(fraction * n_rows))
    if is_share and n_rows > window_rows():  # they stay in memory
        n_held_out = min(n_held_out, _MOST_HELD_OUT)
    if n_held_out >= n_rows:
        raise ValueError(
            f"validation_fraction={fraction} of {n_rows} row(s) leaves none to train on. "
            f"{_WAYS_OUT}"
        )
    return n_held_out


def _between_groups(groups, cut):
    """The cut between rows that is nearest to `cut` and splits no group."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    last = np.zeros_like(first)
    np.maximum.at(last, group, np.arange(len(groups)))
    running = np.maximum.accumulate(last[group])  # last row of all groups so far
    cuts = np.flatnonzero(running[:-1] == np.arange(len(groups) - 1)) + 1
    if not len(cuts):
        raise ValueError(
            f"The last rows cannot be held out: every cut splits a value of groups. {_WAYS_OUT}"
        )
    return cuts[np.argmin(np.abs(cuts - cut))]


def _whole_groups(groups, labels, n_held_out, seed):
    """Hold out whole groups: the best of several draws by the number of rows of each class.

    scikit-learn's GroupShuffleSplit takes a share of the groups, not of the rows, and its
    StratifiedGroupKFold warns about every class with fewer rows than folds.
    """
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            f"groups holds {len(names)} group; early stopping holds out whole groups, and requires "
            f"at least 2. {_WAYS_OUT}"
        )
    columns = []  # rows of each group and class
    for codes in labels or [np.zeros(len(group), dtype=int)]:
        columns.append(np.zeros((len(names), codes.max() + 1), dtype=int))
        np.add.at(columns[-1], (group, codes), 1)
    rows = np.hstack(columns)
    total = rows.sum(axis=0)
    target = total * (n_held_out / len(group))
    rng = check_random_state(seed)
    best, least = None, None
    for _ in range(_DRAWS):
        order = rng.permutation(len(names))
        cumulative = np.cumsum(rows[order].sum(axis=1))
        n_groups = np.argmin(np.abs(cumulative[:-1] - n_held_out)) + 1
        held_out = rows[order[:n_groups]].sum(axis=0)
        cost = (
            np.sum((held_out == 0) | (held_out == total)),
            np.sum(np.abs(held_out - target) / total),
        )
        if best is None or cost < least:
            best, least = order[:n_groups], cost
    held_out = np.isin(group, best)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _lost_class(labels, rows):
    """The first class of the labels, pairs of classes and codes, that none of the rows has."""
    for classes, codes in labels:
        missing = _missing_classes(codes, rows)
        if missing.any():
            return classes[missing.argmax()]
    return None


def _missing_classes(codes, rows):
    """Mask of the classes without a row in `rows`."""
    return np.bincount(codes[rows], minlength=codes.max() + 1) == 0


def _refuse_missing(classes, codes, missing, fraction):
    """Raise if a class has too few rows to be on both sides."""
    if missing.any():
        rows = np.bincount(codes)
        few = ", ".join(f"{classes[c]!s} ({rows[c]} row(s))" for c in np.flatnonzero(missing)[:5])
        raise ValueError(
            f"Early stopping holds out validation_fraction={fraction} of the rows, and these "
            f"classes have too few of them to be on both sides: {few}. {_WAYS_OUT}"
        )
