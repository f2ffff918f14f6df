"""A recipe for sequences of unequal length."""

from __future__ import annotations

from numbers import Real

from skstack._base.params import hint_at_parameters
from skstack.networks._mlp import check_activation, check_flag, check_number, sizes_of
from skstack.networks._numeric import check_count, check_scaling
from skstack.networks._recipe import Recipe
from skstack.networks._spec import block_shapes

_LAYERS = {"lstm": "LSTM", "gru": "GRU", "conv1d": "Conv1D"}
_POOLINGS = ("auto", "last", "mean", "max")
_FAR_BELOW = -1e9


class SequenceEncoder(Recipe):
    """Recurrent or convolutional layers over the steps of sequences; masked steps are ignored.

    Every sequence (of shape (steps, channels), or of token ids, which are embedded) passes through
    the layers ``{name}_1``, ``{name}_2``, ... and is pooled over its steps. The layer ``latent``
    concatenates the results of all sequences. Numeric and categorical columns, encoded as by
    :class:`MLP`, are appended to it; dense layers ``hidden_1``, ... and ``output`` follow.

    Parameters
    ----------
    units : int or sequence of int, default=(64,)
        Units (of convolutions: filters) of each layer over the steps, each >= 1.

    layer : {"gru", "lstm", "conv1d"}, default="gru"
        Kind of the layers over the steps.

    bidirectional : bool, default=False
        Whether recurrent layers also read backwards, which doubles their units.

    kernel_size : int, default=3
        Length of the convolution window in steps, >= 1.

    pooling : {"auto", "last", "mean", "max"}, default="auto"
        How to reduce the steps to one vector: the state after the last step, or the mean or the
        maximum over steps. ``"auto"`` is ``"last"`` for recurrent layers, ``"max"`` for
        convolutions.

    hidden_layer_sizes : int or sequence of int, default=()
        Units of the dense layers that follow, each >= 1.

    activation : str or callable, default="relu"
        Activation of convolutions and dense layers.

    dropout : float, default=0.0
        Fraction of each layer's outputs that is set to 0 at each training step, in [0, 1).

    mask_value : float or None, default=0.0
        A step whose channels all have this value is padding: see ``value`` of
        :class:`~skstack.preprocessing.PadSequences`. Token id 0 is always padding. If None, no
        step is masked, which trains faster.

    scaling : "standard" or None, default="standard"
        Whether to standardise channels and numeric columns, by layers of the network that hold the
        moments of the training rows, without padding.

    label_smoothing : float, default=0.0
        Share of each label that the training loss spreads evenly over all classes, in [0, 1). For
        classifiers; the loss on hold-out rows uses the labels themselves.

    Notes
    -----
    A row that is all padding is encoded as zeros with ``"mean"`` and ``"max"``, and as the initial
    state with ``"last"``.

    References
    ----------
    K. Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical
    Machine Translation", EMNLP 2014 (GRU). S. Hochreiter and J. Schmidhuber, "Long Short-Term
    Memory", Neural Computation 9(8), 1997.

    Examples
    --------
    >>> from skstack.networks import SequenceEncoder
    >>> SequenceEncoder((32,), layer="lstm", bidirectional=True)
    SequenceEncoder(bidirectional=True, layer='lstm', units=(32,))
    """

    @hint_at_parameters
    def __init__(
        self,
        units=(64,),
        *,
        layer="gru",
        bidirectional=False,
        kernel_size=3,
        pooling="auto",
        hidden_layer_sizes=(),
        activation="relu",
        dropout=0.0,
        mask_value=0.0,
        scaling="standard",
        label_smoothing=0.0,
    ):
        self.units = units
        self.layer = layer
        self.bidirectional = bidirectional
        self.kernel_size = kernel_size
        self.pooling = pooling
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.dropout = dropout
        self.mask_value = mask_value
        self.scaling = scaling
        self.label_smoothing = label_smoothing

    def _validate_params(self):
        owner = type(self).__name__
        for name, accepted in (("layer", tuple(_LAYERS)), ("pooling", _POOLINGS)):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in accepted:
                raise ValueError(f"{name}={value!r} of {owner} must be one of {accepted}.")
        if self.layer == "conv1d" and self.bidirectional:
            raise ValueError(f"bidirectional=True of {owner} needs recurrent layers, not 'conv1d'.")
        sizes_of(self, "units", required=True)
        sizes_of(self, "hidden_layer_sizes")
        check_count(owner, "kernel_size", self.kernel_size)
        value = self.mask_value
        if value is not None and (not isinstance(value, Real) or value != value):
            raise ValueError(f"mask_value={value!r} of {owner} must be a number or None.")
        check_number(owner, "dropout", self.dropout, below=1)
        check_number(owner, "label_smoothing", self.label_smoothing, below=1)
        check_flag(owner, "bidirectional", self.bidirectional)
        check_scaling(owner, self.scaling, ("standard", None))
        check_activation(owner, self.activation)

    def build(self, spec):
        """Build the network; see ``Recipe.build``."""
        import keras

        self._validate_params()
        inputs = spec.inputs()
        over_steps = [block for block in spec.blocks if block.kind in ("sequence", "tokens")]
        if not over_steps:
            raise ValueError(
                f"SequenceEncoder needs an input of shape (rows, steps, channels), or token ids of "
                f"shape (rows, steps); X has {block_shapes(spec.blocks)}. If "
                "numeric columns are steps, set input_shape=(steps, channels); if they are token "
                "ids, pass a DataFrame with one column whose cells hold them: "
                "pd.DataFrame({'words': list(X)})."
            )
        encoded = [self._encoded(spec, block.name, inputs) for block in over_steps]
        latent = spec.layer_name("latent")
        if len(encoded) == 1:
            x = keras.layers.Identity(name=latent)(encoded[0])
        else:
            x = keras.layers.Concatenate(name=latent)(encoded)
        names = {block.name for block in over_steps}
        rest = {name: tensor for name, tensor in inputs.items() if name not in names}
        if rest:
            table = spec.join(rest, scaling=self.scaling)
            x = keras.layers.Concatenate(name=spec.layer_name("beside"))([x, table])
        for number, size in enumerate(sizes_of(self, "hidden_layer_sizes"), start=1):
            name = spec.layer_name(f"hidden_{number}")
            x = keras.layers.Dense(size, activation=self.activation, name=name)(x)
            x = self._dropped(x, spec, name)
        return keras.Model(inputs, spec.outputs(x), name="sequence_encoder")

    def _encoded(self, spec, block, inputs):
        """Encoding of one sequence input, of shape (batch, units)."""
        x, mask = spec.steps(inputs, block, mask_value=self.mask_value, scaling=self.scaling)
        pooling = self.pooling
        convolves = self.layer == "conv1d"
        if pooling == "auto":
            pooling = "max" if convolves else "last"
        units = sizes_of(self, "units")
        for number, size in enumerate(units, start=1):
            name = spec.layer_name(f"{block}_{number}")
            if convolves:
                x = self._convolved(x, mask, size, spec, name)
            else:
                sequences = number < len(units) or pooling != "last"
                x = self._recurrent(x, size, sequences, name)
            x = self._dropped(x, spec, name)
        return x if len(x.shape) == 2 else _pooled(x, mask, pooling, spec, block)

    def _recurrent(self, x, size, sequences, name):
        import keras

        layer = getattr(keras.layers, _LAYERS[self.layer])
        if not self.bidirectional:
            return layer(size, return_sequences=sequences, name=name)(x)
        return keras.layers.Bidirectional(layer(size, return_sequences=sequences), name=name)(x)

    def _convolved(self, x, mask, size, spec, name):
        import keras

        if mask is not None:  # convolution windows must not include values of padding
            kept = keras.ops.expand_dims(keras.ops.cast(mask, "float32"), -1)
            x = keras.layers.Multiply(name=spec.layer_name(f"{name}_masked"))([x, kept])
        convolution = keras.layers.Conv1D(
            size, self.kernel_size, padding="same", activation=self.activation, name=name
        )
        return convolution(x)

    def _dropped(self, x, spec, name):
        import keras

        if not self.dropout:
            return x
        return keras.layers.Dropout(self.dropout, name=spec.layer_name(f"{name}_dropout"))(x)


