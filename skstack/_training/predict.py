"""Compiled predictions: one traced function for all networks of a blueprint."""

# Outputs of rank 3 and more as columns, before they leave the graph and lose their masks.

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from keras import ops

from skstack._base.lru_cache import LRUCache
from skstack._training.engines import quick_with_xla
from skstack._training.fork_guard import refuse_after_fork
from skstack._training.formulas import pooled
from skstack._training.layers import (
    LayerNotFound,
    Recorder,
    check_indices,
    embedded_inputs,
    find_layers,
)
from skstack._training.model_io import (
    call,
    call_input,
    flat_outputs,
    rows_at_once,
    takes_training,
)
from skstack._training.normalization import reading_their_variables
from skstack._training.seeds import build, environment, named_variables
from skstack._training.variables import OwnSession, called

_MAX_MODELS = 64
_MAX_FUNCTIONS = 64  # of one model
_BATCH = 128  # rows that XLA takes at once: they stay in the processor's cache
_BLOCK_BYTES = 2**18  # of them, for a block is what one row costs
_CALL_BYTES = 2**26  # of inputs and outputs: what a stream of rows takes in memory
_AT_ONCE = 8  # chunks, on as many cores as there are


@dataclass(frozen=True)
class Asked:
    """Which outputs: those of layers, or None for the network's own; pooled to columns or not."""

    layers: tuple[str, ...] | None = None
    pooling: str | None = None

    def found_in(self, model):
        return None if self.layers is None else find_layers(model, self.layers)

    def finish(self, tensors):
        if self.pooling is None:
            return [tf.cast(tf.convert_to_tensor(tensor), "float32") for tensor in tensors]
        return [as_columns(tensor, self.pooling) for tensor in tensors]


class _Predictor:
    """One private model and its traced functions; weights come in as arguments."""

    def __init__(self, blueprint):
        self.model = reading_their_variables(build(blueprint))
        self.paths = list(named_variables(self.model))
        variables = self.model.variables
        trainable = {id(v) for v in self.model.trainable_variables}
        self._trainable = [i for i, v in enumerate(variables) if id(v) in trainable]
        position = {id(v): i for i, v in enumerate(variables)}
        self._fixed = [position[id(v)] for v in self.model.non_trainable_variables]
        self._xla = quick_with_xla(self.model)
        self.bounds = embedded_inputs(self.model)
        self._rows_at_once = None
        self._functions: LRUCache[_Chunks] = LRUCache(_MAX_FUNCTIONS)
        self._tracing = threading.Lock()

    def rows_at_once(self, inputs) -> int:
        """Rows in a chunk without XLA."""
        if self._rows_at_once is None:
            self._rows_at_once = rows_at_once(self.model, inputs)
        return self._rows_at_once

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

    def function(self, inputs, asked, rows):
        """Traced functions for inputs of this kind, see `_Chunks`."""
        signature = tuple((name, a.shape[1:], str(a.dtype)) for name, a in inputs.items())
        key = (signature, asked, rows)
        function = self._functions.find(key)
        if function is None:
            with self._tracing:  # a second thread waits for what the first one traces
                function = self._functions.get(key, lambda: self._trace(signature, asked, rows))
        return function

    def _trace(self, signature, asked, rows):
        if self._xla:
            try:
                return _Chunks(self, signature, asked, _BATCH, xla=True)
            except (LayerNotFound, tf.errors.ResourceExhaustedError):
                raise
            except Exception:  # whatever the compiler does not take
                self._xla = False
        return _Chunks(self, signature, asked, rows, xla=False)

    def of_batch(self, names, asked):
        """Make the function of weights and one batch of inputs that gives outputs, flat."""
        layers, finish = asked.found_in(self.model), asked.finish
        n_variables = len(self.paths)

        def run(*tensors):
            weights, data = tensors[:n_variables], tensors[n_variables:]
            x = call_input(self.model, dict(zip(names, data, strict=True)))
            if layers is None:
                return finish(flat_outputs(self._call(weights, x)))
            with Recorder(layers) as recorder:
                self._call(weights, x)
            return finish(recorder.outputs())

        return run

    def _call(self, weights, x):
        told = {"training": False} if takes_training(self.model) else {}
        outputs, _ = self.model.stateless_call(
            [weights[i] for i in self._trainable], [weights[i] for i in self._fixed], x, **told
        )
        return outputs


