"""The scaler between upstream and downstream."""

import functools

import numpy as np
from scipy import sparse
from sklearn.base import clone
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler
from sklearn.utils.validation import has_fit_parameter

from skstack._base.atomic_fit import warn_once
from skstack._base.disk_table import (
    DiskTable,
    as_disk_table,
    in_memory,
    sample_of_rows,
    window_rows,
)
from skstack._base.tables import n_rows, take_rows
from skstack._base.text import described
from skstack.preprocessing._column_profile import has_float64

# These scalers do not depend on how often a row occurs.
_OF_RANGE = (MaxAbsScaler, MinMaxScaler)
_ACCEPTED = 'None, "standard" or a scikit-learn transformer such as RobustScaler()'


class Scaling:
    """Scale the numeric columns of a table; categorical columns keep their positions.

    Examples
    --------
    >>> import numpy as np
    >>> from skstack._stack.scaling import Scaling
    >>> table = np.array([[0.0, 10.0], [2.0, 30.0]])
    >>> Scaling("standard").fit(table).transform(table).tolist()
    [[-1.0, -1.0], [1.0, 1.0]]
    """

    def __init__(self, scaler="standard"):
        if isinstance(scaler, str):
            if scaler != "standard":
                raise ValueError(f"scaler={scaler!r}; expected {_ACCEPTED}.")
        elif isinstance(scaler, type):
            raise TypeError(
                f"scaler is the class {scaler.__name__}; expected {_ACCEPTED}: an instance."
            )
        elif scaler is not None and not (hasattr(scaler, "fit") and hasattr(scaler, "transform")):
            raise TypeError(
                f"scaler={scaler!r} has no `fit` and `transform`; expected {_ACCEPTED}."
            )
        self.scaler = scaler

    def fit(self, table, **metadata):
        """Fit on training rows; rows of weight 0 are dropped if weights are not supported."""
        self.scaler_ = None
        if self.scaler is None:
            return self
        if n_rows(table) > window_rows():
            return self._fit_large(table, **metadata)
        table = in_memory(table)
        numeric = numeric_columns(table)
        if numeric.any():
            scaler = StandardScaler() if self.scaler == "standard" else clone(self.scaler)
            numbers, weights = _numbers(table, numeric), metadata.get("sample_weight")
            if not has_fit_parameter(scaler, "sample_weight"):
                metadata.pop("sample_weight", None)
            if weights is not None and "sample_weight" not in metadata:
                numbers = take_rows(numbers, np.flatnonzero(weights))
                positive = weights[weights > 0]
                uneven = np.any(positive != positive[:1])
                if uneven and not isinstance(scaler, _OF_RANGE):
                    warn_once(
                        ("scaler", type(scaler).__name__),
                        f"scaler={described(self.scaler)} does not support sample_weight: each "
                        "row with a positive weight counts once. StandardScaler() supports "
                        "weights.",
                    )
            with np.errstate(invalid="ignore"):  # a column that is missing in all training rows
                self.scaler_ = scaler.fit(numbers, **metadata)
        return self

    def _fit_large(self, table, sample_weight=None, **metadata):
        """Fit on a large table: in passes if the scaler can, else on a sample of its rows."""
        table = as_disk_table(table)
        own = StandardScaler() if self.scaler == "standard" else self.scaler
        if hasattr(own, "partial_fit") and not metadata:
            scaler, numeric = clone(own), numeric_columns(table.head())
            weighted = sample_weight is not None and has_fit_parameter(scaler, "sample_weight")
            if numeric.any() and (weighted or sample_weight is None):
                for rows, chunk in table.chunks():
                    weights = {"sample_weight": sample_weight[rows]} if weighted else {}
                    scaler.partial_fit(_numbers(chunk, numeric), **weights)
                self.scaler_ = scaler
                return self
        some = sample_of_rows(len(table))
        if sample_weight is not None:
            metadata["sample_weight"] = sample_weight[some]
        return self.fit(table[some].in_memory(), **metadata)

    def transform(self, table, *, allow_nan=False, dtype="float32"):
        """Scale rows into a new table of the same type; ``dtype`` is that of the numbers."""
        if isinstance(table, DiskTable):
            return table.map(functools.partial(self.transform, allow_nan=allow_nan, dtype=dtype))
        numeric = numeric_columns(table)
        if not numeric.any():
            return table.copy()
        numbers = _numbers(table, numeric)
        if self.scaler_ is not None:
            before, missing = numbers.shape, ~np.isfinite(np.asarray(numbers)).all(axis=0)
            with np.errstate(over="ignore"):
                numbers = self.scaler_.transform(numbers)
            numbers = numbers.toarray() if sparse.issparse(numbers) else np.asarray(numbers)
            if numbers.shape != before:
                raise ValueError(
                    f"scaler={described(self.scaler)} returned shape {numbers.shape} for an input "
                    f"of shape {before}; expected a transformer that returns one column for each "
                    "input column."
                )
            with np.errstate(over="ignore"):  # raised below, with a clear message
                single = numbers.astype(np.float32)
            if not (np.isfinite(single) | (allow_nan & np.isnan(single))).all():
                reason = "check X for very large values"
                if missing.any():
                    keys = getattr(table, "columns", np.arange(len(numeric)))[numeric]
                    reason = f"its input has NaN or infinity in columns {keys[missing].tolist()}"
                raise ValueError(
                    f"scaler={described(self.scaler)} returned NaN, infinity or a value too large "
                    f"for float32; {reason}."
                )
        if not hasattr(table, "iloc"):
            return np.asarray(numbers, dtype=dtype)
        scaled = table.copy()
        columns = np.asarray(numbers, dtype=dtype)
        for index, column in zip(np.flatnonzero(numeric), columns.T, strict=True):
            scaled.isetitem(index, column)
        return scaled


def numeric_columns(table):
    """Mask of the columns that are neither of `category` dtype nor hold arrays."""
    table = table.head() if isinstance(table, DiskTable) else table
    if not hasattr(table, "iloc"):
        return np.ones(np.shape(table)[1], dtype=bool)
    return np.array([dtype.name not in ("category", "object") for dtype in table.dtypes], bool)


def _numbers(table, numeric):
    """Copy the numbers, so that a scaler with ``copy=False`` cannot change the caller's."""
    dtype = np.float64 if has_float64(table) else np.float32
    if hasattr(table, "iloc"):
        return table.loc[:, numeric].copy().astype(dtype)
    return np.array(table, dtype=dtype)
