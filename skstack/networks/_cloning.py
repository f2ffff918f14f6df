"""Copies of a user's ``keras.Model``, and a string for its architecture.

Nothing here trains, compiles or builds the user's own object.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import types
import warnings

from skstack._base.keras_objects import is_from_keras

_FUNCTIONS = ("function", "__lambda__")
_STEPS = ("train_step", "test_step", "compute_loss", "compute_metrics")


def is_builtin_keras(value):
    """Whether the class of ``value`` comes with Keras."""
    return is_from_keras(type(value))


def is_graph(model):
    """Whether a model is a known graph of layers: functional, or a built ``Sequential``."""
    plain = is_from_keras(type(model).call) and not has_own_steps(model)
    return plain and bool(model.built) and bool(getattr(model, "inputs", None))


def has_own_steps(model):
    """Whether the model's class overrides training, as with a ``train_step``."""
    return not all(is_from_keras(getattr(type(model), step)) for step in _STEPS)


def _is_custom_function(value):
    return isinstance(value, types.FunctionType) and not is_from_keras(value)


def _config(layer):
    """Config of a layer or model, with its custom functions as objects."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The object being serialized includes a `lambda`")
        config = layer.get_config()
    functions = {name: getattr(layer, name, None) for name in config}
    return {**config, **{name: f for name, f in functions.items() if _is_custom_function(f)}}


def _refuse(model, cause):
    raise ValueError(
        f"model={model.name!r} of class {type(model).__name__} cannot be copied, and skstack never "
        f"trains the user's own object ({type(cause).__name__}: {cause}). Give its class (and the "
        "classes of its layers) a get_config that holds all arguments of the constructor, or write "
        "it as a recipe."
    ) from cause


def _copied_layer(layer):
    """Copy one layer, or nested model, without its weights."""
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
        shape = _config(layer).get("output_shape")
        return keras.layers.Lambda(
            layer.function,
            arguments=layer.arguments,
            mask=layer.mask,
            name=layer.name,
            dtype=layer.dtype_policy,
            trainable=layer.trainable,
            output_shape=None if isinstance(shape, dict) else shape,
        )
    config = _config(layer)
    if isinstance(layer, (keras.layers.StringLookup, keras.layers.IntegerLookup)):
        # The vocabulary of `adapt` is neither in the config nor in the weights.
        config["vocabulary"] = layer.get_vocabulary(include_special_tokens=False)
    return layer.__class__.from_config(config)


def _refuse_adapted(model):
    """Refuse a template with adapted layers, whose state would be lost."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.built:
            raise ValueError(
                f"model={model.name!r} is unbuilt, a template that gets new weights in each fit, "
                f"but its layer {layer.name!r} was adapted to data, which would be lost. Begin the "
                "model with keras.Input(...), which builds it, or leave the layer out and use a "
                "recipe, which standardises its inputs."
            )


def _applied_layers(model, outputs):
    """Outputs of copies of the layers of an unbuilt Sequential."""
    rows = outputs
    for layer in model.layers:
        copied = _copied_layer(layer)
        with rank_explained(model, rows):
            outputs = copied(outputs)
    return outputs


@contextlib.contextmanager
def rank_explained(model, rows):
    """Context in which errors of layers that need rows of another rank say how to reshape them."""
    try:
        yield
    except ValueError as error:
        message = r"layer ['\"](.+?)['\"] .*(expected (?:m.._)?ndim=(\d), found ndim=\d)"
        match = re.search(message, str(error))
        if match is None:
            raise
        rank, shape, advice = int(match[3]), tuple(rows.shape), ""
        if len(shape) == 2 < rank:
            example = (shape[1], *[1] * (rank - 2))
            advice = (
                f" To reshape the columns of X, set input_shape to {rank - 1} numbers whose "
                f"product is {shape[1]}, such as input_shape={example}."
            )
        raise LayerError(
            f"The layer {match[1]!r} of model={model.name!r} does not accept what X gives it, from "
            f"rows of shape {shape}: {match[2]}.{advice}"
        ) from error


class LayerError(ValueError):
    """A layer does not accept rows of this shape."""


