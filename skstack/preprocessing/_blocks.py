"""Named blocks of columns: how a table of any kind becomes arrays for a network, and back."""

import copy
import re

import numpy as np

from skstack._base.sklearn import column_indices
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
    open_table,
    says_from_dtype,
)

# Names that the recipes give to layers: an input of that name would make a second layer of it.
_TAKEN = ("numeric", "sequence", "tensor", "output", "latent")
_ACCEPTED_INPUTS = 'None, "prefix", a dict of input name to columns, or a list of columns'
_NONE = np.arange(0)
_INPUT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class ColumnBlocks:
    """Split tables into named arrays, and put such arrays together to a table again.

    Parameters
    ----------
    categorical_features : "from_dtype", None, list of str, list of int or boolean mask
        "from_dtype": the category, string and bool columns of a DataFrame, and those of objects
        that are not all numbers; arrays have none. None: no column is categorical. Positions and
        masks also work for arrays.

    inputs : None, "prefix", dict or list, default=None
        Which columns make up an input of their own: by name; by order (``input_0``, ...); or all
        whose names begin alike, up to ``__``. The other columns are what they are without it.

    input_shape : tuple of int or dict of str to tuple, default=None
        Shape of one row of numeric columns or of an array, where a network takes it reshaped; a
        dict says it for inputs by name.

    n_hash_buckets : int, default=None
        Categorical columns with more categories are hashed into so many buckets.

    imputer : SimpleImputer, default=None
        Fills missing numbers; with ``add_indicator`` columns that say so follow. None: they are an
        error.

    unseen_tokens : bool, default=False
        Whether token ids above those of the training rows become one id, the last; else they stay
        what they are, for a network that knows its own vocabulary.

    allow_nan : bool, default=False
        Whether numbers may stay missing where there is no imputer.

    Attributes
    ----------
    blocks_ : tuple of Block
        The inputs made of named columns, then the numeric columns, then categorical columns and
        those that hold arrays, in column order.
    columns_ : dict of str to list
        The original column names (of arrays: positions) behind each block.
    categories_ : dict of str to list
        The known categories behind each categorical block, sorted: code 2 is the first. Of a hashed
        one the numbers of the buckets.
    n_columns_ : int

    Notes
    -----
    Code 0 is a category that the training rows lack, code 1 a missing value (None, NaN, NA, NaT,
    null). Numbers compare by value: 1, 1.0 and True are one category.

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
        """Learn the kinds of columns, the categories that occur, and what fills gaps.

        Parameters
        ----------
        X : DataFrame, array, list or sparse matrix, a row for each sample
            Training rows.
        like : ColumnBlocks or None
            Take columns, categories and codes from there, hence the same shapes; categories that do
            not occur in this `X` become unseen ones. For the folds of a cross-fit.
        sample_weight : ndarray of shape (n_rows,) or None
            Positive; how often a row counts in what fills gaps.

        Returns
        -------
        self : ColumnBlocks

        Raises
        ------
        ValueError
            A parameter does not fit `X`, or a column holds dates or other things that are neither
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
            return self._made_of(parts)
        table = open_table(X)
        self.n_columns_ = table.shape[1]
        # By position throughout: pandas' column names may be anything.
        self._names = list(table.columns) if hasattr(table, "columns") else None
        if len(table.shape) > 2:
            parts = [self._whole(table)]
        else:
            parts = self._kinds(table)
            table = (
                dense(table) if any(isinstance(part, CategoricalBlock) for part in parts) else table
            )
        names = list(range(self.n_columns_)) if self._names is None else self._names
        self.columns_ = {part.name: [names[place] for place in part.places] for part in parts}
        return self._made_of(
            [part.fit(table, self._names, weights=sample_weight) for part in parts]
        )

    def _made_of(self, parts):
        self._parts = parts
        self.blocks_ = tuple(part.block for part in parts)
        self.categories_ = {
            part.name: part.levels for part in parts if isinstance(part, CategoricalBlock)
        }
        return self

    def split(self, X, *, dtype=np.float32):
        """Give the arrays that a network takes.

        Parameters
        ----------
        X : as in `fit`, with the same columns
        dtype : dtype, default=float32
            Of numeric columns that no imputer fills; networks take float32.

        Returns
        -------
        arrays : dict of str to ndarray
            Float32, C-contiguous, of shape (n_rows, *shape) for numbers; int32 of shape (n_rows,)
            for categories, of shape (n_rows, length) for token ids. Numbers may share memory with
            `X`: do not write into them.

        Raises
        ------
        ValueError
            Another number of columns than in `fit`; or what scikit-learn's ``check_array`` refuses:
            NaN, infinity, complex numbers, no rows, one dimension.
        """
        table = self._open(X)
        if not table.shape[0]:  # without numeric columns nothing else would say so
            raise ValueError(
                f"Found array with 0 sample(s) (shape={tuple(table.shape)}) while a minimum of 1 "
                "is required."
            )
        return {
            part.name: part.read(table, dtype)
            if isinstance(part, NumericBlock)
            else part.read(table)
            for part in self._parts
        }

    def table(self, arrays, *, for_sampler=False):
        """Put arrays together to a table with the columns of `fit`, in their order.

        Parameters
        ----------
        arrays : dict of str to ndarray
            As `split` gives them.

        for_sampler : bool, default=False
            Whether the indicators of missing values follow, which `split_again` needs.

        Returns
        -------
        table : ndarray of float32 or pandas DataFrame
            A DataFrame when there are categories: numbers float32, categories of `category` dtype
            with the known categories (bools as 0 and 1; of hashed ones the buckets); unseen and
            missing ones are NaN. Columns of arrays are called x0, x1, ...
        """
        if isinstance(self._parts[0], TensorBlock):
            return self._parts[0].rows(arrays[self._parts[0].name])
        columns, more = {}, {}
        names = [f"x{i}" for i in range(self.n_columns_)] if self._names is None else self._names
        for part in self._parts:
            columns.update(part.columns(arrays[part.name]))
            if for_sampler:
                more.update(part.more_columns(arrays[part.name], names))
        ordered = [columns[place] for place in range(self.n_columns_)]
        if all(isinstance(part, NumericBlock) for part in self._parts):
            return np.column_stack([*ordered, *more.values()])
        import pandas as pd

        table = pd.DataFrame(dict(enumerate([*ordered, *more.values()])))
        table.columns = [*names, *more]
        return table

    def split_again(self, table):
        """Give the arrays of a table that `table` made for a sampler.

        Parameters
        ----------
        table : ndarray or DataFrame
            Other rows, the same columns.

        Returns
        -------
        arrays : dict of str to ndarray
            As `split` gives them.
        """
        table = open_table(table)
        if isinstance(self._parts[0], TensorBlock):
            return {self._parts[0].name: self._parts[0].read(table)}
        arrays, first = {}, self.n_columns_
        for part in self._parts:
            more = np.arange(first, first + getattr(part, "indicated", _NONE).size)
            first += more.size
            arrays[part.name] = part.from_columns(table, more)
        return arrays

    def places(self):
        """Positions of the columns behind each block.

        Returns
        -------
        places : dict of str to list of int
        """
        return {part.name: [int(place) for place in part.places] for part in self._parts}

    def part(self, name):
        """Give the part that makes the array of one block."""
        return next(part for part in self._parts if part.name == name)

    # -----------------------------------------------------------------------------------------

    def _whole(self, array):
        """Three and more dimensions: the whole array is one block."""
        said = self.categorical_features
        if not (said is None or says_from_dtype(said)):
            raise ValueError(
                f"categorical_features={said!r} needs a table; X has {array.ndim} dimensions."
            )
        if self.inputs is not None:
            raise ValueError(
                f"inputs={self.inputs!r} needs a table; X has {array.ndim} dimensions."
            )
        return TensorBlock(tuple(array.shape[1:]), self._shape_of(None))

    def _kinds(self, table):
        """The parts of a table, not fitted yet."""
        mask = categorical_mask(self.categorical_features, table, self._names)
        cells = array_columns(table, mask, self.categorical_features)
        numeric = ~(mask | cells)
        groups = self._groups(table)
        free = np.ones(self.n_columns_, dtype=bool)
        parts = []
        for name, places in groups.items():
            free[places] = False
            if self.inputs == "prefix":  # the others are inputs by themselves
                free[places[~numeric[places]]] = True
                places = places[numeric[places]]
                if not len(places):
                    continue
            if numeric[places].all():
                parts.append(self._numbers(name, places, self._shape_of(name)))
            elif len(places) == 1:
                parts.append(self._single(name, places[0], cells))
            else:
                raise ValueError(
                    f"inputs: {name!r} is made of {self._told(places)}, of which "
                    f"{self._told(places[~numeric[places]])} hold categories or arrays. Each of "
                    "these is an input by itself."
                )
        rest = np.flatnonzero(numeric & free)
        if rest.size:
            shape = self._shape_of(None if not groups else "numeric")
            name = "numeric" if shape is None else kind_of(shape)
            parts.append(self._numbers(name, rest, shape))
        taken = {*_TAKEN, *groups}
        for place in np.flatnonzero(~numeric & free):
            column = f"x{place}" if self._names is None else self._names[place]
            name = _block_name(column, taken)
            taken.add(name)
            parts.append(self._single(name, place, cells))
        names = [part.name for part in parts]
        if isinstance(self.input_shape, dict) and set(self.input_shape) - set(names):
            raise ValueError(
                f"input_shape={self.input_shape!r} names what is no input; X makes {names}."
            )
        if len(set(names)) < len(names):
            raise ValueError(f"inputs={self.inputs!r}: the other columns make an input 'numeric'.")
        return parts

    def _numbers(self, name, places, shape):
        return NumericBlock(name, places, shape, self.imputer, self.allow_nan)

    def _single(self, name, place, cells):
        if cells[place]:
            return ArrayColumnBlock(name, int(place), self._shape_of(name), self.unseen_tokens)
        usual = says_from_dtype(self.categorical_features)
        return CategoricalBlock(name, int(place), self.n_hash_buckets, usual)

    def _told(self, places):
        return [int(place) if self._names is None else self._names[place] for place in places]

    def _shape_of(self, name):
        """What `input_shape` says of an input; None stands for the only one."""
        said = self.input_shape
        if isinstance(said, dict):
            return None if said.get(name) is None else tuple(said[name])
        return tuple(said) if said is not None and name is None else None

    def _groups(self, table):
        """Positions of the columns of each input that the user named."""
        said = self.inputs
        if said is None:
            return {}
        if isinstance(said, str) and said == "prefix":
            return self._by_prefix()
        if isinstance(said, (list, tuple)):
            said = {f"input_{number}": columns for number, columns in enumerate(said)}
        if not isinstance(said, dict) or not all(isinstance(name, str) for name in said):
            raise ValueError(f"inputs={self.inputs!r}; expected {_ACCEPTED_INPUTS}.")
        frame = table.to_native() if hasattr(table, "to_native") else table
        groups = {}
        for name, columns in said.items():
            if not _INPUT_NAME.fullmatch(name):
                raise ValueError(
                    f"inputs: {name!r} is no name that Keras can give to layers; use letters "
                    "without accents, digits and underscores."
                )
            try:
                chosen = columns(frame) if callable(columns) else columns
                places = np.asarray(column_indices(frame, chosen), dtype=int)
            except Exception as error:  # whatever a callable, or odd keys, may raise
                raise ValueError(
                    f"inputs: {columns!r} for {name!r} selects no columns of X: "
                    f"{type(error).__name__}: {error}"
                ) from error
            if not places.size:
                raise ValueError(f"inputs: {columns!r} for {name!r} selects no columns of X.")
            groups[name] = places
        return groups

    def _by_prefix(self):
        if self._names is None:
            raise ValueError('inputs="prefix" goes by column names, but X has none.')
        groups = {}
        for place, name in enumerate(self._names):
            prefix, found, _ = str(name).partition("__")
            if found and prefix:
                groups.setdefault(prefix, []).append(place)
        named = {}
        for prefix, places in groups.items():
            named[_block_name(prefix, named)] = np.asarray(places)
        return named

    def _open(self, X):
        """Give rows as something with columns, after a look at its shape."""
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


def categorical_places(said, X, places):
    """What `categorical_features` says of X, said of some columns of it.

    Parameters
    ----------
    said : as in `ColumnBlocks`

    X : DataFrame, array or sparse matrix

    places : ndarray of int

    Returns
    -------
    "from_dtype", None, or boolean mask of shape (n_places,)
    """
    if said is None or says_from_dtype(said):
        return said
    table = open_table(X)
    names = list(table.columns) if hasattr(table, "columns") else None
    return categorical_mask(said, table, names)[places]


def cell_columns(X):
    """Positions of the columns of a frame whose cells hold arrays.

    Parameters
    ----------
    X : DataFrame, array or sparse matrix

    Returns
    -------
    ndarray of int
    """
    table = open_table(X)
    if len(table.shape) != 2:
        return _NONE
    everything = np.ones(table.shape[1], dtype=bool)
    return np.flatnonzero(array_columns(table, everything, "from_dtype"))


def _block_name(column, taken):
    """Make a column's name fit for a Keras layer, and one of its own."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", str(column)).lstrip("_") or "column"
    number, unique = 1, name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique
