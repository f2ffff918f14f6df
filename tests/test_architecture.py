"""The shape of the house: which room may look into which, and what stays outside."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "skstack"
MODULES = sorted(PACKAGE.rglob("*.py"))

# What each room may import. What is not named here may not be imported.
MAY_IMPORT = {
    "_one_fit": set(),
    "_at_once": {"_one_fit"},
    "_streams": set(),
    "_checks": set(),
    "_diagram": {"_checks", "networks"},
    "_parameters": {"_checks", "networks"},
    "_model_files": set(),
    "training": {"_checks"},
    "networks": {"_checks", "_model_files", "training"},
    "stages": {"_checks", "_one_fit", "_parameters", "networks", "training"},
}
# Above these, imports run down the stairs: a room may import all those on the floors below it.
FLOORS = (
    set(MAY_IMPORT),
    {"_network_estimator"},
    {"_autoencoder", "_classifier", "_regressor"},
    {"_routing"},
    {"_extraction"},
    {"_transformer"},
    {"_stack_parts"},
    {"_stack_routing"},
    {"_stack"},
    {"_stacked"},
)
# Rooms that stand beside the staircase: the lowest floor may not import them.
SIDE_ROOMS = {"_export", "_fine_tune", "_persistence", "_scikeras"}
SIDE_ROOMS |= {"inspection", "losses", "preprocessing", "shipping"}
FRAMEWORKS = ("keras", "tensorflow")
# Rooms that nobody enters before Keras is needed anyway.
KERAS_ROOMS = {"training", "losses", "shipping"}
NEIGHBOURS = ("imblearn", "keras", "sklearn", "tensorflow")


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_name(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path, nodes=None):
    """Dotted names of all that `path` imports: "skstack._checks.check_n" for a `from` import."""
    package = list(path.relative_to(PACKAGE.parent).parts[:-1])
    for node in nodes if nodes is not None else ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def rooms(path):
    """The rooms of ours that `path` looks into, its own left out."""
    own = room(module_name(path))
    names = {room(name) for name in imported(path) if name.split(".")[0] == "skstack"}
    return own, {name for name in names if name and name != own}


def room(dotted):
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else None


def ids(path):
    return str(path.relative_to(PACKAGE))


each_module = pytest.mark.parametrize("path", MODULES, ids=ids)


def test_every_room_has_its_place():
    present = {p.stem if p.is_file() else p.name for p in PACKAGE.iterdir()}
    present -= {"__init__", "__pycache__", "py"}
    known = set().union(SIDE_ROOMS, *FLOORS)
    assert present <= known, "say at the top of this file what the new module may import"


def test_nobody_is_allowed_to_import_in_a_circle():
    graphlib.TopologicalSorter(MAY_IMPORT).prepare()  # raises CycleError


@each_module
def test_imports_run_one_way(path):
    own, names = rooms(path)
    if own is None or own in SIDE_ROOMS:  # the front door, and rooms that may look everywhere
        return
    if own in MAY_IMPORT:
        allowed = MAY_IMPORT[own]
    else:
        floor = next(i for i, names_here in enumerate(FLOORS) if own in names_here)
        allowed = set().union(SIDE_ROOMS, *FLOORS[:floor])
    assert names <= allowed


@each_module
def test_packages_are_entered_by_their_front_door(path):
    """From outside, `skstack.training`; never `skstack.training._loop`."""
    own = room(module_name(path))
    packages = {p.name for p in PACKAGE.iterdir() if p.is_dir()}
    inner = [
        name
        for name in imported(path)
        if (parts := name.split("."))[0] == "skstack"
        and len(parts) > 2
        and parts[1] in packages
        and parts[1] != own
        and (len(parts) > 3 or parts[2].startswith("_"))
    ]
    assert inner == []


@each_module
def test_keras_is_imported_when_it_is_needed(path):
    """At the top of a module only the rooms of Keras import it; all others do so in functions."""
    if room(module_name(path)) in KERAS_ROOMS:
        return
    at_import = [node for node in outside_functions(tree(path)) if not type_checking(node)]
    names = list(imported(path, at_import))
    assert [name for name in names if name.split(".")[0] in FRAMEWORKS] == []
    assert [name for name in names if room(name) in KERAS_ROOMS and name[:7] == "skstack"] == []


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


@each_module
def test_private_names_of_neighbours_stay_behind_one_door(path):
    if path.name == "_checks.py" and path.parent == PACKAGE:
        return
    dotted = list(imported(path))
    dotted += [
        ast.unparse(node) for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)
    ]
    private = [
        name
        for name in dotted
        if (parts := name.split("."))[0] in NEIGHBOURS
        and any(p.startswith("_") and not p.endswith("__") for p in parts[1:])
    ]
    inner = [name for name in dotted if name.startswith(("keras.src", "tensorflow.python"))]
    assert private + inner == []


def test_there_is_no_drawer():
    assert [ids(p) for p in PACKAGE.rglob("*") if p.stem.strip("_") in ("util", "utils")] == []


def test_inheritance_is_at_most_two_of_our_own_classes_deep():
    bases = {}
    for path in MODULES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [ast.unparse(base).split(".")[-1] for base in node.bases]

    def depth(name):
        return 1 + max((depth(base) for base in bases[name] if base in bases), default=0)

    assert {name: depth(name) for name in bases if depth(name) > 2} == {}


def test_importing_skstack_does_not_import_tensorflow():
    code = "import sys, skstack; print(sorted({'keras', 'tensorflow'} & set(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
