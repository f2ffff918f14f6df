"""One fit: from rows to trained weights."""

from __future__ import annotations

import contextlib
import re
import warnings
from dataclasses import replace

import numpy as np
import tensorflow as tf

from skstack._base.atomic_fit import caller_level
from skstack._training import engines
from skstack._training.blueprint import Blueprint
from skstack._training.config import ENGINES, TrainConfig, TrainingData, TrainResult
from skstack._training.data import TensorTable, bucket
from skstack._training.epochs import TraceKey
from skstack._training.interrupts import ends_training
from skstack._training.isolation import refuse_after_fork
from skstack._training.keras_fit import fit_with_keras
from skstack._training.keras_model import check_indices
from skstack._training.monitor import TrainingMonitor, callback_list, public_model
from skstack._training.network import Network
from skstack._training.optimizers import CompileSettings
from skstack._training.program import POOL, CompiledFit, Program
from skstack._training.steps import NothingToLearn


def train(
    blueprint: Blueprint,
    start: dict[str, np.ndarray],
    rows: TrainingData,
    config: TrainConfig,
    *,
    validation: TrainingData | None = None,
    optimizer_start: list[np.ndarray] | None = None,
    optimizer_layout: tuple | None = None,
) -> TrainResult:
    """Train a network.

    On a CPU the same arguments give the same bits, independently of what ran before in the process
    and of what runs at the same time.

    Parameters
    ----------
    blueprint : Blueprint
        The network.
    start : dict of str to ndarray
        Initial weights, as `initial_variables` returns them. Not modified.
    rows : TrainingData
        Training rows. Weights are divided by their mean, so that losses are weighted means.
    config : TrainConfig
    validation : TrainingData, default=None
        Rows to evaluate after each epoch.
    optimizer_start : list of ndarray, default=None
        State of the optimizer to continue with; None starts with a new one.
    optimizer_layout : tuple, default=None
        The `optimizer_layout` of the result that `optimizer_start` is from. If the optimizer of
        `config` has another one, it is new.

    Returns
    -------
    TrainResult

    Raises
    ------
    ValueError
        If the loss becomes infinite or NaN, or arguments contradict each other.
    RuntimeError
        In a process that was forked after TensorFlow had started.
    """
    refuse_after_fork()
    _check(config, validation)
    table = TensorTable(rows, "training")
    validation_table = None if validation is None else TensorTable(validation, "validation")
    # A larger batch holds no more rows, but would be padded.
    config = replace(config, batch_size=min(config.batch_size, bucket(table.n_rows)))
    settings = CompileSettings.of(config)
    key = settings.key(blueprint, table.signature())

    callbacks = bool(config.callbacks)

    def make():
        return Program(blueprint, settings, table, key, callbacks=callbacks)

    with POOL.program(key, make, callbacks=callbacks) as program:
        for part in (table, validation_table):
            if part is not None:
                check_indices(program.model, part.inputs, program.embedding_bounds)
        if config.monitor is not None:
            program.check_metric(config.monitor[0])
        layout = program.state_layout
        if optimizer_layout not in (None, layout):
            optimizer_start = None  # that of another optimizer
        in_epoch = -(-table.n_rows // config.batch_size)
        n_steps = 0 if config.constant else config.epochs * in_epoch
        initial = program.initial_state(
            start, optimizer_start, settings.learning_rate, n_steps, in_epoch
        )
        monitor = TrainingMonitor(
            config, lambda state: Network(blueprint, program.split_state(state)[0])
        )
        state = _run(program, initial, table, validation_table, config, monitor)
        monitor.finish(lambda: state)
        trained, optimizer_variables = program.split_state(state)
        monitor.check_weights(program.variables, trained)
        return TrainResult(
            network=Network(blueprint, trained),
            history=monitor.history,
            n_epochs=monitor.n_epochs,
            optimizer_variables=optimizer_variables,
            optimizer_layout=layout,
            interrupted=monitor.interrupted,
        )


def _check(config: TrainConfig, validation: TrainingData | None) -> None:
    if config.engine not in ENGINES:
        raise ValueError(f"`engine` must be one of {ENGINES}, got {config.engine!r}.")
    if config.epochs < 0 or config.batch_size < 1:
        raise ValueError(
            "`epochs` must not be negative and `batch_size` at least 1, "
            f"got {config.epochs} and {config.batch_size}."
        )
    if config.patience is not None and validation is None:
        raise ValueError("`patience` needs validation rows.")


def _run(
    program: Program,
    initial: list,
    table: TensorTable,
    validation_table: TensorTable | None,
    config: TrainConfig,
    monitor: TrainingMonitor,
) -> list:
    """Train with the best engine, or the next if that fails; return the packed state."""
    n_steps = -(-table.n_rows // config.batch_size)
    engine, reason = engines.choose(program, config, n_steps * config.epochs)
    if engine.name == "graph" and config.engine == "xla":
        warnings.warn(f"Trained without XLA: {reason}.", UserWarning, stacklevel=caller_level())
    while engine.name != "keras":
        trace = TraceKey.of(
            table,
            validation_table,
            engine.tail,
            config.monitor,
            stepwise=engine is engines.STEPWISE,
        )
        if trace not in program.failed_traces:
            try:
                compiled = CompiledFit(program, trace, initial, table, validation_table, config)
            except (tf.errors.ResourceExhaustedError, NothingToLearn):
                raise
            except Exception as error:  # a user's layer or loss may raise anything while traced
                _refuse_new_variables(error)
                program.failed_traces[trace] = error
                _warn_slower(engine, error)
            else:
                with (
                    program.model_lock
                    if program.layout.captures_others
                    else contextlib.nullcontext()
                ):
                    return _train_compiled(program, compiled, initial, config, monitor, n_steps)
        engine = engines.GRAPH if engine.tail else engines.KERAS
    traces = (
        TraceKey.of(table, validation_table, None, config.monitor, stepwise=stepwise)
        for stepwise in (False, True)
    )
    untraceable = any(trace in program.failed_traces for trace in traces)
    with program.model_lock:
        program.reset_model(initial)
        fit_with_keras(program, table, validation_table, config, monitor, eagerly=untraceable)
        return program.get_state()


def _refuse_new_variables(error: Exception) -> None:
    """Refuse layers that are new in every step, which no engine can train."""
    if "only supports singleton tf.Variables" in str(error):
        raise ValueError(
            "The loss, a metric or a layer of this network creates a layer (or a variable) in "
            "every call, which is never trained. Create it once, as part of the model."
        ) from error


def _warn_slower(engine: engines.Engine, error: Exception) -> None:
    # Keras writes escape codes, and all arguments in full.
    reason = re.sub(r"\x1b\[\d*m", "", str(error)).partition("Arguments received")[0]
    reason = f"{type(error).__name__}: {' '.join(reason.split())[:300]}"
    how = "without XLA" if engine.tail else "step by step through Keras' own `fit`, which is slow"
    warnings.warn(
        f"This network is trained {how}. Cause: {reason}", UserWarning, stacklevel=caller_level()
    )


def _train_compiled(
    program: Program,
    compiled: CompiledFit,
    initial: list,
    config: TrainConfig,
    monitor: TrainingMonitor,
    n_steps: int,
) -> list:
    if config.callbacks:
        return _train_with_callbacks(program, compiled, initial, config, monitor, n_steps)
    one_by_one = program.one_by_one or monitor.one_by_one
    stop, before = False, None

    def kept():
        return program.finalized(compiled.result(), config)

    with compiled.bind():
        try:
            while not (stop or compiled.stopped or monitor.n_epochs >= config.epochs):
                monitor.epoch_begin()
                before = compiled.snapshot() if monitor.reports and not one_by_one else None
                most = 1 if one_by_one else config.epochs - monitor.n_epochs
                for logs in compiled.epochs(most, monitor.seconds_per_block):
                    monitor.check(logs)
                    stop = monitor.epoch_end(logs, kept)
                    if stop:
                        break
        except KeyboardInterrupt:
            if not ends_training(compiled.progress.n_epochs):
                raise
            monitor.interrupt(compiled.progress)
        if stop and before is not None:  # the block may have trained more epochs
            compiled.train_again(before, monitor.n_epochs)
    return kept() if monitor.n_epochs else initial


def _train_with_callbacks(
    program: Program,
    compiled: CompiledFit,
    initial: list,
    config: TrainConfig,
    monitor: TrainingMonitor,
    n_steps: int,
) -> list:
    """Train while callbacks see the model itself and may change it."""
    program.reset_model(initial)
    logs: dict = {}
    model = public_model(program.model, config)

    def kept():
        state = program.get_state() if config.patience is None else compiled.result()
        return program.finalized(state, config)

    context = callback_list(config.callbacks, config, model, n_steps)
    with context as callbacks, contextlib.ExitStack() as bound:
        bound.enter_context(compiled.bind(own=True))
        try:
            callbacks.on_train_begin()
            while not (
                compiled.stopped or model.stop_training or monitor.n_epochs >= config.epochs
            ):
                monitor.epoch_begin()
                callbacks.on_epoch_begin(monitor.n_epochs)
                # Later, Keras' `fit` follows no change either: its step is traced.
                if not monitor.n_epochs and program.forget_other_weights():
                    bound.enter_context(compiled.traced_again())
                compiled.progress = replace(compiled.progress, state=program.get_state())
                (logs,) = compiled.epochs(1)
                monitor.check(logs)
                if compiled.has_validation:
                    callbacks.on_test_begin()
                    callbacks.on_test_end(
                        {n[4:]: v for n, v in logs.items() if n.startswith("val_")}
                    )
                callbacks.on_epoch_end(monitor.n_epochs, logs)
                logs = callbacks.callbacks[-1].logs
                if monitor.epoch_end(logs, kept):
                    break
        except KeyboardInterrupt:
            if not ends_training(compiled.progress.n_epochs):
                raise
            monitor.interrupt(compiled.progress)
            if compiled.running:
                program.set_state(compiled.progress.state)
        if monitor.n_epochs:
            program.set_state(kept())
        callbacks.on_train_end(logs)
        return program.get_state()
