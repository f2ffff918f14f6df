"""What must be known of a saved model before Keras reads it, and a limit while it does."""

from __future__ import annotations

import contextlib
import inspect
import math
import os
import zipfile

from skstack._model_files.config import look_through, parse
from skstack._model_files.container import (
    check_hdf5,
    check_members,
    check_vocabularies,
    hdf5_text,
    read_weights,
)

# Weights, moments of an optimizer, averages and sums of gradients: none takes more than this many
# times what the file holds; and metrics are made of nothing.
_TIMES = 8
_MARGIN = 2**22


def inspect_model(file, *, hdf5=False):
    """Look through a saved model before Keras reads it.

    Parameters
    ----------
    file : str or binary file
        A path, or the opened file.

    hdf5 : bool, default=False
        Whether it is an HDF5 file (.h5), or else a zip (.keras).

    Returns
    -------
    names : dict of str to str
        What is not Keras' own, and whether it is a "class" or a "function".

    n_bytes : int
        Bytes of the weights.

    Raises
    ------
    ValueError
        If something in it could run code of others, read or write other files, or take much more
        memory than it has bytes.
    """
    size = os.path.getsize(file) if isinstance(file, str) else file.seek(0, os.SEEK_END)
    if hdf5:
        return _inspect_hdf5(file, size)
    with zipfile.ZipFile(file) as archive:
        check_members(archive, size)
        names = look_through(parse(archive.read("config.json")))
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
        names = look_through(parse(config))
        training = hdf5_text(opened, "training_config")
        if training is not None:
            for name, kind in look_through(parse(training)).items():
                if names.setdefault(name, kind) != kind:
                    raise ValueError(f"{name!r} stands for a class and for a function")
    return names, n_bytes


def check_registered(names):
    """Refuse names that nothing was registered for in this process.

    Parameters
    ----------
    names : dict of str to str
        As ``inspect_model`` gives them.

    Raises
    ------
    ValueError
        If Keras would not find them, or find something of another kind.
    """
    unknown = sorted(name for name, kind in names.items() if not _is_registered(name, kind))
    if unknown:
        raise ValueError(
            f"its architecture holds {unknown}, which is not Keras' own; decorate classes and "
            "functions of yours with @keras.saving.register_keras_serializable(), and import "
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
    """Refuse variables that are much larger, all together, than the weights of a file.

    Parameters
    ----------
    n_bytes : int
        Bytes of the weights.

    Raises
    ------
    ValueError
        Before the first variable is made that goes beyond.
    """
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
        f"its architecture asks for much larger weights than the {n_bytes} bytes that it holds"
    )
    with tf.variable_creator_scope(create):
        yield
    if total > most:  # Keras goes on where a layer cannot be built
        raise ValueError(refusal)


def _size(value, dtype):
    """Bytes of a variable; None where that cannot be known before it is made."""
    import tensorflow as tf

    if inspect.isfunction(value):  # Keras gives one that is bound to the variable
        value = inspect.getclosurevars(value).nonlocals.get("self")
    if not hasattr(value, "shape"):
        return None
    return math.prod(value.shape) * tf.as_dtype(getattr(value, "dtype", dtype)).size
