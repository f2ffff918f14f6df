"""Stacks of upstream networks and a downstream estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skstack._base.atomic_fit import on_snapshot
from skstack._base.docstrings import substitute
from skstack._base.in_chunks import in_chunks
from skstack._base.params import hint_at_parameters
from skstack._base.progress import errors_named
from skstack._base.sklearn import OUT_IS_NO_METADATA, StrOptions, with_target_tags
from skstack._base.tables import check_target, n_rows, read_labels
from skstack._base.text import described
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
from skstack._stack.base import Stack, label_of
from skstack._stack.blending import would_blend
from skstack._stack.fine_tune import FineTune
from skstack._training.formulas import with_temperature
from skstack.ensemble._greedy import classes_of, probabilities_for
from skstack.networks._heads import in_order_of, probabilities_of


def _gives_probabilities(stack):
    if _is_blend(stack):
        return True
    downstream = _downstream_of(stack)
    # An AttributeError of the downstream says why.
    return probabilities_of(downstream) is not None or bool(downstream.predict_proba)


def _gives_decisions(stack):
    decides = bool(_downstream_of(stack).decision_function)
    if _is_blend(stack):
        raise AttributeError(
            "decision_function needs blend=False: the predictions are blended probabilities."
        )
    return decides


def _is_blend(stack):
    """Whether predictions are blended; of a stack that is not fitted, whether they would be."""
    return stack._blends if hasattr(stack, "_blends") else would_blend(stack)


def _downstream_of(stack):
    downstream = getattr(stack, "downstream_", stack.downstream)
    return stack._network_type() if downstream is None else downstream


# Paragraphs of the docstrings of both stacks.
DOCS = {
    "blend": """
blend : "auto" or bool, default="auto"
    Whether predictions are a convex combination of those of the downstream and of all branches that
    predict the target; see Notes. "auto" does so if there are at least two such parts that estimate
    the same quantity; True raises an error if there are not. False predicts with the downstream
    alone. ``downstream_``, ``transform`` and ``fine_tune_losses_`` always refer to the downstream
    alone.

blend_scoring : str, callable or None, default=None
    Score by which the weights are selected, as in :class:`~sklearn.model_selection.GridSearchCV`.
    None is the log loss or the squared error.

blend_parts : list of str, default=None
    Names of the parts to blend: branches and ``"downstream"``. None means all that predict the
    target and are trained in this fit. A frozen branch takes part only if it is named, and so do
    networks with a :class:`~skstack.losses.TeacherLoss` and those that continue a built
    ``keras.Model``, a saved or a frozen network: nothing shows on which rows these were fitted.
""",
    "n_repeats": """
n_repeats : int, default=1
    How often the cross-fit is repeated, each time with other folds. Features of training rows are
    means over the repeats, with ``refit=False`` those of new rows, too. In [1, inf); more than 1
    requires folds that can be shuffled.
""",
    "blend_": """
blend_weights_ : dict of str to float
    Weight of each part of the prediction: of branches by name, and of ``"downstream"``, which is 1
    if nothing is blended.

blend_scores_ : dict of str to float
    Score of each part, and of their combination, ``"blend"``, on rows that no part was fitted on;
    greater is better. Empty if nothing is blended.

fit_report_ : dict of str to dict
    For each branch, ``"downstream"`` and ``"blend"``: the number of training ``rows``, ``seconds``
    and the ``score`` of predictions of rows that it was not fitted on, or None: that of
    ``blend_scoring`` if parts are blended, else the negative log loss or squared error.
""",
    "epoch_notes": """
Rows are set aside for a downstream network with ``early_stopping=True``, and for another estimator
that stops early and takes ``X_val``. For a network that leaves ``epochs`` and ``early_stopping`` at
"auto", such as the default, none are; it learns from all training rows. Its number of epochs is the
median of those that were best in three fits on parts of them, or with a time-ordered ``cv`` that
of one fit, judged by the last rows.
""",
    "blend_notes": """
