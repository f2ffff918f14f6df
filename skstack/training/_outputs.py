"""Compiled predictions: one traced function for all networks of a blueprint."""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
import tensorflow as tf

from skstack.training._forks import refuse_after_fork
from skstack.training._layers import LayerNotFound, Recorder, find_layers
from skstack.training._seeds import build, environment, named_variables
from skstack.training._structure import call, call_input, flat_outputs, rows_at_once, takes_training

_MAX_MODELS = 64


class _Predictor:
    """One private model and its traced functions; weights come in as arguments."""

    def __init__(self, blueprint):
        self.model = build(blueprint)
        self.paths = list(named_variables(self.model))
        variables = self.model.variables
        trainable = {id(v) for v in self.model.trainable_variables}
        self._trainable = [i for i, v in enumerate(variables) if id(v) in trainable]
        position = {id(v): i for i, v in enumerate(variables)}
        self._fixed = [position[id(v)] for v in self.model.non_trainable_variables]
        self._functions = OrderedDict()
        self._tracing = threading.Lock()

    def tensors(self, variables) -> list:
        """Weights as tensors, in the model's order."""
        if variables.keys() != set(self.paths):
            raise ValueError(
                "The weights do not belong to this network. Missing: "
                f"{sorted(set(self.paths) - variables.keys())}; "
                f"unknown: {sorted(variables.keys() - set(self.paths))}."
            )
        # A copy: on CPU a tensor may otherwise look into the caller's array.
        return [
            tf.identity(tf.constant(np.array(variables[path]), dtype=variable.dtype))
            for path, variable in zip(self.paths, self.model.variables, strict=True)
        ]

    def function(self, inputs, layers, rows):
        """Concrete function of (weights, inputs) for chunks of `rows` rows."""
        signature = tuple((name, a.shape[1:], str(a.dtype)) for name, a in inputs.items())
        key = (signature, layers, rows)
        function = self._functions.get(key)
        if function is None:
            with self._tracing:
                function = self._functions.get(key)
                if function is None:
                    function = self._trace(signature, layers, rows)
                    self._functions[key] = function
                    if len(self._functions) > _MAX_MODELS:
                        self._functions.popitem(last=False)
        return function

    def _trace(self, signature, layers, rows):
        names = [name for name, _, _ in signature]
        wanted = None if layers is None else find_layers(self.model, layers)
        n_variables = len(self.paths)

        def run(*tensors):
            weights, data = tensors[:n_variables], tensors[n_variables:]
            x = call_input(self.model, dict(zip(names, data, strict=True)))
            if wanted is None:
                return _as_float32(flat_outputs(self._call(weights, x)))
            with Recorder(wanted) as recorder:
                self._call(weights, x)
            return _as_float32(recorder.outputs())

        specs = [tf.TensorSpec(v.shape, v.dtype) for v in self.model.variables]
        specs += [tf.TensorSpec((rows, *shape), dtype) for _, shape, dtype in signature]
        return tf.function(run, autograph=False).get_concrete_function(*specs)

    def _call(self, weights, x):
        told = {"training": False} if takes_training(self.model) else {}
        outputs, _ = self.model.stateless_call(
            [weights[i] for i in self._trainable], [weights[i] for i in self._fixed], x, **told
        )
        return outputs


class _EagerPredictor(_Predictor):
    """For models that cannot be called with weights as arguments: assign them, call eagerly."""

    def __init__(self, blueprint):
        super().__init__(blueprint)
        self._running = threading.Lock()

    def function(self, inputs, layers, rows):
        names = list(inputs)
        wanted = None if layers is None else find_layers(self.model, layers)
        n_variables = len(self.paths)

        def run(*tensors):
            with self._running:
                for variable, value in zip(
                    self.model.variables, tensors[:n_variables], strict=True
                ):
                    variable.value.assign(value)
                data = dict(zip(names, tensors[n_variables:], strict=True))
                x = call_input(self.model, data)
                if wanted is None:
                    return _as_float32(flat_outputs(call(self.model, x, training=False)))
                with Recorder(wanted) as recorder:
                    call(self.model, x, training=False)
                return _as_float32(recorder.outputs())

        return run


def _as_float32(tensors):
    return [tf.cast(tf.convert_to_tensor(tensor), "float32") for tensor in tensors]


_predictors: OrderedDict = OrderedDict()
_lock = threading.Lock()


def _predictor_of(blueprint, kind):
    if blueprint.key is None:
        return kind(blueprint)
    key = (kind, blueprint.key, environment())
    with _lock:
        predictor = _predictors.get(key)
        if predictor is not None:
            _predictors.move_to_end(key)
            return predictor
    predictor = kind(blueprint)  # built without the lock: a build may be slow, or predict itself
    with _lock:
        predictor = _predictors.setdefault(key, predictor)
        if len(_predictors) > _MAX_MODELS:
            _predictors.popitem(last=False)
    return predictor


def _prepare(network, kind):
    predictor = _predictor_of(network.blueprint, kind)
    network._prepared = predictor, predictor.tensors(network.variables)
    return network._prepared


def outputs(network, inputs, layers, rows) -> list[np.ndarray]:
    """See `Network.outputs`."""
    refuse_after_fork()
    inputs = {name: np.asarray(array) for name, array in inputs.items()}
    lengths = {len(array) for array in inputs.values()}
    if len(lengths) != 1:
        raise ValueError(f"All inputs must have the same number of rows, got {sorted(lengths)}.")
    if rows is not None and rows < 1:
        raise ValueError(f"`rows_at_once` must be at least 1, got {rows}.")
    layers = (layers,) if isinstance(layers, str) else layers
    layers = None if layers is None else tuple(layers)

    predictor, weights = network._prepared or _prepare(network, _Predictor)
    rows = rows or rows_at_once(predictor.model, inputs)
    try:
        function = predictor.function(inputs, layers, rows)
    except LayerNotFound:
        raise
    except Exception:  # whatever a user's layer may raise while it is traced
        predictor, weights = _prepare(network, _EagerPredictor)
        function = predictor.function(inputs, layers, rows)
    return _in_chunks(function, weights, list(inputs.values()), lengths.pop(), rows)


def _in_chunks(function, weights, arrays, n_rows, rows):
    results = None
    for start in range(0, max(n_rows, 1), rows):
        stop = min(start + rows, n_rows)
        chunk = [tf.convert_to_tensor(_padded(array[start:stop], rows)) for array in arrays]
        parts = [part.numpy() for part in function(*weights, *chunk)]
        if results is None:
            _check_rows(parts, rows)
            results = [np.empty((n_rows, *part.shape[1:]), np.float32) for part in parts]
        for result, part in zip(results, parts, strict=True):
            result[start:stop] = part[: stop - start]
    return results


def _padded(array, rows):
    if len(array) == rows:
        return array
    padded = np.zeros((rows, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded


def _check_rows(parts, rows):
    for part in parts:
        if part.ndim == 0 or part.shape[0] != rows:
            raise ValueError(
                "A network's outputs must have one row for each row of its inputs: got an output "
                f"of shape {part.shape} for {rows} rows."
            )
