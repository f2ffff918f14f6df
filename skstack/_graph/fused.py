"""From a fitted estimator to one ``keras.Model``: raw columns in, predictions out."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial

import keras
import numpy as np
from keras import ops
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from skstack._estimators.autoencoder import KerasAutoencoder
from skstack._estimators.base import NetworkEstimator
from skstack._estimators.classifier import KerasClassifier
from skstack._estimators.regressor import KerasRegressor
from skstack._features.adapters import ModelAdapter
from skstack._features.transformer import KerasFeatureTransformer
from skstack._graph.formulas import (
    Classes,
    as_columns,
    log_odds_of,
    of_classes,
    of_odds,
    squared_difference,
)
from skstack._graph.networks import called
from skstack._graph.readers import raw_columns, refuse_estimator
from skstack._graph.sklearn_steps import listed_steps, scaled
from skstack._graph.tables import (
    CodedColumn,
    GraphTable,
    affine,
    arrays,
    beside,
    grouped,
    joined,
    layer_name,
    numbers_of,
    passed,
    refuse,
    taken,
    unique_names,
)
from skstack._stack.base import Stack
from skstack._stack.stacked import StackedKerasClassifier, StackedKerasRegressor
from skstack._training.seeds import preserve_rng
from skstack.losses._teacher_networks import TEACHER
from skstack.preprocessing._pad_sequences import PadSequences


def fused_model(estimator, look_up="layers"):
    """One model of all that a fitted estimator does with rows.

    Parameters
    ----------
    estimator : estimator
        Of ours, fitted.

    look_up : str
        As in ``RawColumns.table``.

    Returns
    -------
    keras.Model

    Raises
    ------
    ValueError
        If a part of the estimator is no network and no layer; the message names it.
    """
    raw = raw_columns(estimator)
    with preserve_rng(), unique_names(raw.input_names):
        inputs, table = raw.table(look_up)
        outputs = _outputs(estimator, table)
        return keras.Model(inputs, outputs, name=layer_name(type(estimator).__name__))


def _outputs(estimator, table):
    if isinstance(estimator, KerasClassifier | StackedKerasClassifier):
        last = "network" if isinstance(estimator, KerasClassifier) else "downstream"
        return _classes(estimator, table, last, "").all("probabilities")
    if isinstance(estimator, KerasRegressor | StackedKerasRegressor):
        last = "network" if isinstance(estimator, KerasRegressor) else "downstream"
        return _values(estimator, table, last, "")
    if isinstance(estimator, KerasAutoencoder):
        return _latent(estimator, table, "encoder")
    made = _features(estimator, table, "network", whole="features_out")
    return numbers_of(
        made,
        range(len(made.columns)),
        "features",
        f"{type(estimator).__name__}(passthrough=True)",
    )


def _after(steps, table, name):
    """A table behind some steps, each a layer named by its class."""
    for step in steps:
        label = f"{name}{type(step).__name__.lower()}"
        if isinstance(step, PadSequences):
            continue  # see `_first_of`
        if isinstance(step, KerasFeatureTransformer):
            table = _features(step, table, label)
        elif isinstance(step, KerasAutoencoder):
            table = GraphTable.of(_latent(step, table, label))
        elif isinstance(step, Stack):
            table = _stack_table(step, table, f"{label}_")
        else:
            table = scaled(step, table, label)
    return table


def _classes(estimator, table, name, prefix):
    """Probabilities of a fitted classifier."""
    if isinstance(estimator, FrozenEstimator):
        return _classes(estimator.estimator, table, name, prefix)
    if isinstance(estimator, Pipeline):
        table = _after(listed_steps(estimator[:-1]), table, f"{name}_")
        return _classes(estimator[-1], table, name, prefix)
    if isinstance(estimator, StackedKerasClassifier):
        table = _stack_table(estimator, table, prefix)
        found = _classes(estimator.downstream_, table, f"{prefix}downstream", prefix)
        if estimator.prior_correction and estimator.sampler_ is not None:
            found = found.corrected(estimator._prior_ratio, f"{name}_priors")
        return found
    if not isinstance(estimator, KerasClassifier):
        refuse_estimator(estimator, name)
    return _classes_of(estimator, _network(estimator, table, name)[1][0], name)


def _classes_of(estimator, p, name):
    """Probabilities from the output of a KerasClassifier's network."""
    p = as_columns(p, "flatten", name)
    single = p.shape[1] == 1 and estimator._target_type != "multilabel-indicator"
    found = Classes(p, single)
    if estimator.prior_correction and hasattr(estimator, "prior_ratio_"):
        found = found.corrected(estimator.prior_ratio_, f"{name}_priors")
    return found


