"""What an estimator carries into every fit: rows, targets, statistics and fitted models."""

from __future__ import annotations

import contextlib
import dis
import functools
import inspect
import os
import types
import warnings

import numpy as np
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skstack._base.params import clone_part, is_keras_model
from skstack._base.tables import is_dataframe, n_rows, take_columns, take_rows
from skstack.inspection._association import association, predictions_of
from skstack.inspection._columns import as_frame, is_continuous, numeric_columns
from skstack.inspection._overlap import check_overlap, row_keys
from skstack.inspection._report import Finding

_MOST_OBJECTS = 3000
_MOST_ITEMS = 200  # of a list or dict that are looked into
_LEAST_ROWS = 3
_LEAST_ENTRIES = 5  # of a dict that may be a table of targets
_LEAST_VALUES = 10  # of a column that are found again in the estimator
_ANSWERS = ("predict_proba", "decision_function", "predict", "transform")
_LIBRARIES = {
    "builtins", "functools", "imblearn", "joblib", "keras", "lightgbm", "numpy", "pandas",
    "scikeras", "scipy", "sklearn", "skstack", "tensorflow", "torch", "xgboost",
}  # fmt: skip


def carried(estimator):
    """Yield (path, object) of data and fitted models that a clone of the estimator has.

    Looked into are parameters, attributes, class attributes of users' own classes, closures,
    defaults and global variables of functions, and whatever these hold.
    """
    waiting = []
    with contextlib.suppress(Exception):  # of classes that change their parameters
        waiting.append(("the estimator", clone_part(estimator)))
    parts = [estimator, *getattr(estimator, "get_params", dict)().values()]
    if not waiting or not any(map(_is_fitted, parts)):
        # Attributes that somebody set; those of a fitted estimator are what it has learned.
        waiting.append(("the estimator", estimator))
    seen = set()
    while waiting and len(seen) < _MOST_OBJECTS:
        path, value = waiting.pop()
        if id(value) in seen or value is None or isinstance(value, (str, bytes, float, int)):
            if isinstance(value, str) and value.endswith((".keras", ".h5")):
                yield path, value
            continue
        seen.add(id(value))
        if isinstance(value, FrozenEstimator):
            yield path, value.estimator
        elif _is_data(value) or is_keras_model(value) or _is_fitted(value):
            yield path, value
        elif isinstance(value, os.PathLike):
            if str(value).endswith((".keras", ".h5")):
                yield path, value
        else:
            if isinstance(value, dict) and len(value) >= _LEAST_ENTRIES:
                yield path, value
            if isinstance(value, (list, tuple)) and _is_numbers(value):
                yield path, np.asarray(value)
            waiting += [(_joined(path, name), part) for name, part in _parts_of(value)]


def _joined(path, name):
    return name if path == "the estimator" else f"{path}.{name}"


def _is_data(value):
    return isinstance(value, np.ndarray) or is_dataframe(value) or hasattr(value, "tocsr") or (
        hasattr(value, "to_numpy") and hasattr(value, "index")
    )  # fmt: skip


def _is_numbers(values):
    try:
        return len(values) > 1 and np.asarray(values).dtype.kind in "fiub"
    except ValueError:  # of different lengths
        return False


def _is_fitted(value):
    if isinstance(value, type) or not hasattr(value, "fit") or not hasattr(value, "get_params"):
        return False
    if not any(name.endswith("_") and not name.endswith("__") for name in vars(value)):
        return False
    try:
        check_is_fitted(value)
    except (NotFittedError, TypeError):
        return False
    return True


def _parts_of(value):
    """(name, part) of everything that an object holds."""
    if isinstance(value, dict):
        yield from ((str(key), part) for key, part in list(value.items())[:_MOST_ITEMS])
    elif isinstance(value, (list, tuple, set)):
        for index, part in enumerate(list(value)[:_MOST_ITEMS]):
            named = isinstance(part, tuple) and len(part) > 1 and isinstance(part[0], str)
            inner = part[1] if named and len(part) == 2 else part[1:] if named else part
            yield (part[0] if named else str(index)), inner
    elif isinstance(value, functools.partial):
        yield from (("func", value.func), ("args", value.args), ("keywords", value.keywords))
    elif isinstance(value, types.MethodType):
        yield "__self__", value.__self__
        yield "__func__", value.__func__
    elif isinstance(value, types.FunctionType):
        if (value.__module__ or "").partition(".")[0] not in _LIBRARIES:
            yield from _parts_of_function(value)
    elif isinstance(value, (types.ModuleType, types.BuiltinFunctionType)):
        return
    elif isinstance(value, type):
        if value.__module__.partition(".")[0] not in _LIBRARIES:
            yield from (item for item in vars(value).items() if not item[0].startswith("__"))
    elif not _is_opaque(value):
        names = value.get_params(deep=False) if hasattr(value, "get_params") else {}
        yield from names.items()
        yield from (item for item in getattr(value, "__dict__", {}).items() if item[0] not in names)
        shadowed = set(_FORMAL)
        for cls in type(value).__mro__:
            if cls.__module__.partition(".")[0] not in _LIBRARIES:
                own = vars(cls).items()
                yield from ((name, part) for name, part in own if name not in shadowed)
                shadowed |= set(vars(cls))


