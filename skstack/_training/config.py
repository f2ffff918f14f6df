"""What goes into a fit and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from skstack._training.network import Network

ENGINES = ("auto", "xla", "graph", "keras")


@dataclass
class TrainingData:
    """A table of rows, ready for a network.

    Parameters
    ----------
    inputs : dict of str to ndarray of shape (n_rows, ...)
        One array for each input of the network.
    targets : ndarray of shape (n_rows, ...) or list of them, default=None
        What the loss compares the network's output with; for several outputs, one for each.
    weights : ndarray of shape (n_rows,), default=None
        Sample weights, not negative. Only their proportions matter.
    """

    inputs: Mapping[str, np.ndarray]
    targets: np.ndarray | Sequence[np.ndarray] | None = None
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True)
class Public:
    """How a network is shown to callbacks.

    Parameters
    ----------
    finish : callable
        Makes of the network that is trained the one that is shown, which has its layers; or gives
        the network itself.
    loss, metrics
        What the shown one is compiled with, as in `TrainConfig`.
    """

    finish: Callable
    loss: Any
    metrics: Sequence[Any] = ()


@dataclass(frozen=True)
class TrainConfig:
    """How to learn.

    Parameters
    ----------
    loss : str, keras.losses.Loss, callable or None
        As in ``keras.Model.compile``; None trains on the losses that layers add.
    optimizer : str, keras.optimizers.Optimizer or dict, default="adam"
        Copied, never changed. A dict is the serialised form of an optimizer.
    learning_rate : float or LearningRateSchedule, default=None
        None keeps the optimizer's own.
    metrics : sequence, default=()
        As in ``keras.Model.compile``; unweighted, as there.
    epochs : int, default=100
        Number of passes over the rows, at most.
    batch_size : int, default=32
        Rows in a step.
    callbacks : sequence of keras.callbacks.Callback, default=()
        Used as they are: pass copies.
    patience : int, default=None
        Epochs without a better validation loss after which to stop; the best weights come back.
        None never stops early.
    tol : float, default=1e-4
        An improvement of the validation loss counts when it exceeds this.
    engine : {"auto", "xla", "graph", "keras"}, default="auto"
        The road to train on. Where it cannot be taken, the next one is.
    seed : int, default=0
        Seeds the order of the rows, in each epoch anew.
    verbose : int, default=0
        Above 0: one line is printed after each epoch.
    public : Public, default=None
        How callbacks see the network; None: as it is trained.
    shares : dict of str to float, default={}
        Which share of each step variables of these paths take: of the learning rate, and of what
        else the optimizer does to them. All others take the whole step.
    """

    loss: Any
    optimizer: Any = "adam"
    learning_rate: Any = None
    metrics: Sequence[Any] = ()
    epochs: int = 100
    batch_size: int = 32
    callbacks: Sequence[Any] = ()
    patience: int | None = None
    tol: float = 1e-4
    engine: str = "auto"
    seed: int = 0
    verbose: int = 0
    public: Public | None = None
    shares: Mapping[str, float] = field(default_factory=dict)


@dataclass
class TrainResult:
    """What was learned.

    Attributes
    ----------
    network : Network
        The trained network, its weights as NumPy arrays.
    history : dict of str to list of float
        One value for each epoch that was run: ``loss`` (mean over rows), metrics, and with
        validation rows ``val_loss`` and ``val_`` metrics.
    n_epochs : int
        Number of epochs that were run.
    optimizer_variables : list of ndarray
        State of the optimizer, to continue from.
    """

    network: Network
    history: dict[str, list[float]]
    n_epochs: int
    optimizer_variables: list[np.ndarray]
