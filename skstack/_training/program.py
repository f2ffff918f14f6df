"""Programs: private models with functions that are traced once for all fits; fits; the pool."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import math
import threading
import time
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from skstack._base.atomic_fit import refuse_if_ended
from skstack._base.lru_cache import LRUCache
from skstack._base.text import described
from skstack._training.blueprint import Blueprint
from skstack._training.config import StepRules, TrainConfig
from skstack._training.data import Orders, Steps, TensorTable, bucket, mean_losses, pieces
from skstack._training.engines import has_own_train_step, why_not_masked, why_not_xla
from skstack._training.epochs import (
    StepwiseEpochs,
    TraceKey,
    epochs_function,
    error_of,
    steps_in_block,
)
from skstack._training.isolation import build, inside_build
from skstack._training.keras_model import (
    all_layers,
    call,
    call_input,
    compute_loss,
    embedded_inputs,
    in_order,
    named_variables,
    rows_at_once,
    values,
    weigh_rows,
)
from skstack._training.monitor import Progress, plain
from skstack._training.normalization import reading_their_variables
from skstack._training.objective import unused_size
from skstack._training.optimizers import (
    CompileSettings,
    FitSteps,
    apply_dense,
    apply_without_reducing,
    average_weights,
    clip_across_dtypes,
    follow_rules,
    scale_steps,
    state_layout,
    update_in_few_operations,
)
from skstack._training.spares import Spares, any_model
from skstack._training.variables import Lifted, OwnSession, VariableLayout
from skstack._training.xla_layers import schedule_dropout


class Program:
    """One private compiled model and the functions that are traced from it.

    Only callbacks see the model, during their fit. Fits that only run traced functions run in
    parallel, each on variables of its own (see `VariableLayout`).
    """

    def __init__(
        self,
        blueprint: Blueprint,
        settings: CompileSettings,
        table: TensorTable,
        key: Hashable | None,
        *,
        callbacks: bool = False,
    ):
        self.key = key
        self.loss = settings.loss
        self.batch_size = settings.batch_size
        self.failed_traces: dict[TraceKey, Exception] = {}
        self.traces = 0
        self.rows_per_second: float | None = None  # of the last call that trained
        self.model_lock = threading.RLock()  # held while the model itself is used or traced
        self._functions: dict = {}
        # Callbacks may draw again from its initializers, whose seeds are those of its build.
        self.model = reading_their_variables((build if callbacks else any_model)(blueprint))
        self.model.compile(
            optimizer=settings.make_optimizer(),
            loss=settings.loss,
            metrics=settings.make_metrics() or None,
            jit_compile=False,
        )
        weigh_rows(self.model)
        self.optimizer = self.model.optimizer  # mixed_float16: wrapped by `compile`
        self.variables = named_variables(self.model)
        steps = FitSteps(self.optimizer)
        update_in_few_operations(self.optimizer, self.model.trainable_variables)
        rules = settings.rules
        self._steps = None if rules == StepRules() else steps
        if replace(rules, averages_weights=False) != StepRules():
            follow_rules(self.optimizer, rules, self.variables, steps)
            if rules.dropout is not None:
                schedule_dropout(
                    all_layers(self.model),
                    functools.partial(steps.factor, rules.dropout),
                )
        self._warm_up(table, blueprint)
        multipliers = [(self.variables[path], factor) for path, factor in settings.lr_multipliers]
        scale_steps(self.optimizer, multipliers)
        clip_across_dtypes(self.optimizer, self.model.trainable_variables)
        if settings.dense_gradients:
            apply_dense(self.optimizer)
        apply_without_reducing(self.optimizer)
        averages = []
        if rules.averages_weights:
            averages = average_weights(self.optimizer, self.model.trainable_variables, steps)
        self.has_metrics = len(self.model.metrics) > 1  # more than the tracker of the loss
        self.own_step = has_own_train_step(self.model)
        # Metrics are read after each epoch.
        self.one_by_one = self.has_metrics or self.own_step
        self.metrics_structure: dict = {}  # of the metrics' values
        masks = why_not_masked(self.model, self.loss, has_metrics=self.has_metrics) is None
        self.masks = masks and not self.own_step  # whether rows may be padded with weight 0
        self.rows_at_once = rows_at_once(self.model, table.inputs)
        counters = [variable for metric in self.model.metrics for variable in metric.variables]
        counts = [] if self._steps is None else [steps.variable]
        self.layout = VariableLayout(
            [*self.variables.values(), *self.optimizer.variables, *counts], [*counters, *averages]
        )
        self.state_layout = state_layout(self.optimizer)
        self._fresh_optimizer = values(self.optimizer.variables)
        self._rate = _index_of_rate(self.optimizer)
        self.embedding_bounds = embedded_inputs(self.model)
        self._trainable = self._traced_for = self._trained_now()
        self._frozen_config = self._settings()

    @functools.cached_property
    def why_not_xla(self) -> str | None:
        """See `engines.why_not_xla`."""
        return why_not_xla(self.model, own_step=self.own_step)

    def _warm_up(self, table: TensorTable, blueprint: Blueprint) -> None:
        """Create all variables, which is impossible inside a trace."""
        if not self.model.trainable_variables:
            raise ValueError("The network has no trainable weights: there is nothing to fit.")
        self._copies = self._build_optimizer()
        arrays = table.arrays()
        # The number of rows differs from all other sizes: code that confuses axes fails here.
        n_rows = unused_size(size for array in arrays for size in array.shape[1:])
        rows = np.arange(n_rows) % table.n_rows
        few = [tf.convert_to_tensor(array[rows]) for array in arrays]
        x, y, weights = table.layout().unpack(few)
        x = call_input(self.model, x)
        with _explain_failure(f"{blueprint!r} makes a network that"):
            y_pred = call(self.model, x, training=False)
        with _explain_failure(f"loss={described(self.loss)}"):
            compute_loss(self.model, x, y, y_pred, weights, training=False)
        with _explain_failure("one of the metrics"):
            self._first_results = self.model.compute_metrics(x, y, y_pred, sample_weight=weights)

    def check_metric(self, name: str) -> None:
        """Raise ValueError unless a metric of this name returns one number."""
        results = self._first_results
        single = [each for each, value in results.items() if np.shape(value) == ()]
        if name not in single or isinstance(results[name], dict):
            what = "returns several values" if name in results else "is not recorded"
            raise ValueError(
                f"early_stopping_metric={name!r}: this metric {what}; expected one that returns a "
                f"number, of which this network records {single}."
            )

    def _build_optimizer(self) -> dict[int, str]:
        """Build the optimizer; return its variables that start as copies, and of which weights."""
        trainable = {id(variable) for variable in self.model.trainable_variables}
        learned = {path: v for path, v in self.variables.items() if id(v) in trainable}
        before = values(learned.values())
        noise = np.random.default_rng(0)
        for variable in learned.values():
            variable.assign(noise.uniform(0.5, 1.0, variable.shape))
        self.optimizer.build(self.model.trainable_variables)
        marked = {path: variable.numpy() for path, variable in learned.items()}
        copies = {
            index: path
            for index, array in enumerate(values(self.optimizer.variables))
            for path, weights in marked.items()
            if array.shape == weights.shape and array.size and np.array_equal(array, weights)
        }
        for variable, array in zip(learned.values(), before, strict=True):
            variable.assign(array)
        return copies

    def initial_state(
        self,
        variables: dict[str, np.ndarray],
        optimizer_start: list[np.ndarray] | None,
        learning_rate: float | None,
        n_steps: int,
        steps_in_epoch: int,
    ) -> list[np.ndarray]:
        """Return the packed state that a fit starts with: weights and the optimizer's variables.

        `n_steps` is that of the schedules, 0 if they are not followed.
        """
        weights = in_order(self.variables, variables)
        if optimizer_start is None:
            optimizer = list(self._fresh_optimizer)
            for index, path in self._copies.items():
                optimizer[index] = variables[path]
        else:
            optimizer = list(optimizer_start)
        if len(optimizer) != len(self._fresh_optimizer):
            raise ValueError(
                f"`optimizer_start` has {len(optimizer)} arrays, but the optimizer has "
                f"{len(self._fresh_optimizer)} variables."
            )
        if learning_rate is not None and self._rate is not None:
            with np.errstate(over="ignore"):  # an infinite rate is reported as diverged weights
                optimizer[self._rate] = np.asarray(learning_rate, optimizer[self._rate].dtype)
        steps = []
        if self._steps is not None:
            steps = [self._steps.state(optimizer, n_steps, steps_in_epoch)]
        return self.layout.pack([*weights, *optimizer, *steps])

    def split_state(self, state: list) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
        """Return the weights by path, and the optimizer's variables, of a packed state."""
        arrays, n = self.layout.unpack(state), len(self.variables)
        weights = dict(zip(self.variables, arrays[:n], strict=True))
        return weights, arrays[n : n + len(self.optimizer.variables)]

    def set_state(self, state: list) -> None:
        """Assign a packed state to the model itself."""
        for variable, value in zip(self.layout.state, self.layout.unpack(state), strict=True):
            variable.value.assign(value)

    def get_state(self) -> list[np.ndarray]:
        """Return the packed state of the model itself."""
        return self.layout.pack(values(self.layout.state))

    def reset_model(self, state: list) -> None:
        """Reset the model itself to a state."""
        self.set_state(state)
        if self.one_by_one:
            self.model.reset_metrics()
        self.model.stop_training = False
        self.model.run_eagerly = False
        self.model._initial_epoch = None  # set by BackupAndRestore

    def epochs(self, trace: TraceKey, *, own: bool = False) -> tuple[Any, list[str]]:
        """Return the function that trains epochs, traced once, and the names of its logs.

        It must be called through `bind`; with `own`, on the variables of the model itself.
        """
        with contextlib.suppress(KeyError):
            return self._functions[trace, own]
        with self.model_lock:
            if (trace, own) not in self._functions:
                function: Any
                if trace.stepwise:
                    function = StepwiseEpochs(self, trace)
                    names = function.names
                else:
                    function, names = epochs_function(self, trace)
                if trace.tail and not own and OwnSession.suits(function):
                    function = OwnSession(
                        function, trace.argument_specs(self), self.layout.all_variables
                    )
                if trace.tail:
                    self._run_once(function, trace)
                self._functions[trace, own] = function, names
            return self._functions[trace, own]

    def _trained_now(self) -> list[int]:
        return [id(variable) for variable in self.model.trainable_variables]

    def forget_other_weights(self) -> bool:
        """Drop what was traced if callbacks froze layers since; return whether they did."""
        changed = self._trained_now() != self._traced_for
        if changed:
            self._functions.clear()
            self._traced_for = self._trained_now()
        return changed

    def bind(self, function, *, own: bool = False):
        """See `VariableLayout.bind`."""
        if isinstance(function, OwnSession):
            return function.bind()
        return self.layout.bind(function, own=own)

    def _run_once(self, function, trace):
        """Take one step on zeros, because XLA compiles, or fails, at the first call."""
        arguments = [
            tf.zeros([1 if size is None else size for size in spec.shape], spec.dtype)
            for spec in trace.argument_specs(self)
        ]
        first = len(trace.specs)
        n = steps_in_block(trace, self.batch_size) + 1
        arguments[first] = tf.zeros([n, self.batch_size], tf.int32)
        # Full batches: with an exact tail the block would not be compiled otherwise.
        arguments[first + 1] = tf.fill([n], self.batch_size)
        arguments[first + 2] = tf.constant([0, 1])
        if trace.has_validation:
            before = first + 3 + len(trace.validation_specs)
            arguments[before] = arguments[before + 4] = tf.constant(1)
        with self.bind(function) as run:
            run(arguments)

    def metric_reset(self) -> Lifted:
        """Return the function that resets the metrics."""
        return self._lifted("reset", self._reset)

    def metric_results(self) -> Lifted:
        """Return the function that computes the metrics."""
        return self._lifted("results", self._results)

    def _lifted(self, name, function):
        if name not in self._functions:
            self._functions[name] = self.layout.lift_captures(function, [])
        return self._functions[name]

    def _reset(self):
        self.model.reset_metrics()
        return []

    def _results(self):
        results = self.model.get_metrics_result()
        self.metrics_structure = tf.nest.map_structure(lambda _: None, results)
        return [tf.convert_to_tensor(value) for value in tf.nest.flatten(results)]

    def finalized(self, state: list, config: TrainConfig) -> list:
        """Return a state after training, with moving averages if the optimizer keeps any.

        With early stopping the state is that of the epoch whose weights were judged.
        """
        if config.patience is not None or not _keeps_averages(self.optimizer):
            return state
        with self.model_lock:
            if "finalize" not in self._functions:
                self._functions["finalize"] = self._finalize()
        with self.bind(self._functions["finalize"]) as run:
            return run(state)

    def _finalize(self):
        def finalize():
            self.optimizer.finalize_variable_values(self.model.trainable_variables)
            return []

        lifted = self.layout.lift_captures(finalize, [])

        def run(state, handles):
            self.layout.load(handles, state)
            lifted([], handles)
            return self.layout.read(handles)

        return run

    def is_unmodified(self) -> bool:
        """Whether callbacks left the model unchanged since it was traced."""
        return (
            self.model.optimizer is self.optimizer
            and self.model.loss is self.loss
            and self._trained_now() == self._traced_for == self._trainable
            and self._frozen_config is not None
            and self._settings() == self._frozen_config
        )

    def _settings(self):
        """Settings that a trace freezes and a callback may change; None if unknown."""
        config = dict(self.optimizer.get_config())
        config.pop("learning_rate", None)  # a variable, or an immutable schedule
        model = _config_of(self.model)
        return None if model is None else (model, repr(config))


