"""Trial fits: whether an estimator accepts some rows, with networks that are not trained."""

from __future__ import annotations

import contextlib

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, is_classifier, is_regressor
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags

from skstack._base.atomic_fit import trial_scope
from skstack._base.disk_table import in_memory
from skstack._base.params import clone_part, is_keras_model, is_network_estimator, is_path
from skstack._base.sklearn import drop_callbacks, wrapper_of
from skstack._base.tables import is_dataframe, n_rows, take_rows
from skstack._estimators.classifier import KerasClassifier
from skstack._estimators.resampling import refuse_interpolated_categories
from skstack._features.transformer import KerasFeatureTransformer
from skstack._splits.supervision import learns_from_y, trains_network
from skstack.preprocessing._passthrough import Passthrough

ROWS_OF_EACH = 5  # rows of each class, and of each column with and without missing values
MOST_ROWS = 400
ROWS_OF_TARGETS = 40  # that tell whether a part accepts several targets
_OF_BAGS = {"estimator", "bootstrap", "max_samples", "oob_score"}  # parameters


def refusal(estimator, X, y):
    """The error of a trial fit on some rows, or None."""
    try:
        with own_generator(), trial_scope():
            _fit(estimator, X, y)
    except Exception as error:  # any estimator, on any rows
        return error
    return None


@contextlib.contextmanager
def own_generator():
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
            X = without_networks(step).fit(X, y).transform(X)
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
        without_networks(estimator).fit(X, y)


def _is_chain(estimator):
    """Whether an estimator inside is given one target at a time, and more columns."""
    return type(estimator).__name__ in ("ClassifierChain", "RegressorChain")


def without_networks(estimator):
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
    for part in all_parts(copied):
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


def rows_of(X, rows, passed=False):
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
            if numbers and not are_truth_values(dtype.categories):
                X.isetitem(index, X.iloc[:, index].cat.rename_categories("category {}".format))
    return X


def are_truth_values(values):
    """Whether some values are truth values alone."""
    return set(values) <= {False, True}


def all_parts(estimator):
    """An estimator, and those among its parameters, at any depth."""
    params = estimator.get_params(deep=True) if hasattr(estimator, "get_params") else {}
    for part in (estimator, *params.values()):
        if hasattr(part, "get_params") and not isinstance(part, type):
            yield part


def tag_of(estimator, kind, name):
    """A tag of an estimator, such as ``single_output`` of ``target_tags``; None if unknown."""
    try:
        return getattr(getattr(get_tags(estimator), kind), name)
    except Exception:  # estimators of others, with tags of their own kind or none
        return None
