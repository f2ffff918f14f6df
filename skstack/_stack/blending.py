"""Which parts of a stack are blended, and their predictions of rows that none was fitted on."""

from __future__ import annotations

import functools
import itertools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from skstack._base.atomic_fit import caller_level, copy_of
from skstack._base.params import (
    clone_part,
    is_keras_model,
    is_network_estimator,
    is_path,
    last_step,
)
from skstack._base.progress import errors_named, report
from skstack._base.sklearn import is_classifier_for
from skstack._base.tables import columns_at, n_rows, take_rows
from skstack._base.text import described
from skstack._estimators.multi_task import KerasMultiTask
from skstack._splits.folds import (
    CannotSplit,
    NestedFolds,
    folds_of,
    make_folds,
    same_folds,
    scored_folds,
    shown_cv,
    shuffled_folds,
)
from skstack._stack.branches import branch_list, branch_of, named_branches
from skstack._training.formulas import of_log_odds
from skstack.ensemble._greedy import (
    LogLoss,
    blend,
    learned_blend,
    learned_temperature,
    normalized,
    objective,
)
from skstack.networks._heads import probabilities_of
from skstack.networks._model_parameter import load_model

DOWNSTREAM = "downstream"  # no branch has the name of a parameter

# Losses whose minimum is the mean, without underscores.
_OF_MEAN = {"auto", "friedmanmse", "gamma", "meansquarederror", "mse", "poisson",
            "squarederror", "squaredloss", "tweedie"}  # fmt: skip
_OF_OTHERS = ("abs", "quantile", "huber", "mae", "mape", "l1", "insensitive", "logcosh", "msle")
_LOSS_PARAMETERS = ("loss", "criterion", "objective", "loss_function")
# Regressors without such a parameter that do not estimate the mean.
_NOT_OF_MEAN = {"HuberRegressor", "LinearSVR", "NuSVR", "QuantileRegressor", "RANSACRegressor",
                "SVR", "TheilSenRegressor"}  # fmt: skip
# Settings that change the probabilities of classes, with the values that do not.
_OF_FREQUENCIES = {
    "auto_class_weights": (None, "None"),
    "class_prior": (None,),
    "class_weight": (None,),
    "class_weights": (None,),
    "fit_prior": (True,),
    "is_unbalance": (None, False),
    "priors": (None,),
    "scale_pos_weight": (None, 1),
}
_THRESHOLDS = ("FixedThresholdClassifier", "TunedThresholdClassifierCV")
_AFFINE = (type(None), MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler)


@dataclass(frozen=True)
class BlendPlan:
    """The parts that are blended, branches first; none if blending is off, for a reason."""

    parts: tuple[str, ...] = ()
    reason: str = ""


def blend_plan(stack):
    """Decide from the parameters of a stack which parts are blended.

    Raises a ValueError if ``blend_parts`` is invalid, or if ``blend`` is True and the parts do not
    estimate the same quantity.
    """
    if not stack.blend:
        return BlendPlan(reason="blend=False")
    named = _named_parts(stack)
    kept, reasons = [], []
    for name, model, _ in branch_list(stack):
        transformer = branch_of(stack, name, model)
        with errors_named(f"The branch {name!r}"):
            transformer._validate_params()
            part = _Predictor.of(stack, transformer)
        why = _excluded(part, named is not None)
        if named is not None and name in named and why:
            raise ValueError(f"blend_parts={stack.blend_parts!r} names {name!r}, but {why}.")
        if not why and (named is None or name in named):
            kept.append(name)
            reasons.append(_other_scale(stack, part.estimator, f"the branch {name!r}"))
    downstream = stack._network_type() if stack.downstream is None else stack.downstream
    if isinstance(downstream, type):  # which `fit` refuses
        return BlendPlan()
    if named is None and _knows_rows(last_step(downstream)):
        reasons.append(f"the downstream: {_knows_rows(last_step(downstream))}")
    elif named is None or DOWNSTREAM in named:
        kept.append(DOWNSTREAM)
        reasons.append(_other_scale(stack, downstream, "the downstream"))
        reasons.append(_own_threshold(downstream))
        if getattr(stack, "sampler", None) is not None and not stack.prior_correction:
            reasons.append(
                f"sampler={described(stack.sampler)} changes the scale of the downstream's "
                "probabilities; prior_correction=True would correct it"
            )
        reasons.append(_rotated(stack))
    reason = next(filter(None, reasons), "")
    if not reason and len(kept) < 2:
        reason = "no branch predicts the target" if kept == [DOWNSTREAM] else "one part is left"
    if reason and not _is_auto(stack):
        raise ValueError(f"blend=True is not possible: {reason}. Use blend='auto' or False.")
    return BlendPlan(reason=reason) if reason else BlendPlan(tuple(kept))


