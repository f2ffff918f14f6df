"""Runs the tests of an installed package with estimators of ours in the place of its own."""

import importlib
import importlib.util
import re
import sys
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from unittest import mock

import pytest

UNUSED = "none of its estimators is replaced"
"""Why most tests are left out: they would run the peer's own code only."""

FLOAT32 = {"rtol": 1e-4, "atol": 1e-6}
"""How exactly scikit-learn's `assert_allclose` compares float32, for what is computed from it."""

_WRITTEN_FOR = {"sklearn": ("scikit-learn", (1, 9)), "imblearn": ("imbalanced-learn", (0, 14))}


def load(module, replaced):
    """Execute a peer's test module once more, with ours under the names that it imports.

    The parameters of its tests are made when it is executed, so that replacing names in the module
    afterwards would come too late for them.
    """
    original = importlib.import_module(module)
    name = f"{module}_with_{'_'.join(sorted(cls.__name__ for cls in replaced.values()))}"
    spec = importlib.util.spec_from_file_location(name, original.__file__)
    copy = importlib.util.module_from_spec(spec)
    sys.modules[name] = copy  # pickles of its classes look there
    with ExitStack() as stack:
        for path, cls in replaced.items():
            package, _, attribute = path.rpartition(".")
            place = importlib.import_module(package)
            stack.enter_context(mock.patch.object(place, attribute, cls))
        spec.loader.exec_module(copy)
    for compare in ("assert_allclose", "assert_allclose_dense_sparse"):
        if hasattr(copy, compare):
            setattr(copy, compare, partial(getattr(copy, compare), **FLOAT32))
    return copy


def _listed(mark):
    """A mark of pytest with lists in the place of iterators, of which pytest warns."""
    args = [list(each) if hasattr(each, "__next__") else each for each in mark.args]
    return getattr(pytest.mark, mark.name)(*args, **mark.kwargs).mark


class Suite:
    """The tests of one module of a peer.

    Parameters
    ----------
    module : str
        The peer's test module.

    replaced : dict of str to class
        Ours, by the name that the module imports, such as ``"sklearn.svm.SVC"``.

    left_out : dict of str to str
        Why a test is left out. ``test_name`` is all of a test, ``test_name[id]`` one of its cases,
        and ``*`` is any text: ``test_name[*lbfgs*]``.
    """

    def __init__(self, module, replaced, left_out):
        self.module = module
        self.replaced = replaced
        self.left_out = left_out
        self.loaded = load(module, replaced)
        self.tests = {
            name: value
            for name, value in vars(self.loaded).items()
            if name.startswith("test_") and callable(value)
        }
        for test in self.tests.values():
            if hasattr(test, "pytestmark"):
                test.pytestmark = [_listed(mark) for mark in test.pytestmark]

    def names(self):
        """What the test module of ours defines: the tests, the fixtures that they use, marks."""
        fixtures = {
            name: value
            for name, value in vars(self.loaded).items()
            if hasattr(value, "_fixture_function") or hasattr(value, "_pytestfixturefunction")
        }
        names = {**fixtures, **self.tests, "SUITE": self, "test_table": _test_table}
        if hasattr(self.loaded, "pytestmark"):
            names["pytestmark"] = self.loaded.pytestmark
        return names

    def leaves_out(self, case):
        """Whether the table names this case of a test."""
        return any(_names(name, case) for name in self.left_out)

    def unknown(self, collected):
        """Names in the table that the installed version does not have."""
        if {name.partition("[")[0] for name in collected} >= set(self.tests):
            return {
                name for name in self.left_out if not any(_names(name, each) for each in collected)
            }
        return {name for name in self.left_out if name.partition("[")[0] not in self.tests}


def _names(name, case):
    """Whether a name in a table stands for this case of a test."""
    if "[" not in name:
        return name == case.partition("[")[0]
    return re.fullmatch(re.escape(name).replace(r"\*", ".*"), case, re.DOTALL) is not None


def _test_table(request):
    """The table names nothing that does not exist, so that it does not rot."""
    suite = request.module.SUITE
    package, floor = _WRITTEN_FOR[suite.module.partition(".")[0]]
    installed = tuple(int(part) for part in re.findall(r"\d+", version(package))[:2])
    unknown = suite.unknown(request.module.COLLECTED)
    if unknown and installed < floor:
        pytest.skip(f"{package} {version(package)} lacks {sorted(unknown)}")
    assert not unknown
