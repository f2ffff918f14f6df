"""The scaler between upstream and downstream."""

import numpy as np
from scipy import sparse
from sklearn.base import clone
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler
from sklearn.utils.validation import has_fit_parameter

from skstack._base.atomic_fit import warn_once
from skstack._base.tables import take_rows
from skstack.preprocessing._precision import has_float64

# These learn nothing of how often a row stands there.
_OF_RANGE = (MaxAbsScaler, MinMaxScaler)
_ACCEPTED = 'None, "standard" or a scikit-learn transformer such as RobustScaler()'


class Scaling:
    """Scale the numeric columns of a table; categories pass through in their places.

    Parameters
    ----------
    scaler : None, "standard" or transformer
        None leaves the numbers as they are; "standard" is ``StandardScaler()``. A transformer is
        cloned, and must give one column for each that it gets.

    Attributes
    ----------
    scaler_ : transformer or None
        Fitted; None when there is nothing to scale (``scaler=None`` or categories only).

    Raises
    ------
    TypeError
        `scaler` is no transformer, or a class in place of an instance.
    ValueError
        `scaler` is another string.

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
        """Learn from training rows.

        Parameters
        ----------
        table : ndarray or pandas DataFrame of shape (n_rows, n_columns)
            Columns of `category` dtype are left alone; all others are numbers.
        **metadata : dict
            Passed on. `sample_weight` only when the scaler's `fit` takes it; any other leaves out
            rows of weight zero.

        Returns
        -------
        self : Scaling
        """
        self.scaler_ = None
        numeric = numeric_columns(table)
        if self.scaler is not None and numeric.any():
            scaler = StandardScaler() if self.scaler == "standard" else clone(self.scaler)
            numbers, weights = _numbers(table, numeric), metadata.get("sample_weight")
            if not has_fit_parameter(scaler, "sample_weight"):
                metadata.pop("sample_weight", None)
            if weights is not None and "sample_weight" not in metadata:
                numbers = take_rows(numbers, np.flatnonzero(weights))
                left = weights[weights > 0]
                if len(left) and not isinstance(scaler, _OF_RANGE) and np.any(left != left[0]):
                    warn_once(
                        ("scaler", type(scaler).__name__),
                        f"scaler={self.scaler!r} takes no sample_weight: it counts each row with a "
                        "positive weight once. StandardScaler() takes weights.",
                    )
            with np.errstate(invalid="ignore"):  # a column that some training rows lack altogether
                self.scaler_ = scaler.fit(numbers, **metadata)
        return self

    def transform(self, table, *, allow_nan=False, dtype="float32"):
        """Scale rows.

        Parameters
        ----------
        table : ndarray or pandas DataFrame of shape (n_rows, n_columns)

        allow_nan : bool, default=False
            Whether rows may lack values.

        dtype : str, default="float32"
            Of the numbers that come out.

        Returns
        -------
        scaled : ndarray or DataFrame of shape (n_rows, n_columns)
            A new table of the same kind, columns and index.

        Raises
        ------
        ValueError
            The scaler changed the number of columns or rows, or made NaN or infinity.
        """
        numeric = numeric_columns(table)
        if not numeric.any():
            return table.copy()
        numbers = _numbers(table, numeric)
        if self.scaler_ is not None:
            before = numbers.shape
            with np.errstate(over="ignore"):
                numbers = self.scaler_.transform(numbers)
            numbers = numbers.toarray() if sparse.issparse(numbers) else np.asarray(numbers)
            if numbers.shape != before:
                raise ValueError(
                    f"scaler={self.scaler!r} made a table of shape {numbers.shape} from one of "
                    f"shape {before}; expected a transformer that gives one column for each that "
                    "it gets."
                )
            with np.errstate(over="ignore"):  # said below, in words
                single = numbers.astype(np.float32)
            if not (np.isfinite(single) | (allow_nan & np.isnan(single))).all():
                raise ValueError(
                    f"scaler={self.scaler!r} made NaN, infinity or a value too large for float32; "
                    "look for very large values in X."
                )
        if not hasattr(table, "iloc"):
            return np.asarray(numbers, dtype=dtype)
        scaled = table.copy()
        columns = np.asarray(numbers, dtype=dtype)
        for place, column in zip(np.flatnonzero(numeric), columns.T, strict=True):
            scaled.isetitem(place, column)
        return scaled


def numeric_columns(table):
    """Which columns are numbers: neither of `category` dtype nor cells that hold arrays."""
    if not hasattr(table, "iloc"):
        return np.ones(np.shape(table)[1], dtype=bool)
    return np.array([dtype.name not in ("category", "object") for dtype in table.dtypes], bool)


def _numbers(table, numeric):
    """Copy the numbers, so that a scaler with ``copy=False`` cannot reach the caller's."""
    dtype = np.float64 if has_float64(table) else np.float32
    if hasattr(table, "iloc"):
        return table.loc[:, numeric].copy().astype(dtype)
    return np.array(table, dtype=dtype)
