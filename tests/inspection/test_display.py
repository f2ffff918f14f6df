"""What a person sees of a report."""

import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from skstack.inspection import LeakageReport
from skstack.inspection._report import Finding

REPORT = LeakageReport(
    "Pipeline",
    [
        Finding("a column that reveals the target", "leak", "column <b> & co", "ask", 0.9),
        Finding("duplicates across folds", "suspect", "3%", "drop them", 0.03),
        Finding("scaling", "ok", "none"),
        Finding("groups", "not checked", "no groups were given"),
    ],
)


def test_leaks_suspects_and_table():
    assert REPORT.leaks == ["a column that reveals the target"]
    assert REPORT.suspects == ["duplicates across folds"]
    assert REPORT.to_frame()["verdict"].tolist() == ["leak", "suspect", "ok", "not checked"]


def test_text_names_leak_evidence_and_remedy():
    text = repr(REPORT)
    assert "1 leak(s), 1 suspect(s)" in text
    assert "column <b> & co" in text
    assert "-> ask" in text
    assert "no leak found" in repr(LeakageReport("LogisticRegression", REPORT.findings[2:]))


def test_html_is_well_formed_and_escaped():
    class Reader(HTMLParser):
        cells, open_tags = 0, ()

        def handle_starttag(self, tag, attrs):
            self.open_tags = (*self.open_tags, tag)
            self.cells += tag == "td"

        def handle_endtag(self, tag):
            assert self.open_tags[-1] == tag
            self.open_tags = self.open_tags[:-1]

    reader = Reader()
    reader.feed(REPORT._repr_html_())
    assert reader.open_tags == ()
    assert reader.cells == 16
    assert "column &lt;b&gt; &amp; co" in REPORT._repr_html_()


@pytest.mark.parametrize("background", ["white", "#111111"])
def test_verdicts_are_legible_on_light_and_dark_pages(background):
    def luminance(colour):
        linear = [v / 12.92 if v <= 0.04 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(colour)]
        return np.dot(linear, [0.2126, 0.7152, 0.0722])

    colours = re.findall(r"color:(#\w+)", REPORT._repr_html_())
    assert len(set(colours)) == 4
    for colour in colours:
        darker, lighter = sorted([luminance(colour), luminance(background)])
        assert (lighter + 0.05) / (darker + 0.05) >= 3  # what WCAG asks of bold text


@pytest.mark.parametrize("given", [True, False])
def test_plot_has_a_bar_for_each_check(given):
    ax = plt.subplots()[1] if given else None
    display = REPORT.plot(ax=ax)
    drawn = display.ax_
    assert ax is None or drawn is ax
    assert display.figure_ is drawn.figure
    assert [tick.get_text() for tick in drawn.get_yticklabels()] == [
        finding.check for finding in REPORT.findings
    ]
    assert [bar.get_width() for bar in drawn.patches][:2] == [0.9, 0.03]
    shown = [text.get_text() for text in drawn.get_legend().get_texts()]
    assert shown == ["leak", "suspect", "ok", "not checked"]
    plt.close("all")
