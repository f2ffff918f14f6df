"""Private copies of a user's ``keras.Model``, and what tells two of them apart.

Nothing here trains, compiles or builds the user's own object.
"""

from __future__ import annotations

import inspect
import json
import types
import warnings

_FUNCTIONS = ("function", "__lambda__")
_STEPS = ("train_step", "test_step", "compute_loss", "compute_metrics")


def is_builtin_keras(thing):
    """Whether the class of ``thing`` comes with Keras."""
    return type(thing).__module__.partition(".")[0] == "keras"


def is_graph(model):
    """Whether a model is known as a graph of layers: functional, or a built ``Sequential``."""
    calls_graph = getattr(type(model).call, "__module__", "").partition(".")[0] == "keras"
    plain = calls_graph and not has_own_steps(model)
    return plain and bool(model.built) and bool(getattr(model, "inputs", None))


def has_own_steps(model):
    """Whether a model's class trains in its own way."""
    return any(
        getattr(type(model), step).__module__.partition(".")[0] != "keras" for step in _STEPS
    )


def as_graph(model):
    """Return the same layers as a functional model without compile state.

    ``clone_model`` would compile its copy, which fails for a loss that is not registered.
    """
    import keras

    return keras.Model(model.inputs, model.outputs, name=model.name)


def _is_foreign_function(thing):
    home = getattr(thing, "__module__", None) or ""
    return isinstance(thing, types.FunctionType) and home.partition(".")[0] != "keras"


def _config(layer):
    """Config of a layer or model, its functions as they are; a lambda in it is no news."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The object being serialized includes a `lambda`")
        config = layer.get_config()
    for name in config:
        own = getattr(layer, name, None)
        if _is_foreign_function(own):
            config[name] = own
    return config


def _refuse(model, cause):
    raise ValueError(
        f"model={model.name!r} of class {type(model).__name__} cannot be copied, and skstack never "
        f"trains the object that it was given ({type(cause).__name__}: {cause}). Give its class "
        "(and the classes of its layers) a get_config that holds all arguments of the constructor, "
        "or write it as a recipe."
    ) from cause


def _copied_layer(layer):
    """Copy one layer without its weights; models inside models too."""
    import keras

    if isinstance(layer, keras.Model):
        if isinstance(layer, keras.Sequential) and is_builtin_keras(layer) and not layer.built:
            return keras.Sequential(list(map(_copied_layer, layer.layers)), name=layer.name)
        if not is_graph(layer):
            return copied_object(layer)
        if isinstance(layer, keras.Sequential):
            graph = keras.Model(layer.inputs[0], layer.outputs[0], name=layer.name)
        else:
            graph = keras.Model(layer.input, layer.output, name=layer.name)
        return keras.models.clone_model(graph, clone_function=_copied_layer)
    if isinstance(layer, keras.layers.Lambda):
        # Its config holds marshalled bytecode, which loses the closure.
        config = _config(layer)
        return keras.layers.Lambda(
            layer.function,
            arguments=layer.arguments,
            mask=layer.mask,
            name=layer.name,
            dtype=layer.dtype_policy,
            trainable=layer.trainable,
            output_shape=None
            if isinstance(config.get("output_shape"), dict)
            else config.get("output_shape"),
        )
    config = _config(layer)
    if isinstance(layer, (keras.layers.StringLookup, keras.layers.IntegerLookup)):
        # What `adapt` has learned stands in no config and no weight.
        config["vocabulary"] = layer.get_vocabulary(include_special_tokens=False)
    return layer.__class__.from_config(config)


def _refuse_adapted(model):
    """Layers that were adapted to data hold what a template would lose."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.built:
            raise ValueError(
                f"model={model.name!r} is unbuilt, a template that gets new weights in each fit, "
                f"but its layer {layer.name!r} was adapted to data, which would be lost. Begin the "
                "model with keras.Input(...), which builds it, or leave the layer out: recipes "
                "standardise by themselves."
            )


def copied_graph(model, inputs):
    """Copy a graph model onto new inputs, layer by layer.

    Parameters
    ----------
    model : keras.Model
        Functional, or a ``Sequential``, built or not.

    inputs : list of keras.KerasTensor
        In the order of the model's own.

    Returns
    -------
    list of keras.KerasTensor
        The outputs. The weights are those of the model, or new ones where it was unbuilt.
    """
    import keras

    if not is_graph(model):
        _refuse_adapted(model)
    try:
        if not is_graph(model):
            outputs = inputs[0]
            for layer in model.layers:
                outputs = _copied_layer(layer)(outputs)
            return [outputs]
        graph = as_graph(model)
        copied = keras.models.clone_model(
            graph, input_tensors=list(inputs), clone_function=_copied_layer
        )
    except (TypeError, ValueError, NotImplementedError, AttributeError) as cause:
        _refuse(model, cause)
    copy_weights(graph, copied, model)
    return list(copied.outputs)


