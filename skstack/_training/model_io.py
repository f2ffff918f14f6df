"""Call a Keras model: its structures of inputs, outputs and arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import keras
import numpy as np


def call_input(model, inputs: dict):
    """Arrange named tensors as `model` takes them: a dict, a list or one tensor."""
    expected = _input_structure(model)
    if isinstance(expected, dict):
        return {name: inputs[name] for name in expected} if set(expected) <= set(inputs) else inputs
    if isinstance(expected, (list, tuple)):
        return list(inputs.values())
    return next(iter(inputs.values()))


def _input_structure(model):
    if isinstance(model, keras.Sequential):
        return None
    try:
        return model.input
    except (AttributeError, ValueError):  # subclassed: see what it was built on
        shapes = (model.get_build_config() or {}).get("input_shape")
        if isinstance(shapes, (list, tuple)) and not any(
            isinstance(s, (list, tuple)) for s in shapes
        ):
            return None  # one shape, hence one tensor
        return shapes if shapes is not None else {}


def takes_training(model) -> bool:
    """Whether the model's call has a ``training`` argument."""
    return _accepts(model.call, "training")


def call(model, x, *, training: bool):
    """Call a model in training or inference mode, with or without a ``training`` argument."""
    return model(x, training=training) if takes_training(model) else model(x)


def compute_loss(model, x, y, y_pred, sample_weight, *, training: bool):
    """Compute the loss with the model's public `compute_loss`."""
    outputs = flat_outputs(y_pred)
    rank = len(outputs[0].shape) if len(outputs) == 1 else 0
    if sample_weight is not None and rank > 2:  # losses have the shape (rows, ...)
        sample_weight = keras.ops.reshape(sample_weight, [-1, *[1] * (rank - 2)])
    arguments = {"training": training} if _accepts(model.compute_loss, "training") else {}
    return model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, **arguments)


def _accepts(function, name):
    parameters = inspect.signature(function).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def flat_outputs(outputs) -> list:
    """Outputs as a list, in the order of the model's `outputs`: a dict by its sorted keys."""
    return list(keras.tree.flatten(outputs))


def rows_at_once(model, inputs: dict) -> int:
    """Number of rows per call, 32 to 1024: depends on the architecture alone."""
    widest = 1
    for array in inputs.values():
        size = 1
        for axis in array.shape[1:]:
            size *= axis
        widest = max(widest, size)
    return int(min(max(2**22 // max(model.count_params(), widest, 1), 32), 1024))


def named_variables(model) -> dict:
    """All variables of a model, seed states included, in its order, by unique path."""
    named = {}
    for variable in model.variables:
        path, count = variable.path, 1
        while path in named:
            count += 1
            path = f"{variable.path}#{count}"
        named[path] = variable
    return named


def values(variables) -> list[np.ndarray]:
    """Copies of Keras variables as NumPy arrays."""
    return [variable.numpy().copy() for variable in variables]


def assign(named: Mapping, values: Mapping[str, np.ndarray]) -> None:
    """Assign values to Keras variables of the same paths, see `in_order`."""
    for variable, value in zip(named.values(), in_order(named, values), strict=True):
        variable.value.assign(value)


def in_order(named: Mapping, values: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Return values in the order of Keras variables; raise ValueError if paths or shapes differ."""
    if named.keys() != values.keys():
        raise ValueError(
            "The weights do not belong to this network. "
            f"Missing: {sorted(named.keys() - values.keys())}; "
            f"unknown: {sorted(values.keys() - named.keys())}."
        )
    ordered = [np.asarray(values[path]) for path in named]
    for (path, variable), value in zip(named.items(), ordered, strict=True):
        if value.shape != tuple(variable.shape):
            raise ValueError(
                f"The weights do not belong to this network: {path!r} has shape {value.shape}, "
                f"expected {tuple(variable.shape)}."
            )
    return ordered
