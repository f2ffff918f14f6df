"""The shape of the house: which room may look into which, and what stays outside."""

import ast
import functools
import graphlib
import subprocess
import sys
from pathlib import Path

from _models import FIT, SMALL, binary

PACKAGE = Path(__file__).resolve().parents[1] / "skstack"
MODULES = sorted(PACKAGE.rglob("*.py"))

# The rooms in the data's way. A room may import those before it, and none behind it.
ROOMS = (
    "_base",
    "_model_files",
    "preprocessing",
    "_splits",
    "_training",
    "networks",
    "_graph",
    "losses",
    "_estimators",
    "_features",
    "ensemble",
    "_stack",
    "_persistence",
    "inspection",
    "_scikeras",
)
FRAMEWORKS = ("keras", "tensorflow")
# Rooms that nobody enters before Keras is needed anyway.
KERAS_ROOMS = {"_training", "_graph", "losses"}
KERAS_FILES = {"skstack._stack.joint_network"}
NEIGHBOURS = ("imblearn", "keras", "sklearn", "tensorflow")


@functools.cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path, nodes=None):
    """Dotted names of all that `path` imports: "skstack._base.sklearn.n_rows"."""
    package = list(path.relative_to(PACKAGE.parent).parts[:-1])
    for node in nodes if nodes is not None else ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def room(dotted):
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else None


@functools.cache
def import_graph():
    """Names of our modules that each of them imports, in functions too."""
    by_module = {module_name(path): set(imported(path)) for path in MODULES}
    return {
        module: {
            name if name in by_module else name.rpartition(".")[0]
            for name in names
            if name.split(".")[0] == "skstack"
        }
        for module, names in by_module.items()
    }


def ids(path):
    return str(path.relative_to(PACKAGE))


def test_every_folder_is_in_the_import_order():
    present = {p.stem if p.is_file() else p.name for p in PACKAGE.iterdir()}
    assert present - {"__init__", "__pycache__", "py"} == set(ROOMS)


def test_imports_point_upwards_only():
    upward = [
        f"{module} imports {name}"
        for module, names in import_graph().items()
        for name in names
        if room(module) and room(name) and ROOMS.index(room(name)) > ROOMS.index(room(module))
    ]
    assert upward == []


def test_there_are_no_import_cycles():
    inside = {module: names for module, names in import_graph().items() if room(module)}
    graphlib.TopologicalSorter(inside).prepare()  # raises CycleError


def test_keras_is_imported_when_it_is_needed():
    """At the top of a module only the rooms of Keras import it; all others do so in functions."""
    early = {}
    for path in MODULES:
        nodes = [node for node in outside_functions(tree(path)) if not type_checking(node)]
        early[module_name(path)] = list(imported(path, nodes))
    loads = {m for m, names in early.items() if any(n.split(".")[0] in FRAMEWORKS for n in names)}
    while True:  # who imports such a module at the top loads Keras, too
        more = {
            module
            for module, names in early.items()
            if any(name in loads or name.rpartition(".")[0] in loads for name in names)
        }
        if more <= loads:
            break
        loads |= more
    assert [m for m in loads - KERAS_FILES if room(m) not in KERAS_ROOMS] == []


def outside_functions(node):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and type_checking(child):
            continue
        yield child
        yield from outside_functions(child)


def type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def leftmost(node):
    """The name that an expression begins with, if it does."""
    while not isinstance(node, ast.Name):
        if not isinstance(node, ast.Attribute | ast.Call | ast.Subscript):
            return None
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id


def test_private_names_of_dependencies_are_used_in_one_file():
    found = []
    for path in MODULES:
        if path == PACKAGE / "_base" / "sklearn.py":
            continue
        dotted = list(imported(path))
        dotted += [
            ast.unparse(node)
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Attribute) and leftmost(node) in NEIGHBOURS
        ]
        private = [
            name
            for name in dotted
            if (parts := name.split("."))[0] in NEIGHBOURS
            and any(p.startswith("_") and not p.endswith("__") for p in parts[1:])
        ]
        inner = [name for name in dotted if name.startswith(("keras.src", "tensorflow.python"))]
        found += [f"{ids(path)}: {name}" for name in private + inner]
    assert found == []


def test_there_is_no_utils_module():
    assert [ids(p) for p in PACKAGE.rglob("*") if p.stem.strip("_") in ("util", "utils")] == []


def test_inheritance_is_at_most_two_classes_deep():
    bases = {}
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [ast.unparse(base).split(".")[-1] for base in node.bases]

    def depth(name):
        return 1 + max((depth(base) for base in bases[name] if base in bases), default=0)

    assert {name: depth(name) for name in bases if depth(name) > 2} == {}


def test_estimators_are_made_without_tensorflow():
    code = """
import sys, skstack
from sklearn.base import clone
network = skstack.KerasClassifier(skstack.networks.TabM(), epochs=2)
stack = skstack.StackedKerasClassifier([("a", network)], downstream=network)
clone(stack)
print(sorted({'keras', 'tensorflow'} & set(sys.modules)))
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_a_stack_validates_x_once_in_a_prediction(monkeypatch):
    """Once as X; its branches get columns of it. What networks read besides are other tables."""
    from skstack import KerasClassifier, StackedKerasClassifier
    from skstack._features import transformer
    from skstack._stack import base

    X, y = binary()
    network = KerasClassifier(SMALL, **FIT)
    stack = StackedKerasClassifier([("risk", network)], downstream=network, cv=2).fit(X, y)
    read = []
    for module in (base, transformer):

        def counted(estimator, X, *, reset, original=module.read_table):
            read.append(type(estimator).__name__)
            return original(estimator, X, reset=reset)

        monkeypatch.setattr(module, "read_table", counted)
    stack.predict(X)
    assert read == ["StackedKerasClassifier"]
