"""What a stack may be made of: branches, their folds, and downstreams that stop early."""

from __future__ import annotations

import copy
from numbers import Integral

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, clone, is_classifier, is_regressor
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.validation import check_consistent_length

from skstack._base.params import clone_part, is_keras_model, is_path, set_missing_seeds
from skstack._base.sklearn import accepts_fit_parameter, wrapper_of
from skstack._base.tables import column_indices, n_rows, read_table
from skstack._estimators.autoencoder import KerasAutoencoder
from skstack._estimators.base import EARLY_STOPPING_ROWS
from skstack._features.transformer import KerasFeatureTransformer
from skstack._splits.folds import orders_time
from skstack._splits.hold_out import hold_out
from skstack.networks._model_parameter import check_model


def branch_list(stack):
    """The branches of a stack as (name, thing, columns), dropped ones left out.

    Raises
    ------
    ValueError
        If names clash with each other or with parameters, or hold ``__``.

    TypeError
        If ``upstream`` is no branch and no list of branches.
    """
    upstream = stack.upstream
    if upstream is None:
        return [("upstream", KerasAutoencoder(), None)]
    if not isinstance(upstream, list):
        return [("upstream", upstream, None)]
    for entry in upstream:
        pair = isinstance(entry, tuple) and len(entry) in (2, 3)
        if not pair or not isinstance(entry[0], str):
            raise TypeError(
                f"upstream holds {entry!r}; accepted are tuples (name, thing) and (name, thing, "
                "columns)."
            )
    stack._validate_names([entry[0] for entry in upstream])
    branches = [(*entry, None)[:3] for entry in upstream]
    return [branch for branch in branches if not isinstance(branch[1], str) or branch[1] != "drop"]


def named_branches(upstream):
    """(name, thing) of each branch; [] for what is no list of them, which ``fit`` tells."""
    if not isinstance(upstream, list):
        return []
    pairs = [entry[:2] for entry in upstream if isinstance(entry, tuple) and len(entry) > 1]
    sound = len(pairs) == len(upstream) and not any(isinstance(thing, type) for _, thing in pairs)
    return pairs if sound else []


def branch_column_indices(X, name, columns):
    """Positions of a branch's columns, settled once: of other rows a callable may say others."""
    return column_indices(X, columns, f"upstream: columns of {name!r}")


def branch_seeds(stack, seed):
    """A seed for each branch by name, the same whichever others are dropped."""
    generator = np.random.default_rng(seed)
    names = [name for name, _ in named_branches(stack.upstream)] or ["upstream"]
    return {name: int(generator.integers(2**31 - 1)) for name in names}


def branch_of(stack, name, thing, cv=None):
    """A new transformer that does what a branch says.

    Parameters
    ----------
    stack : Stack
        Whose ``refit`` and ``n_jobs`` hold for things that do not say so themselves.

    name : str
        For messages.

    thing : estimator, KerasFeatureTransformer, Pipeline, keras.Model or path

    cv : None, int, splitter or list of folds, default=None
        For things that have none of their own.

    Returns
    -------
    KerasFeatureTransformer
    """
    if isinstance(thing, KerasFeatureTransformer):
        return clone(thing)
    if isinstance(thing, Pipeline) and isinstance(thing.steps[-1][1], KerasFeatureTransformer):
        # The steps before go into the cross-fit, so that each fold learns its own.
        last = thing.steps[-1][1]
        model = KerasAutoencoder() if last.model is None else last.model
        whole = copy.copy(thing)  # an imbalanced-learn Pipeline stays one
        whole.steps = [*thing.steps[:-1], (thing.steps[-1][0], model)]
        inner = clone(clone(last).set_params(model=whole, passthrough=False))
        inner._passes_steps = last.passthrough
        return inner
    fits = hasattr(thing, "fit") and hasattr(thing, "get_params") and not isinstance(thing, type)
    if not (fits or is_keras_model(thing) or is_path(thing)):
        raise TypeError(
            f"The branch {name!r} of upstream is {thing!r}; accepted are estimators, a "
            "KerasFeatureTransformer, a Pipeline that ends in one, a built keras.Model, the path "
            "to a saved one and 'drop'."
        )
    if is_path(thing):
        try:
            check_model(thing)
        except ValueError as error:
            raise ValueError(f"The branch {name!r} of upstream: {error}") from error
    # A clone, for seeds will be set in it, and the thing is the user's.
    return clone(KerasFeatureTransformer(thing, cv=cv, refit=stack.refit, n_jobs=stack.n_jobs))


