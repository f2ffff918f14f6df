"""Compare a stack with and without each of its parts on the same folds."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import cross_validate
from sklearn.utils.validation import check_consistent_length

from skstack._base.progress import StepCounter
from skstack._base.tables import check_groups
from skstack._splits.folds import outer_folds, shown_cv
from skstack.inspection._plot import plot_axes
from skstack.inspection._significance import LEVEL, corrected_resampled_t_test, holm
from skstack.inspection._variants import ALONE, seeded, stack_of, variants_of

_COLOURS = {
    "beyond noise": "#0072B2",
    "beyond noise only by itself": "#E69F00",
    "within noise": "#7f7f7f",
    "not tested": "#7f7f7f",
}
_SPOKEN = {ALONE: "the downstream alone", "all": "all branches"}


@dataclass(repr=False)
class StackingGain:
    """Result of :func:`stacking_gain`.

    Parameters
    ----------
    estimator_name : str
        Class of the stack, or of the Pipeline that ends in it.

    metric : str
        Name of the metric; greater is better.

    scores : DataFrame of shape (n_folds, n_variants)
        Score of each variant on each fold; the first variant is the downstream alone.

    table : DataFrame
        A row for each variant, in the order of ``scores``. ``mean`` and ``sd`` are over the folds;
        ``difference`` is the mean difference to the variant in ``against``, ``low`` and ``high``
        are the ends of its 95 % interval, and ``p`` is the two-sided p-value of the corrected
        resampled t-test, without correction for multiple comparisons. ``p_holm`` is corrected.
        ``verdict`` is "beyond noise" (``p_holm`` at most 0.05), "beyond noise only by itself"
        (``p`` at most 0.05), "within noise" or "not tested" (the same difference on every fold).
        ``seconds`` is the mean time of one fit.

    changes : list of str
        Subject and verb of the sentence of each comparison.

    notes : list of str, default=[]
        Remarks on the comparison.

    seed : int or None, default=None
        The ``random_state`` of all variants if that of the stack is None.

    Attributes
    ----------
    summary : str
        One sentence per comparison, that of the whole stack first.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.linear_model import Ridge
    >>> from skstack import StackedKerasRegressor
    >>> from skstack.inspection import stacking_gain
    >>> X, y = load_diabetes(return_X_y=True)
    >>> stack = StackedKerasRegressor([("linear", Ridge())], downstream=Ridge(), random_state=0)
    >>> gain = stacking_gain(stack, X, y, cv=3)
    >>> gain.scores.columns.tolist()
    ['downstream alone', 'with linear']
    """

    estimator_name: str
    metric: str
    scores: Any
    table: Any
    changes: list
    notes: list = field(default_factory=list)
    seed: int | None = None

    @property
    def comparisons(self):
        """DataFrame : the rows of ``table`` that are compared with another variant."""
        return self.table.iloc[1:]

    @property
    def summary(self):
        """Str : one sentence per comparison, that of the whole stack first."""
        sentences = [
            self._sentence(change, row)
            for change, row in zip(self.changes, self.comparisons.itertuples(), strict=True)
        ]
        variants = self.comparisons["variant"].tolist()
        whole = variants.index("all") if "all" in variants else 0
        return "\n".join([sentences.pop(whole), *sentences])

    def _sentence(self, change, row):
        n_folds, n = len(self.scores), len(self.changes)
        digits = _digits(row)
        against = _SPOKEN.get(row.against, f"the stack {row.against}")
        sentence = f"{change} {self.metric} by {_signed(row.difference, digits)}"
        if row.verdict == "not tested":
            return (
                f"{sentence} against {against} on each of {n_folds} folds: without variance it "
                "cannot be tested."
            )
        interval = f"{_signed(row.low, digits)} to {_signed(row.high, digits)}"
        sentence = f"{sentence} against {against} (95 % interval {interval})"
        if row.verdict == "within noise":
            return f"{sentence}: no larger than its noise on these {n_folds} folds."
        corrected = f"{_p(row.p_holm)} after Holm's correction for {n} comparisons"
        if row.verdict == "beyond noise":
            chance = _p(row.p) if n == 1 else corrected
            return f"{sentence}: larger than its noise on these {n_folds} folds ({chance})."
        return (
            f"{sentence}: larger than its noise if it were the only comparison ({_p(row.p)}), but "
            f"not among several ({corrected})."
        )

    def _all_notes(self):
        tested = len(self.changes)
        notes = list(self.notes)
        if self.seed is not None:
            notes.append(f"random_state of the stack is None; all variants use {self.seed}.")
        if (self.comparisons["verdict"] == "within noise").any():
            notes.append(
                "no larger than its noise means that these folds do not distinguish it from "
                "zero, not that it is zero; repeated folds narrow the intervals."
            )
        if tested > 1:
            notes.append(
                "intervals and p are not corrected for multiple comparisons; p_holm is "
                f"corrected for the {tested} comparisons."
            )
        return notes

    def _title(self):
        return (
            f"Stacking gain of {self.estimator_name}: {self.metric} (greater is better) on "
            f"{len(self.scores)} folds"
        )

    def __repr__(self):
        table = self.table.to_string(index=False, na_rep="", float_format="{:.4g}".format)
        notes = [f"Note: {note}" for note in self._all_notes()]
        return "\n".join([self._title(), "", table, "", self.summary, *notes])

    def _repr_html_(self):
        table = self.table.to_html(index=False, na_rep="", float_format="{:.4g}".format)
        lines = [*self.summary.split("\n"), *(f"Note: {note}" for note in self._all_notes())]
        text = "".join(f"<p>{escape(line)}</p>" for line in lines)
        return f"<p><b>{escape(self._title())}</b></p>{table}{text}"

    def plot(self, ax=None):
        """Draw each difference with its interval.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            The axes to draw on; None creates a figure.

        Returns
        -------
        StackingGainDisplay
            The drawing, with the attributes ``ax_`` and ``figure_``.

        Raises
        ------
        ImportError
            If matplotlib is not installed: ``pip install "skstack[plot]"``.
        """
        return StackingGainDisplay.from_gain(self, ax=ax)


class StackingGainDisplay:
    """Differences between variants of a stack, with their 95 % intervals.

    Made by :meth:`from_estimator` or :meth:`from_gain`.

    Parameters
    ----------
    labels : list of str
        What is compared with what.

    differences, low, high : array-like of float of shape (n_comparisons,)
        Mean differences and the ends of their intervals; NaN if there is none.

    verdicts : list of str
        As in the table of :class:`StackingGain`.

    metric : str
        Name of the metric.

    n_folds : int
        Number of folds.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes with the plot.

    figure_ : matplotlib.figure.Figure
        The figure of ``ax_``.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.linear_model import Ridge
    >>> from skstack import StackedKerasRegressor
    >>> from skstack.inspection import StackingGainDisplay, stacking_gain
    >>> X, y = load_diabetes(return_X_y=True)
    >>> stack = StackedKerasRegressor([("linear", Ridge())], downstream=Ridge(), random_state=0)
    >>> gain = stacking_gain(stack, X, y, cv=3)
    >>> StackingGainDisplay.from_gain(gain).n_folds
    3
    """

    def __init__(self, *, labels, differences, low, high, verdicts, metric, n_folds):
        self.labels = labels
        self.differences = differences
        self.low = low
        self.high = high
        self.verdicts = verdicts
        self.metric = metric
        self.n_folds = n_folds

    @classmethod
    def from_estimator(
        cls, estimator, X, y, *, cv=None, scoring=None, params=None, n_jobs=None, ax=None
    ):
        """Compare the variants of a stack and draw the result.

        Parameters
        ----------
        estimator, X, y, cv, scoring, params, n_jobs : object
            As in :func:`stacking_gain`.

        ax : matplotlib.axes.Axes, default=None
            The axes to draw on; None creates a figure.

        Returns
        -------
        StackingGainDisplay
        """
        gain = stacking_gain(estimator, X, y, cv, scoring, params=params, n_jobs=n_jobs)
        return cls.from_gain(gain, ax=ax)

    @classmethod
    def from_gain(cls, gain, *, ax=None):
        """Draw the result of :func:`stacking_gain`.

        Parameters
        ----------
        gain : StackingGain
            What :func:`stacking_gain` returned.

        ax : matplotlib.axes.Axes, default=None
            The axes to draw on; None creates a figure.

        Returns
        -------
        StackingGainDisplay
        """
        rows = gain.comparisons
        labels = [
            f"{variant}\nagainst {against}"
            for variant, against in zip(rows["variant"], rows["against"], strict=True)
        ]
        numbers = {name: rows[name].to_numpy() for name in ("low", "high")}
        display = cls(
            labels=labels,
            differences=rows["difference"].to_numpy(),
            verdicts=rows["verdict"].tolist(),
            metric=gain.metric,
            n_folds=len(gain.scores),
            **numbers,
        )
        return display.plot(ax=ax)

    def plot(self, ax=None):
        """Draw a point and an interval for each comparison, and a line at zero.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            The axes to draw on; None creates a figure.

        Returns
        -------
        StackingGainDisplay
            Itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed: ``pip install "skstack[plot]"``.
        """
        height = 0.55 * len(self.labels) + 2.0
        ax = plot_axes(ax, "StackingGainDisplay.plot", width=8, height=height)
        # Black, or white in dark notebooks.
        ax.axvline(0, color=ax.spines["left"].get_edgecolor(), linewidth=0.8)
        for verdict, colour in _COLOURS.items():
            rows = [row for row, own in enumerate(self.verdicts) if own == verdict]
            if not rows:
                continue
            middle = np.asarray(self.differences)[rows]
            ends = np.asarray([self.low, self.high], dtype=float)[:, rows]
            # An unknown interval is drawn as a point.
            reach = np.nan_to_num(np.abs(ends - middle))
            tested = verdict != "not tested"
            ax.errorbar(
                middle,
                rows,
                xerr=reach,
                fmt="o" if tested else "x",
                color=colour,
                capsize=4 if tested else 0,
                label=verdict,
            )
        ax.set_yticks(range(len(self.labels)), self.labels)
        ax.set_ylim(len(self.labels) + 0.3, -0.5)  # room for the legend
        ax.locator_params(axis="x", nbins=6)
        ax.set_xlabel(f"difference in {self.metric}\n(95 % interval of each comparison by itself)")
        ax.set_title(f"Gain of the parts of the stack on {self.n_folds} folds", loc="left")
        ax.legend(loc="lower right", ncols=3, frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self


def stacking_gain(
    estimator, X, y, cv=None, scoring=None, *, params=None, n_jobs=None, verbose="auto"
):
    """Measure the gain of each part of a stack, and test whether it exceeds noise.

    The downstream is scored alone, with each branch, with all branches, without each branch (of
    three or more), and with fine-tuning and a teacher's loss if the stack has them, on the same
    folds and with the same seed. Each variant is compared with the downstream alone, or with all
    branches.

    Parameters
    ----------
    estimator : StackedKerasClassifier, StackedKerasRegressor or Pipeline that ends in one
        Never fitted or changed.

    X : array-like, sparse matrix or DataFrame of shape (n_samples, n_features)
        The rows, as in ``cross_validate``.

    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Labels or targets.

    cv : int, splitter or iterable, default=None
        The outer folds, at least two, as in ``cross_validate``; with ``groups`` an int keeps groups
        together. Repeated folds (``RepeatedStratifiedKFold``) detect smaller differences.

    scoring : str or callable, default=None
        One metric, as in ``cross_validate``; greater is better. None stands for the estimator's
        ``score``.

    params : dict, default=None
        Parameters of ``fit``, as in ``cross_validate``, such as ``groups``, which are also passed
        to ``cv``. Inside a Pipeline they require metadata routing.

    n_jobs : int, default=None
        Number of folds of one variant that are scored in parallel.

    verbose : {"auto", 0, 1}, default="auto"
        Progress on stderr, a line for each variant: never (0), from the start (1), or after five
        seconds ("auto").

    Returns
    -------
    StackingGain
        With ``scores``, ``table``, ``summary``, ``plot()`` and HTML in a notebook.

    Raises
    ------
    TypeError
        If the estimator is not a stack and does not end in one.

    ValueError
        If there is nothing to compare, for fewer than two folds, for several or unknown metrics,
        and for scores that are not finite.

    Notes
    -----
    Scores of folds that share training rows are not independent: a plain t-test on them rejects the
    null hypothesis too often. The corrected resampled t-test (Nadeau & Bengio, "Inference for the
    generalization error", Machine Learning 52, 2003) takes (1/k + n_test/n_train) times the
    variance of the differences d in place of 1/k times:
    ``t = mean(d) / sqrt((1/k + n_test/n_train) * var(d))`` with k - 1 degrees of freedom. It was
    made for random splits; for (repeated) cross-validation, see Bouckaert & Frank, "Evaluating the
    replicability of significance tests for comparing learning algorithms", PAKDD 2004; for
    time-ordered folds it is a rule of thumb. The result applies to training sets of the size of a
    fold, and to this seed.

    The p-values of the table are corrected by Holm's step-down procedure
    (Scandinavian Journal of Statistics 6, 1979); intervals are not corrected.

    Variants are clones of the estimator with other parameters: branches become ``"drop"``,
    ``fine_tune`` becomes None, a loss with a ``teacher`` is replaced by its own ``loss``, or by
    "auto". Branches are compared with both switched off. With ``passthrough=False`` the
    downstream alone learns from all columns of X.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skstack import StackedKerasClassifier
    >>> from skstack.inspection import stacking_gain
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> stack = StackedKerasClassifier(
    ...     upstream=[("forest", RandomForestClassifier(n_estimators=10))],
    ...     downstream=LogisticRegression(max_iter=1000),
    ...     cv=3,
    ...     random_state=0,
    ... )
    >>> gain = stacking_gain(stack, X, y, cv=5, scoring="average_precision")
    >>> gain.table[["variant", "against", "verdict"]]
                variant           against       verdict
    0  downstream alone
    1       with forest  downstream alone  within noise
    """
    import pandas as pd

    StepCounter.check(verbose)
    stack_of(estimator)
    check_consistent_length(X, y)
    if getattr(X, "ndim", 2) > 2:
        raise ValueError(
            f"X has shape {X.shape}: only tables pass through to the downstream, so that there is "
            "no downstream alone to compare with."
        )
    metric = _metric(estimator, scoring)
    estimator, seed = seeded(estimator)
    variants, notes = variants_of(estimator, X)
    check_scoring(estimator, scoring)
    groups = check_groups((params or {}).get("groups"), X)
    folds = outer_folds(cv, X, y, classifier=is_classifier(estimator), groups=groups)
    if len(folds) < 2:
        raise ValueError(f"cv={shown_cv(cv)} yields {len(folds)} fold; a test requires at least 2.")

    def results_of(variant):
        return cross_validate(
            variant.estimator, X, y, scoring=scoring, cv=folds, n_jobs=n_jobs, params=params,
            error_score="raise",
        )  # fmt: skip

    scores, seconds, step = {}, [], StepCounter("stacking_gain", verbose, len(variants))
    for variant in variants:
        try:
            results = step(results_of, variant)
        except Exception as error:
            error.add_note(f"Raised by the variant {variant.name!r} of the stack.")
            raise
        scores[variant.name] = _finite(results["test_score"], metric, variant.name)
        seconds.append(float(np.mean(results["fit_time"])))

    scores = pd.DataFrame(scores).rename_axis(index="fold")
    sizes = np.transpose([(len(train), len(test)) for train, test in folds])
    differences = [
        corrected_resampled_t_test(_differences(scores[each.name], scores[each.against]), *sizes)
        for each in variants[1:]
    ]
    p = [difference.p for difference in differences]
    table = pd.DataFrame(
        {
            "variant": [variant.name for variant in variants],
            "mean": scores.mean().to_numpy(),
            "sd": scores.std(ddof=1).to_numpy(),
            "against": [variant.against for variant in variants],
            "difference": [np.nan, *(difference.mean for difference in differences)],
            "low": [np.nan, *(difference.low for difference in differences)],
            "high": [np.nan, *(difference.high for difference in differences)],
            "p": [np.nan, *p],
            "p_holm": [np.nan, *holm(p)],
            "verdict": ["", *map(_verdict, p, holm(p))],
            "seconds": seconds,
        }
    )
    name = type(estimator).__name__
    changes = [variant.change for variant in variants[1:]]
    return StackingGain(name, metric, scores, table, changes, notes, seed)


def _metric(estimator, scoring):
    """The name of a metric."""
    if scoring is None:
        return "accuracy" if is_classifier(estimator) else "R2"
    if isinstance(scoring, str):
        return scoring
    if not callable(scoring):
        raise ValueError(
            f"scoring={scoring!r} must be one metric: the name of a scorer, a callable or None."
        )
    return getattr(scoring, "__name__", repr(scoring))


def _finite(scores, metric, name):
    invalid = np.flatnonzero(~np.isfinite(scores))
    if len(invalid):
        raise ValueError(
            f"scoring={metric!r} gives {scores[invalid[0]]} for the variant {name!r} on fold "
            f"{invalid[0]} (counted from 0); such scores cannot be compared. Use another metric, "
            "or folds that hold every class."
        )
    return scores


def _differences(scores, others):
    """Differences of scores; rounding errors are set to 0."""
    differences = (scores - others).to_numpy()
    size = max(scores.abs().max(), others.abs().max())
    return np.where(np.abs(differences) <= 1e-12 * size, 0.0, differences)


def _verdict(p, p_holm):
    if np.isnan(p):
        return "not tested"
    if p_holm <= LEVEL:
        return "beyond noise"
    return "beyond noise only by itself" if p <= LEVEL else "within noise"


def _digits(row):
    """Decimals for two significant digits of half the interval, or of the difference."""
    size = (row.high - row.low) / 2
    size = size if np.isfinite(size) and size > 0 else abs(row.difference)
    return int(np.clip(1 - np.floor(np.log10(size)), 0, 9)) if size > 0 else 3


def _signed(value, digits):
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # no "-0.000"


def _p(p):
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < LEVEL else f"p = {p:.2f}"
