"""Tables as tensors: numeric columns in one tensor, and the codes of categories."""

from __future__ import annotations

import contextlib
import contextvars
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from skstack._base.atomic_fit import caller_level
from skstack.preprocessing._blocks import ArrayColumnBlock, NumericBlock
from skstack.preprocessing._column_profile import is_few_steps

# Ordinary columns of float64 have more; those of whole numbers may have fewer, and lose nothing.
_FAR_STEPS = 10.0
_LAYER_NAMES = contextvars.ContextVar("layer names of the model that is built")


@dataclass(frozen=True)
class CodedColumn:
    """A column of categories."""

    codes: Any  # int32 tensor of shape (batch,): 0 is unseen, 1 missing, known values start at 2
    known: list  # values of the codes 2, 3, ...
    number: Callable | None = None  # creates a tensor of the values, if they are numeric inputs too
    kept: frozenset | None = None  # values that no earlier step has set to missing; None for all
    hashed: Callable | None = None  # creates codes for a number of hash buckets


@dataclass(frozen=True)
class ArrayColumn:
    """A column whose cells hold arrays: a tensor of shape (batch, ...)."""

    tensor: Any


@dataclass(frozen=True)
class GraphTable:
    """Rows as tensors."""

    columns: list = field(default_factory=list)  # CodedColumn, ArrayColumn or index in `numeric`
    numeric: Any = None  # float32 tensor of shape (batch, n_numeric)
    whole: Any = None  # tensor of rows that are arrays of rank 2 or more, instead of columns
    single: bool = True  # whether scikit-learn's steps were fitted on float32, not on float64
    split: dict | None = None  # tensors by block for the only reader, instead of columns

    @classmethod
    def of(cls, tensor, single=True):
        """A table of numbers."""
        return cls(list(range(tensor.shape[1])), tensor, single=single)

    @property
    def numeric_indices(self):
        """Indices of the numeric columns."""
        return [index for index, column in enumerate(self.columns) if isinstance(column, int)]


def refuse(what, why, whole="keras.Model"):
    """Raise the error for a part of an estimator that cannot become layers."""
    raise ValueError(f"{what} cannot become part of a {whole}: {why}")


class LostPrecision(UserWarning):
    """A part computes in float64 what a ``keras.Model`` computes in float32."""


def warn_of_float32(what, columns=()):
    """Warn that predictions of a model may differ; `what` says which part does what."""
    if columns:
        what = f"{what} the columns {columns[:5]}{'...' if len(columns) > 5 else ''}"
    warnings.warn(
        f"{what} in float64, because they are far from 0; a keras.Model computes in float32, which "
        "loses precision. Subtract an offset before the fit.",
        LostPrecision,
        stacklevel=caller_level(),
    )


def is_far(values, spread):
    """Mask of columns whose standard deviation, `spread`, is few steps of float32 at `values`."""
    return is_few_steps(np.asarray(spread), np.abs(np.asarray(values)), _FAR_STEPS)


def function_layer(name, tensors, function):
    """Apply a function of tensors as one layer: a small named model, which needs no custom class.

    The function returns a tensor or a list of them.
    """
    inputs = [
        keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=f"input_{index}")
        for index, tensor in enumerate(tensors)
    ]
    single = len(inputs) == 1
    model = keras.Model(inputs[0] if single else inputs, function(*inputs), name=layer_name(name))
    return model(tensors[0] if single else list(tensors))


@contextlib.contextmanager
def unique_names(taken=()):
    """Context in which `layer_name` returns each name once, and none of ``taken``."""
    token = _LAYER_NAMES.set(set(taken))
    try:
        yield
    finally:
        _LAYER_NAMES.reset(token)


