"""The raw columns of X as inputs of a network."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from numbers import Real

import keras
import numpy as np
from keras import ops
from sklearn.utils import check_array

from skstack._base.tables import take_columns
from skstack._graph.tables import Cell, CodedColumn, GraphTable, grouped, number_column
from skstack.preprocessing._block_kinds import ArrayColumnBlock, NumericBlock, TensorBlock
from skstack.preprocessing._blocks import ColumnBlocks
from skstack.preprocessing._columns import as_numbers

# Where all values of a column count, as hashed ones do, these are not among them: words have no
# characters for private use, and whole numbers that are categories are not that small.
_NO_WORDS = ("\ue000[UNK]", "\ue000[MISSING]")
_NO_NUMBERS = (-(2**63) + 1, -(2**63))
_TAKEN = ("numeric", "features", "output_0")


@dataclass(frozen=True)
class _Words:
    """A column of categories: what its codes 0 (unseen), 1 (missing), 2, 3, ... look like."""

    place: int
    label: object
    known: list
    tokens: np.ndarray
    hashed: bool = False

    @property
    def dtype(self):
        return "int64" if self.tokens.dtype.kind == "i" else "string"

    def token_of(self, value):
        """A value as it comes in; one that no input can hold is an unseen one, if there are any."""
        if self.hashed:
            return self._hashed_token_of(value)
        unseen, missing = self.tokens[:2].tolist()
        if self.dtype == "string":
            return value if isinstance(value, str) and value != missing else unseen
        if not _is_whole(value) or value == missing:
            return unseen
        return int(value)

    def _hashed_token_of(self, value):
        held = "words" if self.dtype == "string" else "whole numbers"
        if self.dtype == "string":
            # NumPy takes zeros at the end of a word away.
            fits = isinstance(value, str) and value not in _NO_WORDS and value[-1:] != "\0"
        else:
            fits = isinstance(value, Real) and float(value).is_integer()
            fits = fits and max(_NO_NUMBERS) < int(value) < 2**63
        if not fits:
            raise ValueError(
                f"The column {self.label!r} is hashed, and its input takes {held}; the value "
                f"{value!r} is none that it can hold. Turn the column into words before the fit: "
                f"X[{self.label!r}].astype(str)."
            )
        return value if self.dtype == "string" else int(value)


@dataclass(frozen=True)
class _Arrays:
    """A column whose cells hold arrays."""

    place: int
    shape: tuple[int, ...]
    dtype: str


class _StrObjects(np.ndarray):
    """Words of shape (n_rows, 1), as objects.

    ``Model.predict`` makes tensors of arrays of objects whose items, row by row, are words.
    """

    def __iter__(self):
        return iter(np.asarray(self).ravel().tolist())


class RawColumns:
    """Which columns of X are numbers and which are categories, for all that read them.

    Parameters
    ----------
    readers : list of (ndarray of int, ColumnBlocks or None, PadSequences or None)
        Positions of columns, and how a part of the estimator reads them; None means as numbers. It
        may read sequences that were padded before.

    n_columns : int
        Of X.

    names : sequence of str or None
        Of the columns of X.

    takes_nan : bool
        Whether a missing number is filled in by a part of the estimator.

    Raises
    ------
    ValueError
        If a column has categories that no look-up layer takes.
    """

    def __init__(self, readers, n_columns, names, takes_nan):
        self.n_columns = n_columns
        self.takes_nan = takes_nan
        self.shape = None
        self.cells, self._pads = {}, {}
        numeric, known, hashed, cells = set(), {}, {}, {}
        for places, blocks, pad in readers:
            if blocks is None:
                numeric.update(map(int, places))
                continue
            for block in blocks.blocks_:
                part = blocks.part(block.name)
                columns = [int(places[place]) for place in part.indices]
                if isinstance(part, TensorBlock):
                    self.shape = part.own_shape
                elif isinstance(part, NumericBlock):
                    numeric.update(columns)
                elif isinstance(part, ArrayColumnBlock):
                    cells.setdefault(columns[0], set()).add((part.own_shape, block.dtype))
                    if pad is not None:
                        self._pads[columns[0]] = (places, pad)
                elif part.hashed:
                    hashed[columns[0]] = part.holds_words
                    known.setdefault(columns[0], {})
                else:
                    known.setdefault(columns[0], {}).update(dict.fromkeys(part.levels))
        self.used = np.array(sorted(numeric), dtype=int)
        self.categories, taken = {}, set(_TAKEN)
        for place in sorted(known):
            label = f"x{place}" if names is None else names[place]
            name = _input_name(label, taken)
            taken.add(name)
            self.categories[name] = _words(
                place, list(known[place]), label, place in hashed, hashed.get(place, True)
            )
        for place in sorted(cells):
            label = f"x{place}" if names is None else names[place]
            if len(cells[place]) > 1:
                raise ValueError(
                    f"The column {label!r} holds arrays of other shapes for one part of the "
                    f"estimator than for another, which one input cannot be: {cells[place]}. Give "
                    "all PadSequences the same length."
                )
            name = _input_name(label, taken)
            taken.add(name)
            self.cells[name] = _Arrays(place, *cells[place].pop())
        self.numbers = self.used if known or cells else np.arange(n_columns)

    def table(self, look_up):
        """Inputs of a network, and the table that they make.

        Parameters
        ----------
        look_up : {"layers", "equality", "given words"}
            How categories become codes: by Keras' look-up layers; numbers by comparison with each
            known one, which every runtime can compute; or, for words, codes are what comes in.

        Returns
        -------
        inputs : keras.KerasTensor or dict of str to keras.KerasTensor

        table : Table
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
            for number, place in enumerate(self.numbers):
                columns[place] = number
        for name, words in self.categories.items():
            dtype = words.dtype
            given = look_up == "given words" and dtype == "string"
            inputs[name] = keras.Input((1,), name=name, dtype="int64" if given else dtype)
            number = columns[words.place]  # of those that read it as one
            columns[words.place] = _coded(name, words, inputs[name], look_up)
            if number is not None:
                as_number = number_column(numeric, number, f"{name}_number")
                columns[words.place] = replace(columns[words.place], number=as_number)
        for name, arrays in self.cells.items():
            inputs[name] = keras.Input(arrays.shape, name=name, dtype=arrays.dtype)
            columns[arrays.place] = Cell(inputs[name])
        table = GraphTable(numeric=numeric, columns=columns)
        return (inputs if self.named else numeric), table

    @property
    def input_names(self):
        """Names of the inputs."""
        if not self.named:
            return ["features"]
        return ["numeric", *self.categories, *self.cells]

    @property
    def named(self):
        """Whether there are several inputs, each with a name."""
        return bool(self.categories or self.cells)

    def arrays(self, X, *, numpy):
        """Rows of X as what the inputs take; see ``ExportMixin.keras_inputs``."""
        if self.shape is not None:
            return check_array(X, dtype=np.float32, allow_nd=True, input_name="X")
        numbers = None
        if len(self.numbers):
            numbers = self._as_numbers(X)
        if not self.named:
            return numbers
        arrays = {} if numbers is None else {"numeric": numbers}
        for name, cells in self.cells.items():
            arrays[name] = self._as_array(X, cells)
        if not self.categories:
            return arrays
        places = [words.place for words in self.categories.values()]
        part = take_columns(X, places, "columns")
        blocks = ColumnBlocks(np.ones(len(places), dtype=bool)).fit(part)
        coded = blocks.split(part)
        for (name, words), own in zip(self.categories.items(), blocks.blocks_, strict=True):
            unseen, missing = words.tokens[:2]
            tokens = [unseen, missing, *map(words.token_of, blocks.categories_[own.name])]
            tokens = np.array(tokens, dtype=None if words.dtype == "string" else np.int64)
            arrays[name] = tokens[coded[own.name]][:, None]
        words = [name for name, column in self.categories.items() if column.dtype == "string"]
        if numpy or not words:
            return arrays
        if numpy is None:
            as_objects = {name: arrays[name].astype(object).view(_StrObjects) for name in words}
            return {**arrays, **as_objects}
        return {name: ops.convert_to_tensor(array) for name, array in arrays.items()}

    def _as_array(self, X, cells):
        if cells.place in self._pads:
            places, pad = self._pads[cells.place]
            X = pad.transform(take_columns(X, list(map(int, places)), "columns"))
            part = take_columns(X, [list(places).index(cells.place)], "columns")
        else:
            part = take_columns(X, [cells.place], "columns")
        (array,) = ColumnBlocks().fit(part).split(part).values()
        if array.shape[1:] != cells.shape:
            raise ValueError(
                f"The column {part.columns[0]!r} holds arrays of shape {array.shape[1:]}, but was "
                f"fitted on shape {cells.shape}."
            )
        return array.astype(cells.dtype, copy=False)

    def _as_numbers(self, X):
        used = [place for place in self.numbers if place in set(self.used)]
        numbers = np.zeros((X.shape[0], len(self.numbers)), dtype=np.float32)
        if used:
            whole = len(used) == X.shape[1]
            part = X if whole else take_columns(X, used, "columns")
            part = as_numbers(part, allow_nan=self.takes_nan)
            numbers[:, np.searchsorted(self.numbers, used)] = part
        return numbers


