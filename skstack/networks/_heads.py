"""Whether the outputs of a user's ``keras.Model`` fit the task, and what is added to them."""

# What a network computes before its last sigmoid.
# The network as a person meets it: plain input, outputs in the target's units.

from __future__ import annotations

import dataclasses
import functools
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline

from skstack._base.sklearn import wrapper_of
from skstack._base.tables import n_rows
from skstack.networks._cloning import is_builtin_keras, is_graph

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


# Bounds of activations; all others of Keras' own go both ways without end.
_BOUNDS = {
    "celu": (-1.0, np.inf),
    "elu": (-1.0, np.inf),
    "exponential": (0.0, np.inf),
    "gelu": (-0.1701, np.inf),
    "hard_sigmoid": (0.0, 1.0),
    "hard_silu": (-0.375, np.inf),
    "hard_tanh": (-1.0, 1.0),
    "log_sigmoid": (-np.inf, 0.0),
    "log_softmax": (-np.inf, 0.0),
    "mish": (-0.309, np.inf),
    "relu": (0.0, np.inf),
    "relu6": (0.0, 6.0),
    "selu": (-1.7581, np.inf),
    "sigmoid": (0.0, 1.0),
    "silu": (-0.2785, np.inf),
    "softmax": (0.0, 1.0),
    "softplus": (0.0, np.inf),
    "softsign": (-1.0, 1.0),
    "sparse_plus": (0.0, np.inf),
    "sparse_sigmoid": (0.0, 1.0),
    "sparsemax": (0.0, 1.0),
    "squareplus": (0.0, np.inf),
    "tanh": (-1.0, 1.0),
}
_FREE = (-np.inf, np.inf)


class _ByKey:
    """A blueprint that is equal to others of its key."""

    def __init__(self, blueprint):
        self.blueprint = blueprint

    def __hash__(self):
        return hash(self.blueprint.key)

    def __eq__(self, other):
        return self.blueprint.key == other.blueprint.key


def output_bounds(blueprint):
    """Between which bounds each output of a network lies, whatever its weights are.

    Parameters
    ----------
    blueprint : blueprint

    Returns
    -------
    low, high : ndarray of float64 of shape (n_outputs,)
        Infinite where there is no bound.
    """
    if blueprint.key is None:
        return _bounds_of(blueprint)
    return _bounds_of_key(_ByKey(blueprint))


@functools.lru_cache(maxsize=64)
def _bounds_of_key(kept):
    return _bounds_of(kept.blueprint)


def _bounds_of(blueprint):
    from skstack._training.seeds import build

    model = build(blueprint)
    found = _bounds_behind(model, last_operation(model))
    if found is None:
        found = _seen_bounds(model)
    width = model.outputs[0].shape[-1] if getattr(model, "outputs", None) else blueprint.units
    low, high = (np.broadcast_to(np.asarray(bound, np.float64), (width,)) for bound in found)
    return low, high


def _bounds_behind(model, operation):
    """Bounds of what an operation of a model returns; None where they cannot be read off."""
    import keras

    layers = keras.layers
    if isinstance(operation, keras.Model):
        return _bounds_behind(operation, last_operation(operation))
    passing = (layers.Reshape, layers.Flatten, layers.Identity, layers.Dropout, layers.InputLayer)
    own = type(operation).__module__.partition(".")[0] == "keras"
    if not own or not isinstance(operation, layers.Layer):
        return None
    if isinstance(operation, layers.InputLayer):
        return _FREE
    if isinstance(operation, (*passing, layers.Rescaling)):
        found = _before(model, operation)
        if found is None or not isinstance(operation, layers.Rescaling):
            return found
        ends = [
            np.asarray(bound) * np.asarray(operation.scale) + np.asarray(operation.offset)
            for bound in found
        ]
        return np.minimum(*ends), np.maximum(*ends)
    if isinstance(operation, layers.Concatenate):
        parts = [_behind_tensor(model, tensor) for tensor in operation.input]
        if any(part is None for part in parts):
            return None
        widths = [tensor.shape[-1] for tensor in operation.input]
        return tuple(
            np.concatenate(
                [np.broadcast_to(part[end], (n,)) for part, n in zip(parts, widths, strict=True)]
            )
            for end in (0, 1)
        )
    if isinstance(operation, layers.ReLU):
        slope, most = float(operation.negative_slope), operation.max_value
        low = 0.0 if slope == 0 else -np.inf
        return low, np.inf if most is None else float(most)
    if isinstance(operation, layers.ELU):
        return -float(operation.alpha), np.inf
    if isinstance(operation, layers.Softmax):
        return 0.0, 1.0
    free = (layers.LeakyReLU, layers.PReLU, layers.BatchNormalization, layers.LayerNormalization)
    if isinstance(operation, free):
        return _FREE
    if isinstance(operation, (layers.Add, layers.Subtract, layers.Average)):
        parts = [_behind_tensor(model, tensor) for tensor in operation.input]
        unbound = all(part is not None and np.all(np.isinf(part)) for part in parts)
        return _FREE if unbound else None
    activation = getattr(operation, "activation", None)
    if isinstance(activation, layers.Layer):
        return _bounds_behind(model, activation) if not hasattr(activation, "axis") else None
    if not callable(activation):
        return None
    if not str(getattr(activation, "__module__", "")).startswith("keras."):
        return None
    name = keras.activations.serialize(activation)
    return _BOUNDS.get(name, _FREE) if isinstance(name, str) else None


