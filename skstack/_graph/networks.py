"""A trained network as a layer with a name, its inner layers too."""

from __future__ import annotations

import keras
from keras import ops

from skstack._graph.formulas import without_padding
from skstack._graph.tables import layer_name, refuse
from skstack._training.layers import find_layers


def called(network, tensors, name, *, finish=None, layers=(), ends=True, pooling=None):
    """Outputs of a trained network, and of inner layers.

    Parameters
    ----------
    network : Network

    tensors : dict of str to keras.KerasTensor
        By block.

    name : str
        Of the layer.

    finish : callable, default=None
        Puts layers behind the network.

    layers : sequence of str, default=()
        As ``Network.outputs`` takes them.

    ends : bool, default=True
        Whether the network's own outputs are wanted; what stands behind the inner layers is left
        out where they are not.

    pooling : {"flatten", "mean", "max", "last"}, default=None
        Brings outputs that have masked steps to columns, for outside the network masks are lost.

    Returns
    -------
    outputs : list of keras.KerasTensor of float32
        Empty where ``ends`` is False.

    inner : list of keras.KerasTensor of float32
        One for each of ``layers``.
    """
    model = network.build()
    name = layer_name(name)
    if not isinstance(getattr(model, "input", None), dict):
        if layers:
            refuse(f"The network {name!r}", f"the inner layers {list(layers)} of its class.")
        model.name = name
        structure = getattr(model, "input", None)
        several = len(tensors) > 1
        given = list(tensors.values()) if isinstance(structure, list | tuple) else tensors
        outputs = keras.tree.flatten(model(given if several else next(iter(tensors.values()))))
        return _as_float32(outputs), []
    model = model if finish is None else finish(model)
    wanted = []
    if layers:
        model, wanted = _with_layers(model, layers)
    own = list(model.outputs) if ends else []
    wanted = [*own, *wanted]
    if pooling is not None:
        wanted = [without_padding(tensor, pooling) for tensor in wanted]
    model = keras.Model(model.input, wanted[0] if len(wanted) == 1 else wanted, name=name)
    outputs = _as_float32(keras.tree.flatten(model(dict(tensors))))
    return outputs[: len(own)], outputs[len(own) :]


def _as_float32(tensors):
    return [t if t.dtype == "float32" else ops.cast(t, "float32") for t in tensors]


def _with_layers(model, names):
    """The same layers laid open, models inside models too, and what some of them return."""
    layers = find_layers(model, names)
    returned = {}

    def call(layer, *args, **kwargs):
        inside = isinstance(layer, keras.Model) and getattr(layer, "inputs", None)
        if inside and any(wanted in inner_layers(layer) for wanted in layers.values()):
            tensors = keras.tree.flatten(args[0])
            graph = keras.Model(layer.inputs, layer.outputs)
            opened = _opened(graph, tensors, call).outputs
            result = opened[0] if len(opened) == 1 else opened
        else:
            result = layer(*args, **kwargs)
        returned[id(layer)] = result
        return result

    inputs = {
        name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name)
        for name, tensor in model.input.items()
    }
    graph = keras.Model(model.inputs, model.outputs)
    order = [tensor.name for tensor in model.inputs]
    opened = _opened(graph, [inputs[name] for name in order], call)
    wanted = []
    for layer in layers.values():
        wanted += keras.tree.flatten(returned[id(layer)])
    outputs = opened.outputs
    return keras.Model(inputs, outputs), wanted


def _opened(graph, tensors, call):
    return keras.models.clone_model(
        graph, input_tensors=tensors, clone_function=lambda layer: layer, call_function=call
    )


def inner_layers(model):
    """Layers of a model, those of models inside it too."""
    found = []
    for layer in model.layers:
        found.append(layer)
        if isinstance(layer, keras.Model):
            found += inner_layers(layer)
    return found