def would_blend(stack):
    """Whether there is a blend plan; not with invalid parameters, of which `fit` says why."""
    try:
        return bool(blend_plan(stack).parts)
    except (TypeError, ValueError):
        return False


def _is_auto(stack):
    return isinstance(stack.blend, str)


def _named_parts(stack):
    """The names in ``blend_parts``, or None."""
    parts = stack.blend_parts
    if parts is None:
        return None
    known = [*([name for name, _ in named_branches(stack.upstream)] or ["upstream"]), DOWNSTREAM]
    if len(set(map(str, parts))) < 2 or len(set(map(str, parts))) < len(parts):
        raise ValueError(
            f"blend_parts={parts!r}; expected None or a list of at least two of {known}."
        )
    unknown = [name for name in parts if name not in known]
    if unknown:
        raise ValueError(f"blend_parts={parts!r} holds {unknown}; expected some of {known}.")
    return set(parts)


def _is_model(value):
    """Whether a part is a ``keras.Model`` or the path to one."""
    return is_keras_model(value) or is_path(value)


def _knows_rows(estimator):
    """Why an estimator may have been fitted on the rows before, or an empty string."""
    if hasattr(getattr(estimator, "loss", None), "teacher"):
        return "its teacher may have been fitted on these rows"
    start = getattr(estimator, "model", None)
    built = is_keras_model(start) and start.built
    if built or is_path(start) or isinstance(start, FrozenEstimator):
        return "it continues a network that may have been fitted on these rows"
    return ""


@dataclass(frozen=True)
class _Predictor:
    """The model of a branch, and how its features hold predictions of the target."""

    estimator: object
    frozen: bool
    feature: str | None  # "outputs", "log_odds", or None if there are none
    why: str = ""  # why there are none

    @classmethod
    def of(cls, stack, transformer):
        steps = transformer._upstream_model
        final = last_step(steps)
        frozen = _is_model(final) or isinstance(final, FrozenEstimator)
        if isinstance(final, FrozenEstimator):
            steps, final = final.estimator, last_step(final.estimator)
        why = ""
        if not transformer.passes_y and not frozen:
            why = "passes_y=False keeps the target from it"
        elif isinstance(final, KerasMultiTask):
            why = "it predicts several kinds of target"
        elif not _is_model(final):
            classes = is_classifier(stack)
            labels = [0, 1]  # tags of scikeras do not say that it is a classifier
            if not (is_classifier_for(final, labels) if classes else is_regressor(final)):
                why = f"it is not a {'classifier' if classes else 'regressor'}"
        requested = transformer._request().features
        usable = ("outputs", "log_odds") if is_classifier(stack) else ("outputs",)
        feature = next((each for each in usable if each in requested), None)
        if not why and feature is None:
            why = f"its features hold none of {list(usable)}"
        return cls(steps, frozen, None if why else feature, why)


def _excluded(part, is_named):
    """Why a branch takes no part in a blend, or an empty string."""
    if part.why or is_named:
        return part.why
    if part.frozen:
        return "it is frozen, and may have been fitted on these rows"
    return _knows_rows(last_step(part.estimator))


