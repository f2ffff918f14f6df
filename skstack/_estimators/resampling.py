"""Resampling of training rows, their weights, and the correction of class priors."""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.utils import get_tags

from skstack._base.tables import take_rows
from skstack._base.text import described
from skstack._training.formulas import with_priors


class Resampled(NamedTuple):
    """Resampled rows in the type, dtypes and labels of the input, and the fitted sampler."""

    X: Any
    y: Any
    sample_weight: Any
    sampler: Any


def check_sampler(sampler):
    """Refuse objects that cannot resample.

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
            f"sampler={described(sampler)} has no `fit_resample`; expected None or a sampler such "
            "as SMOTE()."
        )


def resample(sampler, X, y, sample_weight=None, *, random_state=None):
    """Resample training rows with a fitted copy of a sampler.

    Rows of an array with more than two dimensions are flattened for the sampler. Weights are
    carried if every new row is a copy; rows of weight zero are not resampled. ``random_state``
    seeds the sampler's own ``random_state`` parameters that are None. Input arrays are not
    modified.

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
        raise TypeError("sampler is None; expected an instance.")
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
    refuse_interpolated_categories(fitted, X)
    shape = np.shape(X)
    flat = X if len(shape) == 2 else np.reshape(X, (shape[0], -1))
    try:
        result = fitted.fit_resample(flat.copy(), y.copy())
    except ValueError as error:
        raise ValueError(
            f"sampler={described(sampler)} failed on {len(y)} training rows "
            f"({_counts(y)}; a fold has fewer rows than the whole data): {error}"
        ) from error
    if not (isinstance(result, tuple) and len(result) == 2):
        raise ValueError(
            f"sampler={described(sampler)} must return a pair (X, y), but returned "
            f"{type(result).__name__}."
        )
    X_new, y_new = _checked(sampler, flat, y, *result)
    weights = None
    if sample_weight is not None:
        weights = _carried_weights(sampler, fitted, flat, y, X_new, y_new, sample_weight)
    if rows is not None and hasattr(fitted, "sample_indices_"):  # indices of the input rows
        fitted.sample_indices_ = rows[fitted.sample_indices_]
    if len(shape) > 2:
        X_new = X_new.reshape(-1, *shape[1:])
    return Resampled(X_new, y_new, weights, fitted)


def _seed(sampler, random_state):
    """Set every ``random_state`` that is None."""
    if hasattr(sampler, "get_params"):
        for name, value in sorted(sampler.get_params(deep=True).items(), key=lambda pair: pair[0]):
            if value is None and name.split("__")[-1] == "random_state":
                sampler.set_params(**{name: random_state})


def refuse_interpolated_categories(sampler, X):
    """Refuse samplers that would treat category codes as numbers."""
    kind = getattr(sampler, "_sampling_type", "bypass")
    if kind == "bypass" or not _category_columns(X) or _repeats_rows(sampler, X):
        return
    name = type(sampler).__name__
    instead = (
        'SMOTENC("auto"), which does not interpolate categories, or RandomOverSampler()'
        if kind == "over-sampling"
        else "RandomUnderSampler()"
    )
    columns = [str(column) for column in _category_columns(X)]
    raise ValueError(
        f"sampler={described(sampler)}: {name} computes with numbers, and the table has "
        f"categorical columns ({', '.join(columns[:5])}). Use {instead}."
    )


def _repeats_rows(sampler, X):
    """Whether a sampler repeats rows of this table: RandomOverSampler may add noise to them."""
    shrinkage = getattr(sampler, "shrinkage", None)
    if shrinkage is not None:
        noise = shrinkage.values() if isinstance(shrinkage, dict) else [shrinkage]
        levels = [X[name].cat.categories.dtype for name in _category_columns(X)]
        if any(noise) or not all(dtype.kind in "iuf" for dtype in levels):  # 0 multiplies, too
            return False
    return get_tags(sampler).input_tags.string


def _category_columns(X):
    """Names of the categorical columns of a table."""
    if not hasattr(X, "dtypes"):
        return []
    return [name for name, dtype in zip(X.columns, X.dtypes, strict=True) if dtype == "category"]


