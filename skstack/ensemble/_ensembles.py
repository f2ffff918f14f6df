"""GreedyEnsembleClassifier and GreedyEnsembleRegressor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, is_classifier, is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import get_scorer_names
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch, indexable
from sklearn.utils.metadata_routing import UNUSED, MetadataRouter, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, column_or_1d

from skstack._base.atomic_fit import atomic_fit, on_snapshot, trial_scope
from skstack._base.diagram import diagram_of_parts
from skstack._base.docstrings import substitute
from skstack._base.parallel import run_parts
from skstack._base.params import clone_part, clone_sharing_models, last_step
from skstack._base.progress import errors_named, fit_tasks, fitting, propagating
from skstack._base.sklearn import (
    CROSS_FIT_CONSTRAINTS,
    BaseComposition,
    CallbackSupportMixin,
    Interval,
    StrOptions,
    accepts_fit_parameter,
    add_own_score,
    check_parts,
    fit_context,
    offers,
    refuse_metadata,
    routing_enabled,
    set_input_tags,
    take_metadata,
    with_callbacks,
    with_target_tags,
)
from skstack._base.tables import check_target, n_rows, own_rows, read_labels, take_rows, taken
from skstack._base.text import described
from skstack._estimators.base import NetworkEstimator
from skstack._features.cross_fit import Metadata
from skstack._features.transformer import (
    KerasFeatureTransformer,
    add_estimator,
    add_splitter,
    given_metadata,
)
from skstack._features.trial_columns import check_accepts
from skstack._features.trial_targets import check_class_weight, check_folds, check_targets
from skstack._splits.folds import listed_folds, make_folds, orders_time, shown_cv
from skstack._splits.row_context import RowContext, pass_context
from skstack.ensemble._greedy import (
    MAX_ITER,
    blend,
    classes_of,
    learned_blend,
    objective,
    probabilities_for,
)

DOCS = {
    "parameters": """
estimators : list of (str, estimator)
    Names and estimators, the simpler ones first: of equal scores the first is preferred.
    ``"drop"`` instead of an estimator removes it.

cv : int, splitter, iterable or "prefit", default=5
    Folds of the out-of-fold predictions. An int keeps groups together if ``groups`` are given.
    With a time-ordered ``cv`` rows that are never predicted take no part in the selection. With
    "prefit" the estimators are fitted already, and the rows of ``fit`` must be unseen by all.
""",
    "settings": """
max_iter : int, default=100
    Largest number of steps of the selection. In [1, inf).

n_jobs : int, default=None
    Number of threads that fit in parallel; as in
    :class:`~skstack.StackedKerasClassifier`.

verbose : int, default=0
    If > 0, print a line for each fit.
""",
    "attributes": """
weights_ : dict of str to float
    Weight of each estimator; at least 0, with sum 1.

scores_ : dict of str to float
    Score of the out-of-fold predictions of each estimator, and of their combination, ``"blend"``;
    greater is better.

estimators_ : list of estimator
    Those of positive weight, fitted on all rows.

named_estimators_ : Bunch
    The same by name.

n_iter_ : int
    Number of steps of the selection that are kept.

n_features_in_ : int
    Number of columns of X. Defined only if the fitted estimators define it.

feature_names_in_ : ndarray of str of shape (n_features_in_,)
    Names of the columns of X. Defined only if the fitted estimators define it.
""",
    "references": """
