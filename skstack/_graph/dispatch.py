"""Build one ``keras.Model`` of a fitted estimator, by the hooks of `GraphPart`.

Pipelines, FrozenEstimators and steps of scikit-learn, which have no hooks, are handled here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import keras
import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.pipeline import Pipeline

from skstack._graph.calibrated import calibrated_classes
from skstack._graph.categories import ENCODERS, apply_encoder, encoder_readers
from skstack._graph.formulas import Classes
from skstack._graph.inputs import RawColumns
from skstack._graph.onnx_parts import (
    ACCEPTED,
    is_onnx_part,
    onnx_parts,
    part_output,
    part_readers,
    with_parts,
    writes_onnx,
)
from skstack._graph.sklearn_steps import (
    apply_step,
    layer_maker,
    listed_steps,
    passes_nan,
    takes_nan,
    warn_of_far_columns,
)
from skstack._graph.tables import (
    GraphTable,
    concatenate_tables,
    function_layer,
    layer_name,
    numbers_of,
    refuse,
    select_columns,
    unique_names,
)
from skstack._training.isolation import preserve_rng
from skstack.preprocessing._pad_sequences import PadSequences

_ACCEPTED = (
    "KerasClassifier, KerasRegressor, KerasMultiTask, KerasAutoencoder, KerasFeatureTransformer, "
    "a stack"
)


class GraphPart(Protocol):
    """Hooks of a fitted estimator that can become layers."""

    def _graph(self, table: GraphTable, name: str, prefix: str) -> Any:
        """`Classes` for ``predict_proba``, or the result of ``predict`` or ``transform``.

        The names of its layers begin with ``name``; ``prefix`` is for parts with their own names.
        """

    def _graph_transform(self, table: GraphTable, name: str) -> GraphTable:
        """Result of ``transform``, for estimators that can be a step of a Pipeline."""

    def _graph_outputs(self, table: GraphTable) -> Any:
        """Output tensor of the whole model, if this estimator is exported."""

    def _column_readers(
        self, indices: np.ndarray, name: str, pad: PadSequences | None, transforms: bool
    ):
        """Yield (indices of columns, blocks or None for numbers, pad, whether NaN is imputed).

        ``transforms`` is whether the model has the result of ``transform``, and not of ``predict``.
        """


def fused_model(estimator, look_up="layers"):
    """Build one ``keras.Model`` of a fitted estimator; ``look_up`` as in `RawColumns.table`."""
    raw = raw_columns(estimator)
    with preserve_rng(), unique_names(raw.input_names):
        inputs, table = raw.table(look_up)
        outputs = whole_outputs(estimator, replace(table, single=fitted_on_float32(estimator)))
        return keras.Model(inputs, outputs, name=layer_name(type(estimator).__name__))


def model_with_parts(estimator):
    """The network of an ONNX file, whose inputs of strings are codes, and its `OnnxPart` list."""
    with onnx_parts() as parts:
        raw = raw_columns(estimator)
        with preserve_rng(), unique_names(raw.input_names):
            inputs, table = raw.table("codes")
            outputs = whole_outputs(estimator, replace(table, single=fitted_on_float32(estimator)))
            name = layer_name(type(estimator).__name__)
            return with_parts(inputs, outputs, parts, name), parts


def fitted_on_float32(part):
    """Whether the steps before a network were fitted on float32, as the network then was."""
    part = _unwrapped(part)
    if isinstance(part, Pipeline):
        return fitted_on_float32(part[-1])
    if isinstance(part, CalibratedClassifierCV):
        return fitted_on_float32(part.calibrated_classifiers_[0].estimator)
    if getattr(part, "upstream_", None):  # a stack
        return fitted_on_float32(part.upstream_[0][1])
    return getattr(part, "_float32", False)


def whole_outputs(part, table):
    """What a whole model returns: probabilities, values or features of a fitted estimator."""
    part = _unwrapped(part)
    if isinstance(part, Pipeline):
        return whole_outputs(part[-1], transformed(_earlier(part), table, ""))
    if hasattr(part, "_graph_outputs"):
        return part._graph_outputs(table)
    result = predicted(part, table, "network")
    return result.all("probabilities") if isinstance(result, Classes) else result


def _unwrapped(part):
    """The estimator whose probabilities, values or features are those of a fitted estimator."""
    if isinstance(part, FrozenEstimator):
        return _unwrapped(part.estimator)
    if isinstance(part, FixedThresholdClassifier | TunedThresholdClassifierCV):
        return _unwrapped(part.estimator_)
    if hasattr(part, "best_estimator_"):  # a search
        return _unwrapped(part.best_estimator_)
    return part


def _earlier(pipeline):
    """Steps of a Pipeline before the last, without samplers: they change no row to predict."""
    steps = listed_steps(pipeline[:-1])
    return [step for step in steps if not hasattr(step, "fit_resample")]


def predicted(part, table, name, prefix=""):
    """Predictions of a fitted part; see `GraphPart._graph`."""
    part = _unwrapped(part)
    if isinstance(part, Pipeline):
        return predicted(part[-1], transformed(_earlier(part), table, f"{name}_"), name, prefix)
    if isinstance(part, CalibratedClassifierCV):
        return calibrated_classes(
            part, name, lambda each, label: predicted(each, table, label, prefix)
        )
    if is_onnx_part(part):
        return part_output(part, table, name)
    if not hasattr(part, "_graph"):
        _refuse_estimator(part, name)
    return part._graph(table, name, prefix)


def transformed(steps, table, name):
    """A table after fitted steps, whose layers are named after their classes."""
    for step in steps:
        label = f"{name}{type(step).__name__.lower()}"
        if isinstance(step, PadSequences):
            continue  # padding is not part of the model: see `first_readers`
        if hasattr(step, "_graph_transform"):
            table = step._graph_transform(table, label)
        elif type(step) is ColumnTransformer:
            table = _transformed_columns(step, table, label)
        elif type(step) in ENCODERS:
            table = apply_encoder(step, table, label)
        else:
            if not table.single:
                warn_of_far_columns(step)
            table = apply_step(step, table, label)
    return table


def _column_steps(transformer):
    """Name, steps and indices of columns of each part of a fitted ColumnTransformer."""
    names = list(getattr(transformer, "feature_names_in_", ()))
    for name, step, columns in transformer.transformers_:
        if isinstance(step, str) and step == "drop":
            continue
        columns = [columns] if np.isscalar(columns) else columns
        if isinstance(columns, slice) and any(
            isinstance(end, str) for end in (columns.start, columns.stop)
        ):
            start, stop = columns.start, columns.stop
            stop = None if stop is None else names.index(stop) + 1
            columns = slice(None if start is None else names.index(start), stop)
        if not isinstance(columns, slice):
            columns = [names.index(each) if isinstance(each, str) else each for each in columns]
            columns = np.array(columns, dtype=None if columns else int)
        own = np.arange(transformer.n_features_in_)[columns]
        if len(own):
            yield name, listed_steps(step), own


def _transformed_columns(transformer, table, name):
    weights, parts = transformer.transformer_weights or {}, []
    for own, steps, indices in _column_steps(transformer):
        part = transformed(steps, select_columns(table, indices), f"{name}_")
        weight = weights.get(own)
        parts.append(part if weight is None else _weighted(part, weight, name))
    return replace(concatenate_tables(parts, f"{name}_table"), single=table.single)


def _weighted(table, weight, name):
    x = numbers_of(table, range(len(table.columns)), name, "ColumnTransformer")
    product = function_layer(f"{name}_weight", [x], lambda tensor: tensor * float(weight))
    return GraphTable.of(product, table.single)


def first_part(estimator):
    """The part that reads X: a Pipeline has no number of columns if its first step is a string."""
    first = _unwrapped(estimator)
    while isinstance(first, Pipeline):
        first = _unwrapped([*_earlier(first), first[-1]][0])
    return first


def raw_columns(estimator):
    """The columns of X as inputs of the model of a fitted estimator."""
    first = first_part(estimator)
    names, width = getattr(first, "feature_names_in_", None), first.n_features_in_
    return RawColumns(list(column_readers(estimator, np.arange(width))), width, names)


def column_readers(part, indices, name="network", pad=None, *, transforms=False):
    """Readers of some columns of X; see `GraphPart._column_readers`."""
    part = _unwrapped(part)
    if isinstance(part, Pipeline):
        steps = [*_earlier(part), *listed_steps(part[-1])]
        if steps:
            yield from first_readers(steps, indices, name, transforms=transforms)
    elif isinstance(part, CalibratedClassifierCV):
        for fold in part.calibrated_classifiers_:
            yield from column_readers(fold.estimator, indices, name, pad)
    elif hasattr(part, "_column_readers"):
        yield from part._column_readers(indices, name, pad, transforms)
    elif is_onnx_part(part):
        yield from part_readers(part, indices, name)
    elif hasattr(part, "transform") and not is_classifier(part) and not is_regressor(part):
        if type(part) is ColumnTransformer:
            for _, steps, own in _column_steps(part):
                if steps:
                    yield from first_readers(steps, indices[own], name, transforms=True)
                else:
                    yield indices[own], None, None, False
            return
        if type(part) in ENCODERS:
            yield from encoder_readers(part, indices)
            return
        layer_maker(part)  # raises for steps that cannot become layers
        yield indices, None, None, takes_nan(part)
    else:
        _refuse_estimator(part, name)


def first_readers(steps, indices, name, *, transforms=False):
    """Readers of the first step; sequences are padded before they are inputs of the model.

    ``transforms`` is whether the last step transforms, as those before it do.
    """
    first, *rest = steps
    pad = None
    if isinstance(first, PadSequences) and rest:
        pad, first, *rest = steps
    imputed = False
    if rest and _passes_nan(first):
        width = getattr(first_part(rest[0]), "n_features_in_", len(indices))
        later = first_readers(rest, np.arange(width), name, transforms=transforms)
        imputed = any(imputes for *_, imputes in later)
    readers = column_readers(first, indices, name, pad, transforms=transforms or bool(rest))
    for own, blocks, padding, imputes in readers:
        yield own, blocks, padding, imputes or imputed


def _passes_nan(step):
    if type(step) is ColumnTransformer:
        return any(all(map(_passes_nan, steps)) for _, steps, _ in _column_steps(step))
    return passes_nan(step)


def block_readers(blocks, indices, pad=None):
    """The reader of a network with these blocks."""
    imputes = any(getattr(blocks.part(b.name), "imputer", None) for b in blocks.blocks_)
    yield indices, blocks, pad, imputes


def passthrough_readers(passthrough, indices):
    """The reader of passthrough columns."""
    if passthrough.array_columns_.size:
        refuse("passthrough", "its columns must not hold arrays.")
    yield indices, passthrough.blocks_, None, passthrough.allow_nan


def _refuse_estimator(estimator, name):
    what = f"{type(estimator).__name__} (the part {name!r})"
    if writes_onnx():
        refuse(what, f"expected {_ACCEPTED}, {ACCEPTED}, or a Pipeline that ends in one.", "file")
    with onnx_parts():
        hint = " export(format='onnx') accepts it." if is_onnx_part(estimator) else ""
    refuse(
        what,
        f"it is not a network of skstack; expected {_ACCEPTED}, or a Pipeline that ends in one."
        + hint,
    )
