"""What a network's outputs are turned into: columns of a table, with names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skstack._training import formulas

FEATURES = ("outputs", "log_odds", "entropy", "margin", "reconstruction_error", "codes")
OF_PROBABILITIES = ("log_odds", "entropy", "margin")
POOLINGS = ("flatten", "mean", "max", "last")


@dataclass(frozen=True)
class Columns:
    """Some columns of the extracted table.

    Parameters
    ----------
    names : tuple of str
        One for each column.

    values : ndarray of float32 or float64 of shape (n_rows, n_columns)
        The columns; float64 where they came so, for a scaler may yet subtract an offset.

    out_of_fold : bool
        Whether rows that trained the network need the values of another one.

    inner : bool
        Whether this is an inner layer, whose axes mean nothing outside its own network.

    categorical : bool
        Whether the values are numbers of categories.

    transformed : bool
        Whether this is what ``transform`` of an estimator gives, whose columns may mean other
        things after each fit.
    """

    names: tuple[str, ...]
    values: np.ndarray
    out_of_fold: bool
    inner: bool = False
    categorical: bool = False
    transformed: bool = False


def as_columns(values, pooling):
    """Outputs of any rank as an array or view of shape (n_rows, n_columns); see `pooled`."""
    values = floats(values)
    return formulas.pooled(values, pooling if values.ndim > 2 else "flatten", np)


def floats(values):
    """Float32 of what that has room for, float64 of all else."""
    values = np.asarray(values)
    return values.astype(
        np.float32 if np.can_cast(values.dtype, np.float32) else np.float64, copy=False
    )


def log_odds(probabilities, *, exclusive=True):
    """Logarithm of p / (1 - p), with p clipped to [1e-7, 1 - 1e-7]; in [-16.12, 16.12].

    Of classes that exclude each other, 1 - p is the sum of the others: near 1 it has more digits.
    """
    p = probabilities.astype(np.float64)
    rest = p.sum(axis=1, keepdims=True) - p if exclusive else 1 - p
    return formulas.log_odds(p, rest, np).astype(np.float32)


def clipped(logits):
    """Log-odds clipped to the interval of those of probabilities."""
    largest = formulas.LARGEST_LOG_ODDS
    return np.clip(logits, -largest, largest).astype(np.float32)


def entropy(probabilities):
    """Shannon entropy of each row, of shape (n_rows, 1), in nats: in [0, log(n_classes)]."""
    return formulas.entropy(probabilities.astype(np.float64), np).astype(np.float32)


def margin(probabilities):
    """Largest probability minus the second largest, of shape (n_rows, 1); in [0, 1]."""
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    return (two[:, 1:] - two[:, :1]).astype(np.float32)


def codes(values, what):
    """Number of the largest output of each row, or outputs that are whole numbers, (n_rows, 1)."""
    if values.ndim == 2 and values.shape[1] > 1:
        return values.argmax(axis=1).astype(np.float32)[:, None]
    if values.shape[1:] not in ((), (1,)):
        raise ValueError(
            f"features='codes' needs one output for each category, or whole numbers; {what} gives "
            f"an output of shape {(None, *values.shape[1:])}."
        )
    values = values.reshape(-1, 1)
    if not np.array_equal(values, np.round(values)):
        if values.min() < 0 or values.max() > 1:
            raise ValueError(
                f"features='codes' needs one output for each category, or whole numbers; {what} "
                f"gives numbers from {values.min():.3g} to {values.max():.3g}."
            )
        values = values > 0.5
    return values.astype(np.float32)


def to_dataframe(columns, passed=None):
    """Columns as a frame, numbers of categories as such.

    Parameters
    ----------
    columns : list of Columns

    passed : ndarray, DataFrame or None
        Columns that follow.

    Returns
    -------
    DataFrame
    """
    import pandas as pd

    parts = []
    for part in columns:
        frame = pd.DataFrame(part.values, columns=list(part.names))
        if part.categorical:
            frame = frame.round().astype("Int64").astype("category")
        parts.append(frame)
    if passed is not None:
        parts.append(pd.DataFrame(passed))
    return pd.concat(parts, axis=1)