def _other_scale(stack, estimator, label):
    """Why a part does not estimate probabilities, or the mean of the target; or an empty string."""
    if _is_model(last_step(estimator)):
        return ""
    if is_regressor(stack):
        loss = _other_loss(estimator)
        return f"{label} does not estimate the mean: {loss}" if loss else ""
    if probabilities_of(estimator) is None:
        return f"{label}, {described(last_step(estimator))}, has no predict_proba"
    for name, value in _settings(estimator):
        last = name.rpartition("__")[2]
        resamples = type(value).__module__.startswith("imblearn.ensemble")
        if last == "sampler" and value is not None:
            return (
                f"{label} has {name}={described(value)} without prior_correction, which changes "
                "probabilities"
            )
        if resamples or hasattr(value, "fit_resample"):
            return f"{label} resamples ({described(value)}), which changes probabilities"
        neutral = _OF_FREQUENCIES.get(last)
        changes = neutral is not None and (np.ndim(value) > 0 or value not in neutral)
        if changes or (last == "loss" and "focal" in _loss_name(value)):
            return f"{label} has {name}={described(value)}, which changes probabilities"
    return ""


def _own_threshold(downstream):
    """Why predictions of a blend would not be those of a downstream, or an empty string."""
    last = last_step(downstream)
    if type(last).__name__ in _THRESHOLDS:
        return (
            f"the downstream, {type(last).__name__}, predicts by a threshold of its own, and a "
            "blend by the largest probability"
        )
    inner = getattr(last, "estimator", None)
    searches = any(hasattr(last, grids) for grids in _GRIDS)
    return _own_threshold(inner) if searches or isinstance(last, FrozenEstimator) else ""


_GRIDS = ("param_grid", "param_distributions")


def _settings(estimator, name="", above=()):
    """An estimator, and its parameters of every depth, by name; of searches also the candidates.

    Without what a calibration, or a correction of priors, makes up for. ``above`` are the
    estimators that hold it: a list among their parameters may hold one of them, too.
    """
    yield name, estimator
    known = hasattr(estimator, "get_params") and not isinstance(estimator, type)
    if not known or type(estimator).__name__ == "CalibratedClassifierCV":
        return
    if any(each is estimator for each in above):
        return
    above = (*above, estimator)
    for own, value in estimator.get_params(deep=False).items():
        if own == "sampler" and getattr(estimator, "prior_correction", False):
            continue
        if own in _GRIDS:
            yield from _candidates(estimator, value, name)
        elif isinstance(value, list | tuple):
            for item in value:
                pair = isinstance(item, tuple) and len(item) > 1 and isinstance(item[0], str)
                inner, part = item[:2] if pair else (own, item)
                yield from _settings(part, _joined(name, inner), above)
        else:
            yield from _settings(value, _joined(name, own), above)


def _candidates(search, grids, name):
    """The candidates of a search, by the names of parameters."""
    parts = {"": search.estimator, **search.estimator.get_params(deep=True)}
    calibrated = tuple(
        _joined(inner, "") if inner else ""
        for inner, part in parts.items()
        if type(part).__name__ == "CalibratedClassifierCV"
    )
    for grid in [grids] if isinstance(grids, dict) else grids or ():
        for own, values in grid.items():
            owner, _, last = own.rpartition("__")
            corrected = last == "sampler" and getattr(parts.get(owner), "prior_correction", False)
            if corrected or own.startswith(calibrated):
                continue
            values = getattr(values, "choices", values)  # of optuna
            for value in values if np.iterable(values) and not isinstance(values, str) else ():
                yield from _settings(value, _joined(name, own))


def _joined(name, own):
    return f"{name}__{own}" if name else own


def _other_loss(estimator):
    """The setting by which a regressor does not estimate the mean, or an empty string."""
    for name, value in _settings(estimator):
        kind, last = type(value).__name__, name.rpartition("__")[2]
        if kind in _NOT_OF_MEAN:
            return kind
        if kind == "TransformedTargetRegressor" and not (
            value.func is None and isinstance(value.transformer, _AFFINE)
        ):
            return f"{kind} transforms the target"
        if last not in _LOSS_PARAMETERS or value is None:
            continue
        known = _loss_name(value)
        if last in ("objective", "loss_function"):
            if any(each in known for each in _OF_OTHERS):
                return f"{name}={value!r}"
        elif known not in _OF_MEAN:
            return f"{name}={described(value)}"
    return ""


