"""Checks of y."""

from __future__ import annotations

import contextvars
import functools
import warnings

import numpy as np
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from skstack._base.sklearn import check_y


def check_target(y, *, estimator, multi_output=True, y_numeric=False):
    """Check targets as scikit-learn does, with y named in every message."""
    if y is not None and hasattr(y, "isna") and np.any(np.asarray(y.isna())):
        raise ValueError("Input y contains NaN.")  # scikit-learn does not name y for strings
    return check_y(y, multi_output=multi_output, y_numeric=y_numeric, estimator=estimator)


def kind_of_target(y, estimator):
    """The ``type_of_target`` of y, which must hold no NaN."""
    check_target(y, estimator=estimator)
    try:
        with np.errstate(all="ignore"):  # it casts to integers
            return type_of_target(y, input_name="y")
    except TypeError as error:
        raise TypeError(f"y holds labels of types that cannot be compared: {error}.") from error


def read_labels(estimator, y):
    """Labels (n,) or a multilabel indicator (n, n_labels), and the type of target."""
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
