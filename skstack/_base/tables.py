"""X, y and metadata of rows, as anything that scikit-learn accepts."""

from __future__ import annotations

import contextvars
import functools
import warnings

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_consistent_length, column_or_1d, validate_data

from skstack._base.disk_table import DiskTable, on_disk, runs_of_rows, sample_of_rows
from skstack._base.progress import errors_named
from skstack._base.sklearn import (
    check_sample_weight,
    check_y,
    get_column_indices,
    num_samples,
    safe_indexing,
)

SEQUENCES = "steps"  # name of the column that a list of sequences becomes


def n_rows(X):
    """Number of rows of anything that scikit-learn accepts as X."""
    try:
        return num_samples(X)
    except TypeError as error:
        raise TypeError(f"X is not a table of rows: {error}") from error


def is_dataframe(X):
    """Whether X is a pandas or polars DataFrame."""
    return hasattr(X, "shape") and hasattr(X, "columns") and hasattr(X, "dtypes")


def is_float32(X):
    """Whether all numbers of a table are float32, in which scikit-learn then computes moments."""
    X = X.head() if isinstance(X, DiskTable) else X
    return set(map(str, X.dtypes if is_dataframe(X) else [getattr(X, "dtype", None)])) == {
        "float32"
    }


def indexed_like(table, X):
    """A table with the index of X if both are pandas DataFrames, else with a new one."""
    if not hasattr(table, "iloc"):
        return table
    index = getattr(X, "index", None) if hasattr(X, "iloc") else None
    return table.reset_index(drop=True) if index is None else table.set_axis(index, axis=0)


def take_rows(X, indices):
    """Rows of any array, DataFrame, sparse matrix or list, in the same container."""
    if isinstance(X, DiskTable) or type(X) is np.ndarray:
        return X[indices]
    return safe_indexing(X, indices, axis=0)


def taken(rows, *tables):
    """Some rows of tables, of which some may be None; the tables themselves if `rows` is None."""
    if rows is None:
        return tables
    return tuple(None if each is None else take_rows(each, rows) for each in tables)


def with_weight(weights, *tables):
    """Rows of tables, of which some may be None, without those of weight 0: no fit may use them."""
    return taken(None if weights is None or weights.all() else np.flatnonzero(weights), *tables)


def own_rows(X):
    """A copy of rows for steps and estimators of other libraries, which may overwrite them."""
    return X if isinstance(X, DiskTable) or not hasattr(X, "copy") else X.copy()


def sampled(X, *others):
    """The rows of a large table from which columns are learned, and of arrays; else unchanged."""
    return taken(sample_of_rows(n_rows(X)), X, *others)


def glanced(X, *others):
    """As `sampled`, for what only warns: runs of rows; of a wide table on disk fewer of them."""
    row_bytes = X.nbytes // max(len(X), 1) if isinstance(X, DiskTable) else 0
    return taken(runs_of_rows(n_rows(X), row_bytes), X, *others)


def take_columns(X, columns, parameter):
    """Columns of X by name, position, slice, mask or callable, as in ``ColumnTransformer``."""
    return columns_at(X, column_indices(X, columns, parameter))


def _is_list_of_sequences(X):
    """Whether X holds an array of its own for each row: a list, or an array of objects."""
    rows = X if isinstance(X, (list, tuple)) else ()
    if isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1:
        rows = X
    return len(rows) > 0 and all(isinstance(row, np.ndarray) and row.ndim > 0 for row in rows)


def _as_frame(estimator, X, *, reset):
    """A list of sequences of unequal length as a table of one column; most X unchanged.

    An estimator fitted on such a list also takes lists of equal lengths. One fitted on a DataFrame
    also takes its rows as an array or list of objects, by position, as SHAP passes them; SHAP sets
    the names of columns of its copy of the estimator to None.
    """
    if is_dataframe(X):
        return X
    if hasattr(X, "collect") and not hasattr(X, "shape"):
        raise TypeError(f"X is a {type(X).__name__}, which holds no rows yet; pass X.collect().")
    if getattr(getattr(X, "dtype", None), "kind", None) in ("m", "M"):
        raise ValueError(
            f"X has dtype {X.dtype}, which is neither numeric nor categorical. Convert it to "
            "numbers first (days since a date, month, hour, ...)."
        )
    if not reset and hasattr(estimator, "feature_names_in_"):
        names, rows = estimator.feature_names_in_, _rows_of_objects(X)
        if rows is not None and rows.shape[1:] == (estimator.n_features_in_,):
            import pandas as pd

            return pd.DataFrame(rows, columns=names)
    if not _is_list_of_sequences(X):
        _check_lengths(X)
        return X
    if reset:
        unequal = len({row.shape for row in X}) > 1
    else:
        unequal = list(getattr(estimator, "feature_names_in_", ())) == [SEQUENCES]
    if not unequal:
        return X
    import pandas as pd

    return pd.DataFrame({SEQUENCES: object_array(X)})


