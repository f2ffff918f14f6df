"""Which engine trains a network: XLA, the plain graph, single steps, or Keras' own `fit`.

All criteria are here, so that they can be measured again on another device. The choice depends on
the network and the configuration only, never on what ran before, so that the same seed gives the
same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras

from skstack._training.keras_model import all_layers, embedded_inputs, is_builtin_keras
from skstack._training.members import MemberOutputs
from skstack._training.xla_layers import DROPOUTS, can_ignore_padding

# By tail. With XLA a small step takes about 0.15 ms less, and compilation 0.4 s more; most programs
# are reused, for many folds and candidates.
_STEPS_WORTH_XLA = {"masked": 100, "exact": 1_000}

# In a traced loop a small step takes about 0.4 ms less, and tracing 0.2 to 0.4 s more. The limit is
# low because most programs are reused.
_STEPS_WORTH_A_LOOP = 100

_ROW_BY_ROW = (
    "Activation Add Average AveragePooling1D AveragePooling2D Concatenate Conv1D Conv1DTranspose "
    "Conv2D Conv2DTranspose Cropping1D Cropping2D Dense DepthwiseConv1D DepthwiseConv2D Dot ELU "
    "EinsumDense Embedding Flatten GRU GlobalAveragePooling1D GlobalAveragePooling2D "
    "GlobalMaxPooling1D GlobalMaxPooling2D Identity InputLayer LSTM LayerNormalization LeakyReLU "
    "MaxPooling1D MaxPooling2D Maximum Minimum Multiply PReLU Permute ReLU RepeatVector Rescaling "
    "Reshape SimpleRNN Softmax Subtract UnitNormalization UpSampling1D UpSampling2D ZeroPadding1D "
    "ZeroPadding2D"
)
# Not in the list, because they depend on all rows of a batch: Dice, Tversky, Circle.
_MEANS = (
    "BinaryCrossentropy BinaryFocalCrossentropy CategoricalCrossentropy "
    "CategoricalFocalCrossentropy CategoricalHinge CosineSimilarity Hinge Huber KLDivergence "
    "LogCosh MeanAbsoluteError MeanAbsolutePercentageError MeanSquaredError "
    "MeanSquaredLogarithmicError Poisson SparseCategoricalCrossentropy SquaredHinge "
    "binary_crossentropy binary_focal_crossentropy categorical_crossentropy "
    "categorical_focal_crossentropy categorical_hinge cosine_similarity hinge huber kl_divergence "
    "log_cosh mean_absolute_error mean_absolute_percentage_error mean_squared_error "
    "mean_squared_logarithmic_error poisson sparse_categorical_crossentropy squared_hinge"
)


def _named(module, names):
    return frozenset(getattr(module, name) for name in names.split())


_ROW_BY_ROW_LAYERS = _named(keras.layers, _ROW_BY_ROW) | {MemberOutputs}
_MEAN_LOSSES = _named(keras.losses, _MEANS)
_AVERAGED = "sum_over_batch_size"


@dataclass(frozen=True)
class Engine:
    """A way to train: `name`, and with XLA the `tail`, see `TraceKey`."""

    name: str
    tail: str | None = None


MASKED, EXACT = Engine("xla", "masked"), Engine("xla", "exact")
GRAPH, STEPWISE, KERAS = Engine("graph"), Engine("stepwise"), Engine("keras")


def own_training(model) -> str | None:
    """Return why only Keras' own `fit` can train this model, or None."""
    for method in ("fit", "test_step", "evaluate", "make_train_function"):
        if getattr(type(model), method) is not getattr(keras.Model, method):
            return f"the model overrides `{method}`"
    return None


def has_own_train_step(model) -> bool:
    """Whether the model's class overrides `train_step`."""
    return type(model).train_step is not keras.Model.train_step


_BATCH_EVENTS = [
    "on_batch_begin",
    "on_batch_end",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_test_batch_begin",
    "on_test_batch_end",
    # Between training and validation, which are one call in the other engines.
    "on_test_begin",
    "on_test_end",
]


# Each epoch's loss is checked anyway.
_IGNORING_BATCHES = [keras.callbacks.Callback, keras.callbacks.TerminateOnNaN]


def watches_batches(callback) -> bool:
    """Whether a callback must be called within epochs, which are one call in the other engines."""
    idle = list(_IGNORING_BATCHES)
    if getattr(callback, "save_freq", None) == "epoch":
        idle.append(keras.callbacks.ModelCheckpoint)
    return any(
        event in vars(callback)
        or all(getattr(type(callback), event) is not getattr(each, event) for each in idle)
        for event in _BATCH_EVENTS
    )


def why_not_xla(model, *, own_step: bool) -> str | None:
    """Return why a model is not compiled with XLA, even on request, or None."""
    if own_step:
        return "the model overrides `train_step`"
    layers = all_layers(model)
    for layer in [model, *layers]:
        if layer.dtype_policy.name != "float32":
            return f"layer {layer.name!r} does not compute in float32"
    if any(map(_makes_mask, layers)) and any(isinstance(e, keras.layers.RNN) for e in layers):
        return "a recurrent layer has a mask"  # XLA cannot compile the gradient of its loop
    for layer in layers:
        if isinstance(layer, (keras.layers.LSTM, keras.layers.GRU)) and not _reads(layer, model):
            return (
                f"layer {layer.name!r} reads computed values"  # XLA cannot compile their gradient
            )
    # XLA silently replaces indices that do not exist: only known inputs can be checked.
    if embedded_inputs(model) is None:
        return "an embedding takes computed indices"
    for layer in [model, *layers]:
        if not is_builtin_keras(layer) and type(layer) is not MemberOutputs:
            return f"layer {layer.name!r} is not built into Keras and may take indices"
        if isinstance(layer, keras.layers.Lambda):
            return f"layer {layer.name!r} may take indices"
    for operation in _bare_operations(model):
        return f"operation {operation.name!r} may take indices"
    unused: set[int] = set()  # seeds from which Keras draws no random numbers
    for layer in layers:
        if type(layer) in DROPOUTS or _draws_nothing(layer):
            unused.update(id(variable) for variable in layer.variables)
    # Keras' own random numbers are slow with XLA on a CPU.
    if any("seed" in variable.path and id(variable) not in unused for variable in model.variables):
        return "a layer draws random numbers, which is slow with XLA"
    return None