def _checked(sampler, X, y, X_new, y_new):
    """Convert the sampled rows to the input's type; refuse rows that cannot be trained on."""
    returned = f"sampler={described(sampler)} returned"
    if hasattr(X, "iloc"):
        if not hasattr(X_new, "iloc") or list(X_new.columns) != list(X.columns):
            raise ValueError(f"{returned} other columns than those of X: {list(X.columns)}.")
        X_new = X_new.reset_index(drop=True)
        for name in _category_columns(X):
            levels = X[name].cat.categories
            unknown = X_new[name].notna() & ~X_new[name].isin(levels)
            if unknown.any():
                raise ValueError(
                    f"{returned} categories that are not in column {name!r}: "
                    f"{sorted(set(X_new[name][unknown].map(str)))[:5]}. Use "
                    'SMOTENC("auto"), which does not interpolate categories.'
                )
        X_new = X_new.astype(X.dtypes.to_dict())
        with_nan = X_new.isna().any().to_numpy() & ~X.isna().any().to_numpy()
        if with_nan.any():
            raise ValueError(f"{returned} NaN in columns {list(X.columns[with_nan])}.")
        numbers, before = (part.select_dtypes("number").to_numpy() for part in (X_new, X))
    else:
        X_new = X_new.toarray() if hasattr(X_new, "toarray") else X_new
        X_new = numbers = np.asarray(X_new, dtype=X.dtype)
        before = X.toarray() if hasattr(X, "toarray") else X
        if X_new.ndim != 2 or X_new.shape[1] != X.shape[1]:
            raise ValueError(
                f"{returned} a table of shape {X_new.shape}; expected {X.shape[1]} columns."
            )
    numeric = numbers.dtype.kind != "O"
    if numeric and np.isfinite(before).all() and not np.isfinite(numbers).all():
        raise ValueError(f"{returned} NaN or infinity.")
    y_new = np.asarray(y_new)
    if not len(y_new) or len(X_new) != len(y_new) or y_new.shape[1:] != y.shape[1:]:
        raise ValueError(f"{returned} {len(X_new)} rows of X and targets of shape {y_new.shape}.")
    new = sorted(set(map(str, y_new[~np.isin(y_new, y)])))
    if new:
        raise ValueError(f"{returned} labels that are not in y: {', '.join(new[:5])}.")
    return X_new, y_new.astype(y.dtype)


def _carried_weights(sampler, fitted, X, y, X_new, y_new, sample_weight):
    """Weights of copied rows; raises an error if a row is new."""
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
            f"sample_weight is not supported with sampler={described(sampler)}: it creates new "
            "rows (or has no `sample_indices_` of copied rows), and new rows have no weight. Use "
            "a sampler that selects rows (RandomOverSampler, RandomUnderSampler), use "
            "class_weight instead of the sampler, or fit without sample_weight."
        )
    return weights[indices]


def _counts(y):
    """Number of rows of each class, as text."""
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
    """Refuse samplers that remove rows by their position, for prior correction.

    Dropping rows near the class border changes the distribution of x within a class, so that the
    ratio of class counts does not describe the change of the probabilities.
    """
    parts = [sampler]
    if hasattr(sampler, "get_params") and not isinstance(sampler, type):
        parts += list(sampler.get_params(deep=True).values())
    for part in parts:
        modules = [cls.__module__ for cls in type(part).__mro__]
        cleans = getattr(part, "_sampling_type", None) == "clean-sampling"
        # Some cleaning samplers declare themselves over- or under-samplers.
        if cleans or any(module.startswith(_CLEANING) for module in modules):
            raise ValueError(
                f"prior_correction=True is not supported with sampler={described(sampler)}: "
                f"{type(part).__name__} removes rows by their position, so that class counts do "
                "not describe the change of probabilities. Use a sampler that does not "
                "change the distribution within a class "
                "(RandomUnderSampler, RandomOverSampler), or prior_correction=False."
            )


def prior_ratio(y_before, y_after, classes, weights_before=None, weights_after=None):
    """Class frequencies before resampling over those after; 0 for classes without rows before.

    References
    ----------
    M. Saerens, P. Latinne, C. Decaestecker, "Adjusting the outputs of a classifier to new a priori
    probabilities", Neural Computation 14(1), 2002, equation 2.4. A. Dal Pozzolo et al.,
    "Calibrating probability with undersampling for unbalanced classification", IEEE SSCI, 2015.

    Examples
    --------
    >>> from skstack._estimators.resampling import prior_ratio
    >>> prior_ratio([0] * 9 + [1], [0, 1], [0, 1]).tolist()
    [1.8, 0.2]
    """
    before = class_counts(y_before, classes, weights_before)
    return ratio_of_counts(before, class_counts(y_after, classes, weights_after), classes)


def ratio_of_counts(before, after, classes):
    """See `prior_ratio`; from the counts, or weights, of the classes."""
    before, after = before / before.sum(), after / after.sum()
    lost = [str(label) for label in np.asarray(classes)[(before > 0) & (after == 0)]]
    if lost:
        raise ValueError(
            f"The sampler left no row of class {', '.join(lost)}: probabilities cannot be "
            "corrected. Use another sampler, or prior_correction=False."
        )
    return np.divide(before, after, out=np.zeros_like(before), where=after > 0)


def correct_priors(probabilities, ratio):
    """Multiply probabilities by the ratio of priors and normalise the rows.

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

    If decisions are log-odds, or logits of a softmax, the logarithm of the ratio is added, because
    probabilities near 0 and 1 have lost precision. Other decisions are replaced by those from the
    probabilities.

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
    """Refuse multilabel targets for prior correction."""
    if y.ndim == 2:
        raise ValueError(
            f"prior_correction=True is not supported for multilabel targets, but y has shape "
            f"{y.shape}. Pass labels (y.argmax(axis=1), if y is one-hot encoded), or "
            "prior_correction=False."
        )


def class_counts(y, classes, weights):
    """Number of rows of each class, or the sum of their weights."""
    y, classes = np.asarray(y), np.asarray(classes)
    weights = np.ones(len(y)) if weights is None else np.asarray(weights, dtype=np.float64)
    counts = np.array([weights[y == label].sum() for label in classes])
    if not counts.sum() > 0:
        raise ValueError("No row has a positive weight.")
    return counts
