"""What the three network estimators share: rows in, a trained network out."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, is_classifier, is_regressor
from sklearn.impute import SimpleImputer
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from skstack._base.atomic_fit import atomic_fit, on_snapshot
from skstack._base.params import (
    clone_part,
    clone_sharing_models,
    draw_seed,
    explain_missing_parameters,
)
from skstack._base.sklearn import INPUT_CONSTRAINTS, HasMethods, Interval, StrOptions, check_shape
from skstack._base.tables import check_groups, check_weights, n_rows, read_rows, take_rows
from skstack._splits.hold_out import hold_out
from skstack._splits.row_context import take_context
from skstack.networks._continued import (
    check_categories,
    check_continues,
    continued_estimator,
    named_after_categories,
)
from skstack.networks._heads import with_plain_input
from skstack.networks._model_parameter import blueprint_for, check_model
from skstack.networks._recipe import Recipe
from skstack.networks._spec import Spec, standardizing_variables
from skstack.preprocessing._block_kinds import NumericBlock
from skstack.preprocessing._blocks import ColumnBlocks
from skstack.preprocessing._column_profile import (
    ColumnProfile,
    warn_if_validation_moved,
    warn_if_validation_targets_moved,
)
from skstack.preprocessing._columns import resolve_object_columns
from skstack.preprocessing._moments import moments_of_steps, weighted_moments
from skstack.preprocessing._precision import warn_if_too_fine_for_float32

EARLY_STOPPING_ROWS = 10_000


@dataclass(frozen=True)
class CrossFitContext:
    """What all networks of one cross-fit share, so that they have one shape and one start.

    ``blocks`` gives the codes of categories, ``classes`` the units of the output. Neither says
    which of them a fold's own rows hold: that each fold learns from its training rows.
    """

    blocks: ColumnBlocks
    classes: np.ndarray | None = None


def _is_auto(value):
    return isinstance(value, str) and value == "auto"


def _rows(X, y, weights, numbers):
    return tuple(None if part is None else take_rows(part, numbers) for part in (X, y, weights))


class NetworkEstimator(BaseEstimator):
    """Base of the estimators that train one network; not for use by itself."""

    # As scikit-learn's group splitters: with routing on, groups come without being asked for.
    __metadata_request__fit = {"groups": True}

    _target_required = True
    _guide = None  # the teacher whose predictions the network takes, if any

    _parameter_constraints = {
        "model": "no_validation",
        "optimizer": "no_validation",
        "learning_rate": [
            StrOptions({"auto"}),
            Interval(Real, 0, None, closed="neither"),
            HasMethods(["get_config"]),
        ],
        "loss": [str, callable, HasMethods(["get_config"]), HasMethods(["get_params"])],
        "metrics": [None, list, tuple],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": [StrOptions({"auto"}), "boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
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

    def _validate_params(self):
        """Refuse parameters that no network can be made of or trained with."""
        super()._validate_params()
        from skstack._training.optimizers import check_settings
        from skstack.losses._teacher_loss import TeacherLoss

        if isinstance(self.loss, TeacherLoss):
            self.loss._validate_params()
        check_model(self.model)
        check_shape(self.input_shape)
        if self.imputer is not None and self.imputer.missing_values == self.imputer.missing_values:
            raise ValueError(
                f"imputer={self.imputer!r} looks for missing_values="
                f"{self.imputer.missing_values!r}; inside a network NaN alone is missing. Put such "
                "an imputer before the network, in a Pipeline."
            )
        check_settings(
            optimizer="adam" if _is_auto(self.optimizer) else self.optimizer,
            learning_rate=None if _is_auto(self.learning_rate) else self.learning_rate,
            loss=None if _is_auto(self._task_loss) else self._task_loss,
            metrics=self.metrics or (),
            callbacks=self._listed_callbacks(),
        )

    def __sklearn_clone__(self):
        return clone_sharing_models(self)

    def set_params(self, **params):
        """Set parameters, of the recipe too (``model__dropout``).

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
            For a name that does not exist, or one that belongs to a path, a ``keras.Model`` or
            None.
        """
        explain_missing_parameters(self, params, self._remedy)
        return super().set_params(**params)

    def _remedy(self, name, value):
        if name == "model":
            recipe = type(self._default_recipe()).__name__
            return f"Pass a recipe, such as model={recipe}(), and set its parameters."
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
        return hasattr(self, "network_")

    @property
    @on_snapshot
    def model_(self):
        """keras.Model : the trained network in y's units; a copy, built when first asked for."""
        check_is_fitted(self)
        return self.network_.public(self._public_model)

    def _public_model(self, model):
        model = with_plain_input(self._finish_model(model))
        return named_after_categories(model, self.blocks_.categories_)

    def _splits_rows(self, only_fit):
        """Whether a fit is sure to set rows aside."""
        return self.early_stopping is True

    def _check_ordered(self, context, X, y, only_fit):
        """Nothing to refuse: early stopping watches the last rows."""

    # What a subclass says of itself --------------------------------------------------------

    def _default_recipe(self):
        raise NotImplementedError

    def _read_target(self, y, *, frame, reset):
        """Check y; learn classes or the number of targets."""
        raise NotImplementedError

    def _task(self):
        """Task and number of outputs for the spec."""
        raise NotImplementedError

    def _learn_target_scale(self, blueprint, start, inputs, y, weights):
        """Learn the moments of the targets from training rows; nothing to learn by default."""

    def _check_numbers(self, blueprint, y, what):
        """Refuse targets that the loss or the head cannot deal with; anything goes by default."""

    def _targets(self, inputs, y):
        """Targets in the form that the loss takes."""
        raise NotImplementedError

    def _row_weights(self, y, weights):
        """Weights of rows in the loss."""
        return weights

    def _column_weights(self, y, weights):
        """Weights of training rows in what is learned of columns: moments, what fills gaps."""
        return weights

    def _resample(self, inputs, y, weights, moments):
        """Training rows after the sampler; unchanged by default."""
        return inputs, y, weights

    def _finish_model(self, model):
        return model

    # The way of the rows -------------------------------------------------------------------

    def _blocks_of(self, X, like=None, weights=None):
        """How X becomes the network's inputs: as for the network that is continued, or learned."""
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
        return blocks.fit(X, like=like, sample_weight=weights)

    def _frame(self, X, y, layers=(), weights=None):
        """Categories and classes of all rows of a cross-fit; see ``CrossFitContext``.

        Layers that will be read must exist: training takes too long to find out afterwards.
        """
        twin = clone_sharing_models(self)
        X = read_rows(twin, X, reset=True)
        twin._read_target(y, frame=None, reset=True)
        counted = (
            X if weights is None or not np.any(weights) else take_rows(X, np.flatnonzero(weights))
        )
        blocks = twin._blocks_of(counted)
        twin.blocks_, twin.moments_ = blocks, {}
        twin._check_origin(X)
        if layers:
            from skstack._training.layers import check_layers

            check_layers(twin._network_to_train(0, resume=False)[0], layers)
        return CrossFitContext(blocks, getattr(twin, "classes_", None))

    def _fit_in_frame(self, X, y, frame, *, ordered=False, **metadata):
        """Fit as one of the networks of a cross-fit; ``ordered`` rows stand in order of time."""
        self._validate_params()
        return self._train(X, y, **metadata, frame=frame, ordered=ordered)

    @atomic_fit
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
        frame=None,
        resume=False,
        epochs=None,
        watch=True,
    ):
        """Learn everything from training rows; the rows that are watched teach nothing."""
        from skstack.losses._teacher_fit import taught

        context = take_context(self)
        if context is not None:
            groups = context.groups if groups is None else groups
            ordered = ordered or context.ordered
        resume = resume and hasattr(self, "network_")
        seed = draw_seed(self.random_state)
        given, X = X, read_rows(self, X, reset=not resume)
        resolve_object_columns(X)
        y = self._read_target(y, frame=frame, reset=not resume)
        if y is not None:
            check_consistent_length(X, y)
        weights = check_weights(sample_weight, X)
        groups = check_groups(groups, X)
        if not resume:
            self._refuse_too_few_rows(X, y, weights)
        X, y, weights, groups = self._rows_that_count(X, y, weights, groups)

        held_out, stops = None, False
        if X_val is not None or y_val is not None:
            held_out = self._read_validation(X_val, y_val, frame)
            stops = self.early_stopping is not False
        elif watch and self._stops_early(n_rows(X)):
            stops = True
            train, rest = hold_out(
                np.empty(n_rows(X)) if y is None else y,
                fraction=self.validation_fraction,
                stratify=is_classifier(self) and y.ndim == 1,
                seed=seed,
                groups=groups,
                ordered=ordered,
            )
            held_out = _rows(X, y, weights, rest)
            X, y, weights = _rows(X, y, weights, train)

        counts = self._column_weights(y, weights)
        if not resume:
            like = None if frame is None else frame.blocks
            self.blocks_ = self._blocks_of(X, like, counts)
            if frame is None:  # else the frame has looked at all rows
                self._check_origin(X)
            self._warn_of_rounding(given)
        inputs = self.blocks_.split(X)
        if not resume:
            self.moments_ = self._moments_of(inputs, counts)
            self.input_profile_ = ColumnProfile.of(X, self.blocks_.categorical_features, weights)
        blueprint, start = self._network_to_train(seed, resume, inputs, counts)
        if not resume:
            self._learn_target_scale(blueprint, start, inputs, y, weights)
        self._check_numbers(blueprint, y, "y")
        if held_out is not None:
            self._check_numbers(blueprint, held_out[1], "y" if y_val is None else "y_val")
        if X_val is not None:
            warn_if_validation_moved(self.input_profile_, held_out[0])
            if is_regressor(self):
                warn_if_validation_targets_moved(y, held_out[1])

        drawn, y, weights = self._resample(inputs, y, weights, seed)
        objective = self._objective(blueprint)
        table = self._table(drawn, y, weights, objective)
        validation = None
        if held_out is not None:
            validation = self._table(self.blocks_.split(held_out[0]), *held_out[1:], objective)
        taught = taught(
            self, blueprint, start, seed=seed, before=self._beside_network if resume else {},
            tables=(table, validation), rows=(X, None if held_out is None else held_out[0]),
            drawn=drawn is not inputs,
        )  # fmt: skip
        self._fit_network(
            taught,
            objective=objective,
            seed=seed,
            epochs=self.epochs if epochs is None else epochs,
            stops=stops,
            resume=resume,
        )
        return self

    def _check_origin(self, X):
        origin = continued_estimator(self.model)
        if origin is not None:
            check_continues(self, origin, X)

    def _warn_of_rounding(self, X):
        """Warn of columns that are constants, or nearly, once they are float32."""
        for block, places in self.blocks_.column_indices().items():
            if isinstance(self.blocks_.part(block), NumericBlock):
                warn_if_too_fine_for_float32(X, places)

    def _moments_of(self, inputs, weights):
        origin = continued_estimator(self.model)
        if origin is not None:  # its weights were learned on columns of that scale
            return origin.moments_
        return {
            block.name: weighted_moments(inputs[block.name], weights)
            for block in self.blocks_.blocks_
            if block.kind == "numeric"
        }

    def _read_validation(self, X_val, y_val, frame):
        if X_val is None or (y_val is None and self._target_required):
            missing = "X_val" if X_val is None else "y_val"
            raise ValueError(f"X_val and y_val belong together, but {missing} is None.")
        X_val = read_rows(self, X_val, reset=False)
        try:
            y_val = self._read_target(y_val, frame=frame, reset=False)
        except ValueError as error:
            raise ValueError(f"y_val: {error}") from error
        if y_val is not None:
            check_consistent_length(X_val, y_val)
        return X_val, y_val, None

    def _stops_early(self, n):
        if self.early_stopping == "auto":
            return n > EARLY_STOPPING_ROWS
        return self.early_stopping

    def _refuse_too_few_rows(self, X, y, weights):
        if n_rows(X) < 2:
            raise ValueError(
                f"{type(self).__name__} needs at least 2 samples to learn from; got n_samples=1."
            )

    def _rows_that_count(self, X, y, weights, groups):
        """Rows of weight zero left out: they are no rows, to no part of a fit."""
        if weights is None or weights.all():
            return X, y, weights, groups
        rows = np.flatnonzero(weights)
        if len(rows) < 1:
            raise ValueError(
                "sample_weight is 0 for all rows, so there is nothing to learn from; at least one "
                "must be positive."
            )
        return *_rows(X, y, weights, rows), None if groups is None else groups[rows]

    def _table(self, inputs, y, weights, objective):
        from skstack._training.config import TrainingData

        weights = self._row_weights(y, weights)
        objective.check_weights(weights)
        return TrainingData(inputs, self._targets(inputs, y), weights)

    def _network_to_train(self, seed, resume, inputs=None, weights=None):
        """What to build, and the variables to start from."""
        from skstack._training.initial_weights import initial_variables
        from skstack._training.objective import head_for
        from skstack.losses._teacher import without_guide

        if resume:
            return without_guide(self.network_)
        origin = continued_estimator(self.model)
        if origin is not None:
            self._network_task = origin._network_task
            blueprint, start = without_guide(origin.network_)
            return blueprint, dict(start)

        task, n_outputs = self._task()
        spec = Spec(self.blocks_.blocks_, task, n_outputs)
        # A clone, for parameters set in the recipe later are those of the next network.
        model = clone_part(self.model)
        loss = self._task_loss
        head = {} if _is_auto(loss) else head_for(loss, task, n_outputs)
        blueprint = blueprint_for(model, spec, default=self._default_recipe(), head=head)
        self._network_task = blueprint.spec.task
        if blueprint.continued:
            check_categories(blueprint.model, self.blocks_.categories_)
            start = blueprint.start_variables()
        else:
            start = initial_variables(blueprint, seed)
            for block in self.blocks_.blocks_:
                self._standardize(block, start, model, inputs, weights)
        return blueprint, start

    def _standardize(self, block, start, model, inputs, weights):
        """Put moments of training rows where the network has layers that standardise by them."""
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

    @property
    def _task_loss(self):
        """What compares predictions with y, whoever teaches besides."""
        from skstack.losses._teacher_loss import task_loss

        return task_loss(self.loss)

    def _fit_network(self, taught, *, objective, seed, epochs, stops, resume):
        from skstack._training.config import TrainConfig
        from skstack._training.train import train

        before = self._epochs_trained if resume else 0
        metrics, public_metrics = self._metrics(taught.own, objective)
        config = TrainConfig(
            loss=taught.loss,
            optimizer=self._optimizer(taught.blueprint),
            learning_rate=None if _is_auto(self.learning_rate) else self.learning_rate,
            metrics=taught.metrics(metrics),
            epochs=epochs,
            batch_size=self.batch_size,
            callbacks=tuple(copy.deepcopy(self._listed_callbacks())),
            patience=self.n_iter_no_change if stops else None,
            tol=self.tol,
            engine=self.engine,
            seed=seed + before,
            verbose=self.verbose,
            public=self._shown(taught, objective, public_metrics),
        )
        fit = train(
            taught.blueprint,
            taught.start,
            taught.table,
            config,
            validation=taught.validation,
            optimizer_start=self._optimizer_variables if resume and taught.goes_on else None,
        )
        self.network_, self._guide, self._beside_network = taught.finished(fit.network)
        self.n_iter_ = fit.n_epochs
        self.history_ = fit.history
        self.loss_curve_ = list(fit.history.get("loss", ()))
        watched = fit.history.get("val_loss")
        self.validation_scores_ = None if watched is None else [-loss for loss in watched]
        self._epochs_trained = before + fit.n_epochs
        self._optimizer_variables = fit.optimizer_variables

    def _objective(self, blueprint):
        """The loss, and the form of targets that it takes; see `resolve_objective`."""
        from skstack._training.objective import resolve_objective

        loss = self._task_loss
        if _is_auto(loss):
            compiled = blueprint.loss
            loss = self._default_loss() if compiled is None else compiled
        return resolve_objective(loss, task=self._network_task, n_outputs=self._task()[1])

    def _loss(self, blueprint):
        return self._objective(blueprint).loss

    def _metrics(self, blueprint, objective):
        """Metrics as the network is trained with them, and as they are for outputs in y's units."""
        given = (blueprint.metrics if self.metrics is None else self.metrics) or ()
        mean, scale, bounds = self._target_units(blueprint)
        metrics = objective.metrics(given, mean, scale, bounds)
        return metrics, objective.metrics(given, None, None, bounds)

    def _target_units(self, blueprint):
        """Mean and scale of standardised targets, and the bounds of predictions of numbers."""
        return None, None, None

    def _shown(self, taught, objective, metrics):
        """What callbacks see: the network as ``model_`` has it."""
        from skstack._training.config import Public

        if not self._listed_callbacks():
            return None
        if not taught.finishes:
            warnings.warn(
                f"callbacks of {type(self).__name__} see the network as it is trained with its "
                f"teacher (mode={self.loss.mode!r}): what they save or predict is not what "
                "predict gives. model_ is the finished network.",
                UserWarning,
                stacklevel=2,
            )
            return None
        return Public(self._public_model, objective.loss, metrics)

    def _optimizer(self, blueprint):
        if _is_auto(self.optimizer):
            compiled = blueprint.optimizer
            return "adam" if compiled is None else compiled
        return self.optimizer

    def _listed_callbacks(self):
        given = self.callbacks
        if given is None:
            return []
        return list(given) if isinstance(given, list | tuple) else [given]

    # After the fit ---------------------------------------------------------------------------

    def _inputs(self, X):
        check_is_fitted(self)
        X = read_rows(self, X, reset=False)
        inputs = self.blocks_.split(X)
        return inputs if self._guide is None else self._guide.beside(self, X, inputs)

    def _outputs(self, X):
        """What the network gives, one float32 array with a row for each row of X."""
        inputs = self._inputs(X)
        return self.network_.outputs(inputs)[0]

    def _layer_outputs(self, X, layers, rows_at_once=None, pooling=None):
        """Outputs of named layers, all from one pass."""
        inputs = self._inputs(X)
        return self.network_.outputs(inputs, tuple(layers), rows_at_once, pooling)

    # As layers of one model; see `_graph.dispatch.GraphPart` --------------------------------------

    def _network_graph(self, table, name, *, layers=(), ends=True, network=None, pooling=None):
        """Input tensors of the network, its outputs, and the outputs of inner layers."""
        from skstack._graph.networks import called
        from skstack._graph.tables import arrays

        tensors = arrays(table, self.blocks_, name, f"{type(self).__name__} {name!r}")
        inputs = tensors
        if self._guide is not None:
            inputs = self._guide.graph_inputs(self, table, tensors, f"{name}_teacher")
        network = self.network_ if network is None else network
        settings = {"layers": layers, "ends": ends, "pooling": pooling}
        return tensors, *called(network, inputs, name, finish=self._finish_model, **settings)

    def _column_readers(self, indices, name, pad):
        from skstack._graph.dispatch import block_readers

        yield from block_readers(self.blocks_, indices, pad)
        if self._guide is not None:
            yield from self._guide.column_readers(indices, name)
