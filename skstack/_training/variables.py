"""One traced function for many fits at the same time, each with a set of variables of its own.

A function that is traced from a model reads and writes the model's variables, because Keras'
optimizers have no `stateless_apply` on TensorFlow. Lifting the captured handles to arguments lets
any number of fits run one compiled function in parallel.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.config_pb2 import CallableOptions


def call_concrete(function: Any, tensors: Iterable) -> list:
    """Call a concrete function without the overhead of inspecting its arguments."""
    tensors = [*map(_tensor, tensors), *function.captured_inputs]
    if not tf.executing_eagerly():
        return _partitioned(function, tensors)
    # By name: what TensorFlow caches for `StatefulPartitionedCall` outlives the function.
    return function.inference_fn.call_flat(*tensors)


def _tensor(value):
    return value if isinstance(value, tf.Tensor) else tf.convert_to_tensor(value)


def _partitioned(function: Any, arguments: list) -> list:
    returned = [tensor.dtype for tensor in function.outputs]
    outputs = tf.raw_ops.StatefulPartitionedCall(args=arguments, Tout=returned, f=function)
    return outputs if returned else []


class Lifted:
    """A traced function of tensors that runs on the variables of any set.

    Parameters
    ----------
    traced : tf.types.experimental.ConcreteFunction
    captured : list of int or tf.Tensor
        What the function has captured: the index of a variable in a set, or another tensor.
    """

    def __init__(self, traced: Any, captured: list):
        self.traced = traced
        self.captured = captured

    def __call__(self, tensors: Iterable, handles: Sequence) -> list:
        captured = [handles[c] if isinstance(c, int) else c for c in self.captured]
        # Not `_partitioned` inside a trace: this call tells XLA which function to compile.
        outputs = self.traced.inference_fn.call_flat(*map(_tensor, tensors), *captured)
        return list(outputs) if isinstance(outputs, (list, tuple)) else []


class _ObjectPool:
    """Objects that are used by one fit at a time; a new one is made when all are in use."""

    def __init__(self, make: Callable):
        self._make = make
        self._lock = threading.Lock()
        self.idle: list = []

    @contextlib.contextmanager
    def acquire(self):
        with self._lock:
            value = self.idle.pop() if self.idle else self._make()
        try:
            yield value
        finally:
            with self._lock:
                self.idle.append(value)


class VariableLayout:
    """The variables of a model, its optimizer and its metrics; a `VariableSet` has one of each.

    Parameters
    ----------
    state : list of keras.Variable
        Weights and the state of the optimizer.
    counters : list of keras.Variable
        State of metrics, which does not outlive an epoch.
    """

    def __init__(self, state: Iterable, counters: Iterable):
        self.state = list(state)
        known = {id(variable) for variable in self.state}
        self.all_variables = [*self.state, *(v for v in counters if id(v) not in known)]
        self._index = {
            id(variable.value.handle): i for i, variable in enumerate(self.all_variables)
        }
        self.captures_others = False  # whether a function uses a variable outside of the sets
        # Read once: a fit packs and unpacks states, and Keras takes its time over each.
        self._shapes = [tuple(variable.shape) for variable in self.state]
        self._sizes = list(map(math.prod, self._shapes))
        self._kinds = [variable.value.dtype for variable in self.state]
        self._dtypes = list(dict.fromkeys(self._kinds))
        self.variable_sets = _ObjectPool(lambda: VariableSet(self.all_variables))

    @property
    def handles(self) -> list:
        """Handles of the variables of the model itself."""
        return [variable.value.handle for variable in self.all_variables]

    @contextlib.contextmanager
    def bind(self, function: Callable, *, own: bool = False) -> Iterator[Callable[[list], list]]:
        """Context: a function of a list of tensors, bound to variables that no other fit uses.

        Parameters
        ----------
        function : callable
            Takes a list of tensors and the handles of a set.
        own : bool, default=False
            Whether to bind it to the variables of the model itself.
        """
        if own:
            handles = self.handles
            yield lambda tensors: function(tensors, handles)
            return
        with self.variable_sets.acquire() as variables:
            yield lambda tensors: function(tensors, variables.handles)

    def lift_captures(self, function: Callable, specs: list, *, xla: bool = False) -> Lifted:
        """Trace a function of flat tensors that uses the model's variables.

        With `xla`, XLA compiles it at its first call.
        """
        traced = tf.function(function, autograph=False).get_concrete_function(*specs)
        captured = list(map(self._argument_of, traced.captured_inputs))
        if not xla:
            return Lifted(traced, captured)

        def compiled(*arguments):
            tensors, handles = arguments[: len(specs)], arguments[len(specs) :]
            resolved = [handles[c] if isinstance(c, int) else c for c in captured]
            return _partitioned(traced, [*tensors, *resolved])

        # In a function of its own: loops are traced in another way for XLA.
        handles = [tf.TensorSpec([], tf.resource)] * len(self.all_variables)
        outer = tf.function(compiled, jit_compile=True, autograph=False)
        outer = outer.get_concrete_function(*specs, *handles)
        return Lifted(outer, [*range(len(handles)), *outer.captured_inputs])

    def _argument_of(self, tensor):
        index = self._index.get(id(tensor))
        if index is None and tensor.dtype == tf.resource:
            self.captures_others = True
        return tensor if index is None else index

    # States are passed packed, one vector for each dtype, because each argument costs time.

    @property
    def packed_specs(self) -> list:
        """Specs of a packed state."""
        return [tf.TensorSpec([sum(self._sizes_of(dtype))], dtype) for dtype in self._dtypes]

    def _sizes_of(self, dtype):
        pairs = zip(self._kinds, self._sizes, strict=True)
        return [size for kind, size in pairs if kind == dtype]

    def pack(self, arrays: Iterable[np.ndarray]) -> list[np.ndarray]:
        """Pack a state."""
        pairs = list(zip(self._kinds, arrays, strict=True))
        return [
            np.concatenate([np.ravel(array) for kind, array in pairs if kind == dtype]).astype(
                dtype.as_numpy_dtype, copy=False
            )
            for dtype in self._dtypes
        ]

    def unpack(self, packed: Iterable) -> list[np.ndarray]:
        """Return new arrays of a packed state."""
        remaining = {d: np.array(vector) for d, vector in zip(self._dtypes, packed, strict=True)}
        arrays = []
        for dtype, n, shape in zip(self._kinds, self._sizes, self._shapes, strict=True):
            arrays.append(remaining[dtype][:n].reshape(shape).copy())
            remaining[dtype] = remaining[dtype][n:]
        return arrays

    def load(self, handles: Iterable, packed: Iterable) -> None:
        """Write a packed state into a set."""
        for handle, value in zip(handles, self._split(packed), strict=False):
            tf.raw_ops.AssignVariableOp(resource=handle, value=value)

    def _split(self, packed):
        if tf.executing_eagerly():
            return self.unpack(packed)
        parts = {
            dtype: tf.split(vector, self._sizes_of(dtype))
            for dtype, vector in zip(self._dtypes, packed, strict=True)
        }
        reshaped = _reshaper()
        pairs = zip(self._kinds, self._shapes, strict=True)
        return [reshaped(parts[kind].pop(0), shape) for kind, shape in pairs]

    def read(self, handles: Iterable) -> list:
        """Read the packed state of a set."""
        pairs = zip(handles, self._kinds, strict=False)
        values = [tf.raw_ops.ReadVariableOp(resource=handle, dtype=kind) for handle, kind in pairs]
        if tf.executing_eagerly():
            return self.pack(value.numpy() for value in values)
        parts: dict[Any, list] = {dtype: [] for dtype in self._dtypes}
        reshaped = _reshaper()
        for value, kind, size in zip(values, self._kinds, self._sizes, strict=True):
            parts[kind].append(reshaped(value, (size,)))
        return [tf.concat(vectors, axis=0) for vectors in parts.values()]


def _reshaper() -> Callable:
    """A function that reshapes in few operations, inside a trace: each takes time to trace."""
    constants: dict[tuple, Any] = {}

    def reshaped(value, shape):
        if len(shape) == 1 and value.shape.rank == 1:
            return value
        if shape not in constants:
            constants[shape] = tf.constant(shape, tf.int32)
        return tf.raw_ops.Reshape(tensor=value, shape=constants[shape])

    return reshaped


class VariableSet:
    """Variables like those of a model, for one fit at a time."""

    def __init__(self, like: list):
        self._variables = [
            tf.Variable(tf.zeros(v.shape, v.value.dtype), trainable=False) for v in like
        ]
        self.handles = [variable.handle for variable in self._variables]


class OwnSession:
    """Runs a function in a session of its own, because XLA's code is only freed with the session.

    Parameters
    ----------
    function : Lifted
        Takes tensors of `specs`.
    specs : list of tf.TensorSpec
    like : list of keras.Variable
        A set has one variable like each of these.
    """

    def __init__(self, function, specs, like):
        self._function = function
        self._specs = specs
        self._like = like
        self._session = _new_session()
        self.variable_sets = _ObjectPool(self._new_set)
        self._n_sets = 0

    @staticmethod
    def suits(function: Lifted) -> bool:
        """Whether a function uses only variables of a set; GPUs are untested and refused."""
        others = [tensor.dtype for tensor in function.captured if not isinstance(tensor, int)]
        return tf.resource not in others and not tf.config.list_physical_devices("GPU")

    def bind(self):
        """See `VariableLayout.bind`."""
        return self.variable_sets.acquire()

    def _new_set(self):
        self._n_sets += 1
        with self._session.graph.as_default():
            handles = [
                tf.raw_ops.VarHandleOp(
                    dtype=variable.value.dtype,
                    shape=variable.shape,
                    shared_name=f"set_{self._n_sets}_{i}",
                )
                for i, variable in enumerate(self._like)
            ]
            zeros = [
                tf.raw_ops.AssignVariableOp(
                    resource=handle, value=tf.zeros(variable.shape, variable.value.dtype)
                )
                for handle, variable in zip(handles, self._like, strict=True)
            ]
            placeholders = [
                tf.compat.v1.placeholder(spec.dtype, spec.shape) for spec in self._specs
            ]
            captured = [
                handles[c] if isinstance(c, int) else tf.constant(c.numpy())
                for c in self._function.captured
            ]
            outputs = _partitioned(self._function.traced, [*placeholders, *captured])
            self._session.run(zeros)
            # `make_callable` looks up every tensor in each call, which takes as long as 50 steps.
            options = CallableOptions(
                feed=[tensor.name for tensor in placeholders],
                fetch=[tensor.name for tensor in outputs],
            )
            run = self._session._make_callable_from_options(options)
        return lambda tensors: list(run(*map(np.asarray, tensors)))


def _new_session():
    threads = tf.config.threading
    config = tf.compat.v1.ConfigProto(
        inter_op_parallelism_threads=threads.get_inter_op_parallelism_threads(),
        intra_op_parallelism_threads=threads.get_intra_op_parallelism_threads(),
    )
    # The optimizer rewrites loops inside functions for XLA in a way that XLA cannot compile.
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return tf.compat.v1.Session(graph=tf.Graph(), config=config)
