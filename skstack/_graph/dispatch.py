"""A fitted estimator becomes layers: Pipelines, scikit-learn's steps, and the hooks of our classes.

This file knows no estimator. Each class of ours that can become layers implements `GraphPart`.
"""

from __future__ import annotations

from typing import Any, Protocol

import keras
import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from skstack._graph.inputs import RawColumns
from skstack._graph.sklearn_steps import is_nothing, listed_steps, maker_of, scaled, takes_nan
from skstack._graph.tables import GraphTable, layer_name, refuse, unique_names
from skstack._training.seeds import preserve_rng
from skstack.preprocessing._pad_sequences import PadSequences

_OURS = "KerasClassifier, KerasRegressor, KerasAutoencoder, KerasFeatureTransformer, the stacks"


class GraphPart(Protocol):
    """What a fitted estimator implements to become layers of one ``keras.Model``."""

    def _graph(self, table: GraphTable, name: str, prefix: str) -> Any:
        """Result of ``predict_proba`` (`Classes`), ``predict`` (a tensor) or ``transform``.

        ``name`` begins the names of its own layers, ``prefix`` those of parts with their own names.
        """

    def _graph_transform(self, table: GraphTable, name: str) -> GraphTable:
        """Result of ``transform``; only of estimators that can be a step of a Pipeline."""

    def _graph_outputs(self, table: GraphTable) -> Any:
        """The output tensor of the whole model, if this is the exported estimator."""

    def _column_readers(self, indices: np.ndarray, name: str, pad: PadSequences | None):
        """Iterate over (indices of columns, blocks or None for numbers, pad, fills in NaN)."""


def fused_model(estimator, look_up="layers"):
    """Build one ``keras.Model`` of a fitted estimator; ``look_up`` as in ``RawColumns.table``.

    Raises
    ------
    ValueError
        If a part of the estimator cannot become a layer; the message names the part.
    """
    raw = raw_columns(estimator)
    with preserve_rng(), unique_names(raw.input_names):
        inputs, table = raw.table(look_up)
        outputs = estimator._graph_outputs(table)
        return keras.Model(inputs, outputs, name=layer_name(type(estimator).__name__))


def computed(part, table, name, prefix=""):
    """Predictions of a fitted part, as its hook ``_graph`` gives them."""
    if isinstance(part, FrozenEstimator):
        return computed(part.estimator, table, name, prefix)
    if isinstance(part, Pipeline):
        table = transformed(listed_steps(part[:-1]), table, f"{name}_")
        return computed(part[-1], table, name, prefix)
    if not hasattr(part, "_graph"):
        _refuse_estimator(part, name)
    return part._graph(table, name, prefix)


def transformed(steps, table, name):
    """A table after some fitted steps, each a layer named after its class."""
    for step in steps:
        label = f"{name}{type(step).__name__.lower()}"
        if isinstance(step, PadSequences):
            continue  # rows are padded before they reach the model: see `first_readers`
        if hasattr(step, "_graph_transform"):
            table = step._graph_transform(table, label)
        else:
            table = scaled(step, table, label)
    return table


def raw_columns(estimator):
    """How a fitted estimator reads the columns of X."""
    names = getattr(estimator, "feature_names_in_", None)
    readers, fills = [], []
    for *reader, filled in column_readers(estimator, np.arange(estimator.n_features_in_)):
        readers.append(tuple(reader))
        fills.append(filled)
    return RawColumns(readers, estimator.n_features_in_, names, takes_nan=any(fills))


def column_readers(part, indices, name="network", pad=None):
    """Readers of some columns of X, as in `GraphPart._column_readers`."""
    if isinstance(part, FrozenEstimator):
        yield from column_readers(part.estimator, indices, name, pad)
    elif isinstance(part, Pipeline):
        steps = [step for _, step in part.steps if not is_nothing(step)]
        if steps:
            yield from first_readers(steps, indices, name)
    elif hasattr(part, "_column_readers"):
        yield from part._column_readers(indices, name, pad)
    elif hasattr(part, "transform") and not is_classifier(part) and not is_regressor(part):
        maker_of(part)  # raises for steps that cannot become layers
        yield indices, None, None, takes_nan(part)
    else:
        _refuse_estimator(part, name)


def first_readers(steps, indices, name):
    """Readers of the first step; sequences are padded before they reach the model."""
    first, *rest = steps
    if isinstance(first, PadSequences) and rest:
        yield from column_readers(rest[0], indices, name, first)
    else:
        yield from column_readers(first, indices, name)


def block_readers(blocks, indices, pad=None):
    """The reader of a network with these blocks."""
    filled = any(getattr(blocks.part(b.name), "imputer", None) for b in blocks.blocks_)
    yield indices, blocks, pad, filled


def passthrough_readers(passthrough, indices):
    """The reader of columns that pass through."""
    if passthrough.array_columns_.size:
        refuse("passthrough", "columns whose cells hold arrays do not pass through.")
    yield indices, passthrough.blocks_, None, passthrough.allow_nan


def _refuse_estimator(estimator, name):
    refuse(
        f"{type(estimator).__name__} (the part {name!r})",
        f"it is no network of skstack. Accepted are {_OURS}, and Pipelines that end in one.",
    )
