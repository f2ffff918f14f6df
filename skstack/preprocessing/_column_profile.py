"""Numeric training columns: moments, precision in float32, and profiles to detect another scale."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields, replace

import narwhals.stable.v2 as nw
import numpy as np
from scipy import sparse
from sklearn.utils.sparsefuncs import mean_variance_axis, min_max_axis
from sklearn.utils.validation import check_consistent_length

from skstack._base.atomic_fit import warn_once
from skstack._base.disk_table import DiskArray, chunk_rows, in_memory
from skstack._base.tables import glanced, take_rows
from skstack.preprocessing._columns import (
    as_numbers,
    as_table,
    categorical_mask,
    column_at,
    holds_numbers,
    plain_numbers,
    take_columns,
)

# Rows of one call that are compared with the profile.
COMPARED_ROWS = 1_000
# Training rows from which magnitudes are computed.
MAGNITUDE_ROWS = 10_000
# Limits the rows of wide tables: the comparison must be much cheaper than the prediction.
MOST_NUMBERS = 2**22
# Fewer training rows do not show the range of new rows; for few new rows more are needed.
LEAST_ROWS, LEAST_ROWS_FOR_FEW = 100, 300
# From this many rows on, most of them must agree, so that outliers cause no warning.
SEVERAL_ROWS = 5
# From this many rows on, moments are compared.
MANY_ROWS = 50
# Trends move columns by a few standard deviations, or by one length of the observed range.
FAR_DEVIATIONS, FAR_REACHES = 10.0, 3.0
# A single row must be this much further out than any training row, and more with heavy tails.
LEAST_FACTOR = 5.0
# Small values are closer to 0 than nearly all of the training rows, and than a tenth of the median.
SMALL_SHARE, SMALL_PART = 0.02, 0.1
# Standardised columns have these moments.
STANDARD_MEAN, STANDARD_DEVIATION = 0.3, (0.7, 1.4)
# Trends and clusters shift rows without spreading them further; raw columns in place of
# standardised ones do both, in most columns at once.
WIDER, OUTSIDE_SHARE, LEAST_WIDER = 1.7, 0.25, 3
# Below this fraction of the mean a standard deviation is rounding error of float32.
ROUNDING = 1e-6
NAMED_COLUMNS = 3


@dataclass(frozen=True, repr=False, eq=False)
class ColumnProfile:
    """Range and moments of the numeric columns that a network was fitted on.

    Used to detect rows on another scale, such as rows without the scaler of the training rows.

    Attributes
    ----------
    names : tuple of str
        Names of the numeric columns; ``x0``, ``x1``, ... for arrays. Arrays of rank 3 and more have
        one column per channel (last axis), over all other axes.

    mean, standard_deviation, minimum, maximum : ndarray of float64 of shape (n_columns,)
        In the columns' units; NaN is ignored.

    magnitudes : ndarray of float64 of shape (3, n_columns)
        Minimum, 2 % quantile and median of the absolute values above 0.

    n_rows : int
        Number of rows.

    Notes
    -----
    With 5 rows or more, a column is on another scale if

    - half of its values lie more than 10 standard deviations from the mean *and* three times as far
      from it as the furthest training row, or
    - 90 % of its nonzero values are closer to 0 than any training row's (from 50 rows on, with many
      different values: than 98 % of them) and than a tenth of the training rows' median.

    From 50 rows on, several columns are on another scale if

    - at least two, and half of those with a mean more than one standard deviation from 0 that were
      not standardised, have about mean 0 and standard deviation 1 now, or
    - at least three, and half of those that were standardised, no longer are, have more than 1.7
      times the standard deviation, and a quarter of their values out of the range.

    Fewer than 5 rows may be outliers. One column is enough if all its values lie ``max(5, r)``
    times as far from the mean as any training row, where ``r`` is the distance of that row in
    standard deviations, which allows for heavy tails. Otherwise half of the columns, and at least
    two, must be far in the sense above, or below a third of the smallest absolute value and a
    tenth of the median.

    Trends of a few standard deviations, outliers, heavy tails and rows of one kind are not
    reported; nor are scales that differ by little, such as a column with a training mean of 0.3 and
    standard deviation of 0.5 that is standardised later.

    Constant columns, categories and NaN are ignored, as are profiles of fewer than 100 rows (300
    for fewer than 5 new rows). At most 1,000 rows of a table, evenly spread, are compared.

    Examples
    --------
    >>> import numpy as np
    >>> from skstack.inspection import ColumnProfile
    >>> X = np.random.default_rng(0).normal([40.0, 3000.0], [10.0, 900.0], size=(500, 2))
    >>> profile = ColumnProfile.of(X)
    >>> profile.names, profile.n_rows, profile.mean.round(-1).tolist()
    (('x0', 'x1'), 500, [40.0, 2990.0])
    >>> profile.moved(X[:50]).tolist(), profile.moved(X[:50] * [1, 1000]).tolist()
    ([], [1])
    """

    names: tuple[str, ...]
    mean: np.ndarray
    standard_deviation: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    magnitudes: np.ndarray
    n_rows: int
    _indices: np.ndarray | None = None  # of the numeric columns; None for all
    _width: int = 0
    _counts: np.ndarray | None = None  # weight of the known values by column; None in older files

    def __post_init__(self):
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
        deviation, mean = self.standard_deviation, self.mean
        reach = np.maximum(np.abs(self.minimum - mean), np.abs(self.maximum - mean))
        known = (deviation > ROUNDING * np.abs(mean)) & np.isfinite(reach)
        if self.n_rows < LEAST_ROWS:
            known[:] = False
        ratio = np.divide(reach, deviation, out=np.ones_like(reach), where=known)
        smallest, small, middle = self.magnitudes
        never = np.where(known, 1.0, np.nan)  # comparisons with NaN are false
        far = never * np.maximum(FAR_DEVIATIONS * deviation, FAR_REACHES * reach)
        limits = {
            "_far": far,
            "_far_alone": np.maximum(far, np.maximum(LEAST_FACTOR, ratio) * reach),
            "_small": never * np.minimum(smallest, SMALL_PART * middle),
            "_small_for_many": never * np.minimum(small, SMALL_PART * middle),
            "_small_alone": never * np.minimum(smallest / 3, SMALL_PART * middle),
            "_needed": _half(known),
            "_standard": known & ~_unlike_standard(mean, deviation),
            "_unlike_standard": known
            & (np.abs(mean) > deviation)
            & _unlike_standard(mean, deviation),
        }
        for name, value in limits.items():
            object.__setattr__(self, name, value)

    def __repr__(self):
        shown = ", ".join(self.names[:NAMED_COLUMNS]) + (
            ", ..." if len(self.names) > NAMED_COLUMNS else ""
        )
        return f"ColumnProfile({len(self.names)} columns ({shown}) of {self.n_rows} rows)"

    def __sklearn_clone__(self):
        return self  # immutable

    @classmethod
    def of(cls, X, categorical_features="from_dtype", sample_weight=None):
        """Compute the profile of rows; of more than 2**20, of 2**17 of them, evenly spread.

        Of a table on disk at most 128 MB are read.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_rows, n_columns), or array of shape \
