"""Trial fits: find out which columns a part refuses, before any network is trained."""

from __future__ import annotations

import contextlib
from collections import defaultdict

import narwhals.stable.v2 as nw
import numpy as np
from scipy.sparse import issparse, vstack
from sklearn.base import BaseEstimator, TransformerMixin, is_classifier, is_regressor
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.class_weight import compute_class_weight

from skstack._base.atomic_fit import trial_scope
from skstack._base.disk_table import in_memory, joined_frames
from skstack._base.params import (
    clone_part,
    is_keras_model,
    is_network_estimator,
    is_path,
    last_step,
)
from skstack._base.progress import errors_named
from skstack._base.sklearn import drop_callbacks, wrapper_of
from skstack._base.tables import is_dataframe, n_rows, take_rows
from skstack._estimators.classifier import KerasClassifier
from skstack._estimators.resampling import refuse_interpolated_categories
from skstack._features.transformer import KerasFeatureTransformer
from skstack._splits.supervision import learns_from_y, trains_network
from skstack.preprocessing._columns import as_table, column_at
from skstack.preprocessing._passthrough import Passthrough

_ROWS_OF_EACH = 5  # rows of each class, and of each column with and without missing values
_MOST_ROWS = 400
_ROWS_OF_TARGETS = 40  # that tell whether a part accepts several targets
_MANY_COLUMNS = 100  # to which a scaler is not fitted if it keeps fewer
_OF_POSITIVE_NUMBERS = ("gamma", "log_error", "poisson", "tweedie")  # losses, in lower case
_OF_BAGS = {"estimator", "bootstrap", "max_samples", "oob_score"}  # parameters
_WORDS = ("strings", "categories", "truth values")
_REMEDIES = {
    "arrays": "Make columns of numbers of the arrays",
    "dates": "Convert dates to numbers, such as days since a date",
    "infinite or huge values": "Replace infinite and huge values",
    "negative values": "Use make_pipeline(MinMaxScaler(), {name}(...))",
}


def check_accepts(estimator, X, y, label, how, names=None, *, passed=False, known=None):
    """Raise an error if an estimator refuses columns of X for what they hold.

    It is fitted on a few rows with these columns, and with numbers in their place. Networks are not
    trained; they read the rows. ``passed`` is whether X are columns that pass through, of which a
    category that is unknown when the estimator predicts will be a missing value. If X are rows to
    predict, ``known`` are some training rows and their y: what it accepts beside them is not
    refused, such as a column that is missing in all rows of X.
    """
    if is_path(estimator) or is_keras_model(estimator):
        return
    frozen = isinstance(estimator, FrozenEstimator)  # has the attributes of its estimator
    if not frozen and hasattr(estimator, "_refuse_columns"):
        if known is not None and _refusal(estimator, *_beside(known, X, y, passed)) is None:
            return
        with errors_named(label), trial_scope():
            clone_part(estimator)._refuse_columns(X, y)
        return
    suspects = _suspects(X, positive_only=_positive_only(estimator))
    if set(suspects) == {"truth values"} and not trains_network(estimator):
        return  # numbers; only the sampler of a network refuses them
    if not (suspects or issparse(X) or (frozen and not passed)):
        return
    rows = _some_rows(X, y, suspects)
    X, y = _rows_of(X, rows, passed), np.asarray(y)[rows]
    error = _refusal(estimator, X, y)
    if error is None:
        return
    if known is not None and _refusal(estimator, *_beside(known, X, y, passed)) is None:
        return
    if issparse(X) and _refusal(estimator, X.toarray(), y) is None:
        raise ValueError(
            f"{label} does not accept X, which is a sparse matrix ({type(error).__name__}: "
            f"{error}). Use make_pipeline(FunctionTransformer(lambda X: X.toarray()), "
            f"{type(estimator).__name__}(...)), or pass a dense array."
        )
    everything = {index for each in suspects.values() for index in each}
    if not everything or _refusal(estimator, _with_numbers(X, everything), y) is not None:
        if frozen and not passed:  # that the rows are few is not the reason
            with errors_named(label):
                raise error
        return
    if len(suspects) > 1:
        for kind, own in suspects.items():
            alone = _refusal(estimator, _with_numbers(X, everything - set(own)), y)
            if alone is not None:
                suspects, error = {kind: own}, alone
                break
    keys = range(X.shape[1]) if names is None and not is_dataframe(X) else names or list(X.columns)
    columns = {kind: [keys[index] for index in own] for kind, own in suspects.items()}
    holds = " and ".join(f"{kind} in columns {own}" for kind, own in columns.items())
    raise ValueError(
        f"{label} does not accept X, which holds {holds} ({type(error).__name__}: "
        f"{str(error).partition(chr(10))[0]}). {_remedy(columns, type(estimator).__name__)}, or "
        f"leave these columns out: {how}."
    )


