"""Folds of a cross-fit, and checks of any `cv`.

In all functions `cv` is None, an int, a splitter or an iterable of (train, test), as in
scikit-learn, and is never changed. An int means consecutive folds, stratified for a classifier;
with groups, folds of whole groups. `metadata` holds keyword arguments of the splitter's ``split``,
such as ``groups``.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import NamedTuple

import numpy as np
from sklearn import model_selection
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, check_cv

from skstack._base.disk_table import window_rows
from skstack._base.sklearn import ignores_groups, take_metadata
from skstack._base.tables import n_rows, take_rows

_NO_ROWS_OUT = (
    "A transformer cannot leave rows out; StackedKerasClassifier and StackedKerasRegressor accept "
    "a time-ordered cv, and leave those rows out of the downstream's training rows."
)


SCORED_ROWS = 4_000
# With these, branches are fitted without five pairs of five folds, not ten: a stack with a default
# network then takes at most about twice the time of the cross-fit of this network.
_ROWS_FOR_FEWER_PAIRS = 500
_ROWS_OF_CLASS = 20  # at least, that a downstream without a fold learns from


class Folds(NamedTuple):
    """Pairs (train, test) of row indices, and a mask of the rows in a test fold."""

    pairs: list
    covered: np.ndarray


def shown_cv(cv):
    """Any cv as text; of a list the number of folds, not their rows."""
    listed = getattr(cv, "cv", cv)  # scikit-learn's splitter of a list
    return f"[{len(listed)} folds]" if isinstance(listed, list | tuple) else repr(cv)


def make_folds(cv, X, y, *, classifier, metadata=None, weights=None, may_leave_out=False):
    """Folds in which every row is predicted once.

    Rows of weight 0 are predicted, but nothing is trained on them. With `may_leave_out`,
    time-ordered folds, which never predict the first rows, are accepted.
    """
    splitter, pairs = _split(cv, X, y, classifier, metadata)
    times = np.zeros(n_rows(X), dtype=int)
    for train, test in pairs:
        n_weighted = len(train) if weights is None else np.count_nonzero(np.asarray(weights)[train])
        if n_weighted < 2:
            weighted = "" if n_weighted == len(train) else " of positive weight"
            raise CannotSplit(
                f"cv={shown_cv(cv)} has a fold with {n_weighted} of {len(times)} rows{weighted} "
                "to train on: too few samples."
            )
        np.add.at(times, test, 1)
    left_out = int((times == 0).sum())
    ordered = left_out and _is_ordered(pairs)
    if (times > 1).any() or (left_out and not (ordered and may_leave_out)):
        advice = _NO_ROWS_OUT if ordered else "Use a splitter such as KFold or StratifiedKFold."
        raise ValueError(
            f"cv={shown_cv(cv)} must place every sample in exactly one test fold, but "
            f"{left_out} of {len(times)} rows are in no test fold and {int((times > 1).sum())} in "
            f"several. {advice}"
        )
    _refuse_crossing_groups(splitter, pairs, metadata)
    return Folds(pairs, times > 0)


def shuffled_folds(cv, X, y, seed, *, classifier, metadata=None):
    """Pairs of other folds of the same kind, shuffled with a seed."""
    splitter = copy.deepcopy(_splitter(cv, y, classifier, (metadata or {}).get("groups")))
    if not (hasattr(splitter, "shuffle") and hasattr(splitter, "random_state")):
        raise ValueError(
            f"n_repeats above 1 needs other folds in each repeat, but cv={shown_cv(cv)} cannot be "
            "shuffled. Use an int or a splitter with shuffle and random_state, such as KFold, or "
            "n_repeats=1."
        )
    splitter.shuffle, splitter.random_state = True, seed
    return folds_of(splitter, X, y, classifier=classifier, metadata=metadata)


def outer_folds(cv, X, y, *, classifier, groups=None):
    """Folds to score on, in which no group is split: rows may be in no or several test folds."""
    metadata = {} if groups is None else {"groups": groups}
    splitter, pairs = _split(cv, X, y, classifier, metadata)
    _refuse_crossing_groups(splitter, pairs, metadata)
    return pairs


def folds_of(cv, X, y, *, classifier, metadata=None):
    """Pairs (train, test) of any cv, whatever rows they cover."""
    return _split(cv, X, y, classifier, metadata)[1]


def orders_time(cv, X, y, metadata=None):
    """Whether cv is time-ordered: in each fold all training rows precede all test rows."""
    if cv is None or isinstance(cv, Integral):
        return False
    return _is_ordered(folds_of(cv, X, y, classifier=False, metadata=metadata))


def refuse_ordered(cv, X, y, metadata=None):
    """Raise for a time-ordered cv, for transformers, which cannot leave rows out."""
    if orders_time(cv, X, y, metadata):
        raise ValueError(
            f"cv={shown_cv(cv)} is ordered in time and leaves the first rows without features. "
            f"{_NO_ROWS_OUT}"
        )


def smallest_training_rows(pairs, groups=None):
    """Training rows of the fold that has the fewest groups, or without groups the fewest rows."""
    trains = [train for train, _ in pairs]
    return min(trains, key=lambda train: len(train if groups is None else np.unique(groups[train])))


def listed_folds(cv):
    """The folds of an iterable of (train, test) as row indices; None for all other kinds of cv."""
    if cv is None or isinstance(cv, Integral) or hasattr(cv, "split"):
        return None
    try:
        return [(_indices(train), _indices(test)) for train, test in cv]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"cv={cv!r} must be an int, a splitter or an iterable of (train, test): {error}."
        ) from error


def restricted_folds(pairs, rows):
    """Restrict folds of a table to some of its rows, ascending; empty folds are dropped."""
    kept = [
        tuple(np.searchsorted(rows, side[np.isin(side, rows)]) for side in pair) for pair in pairs
    ]
    return [(train, test) for train, test in kept if len(train) and len(test)]


def restricted_cv(cv, rows, X, y, metadata=None):
    """A cv for some rows of X, ascending, unchanged if it splits them as it splits all rows.

    Folds of all rows are restricted: a list, and those of a splitter, such as PredefinedSplit, that
    cannot split fewer rows.
    """
    pairs = listed_folds(cv)
    if pairs is None and hasattr(cv, "split") and not _splits_any_rows(cv):
        metadata = metadata or {}
        try:
            own = take_metadata(X, metadata, rows)
            folds_of(cv, take_rows(X, rows), take_rows(y, rows), classifier=False, metadata=own)
        except Exception:  # the user's code
            pairs = folds_of(cv, X, y, classifier=False, metadata=metadata)
    return cv if pairs is None else restricted_folds(pairs, rows)


def _splits_any_rows(splitter):
    """Whether a splitter is one of scikit-learn's that do not hold the fold of each row."""
    kind = type(splitter)
    public = getattr(model_selection, kind.__name__, None) is kind
    return public and kind is not model_selection.PredefinedSplit


