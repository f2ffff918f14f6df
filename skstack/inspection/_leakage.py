"""A report of what leaks in an estimator, its data and its splits."""

from __future__ import annotations

import copy
import warnings
from numbers import Integral

import numpy as np
from scipy.stats import norm
from sklearn.base import is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import check_consistent_length

from skstack._base.params import clone_part
from skstack._base.sklearn import ignores_groups, is_classifier_for, routing_enabled, take_metadata
from skstack._base.tables import check_groups, n_rows, take_rows
from skstack.inspection import _of_data, _of_fits
from skstack.inspection._association import association, beyond_chance
from skstack.inspection._overlap import check_overlap
from skstack.inspection._report import Finding, LeakageReport
from skstack.inspection._trace import MADE, Trace


def leakage_report(
    estimator,
    X,
    y,
    *,
    cv=None,
    groups=None,
    time=None,
    seen=None,
    n_permutations=2,
    random_state=0,
):
    """Look for leaks in an estimator, its data and its splits.

    The estimator, a Pipeline, a search or a stack of scikit-learn, imbalanced-learn or skstack, is
    cloned, and the clone is watched while it learns: which step was fitted on which rows, and what
    it was then asked about.

    Parameters
    ----------
    estimator : estimator
        Never fitted or changed.

    X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
        The rows as they would go into ``cross_validate``.

    y : array-like of shape (n_samples,)
        Labels or numbers.

    cv : int, splitter or iterable, default=None
        The outer folds, as in ``cross_validate``.

    groups : array-like of shape (n_samples,), default=None
        Rows of one group belong together.

    time : array-like of shape (n_samples,), default=None
        When a row was known; anything that sorts.

    seen : array-like or DataFrame of shape (n_seen, n_features), default=None
        Rows that frozen parts of the estimator were trained on, where they are at hand.

    n_permutations : int, default=2
        Cross-validations with shuffled targets, at least 1.

    random_state : int, RandomState instance or None, default=0
        Of the shuffling.

    Returns
    -------
    LeakageReport
        With ``table``, ``leaks``, ``plot()`` and HTML in a notebook.

    Raises
    ------
    ValueError
        For data that do not fit; the message names them.

    Notes
    -----
    A verdict is "leak" where a rule is broken or the evidence is far beyond chance, "suspect" where
    there may be an innocent reason, "not checked" where something was missing. No report can prove
    that nothing leaks.

    Features made in-sample and scores that are too good are looked for with shuffled targets
    (Ojala & Garriga, JMLR 11, 2010): whatever then tells a row's target has learned from that very
    row. For a frozen part, whose training rows nobody knows without ``seen``, the report compares
    how well it tells the targets with what a fresh clone tells of rows that it has not seen.

    Examples
    --------
    >>> from imblearn.over_sampling import SMOTE
    >>> from imblearn.pipeline import make_pipeline
    >>> from sklearn.datasets import make_classification
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skstack.inspection import leakage_report
    >>> X, y = make_classification(n_samples=300, weights=[0.8], random_state=0)
    >>> search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=3)
    >>> leakage_report(make_pipeline(SMOTE(random_state=0), search), X, y, cv=3).leaks
    ['resampling before an inner split']
    """
    if not isinstance(n_permutations, Integral) or n_permutations < 1:
        raise ValueError(f"n_permutations={n_permutations!r}; expected an int of at least 1.")
    check_consistent_length(X, y)
    y_given, y = y, np.asarray(y)
    classification = is_classifier(estimator) or is_classifier_for(estimator, y)
    groups = check_groups(groups, X)
    time = None if time is None else np.unique(np.asarray(time), return_inverse=True)[1]
    if time is not None:
        check_consistent_length(X, time)
    generator = check_random_state(random_state)
    splitter = copy.deepcopy(check_cv(cv, y, classifier=classification))
    folds = list(splitter.split(X, y, None if ignores_groups(splitter) else groups))
    metadata = _metadata(estimator, groups)

    findings = [
        _of_data.crossing_groups(folds, groups),
        _of_data.crossing_time(folds, time),
        _of_data.duplicates(X, folds),
        _of_data.scaled_before(X),
        _of_data.made_rows(X, y, classification),
        _of_data.columns_that_tell(X, y, classification),
    ]
    train = folds[0][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were told, or will be, by the user's own fits
        trace = _traced(estimator, X, y_given, train, metadata)
        findings += [
            *_of_fits.learned_before(trace.fits),
            _of_fits.early_stopping(trace.fits),
            _of_fits.inner_groups(trace.fits, groups),
            _of_fits.inner_time(trace.fits, time),
        ]
        runs, scores = [], []
        for _ in range(n_permutations):
            shuffled = _shuffled(y_given, groups, generator)
            runs.append(_traced(estimator, X, shuffled, train, metadata).fits)
            scores.append(_score(estimator, X, shuffled, folds, metadata, classification))
        findings += [
            _of_fits.features_in_sample(runs, classification),
            _permuted(scores, classification),
            _frozen(estimator, X, y, folds, seen, classification),
        ]
    fits = [(fit.step, int(np.sum(fit.rows >= 0)), int(np.sum(fit.rows == MADE)))
            for fit in trace.fits]  # fmt: skip
    return LeakageReport(type(estimator).__name__, findings, fits)


def _metadata(estimator, groups):
    """Groups, where routing is on and a part of the estimator takes them."""
    if groups is None or not routing_enabled():
        return {}
    taken = get_routing_for_object(estimator).consumes(method="fit", params=["groups"])
    return {"groups": groups} if taken else {}


def _traced(estimator, X, y, rows, metadata):
    trace = Trace(estimator)
    trace.fit(take_rows(X, rows), take_rows(y, rows), rows, **take_metadata(X, metadata, rows))
    return trace


def _shuffled(y, groups, generator):
    """Targets in another order; where groups have one target each, groups exchange theirs."""
    values = np.asarray(y)
    if groups is not None and values.ndim == 1:
        _, first, group = np.unique(groups, return_index=True, return_inverse=True)
        if (values == values[first][group]).all():
            order = generator.permutation(len(first))
            return take_rows(y, first[order][group])
    return take_rows(y, generator.permutation(len(values)))


def _score(estimator, X, y, folds, metadata, classification):
    """(value, z, p) of pooled predictions of test rows; None where there are none to pool."""
    values = np.asarray(y)
    if values.ndim != 1:
        return None
    told, rows = [], []
    for train, test in folds:
        fitted = clone_part(estimator)
        fitted.fit(take_rows(X, train), take_rows(y, train), **take_metadata(X, metadata, train))
        part = take_rows(X, test)
        told.append(_told(fitted, part, classification, np.unique(values)))
        rows.append(test)
    return beyond_chance(np.concatenate(told), values[np.concatenate(rows)], classification)


def _told(fitted, X, classification, labels):
    if not classification:
        return np.ravel(fitted.predict(X))
    if hasattr(fitted, "predict_proba"):
        told = np.asarray(fitted.predict_proba(X)).reshape(n_rows(X), -1)
        if told.shape[1] == len(labels):
            return told
    elif hasattr(fitted, "decision_function"):
        told = np.asarray(fitted.decision_function(X)).reshape(n_rows(X), -1)
        if told.shape[1] == len(labels):
            return told
        if len(labels) == 2:
            return np.hstack([-told, told])
    return (np.asarray(fitted.predict(X))[:, None] == labels).astype(float)


def _permuted(scores, classification):
    check = "score with shuffled targets"
    scores = [score for score in scores if score is not None]
    if not scores:
        return Finding(check, "not checked", "needs one target per row")
    z = np.sum([z for _, z, _ in scores]) / np.sqrt(len(scores))
    value, p = np.mean([value for value, _, _ in scores]), norm.sf(z)
    measure = "ROC AUC" if classification else "correlation"
    verdict = "leak" if p < 1e-4 else "suspect" if p < 1e-3 else "ok"
    return Finding(
        check,
        verdict,
        f"test rows are told with {measure} {value:.3f} where chance is "
        f"{0.5 if classification else 0.0} (p = {p:.2g}, {len(scores)} shuffle(s))",
        "some step sees the targets of test rows; look at steps that keep state outside of fit",
        float(np.clip(2 * value - 1 if classification else value, 0, 1)) if p < 1e-3 else 0.0,
    )


# Frozen parts ------------------------------------------------------------------------------------


def _frozen(estimator, X, y, folds, seen, classification):
    check = "frozen parts that have seen test rows"
    parts = _frozen_parts(estimator)
    if not parts:
        return Finding(check, "ok", "nothing is frozen")
    if seen is not None:
        overlap = check_overlap(X, seen)
        share = len(overlap.rounded_a) / overlap.n_a
        return Finding(
            check,
            "leak" if share else "ok",
            f"{share:.1%} of the rows of X stand among those that the frozen parts were trained on",
            "evaluate on rows that the frozen part has never seen, or train it in each fold",
            float(share),
        )
    worst = None
    for name, part in parts:
        compared = _frozen_against_fresh(part, X, y, folds, classification)
        if compared is not None and (worst is None or compared[2] > worst[1][2]):
            worst = name, compared
    if worst is None:
        return Finding(
            check,
            "suspect",
            f"{parts[0][0]} is frozen, and nobody can know what it was trained on",
            "pass the rows that it was trained on as seen=, or call check_overlap",
            0.3,
        )
    name, (own, fresh, z, closed) = worst
    measure = "ROC AUC" if classification else "R2"
    verdict = "leak" if z > 4 and closed > 0.3 else "suspect" if z > 3 else "ok"
    return Finding(
        check,
        verdict,
        f"{name} tells the targets with {measure} {own:.3f}, a fresh clone those of rows that it "
        f"has not seen with {fresh:.3f} (z = {z:.1f})",
        "evaluate on rows that the frozen part has never seen, or train it in each fold; pass its "
        "training rows as seen= to be certain",
        float(np.clip(closed, 0, 1)) if verdict != "ok" else 0.0,
    )


def _frozen_parts(estimator):
    """(path, fitted estimator or network) of whatever is not trained by ``fit``."""
    from skstack._base.params import is_keras_model

    found = []
    for name, value in {"": estimator, **estimator.get_params(deep=True)}.items():
        values = value if type(value) in (list, tuple) else [value]
        for item in values:
            thing = item[1] if type(item) is tuple and len(item) > 1 else item
            if isinstance(thing, FrozenEstimator):
                found.append((name or "the estimator", thing.estimator))
            elif is_keras_model(thing) or str(thing).endswith((".keras", ".h5")):
                found.append((name or "the estimator", thing))
    unlike = {id(part): (name, part) for name, part in found}
    return list(unlike.values())


def _frozen_against_fresh(part, X, y, folds, classification):
    """(score of the frozen one, of fresh clones, z of the difference, share of the gap closed)."""
    if not hasattr(part, "get_params") or not hasattr(part, "predict"):
        return None
    labels = np.unique(y)
    try:
        own = _told(part, X, classification, labels)
        fresh = _out_of_fold(part, X, y, folds, classification, labels)
    except Exception:  # it was trained on other columns, labels, or tasks: nothing to compare
        return None
    scores = association(own, y, classification), association(fresh, y, classification)
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(40):
        rows = generator.integers(0, len(y), len(y))
        draws.append(association(own[rows], y[rows], classification)
                     - association(fresh[rows], y[rows], classification))  # fmt: skip
    difference = scores[0] - scores[1]
    z = difference / max(float(np.std(draws)), 1e-9)
    return *scores, float(z), float(difference / max(1 - scores[1], 1e-9))


def _out_of_fold(part, X, y, folds, classification, labels):
    told = np.full((len(y), len(labels)) if classification else len(y), np.nan)
    for train, test in folds:
        fitted = clone_part(part).fit(take_rows(X, train), take_rows(y, train))
        told[test] = _told(fitted, take_rows(X, test), classification, labels)
    return np.where(np.isnan(told), np.nanmean(told, axis=0), told)
