"""One traced function for many fits at once: each has variables of its own, a *lane*.

A function that was traced from a model reads and writes that model's variables. Lifted, it takes
the handles of variables as arguments: any number of fits run one compiled function side by side.
"""

from __future__ import annotations

import contextlib
import math
import threading
from typing import Any

import numpy as np
import tensorflow as tf

HANDLE = tf.TensorSpec([], tf.resource)


def called(function, tensors) -> list:
    """Call a concrete function without the time that a look at its arguments takes."""
    tensors = [*map(_tensor, tensors), *function.captured_inputs]
    if not tf.executing_eagerly():
        return _partitioned(function, tensors)
    # By its name, for what TensorFlow keeps of `StatefulPartitionedCall` outlives the function.
    return function.inference_fn.call_flat(*tensors)


def _tensor(value):
    return value if isinstance(value, tf.Tensor) else tf.convert_to_tensor(value)


def _partitioned(function, arguments):
    returned = [tensor.dtype for tensor in function.outputs]
    outputs = tf.raw_ops.StatefulPartitionedCall(args=arguments, Tout=returned, f=function)
    return outputs if returned else []


class _Lent:
    """What is lent to one fit at a time; a new one is made when all others are out."""

    def __init__(self, make):
        self._make = make
        self._lock = threading.Lock()
        self.idle = []

    @contextlib.contextmanager
    def lend(self):
        with self._lock:
            one = self.idle.pop() if self.idle else self._make()
        try:
            yield one
        finally:
            with self._lock:
                self.idle.append(one)


class VariableLayout:
    """Variables of a model, of its optimizer and of its metrics; lanes hold one of each.

    Parameters
    ----------
    state : list of keras.Variable
        What a fit starts from and ends with.
    counters : list of keras.Variable
        What only lives while rows are counted.
    """

    def __init__(self, state, counters):
        self.state = list(state)
        known = {id(variable) for variable in self.state}
        self.all_variables = [*self.state, *(v for v in counters if id(v) not in known)]
        self._place = {
            id(variable.value.handle): i for i, variable in enumerate(self.all_variables)
        }
        self.specs = [HANDLE] * len(self.all_variables)
        self.shared = False  # a function writes to a variable that is in no lane
        self._dtypes = list(dict.fromkeys(variable.value.dtype for variable in self.state))
        self.lanes = _Lent(lambda: VariableSet(self.all_variables))

    @contextlib.contextmanager
    def lane(self, function, *, own: bool = False):
        """Lend a function of a list of tensors, on variables that nobody else has meanwhile.

        Parameters
        ----------
        function : tf.types.experimental.ConcreteFunction
            Takes the tensors and the handles of a lane.
        own : bool, default=False
            Whether it runs on the variables of the model itself.
        """
        if own:
            handles = [variable.value.handle for variable in self.all_variables]
            yield lambda tensors: called(function, [*tensors, *handles])
            return
        with self.lanes.lend() as lane:
            yield lambda tensors: called(function, [*tensors, *lane.handles])

    def lift_captures(self, function, specs, *, xla: bool = False):
        """Trace a function of tensors; the result takes the handles of a lane behind them.

        Parameters
        ----------
        function : callable
            Takes flat tensors of `specs`; returns a flat list of tensors, or None.
        specs : list of tf.TensorSpec
        xla : bool, default=False
            Whether XLA compiles it, at its first call.

        Returns
        -------
        lifted : tf.types.experimental.ConcreteFunction
        """
        traced = tf.function(function, autograph=False).get_concrete_function(*specs)
        captured = list(map(self._of_lane, traced.captured_inputs))

        def with_handles(*arguments):
            tensors, handles = arguments[: len(specs)], arguments[len(specs) :]
            held = [handles[c] if isinstance(c, int) else c for c in captured]
            return _partitioned(traced, [*tensors, *held])

        lifted = tf.function(with_handles, jit_compile=xla, autograph=False)
        return lifted.get_concrete_function(*specs, *self.specs)

    def _of_lane(self, tensor):
        place = self._place.get(id(tensor))
        if place is None and tensor.dtype == tf.resource:
            self.shared = True
        return tensor if place is None else place

    # A state travels packed: all values of a dtype in one vector, for arguments cost time.

    @property
    def packed_specs(self) -> list:
        """Specs of a packed state."""
        return [
            tf.TensorSpec([sum(_size(variable) for variable in self._of(dtype))], dtype)
            for dtype in self._dtypes
        ]

    def _of(self, dtype):
        return [variable for variable in self.state if variable.value.dtype == dtype]

    def pack(self, arrays) -> list[np.ndarray]:
        """Pack a state."""
        given = list(zip(self.state, arrays, strict=True))
        return [
            np.concatenate(
                [np.ravel(array) for v, array in given if v.value.dtype == dtype]
            ).astype(dtype.as_numpy_dtype, copy=False)
            for dtype in self._dtypes
        ]

    def unpack(self, packed) -> list[np.ndarray]:
        """Give the arrays of a packed state, new ones."""
        left = {d: np.array(vector) for d, vector in zip(self._dtypes, packed, strict=True)}
        arrays = []
        for variable in self.state:
            dtype, n = variable.value.dtype, _size(variable)
            arrays.append(left[dtype][:n].reshape(variable.shape).copy())
            left[dtype] = left[dtype][n:]
        return arrays

    def load(self, handles, packed) -> None:
        """Write a packed state into a lane, inside a trace."""
        parts = {
            dtype: tf.split(vector, [_size(variable) for variable in self._of(dtype)])
            for dtype, vector in zip(self._dtypes, packed, strict=True)
        }
        for handle, variable in zip(handles, self.state, strict=False):
            value = tf.reshape(parts[variable.value.dtype].pop(0), variable.shape)
            tf.raw_ops.AssignVariableOp(resource=handle, value=value)

    def read(self, handles) -> list:
        """Read the state of a lane, packed, inside a trace."""
        parts: dict[Any, list] = {dtype: [] for dtype in self._dtypes}
        for handle, variable in zip(handles, self.state, strict=False):
            dtype = variable.value.dtype
            value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)
            parts[dtype].append(tf.reshape(value, [_size(variable)]))
        return [tf.concat(vectors, axis=0) for vectors in parts.values()]