R. Caruana, A. Niculescu-Mizil, G. Crew & A. Ksikes, "Ensemble Selection from Libraries of Models",
ICML 2004.
""",
}


@dataclass(frozen=True)
class _Rows:
    """Rows of a fit, and metadata of each estimator by name; ``order`` is a time-ordered cv."""

    X: Any
    y: Any
    metadata: dict[str, dict[str, Any]]
    groups: Any
    order: Any

    def for_member(self, name, numbers):
        """The rows with these numbers, or all (None), with the metadata of one estimator."""
        own = self.metadata.get(name, {})
        if numbers is None:
            return replace(self, X=own_rows(self.X), metadata=own)
        X, y, groups = taken(numbers, self.X, self.y, self.groups)
        return _Rows(X, y, take_metadata(self.X, own, numbers), groups, self.order)


class _GreedyEnsemble(CallbackSupportMixin, BaseComposition):
    """Base class of both ensembles."""

    _parameter_constraints = {
        "estimators": [list],
        "cv": ["cv_object", StrOptions({"prefit"})],
        "scoring": [None, StrOptions(set(get_scorer_names())), callable],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": CROSS_FIT_CONSTRAINTS["n_jobs"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimators: Any,
        *,
        cv: Any = 5,
        scoring: Any = None,
        max_iter: int = MAX_ITER,
        n_jobs: int | None = None,
        verbose: int | bool = 0,
    ) -> None:
        self.estimators = estimators
        self.cv = cv
        self.scoring = scoring
        self.max_iter = max_iter
        self.n_jobs = n_jobs
        self.verbose = verbose

    def get_params(self, deep=True):
        """Get the parameters of this ensemble and, optionally, of its estimators.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include those of the estimators, such as ``tree__max_depth``.

        Returns
        -------
        dict of str to object
            Parameters by name.
        """
        return self._get_params("estimators", deep=deep)

    def set_params(self, **params):
        """Set parameters of this ensemble and of its estimators.

        Parameters
        ----------
        **params : dict
            Parameters by name; ``tree="drop"`` removes the estimator ``tree``.

        Returns
        -------
        self : estimator
            This ensemble.
        """
        return self._set_params("estimators", **params)

    def __sklearn_clone__(self):
        return clone_sharing_models(self)

    def _sk_visual_block_(self):
        return diagram_of_parts(_pairs(self.estimators), getattr(self, "weights_", {}))

    def _with_tags(self, tags):
        models = [estimator for _, estimator in _pairs(self.estimators)]
        models = [model for model in models if not isinstance(model, str)]
        set_input_tags(tags, models)
        return with_target_tags(tags, models)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "weights_")

    @property
    def n_features_in_(self):
        """Number of columns of X."""
        return self._of_first("n_features_in_")

    @property
    def feature_names_in_(self):
        """Names of the columns of X."""
        return self._of_first("feature_names_in_")

    def _of_first(self, attribute):
        if not hasattr(self, "estimators_"):
            raise AttributeError(f"{type(self).__name__} has no {attribute}: it is not fitted.")
        return getattr(self.estimators_[0], attribute)

    # Metadata of the estimators; the ensemble passes them on, and weighs its own score.
    __metadata_request__fit = {"sample_weight": UNUSED, "groups": UNUSED}

    def get_metadata_routing(self):
        """Get the metadata routing of this object.

        Returns
        -------
        MetadataRouter
            With the estimators by name, and ``splitter``.
        """
        router = MetadataRouter(owner=self)
        for name, estimator in self._trained(self._checked()):
            add_estimator(router, name, estimator)
        add_splitter(router, 5 if isinstance(self.cv, str) else self.cv)
        add_own_score(router, self)
        return router

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None, *, groups=None, **params):
        """Fit the estimators and learn their weights.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Training rows, as the estimators accept them.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or targets.

        sample_weight : array-like of shape (n_samples,), default=None
            Passed to every estimator that is fitted, and weights of the score; such an estimator
            that does not accept weights raises an error. With metadata routing enabled, passed to
            the estimators that request it.

        groups : array-like of shape (n_samples,), default=None
            Rows of one group are never on both sides of a fold, nor of an inner split of an
            estimator; one that cannot respect this raises an error.

        **params : dict
            Other metadata, if metadata routing is enabled.

        Returns
        -------
        self : estimator
            The fitted ensemble.

        Raises
        ------
        ValueError
            If parameters are invalid, or if an estimator is of the wrong kind; the message names
            them.
        """
        return self._fit(X, y, sample_weight, groups, params)

    @atomic_fit
    @with_callbacks
    def _fit(self, X, y, sample_weight, groups, params):
        estimators = self._checked()
        y = self._read_target(y)
        self._learn_fitted_classes(estimators)
        X, y = indexable(X, y)
        split, metadata = self._routed(estimators, X, sample_weight, groups, params)
        weights = given_metadata(X, sample_weight, None, {}).get("sample_weight")
        classes = getattr(self, "classes_", None)
        # Checks the scorer before anything is fitted.
        score = objective(self.scoring, X, y, classes=classes, sample_weight=weights)
        if isinstance(self.cv, str):
            fitted = dict(estimators)
            for name, estimator in fitted.items():
                with errors_named(f"The estimator {name!r}"):
                    check_is_fitted(estimator)
            with fit_tasks(self, X=X, y=y, weights=weights):
                predictions = {name: self._predicted(name, each, X) for name, each in estimators}
                self._weigh(predictions, score)
                return self._keep(fitted)
        check_parts(self)
        for name, estimator in estimators:
            label = f"The estimator {name!r} ({type(estimator).__name__})"
            check_accepts(estimator, X, y, label, "a ColumnTransformer in a Pipeline selects some")
            check_targets(estimator, y, label, X, classes=is_classifier(self))
            self._check_network(name, estimator, X, y, metadata.get(name, {}))
        self._check_class_weights(y, X)
        folds, order = self._folds(X, y, split, weights)
        for name, estimator in estimators if is_classifier(self) and y.ndim == 1 else ():
            check_folds(estimator, X, y, folds.pairs, f"The estimator {name!r}", weights)
        covered = np.flatnonzero(folds.covered)
        if weights is not None and not np.any(weights[covered]):
            raise ValueError(
                f"sample_weight is 0 for all {len(covered)} rows that the folds of "
                f"cv={shown_cv(self.cv)} predict; weights of the estimators need at least one."
            )
        if len(covered) < len(y):
            score = objective(
                self.scoring,
                X,
                y[covered],
                rows=covered,
                classes=classes,
                sample_weight=None if weights is None else weights[covered],
            )
        rows = _Rows(X, y, metadata, split.get("groups"), order)
        n_tasks = len(estimators) * (len(folds.pairs) + 1)
        with fit_tasks(self, n_tasks, parallel=True, X=X, y=y, weights=weights):
            predictions = self._predict_out_of_fold(estimators, rows, folds)
            self._weigh({name: each[covered] for name, each in predictions.items()}, score)
            kept = [(name, each) for name, each in estimators if self.weights_[name] > 0]
            first = len(estimators) * len(folds.pairs)
            jobs = [(first + number, *each) for number, each in enumerate(kept)]

            def fit(number, name, estimator):
                return self._fit_member(number, name, estimator, rows, None, "all rows")

            fitted = run_parts(fit, (), jobs, n_jobs=self.n_jobs)
            return self._keep(dict(zip([name for name, _ in kept], fitted, strict=True)))

    def _check_network(self, name, estimator, X, y, metadata):
        """Refuse what a network finds in its parameters, y or weights, before any is trained."""
        last = last_step(estimator)
        if not isinstance(last, NetworkEstimator) or not last._may_be_refused():
            return
        if np.ndim(take_rows(X, slice(0, 1))) < 2:
            return  # texts, which steps before the network make a table of
        branch = KerasFeatureTransformer(clone_part(estimator))
        metadata = {key: metadata[key] for key in ("sample_weight",) if key in metadata}
        with errors_named(f"The estimator {name!r}"), trial_scope():
            branch._prepare(X, y, Metadata(fit=metadata), whole=False, in_stack=True)

    def _check_class_weights(self, y, X=None):
        """Refuse class weights that an estimator cannot use, before any is trained."""
        if isinstance(self.cv, str) or y.ndim == 2 or not is_classifier(self):
            return
        for name, estimator in self._checked():
            check_class_weight(estimator, y, f"The estimator {name!r}", X)

    def _folds(self, X, y, split, weights):
        """The folds, and the splitter if it orders rows in time, else None."""
        listed = listed_folds(self.cv)  # a generator yields its folds once
        cv = self.cv if listed is None else listed
        stratified = hasattr(self, "classes_") and y.ndim == 1
        settings = {"classifier": stratified, "metadata": split, "weights": weights}
        folds = make_folds(cv, X, y, **settings, may_leave_out=True)
        return folds, cv if orders_time(cv, X, y, split) else None

    def _predict_out_of_fold(self, estimators, rows, folds):
        """Predictions of all estimators for the test rows of the folds, by name."""

        def predict(number, name, estimator, fold, train, test):
            label = f"fold {fold + 1} of {len(folds.pairs)}"
            fitted = self._fit_member(number, name, estimator, rows, train, label)
            return self._predicted(name, fitted, take_rows(rows.X, test))

        jobs = [
            (name, estimator, fold, *pair)
            for name, estimator in estimators
            for fold, pair in enumerate(folds.pairs)
        ]
        numbered = [(number, *job) for number, job in enumerate(jobs)]
        results = run_parts(predict, (), numbered, n_jobs=self.n_jobs)
        shape = (len(rows.y), *results[0].shape[1:])
        predictions = {name: np.empty(shape) for name, _ in estimators}
        for (name, _, _, _, test), values in zip(jobs, results, strict=True):
            predictions[name][test] = values
        return predictions

    def _fit_member(self, number, name, estimator, rows, numbers, label):
        """Fit a clone on the rows with these `numbers`, or on all (None), as task `number`."""
        part = rows.for_member(name, numbers)
        with (
            errors_named(f"The estimator {name!r}"),
            fitting(f"{name}, {label}", n_rows(part.X), verbose=self.verbose, task_id=number),
        ):
            cloned = clone_part(estimator)
            context = RowContext(part.groups, part.order, all_rows=numbers is None)
            pass_context(cloned, context, part.X, part.y, only_fit=True)
            with propagating(cloned):
                return cloned.fit(part.X, part.y, **part.metadata)

    def _weigh(self, predictions, score):
        for name, each in predictions.items():
            if not np.isfinite(each).all():
                raise ValueError(f"The estimator {name!r} predicts NaN or infinite values.")
        learned = learned_blend(predictions, score, self.max_iter)
        self.weights_, self.scores_, self.n_iter_ = learned

    def _keep(self, fitted):
        self.named_estimators_ = Bunch(
            **{name: each for name, each in fitted.items() if self.weights_[name] > 0}
        )
        self.estimators_ = list(self.named_estimators_.values())
        return self

    def _routed(self, estimators, X, sample_weight, groups, params):
        """Metadata of the splitter, and of each estimator that is fitted, by name."""
        metadata = given_metadata(X, sample_weight, groups, params)
        trained = self._trained(estimators)
        if routing_enabled():
            if not trained:  # weights are those of the score alone
                metadata.pop("sample_weight", None)
            routed = process_routing(self, "fit", **metadata)
            return routed["splitter"]["split"], {name: routed[name]["fit"] for name, _ in trained}
        refuse_metadata(params, self, "fit")
        weights = {name: metadata[name] for name in ("sample_weight",) if name in metadata}
        for name, estimator in trained:
            if weights and not accepts_fit_parameter(estimator, "sample_weight"):
                raise ValueError(
                    f"sample_weight was passed, but the estimator {name!r}, "
                    f"{described(estimator)}, does not accept it."
                )
        split = {"groups": metadata["groups"]} if "groups" in metadata else {}
        return split, {name: weights for name, _ in trained}

    def _trained(self, estimators):
        """Those of (name, estimator) that are fitted here, and may be passed weights."""
        if isinstance(self.cv, str):
            return []
        return [pair for pair in estimators if not isinstance(pair[1], FrozenEstimator)]

    def _checked(self):
        """(name, estimator) without dropped ones; invalid ones raise an error."""
        entries = self.estimators
        for entry in entries:
            pair = isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], str)
            if not pair:
                raise TypeError(f"estimators holds {entry!r}; expected tuples (name, estimator).")
        self._validate_names([name for name, _ in entries])
        kept = []
        for name, estimator in entries:
            if isinstance(estimator, str) and estimator == "drop":
                continue
            if isinstance(estimator, type) or not hasattr(estimator, "fit"):
                raise TypeError(
                    f"The estimator {name!r} is {described(estimator)}; expected an estimator "
                    "or 'drop'."
                )
            self._check_kind(name, estimator)
            kept.append((name, estimator))
        if not kept:
            raise ValueError(
                f"estimators={entries!r} holds no estimator; expected a list of (name, estimator) "
                "with at least one that is not 'drop'."
            )
        return kept

    def _combined(self, X):
        check_is_fitted(self)
        members = self.named_estimators_.items()
        parts = {name: self._predicted(name, estimator, X) for name, estimator in members}
        return blend(parts, self.weights_)


def _pairs(estimators):
    """(name, estimator) of a list that may be invalid."""
    if not isinstance(estimators, list):
        return []
    return [each for each in estimators if isinstance(each, tuple) and len(each) == 2]


def _has_probabilities(ensemble):
    models = [each for _, each in _pairs(ensemble.estimators) if not isinstance(each, str)]
    return all(offers(each, "predict_proba") for each in models)


@substitute(**DOCS)
class GreedyEnsembleClassifier(ClassifierMixin, _GreedyEnsemble):
    """Convex combination of classifiers, weighted by greedy selection on out-of-fold predictions.

    Each classifier is cross-fitted, so that the weights are learned from probabilities of rows that
    no classifier was fitted on. Starting from an empty set, the selection repeatedly adds the
    classifier with which the mean of all added ones scores best, and keeps the best mean
    (Caruana et al. 2004). With the default ``scoring``, a classifier without which the score is
    worse by less than one standard error, and not worse than that of the best classifier alone, is
    left out. Classifiers of positive weight are then fitted on all rows.

    Parameters
    ----------
    {parameters}

    scoring : str, callable or None, default=None
        Score to maximise, as in :class:`~sklearn.model_selection.GridSearchCV`. None is the
        negative log loss, for several labels its mean.

    {settings}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The class labels; for multilabel targets the indices of the columns.

    {attributes}

    See Also
    --------
    skstack.StackedKerasClassifier : Combines branches and a network that learns from them.
    sklearn.ensemble.VotingClassifier : Combines classifiers with given weights.

    References
    ----------
    {references}

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.dummy import DummyClassifier
    >>> from sklearn.ensemble import HistGradientBoostingClassifier
    >>> from skstack.ensemble import GreedyEnsembleClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> ensemble = GreedyEnsembleClassifier(
    ...     [
    ...         ("prior", DummyClassifier()),
    ...         ("boosting", HistGradientBoostingClassifier(max_iter=20)),
    ...     ]
    ... ).fit(X, y)
    >>> ensemble.weights_["boosting"] > 0.9
    True
    """

    def __sklearn_tags__(self):
        return self._with_tags(super().__sklearn_tags__())

    @available_if(_has_probabilities)
    @on_snapshot
    def predict_proba(self, X):
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of float64 of shape (n_samples, n_classes)
            In [0, 1].
        """
        return self._combined(X)

    @on_snapshot
    def predict(self, X):
        """Predict the most probable classes.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            Labels.
        """
        return classes_of(self._combined(X), self.classes_, several=self._several)

    def _read_target(self, y):
        y, _ = read_labels(self, y)
        self._several = y.ndim == 2
        self.classes_ = np.arange(y.shape[1]) if self._several else np.unique(y)
        return y

    def _check_kind(self, name, estimator):
        if not is_classifier(estimator):
            raise ValueError(
                f"The estimator {name!r}, {described(estimator)}, is not a classifier."
            )
        if not offers(estimator, "predict_proba"):
            raise ValueError(
                f"The estimator {name!r}, {described(estimator)}, has no predict_proba. Use "
                "CalibratedClassifierCV(...) around it."
            )

    def _learn_fitted_classes(self, estimators):
        """Add the classes of fitted estimators, which may know some that y lacks."""
        own, all_classes = self.classes_, [self.classes_]
        for name, estimator in [] if self._several else estimators:
            last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
            if not (isinstance(self.cv, str) or isinstance(last, FrozenEstimator)):
                continue
            known = getattr(estimator, "classes_", None)
            if known is None or isinstance(known, list):
                continue
            known = np.asarray(known)
            if not (np.isin(own, known).all() or np.isin(known, own).all()):
                raise ValueError(
                    f"The estimator {name!r} was fitted with the classes {known.tolist()}, but y "
                    f"holds {own.tolist()}. Pass y with the labels of the fitted estimators."
                )
            all_classes.append(known)
        self.classes_ = np.unique(np.concatenate(all_classes))

    def _predicted(self, name, estimator, X):
        with errors_named(f"The estimator {name!r}"):
            probabilities = estimator.predict_proba(own_rows(X))
            known = getattr(estimator, "classes_", None)
            return probabilities_for(self.classes_, known, probabilities, several=self._several)


