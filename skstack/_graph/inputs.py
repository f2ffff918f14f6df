"""The columns of X as inputs of the exported model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from numbers import Real

import keras
import numpy as np
from keras import ops
from sklearn.utils import check_array

from skstack._base.tables import take_columns
from skstack._graph.tables import ArrayColumn, CodedColumn, GraphTable, function_layer, selection
from skstack.preprocessing._blocks import (
    ArrayColumnBlock,
    ColumnBlocks,
    NumericBlock,
    TensorBlock,
    keras_name,
)
from skstack.preprocessing._columns import as_numbers

# Tokens for unseen and missing values of hashed columns, where all other values are valid:
# strings in the private use area, and the smallest integers.
_HASHED_STRINGS = ("\ue000[UNK]", "\ue000[MISSING]")
_HASHED_INTEGERS = (-(2**63) + 1, -(2**63))
_RESERVED = ("numeric", "features", "output_0")


@dataclass(frozen=True)
class _Categories:
    """A column of categories; ``tokens`` are the input values of the codes 0, 1, 2, ...

    Code 0 is an unseen value, 1 a missing one; known values start at 2.
    """

    index: int
    label: object
    known: list
    tokens: np.ndarray
    hashed: bool = False

    @property
    def dtype(self):
        return "int64" if self.tokens.dtype.kind == "i" else "string"

    def token_of(self, value):
        """The input value of a category; invalid ones are unseen, or raise an error if hashed."""
        if self.hashed:
            return self._hashed_token_of(value)
        unseen, missing = self.tokens[:2].tolist()
        if self.dtype == "string":
            return value if isinstance(value, str) and value != missing else unseen
        if not _is_whole(value) or value == missing:
            return unseen
        return int(value)

    def _hashed_token_of(self, value):
        kind = "strings" if self.dtype == "string" else "integers"
        if self.dtype == "string":
            # NumPy removes zeros at the end of a string.
            valid = isinstance(value, str) and value not in _HASHED_STRINGS and value[-1:] != "\0"
        else:
            valid = isinstance(value, Real) and float(value).is_integer()
            valid = valid and max(_HASHED_INTEGERS) < int(value) < 2**63
        if not valid:
            raise ValueError(
                f"The column {self.label!r} is hashed, and its input accepts {kind}, but not "
                f"{value!r}. Convert the column to strings before fit: "
                f"X[{self.label!r}].astype(str)."
            )
        return value if self.dtype == "string" else int(value)


@dataclass(frozen=True)
class _Arrays:
    """A column whose cells hold arrays."""

    index: int
    shape: tuple[int, ...]
    dtype: str


class _StrObjects(np.ndarray):
    """Strings of shape (n_rows, 1) as objects.

    ``Model.predict`` converts object arrays if each item of the iteration is a string.
    """

    def __iter__(self):
        return iter(np.asarray(self).ravel().tolist())


class RawColumns:
    """Which columns of X are numbers, categories or arrays for their ``readers``.

    Readers are described at `GraphPart._column_readers`.
    """

    def __init__(self, readers, n_columns, names):
        self.n_columns, self._names = n_columns, names
        self.allow_nan = any(imputes for *_, imputes in readers)
        self.shape = None  # of rows that are arrays of rank 2 or more
        self.arrays, self._pads = {}, {}
        numeric, known, hashed, arrays = set(), {}, {}, {}
        for indices, blocks, pad, _ in readers:
            if blocks is None:
                numeric.update(map(int, indices))
                continue
            for block in blocks.blocks_:
                part = blocks.part(block.name)
                columns = [int(indices[index]) for index in part.indices]
                if isinstance(part, TensorBlock):
                    self.shape = part.own_shape
                elif isinstance(part, NumericBlock):
                    numeric.update(columns)
                elif isinstance(part, ArrayColumnBlock):
                    arrays.setdefault(columns[0], set()).add((part.own_shape, block.dtype))
                    if pad is not None:
                        self._pads[columns[0]] = (indices, pad)
                elif part.hashed:
                    hashed[columns[0]] = part.holds_words
                    known.setdefault(columns[0], {})
                else:
                    known.setdefault(columns[0], {}).update(dict.fromkeys(part.levels))
        self.used = np.array(sorted(numeric), dtype=int)
        self.categories = {}
        for index in sorted(known):
            label = self.label(index)
            self.categories[self._input_name(label)] = _categories(
                index, list(known[index]), label, index in hashed, hashed.get(index, True)
            )
        for index in sorted(arrays):
            label = self.label(index)
            if len(arrays[index]) > 1:
                raise ValueError(
                    f"The column {label!r} holds arrays of different shapes for parts of the "
                    f"estimator, but can only be one input: {arrays[index]}. Give all PadSequences "
                    "the same length."
                )
            self.arrays[self._input_name(label)] = _Arrays(index, *arrays[index].pop())
        self.numbers = self.used if known or arrays else np.arange(n_columns)

    def _input_name(self, label):
        return keras_name(label, {*_RESERVED, *self.categories, *self.arrays})

    def label(self, index):
        """What messages call a column of X."""
        return f"x{index}" if self._names is None else self._names[index]

    def table(self, look_up):
        """The inputs of the model, and a table of them.

        ``look_up`` is how categories become codes: ``"layers"``: by lookup layers of Keras;
        ``"equality"``: integers by comparison with each known one, for runtimes without lookups;
        ``"codes"``: the inputs of strings are codes.
        """
        if self.shape is not None:
            inputs = keras.Input(self.shape, name="features")
            return inputs, GraphTable(whole=inputs, columns=[None] * self.n_columns)
        columns, inputs = [None] * self.n_columns, {}
        numeric = None
        if len(self.numbers):
            name = "numeric" if self.named else "features"
            numeric = keras.Input((len(self.numbers),), name=name)
            inputs[name] = numeric
            for number, index in enumerate(self.numbers):
                columns[index] = number
        for name, column in self.categories.items():
            coded = look_up == "codes" and column.dtype == "string"
            inputs[name] = keras.Input((1,), name=name, dtype="int64" if coded else column.dtype)
            number = columns[column.index]  # if another part reads it as a number
            columns[column.index] = _coded(name, column, inputs[name], look_up)
            if number is not None:
                as_number = partial(
                    function_layer, f"{name}_number", [numeric], selection([number])
                )
                columns[column.index] = replace(columns[column.index], number=as_number)
        for name, column in self.arrays.items():
            inputs[name] = keras.Input(column.shape, name=name, dtype=column.dtype)
            columns[column.index] = ArrayColumn(inputs[name])
        table = GraphTable(numeric=numeric, columns=columns)
        return (inputs if self.named else numeric), table

    @property
    def input_names(self):
        """Names of the inputs."""
        if not self.named:
            return ["features"]
        return ["numeric", *self.categories, *self.arrays]

    @property
    def named(self):
        """Whether the inputs are a dict."""
        return bool(self.categories or self.arrays)

    def inputs_of(self, X, *, numpy):
        """Rows of X as inputs of the model; see ``ExportMixin.keras_inputs``."""
        if self.shape is not None:
            return check_array(X, dtype=np.float32, allow_nd=True, input_name="X")
        numbers = self._numbers_of(X) if len(self.numbers) else None
        if not self.named:
            return numbers
        inputs = {} if numbers is None else {"numeric": numbers}
        for name, column in self.arrays.items():
            inputs[name] = self._array_of(X, column)
        if not self.categories:
            return inputs
        indices = [column.index for column in self.categories.values()]
        part = take_columns(X, indices, "columns")
        blocks = ColumnBlocks(np.ones(len(indices), dtype=bool)).fit(part)
        codes = blocks.split(part)
        for (name, column), block in zip(self.categories.items(), blocks.blocks_, strict=True):
            unseen, missing = column.tokens[:2]
            tokens = [unseen, missing, *map(column.token_of, blocks.categories_[block.name])]
            tokens = np.array(tokens, dtype=None if column.dtype == "string" else np.int64)
            inputs[name] = tokens[codes[block.name]][:, None]
        strings = [name for name, column in self.categories.items() if column.dtype == "string"]
        if numpy or not strings:
            return inputs
        if numpy is None:
            as_objects = {name: inputs[name].astype(object).view(_StrObjects) for name in strings}
            return {**inputs, **as_objects}
        return {name: ops.convert_to_tensor(array) for name, array in inputs.items()}

    def _array_of(self, X, column):
        if column.index in self._pads:
            indices, pad = self._pads[column.index]
            X = pad.transform(take_columns(X, list(map(int, indices)), "columns"))
            part = take_columns(X, [list(indices).index(column.index)], "columns")
        else:
            part = take_columns(X, [column.index], "columns")
        (array,) = ColumnBlocks().fit(part).split(part).values()
        if array.shape[1:] != column.shape:
            raise ValueError(
                f"The column {part.columns[0]!r} holds arrays of shape {array.shape[1:]}, but was "
                f"fitted on shape {column.shape}."
            )
        return array.astype(column.dtype, copy=False)

    def _numbers_of(self, X):
        used = [index for index in self.numbers if index in set(self.used)]
        numbers = np.zeros((X.shape[0], len(self.numbers)), dtype=np.float32)
        if used:
            part = X if len(used) == X.shape[1] else take_columns(X, used, "columns")
            part = as_numbers(part, allow_nan=self.allow_nan)
            numbers[:, np.searchsorted(self.numbers, used)] = part
        return numbers


def _coded(name, column, tensor, look_up):
    """The codes of an input of categories as a column of a table."""

    def codes(x):
        if look_up == "codes" and column.dtype == "string":
            code = x
        elif look_up == "layers" or column.dtype == "string":
            code = _lookup_layer(column)(x)
        else:
            equal = ops.equal(x, column.tokens[None, 1:])
            known = np.arange(1, len(column.tokens), dtype=np.int64)[None]
            code = ops.sum(ops.where(equal, known, np.zeros_like(known)), axis=1, keepdims=True)
        # Not squeezed: the LiteRT interpreter would lose the shape for a single row.
        return ops.cast(ops.reshape(code, (-1,)), "int32")

    def as_hash(n_buckets):
        return function_layer(f"{name}_buckets", [tensor], lambda x: _buckets(x, column, n_buckets))

    return CodedColumn(
        function_layer(f"{name}_codes", [tensor], codes),
        column.known,
        hashed=as_hash if column.hashed and look_up == "layers" else None,
    )


def _buckets(x, column, n_buckets):
    """As `hash_buckets` of preprocessing: 1 is a missing value, buckets follow."""
    missing = column.tokens[1].item()
    bucket = keras.layers.Hashing(n_buckets + 1, mask_value=missing, name="buckets")(x)
    return ops.cast(ops.reshape(bucket, (-1,)), "int32") + 1


def _lookup_layer(column):
    unseen, *vocabulary = column.tokens.tolist()
    is_string = column.dtype == "string"
    return (keras.layers.StringLookup if is_string else keras.layers.IntegerLookup)(
        vocabulary=vocabulary, num_oov_indices=1, oov_token=unseen, mask_token=None, name="lookup"
    )


def _categories(index, known, label, hashed=False, hashes_strings=True):
    """A column of categories, with tokens for unseen and missing values that are not among them."""
    if all(isinstance(value, str) for value in known) and (known or hashes_strings):
        unseen, missing = _unused("[UNK]", "[UNK]", known), _unused("", "missing", known)
        unseen, missing = _HASHED_STRINGS if hashed else (unseen, missing)
        tokens = np.array([unseen, missing, *known], dtype=np.dtypes.StrDType)
        return _Categories(index, label, known, tokens, hashed)
    if not all(map(_is_whole, known)):
        raise ValueError(
            f"The column {label!r} has the categories {known[:5]!r}, but as inputs of an exported "
            "model categories must all be strings or all be integers. Convert them before fit: "
            f"X[{label!r}].astype(str)."
        )
    numbers = [int(value) for value in known]
    free = sorted(set(range(-len(numbers) - 2, 0)) - set(numbers), reverse=True)
    missing, unseen = free[:2]
    unseen, missing = _HASHED_INTEGERS if hashed else (unseen, missing)
    tokens = np.array([unseen, missing, *numbers], dtype=np.int64)
    return _Categories(index, label, known, tokens, hashed)


def _is_whole(value):
    return isinstance(value, Real) and abs(value) < 2**53 and float(value).is_integer()


def _unused(token, alternative, known):
    while token in known:
        token, alternative = alternative, f"{alternative}_"
    return token
