"""One fit, from rows to weights."""

from __future__ import annotations

import contextlib
import re
import warnings
from dataclasses import replace

import numpy as np
import tensorflow as tf

from skstack._training import engines
from skstack._training.blueprint import Blueprint
from skstack._training.config import ENGINES, TrainConfig, TrainingData, TrainResult
from skstack._training.data import TensorTable, bucket
from skstack._training.epochs import TraceKey
from skstack._training.fork_guard import refuse_after_fork
from skstack._training.keras_fit import fit_with_keras
from skstack._training.layers import check_indices
from skstack._training.monitor import TrainingMonitor, public_model, shown_to
from skstack._training.network import Network
from skstack._training.optimizers import Ingredients
from skstack._training.program import POOL, Compiled, Program
from skstack._training.steps import NothingToLearn


def train(
    blueprint: Blueprint,
    start: dict[str, np.ndarray],
    rows: TrainingData,
    plan: TrainConfig,
    *,
    validation: TrainingData | None = None,
    optimizer_start: list[np.ndarray] | None = None,
) -> TrainResult:
    """Train a network.

    On a CPU the same arguments give the same bits, whatever ran before in the process and whatever
    runs beside it.

    Parameters
    ----------
    blueprint : Blueprint
        The network.
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
    table = TensorTable(rows, "training")
    held_out = None if validation is None else TensorTable(validation, "validation")
    # A larger batch holds no more rows, but would be counted and padded.
    plan = replace(plan, batch_size=min(plan.batch_size, bucket(table.n_rows)))
    ingredients = Ingredients.of(plan)
    key = ingredients.key(blueprint, table.signature())

    def make():
        return Program(blueprint, ingredients, table, key)

    with POOL.program(key, make, shown=bool(plan.callbacks)) as program:
        for rows_of in (table, held_out):
            if rows_of is not None:
                check_indices(program.model, rows_of.inputs, program.bounds)
        initial = program.start(start, optimizer_start, ingredients.learning_rate)
        watch = TrainingMonitor(plan)
        state = program.slots.unpack(_run(program, initial, table, held_out, plan, watch))
        n_variables = len(program.variables)
        trained = dict(zip(program.variables, state[:n_variables], strict=True))
        watch.check_weights(program.variables, trained)
        return TrainResult(
            network=Network(blueprint, trained),
            history=watch.history,
            n_epochs=watch.n_epochs,
            optimizer_variables=state[n_variables:],
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


def _run(program, initial, table, held_out, plan, watch):
    """Take the best road, or the next where it turns out to be closed; give the packed state."""
    n_steps = -(-table.n_rows // plan.batch_size)
    road, reason = engines.choose(program, plan, n_steps * plan.epochs)
    if road.name == "graph" and plan.engine == "xla":
        warnings.warn(f"Trained without XLA: {reason}.", UserWarning, stacklevel=4)
    while road.name != "keras":
        trace = TraceKey.of(table, held_out, road.tail)
        if trace not in program.broken:
            try:
                compiled = Compiled(program, trace, initial, table, held_out, plan)
            except (tf.errors.ResourceExhaustedError, NothingToLearn):
                raise
            except (
                Exception
            ) as error:  # whatever a user's layer or loss may raise while it is traced
                _refuse_new_variables(error)
                program.broken[trace] = error
                _tell(road, error)
            else:
                with program.alone if program.slots.shared else contextlib.nullcontext():
                    return _train_compiled(program, compiled, initial, plan, watch, n_steps)
        road = engines.GRAPH if road.tail else engines.KERAS
    untraceable = TraceKey.of(table, held_out, None) in program.broken
    with program.alone:
        program.reset_model(initial)
        fit_with_keras(program, table, held_out, plan, watch, eagerly=untraceable)
        return program.own_state()


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
    how = "without XLA" if road.tail else "step by step through Keras' own `fit`, which is slow"
    warnings.warn(f"This network is trained {how}. {reason}", UserWarning, stacklevel=5)


def _train_compiled(program, compiled, initial, plan, watch, n_steps):
    if plan.callbacks:
        return _train_shown(program, compiled, initial, plan, watch, n_steps)
    one_by_one = program.one_by_one or plan.verbose > 0
    with compiled.lane():
        while not compiled.stopped and watch.n_epochs < plan.epochs:
            for logs in compiled.epochs(1 if one_by_one else plan.epochs - watch.n_epochs):
                watch.check(logs)
                watch.epoch_end(logs)
    return program.finalized(compiled.result()) if watch.n_epochs else initial


def _train_shown(program, compiled, initial, plan, watch, n_steps):
    """Train while callbacks see the model itself, and may change it."""
    program.reset_model(initial)
    model, logs = public_model(program, plan), {}
    with shown_to(plan.callbacks, plan, model, n_steps) as shown, compiled.lane(own=True):
        shown.on_train_begin()
        while not (compiled.stopped or model.stop_training or watch.n_epochs >= plan.epochs):
            shown.on_epoch_begin(watch.n_epochs)
            compiled.state = program.own_state()
            (logs,) = compiled.epochs(1)
            watch.check(logs)
            if compiled.watches:
                shown.on_test_begin()
                shown.on_test_end({n[4:]: v for n, v in logs.items() if n.startswith("val_")})
            shown.on_epoch_end(watch.n_epochs, logs)
            logs = shown.callbacks[-1].logs
            watch.epoch_end(logs)
        if watch.n_epochs:
            kept = program.own_state() if plan.patience is None else compiled.result()
            program.adopt(program.finalized(kept))
        shown.on_train_end(logs)
        return program.own_state()
