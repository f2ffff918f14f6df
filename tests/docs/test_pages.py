"""Every block of code on the pages of docs/ runs (`make test-docs`)."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(DOCS)): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
}
WITH_CODE = [page for page, text in PAGES.items() if "```python\n" in text]


# What pages need that `make test-docs` does not install.
NEEDS = {"user_guide/beyond_one_machine.md": ("distributed", "ray")}


def snippets(text):
    """Every python block, with the number of the line before it."""
    for match in re.finditer(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        yield text[: match.start()].count("\n") + 1, match.group(1)


def test_pages_have_code():
    assert {"index.md", "tutorial.md", "user_guide/stacking.md"} < set(WITH_CODE)


@pytest.mark.parametrize("page", WITH_CODE)
def test_snippets_run_in_order(page, tmp_path, monkeypatch):
    for package in NEEDS.get(page, ()):
        pytest.importorskip(package, reason=f"{package} is missing: run `make test-engines` first")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")  # pages are read in a checkout
    namespace = {"__name__": "page"}
    with warnings.catch_warnings():
        warnings.resetwarnings()  # those of a user, who sees warnings
        for line, source in snippets(PAGES[page]):
            # Blank lines put before the snippet make a traceback name the line of the page.
            exec(compile("\n" * line + source, str(DOCS / page), "exec"), namespace)
    plt.close("all")
    if page == "tutorial.md":  # it names the new column
        assert f"`{namespace['stack'].get_feature_names_out()[0]}`" in PAGES[page]
    if page == "user_guide/columns.md":  # it shows the warning
        assert "'income' (fitted on" in str(namespace["caught"][0].message)
    if page == "user_guide/audit.md":  # this page shows what its first block prints
        assert f"prints `{namespace['report'].leaks}`" in PAGES[page]
        assert f"{len(namespace['report'].findings)} checks" in PAGES[page]


def test_the_plan_is_what_the_script_prints():
    path = ROOT / "benchmarks" / "plan.py"
    printed = subprocess.run([sys.executable, path], capture_output=True, check=True, text=True)
    lines = printed.stdout.splitlines()
    assert len(lines) > 5
    assert "\n".join(lines) in PAGES["user_guide/beyond_one_machine.md"]
