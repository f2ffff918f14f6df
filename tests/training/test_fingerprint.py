"""Equal fingerprints mean equal functions."""

import functools
import math
import sys
import types

import keras
import numpy as np
import pytest

from skstack._training.fingerprint import Unknown, fingerprint, fingerprint_value

FACTOR = 2


def source(text, name="f", **names):
    """Compile a function in a namespace of its own."""
    namespace = {"np": np, "keras": keras, "__name__": "somewhere", **names}
    exec(text, namespace)
    return namespace[name]


SAME = {
    "written twice": ("def f(x): return x + 1",) * 2,
    "another line": ("def f(x): return x + 1", "\n\n\ndef f(x):\n    return x + 1  # a comment"),
}
DIFFERENT = {
    "constant": ("def f(x): return x + 1", "def f(x): return x + 2"),
    "kind of constant": ("def f(x): return x + 1", "def f(x): return x + 1.0"),
    "sign of zero": ("def f(x): return x + 0.0", "def f(x): return x + -0.0"),
    "operator": ("def f(x): return x + 1", "def f(x): return x - 1"),
    "default": ("def f(x=1): return x", "def f(x=2): return x"),
    "keyword default": ("def f(*, x=1): return x", "def f(*, x=2): return x"),
    "global": ("a = 1\ndef f(x): return x + a", "a = 2\ndef f(x): return x + a"),
    "global's global": (
        "a = 1\ndef g(x): return a\ndef f(x): return g(x)",
        "a = 2\ndef g(x): return a\ndef f(x): return g(x)",
    ),
    "inner function": (
        "def f(x):\n def g(): return x\n return g()",
        "def f(x):\n def g(): return -x\n return g()",
    ),
    "inner function's global": (
        "a = 1\ndef f(x):\n def g(): return a\n return g()",
        "a = 2\ndef f(x):\n def g(): return a\n return g()",
    ),
    "library function": ("def f(x): return np.sin(x)", "def f(x): return np.cos(x)"),
    "array": (
        "a = np.zeros(3)\ndef f(x): return a",
        "a = np.ones(3)\ndef f(x): return a",
    ),
    "dtype of an array": (
        "a = np.zeros(2, 'f4')\ndef f(x): return a",
        "a = np.zeros(2, 'i4')\ndef f(x): return a",
    ),
    "class": (
        "class C:\n def g(self): return 1\ndef f(x): return C()",
        "class C:\n def g(self): return 2\ndef f(x): return C()",
    ),
    "base class": (
        "class B:\n a = 1\nclass C(B): pass\ndef f(x): return C()",
        "class B:\n a = 2\nclass C(B): pass\ndef f(x): return C()",
    ),
    "shadowed builtin": ("def f(x): return len(x)", "len = abs\ndef f(x): return len(x)"),
}


@pytest.mark.parametrize("pair", SAME.values(), ids=SAME)
def test_same(pair):
    assert fingerprint(source(pair[0])) == fingerprint(source(pair[1]))


@pytest.mark.parametrize("pair", DIFFERENT.values(), ids=DIFFERENT)
def test_different(pair):
    first, second = (fingerprint(source(text)) for text in pair)
    assert hash(first) is not None
    assert first != second


def test_closures_and_partials():
    def scaled(by):
        return lambda x: x * by

    assert fingerprint(scaled(2)) == fingerprint(scaled(2))
    assert fingerprint(scaled(2)) != fingerprint(scaled(3))
    assert fingerprint(scaled(scaled(2))) != fingerprint(scaled(scaled(3)))
    part = functools.partial
    assert fingerprint(part(pow, 2)) == fingerprint(part(pow, 2))
    assert fingerprint(part(pow, 2)) != fingerprint(part(pow, 3))


def test_a_global_that_changes_changes_the_fingerprint(monkeypatch):
    def f(x):
        return x * FACTOR

    before = fingerprint(f)
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert fingerprint(f) != before


@pytest.fixture
def settings(monkeypatch):
    """A package of the user's, whose module ``settings`` holds a constant."""
    package, module = types.ModuleType("mine_"), types.ModuleType("mine_.settings")
    package.settings, module.package, module.ALPHA = module, package, 1.0
    monkeypatch.setitem(sys.modules, "mine_", package)
    monkeypatch.setitem(sys.modules, "mine_.settings", module)
    return module


USES = {
    "import": "def f(x):\n import mine_.settings as s\n return x * s.ALPHA",
    "import of a package": "def f(x):\n import mine_.settings\n return x * mine_.settings.ALPHA",
    "from": "def f(x):\n from mine_.settings import ALPHA\n return x * ALPHA",
    "from a package": "def f(x):\n from mine_ import settings as s\n return x * s.ALPHA",
    "relative": "def f(x):\n from .settings import ALPHA\n return x * ALPHA",
    "in a function": "def f(x):\n def g():\n  from mine_.settings import ALPHA\n  return ALPHA\n"
    " return g()",
    "in a method": "class f:\n def g(self):\n  from mine_.settings import ALPHA\n  return ALPHA",
    "submodule": "import mine_\ndef f(x): return x * mine_.settings.ALPHA",
    "default": "import mine_\ndef f(x, s=mine_.settings): return x * s.ALPHA",
    "closure": "import mine_\ndef m(s):\n return lambda x: s.ALPHA\nf = m(mine_.settings)",
    "partial": "import functools, mine_\ndef g(s, x): return x * s.ALPHA\n"
    "f = functools.partial(g, mine_.settings)",
    "passed on": "import mine_\ndef g(s): return s.ALPHA\ndef f(x): return g(mine_.settings)",
    "in a class": "import mine_\nclass C:\n s = mine_.settings\ndef f(x): return C.s.ALPHA",
}


