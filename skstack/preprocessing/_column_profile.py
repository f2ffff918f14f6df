"""What the numeric columns of a network's training rows were like, to tell rows that have moved."""

# Rows that early stopping watches, compared with those that are learned from.

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields, replace

import narwhals.stable.v2 as nw
import numpy as np
from scipy import sparse
from sklearn.utils.sparsefuncs import mean_variance_axis, min_max_axis

from skstack._base.atomic_fit import warn_once
from skstack.preprocessing._columns import (
    categorical_mask,
    column_at,
    holds_numbers,
    open_table,
    take_columns,
)
from skstack.preprocessing._moments import weighted_moments

# Rows of one call that are looked at: enough for shares of rows, whatever is predicted.
ROWS_LOOKED_AT = 1_000
# Training rows that magnitudes are read from.
ROWS_READ = 10_000
# Wide rows are fewer: a look must cost less than what is done with them.
NUMBERS_READ = 2**22
# Fewer training rows say too little about what may come; a single row takes more of them.
LEAST_ROWS, LEAST_ROWS_FOR_FEW = 100, 300
# From this many rows on, most of them must agree, so that no outlier raises an alarm.
SEVERAL_ROWS = 5
# From this many rows on, moments tell something, and rows are of more than one kind.
MANY_ROWS = 50
# Trends move columns by a few standard deviations, or by one length of what was seen.
FAR_DEVIATIONS, FAR_REACHES = 10.0, 3.0
# A single row must lie this much further out than any training row, and more where tails are heavy.
LEAST_FACTOR = 5.0
# Small is what is closer to 0 than nearly all of the training rows, and than a tenth of the median.
SMALL_SHARE, SMALL_PART = 0.02, 0.1
# Rows that are standardised have these moments, whatever their columns were.
STANDARD_MEAN, STANDARD_DEVIATION = 0.3, (0.7, 1.4)
# Trends and clusters shift rows, but spread them no further; columns that were standardised and
# come raw do both, and in most columns at once.
WIDER, OUTSIDE_SHARE, LEAST_WIDER = 1.7, 0.25, 3
# Below this share of the mean a spread is the rounding of float32.
ROUNDING = 1e-6
NAMED_COLUMNS = 3


@dataclass(frozen=True, repr=False, eq=False)
class ColumnProfile:
    """Range and moments of the numeric columns that a network was fitted on.

    Attributes
    ----------
    names : tuple of str
        The numeric columns: their names, of arrays ``x0``, ``x1``, ... Arrays of rank 3 and more
        have one column for each channel (last axis), over all other axes.

    mean, standard_deviation, minimum, maximum : ndarray of float64 of shape (n_columns,)
        In the columns' units; NaN counts nowhere.

    magnitudes : ndarray of float64 of shape (3, n_columns)
        Of the absolute values above 0: the smallest, the one that 2 % lie below, and the median.

    n_rows : int
        Number of rows.

    Notes
    -----
    Where 5 rows or more come, a column is taken for one of another scale if

    - half of its values lie more than 10 standard deviations from the mean *and* three times as far
      from it as the training row that is furthest away, or
    - 90 % of its values that are not 0 are closer to 0 than any training row's (from 50 rows on, of
      many different values: than 98 % of them) and than a tenth of the training rows' median.

    From 50 rows on, columns are taken so together if

    - half of those (two at least) that had neither a mean near 0 nor about the mean 0 and the
      standard deviation 1 have these now, or
    - half of those (three at least) that were standardised are so no longer, spread 1.7 times as
      far as they did, and leave the range with a quarter of their values.

    Less than 5 rows may be outliers. One column is enough where all its values lie ``max(5, r)``
    times as far from the mean as any training row, with ``r`` the distance of that row in standard
    deviations, for heavy tails go on. Otherwise half of the columns, and two at least, must be far
    in the sense above, or below a third of the smallest absolute value and a tenth of the median.

    So trends of a few standard deviations, outliers, heavy tails and rows of one kind raise no
    alarm; nor do scales that differ by little, such as a column whose training rows have a mean of
    0.3 and a standard deviation of 0.5 and that comes standardised.

    Constant columns, categories and NaN say nothing, nor do profiles of fewer than 100 rows (300
    where less than 5 rows come). At most 1,000 rows of a table, evenly spread, are looked at.

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
    _places: np.ndarray | None = None
    _width: int = 0

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
        never = np.where(known, 1.0, np.nan)  # no comparison with NaN is true
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
        return self  # nobody can change it

    @classmethod
    def of(cls, X, categorical_features="from_dtype", sample_weight=None):
        """Look at rows.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_rows, n_columns), or array of shape \
