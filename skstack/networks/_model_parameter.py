"""The parameter ``model``: a recipe, a ``keras.Model``, the path of a saved one, or None."""

from __future__ import annotations

import dataclasses
import inspect
import os
import warnings

from skstack._base.params import is_keras_model, is_network_estimator, is_path
from skstack._model_files.open import build_within, check_registered, inspect_model
from skstack.networks._adopted import ModelBlueprint
from skstack.networks._builder import BuilderBlueprint, BuilderRecipe
from skstack.networks._continued import check_continued, continued_estimator
from skstack.networks._recipe import Recipe, RecipeBlueprint

_SUFFIXES = (".keras", ".h5", ".hdf5")


def _is_recipe(value):
    return isinstance(value, Recipe) or (hasattr(value, "build") and hasattr(value, "get_params"))


def _check_path(path):
    """The path of an existing file as a string."""
    name = os.fspath(path)
    if not name.lower().endswith(_SUFFIXES):
        raise ValueError(
            f"model={name!r} is not a path to a saved Keras model; it must end with one of "
            f"{', '.join(_SUFFIXES)}."
        )
    if not os.path.isfile(name):
        raise ValueError(f"model={name!r}: the file does not exist.")
    return name


def load_model(path):
    """Load a saved ``keras.Model``, compiled if possible.

    Files that could run foreign code, read other files, or take much more memory than their size
    are refused before Keras reads them.
    """
    name = _check_path(path)
    import keras

    from skstack._training.seeds import preserve_rng

    n_bytes = _inspect(name)
    failure = None
    for compiled in (True, False):
        try:
            with preserve_rng(), warnings.catch_warnings(), build_within(n_bytes):
                # The settings of the optimizer are used, but not its state.
                warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
                model = keras.models.load_model(name, compile=compiled, safe_mode=True)
            if not isinstance(model, keras.Model):
                raise TypeError(f"it holds a {type(model).__name__}")
            return model
        except Exception as cause:  # Keras, h5py and zipfile raise many types
            failure = cause
    raise ValueError(
        f"model={name!r} holds no Keras model that can be loaded "
        f"({type(failure).__name__}: {failure})"
    ) from failure


def _inspect(name):
    """Check a saved model before Keras reads it; return the number of bytes of its weights."""
    try:
        names, n_bytes = inspect_model(name, hdf5=not name.lower().endswith(".keras"))
        check_registered(names)
    except ValueError as refusal:
        raise ValueError(
            f"model={name!r} was refused: {refusal}. If you trust the file, open it with "
            "keras.models.load_model and pass the model."
        ) from refusal
    except Exception as cause:
        raise ValueError(
            f"model={name!r} holds no Keras model that can be loaded "
            f"({type(cause).__name__}: {cause})"
        ) from cause
    return n_bytes


def check_model(model):
    """Check that a network can be built from ``model``."""
    if isinstance(model, type):
        if issubclass(model, Recipe):
            name = model.__name__
            raise TypeError(f"model is the recipe class {name}: pass {name}(), not {name}.")
    elif is_path(model):
        _check_path(model)
        return
    elif continued_estimator(model) is not None:
        check_continued(model)
        return
    elif model is None or is_keras_model(model) or _is_recipe(model):
        return
    elif is_network_estimator(model):
        name = type(model).__name__
        raise TypeError(
            f"model={name}(...) is an estimator. To continue training its network, fit it and pass "
            f"FrozenEstimator({name}(...)), which clone keeps fitted; to train a new one, pass its "
            "recipe."
        )
    elif inspect.isfunction(model):
        name = model.__name__
        raise TypeError(
            f"model is the function {name}: decorate it with @recipe from skstack.networks and "
            f"pass {name}(), with its parameters."
        )
    raise TypeError(
        f"model={model!r} must be a recipe, such as MLP(), a keras.Model, the path to a saved one "
        "(.keras, .h5), a FrozenEstimator of a fitted estimator of skstack, or None."
    )


def blueprint_for(model, spec, default, head=None):
    """The blueprint of a network estimator.

    ``default`` is the recipe for ``model=None``; ``head`` holds fields that replace those of the
    spec for a recipe, which builds its output from the spec.
    """
    check_model(model)
    if is_path(model):
        model = load_model(model)
    if is_keras_model(model):
        return ModelBlueprint(model, spec)
    if isinstance(model, BuilderRecipe):
        return BuilderBlueprint(model, spec)
    recipe = default if model is None else model
    return RecipeBlueprint(recipe, dataclasses.replace(spec, **(head or {})))
