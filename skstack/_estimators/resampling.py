"""Resampling of training rows, and what becomes of their weights."""

# What resampling does to probabilities, and how to undo it.

from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.utils import get_tags

from skstack._base.tables import take_rows
from skstack._training.formulas import with_priors


class Resampled(NamedTuple):
    """What a sampler made.

    Attributes
    ----------
    X : ndarray or DataFrame of shape (n_new, n_columns)
        Of the kind, columns and dtypes that came.
    y : ndarray of shape (n_new,)
        In the labels that came.
    sample_weight : ndarray of shape (n_new,) or None
    sampler : object
        The fitted copy of the sampler.
    """

    X: Any
    y: Any
    sample_weight: Any
    sampler: Any


def check_sampler(sampler):
    """Refuse what cannot resample.

    Parameters
    ----------
    sampler : None or an object with `fit_resample`

    Raises
    ------
    TypeError
        `sampler` has no `fit_resample`, or is a class in place of an instance.

    Examples
    --------
    >>> from skstack._estimators.resampling import check_sampler
    >>> check_sampler("smote")
    Traceback (most recent call last):
        ...
    TypeError: sampler='smote' has no `fit_resample`; expected None or a sampler such as SMOTE().
    """
    if isinstance(sampler, type):
        raise TypeError(
            f"sampler is the class {sampler.__name__}; expected None or an instance: "
            f"{sampler.__name__}()."
        )
    if sampler is not None and not hasattr(sampler, "fit_resample"):
        raise TypeError(
            f"sampler={sampler!r} has no `fit_resample`; expected None or a sampler such as "
            "SMOTE()."
        )


def resample(sampler, X, y, sample_weight=None, *, random_state=None):
    """Resample training rows with a fitted copy of a sampler.

    Parameters
    ----------
    sampler : object with `fit_resample`
        Of imbalanced-learn or like it.
    X : ndarray of shape (n_rows, ...) or DataFrame of shape (n_rows, n_columns)
        Finite numbers; in a DataFrame also `category` columns. Rows of an array with more than two
        dimensions are flattened for the sampler.
    y : array-like of shape (n_rows,)
        Targets in the user's own labels.
    sample_weight : array-like of shape (n_rows,) or None
        Carried when every new row is a copy of an old one. The sampler never gets a row of weight
        zero.
    random_state : int or None
        For those `random_state` parameters of the sampler that are None.

    Returns
    -------
    resampled : Resampled
        New arrays; nothing that came is changed.

    Raises
    ------
    TypeError
        `sampler` cannot resample.
    ValueError
        The sampler failed (too few rows of a class, for example), gave something inconsistent,
        interpolates between categories, or made new rows while there are weights.

    Examples
    --------
    >>> import numpy as np
    >>> from imblearn.over_sampling import RandomOverSampler
    >>> from skstack._estimators.resampling import resample
    >>> X, y = np.arange(4.0).reshape(4, 1), np.array(["no", "no", "no", "yes"])
    >>> new = resample(RandomOverSampler(), X, y, sample_weight=[1, 1, 1, 5], random_state=0)
    >>> new.y.tolist(), new.sample_weight.tolist()
    (['no', 'no', 'no', 'yes', 'yes', 'yes'], [1.0, 1.0, 1.0, 5.0, 5.0, 5.0])
    """
    check_sampler(sampler)
    if sampler is None:
        raise TypeError("sampler is None: there is nothing to resample with.")
    y = np.asarray(y)
    rows = None
    if sample_weight is not None:
        weights = np.asarray(sample_weight, dtype=np.float64)
        if weights.shape == (len(y),) and not weights.all():
            rows = np.flatnonzero(weights)
            X, y, sample_weight = take_rows(X, rows), y[rows], weights[rows]
            X = X.reset_index(drop=True) if hasattr(X, "iloc") else X
    fitted = clone(sampler, safe=False)
    if random_state is not None:
        _seed(fitted, random_state)
    _refuse_interpolated_categories(fitted, X)
    shape = np.shape(X)
    given = X if len(shape) == 2 else np.reshape(X, (shape[0], -1))
    try:
        made = fitted.fit_resample(given.copy(), y.copy())
    except ValueError as error:
        raise ValueError(
            f"sampler={sampler!r} failed on the {len(y)} training rows that it was given "
            f"({_counts(y)}; a fold has fewer rows than the whole data): {error}"
        ) from error
    if not (isinstance(made, tuple) and len(made) == 2):
        raise ValueError(f"sampler={sampler!r} gave no pair (X, y), but {type(made).__name__}.")
    X_new, y_new = _checked(sampler, given, y, *made)
    weights = None
    if sample_weight is not None:
        weights = _carried_weights(sampler, fitted, given, y, X_new, y_new, sample_weight)
    if rows is not None and hasattr(fitted, "sample_indices_"):  # of the rows that came
        fitted.sample_indices_ = rows[fitted.sample_indices_]
    if len(shape) > 2:
        X_new = X_new.reshape(-1, *shape[1:])
    return Resampled(X_new, y_new, weights, fitted)