@pytest.mark.parametrize("text", USES.values(), ids=USES)
def test_constants_of_modules_are_read(text, settings):
    first, again = (fingerprint(source(text, __package__="mine_")) for _ in range(2))
    settings.ALPHA = 2.0
    assert first == again != fingerprint(source(text, __package__="mine_"))


@pytest.mark.parametrize("name", ["json", "pandas", "not_there_", "mine_.not_there"])
def test_modules_of_libraries_are_named_and_so_are_those_not_imported_yet(name):
    text = f"def f(x):\n import {name}\n return x"
    assert fingerprint(source(text)) == fingerprint(source(text))


def test_a_module_that_was_imported_since_has_another_fingerprint(monkeypatch):
    text = "def f(x):\n import later_\n return x"
    before = fingerprint(source(text))
    monkeypatch.setitem(sys.modules, "later_", types.ModuleType("later_"))
    assert fingerprint(source(text)) != before


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: functools.partial(f, 1)])
def test_attributes_of_functions_are_read(wrap):
    text = "def f(x): return x * f.alpha"
    plain, one, two = (wrap(source(text)) for _ in range(3))
    one.alpha, two.alpha = 1.0, 2.0
    assert len({fingerprint(plain), fingerprint(one), fingerprint(two)}) == 3
    two.alpha = 1.0
    assert fingerprint(one) == fingerprint(two)


@pytest.mark.parametrize("kind", ["IntegerLookup", "StringLookup", "TextVectorization"])
def test_layers_with_a_vocabulary_are_unknown(kind):
    layer = getattr(keras.layers, kind)()
    layer.adapt(np.array([1, 2] if kind == "IntegerLookup" else ["a", "b"]))
    with pytest.raises(Unknown, match="vocabulary"):
        fingerprint(lambda x: layer(x))


def test_recursion_ends():
    source_text = "def g(x): return f(x)\ndef f(x): return g(x) if x else 0"
    assert fingerprint(source(source_text)) == fingerprint(source(source_text))


def test_a_wrapper_differs_from_the_wrapped_function():
    def wrapped(by):
        @functools.wraps(np.mean)
        def mean(x):
            return np.mean(x) * by

        return mean

    assert fingerprint(wrapped(1)) != fingerprint(wrapped(2))
    assert fingerprint(wrapped(1)) != fingerprint(np.mean)


UNKNOWN = {
    "object": object(),
    "array of objects": np.array([object()]),
    "model": keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]),
    "iterator": iter([]),
    "generator": np.random.default_rng(0),
}


@pytest.mark.parametrize("thing", UNKNOWN.values(), ids=UNKNOWN)
def test_unknown(thing):
    with pytest.raises(Unknown):
        fingerprint_value(thing)
    with pytest.raises(Unknown):
        fingerprint(lambda: thing)


@pytest.mark.parametrize("function", [np.mean, np.exp, keras.ops.relu, len, math.sqrt, keras.Input])
def test_functions_of_libraries_are_identified_by_name(function):
    assert fingerprint(function) == fingerprint(function)
    assert len(repr(fingerprint(function))) < 200


def named_initializer(shape, dtype=None):
    return keras.ops.zeros(shape, dtype)


class Mine(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return y_true


def test_keras_objects():
    adam, l2 = keras.optimizers.Adam, keras.regularizers.L2
    schedule = keras.optimizers.schedules.ExponentialDecay
    assert fingerprint_value(adam(0.1)) == fingerprint_value(adam(0.1))
    assert fingerprint_value(adam(0.1)) != fingerprint_value(adam(0.2))
    assert fingerprint_value(adam(schedule(0.1, 2, 0.5))) != fingerprint_value(
        adam(schedule(0.1, 3, 0.5))
    )
    assert fingerprint_value(l2(0.1)) != fingerprint_value(l2(0.2))
    assert fingerprint_value(l2(0.1)) != fingerprint_value(keras.regularizers.L1(0.1))
    with pytest.raises(Unknown):
        fingerprint_value(Mine())
    with pytest.raises(Unknown):
        fingerprint_value(keras.layers.Dense(1, kernel_initializer=named_initializer))


VALUES = (1, 1.0, True, "1", b"1", (1,), [1], {1}, {"a": 1}, {1: "a"}, None, math.inf, 1j)


def test_values_of_different_types_differ():
    assert len({fingerprint_value(value) for value in VALUES}) == len(VALUES)
    assert fingerprint_value(math.nan) == fingerprint_value(float("nan"))
    assert fingerprint_value({"a": [1, (2, None)]}) == fingerprint_value({"a": [1, (2, None)]})
    assert fingerprint_value(np.float32(1)) != fingerprint_value(np.float64(1))
