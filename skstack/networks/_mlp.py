"""The multilayer perceptron; checks and dense layers that recipes share."""

from __future__ import annotations

from numbers import Integral, Real

import numpy as np

from skstack._base.params import hint_at_parameters
from skstack.networks._numeric import check_embedding, check_scaling
from skstack.networks._recipe import Recipe


def check_flag(owner, name, value):
    """Check that a parameter is a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name}={value!r} of {owner} must be True or False.")


def check_number(owner, name, value, *, below=None):
    """Check that a parameter is a finite number >= 0, and < ``below``."""
    number = isinstance(value, Real) and not isinstance(value, (bool, np.bool_))
    highest = float(np.finfo(np.float32).max)
    if not number or not 0 <= value <= highest or (below is not None and value >= below):
        interval = "a finite number >= 0" if below is None else f"a number in [0, {below})"
        raise ValueError(f"{name}={value!r} of {owner} must be {interval}.")


def sizes_of(recipe, parameter, *, required=False):
    """Layer sizes as a tuple of int; a single int is one layer. If required, there is one."""
    value = getattr(recipe, parameter)
    several = isinstance(value, (tuple, list)) or (isinstance(value, np.ndarray) and value.ndim)
    sizes = value if several else (value,)
    sizes = tuple(int(size) if isinstance(size, np.integer) else size for size in sizes)
    for size in sizes:
        if not isinstance(size, Integral) or isinstance(size, (bool, np.bool_)) or size < 1:
            raise ValueError(
                f"{parameter}={value!r} of {type(recipe).__name__} must be an int >= 1 or a "
                "sequence of them, one for each layer."
            )
    if required and not sizes:
        raise ValueError(
            f"{parameter}={value!r} of {type(recipe).__name__} must name at least one layer."
        )
    return sizes


def _keeps_shape(activation):
    """Whether a callable is elementwise, by its output's shape."""
    import keras

    from skstack._training.isolation import preserve_rng

    with preserve_rng():
        if isinstance(activation, keras.layers.Layer):  # a call would build the user's object
            activation = type(activation).from_config(activation.get_config())
        try:
            return tuple(activation(keras.ops.ones((2, 3))).shape) == (2, 3)
        except Exception:  # a user's function may raise anything
            return False


def check_activation(owner, activation):
    """Check that an activation is the name of a Keras activation or an elementwise function."""
    valid = not isinstance(activation, type) and callable(activation) and _keeps_shape(activation)
    if isinstance(activation, str):
        import keras

        try:
            valid = keras.activations.get(activation) is not None
        except ValueError:
            valid = False
    if not valid:
        raise ValueError(
            f"activation={activation!r} of {owner} must be the name of a Keras activation, such "
            "as 'relu', 'gelu' or 'tanh', or an elementwise function of a tensor."
        )


def check_dense(recipe):
    """Check the parameters that MLP and Autoencoder share."""
    owner = type(recipe).__name__
    check_number(owner, "dropout", recipe.dropout, below=1)
    check_number(owner, "l2", recipe.l2)
    check_flag(owner, "batch_normalization", recipe.batch_normalization)
    check_activation(owner, recipe.activation)
    sizes_of(recipe, "hidden_layer_sizes")


def dense_layers(x, sizes, recipe, spec, prefix):
    """Apply dense layers; the activated output of the i-th is named ``{prefix}_{i}``."""
    from keras.layers import Activation, BatchNormalization, Dense, Dropout
    from keras.regularizers import L2

    for number, size in enumerate(sizes, start=1):
        name = spec.layer_name(f"{prefix}_{number}")
        penalty = {"kernel_regularizer": L2(float(recipe.l2))} if recipe.l2 else {}
        if recipe.batch_normalization:
            # Its shift replaces the bias.
            x = Dense(size, use_bias=False, name=spec.layer_name(f"{name}_linear"), **penalty)(x)
            x = BatchNormalization(name=spec.layer_name(f"{name}_normalization"))(x)
            x = Activation(recipe.activation, name=name)(x)
        else:
            x = Dense(size, activation=recipe.activation, name=name, **penalty)(x)
        if recipe.dropout:
            x = Dropout(float(recipe.dropout), name=spec.layer_name(f"{name}_dropout"))(x)
    return x


class MLP(Recipe):
    """A multilayer perceptron on a table of numbers and categories.

    Numeric columns are standardised, categories are embedded, and both are concatenated. Dense
    layers named ``hidden_1``, ``hidden_2``, ... follow, then a layer named ``output``.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(64, 32)
        Units of each hidden layer, each >= 1; ``()`` is a linear model. On a table of 30 columns
        the default has about as many weights as scikit-learn's single layer of 100, and its second
        layer of 32 units is a compact feature vector.

    activation : str or callable, default="relu"
        Activation of the hidden layers: the name of a Keras activation, or a function of a tensor.

    dropout : float, default=0.0
        Fraction of the hidden units that is set to 0 at each training step, in [0, 1).

    batch_normalization : bool, default=False
        Whether to apply batch normalization in each hidden layer, before the activation.

    l2 : float, default=0.0
        Strength of the L2 penalty on the kernels of the hidden layers, >= 0.

    scaling : {"standard", "quantile", "robust"} or None, default="standard"
        How numeric columns are scaled, by layers of the network that hold what was learned from
        the training rows. ``"standard"``: mean 0 and standard deviation 1. ``"quantile"``: to a
        normal distribution, by a map that is linear between 65 quantiles. ``"robust"``: median 0
        and distance between the quartiles 1, then clipped smoothly to (-3, 3).

    numeric_embedding : PiecewiseLinear, Periodic or None, default=None
        How each scaled number becomes a vector, with separate weights for each column.

    label_smoothing : float, default=0.0
        Share of each label that the training loss spreads evenly over all classes, in [0, 1). For
        classifiers; the loss on hold-out rows uses the labels themselves.

    Examples
    --------
    >>> from skstack.networks import MLP
    >>> MLP((32,), dropout=0.1)
    MLP(dropout=0.1, hidden_layer_sizes=(32,))
    """

    @hint_at_parameters
    def __init__(
        self,
        hidden_layer_sizes=(64, 32),
        *,
        activation="relu",
        dropout=0.0,
        batch_normalization=False,
        l2=0.0,
        scaling="standard",
        numeric_embedding=None,
        label_smoothing=0.0,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout
        self.batch_normalization = batch_normalization
        self.l2 = l2
        self.scaling = scaling
        self.numeric_embedding = numeric_embedding
        self.label_smoothing = label_smoothing

    def _validate_params(self):
        check_dense(self)
        check_scaling("MLP", self.scaling)
        check_embedding("MLP", self.numeric_embedding)
        check_number("MLP", "label_smoothing", self.label_smoothing, below=1)

    def build(self, spec):
        """Build the network; see ``Recipe.build``."""
        import keras

        self._validate_params()
        sizes = sizes_of(self, "hidden_layer_sizes")
        inputs = spec.inputs()
        x = spec.join(inputs, scaling=self.scaling, numeric_embedding=self.numeric_embedding)
        x = dense_layers(x, sizes, self, spec, "hidden")
        return keras.Model(inputs, spec.outputs(x), name="mlp")
