"""The inputs of a network, and the outputs of its task."""

from __future__ import annotations

import math
from dataclasses import dataclass

from skstack.networks._numeric import check_embedding, check_scaling, scaled
from skstack.preprocessing._blocks import Block

TASKS = ("binary", "multiclass", "multilabel", "regression", "reconstruction", "multitask")

ONE_HOT_LIMIT = 64  # codes of a column with a unit each

PROBABILITY_ACTIVATIONS = {"binary": "sigmoid", "multiclass": "softmax", "multilabel": "sigmoid"}


def block_shapes(blocks):
    """Shapes of blocks by name, with None for the rows."""
    return {block.name: (None, *block.shape) for block in blocks}


def embedding_width(cardinality):
    """Width of the embedding of ``cardinality`` codes by fastai's ``emb_sz_rule``, at most 50."""
    return max(1, min(50, round(1.6 * cardinality**0.56)))


def auto_width(cardinality):
    """Width of a categorical block with ``categorical="auto"`` of ``Spec.join``."""
    return cardinality if cardinality <= ONE_HOT_LIMIT else embedding_width(cardinality)


def _standardized(x, block):
    """Subtract the mean, then divide by the scale, with two built-in layers.

    A single ``x * (1 / scale) - mean / scale`` loses all digits in float32 for a column like
    1e6 + small. The moments are weights, not constants: one traced program serves every fold, and
    ONNX exporters keep them as plain initialisers. float32 for every dtype policy, because float16
    holds no number above 65,504.
    """
    from keras.layers import EinsumDense

    shared = {
        "output_shape": block.shape,
        "kernel_initializer": "ones",
        "trainable": False,
        "dtype": "float32",
    }
    x = EinsumDense("ab,b->ab", bias_axes="b", name=f"{block.name}_center", **shared)(x)
    return EinsumDense("ab,b->ab", name=f"{block.name}_scale", **shared)(x)


def _standardized_steps(x, name):
    """Like `_standardized`, with layers that keep the mask, which EinsumDense drops.

    An identity and a diagonal matrix give the same bits.
    """
    from keras.layers import Dense

    shared = {"units": x.shape[-1], "trainable": False, "dtype": "float32"}
    x = Dense(kernel_initializer="identity", name=f"{name}_center", **shared)(x)
    return Dense(kernel_initializer="identity", use_bias=False, name=f"{name}_scale", **shared)(x)


@dataclass(frozen=True)
class Head:
    """The outputs of one target of a network that has several."""

    name: str  # of the target, valid as part of a layer's name
    task: str  # "binary", "multiclass" or "regression"
    n_outputs: int  # number of classes, or 1
    activation: str | None = None  # as in `Spec`

    @property
    def units(self):
        """Width of the output layer."""
        return _units(self)

    @property
    def layer(self):
        """Name of the output layer, where no block has it."""
        return f"output_{self.name}"


def _units(part):
    return 1 if part.task == "binary" else part.n_outputs


def output_activation(part):
    """Name of the activation of a spec's output, or of that of one of its heads."""
    return part.activation or PROBABILITY_ACTIVATIONS.get(part.task, "linear")


def _dense(part, name):
    """The output layer of a spec or of one of its heads."""
    from keras.layers import Dense

    return Dense(part.units, activation=output_activation(part), dtype="float32", name=name)


def _member_dense(part, name, x):
    """The output layer of a part for several members, without activation."""
    from keras.initializers import RandomUniform
    from keras.layers import EinsumDense

    _, n_members, width = x.shape
    bound = 1.0 / math.sqrt(width)
    return EinsumDense(
        "bkd,kdc->bkc",
        output_shape=(n_members, part.units),
        bias_axes="kc",
        kernel_initializer=RandomUniform(-bound, bound),
        bias_initializer=RandomUniform(-bound, bound),
        dtype="float32",
        name=name,
    )


