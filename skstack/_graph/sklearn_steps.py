"""Steps of scikit-learn before, between and behind networks, as layers."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops
from sklearn.decomposition import PCA
from sklearn.feature_selection import SelectorMixin
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)

from skstack._graph.tables import GraphTable, affine, grouped, layer_name, numbers_of, refuse

_ACCEPTED = (
    "StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, SimpleImputer, PCA, selectors of "
    "columns, FunctionTransformer() and Pipelines of these"
)


def listed_steps(step):
    """What a step consists of: Pipelines laid open, what is frozen taken out."""
    if isinstance(step, FrozenEstimator):
        return listed_steps(step.estimator)
    if isinstance(step, Pipeline):
        return [inner for _, each in step.steps for inner in listed_steps(each)]
    return [] if is_nothing(step) else [step]


def is_nothing(step):
    """Whether a step of a Pipeline hands on what it gets."""
    if type(step) is FunctionTransformer:
        return step.func is None
    return step is None or isinstance(step, str)


def takes_nan(step):
    """Whether a step fills in missing numbers."""
    return type(step) is SimpleImputer


def maker_of(step):
    """The function that makes a layer of a step; a step that has none is refused by name."""
    maker = {
        StandardScaler: _standard,
        MinMaxScaler: _min_max,
        MaxAbsScaler: _max_abs,
        RobustScaler: _robust,
        SimpleImputer: _imputed,
        PCA: _turned,
    }.get(type(step))
    if maker is None and isinstance(step, SelectorMixin):
        maker = _selected
    if maker is None:
        refuse(
            f"{step!r}",
            f"{type(step).__name__} is none of those that layers are made of: {_ACCEPTED}.",
        )
    return maker


def scaled(step, table, name):
    """A table as a step of scikit-learn makes it of another one.

    Parameters
    ----------
    step : transformer
        Fitted.

    table : Table
        All of its columns are numbers.

    name : str
        Of the layer.

    Returns
    -------
    Table

    Raises
    ------
    ValueError
        If the step is none of those that layers can be made of.
    """
    maker = maker_of(step)
    x = numbers_of(table, range(len(table.columns)), name, f"{step!r}")
    if maker is _standard and table.single:
        return GraphTable.of(_standard(step, x, name, np.float32))
    return GraphTable.of(maker(step, x, name), table.single)


def _standard(step, x, name, dtype=np.float64):
    # In a table of float32 scikit-learn rounds the mean.
    mean = step.mean_.astype(dtype) if step.with_mean else 0.0
    scale = step.scale_ if step.with_std else 1.0
    return affine(x, mean, 1.0 / np.asarray(scale), 0.0, name)


def _min_max(step, x, name):
    low, high = step.feature_range
    x = affine(x, step.data_min_, step.scale_, low, name)
    return _clipped(x, low, high, name) if step.clip else x


def _max_abs(step, x, name):
    x = affine(x, 0.0, 1.0 / step.scale_, 0.0, name)
    return _clipped(x, -1.0, 1.0, name) if getattr(step, "clip", False) else x


def _clipped(x, low, high, name):
    return grouped(f"{name}_clip", [x], lambda x: ops.clip(x, low, high))


def _robust(step, x, name):
    centre = step.center_ if step.with_centering else 0.0
    scale = step.scale_ if step.with_scaling else 1.0
    return affine(x, centre, 1.0 / np.asarray(scale), 0.0, name)


def _imputed(step, x, name):
    fill = np.asarray(step.statistics_, dtype=np.float64)
    kept = np.flatnonzero(~np.isnan(fill)).astype(np.int32)
    fill = fill[None, kept].astype(np.float32)
    told = None if step.indicator_ is None else np.asarray(step.indicator_.features_, np.int32)
    missing = step.missing_values

    def filled(x):
        lacks = ops.isnan(x) if missing is None or missing != missing else ops.equal(x, missing)
        if len(kept) == x.shape[1]:
            values = ops.where(lacks, fill, x)
        else:
            values = ops.where(ops.take(lacks, kept, axis=1), fill, ops.take(x, kept, axis=1))
        if told is None:
            return values
        return ops.concatenate([values, ops.cast(ops.take(lacks, told, axis=1), "float32")], axis=1)

    return grouped(name, [x], filled)


def _turned(step, x, name):
    kernel = np.asarray(step.components_, dtype=np.float64).T
    if step.whiten:
        scale = np.sqrt(step.explained_variance_)
        kernel = kernel / np.maximum(scale, np.finfo(scale.dtype).eps)
    x = affine(x, step.mean_, 1.0, 0.0, f"{name}_centre")
    layer = keras.layers.Dense(
        kernel.shape[1], use_bias=False, trainable=False, dtype="float32", name=layer_name(name)
    )
    turned = layer(x)
    layer.set_weights([kernel.astype(np.float32)])
    return turned


def _selected(step, x, name):
    wanted = step.get_support(indices=True).astype(np.int32)
    return grouped(name, [x], lambda x: ops.take(x, wanted, axis=1))


def behind_scaler(scaler, table, prefix):
    """A stack's table with its numeric columns scaled."""
    numeric = table.numeric_places
    steps = [] if scaler is None else listed_steps(scaler)
    if not numeric or not steps:
        return table
    numbers = GraphTable.of(numbers_of(table, numeric, f"{prefix}table", "scaler"))
    label = f"{prefix}scaler"
    for index, step in enumerate(steps):
        numbers = scaled(step, numbers, label if len(steps) == 1 else f"{label}_{index}")
    columns = list(table.columns)
    for number, index in enumerate(numeric):
        columns[index] = number
    return GraphTable(columns, numbers.numeric)
