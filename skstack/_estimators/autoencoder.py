"""A Keras network that reconstructs its input."""

from __future__ import annotations

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted

from skstack._base.atomic_fit import on_snapshot
from skstack._base.docstrings import substitute
from skstack._base.in_chunks import in_chunks
from skstack._base.params import hint_at_parameters
from skstack._base.sklearn import OUT_IS_NO_METADATA, check_input_names, fit_context
from skstack._base.text import described
from skstack._estimators.base import DOCS, NetworkEstimator
from skstack._graph.mixin import ExportMixin
from skstack.networks._autoencoder import Autoencoder, DecoderBlueprint, latent_of
from skstack.networks._heads import output_bounds
from skstack.networks._numeric import standardizing_variables
from skstack.networks._spec import Spec


@substitute(**DOCS)
class KerasAutoencoder(ExportMixin, TransformerMixin, NetworkEstimator):
    """A Keras network that is trained to reconstruct X, optionally from noisy X.

    Parameters
    ----------
    model : recipe, keras.Model, FrozenEstimator, str or path, default=None
        The network; its output has the shape of its input. None means ``Autoencoder()``, which
        reconstructs standardised numeric columns and one-hot encoded categories;
        ``Autoencoder(noise=0.1)`` is a denoising one. In other networks the layer named
        ``latent``, or the narrowest hidden one, gives the latent features.
        ``FrozenEstimator(fitted)``, from :mod:`sklearn.frozen`, continues from the network of a
        KerasAutoencoder that was fitted on another table, with its categories, codes and moments
        (new categories count as unseen). Each fold of a cross-fit starts from the same weights,
        with a new optimizer. The columns must be the same.

    {optimizer_parameters}

    loss : str, keras.losses.Loss, callable or "auto", default="auto"
        ``"auto"`` uses the loss that a ``keras.Model`` was compiled with, else the mean squared
        error. Losses for fractions, counts and relative errors require a network that reconstructs
        unscaled X, such as images in [0, 1]; they are refused if columns are standardised.
        :class:`~skstack.losses.TeacherLoss` adds a frozen teacher.

    metrics : list, default=None
        As in ``keras.Model.compile``; recorded in ``history_``. None uses those that a
        ``keras.Model`` was compiled with.

    {epoch_parameters}

    {metric_parameter}

    callbacks : list of keras.callbacks.Callback, default=None
        Copied for each fit. Their ``model`` is the network of ``model_``.

    {column_parameters}

    {run_parameters}

    Attributes
    ----------
    latent_layer_ : str
        Name of the layer whose output :meth:`transform` returns.

    {input_attributes}

    model_ : keras.Model
        A copy of the trained network.

    {history_attributes}

    Notes
    -----
    The reconstruction error of a training row is smaller than that of a new row. Use
    :class:`~skstack.KerasFeatureTransformer` for out-of-fold errors.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skstack import KerasAutoencoder
    >>> X, _ = load_wine(return_X_y=True)
    >>> autoencoder = KerasAutoencoder(epochs=5, random_state=0).fit(X)
    >>> autoencoder.transform(X).shape
    (178, 7)
    >>> autoencoder.inverse_transform(autoencoder.transform(X)).shape
    (178, 13)
    >>> autoencoder.reconstruction_error(X).shape
    (178,)
    """

    __metadata_request__transform = OUT_IS_NO_METADATA
    _target_required = False

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @fit_context(prefer_skip_nested_validation=True)
    @hint_at_parameters
    @substitute(**DOCS)
    def fit(self, X, y=None, sample_weight=None, *, groups=None, X_val=None):
        """Train the network to reconstruct X.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Training rows.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative. A row of weight w counts as w rows, one of weight 0 is ignored.

        groups : array-like of shape (n_samples,), default=None
            Group labels. Hold-out rows for early stopping are whole groups.

        X_val : array-like, default=None
            Rows that early stopping monitors, instead of hold-out rows of X. Nothing else is
            learned from them.

        Returns
        -------
        self : KerasAutoencoder
            The fitted estimator.

        Raises
        ------
        ValueError
            If data or parameters are invalid; the message names them.

        Notes
        -----
        {interrupts}
        """
        return self._train(X, None, sample_weight, X_val, groups=groups, resume=self.warm_start)

    @fit_context(prefer_skip_nested_validation=True)
    @hint_at_parameters
    def partial_fit(self, X, y=None, sample_weight=None):
        """Train for one more epoch; moments and categories are those of the first call.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative. A row of weight w counts as w rows, one of weight 0 is ignored.

        Returns
        -------
        self : KerasAutoencoder
            The fitted estimator.
        """
        return self._train(X, None, sample_weight, resume=True, epochs=1, watch=False)

    @on_snapshot
    @in_chunks
    def transform(self, X, *, out=None):
        """Latent features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        {out}

        Returns
        -------
        ndarray of float32 of shape (n_samples, n_latent)
            Output of the layer ``latent_layer_``.
        """
        check_is_fitted(self)
        (latent,) = self._layer_outputs(X, [self.latent_layer_])
        return latent.reshape(len(latent), -1)

    @on_snapshot
    def inverse_transform(self, X):
        """Reconstruct rows from latent features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_latent)
            Latent features.

        Returns
        -------
        ndarray of float32, or DataFrame, of shape (n_samples, n_features)
            In the units of X in ``fit``; a DataFrame with the most probable category if there are
            categorical columns.
        """
        check_is_fitted(self)
        latent = check_array(X, dtype=np.float32, input_name="X", estimator=self)
        if latent.shape[1] != np.prod(self._latent_shape):
            raise ValueError(
                f"X has {latent.shape[1]} features, but the layer {self.latent_layer_!r} has "
                f"{int(np.prod(self._latent_shape))} outputs."
            )
        latent = latent.reshape(len(latent), *self._latent_shape)
        (joined,) = self._decoder().outputs({"latent": latent})
        return self.blocks_.table(self._split_blocks(joined))

    @on_snapshot
    @in_chunks
    def reconstruction_error(self, X, *, out=None):
        """Reconstruction error of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        {out}

        Returns
        -------
        ndarray of float32 of shape (n_samples,)
            Mean of squared differences over columns, in units of the columns' variances.
        """
        inputs = self._inputs(X)
        reconstruction = self.network_.outputs(inputs)[0]
        return self._error(inputs, reconstruction)

    def score_samples(self, X):
        """Negative reconstruction error: higher values are more similar to the training rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of float32 of shape (n_samples,)
            At most 0.
        """
        return -self.reconstruction_error(X)

    def score(self, X, y=None):
        """Mean of :meth:`score_samples`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        y : None
            Ignored.

        Returns
        -------
        float
            At most 0.
        """
        return float(self.score_samples(X).mean())

    def get_feature_names_out(self, input_features=None):
        """Names of the latent features.

        Parameters
        ----------
        input_features : array-like of str, default=None
            If given, must match the names of the columns of X.

        Returns
        -------
        ndarray of str of shape (n_latent,)
            ``latent_0``, ``latent_1``, ..., where ``latent`` is ``latent_layer_``.
        """
        check_is_fitted(self)
        check_input_names(self, input_features)
        width = int(np.prod(self._latent_shape))
        return np.asarray([f"{self.latent_layer_}_{i}" for i in range(width)], dtype=object)

    # -----------------------------------------------------------------------------------------

    def _default_recipe(self):
        return Autoencoder()

    _hinted_recipe = _default_recipe

    def _read_target(self, y, *, shared, reset):
        return None

    def _task(self):
        blocks = self.blocks_.blocks_
        if blocks[0].kind in ("sequence", "tensor"):
            return "reconstruction", int(np.prod(blocks[0].shape))
        return "reconstruction", Spec(blocks, "reconstruction", 1).width

    def _learn_target_scale(self, blueprint, start, inputs, y, weights):
        self._standardized = all(
            standardizing_variables(name, *moments).keys() <= start.keys()
            for name, moments in self.moments_.items()
        )
        self.latent_layer_, self._latent_shape = latent_of(blueprint)

    def _check_numbers(self, blueprint, y, what):
        objective = self._objective(blueprint)
        if not objective.raw_units:
            return
        if self._standardized and self.moments_:
            raise ValueError(
                f"loss={described(objective.user_loss)} is defined in the units of X, but the "
                "network reconstructs standardised columns. Use, for example, "
                "'mean_squared_error', 'mean_absolute_error', or a recipe with scaling=None."
            )
        objective.check_head(*output_bounds(blueprint))

    def _table(self, inputs, y, weights, objective):
        rows = super()._table(inputs, y, weights, objective)
        objective.check_numbers(rows.targets.reshape(len(rows), -1), "X")
        return rows

    def _targets(self, inputs, y):
        """The table to reconstruct, with columns in the order in which recipes concatenate them."""
        blocks = self.blocks_.blocks_
        if blocks[0].kind in ("sequence", "tensor"):
            return inputs[blocks[0].name]
        parts = []
        for block in blocks:
            column = inputs[block.name]
            if block.kind == "categorical":
                parts.append(np.eye(block.cardinality, dtype=np.float32)[column])
            elif self._standardized:
                mean, scale = self.moments_[block.name]
                parts.append(((column - mean) / scale).astype(np.float32))
            else:
                parts.append(column)
        return parts[0] if len(parts) == 1 else np.hstack(parts)

    def _reconstructed_parts(self, X):
        """Reconstruction of rows as arrays by block, in X's units."""
        return self._split_blocks(self.network_.outputs(self._inputs(X))[0])

    def _split_blocks(self, joined):
        """Split a concatenated table into arrays by block, in the units of X."""
        blocks = self.blocks_.blocks_
        if blocks[0].kind in ("sequence", "tensor"):
            return {blocks[0].name: joined}
        arrays, first = {}, 0
        for block in blocks:
            width = block.cardinality if block.kind == "categorical" else block.shape[0]
            part = joined[:, first : first + width]
            first += width
            if block.kind == "categorical":
                part = part.argmax(axis=1).astype(np.int32)
            elif self._standardized:
                mean, scale = self.moments_[block.name]
                part = (part * scale + mean).astype(np.float32)
            arrays[block.name] = part
        return arrays

    def _error(self, inputs, reconstruction):
        difference = self._targets(inputs, None) - reconstruction
        first = 0
        for block in self.blocks_.blocks_:
            if block.kind == "numeric" and not self._standardized:
                columns = slice(first, first + block.shape[0])
                difference[:, columns] /= self.moments_[block.name][1].astype(np.float32)
            first += block.cardinality or block.shape[0]
        return np.square(difference).reshape(len(difference), -1).mean(axis=1)

    def _decoder(self):
        from skstack._training.initial_weights import initial_variables
        from skstack._training.network import Network

        blueprint = DecoderBlueprint(self.network_.blueprint, self.latent_layer_)
        names = initial_variables(blueprint, 0)
        return Network(blueprint, {name: self.network_.variables[name] for name in names})

    def _default_loss(self):
        return "mean_squared_error"

    def _graph(self, table, name, prefix):
        from skstack._graph.formulas import as_columns

        layers = (self.latent_layer_,)
        _, _, (latent,) = self._network_graph(table, name, layers=layers, ends=False)
        return as_columns(latent, "flatten", name)

    def _graph_transform(self, table, name):
        from skstack._graph.tables import GraphTable

        return GraphTable.of(self._graph(table, name, ""))

    def _graph_outputs(self, table):
        return self._graph(table, "encoder", "")

    def _graph_error(self, tensors, reconstruction, name):
        """Result of `reconstruction_error`, of shape (batch, 1)."""
        import keras
        from keras import ops

        from skstack._graph.formulas import squared_difference
        from skstack._graph.tables import affine, concatenate, function_layer

        blocks = self.blocks_.blocks_
        cardinalities = {b.name: b.cardinality for b in blocks if b.kind == "categorical"}
        parts = dict(tensors)
        if cardinalities:
            encoded = function_layer(
                f"{name}_one_hot",
                [tensors[block] for block in cardinalities],
                lambda *codes: [
                    ops.one_hot(x, n, dtype="float32")
                    for x, n in zip(codes, cardinalities.values(), strict=True)
                ],
            )
            parts.update(zip(cardinalities, keras.tree.flatten(encoded), strict=True))
        factors = []
        for block in blocks:
            width = block.cardinality or block.shape[0]
            mean, scale = self.moments_.get(block.name, (0.0, np.ones(width)))
            if block.kind == "numeric" and self._standardized:
                label = f"{name}_{block.name}_standardised"
                parts[block.name] = affine(parts[block.name], mean, 1.0 / scale, 0.0, label)
            factors.append(1.0 / scale if block.kind == "numeric" else np.ones(width))
        targets = concatenate(list(parts.values()), f"{name}_targets")
        if self.moments_ and not self._standardized:
            factor = np.concatenate(factors)
            targets = affine(targets, 0.0, factor, 0.0, f"{name}_given")
            reconstruction = affine(reconstruction, 0.0, factor, 0.0, f"{name}_rebuilt")
        return squared_difference(targets, reconstruction, f"{name}_reconstruction_error")
