"""Predictions: one traced function for all networks of a blueprint."""

from __future__ import annotations

import functools
import math
import threading
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from keras import ops

from skstack._base.lru_cache import LRUCache
from skstack._training.blueprint import Blueprint
from skstack._training.formulas import pooled, pooling_of
from skstack._training.isolation import environment, refuse_after_fork
from skstack._training.keras_model import (
    LayerNotFound,
    Recorder,
    all_layers,
    call,
    call_input,
    check_indices,
    embedded_inputs,
    find_layers,
    flat_outputs,
    in_order,
    member_layers,
    named_variables,
    rows_at_once,
    takes_training,
)
from skstack._training.normalization import reading_their_variables
from skstack._training.spares import any_model
from skstack._training.variables import call_concrete
from skstack._training.xla_layers import replaced_calls

_MAX_MODELS = 64
_MAX_FUNCTIONS = 64  # of one model
# Products of matrices compute the last rows otherwise if they do not fill a block, of 4, 6, 8 or 12
# rows by processor: then the last bits of a prediction would depend on the position of its row.
_BLOCK_ROWS = 24
_MEMBERS_ROWS = _BLOCK_ROWS  # each row, padding too, passes through all members
_CALL_BYTES = 2**26  # of inputs and outputs of one call, which bounds memory for many rows
_AT_ONCE = 8  # chunks that may run in parallel


@dataclass(frozen=True)
class OutputRequest:
    """The requested outputs: of layers, or None for those of the network; pooling or None."""

    layers: tuple[str, ...] | None = None
    pooling: str | None = None

    def layers_in(self, model):
        return None if self.layers is None else find_layers(model, self.layers)

    def finish(self, tensors, members):
        """Tensors as float32, reduced to columns; `members` that of `member_layers`."""
        if self.pooling is None:
            return [tf.cast(tf.convert_to_tensor(tensor), "float32") for tensor in tensors]
        names = list(self.layers or ())
        if len(names) != len(tensors):  # a layer with several outputs
            names = [""] * len(tensors)
        return [
            as_columns(tensor, pooling_of(name, self.pooling, members))
            for name, tensor in zip(names, tensors, strict=True)
        ]


