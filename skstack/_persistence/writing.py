"""Write an estimator as a tree of JSON nodes, with arrays, networks and skops parts as members."""

from __future__ import annotations

import base64
import contextlib
import copy
import datetime
import enum
import io
import math
import pathlib
import sys
import types
import warnings
from collections import OrderedDict, defaultdict

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from skstack._base.keras_objects import customs_of, lost_settings
from skstack._base.sklearn import CALLBACKS_ATTRIBUTE
from skstack._persistence import networks
from skstack._persistence.known import (
    full_name,
    function_name,
    known_name,
    known_type,
    trusted_by_skops,
)
from skstack._persistence.parts import EMPTIED, part_bytes

_BY_SKOPS = ("imblearn", "numpy", "scipy", "sklearn")
_NO_DATA = ("joblib", "pandas", "polars", "tensorflow", "threading", "io", "_io", "_thread")
# Kinds of dicts, by the name in a file.
MAPPINGS = {"dict": dict, "OrderedDict": OrderedDict, "Bunch": Bunch}
# Supported callbacks with their arguments; others write files or hold functions.
CALLBACKS = {
    "EarlyStopping": (
        "monitor", "min_delta", "patience", "verbose", "mode", "baseline", "restore_best_weights",
        "start_from_epoch",
    ),
    "ReduceLROnPlateau": (
        "monitor", "factor", "patience", "verbose", "mode", "min_delta", "cooldown", "min_lr",
    ),
    "TerminateOnNaN": (),
}  # fmt: skip
# Immutable values by the name in a file: class, function to parts, function from parts.
INLINE = {
    "tuple": (tuple, list, tuple),
    "frozenset": (frozenset, list, frozenset),
    "complex": (complex, lambda x: [x.real, x.imag], lambda parts: complex(*parts)),
    "slice": (slice, lambda x: [x.start, x.stop, x.step], lambda parts: slice(*parts)),
    "range": (range, lambda x: [x.start, x.stop, x.step], lambda parts: range(*parts)),
    "datetime": (
        datetime.datetime,
        lambda x: [x.isoformat()],
        lambda parts: datetime.datetime.fromisoformat(*parts),
    ),
    "date": (
        datetime.date,
        lambda x: [x.isoformat()],
        lambda parts: datetime.date.fromisoformat(*parts),
    ),
    "timedelta": (
        datetime.timedelta,
        lambda x: [x.days, x.seconds, x.microseconds],
        lambda parts: datetime.timedelta(*parts),
    ),
    "timestamp": (
        pd.Timestamp,
        lambda x: [x.isoformat(), x.unit],
        lambda parts: pd.Timestamp(parts[0]).as_unit(parts[1]),
    ),
    "pandas_timedelta": (
        pd.Timedelta,
        lambda x: [x.isoformat(), x.unit],
        lambda parts: pd.Timedelta(parts[0]).as_unit(parts[1]),
    ),
    "interval": (
        pd.Interval,
        lambda x: [x.left, x.right, x.closed],
        lambda parts: pd.Interval(*parts),
    ),
}
_INLINE_KINDS = {cls: kind for kind, (cls, *_) in INLINE.items()}