def copied_graph(model, inputs):
    """Copy a functional or Sequential model onto new inputs; return the list of its outputs.

    The weights are those of the model, or new ones if it is unbuilt.
    """
    import keras

    if not is_graph(model):
        _refuse_adapted(model)
    try:
        if not is_graph(model):
            return [_applied_layers(model, inputs[0])]
        # A compiled model would be compiled again, which fails with an unregistered loss.
        graph = keras.Model(model.inputs, model.outputs, name=model.name)
        copied = keras.models.clone_model(
            graph, input_tensors=list(inputs), clone_function=_copied_layer
        )
    except LayerError:
        raise
    except (TypeError, ValueError, NotImplementedError, AttributeError) as cause:
        _refuse(model, cause)
    copy_weights(graph, copied, model)
    return list(copied.outputs)


def _custom_classes(model):
    classes = {type(model).__name__: type(model)}
    for layer in getattr(model, "layers", ()):
        if not is_builtin_keras(layer) or hasattr(layer, "layers"):
            classes.update(_custom_classes(layer))
    return {name: cls for name, cls in classes.items() if not is_from_keras(cls)}


def _refuse_lost_arguments(model):
    """Refuse arguments that Keras' default ``get_config`` would replace by their defaults."""
    cls = type(model)
    if not is_from_keras(cls.get_config):
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
    """Copy a model of a custom class by its config, without its weights."""
    import keras

    try:
        _refuse_lost_arguments(model)
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
            config, custom_objects=_custom_classes(model), safe_mode=False
        )
    except (TypeError, ValueError, NotImplementedError, AttributeError, KeyError) as cause:
        _refuse(model, cause)
    if type(copied) is not type(model):
        _refuse(model, TypeError(f"its config makes a {type(copied).__name__}"))
    return copied


def copy_weights(source, target, model):
    """Assign all variables, including seed states; refuse a copy with other shapes."""
    from skstack._training.normalization import settle_normalizations

    copied = [tuple(variable.shape) for variable in target.variables]
    shapes = [tuple(variable.shape) for variable in source.variables]
    if copied != shapes:
        _refuse(model, ValueError(f"its copy has variables of shapes {copied}, not {shapes}"))
    for variable, value in zip(target.variables, source.variables, strict=True):
        variable.assign(value)
    settle_normalizations(target)


class _CustomCode(Exception):
    pass


def _refuse_custom(layer, seen):
    """Raise `_CustomCode` for custom layers and layers that hold custom functions."""
    import keras

    if id(layer) in seen:
        return
    seen.add(id(layer))
    if not is_builtin_keras(layer) or isinstance(layer, keras.layers.Lambda):
        raise _CustomCode
    lookups = (keras.layers.StringLookup, keras.layers.IntegerLookup)
    if isinstance(layer, lookups) and layer.get_config()["vocabulary"] is None:
        raise _CustomCode  # adapted: the config lacks the vocabulary
    for value in [*vars(layer).values(), *getattr(layer, "layers", ())]:
        if _is_custom_function(value):
            raise _CustomCode
        if isinstance(value, keras.layers.Layer):
            _refuse_custom(value, seen)


def _plain(config):
    """A config without compile state; raises `_CustomCode` for custom objects in it."""
    if isinstance(config, dict):
        module = config.get("module", None if "registered_name" in config else "keras")
        if str(module).partition(".")[0] != "keras" or config.get("class_name") in _FUNCTIONS:
            raise _CustomCode
        return {key: _plain(value) for key, value in config.items() if key != "compile_config"}
    if isinstance(config, (list, tuple)):
        return [_plain(value) for value in config]
    if not isinstance(config, (str, int, float, bool, type(None))):
        raise _CustomCode
    return config


def architecture(model):
    """A string that is equal only for models that compute the same function of their weights.

    None if custom classes or functions make that unknown.
    """
    import keras

    # Names of layers, even automatic ones, are part of it: weights and `layers=` refer to them.
    try:
        _refuse_custom(model, set())
        config = keras.saving.serialize_keras_object(model.get_config())
        config.pop("name", None)
        config = _plain({"class_name": type(model).__name__, "config": config})
    except (_CustomCode, TypeError, ValueError, NotImplementedError, AttributeError):
        return None
    flags = [
        (list(variable.shape), str(variable.dtype), bool(variable.trainable))
        for variable in model.variables
    ]
    return json.dumps([config, flags], sort_keys=True)
