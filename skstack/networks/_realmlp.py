"""RealMLP: a multilayer perceptron with the defaults that were tuned on many tables."""

from __future__ import annotations

import math

import numpy as np

from skstack._base.params import hint_at_parameters
from skstack.networks._mlp import check_activation, check_number, sizes_of
from skstack.networks._numeric import Periodic, check_embedding, check_scaling
from skstack.networks._recipe import Recipe
from skstack.networks._spec import output_parts
from skstack.preprocessing._numeric_maps import robust_center_and_scale, smoothly_clipped

SCHEDULES = ("coslog4", "flat_cos", None)
_SIMPLEX = 5  # values of a unit whose weighted mean is where its activation bends


class RealMLP(Recipe):
    """A multilayer perceptron with robust scaling, periodic embeddings and scheduled training.

    Numeric columns are scaled robustly and embedded, and each input has a learned factor. Each
    hidden unit mixes its input and its activation in a learned proportion. The learning rate, the
    weight decay and the dropout follow schedules over the epochs of the fit, so training is never
    stopped before its last epoch: early stopping only chooses the best one.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(256, 256, 256)
        Units of each hidden layer, each >= 1.

    activation : str, callable or "auto", default="auto"
        Activation of the hidden layers. ``"auto"`` is ``"mish"`` for regression, else ``"selu"``.

    dropout : float, default=0.15
        Fraction of the hidden units that is set to 0 at each training step, in [0, 1). With a
        ``schedule`` it falls to 0 in the second half of training.

    schedule : {"coslog4", "flat_cos"} or None, default="coslog4"
        Factor of the learning rate. ``"coslog4"``: four waves between 0 and 1, each twice as long
        as the one before. ``"flat_cos"``: 1, and in the second half of training a cosine to 0.
        None: constant, and early stopping stops training.

    scaling : {"standard", "quantile", "robust"} or None, default="robust"
        As in :class:`MLP`.

    numeric_embedding : PiecewiseLinear, Periodic, None or "auto", default="auto"
        As in :class:`MLP`. ``"auto"`` is ``Periodic()``.

    label_smoothing : float, default=0.0
        Share of each label that the training loss spreads evenly over all classes, in [0, 1). For
        classifiers; the loss on hold-out rows uses the labels themselves.

    Notes
    -----
    Without other settings the optimizer is AdamW with a learning rate of 0.04, for regression 0.2,
    and a weight decay of 0.02. Parts of the network have learning rates of their own, as multiples
    of that of the optimizer: 6 for the factors of the inputs, 0.1 for biases, embeddings of numbers
    and proportions of activations. Biases have no weight decay. ``epochs="auto"`` is 256; batches
    of 256 rows are usual. The loss on hold-out rows is lowest near the end of one of the four
    waves, which end after 1/15, 3/15, 7/15 and all of the epochs: in the last one, dropout and
    weight decay fade out, and a classifier can fit its training rows nearly exactly, with
    probabilities near 0 and 1. The authors therefore use ``label_smoothing=0.1``, and choose the
    epoch by the error, which is ``early_stopping_metric="accuracy"``. For the log loss the defaults
    are better.

    Initial weights depend on the training rows: each unit starts with unit variance.

    The paper differs in details: it uses one-hot columns for at most 8 categories, and clips
    regression predictions to the range of the training rows.

    References
    ----------
    .. [1] D. Holzmueller, L. Grinsztajn and I. Steinwart, "Better by Default: Strong Pre-Tuned MLPs
       and Boosted Trees on Tabular Data", NeurIPS 2024.

    Examples
    --------
    >>> from skstack.networks import RealMLP
    >>> RealMLP((128, 128), dropout=0.1)
    RealMLP(dropout=0.1, hidden_layer_sizes=(128, 128))
    """

    max_epochs = 256

    @hint_at_parameters
    def __init__(
        self,
        hidden_layer_sizes=(256, 256, 256),
        *,
        activation="auto",
        dropout=0.15,
        schedule="coslog4",
        scaling="robust",
        numeric_embedding="auto",
        label_smoothing=0.0,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout
        self.schedule = schedule
        self.scaling = scaling
        self.numeric_embedding = numeric_embedding
        self.label_smoothing = label_smoothing

    def _validate_params(self):
        sizes_of(self, "hidden_layer_sizes", required=True)
        if not (isinstance(self.activation, str) and self.activation == "auto"):
            check_activation("RealMLP", self.activation)
        check_number("RealMLP", "dropout", self.dropout, below=1)
        if not isinstance(self.schedule, str | None) or self.schedule not in SCHEDULES:
            raise ValueError(
                f"schedule={self.schedule!r} of RealMLP must be one of {list(SCHEDULES)}."
            )
        check_scaling("RealMLP", self.scaling)
        check_embedding("RealMLP", self._embedding())
        check_number("RealMLP", "label_smoothing", self.label_smoothing, below=1)

    def _embedding(self):
        automatic = isinstance(self.numeric_embedding, str) and self.numeric_embedding == "auto"
        return Periodic() if automatic else self.numeric_embedding

    def _activation(self, spec):
        automatic = isinstance(self.activation, str) and self.activation == "auto"
        return _by_task(spec, "selu", "mish") if automatic else self.activation

    def default_optimizer(self, spec):
        """AdamW as in the paper."""
        import keras

        rate = _by_task(spec, 0.04, 0.2)
        return keras.optimizers.AdamW(rate, beta_2=0.95, epsilon=1e-8, weight_decay=0.02)

    def step_rules(self, spec):
        """See ``Recipe.step_rules``; the authors apply factors to the weight decay twice."""
        from skstack._training.config import StepRules

        label, factors = spec.layer_name, {}
        if isinstance(self._embedding(), Periodic):
            for block in spec.blocks:
                if block.kind == "numeric":
                    for role in ("frequencies", "waves"):
                        name = label(f"{block.name}_{role}")
                        factors[f"{name}/kernel"] = factors[f"{name}/bias"] = (0.1, 0.01)
        factors[f"{label('input_factors')}/kernel"] = (6.0, 36.0)
        for number in range(1, len(sizes_of(self, "hidden_layer_sizes")) + 1):
            factors[f"{label(f'hidden_{number}_linear')}/bias"] = (0.1, 0.0)
            factors[f"{label(f'hidden_{number}_shares')}/kernel"] = (0.1, 0.01)
        for part, output in output_parts(spec):
            name, steps = label(output), _units_of(part)
            factors[f"{name}/kernel"] = (1.0 * steps, 1.0)
            factors[f"{name}/bias"] = (0.1 * steps, 0.0)
        schedules = {"weight_decay": "flat_cos", "dropout": "flat_cos"} if self.schedule else {}
        return StepRules(
            self.schedule,
            factors=tuple((path, *pair) for path, pair in sorted(factors.items())),
            **schedules,
        )

    def build(self, spec):
        """Build the network; see ``Recipe.build``."""
        import keras
        from keras.layers import Activation, Add, Dense, Dropout, Subtract

        self._validate_params()
        inputs, label = spec.inputs(), spec.layer_name
        x = spec.join(
            inputs, scaling=self.scaling, numeric_embedding=self._embedding(), categorical="auto"
        )
        x = _multiplied(x, label("input_factors"))
        for number, size in enumerate(sizes_of(self, "hidden_layer_sizes"), start=1):
            name = f"hidden_{number}"
            x = _divided(x, label(f"{name}_inputs"))
            normal = keras.initializers.RandomNormal(stddev=1.0)
            x = Dense(size, kernel_initializer=normal, name=label(f"{name}_linear"))(x)
            active = Activation(self._activation(spec), name=label(f"{name}_active"))(x)
            change = Subtract(name=label(f"{name}_change"))([active, x])
            change = _multiplied(change, label(f"{name}_shares"))
            x = Add(name=label(name))([x, change])
            if self.dropout:
                x = Dropout(float(self.dropout), name=label(f"{name}_dropout"))(x)
        outputs = spec.outputs(_divided(x, label("output_inputs")))
        return keras.Model(inputs, outputs, name="realmlp")

    def initialize_from_rows(self, spec, start, rows):
        """See `Recipe.initialize_from_rows`: units have unit variance, and bend inside the data."""
        import keras

        rng = np.random.default_rng(rows.seed)
        for block in spec.blocks:
            if block.kind == "categorical":
                _initialize_categories(spec, block, start, rows, rng)
        activation = keras.activations.get(self._activation(spec))
        x, weights = rows.outputs(spec.layer_name("input_factors"))
        for number in range(1, len(sizes_of(self, "hidden_layer_sizes")) + 1):
            name = spec.layer_name(f"hidden_{number}_linear")
            x = _initialized(x, name, start[f"{name}/kernel"], start, weights, rng)
            x = np.asarray(activation(keras.ops.convert_to_tensor(x, "float32")))
        for part, output in output_parts(spec):
            name = spec.layer_name(output)
            kernel = rng.standard_normal(start[f"{name}/kernel"].shape)
            factor = math.sqrt(_units_of(part))
            _initialized(x, name, kernel, start, weights, rng, factor=factor)


def _by_task(spec, classes, numbers):
    """One of two values: for classes, or for numbers."""
    return numbers if spec.task in ("regression", "reconstruction") else classes


def _units_of(part):
    """How many units of the authors' network are one here.

    Theirs has two for two classes. A single one, with the difference of their weights, is trained
    alike at twice the learning rate.
    """
    return 2 if part.task in ("binary", "multilabel") else 1


def _multiplied(x, name):
    from keras.layers import EinsumDense

    shape = (x.shape[-1],)
    return EinsumDense("bd,d->bd", output_shape=shape, kernel_initializer="ones", name=name)(x)


def _divided(x, name):
    """Divide by the root of the width: so weights of any layer may have unit variance."""
    from keras.layers import Rescaling

    return Rescaling(1.0 / math.sqrt(x.shape[-1]), name=name)(x)


def _initialize_categories(spec, block, start, rows, rng):
    """One-hot columns are scaled like numeric ones, embeddings start with unit variance."""
    codes = rows.inputs[block.name]
    path = f"{spec.layer_name(f'{block.name}_one_hot')}/embeddings"
    if path not in start:
        path = f"{spec.layer_name(f'{block.name}_embedding')}/embeddings"
        start[path] = rng.standard_normal(start[path].shape).astype(np.float32)
        return
    n_codes = len(start[path])
    counts = np.bincount(codes, weights=rows.weights, minlength=n_codes).astype(np.float64)
    for code, count in enumerate(counts):
        shares = [counts.sum() - count, count]
        center, scale = robust_center_and_scale(np.array([0.0, 1.0]), shares)
        off, on = smoothly_clipped((np.array([0.0, 1.0]) - center) / scale)
        start[path][:, code] = off
        start[path][code, code] = on


def _initialized(x, name, kernel, start, weights, rng, factor=1.0):
    """Initialise a layer with inputs ``x``; return its outputs."""
    x = np.asarray(x, dtype=np.float64) / math.sqrt(x.shape[-1])
    z = x @ kernel
    mean = np.average(z, axis=0, weights=weights)
    deviation = np.sqrt(np.average(np.square(z - mean), axis=0, weights=weights))
    # Rounding errors of a constant unit are no variance: its weights would be huge.
    varies = deviation > np.finfo(np.float32).eps * np.hypot(mean, deviation)
    scale = factor / np.where(varies, deviation, 1.0)
    # Quantiles at random levels are values of random rows, but nearly equal in all folds.
    levels = rng.uniform(size=(_SIMPLEX, len(scale)))
    simplex = rng.exponential(size=levels.shape)
    bends = np.sum(_quantiles(z, levels, weights) * simplex / simplex.sum(axis=0), axis=0)
    start[f"{name}/kernel"] = (kernel * scale).astype(np.float32)
    start[f"{name}/bias"] = (-bends * scale).astype(np.float32)
    return np.where(varies, (z - bends) * scale, 0.0)


def _quantiles(table, levels, weights):
    """Quantiles of columns at ``levels``, of shape (n_levels, n_columns)."""
    order = np.argsort(table, axis=0)
    weights = np.ones(len(table)) if weights is None else np.asarray(weights, dtype=np.float64)
    reached = np.cumsum(weights[order], axis=0) / weights.sum()
    last = len(table) - 1
    indices = np.array([np.minimum((reached < level).sum(axis=0), last) for level in levels])
    return np.take_along_axis(np.take_along_axis(table, order, axis=0), indices, axis=0)