@substitute(**DOCS)
class GreedyEnsembleRegressor(RegressorMixin, _GreedyEnsemble):
    """Convex combination of regressors, weighted by greedy selection on out-of-fold predictions.

    As :class:`GreedyEnsembleClassifier`, for predictions of ``predict``.

    Parameters
    ----------
    {parameters}

    scoring : str, callable or None, default=None
        Score to maximise, as in :class:`~sklearn.model_selection.GridSearchCV`. None is the
        negative mean squared error; of several targets the mean, each in units of its variance.

    {settings}

    Attributes
    ----------
    {attributes}

    References
    ----------
    {references}

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.neighbors import KNeighborsRegressor
    >>> from skstack.ensemble import GreedyEnsembleRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> ensemble = GreedyEnsembleRegressor(
    ...     [("linear", Ridge(0.1)), ("neighbours", KNeighborsRegressor(20))]
    ... ).fit(X, y)
    >>> bool(ensemble.scores_["blend"] > max(ensemble.scores_["linear"], -4000))
    True
    """

    def __sklearn_tags__(self):
        return self._with_tags(super().__sklearn_tags__())

    @on_snapshot
    def predict(self, X):
        """Predict targets.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of float64 of shape (n_samples,) or (n_samples, n_outputs)
            Values.
        """
        return self._combined(X)

    def _read_target(self, y):
        y = check_target(y, y_numeric=True, estimator=self)
        y = column_or_1d(y, warn=True) if y.shape[1:] == (1,) else y
        self._target_shape = y.shape[1:]
        return y

    def _check_kind(self, name, estimator):
        if not is_regressor(estimator):
            raise ValueError(f"The estimator {name!r}, {described(estimator)}, is not a regressor.")

    def _learn_fitted_classes(self, estimators):
        """Numbers have no classes."""

    def _predicted(self, name, estimator, X):
        with errors_named(f"The estimator {name!r}"):
            values = np.asarray(estimator.predict(own_rows(X)), dtype=np.float64)
            # Files of earlier versions lack it.
            shape = getattr(self, "_target_shape", values.shape[1:])
            expected = (n_rows(X), *shape)
            if values.shape not in (expected, (*expected, 1)):
                raise ValueError(
                    f"its predictions have the shape {values.shape}; expected {expected}, the "
                    "shape of y."
                )
            return values.reshape(expected)
