"""Fitted upstreams, recalled where they were fitted before, and what their networks have seen."""

from __future__ import annotations

from skstack._features.cache import Unkeyable, cached, data_key, estimator_key
from skstack._features.cross_fit import fit_upstreams
from skstack.preprocessing._column_profile import ColumnProfile, some_rows


def cached_fit(source, X, y, metadata, folds, wanted, *, whole, seeded, memory, **settings):
    """Fit upstreams, or recall those that were fitted on the same.

    Parameters
    ----------
    source, X, y, metadata, folds, wanted : as in fit_upstreams

    whole : bool
        Whether features of all rows are wanted.

    seeded : bool
        Whether another fit draws the same seeds.

    memory : as in recalled

    **settings
        ``refit``, ``n_jobs`` and ``verbose`` of fit_upstreams.

    Returns
    -------
    As fit_upstreams.
    """

    def describe():
        if not seeded:
            raise Unkeyable("random_state=None draws other seeds in the next fit")
        parts = (
            wanted,
            settings["refit"],
            whole,
            repr(source.ordered_cv),
            estimator_key(source.model),
        )
        steps = None if source.steps is None else estimator_key(source.steps)
        data = data_key(X, y, vars(metadata), None if folds is None else folds.pairs)
        return (*parts, steps, data)

    def compute():
        return fit_upstreams(source, X, y, metadata, folds, wanted, **settings)

    memory = None if source.frozen else memory
    return cached(memory, describe, compute, verbose=settings["verbose"])


def input_profile(source, upstreams, X, trained_on=None):
    """What the network was fitted on; a frozen one is compared with the rows at hand.

    Parameters
    ----------
    source : Source

    upstreams : list of Upstream
        Fitted.

    X : table
        Training rows of the whole fit, as they come to the steps.

    trained_on : ColumnProfile, default=None
        What the user knows of a frozen network.

    Returns
    -------
    ColumnProfile

    Raises
    ------
    ValueError
        If ``trained_on`` has other columns than come to the network.
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
