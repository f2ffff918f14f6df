"""What the plots of this package share."""

from __future__ import annotations

import numpy as np


def last_estimator(estimator):
    """Of a search the best estimator, and of a Pipeline the last step, until it is neither."""
    while hasattr(estimator, "best_estimator_") or hasattr(estimator, "steps"):
        estimator = getattr(estimator, "best_estimator_", estimator)
        estimator = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    return estimator


def plot_axes(ax, caller, *, width, height, n_axes=None):
    """The axes to draw on: `ax`, or those of a new figure with this size in inches.

    With `n_axes`, an array of that many axes.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f'{caller} needs matplotlib: pip install "skstack[plot]".') from error
    if ax is None:
        settings = {"figsize": (width, height), "layout": "constrained", "squeeze": False}
        ax = plt.subplots(1, n_axes or 1, **settings)[1][0]
    axes = np.ravel(ax)
    if len(axes) != (n_axes or 1):
        raise ValueError(f"ax={ax!r} holds {len(axes)} axes; {caller} draws on {n_axes or 1}.")
    for each in axes:
        for side in ("top", "right"):
            each.spines[side].set_visible(False)
    return axes[0] if n_axes is None else axes