def _reads(layer, model):
    """Whether a layer reads an input of the model directly; True if that is unknown."""
    try:
        return any(layer.input is tensor for tensor in model.inputs)
    except (AttributeError, ValueError, TypeError):  # inside a wrapper, or subclassed
        return True


def _makes_mask(layer):
    return getattr(layer, "mask_zero", False) or isinstance(layer, keras.layers.Masking)


_RECURRENT = (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)


def _draws_nothing(layer):
    return type(layer) in _RECURRENT and not layer.dropout and not layer.recurrent_dropout


def why_not_masked(model, loss, *, has_metrics: bool) -> str | None:
    """Return why the last batch of an epoch must not be padded with rows of weight 0, or None."""
    if not _plain(model):
        return "the model is subclassed"
    if has_metrics:
        return "metrics count rows"
    if not _averages(loss):
        return "the loss is not an average over rows"
    for operation in _bare_operations(model):
        return f"operation {operation.name!r} may mix rows"
    for layer in all_layers(model):
        known = type(layer) in _ROW_BY_ROW_LAYERS or type(layer) in DROPOUTS or _plain(layer)
        if not (known and _keeps_rows_apart(layer)) and not can_ignore_padding(layer):
            return f"layer {layer.name!r} may mix rows"
        if not all(_own_function(layer, name) for name in ("activation", "recurrent_activation")):
            return f"layer {layer.name!r} has an activation that may mix rows"
        if getattr(layer, "activity_regularizer", None) is not None:
            return f"layer {layer.name!r} has an activity regularizer"
        if _makes_mask(layer):
            return f"layer {layer.name!r} makes a mask"
        if getattr(layer, "stateful", False):
            return f"layer {layer.name!r} is stateful"
    return None


def _plain(model):
    """Whether it is a functional or sequential model of Keras' own classes."""
    return isinstance(model, keras.Model) and is_builtin_keras(model)


def _keeps_rows_apart(layer):
    axes = getattr(layer, "axis", getattr(layer, "axes", -1))
    axes = axes if isinstance(axes, (list, tuple)) else [axes]
    return all(axis == -1 or axis > 0 for axis in axes)


def _own_function(layer, name):
    function = getattr(layer, name, None)
    if isinstance(function, keras.layers.Layer):
        return type(function) in _ROW_BY_ROW_LAYERS and _keeps_rows_apart(function)
    module = getattr(function, "__module__", None) or type(function).__module__
    return function is None or module.partition(".")[0] == "keras"


def _bare_operations(model) -> list:
    """Return the functions of `keras.ops` in a functional model, which are not layers."""
    models = [model, *(layer for layer in all_layers(model) if isinstance(layer, keras.Model))]
    return [
        operation
        for each in models
        for operation in getattr(each, "operations", ())
        if not isinstance(operation, keras.layers.Layer) and not _is_elementwise(operation)
    ]


def _is_elementwise(operation):
    """Whether an operation takes no indices and keeps elements apart."""
    return is_builtin_keras(operation) and type(operation).__name__ == "Cos"


def _averages(loss):
    """Whether a loss is the mean of the losses of single rows.

    A loss with an attribute `row_averages_of` is such a mean if the losses in that attribute are.
    """
    try:
        known = keras.losses.get(loss) if isinstance(loss, str) else loss
    except ValueError:
        return False
    if hasattr(known, "row_averages_of"):
        return all(map(_averages, known.row_averages_of))
    if isinstance(known, keras.losses.Loss):
        whole = getattr(known, "ignore_class", None) is None and getattr(known, "axis", -1) == -1
        return type(known) in _MEAN_LOSSES and known.reduction == _AVERAGED and whole
    return known in _MEAN_LOSSES


def choose(program, config, n_steps: int) -> tuple[Engine, str | None]:
    """Choose the engine; return it with the reason why it is not XLA, if there is one.

    ==========  =======================================================================
    engine      chosen if
    ==========  =======================================================================
    "keras"     requested; overridden `test_step` or `fit`; callbacks called for batches
    "xla"       requested, or enough steps to pay for the compilation, unless
                `why_not_xla` gives a reason; the last batch of an epoch is "masked", or
                "exact" if `why_not_masked` gives a reason
    "graph"     requested, or "xla" in vain; enough steps to pay for tracing a loop over
                them, in this call or in those of ``partial_fit`` that follow
    "stepwise"  otherwise
    ==========  =======================================================================
    """
    needs_keras = own_training(program.model) or any(map(watches_batches, config.callbacks))
    if needs_keras or config.engine == "keras":
        return KERAS, None
    long = config.constant or n_steps >= _STEPS_WORTH_A_LOOP
    loop = config.engine in ("graph", "xla") or (config.engine == "auto" and long)
    without_xla = GRAPH if loop else STEPWISE
    if config.engine in ("graph", "stepwise"):
        return without_xla, None
    if program.why_not_xla is not None:
        return without_xla, program.why_not_xla
    engine = MASKED if program.masks else EXACT
    enough = program.key is not None and n_steps >= _STEPS_WORTH_XLA[str(engine.tail)]
    return (engine if enough or config.engine == "xla" else without_xla), None