def check_scaler(scaler, n_columns, n_rows, label):
    """Raise an error if a scaler needs y, or changes the number of columns.

    There are at least `n_columns`: how many features a branch has is not known before it is
    trained. A scaler is refused if it changes each of some numbers; one that accepts only columns
    of certain names, or as many as there will be, accepts none here, and one that always returns
    as many as there may be is not refused.
    """
    if not hasattr(scaler, "fit") or trains_network(scaler):
        return
    if n_columns > _MANY_COLUMNS and all(_scaled_width(scaler, n)[1] == n for n in (7, 11)):
        return
    remedy = "Put it at the start of the downstream, in a Pipeline."
    widths = {}
    for n in (n_columns, n_columns + 1, 2 * n_columns + 7):
        error, widths[n] = _scaled_width(scaler, n, n_rows)
        if error is not None and _scaled_width(scaler, n, n_rows, with_y=True)[0] is None:
            raise ValueError(
                f"{label} learns from y, which a scaler does not receive ({error}). {remedy}"
            ) from error
        if error is not None or widths[n] == n:
            return
    n, width = next(iter(widths.items()))
    if set(widths.values()) == {width} and width is not None and width > n:
        return
    raise ValueError(
        f"{label} returns a table of {width} column(s) for one of {n}; expected a transformer that "
        f"returns one column for each input column. {remedy}"
    )


def _scaled_width(scaler, n_columns, n_rows=_ROWS_OF_TARGETS, with_y=False):
    """The error of a scaler on numbers, or None, and how many columns it makes of them."""
    shape = min(2 * n_columns + _ROWS_OF_TARGETS, n_rows), n_columns
    X = np.random.default_rng(0).uniform(0.1, 0.9, shape)
    given = {"y": np.arange(len(X)) % 2} if with_y else {}
    try:
        with _own_generator(), trial_scope():
            scaled = clone_part(scaler).fit(X, **given).transform(X[:2])
    except Exception as error:  # any scaler, on numbers that are not its own
        return error, None
    return None, np.shape(scaled)[1] if len(np.shape(scaled)) == 2 else None


def check_class_weight(estimator, y, label, X=None):
    """Raise an error if an estimator, or a part of it, cannot weight the classes.

    A composite, which may give its parts other labels than y, is fitted on a few rows of X, or on
    random numbers, with its weights and without them. Networks are not trained.
    """
    with errors_named(label):
        _check_class_weight(estimator, y, X)


def _check_class_weight(estimator, y, X):
    if isinstance(estimator, FrozenEstimator):  # has the attributes of its estimator
        return
    errors = [_class_weight_error(candidate, y) for candidate in _weighted_candidates(estimator)]
    if errors and all(errors):
        raise errors[0]
    if isinstance(estimator, Pipeline):
        for number, (_, step) in enumerate(estimator.steps):
            _check_class_weight(step, y, None if number else X)
    elif isinstance(estimator, KerasClassifier):
        estimator._class_weights(y, None, np.unique(y))
    elif isinstance(estimator, KerasFeatureTransformer):
        _check_class_weight(estimator.model, y, X)
    elif hasattr(estimator, "_check_class_weights"):
        estimator._check_class_weights(y)
    elif isinstance(estimator, BaseEstimator) and y.ndim == 1:
        weight = estimator.get_params(deep=False).get("class_weight")
        if isinstance(weight, dict):
            compute_class_weight(weight, classes=np.unique(y), y=y)
        if not errors:
            _refuse_weights_of_parts(estimator, y, X)