_FORMAL = {
    "__dict__",
    "__weakref__",
    "__doc__",
    "__module__",
    "__annotations__",
    "__abstractmethods__",
}


def _is_opaque(value):
    """Whether an object is a library's own, other than an estimator or a loss with parameters."""
    module = type(value).__module__.partition(".")[0]
    return module in _LIBRARIES - {"skstack"} and not hasattr(value, "get_params")


def _parts_of_function(function):
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    yield from ((f"default {i}", part) for i, part in enumerate(function.__defaults__ or ()))
    yield from (function.__kwdefaults__ or {}).items()
    for name in _names_of(function.__code__):
        part = function.__globals__.get(name)
        if part is not None and not isinstance(part, (types.ModuleType, type)):
            yield name, part


def _names_of(code):
    """Global names that code refers to, in functions inside it too; attributes are none."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if inspect.iscode(constant):
            yield from _names_of(constant)


# Rows, targets and statistics ---------------------------------------------------------------------


def kept_rows(parts, X, y):
    """Whether the estimator holds rows of X, its targets, or statistics of all rows."""
    check = "rows or targets kept in the estimator"
    keys, found = None, {}
    y = np.asarray(y)
    _, values = numeric_columns(X)
    statistics = _statistics(values)
    measured = _measured(values, y)
    for path, part in parts:
        if isinstance(part, dict):
            number = _looked_up(part, X, y)
            if number:
                found[path] = f"{path} holds targets of {number} rows", number / len(y)
            continue
        if not _is_data(part):
            continue
        shape = getattr(part, "shape", ())
        if len(shape) == 2 and keys is None:
            keys = _distinct_keys(X)
        number = _rows_of(part, X, keys) if len(shape) == 2 else 0
        if number >= _LEAST_ROWS:
            found[path] = f"{path} holds {number} rows of X", min(1.0, number / len(y))
        elif _is_target(part, y):
            found[path] = f"{path} holds the targets of all rows", 1.0
        elif hasattr(part, "index") and len(shape) == 1 and _looked_up(part.to_dict(), X, y):
            found[path] = f"{path} holds targets of rows", 1.0
        elif len(shape) == 1 and len(part) == values.shape[1] > 1 and (
            name := _statistic(np.asarray(part), statistics)
        ):  # fmt: skip
            found[path] = f"{path} holds the {name} of all rows of X", 1.0
        else:
            number = _values_of(part, measured) or _rescaled(part, values)
            if number:
                found[path] = f"{path} holds {number} values of X or y", min(1.0, number / len(y))
    if not found:
        return Finding(check, "ok", "no parameter, attribute or function holds rows of X or y")
    return Finding(
        check,
        "leak",
        "; ".join(text for text, _ in list(found.values())[:4]),
        "learn them from the training rows in fit, or keep rows that are not in X",
        float(max(strength for _, strength in found.values())),
    )


def _distinct_keys(X):
    """Keys of rows of X that occur once; none if most rows occur several times."""
    if getattr(X, "ndim", 2) != 2 and not is_dataframe(X):
        return np.array([], dtype=np.int64)
    keys, counts = np.unique(row_keys(X), return_counts=True)
    return keys[counts == 1] if (counts == 1).mean() > 0.5 else keys[:0]


def _rows_of(part, X, keys):
    """Number of rows of X in a table that an estimator holds."""
    width = X.shape[1] if len(getattr(X, "shape", ())) == 2 else None
    if not len(keys) or width is None or width < 2 or n_rows(part) == 0:
        return 0
    if part.shape[1] not in (width, width + 1):  # with the target at an end
        return 0
    names = list(X.columns) if is_dataframe(X) else None
    tables = []
    if is_dataframe(part) and names is not None and set(names) <= set(part.columns):
        tables = [part[names]]
    else:
        dense = part.toarray() if hasattr(part, "toarray") else np.asarray(part)
        tables = [dense[:, :width], dense[:, -width:]]
    return max(int(np.isin(keys, row_keys(table)).sum()) for table in tables)


def _measured(values, y):
    """All values of columns, and of targets, that hardly ever occur twice."""
    columns = [column for column in values.T if is_continuous(column[:, None])[0]]
    if y.ndim == 1 and y.dtype.kind == "f" and is_continuous(y[:, None])[0]:
        columns.append(y)
    known = np.concatenate(columns) if columns else np.array([])
    known = known[np.isfinite(known)]
    return np.unique(known[known != np.round(known)])


def _values_of(part, measured):
    """Number of measured values in an array that an estimator holds, if they are most of it."""
    part = part.toarray() if hasattr(part, "toarray") else np.asarray(part)
    if part.dtype.kind != "f" or not len(measured) or part.size < _LEAST_VALUES:
        return 0
    part = np.unique(part[np.isfinite(part)])
    part = part[part != np.round(part)]
    number = int(np.isin(part, measured).sum())
    return number if number >= _LEAST_VALUES and number > 0.3 * len(part) else 0


def _rescaled(part, values):
    """Number of rows in a table of as many rows as X if most of its columns are rescaled ones."""
    part = part.toarray() if hasattr(part, "toarray") else np.asarray(part)
    if part.ndim != 2 or len(values) < 10 or part.dtype.kind != "f":
        return 0
    if len(part) != len(values) or not values.shape[1] or not np.isfinite(part).all():
        return 0
    both = [np.nan_to_num(table - np.nanmean(table, axis=0)) for table in (part, values)]
    both = [table / np.maximum(np.linalg.norm(table, axis=0), 1e-300) for table in both]
    equal = (np.abs(both[0].T @ both[1]) > 1 - 1e-9).any(axis=1)
    return len(part) if equal.mean() > 0.5 else 0


def _looked_up(table, X, y):
    """Number of rows whose target a dict gives, by position, identifier or values of the row."""
    if y.ndim != 1 or not all(np.isscalar(value) for value in list(table.values())[:20]):
        return 0
    frame = as_frame(X)
    candidates = [list(range(len(y)))]
    if frame is not None:
        candidates += [frame[name].tolist() for name in frame]
        candidates.append(list(map(tuple, frame.to_numpy().tolist())))
        if isinstance(X, np.ndarray):
            candidates.append([row.tobytes() for row in X])
    for keys in candidates:
        try:
            known = np.array([key in table for key in keys])
            given = np.array([table[key] for key, k in zip(keys, known, strict=True) if k])
        except TypeError:  # not hashable
            continue
        if known.sum() < 20:
            continue
        own = y[known]
        if len(np.unique(own)) > 1 and given.dtype.kind == own.dtype.kind and (given == own).all():
            return int(known.sum())
        if own.dtype.kind in "fiub" and given.dtype.kind == "f" and len(np.unique(given)) > 3:
            used = [key for key, k in zip(keys, known, strict=True) if k]
            code = np.unique(np.array(used).astype(str), return_inverse=True)[1]
            means = (np.bincount(code, own) / np.bincount(code))[code]
            if len(np.unique(code)) < 0.5 * len(own) and np.allclose(means, given, rtol=1e-9):
                return int(known.sum())
    return 0


def _is_target(part, y):
    part = np.asarray(part)
    if part.shape != y.shape or y.ndim != 1 or len(y) < 20 or len(np.unique(y)) < 2:
        return False
    return bool(np.array_equal(part, y))


def _statistics(values):
    """Statistics of all rows, by name."""
    if not values.size:
        return {}
    functions = {
        "means": np.nanmean,
        "standard deviations": np.nanstd,
        "standard deviations (n - 1)": functools.partial(np.nanstd, ddof=1),
        "medians": np.nanmedian,
        "minima": np.nanmin,
        "maxima": np.nanmax,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # columns of gaps only
        return {name: function(values, axis=0) for name, function in functions.items()}


def _statistic(part, statistics):
    if part.dtype.kind not in "fiu":
        return None
    for name, expected in statistics.items():
        fractional = np.abs(expected - np.round(expected)) > 1e-6
        if fractional.sum() > 1 and np.allclose(part, expected, rtol=1e-9, atol=0):
            return name
    return None


# Frozen parts -------------------------------------------------------------------------------------


def frozen_parts(parts):
    """(path, fitted estimator, network or file) of all parts that ``fit`` does not train."""
    frozen = {}  # a clone and its original hold the same at the same path
    for path, part in parts:
        network = is_keras_model(part) or isinstance(part, (str, os.PathLike))
        if network or hasattr(part, "fit"):
            frozen.setdefault(path, part)
    return list(frozen.items())


def frozen_finding(estimator, parts, rows, seen):
    """Whether parts that are not trained have seen test rows; `rows` as in `leakage_report`."""
    check, frozen = "frozen parts that have seen test rows", frozen_parts(parts)
    if not frozen:
        return Finding(check, "ok", "nothing is frozen")
    remedy = "evaluate on rows that the frozen part was not trained on, or train it in each fold"
    if seen is not None:
        overlap = check_overlap(rows.X, seen)
        share = len(overlap.rounded_a) / overlap.n_a
        return Finding(
            check,
            "leak" if share else "ok",
            f"{share:.1%} of the rows of X are among those that the frozen parts were trained on",
            remedy,
            float(share),
        )
    findings = [_judged(estimator, path, part, rows) for path, part in frozen]
    order = {"leak": 3, "suspect": 2, "ok": 1}
    verdict, evidence, strength = max(findings, key=lambda f: (order[f[0]], f[2]))
    remedy += "; pass its training rows as seen= to be certain"
    return Finding(check, verdict, evidence, remedy, strength)


def _judged(estimator, path, part, rows):
    """(verdict, evidence, strength) of one frozen part."""
    unknown = "suspect", f"{path} is frozen, and its training rows are unknown", 0.3
    if not hasattr(part, "get_params") or not hasattr(part, "fit"):
        return unknown
    y, classification, labels = rows.y, rows.classification, np.unique(rows.y)
    predict = functools.partial(predictions_of, classification=classification, labels=labels)
    try:
        X = _input_of(estimator, path, part, rows.X, y)
        whole = clone(part)
        whole.fit(X, y)
    except Exception:  # trained on other columns, labels or tasks: not comparable
        return unknown
    method = next((name for name in _ANSWERS if hasattr(part, name)), None)
    try:
        own, refitted = (
            np.asarray(getattr(p, method)(X), dtype=float).reshape(n_rows(X), -1)
            for p in (part, whole)
        )
    except Exception:
        return unknown
    scale = own.std() if own.size else 0
    if (
        own.shape == refitted.shape
        and scale
        and np.allclose(own, refitted, rtol=1e-6, atol=1e-7 * scale)
    ):
        return "leak", f"{path} gives what it gives if it is fitted on all rows of X", 1.0
    if not hasattr(part, "predict"):
        return "ok", f"{path} gives other values than if it were fitted on all rows of X", 0.0
    try:
        own = predict(part, X)
        inside = predict(whole, X)
        fresh = _out_of_fold(part, X, rows, predict, labels)
    except Exception:
        return unknown
    scores = [association(p, y, classification) for p in (own, fresh, inside)]
    generator = np.random.default_rng(0)
    draws = []
    for _ in range(40):
        some = generator.integers(0, len(y), len(y))
        draws.append(association(own[some], y[some], classification)
                     - association(fresh[some], y[some], classification))  # fmt: skip
    z = (scores[0] - scores[1]) / max(float(np.std(draws)), 1e-9)
    closed = (scores[0] - scores[1]) / max(scores[2] - scores[1], 1e-9)
    gap = (scores[0] - scores[1]) / max(1 - scores[1], 1e-9)
    measure = "ROC AUC" if classification else "R2"
    evidence = (
        f"{path} predicts the targets with {measure} {scores[0]:.3f}; a fresh clone reaches "
        f"{scores[1]:.3f} out-of-fold and {scores[2]:.3f} on its own training rows"
    )
    verdict = "ok"
    if z >= 3 and gap > 0.3:  # a better model, or one of more rows, closes less of the gap
        verdict = "leak" if z > 4 and closed > 0.5 else "suspect"
    return verdict, evidence, float(np.clip(gap, 0, 1)) if verdict != "ok" else 0.0


def _input_of(estimator, path, part, X, y):
    """What a frozen part receives: X after the steps before it, or some of its columns."""
    if isinstance(estimator, Pipeline):
        for index, (name, _) in enumerate(estimator.steps):
            if index and name in path.split("."):
                before = clone(estimator[:index])
                X = before.fit(X, y).transform(X)
    everything = [estimator, *estimator.get_params(deep=True).values()]
    for composite in everything:
        if isinstance(composite, ColumnTransformer):
            for _, transformer, columns in composite.transformers:
                if getattr(transformer, "estimator", None) is part:
                    return take_columns(X, columns, "columns")
    return X


def _out_of_fold(part, X, rows, predict, labels):
    y = rows.y
    predictions = np.full((len(y), len(labels)) if rows.classification else len(y), np.nan)
    for train, test in rows.folds:
        fitted = clone_part(part).fit(take_rows(X, train), take_rows(y, train))
        predictions[test] = predict(fitted, take_rows(X, test))
    return np.where(np.isnan(predictions), np.nanmean(predictions, axis=0), predictions)