class _Predictor:
    """One private model and its traced functions, which take the weights as arguments."""

    def __init__(self, blueprint: Blueprint):
        self.model = reading_their_variables(any_model(blueprint))
        self.variables = named_variables(self.model)
        variables = self.model.variables
        trainable = {id(v) for v in self.model.trainable_variables}
        self._trainable = [i for i, v in enumerate(variables) if id(v) in trainable]
        position = {id(v): i for i, v in enumerate(variables)}
        self._fixed = [position[id(v)] for v in self.model.non_trainable_variables]
        self._layers = all_layers(self.model)
        self.embedding_bounds = embedded_inputs(self.model)
        self._rows_at_once: int | None = None
        self._functions: LRUCache[_Chunks] = LRUCache(_MAX_FUNCTIONS)
        self._tracing = threading.Lock()

    def rows_at_once(self, inputs) -> int:
        """Number of rows of a chunk."""
        if self._rows_at_once is None:
            rows = rows_at_once(self.model, inputs)
            if member_layers(self.model):
                rows = min(rows, _MEMBERS_ROWS)
            self._rows_at_once = max(rows // _BLOCK_ROWS, 1) * _BLOCK_ROWS
        return self._rows_at_once

    def tensors(self, variables) -> list:
        """Weights as tensors, in the model's order."""
        # A copy: on CPU a tensor may otherwise share memory with the caller's array.
        return [
            tf.identity(tf.constant(np.array(value), dtype=variable.dtype))
            for variable, value in zip(
                self.variables.values(), in_order(self.variables, variables), strict=True
            )
        ]

    def function(self, inputs, request, rows):
        """Return the traced functions for inputs of this signature, see `_Chunks`."""
        signature = tuple((name, a.shape[1:], str(a.dtype)) for name, a in inputs.items())
        key = (signature, request, rows)
        function = self._functions.find(key)
        if function is None:
            with self._tracing:  # a second thread waits until the first one has traced
                function = self._functions.get(key, lambda: _Chunks(self, signature, request, rows))
        return function

    def batch_function(self, names, request):
        """Return a function of weights and one batch of inputs that returns flat outputs."""
        layers = request.layers_in(self.model)
        finish = functools.partial(request.finish, members=member_layers(self.model))
        n_variables = len(self.variables)

        def run(*tensors):
            weights, data = tensors[:n_variables], tensors[n_variables:]
            x = call_input(self.model, dict(zip(names, data, strict=True)))
            with replaced_calls(self._layers):
                if layers is None:
                    return finish(flat_outputs(self._call(weights, x)))
                with Recorder(layers) as recorder:
                    self._call(weights, x)
            return finish(recorder.outputs())

        return run

    def _call(self, weights, x):
        arguments = {"training": False} if takes_training(self.model) else {}
        outputs, _ = self.model.stateless_call(
            [weights[i] for i in self._trainable], [weights[i] for i in self._fixed], x, **arguments
        )
        return outputs


class _Chunks:
    """Computes outputs of any number of rows in padded chunks of one size, many in parallel.

    XLA would compile for longer than it saves in the predictions of a million rows.
    """

    def __init__(self, predictor, signature, request, rows):
        names = [name for name, _, _ in signature]
        weights = [tf.TensorSpec(v.shape, v.dtype) for v in predictor.model.variables]
        specs = [tf.TensorSpec((rows, *shape), dtype) for _, shape, dtype in signature]
        self._specs = weights, specs
        run = tf.function(predictor.batch_function(names, request), autograph=False)
        self._chunk = run.get_concrete_function(*weights, *specs)
        _check_rows([output.shape for output in self._chunk.outputs], rows)
        self.rows = rows
        self.row_bytes = _row_bytes(specs) + _row_bytes(self._chunk.outputs)
        self._many = None
        self._tracing = threading.Lock()

    def __call__(self, weights, arrays) -> list:
        """Outputs of at most `rows` rows, padded to `rows`."""
        data = [_padded(array, self.rows) for array in arrays]
        return _numpy(call_concrete(self._chunk, [*weights, *data]))

    def many(self, weights, arrays) -> list:
        """Outputs of a whole number of chunks."""
        if self._many is None:
            with self._tracing:
                if self._many is None:
                    self._many = self._many_function()
        return _numpy(call_concrete(self._many, [*weights, *arrays]))

    def _many_function(self):
        weights, specs = self._specs
        specs = [tf.TensorSpec((None, *spec.shape[1:]), spec.dtype) for spec in specs]
        shapes = [output.shape for output in self._chunk.outputs]

        def run(*tensors):
            weights_, data = tensors[: len(weights)], tensors[len(weights) :]
            n = tf.shape(data[0])[0] // self.rows

            def one(i, *results):
                rows = [t[i * self.rows : (i + 1) * self.rows] for t in data]
                rows = [tf.ensure_shape(t, (self.rows, *t.shape[1:])) for t in rows]
                parts = self._chunk(*weights_, *rows)
                return i + 1, *(
                    result.write(i, part) for result, part in zip(results, parts, strict=True)
                )

            empty = [tf.TensorArray(tf.float32, n, element_shape=shape) for shape in shapes]
            results = tf.while_loop(
                lambda i, *_: i < n, one, (0, *empty), parallel_iterations=_AT_ONCE
            )
            return [result.concat() for result in results[1:]]

        return tf.function(run, autograph=False).get_concrete_function(*weights, *specs)


class _EagerPredictor(_Predictor):
    """For models that cannot be traced: assigns the weights and calls the model eagerly."""

    def __init__(self, blueprint: Blueprint):
        super().__init__(blueprint)
        self.running = threading.Lock()

    def function(self, inputs, request, rows):
        return _EagerChunks(self, list(inputs), request, rows)


class _EagerChunks:
    many = None

    def __init__(self, predictor, names, request, rows):
        self.rows = rows
        self._predictor = predictor
        self._names = names
        self._request = request
        self._layers = request.layers_in(predictor.model)

    def __call__(self, weights, arrays):
        model, layers = self._predictor.model, self._layers
        with self._predictor.running:
            for variable, value in zip(model.variables, weights, strict=True):
                variable.value.assign(value)
            data = [tf.convert_to_tensor(_padded(array, self.rows)) for array in arrays]
            x = call_input(model, dict(zip(self._names, data, strict=True)))
            if layers is None:
                parts = flat_outputs(call(model, x, training=False))
            else:
                with Recorder(layers) as recorder:
                    call(model, x, training=False)
                parts = recorder.outputs()
        parts = self._request.finish(parts, member_layers(self._predictor.model))
        _check_rows([part.shape for part in parts], self.rows)
        return _numpy(parts)


def _row_bytes(tensors):
    return sum(tensor.dtype.size * max(math.prod(tensor.shape[1:]), 1) for tensor in tensors)


def _numpy(tensors):
    return [tensor.numpy() for tensor in tensors]


_PREDICTORS: LRUCache[_Predictor] = LRUCache(_MAX_MODELS)


def _predictor_of(blueprint: Blueprint, kind: type[_Predictor]) -> _Predictor:
    if blueprint.key is None:
        return kind(blueprint)
    return _PREDICTORS.get((kind, blueprint.key, environment()), lambda: kind(blueprint))


def _prepare(network, kind):
    """Keep the predictor of a network, the weights as tensors, and what they were made under."""
    predictor = _predictor_of(network.blueprint, kind)
    network.prepared = predictor, predictor.tensors(network.variables), environment()
    return network.prepared


def outputs(network, inputs, layers, rows, pooling) -> list[np.ndarray]:
    """See `Network.outputs`."""
    refuse_after_fork()
    inputs = {name: np.asarray(array) for name, array in inputs.items()}
    lengths = {len(array) for array in inputs.values()}
    if len(lengths) != 1:
        raise ValueError(f"All inputs must have the same number of rows, got {sorted(lengths)}.")
    if rows is not None and rows < 1:
        raise ValueError(f"`rows_at_once` must be at least 1, got {rows}.")
    layers = (layers,) if isinstance(layers, str) else layers
    request = OutputRequest(None if layers is None else tuple(layers), pooling)

    prepared = network.prepared
    if prepared is None or prepared[2] != environment():
        prepared = _prepare(network, _Predictor)
    predictor, weights, _ = prepared
    if predictor.embedding_bounds:
        check_indices(predictor.model, inputs, predictor.embedding_bounds)
    rows = rows or predictor.rows_at_once(inputs)
    try:
        function = predictor.function(inputs, request, rows)
    except LayerNotFound:
        raise
    except Exception:  # a user's layer may raise anything while it is traced
        predictor, weights, _ = _prepare(network, _EagerPredictor)
        function = predictor.function(inputs, request, rows)
    return _in_chunks(function, weights, list(inputs.values()), lengths.pop())


def _in_chunks(chunks, weights, arrays, n_rows):
    if n_rows <= chunks.rows or chunks.many is None:
        step, compute = chunks.rows, chunks
    else:
        step = max(_CALL_BYTES // chunks.row_bytes // chunks.rows, 1) * chunks.rows

        def compute(weights, parts):
            whole = -(-len(parts[0]) // chunks.rows) * chunks.rows
            return chunks.many(weights, [_padded(part, whole) for part in parts])

    if 0 < n_rows <= step:
        return [part[:n_rows] for part in compute(weights, arrays)]
    results = None
    for start in range(0, max(n_rows, 1), step):
        stop = min(start + step, n_rows)
        parts = compute(weights, [array[start:stop] for array in arrays])
        if results is None:
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


def _check_rows(shapes, rows):
    for shape in shapes:
        if shape.rank is None or shape.rank == 0 or shape[0] != rows:
            raise ValueError(
                "A network's outputs must have one row for each row of its inputs: got an output "
                f"of shape {tuple(shape)} for {rows} rows."
            )


def as_columns(tensor, pooling):
    """A layer's output as a float32 tensor of shape (n_rows, n_columns); see `pooled`."""
    mask = getattr(tensor, "_keras_mask", None)  # Keras keeps it as an attribute of the tensor
    tensor = tf.cast(tf.convert_to_tensor(tensor), "float32")
    rank = tensor.shape.rank
    if rank is None or rank < 2:
        return tf.reshape(tensor, (tf.shape(tensor)[0], -1))
    return tensor if rank == 2 else pooled(tensor, pooling, ops, mask)