(n_rows, ..., n_channels)
            The rows that a network was fitted on, as passed to it: after every scaler.

        categorical_features : "from_dtype", None or array-like, default="from_dtype"
            Categorical columns, as in the estimators, are left out. So are columns that are not
            numeric.

        sample_weight : array-like of shape (n_rows,), default=None
            A row of weight w counts as w rows, and one of weight 0 as none.

        Returns
        -------
        ColumnProfile

        Raises
        ------
        ValueError
            If X has no rows of positive weight, or `categorical_features` is not valid for it.
        """
        if len(getattr(X, "shape", ())) == 2:
            X, sample_weight = glanced(X, sample_weight)
        if sample_weight is not None:
            check_consistent_length(X, sample_weight)
            if not np.all(sample_weight):
                rows = np.flatnonzero(sample_weight)
                if not rows.size:
                    raise ValueError("sample_weight is 0 for all rows; a profile needs at least 1.")
                X = X.tocsr() if sparse.issparse(X) else X
                X, sample_weight = take_rows(X, rows), np.asarray(sample_weight)[rows]
        table = as_table(in_memory(X))
        width = table.shape[-1]
        if not table.shape[0]:
            raise ValueError("X has no rows; a ColumnProfile needs at least one.")
        names, indices = None, None
        if len(table.shape) == 2:
            names = list(table.columns) if hasattr(table, "columns") else None
            kept = ~categorical_mask(categorical_features, table, names)
            if names is not None:
                for index in np.flatnonzero(kept & ~plain_numbers(table)):
                    column = column_at(table, index)
                    kept[index] = holds_numbers(column) or _holds_bools(column)
            indices = None if kept.all() else np.flatnonzero(kept)
        chosen = range(width) if indices is None else indices
        names = tuple(f"x{index}" if names is None else str(names[index]) for index in chosen)
        part = table if indices is None else take_columns(table, indices)
        weights = None
        if sample_weight is not None:
            weights = np.asarray(sample_weight, dtype=np.float64)
        if names and sparse.issparse(part):
            *measured, counts = _sparse_profile(part, weights)
            return cls(names, *measured, table.shape[0], indices, width, counts)
        values = _numbers(part) if names else None
        if values is None:  # text
            none = np.empty(0)
            measured = (none, none, none, none, np.empty((3, 0)))
            return cls((), *measured, table.shape[0], np.arange(0), width)
        *measured, counts = _moments(*_rows_of(values, weights))
        magnitudes = _magnitudes(
            *_rows_of(
                _strided(values, MAGNITUDE_ROWS),
                None if weights is None else _strided(weights, MAGNITUDE_ROWS, values.shape[1:]),
            )
        )
        return cls(names, *measured, magnitudes, table.shape[0], indices, width, counts)

    @classmethod
    def pooled(cls, profiles):
        """Join profiles of the same columns.

        Parameters
        ----------
        profiles : list of ColumnProfile
            Profiles of different rows.

        Returns
        -------
        ColumnProfile
            That of all their rows.
        """
        first = profiles[0]
        if len(profiles) == 1:
            return first
        each = {
            name: np.array([getattr(profile, name) for profile in profiles])
            for name in ("mean", "standard_deviation", "minimum", "maximum", "magnitudes")
        }
        counts = np.array(
            [
                np.full(len(first.names), profile.n_rows, dtype=np.float64)
                if profile._counts is None
                else profile._counts
                for profile in profiles
            ]
        )
        total = counts.sum(axis=0)
        shares = counts / np.where(total > 0, total, 1)
        mean = (shares * each["mean"]).sum(axis=0)
        square = np.square(each["standard_deviation"]) + np.square(each["mean"] - mean)
        return cls(
            first.names,
            mean,
            np.sqrt((shares * square).sum(axis=0)),
            each["minimum"].min(axis=0),
            each["maximum"].max(axis=0),
            each["magnitudes"].min(axis=0),
            sum(profile.n_rows for profile in profiles),
            first._indices,
            first._width,
            total,
        )

    def renamed(self, names):
        """Copy the profile with other column names.

        Parameters
        ----------
        names : iterable of str
            The names, in order.

        Returns
        -------
        ColumnProfile
            The copy.
        """
        return replace(self, names=tuple(names))

    def moved(self, X):
        """Find columns on another scale.

        Parameters
        ----------
        X : array, sparse matrix or DataFrame with the columns of the profile
            New rows.

        Returns
        -------
        ndarray of int
            Indices into ``names``.

        Raises
        ------
        ValueError
            If X has another number of columns.
        """
        return self._moved(*self._values(X))

    def warn_if_moved(self, X):
        """Warn if columns are on another scale, and name them.

        Parameters
        ----------
        X : array, sparse matrix or DataFrame with the columns of the profile
            New rows.

        Returns
        -------
        bool
            Whether a warning was issued.
        """
        n_rows, values = self._values(X)
        indices = self._moved(n_rows, values)
        if not indices.size:
            return False
        warnings.warn(
            f"{indices.size} of {len(self.names)} numeric columns are on another scale than in "
            f"the rows that the network was fitted on: {self._describe(indices, values)}. Possible "
            "causes are a scaler that is missing or applied twice, other units, and drift. Put the "
            "scaler of the network's training rows before the network, in one Pipeline.",
            UserWarning,
            stacklevel=2,
        )
        return True

    def warn_if_validation_moved(self, rows, name, train_name, remedy):
        """Warn, once per fit, if validation rows are on another scale than the training rows.

        Validation rows should resemble the training rows, so a single column is enough.

        Parameters
        ----------
        rows : array, sparse matrix or DataFrame with the columns of the profile
            Validation rows.

        name : str
            What they are called in the warning.

        train_name : str
            What the training rows are called in the warning.

        remedy : str
            Last sentence of the warning.
        """
        n_rows, values = self._values(rows)
        indices = self._moved(n_rows, values, least=1)
        if indices.size:
            warn_once(
                name,
                f"{name} seems to be on another scale than {train_name}, in {indices.size} of "
                f"{len(self.names)} numeric columns: {self._describe(indices, values)}. {remedy}",
            )

    def _describe(self, indices, values):
        """Statistics of some columns, when fitted and now."""
        columns = []
        for index in indices[:NAMED_COLUMNS]:
            new = values[:, index]
            new = new[np.isfinite(new)]
            columns.append(
                f"{self.names[index]!r} (fitted on mean {self.mean[index]:.4g}, standard deviation "
                f"{self.standard_deviation[index]:.4g}, range {self.minimum[index]:.4g} to "
                f"{self.maximum[index]:.4g}; now: mean {new.mean():.4g}, standard deviation "
                f"{new.std():.4g}, range {new.min():.4g} to {new.max():.4g})"
            )
        more = indices.size - len(columns)
        return ", ".join(columns) + (f" and {more} more" if more else "")

    def check_columns(self, X, parameter):
        """Raise if the number or the names of the columns of X differ.

        Parameters
        ----------
        X : array, sparse matrix or DataFrame
            Rows.

        parameter : str
            What the profile is called in the error.

        Raises
        ------
        ValueError
            If they differ.
        """
        names = [str(name) for name in X.columns] if hasattr(X, "columns") else None
        if X.shape[-1] != self._width:
            raise ValueError(
                f"{parameter} is a profile of {self._width} columns, but the network gets "
                f"{X.shape[-1]}."
            )
        indices = range(self._width) if self._indices is None else self._indices
        if names is None or self.names == tuple(f"x{index}" for index in indices):
            return
        other = [names[index] for index in indices]
        unlike = [pair for pair in zip(self.names, other, strict=True) if pair[0] != pair[1]]
        if unlike and other != [f"x{index}" for index in indices]:
            raise ValueError(
                f"{parameter} has the column {unlike[0][0]!r} where the network gets "
                f"{unlike[0][1]!r}. It needs the same columns in the same order."
            )

    def _values(self, X):
        """Some of the rows, evenly spread, as numbers of shape (rows, columns)."""
        table = X if isinstance(X, np.ndarray) and X.ndim > 1 else as_table(X)
        if table.shape[-1] != self._width:
            raise ValueError(f"X has {table.shape[-1]} columns; the profile has {self._width}.")
        if not self.names:
            return table.shape[0], np.empty((0, 0))
        part = in_memory(_strided(table, COMPARED_ROWS))
        values = None
        if self._indices is not None and hasattr(part, "iloc") and len(part) < SEVERAL_ROWS:
            # Selecting columns of a DataFrame would take longer than all that follows.
            values = _numbers(part.to_numpy(dtype=object)[:, self._indices])
        if values is None:
            part = part if self._indices is None else take_columns(part, self._indices)
            values = _numbers(part.toarray() if sparse.issparse(part) else part)
        if values is None:  # strings instead of numbers: the network raises
            values = np.full((part.shape[0], len(self.names)), np.nan)
        return table.shape[0], values.reshape(-1, len(self.names))

    def _moved(self, n_rows, values, least=None):
        if not self.names:
            return _NONE
        if n_rows < SEVERAL_ROWS:
            return self._few_moved(values)
        distance, size = np.abs(values - self.mean), np.abs(values)
        present, positive = (size >= 0).sum(axis=0), size > 0
        far = (distance > self._far).sum(axis=0) >= present / 2
        n_positive = positive.sum(axis=0)
        enough = n_positive >= SEVERAL_ROWS
        low = enough & (((size < self._small) & positive).sum(axis=0) >= 0.9 * n_positive)
        moved = (far & (present >= SEVERAL_ROWS)) | low
        if n_rows >= MANY_ROWS:
            lower = ((size < self._small_for_many) & positive).sum(axis=0) >= 0.9 * n_positive
            for index in np.flatnonzero(lower & enough & ~moved):
                different = np.unique(size[positive[:, index], index]).size
                moved[index] = different >= MANY_ROWS / 2
            moved |= self._moved_together(values, least)
        return np.flatnonzero(moved)

    def _few_moved(self, values):
        if self.n_rows < LEAST_ROWS_FOR_FEW:
            return _NONE
        distance, size = np.abs(values - self.mean), np.abs(values)
        far = distance > self._far
        low = (size < self._small_alone) & (size > 0)
        if not (far.any() or low.any()):
            return _NONE
        together = far.all(axis=0) | low.all(axis=0)
        if together.sum() >= self._needed:
            return np.flatnonzero(together)
        return np.flatnonzero((distance > self._far_alone).all(axis=0))

    def _moved_together(self, values, least):
        """Mask of columns that became, or ceased to be, standardised, if at least `least` did."""
        mean, deviation, *_ = _moments(values)
        standard = self._unlike_standard & ~_unlike_standard(mean, deviation)
        outside = ((values < self.minimum) | (values > self.maximum)).mean(axis=0)
        wider = self._standard & _unlike_standard(mean, deviation) & (outside >= OUTSIDE_SHARE)
        wider &= deviation > WIDER * self.standard_deviation
        moved = np.zeros(len(mean), dtype=bool)
        if standard.sum() >= _half(self._unlike_standard, least or 2):
            moved |= standard
        if wider.sum() >= max(least or LEAST_WIDER, _half(self._standard, least or 2)):
            moved |= wider
        return moved


def _half(columns, least=2):
    return max(least, int(np.ceil(columns.sum() / 2)))


def _unlike_standard(mean, deviation):
    least, most = STANDARD_DEVIATION
    return (np.abs(mean) > STANDARD_MEAN) | (deviation < least) | (deviation > most)


_NONE = np.arange(0)


def _rows_of(values, weights):
    """Values of shape (rows, columns), and the weight of each row, or None."""
    rows = values.reshape(-1, values.shape[-1])
    return rows, None if weights is None else np.repeat(weights, len(rows) // len(values))


def _strided(table, most, shape=None):
    """Some of the rows, evenly spread; ``shape`` is that of one row."""
    n_rows, numbers = table.shape[0], int(np.prod(table.shape[1:] if shape is None else shape))
    most = max(min(most, MOST_NUMBERS // max(numbers, 1)), SEVERAL_ROWS)
    if n_rows <= most:
        return table
    step = -(-n_rows // most)
    if not isinstance(table, np.ndarray) and hasattr(table, "gather_every"):  # narwhals', polars'
        return table.gather_every(step)
    return table.iloc[::step] if hasattr(table, "iloc") else table[::step]


def some_rows(X):
    """Rows of any table, evenly spread: as many as are compared."""
    return X if isinstance(X, list) else in_memory(_strided(X, COMPARED_ROWS))


def _holds_bools(column):
    return nw.from_native(column, series_only=True).dtype == nw.Boolean


def _numbers(table):
    """An array of numbers, NaN where missing; None for text."""
    if isinstance(table, nw.DataFrame):
        table = table.to_numpy()
    elif hasattr(table, "iloc"):
        try:
            table = table.to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError):  # objects, such as pd.NA among numbers
            table = table.to_numpy(dtype=object, na_value=None)
    if table.dtype.kind in "fiu":
        return table
    try:
        return table.astype(np.float64)
    except (TypeError, ValueError):
        return None


def _moments(values, weights=None):
    """Mean, standard deviation, minimum, maximum and weight of each column's finite values."""
    finite = np.isfinite(values)
    if finite.all():
        mean, deviation = weighted_moments(values, weights)
        least, most = values.min(axis=0), values.max(axis=0)
        total = np.full(len(mean), len(values) if weights is None else weights.sum())
        return mean, np.where(least == most, 0.0, deviation), *_as_floats(least, most, total)
    weights = np.ones(len(values)) if weights is None else weights
    total = weights @ finite
    count = np.where(total > 0, total, 1)
    known = np.where(finite, values, 0).astype(np.float64)
    mean = weights @ known / count
    spread = np.where(finite, known - mean, 0.0)
    least = np.where(finite, values, np.inf).min(axis=0)
    most = np.where(finite, values, -np.inf).max(axis=0)
    deviation = np.sqrt(weights @ np.square(spread) / count)
    return mean, np.where(least == most, 0.0, deviation), *_as_floats(least, most, total)


