"""Recipes: functions from a spec to a ``keras.Model``, whose parameters a search can set."""

from __future__ import annotations

import copy
import inspect

import numpy as np
from sklearn.base import BaseEstimator

_MUTABLE = (list, dict, set, bytearray, np.ndarray)


class Recipe(BaseEstimator):
    """How to build a network: parameters, and ``build(spec)``.

    It is no estimator, but has an estimator's parameters, so that ``model__hidden`` reaches
    them in a search. ``recipe`` makes subclasses from functions.
    """

    _parameter_constraints = {}

    def _validate_params(self):
        """Refuse values that no network can be built with; what a function takes, it knows."""

    def set_params(self, **params):
        """Set parameters.

        Parameters
        ----------
        **params : dict
            Parameters by name.

        Returns
        -------
        self : Recipe
            This recipe.

        Raises
        ------
        ValueError
            For a name that does not exist.
        """
        own = self.get_params(deep=False)
        for key in params:
            name, nested, _ = key.partition("__")
            value = params.get(name, own.get(name))
            if nested and name in own and not hasattr(value, "set_params"):
                raise ValueError(
                    f"Cannot set {key!r}: {name}={value!r} of {type(self).__name__} has no "
                    "parameters."
                )
        return super().set_params(**params)

    def build(self, spec):
        """Build the network.

        Parameters
        ----------
        spec : Spec
            The inputs and outputs that it must have.

        Returns
        -------
        keras.Model
        """
        raise NotImplementedError


def _listed(names):
    return ", ".join(map(repr, names)) if names else "no parameters"


def _parameters(function):
    """Return the keyword-only parameters of a recipe function; refuse any other kind."""
    rule = "A recipe is a function f(spec, *, parameter=default, ...)"
    if not inspect.isfunction(function):
        raise TypeError(f"{rule}; got {function!r}.")
    found = list(inspect.signature(function).parameters.values())
    name = function.__qualname__
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not found or found[0].name != "spec" or found[0].kind not in plain:
        raise TypeError(f"{rule}; the first parameter of {name}() is not 'spec'.")
    for parameter in found[1:]:
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise TypeError(
                f"{rule}; the parameter {str(parameter)!r} of {name}() is not keyword-only. A "
                "recipe's parameters need names of their own: write them behind '*'."
            )
        if "__" in parameter.name or hasattr(Recipe, parameter.name):
            raise TypeError(f"{rule}; {name}() cannot have a parameter called {parameter.name!r}.")
    return found[1:]


def _plain(value):
    """A NumPy number, as grids over ``np.arange`` hold them, as Python's; Keras takes no others."""
    return value.item() if isinstance(value, np.number | np.bool_) else value


def recipe(function):
    """Turn a function that builds a network into a class that holds its parameters.

    Parameters
    ----------
    function : callable
        ``f(spec, *, parameter=default, ...)``, which returns a ``keras.Model``. ``spec`` makes the
        inputs (``spec.inputs()``), joins them to one table (``spec.join(inputs)``) and makes the
        output layer (``spec.outputs(x)``).

    Returns
    -------
    type
        A subclass of ``Recipe``, with the function's name, module and docstring, so that its
        instances pickle. Its constructor takes the function's keyword-only parameters, with
        their defaults.

    Raises
    ------
    TypeError
        If the function's first parameter is not ``spec``, or one behind it is not
        keyword-only.

    Examples
    --------
    >>> from skstack.networks import recipe
    >>> @recipe
    ... def wide(spec, *, hidden=64, dropout=0.1):
    ...     import keras
    ...
    ...     inputs = spec.inputs()
    ...     x = keras.layers.Dense(hidden, activation="relu")(spec.join(inputs))
    ...     x = keras.layers.Dropout(dropout)(x)
    ...     return keras.Model(inputs, spec.outputs(x))
    >>> wide(hidden=128)
    wide(hidden=128)
    >>> wide(hiden=128)
    Traceback (most recent call last):
        ...
    TypeError: wide() has no parameter 'hiden'; it accepts 'hidden', 'dropout'.
    """
    parameters = _parameters(function)
    names = [parameter.name for parameter in parameters]
    label = function.__name__

    def __init__(self, *args, **values):
        if args:
            raise TypeError(f"{label}() takes keyword arguments only: {_listed(names)}.")
        for name in values:
            if name not in names:
                raise TypeError(
                    f"{label}() has no parameter {name!r}; it accepts {_listed(names)}."
                )
        for parameter in parameters:
            if parameter.name in values:
                value = values[parameter.name]
            elif parameter.default is parameter.empty:
                raise TypeError(f"{label}() needs a value for {parameter.name!r}.")
            elif isinstance(parameter.default, _MUTABLE):
                value = copy.deepcopy(parameter.default)
            else:
                value = parameter.default
            setattr(self, parameter.name, value)

    # scikit-learn reads parameters and defaults from the constructor's signature.
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    __init__.__signature__ = inspect.Signature([own, *parameters])
    __init__.__qualname__ = f"{function.__qualname__}.__init__"
    __init__.__module__ = function.__module__

    def build(self, spec):
        network = function(spec, **{name: _plain(getattr(self, name)) for name in names})
        import keras

        if not isinstance(network, keras.Model):
            raise TypeError(
                f"The recipe {label}() must return a keras.Model; it returned "
                f"{type(network).__name__}."
            )
        return network

    build.__doc__ = Recipe.build.__doc__
    build.__qualname__ = f"{function.__qualname__}.build"
    build.__module__ = function.__module__
    return type(
        label,
        (Recipe,),
        {
            "__init__": __init__,
            "build": build,
            "function": staticmethod(function),
            "__doc__": function.__doc__,
            "__module__": function.__module__,
            "__qualname__": function.__qualname__,
        },
    )
