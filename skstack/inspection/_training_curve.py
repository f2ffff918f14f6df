"""Losses and metrics of a fitted network by epoch, as a plot."""

from __future__ import annotations

from sklearn.utils.validation import check_is_fitted

from skstack.inspection._plot import last_estimator, plot_axes

_TRAINING, _HELD_OUT = "#0072B2", "#D55E00"


class TrainingCurveDisplay:
    """Loss and metrics of a network by epoch.

    Made by :meth:`from_estimator`.

    Parameters
    ----------
    history : dict of str to list of float or None
        Values by name, one per epoch; ``val_`` begins the names of those of hold-out rows. None if
        there is no fit on all training rows, but only parts.

    parts : list of dict of str to list of float, default=()
        The same for each fold or bag, drawn as thin lines.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes or ndarray of Axes
        The axes with the plot: one for the loss, and one for each metric.

    figure_ : matplotlib.figure.Figure
        The figure of ``ax_``.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from skstack import KerasClassifier
    >>> from skstack.inspection import TrainingCurveDisplay
    >>> from skstack.networks import MLP
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> classifier = KerasClassifier(MLP((8,)), epochs=5, early_stopping=True, random_state=0)
    >>> classifier = classifier.fit(X, y)
    >>> display = TrainingCurveDisplay.from_estimator(classifier)
    >>> sorted(display.history), display.ax_.get_xlabel()
    (['loss', 'val_loss'], 'epoch')
    """

    def __init__(self, *, history, parts=()):
        self.history = history
        self.parts = parts

    @classmethod
    def from_estimator(cls, estimator, *, part=None, ax=None):
        """Draw the curves of a fitted network.

        Parameters
        ----------
        estimator : network estimator, KerasFeatureTransformer, stack, Pipeline or search
            Fitted. Of a Pipeline the last step is drawn, of a search the best estimator.

        part : str, default=None
            Of a stack, the name of a branch, or "downstream", which is the default.

        ax : matplotlib.axes.Axes or array-like of Axes, default=None
            The axes to draw on, as many as there are losses and metrics; None creates a figure.

        Returns
        -------
        TrainingCurveDisplay

        Raises
        ------
        ValueError
            If ``part`` does not exist.

        TypeError
            If nothing of the estimator is a network that records its epochs.

        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        """
        check_is_fitted(estimator)
        of_part = _part(estimator, part)
        parts = list(getattr(of_part, "_fold_histories", ()))
        network = last_estimator(getattr(of_part, "estimator_", of_part))
        history = getattr(network, "history_", None)
        if isinstance(history, list):
            history, parts = None, [*parts, *history]
        if history is None and not parts:
            raise TypeError(
                f"estimator={estimator!r}{'' if part is None else f' with part={part!r}'} has no "
                "history of epochs; expected a network estimator of skstack, a "
                "KerasFeatureTransformer that trains one, or a stack with such a part, which "
                "part= names if it is a branch."
            )
        return cls(history=history, parts=parts).plot(ax=ax)

    def plot(self, ax=None):
        """Draw a line for each loss and metric, thin ones for folds and bags.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or array-like of Axes, default=None
            The axes to draw on, as many as there are losses and metrics; None creates a figure.

        Returns
        -------
        TrainingCurveDisplay
            Itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed: ``pip install "skstack[plot]"``.

        ValueError
            If ``ax`` holds another number of axes.
        """
        runs = [*self.parts, *([] if self.history is None else [self.history])]
        keys = dict.fromkeys(name for run in runs for name in run)
        # A target may be named "val".
        names = [key for key in keys if key.removeprefix("val_") not in keys.keys() - {key}]
        names.sort(key=lambda name: name != "loss")
        size = {"width": 5 * len(names), "height": 3.4}
        axes = plot_axes(ax, "TrainingCurveDisplay.plot", n_axes=len(names), **size)
        for name, own in zip(names, axes, strict=True):
            for key, colour in ((name, _TRAINING), (f"val_{name}", _HELD_OUT)):
                label = "training rows" if key == name else "hold-out rows"
                for run in runs:
                    values = run.get(key)
                    if values is None:
                        continue
                    thin = {"linewidth": 0.8, "alpha": 0.45} if run is not self.history else {}
                    epochs = range(1, len(values) + 1)
                    own.plot(epochs, values, color=colour, label=label, **thin)
                    label = None
            own.set_xlabel("epoch")
            own.set_ylabel(name)
            own.legend(frameon=False)
        self.ax_ = axes[0] if len(axes) == 1 else axes
        self.figure_ = axes[0].figure
        return self


def _part(estimator, part):
    """The estimator whose epochs are drawn."""
    estimator = last_estimator(estimator)
    if not hasattr(estimator, "downstream_"):
        if part is not None:
            raise ValueError(
                f"part={part!r} is for stacks; {type(estimator).__name__} has no parts."
            )
        return estimator
    parts = {"downstream": estimator.downstream_, **estimator.named_upstream_}
    if part is not None and part not in parts:
        raise ValueError(f"part={part!r} is no part of the stack; expected one of {list(parts)}.")
    return last_estimator(parts["downstream" if part is None else part])
