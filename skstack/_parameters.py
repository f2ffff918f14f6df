"""Constructor parameters that hold networks: cloned by sharing, set with help, seeded once."""

from __future__ import annotations

import copy
import os
import warnings

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline

from skstack._checks import wrapper_of
from skstack.networks import is_keras_model, is_path, load_model

__all__ = [
    "clone_part",
    "clone_sharing_models",
    "clone_with_networks",
    "draw_seed",
    "explain_missing_parameters",
    "set_missing_seeds",
    "upstream_of",
]


def clone_part(value):
    """Clone whatever an estimator may hold, so that fitting the clone changes nothing here.

    A ``keras.Model`` is shared, for nobody of skstack trains one; scikeras would, and gets a copy
    with the same weights. ``keras.wrappers`` trains no model that it was given, but its own
    ``clone`` loses ``fit_kwargs`` and shares the dict that ``fit`` writes into.
    """
    if is_keras_model(value):
        return value
    if type(value) in (list, tuple):
        return type(value)(clone_part(item) for item in value)
    wrapper = wrapper_of(value)
    if isinstance(value, Pipeline) or wrapper == "keras":
        return clone_sharing_models(value)
    if wrapper == "scikeras":
        with warnings.catch_warnings():
            # Its model is compiled: the optimizer's settings are copied, its state is not.
            warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
            return clone(value)
    return clone(value, safe=False)


def clone_sharing_models(estimator):
    """Clone an estimator, with every ``keras.Model`` among its parameters shared, not copied.

    A deep copy of a model costs 0.2 s and a warning, and would make equal models unequal for
    every cache; no estimator of skstack trains or changes a model that it was given.
    """
    copied = type(estimator)(
        **{name: clone_part(value) for name, value in estimator.get_params(deep=False).items()}
    )
    for attribute in ("_metadata_request", "_sklearn_output_config"):
        if hasattr(estimator, attribute):
            setattr(copied, attribute, copy.deepcopy(getattr(estimator, attribute)))
    if hasattr(estimator, "_row_context"):  # a step that its Pipeline clones gets it all the same
        copied._row_context = estimator._row_context
    return copied


def clone_with_networks(model):
    """Clone an estimator; a Pipeline whose last step is a ``keras.Model`` or a path keeps it."""
    model = clone_part(model)
    if isinstance(model, Pipeline) and is_path(model.steps[-1][1]):
        model.steps[-1] = (model.steps[-1][0], load_model(model.steps[-1][1]))
    return model


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


def _read_determinism():
    """Have TensorFlow read now whether kernels are deterministic.

    It reads its environment when first asked. scikeras asks after it has written there, so that it
    believes that the process was deterministic before, and leaves it so.
    """
    import keras

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model doesn't support `jit_compile")
        keras.Sequential().jit_compile = True  # not with deterministic kernels: Keras asks


def upstream_of(model, random_state):
    """The network to extract features with: loaded, or a clone with its seeds set.

    Parameters
    ----------
    model : path, keras.Model, estimator or Pipeline

    random_state : as in scikit-learn

    Raises
    ------
    TypeError
        If it is none of these.
    """
    if is_path(model):
        return load_model(os.fspath(model))
    if is_keras_model(model):
        return model
    if isinstance(model, type) or not (hasattr(model, "get_params") and hasattr(model, "fit")):
        raise TypeError(
            f"model={model!r} must be a path to a saved Keras model, a built keras.Model, a "
            "FrozenEstimator, an estimator or a Pipeline that ends in one."
        )
    model = clone_with_networks(model)
    return set_missing_seeds(model, draw_seed(random_state), scikeras=random_state is not None)


def set_missing_seeds(thing, seed, *, scikeras=True):
    """Give every ``random_state`` that is None in ``thing``, at any depth, a seed of its own.

    That of a scikeras estimator switches the whole process to deterministic kernels while it is
    fitted: with ``scikeras=False``, where nobody asked for a seed, it is left alone.
    """
    if not isinstance(thing, BaseEstimator) and not hasattr(thing, "get_params"):
        return thing
    generator = np.random.default_rng(seed)
    parts = {"": thing, **thing.get_params(deep=True)}
    for name, value in sorted(parts.items()):
        own = name == "random_state" or name.endswith("__random_state")
        if own and value is None:
            owner = parts[name.removesuffix("random_state").removesuffix("__")]
            if wrapper_of(owner) == "scikeras":
                if not scikeras:
                    continue
                _read_determinism()
            thing.set_params(**{name: int(generator.integers(2**31 - 1))})
    return thing