def _as_floats(*arrays):
    return (array.astype(np.float64) for array in arrays)


def _magnitudes(values, weights=None):
    sizes = np.abs(values.astype(np.float64))
    sizes[~(np.isfinite(sizes) & (sizes > 0))] = np.inf
    if weights is not None:
        return _weighted_magnitudes(sizes, weights)
    sizes.sort(axis=0)
    last = np.maximum(np.isfinite(sizes).sum(axis=0) - 1, 0)
    indices = np.array([0 * last, SMALL_SHARE * last, 0.5 * last]).astype(int)
    return np.take_along_axis(sizes, indices, axis=0)


def _weighted_magnitudes(sizes, weights):
    """Magnitudes of rows repeated by their weights."""
    magnitudes = np.empty((3, sizes.shape[1]))
    for index, column in enumerate(sizes.T):
        order = np.argsort(column, kind="stable")
        cumulative = np.cumsum(weights[order] * np.isfinite(column[order]))
        targets = np.floor(np.array([0.0, SMALL_SHARE, 0.5]) * max(cumulative[-1] - 1, 0.0))
        at = np.searchsorted(cumulative, targets, side="right")
        magnitudes[:, index] = column[order[np.minimum(at, len(order) - 1)]]
    return magnitudes


def _sparse_profile(table, weights=None):
    """Moments, range and weights; magnitudes, which sparse columns do not need, are NaN."""
    table = table.tocsr()
    mean, variance, total = mean_variance_axis(
        table.astype(np.float64), axis=0, weights=weights, return_sum_weights=True
    )
    least, most = min_max_axis(table, axis=0, ignore_nan=True)
    known = total > 0
    mean, variance = np.where(known, mean, 0.0), np.where(known, variance, 0.0)
    least, most = np.where(known, least, np.inf), np.where(known, most, -np.inf)
    unknown = np.full((3, table.shape[1]), np.nan)
    deviation = np.where(least == most, 0.0, np.sqrt(variance))
    return mean, deviation, *_as_floats(least, most), unknown, total


