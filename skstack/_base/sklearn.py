"""The only access to scikit-learn's private names; differences between kinds of estimators."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from numbers import Integral

import numpy as np
import sklearn
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.base import _fit_context as fit_context
from sklearn.calibration import _SigmoidCalibration as SigmoidCalibration
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import TargetEncoder
from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils import get_tags
from sklearn.utils._indexing import _get_column_indices as get_column_indices
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils._param_validation import Interval as _Interval
from sklearn.utils._pprint import _EstimatorPrettyPrinter
from sklearn.utils._repr_html.estimator import _VisualBlock as VisualBlock
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.metadata_routing import UNUSED, get_routing_for_object
from sklearn.utils.metadata_routing import _raise_for_params as refuse_metadata
from sklearn.utils.metadata_routing import _routing_enabled as routing_enabled
from sklearn.utils.metaestimators import _BaseComposition as BaseComposition
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _check_feature_names_in as check_input_names
from sklearn.utils.validation import _check_method_params, has_fit_parameter
from sklearn.utils.validation import _check_sample_weight as check_sample_weight
from sklearn.utils.validation import _check_y as check_y
from sklearn.utils.validation import _num_samples as num_samples

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # below scikit-learn 1.9

    def _refuse_callbacks(estimator):
        raise AttributeError(
            f"{type(estimator).__name__}.set_callbacks needs scikit-learn 1.9 or later; this is "
            f"scikit-learn {sklearn.__version__}."
        )

    CallbackSupportMixin = type(
        "CallbackSupportMixin", (), {"set_callbacks": property(_refuse_callbacks)}
    )

    def with_callbacks(method):
        """Return the method: there is nothing to tear down."""
        return method


# For `__metadata_request__METHOD`, only of classes with that method: older scikit-learn refuses to
# remove what is not there.
OUT_IS_NO_METADATA = {"out": UNUSED}


@classmethod
def get_param_names(cls):
    """``_get_param_names`` of a class; its constructor is inspected once, not in each call."""
    if "_param_names" not in vars(cls):
        cls._param_names = BaseEstimator._get_param_names.__func__(cls)
    return cls._param_names


# Private names of scikit-learn that other files import from here.
__all__ = [
    "ENCODER_TAKES_FOLDS",
    "BaseComposition",
    "CallbackSupportMixin",
    "HasMethods",
    "Interval",
    "SigmoidCalibration",
    "StrOptions",
    "VisualBlock",
    "check_input_names",
    "check_sample_weight",
    "check_y",
    "fit_context",
    "get_column_indices",
    "get_param_names",
    "num_samples",
    "refuse_metadata",
    "routing_enabled",
    "safe_indexing",
    "with_callbacks",
]

# What `set_output` and the likes of `set_fit_request` set: attributes, and no parameters.
BESIDE_PARAMETERS = ("_metadata_request", "_sklearn_output_config")

# Modules whose wrappers and mixins call `fit` and `transform` of an estimator for its user.
WRAPPER_MODULES = ("sklearn.base", _get_output_config.__module__)


class Interval(_Interval):
    """scikit-learn's Interval, without its TypeError for numbers such as fractions."""

    def is_satisfied_by(self, val):
        """Whether a value lies in the interval."""
        try:
            return super().is_satisfied_by(val)
        except TypeError:
            return False


def print_estimators_with(representation, shown):
    """Have scikit-learn lay out estimators of a class with this ``__repr__`` as its own.

    Inside other estimators ``shown(estimator)`` is printed instead.
    """

    def laid_out(printer, estimator, *settings):
        printer._pprint_estimator(shown(estimator), *settings)

    _EstimatorPrettyPrinter._dispatch[representation] = laid_out


def check_parts(estimator):
    """Check the parameters of all sub-estimators, at any depth, before any of them is trained."""
    for part in estimator.get_params(deep=True).values():
        if isinstance(part, BaseEstimator) and hasattr(part, "_parameter_constraints"):
            part._validate_params()


