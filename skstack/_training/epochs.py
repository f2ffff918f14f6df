"""Whole epochs in one call, early stopping included: compiled, or step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from skstack._training.data import TensorLayout, TensorTable
from skstack._training.steps import (
    TracedProgram,
    block_function,
    chunk_function,
    evaluation_function,
    own_step_function,
    step_function,
)
from skstack._training.variables import Lifted


def update_early_stopping(xp, loss, best, without_better, tol):
    """Compare a validation loss with the best one; NaN is not an improvement.

    Among equal losses, as of a metric that counts errors, the last one is the best.

    Parameters
    ----------
    xp : module
        NumPy or TensorFlow, so that there is one rule for compiled programs and Keras' `fit`.
    loss, best : scalar float32
        The loss of this epoch, and the lowest so far.
    without_better : scalar int32
        Number of epochs since the loss improved by more than `tol`.
    tol : scalar float32

    Returns
    -------
    is_best, best, without_better : scalar
        Whether this epoch has the lowest loss, and the updated values of the other two.
    """
    is_best = loss <= best
    without_better = xp.where(loss < best - tol, 0, without_better + 1)
    return is_best, xp.where(is_best, loss, best), without_better


def error_of(results, monitor: tuple[str, bool], prefix: str = ""):
    """The value of a monitored metric among results by name, negative if higher is better."""
    name, greater_is_better = monitor
    value = results[prefix + name]
    return -value if greater_is_better else value


_BLOCK_BYTES = 2**20
_INT = tf.TensorSpec([], tf.int32)
_INDEX = tf.TensorSpec([None], tf.int32)
_FLOAT = tf.TensorSpec([], tf.float32)
_BOOL = tf.TensorSpec([], tf.bool)
_STEPS = [
    tf.TensorSpec([None, None], tf.int32),  # rows of each step
    _INDEX,  # number of real rows of each step
    _INDEX,  # first step of each epoch, and the end of the last one
]
_PATIENCE = [_FLOAT, _INT, _FLOAT, _INT]
_PART = [_BOOL, _BOOL]  # whether the epoch begins, and ends, with these steps


@dataclass(frozen=True)
class TraceKey:
    """What a function that trains epochs is traced for.

    Parameters
    ----------
    specs : tuple of tf.TensorSpec
        Specs of the training rows, for any number of rows.
    layout : TensorLayout
    validation_specs : tuple of tf.TensorSpec, default=()
        Specs of the validation rows.
    validation_layout : TensorLayout, default=None
    tail : {"masked", "exact"} or None
        With XLA, how the last batch of an epoch is handled: padded inside the program, or by a
        step without XLA. None: no XLA.
    monitor : tuple of str and bool, default=None
        As in `TrainConfig`.
    stepwise : bool, default=False
        Whether single steps are called from Python, instead of a traced loop over them.
    """

    specs: tuple
    layout: TensorLayout
    validation_specs: tuple = ()
    validation_layout: TensorLayout | None = None
    tail: str | None = None
    monitor: tuple[str, bool] | None = None
    stepwise: bool = False

    @classmethod
    def of(
        cls,
        table: TensorTable,
        validation_table: TensorTable | None,
        tail: str | None,
        monitor: tuple[str, bool] | None = None,
        *,
        stepwise: bool = False,
    ) -> TraceKey:
        """Return the key for these rows; `validation_table` may be None."""
        if validation_table is None:
            return cls(table.specs(), table.layout(), tail=tail, stepwise=stepwise)
        validation = validation_table.specs(), validation_table.layout()
        return cls(table.specs(), table.layout(), *validation, tail, monitor, stepwise)

    @property
    def has_validation(self) -> bool:
        """Whether there are validation rows."""
        return self.validation_layout is not None

    def argument_specs(self, program: TracedProgram) -> list:
        """Specs of the tensors that the function takes."""
        validation = [*self.validation_specs, _INT, *_PATIENCE] if self.has_validation else []
        part = _PART if program.one_by_one else []
        return [*self.specs, *_STEPS, *validation, *part, *program.layout.packed_specs]


def steps_in_block(trace: TraceKey, batch_size: int) -> int:
    """Steps per block; with XLA it depends on the shape of a row and the batch size alone."""
    if trace.tail is None:
        return 1
    row = sum(spec.dtype.size * max(spec.shape[1:].num_elements(), 1) for spec in trace.specs)
    return min(max(_BLOCK_BYTES // (row * batch_size), 4), 256)


class _Arguments(NamedTuple):
    """The tensors that a function of epochs takes: those of `TraceKey.argument_specs`."""

    data: list
    steps: Any
    counts: Any
    epoch_starts: Any
    validation: list
    stopping: list  # best, without_better, tol, patience
    part: list  # begins, ends
    state: list

    @classmethod
    def of(cls, tensors: Sequence, program: TracedProgram, trace: TraceKey) -> _Arguments:
        remaining = list(tensors)

        def take(n):
            taken, remaining[:n] = remaining[:n], []
            return taken

        data, (steps, counts, starts) = take(len(trace.specs)), take(3)
        validation = take(len(trace.validation_specs) + 1) if trace.has_validation else []
        stopping = take(4) if trace.has_validation else []
        part = take(2) if program.one_by_one else []
        return cls(data, steps, counts, starts, validation, stopping, part, remaining)


def epochs_function(program: TracedProgram, trace: TraceKey) -> tuple[Lifted, list[str]]:
    """Trace the function that trains some epochs; return it and the names of a custom step's logs.

    It takes tensors of `TraceKey.argument_specs` and the handles of a variable set. It returns, as
    one list, the number of epochs trained; the loss of each step; the state; with validation rows,
    the validation loss of each epoch, the two values of `update_early_stopping` and the state after
    the best epoch; and if epochs run one by one, the logs of a custom step, the training metrics
    and the validation metrics.
    A part of an epoch that does not end it must come with 0 validation rows: its validation loss is
    NaN, and only its losses and its state have a meaning.
    """
    layout, batch, one_by_one = program.layout, program.batch_size, program.one_by_one
    size = steps_in_block(trace, batch)
    learn = _Learning(program, trace, size)
    evaluate: Any = None
    finish: Any = None
    reset: Any = None
    if trace.validation_layout is not None:
        validation = [*trace.validation_specs, _INT]
        evaluate = layout.lift_captures(
            evaluation_function(program, trace.validation_layout), validation
        )
    if one_by_one:
        reset, finish = program.metric_reset(), program.metric_results()

    def run(*tensors):
        data, steps, counts, epoch_starts, validation, stopping, part, state = _Arguments.of(
            tensors, program, trace
        )
        handles = layout.handles
        layout.load(handles, state)
        n_epochs = tf.shape(epoch_starts)[0] - 1
        logs: list = []
        validation_logs: list = []

        def reset_metrics():
            reset([], handles)
            return tf.constant(True)

        def epoch(k, losses, *progress):
            if one_by_one:
                begins, ends = part
                tf.cond(begins, reset_metrics, lambda: tf.constant(False))
            start, stop = epoch_starts[k], epoch_starts[k + 1]
            losses, own = learn(data, steps, counts, start, stop, losses, handles)
            if one_by_one:
                logs[:] = [*own, *finish([], handles)]
            if not trace.has_validation:
                return (k + 1, losses)
            curve, best, without_better, *best_state = progress
            if one_by_one:
                tf.cond(ends, reset_metrics, lambda: tf.constant(False))
            loss = evaluate(validation, handles)[0]
            if one_by_one:
                validation_logs[:] = finish([], handles)
            monitored = loss
            if trace.monitor is not None:
                results = tf.nest.pack_sequence_as(program.metrics_structure, validation_logs)
                # Without rows a metric may be a number, but the loss is NaN.
                monitored = tf.where(
                    tf.math.is_nan(loss),
                    loss,
                    tf.cast(error_of(results, trace.monitor), tf.float32),
                )
            is_best, best, without_better = update_early_stopping(
                tf, monitored, best, without_better, tol
            )
            best_state = tf.cond(is_best, lambda: layout.read(handles), lambda: list(best_state))
            return (k + 1, losses, curve.write(k, loss), best, without_better, *best_state)

        def continues(k, losses, *progress):
            more = k < n_epochs
            return tf.logical_and(more, progress[2] < patience) if trace.has_validation else more

        losses = tf.TensorArray(
            "float32", size=0, dynamic_size=True, element_shape=[None], infer_shape=False
        )
        progress = []
        if trace.has_validation:
            best, without_better, tol, patience = stopping
            curve = tf.TensorArray("float32", size=n_epochs, element_shape=[])
            progress = [curve, best, without_better, *state]
        loop = (tf.constant(0), losses, *progress)
        if one_by_one:
            loop = epoch(*loop)
        elif trace.has_validation or trace.tail == "exact":
            loop = tf.while_loop(continues, epoch, loop, parallel_iterations=1)
        else:  # nothing happens between epochs
            end = tf.reshape(epoch_starts[-1], [1])
            epoch_starts = tf.concat([tf.zeros([1], tf.int32), end], axis=0)
            loop = (n_epochs, epoch(*loop)[1])
        k, losses, *progress = loop
        if trace.has_validation:
            progress[0] = progress[0].stack()
        return [k, losses.concat(), *layout.read(handles), *progress, *logs, *validation_logs]

    return layout.lift_captures(run, trace.argument_specs(program)), learn.names


class StepwiseEpochs:
    """What `epochs_function` returns, for short fits: only a step and an evaluation are traced.

    Parameters
    ----------
    program : TracedProgram
    trace : TraceKey

    Attributes
    ----------
    names : list of str
        Names of a custom step's logs.
    """

    def __init__(self, program: TracedProgram, trace: TraceKey):
        self._program = program
        self._trace = trace
        self.names: list[str] = []
        step, layout = _step_of(program, trace, self.names), program.layout

        def on_rows(*tensors):
            *data, index = tensors
            return step(*_rows(data, index))

        self._step = layout.lift_captures(on_rows, [*trace.specs, _INDEX])
        if trace.validation_layout is not None:
            chunk = chunk_function(program, trace.validation_layout)
            self._chunk = layout.lift_captures(chunk, [*trace.validation_specs, _INT])
        self._reset: Callable = _nothing
        self._results: Callable = _nothing
        if program.one_by_one:
            self._reset, self._results = program.metric_reset(), program.metric_results()

    def __call__(self, tensors: Sequence, handles: list) -> list:
        program, layout, validates = self._program, self._program.layout, self._trace.has_validation
        data, steps, counts, epoch_starts, validation, stopping, part, state = _Arguments.of(
            tensors, program, self._trace
        )
        begins, ends = part or (False, False)
        best, without_better, tol, patience = map(np.asarray, stopping or [None] * 4)
        losses: list = []
        curve: list = []
        logs: list = []
        validation_logs: list = []
        best_state, k = state, 0
        layout.load(handles, state)
        while k < len(epoch_starts) - 1 and not (validates and without_better >= patience):
            if begins:
                self._reset([], handles)
            for s in range(epoch_starts[k], epoch_starts[k + 1]):
                outputs = self._step([*data, steps[s, : counts[s]]], handles)
                losses += [] if program.own_step else outputs
            logs = [*(outputs if program.own_step else []), *self._results([], handles)]
            k += 1
            if validates:
                if ends:
                    self._reset([], handles)
                loss = self._evaluate(validation, handles)
                validation_logs = self._results([], handles)
                is_best, best, without_better = update_early_stopping(
                    np, self._monitored(loss, validation_logs), best, without_better, tol
                )
                best_state = layout.read(handles) if is_best else best_state
                curve.append(loss)
        progress = [np.array(curve), best, without_better, *best_state] if validates else []
        losses = [loss.numpy() for loss in losses]
        return [k, losses, *layout.read(handles), *progress, *logs, *validation_logs]

    def _evaluate(self, validation, handles):
        """The mean loss over the first validation rows."""
        *data, n_rows = validation
        n_rows, at_once, total = int(n_rows), self._program.rows_at_once, np.float32(0)
        for start in range(0, n_rows, at_once):
            rows = data
            if len(data[0]) > at_once:
                rows = [tensor[start : start + at_once] for tensor in data]
            n_real = np.int32(min(at_once, n_rows - start))
            total += self._chunk([*rows, n_real], handles)[0].numpy()
        return total / np.float32(n_rows) if n_rows else np.float32("nan")

    def _monitored(self, loss, results):
        if self._trace.monitor is None or np.isnan(loss):
            return loss
        named = tf.nest.pack_sequence_as(self._program.metrics_structure, results)
        return np.float32(error_of(named, self._trace.monitor))


def _nothing(tensors, handles):
    return []


def _step_of(program, trace, names):
    if program.own_step:
        return own_step_function(program, trace.layout, names)
    return step_function(program, trace.layout)


class _Learning:
    """Trains steps `start` to `stop`, inside a trace."""

    def __init__(self, program: TracedProgram, trace: TraceKey, size: int):
        self._program = program
        self._tail = trace.tail
        self._size = size
        self._batch = program.batch_size
        self.names: list[str] = []
        specs, layout = list(trace.specs), program.layout
        if self._tail != "masked":
            step = _step_of(program, trace, self.names)
            self._step = layout.lift_captures(step, specs)
        if self._tail:
            block = block_function(program, trace.layout, masked=self._tail == "masked")
            self._shapes = [(size, self._batch, *spec.shape[1:]) for spec in specs]
            blocks = [
                tf.TensorSpec(shape, spec.dtype)
                for shape, spec in zip(self._shapes, specs, strict=True)
            ]
            counts = tf.TensorSpec([size], tf.int32)
            self._block = layout.lift_captures(block, [*blocks, counts, _INT], xla=True)

    def __call__(self, data, steps, counts, start, stop, losses, handles):
        """Return the losses with those of the steps appended; the last logs of a custom step."""
        if self._program.own_step:
            return losses, self._own_steps(data, steps, counts, start, stop, handles)

        if self._tail is None:
            return self._single_steps(data, steps, counts, start, stop, losses, handles), []
        full = stop
        if self._tail == "exact":
            full = tf.where(counts[stop - 1] < self._batch, stop - 1, stop)
        losses = self._blocks(data, steps, counts, start, full, losses, handles)
        if self._tail == "exact":
            losses = self._single_steps(data, steps, counts, full, stop, losses, handles)
        return losses, []

    def _single_steps(self, data, steps, counts, start, stop, losses, handles):
        def step(s, losses):
            loss = self._step(_rows(data, steps[s, : counts[s]]), handles)[0]
            return s + 1, losses.write(losses.size(), tf.reshape(loss, [1]))

        return tf.while_loop(lambda s, _: s < stop, step, (start, losses), parallel_iterations=1)[1]

    def _blocks(self, data, steps, counts, start, stop, losses, handles):
        size, batch = self._size, self._batch

        def batches(s):
            """Gather a block, padded if fewer steps are left."""
            n = tf.clip_by_value(stop - s, 0, size)
            rows = _rows(data, tf.reshape(steps[s : s + n], [-1]))
            missing = (size - n) * batch
            rows = tf.cond(
                missing > 0,
                lambda: [tf.pad(r, [[0, missing], *[[0, 0]] * (r.shape.rank - 1)]) for r in rows],
                lambda: rows,
            )
            return [tf.reshape(r, shape) for r, shape in zip(rows, self._shapes, strict=True)]

        def block(s, losses, *gathered):
            real = tf.ensure_shape(counts[s : s + size], [size])
            n = tf.minimum(size, stop - s)
            taken = self._block([*gathered, real, n], handles)[0]
            # The next rows are gathered while this block is trained on.
            return s + size, losses.write(losses.size(), taken[:n]), *batches(s + size)

        return tf.while_loop(
            lambda s, *_: s < stop,
            block,
            (start, losses, *batches(start)),
            parallel_iterations=1,
        )[1]

    def _own_steps(self, data, steps, counts, start, stop, handles):
        def step(s):
            return list(self._step(_rows(data, steps[s, : counts[s]]), handles))

        return tf.while_loop(
            lambda s, *_: s < stop,
            lambda s, *_: (s + 1, *step(s)),
            (start + 1, *step(start)),
            parallel_iterations=1,
        )[1:]


def _rows(data, index):
    return [tf.gather(tensor, index) for tensor in data]
