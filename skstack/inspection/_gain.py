"""The table, the sentences and the picture that ``stacking_gain`` gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from skstack.inspection._resampled_test import LEVEL
from skstack.inspection._variants import ALONE

_COLOURS = {
    "beyond noise": "#0072B2",
    "beyond noise only by itself": "#E69F00",
    "within noise": "#7f7f7f",
    "not tested": "#7f7f7f",
}
_SPOKEN = {ALONE: "the downstream alone", "all": "all branches"}


@dataclass(repr=False)
class StackingGain:
    """What :func:`stacking_gain` found; made by it.

    Parameters
    ----------
    estimator_name : str

    metric : str
        What was scored; greater is better.

    scores : DataFrame of shape (n_folds, n_variants)
        The score of each variant on each fold; the first variant is the downstream alone.

    table : DataFrame
        A row for each variant, in the order of ``scores``. ``mean`` and ``sd`` are over the folds;
        ``difference`` is the mean difference to the variant named in ``against``, ``low`` and
        ``high`` are the ends of its 95 % interval, and ``p`` is the two-sided p-value of the
        corrected resampled t-test, each for this comparison by itself. ``p_holm`` is corrected for
        the number of comparisons in the table. ``verdict`` is "beyond noise" (``p_holm`` at most
        0.05), "beyond noise only by itself" (``p`` at most 0.05), "within noise" or "not tested"
        (the same difference on every fold). ``seconds`` is the mean time of one fit.

    changes : list of str
        Subject and verb of the sentence of each comparison.

    notes : list of str, default=[]
        What a reader must know of the comparison.

    seed : int or None, default=None
        The ``random_state`` that all variants were given, where the stack had none.

    Attributes
    ----------
    summary : str
        A sentence for each comparison, that of the whole stack first.
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
        """Str : a sentence for each comparison, that of the whole stack first."""
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
        said = f"{change} {self.metric} by {_signed(row.difference, digits)}"
        if row.verdict == "not tested":
            return (
                f"{said} against {against} on every one of {n_folds} folds: without any "
                "variance there is no telling what its noise is."
            )
        interval = f"{_signed(row.low, digits)} to {_signed(row.high, digits)}"
        said = f"{said} against {against} (95 % interval {interval})"
        if row.verdict == "within noise":
            return f"{said}: no larger than its noise on these {n_folds} folds."
        corrected = f"{_p(row.p_holm)} after Holm's correction for {n} comparisons"
        if row.verdict == "beyond noise":
            chance = _p(row.p) if n == 1 else corrected
            return f"{said}: larger than its noise on these {n_folds} folds ({chance})."
        return (
            f"{said}: larger than its noise if it were the only comparison ({_p(row.p)}), but "
            f"not among several ({corrected})."
        )

    def _all_notes(self):
        tested = len(self.changes)
        notes = list(self.notes)
        if self.seed is not None:
            notes.append(f"the stack has no random_state; all variants were given {self.seed}.")
        if (self.comparisons["verdict"] == "within noise").any():
            notes.append(
                "no larger than its noise means that these folds cannot tell it from zero, not "
                "that it is zero; repeated folds narrow the intervals."
            )
        if tested > 1:
            notes.append(
                "intervals and p are those of each comparison by itself; p_holm is corrected for "
                f"the {tested} comparisons."
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
        said = "".join(f"<p>{escape(line)}</p>" for line in lines)
        return f"<p><b>{escape(self._title())}</b></p>{table}{said}"

    def plot(self, ax=None):
        """Draw each difference with its interval.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed: ``pip install "skstack[plot]"``.
        """
        return StackingGainDisplay.from_gain(self, ax=ax).ax_


class StackingGainDisplay:
    """Differences between variants of a stack, with their 95 % intervals.

    Made by :meth:`from_estimator` or :meth:`from_gain`.

    Parameters
    ----------
    labels : list of str
        What is compared with what.

    differences, low, high : array-like of float of shape (n_comparisons,)
        Mean differences and the ends of their intervals, NaN where there is none.

    verdicts : list of str
        As in the table of :class:`StackingGain`.

    metric : str
        What was scored.

    n_folds : int
        On how many folds.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Where it was drawn.

    figure_ : matplotlib.figure.Figure
        The figure of ``ax_``.
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
        """Compare the variants of a stack, and draw what was found.

        Parameters
        ----------
        estimator, X, y, cv, scoring, params, n_jobs
            As in :func:`stacking_gain`.

        ax : matplotlib.axes.Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        StackingGainDisplay
        """
        from skstack.inspection._stacking_gain import stacking_gain

        gain = stacking_gain(estimator, X, y, cv, scoring, params=params, n_jobs=n_jobs)
        return cls.from_gain(gain, ax=ax)

    @classmethod
    def from_gain(cls, gain, *, ax=None):
        """Draw what :func:`stacking_gain` found.

        Parameters
        ----------
        gain : StackingGain

        ax : matplotlib.axes.Axes, default=None
            Where to draw; None makes a figure.

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
            Where to draw; None makes a figure.

        Returns
        -------
        StackingGainDisplay
            Itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed: ``pip install "skstack[plot]"``.
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError(
                'StackingGainDisplay.plot needs matplotlib: pip install "skstack[plot]".'
            ) from error
        if ax is None:
            _, ax = plt.subplots(figsize=(8, 0.55 * len(self.labels) + 2.0), layout="constrained")
        ax.axvline(0, color="black", linewidth=0.8)
        for verdict, colour in _COLOURS.items():
            places = [i for i, said in enumerate(self.verdicts) if said == verdict]
            if not places:
                continue
            middle = np.asarray(self.differences)[places]
            ends = np.asarray([self.low, self.high], dtype=float)[:, places]
            # An interval that nobody knows is drawn as a point.
            reach = np.nan_to_num(np.abs(ends - middle))
            tested = verdict != "not tested"
            ax.errorbar(
                middle,
                places,
                xerr=reach,
                fmt="o" if tested else "x",
                color=colour,
                capsize=4 if tested else 0,
                label=verdict,
            )
        ax.set_yticks(range(len(self.labels)), self.labels)
        ax.set_ylim(len(self.labels) + 0.3, -0.5)  # the legend has a row of its own
        ax.locator_params(axis="x", nbins=6)
        ax.set_xlabel(f"difference in {self.metric}\n(95 % interval of each comparison by itself)")
        ax.set_title(f"What the parts of the stack bring on {self.n_folds} folds", loc="left")
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        ax.legend(loc="lower right", ncols=3, frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _digits(row):
    """Decimals that show two digits of half the interval, or of the difference."""
    size = (row.high - row.low) / 2
    size = size if np.isfinite(size) and size > 0 else abs(row.difference)
    return int(np.clip(1 - np.floor(np.log10(size)), 0, 9)) if size > 0 else 3


def _signed(value, digits):
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # no "-0.000"


def _p(p):
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < LEVEL else f"p = {p:.2f}"
