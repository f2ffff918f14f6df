"""The classes and functions that a file may name, and what the user trusts in addition."""

from __future__ import annotations

import functools
import importlib
import re
import sys
import types

from skstack._base.sklearn import fitted_parts
from skstack._model_files.allowed import allowed_function

# Packages of skstack whose classes are stored. Their constructors are not called.
_PACKAGES = {
    "_estimators",
    "_features",
    "_splits",
    "_stack",
    "ensemble",
    "losses",
    "networks",
    "preprocessing",
}
_OWN = re.compile(r"skstack\.([a-z_]+)(?:\.[a-z_]+)*\.[A-Za-z_][A-Za-z_0-9]*")
# Meta-estimators whose attributes are written as nodes; skops writes all other estimators.
_HOLDERS = (
    "imblearn.pipeline.Pipeline",
    "sklearn.calibration.CalibratedClassifierCV",
    "sklearn.compose.ColumnTransformer",
    "sklearn.compose.TransformedTargetRegressor",
    "sklearn.ensemble.BaggingClassifier",
    "sklearn.ensemble.BaggingRegressor",
    "sklearn.ensemble.StackingClassifier",
    "sklearn.ensemble.StackingRegressor",
    "sklearn.ensemble.VotingClassifier",
    "sklearn.ensemble.VotingRegressor",
    "sklearn.frozen.FrozenEstimator",
    "sklearn.model_selection.FixedThresholdClassifier",
    "sklearn.model_selection.GridSearchCV",
    "sklearn.model_selection.RandomizedSearchCV",
    "sklearn.model_selection.TunedThresholdClassifierCV",
    "sklearn.multiclass.OneVsOneClassifier",
    "sklearn.multiclass.OneVsRestClassifier",
    "sklearn.multioutput.ClassifierChain",
    "sklearn.multioutput.MultiOutputClassifier",
    "sklearn.multioutput.MultiOutputRegressor",
    "sklearn.multioutput.RegressorChain",
    "sklearn.pipeline.FeatureUnion",
    "sklearn.pipeline.Pipeline",
)
_REQUEST = "sklearn.utils.metadata_routing.MetadataRequest"
_METHOD_REQUEST = "sklearn.utils.metadata_routing.MethodMetadataRequest"
# Modules whose functions may be named in a file: activations, losses, metrics.
_FUNCTIONS = ("keras.activations", "keras.losses", "keras.metrics", "keras.ops", "sklearn.metrics")
_DEPENDENCIES = ("imblearn", "numpy", "scipy", "sklearn")  # imported by skstack anyway
_PLAIN_TYPES = ("bool", "bytes", "dict", "float", "int", "list", "object", "str", "tuple")


def full_name(obj):
    """Module and name of a class or function."""
    return f"{obj.__module__}.{obj.__qualname__}"


def _attribute(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@functools.cache
def _foreign_classes():
    """Third-party classes that are written as nodes, by their name in a file."""
    classes = {name: _attribute(name) for name in (*_HOLDERS, _REQUEST)}
    classes.update({full_name(part): part for part in fitted_parts()})
    classes[_METHOD_REQUEST] = type(classes[_REQUEST](owner="").fit)
    return classes


def known_class(name):
    """The class with a name in a file, or None if it is not known."""
    if name in _foreign_classes():
        return _foreign_classes()[name]
    match = _OWN.fullmatch(name)
    if match is None or match[1] not in _PACKAGES:
        return None
    module, _, attribute = name.rpartition(".")
    try:
        cls = vars(importlib.import_module(module)).get(attribute)
    except ModuleNotFoundError:
        return None
    defined_there = isinstance(cls, type) and full_name(cls) == name
    return cls if defined_there and not issubclass(cls, BaseException) else None


def known_name(cls):
    """The name in a file of a class, or None if it is not known."""
    root = cls.__module__.partition(".")[0]
    if root in ("sklearn", "imblearn"):
        return next((name for name, each in _foreign_classes().items() if each is cls), None)
    name = full_name(cls)
    return name if root == "skstack" and known_class(name) is cls else None


def known_function(name):
    """The function of Keras or scikit-learn with a name in a file, or None."""
    module, _, attribute = name.rpartition(".")
    if module not in _FUNCTIONS:
        return None
    if module != "sklearn.metrics":
        return allowed_function(module, attribute)
    function = getattr(importlib.import_module(module), attribute, None)
    return function if isinstance(function, types.FunctionType) else None


def function_name(function):
    """The name in a file of a function of Keras or scikit-learn, or None."""
    root = (getattr(function, "__module__", None) or "").partition(".")[0]
    modules = [module for module in _FUNCTIONS if module.partition(".")[0] == root]
    names = [f"{module}.{function.__name__}" for module in modules]
    return next((name for name in names if known_function(name) is function), None)


def known_type(name):
    """A class that a file may hold as a value (builtin, NumPy scalar or known), or None."""
    module, _, attribute = name.rpartition(".")
    if module == "builtins" and attribute in _PLAIN_TYPES:
        return getattr(sys.modules["builtins"], attribute)
    if module == "numpy":
        import numpy as np

        scalar = getattr(np, attribute, None)
        return scalar if isinstance(scalar, type) and issubclass(scalar, np.generic) else None
    return known_class(name)


@functools.cache
def trusted_by_skops():
    """Names of types that are trusted in addition to those of skops.

    Samplers and splitters are data like any estimator; sparse matrices are read without pickle.
    """
    from imblearn import combine, over_sampling, under_sampling
    from scipy import sparse
    from sklearn import model_selection

    samplers = [
        getattr(module, name) for module in (combine, over_sampling, under_sampling)
        for name in module.__all__
    ]  # fmt: skip
    splitters = (model_selection.BaseCrossValidator, model_selection.BaseShuffleSplit)
    matrices = (sparse.spmatrix, sparse.sparray)
    classes = [
        each
        for module, bases in ((model_selection, splitters), (sparse, matrices))
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, bases)
    ]
    selector = _attribute("sklearn.compose.make_column_selector")
    numbers = [f"numpy.{kind}" for kind in ("dtype", "number", "integer", "floating")]
    return {*map(full_name, [*samplers, *classes, selector]), *numbers}


class Trust:
    """Classes and functions that the user trusts, by name or as objects.

    Names are looked up in modules that are already imported.
    """

    def __init__(self, trusted):
        if not isinstance(trusted, (list, tuple, set, frozenset)) or not all(
            isinstance(each, (str, type, types.FunctionType)) for each in trusted
        ):
            raise TypeError(
                f"trusted={trusted!r} must be a list of classes, functions or their full names, "
                "such as ['my_module.MyLayer']."
            )
        self._names = {each for each in trusted if isinstance(each, str)}
        self._objects = {full_name(each): each for each in trusted if not isinstance(each, str)}

    def __contains__(self, name):
        return name in self._objects or name in self._names

    def find(self, name):
        """The class or function of a trusted name, in a module that is already imported."""
        if name in self._objects:
            return self._objects[name]
        if name not in self._names:
            raise ValueError(f"{name!r} is not trusted")
        parts = name.split(".")
        if parts[0] in _DEPENDENCIES:
            importlib.import_module(name.rpartition(".")[0])
        for end in range(len(parts) - 1, 0, -1):
            obj = sys.modules.get(".".join(parts[:end]))
            if obj is None:
                continue
            for part in parts[end:]:
                obj = getattr(obj, part, None)
            if callable(obj):
                return obj
            raise ValueError(f"{name!r} is trusted, but is not a class or function of its module")
        raise ValueError(
            f"{name!r} is trusted, but its module is not imported, and loading imports nothing: "
            "import it first, or pass the class or function itself in `trusted`"
        )
