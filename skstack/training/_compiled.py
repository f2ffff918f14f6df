"""One fit on a program: its rows as tensors, its state, and epochs in as few calls as may be."""

from __future__ import annotations

import contextlib
import math
import time

import numpy as np
import tensorflow as tf

from skstack.training._epochs import steps_in_block
from skstack.training._lanes import called
from skstack.training._tables import Orders, Steps, bucket
from skstack.training._watching import plain

# No signal is heard within a call. How many epochs it takes changes no bit of the result.
_ROWS_AT_FIRST = 2**18
_POSITIONS_A_CALL = 2**22  # of int32: 16 MB
_SECONDS_A_CALL = 2.0


class Compiled:
    """Trains some epochs at a time.

    Parameters
    ----------
    program : Program
    trace : Trace
    initial : list of ndarray
        Packed state to start from.
    table, held_out : Table
    plan : Plan

    Attributes
    ----------
    state : list of tensors
        Packed, of the network and the optimizer, after the last epoch.
    stopped : bool
        Whether the validation loss did not improve for long enough.
    """

    def __init__(self, program, trace, initial, table, held_out, plan):
        self._program = program
        self._plan = plan
        self._trace = trace
        self._run, self._own_names = program.epochs(self._trace)
        self._data = table.tensors()
        self._tested = []
        if held_out is not None:
            # Few shapes, for the kernels of each are kept.
            n_padded = bucket(held_out.n_rows) if program.masks else held_out.n_rows
            self._tested = [*held_out.tensors(n_padded), tf.constant(held_out.n_rows)]
        self._orders = Orders(plan.seed, table.n_rows)
        self._most = max(_POSITIONS_A_CALL // table.n_rows, 1)
        self._chunk = max(_ROWS_AT_FIRST // table.n_rows, 1)
        self._padding = steps_in_block(self._trace, program.batch_size)
        patience = np.iinfo(np.int32).max if plan.patience is None else max(plan.patience, 1)
        self._patience = [tf.constant(plan.tol, tf.float32), tf.constant(patience, tf.int32)]
        self._best_loss = tf.constant(math.inf)
        self._without_better = tf.constant(0)
        self._best_state = None
        self._handles = None
        self.state = initial
        self.stopped = False

    @contextlib.contextmanager
    def lane(self, *, own: bool = False):
        """While open, epochs run on a lane; `own`: on the variables of the model itself."""
        slots = self._program.slots
        if own:
            self._handles = slots.own()
            yield
            return
        lane = slots.take()
        self._handles = lane.handles
        try:
            yield
        finally:
            self._handles = None
            slots.give_back(lane)

    def epochs(self, n_epochs: int) -> list[dict]:
        """Train at most `n_epochs`, fewer where that is enough; return the logs of each."""
        begun = time.perf_counter()
        orders = self._orders.next(min(n_epochs, self._chunk))
        steps = Steps(orders, self._program.batch_size, self._padding)
        watching = []
        if self.watches:
            tol, patience = self._patience
            watching = [*self._tested, self._best_loss, self._without_better, tol, patience]
        arguments = [*self._data, steps.rows, steps.counts, steps.borders, *watching, *self.state]
        found = called(self._run, [*arguments, *self._handles])

        def take(n):
            taken, found[:n] = found[:n], []
            return taken

        n_run, losses = (part.numpy() for part in take(2))
        self.state = take(len(self.state))
        each = (time.perf_counter() - begun) / max(n_run, 1)
        self._chunk = int(np.clip(_SECONDS_A_CALL / max(each, 1e-6), 1, self._most))
        trained = [{}]
        if not self._program.own_step:
            trained = [{"loss": loss} for loss in steps.means(losses, n_run).tolist()]
        validated = []
        if self.watches:
            validated = [{"loss": float(loss)} for loss in take(1)[0].numpy()[:n_run]]
            self._judge(*take(2), take(len(self.state)))
        if self._program.one_by_one:
            own = _like(dict.fromkeys(self._own_names), take)
            counted = _like(self._program.metrics_like, take)
            if own:  # as `Model.fit`: its metrics, or what the last step gave
                trained = [counted if own.keys() == counted.keys() else own]
            else:
                trained = [{**counted, **trained[0]}]
            if self.watches:
                validated = [{**_like(self._program.metrics_like, take), **validated[0]}]
        for epoch, tested in zip(trained, validated, strict=False):
            epoch.update({f"val_{name}": value for name, value in tested.items()})
        return trained

    @property
    def watches(self) -> bool:
        """Whether there are validation rows."""
        return self._trace.watches

    def _judge(self, best_loss, without_better, best_state):
        if float(best_loss) < float(self._best_loss):
            self._best_state = best_state
        self._best_loss, self._without_better = best_loss, without_better
        self.stopped = int(without_better) >= int(self._patience[1])

    def result(self) -> list:
        """The state to keep: that of the best epoch where early stopping was asked for."""
        if self._plan.patience is None or self._best_state is None:
            return self.state
        return self._best_state


def _like(structure, take):
    values = take(len(tf.nest.flatten(structure)))
    return tf.nest.pack_sequence_as(structure, list(map(plain, values)))