def layer_name(name):
    """A unique layer name that is valid for Keras, ONNX and TensorFlow."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip("_.-") or "layer"
    taken, number, unique = _LAYER_NAMES.get(), 1, name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    taken.add(unique)
    return unique


def affine(x, centre, factor, shift, name):
    """(x - centre) * factor + shift as two layers that are not trained.

    The centre is subtracted first, as two float32 parts with 48 bits together: columns like
    1e6 + small keep their digits.
    """
    width = x.shape[1]
    centre, factor, shift = (
        np.broadcast_to(np.asarray(value, dtype=np.float64), (width,))
        for value in (centre, factor, shift)
    )
    first = centre.astype(np.float32)
    rest = centre - first

    def both(x):
        shared = {"output_shape": (width,), "bias_axes": "b", "trainable": False}
        subtract = keras.layers.EinsumDense("ab,b->ab", name="centre", dtype="float32", **shared)
        multiply = keras.layers.EinsumDense("ab,b->ab", name="scale", dtype="float32", **shared)
        scaled = multiply(subtract(x))
        subtract.set_weights([np.ones(width, np.float32), -first])
        multiply.set_weights(
            [factor.astype(np.float32), (shift - rest * factor).astype(np.float32)]
        )
        return scaled

    return function_layer(name, [x], both)


def selection(indices):
    """Function that selects columns of a tensor.

    It takes them by index, because tf2onnx may write a slice of columns as one of rows, too.
    """
    indices = np.asarray(indices, dtype=np.int32)
    return lambda x: ops.take(x, indices, axis=1)


def numbers_of(table, indices, name, reader):
    """Some columns of a table as one tensor of numbers; ``reader`` is named in messages."""
    if table.whole is not None:
        refuse(reader, "it reads rows of rank 2 and more as a table")
    columns = [table.columns[index] for index in indices]
    if all(isinstance(column, int) for column in columns):
        if columns == list(range(table.numeric.shape[1])):
            return table.numeric
        return function_layer(f"{name}_columns", [table.numeric], selection(columns))
    parts = []
    for column in columns:
        if isinstance(column, int):
            parts.append(function_layer(f"{name}_column", [table.numeric], selection([column])))
            continue
        if isinstance(column, ArrayColumn):
            refuse(reader, "it reads arrays in cells as numbers")
        bools = column.known and all(isinstance(v, bool | np.bool_) for v in column.known)
        if column.number is None and bools:
            parts.append(_numbers_of_bools(column, f"{name}_column"))
            continue
        if column.number is None:
            refuse(reader, f"it reads the categories {column.known[:3]!r} as numbers")
        parts.append(column.number())
    return concatenate(parts, f"{name}_columns")


def _numbers_of_bools(column, name):
    """False and True, whose codes start at 2, as 0 and 1; NaN for anything else."""
    values = np.array([np.nan, np.nan, *column.known], dtype=np.float32)
    return function_layer(name, [column.codes], lambda codes: ops.take(values, codes)[:, None])


def select_columns(table, indices):
    """Some columns of a table as a table."""
    if table.whole is not None:
        if len(indices) != len(table.columns):
            refuse("A branch on some steps of a sequence", "pass it whole rows.")
        return table
    return replace(table, columns=[table.columns[index] for index in indices])


def concatenate(tensors, name):
    """Concatenate tensors of shape (batch, n)."""
    if len(tensors) == 1:
        return tensors[0]
    return keras.layers.Concatenate(name=layer_name(name), dtype="float32")(tensors)


def concatenate_tables(tables, name):
    """Concatenate the columns of tables."""
    columns, numeric, width = [], [], 0
    for table in tables:
        columns += [c + width if isinstance(c, int) else c for c in table.columns]
        if table.numeric is not None:
            numeric.append(table.numeric)
            width += table.numeric.shape[1]
    return GraphTable(columns, concatenate(numeric, name) if numeric else None)


def input_tensors(table, blocks, name, reader):
    """Inputs of a network as tensors by block; ``reader`` is named in messages."""
    if table.split is not None:
        return dict(table.split)
    tensors, recoded, indices = {}, {}, blocks.column_indices()
    for block in blocks.blocks_:
        part = blocks.part(block.name)
        if isinstance(part, NumericBlock):
            numbers = numbers_of(table, indices[block.name], name, reader)
            tensors[block.name] = _numeric_input(numbers, part, f"{name}_{block.name}")
        elif block.kind == "categorical":
            column = _coded_column(table, indices[block.name][0], block.name, reader)
            if part.hashed and column.kept is None:  # else all possible values are known
                tensors[block.name] = _hashed(column, part, reader)
                continue
            tensors[block.name] = column.codes
            codes = _translation(column, blocks, block.name)
            if not np.array_equal(codes, np.arange(len(codes))):
                recoded[block.name] = codes
        else:
            whole = table.whole
            if isinstance(part, ArrayColumnBlock):
                column = table.columns[indices[block.name][0]]
                whole = column.tensor if isinstance(column, ArrayColumn) else None
            if whole is None:
                refuse(reader, f"its input {block.name!r} is of the kind {block.kind!r}.")
            tensors[block.name] = _array_input(whole, part, f"{name}_{block.name}")
    if recoded:
        translated = function_layer(
            f"{name}_codes",
            [tensors[block] for block in recoded],
            lambda *codes: [
                ops.take(own, x) for own, x in zip(recoded.values(), codes, strict=True)
            ],
        )
        tensors.update(zip(recoded, keras.tree.flatten(translated), strict=True))
    return tensors


def imputation(statistics, indicated, missing=np.nan):
    """Function that imputes missing values and appends indicators of the columns ``indicated``.

    Columns whose statistic is NaN are left out.
    """
    statistics = np.asarray(statistics, dtype=np.float64)
    kept = np.flatnonzero(~np.isnan(statistics))
    fill = statistics[None, kept].astype(np.float32)
    is_nan = missing is None or missing != missing

    def gaps(x):
        return ops.isnan(x) if is_nan else ops.equal(x, missing)

    def impute(x):
        own = x if len(kept) == x.shape[1] else selection(kept)(x)
        # ONNX would multiply NaN by 0 if the condition were no direct `isnan`.
        values = ops.where(gaps(own), fill, own)
        if not len(indicated):
            return values
        indicators = ops.cast(gaps(selection(indicated)(x)), "float32")
        return ops.concatenate([values, indicators], axis=1)

    return impute


def _numeric_input(numbers, part, name):
    """Imputed numbers in the shape of the block."""
    shape = part.block.shape
    if part.imputer is not None:
        # The empty columns that scikit-learn would leave out are zeros.
        impute = imputation(np.nan_to_num(part.imputer_.statistics_), part.indicated)
        numbers = function_layer(f"{name}_imputed", [numbers], impute)
    return numbers if len(shape) == 1 else keras.layers.Reshape(shape)(numbers)


def _hashed(column, part, reader):
    if column.hashed is None:
        refuse(
            reader,
            f"the column {part.column!r} is hashed, which needs the format saved_model and a "
            "column of X, not one that another network computes.",
        )
    return column.hashed(part.n_hash_buckets)


def _array_input(tensor, part, name):
    shape = part.block.shape
    if tuple(tensor.shape[1:]) != shape:
        tensor = keras.layers.Reshape(shape)(tensor)
    if part.block.kind != "tokens" or not part.unseen_tokens:
        return tensor
    last = part.block.cardinality - 1
    return function_layer(f"{name}_known", [tensor], lambda ids: ops.minimum(ids, last))


def passthrough_table(table, blocks, name, reader):
    """The table of ``ColumnBlocks.table(ColumnBlocks.split(X))``: unseen categories are missing."""
    indices = blocks.column_indices()
    columns = [None] * blocks.n_columns_
    numeric = None
    if "numeric" in indices:
        numeric = numbers_of(table, indices["numeric"], name, reader)
        for number, index in enumerate(indices["numeric"]):
            columns[index] = number
    for block in blocks.blocks_:
        if block.kind == "categorical":
            (index,) = indices[block.name]
            column = _coded_column(table, index, block.name, reader)
            kept = frozenset(blocks.categories_[block.name])
            kept = kept if column.kept is None else kept & column.kept
            columns[index] = replace(column, number=None, kept=kept, hashed=None)
    return GraphTable(columns, numeric)


def _coded_column(table, index, name, reader):
    column = table.columns[index]
    if not isinstance(column, CodedColumn):
        refuse(
            reader,
            f"it reads the column {name!r} as categories, but a step before "
            "it passes the column on unchanged, or as numbers. Encode words before a "
            "network, or give it the columns of X.",
        )
    return column


def _translation(column, blocks, block):
    """For each code of a column, the code of a network, which may have fewer categories."""
    *known, missing = blocks.part(block).codes_of(column.known)
    unseen = 0
    if column.kept is not None:
        unseen = missing
        pairs = zip(column.known, known, strict=True)
        known = [code if value in column.kept else missing for value, code in pairs]
    return np.array([unseen, missing, *known], dtype=np.int32)
