"""Checks of the recorded fits of an estimator: which step learned from which rows."""

from __future__ import annotations

import itertools

import numpy as np

from skstack._base.params import clone_part, set_missing_seeds
from skstack._base.tables import take_rows
from skstack._stack.branches import stops_early
from skstack.inspection._association import beyond_chance, effect, linear_predictions, pooled
from skstack.inspection._overlap import equal_cells
from skstack.inspection._report import Finding
from skstack.inspection._trace import SYNTHETIC

_FEW_ROWS = 30
_MOST_COLUMNS = 2000  # of a table that is compared with the one before


def _known_rows(rows):
    return rows[rows >= 0]


def _inner_splits(fits):
    """Yield (owner, fit, predicted rows) where a step fits on some of its rows and predicts others.

    The owner is the outermost step with both sides among its rows: a search, a stack, or a
    transformer that cross-fits.
    """
    for fit in fits:
        if fit.parent is None:
            continue
        learned = _known_rows(fit.rows)
        for table in fit.queried:
            predicted = _known_rows(table.rows)
            if not len(predicted) or not len(learned) or np.isin(predicted, learned).any():
                continue
            owner = None
            for step in fit.parent.lineage:
                if np.isin(predicted, step.rows).all() and np.isin(learned, step.rows).all():
                    owner = step
            if owner is not None:
                yield owner, fit, predicted


def _makers_outside(owner, fit, predicted):
    """Fits outside of an inner split whose results enter it, and that learned predicted rows."""
    # Steps between the owner and the fit are inside the split, and learn from one side only.
    makers = fit.table.makers
    outside = [maker for maker in makers if not any(step is owner for step in maker.lineage)]
    outside += list(owner.table.makers)
    for step in itertools.takewhile(lambda step: step is not owner, fit.lineage):
        outside += [m for m in step.table.makers if np.isin(predicted, m.rows).all()]
    return [m for m in outside if m is not fit and np.isin(predicted, m.rows).any()]


def learned_before(trace, runs, classification):
    """Whether samplers, scalers or selectors learn from both sides of a split inside a step."""
    resampled, scaled, selected = {}, {}, {}
    for owner, fit, predicted in _inner_splits(trace.fits):
        for maker in _makers_outside(owner, fit, predicted):
            splitter = _splitter_of(fit, maker)
            if maker.resampled:
                resampled[maker.step] = splitter
            elif maker.step in scaled or learns_from_rows(trace, maker):
                scaled[maker.step] = splitter
                if maker.step in selected or _learns_in_sample(trace, maker):
                    selected[maker.step] = splitter
    for fit in trace.fits:
        if _splits_by_itself(fit.estimator):
            resampled |= {m.step: fit for m in fit.table.makers if m.resampled}
    searched = {m: owner for m, owner in scaled.items() if _searches(owner)}
    learners = {m: owner for m, owner in searched.items() if m in selected}
    selected = {m: owner for m, owner in selected.items() if not _searches(owner)}
    stacked = {m: owner for m, owner in selected.items() if _stacks(owner)}
    y_check, learner = "learning from y before an inner split", "step that learns from y"
    return [
        _before_split("resampling before an inner split", resampled, "leak", "sampler"),
        _before_split(
            "scaling before an inner split",
            {m: owner for m, owner in searched.items() if m not in learners},
            "leak",
            "step",
        ),
        _before_split(y_check, learners, "leak", learner)
        if learners
        else _optimistic(runs, set(selected), classification)
        or _before_split(y_check, stacked, "suspect", learner),
    ]


