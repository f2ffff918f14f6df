"""Checks of rows, targets and splits, before anything is trained."""

from __future__ import annotations

import re

import numpy as np
from scipy.linalg import qr
from sklearn.neighbors import NearestNeighbors

from skstack.inspection._columns import (
    as_frame,
    complete_columns,
    hashable,
    is_continuous,
    numeric_columns,
    texts_of,
)
from skstack.inspection._overlap import row_keys
from skstack.inspection._report import Finding

_CHECKED_ROWS = 400  # rows of a class that are checked for interpolation
_NEIGHBOURS = 16
_COMPARED_ROWS = 500  # rows whose agreement with all others is counted
_CHECKED_TEST_ROWS = 600
_MANY_LEVELS = 20  # of a column whose distances are measured
_SURPRISE = np.log(1e5)  # of a row on a segment; each row is compared with 120 segments
_CHANCE = 1e-3  # share of rows that are so close to another one by chance


def crossing_groups(folds, groups):
    """Whether a group has both training and test rows."""
    check = "groups across the outer folds"
    if groups is None:
        return Finding(check, "not checked", "no groups were passed")
    crossing = [np.intersect1d(groups[train], groups[test]) for train, test in folds]
    names = np.unique(np.concatenate(crossing))
    if not len(names):
        return Finding(check, "ok", "no group is on both sides of a fold")
    share = np.mean([np.isin(groups[test], c).mean() for (_, test), c in zip(folds, crossing)])  # noqa: B905
    return Finding(
        check,
        "leak",
        f"{len(names)} of {len(np.unique(groups))} groups are in training and test rows of a "
        f"fold; they hold {share:.0%} of the test rows",
        "cv=GroupKFold(...) or StratifiedGroupKFold(...), with these groups",
        float(share),
    )


def later_training_rows(folds, time):
    """Whether training rows are later than test rows."""
    check = "later rows in training (outer folds)"
    if time is None:
        return Finding(check, "not checked", "no times were passed")
    share = np.mean([np.mean(time[train] > time[test].min()) for train, test in folds])
    if share == 0:
        return Finding(check, "ok", "no training row is later than a test row")
    return Finding(
        check,
        "leak",
        f"{share:.0%} of the training rows are later than a row that they are used to predict",
        "sort the rows by time and use cv=TimeSeriesSplit(...)",
        float(share),
    )


def duplicates(X, folds):
    """Whether test rows are among the training rows, exactly or nearly."""
    check = "duplicates across folds"
    remedy = "drop duplicates (or give all copies one group) before splitting"
    both = np.mean([np.isin(test, train).mean() for train, test in folds])
    if both:
        return Finding(
            check,
            "leak",
            f"{both:.1%} of the test rows are training rows of the same fold",
            "use a cv whose test rows are not among the training rows",
            float(both),
        )
    texts = texts_of(X)
    keys = row_keys(X if texts is None else [_plain(text) for text in texts])
    share = np.mean([np.isin(keys[test], keys[train]).mean() for train, test in folds])
    chance = _equal_by_chance(X) if share > 0.01 and texts is None else 0.0
    copies = share * (1 - chance) if chance < 0.5 or share * (1 - chance) > 0.1 else 0.0
    if copies > 0.01:
        how = "equal a training row in all columns" if texts is None else (
            "equal a training text, but for case, spaces and punctuation"
        )  # fmt: skip
        extra = f"; about {chance:.0%} of such pairs are expected by chance" if chance else ""
        return Finding(
            check,
            "leak" if copies > 0.1 else "suspect",
            f"{share:.1%} of the test rows {how}{extra}",
            remedy,
            float(copies),
        )
    near = 0.0 if texts is not None else max(_rounded_copies(X, folds), _near_copies(X, folds))
    if near > 0.05:
        return Finding(
            check,
            "leak" if near > 0.08 else "suspect",
            f"{near:.1%} of the test rows are a training row that was rounded or jittered: by "
            f"chance {_CHANCE:.1%} would be as near, given the distances to further neighbours",
            remedy,
            float(near),
        )
    evidence = f"{share:.1%} of the test rows equal a training row in all columns"
    if share > 0.01:
        evidence += ", as expected by chance in columns with so few values"
    return Finding(check, "ok", evidence)


