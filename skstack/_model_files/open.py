"""Check a saved model before Keras reads it, and limit its variables while it does."""

from __future__ import annotations

import contextlib
import inspect
import math
import os
import zipfile

from skstack._model_files.config import check_config, parse
from skstack._model_files.container import (
    check_hdf5,
    check_members,
    check_vocabularies,
    hdf5_text,
    read_weights,
)

# Weights and the state of an optimizer take at most this many times the bytes of the file; the
# margin is for metrics, which are not stored.
_TIMES = 8
_MARGIN = 2**22


def inspect_model(file, *, hdf5=False):
    """Check a saved model, given as path or open binary file; .keras, or .h5 with `hdf5`.

    Returns {name: "class" or "function"} of all that is not part of Keras, and the bytes of the
    weights.
    Raises ValueError if something in it could run code, read or write other files, or take much
    more memory than it has bytes.
    """
    size = os.path.getsize(file) if isinstance(file, str) else file.seek(0, os.SEEK_END)
    if hdf5:
        return _inspect_hdf5(file, size)
    with zipfile.ZipFile(file) as archive:
        check_members(archive, size)
        names = check_config(parse(archive.read("config.json")))
        check_vocabularies(archive)
        weights = read_weights(archive)
        return names, _weights_bytes(weights, len(weights.getbuffer()))


def _weights_bytes(file, size):
    import h5py

    with h5py.File(file, "r") as opened:
        return check_hdf5(opened, size)


def _inspect_hdf5(file, size):
    import h5py

    with h5py.File(file, "r") as opened:
        n_bytes = check_hdf5(opened, size)
        config = hdf5_text(opened, "model_config")
        if config is None:
            raise ValueError("it holds weights, but no architecture")
        names = check_config(parse(config))
        training = hdf5_text(opened, "training_config")
        if training is not None:
            for name, kind in check_config(parse(training)).items():
                if names.setdefault(name, kind) != kind:
                    raise ValueError(f"{name!r} names both a class and a function")
    return names, n_bytes


def check_registered(names):
    """Raise for names of `inspect_model` that are not registered with Keras in this process."""
    unknown = sorted(name for name, kind in names.items() if not _is_registered(name, kind))
    if unknown:
        raise ValueError(
            f"its architecture holds {unknown}, which are not Keras' own; decorate your classes "
            "and functions with @keras.saving.register_keras_serializable(), and import "
            "their module first"
        )


def _is_registered(name, kind):
    import keras

    result = keras.saving.get_registered_object(name)
    if kind == "class":
        return isinstance(result, type)
    if result is None:  # early versions of Keras 3 stored functions without their package
        registered = keras.saving.get_custom_objects().items()
        result = next((each for full, each in registered if full.endswith(f">{name}")), None)
    return callable(result) and not isinstance(result, type)


@contextlib.contextmanager
def build_within(n_bytes):
    """Raise before variables are made that are much larger than the weights in a file."""
    import tensorflow as tf

    most = _TIMES * n_bytes + _MARGIN
    total = 0

    def create(next_creator, **kwargs):
        nonlocal total
        size = _size(kwargs["initial_value"], kwargs.get("dtype"))
        total += size or 0
        if total > most:
            raise ValueError(refusal)
        variable = next_creator(**kwargs)
        total += _size(variable, None) if size is None else 0
        return variable

    refusal = (
        f"its architecture has much larger weights than the {n_bytes} bytes that the file holds"
    )
    with tf.variable_creator_scope(create):
        yield
    if total > most:  # Keras ignores errors while it builds layers
        raise ValueError(refusal)


def _size(value, dtype):
    """Bytes of a variable; None if unknown before it is made."""
    import tensorflow as tf

    if inspect.isfunction(value):  # Keras passes a closure over the variable
        value = inspect.getclosurevars(value).nonlocals.get("self")
    if not hasattr(value, "shape"):
        return None
    return math.prod(value.shape) * tf.as_dtype(getattr(value, "dtype", dtype)).size