def _values(estimator, table, name, prefix):
    """Predictions of a fitted regressor, of shape (batch, n_targets)."""
    if isinstance(estimator, FrozenEstimator):
        return _values(estimator.estimator, table, name, prefix)
    if isinstance(estimator, Pipeline):
        table = _after(listed_steps(estimator[:-1]), table, f"{name}_")
        return _values(estimator[-1], table, name, prefix)
    if isinstance(estimator, StackedKerasRegressor):
        table = _stack_table(estimator, table, prefix)
        return _values(estimator.downstream_, table, f"{prefix}downstream", prefix)
    if not isinstance(estimator, KerasRegressor):
        refuse_estimator(estimator, name)
    return as_columns(_network(estimator, table, name)[1][0], "flatten", name)


def _latent(estimator, table, name):
    """The latent of a fitted autoencoder, of shape (batch, n_latent)."""
    layers = (estimator.latent_layer_,)
    _, _, (latent,) = _network(estimator, table, name, layers=layers, ends=False)
    return as_columns(latent, "flatten", name)


def _network(estimator, table, name, *, layers=(), ends=True, network=None, pooling=None):
    """What goes into a network, its outputs, and what its inner layers return."""
    tensors = arrays(table, estimator.blocks_, name, f"{type(estimator).__name__} {name!r}")
    network = estimator.network_ if network is None else network
    settings = {"layers": layers, "ends": ends, "pooling": pooling}
    given = tensors
    if estimator._guide is not None:
        given = {**tensors, TEACHER: _teacher(estimator, table, tensors, f"{name}_teacher")}
    return tensors, *called(network, given, name, finish=estimator._finish_model, **settings)


def _teacher(estimator, table, tensors, name):
    """What a network's teacher gives it; see ``losses``."""
    guide = estimator._guide
    table = table if guide.places is None else taken(table, guide.places)
    if guide.estimator is None:
        if guide.blocks is not None:
            tensors = arrays(table, guide.blocks, name, f"The teacher {name!r}")
        found = as_columns(called(guide.network, tensors, name)[0][0], "flatten", name)
        classes = Classes(found, found.shape[1] == 1 and guide.task != "multilabel")
    elif guide.task == "regression":
        found = _values(guide.estimator, table, name, f"{name}_")
    else:
        classes = _classes(guide.estimator, table, name, f"{name}_")
        if guide.order is not None and guide.order != sorted(guide.order):
            order, p = np.int32(guide.order), classes.all(f"{name}_all")
            classes = Classes(grouped(f"{name}_order", [p], lambda p: ops.take(p, order, axis=1)))
    if guide.task == "regression":
        scale = estimator.target_scale_
        return affine(found, estimator.target_mean_, 1.0 / scale, 0.0, f"{name}_standardised")
    found = classes.second(name) if guide.task == "binary" else classes.all(f"{name}_classes")
    if guide.mode == "blend":
        return found
    return of_odds(found, guide.task == "multiclass", f"{name}_log_odds")


def _stack_table(stack, table, prefix):
    """The table that a stack's downstream sees."""
    if getattr(stack, "_float64", False):
        warnings.warn(
            f"{type(stack).__name__} scales columns, or features, in float64, for they lie far "
            "from 0; a keras.Model computes in float32, which loses their digits. Subtract an "
            "offset from them before the fit.",
            UserWarning,
            stacklevel=2,
        )
    parts = [
        _features(fitted, taken(table, stack._branch_places[name]), f"{prefix}{name}")
        for name, fitted, _ in stack.upstream_
    ]
    if stack._passed is not None:
        part = taken(table, stack._passed_places)
        parts.append(passed(part, stack._passed.blocks_, f"{prefix}passthrough", "passthrough"))
    return behind_scaler(stack, beside(parts, f"{prefix}table"), prefix)


def behind_scaler(stack, made, prefix):
    """A table of features and columns as a stack's scaler makes it."""
    numeric = made.numeric_places
    steps = [] if stack.scaler_ is None else listed_steps(stack.scaler_)
    if not numeric or not steps:
        return made
    found = GraphTable.of(numbers_of(made, numeric, f"{prefix}table", "scaler"))
    label = f"{prefix}scaler"
    for place, step in enumerate(steps):
        found = scaled(step, found, label if len(steps) == 1 else f"{label}_{place}")
    columns = list(made.columns)
    for number, place in enumerate(numeric):
        columns[place] = number
    return GraphTable(columns, found.numeric)


