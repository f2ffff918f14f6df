"""Base class of the three network estimators: validation, training and prediction."""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from skstack._base.atomic_fit import atomic_fit, caller_level, copy_of, on_snapshot, warn_once
from skstack._base.disk_table import DiskTable, announce_memory, in_memory, sample_of_rows
from skstack._base.keras_objects import copied
from skstack._base.params import (
    clone_part,
    clone_sharing_models,
    comparable,
    draw_seed,
    explain_missing_parameters,
    explain_uncopied,
    hint_at_parameters,
    is_bool,
    is_keras_model,
    is_path,
    reduced,
    with_keras_settings,
)
from skstack._base.progress import errors_named, fit_tasks
from skstack._base.sklearn import (
    INPUT_CONSTRAINTS,
    CallbackSupportMixin,
    HasMethods,
    Interval,
    StrOptions,
    check_shape,
    get_param_names,
    with_callbacks,
)
from skstack._base.tables import (
    check_groups,
    check_names_of_targets,
    check_weights,
    glanced,
    is_float32,
    n_rows,
    names_of_targets,
    read_rows,
    take_rows,
    taken,
    with_weight,
)
from skstack._base.tensorflow_import import import_tensorflow
from skstack._base.text import described, readable
from skstack._estimators.bags import (
    bag_splits,
    bagged_model,
    context_of_bags,
    fit_bags,
    is_bagged,
    refuse_bags,
)
from skstack._splits.hold_out import hold_out
from skstack._splits.row_context import take_context
from skstack.networks._adopted import ModelBlueprint
from skstack.networks._builder import BuilderBlueprint
from skstack.networks._heads import with_plain_input
from skstack.networks._mlp import MLP
from skstack.networks._model_parameter import (
    COLUMN_PARAMETERS,
    blueprint_for,
    check_categories,
    check_continues,
    check_model,
    continued_estimator,
    load_model,
    named_after_categories,
)
from skstack.networks._numeric import learned_variables, standardizing_variables
from skstack.networks._realmlp import RealMLP
from skstack.networks._recipe import Recipe, RecipeBlueprint, label_smoothing_of, rules_of
from skstack.networks._spec import Spec
from skstack.networks._tabm import TabM
from skstack.preprocessing._blocks import ColumnBlocks, NumericBlock
from skstack.preprocessing._column_profile import (
    ColumnProfile,
    moments_of_steps,
    warn_if_too_fine_for_float32,
    warn_if_validation_moved,
    weighted_moments,
)
from skstack.preprocessing._columns import resolve_object_columns

# Objects of Keras whose settings can be set.
_EXAMPLES = {
    "optimizer": "keras.optimizers.Adam()",
    "loss": "keras.losses.Huber()",
    "learning_rate": "keras.optimizers.schedules.CosineDecay(1e-3, 1000)",
}

