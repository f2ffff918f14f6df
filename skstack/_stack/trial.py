"""Trial fits: find out which columns a foreign part refuses, before any network is trained."""

from __future__ import annotations

import contextlib
import warnings

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from skstack._base.params import is_keras_model, is_path
from skstack._base.sklearn import wrapper_of
from skstack._base.tables import columns_at, is_dataframe, n_rows, take_rows

_ROWS_OF_EACH = 5  # rows of each class, and of each column with missing values
_MOST_ROWS = 200
_ENCODED = (
    "make_pipeline(make_column_transformer((OneHotEncoder(handle_unknown='ignore'), {columns}), "
    "remainder={remainder}), {name}(...))"
)
_IMPUTED = "make_pipeline(SimpleImputer(), {name}(...))"


@contextlib.contextmanager
def errors_named(label):
    """Context: errors name the part of the stack that raised them."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if len(error.args) == 1 and isinstance(error.args[0], str) and label not in str(error):
            error.args = (f"{label}: {error.args[0]}",)
        raise


def check_accepts(estimator, X, y, label, how, names=None):
    """Raise an error if an estimator refuses columns of X for their strings or missing values.

    It is fitted on a few rows with these columns, and with zeros in their place. Networks, which
    take both, are not trained.
    """
    if is_path(estimator) or is_keras_model(estimator) or trains_network(estimator):
        return
    suspects = _suspects(X)
    if not any(suspects.values()):
        return
    rows = _some_rows(X, y, suspects)
    X, y = _rows_of(X, rows), np.asarray(y)[rows]
    error = _refusal(estimator, X, y)
    indices = sorted({index for each in suspects.values() for index in each})
    if error is None or _refusal(estimator, _zeroed(X, indices), y) is not None:
        return
    keys = range(X.shape[1]) if names is None and not is_dataframe(X) else names or list(X.columns)
    columns = {kind: [keys[index] for index in each] for kind, each in suspects.items() if each}
    holds = " and ".join(f"{kind} in columns {each}" for kind, each in columns.items())
    missing = "missing values" in columns
    words = [key for kind in ("strings", "categories") for key in columns.get(kind, ())]
    remedy = (_ENCODED if words else _IMPUTED).format(
        name=type(estimator).__name__,
        columns=words,
        remainder="SimpleImputer()" if missing else "'passthrough'",
    )
    raise ValueError(
        f"{label} does not accept X, which holds {holds} ({type(error).__name__}: "
        f"{str(error).partition(chr(10))[0]}). Use {remedy}, or leave these columns out: {how}."
    )


def trains_network(estimator):
    """Whether a fit would train a network, or nothing."""
    if isinstance(estimator, FrozenEstimator) or hasattr(estimator, "_graph_outputs"):
        return True
    if hasattr(estimator, "_fit_in_context") or wrapper_of(estimator) is not None:
        return True
    if isinstance(estimator, Pipeline) or not hasattr(estimator, "get_params"):
        return False  # the steps before a network are tried
    return any(
        hasattr(part, "fit") and trains_network(part)
        for part in estimator.get_params(deep=True).values()
        if not isinstance(part, type)
    )


def has_missing(X):
    """Whether numbers of a table are missing."""
    return bool(_suspects(X).get("missing values"))


def _suspects(X):
    """Indices of the columns that hold strings or categories, and of those with missing values."""
    if not is_dataframe(X):
        if not isinstance(X, np.ndarray) or X.ndim != 2:
            return {}
        numeric = X.dtype.kind in "biuf"
        words = [] if numeric else [i for i in range(X.shape[1]) if _holds_words(X[:, i])]
        return {
            "strings": words,
            "missing values": np.flatnonzero(np.isnan(X).any(axis=0)).tolist() if numeric else [],
        }
    kinds = {"strings": [], "categories": [], "missing values": []}
    for index in range(X.shape[1]):
        column = X[X.columns[index]]
        dtype = str(column.dtype).lower()
        if dtype.startswith(("category", "categorical", "enum")):
            if not _are_truth_values(column.unique()):
                kinds["categories"].append(index)
        elif dtype.startswith(("object", "str", "string")) and _holds_words(column.to_numpy()):
            kinds["strings"].append(index)
        elif dtype.startswith(("float", "int", "uint")) and _has_missing(column):
            kinds["missing values"].append(index)
    return kinds


def _holds_words(column):
    return any(isinstance(value, str) for value in column[:1000].tolist())


def _has_missing(column):
    if hasattr(column, "isna"):
        return bool(column.isna().any())
    return column.null_count() > 0 or (column.dtype.is_float() and column.is_nan().any())


def _some_rows(X, y, suspects):
    """A few rows of each class, and of those with missing values."""
    labels = np.asarray(y)
    labels = labels if labels.ndim == 1 else np.zeros(n_rows(X), dtype=int)
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(counts) > _MOST_ROWS // _ROWS_OF_EACH:  # numbers
        codes = np.arange(len(codes)) % 10
    chosen = {row for code in np.unique(codes) for row in np.flatnonzero(codes == code)[:5]}
    for index in suspects.get("missing values", ()):
        column = np.asarray(columns_at(X, np.array([index])), dtype=np.float64).ravel()
        chosen.update(np.flatnonzero(np.isnan(column))[:_ROWS_OF_EACH].tolist())
    return np.array(sorted(chosen))[:_MOST_ROWS]


def _rows_of(X, rows):
    """Rows of X as an array or a pandas DataFrame, whose categories are strings.

    An estimator that takes numbers only would take categories that are numbers as such; one that is
    unknown when it predicts would be a missing value.
    """
    if not is_dataframe(X):
        return X[rows]
    import pandas as pd

    X = take_rows(X, rows)
    if not hasattr(X, "iloc"):
        categorical = [name for name in X.columns if "Categorical" in str(X[name].dtype)]
        X = pd.DataFrame({name: X[name].to_list() for name in X.columns})
        return X.astype(dict.fromkeys(categorical, "category"))
    X = X.reset_index(drop=True)
    for index, dtype in enumerate(X.dtypes):
        if isinstance(dtype, pd.CategoricalDtype) and not _are_truth_values(dtype.categories):
            X.isetitem(index, X.iloc[:, index].cat.rename_categories("category {}".format))
    return X


def _are_truth_values(values):
    return set(values) <= {False, True}


def _zeroed(X, indices):
    X = X.copy()
    for index in indices:
        if hasattr(X, "iloc"):
            X.isetitem(index, np.zeros(len(X)))
        else:
            X[:, index] = 0
    return X if hasattr(X, "iloc") else X.astype(np.float64)


def _refusal(estimator, X, y):
    """The error of a fit, or None."""
    state = np.random.get_state()  # noqa: NPY002 (the estimator may draw from the global one)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _fit(estimator, X, y)
    except Exception as error:  # any estimator, on any rows
        return error
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return None


def _fit(estimator, X, y):
    if isinstance(estimator, Pipeline):
        for _, step in estimator.steps[:-1]:
            if not hasattr(step, "transform") or trains_network(step):
                return
            X = _fit_one(step, X, y).transform(X)
        _fit(estimator.steps[-1][1], X, y)
        return
    inner = getattr(estimator, "estimator", None)
    if hasattr(inner, "fit"):  # of a search or a calibration, which may take many fits
        _fit(inner, X, y)
    elif hasattr(estimator, "fit") and not trains_network(estimator):
        _fit_one(estimator, X, y)


def _fit_one(estimator, X, y):
    copied = clone(estimator)
    jobs = [name for name in copied.get_params() if name.rpartition("__")[2] == "n_jobs"]
    return copied.set_params(**dict.fromkeys(jobs, None)).fit(X, y)
