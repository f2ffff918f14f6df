"""The narrow layer of an autoencoder, and the way back from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

__all__ = ["DecoderBlueprint", "latent_layer"]


def latent_layer(model):
    """Name of an autoencoder's latent layer: ``latent`` where there is one, else the narrowest.

    Parameters
    ----------
    model : keras.Model
        Functional or Sequential.

    Returns
    -------
    str
        The first of the layers with the fewest outputs for a row.

    Raises
    ------
    ValueError
        If the model does not show its layers' outputs (a subclassed model).
    """
    import keras

    widths = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        try:
            shape = layer.output.shape[1:]
        except (AttributeError, ValueError):
            continue
        widths[layer.name] = math.prod(size or 1 for size in shape)
    if "latent" in widths:
        return "latent"
    if not widths:
        raise ValueError(
            f"model={model.name!r} ({type(model).__name__}) does not show the outputs of its "
            "layers, so its latent layer cannot be found; accepted are functional and Sequential "
            "models and recipes, best with a layer named 'latent'."
        )
    return min(widths, key=widths.get)


@dataclass(frozen=True)
class DecoderBlueprint:
    """The part of an autoencoder behind its latent layer.

    Parameters
    ----------
    blueprint : blueprint
        Of the autoencoder.

    layer : str
        Its latent layer.
    """

    blueprint: Any
    layer: str

    @property
    def key(self):
        """Of the autoencoder, and the layer; None where the autoencoder has none."""
        key = self.blueprint.key
        return None if key is None else ("decoder", self.layer, key)

    def build(self):
        """The decoder, a ``keras.Model`` from the latent layer's output to the rebuilt table."""
        import keras

        model = self.blueprint.build()
        return keras.Model(model.get_layer(self.layer).output, model.outputs[0])