The weights of a blend are learned by greedy selection with replacement (Caruana et al., "Ensemble
Selection from Libraries of Models", ICML 2004), on predictions of rows that no part was fitted on;
of equal scores the simpler combination is preferred. Predictions of branches are out-of-fold. The
downstream is fitted again without each fold, on features of models that were fitted without it,
too: for each pair of folds every branch that learns from y is fitted once more. From 500 rows and
five folds on some pairs are enough, five of the ten of five folds: the downstream without a fold is
fitted on the folds that are in a pair with it, which are half of the others. All pairs are used
with ``calibration``, and if fewer than 20 rows of a class or far fewer than half of the rows would
be left. With two folds, or if a branch has folds of its own, the branch is cross-fitted again
without each fold. In a table of more than 4,000 rows only some folds, evenly spread, with at
least 4,000 rows together are predicted in this way (all with ``n_repeats`` above 1); if these are
at most half of the folds, all pairs with one of them are used. With a time-ordered ``cv`` no
further branch is fitted, and rows that no downstream has predicted take no part. With ``fine_tune``
the weights are learned on the rows that fine-tuning sets aside.
""",
    "upstream": """
upstream : network, Pipeline or list of (name, model) or (name, model, columns), default=None
    Each model is an estimator (its predictions become features), a
    :class:`KerasFeatureTransformer`, a built ``keras.Model`` or the path to a saved one (frozen), a
    Pipeline that ends in one of these, or ``"drop"``. Columns as in
    :class:`~sklearn.compose.ColumnTransformer`, but a single name selects a table, too: begin with
    ``make_column_transformer((TfidfVectorizer(), "text"))`` where a step reads a list of texts.
    None means one ``KerasAutoencoder()`` branch.
""",
    "scaler": """
scaler : "standard", transformer or None, default="standard"
    Scales numeric features and columns for the downstream.
""",
    "columns": """
passthrough : bool or columns, default=True
    Which columns of X are appended to the features.

categorical_features : "from_dtype", None or array-like, default="from_dtype"
    Which of the columns that pass through are categorical.

cv : int, splitter or iterable, default=5
    Folds of the cross-fit, for branches that are not a ``KerasFeatureTransformer``, which has a
    ``cv`` of its own, 5 by default. An int keeps groups together if ``groups`` are given. With a
    time-ordered ``cv`` (``TimeSeriesSplit``) every branch, and every part of it, is trained only on
    rows earlier than those it predicts. Nested stacks follow the same order, and replace an int
    ``cv`` of a branch. Early stopping monitors the last rows, and rows that are never predicted are
    dropped from the downstream's training rows. A splitter that shuffles without a seed is copied
    and gets one from ``random_state``.

refit : bool, default=True
    Whether features of new rows come from upstream networks that are trained on all training rows;
    otherwise they are the mean over the networks of the folds. Applies to the same branches as
    ``cv``.

fine_tune : FineTune, default=None
    How to train upstream networks and downstream further as one network, after they were trained
    separately; see :class:`FineTune`. None does not fine-tune.
""",
    "fit": """
n_jobs : int, default=None
    Number of threads that fit the folds of a branch in parallel. Applies to the same branches as
    ``cv``. Inside a search that runs in parallel, folds are fitted one after another; under
    ``joblib.parallel_config("dask")`` or ``"ray"``, by the workers.

random_state : int, RandomState instance or None, default=None
    Seeds every sub-estimator whose ``random_state`` is None.

verbose : int, default=0
    If > 0, print a line for each fit: of every branch by fold and on all rows, of the downstream,
    and of fine-tuning. Lines that sub-estimators print have the same labels.
""",
    "inputs_": """
n_features_in_ : int
    Number of columns of X.

feature_names_in_ : ndarray of shape (n_features_in_,)
    Names of the columns of X. Defined only if X has string names.

upstream_ : list of (name, KerasFeatureTransformer, columns)
    The fitted branches.

named_upstream_ : Bunch
    The fitted branches by name.

scaler_ : transformer or None
    The fitted scaler.
""",
    "downstream_": """
downstream_ : estimator
    The fitted downstream.

fine_tuned_ : bool
    Whether fine-tuning has lowered the loss on the hold-out rows. If not, the stack is as it was
    before fine-tuning.

fine_tune_losses_ : tuple of float or None
    The loss on the hold-out rows before and after fine-tuning.

fine_tune_history_ : dict of str to list of float or None
    For each epoch of fine-tuning ``loss``, ``val_loss`` and ``n_thawed``, the number of trained
    upstream layers.
""",
}


@substitute(**DOCS)
class StackedKerasClassifier(ExportMixin, ClassifierMixin, Stack):
    """A classifier trained on out-of-fold features of upstream networks, without leakage.

    ``fit`` sets rows aside if the downstream stops early, cross-fits the upstream networks on the
    other rows, scales the features, resamples them and trains the downstream; ``predict`` uses
    upstream networks that were trained on all training rows. It is similar to
    ``imblearn.pipeline.make_pipeline(KerasFeatureTransformer(...), StandardScaler(), SMOTE(),
    KerasClassifier(...))``, but the stack also keeps early-stopping rows away from upstream,
    scaler and sampler, supports several branches with columns of their own, and refuses
    combinations that leak.

    Parameters
    ----------
    {upstream}

    downstream : estimator, default=None
        Learns from the features. None means ``KerasClassifier()`` or, if its predictions are
        blended with those of branches, the smaller
        ``KerasClassifier(MLP((128, 128), dropout=0.1))``.

    {scaler}

    sampler : object with ``fit_resample``, default=None
        Applied to the training rows of the downstream only, after the scaler.

    {blend}

    {columns}

    {n_repeats}

    calibration : "temperature" or None, default=None
        How probabilities are calibrated: by a temperature that divides the logits (Guo et al., "On
        Calibration of Modern Neural Networks", ICML 2017), learned on predictions of rows that no
        part was fitted on. It does not change the predicted classes.

    prior_correction : bool, default=False
        Whether to correct ``predict_proba`` from the class frequencies after sampling to those of
        the training rows (Saerens et al., Neural Computation 14, 2002, eq. 4). Exact for random
        under- and over-sampling, approximate for SMOTE, refused for cleaning samplers.

    {fit}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The class labels; for multilabel targets the indices of the columns.

    {inputs_}

    sampler_ : object or None
        The fitted sampler.

    {downstream_}

    {blend_}

    temperature_ : float
        The learned temperature. Defined only with ``calibration``.

    Notes
    -----
    {epoch_notes}

    {blend_notes}

    Classifiers estimate the same quantity if all have ``predict_proba`` and none has class weights,
    priors, a focal loss or a sampler, unless ``prior_correction`` corrects it. A downstream with a
    decision threshold of its own turns a blend off. A blend has no ``decision_function``.

    ``groups`` and ``sample_weight`` are arguments of ``fit``. A search or ``cross_validate`` passes
    them on only with ``sklearn.set_config(enable_metadata_routing=True)``: ``groups`` always,
    ``sample_weight`` to the sub-estimators that request it
    (``KerasClassifier().set_fit_request(sample_weight=True)``).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from skstack import KerasClassifier, StackedKerasClassifier
    >>> from skstack.networks import MLP
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> stack = StackedKerasClassifier(
    ...     upstream=[("risk", KerasClassifier(MLP((32,)), epochs=5))],
    ...     downstream=KerasClassifier(MLP((32,)), epochs=5),
    ...     cv=3,
    ...     random_state=0,
    ... ).fit(X, y)
    >>> stack.get_feature_names_out()[:2].tolist()
    ['risk__proba_1', 'x0']
    >>> stack.score(X, y) > 0.9
    True
    """

    __metadata_request__predict = __metadata_request__predict_proba = OUT_IS_NO_METADATA
    __metadata_request__decision_function = OUT_IS_NO_METADATA
    _network_type = KerasClassifier
    _parameter_constraints = {
        **Stack._parameter_constraints,
        "sampler": "no_validation",
        "calibration": [None, StrOptions({"temperature"})],
        "prior_correction": ["boolean"],
    }

    @hint_at_parameters
    def __init__(
        self,
        upstream: Any = None,
        *,
        downstream: Any = None,
        scaler: Any = "standard",
        sampler: Any = None,
        blend: str | bool = "auto",
        blend_scoring: Any = None,
        blend_parts: Any = None,
        passthrough: Any = True,
        categorical_features: Any = "from_dtype",
        cv: Any = 5,
        refit: bool = True,
        fine_tune: FineTune | None = None,
        n_repeats: int = 1,
        calibration: str | None = None,
        prior_correction: bool = False,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int | bool = 0,
    ) -> None:
        self.upstream = upstream
        self.downstream = downstream
        self.scaler = scaler
        self.sampler = sampler
        self.blend = blend
        self.blend_scoring = blend_scoring
        self.blend_parts = blend_parts
        self.passthrough = passthrough
        self.categorical_features = categorical_features
        self.cv = cv
        self.refit = refit
        self.fine_tune = fine_tune
        self.n_repeats = n_repeats
        self.calibration = calibration
        self.prior_correction = prior_correction
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = with_target_tags(super().__sklearn_tags__(), self._models())
        if self.sampler is not None or self.prior_correction:
            tags.classifier_tags.multi_label = False
        return tags

    @available_if(_gives_probabilities)
    @on_snapshot
    @in_chunks
    def predict_proba(self, X, *, out=None):
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Rows.

        {out}

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In [0, 1].
        """
        check_is_fitted(self)
        if self._blends:
            return self._calibrated(self._blended(X))
        table = self._downstream_table(X)
        return self._calibrated(self._corrected_probabilities(table))

    def _corrected_probabilities(self, table):
        """Probabilities of the downstream, with corrected priors."""
        probabilities = self._probabilities(table)
        if self.prior_correction and self.sampler_ is not None:
            return correct_priors(probabilities, self._prior_ratio)
        return probabilities

    def _probabilities(self, table):
        """Probabilities of the downstream, with a column for each class."""
        with errors_named(label_of(self.downstream_)):
            probabilities = probabilities_of(self.downstream_)(table)
            known = getattr(self.downstream_, "classes_", None)
            if self._several and isinstance(probabilities, list):  # by label, as of trees
                probabilities = probabilities_for(self.classes_, known, probabilities)
            elif self._lacks_classes():
                probabilities = in_order_of(self.classes_, np.asarray(probabilities), known)
        return probabilities

    def _decisions(self, table):
        """Decisions of the downstream, with a column for each class if it lacks one."""
        with errors_named(label_of(self.downstream_)):
            decisions = self.downstream_.decision_function(table)
            if self._lacks_classes():
                decisions = np.asarray(decisions)
                if decisions.ndim == 1:
                    decisions = np.column_stack([-decisions, decisions])
                known = self.downstream_.classes_
                if decisions.shape[1] == len(known):  # and not one for each pair of classes
                    lowest = np.finfo(decisions.dtype).min  # as in `cross_val_predict`
                    decisions = in_order_of(self.classes_, decisions, known, absent=lowest)
        return decisions

    def _lacks_classes(self):
        """Whether only rows without predictions, of a time-ordered cv, have one of the classes."""
        known = getattr(self.downstream_, "classes_", None)
        if self._several or known is None or not np.isin(known, self.classes_).all():
            return False
        return not np.array_equal(known, self.classes_)

    def _calibrated(self, probabilities):
        if self.calibration is None:
            return probabilities
        exclusive = not self._several
        return with_temperature(probabilities, self.temperature_, np, exclusive=exclusive)

    def _downstream_predictions(self, table):
        probabilities = self._corrected_probabilities(table)
        known = getattr(self.downstream_, "classes_", None)
        return probabilities_for(self.classes_, known, probabilities, several=self._several)

    def _branch_predictions(self, columns, table):
        return columns.predictions(table, classes=self.classes_, several=self._several)

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
    def decision_function(self, X, *, out=None):
        """Decision function of the downstream.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Rows.

        {out}

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_classes)
            As the downstream returns it. With a time-ordered ``cv`` it may have seen no row of a
            class: the decision for this class is then the lowest float. With ``prior_correction``
            the corrected log-odds of two classes, or corrected log probabilities up to a constant
            for each row, consistent with :meth:`predict`.
        """
        table = self._downstream_table(X)
        decisions = self._decisions(table)
        if self.prior_correction and self.sampler_ is not None:
            return correct_decisions(decisions, self._probabilities(table), self._prior_ratio)
        return decisions

    @on_snapshot
    @in_chunks
    def predict(self, X, *, out=None, **predict_params):
        """Predict classes.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Rows.

        {out}

        **predict_params : dict
            Passed to ``predict`` of the downstream; with metadata routing enabled, as requested.
            Refused for a blend.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            Labels; of a blend and with ``prior_correction`` those of the largest probability.
        """
        check_is_fitted(self)
        if self._blends and not predict_params:
            return classes_of(self._blended(X), self.classes_, several=self._several)
        if self.prior_correction and self.sampler_ is not None:
            return self.classes_[self.predict_proba(X).argmax(axis=1)]
        return self._predict(X, predict_params)

    # -----------------------------------------------------------------------------------------

    def _read_target(self, y, *, reset):
        y, _ = read_labels(self, y)
        self._several = y.ndim == 2
        if self.prior_correction and self.sampler is not None:
            refuse_labels(y)
        self.classes_ = np.arange(y.shape[1]) if y.ndim == 2 else np.unique(y)
        if len(self.classes_) < 2 and y.ndim == 1:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes in y, but y holds "
                f"only one class: {self.classes_.tolist()!r}."
            )
        return y

    def _validation_target(self, y_val, y):
        if y.ndim > 1:
            return read_labels(self, y_val)[0]
        import pandas as pd

        labels, classes = np.asarray(y_val), self.classes_.tolist()
        if pd.isna(labels).any():  # which may be no truth value, compared with a class
            raise ValueError("Input y contains NaN.")
        unknown = [each for each in dict.fromkeys(labels.ravel().tolist()) if each not in classes]
        if unknown:
            raise ValueError(
                f"y_val holds labels {unknown[:5]} that are not among the classes {classes}."
            )
        return labels.astype(y.dtype)

    def _check_parts(self):
        super()._check_parts()
        check_sampler(self.sampler)
        if self.prior_correction and self.sampler is not None:
            refuse_cleaning(self.sampler)
            if self.downstream is not None and probabilities_of(self.downstream) is None:
                raise ValueError(
                    f"prior_correction=True corrects probabilities, and downstream="
                    f"{described(self.downstream)} has no predict_proba. Use another downstream, "
                    "or prior_correction=False."
                )

    def _resample(self, table, y, weights, seed):
        self.sampler_ = None
        if self.sampler is None:
            return table, y, weights
        resampled = resample(self.sampler, table, y, sample_weight=weights, random_state=seed)
        self.sampler_ = resampled.sampler
        if self.prior_correction:
            self._prior_ratio = prior_ratio(
                y, resampled.y, self.classes_, weights, resampled.sample_weight
            )
        return resampled.X, resampled.y, resampled.sample_weight

    def _graph(self, table, name, prefix):
        from skstack._graph.dispatch import predicted
        from skstack._graph.formulas import Classes

        two = not self._several and len(self.classes_) == 2
        if self._blends:
            tensors = self._graph_of_parts(table, prefix)
            for part, value in tensors.items():
                if isinstance(value, Classes):
                    value = self._graph_corrected(value, f"{name}_priors")
                    tensors[part] = value.second(part) if two else value.all(part)
            classes = Classes(self._graph_blend(tensors, f"{prefix}blend"), single=two)
        else:
            table = self._graph_table(table, prefix)
            classes = predicted(self.downstream_, table, f"{prefix}downstream", prefix)
            classes = self._graph_corrected(classes, f"{name}_priors")
        if self.calibration is None:
            return classes
        exclusive = not (self._several or classes.single)
        return classes.with_temperature(
            self.temperature_, f"{prefix}temperature", exclusive=exclusive
        )

    def _graph_corrected(self, classes, name):
        if self._lacks_classes():
            known = self.downstream_.classes_
            classes = classes.among(self.classes_, known, f"{name}_classes")
        if self.prior_correction and self.sampler_ is not None:
            return classes.corrected(self._prior_ratio, name)
        return classes

    def _graph_outputs(self, table):
        return self._graph(table, "downstream", "").all("probabilities")


@substitute(**DOCS)
class StackedKerasRegressor(ExportMixin, RegressorMixin, Stack):
    """A regressor trained on out-of-fold features of upstream networks, without leakage.

    As :class:`StackedKerasClassifier`, without a sampler.

    Parameters
    ----------
    {upstream}

    downstream : estimator, default=None
        Learns from the features. None means ``KerasRegressor()`` or, if its predictions are
        blended with those of branches, the smaller
        ``KerasRegressor(MLP((128, 128), dropout=0.1))``.

    {scaler}

    {blend}

    {columns}

    {n_repeats}

    {fit}

    Attributes
    ----------
    {inputs_}

    {downstream_}

    {blend_}

    Notes
    -----
    {epoch_notes}

    {blend_notes}

    Regressors estimate the same quantity if the losses of all estimate the mean, as the squared
    error does and the absolute error does not.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skstack import KerasRegressor, StackedKerasRegressor
    >>> from skstack.networks import MLP
    >>> X, y = load_diabetes(return_X_y=True)
    >>> stack = StackedKerasRegressor(
    ...     upstream=KerasRegressor(MLP((32,)), epochs=5),
    ...     downstream=KerasRegressor(MLP((32,)), epochs=5),
    ...     cv=3,
    ...     random_state=0,
    ... ).fit(X, y)
    >>> stack.predict(X[:2]).shape
    (2,)
    """

    __metadata_request__predict = OUT_IS_NO_METADATA
    _network_type = KerasRegressor

    @hint_at_parameters
    def __init__(
        self,
        upstream: Any = None,
        *,
        downstream: Any = None,
        scaler: Any = "standard",
        blend: str | bool = "auto",
        blend_scoring: Any = None,
        blend_parts: Any = None,
        passthrough: Any = True,
        categorical_features: Any = "from_dtype",
        cv: Any = 5,
        refit: bool = True,
        fine_tune: FineTune | None = None,
        n_repeats: int = 1,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int | bool = 0,
    ) -> None:
        self.upstream = upstream
        self.downstream = downstream
        self.scaler = scaler
        self.blend = blend
        self.blend_scoring = blend_scoring
        self.blend_parts = blend_parts
        self.passthrough = passthrough
        self.categorical_features = categorical_features
        self.cv = cv
        self.refit = refit
        self.fine_tune = fine_tune
        self.n_repeats = n_repeats
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        return with_target_tags(super().__sklearn_tags__(), self._models())

    @on_snapshot
    @in_chunks
    def predict(self, X, *, out=None, **predict_params):
        """Predict targets.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Rows.

        {out}

        **predict_params : dict
            Passed to ``predict`` of the downstream, such as ``return_std``; with metadata routing
            enabled, as requested. Refused for a blend.

        Returns
        -------
        ndarray of float64 of shape (n_samples,) or (n_samples, n_outputs)
            Values, or a tuple if the downstream returns one.
        """
        check_is_fitted(self)
        if self._blends and not predict_params:
            return self._blended(X)
        result = self._predict(X, predict_params)
        if isinstance(result, tuple):
            return tuple(map(_in_float64, result))
        return _in_float64(result)

    def _read_target(self, y, *, reset):
        y = check_target(y, y_numeric=True, estimator=self)
        self._several = y.ndim == 2
        return y

    def _validation_target(self, y_val, y):
        return check_target(y_val, y_numeric=True, estimator=self)

    def _downstream_predictions(self, table):
        with errors_named(label_of(self.downstream_)):
            values = np.asarray(self.downstream_.predict(table), dtype=np.float64)
        return values.reshape(n_rows(table), -1) if self._several else values.ravel()

    def _branch_predictions(self, columns, table):
        values = columns.predictions(table)
        return values if self._several else values[:, 0]

    def _graph(self, table, name, prefix):
        from skstack._graph.dispatch import predicted

        if self._blends:
            return self._graph_blend(self._graph_of_parts(table, prefix), f"{prefix}blend")
        table = self._graph_table(table, prefix)
        return predicted(self.downstream_, table, f"{prefix}downstream", prefix)

    def _graph_outputs(self, table):
        return self._graph(table, "downstream", "")


def _in_float64(values):
    """Values of a regressor of others may have the dtype of its table."""
    single = getattr(values, "dtype", None) == "float32"
    return values.astype("float64") if single else values
