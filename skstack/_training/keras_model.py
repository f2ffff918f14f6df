"""Read and call a Keras model: its layers, variables, inputs, outputs and arguments."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping

import keras
import numpy as np

from skstack._base.atomic_fit import warn_once
from skstack._training.blueprint import Blueprint
from skstack._training.formulas import MEMBERS
from skstack._training.spares import model_to_read


def call_input(model, inputs: dict):
    """Arrange named tensors as `model` takes them: a dict, a list or one tensor."""
    expected = _input_structure(model)
    if isinstance(expected, dict):
        return {name: inputs[name] for name in expected} if set(expected) <= set(inputs) else inputs
    if isinstance(expected, (list, tuple)):
        return [inputs[name] for name in _in_order_of(expected, inputs)]
    return next(iter(inputs.values()))


def _in_order_of(expected, inputs):
    """The names of inputs in the order of a model's list: their own if it has other names."""
    names = [getattr(tensor, "name", None) for tensor in expected]
    return names if set(names) == set(inputs) else list(inputs)


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
    arguments = {"training": training} if _accepts(model.compute_loss, "training") else {}
    return model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, **arguments)


def weigh_rows(model) -> None:
    """Make the `compute_loss` of a private model apply weights of rows to losses of any shape.

    Without it, Keras' own steps would take them for the weights of sequence steps.
    """
    original = model.compute_loss

    @functools.wraps(original)
    def compute_loss(*args, **kwargs):
        # Those of Keras: an override may take any arguments.
        passed = {**dict(zip(("x", "y", "y_pred", "sample_weight"), args, strict=False)), **kwargs}
        weights = passed.get("sample_weight")
        if len(getattr(weights, "shape", ())) == 1:
            outputs = flat_outputs(passed["y_pred"])
            rank = len(outputs[0].shape) if len(outputs) == 1 else 0
            if rank > 2:  # losses have the shape (rows, ...)
                weights = keras.ops.reshape(weights, [-1, *[1] * (rank - 2)])
                if "sample_weight" in kwargs:
                    kwargs["sample_weight"] = weights
                else:
                    args = (*args[:3], weights, *args[4:])
        return original(*args, **kwargs)

    vars(model)["compute_loss"] = compute_loss


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


def all_values(model) -> dict[str, np.ndarray]:
    """Copies of all variables of a model as NumPy arrays, by path."""
    named = named_variables(model)
    return dict(zip(named, values(named.values()), strict=True))


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


class LayerNotFound(ValueError):
    """A requested layer does not exist, or is never called."""


def is_builtin_keras(value) -> bool:
    """Whether the class of an object is Keras' own."""
    return type(value).__module__.partition(".")[0] == "keras"


def all_layers(model) -> list:
    """Layers of a model, of nested models and of wrappers."""
    layers = []
    for layer in model.layers:
        layers.append(layer)
        if isinstance(layer, keras.Model):
            layers.extend(all_layers(layer))
        for name in ("layer", "forward_layer", "backward_layer"):
            if isinstance(getattr(layer, name, None), keras.layers.Layer):
                layers.append(getattr(layer, name))
    return layers


def _named_layers(model, prefix=""):
    """Yield full name ("outer/inner") and layer, of nested models too, in the model's order."""
    for layer in model.layers:
        yield prefix + layer.name, layer
        if isinstance(layer, keras.Model):
            yield from _named_layers(layer, f"{prefix}{layer.name}/")


def graph_layers(model, prefix=""):
    """Yield full name and layer, in the model's order: of nested functional models, their layers.

    A nested model of another class, whose graph is not known, is one layer.
    """
    for layer in model.layers:
        if isinstance(layer, keras.Model) and getattr(layer, "inputs", None):
            yield from graph_layers(layer, f"{prefix}{layer.name}/")
        else:
            yield prefix + layer.name, layer


def find_layers(model, names: Iterable[str]) -> dict:
    """Map each full or plain name to its layer; raise `LayerNotFound` unless there is just one.

    A name may end in `MEMBERS`, see `pooling_of`.
    """
    full: dict[str, list] = defaultdict(list)
    plain: dict[str, dict] = defaultdict(dict)
    for name, layer in _named_layers(model):
        full[name].append(layer)
        plain[layer.name][id(layer)] = layer
    layers = {}
    for requested in names:
        name = requested.removesuffix(MEMBERS)
        candidates = full.get(name) or list(plain.get(name, {}).values())
        if len(candidates) != 1:
            what = "no layer" if not candidates else "more than one layer"
            known = ", ".join(name for name, _ in _named_layers(model))
            raise LayerNotFound(f"The network has {what} named {name!r}. Its layers are: {known}.")
        if name != requested and name not in member_layers(model):
            raise LayerNotFound(
                f"The layer {name!r} of {requested!r} has no output for each of several members."
            )
        layers[requested] = candidates[0]
    return layers


def member_layers(model) -> frozenset[str]:
    """Names of the layers with an output for each member of a network that returns their mean.

    Of networks inside the model they are "outer/inner", and "inner" unless that is another layer.
    """
    found = _own_member_layers(model)
    for full, nested in _named_layers(model) if hasattr(model, "layers") else ():
        if isinstance(nested, keras.Model) and getattr(nested, "inputs", None):
            own = _own_member_layers(nested)
            found |= {f"{full}/{name}" for name in own}
            found |= own - {layer.name for layer in model.layers}
    return frozenset(found)


