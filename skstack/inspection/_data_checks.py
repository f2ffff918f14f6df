"""Checks of rows, targets and splits, before anything is trained."""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.neighbors import NearestNeighbors
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from skstack._base.tables import is_dataframe
from skstack.inspection._association import association
from skstack.inspection._overlap import row_keys
from skstack.inspection._report import Finding
from skstack.preprocessing._columns import holds_numbers

_CHECKED_ROWS = 400  # rows of a class that are checked for interpolation
_NEIGHBOURS = 16
_BINS = 64
_CANDIDATES = 3  # columns that are evaluated out-of-fold


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
    """Whether test rows are among the training rows."""
    keys = row_keys(X)
    share = np.mean([np.isin(keys[test], keys[train]).mean() for train, test in folds])
    verdict = "leak" if share > 0.1 else "suspect" if share > 0.01 else "ok"
    return Finding(
        "duplicates across folds",
        verdict,
        f"{share:.1%} of the test rows equal a training row in all columns",
        "drop duplicates (or give all copies one group) before splitting",
        float(share),
    )


def scaled_with_test_rows(X):
    """Whether columns look as if a scaler had been fitted on all rows."""
    check = "scaling before the outer split"
    values = _numbers(X)
    if values is None or values.shape[1] == 0 or len(values) < 3:
        return Finding(check, "not checked", "no numeric columns")
    spread = values.std(axis=0)
    varied = np.array([len(np.unique(column[:1000])) > 5 for column in values.T]) & (spread > 0)
    if not varied.any():
        return Finding(check, "ok", "no column looks scaled")
    values, spread = values[:, varied], spread[varied]
    unit = np.abs(spread - 1) < 1e-5
    unit |= np.abs(values.std(axis=0, ddof=1) - 1) < 1e-5
    standard = unit & (np.abs(values.mean(axis=0)) < 1e-5)
    ends = (np.abs(values.min(axis=0)) < 1e-7) & (np.abs(values.max(axis=0) - 1) < 1e-7)
    for marked, how, verdict in (
        (standard, "mean 0 and standard deviation 1", "leak"),
        (ends, "minimum 0 and maximum 1", "suspect"),
    ):
        if marked.mean() > 0.5:
            return Finding(
                check,
                verdict,
                f"{marked.sum()} of {len(marked)} numeric columns have {how} over all rows, test "
                "rows included, to the last digit",
                "pass unscaled columns, and put the scaler into a Pipeline",
                float(marked.mean()),
            )
    return Finding(check, "ok", "no scaler was fitted on all rows")


def interpolated_rows(X, y, classification):
    """Whether rows lie on the line between two others of their class, as those of SMOTE do."""
    check = "resampling before the outer split"
    values = _numbers(X)
    if not classification or np.ndim(y) != 1 or values is None or values.shape[1] < 3:
        return Finding(check, "not checked", "requires classes and at least three numeric columns")
    values = (values - values.mean(axis=0)) / np.where(
        values.std(axis=0) > 0, values.std(axis=0), 1
    )
    labels, counts = np.unique(y, return_counts=True)
    worst, where = 0.0, None
    for label in labels[counts >= 10]:
        share = _share_between(values[np.asarray(y) == label])
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


def leaking_columns(X, y, classification):
    """Whether a column alone predicts the target."""
    check = "a column that reveals the target"
    frame = _frame(X)
    if frame is None or np.ndim(y) != 1:
        return Finding(check, "not checked", "requires columns and one target")
    columns = {name: _codes(frame[name]) for name in frame.columns}
    in_sample = {name: _in_sample_r2(codes, y, classification) for name, codes in columns.items()}
    candidates = sorted(in_sample, key=in_sample.get, reverse=True)[:_CANDIDATES]
    best, name = -1.0, None
    for column in candidates:
        score = _out_of_fold_score(columns[column], y, classification)
        if score is None:
            return Finding(check, "not checked", "a class has too few rows")
        if score > best:
            best, name = score, column
    verdict = "leak" if best >= 0.99 else "suspect" if best >= 0.98 else "ok"
    measure = "ROC AUC" if classification else "R2"
    return Finding(
        check,
        verdict,
        f"column {name!s} alone reaches a cross-validated {measure} of {best:.3f}",
        f"check where column {name!s} comes from, and whether it is known at prediction time",
        float(max(0.0, (2 * best - 1) if classification else best)),
    )


def _in_sample_r2(codes, y, classification):
    """R2 of the target given the bin of the value: a cheap estimate of the score of a tree."""
    _, bins = np.unique(np.nan_to_num(codes[:, 0]), return_inverse=True)
    if bins.max() >= _BINS:
        bins = np.argsort(np.argsort(codes[:, 0])) * _BINS // len(codes)
    numbers = np.unique(y, return_inverse=True)[1] if classification else y.astype(float)
    targets = (numbers[:, None] == np.unique(numbers)).T if classification else [numbers]
    count = np.maximum(np.bincount(bins), 1)
    within = sum(
        np.sum((target - (np.bincount(bins, target) / count)[bins]) ** 2) for target in targets
    )
    total = sum(np.sum((target - np.mean(target)) ** 2) for target in targets)
    return 1 - within / total if total > 0 else 0.0


def _out_of_fold_score(codes, y, classification):
    """AUC or R2 of a small tree; None if a class has too few rows."""
    if classification and np.unique(y, return_counts=True)[1].min() < 3:
        return None
    tree = DecisionTreeClassifier if classification else DecisionTreeRegressor
    tree = tree(max_leaf_nodes=32, min_samples_leaf=2, random_state=0)
    folds = (StratifiedKFold if classification else KFold)(3, shuffle=True, random_state=0)
    predictions = None
    for train, test in folds.split(codes, y):
        tree.fit(codes[train], y[train])
        part = tree.predict_proba(codes[test]) if classification else tree.predict(codes[test])
        predictions = np.empty((len(y), *part.shape[1:])) if predictions is None else predictions
        predictions[test] = part
    return association(predictions, y, classification)


def _codes(column):
    import pandas as pd

    if not holds_numbers(column):
        column = pd.Series(pd.factorize(column)[0])
    return column.to_numpy(dtype=np.float64, na_value=np.nan).reshape(-1, 1)


def _frame(X):
    import pandas as pd

    if is_dataframe(X):
        return X.to_pandas() if hasattr(X, "to_pandas") else X
    X = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
    return pd.DataFrame(X, columns=[f"x{i}" for i in range(X.shape[1])]) if X.ndim == 2 else None


def _numbers(X):
    frame = _frame(X)
    if frame is None:
        return None
    numeric = [holds_numbers(frame.iloc[:, column]) for column in range(frame.shape[1])]
    values = frame.loc[:, numeric].to_numpy(dtype=np.float64, na_value=np.nan)
    return values[:, np.isfinite(values).all(axis=0)]