# Shared by KerasFeatureTransformer and the stacks.
CROSS_FIT_CONSTRAINTS = {
    "categorical_features": [None, StrOptions({"from_dtype"}), "array-like"],
    "cv": ["cv_object"],
    "refit": ["boolean"],
    "n_jobs": [  # not 0 (nor False), and within joblib's 32 bits
        None,
        Interval(Integral, 1, 2**31 - 1, closed="both"),
        Interval(Integral, -(2**31), -1, closed="both"),
    ],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}


# How columns become the inputs of a network.
INPUT_CONSTRAINTS = {
    "inputs": [None, StrOptions({"prefix"}), dict, list, tuple],
    "input_shape": [None, tuple, list, dict],
}


def check_shape(input_shape):
    """Raise unless `input_shape` is the shape of one row, or a dict of such shapes by input."""
    if input_shape is None:
        return
    shapes = input_shape.values() if isinstance(input_shape, dict) else [input_shape]
    for shape in shapes:
        sizes = shape if isinstance(shape, (tuple, list)) else [None]
        if not sizes or not all(isinstance(size, Integral) and size > 0 for size in sizes):
            raise ValueError(
                f"input_shape={input_shape!r} must be the shape of one row, such as (28, 28, 1), "
                "or a dict of such shapes by the name of the input."
            )


def output_container(transformer):
    """The container that ``set_output`` has chosen: "default", "pandas" or "polars"."""
    return _get_output_config("transform", transformer)["dense"]


def for_container(transformer, table):
    """A table of which the container that ``set_output`` has chosen keeps the kinds of columns.

    polars has categories of strings alone; scikit-learn's adapter would make numbers of others.
    """
    if not hasattr(table, "iloc") or output_container(transformer) != "polars":
        return table
    table = table.copy(deep=False)
    for index, dtype in enumerate(table.dtypes):
        levels = getattr(dtype, "categories", ())
        if not all(isinstance(level, str) for level in levels):
            names = list(map(str, levels))
            names = names if len(set(names)) == len(names) else list(map(repr, levels))
            table.isetitem(index, table.iloc[:, index].cat.rename_categories(names))
    return table


def fitted_parts():
    """Private classes in which scikit-learn's meta-estimators keep parts, scorers and folds."""
    from sklearn import calibration
    from sklearn.metrics._scorer import _CurveScorer, _PassthroughScorer, _Scorer
    from sklearn.model_selection import check_cv

    scorers = (_CurveScorer, _PassthroughScorer, _Scorer, type(check_cv([])))
    # The last from scikit-learn 1.8 on.
    names = ("_CalibratedClassifier", "_SigmoidCalibration", "_TemperatureScaling")
    found = (getattr(calibration, name) for name in names if hasattr(calibration, name))
    return (*scorers, *found)


# Before 1.9 a TargetEncoder takes a number of folds only, and makes them itself.
ENCODER_TAKES_FOLDS = TargetEncoder._parameter_constraints["cv"] == ["cv_object"]


def ignores_groups(splitter):
    """Whether a splitter declares that it does not use groups."""
    if not hasattr(splitter, "get_metadata_routing"):
        return False
    return "groups" not in get_routing_for_object(splitter).split.requests


CALLBACKS_ATTRIBUTE = "_skl_callbacks"  # the attribute that holds the callbacks of scikit-learn


def callbacks_of(estimator):
    """Callbacks of scikit-learn that are set on an estimator, or propagated to it."""
    return getattr(estimator, CALLBACKS_ATTRIBUTE, [])


def set_callbacks_of(clone, estimator):
    """Set those of an estimator on its clone, as `sklearn.clone` does."""
    if hasattr(estimator, CALLBACKS_ATTRIBUTE):
        setattr(clone, CALLBACKS_ATTRIBUTE, callbacks_of(estimator))


def drop_callbacks(estimator):
    """Remove all callbacks from a copy of an estimator, and the context that they came from."""
    for name in (CALLBACKS_ATTRIBUTE, "_parent_callback_ctx"):
        vars(estimator).pop(name, None)


def need_fitted_estimator(callbacks):
    """Whether a callback asks for an estimator that is fitted as far as the task has come."""
    hooks = ("on_fit_task_begin", "on_fit_task_end")
    return any(
        "fitted_estimator" in inspect.signature(getattr(callback, hook)).parameters
        for callback in callbacks
        for hook in hooks
    )


