"""Branches of a stack, their folds, and downstreams that stop early."""

from __future__ import annotations

import copy
import functools
from numbers import Integral

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, clone, is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.validation import check_consistent_length

from skstack._base.params import (
    clone_part,
    is_keras_model,
    is_path,
    set_missing_seeds,
    without_passthrough,
)
from skstack._base.progress import errors_named
from skstack._base.sklearn import accepts_fit_parameter, wrapper_of
from skstack._base.tables import column_indices, n_rows, read_table
from skstack._base.text import described
from skstack._estimators.autoencoder import KerasAutoencoder
from skstack._estimators.base import NetworkEstimator
from skstack._features.transformer import KerasFeatureTransformer
from skstack._features.trial_targets import grids_of
from skstack._splits.folds import orders_time, shown_cv
from skstack._splits.hold_out import hold_out
from skstack._stack.epochs import leaves_epochs_open
from skstack.networks._model_parameter import check_model


def branch_list(stack):
    """Branches as (name, model, columns), without dropped ones; invalid ones raise an error."""
    upstream = stack.upstream
    if upstream is None:
        return [("upstream", KerasAutoencoder(), None)]
    if not isinstance(upstream, list):
        return [("upstream", upstream, None)]
    for entry in upstream:
        pair = isinstance(entry, tuple) and len(entry) in (2, 3)
        if not pair or not isinstance(entry[0], str):
            raise TypeError(
                f"upstream holds {entry!r}; expected tuples (name, model) or (name, model, "
                "columns)."
            )
    stack._validate_names([entry[0] for entry in upstream])
    branches = [(*entry, None)[:3] for entry in upstream]
    return [branch for branch in branches if not isinstance(branch[1], str) or branch[1] != "drop"]


def named_branches(upstream):
    """(name, model) of each branch; [] if ``upstream`` is not a list of branches."""
    if not isinstance(upstream, list):
        return []
    pairs = [entry[:2] for entry in upstream if isinstance(entry, tuple) and len(entry) > 1]
    valid = len(pairs) == len(upstream) and not any(isinstance(model, type) for _, model in pairs)
    return pairs if valid else []


def branch_column_indices(X, name, columns):
    """Indices of the columns of a branch; a callable is evaluated once, on the training rows."""
    return column_indices(X, columns, f"upstream: columns of {name!r}")


def branch_seeds(stack, seed):
    """A seed for each branch by name, independent of which other branches are dropped."""
    generator = np.random.default_rng(seed)
    names = [name for name, _ in named_branches(stack.upstream)] or ["upstream"]
    return {name: int(generator.integers(2**31 - 1)) for name in names}


def branch_of(stack, name, model, cv=None):
    """Make the unfitted KerasFeatureTransformer of a branch.

    ``refit`` and ``n_jobs`` of the stack, and ``cv``, apply to models that have no such parameters.
    """
    model = without_passthrough(model)
    if isinstance(model, KerasFeatureTransformer):
        return clone(model)
    if isinstance(model, Pipeline) and isinstance(model.steps[-1][1], KerasFeatureTransformer):
        # The steps before are part of the cross-fit: each fold fits its own.
        step, last = model.steps[-1]
        pipeline = copy.copy(model)  # keeps an imbalanced-learn Pipeline
        pipeline.steps = [*model.steps[:-1], (step, last._upstream_model)]
        inner = clone(clone(last).set_params(model=pipeline, passthrough=False))
        inner._passes_steps = last.passthrough
        return inner
    fits = hasattr(model, "fit") and hasattr(model, "get_params") and not isinstance(model, type)
    if not (fits or is_keras_model(model) or is_path(model)):
        raise TypeError(
            f"The branch {name!r} of upstream is {described(model)}; expected an estimator, a "
            "KerasFeatureTransformer, a Pipeline that ends in one, a built keras.Model, the path "
            "to a saved one or 'drop'."
        )
    if is_path(model):
        try:
            check_model(model)
        except ValueError as error:
            raise ValueError(f"The branch {name!r} of upstream: {error}") from error
    # A clone, because seeds are set in it.
    return clone(KerasFeatureTransformer(model, cv=cv, refit=stack.refit, n_jobs=stack.n_jobs))


def checked_downstream(stack, seed, n, parts, ordered):
    """Clone and seed the downstream of a stack; refuse one that would leak or resample twice."""
    downstream = stack._default_downstream() if stack.downstream is None else stack.downstream
    if isinstance(downstream, type):
        raise TypeError(f"downstream is the class {downstream.__name__}; pass an instance.")
    own = getattr(downstream, "steps", [(None, downstream)])[-1][1]
    # The mixins, because the tags of scikeras are incomplete.
    regressor = is_regressor(own) or isinstance(own, RegressorMixin)
    classifier = is_classifier(own) or isinstance(own, ClassifierMixin)
    if regressor if is_classifier(stack) else classifier:
        raise ValueError(
            f"downstream={described(downstream)} is not supported by {type(stack).__name__}: it "
            f"is a {'regressor' if regressor else 'classifier'}."
        )
    downstream = set_missing_seeds(
        clone_part(downstream), seed, scikeras=stack.random_state is not None
    )
    sampler = getattr(stack, "sampler", None)
    if sampler is not None and getattr(own, "sampler", None) is not None:
        raise ValueError(
            f"sampler={described(sampler)} of the stack and sampler={described(own.sampler)} of "
            "its downstream: rows can be resampled only once. Set one of them to None."
        )
    inner = [step for _, step in getattr(downstream, "steps", ()) if hasattr(step, "fit_resample")]
    if inner and (sampler is not None or getattr(stack, "prior_correction", False)):
        raise ValueError(
            f"downstream={described(downstream)} contains the sampler {described(inner[0])}; with "
            + (
                f"sampler={described(sampler)} of the stack, rows would be resampled twice."
                if sampler is not None
                else "prior_correction=True, only sampler=... of the stack would be corrected."
            )
        )
    requested = sorted(set(parts.downstream) - {"sample_weight", "groups", "X_val", "y_val"})
    if sampler is not None and requested:
        raise ValueError(
            f"sampler={described(sampler)} changes the rows, but the downstream requests metadata "
            f"of the original rows: {requested}. Remove the sampler, or set these requests to "
            "False."
        )
    conflicts = {
        "a sampler, these rows would be synthetic": sampler is not None or bool(inner),
        "groups, these rows would share groups with its training rows": parts.groups is not None,
        "a time-ordered cv, these rows would not be the last ones": (
            ordered and not _validation_split(own)
        ),
    }
    reasons = [reason for reason, applies in conflicts.items() if applies]
    if reasons and isinstance(downstream, Pipeline) and leaves_epochs_open(downstream[-1]):
        downstream[-1].set_params(early_stopping=False)
    if reasons and "X_val" not in parts.downstream and _holds_out_by_itself(downstream, n):
        raise ValueError(
            f"downstream={described(downstream)} holds out rows for early stopping by itself; with "
            f"{reasons[0]}. Turn its early stopping off, or use a downstream whose "
            "fit takes X_val and y_val (KerasClassifier, HistGradientBoostingClassifier)."
        )
    return downstream


_ROWS_OF_BOOSTING = 10_000  # above which HistGradientBoosting stops early


def held_out_rows(stack, X, y, downstream, seed, parts, ordered):
    """Rows to hold out before anything is fitted.

    Returns (train, held out) row indices, or None, and whether the downstream monitors these rows;
    if not, they are for fine-tuning only.
    """
    if "X_val" in parts.downstream:
        X_val, y_val = parts.downstream["X_val"], parts.downstream.get("y_val")
        read_table(stack, X_val, reset=False)
        with errors_named("X_val and y_val"):
            check_consistent_length(X_val, y_val)
        return None, True
    watches = (
        accepts_fit_parameter(downstream, "X_val")
        and stops_early(downstream, n_rows(X))
        and not leaves_epochs_open(downstream)
    )
    if watches:
        fraction = getattr(downstream, "validation_fraction", 0.1)
    elif stack.fine_tune is not None:
        fraction = stack.fine_tune.validation_fraction
    else:
        return None, False
    split = functools.partial(
        hold_out, fraction=fraction, stratify=is_classifier(stack), seed=seed, ordered=ordered
    )
    weights, groups = parts.downstream.get("sample_weight"), parts.groups
    if weights is None or np.asarray(weights).all():
        return split(y, groups=groups), watches
    return _split_by_weighted_rows(split, y, np.asarray(weights), groups, ordered), watches