def warn_if_validation_moved(profile, X_val):
    """Warn if ``X_val`` is on another scale than the training rows of a profile."""
    profile.warn_if_validation_moved(
        X_val,
        "X_val",
        "X",
        "Early stopping is unreliable with such rows. The steps of a Pipeline do not transform "
        "X_val by default: enable metadata routing and use Pipeline(..., transform_input="
        "['X_val']) and set_fit_request(X_val=True, y_val=True) of the network, or scale X_val "
        "like X before the fit.",
    )


def warn_if_validation_targets_moved(y, y_val, columns=None):
    """Warn if numeric targets ``y_val`` are on another scale than ``y``; ``columns`` are names."""
    y, y_val = (np.reshape(values, (len(values), -1)) for values in (y, y_val))
    if columns is not None:
        names = [f"y[{column!r}]" for column in columns]
    else:
        names = ["y"] if y.shape[1] == 1 else [f"y[:, {column}]" for column in range(y.shape[1])]
    ColumnProfile.of(y).renamed(names).warn_if_validation_moved(
        y_val,
        "y_val",
        "y",
        "Pass both in the same units. TransformedTargetRegressor transforms y, but not y_val.",
    )


def weighted_moments(array, weights=None):
    """Mean and population standard deviation of every column, in float64.

    `array` has the shape (n_rows, ..., d); axes in between (time steps) count as further rows. A
    row of weight w counts as w rows. The deviation is 1 where a column is constant up to the
    rounding error of its mean. Two passes keep precision with large offsets; chunks of rows limit
    memory.

    Notes
    -----
    T. F. Chan, G. H. Golub, R. J. LeVeque, "Algorithms for computing the sample variance: analysis
    and recommendations", The American Statistician 37(3), 1983: the two-pass algorithm, and the
    bound under which a column counts as constant, as in scikit-learn's ``StandardScaler``.

    Examples
    --------
    >>> from skstack.preprocessing._column_profile import weighted_moments
    >>> mean, scale = weighted_moments([[0.0, 5.0], [4.0, 5.0]], weights=[3, 1])
    >>> mean.tolist(), scale.round(4).tolist()
    ([1.0, 5.0], [1.7321, 1.0])
    """
    array = array if isinstance(array, DiskArray) else np.asarray(array)
    n_rows, width = array.shape[0], array.shape[-1]
    used = None  # all
    if weights is not None:
        weights = np.asarray(weights, dtype=np.float64)
        if weights.shape != (n_rows,):
            raise ValueError(
                f"weights has shape {weights.shape}; expected ({n_rows},), one per row."
            )
        if n_rows and weights.min() < 0:
            raise ValueError("weights holds a negative number; expected weights of zero or more.")
        used = None if weights.all() else np.flatnonzero(weights)
    n_used = n_rows if used is None else used.size
    repeats = int(np.prod(array.shape[1:-1]))
    n_at_once = chunk_rows(width)
    total = (float(n_rows) if weights is None else weights.sum()) * repeats
    if not total > 0:
        raise ValueError("No row has a positive weight; moments are undefined.")

    def weighted_sums(function):
        sums = 0.0
        for start in range(0, n_used, n_at_once):
            chunk = slice(start, start + n_at_once)  # makes no copy
            chunk = chunk if used is None else used[chunk]
            rows = array[chunk].reshape(-1, width).astype(np.float64)
            n = len(rows) // max(repeats, 1)
            own = np.ones(n) if weights is None else weights[chunk]
            sums = sums + np.repeat(own, repeats) @ function(rows)
        return sums / total

    mean = weighted_sums(lambda rows: rows)
    variance = weighted_sums(lambda rows: np.square(np.subtract(rows, mean, out=rows), out=rows))
    eps, count = np.finfo(np.float64).eps, n_used * repeats
    constant = variance <= count * eps * variance + (count * mean * eps) ** 2
    if (np.square(mean) > 1e12 * variance).any():  # far from 0 the first sum has lost digits
        mean = mean + weighted_sums(lambda rows: np.subtract(rows, mean, out=rows))
    return mean, np.where(constant, 1.0, np.sqrt(variance))


