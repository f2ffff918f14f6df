"""Networks as Keras stores them, checked before Keras reads them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import warnings
import zipfile

import numpy as np

from skstack._model_files.config import check_config
from skstack._model_files.container import check_members
from skstack._model_files.open import build_within, inspect_model


@contextlib.contextmanager
def _quietly():
    from skstack._training.isolation import preserve_rng

    with preserve_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
        warnings.filterwarnings("ignore", message="You are saving a model that has not yet been")
        warnings.filterwarnings("ignore", message="The object being serialized includes a `lambda`")
        warnings.filterwarnings("ignore", message="`compile\\(\\)` was not called")
        yield


def check_archive(content, name):
    """Raise for an archive inside the file that is compressed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        check_stored(archive, len(content), name)


def check_stored(archive, size, name):
    """Raise for compressed members, which are never written, besides all checks of archives."""
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError(f"{name} is compressed, which is not allowed")
    if sum(member.file_size for member in members) > size:
        raise ValueError(f"{name} declares more bytes than it has")
    check_members(archive, size)


# Writing -----------------------------------------------------------------------------------------


def model_bytes(model):
    """The bytes that ``model.save`` writes."""
    with tempfile.TemporaryDirectory() as folder, _quietly():
        path = os.path.join(folder, "model.keras")
        model.save(path)
        with open(path, "rb") as file:
            return file.read()


def seeds_of(model):
    """States of random layers, which Keras does not store, by the index of their variable."""
    return {
        index: np.asarray(variable.value)
        for index, variable in enumerate(model.variables)
        if "seed" in variable.path
    }


def digest(arrays):
    """SHA-256 of arrays in their order, with their dtypes and shapes."""
    result = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        result.update(f"{array.dtype} {array.shape} ".encode())
        result.update(array.tobytes())
    return result.hexdigest()


def set_seeds(model, seeds):
    """Restore the states of random layers."""
    variables = model.variables
    for index, value in seeds.items():
        variables[index].assign(value)


def config_of(obj):
    """Config of an optimizer, a loss or the like, as Keras stores it."""
    import keras

    with _quietly():
        return json.loads(json.dumps(keras.saving.serialize_keras_object(obj)))


# Reading -----------------------------------------------------------------------------------------


def names_in_archive(content):
    """Names of custom objects in the bytes of a model, after a check of the model."""
    check_archive(content, "a network")
    names, _ = inspect_model(io.BytesIO(content))
    return set(names)


def names_in_config(config):
    """Names of custom objects in the config of a loss or the like, after a check of it."""
    return set(check_config(config))


def read_model(content, customs):
    """Load a model from checked bytes in Keras' safe mode, with custom objects by name."""
    import keras

    names, n_bytes = inspect_model(io.BytesIO(content))
    _check_kinds(names, customs)
    with tempfile.TemporaryDirectory() as folder, _quietly(), build_within(n_bytes):
        path = os.path.join(folder, "model.keras")
        with open(path, "wb") as file:
            file.write(content)
        model = keras.models.load_model(path, custom_objects=customs, safe_mode=True)
    if not isinstance(model, keras.Model):
        raise ValueError(f"a network is a {type(model).__name__}, not a keras.Model")
    return model


def _check_kinds(names, customs):
    """Raise for a class in place of a function, and a function in place of a class."""
    for name, kind in names.items():
        if isinstance(customs.get(name), type) is not (kind == "class"):
            raise ValueError(f"{name!r} is used in a network as a {kind}, but is not one")


def object_from_config(config, customs):
    """Make an optimizer, a loss or the like from a checked config."""
    import keras

    _check_kinds(check_config(config), customs)
    with _quietly(), build_within(0):
        return keras.saving.deserialize_keras_object(config, custom_objects=customs, safe_mode=True)
