"""What the fits of a watched estimator say: who learned from which rows before whom."""

from __future__ import annotations

import numpy as np

from skstack._splits.supervision import learns_from_y
from skstack._stack.branches import stops_early
from skstack.inspection._association import beyond_chance, told_by
from skstack.inspection._report import Finding
from skstack.inspection._trace import MADE

_FEW_ROWS = 30


def _known(rows):
    return rows[rows >= 0]


def _descends(fit, ancestor):
    while fit is not None and fit is not ancestor:
        fit = fit.parent
    return fit is ancestor


def inner_splits(fits):
    """Yield (owner, fit, rows asked about) where a step fits on some of its rows, asks others.

    The owner is the outermost step that had both sides among its own rows: a search, a stack, a
    transformer that cross-fits.
    """
    for fit in fits:
        if fit.parent is None:
            continue
        learned = _known(fit.rows)
        for table in fit.used:
            asked = _known(table.rows)
            if not len(asked) or not len(learned) or np.isin(asked, learned).any():
                continue
            owner, step = None, fit.parent
            while step is not None:
                if np.isin(asked, step.rows).all() and np.isin(learned, step.rows).all():
                    owner = step
                step = step.parent
            if owner is not None:
                yield owner, fit, asked


def learned_before(fits):
    """Samplers, scalers and selectors that have seen both sides of a split inside a step."""
    resampled, scaled, selected = {}, {}, {}
    for owner, fit, asked in inner_splits(fits):
        # Those between the owner and the fit stand inside the split and saw one side alone.
        outside = [maker for maker in fit.table.makers if not _descends(maker, owner)]
        outside += list(owner.table.makers)
        step = fit
        while step is not None and step is not owner:
            outside += [m for m in step.table.makers if np.isin(asked, m.rows).all()]
            step = step.parent
        for maker in outside:
            if maker is fit or not np.isin(asked, maker.rows).any():
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
    """The step that split rows after the maker had seen them."""
    step = fit.parent
    while step.parent is not None and step.parent is not maker.parent:
        step = step.parent
    return step


def _before_split(check, found, verdict, what):
    if not found:
        return Finding(check, "ok", f"no {what} has learned from both sides of an inner split")
    pairs = ", ".join(f"{maker} before {owner.step}" for maker, owner in found.items())
    return Finding(
        check,
        verdict,
        f"{pairs}: rows that the inner split predicts had been seen",
        f"put the {what} inside: the Pipeline goes into the search or stack, not the search or "
        "stack into the Pipeline",
        1.0 if verdict == "leak" else 0.3,
    )


def _learns(estimator):
    """Whether a fitted transformer holds anything that it learned from rows."""
    formal = {"n_features_in_", "feature_names_in_", "n_features_out_"}
    return any(name.endswith("_") and name not in formal for name in vars(estimator))


def _cross_fits(estimator):
    """Whether ``fit_transform`` gives each row what was learned from others."""
    return hasattr(estimator, "_extract") or type(estimator).__name__ == "TargetEncoder"


def _searches(fit):
    return hasattr(fit.estimator, "best_score_") or hasattr(fit.estimator, "cv_results_")


