"""The network as a person meets it: plain input, outputs in the target's units."""

from __future__ import annotations

import numpy as np

__all__ = ["with_plain_input", "with_target_units"]


def with_target_units(model, mean, scale):
    """Put a layer ``target_units`` behind a network that was trained on standardised targets.

    Parameters
    ----------
    model : keras.Model
        With one output of shape (batch, n_targets).

    mean, scale : ndarray of shape (n_targets,)
        Moments of the training targets, in their units.

    Returns
    -------
    keras.Model
        With the inputs and layers of ``model``.
    """
    import keras

    name = "target_units"
    while any(layer.name == name for layer in model.layers):  # of a network that was saved
        name += "_"
    layer = keras.layers.EinsumDense(
        "ab,b->ab",
        output_shape=(len(mean),),
        bias_axes="b",
        trainable=False,
        dtype="float32",
        name=name,
    )
    outputs = layer(model.outputs[0])
    layer.set_weights([np.asarray(scale, np.float32), np.asarray(mean, np.float32)])
    return keras.Model(model.input, outputs, name=model.name)


def with_plain_input(model):
    """A network with one named input as one that takes the array itself."""
    import keras

    if not isinstance(getattr(model, "input", None), dict) or len(model.inputs) != 1:
        return model
    return keras.Model(model.inputs[0], model.output, name=model.name)
