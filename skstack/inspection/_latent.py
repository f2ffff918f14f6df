"""Features of a layer in two dimensions, as a plot."""

from __future__ import annotations

from numbers import Real

import numpy as np
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from skstack._base.params import is_keras_model
from skstack.inspection._plot import plot_axes

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#7f7f7f")


class LatentDisplay:
    """Features of rows in two dimensions, the first two principal components.

    Made by :meth:`from_estimator`.

    Parameters
    ----------
    points : ndarray of shape (n_samples, 2)
        Coordinates of the rows.

    y : array-like of shape (n_samples,), default=None
        Classes or numbers by which the points are coloured.

    explained_variance_ratio : array-like of shape (2,), default=None
        Share of the variance of the features that each component has. In [0, 1].

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes with the plot.

    figure_ : matplotlib.figure.Figure
        The figure of ``ax_``.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from skstack import KerasAutoencoder
    >>> from skstack.inspection import LatentDisplay
    >>> from skstack.networks import Autoencoder
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> autoencoder = KerasAutoencoder(Autoencoder((8,), latent_size=2), epochs=5, random_state=0)
    >>> autoencoder = autoencoder.fit(X)
    >>> display = LatentDisplay.from_estimator(autoencoder, X, y)
    >>> display.points.shape
    (569, 2)
    """

    def __init__(self, *, points, y=None, explained_variance_ratio=None):
        self.points = points
        self.y = y
        self.explained_variance_ratio = explained_variance_ratio

    @classmethod
    def from_estimator(cls, estimator, X, y=None, *, layer=None, ax=None):
        """Draw the features that a fitted estimator gives to rows.

        Parameters
        ----------
        estimator : estimator or keras.Model
            A fitted network estimator, or a built ``keras.Model``, whose ``layer`` is drawn; or any
            fitted estimator with ``transform``, such as
            :class:`~skstack.KerasFeatureTransformer`.

        X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
            Rows, at least 2.

        y : array-like of shape (n_samples,), default=None
            Classes or numbers by which the points are coloured; rows without a value are grey.

        layer : str, default=None
            Name of a layer. None draws what ``transform`` returns.

        ax : matplotlib.axes.Axes, default=None
            The axes to draw on; None creates a figure.

        Returns
        -------
        LatentDisplay

        Raises
        ------
        ValueError
            If there is no such layer, fewer than two features, or several values of y for a row.

        TypeError
            If ``layer`` is None and the estimator has no ``transform``.

        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        if not is_keras_model(estimator):
            check_is_fitted(estimator)
        if layer is not None:
            from skstack._features.transformer import KerasFeatureTransformer

            frozen = estimator if is_keras_model(estimator) else FrozenEstimator(estimator)
            features = KerasFeatureTransformer(frozen, layers=layer).fit(X).transform(X)
        elif hasattr(estimator, "transform"):
            features = estimator.transform(X)
        else:
            raise TypeError(
                f"layer=None draws what transform returns, but {type(estimator).__name__} has no "
                "transform. Name a layer of its network (`model_.summary()` lists them)."
            )
        if y is not None:
            check_consistent_length(X, _one_column(y))
        features = features.toarray() if hasattr(features, "toarray") else features
        try:
            features = np.asarray(features, dtype=np.float64).reshape(len(features), -1)
        except ValueError as error:
            raise ValueError(
                f"transform of {type(estimator).__name__} returns columns that are not numeric "
                f"({error}). Set passthrough=False, or name a layer."
            ) from error
        if len(features) < 2:
            raise ValueError(f"Two dimensions need at least 2 rows, but X has {len(features)}.")
        if features.shape[1] < 2:
            raise ValueError(
                f"Two dimensions need at least 2 features, but layer={layer!r} has "
                f"{features.shape[1]}."
            )
        pca = PCA(2, random_state=0)
        points = np.asarray(pca.fit_transform(features))
        display = cls(points=points, y=y, explained_variance_ratio=pca.explained_variance_ratio_)
        return display.plot(ax=ax)

    def plot(self, ax=None):
        """Draw a point for each row, in the colour of its class or number.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            The axes to draw on; None creates a figure.

        Returns
        -------
        LatentDisplay
            Itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed: ``pip install "skstack[plot]"``.
        """
        import pandas as pd

        ax = plot_axes(ax, "LatentDisplay.plot", width=5.5, height=4.4)
        style = {"s": 12, "alpha": 0.7, "linewidths": 0}
        first, second = self.points.T
        y = None if self.y is None else _one_column(self.y)
        unknown = np.zeros(len(first), dtype=bool) if y is None else pd.isna(y)
        if unknown.any():
            grey = {**style, "color": "#bbbbbb", "label": "unknown"}
            ax.scatter(first[unknown], second[unknown], **grey)
            first, second, y = first[~unknown], second[~unknown], y[~unknown]
        if y is not None and y.dtype == object:  # beside missing values, say
            numbers = all(isinstance(value, Real | np.bool_) for value in y)
            y = np.array(y.tolist()) if numbers else y.astype(str)
        if y is None:
            ax.scatter(first, second, color=_COLOURS[0], **style)
        elif (
            len(y)
            and type_of_target(y) in ("binary", "multiclass")
            and len(np.unique(y)) <= len(_COLOURS)
        ):
            for label, colour in zip(np.unique(y), _COLOURS, strict=False):
                rows = y == label
                ax.scatter(first[rows], second[rows], color=colour, label=str(label), **style)
            ax.legend(frameon=False)
        elif len(y):
            codes = y if y.dtype.kind in "biuf" else np.unique(y, return_inverse=True)[1]
            drawn = ax.scatter(first, second, c=codes, cmap="viridis", **style)
            ax.figure.colorbar(drawn, ax=ax, label="y")
        for number, axis in enumerate((ax.xaxis, ax.yaxis)):
            share = ""
            if self.explained_variance_ratio is not None:
                share = f" ({self.explained_variance_ratio[number]:.0%} of the variance)"
            axis.set_label_text(f"component {number + 1}{share}")
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _one_column(y):
    """The values of y as an array with one dimension."""
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise ValueError(f"y has shape {y.shape}; expected (n_samples,) or (n_samples, 1).")
    return y
