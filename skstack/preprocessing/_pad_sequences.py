"""Sequences of unequal length, padded to one."""

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
    column_indices,
    fit_context,
    is_dataframe,
    output_container,
    read_rows,
)
from skstack.preprocessing._ragged import read_sequences, say_rows

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class _Learned:
    """What was learned of a list, or of one column."""

    where: str
    length: int
    n_channels: int | None


def _names_columns(estimator):
    return getattr(estimator, "_of_frame", True)


class PadSequences(TransformerMixin, BaseEstimator):
    """Sequences of unequal length as arrays of one length, which networks read.

    Shorter sequences get steps of a value that a masking layer knows again; longer ones are cut,
    which a warning tells.

    Parameters
    ----------
    columns : None, str, array-like or callable, default=None
        Of a DataFrame, the columns that hold sequences: names, positions, a slice, a mask or a
        callable, as in :class:`~sklearn.compose.ColumnTransformer`. None: all columns in whose
        cells there are arrays, lists or tuples. The other columns pass through as they are.

    length : int, default=None
        Steps of each padded sequence, at least 1. None: as many as the longest training sequence
        has.

    padding : {"post", "pre"}, default="post"
        Whether steps are added behind or before a sequence.

    truncating : {"post", "pre"}, default="post"
        Whether steps are dropped from the end or from the beginning of a sequence.

    value : float, default=0.0
        What all channels of the added steps hold. The padding of token ids is 0, whatever
        ``value`` is.

    Attributes
    ----------
    length_ : int, or dict of str to int
        Steps of each padded sequence; of a DataFrame by column.

    n_channels_ : int or None, or dict of str to int or None
        Number of channels, None for token ids; of a DataFrame by column.

    n_features_in_ : int
        Number of columns, where X is a DataFrame.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X is a DataFrame with string names.

    Raises
    ------
    ValueError
        For sequences without steps and missing ones, whose padded rows would be masked as a whole
        (an average over no steps is NaN), NaN and infinity, channels that differ in number, token
        ids below 1; while fitting, for steps that would be taken for padding.

    TypeError
        For cells that hold no numbers.

    Notes
    -----
    Networks tell padding from data as ``keras.layers.Masking`` does: a step all of whose channels
    equal ``value`` is padding. Hence no training sequence may hold such a step, and ``value`` must
    be the masking layer's ``mask_value``. In rows to be transformed, a warning tells them.

    ``pre`` and ``post`` mean what they mean in ``keras.utils.pad_sequences``, whose defaults are
    ``"pre"``.

    Sequences of integers of shape (n_steps,) are token ids, which count from 1 on: 0 is the
    padding that ``keras.layers.Embedding(mask_zero=True)`` masks. Give series of whole numbers that
    are no ids as floats.

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
            sequence a row, of shape (n_steps,) or (n_steps, n_channels); an array of shape
            (n_samples, n_steps, n_channels) such of equal length; a DataFrame (pandas, polars)
            columns of them.

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
        """Learn lengths and pad the same rows; what is cut is told once.

        Parameters
        ----------
        X : list, tuple, ndarray or DataFrame of n_samples rows
            As in ``fit``.

        y : None
            Ignored.

        Returns
        -------
        ndarray or DataFrame
            As ``transform`` gives it.
        """
        return self._pad(X, self._learn(X))

    @on_snapshot
    def transform(self, X):
        """Pad, or cut, to the learned length.

        Parameters
        ----------
        X : list, tuple, ndarray or DataFrame of n_samples rows
            As in ``fit``.

        Returns
        -------
        ndarray of float32 of shape (n_samples, length, n_channels), or DataFrame
            Of token ids an ndarray of int32 of shape (n_samples, length). Of a DataFrame a new one
            of the same kind, rows and columns, with such arrays as cells: in pandas in a column of
            dtype object, in polars in one of dtype Array.
        """
        check_is_fitted(self)
        sequences = {}
        for place, cells in self._columns(X, reset=False).items():
            learned = self._learned[place]
            ragged = read_sequences(cells, learned.where, known=True, n_channels=learned.n_channels)
            sequences[place] = self._cut(ragged, learned)
            if (rows := self._masked(sequences[place])).size:
                warnings.warn(
                    f"{learned.where}: {say_rows(rows)} hold steps all of whose channels equal "
                    f"value={self.value!r}; networks will take them for padding.",
                    stacklevel=2,
                )
        return self._pad(X, sequences)

    @available_if(_names_columns)
    def get_feature_names_out(self, input_features=None):
        """Names of the columns, which are those of X; of lists there are none.

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
        """Pad to the lengths of another one: networks of a cross-fit have one shape."""
        self._shared = {place: learned.length for place, learned in fitted._learned.items()}

    @atomic_fit
    def _learn(self, X):
        """Fit; the sequences of the training rows, cut, by the places of their columns."""
        if abs(self.value) > _LARGEST:
            raise ValueError(f"value={self.value!r}; expected a number that float32 can hold.")
        self._learned, sequences = {}, {}
        for place, cells in self._columns(X, reset=True).items():
            where = f"X[{X.columns[place]!r}]" if self._of_frame else "X"
            ragged = read_sequences(cells, where)
            length = self.length or self._shared.get(place) or int(ragged.lengths.max())
            self._learned[place] = learned = _Learned(where, int(length), ragged.n_channels)
            sequences[place] = self._cut(ragged, learned)
            if (rows := self._masked(sequences[place])).size:
                raise ValueError(
                    f"{where}: {say_rows(rows)} hold steps all of whose channels equal "
                    f"value={self.value!r}, which networks would take for padding. Choose a value "
                    "that no step has, and the same one as mask_value of the network's masking."
                )
        lengths = {place: learned.length for place, learned in self._learned.items()}
        channels = {place: learned.n_channels for place, learned in self._learned.items()}
        self.length_, self.n_channels_ = (
            {X.columns[place]: n for place, n in found.items()} if self._of_frame else found[0]
            for found in (lengths, channels)
        )
        return sequences

    def _columns(self, X, *, reset):
        """Cells that hold sequences, by the place of their column; a list has the one place 0."""
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
                for of_frames in ("n_features_in_", "feature_names_in_"):
                    vars(self).pop(of_frames, None)
            return {0: cells}
        read_rows(self, X, reset=reset)
        if not reset:
            return {place: _column(X, place) for place in self._learned}
        self._of_frame = True
        found = _places(X, self.columns)
        return {place: _column(X, place) for place in found}

    def _cut(self, ragged, learned):
        longer = ragged.lengths > learned.length
        if longer.any():
            side = "end" if self.truncating == "post" else "beginning"
            most = int(ragged.lengths.max()) - learned.length
            warnings.warn(
                f"{learned.where}: {int(longer.sum())} of {len(longer)} rows have more than "
                f"length={learned.length} steps; up to {most} steps were cut at their {side}.",
                stacklevel=3,
            )
        return ragged.cut(learned.length, self.truncating)

    def _masked(self, ragged):
        # Ids are never 0: that was refused when they were read.
        return np.array([]) if ragged.n_channels is None else ragged.rows_with(self.value)

    def _pad(self, X, sequences):
        padded = {}
        for place, ragged in sequences.items():
            value = 0 if ragged.n_channels is None else self.value
            padded[place] = ragged.padded(self._learned[place].length, self.padding, value)
        if not self._of_frame:
            return padded[0]
        return _with_columns(X, padded, output_container(self))


