"""Pad sequences of unequal length to one length."""

from __future__ import annotations

import types
import warnings
from dataclasses import dataclass
from numbers import Integral, Real

import narwhals.stable.v2 as nw
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skstack._base.atomic_fit import atomic_fit, on_snapshot
from skstack._base.sklearn import (
    Interval,
    StrOptions,
    check_input_names,
    fit_context,
    output_container,
)
from skstack._base.tables import column_indices, is_dataframe, object_array, read_rows
from skstack.preprocessing._ragged import format_rows, read_sequences

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class _Learned:
    """The shape learned from a list, or from one column."""

    where: str
    length: int
    n_channels: int | None


def _has_column_names(estimator):
    return getattr(estimator, "_of_frame", True)


class PadSequences(TransformerMixin, BaseEstimator):
    """Pad or truncate sequences of unequal length to arrays of one length.

    Shorter sequences are padded with a value that masking layers recognise; longer ones are
    truncated, with a warning.

    Parameters
    ----------
    columns : None, str, array-like or callable, default=None
        The columns of a DataFrame that hold sequences: names, positions, a slice, a mask or a
        callable, as in :class:`~sklearn.compose.ColumnTransformer`. None: all columns whose cells
        hold arrays, lists or tuples. The other columns pass through unchanged.

    length : int, default=None
        Steps of each padded sequence, at least 1. None: the length of the longest training
        sequence.

    padding : {"post", "pre"}, default="post"
        Whether steps are added after or before a sequence.

    truncating : {"post", "pre"}, default="post"
        Whether steps are dropped from the end or from the beginning of a sequence.

    value : float, default=0.0
        Value of all channels of the added steps. Token ids are always padded with 0.

    Attributes
    ----------
    length_ : int, or dict of str to int
        Steps of each padded sequence; for a DataFrame by column.

    n_channels_ : int or None, or dict of str to int or None
        Number of channels, None for token ids; for a DataFrame by column.

    n_features_in_ : int
        Number of columns, where X is a DataFrame.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X is a DataFrame with string names.

    Raises
    ------
    ValueError
        For missing sequences and sequences without steps, which would be masked as a whole (an
        average over no steps is NaN), NaN and infinity, a varying number of channels, and token ids
        below 1; in ``fit``, for steps that equal the padding.

    TypeError
        For cells that are not numeric.

    Notes
    -----
    As in ``keras.layers.Masking``, a step is padding if all of its channels equal ``value``. Hence
    no training sequence may hold such a step, and ``value`` must be the ``mask_value`` of the
    masking layer. ``transform`` warns about such steps.

    ``pre`` and ``post`` are as in ``keras.utils.pad_sequences``, whose defaults are ``"pre"``.

    Sequences of integers of shape (n_steps,) are token ids, which start at 1: 0 is the padding that
    ``keras.layers.Embedding(mask_zero=True)`` masks. Convert series of integers that are not ids to
    float.

    Examples
    --------
    >>> import numpy as np
    >>> from skstack.preprocessing import PadSequences
    >>> X = [np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 6.0]])]
    >>> PadSequences().fit_transform(X).tolist()
    [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [0.0, 0.0]]]
    >>> PadSequences(padding="pre").fit_transform([[7, 8, 9], [7]]).tolist()
    [[7, 8, 9], [0, 0, 7]]
    """

    _parameter_constraints = {
        "columns": [None, str, "array-like", slice, callable],
        "length": [None, Interval(Integral, 1, None, closed="left")],
        "padding": [StrOptions({"pre", "post"})],
        "truncating": [StrOptions({"pre", "post"})],
        "value": [Interval(Real, None, None, closed="neither")],
    }

    def __init__(self, columns=None, *, length=None, padding="post", truncating="post", value=0.0):
        self.columns = columns
        self.length = length
        self.padding = padding
        self.truncating = truncating
        self.value = value

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_learned")

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn lengths and numbers of channels.

        Parameters
        ----------
        X : list, tuple, ndarray or DataFrame of n_samples rows
            Training rows. A list, a tuple, a Series or a one-dimensional object array holds one
            sequence per row, of shape (n_steps,) or (n_steps, n_channels); an array of shape
            (n_samples, n_steps, n_channels) holds sequences of equal length; a DataFrame (pandas,
            polars) holds columns of sequences.

        y : None
            Ignored.

        Returns
        -------
        self : PadSequences
            The fitted transformer.
        """
        self._learn(X)
        return self

    @fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X, y=None):
        """Learn lengths and pad the same rows.

        Parameters
        ----------
        X : list, tuple, ndarray or DataFrame of n_samples rows
            As in ``fit``.

        y : None
            Ignored.

        Returns
        -------
        ndarray or DataFrame
            As ``transform`` returns it.
        """
        return self._pad(X, self._learn(X))

    @on_snapshot
    def transform(self, X):
        """Pad or truncate sequences to the learned length.

        Parameters
        ----------
        X : list, tuple, ndarray or DataFrame of n_samples rows
            As in ``fit``.

        Returns
        -------
        ndarray of float32 of shape (n_samples, length, n_channels), or DataFrame
            For token ids an ndarray of int32 of shape (n_samples, length). For a DataFrame a new
            one with the same rows and columns, whose cells hold such arrays: in pandas in a column
            of dtype object, in polars of dtype Array.
        """
        check_is_fitted(self)
        sequences = {}
        for index, cells in self._columns(X, reset=False).items():
            learned = self._learned[index]
            ragged = read_sequences(cells, learned.where, known=True, n_channels=learned.n_channels)
            sequences[index] = self._cut(ragged, learned)
            if (rows := self._masked(sequences[index])).size:
                warnings.warn(
                    f"{learned.where}: {format_rows(rows)} hold steps whose channels all equal "
                    f"value={self.value!r}; networks will treat them as padding.",
                    stacklevel=2,
                )
        return self._pad(X, sequences)

    @available_if(_has_column_names)
    def get_feature_names_out(self, input_features=None):
        """Names of the columns, which are those of X; not available for lists.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Compared with the names of the columns of X.

        Returns
        -------
        ndarray of str of shape (n_features_in_,)
            The same names.
        """
        check_is_fitted(self)
        return check_input_names(self, input_features)

    # -----------------------------------------------------------------------------------------

    _shared = types.MappingProxyType({})

    def _take_shape(self, fitted):
        """Pad to the lengths of a fitted one: the networks of a cross-fit have one shape."""
        self._shared = {index: learned.length for index, learned in fitted._learned.items()}

    @atomic_fit
    def _learn(self, X):
        """Fit; return the truncated sequences of the training rows, by index of column."""
        if abs(self.value) > _LARGEST:
            raise ValueError(f"value={self.value!r}; expected a number that float32 can hold.")
        self._learned, sequences = {}, {}
        for index, cells in self._columns(X, reset=True).items():
            where = f"X[{X.columns[index]!r}]" if self._of_frame else "X"
            ragged = read_sequences(cells, where)
            length = self.length or self._shared.get(index) or int(ragged.lengths.max())
            self._learned[index] = learned = _Learned(where, int(length), ragged.n_channels)
            sequences[index] = self._cut(ragged, learned)
            if (rows := self._masked(sequences[index])).size:
                raise ValueError(
                    f"{where}: {format_rows(rows)} hold steps whose channels all equal "
                    f"value={self.value!r}, which networks would treat as padding. Choose a value "
                    "that no step has, and use it as mask_value of the network's masking layer."
                )
        lengths = {index: learned.length for index, learned in self._learned.items()}
        channels = {index: learned.n_channels for index, learned in self._learned.items()}
        self.length_, self.n_channels_ = (
            {X.columns[index]: n for index, n in values.items()} if self._of_frame else values[0]
            for values in (lengths, channels)
        )
        return sequences

    def _columns(self, X, *, reset):
        """Cells that hold sequences, by the index of their column; 0 for a list."""
        frame = is_dataframe(X)
        if not reset and frame != self._of_frame:
            kinds = ["a list or an array of sequences", "a DataFrame"]
            raise ValueError(
                f"X is {kinds[frame]}, but this PadSequences was fitted on {kinds[self._of_frame]}."
            )
        if not frame:
            cells = _cells(X)
            if len(cells) == 0:
                raise ValueError("X has 0 sample(s) while a minimum of 1 is required.")
            if reset:
                self._of_frame = False
                for attribute in ("n_features_in_", "feature_names_in_"):
                    vars(self).pop(attribute, None)
            return {0: cells}
        read_rows(self, X, reset=reset)
        if not reset:
            return {index: _column(X, index) for index in self._learned}
        self._of_frame = True
        return {index: _column(X, index) for index in _sequence_columns(X, self.columns)}

    def _cut(self, ragged, learned):
        longer = ragged.lengths > learned.length
        if longer.any():
            side = "end" if self.truncating == "post" else "beginning"
            excess = int(ragged.lengths.max()) - learned.length
            warnings.warn(
                f"{learned.where}: {int(longer.sum())} of {len(longer)} rows have more than "
                f"length={learned.length} steps; up to {excess} steps were dropped at the {side}.",
                stacklevel=3,
            )
        return ragged.cut(learned.length, self.truncating)

    def _masked(self, ragged):
        # Ids of 0 are refused when they are read.
        return np.array([]) if ragged.n_channels is None else ragged.rows_with(self.value)

    def _pad(self, X, sequences):
        padded = {}
        for index, ragged in sequences.items():
            value = 0 if ragged.n_channels is None else self.value
            padded[index] = ragged.padded(self._learned[index].length, self.padding, value)
        if not self._of_frame:
            return padded[0]
        return _with_columns(X, padded, output_container(self))


def _cells(X):
    if isinstance(X, np.ndarray) and X.ndim == 2:
        raise ValueError(
            f"X is an array of shape {X.shape}; expected sequences: a list of arrays of shape "
            "(n_steps,) or (n_steps, n_channels), an array of shape (n_samples, n_steps, "
            "n_channels), or a DataFrame with such arrays in its cells."
        )
    if isinstance(X, str | bytes | dict) or not hasattr(X, "__len__"):
        raise TypeError(
            f"X is a {type(X).__name__}; expected a list or an array of sequences, or a DataFrame."
        )
    return list(X)


def _column(X, index):
    column = X.iloc[:, index] if hasattr(X, "iloc") else X[:, index]
    return list(column.to_numpy())


def _sequence_columns(X, columns):
    if columns is None:
        indices = [index for index in range(X.shape[1]) if _holds_sequences(X, index)]
        if not indices:
            raise ValueError(
                f"X has no column whose cells are arrays, lists or tuples; its columns are "
                f"{list(X.columns)}."
            )
        return indices
    indices = column_indices(X, columns, "columns")
    if len(indices) == 0:
        raise ValueError(f"columns={columns!r} selects no columns of X.")
    return np.unique(indices).tolist()


def _holds_sequences(X, index):
    kind = str((X.dtypes.iloc if hasattr(X, "iloc") else X.dtypes)[index]).lower()
    if not kind.startswith(("object", "list", "array")):
        return False
    return any(isinstance(cell, np.ndarray | list | tuple) for cell in _column(X, index))


def _with_columns(X, padded, container):
    """A new pandas or polars DataFrame with some columns replaced."""
    import pandas as pd

    is_pandas = hasattr(X, "iloc")
    if container == "pandas" or (container == "default" and is_pandas):
        cells = {index: object_array(array) for index, array in padded.items()}
        if is_pandas:
            frame = X.copy(deep=False)
            for index, column in cells.items():
                frame.isetitem(index, column)
            return frame
        return pd.DataFrame(
            {
                name: cells[index] if index in cells else X[:, index].to_pandas()
                for index, name in enumerate(X.columns)
            }
        )
    pl = nw.Implementation.POLARS.to_native_namespace()
    kept = pl.from_pandas(X.drop(columns=X.columns[list(padded)])) if is_pandas else X
    return pl.DataFrame(
        [
            pl.Series(str(name), padded[index]) if index in padded else kept[str(name)]
            for index, name in enumerate(X.columns)
        ]
    )
