"""What ``model=`` may be: nothing, a recipe, a ``keras.Model``, or the path to a saved one."""

from __future__ import annotations

import dataclasses
import inspect
import os
import warnings

from skstack._base.params import is_keras_model, is_path
from skstack._model_files.open import build_within, check_registered, inspect_model
from skstack.networks._adopted import ModelBlueprint
from skstack.networks._blueprints import RecipeBlueprint
from skstack.networks._builder import BuilderBlueprint, BuilderRecipe
from skstack.networks._continued import check_continued, continued_estimator
from skstack.networks._recipe import Recipe

_SUFFIXES = (".keras", ".h5", ".hdf5")


def _is_recipe(thing):
    return isinstance(thing, Recipe) or (hasattr(thing, "build") and hasattr(thing, "get_params"))


def _check_path(path):
    """The path as a string, of a file that exists."""
    name = os.fspath(path)
    if not name.lower().endswith(_SUFFIXES):
        raise ValueError(
            f"model={name!r} is no path to a saved Keras model; it must end with one of "
            f"{', '.join(_SUFFIXES)}."
        )
    if not os.path.isfile(name):
        raise ValueError(f"model={name!r}: there is no such file.")
    return name


def load_model(path):
    """Load a saved ``keras.Model``, compiled where that is possible.

    Parameters
    ----------
    path : str or os.PathLike
        A file that ends with .keras, .h5 or .hdf5.

    Returns
    -------
    keras.Model

    Raises
    ------
    ValueError
        If there is no such file, it holds no model that Keras can load, or it was refused before
        Keras read it: it names something that could run code of others, reads other files, or
        would take much more memory than it has bytes.
    """
    name = _check_path(path)
    import keras

    from skstack._training.seeds import preserve_rng

    n_bytes = _inspect(name)
    failure = None
    for compiled in (True, False):
        try:
            with preserve_rng(), warnings.catch_warnings(), build_within(n_bytes):
                # The optimizer's settings are used, its state is not.
                warnings.filterwarnings("ignore", message="Skipping variable loading for optimizer")
                model = keras.models.load_model(name, compile=compiled, safe_mode=True)
            if not isinstance(model, keras.Model):
                raise TypeError(f"it holds a {type(model).__name__}")
            return model
        except Exception as cause:  # Keras, h5py and zipfile raise whatever they like
            failure = cause
    raise ValueError(
        f"model={name!r} holds no Keras model that can be loaded "
        f"({type(failure).__name__}: {failure})"
    ) from failure


def _inspect(name):
    """Look through a saved model before Keras reads it; bytes of its weights."""
    try:
        names, n_bytes = inspect_model(name, hdf5=not name.lower().endswith(".keras"))
        check_registered(names)
    except ValueError as refusal:
        raise ValueError(
            f"model={name!r} was refused: {refusal}. If you know where the file comes from, open "
            "it with keras.models.load_model and pass the model."
        ) from refusal
    except Exception as cause:
        raise ValueError(
            f"model={name!r} holds no Keras model that can be loaded "
            f"({type(cause).__name__}: {cause})"
        ) from cause
    return n_bytes


def check_model(model):
    """Refuse what no network can be made of.

    Parameters
    ----------
    model : None, Recipe, keras.Model, FrozenEstimator, str or os.PathLike

    Raises
    ------
    TypeError
        If ``model`` is something else; for a class or a plain function the message says what to
        write.
    """
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
    elif hasattr(model, "_fit_in_context"):
        name = type(model).__name__
        raise TypeError(
            f"model={name}(...) is an estimator. To go on training its network, fit it and pass "
            f"FrozenEstimator({name}(...)), which no clone unfits; to start anew pass its recipe."
        )
    elif inspect.isfunction(model):
        name = model.__name__
        raise TypeError(
            f"model is the function {name}: decorate it with @recipe from skstack.networks and "
            f"pass {name}(), with its parameters."
        )
    raise TypeError(
        f"model={model!r} must be a recipe, such as MLP(), a keras.Model, the path to a saved one "
        "(.keras, .h5), a FrozenEstimator with a fitted one of skstack's estimators, or None."
    )


def blueprint_for(model, spec, default, head=None):
    """Make the blueprint of a network estimator.

    Parameters
    ----------
    model : None, Recipe, keras.Model, str or os.PathLike
        As the user gave it.

    spec : Spec
        What the network must do.

    default : Recipe
        Taken where ``model`` is None.

    head : dict, default=None
        Fields of the spec that a recipe, which makes its output by the spec, gets instead.

    Returns
    -------
    RecipeBlueprint, BuilderBlueprint or ModelBlueprint

    Raises
    ------
    TypeError
        If ``model`` is something else.

    ValueError
        If a path cannot be loaded, or a ``keras.Model`` does not fit the spec.
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
