"""Record which rows each step of an estimator is fitted on, and which rows it then predicts."""

from __future__ import annotations

import contextlib
import functools
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from joblib import parallel_config
from sklearn.frozen import FrozenEstimator

from skstack._base.params import clone_part, is_network_estimator
from skstack._base.sklearn import BESIDE_PARAMETERS
from skstack._base.tables import n_rows
from skstack.inspection._overlap import row_keys

SYNTHETIC = -1  # index of a row that a sampler has created
UNKNOWN = -2

_FITS = ("fit", "partial_fit", "fit_transform", "fit_predict", "fit_resample")
_QUERIES = ("transform", "predict", "predict_proba", "decision_function", "reconstruction_error")
# Methods by which estimators of skstack call each other.
_OUR_FITS = ("_fit_in_context", "_learn")
_OUR_QUERIES = ("_extract", "_layer_outputs")


@dataclass
class RowRecord:
    """Rows of a table, with their indices in X."""

    rows: np.ndarray
    keys: np.ndarray
    makers: tuple = ()  # the fits that created its columns or rows


class _TrackedRows(np.ndarray):
    """An array that keeps the indices of its rows when rows are selected."""

    def __array_finalize__(self, other):
        whole = isinstance(other, _TrackedRows) and self.shape[:1] == other.shape[:1]
        self.table = getattr(other, "table", None) if whole else None

    def __getitem__(self, key):
        taken = super().__getitem__(key)
        if isinstance(taken, _TrackedRows) and taken.ndim and self.table is not None:
            first = key[0] if isinstance(key, tuple) else key
            rows = self.table.rows if first is Ellipsis else self.table.rows[first]
            fits = np.shape(rows) == taken.shape[:1]
            taken.table = RowRecord(rows, None, self.table.makers) if fits else None
        return taken


@dataclass
class FitRecord:
    """One fit of one step."""

    step: str
    estimator: Any
    table: RowRecord
    X: Any
    y: Any
    parent: FitRecord | None
    resampled: bool = False
    validation: RowRecord | None = None
    queried: list = field(default_factory=list)  # tables that it predicted or transformed later
    answers: list = field(default_factory=list)  # what it returned for them
    test_features: Any = None  # the table that it received of the outer test rows

    @property
    def rows(self):
        """Indices of the rows that it learned from."""
        return self.table.rows

    @property
    def lineage(self):
        """The fit and those that it is inside of, from the inside out."""
        fit = self
        while fit is not None:
            yield fit
            fit = fit.parent


