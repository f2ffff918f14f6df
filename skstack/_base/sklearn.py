"""Validation, and the only door to scikit-learn's private names."""

from __future__ import annotations

import contextvars
import functools
import inspect
import warnings
from numbers import Integral

import numpy as np
from sklearn.base import BaseEstimator, _fit_context, is_classifier, is_regressor
from sklearn.utils import _safe_indexing, check_array
from sklearn.utils._indexing import _get_column_indices
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils._param_validation import Interval as _Interval
from sklearn.utils._repr_html.estimator import _VisualBlock
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.metadata_routing import (
    _raise_for_params,
    _routing_enabled,
    get_routing_for_object,
)
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import (
    _check_feature_names_in,
    _check_method_params,
    _check_sample_weight,
    _check_y,
    _num_samples,
    check_consistent_length,
    column_or_1d,
    has_fit_parameter,
    validate_data,
)

__all__ = [
    "CROSS_FIT_CONSTRAINTS",
    "INPUT_CONSTRAINTS",
    "BaseComposition",
    "HasMethods",
    "Interval",
    "StrOptions",
    "VisualBlock",
    "check_groups",
    "check_parts",
    "check_shape",
    "check_weights",
    "column_indices",
    "column_places",
    "columns_at",
    "fit_context",
    "fitted_parts",
    "ignores_groups",
    "indexed_like",
    "is_classifier_for",
    "is_dataframe",
    "is_float32",
    "n_rows",
    "needs_y",
    "output_container",
    "read_labels",
    "read_rows",
    "read_table",
    "refuse_metadata",
    "routing_enabled",
    "take_columns",
    "take_metadata",
    "take_rows",
    "tells_of_one_hot",
    "wrapper_of",
]

BaseComposition = _BaseComposition
fit_context = _fit_context
refuse_metadata = _raise_for_params
routing_enabled = _routing_enabled
VisualBlock = _VisualBlock
column_indices = _get_column_indices


class Interval(_Interval):
    """Scikit-learn's, which fails on numbers that NumPy does not know, such as fractions."""

    def is_satisfied_by(self, val):
        """Whether a value lies in the interval."""
        try:
            return super().is_satisfied_by(val)
        except TypeError:
            return False


def check_parts(estimator):
    """Check the parameters of all that stands in an estimator's parameters, at any depth.

    An estimator checks its own when it is fitted; then those before it have long been trained.
    """
    for part in estimator.get_params(deep=True).values():
        if isinstance(part, BaseEstimator) and hasattr(part, "_parameter_constraints"):
            part._validate_params()


