"""The loss of predictions that are at hand."""

from __future__ import annotations

import keras
import numpy as np


def mean_loss(loss, targets, outputs, weights=None) -> float:
    """Mean loss over rows, without what layers add.

    Parameters
    ----------
    loss : str, keras.losses.Loss or callable
        As in `Plan`.
    targets : ndarray of shape (n_rows, ...)
    outputs : ndarray of float32 of shape (n_rows, ...)
    weights : ndarray of shape (n_rows,), default=None
        Only their proportions matter.

    Returns
    -------
    float
    """
    function = keras.losses.get(loss)
    if isinstance(function, keras.losses.Loss):
        if weights is not None:
            weights = np.asarray(weights, dtype=np.float32) / np.mean(weights)
        return float(function(targets, outputs, weights))
    values = keras.ops.convert_to_numpy(function(targets, outputs))
    if values.ndim == 0:  # a function of all rows at once
        return float(values)
    return float(np.average(values.reshape(len(values), -1).mean(axis=1), weights=weights))
