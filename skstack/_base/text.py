"""Estimators as text: objects of Keras as the calls that make them; messages without seeds."""

from __future__ import annotations

import inspect
import re

import numpy as np
from sklearn.base import BaseEstimator

from skstack._base.keras_objects import complete_config, has_settings, is_serialized
from skstack._base.sklearn import print_estimators_with

_REPRESENTATIONS = {BaseEstimator.__repr__}


def described(value):
    """Text of a parameter's value for a message, without seeds: the user may not have set them."""
    return repr(_shown(value, seeds=False))


def readable(cls):
    """Class decorator: objects of Keras among the parameters are printed as calls."""

    def __repr__(self, N_CHAR_MAX=700):
        return BaseEstimator.__repr__(_shown(self), N_CHAR_MAX)

    cls.__repr__ = __repr__
    _REPRESENTATIONS.add(__repr__)
    print_estimators_with(__repr__, _shown)
    return cls


class _Call:
    """Prints as a given text."""

    def __init__(self, text):
        self._text = text

    def __repr__(self):
        return self._text


def _shown(value, *, seeds=True):
    """What is printed instead of a value: estimators become stand-ins with the same parameters."""
    if type(value) in (list, tuple):
        return type(value)(_shown(each, seeds=seeds) for each in value)
    if type(value) is dict:
        return {key: _shown(each, seeds=seeds) for key, each in value.items()}
    if has_settings(value):
        return _Call(text_of(value))
    cls = type(value)
    if not isinstance(value, BaseEstimator) or cls.__repr__ not in _REPRESENTATIONS:
        return value
    params = {
        name: None if name == "random_state" and not seeds else _shown(each, seeds=seeds)
        for name, each in value.get_params(deep=False).items()
    }
    # Its own class, because scikit-learn's printer looks up the class's __repr__.
    namespace = {"__init__": cls.__init__, "get_params": lambda self, deep=True: params}
    return object.__new__(type(cls.__name__, (BaseEstimator,), namespace))


# Objects of Keras --------------------------------------------------------------------------------


def text_of(value):
    """The call that makes an object of Keras, such as ``SGD(learning_rate=0.1)``."""
    cls = type(value)
    try:
        config, defaults = complete_config(value), _defaults(cls)
        shown = [
            f"{name}={_text(setting)}"
            for name, setting in config.items()
            if name in defaults
            and name != "dtype"
            and not _is_default(setting, defaults[name])
            and not _is_automatic(name, setting, cls)
        ]
    except Exception:  # custom classes may raise anything
        return f"{cls.__name__}(...)"
    return f"{cls.__name__}({', '.join(shown)})"


def _defaults(cls):
    """Defaults of all arguments that the constructors of a class and its bases have."""
    constructors = [base.__init__ for base in reversed(cls.__mro__) if "__init__" in vars(base)]
    parameters = [inspect.signature(each).parameters for each in constructors]
    return {name: each[name].default for each in parameters for name in each}


def _is_automatic(name, setting, cls):
    """Whether a setting is the name that Keras makes from that of a class or its base."""
    made = re.sub(r"_\d+$", "", str(setting)).replace("_", "").lower()
    names = [base.__name__.replace("_", "").lower() for base in cls.__mro__]
    return name == "name" and made in names


def _is_default(setting, default):
    if isinstance(setting, float) and isinstance(default, (int, float)):
        return bool(np.float32(setting) == np.float32(default))  # as Keras stores it
    return type(setting) is type(default) and bool(setting == default)


def _text(setting):
    if isinstance(setting, float) and np.float32(setting) == setting:
        return str(np.float32(setting))
    if is_serialized(setting):
        inner = setting["config"]
        return f"{setting['class_name']}(...)" if isinstance(inner, dict) else str(inner)
    return repr(setting)
