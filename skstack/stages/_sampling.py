"""Resampling of training rows, and what becomes of their weights."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.utils import get_tags

from skstack._checks import take_rows


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
    >>> from skstack.stages import check_sampler
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
    >>> from skstack.stages import resample
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
