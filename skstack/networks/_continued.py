"""Continue the training of a fitted estimator's network, with its columns and category codes."""

from __future__ import annotations

import hashlib
import re
import warnings
from numbers import Real

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator

from skstack._base.params import is_network_estimator
from skstack.networks._cloning import is_graph

# Parameters for the columns with their defaults: those of the fitted network are kept.
_COLUMN_PARAMETERS = {
    "categorical_features": "from_dtype",
    "inputs": None,
    "input_shape": None,
    "n_hash_buckets": None,
    "imputer": None,
}
_CATEGORIES = re.compile(r"_categories_([0-9a-f]{12})$")


def continued_estimator(model):
    """The fitted estimator whose network is to be continued; None if ``model`` is not frozen."""
    return model.estimator if isinstance(model, FrozenEstimator) else None


def check_continued(model):
    """Check that a ``FrozenEstimator`` holds a fitted network estimator of skstack."""
    inner = model.estimator
    name = type(inner).__name__
    if not is_network_estimator(inner):
        advice = ""
        if hasattr(inner, "steps"):
            advice = (
                " Freeze the steps separately: make_pipeline(FrozenEstimator(earlier steps), "
                "KerasClassifier(FrozenEstimator(network)))."
            )
        raise TypeError(
            f"model=FrozenEstimator({name}(...)) must hold a fitted KerasClassifier, "
            f"KerasRegressor, KerasMultiTask or KerasAutoencoder.{advice}"
        )
    if not hasattr(inner, "network_"):
        raise NotFittedError(
            f"model=FrozenEstimator({name}(...)): this {name} is not fitted, so it has no network "
            "to continue. Fit it first, or pass its recipe."
        )


def _described(task, n_outputs):
    if task == "multitask":
        heads = [f"{head.name!r}: {_described(head.task, head.n_outputs)}" for head in n_outputs]
        return f"the targets {{{', '.join(heads)}}}"
    classes = {"binary": "2 classes", "multiclass": f"{n_outputs} classes"}
    return classes.get(task, f"{n_outputs} outputs ({task})")


def check_continues(estimator, origin, X):
    """Check that X and y fit the network of ``origin``; warn if the distribution of X differs.

    The columns and targets of ``estimator`` are known, but it is not trained yet.
    """
    label = f"model=FrozenEstimator({type(origin).__name__}(...))"
    _check_columns(estimator, origin, label)
    task, fitted_task = estimator._task(), origin._task()
    if task != fitted_task:
        raise ValueError(
            f"{label} was fitted on {_described(*fitted_task)}, but y has {_described(*task)}, so "
            "its network cannot be continued. To use its inner layers as features, see "
            "KerasFeatureTransformer(FrozenEstimator(...), layers=...)."
        )
    _check_classes(estimator, origin, label)
    for parameter, default in _COLUMN_PARAMETERS.items():
        value, fitted_value = getattr(estimator, parameter), getattr(origin.blocks_, parameter)
        is_default = type(value) is type(default) and value == default
        if not is_default and repr(value) != repr(fitted_value):
            raise ValueError(
                f"{parameter}={value!r}, but {label} was fitted with {parameter}={fitted_value!r}, "
                "which is kept. Leave it out here."
            )
    _warn_of_unknown(estimator.blocks_, X, label)
    origin.input_profile_.warn_if_moved(X)


def _check_columns(estimator, origin, label):
    if estimator.n_features_in_ != origin.n_features_in_:
        raise ValueError(
            f"X has {estimator.n_features_in_} features, but {label} was fitted on "
            f"{origin.n_features_in_}."
        )
    names, fitted_names = (getattr(each, "feature_names_in_", None) for each in (estimator, origin))
    if names is None or fitted_names is None:
        return
    different = np.flatnonzero(names != fitted_names)[:5]
    if different.size:
        raise ValueError(
            f"X has the columns {names[different].tolist()} where {label} was fitted on "
            f"{fitted_names[different].tolist()}. It needs the same columns in the same order."
        )


def _check_classes(estimator, origin, label):
    """Check that common labels belong to the same units; new labels follow in sorted order."""
    classes, fitted = (getattr(each, "classes_", {}) for each in (estimator, origin))
    if not isinstance(classes, dict):
        _check_labels(classes, fitted, label)
        return
    for target, of_origin in zip(classes, fitted.values(), strict=True):
        _check_labels(classes[target], of_origin, f"{label}, target {target!r},")


def _check_labels(classes, fitted, label):
    classes, fitted = classes.tolist(), fitted.tolist()
    common = [each for each in classes if each in fitted]
    swapped = [each for each in common if classes.index(each) != fitted.index(each)]
    if swapped:
        raise ValueError(
            f"{label} was fitted on the classes {fitted}, and y holds {classes}: the output for "
            f"{fitted[classes.index(swapped[0])]!r} would become that for {swapped[0]!r}. Rename "
            "the labels so that common ones have the same position in sorted order."
        )


def _warn_of_unknown(blocks, X, label):
    categorical = [block.name for block in blocks.blocks_ if block.kind == "categorical"]
    if not categorical:
        return
    arrays = blocks.split(X)
    unknown = [name for name in categorical if not (arrays[name] > 0).any()]
    if unknown:
        warnings.warn(
            f"The columns {[blocks.columns_[name][0] for name in unknown]} of X hold no category "
            f"that {label} was fitted on, such as {blocks.categories_[unknown[0]][:3]} in the "
            "first of them: all values are treated as unseen. Is their spelling different?",
            UserWarning,
            stacklevel=2,
        )


def _digest(categories):
    """Hash of categories and their codes; numbers compare by value, as in ``ColumnBlocks``."""
    plain = [
        (name, [float(level) if isinstance(level, Real) else str(level) for level in levels])
        for name, levels in sorted(categories.items())
    ]
    return hashlib.sha256(repr(plain).encode()).hexdigest()[:12]


def named_after_categories(model, categories):
    """The model with a hash of its categories in its name, which saving keeps.

    A model without categories, or of a custom class, is returned unchanged.
    """
    import keras

    if not categories or not is_graph(model):
        return model
    name = f"{_CATEGORIES.sub('', model.name)}_categories_{_digest(categories)}"
    return keras.Model(model.input, model.output, name=name)


def check_categories(model, categories):
    """Refuse an exported network of skstack that was fitted on other categories."""
    match = _CATEGORIES.search(model.name)
    if match and match[1] != _digest(categories):
        raise ValueError(
            f"model={model.name!r} was fitted on other categories than those of X, so their codes "
            "differ. Pass the fitted estimator that it came from, which holds its categories: "
            "FrozenEstimator(estimator)."
        )
