"""Columns of X that pass through, next to features."""

from __future__ import annotations

import numpy as np
from scipy.sparse import issparse

from skstack._base.disk_table import in_memory
from skstack._base.tables import object_array, sampled, take_columns
from skstack.preprocessing._blocks import ColumnBlocks, array_column_indices, categorical_mask_of
from skstack.preprocessing._column_profile import lost_in_float32


class Passthrough:
    """Columns for a downstream network: float32 numbers, categories with known levels.

    Columns whose cells hold arrays, `array_columns_`, also of unequal length, pass unchanged;
    `blocks_` are the `ColumnBlocks` of all others, or None. Numbers are float64 (`dtype_`) if a
    column is so far from 0 that float32 would lose digits that a later scaler keeps.
    """

    def __init__(self, categorical_features="from_dtype", *, allow_nan=False):
        self.categorical_features = categorical_features
        self.allow_nan = allow_nan

    def fit(self, X):
        """Learn the kinds of columns and the categories that occur."""
        self.n_columns_ = X.shape[1]
        self.array_columns_ = array_column_indices(X)
        plain = self._plain(X)
        self.blocks_, self.dtype_ = None, "float32"
        if plain.shape[1]:
            categorical = categorical_mask_of(self.categorical_features, X, self._plain_columns())
            self.blocks_ = ColumnBlocks(categorical, allow_nan=self.allow_nan).fit(plain)
            if not issparse(plain):  # sparse columns are close to 0
                some = in_memory(sampled(plain)[0])
                numbers = self.blocks_.split(some, dtype=np.float64).get("numeric")
                if numbers is not None and lost_in_float32(numbers).any():
                    self.dtype_ = "float64"
        return self

    def table(self, X):
        """The columns of rows, as `ColumnBlocks.table` returns them; arrays make it a DataFrame."""
        plain = None
        if self.blocks_ is not None:
            plain = self.blocks_.table(self.blocks_.split(self._plain(X), dtype=self.dtype_))
        if not self.array_columns_.size:
            return plain
        import pandas as pd

        names = list(X.columns)
        columns = {}
        for number, index in enumerate(self._plain_columns()):
            columns[index] = plain.iloc[:, number] if hasattr(plain, "iloc") else plain[:, number]
        for index in self.array_columns_:
            cells = X[names[index]].to_list()
            columns[index] = object_array([np.asarray(cell) for cell in cells])
        table = pd.DataFrame({index: columns[index] for index in range(self.n_columns_)})
        return table.set_axis(names, axis=1)

    def _plain_columns(self):
        return np.setdiff1d(np.arange(self.n_columns_), self.array_columns_)

    def _plain(self, X):
        if not self.array_columns_.size:
            return X
        return take_columns(X, self._plain_columns().tolist(), "passthrough")