def _size(variable):
    return math.prod(variable.shape)


class VariableSet:
    """Variables like the given ones, for one fit at a time."""

    def __init__(self, like):
        self._variables = [
            tf.Variable(tf.zeros(v.shape, v.value.dtype), trainable=False) for v in like
        ]
        self.handles = [variable.handle for variable in self._variables]


class OwnSession:
    """Runs a function in a session of its own, for XLA's code is freed with the session alone.

    Parameters
    ----------
    function : tf.types.experimental.ConcreteFunction
        Takes tensors of `specs` and the handles of a lane.
    specs : list of tf.TensorSpec
    like : list of keras.Variable, default=()
        What a lane holds variables like.
    beside : OwnSession, default=None
        Whose session, and compiled code, it shares.
    """

    def __init__(self, function, specs, like=(), *, beside=None):
        self._function = function
        self._specs = specs
        self._like = like
        self._session = _new_session() if beside is None else beside._session
        self.lanes = _Lent(self._new_lane)
        self._n_lanes = 0

    def __call__(self, tensors) -> list:
        """Run it on some lane."""
        with self.lanes.lend() as run:
            return run(tensors)

    @staticmethod
    def suits(function) -> bool:
        """Whether a function uses no variables but a lane's, and no GPU: not tried there."""
        kinds = [tensor.dtype for tensor in function.captured_inputs]
        return tf.resource not in kinds and not tf.config.list_physical_devices("GPU")

    def lane(self):
        """See `VariableLayout.lane`."""
        return self.lanes.lend()

    def _new_lane(self):
        self._n_lanes += 1
        with self._session.graph.as_default():
            handles = [
                tf.raw_ops.VarHandleOp(
                    dtype=variable.value.dtype,
                    shape=variable.shape,
                    shared_name=f"lane_{self._n_lanes}_{i}",
                )
                for i, variable in enumerate(self._like)
            ]
            zeros = [
                tf.raw_ops.AssignVariableOp(
                    resource=handle, value=tf.zeros(variable.shape, variable.value.dtype)
                )
                for handle, variable in zip(handles, self._like, strict=True)
            ]
            takes = [tf.compat.v1.placeholder(spec.dtype, spec.shape) for spec in self._specs]
            captured = [tf.constant(tensor.numpy()) for tensor in self._function.captured_inputs]
            gives = _partitioned(self._function, [*takes, *handles, *captured])
            self._session.run(zeros)
            run = self._session.make_callable(gives, takes)
        return lambda tensors: list(run(*map(np.asarray, tensors)))


def _new_session():
    threads = tf.config.threading
    config = tf.compat.v1.ConfigProto(
        inter_op_parallelism_threads=threads.get_inter_op_parallelism_threads(),
        intra_op_parallelism_threads=threads.get_intra_op_parallelism_threads(),
    )
    # It would rewrite loops inside of functions for XLA in a way that XLA does not take.
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return tf.compat.v1.Session(graph=tf.Graph(), config=config)
