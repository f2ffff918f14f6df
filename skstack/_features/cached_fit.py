"""Fitted upstream models from the cache, and the profile of their training rows."""

from __future__ import annotations

from skstack._features.cache import Unkeyable, cached, data_key, estimator_key
from skstack._features.cross_fit import fit_upstreams
from skstack.preprocessing._column_profile import ColumnProfile, some_rows


def cached_fit(source, X, y, metadata, folds, request, *, whole, seeded, memory, **settings):
    """Result of ``fit_upstreams``, from the cache if the same was fitted before.

    ``whole`` is whether features of all rows are requested, ``seeded`` whether each fit draws the
    same seeds.
    """

    def describe():
        if not seeded:
            raise Unkeyable("random_state=None draws new seeds in every fit")
        parts = (
            request,
            settings["refit"],
            whole,
            repr(source.ordered_cv),
            estimator_key(source.model),
        )
        steps = None if source.steps is None else estimator_key(source.steps)
        data = data_key(X, y, vars(metadata), None if folds is None else folds.pairs)
        return (*parts, steps, data)

    def compute():
        return fit_upstreams(source, X, y, metadata, folds, request, **settings)

    memory = None if source.frozen else memory
    return cached(memory, describe, compute, verbose=settings["verbose"])


def input_profile(source, upstreams, X, trained_on=None):
    """Profile of the training rows of a network; a frozen network is compared with the rows of X.

    Raises a ValueError if ``trained_on`` has other columns than the input of the network.
    """
    if not source.frozen:
        return ColumnProfile.pooled([upstream.profile for upstream in upstreams])
    first = upstreams[0]
    X = some_rows(X)
    X = X if first.steps is None else first.steps.transform(X)
    profile = first.profile if trained_on is None else trained_on
    if trained_on is not None:
        profile.check_columns(X, "trained_on")
    profile.warn_if_moved(X)
    return profile
