"""TabM: an ensemble of multilayer perceptrons that share most of their weights."""

from __future__ import annotations

import math

import numpy as np

from skstack._base.params import hint_at_parameters
from skstack.networks._mlp import check_activation, check_flag, check_number, sizes_of
from skstack.networks._numeric import PiecewiseLinear, check_count, check_embedding, check_scaling
from skstack.networks._recipe import Recipe
from skstack.networks._spec import auto_width

FIRST = "member_inputs"  # the layer that multiplies the inputs of each member


class TabM(Recipe):
    """Several multilayer perceptrons in one, which share most of their weights.

    The members see the same rows, multiplied by factors of their own at each layer. They are
    trained as separate networks, and the prediction is their mean: an ensemble at a fraction of its
    cost.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(128, 128)
        Units of each hidden layer, each >= 1.

    n_members : int, default=16
        Number of members, >= 1.

    mini : bool, default=False
        Whether only the inputs are multiplied, and all else but the output layers is shared.

    activation : str or callable, default="relu"
        Activation of the hidden layers.

    dropout : float, default=0.1
        Fraction of the hidden units that is set to 0 at each training step, in [0, 1).

    scaling : {"standard", "quantile", "robust"} or None, default="quantile"
        As in :class:`MLP`.

    numeric_embedding : PiecewiseLinear, Periodic, None or "auto", default="auto"
        As in :class:`MLP`. ``"auto"`` is ``PiecewiseLinear()``.

    label_smoothing : float, default=0.0
        Share of each label that the training loss spreads evenly over all classes, in [0, 1). For
        classifiers; the loss on hold-out rows uses the labels themselves.

    average_weights : bool, default=True
        Whether the weights after each epoch are a moving average of those after its steps:
        exponential, over about the last half of the steps, at most 20. The next epoch starts from
        it. False trains as in [1]_.

    Notes
    -----
    Without other settings the optimizer is AdamW with a weight decay of 0.0003, gradients of a norm
    of at most 1, and a learning rate of 0.008. With fewer than 10 batches in an epoch, or in a call
    of ``partial_fit``, the rate is 0.0008 times their number, but at least the 0.002 of [1]_, which
    is also that without averages. The average removes the noise of large steps, so that training
    takes fewer epochs; compare [2]_. An epoch of up to two batches has no average. Layers named
    ``hidden_1``, ``hidden_2``, ... have outputs of shape (rows, members, units).

    References
    ----------
    .. [1] Y. Gorishniy, A. Kotelnikov and A. Babenko, "TabM: Advancing Tabular Deep Learning with
       Parameter-Efficient Ensembling", ICLR 2025.
    .. [2] M. Zhang, J. Lucas, G. Hinton and J. Ba, "Lookahead Optimizer: k steps forward, 1 step
       back", NeurIPS 2019.

    Examples
    --------
    >>> from skstack.networks import TabM
    >>> TabM(n_members=8)
    TabM(n_members=8)
    """

    @hint_at_parameters
    def __init__(
        self,
        hidden_layer_sizes=(128, 128),
        *,
        n_members=16,
        mini=False,
        activation="relu",
        dropout=0.1,
        scaling="quantile",
        numeric_embedding="auto",
        label_smoothing=0.0,
        average_weights=True,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.n_members = n_members
        self.mini = mini
        self.activation = activation
        self.dropout = dropout
        self.scaling = scaling
        self.numeric_embedding = numeric_embedding
        self.label_smoothing = label_smoothing
        self.average_weights = average_weights

    def _validate_params(self):
        check_count("TabM", "n_members", self.n_members)
        sizes_of(self, "hidden_layer_sizes", required=True)
        check_flag("TabM", "mini", self.mini)
        check_flag("TabM", "average_weights", self.average_weights)
        check_activation("TabM", self.activation)
        check_number("TabM", "dropout", self.dropout, below=1)
        check_scaling("TabM", self.scaling)
        check_embedding("TabM", self._embedding())
        check_number("TabM", "label_smoothing", self.label_smoothing, below=1)

    def _embedding(self):
        automatic = isinstance(self.numeric_embedding, str) and self.numeric_embedding == "auto"
        return PiecewiseLinear() if automatic else self.numeric_embedding

    def default_optimizer(self, spec):
        """AdamW as in the paper."""
        import keras

        return keras.optimizers.AdamW(2e-3, weight_decay=3e-4, global_clipnorm=1.0)

    def default_learning_rate(self, n_steps):
        """Averages over more steps allow larger ones, of the optimizer above."""
        if type(self).default_optimizer is not TabM.default_optimizer or not self.average_weights:
            return None
        return 8e-4 * min(max(n_steps, 2.5), 10)

    def step_rules(self, spec):
        """See ``Recipe.step_rules``."""
        from skstack._training.config import StepRules

        return StepRules(averages_weights=bool(self.average_weights))

    def build(self, spec):
        """Build the network; see ``Recipe.build``."""
        import keras
        from keras.layers import Activation, Dense, Dropout, EinsumDense

        self._validate_params()
        k, label = int(self.n_members), spec.layer_name
        inputs = spec.inputs()
        x = spec.join(
            inputs, scaling=self.scaling, numeric_embedding=self._embedding(), categorical="auto"
        )
        width = x.shape[-1]
        # Random signs, or factors with embeddings; see `initialize`.
        normal = keras.initializers.RandomNormal(stddev=1.0)
        x = EinsumDense(
            "bd,kd->bkd", output_shape=(k, width), kernel_initializer=normal, name=label(FIRST)
        )(x)
        for number, size in enumerate(sizes_of(self, "hidden_layer_sizes"), start=1):
            name = f"hidden_{number}"
            if number > 1 and not self.mini:
                x = _factors(x, label(f"{name}_inputs"))
            uniform = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
            bound = 1.0 / math.sqrt(width)
            bias = keras.initializers.RandomUniform(-bound, bound)
            settings = {"kernel_initializer": uniform, "name": label(f"{name}_shared")}
            if self.mini:
                x = Dense(size, bias_initializer=bias, **settings)(x)
            else:
                x = Dense(size, use_bias=False, **settings)(x)
                x = _factors(x, label(f"{name}_outputs"), bias_axes="kd", bias_initializer=bias)
            x = Activation(self.activation, name=label(name))(x)
            if self.dropout:
                x = Dropout(float(self.dropout), name=label(f"{name}_dropout"))(x)
            width = size
        return keras.Model(inputs, spec.outputs(x, members=True), name="tabm")

    def initialize(self, spec, start):
        """See `Recipe.initialize`: members share initial biases, and a column its factor."""
        path = f"{spec.layer_name(FIRST)}/kernel"
        factors = start[path]
        if self._embedding() is None:
            factors = np.where(factors < 0, np.float32(-1), np.float32(1))
        columns = _columns_of_units(spec, self._embedding())
        start[path] = factors[:, columns]
        for number in range(1, len(sizes_of(self, "hidden_layer_sizes")) + 1):
            path = f"{spec.layer_name(f'hidden_{number}_outputs')}/bias"
            if path in start:
                start[path] = np.tile(start[path][:1], (len(start[path]), 1))


def _factors(x, name, **settings):
    from keras.layers import EinsumDense

    shape = x.shape[1:]
    return EinsumDense(
        "bkd,kd->bkd", output_shape=shape, kernel_initializer="ones", name=name, **settings
    )(x)


def _columns_of_units(spec, embedding):
    """Index of the first unit of the same column, for each unit of the joined table."""
    first, units = [], 0
    per_number = 1 if embedding is None else embedding.width
    for block in spec.blocks:
        numeric = block.kind == "numeric"
        sizes = [per_number] * block.shape[0] if numeric else [auto_width(block.cardinality)]
        for size in sizes:
            first.extend([units] * size)
            units += size
    return np.array(first)
