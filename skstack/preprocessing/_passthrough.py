"""Columns of X that stand beside features."""

from __future__ import annotations

import numpy as np
from scipy.sparse import issparse

from skstack._base.sklearn import take_columns
from skstack.preprocessing._blocks import ColumnBlocks, categorical_places, cell_columns
from skstack.preprocessing._precision import lost_in_float32


class Passthrough:
    """Columns as a network downstream takes them: numbers float32, categories with known levels.

    Columns whose cells hold arrays pass as they are, of unequal length too.

    Parameters
    ----------
    categorical_features : as in ColumnBlocks

    allow_nan : bool, default=False
        Whether numbers may be missing.

    Attributes
    ----------
    n_columns_ : int

    cells_ : ndarray of int
        Positions of the columns whose cells hold arrays.

    blocks_ : ColumnBlocks or None
        Of all other columns.

    dtype_ : str
        Of numbers: float64 where a column lies so far from 0 that float32 would lose its digits,
        which a scaler keeps.
    """

    def __init__(self, categorical_features="from_dtype", *, allow_nan=False):
        self.categorical_features = categorical_features
        self.allow_nan = allow_nan

    def fit(self, X):
        """Learn the kinds of columns and the categories that occur.

        Parameters
        ----------
        X : DataFrame, array or sparse matrix
            Training rows.

        Returns
        -------
        self : Passed
        """
        self.n_columns_ = X.shape[1]
        self.cells_ = cell_columns(X)
        plain = self._plain(X)
        self.blocks_, self.dtype_ = None, "float32"
        if plain.shape[1]:
            rest = np.setdiff1d(np.arange(self.n_columns_), self.cells_)
            said = categorical_places(self.categorical_features, X, rest)
            self.blocks_ = ColumnBlocks(said, allow_nan=self.allow_nan).fit(plain)
            if not issparse(plain):  # zeros stand beside all else there
                numbers = self.blocks_.split(plain, dtype=np.float64).get("numeric")
                if numbers is not None and lost_in_float32(numbers).any():
                    self.dtype_ = "float64"
        return self

    def table(self, X):
        """The columns of rows, in their order.

        Parameters
        ----------
        X : as in `fit`

        Returns
        -------
        ndarray of float32 (see ``dtype_``), or DataFrame
            As `ColumnBlocks.table` gives it; a DataFrame where cells hold arrays.
        """
        plain = None
        if self.blocks_ is not None:
            plain = self.blocks_.table(self.blocks_.split(self._plain(X), dtype=self.dtype_))
        if not self.cells_.size:
            return plain
        import pandas as pd

        names = list(X.columns)
        columns = {}
        rest = np.setdiff1d(np.arange(self.n_columns_), self.cells_)
        for number, place in enumerate(rest):
            columns[place] = plain.iloc[:, number] if hasattr(plain, "iloc") else plain[:, number]
        for place in self.cells_:
            cells = np.empty(X.shape[0], dtype=object)
            cells[:] = [np.asarray(cell) for cell in X[names[place]].to_list()]
            columns[place] = cells
        table = pd.DataFrame({place: columns[place] for place in range(self.n_columns_)})
        return table.set_axis(names, axis=1)

    def _plain(self, X):
        if not self.cells_.size:
            return X
        rest = np.setdiff1d(np.arange(self.n_columns_), self.cells_)
        return take_columns(X, rest.tolist(), "passthrough")
