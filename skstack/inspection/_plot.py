"""Axes for the plots of this package."""

from __future__ import annotations


def plot_axes(ax, caller, *, width, height):
    """The axes to draw on: `ax`, or those of a new figure with this size in inches."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f'{caller} needs matplotlib: pip install "skstack[plot]".') from error
    if ax is None:
        _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax
