"""Fingerprints of functions and parameters: equal fingerprints mean equal behaviour.

Different fingerprints for equal values only cost a compilation, but equal ones for different values
give wrong results. Values that cannot be compared therefore raise `Unknown`.
"""

from __future__ import annotations

import builtins
import dis
import functools
import hashlib
import importlib.util
import math
import sys
import types
from collections.abc import Hashable

import keras
import numpy as np

# Code that does not change while a process runs, and so is identified by its name.
_LIBRARIES = frozenset({"keras", "tensorflow", "numpy", "scipy", "sklearn", "skstack"})
_KERAS_OBJECTS = (
    keras.optimizers.Optimizer,
    keras.losses.Loss,
    keras.metrics.Metric,
    keras.layers.Layer,
    keras.initializers.Initializer,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.DTypePolicy,
)
_IMPORT = dis.opmap["IMPORT_NAME"]


class Unknown(Exception):
    """Raised for a value that has no fingerprint."""


def fingerprint(function) -> Hashable:
    """Fingerprint a function by its code and everything that the code refers to.

    Parameters
    ----------
    function : callable
        A function, a class, a `functools.partial` or a function of a known library.

    Returns
    -------
    fingerprint : hashable
        Equal for functions with equal code that refers to equal values.

    Raises
    ------
    Unknown
        If the function refers to a value that cannot be compared.

    Examples
    --------
    >>> from skstack._training.fingerprint import fingerprint
    >>> def scaled(factor):
    ...     return lambda x: factor * x
    >>> fingerprint(scaled(2)) == fingerprint(scaled(2))
    True
    >>> fingerprint(scaled(2)) == fingerprint(scaled(3))
    False
    """
    if not callable(function):
        raise Unknown(f"not a function: {function!r}")
    return _Reader().whole(function)


def fingerprint_value(value) -> Hashable:
    """Fingerprint a number, string, container, array, function or object of Keras' own.

    Raise `Unknown` if it cannot be compared by value.
    """
    return _Reader().whole(value)


def fingerprint_config(cls, config) -> Hashable:
    """Fingerprint the object of a Keras class made from `config`."""
    return _Reader().config(cls, config)


def _from_library(value):
    module = getattr(value, "__module__", None) or ""
    top = module.partition(".")[0]
    return top in _LIBRARIES or (top in sys.stdlib_module_names and top != "__main__")


def _held_by_library(value):
    """Whether a known library holds this very object under its own name."""
    name = getattr(value, "__qualname__", None)
    if isinstance(value, type) or not isinstance(name, str) or not _from_library(value):
        return False
    return getattr(sys.modules.get(value.__module__), name, None) is value


class _Reader:
    """One traversal, which tracks the objects being read so that cycles end."""

    def __init__(self):
        self._open = {}
        self._modules = {}  # the user's, by name
        self._names = set()  # all names in the code that was read

    def whole(self, value) -> Hashable:
        """Read a value, and what its code may use of the modules that it reaches."""
        read = self.read(value)
        return (read, self._attributes()) if self._modules else read

    def read(self, value) -> Hashable:
        if value is None or value is Ellipsis or value is NotImplemented:
            return repr(value)
        kind = type(value)
        if kind in (bool, int, str, bytes):
            return (kind.__name__, value)
        if kind is float:
            return ("float", "nan" if math.isnan(value) else value.hex())
        if kind is complex:
            return ("complex", repr(value))
        if isinstance(value, np.generic):
            return self._array(np.asarray(value), "scalar")
        if kind is np.ndarray:
            return self._array(value, "array")
        if isinstance(value, (np.dtype, range, slice)):
            return (kind.__name__, repr(value))
        if id(value) in self._open:
            return ("inside", self._open[id(value)])
        self._open[id(value)] = len(self._open)
        try:
            return self._read_object(value, kind)
        finally:
            del self._open[id(value)]

    def _read_object(self, value, kind):
        if kind in (tuple, list):
            return (kind.__name__, tuple(self.read(item) for item in value))
        if kind in (set, frozenset):
            return (kind.__name__, tuple(sorted((self.read(item) for item in value), key=repr)))
        if kind is dict:
            return ("dict", tuple((self.read(k), self.read(v)) for k, v in value.items()))
        if isinstance(value, types.ModuleType):
            if not _known_module(value.__name__):
                self._modules[value.__name__] = value
            return ("module", value.__name__)
        if isinstance(value, types.CodeType):
            return self._code(value)
        if isinstance(value, functools.partial):
            return (
                "partial",
                self.read(value.func),
                self.read(value.args),
                self.read(value.keywords),
                self.read(vars(value)),
            )
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.BuiltinFunctionType) and (
            value.__self__ is None or isinstance(value.__self__, types.ModuleType)
        ):
            return ("builtin", value.__module__, value.__qualname__)
        if _held_by_library(value):  # np.exp, np.mean, tf.nn.relu: callable objects of many classes
            return ("library", value.__module__, value.__qualname__)
        if isinstance(value, np.ufunc):
            return ("ufunc", value.__name__)
        if isinstance(value, types.MethodType):
            return ("method", self.read(value.__func__), self.read(value.__self__))
        if isinstance(value, (staticmethod, classmethod)):
            return (kind.__name__, self.read(value.__func__))
        if kind is property:
            return ("property", *(self.read(part) for part in (value.fget, value.fset, value.fdel)))
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, _KERAS_OBJECTS):
            return self._keras_object(value)
        raise Unknown(f"an object of class {kind.__module__}.{kind.__qualname__}")

    def _array(self, array, kind):
        if array.dtype.hasobject:
            raise Unknown("an array of objects")
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        return (kind, str(array.dtype), array.shape, digest)

    def _code(self, code):
        return (
            "code",
            code.co_code,
            getattr(code, "co_exceptiontable", b""),
            tuple(self.read(constant) for constant in code.co_consts),
            (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars),
            (code.co_flags, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
        )

    def _function(self, function):
        # Its globals show where it was defined; `functools.wraps` changes `__module__`.
        defined_in = function.__globals__.get("__name__", "")
        if (
            defined_in == function.__module__
            and _from_library(function)
            and "<" not in function.__qualname__
        ):
            return ("function", function.__module__, function.__qualname__)
        cells = tuple(self._cell(cell) for cell in function.__closure__ or ())
        return (
            "function",
            self.read(function.__code__),
            self.read(function.__defaults__),
            self.read(function.__kwdefaults__),
            cells,
            self._globals(function),
            self.read(vars(function)),
        )

    def _cell(self, cell):
        try:
            return self.read(cell.cell_contents)
        except ValueError:
            return "empty"

    def _globals(self, function):
        code, defined_in = function.__code__, function.__globals__
        names = sorted(_names(code))
        self._names.update(names)
        values = [
            module if isinstance(module, tuple) else self.read(module)
            for module in _imported(code, defined_in.get("__package__"))
        ]
        for name in names:
            if name in defined_in:
                values.append((name, self.read(defined_in[name])))
            elif hasattr(builtins, name):
                values.append((name, "builtin"))
        return tuple(values)

    def _attributes(self):
        # Any name in any code may be an attribute of any module, which may hold further modules.
        values, before = [], -1
        seen: set[tuple[str, str]] = set()
        while before < len(seen):
            before = len(seen)
            for module in list(self._modules.values()):
                for name in sorted(self._names & vars(module).keys()):
                    if (module.__name__, name) not in seen:
                        seen.add((module.__name__, name))
                        values.append((module.__name__, name, self.read(vars(module)[name])))
        return tuple(values)

    def _class(self, cls):
        if _from_library(cls) or cls.__module__ == "builtins":
            return ("class", cls.__module__, cls.__qualname__)
        if type(cls) is not type and not _from_library(type(cls)):
            raise Unknown(f"a class with a metaclass: {cls!r}")
        ignored = {"__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__"}
        body = tuple(
            (name, self.read(value)) for name, value in vars(cls).items() if name not in ignored
        )
        return ("class", cls.__qualname__, tuple(self.read(base) for base in cls.__bases__), body)

    def _keras_object(self, value):
        if isinstance(value, keras.Model) or (
            isinstance(value, keras.layers.Layer) and value.variables
        ):
            raise Unknown(f"{value.name!r} holds weights")
        if hasattr(value, "get_vocabulary"):  # which its config may lack
            raise Unknown(f"{value.name!r} holds a vocabulary")
        config = dict(value.get_config())
        if isinstance(value, (keras.optimizers.Optimizer, keras.layers.Layer)):
            config.pop("name", None)  # often automatic: "adam_3"
        return self.config(type(value), config)

    def config(self, cls, config):
        if cls.__module__.partition(".")[0] not in ("keras", "skstack"):
            raise Unknown(f"an object of the user's class {cls.__qualname__}")
        _refuse_foreign(config)
        return ("keras", cls.__module__, cls.__qualname__, self.read(config))


def _names(code):
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names


def _imported(code, package):
    """The user's modules that code imports when it runs, with the packages that hold them.

    One that is not imported yet is a pair of words.
    """
    modules = []
    if _IMPORT in code.co_code[::2]:
        steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
        for level, _, step in zip(steps, steps[1:], steps[2:], strict=False):
            if step.opname == "IMPORT_NAME":
                modules += _named_module(step.argval, level.argval, package)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            modules += _imported(constant, package)
    return modules


def _named_module(name, level, package):
    try:
        parts = importlib.util.resolve_name("." * level + name, package).split(".")
    except ImportError as error:
        raise Unknown(f"the module {name!r}, whose package is not known") from error
    if _known_module(parts[0]):
        return []
    names = [".".join(parts[: i + 1]) for i in range(len(parts))]
    # One that is absent, or not imported yet, has another fingerprint once it is imported.
    return [sys.modules.get(each, ("not imported", each)) for each in names]


def _known_module(name):
    top = name.partition(".")[0]
    return top in _LIBRARIES or top in sys.stdlib_module_names or _is_installed(top)


def _is_installed(name):
    """Whether a module is part of an installed distribution, whose code does not change."""
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def _refuse_foreign(config):
    """Refuse serialised objects of classes that are not Keras': a name does not identify code."""
    if isinstance(config, dict):
        if {"class_name", "config"} <= config.keys():
            module = config.get("module") or ""
            own = module.partition(".")[0] in ("keras", "builtins", "skstack")
            if not own or config["class_name"] in ("function", "__lambda__"):
                raise Unknown(f"a serialised {config['class_name']!r}")
        for value in config.values():
            _refuse_foreign(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            _refuse_foreign(value)