def _loss_name(loss):
    """The name of a loss in any form, in lower case and without underscores."""
    name = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
    return name.lower().replace("_", "")


def _rotated(stack):
    """A branch whose inner layers are rotated onto those of a network of all rows, or ""."""
    for name, model, _ in branch_list(stack):
        transformer = branch_of(stack, name, model)
        final = None if transformer.model is None else last_step(transformer.model)
        fixed = final is None or _is_model(final)
        fixed = fixed or is_network_estimator(final) or isinstance(final, FrozenEstimator)
        if transformer.layers and not fixed:
            return (
                f"inner layers of the branch {name!r} are rotated onto those of a network that "
                "was fitted on all rows"
            )
    return ""


# Columns that hold predictions --------------------------------------------------------------------


@dataclass(frozen=True)
class PredictionColumns:
    """Where the features of a branch hold its predictions of the target."""

    start: int
    width: int
    log_odds: bool

    @classmethod
    def of(cls, stack, transformer, n_outputs):
        """Find the columns; ``n_outputs`` is 1 for two classes. None if there are none."""
        part = _Predictor.of(stack, transformer)
        decides = is_classifier(stack) and not _is_model(last_step(part.estimator))
        if part.feature is None or (decides and probabilities_of(part.estimator) is None):
            return None
        start = 0
        request = transformer._request()
        for feature in request.features[: request.features.index(part.feature)]:
            start += n_outputs if feature in ("outputs", "log_odds") else 1
        return cls(start, n_outputs, part.feature == "log_odds")

    @property
    def indices(self):
        """Positions of the columns in the table of the branch."""
        return range(self.start, self.start + self.width)

    def predictions(self, table, *, classes=None, several=False):
        """Predictions of shape (n_rows, n_outputs); those of two classes get both columns."""
        values = table.iloc[:, self.indices] if hasattr(table, "iloc") else table[:, self.indices]
        values = np.asarray(values, dtype=np.float64)
        if classes is None:
            return values
        if self.log_odds:
            values = of_log_odds(values, np, exclusive=not several)
        if several:
            return values
        return np.hstack([1 - values, values]) if self.width == 1 else normalized(values)


def check_frozen_parts(stack, branches, parts, n_outputs):
    """Refuse a frozen part of a blend that predicts another target."""
    for name, transformer, _ in branches:
        if name not in parts:
            continue
        part = _Predictor.of(stack, transformer)
        final = last_step(part.estimator)
        if not part.frozen:
            continue
        what = f"blend_parts={stack.blend_parts!r} names {name!r}, a frozen part"
        if _is_model(final):
            final = load_model(final) if is_path(final) else final
            shapes = [tuple(output.shape[1:]) for output in final.outputs]
            if shapes != [(n_outputs,)]:
                raise ValueError(
                    f"{what} with outputs of shape {shapes}; expected [({n_outputs},)]."
                )
        elif is_classifier(stack):
            known = np.asarray(getattr(final, "classes_", ()))
            if not np.array_equal(known, stack.classes_):
                raise ValueError(
                    f"{what} with the classes {known.tolist()}; expected those of y, "
                    f"{stack.classes_.tolist()}."
                )


# One fit ------------------------------------------------------------------------------------------