def callback_context(estimator, n_tasks, sequential):
    """The root of an estimator's tree of tasks; None below scikit-learn 1.9."""
    if not hasattr(estimator, "_init_callback_context"):
        return None
    return estimator._init_callback_context(max_subtasks=n_tasks, sequential_subtasks=sequential)


def add_own_score(router, estimator):
    """Add the weights that the `score` of a router's owner requests, if any."""
    requests = estimator._get_metadata_request()
    if requests.score.requests.get("sample_weight"):
        router.add_self_request(requests)


def take_metadata(X, metadata, indices):
    """Metadata of some rows of X; values that do not belong to rows are kept whole."""
    names = ("X_val", "y_val", "sample_weight_val")
    whole = {name: metadata[name] for name in names if name in metadata}
    return {**_check_method_params(X, metadata, indices), **whole}


def is_classifier_for(estimator, y):
    """Whether an estimator is a classifier, even if its tags do not say so (scikeras)."""
    if is_classifier(estimator):
        return True
    if is_regressor(estimator):
        return False
    return (
        y is not None
        and hasattr(type(estimator), "predict_proba")
        and type_of_target(y) in ("binary", "multiclass", "multilabel-indicator")
    )


def accepts_fit_parameter(estimator, parameter):
    """Whether ``fit`` of the estimator has this parameter."""
    if parameter == "sample_weight" and wrapper_of(estimator) == "keras":
        return True  # it passes all metadata to ``keras.Model.fit``
    return has_fit_parameter(estimator, parameter)


def offers(estimator, method):
    """Whether an estimator has a method once it is fitted.

    The stacking estimators of scikit-learn hide those of their default final estimator until then,
    and so does what delegates to them.
    """
    if hasattr(estimator, method):
        return True
    if isinstance(estimator, type) or not hasattr(type(estimator), method):
        return False
    if isinstance(estimator, Pipeline):
        return offers(estimator.steps[-1][1], method)
    if hasattr(estimator, "estimators") and getattr(estimator, "final_estimator", 0) is None:
        return hasattr(LogisticRegression if is_classifier(estimator) else RidgeCV, method)
    inner = getattr(estimator, "estimator", None)
    return not hasattr(inner, method) and offers(inner, method)


class Offers(HasMethods):
    """As ``HasMethods``, of an estimator once it is fitted."""

    def is_satisfied_by(self, val):
        """Whether it has all methods."""
        return all(offers(val, method) for method in self.methods)


def needs_y(estimator):
    """Whether ``fit`` requires y; the tags of scikeras and ``keras.wrappers`` lack it."""
    # A step may have `fit_transform` alone.
    fit = getattr(estimator, "fit", None) or getattr(estimator, "fit_transform", None)
    if fit is None:
        return False
    parameters = inspect.signature(fit).parameters
    return "y" in parameters and parameters["y"].default is inspect.Parameter.empty


def wrapper_of(estimator):
    """``"scikeras"`` or ``"keras"`` for their estimators, None for all others."""
    if not hasattr(estimator, "get_params"):
        return None
    packages = {cls.__module__.partition(".")[0] for cls in type(estimator).__mro__}
    return next(iter(packages & {"scikeras", "keras"}), None)


def _tags_of(models):
    """Tags of the estimators among the parts of a composite."""
    for model in models:
        if hasattr(model, "fit") and not isinstance(model, type):
            try:
                yield get_tags(model)
            except Exception:  # estimators of others, with tags of their own kind or none
                continue


def set_input_tags(tags, models):
    """Set the input tags of a composite that passes X to all models: what each of them takes."""
    inputs = [each.input_tags for each in _tags_of(models)]
    for name in ("sparse", "categorical", "three_d_array", "allow_nan"):
        setattr(tags.input_tags, name, all(getattr(each, name) for each in inputs))
    tags.input_tags.allow_nan &= len(inputs) == len(models)  # frozen networks take none
    tags.input_tags.positive_only = any(each.positive_only for each in inputs)


