"""Whether one column, or two together, reveal the target."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
from scipy.stats import norm, rankdata
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from skstack.inspection._association import association
from skstack.inspection._columns import as_frame
from skstack.inspection._report import Finding
from skstack.preprocessing._columns import holds_numbers

_BINS = 64
_CANDIDATES = 4  # columns, and functions of them, that are evaluated out-of-fold
_REVEALS, _NEARLY = 0.99, 0.98  # ROC AUC or R2
_PAIR_REVEALS = 0.995
# AUC that each of two columns may have alone; evidence of columns often adds up by nature.
_WEAK = {"the sum of": 0.75, "the difference of": 0.8, "the distance of": 0.8}
_WEAK_OTHERWISE = 0.95
_MOST_PAIRED = 30  # columns all of whose pairs are looked at; of others only neighbours
_MOST_TARGETS = 10
_MOST_ROWS = 500  # for the first look at pairs
_TOKENS = 40
_FEW_LEVELS = 30
_PARTS = re.compile(r"[A-Za-z]+|\d+")
_DATE = re.compile(r"^\d{4}-\d{1,2}-\d{1,2}|^\d{1,2}[./]\d{1,2}[./]\d{4}")


def leaking_columns(X, y, classification):
    """Whether a column alone, or a simple function of two, predicts a target."""
    check = "a column that reveals the target"
    frame = as_frame(X)
    if frame is None or np.ndim(y) not in (1, 2):
        return Finding(check, "not checked", "requires columns and targets")
    y = np.asarray(y)
    if y.ndim == 2:
        return _of_several(frame, y, classification)
    if classification and np.unique(y, return_counts=True)[1].min() < 3:
        return Finding(check, "not checked", "a class has too few rows")
    best = {}  # (score, what was looked at) of each column
    views = {
        (name, label): values
        for name in frame.columns
        for label, values in _views(frame[name], y, classification).items()
    }
    first = {key: _in_sample_r2(codes, y, classification) for key, codes in views.items()}
    for key in sorted(first, key=first.get, reverse=True)[:_CANDIDATES]:
        score = _out_of_fold_score(views[key], y, classification)
        if score > best.get(key[0], (-np.inf,))[0]:
            best[key[0]] = score, key[1]
    if not best:
        return Finding(check, "ok", "no column varies")
    name = max(best, key=lambda column: best[column][0])
    score, view = best[name]
    measure = "ROC AUC" if classification else "R2"
    what = f"{view} column {name!s}" if view else f"column {name!s}"
    numbers = {column: values for (column, label), values in views.items() if not label}
    if classification:
        reveals = [c for c, (s, _) in best.items() if s >= _NEARLY]
        others = {key: v for key, v in views.items() if key[0] not in reveals}
        verdict = _judged(score, reveals, others, frame.shape[1], y)
        pair = None if verdict == "leak" else _revealing_pair(numbers, y, others)
    else:
        linear = _linear_r2(views[name, view], y)
        verdict = "ok"
        if linear > 1 - 1e-9 or (max(score, linear) >= _REVEALS and _is_an_effect(name, numbers)):
            verdict, score = "leak", max(score, linear)
        elif score >= _NEARLY:
            return Finding(
                check,
                "ok",
                f"{what} reaches R2 {score:.3f}, and the other columns do not predict it: the "
                "target may be a function of it, rather than a copy",
            )
        pair = None if verdict == "leak" else _exact_pair(numbers, y)
    if pair is not None:
        what, score, verdict = *pair, "leak"
        return Finding(
            check,
            verdict,
            f"{what} reaches a cross-validated {measure} of {score:.3f}, where each of the two "
            "columns says little",
            "check where both columns come from, and whether they are known at prediction time",
            float(score),
        )
    return Finding(
        check,
        verdict,
        f"{what} alone reaches a cross-validated {measure} of {score:.3f}",
        f"check where column {name!s} comes from, and whether it is known at prediction time",
        float(max(0.0, (2 * score - 1) if classification else score)) if score > 0 else 0.0,
    )


def _of_several(frame, y, classification):
    """The worst finding on the first columns of y; those of two values are classes."""
    found = [Finding("a column that reveals the target", "not checked", "no target varies")]
    for number, target in enumerate(y.T[:_MOST_TARGETS]):
        known = target == target  # NaN is a missing target
        target = target[known]
        n_values = len(np.unique(target))
        if n_values > 1:
            finding = leaking_columns(frame[known], target, classification or n_values == 2)
            found.append(replace(finding, evidence=f"target {number}: {finding.evidence}"))
    verdicts = ("not checked", "ok", "suspect", "leak")
    return max(found, key=lambda each: (verdicts.index(each.verdict), each.strength))


def _judged(score, reveals, others, n_columns, y):
    """The verdict on the best column: it must tell much more than all other columns together."""
    if score < _NEARLY or (n_columns > 1 and 2 * len(reveals) > n_columns):
        return "ok"  # classes that most columns separate are far apart by nature
    missing, rest = 1 - score, 1 - _score_of_all(others, y)
    if missing > rest / 3:
        return "ok"
    return "leak" if score >= _REVEALS else "suspect"


def _score_of_all(columns, y):
    """Out-of-fold AUC of a small forest."""
    if not columns:
        return 0.5
    table = np.nan_to_num(np.column_stack(list(columns.values())))
    forest = RandomForestClassifier(20, min_samples_leaf=2, random_state=0)
    return association(_out_of_fold(forest, table, y, True), y, True)


# Views of one column ------------------------------------------------------------------------------


def _views(column, y, classification):
    """Numbers that are read off a column: values, gaps, dates, digits, words, means of levels."""
    import pandas as pd

    views = {}
    missing = column.isna().to_numpy()
    if 0 < missing.sum() < len(column):
        views["the gaps of"] = missing.astype(float)
    if column.dtype.kind == "M" or str(column.dtype).startswith("datetime"):
        views |= _dates(column)
    elif holds_numbers(column):
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        views[""] = values
        known = values[~missing]
        if len(known) and (known == np.round(known)).all() and np.abs(known).max() < 2**53:
            n_levels = len(np.unique(known))
            if n_levels > 0.9 * len(known):
                views["the last digit of"] = np.nan_to_num(values) % 10
            elif 10 < n_levels <= len(known) / 3:
                views["the levels of"] = _level_means(values, y, classification)
    else:
        views |= _words(
            column.astype(object).where(~column.isna(), "").astype(str), y, classification
        )
        if not any(label == "" for label in views):
            views[""] = pd.factorize(column)[0].astype(float)
    return {label: values.reshape(-1, 1) for label, values in _varying(views).items()}


def _varying(views):
    """The views with at least two values."""
    return {label: v for label, v in views.items() if len(np.unique(v[~np.isnan(v)])) > 1}


def _dates(column):
    import pandas as pd

    times = pd.to_datetime(column, utc=True)
    if isinstance(times.dtype, pd.ArrowDtype):  # which refuses the seconds of most timestamps
        times = times.astype(f"datetime64[{times.dtype.pyarrow_dtype.unit}, UTC]")
    views = {"": (times - pd.Timestamp(0, tz="UTC")).dt.total_seconds()}
    for part in ("month", "day", "day_of_week", "hour"):
        views[f"the {part.replace('_', ' ')} of"] = getattr(times.dt, part).astype(float)
    return _varying({label: values.to_numpy(float) for label, values in views.items()})


def _words(column, y, classification):
    """Views of paths, identifiers, dates as text, and categories of many levels."""
    import pandas as pd

    values = column.to_numpy()
    levels = len(np.unique(values))
    if levels <= len(values) / 2:
        return {"": _level_means(values, y, classification)}
    if np.mean([len(value.split()) for value in values[:200]]) > 3:
        return {}  # prose: its words are what a text model is to learn
    if np.mean([bool(_DATE.match(value)) for value in values[:200]]) > 0.9:
        times = pd.to_datetime(pd.Series(values), errors="coerce", utc=True)
        if times.notna().mean() > 0.9:
            return _dates(times)
    parts = [_PARTS.findall(value) for value in values]
    views = {
        "the length of": np.array([float(len(value)) for value in values]),
        "the first character of": np.array(
            [float(ord(value[0])) if value else 0 for value in values]
        ),
        "the last character of": np.array(
            [float(ord(value[-1])) if value else 0 for value in values]
        ),
    }
    number = np.array([next((float(p) for p in reversed(r) if p.isdigit()), np.nan) for r in parts])
    if np.isfinite(number).mean() > 0.9:
        views["the number in"] = number
        views["the last digit of"] = np.nan_to_num(number) % 10
    for place in range(max(map(len, parts[:50]), default=0)):
        words = [row[place] if place < len(row) else "" for row in parts]
        if 2 <= len(set(words)) <= _FEW_LEVELS:
            views[f"word {place + 1} of"] = pd.factorize(np.array(words))[0].astype(float)
    tokens, counts = np.unique([t for r in parts for t in set(r)], return_counts=True)
    common = (counts > 0.05 * len(values)) & (counts < 0.95 * len(values))
    chosen = tokens[common][np.argsort(-counts[common])][:_TOKENS]
    for token in chosen:
        views[f"the word {token!r} in"] = np.array([float(token in r) for r in parts])
    return views


def _numbers(y, classification):
    """Targets as floats, those of classes by their positions."""
    return (np.unique(y, return_inverse=True)[1] if classification else y).astype(float)


def _level_means(values, y, classification):
    """Out-of-fold means of the target (for classes, of the class that they favour) by level."""
    code, numbers = np.unique(values, return_inverse=True)[1], _numbers(y, classification)
    # Leaving one out would reveal the target; folds do so far less, as in TargetEncoder.
    result = np.empty(len(y))
    for train, test in KFold(5, shuffle=True, random_state=0).split(code):
        total = np.bincount(code[train], numbers[train], minlength=code.max() + 1)
        count = np.bincount(code[train], minlength=code.max() + 1)
        prior = numbers[train].mean()
        result[test] = ((total + prior) / (count + 1))[code[test]]
    return result


def _in_sample_r2(codes, y, classification):
    """R2 of the target given the bin of the value: a cheap estimate of the score of a tree."""
    _, bins = np.unique(np.nan_to_num(codes[:, 0]), return_inverse=True)
    if bins.max() >= _BINS:
        bins = np.argsort(np.argsort(codes[:, 0])) * _BINS // len(codes)
    numbers = _numbers(y, classification)
    targets = (numbers[:, None] == np.unique(numbers)).T if classification else [numbers]
    count = np.maximum(np.bincount(bins), 1)
    within = sum(
        np.sum((target - (np.bincount(bins, target) / count)[bins]) ** 2) for target in targets
    )
    total = sum(np.sum((target - np.mean(target)) ** 2) for target in targets)
    return 1 - within / total if total > 0 else 0.0


def _out_of_fold_score(codes, y, classification):
    """AUC or R2 of a small tree."""
    tree = DecisionTreeClassifier if classification else DecisionTreeRegressor
    tree = tree(max_leaf_nodes=32, min_samples_leaf=2, random_state=0)
    return association(_out_of_fold(tree, codes, y, classification), y, classification)


def _out_of_fold(model, table, y, classification):
    folds = (StratifiedKFold if classification else KFold)(3, shuffle=True, random_state=0)
    largest = np.nanmax(np.abs(table), axis=0, initial=0.0)
    table = table / np.where(largest > 1e30, largest, 1.0)  # trees compute in float32
    predictions = None
    for train, test in folds.split(table, y):
        model.fit(table[train], y[train])
        part = model.predict_proba(table[test]) if classification else model.predict(table[test])
        predictions = np.empty((len(y), *part.shape[1:])) if predictions is None else predictions
        predictions[test] = part
    return predictions


def _linear_r2(values, y):
    """Squared correlation with the target, or with its logarithm if that is exact."""
    values = np.ravel(values)
    known = np.isfinite(values)
    values, y = values[known], y[known].astype(float)
    if len(y) < 3 or not values.std() or not y.std():
        return 0.0
    linear = np.corrcoef(values, y)[0, 1] ** 2
    if y.min() > 0:
        exact = (
            np.corrcoef(values, np.log(y))[0, 1] ** 2,
            np.corrcoef(values, np.log1p(y))[0, 1] ** 2,
        )
        if max(exact) > 1 - 1e-9:
            return 1.0
    return linear


def _is_an_effect(name, columns):
    """Whether other columns predict a column, as they predict the target that it is a copy of."""
    own = columns.get(name)
    if own is None or not np.isfinite(own).all():
        return True
    own = own.ravel()
    others = []
    for other, values in columns.items():
        values = np.nan_to_num(values.ravel())
        if other != name and values.std() and abs(np.corrcoef(values, own)[0, 1]) < 0.999:
            others.append(values)
    if not others:
        return False
    forest = RandomForestRegressor(20, min_samples_leaf=3, random_state=0)
    return association(_out_of_fold(forest, np.column_stack(others), own, False), own, False) > 0.1


# Two columns --------------------------------------------------------------------------------------


def _pairs(n):
    """Pairs of columns: all of a few, neighbours of many."""
    pairs = {(i, i + 1) for i in range(n - 1)}
    few = min(n, _MOST_PAIRED)
    pairs |= {(i, j) for i in range(few) for j in range(i + 1, few)}
    return sorted(pairs)


def _functions(a, b):
    """Simple functions of two columns."""
    yield "the difference of", a - b
    yield "the sum of", a + b
    yield "the distance of", np.abs(a - b)
    yield "the product of", a * b
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = a / b
    yield "the ratio of", np.where(np.isfinite(ratio), ratio, 0.0)


def _complete(columns):
    kept = {name: v.ravel() for name, v in columns.items() if np.isfinite(v).all()}
    return list(kept), kept


def _revealing_pair(columns, y, others):
    """(description, AUC) of two weak columns that give the class together, or None."""
    names, columns = _complete(columns)
    if len(names) < 2:
        return None
    labels, code = np.unique(y, return_inverse=True)
    rows = np.random.default_rng(0).permutation(len(y))[:_MOST_ROWS]
    target = (code[rows, None] == np.arange(len(labels))).astype(float)
    counts = target.sum(axis=0)
    if counts.min() < 3:
        return None
    keys, values = [], []
    for i, j in _pairs(len(names)):
        a, b = columns[names[i]][rows], columns[names[j]][rows]
        for how, value in _functions(a, b):
            keys.append((names[i], names[j], how))
            values.append(value)
    # For a class in the middle of the values, the distance to their median is a function, too.
    ranks = rankdata(np.column_stack(values), axis=0)
    sums = target.T @ ranks
    auc = (sums - (counts * (counts + 1) / 2)[:, None]) / (counts * (len(rows) - counts))[:, None]
    strength = np.abs(auc - 0.5).mean(axis=0) + 0.5
    for best in np.argsort(-strength)[:_CANDIDATES]:
        if strength[best] < 0.95:
            break
        a, b, how = keys[best]
        function = dict(_functions(columns[a], columns[b]))[how]
        score = _out_of_fold_score(function.reshape(-1, 1), y, True)
        singles = [_out_of_fold_score(columns[c].reshape(-1, 1), y, True) for c in (a, b)]
        weak = _WEAK.get(how, _WEAK_OTHERWISE)
        if score < _PAIR_REVEALS or max(singles) > weak or 1 - score > _by_addition(singles) / 4:
            continue
        rest = {key: v for key, v in others.items() if key[0] not in (a, b)}
        if 1 - score < (1 - _score_of_all(rest, y)) / 3:
            return f"{how} columns {a!s} and {b!s}", score
    return None


def _by_addition(scores):
    """1 - AUC of two independent columns with these AUC, if their evidence adds up (normal)."""
    distances = [norm.ppf(np.clip(s, 0.5, 0.9999)) * np.sqrt(2) for s in scores]
    return float(norm.sf(np.hypot(*distances) / np.sqrt(2)))


def _exact_pair(columns, y):
    """(description, R2) of two columns whose sum or difference is the target, or None."""
    names, columns = _complete(columns)
    y = y.astype(float)
    if len(names) < 2 or len(y) < 10 or not y.std():
        return None
    centred = (y - y.mean()) / y.std()
    for i, j in _pairs(len(names)):
        a, b = columns[names[i]], columns[names[j]]
        for how, value in (("the difference of", a - b), ("the sum of", a + b)):
            spread = value.std()
            if spread and abs(np.mean(centred * (value - value.mean()) / spread)) > 1 - 1e-7:
                return f"{how} columns {names[i]!s} and {names[j]!s}", 1.0
    return None