class Blending:
    """How one fit of a stack learns the weights of its blend and its temperature."""

    def __init__(self, stack, y):
        plan = blend_plan(stack)
        self.parts, self.columns, self.nested, self.seeds = plan.parts, {}, None, ()
        self._stack = stack
        self._calibrates = getattr(stack, "calibration", None) is not None
        self._several = y.ndim == 2
        if not self.parts:
            self._turn_off(plan.reason)
        if self._calibrates and not self.parts:
            downstream = stack._models()[-1]
            if probabilities_of(downstream) is None:
                raise ValueError(
                    f"calibration={stack.calibration!r} needs probabilities, and "
                    f"downstream={described(downstream)} has no predict_proba."
                )

    @property
    def scored(self):
        """The parts whose predictions of rows that they were not fitted on are needed."""
        return self.parts or ((DOWNSTREAM,) if self._calibrates else ())

    @property
    def nests(self):
        """Whether the downstream is fitted again without each fold."""
        return DOWNSTREAM in self.scored and self._stack.fine_tune is None

    def prepare(self, branches, cv, X, y, metadata, *, ordered, seed):
        """Make the folds; turn an automatic blend off if they leave too few rows."""
        stack = self._stack
        classes = None if self._several else getattr(stack, "classes_", None)
        settings = {"classifier": classes is not None, "metadata": metadata.splitter}
        if stack.n_repeats > 1:
            if ordered:
                raise ValueError(
                    f"n_repeats={stack.n_repeats} needs other folds in each repeat, but "
                    f"cv={shown_cv(stack.cv)} is time-ordered. Use n_repeats=1."
                )
            generator = np.random.default_rng(seed)
            self.seeds = tuple(generator.integers(2**31 - 1, size=stack.n_repeats - 1).tolist())
            for name, transformer, _ in branches:
                if transformer._splits_rows(False):
                    with errors_named(f"The branch {name!r}"):
                        own = metadata.branches[name].split
                        shuffled_folds(transformer.cv, X, y, 0, classifier=False, metadata=own)
        n_outputs = y.shape[1] if self._several else 1
        if not self._several and classes is not None and len(classes) > 2:
            n_outputs = len(classes)
        self.columns = {
            name: PredictionColumns.of(stack, transformer, n_outputs)
            for name, transformer, _ in branches
        }
        check_frozen_parts(stack, branches, self.parts, n_outputs)
        if self.parts:  # a scorer that does not suit y is refused
            self._score(X, y, metadata.downstream.get("sample_weight"))
        if not self.nests:
            return
        nested, reason = [], ""
        weights = metadata.downstream.get("sample_weight")
        try:
            folds = make_folds(cv, X, y, **settings, weights=weights, may_leave_out=True)
            nested = [folds.pairs]
            nested += [shuffled_folds(cv, X, y, each, **settings) for each in self.seeds]
            reason = _too_few_rows(nested, y, classes, weights, ordered)
        except ValueError as error:
            reason = str(error)
        for name, transformer, _ in branches:
            if reason:
                break
            own = metadata.branches[name]
            if ordered and transformer._learns_from_y():
                pairs = folds_of(transformer.cv, X, y, classifier=False, metadata=own.split)
                if not same_folds(pairs, nested[0]):
                    reason = f"the branch {name!r} has another time-ordered cv than the stack"
            elif not ordered:
                try:
                    transformer._check_nested(X, y, own, nested)
                except ValueError as error:
                    reason = f"the branch {name!r}: {error}"
        if reason:
            self.fail(reason)
        else:
            labels = y if is_classifier(stack) else None
            # A downstream of fewer rows is more certain than that of all: no measure of it.
            scored = scored_folds(nested, labels, weights, all_pairs=self._calibrates)
            self.nested = NestedFolds(nested, scored)

    def fail(self, reason):
        """Turn an automatic blend off; raise if predictions without each fold were asked for.

        A warning tells of an error in a fit, unless only the folds are too small.
        """
        stack = self._stack
        if self._calibrates or not _is_auto(stack):
            what = f"blend={stack.blend!r}"
            if self._calibrates:
                what = f"calibration={stack.calibration!r}"
            raise ValueError(f"{what} is not possible: {reason}")
        self.nested = None
        self._turn_off(reason)

    def _turn_off(self, reason):
        self.parts = ()
        message = f"blend={self._stack.blend!r} is off: {reason}"
        if isinstance(reason, ValueError) and not isinstance(reason, CannotSplit):
            warnings.warn(message, UserWarning, caller_level())
        elif self._stack.verbose and self._stack.blend:
            report(message)

    def _score(self, X, y, weights, rows=None):
        stack = self._stack
        scoring = stack.blend_scoring if self.parts else None
        classes = getattr(stack, "classes_", None)
        settings = {"classes": classes, "sample_weight": weights, "name": "blend_scoring"}
        return objective(scoring, X, y, rows=rows, **settings)

    def learn(self, predictions, X, y, weights, rows=None):
        """Set weights, scores and temperature of the stack.

        ``predictions`` are those of the parts, for rows that none was fitted on: some ``rows`` of
        X, or all (None).
        """
        stack, y = self._stack, np.asarray(y)
        mean = predictions.get(DOWNSTREAM)
        if self.parts and weights is not None and not np.any(weights):
            self.fail("the weights of all rows that are predicted out of fold are 0")
        if self.parts:
            score = self._score(X, y, weights, rows)
            stack.blend_weights_, stack.blend_scores_, _ = learned_blend(predictions, score)
            mean = blend(predictions, stack.blend_weights_)
        if self._calibrates:
            score = LogLoss(y, stack.classes_, weights)
            stack.temperature_ = learned_temperature(mean, score)

    def score_of(self, predictions, X, y, weights):
        """The score of predictions of which some may be missing; None if all are."""
        known = np.flatnonzero(known_rows(predictions))
        if not known.size:
            return None
        score = self._score(X, y[known], None if weights is None else weights[known], known)
        return score(score.prepared(predictions[known]))