class _Chunks:
    """Outputs of any number of rows, always in padded chunks of one size.

    With XLA a chunk is made of small batches, as many as the rows need; without, it is one batch.
    Many chunks are computed side by side.
    """

    def __init__(self, predictor, signature, asked, rows, *, xla):
        names = [name for name, _, _ in signature]
        weights = [tf.TensorSpec(v.shape, v.dtype) for v in predictor.model.variables]
        self._n_weights = len(weights)
        specs = [tf.TensorSpec((rows, *shape), dtype) for _, shape, dtype in signature]
        self._specs = weights, specs
        run = tf.function(predictor.of_batch(names, asked), autograph=False)
        self._batch = run.get_concrete_function(*weights, *specs)
        _check_rows([output.shape for output in self._batch.outputs], rows)
        self._n_batches = 1
        self._chunk = self._batch
        row_bytes = _row_bytes(specs)
        self.row_bytes = row_bytes + _row_bytes(self._batch.outputs)
        if xla:
            self._n_batches = min(max(_BLOCK_BYTES // (rows * row_bytes), 1), 32)
            self._chunk = self._of_batches()
        self.rows = rows * self._n_batches
        self._many = None
        self._tracing = threading.Lock()
        self._given = [tf.constant(n) for n in range(self._n_batches + 1)] if xla else None
        self._run: Callable = functools.partial(called, self._chunk)
        if xla:
            if OwnSession.suits(self._chunk):
                self._run = OwnSession(self._chunk, self._takes())
            # Compiled, or not, at the first call.
            self._run([tf.zeros(spec.shape, spec.dtype) for spec in self._takes()])

    def _takes(self):
        weights, specs = self._specs
        blocks = [tf.TensorSpec((self._n_batches, *spec.shape), spec.dtype) for spec in specs]
        return [*weights, *blocks, tf.TensorSpec([], tf.int32)]

    def _of_batches(self):
        shapes = [(self._n_batches, *output.shape) for output in self._batch.outputs]

        def block(*tensors):
            weights, (*blocks, n) = tensors[: self._n_weights], tensors[self._n_weights :]

            def one(i, *results):
                outputs = called(self._batch, [*weights, *(block[i] for block in blocks)])
                return i + 1, *(
                    tf.tensor_scatter_nd_update(result, [[i]], [output])
                    for result, output in zip(results, outputs, strict=True)
                )

            empty = [tf.zeros(shape, tf.float32) for shape in shapes]
            return tf.while_loop(lambda i, *_: i < n, one, (0, *empty))[1:]

        compiled = tf.function(block, jit_compile=True, autograph=False)
        compiled = compiled.get_concrete_function(*self._takes())
        # The attribute that XLA compiles it stands at its call, hence one around it.
        around = tf.function(lambda *tensors: compiled(*tensors), autograph=False)
        return around.get_concrete_function(*self._takes())

    def __call__(self, weights, arrays) -> list:
        """Outputs of at most `rows` rows, filled up."""
        data = [_padded(array, self.rows) for array in arrays]
        if self._given is None:
            return _numpy(self._run([*weights, *data]))
        n = self._given[-(-len(arrays[0]) // _BATCH)]
        shape = (self._n_batches, _BATCH)
        data = [array.reshape(*shape, *array.shape[1:]) for array in data]
        parts = _numpy(self._run([*weights, *data, n]))
        return [part.reshape(self.rows, *part.shape[2:]) for part in parts]

    def many(self, weights, arrays) -> list:
        """Outputs of a whole number of chunks."""
        if self._many is None:
            with self._tracing:
                if self._many is None:
                    self._many = self._of_chunks()
        return _numpy(self._many([*weights, *arrays]))

    def _of_chunks(self):
        weights, specs = self._specs
        specs = [tf.TensorSpec((None, *spec.shape[1:]), spec.dtype) for spec in specs]
        outputs = [(self.rows, *output.shape[1:]) for output in self._batch.outputs]

        def run(*tensors):
            weights, data = tensors[: self._n_weights], tensors[self._n_weights :]
            n = tf.shape(data[0])[0] // self.rows

            def one(i, *results):
                rows = [t[i * self.rows : (i + 1) * self.rows] for t in data]
                if self._given is None:
                    rows = [tf.ensure_shape(t, (self.rows, *t.shape[1:])) for t in rows]
                else:
                    shape = (self._n_batches, _BATCH)
                    rows = [tf.reshape(t, (*shape, *t.shape[1:])) for t in rows]
                    rows.append(tf.constant(self._n_batches))
                parts = self._chunk(*weights, *rows)
                return i + 1, *(
                    result.write(i, tf.reshape(part, shape))
                    for result, part, shape in zip(results, parts, outputs, strict=True)
                )

            empty = [tf.TensorArray(tf.float32, n, element_shape=shape) for shape in outputs]
            results = tf.while_loop(
                lambda i, *_: i < n, one, (0, *empty), parallel_iterations=_AT_ONCE
            )
            return [result.concat() for result in results[1:]]

        many = tf.function(run, autograph=False).get_concrete_function(*weights, *specs)
        if isinstance(self._run, OwnSession):
            return OwnSession(many, [*weights, *specs], beside=self._run)
        return functools.partial(called, many)


class _EagerPredictor(_Predictor):
    """For models that cannot be called with weights as arguments: assign them, call eagerly."""

    def __init__(self, blueprint):
        super().__init__(blueprint)
        self._running = threading.Lock()

    def function(self, inputs, asked, rows):
        return _EagerChunks(self, list(inputs), asked, rows)


class _EagerChunks:
    many = None

    def __init__(self, predictor, names, asked, rows):
        self.rows = rows
        self._predictor = predictor
        self._names = names
        self._asked = asked
        self._layers = asked.found_in(predictor.model)

    def __call__(self, weights, arrays):
        model, layers = self._predictor.model, self._layers
        with self._predictor._running:
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
        parts = self._asked.finish(parts)
        _check_rows([part.shape for part in parts], self.rows)
        return _numpy(parts)


def _row_bytes(tensors):
    return sum(tensor.dtype.size * max(math.prod(tensor.shape[1:]), 1) for tensor in tensors)


def _numpy(tensors):
    return [each if isinstance(each, np.ndarray) else each.numpy() for each in tensors]


_PREDICTORS: LRUCache[_Predictor] = LRUCache(_MAX_MODELS)


def _predictor_of(blueprint, kind):
    if blueprint.key is None:
        return kind(blueprint)
    return _PREDICTORS.get((kind, blueprint.key, environment()), lambda: kind(blueprint))


def _prepare(network, kind):
    predictor = _predictor_of(network.blueprint, kind)
    network._prepared = predictor, predictor.tensors(network.variables)
    return network._prepared


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
    asked = Asked(None if layers is None else tuple(layers), pooling)

    predictor, weights = network._prepared or _prepare(network, _Predictor)
    if predictor.bounds:
        check_indices(predictor.model, inputs, predictor.bounds)
    rows = rows or predictor.rows_at_once(inputs)
    try:
        function = predictor.function(inputs, asked, rows)
    except LayerNotFound:
        raise
    except Exception:  # whatever a user's layer may raise while it is traced
        predictor, weights = _prepare(network, _EagerPredictor)
        function = predictor.function(inputs, asked, rows)
    return _of_all(function, weights, list(inputs.values()), lengths.pop())


def _of_all(chunks, weights, arrays, n_rows):
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
