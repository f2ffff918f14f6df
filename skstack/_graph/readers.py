"""Who reads which columns of X: what the raw inputs of a network must hold."""

from __future__ import annotations

import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from skstack._estimators.base import NetworkEstimator
from skstack._features.adapters import ModelAdapter
from skstack._features.transformer import KerasFeatureTransformer
from skstack._graph.inputs import RawColumns
from skstack._graph.sklearn_steps import is_nothing, listed_steps, maker_of, takes_nan
from skstack._graph.tables import refuse
from skstack._stack.base import Stack
from skstack.preprocessing._pad_sequences import PadSequences

_OURS = "KerasClassifier, KerasRegressor, KerasAutoencoder, KerasFeatureTransformer, the stacks"


def raw_columns(estimator):
    """How a fitted estimator reads the columns of X."""
    names = getattr(estimator, "feature_names_in_", None)
    readers, fills = [], []
    for *reader, filled in _readers(estimator, np.arange(estimator.n_features_in_)):
        readers.append(tuple(reader))
        fills.append(filled)
    return RawColumns(readers, estimator.n_features_in_, names, takes_nan=any(fills))


def _readers(part, places, name="network", pad=None):
    """(positions, blocks or None for numbers, what pads, whether missing numbers are filled in)."""
    if isinstance(part, FrozenEstimator):
        yield from _readers(part.estimator, places, name, pad)
    elif isinstance(part, Pipeline):
        steps = [step for _, step in part.steps if not is_nothing(step)]
        if steps:
            yield from _first_of(steps, places, name)
    elif isinstance(part, NetworkEstimator | ModelAdapter):
        blocks = part.blocks_ if isinstance(part, NetworkEstimator) else part.blocks
        filled = any(getattr(blocks.part(b.name), "imputer", None) for b in blocks.blocks_)
        yield places, blocks, pad, filled
        if getattr(part, "_guide", None) is not None:
            yield from _teacher_readers(part._guide, places, name)
    elif isinstance(part, KerasFeatureTransformer):
        for upstream in part._upstreams:
            steps = [] if upstream.steps is None else listed_steps(upstream.steps)
            last = getattr(upstream.view, "estimator", upstream.view)
            yield from _first_of([*steps, last], places, name)
        if part.passthrough:
            yield from _passed_readers(part._passed, places)
    elif isinstance(part, Stack):
        for name, fitted, _ in part.upstream_:
            yield from _readers(fitted, places[part._branch_places[name]], name)
        if part._passed is not None:
            yield from _passed_readers(part._passed, places[part._passed_places])
    elif hasattr(part, "transform") and not is_classifier(part) and not is_regressor(part):
        maker_of(part)  # or it is refused
        yield places, None, None, takes_nan(part)
    else:
        refuse_estimator(part, name)


def _first_of(steps, places, name):
    """Readers behind what pads: rows are padded before they come in."""
    first, *rest = steps
    if isinstance(first, PadSequences) and rest:
        yield from _readers(rest[0], places, name, first)
    else:
        yield from _readers(first, places, name)


def _teacher_readers(guide, places, name):
    places = places if guide.places is None else places[guide.places]
    if guide.estimator is not None:
        yield from _readers(guide.estimator, places, f"{name}_teacher")
    elif guide.blocks is not None:
        yield places, guide.blocks, None, False


def _passed_readers(part, places):
    if part.cells_.size:
        refuse("passthrough", "columns whose cells hold arrays do not pass through.")
    yield places, part.blocks_, None, part.allow_nan


def refuse_estimator(estimator, name):
    """Say that an estimator is no network."""
    refuse(
        f"{type(estimator).__name__} (the part {name!r})",
        f"it is no network of skstack. Accepted are {_OURS}, and Pipelines that end in one.",
    )
