import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def snippets(text):
    """Every python block, with the number of the line before it."""
    for match in re.finditer(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        yield text[: match.start()].count("\n") + 1, match.group(1)


def test_snippets_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "readme"}
    found = list(snippets((ROOT / "README.md").read_text(encoding="utf-8")))
    assert found
    for line, source in found:
        # Blank lines put before the snippet make a traceback name the line of README.md.
        exec(compile("\n" * line + source, str(ROOT / "README.md"), "exec"), namespace)


def test_the_first_snippet_is_the_quick_start():
    """The README shows the body of examples/quick_start.py, word for word."""
    _, source = next(snippets((ROOT / "README.md").read_text(encoding="utf-8")))
    assert source in (ROOT / "examples" / "quick_start.py").read_text(encoding="utf-8")


def test_relative_links_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", text)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
