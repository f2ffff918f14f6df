"""When to stop early: one rule, for tensors inside a program and for numbers beside it."""

# Whole epochs in one compiled call, early stopping included.

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from skstack._training.data import Layout
from skstack._training.steps import (
    block_function,
    evaluation_function,
    own_step_function,
    step_function,
)


def update_early_stopping(xp, loss, best, without_better, tol):
    """Judge a validation loss; one that is not a number is no improvement.

    Parameters
    ----------
    xp : module
        NumPy or TensorFlow.
    loss, best : scalar float32
        The loss of this epoch, and the lowest so far.
    without_better : scalar int32
        Epochs since the loss last improved by more than `tol`.
    tol : scalar float32

    Returns
    -------
    is_best, best, without_better : scalar
        Whether this epoch has the lowest loss, and the two counts with this epoch.
    """
    is_best = loss < best
    without_better = xp.where(loss < best - tol, 0, without_better + 1)
    return is_best, xp.where(is_best, loss, best), without_better


_BLOCK_BYTES = 2**20
_INT = tf.TensorSpec([], tf.int32)
_FLOAT = tf.TensorSpec([], tf.float32)
_STEPS = [
    tf.TensorSpec([None, None], tf.int32),  # rows of each step
    tf.TensorSpec([None], tf.int32),  # how many of them are real
    tf.TensorSpec([None], tf.int32),  # where each epoch begins and the last one ends
]
_PATIENCE = [_FLOAT, _INT, _FLOAT, _INT]


@dataclass(frozen=True)
class TraceKey:
    """What a function that runs epochs is traced for.

    Parameters
    ----------
    specs : tuple of tf.TensorSpec
        The training rows; any number of them.
    layout : Layout
    tested_specs : tuple of tf.TensorSpec, default=()
        The validation rows.
    tested_layout : Layout, default=None
    tail : {"masked", "exact"} or None
        With XLA, how the last batch of an epoch is made: filled up inside the program, or as it
        is by a step without XLA. None: no XLA.
    """

    specs: tuple
    layout: Layout
    tested_specs: tuple = ()
    tested_layout: Layout | None = None
    tail: str | None = None

    @classmethod
    def of(cls, table, held_out, tail):
        """For these rows; `held_out` may be None."""
        if held_out is None:
            return cls(table.specs(), table.layout(), tail=tail)
        tested = held_out.specs(), held_out.layout()
        return cls(table.specs(), table.layout(), *tested, tail)

    @property
    def watches(self) -> bool:
        """Whether there are validation rows."""
        return self.tested_layout is not None

    def takes(self, program) -> list:
        """Specs of all that the function takes, but for the handles."""
        watching = [*self.tested_specs, _INT, *_PATIENCE] if self.watches else []
        return [*self.specs, *_STEPS, *watching, *program.slots.packed_specs]