class Trace:
    """A clone of an estimator that records which rows its steps are fitted on.

    Every estimator among the parameters, at any depth, is replaced by one of a subclass that
    records its calls. The objects of the user are not changed.
    """

    def __init__(self, estimator):
        self.fits = []
        self._recording = True
        self._test_rows = None  # number of outer test rows, while they are predicted
        self._tables = []
        self._local = threading.local()
        self._lock = threading.Lock()
        self._fitted = {}
        self.estimator = self._recorded(estimator, type(estimator).__name__)

    def fit(self, X, y, rows, **metadata):
        """Fit the clone on rows with these indices; `metadata` is for the fit."""
        self._tables = [RowRecord(np.asarray(rows), row_keys(X, dtype=np.float32))]
        # Fits in other processes could not be recorded.
        with parallel_config(backend="threading", n_jobs=1):
            self.estimator.fit(_tracked(X, self._tables[0]), y, **metadata)

    def answer(self, predict, X):
        """What `predict` returns for the estimator and the outer test rows X."""
        self._test_rows = n_rows(X)
        try:
            with parallel_config(backend="threading", n_jobs=1):
                return predict(self.estimator, X)
        finally:
            self._test_rows = None

    @contextlib.contextmanager
    def paused(self):
        """Fits in this context are not recorded."""
        self._recording = False
        try:
            yield
        finally:
            self._recording = True

    # Building the clone ---------------------------------------------------------------------

    def _recorded(self, value, step):
        if isinstance(value, FrozenEstimator):
            return value
        if type(value) in (list, tuple):
            return type(value)(self._recorded_item(item, step) for item in value)
        learns = any(hasattr(value, method) for method in _FITS)
        if isinstance(value, type) or not (learns and hasattr(value, "get_params")):
            return clone_part(value)
        params = value.get_params(deep=False)
        parts = {
            name: None if name == "n_jobs" else self._recorded(part, f"{step}.{name}")
            for name, part in params.items()
        }
        recorded = self._class(type(value), step)(**parts)
        for attribute in (*BESIDE_PARAMETERS, "_passes_steps"):
            if attribute in vars(value):
                setattr(recorded, attribute, vars(value)[attribute])
        return recorded

    def _recorded_item(self, item, step):
        named = type(item) is tuple and item and isinstance(item[0], str)
        if not named:
            return self._recorded(item, step)
        base = step.rsplit(".", 1)[0]
        return (item[0], *(self._recorded(part, f"{base}.{item[0]}") for part in item[1:]))

    def _class(self, cls, step):
        recorded = type(cls)(
            cls.__name__, (cls,), {"__module__": cls.__module__, "__doc__": cls.__doc__}
        )
        ours = is_network_estimator(cls) or hasattr(cls, "_extract")
        for kinds, log in ((_FITS, self._record_fit), (_QUERIES, self._record_query)):
            names = kinds
            if ours:
                names = kinds + (_OUR_FITS if log == self._record_fit else _OUR_QUERIES)
            for name in names:
                if hasattr(cls, name):
                    # Set after the class is made, because scikit-learn wraps methods in its body.
                    setattr(recorded, name, _RecordedMethod(recorded, cls, name, log, step))
        return recorded

    # Recording ------------------------------------------------------------------------------

    @property
    def _active(self):
        if not hasattr(self._local, "fits"):
            self._local.fits = []
        return self._local.fits

    def _record_fit(self, step, method, bound, estimator, args, kwargs):
        active = self._active
        if active and active[-1].estimator is estimator:  # fit_transform calls fit
            return bound(*args, **kwargs)
        X = args[0] if args else kwargs.get("X")
        y = args[1] if len(args) > 1 else kwargs.get("y")
        if X is None or not self._recording:
            return bound(*args, **kwargs)
        parent = active[-1] if active else None
        self._forget(step, parent)
        fit = FitRecord(
            step, estimator, self._table(X), X, y, parent, resampled=method == "fit_resample"
        )
        if kwargs.get("X_val") is not None:
            fit.validation = self._table(kwargs["X_val"])
        with self._lock:
            self.fits.append(fit)
        active.append(fit)
        try:
            result = bound(*args, **kwargs)
        finally:
            active.pop()
        self._fitted[id(estimator)] = fit
        if method == "fit_resample":
            return (self._keep_resampled(fit, result[0]), *result[1:])
        if method in ("fit_transform", "fit_predict"):
            return self._keep(fit, fit.table, result)
        if method == "_learn" and result is not None:
            return (self._keep(fit, fit.table, result[0]), *result[1:])
        return result

    def _record_query(self, step, method, bound, estimator, args, kwargs):
        active = self._active
        fit = self._fitted.get(id(estimator))
        own = active and active[-1].estimator is estimator
        if own or fit is None or not args:
            return bound(*args, **kwargs)
        if self._test_rows is not None or not self._recording:
            if self._recording and n_rows(args[0]) == self._test_rows:
                fit.test_features = args[0]
            return bound(*args, **kwargs)
        table = self._table(args[0])
        answer = bound(*args, **kwargs)
        fit.queried.append(table)
        fit.answers.append(answer)
        return self._keep(fit, table, answer)

    def _forget(self, step, parent):
        """Drop tables that the previous fit of a step has created."""

        def stale(maker):
            return any(fit.step == step and fit.parent is parent for fit in maker.lineage)

        with self._lock:
            self._tables = [t for t in self._tables if not any(map(stale, t.makers))]

    def _keep(self, fit, table, result):
        shape = getattr(result, "shape", ())
        if len(shape) < 2 or shape[0] != len(table.rows):
            return result
        kept = RowRecord(table.rows, row_keys(result, dtype=np.float32), (*table.makers, fit))
        with self._lock:
            self._tables.append(kept)
        return _tracked(result, kept)

    def _keep_resampled(self, fit, X):
        keys = row_keys(X, dtype=np.float32)
        before = dict(zip(fit.table.keys.tolist(), fit.table.rows.tolist(), strict=True))
        rows = np.array([before.get(key, SYNTHETIC) for key in keys.tolist()])
        kept = RowRecord(rows, keys, (*fit.table.makers, fit))
        with self._lock:
            self._tables.append(kept)
        return _tracked(X, kept)

    def _table(self, X):
        """Identify rows: those of a known table, or some of them."""
        keys = row_keys(X, dtype=np.float32)
        tracked = getattr(X, "table", None) if isinstance(X, _TrackedRows) else None
        if tracked is not None:
            return RowRecord(tracked.rows, keys, tracked.makers)
        with self._lock:
            tables = self._tables[::-1]
        for known in tables:
            if len(known.keys) == len(keys) and np.array_equal(known.keys, keys):
                return known
        for known in tables:
            chosen = _match_rows(keys, known.keys)
            if chosen is not None:
                return RowRecord(known.rows[chosen], keys, known.makers)
        # Columns were joined or scaled without a record; the order of rows is the same. Who made
        # them is a guess, in which a model that has seen none of the rows has no part: of several
        # such models each makes some rows.
        for known in tables:
            if len(known.rows) == len(keys):
                makers = (m for m in known.makers if np.isin(known.rows, m.rows).any())
                return RowRecord(known.rows, keys, tuple(makers))
        return RowRecord(np.full(len(keys), UNKNOWN), keys)


def _tracked(X, table):
    if type(X) not in (np.ndarray, _TrackedRows):
        return X
    X = X.view(_TrackedRows)
    X.table = table
    return X


def _match_rows(keys, known):
    """Positions of rows in a table; None if some are missing, or if most rows are duplicates."""
    unique, first, counts = np.unique(known, return_index=True, return_counts=True)
    if len(unique) < 0.5 * len(known) or not np.isin(keys, unique).all():
        return None
    if counts.max() == 1:
        return first[np.searchsorted(unique, keys)]
    positions = {}
    for row, key in enumerate(known.tolist()):
        positions.setdefault(key, []).append(row)
    times = {}
    chosen = []
    for key in keys.tolist():  # equal rows are distinguished by their order
        times[key] = times.get(key, -1) + 1
        chosen.append(positions[key][times[key] % len(positions[key])])
    return np.array(chosen)


class _RecordedMethod:
    """A method that records its calls, available if that of the class is."""

    def __init__(self, recorded, cls, name, log, step):
        self.recorded, self.cls, self.name, self.log, self.step = recorded, cls, name, log, step

    def __get__(self, estimator, owner=None):
        if estimator is None:
            return getattr(self.cls, self.name)
        bound = getattr(super(self.recorded, estimator), self.name)

        @functools.wraps(bound)
        def call(*args, **kwargs):
            return self.log(self.step, self.name, bound, estimator, args, kwargs)

        return call
