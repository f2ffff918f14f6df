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

__all__ = [
    "check_archive",
    "config_of",
    "customs_of",
    "digest",
    "model_bytes",
    "names_in_archive",
    "names_in_config",
    "object_from_config",
    "read_model",
    "seeds_of",
    "set_seeds",
]

# What Keras writes for values, not for classes or functions.
_VALUES = ("__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__")
_BUILTINS = ("activations", "constraints", "initializers", "losses", "metrics", "optimizers",
             "regularizers")  # fmt: skip
_HOLD_FUNCTIONS = {f"keras.{room}" for room in (*_BUILTINS, "ops")}
# Layers that bring their code along, or read it from elsewhere.
_BRING_CODE = ("TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer")


@contextlib.contextmanager
def _quietly():
    from skstack.training import undisturbed

    with undisturbed(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
        warnings.filterwarnings("ignore", message="You are saving a model that has not yet been")
        warnings.filterwarnings("ignore", message="The object being serialized includes a `lambda`")
        warnings.filterwarnings("ignore", message="`compile\\(\\)` was not called")
        yield


def check_archive(content, name):
    """Refuse an archive inside the file that is larger when it is read than it is now."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        check_members(archive, len(content), name)


def check_members(archive, size, name):
    """Refuse members that are compressed, that overlap, or of which there are two.

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
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise ValueError(f"{name} holds two members of one name")


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
    """Names of what is not Keras' own in the bytes of a model; see ``names_in_config``."""
    check_archive(content, "a network")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return names_in_config(json.loads(archive.read("config.json")))


def names_in_config(config):
    """Names of classes and functions that are not Keras' own.

    Parameters
    ----------
    config : dict
        As Keras stores it.

    Returns
    -------
    set of str

    Raises
    ------
    ValueError
        If the config holds code: a lambda, or a layer that brings its code along.
    """
    if isinstance(config, list):
        return set().union(*map(names_in_config, config))
    if not isinstance(config, dict):
        return set()
    names = set().union(*map(names_in_config, config.values()))
    if "class_name" in config:
        name = _foreign_name(config)
        if name is not None:
            names.add(name)
    return names


def _foreign_name(config):
    kind, module = config["class_name"], config.get("module")
    registered, inner = config.get("registered_name"), config.get("config")
    if kind == "__lambda__" or (kind == "Lambda" and not _is_named(inner)):
        raise ValueError(
            "it holds a lambda (of a Lambda layer, say), whose code would have to be run; write "
            "it as a layer of its own, or with keras.ops"
        )
    if kind in _BRING_CODE:
        raise ValueError(f"it holds a {kind}, which runs code from elsewhere")
    if kind in _VALUES:
        return None
    if kind == "function":
        own = module == "builtins" and registered in (None, "function", inner)
        if own and _is_builtin(inner):
            return None
        own = module in _HOLD_FUNCTIONS and registered in (None, "function", inner)
        return None if own else str(inner)
    own = str(module).partition(".")[0] == "keras" and registered in (None, kind)
    return None if own else str(registered or kind)


def _is_named(inner):
    function = inner.get("function") if isinstance(inner, dict) else None
    return isinstance(function, dict) and function.get("class_name") == "function"


def _is_builtin(name):
    import keras

    return isinstance(name, str) and any(hasattr(getattr(keras, room), name) for room in _BUILTINS)


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

    with tempfile.TemporaryDirectory() as folder, _quietly():
        path = os.path.join(folder, "model.keras")
        with open(path, "wb") as file:
            file.write(content)
        return keras.models.load_model(path, custom_objects=customs, safe_mode=True)


def object_from_config(config, customs):
    """Make an optimizer, a loss or the like from a config that was looked through."""
    import keras

    with _quietly():
        return keras.saving.deserialize_keras_object(config, custom_objects=customs, safe_mode=True)