def _cells(X):
    if isinstance(X, np.ndarray) and X.ndim == 2:
        raise ValueError(
            f"X is an array of shape {X.shape}; expected sequences: a list of arrays of shape "
            "(n_steps,) or (n_steps, n_channels), an array of shape (n_samples, n_steps, "
            "n_channels), or a DataFrame that has such arrays in its cells."
        )
    if isinstance(X, str | bytes | dict) or not hasattr(X, "__len__"):
        raise TypeError(
            f"X is a {type(X).__name__}; expected a list or an array of sequences, or a DataFrame."
        )
    return list(X)


def _column(X, place):
    column = X.iloc[:, place] if hasattr(X, "iloc") else X[:, place]
    return list(column.to_numpy())


def _places(X, columns):
    if columns is None:
        found = [place for place in range(X.shape[1]) if _holds_sequences(X, place)]
        if not found:
            raise ValueError(
                f"X has no column whose cells are arrays, lists or tuples; its columns are "
                f"{list(X.columns)}."
            )
        return found
    try:
        found = column_indices(X, columns(X) if callable(columns) else columns)
    except Exception as error:  # whatever a callable, or scikit-learn with odd keys, may raise
        raise ValueError(f"columns={columns!r} selects no columns of X: {error}") from error
    if len(found) == 0:
        raise ValueError(f"columns={columns!r} selects no columns of X.")
    return sorted({int(place) for place in found})


def _holds_sequences(X, place):
    kind = str((X.dtypes.iloc if hasattr(X, "iloc") else X.dtypes)[place]).lower()
    if not kind.startswith(("object", "list", "array")):
        return False
    return any(isinstance(cell, np.ndarray | list | tuple) for cell in _column(X, place))


def _with_columns(X, padded, container):
    """A new frame with other columns at some places, as pandas or polars frame."""
    import pandas as pd

    is_pandas = hasattr(X, "iloc")
    if container == "pandas" or (container == "default" and is_pandas):
        cells = {place: _as_cells(array) for place, array in padded.items()}
        if is_pandas:
            frame = X.copy(deep=False)
            for place, column in cells.items():
                frame.isetitem(place, column)
            return frame
        return pd.DataFrame(
            {
                name: cells[place] if place in cells else X[:, place].to_pandas()
                for place, name in enumerate(X.columns)
            }
        )
    pl = nw.Implementation.POLARS.to_native_namespace()
    kept = pl.from_pandas(X.drop(columns=X.columns[list(padded)])) if is_pandas else X
    return pl.DataFrame(
        [
            pl.Series(str(name), padded[place]) if place in padded else kept[str(name)]
            for place, name in enumerate(X.columns)
        ]
    )


def _as_cells(array):
    # NumPy would take a list of arrays of one shape for one array.
    cells = np.empty(len(array), dtype=object)
    for row, cell in enumerate(array):
        cells[row] = cell
    return cells
