"""What resampling does to probabilities, and how to undo it."""

import numpy as np
from scipy.special import expit, softmax

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
    >>> from skstack.stages import prior_ratio
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
    >>> from skstack.stages import correct_priors
    >>> correct_priors(np.array([[0.5, 0.5]]), np.array([1.8, 0.2])).round(3).tolist()
    [[0.9, 0.1]]
    """
    probabilities = np.asarray(probabilities)
    weighted = probabilities.astype(np.float64) * ratio
    total = weighted.sum(axis=1, keepdims=True)
    # All the mass may lie on classes that have no rows: the priors are then all there is to say.
    corrected = np.divide(weighted, total, out=np.array(probabilities, np.float64), where=total > 0)
    return corrected.astype(probabilities.dtype)


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
    >>> from skstack.stages import correct_decisions
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