def _refuse_weights_of_parts(estimator, y, X):
    """Raise the error of a fit on a few rows of each class that class weights of parts cause."""
    weighted = [
        name
        for name, value in estimator.get_params().items()
        if name.endswith("__class_weight") and isinstance(value, dict)
    ]
    if not weighted:
        return
    _, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
    place = np.empty(len(y), dtype=int)  # among the rows of its class
    place[np.argsort(codes, kind="stable")] = np.arange(len(y)) - np.repeat(
        np.cumsum(counts) - counts, counts
    )
    rows = np.flatnonzero(place < _ROWS_OF_EACH)
    if X is None:
        X = np.random.default_rng(0).random((len(rows), 3))
    else:
        X = _rows_of(X, rows)
    error = _refusal(estimator, X, y[rows])
    plain = clone_part(estimator).set_params(**dict.fromkeys(weighted))
    if error is not None and _refusal(plain, X, y[rows]) is None:
        raise error


def check_folds(estimator, X, y, pairs, label, weights=None):
    """Raise an error if an estimator refuses the only class among the training rows of a fold."""
    if is_path(estimator) or is_keras_model(estimator) or isinstance(estimator, FrozenEstimator):
        return
    counted = weights is not None and is_network_estimator(estimator)  # drops rows of weight 0
    for number, (train, _) in enumerate(pairs):
        known = train[np.asarray(weights)[train] > 0] if counted else train
        if (y[known] != y[known[0]]).any():
            continue
        rows = known[:_ROWS_OF_TARGETS]
        some = _rows_of(X, rows)
        error = _refusal(estimator, some, y[rows])
        if error is None:
            return
        if _refusal(estimator, some, np.resize(np.unique(y), len(rows))) is None:
            raise ValueError(
                f"{label}: the training rows of fold {number + 1} of {len(pairs)} hold the class "
                f"{y[known[0]]} only, which {type(estimator).__name__} refuses "
                f"({str(error).partition(chr(10))[0]}). Use other folds, such as cv=5."
            )


def grids_of(search):
    """The grids of a search, with those parameters of which candidates are listed."""
    grids = getattr(search, "param_grid", getattr(search, "param_distributions", None))
    for grid in [grids] if isinstance(grids, dict) else grids or ():
        listed = {name: getattr(values, "choices", values) for name, values in grid.items()}
        yield {n: v for n, v in listed.items() if isinstance(v, list | tuple | np.ndarray)}


def _class_weight_error(estimator, y):
    """The error of `check_class_weight`, or None."""
    try:
        check_class_weight(estimator, y, type(estimator).__name__)
    except ValueError as error:
        return error
    return None


def _weighted_candidates(search):
    """The estimator of a search with each of the class weights that it tries; [] for others."""
    for grid in grids_of(search) if hasattr(search, "estimator") else ():
        if any(hasattr(value, "fit") for values in grid.values() for value in values):
            yield None  # candidates whose parts are others
            continue
        names = [name for name in grid if name.rpartition("__")[2] == "class_weight"]
        for name in names:
            for value in grid[name]:
                yield clone_part(search.estimator).set_params(**{name: value})
        if not names:
            yield search.estimator


def check_targets(estimator, y, label, X=None, *, classes):
    """Raise an error if an estimator refuses y: its columns, classes, or numbers below 0.

    It is fitted on some rows of X, or on random numbers. Networks are not trained. ``classes`` is
    whether y holds labels.
    """
    if y.ndim == 2:
        check_class_weight(estimator, y[:1], label)
    if is_path(estimator) or is_keras_model(estimator):
        return
    if hasattr(estimator, "_refuse_targets"):
        with errors_named(label):
            estimator._refuse_targets(y)
    _check_kind_of_target(estimator, y, label)
    if trains_network(estimator):
        return
    if y.ndim == 2:
        _check_takes_several(estimator, y.shape[1], label, classes, X)
    else:
        _check_takes_numbers(estimator, y, label, X)


