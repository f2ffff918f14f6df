"""When to stop early: one rule, for tensors inside a program and for numbers beside it."""

from __future__ import annotations


def judge(xp, loss, best, without_better, tol):
    """Judge a validation loss; one that is not a number is no improvement.

    Parameters
    ----------
    xp : module
        NumPy or TensorFlow.
    loss, best : scalar float32
        The loss of this epoch, and the lowest so far.
    without_better : scalar int32
        Epochs since the loss last improved by more than `tol`.
    tol : scalar float32

    Returns
    -------
    is_best, best, without_better : scalar
        Whether this epoch has the lowest loss, and the two counts with this epoch.
    """
    is_best = loss < best
    without_better = xp.where(loss < best - tol, 0, without_better + 1)
    return is_best, xp.where(is_best, loss, best), without_better
