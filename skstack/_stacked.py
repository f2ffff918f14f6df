"""Stacks of networks: a conductor that takes rows from upstream to downstream without leaks."""

from __future__ import annotations

import copy
from numbers import Integral

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin, clone, is_classifier, is_regressor
from sklearn.utils import Bunch, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from skstack._checks import (
    BaseComposition,
    HasMethods,
    StrOptions,
    check_input_names,
    check_target,
    check_weights,
    fit_context,
    n_rows,
    read_table,
    take_columns,
    take_rows,
    takes,
)
from skstack._classifier import KerasClassifier
from skstack._parameters import (
    clone_sharing_models,
    draw_seed,
    explain_missing_parameters,
    set_missing_seeds,
)
from skstack._regressor import KerasRegressor
from skstack._stack_parts import as_branch, branch_list, holds_out_by_itself, stops_early
from skstack.stages import (
    ColumnBlocks,
    Scaling,
    check_sampler,
    correct_priors,
    hold_out,
    prior_ratio,
    refuse_cleaning,
    resample,
)

__all__ = ["StackedKerasClassifier", "StackedKerasRegressor"]


class _Stack(BaseComposition):
    """What the two stacks share: raw X, upstream features, scaler, sampler, downstream."""

    _parameter_constraints = {
        "upstream": "no_validation",
        "downstream": [None, HasMethods(["fit", "predict"])],
        "scaler": [None, StrOptions({"standard"}), HasMethods(["fit", "transform"])],
        "passthrough": "no_validation",
        "categorical_features": [None, StrOptions({"from_dtype"}), "array-like"],
        "cv": ["cv_object"],
        "refit": ["boolean"],
        "n_jobs": [None, Integral],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # Parameters of every depth, as in ColumnTransformer --------------------------------------

    @property
    def _upstream(self):
        if not isinstance(self.upstream, list):
            return []
        return [(entry[0], entry[1]) for entry in self.upstream]

    @_upstream.setter
    def _upstream(self, pairs):
        self.upstream = [
            (name, thing, *entry[2:])
            for (name, thing), entry in zip(pairs, self.upstream, strict=True)
        ]

    def get_params(self, deep=True):
        """Get parameters, those of upstream and downstream too.

        Parameters
        ----------
        deep : bool, default=True
            Whether to go down into the parts: ``risk__model__dropout``.

        Returns
        -------
        dict of str to object
            Parameters by name.
        """
        return self._get_params("_upstream", deep=deep)

    def set_params(self, **params):
        """Set parameters of every depth; ``risk="drop"`` leaves a branch out.

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
            For a name that does not exist, or one that belongs to a path, a ``keras.Model`` or
            None.
        """
        explain_missing_parameters(self, params, self._remedy)
        return self._set_params("_upstream", **params)

    def _remedy(self, name, value):
        if name == "downstream":
            default = type(self._default_downstream()).__name__
            return f"Pass downstream={default}() and set its parameters."
        if name == "upstream":
            return "Pass upstream=KerasAutoencoder() or a list of branches, and set its parameters."
        if value == "drop":
            return f"Set {name!r} to a network first."
        return (
            "Pass an estimator with parameters; for a frozen network that is "
            f"{name}=KerasFeatureTransformer({value!r}, ...)."
        )

    def __sklearn_clone__(self):
        return clone_sharing_models(self)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.categorical = True
        tags.input_tags.three_d_array = True
        return tags

    # The way of the rows, clause by clause -----------------------------------------------------

    def _fit(self, X, y, sample_weight, X_val, y_val):
        X = read_table(self, X, reset=True)
        y = self._read_target(y, reset=True)
        check_consistent_length(X, y)
        if n_rows(X) < 2:
            raise ValueError(
                f"{type(self).__name__} needs at least 2 samples to learn from; got n_samples=1."
            )
        weights = check_weights(sample_weight, X)
        seed = draw_seed(self.random_state)
        branches = self._branches(seed)
        downstream = self._checked_downstream(seed, n_rows(X), X_val is not None)

        # Early-stopping rows are set aside before anything is learned.
        held_out = self._held_out(X, y, downstream, seed, X_val, y_val)
        if held_out is not None and X_val is None:
            train, held_out = held_out
            X_val, y_val = take_rows(X, held_out), take_rows(y, held_out)
            X, y = take_rows(X, train), take_rows(y, train)
            weights = None if weights is None else weights[train]

        # Features of training rows come from networks that have not seen them.
        self._learn_passthrough(X)
        features = []
        self.upstream_ = []
        for name, transformer, columns in branches:
            part = X if columns is None else take_columns(X, columns)
            features.append(transformer.fit_transform(part, y, sample_weight=weights))
            self.upstream_.append((name, transformer, columns))
        self.named_upstream_ = Bunch(**{name: fitted for name, fitted, _ in self.upstream_})
        self._names = self._table_names(X)
        table = self._table(features, X)

        # The scaler learns from training rows, the sampler changes none but them.
        self._scaling = Scaling(self.scaler).fit(table, weights)
        self.scaler_ = self._scaling.scaler_
        table = self._scaling.transform(table)
        table, y, weights = self._resample(table, y, weights, seed)

        validation = {}
        if X_val is not None:
            validation = {"X_val": self._transform(X_val), "y_val": y_val}
        if weights is not None:
            validation["sample_weight"] = weights
        self.downstream_ = downstream.fit(table, y, **validation)
        return self

    def _held_out(self, X, y, downstream, seed, X_val, y_val):
        """Row numbers (train, held out), True where X_val was passed, None where none are needed."""
        if (X_val is None) != (y_val is None):
            missing = "X_val" if X_val is None else "y_val"
            raise ValueError(f"X_val and y_val belong together, but {missing} is None.")
        if X_val is not None:
            if not takes(downstream, "X_val"):
                raise ValueError(
                    f"X_val was passed, but the downstream {type(downstream).__name__} takes none."
                )
            read_table(self, X_val, reset=False)
            check_consistent_length(X_val, y_val)
            return True
        if takes(downstream, "X_val") and stops_early(downstream, n_rows(X)):
            fraction = getattr(downstream, "validation_fraction", None) or 0.1
            return hold_out(
                y, fraction=fraction, stratify=is_classifier(self) and y.ndim == 1, seed=seed
            )
        return None

    def _branches(self, seed):
        """(name, transformer, columns) of each branch, cloned, seeded and checked."""
        entries = branch_list(self)
        generator = np.random.default_rng(seed)
        branches = []
        for name, thing, columns in entries:
            transformer = as_branch(
                name, thing, cv=copy.deepcopy(self.cv), refit=self.refit, n_jobs=self.n_jobs
            )
            set_missing_seeds(transformer, int(generator.integers(2**31 - 1)))
            branches.append((name, transformer, columns))
        return branches

    def _checked_downstream(self, seed, n, has_validation):
        downstream = self._default_downstream() if self.downstream is None else self.downstream
        own = getattr(downstream, "steps", [(None, downstream)])[-1][1]
        wrong = is_regressor(own) if is_classifier(self) else is_classifier(own)
        if wrong:
            raise ValueError(
                f"downstream={downstream!r} does not fit {type(self).__name__}: it is a "
                f"{get_tags(own).estimator_type}."
            )
        downstream = set_missing_seeds(clone(downstream), seed)
        sampler = getattr(self, "sampler", None)
        if sampler is not None:
            if getattr(own, "sampler", None) is not None:
                raise ValueError(
                    f"sampler={sampler!r} stands in the stack and sampler={own.sampler!r} in its "
                    "downstream; rows can be resampled once only. Set one of them to None."
                )
            if not has_validation and holds_out_by_itself(downstream, n):
                raise ValueError(
                    f"downstream={downstream!r} holds out rows for early stopping by itself, and "
                    "beside a sampler they would be synthetic. Switch its early stopping off, or "
                    "use a downstream whose fit takes X_val and y_val (KerasClassifier, "
                    "HistGradientBoostingClassifier)."
                )
        return downstream

    def _resample(self, table, y, weights, seed):
        return table, y, weights

    # The table that the downstream sees ---------------------------------------------------------

    def _learn_passthrough(self, X):
        """Which columns of X stand beside the features."""
        self._passed = None
        chosen = self.passthrough
        if isinstance(chosen, bool | np.bool_):
            self._passed_columns = None
            if not chosen or (not hasattr(X, "columns") and X.ndim > 2):
                return
        else:
            self._passed_columns = chosen
        self._passed = ColumnBlocks(self.categorical_features).fit(self._passed_part(X))

    def _passed_part(self, X):
        columns = self._passed_columns
        return X if columns is None else take_columns(X, columns)

    def _table_names(self, X):
        names = [
            f"{name}__{feature}"
            for name, fitted, _ in self.upstream_
            for feature in fitted.get_feature_names_out()
        ]
        if self._passed is not None:
            part = self._passed_part(X)
            columns = getattr(part, "columns", None)
            if columns is None:
                columns = [f"x{place}" for place in range(part.shape[1])]
            names += [str(column) for column in columns]
        return names

    def _table(self, features, X):
        parts = [*features]
        if self._passed is not None:
            parts.append(self._passed.table(self._passed.split(self._passed_part(X))))
        if not parts:
            raise ValueError(
                "The downstream would see no columns: all branches are dropped and passthrough is "
                "off."
            )
        if not any(hasattr(part, "iloc") for part in parts):
            return np.hstack([np.asarray(part, dtype=np.float32) for part in parts])
        import pandas as pd

        frames = [
            part.reset_index(drop=True) if hasattr(part, "iloc") else pd.DataFrame(part)
            for part in parts
        ]
        return pd.concat(frames, axis=1).set_axis(self._names, axis=1)

    def _transform(self, X):
        features = [
            fitted.transform(X if columns is None else take_columns(X, columns))
            for _, fitted, columns in self.upstream_
        ]
        return self._scaling.transform(self._table(features, X))

    def transform(self, X):
        """The table that the downstream sees for new rows, scaled.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of float32, or DataFrame, of shape (n_samples, n_columns)
            A DataFrame where there are categories.
        """
        check_is_fitted(self)
        return self._transform(read_table(self, X, reset=False))

    def get_feature_names_out(self, input_features=None):
        """Names of the columns of :meth:`transform`.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Compared with the names of the columns of X where there are such.

        Returns
        -------
        ndarray of str of shape (n_columns,)
            Such as ``anomaly__latent_3``; then the columns that pass through.
        """
        check_is_fitted(self)
        check_input_names(self, input_features)
        return np.asarray(self._names, dtype=object)

    def predict(self, X):
        """Predict with the downstream.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Labels or values.
        """
        return self.downstream_.predict(self.transform(X))


def _downstream_has(method):
    def check(stack):
        downstream = getattr(stack, "downstream_", None)
        if downstream is None:
            downstream = stack.downstream or stack._default_downstream()
        return hasattr(downstream, method)

    return check


class StackedKerasClassifier(ClassifierMixin, _Stack):
    """Networks upstream, a classifier downstream, as one estimator without leaks.

    ``fit`` sets early-stopping rows aside, cross-fits the upstream networks on the other ones,
    scales the features, resamples them and trains the downstream; ``predict`` takes upstream
    networks that were trained on all training rows. By hand the same is
    ``imblearn.pipeline.make_pipeline(KerasFeatureTransformer(...), StandardScaler(), SMOTE(),
    KerasClassifier(...))``; the stack also keeps early-stopping rows away from upstream, scaler and
    sampler, has several branches with columns of their own, and refuses what would leak.

    Parameters
    ----------
    upstream : network, Pipeline or list of (name, thing) or (name, thing, columns), default=None
        Each thing is an estimator (its predictions become features), a
        :class:`KerasFeatureTransformer`, a built ``keras.Model`` or the path of a saved one
        (frozen), a Pipeline that ends in one of these, or ``"drop"``. Columns as in
        :class:`~sklearn.compose.ColumnTransformer`. None stands for one
        ``KerasAutoencoder()`` branch.

    downstream : estimator, default=None
        What learns from the features; None stands for ``KerasClassifier()``.

    scaler : "standard", transformer or None, default="standard"
        Stands between upstream and downstream, for numeric columns.

    sampler : object with ``fit_resample``, default=None
        Applied to the training rows of the downstream alone, after the scaler.

    passthrough : bool or columns, default=True
        Which columns of X stand beside the features.

    categorical_features : "from_dtype", None or array-like, default="from_dtype"
        Which columns that pass through are categories.

    cv : int, splitter or iterable, default=5
        Folds of the cross-fit, for branches that are not a ``KerasFeatureTransformer`` with a
        ``cv`` of its own.

    refit : bool, default=True
        Whether upstream networks for new rows are trained on all training rows; else they are the
        mean over folds. As with ``cv``.

    prior_correction : bool, default=False
        Whether ``predict_proba`` is brought back from the class shares that the sampler made to
        those of the training rows (Saerens et al., Neural Computation 14, 2002, eq. 4). Exact for
        random under- and over-sampling, approximate for SMOTE, refused for cleaning samplers.

    n_jobs : int, default=None
        Threads that fit the folds of a branch side by side.

    random_state : int, RandomState instance or None, default=None
        Seeds every part that leaves its own seed open.

    verbose : int, default=0
        Above 0: progress of the cross-fit.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels; for multilabel targets the numbers of the columns.

    n_features_in_ : int
        Number of columns of X.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X had string names.

    upstream_ : list of (name, KerasFeatureTransformer, columns)
        The fitted branches.

    named_upstream_ : Bunch
        The same by name.

    scaler_ : transformer or None
        The fitted scaler.

    sampler_ : object or None
        The fitted sampler.

    downstream_ : estimator
        The fitted downstream.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from skstack import KerasClassifier, StackedKerasClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> stack = StackedKerasClassifier(
    ...     upstream=[("risk", KerasClassifier(epochs=5))],
    ...     downstream=KerasClassifier(epochs=20),
    ...     cv=3,
    ...     random_state=0,
    ... ).fit(X, y)
    >>> stack.get_feature_names_out()[:2].tolist()
    ['risk__proba_1', 'x0']
    >>> stack.score(X, y) > 0.9
    True
    """

    _parameter_constraints = {
        **_Stack._parameter_constraints,
        "sampler": "no_validation",
        "prior_correction": ["boolean"],
    }

    def __init__(
        self,
        upstream=None,
        *,
        downstream=None,
        scaler="standard",
        sampler=None,
        passthrough=True,
        categorical_features="from_dtype",
        cv=5,
        refit=True,
        prior_correction=False,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.upstream = upstream
        self.downstream = downstream
        self.scaler = scaler
        self.sampler = sampler
        self.passthrough = passthrough
        self.categorical_features = categorical_features
        self.cv = cv
        self.refit = refit
        self.prior_correction = prior_correction
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
        """Fit upstream, scaler, sampler and downstream.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Training rows.

        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Labels.

        sample_weight : array-like of shape (n_samples,), default=None
            For every part; a part that takes none is an error.

        X_val, y_val : array-like, default=None
            Rows that the downstream's early stopping watches, in place of a share of X.

        Returns
        -------
        self : StackedKerasClassifier
            The fitted stack.

        Raises
        ------
        ValueError
            For data or parameters that do not fit, or would leak; the message names them.
        """
        check_sampler(self.sampler)
        if self.prior_correction and self.sampler is not None:
            refuse_cleaning(self.sampler)
        return self._fit(X, y, sample_weight, X_val, y_val)

    @available_if(_downstream_has("predict_proba"))
    def predict_proba(self, X):
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In [0, 1].
        """
        probabilities = self.downstream_.predict_proba(self.transform(X))
        if self.prior_correction and self.sampler_ is not None:
            return correct_priors(probabilities, self._prior_ratio)
        return probabilities

    @available_if(_downstream_has("predict_proba"))
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

    def predict(self, X):
        """Predict classes with the downstream.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
            Labels; with ``prior_correction`` those of the corrected probabilities.
        """
        check_is_fitted(self)
        if self.prior_correction and self.sampler_ is not None:
            return self.classes_[self.predict_proba(X).argmax(axis=1)]
        return super().predict(X)

    # -----------------------------------------------------------------------------------------

    def _default_downstream(self):
        return KerasClassifier()

    def _read_target(self, y, *, reset):
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                "is None."
            )
        y = y.toarray() if hasattr(y, "toarray") else y
        kind = type_of_target(y, input_name="y")
        y = check_target(y, multi_output=kind == "multilabel-indicator", estimator=self)
        check_classification_targets(y)
        self.classes_ = np.arange(y.shape[1]) if y.ndim == 2 else np.unique(y)
        if len(self.classes_) < 2 and y.ndim == 1:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes in y, but y holds "
                f"only one class: {self.classes_.tolist()!r}."
            )
        return y

    def _resample(self, table, y, weights, seed):
        self.sampler_ = None
        if self.sampler is None:
            return table, y, weights
        drawn = resample(self.sampler, table, y, sample_weight=weights, random_state=seed)
        self.sampler_ = drawn.sampler
        if self.prior_correction:
            self._prior_ratio = prior_ratio(y, drawn.y, self.classes_, weights, drawn.sample_weight)
        return drawn.X, drawn.y, drawn.sample_weight


class StackedKerasRegressor(RegressorMixin, _Stack):
    """Networks upstream, a regressor downstream, as one estimator without leaks.

    As :class:`StackedKerasClassifier`, without a sampler.

    Parameters
    ----------
    upstream : network, Pipeline or list of (name, thing) or (name, thing, columns), default=None
        Each thing is an estimator (its predictions become features), a
        :class:`KerasFeatureTransformer`, a built ``keras.Model`` or the path of a saved one
        (frozen), a Pipeline that ends in one of these, or ``"drop"``. Columns as in
        :class:`~sklearn.compose.ColumnTransformer`. None stands for one
        ``KerasAutoencoder()`` branch.

    downstream : estimator, default=None
        What learns from the features; None stands for ``KerasRegressor()``.

    scaler : "standard", transformer or None, default="standard"
        Stands between upstream and downstream, for numeric columns.

    passthrough : bool or columns, default=True
        Which columns of X stand beside the features.

    categorical_features : "from_dtype", None or array-like, default="from_dtype"
        Which columns that pass through are categories.

    cv : int, splitter or iterable, default=5
        Folds of the cross-fit, for branches that are not a ``KerasFeatureTransformer`` with a
        ``cv`` of its own.

    refit : bool, default=True
        Whether upstream networks for new rows are trained on all training rows; else they are the
        mean over folds. As with ``cv``.

    n_jobs : int, default=None
        Threads that fit the folds of a branch side by side.

    random_state : int, RandomState instance or None, default=None
        Seeds every part that leaves its own seed open.

    verbose : int, default=0
        Above 0: progress of the cross-fit.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns of X.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X had string names.

    upstream_ : list of (name, KerasFeatureTransformer, columns)
        The fitted branches.

    named_upstream_ : Bunch
        The same by name.

    scaler_ : transformer or None
        The fitted scaler.

    downstream_ : estimator
        The fitted downstream.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skstack import KerasRegressor, StackedKerasRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> stack = StackedKerasRegressor(
    ...     upstream=KerasRegressor(epochs=5),
    ...     downstream=KerasRegressor(epochs=20),
    ...     cv=3,
    ...     random_state=0,
    ... ).fit(X, y)
    >>> stack.predict(X[:2]).shape
    (2,)
    """

    def __init__(
        self,
        upstream=None,
        *,
        downstream=None,
        scaler="standard",
        passthrough=True,
        categorical_features="from_dtype",
        cv=5,
        refit=True,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.upstream = upstream
        self.downstream = downstream
        self.scaler = scaler
        self.passthrough = passthrough
        self.categorical_features = categorical_features
        self.cv = cv
        self.refit = refit
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
        """Fit upstream, scaler and downstream.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Training rows.

        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.

        sample_weight : array-like of shape (n_samples,), default=None
            For every part; a part that takes none is an error.

        X_val, y_val : array-like, default=None
            Rows that the downstream's early stopping watches, in place of a share of X.

        Returns
        -------
        self : StackedKerasRegressor
            The fitted stack.

        Raises
        ------
        ValueError
            For data or parameters that do not fit, or would leak; the message names them.
        """
        return self._fit(X, y, sample_weight, X_val, y_val)

    def _default_downstream(self):
        return KerasRegressor()

    def _read_target(self, y, *, reset):
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                "is None."
            )
        return check_target(y, multi_output=True, y_numeric=True, estimator=self)
