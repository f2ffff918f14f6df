"""When is what an upstream makes the same? Keys of content: never of paths, names or addresses."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from importlib.metadata import version

import joblib
import numpy as np
from sklearn.frozen import FrozenEstimator

from skstack.networks import Recipe, architecture, is_keras_model, is_path

__all__ = ["Unkeyable", "data_key", "estimator_key", "network_key", "versions"]

_PACKAGES = (
    "imbalanced-learn", "joblib", "keras", "narwhals", "numpy", "pandas", "scikit-learn", "scipy",
    "skstack", "tensorflow",
)  # fmt: skip
# Packages whose code is told by their version; of all other classes the code itself is read.
_VERSIONED = {"imblearn", "keras", "numpy", "scipy", "skstack", "sklearn", "tensorflow"}


class Unkeyable(Exception):
    """Something that makes another result in each run, or whose content cannot be known."""


@functools.cache
def versions():
    """Versions that results depend on.

    Returns
    -------
    tuple of str
    """
    return (platform.python_version(), *(f"{name}={version(name)}" for name in _PACKAGES))


def data_key(*data):
    """Hash tables, targets and other data: values, shapes, dtypes, names, categories.

    Parameters
    ----------
    *data : array, DataFrame, sparse matrix, list, dict or None

    Returns
    -------
    str
    """
    return joblib.hash(data, hash_name="sha1", coerce_mmap=True)


def network_key(network):
    """Hash a network: its architecture and the bytes of its weights.

    Parameters
    ----------
    network : skstack.training.Network

    Returns
    -------
    str or None
        None where the architecture cannot be compared.
    """
    if network.blueprint.key is None:
        return None
    digest = hashlib.sha256(repr(network.blueprint.key).encode())
    for name, values in sorted(network.variables.items()):
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def estimator_key(value):
    """Describe an estimator by its class and all its parameters, at every depth.

    Parameters
    ----------
    value : estimator or parameter

    Returns
    -------
    hashable
        Equal for estimators that learn the same from the same data.

    Raises
    ------
    Unkeyable
        For an open seed, callbacks, and whatever cannot be compared by its content.
    """
    from skstack.training import Unknown, fingerprint, fingerprint_value

    if is_keras_model(value):
        return _model_key(value)
    if is_path(value) and os.path.isfile(value):
        with open(value, "rb") as file:
            return ("file", hashlib.file_digest(file, "sha256").hexdigest())
    if isinstance(value, FrozenEstimator):
        return ("frozen", _fitted_key(value.estimator))
    if type(value) in (list, tuple):
        return (type(value).__name__, tuple(estimator_key(item) for item in value))
    try:
        if isinstance(value, type) or not hasattr(value, "get_params"):
            return fingerprint_value(value)
        cls = type(value)
        if issubclass(cls, Recipe) and hasattr(cls, "function"):
            code = fingerprint(cls.function)
        elif cls.__module__.partition(".")[0] in _VERSIONED and "<" not in cls.__qualname__:
            code = (cls.__module__, cls.__qualname__)
        else:
            code = fingerprint(cls)
    except Unknown as reason:
        raise Unkeyable(str(reason)) from reason
    return ("estimator", code, _parameters_key(value))


def _parameters_key(estimator):
    described = []
    for name, value in sorted(estimator.get_params(deep=False).items()):
        if name == "random_state" and value is None:
            raise Unkeyable(f"random_state=None of {type(estimator).__name__}")
        if name == "callbacks" and value:
            raise Unkeyable(f"callbacks of {type(estimator).__name__}")
        learned = name in getattr(estimator, "_fitted_parameters", ())
        if learned and hasattr(value, "fit") and not is_keras_model(value):
            described.append((name, _fitted_key(value)))
            continue
        if name not in ("memory", "n_jobs", "verbose"):  # they do not change what is learned
            described.append((name, estimator_key(value)))
    return tuple(described)


def _fitted_key(estimator):
    """What an estimator has learned: its parameters alone do not tell what it gives."""
    try:
        return (type(estimator).__module__, type(estimator).__qualname__, data_key(estimator))
    except Exception as reason:  # whatever pickling may raise
        raise Unkeyable(f"{type(estimator).__name__}, which cannot be pickled") from reason


def _model_key(model):
    structure = architecture(model)
    if structure is None:
        raise Unkeyable(f"layers of {model.name!r} that are not Keras' own")
    compiled = model.get_compile_config() if getattr(model, "compiled", False) else None
    weights = hashlib.sha256(repr((structure, compiled)).encode())
    for variable in model.variables:
        weights.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return ("model", weights.hexdigest())
