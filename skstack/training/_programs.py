"""Programs: private models with traced functions, kept in a pool and used by one fit at a time."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import OrderedDict

import tensorflow as tf

from skstack.training._epochs import epochs_function, evaluation_function
from skstack.training._network import assign
from skstack.training._seeds import build, named_variables, values
from skstack.training._structure import (
    call,
    call_input,
    compute_loss,
    rows_at_once,
)
from skstack.training._watching import plain

_MAX_IDLE = 48


class Program:
    """One private model and optimizer, compiled, and the functions traced from them.

    Its model is never handed out, except to callbacks while they watch.
    """

    def __init__(self, blueprint, ingredients, table, key):
        self.key = key
        self.loss = ingredients.loss
        self.batch_size = ingredients.batch_size
        self.broken = {}  # road -> why it cannot be taken
        self.traces = 0
        self._functions = {}
        self.model = build(blueprint)
        self.model.compile(
            optimizer=ingredients.make_optimizer(),
            loss=ingredients.loss,
            metrics=ingredients.make_metrics() or None,
            jit_compile=False,
        )
        self.optimizer = self.model.optimizer  # mixed_float16: wrapped by `compile`
        self.variables = named_variables(self.model)
        self._warm_up(table, blueprint)
        self.has_metrics = len(self.model.metrics) > 1  # more than the tracker of the loss
        self.rows_at_once = rows_at_once(self.model, table.inputs)
        self._fresh_optimizer = values(self.optimizer.variables)
        self._trainable = [id(variable) for variable in self.model.trainable_variables]
        self._config = _config(self.model)

    def _warm_up(self, table, blueprint):
        """Create all variables now: inside a trace it would be too late."""
        if not self.model.trainable_variables:
            raise ValueError("The network has no trainable weights: there is nothing to fit.")
        self.optimizer.build(self.model.trainable_variables)
        few = [tf.convert_to_tensor(array[:2]) for array in table.arrays()]
        x, y, weights = table.layout().unpack(few)
        x = call_input(self.model, x)
        with _told(f"{blueprint!r} makes a network that"):
            y_pred = call(self.model, x, training=False)
        with _told(f"loss={self.loss!r}"):
            compute_loss(self.model, x, y, y_pred, weights, training=False)
        with _told("one of the metrics"):
            self.model.compute_metrics(x, y, y_pred, sample_weight=weights)

    def reset(self, start, optimizer_start, learning_rate) -> None:
        """Forget the last fit: all state is set, from `start` or to what it was when new."""
        assign(self.variables, start)
        fresh = self._fresh_optimizer if optimizer_start is None else optimizer_start
        expected = len(self.optimizer.variables)
        if len(fresh) != expected:
            raise ValueError(
                f"`optimizer_start` has {len(fresh)} arrays, the optimizer takes {expected}."
            )
        for variable, value in zip(self.optimizer.variables, fresh, strict=True):
            variable.value.assign(value)
        if learning_rate is not None:
            self.optimizer.learning_rate = learning_rate
        self.reset_metrics()
        self.model.stop_training = False
        self.model.run_eagerly = False

    def reset_metrics(self) -> None:
        """Forget the rows that metrics have counted."""
        if self.has_metrics:
            self.model.reset_metrics()

    def metric_values(self) -> dict[str, float]:
        """Values of the metrics, without the loss."""
        if not self.has_metrics:
            return {}
        results = self.model.get_metrics_result()
        return {name: plain(value) for name, value in results.items() if name != "loss"}

    def training(self, layout, specs, *, xla: bool):
        """Return the function that trains epochs, traced for tensors of these specs."""
        key = ("train", layout, xla, tuple(specs))
        if key not in self._functions:
            function = epochs_function(self, layout, xla=xla)
            concrete = function.get_concrete_function(*specs)
            if xla:  # compiled at its first call: try it with no epochs
                concrete(*(tf.zeros(spec.shape, spec.dtype) for spec in specs))
            self._functions[key] = concrete
        return self._functions[key]

    def evaluation(self, layout, specs):
        """Return the function that evaluates, traced for tensors of these specs."""
        key = ("evaluate", layout, tuple(specs))
        if key not in self._functions:
            self._functions[key] = evaluation_function(self, layout).get_concrete_function(*specs)
        return self._functions[key]

    def state(self) -> tuple[list, list]:
        """Copies of the model's and the optimizer's variables."""
        return values(self.variables.values()), values(self.optimizer.variables)

    def restore(self, state) -> None:
        """Set what `state` returned."""
        for variable, value in zip(self.variables.values(), state[0], strict=True):
            variable.value.assign(value)
        for variable, value in zip(self.optimizer.variables, state[1], strict=True):
            variable.value.assign(value)

    def untouched(self) -> bool:
        """Whether callbacks left the model as it was traced."""
        return (
            self.model.optimizer is self.optimizer
            and self.model.loss is self.loss
            and [id(variable) for variable in self.model.trainable_variables] == self._trainable
            and _config(self.model) == self._config
        )


@contextlib.contextmanager
def _told(what):
    """Say what it was that could not be computed."""
    try:
        yield
    except tf.errors.ResourceExhaustedError:
        raise
    except Exception as error:
        raise ValueError(
            f"{what} fails on the first rows: {type(error).__name__}: {error}"
        ) from error


def _config(model):
    try:
        return json.dumps(model.get_config(), default=repr)
    except (NotImplementedError, TypeError):  # subclassed, or made with what JSON cannot hold
        return None


class Pool:
    """Idle programs by key. A fit takes one out, or makes it, and puts it back."""

    def __init__(self, max_idle: int = _MAX_IDLE):
        self._max_idle = max_idle
        self._idle: OrderedDict = (
            OrderedDict()
        )  # key -> list of programs, least recently used first
        self._lock = threading.Lock()
        self.made = 0

    @contextlib.contextmanager
    def program(self, key, make, *, shown: bool = False):
        """Lend a program of this key; None: make a private one. No lock is held meanwhile.

        One that was shown to callbacks comes back only if they left it as it was.
        """
        program = self._take(key) if key is not None else None
        if program is None:
            program = make()
            with self._lock:
                self.made += 1
        try:
            yield program
        finally:
            if key is not None and (not shown or program.untouched()):
                self._give_back(key, program)

    def _take(self, key):
        with self._lock:
            programs = self._idle.get(key)
            if not programs:
                return None
            program = programs.pop()
            if not programs:
                del self._idle[key]
            return program

    def _give_back(self, key, program):
        with self._lock:
            self._idle.setdefault(key, []).append(program)
            self._idle.move_to_end(key)
            while sum(map(len, self._idle.values())) > self._max_idle:
                oldest = next(iter(self._idle))
                self._idle[oldest].pop()
                if not self._idle[oldest]:
                    del self._idle[oldest]


POOL = Pool()
