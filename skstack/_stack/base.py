"""Base class of the two stacks: from upstream features to the downstream, without leakage."""

from __future__ import annotations

import copy
import time
import warnings
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import TransformerMixin, is_classifier, is_regressor
from sklearn.metrics import get_scorer_names
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch
from sklearn.utils.metadata_routing import UNUSED, process_routing
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from skstack._base.atomic_fit import (
    atomic_fit,
    caller_level,
    copy_of,
    on_snapshot,
    suppress_warning,
    trial_scope,
)
from skstack._base.diagram import diagram_of_stack
from skstack._base.disk_table import (
    DiskTable,
    announce_memory,
    in_memory,
    joined_frames,
    sample_of_rows,
    spread_rows,
)
from skstack._base.in_chunks import in_chunks
from skstack._base.params import (
    clone_part,
    clone_sharing_models,
    draw_seed,
    explain_missing_parameters,
    hint_at_parameters,
    is_bool,
    set_missing_seeds,
)
from skstack._base.progress import errors_named, fit_tasks, fitting, propagating
from skstack._base.sklearn import (
    CROSS_FIT_CONSTRAINTS,
    OUT_IS_NO_METADATA,
    BaseComposition,
    CallbackSupportMixin,
    HasMethods,
    Interval,
    Offers,
    StrOptions,
    accepts_fit_parameter,
    check_input_names,
    check_parts,
    fit_context,
    for_container,
    get_param_names,
    routing_enabled,
    set_input_tags,
    with_callbacks,
)
from skstack._base.tables import (
    check_names_of_targets,
    column_indices,
    columns_at,
    indexed_like,
    n_rows,
    names_of_targets,
    read_table,
    sampled,
    take_rows,
    taken,
    warn_if_one_hot,
)
from skstack._base.text import described, readable
from skstack._estimators.base import NetworkEstimator
from skstack._estimators.classifier import KerasClassifier
from skstack._estimators.regressor import KerasRegressor
from skstack._estimators.resampling import refuse_interpolated_categories
from skstack._features.cross_fit import FEW_ROWS, Metadata
from skstack._features.trial_columns import check_accepts, check_scaler, has_missing
from skstack._features.trial_targets import check_class_weight, check_folds, check_targets
from skstack._splits.folds import (
    listed_folds,
    orders_time,
    restricted_cv,
    seeded_splitter,
    shown_cv,
)
from skstack._splits.row_context import RowContext, pass_context, refuse_unreached, take_context
from skstack._splits.supervision import trains_network
from skstack._stack.blending import DOWNSTREAM, Blending, NestedFit, known_rows, would_blend
from skstack._stack.branches import (
    branch_column_indices,
    branch_list,
    branch_of,
    branch_seeds,
    checked_downstream,
    held_out_rows,
    named_branches,
    settle_folds,
    takes_nan,
    wants_names,
)
from skstack._stack.epochs import N_FOLDS, epochs_of_folds, leaves_epochs_open
from skstack._stack.fine_tune import FineTune, check_fine_tune, fine_tune
from skstack._stack.metadata import StackMetadata, routed_stack, routing_of_stack
from skstack._stack.scaling import Scaling, numeric_columns
from skstack._training import formulas
from skstack.ensemble._greedy import blend
from skstack.networks._mlp import MLP
from skstack.preprocessing._blocks import array_column_indices, categorical_mask_of
from skstack.preprocessing._column_profile import (
    ColumnProfile,
    in_float32,
    lost_in_float32,
    warn_if_validation_moved,
    warn_if_validation_targets_moved,
)
from skstack.preprocessing._columns import resolve_object_columns
from skstack.preprocessing._passthrough import Passthrough


def label_of(downstream):
    """Name of a downstream in errors."""
    return f"The downstream {type(downstream).__name__}"


_ROWS_TRIED = 2_000  # of a table on disk, to find out what a part refuses
_ROWS_BESIDE = 400  # of training, fitted with those to watch that a part does not accept alone


@dataclass(eq=False, repr=False)
class StackFit:
    """One fit of a stack: its rows and parts, then what is learned from them."""

    X: Any  # as y and metadata, of the rows to learn from; `keep` leaves some of them out
    y: np.ndarray
    metadata: StackMetadata
    seed: int
    cv: Any  # the folds of the branches
    order: Any  # `cv` if it is time-ordered, else None
    inside_order: bool  # whether the stack is part of a time-ordered fit
    branches: list  # of (name, transformer, columns)
    downstream: Any
    blending: Blending
    given: Bunch = field(default_factory=Bunch)  # X, y, metadata of the downstream, of all rows
    train: np.ndarray | None = None  # positions, among all rows, of those to learn from
    rest: np.ndarray | None = None  # and of those held out
    inputs: list = field(default_factory=list)  # the table of each branch
    plans: dict = field(default_factory=dict)  # of cross-fits, and the seconds to make each
    features: list = field(default_factory=list)  # of all rows, by branch
    tables: list = field(default_factory=list)  # of each branch `FoldTable` by repeat and fold
    covered: Any = None  # mask of the rows that have features
    table: Any = None  # what the downstream learns from, with rows without features
    unfitted: Any = None  # the downstream before its fit
    report: dict = field(default_factory=dict)  # see ``fit_report_``

    @property
    def ordered(self):
        """Whether the folds are time-ordered."""
        return self.order is not None

    @property
    def weights(self):
        """Weights of the rows for the downstream, or None."""
        return self.metadata.downstream.get("sample_weight")

    def keep(self, rows, **validation):
        """Keep some rows only; `validation` are those to monitor."""
        self.metadata = self.metadata.of(self.X, rows, **validation)
        self.X, self.y = take_rows(self.X, rows), take_rows(self.y, rows)

    def training_rows(self):
        """X, y and weights of the rows to learn from."""
        return self._given_rows(self.train)

    def validation_rows(self):
        """X, y and weights of the rows that are held out, or of ``X_val``."""
        if self.rest is None:
            return self.given.X_val, self.given.y_val, None
        return self._given_rows(self.rest)

    def _given_rows(self, rows):
        return taken(rows, self.given.X, self.given.y, self.given.get("sample_weight"))


