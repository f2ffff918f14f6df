"""Whose instances a file may hold, and what the reader of a file trusts besides."""

from __future__ import annotations

import functools
import importlib
import re
import sys
import types

from skstack._base.sklearn import fitted_parts
from skstack._model_files.allowed import allowed_function

# Classes that are defined in these modules of ours are data: they come back without a constructor.
_ROOMS = {
    "_estimators",
    "_features",
    "_splits",
    "_stack",
    "losses",
    "networks",
    "preprocessing",
}
_OWN = re.compile(r"skstack\.([a-z_]+)(?:\.[a-z_]+)*\.[A-Za-z_][A-Za-z_0-9]*")
# Estimators that may hold ours: they are walked through; all others go through skops.
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
# Modules with functions that may stand in a file: activations, losses, metrics.
_FUNCTIONS = ("keras.activations", "keras.losses", "keras.metrics", "keras.ops", "sklearn.metrics")
_DEPENDENCIES = ("imblearn", "numpy", "scipy", "sklearn")  # what skstack imports anyway
_PLAIN_TYPES = ("bool", "bytes", "dict", "float", "int", "list", "object", "str", "tuple")


def full_name(thing):
    """Module and name of a class or function."""
    return f"{thing.__module__}.{thing.__qualname__}"


def _attribute(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@functools.cache
def _neighbours():
    """The classes of others that are walked through, by the name that a file has for them."""
    found = {name: _attribute(name) for name in _HOLDERS}
    found.update({full_name(part): part for part in fitted_parts()})
    found[_REQUEST] = _attribute(_REQUEST)
    found[_METHOD_REQUEST] = type(found[_REQUEST](owner="").fit)
    return found


def known_class(name):
    """The class that a file means by a name; None for all that are not on the list.

    Parameters
    ----------
    name : str
        As ``known_name`` gives it.

    Returns
    -------
    type or None
    """
    if name in _neighbours():
        return _neighbours()[name]
    match = _OWN.fullmatch(name)
    if match is None or match[1] not in _ROOMS:
        return None
    module, _, attribute = name.rpartition(".")
    try:
        found = vars(importlib.import_module(module)).get(attribute)
    except ModuleNotFoundError:
        return None
    defined = isinstance(found, type) and full_name(found) == name
    return found if defined and not issubclass(found, BaseException) else None


def known_name(cls):
    """The name that a file has for a class; None for all that are not on the list."""
    root = cls.__module__.partition(".")[0]
    if root in ("sklearn", "imblearn"):
        return next((name for name, each in _neighbours().items() if each is cls), None)
    name = full_name(cls)
    return name if root == "skstack" and known_class(name) is cls else None


def known_function(name):
    """The function of Keras or scikit-learn that a file means by a name; None for all others."""
    module, _, attribute = name.rpartition(".")
    if module not in _FUNCTIONS:
        return None
    if module != "sklearn.metrics":
        return allowed_function(module, attribute)
    found = getattr(importlib.import_module(module), attribute, None)
    return found if isinstance(found, types.FunctionType) else None


def function_name(function):
    """The name that a file has for such a function; None for all others."""
    root = (getattr(function, "__module__", None) or "").partition(".")[0]
    rooms = [room for room in _FUNCTIONS if room.partition(".")[0] == root]
    names = [f"{room}.{function.__name__}" for room in rooms]
    return next((name for name in names if known_function(name) is function), None)


def known_type(name):
    """A class that stands in a file as itself: a builtin, a scalar of NumPy or a known one."""
    module, _, attribute = name.rpartition(".")
    if module == "builtins" and attribute in _PLAIN_TYPES:
        return getattr(sys.modules["builtins"], attribute)
    if module == "numpy":
        import numpy as np

        found = getattr(np, attribute, None)
        return found if isinstance(found, type) and issubclass(found, np.generic) else None
    return known_class(name)


@functools.cache
def trusted_by_skops():
    """Names of types that are trusted besides those that skops trusts.

    Samplers and splitters come with imbalanced-learn and scikit-learn, and are data like any
    estimator; sparse matrices are read without pickle.
    """
    from imblearn import combine, over_sampling, under_sampling
    from scipy import sparse
    from sklearn import model_selection

    samplers = [
        getattr(room, name) for room in (combine, over_sampling, under_sampling)
        for name in room.__all__
    ]  # fmt: skip
    splitters = (model_selection.BaseCrossValidator, model_selection.BaseShuffleSplit)
    matrices = (sparse.spmatrix, sparse.sparray)
    found = [
        each
        for room, bases in ((model_selection, splitters), (sparse, matrices))
        for each in vars(room).values()
        if isinstance(each, type) and issubclass(each, bases)
    ]
    selector = _attribute("sklearn.compose.make_column_selector")
    numbers = [f"numpy.{kind}" for kind in ("dtype", "number", "integer", "floating")]
    return {*map(full_name, [*samplers, *found, selector]), *numbers}


class Trust:
    """What the reader of a file trusts: classes and functions, named or handed over.

    Parameters
    ----------
    trusted : sequence of str, type or function
        A name is looked up among the modules that are imported already.

    Raises
    ------
    TypeError
        If ``trusted`` is something else.
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
        self._things = {full_name(each): each for each in trusted if not isinstance(each, str)}

    def __contains__(self, name):
        return name in self._things or name in self._names

    def find(self, name):
        """The class or function of a trusted name.

        Raises
        ------
        ValueError
            If it is not trusted, its module is not imported, or holds no such thing.
        """
        if name in self._things:
            return self._things[name]
        if name not in self._names:
            raise ValueError(f"{name!r} is not trusted")
        parts = name.split(".")
        if parts[0] in _DEPENDENCIES:
            importlib.import_module(name.rpartition(".")[0])
        for border in range(len(parts) - 1, 0, -1):
            module = sys.modules.get(".".join(parts[:border]))
            if module is None:
                continue
            found = module
            for part in parts[border:]:
                found = getattr(found, part, None)
            if callable(found):
                return found
            raise ValueError(f"{name!r} is trusted, but is no class or function of its module")
        raise ValueError(
            f"{name!r} is trusted, but its module is not imported, and loading imports nothing: "
            "import it first, or pass the class or function itself in `trusted`"
        )
