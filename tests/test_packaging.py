"""What pyproject.toml says of other packages, held against what the code imports."""

import ast
import itertools
import re
import runpy
import sys
import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {
    extra: [Requirement(text) for text in texts if not text.startswith(PROJECT["name"])]
    for extra, texts in PROJECT["optional-dependencies"].items()
}
NEEDED = [Requirement(text) for text in PROJECT["dependencies"]]
EVERY = [*NEEDED, *itertools.chain(*EXTRAS.values())]
# Installed by `make docs` and `make test-engines`, and not by `make install`.
APART = {"docs", "dask", "ray"}
INSTALLED = [*NEEDED, *itertools.chain(*(EXTRAS[extra] for extra in EXTRAS if extra not in APART))]
DISTRIBUTIONS = packages_distributions()


def names(requirements):
    return {canonicalize_name(requirement.name) for requirement in requirements}


def foreign_imports(text):
    """Distributions that a module imports, each with the `try` statements around the import."""

    def visit(node, tries):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module]
        for top in {module.partition(".")[0] for module in modules}:
            if top not in sys.stdlib_module_names and top != PROJECT["name"]:
                distribution = DISTRIBUTIONS.get(top, [top])[0]
                yield canonicalize_name(distribution), tries
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):  # holds no import: most of the nodes, and of the time
                continue
            guarded = isinstance(node, ast.Try) and child in node.body
            yield from visit(child, [*tries, node] if guarded else tries)

    return list(visit(ast.parse(text), []))


def unguarded(text):
    """Imports of an extra's packages that do not say, where they fail, what to install."""
    extra_of = {
        name: extra
        for extra, requirements in EXTRAS.items()
        if extra != "dev"
        for name in names(requirements)
    }
    return [
        name
        for name, tries in foreign_imports(text)
        if name in extra_of
        and not any(
            f"{PROJECT['name']}[{extra_of[name]}]" in ast.unparse(handler)
            and "ImportError" in ast.unparse(handler)
            for statement in tries
            for handler in statement.handlers
        )
    ]


def modules(*folders):
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(path):
    return {name for name, _ in foreign_imports(path.read_text(encoding="utf-8"))}


def test_the_library_imports_what_it_declares():
    users = names(EVERY) - (names(EXTRAS["dev"]) - names(NEEDED))
    others = {path: imported(path) - users for path in modules("skstack")}
    assert len(others) > 30
    assert {path: names for path, names in others.items() if names} == {}


def test_other_folders_import_only_what_dev_installs():
    # packaging comes with pytest; a benchmark takes its cases from the tests; peers is theirs.
    known = names(EVERY) | {"packaging", "peers", "tests"}
    # Those of benchmarks/quality.py are installed apart.
    known |= {"catboost", "lightgbm", "pytabkit", "xgboost"}
    # The modules that tests of every folder share (`pythonpath` in pyproject.toml).
    shared = {canonicalize_name(path.stem) for path in (ROOT / "tests").glob("_*.py")}
    others = {}
    for path in modules("tests", "examples", "benchmarks"):
        beside = {canonicalize_name(sibling.stem) for sibling in path.parent.glob("*.py")}
        others[path] = imported(path) - known - beside
        if path.is_relative_to(ROOT / "tests"):
            others[path] -= shared
    assert len(others) > 30
    assert {path: names for path, names in others.items() if names} == {}


def test_a_missing_extra_is_named():
    paths = modules("skstack")
    others = {path: unguarded(path.read_text(encoding="utf-8")) for path in paths}
    assert {path: names for path, names in others.items() if names} == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import matplotlib", ["matplotlib"]),
        ("def plot():\n    from matplotlib import pyplot", ["matplotlib"]),
        (
            "try:\n    import matplotlib.pyplot\nexcept ImportError as error:\n"
            "    raise ImportError('pip install matplotlib') from error",
            ["matplotlib"],
        ),
        (
            "try:\n    import matplotlib.pyplot\nexcept ImportError as error:\n"
            "    raise ImportError(\"pip install 'skstack[plot]'\") from error",
            [],
        ),
        ("import numpy", []),
    ],
)
def test_imports_of_extras_are_found(text, found):
    assert unguarded(text) == found


def test_every_requirement_has_a_lower_bound_that_the_floor_installs():
    floors = runpy.run_path(str(ROOT / "tests" / "floor.py"))["floors"]()
    assert {canonicalize_name(name) for name in floors} == names(EVERY)
    for requirement in EVERY:
        lowest = floors[requirement.name]
        assert str(requirement.specifier).count(f">={lowest}") == 1
        assert requirement.specifier.contains(lowest)


@pytest.mark.parametrize("requirement", INSTALLED, ids=lambda requirement: requirement.name)
def test_installed_versions_are_the_requested_ones(requirement):
    assert requirement.specifier.contains(version(requirement.name), prereleases=True)


def test_the_oldest_python_is_the_same_everywhere():
    oldest = re.fullmatch(r">=(\d+)\.(\d+)", PROJECT["requires-python"]).groups()
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
    assert ruff["target-version"] == "py" + "".join(oldest)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"FLOOR_PYTHON ?= python{'.'.join(oldest)}\n" in makefile
    assert f"({', '.join(oldest)}) <= sys.version_info" in makefile