def _keeps_averages(optimizer):
    """Whether an optimizer, or one inside it, keeps moving averages of the weights."""
    inner = getattr(optimizer, "inner_optimizer", None)
    several = type(optimizer).__name__ == "MultiOptimizer"
    return several or optimizer.use_ema or (inner is not None and _keeps_averages(inner))


def _index_of_rate(optimizer):
    """Return the index of the learning rate in an optimizer's variables; None for a schedule."""
    try:
        rate = optimizer.learning_rate
    except (AttributeError, ValueError):  # MultiOptimizer has none of its own
        return None
    indices = [index for index, v in enumerate(optimizer.variables) if v is rate]
    return indices[0] if indices else None


@contextlib.contextmanager
def _explain_failure(what):
    """Name what failed in the error."""
    try:
        yield
    except tf.errors.ResourceExhaustedError:
        raise
    except Exception as error:
        raise ValueError(
            f"{what} fails on the first rows: {type(error).__name__}: {error}"
        ) from error


def _config_of(model):
    try:
        return json.dumps(model.get_config(), default=repr)
    except (NotImplementedError, TypeError):  # subclassed, or with arguments that JSON cannot hold
        return None


# Python handles no signal during a call of a traced function. The number of steps per call does not
# change results.
_ROWS_IN_FIRST_CALL = 2**12  # until the speed of a program is known
_INDICES_PER_CALL = 2**22  # of int32: 16 MB
_SECONDS_PER_CALL = 1.0
_PIECE_BYTES = 2**23  # of rows of a large table; the next piece is read while one is trained on


