"""Checks of the recorded fits of an estimator: which step learned from which rows."""

from __future__ import annotations

import numpy as np

from skstack._splits.supervision import learns_from_y
from skstack._stack.branches import stops_early
from skstack.inspection._association import beyond_chance, out_of_fold_predictions
from skstack.inspection._report import Finding
from skstack.inspection._trace import SYNTHETIC

_FEW_ROWS = 30


def _known_rows(rows):
    return rows[rows >= 0]


def _descends(fit, ancestor):
    while fit is not None and fit is not ancestor:
        fit = fit.parent
    return fit is ancestor


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
            owner, step = None, fit.parent
            while step is not None:
                if np.isin(predicted, step.rows).all() and np.isin(learned, step.rows).all():
                    owner = step
                step = step.parent
            if owner is not None:
                yield owner, fit, predicted


def learned_before(fits):
    """Whether samplers, scalers or selectors learn from both sides of a split inside a step."""
    resampled, scaled, selected = {}, {}, {}
    for owner, fit, predicted in _inner_splits(fits):
        # Steps between the owner and the fit are inside the split, and learn from one side only.
        outside = [maker for maker in fit.table.makers if not _descends(maker, owner)]
        outside += list(owner.table.makers)
        step = fit
        while step is not None and step is not owner:
            outside += [m for m in step.table.makers if np.isin(predicted, m.rows).all()]
            step = step.parent
        for maker in outside:
            if maker is fit or not np.isin(predicted, maker.rows).any():
                continue
            if maker.resampled:
                resampled[maker.step] = _splitter_of(fit, maker)
            elif _learns(maker.estimator):
                splitter = _splitter_of(fit, maker)
                scaled[maker.step] = splitter
                if learns_from_y(maker.estimator) and not _cross_fits(maker.estimator):
                    selected[maker.step] = splitter
    return [
        _before_split("resampling before an inner split", resampled, "leak", "sampler"),
        _before_split(
            "scaling before an inner split",
            {maker: owner for maker, owner in scaled.items() if _searches(owner)},
            "leak",
            "step",
        ),
        _before_split(
            "learning from y before an inner split",
            {maker: owner for maker, owner in selected.items() if not _searches(owner)},
            "suspect",
            "step that learns from y",
        ),
    ]


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


def _learns(estimator):
    """Whether a fitted transformer holds anything learned from rows."""
    formal = {"n_features_in_", "feature_names_in_", "n_features_out_"}
    return any(name.endswith("_") and name not in formal for name in vars(estimator))


def _cross_fits(estimator):
    """Whether ``fit_transform`` is out-of-fold."""
    return hasattr(estimator, "_extract") or type(estimator).__name__ == "TargetEncoder"


def _searches(fit):
    return hasattr(fit.estimator, "best_score_") or hasattr(fit.estimator, "cv_results_")


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
    while fit is not None:
        if any(maker.resampled for maker in fit.table.makers):
            return True
        fit = fit.parent
    return False


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


def inner_time(fits, time):
    """Whether a step inside predicts rows that are earlier than those that it learned from."""
    check = "later rows in training (inner folds)"
    if time is None:
        return Finding(check, "not checked", "no times were passed")
    return _crossing(
        check,
        fits,
        lambda learned, predicted: time[predicted] < time[learned].max(),
        "are earlier than rows that it learned from",
        "use a time-ordered cv, such as TimeSeriesSplit",
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


def features_in_sample(runs, classification):
    """Whether the table of a step predicts shuffled targets, because it was learned in-sample.

    `runs` are lists of fits on shuffled targets.
    """
    check = "in-sample features"
    scores = {}
    for fits in runs:
        for step, (features, y) in _tables_with_targets(fits).items():
            predictions = out_of_fold_predictions(features, y, classification)
            if predictions is not None:
                score = beyond_chance(predictions, y, classification)
                scores.setdefault(step, []).append(score)
    if not scores:
        return Finding(check, "not checked", "no step has a numeric table with enough rows")
    strength = {
        step: (np.sum([z for _, z, _ in own]) / np.sqrt(len(own)), own[0][0])
        for step, own in scores.items()
    }
    worst = max(strength, key=lambda step: strength[step][0])
    z, value = strength[worst]
    measure = "ROC AUC" if classification else "a correlation"
    effect = 2 * value - 1 if classification else value
    verdict = "leak" if z > 5 and effect > 0.2 else "suspect" if z > 4 and effect > 0.1 else "ok"
    return Finding(
        check,
        verdict,
        f"with shuffled targets, the columns that {worst} learns from predict the targets of its "
        f"rows with {measure} of {value:.2f} (z = {z:.1f})",
        "make features of training rows out-of-fold: KerasFeatureTransformer, StackedKeras..., or "
        "cross_val_predict",
        float(np.clip(effect, 0, 1)) if verdict != "ok" else 0.0,
    )


def _tables_with_targets(fits):
    """The last table of each step with known rows, other than X itself; each row once."""
    tables = {}
    for fit in fits:
        derived = fit.parent is not None and (fit.table.makers or fit.parent.parent is not None)
        if fit.resampled or not derived or fit.y is None or np.ndim(fit.y) != 1:
            continue
        features = _numeric(fit.X)
        if features is None or len(features) != len(fit.rows):
            continue
        _, once = np.unique(fit.rows, return_index=True)
        once = once[fit.rows[once] >= 0]
        if len(once) >= _FEW_ROWS:
            tables[fit.step] = features[once], np.asarray(fit.y)[once]
    return tables


def _numeric(X):
    if hasattr(X, "select_dtypes"):
        X = X.select_dtypes("number")
    X = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
    return X if X.ndim == 2 and X.dtype.kind in "fiub" and X.shape[1] else None
