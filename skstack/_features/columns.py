"""Outputs of a network as named columns of a table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skstack._training import formulas

FEATURES = ("outputs", "log_odds", "entropy", "margin", "reconstruction_error", "codes")
OF_PROBABILITIES = ("log_odds", "entropy", "margin")
OF_CLASSES = (*OF_PROBABILITIES, "codes")
POOLINGS = ("flatten", "mean", "max", "last")


@dataclass(frozen=True)
class Columns:
    """Some columns of the extracted table.

    ``out_of_fold``: rows that trained the network need the values of another one. ``inner``: an
    inner layer, whose axes have no meaning outside its network. ``categorical``: category codes.
    ``transformed``: the result of an estimator's ``transform``, whose columns may change their
    meaning with each fit. Values are float32, or float64 if they were, so that a scaler can
    subtract an offset.
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
    """Convert to float32 if no precision is lost, else to float64."""
    values = np.asarray(values)
    return values.astype(
        np.float32 if np.can_cast(values.dtype, np.float32) else np.float64, copy=False
    )


def log_odds(probabilities, *, exclusive=True):
    """Logarithm of p / (1 - p), with p clipped to [1e-7, 1 - 1e-7]; in [-16.12, 16.12].

    For exclusive classes, 1 - p is computed as the sum of the others: near 1 it is more precise.
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
    """Index of the largest output of each row, or integer outputs, of shape (n_rows, 1)."""
    if values.ndim == 2 and values.shape[1] > 1:
        return values.argmax(axis=1).astype(np.float32)[:, None]
    if values.shape[1:] not in ((), (1,)):
        raise ValueError(
            f"features='codes' needs one output per category, or integers; {what} has an "
            f"output of shape {(None, *values.shape[1:])}."
        )
    values = values.reshape(-1, 1)
    if not np.array_equal(values, np.round(values)):
        if values.min() < 0 or values.max() > 1:
            raise ValueError(
                f"features='codes' needs one output per category, or integers; {what} "
                f"returns numbers from {values.min():.3g} to {values.max():.3g}."
            )
        values = values > 0.5
    return values.astype(np.float32)


def to_dataframe(columns, passed=None):
    """Columns, and those that pass through, as a DataFrame with categorical dtypes."""
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
