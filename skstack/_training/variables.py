"""One traced function for many fits at once: each has variables of its own, a *lane*.

A function that was traced from a model reads and writes that model's variables. Lifted, it takes
the handles of variables as arguments: any number of fits run one compiled function side by side.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import tensorflow as tf

HANDLE = tf.TensorSpec([], tf.resource)


def called(function, tensors) -> list:
    """Call a concrete function without the time that a look at its arguments takes."""
    return _partitioned(function, [*map(tf.convert_to_tensor, tensors), *function.captured_inputs])


def _partitioned(function, arguments):
    returned = [tensor.dtype for tensor in function.outputs]
    outputs = tf.raw_ops.StatefulPartitionedCall(args=arguments, Tout=returned, f=function)
    return outputs if returned else []


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
        self._all = [*self.state, *(v for v in counters if id(v) not in known)]
        self._place = {id(variable.value.handle): i for i, variable in enumerate(self._all)}
        self.specs = [HANDLE] * len(self._all)
        self.shared = False  # a function writes to a variable that is in no lane
        self._dtypes = list(dict.fromkeys(variable.value.dtype for variable in self.state))
        self._idle = []
        self._lock = threading.Lock()

    def own(self) -> list:
        """Handles of the model's own variables."""
        return [variable.value.handle for variable in self._all]

    def take(self) -> VariableSet:
        """Lend a lane; give it back when the fit has ended."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return VariableSet(self._all)

    def give_back(self, lane) -> None:
        """Take a lane back."""
        with self._lock:
            self._idle.append(lane)

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
