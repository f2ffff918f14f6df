"""Constructor parameters that hold networks: cloned by sharing, set with help, seeded once."""

from __future__ import annotations

import copy

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline

from skstack.networks import is_keras_model, is_path, load_model

__all__ = [
    "clone_parameter",
    "clone_sharing_models",
    "clone_with_networks",
    "draw_seed",
    "explain_missing_parameters",
    "set_missing_seeds",
]


def clone_parameter(value):
    """Clone what stands in a parameter; a ``keras.Model`` is shared."""
    if is_keras_model(value):
        return value
    if type(value) in (list, tuple):
        return type(value)(clone_parameter(item) for item in value)
    if isinstance(value, Pipeline):
        return clone_sharing_models(value)
    return clone(value, safe=False)


def clone_sharing_models(estimator):
    """Clone an estimator, with every ``keras.Model`` among its parameters shared, not copied.

    A deep copy of a model costs 0.2 s and a warning, and would make equal models unequal for
    every cache; no estimator of skstack trains or changes a model that it was given.
    """
    copied = type(estimator)(
        **{name: clone_parameter(value) for name, value in estimator.get_params(deep=False).items()}
    )
    for attribute in ("_metadata_request", "_sklearn_output_config"):
        if hasattr(estimator, attribute):
            setattr(copied, attribute, copy.deepcopy(getattr(estimator, attribute)))
    return copied


def clone_with_networks(model):
    """Clone an estimator; a Pipeline whose last step is a ``keras.Model`` or a path keeps it."""
    if isinstance(model, Pipeline):
        steps = [
            (name, step if is_path(step) or is_keras_model(step) else clone(step))
            for name, step in model.steps
        ]
        if is_path(steps[-1][1]):
            steps[-1] = (steps[-1][0], load_model(steps[-1][1]))
        return Pipeline(steps)
    return clone(model)


def explain_missing_parameters(estimator, params, remedies):
    """Refuse ``name__parameter`` where the thing called ``name`` has no parameters at all.

    Parameters
    ----------
    estimator : estimator
        The estimator whose ``set_params`` was called.

    params : dict
        What was passed to ``set_params``.

    remedies : callable
        ``remedies(name, value)``: what to pass instead.

    Raises
    ------
    ValueError
        If a parameter belongs to a path, a ``keras.Model`` or None.
    """
    known = None
    for key in params:
        name, nested, parameter = key.partition("__")
        if not nested:
            continue
        known = estimator.get_params(deep=True) if known is None else known
        if name not in known:
            continue
        value = params.get(name, known[name])
        if not hasattr(value, "set_params"):
            kind = (
                "None"
                if value is None
                else f"the string {value!r}"
                if isinstance(value, str)
                else f"a {type(value).__name__}"
            )
            raise ValueError(
                f"Cannot set {key!r}: {name!r} of {type(estimator).__name__} is {kind}, which has "
                f"no parameter {parameter!r}. {remedies(name, value)}"
            )


def draw_seed(random_state):
    """A seed from ``random_state``; from fresh entropy, not NumPy's global state, for None.

    Parameters
    ----------
    random_state : None, int or numpy.random.RandomState

    Returns
    -------
    int
        In [0, 2**31 - 1).
    """
    if random_state is None:
        return int(np.random.default_rng().integers(2**31 - 1))
    if isinstance(random_state, (int, np.integer)):
        return int(np.random.default_rng(int(random_state)).integers(2**31 - 1))
    return int(random_state.randint(2**31 - 1))


def set_missing_seeds(thing, seed):
    """Give every ``random_state`` that is None in ``thing``, at any depth, a seed of its own."""
    if not isinstance(thing, BaseEstimator) and not hasattr(thing, "get_params"):
        return thing
    generator = np.random.default_rng(seed)
    for name, value in sorted(thing.get_params(deep=True).items()):
        own = name == "random_state" or name.endswith("__random_state")
        if own and value is None:
            thing.set_params(**{name: int(generator.integers(2**31 - 1))})
    return thing