def _check_lengths(X):
    if isinstance(X, (list, tuple)) and all(isinstance(row, (list, tuple)) for row in X):
        lengths = sorted(set(map(len, X)))
        if len(lengths) > 1:
            raise ValueError(
                f"X is a list of rows of {lengths[0]} to {lengths[-1]} values; expected rows of "
                "one length. If they are sequences, pass a DataFrame with one column whose cells "
                "hold them, and put skstack.preprocessing.PadSequences() before the network."
            )


def _rows_of_objects(X):
    """Rows of strings and numbers, an array or a list of lists, as an array; None for other X."""
    if isinstance(X, (list, tuple)) and X and isinstance(X[0], (list, tuple)):
        if any(isinstance(value, str) for value in X[0]) and len(set(map(len, X))) == 1:
            return np.array(X, dtype=object)
    elif isinstance(X, np.ndarray) and X.dtype.kind in "OUS":
        return X.astype(object)
    return None


def object_array(values):
    """A one-dimensional object array; NumPy would stack values that are arrays of one shape."""
    result = np.empty(len(values), dtype=object)
    result[:] = list(values)
    return result


def column_indices(X, columns, parameter):
    """Indices of columns by name, position, slice, mask or callable; None means all."""
    if columns is None:
        return np.arange(X.shape[1])
    X = X.head() if isinstance(X, DiskTable) else X
    try:
        chosen = columns(X) if callable(columns) else columns
        return np.asarray(get_column_indices(X, chosen), dtype=int)
    except Exception as error:  # callables, and scikit-learn for invalid keys, raise anything
        raise ValueError(
            f"{parameter}={columns!r} selects no columns of X: {type(error).__name__}: {error}"
        ) from error


def columns_at(X, indices):
    """Columns of X by index; X itself if these are all."""
    if np.array_equal(indices, np.arange(X.shape[1])):
        return X
    if isinstance(X, DiskTable):
        return X.take_columns(indices)
    return safe_indexing(X, indices.tolist(), axis=1)


def read_table(estimator, X, *, reset):
    """Check the number and the names of the columns of X, but not its values."""
    X = _as_frame(estimator, on_disk(X), reset=reset)
    if not (is_dataframe(X) or isinstance(X, DiskTable)):
        X = check_array(
            X,
            dtype=None,
            allow_nd=True,
            accept_sparse="csr",
            ensure_all_finite=False,
            input_name="X",
        )
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        return X
    return read_rows(estimator, X, reset=reset)


def read_rows(estimator, X, *, reset, exact=False):
    """Check X as scikit-learn does, and store or compare the number and names of its columns.

    DataFrames are returned unchanged, with the dtypes of their columns; other X becomes a
    float32 array of rank 2 or more, or stays sparse. Large tables on disk stay there: the values
    of their rows are checked when they are read. Arrays with categories, or with ``exact``, keep
    their dtype: float32 may make one category of two.
    """
    X = on_disk(X)
    if isinstance(X, DiskTable):
        read_rows(estimator, X.head(), reset=reset)
        return X
    X = _as_frame(estimator, X, reset=reset)
    if is_dataframe(X):
        names = list(X.columns)
        if len(set(names)) != len(names):
            duplicates = sorted({str(name) for name in names if names.count(name) > 1})
            raise ValueError(f"X has duplicate column names: {duplicates}. Rename them.")
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        if X.shape[0] == 0 or X.shape[1] == 0:
            axis = "sample" if X.shape[0] == 0 else "feature"
            raise ValueError(
                f"Found array with 0 {axis}(s) (shape={X.shape}) while a minimum of 1 is "
                f"required by {type(estimator).__name__}."
            )
        return X
    categorical = getattr(estimator, "categorical_features", None)
    keep = exact or (categorical is not None and not isinstance(categorical, str))
    if not reset:
        keep |= bool(getattr(getattr(estimator, "blocks_", None), "categories_", None))
    finite = "allow-nan" if getattr(estimator, "imputer", None) is not None else True
    try:
        with np.errstate(over="ignore"):  # values too large for float32 raise below
            return validate_data(
                estimator,
                X,
                reset=reset,
                accept_sparse="csr",
                dtype=None if keep else np.float32,
                allow_nd=True,
                ensure_all_finite=False if keep else finite,
            )
    except ValueError as error:
        if "could not convert string to float" not in str(error):
            raise
        raise ValueError(
            f"{error}. X is not a DataFrame, so its columns are read as numbers; pass a DataFrame"
            + (
                ", or set categorical_features to the positions of columns of strings."
                if hasattr(estimator, "categorical_features")
                else "."
            )
        ) from error


def check_weights(sample_weight, X):
    """Non-negative sample weights as float64 of shape (n,), or None."""
    if sample_weight is None:
        return None
    n_rows(X)
    with errors_named("sample_weight"):
        weights = check_sample_weight(
            sample_weight, X, dtype=np.float64, ensure_non_negative=True, copy=True
        )
    largest = weights.max()
    if largest == 0:  # scikit-learn below 1.9 accepts them
        raise ValueError("Sample weights must contain at least one non-zero number.")
    # Only proportions matter, and scalers and networks compute in float32.
    return weights if 1e-30 < largest < 1e30 else weights / largest


