"""Which road a fit takes: XLA, the plain graph, or Keras' own `fit`.

All that decides is written here, as a table that can be measured again on another device. The
choice depends on the network and the plan alone, never on what ran before, so that the same seed
gives the same bits.
"""

from __future__ import annotations

import keras

# With XLA a small step costs about 0.15 ms less and the compilation 0.7 s more; most programs are
# used again.
_STEPS_WORTH_XLA = 2_000

_ROW_BY_ROW = [
    "Activation",
    "Add",
    "Average",
    "AveragePooling1D",
    "AveragePooling2D",
    "Concatenate",
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "Cropping1D",
    "Cropping2D",
    "Dense",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "Dot",
    "ELU",
    "EinsumDense",
    "Embedding",
    "Flatten",
    "GRU",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "Identity",
    "InputLayer",
    "LSTM",
    "LayerNormalization",
    "LeakyReLU",
    "MaxPooling1D",
    "MaxPooling2D",
    "Maximum",
    "Minimum",
    "Multiply",
    "PReLU",
    "Permute",
    "ReLU",
    "RepeatVector",
    "Rescaling",
    "Reshape",
    "SimpleRNN",
    "Softmax",
    "Subtract",
    "UpSampling1D",
    "UpSampling2D",
    "ZeroPadding1D",
    "ZeroPadding2D",
]
_ROW_BY_ROW_LAYERS = frozenset(getattr(keras.layers, name) for name in _ROW_BY_ROW)
_AVERAGED = "sum_over_batch_size"


def own_training(model) -> str | None:
    """Why only Keras' own `fit` can train this model, or None."""
    for method in ("fit", "train_step", "test_step", "evaluate", "make_train_function"):
        if getattr(type(model), method) is not getattr(keras.Model, method):
            return f"the model has a `{method}` of its own"
    return None


_BATCH_EVENTS = [
    "on_batch_begin",
    "on_batch_end",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_test_batch_begin",
    "on_test_batch_end",
]


def watches_batches(callback) -> bool:
    """Whether a callback wants to be called within epochs."""
    if isinstance(callback, keras.callbacks.ModelCheckpoint):
        return callback.save_freq != "epoch"
    return any(
        getattr(type(callback), event) is not getattr(keras.callbacks.Callback, event)
        for event in _BATCH_EVENTS
    ) or (
        isinstance(callback, keras.callbacks.LambdaCallback)
        and any(event in vars(callback) for event in _BATCH_EVENTS)
    )


def why_not_xla(model, loss, *, has_metrics: bool) -> str | None:
    """Why XLA cannot mask the last batch of this network, or None."""
    if not _plain(model):
        return "the model is subclassed"
    if has_metrics:
        return "metrics count rows"
    if not _averages(loss):
        return "the loss is not an average over rows"
    for operation in _bare_operations(model):
        return f"operation {operation.name!r} may mix rows"
    for layer in all_layers(model):
        if type(layer) not in _ROW_BY_ROW_LAYERS and not _plain(layer):
            return f"layer {layer.name!r} may mix rows or draw random numbers"
        if not all(_own_function(layer, name) for name in ("activation", "recurrent_activation")):
            return f"layer {layer.name!r} has an activation that may mix rows"
        if getattr(layer, "activity_regularizer", None) is not None:
            return f"layer {layer.name!r} has an activity regularizer"
        if getattr(layer, "mask_zero", False):
            return f"layer {layer.name!r} makes a mask"
        if layer.dtype_policy.name != "float32":
            return f"layer {layer.name!r} does not compute in float32"
        if type(layer) in _RECURRENT and (layer.dropout or layer.recurrent_dropout):
            return f"layer {layer.name!r} draws random numbers"
        if getattr(layer, "stateful", False):
            return f"layer {layer.name!r} is stateful"
    return None


def _plain(model):
    """Whether a functional or sequential model, not a class of the user's."""
    return isinstance(model, keras.Model) and type(model).__module__.partition(".")[0] == "keras"


_RECURRENT = (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)


def _own_function(layer, name):
    function = getattr(layer, name, None)
    module = getattr(function, "__module__", None) or type(function).__module__
    return function is None or module.partition(".")[0] == "keras"


def _bare_operations(model) -> list:
    """Functions of `keras.ops` in a functional model, which are no layers."""
    models = [model, *(layer for layer in all_layers(model) if isinstance(layer, keras.Model))]
    return [
        operation
        for each in models
        for operation in getattr(each, "operations", ())
        if not isinstance(operation, keras.layers.Layer)
    ]


def _averages(loss):
    try:
        known = keras.losses.get(loss) if isinstance(loss, str) else loss
    except ValueError:
        return False
    if isinstance(known, keras.losses.Loss):
        return type(known).__module__.startswith("keras.") and known.reduction == _AVERAGED
    return isinstance(loss, str)


def all_layers(model) -> list:
    """Layers of a model and of the models inside it."""
    layers = []
    for layer in model.layers:
        layers.append(layer)
        if isinstance(layer, keras.Model):
            layers.extend(all_layers(layer))
    return layers


def choose(program, plan, n_steps: int) -> tuple[str, str | None]:
    """Choose the road; with the reason, where it is one to tell.

    ========  =========================================================================
    road      taken when
    ========  =========================================================================
    "keras"   asked for; own `train_step`; callbacks that watch batches
    "xla"     asked for, or enough steps to pay for the compilation, and the network
              works row by row (see `why_not_xla`) and may be used again
    "graph"   otherwise
    ========  =========================================================================
    """
    reason = own_training(program.model)
    if reason is None and any(watches_batches(callback) for callback in plan.callbacks):
        reason = "a callback watches batches"
    if reason is not None or plan.engine == "keras":
        return "keras", None
    wants_xla = plan.engine == "xla" or (
        plan.engine == "auto" and program.key is not None and n_steps >= _STEPS_WORTH_XLA
    )
    if not wants_xla:
        return "graph", None
    reason = why_not_xla(program.model, program.loss, has_metrics=program.has_metrics)
    return ("xla", None) if reason is None else ("graph", reason)