def _seed(sampler, random_state):
    """Set the seeds that the user left open."""
    if hasattr(sampler, "get_params"):
        for name, value in sorted(sampler.get_params(deep=True).items(), key=lambda pair: pair[0]):
            if value is None and name.split("__")[-1] == "random_state":
                sampler.set_params(**{name: random_state})


def _refuse_interpolated_categories(sampler, X):
    """Samplers that compute with numbers invent categories, or distances between them."""
    kind = getattr(sampler, "_sampling_type", "bypass")
    if kind == "bypass" or not _category_columns(X) or get_tags(sampler).input_tags.string:
        return
    name = type(sampler).__name__
    instead = (
        'SMOTENC("auto"), which keeps categories whole, or RandomOverSampler()'
        if kind == "over-sampling"
        else "RandomUnderSampler()"
    )
    columns = [str(column) for column in _category_columns(X)]
    raise ValueError(
        f"sampler={sampler!r}: {name} computes with numbers, and the table has categorical columns "
        f"({', '.join(columns[:5])}). Use {instead}."
    )


def _category_columns(X):
    """Names of the categorical columns of a table."""
    if not hasattr(X, "dtypes"):
        return []
    return [name for name, dtype in zip(X.columns, X.dtypes, strict=True) if dtype == "category"]


def _checked(sampler, X, y, X_new, y_new):
    """Give the sampler's rows the kind that came, and refuse what a network could not train on."""
    said = f"sampler={sampler!r} gave"
    if hasattr(X, "iloc"):
        if not hasattr(X_new, "iloc") or list(X_new.columns) != list(X.columns):
            raise ValueError(f"{said} other columns than it was given: {list(X.columns)}.")
        X_new = X_new.reset_index(drop=True)
        for name in _category_columns(X):
            levels = X[name].cat.categories
            strange = X_new[name].notna() & ~X_new[name].isin(levels)
            if strange.any():
                raise ValueError(
                    f"{said} categories that column {name!r} lacks: "
                    f"{sorted(set(X_new[name][strange].map(str)))[:5]}. A sampler that keeps "
                    'categories whole is SMOTENC("auto").'
                )
        X_new = X_new.astype(X.dtypes.to_dict())
        lost = X_new.isna().any().to_numpy() & ~X.isna().any().to_numpy()
        if lost.any():
            raise ValueError(f"{said} NaN in the columns {list(X.columns[lost])}.")
        numbers, before = (part.select_dtypes("number").to_numpy() for part in (X_new, X))
    else:
        X_new = X_new.toarray() if hasattr(X_new, "toarray") else X_new
        X_new = numbers = np.asarray(X_new, dtype=X.dtype)
        before = X.toarray() if hasattr(X, "toarray") else X
        if X_new.ndim != 2 or X_new.shape[1] != X.shape[1]:
            raise ValueError(
                f"{said} a table of shape {X_new.shape}; expected {X.shape[1]} columns."
            )
    numeric = numbers.dtype.kind != "O"
    if numeric and np.isfinite(before).all() and not np.isfinite(numbers).all():
        raise ValueError(f"{said} NaN or infinity.")
    y_new = np.asarray(y_new)
    if not len(y_new) or len(X_new) != len(y_new) or y_new.shape[1:] != y.shape[1:]:
        raise ValueError(f"{said} {len(X_new)} rows of X and targets of shape {y_new.shape}.")
    new = sorted(set(map(str, y_new[~np.isin(y_new, y)])))
    if new:
        raise ValueError(f"{said} labels that it was not given: {', '.join(new[:5])}.")
    return X_new, y_new.astype(y.dtype)