def moments_of_steps(array, mask_value, weights=None):
    """Mean and standard deviation of the channels of sequences, without padding.

    `array` has the shape (n_rows, n_steps, n_channels). A step whose channels all equal
    `mask_value` is padding; None: no padding. The result is as in `weighted_moments`; 0 and 1 if
    all steps are padding.
    """
    if mask_value is None:
        return weighted_moments(array, weights)
    real = (array != np.float32(mask_value)).any(axis=-1)
    if not real.any():
        return np.zeros(array.shape[-1]), np.ones(array.shape[-1])
    weights = np.ones(len(array)) if weights is None else np.asarray(weights, dtype=np.float64)
    step_weights = (real * weights[:, None]).ravel()
    return weighted_moments(array.reshape(-1, array.shape[-1]), step_weights)


# Steps of float32 in one standard deviation: below the first, columns are kept in float64 until
# they are scaled; below the second, a column is nearly constant.
KEPT_STEPS, WARNED_STEPS = 1000.0, 20.0


def is_few_steps(spread, magnitude, steps):
    """Whether standard deviations are few steps of float32 at numbers of some magnitude."""
    largest = np.minimum(magnitude, np.finfo(np.float32).max).astype(np.float32)
    return (spread > 0) & (spread < steps * np.spacing(largest))