# Paragraphs of the docstrings of the estimators and of their `fit`.
DOCS = {
    "optimizer_parameters": """
optimizer : str, keras.optimizers.Optimizer or "auto", default="auto"
    ``"auto"`` uses the optimizer that a ``keras.Model`` was compiled with, or that of the recipe:
    AdamW for ``TabM`` and ``RealMLP``, else Adam. Settings of an object are parameters, as those of
    a ``loss`` object are: ``set_params(optimizer__momentum=0.9)`` makes a new optimizer. In a
    search they are more readable in ``best_params_`` than objects are.

learning_rate : float, LearningRateSchedule or "auto", default="auto"
    In (0, inf). ``"auto"`` keeps the learning rate of the optimizer; that of ``TabM`` depends on
    the number of batches in an epoch.

clipnorm : float, default=None
    Largest norm of the gradients of all weights together, in (0, inf); larger ones are scaled down
    to it. None keeps the setting of the optimizer, such as 1 for that of ``TabM``.
""",
    "epoch_parameters": """
epochs : int or "auto", default="auto"
    Number of passes over the training rows; with early stopping, the largest. ``"auto"`` is that
    of the recipe: 100, or 256 for ``RealMLP``.

batch_size : int or "auto", default="auto"
    Samples per gradient update. ``"auto"`` depends on the number of rows: 32 below 2,800, then 64,
    128 from 4,500, 256 from 6,400, 512 from 32,000, 1,024 from 108,000.

early_stopping : bool or "auto", default="auto"
    Whether to monitor the loss on hold-out rows, to stop when it no longer improves, and to
    restore the best weights. ``"auto"`` is on if ``X_val`` is passed, and if ``epochs="auto"``.
    It then holds out no row of a class with fewer than 5 rows; with ``groups`` it holds out none
    of the groups that have such rows, or a class that no other group has, if others suffice. No
    rows are held out of fewer than 50 rows or 2 groups, or if the last rows in time hold a whole
    class: all epochs are then trained. True raises an error where it cannot hold out rows of each
    class, or, of several labels or targets, where a class would have no row to train on.

validation_fraction : float, default=0.15
    Fraction of the rows, stratified by class in a classifier, that is held out before anything is
    learned. In (0, 1). Of more than 2**20 rows at most 2**18 are held out.

n_iter_no_change : int, default=10
    Number of epochs without improvement after which training stops. Networks whose learning rate
    follows a schedule, such as ``RealMLP()``, are trained for all epochs.

tol : float, default=1e-4
    Smallest improvement of the loss, or of ``early_stopping_metric``, that counts as one.
""",
    "metric_parameter": """
early_stopping_metric : str, default="loss"
    What early stopping monitors on hold-out rows: ``"loss"``, the name of one of ``metrics``, or
    that of a metric of Keras, such as ``"accuracy"`` or ``"auc"``, which is then recorded too.
    Among equally good epochs the last one is the best. A metric of your own needs an attribute
    ``greater_is_better``, True or False. Unlike the loss, metrics count each row once, whatever its
    ``sample_weight``, as in Keras.
""",
    "bag_parameters": """
n_bags : int, default=1
    Number of networks. Each starts from other initial weights and holds out other rows for early
    stopping, so that all rows train some of them; predictions are their mean. They share one
    compiled program and are trained in parallel in threads under ``with
    parallel_config("threading", n_jobs=2):``, or by the workers of ``"dask"`` or ``"ray"``.
    Excludes ``warm_start``, ``partial_fit``, fine-tuning and features of inner layers.
""",
    "bag_attributes": """
bags_ : list of estimators
    The networks, if ``n_bags > 1``. ``n_iter_``, ``loss_curve_``, ``validation_scores_``,
    ``history_`` and ``early_stopped_`` are then lists, with one value for each of them. What else
    a network has learned, such as the scale of numeric targets, is an attribute of that network.
""",
    "column_parameters": """
categorical_features : "from_dtype", None or array-like, default="from_dtype"
    Which columns are categorical: by dtype (``category``, strings and bool columns of a DataFrame,
    and object columns that are not all numeric), none, or given by names, indices or a mask.

inputs : None, "prefix", dict or list, default=None
    Which columns form an input of their own, for networks with several inputs: a dict of input
    name to columns (as in :class:`~sklearn.compose.ColumnTransformer`), a list of columns in the
    order of the model's inputs, or ``"prefix"``: columns whose names share a prefix, up to ``__``,
    as the branches of a stack do. The other numeric columns form the input ``numeric``; each
    categorical column, and each column that holds arrays, is a separate input.

input_shape : tuple of int or dict of str to tuple, default=None
    Shape of one row as input of the network, such as ``(28, 28, 1)`` for 784 columns; a dict maps
    inputs to shapes.

n_hash_buckets : int, default=None
    Number of buckets into which categorical columns with more categories than this are hashed. In
    [1, 2**31 - 3].

imputer : SimpleImputer, default=None
    Imputes missing numbers, fitted on the training rows; with ``add_indicator=True`` indicator
    columns are appended. If None, a missing number raises an error.
""",
    "run_parameters": """
warm_start : bool, default=False
    Whether ``fit`` continues from the weights of the previous fit.

engine : {"auto", "keras"}, default="auto"
    ``"auto"`` trains whole epochs, in short fits single steps, in one compiled program, which all
    clones, folds and candidates with the same network share, and falls back on ``Model.fit`` if
    that is not possible (callbacks on batches, a custom ``test_step``, code that TensorFlow cannot
    trace). ``"keras"`` always uses ``Model.fit``.

random_state : int, RandomState instance or None, default=None
    Seeds initial weights, order of rows, dropout, noise and hold-out rows.

verbose : int, default=0
    If > 0, print one line per epoch.
""",
    "input_attributes": """
n_features_in_ : int
    Number of columns of X.

feature_names_in_ : ndarray of shape (n_features_in_,)
    Names of the columns of X. Defined only if X has string names.

input_profile_ : ColumnProfile
    Range and moments of the numeric columns of the training rows; see
    :class:`~skstack.inspection.ColumnProfile`.
""",
    "history_attributes": """
n_iter_ : int
    Number of epochs of the last fit.

loss_curve_ : list of float
    Training loss of each epoch, for a regressor on targets as the network learns them.

validation_scores_ : list of float or None
    For each epoch the negative loss on the hold-out rows, or the ``early_stopping_metric``,
    negative if lower is better.

history_ : dict of str to list of float
    All recorded losses and metrics, one value per epoch.

early_stopped_ : bool
    Whether hold-out rows were monitored, so that the weights of the best epoch were kept.
""",
    "row_parameters": """
sample_weight : array-like of shape (n_samples,), default=None
    Non-negative. A row of weight w counts as w rows, one of weight 0 is ignored.

groups : array-like of shape (n_samples,), default=None
    Group labels. Hold-out rows for early stopping are whole groups.

X_val, y_val : array-like, default=None
    Rows that early stopping monitors, instead of hold-out rows of X. Nothing else is
    learned from them.
""",
    "interrupts": """
If you interrupt training (Ctrl-C) after its first epoch, the estimator is fitted: a warning
is given, and the weights of the best epoch are kept with early stopping, else those of the
last finished epoch. A second interrupt within two seconds raises KeyboardInterrupt; so does
the first one before the first epoch ends, and inside a Pipeline, a stack, a search or any
other estimator that calls ``fit``. The estimator is then unchanged.
""",
}


@dataclass(frozen=True)
class CrossFitContext:
    """What all networks of one cross-fit share, so that their shapes and initial weights agree.

    ``blocks`` defines the category codes, ``classes`` the output units: the classes, or for several
    targets a description of each. Which of them occur in a fold is learned from its training rows.
    ``n_rows`` is the number of all rows, which decides the batch size.
    """

    blocks: ColumnBlocks
    classes: np.ndarray | tuple | None
    n_rows: int


_ROWS_TRIED = 40  # that tell whether a fit, or a teacher, accepts them
_FEWEST_ROWS_TO_STOP = 50
_FEWEST_ROWS_OF_CLASS = 5
# Batch sizes below each number of rows; those with which AutoGluon trains TabM.
_BATCH_SIZES = (
    (2_800, 32),
    (4_500, 64),
    (6_400, 128),
    (32_000, 256),
    (108_000, 512),
    (np.inf, 1_024),
)


@contextlib.contextmanager
def declaring(estimator, classes):
    """Context of a fit with declared classes, or None; if it fails, earlier ones are restored."""
    before = vars(estimator).pop("_declared_classes", None)
    if classes is not None:
        estimator._declared_classes = classes
    try:
        yield
    except BaseException:
        vars(estimator).pop("_declared_classes", None)
        if before is not None:
            estimator._declared_classes = before
        raise


def _is_auto(value):
    return isinstance(value, str) and value == "auto"


def _of_rare_classes(labels, groups):
    """Mask of the rows of classes that cannot spare any, or that one group alone has."""
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    rare = counts < _FEWEST_ROWS_OF_CLASS
    if groups is not None:
        _, codes = np.unique(groups, return_inverse=True)
        pairs = np.unique(np.column_stack([classes, codes]), axis=0)
        rare |= np.bincount(pairs[:, 0]) < 2
    return rare[classes]


def _choices_to_hold_out_of(labels, groups, n):
    """Rows to hold some out of, first choice first: without those of rare classes."""
    rows = np.arange(n)
    while len(rows):
        own = None if groups is None else groups[rows]
        rare = np.zeros(len(rows), dtype=bool)
        for column in labels:
            rare |= _of_rare_classes(column[rows], own)
        if groups is None:
            yield rows[~rare]
            return
        if not rare.any():
            break
        # Of a group all rows stay; then another class may be rare among the others.
        rows = rows[~np.isin(own, own[rare])]
        if any(len(np.unique(column[rows])) > 1 for column in labels):  # one class judges nothing
            yield rows
    yield np.arange(n)