def _optimistic(runs, steps, classification):
    """The finding on inner test rows whose shuffled targets are predicted; None if there is none.

    `steps` learn from y before the inner split.
    """
    found = {}
    for run in runs if steps else ():
        answered = {}
        for owner, fit, predicted in _inner_splits(run.fits):
            makers = [m for m in _makers_outside(owner, fit, predicted) if m.step in steps]
            if not makers:
                continue
            step = _splitter_of(fit, makers[0]).step
            for table, answer in zip(fit.queried, fit.answers, strict=True):
                rows = _known_rows(table.rows)
                if len(rows) == np.shape(answer)[0] and not np.isin(rows, fit.rows).any():
                    answered.setdefault((step, np.shape(answer)[1:]), []).append((rows, answer))
        for (step, _), parts in answered.items():
            rows = np.concatenate([rows for rows, _ in parts])
            answers = np.concatenate([np.asarray(answer) for _, answer in parts])
            rows, once = np.unique(rows, return_index=True)
            score = run.judged(rows, answers[once], classification, least=0.1)
            if score is not None:
                found.setdefault(step, []).append(score)
    for step, scores in found.items():
        value, z = pooled(scores)
        if z >= 3:
            return Finding(
                "learning from y before an inner split",
                "leak",
                f"{', '.join(sorted(steps))} before {step}: targets that were shuffled are "
                f"predicted in inner test rows with {_measure(classification, value)}",
                "put the step that learns from y inside: the Pipeline goes into the search, stack "
                "or calibration",
                effect(value, classification),
            )
    return None