def with_target_tags(tags, models):
    """Tags of a composite of models: it supports several targets if each that learns y does."""
    each = list(_tags_of(models))
    if tags.classifier_tags is not None:
        kinds = [one.classifier_tags for one in each if one.classifier_tags is not None]
        tags.classifier_tags.multi_label = all(kind.multi_label for kind in kinds)
    else:
        targets = [one.target_tags for one in each if one.regressor_tags is not None]
        tags.target_tags.multi_output = all(target.multi_output for target in targets)
    return tags


@dataclass(frozen=True)
class Tree:
    """A fitted tree as arrays over its nodes; values are those of leaves."""

    feature: np.ndarray
    threshold: np.ndarray  # float64; a row goes left if its value is at most this
    left: np.ndarray
    right: np.ndarray
    is_leaf: np.ndarray
    missing_left: np.ndarray  # whether missing values go left
    values: np.ndarray  # of shape (n_nodes, n_values)
    first: int = 0  # output that the first value is added to
    left_categories: dict = field(default_factory=dict)  # by node with a split of categories


@dataclass(frozen=True)
class Boosting:
    """A fitted HistGradientBoostingClassifier or Regressor as trees."""

    trees: list
    baseline: np.ndarray
    link: str  # "identity", "log", "logit" or "multinomial_logit"
    columns: list  # index in X of each feature of the trees
    categories: dict  # known values of the categorical columns by index in X, without missing


def boosting_of(estimator):
    """Read the trees of a HistGradientBoosting estimator, which are private."""
    links = {"IdentityLink": "identity", "LogLink": "log", "LogitLink": "logit"}
    links["MultinomialLogit"] = "multinomial_logit"
    n_columns = estimator.n_features_in_
    mask = estimator.is_categorical_
    columns, categories = list(range(n_columns)), {}
    if mask is not None:
        # The preprocessor puts categorical columns first.
        indices = np.flatnonzero(mask).tolist()
        columns = [*indices, *np.flatnonzero(~np.asarray(mask)).tolist()]
        encoder = estimator._preprocessor.named_transformers_["encoder"]
        for index, values in zip(indices, encoder.categories_, strict=True):
            categories[index] = [value for value in values.tolist() if not is_missing(value)]
    trees = []
    for iteration in estimator._predictors:
        for output, predictor in enumerate(iteration):
            nodes = predictor.nodes
            splits = np.flatnonzero(nodes["is_categorical"] & (nodes["is_leaf"] == 0))
            left = {
                int(node): _members(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]])
                for node in splits
            }
            trees.append(
                Tree(
                    nodes["feature_idx"].astype(int),
                    nodes["num_threshold"],
                    nodes["left"].astype(int),
                    nodes["right"].astype(int),
                    nodes["is_leaf"].astype(bool),
                    nodes["missing_go_to_left"].astype(bool),
                    nodes["value"][:, None],
                    output,
                    left,
                )
            )
    return Boosting(
        trees,
        np.ravel(estimator._baseline_prediction),
        links[type(estimator._loss.link).__name__],
        columns,
        categories,
    )


def _members(bitset):
    """The numbers in a set of bits, stored as eight integers of 32 bits."""
    bits = (np.asarray(bitset)[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    return frozenset(np.flatnonzero(bits).tolist())


def is_missing(value):
    """Whether a category is None or NaN."""
    return value is None or (isinstance(value, float) and value != value)


def forest_of(estimator):
    """Read the trees of a decision tree or forest; their mean is the prediction."""
    members = np.ravel(getattr(estimator, "estimators_", estimator)).tolist()
    trees = []
    for member in members:
        tree = member.tree_
        values = tree.value[:, 0, :] if is_classifier(estimator) else tree.value[:, :, 0]
        if is_classifier(estimator):
            values = values / values.sum(axis=1, keepdims=True)
        trees.append(
            Tree(
                tree.feature,
                tree.threshold,
                tree.children_left,
                tree.children_right,
                tree.children_left < 0,
                tree.missing_go_to_left.astype(bool),
                values / len(members),
            )
        )
    return trees


def n_columns_out(encoder):
    """Number of columns that a fitted encoder makes of each column."""
    if hasattr(encoder, "_n_features_outs"):
        return list(encoder._n_features_outs)
    return [1] * encoder.n_features_in_