def _coded(name, words, given, look_up):
    """Codes of one column, and what hashes its values."""

    def codes(x):
        if look_up == "given words" and words.dtype == "string":
            found = x
        elif look_up == "layers" or words.dtype == "string":
            found = _look_up_layer(words)(x)
        else:
            equal = ops.equal(x, words.tokens[None, 1:])
            places = np.arange(1, len(words.tokens), dtype=np.int64)[None]
            found = ops.sum(ops.where(equal, places, np.zeros_like(places)), axis=1, keepdims=True)
        # Not squeezed: of one row the LiteRT interpreter would lose the shape.
        return ops.cast(ops.reshape(found, (-1,)), "int32")

    def as_hash(n_buckets):
        return grouped(f"{name}_buckets", [given], lambda x: _buckets(x, words, n_buckets))

    return CodedColumn(
        grouped(f"{name}_codes", [given], codes),
        words.known,
        hashed=as_hash if words.hashed and look_up == "layers" else None,
    )


def _buckets(x, words, n_buckets):
    """As ``hash_buckets`` of stages: 1 is a missing value, buckets follow."""
    missing = words.tokens[1].item()
    found = keras.layers.Hashing(n_buckets + 1, mask_value=missing, name="buckets")(x)
    return ops.cast(ops.reshape(found, (-1,)), "int32") + 1


