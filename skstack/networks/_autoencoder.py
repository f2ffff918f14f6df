"""The autoencoder recipe, the latent layer of a network, and its decoder."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from skstack._base.params import hint_at_parameters
from skstack.networks._heads import cached_by_key, last_operation
from skstack.networks._mlp import check_dense, check_number, dense_layers, sizes_of
from skstack.networks._numeric import check_scaling
from skstack.networks._recipe import Recipe


class Autoencoder(Recipe):
    """An autoencoder of a table, optionally a denoising one.

    Numeric columns are standardised and categories are one-hot encoded. Dense layers named
    ``encoder_1``, ``encoder_2``, ... lead to the layer ``latent``, and ``decoder_1``, ..., in
    reverse order, to ``output``, which reconstructs the standardised table.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(64,)
        Units of each layer of the encoder, each >= 1; the decoder has them in reverse order. With
        ``()`` the network is linear and spans the space of the principal components.

    latent_size : int or "auto", default="auto"
        Units of the latent layer, >= 1. ``"auto"`` is half the columns of the encoded table,
        rounded up, and at most 8: a layer as wide as the table would learn the identity.

    activation : str or callable, default="relu"
        Activation of the encoder's and decoder's layers: the name of a Keras activation, or a
        function of a tensor. The latent and the output layer are linear: dead ReLU units would be
        features that are always 0.

    noise : float, default=0.0
        Standard deviation of the Gaussian noise that is added to the encoded table in training, in
        standard deviations of the columns, >= 0; the network learns to reconstruct the table
        without noise.

    dropout : float, default=0.0
        Fraction of the units of the encoder's and decoder's layers that is set to 0 at each
        training step, in [0, 1).

    batch_normalization : bool, default=False
        Whether to apply batch normalization in each of these layers, before the activation.

    l2 : float, default=0.0
        Strength of the L2 penalty on the kernels of these layers, >= 0.

    scaling : "standard" or None, default="standard"
        Whether to standardise numeric columns, by layers of the network that hold the moments of
        the training rows.

    Notes
    -----
    With ``noise`` this is the denoising autoencoder of [1]_ (section 3, additive Gaussian noise).

    References
    ----------
    .. [1] P. Vincent, H. Larochelle, I. Lajoie, Y. Bengio and P.-A. Manzagol, "Stacked Denoising
       Autoencoders: Learning Useful Representations in a Deep Network with a Local Denoising
       Criterion", Journal of Machine Learning Research 11, 2010.

    Examples
    --------
    >>> from skstack.networks import Autoencoder
    >>> Autoencoder((32, 16), latent_size=4, noise=0.1)
    Autoencoder(hidden_layer_sizes=(32, 16), latent_size=4, noise=0.1)
    """

    @hint_at_parameters
    def __init__(
        self,
        hidden_layer_sizes=(64,),
        *,
        latent_size="auto",
        activation="relu",
        noise=0.0,
        dropout=0.0,
        batch_normalization=False,
        l2=0.0,
        scaling="standard",
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.latent_size = latent_size
        self.activation = activation
        self.noise = noise
        self.dropout = dropout
        self.batch_normalization = batch_normalization
        self.l2 = l2
        self.scaling = scaling

    def _validate_params(self):
        check_dense(self)
        check_scaling("Autoencoder", self.scaling, ("standard", None))
        check_number("Autoencoder", "noise", self.noise)
        size = self.latent_size
        if isinstance(size, str) and size == "auto":
            return
        if not isinstance(size, Integral) or isinstance(size, bool) or size < 1:
            raise ValueError(f"latent_size={size!r} of Autoencoder must be an int >= 1 or 'auto'.")

    def build(self, spec):
        """Build the network; see ``Recipe.build``."""
        import keras

        self._validate_params()
        sizes = sizes_of(self, "hidden_layer_sizes")
        latent_size = self._latent_size(spec)
        inputs = spec.inputs()
        x = spec.join(inputs, scaling=self.scaling, categorical="one-hot")
        if self.noise:
            x = keras.layers.GaussianNoise(float(self.noise), name=spec.layer_name("noise"))(x)
        x = dense_layers(x, sizes, self, spec, "encoder")
        x = keras.layers.Dense(latent_size, name=spec.layer_name("latent"))(x)
        x = dense_layers(x, sizes[::-1], self, spec, "decoder")
        return keras.Model(inputs, spec.outputs(x), name="autoencoder")

    def _latent_size(self, spec):
        automatic = isinstance(self.latent_size, str)
        return min(8, (spec.width + 1) // 2) if automatic else int(self.latent_size)


def layer_shapes(model):
    """Shape of one row of the output of each layer, by name, for layers with a single output."""
    import keras

    shapes = {}
    for layer in model.layers:
        # A layer that is called more than once has no single output.
        with contextlib.suppress(AttributeError, ValueError):
            if not isinstance(layer, keras.layers.InputLayer):
                shapes[layer.name] = tuple(layer.output.shape[1:])
    return shapes


def latent_layer(model):
    """Name of the latent layer: ``"latent"``, else the narrowest hidden layer."""
    shapes = layer_shapes(model)
    if "latent" in shapes:
        return "latent"
    if not shapes:
        raise ValueError(
            f"model={model.name!r} ({type(model).__name__}) does not expose the outputs of its "
            "layers, so its latent layer cannot be found. Accepted are functional and Sequential "
            "models and recipes, preferably with a layer named 'latent'."
        )
    shapes = {name: shapes[name] for name in _hidden_layers(model) if name in shapes} or shapes
    return min(shapes, key=lambda name: math.prod(size or 1 for size in shapes[name]))


def _hidden_layers(model):
    """Names of the layers after those that prepare columns and before the reconstruction."""
    layers = list(model.layers)
    while layers and (not layers[0].weights or _standardizes(layers[0])):
        layers = layers[1:]
    last = last_operation(model)
    return [layer.name for layer in layers if not (layer is last or _standardizes(layer))]


def _standardizes(layer):
    """Whether a layer is one of those of a Spec that standardise columns."""
    return not layer.trainable and layer.name.endswith(("_center", "_scale"))


@cached_by_key
def latent_of(blueprint):
    """Name of the latent layer of an autoencoder, and the shape of its output for one row."""
    from skstack._training.spares import model_to_read

    with model_to_read(blueprint) as model:
        name = latent_layer(model)
        return name, tuple(model.get_layer(name).output.shape[1:])


@dataclass(frozen=True)
class DecoderBlueprint:
    """The part of an autoencoder after its latent layer ``layer``."""

    blueprint: Any
    layer: str

    @property
    def key(self):
        """See ``RecipeBlueprint.key``."""
        key = self.blueprint.key
        return None if key is None else ("decoder", self.layer, key)

    def build(self):
        """Build the decoder."""
        import keras

        model = self.blueprint.build()
        return keras.Model(model.get_layer(self.layer).output, model.outputs[0])