(n_rows, ..., n_channels)
            The rows that a network was fitted on, as it got them: behind every scaler.

        categorical_features : "from_dtype", None or array-like, default="from_dtype"
            Which columns are categories and stay out, as in the estimators. Columns that hold no
            numbers stay out in any case.

        sample_weight : array-like of shape (n_rows,), default=None
            A row of weight w counts as w rows.

        Returns
        -------
        ColumnProfile

        Raises
        ------
        ValueError
            If X has no rows, or `categorical_features` does not fit it.
        """
        table = open_table(X)
        width = table.shape[-1]
        if not table.shape[0]:
            raise ValueError("X has no rows; a ColumnProfile needs at least one.")
        names, places = None, None
        if len(table.shape) == 2:
            names = list(table.columns) if hasattr(table, "columns") else None
            kept = ~categorical_mask(categorical_features, table, names)
            if names is not None:
                columns = [column_at(table, place) for place in range(width)]
                kept &= [holds_numbers(column) or _holds_bools(column) for column in columns]
            places = None if kept.all() else np.flatnonzero(kept)
        chosen = range(width) if places is None else places
        names = tuple(f"x{place}" if names is None else str(names[place]) for place in chosen)
        part = table if places is None else take_columns(table, places)
        weights = None
        if sample_weight is not None:
            weights = np.asarray(sample_weight, dtype=np.float64)
        if names and sparse.issparse(part):
            return cls(names, *_sparse_profile(part, weights), table.shape[0], places, width)
        values = _numbers(part)
        if values is None or not names:  # texts, which only their own estimator understands
            none = np.empty(0)
            measured = (none, none, none, none, np.empty((3, 0)))
            return cls((), *measured, table.shape[0], np.arange(0), width)
        measured = (
            *_moments(*_rows_of(values, weights)),
            _magnitudes(
                *_rows_of(
                    _strided(values, ROWS_READ),
                    None if weights is None else _strided(weights, ROWS_READ, values.shape[1:]),
                )
            ),
        )
        return cls(names, *measured, table.shape[0], places, width)

    @classmethod
    def pooled(cls, profiles):
        """The profile of the rows of several profiles together.

        Parameters
        ----------
        profiles : list of ColumnProfile
            Of the same columns.

        Returns
        -------
        ColumnProfile
        """
        first = profiles[0]
        if len(profiles) == 1:
            return first
        each = {
            name: np.array([getattr(profile, name) for profile in profiles])
            for name in ("mean", "standard_deviation", "minimum", "maximum", "magnitudes")
        }
        counts = np.array([profile.n_rows for profile in profiles], dtype=np.float64)
        shares = (counts / counts.sum())[:, None]
        mean = (shares * each["mean"]).sum(axis=0)
        square = np.square(each["standard_deviation"]) + np.square(each["mean"] - mean)
        return cls(
            first.names,
            mean,
            np.sqrt((shares * square).sum(axis=0)),
            each["minimum"].min(axis=0),
            each["maximum"].max(axis=0),
            each["magnitudes"].min(axis=0),
            int(counts.sum()),
            first._places,
            first._width,
        )

    def renamed(self, names):
        """The same with other names of its columns."""
        return replace(self, names=tuple(names))

    def moved(self, X):
        """Tell which columns come on another scale.

        Parameters
        ----------
        X : array, sparse matrix or DataFrame with the columns of the profile
            New rows.

        Returns
        -------
        ndarray of int
            Places in ``names``.

        Raises
        ------
        ValueError
            If X has another number of columns.
        """
        return self._moved(*self._look(X))

    def warn_if_moved(self, X):
        """Warn, naming columns, where rows come on another scale.

        Parameters
        ----------
        X : array, sparse matrix or DataFrame with the columns of the profile
            New rows.

        Returns
        -------
        bool
            Whether they do.
        """
        n_rows, values = self._look(X)
        places = self._moved(n_rows, values)
        if not places.size:
            return False
        warnings.warn(
            f"{places.size} of {len(self.names)} numeric columns come to the network on another "
            f"scale than it was fitted on: {self._told(places, values)}. Was a scaler forgotten, "
            "applied twice, or another unit used? The scaler of the network's training rows "
            "belongs in front of it, in one Pipeline. Or have the rows themselves changed?",
            UserWarning,
            stacklevel=2,
        )
        return True

    def warn_if_apart(self, rows, name, of, remedy):
        """Warn, once in a fit, where rows to watch are on another scale than the training rows.

        Parameters
        ----------
        rows : as in `warn_if_moved`
            They should be like the training rows, so that a single column is enough.

        name, of : str
            What the rows and the training rows are called.

        remedy : str
            What helps.
        """
        n_rows, values = self._look(rows)
        places = self._moved(n_rows, values, least=1)
        if places.size:
            warn_once(
                name,
                f"{name} seems to be on another scale than {of}, in {places.size} of "
                f"{len(self.names)} numeric columns: {self._told(places, values)}. {remedy}",
            )

    def _told(self, places, values):
        """Some columns in words: what they were like, and what came."""
        told = []
        for place in places[:NAMED_COLUMNS]:
            came = values[:, place]
            came = came[np.isfinite(came)]
            told.append(
                f"{self.names[place]!r} (fitted on mean {self.mean[place]:.4g}, standard deviation "
                f"{self.standard_deviation[place]:.4g}, range {self.minimum[place]:.4g} to "
                f"{self.maximum[place]:.4g}; came: mean {came.mean():.4g}, standard deviation "
                f"{came.std():.4g}, range {came.min():.4g} to {came.max():.4g})"
            )
        more = places.size - len(told)
        return ", ".join(told) + (f" and {more} more" if more else "")

    def check_columns(self, X, parameter):
        """Refuse rows that have other columns.

        Parameters
        ----------
        X : table

        parameter : str
            Where the profile came from, for the message.

        Raises
        ------
        ValueError
            If number or names differ.
        """
        names = [str(name) for name in X.columns] if hasattr(X, "columns") else None
        if X.shape[-1] != self._width:
            raise ValueError(
                f"{parameter} tells of rows with {self._width} columns, but the network gets "
                f"{X.shape[-1]}."
            )
        places = range(self._width) if self._places is None else self._places
        if names is None or self.names == tuple(f"x{place}" for place in places):
            return
        other = [names[place] for place in places]
        unlike = [pair for pair in zip(self.names, other, strict=True) if pair[0] != pair[1]]
        if unlike and other != [f"x{place}" for place in places]:
            raise ValueError(
                f"{parameter} tells of the column {unlike[0][0]!r} where the network gets "
                f"{unlike[0][1]!r}. It needs the same columns in the same order."
            )

    def _look(self, X):
        """Some of the rows, evenly spread, as numbers of shape (rows, columns)."""
        table = X if isinstance(X, np.ndarray) and X.ndim > 1 else open_table(X)
        if table.shape[-1] != self._width:
            raise ValueError(f"X has {table.shape[-1]} columns; the profile has {self._width}.")
        if not self.names:
            return table.shape[0], np.empty((0, 0))
        part = _strided(table, ROWS_LOOKED_AT)
        values = None
        if self._places is not None and hasattr(part, "iloc") and len(part) < SEVERAL_ROWS:
            # Choosing columns of a frame takes longer than all that follows.
            values = _numbers(part.to_numpy(dtype=object)[:, self._places])
        if values is None:
            part = part if self._places is None else take_columns(part, self._places)
            values = _numbers(part.toarray() if sparse.issparse(part) else part)
        if values is None:  # words where there were numbers: the network says so
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
            for place in np.flatnonzero(lower & enough & ~moved):
                different = np.unique(size[positive[:, place], place]).size
                moved[place] = different >= MANY_ROWS / 2
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
        """Columns that many rows show to be standardised now, or no longer; ``least`` at least."""
        mean, deviation, *_ = _moments(values)
        standard = self._unlike_standard & ~_unlike_standard(mean, deviation)
        outside = ((values < self.minimum) | (values > self.maximum)).mean(axis=0)
        wider = self._standard & _unlike_standard(mean, deviation) & (outside >= OUTSIDE_SHARE)
        wider &= deviation > WIDER * self.standard_deviation
        found = np.zeros(len(mean), dtype=bool)
        if standard.sum() >= _half(self._unlike_standard, least or 2):
            found |= standard
        if wider.sum() >= max(least or LEAST_WIDER, _half(self._standard, least or 2)):
            found |= wider
        return found


def _half(columns, least=2):
    return max(least, int(np.ceil(columns.sum() / 2)))


def _unlike_standard(mean, deviation):
    least, most = STANDARD_DEVIATION
    return (np.abs(mean) > STANDARD_MEAN) | (deviation < least) | (deviation > most)


_NONE = np.arange(0)


def _rows_of(values, weights):
    """Values of shape (rows, columns), and a weight for each row, or None."""
    rows = values.reshape(-1, values.shape[-1])
    return rows, None if weights is None else np.repeat(weights, len(rows) // len(values))


def _strided(table, most, shape=None):
    """Some of the rows, evenly spread; ``shape`` is that of one row."""
    n_rows, numbers = table.shape[0], int(np.prod(table.shape[1:] if shape is None else shape))
    most = max(min(most, NUMBERS_READ // max(numbers, 1)), SEVERAL_ROWS)
    if n_rows <= most:
        return table
    step = -(-n_rows // most)
    if not isinstance(table, np.ndarray) and hasattr(table, "gather_every"):  # narwhals', polars'
        return table.gather_every(step)
    return table.iloc[::step] if hasattr(table, "iloc") else table[::step]


def some_rows(X):
    """Rows of any table, evenly spread: as many as are looked at."""
    return X if isinstance(X, list) else _strided(X, ROWS_LOOKED_AT)


def _holds_bools(column):
    return nw.from_native(column, series_only=True).dtype == nw.Boolean


def _numbers(table):
    """An array of numbers, NaN where there is none; None for texts."""
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
    """Mean, standard deviation, minimum and maximum of each column, without NaN and infinity."""
    finite = np.isfinite(values)
    if finite.all():
        mean, deviation = weighted_moments(values, weights)
        least, most = values.min(axis=0), values.max(axis=0)
        return mean, np.where(least == most, 0.0, deviation), *_as_floats(least, most)
    weights = np.ones(len(values)) if weights is None else weights
    total = weights @ finite
    count = np.where(total > 0, total, 1)
    known = np.where(finite, values, 0).astype(np.float64)
    mean = weights @ known / count
    spread = np.where(finite, known - mean, 0.0)
    least = np.where(finite, values, np.inf).min(axis=0)
    most = np.where(finite, values, -np.inf).max(axis=0)
    deviation = np.sqrt(weights @ np.square(spread) / count)
    return mean, np.where(least == most, 0.0, deviation), *_as_floats(least, most)


def _as_floats(*arrays):
    return (array.astype(np.float64) for array in arrays)


def _magnitudes(values, weights=None):
    sizes = np.abs(values.astype(np.float64))
    sizes[~(np.isfinite(sizes) & (sizes > 0))] = np.inf
    if weights is not None:
        return _weighted_magnitudes(sizes, weights)
    sizes.sort(axis=0)
    last = np.maximum(np.isfinite(sizes).sum(axis=0) - 1, 0)
    places = np.array([0 * last, SMALL_SHARE * last, 0.5 * last]).astype(int)
    return np.take_along_axis(sizes, places, axis=0)


def _weighted_magnitudes(sizes, weights):
    """As of rows that stand there as often as their weights say."""
    found = np.empty((3, sizes.shape[1]))
    for place, column in enumerate(sizes.T):
        order = np.argsort(column, kind="stable")
        reached = np.cumsum(weights[order] * np.isfinite(column[order]))
        wanted = np.floor(np.array([0.0, SMALL_SHARE, 0.5]) * max(reached[-1] - 1, 0.0))
        at = np.searchsorted(reached, wanted, side="right")
        found[:, place] = column[order[np.minimum(at, len(order) - 1)]]
    return found


def _sparse_profile(table, weights=None):
    """Moments and range; magnitudes, which nobody asks sparse columns for, are unknown."""
    table = table.tocsr()
    mean, variance = mean_variance_axis(table.astype(np.float64), axis=0, weights=weights)
    least, most = min_max_axis(table, axis=0)
    unknown = np.full((3, table.shape[1]), np.nan)
    deviation = np.where(least == most, 0.0, np.sqrt(variance))
    return mean, deviation, *_as_floats(least, most), unknown


def warn_of_watched(profile, X_val):
    """Warn where ``X_val`` is on another scale than the training rows.

    Parameters
    ----------
    profile : ColumnProfile
        Of the training rows.

    X_val : table
    """
    profile.warn_if_apart(
        X_val,
        "X_val",
        "X",
        "The loss on such rows does not tell when to stop. The steps of a Pipeline do not reach "
        "X_val by themselves: with metadata routing enabled, Pipeline(..., transform_input="
        "['X_val']) and set_fit_request(X_val=True, y_val=True) of the network let them; or scale "
        "X_val as X was before the fit.",
    )


def warn_of_watched_targets(y, y_val):
    """Warn where ``y_val`` is on another scale than ``y``.

    Parameters
    ----------
    y, y_val : ndarray of numbers of shape (n_rows,) or (n_rows, n_targets)
    """
    y, y_val = (np.reshape(values, (len(values), -1)) for values in (y, y_val))
    names = ["y"] if y.shape[1] == 1 else [f"y[:, {place}]" for place in range(y.shape[1])]
    ColumnProfile.of(y).renamed(names).warn_if_apart(
        y_val,
        "y_val",
        "y",
        "Pass both in the same units. TransformedTargetRegressor transforms y, but not y_val.",
    )
