"""Keras' Normalization layers, which compute with copies of their variables.

``adapt`` and ``load_weights`` update the copies. Code that assigns weights in another way must do
so too, or the layer computes with a mean of 0 and a variance of 1.
"""

from __future__ import annotations

import functools

import keras

from skstack._training.keras_model import all_layers


def _adapted(model):
    layers = {id(layer): layer for layer in all_layers(model)}.values()
    return [layer for layer in layers if isinstance(layer, keras.layers.Normalization)]


def settle_normalizations(model):
    """Update the copies from the variables; return the model."""
    for layer in _adapted(model):
        layer.finalize_state()
    return model


def reading_their_variables(model):
    """Make each call of a Normalization layer read the variables; return the model, a private one.

    Traced functions need this: the copies would be constants in them.
    """
    for layer in _adapted(model):
        # Through the instance's __dict__: Keras tracks attributes that are set the usual way.
        vars(layer)["call"] = _reading_its_variables(layer, layer.call)
    return model


def _reading_its_variables(layer, original):
    @functools.wraps(original)
    def call(*args, **kwargs):
        kept = layer.mean, layer.variance
        try:
            layer.finalize_state()
            return original(*args, **kwargs)
        finally:  # tensors of a traced function are invalid outside it
            layer.mean, layer.variance = kept

    return call