@readable
class NetworkEstimator(CallbackSupportMixin, BaseEstimator):
    """Base of the estimators that train one network; not for direct use."""

    # As in scikit-learn's group splitters: with routing enabled, groups are requested by default.
    __metadata_request__fit = {"groups": True}

    _target_required = True
    _teacher = None  # the teacher whose outputs are inputs of the network, if any

    _get_param_names = get_param_names
    _parameter_constraints = {
        "model": "no_validation",
        "optimizer": "no_validation",
        "learning_rate": [
            StrOptions({"auto"}),
            Interval(Real, 0, None, closed="neither"),
            HasMethods(["get_config"]),
        ],
        "clipnorm": [None, Interval(Real, 0, None, closed="neither")],
        "loss": [str, callable, HasMethods(["get_config"]), HasMethods(["get_params"])],
        "metrics": [None, list, tuple],
        "epochs": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "early_stopping": [StrOptions({"auto"}), "boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "early_stopping_metric": [str],
        "callbacks": [None, list, tuple, HasMethods(["on_epoch_end"])],
        "categorical_features": [None, StrOptions({"from_dtype"}), "array-like"],
        "n_hash_buckets": [None, Interval(Integral, 1, 2**31 - 3, closed="both")],
        "imputer": [None, SimpleImputer],
        **INPUT_CONSTRAINTS,
        "warm_start": ["boolean"],
        "engine": [StrOptions({"auto", "keras"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
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
        warm_start: bool = False,
        engine: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        verbose: int | bool = 0,
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
        self.warm_start = warm_start
        self.engine = engine
        self.random_state = random_state
        self.verbose = verbose

    def _validate_params(self):
        """Validate parameters before anything is built or trained."""
        super()._validate_params()
        import_tensorflow()
        from skstack._training.optimizers import check_settings
        from skstack.losses._teacher_loss import TeacherLoss

        if isinstance(self.loss, TeacherLoss):
            self.loss._validate_params()
        check_model(self.model)
        check_shape(self.input_shape)
        missing = None if self.imputer is None else self.imputer.missing_values
        if self.imputer is not None and not (isinstance(missing, Real) and np.isnan(missing)):
            raise ValueError(
                f"imputer={described(self.imputer)} has missing_values={missing!r}; a network "
                "treats only NaN as missing. Put such an imputer before the network, in a Pipeline."
            )
        if self._n_bags > 1 and self.warm_start:
            refuse_bags(self, "warm_start=True")
        losses, metrics = self._losses_and_metrics()
        check_settings(
            optimizer=self._known_optimizer(),
            learning_rate=None if _is_auto(self.learning_rate) else self.learning_rate,
            clipnorm=self.clipnorm,
            losses=[loss for loss in losses if not _is_auto(loss)],
            metrics=metrics,
            callbacks=self._listed_callbacks(),
        )
        self._check_monitored()

    def _known_optimizer(self):
        """The optimizer, as far as it is known before the network is."""
        if not _is_auto(self.optimizer):
            return self.optimizer
        compiled = getattr(self.model, "optimizer", None) if is_keras_model(self.model) else None
        return "adam" if compiled is None else compiled

    def _check_monitored(self):
        """Refuse an unknown ``early_stopping_metric``; a compiled model may have more metrics."""
        compiled = is_keras_model(self.model) or is_path(self.model)
        if self.early_stopping_metric != "loss" and (self.metrics or not compiled):
            self._find_monitored(self.metrics or ())

    def _losses_and_metrics(self):
        """All losses and all metrics among the parameters."""
        return [self._task_loss], self.metrics or ()

    def __sklearn_clone__(self):
        return clone_sharing_models(self)

    def __copy__(self):
        return copy_of(self)

    def __reduce_ex__(self, protocol):
        return reduced(self, super().__reduce_ex__(protocol))

    def set_params(self, **params):
        """Set parameters, of the recipe too (``model__dropout``).

        Settings of Keras objects can be set in the same way (``optimizer__momentum``): the
        parameter becomes a new object with that setting.

        Parameters
        ----------
        **params : dict
            Parameters by name.

        Returns
        -------
        self : estimator
            This estimator.

        Raises
        ------
        ValueError
            If a name does not exist, or belongs to a path, a ``keras.Model`` or None.
        """
        explain_missing_parameters(self, params, self._remedy)
        return super().set_params(**with_keras_settings(self, params))

    def _remedy(self, name, value):
        if name == "model":
            recipe = type(self._default_recipe()).__name__
            return f"Pass a recipe, such as model={recipe}(), and set its parameters."
        if name in ("optimizer", "loss", "learning_rate"):
            example = _EXAMPLES[name]
            return f"Pass an object of Keras, such as {name}={example}, and set its settings."
        return "Pass an object that has parameters."

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.categorical = True
        tags.input_tags.three_d_array = True
        tags.input_tags.string = False
        tags.input_tags.allow_nan = self.imputer is not None
        return tags

    def __sklearn_is_fitted__(self):
        return hasattr(self, "network_") or is_bagged(self)

    @property
    @on_snapshot
    def model_(self):
        """keras.Model : a copy of the trained network in the units of y, built at first access."""
        check_is_fitted(self)
        if is_bagged(self):
            return bagged_model(self)
        return self.network_.public(self._public_model)

    def _public_model(self, model):
        model = with_plain_input(self._finish_model(model))
        return named_after_categories(model, self.blocks_.categories_)

    def _splits_rows(self, only_fit):
        """Whether every fit holds out rows."""
        return is_bool(self.early_stopping, True)

    def _check_ordered(self, context, X, y, only_fit):
        """Refuse nothing: early stopping monitors the last rows."""

    # Hooks of the subclasses ---------------------------------------------------------------

    def _default_recipe(self):
        """Recipe of ``model=None``: without members where a teacher is joined to the network."""
        from skstack.losses._teacher_loss import TeacherLoss

        joined = isinstance(self.loss, TeacherLoss) and self.loss.mode in ("blend", "head")
        return MLP() if joined else TabM()

    def _hinted_recipe(self):
        """Recipe whose parameters are those of networks of other libraries."""
        return MLP()

    def _read_target(self, y, *, shared, reset):
        """Validate y; learn classes or the number of targets."""
        raise NotImplementedError

    def _check_names_of_targets(self, y, *, reset):
        if reset:
            self._names_of_targets = names_of_targets(y)
        else:  # files of earlier versions hold no names
            check_names_of_targets(y, getattr(self, "_names_of_targets", None))

    def _task(self):
        """Task and number of outputs for the spec."""
        raise NotImplementedError

    def _learn_target_scale(self, blueprint, start, inputs, y, weights):
        """Learn the moments of the targets from training rows; does nothing by default."""

    def _check_numbers(self, blueprint, y, what):
        """Refuse targets that loss or head do not support; accepts all by default."""

    def _warn_of_moved_targets(self, y, y_val):
        """Warn of validation targets on another scale; targets that are numbers have one."""

    def _targets(self, inputs, y):
        """Targets in the form that the loss expects."""
        raise NotImplementedError

    def _row_weights(self, y, weights):
        """Weights of rows in the loss."""
        return weights

    def _column_weights(self, y, weights):
        """Weights of training rows for statistics of columns: moments and imputed values."""
        return weights

    def _resample(self, inputs, y, weights, seed, resume):
        """Training rows after the sampler; unchanged by default."""
        return inputs, y, weights

    def _finish_model(self, model):
        return model

    # From rows to a trained network --------------------------------------------------------

    def _blocks_of(self, X, reference=None, weights=None):
        """Fit the blocks of X, or take those of the network that is continued."""
        origin = continued_estimator(self.model)
        if origin is not None:
            return origin.blocks_
        blocks = ColumnBlocks(
            self.categorical_features,
            inputs=self.inputs,
            input_shape=self.input_shape,
            n_hash_buckets=self.n_hash_buckets,
            imputer=self.imputer,
            unseen_tokens=self.model is None or isinstance(self.model, Recipe),
        )
        return blocks.fit(X, like=reference, sample_weight=weights)

    def _cross_fit_context(self, X, y, layers=(), weights=None, check=None):
        """The ``CrossFitContext`` of all rows of a cross-fit.

        Also checks, before training, that requested layers exist, and that a user's model and a
        teacher fit; ``check`` is called with the blueprint of the network.
        """
        probe = clone_sharing_models(self)
        X = read_rows(probe, X, reset=True)
        y = probe._read_target(y, shared=None, reset=True)
        weighted = weights is not None and np.any(weights)
        counted = np.flatnonzero(weights) if weighted else np.arange(n_rows(X))
        blocks = probe._blocks_of(take_rows(X, counted) if weighted else X)
        probe.blocks_, probe.moments_ = blocks, {}
        probe._check_origin(X)
        if layers or check is not None or is_keras_model(self.model):
            blueprint, _ = probe._network_to_train(0, resume=False)
        if check is not None:
            check(blueprint)
        if layers:
            from skstack._training.keras_model import check_layers

            refuse_bags(self, f"layers={list(layers)!r}")
            check_layers(blueprint, layers)
        # Otherwise y is that of a part of the rows.
        if self._may_be_refused() and (y is None or len(y) == n_rows(X)):
            some = in_memory(take_rows(X, counted[:_ROWS_TRIED]))
            own = check_weights(weights, X) if weighted else None
            probe._try_fit(some, *taken(counted if weighted else None, y, own))
        return CrossFitContext(blocks, probe._shared_targets(), n_rows(X))

    def _suits_any_columns(self):
        """Whether the network is the default one, or made by a recipe for any table."""
        return self.model is None or isinstance(self.model, MLP | TabM | RealMLP)

    def _may_be_refused(self):
        """Whether a fit may refuse what the parameters ask for; the defaults suit all rows."""
        defaults = _is_auto(self.loss) and not self.metrics and self.early_stopping_metric == "loss"
        plain = self._suits_any_columns()
        smooths = getattr(self.model, "label_smoothing", 0)
        forced = not _is_auto(getattr(self, "standardize_target", "auto"))
        return not (defaults and plain) or smooths or forced

    def _try_fit(self, X, y, weights):
        """Prepare a fit that loss, metrics, targets, weights or a teacher may refuse.

        X holds the first rows only, y and weights those of all. Sets attributes.
        """
        from skstack._training.config import TrainingData
        from skstack.losses._teacher_fit import prepared_fit

        inputs = self.blocks_.split(X)
        self.moments_ = self._moments_of(inputs, None)
        blueprint, start = self._network_to_train(0, resume=False, inputs=inputs)
        self._learn_target_scale(blueprint, start, inputs, y, weights)
        objective = self._objective(blueprint)
        self._check_numbers(blueprint, y, "y")
        if getattr(self, "sampler", None) is None:  # which changes them
            objective.check_weights(self._column_weights(y, weights))
        self._metrics(blueprint, objective)
        first = None if y is None else y[: n_rows(X)]
        table = TrainingData(inputs, self._targets(inputs, first), None)
        table = self._smoothed(table, label_smoothing_of(blueprint), objective)
        if self.loss is not self._task_loss:
            settings = {"before": {}, "rows": (X, None), "resampled": False}
            prepared_fit(self, blueprint, start, seed=0, tables=(table, None), **settings)

    def _shared_targets(self):
        """What all networks of a cross-fit know of y: the classes, if there are any."""
        return getattr(self, "classes_", None)

    def _fit_in_context(self, X, y, shared, *, ordered=False, **metadata):
        """Fit as one of the networks of a cross-fit; ``ordered`` rows are in time order."""
        self._validate_params()
        return self._train(X, y, **metadata, shared=shared, ordered=ordered)

    @atomic_fit
    @with_callbacks
    def _train(
        self,
        X,
        y,
        sample_weight=None,
        X_val=None,
        y_val=None,
        *,
        groups=None,
        ordered=False,
        shared=None,
        resume=False,
        epochs=None,
        watch=True,
        split=None,
        is_bag=False,
        weights_val=None,
    ):
        """Fit on training rows; hold-out rows are used for early stopping only.

        ``weights_val`` are the weights of ``X_val``, or None. The epochs of a bag are tasks of the
        estimator whose bag it is.
        """
        if resume and self._n_bags > 1:
            refuse_bags(self, "partial_fit")
        context = take_context(self)
        if context is not None:
            groups = context.groups if groups is None else groups
            ordered = ordered or context.ordered
        resume = resume and hasattr(self, "network_")
        seed = draw_seed(self.random_state)
        passed = X, y
        X, y, weights, groups = self._read_training_rows(
            X, y, sample_weight, groups, seed=seed, shared=shared, resume=resume
        )
        passed = with_weight(weights, *passed)
        X, y, weights, groups = with_weight(weights, X, y, weights, groups)
        order = {"groups": groups, "ordered": ordered}
        if self._n_bags > 1:
            rows = (X, y, weights, (X_val, y_val, weights_val))
            return self._train_bags(passed, rows, seed, shared=shared, **order)
        vars(self).pop("bags_", None)

        held_out, stops = None, False
        n_all = n_rows(X) if shared is None else shared.n_rows
        if X_val is not None or y_val is not None:
            held_out = self._read_validation(X_val, y_val, weights_val, shared)
            stops = not is_bool(self.early_stopping, False)
        elif watch and self._stops_early(n_rows(X)):
            if split is None:
                split = self._held_out_rows(X, y, self._split_seed, **order)
            if split is not None:
                stops = True
                held_out = taken(split[1], X, y, weights)
                X, y, weights = taken(split[0], X, y, weights)

        if not resume:
            self._learn_columns(X, y, weights, shared)
            self._warn_of_rounding(passed[0])
        prepared, objective = self._prepare_fit(
            (X, y, weights),
            held_out,
            passed_validation=(X_val is not None, y_val is not None),
            seed=seed,
            resume=resume,
        )
        epochs = self._max_epochs() if epochs is None else epochs
        task = contextlib.nullcontext()
        if not is_bag:
            task = fit_tasks(self, n_epochs=epochs, X=X, y=y, weights=weights)
        with task:
            self._fit_network(
                prepared,
                objective=objective,
                seed=seed,
                epochs=epochs,
                batch_size=self._rows_in_batch(n_all),
                stops=stops,
                resume=resume,
                watch=watch,
                is_bag=is_bag,
            )
        return self

    def _read_training_rows(self, X, y, sample_weight, groups, *, seed, shared, resume):
        """Validate the rows of a fit: X, y, weights and groups as the estimator reads them."""
        X_raw, X = X, read_rows(self, X, reset=not resume)
        resolve_object_columns(X)
        y = self._read_target(y, shared=shared, reset=not resume)
        if y is not None:
            check_consistent_length(X, y)
        weights = check_weights(sample_weight, X)
        groups = check_groups(groups, X)
        if not resume:
            self._refuse_too_few_rows(X, y, weights, shared)
            self._split_seed = seed  # a fit that continues holds out the same rows
            self._file = os.fspath(self.model) if is_path(self.model) else None
            self._float32 = is_float32(X_raw)  # as did the steps before, if there are any
        if getattr(self, "sampler", None) is not None:
            announce_memory(X, f"sampler={described(self.sampler)}")
            X = in_memory(X)
        return X, y, weights, groups

    def _prepare_fit(self, rows, held_out, *, passed_validation, seed, resume):
        """What the fit trains, see `prepared_fit`, and its objective.

        ``rows`` are X, y and weights of the training rows, ``held_out`` those of the rows that
        early stopping monitors, or None; ``passed_validation`` is whether the user passed the X and
        the y of these.
        """
        from skstack.losses._teacher_fit import prepared_fit

        X, y, weights = rows
        inputs = self.blocks_.split(X)
        blueprint, start = self._prepared_network(inputs, y, weights, seed, resume)
        self._check_numbers(blueprint, y, "y")
        if held_out is not None:
            self._check_numbers(blueprint, held_out[1], "y_val" if passed_validation[1] else "y")
        if passed_validation[0]:
            warn_if_validation_moved(self.input_profile_, held_out[0])
            self._warn_of_moved_targets(y, held_out[1])

        resampled, y, weights = self._resample(inputs, y, weights, seed, resume)
        objective = self._objective(blueprint)
        table = self._table(resampled, y, weights, objective)
        table = self._smoothed(table, label_smoothing_of(blueprint), objective)
        validation = None
        if held_out is not None:
            rows_val = in_memory(held_out[0])
            with errors_named("X_val") if passed_validation[0] else contextlib.nullcontext():
                inputs_val = self.blocks_.split(rows_val)
            validation = self._table(inputs_val, *held_out[1:], objective)
        prepared = prepared_fit(
            self,
            blueprint,
            start,
            seed=seed,
            before=self._beside_network if resume else {},
            tables=(table, validation),
            rows=(X, None if held_out is None else held_out[0]),
            resampled=resampled is not inputs,
        )
        return prepared, objective

    def _learn_columns(self, X, y, weights, shared):
        """Learn the columns of X from training rows."""
        counts = self._column_weights(y, weights)
        self.blocks_ = self._blocks_of(X, None if shared is None else shared.blocks, counts)
        if shared is None:  # else checked on all rows of the cross-fit
            self._check_origin(X)
        self.input_profile_ = ColumnProfile.of(X, self.blocks_.categorical_features, weights)

    def _train_bags(self, passed, rows, seed, *, shared, groups, ordered):
        """Train ``n_bags`` networks on rows as the user passed them; ``rows`` are those read."""
        X, y, weights, validation = rows
        self._learn_columns(X, y, weights, shared)
        own = CrossFitContext(self.blocks_, self._shared_targets(), n_rows(X))
        context = context_of_bags(shared, own)
        splits = [None] * self._n_bags
        if validation[0] is validation[1] is None and self._stops_early(n_rows(X)):
            splits = bag_splits(self, X, y, seed, groups=groups, ordered=ordered)
        settings = {"weights": weights, "groups": groups, "ordered": ordered}
        with fit_tasks(self, self._n_bags, parallel=True, X=X, y=y, weights=weights):
            fit_bags(self, passed, context, splits, seed, validation=validation, **settings)
        return self

    @property
    def _n_bags(self):
        return getattr(self, "n_bags", 1)  # an autoencoder has no such parameter

    def _check_origin(self, X):
        origin = continued_estimator(self.model)
        if origin is not None:
            check_continues(self, origin, X)

    def _warn_of_rounding(self, X):
        """Warn of columns that are constant, or nearly so, in float32."""
        if isinstance(X, DiskTable) and is_float32(X):
            return
        for block, indices in self.blocks_.column_indices().items():
            if isinstance(self.blocks_.part(block), NumericBlock):
                X = in_memory(glanced(X)[0])
                warn_if_too_fine_for_float32(X, indices)

    def _moments_of(self, inputs, weights):
        origin = continued_estimator(self.model)
        if origin is not None:  # its weights were trained on that scale
            return origin.moments_
        return {
            block.name: weighted_moments(inputs[block.name], weights)
            for block in self.blocks_.blocks_
            if block.kind == "numeric"
        }

    def _read_validation(self, X_val, y_val, weights, shared):
        if X_val is None or (y_val is None and self._target_required):
            missing = "X_val" if X_val is None else "y_val"
            raise ValueError(f"X_val and y_val must be passed together, but {missing} is None.")
        with errors_named("X_val"):  # which columns are categories is not known yet
            X_val = read_rows(self, X_val, reset=False, exact=True)
        try:
            y_val = self._read_target(y_val, shared=shared, reset=False)
        except ValueError as error:
            raise ValueError(f"y_val: {error}") from error
        if y_val is not None:
            with errors_named("X_val and y_val"):
                check_consistent_length(X_val, y_val)
        weights = check_weights(weights, X_val)
        return with_weight(weights, X_val, y_val, weights)

    def _stops_early(self, n):
        if _is_auto(self.early_stopping):
            return _is_auto(self.epochs) and n >= _FEWEST_ROWS_TO_STOP
        return self.early_stopping

    def _held_out_rows(self, X, y, seed, *, groups, ordered, fraction=None):
        """Training and hold-out rows; None if early stopping is "auto" and there are too few."""
        n = n_rows(X)
        y = np.empty(n) if y is None else y
        labels = self._class_columns(y)

        def split(rows):
            return hold_out(
                y[rows],
                fraction=self.validation_fraction if fraction is None else fraction,
                stratify=is_classifier(self),
                labels=() if is_classifier(self) else [column[rows] for column in labels],
                seed=seed,
                groups=None if groups is None else groups[rows],
                ordered=ordered,
            )

        if not _is_auto(self.early_stopping):
            return split(np.arange(n))
        for eligible in _choices_to_hold_out_of(() if ordered else labels, groups, n):
            with contextlib.suppress(ValueError):  # too few rows of a class, or groups
                held_out = eligible[split(eligible)[1]]
                return np.setdiff1d(np.arange(n), held_out), held_out
        return None

    def _class_columns(self, y):
        """The columns of y that are classes; all those of a classifier."""
        return np.reshape(y, (len(y), -1)).T if is_classifier(self) else ()

    def _max_epochs(self):
        if not _is_auto(self.epochs):
            return self.epochs
        recipe = self._default_recipe() if self.model is None else self.model
        return recipe.max_epochs if isinstance(recipe, Recipe) else Recipe.max_epochs

    def _rows_in_batch(self, n):
        if not _is_auto(self.batch_size):
            return self.batch_size
        return next(size for bound, size in _BATCH_SIZES if n < bound)

    def _refuse_too_few_rows(self, X, y, weights, shared=None):
        if n_rows(X) < 2:
            raise ValueError(
                f"{type(self).__name__} needs at least 2 samples to learn from; got n_samples=1."
            )

    def _table(self, inputs, y, weights, objective):
        from skstack._training.config import TrainingData

        weights = self._row_weights(y, weights)
        objective.check_weights(weights)
        if weights is not None and weights.size and weights.min() == weights.max() > 0:
            weights = None  # only proportions matter; the bits are those without weights
        return TrainingData(inputs, self._targets(inputs, y), weights)

    def _smoothed(self, table, smoothing, objective):
        """Training rows with smoothed labels."""
        if smoothing:
            raise ValueError(
                f"label_smoothing={smoothing!r} of model={described(self.model)} is for "
                f"KerasClassifier; with {type(self).__name__} it must be 0."
            )
        return table

    def _network_to_train(self, seed, resume, inputs=None, weights=None):
        """Blueprint of the network, and its initial variables."""
        from skstack._training.initial_weights import initial_variables
        from skstack.losses._teacher import without_teacher

        if resume:
            blueprint, start = without_teacher(self.network_)
            self._warn_if_changed(blueprint)
            return blueprint, start
        origin = continued_estimator(self.model)
        if origin is not None:
            self._network_task = origin._network_task
            blueprint, start = without_teacher(origin.network_)
            return blueprint, dict(start)

        # A clone: parameters that are set in the recipe later apply to the next fit only.
        model = clone_part(self.model)
        spec, head = self._spec()
        blueprint = blueprint_for(model, spec, default=self._default_recipe(), head=head)
        self._network_task = blueprint.spec.task
        if blueprint.continued:
            check_categories(blueprint.model, self.blocks_.categories_)
            start = blueprint.start_variables()
        else:
            start = initial_variables(blueprint, seed)
            if isinstance(blueprint, RecipeBlueprint):
                blueprint.initialize(start)
            for block in self.blocks_.blocks_:
                self._standardize(block, start, model, inputs, weights)
        return blueprint, start

    def _warn_if_changed(self, blueprint):
        """Warn of parameters that do not match the network that is trained further."""
        if continued_estimator(self.model) is not None:
            return
        pairs = {n: (getattr(self, n), getattr(self.blocks_, n)) for n in COLUMN_PARAMETERS}
        if isinstance(blueprint, RecipeBlueprint):
            asked = self._default_recipe() if self.model is None else self.model
            pairs["model"] = asked, blueprint.recipe
        elif isinstance(blueprint, BuilderBlueprint):
            pairs["model"] = self.model, blueprint.recipe
        elif isinstance(blueprint, ModelBlueprint) and self.model is not blueprint.model:
            asked = self.model
            if is_path(asked):  # the file of the fit is not read again
                known = os.fspath(asked) == getattr(self, "_file", None)
                asked = blueprint.model if known else load_model(asked)
            pairs["model"] = asked, blueprint.model
        changed = [
            f"{name}={described(getattr(self, name))}"
            for name, (asked, fitted) in pairs.items()
            if comparable(asked) != comparable(fitted)
        ]
        if changed:
            warnings.warn(
                f"{', '.join(changed)}: the fitted network has another setting, and is trained "
                "further unchanged. `fit` with warm_start=False trains a new network.",
                UserWarning,
                stacklevel=caller_level(),
            )

    def _prepared_network(self, inputs, y, weights, seed, resume):
        """Blueprint of the network, and initial variables that are learned from training rows."""
        counts = self._column_weights(y, weights)
        if not resume:
            self.moments_ = self._moments_of(inputs, counts)
        blueprint, start = self._network_to_train(seed, resume, inputs, counts)
        if not resume:
            self._learn_start(blueprint, start, inputs, y, counts, seed)
            self._learn_target_scale(blueprint, start, inputs, y, weights)
        return blueprint, start

    def _spec(self):
        """The spec of the network, and the fields of a recipe's that the loss requires."""
        from skstack._training.objective import head_for

        task, n_outputs = self._task()
        loss = self._task_loss
        head = {} if _is_auto(loss) else head_for(loss, task, n_outputs)
        return Spec(self.blocks_.blocks_, task, n_outputs), head

    def _standardize(self, block, start, model, inputs, weights):
        """Write the moments of training rows into the layers that standardise."""
        if block.kind not in ("numeric", "sequence") or f"{block.name}_center/bias" not in start:
            return
        if block.kind == "sequence" and inputs is not None:
            padding = getattr(model, "mask_value", None)
            self.moments_[block.name] = moments_of_steps(inputs[block.name], padding, weights)
        if block.name in self.moments_:
            steps = block.kind == "sequence"
            start.update(
                standardizing_variables(block.name, *self.moments_[block.name], steps=steps)
            )

    def _learn_start(self, blueprint, start, inputs, y, weights, seed):
        """Learn initial variables, such as quantiles of numeric columns, from training rows."""
        if (
            not isinstance(blueprint, RecipeBlueprint)
            or continued_estimator(self.model) is not None
        ):
            return

        @functools.cache
        def few():
            some = sample_of_rows(len(next(iter(inputs.values()))))
            rows, targets, counts = inputs, y, weights
            if some is not None:
                rows = {name: array[some] for name, array in inputs.items()}
                targets, counts = (None if each is None else each[some] for each in (y, weights))
            return rows, None if y is None else self._bin_targets(targets, counts), counts

        for block in self.blocks_.blocks_:
            if block.kind == "numeric":
                moments = self.moments_[block.name]
                start.update(learned_variables(blueprint.spec, block.name, start, few, moments))
        blueprint.initialize_from_rows(start, inputs, weights, seed)

    def _bin_targets(self, y, weights):
        """Targets for a decision tree, and whether they are classes."""
        return y, False

    @property
    def _task_loss(self):
        """The loss of predictions and y, without a teacher's term."""
        from skstack.losses._teacher_loss import task_loss

        return task_loss(self.loss)

    def _fit_network(
        self, prepared, *, objective, seed, epochs, batch_size, stops, resume, watch, is_bag
    ):
        from skstack._training.config import StepRules, TrainConfig
        from skstack._training.train import train

        before = self._epochs_trained if resume else 0
        rules = rules_of(prepared.student_blueprint) or StepRules()
        metrics, public_metrics = self._metrics(prepared.student_blueprint, objective)
        monitor = self._monitor(prepared.student_blueprint)

        def fitted(network, history):
            return self._fitted_attributes(prepared, network, history, monitor, stops)

        config = TrainConfig(
            loss=prepared.loss,
            optimizer=self._optimizer(prepared.student_blueprint),
            learning_rate=self._learning_rate(
                prepared.student_blueprint, -(-len(prepared.table) // batch_size)
            ),
            clipnorm=self.clipnorm,
            metrics=prepared.metrics(metrics),
            epochs=epochs,
            batch_size=batch_size,
            callbacks=self._copied_callbacks(),
            patience=(epochs if rules.scheduled else self.n_iter_no_change) if stops else None,
            tol=self.tol,
            monitor=monitor,
            engine=self.engine,
            seed=seed + before,
            verbose=self.verbose,
            public=self._callback_network(prepared, objective, public_metrics),
            rules=rules,
            dense_gradients=isinstance(prepared.student_blueprint, RecipeBlueprint),
            constant=not watch,
            attributes=None if is_bag else fitted,
        )
        fit = train(
            prepared.blueprint,
            prepared.start,
            prepared.table,
            config,
            validation=prepared.validation,
            optimizer_start=self._optimizer_variables if resume and prepared.resumes else None,
            optimizer_layout=getattr(self, "_optimizer_layout", None),
        )
        vars(self).update(fitted(fit.network, fit.history))
        self.n_iter_ = fit.n_epochs
        self._epochs_trained = before + fit.n_epochs
        self._optimizer_variables = fit.optimizer_variables
        self._optimizer_layout = fit.optimizer_layout
        whole = fit.n_epochs == epochs and not fit.interrupted and not rules.scheduled
        if stops and _is_auto(self.epochs) and whole:
            self._warn_of_few_epochs(epochs, "loss" if monitor is None else monitor[0])
        if fit.interrupted:
            kept = "best" if stops else "last"
            warnings.warn(
                f"Training interrupted by user after epoch {fit.n_epochs} of {epochs}. The weights "
                f"of the {kept} finished epoch are kept.",
                UserWarning,
                stacklevel=2,
            )

    def _warn_of_few_epochs(self, epochs, name):
        """Warn if one of the last epochs was the best."""
        best = self._best_epoch()
        if best > epochs - self.n_iter_no_change:
            warn_once(
                "epochs",
                f"The {name} on hold-out rows was best in epoch {best} of {epochs}, so more "
                f"epochs might improve it. Set epochs, such as epochs={2 * epochs}, with "
                "early_stopping=True, or a larger learning_rate.",
                ConvergenceWarning,
            )

    def _fitted_attributes(self, prepared, network, history, monitor, stops):
        """The attributes of an estimator whose network was trained, by name."""
        network, teacher, beside = prepared.finish(network)
        name, greater_is_better = monitor or ("loss", False)
        values, sign = history.get(f"val_{name}"), 1 if greater_is_better else -1
        loss_curve = list(history.get("loss", ()))
        return {
            "network_": network,
            "_teacher": teacher,
            "_beside_network": beside,
            "n_iter_": len(next(iter(history.values()), ())),
            "history_": history,
            "loss_curve_": loss_curve,
            "validation_scores_": None if values is None else [sign * value for value in values],
            "early_stopped_": stops,
        }

    def _best_epoch(self):
        """Number of the epoch whose weights were kept: of equally good ones the last, never NaN."""
        scores = np.array(self.validation_scores_)
        scores[np.isnan(scores)] = -np.inf
        return len(scores) - int(np.argmax(scores[::-1]))

    def _objective(self, blueprint):
        """The loss and the form of targets that it expects; see ``resolve_objective``."""
        from skstack._training.objective import resolve_objective

        loss = self._task_loss
        if _is_auto(loss):
            compiled = blueprint.loss
            loss = self._default_loss() if compiled is None else compiled
        return resolve_objective(loss, task=self._network_task, n_outputs=self._task()[1])

    def _loss(self, blueprint):
        return self._objective(blueprint).loss

    def _metrics(self, blueprint, objective):
        """Metrics for the network in training, and for outputs in the units of y."""
        requested = self._requested_metrics(blueprint)
        if not (self.early_stopping_metric == "loss" or self._find_monitored(requested)[0]):
            requested = (*requested, self.early_stopping_metric)
        mean, scale, bounds = self._target_units(blueprint)
        metrics = objective.metrics(requested, mean, scale, bounds)
        return metrics, objective.metrics(requested, None, None, bounds)

    def _requested_metrics(self, blueprint):
        return (blueprint.metrics if self.metrics is None else self.metrics) or ()

    def _find_monitored(self, metrics):
        from skstack._training.objective import find_monitored

        return find_monitored(self.early_stopping_metric, metrics)

    def _monitor(self, blueprint):
        """See ``TrainConfig.monitor``."""
        if self.early_stopping_metric == "loss":
            return None
        _, greater_is_better = self._find_monitored(self._requested_metrics(blueprint))
        return self.early_stopping_metric, greater_is_better

    def _target_units(self, blueprint):
        """Mean and scale of standardised targets, and bounds of the predictions."""
        return None, None, None

    def _callback_network(self, prepared, objective, metrics):
        """The network that is passed to callbacks: that of ``model_``."""
        from skstack._training.config import Public

        if not self._listed_callbacks():
            return None
        if not prepared.keeps_outputs:
            warnings.warn(
                f"callbacks of {type(self).__name__} receive the network that is trained with its "
                f"teacher (mode={self.loss.mode!r}); its predictions differ from those of "
                "predict. The final network is model_.",
                UserWarning,
                stacklevel=2,
            )
            return None
        return Public(
            lambda model: self._public_model(prepared.public(model)), objective.loss, metrics
        )

    def _optimizer(self, blueprint):
        if _is_auto(self.optimizer):
            compiled = blueprint.optimizer
            return "adam" if compiled is None else compiled
        return self.optimizer

    def _learning_rate(self, blueprint, n_steps):
        """The learning rate for epochs of `n_steps` steps; None keeps that of the optimizer."""
        if not _is_auto(self.learning_rate):
            return self.learning_rate
        own = _is_auto(self.optimizer) and isinstance(blueprint, RecipeBlueprint)
        return blueprint.learning_rate(n_steps) if own else None

    def _listed_callbacks(self):
        callbacks = self.callbacks
        if callbacks is None:
            return []
        return list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]

    def _copied_callbacks(self):
        from skstack._training.objective import variables_of

        callbacks = self._listed_callbacks()
        if not callbacks:
            return ()
        losses, metrics = self._losses_and_metrics()
        read = [variable for each in (*losses, *metrics) for variable in variables_of(each)]
        try:
            return tuple(copied(callbacks, read))
        except TypeError as error:
            explain_uncopied("callbacks", self.callbacks, error)
            raise

    # Predictions -----------------------------------------------------------------------------

    def _inputs(self, X):
        check_is_fitted(self)
        X = read_rows(self, X, reset=False)
        inputs = self.blocks_.split(X)
        return inputs if self._teacher is None else self._teacher.add_input(self, X, inputs)

    def _outputs(self, X):
        """Outputs of the network for X, a float32 array."""
        inputs = self._inputs(X)
        return self.network_.outputs(inputs)[0]

    def _layer_outputs(self, X, layers, rows_at_once=None, pooling=None):
        """Outputs of named layers, from one forward pass."""
        refuse_bags(self, f"layers={list(layers)!r}")
        inputs = self._inputs(X)
        return self.network_.outputs(inputs, tuple(layers), rows_at_once, pooling)

    # As layers of one model; see `_graph.dispatch.GraphPart` ---------------------------------

    def _network_graph(self, table, name, *, layers=(), ends=True, network=None, pooling=None):
        """Input tensors of the network, its outputs, and the outputs of inner layers."""
        from skstack._graph.networks import apply_network
        from skstack._graph.tables import input_tensors

        tensors = input_tensors(table, self.blocks_, name, f"{type(self).__name__} {name!r}")
        inputs = tensors
        # In joint fine-tuning its predictions are inputs already.
        if self._teacher is not None and self._teacher.name_of_input not in tensors:
            inputs = self._teacher.graph_inputs(self, table, tensors, f"{name}_teacher")
        network = self.network_ if network is None else network
        settings = {"layers": layers, "ends": ends, "pooling": pooling}
        return tensors, *apply_network(network, inputs, name, finish=self._finish_model, **settings)

    def _column_readers(self, indices, name, pad, transforms):
        from skstack._graph.dispatch import block_readers

        if is_bagged(self):  # all read the same columns
            yield from self.bags_[0]._column_readers(indices, name, pad, transforms)
            return
        yield from block_readers(self.blocks_, indices, pad)
        if self._teacher is not None:
            yield from self._teacher.column_readers(indices, name)