@dataclass(frozen=True)
class _Part:
    """Steps that one call takes, on these tensors; whether an epoch begins or ends with them."""

    data: list
    steps: list
    n_steps: int
    begins: bool
    ends: bool


class CompiledFit:
    """One fit on a program: trains some epochs per call, or a part of one that takes long.

    Parameters
    ----------
    program : Program
    trace : TraceKey
    initial : list of ndarray
        Packed state to start with.
    table, validation : TensorTable
    config : TrainConfig

    Attributes
    ----------
    progress : Progress
        Of the finished epochs.
    running : bool
        Whether an epoch has begun that is not part of `progress`.
    """

    def __init__(
        self,
        program: Program,
        trace: TraceKey,
        initial: list,
        table: TensorTable,
        validation: TensorTable | None,
        config: TrainConfig,
    ):
        self._program = program
        self._config = config
        self._trace = trace
        self._run, self._own_names = program.epochs(trace, own=bool(config.callbacks))
        self._table = table
        # A session copies what is no array of NumPy; elsewhere each call would copy what is one.
        self._place = np.asarray if isinstance(self._run, OwnSession) else tf.convert_to_tensor
        self._data = [] if table.streams else list(map(self._place, table.arrays()))
        self._row_bytes = sum(a.dtype.itemsize * math.prod(a.shape[1:]) for a in table.arrays())
        self._validation: list = []
        if validation is not None:
            # Few shapes, because TensorFlow keeps kernels for each.
            n_padded = bucket(validation.n_rows) if program.masks else validation.n_rows
            arrays = [*validation.padded(n_padded), np.int32(validation.n_rows)]
            self._validation = list(map(self._place, arrays))
        self._orders = Orders(config.seed, table.n_rows)
        self._n_rows = table.n_rows
        self._padding = steps_in_block(self._trace, program.batch_size)
        patience = np.iinfo(np.int32).max if config.patience is None else max(config.patience, 1)
        self._patience = [self._place(np.float32(config.tol)), self._place(np.int32(patience))]
        self._bound: Callable  # set by `bind`
        self.progress = Progress(state=initial)
        self.running = False

    @contextlib.contextmanager
    def bind(self, *, own: bool = False):
        """Context in which epochs can be trained; `own`: on the variables of the model itself."""
        with self._program.bind(self._run, own=own) as self._bound:
            yield

    def traced_again(self):
        """The context of `bind` with ``own``, after callbacks froze layers."""
        self._run, self._own_names = self._program.epochs(self._trace, own=True)
        return self.bind(own=True)

    def epochs(self, n_epochs: int, seconds: float = math.inf) -> Sequence[dict]:
        """Train up to `n_epochs` epochs; return the logs of those trained.

        As far as the speed is known, more than one is trained only within about `seconds`.
        """
        self.running = True
        before, program = self.progress, self._program
        streams = self._table.streams
        n_whole = 0 if streams else self._rows_per_call() // self._n_rows
        most = self._rows_per_call(seconds) // self._n_rows
        parts = self._pieces() if streams else self._parts(min(n_epochs, max(most, 1)), n_whole)
        state, losses, counts = before.state, [], []
        with contextlib.closing(parts):
            for part in parts:
                refuse_if_ended()
                started = time.perf_counter()
                take = self._call(part, state)
                n_run = int(take(1)[0])
                losses.append(np.asarray(take(1)[0])[: part.n_steps])
                counts.append(part.steps[1][: part.n_steps])
                elapsed = time.perf_counter() - started
                n_rows = n_run * self._n_rows if n_whole else part.n_steps * program.batch_size
                program.rows_per_second = n_rows / max(elapsed, 1e-6)
                state = take(len(before.state))
        means = None
        if not program.own_step:
            means = mean_losses(np.concatenate(losses), np.concatenate(counts), n_run)
        progress = self._progress(take, n_run, means)
        self.progress = replace(progress, n_epochs=before.n_epochs + n_run, state=state)
        self.running = False
        return self.progress.logs

    def _parts(self, n_epochs: int, n_whole: int) -> Generator[_Part]:
        """Steps on the whole table: of some epochs, or of a part of one."""
        batch = self._program.batch_size
        orders = self._orders.next(n_epochs)
        steps, start = Steps(orders, batch, self._padding), 0
        while start < steps.n:
            most = steps.n if n_whole else max(self._rows_per_call() // batch, 1)
            stop = min(start + most, steps.n)
            some = steps.part(start, stop)
            yield _Part(self._data, some, stop - start, start == 0, stop == steps.n)
            start = stop

    def _pieces(self) -> Generator[_Part]:
        """Steps on pieces of a large table: those of one epoch."""
        batch, begins = self._program.batch_size, True

        def most_rows():
            return min(self._rows_per_call(), max(_PIECE_BYTES // self._row_bytes, 1))

        for piece in pieces(self._table, self._orders, batch, most_rows):
            steps = Steps(np.arange(piece.n_rows)[None], batch, self._padding)
            yield _Part(piece.tensors, steps.part(0, steps.n), steps.n, begins, piece.is_last)
            begins = False

    def snapshot(self) -> tuple[Progress, Orders]:
        """How far training has come, to train again from here."""
        return self.progress, copy.deepcopy(self._orders)

    def train_again(self, snapshot: tuple[Progress, Orders], n_epochs: int) -> None:
        """Return to a snapshot, and train until `n_epochs` epochs are trained in all."""
        self.progress, self._orders = snapshot
        while self.progress.n_epochs < n_epochs:
            self.epochs(n_epochs - self.progress.n_epochs)

    def _rows_per_call(self, seconds: float = math.inf) -> int:
        speed, seconds = self._program.rows_per_second, min(seconds, _SECONDS_PER_CALL)
        rows = _ROWS_IN_FIRST_CALL if speed is None else int(speed * seconds)
        return min(rows, _INDICES_PER_CALL)

    def _call(self, part: _Part, state: list) -> Callable[[int], list]:
        """Train some steps; return a reader of the outputs."""
        more: list = []
        if self.has_validation:
            *data, n_rows = self._validation
            # Without rows, nothing is evaluated.
            more = [*data, n_rows if part.ends else self._place(np.int32(0))]
            more += [self.progress.best_loss, self.progress.without_better, *self._patience]
        if self._program.one_by_one:
            more += [self._place(part.begins), self._place(part.ends)]
        outputs = self._bound([*part.data, *part.steps, *more, *state])

        def take(n):
            taken, outputs[:n] = outputs[:n], []
            return taken

        return take

    def _progress(self, take, n_epochs: int, losses: np.ndarray | None) -> Progress:
        """Logs and early stopping after some epochs, from the outputs behind the state."""
        progress, stopping = self.progress, []
        trained: list[dict] = [{}]
        if losses is not None:
            trained = [{"loss": loss} for loss in losses.tolist()]
        validated = []
        if self.has_validation:
            validated = [{"loss": float(loss)} for loss in np.asarray(take(1)[0])[:n_epochs]]
            stopping = [*take(2), take(len(progress.state or ()))]
        if self._program.one_by_one:
            own = _like(dict.fromkeys(self._own_names), take)
            metrics = _like(self._program.metrics_structure, take)
            if own:  # as in `Model.fit`: the metrics, or the logs of the last step
                trained = [metrics if own.keys() == metrics.keys() else own]
            else:
                trained = [{**metrics, **trained[0]}]
            if self.has_validation:
                validated = [{**_like(self._program.metrics_structure, take), **validated[0]}]
        for epoch, logs in zip(trained, validated, strict=False):
            epoch.update({f"val_{name}": value for name, value in logs.items()})
        if self.has_validation:
            best_loss, without_better, best_state = stopping
            monitor = self._config.monitor or ("loss", False)
            errors = [error_of(logs, monitor) for logs in validated if logs["loss"] == logs["loss"]]
            if np.float32(best_loss) not in np.array(errors, np.float32):  # an earlier epoch's
                best_state = progress.best_state
            progress = Progress(
                best_state=best_state, best_loss=best_loss, without_better=without_better
            )
        return replace(progress, logs=trained)

    @property
    def has_validation(self) -> bool:
        """Whether there are validation rows."""
        return self._trace.has_validation

    @property
    def stopped(self) -> bool:
        """Whether early stopping ended training."""
        return int(self.progress.without_better) >= int(self._patience[1])

    def result(self) -> list:
        """The state to keep: that of the best epoch with early stopping, else the last one."""
        if self._config.patience is None or self.progress.best_state is None:
            return self.progress.state
        return self.progress.best_state


def _like(structure, take):
    values = take(len(tf.nest.flatten(structure)))
    return tf.nest.pack_sequence_as(structure, list(map(plain, values)))


_MAX_PROGRAMS = 48


class Pool:
    """Programs by key, the least recently used dropped first.

    Fits of one key share a program and run in parallel. A fit with callbacks, which see the model,
    has a private program.
    """

    def __init__(self, max_programs: int = _MAX_PROGRAMS):
        self._shared: LRUCache[_SharedProgram] = LRUCache(max_programs)
        self._idle: Spares[Program] = Spares(max_programs)  # for fits with callbacks
        self._lock = threading.Lock()
        self.made = 0

    @contextlib.contextmanager
    def program(
        self, key: Hashable | None, make: Callable[[], Program], *, callbacks: bool = False
    ) -> Iterator[Program]:
        """Context with a program of this key, or a new one if it is None; holds no lock.

        A program that callbacks have seen is only kept if it is unmodified.
        """
        if key is None or inside_build():  # a thread that builds a network must not wait
            yield self._made(make)
        elif not callbacks:
            yield self._shared.get(key, _SharedProgram).get(lambda: self._made(make))
        else:
            program = self._idle.take(key) or self._made(make)
            try:
                yield program
            finally:
                if program.is_unmodified():
                    self._idle.leave(key, program)

    def programs(self) -> list[Program]:
        """All programs in the pool."""
        shared = [entry.program for entry in self._shared.values() if entry.program is not None]
        return shared + self._idle.values()

    def _made(self, make: Callable[[], Program]) -> Program:
        program = make()
        with self._lock:
            self.made += 1
        return program


class _SharedProgram:
    """A program that is made once: the second of two threads waits for the first."""

    def __init__(self):
        self.program: Program | None = None
        self._making = threading.Lock()

    def get(self, make: Callable[[], Program]) -> Program:
        with self._making:
            if self.program is None:
                self.program = make()
            return self.program


POOL = Pool()
