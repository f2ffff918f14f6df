"""From rows to the features of networks that have not seen them."""

# A network's outputs as features.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, is_classifier
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from skstack._base.atomic_fit import atomic_fit, on_snapshot
from skstack._base.diagram import diagram_of_features
from skstack._base.in_chunks import in_chunks, once_per_call
from skstack._base.params import (
    clone_sharing_models,
    explain_missing_parameters,
    is_keras_model,
    is_path,
)
from skstack._base.sklearn import (
    CROSS_FIT_CONSTRAINTS,
    INPUT_CONSTRAINTS,
    HasMethods,
    Interval,
    StrOptions,
    check_input_names,
    check_parts,
    fit_context,
)
from skstack._base.tables import indexed_like, is_float32, read_table, take_rows
from skstack._base.targets import warn_if_one_hot
from skstack._estimators.autoencoder import KerasAutoencoder
from skstack._features.adapters import upstream_of
from skstack._features.cached_fit import cached_fit, input_profile
from skstack._features.columns import POOLINGS, to_dataframe
from skstack._features.cross_fit import FeatureRequest, UpstreamSpec, mean_of
from skstack._features.routing import routed_features, routing_of_features
from skstack._graph.mixin import ExportMixin
from skstack._splits.folds import folds_of, make_folds, refuse_ordered
from skstack._splits.row_context import RowContext, take_context
from skstack._splits.supervision import learns_from_y, requires_y
from skstack.preprocessing._blocks import ColumnBlocks
from skstack.preprocessing._column_profile import ColumnProfile
from skstack.preprocessing._columns import resolve_object_columns
from skstack.preprocessing._passthrough import Passthrough
from skstack.preprocessing._precision import in_float32, warn_of_lost_precision

FEW_ROWS = 8


