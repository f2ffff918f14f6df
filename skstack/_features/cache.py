"""Caches of features and fits, keyed by content, never by paths, names or ids."""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import platform
import warnings
from importlib.metadata import version

import joblib
import numpy as np
from sklearn import get_config
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_memory

from skstack._base.lru_cache import LRUCache
from skstack._base.params import is_keras_model, is_path
from skstack._base.progress import report
from skstack._base.sklearn import BESIDE_PARAMETERS
from skstack.networks._cloning import architecture
from skstack.networks._recipe import Recipe

_PACKAGES = (
    "imbalanced-learn", "joblib", "keras", "narwhals", "numpy", "pandas", "scikit-learn", "scipy",
    "skstack", "tensorflow",
)  # fmt: skip
# Packages that are identified by their version; of all other classes the code is hashed.
_VERSIONED = {"imblearn", "keras", "numpy", "scipy", "skstack", "sklearn", "tensorflow"}


class Unkeyable(Exception):
    """A result that is random, or whose content cannot be compared."""


@functools.cache
def versions():
    """Versions of packages on which results depend."""
    return (platform.python_version(), *(f"{name}={version(name)}" for name in _PACKAGES))


def data_key(*data):
    """Hash tables, targets and other data: values, shapes, dtypes, names, categories."""
    return joblib.hash(data, hash_name="sha1", coerce_mmap=True)


def network_key(network):
    """Hash the architecture and weights of a network; None if they cannot be compared."""
    if network.blueprint.key is None:
        return None
    digest = hashlib.sha256(repr(network.blueprint.key).encode())
    for name, values in sorted(network.variables.items()):
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def estimator_key(value):
    """A hashable key of an estimator's class and parameters; raises Unkeyable."""
    from skstack._training.fingerprint import Unknown, fingerprint, fingerprint_value

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
    beside = [repr(getattr(value, name, None)) for name in BESIDE_PARAMETERS]
    return ("estimator", code, _parameters_key(value), *beside)


def settings_key():
    """Global settings of scikit-learn and Keras that change what is learned."""
    from skstack._training.isolation import environment

    config = get_config()
    return (config["transform_output"], config["enable_metadata_routing"], environment())


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
    """Key of a fitted state, because parameters alone do not determine the outputs."""
    try:
        return (type(estimator).__module__, type(estimator).__qualname__, data_key(estimator))
    except Exception as reason:  # pickling may raise anything
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


RECENT_BYTES = 256 * 2**20
MANY_ROWS = 10_000
FOLDER_BYTES = 2 * 2**30


class _ArrayCache(LRUCache):
    """An LRU cache of lists of arrays, up to a number of bytes."""

    def __init__(self, bytes_limit=RECENT_BYTES):
        super().__init__(bytes_limit, size_of=_n_bytes, largest=bytes_limit // 4)

    def get(self, key, make):
        """Arrays of `key`; read-only if they are cached, because others receive them, too."""

        def read_only():
            arrays = make()
            if self.keeps(_n_bytes(arrays)):
                for array in arrays:
                    array.setflags(write=False)
            return arrays

        return list(super().get(key, read_only))


def _n_bytes(arrays):
    return sum(array.nbytes for array in arrays)


FROZEN = _ArrayCache()


class CachedNetwork:
    """A frozen network whose outputs for the same inputs are computed once."""

    def __init__(self, network, memory=None):
        self.network = network
        self.memory = memory
        self.key = network_key(network)

    blueprint = property(lambda self: self.network.blueprint)
    variables = property(lambda self: self.network.variables)
    build = property(lambda self: self.network.build)
    public = property(lambda self: self.network.public)

    def changed(self, variables):
        """Result of ``Network.changed``, cached separately."""
        return CachedNetwork(self.network.changed(variables), self.memory)

    def outputs(self, inputs, layers=None, rows_at_once=None, pooling=None):
        """Result of ``Network.outputs``."""
        settings = {"layers": layers, "rows_at_once": rows_at_once, "pooling": pooling}

        def compute():
            return self.network.outputs(inputs, **settings)

        if self.key is None or (self.memory is None and self._too_large(inputs, settings)):
            return compute()
        parts = (self.key, data_key(inputs), *settings.values())
        return FROZEN.get(parts, lambda: cached(self.memory, lambda: parts, compute))

    def _too_large(self, inputs, settings):
        """Whether outputs would not be cached, so that hashing can be skipped."""
        n_rows = len(next(iter(inputs.values())))
        if n_rows < MANY_ROWS:
            return False
        first = {name: array[:1] for name, array in inputs.items()}
        row = sum(array.nbytes for array in self.network.outputs(first, **settings))
        return not FROZEN.keeps(row * n_rows)


def stored_key(parts):
    """A short name of a key of numbers, strings and tuples, with the package versions."""
    return hashlib.sha256(repr((versions(), parts)).encode()).hexdigest()


def cached(memory, describe, compute, *, verbose=0):
    """Return a stored result, or compute and store it.

    ``describe`` returns the parts of the key, or raises ``Unkeyable``: then nothing is stored. The
    result is a new object in each call, so that changing it affects no other caller.
    """
    if memory is None:
        return compute()
    try:
        key = stored_key(describe())
    except Unkeyable as reason:
        if verbose:
            report(f"memory={memory!r} is not used: {reason}")
        return compute()
    folder = check_memory(os.fspath(memory) if hasattr(memory, "__fspath__") else memory)
    fresh = []

    def computed():
        fresh.append(compute())
        return _sealed(fresh[0])

    call = folder.cache(_entry, ignore=["compute"])
    try:
        with warnings.catch_warnings():
            # joblib recomputes what it cannot load, with a warning.
            warnings.filterwarnings("ignore", message="Exception while loading results")
            sealed = call(key, computed)
            if not fresh:
                known, result = _opened(sealed)
                if known:
                    return result
                # joblib could load the entry, but its content is damaged.
                call.call(key, computed)
    except _Unpicklable as reason:
        if verbose:
            report(f"memory={memory!r} is not used: {reason}")
        return fresh[0]
    if isinstance(memory, str) or hasattr(memory, "__fspath__"):
        folder.reduce_size(bytes_limit=FOLDER_BYTES)
    return fresh[0]


def _entry(key, compute):
    return compute()


class _Unpicklable(Exception):
    """A result that cannot be stored."""


def _sealed(result):
    try:
        content = pickle.dumps(result, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as reason:  # objects may raise anything
        raise _Unpicklable(f"{type(reason).__name__}: {reason}") from reason
    return np.frombuffer(hashlib.sha256(content).digest() + content, dtype=np.uint8)


def _opened(sealed):
    """(whether the seal is intact, the result)."""
    try:
        content = np.asarray(sealed, dtype=np.uint8).tobytes()
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            return False, None
        return True, pickle.loads(content[32:])
    except Exception:  # a damaged entry may be anything
        return False, None
