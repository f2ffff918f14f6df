"""Groups and time order of training rows, for everything in an upstream that splits rows."""

from __future__ import annotations

import copy
from numbers import Integral, Real
from typing import Any, NamedTuple

from sklearn.base import is_classifier
from sklearn.model_selection import TimeSeriesSplit, check_cv
from sklearn.utils.metadata_routing import get_routing_for_object

from skstack._base.params import is_bool
from skstack._base.sklearn import ENCODER_TAKES_FOLDS, routing_enabled, type_of_target
from skstack._base.tables import n_rows
from skstack._splits.folds import listed_folds, orders_time, outer_folds, shown_cv
from skstack._splits.hold_out import hold_out
from skstack._splits.supervision import parts_of

# Meta-estimators of scikit-learn that pass all their rows, in order, to this parameter.
_DELEGATES = {
    "ClassifierChain": "estimator",
    "FixedThresholdClassifier": "estimator",
    "MultiOutputClassifier": "estimator",
    "MultiOutputRegressor": "estimator",
    "OneVsRestClassifier": "estimator",
    "RFE": "estimator",
    "RegressorChain": "estimator",
    "SelectFromModel": "estimator",
    "TransformedTargetRegressor": "regressor",
}
# Meta-estimators that pass them to several (name, estimator).
_VOTING = ("VotingClassifier", "VotingRegressor")
# Estimators that predict each training row once, and cannot leave the first ones out.
_PARTITIONS = ("ClassifierChain", "RegressorChain", "StackingClassifier", "StackingRegressor",
               "TargetEncoder")  # fmt: skip
# Estimators for which cv=None means that rows are not split.
_NONE_IS_NO_SPLIT = ("ClassifierChain", "RegressorChain", "RidgeCV", "RidgeClassifierCV")


class RowContext(NamedTuple):
    """What an estimator that splits its training rows must respect."""

    groups: Any = None  # rows of one group belong on one side of each split
    cv: Any = None  # the time-ordered cv of the outer estimator, if rows are ordered in time
    all_rows: bool = True  # whether they are all rows of the outer fit, to which indices refer

    @property
    def ordered(self):
        """Whether rows are ordered in time."""
        return self.cv is not None

    @property
    def matters(self):
        """Whether there are groups or an order to respect."""
        return self.groups is not None or self.ordered

    def ordered_cv(self, cv, n):
        """A time-ordered splitter for ``n`` rows, in place of a number of folds.

        Like the outer one, without the sizes that refer to the outer rows.
        """
        if not isinstance(self.cv, TimeSeriesSplit):
            if hasattr(self.cv, "split"):
                return copy.deepcopy(self.cv)
            return _ordered_splitter(5 if cv is None else int(cv), n)
        options = {"gap": self.cv.gap, "max_train_size": self.cv.max_train_size}
        return _ordered_splitter(self.cv.n_splits, n, **options)

    def __str__(self):
        return "the rows are ordered in time" if self.ordered else "groups were passed"


