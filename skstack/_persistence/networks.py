"""Networks as Keras stores them, looked through before Keras reads them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import types
import warnings
import zipfile

import numpy as np

from skstack._model_files.config import look_through
from skstack._model_files.container import check_members
from skstack._model_files.open import build_within, inspect_model


@contextlib.contextmanager
def _quietly():
    from skstack._training.seeds import preserve_rng

    with preserve_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
        warnings.filterwarnings("ignore", message="You are saving a model that has not yet been")
        warnings.filterwarnings("ignore", message="The object being serialized includes a `lambda`")
        warnings.filterwarnings("ignore", message="`compile\\(\\)` was not called")
        yield


def check_archive(content, name):
    """Refuse an archive inside the file that is larger when it is read than it is now."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        check_stored(archive, len(content), name)


def check_stored(archive, size, name):
    """Refuse members that are compressed, besides all that is refused in any archive.

    Raises
    ------
    ValueError
        If there are any: nothing that skstack, Keras or skops writes has such.
    """
    members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError(f"{name} is compressed, which nothing in such a file is")
    if sum(member.file_size for member in members) > size:
        raise ValueError(f"{name} promises more bytes than it has")
    check_members(archive, size)


# Writing -----------------------------------------------------------------------------------------


def model_bytes(model):
    """What ``model.save`` writes."""
    with tempfile.TemporaryDirectory() as folder, _quietly():
        path = os.path.join(folder, "model.keras")
        model.save(path)
        with open(path, "rb") as file:
            return file.read()


def seeds_of(model):
    """States of random layers, which Keras does not store, by the place of their variable."""
    return {
        place: np.asarray(variable.value)
        for place, variable in enumerate(model.variables)
        if "seed" in variable.path
    }


def digest(arrays):
    """SHA-256 of arrays in their order, dtypes and shapes among it."""
    found = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        found.update(f"{array.dtype} {array.shape} ".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def set_seeds(model, seeds):
    """Put these states back."""
    variables = model.variables
    for place, value in seeds.items():
        variables[place].assign(value)


def config_of(thing):
    """Config of an optimizer, a loss or the like, as Keras stores it."""
    import keras

    with _quietly():
        return json.loads(json.dumps(keras.saving.serialize_keras_object(thing)))


def customs_of(thing):
    """Classes and functions that are not Keras' own, by the name that Keras stores."""
    import keras

    found, seen, kept = {}, set(), []

    def look(part):
        if id(part) in seen or isinstance(part, (str, bytes, int, float, np.ndarray, type(None))):
            return
        seen.add(id(part))
        kept.append(part)  # so that no other object gets its id
        if isinstance(part, types.FunctionType):
            if part.__module__.partition(".")[0] != "keras":
                found[keras.saving.get_registered_name(part)] = part
        elif isinstance(part, (list, tuple, set, frozenset)):
            for each in part:
                look(each)
        elif isinstance(part, dict):
            for each in part.values():
                look(each)
        elif hasattr(part, "get_config") or type(part).__module__.partition(".")[0] == "keras":
            if type(part).__module__.partition(".")[0] != "keras":
                found[keras.saving.get_registered_name(type(part))] = type(part)
            for each in list(getattr(part, "__dict__", {}).values()):
                look(each)

    look(thing)
    return found


# Reading -----------------------------------------------------------------------------------------


def names_in_archive(content):
    """Names of what is not Keras' own in the bytes of a model that was looked through."""
    check_archive(content, "a network")
    names, _ = inspect_model(io.BytesIO(content))
    return set(names)


def names_in_config(config):
    """Names of what is not Keras' own in the config of an optimizer, a loss or the like."""
    return set(look_through(config))


def read_model(content, customs):
    """Load a model from its bytes, in Keras' safe mode.

    Parameters
    ----------
    content : bytes
        That ``names_in_archive`` has looked through.

    customs : dict of str to class or function
        By the names that were found.

    Returns
    -------
    keras.Model
    """
    import keras

    names, n_bytes = inspect_model(io.BytesIO(content))
    _check_kinds(names, customs)
    with tempfile.TemporaryDirectory() as folder, _quietly(), build_within(n_bytes):
        path = os.path.join(folder, "model.keras")
        with open(path, "wb") as file:
            file.write(content)
        model = keras.models.load_model(path, custom_objects=customs, safe_mode=True)
    if not isinstance(model, keras.Model):
        raise ValueError(f"a network is a {type(model).__name__}")
    return model


def _check_kinds(names, customs):
    """Refuse a class where a function is meant, and a function where a class is."""
    for name, kind in names.items():
        if isinstance(customs.get(name), type) is not (kind == "class"):
            raise ValueError(f"{name!r} stands in a network for a {kind}, and is none")


def object_from_config(config, customs):
    """Make an optimizer, a loss or the like from a config that was looked through."""
    import keras

    _check_kinds(look_through(config), customs)
    with _quietly(), build_within(0):
        return keras.saving.deserialize_keras_object(config, custom_objects=customs, safe_mode=True)
