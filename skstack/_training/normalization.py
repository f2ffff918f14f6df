"""Keras' Normalization layers, which compute with copies of their variables.

``adapt`` and ``load_weights`` renew the copies. Whoever puts weights into a network in another way
has to do so, too, or the network computes with a mean of 0 and a variance of 1.
"""

from __future__ import annotations

import functools

import keras

from skstack._training.layers import all_layers


def _adapted(model):
    layers = {id(layer): layer for layer in all_layers(model)}.values()
    return [layer for layer in layers if isinstance(layer, keras.layers.Normalization)]


def settle_normalizations(model):
    """Renew the copies from the variables.

    Parameters
    ----------
    model : keras.Model

    Returns
    -------
    keras.Model
        The same.
    """
    for layer in _adapted(model):
        layer.finalize_state()
    return model


def reading_their_variables(model):
    """Make each call of a Normalization layer read the variables, as traced functions need it.

    Parameters
    ----------
    model : keras.Model
        Handed to nobody.

    Returns
    -------
    keras.Model
        The same.
    """
    for layer in _adapted(model):
        # The instance's __dict__, for Keras tracks attributes that are set the usual way.
        vars(layer)["call"] = _reading_its_variables(layer, layer.call)
    return model


def _reading_its_variables(layer, original):
    @functools.wraps(original)
    def call(*args, **kwargs):
        kept = layer.mean, layer.variance
        try:
            layer.finalize_state()
            return original(*args, **kwargs)
        finally:  # a traced function's tensors mean nothing outside it
            layer.mean, layer.variance = kept

    return call