def lost_in_float32(values, steps=KEPT_STEPS):
    """Boolean mask of the columns of a 2-D array whose standard deviation is few float32 steps."""
    lost = np.zeros(values.shape[1], dtype=bool)
    if np.can_cast(values.dtype, np.float32) or not len(values):
        return lost
    lowest, highest = (each.astype(np.float64) for each in (values.min(axis=0), values.max(axis=0)))
    with np.errstate(over="ignore", invalid="ignore"):
        step = np.spacing(np.maximum(-lowest, highest).astype(np.float32))
        # The standard deviation of n values is at least their range divided by sqrt(2 n).
        kept = highest - lowest >= steps * step * np.sqrt(2 * len(values))
        for index in np.flatnonzero(~kept):  # NaN compares as False
            column = values[:, index]
            known = column[np.isfinite(column)].astype(np.float64)
            if known.size:
                spread = known.std() if known.min() < known.max() else 0.0
                lost[index] = is_few_steps(spread, np.abs(known).max(), steps)
    return lost


def has_float64(table):
    """Whether numbers of a table are float64."""
    dtypes = table.dtypes if hasattr(table, "iloc") else [np.asarray(table).dtype]
    return "float64" in map(str, dtypes)


def in_float32(table):
    """A table, read into memory, with float64 columns cast to float32."""
    table = in_memory(table)
    if not hasattr(table, "iloc"):
        return np.asarray(table, dtype=np.float32)
    wide = [index for index, dtype in enumerate(table.dtypes) if dtype == np.float64]
    table = table.copy() if wide else table
    for index in wide:
        table.isetitem(index, table.iloc[:, index].to_numpy(np.float32))
    return table