def _classes(model):
    found = {type(model).__name__: type(model)}
    for layer in getattr(model, "layers", ()):
        if not is_builtin_keras(layer) or hasattr(layer, "layers"):
            found.update(_classes(layer))
    return {name: cls for name, cls in found.items() if cls.__module__.partition(".")[0] != "keras"}


def _refuse_forgotten_arguments(model):
    """Keras fills in the config of a model that has none of its own with defaults."""
    cls = type(model)
    if cls.get_config.__module__.partition(".")[0] != "keras":
        return
    usual = {"self", "args", "kwargs", "inputs", "outputs", "name", "trainable", "dtype", "layers"}
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    own = [
        name
        for name, parameter in inspect.signature(cls.__init__).parameters.items()
        if name not in usual and parameter.kind not in variadic
    ]
    if own:
        raise NotImplementedError(f"it has no get_config that holds {', '.join(own)}")


def copied_object(model):
    """Copy a model of a class that is not Keras' own through its config; weights come later."""
    import keras

    try:
        _refuse_forgotten_arguments(model)
        cls = type(model)
        config = {
            "module": cls.__module__,
            "class_name": cls.__name__,
            "registered_name": keras.saving.get_registered_name(cls),
            "config": keras.saving.serialize_keras_object(_config(model)),
        }
        if model.built:
            config["build_config"] = model.get_build_config()
        copied = keras.saving.deserialize_keras_object(
            config, custom_objects=_classes(model), safe_mode=False
        )
    except (TypeError, ValueError, NotImplementedError, AttributeError, KeyError) as cause:
        _refuse(model, cause)
    if type(copied) is not type(model):
        _refuse(model, TypeError(f"its config makes a {type(copied).__name__}"))
    return copied


def copy_weights(source, target, model):
    """Assign all variables, states of seeds too; refuse where the copy has others."""
    from skstack._training.normalization import settle_normalizations

    ours = [tuple(variable.shape) for variable in target.variables]
    theirs = [tuple(variable.shape) for variable in source.variables]
    if ours != theirs:
        _refuse(model, ValueError(f"its copy has variables of shapes {ours}, not {theirs}"))
    for variable, value in zip(target.variables, source.variables, strict=True):
        variable.assign(value)
    settle_normalizations(target)


class _NotKerases(Exception):
    pass


def _refuse_foreign(layer, seen):
    """Refuse layers that are not Keras' own, or hold functions that are not."""
    import keras

    if id(layer) in seen:
        return
    seen.add(id(layer))
    if not is_builtin_keras(layer) or isinstance(layer, keras.layers.Lambda):
        raise _NotKerases
    lookups = (keras.layers.StringLookup, keras.layers.IntegerLookup)
    if isinstance(layer, lookups) and layer.get_config()["vocabulary"] is None:
        raise _NotKerases  # adapted: what it knows stands in no config
    for value in [*vars(layer).values(), *getattr(layer, "layers", ())]:
        if _is_foreign_function(value):
            raise _NotKerases
        if isinstance(value, keras.layers.Layer):
            _refuse_foreign(value, seen)


def _plain(config):
    """Leave compile state out of a config; refuse foreign objects in it."""
    if isinstance(config, dict):
        module = config.get("module", None if "registered_name" in config else "keras")
        if str(module).partition(".")[0] != "keras" or config.get("class_name") in _FUNCTIONS:
            raise _NotKerases
        return {key: _plain(value) for key, value in config.items() if key != "compile_config"}
    if isinstance(config, (list, tuple)):
        return [_plain(value) for value in config]
    if not isinstance(config, (str, int, float, bool, type(None))):
        raise _NotKerases
    return config


def architecture(model):
    """Return a text that two models share only if they compute the same function of weights.

    Returns
    -------
    str or None
        None where that cannot be known: a class, a layer or a function that is not Keras' own.
    """
    import keras

    # Layers keep their names, automatic ones too: weights and `layers=` are found by them.
    try:
        _refuse_foreign(model, set())
        config = keras.saving.serialize_keras_object(model.get_config())
        config.pop("name", None)
        config = _plain({"class_name": type(model).__name__, "config": config})
    except (_NotKerases, TypeError, ValueError, NotImplementedError, AttributeError):
        return None
    flags = [
        (list(variable.shape), str(variable.dtype), bool(variable.trainable))
        for variable in model.variables
    ]
    return json.dumps([config, flags], sort_keys=True)
