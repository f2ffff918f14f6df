"""Which targets, folds and class weights a part refuses, found before any network is trained."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.class_weight import compute_class_weight

from skstack._base.atomic_fit import trial_scope
from skstack._base.disk_table import in_memory
from skstack._base.params import (
    clone_part,
    is_keras_model,
    is_network_estimator,
    is_path,
    last_step,
)
from skstack._base.progress import errors_named
from skstack._base.tables import n_rows, take_rows
from skstack._estimators.classifier import KerasClassifier
from skstack._features.transformer import KerasFeatureTransformer
from skstack._features.trial import (
    MOST_ROWS,
    ROWS_OF_EACH,
    ROWS_OF_TARGETS,
    all_parts,
    own_generator,
    refusal,
    rows_of,
    tag_of,
    without_networks,
)
from skstack._splits.supervision import trains_network

_OF_POSITIVE_NUMBERS = ("gamma", "log_error", "poisson", "tweedie")  # losses, in lower case


def check_targets(estimator, y, label, X=None, *, classes):
    """Raise an error if an estimator refuses y: its columns, classes, or numbers below 0.

    It is fitted on some rows of X, or on random numbers. Networks are not trained. ``classes`` is
    whether y holds labels.
    """
    if y.ndim == 2:
        check_class_weight(estimator, y[:1], label)
    if is_path(estimator) or is_keras_model(estimator):
        return
    if hasattr(estimator, "_refuse_targets"):
        with errors_named(label):
            estimator._refuse_targets(y)
    _check_kind_of_target(estimator, y, label)
    if trains_network(estimator):
        return
    if y.ndim == 2:
        _check_takes_several(estimator, y.shape[1], label, classes, X)
    else:
        _check_takes_numbers(estimator, y, label, X)


def _check_kind_of_target(estimator, y, label):
    """Raise an error if an estimator takes only several targets, or only two classes.

    One whose tags say so is fitted on random numbers: a subclass may take more than its parent.
    """
    last = _last_estimator(estimator)
    if np.ndim(y) != 1 or isinstance(last, FrozenEstimator):  # which may have learned another y
        return
    several = tag_of(last, "target_tags", "single_output") is False
    two = tag_of(last, "classifier_tags", "multi_class") is False and len(np.unique(y)) > 2
    if not (several or two):
        return
    values = np.unique(y)
    tried = values[: MOST_ROWS // ROWS_OF_EACH]
    some = np.resize(tried, max(ROWS_OF_TARGETS, ROWS_OF_EACH * len(tried)))
    X = np.random.default_rng(0).random((len(some), 3))
    name = type(last).__name__
    two_columns = np.repeat(np.resize([1, 2], (len(some), 1)), 2, axis=1)
    if several and _refuses(last, X, some) and not _refuses(last, X, two_columns):
        raise ValueError(
            f"{label} does not accept y of shape (n_samples,): {name} takes a column for each of "
            "several targets. Use the estimator inside it."
        )
    if two and _refuses(last, X, some) and not _refuses(last, X, np.resize(values[:2], len(X))):
        raise ValueError(
            f"{label} does not accept y with {len(values)} classes: {name} takes two. Use "
            "OneVsRestClassifier(...), or another estimator."
        )


def _last_estimator(estimator):
    """The last step of Pipelines and searches, one inside another."""
    last = last_step(estimator)
    while hasattr(last, "param_grid") or hasattr(last, "param_distributions"):
        last = last_step(last.estimator)
    return last


def _refuses(estimator, X, y):
    """Whether a fit fails of the estimator itself; `refusal` fits those inside searches."""
    try:
        with own_generator(), trial_scope():
            without_networks(estimator).fit(X, y)
    except Exception:  # any estimator
        return True
    return False


def _check_takes_several(estimator, n_targets, label, classes, X):
    """Raise an error if an estimator accepts one target, but not several, which are random."""
    rng = np.random.default_rng(0)
    if X is None:
        X = rng.random((ROWS_OF_TARGETS, 3))
    else:
        X = in_memory(take_rows(X, np.arange(min(n_rows(X), ROWS_OF_TARGETS))))
    y = rng.random((n_rows(X), n_targets))
    y = (y > 0.5).astype(int) if classes else y
    error = refusal(estimator, X, y)
    if error is None or refusal(estimator, X, y[:, 0]) is not None:
        return
    wrapper = "MultiOutputClassifier" if classes else "MultiOutputRegressor"
    raise ValueError(
        f"{label} does not accept y of shape (n_samples, {n_targets}) ({type(error).__name__}: "
        f"{str(error).partition(chr(10))[0]}). Use sklearn.multioutput.{wrapper}(...), or another "
        "estimator."
    )


def _check_takes_numbers(estimator, y, label, X):
    """Raise an error if an estimator needs numbers above those of y."""
    numbers = is_regressor(estimator) and y.dtype.kind in "biuf"
    if not (numbers and y.min() <= 0 and _refuses_numbers_below_0(estimator)):
        return
    half = min(len(y), ROWS_OF_TARGETS) // 2  # of counts, the first rows may be 0 alone
    rows = np.unique([*range(half), y.argmin(), *np.argpartition(y, -half)[-half:]])
    rng = np.random.default_rng(0)
    if X is None:
        X = rng.random((len(rows), 3))
    else:
        X = rows_of(X, rows)
    error = refusal(estimator, X, y[rows])
    if error is None:
        return
    if refusal(estimator, X, rng.uniform(0.1, 0.9, len(rows))) is None:
        raise ValueError(
            f"{label} does not accept y, which holds values from {y.min():.6g} to {y.max():.6g} "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]}). Use another loss, or "
            "another estimator."
        )


def _refuses_numbers_below_0(estimator):
    """Whether a loss of a regressor may be defined only for positive numbers."""
    return any(
        kind in text
        for part in all_parts(estimator)
        for text in (
            type(part).__name__.lower(),
            *(value for value in part.get_params(deep=False).values() if isinstance(value, str)),
        )
        for kind in _OF_POSITIVE_NUMBERS
    )


def check_folds(estimator, X, y, pairs, label, weights=None):
    """Raise an error if an estimator refuses the only class among the training rows of a fold."""
    if is_path(estimator) or is_keras_model(estimator) or isinstance(estimator, FrozenEstimator):
        return
    counted = weights is not None and is_network_estimator(estimator)  # drops rows of weight 0
    for number, (train, _) in enumerate(pairs):
        known = train[np.asarray(weights)[train] > 0] if counted else train
        if (y[known] != y[known[0]]).any():
            continue
        rows = known[:ROWS_OF_TARGETS]
        some = rows_of(X, rows)
        error = refusal(estimator, some, y[rows])
        if error is None:
            return
        if refusal(estimator, some, np.resize(np.unique(y), len(rows))) is None:
            raise ValueError(
                f"{label}: the training rows of fold {number + 1} of {len(pairs)} hold the class "
                f"{y[known[0]]} only, which {type(estimator).__name__} refuses "
                f"({str(error).partition(chr(10))[0]}). Use other folds, such as cv=5."
            )


def check_class_weight(estimator, y, label, X=None):
    """Raise an error if an estimator, or a part of it, cannot weight the classes.

    A composite, which may give its parts other labels than y, is fitted on a few rows of X, or on
    random numbers, with its weights and without them. Networks are not trained.
    """
    with errors_named(label):
        _check_class_weight(estimator, y, X)


def _check_class_weight(estimator, y, X):
    if isinstance(estimator, FrozenEstimator):  # has the attributes of its estimator
        return
    errors = [_class_weight_error(candidate, y) for candidate in _weighted_candidates(estimator)]
    if errors and all(errors):
        raise errors[0]
    if isinstance(estimator, Pipeline):
        for number, (_, step) in enumerate(estimator.steps):
            _check_class_weight(step, y, None if number else X)
    elif isinstance(estimator, KerasClassifier):
        estimator._class_weights(y, None, np.unique(y))
    elif isinstance(estimator, KerasFeatureTransformer):
        _check_class_weight(estimator.model, y, X)
    elif hasattr(estimator, "_check_class_weights"):
        estimator._check_class_weights(y)
    elif isinstance(estimator, BaseEstimator) and y.ndim == 1:
        weight = estimator.get_params(deep=False).get("class_weight")
        if isinstance(weight, dict):
            compute_class_weight(weight, classes=np.unique(y), y=y)
        if not errors:
            _refuse_weights_of_parts(estimator, y, X)


def _refuse_weights_of_parts(estimator, y, X):
    """Raise the error of a fit on a few rows of each class that class weights of parts cause."""
    weighted = [
        name
        for name, value in estimator.get_params().items()
        if name.endswith("__class_weight") and isinstance(value, dict)
    ]
    if not weighted:
        return
    import pandas as pd

    _, codes = np.unique(y, return_inverse=True)
    rows = np.flatnonzero(pd.Series(codes).groupby(codes).cumcount() < ROWS_OF_EACH)
    if X is None:
        X = np.random.default_rng(0).random((len(rows), 3))
    else:
        X = rows_of(X, rows)
    error = refusal(estimator, X, y[rows])
    plain = clone_part(estimator).set_params(**dict.fromkeys(weighted))
    if error is not None and refusal(plain, X, y[rows]) is None:
        raise error


def _class_weight_error(estimator, y):
    """The error of `check_class_weight`, or None."""
    try:
        check_class_weight(estimator, y, type(estimator).__name__)
    except ValueError as error:
        return error
    return None


def _weighted_candidates(search):
    """The estimator of a search with each of the class weights that it tries; [] for others."""
    for grid in grids_of(search) if hasattr(search, "estimator") else ():
        if any(hasattr(value, "fit") for values in grid.values() for value in values):
            yield None  # candidates whose parts are others
            continue
        names = [name for name in grid if name.rpartition("__")[2] == "class_weight"]
        for name in names:
            for value in grid[name]:
                yield clone_part(search.estimator).set_params(**{name: value})
        if not names:
            yield search.estimator


def grids_of(search):
    """The grids of a search, with those parameters of which candidates are listed."""
    grids = getattr(search, "param_grid", getattr(search, "param_distributions", None))
    for grid in [grids] if isinstance(grids, dict) else grids or ():
        listed = {name: getattr(values, "choices", values) for name, values in grid.items()}
        yield {n: v for n, v in listed.items() if isinstance(v, list | tuple | np.ndarray)}
