"""Networks upstream, an estimator downstream, as one estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skstack._base.atomic_fit import on_snapshot
from skstack._base.in_chunks import in_chunks
from skstack._base.targets import check_target, read_labels
from skstack._estimators.classifier import KerasClassifier
from skstack._estimators.regressor import KerasRegressor
from skstack._estimators.resampling import (
    check_sampler,
    correct_decisions,
    correct_priors,
    prior_ratio,
    refuse_cleaning,
    refuse_labels,
    resample,
)
from skstack._graph.mixin import ExportMixin
from skstack._stack.base import Stack
from skstack._stack.fine_tune import FineTune
from skstack.networks._heads import probabilities_of


def _gives_probabilities(stack):
    downstream = getattr(stack, "downstream_", stack.downstream)
    return downstream is None or probabilities_of(downstream) is not None


def _gives_decisions(stack):
    return hasattr(getattr(stack, "downstream_", stack.downstream), "decision_function")


class StackedKerasClassifier(ExportMixin, ClassifierMixin, Stack):
    """Networks upstream, a classifier downstream, as one estimator without leaks.

    ``fit`` sets early-stopping rows aside, cross-fits the upstream networks on the other ones,
    scales the features, resamples them and trains the downstream; ``predict`` takes upstream
    networks that were trained on all training rows. By hand the same is
    ``imblearn.pipeline.make_pipeline(KerasFeatureTransformer(...), StandardScaler(), SMOTE(),
    KerasClassifier(...))``; the stack also keeps early-stopping rows away from upstream, scaler and
    sampler, has several branches with columns of their own, and refuses what would leak.

    Parameters
    ----------
    upstream : network, Pipeline or list of (name, thing) or (name, thing, columns), default=None
        Each thing is an estimator (its predictions become features), a
        :class:`KerasFeatureTransformer`, a built ``keras.Model`` or the path of a saved one
        (frozen), a Pipeline that ends in one of these, or ``"drop"``. Columns as in
        :class:`~sklearn.compose.ColumnTransformer`. None stands for one
        ``KerasAutoencoder()`` branch.

    downstream : estimator, default=None
        What learns from the features; None stands for ``KerasClassifier()``.

    scaler : "standard", transformer or None, default="standard"
        Stands between upstream and downstream, for numeric columns.

    sampler : object with ``fit_resample``, default=None
        Applied to the training rows of the downstream alone, after the scaler.

    passthrough : bool or columns, default=True
        Which columns of X stand beside the features.

    categorical_features : "from_dtype", None or array-like, default="from_dtype"
        Which columns that pass through are categories.

    cv : int, splitter or iterable, default=5
        Folds of the cross-fit, for branches that are not a ``KerasFeatureTransformer`` with a
        ``cv`` of its own. An int means folds of whole groups where ``groups`` are given. With a
        time-ordered cv (``TimeSeriesSplit``) every branch, and every part inside it, learns from
        earlier rows than those whose features it makes; inner stacks get the same order; an int of
        a branch gives way to it; early stopping watches the last rows; and rows that are never
        predicted are left out of the downstream's training rows.

    refit : bool, default=True
        Whether upstream networks for new rows are trained on all training rows; else they are the
        mean over folds. As with ``cv``.

    fine_tune : FineTune, default=None
        How upstream networks and downstream are trained on as one network, after the stages; see
        :class:`FineTune`. None: they are not.

    prior_correction : bool, default=False
        Whether ``predict_proba`` is brought back from the class shares that the sampler made to
        those of the training rows (Saerens et al., Neural Computation 14, 2002, eq. 4). Exact for
        random under- and over-sampling, approximate for SMOTE, refused for cleaning samplers.

    n_jobs : int, default=None
        Threads that fit the folds of a branch side by side.

    random_state : int, RandomState instance or None, default=None
        Seeds every part that leaves its own seed open.

    verbose : int, default=0
        Above 0: progress of the cross-fit.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels; for multilabel targets the numbers of the columns.

    n_features_in_ : int
        Number of columns of X.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X had string names.

    upstream_ : list of (name, KerasFeatureTransformer, columns)
        The fitted branches.

    named_upstream_ : Bunch
        The same by name.

    scaler_ : transformer or None
        The fitted scaler.

    sampler_ : object or None
        The fitted sampler.

    downstream_ : estimator
        The fitted downstream.

    fine_tuned_ : bool
        Whether fine-tuning has lowered the loss on held-out rows. Else the parts are what they were
        before it.

    fine_tune_losses_ : tuple of float or None
        That loss before and after.

    fine_tune_history_ : dict of str to list of float or None
        For each epoch of fine-tuning ``loss``, ``val_loss`` and ``n_thawed``, the number of
        upstream layers that learned.

    Notes
    -----
    ``groups`` and ``sample_weight`` are arguments of ``fit``. Inside a search or ``cross_validate``
    they arrive only with ``sklearn.set_config(enable_metadata_routing=True)``: ``groups`` without
    further ado, ``sample_weight`` at the parts that request them
    (``KerasClassifier().set_fit_request(sample_weight=True)``).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from skstack import KerasClassifier, StackedKerasClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> stack = StackedKerasClassifier(
    ...     upstream=[("risk", KerasClassifier(epochs=5))],
    ...     downstream=KerasClassifier(epochs=20),
    ...     cv=3,
    ...     random_state=0,
    ... ).fit(X, y)
    >>> stack.get_feature_names_out()[:2].tolist()
    ['risk__proba_1', 'x0']
    >>> stack.score(X, y) > 0.9
    True
    """

    _parameter_constraints = {
        **Stack._parameter_constraints,
        "sampler": "no_validation",
        "prior_correction": ["boolean"],
    }

    def __init__(
        self,
        upstream: Any = None,
        *,
        downstream: Any = None,
        scaler: Any = "standard",
        sampler: Any = None,
        passthrough: Any = True,
        categorical_features: Any = "from_dtype",
        cv: Any = 5,
        refit: bool = True,
        fine_tune: FineTune | None = None,
        prior_correction: bool = False,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int | bool = 0,
    ) -> None:
        self.upstream = upstream
        self.downstream = downstream
        self.scaler = scaler
        self.sampler = sampler
        self.passthrough = passthrough
        self.categorical_features = categorical_features
        self.cv = cv
        self.refit = refit
        self.fine_tune = fine_tune
        self.prior_correction = prior_correction
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    @available_if(_gives_probabilities)
    @on_snapshot
    @in_chunks
    def predict_proba(self, X):
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In [0, 1].
        """
        table = self._downstream_table(X)
        probabilities = probabilities_of(self.downstream_)(table)
        if self.prior_correction and self.sampler_ is not None:
            return correct_priors(probabilities, self._prior_ratio)
        return probabilities

    @available_if(_gives_probabilities)
    def predict_log_proba(self, X):
        """Logarithms of :meth:`predict_proba`.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            At most 0.
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    @available_if(_gives_decisions)
    @on_snapshot
    @in_chunks
    def decision_function(self, X):
        """Decision function of the downstream.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            As the downstream gives it; with ``prior_correction`` the log-odds of two classes, or
            log probabilities up to a constant for each row, that belong to :meth:`predict`.
        """
        table = self._downstream_table(X)
        decisions = self.downstream_.decision_function(table)
        if self.prior_correction and self.sampler_ is not None:
            probabilities = probabilities_of(self.downstream_)(table)
            return correct_decisions(decisions, probabilities, self._prior_ratio)
        return decisions

    @on_snapshot
    @in_chunks
    def predict(self, X, **predict_params):
        """Predict classes with the downstream.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Rows.

        **predict_params : dict
            For the downstream's ``predict``; with metadata routing enabled, what it requests.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            Labels; with ``prior_correction`` those of the corrected probabilities.
        """
        check_is_fitted(self)
        if self.prior_correction and self.sampler_ is not None:
            return self.classes_[self.predict_proba(X).argmax(axis=1)]
        return super().predict(X, **predict_params)

    # -----------------------------------------------------------------------------------------

    def _default_downstream(self):
        return KerasClassifier()

    def _read_target(self, y, *, reset):
        y, _ = read_labels(self, y)
        if self.prior_correction and self.sampler is not None:
            refuse_labels(y)
        self.classes_ = np.arange(y.shape[1]) if y.ndim == 2 else np.unique(y)
        if len(self.classes_) < 2 and y.ndim == 1:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes in y, but y holds "
                f"only one class: {self.classes_.tolist()!r}."
            )
        return y

    def _check_parts(self):
        super()._check_parts()
        check_sampler(self.sampler)
        if self.prior_correction and self.sampler is not None:
            refuse_cleaning(self.sampler)
            if self.downstream is not None and probabilities_of(self.downstream) is None:
                raise ValueError(
                    f"prior_correction=True corrects probabilities, and downstream="
                    f"{self.downstream!r} has no predict_proba. Use another downstream, or "
                    "prior_correction=False."
                )

    def _resample(self, table, y, weights, seed):
        self.sampler_ = None
        if self.sampler is None:
            return table, y, weights
        drawn = resample(self.sampler, table, y, sample_weight=weights, random_state=seed)
        self.sampler_ = drawn.sampler
        if self.prior_correction:
            self._prior_ratio = prior_ratio(y, drawn.y, self.classes_, weights, drawn.sample_weight)
        return drawn.X, drawn.y, drawn.sample_weight

    def _graph(self, table, name, prefix):
        from skstack._graph.dispatch import predicted

        table = self._graph_table(table, prefix)
        classes = predicted(self.downstream_, table, f"{prefix}downstream", prefix)
        if self.prior_correction and self.sampler_ is not None:
            classes = classes.corrected(self._prior_ratio, f"{name}_priors")
        return classes

    def _graph_outputs(self, table):
        return self._graph(table, "downstream", "").all("probabilities")


class StackedKerasRegressor(ExportMixin, RegressorMixin, Stack):
    """Networks upstream, a regressor downstream, as one estimator without leaks.

    As :class:`StackedKerasClassifier`, without a sampler.

    Parameters
    ----------
    upstream : network, Pipeline or list of (name, thing) or (name, thing, columns), default=None
        Each thing is an estimator (its predictions become features), a
        :class:`KerasFeatureTransformer`, a built ``keras.Model`` or the path of a saved one
        (frozen), a Pipeline that ends in one of these, or ``"drop"``. Columns as in
        :class:`~sklearn.compose.ColumnTransformer`. None stands for one
        ``KerasAutoencoder()`` branch.

    downstream : estimator, default=None
        What learns from the features; None stands for ``KerasRegressor()``.

    scaler : "standard", transformer or None, default="standard"
        Stands between upstream and downstream, for numeric columns.

    passthrough : bool or columns, default=True
        Which columns of X stand beside the features.

    categorical_features : "from_dtype", None or array-like, default="from_dtype"
        Which columns that pass through are categories.

    cv : int, splitter or iterable, default=5
        Folds of the cross-fit, for branches that are not a ``KerasFeatureTransformer`` with a
        ``cv`` of its own. An int means folds of whole groups where ``groups`` are given. With a
        time-ordered cv (``TimeSeriesSplit``) every branch, and every part inside it, learns from
        earlier rows than those whose features it makes; inner stacks get the same order; an int of
        a branch gives way to it; early stopping watches the last rows; and rows that are never
        predicted are left out of the downstream's training rows.

    refit : bool, default=True
        Whether upstream networks for new rows are trained on all training rows; else they are the
        mean over folds. As with ``cv``.

    fine_tune : FineTune, default=None
        How upstream networks and downstream are trained on as one network, after the stages; see
        :class:`FineTune`. None: they are not.

    n_jobs : int, default=None
        Threads that fit the folds of a branch side by side.

    random_state : int, RandomState instance or None, default=None
        Seeds every part that leaves its own seed open.

    verbose : int, default=0
        Above 0: progress of the cross-fit.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns of X.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X had string names.

    upstream_ : list of (name, KerasFeatureTransformer, columns)
        The fitted branches.

    named_upstream_ : Bunch
        The same by name.

    scaler_ : transformer or None
        The fitted scaler.

    downstream_ : estimator
        The fitted downstream.

    fine_tuned_ : bool
        Whether fine-tuning has lowered the loss on held-out rows. Else the parts are what they were
        before it.

    fine_tune_losses_ : tuple of float or None
        That loss before and after.

    fine_tune_history_ : dict of str to list of float or None
        For each epoch of fine-tuning ``loss``, ``val_loss`` and ``n_thawed``, the number of
        upstream layers that learned.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skstack import KerasRegressor, StackedKerasRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> stack = StackedKerasRegressor(
    ...     upstream=KerasRegressor(epochs=5),
    ...     downstream=KerasRegressor(epochs=20),
    ...     cv=3,
    ...     random_state=0,
    ... ).fit(X, y)
    >>> stack.predict(X[:2]).shape
    (2,)
    """

    def __init__(
        self,
        upstream: Any = None,
        *,
        downstream: Any = None,
        scaler: Any = "standard",
        passthrough: Any = True,
        categorical_features: Any = "from_dtype",
        cv: Any = 5,
        refit: bool = True,
        fine_tune: FineTune | None = None,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int | bool = 0,
    ) -> None:
        self.upstream = upstream
        self.downstream = downstream
        self.scaler = scaler
        self.passthrough = passthrough
        self.categorical_features = categorical_features
        self.cv = cv
        self.refit = refit
        self.fine_tune = fine_tune
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _default_downstream(self):
        return KerasRegressor()

    def _read_target(self, y, *, reset):
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                "is None."
            )
        return check_target(y, multi_output=True, y_numeric=True, estimator=self)

    def _graph(self, table, name, prefix):
        from skstack._graph.dispatch import predicted

        table = self._graph_table(table, prefix)
        return predicted(self.downstream_, table, f"{prefix}downstream", prefix)

    def _graph_outputs(self, table):
        return self._graph(table, "downstream", "")