def _pooled(x, mask, pooling, spec, block):
    """Pool the steps that are not masked."""
    import keras

    name = spec.layer_name(f"{block}_{pooling}")
    ops = keras.ops
    if pooling == "mean":
        if mask is None:
            return keras.layers.GlobalAveragePooling1D(name=name)(x)
        # Keras' layer divides by 0 in a row that is all padding.
        kept = ops.cast(ops.expand_dims(mask, -1), x.dtype)
        n_steps = ops.maximum(ops.sum(kept, axis=1), 1.0)
        return keras.layers.Identity(name=name)(ops.sum(x * kept, axis=1) / n_steps)
    if pooling == "last":  # of a convolution
        if mask is None:
            return x[:, -1]
        steps = ops.arange(1, x.shape[1] + 1, dtype="int32")
        last = ops.max(ops.where(mask, steps, 0), axis=1, keepdims=True)
        x = ops.where(ops.expand_dims(ops.equal(steps, last), -1), x, 0.0)
        return ops.sum(x, axis=1)
    if mask is None:
        return keras.layers.GlobalMaxPooling1D(name=name)(x)
    kept = ops.expand_dims(mask, -1)
    largest = ops.max(ops.where(kept, x, _FAR_BELOW), axis=1)
    return ops.where(ops.any(kept, axis=1), largest, 0.0)