class Extraction(TransformerMixin, BaseEstimator):
    """What a KerasFeatureTransformer does with rows; not for use by itself."""

    def _learns_from_y(self):
        return self.passes_y and learns_from_y(self.model)

    def _splits_rows(self, only_fit):
        """Whether a fit asks some models about rows that others were trained on."""
        if only_fit and self.refit:
            return False
        errors = "reconstruction_error" in self._wanted_features().features
        return self._learns_from_y() or errors or not self.refit

    def _check_ordered(self, context, X, y, only_fit):
        raise ValueError(
            f"{context}, but the inner {type(self).__name__}(model={self.model!r}) needs features "
            "of all its rows from models that were not trained on them, the first rows too, so "
            "that some learn from later rows. Make it a branch of the stack, or the last step of "
            "one."
        )

    def _check_context(self, X, y, metadata, ordered_cv):
        """Refuse inner parts that cannot respect groups or order, before anything is trained."""
        model = KerasAutoencoder() if self.model is None else self.model
        if is_path(model) or is_keras_model(model):
            return
        y = y if self.passes_y else None
        source = UpstreamSpec(model, y, None, ordered_cv=ordered_cv)
        if not source.splits_inside():
            return
        classes = source.classes is not None
        pairs = folds_of(self.cv, X, y, classifier=classes, metadata=metadata.split)
        source.check_context(X, y, metadata, pairs)

    @atomic_fit
    def _learn(self, X, y, metadata, *, whole=True, in_stack=False, ordered_cv=None, label="model"):
        """Fit; the features of all rows, and which of them are out-of-fold or need not be.

        In a stack, time-ordered folds may leave rows without features, which are then NaN.
        """
        check_parts(self)
        X = read_table(self, X, reset=True)
        resolve_object_columns(X)
        given_y = y
        if y is not None:
            check_consistent_length(X, y)
            y = y if hasattr(y, "iloc") else np.asarray(y)
        if not self.passes_y:
            y = None
        model = KerasAutoencoder() if self.model is None else self.model
        blocks = ColumnBlocks(
            self.categorical_features, inputs=self.inputs, input_shape=self.input_shape
        )
        model = upstream_of(model, self.random_state)
        source = UpstreamSpec(
            model, y, blocks, self.batch_size, self.memory,
            ordered_cv=ordered_cv, crossed=in_stack and ordered_cv is not None, label=label,
        )  # fmt: skip
        if source.needs_y and y is None:
            reason = "" if given_y is None else ", for passes_y=False"
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                f"is None{reason}: {type(source.model).__name__} learns from it."
            )
        columns_said = self.inputs is not None or self.input_shape is not None
        if columns_said and not is_keras_model(source.model):
            raise ValueError(
                f"inputs={self.inputs!r} and input_shape={self.input_shape!r} say how a frozen "
                f"keras.Model reads X; {type(source.model).__name__} reads its rows by itself and "
                "has such parameters of its own, or none."
            )
        if self.trained_on is not None and not source.frozen:
            raise ValueError(
                f"trained_on={self.trained_on!r} is for a frozen network, but "
                f"{type(source.model).__name__} is trained here, on rows that are known."
            )
        self._wanted = self._wanted_features()
        self._float32 = is_float32(X)
        if self.passthrough:
            self._passed = Passthrough(self.categorical_features).fit(X)
            self._passed.table(take_rows(X, slice(0, FEW_ROWS)))
        folds = None
        needs_folds = whole and source.needs_folds(self._wanted)
        if whole and not in_stack and source.trained and not needs_folds:
            refuse_ordered(self.cv, X, y, metadata.split)
        if needs_folds or not (source.frozen or self.refit):
            folds = self._folds(source, X, y, metadata, in_stack)
        columns, self._upstreams = cached_fit(
            source, X, y, metadata, folds, self._wanted,
            whole=whole, seeded=self.random_state is not None, memory=self.memory,
            refit=self.refit, n_jobs=self.n_jobs, verbose=self.verbose,
        )  # fmt: skip
        self.input_profile_ = input_profile(source, self._upstreams, X, self.trained_on)
        one = self._upstreams[0].view if len(self._upstreams) == 1 else None
        self.estimator_ = getattr(one, "estimator", None)
        if columns is None:
            # Without folds the first rows tell the names, and whether the features can be had.
            rows = X if whole else take_rows(X, slice(0, FEW_ROWS))
            columns = self._columns(rows)
        self._names = [name for part in columns for name in part.names]
        if not whole:
            return None
        table = self._table(columns, X)
        if not in_stack:  # whose scaler subtracts an offset
            self._warn_of_rounding(table)
        return table, None if folds is None else folds.covered

    def _warn_of_rounding(self, table):
        names = list(self.get_feature_names_out())
        if hasattr(table, "iloc"):
            wide = [place for place, dtype in enumerate(table.dtypes) if dtype == np.float64]
            table, names = table.iloc[:, wide].to_numpy(), [names[place] for place in wide]
        warn_of_lost_precision(
            table,
            names,
            "transform gives float32; a stack scales such features before. Else subtract an offset "
            "from the targets, or the columns, first.",
        )

    def _folds(self, source, X, y, metadata, in_stack):
        folds = make_folds(
            self.cv,
            X,
            y,
            classifier=source.classes is not None,
            metadata=metadata.split,
            may_leave_out=in_stack,
        )
        if "codes" in self._wanted.features and not self.refit:
            raise ValueError(
                "features='codes' with refit=False: numbers of categories have no mean over "
                "folds. Use refit=True."
            )
        if not (self.refit or folds.covered.all()):
            raise ValueError(
                f"refit=False does not go with the time-ordered cv={self.cv!r}: its networks "
                "have learned from unlike numbers of rows, and none from the last ones. Use "
                "refit=True."
            )
        return folds

    def _wanted_features(self):
        passes_steps = getattr(self, "_passes_steps", False)
        return FeatureRequest.of(self.features, self.layers, self.pooling, passes_steps)

    def _columns(self, X, look=None):
        if len(self._upstreams) == 1:
            return self._upstreams[0].columns(X, self._wanted, look)
        return mean_of(self._upstreams, X, self._wanted, look)

    def _table(self, columns, X):
        coded = any(part.categorical for part in columns)
        passed = self._passed.table(X) if self.passthrough else None
        if coded or hasattr(passed, "iloc"):
            table = to_dataframe(columns, passed).set_axis(self.get_feature_names_out(), axis=1)
            return indexed_like(table, X)
        parts = [part.values for part in columns]
        if passed is not None:
            parts.append(passed)
        alone = len(parts) == 1 and parts[0].flags.writeable  # what is remembered is not
        return parts[0] if alone else np.hstack(parts)

    def _extract(self, X):
        # What `transform` gives before `set_output` puts it into a container.
        check_is_fitted(self)
        X = read_table(self, X, reset=False)
        return self._table(self._columns(X, self._look), X)

    def _look(self, rows):
        profile = self.input_profile_
        once_per_call(profile, lambda: profile.warn_if_moved(rows))


