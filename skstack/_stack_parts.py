"""What a stack may be made of: branches, and downstreams that stop early."""

from __future__ import annotations

from sklearn.base import clone
from sklearn.pipeline import Pipeline

from skstack._autoencoder import KerasAutoencoder
from skstack._checks import takes
from skstack._network_estimator import EARLY_STOPPING_ROWS
from skstack._transformer import KerasFeatureTransformer
from skstack.networks import is_keras_model, is_path

__all__ = ["as_branch", "branch_list", "holds_out_by_itself", "stops_early"]


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


def as_branch(name, thing, *, cv, refit, n_jobs):
    """A new transformer that does what a branch says.

    Parameters
    ----------
    name : str
        For messages.

    thing : estimator, KerasFeatureTransformer, Pipeline, keras.Model or path

    cv, refit, n_jobs : as in KerasFeatureTransformer
        For things that do not say so themselves.

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
        inner = clone(last).set_params(
            model=Pipeline([*thing.steps[:-1], (thing.steps[-1][0], model)]), passthrough=False
        )
        inner = clone(inner)
        inner._passes_steps = last.passthrough
        return inner
    fits = hasattr(thing, "fit") and hasattr(thing, "get_params") and not isinstance(thing, type)
    if not (fits or is_keras_model(thing) or is_path(thing)):
        raise TypeError(
            f"The branch {name!r} is {thing!r}; accepted are estimators, a "
            "KerasFeatureTransformer, a Pipeline that ends in one, a built keras.Model, the path "
            "to a saved one and 'drop'."
        )
    # A clone, for seeds will be set in it, and the thing is the user's.
    return clone(KerasFeatureTransformer(thing, cv=cv, refit=refit, n_jobs=n_jobs))


def stops_early(estimator, n):
    """Whether an estimator watches rows set aside when it learns from ``n`` rows."""
    said = getattr(estimator, "early_stopping", False)
    return n > EARLY_STOPPING_ROWS if isinstance(said, str) else bool(said)


def holds_out_by_itself(estimator, n):
    """Whether an estimator would take early-stopping rows from those that it is given."""
    if isinstance(estimator, Pipeline):
        last = estimator.steps[-1][1]
        return stops_early(last, n) or holds_out_by_itself(last, n)
    if takes(estimator, "X_val"):
        return False
    if stops_early(estimator, n):
        return True
    # Gradient boosting has no `early_stopping`: it watches rows where `n_iter_no_change` is set.
    return (
        not hasattr(estimator, "early_stopping")
        and hasattr(estimator, "validation_fraction")
        and getattr(estimator, "n_iter_no_change", None) is not None
    )