class Writer:
    """Turns an estimator into nodes and members.

    Attributes
    ----------
    members : dict of str to bytes
        Further members of the archive.

    named : dict of str to class, function or None
        What must be trusted on loading; None if only the name is known.
    """

    def __init__(self):
        self.members = {}
        self.named = {}
        self._numbers = {}
        self._kept = []  # so that no id is reused

    def node(self, value, where):
        """The JSON node of a value; `where`, its path from the estimator, is for messages."""
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"is": "float", "value": repr(value)}
        if type(value) in _INLINE_KINDS:
            kind = _INLINE_KINDS[type(value)]
            return {"is": kind, "items": self._items(INLINE[kind][1](value), where)}
        if _package(type(value)) == "pandas":
            reason = "only timestamps, timedeltas and intervals of pandas are stored"
            way_out = "; pass list(...) of it instead" if hasattr(value, "tolist") else ""
            _refuse(where, value, reason + way_out)
        if type(value) is bytes:
            return {"is": "bytes", "value": _text(value)}
        if isinstance(value, pathlib.PurePath):
            return {"is": "path", "value": str(value)}
        if isinstance(value, np.generic):
            return {"is": "scalar", "dtype": value.dtype.str, "value": _text(value.tobytes())}
        if isinstance(value, np.dtype) and value.isbuiltin == 1:
            return {"is": "dtype", "value": value.str}
        if isinstance(value, type):
            return self._type(value)
        if isinstance(value, (types.FunctionType, types.BuiltinFunctionType)):
            return self._function(value, where)
        return self._numbered(value, where)

    def _items(self, values, where):
        return [self.node(each, f"{where}[{i}]") for i, each in enumerate(values)]

    def _pairs(self, pairs, where):
        return [
            [self.node(key, where), self.node(value, f"{where}[{key!r}]")] for key, value in pairs
        ]

    def _type(self, cls):
        name = known_name(cls) or full_name(cls)
        if known_type(name) is not cls:
            self.named[name] = cls
        return {"is": "type", "name": name}

    def _function(self, function, where):
        name = function_name(function)
        if name is not None:
            return {"is": "function", "name": name}
        if not isinstance(function, types.FunctionType) or function.__name__ == "<lambda>":
            _refuse(where, function, "only named functions can be stored")
        name = full_name(function)
        self.named[name] = function
        return {"is": "function", "name": name}

    def _numbered(self, value, where):
        """The node of an object, or its number if it occurs again."""
        if id(value) in self._numbers:
            return {"is": "again", "number": self._numbers[id(value)]}
        number = self._numbers[id(value)] = len(self._numbers)
        self._kept.append(value)
        return {**self._shared(value, where), "number": number}

    def _shared(self, value, where):
        cls = type(value)
        if cls in (list, set):
            return {"is": cls.__name__, "items": self._items(value, where)}
        if cls in MAPPINGS.values():
            return {"is": cls.__name__, "items": self._pairs(value.items(), where)}
        if cls is defaultdict:
            factory = self.node(value.default_factory, where)
            pairs = self._pairs(value.items(), where)
            return {"is": "defaultdict", "factory": factory, "items": pairs}
        if cls in (np.ndarray, np.memmap):
            return self._array(value, where)
        if cls is np.ma.MaskedArray:
            parts = [np.asarray(value.data), np.ma.getmaskarray(value), value.fill_value]
            return {"is": "masked", "items": self._items(parts, where)}
        keras = sys.modules.get("keras")
        if keras is not None and isinstance(value, keras.Model):
            return self._model(value, where)
        if _is_network(value):
            return self._network(value, where)
        if keras is not None and isinstance(value, keras.callbacks.Callback):
            if _package(cls) == "keras":
                return self._callback(value, where)
        elif keras is not None and _is_keras_object(value, keras):
            return self._config(value, where)
        name = known_name(cls)
        if name is None and _package(cls) in _BY_SKOPS:
            return self._skops(value, where)
        return self._object(value, name, where)

    def _array(self, value, where):
        if value.dtype == object:
            items = self._items(value.ravel().tolist(), where)
            return {"is": "objects", "shape": list(value.shape), "items": items}
        with _located(where, value):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(value), allow_pickle=False)
        return {"is": "array", "member": self._member("arrays", "npy", buffer.getvalue())}

    def _model(self, model, where):
        with _located(where, model):
            content = networks.model_bytes(model)
            names = networks.names_in_archive(content)
        _check_settings(getattr(model, "loss", None), model, where)
        return {
            "is": "model",
            "member": self._member("models", "keras", content),
            "seeds": self.node(networks.seeds_of(model), where),
            "names": self._customs(model, names, where),
        }

    def _network(self, network, where):
        """A trained network, stored as the model that it builds."""
        state = dict(network.__getstate__())
        variables = state.pop("variables")
        with _located(where, network):
            model = network.build()
            content = networks.model_bytes(model)
            names = networks.names_in_archive(content)
        return {
            "is": "network",
            "member": self._member("networks", "keras", content),
            "variables": list(variables),
            "digest": networks.digest(variables.values()),
            "seeds": self.node(networks.seeds_of(model), where),
            "names": self._customs(model, names, where),
            "state": self._state(state, where),
        }

    def _config(self, obj, where):
        with _located(where, obj):
            config = networks.config_of(obj)
            names = networks.names_in_config(config)
        _check_settings(obj, obj, where)
        return {"is": "keras", "config": config, "names": self._customs(obj, names, where)}

    def _callback(self, callback, where):
        kind = type(callback).__name__
        if kind not in CALLBACKS:
            _refuse(where, callback, f"only {', '.join(CALLBACKS)} of Keras' callbacks are stored")
        arguments = {name: getattr(callback, name) for name in CALLBACKS[kind]}
        return {"is": "callback", "name": kind, "items": self._pairs(arguments.items(), where)}

    def _customs(self, obj, names, where):
        """Full names of custom classes and functions, by the names that Keras stores."""
        customs = customs_of(obj) if names else {}
        missing = sorted(names - customs.keys())
        if missing:
            _refuse(
                where, obj,
                f"Keras stores {missing} by a name that is not registered; decorate them with "
                "@keras.saving.register_keras_serializable()",
            )  # fmt: skip
        full = {}
        for name in sorted(names):
            full[name] = known_name(customs[name]) if isinstance(customs[name], type) else None
            if full[name] is None:
                full[name] = full_name(customs[name])
                self.named[full[name]] = customs[name]
        return full

    def _skops(self, value, where):
        import skops.io

        if hasattr(value, "fit_resample"):
            value = _without_neighbours(value)
        with _located(where, value), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = part_bytes(value)
            untrusted = set(skops.io.get_untrusted_types(data=content)) - trusted_by_skops()
        for name in untrusted:
            if name.partition(".")[0] in ("skstack", "keras"):
                _refuse(
                    where, value,
                    f"it holds a {name}, but is not one of the meta-estimators that save "
                    "supports; save what it holds",
                )  # fmt: skip
        self.named.update(dict.fromkeys(untrusted))
        return {"is": "skops", "member": self._member("parts", "skops", content)}

    def _object(self, value, name, where):
        cls = type(value)
        stateless = not hasattr(value, "__dict__")
        slots = any(vars(each).get("__slots__") for each in cls.__mro__)
        is_enum = isinstance(value, enum.Enum)  # a copy would not be the same member
        if name is None and (_package(cls) in _NO_DATA or stateless or slots or is_enum):
            _refuse(where, value, "objects of this class cannot be stored without pickle")
        getter = next((each for each in cls.__mro__ if "__getstate__" in vars(each)), object)
        state = dict(value.__getstate__() if _package(getter) == "skstack" else vars(value))
        if name is not None or hasattr(value, "get_params"):
            state.update({each: None for each in EMPTIED if each in state})
            state.pop(CALLBACKS_ATTRIBUTE, None)  # of scikit-learn: objects of any class
        if name is None:
            name = full_name(cls)
            self.named[name] = cls
        return {"is": "object", "class": name, "state": self._state(state, where)}

    def _state(self, state, where):
        return [[key, self.node(value, f"{where}.{key}")] for key, value in state.items()]

    def _member(self, folder, suffix, content):
        name = f"{folder}/{len(self.members)}.{suffix}"
        self.members[name] = content
        return name