class KerasFeatureTransformer(ExportMixin, Extraction):
    """Outputs of a network, or of its inner layers, as features.

    What learns from y is cross-fitted: ``fit_transform(X, y)`` gives each row features of a network
    that was not trained on it, and ``transform`` those of a network that was trained on all rows.
    As with :class:`~sklearn.preprocessing.TargetEncoder`, ``fit_transform(X, y)`` is therefore not
    ``fit(X, y).transform(X)``. A frozen network is not trained and needs no folds, but it may have
    been trained on the test rows before: see :func:`~skstack.inspection.check_overlap`.

    Parameters
    ----------
    model : path, keras.Model, FrozenEstimator, estimator or Pipeline, default=None
        A path to a saved model (``.keras``, ``.h5``), a built ``keras.Model`` or a
        :class:`~sklearn.frozen.FrozenEstimator` is frozen; any other estimator (ours, one of
        scikeras or ``keras.wrappers``, a plain scikit-learn one) is cloned and trained. Of a
        Pipeline the last step gives the features; the steps before are fitted with it, in each fold
        anew. Samplers of an imbalanced-learn Pipeline resample the rows that the last step is
        fitted on, X and y alike. None stands for ``KerasAutoencoder()``.

    layers : str or list of str, default=None
        Inner layers whose outputs are wanted, all taken in one pass; ``"outer/inner"`` names a
        layer of a nested model.

    features : str or list of str, default=None
        ``"outputs"`` (``predict_proba``, for two classes the second column only, else
        ``decision_function``, ``predict`` or ``transform``; of a frozen ``keras.Model`` its
        outputs), ``"log_odds"`` (clipped at 1e-7), ``"entropy"`` (in nats), ``"margin"`` (between
        the two largest probabilities), ``"reconstruction_error"`` or ``"codes"`` (the number of the
        largest output, or whole numbers as they are, as a categorical column, which a network
        downstream embeds). None is ``"outputs"`` where no layers are named, else nothing.

    pooling : {"flatten", "mean", "max", "last"}, default="flatten"
        What is done with outputs of rank 3 and more, over all axes but rows and channels.

    passthrough : bool, default=False
        Whether the columns of X follow the features.

    categorical_features : "from_dtype", None or array-like, default="from_dtype"
        Which columns that pass through, or go to a frozen model, are categories: by dtype, none, or
        given by names, positions or a mask. A trained estimator has its own.

    inputs : None, "prefix", dict or list, default=None
        Which columns make up an input of their own, for a frozen network with several: a dict of
        input name to columns (as in :class:`~sklearn.compose.ColumnTransformer`), a list of columns
        in the order of the model's inputs, or ``"prefix"``: columns that begin alike, up to ``__``,
        as the branches of a stack do. The other numeric columns are the input ``numeric``; every
        categorical column, and every column that holds arrays, is an input by itself. A trained
        estimator has its own ``inputs`` and ``input_shape``.

    input_shape : tuple of int or dict of str to tuple, default=None
        Shape in which the network takes one row, such as ``(28, 28, 1)`` for 784 columns; a dict
        says it by input.

    cv : int, splitter or iterable, default=5
        Folds of the cross-fit; an int means stratified ones where the network learns classes, and
        with ``groups`` such as keep each group whole. They must cover each row once; a time-ordered
        cv, which never predicts the first rows, belongs into a stack.

    refit : bool, default=True
        Whether ``transform`` uses a network trained on all rows; else the mean over the networks
        of the folds.

    batch_size : int, default=None
        Rows in one pass through a frozen network or through inner layers. None chooses.

    memory : None, str or object with the interface of joblib.Memory, default=None
        A folder where fits of upstream networks and features of frozen ones are stored. An entry is
        found by content: rows, targets, weights, folds, all parameters, the code of the recipe, the
        weights of a frozen model and the versions of packages. Nothing is stored where
        ``random_state`` is None, where there are callbacks, or where code cannot be compared. A
        folder given by name holds 2 GiB at most; entries are pickles, so use none that others can
        write to. Features of frozen networks for the rows used last are kept in memory in any
        case, up to 256 MiB.

    trained_on : ColumnProfile, default=None
        What a frozen network was trained on, ``ColumnProfile.of(X_train)`` from
        :mod:`skstack.inspection`, where it tells that not itself: ``fit``, too, then warns of
        columns on another scale. None: a fitted estimator of skstack remembers, of any other
        network the rows of ``fit`` are taken to be right.

    passes_y : bool, default=True
        Whether the estimator, and the steps before it, get y. Whatever gets y and is not known to
        ignore it counts as learning from y, and is cross-fitted. With False nothing gets y: a
        transformer that can do without is fitted once, on all rows.

    n_jobs : int, default=None
        Threads that fit folds side by side.

    random_state : int, RandomState instance or None, default=None
        Seeds what is trained, where the estimator itself leaves its seed open.

    verbose : int, default=0
        Above 0: a line for each fold.

    Attributes
    ----------
    estimator_ : estimator or None
        Trained on all rows, or the frozen one; None for a frozen ``keras.Model`` and with
        ``refit=False``.

    input_profile_ : ColumnProfile
        Range and moments of the numeric columns that the network was fitted on, behind the steps of
        a Pipeline. ``transform`` warns, naming columns, when others come: see
        :class:`~skstack.inspection.ColumnProfile` for the rule.

    n_features_in_ : int
        Number of columns of X.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X had string names.

    Notes
    -----
    Which features are out-of-fold: all those of an upstream that learns from y, and the
    reconstruction error. An upstream learns from y where it, or a step before it, gets y and is not
    known to ignore it. Known to ignore y are estimators whose ``fit`` does not take it,
    :class:`KerasAutoencoder`, those of scikit-learn that take it by convention only
    (``StandardScaler``, ``PCA``, ``OneHotEncoder``, ...), and a Pipeline, FeatureUnion or
    ColumnTransformer of such; they never get it. A selector, a target encoder, a transformer of
    your own with ``fit(X, y=None)`` and an inner KerasFeatureTransformer all count as learning from
    y; ``passes_y=False`` says that they need not see it. What an autoencoder's ``transform`` gives
    was learned without y and comes from one network, in-sample.

    In a stack whose ``cv`` is ordered in time everything that is trained is cross-fitted, with y or
    without, for it learns from earlier rows only.

    Inner layers of networks that were trained apart have no common axes. Networks of skstack start
    from one set of initial weights in all folds, which keeps the axes together. Where the start
    cannot be set (scikeras and others), each fold's layer is turned onto that of the refitted
    network by an orthogonal Procrustes rotation (Schoenemann, Psychometrika 31, 1966) that is
    learned on rows that both were trained on; through this rotation labels enter a little. What
    ``transform`` of an estimator gives is never turned. Each fold's is compared with that of the
    refitted one, on rows that both were fitted on; a warning names columns whose correlation is
    below 0.5.

    ``groups``, and the order of time in a stack, are handed on to everything inside ``model`` that
    splits its training rows: stacks, transformers and networks of skstack, and the ``cv`` of
    scikit-learn's estimators. Where that cannot be done, the fit is refused.

    Outputs of ``keras.wrappers``' classifier stand for the ``predict_proba`` that it lacks. A
    ``random_state`` seeds scikeras too, whose folds are then fitted one at a time.

    Metadata routing: with ``enable_metadata_routing`` on, ``sample_weight`` and other metadata
    reach the estimator (and the steps before it) where it requests them, and the splitter;
    ``X_val`` and ``y_val`` reach an estimator that asks for them. ``groups`` need not be asked for.
    A search passes ``groups`` on only with routing on.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from skstack import KerasClassifier, KerasFeatureTransformer
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> risk = KerasFeatureTransformer(
    ...     KerasClassifier(epochs=5), features=["log_odds", "entropy"], cv=3, random_state=0
    ... )
    >>> risk.fit_transform(X, y).shape
    (569, 2)
    >>> risk.get_feature_names_out().tolist()
    ['log_odds_1', 'entropy']
    """

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

    def __init__(
        self,
        model: Any = None,
        *,
        layers: str | Sequence[str] | None = None,
        features: str | Sequence[str] | None = None,
        pooling: str = "flatten",
        passthrough: Any = False,
        categorical_features: Any = "from_dtype",
        inputs: Any = None,
        input_shape: Any = None,
        cv: Any = 5,
        refit: bool = True,
        batch_size: int | None = None,
        memory: Any = None,
        trained_on: Any = None,
        passes_y: bool | str = True,
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
            For a name that does not exist, or one that belongs to a path, a ``keras.Model`` or
            None.
        """
        explain_missing_parameters(self, params, self._remedy)
        return super().set_params(**params)

    @staticmethod
    def _remedy(name, value):
        if name == "model" and value is None:
            return "Pass model=KerasAutoencoder() and set its parameters."
        if name == "model":
            return "A frozen model is used as it is; pass an estimator, such as KerasClassifier()."
        return "Pass an object that has parameters."

    def _sk_visual_block_(self):
        return diagram_of_features(self)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_names")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.categorical = True
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.target_tags.required = self.passes_y and requires_y(self.model)
        return tags

    # These are the parts' business; the transformer itself uses none of them.
    __metadata_request__fit = {"sample_weight": UNUSED, "groups": UNUSED}
    __metadata_request__fit_transform = {"sample_weight": UNUSED, "groups": UNUSED}

    def get_metadata_routing(self):
        """Say which metadata reach which part.

        Returns
        -------
        MetadataRouter
            With ``model`` (and ``steps`` for those before it in a Pipeline) and ``splitter``.
        """
        return routing_of_features(self)

    @fit_context(prefer_skip_nested_validation=False)
    @warn_if_one_hot
    def fit(self, X, y=None, sample_weight=None, *, groups=None, **params):
        """Train the network on all rows (with ``refit=False``: those of the folds).

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Training rows.

        y : array-like of shape (n_samples,), default=None
            Targets, where the estimator learns from them.

        sample_weight : array-like of shape (n_samples,), default=None
            For the estimator, and for steps before it that take weights.

        groups : array-like of shape (n_samples,), default=None
            Rows of one group are never on both sides of a fold, nor of early stopping in networks
            of skstack.

        **params : dict
            More metadata, with metadata routing enabled.

        Returns
        -------
        self : KerasFeatureTransformer
            The fitted transformer.

        Raises
        ------
        ValueError
            For data or parameters that do not fit; the message names them.
        """
        metadata, context = self._routed("fit", X, sample_weight, groups, params)
        self._learn(X, y, metadata, whole=False, ordered_cv=context.cv)
        return self

    @fit_context(prefer_skip_nested_validation=False)
    @warn_if_one_hot
    def fit_transform(self, X, y=None, sample_weight=None, *, groups=None, **params):
        """Cross-fit: features of each row from a network that was not trained on it.

        Not the same as ``fit(X, y).transform(X)``, whose features of training rows look better than
        those of new rows ever will.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Training rows.

        y : array-like of shape (n_samples,), default=None
            Targets, where the estimator learns from them.

        sample_weight : array-like of shape (n_samples,), default=None
            For the estimator, and for steps before it that take weights.

        groups : array-like of shape (n_samples,), default=None
            Rows of one group are never on both sides of a fold, nor of early stopping in networks
            of skstack.

        **params : dict
            More metadata, with metadata routing enabled.

        Returns
        -------
        ndarray of float32, or DataFrame, of shape (n_samples, n_features_out)
            A DataFrame where there are categories.

        Raises
        ------
        ValueError
            For data or parameters that do not fit; the message names them.
        """
        metadata, context = self._routed("fit_transform", X, sample_weight, groups, params)
        table, _ = self._learn(X, y, metadata, ordered_cv=context.cv)
        return in_float32(table)

    def _routed(self, caller, X, sample_weight, groups, params):
        """Metadata of the fit, and what an outer estimator has said of the rows."""
        context = take_context(self) or RowContext()
        groups = context.groups if groups is None else groups
        return routed_features(self, caller, X, sample_weight, groups, params), context

    def _reads_indicator(self):
        return hasattr(self.model, "__sklearn_tags__") and is_classifier(self.model)

    @on_snapshot
    @in_chunks
    def transform(self, X):
        """Features of new rows.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of float32, or DataFrame, of shape (n_samples, n_features_out)
            A DataFrame where there are categories.
        """
        return in_float32(self._extract(X))

    def get_feature_names_out(self, input_features=None):
        """Names of the features.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Compared with the names of the columns of X where there are such.

        Returns
        -------
        ndarray of str of shape (n_features_out,)
            Such as ``latent_3``, ``proba_yes``, ``log_odds_yes``, ``prediction``; then the columns
            that pass through.
        """
        check_is_fitted(self)
        names = list(self._names)
        given = check_input_names(self, input_features)
        if self.passthrough:
            names += [str(name) for name in given]
        return np.asarray(names, dtype=object)

    def _graph_transform(self, table, name, whole=None):
        """The table that `transform` makes; ``whole`` names the layer that joins its parts."""
        import keras

        from skstack._graph.tables import (
            CodedColumn,
            GraphTable,
            beside,
            joined,
            layer_name,
            passed,
        )

        wanted = self._wanted
        table = replace(table, single=self._float32)
        several = len(self._upstreams) > 1
        each = []
        for place, upstream in enumerate(self._upstreams):
            own = f"{name}_fold_{place}" if several else name
            each.append(upstream.graph(table, wanted, own))
        if several:
            each = [joined(found, f"{name}_fold_{i}_features") for i, found in enumerate(each)]
            mean = keras.layers.Average(name=layer_name(f"{name}_mean"), dtype="float32")(each)
            parts = [GraphTable.of(mean)]
        elif any(isinstance(part, CodedColumn) for part in each[0]):
            parts = [
                GraphTable([p]) if isinstance(p, CodedColumn) else GraphTable.of(p) for p in each[0]
            ]
        else:
            parts = [GraphTable.of(joined(each[0], f"{name}_features"))]
        if self.passthrough:
            reader = f"{type(self).__name__}(passthrough=True)"
            parts.append(passed(table, self._passed.blocks_, f"{name}_passthrough", reader))
        return beside(parts, whole or f"{name}_table")

    def _graph(self, table, name, prefix):
        return self._graph_transform(table, name)

    def _graph_outputs(self, table):
        from skstack._graph.tables import numbers_of

        made = self._graph_transform(table, "network", whole="features_out")
        reader = f"{type(self).__name__}(passthrough=True)"
        return numbers_of(made, range(len(made.columns)), "features", reader)

    def _column_readers(self, indices, name, pad):
        from skstack._graph.dispatch import first_readers, passthrough_readers
        from skstack._graph.sklearn_steps import listed_steps

        for upstream in self._upstreams:
            steps = [] if upstream.steps is None else listed_steps(upstream.steps)
            last = getattr(upstream.view, "estimator", upstream.view)
            yield from first_readers([*steps, last], indices, name)
        if self.passthrough:
            yield from passthrough_readers(self._passed, indices)
