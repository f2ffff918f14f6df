"""A trained network as a named layer that also returns outputs of inner layers."""

from __future__ import annotations

import keras
from keras import ops

from skstack._graph.formulas import without_padding
from skstack._graph.tables import layer_name, refuse
from skstack._training.formulas import pooling_of
from skstack._training.keras_model import all_layers, call_input, find_layers, member_layers


def apply_network(network, tensors, name, *, finish=None, layers=(), ends=True, pooling=None):
    """Two lists of float32 tensors: outputs of a trained network, and of its inner ``layers``.

    ``finish`` appends layers to the network. Without ``ends`` its own outputs are not computed.
    ``pooling`` reduces outputs with masked steps to columns: outside the network masks are lost.
    """
    model = network.build()
    name = layer_name(name)
    if not isinstance(getattr(model, "input", None), dict):
        if layers:
            _refuse_hidden(name, list(layers))
        model.name = name
        inputs = dict(tensors)
        if len(inputs) == 1:
            (inputs,) = inputs.values()
        elif isinstance(getattr(model, "input", None), list | tuple):
            inputs = call_input(model, inputs)
        return _as_float32(keras.tree.flatten(model(inputs))), []
    model = model if finish is None else finish(model)
    inner = []
    if layers:
        members = member_layers(model)
        model, inner = _with_layers(model, layers, name)
        if len(inner) == len(layers):
            pairs = zip(layers, inner, strict=True)
            inner = [_of_members(layer, tensor, members) for layer, tensor in pairs]
    own = list(model.outputs) if ends else []
    outputs = [*own, *inner]
    if pooling is not None:
        outputs = [without_padding(tensor, pooling) for tensor in outputs]
    model = keras.Model(model.input, outputs[0] if len(outputs) == 1 else outputs, name=name)
    outputs = _as_float32(keras.tree.flatten(model(dict(tensors))))
    return outputs[: len(own)], outputs[len(own) :]


def _of_members(layer, tensor, members):
    """The mean over members of an inner layer's output, or all side by side."""
    how = pooling_of(layer, "", members)
    if not how:
        return tensor
    pool = keras.layers.GlobalAveragePooling1D if how == "mean" else keras.layers.Flatten
    return pool(name=layer_name(f"{layer}_{how}"))(tensor)


def _as_float32(tensors):
    return [t if t.dtype == "float32" else ops.cast(t, "float32") for t in tensors]


def _refuse_hidden(name, layers):
    refuse(f"The network {name!r}", f"its class hides the inner layers {layers}.")


def _with_layers(model, names, label):
    """The model on new inputs, and the outputs of some layers, of nested models too."""
    layers = find_layers(model, names)
    returned = {}

    def call(layer, *args, **kwargs):
        nested = isinstance(layer, keras.Model) and getattr(layer, "inputs", None)
        inner = [each for each in layers.values() if nested and each in all_layers(layer)]
        if inner:
            graph = _called(keras.Model(layer.inputs, layer.outputs), call)
            inner = [id(each) for each in inner if id(each) in returned]
            outputs = [graph.outputs, [returned[each] for each in inner]]
            tensors = keras.tree.flatten(args[0])
            outputs, found = keras.Model(graph.inputs, outputs)(tensors)
            returned.update(zip(inner, found, strict=True))
            result = outputs[0] if len(outputs) == 1 else outputs
        else:
            result = layer(*args, **kwargs)
        returned[id(layer)] = result
        return result

    inputs = {
        name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=name)
        for name, tensor in model.input.items()
    }
    graph = keras.Model(model.inputs, model.outputs)
    outputs = _called(graph, call, [inputs[tensor.name] for tensor in model.inputs]).outputs
    hidden = [name for name, layer in layers.items() if id(layer) not in returned]
    if hidden:
        _refuse_hidden(label, hidden)
    inner = [returned[id(layer)] for layer in layers.values()]
    return keras.Model(inputs, outputs), keras.tree.flatten(inner)


def _called(graph, call, inputs=None):
    """The graph of the same layers on new inputs, each called by ``call``."""
    return keras.models.clone_model(
        graph, input_tensors=inputs, clone_function=lambda layer: layer, call_function=call
    )