def _features(transformer, table, name, whole=None):
    """The table that a fitted KerasFeatureTransformer makes."""
    wanted = transformer._wanted
    table = replace(table, single=transformer._float32)
    several = len(transformer._upstreams) > 1
    each = []
    for place, upstream in enumerate(transformer._upstreams):
        own = f"{name}_fold_{place}" if several else name
        each.append(of_upstream(upstream, table, wanted, own))
    if several:
        each = [joined(found, f"{name}_fold_{i}_features") for i, found in enumerate(each)]
        mean = keras.layers.Average(name=layer_name(f"{name}_mean"), dtype="float32")(each)
        parts = [GraphTable.of(mean)]
    elif any(isinstance(part, CodedColumn) for part in each[0]):
        parts = [
            GraphTable([p]) if isinstance(p, CodedColumn) else GraphTable.of(p) for p in each[0]
        ]
    else:
        parts = [GraphTable.of(joined(each[0], f"{name}_features"))]
    if transformer.passthrough:
        reader = f"{type(transformer).__name__}(passthrough=True)"
        parts.append(passed(table, transformer._passed.blocks_, f"{name}_passthrough", reader))
    return beside(parts, whole or f"{name}_table")


def of_upstream(upstream, table, wanted, name):
    """Features of one fitted upstream, as ``stages.columns_of`` orders them."""
    if upstream.steps is not None:
        table = _after(listed_steps(upstream.steps), table, f"{name}_")
    view = upstream.view
    frozen = isinstance(view, ModelAdapter)
    make = _of_model if frozen else _of_estimator
    found = make(view, table, wanted, name)
    if wanted.steps_output:
        found.append(numbers_of(table, range(len(table.columns)), f"{name}_steps", name))
    return found


def _of_model(view, table, wanted, name):
    """Features of a frozen ``keras.Model``."""
    tensors = arrays(table, view.blocks, name, f"The model {name!r}")
    exact = view.logits_network() if "log_odds" in wanted.features else None
    outputs, inner = called(
        view.network if exact is None else exact,
        tensors,
        name,
        layers=wanted.layers,
        ends=bool(wanted.features),
        pooling=None if "reconstruction_error" in wanted.features else wanted.pooling,
    )
    found, logits = [], None
    if exact is not None:
        logits, outputs = outputs[0], [_sigmoid(outputs[0], wanted, name)]
    for feature in wanted.features:
        if feature == "outputs":
            found += [
                as_columns(tensor, wanted.pooling, f"{name}_{output}")
                for output, tensor in zip(view.names, outputs, strict=True)
            ]
        elif feature == "reconstruction_error":
            (given,) = tensors.values()
            found.append(squared_difference(given, outputs[0], f"{name}_{feature}"))
        elif feature == "codes":
            single = outputs[0].shape[1:] == (1,)
            if single and view.logits_network() is None:
                refuse(f"The part {name!r}", "features='codes' of one output that is no sigmoid.")
            found.append(_codes(outputs[0], name))
        elif feature == "log_odds" and logits is not None:
            found.append(log_odds_of(logits, 0.0, f"{name}_log_odds"))
        else:
            classes = Classes(outputs[0], outputs[0].shape[1] == 1)
            found.append(of_classes(feature, classes, name, binary=classes.n == 2))
    return found + _pooled(inner, wanted, name)


