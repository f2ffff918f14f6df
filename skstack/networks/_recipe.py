"""Recipes: functions from a spec to a ``keras.Model``, whose parameters a search can set."""

from __future__ import annotations

import copy
import inspect
import traceback

import numpy as np
from sklearn.base import BaseEstimator

from skstack._base.atomic_fit import copy_of
from skstack._base.params import (
    clone_sharing_models,
    explain_missing_parameters,
    reduced,
    with_keras_settings,
)
from skstack._base.sklearn import get_param_names
from skstack.networks._cloning import is_builtin_keras
from skstack.networks._numeric import Periodic, PiecewiseLinear
from skstack.networks._spec import mean_of_members, member_parts, output_activation

_MUTABLE = (list, dict, set, bytearray, np.ndarray)


class Recipe(BaseEstimator):
    """How to build a network: parameters, and ``build(spec)``.

    It is not an estimator, but has parameters like one, so that a search can set
    ``model__hidden``. ``recipe`` makes subclasses from functions.

    Examples
    --------
    >>> from skstack.networks import MLP, Recipe
    >>> isinstance(MLP(dropout=0.1), Recipe), MLP(dropout=0.1).get_params()["dropout"]
    (True, 0.1)
    """

    _get_param_names = get_param_names
    _parameter_constraints = {}
    max_epochs = 100  # of ``epochs="auto"``

    def __sklearn_clone__(self):
        return clone_sharing_models(self)

    def __copy__(self):
        return copy_of(self)

    def __reduce_ex__(self, protocol):
        return reduced(self, super().__reduce_ex__(protocol))

    def _validate_params(self):
        """Validate the parameters; functions validate their own."""

    def default_optimizer(self, spec):
        """Return what ``optimizer="auto"`` uses for this network.

        Parameters
        ----------
        spec : Spec
            The inputs and outputs of the network.

        Returns
        -------
        keras.optimizers.Optimizer or None
            None for the default, Adam.
        """
        return None

    def default_learning_rate(self, n_steps):
        """Return what ``learning_rate="auto"`` uses with ``optimizer="auto"``.

        Parameters
        ----------
        n_steps : int
            Number of steps in an epoch, at least 1.

        Returns
        -------
        float or None
            None keeps the learning rate of the optimizer.
        """
        return None

    def step_rules(self, spec):
        """Return how learning rate and weight decay vary by step and variable.

        Parameters
        ----------
        spec : Spec
            The inputs and outputs of the network.

        Returns
        -------
        StepRules or None
            None if all steps and variables are treated alike.
        """
        return None

    def initialize(self, spec, start):
        """Change the initial weights in place.

        Parameters
        ----------
        spec : Spec
            The inputs and outputs of the network.

        start : dict of str to ndarray
            Weights by the path of their variable.
        """

    def initialize_from_rows(self, spec, start, rows):
        """Change initial weights that depend on training rows in place.

        Scales, quantiles and bins of columns have been learned before.

        Parameters
        ----------
        spec : Spec
            The inputs and outputs of the network.

        start : dict of str to ndarray
            Weights by the path of their variable.

        rows : StartRows
            The training rows.
        """

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
            If there is no parameter of this name.
        """
        explain_missing_parameters(self, params, _remedy)
        return super().set_params(**with_keras_settings(self, params))

    def build(self, spec):
        """Build the network.

        Parameters
        ----------
        spec : Spec
            The inputs and outputs that it must have.

        Returns
        -------
        keras.Model
            The network, which is not compiled.

        Raises
        ------
        ValueError
            If a parameter is invalid, or the recipe does not support the inputs.
        """
        raise NotImplementedError


def _remedy(name, value):
    if name == "numeric_embedding":
        return "Pass an embedding, such as numeric_embedding=PiecewiseLinear()."
    return "Pass an object that has parameters."


def _listed(names):
    return ", ".join(map(repr, names)) if names else "no parameters"


def _parameters(function):
    """The keyword-only parameters of a recipe function; other kinds are refused."""
    rule = "A recipe is a function f(spec, *, parameter=default, ...)"
    if not inspect.isfunction(function):
        raise TypeError(f"{rule}; got {function!r}.")
    parameters = list(inspect.signature(function).parameters.values())
    name = function.__qualname__
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or parameters[0].name != "spec" or parameters[0].kind not in plain:
        raise TypeError(f"{rule}; the first parameter of {name}() is not 'spec'.")
    for parameter in parameters[1:]:
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            raise TypeError(
                f"{rule}; the parameter {str(parameter)!r} of {name}() is not keyword-only. Write "
                "the parameters of a recipe after '*'."
            )
        if "__" in parameter.name or hasattr(Recipe, parameter.name):
            raise TypeError(f"{rule}; {name}() cannot have a parameter called {parameter.name!r}.")
    return parameters[1:]


def _check_is_model(network, recipe_name):
    import keras

    if not isinstance(network, keras.Model):
        raise TypeError(
            f"The recipe {recipe_name}() must return a keras.Model; it returned "
            f"{type(network).__name__}."
        )
    return network


def _plain(value):
    """Convert NumPy scalars, as from ``np.arange``, to the Python numbers that Keras requires."""
    return value.item() if isinstance(value, np.number | np.bool_) else value


def recipe(function):
    """Turn a function that builds a network into a class that holds its parameters.

    Parameters
    ----------
    function : callable
        ``f(spec, *, parameter=default, ...)``, which returns a ``keras.Model``. ``spec`` creates
        the inputs (``spec.inputs()``), concatenates them to one table (``spec.join(inputs)``) and
        creates the output layer (``spec.outputs(x)``).

    Returns
    -------
    type
        A subclass of ``Recipe`` with the function's name, module and docstring, so that its
        instances can be pickled. Its constructor has the function's keyword-only parameters and
        their defaults.

    Raises
    ------
    TypeError
        If the function's first parameter is not ``spec``, or another one is not keyword-only.

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
    module = function.__module__ or "__main__"  # None in a namespace without a name

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
    __init__.__module__ = module

    def build(self, spec):
        network = function(spec, **{name: _plain(getattr(self, name)) for name in names})
        return _check_is_model(network, label)

    build.__doc__ = Recipe.build.__doc__
    build.__qualname__ = f"{function.__qualname__}.build"
    build.__module__ = module
    return type(
        label,
        (Recipe,),
        {
            "__init__": __init__,
            "build": build,
            "function": staticmethod(function),
            "__doc__": function.__doc__,
            "__module__": module,
            "__qualname__": function.__qualname__,
        },
    )


