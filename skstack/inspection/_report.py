"""The result of ``leakage_report``."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

from skstack.inspection._plot import plot_axes

VERDICTS = ("leak", "suspect", "ok", "not checked")
_COLOURS = {"leak": "#c0392b", "suspect": "#e08e0b", "ok": "#2e8b57", "not checked": "#9aa0a6"}


@dataclass(frozen=True)
class Finding:
    """Result of one check; `verdict` is one of VERDICTS, `strength` in [0, 1] is for the plot."""

    check: str
    verdict: str
    evidence: str
    remedy: str = ""
    strength: float = 0.0


@dataclass(repr=False)
class LeakageReport:
    """Result of :func:`leakage_report`.

    Parameters
    ----------
    estimator_name : str

    findings : list of Finding
        One per check.

    fits : list of (str, int, int)
        For each recorded fit: the step, the number of rows of X that it learned from, and the
        number of its rows that a sampler has created.

    Attributes
    ----------
    table : DataFrame
        Columns ``check``, ``verdict``, ``evidence``, ``remedy``.

    leaks : list of str
        Checks whose verdict is "leak".

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.naive_bayes import GaussianNB
    >>> from skstack.inspection import leakage_report
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> report = leakage_report(GaussianNB(), X, y, cv=3)
    >>> report.leaks
    []
    >>> report.table.columns.tolist()
    ['check', 'verdict', 'evidence', 'remedy']
    """

    estimator_name: str
    findings: list
    fits: list = field(default_factory=list)

    @property
    def table(self):
        """DataFrame : one row per check."""
        import pandas as pd

        columns = ["check", "verdict", "evidence", "remedy"]
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
            f'font-weight:bold">{f.verdict}</td><td>{escape(f.evidence)}</td>'
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
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed: ``pip install "skstack[plot]"``.
        """
        height = 0.42 * len(self.findings) + 1.4
        ax = plot_axes(ax, "LeakageReport.plot", width=9, height=height)
        bars = {}
        for row, finding in enumerate(self.findings):
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
        ax.set_yticks(range(len(self.findings)), [finding.check for finding in self.findings])
        ax.invert_yaxis()
        ax.set_xlim(0, 1.18)
        ax.set_xticks([0, 0.5, 1], ["none", "half", "full"])
        ax.set_xlabel("strength of the evidence")
        ax.set_title(f"Leakage report of {self.estimator_name}: {self._summary()}", loc="left")
        present = [verdict for verdict in VERDICTS if verdict in bars]
        ax.legend([bars[v] for v in present], present, loc="lower right", frameon=False)
        return ax
