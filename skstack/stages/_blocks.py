"""Named blocks of columns: how a table of any kind becomes arrays for a network, and back."""

import re
from dataclasses import dataclass

import narwhals.stable.v2 as nw
import numpy as np
from scipy import sparse
from sklearn.utils import check_array

_UNSEEN, _MISSING, _FIRST_KNOWN = 0, 1, 2
_CATEGORICAL_DTYPES = (nw.Categorical, nw.Enum, nw.String, nw.Object, nw.Boolean)
_NOT_NUMBERS = (nw.Binary, nw.List, nw.Array, nw.Struct)
# Names that the recipes give to layers: an input of that name would make a second layer of it.
_TAKEN = ("numeric", "sequence", "tensor", "output", "latent")
_ACCEPTED = '"from_dtype", None, a list of column names or positions, or a boolean mask'


@dataclass(frozen=True)
class Block:
    """One input of a network: all numeric columns, one categorical column, or one array.

    Attributes
    ----------
    name : str
        "numeric", "sequence" (3-D arrays), "tensor" (4-D and more), or a categorical column's name,
        made fit for Keras.
    kind : {"numeric", "categorical", "sequence", "tensor"}
    shape : tuple of int
        Of one row; ``()`` for a categorical column.
    cardinality : int or None
        Number of codes of a categorical column: its known categories plus 2 (unseen, missing).
    dtype : {"float32", "int32"}
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    cardinality: int | None
    dtype: str


class ColumnBlocks:
    """Split tables into named arrays, and put such arrays together to a table again.

    Parameters
    ----------
    categorical_features : "from_dtype", None, list of str, list of int or boolean mask
        "from_dtype": the category, string, object and bool columns of a DataFrame; arrays have
        none. None: no column is categorical. Positions and masks also work for arrays.

    Attributes
    ----------
    blocks_ : tuple of Block
        The numeric columns first, then the categorical ones in column order.
    columns_ : dict of str to list
        The original column names (of arrays: positions) behind each block.
    categories_ : dict of str to list
        The known categories behind each categorical block, sorted: code 2 is the first.
    n_columns_ : int

    Notes
    -----
    Code 0 is a category that the training rows lack, code 1 a missing value (None, NaN, NA, NaT,
    null). Numbers compare by value: 1, 1.0 and True are one category.

    Examples
    --------
    >>> import pandas as pd
    >>> from skstack.stages import ColumnBlocks
    >>> X = pd.DataFrame({"job": ["cook", None, "vet"], "age": [31, 40, 56]})
    >>> blocks = ColumnBlocks().fit(X)
    >>> [(block.name, block.shape, block.cardinality) for block in blocks.blocks_]
    [('numeric', (1,), None), ('job', (), 4)]
    >>> blocks.split(X)["job"].tolist()
    [2, 1, 3]
    >>> blocks.split(pd.DataFrame({"job": ["king"], "age": [7]}))["job"].tolist()
    [0]
    """

    def __init__(self, categorical_features="from_dtype"):
        self.categorical_features = categorical_features

    def fit(self, X, *, like=None):
        """Learn the kinds of columns and the categories that occur.

        Parameters
        ----------
        X : DataFrame, array, list or sparse matrix, a row for each sample
            Training rows.
        like : ColumnBlocks or None
            Take columns, categories and codes from there, hence the same shapes; categories that do
            not occur in this `X` become unseen ones. For the folds of a cross-fit.

        Returns
        -------
        self : ColumnBlocks

        Raises
        ------
        ValueError
            `categorical_features` does not fit `X`, or a column holds dates or other things that
            are neither numbers nor categories.
        TypeError
            A categorical column holds values that cannot be hashed, such as lists.
        """
        if like is not None:
            for name in ("blocks_", "columns_", "categories_", "n_columns_", "_numeric", "_names"):
                setattr(self, name, getattr(like, name))
            self._categorical, self._is_frame = like._categorical, like._is_frame
            self._occurs = {}
            codes = like._codes(like._open(X))
            for block in self.blocks_:
                if block.kind == "categorical":
                    occurs = np.bincount(codes[block.name], minlength=block.cardinality) > 0
                    occurs[_MISSING] = True
                    self._occurs[block.name] = occurs
            return self

        frame = _as_frame(X)
        table = _as_array(X) if frame is None else frame
        self._is_frame = frame is not None
        self._occurs = {}
        if len(table.shape) > 2:
            self._fit_array(table)
            return self
        self.n_columns_ = table.shape[1]
        # By position throughout: pandas' column names may be anything.
        self._names = list(table.columns) if self._is_frame else None
        mask = self._categorical_mask(table)
        if self._is_frame:
            for place in np.flatnonzero(~mask):
                _refuse_what_is_no_number(_column(table, place), self._names[place])
        self._numeric = np.flatnonzero(~mask)
        names = list(range(self.n_columns_)) if self._names is None else self._names
        blocks, self.columns_, self.categories_, self._categorical = [], {}, {}, {}
        if self._numeric.size:
            blocks.append(Block("numeric", "numeric", (self._numeric.size,), None, "float32"))
            self.columns_["numeric"] = [names[place] for place in self._numeric]
        taken = set(_TAKEN)
        for place in np.flatnonzero(mask):
            name = _block_name(f"x{place}" if self._names is None else names[place], taken)
            taken.add(name)
            codes, levels = _factorise(_column(table, place), names[place])
            occurring = [levels[code] for code in np.unique(codes) if code >= 0]
            self.categories_[name] = list(dict.fromkeys(_sorted(occurring)))
            self.columns_[name] = [names[place]]
            self._categorical[name] = int(place)
            cardinality = len(self.categories_[name]) + _FIRST_KNOWN
            blocks.append(Block(name, "categorical", (), cardinality, "int32"))
        self.blocks_ = tuple(blocks)
        return self

    def split(self, X):
        """Give the arrays that a network takes.

        Parameters
        ----------
        X : as in `fit`, with the same columns

        Returns
        -------
        arrays : dict of str to ndarray
            Float32, C-contiguous, of shape (n_rows, *shape) for numbers; int32 of shape (n_rows,)
            for categories. Numbers may share memory with `X`: do not write into them.

        Raises
        ------
        ValueError
            Another number of columns than in `fit`; or what scikit-learn's ``check_array`` refuses:
            NaN, infinity, complex numbers, no rows, one dimension.
        """
        table = self._open(X)
        if not self._is_array and not self._numeric.size:
            return self._codes(table)
        if self._is_array or not self._categorical:
            numbers = table
        elif isinstance(table, np.ndarray):
            numbers = table[:, self._numeric]
        else:
            numbers = _take_columns(table, self._numeric)
        numbers = check_array(
            numbers.to_native() if isinstance(numbers, nw.DataFrame) else numbers,
            dtype=np.float32,
            order="C",
            allow_nd=self._is_array,
            accept_sparse=True,
            input_name="X",
        )
        if sparse.issparse(numbers):
            numbers = numbers.toarray()
        return {self.blocks_[0].name: numbers, **self._codes(table)}

    def table(self, arrays):
        """Put arrays together to a table with the columns of `fit`, in their order.

        Parameters
        ----------
        arrays : dict of str to ndarray
            As `split` gives them.

        Returns
        -------
        table : ndarray of float32 or pandas DataFrame
            A DataFrame when there are categories: numbers float32, categories of `category` dtype
            with the known categories; unseen and missing ones are NaN. Columns of arrays are
            called x0, x1, ...
        """
        if not self._categorical:
            return np.asarray(arrays[self.blocks_[0].name], dtype=np.float32)
        import pandas as pd

        columns = [None] * self.n_columns_
        for number, place in enumerate(self._numeric):
            columns[place] = np.asarray(arrays["numeric"][:, number], dtype=np.float32)
        for name, place in self._categorical.items():
            codes = np.maximum(np.asarray(arrays[name]) - _FIRST_KNOWN, -1)
            columns[place] = pd.Categorical.from_codes(
                codes, dtype=pd.CategoricalDtype(pd.Index(self.categories_[name]))
            )
        table = pd.DataFrame(dict(enumerate(columns)))
        names = self._names
        table.columns = [f"x{place}" for place in range(len(columns))] if names is None else names
        return table

    @property
    def _is_array(self):
        """Whether rows are sequences or tensors."""
        return self.blocks_[0].kind in ("sequence", "tensor")

    def _fit_array(self, array):
        """Three and more dimensions: the whole array is one block."""
        if not (self.categorical_features is None or _says_from_dtype(self.categorical_features)):
            raise ValueError(
                f"categorical_features={self.categorical_features!r} needs a table; X has "
                f"{array.ndim} dimensions."
            )
        kind = "sequence" if array.ndim == 3 else "tensor"
        self.blocks_ = (Block(kind, kind, tuple(array.shape[1:]), None, "float32"),)
        self.n_columns_ = array.shape[1]
        self.columns_ = {kind: list(range(self.n_columns_))}
        self.categories_, self._categorical, self._names = {}, {}, None
        self._numeric = np.arange(0)

    def _open(self, X):
        """Give rows as something with columns, after a look at its shape."""
        frame = _as_frame(X)
        if self._is_array:
            table = _as_array(X)
            if table.shape[1:] != self.blocks_[0].shape:
                raise ValueError(
                    f"X has rows of shape {table.shape[1:]}, but was fitted on rows of shape "
                    f"{self.blocks_[0].shape}."
                )
            return table
        table = _as_array(X) if frame is None else frame
        if len(table.shape) != 2:
            raise ValueError(f"X has {len(table.shape)} dimensions, but was fitted on a table.")
        if table.shape[1] != self.n_columns_:
            raise ValueError(
                f"X has {table.shape[1]} features, but was fitted on {self.n_columns_} features."
            )
        return table

    def _codes(self, table):
        """Codes of the categorical columns."""
        if not self._categorical:
            return {}
        if not table.shape[0]:  # without numeric columns nothing else would say so
            raise ValueError(
                f"Found array with 0 sample(s) (shape={tuple(table.shape)}) while a minimum of 1 "
                "is required."
            )
        coded = {}
        for name, place in self._categorical.items():
            codes, levels = _factorise(_column(table, place), self.columns_[name][0])
            known = {level: code for code, level in enumerate(self.categories_[name], _FIRST_KNOWN)}
            translation = [known.get(level, _UNSEEN) for level in levels]
            # Factorising gives -1 for missing values: the last entry.
            translation = np.array([*translation, _MISSING], dtype=np.int32)
            if name in self._occurs:
                translation[~self._occurs[name][translation]] = _UNSEEN
            coded[name] = translation[codes]
        return coded

    def _categorical_mask(self, table):
        """Which columns `categorical_features` means."""
        said, width = self.categorical_features, table.shape[1]
        mask = np.zeros(width, dtype=bool)
        if said is None:
            return mask
        if _says_from_dtype(said):
            if self._is_frame:
                dtypes = [_dtype(_column(table, place)) for place in range(width)]
                mask[:] = [isinstance(dtype, _CATEGORICAL_DTYPES) for dtype in dtypes]
            return mask
        wanted = None if isinstance(said, str | dict) else np.asarray(said)
        if wanted is None or wanted.ndim != 1:
            raise ValueError(f"categorical_features={said!r}; expected {_ACCEPTED}.")
        if wanted.dtype.kind == "b":
            if len(wanted) != width:
                raise ValueError(
                    f"categorical_features is a mask of {len(wanted)} entries; X has {width} "
                    "columns."
                )
            return wanted
        if not wanted.size:
            return mask
        if wanted.dtype.kind in "iu":
            out = [int(place) for place in wanted if not 0 <= place < width]
            if out:
                raise ValueError(
                    f"categorical_features names the positions {out}; X has {width} columns, "
                    f"numbered from 0 to {width - 1}."
                )
            mask[wanted] = True
            return mask
        if not all(isinstance(name, str) for name in said):
            raise ValueError(f"categorical_features={said!r}; expected {_ACCEPTED}.")
        if not self._is_frame:
            raise ValueError(
                f"categorical_features={said!r} names columns, but X is no DataFrame; expected "
                "positions or a boolean mask."
            )
        unknown = [name for name in said if name not in self._names]
        if unknown:
            raise ValueError(
                f"categorical_features names {unknown}, which X lacks; its columns are "
                f"{self._names}."
            )
        wanted = set(said)
        mask[:] = [isinstance(name, str) and name in wanted for name in self._names]
        return mask


def _says_from_dtype(said):
    return isinstance(said, str) and said == "from_dtype"


def _as_frame(X):
    """Give a pandas DataFrame as it is, others through narwhals; None for what is no DataFrame."""
    if nw.dependencies.is_pandas_dataframe(X):
        return X
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    return frame if isinstance(frame, nw.DataFrame) else None


def _as_array(X):
    """Give an array with its own dtype; a sparse matrix becomes dense."""
    array = check_array(
        X, dtype=None, ensure_all_finite=False, allow_nd=True, accept_sparse=True, input_name="X"
    )
    return array.toarray() if sparse.issparse(array) else array


def _column(table, place):
    """One column by position."""
    if isinstance(table, np.ndarray):
        return table[:, place]
    if isinstance(table, nw.DataFrame):
        return table.get_column(table.columns[place])
    return table.iloc[:, place]


def _take_columns(frame, places):
    """Columns of a DataFrame by position."""
    if isinstance(frame, nw.DataFrame):
        return frame.select([frame.columns[place] for place in places])
    return frame.iloc[:, places]


def _dtype(column):
    """Narwhals' name for a column's dtype."""
    return nw.from_native(column, series_only=True).dtype


def _refuse_what_is_no_number(column, name):
    """Dates, durations, periods and nested values are neither numbers nor categories."""
    dtype = _dtype(column)
    unknown = isinstance(dtype, nw.Unknown) and getattr(column.dtype, "kind", "O") == "O"
    if dtype.is_temporal() or unknown or isinstance(dtype, _NOT_NUMBERS):
        raise ValueError(
            f"Column {name!r} has dtype {column.dtype}, which is neither numeric nor categorical. "
            "Turn it into numbers first (days since a date, month, hour, ...), name it in "
            "`categorical_features`, or drop it."
        )


def _factorise(column, name):
    """Codes and the values they stand for; -1 where a value is missing."""
    import pandas as pd

    if isinstance(column, nw.Series):
        values = column.to_numpy() if column.dtype.is_numeric() else column.to_list()
        column = pd.Series(values, dtype=None if column.dtype.is_numeric() else object)
    if column.dtype.name == "category":
        return column.cat.codes.to_numpy(), column.cat.categories.tolist()
    try:
        codes, levels = pd.factorize(column)
    except TypeError as error:
        raise TypeError(
            f"Column {name!r} is categorical, but holds values that cannot be told apart: {error}."
        ) from error
    return codes, levels.tolist()


def _sorted(values):
    """Sort, by type and then by value where types cannot be compared."""
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    try:
        return sorted(values)
    except TypeError:
        pass
    try:
        return sorted(values, key=lambda value: (type(value).__name__, value))
    except TypeError:
        return sorted(values, key=lambda value: (type(value).__name__, repr(value)))


def _block_name(column, taken):
    """Make a column's name fit for a Keras layer, and one of its own."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", str(column)).lstrip("_") or "column"
    number, unique = 1, name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique
