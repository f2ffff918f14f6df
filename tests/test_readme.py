import re
from pathlib import Path

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
    for many, few in (("epochs=20", "epochs=2"), ("cv=3", "cv=2")):
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
        ("learn_from_a_teacher", r"distill .* 0\.051 0\.042 0\.061", "adds 0.051, by distillation"),
    ],
)
def test_the_readme_gives_the_numbers_of_stored_runs(run, printed, claimed):
    assert claimed in TEXT
    assert re.search(printed, (ROOT / "docs" / "runs" / f"{run}.txt").read_text(encoding="utf-8"))