def _look_up_layer(words):
    unseen, *vocabulary = words.tokens.tolist()
    text = words.dtype == "string"
    return (keras.layers.StringLookup if text else keras.layers.IntegerLookup)(
        vocabulary=vocabulary,
        num_oov_indices=1,
        oov_token=unseen,
        mask_token=None,
        name="lookup",
    )


def _words(place, known, label, hashed=False, hashes_words=True):
    """The tokens of a column's categories, and two that are none of them."""
    if all(isinstance(value, str) for value in known) and (known or hashes_words):
        missing, unseen = _unused_word("", "missing", known), _unused_word("[UNK]", "[UNK]", known)
        unseen, missing = _NO_WORDS if hashed else (unseen, missing)
        tokens = np.array([unseen, missing, *known], dtype=np.dtypes.StrDType)
        return _Words(place, label, known, tokens, hashed)
    if not all(map(_is_whole, known)):
        raise ValueError(
            f"The column {label!r} has the categories {known[:5]!r}; as inputs of a network "
            "categories must be all words or all whole numbers. Turn them into words before the "
            f"fit: X[{label!r}].astype(str)."
        )
    numbers = [int(value) for value in known]
    free = sorted(set(range(-len(numbers) - 2, 0)) - set(numbers), reverse=True)
    missing, unseen = free[:2]
    unseen, missing = _NO_NUMBERS if hashed else (unseen, missing)
    tokens = np.array([unseen, missing, *numbers], dtype=np.int64)
    return _Words(place, label, known, tokens, hashed)


def _is_whole(value):
    return isinstance(value, Real) and abs(value) < 2**53 and float(value).is_integer()


def _unused_word(word, otherwise, known):
    while word in known:
        word, otherwise = otherwise, f"{otherwise}_"
    return word


def _input_name(column, taken):
    name = re.sub(r"[^A-Za-z0-9_]", "_", str(column)).lstrip("_") or "column"
    number, unique = 1, name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique
