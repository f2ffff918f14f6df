"""Categories that estimators and encoders of scikit-learn read, as indices."""

from __future__ import annotations

import contextlib
import warnings
from datetime import date, time, timedelta
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
from keras import ops
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from skstack._base.sklearn import is_missing, n_columns_out
from skstack._base.text import described
from skstack._graph.tables import (
    CodedColumn,
    GraphTable,
    concatenate,
    function_layer,
    numbers_of,
    refuse,
)

ENCODERS = (OneHotEncoder, OrdinalEncoder)
_DATES = (date, time, timedelta)


def category_readers(indices, categories, allow_nan):
    """Readers of columns, some of which hold categories: known values by position."""
    words = {
        position: [value for value in values if not is_missing(value)]
        for position, values in categories.items()
        if any(isinstance(value, str) for value in values)
    }
    numbers = np.array([index for at, index in enumerate(indices) if at not in words], dtype=int)
    if len(numbers):
        yield numbers, None, None, allow_nan
    if words:
        yield indices, _Words(words), None, False


class _Words:
    """Columns of strings in the form of ``ColumnBlocks``."""

    def __init__(self, levels):
        self._parts = {
            str(position): SimpleNamespace(indices=[position], hashed=False, levels=values)
            for position, values in levels.items()
        }
        self.blocks_ = [SimpleNamespace(name=name) for name in self._parts]

    def part(self, name):
        """Position and values of a column."""
        return self._parts[name]


def category_index(table, position, categories, name, reader):
    """Index of the category in a column, as floats of shape (batch, 1).

    It is the number of categories for an unseen value, and one more for a missing one.
    """
    column = table.columns[position]
    if isinstance(column, CodedColumn):
        index = _index_of_codes(column, categories)
        return function_layer(name, [column.codes], lambda x: ops.take(index, x)[:, None])
    values = _as_float32(categories, reader)
    number = numbers_of(table, [position], f"{name}_number", reader)
    return function_layer(name, [number], partial(_index_of_numbers, values=values))


def _index_of_codes(column, categories):
    """The index for each code of a column."""
    unseen, missing = len(categories), len(categories) + 1
    index = {value: at for at, value in enumerate(categories)}
    if column.kept is None:
        known = [index.get(value, unseen) for value in column.known]
        return np.array([unseen, missing, *known], np.float32)
    known = [index.get(v, unseen) if v in column.kept else missing for v in column.known]
    return np.array([missing, missing, *known], np.float32)


def _as_float32(categories, reader):
    try:
        exact = np.asarray(categories, dtype=np.float64)
    except (TypeError, ValueError):
        refuse(reader, f"it reads {categories[:3]!r} as categories of a column of numbers.")
    values = exact.astype(np.float32)
    if not np.array_equal(values, exact):
        refuse(reader, f"float32 cannot hold its categories {categories[:3]!r}.")
    return values


def _index_of_numbers(x, values):
    n = len(values)
    equal = ops.cast(ops.equal(x, values[None]), "float32")
    index = ops.sum(equal * (np.arange(n, dtype=np.float32)[None] - n), axis=1, keepdims=True) + n
    return ops.where(ops.isnan(x), np.float32(n + 1), index)


def encoder_readers(encoder, indices):
    """What an encoder reads of X; see `GraphPart._column_readers`."""
    _refuse_dates(encoder)
    categories = {at: values.tolist() for at, values in enumerate(encoder.categories_)}
    yield from category_readers(indices, categories, True)


def apply_encoder(encoder, table, name):
    """The output of a fitted encoder: rows of a constant for each category."""
    _refuse_dates(encoder)
    tensors, first = [], 0
    for position, width in enumerate(n_columns_out(encoder)):
        known = [each for each in encoder.categories_[position].tolist() if not is_missing(each)]
        rows = _encoded(encoder, position, known)[:, first : first + width].astype(np.float32)
        own = f"{name}_{position}"
        index = category_index(table, position, known, f"{own}_index", described(encoder))
        tensors.append(
            function_layer(
                own,
                [index],
                lambda x, rows=rows: ops.take(rows, ops.cast(x[:, 0], "int32"), axis=0),
            )
        )
        first += width
    return GraphTable.of(concatenate(tensors, f"{name}_encoded"), table.single)


def _encoded(encoder, position, known):
    """Output for known values of a column, an unseen and a missing one; zeros if refused."""
    words = any(isinstance(value, str) for value in known)
    numbers = [value for value in known if not isinstance(value, str)]
    unseen = "\ue000unseen" if words else max(numbers, default=0) + 1
    n_outputs, rows = sum(n_columns_out(encoder)), []
    gaps = list(filter(is_missing, encoder.categories_[position].tolist()))
    for value in [*known, unseen, *(gaps or [None if words else np.nan])]:
        row = [values[0] for values in encoder.categories_]
        row[position] = value
        frame = pd.DataFrame([row], columns=getattr(encoder, "feature_names_in_", None))
        encoded = np.zeros((1, n_outputs))
        with warnings.catch_warnings(), contextlib.suppress(ValueError):
            warnings.simplefilter("ignore")
            encoded = encoder.transform(frame.astype(object) if _holds_objects(encoder) else frame)
        rows.append(np.asarray(encoded.toarray() if hasattr(encoded, "toarray") else encoded))
    if len(gaps) > 1 and not np.array_equal(*rows[-2:]):
        refuse(
            described(encoder),
            f"column {_column_names(encoder)[position]!r} holds {gaps[0]} and {gaps[1]} as two "
            "categories, but a model has one code for missing values. Replace one by the other.",
        )
    return np.vstack(rows)


def _holds_objects(encoder):
    return any(values.dtype == object for values in encoder.categories_)


def _refuse_dates(encoder):
    for column, values in zip(_column_names(encoder), encoder.categories_, strict=True):
        if values.dtype.kind in "mM" or any(isinstance(v, _DATES) for v in values):
            refuse(
                described(encoder),
                f"column {column!r} holds dates or durations. Convert them to words or numbers.",
            )


def _column_names(encoder):
    n_columns = len(encoder.categories_)
    return list(getattr(encoder, "feature_names_in_", range(n_columns)))