def _text(content):
    return base64.b64encode(content).decode("ascii")


def _package(cls):
    return cls.__module__.partition(".")[0]


def _is_network(value):
    module = sys.modules.get("skstack._training.network")
    return module is not None and type(value) is module.Network


def _is_keras_object(value, keras):
    kinds = (
        keras.Layer, keras.Loss, keras.Metric, keras.Optimizer, keras.Initializer,
        keras.Regularizer, keras.constraints.Constraint, keras.DTypePolicy,
        keras.optimizers.schedules.LearningRateSchedule,
    )  # fmt: skip
    return isinstance(value, kinds)


def _without_neighbours(sampler):
    """A copy of a sampler without its fitted estimators, which hold training rows."""
    sampler = copy.copy(sampler)
    for name, value in list(vars(sampler).items()):
        if name.endswith("_") and hasattr(value, "get_params"):
            delattr(sampler, name)
    return sampler


def _refuse(where, value, reason):
    text = repr(value).partition("\n")[0]
    text = text if len(text) <= 80 else f"{text[:77]}..."
    raise ValueError(f"{where} = {text} of class {full_name(type(value))}: {reason}")


def _check_settings(obj, owner, where):
    """Raise if a custom loss or the like would be another one when it is loaded."""
    with _located(where, owner):
        lost = lost_settings(obj)
    if lost:
        lacks = "; that of ".join(lost)
        must = "it must return all arguments of the constructor"
        _refuse(where, owner, f"the get_config of {lacks}, which would be lost ({must})")


def raise_full_disk(error):
    """Raise the OSError that caused an error, if any: Keras hides that of a full disk."""
    if isinstance(error, OSError):
        raise error
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            raise error
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def _located(where, value):
    """Context that adds `where` to the errors of Keras, skops and NumPy."""
    try:
        yield
    except Exception as error:
        raise_full_disk(error)
        reason = str(error).strip().partition("\n")[0]
        _refuse(where, value, f"{type(error).__name__}: {reason}")