def check_groups(groups, X):
    """Group labels of shape (n,) without missing values, or None."""
    if groups is None:
        return None
    with errors_named("groups"):
        groups = column_or_1d(groups)
        check_consistent_length(X, groups)
    import pandas as pd

    if pd.isna(groups).any():
        raise ValueError("groups holds missing values; each row needs a group.")
    try:
        if groups.dtype.kind == "O":
            np.unique(groups)
    except TypeError as error:
        raise ValueError(f"groups holds values that cannot be compared: {error}.") from error
    return groups


def refuse_missing_target(estimator, y):
    """Raise if there is no y."""
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y "
            "is None."
        )


def check_target(y, *, estimator, multi_output=True, y_numeric=False):
    """Check targets as scikit-learn does, with y named in every message."""
    refuse_missing_target(estimator, y)
    if hasattr(y, "isna") and np.any(np.asarray(y.isna())):
        raise ValueError("Input y contains NaN.")  # scikit-learn does not name y for strings
    y = check_y(y, multi_output=multi_output, y_numeric=y_numeric, estimator=estimator)
    if y_numeric and (y.ndim > 2 or y.dtype.kind not in "fiub"):
        raise ValueError(
            f"y has shape {y.shape} and dtype {y.dtype}; expected numbers of shape (n_samples,) "
            "or (n_samples, n_targets)."
        )
    return y


def names_of_targets(y):
    """Column names of several targets; None unless all of them are strings."""
    names = list(getattr(y, "columns", ()))
    return names if len(names) > 1 and all(isinstance(name, str) for name in names) else None


def check_names_of_targets(y, known):
    """Refuse targets of other names, or in another order, than those of a fit."""
    names = names_of_targets(y)
    if names is not None and known is not None and names != known:
        raise ValueError(
            f"y has the columns {names!r}, but the estimator was fitted with {known!r}."
        )


def kind_of_target(y, estimator):
    """The ``type_of_target`` of y, which must hold no NaN."""
    check_target(y, estimator=estimator)
    whole = type(y) is np.ndarray and y.ndim == 1 and y.dtype.kind in "biu"
    if whole and ((y == y.min()) | (y == y.max())).all():
        return "binary"  # as `type_of_target` says, which takes 5 % of a short fit
    try:
        with np.errstate(all="ignore"):  # it casts to integers
            return type_of_target(y, input_name="y")
    except TypeError as error:
        raise TypeError(f"y holds labels of types that cannot be compared: {error}.") from error


def read_labels(estimator, y):
    """Labels (n,) or a multilabel indicator (n, n_labels), and the type of target."""
    y = y.toarray() if hasattr(y, "toarray") else y
    kind = kind_of_target(y, estimator)
    if kind == "unknown":
        types = sorted({type(value).__name__ for value in np.asarray(y, dtype=object).ravel()})
        raise ValueError(
            f"Unknown label type: y is an array of objects of type {', '.join(types[:5])}; "
            "expected numbers, bools or strings. Convert it, such as with y.astype(int)."
        )
    if not (type(y) is np.ndarray and y.ndim == 1):  # which `kind_of_target` has checked
        y = check_target(y, multi_output=kind == "multilabel-indicator", estimator=estimator)
    if kind == "multilabel-indicator" and not np.isin(y, (0, 1)).all():
        raise ValueError(
            f"y of shape {np.shape(y)} holds the values {np.unique(y).tolist()}; a multilabel "
            "indicator holds 0 and 1."
        )
    if kind not in ("binary", "multiclass", "multilabel-indicator"):
        with np.errstate(all="ignore"):
            check_classification_targets(y)
        raise ValueError(
            f"y is a {kind} target; expected labels of shape (n_samples,) and "
            "multilabel indicators of shape (n_samples, n_labels)."
        )
    return y, kind


_fitting = contextvars.ContextVar("skstack_fitting", default=False)


def warn_if_one_hot(fit):
    """Warn in the outermost `fit` if y looks one-hot encoded but is read as a multilabel indicator.

    The estimator's ``_reads_indicator`` returns whether it reads y of several columns that way.
    """

    @functools.wraps(fit)
    def wrapped(self, X, y=None, *args, **kwargs):
        if not _fitting.get() and self._reads_indicator() and _is_one_hot(y):
            warnings.warn(
                "y has one 1 in each row, as one-hot encoded classes have. "
                f"{type(self).__name__} reads it as a multilabel indicator: each column is a "
                "separate label with its own probability. If each row has one class, pass labels: "
                "y.argmax(axis=1).",
                UserWarning,
                stacklevel=3,
            )
        token = _fitting.set(True)
        try:
            return fit(self, X, y, *args, **kwargs)
        finally:
            _fitting.reset(token)

    return wrapped


def _is_one_hot(y):
    try:
        y = np.asarray(y.toarray() if hasattr(y, "toarray") else y)
    except ValueError:  # ragged: reading it raises
        return False
    if y.ndim != 2 or min(y.shape) < 2:
        return False
    if y.dtype.kind not in "fiub" or not ((y == 0) | (y == 1)).all():
        return False
    return bool((y.sum(axis=1) == 1).all())
