"""Programs: private models, and what is traced from them once for all fits."""

from __future__ import annotations

import contextlib
import json
import threading

import numpy as np
import tensorflow as tf

from skstack.training._epochs import Trace, epochs_function, steps_in_block
from skstack.training._indices import embedded_inputs
from skstack.training._lanes import Slots, called
from skstack.training._network import in_order
from skstack.training._normalizations import reading_their_variables
from skstack.training._objective import unlike
from skstack.training._roads import has_own_train_step, why_not_masked
from skstack.training._seeds import build, named_variables, values
from skstack.training._shares import apply_without_reducing, share_steps
from skstack.training._structure import call, call_input, compute_loss, rows_at_once


class Program:
    """One private model and optimizer, compiled, and the functions traced from them.

    Its model is never handed out, except to callbacks while they watch. Fits that only run traced
    functions do so side by side, each on variables of its own (see `Slots`).
    """

    def __init__(self, blueprint, ingredients, table, key):
        self.key = key
        self.loss = ingredients.loss
        self.batch_size = ingredients.batch_size
        self.broken = {}  # trace -> why it cannot be taken
        self.traces = 0
        self.alone = threading.RLock()  # held by who uses, or traces, the model itself
        self._functions = {}
        self.model = reading_their_variables(build(blueprint))
        self.model.compile(
            optimizer=ingredients.make_optimizer(),
            loss=ingredients.loss,
            metrics=ingredients.make_metrics() or None,
            jit_compile=False,
        )
        self.optimizer = self.model.optimizer  # mixed_float16: wrapped by `compile`
        self.variables = named_variables(self.model)
        self._warm_up(table, blueprint)
        slowed = [(self.variables[path], share) for path, share in ingredients.shares]
        share_steps(self.optimizer, slowed)
        apply_without_reducing(self.optimizer)
        self.has_metrics = len(self.model.metrics) > 1  # more than the tracker of the loss
        self.own_step = has_own_train_step(self.model)
        self.one_by_one = self.has_metrics or self.own_step  # what is counted is read each epoch
        self.metrics_like = {}  # the structure of their values
        masks = why_not_masked(self.model, self.loss, has_metrics=self.has_metrics) is None
        self.masks = masks and not self.own_step  # rows of weight zero change nothing
        self.rows_at_once = rows_at_once(self.model, table.inputs)
        counters = [variable for metric in self.model.metrics for variable in metric.variables]
        self.slots = Slots([*self.variables.values(), *self.optimizer.variables], counters)
        self._fresh_optimizer = values(self.optimizer.variables)
        self._rate = _place_of_rate(self.optimizer)
        self.bounds = embedded_inputs(self.model)
        self._trainable = [id(variable) for variable in self.model.trainable_variables]
        self._config = self._settings()

    def _warm_up(self, table, blueprint):
        """Create all variables now: inside a trace it would be too late."""
        if not self.model.trainable_variables:
            raise ValueError("The network has no trainable weights: there is nothing to fit.")
        self._copies = self._build_optimizer()
        arrays = table.arrays()
        # As many rows as there is nothing else of: what mixes rows with columns up fails here.
        n_rows = unlike(size for array in arrays for size in array.shape[1:])
        rows = np.arange(n_rows) % table.n_rows
        few = [tf.convert_to_tensor(array[rows]) for array in arrays]
        x, y, weights = table.layout().unpack(few)
        x = call_input(self.model, x)
        with _told(f"{blueprint!r} makes a network that"):
            y_pred = call(self.model, x, training=False)
        with _told(f"loss={self.loss!r}"):
            compute_loss(self.model, x, y, y_pred, weights, training=False)
        with _told("one of the metrics"):
            self.model.compute_metrics(x, y, y_pred, sample_weight=weights)

    def _build_optimizer(self) -> dict[int, str]:
        """Build it; find which of its variables start as copies of which weights."""
        trainable = {id(variable) for variable in self.model.trainable_variables}
        learned = {path: v for path, v in self.variables.items() if id(v) in trainable}
        before = values(learned.values())
        noise = np.random.default_rng(0)
        for variable in learned.values():
            variable.assign(noise.uniform(0.5, 1.0, variable.shape))
        self.optimizer.build(self.model.trainable_variables)
        marked = {path: variable.numpy() for path, variable in learned.items()}
        copies = {
            place: path
            for place, array in enumerate(values(self.optimizer.variables))
            for path, weights in marked.items()
            if array.shape == weights.shape and array.size and np.array_equal(array, weights)
        }
        for variable, array in zip(learned.values(), before, strict=True):
            variable.assign(array)
        return copies

    def start(self, variables, optimizer_start, learning_rate) -> list[np.ndarray]:
        """The packed state that a fit starts from: weights, then the optimizer's memory."""
        weights = in_order(self.variables, variables)
        if optimizer_start is None:
            optimizer = list(self._fresh_optimizer)
            for place, path in self._copies.items():
                optimizer[place] = variables[path]
        else:
            optimizer = list(optimizer_start)
        if len(optimizer) != len(self._fresh_optimizer):
            raise ValueError(
                f"`optimizer_start` has {len(optimizer)} arrays, the optimizer takes "
                f"{len(self._fresh_optimizer)}."
            )
        if learning_rate is not None and self._rate is not None:
            with np.errstate(over="ignore"):  # infinite: the weights will tell
                optimizer[self._rate] = np.asarray(learning_rate, optimizer[self._rate].dtype)
        return self.slots.pack([*weights, *optimizer])

    def adopt(self, state) -> None:
        """Give the model itself a packed state."""
        for variable, value in zip(self.slots.state, self.slots.unpack(state), strict=True):
            variable.value.assign(value)

    def own_state(self) -> list[np.ndarray]:
        """The packed state of the model itself."""
        return self.slots.pack(values(self.slots.state))

    def reset_model(self, state) -> None:
        """Forget whatever was done to the model itself."""
        self.adopt(state)
        if self.one_by_one:
            self.model.reset_metrics()
        self.model.stop_training = False
        self.model.run_eagerly = False

    def epochs(self, trace: Trace):
        """Return the function that trains epochs, traced once; and the names of its logs."""
        with contextlib.suppress(KeyError):
            return self._functions[trace]
        with self.alone:
            if trace not in self._functions:
                function = epochs_function(self, trace)
                if trace.tail:
                    self._try(function[0], trace)
                self._functions[trace] = function
            return self._functions[trace]

    def _try(self, function, trace):
        """Take one step on zeros: XLA compiles, or fails, at the first call."""
        lane = self.slots.take()
        arguments = [
            tf.zeros([1 if size is None else size for size in spec.shape], spec.dtype)
            for spec in trace.takes(self)
        ]
        first = len(trace.specs)
        n = steps_in_block(trace, self.batch_size) + 1
        arguments[first] = tf.zeros([n, self.batch_size], tf.int32)
        # Exact: a full batch, for else the block would not be compiled.
        arguments[first + 1] = tf.fill([n], self.batch_size)
        arguments[first + 2] = tf.constant([0, 1])
        if trace.watches:
            n_tested = first + 3 + len(trace.tested_specs)
            arguments[n_tested] = arguments[n_tested + 4] = tf.constant(1)
        called(function, [*arguments, *lane.handles])
        self.slots.give_back(lane)

    def reset_counted(self, handles) -> None:
        """Forget the rows that metrics have counted, inside a trace."""
        self._lifted("reset", self._reset)(*handles)

    def counted(self):
        """Return the function of handles that gives the values of the metrics."""
        return self._lifted("results", self._results)

    def _lifted(self, name, function):
        if name not in self._functions:
            self._functions[name] = self.slots.lift(function, [])
        return self._functions[name]

    def _reset(self):
        self.model.reset_metrics()
        return []

    def _results(self):
        results = self.model.get_metrics_result()
        self.metrics_like = tf.nest.map_structure(lambda _: None, results)
        return [tf.convert_to_tensor(value) for value in tf.nest.flatten(results)]

    def finalized(self, state) -> list:
        """A packed state after training: with moving averages, where the optimizer keeps them."""
        if not _averages_weights(self.optimizer):
            return state
        with self.alone:
            if "finalize" not in self._functions:
                self._functions["finalize"] = self._finalize()
        lane = self.slots.take()
        try:
            return called(self._functions["finalize"], [*state, *lane.handles])
        finally:
            self.slots.give_back(lane)

    def _finalize(self):
        slots, specs = self.slots, self.slots.packed_specs

        def finalize():
            self.optimizer.finalize_variable_values(self.model.trainable_variables)
            return []

        lifted = slots.lift(finalize, [])

        def run(*arguments):
            handles = arguments[len(specs) :]
            slots.load(handles, arguments[: len(specs)])
            lifted(*handles)
            return slots.read(handles)

        return tf.function(run, autograph=False).get_concrete_function(*specs, *slots.specs)

    def untouched(self) -> bool:
        """Whether callbacks left the model as it was traced."""
        return (
            self.model.optimizer is self.optimizer
            and self.model.loss is self.loss
            and [id(variable) for variable in self.model.trainable_variables] == self._trainable
            and self._config is not None
            and self._settings() == self._config
        )

    def _settings(self):
        """What is frozen in a trace and a callback may change; None where that is not known."""
        config = dict(self.optimizer.get_config())
        config.pop("learning_rate", None)  # a variable, or a schedule that nobody changes
        model = _config(self.model)
        return None if model is None else (model, repr(config))


def _averages_weights(optimizer):
    """Whether an optimizer, or one that it is made of, keeps averages to end with."""
    inner = getattr(optimizer, "inner_optimizer", None)
    several = type(optimizer).__name__ == "MultiOptimizer"
    return several or optimizer.use_ema or (inner is not None and _averages_weights(inner))


def _place_of_rate(optimizer):
    """Where the learning rate stands among an optimizer's variables; None for a schedule."""
    try:
        rate = optimizer.learning_rate
    except (AttributeError, ValueError):  # an optimizer of several others has none of its own
        return None
    places = [place for place, v in enumerate(optimizer.variables) if v is rate]
    return places[0] if places else None


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
