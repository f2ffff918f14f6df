"""The parameter ``model``: a recipe, a ``keras.Model``, the path of a saved one, or None."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import os
import re
import warnings
from numbers import Real

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from skstack._base.params import is_keras_model, is_network_estimator, is_path
from skstack._base.tensorflow_import import import_tensorflow
from skstack._model_files.open import build_within, check_registered, inspect_model
from skstack.networks._adopted import ModelBlueprint, refuse_strings
from skstack.networks._builder import BuilderBlueprint, BuilderRecipe
from skstack.networks._cloning import is_graph
from skstack.networks._recipe import Recipe, RecipeBlueprint

_SUFFIXES = (".keras", ".h5", ".hdf5")


def _is_recipe(value):
    return isinstance(value, Recipe) or (hasattr(value, "build") and hasattr(value, "get_params"))


def check_path(path):
    """The path of an existing file as a string."""
    name = os.fspath(path)
    if not name.lower().endswith(_SUFFIXES):
        hint = ""
        if name == "passthrough":
            hint = " A stack hands columns of X on with its parameter `passthrough`."
        raise ValueError(
            f"model={name!r} is not a path to a saved Keras model; it must end with one of "
            f"{', '.join(_SUFFIXES)}.{hint}"
        )
    if not os.path.isfile(name):
        raise ValueError(f"model={name!r}: the file does not exist.")
    return name


def load_model(path):
    """Load a saved ``keras.Model``, compiled if possible.

    Files that could run foreign code, read other files, or take much more memory than their size
    are refused before Keras reads them.
    """
    name = check_path(path)
    import_tensorflow()
    import keras

    from skstack._training.isolation import preserve_rng

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
        check_path(model)
        return
    elif continued_estimator(model) is not None:
        check_continued(model)
        return
    elif is_keras_model(model):
        refuse_strings(model)
        return
    elif model is None or _is_recipe(model):
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


# Parameters for the columns with their defaults: those of the fitted network are kept.
COLUMN_PARAMETERS = {
    "categorical_features": "from_dtype",
    "inputs": None,
    "input_shape": None,
    "n_hash_buckets": None,
    "imputer": None,
}
_CATEGORIES = re.compile(r"_categories_([0-9a-f]{12})$")


def continued_estimator(model):
    """The fitted estimator whose network is to be continued; None if ``model`` is not frozen."""
    return model.estimator if isinstance(model, FrozenEstimator) else None


def check_continued(model):
    """Check that a ``FrozenEstimator`` holds a fitted network estimator of skstack."""
    inner = model.estimator
    name = type(inner).__name__
    if not is_network_estimator(inner):
        advice = ""
        if hasattr(inner, "steps"):
            advice = (
                " Freeze the steps separately: make_pipeline(FrozenEstimator(earlier steps), "
                "KerasClassifier(FrozenEstimator(network)))."
            )
        raise TypeError(
            f"model=FrozenEstimator({name}(...)) must hold a fitted KerasClassifier, "
            f"KerasRegressor, KerasMultiTask or KerasAutoencoder.{advice}"
        )
    if hasattr(inner, "bags_"):
        raise ValueError(
            f"model=FrozenEstimator({name}(...)) has n_bags={len(inner.bags_)}: there is no single "
            "network to continue. Pass one of its bags_."
        )
    if not hasattr(inner, "network_"):
        raise NotFittedError(
            f"model=FrozenEstimator({name}(...)): this {name} is not fitted, so it has no network "
            "to continue. Fit it first, or pass its recipe."
        )


def _described(task, n_outputs):
    if task == "multitask":
        heads = [f"{head.name!r}: {_described(head.task, head.n_outputs)}" for head in n_outputs]
        return f"the targets {{{', '.join(heads)}}}"
    classes = {"binary": "2 classes", "multiclass": f"{n_outputs} classes"}
    return classes.get(task, f"{n_outputs} outputs ({task})")


def check_continues(estimator, origin, X):
    """Check that X and y fit the network of ``origin``; warn if the distribution of X differs.

    The columns and targets of ``estimator`` are known, but it is not trained yet.
    """
    label = f"model=FrozenEstimator({type(origin).__name__}(...))"
    _check_columns(estimator, origin, label)
    task, fitted_task = estimator._task(), origin._task()
    if task != fitted_task:
        raise ValueError(
            f"{label} was fitted on {_described(*fitted_task)}, but y has {_described(*task)}, so "
            "its network cannot be continued. To use its inner layers as features, see "
            "KerasFeatureTransformer(FrozenEstimator(...), layers=...)."
        )
    _check_classes(estimator, origin, label)
    for parameter, default in COLUMN_PARAMETERS.items():
        value, fitted_value = getattr(estimator, parameter), getattr(origin.blocks_, parameter)
        is_default = type(value) is type(default) and value == default
        if not is_default and repr(value) != repr(fitted_value):
            raise ValueError(
                f"{parameter}={value!r}, but {label} was fitted with {parameter}={fitted_value!r}, "
                "which is kept. Leave it out here."
            )
    _warn_of_unknown(estimator.blocks_, X, label)
    origin.input_profile_.warn_if_moved(X)


def _check_columns(estimator, origin, label):
    if estimator.n_features_in_ != origin.n_features_in_:
        raise ValueError(
            f"X has {estimator.n_features_in_} features, but {label} was fitted on "
            f"{origin.n_features_in_}."
        )
    names, fitted_names = (getattr(each, "feature_names_in_", None) for each in (estimator, origin))
    if names is None or fitted_names is None:
        return
    different = np.flatnonzero(names != fitted_names)[:5]
    if different.size:
        raise ValueError(
            f"X has the columns {names[different].tolist()} where {label} was fitted on "
            f"{fitted_names[different].tolist()}. It needs the same columns in the same order."
        )


def _check_classes(estimator, origin, label):
    """Check that common labels belong to the same units; new labels follow in sorted order."""
    classes, fitted = (getattr(each, "classes_", {}) for each in (estimator, origin))
    if not isinstance(classes, dict):
        _check_labels(classes, fitted, label)
        return
    for target, of_origin in zip(classes, fitted.values(), strict=True):
        _check_labels(classes[target], of_origin, f"{label}, target {target!r},")


def _check_labels(classes, fitted, label):
    classes, fitted = classes.tolist(), fitted.tolist()
    common = [each for each in classes if each in fitted]
    swapped = [each for each in common if classes.index(each) != fitted.index(each)]
    if swapped:
        raise ValueError(
            f"{label} was fitted on the classes {fitted}, and y holds {classes}: the output for "
            f"{fitted[classes.index(swapped[0])]!r} would become that for {swapped[0]!r}. Rename "
            "the labels so that common ones have the same position in sorted order."
        )


def _warn_of_unknown(blocks, X, label):
    categorical = [block.name for block in blocks.blocks_ if block.kind == "categorical"]
    if not categorical:
        return
    arrays = blocks.split(X)
    unknown = [name for name in categorical if not (arrays[name] > 0).any()]
    if unknown:
        warnings.warn(
            f"The columns {[blocks.columns_[name][0] for name in unknown]} of X hold no category "
            f"that {label} was fitted on, such as {blocks.categories_[unknown[0]][:3]} in the "
            "first of them: all values are treated as unseen. Is their spelling different?",
            UserWarning,
            stacklevel=2,
        )


def _digest(categories):
    """Hash of categories and their codes; numbers compare by value, as in ``ColumnBlocks``."""
    plain = [
        (name, [float(level) if isinstance(level, Real) else str(level) for level in levels])
        for name, levels in sorted(categories.items())
    ]
    return hashlib.sha256(repr(plain).encode()).hexdigest()[:12]


def named_after_categories(model, categories):
    """The model with a hash of its categories in its name, which saving keeps.

    A model without categories, or of a custom class, is returned unchanged.
    """
    import keras

    if not categories or not is_graph(model):
        return model
    name = f"{_CATEGORIES.sub('', model.name)}_categories_{_digest(categories)}"
    return keras.Model(model.input, model.output, name=name)


def check_categories(model, categories):
    """Refuse an exported network of skstack that was fitted on other categories."""
    match = _CATEGORIES.search(model.name)
    if match and match[1] != _digest(categories):
        raise ValueError(
            f"model={model.name!r} was fitted on other categories than those of X, so their codes "
            "differ. Pass the fitted estimator that it came from, which holds its categories: "
            "FrozenEstimator(estimator)."
        )