def _check_kind_of_target(estimator, y, label):
    """Raise an error if an estimator takes only several targets, or only two classes.

    One whose tags say so is fitted on random numbers: a subclass may take more than its parent.
    """
    last = _last_estimator(estimator)
    if np.ndim(y) != 1 or isinstance(last, FrozenEstimator):  # which may have learned another y
        return
    several = _tag(last, "target_tags", "single_output") is False
    two = _tag(last, "classifier_tags", "multi_class") is False and len(np.unique(y)) > 2
    if not (several or two):
        return
    values = np.unique(y)
    tried = values[: _MOST_ROWS // _ROWS_OF_EACH]
    some = np.resize(tried, max(_ROWS_OF_TARGETS, _ROWS_OF_EACH * len(tried)))
    X = np.random.default_rng(0).random((len(some), 3))
    name = type(last).__name__
    two_columns = np.repeat(np.resize([1, 2], (len(some), 1)), 2, axis=1)
    if several and _refuses(last, X, some) and not _refuses(last, X, two_columns):
        raise ValueError(
            f"{label} does not accept y of shape (n_samples,): {name} takes a column for each of "
            "several targets. Use the estimator inside it."
        )
    if two and _refuses(last, X, some) and not _refuses(last, X, np.resize(values[:2], len(X))):
        raise ValueError(
            f"{label} does not accept y with {len(values)} classes: {name} takes two. Use "
            "OneVsRestClassifier(...), or another estimator."
        )


def _last_estimator(estimator):
    """The last step of Pipelines and searches, one inside another."""
    last = last_step(estimator)
    while hasattr(last, "param_grid") or hasattr(last, "param_distributions"):
        last = last_step(last.estimator)
    return last


def _refuses(estimator, X, y):
    """Whether a fit fails of the estimator itself; `_refusal` fits those inside searches."""
    try:
        with _own_generator(), trial_scope():
            _without_networks(estimator).fit(X, y)
    except Exception:  # any estimator
        return True
    return False


def _check_takes_several(estimator, n_targets, label, classes, X):
    """Raise an error if an estimator accepts one target, but not several, which are random."""
    rng = np.random.default_rng(0)
    if X is None:
        X = rng.random((_ROWS_OF_TARGETS, 3))
    else:
        X = in_memory(take_rows(X, np.arange(min(n_rows(X), _ROWS_OF_TARGETS))))
    y = rng.random((n_rows(X), n_targets))
    y = (y > 0.5).astype(int) if classes else y
    error = _refusal(estimator, X, y)
    if error is None or _refusal(estimator, X, y[:, 0]) is not None:
        return
    wrapper = "MultiOutputClassifier" if classes else "MultiOutputRegressor"
    raise ValueError(
        f"{label} does not accept y of shape (n_samples, {n_targets}) ({type(error).__name__}: "
        f"{str(error).partition(chr(10))[0]}). Use sklearn.multioutput.{wrapper}(...), or another "
        "estimator."
    )


def _check_takes_numbers(estimator, y, label, X):
    """Raise an error if an estimator needs numbers above those of y."""
    numbers = is_regressor(estimator) and y.dtype.kind in "biuf"
    if not (numbers and y.min() <= 0 and _refuses_numbers_below_0(estimator)):
        return
    half = min(len(y), _ROWS_OF_TARGETS) // 2  # of counts, the first rows may be 0 alone
    rows = np.unique([*range(half), y.argmin(), *np.argpartition(y, -half)[-half:]])
    rng = np.random.default_rng(0)
    if X is None:
        X = rng.random((len(rows), 3))
    else:
        X = _rows_of(X, rows)
    error = _refusal(estimator, X, y[rows])
    if error is None:
        return
    if _refusal(estimator, X, rng.uniform(0.1, 0.9, len(rows))) is None:
        raise ValueError(
            f"{label} does not accept y, which holds values from {y.min():.6g} to {y.max():.6g} "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0]}). Use another loss, or "
            "another estimator."
        )


def _refuses_numbers_below_0(estimator):
    """Whether a loss of a regressor may be defined only for positive numbers."""
    return any(
        kind in text
        for part in _all_parts(estimator)
        for text in (
            type(part).__name__.lower(),
            *(value for value in part.get_params(deep=False).values() if isinstance(value, str)),
        )
        for kind in _OF_POSITIVE_NUMBERS
    )


