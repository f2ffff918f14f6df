"""From rows to the features of networks that have not seen them."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from skstack._at_once import all_or_nothing
from skstack._autoencoder import KerasAutoencoder
from skstack._checks import check_parts, indexed_like, is_float32, read_table, take_rows
from skstack._parameters import upstream_of
from skstack._streams import once_a_call
from skstack.networks import is_keras_model, is_path
from skstack.stages import (
    ColumnBlocks,
    Passed,
    Source,
    Wanted,
    folds_of,
    framed,
    input_profile,
    learned,
    learns_from_y,
    make_folds,
    mean_of,
    refuse_ordered,
    settle_kinds,
    warn_of_lost,
)

__all__ = ["Extraction"]

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
        source = Source(model, y, None, ordered_cv=ordered_cv)
        if not source.splits_inside():
            return
        classes = source.classes is not None
        pairs = folds_of(self.cv, X, y, classifier=classes, metadata=metadata.split)
        source.check_context(X, y, metadata, pairs)

    @all_or_nothing
    def _learn(self, X, y, metadata, *, whole=True, in_stack=False, ordered_cv=None, label="model"):
        """Fit; the features of all rows, and which of them are out-of-fold or need not be.

        In a stack, time-ordered folds may leave rows without features, which are then NaN.
        """
        check_parts(self)
        X = read_table(self, X, reset=True)
        settle_kinds(X)
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
        source = Source(
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
            self._passed = Passed(self.categorical_features).fit(X)
            self._passed.table(take_rows(X, slice(0, FEW_ROWS)))
        folds = None
        needs_folds = whole and source.needs_folds(self._wanted)
        if whole and not in_stack and source.trained and not needs_folds:
            refuse_ordered(self.cv, X, y, metadata.split)
        if needs_folds or not (source.frozen or self.refit):
            folds = self._folds(source, X, y, metadata, in_stack)
        columns, self._upstreams = learned(
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
        warn_of_lost(
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
        return Wanted.of(self.features, self.layers, self.pooling, passes_steps)

    def _columns(self, X, look=None):
        if len(self._upstreams) == 1:
            return self._upstreams[0].columns(X, self._wanted, look)
        return mean_of(self._upstreams, X, self._wanted, look)

    def _table(self, columns, X):
        coded = any(part.categorical for part in columns)
        passed = self._passed.table(X) if self.passthrough else None
        if coded or hasattr(passed, "iloc"):
            table = framed(columns, passed).set_axis(self.get_feature_names_out(), axis=1)
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
        once_a_call(profile, lambda: profile.warn_if_moved(rows))
