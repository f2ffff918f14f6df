"""How a stack is to be tuned."""

from __future__ import annotations

from numbers import Integral, Real

from sklearn.base import BaseEstimator

from skstack._checks import Interval, StrOptions

__all__ = ["FineTune"]


class FineTune(BaseEstimator):
    """How a stack is trained on as one network, once its stages are trained.

    ``StackedKerasClassifier(..., fine_tune=FineTune())`` trains upstream networks, scaler (which
    stays as it is) and downstream in one graph, on the raw training rows, with the loss, optimizer,
    batch size and engine of the downstream. Held-out rows, which no stage has learned from, say
    when to stop, and whether the stack before or the one after is kept. Frozen upstream networks
    are tuned, too, as copies: the ``keras.Model``, estimator or file that was handed in is never
    changed.

    Parameters
    ----------
    epochs : int, default=5
        Passes over the training rows, at most.

    learning_rate : float, default=1e-4
        Of the downstream. In (0, inf).

    upstream_share : float, default=0.1
        Which share of ``learning_rate`` the upstream networks take. In (0, 1].

    layers : "all", int or list of str, default="all"
        Which layers of the upstream networks learn, beside the whole downstream: all of them; so
        many from the top of each network; or those named, ``"risk/hidden_1"`` being the layer
        ``hidden_1`` of the branch ``risk`` (a lone upstream is called ``upstream``). Branches of
        which no layer is named stay as they are, and may be anything. Layers without weights do not
        count.

    thaw_every : int, default=None
        Thaw these layers one by one: in the first ``thaw_every`` epochs the topmost of each
        network, then one more each ``thaw_every`` epochs; those that are not reached in ``epochs``
        stay frozen. The optimizer starts anew with each stage. None thaws all of them at once.

    batch_normalization : bool, default=False
        Whether batch normalisation in thawed layers learns, too; else it stays in inference mode,
        but for layers that ``layers`` names.

    early_stopping : bool, default=True
        Whether to stop when the loss on held-out rows no longer falls, and take the best epoch's
        weights; else those of the last epoch.

    validation_fraction : float, default=0.1
        Share of the rows that is held out, from all stages; of use where the downstream sets none
        aside and ``X_val`` is not passed. In (0, 1).

    n_iter_no_change : int, default=5
        Epochs without improvement after which training (or a stage of ``thaw_every``) stops.

    tol : float, default=1e-4
        The least improvement of the loss that counts.

    random_state : int, RandomState instance or None, default=None
        Seeds the order of rows. None: the stack's.

    verbose : int, default=0
        Above 0: a line for each epoch.

    Notes
    -----
    Until here the downstream has learned from out-of-fold features. In one graph that cannot be:
    the features are those of the network that is tuned, which has seen the rows. Hence the small
    rate, and the held-out rows, which are real rows that no part has learned from.

    Synthetic rows of a sampler have features, but no raw row. Each class gets a weight in place of
    the sampler, so that classes have the shares that the sampler gave them; held-out rows are
    weighted alike.

    Layers with ``trainable=False`` of their own keep their bits: those of a network that was handed
    in, and those that standardise. To thaw them set ``trainable`` in that network before. Steps of
    a Pipeline before a network stay as they are, too. Dropout of networks that learn is active,
    below the frozen layers, too. Of an ensemble of fold networks (``refit=False``) nothing is
    tuned: it is refused.

    Gradual thawing and smaller rates below: J. Howard & S. Ruder, "Universal Language Model
    Fine-tuning for Text Classification", ACL 2018, sections 3.2 and 3.3.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from skstack import FineTune, KerasClassifier, StackedKerasClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> stack = StackedKerasClassifier(
    ...     upstream=[("risk", KerasClassifier(epochs=2))],
    ...     downstream=KerasClassifier(epochs=5),
    ...     cv=3,
    ...     fine_tune=FineTune(epochs=10, learning_rate=1e-3),
    ...     random_state=0,
    ... ).fit(X, y)
    >>> before, after = stack.fine_tune_losses_
    >>> stack.fine_tuned_ == (after < before)
    True
    """

    _parameter_constraints = {
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "upstream_share": [Interval(Real, 0, 1, closed="right")],
        "layers": [StrOptions({"all"}), Interval(Integral, 1, None, closed="left"), list, tuple],
        "thaw_every": [None, Interval(Integral, 1, None, closed="left")],
        "batch_normalization": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        epochs=5,
        *,
        learning_rate=1e-4,
        upstream_share=0.1,
        layers="all",
        thaw_every=None,
        batch_normalization=False,
        early_stopping=True,
        validation_fraction=0.1,
        n_iter_no_change=5,
        tol=1e-4,
        random_state=None,
        verbose=0,
    ):
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.upstream_share = upstream_share
        self.layers = layers
        self.thaw_every = thaw_every
        self.batch_normalization = batch_normalization
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.random_state = random_state
        self.verbose = verbose
