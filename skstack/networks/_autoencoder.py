"""The autoencoder: a table through a narrow layer and back."""

from __future__ import annotations

from numbers import Integral

from skstack.networks._mlp import check_dense, check_number, dense_layers, sizes_of
from skstack.networks._recipe import Recipe


class Autoencoder(Recipe):
    """An autoencoder of a table, optionally a denoising one.

    Numeric columns are standardised and each category becomes one column per value. Dense layers
    called ``encoder_1``, ``encoder_2``, ... lead to the layer ``latent``, and ``decoder_1``, ...,
    in the opposite order, back to ``output``, which rebuilds the standardised table.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(64,)
        Units of each layer of the encoder, each >= 1; the decoder has them in the opposite order.
        With ``()`` the network is linear and spans the space of the principal components.

    latent_size : int or "auto", default="auto"
        Units of the latent layer, >= 1. ``"auto"`` is half the columns of the joined table,
        rounded up, and at most 8: a layer as wide as the table would learn to copy it.

    activation : str or callable, default="relu"
        Activation of the encoder's and decoder's layers: a name that Keras knows, or a function of
        a tensor. The latent and the output layer are linear: ReLU units that have died would give
        features that are always 0.

    noise : float, default=0.0
        Standard deviation of the Gaussian noise that is added to the joined table while training,
        in standard deviations of the columns, >= 0; the network learns to rebuild the table
        without it.

    dropout : float, default=0.0
        Share of the units of the encoder's and decoder's layers that is set to 0 at each training
        step, in [0, 1).

    batch_normalization : bool, default=False
        Whether each of these layers is normalised over its batch, before the activation.

    l2 : float, default=0.0
        Weight of the squared weights of these layers in the loss, >= 0.

    standardize : bool, default=True
        Whether numeric columns are standardised with moments of the training rows, by layers of
        the network.

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
        standardize=True,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.latent_size = latent_size
        self.activation = activation
        self.noise = noise
        self.dropout = dropout
        self.batch_normalization = batch_normalization
        self.l2 = l2
        self.standardize = standardize

    def _validate_params(self):
        check_dense(self)
        check_number("Autoencoder", "noise", self.noise)
        size = self.latent_size
        if isinstance(size, str) and size == "auto":
            return
        if not isinstance(size, Integral) or isinstance(size, bool) or size < 1:
            raise ValueError(f"latent_size={size!r} of Autoencoder must be an int >= 1 or 'auto'.")

    def build(self, spec):
        """Build the network.

        Parameters
        ----------
        spec : Spec
            The inputs and outputs that it must have.

        Returns
        -------
        keras.Model

        Raises
        ------
        ValueError
            If a parameter has a value that it cannot have, or the input is no table.
        """
        import keras

        self._validate_params()
        sizes = sizes_of(self, "hidden_layer_sizes")
        latent_size = self._latent_size(spec)
        inputs = spec.inputs()
        x = spec.join(inputs, standardize=bool(self.standardize), categorical="one-hot")
        if self.noise:
            x = keras.layers.GaussianNoise(float(self.noise), name=spec.layer_name("noise"))(x)
        x = dense_layers(x, sizes, self, spec, "encoder")
        x = keras.layers.Dense(latent_size, name=spec.layer_name("latent"))(x)
        x = dense_layers(x, sizes[::-1], self, spec, "decoder")
        return keras.Model(inputs, spec.outputs(x), name="autoencoder")

    def _latent_size(self, spec):
        automatic = isinstance(self.latent_size, str)
        return min(8, (spec.width + 1) // 2) if automatic else int(self.latent_size)