def _is_own_refusal(error):
    """Whether skstack itself raised the error, whose message then names the parameter."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    own = str(frame.f_globals.get("__name__", "")).partition(".")[0] == "skstack"
    return own and isinstance(error, (ValueError, TypeError))


def _fingerprints(part, fingerprint_value):
    """Fingerprints of the parameters of a recipe, and of its numeric embedding."""
    return tuple(
        (name, (type(value).__name__, _fingerprints(value, fingerprint_value)))
        if type(value) in (PiecewiseLinear, Periodic)
        else (name, fingerprint_value(value))
        for name, value in sorted(part.get_params(deep=False).items())
    )


_MOST_ROWS = 4096


class StartRows:
    """Training rows for initial weights that depend on them.

    Parameters
    ----------
    blueprint : RecipeBlueprint
    start : dict of str to ndarray
        Initial variables of the network.
    inputs : dict of str to ndarray of shape (n_rows, ...)
    weights : ndarray of shape (n_rows,) or None
    seed : int
    """

    def __init__(self, blueprint, start, inputs, weights, seed):
        self._blueprint, self._start = blueprint, start
        self.inputs, self.weights, self.seed = inputs, weights, seed

    def outputs(self, layer):
        """Output of a layer for at most 4,096 rows, and their weights or None.

        Computed once, so nothing is compiled.
        """
        import keras

        from skstack._training.isolation import preserve_rng
        from skstack._training.network import Network

        inputs, weights = self.inputs, self.weights
        n_rows = len(next(iter(inputs.values())))
        if n_rows > _MOST_ROWS:
            rng = np.random.default_rng(self.seed)
            rows = np.sort(rng.choice(n_rows, _MOST_ROWS, replace=False))
            inputs = {name: array[rows] for name, array in inputs.items()}
            weights = None if weights is None else weights[rows]
        with preserve_rng():
            model = Network(self._blueprint, self._start).build()
            part = keras.Model(model.input, model.get_layer(layer).output)
            return np.asarray(part(inputs, training=False)), weights


class RecipeBlueprint:
    """A recipe and the spec to build for; the estimator sets loss, optimizer and metrics."""

    continued = False
    learns_raw_targets = False
    loss = None
    metrics = None

    def __init__(self, recipe, spec):
        self.recipe = recipe
        self.spec = spec

    @property
    def optimizer(self):
        """What ``optimizer="auto"`` uses; None for the default of the estimators."""
        return self.recipe.default_optimizer(self.spec)

    def learning_rate(self, n_steps):
        """See ``Recipe.default_learning_rate``."""
        return self.recipe.default_learning_rate(n_steps)

    @property
    def step_rules(self):
        """See ``Recipe.step_rules``."""
        return self.recipe.step_rules(self.spec)

    @property
    def label_smoothing(self):
        """Share of the labels that the training loss spreads over all classes."""
        builtin = type(self.recipe).__module__.partition(".")[0] == "skstack"
        return getattr(self.recipe, "label_smoothing", 0.0) if builtin else 0.0

    def initialize(self, start):
        """See ``Recipe.initialize``."""
        self.recipe.initialize(self.spec, start)

    def initialize_from_rows(self, start, inputs, weights, seed):
        """See ``Recipe.initialize_from_rows``."""
        rows = StartRows(self, start, inputs, weights, seed)
        self.recipe.initialize_from_rows(self.spec, start, rows)

    def member_outputs(self):
        """Activation and layer of each part of the output of a network with members."""
        return [
            (output_activation(part), self.spec.layer_name(name))
            for part, name in member_parts(self.spec)
        ]

    def has_members(self, start) -> bool:
        """Whether the network with these initial variables has members."""
        paths = [f"{name}/kernel" for _, name in self.member_outputs()]
        return all(path in start and start[path].ndim == 3 for path in paths)

    def with_mean(self, model):
        """The network that returns the mean of members, from one that is trained."""
        import keras

        tensors = [model.get_layer(name).output for _, name in self.member_outputs()]
        return keras.Model(model.input, mean_of_members(self.spec, tensors), name=model.name)

    def __repr__(self):
        return f"{type(self).__name__}({self.recipe!r})"

    def build(self):
        """Build the network with inputs by block name, and check its shapes."""
        import keras

        name = type(self.recipe).__name__
        try:
            network = self.recipe.build(self.spec)
        except Exception as error:  # a user's function may raise anything
            if _is_own_refusal(error):
                raise
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(
                f"The recipe {name}() failed with the parameters {self.recipe.get_params()}: "
                f"{type(error).__name__}: {error}"
            ) from error
        _check_is_model(network, name)
        if network.compiled:
            raise ValueError(
                f"The recipe {name}() returned a compiled keras.Model. Leave compile out and pass "
                "optimizer, loss and metrics to the estimator."
            )
        if not getattr(network, "inputs", None):
            raise ValueError(
                f"The recipe {name}() must return a functional keras.Model(inputs, outputs); it "
                f"returned a {type(network).__name__} without known inputs."
            )
        expected = {block.name: (None, *block.shape) for block in self.spec.blocks}
        shapes = {tensor.name: tuple(tensor.shape) for tensor in network.inputs}
        if shapes != expected:
            raise ValueError(
                f"The recipe {name}() must return a network with the inputs {expected}, those of "
                f"spec.inputs(); it has {shapes}."
            )
        shapes = [tuple(tensor.shape) for tensor in network.outputs]
        if shapes != [self.spec.output_shape]:
            raise ValueError(
                f"The recipe {name}() must return a network with one output of shape "
                f"{self.spec.output_shape}, that of spec.outputs(x); it has {shapes}."
            )
        if isinstance(getattr(network, "input", None), dict):
            return network
        if not is_builtin_keras(network):
            raise ValueError(
                f"The recipe {name}() must pass the whole dict spec.inputs() to "
                f"{type(network).__name__}(inputs, outputs)."
            )
        inputs = {tensor.name: tensor for tensor in network.inputs}
        return keras.Model(inputs, network.outputs[0], name=network.name)

    @property
    def key(self):
        """Hashable that is equal only for blueprints of the same network; None if unknown."""
        from skstack._training.fingerprint import Unknown, fingerprint, fingerprint_value

        cls = type(self.recipe)
        builtin = cls.__module__.partition(".")[0] == "skstack"
        try:
            code = cls.__name__ if builtin else fingerprint(cls.function)
            parameters = _fingerprints(self.recipe, fingerprint_value)
        except (Unknown, AttributeError):
            return None
        return ("recipe", code, parameters, self.spec)


def rules_of(blueprint):
    """``StepRules`` of the network of a blueprint, or None."""
    return blueprint.step_rules if isinstance(blueprint, RecipeBlueprint) else None


def label_smoothing_of(blueprint) -> float:
    """The label smoothing of the network of a blueprint."""
    return float(blueprint.label_smoothing) if isinstance(blueprint, RecipeBlueprint) else 0.0


def has_members(blueprint, start) -> bool:
    """Whether the network of a blueprint, with initial variables ``start``, has members."""
    return isinstance(blueprint, RecipeBlueprint) and blueprint.has_members(start)