def warn_of_lost_precision(values, names, remedy):
    """Warn about columns of a 2-D array that are nearly constant in float32."""
    for index in np.flatnonzero(lost_in_float32(values, WARNED_STEPS)):
        column = values[:, index].astype(np.float64)
        column = column[np.isfinite(column)]
        step = abs(np.spacing(np.float32(column.mean())))
        warn_once(
            ("float32", names[index]),
            f"Column {names[index]!r} has the mean {column.mean():.10g} and the standard deviation "
            f"{column.std():.3g}: float32 has steps of {step:.3g} there, too coarse to distinguish "
            f"its values. {remedy}",
        )


def warn_if_too_fine_for_float32(X, indices):
    """Warn about numeric columns of X, as passed by the user, that float32 cannot represent."""
    if not hasattr(X, "columns"):
        if not isinstance(X, np.ndarray) or X.ndim != 2 or X.dtype.kind not in "iuf":
            return
        values, names = X[:, indices], [f"x{index}" for index in indices]
    else:
        table = as_table(X)
        plain = plain_numbers(table)
        indices = [i for i in indices if plain[i] or holds_numbers(column_at(table, i))]
        if not len(indices):
            return
        values = as_numbers(take_columns(table, indices), allow_nan=True, dtype=np.float64)
        names = [table.columns[index] for index in indices]
    warn_of_lost_precision(
        values,
        names,
        "Networks compute in float32: subtract an offset first, such as by a StandardScaler before "
        "the network, in a Pipeline.",
    )