def _ordered_splitter(n_splits, n, gap=0, **options):
    """TimeSeriesSplit with up to ``n_splits`` folds, so that the first one trains on two rows."""
    for splits in range(max(n_splits, 2), 1, -1):
        if n - gap - splits * (n // (splits + 1)) >= 2:
            return TimeSeriesSplit(splits, gap=gap, **options)
    raise ValueError(
        f"The rows are ordered in time, but {n} rows with a gap of {gap} are too few for "
        "time-ordered folds inside an upstream. Use fewer folds, or more rows."
    )


def take_context(estimator):
    """Remove and return the context of an estimator, or None."""
    return vars(estimator).pop("_row_context", None)


def may_split(part):
    """Whether anything in an estimator may split its training rows."""
    params = part.get_params(deep=True)
    return any(name == "cv" or name.endswith("__cv") for name in params) or any(
        hasattr(value, "_splits_rows") for value in (part, *params.values())
    )


def pass_context(part, context, X, y, *, only_fit=False):
    """Change a clone so that all parts that split their training rows respect a context.

    Estimators of skstack get the context; the ``cv`` of all others is set to folds that respect it.
    Raises if this is not possible. `only_fit`: whether ``fit`` will be called, not
    ``fit_transform``.
    """
    if hasattr(part, "_splits_rows"):
        if part._splits_rows(only_fit):
            _check_own(part, context, X, y, only_fit)
        part._row_context = context
        return
    composite, name = parts_of(part), type(part).__name__
    parts = composite
    if parts is None and name in _DELEGATES:
        parts = [getattr(part, _DELEGATES[name])]
    if parts is None and name in _VOTING:
        parts = [each for _, each in part.estimators]
    resampled = False
    for number, each in enumerate(parts or ()):
        if resampled:
            refuse_unreached(each, context, "a sampler before it changes the rows")
        else:
            last = number == len(parts) - 1
            fits = name in (*_DELEGATES, *_VOTING) or (
                only_fit and (name == "FeatureUnion" or (name == "Pipeline" and last))
            )
            pass_context(each, context, X, y, only_fit=fits)
        resampled |= hasattr(each, "fit_resample")
    if composite is None and hasattr(part, "get_params"):
        if not (only_fit and name == "TargetEncoder"):
            _set_folds(part, context, X, y)
        if parts is None:
            refuse_unreached(part, context, f"{name} selects the rows of its parts", inside=True)


def _refuse_row_numbers(name, cv, context):
    """The folds of a listed cv, or None; raise if they refer to other rows."""
    folds = listed_folds(cv)
    if folds is not None and not context.all_rows:
        raise ValueError(
            f"cv of the inner {name} is a list of row numbers, but it is fitted on the training "
            "rows of a fold, which are numbered differently. Pass an int or a splitter."
        )
    return folds


def _check_own(part, context, X, y, only_fit):
    """Raise for an estimator of skstack whose folds refer to other rows, or are not ordered."""
    cv = getattr(part, "cv", None)
    if not context.all_rows:
        _refuse_row_numbers(type(part).__name__, cv, context)
    if context.ordered:
        part._check_ordered(context, X, y, only_fit)
    elif context.groups is not None:
        outer_folds(cv, X, y, classifier=is_classifier(part), groups=context.groups)


def _set_folds(part, context, X, y):
    """Set ``cv`` of an estimator that is not from skstack."""
    params = part.get_params(deep=False)
    cv, name = params.get("cv"), type(part).__name__
    if "cv" not in params or isinstance(cv, str) or (cv is None and name in _NONE_IS_NO_SPLIT):
        return
    is_number = cv is None or isinstance(cv, Integral)
    classes = is_classifier(part)
    if isinstance(cv, Real) and not is_number:  # a share of the rows to hold out
        if context.matters and not _gets_groups(part):
            part.set_params(cv=[_split_of_share(part, cv, context, y, classes)])
        return
    if name == "TargetEncoder":
        classes = type_of_target(y) in ("binary", "multiclass")
        unseeded = params.get("random_state") in (None, "deprecated")
        if is_number and not context.matters and unseeded:
            # It would shuffle with NumPy's global state.
            if ENCODER_TAKES_FOLDS:
                cv = check_cv(cv, y, classifier=classes, shuffle=True, random_state=0)
                part.set_params(cv=cv)
            elif part.shuffle:
                part.set_params(random_state=0)
    folds = _refuse_row_numbers(name, cv, context)
    if context.ordered:
        if name in _PARTITIONS or (
            name.startswith("Calibrated") and is_bool(params["ensemble"], False)
        ):
            raise ValueError(
                f"{context}, but the inner {name} predicts all of its training rows, including the "
                "first ones, for which it must learn from later rows. Use StackedKerasClassifier "
                "or StackedKerasRegressor, which leave the first rows out, or another estimator."
            )
        if is_number:
            part.set_params(cv=context.ordered_cv(cv, n_rows(X)))
        elif not orders_time(cv if folds is None else folds, X, y):
            raise ValueError(
                f"{context}, but the inner {name} splits them by cv={shown_cv(cv)}, which is not "
                "ordered in time. Pass TimeSeriesSplit, or an int."
            )
    elif context.groups is not None and not _gets_groups(part):
        if name == "TargetEncoder" and not ENCODER_TAKES_FOLDS:
            raise ValueError(
                f"{context}, but the inner TargetEncoder makes its own folds, which split groups. "
                "Update to scikit-learn>=1.9, or leave it out."
            )
        try:
            folds = outer_folds(cv, X, y, classifier=classes, groups=context.groups)
        except ValueError as error:
            raise ValueError(f"cv of the inner {name}: {error}") from error
        part.set_params(cv=folds)


def _split_of_share(part, share, context, y, classes):
    """Training and hold-out rows: whole groups, or the last rows."""
    try:
        return hold_out(
            y,
            fraction=share,
            stratify=classes,
            seed=part.get_params(deep=False).get("random_state"),
            groups=context.groups,
            ordered=context.ordered,
        )
    except ValueError as error:
        rows = "the last rows" if context.ordered else "whole groups"
        raise ValueError(
            f"{context}, but the inner {type(part).__name__} has cv={share!r}, and holding out "
            f"{rows} leaves too few groups, or rows of a class. Use another cv."
        ) from error


def _gets_groups(part):
    """Whether metadata routing passes groups to the splitter of an estimator."""
    if not routing_enabled() or not hasattr(part, "get_metadata_routing"):
        return False
    return bool(get_routing_for_object(part).consumes(method="fit", params=["groups"]))


def refuse_unreached(part, context, reason, *, inside=False):
    """Raise if a part to which the context cannot be passed splits its training rows.

    With `inside`, the context can be passed to the part itself, but not to the parts inside it.
    """
    if not context.matters or not hasattr(part, "get_params"):
        return
    if not context.ordered and _gets_groups(part):
        return
    for each in (*(() if inside else (part,)), *part.get_params(deep=True).values()):
        if _splits(each):
            name = type(each).__name__
            raise ValueError(
                f"{context}, but the inner {name} cannot respect this, because {reason}. Use "
                f"{name} without it, or {'an unordered cv' if context.ordered else 'no groups'}."
            )


def _splits(estimator):
    """Whether an estimator certainly splits its training rows."""
    if hasattr(estimator, "_splits_rows"):
        return estimator._splits_rows(False)
    fits = hasattr(estimator, "fit") or hasattr(estimator, "fit_transform")
    if not (fits and hasattr(estimator, "get_params")):
        return False
    params = estimator.get_params(deep=False)
    return (
        "cv" in params
        and not isinstance(params["cv"], str)
        and not (params["cv"] is None and type(estimator).__name__ in _NONE_IS_NO_SPLIT)
    )
