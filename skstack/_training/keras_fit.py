"""The fallback engine: `Model.fit`, with the order of rows of the other engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from skstack._base.atomic_fit import refuse_if_ended
from skstack._training.config import TrainConfig
from skstack._training.data import Orders, TensorTable
from skstack._training.epochs import error_of, update_early_stopping
from skstack._training.interrupts import ends_training
from skstack._training.keras_model import call_input
from skstack._training.monitor import (
    LastLogs,
    Progress,
    TrainingMonitor,
    forget_model,
    plain,
    public_model,
)
from skstack._training.program import Program


class _FirstCallback(keras.callbacks.Callback):
    """The first callback: draws the order of rows and applies early stopping."""

    def __init__(
        self, program: Program, config: TrainConfig, orders: Orders, monitor: TrainingMonitor
    ):
        super().__init__()
        self._program = program
        self._config = config
        self._orders = orders
        self._monitor = monitor
        self.progress = Progress()
        self.order: np.ndarray | None = None
        self._validated: list | None = None  # the state that the last validation has judged

    def kept(self):
        """The state that is kept if training ends now."""
        best = self.progress.best_state
        state = self._program.get_state() if best is None else best
        return self._program.finalized(state, self._config)

    def on_epoch_begin(self, epoch, logs=None):
        self._monitor.epoch_begin()
        self._validated = None
        self.order = self._orders.next(1)[0]
        if self._monitor.n_epochs and self.progress.best_state is None:
            self.progress = replace(self.progress, state=self._program.get_state())

    def on_train_batch_begin(self, batch, logs=None):
        refuse_if_ended()

    def on_test_end(self, logs=None):
        # After this, SwapEMAWeights replaces the weights by those of the last step.
        if self._config.patience is not None:
            self._validated = self._program.get_state()

    def on_epoch_end(self, epoch, logs=None):
        self._monitor.check(logs)
        progress = replace(
            self.progress,
            n_epochs=self.progress.n_epochs + 1,
            logs=[{name: plain(value) for name, value in (logs or {}).items()}],
            state=None,
        )
        if self._config.patience is None:
            self.progress = progress
            return
        loss = self._judged(logs)
        is_best, best, without_better = update_early_stopping(
            np, loss, progress.best_loss, progress.without_better, np.float32(self._config.tol)
        )
        best_state = progress.best_state
        if is_best:
            best_state = self._validated or self._program.get_state()
        self.progress = replace(
            progress,
            best_state=best_state,
            best_loss=best,
            without_better=without_better,
        )
        if without_better >= self._config.patience:
            self.model.stop_training = True

    def _judged(self, logs):
        """The number of an epoch's logs that early stopping compares; refuse logs without it."""
        name, greater_is_better = self._config.monitor or ("loss", False)
        if f"val_{name}" not in logs:
            reported = sorted(each[4:] for each in logs if each.startswith("val_"))
            raise ValueError(
                f"early_stopping needs {name!r} of the hold-out rows, but the steps of this model "
                f"report {reported}. Return {name!r} from its `test_step`, or set "
                "early_stopping=False."
            )
        if np.isnan(logs.get("val_loss", 0.0)):
            return np.float32("nan")
        return np.float32(error_of(logs, (name, greater_is_better), "val_"))

    def on_train_end(self, logs=None):
        if self.progress.best_state is not None:
            self._program.set_state(self.progress.best_state)
        else:
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)


class _LastCallback(LastLogs):
    """The last callback: records the history; copies attributes that others set on `public`."""

    def __init__(
        self, program: Program, monitor: TrainingMonitor, public: Any, kept: Callable[[], list]
    ):
        super().__init__()
        self._program = program
        self._begins = True
        self._monitor = monitor
        self._kept = kept
        self._public = public

    def on_train_begin(self, logs=None):
        # BackupAndRestore sets the epoch to resume from.
        initial_epoch = getattr(self._public, "_initial_epoch", None)
        if initial_epoch is not None:
            self.model._initial_epoch = initial_epoch

    def on_train_batch_begin(self, batch, logs=None):
        # The step of an earlier fit may be traced for weights that callbacks have frozen since.
        if self._begins and self._program.forget_other_weights():
            self.model.make_train_function(force=True)
        self._begins = False

    def on_train_batch_end(self, batch, logs=None):
        self._copy_stop_training()

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        stop = self._monitor.epoch_end(self.logs, self._kept)
        self._copy_stop_training()
        self.model.stop_training |= stop

    def _copy_stop_training(self):
        self.model.stop_training = self.model.stop_training or self._public.stop_training


def fit_with_keras(
    program: Program,
    table: TensorTable,
    validation: TensorTable | None,
    config: TrainConfig,
    monitor: TrainingMonitor,
    *,
    eagerly: bool,
) -> None:
    """Train with `Model.fit`: overridden `fit`, batch callbacks, networks that cannot be traced."""
    model = program.model
    model.run_eagerly = eagerly
    first = _FirstCallback(program, config, Orders(config.seed, table.n_rows), monitor)
    public = public_model(model, config)
    all_callbacks = [first, *config.callbacks, _LastCallback(program, monitor, public, first.kept)]
    if config.epochs == 0:
        return
    callbacks = keras.callbacks.CallbackList(
        all_callbacks,
        add_history=True,
        model=model,
        epochs=config.epochs,
        steps=-(-table.n_rows // config.batch_size),
        verbose=0,
    )
    for callback in config.callbacks:
        if public is not model:
            callback.set_model(public)
    try:
        model.fit(
            _batches(model, table, first, config.batch_size),
            epochs=config.epochs,
            validation_data=None if validation is None else _arrays(model, validation),
            validation_batch_size=program.rows_at_once,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
        )
    except KeyboardInterrupt:
        if not ends_training(first.progress.n_epochs):
            raise
        monitor.interrupt(first.progress)
        if first.progress.state is not None:
            program.set_state(first.progress.state)
        callbacks.on_train_end()
    finally:
        forget_model(all_callbacks)
        model.run_eagerly = False


def _arrays(model, table):
    x, y, weights = table.layout().unpack(table.arrays())
    return call_input(model, x), y, weights


def _batches(model, table, first, batch_size):
    """Return the batches of an epoch as a dataset, in the order that `first` drew."""
    arrays, layout = table.arrays(), table.layout()
    starts = range(0, table.n_rows, batch_size)

    def generate():
        # Keras reads a batch before the first epoch begins.
        order = range(table.n_rows) if first.order is None else first.order
        for start in starts:
            index = order[start : start + batch_size]
            yield tuple(array[index] for array in arrays)

    def arrange(*batch):
        x, y, weights = layout.unpack(batch)
        x = call_input(model, x)
        x = tuple(x) if isinstance(x, list) else x  # a dataset would stack the tensors of a list
        return (x, y) if weights is None else (x, y, weights)

    signature = tuple(tf.TensorSpec((None, *a.shape[1:]), a.dtype) for a in arrays)
    dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
    return dataset.map(arrange).apply(tf.data.experimental.assert_cardinality(len(starts)))
