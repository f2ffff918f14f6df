"""KerasFeatureTransformer: outputs of an upstream model as features, out-of-fold while fitting."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import (
    UNUSED,
    MetadataRequest,
    MetadataRouter,
    MethodMapping,
    get_routing_for_object,
    process_routing,
)
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from skstack._base.atomic_fit import atomic_fit, copy_of, on_snapshot
from skstack._base.diagram import diagram_of_features
from skstack._base.disk_table import DiskTable, announce_memory, in_memory, joined_frames
from skstack._base.in_chunks import in_chunks, once_per_call
from skstack._base.params import (
    clone_sharing_models,
    draw_seed,
    explain_missing_parameters,
    hint_at_parameters,
    is_keras_model,
    is_network_estimator,
    is_path,
    last_step,
)
from skstack._base.progress import errors_named, fit_tasks, fitting, propagating
from skstack._base.sklearn import (
    CROSS_FIT_CONSTRAINTS,
    INPUT_CONSTRAINTS,
    OUT_IS_NO_METADATA,
    CallbackSupportMixin,
    HasMethods,
    Interval,
    StrOptions,
    accepts_fit_parameter,
    check_input_names,
    check_parts,
    drop_callbacks,
    fit_context,
    for_container,
    get_param_names,
    refuse_metadata,
    routing_enabled,
    set_input_tags,
    with_callbacks,
)
from skstack._base.tables import (
    check_groups,
    check_weights,
    indexed_like,
    is_dataframe,
    is_float32,
    n_rows,
    own_rows,
    read_table,
    take_rows,
    warn_if_one_hot,
)
from skstack._base.text import described, readable
from skstack._estimators.autoencoder import KerasAutoencoder
from skstack._features.adapters import POOLINGS, to_dataframe, upstream_of
from skstack._features.cache import Unkeyable, cached, data_key, estimator_key, settings_key
from skstack._features.cross_fit import (
    FEW_ROWS,
    FeatureRequest,
    Metadata,
    UpstreamSpec,
    fit_upstreams,
    mean_of,
    number_of_fits,
)
from skstack._features.vectorizers import refuse_vectorizers
from skstack._graph.mixin import ExportMixin
from skstack._splits.folds import (
    Folds,
    folds_of,
    make_folds,
    refuse_ordered,
    restricted_cv,
    same_folds,
    seeded_splitter,
    shown_cv,
    shuffled_folds,
)
from skstack._splits.row_context import RowContext, take_context
from skstack._splits.supervision import learns_from_y, requires_y, trains_network
from skstack.networks._adopted import refuse_strings
from skstack.preprocessing._blocks import ColumnBlocks
from skstack.preprocessing._column_profile import (
    ColumnProfile,
    in_float32,
    some_rows,
    warn_of_lost_precision,
)
from skstack.preprocessing._columns import resolve_object_columns
from skstack.preprocessing._passthrough import Passthrough


@readable
class KerasFeatureTransformer(ExportMixin, TransformerMixin, CallbackSupportMixin, BaseEstimator):
    """Outputs of a network, or of its inner layers, as features.

    Models that learn from y are cross-fitted: ``fit_transform(X, y)`` returns for each row the
    features of a network that was not trained on it, ``transform`` those of a network that was
    trained on all rows. As for :class:`~sklearn.preprocessing.TargetEncoder`,
    ``fit_transform(X, y)`` therefore differs from ``fit(X, y).transform(X)``. A frozen network is
    not trained and needs no folds, but it may have been trained on the test rows before: see
    :func:`~skstack.inspection.check_overlap`.

    Parameters
    ----------
    model : path, keras.Model, FrozenEstimator, estimator or Pipeline, default=None
        A path to a saved model (``.keras``, ``.h5``), a built ``keras.Model`` or a
        :class:`~sklearn.frozen.FrozenEstimator` is frozen; any other estimator (of
        skstack, scikeras, ``keras.wrappers`` or scikit-learn) is cloned and trained. In a Pipeline
        the last step provides the features; the steps before are fitted with it in each fold.
        Samplers of an imbalanced-learn Pipeline resample X and y for the last step. None means
        ``KerasAutoencoder()``.

    layers : str or list of str, default=None
        Inner layers whose outputs become features, computed in one pass; ``"outer/inner"`` is a
        layer of a nested model. Of a layer with an output for each member of a network, such as
        ``"hidden_2"`` of ``TabM``, the features are the mean over the members, whatever ``pooling``
        is; ``"hidden_2:members"`` gives those of all members side by side. A layer that the network
        calls several times, as with towers that share weights, gives the output of its last call.

    features : str or list of str, default=None
        ``"outputs"`` (``predict_proba``, for two classes the second column only, else
        ``decision_function`` of a classifier or an outlier detector, ``predict`` or ``transform``;
        of a frozen ``keras.Model`` its outputs), ``"log_odds"`` (clipped at 1e-7), ``"entropy"``
        (in nats), ``"margin"`` (between the two largest probabilities), ``"reconstruction_error"``
        or ``"codes"`` (the index of the largest output, or integer outputs as they are, as a
        categorical column, which a downstream network embeds). Several labels have columns of
        their own; ``"entropy"``, ``"margin"`` and ``"codes"`` need exclusive classes. None means
        ``"outputs"`` if ``layers`` is None, else no features besides the layers.

    pooling : {"flatten", "mean", "max", "last"}, default="flatten"
        How to reduce outputs of rank 3 and more, over all axes except rows and channels.

    passthrough : bool, default=False
        Whether to append the columns of X to the features.

    categorical_features : "from_dtype", None or array-like, default="from_dtype"
        Which columns that pass through, or are inputs of a frozen model, are categorical: by dtype,
        none, or given by names, indices or a mask. A trained estimator has its own parameter.

    inputs : None, "prefix", dict or list, default=None
        Which columns form an input of their own, for a frozen network with several inputs: a dict
        of input name to columns (as in :class:`~sklearn.compose.ColumnTransformer`), a list of
        columns in the order of the model's inputs, or ``"prefix"``: columns whose names share a
        prefix, up to ``__``, as the branches of a stack do. The other numeric columns form the
        input ``numeric``; each categorical column, and each column that holds arrays, is a
        separate input. A trained estimator has its own ``inputs`` and ``input_shape``.

    input_shape : tuple of int or dict of str to tuple, default=None
        Shape of one row as input of the network, such as ``(28, 28, 1)`` for 784 columns; a dict
        maps inputs to shapes.

    cv : int, splitter or iterable, default=5
        Folds of the cross-fit. An int gives stratified folds for classifiers, and with ``groups``
        folds that keep each group together. Each row must be in exactly one test fold; a
        time-ordered ``cv``, which never predicts the first rows, is supported in a stack only.
        A splitter that shuffles without a seed is copied and gets one from ``random_state``.

    refit : bool, default=True
        Whether ``transform`` uses a network that was trained on all rows; otherwise it returns the
        mean over the networks of the folds.

    batch_size : int, default=None
        Rows per forward pass of a frozen network or of inner layers. None chooses automatically.

    memory : None, str or object with the interface of joblib.Memory, default=None
        Folder in which fits of upstream networks and features of frozen ones are cached. The key is
        the content of rows, targets, weights and folds, all parameters, the code of the recipe, the
        weights of a frozen model and the versions of packages. Fits are not cached if
        ``random_state`` is None or if there are callbacks; nothing is cached if code cannot be
        compared. A folder given by name holds at most 2 GiB. Entries are pickles: do not use a
        folder that others can write to. Features of frozen networks for recently used rows are
        always kept in memory, up to 256 MiB.

    trained_on : ColumnProfile, default=None
        Profile of the training rows of a frozen network, ``ColumnProfile.of(X_train)`` from
        :mod:`skstack.inspection`, if the network does not record this itself; ``fit`` then also
        warns of columns on another scale. If None, the profile of a fitted estimator of skstack is
        used; for other networks the rows of ``fit`` are the reference.

    passes_y : bool, default=True
        Whether y is passed to the estimator and the steps before it. Every step that receives y and
        is not known to ignore it counts as learning from y, and is cross-fitted. With False, y is
        not passed, and a transformer that does not need it is fitted once, on all rows.

    n_jobs : int, default=None
        Number of threads that fit folds in parallel. Inside a search that runs in parallel folds
        are fitted one after another; under ``joblib.parallel_config("dask")`` or ``"ray"`` by the
        workers.

    random_state : int, RandomState instance or None, default=None
        Seeds every sub-estimator whose ``random_state`` is None.

    verbose : int, default=0
        If > 0, print a line for the fit of each fold, and of all rows.

    Attributes
    ----------
    estimator_ : estimator or None
        The estimator trained on all rows, or the frozen one; None for a frozen ``keras.Model`` and
        with ``refit=False``.

    input_profile_ : ColumnProfile
        Range and moments of the numeric columns that the network was fitted on, after the steps of
        a Pipeline. ``transform`` warns of columns that differ; see
        :class:`~skstack.inspection.ColumnProfile` for the rule.

    n_features_in_ : int
        Number of columns of X.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of X. Defined only if X has string names.

    Notes
    -----
    All features of an upstream that learns from y are out-of-fold, and so is the reconstruction
    error. An upstream learns from y if it, or a step before it, receives y and is not known to
    ignore it. Known to ignore y are estimators whose ``fit`` has no such parameter,
    :class:`KerasAutoencoder`, estimators of scikit-learn that accept y by convention only
    (``StandardScaler``, ``PCA``, ``OneHotEncoder``, ...), and a Pipeline, FeatureUnion or
    ColumnTransformer of these; they never receive it. A selector, a target encoder, a custom
    transformer with ``fit(X, y=None)`` and a nested KerasFeatureTransformer count as learning from
    y; use ``passes_y=False`` if they do not need it. The latent features of an autoencoder are
    learned without y and come from one network, in-sample. Reconstruction errors, and decisions of
    an outlier detector, are out-of-fold: errors are too small, and decisions too high, on the rows
    that trained the model.

    In a stack with time-ordered ``cv`` everything that is fitted is cross-fitted, with or without
    y, on earlier rows only.

    The units of inner layers of separately trained networks do not correspond. Networks of skstack
    start from the same initial weights in all folds, which keeps them aligned. For other networks
    (scikeras) each fold's layer is rotated onto that of the refitted network by an orthogonal
    Procrustes rotation (Schoenemann, Psychometrika 31, 1966), estimated on rows that both were
    trained on; a small amount of label information enters through this rotation. Results of an
    estimator's ``transform`` are never rotated. They are compared with those of the refitted
    estimator, on rows that both were fitted on; a warning names columns whose correlation is below
    0.5.

    ``groups``, and time order in a stack, are passed on to everything inside ``model`` that splits
    its training rows: stacks, transformers and networks of skstack, and the ``cv`` of
    scikit-learn's estimators. If that is not possible, ``fit`` raises an error.

    The outputs of ``keras.wrappers``' classifier are used as the ``predict_proba`` that it does not
    have. A ``random_state`` also seeds scikeras, whose folds are then fitted one at a time.

    With ``enable_metadata_routing``, ``sample_weight`` and other metadata reach the estimator, the
    steps before it, and the splitter, if requested; ``X_val`` and ``y_val`` reach an estimator that
    requests them. ``groups`` need not be requested. A search passes ``groups`` on only with routing
    enabled.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from skstack import KerasClassifier, KerasFeatureTransformer
    >>> from skstack.networks import MLP
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> risk = KerasFeatureTransformer(
    ...     KerasClassifier(MLP((8,)), epochs=5),
    ...     features=["log_odds", "entropy"],
    ...     cv=3,
    ...     random_state=0,
    ... )
    >>> risk.fit_transform(X, y).shape
    (569, 2)
    >>> risk.get_feature_names_out().tolist()
    ['log_odds_1', 'entropy']
    """

    _get_param_names = get_param_names
    _parameter_constraints = {
        "model": "no_validation",
        "layers": [None, str, list, tuple],
        "features": [None, str, list, tuple],
        "pooling": [StrOptions(set(POOLINGS))],
        "passthrough": ["boolean"],
        "batch_size": [None, Interval(Integral, 1, None, closed="left")],
        "memory": [None, str, HasMethods(["__fspath__"]), HasMethods(["cache"])],
        **INPUT_CONSTRAINTS,
        "trained_on": [None, ColumnProfile],
        "passes_y": ["boolean"],
        **CROSS_FIT_CONSTRAINTS,
    }

    @hint_at_parameters
    def __init__(
        self,
        model: Any = None,
        *,
        layers: str | Sequence[str] | None = None,
        features: str | Sequence[str] | None = None,
        pooling: str = "flatten",
        passthrough: bool = False,
        categorical_features: Any = "from_dtype",
        inputs: Any = None,
        input_shape: Any = None,
        cv: Any = 5,
        refit: bool = True,
        batch_size: int | None = None,
        memory: Any = None,
        trained_on: Any = None,
        passes_y: bool = True,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int | bool = 0,
    ) -> None:
        self.model = model
        self.layers = layers
        self.features = features
        self.pooling = pooling
        self.passthrough = passthrough
        self.categorical_features = categorical_features
        self.inputs = inputs
        self.input_shape = input_shape
        self.cv = cv
        self.refit = refit
        self.batch_size = batch_size
        self.memory = memory
        self.trained_on = trained_on
        self.passes_y = passes_y
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_clone__(self):
        return clone_sharing_models(self)

    def _validate_params(self):
        super()._validate_params()
        if is_keras_model(self.model):
            refuse_strings(self.model)

    def set_params(self, **params):
        """Set parameters, of the estimator too (``model__epochs``).

        Parameters
        ----------
        **params : dict
            Parameters by name.

        Returns
        -------
        self : KerasFeatureTransformer
            This transformer.

        Raises
        ------
        ValueError
            If a name does not exist, or belongs to a path, a ``keras.Model`` or None.
        """
        explain_missing_parameters(self, params, self._remedy)
        return super().set_params(**params)

    @staticmethod
    def _remedy(name, value):
        if name == "model" and value is None:
            return "Pass model=KerasAutoencoder() and set its parameters."
        if name == "model":
            return "A frozen model has no parameters; pass an estimator, such as KerasClassifier()."
        return "Pass an object that has parameters."

    def _sk_visual_block_(self):
        return diagram_of_features(self)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_names")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        set_input_tags(tags, [self._upstream_model])
        tags.input_tags.allow_nan &= not self.passthrough
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.target_tags.required = self.passes_y and requires_y(self.model)
        return tags

    # Metadata of the sub-estimators; the transformer itself uses none.
    __metadata_request__fit = {"sample_weight": UNUSED, "groups": UNUSED}
    __metadata_request__transform = OUT_IS_NO_METADATA

    def get_metadata_routing(self):
        """Get the metadata routing of this object.

        Returns
        -------
        MetadataRouter
            With ``model`` (and ``steps`` for those before it in a Pipeline) and ``splitter``.
        """
        return routing_of_features(self)

    @fit_context(prefer_skip_nested_validation=False)
    @hint_at_parameters
    @warn_if_one_hot
    def fit(self, X, y=None, sample_weight=None, *, groups=None, **params):
        """Fit the upstream model on all rows, or with ``refit=False`` on each fold.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Training rows.

        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets, as the model takes them. Required if the model learns from them.

        sample_weight : array-like of shape (n_samples,), default=None
            Passed to the estimator, and to steps before it that accept weights.

        groups : array-like of shape (n_samples,), default=None
            Rows of one group are never on both sides of a fold, nor of the hold-out split of early
            stopping.

        **params : dict
            Other metadata, if metadata routing is enabled.

        Returns
        -------
        self : KerasFeatureTransformer
            The fitted transformer.

        Raises
        ------
        ValueError
            If data or parameters are invalid; the message names them.
        """
        metadata, context = self._routed("fit", X, sample_weight, groups, params)
        self._learn(X, y, metadata, whole=False, ordered_cv=context.cv)
        return self

    @fit_context(prefer_skip_nested_validation=False)
    @warn_if_one_hot
    def fit_transform(self, X, y=None, sample_weight=None, *, groups=None, **params):
        """Fit, and return out-of-fold features of the training rows.

        Differs from ``fit(X, y).transform(X)``, whose features of training rows are optimistic.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Training rows.

        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets, as the model takes them. Required if the model learns from them.

        sample_weight : array-like of shape (n_samples,), default=None
            Passed to the estimator, and to steps before it that accept weights.

        groups : array-like of shape (n_samples,), default=None
            Rows of one group are never on both sides of a fold, nor of the hold-out split of early
            stopping.

        **params : dict
            Other metadata, if metadata routing is enabled.

        Returns
        -------
        ndarray of float32, or DataFrame, of shape (n_samples, n_features_out)
            A DataFrame if there are categorical columns.

        Raises
        ------
        ValueError
            If data or parameters are invalid; the message names them.
        """
        metadata, context = self._routed("fit_transform", X, sample_weight, groups, params)
        table, _, _ = self._learn(X, y, metadata, ordered_cv=context.cv)
        return for_container(self, in_float32(table))

    def _routed(self, caller, X, sample_weight, groups, params):
        """Metadata of the fit, and the row context that an outer estimator has set."""
        context = take_context(self) or RowContext()
        groups = context.groups if groups is None else groups
        return routed_features(self, caller, X, sample_weight, groups, params), context

    def _reads_indicator(self):
        model = last_step(self.model)  # tags of a Pipeline need those of its last, a path perhaps
        return hasattr(model, "__sklearn_tags__") and is_classifier(model)

    @on_snapshot
    @in_chunks
    def transform(self, X, *, out=None):
        """Features of new rows.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Rows.

        {out}

        Returns
        -------
        ndarray of float32, or DataFrame, of shape (n_samples, n_features_out)
            A DataFrame if there are categorical columns.
        """
        check_is_fitted(self)
        return for_container(self, in_float32(self._extract(read_table(self, X, reset=False))))

    def get_feature_names_out(self, input_features=None):
        """Names of the features.

        Parameters
        ----------
        input_features : array-like of str, default=None
            If given, must match the names of the columns of X.

        Returns
        -------
        ndarray of str of shape (n_features_out,)
            For example ``latent_3``, ``proba_yes``, ``log_odds_yes``, ``prediction``, then the
            columns that pass through.
        """
        check_is_fitted(self)
        names = list(self._names)
        input_names = check_input_names(self, input_features)
        if self.passthrough:
            names += [str(name) for name in input_names]
        return np.asarray(names, dtype=object)

    # Fitting and extraction -----------------------------------------------------------------

    @property
    def _upstream_model(self):
        return KerasAutoencoder() if self.model is None else self.model

    def _needs_all_rows(self):
        """Whether a fit reads all rows of a table on disk into memory."""
        model = self._upstream_model
        if is_path(model) or is_keras_model(model):
            return False
        return UpstreamSpec(model, None, None).needs_all_rows

    def _learns_from_y(self):
        return self.passes_y and learns_from_y(self.model)

    def _splits_rows(self, only_fit):
        """Whether a fit predicts rows with models that were not trained on them."""
        if only_fit and self.refit:
            return False
        errors = "reconstruction_error" in self._request().features
        return self._learns_from_y() or errors or not self.refit

    def _check_ordered(self, context, X, y, only_fit):
        raise ValueError(
            f"{context}, but the nested {type(self).__name__}(model={described(self.model)}) needs "
            "out-of-fold features of all its rows, the first ones included, so that some models "
            "would learn from later rows. Make it a branch of the stack, or the last step of one."
        )

    def _check_context(self, X, y, metadata, ordered_cv):
        """Refuse nested estimators that cannot respect groups or time order, before training."""
        model = self._upstream_model
        if is_path(model) or is_keras_model(model):
            return
        y = y if self.passes_y else None
        source = UpstreamSpec(model, y, None, ordered_cv=ordered_cv)
        if not source.splits_inside():
            return
        classes = source.classes is not None
        pairs = folds_of(self.cv, X, y, classifier=classes, metadata=metadata.split)
        source.check_context(X, y, metadata, pairs)

    def _prepare(
        self,
        X,
        y,
        metadata,
        *,
        whole=True,
        in_stack=False,
        ordered_cv=None,
        label="model",
        repeat_seeds=(),
    ):
        """Everything of a fit that comes before training, with its checks: a `_Plan`.

        ``repeat_seeds`` are the seeds of further repeats of the cross-fit.
        """
        check_parts(self)
        X = read_table(self, X, reset=True)
        resolve_object_columns(X)
        user_y, y = y, self._read_targets(X, y)
        cv, source = self._upstream_spec(y, ordered_cv, in_stack, label)
        self._refuse_unsuitable(source, user_y, y)
        refuse_vectorizers(self._upstream_model, X, label)
        if source.needs_all_rows and not in_stack:
            announce_memory(X, f"{type(self).__name__}(model={described(self.model)})")
        self._feature_request = self._request()
        self._float32 = is_float32(X)
        if self.passthrough:
            self._passed = Passthrough(self.categorical_features).fit(X)
            self._passed.table(in_memory(take_rows(X, slice(0, FEW_ROWS))))
        needs_folds = whole and source.needs_folds(self._feature_request)
        if whole and not in_stack and source.trained and not needs_folds:
            refuse_ordered(cv, X, y, metadata.split)
        repeats = []
        if needs_folds or not (source.frozen or self.refit):
            repeats = self._repeats(cv, source, X, y, metadata, in_stack, repeat_seeds)
        if in_stack and self._checks_early(source):
            source.prepared(
                X, y, metadata, repeats, self._feature_request, refit=self.refit, early=True
            )
        covered = repeats[0].covered if repeats else None
        names = source.known_names(self._feature_request, y)
        if self.passthrough:
            self._refuse_equal_names(X, names)
            names += map(str, getattr(X, "columns", ()))
        return _Plan(X, y, user_y, metadata, source, repeats, covered, names, whole, in_stack)

    def _read_targets(self, X, y):
        """The targets that the model gets."""
        if y is not None:
            check_consistent_length(X, y)
            y = y.toarray() if hasattr(y, "toarray") else y
            if is_dataframe(y) and y.shape[1] > 1 and hasattr(y, "to_pandas"):
                with contextlib.suppress(ImportError):  # polars converts with pyarrow
                    y = y.to_pandas()  # an array would lose names, and dtypes of classes
            y = y if hasattr(y, "iloc") else np.asarray(y)
        return y if self.passes_y else None

    def _upstream_spec(self, y, ordered_cv, in_stack, label):
        """The splitter, and what is to be fitted: an `UpstreamSpec`."""
        blocks = ColumnBlocks(
            self.categorical_features, inputs=self.inputs, input_shape=self.input_shape
        )
        cv = self.cv
        if self.random_state is not None:
            # A copy, because a RandomState is drawn from once, for the seeds of the model.
            cv = seeded_splitter(cv, draw_seed(copy.deepcopy(self.random_state)))
        model = upstream_of(self._upstream_model, self.random_state)
        source = UpstreamSpec(
            model, y, blocks, self.batch_size, self.memory,
            ordered_cv=ordered_cv, crossed=in_stack and ordered_cv is not None, label=label,
        )  # fmt: skip
        return cv, source

    def _refuse_unsuitable(self, source, user_y, y):
        """Refuse parameters, and a missing y, that do not suit the kind of upstream."""
        if source.needs_y and y is None:
            reason = "" if user_y is None else ", for passes_y=False"
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                f"is None{reason}: {type(source.model).__name__} learns from y."
            )
        reads_columns = self.inputs is not None or self.input_shape is not None
        if reads_columns and not is_keras_model(source.model):
            raise ValueError(
                f"inputs={self.inputs!r} and input_shape={self.input_shape!r} are only for a "
                f"frozen keras.Model. Set such parameters of {type(source.model).__name__} itself, "
                "if it has them."
            )
        if self.trained_on is not None and not source.frozen:
            raise ValueError(
                f"trained_on={self.trained_on!r} is only for a frozen network, "
                f"but {type(source.model).__name__} is trained in this fit."
            )

    def _repeats(self, cv, source, X, y, metadata, in_stack, seeds):
        """The folds of the cross-fit, and those of further repeats with other seeds."""
        folds = self._folds(cv, source, X, y, metadata, in_stack)
        repeats = [folds]
        if seeds and "codes" in self._feature_request.features:
            raise ValueError(
                "features='codes' with n_repeats above 1: category codes cannot be averaged over "
                "repeats. Use n_repeats=1."
            )
        for seed in seeds:
            pairs = shuffled_folds(
                cv, X, y, seed, classifier=source.classes is not None, metadata=metadata.split
            )
            repeats.append(Folds(pairs, folds.covered))
        return repeats

    def _checks_early(self, source):
        """Whether to check before other branches are trained.

        Not if steps must be fitted first that train a network, or that a cache would spare.
        """
        steps = [] if source.steps is None else [step for _, step in source.steps.steps]
        return not steps or (self.memory is None and not any(map(trains_network, steps)))

    @atomic_fit
    @with_callbacks
    def _learn(self, X, y, metadata, *, plan=None, nested=None, **settings):
        """Fit; return features of all rows, a mask of the rows that have them, and `FoldTable`s.

        In a stack with time-ordered folds some rows may have no features: these are NaN. ``plan``
        is what `_prepare` returned for these rows; without it, ``settings`` are passed there.
        ``nested`` holds the folds of the stack, if it needs what it would see without each of them
        (or the ValueError of such a fit).
        """
        unfitted = copy_of(self)
        plan = self._prepare(X, y, metadata, **settings) if plan is None else plan
        X, y, metadata, source, repeats = plan.X, plan.y, plan.metadata, plan.source, plan.repeats
        nests = nested is not None and source.out_of_fold
        same = nests and _same_folds(nested.repeats, repeats)
        scored = nested.scored if same else None
        n_tasks = number_of_fits(source, repeats, refit=self.refit, scored=scored)
        if nests and not same:
            n_tasks += sum(len(each.numbers) for each in nested.scored)
        with fit_tasks(self, n_tasks, parallel=True, X=X, y=plan.user_y):
            cross_fit = cached_fit(
                source, X, y, metadata, repeats, self._feature_request,
                whole=plan.whole, seeded=self.random_state is not None, memory=self.memory,
                refit=self.refit, n_jobs=self.n_jobs, scored=scored, verbose=self.verbose,
            )  # fmt: skip
            columns, self._upstreams = cross_fit.columns, cross_fit.upstreams
            self._fold_histories = cross_fit.histories
            self.input_profile_ = input_profile(source, self._upstreams, X, self.trained_on)
            one = self._upstreams[0].view if len(self._upstreams) == 1 else None
            self.estimator_ = getattr(one, "estimator", None)
            if columns is None:
                # Without folds, extract a few rows: for the names, and to fail early.
                rows = X if plan.whole else take_rows(X, slice(0, FEW_ROWS))
                columns = self._columns(rows)
            self._names = [name for part in columns for name in part.names]
            if self.passthrough:
                self._refuse_equal_names(X, self._names)
            if not plan.whole:
                return None
            table = self._table(columns, X)
            if not plan.in_stack:  # the scaler of a stack subtracts an offset
                self._warn_of_rounding(table)
            tables = None
            if same and isinstance(cross_fit.without_fold, ValueError):
                tables = cross_fit.without_fold
            elif same:
                tables = [
                    {
                        number: FoldTable(self, self._table(fold.columns, X), fold)
                        for number, fold in repeat.items()
                    }
                    for repeat in cross_fit.without_fold
                ]
            elif nests:
                try:
                    tables = [
                        {
                            number: unfitted._refitted_without(plan, pairs, number)
                            for number in scored.numbers
                        }
                        for pairs, scored in zip(*nested, strict=True)
                    ]
                except ValueError as error:
                    tables = error
            return table, plan.covered, tables

    def _check_nested(self, X, y, metadata, nested):
        """Raise a ValueError if this branch cannot be cross-fitted without each fold of a stack."""
        if not self._learns_from_y():
            return
        source = UpstreamSpec(upstream_of(self._upstream_model, 0), y, None)
        settings = {"classifier": source.classes is not None, "metadata": metadata.split}
        own = folds_of(self.cv, X, y, **settings)
        for pairs in nested:
            if len(nested) == 1 and _same_folds([pairs], [Folds(own, np.ones(len(y)))]):
                continue
            for train, _ in pairs:
                part = self._without(train, X, y, metadata)
                split = {**settings, "metadata": metadata.of(X, train).split}
                inner = folds_of(part.cv, take_rows(X, train), take_rows(y, train), **split)
                for rows, _ in inner:
                    labels = y[train][rows] if source.classes is not None else ()
                    if len(np.unique(labels)) < len(source.classes if len(labels) else ()):
                        raise ValueError("its folds without a fold of the stack lack a class")

    def _without(self, train, X, y, metadata):
        """A copy of an unfitted branch with folds of some of its rows."""
        branch = copy_of(self)
        drop_callbacks(branch)
        branch.cv = restricted_cv(self.cv, train, X, y, metadata.split)
        if isinstance(branch.cv, list) and len(branch.cv) < 2:
            branch.cv = 2
        return branch

    def _refitted_without(self, plan, pairs, number):
        """The `RefittedTable` of one fold of the stack."""
        train, test = pairs[number]
        branch = self._without(train, plan.X, plan.y, plan.metadata)
        what = f"without fold {number + 1} of {len(pairs)}"
        label = f"{plan.source.label}, {what}"
        rows, targets = take_rows(plan.X, train), take_rows(plan.y, train)
        with fitting(what), errors_named(label), propagating(branch):
            metadata = plan.metadata.of(plan.X, train)
            own, _, _ = branch._learn(rows, targets, metadata, in_stack=True, label=label)
        return RefittedTable(branch, own, train, test, plan.X)

    def _warn_of_rounding(self, table):
        names = list(self.get_feature_names_out())
        if hasattr(table, "iloc"):
            wide = [index for index, dtype in enumerate(table.dtypes) if dtype == np.float64]
            table, names = table.iloc[:, wide].to_numpy(), [names[index] for index in wide]
        warn_of_lost_precision(
            table,
            names,
            "transform returns float32. Subtract an offset from targets or columns first, or use "
            "a stack, which scales such features in float64.",
        )

    def _folds(self, cv, source, X, y, metadata, in_stack):
        folds = make_folds(
            cv,
            X,
            y,
            classifier=source.classes is not None,
            metadata=metadata.split,
            weights=metadata.fit.get("sample_weight"),
            may_leave_out=in_stack,
        )
        if "codes" in self._feature_request.features and not self.refit:
            raise ValueError(
                "features='codes' with refit=False: category codes cannot be averaged over folds. "
                "Use refit=True."
            )
        if not (self.refit or folds.covered.all()):
            raise ValueError(
                f"refit=False is not supported with the time-ordered cv={shown_cv(self.cv)}: the "
                "networks of the folds were trained on different numbers of rows, none on the last "
                "rows. Use refit=True."
            )
        return folds

    def _request(self):
        passes_steps = getattr(self, "_passes_steps", False)
        return FeatureRequest.of(self.features, self.layers, self.pooling, passes_steps)

    def _refuse_equal_names(self, X, names):
        """Refuse columns that pass through with the name of a feature."""
        equal = sorted(set(names) & set(map(str, getattr(X, "columns", ()))))
        if equal:
            raise ValueError(
                f"passthrough=True: X has columns with the names of features, {equal}. Rename "
                "these columns, or use a ColumnTransformer, which adds prefixes."
            )

    def _columns(self, X, check_input=None):
        if len(self._upstreams) == 1:
            return self._upstreams[0].columns(X, self._feature_request, check_input)
        return mean_of(self._upstreams, X, self._feature_request, check_input)

    def _table(self, columns, X):
        if isinstance(X, DiskTable) and (self.passthrough or len(columns) > 1):
            return self._table_in_chunks(columns, X)
        coded = any(part.categorical for part in columns)
        passed = self._passed.table(X) if self.passthrough else None
        if coded or hasattr(passed, "iloc"):
            table = to_dataframe(columns, passed).set_axis(self.get_feature_names_out(), axis=1)
            return indexed_like(table, X)
        parts = [part.values for part in columns]
        if passed is not None:
            parts.append(passed)
        writeable = len(parts) == 1 and parts[0].flags.writeable  # cached arrays are not
        return parts[0] if writeable else np.hstack(parts)

    def _table_in_chunks(self, columns, X):
        """As ``_table``, of a table on disk: an array may be in a file."""

        def join(parts):
            *values, rows = parts
            own = [replace(c, values=v) for c, v in zip(columns, values, strict=True)]
            return self._table(own, rows)

        return DiskTable.joined([*(c.values for c in columns), X], join).stored()

    def _extract(self, X):
        """Features of validated rows, before `set_output` wraps them."""
        return self._table(self._columns(X, self._check_input), X)

    def _check_input(self, rows):
        profile = self.input_profile_
        once_per_call(profile, lambda: profile.warn_if_moved(rows))

    # As layers of one model; see `_graph.dispatch.GraphPart` ---------------------------------

    def _graph_transform(self, table, name, whole=None):
        """The table that `transform` makes; ``whole`` names the layer that joins its parts."""
        import keras

        from skstack._graph.tables import (
            CodedColumn,
            GraphTable,
            concatenate,
            concatenate_tables,
            layer_name,
            passthrough_table,
        )

        request = self._feature_request
        table = replace(table, single=self._float32)
        several = len(self._upstreams) > 1
        each = []
        for index, upstream in enumerate(self._upstreams):
            own = f"{name}_fold_{index}" if several else name
            each.append(upstream.graph(table, request, own))
        if several:
            each = [concatenate(part, f"{name}_fold_{i}_features") for i, part in enumerate(each)]
            mean = keras.layers.Average(name=layer_name(f"{name}_mean"), dtype="float32")(each)
            parts = [GraphTable.of(mean)]
        elif any(isinstance(part, CodedColumn) for part in each[0]):
            parts = [
                GraphTable([p]) if isinstance(p, CodedColumn) else GraphTable.of(p) for p in each[0]
            ]
        else:
            parts = [GraphTable.of(concatenate(each[0], f"{name}_features"))]
        if self.passthrough:
            reader = f"{type(self).__name__}(passthrough=True)"
            parts.append(
                passthrough_table(table, self._passed.blocks_, f"{name}_passthrough", reader)
            )
        return concatenate_tables(parts, whole or f"{name}_table")

    def _graph(self, table, name, prefix):
        return self._graph_transform(table, name)

    def _graph_outputs(self, table):
        from skstack._graph.tables import numbers_of

        features = self._graph_transform(table, "network", whole="features_out")
        reader = f"{type(self).__name__}(passthrough=True)"
        return numbers_of(features, range(len(features.columns)), "features", reader)

    def _column_readers(self, indices, name, pad, transforms):
        from skstack._graph.dispatch import first_readers, passthrough_readers
        from skstack._graph.sklearn_steps import listed_steps

        for upstream in self._upstreams:
            steps = [] if upstream.steps is None else listed_steps(upstream.steps)
            last = getattr(upstream.view, "estimator", upstream.view)
            own = getattr(upstream.view, "transforms", False)
            yield from first_readers([*steps, last], indices, name, transforms=own)
        if self.passthrough:
            yield from passthrough_readers(self._passed, indices)


@dataclass(frozen=True)
class _Plan:
    """What a fit trains, once it is checked: the model, the rows, and the `Folds` of each repeat.

    ``covered`` is the mask of rows that have out-of-fold features, or None; ``known_names`` are the
    names of columns that are certain; ``whole`` is whether features of all rows are requested.
    """

    X: Any
    y: Any
    user_y: Any
    metadata: Metadata
    source: UpstreamSpec
    repeats: list[Folds]
    covered: np.ndarray | None
    known_names: list[str]
    whole: bool
    in_stack: bool


class FoldTable:
    """The table of a branch in a stack that lacks one fold.

    ``table`` holds the features of all rows, as in `FoldFeatures`; ``rows`` are those that have
    features, None if all have.
    """

    def __init__(self, branch, table, features):
        self.table, self.rows = table, features.rows
        self._branch = branch
        self._upstream = features.upstream

    def extract(self, X):
        """Features of other rows."""
        columns = self._upstream.columns(X, self._branch._feature_request)
        return self._branch._table(columns, X)


class RefittedTable:
    """As `FoldTable`, of a branch that was cross-fitted again without the fold."""

    def __init__(self, branch, own, train, test, X):
        self._branch = branch
        other = branch._extract(take_rows(X, test))
        self.table = joined_rows([own, other], [train, test], n_rows(X))
        self.rows = None if len(train) + len(test) == n_rows(X) else np.union1d(train, test)

    def extract(self, X):
        """Features of other rows."""
        return self._branch._extract(X)


def joined_rows(tables, rows, n):
    """A table of n rows, of tables of some of its rows; numbers of the others are NaN."""
    if not any(hasattr(table, "iloc") for table in tables):
        values = np.full((n, tables[0].shape[1]), np.nan, np.result_type(*tables))
        for table, own in zip(tables, rows, strict=True):
            values[own] = table
        return values
    indexed = [table.set_axis(own, axis=0) for table, own in zip(tables, rows, strict=True)]
    return joined_frames(indexed).reindex(range(n))


def _same_folds(nested, repeats):
    """Whether one model for each pair of folds serves a stack with these folds, by repeat."""
    return len(nested) == len(repeats) and all(
        same_folds(pairs, folds.pairs) and (len(pairs) > 2 or not np.all(folds.covered))
        for pairs, folds in zip(nested, repeats, strict=True)
    )


def cached_fit(source, X, y, metadata, folds, request, *, whole, seeded, memory, **settings):
    """Result of ``fit_upstreams``, from the cache if the same was fitted before.

    ``whole`` is whether features of all rows are requested, ``seeded`` whether each fit draws the
    same seeds.
    """

    def describe():
        if not seeded:
            raise Unkeyable("random_state=None draws new seeds in every fit")
        parts = (
            request,
            settings["refit"],
            settings["scored"],
            whole,
            repr(source.ordered_cv),
            settings_key(),
            estimator_key(source.model),
        )
        steps = None if source.steps is None else estimator_key(source.steps)
        data = data_key(X, y, vars(metadata), [each.pairs for each in folds])
        return (*parts, steps, data)

    def compute():
        return fit_upstreams(source, X, y, metadata, folds, request, **settings)

    memory = None if source.frozen else memory
    return cached(memory, describe, compute, verbose=settings["verbose"])


def input_profile(source, upstreams, X, trained_on=None):
    """Profile of the training rows of a network; a frozen network is compared with the rows of X.

    Raises a ValueError if ``trained_on`` has other columns than the input of the network.
    """
    if not source.frozen:
        return ColumnProfile.pooled([upstream.profile for upstream in upstreams])
    first = upstreams[0]
    X = some_rows(X)
    X = X if first.steps is None else first.steps.transform(own_rows(X))
    profile = first.profile if trained_on is None else trained_on
    if trained_on is not None:
        profile.check_columns(X, "trained_on")
    profile.warn_if_moved(X)
    return profile


_FITS = ("fit", "fit_transform")


def given_metadata(X, sample_weight, groups, params):
    """The keyword arguments that are not None; weights and groups validated."""
    metadata = {
        "sample_weight": check_weights(sample_weight, X),
        "groups": check_groups(groups, X),
        **params,
    }
    return {name: value for name, value in metadata.items() if value is not None}


def _mapping(callee):
    mapping = MethodMapping()
    for caller in _FITS:
        mapping.add(caller=caller, callee=callee)
    return mapping


def add_estimator(router, name, estimator, *, callee="fit", unset=None, predicts=False):
    """Add a sub-estimator whose ``fit`` or ``fit_transform`` is called in both of the router's own.

    ``unset`` gives the meaning of requests that are not set; by default, passing such metadata
    raises an error. ``predicts`` is whether the router's ``predict`` calls that of the
    sub-estimator.
    """
    routing = get_routing_for_object(estimator)
    if isinstance(routing, MetadataRequest):
        method = getattr(routing, callee)
        for parameter, alias in (unset or {}).items():
            if method.requests.get(parameter, False) is None:
                method.add_request(param=parameter, alias=alias)
    mapping = _mapping(callee)
    if predicts:
        mapping.add(caller="predict", callee="predict")
    router.add(**{name: routing}, method_mapping=mapping)


def add_splitter(router, cv):
    """Add the splitter; groups always reach it, or the check that folds keep them together."""
    routing = get_routing_for_object(cv)
    if routing.split.requests.get("groups") is None:
        routing.split.add_request(param="groups", alias=True)
    router.add(splitter=routing, method_mapping=_mapping("split"))


def routing_of_features(transformer):
    """The MetadataRouter of a KerasFeatureTransformer: ``model``, ``steps``, ``splitter``."""
    router = MetadataRouter(owner=transformer)
    steps, model = _parts(transformer.model)
    if steps is not None:
        add_estimator(router, "steps", steps, callee="fit_transform")
    unset = {"X_val": False, "y_val": False}
    if model is None:
        # No other object could request it.
        model, unset = KerasAutoencoder(), {**unset, "sample_weight": True}
    if _is_trained(model):
        add_estimator(router, "model", model, unset=unset)
    add_splitter(router, transformer.cv)
    return router


def routed_features(transformer, caller, X, sample_weight, groups, params):
    """Distribute the metadata of a fit over the parts of a KerasFeatureTransformer."""
    metadata = given_metadata(X, sample_weight, groups, params)
    if routing_enabled():
        routed = process_routing(transformer, caller, **metadata)
        return Metadata(
            split=routed["splitter"]["split"],
            steps=routed.get("steps", {}).get("fit_transform", {}),
            fit=routed.get("model", {}).get("fit", {}),
        )
    refuse_metadata(params, transformer, caller)
    steps, model = _parts(transformer.model)
    if (
        _is_trained(model)
        and "sample_weight" in metadata
        and not accepts_fit_parameter(model, "sample_weight")
    ):
        raise ValueError(
            f"sample_weight was passed, but {type(model).__name__} does not accept it."
        )
    ours = model is None or is_network_estimator(model)
    fit = {name: value for name, value in metadata.items() if name != "groups" or ours}
    split = {"groups": metadata["groups"]} if "groups" in metadata else {}
    return Metadata(split=split, steps=_weights_of_steps(steps, metadata), fit=fit)


def _weights_of_steps(steps, metadata):
    """Weights for the steps that accept them; none if a sampler changes the rows."""
    steps = [] if steps is None or "sample_weight" not in metadata else steps.steps
    if any(hasattr(step, "fit_resample") for _, step in steps):
        return {}
    return {
        f"{name}__sample_weight": metadata["sample_weight"]
        for name, step in steps
        if hasattr(step, "fit") and accepts_fit_parameter(step, "sample_weight")
    }


def _parts(model):
    """The steps before the last of a Pipeline, or None, and the last step."""
    if not isinstance(model, Pipeline):
        return None, model
    return (model[:-1] if len(model) > 1 else None), model.steps[-1][1]


def _is_trained(model):
    return hasattr(model, "get_params") and not isinstance(model, FrozenEstimator)
