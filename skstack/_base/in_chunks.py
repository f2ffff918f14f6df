"""Predictions for tables on disk, in chunks of rows."""

from __future__ import annotations

import contextvars
import functools

import numpy as np

ROWS_IN_MEMORY = 2**16

_warned = contextvars.ContextVar("skstack_warned_in_call", default=None)


def once_per_call(owner, warn):
    """Call `warn`, which returns whether it warned, until it has warned in this chunked call."""
    warned = _warned.get()
    if warned is None:
        warn()
    elif id(owner) not in warned and warn():
        warned.add(id(owner))


def in_chunks(method):
    """Compute a method for a ``numpy.memmap`` in chunks of rows, never all in memory.

    The result for a row must not depend on the other rows.
    """

    @functools.wraps(method)
    def wrapped(self, X, **kwargs):
        # Keyword arguments may hold a value for each row.
        whole = not isinstance(X, np.memmap) or X.ndim < 2 or bool(kwargs)
        if whole or len(X) <= ROWS_IN_MEMORY:
            return method(self, X, **kwargs)
        token = _warned.set(set())
        try:
            return _concatenated(method, self, X)
        finally:
            _warned.reset(token)

    return wrapped


def _concatenated(method, estimator, X):
    result = None
    for start in range(0, len(X), ROWS_IN_MEMORY):
        chunk = np.asarray(X[start : start + ROWS_IN_MEMORY])
        part = method(estimator, chunk)
        if not isinstance(part, np.ndarray):  # a DataFrame, for categories that pass through
            return method(estimator, X)
        if result is None:
            result = np.empty((len(X), *part.shape[1:]), part.dtype)
        result[start : start + len(part)] = part
    return result
