"""A Keras network for classification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.impute import SimpleImputer
from sklearn.utils import compute_class_weight

from skstack._base.atomic_fit import on_snapshot
from skstack._base.docstrings import substitute
from skstack._base.in_chunks import in_chunks
from skstack._base.params import hint_at_parameters
from skstack._base.sklearn import OUT_IS_NO_METADATA, HasMethods, Interval, StrOptions, fit_context
from skstack._base.tables import read_labels, warn_if_one_hot
from skstack._estimators.bags import graphs_of_bags, is_bagged, mean_of_bags, mean_of_graphs
from skstack._estimators.base import DOCS, NetworkEstimator, declaring
from skstack._estimators.resampling import (
    class_counts,
    correct_priors,
    ratio_of_counts,
    refuse_cleaning,
    refuse_labels,
    resample,
)
from skstack._graph.mixin import ExportMixin
from skstack.networks._heads import logits_network
from skstack.networks._recipe import label_smoothing_of


@substitute(**DOCS)
class KerasClassifier(ExportMixin, ClassifierMixin, NetworkEstimator):
    """A Keras network for classification.

    Parameters
    ----------
    model : recipe, keras.Model, FrozenEstimator, str or path, default=None
        The network. A recipe (``MLP(...)``, or a function under ``@recipe``) is built for the
        columns and classes of X and y. An unbuilt ``keras.Model`` is a template with new weights in
        each fit; training of a built one, or of the path to a saved one (``.keras``, ``.h5``),
        continues from its weights. The object itself is never modified. None means ``TabM()``.
        ``FrozenEstimator(fitted)``, from :mod:`sklearn.frozen`, continues from the network of a
        KerasClassifier that was fitted on another table, with its categories, codes and moments
        (new categories count as unseen). Each fold of a cross-fit starts from the same weights,
        with a new optimizer. The number of classes must be equal, and classes that both have must
        have the same index in sorted order.

    {optimizer_parameters}

    loss : str, keras.losses.Loss, callable or "auto", default="auto"
        ``"auto"`` uses the loss that a ``keras.Model`` was compiled with, else cross-entropy. A
        name, class, function or object of Keras receives labels in the form that it expects;
        ``from_logits=True`` is treated as False, because the network outputs probabilities. A
        custom function or class receives 0 and 1 of shape (n_rows, 1) for two classes, of shape
        (n_rows, n_labels) for multilabel targets, and class indices of shape (n_rows,), or one-hot
        rows if it does not accept indices, for several classes. With losses that need one unit per
        class, such as ``"categorical_crossentropy"``, a recipe's network has two units for two
        classes. :class:`~skstack.losses.TeacherLoss` adds a frozen teacher.

    metrics : list, default=None
        As in ``keras.Model.compile``; each receives labels in the form that it expects. Recorded in
        ``history_``. None uses those that a ``keras.Model`` was compiled with.

    {epoch_parameters}

    {metric_parameter}

    callbacks : list of keras.callbacks.Callback, default=None
        Copied for each fit. Their ``model`` is the network of ``model_``.

    {column_parameters}

    {bag_parameters}

    {run_parameters}

    class_weight : dict, "balanced" or None, default=None
        Weights by class label, multiplied by the sample weights. With ``"balanced"`` all classes
        have the same total weight, ``sample_weight`` included.

    sampler : object with ``fit_resample``, default=None
        Applied to the training rows only, after their numeric columns are standardised.

    prior_correction : bool, default=False
        Whether to correct ``predict_proba`` from the class frequencies after sampling to those of
        the training rows. Exact for samplers that keep the distribution within each class (random
        under- and over-sampling), approximate for SMOTE, refused for cleaning samplers.
        ``predict`` then rarely returns a rare class: tune its threshold with
        :class:`~sklearn.model_selection.TunedThresholdClassifierCV`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The class labels; for multilabel targets the indices of the columns.

    {input_attributes}

    model_ : keras.Model
        A copy of the trained network. If it has categorical inputs, its name holds a hash of the
        categories, so that an estimator with other codes refuses it.

    {history_attributes}

    {bag_attributes}

    Notes
    -----
    Losses are weighted means: a weight of 2 is equivalent to repeating the row. The prior
    correction is eq. 4 of Saerens, Latinne & Decaestecker, "Adjusting the outputs of a classifier
    to new a priori probabilities", Neural Computation 14 (2002).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skstack import KerasClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = KerasClassifier(epochs=5, learning_rate=0.01, random_state=0).fit(X, y)
    >>> classifier.predict_proba(X[:2]).shape
    (2, 3)
    >>> classifier.score(X, y) > 0.9
    True
    """

    __metadata_request__predict = __metadata_request__predict_proba = OUT_IS_NO_METADATA
    _parameter_constraints = {
        **NetworkEstimator._parameter_constraints,
        "n_bags": [Interval(Integral, 1, None, closed="left")],
        "class_weight": [None, dict, StrOptions({"balanced"})],
        "sampler": [None, HasMethods(["fit_resample"])],
        "prior_correction": ["boolean"],
    }

    @hint_at_parameters
    def __init__(
        self,
        model: Any = None,
        *,
        optimizer: Any = "auto",
        learning_rate: Any = "auto",
        clipnorm: float | None = None,
        loss: Any = "auto",
        metrics: Sequence[Any] | None = None,
        epochs: int | str = "auto",
        batch_size: int | str = "auto",
        early_stopping: bool | str = "auto",
        validation_fraction: float = 0.15,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        early_stopping_metric: str = "loss",
        callbacks: Any = None,
        categorical_features: Any = "from_dtype",
        inputs: Any = None,
        input_shape: Any = None,
        n_hash_buckets: int | None = None,
        imputer: SimpleImputer | None = None,
        n_bags: int = 1,
        warm_start: bool = False,
        engine: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int | bool = 0,
        class_weight: dict | str | None = None,
        sampler: Any = None,
        prior_correction: bool = False,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.clipnorm = clipnorm
        self.loss = loss
        self.metrics = metrics
        self.epochs = epochs
        self.batch_size = batch_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.early_stopping_metric = early_stopping_metric
        self.callbacks = callbacks
        self.categorical_features = categorical_features
        self.inputs = inputs
        self.input_shape = input_shape
        self.n_hash_buckets = n_hash_buckets
        self.imputer = imputer
        self.n_bags = n_bags
        self.warm_start = warm_start
        self.engine = engine
        self.random_state = random_state
        self.verbose = verbose
        self.class_weight = class_weight
        self.sampler = sampler
        self.prior_correction = prior_correction

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = (
            self.sampler is None and self.class_weight is None and not self.prior_correction
        )
        return tags

    @fit_context(prefer_skip_nested_validation=True)
    @hint_at_parameters
    @warn_if_one_hot
    @substitute(**DOCS)
    def fit(self, X, y, sample_weight=None, *, groups=None, X_val=None, y_val=None):
        """Train the network.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Training rows.

        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Labels of any type, or a multilabel indicator.

        {row_parameters}

        Returns
        -------
        self : KerasClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            If data or parameters are invalid; the message names them.

        Notes
        -----
        {interrupts}
        """
        with declaring(self, None):
            return self._train(
                X, y, sample_weight, X_val, y_val, groups=groups, resume=self.warm_start
            )

    @fit_context(prefer_skip_nested_validation=True)
    @hint_at_parameters
    @warn_if_one_hot
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train for one more epoch.

        Categories and moments of columns are those of the first call.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.

        y : array-like of shape (n_samples,)
            Labels.

        classes : array-like of shape (n_classes,), default=None
            All classes; required in the first call if y lacks some of them.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative. A row of weight w counts as w rows, one of weight 0 is ignored.

        Returns
        -------
        self : KerasClassifier
            The fitted estimator.
        """
        declared = getattr(self, "_declared_classes", None)
        if classes is not None:
            if hasattr(self, "classes_") and not np.array_equal(np.unique(classes), self.classes_):
                raise ValueError(
                    f"classes={list(classes)!r} are not those of the first call to partial_fit: "
                    f"{self.classes_.tolist()!r}."
                )
            declared = np.unique(classes)
        with declaring(self, declared):
            return self._train(X, y, sample_weight, resume=True, epochs=1, watch=False)

    @on_snapshot
    @in_chunks
    def predict_proba(self, X, *, out=None):
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        {out}

        Returns
        -------
        ndarray of float32 of shape (n_samples, n_classes)
            In [0, 1]; rows sum to 1, except for multilabel targets, whose labels have
            independent probabilities.
        """
        if is_bagged(self):
            return mean_of_bags(self, "predict_proba", X)
        outputs = self._outputs(X)
        outputs = outputs.reshape(len(outputs), -1)
        if self._target_type != "multilabel-indicator" and outputs.shape[1] == 1:
            outputs = np.hstack([1 - outputs, outputs])
        if self.prior_correction and hasattr(self, "prior_ratio_"):
            outputs = correct_priors(outputs, self.prior_ratio_)
        return outputs

    def predict_log_proba(self, X):
        """Logarithms of :meth:`predict_proba`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of float32 of shape (n_samples, n_classes)
            At most 0; -inf where a probability is 0 in float32.
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    @on_snapshot
    @in_chunks
    def predict(self, X, *, out=None):
        """The most probable class; for multilabel targets each label above one half.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        {out}

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            Labels.
        """
        probabilities = self.predict_proba(X)
        if self._target_type == "multilabel-indicator":
            return (probabilities > 0.5).astype(int)
        return self.classes_[probabilities.argmax(axis=1)]

    # -----------------------------------------------------------------------------------------

    def _logits(self, X):
        """Log-odds of the second class, or of each label; None without a final sigmoid."""
        network = self._logits_network()
        if network is None:
            return None
        values = network.outputs(self._inputs(X))[0]
        return values.reshape(len(values), -1) + self._prior_shift()

    def _logits_network(self):
        """The network without its last sigmoid, for two classes and for multilabel targets."""
        if is_bagged(self) or self._network_task == "multiclass":
            return None
        return logits_network(self.network_)

    def _prior_shift(self):
        """Shift of the log-odds of the second class by the prior correction."""
        if not (self.prior_correction and hasattr(self, "prior_ratio_")):
            return np.float32(0)
        with np.errstate(divide="ignore"):
            first, second = np.log(self.prior_ratio_)
        return np.float32(second - first)

    def _reads_indicator(self):
        return not hasattr(self, "network_")

    def _read_target(self, y, *, shared, reset):
        self._check_names_of_targets(y, reset=reset)
        y, kind = read_labels(self, y)
        if reset:
            self._target_type = kind
            if shared is not None:
                self.classes_ = shared.classes
            elif kind == "multilabel-indicator":
                self.classes_ = np.arange(y.shape[1])
            elif getattr(self, "_declared_classes", None) is not None:
                self.classes_ = self._declared_classes
            else:
                self.classes_ = np.unique(y)
            if len(self.classes_) > 2 and kind == "binary":
                self._target_type = "multiclass"
            if len(self.classes_) < 2 and self._target_type != "multilabel-indicator":
                raise ValueError(
                    f"{type(self).__name__} needs samples of at least 2 classes in y, but y holds "
                    f"only one class: {self.classes_.tolist()!r}."
                )
        if self._target_type == "multilabel-indicator":
            if y.ndim != 2 or y.shape[1] != len(self.classes_):
                raise ValueError(
                    f"y has shape {y.shape}, but the estimator was fitted with "
                    f"{len(self.classes_)} labels: expected a multilabel indicator of shape "
                    f"(n_samples, {len(self.classes_)})."
                )
        elif y.ndim == 2:
            raise ValueError(
                f"y has shape {y.shape}, a multilabel indicator, but the estimator was fitted with "
                f"one class per row, among {self.classes_.tolist()!r}. If y is one-hot encoded, "
                "pass labels: y.argmax(axis=1)."
            )
        elif not np.isin(y, self.classes_).all():
            unknown = np.setdiff1d(y, self.classes_)[:5].tolist()
            raise ValueError(
                f"y holds labels {unknown!r} that are not among the classes "
                f"{self.classes_.tolist()!r}."
            )
        return y

    def _refuse_too_few_rows(self, X, y, weights, shared=None):
        super()._refuse_too_few_rows(X, y, weights)
        if weights is None or y.ndim == 2 or shared is not None:
            return
        remaining = np.unique(y[weights > 0])
        declared = getattr(self, "_declared_classes", None) is not None
        if len(remaining) < 2 and len(np.unique(y)) > 1 and not declared:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes, but without samples "
                f"of zero weight only one class remains: {remaining.tolist()!r}."
            )

    def _task(self):
        if self._target_type == "multilabel-indicator":
            return "multilabel", len(self.classes_)
        return ("binary" if len(self.classes_) == 2 else "multiclass"), len(self.classes_)

    def _resample(self, inputs, y, weights, seed, resume):
        for name in ("sampler_", "prior_ratio_"):  # of an earlier fit
            vars(self).pop(name, None)
        earlier = vars(self).pop("_sampled_counts", None)
        before = y, weights
        if self.sampler is not None:
            inputs, y, weights = self._apply_sampler(inputs, y, weights, seed)
        if y.ndim == 1 and (self.sampler is not None or (resume and earlier is not None)):
            self._count_classes(before, (y, weights), earlier if resume else None)
        self._weight_of_class = self._class_weights(y, weights, self.classes_)
        return inputs, y, weights

    def _apply_sampler(self, inputs, y, weights, seed):
        """Training rows after the sampler."""
        if self.prior_correction:
            refuse_cleaning(self.sampler)
            refuse_labels(y)
        standardized = dict(inputs)
        for name, (mean, scale) in self.moments_.items():
            standardized[name] = ((inputs[name] - mean) / scale).astype(np.float32)
        resampled = resample(
            self.sampler,
            self.blocks_.table(standardized, for_sampler=True),
            y,
            sample_weight=weights,
            random_state=seed,
        )
        self.sampler_ = resampled.sampler
        standardized = self.blocks_.split_again(resampled.X)
        for name, (mean, scale) in self.moments_.items():
            standardized[name] = (standardized[name] * scale + mean).astype(np.float32)
        return standardized, resampled.y, resampled.sample_weight

    def _count_classes(self, before, after, earlier):
        """Learn the ratio of priors from all rows that this network was trained on."""
        counts = [class_counts(y, self.classes_, weights) for y, weights in (before, after)]
        if earlier is not None:
            counts = [new + old for new, old in zip(counts, earlier, strict=True)]
        self._sampled_counts = tuple(counts)
        self.prior_ratio_ = ratio_of_counts(*counts, self.classes_)

    def _class_weights(self, y, weights, classes):
        """Weights in the order of ``classes``, or None; "balanced" counts weighted rows."""
        if self.class_weight is None:
            return None
        if y.ndim == 2:
            raise ValueError("class_weight is not supported for multilabel targets.")
        if isinstance(self.class_weight, dict):
            self._check_class_weight()
            class_weights = compute_class_weight(self.class_weight, classes=classes, y=classes)
            if not class_weights.any():
                raise ValueError(f"class_weight={self.class_weight} gives weight 0 to every class.")
            return class_weights
        present = np.unique(y)
        class_weights = np.ones(len(classes))
        class_weights[np.searchsorted(classes, present)] = compute_class_weight(
            "balanced", classes=present, y=y, sample_weight=weights
        )
        return class_weights

    def _check_class_weight(self):
        wrong = {
            label: weight
            for label, weight in self.class_weight.items()
            if not isinstance(weight, Real) or not 0 <= weight < np.inf
        }
        if wrong:
            raise ValueError(f"class_weight holds {wrong}; expected finite, non-negative numbers.")

    def _column_weights(self, y, weights):
        return self._weighted_by(self._class_weights(y, weights, self.classes_), y, weights)

    def _bin_targets(self, y, weights):
        if y.ndim == 2:  # several labels
            return y.astype(np.float64), False
        return np.searchsorted(self.classes_, y), True

    def _row_weights(self, y, weights):
        return self._weighted_by(self._weight_of_class, y, weights)

    def _weighted_by(self, class_weights, y, weights):
        if class_weights is None:
            return weights
        by_class = class_weights[np.searchsorted(self.classes_, y)]
        return by_class if weights is None else by_class * weights

    def _network_to_train(self, seed, resume, inputs=None, weights=None):
        blueprint, start = super()._network_to_train(seed, resume, inputs, weights)
        self._one_hot = self._objective(blueprint).form == "one-hot"
        return blueprint, start

    def _targets(self, inputs, y):
        if y.ndim == 2:
            return y.astype(np.float32)
        codes = np.searchsorted(self.classes_, y).astype(np.int32)
        if self._network_task == "binary":
            return codes[:, None].astype(np.float32)
        if self._one_hot:
            return np.eye(len(self.classes_), dtype=np.float32)[codes]
        return codes

    def _objective(self, blueprint):
        objective = super()._objective(blueprint)
        return objective.with_soft_labels() if label_smoothing_of(blueprint) else objective

    def _smoothed(self, table, smoothing, objective):
        if not smoothing:
            return table
        return replace(table, targets=objective.smoothed(table.targets, smoothing))

    def _metrics(self, blueprint, objective):
        metrics, public_metrics = super()._metrics(blueprint, objective)
        if label_smoothing_of(blueprint):
            from skstack._training.objective import MetricOfLabels

            metrics = tuple(MetricOfLabels(metric, objective.form) for metric in metrics)
        return metrics, public_metrics

    def _default_loss(self):
        if self._network_task == "multiclass":
            return "sparse_categorical_crossentropy"
        return "binary_crossentropy"

    def _graph(self, table, name, prefix):
        if is_bagged(self):
            graphs = graphs_of_bags(self, name, lambda bag, label: bag._graph(table, label, prefix))
            return mean_of_graphs(graphs, name)
        return self._graph_classes(self._network_graph(table, name)[1][0], name)

    def _graph_outputs(self, table):
        return self._graph(table, "network", "").all("probabilities")

    def _graph_classes(self, outputs, name):
        """Probabilities from the output of the network."""
        from skstack._graph.formulas import Classes, as_columns

        p = as_columns(outputs, "flatten", name)
        single = p.shape[1] == 1 and self._target_type != "multilabel-indicator"
        classes = Classes(p, single)
        if self.prior_correction and hasattr(self, "prior_ratio_"):
            classes = classes.corrected(self.prior_ratio_, f"{name}_priors")
        return classes
