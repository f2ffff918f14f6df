"""The result of ``leakage_report``."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

from skstack.inspection._plot import plot_axes

VERDICTS = ("leak", "suspect", "ok", "not checked")
# Legible on white and on black.
_COLOURS = {"leak": "#c0392b", "suspect": "#c77700", "ok": "#2e8b57", "not checked": "#80868b"}


# For each check: what is wrong if it finds something, and what is right if it does not.
_SENTENCES = {
    "groups across the outer folds": (
        "The score is measured on groups that the estimator was trained on.",
        "No group is in training and test rows.",
    ),
    "later rows in training (outer folds)": (
        "The score is measured on rows that are older than training rows.",
        "All training rows are older than the test rows.",
    ),
    "duplicates across folds": (
        "Test rows have copies among the training rows.",
        "Test rows are not copies of training rows.",
    ),
    "scaling before the outer split": (
        "A scaler was fitted on all rows, test rows included.",
        "The columns do not look scaled on all rows.",
    ),
    "imputation, projection or encoding before the outer split": (
        "Columns were prepared with statistics of all rows, test rows included.",
        "The columns do not look prepared on all rows.",
    ),
    "resampling before the outer split": (
        "A sampler created rows from all rows, so test rows were made from training rows.",
        "No rows look made by a sampler.",
    ),
    "a column that reveals the target": (
        "The target follows from the columns, which is rarely so when predictions are made.",
        "No column, and no pair of columns, reveals the target.",
    ),
    "rows or targets kept in the estimator": (
        "The estimator carries test rows, or what was learned from them, into every fit.",
        "The estimator holds no rows or targets, and no statistics of all rows.",
    ),
    "preparation of raw rows": (
        "The preparation of training rows depends on test rows, or on later rows.",
        "Training rows are prepared alike with and without the other rows.",
    ),
    "resampling before an inner split": (
        "An inner score is measured on rows that a sampler made from inner training rows.",
        "Samplers only see inner training rows.",
    ),
    "scaling before an inner split": (
        "A search scores candidates on rows that a step before it has learned from.",
        "Steps before a search learn nothing from rows.",
    ),
    "learning from y before an inner split": (
        "A step has seen the targets of rows that are then predicted as if they were new.",
        "Targets of inner test rows are unknown to the steps before.",
    ),
    "early stopping on synthetic or training rows": (
        "Training is stopped by a score on rows that the model has, in effect, learned from.",
        "Early stopping uses rows that the model has not learned from.",
    ),
    "groups across inner folds": (
        "Inner models predict groups that they were trained on.",
        "Inner folds keep groups together.",
    ),
    "later rows in training (inner folds)": (
        "Inner models predict rows that are older than rows used in training.",
        "Inner models only predict later rows.",
    ),
    "in-sample features": (
        "Features of training rows depend on the target of their row; those of new rows cannot.",
        "Features of a row do not depend on its own target.",
    ),
    "score with shuffled targets": (
        "The estimator has learned from targets of test rows.",
        "Without a relation to learn, the score is that of chance.",
    ),
    "predictions that depend on other test rows": (
        "Something is learned from the test rows when they are predicted.",
        "Each test row is predicted by itself.",
    ),
    "frozen parts that have seen test rows": (
        "A part that is not trained here seems to have been trained on the test rows.",
        "No part that is not trained here seems to have been trained on the test rows.",
    ),
}


@dataclass(frozen=True)
class Finding:
    """Result of one check; `verdict` is one of VERDICTS, `strength` in [0, 1] is for the plot."""

    check: str
    verdict: str
    evidence: str
    remedy: str = ""
    strength: float = 0.0

    @property
    def sentence(self):
        """The verdict in words, for somebody who does not know the check."""
        problem, fine = _SENTENCES.get(self.check, ("", ""))
        if self.verdict == "suspect" and problem:
            return f"Perhaps: {problem[0].lower()}{problem[1:]}"
        if self.verdict == "not checked":
            return f"Not checked: {self.evidence}."
        return {"leak": problem, "ok": fine}.get(self.verdict, "")


@dataclass(repr=False)
class LeakageReport:
    """Result of :func:`leakage_report`.

    Parameters
    ----------
    estimator_name : str
        Class of the audited estimator.

    findings : list of Finding
        One per check.

    fits : list of (str, int, int)
        For each recorded fit: the step, the number of rows of X that it learned from, and the
        number of its rows that a sampler has created.

    Attributes
    ----------
    leaks : list of str
        Checks whose verdict is "leak".

    suspects : list of str
        Checks whose verdict is "suspect".

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from skstack.inspection import leakage_report
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> report = leakage_report(GaussianNB(), X, y, cv=3)
    >>> report.leaks
    []
    >>> report.to_frame()["verdict"].value_counts().index[0]
    'ok'
    """

    estimator_name: str
    findings: list
    fits: list = field(default_factory=list)

    def to_frame(self):
        """Return the findings as a table.

        Returns
        -------
        DataFrame
            One row per check, with the columns ``check``, ``verdict``, ``sentence`` (the verdict in
            words), ``evidence`` (measured, in units), ``strength`` (of the evidence, in [0, 1]) and
            ``remedy``.
        """
        import pandas as pd

        columns = ["check", "verdict", "sentence", "evidence", "strength", "remedy"]
        rows = [[getattr(finding, column) for column in columns] for finding in self.findings]
        return pd.DataFrame(rows, columns=columns)

    @property
    def leaks(self):
        """List of str : the checks whose verdict is "leak"."""
        return [finding.check for finding in self.findings if finding.verdict == "leak"]

    @property
    def suspects(self):
        """List of str : the checks whose verdict is "suspect"."""
        return [finding.check for finding in self.findings if finding.verdict == "suspect"]

    def __repr__(self):
        lines = [f"Leakage report of {self.estimator_name}: {self._summary()}"]
        for finding in self.findings:
            lines.append(f"  [{finding.verdict:^11}] {finding.check}: {finding.evidence}")
            if finding.sentence and finding.verdict in VERDICTS[:2]:
                lines.append(f"{'':16}{finding.sentence}")
            if finding.remedy and finding.verdict in VERDICTS[:2]:
                lines.append(f"{'':16}-> {finding.remedy}")
        return "\n".join(lines)

    def _summary(self):
        if not self.leaks and not self.suspects:
            return "no leak found"
        return ", ".join(
            f"{len(names)} {word}"
            for names, word in ((self.leaks, "leak(s)"), (self.suspects, "suspect(s)"))
            if names
        )

    def _repr_html_(self):
        rows = "".join(
            f'<tr><td>{escape(f.check)}</td><td style="color:{_COLOURS[f.verdict]};'
            f'font-weight:bold">{f.verdict}</td><td><div>{escape(f.sentence)}</div>'
            f"<div>{escape(f.evidence)}</div></td>"
            f"<td>{escape(f.remedy if f.verdict in VERDICTS[:2] else '')}</td></tr>"
            for f in self.findings
        )
        heads = "".join(f"<th>{head}</th>" for head in ("check", "verdict", "evidence", "remedy"))
        return (
            f"<p><b>Leakage report of {escape(self.estimator_name)}</b>: {self._summary()}</p>"
            f'<table style="text-align:left"><thead><tr>{heads}</tr></thead>'
            f"<tbody>{rows}</tbody></table>"
        )

    def plot(self, ax=None):
        """Draw a bar for each check, with the strength of its evidence.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            The axes to draw on; None creates a figure.

        Returns
        -------
        LeakageReportDisplay
            The drawing, with the attributes ``ax_`` and ``figure_``.

        Raises
        ------
        ImportError
            If matplotlib is not installed: ``pip install "skstack[plot]"``.
        """
        return LeakageReportDisplay(report=self).plot(ax)


class LeakageReportDisplay:
    """Bars for the checks of a leakage report.

    Made by :meth:`LeakageReport.plot`.

    Parameters
    ----------
    report : LeakageReport
        What :func:`leakage_report` returned.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        The axes that were drawn on.

    figure_ : matplotlib.figure.Figure
        Their figure.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from skstack.inspection import leakage_report
    >>> X, y = load_iris(return_X_y=True)
    >>> display = leakage_report(GaussianNB(), X, y, cv=3, verbose=0).plot()
    >>> display.ax_.get_xlabel()
    'strength of the evidence'
    """

    def __init__(self, *, report):
        self.report = report

    def plot(self, ax=None):
        """Draw a bar for each check, with the strength of its evidence.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            The axes to draw on; None creates a figure.

        Returns
        -------
        LeakageReportDisplay
            Itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed: ``pip install "skstack[plot]"``.
        """
        findings = self.report.findings
        height = 0.42 * len(findings) + 1.4
        ax = plot_axes(ax, "LeakageReport.plot", width=9, height=height)
        bars = {}
        for row, finding in enumerate(findings):
            colour = _COLOURS[finding.verdict]
            bars[finding.verdict] = ax.barh(row, max(finding.strength, 0.012), color=colour)
            ax.annotate(
                finding.verdict,
                (max(finding.strength, 0.012), row),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                color=colour,
            )
        ax.set_yticks(range(len(findings)), [finding.check for finding in findings])
        ax.invert_yaxis()
        ax.set_xlim(0, 1.18)
        ax.set_xticks([0, 0.5, 1], ["none", "half", "full"])
        ax.set_xlabel("strength of the evidence")
        ax.set_title(
            f"Leakage report of {self.report.estimator_name}: {self.report._summary()}", loc="left"
        )
        present = [verdict for verdict in VERDICTS if verdict in bars]
        ax.legend([bars[v] for v in present], present, loc="lower right", frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self
