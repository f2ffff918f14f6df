"""Input, configuration and result of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from skstack._training.network import Network

ENGINES = ("auto", "xla", "graph", "stepwise", "keras")


@dataclass
class TrainingData:
    """Inputs, targets and weights of rows, as a network takes them.

    Parameters
    ----------
    inputs : dict of str to ndarray of shape (n_rows, ...)
        One array for each input of the network.
    targets : ndarray of shape (n_rows, ...) or list of them, default=None
        What the loss compares the outputs with, one array for each output.
    weights : ndarray of shape (n_rows,), default=None
        Sample weights, at least 0. Only their proportions matter.
    """

    inputs: Mapping[str, np.ndarray]
    targets: np.ndarray | Sequence[np.ndarray] | None = None
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True)
class Public:
    """The model that callbacks see, if it is not the trained one.

    Parameters
    ----------
    finish : callable
        Makes a model with the layers of the trained one, or returns the trained one.
    loss, metrics
        What the model is compiled with, as in `TrainConfig`.
    """

    finish: Callable
    loss: Any
    metrics: Sequence[Any] = ()


@dataclass(frozen=True)
class StepRules:
    """How steps depend on the variable, and on the fraction of the steps of a fit that are done.

    Schedules are names among those of `optimizers.SCHEDULES`; None is constant.

    Parameters
    ----------
    learning_rate, weight_decay, dropout : str, default=None
        Schedules of the factors of the learning rate, the weight decay and all rates of dropout.
    factors : tuple of (str, float, float), default=()
        Factors of the learning rate and of the weight decay by variable path; 1 for all others.
        That of the weight decay includes that of the learning rate.
    averages_weights : bool, default=False
        Whether each epoch ends with weights that are a moving average over its last steps.
    """

    learning_rate: str | None = None
    weight_decay: str | None = None
    dropout: str | None = None
    factors: tuple = ()
    averages_weights: bool = False

    @property
    def scheduled(self) -> bool:
        """Whether anything depends on how many steps are done."""
        return any((self.learning_rate, self.weight_decay, self.dropout))


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Parameters
    ----------
    loss : str, keras.losses.Loss, callable or None
        As in ``keras.Model.compile``; None: only the losses that layers add.
    optimizer : str, keras.optimizers.Optimizer or dict, default="adam"
        Copied, never modified. A dict is the serialised form of an optimizer.
    learning_rate : float or LearningRateSchedule, default=None
        None keeps that of the optimizer.
    clipnorm : float, default=None
        Largest norm of all gradients together; None keeps that of the optimizer.
    metrics : sequence, default=()
        As in ``keras.Model.compile``; unweighted, as there.
    epochs : int, default=100
        Maximum number of passes over the rows.
    batch_size : int, default=32
        Samples per gradient update.
    callbacks : sequence of keras.callbacks.Callback, default=()
        Not copied: pass copies.
    patience : int, default=None
        Number of epochs without a better validation loss after which training stops; the weights of
        the best epoch are kept. None: no early stopping.
    tol : float, default=1e-4
        Smallest improvement of the validation loss that counts.
    monitor : tuple of str and bool, default=None
        The metric that early stopping monitors instead of the loss, by its name in the history, and
        whether higher values are better.
    engine : {"auto", "xla", "graph", "stepwise", "keras"}, default="auto"
        How to train. An engine that cannot train this network is replaced by the next one.
    seed : int, default=0
        Seeds the order of the rows, which differs from epoch to epoch.
    verbose : int, default=0
        If > 0, print one line per epoch.
    public : Public, default=None
        The model that callbacks see; None: the one that is trained.
    lr_multipliers : dict of str to float, default={}
        Factors of the learning rate, and of weight decay, by variable path; 1 for all others.
    rules : StepRules, default=StepRules()
        How steps depend on the variable, and on the fraction of the steps that are done.
    dense_gradients : bool, default=False
        Whether the optimizer sees the gradient of an embedding as one array, so that a weight of 2
        equals repeating the row. False is what ``keras.Model.fit`` does.
    constant : bool, default=False
        Whether the schedules of the rules are not followed, as in ``partial_fit``, of whose calls
        nobody knows the number: their factors are 1.
    attributes : callable, default=None
        What an estimator sets that was fitted with a `Network` and a history, its two arguments:
        a dict of attributes, for callbacks of scikit-learn. None: they get no fitted estimator.
    """

    loss: Any
    optimizer: Any = "adam"
    learning_rate: Any = None
    clipnorm: float | None = None
    metrics: Sequence[Any] = ()
    epochs: int = 100
    batch_size: int = 32
    callbacks: Sequence[Any] = ()
    patience: int | None = None
    tol: float = 1e-4
    monitor: tuple[str, bool] | None = None
    engine: str = "auto"
    seed: int = 0
    verbose: int = 0
    public: Public | None = None
    lr_multipliers: Mapping[str, float] = field(default_factory=dict)
    rules: StepRules = field(default_factory=StepRules)
    dense_gradients: bool = False
    constant: bool = False
    attributes: Callable[[Network, dict], dict] | None = None


@dataclass
class TrainResult:
    """A trained network and how it was trained.

    Attributes
    ----------
    network : Network
        The trained network, its weights as NumPy arrays.
    history : dict of str to list of float
        One value per epoch: ``loss`` (mean over rows), metrics, and with validation rows
        ``val_loss`` and ``val_`` metrics.
    n_epochs : int
        Number of epochs trained.
    optimizer_variables : list of ndarray
        State of the optimizer, to continue training with.
    optimizer_layout : tuple
        What the state is that of; see ``state_layout``.
    interrupted : bool
        Whether the user has interrupted training, and the weights so far were kept.
    """

    network: Network
    history: dict[str, list[float]]
    n_epochs: int
    optimizer_variables: list[np.ndarray]
    optimizer_layout: tuple
    interrupted: bool = False
