"""Predictions of tables that lie on disk, a stretch of rows at a time."""

from __future__ import annotations

import contextvars
import functools

import numpy as np

ROWS_IN_MEMORY = 2**16

_told = contextvars.ContextVar("told", default=None)


def once_per_call(who, tell):
    """Let somebody warn in one stretch of a call at most.

    Parameters
    ----------
    who : object
        Who warns.

    tell : callable
        Without arguments; returns whether it has warned.
    """
    told = _told.get()
    if told is None:
        tell()
    elif id(who) not in told and tell():
        told.add(id(who))


def in_chunks(method):
    """Compute a `numpy.memmap` in stretches, so that it is never in memory as a whole.

    Parameters
    ----------
    method : method
        Of rows; what it gives of a row does not depend on the other rows.

    Returns
    -------
    method
    """

    @functools.wraps(method)
    def wrapped(self, X, **kwargs):
        # Other arguments may belong to rows, too.
        stays = not isinstance(X, np.memmap) or X.ndim < 2 or bool(kwargs)
        if stays or len(X) <= ROWS_IN_MEMORY:
            return method(self, X, **kwargs)
        token = _told.set(set())
        try:
            return _in_stretches(method, self, X)
        finally:
            _told.reset(token)

    return wrapped


def _in_stretches(method, estimator, X):
    result = None
    for start in range(0, len(X), ROWS_IN_MEMORY):
        rows = np.asarray(X[start : start + ROWS_IN_MEMORY])
        part = method(estimator, rows)
        if not isinstance(part, np.ndarray):  # a frame, for categories that pass through
            return method(estimator, X)
        if result is None:
            result = np.empty((len(X), *part.shape[1:]), part.dtype)
        result[start : start + len(part)] = part
    return result