def _remedy(columns, name):
    """What to write instead, for columns by what they hold."""
    words = [key for kind in _WORDS for key in columns.get(kind, ())]
    remedies = [_REMEDIES[kind].format(name=name) for kind in columns if kind in _REMEDIES]
    if words:
        others = "SimpleImputer()" if "missing values" in columns else "'passthrough'"
        encoder = f"(OneHotEncoder(handle_unknown='ignore'), {words})"
        steps = f"make_column_transformer({encoder}, remainder={others})"
        remedies.append(f"Use make_pipeline({steps}, {name}(...))")
    elif "missing values" in columns:
        remedies.append(f"Use make_pipeline(SimpleImputer(), {name}(...))")
    return ". ".join(remedies)


def _positive_only(estimator):
    """Whether an estimator, or a part of it, may refuse negative numbers."""
    return any(
        getattr(part, "method", None) == "box-cox" or _tag(part, "input_tags", "positive_only")
        for part in _all_parts(estimator)
    )


def _all_parts(estimator):
    """An estimator, and those among its parameters, at any depth."""
    params = estimator.get_params(deep=True) if hasattr(estimator, "get_params") else {}
    for part in (estimator, *params.values()):
        if hasattr(part, "get_params") and not isinstance(part, type):
            yield part


def _tag(estimator, kind, name):
    try:
        return getattr(getattr(get_tags(estimator), kind), name)
    except Exception:  # estimators of others, with tags of their own kind or none
        return None


def has_missing(X):
    """Whether numbers of a table are missing."""
    return "missing values" in _suspects(X)


# Columns that a part may refuse -------------------------------------------------------------------


def _suspects(X, *, positive_only=False):
    """Columns by what they hold that an estimator may refuse, each with some rows that hold it."""
    if not (is_dataframe(X) or (isinstance(X, np.ndarray) and X.ndim == 2)):
        return {}
    columns = defaultdict(dict)
    if isinstance(X, np.ndarray) and X.dtype.kind in "biuf":
        contents = {}
        if X.size and not np.abs([X.min(), X.max()]).max() <= np.finfo(np.float32).max:
            contents = _of_numbers(X, np.isnan(X))
        if positive_only:
            contents["negative values"] = X < 0
        for kind, mask in contents.items():
            for index in np.flatnonzero(mask.any(axis=0)):
                columns[kind][int(index)] = _rows_with_and_without(mask[:, index])
        return dict(columns)
    if _holds_numbers(X) and not _suspects(X.to_numpy(), positive_only=positive_only):
        return {}  # much faster than column by column
    table = as_table(X)
    for index in range(X.shape[1]):
        for kind, rows in _contents(column_at(table, index), positive_only):
            columns[kind][index] = rows
    return dict(columns)


def _holds_numbers(X):
    """Whether all columns of a pandas DataFrame hold numbers of NumPy."""
    dtypes = X.dtypes if hasattr(X, "iloc") else [None]
    return all(isinstance(dtype, np.dtype) and dtype.kind in "iuf" for dtype in dtypes)


def _rows_with_and_without(mask):
    """A few rows of each kind: imputers drop columns in which all rows are missing."""
    return [row for each in (mask, ~mask) for row in np.flatnonzero(each)[:_ROWS_OF_EACH]]


def _of_numbers(values, missing):
    with np.errstate(over="ignore"):
        infinite = ~np.isfinite(values.astype(np.float32)) & ~missing
    return {"missing values": missing, "infinite or huge values": infinite}


