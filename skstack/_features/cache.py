"""When is what an upstream makes the same? Keys of content: never of paths, names or addresses."""

# What was computed before: features of frozen networks in memory, fits and features on disk.

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
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_memory

from skstack._base.lru_cache import LRUCache
from skstack._base.params import is_keras_model, is_path
from skstack.networks._cloning import architecture
from skstack.networks._recipe import Recipe

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
    network : Network

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


RECENT_BYTES = 256 * 2**20
MANY_ROWS = 10_000
FOLDER_BYTES = 2 * 2**30


class _ArrayCache(LRUCache):
    """Lists of arrays that were used last, up to a number of bytes."""

    def __init__(self, bytes_limit=RECENT_BYTES):
        super().__init__(bytes_limit, size_of=_n_bytes, largest=bytes_limit // 4)

    def get(self, key, make):
        """Arrays of `key`; read-only where they are kept, because others get them too."""

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
    """A frozen network whose outputs for the same inputs are computed once.

    Parameters
    ----------
    network : Network

    memory : as in recalled
    """

    def __init__(self, network, memory=None):
        self.network = network
        self.memory = memory
        self.key = network_key(network)

    blueprint = property(lambda self: self.network.blueprint)
    variables = property(lambda self: self.network.variables)
    build = property(lambda self: self.network.build)
    public = property(lambda self: self.network.public)

    def changed(self, variables):
        """What ``Network.changed`` gives, remembered apart."""
        return CachedNetwork(self.network.changed(variables), self.memory)

    def outputs(self, inputs, layers=None, rows_at_once=None, pooling=None):
        """What ``Network.outputs`` gives."""
        settings = {"layers": layers, "rows_at_once": rows_at_once, "pooling": pooling}

        def compute():
            return self.network.outputs(inputs, **settings)

        if self.key is None or (self.memory is None and self._too_large(inputs, settings)):
            return compute()
        parts = (self.key, data_key(inputs), *settings.values())
        return FROZEN.get(parts, lambda: cached(self.memory, lambda: parts, compute))

    def _too_large(self, inputs, settings):
        """Whether outputs would not be kept: then the time for their key is saved."""
        n_rows = len(next(iter(inputs.values())))
        if n_rows < MANY_ROWS:
            return False
        first = {name: array[:1] for name, array in inputs.items()}
        row = sum(array.nbytes for array in self.network.outputs(first, **settings))
        return not FROZEN.keeps(row * n_rows)


def stored_key(parts):
    """Make a short name of a key, with the versions that results depend on.

    Parameters
    ----------
    parts : hashable
        Of numbers, strings and tuples of such.

    Returns
    -------
    str
    """
    return hashlib.sha256(repr((versions(), parts)).encode()).hexdigest()


def cached(memory, describe, compute, *, verbose=0):
    """Give a result that is stored, or compute and store it.

    Parameters
    ----------
    memory : None, str or object with the interface of joblib.Memory

    describe : callable
        Gives the parts of the key; may raise ``Unkeyable``, and then nothing is stored.

    compute : callable
        Gives the result, which is stored as a pickle.

    verbose : int, default=0
        Above 0, it is said why something is not stored.

    Returns
    -------
    object
        New ones in each call, so that nobody can change those of others.
    """
    if memory is None:
        return compute()
    try:
        key = stored_key(describe())
    except Unkeyable as reason:
        if verbose:
            print(f"memory={memory!r} is not used: {reason}")
        return compute()
    folder = check_memory(os.fspath(memory) if hasattr(memory, "__fspath__") else memory)
    fresh = []

    def computed():
        fresh.append(compute())
        return _sealed(fresh[0])

    call = folder.cache(_entry, ignore=["compute"])
    try:
        with warnings.catch_warnings():
            # What joblib cannot load it computes anew, and warns.
            warnings.filterwarnings("ignore", message="Exception while loading results")
            sealed = call(key, computed)
            if not fresh:
                known, result = _opened(sealed)
                if known:
                    return result
                # Believed by joblib, but not what was written.
                call.call(key, computed)
    except _Unpicklable as reason:
        if verbose:
            print(f"memory={memory!r} is not used: {reason}")
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
    except Exception as reason:  # pickle raises whatever the objects raise
        raise _Unpicklable(f"{type(reason).__name__}: {reason}") from reason
    return np.frombuffer(hashlib.sha256(content).digest() + content, dtype=np.uint8)


def _opened(sealed):
    """(whether the seal is whole, the result)."""
    try:
        content = np.asarray(sealed, dtype=np.uint8).tobytes()
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            return False, None
        return True, pickle.loads(content[32:])
    except Exception:  # a damaged entry may be anything
        return False, None