def _before(model, operation):
    try:
        return _behind_tensor(model, operation.input)
    except (AttributeError, ValueError):  # called more than once
        return None


def _behind_tensor(model, tensor):
    for operation in getattr(model, "operations", model.layers):
        try:
            if operation.output is tensor:
                return _bounds_behind(model, operation)
        except (AttributeError, ValueError):
            continue
    return None


def _seen_bounds(model):
    """Bounds as far as outputs of many made-up weights tell: 0, -1 and 1 are looked for."""
    rng = np.random.default_rng(0)
    tensors = model.input if isinstance(getattr(model, "input", None), dict) else None
    if tensors is None:
        return _FREE
    rows = {}
    for name, tensor in tensors.items():
        shape = (32, *[size or 4 for size in tensor.shape[1:]])
        whole = "int" in tensor.dtype or "bool" in tensor.dtype
        made = rng.integers(2, size=shape) if whole else rng.standard_normal(shape)
        rows[name] = made.astype(tensor.dtype)
    low, high = np.inf, -np.inf
    for _ in range(16):
        for variable in model.trainable_variables:
            variable.assign(rng.standard_normal(variable.shape))
        outputs = np.asarray(model(rows, training=False), dtype=np.float64)
        outputs = outputs[np.isfinite(outputs).all(axis=1)].reshape(-1, outputs.shape[-1])
        if len(outputs):
            low, high = np.minimum(low, outputs.min(axis=0)), np.maximum(high, outputs.max(axis=0))
    found_low = np.where(low >= 0, 0.0, np.where((low >= -1) & (high <= 1), -1.0, -np.inf))
    found_high = np.where(
        (low >= -1) & (high <= 1), 1.0, np.where((high <= 0) & (low < 0), 0.0, np.inf)
    )
    return found_low, found_high


# Beside the networks, not in them: it is made anew after they were pickled.
_FOUND = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class LogitsBlueprint:
    """A network without its last activation, a sigmoid.

    Parameters
    ----------
    blueprint : blueprint
        Of the network.
    """

    blueprint: Any

    @property
    def key(self):
        """Of the network; None where it has none."""
        key = self.blueprint.key
        return None if key is None else ("logits", key)

    def build(self):
        """Build the network, with a linear output."""
        import keras

        model = self.blueprint.build()
        last_operation(model).activation = keras.activations.linear
        return model


def logits_network(network):
    """The network that gives the log-odds of another one's probabilities.

    A sigmoid near 1 leaves few digits of them in float32, and other digits in every runtime.

    Parameters
    ----------
    network : Network

    Returns
    -------
    Network or None
        With the same weights; None where the network does not end with a layer of Keras' own with a
        sigmoid.
    """
    if network.blueprint is None:  # a part of a larger network that trains
        return None
    if network not in _FOUND:
        from skstack._training.network import Network
        from skstack._training.seeds import preserve_rng

        with preserve_rng():
            model = network.blueprint.build()
        found = None
        if is_graph(model) and final_activation(model) == "sigmoid" and _stands_alone(model):
            found = Network(LogitsBlueprint(network.blueprint), network.variables)
        _FOUND.setdefault(network, found)  # the first of several threads has its way
    return _FOUND[network]


def _stands_alone(model):
    """Whether the last layer is Keras' own, no model itself, and called once."""
    import keras

    last = last_operation(model)
    if isinstance(last, keras.Model) or not (
        is_builtin_keras(last) and hasattr(last, "activation")
    ):
        return False
    try:
        return last.output is not None
    except AttributeError:  # it has several
        return False


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


def probabilities_of(estimator):
    """What gives an estimator's probabilities of its classes.

    scikeras drops an axis where there is one row; the classifier of ``keras.wrappers`` has no
    ``predict_proba``, but its ``decision_function`` is what its network gives for the classes.

    Parameters
    ----------
    estimator : estimator
        Fitted or not.

    Returns
    -------
    callable or None
        From X to an array of shape (n_rows, n_classes), or to the list of arrays that
        scikit-learn's trees give for several labels. None where there are no probabilities.
    """
    if hasattr(estimator, "predict_proba"):

        def probabilities(X):
            p = estimator.predict_proba(X)
            return p.reshape(n_rows(X), -1) if getattr(p, "ndim", 2) == 1 else p

        return probabilities
    if isinstance(estimator, Pipeline) and probabilities_of(estimator[-1]) is not None:
        last = probabilities_of(estimator[-1])
        return (lambda X: last(estimator[:-1].transform(X))) if len(estimator) > 1 else last
    if wrapper_of(estimator) == "keras" and is_classifier(estimator):
        return lambda X: _normalised(estimator, estimator.decision_function(X))
    return None


def _normalised(estimator, outputs):
    """Outputs of a network with one unit for each class, as probabilities."""
    if final_activation(estimator.model_) == "linear":
        outputs = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    elif outputs.min() < 0:
        raise ValueError(
            f"The network of this {type(estimator).__name__} ends with an activation that gives no "
            "probabilities. End it with a Dense layer, with the activation 'softmax' or none."
        )
    return outputs / outputs.sum(axis=1, keepdims=True)
