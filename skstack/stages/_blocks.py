"""Named blocks of columns: how a table of any kind becomes arrays for a network, and back."""

import re

import numpy as np

from skstack.networks import Block
from skstack.stages._columns import (
    as_numbers,
    categorical_mask,
    column_at,
    dense,
    factorise,
    open_table,
    refuse_what_is_no_number,
    says_from_dtype,
    sort_categories,
    take_columns,
)

_UNSEEN, _MISSING, _FIRST_KNOWN = 0, 1, 2
# Names that the recipes give to layers: an input of that name would make a second layer of it.
_TAKEN = ("numeric", "sequence", "tensor", "output", "latent")


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
            return self._fit_like(X, like)
        table = open_table(X)
        self._occurs = {}
        if len(table.shape) > 2:
            return self._fit_array(table)
        self.n_columns_ = table.shape[1]
        # By position throughout: pandas' column names may be anything.
        self._names = list(table.columns) if hasattr(table, "columns") else None
        mask = categorical_mask(self.categorical_features, table, self._names)
        if mask.any():
            table = dense(table)
        if self._names is not None:
            for place in np.flatnonzero(~mask):
                refuse_what_is_no_number(column_at(table, place), self._names[place])
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
            codes, levels = factorise(column_at(table, place), names[place])
            occurring = [levels[code] for code in np.unique(codes) if code >= 0]
            self.categories_[name] = list(dict.fromkeys(sort_categories(occurring)))
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
        if not self._categorical:
            return {self.blocks_[0].name: as_numbers(table)}
        if not self._numeric.size:
            return self._codes(table)
        return {"numeric": as_numbers(take_columns(table, self._numeric)), **self._codes(table)}

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
            with the known categories (bools as 0 and 1); unseen and missing ones are NaN. Columns
            of arrays are called x0, x1, ...
        """
        if not self._categorical:
            return np.asarray(arrays[self.blocks_[0].name], dtype=np.float32)
        import pandas as pd

        columns = [None] * self.n_columns_
        for number, place in enumerate(self._numeric):
            columns[place] = np.asarray(arrays["numeric"][:, number], dtype=np.float32)
        for name, place in self._categorical.items():
            codes = np.maximum(np.asarray(arrays[name]) - _FIRST_KNOWN, -1)
            levels = pd.Index(self.categories_[name])
            if levels.dtype == bool:  # SMOTENC gives 0.0 and 1.0 back: to pandas no bools
                levels = levels.astype(int)
            columns[place] = pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(levels))
        table = pd.DataFrame(dict(enumerate(columns)))
        names = self._names
        table.columns = [f"x{place}" for place in range(len(columns))] if names is None else names
        return table

    def _fit_like(self, X, like):
        """Take all from `like`, and note which of its categories occur here."""
        for name in ("blocks_", "columns_", "categories_", "n_columns_"):
            setattr(self, name, getattr(like, name))
        for name in ("_numeric", "_categorical", "_names"):
            setattr(self, name, getattr(like, name))
        self._occurs = {}
        codes = like._codes(like._open(X))
        for block in self.blocks_:
            if block.kind == "categorical":
                occurs = np.bincount(codes[block.name], minlength=block.cardinality) > 0
                occurs[_MISSING] = True
                self._occurs[block.name] = occurs
        return self

    def _fit_array(self, array):
        """Three and more dimensions: the whole array is one block."""
        if not (self.categorical_features is None or says_from_dtype(self.categorical_features)):
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
        return self

    def _open(self, X):
        """Give rows as something with columns, after a look at its shape."""
        table = open_table(X)
        first = self.blocks_[0]
        if first.kind in ("sequence", "tensor"):
            if tuple(table.shape[1:]) != first.shape:
                raise ValueError(
                    f"X has rows of shape {tuple(table.shape[1:])}, but was fitted on rows of "
                    f"shape {first.shape}."
                )
            return table
        if len(table.shape) != 2:
            raise ValueError(f"X has {len(table.shape)} dimensions, but was fitted on a table.")
        if table.shape[1] != self.n_columns_:
            raise ValueError(
                f"X has {table.shape[1]} features, but was fitted on {self.n_columns_} features."
            )
        return dense(table) if self._categorical else table

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
            codes, levels = factorise(column_at(table, place), self.columns_[name][0])
            # Factorising gives -1 for missing values: the last entry.
            coded[name] = self.codes_of(name, levels)[codes]
        return coded

    def codes_of(self, name, levels):
        """Codes of some values of a categorical block, and last that of a missing one.

        Parameters
        ----------
        name : str
            Of the block.
        levels : list
            Values, missing ones left out.

        Returns
        -------
        codes : ndarray of int32 of shape (len(levels) + 1,)
        """
        known = {level: code for code, level in enumerate(self.categories_[name], _FIRST_KNOWN)}
        codes = [known.get(level, _UNSEEN) for level in levels]
        codes = np.array([*codes, _MISSING], dtype=np.int32)
        if name in self._occurs:
            codes[~self._occurs[name][codes]] = _UNSEEN
        return codes

    def places(self):
        """Positions of the columns behind each block.

        Returns
        -------
        places : dict of str to list of int
        """
        if self.blocks_[0].kind in ("sequence", "tensor"):
            return {self.blocks_[0].name: list(range(self.n_columns_))}
        numeric = [("numeric", self._numeric.tolist())] if self._numeric.size else []
        return dict([*numeric, *((name, [place]) for name, place in self._categorical.items())])


def _block_name(column, taken):
    """Make a column's name fit for a Keras layer, and one of its own."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", str(column)).lstrip("_") or "column"
    number, unique = 1, name
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    return unique