def checked_downstream(stack, seed, n, parts, ordered):
    """Clone the downstream of a stack and refuse one that would leak.

    Parameters
    ----------
    stack : Stack

    seed : int
        For what the user left open.

    n : int
        Number of training rows.

    parts : StackMetadata
        What came along with the rows.

    ordered : bool
        Whether rows stand in order of time.

    Returns
    -------
    estimator

    Raises
    ------
    ValueError
        If it learns another kind of target, resamples again, or holds out rows by itself where
        these would not be what early stopping needs.
    """
    downstream = stack._default_downstream() if stack.downstream is None else stack.downstream
    if isinstance(downstream, type):
        raise TypeError(f"downstream is the class {downstream.__name__}; pass an instance.")
    own = getattr(downstream, "steps", [(None, downstream)])[-1][1]
    # The mixins, for scikeras forgets to say in its tags what it is.
    regressor = is_regressor(own) or isinstance(own, RegressorMixin)
    classifier = is_classifier(own) or isinstance(own, ClassifierMixin)
    if regressor if is_classifier(stack) else classifier:
        raise ValueError(
            f"downstream={downstream!r} does not fit {type(stack).__name__}: it is a "
            f"{'regressor' if regressor else 'classifier'}."
        )
    downstream = set_missing_seeds(
        clone_part(downstream), seed, scikeras=stack.random_state is not None
    )
    sampler = getattr(stack, "sampler", None)
    if sampler is not None and getattr(own, "sampler", None) is not None:
        raise ValueError(
            f"sampler={sampler!r} stands in the stack and sampler={own.sampler!r} in its "
            "downstream; rows can be resampled once only. Set one of them to None."
        )
    inner = [step for _, step in getattr(downstream, "steps", ()) if hasattr(step, "fit_resample")]
    if inner and (sampler is not None or getattr(stack, "prior_correction", False)):
        raise ValueError(
            f"downstream={downstream!r} has the sampler {inner[0]!r} among its steps; beside "
            + (
                f"sampler={sampler!r} of the stack rows would be resampled twice."
                if sampler is not None
                else "prior_correction=True it would go uncorrected: only sampler=... of the stack "
                "is known to it."
            )
        )
    lost = sorted(set(parts.downstream) - {"sample_weight", "groups", "X_val", "y_val"})
    if sampler is not None and lost:
        raise ValueError(
            f"sampler={sampler!r} makes other rows of those that the downstream asked "
            f"metadata for: {lost}. Leave the sampler out, or set these requests to False."
        )
    beside = {
        "a sampler they would be synthetic": sampler is not None,
        "groups they would be of groups that it learns from": parts.groups is not None,
        "a time-ordered cv they would not be the last ones": (
            ordered and not _validation_split(own)
        ),
    }
    reasons = [reason for reason, given in beside.items() if given]
    if reasons and "X_val" not in parts.downstream and _holds_out_by_itself(downstream, n):
        raise ValueError(
            f"downstream={downstream!r} holds out rows for early stopping by itself, and "
            f"beside {reasons[0]}. Switch its early stopping off, or use a downstream whose "
            "fit takes X_val and y_val (KerasClassifier, HistGradientBoostingClassifier)."
        )
    return downstream


def held_out_rows(stack, X, y, downstream, seed, parts, ordered):
    """Rows to set aside before anything is learned.

    Parameters
    ----------
    stack : Stack

    X, y : table and targets

    downstream : estimator
        Not fitted.

    seed, parts, ordered : as in checked_downstream

    Returns
    -------
    split : tuple of (train, held out) row numbers, or None
        None where no rows need to be set aside.

    watches : bool
        Whether the downstream watches them; else they are for fine-tuning alone.
    """
    if "X_val" in parts.downstream:
        X_val, y_val = parts.downstream["X_val"], parts.downstream.get("y_val")
        read_table(stack, X_val, reset=False)
        check_consistent_length(X_val, y_val)
        return None, True
    watches = accepts_fit_parameter(downstream, "X_val") and stops_early(downstream, n_rows(X))
    if watches:
        fraction = getattr(downstream, "validation_fraction", None) or 0.1
    elif stack.fine_tune is not None:
        fraction = stack.fine_tune.validation_fraction
    else:
        return None, False
    split = hold_out(
        y,
        fraction=fraction,
        stratify=is_classifier(stack) and y.ndim == 1,
        seed=seed,
        groups=parts.groups,
        ordered=ordered,
    )
    return split, watches


def stops_early(estimator, n):
    """Whether an estimator watches rows set aside when it learns from ``n`` rows."""
    said = getattr(estimator, "early_stopping", False)
    return n > EARLY_STOPPING_ROWS if isinstance(said, str) else bool(said)


def takes_nan(downstream, stack):
    """Whether numbers that pass through a stack may be missing; no sampler takes such rows."""
    if getattr(stack, "sampler", None) is not None:
        return False
    return bool(get_tags(downstream).input_tags.allow_nan)


def wants_names(downstream):
    """Whether a downstream goes by the names of the columns: it then gets a frame."""
    said = getattr(downstream, "categorical_features", None)
    by_name = isinstance(said, (list, tuple)) and any(isinstance(name, str) for name in said)
    return by_name or getattr(downstream, "inputs", None) is not None


def _validation_split(estimator):
    """Share of rows, the last ones, that a wrapper of Keras takes for validation; else 0."""
    if wrapper_of(estimator) is None:
        return 0
    params = estimator.get_params(deep=False)
    if wrapper_of(estimator) == "keras":
        params = params["fit_kwargs"] or {}
    return params.get("fit__validation_split", params.get("validation_split")) or 0


def _holds_out_by_itself(estimator, n):
    """Whether an estimator would take early-stopping rows from those that it is given."""
    if _validation_split(estimator):
        return True
    if isinstance(estimator, Pipeline):
        last = estimator.steps[-1][1]
        return stops_early(last, n) or _holds_out_by_itself(last, n)
    if accepts_fit_parameter(estimator, "X_val"):
        return False
    if stops_early(estimator, n):
        return True
    # Gradient boosting has no `early_stopping`: it watches rows where `n_iter_no_change` is set.
    return (
        not hasattr(estimator, "early_stopping")
        and hasattr(estimator, "validation_fraction")
        and getattr(estimator, "n_iter_no_change", None) is not None
    )


def settle_folds(cv, branches, X, y, parts=None):
    """Give all branches folds that respect the order of time, where the stack's cv does.

    Parameters
    ----------
    cv : None, int, splitter or list of folds
        Of the stack.

    branches : list of (name, KerasFeatureTransformer, columns)
        Their int ``cv`` gives way to a time-ordered one of the stack.

    X, y : training rows and targets

    parts : StackMetadata, default=None
        What came along with the rows.

    Returns
    -------
    bool
        Whether rows stand in order of time.

    Raises
    ------
    ValueError
        If one of stack and branch is ordered in time and the other is not.
    """
    ordered = orders_time(cv, X, y, None if parts is None else parts.splitter)
    for name, transformer, _ in branches:
        own = transformer.cv
        if ordered and (own is None or isinstance(own, Integral)):
            # A number of folds says nothing of time; the stack's cv does.
            transformer.cv = copy.deepcopy(cv)
        elif orders_time(own, X, y, parts and parts.branches[name].split) != ordered:
            raise ValueError(
                f"The branch {name!r} has cv={own!r} and the stack cv={cv!r}, of which one is "
                "ordered in time and the other is not: some features would come from networks "
                "that know later rows. Give both a time-ordered cv."
            )
    return ordered
