"""Fitted steps of scikit-learn as layers."""

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

from skstack._base.text import described
from skstack._graph.tables import (
    GraphTable,
    affine,
    function_layer,
    imputation,
    is_far,
    layer_name,
    numbers_of,
    refuse,
    selection,
    warn_of_float32,
)

_ACCEPTED = (
    "StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, SimpleImputer, PCA, feature "
    "selectors, OneHotEncoder, OrdinalEncoder, FunctionTransformer(), and ColumnTransformers and "
    "Pipelines of these"
)


def listed_steps(step):
    """Flat list of steps, without Pipelines, FrozenEstimators and passthrough steps."""
    if isinstance(step, FrozenEstimator):
        return listed_steps(step.estimator)
    if isinstance(step, Pipeline):
        return [inner for _, each in step.steps for inner in listed_steps(each)]
    return [] if is_passthrough(step) else [step]


def is_passthrough(step):
    """Whether a step of a Pipeline returns its input."""
    if type(step) is FunctionTransformer:
        return step.func is None
    return step is None or isinstance(step, str)


def takes_nan(step):
    """Whether a step accepts missing numbers."""
    return type(step) is SimpleImputer


def passes_nan(step):
    """Whether a step leaves missing numbers missing."""
    scalers = StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler
    return type(step) in scalers or isinstance(step, SelectorMixin)


def layer_maker(step):
    """The function that creates the layer of a step; other steps are refused."""
    maker = {
        StandardScaler: _standard,
        MinMaxScaler: _min_max,
        MaxAbsScaler: _max_abs,
        RobustScaler: _robust,
        SimpleImputer: _imputer,
        PCA: _pca,
    }.get(type(step))
    if maker is None and isinstance(step, SelectorMixin):
        maker = _selector
    if maker is None:
        refuse(
            described(step), f"{type(step).__name__} is not supported; expected one of {_ACCEPTED}."
        )
    return maker


def apply_step(step, table, name):
    """The output of a fitted step for a table of numbers."""
    maker = layer_maker(step)
    x = numbers_of(table, range(len(table.columns)), name, described(step))
    if maker is _standard and table.single:
        return GraphTable.of(_standard(step, x, name, np.float32))
    return GraphTable.of(maker(step, x, name), table.single)


def warn_of_far_columns(step):
    """Warn of columns from which a step subtracts what float32 cannot tell from their values."""
    centre, spread = _moments(step)
    if centre is None or spread is None:
        return
    far = np.flatnonzero(is_far(centre, spread))
    if far.size:
        names = getattr(step, "feature_names_in_", [f"x{index}" for index in range(len(centre))])
        columns = [str(names[index]) for index in far]
        warn_of_float32(f"{described(step)} computes with", columns)


def _moments(step):
    """Centres and standard deviations, or about these, of the columns that a step has seen."""
    kind = type(step)
    if kind is StandardScaler and step.var_ is not None:
        return step.mean_, np.sqrt(step.var_)
    if kind is MinMaxScaler:
        return (step.data_min_ + step.data_max_) / 2, step.data_range_ / np.sqrt(12)
    if kind is RobustScaler and step.with_centering and step.with_scaling:
        return step.center_, step.scale_ / 1.35
    if kind is PCA:
        variances = step.explained_variance_ @ step.components_**2 + step.noise_variance_
        return step.mean_, np.sqrt(variances)
    return None, None


def _standard(step, x, name, dtype=np.float64):
    # scikit-learn rounds the mean of a float32 table.
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
    return function_layer(f"{name}_clip", [x], lambda x: ops.clip(x, low, high))


def _robust(step, x, name):
    centre = step.center_ if step.with_centering else 0.0
    scale = step.scale_ if step.with_scaling else 1.0
    return affine(x, centre, 1.0 / np.asarray(scale), 0.0, name)


def _imputer(step, x, name):
    if any(isinstance(value, str) for value in step.statistics_):
        refuse(described(step), "it imputes words, and only numbers can be imputed there.")
    indicated = () if step.indicator_ is None else step.indicator_.features_
    return function_layer(name, [x], imputation(step.statistics_, indicated, step.missing_values))


def _pca(step, x, name):
    kernel = np.asarray(step.components_, dtype=np.float64).T
    if step.whiten:
        scale = np.sqrt(step.explained_variance_)
        kernel = kernel / np.maximum(scale, np.finfo(scale.dtype).eps)
    x = affine(x, step.mean_, 1.0, 0.0, f"{name}_centre")
    layer = keras.layers.Dense(
        kernel.shape[1], use_bias=False, trainable=False, dtype="float32", name=layer_name(name)
    )
    components = layer(x)
    layer.set_weights([kernel.astype(np.float32)])
    return components


def _selector(step, x, name):
    return function_layer(name, [x], selection(step.get_support(indices=True)))


def apply_scaler(scaler, table, prefix):
    """The table of a stack with its numeric columns scaled."""
    numeric = table.numeric_indices
    steps = [] if scaler is None else listed_steps(scaler)
    if not numeric or not steps:
        return table
    numbers = GraphTable.of(numbers_of(table, numeric, f"{prefix}table", "scaler"))
    label = f"{prefix}scaler"
    for index, step in enumerate(steps):
        numbers = apply_step(step, numbers, label if len(steps) == 1 else f"{label}_{index}")
    columns = list(table.columns)
    for number, index in enumerate(numeric):
        columns[index] = number
    return GraphTable(columns, numbers.numeric)