# Predictions of rows that no part was fitted on ---------------------------------------------------


def _too_few_rows(nested, y, classes, weights, ordered):
    """Why a stack cannot be fitted without some of its folds, or an empty string.

    ``classes`` are those of a single target, else None. Rows of weight 0 do not count.
    """
    codes = np.zeros(len(y), dtype=int) if classes is None else np.searchsorted(classes, y)
    counted = _counted(y, weights)
    for pairs in nested:
        if ordered:
            usable = any(True for _ in _earlier(pairs, codes, counted))
            return "" if usable else "no fold has earlier rows with features of all classes"
        n = codes.max() + 1
        counts = [np.bincount(codes[test], counted[test], minlength=n) for _, test in pairs]
        total, left_out = np.sum(counts, axis=0), 1 if len(pairs) == 2 else 2
        for some in itertools.combinations(counts, left_out):
            left = (total - np.sum(some, axis=0))[total > 0]
            if left.min() < 1 or left.sum() < 2:
                what = "rows" if classes is None else "rows of a class"
                return f"too few {what} are left without {left_out} of {len(pairs)} folds"
    return ""


def _counted(y, weights):
    """Mask of the rows of positive weight."""
    return np.ones(len(y), dtype=bool) if weights is None else np.asarray(weights) > 0


def _earlier(pairs, codes, counted):
    """(training rows with features, test rows) of time-ordered folds that can be predicted."""
    covered = np.zeros(len(codes), dtype=bool)
    n_classes = len(np.unique(codes[counted]))
    for train, test in pairs:
        rows = train[covered[train]]
        covered[test] = True
        known = codes[rows[counted[rows]]]
        if len(known) > 1 and len(np.unique(known)) == n_classes:
            yield rows, test


