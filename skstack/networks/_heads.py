"""The last layers of a network: their activation, bounds and units; probabilities of estimators."""

from __future__ import annotations

import functools
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline

from skstack._base.lru_cache import LRUCache
from skstack._base.sklearn import offers, wrapper_of
from skstack._base.tables import n_rows
from skstack.networks._cloning import is_builtin_keras, is_graph


def last_operation(model):
    """The operation that makes the output of a model; None if it cannot be determined."""
    import keras

    if getattr(model, "outputs", None):
        name = model.output_names[0] if hasattr(model, "output_names") else model.layers[-1].name
        operations = getattr(model, "operations", model.layers)
        return next((operation for operation in operations if operation.name == name), None)
    if isinstance(model, keras.Sequential):
        return model.layers[-1] if model.layers else None
    return None


def final_activation(model):
    """Name of the last activation of a model; None if it cannot be determined."""
    import keras

    last = last_operation(model)
    if isinstance(last, keras.Model):
        return final_activation(last)
    if isinstance(last, keras.layers.Layer) and callable(getattr(last, "activation", None)):
        return _builtin_name(last.activation)
    if is_builtin_keras(last) and type(last).__name__ in ("Softmax", "Sigmoid"):
        return type(last).__name__.lower()
    return None


def _builtin_name(activation):
    """Name of an activation function of Keras; None for any other function."""
    import keras

    if not str(getattr(activation, "__module__", "")).startswith("keras."):
        return None
    name = keras.activations.serialize(activation)
    return name if isinstance(name, str) else None


def without_activation(model):
    """(model without its final softmax or sigmoid, its name), or (model, None) if it has none."""
    import keras

    last, name = last_operation(model), final_activation(model)
    builtin = is_builtin_keras(last) and not isinstance(last, keras.Model)
    if not builtin or name not in ("softmax", "sigmoid"):
        return model, None
    try:
        before = last.input
    except (AttributeError, ValueError):  # called more than once
        return model, None
    if callable(getattr(last, "activation", None)):
        last.activation = keras.activations.linear
        return model, name
    if getattr(last, "axis", -1) != -1:
        return model, None
    return keras.Model(model.input, before, name=model.name), name


def flat(tensor):
    """A tensor of any rank as one of shape (batch, width)."""
    import keras

    return tensor if len(tensor.shape) == 2 else keras.layers.Flatten()(tensor)


class WrappingBlueprint:
    """Base of blueprints around another one, whose compile settings they share."""

    @property
    def loss(self):
        """Loss of the inner network."""
        return self.blueprint.loss

    @property
    def optimizer(self):
        """Optimizer of the inner network."""
        return self.blueprint.optimizer

    def _key(self, *settings):
        inner = self.blueprint.key
        return None if inner is None else (type(self).__name__, inner, *settings)


@dataclass(frozen=True)
class WithoutActivation(WrappingBlueprint):
    """A network without its last activation and with a flat output: logits for classes."""

    blueprint: Any

    @functools.cached_property
    def key(self):
        """See ``RecipeBlueprint.key``."""
        return self._key()

    def build(self):
        """Build the network."""
        import keras

        model, _ = without_activation(self.blueprint.build())
        if len(model.outputs[0].shape) == 2:
            return model
        return keras.Model(model.input, flat(model.outputs[0]), name=model.name)


# Not an attribute of the networks, so that it is not pickled with them.
_LOGITS = weakref.WeakKeyDictionary()


def logits_network(network):
    """The network that gives the log-odds of another one's probabilities; None without a sigmoid.

    Log-odds of a float32 probability near 1 have few correct digits, and differ between runtimes.
    """
    if network.blueprint is None:  # a part of a larger network that trains
        return None
    if network not in _LOGITS:
        from skstack._training.isolation import preserve_rng
        from skstack._training.network import Network

        with preserve_rng():
            model = network.blueprint.build()
        result = None
        if is_graph(model) and without_activation(model)[1] == "sigmoid":
            result = Network(WithoutActivation(network.blueprint), network.variables)
        _LOGITS.setdefault(network, result)  # the first of several threads wins
    return _LOGITS[network]


