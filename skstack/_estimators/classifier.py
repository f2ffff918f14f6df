"""A Keras network that learns classes."""

from __future__ import annotations

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils import compute_class_weight

from skstack._base.atomic_fit import on_snapshot
from skstack._base.in_chunks import in_chunks
from skstack._base.sklearn import HasMethods, StrOptions, fit_context
from skstack._base.targets import read_labels, warn_if_one_hot
from skstack._estimators.base import NetworkEstimator
from skstack._estimators.resampling import (
    correct_priors,
    prior_ratio,
    refuse_cleaning,
    refuse_labels,
    resample,
)
from skstack._graph.mixin import ExportMixin
from skstack.networks._heads import logits_network
from skstack.networks._mlp import MLP


class KerasClassifier(ExportMixin, ClassifierMixin, NetworkEstimator):
    """A Keras network that learns classes.

    Parameters
    ----------
    model : recipe, keras.Model, FrozenEstimator, str or path, default=None
        The network. A recipe (``MLP(...)``, or a function under ``@recipe``) is built for the
        columns and classes at hand. An unbuilt ``keras.Model`` is a template with new weights in
        each fit, a built one, or the path of a saved one (``.keras``, ``.h5``), is continued from
        its weights; the object itself is never trained or changed. None stands for ``MLP()``.
        ``FrozenEstimator(fitted)``, from :mod:`sklearn.frozen`, goes on from the network of a
        KerasClassifier that was fitted on another table, with the categories, codes and moments
        that it has learned there (new categories count as unseen). Each fold of a cross-fit starts
        from the same weights, with a new optimizer. Its classes must be as many, and those that
        both know must have the same place in sorted order.

    optimizer : str, keras.optimizers.Optimizer or "auto", default="adam"
        ``"auto"`` is the one that a ``keras.Model`` was compiled with.

    learning_rate : float, LearningRateSchedule or "auto", default="auto"
        In (0, inf). ``"auto"`` is the optimizer's own.

    loss : str, keras.losses.Loss, callable or "auto", default="auto"
        ``"auto"`` is what a ``keras.Model`` was compiled with, else cross-entropy. A name, a class,
        a function or an object of Keras; each gets the labels in the form that it takes, and
        ``from_logits=True`` is read as False, for the network gives probabilities. A function or
        class of your own gets 0 and 1 of shape (n_rows, 1) for two classes, of shape (n_rows,
        n_labels) for several labels, and numbers of classes of shape (n_rows,), or one-hot rows
        where it takes no such numbers. Losses that need a unit for each class, such as
        ``"categorical_crossentropy"``, give a recipe's network two units for two classes.
        :class:`~skstack.losses.TeacherLoss` lets a frozen network take part.

    metrics : list, default=None
        As in ``keras.Model.compile``, each with labels in the form that it takes; they stand in
        ``history_``. None: those that a ``keras.Model`` was compiled with.

    epochs : int, default=100
        Passes over the training rows, at most.

    batch_size : int, default=32
        Rows in a step.

    early_stopping : bool or "auto", default="auto"
        Whether to watch the loss on rows set aside, stop when it no longer falls and bring back the
        best weights. ``"auto"`` is on above 10,000 rows, and where ``X_val`` is passed.

    validation_fraction : float, default=0.1
        Share of the rows, stratified, that is set aside before anything is learned. In (0, 1).

    n_iter_no_change : int, default=10
        Epochs without improvement after which training stops.

    tol : float, default=1e-4
        The least improvement of the loss that counts.

    callbacks : list of keras.callbacks.Callback, default=None
        Copied for each fit. The model that they see and save is that of ``model_``.

    categorical_features : "from_dtype", None or array-like, default="from_dtype"
        Which columns are categories: by dtype (``category``, strings and bool columns of a
        DataFrame, and columns of objects that are not all numbers), none, or given by names,
        positions or a mask.

    inputs : None, "prefix", dict or list, default=None
        Which columns make up an input of their own, for networks with several inputs: a dict of
        input name to columns (as in :class:`~sklearn.compose.ColumnTransformer`), a list of columns
        in the order of the model's inputs, or ``"prefix"``: columns that begin alike, up to ``__``,
        as the branches of a stack do. The other numeric columns are the input ``numeric``; every
        categorical column, and every column that holds arrays, is an input by itself.

    input_shape : tuple of int or dict of str to tuple, default=None
        Shape in which the network takes one row, such as ``(28, 28, 1)`` for 784 columns; a dict
        says it by input.

    n_hash_buckets : int, default=None
        Categorical columns with more categories than this are hashed into so many buckets, in
        [1, 2**31 - 3].

    imputer : SimpleImputer, default=None
        Fills missing numbers with what it learns from the training rows; with
        ``add_indicator=True`` columns that tell where follow. None: a missing number is an error.

    warm_start : bool, default=False
        Whether ``fit`` goes on from the weights of the last fit.

    engine : {"auto", "keras"}, default="auto"
        ``"auto"`` trains whole epochs in one compiled program, which all clones, folds and
        candidates of the same network share, and falls back on ``Model.fit`` where that cannot be
        (callbacks that watch batches, a ``test_step`` of its own, what TensorFlow cannot trace);
        ``"keras"`` always uses ``Model.fit``.

    random_state : int, RandomState instance or None, default=None
        Seeds initial weights, order of rows, dropout and hold-out.

    verbose : int, default=0
        Above 0: a line for each epoch.

    class_weight : dict, "balanced" or None, default=None
        Weights of classes, by label, which multiply those of rows. ``"balanced"``: classes weigh
        the same in sum, rows counted by ``sample_weight``.

    sampler : object with ``fit_resample``, default=None
        Applied to training rows alone, after their numeric columns are standardised.

    prior_correction : bool, default=False
        Whether ``predict_proba`` is brought back from the class shares that the sampler made to
        those of the training rows. Exact for samplers that keep the classes' own distributions
        (random under- and over-sampling), approximate for SMOTE, refused for cleaning samplers.
        ``predict`` then seldom names a rare class: tune its threshold with
        :class:`~sklearn.model_selection.TunedThresholdClassifierCV`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels; for multilabel targets the numbers of the columns.

    n_features_in_ : int
        Number of columns of X.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X had string names.

    input_profile_ : ColumnProfile
        Range and moments of the numeric columns of the training rows; see
        :class:`~skstack.inspection.ColumnProfile`.

    model_ : keras.Model
        The trained network, a copy. Where it has categories, its name tells which: given to an
        estimator, it is refused for others, whose codes would mean something else to it.

    n_iter_ : int
        Epochs run in the last fit.

    loss_curve_ : list of float
        Training loss of each epoch.

    validation_scores_ : list of float or None
        Minus the loss on the rows set aside, for each epoch.

    history_ : dict of str to list of float
        All that was recorded for each epoch.

    Notes
    -----
    Losses average over sample weights: weighting a row by 2 is repeating it. The prior correction
    is eq. 4 of Saerens, Latinne & Decaestecker, "Adjusting the outputs of a classifier to new a
    priori probabilities", Neural Computation 14 (2002).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skstack import KerasClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> classifier = KerasClassifier(epochs=50, learning_rate=0.01, random_state=0).fit(X, y)
    >>> classifier.predict_proba(X[:2]).shape
    (2, 3)
    >>> classifier.score(X, y) > 0.9
    True
    """

    _parameter_constraints = {
        **NetworkEstimator._parameter_constraints,
        "class_weight": [None, dict, StrOptions({"balanced"})],
        "sampler": [None, HasMethods(["fit_resample"])],
        "prior_correction": ["boolean"],
    }

    def __init__(
        self,
        model=None,
        *,
        optimizer="adam",
        learning_rate="auto",
        loss="auto",
        metrics=None,
        epochs=100,
        batch_size=32,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-4,
        callbacks=None,
        categorical_features="from_dtype",
        inputs=None,
        input_shape=None,
        n_hash_buckets=None,
        imputer=None,
        warm_start=False,
        engine="auto",
        random_state=None,
        verbose=0,
        class_weight=None,
        sampler=None,
        prior_correction=False,
    ):
        self.model = model
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.loss = loss
        self.metrics = metrics
        self.epochs = epochs
        self.batch_size = batch_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.callbacks = callbacks
        self.categorical_features = categorical_features
        self.inputs = inputs
        self.input_shape = input_shape
        self.n_hash_buckets = n_hash_buckets
        self.imputer = imputer
        self.warm_start = warm_start
        self.engine = engine
        self.random_state = random_state
        self.verbose = verbose
        self.class_weight = class_weight
        self.sampler = sampler
        self.prior_correction = prior_correction

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    @fit_context(prefer_skip_nested_validation=True)
    @warn_if_one_hot
    def fit(self, X, y, sample_weight=None, *, groups=None, X_val=None, y_val=None):
        """Train the network.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Training rows.

        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Labels of any type, or a multilabel indicator.

        sample_weight : array-like of shape (n_samples,), default=None
            Not negative. A row of weight w counts as w rows, one of weight 0 as none.

        groups : array-like of shape (n_samples,), default=None
            Early stopping holds out whole groups.

        X_val, y_val : array-like, default=None
            Rows that early stopping watches, in place of a share of X. Nothing is learned from
            them.

        Returns
        -------
        self : KerasClassifier
            The fitted estimator.

        Raises
        ------
        ValueError
            For data or parameters that cannot be learned from; the message names them.
        """
        vars(self).pop("_classes_to_come", None)  # those of an earlier partial_fit
        return self._train(X, y, sample_weight, X_val, y_val, groups=groups, resume=self.warm_start)

    @fit_context(prefer_skip_nested_validation=True)
    @warn_if_one_hot
    def partial_fit(self, X, y, classes=None, sample_weight=None):
        """Train for one epoch more.

        Categories and moments of columns are those of the first call.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.

        y : array-like of shape (n_samples,)
            Labels.

        classes : array-like of shape (n_classes,), default=None
            All labels that may ever come; needed in the first call where y lacks some.

        sample_weight : array-like of shape (n_samples,), default=None
            Not negative. A row of weight w counts as w rows, one of weight 0 as none.

        Returns
        -------
        self : KerasClassifier
            The fitted estimator.
        """
        if classes is not None:
            if hasattr(self, "classes_") and not np.array_equal(np.unique(classes), self.classes_):
                raise ValueError(
                    f"classes={list(classes)!r} are not those of the first call to partial_fit: "
                    f"{self.classes_.tolist()!r}."
                )
            self._classes_to_come = np.unique(classes)
        return self._train(X, y, sample_weight, resume=True, epochs=1, watch=False)

    @on_snapshot
    @in_chunks
    def predict_proba(self, X):
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of float32 of shape (n_samples, n_classes)
            In [0, 1]; rows sum to 1, except for multilabel targets, where each label has a
            probability of its own.
        """
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
    def predict(self, X):
        """The most probable class; for multilabel targets each label above one half.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

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
        """Log-odds of the second class, or of each label; None where no sigmoid is at the end."""
        network = self._logits_network()
        if network is None:
            return None
        values = network.outputs(self._inputs(X))[0]
        return values.reshape(len(values), -1) + self._prior_shift()

    def _logits_network(self):
        """The network without its last sigmoid, where that is for two classes or for labels."""
        if self._network_task == "multiclass":
            return None
        return logits_network(self.network_)

    def _prior_shift(self):
        """What the correction of priors adds to the log-odds of the second of two classes."""
        if not (self.prior_correction and hasattr(self, "prior_ratio_")):
            return np.float32(0)
        with np.errstate(divide="ignore"):
            first, second = np.log(self.prior_ratio_)
        return np.float32(second - first)

    def _default_recipe(self):
        return MLP()

    def _reads_indicator(self):
        return not hasattr(self, "network_")

    def _read_target(self, y, *, frame, reset):
        y, kind = read_labels(self, y)
        if reset:
            self._target_type = kind
            if frame is not None:
                self.classes_ = frame.classes
            elif kind == "multilabel-indicator":
                self.classes_ = np.arange(y.shape[1])
            elif getattr(self, "_classes_to_come", None) is not None:
                self.classes_ = self._classes_to_come
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
                    f"y has shape {y.shape}; fitted were rows of {len(self.classes_)} labels, 0 or "
                    f"1 each: accepted is shape (n_samples, {len(self.classes_)})."
                )
        elif y.ndim == 2:
            raise ValueError(
                f"y has shape {y.shape}, an indicator of several labels for each row; fitted was "
                f"one label for each row, among {self.classes_.tolist()!r}. Where each row has one "
                "1, pass labels: y.argmax(axis=1)."
            )
        elif not np.isin(y, self.classes_).all():
            unknown = np.setdiff1d(y, self.classes_)[:5].tolist()
            raise ValueError(
                f"y holds labels {unknown!r} that are not among the classes "
                f"{self.classes_.tolist()!r}."
            )
        return y

    def _refuse_too_few_rows(self, X, y, weights):
        super()._refuse_too_few_rows(X, y, weights)
        if weights is None or y.ndim == 2:
            return
        left = np.unique(y[weights > 0])
        to_come = getattr(self, "_classes_to_come", None) is not None
        if len(left) < 2 and len(np.unique(y)) > 1 and not to_come:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes, but once samples of "
                f"zero weight are taken out only one class is left: {left.tolist()!r}."
            )

    def _task(self):
        if self._target_type == "multilabel-indicator":
            return "multilabel", len(self.classes_)
        return ("binary" if len(self.classes_) == 2 else "multiclass"), len(self.classes_)

    def _resample(self, inputs, y, weights, seed):
        if self.sampler is not None:
            inputs, y, weights = self._drawn(inputs, y, weights, seed)
        self._weight_of_class = self._class_weights(y, weights)
        return inputs, y, weights

    def _drawn(self, inputs, y, weights, seed):
        """Training rows after the sampler."""
        if self.prior_correction:
            refuse_cleaning(self.sampler)
            refuse_labels(y)
        standard = dict(inputs)
        for name, (mean, scale) in self.moments_.items():
            standard[name] = ((inputs[name] - mean) / scale).astype(np.float32)
        drawn = resample(
            self.sampler,
            self.blocks_.table(standard, for_sampler=True),
            y,
            sample_weight=weights,
            random_state=seed,
        )
        self.sampler_ = drawn.sampler
        if y.ndim == 1:
            ratio = prior_ratio(y, drawn.y, self.classes_, weights, drawn.sample_weight)
            self.prior_ratio_ = ratio
        standard = self.blocks_.split_again(drawn.X)
        for name, (mean, scale) in self.moments_.items():
            standard[name] = (standard[name] * scale + mean).astype(np.float32)
        return standard, drawn.y, drawn.sample_weight

    def _class_weights(self, y, weights):
        """Weights in the order of ``classes_``, or None; "balanced" counts weighted rows."""
        if self.class_weight is None:
            return None
        if y.ndim == 2:
            raise ValueError("class_weight is for one label per row; y is a multilabel indicator.")
        if isinstance(self.class_weight, dict):
            return compute_class_weight(self.class_weight, classes=self.classes_, y=self.classes_)
        present = np.unique(y)
        of_classes = np.ones(len(self.classes_))
        of_classes[np.searchsorted(self.classes_, present)] = compute_class_weight(
            "balanced", classes=present, y=y, sample_weight=weights
        )
        return of_classes

    def _column_weights(self, y, weights):
        return self._weighted_by(self._class_weights(y, weights), y, weights)

    def _row_weights(self, y, weights):
        return self._weighted_by(self._weight_of_class, y, weights)

    def _weighted_by(self, of_classes, y, weights):
        if of_classes is None:
            return weights
        by_class = of_classes[np.searchsorted(self.classes_, y)]
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

    def _default_loss(self):
        if self._network_task == "multiclass":
            return "sparse_categorical_crossentropy"
        return "binary_crossentropy"

    def _graph(self, table, name, prefix):
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