@readable
class Stack(TransformerMixin, CallbackSupportMixin, BaseComposition):
    """Base class of both stacks: X, upstream features, scaler, sampler, downstream."""

    _get_param_names = get_param_names
    _parameter_constraints = {
        "upstream": "no_validation",
        "downstream": [None, Offers(["fit", "predict"])],
        "scaler": [None, StrOptions({"standard"}), HasMethods(["fit", "transform"])],
        "passthrough": "no_validation",
        "fine_tune": [None, FineTune],
        "blend": ["boolean", StrOptions({"auto"})],
        "blend_scoring": [None, StrOptions(set(get_scorer_names())), callable],
        "blend_parts": [None, list, tuple],
        "n_repeats": [Interval(Integral, 1, None, closed="left")],
        **CROSS_FIT_CONSTRAINTS,
    }

    # Parameters of every depth, as in ColumnTransformer --------------------------------------

    @property
    def _upstream(self):
        return named_branches(self.upstream)

    @_upstream.setter
    def _upstream(self, pairs):
        self.upstream = [
            (name, upstream, *entry[2:])
            for (name, upstream), entry in zip(pairs, self.upstream, strict=True)
        ]

    def get_params(self, deep=True):
        """Get the parameters of this stack and, optionally, of its sub-estimators.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include those of sub-estimators, such as ``risk__model__dropout``.

        Returns
        -------
        dict of str to object
            Parameters by name.
        """
        return self._get_params("_upstream", deep=deep)

    def set_params(self, **params):
        """Set parameters of this stack and of its sub-estimators.

        ``risk="drop"`` removes the branch ``risk``.

        Parameters
        ----------
        **params : dict
            Parameters by name.

        Returns
        -------
        self : estimator
            This stack.

        Raises
        ------
        ValueError
            If a name does not exist, or belongs to a path, a ``keras.Model`` or None.
        """
        explain_missing_parameters(self, params, self._remedy)
        before = self.upstream
        if "upstream" in params:  # first: the others may belong to its branches
            self.upstream = params.pop("upstream")
        try:
            return self._set_params("_upstream", **params)
        except BaseException:
            self.upstream = before
            raise

    def _remedy(self, name, value):
        if name == "downstream":
            return f"Pass downstream={self._network_type.__name__}() and set its parameters."
        if name == "upstream":
            return "Pass upstream=KerasAutoencoder() or a list of branches, and set its parameters."
        if name == "fine_tune":
            return "Pass fine_tune=FineTune() and set its parameters."
        if value == "drop":
            return f"Set {name!r} to a network first."
        return (
            "Pass an estimator with parameters; for a frozen network that is "
            f"{name}=KerasFeatureTransformer({value!r}, ...)."
        )

    def __sklearn_clone__(self):
        return clone_sharing_models(self)

    def _sk_visual_block_(self):
        return diagram_of_stack(self, self._default_downstream())

    def __sklearn_is_fitted__(self):
        return hasattr(self, "downstream_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        *upstream, downstream = self._models()
        passes = not is_bool(self.passthrough, False)
        set_input_tags(tags, upstream)
        sparse = tags.input_tags.sparse
        if passes:
            set_input_tags(tags, [*upstream, downstream])
            tags.input_tags.sparse = sparse  # what passes through is dense
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _models(self):
        """The models of the branches, and the downstream."""
        try:
            upstream = [model for _, model, _ in branch_list(self)]
        except (TypeError, ValueError):  # invalid branches: `fit` says why
            upstream = []
        return [*upstream, self._network_type() if self.downstream is None else self.downstream]

    def _default_downstream(self):
        """What None means; a network as large as the branches would only repeat them."""
        return self._network_type(MLP((128, 128), dropout=0.1) if would_blend(self) else None)

    # Fitting -----------------------------------------------------------------------------------

    # Metadata of the sub-estimators; the stack passes them on.
    __metadata_request__fit = dict.fromkeys(("sample_weight", "groups", "X_val", "y_val"), UNUSED)
    __metadata_request__transform = OUT_IS_NO_METADATA

    def get_metadata_routing(self):
        """Get the metadata routing of this object.

        Returns
        -------
        MetadataRouter
            With the branches by name, ``scaler``, ``downstream`` and ``splitter``.
        """
        return routing_of_stack(self)

    @fit_context(prefer_skip_nested_validation=False)
    @hint_at_parameters
    @warn_if_one_hot
    def fit(self, X, y, sample_weight=None, *, groups=None, X_val=None, y_val=None, **params):
        """Fit the stack.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Training rows, in time order if ``cv`` is time-ordered.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or targets.

        sample_weight : array-like of shape (n_samples,), default=None
            Passed to the models of branches that are trained and to the downstream; one that does
            not accept weights raises an error. Also passed to the steps before a model that accept
            them, and to the scaler. A scaler that does not accept them learns from all rows of
            positive weight alike; a warning is given if their weights differ. With metadata routing
            enabled, passed to the sub-estimators that request it.

        groups : array-like of shape (n_samples,), default=None
            Rows of one group are never on both sides of a fold, nor of the hold-out split of early
            stopping.

        X_val, y_val : array-like, default=None
            Rows that early stopping of the downstream monitors, instead of hold-out rows of X.

        **params : dict
            Other metadata, if metadata routing is enabled.

        Returns
        -------
        self : estimator
            The fitted stack.

        Raises
        ------
        ValueError
            If data or parameters are invalid, or would leak; the message names them.
        """
        self._fit("fit", X, y, sample_weight, groups, X_val, y_val, params)
        return self

    @fit_context(prefer_skip_nested_validation=False)
    @warn_if_one_hot
    def fit_transform(
        self, X, y, sample_weight=None, *, groups=None, X_val=None, y_val=None, **params
    ):
        """Fit, and return the table on which the downstream was trained, before sampling.

        Its features are out-of-fold; those of hold-out rows for early stopping come from the
        refitted upstream (with ``fine_tune``, the tuned one). Differs from
        ``fit(X, y).transform(X)``.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Training rows, in time order if ``cv`` is time-ordered.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or targets.

        sample_weight : array-like of shape (n_samples,), default=None
            As in :meth:`fit`.

        groups : array-like of shape (n_samples,), default=None
            Rows of one group are never on both sides of a fold, nor of the hold-out split of early
            stopping.

        X_val, y_val : array-like, default=None
            Rows that early stopping of the downstream monitors, instead of hold-out rows of X.

        **params : dict
            Other metadata, if metadata routing is enabled.

        Returns
        -------
        ndarray of float32, or DataFrame, of shape (n_samples, n_columns)
            In the order of X, scaled. With a time-ordered ``cv`` it is not scaled, because the
            scaler is fitted on later rows, too; features of rows that are never predicted are NaN.
        """
        fitted = self._fit("fit_transform", X, y, sample_weight, groups, X_val, y_val, params)
        # In time order the scaler was fitted on later rows, too: only the downstream may use it.
        scaled = not fitted.ordered
        table = fitted.table
        if scaled:
            table = self._scaling.transform(table, allow_nan=True)
        if isinstance(table, DiskTable):
            table = table.stored()
        table = in_float32(table)
        if fitted.rest is None:
            return for_container(self, indexed_like(table, X))
        rows = take_rows(read_table(self, X, reset=False), fitted.rest)
        held_out = in_float32(self._transform(rows, scaled=scaled))
        order = np.argsort(np.concatenate([fitted.train, fitted.rest]), kind="stable")
        if hasattr(table, "iloc"):
            joined = joined_frames([table, held_out])
            return for_container(self, indexed_like(joined.iloc[order], X))
        return np.vstack([table, held_out])[order]

    def _reads_indicator(self):
        return is_classifier(self)

    @atomic_fit
    @with_callbacks
    def _fit(self, caller, X, y, sample_weight, groups, X_val, y_val, params):
        fit = self._begin(caller, X, y, sample_weight, groups, X_val, y_val, params)
        self._hold_out(fit)
        self._prepare_parts(fit)
        n_tasks = self._number_of_tasks(fit)
        with fit_tasks(self, n_tasks, X=fit.X, y=fit.y, weights=fit.weights):
            self._fit_branches(fit)
            before, after = self._fit_on_features(fit)
            self.fine_tuned_, self.fine_tune_losses_, self.fine_tune_history_ = False, None, None
            if self.fine_tune is not None:
                n_epochs = self.fine_tune.epochs
                with fitting("fine-tuning", verbose=self.verbose, n_epochs=n_epochs):
                    fine_tune(self, fit, before, after)
            self._learn_blend(fit)
        self.fit_report_ = fit.report
        return Bunch(table=fit.table, train=fit.train, rest=fit.rest, ordered=fit.ordered)

    def _begin(self, caller, X, y, sample_weight, groups, X_val, y_val, params):
        """Read the rows; clone, seed and check the parts."""
        self._check_parts()
        X = read_table(self, X, reset=True)
        resolve_object_columns(X)
        if y_val is not None:
            with errors_named("y_val"):
                check_names_of_targets(y_val, names_of_targets(y))
        y = self._read_target(y, reset=True)
        check_consistent_length(X, y)
        if y_val is not None:
            with errors_named("y_val"):
                y_val = self._read_validation_target(y_val, y)
        if X_val is not None:
            with errors_named("X_val"):
                X_val = read_table(self, X_val, reset=False)
        if n_rows(X) < 2:
            raise ValueError(
                f"{type(self).__name__} needs at least 2 samples to learn from; got n_samples=1."
            )
        context = take_context(self) or RowContext()
        groups = context.groups if groups is None else groups
        metadata = routed_stack(self, caller, X, sample_weight, groups, X_val, y_val, params)
        seed = draw_seed(self.random_state)
        cv = listed_folds(self.cv) or self.cv
        if context.ordered and (cv is None or isinstance(cv, Integral)):
            cv = context.ordered_cv(cv, n_rows(X))
        blending = Blending(self, y)
        if blending.nests or self.random_state is not None:
            cv = seeded_splitter(cv, seed)
        branches = self._branches(seed, cv)
        order = cv if settle_folds(cv, branches, X, y, metadata) else None
        for name, transformer, _ in branches:
            transformer._check_context(X, y, metadata.branches[name], order)
        downstream = checked_downstream(self, seed, n_rows(X), metadata, order is not None)
        self._announce_memory(X, branches, downstream)
        return StackFit(
            X, y, metadata, seed, cv, order, context.ordered, branches, downstream, blending
        )

    def _read_validation_target(self, y_val, y):
        """Targets to monitor in the form of y: what only reads them does not check them."""
        read = self._validation_target(y_val, y)
        if y.ndim == 1 and read.shape[1:] == (1,):
            read = read[:, 0]
        elif y.shape[1:] == (1,) and read.ndim == 1:
            read = read[:, None]
        if read.shape[1:] != y.shape[1:]:
            raise ValueError(f"y_val has shape {read.shape}, but y has shape {y.shape}.")
        return read

    def _hold_out(self, fit):
        """Hold out rows for early stopping, before anything is fitted; plan the blend."""
        given = fit.metadata.downstream
        fit.given = Bunch(**{**given, "X": fit.X, "y": fit.y})
        split, watches = held_out_rows(
            self, fit.X, fit.y, fit.downstream, fit.seed, fit.metadata, fit.ordered
        )
        if "X_val" in given:
            profile = ColumnProfile.of(fit.X, self.categorical_features)
            warn_if_validation_moved(profile, given["X_val"])
            if is_regressor(self):
                warn_if_validation_targets_moved(
                    fit.y, np.asarray(given["y_val"], dtype=np.float64)
                )
        cv = fit.cv
        if split is not None:
            fit.train, fit.rest = split
            rows = fit.train, fit.X, fit.y
            for name, transformer, _ in fit.branches:
                own = fit.metadata.branches[name].split
                transformer.cv = restricted_cv(transformer.cv, *rows, own)
            cv = restricted_cv(cv, *rows, fit.metadata.splitter)
            held_out = {"X_val": take_rows(fit.X, fit.rest), "y_val": take_rows(fit.y, fit.rest)}
            if "sample_weight" in given:
                held_out["sample_weight_val"] = take_rows(given["sample_weight"], fit.rest)
            fit.keep(fit.train, **(held_out if watches else {}))
        fit.blending.prepare(
            fit.branches, cv, fit.X, fit.y, fit.metadata, ordered=fit.ordered, seed=fit.seed
        )

    def _prepare_parts(self, fit):
        """Refuse what a part does not accept, and plan the cross-fits, before any training."""
        X, y, branches, downstream = fit.X, fit.y, fit.branches, fit.downstream
        self._named, self._takes_nan = wants_names(downstream), takes_nan(downstream, self)
        self._learn_passthrough(X, downstream)
        self._check_scaler(X, branches)
        if self.fine_tune is not None:
            check_fine_tune(self, branches, downstream, X, y)
        indices = {name: branch_column_indices(X, name, columns) for name, _, columns in branches}
        self._branch_columns = indices
        fit.inputs = [columns_at(X, indices[name]) for name, _, _ in branches]
        models = [transformer.model for _, transformer, _ in branches]
        self._check_trials(downstream, indices, models, fit.inputs, X, y)
        self._check_targets(downstream, branches, fit.inputs, y)
        if is_classifier(self) and y.ndim == 1:
            for (name, transformer, _), part in zip(branches, fit.inputs, strict=True):
                check_class_weight(transformer.model, y, f"The branch {name!r}", part)
            check_class_weight(downstream, y, label_of(downstream))
            _check_labels(downstream, X, y, **fit.metadata.downstream)
        self._check_network(downstream, y, fit.weights)
        for (name, transformer, _), part in zip(branches, fit.inputs, strict=True):
            label, start = f"The branch {name!r}", time.perf_counter()
            with errors_named(label):
                plan = transformer._prepare(
                    part,
                    y,
                    fit.metadata.branches[name],
                    in_stack=True,
                    ordered_cv=fit.order,
                    label=label,
                    repeat_seeds=fit.blending.seeds,
                )
            if plan.source.classes is not None and not plan.source.ours and transformer.passes_y:
                for folds in plan.repeats:
                    check_folds(transformer._upstream_model, part, y, folds.pairs, label)
            fit.plans[name] = plan, time.perf_counter() - start
        self._refuse_equal_names(X, fit.plans)
        if fit.rest is None and "X_val" in fit.given:
            self._check_validation(fit)

    def _check_scaler(self, X, branches):
        """Refuse a scaler that changes the number of columns, before any training."""
        coded = [transformer._request().features == ("codes",) for _, transformer, _ in branches]
        n_columns = coded.count(False)  # at least
        if self._passed is not None:
            some = in_memory(
                columns_at(take_rows(X, slice(0, FEW_ROWS)), self._passthrough_columns)
            )
            n_columns += int(numeric_columns(self._passed.table(some)).sum())
        label = f"scaler={described(self.scaler)}"
        check_scaler(self.scaler, max(n_columns, 1), n_rows(X), label)

    def _check_network(self, downstream, y, weights):
        """Refuse what a downstream network finds in its loss, metrics, y or weights when fitted.

        It is tried on columns of its own, since the features are not known yet.
        """
        last = downstream.steps[-1][1] if isinstance(downstream, Pipeline) else downstream
        if not isinstance(last, KerasClassifier | KerasRegressor) or not last._may_be_refused():
            return
        if not last._suits_any_columns():
            return
        if last is not downstream or getattr(self, "sampler", None) is not None:
            weights = None
        probe = clone_sharing_models(last)
        columns = {"categorical_features": None, "inputs": None, "input_shape": None}
        probe.set_params(**columns, loss=last._task_loss, random_state=0)
        X = np.random.default_rng(0).normal(size=(n_rows(y), 2)).astype(np.float32)
        with errors_named(label_of(downstream)), trial_scope():
            probe._cross_fit_context(X, y, weights=weights)

    def _check_validation(self, fit):
        """Refuse ``X_val`` of the user if a part cannot read it, before any training."""
        X_val, indices = fit.given.X_val, self._branch_columns
        if isinstance(X_val, DiskTable):
            X_val = X_val[spread_rows(X_val, _ROWS_TRIED)].in_memory()
        some = np.linspace(0, n_rows(fit.X) - 1, n_rows(X_val)).astype(int)
        y = take_rows(fit.y, some)  # that of `X_val` may hold a single class
        tables = [columns_at(X_val, indices[name]) for name, _, _ in fit.branches]
        with errors_named("X_val"), trial_scope():
            for (name, _, _), table in zip(fit.branches, tables, strict=True):
                with errors_named(f"The branch {name!r}"):
                    fit.plans[name][0].source.check_rows(table)
            models = [transformer.model for _, transformer, _ in fit.branches]
            rows = spread_rows(fit.y, _ROWS_BESIDE)
            known = in_memory(take_rows(fit.X, rows)), fit.y[rows]
            self._check_trials(fit.downstream, indices, models, tables, X_val, y, known)

    def _fit_branches(self, fit):
        """Features of training rows, from networks that were not trained on them."""
        self.upstream_ = []
        fit.covered = np.ones(n_rows(fit.X), dtype=bool)
        for (name, transformer, columns), part in zip(fit.branches, fit.inputs, strict=True):
            plan, seconds = fit.plans.pop(name)
            label, start = f"The branch {name!r}", time.perf_counter() - seconds
            with errors_named(label), fitting(f"branch {name!r}"), propagating(transformer):
                features, predicted, without_folds = transformer._learn(
                    part, fit.y, fit.metadata.branches[name], plan=plan, nested=fit.blending.nested
                )
            if isinstance(without_folds, ValueError):
                fit.blending.fail(without_folds)
            fit.features.append(features)
            fit.tables.append(without_folds)
            fit.report[name] = _report_line(n_rows(fit.X), start)
            fit.covered &= True if predicted is None else predicted
            self.upstream_.append((name, transformer, columns))
        self.named_upstream_ = Bunch(**{name: fitted for name, fitted, _ in self.upstream_})

    def _fit_on_features(self, fit):
        """Fit the downstream; return (y, weights) before and after sampling."""
        self._names = self._table_names(fit.X)
        self._float64 = self._needs_float64(fit.features, fit.y)
        table = fit.table = self._table(fit.features, fit.X)
        y, metadata = fit.y, fit.metadata
        if not fit.covered.all():
            rows = np.flatnonzero(fit.covered)
            if not fit.inside_order:  # else the outer stack warns
                self._warn_of_dropped_rows(len(fit.covered) - len(rows), len(fit.covered))
            metadata = metadata.of(fit.X, rows)
            table, y = take_rows(table, rows), take_rows(y, rows)
        fit.unfitted, start = clone_part(fit.downstream), time.perf_counter()
        validation = metadata.downstream.get("X_val")
        if validation is not None:
            validation = self._transform(validation, scaled=False)
        before_and_after = self._fit_downstream(
            fit.downstream, table, y, metadata, validation, fit.seed, fit.order
        )
        fit.report[DOWNSTREAM] = _report_line(n_rows(table), start)
        return before_and_after

    def _learn_blend(self, fit):
        """Learn the weights of the blend and the temperature; score the parts."""
        blending, start = fit.blending, time.perf_counter()
        self._blend_columns = {name: blending.columns[name] for name, _, _ in self.upstream_}
        self._blends = bool(blending.parts)
        self.blend_weights_, self.blend_scores_ = {DOWNSTREAM: 1.0}, {}
        vars(self).pop("temperature_", None)  # of an earlier fit
        self._score_branches(fit)
        if self.fine_tune is not None and blending.scored:
            X, y, weights = fit.validation_rows()
            blending.learn(self._part_predictions(X, blending.scored), X, y, weights)
        elif blending.scored:
            nested = NestedFit(copy_of(self), fit)
            try:
                predictions = nested.predictions(blending.scored, self._blend_columns)
            except ValueError as error:
                blending.fail(error)
                self._blends = False
            else:
                known = np.flatnonzero(known_rows(*predictions.values()))
                of_known = sample_of_rows(len(known))
                known = known if of_known is None else known[of_known]
                some = {name: values[known] for name, values in predictions.items()}
                weights = None if fit.weights is None else fit.weights[known]
                blending.learn(some, fit.X, fit.y[known], weights, known)
        for name, score in self.blend_scores_.items():
            line = _report_line(fit.covered.sum(), start)
            fit.report.setdefault(name, line)["score"] = score

    def _announce_memory(self, X, branches, downstream):
        """Say, before training, which parts read all rows of a table on disk into memory."""
        if not isinstance(X, DiskTable):
            return
        for name, transformer, _ in branches:
            if transformer._needs_all_rows():
                announce_memory(X, f"The branch {name!r}, {described(transformer.model)},")
        if getattr(self, "sampler", None) is not None:
            announce_memory(X, f"sampler={described(self.sampler)}")
        if not isinstance(downstream, NetworkEstimator) or getattr(downstream, "sampler", None):
            announce_memory(X, f"downstream={described(downstream)}")
        if self.fine_tune is not None:
            announce_memory(X, f"fine_tune={described(self.fine_tune)}")

    def _number_of_tasks(self, fit):
        """How many fits there are, at most."""
        leaves_open = leaves_epochs_open(fit.downstream) and "X_val" not in fit.metadata.downstream
        n = len(fit.branches) + 1 + leaves_open * N_FOLDS + (self.fine_tune is not None)
        if fit.blending.nested is not None:
            n_scored = sum(len(each.numbers) for each in fit.blending.nested.scored)
            n += n_scored * (1 + leaves_open)
        return n

    def _fit_downstream(
        self, downstream, table, y, parts, validation, seed, cv, label=DOWNSTREAM, whole=None
    ):
        """Fit the scaler on training rows, resample only these, and fit the downstream.

        ``validation`` is the table of rows to monitor, or None, ``cv`` the time-ordered folds, or
        None. ``whole`` is that of all rows, and their weights, of a fit without some of them: its
        network then has the shapes, and the program, of one for all rows. Returns (y, weights)
        before and after sampling.
        """
        self._scaling = Scaling(self.scaler).fit(table, **parts.scaler)
        self.scaler_ = self._scaling.scaler_
        settings = dict(parts.downstream)
        weights = settings.pop("sample_weight", None)
        if getattr(self, "sampler", None) is not None:
            settings.pop("groups", None)
        weights_val = settings.pop("sample_weight_val", None)
        if validation is not None:
            settings["X_val"] = self._for_downstream(downstream, validation)
            weights_val = self._weigh_validation(downstream, settings, weights_val)
        scaled = self._for_downstream(downstream, table)
        shared = None
        if whole is not None and isinstance(downstream, NetworkEstimator):
            of_all, weights_of_all = whole
            with errors_named(label_of(downstream)):
                shared = downstream._cross_fit_context(
                    self._scaled(of_all), y, weights=weights_of_all
                )
        before = y, weights
        if isinstance(downstream, NetworkEstimator):  # X_val is scaled in the same way
            suppress_warning("X_val")
            suppress_warning("y_val")
        if leaves_epochs_open(downstream) and "X_val" not in settings:
            fits = {"shared": shared, "ordered": cv is not None}
            if label != DOWNSTREAM:  # for the weights of a blend one fit is enough, not three
                fits["n_fits"] = 1
            with errors_named(label_of(downstream)):
                self._set_epochs(downstream, scaled, y, parts, weights, seed, **fits)
        if getattr(self, "sampler", None) is not None:
            scaled = in_memory(scaled)
        scaled, y, weights = self._resample(scaled, y, weights, seed)
        if weights is not None:
            settings["sample_weight"] = weights
        given = isinstance(downstream, NetworkEstimator) and "X_val" in settings
        self._pass_context_to(downstream, scaled, y, parts.groups, cv, splits=not given)
        progress = fitting(label, n_rows(scaled), verbose=self.verbose)
        with errors_named(label_of(downstream)), progress, propagating(downstream):
            if shared is None and weights_val is None:
                self.downstream_ = downstream.fit(scaled, y, **settings)
            else:
                settings["weights_val"] = weights_val
                self.downstream_ = downstream._fit_in_context(scaled, y, shared, **settings)
        return before, (y, weights)

    def _weigh_validation(self, downstream, settings, weights):
        """Weights of ``X_val`` for a network; all others get them, or no row of weight 0."""
        if weights is None or isinstance(downstream, NetworkEstimator):
            return weights
        if accepts_fit_parameter(downstream, "sample_weight_val"):
            settings["sample_weight_val"] = weights
        elif not np.all(weights):
            rows = np.flatnonzero(weights)
            settings |= {name: take_rows(settings[name], rows) for name in ("X_val", "y_val")}
        return None

    def _score_branches(self, fit):
        """Add the scores of out-of-fold predictions to the report."""
        X, y, weights, *features = sampled(fit.X, fit.y, fit.weights, *fit.features)
        for (name, fitted, _), table in zip(self.upstream_, features, strict=True):
            if self._blend_columns[name] is not None and fitted._learns_from_y():
                values = self._branch_predictions(self._blend_columns[name], table)
                fit.report[name]["score"] = fit.blending.score_of(values, X, y, weights)

    def _set_epochs(self, downstream, table, y, parts, weights, seed, **settings):
        """Set the epochs of a downstream that leaves them open."""
        epochs = epochs_of_folds(
            downstream,
            table,
            y,
            groups=parts.groups,
            sample_weight=weights,
            resample=lambda *rows: self._resample(*rows, seed),
            verbose=self.verbose,
            **settings,
        )
        downstream.set_params(epochs=downstream._max_epochs() if epochs is None else epochs)

    def _check_parts(self):
        """Validate the sub-estimators before anything is trained."""
        Scaling(self.scaler)
        check_parts(self)

    def _refuse_columns(self, X, y):
        """Refuse columns that a part does not accept, as `fit` does; changes the stack."""
        X = read_table(self, X, reset=True)
        y = self._read_target(y, reset=True)
        *_, downstream = self._models()
        self._named, self._takes_nan = wants_names(downstream), takes_nan(downstream, self)
        self._learn_passthrough(X, downstream)
        indices, models = {}, []
        for name, model, columns in branch_list(self):
            indices[name] = branch_column_indices(X, name, columns)
            models.append(model)
        tables = [columns_at(X, each) for each in indices.values()]
        self._check_trials(downstream, indices, models, tables, X, y)
        for (name, upstream, _), table in zip(branch_list(self), tables, strict=True):
            branch = clone_sharing_models(branch_of(self, name, upstream)).set_params(refit=True)
            with errors_named(f"The branch {name!r}"):
                branch._prepare(table, y, Metadata(), whole=False, in_stack=True)

    def _check_class_weights(self, y):
        """Refuse class weights that a part of a nested stack cannot use, as `fit` does."""
        if not is_classifier(self):
            return
        for name, model, _ in branch_list(self):
            check_class_weight(model, y, f"The branch {name!r}")
        if self.downstream is not None:
            check_class_weight(self.downstream, y, label_of(self.downstream))

    def _check_trials(self, downstream, names, models, tables, X, y, known=None):
        """Refuse columns that a part does not accept, before any training.

        ``known`` are some training rows and their y, if X are rows to watch.
        """
        if isinstance(X, DiskTable):
            rows = spread_rows(X, _ROWS_TRIED)
            X, y = X[rows].in_memory(), take_rows(y, rows)
            tables = [in_memory(table[rows]) for table in tables]
        sampler = getattr(self, "sampler", None)
        if self._passed is not None:
            indices = self._passthrough_columns
            with errors_named("Columns that pass through"):
                table = self._passed.table(columns_at(X, indices))
            columns = getattr(X, "columns", [f"x{index}" for index in range(X.shape[1])])
            columns = [columns[index] for index in indices]
            how = "`passthrough` takes a list of columns"
            if sampler is not None:
                refuse_interpolated_categories(sampler, table)
            own = known and (self._passed.table(columns_at(known[0], indices)), known[1])
            label = label_of(downstream)
            check_accepts(downstream, table, y, label, how, columns, passed=True, known=own)
        for name, model, table in zip(names, models, tables, strict=True):
            label = f"The branch {name!r} ({type(model).__name__})"
            how = f"({name!r}, model, columns) takes a list of columns"
            own = known and (columns_at(known[0], names[name]), known[1])
            check_accepts(model, table, y, label, how, known=own)

    def _check_targets(self, downstream, branches, tables, y):
        """Refuse a part that does not accept y, before any training."""
        classes = is_classifier(self)
        for (name, transformer, _), table in zip(branches, tables, strict=True):
            if transformer.passes_y and transformer.model is not None:
                label = f"The branch {name!r} ({type(transformer.model).__name__})"
                check_targets(transformer.model, y, label, table, classes=classes)
        check_targets(downstream, y, label_of(downstream), classes=classes)

    def _refuse_targets(self, y):
        """Refuse a y that a part of a nested stack does not accept, as `fit` does."""
        *_, downstream = self._models()
        branches = [
            (name, branch_of(self, name, model), columns)
            for name, model, columns in branch_list(self)
        ]
        self._check_targets(downstream, branches, [None] * len(branches), y)

    def _warn_of_dropped_rows(self, n, total):
        warnings.warn(
            f"cv={shown_cv(self.cv)} is time-ordered and never predicts {n} of {total} rows; these "
            "rows train the upstream networks, but not the downstream, because they have no "
            "out-of-fold features.",
            UserWarning,
            stacklevel=caller_level(),
        )

    def _branches(self, seed, cv):
        """(name, transformer, columns) of each branch, cloned, seeded and checked."""
        seeds, branches = branch_seeds(self, seed), []
        for name, upstream, columns in branch_list(self):
            transformer = branch_of(self, name, upstream, cv)
            with errors_named(f"The branch {name!r}"):
                transformer._validate_params()
            transformer.verbose = max(transformer.verbose, self.verbose)
            if self.random_state is not None:
                set_missing_seeds(transformer, seeds[name])
            if transformer.random_state is not None:
                own = copy.deepcopy(transformer.random_state)  # a RandomState is drawn from later
                transformer.cv = seeded_splitter(transformer.cv, draw_seed(own))
            branches.append((name, transformer, columns))
        return branches

    def _splits_rows(self, only_fit):
        """Whether a fit predicts rows with models that were not trained on them."""
        return True

    def _check_ordered(self, context, X, y, only_fit):
        """Refuse a nested stack inside a time-ordered fit whose folds are not time-ordered."""
        is_int = self.cv is None or isinstance(self.cv, Integral)
        if not only_fit:
            raise ValueError(
                f"{context}, but the nested {type(self).__name__} is followed by other steps, "
                "which would receive rows without features. Make it the last step."
            )
        if not self.refit:
            raise ValueError(
                f"{context}, but the nested {type(self).__name__} has refit=False. Use refit=True."
            )
        if not is_int and not orders_time(self.cv, X, y):
            raise ValueError(
                f"{context}, but the nested {type(self).__name__} has "
                f"cv={shown_cv(self.cv)}, which is not time-ordered. Pass TimeSeriesSplit, or an "
                "int."
            )
        cv = context.ordered_cv(self.cv, n_rows(X)) if is_int else self.cv
        for name, upstream, _ in branch_list(self):
            branch = branch_of(self, name, upstream, cv)
            settle_folds(cv, [(name, branch, None)], X, y)
            branch._check_context(X, y, Metadata(), cv)

    def _pass_context_to(self, downstream, table, y, groups, cv, *, splits):
        """Pass groups and time order to a downstream; samplers invalidate both.

        `splits`: whether the downstream may split its rows; with ``X_val`` a network does not.
        """
        if cv is None and groups is None:
            return
        context = RowContext(groups, cv)
        if getattr(self, "sampler", None) is not None:
            refuse_unreached(downstream, context, "the sampler changes the rows", inside=not splits)
        else:
            pass_context(downstream, context, table, y, only_fit=True)

    def _resample(self, table, y, weights, seed):
        return table, y, weights

    # The table of the downstream -----------------------------------------------------------------

    def _learn_passthrough(self, X, downstream):
        """Fit the columns of X that pass through.

        Values may be missing here, unless the downstream is a network: a trial fit decides.
        """
        self._passed = None
        columns = self.passthrough
        if isinstance(columns, bool | np.bool_):
            if not columns or (not hasattr(X, "columns") and X.ndim > 2):
                return
            # Columns of arrays pass through only if they are named.
            self._passthrough_columns = np.setdiff1d(np.arange(X.shape[1]), array_column_indices(X))
        else:
            self._passthrough_columns = column_indices(X, columns, "passthrough")
            if len(set(self._passthrough_columns)) < len(self._passthrough_columns):
                raise ValueError(f"passthrough={columns!r} selects a column of X more than once.")
        if len(self._passthrough_columns):
            mask = categorical_mask_of(self.categorical_features, X, self._passthrough_columns)
            columns = columns_at(X, self._passthrough_columns)
            if getattr(self, "sampler", None) is None and not trains_network(downstream):
                self._takes_nan |= has_missing(columns)
            with errors_named(f"Columns that pass through to {label_of(downstream)[4:]}"):
                self._passed = Passthrough(mask, allow_nan=self._takes_nan).fit(columns)

    def _table_names(self, X):
        names = [
            f"{name}__{feature}"
            for name, fitted, _ in self.upstream_
            for feature in fitted.get_feature_names_out()
        ]
        names += self._passed_names(X)
        _refuse_duplicates(names)
        return names

    def _passed_names(self, X):
        """Names of the columns that pass through."""
        if self._passed is None:
            return []
        columns = getattr(X, "columns", [f"x{index}" for index in range(X.shape[1])])
        return [str(columns[index]) for index in self._passthrough_columns]

    def _refuse_equal_names(self, X, plans):
        """Refuse columns with the name of a feature, as far as it is known before training."""
        names = self._passed_names(X)
        for name, (plan, _) in plans.items():
            names += {f"{name}__{feature}" for feature in plan.known_names}
        _refuse_duplicates(names)

    def _needs_float64(self, features, y):
        """Whether columns or targets are so far from 0 that float32 would lose precision."""
        if self._passed is not None and self._passed.dtype_ == "float64":
            return True
        numbers = [
            part.select_dtypes("float64").to_numpy() if hasattr(part, "iloc") else part
            for part in features
        ]
        if is_regressor(self):
            numbers.append(y.reshape(len(y), -1))
        return any(lost_in_float32(part).any() for part in numbers)

    def _table(self, features, X):
        parts = [*features]
        if self._passed is not None:
            passed = columns_at(X, self._passthrough_columns)
            with errors_named("Columns that pass through"):
                read = self._passed.table
                parts.append(passed.map(read) if isinstance(X, DiskTable) else read(passed))
        if not parts:
            raise ValueError(
                "The table of the downstream would have no columns: all branches are dropped and "
                "passthrough is False."
            )
        if isinstance(X, DiskTable):
            return DiskTable.joined(parts, self._joined)
        return self._joined(parts)

    def _joined(self, parts):
        """Tables of the branches, and of the columns that pass through, side by side."""
        if not self._float64:
            parts = [in_float32(part) for part in parts]
        if not (self._named or any(hasattr(part, "iloc") for part in parts)):
            return np.hstack(parts)
        import pandas as pd

        frames = [
            part.reset_index(drop=True) if hasattr(part, "iloc") else pd.DataFrame(part)
            for part in parts
        ]
        return pd.concat(frames, axis=1).set_axis(self._names, axis=1)

    def _features(self, X, names=None):
        """Features of validated rows by branch, of all or of some."""
        features = {}
        for name, fitted, _ in self.upstream_:
            if names is None or name in names:
                with errors_named(f"The branch {name!r}"):
                    part = columns_at(X, self._branch_columns[name])
                    features[name] = fitted._extract(part)
        return features

    def _transform(self, X, *, scaled=True):
        table = self._table(self._features(X).values(), X)
        return self._for_downstream(self.downstream_, table) if scaled else table

    def _part_predictions(self, X, names):
        """Predictions of some parts for validated rows, by name."""
        features = self._features(X, None if DOWNSTREAM in names else names)
        values = {
            name: self._branch_predictions(self._blend_columns[name], features[name])
            for name in names
            if name != DOWNSTREAM
        }
        if DOWNSTREAM in names:
            table = self._table(features.values(), X)
            table = self._for_downstream(self.downstream_, table)
            values[DOWNSTREAM] = self._downstream_predictions(table)
        return values

    def _used_parts(self):
        """The parts of positive weight."""
        return [name for name, weight in self.blend_weights_.items() if weight > 0]

    def _blended(self, X):
        """Predictions of the blend."""
        X = read_table(self, X, reset=False)
        return blend(self._part_predictions(X, self._used_parts()), self.blend_weights_)

    def _scaled(self, table):
        # scikit-learn estimators convert y to the dtype of the table.
        dtype = "float64" if self._float64 else "float32"
        return self._scaling.transform(table, allow_nan=self._takes_nan, dtype=dtype)

    def _for_downstream(self, downstream, table):
        """A scaled table; only networks read those on disk."""
        scaled = self._scaled(table)
        return scaled if isinstance(downstream, NetworkEstimator) else in_memory(scaled)

    @on_snapshot
    @in_chunks
    def transform(self, X, *, out=None):
        """The scaled table of the downstream for new rows.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Rows.

        {out}

        Returns
        -------
        ndarray of float32, or DataFrame, of shape (n_samples, n_columns)
            A DataFrame if there are categorical columns, or if the downstream selects columns by
            name.
        """
        return for_container(self, indexed_like(in_float32(self._downstream_table(X)), X))

    def _downstream_table(self, X):
        # Not `transform`: its container depends on `set_output`.
        check_is_fitted(self)
        return self._transform(read_table(self, X, reset=False))

    def get_feature_names_out(self, input_features=None):
        """Names of the columns of :meth:`transform`.

        Parameters
        ----------
        input_features : array-like of str, default=None
            If given, must match the names of the columns of X.

        Returns
        -------
        ndarray of str of shape (n_columns,)
            For example ``anomaly__latent_3``, then the columns that pass through.
        """
        check_is_fitted(self)
        check_input_names(self, input_features)
        return np.asarray(self._names, dtype=object)

    def _predict(self, X, predict_params):
        if self._blends and predict_params:
            raise ValueError(
                f"predict received {sorted(predict_params)}, which only the downstream could use, "
                "but the prediction is a blend of several parts. Use blend=False."
            )
        table = self._downstream_table(X)
        if routing_enabled():
            routed = process_routing(self, "predict", **predict_params)
            predict_params = routed["downstream"]["predict"]
        with errors_named(label_of(self.downstream_)):
            predicted = self.downstream_.predict(table, **predict_params)
        if isinstance(predicted, tuple) or self._several or np.shape(predicted)[1:] != (1,):
            return predicted
        return np.ravel(predicted)

    def _graph_table(self, table, prefix, features=None):
        """The table that the downstream learns from; ``features`` are those of the branches."""
        from skstack._graph.sklearn_steps import apply_scaler
        from skstack._graph.tables import (
            concatenate_tables,
            passthrough_table,
            select_columns,
            warn_of_float32,
        )

        if self._float64:
            warn_of_float32(f"{type(self).__name__} scales columns or features")
        if features is None:
            features = self._graph_features(table, prefix)
        parts = list(features.values())
        if self._passed is not None:
            part = select_columns(table, self._passthrough_columns)
            parts.append(
                passthrough_table(part, self._passed.blocks_, f"{prefix}passthrough", "passthrough")
            )
        return apply_scaler(self.scaler_, concatenate_tables(parts, f"{prefix}table"), prefix)

    def _graph_features(self, table, prefix, names=None):
        """The tables of the branches by name, of all or of some."""
        from skstack._graph.tables import select_columns

        return {
            name: fitted._graph_transform(
                select_columns(table, self._branch_columns[name]), f"{prefix}{name}"
            )
            for name, fitted, _ in self.upstream_
            if names is None or name in names
        }

    def _graph_of_parts(self, table, prefix):
        """Predictions of the parts of the blend: tensors of branches, `predicted` of downstream."""
        from keras import ops

        from skstack._graph.dispatch import predicted
        from skstack._graph.tables import function_layer, numbers_of

        used = self._used_parts()
        features = self._graph_features(table, prefix, None if DOWNSTREAM in used else used)
        tensors = {}
        for name in used:
            if name == DOWNSTREAM:
                joined = self._graph_table(table, prefix, features)
                tensors[name] = predicted(self.downstream_, joined, f"{prefix}{name}", prefix)
                continue
            columns = self._blend_columns[name]
            own = f"{prefix}{name}_prediction"
            tensors[name] = numbers_of(features[name], columns.indices, own, name)
            if columns.log_odds:
                several = self._several
                tensors[name] = function_layer(
                    f"{own}_probability",
                    [tensors[name]],
                    lambda z, several=several: formulas.of_log_odds(z, ops, exclusive=not several),
                )
        return tensors

    def _graph_blend(self, tensors, name):
        """The weighted mean of tensors by name, as a layer."""
        from skstack._graph.tables import function_layer

        weights = [self.blend_weights_[part] for part in tensors]

        def mean(*values):
            return sum(w * value for w, value in zip(weights, values, strict=True))

        return function_layer(name, list(tensors.values()), mean)

    def _graph_transform(self, table, name):
        return self._graph_table(table, f"{name}_")

    def _column_readers(self, indices, name, pad, transforms):
        from skstack._graph.dispatch import column_readers, passthrough_readers

        used = self._used_parts()
        whole = transforms or DOWNSTREAM in used  # the table of the downstream
        for branch, fitted, _ in self.upstream_:
            if whole or branch in used:
                yield from column_readers(fitted, indices[self._branch_columns[branch]], branch)
        if self._passed is not None and whole:
            yield from passthrough_readers(self._passed, indices[self._passthrough_columns])


def _refuse_duplicates(names):
    """Refuse names of columns of which one occurs twice."""
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise ValueError(
            f"The table of the downstream would have duplicate column names: {duplicates}. "
            "Rename these branches or columns."
        )


def _report_line(rows, start):
    """A line of ``fit_report_``."""
    return {"rows": int(rows), "seconds": time.perf_counter() - start, "score": None}


def _check_labels(downstream, X, y, sample_weight=None, **_):
    """Refuse classes that a network finds only when it is fitted, after the branches."""
    if not isinstance(downstream, NetworkEstimator):
        return
    with errors_named(label_of(downstream)):
        downstream._refuse_too_few_rows(X, y, sample_weight)
