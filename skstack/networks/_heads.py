"""Whether the outputs of a user's ``keras.Model`` fit the task, and what is added to them."""

from __future__ import annotations

import dataclasses

import numpy as np

__all__ = ["final_activation", "fitting_head", "gives_probabilities", "last_operation"]

_WANTED = {"binary": "sigmoid", "multilabel": "sigmoid", "multiclass": "softmax"}


def last_operation(model):
    """What makes the output of a model; None where it cannot be known."""
    import keras

    if getattr(model, "outputs", None):
        name = model.output_names[0] if hasattr(model, "output_names") else model.layers[-1].name
        operations = getattr(model, "operations", model.layers)
        return next((operation for operation in operations if operation.name == name), None)
    if isinstance(model, keras.Sequential):
        return model.layers[-1] if model.layers else None
    return None


def final_activation(model):
    """Name of the activation that a model ends with; None where it cannot be read off."""
    import keras

    last = last_operation(model)
    if isinstance(last, keras.Model):
        return final_activation(last)
    activation = getattr(last, "activation", None)
    if isinstance(last, keras.layers.Layer) and callable(activation):
        if not str(getattr(activation, "__module__", "")).startswith("keras."):
            return None
        name = keras.activations.serialize(activation)
        return name if isinstance(name, str) else None
    own = type(last).__module__.partition(".")[0] == "keras"
    if own and type(last).__name__ in ("Softmax", "Sigmoid"):
        return type(last).__name__.lower()
    return None


def fitting_head(model_name, shape, activation, spec):
    """Compare an output with the task.

    Parameters
    ----------
    model_name : str

    shape : tuple
        Of the output, with None for the rows.

    activation : str or None
        Its last activation, None where unknown.

    spec : Spec
        What is asked for.

    Returns
    -------
    spec : Spec
        What the network does: two units for two classes are a softmax over two classes.

    added : {"sigmoid", "softmax"} or None
        The activation to append.
    """
    asked = spec
    if spec.task == "binary" and shape == (None, 2):
        spec = dataclasses.replace(spec, task="multiclass", n_outputs=2)
    expected = spec.output_shape
    fits = len(shape) == len(expected) and all(
        size is None or width is None or size == width
        for size, width in zip(shape, expected, strict=True)
    )
    if not fits:
        or_two = " or (None, 2)" if asked.task == "binary" else ""
        raise ValueError(
            f"model={model_name!r} has an output of shape {shape}, but {_told(asked)} needs "
            f"{asked.output_shape}{or_two}."
        )
    wanted = _WANTED.get(spec.task)
    if wanted is None or activation is None:
        return spec, None
    if activation == "linear":
        return spec, wanted
    if activation == wanted or (wanted == "sigmoid" and activation == "hard_sigmoid"):
        return spec, None
    raise ValueError(
        f"model={model_name!r} ends with the activation {activation!r}, but {_told(asked)} with "
        f"{shape[-1]} output units needs {wanted!r}, or no activation: {wanted!r} is added to that."
    )


def gives_probabilities(outputs, task):
    """Whether an array of outputs, of shape (rows, units), can be probabilities."""
    outputs = np.asarray(outputs, dtype=np.float64)
    inside = np.all((outputs >= -1e-6) & (outputs <= 1 + 1e-6))
    return bool(inside and (task != "multiclass" or np.allclose(outputs.sum(axis=1), 1, atol=1e-3)))


def _told(spec):
    if spec.task == "binary":
        return "a task of 2 classes"
    if spec.task == "multiclass":
        return f"a task of {spec.n_outputs} classes"
    things = {
        "multilabel": "labels",
        "regression": "targets",
        "reconstruction": "columns to rebuild",
    }
    return f"a task of {spec.n_outputs} {things[spec.task]}"
