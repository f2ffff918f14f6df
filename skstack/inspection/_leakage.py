"""Find leaks in an estimator, its data and its splits."""

from __future__ import annotations

import copy
import warnings
from numbers import Integral

import numpy as np
from scipy.stats import norm
from sklearn.base import clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import check_consistent_length

from skstack._base.params import clone_part, is_keras_model
from skstack._base.sklearn import ignores_groups, is_classifier_for, routing_enabled, take_metadata
from skstack._base.tables import check_groups, n_rows, take_rows
from skstack.inspection import _data_checks, _fit_checks
from skstack.inspection._association import association, beyond_chance
from skstack.inspection._overlap import check_overlap
from skstack.inspection._report import Finding, LeakageReport
from skstack.inspection._trace import SYNTHETIC, Trace


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
    """Find leaks in an estimator, its data and its splits.

    The estimator is cloned, and the fits of the clone are recorded: which step is fitted on which
    rows, and which rows it then predicts. Pipelines, searches, stacks and other meta-estimators of
    scikit-learn, imbalanced-learn and skstack are supported.

    Parameters
    ----------
    estimator : estimator
        Never fitted or changed.

    X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
        The rows, as in ``cross_validate``.

    y : array-like of shape (n_samples,)
        Labels or numbers.

    cv : int, splitter or iterable, default=None
        The outer folds, as in ``cross_validate``.

    groups : array-like of shape (n_samples,), default=None
        Group labels: a group must not be on both sides of a split.

    time : array-like of shape (n_samples,), default=None
        Time at which each row became known; any sortable values.

    seen : array-like or DataFrame of shape (n_seen, n_features), default=None
        Rows that frozen parts of the estimator were trained on, if available.

    n_permutations : int, default=2
        Cross-validations with shuffled targets, at least 1.

    random_state : int, RandomState instance or None, default=0
        Seed of the shuffling.

    Returns
    -------
    LeakageReport
        With ``table``, ``leaks``, ``plot()`` and HTML in a notebook.

    Raises
    ------
    ValueError
        If parameters are invalid; the message names them.

    Notes
    -----
    The verdict is "leak" if a rule is broken or the evidence is far beyond chance, "suspect" if
    there may be a harmless reason, "not checked" if an input is missing. No report can prove that
    nothing leaks.

    In-sample features and optimistic scores are detected with shuffled targets (Ojala & Garriga,
    JMLR 11, 2010): whatever then predicts the target of a row has learned from that row. A frozen
    part, whose training rows are unknown without ``seen``, is compared with out-of-fold
    predictions of a fresh clone.

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
    estimator = _with_frozen_prefit(estimator)
    y_original, y = y, np.asarray(y)
    if y.ndim == 2 and y.dtype == object:
        raise ValueError(
            f"y has shape {y.shape} and columns of different dtypes; expected one target, or "
            "several of one kind."
        )
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
        _data_checks.crossing_groups(folds, groups),
        _data_checks.later_training_rows(folds, time),
        _data_checks.duplicates(X, folds),
        _data_checks.scaled_with_test_rows(X),
        _data_checks.interpolated_rows(X, y, classification),
        _data_checks.leaking_columns(X, y, classification),
    ]
    train = folds[0][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the user's own fits also issue them
        trace = _traced(estimator, X, y_original, train, metadata)
        findings += [
            *_fit_checks.learned_before(trace.fits),
            _fit_checks.early_stopping(trace.fits),
            _fit_checks.inner_groups(trace.fits, groups),
            _fit_checks.inner_time(trace.fits, time),
        ]
        runs, scores = [], []
        for _ in range(n_permutations):
            shuffled = _shuffled(y_original, groups, generator)
            runs.append(_traced(estimator, X, shuffled, train, metadata).fits)
            scores.append(_score(estimator, X, shuffled, folds, metadata, classification))
        findings += [
            _fit_checks.features_in_sample(runs, classification),
            _permutation_finding(scores, classification),
            _frozen_finding(estimator, X, y, folds, seen, classification),
        ]
    fits = [(fit.step, int(np.sum(fit.rows >= 0)), int(np.sum(fit.rows == SYNTHETIC)))
            for fit in trace.fits]  # fmt: skip
    return LeakageReport(type(estimator).__name__, findings, fits)


def _with_frozen_prefit(estimator):
    """A clone in which parts that were fitted before (``cv="prefit"``) stay fitted."""

    def prefit(part):
        cv = getattr(part, "cv", None)
        return (isinstance(cv, str) and cv == "prefit") or getattr(part, "prefit", False) is True

    parts = {"": estimator}
    if hasattr(estimator, "get_params"):
        parts |= {f"{name}__": part for name, part in estimator.get_params(deep=True).items()}
    fitted = {}
    for prefix, part in parts.items():
        if not prefit(part):
            continue
        if hasattr(part, "estimators"):
            frozen = [(name, FrozenEstimator(each)) for name, each in part.estimators]
            fitted[f"{prefix}estimators"] = frozen
        elif hasattr(part, "estimator"):
            fitted[f"{prefix}estimator"] = FrozenEstimator(part.estimator)
    return clone(estimator).set_params(**fitted) if fitted else estimator


def _metadata(estimator, groups):
    """Groups as metadata, if routing is enabled and a part of the estimator requests them."""
    if groups is None or not routing_enabled():
        return {}
    taken = get_routing_for_object(estimator).consumes(method="fit", params=["groups"])
    return {"groups": groups} if taken else {}


def _traced(estimator, X, y, rows, metadata):
    trace = Trace(estimator)
    trace.fit(take_rows(X, rows), take_rows(y, rows), rows, **take_metadata(X, metadata, rows))
    return trace


def _shuffled(y, groups, generator):
    """Shuffled targets; if all rows of each group share a target, it is shuffled by group."""
    values = np.asarray(y)
    if groups is not None and values.ndim == 1:
        _, first, group = np.unique(groups, return_index=True, return_inverse=True)
        if (values == values[first][group]).all():
            order = generator.permutation(len(first))
            return take_rows(y, first[order][group])
    return take_rows(y, generator.permutation(len(values)))


def _score(estimator, X, y, folds, metadata, classification):
    """(value, z, p) of the pooled predictions of test rows; None for several targets."""
    values = np.asarray(y)
    if values.ndim != 1:
        return None
    predictions, rows = [], []
    for train, test in folds:
        fitted = clone_part(estimator)
        fitted.fit(take_rows(X, train), take_rows(y, train), **take_metadata(X, metadata, train))
        part = take_rows(X, test)
        predictions.append(_predictions(fitted, part, classification, np.unique(values)))
        rows.append(test)
    return beyond_chance(np.concatenate(predictions), values[np.concatenate(rows)], classification)


def _predictions(fitted, X, classification, labels):
    if not classification:
        return np.ravel(fitted.predict(X))
    if hasattr(fitted, "predict_proba"):
        predictions = np.asarray(fitted.predict_proba(X)).reshape(n_rows(X), -1)
        if predictions.shape[1] == len(labels):
            return predictions
    elif hasattr(fitted, "decision_function"):
        predictions = np.asarray(fitted.decision_function(X)).reshape(n_rows(X), -1)
        if predictions.shape[1] == len(labels):
            return predictions
        if len(labels) == 2:
            return np.hstack([-predictions, predictions])
    return (np.asarray(fitted.predict(X))[:, None] == labels).astype(float)


def _permutation_finding(scores, classification):
    check = "score with shuffled targets"
    scores = [score for score in scores if score is not None]
    if not scores:
        return Finding(check, "not checked", "requires one target per row")
    z = np.sum([z for _, z, _ in scores]) / np.sqrt(len(scores))
    value, p = np.mean([value for value, _, _ in scores]), norm.sf(z)
    measure = "ROC AUC" if classification else "correlation"
    verdict = "leak" if p < 1e-4 else "suspect" if p < 1e-3 else "ok"
    return Finding(
        check,
        verdict,
        f"test rows are predicted with {measure} {value:.3f} where chance is "
        f"{0.5 if classification else 0.0} (p = {p:.2g}, {len(scores)} shuffle(s))",
        "some step sees the targets of test rows; check steps that keep state outside of fit",
        float(np.clip(2 * value - 1 if classification else value, 0, 1)) if p < 1e-3 else 0.0,
    )


# Frozen parts ------------------------------------------------------------------------------------


def _frozen_finding(estimator, X, y, folds, seen, classification):
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
            f"{share:.1%} of the rows of X are among those that the frozen parts were trained on",
            "evaluate on rows that the frozen part was not trained on, or train it in each fold",
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
            f"{parts[0][0]} is frozen, and its training rows are unknown",
            "pass the rows that it was trained on as seen=, or call check_overlap",
            0.3,
        )
    name, (own, fresh, z, gap) = worst
    measure = "ROC AUC" if classification else "R2"
    verdict = "leak" if z > 4 and gap > 0.3 else "suspect" if z > 3 else "ok"
    return Finding(
        check,
        verdict,
        f"{name} predicts the targets with {measure} {own:.3f}, a fresh clone out-of-fold with "
        f"{fresh:.3f} (z = {z:.1f})",
        "evaluate on rows that the frozen part was not trained on, or train it in each fold; pass "
        "its training rows as seen= to be certain",
        float(np.clip(gap, 0, 1)) if verdict != "ok" else 0.0,
    )


def _frozen_parts(estimator):
    """(path, fitted estimator or network) of all parts that ``fit`` does not train."""
    frozen = []
    for name, value in {"": estimator, **estimator.get_params(deep=True)}.items():
        values = value if type(value) in (list, tuple) else [value]
        for item in values:
            candidate = item[1] if type(item) is tuple and len(item) > 1 else item
            if isinstance(candidate, FrozenEstimator):
                frozen.append((name or "the estimator", candidate.estimator))
            elif is_keras_model(candidate) or str(candidate).endswith((".keras", ".h5")):
                frozen.append((name or "the estimator", candidate))
    unique = {id(part): (name, part) for name, part in frozen}
    return list(unique.values())


def _frozen_against_fresh(part, X, y, folds, classification):
    """(score of the frozen part, of fresh clones, z of the difference, share of the gap closed)."""
    if not hasattr(part, "get_params") or not hasattr(part, "predict"):
        return None
    labels = np.unique(y)
    try:
        own = _predictions(part, X, classification, labels)
        fresh = _out_of_fold(part, X, y, folds, classification, labels)
    except Exception:  # trained on other columns, labels or tasks: not comparable
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
    predictions = np.full((len(y), len(labels)) if classification else len(y), np.nan)
    for train, test in folds:
        fitted = clone_part(part).fit(take_rows(X, train), take_rows(y, train))
        predictions[test] = _predictions(fitted, take_rows(X, test), classification, labels)
    return np.where(np.isnan(predictions), np.nanmean(predictions, axis=0), predictions)
