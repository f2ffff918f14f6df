"""Predictions of tables that lie on disk, a stretch of rows at a time."""

from __future__ import annotations

import functools

import numpy as np

__all__ = ["ROWS_IN_MEMORY", "streamed"]

ROWS_IN_MEMORY = 2**16


def streamed(method):
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
        result = None
        for start in range(0, len(X), ROWS_IN_MEMORY):
            rows = np.asarray(X[start : start + ROWS_IN_MEMORY])
            part = method(self, rows)
            if not isinstance(part, np.ndarray):  # a frame, for categories that pass through
                return method(self, X)
            if result is None:
                result = np.empty((len(X), *part.shape[1:]), part.dtype)
            result[start : start + len(part)] = part
        return result

    return wrapped