def steps_in_block(trace, batch_size) -> int:
    """Steps taken at once: with XLA, a function of the rows' shape and the batch size alone."""
    if trace.tail is None:
        return 1
    row = sum(spec.dtype.size * max(spec.shape[1:].num_elements(), 1) for spec in trace.specs)
    return min(max(_BLOCK_BYTES // (row * batch_size), 4), 256)


def epochs_function(program, trace):
    """Make the function that trains some epochs, and the list of the names of an own step's logs.

    It takes what `TraceKey.takes` says, then the handles of a lane. It gives, flat: the number of
    epochs run; the loss of each step; the state; with validation rows, the validation loss of each
    epoch, the two counts of `update_early_stopping`, and the state after the best epoch; and where
    epochs run one by one, the logs of an own step, the training metrics and the validation metrics.
    """
    slots, batch, single = program.slots, program.batch_size, program.one_by_one
    size = steps_in_block(trace, batch)
    learn = _Learning(program, trace, size)
    evaluate: Any = None
    finish: Any = None
    if trace.watches:
        tested = [*trace.tested_specs, _INT]
        evaluate = slots.lift_captures(evaluation_function(program, trace.tested_layout), tested)
    if single:
        finish = program.counted()

    def run(*tensors):
        arguments = list(tensors)

        def take(n):
            taken, arguments[:n] = arguments[:n], []
            return taken

        data = take(len(trace.specs))
        steps, counts, borders = take(3)
        tested = take(len(trace.tested_specs) + 1) if trace.watches else []
        best, without_better, tol, patience = take(4) if trace.watches else [None] * 4
        state = take(len(slots.packed_specs))
        handles = arguments
        slots.load(handles, state)
        n_epochs = tf.shape(borders)[0] - 1
        logs: list = []
        tested_logs: list = []

        def epoch(k, losses, *watched):
            if single:
                program.reset_counted(handles)
            start, stop = borders[k], borders[k + 1]
            losses, own = learn(data, steps, counts, start, stop, losses, handles)
            if single:
                logs[:] = [*own, *finish(*handles)]
            if not trace.watches:
                return (k + 1, losses)
            curve, best, without_better, *best_state = watched
            if single:
                program.reset_counted(handles)
            loss = evaluate(*tested, *handles)[0]
            if single:
                tested_logs[:] = finish(*handles)
            is_best, best, without_better = update_early_stopping(
                tf, loss, best, without_better, tol
            )
            best_state = tf.cond(is_best, lambda: slots.read(handles), lambda: list(best_state))
            return (k + 1, losses, curve.write(k, loss), best, without_better, *best_state)

        def going_on(k, losses, *watched):
            more = k < n_epochs
            return tf.logical_and(more, watched[2] < patience) if trace.watches else more

        losses = tf.TensorArray(
            "float32", size=0, dynamic_size=True, element_shape=[None], infer_shape=False
        )
        watched = []
        if trace.watches:
            curve = tf.TensorArray("float32", size=n_epochs, element_shape=[])
            watched = [curve, best, without_better, *state]
        loop = (tf.constant(0), losses, *watched)
        if single:
            loop = epoch(*loop)
        elif trace.watches or trace.tail == "exact":
            loop = tf.while_loop(going_on, epoch, loop, parallel_iterations=1)
        else:  # nothing happens between epochs
            end = tf.reshape(borders[-1], [1])
            borders = tf.concat([tf.zeros([1], tf.int32), end], axis=0)
            loop = (n_epochs, epoch(*loop)[1])
        k, losses, *watched = loop
        if trace.watches:
            watched[0] = watched[0].stack()
        return [k, losses.concat(), *slots.read(handles), *watched, *logs, *tested_logs]

    concrete = tf.function(run, autograph=False)
    return concrete.get_concrete_function(*trace.takes(program), *slots.specs), learn.names


class _Learning:
    """Takes steps `start` to `stop`, inside a trace."""

    def __init__(self, program, trace, size):
        self._program = program
        self._tail = trace.tail
        self._size = size
        self._batch = program.batch_size
        self.names: list[str] = []
        specs, slots = list(trace.specs), program.slots
        if program.own_step:
            step = own_step_function(program, trace.layout, self.names)
        else:
            step = step_function(program, trace.layout)
        if self._tail != "masked":
            self._step = slots.lift_captures(step, specs)
        if self._tail:
            block = block_function(program, trace.layout, masked=self._tail == "masked")
            self._shapes = [(size, self._batch, *spec.shape[1:]) for spec in specs]
            blocks = [
                tf.TensorSpec(shape, spec.dtype)
                for shape, spec in zip(self._shapes, specs, strict=True)
            ]
            counts = tf.TensorSpec([size], tf.int32)
            self._block = slots.lift_captures(block, [*blocks, counts, _INT], xla=True)

    def __call__(self, data, steps, counts, start, stop, losses, handles):
        """Return the losses, those of the steps appended, and the last logs of an own step."""
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
            loss = self._step(*_rows(data, steps[s, : counts[s]]), *handles)[0]
            return s + 1, losses.write(losses.size(), tf.reshape(loss, [1]))

        return tf.while_loop(lambda s, _: s < stop, step, (start, losses), parallel_iterations=1)[1]

    def _blocks(self, data, steps, counts, start, stop, losses, handles):
        size, batch = self._size, self._batch

        def batches(s):
            """Gather a block, filled up where fewer steps are left."""
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
            taken = self._block(*gathered, real, n, *handles)[0]
            # The next rows are gathered while these are learned from.
            return s + size, losses.write(losses.size(), taken[:n]), *batches(s + size)

        return tf.while_loop(
            lambda s, *_: s < stop,
            block,
            (start, losses, *batches(start)),
            parallel_iterations=1,
        )[1]

    def _own_steps(self, data, steps, counts, start, stop, handles):
        def step(s):
            return list(self._step(*_rows(data, steps[s, : counts[s]]), *handles))

        return tf.while_loop(
            lambda s, *_: s < stop,
            lambda s, *_: (s + 1, *step(s)),
            (start + 1, *step(start)),
            parallel_iterations=1,
        )[1:]


def _rows(data, index):
    return [tf.gather(tensor, index) for tensor in data]
