"""Those who watch epochs: history, early stopping, callbacks, the printed line."""

from __future__ import annotations

import contextlib
import math

import keras
import numpy as np

# Two layers of such weights overflow float32.
_LARGEST_WEIGHT = 1e15
_WAYS_OUT = (
    "Try a smaller `learning_rate`, look for very large or unscaled inputs and targets, and check "
    "that the `loss` suits the targets."
)


class Watch:
    """Keeps the history of a fit, refuses losses that are not finite, and knows when to stop."""

    def __init__(self, plan, program):
        self._plan = plan
        self._program = program
        self._best = math.inf
        self._best_state = None
        self._without_better = 0
        self.history: dict[str, list[float]] = {}
        self.n_epochs = 0

    def check(self, losses) -> None:
        """Raise ValueError where the loss of one of the next epochs is not finite."""
        for epoch, loss in enumerate(losses, self.n_epochs + 1):
            if not math.isfinite(loss):
                raise ValueError(f"The loss became {loss} in epoch {epoch}. {_WAYS_OUT}")

    def check_weights(self) -> None:
        """Raise ValueError where the last step, which no loss tells of, went astray."""
        for path, variable in self._program.variables.items():
            array = variable.numpy()
            bound = _LARGEST_WEIGHT if variable.trainable else np.inf
            if array.dtype.kind == "f" and not (np.abs(array) < bound).all():
                raise ValueError(
                    f"The weights {path!r} became infinite, NaN or larger than {bound} in epoch "
                    f"{self.n_epochs}. {_WAYS_OUT}"
                )

    def epoch_end(self, logs) -> bool:
        """Note one epoch; return whether to stop."""
        self.n_epochs += 1
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)
        if self._plan.verbose > 0:
            numbers = [(name, value) for name, value in logs.items() if isinstance(value, float)]
            told = " - ".join(f"{name}: {value:.4g}" for name, value in numbers)
            print(f"Epoch {self.n_epochs}/{self._plan.epochs} - {told}", flush=True)
        return self._plan.patience is not None and self._no_better(logs.get("val_loss", math.nan))

    def _no_better(self, loss):
        # A loss that is not a number counts as no improvement.
        improved = loss < self._best - self._plan.tol
        if loss < self._best:
            self._best = loss
            self._best_state = self._program.state()
        self._without_better = 0 if improved else self._without_better + 1
        return self._without_better >= self._plan.patience

    def finish(self) -> None:
        """Take the best weights, and their moving average where the optimizer keeps one."""
        if self._best_state is not None:
            self._program.restore(self._best_state)
        if self.n_epochs:
            program = self._program
            program.optimizer.finalize_variable_values(program.model.trainable_variables)


@contextlib.contextmanager
def shown_to(callbacks, plan, model, n_steps):
    """Show the model to callbacks while the body runs; afterwards they have none."""
    shown = None
    everybody = [*callbacks, LastLogs()] if callbacks else []
    if callbacks:
        shown = keras.callbacks.CallbackList(
            everybody, model=model, epochs=plan.epochs, steps=n_steps, verbose=plan.verbose
        )
    try:
        yield shown
    finally:
        forget_model(everybody)


class LastLogs(keras.callbacks.Callback):
    """Last of the callbacks: sees the logs of an epoch with what the others wrote into them."""

    def __init__(self):
        super().__init__()
        self.logs = {}

    def on_epoch_end(self, epoch, logs=None):
        self.logs = {name: plain(value) for name, value in (logs or {}).items()}


def plain(value):
    """Turn a metric's value into a float, or a list of them."""
    array = keras.ops.convert_to_numpy(value)
    return float(array) if array.ndim == 0 else array.tolist()


def forget_model(callbacks) -> None:
    """Take the model away from callbacks: it belongs to the program."""
    for callback in callbacks:
        keras.callbacks.Callback.set_model(callback, None)
