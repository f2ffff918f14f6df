"""Does stacking help: the same folds, with and without each part of a stack."""

from __future__ import annotations

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import cross_validate
from sklearn.utils.validation import check_consistent_length

from skstack._base.tables import check_groups
from skstack._splits.folds import outer_folds
from skstack.inspection._gain import StackingGain
from skstack.inspection._resampled_test import LEVEL, corrected_resampled_t_test, holm
from skstack.inspection._variants import seeded, variants_of


def stacking_gain(estimator, X, y, cv=None, scoring=None, *, params=None, n_jobs=None):
    """Say what each part of a stack brings, and whether that is more than noise.

    The downstream alone, with each branch, with all branches, without each of three and more, and
    with fine-tuning or a teacher's loss switched on where the stack has them, are scored on the
    same folds with the same seed. Each is compared with the downstream alone, or with all branches.

    Parameters
    ----------
    estimator : StackedKerasClassifier, StackedKerasRegressor or Pipeline that ends in one
        Never fitted or changed.

    X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
        The rows as they would go into ``cross_validate``.

    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Labels or targets.

    cv : int, splitter or iterable, default=None
        The outer folds, at least two, as in ``cross_validate``; with ``groups`` an int keeps each
        group whole. Repeated folds (``RepeatedStratifiedKFold``) find smaller differences.

    scoring : str or callable, default=None
        One metric, as in ``cross_validate``; greater is better. None stands for the estimator's
        ``score``.

    params : dict, default=None
        As in ``cross_validate``: what goes to ``fit`` with the rows, such as ``groups``, which
        reach ``cv`` too. Inside of a Pipeline they arrive only with metadata routing enabled.

    n_jobs : int, default=None
        Folds of one variant that are scored side by side.

    Returns
    -------
    StackingGain
        With ``scores``, ``table``, ``summary``, ``plot()`` and HTML in a notebook.

    Raises
    ------
    TypeError
        If the estimator is no stack and does not end in one.

    ValueError
        If there is nothing to compare, for fewer than two folds, for several metrics or one that
        does not exist, for scores that are no finite numbers.

    Notes
    -----
    Scores of folds that share training rows are no independent draws: a plain t-test on them finds
    differences where there are none. The corrected resampled t-test (Nadeau & Bengio, "Inference
    for the generalization error", Machine Learning 52, 2003) takes (1/k + n_test/n_train) times the
    variance of the differences d in place of 1/k times:
    ``t = mean(d) / sqrt((1/k + n_test/n_train) * var(d))`` with k - 1 degrees of freedom. It was
    made for random splits; for (repeated) cross-validation, see Bouckaert & Frank, "Evaluating the
    replicability of significance tests for comparing learning algorithms", PAKDD 2004; for folds
    in order of time, take it for a rule of thumb. It speaks of learning from as many rows as a fold
    has, with this one seed.

    Over the comparisons of the table, p-values are corrected by Holm's step-down procedure
    (Scandinavian Journal of Statistics 6, 1979); intervals are not corrected.

    Variants are clones of the estimator with other parameters: branches become ``"drop"``,
    ``fine_tune`` becomes None, a loss with a ``teacher`` gives way to its own ``loss``, or to
    "auto". Branches are compared with both switched off. With ``passthrough=False`` the
    downstream alone learns from all columns of X.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skstack import StackedKerasClassifier
    >>> from skstack.inspection import stacking_gain
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> stack = StackedKerasClassifier(
    ...     upstream=[("forest", RandomForestClassifier(n_estimators=10))],
    ...     downstream=LogisticRegression(max_iter=1000),
    ...     cv=3,
    ...     random_state=0,
    ... )
    >>> gain = stacking_gain(stack, X, y, cv=5, scoring="average_precision")
    >>> gain.table[["variant", "against", "verdict"]]
                variant           against       verdict
    0  downstream alone
    1       with forest  downstream alone  within noise
    """
    import pandas as pd

    check_consistent_length(X, y)
    if getattr(X, "ndim", 2) > 2:
        raise ValueError(
            f"X has shape {X.shape}: rows that are no rows of a table cannot pass through to the "
            "downstream, so that there is no downstream alone to compare with."
        )
    metric = _metric(estimator, scoring)
    estimator, seed = seeded(estimator)
    variants, notes = variants_of(estimator)
    check_scoring(estimator, scoring)
    groups = check_groups((params or {}).get("groups"), X)
    folds = outer_folds(cv, X, y, classifier=is_classifier(estimator), groups=groups)
    if len(folds) < 2:
        raise ValueError(
            f"cv={cv!r} gives {len(folds)} fold; the noise of a difference shows on at least 2."
        )

    scores, seconds = {}, []
    for variant in variants:
        try:
            found = cross_validate(
                variant.estimator, X, y, scoring=scoring, cv=folds, n_jobs=n_jobs, params=params,
                error_score="raise",
            )  # fmt: skip
        except Exception as error:
            error.add_note(f"It was raised by the variant {variant.name!r} of the stack.")
            raise
        scores[variant.name] = _finite(found["test_score"], metric, variant.name)
        seconds.append(float(np.mean(found["fit_time"])))

    scores = pd.DataFrame(scores).rename_axis(index="fold")
    sizes = np.transpose([(len(train), len(test)) for train, test in folds])
    differences = [
        corrected_resampled_t_test(_less(scores[variant.name], scores[variant.against]), *sizes)
        for variant in variants[1:]
    ]
    p = [difference.p for difference in differences]
    table = pd.DataFrame(
        {
            "variant": [variant.name for variant in variants],
            "mean": scores.mean().to_numpy(),
            "sd": scores.std(ddof=1).to_numpy(),
            "against": [variant.against for variant in variants],
            "difference": [np.nan, *(difference.mean for difference in differences)],
            "low": [np.nan, *(difference.low for difference in differences)],
            "high": [np.nan, *(difference.high for difference in differences)],
            "p": [np.nan, *p],
            "p_holm": [np.nan, *holm(p)],
            "verdict": ["", *map(_verdict, p, holm(p))],
            "seconds": seconds,
        }
    )
    name = type(estimator).__name__
    changes = [variant.change for variant in variants[1:]]
    return StackingGain(name, metric, scores, table, changes, notes, seed)


def _metric(estimator, scoring):
    """What a metric is called."""
    if scoring is None:
        return "accuracy" if is_classifier(estimator) else "R2"
    if isinstance(scoring, str):
        return scoring
    if not callable(scoring):
        raise ValueError(
            f"scoring={scoring!r} must be one metric: the name of a scorer, a callable or None."
        )
    return getattr(scoring, "__name__", repr(scoring))


def _finite(scores, metric, name):
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        raise ValueError(
            f"scoring={metric!r} gives {scores[wrong[0]]} for the variant {name!r} on fold "
            f"{wrong[0]} (counted from 0); such scores cannot be compared. Take another metric, "
            "or folds that hold every class."
        )
    return scores


def _less(scores, others):
    """Differences, where what is only rounded differently does not differ."""
    differences = (scores - others).to_numpy()
    size = max(scores.abs().max(), others.abs().max())
    return np.where(np.abs(differences) <= 1e-12 * size, 0.0, differences)


def _verdict(p, p_holm):
    if np.isnan(p):
        return "not tested"
    if p_holm <= LEVEL:
        return "beyond noise"
    return "beyond noise only by itself" if p <= LEVEL else "within noise"
