"""Constructor parameters: clones that share networks, error messages, seeds."""

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
    """Clone the value of a parameter so that fitting the clone does not change the original.

    A ``keras.Model`` is shared, because skstack never trains one in place. scikeras does, so its
    estimators get a copy with the same weights. ``keras.wrappers`` do not, but their own ``clone``
    loses ``fit_kwargs`` and shares the dict that ``fit`` writes to.
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
            # The state of the compiled model's optimizer is not copied.
            warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
            return clone(value)
    return clone(value, safe=False)


def clone_sharing_models(estimator):
    """Clone an estimator, with every ``keras.Model`` among its parameters shared.

    A deep copy takes 0.2 s, warns, and makes equal models unequal for every cache.
    """
    copied = type(estimator)(
        **{name: clone_part(value) for name, value in estimator.get_params(deep=False).items()}
    )
    for attribute in ("_metadata_request", "_sklearn_output_config"):
        if hasattr(estimator, attribute):
            setattr(copied, attribute, copy.deepcopy(getattr(estimator, attribute)))
    if hasattr(estimator, "_row_context"):  # must survive the clone that a Pipeline makes
        copied._row_context = estimator._row_context
    return copied


def explain_missing_parameters(estimator, params, remedy):
    """Raise for ``name__parameter`` in `params` if ``name`` has no parameters.

    It is then a path, a ``keras.Model`` or None; ``remedy(name, value)`` says what to pass instead.
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
            kind = f"a {type(value).__name__}"
            if value is None or isinstance(value, str):
                kind = "None" if value is None else f"the string {value!r}"
            raise ValueError(
                f"Cannot set {key!r}: {name!r} of {type(estimator).__name__} is {kind}, which has "
                f"no parameter {parameter!r}. {remedy(name, value)}"
            )


def draw_seed(random_state):
    """A seed in [0, 2**31 - 1); for None from fresh entropy, not from NumPy's global state."""
    if random_state is None or isinstance(random_state, (int, np.integer)):
        entropy = None if random_state is None else int(random_state)
        return int(np.random.default_rng(entropy).integers(2**31 - 1))
    return int(random_state.randint(2**31 - 1))


def _read_determinism():
    """Make TensorFlow read now whether kernels are deterministic.

    TensorFlow reads the environment at the first query only. scikeras writes to the environment
    before its own query, which would make the whole process deterministic.
    """
    import keras

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Model doesn't support `jit_compile")
        keras.Sequential().jit_compile = True  # the setter of Keras queries it


def set_missing_seeds(estimator, seed, *, scikeras=True):
    """Seed every ``random_state`` that is None in ``estimator``, at any depth.

    With ``scikeras=False``, scikeras estimators are left out: with a seed, they switch the process
    to deterministic kernels while they are fitted.
    """
    if not isinstance(estimator, BaseEstimator) and not hasattr(estimator, "get_params"):
        return estimator
    generator = np.random.default_rng(seed)
    parts = {"": estimator, **estimator.get_params(deep=True)}
    for name, value in sorted(parts.items()):
        is_seed = name == "random_state" or name.endswith("__random_state")
        if is_seed and value is None:
            owner = parts[name.removesuffix("random_state").removesuffix("__")]
            if wrapper_of(owner) == "scikeras":
                if not scikeras:
                    continue
                _read_determinism()
            estimator.set_params(**{name: int(generator.integers(2**31 - 1))})
    return estimator


def is_keras_model(value):
    """Whether ``value`` is a ``keras.Model``, without importing Keras."""
    keras = sys.modules.get("keras")
    return isinstance(value, getattr(keras, "Model", ()))


def is_path(value):
    """Whether ``value`` may be the path to a saved model."""
    return isinstance(value, (str, os.PathLike))


def is_network_estimator(value):
    """Whether ``value`` is an estimator of skstack that trains one network, fitted or not."""
    return hasattr(value, "_fit_in_context")