def same_folds(pairs, others):
    """Whether two lists of (train, test) are equal, in the same order."""
    return len(pairs) == len(others) and all(
        np.array_equal(own, other)
        for pair, another in zip(pairs, others, strict=True)
        for own, other in zip(pair, another, strict=True)
    )


class ScoredFolds(NamedTuple):
    """Numbers of the folds on which the downstream of a stack is scored, and pairs of folds.

    For each pair the branches that learn from y in these folds are fitted once more, without both.
    Beside such branches the downstream without a fold is fitted on those in a pair with it, else on
    all others.
    """

    numbers: tuple
    two: tuple = ()

    def others(self, number):
        """Numbers of the folds that are in a pair with a scored one."""
        return [sum(pair) - number for pair in self.two if number in pair]


class NestedFolds(NamedTuple):
    """Pairs (train, test) of a stack by repeat, and the `ScoredFolds` among them."""

    repeats: list
    scored: list


def scored_folds(repeats, labels=None, weights=None, *, all_pairs=False):
    """`ScoredFolds` of a stack by repeat; ``repeats`` holds lists of (train, test).

    Of a large table a few folds are enough: the weights of a blend are few numbers. They are
    evenly spread, the middle one if it is one, because rows may be sorted. Together they hold each
    value of ``labels``, the classes of the rows, or each value of each column, in rows whose weight
    is not 0. With ``all_pairs`` each is in a pair with all others.
    """
    if _is_ordered(repeats[0]):
        return [ScoredFolds(tuple(range(len(pairs)))) for pairs in repeats]
    scored, columns = [], _codes(labels, weights)
    for pairs in repeats:
        sizes = np.array([len(test) for _, test in pairs])
        holds = np.array([_counts(columns, test) > 0 for _, test in pairs])
        holds = holds[:, holds.any(axis=0)]
        for n_scored in range(len(sizes) if len(repeats) > 1 else 1, len(sizes) + 1):
            numbers = (2 * np.arange(n_scored) + 1) * len(sizes) // (2 * n_scored)
            if sizes[numbers].sum() >= SCORED_ROWS and holds[numbers].any(axis=0).all():
                break
        numbers = tuple(numbers.tolist())
        two = _pairs_of_folds(len(pairs), numbers)
        every = some = ScoredFolds(numbers, tuple(sorted(two)))
        small = sizes.sum() < _ROWS_FOR_FEWER_PAIRS
        if len(pairs) > 4 and 2 * len(numbers) > len(pairs) and not (small or all_pairs):
            some = ScoredFolds(numbers, tuple(sorted(two[: len(pairs) ** 2 // 5])))
        enough = all(_is_enough(some, every, number, pairs, columns) for number in numbers)
        scored.append(some if enough else every)
    return scored


def _pairs_of_folds(n_folds, numbers):
    """Pairs of folds of which at least one is scored, those to keep first."""
    if n_folds < 3:
        return []
    around = (
        tuple(sorted((fold, (fold + distance) % n_folds)))
        for distance in range(1, n_folds // 2 + 1)
        for fold in range(n_folds)
    )
    two = [pair for pair in dict.fromkeys(around) if set(pair) & set(numbers)]
    return sorted(two, key=lambda pair: len(set(pair) - set(numbers)))


def _is_enough(some, every, number, pairs, columns):
    """Whether a downstream without a fold learns about half of what it would with all pairs."""
    if some is every:
        return True
    fewer, all_rows = (
        np.intersect1d(pairs[number][0], np.concatenate([pairs[k][1] for k in each.others(number)]))
        for each in (some, every)
    )
    known, counts = _counts(columns, fewer), _counts(columns, all_rows)
    rare = (counts > 0) & (known < _ROWS_OF_CLASS)
    return len(fewer) >= 0.4 * len(all_rows) and not rare.any()


def _codes(labels, weights):
    """For each column of labels the number of its values, and that of each row: -1 for weight 0."""
    columns = [] if labels is None else np.reshape(labels, (len(labels), -1)).T
    coded = []
    for column in columns:
        values, codes = np.unique(column, return_inverse=True)
        coded.append((len(values), codes if weights is None else np.where(weights > 0, codes, -1)))
    return coded


def _counts(columns, rows):
    """How many of some rows have each value of each column."""
    counts = [np.bincount(codes[rows] + 1, minlength=n + 1)[1:] for n, codes in columns]
    return np.concatenate([np.zeros(0, dtype=int), *counts])


def seeded_splitter(cv, seed):
    """A copy of a splitter that yields the same folds each time, if it has no seed of its own."""
    if getattr(cv, "shuffle", True) and getattr(cv, "random_state", 0) is None:
        cv = copy.deepcopy(cv)
        cv.random_state = seed
    return cv


def _is_ordered(pairs):
    return all(len(train) and len(test) and train.max() < test.min() for train, test in pairs)


class CannotSplit(ValueError):
    """There are too few rows, or groups, for the folds."""


def _splitter(cv, y, classifier, groups):
    if groups is None or not (cv is None or isinstance(cv, Integral)):
        listed = listed_folds(cv)
        return check_cv(cv if listed is None else listed, y, classifier=classifier)
    n_folds, n_groups = 5 if cv is None else int(cv), len(np.unique(groups))
    if n_groups < n_folds:
        raise CannotSplit(
            f"cv={cv!r} requires at least {n_folds} groups, but the training rows have {n_groups} "
            "groups."
        )
    stratified = classifier and np.ndim(y) == 1
    return StratifiedGroupKFold(n_folds) if stratified else GroupKFold(n_folds)


def _split(cv, X, y, classifier, metadata):
    """The splitter that cv means, and its checked folds."""
    metadata = dict(metadata or {})
    splitter = _splitter(cv, y, classifier, metadata.get("groups"))
    if ignores_groups(splitter):
        metadata.pop("groups", None)
    pairs = _listed(_yielded(splitter, X, y, metadata), splitter, n_rows(X))
    if not pairs:
        raise ValueError(f"cv={shown_cv(splitter)} yields no folds of these rows.")
    return splitter, pairs


def _yielded(splitter, X, y, metadata):
    try:
        # A copy, because a splitter may hold a RandomState of the user.
        yield from copy.deepcopy(splitter).split(X, y, **metadata)
    except (TypeError, ValueError) as error:
        kind = CannotSplit if isinstance(error, ValueError) else TypeError
        raise kind(f"cv={shown_cv(splitter)} cannot split these rows: {error}") from error


def _listed(pairs, splitter, n):
    """Checked pairs; those of a large table, if they are its parts, take little memory."""
    if n <= window_rows():
        return [_checked(splitter, n, *map(_indices, pair)) for pair in pairs]
    listed, parts = [], np.full(n, -1, np.int32)
    for number, pair in enumerate(pairs):
        train, test = _checked(splitter, n, *map(_indices, pair))
        divides = len(train) + len(test) == n and _ascend(train, test)
        if parts is not None and divides and (parts[test] < 0).all():
            parts[test] = number
            listed.append(None)
            continue
        if parts is not None:
            listed = [_pair_of(parts, earlier) for earlier in range(number)]
            parts = None
        listed.append((train, test))
    if parts is None:
        return listed
    if (parts < 0).any():
        return [_pair_of(parts, number) for number in range(len(listed))]
    return _Parts(parts, len(listed))


def _pair_of(parts, number):
    return np.flatnonzero(parts != number), np.flatnonzero(parts == number)


def _ascend(*sides):
    return all((np.diff(rows) > 0).all() for rows in sides)


class _Parts(Sequence):
    """Pairs (train, test) of the folds into which all rows are divided, made when asked for."""

    def __init__(self, parts, n):
        self._parts, self._n = parts, n

    def __len__(self):
        return self._n

    def __getitem__(self, number):
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(self._n))]
        if not -self._n <= number < self._n:
            raise IndexError(number)
        return _pair_of(self._parts, number % self._n)


def _checked(splitter, n, train, test):
    """A fold, after a check that its sides are disjoint rows of X."""
    for rows in (train, test):
        if rows.size and (rows.min() < 0 or rows.max() >= n):
            raise ValueError(
                f"cv={shown_cv(splitter)} yields row indices from {rows.min()} to "
                f"{rows.max()}, but X has {n} rows, numbered from 0."
            )
    trained = np.zeros(n, dtype=bool)
    trained[train] = True
    both = np.unique(test[trained[test]])
    if both.size:
        raise ValueError(
            f"cv={shown_cv(splitter)} puts {both.size} rows, such as {both[0]}, into both training "
            "and test rows of a fold: a model would predict rows that it was trained on."
        )
    return train, test


def _indices(rows):
    """Row indices of a fold that may be a mask."""
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.intp)


def _refuse_crossing_groups(splitter, pairs, metadata):
    """Raise if a group is on both sides of a fold; warn if the splitter received the groups."""
    groups = (metadata or {}).get("groups")
    if groups is None:
        return
    groups, crossing = np.asarray(groups), set()
    for train, test in pairs:
        crossing.update(np.intersect1d(groups[train], groups[test]).tolist())
    if not crossing:
        return
    message = (
        f"cv={shown_cv(splitter)} puts rows of one group into training and test rows of a fold "
        f"({len(crossing)} groups, such as {min(map(str, crossing))!r})"
    )
    if ignores_groups(splitter):
        raise ValueError(
            f"{message}: networks would predict groups that they were trained on. Use GroupKFold, "
            "StratifiedGroupKFold or an int, or do not pass groups."
        )
    warnings.warn(f"{message}, although it received the groups.", UserWarning, stacklevel=2)
