"""Named blocks of columns: how a table of any kind becomes arrays for a network, and back."""

from __future__ import annotations

import copy
import re

import numpy as np

from skstack._base.tables import column_indices
from skstack.preprocessing._block_kinds import (
    ArrayColumnBlock,
    CategoricalBlock,
    NumericBlock,
    TensorBlock,
    kind_of,
)
from skstack.preprocessing._columns import (
    array_columns,
    categorical_mask,
    dense,
    is_default_categorical,
    is_from_dtype,
    open_table,
)

# Layer names of the recipes, which inputs may not have.
_RESERVED_NAMES = ("numeric", "sequence", "tensor", "output", "latent")
_ACCEPTED_INPUTS = 'None, "prefix", a dict of input name to columns, or a list of columns'
_INPUT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class ColumnBlocks:
    """Split tables into named arrays, and assemble such arrays into a table again.

    Parameters
    ----------
    categorical_features : "from_dtype", None, list of str, list of int or boolean mask
        "from_dtype": the category, string and bool columns of a DataFrame, and object columns with
        values other than numbers; none for arrays. None: no column is categorical. Positions and
        masks also work for arrays.

    inputs : None, "prefix", dict or list, default=None
        Columns that form one input: by the input's name; by order (``input_0``, ...); or by the
        prefix of the column name, up to ``__``. Other columns are treated as with None.

    input_shape : tuple of int or dict of str to tuple, default=None
        Shape to which one row of numeric columns, or of an array, is reshaped; a dict holds one
        for each input.

    n_hash_buckets : int, default=None
        Categorical columns with more categories are hashed into this many buckets.

    imputer : SimpleImputer, default=None
        Imputes missing numbers, and adds indicator columns with ``add_indicator``. None: missing
        numbers raise an error.

    unseen_tokens : bool, default=False
        Whether token ids above those of the training rows are mapped to one id, the last; False
        keeps them, for a network that has its own vocabulary.

    allow_nan : bool, default=False
        Whether numbers may stay missing without an imputer.

    Attributes
    ----------
    blocks_ : tuple of Block
        The inputs named by the user, then the numeric columns, then categorical columns and columns
        of arrays, in column order.
    columns_ : dict of str to list
        The original column names (for arrays: indices) of each block.
    categories_ : dict of str to list
        The sorted known categories of each categorical block: code 2 is the first. For a hashed
        block the numbers of the buckets.
    n_columns_ : int

    Notes
    -----
    Code 0 is an unseen category, code 1 a missing value (None, NaN, NA, NaT, null). Numbers compare
    by value: 1, 1.0 and True are one category.

    Examples
    --------
    >>> import pandas as pd
    >>> from skstack.preprocessing._blocks import ColumnBlocks
    >>> X = pd.DataFrame({"job": ["cook", None, "vet"], "age": [31, 40, 56]})
    >>> blocks = ColumnBlocks().fit(X)
    >>> [(block.name, block.shape, block.cardinality) for block in blocks.blocks_]
    [('numeric', (1,), None), ('job', (), 4)]
    >>> blocks.split(X)["job"].tolist()
    [2, 1, 3]
    >>> blocks.split(pd.DataFrame({"job": ["king"], "age": [7]}))["job"].tolist()
    [0]
    """

    def __init__(
        self,
        categorical_features="from_dtype",
        *,
        inputs=None,
        input_shape=None,
        n_hash_buckets=None,
        imputer=None,
        unseen_tokens=False,
        allow_nan=False,
    ):
        self.categorical_features = categorical_features
        self.inputs = inputs
        self.input_shape = input_shape
        self.n_hash_buckets = n_hash_buckets
        self.imputer = imputer
        self.unseen_tokens = unseen_tokens
        self.allow_nan = allow_nan

    def fit(self, X, *, like=None, sample_weight=None):
        """Learn the kinds of columns, the categories that occur, and the imputed values.

        Parameters
        ----------
        X : DataFrame, array, list or sparse matrix, a row for each sample
            Training rows.
        like : ColumnBlocks or None
            Take columns, categories and codes, hence shapes, from another one; categories that do
            not occur in this `X` become unseen. For the folds of a cross-fit.
        sample_weight : ndarray of shape (n_rows,) or None
            Positive; how often a row counts in the imputed values.

        Returns
        -------
        self : ColumnBlocks

        Raises
        ------
        ValueError
            A parameter does not fit `X`, or a column holds dates or other values that are neither
            numbers nor categories nor arrays of one shape.
        TypeError
            A categorical column holds values that cannot be hashed, such as sets.
        """
        if like is not None:
            for name in ("n_columns_", "columns_", "_names"):
                setattr(self, name, getattr(like, name))
            table = like._open(X)
            parts = [
                copy.copy(part).fit(table, self._names, like=part, weights=sample_weight)
                for part in like._parts
            ]
            return self._set_parts(parts)
        table = open_table(X)
        self.n_columns_ = table.shape[1]
        # Columns are addressed by index: pandas' column names may be anything.
        self._names = list(table.columns) if hasattr(table, "columns") else None
        if len(table.shape) > 2:
            parts = [self._tensor_part(table)]
        else:
            parts = self._table_parts(table)
            if any(isinstance(part, CategoricalBlock) for part in parts):
                table = dense(table)
        self.columns_ = {part.name: self._names_of(part.indices) for part in parts}
        return self._set_parts(
            [part.fit(table, self._names, weights=sample_weight) for part in parts]
        )

    def _set_parts(self, parts):
        self._parts = parts
        self.blocks_ = tuple(part.block for part in parts)
        self.categories_ = {
            part.name: part.levels for part in parts if isinstance(part, CategoricalBlock)
        }
        return self

    def split(self, X, *, dtype=np.float32):
        """Return the arrays that a network takes.

        Parameters
        ----------
        X : as in `fit`, with the same columns
        dtype : dtype, default=float32
            Dtype of numeric columns without an imputer; networks take float32.

        Returns
        -------
        arrays : dict of str to ndarray
            Float32, C-contiguous, of shape (n_rows, *shape) for numbers; int32 of shape (n_rows,)
            for categories, of shape (n_rows, length) for token ids. Numbers may share memory with
            `X`: do not write to them.

        Raises
        ------
        ValueError
            If the number of columns differs from `fit`, or scikit-learn's ``check_array`` raises:
            NaN, infinity, complex numbers, no rows, one dimension.
        """
        table = self._open(X)
        if not table.shape[0]:  # not checked elsewhere without numeric columns
            raise ValueError(
                f"Found array with 0 sample(s) (shape={tuple(table.shape)}) while a minimum of 1 "
                "is required."
            )
        return {part.name: part.read(table, dtype) for part in self._parts}

    def table(self, arrays, *, for_sampler=False):
        """Assemble arrays into a table with the columns of `fit`, in their order.

        Parameters
        ----------
        arrays : dict of str to ndarray
            As `split` returns them.

        for_sampler : bool, default=False
            Whether to append the indicators of missing values, which `split_again` needs.

        Returns
        -------
        table : ndarray of float32 or pandas DataFrame
            A DataFrame when there are categories: numbers float32, categories of `category` dtype
            with the known categories (bools as 0 and 1; of hashed ones the buckets); unseen and
            missing ones are NaN. Columns of arrays are called x0, x1, ...
        """
        if isinstance(self._parts[0], TensorBlock):
            return self._parts[0].rows(arrays[self._parts[0].name])
        columns, indicators = {}, {}
        names = [f"x{i}" for i in range(self.n_columns_)] if self._names is None else self._names
        for part in self._parts:
            columns.update(part.columns(arrays[part.name]))
            if for_sampler:
                indicators.update(part.indicator_columns(arrays[part.name], names))
        ordered = [columns[index] for index in range(self.n_columns_)] + [*indicators.values()]
        if all(isinstance(part, NumericBlock) for part in self._parts):
            return np.column_stack(ordered)
        import pandas as pd

        table = pd.DataFrame(dict(enumerate(ordered)))
        table.columns = [*names, *indicators]
        return table

    def split_again(self, table):
        """Return the arrays of a table that `table` made for a sampler.

        Parameters
        ----------
        table : ndarray or DataFrame
            Other rows of the same columns.

        Returns
        -------
        arrays : dict of str to ndarray
            As `split` returns them.
        """
        table = open_table(table)
        if isinstance(self._parts[0], TensorBlock):
            return {self._parts[0].name: self._parts[0].read(table)}
        arrays, first = {}, self.n_columns_
        for part in self._parts:
            indicators = np.arange(first, first + part.indicated.size)
            first += indicators.size
            arrays[part.name] = part.from_columns(table, indicators)
        return arrays

    def column_indices(self):
        """Indices of the columns of each block, as a dict of name to list of int."""
        return {part.name: [int(index) for index in part.indices] for part in self._parts}

    def part(self, name):
        """The part that makes the array of a block."""
        return next(part for part in self._parts if part.name == name)

    # -----------------------------------------------------------------------------------------

    def _tensor_part(self, array):
        """Three and more dimensions: the whole array is one block."""
        for name, is_default in (
            ("categorical_features", is_default_categorical(self.categorical_features)),
            ("inputs", self.inputs is None),
        ):
            if not is_default:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} requires a table; X has {array.ndim} "
                    "dimensions."
                )
        return TensorBlock(tuple(array.shape[1:]), self._shape_of(None))

    def _table_parts(self, table):
        """The parts of a table, not fitted yet."""
        mask = categorical_mask(self.categorical_features, table, self._names)
        arrays = array_columns(table, mask, self.categorical_features)
        numeric = ~(mask | arrays)
        groups = self._groups(table)
        free = np.ones(self.n_columns_, dtype=bool)
        parts = []
        for name, indices in groups.items():
            free[indices] = False
            if self.inputs == "prefix":  # the others are separate inputs
                free[indices[~numeric[indices]]] = True
                indices = indices[numeric[indices]]
                if not len(indices):
                    continue
            if numeric[indices].all():
                parts.append(self._numeric_part(name, indices, self._shape_of(name)))
            elif len(indices) == 1:
                parts.append(self._column_part(name, indices[0], arrays))
            else:
                raise ValueError(
                    f"inputs: {name!r} combines the columns {self._names_of(indices)}, but "
                    f"{self._names_of(indices[~numeric[indices]])} hold categories or arrays, each "
                    "of which must be a separate input."
                )
        rest = np.flatnonzero(numeric & free)
        if rest.size:
            shape = self._shape_of(None if not groups else "numeric")
            name = "numeric" if shape is None else kind_of(shape)
            parts.append(self._numeric_part(name, rest, shape))
        taken = {*_RESERVED_NAMES, *groups}
        for index in np.flatnonzero(~numeric & free):
            column = f"x{index}" if self._names is None else self._names[index]
            name = keras_name(column, taken)
            taken.add(name)
            parts.append(self._column_part(name, index, arrays))
        names = [part.name for part in parts]
        if isinstance(self.input_shape, dict) and set(self.input_shape) - set(names):
            raise ValueError(
                f"input_shape={self.input_shape!r} names unknown inputs; the inputs are {names}."
            )
        if len(set(names)) < len(names):
            raise ValueError(
                f"inputs={self.inputs!r}: 'numeric' is reserved for the remaining numeric columns."
            )
        return parts

    def _numeric_part(self, name, indices, shape):
        return NumericBlock(name, indices, shape, self.imputer, self.allow_nan)

    def _column_part(self, name, index, arrays):
        if arrays[index]:
            return ArrayColumnBlock(name, int(index), self._shape_of(name), self.unseen_tokens)
        from_dtype = is_from_dtype(self.categorical_features)
        return CategoricalBlock(name, int(index), self.n_hash_buckets, from_dtype)

    def _names_of(self, indices):
        return [int(index) if self._names is None else self._names[index] for index in indices]

    def _shape_of(self, name):
        """The `input_shape` of an input; None is the only one."""
        shape = self.input_shape
        if isinstance(shape, dict):
            return None if shape.get(name) is None else tuple(shape[name])
        return tuple(shape) if shape is not None and name is None else None

    def _groups(self, table):
        """Indices of the columns of each input that the user named."""
        inputs = self.inputs
        if inputs is None:
            return {}
        if isinstance(inputs, str) and inputs == "prefix":
            return self._by_prefix()
        if isinstance(inputs, (list, tuple)):
            inputs = {f"input_{number}": columns for number, columns in enumerate(inputs)}
        if not isinstance(inputs, dict) or not all(isinstance(name, str) for name in inputs):
            raise ValueError(f"inputs={self.inputs!r}; expected {_ACCEPTED_INPUTS}.")
        frame = table.to_native() if hasattr(table, "to_native") else table
        groups = {}
        for name, columns in inputs.items():
            if not _INPUT_NAME.fullmatch(name):
                raise ValueError(
                    f"inputs: {name!r} is not a valid Keras layer name; use ASCII letters, digits "
                    "and underscores."
                )
            indices = []
            if columns is not None:
                indices = column_indices(frame, columns, f"inputs[{name!r}]")
            if not len(indices):
                raise ValueError(f"inputs[{name!r}]={columns!r} selects no columns of X.")
            groups[name] = indices
        return groups

    def _by_prefix(self):
        if self._names is None:
            raise ValueError('inputs="prefix" requires column names, but X has none.')
        groups = {}
        for index, name in enumerate(self._names):
            prefix, separator, _ = str(name).partition("__")
            if separator and prefix:
                groups.setdefault(prefix, []).append(index)
        named = {}
        for prefix, indices in groups.items():
            named[keras_name(prefix, named)] = np.asarray(indices)
        return named

    def _open(self, X):
        """Rows as a table, after a check of the shape."""
        table = open_table(X)
        if isinstance(self._parts[0], TensorBlock):
            return table
        if len(table.shape) != 2:
            raise ValueError(f"X has {len(table.shape)} dimensions, but was fitted on a table.")
        if table.shape[1] != self.n_columns_:
            raise ValueError(
                f"X has {table.shape[1]} features, but was fitted on {self.n_columns_} features."
            )
        return dense(table) if self.categories_ else table


def categorical_mask_of(categorical_features, X, indices):
    """`categorical_features` for some columns of X: "from_dtype", None, or a boolean mask."""
    if is_default_categorical(categorical_features):
        return categorical_features
    table = open_table(X)
    names = list(table.columns) if hasattr(table, "columns") else None
    return categorical_mask(categorical_features, table, names)[indices]


def array_column_indices(X):
    """Indices of the columns of a DataFrame whose cells hold arrays."""
    table = open_table(X)
    if len(table.shape) != 2:
        return np.arange(0)
    return np.flatnonzero(array_columns(table, np.ones(table.shape[1], dtype=bool), "from_dtype"))


def keras_name(column, taken):
    """A name for the input or output of a column: valid for Keras, and not taken."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", str(column)).lstrip("_") or "column"
    number, unique = 1, name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique
