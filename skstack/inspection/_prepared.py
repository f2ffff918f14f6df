"""Checks of columns that something computed from all rows before the outer split."""

from __future__ import annotations

import inspect
import itertools

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.neighbors import NearestNeighbors

from skstack._base.tables import is_dataframe, n_rows, take_rows
from skstack.inspection._columns import distinct_share, is_continuous, numeric_columns
from skstack.inspection._overlap import equal_cells
from skstack.inspection._report import Finding

_EXACT = 1e-8
_FLOAT32 = 1e-5
_QUANTILE_END = 5.199337582605575  # where QuantileTransformer clips a normal distribution
_LEAST_REPEATS = 3
_STEPS = 5  # of a least trimmed squares regression
_FEW_ROWS = 20


def scaled_with_test_rows(X):
    """Whether columns look as if a scaler had been fitted on all rows."""
    check = "scaling before the outer split"
    _, values = numeric_columns(X)
    values = values[:, np.isfinite(values).sum(axis=0) >= 3]
    if not values.shape[1]:
        return Finding(check, "not checked", "no numeric columns")
    scaled, near = {}, {}
    for column in values.T:
        for how, exact in _scales_of(column[np.isfinite(column)]):
            near[how] = near.get(how, 0) + 1
            scaled[how] = scaled.get(how, 0) + exact
    # A mean of 0 and a deviation of 1 are no accident. Two ends may be: of columns that lie between
    # them, all must have them, and more than one, for a scaler of some rows hits a few by chance.
    scaled = {
        how: number
        for how, number in scaled.items()
        if (number and how == _STANDARD)
        or (number == near[how] and (number > 1 or values.shape[1] == 1))
    }
    if not scaled:
        scaled = _scaled_grids(values)
    if not scaled:
        return Finding(check, "ok", "no column has a moment, a quantile or an end of a scaler")
    how = max(scaled, key=scaled.get)
    return Finding(
        check,
        "leak",
        f"{scaled[how]} of {values.shape[1]} numeric columns have {how} over all rows, test rows "
        "included, to the last digit",
        "pass unscaled columns, and put the scaler into a Pipeline",
        float(scaled[how] / values.shape[1]),
    )


_STANDARD = "mean 0 and standard deviation 1"


def _scales_of(values):
    """(what a scaler leaves, whether that is so to the last digit) of what values come near to."""
    spread = values.std()
    if not spread or len(np.unique(values[:1000])) <= 5:
        return
    deviation = min(abs(spread - 1), abs(values.std(ddof=1) - 1))
    if abs(values.mean()) < 1e-5:
        yield _STANDARD, deviation < 1e-5
    elif deviation < 0.05:
        yield "standard deviation 1", deviation < 1e-8
    low, high = values.min(), values.max()
    inner = values[(values > low) & (values < high)]
    # Shares have both ends in many rows, or few different values in between.
    if not len(inner) or distinct_share(inner[:, None])[0] <= 0.5:
        return
    if np.ptp(np.diff(np.sort(values))) < 1e-6 * (high - low):  # as of np.linspace(0, 1, n)
        return
    n_low, n_high = np.sum(values == low), np.sum(values == high)
    once = n_high == 1 and (n_low == 1 or n_low > 0.02 * len(values))
    ends = ((0, 1), (-1, 1), (-_QUANTILE_END, _QUANTILE_END))
    for lower, upper in ends:
        if max(abs(low - lower), abs(high - upper)) < 0.2 * (upper - lower):
            exact = max(abs(low - lower), abs(high - upper)) < 1e-7
            yield f"minimum {lower:.4g} and maximum {upper:.4g}", exact and once
    size = np.abs(values)
    if 0.7 < size.max() < 1.4 and abs(low + high) > 1e-7:
        yield (
            "a largest absolute value of 1",
            abs(size.max() - 1) < 1e-9 and (np.sum(size == size.max()) == 1),
        )
    lower, middle, upper = np.percentile(values, [25, 50, 75])
    if abs(middle) < 0.2 and abs(upper - lower - 1) < 0.2:
        exact = abs(middle) < 1e-7 and abs(upper - lower - 1) < 1e-7
        yield "median 0 and interquartile range 1", exact


def _scaled_grids(values):
    """What a scaler leaves of columns of whole or rounded numbers, each with steps of its own.

    Shares of one number of things, and rounded shares, have steps in common.
    """
    varied = [np.unique(column[np.isfinite(column)]) for column in values.T]
    varied = [levels for levels in varied if len(levels) > 5 and _is_grid(levels)]
    if len(varied) < 3:
        return {}
    steps = {round(float(1 / np.diff(levels).min()), 4) for levels in varied}
    rounded = [np.abs(np.round(levels, 4) - levels).max() < 1e-9 for levels in varied]
    if len(steps) < 3 or np.mean(rounded) > 0.5:
        return {}
    if all(abs(levels[0]) + abs(levels[-1] - 1) < 1e-9 for levels in varied):
        return {"minimum 0 and maximum 1": len(varied)}
    if all(abs(np.abs(levels).max() - 1) < 1e-9 for levels in varied):
        return {"a largest absolute value of 1": len(varied)}
    return {}


def _is_grid(levels):
    """Whether sorted values are whole numbers of one step apart."""
    steps = np.diff(levels) / np.diff(levels).min()
    return steps.max() < 1e5 and np.abs(steps - np.round(steps)).max() < 1e-4


def prepared_with_test_rows(X, y, classification):
    """Whether columns were imputed, projected or encoded with statistics of all rows."""
    check = "imputation, projection or encoding before the outer split"
    names, values = numeric_columns(X)
    words = X.tocsr() if hasattr(X, "tocsr") else _mostly_zeros(values)
    evidence = None if words is None else _tfidf(words)
    if not evidence:
        if not names or len(values) < _FEW_ROWS:
            return Finding(check, "not checked", "no numeric columns, or too few rows")
        y = np.asarray(y)
        evidence = (
            _projected(values, y, classification)
            or _imputed(names, values)
            or _imputed_by_neighbours(names, values)
            or _imputed_by_regression(names, values)
            or (y.ndim == 1 and _encoded(names, values, y, classification))
        )
    if not evidence:
        return Finding(check, "ok", "no column holds means, medians or directions of all rows")
    return Finding(
        check,
        "leak",
        evidence,
        "pass the columns as they were before, and put imputers, projections and encoders into a "
        "Pipeline",
        1.0,
    )


def _whole_counts(X, weights):
    """(rows whose values are counts times the weights of words, rows that were looked at)."""
    terms = X.data / weights[X.indices]
    agree = checked = 0
    for start, end in itertools.pairwise(X.indptr[:201]):
        row = terms[start:end]
        if len(row) > 2 and len(np.unique(X.data[start:end])) > 1:
            ratio = row / row.min()
            checked += 1
            # With sublinear_tf, 1 + log(count) takes the place of the count.
            agree += any(np.abs(r - np.round(r)).max() < 1e-5 for r in (ratio, np.exp(ratio - 1)))
    return agree, checked


def _mostly_zeros(values):
    """A sparse matrix of numbers that may be the weights of words, else None."""
    if values.shape[1] < 3 or not np.isfinite(values).all() or (values == 0).mean() < 0.5:
        return None
    return csr_matrix(values)


def _tfidf(X):
    """Whether the weights of a TfidfVectorizer are those of all rows of X."""
    n, width = X.shape
    if X.dtype.kind != "f" or not X.nnz or width < 3 or (X.data < 0).any():
        return None
    frequency = np.bincount(X.indices[X.data != 0], minlength=width)
    if (frequency == n).all():
        return None
    for smooth in (1, 0):
        with np.errstate(all="ignore"):
            agree, checked = _whole_counts(X, np.log((n + smooth) / (frequency + smooth)) + 1)
        if checked >= 5 and agree > 0.9 * checked:
            return f"the weights of {width} words are the TF-IDF weights of all {n} rows"
    return None


