"""Find leaks in an estimator, its data and its splits."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import warnings
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
from scipy.stats import norm
from sklearn.base import clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import check_consistent_length

from skstack._base.params import clone_part, is_bool
from skstack._base.progress import StepCounter, errors_named
from skstack._base.sklearn import ignores_groups, is_classifier_for, routing_enabled, take_metadata
from skstack._base.tables import check_groups, take_rows
from skstack._splits.folds import listed_folds, shown_cv
from skstack.inspection import _data_checks, _fit_checks, _kept, _prepared
from skstack.inspection._association import effect, pooled, predictions_of
from skstack.inspection._overlap import matched
from skstack.inspection._proxies import leaking_columns
from skstack.inspection._report import Finding, LeakageReport
from skstack.inspection._runs import Run, shuffle_half
from skstack.inspection._trace import SYNTHETIC

_SCORED_FOLDS = 3
_MORE_SHUFFLES = 2  # if the first ones leave it open whether their score is chance


def leakage_report(
    estimator,
    X,
    y,
    *,
    cv=None,
    groups=None,
    time=None,
    seen=None,
    raw=None,
    prepare=None,
    n_permutations=2,
    random_state=0,
    verbose="auto",
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

    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Labels or numbers.

    cv : int, splitter or iterable, default=None
        The outer folds, as in ``cross_validate``.

    groups : array-like of shape (n_samples,), default=None
        Group labels: a group must not be on both sides of a split.

    time : array-like of shape (n_samples,), default=None
        Time at which each row became known: numbers, dates or other sortable values. Text must be
        ISO 8601, such as ``"2023-12-31"``.

    seen : array-like or DataFrame of shape (n_seen, n_features), default=None
        Rows that frozen parts of the estimator were trained on, if available.

    raw : array-like or DataFrame of shape (n_samples, n_raw_features), default=None
        The rows before your own preparation, in the order of X.

    prepare : callable, default=None
        ``prepare(raw)`` or ``prepare(raw, y)``, which made X. It is called on the training rows of
        each outer fold alone, and must give the same rows; with `time`, on all rows up to a moment.

    n_permutations : int, default=2
        Cross-validations with shuffled targets, at least 1. Two more follow if their score is
        neither clearly chance nor clearly beyond it.

    random_state : int, RandomState instance or None, default=0
        Seed of the shuffling.

    verbose : {"auto", 0, 1}, default="auto"
        Progress on stderr: never (0), from the start (1), or after five seconds ("auto").

    Returns
    -------
    LeakageReport
        With ``leaks``, ``to_frame()``, ``plot()`` and HTML in a notebook.

    Raises
    ------
    TypeError
        If `estimator` is no estimator, or `prepare` is not callable.

    ValueError
        If parameters are invalid; the message names them.

    Notes
    -----
    The verdict is "leak" if a rule is broken or the evidence is far beyond chance, "suspect" if
    there may be a harmless reason, "not checked" if an input is missing. No report can prove that
    nothing leaks: the user guide lists what cannot be seen, and what to do instead.

    In-sample features and optimistic scores are detected with shuffled targets (Ojala & Garriga,
    JMLR 11, 2010): the targets of half of the rows are shuffled, and whatever then predicts these
    has learned from these rows. A frozen part, whose training rows are unknown without ``seen``,
    is compared with a clone that is fitted on all rows, and with out-of-fold predictions. The
    estimator is fitted once, and for each permutation in three folds or half of them, whichever is
    more; a frozen part in each fold. This takes at most as long as three ``cross_validate``, plus
    about a second for the checks of the table.

    ``python -m skstack.inspection PICKLE_OR_MODULE:NAME DATA.csv TARGET`` prints a report and
    returns 1 if there is a leak.

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
    if (raw is None) != (prepare is None):
        raise ValueError(
            f"raw= and prepare= belong together; got raw of type {type(raw).__name__} and "
            f"prepare={prepare!r}."
        )
    if prepare is not None and not callable(prepare):
        raise TypeError(f"prepare={prepare!r}; expected a function of raw, or of raw and y.")
    StepCounter.check(verbose)
    if isinstance(estimator, type) or not hasattr(estimator, "fit"):
        raise TypeError(f"estimator={estimator!r} must be an estimator with `fit`.")
    estimator = _with_frozen_prefit(estimator)
    rows = _Rows.checked(estimator, X, y, cv, groups, time, seen)
    generator = check_random_state(random_state)
    metadata = _metadata(estimator, rows.groups)

    # More folds would take longer, and tell little more.
    n_scored = min(len(rows.folds), max(_SCORED_FOLDS, (len(rows.folds) + 1) // 2))
    progress = StepCounter("leakage_report", verbose, 6 + n_permutations * n_scored)
    parts = list(_kept.carried(estimator))
    findings = _findings_of_rows(rows, parts, progress)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the user's own fits also issue them
        findings.append(
            _prepared.prepared_alone(raw, prepare, rows.X, rows.target, rows.folds, rows.time)
        )
        run, rows = _recorded_fit(estimator, rows, metadata, progress)
        together = _alone_finding(run, rows.X, rows.classification, rows.labels)
        runs, scores = [], []
        for number in range(n_permutations + _MORE_SHUFFLES):
            if number >= n_permutations and not _is_unclear(scores):
                break
            targets, *shuffled = shuffle_half(rows.target, rows.groups, generator)
            with contextlib.suppress(Exception):  # such as a selector that finds no column
                own = progress(
                    Run.of, estimator, rows.X, targets, rows.folds[0], metadata, *shuffled
                )
                runs.append(own)
                scores.append(_score(own, rows, n_scored, metadata, progress))
        findings += _findings_of_fits(run, runs, rows)
        findings += [_permutation_finding(scores, rows.classification), together]
        findings.append(progress(_kept.frozen_finding, estimator, parts, rows, seen))
    fits = [
        (fit.step, int(np.sum(fit.rows >= 0)), int(np.sum(fit.rows == SYNTHETIC)))
        for fit in run.fits
    ]
    return LeakageReport(type(estimator).__name__, findings, fits)


@dataclasses.dataclass(frozen=True)
class _Rows:
    """What a report is about: rows, targets and outer folds."""

    X: Any
    given: Any  # the targets, as they were passed
    target: Any  # the targets that fits get: those of one column as a vector
    y: np.ndarray  # `target`, as the checks read it
    classification: bool
    groups: np.ndarray | None
    time: np.ndarray | None  # its rank
    folds: list  # of (train, test)

    @classmethod
    def checked(cls, estimator, X, y, cv, groups, time, seen):
        import pandas as pd

        check_consistent_length(X, y)
        X = X.tocsr() if hasattr(X, "tocsr") else X  # of other formats no rows can be taken
        given, target = y, _without_column(y)
        y = np.asarray(target)
        if y.ndim == 2 and y.dtype == object:
            raise ValueError(
                f"y has shape {y.shape} and columns of different dtypes; expected one target, or "
                "several of one kind."
            )
        missing = np.flatnonzero(pd.isna(y).reshape(len(y), -1).any(axis=1))
        if missing.size:
            raise ValueError(
                f"y holds missing values (NaN) in {missing.size} rows, such as {missing[0]}; "
                "every row needs a target."
            )
        classification = is_classifier(estimator) or is_classifier_for(estimator, y)
        groups = check_groups(groups, X)
        time = None if time is None else ranks_of_times(time)
        if time is not None:
            with errors_named("time"):
                check_consistent_length(X, time)
        if seen is not None:
            matched(X, seen, "X", "seen")
        splitter = copy.deepcopy(check_cv(cv, y, classifier=classification))
        try:
            folds = list(splitter.split(X, y, None if ignores_groups(splitter) else groups))
        except ValueError as error:
            raise ValueError(f"cv={shown_cv(cv)} cannot split these rows: {error}") from error
        folds = listed_folds(folds)  # of masks, too
        return cls(X, given, target, y, classification, groups, time, folds)

    @property
    def labels(self):
        """The classes of one target."""
        return np.unique(self.y) if self.classification and self.y.ndim == 1 else None


def _findings_of_rows(rows, parts, progress):
    """What the table and its folds show, without a fit of the estimator."""
    X, y, classification, folds = rows.X, rows.y, rows.classification, rows.folds
    return [
        _data_checks.crossing_groups(folds, rows.groups),
        _data_checks.later_training_rows(folds, rows.time),
        progress(_data_checks.duplicates, X, folds),
        progress(_prepared.scaled_with_test_rows, X),
        _prepared.prepared_with_test_rows(X, y, classification),
        progress(_data_checks.interpolated_rows, X, y, classification),
        progress(leaking_columns, X, y, classification),
        _kept.kept_rows(parts, X, y),
    ]


def _recorded_fit(estimator, rows, metadata, progress):
    """A recorded fit on the first outer fold, and the rows with the target that it accepts."""
    try:
        run = progress(Run.of, estimator, rows.X, rows.target, rows.folds[0], metadata)
    except Exception:  # such as MultiOutputRegressor, which takes no single target
        if rows.given is rows.target:
            raise
        rows = dataclasses.replace(rows, target=rows.given)
        run = Run.of(estimator, rows.X, rows.target, rows.folds[0], metadata)
    return run, rows


def _findings_of_fits(run, runs, rows):
    """What the recorded fits show: `run` with the targets, `runs` with shuffled ones."""
    return [
        *_fit_checks.learned_before(run, runs, rows.classification),
        _fit_checks.early_stopping(run.fits),
        _fit_checks.inner_groups(run.fits, rows.groups),
        _fit_checks.inner_time(run, rows.time, _is_ordered(rows.folds)),
        _fit_checks.features_in_sample(run, runs, rows.classification),
    ]


def ranks_of_times(time):
    """The rank of each time, equal for equal times; text is read as ISO 8601."""
    import pandas as pd

    if isinstance(getattr(time, "dtype", None), pd.CategoricalDtype) and time.dtype.ordered:
        time = pd.Categorical(time).codes.astype(float)
        time = np.where(time < 0, np.nan, time)
    values = _without_column(np.asarray(time))
    if values.ndim != 1:
        raise ValueError(f"time has shape {values.shape}; expected one time for each row.")
    missing = pd.isna(values)
    if len(values) and all(isinstance(each, str) for each in values[~missing]):
        try:
            values = pd.to_datetime(pd.Series(values), format="ISO8601", utc=True)
        except ValueError as error:
            text = str(values[~missing][0])
            raise ValueError(
                f"time holds text, such as {text!r}, that pandas does not read as a date of ISO "
                "8601 ('2023-12-31'), and sorted as text it need not be in the order of time. Pass "
                "pandas.to_datetime(time, format=...), or the rank of each time."
            ) from error
        missing = values.isna().to_numpy()
    if missing.any():
        raise ValueError(f"time holds {missing.sum()} missing values; each row needs a time.")
    try:
        return np.unique(np.asarray(values), return_inverse=True)[1]
    except TypeError as error:
        raise ValueError(f"time holds values that cannot be compared: {error}.") from error


def _without_column(y):
    """A target of shape (n_samples, 1) as one of shape (n_samples,)."""
    if hasattr(y, "toarray"):
        y = y.toarray()
    if np.shape(y)[1:] != (1,):
        return y
    return y.iloc[:, 0] if hasattr(y, "iloc") else np.asarray(y)[:, 0]


def _is_ordered(folds):
    """Whether the test rows of each fold come after all training rows, as in TimeSeriesSplit."""
    return len(folds) > 1 and all(train.max() < test.min() for train, test in folds)


def _with_frozen_prefit(estimator):
    """A clone in which parts that were fitted before (``cv="prefit"``) stay fitted."""

    def prefit(part):
        cv = getattr(part, "cv", None)
        return (isinstance(cv, str) and cv == "prefit") or is_bool(
            getattr(part, "prefit", False), True
        )

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


def _score(run, rows, n_folds, metadata, progress):
    """(value, z) of the pooled predictions of test rows with shuffled targets, or None."""
    X, folds, classification = rows.X, rows.folds[:n_folds], rows.classification
    values = np.asarray(run.y)
    if values.ndim != 1:
        return None
    predict = partial(predictions_of, classification=classification, labels=np.unique(values))

    def predicted(fold):
        train, test = fold
        fitted = clone_part(run.estimator)
        own = take_metadata(X, metadata, train)
        fitted.fit(take_rows(X, train), take_rows(run.y, train), **own)
        return predict(fitted, take_rows(X, test))

    predictions = [run.trace.answer(predict, take_rows(X, folds[0][1]))]
    predictions += [progress(predicted, fold) for fold in folds[1:]]
    test_rows = np.concatenate([test for _, test in folds])
    return run.judged(test_rows, np.concatenate(predictions), classification)


def _alone_finding(run, X, classification, labels):
    """Whether predictions of test rows depend on the other rows that are predicted with them."""
    check = "predictions that depend on other test rows"
    predict = partial(predictions_of, classification=classification, labels=labels)
    rows = run.test[:400]
    if len(rows) < 8:
        return Finding(check, "not checked", "too few test rows")
    whole = run.trace.answer(predict, take_rows(X, run.test))
    with run.paused():
        whole, again, part = (
            run.trace.answer(predict, take_rows(X, chosen))
            for chosen in (rows, rows, rows[: len(rows) // 2])
        )
    if not np.allclose(whole, again, equal_nan=True):
        return Finding(check, "not checked", "predictions are random")
    difference = np.abs(whole[: len(part)] - part).reshape(len(part), -1).max(axis=1)
    scale = 1.0 if classification else max(float(np.nanstd(whole)), 1e-12)
    moved = float(np.mean(difference > 1e-3 * scale))
    largest = f"{np.nanmax(difference):.2g}" + ("" if classification else " (units of y)")
    if moved > 0.05:
        return Finding(
            check,
            "leak",
            f"{moved:.0%} of the predictions change, by up to {largest}, if half of the test rows "
            "are predicted without the others",
            "learn in fit whatever transform or predict now learns from the rows that they get",
            min(1.0, moved),
        )
    return Finding(check, "ok", "half of the test rows alone get the same predictions")


def _is_unclear(scores):
    found = pooled(scores)
    return found is not None and 2.3 < found[1] < 6


def _permutation_finding(scores, classification):
    check = "score with shuffled targets"
    found = pooled(scores)
    if found is None:
        return Finding(check, "not checked", "requires one target per row, and enough rows")
    value, z = found
    p = norm.sf(z)
    measure = "ROC AUC" if classification else "a rank correlation of"
    verdict = "leak" if p < 1e-4 else "suspect" if z >= 3 else "ok"
    return Finding(
        check,
        verdict,
        f"shuffled targets of test rows are predicted with {measure} {value:.3f} where chance is "
        f"{0.5 if classification else 0.0} (p = {p:.2g}, {len(scores)} shuffle(s))",
        "some step sees the targets of test rows; check steps that keep state outside of fit",
        effect(value, classification) if z >= 3 else 0.0,
    )
