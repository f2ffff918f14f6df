"""The last road: Keras' own `fit`, fed with our own order of rows."""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf

from skstack._training.data import Orders
from skstack._training.epochs import update_early_stopping
from skstack._training.model_io import call_input
from skstack._training.monitor import LastLogs, forget_model, public_model


class _Follow(keras.callbacks.Callback):
    """First of the callbacks: draws the order of each epoch, and judges what came of it."""

    def __init__(self, program, plan, orders, watch):
        super().__init__()
        self._program = program
        self._plan = plan
        self._orders = orders
        self._watch = watch
        self._best_state = None
        self._best, self._without_better = np.float32(math.inf), 0
        self.order = None

    def on_epoch_begin(self, epoch, logs=None):
        self.order = self._orders.next(1)[0]

    def on_epoch_end(self, epoch, logs=None):
        self._watch.check(logs)
        if self._plan.patience is None:
            return
        loss = np.float32(logs.get("val_loss", math.nan))
        is_best, self._best, self._without_better = update_early_stopping(
            np, loss, self._best, self._without_better, np.float32(self._plan.tol)
        )
        if is_best:
            self._best_state = self._program.own_state()
        if self._without_better >= self._plan.patience:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        if self._best_state is not None:
            self._program.adopt(self._best_state)
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)


class _Note(LastLogs):
    """Last of the callbacks: keeps the history, and hands on what the others told their model."""

    def __init__(self, watch, shown):
        super().__init__()
        self._watch = watch
        self._shown = shown

    def on_train_begin(self, logs=None):
        # BackupAndRestore writes there in which epoch to go on.
        begin = getattr(self._shown, "_initial_epoch", None)
        if begin is not None:
            self.model._initial_epoch = begin

    def on_train_batch_end(self, batch, logs=None):
        self._hand_on()

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self._watch.epoch_end(self.logs)
        self._hand_on()

    def _hand_on(self):
        self.model.stop_training = self.model.stop_training or self._shown.stop_training


def fit_with_keras(program, table, held_out, plan, watch, *, eagerly: bool) -> None:
    """Train by `Model.fit`: for own train steps, batch callbacks, and what cannot be traced."""
    model = program.model
    model.run_eagerly = eagerly
    follow = _Follow(program, plan, Orders(plan.seed, table.n_rows), watch)
    shown = public_model(program, plan)
    everybody = [follow, *plan.callbacks, _Note(watch, shown)]
    if plan.epochs == 0:
        return
    callbacks = keras.callbacks.CallbackList(
        everybody,
        add_history=True,
        model=model,
        epochs=plan.epochs,
        steps=-(-table.n_rows // plan.batch_size),
        verbose=0,
    )
    for callback in plan.callbacks:
        if shown is not model:
            callback.set_model(shown)
    try:
        model.fit(
            _batches(model, table, follow, plan.batch_size),
            epochs=plan.epochs,
            validation_data=None if held_out is None else _arrays(model, held_out),
            validation_batch_size=program.rows_at_once,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
        )
    finally:
        forget_model(everybody)
        model.run_eagerly = False


def _arrays(model, table):
    x, y, weights = table.layout().unpack(table.arrays())
    return call_input(model, x), y, weights


def _batches(model, table, follow, batch_size):
    """All batches of an epoch in the order that `follow` drew, as a dataset."""
    arrays, layout = table.arrays(), table.layout()
    starts = range(0, table.n_rows, batch_size)

    def generate():
        # Keras looks at a first batch before the first epoch begins.
        order = range(table.n_rows) if follow.order is None else follow.order
        for start in starts:
            index = order[start : start + batch_size]
            yield tuple(array[index] for array in arrays)

    def arrange(*batch):
        x, y, weights = layout.unpack(batch)
        return (
            (call_input(model, x), y, weights) if weights is not None else (call_input(model, x), y)
        )

    signature = tuple(tf.TensorSpec((None, *a.shape[1:]), a.dtype) for a in arrays)
    dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
    return dataset.map(arrange).apply(tf.data.experimental.assert_cardinality(len(starts)))
