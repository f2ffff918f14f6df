"""Training goes on from a network that was fitted on other rows, with its columns and codes."""

from __future__ import annotations

import hashlib
import re
import warnings
from numbers import Real

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from skstack.networks._cloning import is_graph

# What says how columns are read, and its defaults: the fitted network's holds.
_OF_COLUMNS = {
    "categorical_features": "from_dtype",
    "inputs": None,
    "input_shape": None,
    "n_hash_buckets": None,
    "imputer": None,
}
_CATEGORIES = re.compile(r"_categories_([0-9a-f]{12})$")


def continued_estimator(model):
    """The fitted estimator whose network is to be continued; None where ``model`` is none."""
    return model.estimator if isinstance(model, FrozenEstimator) else None


def _is_ours(estimator):
    return hasattr(estimator, "_fit_in_context")


def check_continued(model):
    """Refuse a ``FrozenEstimator`` that holds no fitted network of skstack.

    Parameters
    ----------
    model : FrozenEstimator

    Raises
    ------
    TypeError
        If it holds something else.

    NotFittedError
        If the estimator was never fitted.
    """
    inner = model.estimator
    name = type(inner).__name__
    if not _is_ours(inner):
        advice = ""
        if hasattr(inner, "steps"):
            advice = (
                " Freeze the steps one by one: make_pipeline(FrozenEstimator(steps before it), "
                "KerasClassifier(FrozenEstimator(its network)))."
            )
        raise TypeError(
            f"model=FrozenEstimator({name}(...)): accepted is a fitted KerasClassifier, "
            f"KerasRegressor or KerasAutoencoder inside.{advice}"
        )
    if not hasattr(inner, "network_"):
        raise NotFittedError(
            f"model=FrozenEstimator({name}(...)) has no network to continue: this {name} was never "
            "fitted. Fit it first, or pass its recipe."
        )


def _described(task, n_outputs):
    what = {"binary": "2 classes", "multiclass": f"{n_outputs} classes"}
    return what.get(task, f"{n_outputs} outputs ({task})")


def check_continues(own, origin, X):
    """Refuse rows that a fitted network cannot go on with; warn where they look unlike its own.

    Parameters
    ----------
    own : network estimator
        About to be trained: columns and targets are read, ``blocks_`` are the other's.

    origin : network estimator
        Fitted. It is only looked at.

    X : table

    Raises
    ------
    ValueError
        If columns, task, classes or number of targets differ; the message has both.
    """
    name = type(origin).__name__
    before = f"model=FrozenEstimator({name}(...))"
    _check_columns(own, origin, before)
    ours, theirs = own._task(), origin._task()
    if ours != theirs:
        raise ValueError(
            f"{before} was fitted on {_described(*theirs)}, but here are {_described(*ours)}, so "
            "its network cannot be continued. Its inner layers can be features for another: "
            "KerasFeatureTransformer(FrozenEstimator(...), layers=...)."
        )
    _check_classes(own, origin, before)
    for parameter, usual in _OF_COLUMNS.items():
        said, first = getattr(own, parameter), getattr(origin.blocks_, parameter)
        left_out = type(said) is type(usual) and said == usual
        if not left_out and repr(said) != repr(first):
            raise ValueError(
                f"{parameter}={said!r}, but {before} learned with {parameter}={first!r}, which "
                "stays. Leave it out here."
            )
    _warn_of_unknown(own.blocks_, X, before)
    origin.input_profile_.warn_if_moved(X)


def _check_columns(own, origin, before):
    if own.n_features_in_ != origin.n_features_in_:
        raise ValueError(
            f"X has {own.n_features_in_} features, but {before} was fitted on "
            f"{origin.n_features_in_}."
        )
    names = getattr(own, "feature_names_in_", None), getattr(origin, "feature_names_in_", None)
    if names[0] is None or names[1] is None:
        return
    unlike = np.flatnonzero(names[0] != names[1])
    if unlike.size:
        raise ValueError(
            f"X has the columns {names[0][unlike[:5]].tolist()} where {before} was fitted on "
            f"{names[1][unlike[:5]].tolist()}. It needs the same columns in the same order."
        )


def _check_classes(own, origin, before):
    """Labels that both know must stand for the same unit; new labels follow in sorted order."""
    if not hasattr(own, "classes_"):
        return
    ours, theirs = own.classes_.tolist(), origin.classes_.tolist()
    both = [label for label in ours if label in theirs]
    swapped = [label for label in both if ours.index(label) != theirs.index(label)]
    if swapped:
        raise ValueError(
            f"{before} was fitted on the classes {theirs}, and y holds {ours}: the output that "
            f"stood for {theirs[ours.index(swapped[0])]!r} would stand for {swapped[0]!r}. Give "
            "labels that both have the same place in sorted order."
        )


def _warn_of_unknown(blocks, X, before):
    categorical = [block.name for block in blocks.blocks_ if block.kind == "categorical"]
    if not categorical:
        return
    arrays = blocks.split(X)
    unknown = [name for name in categorical if not (arrays[name] > 0).any()]
    if unknown:
        warnings.warn(
            f"The columns {[blocks.columns_[name][0] for name in unknown]} of X hold no category "
            f"that {before} was fitted on, such as {blocks.categories_[unknown[0]][:3]} in the "
            "first of them: all values count as one that was never seen. Are they written in "
            "another way?",
            UserWarning,
            stacklevel=2,
        )


def _digest(categories):
    """What tells categories and their codes; numbers compare by value, as in ``ColumnBlocks``."""
    plain = [
        (name, [float(level) if isinstance(level, Real) else str(level) for level in levels])
        for name, levels in sorted(categories.items())
    ]
    return hashlib.sha256(repr(plain).encode()).hexdigest()[:12]


def named_after_categories(model, categories):
    """A model whose name tells which categories its codes stand for, also once it was saved.

    Parameters
    ----------
    model : keras.Model

    categories : dict of str to list
        The known categories behind each input, as ``ColumnBlocks.categories_``.

    Returns
    -------
    keras.Model
        The same one where there are no categories, or its class is not Keras' own.
    """
    import keras

    if not categories or not is_graph(model):
        return model
    name = f"{_CATEGORIES.sub('', model.name)}_categories_{_digest(categories)}"
    return keras.Model(model.input, model.output, name=name)


def check_categories(model, categories):
    """Refuse a network of skstack, given as a model, whose codes stand for other categories.

    Parameters
    ----------
    model : keras.Model

    categories : dict of str to list
        Those that would be coded now.

    Raises
    ------
    ValueError
        If the network was fitted on others.
    """
    found = _CATEGORIES.search(model.name)
    if found and found[1] != _digest(categories):
        raise ValueError(
            f"model={model.name!r} was fitted on other categories than X holds, so that their "
            "codes would mean something else to it. Pass the fitted estimator that it came from, "
            "which knows its categories: FrozenEstimator(estimator)."
        )
