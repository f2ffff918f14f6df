"""Rows that early stopping watches, compared with those that are learned from."""

from __future__ import annotations

import numpy as np

from skstack.stages._profile import ColumnProfile

__all__ = ["warn_of_watched", "warn_of_watched_targets"]


def warn_of_watched(profile, X_val):
    """Warn where ``X_val`` is on another scale than the training rows.

    Parameters
    ----------
    profile : ColumnProfile
        Of the training rows.

    X_val : table
    """
    profile.warn_if_apart(
        X_val,
        "X_val",
        "X",
        "The loss on such rows does not tell when to stop. The steps of a Pipeline do not reach "
        "X_val by themselves: with metadata routing enabled, Pipeline(..., transform_input="
        "['X_val']) and set_fit_request(X_val=True, y_val=True) of the network let them; or scale "
        "X_val as X was before the fit.",
    )


def warn_of_watched_targets(y, y_val):
    """Warn where ``y_val`` is on another scale than ``y``.

    Parameters
    ----------
    y, y_val : ndarray of numbers of shape (n_rows,) or (n_rows, n_targets)
    """
    y, y_val = (np.reshape(values, (len(values), -1)) for values in (y, y_val))
    names = ["y"] if y.shape[1] == 1 else [f"y[:, {place}]" for place in range(y.shape[1])]
    ColumnProfile.of(y).renamed(names).warn_if_apart(
        y_val,
        "y_val",
        "y",
        "Pass both in the same units. TransformedTargetRegressor transforms y, but not y_val.",
    )
