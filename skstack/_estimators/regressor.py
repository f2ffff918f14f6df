"""A Keras network for regression."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.impute import SimpleImputer

from skstack._base.atomic_fit import on_snapshot
from skstack._base.docstrings import substitute
from skstack._base.in_chunks import in_chunks
from skstack._base.params import hint_at_parameters, is_bool
from skstack._base.sklearn import OUT_IS_NO_METADATA, Interval, StrOptions, fit_context
from skstack._base.tables import check_target
from skstack._base.text import described
from skstack._estimators.bags import graphs_of_bags, is_bagged, mean_of_bags, mean_of_graphs
from skstack._estimators.base import DOCS, NetworkEstimator
from skstack._graph.mixin import ExportMixin
from skstack.networks._heads import output_bounds, with_target_units
from skstack.networks._model_parameter import continued_estimator
from skstack.preprocessing._column_profile import warn_if_validation_targets_moved, weighted_moments

_LEAST_MEAN = 1e-6


def scale_between(y, weights, low, high):
    """Offset and scale of targets for a network whose outputs lie in [low, high]: two arrays.

    Those of outputs that are bounded on one side keep 0 where it is, on both sides are 0 and 1.
    """
    mean, scale = weighted_moments(y, weights)
    low, high = np.isinf(low), np.isinf(high)
    around_0 = np.sqrt(np.average(np.square(y), axis=0, weights=weights))
    around_0 = np.where(around_0 > 0, around_0, 1.0)
    scale = np.where(low & high, scale, np.where(low | high, around_0, 1.0))
    return np.where(low & high, mean, 0.0), scale


def start_at_mean(start, spec, head, y, weights):
    """Start an exponential output layer at the mean: random weights are orders of magnitude off."""
    means = np.maximum(np.average(y, axis=0, weights=weights), _LEAST_MEAN)
    for name in (head, f"{head}_members"):
        kernel, bias = (f"{spec.layer_name(name)}/{kind}" for kind in ("kernel", "bias"))
        if bias in start:
            start[bias] = np.broadcast_to(np.log(means), start[bias].shape).astype(np.float32)
            start[kernel] = np.zeros_like(start[kernel])


def refuse_outside(what, targets, low, high, *, raw, model, advice=""):
    """Refuse targets, as the network learns them, that its outputs in [low, high] cannot reach."""
    slack = 1e-6 * np.maximum(1.0, np.abs(targets))
    if np.any(targets < low - slack) or np.any(targets > high + slack):
        learned = "" if raw else " (standardised)"
        raise ValueError(
            f"{what} holds values{learned} from {targets.min():g} to {targets.max():g}, and the "
            f"final activation of model={described(model)} has outputs in [{np.min(low):g}, "
            f"{np.max(high):g}]{advice}. Use targets inside these bounds, or a network without a "
            "final activation."
        )


@substitute(**DOCS)
class KerasRegressor(ExportMixin, RegressorMixin, NetworkEstimator):
    """A Keras network for regression, trained on standardised targets.

    The network is trained on targets of mean 0 and standard deviation 1; ``predict``, ``model_``
    and callbacks use the units of y. If the head or the loss needs unscaled targets, it is trained
    on these: see ``standardize_target``.

    Parameters
    ----------
    model : recipe, keras.Model, FrozenEstimator, str or path, default=None
        The network. A recipe (``MLP(...)``, or a function under ``@recipe``) is built for the
        columns and targets of X and y. An unbuilt ``keras.Model`` is a template with new weights in
        each fit; training of a built one, or of the path to a saved one (``.keras``, ``.h5``),
        continues from its weights. The object itself is never modified. None means ``TabM()``.
        ``FrozenEstimator(fitted)``, from :mod:`sklearn.frozen`, continues from the network of a
        KerasRegressor that was fitted on another table, with its categories, codes and moments (new
        categories count as unseen). Each fold of a cross-fit starts from the same weights, with a
        new optimizer. Target mean and scale are those of the other table.

    {optimizer_parameters}

    loss : str, keras.losses.Loss, callable or "auto", default="auto"
        ``"auto"`` uses the loss that a ``keras.Model`` was compiled with, else the mean squared
        error. A name, class, function or object of Keras. A custom function or class receives y
        and predictions of shape (n_rows, n_targets) in the units of y. With ``"poisson"`` and
        ``"msle"`` a recipe's network has a positive (exponential) output, and negative targets are
        refused; with losses for targets in [0, 1], such as ``"binary_crossentropy"``, it has a
        sigmoid. The thresholds of ``"huber"`` and ``"log_cosh"`` are in standard deviations of y.
        :class:`~skstack.losses.TeacherLoss` adds a frozen teacher.

    metrics : list, default=None
        As in ``keras.Model.compile``. Recorded in ``history_``, in units of standardised targets;
        relative and logarithmic errors, and custom metrics, are computed in the units of y. None
        uses those that a ``keras.Model`` was compiled with.

    {epoch_parameters}

    {metric_parameter}

    callbacks : list of keras.callbacks.Callback, default=None
        Copied for each fit. Their ``model`` is the network of ``model_``, in the units of y; their
        logs are the losses and metrics of ``history_``.

    {column_parameters}

    {bag_parameters}

    {run_parameters}

    standardize_target : bool or "auto", default="auto"
        Whether the network is trained on targets of mean 0 and standard deviation 1. ``"auto"``
        standardises, except in these cases:

        - y is not scaled for a built ``keras.Model``, which was trained in its own units; for a
          network with its own ``train_step``; for a last activation bounded on both sides, such as
          sigmoid and tanh; and for losses defined in the units of y, such as ``"mape"``,
          ``"msle"``, ``"poisson"`` and custom losses.
        - y is divided by its root mean square, so that 0 stays 0, for a last activation bounded on
          one side, such as relu, softplus and exponential.

        True always standardises, False never. Combinations that cannot work raise an error before
        training.

    Attributes
    ----------
    {input_attributes}

    target_mean_, target_scale_ : ndarray of float64 of shape (n_targets,)
        Offset and scale of y: mean and standard deviation of the training targets; 0 and 1 if the
        network is trained on unscaled targets. See ``standardize_target``.

    model_ : keras.Model
        A copy of the trained network, in the units of y.

    {history_attributes}

    {bag_attributes}

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skstack import KerasRegressor
    >>> from skstack.networks import MLP
    >>> X, y = load_diabetes(return_X_y=True)
    >>> regressor = KerasRegressor(MLP((16,)), epochs=20, learning_rate=0.01, random_state=0)
    >>> regressor = regressor.fit(X, y)
    >>> regressor.predict(X[:2]).shape
    (2,)
    >>> regressor.score(X, y) > 0.4
    True
    """

    __metadata_request__predict = OUT_IS_NO_METADATA
    _parameter_constraints = {
        **NetworkEstimator._parameter_constraints,
        "n_bags": [Interval(Integral, 1, None, closed="left")],
        "standardize_target": ["boolean", StrOptions({"auto"})],
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
        standardize_target: bool | str = "auto",
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
        self.standardize_target = standardize_target

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    @fit_context(prefer_skip_nested_validation=True)
    @hint_at_parameters
    @substitute(**DOCS)
    def fit(self, X, y, sample_weight=None, *, groups=None, X_val=None, y_val=None):
        """Train the network.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Training rows.

        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.

        {row_parameters}

        Returns
        -------
        self : KerasRegressor
            The fitted estimator.

        Raises
        ------
        ValueError
            If data or parameters are invalid; the message names them.

        Notes
        -----
        {interrupts}
        """
        return self._train(X, y, sample_weight, X_val, y_val, groups=groups, resume=self.warm_start)

    @fit_context(prefer_skip_nested_validation=True)
    @hint_at_parameters
    def partial_fit(self, X, y, sample_weight=None):
        """Train for one more epoch; moments and categories are those of the first call.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.

        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative. A row of weight w counts as w rows, one of weight 0 is ignored.

        Returns
        -------
        self : KerasRegressor
            The fitted estimator.
        """
        return self._train(X, y, sample_weight, resume=True, epochs=1, watch=False)

    @on_snapshot
    @in_chunks
    def predict(self, X, *, out=None):
        """Predict targets.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        {out}

        Returns
        -------
        ndarray of float64 of shape (n_samples,) or (n_samples, n_targets)
            In the units and shape of y.
        """
        if is_bagged(self):
            return mean_of_bags(self, "predict", X)
        outputs = self._outputs(X)
        values = outputs.reshape(len(outputs), -1) * self.target_scale_ + self.target_mean_
        return values.ravel() if self._one_dimensional else values

    # -----------------------------------------------------------------------------------------

    def _read_target(self, y, *, shared, reset):
        self._check_names_of_targets(y, reset=reset)
        y = check_target(y, y_numeric=True, estimator=self)
        if y.size and np.abs(y.astype(np.float64)).max() > np.finfo(np.float32).max:
            raise ValueError("y holds values that are too large for float32.")
        if reset:
            self._one_dimensional = y.ndim == 1
            self._n_targets = 1 if y.ndim == 1 else y.shape[1]
        elif (1 if y.ndim == 1 else y.shape[1]) != self._n_targets:
            raise ValueError(
                f"y has shape {y.shape}, but the estimator was fitted with {self._n_targets} "
                "target(s)."
            )
        return y.astype(np.float64).reshape(len(y), -1)

    def _task(self):
        return "regression", self._n_targets

    def _learn_target_scale(self, blueprint, start, inputs, y, weights):
        origin = continued_estimator(self.model)
        if origin is not None:  # the units in which the weights were trained
            self.target_mean_, self.target_scale_ = origin.target_mean_, origin.target_scale_
            return
        own_units = self._objective(blueprint).raw_units
        unscaled = own_units or blueprint.learns_raw_targets
        if is_bool(self.standardize_target, True):
            scaling = weighted_moments(y, weights)
        elif is_bool(self.standardize_target, False) or unscaled:
            scaling = np.zeros(y.shape[1]), np.ones(y.shape[1])
        else:
            scaling = scale_between(y, weights, *output_bounds(blueprint))
        self.target_mean_, self.target_scale_ = scaling
        if blueprint.spec.activation == "exponential":
            start_at_mean(start, blueprint.spec, "output", y, weights)

    def _check_numbers(self, blueprint, y, what):
        objective = self._objective(blueprint)
        unscaled = np.all(self.target_mean_ == 0) and np.all(self.target_scale_ == 1)
        self._check_units(objective, unscaled)
        low, high = output_bounds(blueprint)
        objective.check_head(low, high)
        objective.check_numbers(y, what)
        targets = (y - self.target_mean_) / self.target_scale_
        advice = f" (standardize_target={self.standardize_target!r})"
        refuse_outside(what, targets, low, high, raw=unscaled, model=self.model, advice=advice)

    def _check_units(self, objective, unscaled):
        """Refuse a loss or `standardize_target` that does not fit the units of the network."""
        forced = is_bool(self.standardize_target, True)
        own_units = objective.raw_units and (objective.comparison.builtin or not forced)
        origin = continued_estimator(self.model)
        learned = "was trained"
        if origin is not None:
            learned = "of model=FrozenEstimator(...) was trained"
        if own_units and forced:
            raise ValueError(
                f"standardize_target=True with loss={described(objective.user_loss)}: this loss "
                "is defined in the units of y. Use 'auto' or False."
            )
        if own_units and not unscaled:
            raise ValueError(
                f"loss={described(objective.user_loss)} needs unscaled targets, but the network "
                f"{learned} on standardised targets."
            )
        continued = forced and unscaled and origin is not None
        if continued or (is_bool(self.standardize_target, False) and not unscaled):
            raise ValueError(
                f"standardize_target={self.standardize_target!r}, but the network {learned} "
                f"on {'unscaled' if unscaled else 'standardised'} targets. Use 'auto'."
            )

    def _bin_targets(self, y, weights):
        mean, scale = weighted_moments(y, weights)
        return (y - mean) / scale, False

    def _target_units(self, blueprint):
        low, high = output_bounds(blueprint)
        mean, scale = self.target_mean_, self.target_scale_
        return mean, scale, (low * scale + mean, high * scale + mean)

    def _targets(self, inputs, y):
        with np.errstate(over="ignore"):  # an infinite loss raises an error later
            return ((y - self.target_mean_) / self.target_scale_).astype(np.float32)

    def _warn_of_moved_targets(self, y, y_val):
        warn_if_validation_targets_moved(y, y_val)

    def _default_loss(self):
        return "mean_squared_error"

    def _finish_model(self, model):
        if not getattr(model, "outputs", None):  # a custom train_step, on unscaled targets
            return model
        return with_target_units(model, self.target_mean_, self.target_scale_)

    def _graph(self, table, name, prefix):
        if is_bagged(self):
            graphs = graphs_of_bags(self, name, lambda bag, label: bag._graph(table, label, prefix))
            return mean_of_graphs(graphs, name)
        from skstack._graph.formulas import as_columns

        return as_columns(self._network_graph(table, name)[1][0], "flatten", name)

    def _graph_outputs(self, table):
        return self._graph(table, "network", "")
