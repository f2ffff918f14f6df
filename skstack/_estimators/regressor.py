"""A Keras network that learns numbers."""

from __future__ import annotations

import numpy as np
from sklearn.base import RegressorMixin

from skstack._base.atomic_fit import on_snapshot
from skstack._base.in_chunks import in_chunks
from skstack._base.sklearn import StrOptions, fit_context
from skstack._base.targets import check_target
from skstack._estimators.base import NetworkEstimator
from skstack._graph.mixin import ExportMixin
from skstack.networks._continued import continued_estimator
from skstack.networks._heads import output_bounds, with_target_units
from skstack.networks._mlp import MLP
from skstack.preprocessing._moments import weighted_moments

_LEAST_MEAN = 1e-6


class KerasRegressor(ExportMixin, RegressorMixin, NetworkEstimator):
    """A Keras network that learns numbers, on standardised targets.

    The network learns targets of mean 0 and standard deviation 1; ``predict``, ``model_`` and what
    callbacks see speak y's units. Where the head or the loss needs y's own units, the network
    learns these: see ``standardize_target``.

    Parameters
    ----------
    model : recipe, keras.Model, FrozenEstimator, str or path, default=None
        The network. A recipe (``MLP(...)``, or a function under ``@recipe``) is built for the
        columns and targets at hand. An unbuilt ``keras.Model`` is a template with new weights in
        each fit, a built one, or the path of a saved one (``.keras``, ``.h5``), is continued from
        its weights; the object itself is never trained or changed. None stands for ``MLP()``.
        ``FrozenEstimator(fitted)``, from :mod:`sklearn.frozen`, goes on from the network of a
        KerasRegressor that was fitted on another table, with the categories, codes and moments that
        it has learned there (new categories count as unseen). Each fold of a cross-fit starts from
        the same weights, with a new optimizer. It speaks the units of its own targets.

    optimizer : str, keras.optimizers.Optimizer or "auto", default="adam"
        ``"auto"`` is the one that a ``keras.Model`` was compiled with.

    learning_rate : float, LearningRateSchedule or "auto", default="auto"
        In (0, inf). ``"auto"`` is the optimizer's own.

    loss : str, keras.losses.Loss, callable or "auto", default="auto"
        ``"auto"`` is what a ``keras.Model`` was compiled with, else the mean squared error. A name,
        a class, a function or an object of Keras. A function or class of your own gets y, and
        predictions, of shape (n_rows, n_targets) in y's own units. ``"poisson"`` and ``"msle"``
        give a recipe's network a positive (exponential) output and refuse negative targets;
        losses of shares in [0, 1], such as ``"binary_crossentropy"``, a sigmoid. The bends of
        ``"huber"`` and ``"log_cosh"`` count in standard deviations of y.
        :class:`~skstack.losses.TeacherLoss` lets a frozen network take part.

    metrics : list, default=None
        As in ``keras.Model.compile``; they stand in ``history_``, in units of standardised targets.
        Relative and logarithmic errors, and metrics of your own, are computed in y's own units.
        None: those that a ``keras.Model`` was compiled with.

    epochs : int, default=100
        Passes over the training rows, at most.

    batch_size : int, default=32
        Rows in a step.

    early_stopping : bool or "auto", default="auto"
        Whether to watch the loss on rows set aside, stop when it no longer falls and bring back the
        best weights. ``"auto"`` is on above 10,000 rows, and where ``X_val`` is passed.

    validation_fraction : float, default=0.1
        Share of the rows that is set aside before anything is learned. In (0, 1).

    n_iter_no_change : int, default=10
        Epochs without improvement after which training stops.

    tol : float, default=1e-4
        The least improvement of the loss that counts.

    callbacks : list of keras.callbacks.Callback, default=None
        Copied for each fit. The model that they see, save and predict with is that of ``model_``,
        in y's units; the losses and metrics that they are told are those of ``history_``.

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

    standardize_target : bool or "auto", default="auto"
        Whether the network learns targets of mean 0 and standard deviation 1. ``"auto"`` does so,
        unless the network or the loss needs y's own units:

        - y as it is: a built ``keras.Model``, which has its units already; a network that trains in
          its own way; a last activation with bounds on both sides, such as sigmoid and tanh; losses
          that are defined in y's own units, such as ``"mape"``, ``"msle"``, ``"poisson"``, and
          those of your own.
        - y divided by its root mean square, so that 0 stays 0: a last activation with a bound on
          one side, such as relu, softplus and exponential.

        True standardises in any case, False never. What cannot work is an error before training.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns of X.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X had string names.

    target_mean_, target_scale_ : ndarray of float64 of shape (n_targets,)
        What is subtracted from y, and what it is divided by: mean and standard deviation of the
        training targets, in y's units; 0 and 1 where the network learns y as it is. See
        ``standardize_target``.

    input_profile_ : ColumnProfile
        Range and moments of the numeric columns of the training rows; see
        :class:`~skstack.inspection.ColumnProfile`.

    model_ : keras.Model
        The trained network in y's units, a copy.

    n_iter_ : int
        Epochs run in the last fit.

    loss_curve_ : list of float
        Training loss of each epoch, on targets as the network learns them: standardised ones, see
        ``standardize_target``.

    validation_scores_ : list of float or None
        Minus the loss on the rows set aside, for each epoch.

    history_ : dict of str to list of float
        All that was recorded for each epoch.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skstack import KerasRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> regressor = KerasRegressor(epochs=20, random_state=0).fit(X, y)
    >>> regressor.predict(X[:2]).shape
    (2,)
    >>> regressor.score(X, y) > 0.4
    True
    """

    _parameter_constraints = {
        **NetworkEstimator._parameter_constraints,
        "standardize_target": ["boolean", StrOptions({"auto"})],
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
        standardize_target="auto",
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
        self.standardize_target = standardize_target

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None, *, groups=None, X_val=None, y_val=None):
        """Train the network.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Training rows.

        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.

        sample_weight : array-like of shape (n_samples,), default=None
            Not negative. A row of weight w counts as w rows, one of weight 0 as none.

        groups : array-like of shape (n_samples,), default=None
            Early stopping holds out whole groups.

        X_val, y_val : array-like, default=None
            Rows that early stopping watches, in place of a share of X. Nothing is learned from
            them.

        Returns
        -------
        self : KerasRegressor
            The fitted estimator.

        Raises
        ------
        ValueError
            For data or parameters that cannot be learned from; the message names them.
        """
        return self._train(X, y, sample_weight, X_val, y_val, groups=groups, resume=self.warm_start)

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, sample_weight=None):
        """Train for one epoch more; moments and categories are those of the first call.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.

        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.

        sample_weight : array-like of shape (n_samples,), default=None
            Not negative. A row of weight w counts as w rows, one of weight 0 as none.

        Returns
        -------
        self : KerasRegressor
            The fitted estimator.
        """
        return self._train(X, y, sample_weight, resume=True, epochs=1, watch=False)

    @on_snapshot
    @in_chunks
    def predict(self, X):
        """Predict targets.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of float64 of shape (n_samples,) or (n_samples, n_targets)
            In y's units and shape.
        """
        outputs = self._outputs(X)
        values = outputs.reshape(len(outputs), -1) * self.target_scale_ + self.target_mean_
        return values.ravel() if self._one_dimensional else values

    # -----------------------------------------------------------------------------------------

    def _default_recipe(self):
        return MLP()

    def _read_target(self, y, *, frame, reset):
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                "is None."
            )
        y = check_target(y, multi_output=True, y_numeric=True, estimator=self)
        if y.ndim > 2 or y.dtype.kind not in "fiub":
            raise ValueError(
                f"y has shape {y.shape} and dtype {y.dtype}; accepted are numbers of shape "
                "(n_samples,) or (n_samples, n_targets)."
            )
        if y.size and np.abs(y.astype(np.float64)).max() > np.finfo(np.float32).max:
            raise ValueError("y holds values that are too large for float32.")
        if reset:
            self._one_dimensional = y.ndim == 1
            self._n_targets = 1 if y.ndim == 1 else y.shape[1]
        elif (1 if y.ndim == 1 else y.shape[1]) != self._n_targets:
            raise ValueError(f"y has shape {y.shape}; fitted were {self._n_targets} target(s).")
        return y.astype(np.float64).reshape(len(y), -1)

    def _task(self):
        return "regression", self._n_targets

    def _learn_target_scale(self, blueprint, start, inputs, y, weights):
        origin = continued_estimator(self.model)
        if origin is not None:  # the units that the weights were learned in
            self.target_mean_, self.target_scale_ = origin.target_mean_, origin.target_scale_
            return
        own_units = self._objective(blueprint).raw_units
        learns_own = own_units or blueprint.learns_raw_targets
        mean, scale = weighted_moments(y, weights)
        nothing, one = np.zeros(y.shape[1]), np.ones(y.shape[1])
        if self.standardize_target is True:
            self.target_mean_, self.target_scale_ = mean, scale
        elif self.standardize_target is False or learns_own:
            self.target_mean_, self.target_scale_ = nothing, one
        else:
            low, high = map(np.isinf, output_bounds(blueprint))
            # Bounds on one side: 0 stays 0, and any scale will do.
            around_0 = np.sqrt(np.average(np.square(y), axis=0, weights=weights))
            around_0 = np.where(around_0 > 0, around_0, 1.0)
            self.target_mean_ = np.where(low & high, mean, nothing)
            self.target_scale_ = np.where(low & high, scale, np.where(low | high, around_0, one))
        output = blueprint.spec.layer_name("output")
        if blueprint.spec.activation == "exponential" and f"{output}/bias" in start:
            # Begins at the mean: chance would be off by orders of magnitude.
            means = np.maximum(np.average(y, axis=0, weights=weights), _LEAST_MEAN)
            start[f"{output}/bias"] = np.log(means).astype(np.float32)
            start[f"{output}/kernel"] = np.zeros_like(start[f"{output}/kernel"])

    def _check_numbers(self, blueprint, y, what):
        objective = self._objective(blueprint)
        as_it_is = np.all(self.target_mean_ == 0) and np.all(self.target_scale_ == 1)
        self._check_units(objective, as_it_is)
        low, high = output_bounds(blueprint)
        objective.check_head(low, high)
        objective.check_numbers(y, what)
        targets = (y - self.target_mean_) / self.target_scale_
        slack = 1e-6 * np.maximum(1.0, np.abs(targets))
        if np.any(targets < low - slack) or np.any(targets > high + slack):
            learned = "" if as_it_is else ", as the network learns them,"
            raise ValueError(
                f"{what} holds values{learned} from {targets.min():g} to {targets.max():g}, and "
                f"the network of model={self.model!r} ends with an activation whose outputs lie in "
                f"[{low.min():g}, {high.max():g}] (standardize_target="
                f"{self.standardize_target!r}). Accepted are targets inside these bounds, or a "
                "network that ends without an activation."
            )

    def _check_units(self, objective, as_it_is):
        """Refuse a loss, or `standardize_target`, that the units of the network do not go with."""
        forced = self.standardize_target is True
        own_units = objective.raw_units and (objective.comparison.builtin or not forced)
        origin = continued_estimator(self.model)
        learned = "learned" if origin is None else "of model=FrozenEstimator(...) learned"
        if own_units and forced:
            raise ValueError(
                f"standardize_target=True with loss={objective.user_loss!r}: this loss is defined "
                "in y's own units. Accepted are 'auto' and False."
            )
        if own_units and not as_it_is:
            raise ValueError(
                f"loss={objective.user_loss!r} needs targets in their own units, but the network "
                f"{learned} on standardised ones."
            )
        kept = forced and as_it_is and origin is not None
        if kept or (self.standardize_target is False and not as_it_is):
            raise ValueError(
                f"standardize_target={self.standardize_target!r}, but the network {learned} "
                f"{'y as it is' if as_it_is else 'standardised targets'}. Leave it at 'auto'."
            )

    def _target_units(self, blueprint):
        low, high = output_bounds(blueprint)
        mean, scale = self.target_mean_, self.target_scale_
        return mean, scale, (low * scale + mean, high * scale + mean)

    def _targets(self, inputs, y):
        with np.errstate(over="ignore"):  # the loss tells, in words
            return ((y - self.target_mean_) / self.target_scale_).astype(np.float32)

    def _default_loss(self):
        return "mean_squared_error"

    def _finish_model(self, model):
        if not getattr(model, "outputs", None):  # its class trains in its own way, on y as it is
            return model
        return with_target_units(model, self.target_mean_, self.target_scale_)

    def _graph(self, table, name, prefix):
        from skstack._graph.formulas import as_columns

        return as_columns(self._network_graph(table, name)[1][0], "flatten", name)

    def _graph_outputs(self, table):
        return self._graph(table, "network", "")