def cached_by_key(function):
    """Cache a function of a blueprint by its key; blueprints without a key are not cached."""
    cache = LRUCache(64)

    @functools.wraps(function)
    def wrapped(blueprint, *args):
        if blueprint.key is None:
            return function(blueprint, *args)
        return cache.get((blueprint.key, *args), lambda: function(blueprint, *args))

    return wrapped


# Bounds of Keras' activations; those that are not listed are unbounded.
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
_UNBOUNDED = (-np.inf, np.inf)


@cached_by_key
def output_bounds(blueprint):
    """Lower and upper bound of each output for any weights, two arrays of shape (n_outputs,)."""
    from skstack._training.isolation import build
    from skstack._training.spares import model_to_read

    with model_to_read(blueprint) as model:
        bounds = _bounds_behind(model, last_operation(model))
        outputs = getattr(model, "outputs", None)
        width = outputs[0].shape[-1] if outputs else blueprint.spec.units
    if bounds is None:
        bounds = _observed_bounds(build(blueprint))
    low, high = (np.broadcast_to(np.asarray(bound, np.float64), (width,)) for bound in bounds)
    return low, high


def _bounds_behind(model, operation):
    """Bounds of the output of an operation of a model; None if they cannot be determined."""
    import keras

    layers = keras.layers
    if isinstance(operation, keras.Model):
        return _bounds_behind(operation, last_operation(operation))
    passing = (
        layers.Reshape,
        layers.Flatten,
        layers.Identity,
        layers.Dropout,
        layers.GlobalAveragePooling1D,
    )
    if not is_builtin_keras(operation) or not isinstance(operation, layers.Layer):
        return None
    if isinstance(operation, layers.InputLayer):
        return _UNBOUNDED
    if isinstance(operation, (*passing, layers.Rescaling)):
        bounds = _bounds_before(model, operation)
        if bounds is None or not isinstance(operation, layers.Rescaling):
            return bounds
        ends = [
            np.asarray(bound) * np.asarray(operation.scale) + np.asarray(operation.offset)
            for bound in bounds
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
    unbounded = (
        layers.LeakyReLU,
        layers.PReLU,
        layers.BatchNormalization,
        layers.LayerNormalization,
    )
    if isinstance(operation, unbounded):
        return _UNBOUNDED
    if isinstance(operation, (layers.Add, layers.Subtract, layers.Average)):
        parts = [_behind_tensor(model, tensor) for tensor in operation.input]
        all_unbounded = all(part is not None and np.all(np.isinf(part)) for part in parts)
        return _UNBOUNDED if all_unbounded else None
    activation = getattr(operation, "activation", None)
    if isinstance(activation, layers.Layer):
        return _bounds_behind(model, activation) if not hasattr(activation, "axis") else None
    name = _builtin_name(activation) if callable(activation) else None
    return None if name is None else _BOUNDS.get(name, _UNBOUNDED)


def _bounds_before(model, operation):
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


def random_rows(tensors, n_rows, rng):
    """Random values for input tensors by name, to probe the outputs of a network."""
    rows = {}
    for name, tensor in tensors.items():
        shape = (n_rows, *[size or 4 for size in tensor.shape[1:]])
        discrete = "int" in tensor.dtype or "bool" in tensor.dtype
        values = rng.integers(2, size=shape) if discrete else rng.standard_normal(shape)
        rows[name] = values.astype(tensor.dtype)
    return rows


def _observed_bounds(model):
    """Bounds among -1, 0 and 1 that hold for the outputs of many random weights."""
    rng = np.random.default_rng(0)
    tensors = model.input if isinstance(getattr(model, "input", None), dict) else None
    if tensors is None:
        return _UNBOUNDED
    rows = random_rows(tensors, 32, rng)
    low, high = np.inf, -np.inf
    for _ in range(16):
        for variable in model.trainable_variables:
            variable.assign(rng.standard_normal(variable.shape))
        outputs = np.asarray(model(rows, training=False), dtype=np.float64)
        outputs = outputs[np.isfinite(outputs).all(axis=1)].reshape(-1, outputs.shape[-1])
        if len(outputs):
            low, high = np.minimum(low, outputs.min(axis=0)), np.maximum(high, outputs.max(axis=0))
    inside = (low >= -1) & (high <= 1)
    return (
        np.where(low >= 0, 0.0, np.where(inside, -1.0, -np.inf)),
        np.where(inside, 1.0, np.where((high <= 0) & (low < 0), 0.0, np.inf)),
    )


def with_target_units(model, mean, scale):
    """Append a layer ``target_units`` to a network that was trained on standardised targets."""
    import keras

    name = "target_units"
    while any(layer.name == name for layer in model.layers):  # taken in a saved network
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


def is_target_units(layer):
    """Whether a layer is one that `with_target_units` appends."""
    return getattr(layer, "equation", None) == "ab,b->ab" and not layer.trainable


def with_plain_input(model):
    """A network that takes a plain array if its only input has a name."""
    import keras

    if not isinstance(getattr(model, "input", None), dict) or len(model.inputs) != 1:
        return model
    return keras.Model(model.inputs[0], model.output, name=model.name)


def probabilities_of(estimator):
    """Function from X to an estimator's class probabilities; None if it has none.

    It returns an array of shape (n_rows, n_classes), or, for scikit-learn's trees with several
    labels, their list of arrays. scikeras drops an axis for a single row; the classifier of
    ``keras.wrappers`` has no ``predict_proba``, but its ``decision_function`` returns the outputs
    of its network.
    """
    if offers(estimator, "predict_proba"):

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


def columns_of_labels(probabilities, known, labels=None):
    """Probabilities of several labels, of lists of probabilities and known classes by label.

    ``labels`` are all classes of each label, of which ``known`` may lack some; None means
    ``known``. A label has one column, the probability of its last class, or, with more than two
    classes, one for each class.
    """
    if known is None:
        known = [np.arange(np.shape(p)[1]) for p in probabilities]
    columns, labels = [], known if labels is None else labels
    for p, own, every in zip(probabilities, known, labels, strict=True):
        p, own = np.asarray(p), np.asarray(own)
        columns += [p[:, own == each].sum(axis=1) for each in _shown(every)]
    return np.column_stack(columns)


def names_of_labels(labels):
    """Names of the columns of `columns_of_labels`, from the classes of each label."""
    names = []
    for index, every in enumerate(labels):
        shown = _shown(every)
        names += [str(index)] if len(shown) == 1 else [f"{index}_{each}" for each in shown]
    return names


def _shown(classes):
    """The classes of a label that have a column; a label may hold only 0, or only 1."""
    if np.isin(classes, (0, 1)).all():
        return [1]
    return classes if len(classes) > 2 else classes[-1:]


def in_order_of(classes, probabilities, known, *, absent=0.0):
    """Probabilities of shape (n_rows, n_classes) in the order of the sorted ``classes``.

    ``known`` are the classes of their columns, in any order; those that it lacks get ``absent``. A
    class that is not among ``classes`` raises a ValueError.
    """
    known = np.asarray(known)
    if probabilities.shape[1:] != known.shape:
        raise ValueError(
            f"its probabilities have the shape {probabilities.shape}, but it has "
            f"{len(known)} classes."
        )
    if np.array_equal(known, classes):
        return probabilities
    other = known[~np.isin(known, classes)]
    if len(other):
        raise ValueError(
            f"it has probabilities of the classes {known.tolist()}, but y holds "
            f"{np.asarray(classes).tolist()}."
        )
    filled = np.full((len(probabilities), len(classes)), absent, dtype=probabilities.dtype)
    filled[:, np.searchsorted(classes, known)] = probabilities
    return filled


def _normalised(estimator, outputs):
    """Outputs of a network with one unit for each class, normalised to probabilities."""
    if final_activation(estimator.model_) == "linear":
        outputs = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    elif outputs.min() < 0:
        raise ValueError(
            f"The network of this {type(estimator).__name__} ends with an activation that does not "
            "return probabilities. End it with a Dense layer with the activation 'softmax' or none."
        )
    return outputs / outputs.sum(axis=1, keepdims=True)