def _projected(values, y, classification):
    """Columns whose covariance is exactly that of a projection fitted on all rows."""
    complete = values[:, np.isfinite(values).all(axis=0)]
    complete = complete[:, is_continuous(complete)]
    length = np.sqrt((complete**2).sum(axis=0))
    complete = complete[:, length > 0]
    if not complete.shape[1] or len(complete) <= complete.shape[1] + 2:
        return None
    single = np.array_equal(complete, complete.astype(np.float32))
    exact = _FLOAT32 if single else _EXACT
    if classification and y.ndim == 1:
        labels, code = np.unique(y, return_inverse=True)
        means = np.array([complete[code == k].mean(axis=0) for k in range(len(labels))])
        within = ((complete - means[code]) ** 2).sum(axis=0)
        unit = np.minimum(abs(within / len(y) - 1), abs(within / (len(y) - len(labels)) - 1))
        middle = np.abs(complete.mean(axis=0)) < exact * np.maximum(complete.std(axis=0), 1e-300)
        if (unit < exact * 100)[middle].any():
            return "columns have mean 0, and variance 1 within the classes of all rows (LDA)"
    spread = complete.std(axis=0)
    centred = np.abs(complete.mean(axis=0)) < exact * np.maximum(spread, 1e-300)
    for marked, means, how in (
        (centred, complete.mean(axis=0), "mean 0 and correlation 0 (PCA)"),
        (np.ones(len(spread), bool), 0, "a scalar product of 0 (SVD)"),
    ):
        chosen = complete[:, marked] - (means[marked] if np.ndim(means) else 0)
        if chosen.shape[1] < 2:
            continue
        chosen = chosen / np.sqrt((chosen**2).sum(axis=0))
        cosine = np.abs(chosen.T @ chosen) + np.eye(chosen.shape[1])
        pairs = int((cosine < exact).sum() // 2)
        if pairs > (2 if single else 0):
            return f"{pairs} pairs of columns have {how} over all rows, to the last digit"
    return None


def _imputed(names, values):
    """Columns in which one value fills many rows and is a mean or median of all others."""
    filled = {}
    for name, column in zip(names, values.T, strict=True):
        known = column[np.isfinite(column)]
        levels, counts = np.unique(known, return_counts=True)
        if len(levels) < _FEW_ROWS or counts.max() < _LEAST_REPEATS:
            continue
        value = levels[counts.argmax()]
        rest = known[known != value]
        if not rest.std():
            continue
        if abs(value - rest.mean()) < 1e-7 * rest.std():
            filled[name] = "mean"
        elif (
            value != 0  # a natural mass of zeros may split the rest in halves
            and distinct_share(rest[:, None])[0] > 0.9
            and abs(np.sum(rest < value) - np.sum(rest > value)) <= 1
        ):
            filled[name] = "median"
    if not filled:
        return None
    name, how = next(iter(filled.items()))
    return f"{len(filled)} column(s), such as {name}, are filled with the {how} of all rows"


def _imputed_by_neighbours(names, values):
    """Columns in which values are the mean of the five nearest rows, to the last digit."""
    usable = np.isfinite(values).all(axis=0)
    values, names = values[:, usable], [n for n, use in zip(names, usable, strict=True) if use]
    n, width = values.shape
    if not 2 <= width <= 30 or not 30 <= n <= 2000:
        return None
    filled = {}
    for j, name in enumerate(names):
        column = values[:, j]
        if distinct_share(column[:, None])[0] < 0.5:
            continue
        near = NearestNeighbors(n_neighbors=6).fit(np.delete(values, j, axis=1))
        near = near.kneighbors(return_distance=False)[:, :5]
        same = np.abs(column[near].mean(axis=1) - column) < 1e-9 * column.std()
        same &= np.ptp(column[near], axis=1) > 0
        same &= _off_grid(column)  # means of rounded values meet other rounded values by chance
        if same.sum() >= _LEAST_REPEATS:
            filled[name] = int(same.sum())
    if not filled:
        return None
    name = max(filled, key=filled.get)
    return f"{filled[name]} values of column {name} are means of the five nearest of all rows"


def _imputed_by_regression(names, values):
    """Columns in which values are what a line through the other columns, fitted on the rest, gives.

    As in a least trimmed squares regression, the rows of the smallest residuals are fitted again
    and again: filled rows have none. Laws hold in most rows, and without regard to the rest.
    """
    usable = np.isfinite(values).all(axis=0) & (np.ptp(values, axis=0) > 0)
    values, names = values[:, usable], [n for n, use in zip(names, usable, strict=True) if use]
    n, width = values.shape
    if not 3 <= width <= 20 or not 60 <= n <= 5000:
        return None
    of_values = is_continuous(values, 0.5)
    odd = np.array([_off_grid(column) for column in values.T])  # means of rounded values are
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    filled = {}
    for j, name in enumerate(names):
        column, others = values[:, j], np.column_stack([np.delete(values, j, axis=1), np.ones(n)])
        n_odd = odd[j].sum()
        if not (of_values[j] if n_odd == n else n_odd > width):
            continue
        first = np.abs(column - others @ np.linalg.lstsq(others, column)[0])
        first[~odd[j]] = np.inf
        for share in (0.2, 0.1, 0.05) if n_odd == n else (0.7 * n_odd / n,):
            size, residual, before = max(int(share * n), 2 * width), first, ()
            for _ in range(_STEPS):
                chosen = np.sort(np.argsort(residual)[:size])
                if np.array_equal(chosen, before):
                    break
                line = np.linalg.lstsq(others[chosen], column[chosen])[0]
                residual, before = np.abs(column - others @ line), chosen
                residual[~odd[j]] = np.inf
            exact = residual < 1e-7
            if not width + _LEAST_REPEATS < exact.sum() < 0.4 * n:
                continue
            of_rest = np.linalg.lstsq(others[~exact], column[~exact])[0]
            spread = np.std(column[~exact] - others[~exact] @ of_rest)
            distance = np.sqrt(np.mean((others[exact] @ (line - of_rest)) ** 2))
            # Lines through two samples of n rows are about this far apart.
            if distance < 0.4 * spread * np.sqrt(width / n):
                filled[name] = int(exact.sum())
                break
    if not filled:
        return None
    name = max(filled, key=filled.get)
    return f"{filled[name]} values of column {name} lie on the line through all other rows"


def _off_grid(column):
    """Values with more decimals than most others of the column."""
    for decimals in range(7):
        off = np.abs(np.round(column, decimals) - column) > 1e-9 * max(1.0, np.abs(column).max())
        if off.mean() < 0.5:
            return off
    return np.ones(len(column), dtype=bool)


def _encoded(names, values, y, classification):
    """Columns whose values are target means of their own rows, test rows included."""
    if classification:
        labels, y = np.unique(y, return_inverse=True)
        if len(labels) != 2:
            return None
    y = y.astype(float)
    prior, variance = y.mean(), y.var()
    for name, column in zip(names, values.T, strict=True):
        if not np.isfinite(column).all():
            continue
        levels, level, counts = np.unique(column, return_inverse=True, return_counts=True)
        repeated = counts >= 2
        if repeated.sum() < 4 or counts[repeated].sum() < 0.8 * len(y):
            continue
        means = np.bincount(level, y) / counts
        within = np.bincount(level, (y - means[level]) ** 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            shrunk = variance * counts / (variance * counts + within / counts)
            smoothing = counts * (means - levels) / (levels - prior)
            odds = np.log(means / (1 - means))
        off = np.abs(levels - prior) > 1e-9
        constant = smoothing[off & repeated]
        guesses = [means, odds, shrunk * means + (1 - shrunk) * prior]
        if len(constant) > 3 and np.median(constant) > 0:
            same = np.abs(constant / np.median(constant) - 1) < 1e-6
            if same.sum() > max(3, 0.8 * len(same)):  # levels of equal values count as one
                guesses.append(levels)
        for guess in guesses:
            use = repeated & np.isfinite(guess)
            close = np.abs(guess - levels)[use] < 1e-8 * max(y.std(), 1e-9)
            if close.sum() >= max(4, 0.8 * use.sum()):  # levels of equal values count as one
                return f"column {name} holds target means of all rows for {close.sum()} levels"
        for frequency in (levels * len(y), levels):  # levels of one frequency count as one
            with np.errstate(divide="ignore", invalid="ignore"):
                times = counts / frequency
            whole = np.isfinite(times).all() and np.abs(times - np.round(times)).max() < 1e-6
            if whole and times.min() > 0.5 and len(levels) > 4 and np.prod(frequency) > 1e5:
                return f"column {name} holds the frequencies of its levels among all rows"
    return None


# Rows before the user's own preparation -----------------------------------------------------------


def prepared_alone(raw, prepare, X, y, folds, time):
    """Whether `prepare` gives the same training rows if it sees the training rows alone.

    With times, only rows up to a moment are passed: features may use all that is earlier.
    """
    check = "preparation of raw rows"
    if prepare is None:
        return Finding(check, "not checked", "raw rows and their preparation were not passed")
    n = n_rows(X)
    if n_rows(raw) != n:
        return Finding(
            check,
            "suspect",
            f"raw has {n_rows(raw)} rows and X has {n}: rows were dropped, made or joined, so that "
            "the preparation cannot be repeated on the training rows",
            "drop and make rows inside the estimator, or before raw",
            0.3,
        )
    whole, again = _table(_call(prepare, raw, y)), _table(_call(prepare, raw, y))
    if _differences(whole, again):
        return Finding(
            check, "not checked", "prepare(raw) is random: two calls give different rows"
        )
    subsets = [train for train, _ in folds]
    if time is not None:
        order = np.argsort(time, kind="stable")
        cuts = np.linspace(0.4, 0.9, len(folds))
        subsets = [np.sort(order[time[order] <= time[order[int(c * (n - 1))]]]) for c in cuts]
    worst = {}
    for rows in subsets:
        alone = _table(_call(prepare, take_rows(raw, rows), take_rows(y, rows)))
        if len(alone) != len(rows):
            worst["number of rows"] = 1.0
            continue
        for column, share in _differences(whole.iloc[rows], alone).items():
            worst[column] = max(share, worst.get(column, 0))
    passed = _table(X)
    mismatch = passed.shape != whole.shape or bool(_differences(passed, whole))
    if worst:
        column = max(worst, key=worst.get)
        return Finding(
            check,
            "leak",
            f"{len(worst)} prepared column(s), such as {column}, change in up to "
            f"{worst[column]:.0%} of the training rows if the other rows are left out",
            "fit the preparation on training rows: as a step of a Pipeline, or with earlier rows "
            "only",
            float(max(worst.values())),
        )
    if mismatch:
        return Finding(
            check,
            "suspect",
            "prepare(raw) is not X: something else was done to the rows",
            "pass what X was made of, and the function that made it",
            0.3,
        )
    return Finding(
        check, "ok", f"{len(subsets)} sets of training rows alone are prepared as with all rows"
    )


def _call(prepare, raw, y):
    """What `prepare` makes of rows; functions of two arguments also get y."""
    required = [
        p
        for p in inspect.signature(prepare).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    result = prepare(raw, y) if len(required) > 1 else prepare(raw)
    return result[0] if isinstance(result, tuple) else result


def _table(X):
    import pandas as pd

    if hasattr(X, "toarray"):
        X = X.toarray()
    if is_dataframe(X):
        frame = X.to_pandas() if hasattr(X, "to_pandas") else X
        return frame.reset_index(drop=True)
    X = np.asarray(X)
    return pd.DataFrame(X.reshape(len(X), -1))


def _differences(expected, actual):
    """Share of rows in which each column differs; columns of one table only differ everywhere."""
    if len(expected) != len(actual):
        return {"number of rows": 1.0}
    shares = dict.fromkeys(set(expected.columns) ^ set(actual.columns), 1.0)
    for name in expected.columns.intersection(actual.columns):
        a, b = expected[name], actual[name]
        if a.dtype.kind in "fiub" and b.dtype.kind in "fiub":
            a, b = a.to_numpy(float), b.to_numpy(float)
            scale = max(np.nanstd(a), 1e-12) if len(a) else 1.0
            equal = (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) < 1e-6 * scale)
        else:
            equal = equal_cells(a, b)
        if not equal.all():
            shares[name] = float(1 - equal.mean())
    return shares
