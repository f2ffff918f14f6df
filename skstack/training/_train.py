"""One fit, from rows to weights."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace

import numpy as np
import tensorflow as tf

from skstack.training import _roads
from skstack.training._epochs import NothingToLearn
from skstack.training._forks import refuse_after_fork
from skstack.training._ingredients import Ingredients
from skstack.training._keras_fit import fit_with_keras
from skstack.training._network import Network
from skstack.training._plan import ENGINES, Fit, Plan, Rows
from skstack.training._programs import POOL, Program
from skstack.training._seeds import values
from skstack.training._tables import Orders, Table, bucket
from skstack.training._watching import Watch, shown_to

_EPOCHS_A_CALL = 10
_ORDER_POSITIONS = 2**24  # of int32: 64 MB at most


def train(
    blueprint,
    start: dict[str, np.ndarray],
    rows: Rows,
    plan: Plan,
    *,
    validation: Rows | None = None,
    optimizer_start: list[np.ndarray] | None = None,
) -> Fit:
    """Train a network.

    On a CPU the same arguments give the same bits, whatever ran before in the process.

    Parameters
    ----------
    blueprint : object
        ``build()`` makes an uncompiled `keras.Model`; ``key`` is hashable, or None where equality
        is unknown: such a network is compiled for this fit alone.
    start : dict of str to ndarray
        Weights to start from, as `initial_variables` gives them. Not changed.
    rows : Rows
        Rows to learn from. Weights are divided by their mean, so that losses average over weights.
    plan : Plan
        How to learn.
    validation : Rows, default=None
        Rows to evaluate after each epoch.
    optimizer_start : list of ndarray, default=None
        State of the optimizer to continue from; None starts anew.

    Returns
    -------
    fit : Fit
        The network, its history, the number of epochs run, and the optimizer's state.

    Raises
    ------
    ValueError
        If the loss becomes infinite or not a number, or an argument does not suit the others.
    RuntimeError
        In a process that was forked after TensorFlow had started.
    """
    refuse_after_fork()
    _check(plan, validation)
    table = Table(rows, "training")
    held_out = None if validation is None else Table(validation, "validation")
    # A larger batch holds no more rows, but would be counted and padded.
    plan = replace(plan, batch_size=min(plan.batch_size, bucket(table.n_rows)))
    ingredients = Ingredients.of(plan)
    key = ingredients.key(blueprint, table.signature())

    def make():
        return Program(blueprint, ingredients, table, key)

    with POOL.program(key, make, shown=bool(plan.callbacks)) as program:

        def reset():
            program.reset(start, optimizer_start, ingredients.learning_rate)

        reset()
        watch = Watch(plan, program)
        _run(program, table, held_out, plan, watch, reset)
        watch.check_weights()
        trained = dict(zip(program.variables, values(program.variables.values()), strict=True))
        return Fit(
            network=Network(blueprint, trained),
            history=watch.history,
            n_epochs=watch.n_epochs,
            optimizer_variables=values(program.optimizer.variables),
        )


def _check(plan, validation):
    if plan.engine not in ENGINES:
        raise ValueError(f"`engine` must be one of {ENGINES}, got {plan.engine!r}.")
    if plan.epochs < 0 or plan.batch_size < 1:
        raise ValueError(
            "`epochs` must not be negative and `batch_size` at least 1, "
            f"got {plan.epochs} and {plan.batch_size}."
        )
    if plan.patience is not None and validation is None:
        raise ValueError("`patience` needs validation rows.")


def _run(program, table, held_out, plan, watch, reset):
    """Take the best road; where it turns out to be closed, the next."""
    n_steps = -(-table.n_rows // plan.batch_size)
    road, reason = _roads.choose(program, plan, n_steps * plan.epochs)
    if road == "graph" and plan.engine == "xla":
        warnings.warn(f"Trained without XLA: {reason}.", UserWarning, stacklevel=4)
    while road != "keras":
        if road not in program.broken:
            try:
                compiled = _Compiled(program, table, held_out, plan, xla=road == "xla")
            except (tf.errors.ResourceExhaustedError, NothingToLearn):
                raise
            except (
                Exception
            ) as error:  # whatever a user's layer or loss may raise while it is traced
                _refuse_new_variables(error)
                program.broken[road] = error
                _tell(road, error)
                reset()
            else:
                _train_compiled(program, compiled, held_out, plan, watch, n_steps)
                return
        road = "graph" if road == "xla" else "keras"
    untraceable = "graph" in program.broken
    fit_with_keras(program, table, held_out, plan, watch, eagerly=untraceable)


def _refuse_new_variables(error):
    """Refuse layers that are new in every step, and so never learn: no road would mend that."""
    if "only supports singleton tf.Variables" in str(error):
        raise ValueError(
            "The loss, a metric or a layer of this network makes a layer (or a variable) in every "
            "call. It is new each time and never trained; make it once, as part of the model."
        ) from error


def _tell(road, error):
    # Keras writes escape codes, and the arguments in full.
    reason = re.sub(r"\x1b\[\d*m", "", str(error)).partition("Arguments received")[0]
    reason = f"{type(error).__name__}: {' '.join(reason.split())[:300]}"
    how = {"xla": "without XLA", "graph": "step by step through Keras' own `fit`, which is slow"}
    warnings.warn(f"This network is trained {how[road]}. {reason}", UserWarning, stacklevel=5)


class _Compiled:
    """The rows of one fit as tensors, and the compiled functions for them."""

    def __init__(self, program, table, held_out, plan, *, xla):
        """Trace and compile everything, training nothing: whatever cannot be, raises here."""
        n_padded = bucket(table.n_rows) if xla else table.n_rows
        n_positions = -(-n_padded // plan.batch_size) * plan.batch_size
        self.chunk = int(np.clip(_ORDER_POSITIONS // n_positions, 1, _EPOCHS_A_CALL))
        self._shape = (self.chunk, n_positions) if xla else None
        self._orders = Orders(plan.seed, table.n_rows)
        self._n_rows = tf.constant(table.n_rows, tf.int32)
        self._data = table.tensors(n_padded=n_padded, always_weights=xla)
        rows = n_padded if xla else None
        specs = [*_specs(self._data, rows), tf.TensorSpec(self._shape or (None, None), tf.int32)]
        layout = table.layout(always_weights=xla)
        self._train = program.training(layout, [*specs, _SCALAR, _SCALAR], xla=xla)
        if held_out is not None:
            tested = held_out.tensors()
            evaluate = program.evaluation(held_out.layout(), [*_specs(tested, None), _SCALAR])
            self._evaluate = lambda: evaluate(*tested, tf.constant(held_out.n_rows, tf.int32))

    def epochs(self, n_epochs) -> list[float]:
        """Train some epochs and return their losses."""
        orders = self._orders.next(n_epochs, self._shape)
        n_epochs = tf.constant(n_epochs, tf.int32)
        losses = self._train(*self._data, tf.convert_to_tensor(orders), self._n_rows, n_epochs)
        return losses.numpy()[: int(n_epochs)].tolist()

    def evaluate(self) -> float:
        """Mean loss over the validation rows."""
        return float(self._evaluate())


_SCALAR = tf.TensorSpec([], tf.int32)


def _specs(tensors, n_rows):
    return [tf.TensorSpec([n_rows, *tensor.shape[1:]], tensor.dtype) for tensor in tensors]


def _train_compiled(program, compiled, held_out, plan, watch, n_steps):
    with shown_to(plan.callbacks, plan, program.model, n_steps) as shown:
        one_by_one = bool(shown or held_out or program.has_metrics or plan.verbose > 0)
        if shown:
            shown.on_train_begin()
        stop, logs = False, {}
        while not stop and watch.n_epochs < plan.epochs:
            if not one_by_one:
                losses = compiled.epochs(min(compiled.chunk, plan.epochs - watch.n_epochs))
                watch.check(losses)
                for loss in losses:
                    watch.epoch_end({"loss": loss})
                continue
            logs = _one_epoch(program, compiled, held_out, watch, shown)
            stop = watch.epoch_end(logs) or program.model.stop_training
        watch.finish()
        if shown:
            shown.on_train_end(logs)


def _one_epoch(program, compiled, held_out, watch, shown):
    epoch = watch.n_epochs
    if shown:
        shown.on_epoch_begin(epoch)
    program.reset_metrics()
    losses = compiled.epochs(1)
    watch.check(losses)
    logs = {"loss": losses[0], **program.metric_values()}
    if held_out is not None:
        if shown:
            shown.on_test_begin()
        program.reset_metrics()
        tested = {"loss": compiled.evaluate(), **program.metric_values()}
        if shown:
            shown.on_test_end(tested)
        logs.update({f"val_{name}": value for name, value in tested.items()})
    if shown:
        shown.on_epoch_end(epoch, logs)
        logs = shown.callbacks[-1].logs
    return logs
