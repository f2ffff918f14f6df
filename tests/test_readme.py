import re
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md")


def snippets(text):
    """Every python block, with the number of the line before it."""
    for match in re.finditer(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        yield text[: match.start()].count("\n") + 1, match.group(1)


def test_snippets_run_in_order(tmp_path, monkeypatch):
    """Those of the pages in docs/ run in `make test-docs`."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "readme"}
    found = list(snippets(TEXT))
    assert len(found) == 2
    # Few epochs and folds: `make dist` runs this snippet, in the quick start, as it is.
    for many, few in (
        ("epochs=20", "epochs=2"),
        ("cv=3", "cv=2"),
        ("[1e-3, 3e-3]", "[1e-3]"),
        ("downstream=", "cv=2, downstream="),
    ):
        assert many in found[0][1]
        found[0] = found[0][0], found[0][1].replace(many, few)
    for line, source in found:
        # Blank lines put before the snippet make a traceback name the line of README.md.
        exec(compile("\n" * line + source, str(ROOT / "README.md"), "exec"), namespace)
    assert namespace["clf"].score(namespace["X"], namespace["y"]) > 0.9


def test_the_first_snippet_is_the_quick_start():
    """The README shows the body of examples/quick_start.py, word for word."""
    _, source = next(snippets(TEXT))
    assert source in (ROOT / "examples" / "quick_start.py").read_text(encoding="utf-8")


def test_the_readme_is_short():
    assert len(TEXT.splitlines()) <= 110


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_exist(page):
    path = ROOT / page
    links = re.findall(r"\]\((?!https?://)([^)\s]+)", path.read_text(encoding="utf-8"))
    missing = []
    for link in links:
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            missing.append(link)
    assert missing == []


def anchors(path):
    """Anchors of the headings of a page in Markdown."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    ("run", "printed", "claimed"),
    [
        ("several_inputs", r"both, one input +0\.970 ", "0.970"),
        ("several_inputs", r"both, separate inputs +0\.975 ", "0.975"),
        ("several_inputs", r"picture +0\.831 ", "the picture alone 0.831"),
        ("several_inputs", r"word +0\.874 ", "the word alone 0.874"),
        ("several_inputs", r"adding the word: .*: more than noise", "more than noise"),
        ("learn_from_a_teacher", r"distill .* 0\.052 0\.042 0\.062", "adds 0.052, by distillation"),
    ],
)
def test_the_readme_gives_the_numbers_of_stored_runs(run, printed, claimed):
    assert claimed in TEXT
    assert re.search(printed, (ROOT / "docs" / "runs" / f"{run}.txt").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def losses():
    """Log loss, or RMSE, of each contestant: means over three splits, one row for each table."""
    runs = pd.read_json(ROOT / "benchmarks" / "quality.json")
    runs["loss"] = runs["rmse"].fillna(runs["log_loss"])
    stacks = runs[runs["contestant"] == "skstack stack"]
    for part in ("boosting", "network"):
        parts = stacks["parts"].map(lambda parts, part=part: parts[part])
        loss = parts.map(lambda scores: scores.get("rmse", scores.get("log_loss")))
        runs = pd.concat([runs, stacks.assign(contestant=f"its {part}", loss=loss)])
    runs = runs.groupby(["contestant", "table"]).filter(lambda splits: len(splits) == 3)
    return runs.pivot_table(index="table", columns="contestant", values="loss")


def test_the_readme_counts_tables_as_they_were_scored(losses):
    assert len(losses) == 12

    def better(name, *others):
        return (losses[name] < losses[list(others)].min(axis=1)).sum()

    both = better("skstack stack", "its boosting", "its network")
    than_catboost = better("skstack stack", "CatBoost")
    assert f"a lower loss than both on {both} of 12 tables" in TEXT
    assert f"and than CatBoost on {than_catboost} " in TEXT
    alone = [better("skstack TabM", name) for name in ("HistGradientBoosting", "CatBoost")]
    assert "beats HistGradientBoosting on {}, and CatBoost on {}.".format(*alone) in TEXT


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ("skstack TabM | HistGradientBoosting | LightGBM", {}),
        (
            "stack | its boosting | its network | standard errors",
            {"stack": "skstack stack", "stack of `MLP`": "skstack stack of MLP and boosting"},
        ),
    ],
)
def test_tables_of_scores_are_those_that_were_stored(columns, names, losses):
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    (table,) = re.findall(rf"^\| table \| {re.escape(columns)}.*?\n\n", text, re.M | re.S)
    header, _, *rows, last = [
        [cell.strip("* ") for cell in line.strip("|").split("|")] for line in table.split("\n")[:-2]
    ]
    contestants = [names.get(name, name) for name in header[1:]]
    known = [name for name in contestants if name in losses]
    assert {row[0] for row in rows} == set(losses.index)
    for name, *values in rows:
        shown = dict(zip(contestants, values, strict=True))
        for contestant in known:
            assert shown[contestant] == f"{losses.loc[name, contestant]:.5g}"
    ranks = losses[known].rank(axis=1).mean()
    shown = dict(zip(contestants, last[1:], strict=True))
    assert {name: f"{ranks[name]:.2f}" for name in known} == {name: shown[name] for name in known}
