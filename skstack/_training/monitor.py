"""Those who watch epochs: history, callbacks, the printed line."""

from __future__ import annotations

import contextlib

import keras
import numpy as np

from skstack._training.optimizers import made_anew
from skstack._training.seeds import preserve_rng

# Two layers of such weights overflow float32.
_LARGEST_WEIGHT = 1e15
_WAYS_OUT = (
    "Try a smaller `learning_rate`, look for very large or unscaled inputs and targets, and check "
    "that the `loss` suits the targets."
)


class Diverged(ValueError):
    """Losses or weights that are not finite."""


class TrainingMonitor:
    """Keeps the history of a fit and refuses losses that are not finite."""

    def __init__(self, plan):
        self._plan = plan
        self.history: dict[str, list[float]] = {}
        self.n_epochs = 0

    def check(self, logs) -> None:
        """Raise Diverged where the loss of the epoch that ends is not finite."""
        loss = logs.get("loss", 0.0)
        if not np.isfinite(loss).all():
            raise Diverged(f"The loss became {loss} in epoch {self.n_epochs + 1}. {_WAYS_OUT}")

    def check_weights(self, variables, trained) -> None:
        """Raise Diverged where the last step, which no loss tells of, went astray."""
        for path, array in trained.items():
            bound = _LARGEST_WEIGHT if variables[path].trainable else np.inf
            if array.dtype.kind == "f" and not (np.abs(array) < bound).all():
                raise Diverged(
                    f"The weights {path!r} became infinite, NaN or larger than {bound} in epoch "
                    f"{self.n_epochs}. {_WAYS_OUT}"
                )

    def epoch_end(self, logs) -> None:
        """Note one epoch."""
        self.n_epochs += 1
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)
        if self._plan.verbose > 0:
            numbers = [(name, value) for name, value in logs.items() if isinstance(value, float)]
            told = " - ".join(f"{name}: {value:.4g}" for name, value in numbers)
            print(f"Epoch {self.n_epochs}/{self._plan.epochs} - {told}", flush=True)


def public_model(program, plan):
    """The model that callbacks see: layers and optimizer are those of the program's own."""
    model, public = program.model, plan.public
    if public is None or not plan.callbacks:
        return model
    with preserve_rng():
        shown = public.finish(model)
        if shown is not model:
            shown.compile(
                optimizer=model.optimizer,
                loss=public.loss,
                metrics=made_anew(public.metrics) or None,
                jit_compile=False,
            )
    return shown


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
    """Turn a metric's value into a float, or a list or dict of them."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    array = keras.ops.convert_to_numpy(value)
    return float(array) if array.ndim == 0 else array.tolist()


def forget_model(callbacks) -> None:
    """Take the model away from callbacks: it belongs to the program."""
    for callback in callbacks:
        keras.callbacks.Callback.set_model(callback, None)