def _contents(column, positive_only):
    """What a column holds that an estimator may refuse, and some rows that hold it."""
    if isinstance(column, np.ndarray):
        import pandas as pd

        column = pd.Series(column)
    column = nw.from_native(column, series_only=True)
    dtype = column.dtype
    missing = column.is_null().to_numpy().astype(bool)
    if isinstance(dtype, (nw.Categorical, nw.Enum)):
        truth = _are_truth_values(column.unique().to_list())
        yield "truth values" if truth else "categories", _rows_with_and_without(missing)
    elif dtype.is_temporal():
        yield "dates", _rows_with_and_without(missing)
    elif dtype.is_numeric() or isinstance(dtype, nw.Boolean):
        if isinstance(dtype, nw.Boolean) and not column.null_count():
            yield "truth values", ()
        values = column.cast(nw.Float64).to_numpy().astype(np.float64)
        masks = _of_numbers(values, missing | np.isnan(values))
        if positive_only:
            masks["negative values"] = values < 0
        for kind, mask in masks.items():
            if mask.any():
                yield kind, _rows_with_and_without(mask)
    elif isinstance(dtype, (nw.List, nw.Array)):
        yield "arrays", ()
    elif isinstance(dtype, (nw.String, nw.Object)):
        rows = np.flatnonzero(~missing)
        values = column.to_list() if isinstance(dtype, nw.Object) else ()
        words = [row for row in rows if not values or isinstance(values[row], str)]
        if any(isinstance(values[row], (np.ndarray, list)) for row in rows[:1] if values):
            yield "arrays", ()
        elif words:
            yield "strings", words[:_ROWS_OF_EACH]
        elif missing.any():
            yield "missing values", np.flatnonzero(missing)[:_ROWS_OF_EACH]


def _are_truth_values(values):
    return set(values) <= {False, True}


def _some_rows(X, y, suspects):
    """A few rows of each class, and of each column that the estimator may refuse."""
    labels = np.asarray(y)
    labels = labels if labels.ndim == 1 else np.zeros(n_rows(X), dtype=int)
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(counts) > _MOST_ROWS // _ROWS_OF_EACH:  # numbers
        codes = np.arange(len(codes)) % 10
    chosen = [
        row for code in np.unique(codes) for row in np.flatnonzero(codes == code)[:_ROWS_OF_EACH]
    ]
    for own in suspects.values():
        chosen += [row for rows in own.values() for row in rows]
    return np.sort(list(dict.fromkeys(map(int, chosen)))[:_MOST_ROWS])


def _rows_of(X, rows, passed=False):
    """Rows of X in memory, those of a table in a DataFrame of pandas.

    Of columns that pass through, categories that are numbers become strings: an estimator that
    takes numbers only would take them as such, and a missing value later.
    """
    X = in_memory(take_rows(X, rows))
    if not is_dataframe(X):
        return X
    import pandas as pd

    if not hasattr(X, "iloc"):
        categorical = [name for name in X.columns if "Categorical" in str(X[name].dtype)]
        X = pd.DataFrame({name: X[name].to_list() for name in X.columns})
        return X.astype(dict.fromkeys(categorical, "category"))
    X = X.reset_index(drop=True)
    for index, dtype in enumerate(X.dtypes):
        if passed and isinstance(dtype, pd.CategoricalDtype):
            numbers = not any(isinstance(value, str) for value in dtype.categories)
            if numbers and not _are_truth_values(dtype.categories):
                X.isetitem(index, X.iloc[:, index].cat.rename_categories("category {}".format))
    return X


def _beside(known, X, y, passed):
    """Rows of X and y below known ones."""
    table, targets = known
    parts = [_rows_of(each, np.arange(n_rows(each)), passed) for each in (table, X)]
    y = np.concatenate([targets, y])
    if any(map(issparse, parts)):
        return vstack(parts, format="csr"), y
    if any(map(is_dataframe, parts)):
        import pandas as pd

        names = next(part.columns for part in parts if is_dataframe(part))
        return joined_frames([pd.DataFrame(part, columns=names) for part in parts]), y
    return np.concatenate(parts), y


def _with_numbers(X, indices):
    """X with positive whole numbers, which any estimator accepts, in some columns."""
    X, numbers = X.copy(), np.arange(len(X)) % 3 + 1.0
    for index in indices:
        if hasattr(X, "iloc"):
            X.isetitem(index, numbers)
        else:
            X[:, index] = numbers
    if hasattr(X, "iloc") or X.dtype.kind in "biuf":
        return X
    try:
        return X.astype(np.float64)
    except (TypeError, ValueError):  # some strings are left
        return X


# Fits that train no network -----------------------------------------------------------------------


def _refusal(estimator, X, y):
    """The error of a fit, or None."""
    try:
        with _own_generator(), trial_scope():
            _fit(estimator, X, y)
    except Exception as error:  # any estimator, on any rows
        return error
    return None


