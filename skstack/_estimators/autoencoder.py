"""A Keras network that learns to rebuild its input."""

from __future__ import annotations

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted

from skstack._base.atomic_fit import on_snapshot
from skstack._base.in_chunks import in_chunks
from skstack._base.sklearn import check_input_names, fit_context
from skstack._estimators.base import NetworkEstimator
from skstack._graph.mixin import ExportMixin
from skstack.networks._autoencoder import Autoencoder
from skstack.networks._blueprints import DecoderBlueprint, latent_layer
from skstack.networks._heads import output_bounds
from skstack.networks._spec import Spec, standardizing_variables


class KerasAutoencoder(ExportMixin, TransformerMixin, NetworkEstimator):
    """A Keras network that learns to rebuild X, optionally from noised X.

    Parameters
    ----------
    model : recipe, keras.Model, FrozenEstimator, str or path, default=None
        The network; its output has the shape of its input. None stands for ``Autoencoder()``,
        which rebuilds standardised numeric columns and one column for each category;
        ``Autoencoder(noise=0.1)`` is a denoising one. Of other networks the layer called
        ``latent``, or the narrowest one, gives the latent features.
        ``FrozenEstimator(fitted)``, from :mod:`sklearn.frozen`, goes on from the network of a
        KerasAutoencoder that was fitted on another table, with the categories, codes and moments
        that it has learned there (new categories count as unseen). Each fold of a cross-fit starts
        from the same weights, with a new optimizer. Columns must be the same.

    optimizer : str, keras.optimizers.Optimizer or "auto", default="adam"
        ``"auto"`` is the one that a ``keras.Model`` was compiled with.

    learning_rate : float, LearningRateSchedule or "auto", default="auto"
        In (0, inf). ``"auto"`` is the optimizer's own.

    loss : str, keras.losses.Loss, callable or "auto", default="auto"
        ``"auto"`` is what a ``keras.Model`` was compiled with, else the mean squared error. Losses
        of shares, counts and relative errors go with networks that rebuild X as it is, such as
        images in [0, 1]; they are refused where columns are standardised.
        :class:`~skstack.losses.TeacherLoss` lets a frozen network take part.

    metrics : list, default=None
        As in ``keras.Model.compile``; they stand in ``history_``. None: those that a
        ``keras.Model`` was compiled with.

    epochs : int, default=100
        Passes over the training rows, at most.

    batch_size : int, default=32
        Rows in a step.

    early_stopping : bool or "auto", default="auto"
        Whether to watch the loss on rows set aside, stop when it no longer falls and bring back the
        best weights. ``"auto"`` is on above 10,000 rows, and where ``X_val`` is passed.

    validation_fraction : float, default=0.1
        Share of the rows that is set aside before anything is learned. In (0, 1).

    n_iter_no_change : int, default=10
        Epochs without improvement after which training stops.

    tol : float, default=1e-4
        The least improvement of the loss that counts.

    callbacks : list of keras.callbacks.Callback, default=None
        Copied for each fit. The model that they see and save is that of ``model_``.

    categorical_features : "from_dtype", None or array-like, default="from_dtype"
        Which columns are categories: by dtype (``category``, strings and bool columns of a
        DataFrame, and columns of objects that are not all numbers), none, or given by names,
        positions or a mask.

    inputs : None, "prefix", dict or list, default=None
        Which columns make up an input of their own, for networks with several inputs: a dict of
        input name to columns (as in :class:`~sklearn.compose.ColumnTransformer`), a list of columns
        in the order of the model's inputs, or ``"prefix"``: columns that begin alike, up to ``__``,
        as the branches of a stack do. The other numeric columns are the input ``numeric``; every
        categorical column, and every column that holds arrays, is an input by itself.

    input_shape : tuple of int or dict of str to tuple, default=None
        Shape in which the network takes one row, such as ``(28, 28, 1)`` for 784 columns; a dict
        says it by input.

    n_hash_buckets : int, default=None
        Categorical columns with more categories than this are hashed into so many buckets, in
        [1, 2**31 - 3].

    imputer : SimpleImputer, default=None
        Fills missing numbers with what it learns from the training rows; with
        ``add_indicator=True`` columns that tell where follow. None: a missing number is an error.

    warm_start : bool, default=False
        Whether ``fit`` goes on from the weights of the last fit.

    engine : {"auto", "keras"}, default="auto"
        ``"auto"`` trains whole epochs in one compiled program, which all clones, folds and
        candidates of the same network share, and falls back on ``Model.fit`` where that cannot be
        (callbacks that watch batches, a ``test_step`` of its own, what TensorFlow cannot trace);
        ``"keras"`` always uses ``Model.fit``.

    random_state : int, RandomState instance or None, default=None
        Seeds initial weights, order of rows, noise and hold-out.

    verbose : int, default=0
        Above 0: a line for each epoch.

    Attributes
    ----------
    latent_layer_ : str
        The layer whose output :meth:`transform` gives.

    n_features_in_ : int
        Number of columns of X.

    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X had string names.

    input_profile_ : ColumnProfile
        Range and moments of the numeric columns of the training rows; see
        :class:`~skstack.inspection.ColumnProfile`.

    model_ : keras.Model
        The trained network, a copy.

    n_iter_ : int
        Epochs run in the last fit.

    loss_curve_ : list of float
        Training loss of each epoch.

    validation_scores_ : list of float or None
        Minus the loss on the rows set aside, for each epoch.

    history_ : dict of str to list of float
        All that was recorded for each epoch.

    Notes
    -----
    The reconstruction error of a row that trained the network is smaller than that of a new row.
    Use :class:`~skstack.KerasFeatureTransformer` to have it out-of-fold.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skstack import KerasAutoencoder
    >>> X, _ = load_wine(return_X_y=True)
    >>> autoencoder = KerasAutoencoder(epochs=20, random_state=0).fit(X)
    >>> autoencoder.transform(X).shape
    (178, 7)
    >>> autoencoder.inverse_transform(autoencoder.transform(X)).shape
    (178, 13)
    >>> autoencoder.reconstruction_error(X).shape
    (178,)
    """

    _target_required = False

    def __init__(
        self,
        model=None,
        *,
        optimizer="adam",
        learning_rate="auto",
        loss="auto",
        metrics=None,
        epochs=100,
        batch_size=32,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-4,
        callbacks=None,
        categorical_features="from_dtype",
        inputs=None,
        input_shape=None,
        n_hash_buckets=None,
        imputer=None,
        warm_start=False,
        engine="auto",
        random_state=None,
        verbose=0,
    ):
        self.model = model
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.loss = loss
        self.metrics = metrics
        self.epochs = epochs
        self.batch_size = batch_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
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

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None, *, groups=None, X_val=None):
        """Train the network to rebuild X.

        Parameters
        ----------
        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Training rows.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Not negative. A row of weight w counts as w rows, one of weight 0 as none.

        groups : array-like of shape (n_samples,), default=None
            Early stopping holds out whole groups.

        X_val : array-like, default=None
            Rows that early stopping watches, in place of a share of X. Nothing is learned from
            them.

        Returns
        -------
        self : KerasAutoencoder
            The fitted estimator.

        Raises
        ------
        ValueError
            For data or parameters that cannot be learned from; the message names them.
        """
        return self._train(X, None, sample_weight, X_val, groups=groups, resume=self.warm_start)

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None, sample_weight=None):
        """Train for one epoch more; moments and categories are those of the first call.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows.

        y : None
            Ignored.

        sample_weight : array-like of shape (n_samples,), default=None
            Not negative. A row of weight w counts as w rows, one of weight 0 as none.

        Returns
        -------
        self : KerasAutoencoder
            The fitted estimator.
        """
        return self._train(X, None, sample_weight, resume=True, epochs=1, watch=False)

    @on_snapshot
    @in_chunks
    def transform(self, X):
        """Latent features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

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
        """Rebuild rows from latent features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_latent)
            Latent features.

        Returns
        -------
        ndarray of float32, or DataFrame, of shape (n_samples, n_features)
            In the units of the X of ``fit``; a DataFrame where there are categories, each the most
            probable one.
        """
        check_is_fitted(self)
        latent = check_array(X, dtype=np.float32, input_name="X", estimator=self)
        if latent.shape[1] != np.prod(self._latent_shape):
            raise ValueError(
                f"X has {latent.shape[1]} features, but the layer {self.latent_layer_!r} gives "
                f"{int(np.prod(self._latent_shape))}."
            )
        latent = latent.reshape(len(latent), *self._latent_shape)
        return self.blocks_.table(self._apart(self._decoder().outputs({"latent": latent})[0]))

    @on_snapshot
    @in_chunks
    def reconstruction_error(self, X):
        """How badly each row is rebuilt.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of float32 of shape (n_samples,)
            Mean of squared differences over columns, in units of the columns' variances.
        """
        inputs = self._inputs(X)
        rebuilt = self.network_.outputs(inputs)[0]
        return self._error(inputs, rebuilt)

    def score_samples(self, X):
        """Minus the reconstruction error: the higher, the more like the training rows.

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
            Compared with the names of the columns of X where it is given.

        Returns
        -------
        ndarray of str of shape (n_latent,)
            ``latent_0``, ``latent_1``, ...
        """
        check_is_fitted(self)
        check_input_names(self, input_features)
        width = int(np.prod(self._latent_shape))
        return np.asarray([f"{self.latent_layer_}_{i}" for i in range(width)], dtype=object)

    # -----------------------------------------------------------------------------------------

    def _default_recipe(self):
        return Autoencoder()

    def _read_target(self, y, *, frame, reset):
        return None

    def _task(self):
        blocks = self.blocks_.blocks_
        if blocks[0].kind in ("sequence", "tensor"):
            return "reconstruction", int(np.prod(blocks[0].shape))
        return "reconstruction", Spec(blocks, "reconstruction", 1).width

    def _learn_target_scale(self, blueprint, start, inputs, y, weights):
        from skstack._training.network import Network

        self._standardized = all(
            standardizing_variables(name, *moments).keys() <= start.keys()
            for name, moments in self.moments_.items()
        )
        model = Network(blueprint, start).build()
        self.latent_layer_ = latent_layer(model)
        self._latent_shape = tuple(model.get_layer(self.latent_layer_).output.shape[1:])

    def _check_numbers(self, blueprint, y, what):
        objective = self._objective(blueprint)
        if not objective.raw_units:
            return
        if self._standardized and self.moments_:
            raise ValueError(
                f"loss={objective.user_loss!r} is defined in X's own units, but the network "
                "rebuilds standardised columns. Accepted are for instance 'mean_squared_error' and "
                "'mean_absolute_error', or a recipe with standardize=False."
            )
        objective.check_head(*output_bounds(blueprint))

    def _table(self, inputs, y, weights, objective):
        rows = super()._table(inputs, y, weights, objective)
        objective.check_numbers(rows.targets.reshape(len(rows), -1), "X")
        return rows

    def _targets(self, inputs, y):
        """The table that the network is to rebuild, columns joined as recipes join them."""
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

    def _apart(self, joined):
        """Arrays by block, in X's units, from a joined table."""
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

    def _error(self, inputs, rebuilt):
        difference = self._targets(inputs, None) - rebuilt
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

    def _graph_error(self, tensors, rebuilt, name):
        """Result of `reconstruction_error`, of shape (batch, 1)."""
        import keras
        from keras import ops

        from skstack._graph.formulas import squared_difference
        from skstack._graph.tables import affine, grouped, joined

        words = {b.name: b.cardinality for b in self.blocks_.blocks_ if b.kind == "categorical"}
        parts = dict(tensors)
        if words:
            encoded = grouped(
                f"{name}_one_hot",
                [tensors[block] for block in words],
                lambda *codes: [
                    ops.one_hot(x, n, dtype="float32")
                    for x, n in zip(codes, words.values(), strict=True)
                ],
            )
            parts.update(zip(words, keras.tree.flatten(encoded), strict=True))
        factors = []
        for block in self.blocks_.blocks_:
            width = block.cardinality or block.shape[0]
            mean, scale = self.moments_.get(block.name, (0.0, np.ones(width)))
            if block.kind == "numeric" and self._standardized:
                label = f"{name}_{block.name}_standardised"
                parts[block.name] = affine(parts[block.name], mean, 1.0 / scale, 0.0, label)
            factors.append(1.0 / scale if block.kind == "numeric" else np.ones(width))
        given = joined(list(parts.values()), f"{name}_targets")
        if self.moments_ and not self._standardized:
            factor = np.concatenate(factors)
            given = affine(given, 0.0, factor, 0.0, f"{name}_given")
            rebuilt = affine(rebuilt, 0.0, factor, 0.0, f"{name}_rebuilt")
        return squared_difference(given, rebuilt, f"{name}_reconstruction_error")
