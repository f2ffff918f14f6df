"""Tables as tensors: numbers side by side, and the codes of categories."""

from __future__ import annotations

import contextlib
import contextvars
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from skstack.preprocessing._block_kinds import ArrayColumnBlock, NumericBlock

_TAKEN = contextvars.ContextVar("layer names of the model that is built")


@dataclass(frozen=True)
class CodedColumn:
    """A column of categories.

    Parameters
    ----------
    codes : keras.KerasTensor of int32 of shape (batch,)
        0 is an unseen value, 1 a missing one, then the known ones.

    known : list
        The values that the codes from 2 on stand for.

    number : callable, default=None
        Makes a tensor of shape (batch, 1) of the values, where they come in as numbers too.

    kept : frozenset, default=None
        Values that have not become missing ones on the way, as all others have in the table of a
        stack; None where nothing was lost.

    hashed : callable, default=None
        Makes codes of a number of buckets of the values as they come in.
    """

    codes: Any
    known: list
    number: Callable | None = None
    kept: frozenset | None = None
    hashed: Callable | None = None


@dataclass(frozen=True)
class Cell:
    """A column whose cells hold arrays: a tensor of shape (batch, ...)."""

    tensor: Any


@dataclass(frozen=True)
class GraphTable:
    """Rows as tensors.

    Parameters
    ----------
    columns : list of int, Category or Cell
        In order; an int is a column of ``numeric``.

    numeric : keras.KerasTensor of float32 of shape (batch, n_numeric), default=None

    whole : keras.KerasTensor of shape (batch, ...), default=None
        Rows that are arrays of rank 2 and more, in place of all else.

    single : bool, default=True
        Whether scikit-learn got it in float32; else in float64.

    split : dict of str to keras.KerasTensor, default=None
        What its one reader takes, by block, in place of all else.
    """

    columns: list = field(default_factory=list)
    numeric: Any = None
    whole: Any = None
    single: bool = True
    split: dict | None = None

    @classmethod
    def of(cls, tensor, single=True):
        """A table of numbers."""
        return cls(list(range(tensor.shape[1])), tensor, single=single)

    @property
    def numeric_places(self):
        """Positions of the columns that are numbers."""
        return [place for place, column in enumerate(self.columns) if isinstance(column, int)]


def refuse(what, why):
    """Say which part of an estimator cannot become layers."""
    raise ValueError(f"{what} cannot become part of a keras.Model: {why}")


def grouped(name, tensors, function):
    """A function of tensors as one layer: a small model with a name, which needs no own class.

    Parameters
    ----------
    name : str

    tensors : list of keras.KerasTensor

    function : callable
        From as many tensors to one, or to a list.

    Returns
    -------
    keras.KerasTensor, or list of such
    """
    inputs = [
        keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=f"input_{place}")
        for place, tensor in enumerate(tensors)
    ]
    single = len(inputs) == 1
    model = keras.Model(inputs[0] if single else inputs, function(*inputs), name=layer_name(name))
    return model(tensors[0] if single else list(tensors))


@contextlib.contextmanager
def unique_names(taken=()):
    """While open, no two layers get one name, nor one of those that are taken."""
    token = _TAKEN.set(set(taken))
    try:
        yield
    finally:
        _TAKEN.reset(token)


def layer_name(name):
    """A name that Keras, ONNX and TensorFlow take for a layer, and no other layer has."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip("_.-") or "layer"
    taken, number, unique = _TAKEN.get(), 1, name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    taken.add(unique)
    return unique


def affine(x, centre, factor, shift, name):
    """(x - centre) * factor + shift, as two layers that are not trained.

    The centre is subtracted first, in two parts that hold it to 48 bits: columns like 1e6 + small
    keep their digits in float32.
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

    return grouped(name, [x], both)


def number_column(numeric, place, name):
    """What makes one column of numbers, where it is asked for, of shape (batch, 1)."""
    return lambda: grouped(name, [numeric], _taking([place]))


def numbers_of(table, places, name, reader):
    """Some columns of a table as one tensor of numbers."""
    if table.whole is not None:
        refuse(reader, "it reads rows of rank 2 and more as a table")
    columns = [table.columns[place] for place in places]
    if all(isinstance(column, int) for column in columns):
        if columns == list(range(table.numeric.shape[1])):
            return table.numeric
        return grouped(f"{name}_columns", [table.numeric], _taking(columns))
    parts = []
    for column in columns:
        if isinstance(column, int):
            parts.append(grouped(f"{name}_column", [table.numeric], _taking([column])))
            continue
        if isinstance(column, Cell):
            refuse(reader, "it reads arrays in cells as numbers")
        if column.number is None:
            refuse(reader, f"it reads the categories {column.known[:3]!r} as numbers")
        parts.append(column.number())
    return parts[0] if len(parts) == 1 else joined(parts, f"{name}_columns")


def taken(table, places):
    """Some columns of a table as a table."""
    if table.whole is not None:
        if len(places) != len(table.columns):
            refuse("A branch on some steps of a sequence", "pass it whole rows.")
        return table
    return replace(table, columns=[table.columns[place] for place in places])


def joined(tensors, name):
    """Tensors of shape (batch, n) side by side."""
    if len(tensors) == 1:
        return tensors[0]
    return keras.layers.Concatenate(name=layer_name(name), dtype="float32")(tensors)


