"""Weights and scores of the parts of a blend, as a plot."""

from __future__ import annotations

from sklearn.utils.validation import check_is_fitted

from skstack.inspection._plot import last_estimator, plot_axes


class BlendDisplay:
    """Weights of the parts of a blend, with their scores on rows that no part was fitted on.

    Made by :meth:`from_estimator`.

    Parameters
    ----------
    parts : list of str
        Names of the parts.

    weights : list of float
        Weight of each part. In [0, 1].

    scores : dict of str to float
        Score by part, and of the blend as ``"blend"``; empty if nothing is blended.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes with the plot.

    figure_ : matplotlib.figure.Figure
        The figure of ``ax_``.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.dummy import DummyRegressor
    >>> from sklearn.linear_model import Ridge
    >>> from skstack.ensemble import GreedyEnsembleRegressor
    >>> from skstack.inspection import BlendDisplay
    >>> X, y = load_diabetes(return_X_y=True)
    >>> ensemble = GreedyEnsembleRegressor([("mean", DummyRegressor()), ("linear", Ridge(0.1))])
    >>> display = BlendDisplay.from_estimator(ensemble.fit(X, y))
    >>> display.parts, display.weights
    (['mean', 'linear'], [0.0, 1.0])
    """

    def __init__(self, *, parts, weights, scores):
        self.parts = parts
        self.weights = weights
        self.scores = scores

    @classmethod
    def from_estimator(cls, estimator, *, ax=None):
        """Draw the weights of a fitted stack or ensemble.

        Parameters
        ----------
        estimator : StackedKerasClassifier, StackedKerasRegressor, GreedyEnsembleClassifier or \
                GreedyEnsembleRegressor, or a Pipeline or search
            Fitted. Of a Pipeline the last step is drawn, of a search the best estimator.

        ax : matplotlib.axes.Axes, default=None
            The axes to draw on; None creates a figure.

        Returns
        -------
        BlendDisplay

        Raises
        ------
        TypeError
            If the estimator has no such weights.

        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        check_is_fitted(estimator)
        estimator = last_estimator(estimator)
        of_stack = hasattr(estimator, "blend_weights_")
        ending = "blend_{}_" if of_stack else "{}_"
        weights = getattr(estimator, ending.format("weights"), None)
        scores = getattr(estimator, ending.format("scores"), None)
        if not (isinstance(weights, dict) and isinstance(scores, dict)):
            raise TypeError(
                f"estimator={estimator!r} has no weights of a blend; expected a stack, "
                "GreedyEnsembleClassifier or GreedyEnsembleRegressor."
            )
        display = cls(parts=list(weights), weights=list(weights.values()), scores=dict(scores))
        return display.plot(ax=ax)

    def plot(self, ax=None):
        """Draw a bar for the weight of each part; its label holds the score.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            The axes to draw on; None creates a figure.

        Returns
        -------
        BlendDisplay
            Itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed: ``pip install "skstack[plot]"``.
        """
        ax = plot_axes(ax, "BlendDisplay.plot", width=7, height=0.5 * len(self.parts) + 1.6)
        rows = range(len(self.parts))
        bars = ax.barh(rows, self.weights, color="#0072B2")
        ax.bar_label(bars, fmt="%.2f", padding=3)
        labels = [
            f"{part}\nscore {self.scores[part]:.4g}" if part in self.scores else part
            for part in self.parts
        ]
        ax.set_yticks(rows, labels)
        ax.invert_yaxis()
        ax.set_xlim(0, 1.1)
        ax.set_xlabel("weight")
        total = f" (score {self.scores['blend']:.4g})" if "blend" in self.scores else ""
        ax.set_title(f"Weights of the blend{total}", loc="left")
        self.ax_, self.figure_ = ax, ax.figure
        return self