# What a transformer and a stack have in common.
CROSS_FIT_CONSTRAINTS = {
    "categorical_features": [None, StrOptions({"from_dtype"}), "array-like"],
    "cv": ["cv_object"],
    "refit": ["boolean"],
    "n_jobs": [  # neither 0 (nor False), nor more than joblib can write down
        None,
        Interval(Integral, 1, 2**31 - 1, closed="both"),
        Interval(Integral, -(2**31), -1, closed="both"),
    ],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


# What says how columns become the inputs of a network.
INPUT_CONSTRAINTS = {
    "inputs": [None, StrOptions({"prefix"}), dict, list, tuple],
    "input_shape": [None, tuple, list, dict],
}


def check_shape(input_shape):
    """Refuse what is no shape of one row, and no dict of such by input."""
    if input_shape is None:
        return
    shapes = input_shape.values() if isinstance(input_shape, dict) else [input_shape]
    for shape in shapes:
        sizes = shape if isinstance(shape, (tuple, list)) else [None]
        if not sizes or not all(isinstance(size, Integral) and size > 0 for size in sizes):
            raise ValueError(
                f"input_shape={input_shape!r} must be the shape of one row, such as (28, 28, 1), "
                "or a dict of such shapes by the name of the input."
            )


def n_rows(X):
    """Number of rows of anything that scikit-learn takes for a table."""
    try:
        return _num_samples(X)
    except TypeError as error:
        raise TypeError(f"X is no table of rows: {error}") from error


def is_dataframe(X):
    """Whether X is a pandas or polars DataFrame."""
    return hasattr(X, "shape") and hasattr(X, "columns") and hasattr(X, "dtypes")


def output_container(transformer):
    """What ``set_output`` asks for: ``"default"``, ``"pandas"`` or ``"polars"``."""
    return _get_output_config("transform", transformer)["dense"]


def is_float32(X):
    """Whether steps of scikit-learn compute with a table in float32, which rounds their moments."""
    return set(map(str, X.dtypes if is_dataframe(X) else [X.dtype])) == {"float32"}


def indexed_like(table, X):
    """A table with the index of X, where both are pandas DataFrames; else with a fresh one."""
    if not hasattr(table, "iloc"):
        return table
    index = getattr(X, "index", None) if hasattr(X, "iloc") else None
    return table.reset_index(drop=True) if index is None else table.set_axis(index, axis=0)


def fitted_parts():
    """Classes in which scikit-learn's meta-estimators keep estimators and scores."""
    from sklearn.calibration import (
        _CalibratedClassifier,
        _SigmoidCalibration,
        _TemperatureScaling,
    )
    from sklearn.metrics._scorer import _CurveScorer, _PassthroughScorer, _Scorer

    scorers = (_CurveScorer, _PassthroughScorer, _Scorer)
    return (*scorers, _CalibratedClassifier, _SigmoidCalibration, _TemperatureScaling)


def take_rows(X, indices):
    """Rows of any array, frame, sparse matrix or list, in the kind that came in."""
    return _safe_indexing(X, indices, axis=0)


def take_columns(X, columns, parameter):
    """Columns of X by name, position, slice, mask or callable, as in ``ColumnTransformer``."""
    return columns_at(X, column_places(X, columns, parameter))


SEQUENCES = "steps"  # the column that a list of sequences becomes


def _is_list_of_sequences(X):
    """Whether X holds an array of its own for each row: a list, or an array of objects."""
    rows = X if isinstance(X, (list, tuple)) else ()
    if isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1:
        rows = X
    return len(rows) > 0 and all(isinstance(row, np.ndarray) and row.ndim > 0 for row in rows)


def _sequences_as_frame(estimator, X, *, reset):
    """A list of sequences of unequal length as a table of one column; all else as it is.

    Whether lengths differ is a matter of the rows at hand: what was learned from such a list goes
    on taking lists, of one length too.
    """
    if is_dataframe(X) or not _is_list_of_sequences(X):
        return X
    if reset:
        apart = len({row.shape for row in X}) > 1
    else:
        apart = list(getattr(estimator, "feature_names_in_", ())) == [SEQUENCES]
    if not apart:
        return X
    import pandas as pd

    cells = np.empty(len(X), dtype=object)
    cells[:] = list(X)
    return pd.DataFrame({SEQUENCES: cells})


def column_places(X, columns, parameter):
    """Positions of columns by name, position, slice, mask or callable; None means all."""
    if columns is None:
        return np.arange(X.shape[1])
    try:
        chosen = columns(X) if callable(columns) else columns
        return np.asarray(column_indices(X, chosen), dtype=int)
    except Exception as error:  # whatever a callable, or scikit-learn with odd keys, may raise
        raise ValueError(
            f"{parameter}={columns!r} selects no columns of X: {type(error).__name__}: {error}"
        ) from error


def columns_at(X, places):
    """Columns of X by position; X itself where these are all."""
    if np.array_equal(places, np.arange(X.shape[1])):
        return X
    return _safe_indexing(X, places.tolist(), axis=1)


def read_table(estimator, X, *, reset):
    """Check the width and column names of X and leave its values to whoever learns from them."""
    X = _sequences_as_frame(estimator, X, reset=reset)
    if not is_dataframe(X):
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


def read_rows(estimator, X, *, reset):
    """Check X as scikit-learn does and remember, or compare, its width and column names.

    Frames are returned as they are, for their columns keep their dtypes until the blocks are
    split; everything else becomes a float32 array, of any rank from 2 up, or stays sparse.
    """
    X = _sequences_as_frame(estimator, X, reset=reset)
    if is_dataframe(X):
        names = list(X.columns)
        if len(set(names)) != len(names):
            twice = sorted({str(name) for name in names if names.count(name) > 1})
            raise ValueError(f"X has several columns of one name: {twice}. Rename them.")
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        if X.shape[0] == 0 or X.shape[1] == 0:
            short = "sample" if X.shape[0] == 0 else "feature"
            raise ValueError(
                f"Found array with 0 {short}(s) (shape={X.shape}) while a minimum of 1 is "
                f"required by {type(estimator).__name__}."
            )
        return X
    given = getattr(estimator, "categorical_features", None)
    keep = given is not None and not isinstance(given, str)
    finite = "allow-nan" if getattr(estimator, "imputer", None) is not None else True
    with np.errstate(over="ignore"):  # the error that follows says it in words
        return validate_data(
            estimator,
            X,
            reset=reset,
            accept_sparse="csr",
            dtype=None if keep else np.float32,
            allow_nd=True,
            ensure_all_finite=False if keep else finite,
        )


def check_weights(sample_weight, X):
    """Sample weights as float64 of shape (n,), non-negative, or None where none were given."""
    if sample_weight is None:
        return None
    n_rows(X)
    weights = _check_sample_weight(
        sample_weight, X, dtype=np.float64, ensure_non_negative=True, copy=True
    )
    largest = weights.max()
    # Only proportions matter, and scalers and networks compute in float32.
    return weights if 1e-30 < largest < 1e30 else weights / largest


def check_groups(groups, X):
    """Group labels of shape (n,), none missing, or None where none were given."""
    if groups is None:
        return None
    groups = column_or_1d(groups)
    check_consistent_length(X, groups)
    if groups.dtype.kind in "fO" and any(label is None or label != label for label in groups):
        raise ValueError("groups holds missing values; each row needs the label of its group.")
    return groups


def ignores_groups(splitter):
    """Whether a splitter of scikit-learn's kind says that it has no use for groups."""
    if not hasattr(splitter, "get_metadata_routing"):
        return False
    return "groups" not in get_routing_for_object(splitter).split.requests


def take_metadata(X, metadata, indices):
    """Metadata of some rows of X; what is not one value for each row stays whole."""
    whole = {name: metadata[name] for name in ("X_val", "y_val") if name in metadata}
    return {**_check_method_params(X, metadata, indices), **whole}


def is_classifier_for(estimator, y):
    """Whether an estimator learns classes, also where it forgets to say so (scikeras)."""
    if is_classifier(estimator):
        return True
    if is_regressor(estimator):
        return False
    return (
        y is not None
        and hasattr(type(estimator), "predict_proba")
        and type_of_target(y) in ("binary", "multiclass", "multilabel-indicator")
    )


def takes(estimator, parameter):
    """Whether the estimator's ``fit`` takes a parameter of that name."""
    if parameter == "sample_weight" and wrapper_of(estimator) == "keras":
        return True  # it hands all that it is given to ``keras.Model.fit``
    return has_fit_parameter(estimator, parameter)


def check_target(y, *, estimator, multi_output=True, y_numeric=False):
    """Check targets as scikit-learn does, and name y in every message."""
    if y is not None and hasattr(y, "isna") and np.any(np.asarray(y.isna())):
        raise ValueError("Input y contains NaN.")  # of strings scikit-learn says it without a name
    return _check_y(y, multi_output=multi_output, y_numeric=y_numeric, estimator=estimator)


def kind_of_target(y, estimator):
    """What scikit-learn's ``type_of_target`` says of y, which must hold no NaN."""
    check_target(y, estimator=estimator)
    try:
        with np.errstate(all="ignore"):  # it casts to whole numbers to see whether they are
            return type_of_target(y, input_name="y")
    except TypeError as error:
        raise TypeError(f"y holds labels of types that cannot be compared: {error}.") from error


def needs_y(estimator):
    """Whether ``fit`` cannot be called without y; scikeras and ``keras.wrappers`` do not say so."""
    parameters = inspect.signature(estimator.fit).parameters
    return "y" in parameters and parameters["y"].default is inspect.Parameter.empty


def wrapper_of(estimator):
    """``"scikeras"`` or ``"keras"`` for their estimators, None for all others."""
    homes = {cls.__module__.partition(".")[0] for cls in type(estimator).__mro__}
    found = homes & {"scikeras", "keras"} if hasattr(estimator, "get_params") else ()
    return next(iter(found), None)


check_input_names = _check_feature_names_in


def read_labels(estimator, y):
    """Labels of shape (n,), or a multilabel indicator of shape (n, n_labels), and which of both.

    Raises
    ------
    ValueError
        For NaN, infinity and targets that are no labels.
    """
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y "
            "is None."
        )
    y = y.toarray() if hasattr(y, "toarray") else y
    kind = kind_of_target(y, estimator)
    y = check_target(y, multi_output=kind == "multilabel-indicator", estimator=estimator)
    with np.errstate(all="ignore"):
        check_classification_targets(y)
    if kind not in ("binary", "multiclass", "multilabel-indicator"):
        raise ValueError(
            f"y holds a {kind} target; accepted are labels of shape (n_samples,) and "
            "multilabel indicators of shape (n_samples, n_labels)."
        )
    return y, kind


_fitting = contextvars.ContextVar("skstack_fitting", default=False)


def tells_of_one_hot(fit):
    """Have a method that fits tell, once and outermost, of labels that look one-hot encoded.

    Parameters
    ----------
    fit : method
        Of an estimator with a method ``_reads_indicator``, which says whether y of several columns
        would be read as several labels for each row.

    Returns
    -------
    method
    """

    @functools.wraps(fit)
    def wrapped(self, X, y=None, *args, **kwargs):
        if not _fitting.get() and self._reads_indicator() and _is_one_hot(y):
            warnings.warn(
                "y has one 1 in each row, as one-hot encoded classes have. "
                f"{type(self).__name__} reads it as a multilabel indicator: each column is a label "
                "of its own, with a probability of its own. Where each row has one class, pass "
                "labels: y.argmax(axis=1).",
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
    except ValueError:  # ragged: whoever reads it says so
        return False
    if y.ndim != 2 or min(y.shape) < 2:
        return False
    if y.dtype.kind not in "fiub" or not ((y == 0) | (y == 1)).all():
        return False
    return bool((y.sum(axis=1) == 1).all())
