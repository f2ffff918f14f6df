"""Groups and order of training rows, handed on to whatever splits rows inside an upstream."""

from __future__ import annotations

import copy
from numbers import Integral
from typing import Any, NamedTuple

from sklearn.base import is_classifier
from sklearn.model_selection import TimeSeriesSplit, check_cv
from sklearn.utils.metadata_routing import get_routing_for_object

from skstack._base.sklearn import routing_enabled, type_of_target
from skstack._base.tables import n_rows
from skstack._splits.folds import listed_folds, orders_time, outer_folds
from skstack._splits.supervision import parts_of

# Meta-estimators of scikit-learn that hand all their rows, in order, to what this parameter holds.
_HOLDERS = {
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
# These hold several, as (name, estimator).
_VOTING = ("VotingClassifier", "VotingRegressor")
# These predict each of their training rows once, so that they cannot leave the first ones out.
_PARTITIONS = ("StackingClassifier", "StackingRegressor", "TargetEncoder")
# Here cv=None means that rows are not split.
_NONE_IS_NO_SPLIT = ("ClassifierChain", "RegressorChain", "RidgeCV", "RidgeClassifierCV")


class RowContext(NamedTuple):
    """What an estimator that splits its training rows must know of them.

    Attributes
    ----------
    groups : ndarray of shape (n_rows,) or None
        Rows of one group belong on one side of each split.

    cv : int, splitter, list of folds or None
        Where rows stand in order of time: how the outer estimator splits them.

    all_rows : bool
        Whether the rows are all those of the outer fit, which row numbers given by the user mean.
    """

    groups: Any = None
    cv: Any = None
    all_rows: bool = True

    @property
    def ordered(self):
        """Whether rows stand in order of time."""
        return self.cv is not None

    @property
    def matters(self):
        """Whether rows cannot be split just anyhow."""
        return self.groups is not None or self.ordered

    def ordered_cv(self, cv, n):
        """A time-ordered splitter of ``n`` rows in place of a number of folds.

        It is like the outer one, but for sizes that speak of the outer rows.
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
    """TimeSeriesSplit with as many folds, up to ``n_splits``, as leave the first two rows."""
    for splits in range(max(n_splits, 2), 1, -1):
        if n - gap - splits * (n // (splits + 1)) >= 2:
            return TimeSeriesSplit(splits, gap=gap, **options)
    raise ValueError(
        f"The rows are ordered in time, but {n} rows with a gap of {gap} are too few for folds in "
        "the order of time inside an upstream. Use fewer folds, or more rows."
    )


def take_context(estimator):
    """The context that was handed to an estimator, which then forgets it."""
    return vars(estimator).pop("_row_context", None)


def may_split(part):
    """Whether something in a part may split its training rows."""
    params = part.get_params(deep=True)
    return any(name == "cv" or name.endswith("__cv") for name in params) or any(
        hasattr(value, "_splits_rows") for value in (part, *params.values())
    )


def pass_context(part, context, X, y, *, only_fit=False):
    """Tell everything inside a part that splits its training rows about groups and order.

    Estimators of skstack get the context; the ``cv`` of all others is set to folds that respect it.

    Parameters
    ----------
    part : estimator
        A clone that nobody else holds.

    context : RowContext

    X, y : training rows and targets

    only_fit : bool, default=False
        Whether ``fit`` will be called, and not ``fit_transform``.

    Raises
    ------
    ValueError
        If something inside splits rows in a way that cannot respect groups or order, or splits
        other rows than these.
    """
    if hasattr(part, "_splits_rows"):
        if part._splits_rows(only_fit):
            _check_own(part, context, X, y, only_fit)
        part._row_context = context
        return
    parts, name = parts_of(part), type(part).__name__
    if parts is None and name in _HOLDERS:
        parts = [getattr(part, _HOLDERS[name])]
    if parts is None and name in _VOTING:
        parts = [each for _, each in part.estimators]
    resampled = False
    for number, each in enumerate(parts or ()):
        if resampled:
            refuse_unreached(each, context, "a sampler before it changes the rows")
        else:
            last = number == len(parts) - 1
            fits = name in (*_HOLDERS, *_VOTING) or (
                only_fit and (name == "FeatureUnion" or (name == "Pipeline" and last))
            )
            pass_context(each, context, X, y, only_fit=fits)
        resampled |= hasattr(each, "fit_resample")
    if parts_of(part) is None and hasattr(part, "get_params"):
        if not (only_fit and name == "TargetEncoder"):
            _set_folds(part, context, X, y)
        if parts is None:
            refuse_unreached(part, context, f"{name} chooses the rows of its parts", inside=True)


def _check_own(part, context, X, y, only_fit):
    """Refuse an estimator of skstack whose folds mean other rows, or have no order."""
    name, cv = type(part).__name__, getattr(part, "cv", None)
    if not context.all_rows and listed_folds(cv) is not None:
        raise ValueError(
            f"cv of the inner {name} is a list of row numbers, but it is fitted on the training "
            "rows of a fold, which have other numbers. Pass an int or a splitter."
        )
    if context.ordered:
        part._check_ordered(context, X, y, only_fit)
    elif context.groups is not None:
        outer_folds(cv, X, y, classifier=is_classifier(part), groups=context.groups)


def _set_folds(part, context, X, y):
    """Set ``cv`` of an estimator that is not of skstack."""
    params = part.get_params(deep=False)
    cv, name = params.get("cv"), type(part).__name__
    if "cv" not in params or isinstance(cv, str) or (cv is None and name in _NONE_IS_NO_SPLIT):
        return
    counted = cv is None or isinstance(cv, Integral)
    classes = is_classifier(part)
    if name == "TargetEncoder":
        classes = type_of_target(y) in ("binary", "multiclass")
        if counted and not context.matters and params.get("random_state") in (None, "deprecated"):
            # It shuffles by NumPy's global state.
            part.set_params(cv=check_cv(cv, y, classifier=classes, shuffle=True, random_state=0))
    listed = None if counted or hasattr(cv, "split") else listed_folds(cv)
    if listed is not None and not context.all_rows:
        raise ValueError(
            f"cv of the inner {name} is a list of row numbers, but it is fitted on the training "
            "rows of a fold, which have other numbers. Pass an int or a splitter."
        )
    if context.ordered:
        if name in _PARTITIONS or (name.startswith("Calibrated") and params["ensemble"] is False):
            raise ValueError(
                f"{context}, but the inner {name} predicts all of its training rows, the first "
                "ones too, so that it must learn from later rows. Use StackedKerasClassifier or "
                "StackedKerasRegressor, which leave the first rows out, or another estimator."
            )
        if counted:
            part.set_params(cv=context.ordered_cv(cv, n_rows(X)))
        elif not orders_time(cv if listed is None else listed, X, y):
            raise ValueError(
                f"{context}, but the inner {name} splits them by cv={cv!r}, which is not "
                "ordered in time. Pass TimeSeriesSplit, or an int."
            )
    elif context.groups is not None and not _gets_groups(part):
        try:
            folds = outer_folds(cv, X, y, classifier=classes, groups=context.groups)
        except ValueError as error:
            raise ValueError(f"cv of the inner {name}: {error}") from error
        part.set_params(cv=folds)


def _gets_groups(part):
    """Whether metadata routing brings groups to the splitter of an estimator."""
    if not routing_enabled() or not hasattr(part, "get_metadata_routing"):
        return False
    return bool(get_routing_for_object(part).consumes(method="fit", params=["groups"]))


def refuse_unreached(part, context, reason, *, inside=False):
    """Refuse whatever splits rows where groups and order cannot reach it.

    Parameters
    ----------
    part : estimator

    context : RowContext

    reason : str
        Why they cannot.

    inside : bool, default=False
        Whether the part itself is reached, and only what it holds is not.

    Raises
    ------
    ValueError
        If something splits its training rows.
    """
    if not context.matters or not hasattr(part, "get_params"):
        return
    if not context.ordered and _gets_groups(part):
        return
    for each in (*(() if inside else (part,)), *part.get_params(deep=True).values()):
        if _splits(each):
            name = type(each).__name__
            raise ValueError(
                f"{context}, but cannot reach the inner {name}, for {reason}. Use {name} without "
                f"it, or leave {'cv unordered' if context.ordered else 'groups out'}."
            )


def _splits(estimator):
    """Whether an estimator is sure to split its training rows."""
    if hasattr(estimator, "_splits_rows"):
        return estimator._splits_rows(False)
    if not (hasattr(estimator, "fit") and hasattr(estimator, "get_params")):
        return False
    params = estimator.get_params(deep=False)
    return (
        "cv" in params
        and not isinstance(params["cv"], str)
        and not (params["cv"] is None and type(estimator).__name__ in _NONE_IS_NO_SPLIT)
    )