def _carried_weights(sampler, fitted, X, y, X_new, y_new, sample_weight):
    """Weights of the rows that were copied; an error when any was made."""
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (len(y),):
        raise ValueError(f"sample_weight has shape {weights.shape}; expected ({len(y)},).")
    indices = getattr(fitted, "sample_indices_", None)
    copied = indices is not None and len(indices) == len(y_new)
    if copied:
        if hasattr(X, "iloc"):
            copied = X.iloc[indices].reset_index(drop=True).equals(X_new)
        else:
            copied = np.array_equal(X[indices], X_new)
        copied = copied and np.array_equal(y[indices], y_new)
    if not copied:
        raise ValueError(
            f"sample_weight does not go with sampler={sampler!r}: it makes new rows (or does not "
            "tell in `sample_indices_` which rows it copied), and a new row has no weight. Use a "
            "sampler that picks rows (RandomOverSampler, RandomUnderSampler), leave the sampler "
            "out (weights can balance classes: class_weight), or fit without sample_weight."
        )
    return weights[indices]


def _counts(y):
    """Rows of each class, in words."""
    if y.ndim > 1:
        return f"targets of shape {y.shape}"
    labels, counts = np.unique(y, return_counts=True)
    pairs = zip(labels[:10], counts, strict=False)
    return ", ".join(f"class {label!s}: {count} row(s)" for label, count in pairs)


_CLEANING = (
    "imblearn.combine",
    "imblearn.under_sampling._prototype_selection._instance_hardness_threshold",
    "imblearn.under_sampling._prototype_selection._nearmiss",
)


def refuse_cleaning(sampler):
    """Refuse samplers that remove rows by where they lie, for prior correction.

    Dropping rows near the border changes the distribution of x within a class, so that the ratio of
    class counts no longer says how probabilities moved.

    Parameters
    ----------
    sampler : None or object with `fit_resample`

    Raises
    ------
    ValueError
        `sampler`, or a sampler inside it, is a cleaning one.
    """
    parts = [sampler]
    if hasattr(sampler, "get_params") and not isinstance(sampler, type):
        parts += list(sampler.get_params(deep=True).values())
    for part in parts:
        modules = [cls.__module__ for cls in type(part).__mro__]
        cleans = getattr(part, "_sampling_type", None) == "clean-sampling"
        # Some that clean call themselves over- or under-samplers.
        if cleans or any(module.startswith(_CLEANING) for module in modules):
            raise ValueError(
                f"prior_correction=True does not go with sampler={sampler!r}: "
                f"{type(part).__name__} removes rows by where they lie, so class counts do not say "
                "how probabilities moved. Use a sampler that keeps each class as it is "
                "(RandomUnderSampler, RandomOverSampler), or prior_correction=False."
            )


def prior_ratio(y_before, y_after, classes, weights_before=None, weights_after=None):
    """How much rarer each class is in the data than among the resampled rows.

    Parameters
    ----------
    y_before, y_after : array-like of shape (n_before,) and (n_after,)
        Targets before and after resampling.
    classes : array-like of shape (n_classes,)
        In the order of the probabilities' columns.
    weights_before, weights_after : array-like or None
        Sample weights; None counts rows.

    Returns
    -------
    ratio : ndarray of shape (n_classes,), float64
        Share before over share after. A class without rows before has 0.

    Raises
    ------
    ValueError
        A class has rows before, but none after.

    Notes
    -----
    M. Saerens, P. Latinne, C. Decaestecker, "Adjusting the outputs of a classifier to new a priori
    probabilities", Neural Computation 14(1), 2002, equation 2.4. A. Dal Pozzolo et al.,
    "Calibrating probability with undersampling for unbalanced classification", IEEE SSCI, 2015.

    Examples
    --------
    >>> from skstack._estimators.resampling import prior_ratio
    >>> prior_ratio([0] * 9 + [1], [0, 1], [0, 1]).tolist()
    [1.8, 0.2]
    """
    before = _shares(y_before, classes, weights_before)
    after = _shares(y_after, classes, weights_after)
    lost = [str(label) for label in np.asarray(classes)[(before > 0) & (after == 0)]]
    if lost:
        raise ValueError(
            f"The sampler left no row of class {', '.join(lost)}: probabilities cannot be "
            "corrected. Use another sampler, or prior_correction=False."
        )
    return np.divide(before, after, out=np.zeros_like(before), where=after > 0)


