"""Which columns a part refuses for what they hold, found before any network is trained."""

from __future__ import annotations

from collections import defaultdict

import narwhals.stable.v2 as nw
import numpy as np
from scipy.sparse import issparse, vstack
from sklearn.frozen import FrozenEstimator

from skstack._base.atomic_fit import trial_scope
from skstack._base.disk_table import joined_frames
from skstack._base.params import clone_part, is_keras_model, is_path
from skstack._base.progress import errors_named
from skstack._base.tables import is_dataframe, n_rows
from skstack._features.trial import (
    MOST_ROWS,
    ROWS_OF_EACH,
    ROWS_OF_TARGETS,
    all_parts,
    are_truth_values,
    own_generator,
    refusal,
    rows_of,
    tag_of,
)
from skstack._splits.supervision import trains_network
from skstack.preprocessing._columns import as_table, column_at

_MANY_COLUMNS = 100  # to which a scaler is not fitted if it keeps fewer
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
        if known is not None and refusal(estimator, *_beside(known, X, y, passed)) is None:
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
    X, y = rows_of(X, rows, passed), np.asarray(y)[rows]
    error = refusal(estimator, X, y)
    if error is None:
        return
    if known is not None and refusal(estimator, *_beside(known, X, y, passed)) is None:
        return
    if issparse(X) and refusal(estimator, X.toarray(), y) is None:
        raise ValueError(
            f"{label} does not accept X, which is a sparse matrix ({type(error).__name__}: "
            f"{error}). Use make_pipeline(FunctionTransformer(lambda X: X.toarray()), "
            f"{type(estimator).__name__}(...)), or pass a dense array."
        )
    everything = {index for each in suspects.values() for index in each}
    if not everything or refusal(estimator, _with_numbers(X, everything), y) is not None:
        if frozen and not passed:  # that the rows are few is not the reason
            with errors_named(label):
                raise error
        return
    if len(suspects) > 1:
        for kind, own in suspects.items():
            alone = refusal(estimator, _with_numbers(X, everything - set(own)), y)
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


def _scaled_width(scaler, n_columns, n_rows=ROWS_OF_TARGETS, with_y=False):
    """The error of a scaler on numbers, or None, and how many columns it makes of them."""
    shape = min(2 * n_columns + ROWS_OF_TARGETS, n_rows), n_columns
    X = np.random.default_rng(0).uniform(0.1, 0.9, shape)
    given = {"y": np.arange(len(X)) % 2} if with_y else {}
    try:
        with own_generator(), trial_scope():
            scaled = clone_part(scaler).fit(X, **given).transform(X[:2])
    except Exception as error:  # any scaler, on numbers that are not its own
        return error, None
    return None, np.shape(scaled)[1] if len(np.shape(scaled)) == 2 else None


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
        getattr(part, "method", None) == "box-cox" or tag_of(part, "input_tags", "positive_only")
        for part in all_parts(estimator)
    )


def has_missing(X):
    """Whether numbers of a table are missing."""
    return "missing values" in _suspects(X)


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
    return [row for each in (mask, ~mask) for row in np.flatnonzero(each)[:ROWS_OF_EACH]]


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
        truth = are_truth_values(column.unique().to_list())
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
            yield "strings", words[:ROWS_OF_EACH]
        elif missing.any():
            yield "missing values", np.flatnonzero(missing)[:ROWS_OF_EACH]


def _some_rows(X, y, suspects):
    """A few rows of each class, and of each column that the estimator may refuse."""
    labels = np.asarray(y)
    labels = labels if labels.ndim == 1 else np.zeros(n_rows(X), dtype=int)
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(counts) > MOST_ROWS // ROWS_OF_EACH:  # numbers
        codes = np.arange(len(codes)) % 10
    chosen = [
        row for code in np.unique(codes) for row in np.flatnonzero(codes == code)[:ROWS_OF_EACH]
    ]
    for own in suspects.values():
        chosen += [row for rows in own.values() for row in rows]
    return np.sort(list(dict.fromkeys(map(int, chosen)))[:MOST_ROWS])


def _beside(known, X, y, passed):
    """Rows of X and y below known ones."""
    table, targets = known
    parts = [rows_of(each, np.arange(n_rows(each)), passed) for each in (table, X)]
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
