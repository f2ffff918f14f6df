"""Indices into embeddings: XLA takes those that do not exist for others, without a word."""

from __future__ import annotations

import keras

from skstack.training._layers import all_layers


def embedded_inputs(model) -> dict[int, tuple[str, int]] | None:
    """Number of known indices by input.

    Returns
    -------
    bounds : dict of int to (str, int), or None
        For the place of an input that embeddings take: the layer's name, and the smallest number
        of indices that these embeddings know. None where an embedding takes what is computed.
    """
    bounds = {}
    for layer in all_layers(model):
        if not isinstance(layer, keras.layers.Embedding):
            continue
        if not any(layer is each for each in model.layers):  # nested: called again elsewhere
            return None
        try:
            given = layer.input
            places = [i for i, tensor in enumerate(model.inputs) if tensor is given]
        except (AttributeError, ValueError, TypeError):  # subclassed, or called several times
            return None
        if not places:
            return None
        known = bounds.get(places[0])
        if known is None or layer.input_dim < known[1]:
            bounds[places[0]] = layer.name, layer.input_dim
    return bounds


def check_indices(model, inputs, bounds) -> None:
    """Raise ValueError where an input holds indices that an embedding does not know.

    Parameters
    ----------
    model : keras.Model
    inputs : dict of str to ndarray
    bounds : as `embedded_inputs` gives them
    """
    structure = getattr(model, "input", None)
    names = list(inputs)
    for place, (layer, size) in (bounds or {}).items():
        name = names[place] if len(names) > place else names[0]
        if isinstance(structure, dict):
            tensor = model.inputs[place]
            name = next(key for key, value in structure.items() if value is tensor)
        array = inputs[name]
        if array.size and not (array.min() >= 0 and array.max() < size):
            raise ValueError(
                f"The input {name!r} of the embedding {layer!r} holds indices from {array.min()} "
                f"to {array.max()}; accepted are 0 to {size - 1} (input_dim={size})."
            )
