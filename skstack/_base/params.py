"""Constructor parameters that hold networks: cloned by sharing, set with help, seeded once."""

from __future__ import annotations

import copy
import os
import sys
import warnings

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline

from skstack._base.sklearn import wrapper_of


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


def is_keras_model(thing):
    """Whether ``thing`` is a ``keras.Model``; Keras is not imported to find out."""
    keras = sys.modules.get("keras")
    return isinstance(thing, getattr(keras, "Model", ()))


def is_path(thing):
    """Whether ``thing`` may be the path to a saved model."""
    return isinstance(thing, (str, os.PathLike))
