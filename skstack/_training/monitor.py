"""After each epoch: history, checks, callbacks, and the printed line."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from skstack._base.progress import current_task, report
from skstack._training.config import TrainConfig
from skstack._training.isolation import preserve_rng
from skstack._training.optimizers import fresh_metrics

# A bar that moves smoothly; what it draws is drawn while the next block is trained.
_SECONDS_PER_REPORT = 0.2
_INFINITE, _ZERO = np.float32(np.inf), np.int32(0)


@dataclass(frozen=True)
class Progress:
    """What the finished epochs of a fit have trained; replaced as a whole, so never half updated.

    Parameters
    ----------
    n_epochs : int, default=0
    logs : sequence of dict, default=()
        Of the last epochs.
    state : list of tensors or ndarrays, default=None
        Packed state after the last epoch; None: that of the model itself.
    best_state : list of tensors or ndarrays, default=None
        Packed state after the epoch of the lowest validation loss.
    best_loss, without_better : scalar
        See `update_early_stopping`.
    """

    n_epochs: int = 0
    logs: Sequence[dict] = ()
    state: Any = None
    best_state: list | None = None
    best_loss: Any = _INFINITE
    without_better: Any = _ZERO


# With two layers of such weights float32 overflows.
_LARGEST_WEIGHT = np.float32(1e15)  # float16, which does not hold it, is compared in float32
_WAYS_OUT = (
    "Try a smaller `learning_rate`, look for very large or unscaled inputs and targets, and check "
    "that the `loss` suits the targets."
)


class Diverged(ValueError):
    """Losses or weights that are not finite."""


class TrainingMonitor:
    """Records the history of a fit and raises if it diverges."""

    def __init__(self, config: TrainConfig, network: Callable[[list], Any] | None = None):
        self._config = config
        self._network = network
        self._logs: list[dict] = []
        self.interrupted = False
        task = current_task()
        self._task = task if task is not None and task.heard else None
        self._epochs: Any = None

    @property
    def reports(self) -> bool:
        """Whether callbacks of scikit-learn are told of epochs."""
        return self._task is not None

    @property
    def seconds_per_block(self) -> float:
        """About how many seconds of epochs callbacks of scikit-learn are told of at once."""
        return _SECONDS_PER_REPORT if self.reports else math.inf

    @property
    def one_by_one(self) -> bool:
        """Whether something is due after each epoch, before the next one is trained."""
        return self._config.verbose > 0 or (self._task is not None and self._task.needs_estimator)

    @property
    def n_epochs(self) -> int:
        """Number of epochs recorded."""
        return len(self._logs)

    @property
    def history(self) -> dict[str, list]:
        """All values by name, one per epoch."""
        history: dict[str, list] = {}
        for logs in self._logs:
            for name, value in logs.items():
                history.setdefault(name, []).append(value)
        return history

    def check(self, logs: dict) -> None:
        """Raise Diverged if the loss of the epoch that ends is not finite."""
        loss = logs.get("loss", 0.0)
        if not np.isfinite(loss).all():
            raise Diverged(f"The loss became {loss} in epoch {self.n_epochs + 1}. {_WAYS_OUT}")

    def check_weights(self, variables: dict, trained: dict[str, np.ndarray]) -> None:
        """Raise Diverged if weights are not finite: losses do not cover the last step."""
        for path, array in trained.items():
            bound = _LARGEST_WEIGHT if variables[path].trainable else np.inf
            if array.dtype.kind == "f" and not (np.abs(array) < bound).all():
                raise Diverged(
                    f"The weights {path!r} became infinite, NaN or larger than {bound} in epoch "
                    f"{self.n_epochs}. {_WAYS_OUT}"
                )

    def epoch_begin(self) -> None:
        """Tell callbacks of scikit-learn that a task of epochs begins, unless one has begun."""
        if self._task is not None and self._epochs is None:
            self._epochs = self._task.epochs(self.n_epochs)

    def epoch_end(self, logs: dict, state: Callable[[], list]) -> bool:
        """Record one epoch; return whether a callback of scikit-learn asks to stop.

        `state` returns the packed state that is kept if it does.
        """
        self.epoch_begin()  # the second and later ones of a block have not begun
        self._logs.append(logs)
        if self._config.verbose > 0:
            numbers = [(name, value) for name, value in logs.items() if isinstance(value, float)]
            line = " - ".join(f"{name}: {value:.4g}" for name, value in numbers)
            report(f"Epoch {self.n_epochs}/{self._config.epochs} - {line}")
        ends = self._task is not None and self._task.ends_task(self.n_epochs)
        return ends and self.finish(state)

    def finish(self, state: Callable[[], list]) -> bool:
        """End the task of the last epochs, if one has begun; return as `epoch_end`."""
        epochs, self._epochs = self._epochs, None
        return epochs is not None and epochs.end(self._attributes(state))

    def _attributes(self, state: Callable[[], list]) -> Callable[[], dict] | None:
        make, network = self._config.attributes, self._network
        if make is None or network is None:
            return None
        return lambda: make(network(state()), self.history)

    def interrupt(self, progress: Progress) -> None:
        """End training after an interrupt; record the epochs of the last call that are missing."""
        missing = progress.n_epochs - self.n_epochs
        last = list(progress.logs)[len(progress.logs) - missing :]
        for logs in last:
            self.check(logs)
        self._logs += last
        self.interrupted = True


def public_model(model: Any, config: TrainConfig) -> Any:
    """Return the model that callbacks see; it shares layers and optimizer with the program's."""
    public = config.public
    if public is None or not config.callbacks:
        return model
    with preserve_rng():
        finished = public.finish(model)
        if finished is not model:
            finished.compile(
                optimizer=model.optimizer,
                loss=public.loss,
                metrics=fresh_metrics(public.metrics) or None,
                jit_compile=False,
            )
    return finished


@contextlib.contextmanager
def callback_list(
    callbacks: Sequence, config: TrainConfig, model: Any, n_steps: int
) -> Iterator[Any]:
    """Context in which callbacks can access the model."""
    all_callbacks = [*callbacks, LastLogs()]
    listed = keras.callbacks.CallbackList(
        all_callbacks, model=model, epochs=config.epochs, steps=n_steps, verbose=config.verbose
    )
    try:
        yield listed
    finally:
        forget_model(all_callbacks)


class LastLogs(keras.callbacks.Callback):
    """The last callback: keeps the logs of an epoch, with what other callbacks wrote into them."""

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
    """Remove the model from callbacks: it belongs to the program."""
    for callback in callbacks:
        keras.callbacks.Callback.set_model(callback, None)
