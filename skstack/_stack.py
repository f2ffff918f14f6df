"""The conductor of a stack: it takes rows from upstream to downstream without leaks."""

from __future__ import annotations

import copy
from numbers import Integral

import numpy as np
from sklearn.base import TransformerMixin, clone, is_classifier, is_regressor
from sklearn.utils import Bunch, get_tags
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from skstack._checks import (
    BaseComposition,
    HasMethods,
    StrOptions,
    check_input_names,
    check_weights,
    fit_context,
    n_rows,
    read_table,
    take_columns,
    take_rows,
    takes,
)
from skstack._parameters import (
    clone_sharing_models,
    draw_seed,
    explain_missing_parameters,
    set_missing_seeds,
)
from skstack._stack_parts import as_branch, branch_list, holds_out_by_itself, stops_early
from skstack.stages import ColumnBlocks, Scaling, hold_out

__all__ = ["Stack"]


class Stack(TransformerMixin, BaseComposition):
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
        branches = self.upstream
        if not isinstance(branches, list) or not all(isinstance(b, tuple) for b in branches):
            return []
        return [(entry[0], entry[1]) for entry in branches]

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

    def __sklearn_is_fitted__(self):
        return hasattr(self, "downstream_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.categorical = True
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    # The way of the rows, clause by clause -----------------------------------------------------

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
        """Fit every part.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Training rows.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or targets.

        sample_weight : array-like of shape (n_samples,), default=None
            For every part; a part that takes none is an error.

        X_val, y_val : array-like, default=None
            Rows that the downstream's early stopping watches, in place of a share of X.

        Returns
        -------
        self : estimator
            The fitted stack.

        Raises
        ------
        ValueError
            For data or parameters that do not fit, or would leak; the message names them.
        """
        self._fit(X, y, sample_weight, X_val, y_val)
        return self

    @fit_context(prefer_skip_nested_validation=False)
    def fit_transform(self, X, y, sample_weight=None, *, X_val=None, y_val=None):
        """Fit, and give the table that the downstream was trained on, before the sampler.

        Its features are out-of-fold; those of rows set aside for early stopping come from the
        refitted upstream. Not the same as ``fit(X, y).transform(X)``.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Training rows.

        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or targets.

        sample_weight : array-like of shape (n_samples,), default=None
            For every part.

        X_val, y_val : array-like, default=None
            Rows that the downstream's early stopping watches, in place of a share of X.

        Returns
        -------
        ndarray of float32, or DataFrame, of shape (n_samples, n_columns)
            In the order of X.
        """
        table, train, rest = self._fit(X, y, sample_weight, X_val, y_val)
        if rest is None:
            return table
        both = self._transform(take_rows(X, rest))
        order = np.argsort(np.concatenate([train, rest]), kind="stable")
        if hasattr(table, "iloc"):
            import pandas as pd

            return pd.concat([table, both]).iloc[order].reset_index(drop=True)
        return np.vstack([table, both])[order]

    def _fit(self, X, y, sample_weight, X_val, y_val):
        self._check_parts()
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
        train = rest = None
        split = self._held_out(X, y, downstream, seed, X_val, y_val)
        if split is not None and X_val is None:
            train, rest = split
            X_val, y_val = take_rows(X, rest), take_rows(y, rest)
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
        scaled = self._scaling.transform(table)
        table, y, weights = self._resample(scaled, y, weights, seed)

        settings = {}
        if X_val is not None:
            settings = {"X_val": self._transform(X_val), "y_val": y_val}
        if weights is not None:
            settings["sample_weight"] = weights
        self.downstream_ = downstream.fit(table, y, **settings)
        return scaled, train, rest

    def _check_parts(self):
        """Refuse parts that cannot work before anything is trained."""
        Scaling(self.scaler)

    def _held_out(self, X, y, downstream, seed, X_val, y_val):
        """(train, held out) row numbers; True where X_val was passed; None where none is needed."""
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
        table = self.transform(X)
        return self.downstream_.predict(table)