def _of_estimator(view, table, wanted, name):
    """Features of a fitted estimator of ours."""
    estimator = view.estimator
    if "codes" in wanted.features and view.classes is None:
        refuse(f"The part {name!r}", "features='codes' of what is no classifier.")
    latent, inner, tensors, ends, logits = (), [], None, None, None
    exact = None
    if "log_odds" in wanted.features and isinstance(estimator, KerasClassifier):
        exact = estimator._logits_network()
    if isinstance(estimator, NetworkEstimator):
        encodes = isinstance(estimator, KerasAutoencoder)
        latent = (estimator.latent_layer_,) if encodes and "outputs" in wanted.features else ()
        only_latent = encodes and "reconstruction_error" not in wanted.features
        tensors, ends, inner = _network(
            estimator,
            table,
            name,
            layers=(*latent, *wanted.layers),
            ends=bool(wanted.features) and not only_latent,
            network=exact,
            pooling=None if encodes else wanted.pooling,
        )
        if exact is not None:
            logits, ends = as_columns(ends[0], "flatten", name), [_sigmoid(ends[0], wanted, name)]
        latent, inner = inner[: len(latent)], inner[len(latent) :]
    found, classes = [], None
    for feature in wanted.features:
        if feature == "reconstruction_error":
            found.append(_error(estimator, tensors, ends[0], name))
        elif feature == "outputs" and latent:
            found.append(as_columns(latent[0], "flatten", f"{name}_latent"))
        elif feature == "outputs" and isinstance(estimator, KerasRegressor):
            found.append(as_columns(ends[0], "flatten", name))
        elif feature == "outputs" and isinstance(estimator, StackedKerasRegressor):
            found.append(_values(estimator, table, name, f"{name}_"))
        elif feature == "outputs" and isinstance(estimator, KerasFeatureTransformer):
            made = _features(estimator, table, name)
            found.append(numbers_of(made, range(len(made.columns)), name, f"The part {name!r}"))
        elif feature == "log_odds" and logits is not None:
            found.append(log_odds_of(logits, estimator._prior_shift(), f"{name}_log_odds"))
        else:
            if classes is None:
                classes = _classes_within(estimator, table, ends, name)
            if view.classes is not None and len(view.classes) != classes.n:
                refuse(f"The part {name!r}", "one of its folds lacks classes.")
            if feature == "codes":
                found.append(_codes(classes.tensor, name))
                continue
            exclusive = view.classes is not None
            binary = exclusive and classes.n == 2
            found.append(of_classes(feature, classes, name, binary=binary, exclusive=exclusive))
    return found + _pooled(inner, wanted, name)


def _sigmoid(logits, wanted, name):
    """Probabilities, where there is more to be made of them than their log-odds."""
    if set(wanted.features) == {"log_odds"}:
        return None
    return grouped(f"{name}_sigmoid", [logits], ops.sigmoid)


def _classes_within(estimator, table, ends, name):
    if isinstance(estimator, KerasClassifier):
        return _classes_of(estimator, ends[0], name)
    return _classes(estimator, table, name, f"{name}_")


def _codes(outputs, name):
    """Numbers of the largest output of each row, as categories."""
    if len(outputs.shape) != 2:
        refuse(f"The part {name!r}", "features='codes' of an output of rank 3 and more.")
    n_codes = max(2, outputs.shape[1])

    def codes(x):
        # One output is the probability of the second of two classes.
        number = ops.argmax(x, axis=1) if x.shape[1] > 1 else ops.greater(x[:, 0], 0.5)
        return ops.cast(number, "int32") + 2

    def numbers(x):
        return ops.cast(ops.reshape(x, (-1, 1)) - 2, "float32")

    known = range(n_codes)  # and nothing else comes
    found = grouped(f"{name}_codes", [outputs], codes)
    as_number = partial(grouped, f"{name}_code_numbers", [found], numbers)
    return CodedColumn(found, [*known], number=as_number, kept=frozenset(known))


def _pooled(tensors, wanted, name):
    """Inner layers as columns."""
    names = [layer.replace("/", "_") for layer in wanted.layers]
    return [
        as_columns(tensor, wanted.pooling, f"{name}_{layer}")
        for layer, tensor in zip(names, tensors, strict=True)
    ]


def _error(estimator, tensors, rebuilt, name):
    """``KerasAutoencoder.reconstruction_error``, of shape (batch, 1)."""
    words = {b.name: b.cardinality for b in estimator.blocks_.blocks_ if b.kind == "categorical"}
    parts = dict(tensors)
    if words:
        encoded = grouped(
            f"{name}_one_hot",
            [tensors[block] for block in words],
            lambda *codes: [
                ops.one_hot(x, n, dtype="float32")
                for x, n in zip(codes, words.values(), strict=True)
            ],
        )
        parts.update(zip(words, keras.tree.flatten(encoded), strict=True))
    factors = []
    for block in estimator.blocks_.blocks_:
        width = block.cardinality or block.shape[0]
        mean, scale = estimator.moments_.get(block.name, (0.0, np.ones(width)))
        if block.kind == "numeric" and estimator._standardized:
            label = f"{name}_{block.name}_standardised"
            parts[block.name] = affine(parts[block.name], mean, 1.0 / scale, 0.0, label)
        factors.append(1.0 / scale if block.kind == "numeric" else np.ones(width))
    given = joined(list(parts.values()), f"{name}_targets")
    if estimator.moments_ and not estimator._standardized:
        factor = np.concatenate(factors)
        given = affine(given, 0.0, factor, 0.0, f"{name}_given")
        rebuilt = affine(rebuilt, 0.0, factor, 0.0, f"{name}_rebuilt")
    return squared_difference(given, rebuilt, f"{name}_reconstruction_error")