def _split_by_weighted_rows(split, y, weights, groups, ordered):
    """Split the rows of positive weight; those of weight 0 follow them, and judge nothing.

    They are held out with their group, or if later than the first row that is held out, so that
    nothing is learned from them that the others may not be learned from.
    """
    rows, without = np.flatnonzero(weights), weights == 0
    groups = None if groups is None else np.asarray(groups)
    _, rest = split(y[rows], groups=None if groups is None else groups[rows])
    held_out = np.isin(np.arange(len(weights)), rows[rest])
    if groups is not None:
        held_out |= without & np.isin(groups, groups[held_out])
    if ordered:
        held_out |= without & (np.arange(len(weights)) >= rows[rest].min())
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def stops_early(estimator, n):
    """Whether an estimator holds out rows for early stopping when it is fitted on ``n`` rows."""
    if isinstance(estimator, NetworkEstimator):
        return bool(estimator._stops_early(n))
    if getattr(estimator, "validation_fraction", 0.1) is None:
        return False  # boosting that monitors its training rows
    value = getattr(estimator, "early_stopping", False)
    return n > _ROWS_OF_BOOSTING if isinstance(value, str) else bool(value)


def takes_nan(downstream, stack):
    """Whether numbers that pass through may be missing; samplers do not support missing values."""
    if getattr(stack, "sampler", None) is not None:
        return False
    return bool(get_tags(downstream).input_tags.allow_nan)


def wants_names(downstream):
    """Whether a downstream uses the names of the columns, so that it needs a DataFrame."""
    by_name = any(_selects_by_name(name, part) for name, part in _parts(downstream))
    return by_name or getattr(downstream, "inputs", None) is not None


def _parts(estimator, name=""):
    """An estimator and its parameters, by name; of searches also the candidates."""
    parts = {name: estimator}
    if hasattr(estimator, "get_params") and not isinstance(estimator, type):
        parts |= estimator.get_params(deep=True)
    yield from parts.items()
    for part in parts.values():
        for grid in grids_of(part):
            for own, values in grid.items():
                for value in values:
                    yield from _parts(value, own)


def _selects_by_name(name, part):
    if isinstance(part, ColumnTransformer):
        return any(_is_by_name(columns) for *_, columns in part.transformers)
    if name.rpartition("__")[2] not in ("categorical_features", "monotonic_cst"):
        return False
    return not isinstance(part, str) and _is_by_name(part)  # a string is "from_dtype"


def _is_by_name(columns):
    if isinstance(columns, str) or callable(columns):  # which is called with the table
        return True
    if isinstance(columns, slice):
        columns = [columns.start, columns.stop]
    return np.iterable(columns) and any(isinstance(name, str) for name in columns)


def _validation_split(estimator):
    """Fraction of the last rows that a Keras wrapper uses for validation, else 0."""
    if wrapper_of(estimator) is None:
        return 0
    params = estimator.get_params(deep=False)
    if wrapper_of(estimator) == "keras":
        params = params["fit_kwargs"] or {}
    return params.get("fit__validation_split", params.get("validation_split")) or 0


def _holds_out_by_itself(estimator, n):
    """Whether an estimator would take rows for early stopping from its training rows."""
    if _validation_split(estimator):
        return True
    if isinstance(estimator, Pipeline):
        last = estimator.steps[-1][1]
        return stops_early(last, n) or _holds_out_by_itself(last, n)
    if accepts_fit_parameter(estimator, "X_val"):
        return False
    if stops_early(estimator, n):
        return True
    # Gradient boosting has no `early_stopping`: it monitors rows if `n_iter_no_change` is set.
    return (
        not hasattr(estimator, "early_stopping")
        and hasattr(estimator, "validation_fraction")
        and getattr(estimator, "n_iter_no_change", None) is not None
    )


def settle_folds(cv, branches, X, y, parts=None):
    """Set time-ordered folds in all branches if those of the stack are; return whether they are.

    Raises a ValueError if the folds of one branch are time-ordered and those of the stack are not,
    or vice versa.
    """
    ordered = orders_time(cv, X, y, None if parts is None else parts.splitter)
    for name, transformer, _ in branches:
        own = transformer.cv
        if ordered and (own is None or isinstance(own, Integral)):
            # An int says nothing about time order; the stack's cv does.
            transformer.cv = copy.deepcopy(cv)
        elif orders_time(own, X, y, parts and parts.branches[name].split) != ordered:
            raise ValueError(
                f"The branch {name!r} has cv={shown_cv(own)} and the stack has cv={shown_cv(cv)}, "
                "of which only one is time-ordered: some features would come from networks that "
                "were trained on later rows. Use a time-ordered cv for both."
            )
    return ordered