@dataclass(frozen=True)
class NestedFit:
    """What the predictions of rows by parts that were not fitted on them are made of.

    ``stack`` is a copy of the fitted stack; ``fit`` is its `StackFit`.
    """

    stack: Any
    fit: Any

    def predictions(self, parts, columns):
        """Predictions by part; NaN in rows that a part has not predicted."""
        nested = self.fit.blending.nested
        if nested is None:  # all parts are branches
            names = [name for name, _, _ in self.stack.upstream_]
            features = dict(zip(names, self.fit.features, strict=True))
            return {
                name: self.stack._branch_predictions(columns[name], features[name])
                for name in parts
            }
        each = [
            self._of_repeat(repeat, scored, parts, columns)
            for repeat, scored in enumerate(nested.scored)
        ]
        return {name: np.mean([repeat[name] for repeat in each], axis=0) for name in parts}

    def _of_repeat(self, repeat, scored, parts, columns):
        fit, values = self.fit, {}
        pairs = fit.blending.nested.repeats[repeat]
        codes = np.zeros(len(fit.y), dtype=int)
        if is_classifier(self.stack) and fit.y.ndim == 1:
            codes = np.searchsorted(self.stack.classes_, fit.y)
        counted = _counted(fit.y, fit.weights)
        trains = {test[0]: train for train, test in _earlier(pairs, codes, counted)}
        if not fit.ordered:
            trains = {test[0]: train for train, test in pairs}
        for number in scored.numbers:
            _, test = pairs[number]
            features = [
                own if tables is None else tables[repeat][number].table
                for own, tables in zip(fit.features, fit.tables, strict=True)
            ]
            for (name, _, _), table in zip(self.stack.upstream_, features, strict=True):
                if name in parts:
                    own = self.stack._branch_predictions(columns[name], take_rows(table, test))
                    self._put(values, name, test, own)
            if DOWNSTREAM in parts and test[0] in trains:
                known = self._rows_with_features(repeat, number)
                train = np.intersect1d(trains[test[0]], known)
                features = [_filled(table, known) for table in features]
                own = self._of_downstream(features, train, test, repeat, number)
                self._put(values, DOWNSTREAM, test, own)
        return values

    def _rows_with_features(self, repeat, number):
        """The rows whose features do not depend on labels of a fold."""
        each = [tables[repeat][number].rows for tables in self.fit.tables if tables is not None]
        known = [rows for rows in each if rows is not None]
        return functools.reduce(np.intersect1d, known, np.arange(len(self.fit.y)))

    def _put(self, values, name, rows, predictions):
        if name not in values:
            values[name] = np.full((len(self.fit.y), *predictions.shape[1:]), np.nan)
        values[name][rows] = predictions

    def _of_downstream(self, features, train, test, repeat, number):
        """Predictions of one fold by a downstream that was not fitted on its labels."""
        fit, stack = self.fit, copy_of(self.stack)
        of_train = [take_rows(table, train) for table in features]
        y, metadata = take_rows(fit.y, train), fit.metadata.of(fit.X, train)
        stack._float64 = stack._needs_float64(of_train, y)
        validation = metadata.downstream.get("X_val")
        if validation is not None:
            own = []
            for (name, fitted, _), tables in zip(stack.upstream_, fit.tables, strict=True):
                part = columns_at(validation, stack._branch_columns[name])
                makes = fitted._extract if tables is None else tables[repeat][number].extract
                own.append(makes(part))
            validation = stack._table(own, validation)
        whole = None
        if not fit.ordered:  # else only earlier rows decide anything
            whole = stack._table(features, fit.X), fit.weights
        n_folds = len(fit.blending.nested.repeats[repeat])
        stack._fit_downstream(
            clone_part(fit.unfitted), stack._table(of_train, take_rows(fit.X, train)), y,
            metadata, validation, fit.seed, fit.order,
            label=f"downstream, without fold {number + 1} of {n_folds}",
            whole=whole,
        )  # fmt: skip
        of_test = [take_rows(table, test) for table in features]
        table = stack._table(of_test, take_rows(fit.X, test))
        table = stack._for_downstream(stack.downstream_, table)
        return stack._downstream_predictions(table)


def _filled(table, rows):
    """A table in which rows without features have those of others."""
    if len(rows) == n_rows(table):
        return table
    filled = np.arange(n_rows(table))
    unknown = np.delete(filled, rows)
    filled[unknown] = np.resize(rows, len(unknown))
    return take_rows(table, filled)


def known_rows(*predictions):
    """Mask of the rows that all parts have predicted."""
    finite = [np.isfinite(p.reshape(len(p), -1)).all(axis=1) for p in predictions]
    return np.logical_and.reduce(finite)