def beside(tables, name):
    """Tables side by side, as one."""
    columns, numeric, width = [], [], 0
    for table in tables:
        columns += [c + width if isinstance(c, int) else c for c in table.columns]
        if table.numeric is not None:
            numeric.append(table.numeric)
            width += table.numeric.shape[1]
    return GraphTable(columns, joined(numeric, name) if numeric else None)


def arrays(table, blocks, name, reader):
    """What a network takes of a table: a tensor for each of its blocks.

    Parameters
    ----------
    table : Table

    blocks : ColumnBlocks
        Fitted on such a table.

    name : str
        Prefix of layers.

    reader : str
        Who reads, for messages.

    Returns
    -------
    dict of str to keras.KerasTensor
    """
    if table.split is not None:
        return dict(table.split)
    tensors, recoded, places = {}, {}, blocks.column_indices()
    for block in blocks.blocks_:
        part = blocks.part(block.name)
        if isinstance(part, NumericBlock):
            numbers = numbers_of(table, places[block.name], name, reader)
            tensors[block.name] = _filled(numbers, part, f"{name}_{block.name}")
        elif block.kind == "categorical":
            column = table.columns[places[block.name][0]]
            if not isinstance(column, CodedColumn):
                refuse(reader, f"it reads numbers as the categories of {block.name!r}.")
            if part.hashed and column.kept is None:  # else all values that may come are known
                tensors[block.name] = _hashed(column, part, reader)
                continue
            tensors[block.name] = column.codes
            codes = _translation(column, blocks, block.name)
            if not np.array_equal(codes, np.arange(len(codes))):
                recoded[block.name] = codes
        else:
            whole = table.whole
            if isinstance(part, ArrayColumnBlock):
                column = table.columns[places[block.name][0]]
                whole = column.tensor if isinstance(column, Cell) else None
            if whole is None:
                refuse(reader, f"its input {block.name!r} is of the kind {block.kind!r}.")
            tensors[block.name] = _shaped(whole, part, f"{name}_{block.name}")
    if recoded:
        made = grouped(
            f"{name}_codes",
            [tensors[block] for block in recoded],
            lambda *codes: [
                ops.take(own, x) for own, x in zip(recoded.values(), codes, strict=True)
            ],
        )
        tensors.update(zip(recoded, keras.tree.flatten(made), strict=True))
    return tensors


def _filled(numbers, part, name):
    """Numbers without gaps, indicators beside them, in the shape that the network takes."""
    shape = part.block.shape
    if part.imputer is not None:
        fill = np.asarray(part.imputer_.statistics_, dtype=np.float64)
        # An empty column is kept, as zeros.
        fill = np.nan_to_num(fill).astype(np.float32)[None]
        wanted = part.indicated.astype(np.int32)

        def fill_in(x):
            gaps = ops.isnan(x)
            values = ops.where(gaps, fill, x)
            if not len(wanted):
                return values
            told = ops.cast(ops.take(gaps, wanted, axis=1), "float32")
            return ops.concatenate([values, told], axis=1)

        numbers = grouped(f"{name}_imputed", [numbers], fill_in)
    return numbers if len(shape) == 1 else keras.layers.Reshape(shape)(numbers)


def _hashed(column, part, reader):
    if column.hashed is None:
        refuse(
            reader,
            f"the column {part.column!r} is hashed, which this format has no layer for, or it was "
            "made by another network. Hashing can be exported as saved_model.",
        )
    return column.hashed(part.n_hash_buckets)


def _shaped(tensor, part, name):
    shape = part.block.shape
    if tuple(tensor.shape[1:]) != shape:
        tensor = keras.layers.Reshape(shape)(tensor)
    if part.block.kind != "tokens" or not part.unseen_tokens:
        return tensor
    last = part.block.cardinality - 1
    return grouped(f"{name}_known", [tensor], lambda ids: ops.minimum(ids, last))


def passed(table, blocks, name, reader):
    """What ``ColumnBlocks.table(ColumnBlocks.split(X))`` makes: unseen categories are missing."""
    places = blocks.column_indices()
    columns = [None] * blocks.n_columns_
    numeric = None
    if "numeric" in places:
        numeric = numbers_of(table, places["numeric"], name, reader)
        for number, place in enumerate(places["numeric"]):
            columns[place] = number
    for block in blocks.blocks_:
        if block.kind == "categorical":
            (place,) = places[block.name]
            kept = frozenset(blocks.categories_[block.name])
            before = table.columns[place].kept
            kept = kept if before is None else kept & before
            columns[place] = replace(table.columns[place], number=None, kept=kept, hashed=None)
    return GraphTable(columns, numeric)


def _translation(column, blocks, block):
    """Codes of a column as those of a network, which may have seen fewer categories."""
    *known, missing = blocks.part(block).codes_of(column.known)
    unseen = 0
    if column.kept is not None:
        unseen = missing
        pairs = zip(column.known, known, strict=True)
        known = [code if value in column.kept else missing for value, code in pairs]
    return np.array([unseen, missing, *known], dtype=np.int32)


def _taking(columns):
    wanted = np.asarray(columns, dtype=np.int32)
    return lambda x: ops.take(x, wanted, axis=1)