@dataclass(frozen=True)
class Spec:
    """The inputs and outputs that a network must have.

    A recipe gets one as its first argument.

    Parameters
    ----------
    blocks : tuple of Block
        The inputs, in the order in which ``join`` concatenates them.

    task : {"binary", "multiclass", "multilabel", "regression", "reconstruction", "multitask"}
        What the network is for.

    n_outputs : int
        Number of classes, labels, targets, or columns to reconstruct.

    activation : str, default=None
        Activation of the output if the loss requires one: ``"exponential"`` for counts. If None,
        that of the task.

    heads : tuple of Head, default=()
        The targets of the task ``"multitask"``, in the order of their outputs.

    Examples
    --------
    >>> from skstack.networks import MLP, Block, Spec
    >>> spec = Spec((Block("numeric", "numeric", (4,), None, "float32"),), "multiclass", 3)
    >>> MLP().build(spec).output_shape
    (None, 3)
    """

    blocks: tuple[Block, ...]
    task: str
    n_outputs: int
    activation: str | None = None
    heads: tuple[Head, ...] = ()

    def __post_init__(self):
        if not self.blocks:
            raise ValueError("A Spec needs at least one block of columns; got none.")
        if self.task not in TASKS:
            raise ValueError(f"task={self.task!r} is unknown; it must be one of {TASKS}.")
        object.__setattr__(self, "blocks", tuple(self.blocks))
        names = [block.name for block in self.blocks]
        taken = [
            f"{block.name}_{role}"
            for block in self.blocks
            if block.kind in ("numeric", "sequence")
            for role in ("center", "scale")
        ]
        clashes = sorted({name for name in names if names.count(name) > 1 or name in taken})
        if clashes:
            raise ValueError(
                f"The block names {clashes} are used twice or are names of standardising layers; "
                "rename these columns."
            )

    @property
    def units(self):
        """Width of the output: 1 for two classes, else ``n_outputs``; of all heads together."""
        return sum(head.units for head in self.heads) if self.heads else _units(self)

    @property
    def output_shape(self):
        """Shape of the output, None for the rows; a single array is reconstructed in its shape."""
        block = self.blocks[0]
        if self.task == "reconstruction" and len(self.blocks) == 1 and len(block.shape) > 1:
            return (None, *block.shape)
        return (None, self.units)

    @property
    def width(self):
        """Number of columns of the one-hot encoded table."""
        return sum(
            block.cardinality if block.kind == "categorical" else block.shape[0]
            for block in map(self._tabular, self.blocks)
        )

    def layer_name(self, name):
        """Append underscores to a name while it is that of a block.

        Parameters
        ----------
        name : str
            Name that a layer should have.

        Returns
        -------
        str
            Name that no block has.
        """
        while name in block_shapes(self.blocks):
            name += "_"
        return name

    def inputs(self):
        """Create one ``keras.Input`` for each block.

        Returns
        -------
        dict of str to keras.KerasTensor
            By block name: numeric blocks of shape (batch, columns) and dtype float32, categories
            of shape (batch,) and dtype int32, sequences and tensors in their own shape.
        """
        import keras

        return {
            block.name: keras.Input(block.shape, dtype=block.dtype, name=block.name)
            for block in self.blocks
        }

    def join(self, inputs, *, scaling="standard", numeric_embedding=None, categorical="embedding"):
        """Concatenate the blocks to one table.

        Parameters
        ----------
        inputs : dict of str to keras.KerasTensor
            The result of ``inputs()``, or a subset.

        scaling : {"standard", "quantile", "robust"} or None, default="standard"
            How numeric blocks are scaled, by layers that hold what was learned from the training
            rows: see :class:`~skstack.networks.MLP`.

        numeric_embedding : PiecewiseLinear, Periodic or None, default=None
            How each scaled number becomes a vector.

        categorical : {"embedding", "one-hot", "auto"}, default="embedding"
            A learned embedding for each categorical block (width: ``embedding_width``), or one
            column for each of its values. ``"auto"``: one column for each value of blocks with at
            most 64 of them, else an embedding.

        Returns
        -------
        keras.KerasTensor of shape (batch, width), float
            All columns side by side.

        Raises
        ------
        ValueError
            If a block is a sequence or a tensor, or a name is not one of the spec's.
        """
        from keras.layers import CategoryEncoding, Concatenate, Embedding, Flatten

        if categorical not in ("embedding", "one-hot", "auto"):
            raise ValueError(
                f"categorical={categorical!r} is unknown; it must be 'embedding', 'one-hot' or "
                "'auto'."
            )
        check_scaling("join", scaling)
        check_embedding("join", numeric_embedding)
        unknown = sorted(set(inputs) - set(block_shapes(self.blocks)))
        if unknown or not inputs:
            raise ValueError(
                f"join got the inputs {list(inputs)}; it takes one or more of "
                f"{list(block_shapes(self.blocks))}."
            )
        parts = []
        for block in self.blocks:
            if block.name not in inputs:
                continue
            x = inputs[self._tabular(block).name]
            if block.kind == "numeric":
                if scaling is not None:
                    x = scaled(_standardized(x, block), self, block, scaling)
                if numeric_embedding is not None:
                    x = numeric_embedding.apply(x, self, block.name)
                    x = Flatten(name=self.layer_name(f"{block.name}_embedded"))(x)
                parts.append(x)
            elif categorical == "auto" and block.cardinality <= ONE_HOT_LIMIT:
                # Fixed rows of the identity: unlike CategoryEncoding, XLA compiles it.
                name = self.layer_name(f"{block.name}_one_hot")
                fixed = {"embeddings_initializer": "identity", "trainable": False}
                parts.append(Embedding(block.cardinality, block.cardinality, name=name, **fixed)(x))
            elif categorical != "one-hot":
                width = embedding_width(block.cardinality)
                name = self.layer_name(f"{block.name}_embedding")
                parts.append(Embedding(block.cardinality, width, name=name)(x))
            else:
                name = self.layer_name(f"{block.name}_one_hot")
                encode = CategoryEncoding(block.cardinality, output_mode="one_hot", name=name)
                parts.append(encode(x))
        if len(parts) == 1:
            return parts[0]
        return Concatenate(name=self.layer_name("joined"))(parts)

    def steps(self, inputs, name, *, mask_value=0.0, scaling="standard"):
        """Mask the padding of a sequence and standardise its channels.

        Parameters
        ----------
        inputs : dict of str to keras.KerasTensor
            The result of ``inputs()``.

        name : str
            Name of an input that is a sequence or holds token ids, which are embedded.

        mask_value : float or None, default=0.0
            A step whose channels all have this value is padding; None: no padding. Token
            id 0 is always padding.

        scaling : "standard" or None, default="standard"
            Whether to standardise channels, by layers that hold the moments of the training rows.

        Returns
        -------
        steps : keras.KerasTensor of shape (batch, steps, channels)
            Layers that support masking, such as LSTM, ignore the padding.

        mask : keras.KerasTensor of bool of shape (batch, steps), or None
            True for steps that are not padding; for layers without masking, such as Conv1D.

        Raises
        ------
        ValueError
            If there is no such input, or it is not a sequence.
        """
        from keras.layers import Embedding, Masking

        block = {block.name: block for block in self.blocks if block.name in inputs}.get(name)
        if block is None or block.kind not in ("sequence", "tokens"):
            raise ValueError(
                f"steps: {name!r} is not a sequence input; the inputs are "
                f"{block_shapes(self.blocks)}."
            )
        check_scaling("steps", scaling, ("standard", None))
        x = inputs[name]
        if block.kind == "tokens":
            width = embedding_width(block.cardinality)
            label = self.layer_name(f"{name}_embedding")
            layer = Embedding(block.cardinality, width, mask_zero=True, name=label)
            return layer(x), layer.compute_mask(x)
        mask = None
        if mask_value is not None:
            layer = Masking(float(mask_value), name=self.layer_name(f"{name}_masking"))
            x, mask = layer(x), layer.compute_mask(x)
        return (x if scaling is None else _standardized_steps(x, name)), mask

    def outputs(self, x, *, members=False):
        """Append the output layer of the task.

        Parameters
        ----------
        x : keras.KerasTensor of shape (batch, width), or (batch, members, width)
            Output of the last hidden layer.

        members : bool, default=False
            Whether x holds several networks side by side. Each has output weights of its own, and
            the whole returns the mean of their outputs. In training the loss is computed for each
            member; metrics, early stopping and predictions use the mean.

        Returns
        -------
        keras.KerasTensor of shape (batch, units), float32
            Probabilities (sigmoid for two classes and for labels, softmax for several classes), or
            linear outputs of a regression or a reconstruction (positive ones for losses such as
            ``"poisson"``). The layer's name is ``"output"``. For several targets it concatenates
            the outputs of one layer per target, named ``"output_"`` and the target.
        """
        from keras.layers import Concatenate

        if members and (len(x.shape) != 3 or None in x.shape[1:]):
            raise ValueError(
                "outputs(x, members=True) takes a tensor of shape (batch, members, width), with a "
                f"known number of members; got {tuple(x.shape)}."
            )
        if not members and len(x.shape) != 2:
            raise ValueError(
                f"outputs takes a tensor of shape (batch, width); got {tuple(x.shape)}. Pool or "
                "flatten it first, for example with keras.layers.GlobalAveragePooling1D."
            )
        name = self.layer_name("output")
        if members:
            layers = member_parts(self)
            tensors = [_member_dense(part, self.layer_name(label), x)(x) for part, label in layers]
            return mean_of_members(self, tensors)
        outputs = [_dense(part, self.layer_name(label))(x) for part, label in output_parts(self)]
        if len(outputs) == 1:
            return outputs[0]
        return Concatenate(dtype="float32", name=name)(outputs)

    def _tabular(self, block):
        if block.kind not in ("numeric", "categorical"):
            raise ValueError(
                f"The block {block.name!r} has shape {(None, *block.shape)} (rank "
                f"{len(block.shape) + 1}), that of X or of `input_shape`; only tables of rank 2 "
                "can be joined. Write a recipe (SequenceEncoder is one, for sequences and tokens) "
                f"that first turns spec.inputs()[{block.name!r}] into (batch, width), with "
                "keras.layers.LSTM or keras.layers.Flatten, or pass a keras.Model."
            )
        return block


def output_parts(spec):
    """Each part of the output, and the name of its layer where no block has it."""
    return [(head, head.layer) for head in spec.heads] or [(spec, "output")]


def member_parts(spec):
    """Each part of the output, and the name of the layer of its members without activation."""
    return [(part, f"{label}_members") for part, label in output_parts(spec)]


def mean_of_members(spec, tensors):
    """The output of a network with members, from the tensors of the layers of `member_parts`."""
    from keras.layers import Activation, Concatenate, GlobalAveragePooling1D

    outputs = []
    for (part, label), tensor in zip(member_parts(spec), tensors, strict=True):
        name = spec.layer_name(f"{label}_activation")
        outputs.append(Activation(output_activation(part), dtype="float32", name=name)(tensor))
    joined = outputs[0]
    if len(outputs) > 1:
        joined = Concatenate(dtype="float32", name=spec.layer_name("members"))(outputs)
    return GlobalAveragePooling1D(dtype="float32", name=spec.layer_name("output"))(joined)