def correct_priors(probabilities, ratio):
    """Multiply probabilities with the ratio of priors and make rows add up to one.

    Parameters
    ----------
    probabilities : ndarray of shape (n_rows, n_classes)
    ratio : ndarray of shape (n_classes,)
        From `prior_ratio`.

    Returns
    -------
    corrected : ndarray of shape (n_rows, n_classes), the dtype that came

    Examples
    --------
    >>> import numpy as np
    >>> from skstack._estimators.resampling import correct_priors
    >>> correct_priors(np.array([[0.5, 0.5]]), np.array([1.8, 0.2])).round(3).tolist()
    [[0.9, 0.1]]
    """
    probabilities = np.asarray(probabilities)
    return with_priors(probabilities.astype(np.float64), ratio, np).astype(probabilities.dtype)


def correct_decisions(decisions, probabilities, ratio):
    """Log-odds of two classes, or log probabilities of several, after `correct_priors`.

    Where decisions are log-odds, or logits of a softmax, the logarithm of the ratio is added, for
    probabilities near 0 and 1 have lost digits. All other decisions give way to the probabilities.

    Parameters
    ----------
    decisions : ndarray of shape (n_rows,) or (n_rows, n_decisions)
    probabilities : ndarray of shape (n_rows, n_classes)
        Before the correction.
    ratio : ndarray of shape (n_classes,)
        From `prior_ratio`.

    Returns
    -------
    corrected : ndarray of float64 of shape (n_rows,) for two classes, else (n_rows, n_classes)

    Examples
    --------
    >>> import numpy as np
    >>> from skstack._estimators.resampling import correct_decisions
    >>> p = np.array([[0.5, 0.5], [0.2, 0.8]])
    >>> correct_decisions(np.log(p[:, 1] / p[:, 0]), p, np.array([1.8, 0.2])).round(2).tolist()
    [-2.2, -0.81]
    """
    decisions = np.asarray(decisions, dtype=np.float64)
    probabilities = np.asarray(probabilities, dtype=np.float64)
    binary = probabilities.shape[1] == 2
    with np.errstate(divide="ignore"):
        shift = np.log(np.asarray(ratio, dtype=np.float64))
        logs = np.log(correct_priors(probabilities, ratio))
    if binary:
        logs, shift = logs[:, 1] - logs[:, 0], shift[1] - shift[0]
        own = decisions.ravel() if decisions.size == len(probabilities) else None
        of_own = None if own is None else np.c_[1 - expit(own), expit(own)]
    else:
        own = decisions if decisions.shape == probabilities.shape else None
        of_own = None if own is None else softmax(own, axis=1)
    if own is None:
        return logs
    same = np.isclose(of_own, probabilities, atol=1e-6).all(axis=1)
    return np.where(same if binary else same[:, None], own + shift, logs)


def refuse_labels(y):
    """Refuse several labels for each row, for prior correction.

    Parameters
    ----------
    y : ndarray

    Raises
    ------
    ValueError
        `y` has two dimensions.
    """
    if y.ndim == 2:
        raise ValueError(
            f"prior_correction=True is for one label for each row, but y has shape {y.shape}. Pass "
            "labels (y.argmax(axis=1), where each row has one 1), or prior_correction=False."
        )


def _shares(y, classes, weights):
    """Share of each class."""
    y, classes = np.asarray(y), np.asarray(classes)
    weights = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    counts = np.array([weights[y == label].sum() for label in classes])
    if not counts.sum() > 0:
        raise ValueError("No row has a positive weight, so classes have no shares.")
    return counts / counts.sum()