def early_stopping(fits):
    """Steps that hold out rows by themselves among rows that a sampler made, or learn from them."""
    check = "early stopping on made or seen rows"
    found = {}
    for fit in fits:
        if fit.watched is not None:
            watched = _known(fit.watched.rows)
            seen = np.isin(watched, fit.rows).mean() if len(watched) else 0
            if seen:
                found[fit.step] = seen, "watches rows that it learns from"
        elif _holds_out(fit.estimator, len(fit.rows)) and _after_sampler(fit):
            known = _known(fit.rows)
            extra = (fit.rows == MADE).sum() + len(known) - len(np.unique(known))
            if extra:
                said = "holds out rows by itself, some of them made or repeated by a sampler"
                found[fit.step] = extra / len(fit.rows), said
    if not found:
        return Finding(check, "ok", "no step watches rows that were made, or that it learns from")
    said = ", ".join(f"{step} {what} ({share:.0%})" for step, (share, what) in found.items())
    return Finding(
        check,
        "leak",
        said,
        "let the estimator resample after it has held rows out (sampler= of KerasClassifier or of "
        "a stack), or pass X_val and y_val",
        float(max(share for share, _ in found.values())),
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
    """Whether a group stands on both sides of a split inside a step."""
    check = "groups across inner folds"
    if groups is None:
        return Finding(check, "not checked", "no groups were given")
    found = {}
    for owner, fit, asked in inner_splits(fits):
        crossing = np.isin(groups[asked], groups[_known(fit.rows)]).mean()
        if crossing:
            found[_closest(owner, fit)] = max(crossing, found.get(_closest(owner, fit), 0))
    return _inner(check, found, "stand in a group that the inner networks know",
                  "give the step a cv that keeps groups whole, and enable metadata routing so that "
                  "groups reach it")  # fmt: skip


def inner_time(fits, time):
    """Whether a step inside asks about rows that are earlier than those that it learned from."""
    check = "future in the past (inner folds)"
    if time is None:
        return Finding(check, "not checked", "no times were given")
    found = {}
    for owner, fit, asked in inner_splits(fits):
        later = np.mean(time[asked] < time[_known(fit.rows)].max())
        if later:
            found[_closest(owner, fit)] = max(later, found.get(_closest(owner, fit), 0))
    return _inner(check, found, "are earlier than rows that were learned from",
                  "give the step a time-ordered cv; a stack takes TimeSeriesSplit")  # fmt: skip


def _closest(owner, fit):
    return f"{owner.step} (in {fit.step})"


def _inner(check, found, what, remedy):
    if not found:
        return Finding(check, "ok", "no inner fold crosses")
    said = ", ".join(
        f"{step}: {share:.0%} of the rows asked about" for step, share in found.items()
    )
    return Finding(check, "leak", f"{said} {what}", remedy, float(max(found.values())))


def features_in_sample(runs, classification):
    """Whether the table of a step tells labels that were drawn by lot.

    Parameters
    ----------
    runs : list of list of Fit
        Fits on shuffled targets: what they tell, they tell of the rows that made them.

    classification : bool
    """
    check = "features made in-sample"
    told = {}
    for fits in runs:
        for step, (features, y) in _tables_with_targets(fits).items():
            predicted = told_by(features, y, classification)
            if predicted is not None:
                told.setdefault(step, []).append(beyond_chance(predicted, y, classification))
    if not told:
        return Finding(check, "not checked", "no step has a numeric table and enough rows")
    strength = {
        step: (np.sum([z for _, z, _ in found]) / np.sqrt(len(found)), found[0][0])
        for step, found in told.items()
    }
    worst = max(strength, key=lambda step: strength[step][0])
    z, value = strength[worst]
    measure = "ROC AUC" if classification else "a correlation"
    effect = 2 * value - 1 if classification else value
    verdict = "leak" if z > 5 and effect > 0.2 else "suspect" if z > 4 and effect > 0.1 else "ok"
    return Finding(
        check,
        verdict,
        f"with shuffled targets, the columns that {worst} learns from tell its own rows' targets "
        f"with {measure} of {value:.2f} (z = {z:.1f})",
        "make features of training rows out-of-fold: KerasFeatureTransformer, StackedKeras..., or "
        "cross_val_predict",
        float(np.clip(effect, 0, 1)) if verdict != "ok" else 0.0,
    )


def _tables_with_targets(fits):
    """The last table of each step whose rows are known, each row once, that are not X itself."""
    tables = {}
    for fit in fits:
        made = fit.parent is not None and (fit.table.makers or fit.parent.parent is not None)
        if fit.resampled or not made or fit.y is None or np.ndim(fit.y) != 1:
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