def _own_member_layers(model) -> set[str]:
    found: set[str] = set()
    for layer in getattr(model, "layers", ()):
        if getattr(layer, "equation", None) != "bkd,kdc->bkc":  # their output weights
            continue
        members = layer.output.shape[1]
        found.add(layer.name)
        activations = [node.operation for node in layer._outbound_nodes]
        found.update(each.name for each in activations if len(each.output.shape) == 3)
        pending = [layer.input]
        while pending:  # back to the layer that made the members
            tensor = pending.pop()
            operation, index, _ = tensor._keras_history
            if tensor.shape[1:-1] == (members,) and operation.name not in found:
                found.add(operation.name)
                pending.extend(operation._inbound_nodes[index].input_tensors)
    return found


def variables_up_to(model, layer) -> list:
    """Variables of a functional model that the output of a layer, or of a nested one, reads.

    A ValueError if a layer is called more than once; an AttributeError of a model of another class.
    """
    if layer in model.layers:
        (node,) = layer._inbound_nodes
        return keras.Model(model.inputs, node.output_tensors).variables
    nested = [each for each in model.layers if isinstance(each, keras.Model)]
    (outer,) = [each for each in nested if layer in all_layers(each)]
    (node,) = outer._inbound_nodes
    before = keras.Model(model.inputs, node.input_tensors).variables
    return [*before, *variables_up_to(outer, layer)]


def check_layers(blueprint: Blueprint, names: Iterable[str]) -> None:
    """Raise `LayerNotFound` if the network of a blueprint lacks one of the layers."""
    with model_to_read(blueprint) as model:
        calls = {name: _n_calls(model, layer) for name, layer in find_layers(model, names).items()}
    for name, n_calls in calls.items():
        if n_calls > 1:
            warn_once(
                ("calls", name),
                f"The network calls its layer {name!r} {n_calls} times. Its features are the "
                "outputs of the last call.",
            )


def _n_calls(model, layer) -> int:
    """How often a functional network calls a layer; 0 for networks of other classes."""
    n_calls = 0
    by_depth = getattr(getattr(model, "_functional", model), "_nodes_by_depth", {})
    for node in itertools.chain.from_iterable(by_depth.values()):
        if node.operation is layer:
            n_calls += 1
        elif isinstance(node.operation, keras.Model):
            n_calls += _n_calls(node.operation, layer)
    return n_calls


class Recorder:
    """Context that records the outputs of layers; for a shared layer, of its last call."""

    def __init__(self, layers: dict):
        self._layers = layers
        self._returned: dict = {}
        self._originals: dict = {}

    def __enter__(self):
        for layer in {id(layer): layer for layer in self._layers.values()}.values():
            # Through the instance's __dict__: Keras tracks attributes that are set the usual way.
            self._originals[id(layer)] = (layer, vars(layer).get("call"))
            vars(layer)["call"] = self._recording(layer, layer.call)
        return self

    def _recording(self, layer, original):
        def call(*args, **kwargs):
            result = original(*args, **kwargs)
            self._returned[id(layer)] = result
            return result

        return call

    def __exit__(self, *exception):
        for layer, before in self._originals.values():
            if before is None:
                del vars(layer)["call"]
            else:
                vars(layer)["call"] = before

    def outputs(self) -> list:
        """Recorded outputs, flat, in the order of the names."""
        flat = []
        for name, layer in self._layers.items():
            if id(layer) not in self._returned:
                raise LayerNotFound(f"The network never calls its layer {name!r} when it predicts.")
            flat.extend(keras.tree.flatten(self._returned[id(layer)]))
        return flat


def embedded_inputs(model) -> dict[int, tuple[str, int]] | None:
    """Map the index of an input to the embedding of smallest `input_dim` that reads it, and that.

    None if an embedding reads computed values. XLA silently replaces indices out of range.
    """
    bounds: dict = {}
    for layer in all_layers(model):
        if not isinstance(layer, keras.layers.Embedding):
            continue
        if not any(layer is each for each in model.layers):  # nested: called again elsewhere
            return None
        try:
            indices = [i for i, tensor in enumerate(model.inputs) if tensor is layer.input]
        except (AttributeError, ValueError, TypeError):  # subclassed, or called several times
            return None
        if not indices:
            return None
        known = bounds.get(indices[0])
        if known is None or layer.input_dim < known[1]:
            bounds[indices[0]] = layer.name, layer.input_dim
    return bounds


_ROWS_CHECKED = 2**20  # at once, of inputs that may be on disk


def check_indices(model, inputs, bounds) -> None:
    """Raise ValueError if an input holds indices out of the `bounds` of `embedded_inputs`."""
    structure = getattr(model, "input", None)
    names = _in_order_of(structure, inputs) if isinstance(structure, list | tuple) else list(inputs)
    for index, (layer, size) in (bounds or {}).items():
        name = names[index] if len(names) > index else names[0]
        if isinstance(structure, dict):
            tensor = model.inputs[index]
            name = next(key for key, value in structure.items() if value is tensor)
        array = inputs[name]
        for start in range(0, len(array), _ROWS_CHECKED):
            rows = array[start : start + _ROWS_CHECKED]
            if rows.size and not (rows.min() >= 0 and rows.max() < size):
                raise ValueError(
                    f"The input {name!r} of the embedding {layer!r} holds indices from "
                    f"{rows.min()} to {rows.max()}; expected 0 to {size - 1} (input_dim={size})."
                )