def learns_from_rows(trace, maker):
    """Whether a transformer gives other results if it is fitted on half of the rows."""
    n = len(maker.rows)
    half = np.sort(np.random.default_rng(0).permutation(n)[: n // 2])
    y_half = None if maker.y is None else take_rows(maker.y, half)
    whole = _refitted(trace, maker, maker.X, maker.y, half)
    part = _refitted(trace, maker, take_rows(maker.X, half), y_half, slice(None))
    return whole is None or part is None or not _equal(whole, part)


def _learns_in_sample(trace, maker):
    """Whether results change with the targets, and the step does not cross-fit."""
    if maker.y is None or _cross_fits(maker.estimator):
        return False
    shuffled = take_rows(maker.y, np.random.default_rng(0).permutation(len(maker.rows)))
    own = _refitted(trace, maker, maker.X, maker.y, slice(None))
    other = _refitted(trace, maker, maker.X, shuffled, slice(None))
    return own is None or other is None or not _equal(own, other)


def _cross_fits(estimator):
    """Whether ``fit_transform`` is out-of-fold: TargetEncoder, and transformers of skstack."""
    return any(
        (cls.__name__ == "TargetEncoder" and cls.__module__.startswith("sklearn."))
        or (hasattr(cls, "_extract") and cls.__module__.startswith("skstack."))
        for cls in type(estimator).__mro__[1:]  # the first one is the recorded class
    )


def _refitted(trace, maker, X, y, rows):
    """Rows as a new clone of a transformer gives them; None if it fails."""
    with trace.paused():
        try:
            estimator = clone_part(maker.estimator)
            set_missing_seeds(estimator, 0, scikeras=False)
            fit = getattr(estimator, "fit", None) or estimator.fit_transform
            fit(X) if y is None else fit(X, y)
            return estimator.transform(X if isinstance(rows, slice) else take_rows(X, rows))
        except Exception:  # such as too few rows in the half: nothing is known
            return None


def _equal(one, other):
    one, other = (x.toarray() if hasattr(x, "toarray") else np.asarray(x) for x in (one, other))
    if one.shape != other.shape:
        return False
    if one.dtype.kind in "fiub" and other.dtype.kind in "fiub":
        return np.allclose(one, other, rtol=1e-5, atol=1e-8, equal_nan=True)
    return bool(equal_cells(one.ravel(), other.ravel()).all())


def _splitter_of(fit, maker):
    """The step that splits rows after the maker has learned from them."""
    step = fit.parent
    while step.parent is not None and step.parent is not maker.parent:
        step = step.parent
    return step


def _before_split(check, pairs, verdict, what):
    if not pairs:
        return Finding(check, "ok", f"no {what} learned from both sides of an inner split")
    steps = ", ".join(f"{maker} before {owner.step}" for maker, owner in pairs.items())
    return Finding(
        check,
        verdict,
        f"{steps}: learned from rows that the inner split predicts",
        f"put the {what} inside: the Pipeline goes into the search or stack, not the search or "
        "stack into the Pipeline",
        1.0 if verdict == "leak" else 0.3,
    )


def _searches(fit):
    """Whether a step chooses parameters or a threshold by the scores of an inner split."""
    return hasattr(fit.estimator, "best_params_") or hasattr(fit.estimator, "best_threshold_")


def _splits_by_itself(estimator):
    """Whether a model of scikit-learn chooses parameters on inner folds that it does not show."""
    cls = type(estimator).__mro__[1]
    own = cls.__module__.startswith("sklearn.") and cls.__name__.endswith("CV")
    return own and hasattr(estimator, "cv") and not hasattr(estimator, "estimator")


def _stacks(fit):
    """Whether inner predictions become the features of another model."""
    return hasattr(fit.estimator, "final_estimator_") or hasattr(fit.estimator, "downstream_")


def early_stopping(fits):
    """Whether validation rows of a step are synthetic, or among its training rows."""
    check = "early stopping on synthetic or training rows"
    affected = {}
    for fit in fits:
        if fit.validation is not None:
            validation = _known_rows(fit.validation.rows)
            seen = np.isin(validation, fit.rows).mean() if len(validation) else 0
            if seen:
                affected[fit.step] = seen, "validates on rows that it learns from"
        elif _holds_out(fit.estimator, len(fit.rows)) and _after_sampler(fit):
            known = _known_rows(fit.rows)
            extra = (fit.rows == SYNTHETIC).sum() + len(known) - len(np.unique(known))
            if extra:
                evidence = "holds out rows by itself, some of them created or repeated by a sampler"
                affected[fit.step] = extra / len(fit.rows), evidence
    if not affected:
        return Finding(check, "ok", "no step validates on synthetic or on training rows")
    evidence = ", ".join(f"{step} {what} ({share:.0%})" for step, (share, what) in affected.items())
    return Finding(
        check,
        "leak",
        evidence,
        "resample after rows are held out (sampler= of KerasClassifier or of a stack), or pass "
        "X_val and y_val",
        float(max(share for share, _ in affected.values())),
    )


def _after_sampler(fit):
    return any(maker.resampled for step in fit.lineage for maker in step.table.makers)


def _holds_out(estimator, n):
    if hasattr(estimator, "early_stopping"):
        return stops_early(estimator, n)
    own = getattr(estimator, "n_iter_no_change", None) is not None
    return own and hasattr(estimator, "validation_fraction")


def inner_groups(fits, groups):
    """Whether a group is on both sides of a split inside a step."""
    check = "groups across inner folds"
    if groups is None:
        return Finding(check, "not checked", "no groups were passed")
    return _crossing(
        check,
        fits,
        lambda learned, predicted: np.isin(groups[predicted], groups[learned]),
        "are in a group that the inner networks were trained on",
        "use a cv that keeps groups together, and enable metadata routing to pass groups to it",
    )


def inner_time(trace, time, is_ordered=False):
    """Whether a step inside predicts rows that are earlier than those that it learned from.

    Without times, but in outer folds that are ordered, only ordered inner folds are judged.
    """
    check = "later rows in training (inner folds)"
    if time is None and not is_ordered:
        return Finding(check, "not checked", "no times were passed")
    finding = (
        Finding(check, "ok", "no inner fold has such rows")
        if time is None
        else _crossing(
            check,
            trace.fits,
            lambda learned, predicted: time[predicted] < time[learned].max(),
            "are earlier than rows that it learned from",
            "use a time-ordered cv, such as TimeSeriesSplit",
        )
    )
    if finding.verdict != "ok":
        return finding
    before, learns = {}, {}
    time = np.arange(len(np.asarray(trace.y))) if time is None else time
    for owner, fit, predicted in _inner_splits(trace.fits):
        if time[predicted].min() < time[_known_rows(fit.rows)].max():
            continue  # not an ordered split
        for maker in _makers_outside(owner, fit, predicted):
            if maker.step not in learns:
                learns[maker.step] = maker.resampled or learns_from_rows(trace, maker)
            if learns[maker.step]:
                share = np.mean(time[predicted] < time[_known_rows(maker.rows)].max())
                before[maker.step] = max(share, before.get(maker.step, 0.0))
    before = {step: share for step, share in before.items() if share}
    if not before:
        return finding
    steps = ", ".join(f"{s}: {share:.0%} of the predicted rows" for s, share in before.items())
    return Finding(
        check,
        "leak",
        f"{steps} of an ordered inner split are earlier than rows that it learned from",
        "put the step inside the split: into each branch of a stack, or into the search",
        float(max(before.values())),
    )


def _crossing(check, fits, is_crossing, evidence, remedy):
    """The finding on predicted rows of inner splits that conflict with the training rows."""
    shares = {}
    for owner, fit, predicted in _inner_splits(fits):
        share = np.mean(is_crossing(_known_rows(fit.rows), predicted))
        if share:
            step = f"{owner.step} (in {fit.step})"
            shares[step] = max(share, shares.get(step, 0))
    if not shares:
        return Finding(check, "ok", "no inner fold has such rows")
    rows = ", ".join(f"{step}: {share:.0%} of the predicted rows" for step, share in shares.items())
    return Finding(check, "leak", f"{rows} {evidence}", remedy, float(max(shares.values())))


def features_in_sample(trace, runs, classification):
    """Whether the features of a row follow its own target: they were made in-sample.

    In `runs`, the targets of half of the rows were shuffled. A linear model of the other half is
    asked for them: features that do not depend on a row's own target cannot help it. Selected
    columns and linear projections say nothing of a single row, and are left out.
    """
    check = "in-sample features"
    if np.ndim(trace.y) != 1:
        return Finding(check, "not checked", "requires one target per row")
    scores = {}
    for run in runs:
        for fit in _fits_of_derived_tables(run.fits):
            features, rows = _derived(fit)
            if features is None:
                continue
            shuffled = run.shuffled[rows]
            y = np.asarray(run.y)[rows]
            predictions = linear_predictions(
                features[~shuffled], y[~shuffled], features[shuffled], classification
            )
            if predictions is not None:
                score = run.judged(rows[shuffled], predictions, classification, least=0.2)
                if score is not None:
                    scores.setdefault(fit.step, []).append(score)
    if not scores:
        return Finding(check, "ok", "no step learns from columns that an earlier step has learned")
    found = {step: pooled(own) for step, own in scores.items()}
    worst = max(found, key=lambda step: found[step][1])
    value, z = found[worst]
    evidence = (
        f"targets that were shuffled are predicted from the columns that {worst} learns from with "
        f"{_measure(classification, value)}"
    )
    gap = _outer_gap(trace, worst, classification) if z >= 3 else None
    verdict = "ok"
    if gap is not None:
        train, test, beyond = gap
        evidence += f"; true targets with {train:.2f} in training rows and {test:.2f} in test rows"
        verdict = "leak" if beyond >= 2 else "ok"
    elif z >= 3:
        verdict = "leak"
    return Finding(
        check,
        verdict,
        evidence,
        "make features of training rows out-of-fold: KerasFeatureTransformer, StackedKeras..., or "
        "cross_val_predict",
        effect(value, classification) if verdict != "ok" else 0.0,
    )


def _measure(classification, value):
    chance = "ROC AUC {:.2f} (chance: 0.50)" if classification else "correlation {:.2f} (chance: 0)"
    return chance.format(value)


def _outer_gap(trace, step, classification):
    """Scores of a step's features in training and in test rows, and z of the difference."""
    fit = next((f for f in _fits_of_derived_tables(trace.fits) if f.step == step), None)
    if fit is None or fit.test_features is None or trace.y_test is None:
        return None
    derived, rows = _derived(fit)
    test = _numeric(fit.test_features)
    if derived is None or test is None:
        return None
    features = _numeric(fit.X)[_first_copies(fit)]
    if features.shape[1] != test.shape[1]:
        return None
    y = np.asarray(trace.y)[rows]
    own = linear_predictions(features, y, features, classification)
    new = linear_predictions(features, y, test, classification)
    y_test = np.asarray(trace.y_test)
    if own is None or (classification and len(np.unique(y_test)) != len(np.unique(y))):
        return None
    train, _ = beyond_chance(own, y, classification)
    value, _ = beyond_chance(new, y_test, classification)
    return train, value, _gap_in_errors(train, value, y_test, classification)


def _gap_in_errors(train, test, y_test, classification):
    """How many standard errors a score of test rows is below that of training rows.

    For the AUC as in Hanley & McNeil (Radiology 143, 1982), for a correlation by Fisher's
    transformation.
    """
    if not classification:
        clipped = np.arctanh(np.clip([train, test], -0.999, 0.999))
        return float(clipped[0] - clipped[1]) * np.sqrt(max(len(y_test) - 3, 1))
    n = np.unique(y_test, return_counts=True)[1].min()
    rest, area = len(y_test) - n, float(np.clip(test, 0.5, 1 - 0.5 / len(y_test)))
    both = area / (2 - area) - area**2, 2 * area**2 / (1 + area) - area**2
    variance = (area * (1 - area) + (n - 1) * both[0] + (rest - 1) * both[1]) / (n * rest)
    return float((train - test) / np.sqrt(variance))


def _first_copies(fit):
    """Positions, in the table of a fit, of the first copy of each known row."""
    rows, once = np.unique(fit.rows, return_index=True)
    return once[rows >= 0]


def _derived(fit):
    """Columns that earlier steps computed, not only selected, and indices of known rows."""
    features = _numeric(fit.X)
    if features is None or len(features) != len(fit.rows):
        return None, None
    once = _first_copies(fit)
    if len(once) < _FEW_ROWS:
        return None, None
    features = np.asarray(features[once], dtype=np.float64)
    if features.shape[1] > _MOST_COLUMNS:
        return None, None
    copied = np.zeros(features.shape[1], dtype=bool)
    for maker in fit.table.makers:
        before = _numeric(maker.X)
        if before is None or len(before) != len(maker.rows):
            continue
        position = {row: i for i, row in enumerate(maker.rows.tolist())}
        at = [position.get(row) for row in fit.rows[once].tolist()]
        if None not in at and before.shape[1] <= _MOST_COLUMNS:
            copied |= _projections(features, np.asarray(before[at], dtype=np.float64))
    features = features[:, ~copied]
    return (features, fit.rows[once]) if features.shape[1] else (None, None)


def _projections(features, before):
    """Which columns are columns of an earlier table in any unit, or fixed sums of them.

    A direction is common to all rows: it may be overfitted, but holds nothing of a single row.
    """

    def standard(values):
        values = np.where(np.isfinite(values), values, 0.0)
        values = values - values.mean(axis=0)
        length = np.sqrt((values**2).sum(axis=0))
        return values / np.where(length > 0, length, 1.0), length > 0

    features, varies = standard(features)
    before, _ = standard(before)
    known = (np.abs(features.T @ before) > 1 - 1e-6).any(axis=1) | ~varies
    if before.shape[1] < 0.8 * len(before) and not known.all():
        weights = np.linalg.lstsq(before, features, rcond=None)[0]
        known |= np.abs(before @ weights - features).max(axis=0) < 1e-6
    return known


def _fits_of_derived_tables(fits):
    """The last fit of each step on a table other than X itself."""
    last = {}
    for fit in fits:
        derived = fit.parent is not None and fit.table.makers
        if not fit.resampled and derived and fit.y is not None and np.ndim(fit.y) == 1:
            last[fit.step] = fit
    return list(last.values())


def _numeric(X):
    if hasattr(X, "select_dtypes"):
        X = X.select_dtypes("number")
    X = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
    return X if X.ndim == 2 and X.dtype.kind in "fiub" and X.shape[1] else None