def _plain(text):
    """A text without case, punctuation and repeated spaces."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _equal_by_chance(X):
    """Share of the equal pairs of rows that agreement of columns by chance explains.

    Let N be the pairs that agree in all columns. Of the pairs that agree in all columns but k and
    perhaps j, a share c agrees in j. By chance, the same share of those that agree in all columns
    but perhaps j agrees in j, too; copies agree in all columns at once, and are an excess. The
    column with the smallest excess decides.
    """
    import pandas as pd

    frame = as_frame(X)
    if frame is None:
        return 0.0
    codes = np.column_stack(
        [
            pd.factorize(hashable(frame.iloc[:, c]), use_na_sentinel=False)[0]
            for c in range(frame.shape[1])
        ]
    )
    codes = codes[:, np.ptp(codes, axis=0) > 0]  # a column of one value tells no rows apart
    if not codes.shape[1]:
        return 1.0
    chosen = np.random.default_rng(0).permutation(len(codes))[:_COMPARED_ROWS]
    equal, width = 0, codes.shape[1]
    one = np.zeros(width)  # pairs that differ in this column only
    two = np.zeros((width, width))
    for row in chosen:
        differs = codes != codes[row]
        n_columns = differs.sum(axis=1)
        equal += np.sum(n_columns == 0) - 1
        one += differs[n_columns == 1].sum(axis=0)
        pairs = differs[n_columns == 2].astype(float)
        two += pairs.T @ pairs
    if equal == 0:
        return 0.0
    excess = equal
    for j in range(width):
        others = np.arange(width) != j
        agree, differ = one[others].sum(), two[j, others].sum()
        if agree + differ < 5:
            if width == 1:  # the column alone: as many pairs as its values make
                return 1.0 if len(np.unique(codes)) < 0.5 * len(codes) else 0.0
            continue
        c = agree / (agree + differ)
        if c < 1:
            excess = min(excess, (equal - c * (equal + one[j])) / (1 - c))
    return float(np.clip(1 - excess / equal, 0, 1))


def _rounded_copies(X, folds):
    """Share of test rows that are a training row after rounding to some decimals, or before."""
    values = complete_columns(X)
    if not values.shape[1]:
        return 0.0
    worst = 0.0
    for decimals in range(5):
        rounded = np.round(values, decimals)
        coarse = np.abs(rounded - values).max(axis=1) < 1e-9
        if not 0.01 < coarse.mean() < 0.99:
            continue
        keys = row_keys(rounded)
        if len(np.unique(keys[~coarse])) < 0.9 * np.sum(~coarse):
            continue  # rows become equal by rounding alone
        shares = [
            (
                np.sum(coarse[test] & np.isin(keys[test], keys[train[~coarse[train]]]))
                + np.sum(~coarse[test] & np.isin(keys[test], keys[train[coarse[train]]]))
            )
            / len(test)
            for train, test in folds
        ]
        worst = max(worst, float(np.mean(shares)))
    return worst


def _near_copies(X, folds):
    """Share of test rows that are far too close to a training row; 0 if unknown.

    With k neighbours at distances d_1 < ... < d_k in a space of local dimension D, P(d_1 / d_k < r)
    is about (k - 1) r^D (as in the estimator of D by Facco et al., Scientific Reports 7, 2017). D
    is estimated from neighbours beyond the fourth, which copies do not move.
    """
    import pandas as pd

    names, values = numeric_columns(X)
    if len(values) < 50 or len(names) < 2:
        return 0.0
    middle = [np.median(c[np.isfinite(c)]) if np.isfinite(c).any() else 0 for c in values.T]
    values = np.where(np.isfinite(values), values, middle)
    levels = np.array([len(np.unique(column)) for column in values.T])
    spread = np.subtract(*np.percentile(values, [75, 25], axis=0))
    measured = (levels >= _MANY_LEVELS) & (spread > 0)
    # With so few different rows that many are equal or adjacent, distances say nothing.
    if measured.sum() < 2 or np.log(levels[measured]).sum() < 2 * np.log(len(values)):
        return 0.0
    values = values[:, measured] / spread[measured]
    others = as_frame(X).drop(columns=[n for n, use in zip(names, measured, strict=True) if use])
    codes = np.column_stack(
        [np.zeros(len(values)), *(pd.factorize(others[name])[0] for name in others)]
    )
    shares = []
    for train, test in folds[:3]:
        if len(train) < 12:
            return 0.0
        test = test[:: max(1, len(test) // _CHECKED_TEST_ROWS)]
        near = NearestNeighbors(n_neighbors=10).fit(values[train])
        distances, nearest = near.kneighbors(values[test])
        fifth, last = distances[:, 4], distances[:, 9]
        known = (fifth > 0) & (last > fifth)
        if known.sum() < 10:
            return 0.0
        # In D dimensions the mean of D log(d_10 / d_5) is 1/5 + ... + 1/9.
        dimension = sum(1 / i for i in range(5, 10)) / np.log(last[known] / fifth[known]).mean()
        limit = (_CHANCE / 4) ** (1 / dimension)
        # Words, flags and other columns of few values are not jittered.
        agree = (codes[test] == codes[train[nearest[:, 0]]]).mean(axis=1) > 0.8
        shares.append(np.mean(agree & (distances[:, 0] < limit * fifth)))
    return float(np.mean(shares))


def interpolated_rows(X, y, classification):
    """Whether rows lie on the line between two others of their class, as those of SMOTE do."""
    check = "resampling before the outer split"
    values = complete_columns(X)
    is_whole = (values == np.round(values)).all(axis=0) & (np.abs(values) < 1e9).all(axis=0)
    levels = np.array([len(np.unique(column)) for column in values.T])
    whole = values[:, is_whole & (levels >= _MANY_LEVELS)]
    values = values[:, ~is_whole & is_continuous(values, 0.4)]
    if not classification or np.ndim(y) != 1 or max(values.shape[1], whole.shape[1]) < 3:
        return Finding(
            check, "not checked", "requires classes and at least three columns of many values"
        )
    values = (values - values.mean(axis=0)) / np.where(
        values.std(axis=0) > 0, values.std(axis=0), 1
    )
    values = _independent(values)
    measures = [(values, _share_between), (whole, _share_between_rounded)]
    measures = [(table, share) for table, share in measures if table.shape[1] >= 3]
    if not measures:
        return Finding(check, "not checked", "fewer than three independent columns of many values")
    labels, counts = np.unique(y, return_counts=True)
    worst, where = 0.0, None
    for label in labels[counts >= 10]:
        share = max(share(table[np.asarray(y) == label]) for table, share in measures)
        if share > worst:
            worst, where = share, label
    verdict = "leak" if worst > 0.05 else "suspect" if worst > 0.01 else "ok"
    return Finding(
        check,
        verdict,
        f"{worst:.0%} of the rows" + (f" of class {where!s}" if where is not None else "")
        + " lie exactly between two others of their class",
        "pass the original rows, and put the sampler into an imblearn Pipeline (or the "
        "sampler= of a stack)",
        float(worst),
    )  # fmt: skip


def _share_between_rounded(rows):
    """Share of rows that lie on the segment between two neighbours, but for rounding.

    Samplers round what they make of whole numbers, and small steps of those form lines.
    A segment says something if few rows near it would be on it by chance: about as many as one in
    the product of its lengths, in units, in all columns but the longest one. What other columns
    tell of a column does not count.
    """
    rows = np.unique(rows, axis=0)
    n_neighbours = min(_NEIGHBOURS, len(rows) - 1)
    if n_neighbours < 2 or len(rows) <= rows.shape[1]:
        return 0.0
    triangle, pivots = qr(rows - rows.mean(axis=0), mode="r", pivoting=True)
    unknown = np.empty(rows.shape[1])
    unknown[pivots] = np.abs(np.diag(triangle)) / np.sqrt(len(rows))
    scale = np.maximum(rows.std(axis=0), 1e-12)
    checked = np.linspace(0, len(rows) - 1, min(_CHECKED_ROWS, len(rows))).astype(int)
    near = NearestNeighbors(n_neighbors=n_neighbours + 1).fit(rows / scale)
    near = near.kneighbors(rows[checked] / scale, return_distance=False)[:, 1:]
    first, second = np.triu_indices(n_neighbours, 1)
    n_between = 0
    for row, own in zip(rows[checked], near, strict=True):
        start = rows[own[first]]
        step = rows[own[second]] - start  # (pair, column)
        length = np.log(np.maximum(np.minimum(np.abs(step), unknown) / 2, 1.0))
        surprise = length.sum(axis=1) - length.max(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = ((row - start)[..., None] + np.array([-1.0, 1.0])) / step[..., None]
        # A column in which the two agree holds any place, or none.
        still = step == 0
        fits = np.where(still, np.abs(row - start) <= 1, True).all(axis=1)
        low = np.where(still, 0.0, ends.min(axis=2)).max(axis=1)
        high = np.where(still, 1.0, ends.max(axis=2)).min(axis=1)
        on = fits & (np.maximum(low, 0.0) <= np.minimum(high, 1.0))
        n_between += bool((on & (surprise > _SURPRISE)).any())
    return n_between / len(checked)


def _independent(values):
    """Columns that are no sum of others: one quantity in several units is one column."""
    if not values.shape[1]:
        return values
    _, triangle, pivots = qr(values - values.mean(axis=0), mode="economic", pivoting=True)
    size = np.abs(np.diag(triangle))
    return values[:, pivots[: len(size)][size > 1e-6 * size[0]]] if size[0] > 0 else values[:, :0]


def _share_between(rows):
    """Share of rows that lie on the segment between two of their neighbours."""
    rows = np.unique(rows, axis=0)
    n_neighbours = min(_NEIGHBOURS, len(rows) - 1)
    if n_neighbours < 2:
        return 0.0
    checked = rows[np.linspace(0, len(rows) - 1, min(_CHECKED_ROWS, len(rows))).astype(int)]
    near = NearestNeighbors(n_neighbors=n_neighbours + 1).fit(rows)
    near = near.kneighbors(checked, return_distance=False)[:, 1:]
    steps = rows[near] - checked[:, None]  # (row, neighbour, column)
    length = np.linalg.norm(steps, axis=2)
    inner = np.einsum("rac,rbc->rab", steps, steps)
    # Two neighbours are on opposite sides if the cosine of their directions is -1.
    cosine = inner / np.maximum(length[:, :, None] * length[:, None, :], 1e-12)
    # Columns that are 0 in most rows form lines by themselves: steps must move in three columns.
    moves = (np.abs(steps) > 1e-9).sum(axis=2) >= 3
    opposite = (cosine < -1 + 1e-9) & moves[:, :, None] & moves[:, None, :]
    return float(opposite.any(axis=(1, 2)).mean())