@contextlib.contextmanager
def _own_generator():
    """Context in which what is drawn from the global generator of NumPy is not drawn from it."""
    state = np.random.get_state()  # noqa: NPY002 (an estimator may draw from it)
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _fit(estimator, X, y):
    """Fit a copy of an estimator, with networks that read the rows but are not trained."""
    inner = getattr(estimator, "estimator", None)
    if is_path(estimator) or is_keras_model(estimator) or wrapper_of(estimator) is not None:
        return
    if isinstance(estimator, FrozenEstimator):
        if wrapper_of(estimator.estimator) is not None:
            return  # its predictions may come from a model inside, and it may not be fitted
        (estimator.predict if hasattr(estimator, "predict") else estimator.transform)(X)
    elif isinstance(estimator, Pipeline):
        for _, step in estimator.steps[:-1]:
            if not hasattr(step, "transform") or trains_network(step):
                return
            X = _without_networks(step).fit(X, y).transform(X)
        _fit(estimator.steps[-1][1], X, y)
    elif isinstance(estimator, KerasFeatureTransformer):
        if estimator.passthrough:
            Passthrough(estimator.categorical_features).fit(X)
        _fit(estimator._upstream_model, X, y)
    elif hasattr(estimator, "_refuse_columns"):
        clone_part(estimator)._refuse_columns(X, y)
    elif is_network_estimator(estimator):
        if isinstance(estimator, KerasClassifier):
            estimator._class_weights(np.asarray(y), None, np.unique(y))
        shared = estimator._cross_fit_context(X, y if learns_from_y(estimator) else None)
        shared.blocks.split(X)
        sampler = getattr(estimator, "sampler", None)
        if sampler is not None:
            table = Passthrough(estimator.categorical_features, allow_nan=True).fit(X).table(X)
            refuse_interpolated_categories(sampler, table)
    elif hasattr(inner, "fit") and hasattr(estimator, "cv") and not _is_chain(estimator):
        _fit(inner, X, y)  # of a search or a calibration, which may take many fits
    elif hasattr(estimator, "fit"):
        _without_networks(estimator).fit(X, y)


def _is_chain(estimator):
    """Whether an estimator inside is given one target at a time, and more columns."""
    return type(estimator).__name__ in ("ClassifierChain", "RegressorChain")


def _without_networks(estimator):
    """A copy of an estimator whose networks are replaced by estimators that accept any rows."""
    copied, replaced = clone_part(estimator), ()
    drop_callbacks(copied)
    params = copied.get_params(deep=True)
    for name in sorted(params, key=lambda name: name.count("__")):
        part = params[name]
        if name.startswith(replaced) or isinstance(part, (type, FrozenEstimator)):
            continue
        if name.rpartition("__")[2] == "n_jobs":
            copied.set_params(**{name: None})
        elif hasattr(part, "fit") and hasattr(part, "get_params") and _is_network(part):
            copied.set_params(**{name: _stand_in(part)})
            replaced += (f"{name}__",)
    for part in _all_parts(copied):
        if part.get_params(deep=False).keys() >= _OF_BAGS:  # a bag of few may lack a class
            part.set_params(bootstrap=False, max_samples=1.0, oob_score=False)
    return copied


def _is_network(part):
    return wrapper_of(part) is not None or hasattr(part, "_graph_outputs")


def _stand_in(network):
    if is_classifier(network) or hasattr(network, "predict_proba"):
        return _UntrainedClassifier(network)
    if is_regressor(network) or not hasattr(network, "transform"):
        return _UntrainedRegressor(network)
    return _UntrainedTransformer(network)


class _Untrained(BaseEstimator):
    """Reads the rows of a network, which is not trained."""

    def __init__(self, network=None):
        super().__init__()
        self.network = network

    def fit(self, X, y=None, sample_weight=None):
        """Read the rows."""
        _fit(self.network, X, y)
        return super().fit(X, y) if hasattr(super(), "fit") else self


class _UntrainedClassifier(_Untrained, DummyClassifier):
    """Predicts the most frequent class."""


class _UntrainedRegressor(_Untrained, DummyRegressor):
    """Predicts the mean."""


class _UntrainedTransformer(TransformerMixin, _Untrained):
    """Transforms to one column of zeros."""

    def transform(self, X):
        """Zeros, one for each row."""
        return np.zeros((n_rows(X), 1))
